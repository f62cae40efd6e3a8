--- What a configuration calls: setup, accept and dismiss, the status line.

local options = require('tandem.options')
local server = require('tandem.server')

local M = {}

--- Options, for who wants others; it need not be called. See `:help tandem-setup`.
---@param said? table
function M.setup(said)
  local before = options.now
  options.set(said)
  if not server.state.started then
    return
  end
  if vim.deep_equal(before, options.now) then
    return
  end
  M.draw()
  if vim.fn.has('nvim-0.11') == 1 then
    vim.lsp.config('tandem', server.config())
  end
  server.restart()
end

--- Chooses who draws.
function M.draw()
  require('tandem.ghost').disable()
  if vim.lsp.inline_completion then
    pcall(vim.api.nvim_del_augroup_by_name, 'tandem.native')
    for _, client in ipairs(server.clients()) do
      for buffer in pairs(client.attached_buffers) do
        vim.lsp.inline_completion.enable(options.native(), { bufnr = buffer })
      end
    end
  end
  if options.native() then
    require('tandem.native').enable()
  elseif options.now.ghost_text then
    require('tandem.ghost').enable()
  end
end

--- Starts Tandem, unless the options say that it waits for `:Tandem restart`.
function M.start()
  M.draw()
  require('tandem.next').enable()
  if options.now.autostart then
    server.start()
  end
end

local function drawer()
  return require(options.native() and 'tandem.native' or 'tandem.ghost')
end

--- Accepts the suggestion at the cursor, or its next word or line.
---@param part? 'word'|'line'
---@return boolean whether there was one, so that a mapping can do something else where there is none
function M.accept(part)
  return drawer().accept(part)
end

--- Takes back the suggestion at the cursor, and the next edit that is shown.
---@return boolean whether there was one of them
function M.dismiss()
  local edit = require('tandem.next').dismiss()
  return drawer().dismiss() or edit
end

--- Shows the next edit and goes there; makes it where it is shown, and shows the one after it.
function M.next()
  require('tandem.next').go()
end

--- Who answers in the current buffer and in what state they are, in a few words; empty where Tandem
--- is not.
---@return string
function M.statusline()
  local window = vim.g.statusline_winid
  local buffer = window and vim.api.nvim_win_is_valid(window) and vim.api.nvim_win_get_buf(window) or 0
  local client = server.clients(buffer)[1]
  if not client then
    return server.state.gave_up and 'Tandem stopped' or ''
  end
  local status = server.state.status[client.id]
  if server.state.paused then
    return 'Tandem paused'
  elseif not status then
    return 'Tandem'
  end
  local backend = type(status.backend) == 'string' and status.backend or nil
  local words
  if status.state == 'healthy' or status.state == 'unloaded' then
    words = backend or 'ready'
  elseif status.state == 'paused' or status.state == 'disabled' then
    words = status.state
  else
    words = backend and ('%s %s'):format(backend, status.state) or status.state
  end
  return ('Tandem ' .. words):gsub('%%', '%%%%') .. ''
end

--- The last `tandem/status` for a buffer: state, backend, model, reason, message.
---@param buffer? integer
---@return table?
function M.status(buffer)
  local client = server.clients(buffer or 0)[1]
  return client and server.state.status[client.id]
end

return M
