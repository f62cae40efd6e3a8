--- Text of suggestions: how much of it is taken, and where positions of the protocol are in a line.

local M = {}

--- The byte in `line` that a position's `character` stands for.
---@param line string
---@param character integer
---@param encoding string
---@return integer
function M.byte(line, character, encoding)
  if encoding == 'utf-8' then
    return math.min(character, #line)
  end
  if vim.fn.has('nvim-0.11') == 1 then
    return vim.str_byteindex(line, encoding, character, false)
  end
  local good, byte = pcall(vim.str_byteindex, line, character, encoding == 'utf-16')
  return good and byte or #line
end

--- How long a text is in UTF-16 units.
---@param text string
---@return integer
function M.utf16(text)
  if vim.fn.has('nvim-0.11') == 1 then
    return vim.str_utfindex(text, 'utf-16')
  end
  local _, units = vim.str_utfindex(text)
  return units
end

--- What of a suggestion is taken.
---@param rest string What is suggested behind the cursor.
---@param part 'word'|'line'|nil Everything if it is not said.
---@return string
function M.part(rest, part)
  if part == 'word' then
    -- Blanks, then a name or a run of other signs; bytes past ASCII are in names.
    return rest:match('^%s*[%w_\128-\255]+') or rest:match('^%s*[^%w_%s\128-\255]+') or rest
  elseif part == 'line' then
    -- A suggestion that begins with a new line has its first line behind that.
    return rest:match('^\n*[^\n]+') or rest
  end
  return rest
end

--- What an item adds behind the cursor; nil if it no longer fits what is there.
---@param buffer integer
---@param item { insertText: string } The text of the range and what follows.
---@param start_row integer
---@param start_col integer
---@param row integer The cursor's, from 0, as `col`.
---@param col integer
---@return string?
function M.rest(buffer, item, start_row, start_col, row, col)
  if row < start_row or (row == start_row and col < start_col) then
    return nil
  end
  local good, typed = pcall(vim.api.nvim_buf_get_text, buffer, start_row, start_col, row, col, {})
  if not good then
    return nil
  end
  local prefix = table.concat(typed, '\n')
  if item.insertText:sub(1, #prefix) ~= prefix then
    return nil
  end
  return item.insertText:sub(#prefix + 1)
end

--- Puts text behind the cursor of the current window, as one step to undo.
---@param text string
function M.insert(text)
  local row, col = unpack(vim.api.nvim_win_get_cursor(0))
  -- Setting it, if only to itself, ends the step to undo before.
  vim.cmd('let &g:undolevels = &g:undolevels')
  local lines = vim.split(text, '\n', { plain = true })
  vim.api.nvim_buf_set_text(0, row - 1, col, row - 1, col, lines)
  local last = #lines
  vim.api.nvim_win_set_cursor(0, {
    row + last - 1,
    (last == 1 and col or 0) + #lines[last],
  })
end

return M
