--- `:checkhealth tandem`: what is there, what is not, and the next step.

local options = require('tandem.options')
local server = require('tandem.server')

local M = {}

--- Longer than any of these commands takes on a busy machine.
local LIMIT_MS = 20000

---@return string? stdout, string? trouble
local function run(arguments)
  local cmd = vim.list_extend({ server.program() }, arguments)
  local good, done = pcall(function()
    return vim.system(cmd, { text = true }):wait(LIMIT_MS)
  end)
  if not good then
    return nil, tostring(done)
  end
  -- `daemon status` ends with 4 where there is none, and tells it all the same.
  if vim.trim(done.stdout or '') == '' then
    return nil, ('it ended with %d: %s'):format(done.code, vim.trim(done.stderr or ''))
  end
  return done.stdout, nil
end

local function check_neovim()
  local version = vim.version()
  local shown = ('Neovim %d.%d.%d'):format(version.major, version.minor, version.patch)
  if vim.fn.has('nvim-0.10') == 0 then
    vim.health.error(shown .. ' is too old.', { 'Update Neovim to 0.10 or later.' })
    return
  end
  vim.health.ok(('%s; ghost text by %s'):format(shown, options.way()))
  if options.now.ghost_text == 'native' and not vim.lsp.inline_completion then
    vim.health.warn("`ghost_text` is 'native', which needs Neovim 0.12.", {
      "Update Neovim, or leave `ghost_text` at 'auto'.",
    })
  end
end

---@return boolean
local function check_program()
  local path = server.program()
  if not path then
    vim.health.error(('The program `%s` is not found.'):format(options.now.cmd[1] or ''), {
      'Install Tandem and put it on your PATH.',
      "Or say where it is: require('tandem').setup{cmd = {'/path/to/tandem', 'lsp'}}",
      'Then run `:Tandem restart`.',
    })
    return false
  end
  local said, trouble = run({ '--version' })
  local version = said and said:match('(%d+%.%d+%.%S+)')
  if not version then
    vim.health.error(('%s does not tell its version: %s'):format(path, trouble or vim.trim(said)), {
      'Run it in a terminal to see why; a program made for another machine does not run here.',
    })
    return false
  end
  vim.health.ok(('%s, version %s'):format(path, version))
  return true
end

local function check_clients()
  local clients = server.clients()
  if server.state.gave_up then
    vim.health.error('The server kept ending and is not started again.', {
      'Run `:Tandem log` to see what it said.',
      'Run `:Tandem doctor` to try every backend.',
      'Then run `:Tandem restart`.',
    })
  elseif #clients == 0 then
    vim.health.warn('No server runs.', {
      'Open a file that has a filetype; `filetypes` in setup may rule it out.',
      'Then, if it still does not, run `:Tandem restart`.',
    })
  end
  for _, client in ipairs(clients) do
    local buffers = vim.tbl_count(client.attached_buffers or {})
    vim.health.ok(
      ('Client %d is attached to %s, root %s'):format(
        client.id,
        buffers == 1 and '1 buffer' or ('%d buffers'):format(buffers),
        client.config.root_dir or 'none'
      )
    )
    local status = server.state.status[client.id]
    if status then
      local message = type(status.message) == 'string' and status.message
      vim.health.info(
        ('Status: %s, %s, %s%s'):format(
          status.state,
          type(status.backend) == 'string' and status.backend or 'no backend',
          type(status.model) == 'string' and status.model or 'no model',
          message and ': ' .. message or ''
        )
      )
    end
  end
  if server.state.paused then
    vim.health.warn('Suggestions are paused.', { 'Run `:Tandem resume`.' })
  end
end

local function check_daemon()
  local said, trouble = run({ 'daemon', 'status', '--json' })
  local good, report = pcall(vim.json.decode, said or '')
  if not good or type(report) ~= 'table' then
    vim.health.error('`tandem daemon status --json` tells nothing: ' .. (trouble or 'no JSON'), {
      'Update the program, which may be too old; then run `:Tandem restart`.',
    })
    return
  end
  if report.running then
    vim.health.ok('The daemon runs; its log is ' .. tostring(report.log))
  else
    vim.health.info(
      'No daemon runs: it starts with the first suggestion, unless `daemon.enabled` is false.'
    )
  end
end

--- Runs all checks.
function M.check()
  vim.health.start('Tandem')
  check_neovim()
  if check_program() then
    check_clients()
    check_daemon()
  end
end

return M
