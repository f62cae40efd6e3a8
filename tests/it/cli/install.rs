//! `tandem install claude-desktop` and its opposite: the real program, in a home of its own. The other
//! programs have files of their own.

mod neovim;
#[cfg(unix)]
mod vscode;

use std::fs;
use std::path::PathBuf;

use super::Home;

/// Where Claude Desktop keeps its configuration, from the home folder.
const FOLDER: &str = if cfg!(target_os = "macos") {
    "Library/Application Support/Claude"
} else {
    ".config/Claude"
};

const BEFORE: &str = "\u{feff}{\r\n  \"mcpServers\": {\r\n    \"other\": {\"env\": {\"K\": \
                      \"v\"}}\r\n  }\r\n}\r\n";

const INSTALL: &[&str] = &["install", "claude-desktop"];
const UNINSTALL: &[&str] = &["uninstall", "claude-desktop"];

impl Home {
    fn claude_desktop(&self, name: &str) -> PathBuf {
        self.path().join(FOLDER).join(name)
    }

    fn configuration(&self) -> PathBuf {
        self.claude_desktop("claude_desktop_config.json")
    }

    fn backup(&self) -> PathBuf {
        self.claude_desktop("claude_desktop_config.json.tandem-backup")
    }

    fn has_configuration(text: &str) -> Self {
        let home = Self::new();
        fs::create_dir_all(home.path().join(FOLDER)).unwrap();
        fs::write(home.configuration(), text).unwrap();
        home
    }

    /// Runs it, holds its exit code, and returns both of its streams.
    fn says(&self, args: &[&str], more: &[&str], code: i32) -> String {
        let ran = self.run(&[args, more].concat());
        assert_eq!(ran.code, Some(code), "{ran:?}");
        format!("{}{}", ran.stdout, ran.stderr)
    }

    fn files(&self) -> usize {
        fs::read_dir(self.path().join(FOLDER)).unwrap().count()
    }
}

