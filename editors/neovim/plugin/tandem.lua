-- Loads Tandem: the `<Plug>` mappings, `:Tandem`, and the server once Neovim has started.

if vim.g.loaded_tandem then
  return
end
vim.g.loaded_tandem = true

if vim.fn.has('nvim-0.10') == 0 then
  vim.notify('Tandem needs Neovim 0.10 or later. Update Neovim.', vim.log.levels.ERROR)
  return
end

for name, call in pairs({
  ['accept'] = 'accept()',
  ['accept-word'] = "accept('word')",
  ['accept-line'] = "accept('line')",
  ['dismiss'] = 'dismiss()',
}) do
  vim.keymap.set('i', ('<Plug>(tandem-%s)'):format(name), ("<Cmd>lua require('tandem').%s<CR>"):format(call), {
    desc = ('Tandem: %s'):format(name:gsub('-', ' a ')),
  })
end

vim.keymap.set({ 'n', 'i' }, '<Plug>(tandem-next)', "<Cmd>lua require('tandem').next()<CR>", {
  desc = 'Tandem: the next edit',
})

vim.api.nvim_create_user_command('Tandem', function(command)
  require('tandem.commands').run(command)
end, {
  nargs = '*',
  range = true,
  desc = 'Tandem: status, pause, resume, doctor, log, restart, next, explain, rewrite',
  complete = function(...)
    return require('tandem.commands').complete(...)
  end,
})

-- `setup` may come after this file, so the server waits for the configuration to be read.
if vim.v.vim_did_enter == 1 then
  vim.schedule(function()
    require('tandem').start()
  end)
else
  vim.api.nvim_create_autocmd('VimEnter', {
    once = true,
    callback = function()
      require('tandem').start()
    end,
  })
end
