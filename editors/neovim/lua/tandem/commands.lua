--- `:Tandem` and what can follow it.

local options = require('tandem.options')
local say = require('tandem.say')
local server = require('tandem.server')

local M = {}

local function client_here()
  local client = server.clients(0)[1]
  if not client then
    say.now('it does not run in this buffer. See `:checkhealth tandem`.', vim.log.levels.WARN)
  end
  return client
end

--- Shows text in a window of its own, which `q` closes.
local function page(lines, filetype)
  vim.cmd('botright new')
  local buffer = vim.api.nvim_get_current_buf()
  vim.bo[buffer].buftype = 'nofile'
  vim.bo[buffer].bufhidden = 'wipe'
  vim.bo[buffer].swapfile = false
  vim.bo[buffer].filetype = filetype or ''
  vim.api.nvim_buf_set_lines(buffer, 0, -1, false, lines)
  vim.keymap.set('n', 'q', '<Cmd>close<CR>', { buffer = buffer, desc = 'Close' })
  return buffer
end

--- The program's name or path, without the arguments that make it a server.
local function program()
  return server.program() or options.now.cmd[1]
end

local function words(value)
  return type(value) == 'string' and value or nil
end

local function status_lines(report)
  local lines = {
    ('%s%s'):format(
      report.state,
      words(report.backend) and (': %s (%s)'):format(report.backend, words(report.model) or '?') or ''
    ),
  }
  if words(report.reason) then
    table.insert(lines, 'last answer from there because: ' .. report.reason)
  end
  if words(report.message) then
    table.insert(lines, report.message)
  end
  for _, backend in ipairs(report.backends or {}) do
    local health = type(backend.health) == 'table' and backend.health or {}
    table.insert(
      lines,
      ('  %s (%s): %s%s'):format(
        backend.kind,
        backend.model,
        health.state or '?',
        words(health.why) and ', ' .. health.why or ''
      )
    )
  end
  local counts = report.completions
  if counts then
    table.insert(
      lines,
      ('%d suggested, %d accepted, %d in part'):format(
        counts.offered,
        counts.accepted,
        counts.partiallyAccepted
      )
    )
  end
  return lines
end

--- What an action is about: the lines of the range, or the cursor.
local function target(client, command)
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  local range = { start = params.position, ['end'] = params.position }
  if command.range > 0 then
    -- In lines, which need no encoding; the end may be one past the last.
    range = {
      start = { line = command.line1 - 1, character = 0 },
      ['end'] = { line = command.line2, character = 0 },
    }
    if command.line2 >= vim.api.nvim_buf_line_count(0) then
      local last = vim.api.nvim_buf_get_lines(0, -2, -1, false)[1] or ''
      local length = client.offset_encoding == 'utf-8' and #last
        or require('tandem.text').utf16(last)
      range['end'] = { line = command.line2 - 1, character = length }
    end
  end
  return { uri = params.textDocument.uri, range = range }
end

local function act(client, name, about)
  server.execute(client, name, { about }, function(err)
    if err then
      say.now(
        ('%s failed: %s. See `:Tandem log`.'):format(name, err.message or vim.inspect(err)),
        vim.log.levels.WARN
      )
    end
  end)
end

---@type table<string, fun(command: table, rest: string[])>
local commands = {}

function commands.next(_, rest)
  local following = require('tandem.next')
  if rest[1] == 'skip' then
    following.skip()
  else
    following.go()
  end
end

function commands.status()
  local client = client_here()
  if not client then
    return
  end
  server.execute(client, 'tandem.status', {}, function(err, report)
    if err or type(report) ~= 'table' then
      say.now('the server does not tell. See `:Tandem log`.', vim.log.levels.WARN)
      return
    end
    say.now(table.concat(status_lines(report), '\n'))
  end)
end

function commands.pause()
  server.pause(true)
  require('tandem').dismiss()
end

function commands.resume()
  server.pause(false)
end

function commands.restart()
  server.restart()
end

function commands.doctor()
  if not server.program() then
    say.now(
      ('`%s` is not found. See `:checkhealth tandem`.'):format(options.now.cmd[1]),
      vim.log.levels.ERROR
    )
    return
  end
  local buffer = page({ 'tandem doctor is trying every backend…' })
  vim.system({ program(), 'doctor' }, { text = true }, function(done)
    vim.schedule(function()
      if vim.api.nvim_buf_is_valid(buffer) then
        local said = vim.trim((done.stdout or '') .. '\n' .. (done.stderr or ''))
        -- Colours are for terminals.
        said = said:gsub('\27%[[%d;]*m', '')
        vim.api.nvim_buf_set_lines(buffer, 0, -1, false, vim.split(said, '\n'))
      end
    end)
  end)
end

function commands.log(_, rest)
  local path = vim.lsp.get_log_path and vim.fn.has('nvim-0.11') == 0 and vim.lsp.get_log_path()
    or vim.lsp.log.get_filename()
  if rest[1] == 'daemon' and server.program() then
    local done = vim.system({ program(), 'daemon', 'status', '--json' }, { text = true }):wait(10000)
    local good, report = pcall(vim.json.decode, done.stdout or '')
    path = good and type(report) == 'table' and words(report.log) or nil
  end
  if not path or vim.fn.filereadable(path) == 0 then
    say.now(('there is no log yet%s.'):format(path and (' at ' .. path) or ''), vim.log.levels.WARN)
    return
  end
  vim.cmd('botright split ' .. vim.fn.fnameescape(path))
  vim.cmd('normal! G')
end

function commands.explain(command)
  local client = client_here()
  if client then
    act(client, 'tandem.explain', target(client, command))
  end
end

function commands.rewrite(command, rest)
  local client = client_here()
  if not client then
    return
  end
  local about = target(client, command)
  local function go(instruction)
    if instruction and vim.trim(instruction) ~= '' then
      about.instruction = instruction
      act(client, 'tandem.rewrite', about)
    end
  end
  if #rest > 0 then
    go(table.concat(rest, ' '))
  else
    vim.ui.input({ prompt = 'Rewrite how? ' }, go)
  end
end

--- Runs `:Tandem …`; with nothing behind it, `:Tandem status`.
---@param command table As `nvim_create_user_command` gives it.
function M.run(command)
  local rest = vim.deepcopy(command.fargs)
  local name = table.remove(rest, 1) or 'status'
  local run = commands[name]
  if run then
    run(command, rest)
  else
    local names = vim.tbl_keys(commands)
    table.sort(names)
    say.now(
      ('there is no `%s`; there are %s.'):format(name, table.concat(names, ', ')),
      vim.log.levels.ERROR
    )
  end
end

--- Completes `:Tandem`.
---@return string[]
function M.complete(lead, line)
  local before = line:gsub("^[%s%d,.$%%'<>]*%S+%s+", '', 1)
  local names = vim.tbl_keys(commands)
  if before:match('^log%s') then
    names = { 'daemon' }
  elseif before:match('^next%s') then
    names = { 'skip' }
  elseif before:match('^%S+%s') then
    names = {}
  end
  table.sort(names)
  return vim.tbl_filter(function(name)
    return vim.startswith(name, lead)
  end, names)
end

return M
