--- The next edit: found and shown where it is, then made, one after another.

local say = require('tandem.say')
local server = require('tandem.server')
local text = require('tandem.text')

local M = {}

local namespace = vim.api.nvim_create_namespace('tandem.next')

--- What is shown: { buffer, tick, row, edit, client_id }.
local shown

--- Why there is none, by the server's word for it.
local REASONS = {
  disabled = 'proposals are switched off (`completion.next_edit`).',
  paused = 'it is paused. `:Tandem resume` ends that.',
  ['language-off'] = 'it is switched off in this language (`completion.languages_off`).',
  ['path-off'] = 'it is switched off in this file (`completion.paths_off`).',
  ['document-unavailable'] = 'this buffer is too large, or the server does not have it.',
}

local function forget()
  if shown and vim.api.nvim_buf_is_valid(shown.buffer) then
    vim.api.nvim_buf_clear_namespace(shown.buffer, namespace, 0, -1)
  end
  shown = nil
end

--- Whether what is shown is still about the text that is there.
local function current()
  return shown ~= nil
    and shown.buffer == vim.api.nvim_get_current_buf()
    and shown.tick == vim.api.nvim_buf_get_changedtick(shown.buffer)
end

--- Where a range of the protocol, on one line, is in the buffer: row, column, end column.
local function place(buffer, range, encoding)
  local row = range.start.line
  local line = vim.api.nvim_buf_get_lines(buffer, row, row + 1, false)[1] or ''
  return row, text.byte(line, range.start.character, encoding), text.byte(line, range['end'].character, encoding)
end

local function go_to(row, col)
  vim.cmd("normal! m'")
  vim.api.nvim_win_set_cursor(0, { row + 1, col })
end

local function show(client, buffer, edit)
  forget()
  local row, from, to = place(buffer, edit.range, client.offset_encoding)
  shown = {
    buffer = buffer,
    tick = vim.api.nvim_buf_get_changedtick(buffer),
    row = row,
    col = from,
    edit = edit,
    client_id = client.id,
  }
  local new = vim.split(edit.text:gsub('\t', (' '):rep(vim.bo[buffer].tabstop)), '\n', { plain = true })
  vim.api.nvim_buf_set_extmark(buffer, namespace, row, from, {
    end_col = to,
    hl_group = 'TandemNextOld',
  })
  vim.api.nvim_buf_set_extmark(buffer, namespace, row, to, {
    virt_text = { { new[1], 'TandemNextNew' } },
    virt_text_pos = 'inline',
    virt_lines = vim.tbl_map(function(line)
      return { { line, 'TandemNextNew' } }
    end, vim.list_slice(new, 2)),
  })
  go_to(row, from)
end

--- Asks, and shows what comes.
---@param quiet boolean Whether nothing is said where there is none.
local function ask(quiet)
  local buffer = vim.api.nvim_get_current_buf()
  local client = server.clients(buffer)[1]
  if not client then
    say.now('it does not run in this buffer. See `:checkhealth tandem`.', vim.log.levels.WARN)
    return
  end
  local tick = vim.api.nvim_buf_get_changedtick(buffer)
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  server.request(client, 'tandem/inlineEdit', params, function(err, list)
    if
      vim.api.nvim_get_current_buf() ~= buffer
      or vim.api.nvim_buf_get_changedtick(buffer) ~= tick
    then
      return
    end
    local edit = type(list) == 'table' and type(list.edits) == 'table' and list.edits[1]
    if edit then
      show(client, buffer, edit)
    elseif err then
      say.now(
        ('the next edit failed: %s. See `:Tandem log`.'):format(err.message or vim.inspect(err)),
        vim.log.levels.WARN
      )
    elseif not quiet then
      local reason = type(list) == 'table' and REASONS[list.emptyReason]
      say.now(reason or 'no next edit is likely here.')
    end
  end, buffer)
end

local function tell(client, command)
  if client and type(command) == 'table' then
    server.execute(client, command.command, command.arguments)
  end
end

local function make()
  local made = shown
  local client = vim.lsp.get_client_by_id(made.client_id)
  forget()
  local row, from, to = place(made.buffer, made.edit.range, client and client.offset_encoding or 'utf-16')
  -- Setting it, if only to itself, ends the step to undo before.
  vim.cmd('let &g:undolevels = &g:undolevels')
  local lines = vim.split(made.edit.text, '\n', { plain = true })
  vim.api.nvim_buf_set_text(made.buffer, row, from, row, to, lines)
  local last = #lines
  local col = (last == 1 and from or 0) + #lines[last]
  vim.api.nvim_win_set_cursor(0, { row + last, col })
  tell(client, made.edit.command)
  ask(true)
end

--- Shows the next edit and goes there; makes it where it is shown, and shows the one after it.
function M.go()
  if not current() then
    forget()
    ask(false)
  elseif vim.api.nvim_win_get_cursor(0)[1] ~= shown.row + 1 then
    go_to(shown.row, shown.col)
  else
    make()
  end
end

--- Says that what is shown is not wanted, and shows what else there is.
function M.skip()
  if not current() then
    say.now('no next edit is shown. `:Tandem next` looks for one.')
    return
  end
  local client = vim.lsp.get_client_by_id(shown.client_id)
  local accepted = shown.edit.command
  forget()
  tell(client, {
    command = 'tandem.rejectedEdit',
    arguments = type(accepted) == 'table' and accepted.arguments or {},
  })
  ask(true)
end

--- Takes back what is shown. It is proposed again when asked for.
---@return boolean whether there was something
function M.dismiss()
  local was = current()
  forget()
  return was
end

--- Takes back what is shown when the text changes or another buffer is looked at.
function M.enable()
  vim.api.nvim_set_hl(0, 'TandemNextOld', { link = 'DiffDelete', default = true })
  vim.api.nvim_set_hl(0, 'TandemNextNew', { link = 'DiffAdd', default = true })
  vim.api.nvim_create_autocmd({ 'TextChanged', 'TextChangedI', 'BufLeave', 'LspDetach' }, {
    group = vim.api.nvim_create_augroup('tandem.next', {}),
    callback = function(event)
      if shown and (not current() or event.event == 'BufLeave' or event.event == 'LspDetach') then
        forget()
      end
    end,
  })
end

return M
