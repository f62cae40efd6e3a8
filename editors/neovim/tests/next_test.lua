--- The next edit: shown where it is, made, skipped, taken back.

local LINES = {
  'def compute_total(items):',
  '    return sum(items)',
  '',
  '',
  'def report(items):',
  '    print("é", compute_total(items))',
  '    return compute_total(items) + 1',
}

local function eq(got, expected, what)
  if not vim.deep_equal(got, expected) then
    error(('%s: got %s, not %s'):format(what, vim.inspect(got), vim.inspect(expected)), 2)
  end
end

--- What is drawn, and the text that it would take the place of.
local function drawn(editor)
  return editor:lua([[
    local namespace = vim.api.nvim_get_namespaces()['tandem.next']
    local new, old = '', ''
    for _, mark in ipairs(vim.api.nvim_buf_get_extmarks(0, namespace, 0, -1, { details = true })) do
      for _, chunk in ipairs(mark[4].virt_text or {}) do
        new = new .. chunk[1]
      end
      if mark[4].end_col then
        old = old .. vim.api.nvim_buf_get_text(0, mark[2], mark[3], mark[2], mark[4].end_col, {})[1]
      end
    end
    return { old, new }
  ]])
end

local function row(editor)
  return editor:lua('return vim.api.nvim_win_get_cursor(0)[1]')
end

--- Renames the function where it is declared, and asks for the next edit.
local function renamed(editor)
  editor:open_attached('a.py', LINES)
  editor:keys('/total<CR>cesum<Esc>:Tandem next<CR>')
  editor:wait('a next edit', function()
    return row(editor) == 6 and drawn(editor)[2] ~= ''
  end)
end

return function(test)
  test('the next edit is shown, then made, then the one after it', {}, function(editor)
    renamed(editor)
    local shown = drawn(editor)
    eq((LINES[6]:gsub(vim.pesc(shown[1]), shown[2], 1)), '    print("é", compute_sum(items))', 'shown')
    eq(editor:text()[6], LINES[6], 'text before')
    editor:keys(':Tandem next<CR>')
    editor:wait('the one after it', function()
      return row(editor) == 7 and drawn(editor)[2] ~= ''
    end)
    eq(editor:text()[6], '    print("é", compute_sum(items))', 'line made')
    eq(editor:text()[7], LINES[7], 'line after it')
    editor:keys('gg:Tandem next<CR>')
    editor:wait('the place again', function()
      return row(editor) == 7
    end)
    eq(editor:text()[7], LINES[7], 'line after it, from elsewhere')
    editor:keys(':Tandem next<CR>')
    editor:wait('the last', function()
      return editor:text()[7] == '    return compute_sum(items) + 1'
    end)
    eq(drawn(editor), { '', '' }, 'drawn at the end')
    editor:keys('u')
    editor:wait('one undone', function()
      return editor:text()[7] == LINES[7]
    end)
    eq(editor:text()[6], '    print("é", compute_sum(items))', 'the one before it')
  end)

  test('a next edit that is skipped leaves its place', {}, function(editor)
    renamed(editor)
    editor:keys(':Tandem next skip<CR>')
    editor:wait('another', function()
      return row(editor) == 7 and drawn(editor)[2] ~= ''
    end)
    eq(editor:text()[6], LINES[6], 'skipped')
    editor:keys(':Tandem next<CR>')
    editor:wait('the other', function()
      return editor:text()[7] == '    return compute_sum(items) + 1'
    end)
    eq(editor:text()[6], LINES[6], 'skipped, later')
  end)

  test('a key of the user takes a next edit back', {}, function(editor)
    renamed(editor)
    editor:keys('ggO')
    editor:wait('nothing drawn', function()
      return drawn(editor)[2] == ''
    end)
    editor:keys('<Esc>')
    eq(editor:lua("return require('tandem').dismiss()"), false, 'dismissed')
    eq(#editor:text(), #LINES + 1, 'lines')
  end)

  test('by its mapping, and taken back', {}, function(editor)
    editor:lua("vim.keymap.set('n', 'gn', '<Plug>(tandem-next)')")
    editor:open_attached('a.py', LINES)
    editor:keys('gn')
    editor:wait('a message', function()
      return vim.tbl_contains(editor:messages(), 'Tandem: no next edit is likely here.')
    end)
    editor:keys('/total<CR>cesum<Esc>gn')
    editor:wait('a next edit', function()
      return drawn(editor)[2] ~= ''
    end)
    eq(editor:lua("return require('tandem').dismiss()"), true, 'dismissed')
    eq(drawn(editor), { '', '' }, 'drawn')
    eq(editor:text()[6], LINES[6], 'text')
  end)
end
