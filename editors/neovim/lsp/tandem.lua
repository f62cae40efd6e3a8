-- What `vim.lsp.enable('tandem')` starts, on Neovim 0.11 and later.
return require('tandem.server').config()
