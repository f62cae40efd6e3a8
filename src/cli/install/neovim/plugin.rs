//! The plugin's files, which the program carries: where it is installed there is no source tree.

use std::fmt::Write as _;
use std::path::{Component, Path};

/// A file: its path in the plugin's folder, and its text.
pub type Embedded = (&'static str, &'static str);

macro_rules! embedded {
    ($($path:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!("../../../../editors/neovim/", $path)))),+]
    };
}

/// What Neovim loads; the tests stay at home.
pub const FILES: &[Embedded] = embedded![
    "doc/tandem.txt",
    "lsp/tandem.lua",
    "lua/tandem/commands.lua",
    "lua/tandem/ghost.lua",
    "lua/tandem/health.lua",
    "lua/tandem/init.lua",
    "lua/tandem/native.lua",
    "lua/tandem/next.lua",
    "lua/tandem/options.lua",
    "lua/tandem/say.lua",
    "lua/tandem/server.lua",
    "lua/tandem/text.lua",
    "plugin/tandem.lua",
];

/// The file that only an installed plugin has, read by `lua/tandem/server.lua`.
pub const INSTALLED: &str = "lua/tandem/installed.lua";

/// What Neovim itself makes of the plugin's help, at `:helptags`.
pub const HELP_TAGS: &str = "doc/tags";

/// What [`INSTALLED`] holds where `program` installs the plugin.
pub fn installed(program: &str) -> String {
    format!(
        "-- Written by `tandem install neovim`: what is started where `tandem` is not on PATH.\n\
         return {{ program = \"{}\" }}\n",
        escaped(program)
    )
}

/// As a Lua string takes it; a byte may be written as three digits.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => escaped.extend(['\\', c]),
            c if c.is_ascii_control() => {
                let _ = write!(escaped, "\\{:03}", u32::from(c));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// Whether `path`, as a record names it, stays in the plugin's folder.
pub fn stays_inside(path: &str) -> bool {
    let parts = Path::new(path).components();
    let mut names = parts.map(|part| matches!(part, Component::Normal(_)));
    !path.is_empty() && names.all(|is_name| is_name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_list_is_what_the_plugin_has() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("editors/neovim");
        let mut found = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
                let name = name.replace('\\', "/");
                if path.is_dir() && name != "tests" {
                    folders.push(path);
                } else if path.is_file() && name != HELP_TAGS {
                    found.push(name);
                }
            }
        }
        found.sort_unstable();
        let listed: Vec<_> = FILES.iter().map(|(path, _)| *path).collect();
        assert_eq!(listed, found);
        assert!(!found.iter().any(|name| name == INSTALLED));
    }

    #[test]
    fn a_path_is_written_as_lua_reads_it() {
        let text = installed("C:\\a \"b\"\n\u{e4}");
        assert!(
            text.ends_with("{ program = \"C:\\\\a \\\"b\\\"\\010\u{e4}\" }\n"),
            "{text}"
        );
    }

    #[test]
    fn a_path_that_leads_out_of_the_folder_is_told_apart() {
        for (path, stays) in [
            ("lua/tandem/init.lua", true),
            ("a", true),
            ("", false),
            ("../a", false),
            ("lua/../../a", false),
            ("/etc/passwd", false),
        ] {
            assert_eq!(stays_inside(path), stays, "{path}");
        }
    }
}
