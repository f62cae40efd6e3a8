--- The server's life: started where its program is found, started again with growing pauses when it
--- crashes, given up with one message when it keeps crashing.

local options = require('tandem.options')
local say = require('tandem.say')

local M = {}

--- A server that ran this long has not crashed at its start.
local STEADY_MS = 60000

local state = {
  started = false,
  --- Whether no more is tried until the user asks for it.
  gave_up = false,
  crashes = 0,
  paused = false,
  ---@type table<integer, table> The last `tandem/status` of each client.
  status = {},
}
M.state = state

local function now_ms()
  return vim.uv.hrtime() / 1e6
end

--- The clients that are Tandem's.
---@param buffer? integer
---@return table[]
function M.clients(buffer)
  return vim.lsp.get_clients({ name = 'tandem', bufnr = buffer })
end

--- Sends a request; Neovim 0.11 made functions methods.
function M.request(client, method, params, handler, buffer)
  if vim.fn.has('nvim-0.11') == 1 then
    return client:request(method, params, handler, buffer)
  end
  return client.request(method, params, handler, buffer)
end

--- Takes a request back.
function M.cancel(client, id)
  if vim.fn.has('nvim-0.11') == 1 then
    return client:cancel_request(id)
  end
  return client.cancel_request(id)
end

--- Sends a notification.
function M.notify(client, method, params)
  if vim.fn.has('nvim-0.11') == 1 then
    return client:notify(method, params)
  end
  return client.notify(method, params)
end

--- Runs a command of the server.
function M.execute(client, name, arguments, handler)
  local params = { command = name, arguments = arguments }
  return M.request(client, 'workspace/executeCommand', params, handler or function() end)
end

--- The program's full path, or nil. Where `tandem` is not on PATH, it is the one that installed this
--- plugin, if one did.
---@return string?
function M.program()
  local name = options.now.cmd[1] or ''
  local path = vim.fn.exepath(name)
  if path == '' and name == 'tandem' then
    local good, installed = pcall(require, 'tandem.installed')
    path = good and vim.fn.exepath(installed.program) or ''
  end
  return path ~= '' and path or nil
end

--- Whether a server may be started; says why not.
---@return boolean
local function ready()
  if state.gave_up then
    return false
  end
  if M.program() then
    return true
  end
  say.once(
    'missing',
    ('the program `%s` is not found. Install Tandem and put it on your PATH, or give its path to '
      .. "`require('tandem').setup{cmd = {'/path/to/tandem', 'lsp'}}`; then `:Tandem restart`."):format(
      options.now.cmd[1] or ''
    )
  )
  return false
end

--- Whether a buffer is one to help with.
---@param buffer integer
---@return boolean
local function wanted(buffer)
  if not vim.api.nvim_buf_is_loaded(buffer) or vim.bo[buffer].buftype ~= '' then
    return false
  end
  local filetypes = options.now.filetypes
  local filetype = vim.bo[buffer].filetype
  return filetype ~= '' and (not filetypes or vim.tbl_contains(filetypes, filetype))
end

---@param buffer integer
---@param on_dir fun(root?: string)
local function root(buffer, on_dir)
  if ready() then
    on_dir(vim.fs.root(buffer, options.now.root_markers))
  end
end

--- Starts a server for a buffer, or gives it the one there is.
---@param buffer integer
local function attach(buffer)
  if not wanted(buffer) then
    return
  end
  root(buffer, function(dir)
    local config = vim.fn.has('nvim-0.11') == 1 and vim.lsp.config.tandem or M.config()
    config = vim.tbl_extend('force', config, { name = 'tandem' })
    -- Not in the table above: none must take the place of the function, too.
    config.root_dir = dir
    vim.lsp.start(config, { bufnr = buffer })
  end)
end

local function attach_all()
  for _, buffer in ipairs(vim.api.nvim_list_bufs()) do
    attach(buffer)
  end
end

local function last_words()
  return 'Run `:Tandem log` to see what it said and `:checkhealth tandem` for what to do; then '
    .. '`:Tandem restart`.'
end

--- Decides what follows when a server ended by itself.
---@param ran_ms number
---@param how string
local function crashed(ran_ms, how)
  if ran_ms > STEADY_MS then
    state.crashes = 0
  end
  state.crashes = state.crashes + 1
  local restart = options.now.restart
  if state.crashes > restart.limit then
    state.gave_up = true
    say.once(
      'crashed',
      ('the server ended %d times (%s) and is not started again. %s'):format(
        state.crashes,
        how,
        last_words()
      ),
      vim.log.levels.ERROR
    )
    return
  end
  local pause = restart.delay_ms * 2 ^ (state.crashes - 1)
  vim.defer_fn(function()
    if not state.gave_up and #M.clients() == 0 then
      attach_all()
    end
  end, pause)
end

--- A connection that leads nowhere, for a program that cannot be run.
local function nowhere()
  return {
    request = function()
      return false
    end,
    notify = function()
      return false
    end,
    is_closing = function()
      return true
    end,
    terminate = function() end,
  }
end

