--- The server's life and what is told of it: commands, status line, health, a program that is not there
--- or does not live.

local function eq(got, expected, what)
  if not vim.deep_equal(got, expected) then
    error(('%s: got %s, not %s'):format(what, vim.inspect(got), vim.inspect(expected)), 2)
  end
end

local function has(text, part)
  if not text:find(part, 1, true) then
    error(('%q is not in: %s'):format(part, text), 2)
  end
end

local function ghost(editor)
  return editor:wait('a ghost', function()
    local drawn = editor:ghost()
    return drawn ~= '' and drawn
  end)
end

local function statusline(editor, wanted)
  editor:wait('status line ' .. wanted, function()
    return editor:lua("return require('tandem').statusline()") == wanted
  end)
end

local function health(editor)
  editor:lua("vim.cmd('checkhealth tandem')")
  return table.concat(editor:text(), '\n')
end

return function(test)
  local scripted = { arguments = { '--scripted-answer', 'answer(1)' } }

  test('pause and resume', scripted, function(editor)
    editor:open_attached('a.py', { 'import os', '' })
    editor:keys('Gox = ')
    eq(ghost(editor), 'answer(1)', 'ghost')
    statusline(editor, 'Tandem scripted')
    editor:keys('<Esc>:Tandem pause<CR>')
    statusline(editor, 'Tandem paused')
    editor:keys('oy = ')
    editor:wait('what is typed', function()
      return editor:text()[4] == 'y = '
    end)
    editor:wait('word that it is paused', function()
      return editor:lua("return (require('tandem').status() or {}).state") == 'paused'
    end)
    eq(editor:ghost(), '', 'ghost')
    editor:keys('<Esc>:Tandem resume<CR>')
    statusline(editor, 'Tandem scripted')
    editor:keys('oz = ')
    eq(ghost(editor), 'answer(1)', 'ghost')
  end)

  test(':Tandem status tells who answers', scripted, function(editor)
    editor:open_attached('a.py', { 'x' })
    editor:keys(':Tandem status<CR>')
    local said = editor:wait('the status', function()
      return editor:messages()[1]
    end)
    has(said, 'scripted')
    has(said, '0 suggested, 0 accepted, 0 in part')
  end)

  test(':Tandem completes its words', scripted, function(editor)
    local function complete(line)
      return editor:lua("return vim.fn.getcompletion(..., 'cmdline')", line)
    end
    eq(
      complete('Tandem '),
      { 'doctor', 'explain', 'log', 'next', 'pause', 'restart', 'resume', 'rewrite', 'status' },
      'all'
    )
    eq(complete('Tandem re'), { 'restart', 'resume', 'rewrite' }, 're')
    eq(complete('%Tandem ex'), { 'explain' }, 'with a range')
    eq(complete('Tandem log '), { 'daemon' }, 'log')
    eq(complete('Tandem next '), { 'skip' }, 'next')
    eq(complete('Tandem pause '), {}, 'pause')
    editor:keys(':Tandem nonsense<CR>')
    has(editor:wait('a message', function()
      return editor:messages()[1]
    end), 'there is no `nonsense`; there are doctor, explain')
  end)

  test(':Tandem explain shows an explanation', scripted, function(editor)
    editor:open_attached('a.py', { 'x = 1', 'y = 2' })
    editor:keys(':1,2Tandem explain<CR>')
    editor:wait('the explanation', function()
      return editor:text()[1] == 'answer(1)'
    end)
    eq(editor:messages(), {}, 'messages')
  end)

  test(':Tandem rewrite edits the lines', scripted, function(editor)
    editor:open_attached('a.py', { 'x = 1', 'y = 2', 'z = 3' })
    editor:keys(':1,2Tandem rewrite as one call<CR>')
    editor:wait('the edit', function()
      return vim.deep_equal(editor:text(), { 'answer(1)', 'z = 3' })
    end)
  end)

  test(':Tandem doctor shows its report', scripted, function(editor)
    editor:open_attached('a.py', { 'x = 1' })
    editor:keys(':Tandem doctor<CR>')
    editor:wait('the report', function()
      return table.concat(editor:text(), '\n'):find('generation')
    end)
  end)

  test(':checkhealth tells what is there', scripted, function(editor)
    editor:open_attached('a.py', { 'x = 1' })
    local said = health(editor)
    has(said, 'ghost text by ' .. (vim.lsp.inline_completion and 'vim.lsp.inline_completion' or "the plugin's own"))
    has(said, 'bin/tandem, version ')
    has(said, 'is attached to 1 buffer,')
    has(said, 'No daemon runs')
    eq(said:find('ERROR'), nil, said)
  end)

  test('a daemon is seen', { daemon = true }, function(editor)
    editor:open_attached('a.py', { 'def total(items):', '    result = 0', '    for item in items:' })
    editor:keys('Go        result += ')
    ghost(editor)
    editor:keys('<Esc>')
    local good, trouble = pcall(function()
      has(health(editor), 'The daemon runs; its log is ')
    end)
    local stopped = editor:lua([[return vim.system({ 'tandem', 'daemon', 'stop' }):wait(30000).code]])
    eq(stopped, 0, 'daemon stop')
    assert(good, trouble)
  end)

  test('a missing program is told once', { no_program = true }, function(editor)
    editor:open('a.py', { 'x = 1' })
    local said = editor:wait('a message', function()
      return editor:messages()[1]
    end)
    has(said, 'the program `tandem` is not found')
    has(said, ':Tandem restart')
    editor:open('b.py', { 'x = 1' })
    editor:open('c.py', { 'x = 1' })
    has(health(editor), 'The program `tandem` is not found')
    has(health(editor), 'Then run `:Tandem restart`')
    eq(#editor:messages(), 1, 'messages')
    eq(editor:lua("return require('tandem').statusline()"), '', 'status line')
  end)

  test('a server that crashes is given up with one message', {
    program = '#!/bin/sh\necho started >> "$HOME/starts"\nexit 3',
    setup = '{ restart = { limit = 3, delay_ms = 10 } }',
  }, function(editor)
    editor:open('a.py', { 'x = 1' })
    local said = editor:wait('a message', function()
      return editor:messages()[1]
    end)
    has(said, 'the server ended 4 times (exit code 3) and is not started again')
    editor:open('b.py', { 'x = 1' })
    eq(editor:lua("return require('tandem').statusline()"), 'Tandem stopped', 'status line')
    eq(#vim.fn.readfile(editor.home .. '/starts'), 4, 'starts')
    eq(#editor:messages(), 1, 'messages')
    -- Mended, it is asked for again.
    vim.fn.writefile({ '#!/bin/sh', 'exec ' .. vim.env.TANDEM_BIN .. ' "$@"' }, editor.home .. '/bin/tandem')
    editor:keys(':Tandem restart<CR>')
    editor:wait('a client', function()
      return editor:lua("return #vim.lsp.get_clients({ name = 'tandem', bufnr = 0 })") == 1
    end)
  end)

  test('a server that is killed comes back', {
    arguments = { '--scripted-answer', 'answer(1)' },
    setup = '{ restart = { limit = 3, delay_ms = 10 } }',
  }, function(editor)
    editor:open_attached('a.py', { 'import os', '' })
    local function pid()
      return editor:lua([[
        local found
        for _, pid in ipairs(vim.api.nvim_get_proc_children(vim.fn.getpid())) do
          found = pid
        end
        return found
      ]])
    end
    local first = pid()
    vim.uv.kill(first, 'sigkill')
    editor:wait('another', function()
      local now = pid()
      return now and now ~= vim.NIL and now ~= first
    end)
    editor:wait('a client', function()
      return editor:lua([[
        local client = vim.lsp.get_clients({ name = 'tandem', bufnr = 0 })[1]
        return client ~= nil and client.initialized == true
      ]])
    end)
    editor:keys('Gox = ')
    eq(ghost(editor), 'answer(1)', 'ghost')
    eq(editor:messages(), {}, 'messages')
  end)

  test('a server that is too old is told once', {
    program = [[
#!/usr/bin/python3
import json, sys
while True:
    length = 0
    while (line := sys.stdin.buffer.readline().strip()):
        length = int(line.split(b":")[1])
    if length == 0:
        sys.exit(0)
    message = json.loads(sys.stdin.buffer.read(length))
    if "id" in message:
        result = {"capabilities": {}, "serverInfo": {"name": "tandem", "version": "0.0.1"}}
        said = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
        sys.stdout.buffer.write(b"Content-Length: %d\r\n\r\n%s" % (len(said), said))
        sys.stdout.buffer.flush()
]],
  }, function(editor)
    editor:open_attached('a.py', { 'x = 1' })
    has(editor:wait('a message', function()
      return editor:messages()[1]
    end), 'tandem 0.0.1 is too old for this plugin')
    eq(#editor:messages(), 1, 'messages')
  end)

  -- Before 0.12 Neovim tells nobody that it cannot read what comes.
  local tells = vim.fn.has('nvim-0.12') == 1
  test('a program that is no server is told once', {
    setup = tells and '{}' or '{ answer_ms = 50 }',
    program = "#!/bin/sh\nprintf 'hello\\r\\n\\r\\n'\nexec sleep 60",
  }, function(editor)
    editor:open('a.py', { 'x = 1' })
    has(editor:wait('a message', function()
      return editor:messages()[1]
    end), tells and 'what the program says is not the language server protocol'
      or 'the server has not answered for')
    eq(#editor:messages(), 1, 'messages')
  end)

  local managers = vim.env.LAZY_NVIM and { 'pack', 'late', 'lazy' } or { 'pack', 'late' }
  for _, loaded in ipairs(managers) do
    test('it works when loaded: ' .. loaded, {
      arguments = { '--scripted-answer', 'answer(1)' },
      loaded = loaded,
    }, function(editor)
      editor:open_attached('a.py', { 'import os', '' })
      editor:keys('Gox = ')
      eq(ghost(editor), 'answer(1)', 'ghost')
      eq(editor:messages(), {}, 'messages')
    end)
  end

  if vim.env.LAZY_NVIM then
    test('lazy.nvim passes its opts on', {
      arguments = { '--scripted-answer', 'answer(1)' },
      loaded = 'lazy',
      setup = "{ ghost_text = 'own' }",
    }, function(editor)
      editor:open_attached('a.py', { 'import os', '' })
      editor:keys('Gox = ')
      eq(ghost(editor), 'answer(1)', 'ghost')
      eq(editor:drawn_by(), 'tandem', 'drawn by')
      eq(editor:messages(), {}, 'messages')
    end)
  end

  test('it works when its own program installed it, which is not on PATH', {
    no_program = true,
    loaded = 'installed',
  }, function(editor)
    editor:open_attached('a.py', { 'def total(items):', '    result = 0', '    for item in items:' })
    editor:keys('Go        result += ')
    ghost(editor)
    eq(editor:messages(), {}, 'messages')
    has(health(editor), vim.env.TANDEM_BIN)
  end)

  test('setup after the start is taken', {
    arguments = { '--scripted-answer', 'answer(1)' },
    loaded = 'late',
    setup = "{ ghost_text = 'own', filetypes = { 'python' }, wrong = 1 }",
  }, function(editor)
    eq(editor:messages(), { "Tandem: setup knows no 'wrong'. See `:help tandem-setup`." }, 'messages')
    editor:open('a.c', { 'int x;' })
    editor:open_attached('a.py', { 'import os', '' })
    editor:keys('Gox = ')
    eq(ghost(editor), 'answer(1)', 'ghost')
    eq(editor:drawn_by(), 'tandem', 'drawn by')
    eq(editor:lua("return #vim.lsp.get_clients({ bufnr = vim.fn.bufnr('a.c') })"), 0, 'clients of C')
  end)

  test('options that change while it runs are taken', scripted, function(editor)
    editor:open_attached('a.py', { 'import os', '' })
    editor:lua("require('tandem').setup({ ghost_text = 'own' })")
    editor:wait('a client', function()
      return editor:lua([[
        local client = vim.lsp.get_clients({ name = 'tandem', bufnr = 0 })[1]
        return client ~= nil and client.id > 1 and client.initialized == true
      ]])
    end)
    editor:keys('Gox = ')
    eq(ghost(editor), 'answer(1)', 'ghost')
    eq(editor:drawn_by(), 'tandem', 'drawn by')
    eq(editor:messages(), {}, 'messages')
  end)

  test(':Tandem log opens what the server said', scripted, function(editor)
    editor:open_attached('a.py', { 'x = 1' })
    editor:keys(':Tandem log<CR>')
    editor:wait('the log', function()
      return editor:lua('return vim.api.nvim_buf_get_name(0)'):find('lsp.log', 1, true)
        or (editor:messages()[1] or ''):find('there is no log yet', 1, true)
    end)
  end)

  test('a server that says nothing is told once', {
    program = '#!/bin/sh\nexec sleep 60',
    setup = '{ answer_ms = 50 }',
  }, function(editor)
    editor:open('a.py', { 'x = 1' })
    has(editor:wait('a message', function()
      return editor:messages()[1]
    end), 'the server has not answered for')
    eq(#editor:messages(), 1, 'messages')
  end)
end
