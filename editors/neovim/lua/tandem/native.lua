--- Suggestions as Neovim 0.12 draws them, by `vim.lsp.inline_completion`.

local ghost = require('tandem.ghost')
local text = require('tandem.text')

local M = {}

--- Where an item begins, and what of it goes behind the cursor.
local function behind_cursor(item)
  local row, col = unpack(vim.api.nvim_win_get_cursor(0))
  row = row - 1
  local start_row, start_col = row, col
  if item.range then
    start_row, start_col = item.range:to_extmark()
  end
  return text.rest(0, { insertText = item.insert_text }, start_row, start_col, row, col)
end

--- Accepts what is shown, or its next word or line. Neovim asks anew when the text has changed, so
--- what is left of a suggestion comes back as its own.
---@param part 'word'|'line'|nil
---@return boolean whether there was something
function M.accept(part)
  return vim.lsp.inline_completion.get({
    on_accept = function(item)
      local client = vim.lsp.get_client_by_id(item.client_id)
      if not client or client.name ~= 'tandem' or type(item.insert_text) ~= 'string' then
        return item
      end
      -- Neovim puts an item over the place it was made for; typed along with, it would come twice.
      local rest = behind_cursor(item)
      if not rest or rest == '' then
        return nil
      end
      local taken = text.part(rest, part)
      text.insert(taken)
      local offered = { insertText = item.insert_text, command = item.command }
      ghost.told(client, offered, taken == rest, rest, taken)
      return nil
    end,
  })
end

--- Takes back what is shown.
---@return boolean whether there was something
function M.dismiss()
  return vim.lsp.inline_completion.get({
    on_accept = function()
      return nil
    end,
  })
end

--- Draws suggestions in the buffers that Tandem is in, and will be in.
function M.enable()
  local group = vim.api.nvim_create_augroup('tandem.native', {})
  vim.api.nvim_create_autocmd('LspAttach', {
    group = group,
    callback = function(event)
      local client = vim.lsp.get_client_by_id(event.data.client_id)
      if client and client.name == 'tandem' then
        vim.lsp.inline_completion.enable(true, { bufnr = event.buf })
      end
    end,
  })
end

return M