--- Starts the program. Neovim is told of every end as if it were a good one: it would say so at each
--- crash, without a next step.
---@param dispatchers table
local function connect(dispatchers, config)
  local began = now_ms()
  local ours = { stopping = false }
  local client
  local watched = vim.tbl_extend('force', dispatchers, {
    on_exit = function(code, signal)
      dispatchers.on_exit(0, 0)
      ours.over = true
      if ours.stopping or vim.v.exiting ~= vim.NIL then
        return
      end
      local how = signal ~= 0 and ('signal %d'):format(signal) or ('exit code %d'):format(code)
      vim.schedule(function()
        crashed(now_ms() - began, how)
      end)
    end,
    on_error = function(code, reason)
      local errors = vim.lsp.rpc.client_errors
      if
        code ~= errors.INVALID_SERVER_MESSAGE
        and code ~= errors.INVALID_SERVER_JSON
        and code ~= errors.READ_ERROR
      then
        return dispatchers.on_error(code, reason)
      end
      -- One message is enough for both.
      ours.answered = true
      say.once(
        'protocol',
        ('what the program says is not the language server protocol (%s). Check `cmd`; it is %s. %s'):format(
          errors[code] or code,
          vim.inspect(options.now.cmd),
          last_words()
        ),
        vim.log.levels.ERROR
      )
      vim.lsp.log.error('tandem', code, reason)
    end,
  })
  local cmd = vim.deepcopy(options.now.cmd)
  cmd[1] = M.program() or cmd[1]
  local dir = type(config) == 'table' and type(config.root_dir) == 'string' and config.root_dir or nil
  local good
  good, client = pcall(vim.lsp.rpc.start, cmd, watched, { cwd = dir })
  if not good then
    say.once(
      'spawn',
      ('`%s` cannot be run: %s. Check that it is made for this machine; then `:Tandem restart`.'):format(
        cmd[1],
        tostring(client):gsub('\n.*', '')
      ),
      vim.log.levels.ERROR
    )
    state.gave_up = true
    vim.schedule(function()
      dispatchers.on_exit(0, 0)
    end)
    return nowhere()
  end
  -- An end that was asked for is no crash.
  local request, terminate = client.request, client.terminate
  client.request = function(method, ...)
    if method == 'shutdown' then
      ours.stopping = true
    elseif method == 'initialize' then
      local params, callback = ...
      return request(method, params, function(...)
        ours.answered = true
        return callback(...)
      end, select(3, ...))
    end
    return request(method, ...)
  end
  client.terminate = function(...)
    ours.stopping = true
    return terminate(...)
  end
  vim.defer_fn(function()
    if not ours.answered and not ours.over and not ours.stopping then
      say.once(
        'silent',
        ('the server has not answered for %d s. %s'):format(
          options.now.answer_ms / 1000,
          last_words()
        )
      )
    end
  end, options.now.answer_ms)
  return client
end

local function on_init(client, result)
  if type(result) ~= 'table' or not vim.tbl_get(result, 'capabilities', 'inlineCompletionProvider') then
    local info = result and result.serverInfo or {}
    say.once(
      'old',
      ('%s %s is too old for this plugin: it suggests nothing inline. Update the program; then '
        .. '`:Tandem restart`.'):format(info.name or 'the program', info.version or '')
    )
  end
  if state.paused then
    M.execute(client, 'tandem.pause')
  end
end

local function on_status(_, params, context)
  state.status[context.client_id] = params
  vim.api.nvim_exec_autocmds('User', { pattern = 'TandemStatus', modeline = false, data = params })
  vim.cmd.redrawstatus({ bang = true })
end

--- The client's configuration, for `vim.lsp.config` and `vim.lsp.start`.
---@return table
function M.config()
  local capabilities = vim.lsp.protocol.make_client_capabilities()
  -- Neovim before 0.12 does not say so: this plugin asks in its stead. The server would put the same
  -- suggestions into the completion menu.
  capabilities.textDocument.inlineCompletion = { dynamicRegistration = false }
  return {
    name = 'tandem',
    cmd = connect,
    filetypes = options.now.filetypes,
    root_dir = root,
    capabilities = capabilities,
    settings = { tandem = next(options.now.settings) and options.now.settings or vim.empty_dict() },
    handlers = { ['tandem/status'] = on_status },
    on_init = on_init,
  }
end

--- Starts servers for the buffers there are and those to come.
function M.start()
  if state.started then
    return
  end
  state.started = true
  local group = vim.api.nvim_create_augroup('tandem.server', {})
  vim.api.nvim_create_autocmd('LspDetach', {
    group = group,
    callback = function(event)
      local client = vim.lsp.get_client_by_id(event.data.client_id)
      if not client or client.name == 'tandem' then
        vim.schedule(function()
          if not vim.lsp.get_client_by_id(event.data.client_id) then
            state.status[event.data.client_id] = nil
            vim.cmd.redrawstatus({ bang = true })
          end
        end)
      end
    end,
  })
  if vim.fn.has('nvim-0.11') == 1 then
    vim.lsp.enable('tandem')
    return
  end
  vim.api.nvim_create_autocmd('FileType', {
    group = group,
    callback = function(event)
      attach(event.buf)
    end,
  })
  attach_all()
end

--- Ends the servers and starts them again, whatever became of them before.
function M.restart()
  say.forget()
  state.gave_up = false
  state.crashes = 0
  for _, client in ipairs(M.clients()) do
    if vim.fn.has('nvim-0.11') == 1 then
      client:stop(true)
    else
      client.stop(true)
    end
  end
  local tries = 0
  local function again()
    tries = tries + 1
    if #M.clients() > 0 and tries < 100 then
      vim.defer_fn(again, 50)
      return
    end
    if state.started then
      attach_all()
    else
      M.start()
    end
  end
  vim.defer_fn(again, 50)
end

--- Pauses or resumes all of this Neovim's servers, and those it starts later.
---@param paused boolean
function M.pause(paused)
  state.paused = paused
  for _, client in ipairs(M.clients()) do
    M.execute(client, paused and 'tandem.pause' or 'tandem.resume')
  end
end

return M
