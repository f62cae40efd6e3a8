--- Suggestions: shown, accepted whole and in part, dismissed, and no key taken for it.

local NATIVE = vim.lsp.inline_completion ~= nil
local PLUGS = [[
  for key, name in pairs({ ['<C-l>'] = 'accept', ['<C-f>'] = 'accept-word', ['<C-g>n'] = 'accept-line',
    ['<C-g>d'] = 'dismiss' }) do
    vim.keymap.set('i', key, ('<Plug>(tandem-%s)'):format(name))
  end
]]
local TEXT = 'alpha(beta)\n    gamma = 1'

local function eq(got, expected, what)
  if not vim.deep_equal(got, expected) then
    error(('%s: got %s, not %s'):format(what, vim.inspect(got), vim.inspect(expected)), 2)
  end
end

--- Types into a file until there is a ghost.
local function typed(editor, text)
  editor:lua(PLUGS)
  editor:open_attached('a.py', { 'import os', '' })
  editor:keys('Go' .. text)
  return editor:wait('a ghost', function()
    local ghost = editor:ghost()
    return ghost ~= '' and ghost
  end)
end

return function(test)
  local function scripted(name, setup, body)
    test(name, { arguments = { '--scripted-answer', TEXT }, setup = setup }, body)
  end
  local ways = { [''] = { nil, NATIVE }, [' by extmarks'] = { "{ ghost_text = 'own' }", false } }

  for way, about in vim.spairs(ways) do
    local setup, native = about[1], about[2]

    scripted('a suggestion is shown, and accepted whole' .. way, setup, function(editor)
      eq(typed(editor, 'x = '), TEXT, 'ghost')
      eq(editor:drawn_by(), native and 'nvim.lsp.inline_completion' or 'tandem', 'drawn by')
      editor:keys('<C-l>')
      editor:wait('the text', function()
        return #editor:text() == 4
      end)
      eq(editor:text(), { 'import os', '', 'x = alpha(beta)', '    gamma = 1' }, 'text')
      eq(editor:lua('return vim.api.nvim_win_get_cursor(0)'), { 4, 13 }, 'cursor')
      eq(editor:mode(), 'i', 'mode')
      editor:wait('the count', function()
        return editor:lua([[
          local client = vim.lsp.get_clients({ name = 'tandem' })[1]
          local answer = client.request_sync and vim.lsp.buf_request_sync(0, 'workspace/executeCommand',
            { command = 'tandem.status', arguments = {} }, 5000)
          return answer[client.id].result.completions.accepted
        ]]) == 1
      end)
      editor:keys('<Esc>u')
      editor:wait('undone', function()
        return vim.deep_equal(editor:text(), { 'import os', '', 'x = ' })
      end)
    end)

    scripted('a word, then a line of it is accepted' .. way, setup, function(editor)
      typed(editor, 'x = ')
      editor:keys('<C-f>')
      editor:wait('a word', function()
        return editor:text()[3] == 'x = alpha'
      end)
      editor:wait('a ghost behind it', function()
        return editor:ghost() ~= ''
      end)
      eq(#editor:text(), 3, 'lines')
      local rest = editor:ghost()
      editor:keys('<C-g>n')
      editor:wait('a line', function()
        return editor:text()[3] == 'x = alpha' .. vim.split(rest, '\n')[1]
      end)
      eq(#editor:text(), 3, 'lines')
    end)

    scripted('a dismissed suggestion is gone' .. way, setup, function(editor)
      typed(editor, 'x = ')
      editor:keys('<C-g>d')
      editor:wait('no ghost', function()
        return editor:ghost() == ''
      end)
      eq(editor:text(), { 'import os', '', 'x = ' }, 'text')
      eq(editor:mode(), 'i', 'mode')
      eq(editor:lua("return require('tandem').accept()"), false, 'accept')
    end)

    scripted('leaving insert mode drops it' .. way, setup, function(editor)
      typed(editor, 'x = ')
      editor:keys('<Esc>')
      editor:wait('no ghost', function()
        return editor:ghost() == ''
      end)
      eq(editor:text(), { 'import os', '', 'x = ' }, 'text')
    end)

    scripted('typing along with it keeps it right' .. way, setup, function(editor)
      typed(editor, 'x = ')
      editor:keys('al<C-l>')
      editor:wait('the text', function()
        return #editor:text() == 4
      end)
      eq(editor:text()[3], 'x = alpha(beta)', 'text')
    end)
  end

  test('a suggestion of the embedded model is shown and accepted', {}, function(editor)
    editor:lua(PLUGS)
    editor:open_attached('b.py', {
      'def total(items):',
      '    result = 0',
      '    for item in items:',
    })
    editor:keys('Go        result += ')
    local ghost = editor:wait('a ghost', function()
      local ghost = editor:ghost()
      return ghost ~= '' and ghost
    end)
    editor:keys('<C-l>')
    editor:wait('the text', function()
      return table.concat(editor:text(), '\n'):find('result += ' .. ghost, 1, true)
    end)
  end)

  test('no key is taken', { arguments = { '--scripted-answer', TEXT } }, function(editor)
    editor:open_attached('a.py', { 'x' })
    local taken = editor:lua([[
      local taken = {}
      for _, mode in ipairs({ 'n', 'i', 'v', 'x', 's', 'o', 'c', 't' }) do
        for _, map in ipairs(vim.list_extend(vim.api.nvim_get_keymap(mode),
          vim.api.nvim_buf_get_keymap(0, mode))) do
          if (map.rhs or ''):find('tandem') or (map.desc or ''):find('Tandem') then
            table.insert(taken, map.lhs)
          end
        end
      end
      table.sort(taken)
      return taken
    ]])
    eq(taken, {
      '<Plug>(tandem-accept)',
      '<Plug>(tandem-accept-line)',
      '<Plug>(tandem-accept-word)',
      '<Plug>(tandem-dismiss)',
      -- In insert mode and in normal mode.
      '<Plug>(tandem-next)',
      '<Plug>(tandem-next)',
    }, 'mappings')
    editor:keys('Go<Tab>y')
    editor:wait('a tab', function()
      return editor:text()[2] == '    y'
    end)
  end)

  test('Tab is a tab where there is nothing to accept', {
    arguments = { '--scripted-answer', TEXT },
  }, function(editor)
    editor:lua([[
      vim.keymap.set('i', '<Tab>', function()
        return require('tandem').accept() and '' or '<Tab>'
      end, { expr = true })
    ]])
    editor:open_attached('a.py', { 'import os', '' })
    editor:keys('GA')
    editor:lua("require('tandem').dismiss()")
    editor:lua("require('tandem.server').pause(true)")
    editor:keys('<Tab>')
    editor:wait('a tab', function()
      return editor:text()[2] == '    '
    end)
    editor:lua("require('tandem.server').pause(false)")
    editor:keys('x = ')
    editor:wait('a ghost', function()
      return editor:ghost() == 'alpha(beta)'
    end)
    editor:keys('<Tab>')
    editor:wait('the text', function()
      return editor:text()[2] == '    x = alpha(beta)'
    end)
  end)

  if NATIVE then
    test("README's lines for Neovim 0.12 do without the plugin", {
      arguments = { '--scripted-answer', TEXT },
      loaded = 'never',
    }, function(editor)
      local readme = table.concat(vim.fn.readfile(vim.env.PLUGIN_UNDER_TEST .. '/../../README.md'), '\n')
      local lines
      for block in readme:gmatch('```lua\n(.-)\n```') do
        if block:find('vim.lsp.inline_completion.enable(true)', 1, true) then
          lines = block
        end
      end
      assert(lines, 'README has no block with vim.lsp.inline_completion.enable(true)')
      editor:lua(lines)
      editor:open_attached('a.py', { 'import os', '' })
      -- Neovim listens to the buffer a moment after the client is there, and does not make up for it.
      editor:wait('Neovim to listen', function()
        return editor:lua("return #vim.api.nvim_get_autocmds({ event = 'InsertEnter', buffer = 0 }) > 0")
      end)
      editor:keys('Gox = ')
      editor:wait('a ghost', function()
        return editor:ghost() == TEXT
      end)
      editor:keys('<C-l>')
      editor:wait('the text', function()
        return vim.deep_equal(editor:text(), { 'import os', '', 'x = alpha(beta)', '    gamma = 1' })
      end)
    end)
  end
end
