--- Messages to the user, each said once until the user asks for a restart.

local M = {}

---@type table<string, boolean>
local said = {}

--- Says something, if it was not said yet.
---@param key string What it is about.
---@param message string Ends with the next step.
---@param level? integer
function M.once(key, message, level)
  if said[key] then
    return
  end
  said[key] = true
  vim.schedule(function()
    vim.notify('Tandem: ' .. message, level or vim.log.levels.WARN)
  end)
end

--- Says something.
---@param message string
---@param level? integer
function M.now(message, level)
  vim.notify('Tandem: ' .. message, level or vim.log.levels.INFO)
end

--- Forgets what was said.
function M.forget()
  said = {}
end

return M
