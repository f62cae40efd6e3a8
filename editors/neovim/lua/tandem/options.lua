--- What the user may set, and what holds until then.

local M = {}

---@class tandem.Options
---@field cmd string[] The program and its arguments.
---@field filetypes? string[] Where Tandem is used; everywhere if it is not said.
---@field root_markers string[] What marks the root of a project.
---@field settings table What the server is configured with, as in its configuration file.
---@field ghost_text 'auto'|'native'|'own'|false Who draws suggestions: Neovim, this plugin, nobody.
---@field autostart boolean Whether the server starts by itself.
---@field restart { limit: integer, delay_ms: integer } How often, and after what first pause, a
--- server that crashed is started again. Each pause is twice the one before.
---@field answer_ms integer How long a server may take to answer at its start, before you are told.
local defaults = {
  cmd = { 'tandem', 'lsp' },
  filetypes = nil,
  root_markers = { '.tandem.yaml', '.git' },
  settings = {},
  ghost_text = 'auto',
  autostart = true,
  restart = { limit = 4, delay_ms = 1000 },
  answer_ms = 15000,
}

---@type tandem.Options
M.now = vim.deepcopy(defaults)

--- Takes what the user says; what is not said is as it was at the start.
---@param said? table
function M.set(said)
  said = said or {}
  local known = {
    cmd = 'table',
    filetypes = 'table',
    root_markers = 'table',
    settings = 'table',
    ghost_text = { 'string', 'boolean' },
    autostart = 'boolean',
    restart = 'table',
    answer_ms = 'number',
  }
  local good = {}
  for name, value in pairs(said) do
    local expected = known[name]
    local types = type(expected) == 'table' and expected or { expected }
    if not expected then
      vim.notify(
        ("Tandem: setup knows no '%s'. See `:help tandem-setup`."):format(name),
        vim.log.levels.WARN
      )
    elseif not vim.tbl_contains(types, type(value)) then
      vim.notify(
        ("Tandem: '%s' is a %s. See `:help tandem-setup`."):format(name, table.concat(types, ' or a ')),
        vim.log.levels.WARN
      )
    else
      good[name] = value
    end
  end
  local now = vim.tbl_deep_extend('force', vim.deepcopy(defaults), good)
  -- Lists are replaced whole, on every Neovim.
  for _, name in ipairs({ 'cmd', 'filetypes', 'root_markers' }) do
    now[name] = good[name] or defaults[name]
  end
  M.now = now
end

--- Whether Neovim itself draws the suggestions.
---@return boolean
function M.native()
  local wanted = M.now.ghost_text
  return vim.lsp.inline_completion ~= nil and (wanted == 'auto' or wanted == 'native')
end

--- How suggestions are drawn, in words.
---@return string
function M.way()
  if not M.now.ghost_text then
    return 'none (`ghost_text` is false)'
  end
  return M.native() and 'vim.lsp.inline_completion' or "the plugin's own extmarks"
end

return M
