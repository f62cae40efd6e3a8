--- Suggestions as extmarks, for Neovim before 0.12: asked for as the user types, drawn behind the
--- cursor, dropped when text or cursor have moved on.

local options = require('tandem.options')
local server = require('tandem.server')
local text = require('tandem.text')

local M = {}

local namespace = vim.api.nvim_create_namespace('tandem')

local state = {
  --- The request on its way: { client, id }.
  pending = nil,
  --- Where the last request was for, so that two events of one key ask once.
  asked = nil,
  --- What is shown: { buffer, row, col, rest, item, client_id }.
  shown = nil,
}

local function insert_mode()
  return vim.api.nvim_get_mode().mode:sub(1, 1) == 'i'
end

local function place()
  local row, col = unpack(vim.api.nvim_win_get_cursor(0))
  local buffer = vim.api.nvim_get_current_buf()
  return { buffer = buffer, row = row - 1, col = col, tick = vim.api.nvim_buf_get_changedtick(buffer) }
end

local function wipe()
  for _, buffer in ipairs(vim.api.nvim_list_bufs()) do
    if vim.api.nvim_buf_is_loaded(buffer) then
      vim.api.nvim_buf_clear_namespace(buffer, namespace, 0, -1)
    end
  end
end

local function cancel()
  local pending = state.pending
  state.pending = nil
  if pending then
    pcall(server.cancel, pending.client, pending.id)
  end
end

--- Takes back what was asked and what is shown.
function M.clear()
  cancel()
  state.asked = nil
  if state.shown then
    state.shown = nil
    wipe()
  end
end

local function draw()
  wipe()
  local shown = state.shown
  if not shown then
    return
  end
  local tab = (' '):rep(vim.bo[shown.buffer].tabstop)
  local lines = {}
  for line in vim.gsplit(shown.rest, '\n', { plain = true }) do
    table.insert(lines, { { (line:gsub('\t', tab)), 'TandemGhost' } })
  end
  vim.api.nvim_buf_set_extmark(shown.buffer, namespace, shown.row, shown.col, {
    virt_text = lines[1],
    virt_text_pos = 'inline',
    virt_lines = vim.list_slice(lines, 2),
    hl_mode = 'combine',
  })
end

--- Keeps what is shown while the user types along with it; drops it otherwise.
local function follow(here)
  local shown = state.shown
  if not shown then
    return
  end
  local rest = shown.buffer == here.buffer
    and text.rest(here.buffer, shown.item, shown.start_row, shown.start_col, here.row, here.col)
  if not rest or rest == '' then
    state.shown = nil
    wipe()
    return
  end
  shown.rest, shown.row, shown.col = rest, here.row, here.col
  draw()
end

local function answered(client, here, result)
  local now = place()
  if
    now.buffer ~= here.buffer
    or now.tick ~= here.tick
    or now.row ~= here.row
    or now.col ~= here.col
    or not insert_mode()
  then
    return
  end
  local items = type(result) == 'table' and (result.items or result) or {}
  local item = items[1]
  if type(item) ~= 'table' or type(item.insertText) ~= 'string' then
    state.shown = nil
    wipe()
    return
  end
  local start_row, start_col = here.row, here.col
  if type(item.range) == 'table' then
    local start = item.range.start
    local line = vim.api.nvim_buf_get_lines(here.buffer, start.line, start.line + 1, false)[1] or ''
    start_row, start_col = start.line, text.byte(line, start.character, client.offset_encoding)
  end
  local rest = text.rest(here.buffer, item, start_row, start_col, here.row, here.col)
  state.shown = rest
      and rest ~= ''
      and {
        buffer = here.buffer,
        row = here.row,
        col = here.col,
        start_row = start_row,
        start_col = start_col,
        rest = rest,
        item = item,
        client_id = client.id,
      }
    or nil
  draw()
  if state.shown then
    server.notify(client, 'textDocument/didShowCompletion', { item = item })
  end
end

--- Asks for what belongs at the cursor. The server itself waits until the user stops typing.
function M.ask()
  local here = place()
  local asked = state.asked
  if asked and vim.deep_equal(asked, here) then
    return
  end
  cancel()
  state.asked = here
  follow(here)
  local client = server.clients(here.buffer)[1]
  if not client or server.state.paused or not options.now.ghost_text then
    return
  end
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  params.context = { triggerKind = 2 }
  local request = {}
  local sent, id = server.request(client, 'textDocument/inlineCompletion', params, function(err, result)
    -- A newer request, or the end of insert mode, has put another in its place.
    if state.pending ~= request then
      return
    end
    state.pending = nil
    if not err then
      answered(client, here, result)
    end
  end, here.buffer)
  if sent then
    request.client, request.id = client, id
    state.pending = request
  end
end

--- Whether there is something to accept here.
---@return boolean
function M.visible()
  local shown = state.shown
  if not shown or not insert_mode() then
    return false
  end
  -- Keys that come in a heap have not been followed yet.
  follow(place())
  return state.shown ~= nil
end

--- Accepts what is shown, or its next word or line.
---@param part 'word'|'line'|nil
---@return boolean whether there was something
function M.accept(part)
  if not M.visible() then
    return false
  end
  -- An `<expr>` mapping may not change text, so it is changed when that has ended.
  vim.schedule(function()
    if not M.visible() then
      return
    end
    local shown = state.shown
    local client = vim.lsp.get_client_by_id(shown.client_id)
    local taken = text.part(shown.rest, part)
    local whole = taken == shown.rest
    if whole then
      M.clear()
    end
    text.insert(taken)
    M.told(client, shown.item, whole, shown.rest, taken)
    if not whole then
      follow(place())
    end
  end)
  return true
end

--- Tells the server what became of a suggestion.
---@param whole boolean whether nothing of it is left
---@param rest string what of it was not taken before
---@param taken string what of that was taken now
function M.told(client, item, whole, rest, taken)
  if not client then
    return
  end
  if not whole then
    local length = text.utf16(item.insertText) - text.utf16(rest) + text.utf16(taken)
    server.notify(client, 'textDocument/didPartiallyAcceptCompletion', {
      item = item,
      acceptedLength = length,
    })
  elseif item.command then
    server.execute(client, item.command.command, item.command.arguments)
  end
end

--- Takes back what is shown, until the text changes.
---@return boolean whether there was something
function M.dismiss()
  local visible = M.visible()
  local asked = state.asked
  M.clear()
  -- The same place is not asked about again.
  state.asked = asked
  return visible
end

--- Draws suggestions from now on.
function M.enable()
  vim.api.nvim_set_hl(0, 'TandemGhost', { link = 'NonText', default = true })
  local group = vim.api.nvim_create_augroup('tandem.ghost', {})
  vim.api.nvim_create_autocmd({ 'InsertEnter', 'CursorMovedI', 'TextChangedI', 'TextChangedP' }, {
    group = group,
    callback = function(event)
      if event.event == 'InsertEnter' then
        state.asked = nil
        -- At the event itself the mode is still the old one.
        vim.schedule(function()
          if insert_mode() then
            M.ask()
          end
        end)
      else
        M.ask()
      end
    end,
  })
  vim.api.nvim_create_autocmd({ 'InsertLeave', 'BufLeave', 'LspDetach' }, {
    group = group,
    callback = M.clear,
  })
end

--- Draws nothing any more.
function M.disable()
  pcall(vim.api.nvim_del_augroup_by_name, 'tandem.ghost')
  M.clear()
end

return M
