//! The language of a file by its name, as LSP identifies languages.

use std::path::Path;

/// The identifier (LSP 3.17, "Text Document Language Identifiers"); empty where unknown.
#[must_use]
pub fn of(file: &Path) -> &'static str {
    let name = file
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    match name {
        "Makefile" | "makefile" | "GNUmakefile" => return "makefile",
        "Dockerfile" | "Containerfile" => return "dockerfile",
        _ => {}
    }
    let extension = file
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default();
    match extension {
        "rs" => "rust",
        "py" | "pyi" => "python",
        "js" | "mjs" | "cjs" => "javascript",
        "jsx" => "javascriptreact",
        "ts" | "mts" | "cts" => "typescript",
        "tsx" => "typescriptreact",
        "go" => "go",
        "c" | "h" => "c",
        "cc" | "cpp" | "cxx" | "hh" | "hpp" | "hxx" => "cpp",
        "java" => "java",
        "kt" | "kts" => "kotlin",
        "swift" => "swift",
        "cs" => "csharp",
        "rb" => "ruby",
        "php" => "php",
        "lua" => "lua",
        "scala" => "scala",
        "hs" => "haskell",
        "ex" | "exs" => "elixir",
        "zig" => "zig",
        "sh" | "bash" | "zsh" => "shellscript",
        "sql" => "sql",
        "html" | "htm" => "html",
        "css" => "css",
        "scss" => "scss",
        "vue" => "vue",
        "svelte" => "svelte",
        "json" => "json",
        "yaml" | "yml" => "yaml",
        "toml" => "toml",
        "md" | "markdown" => "markdown",
        "tex" => "latex",
        "txt" => "plaintext",
        _ => "",
    }
}