#[test]
fn it_is_installed_once_and_uninstalled_without_a_trace() {
    let home = Home::has_configuration(BEFORE);
    // Tandem's own configuration need not be sound for it.
    home.write(".config/tandem/config.yaml", "mode: [");

    let said = home.says(INSTALL, &["--dry-run"], 0);
    assert!(
        said.contains("\n+    \"tandem\": {\n") && said.contains("@@ "),
        "{said}"
    );
    assert_eq!(fs::read_to_string(home.configuration()).unwrap(), BEFORE);
    assert_eq!(home.files(), 1, "a dry run leaves nothing");

    let said = home.says(INSTALL, &[], 0);
    for part in [
        "Installed: ",
        "As it was before: ",
        "start it again",
        "claude.api_key_command",
        "lies in a build folder",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let after = fs::read_to_string(home.configuration()).unwrap();
    let json: serde_json::Value =
        serde_json::from_str(after.strip_prefix('\u{feff}').unwrap()).unwrap();
    let entry = &json["mcpServers"]["tandem"];
    assert_eq!(entry["command"], env!("CARGO_BIN_EXE_tandem"));
    assert_eq!(entry["args"], serde_json::json!(["mcp"]));
    assert_eq!(entry.as_object().unwrap().len(), 2, "and no key: {entry}");
    assert_eq!(fs::read_to_string(home.backup()).unwrap(), BEFORE);
    assert_eq!(home.files(), 2);

    let said = home.says(INSTALL, &[], 0);
    assert!(said.contains("Already installed"), "{said}");
    assert_eq!(fs::read_to_string(home.configuration()).unwrap(), after);

    let said = home.says(UNINSTALL, &["--dry-run"], 0);
    assert!(said.contains("\n-    \"tandem\": {\n"), "{said}");
    assert_eq!(fs::read_to_string(home.configuration()).unwrap(), after);

    home.says(UNINSTALL, &[], 0);
    assert_eq!(fs::read_to_string(home.configuration()).unwrap(), BEFORE);
    assert_eq!(home.files(), 1, "the backup had nothing more to say");
    let said = home.says(UNINSTALL, &[], 0);
    assert!(said.contains("Not installed"), "{said}");
}

#[test]
fn the_first_backup_is_kept() {
    let home = Home::has_configuration(BEFORE);
    fs::write(home.backup(), "first").unwrap();
    let said = home.says(INSTALL, &[], 0);
    assert!(!said.contains("As it was before"), "{said}");
    assert_eq!(fs::read_to_string(home.backup()).unwrap(), "first");
    home.says(UNINSTALL, &[], 0);
    assert_eq!(fs::read_to_string(home.configuration()).unwrap(), BEFORE);
    assert_eq!(fs::read_to_string(home.backup()).unwrap(), "first");
}

#[test]
fn a_file_that_cannot_be_edited_stays_as_it_is() {
    for (before, told) in [
        (&b"{\n  \"mcpServers\": {,}\n}"[..], "line 2, column 18: "),
        (
            b"{\"mcpServers\": null}",
            "line 1, column 16: `mcpServers` is no object",
        ),
        (
            b"{\"a\":\n \"\xe9\"}",
            "line 2, column 3: this is not UTF-8",
        ),
        (b"\xff\xfe{\0}\0", "line 1, column 1: this is not UTF-8"),
    ] {
        let home = Home::has_configuration("");
        fs::write(home.configuration(), before).unwrap();
        for (args, more) in [
            (INSTALL, &[][..]),
            (UNINSTALL, &[]),
            (INSTALL, &["--dry-run"]),
        ] {
            let said = home.says(args, more, 2);
            assert!(
                said.contains(told)
                    && said.contains("Nothing was changed")
                    && said.contains("run this again"),
                "{said}"
            );
            assert_eq!(fs::read(home.configuration()).unwrap(), before);
            assert_eq!(home.files(), 1, "no backup of what was not changed");
        }
    }
}

#[test]
fn without_claude_desktop_it_says_so_and_how_to_go_on() {
    let home = Home::new();
    let said = home.says(INSTALL, &[], 1);
    assert!(
        said.contains("Claude Desktop seems not to be installed") && said.contains("--file"),
        "{said}"
    );
    assert!(!home.path().join(FOLDER).exists());
    let said = home.says(UNINSTALL, &[], 0);
    assert!(said.contains("Not installed"), "{said}");

    // A file that is named is made, with its folder.
    home.says(INSTALL, &["--file", "new/other.json", "--dry-run"], 0);
    assert!(!home.path().join("new").exists());
    home.says(INSTALL, &["--file", "new/other.json"], 0);
    let made = fs::read_to_string(home.path().join("new/other.json")).unwrap();
    assert!(
        made.contains("\"tandem\"") && made.ends_with("}\n"),
        "{made}"
    );

    // So is Claude Desktop's own where it has a folder.
    fs::create_dir_all(home.path().join(FOLDER)).unwrap();
    home.says(INSTALL, &[], 0);
    assert_eq!(fs::read_to_string(home.configuration()).unwrap(), made);
    assert_eq!(home.files(), 1, "nothing was there to keep");

    let said = home.says(INSTALL, &["--file", "new"], 2);
    assert!(said.contains("is no file"), "{said}");
}

#[test]
fn a_read_only_file_is_not_written() {
    let home = Home::has_configuration(BEFORE);
    let mut permissions = fs::metadata(home.configuration()).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(home.configuration(), permissions).unwrap();
    let said = home.says(INSTALL, &[], 1);
    assert!(said.contains("is read-only. Make it writable"), "{said}");
    assert_eq!(fs::read_to_string(home.configuration()).unwrap(), BEFORE);
    assert_eq!(home.files(), 1);
}

#[test]
fn where_no_backup_can_be_written_nothing_is() {
    let home = Home::new();
    // A name that leaves no room for that of the backup.
    let name = format!("{}.json", "x".repeat(245));
    home.write(&name, BEFORE);
    let said = home.says(INSTALL, &["--file", &name], 1);
    assert!(
        said.contains("cannot be written") && said.contains("Check the permissions"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(home.path().join(&name)).unwrap(), BEFORE);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn a_link_is_followed_and_permissions_stay() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let home = Home::new();
    fs::create_dir_all(home.path().join(FOLDER)).unwrap();
    home.write("dotfiles/claude.json", BEFORE);
    let real = home.path().join("dotfiles/claude.json");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&real, home.configuration()).unwrap();

    home.says(INSTALL, &[], 0);
    assert!(home.configuration().is_symlink());
    assert!(fs::read_to_string(&real).unwrap().contains("\"tandem\""));
    let backup = home.path().join("dotfiles/claude.json.tandem-backup");
    for file in [&real, &backup] {
        let mode = fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "{}", file.display());
    }
    home.says(UNINSTALL, &[], 0);
    assert_eq!(fs::read_to_string(&real).unwrap(), BEFORE);

    fs::remove_file(&real).unwrap();
    let said = home.says(INSTALL, &[], 1);
    assert!(
        said.contains("a link to a file that is not there"),
        "{said}"
    );
}
