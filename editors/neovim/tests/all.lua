--- Runs the tests one after the other and says how many passed.

local here = vim.fs.dirname(debug.getinfo(1, 'S').source:sub(2))
package.path = here .. '/?.lua;' .. package.path
local Editor = require('editor')

local words = _G.arg or {}
local passed, failed = 0, {}

local function chosen(name)
  if #words == 0 then
    return true
  end
  for _, word in ipairs(words) do
    if name:find(word, 1, true) then
      return true
    end
  end
  return false
end

--- Runs one test in a Neovim of its own.
local function test(name, options, body)
  if not chosen(name) then
    return
  end
  local editor
  local good, trouble = xpcall(function()
    editor = Editor.new(options)
    body(editor)
  end, debug.traceback)
  if editor then
    local closed, why = pcall(editor.close, editor)
    if good and not closed then
      good, trouble = false, why
    end
  end
  if good then
    passed = passed + 1
    print('ok   ' .. name)
  else
    table.insert(failed, name)
    print('FAIL ' .. name .. '\n' .. trouble)
  end
end

for _, file in ipairs({ 'ghost_test', 'life_test', 'next_test' }) do
  require(file)(test)
end

local version = vim.version()
local shown = ('Neovim %d.%d.%d'):format(version.major, version.minor, version.patch)
if #failed > 0 or passed == 0 then
  print(('%d tests failed, %d passed, in %s'):format(#failed, passed, shown))
  os.exit(1)
end
print(('%d tests passed in %s'):format(passed, shown))
os.exit(0)
