--- A Neovim of its own for each test, driven by keys and looked at from outside.

local M = {}
M.__index = M

--- Far beyond what anything here takes, so that a hang fails and a slow machine does not.
local LIMIT_MS = 20000

local count = 0

--- Starts one with the plugin.
---@param options { setup?: string, program?: string, arguments?: string[], daemon?: boolean,
---   no_program?: boolean, loaded?: 'pack'|'installed'|'late'|'lazy'|'never' } `loaded`: by Neovim's own
---   packages, as `tandem install neovim` does it, after the start as plugin managers do it, by lazy.nvim
---   itself, or not at all.
function M.new(options)
  count = count + 1
  local home = ('%s/%d'):format(vim.env.WORK_FOLDER, count)
  vim.fn.mkdir(home .. '/bin', 'p')
  vim.fn.mkdir(home .. '/project', 'p')
  local program = home .. '/bin/tandem'
  if options.program then
    vim.fn.writefile(vim.split(options.program, '\n'), program)
    vim.fn.setfperm(program, 'rwxr-xr-x')
  elseif not options.no_program then
    local arguments = vim.tbl_map(vim.fn.shellescape, options.arguments or {})
    local script = ('#!/bin/sh\nexec %s "$@" %s'):format(
      vim.fn.shellescape(vim.env.TANDEM_BIN),
      table.concat(arguments, ' ')
    )
    vim.fn.writefile(vim.split(script, '\n'), program)
    vim.fn.setfperm(program, 'rwxr-xr-x')
  end
  vim.fn.writefile({ '' }, home .. '/project/.tandem.yaml')
  local self = setmetatable({ home = home }, M)
  local setup = options.setup and ("require('tandem').setup(%s)"):format(options.setup) or ''
  local cmd = {
    vim.env.NVIM_UNDER_TEST, '--headless', '--embed',
    '--cmd', 'set noswapfile columns=160 lines=40',
    '--cmd', 'lua _G.messages = {}; vim.notify = function(m, l) table.insert(_G.messages, m) end',
  }
  if options.loaded == 'pack' then
    local start = home .. '/.local/share/nvim/site/pack/tandem/start'
    vim.fn.mkdir(start, 'p')
    assert(vim.uv.fs_symlink(vim.env.PLUGIN_UNDER_TEST, start .. '/tandem'))
  elseif options.loaded == 'lazy' then
    vim.fn.mkdir(home .. '/.config/nvim', 'p')
    vim.fn.writefile({
      ('vim.opt.rtp:prepend(%q)'):format(vim.env.LAZY_NVIM),
      ("require('lazy').setup({ { dir = %q, opts = %s } })"):format(
        vim.env.PLUGIN_UNDER_TEST,
        options.setup or 'nil'
      ),
    }, home .. '/.config/nvim/init.lua')
  elseif options.loaded == 'installed' then
    vim.fn.mkdir(home .. '/.local/share/nvim', 'p')
    local done = vim.system({
      'env', '-i', 'HOME=' .. home, 'PATH=/usr/bin:/bin', vim.env.TANDEM_BIN, 'install', 'neovim',
    }):wait(LIMIT_MS)
    assert(done.code == 0, done.stderr)
  else
    table.insert(cmd, '--clean')
  end
  if not options.loaded then
    -- Before the plugin is read, as in a configuration.
    vim.list_extend(cmd, { '--cmd', 'set rtp^=' .. vim.env.PLUGIN_UNDER_TEST, '--cmd', 'lua ' .. setup })
  end
  self.channel = vim.fn.jobstart(cmd, {
    rpc = true,
    cwd = home .. '/project',
    clear_env = true,
    env = {
      LANG = 'C.UTF-8',
      TERM = 'dumb',
      HOME = home,
      PATH = home .. '/bin:/usr/bin:/bin',
      TANDEM_DAEMON_ENABLED = not options.daemon and 'false' or nil,
    },
  })
  assert(self.channel > 0, 'Neovim does not start')
  if options.loaded == 'late' then
    self:wait('the start', function()
      return self:lua('return vim.v.vim_did_enter') == 1
    end)
    self:lua('vim.opt.rtp:prepend(...)', vim.env.PLUGIN_UNDER_TEST)
    self:lua('vim.cmd.source(...)', vim.env.PLUGIN_UNDER_TEST .. '/plugin/tandem.lua')
    self:lua(setup)
  end
  return self
end

--- Runs Lua in it, with the rest as `...`.
function M:lua(code, ...)
  return vim.rpcrequest(self.channel, 'nvim_exec_lua', code, { ... })
end

--- Types.
function M:keys(keys)
  vim.rpcrequest(self.channel, 'nvim_input', keys)
end

--- Waits until something is so.
function M:wait(what, ready)
  local last
  local so = vim.wait(LIMIT_MS, function()
    last = ready()
    return last
  end, 20)
  if not so then
    error(('%s: it did not come; text %s, ghost %q, messages %s'):format(
      what, vim.inspect(self:text()), self:ghost(), vim.inspect(self:messages())
    ), 2)
  end
  return last
end

--- Opens a file with this text.
function M:open(name, lines)
  local path = self.home .. '/project/' .. name
  vim.fn.writefile(lines, path)
  self:lua('vim.cmd.edit(...)', path)
  return path
end

--- Opens a file and waits for the server.
function M:open_attached(name, lines)
  local path = self:open(name, lines)
  self:wait('a client', function()
    return self:lua([[
      local client = vim.lsp.get_clients({ name = 'tandem', bufnr = 0 })[1]
      return client ~= nil and client.initialized == true
    ]])
  end)
  return path
end

--- All of the buffer.
function M:text()
  return self:lua('return vim.api.nvim_buf_get_lines(0, 0, -1, false)')
end

--- What is drawn behind the cursor, lines joined; empty if nothing is.
function M:ghost()
  return self:lua([[
    local drawn = {}
    for name, namespace in pairs(vim.api.nvim_get_namespaces()) do
      if name == 'tandem' or name == 'nvim.lsp.inline_completion' then
        local marks = vim.api.nvim_buf_get_extmarks(0, namespace, 0, -1, { details = true })
        for _, mark in ipairs(marks) do
          for _, chunk in ipairs(mark[4].virt_text or {}) do
            table.insert(drawn, chunk[1])
          end
          for _, line in ipairs(mark[4].virt_lines or {}) do
            table.insert(drawn, '\n')
            for _, chunk in ipairs(line) do
              table.insert(drawn, chunk[1])
            end
          end
        end
      end
    end
    return table.concat(drawn)
  ]])
end

--- Which namespace draws.
function M:drawn_by()
  return self:lua([[
    local by = {}
    for name, namespace in pairs(vim.api.nvim_get_namespaces()) do
      if name == 'tandem' or name == 'nvim.lsp.inline_completion' then
        if #vim.api.nvim_buf_get_extmarks(0, namespace, 0, -1, {}) > 0 then
          table.insert(by, name)
        end
      end
    end
    return table.concat(by, ' ')
  ]])
end

--- What the user was told.
function M:messages()
  return self:lua('return _G.messages')
end

function M:mode()
  return vim.rpcrequest(self.channel, 'nvim_get_mode').mode
end

--- Ends it, and its server with it.
function M:close()
  pcall(vim.rpcrequest, self.channel, 'nvim_command', 'silent! qall!')
  if vim.fn.jobwait({ self.channel }, LIMIT_MS)[1] == -1 then
    vim.fn.jobstop(self.channel)
    error('Neovim does not end')
  end
end

return M
