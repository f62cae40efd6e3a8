//! `tandem install vscode` and its opposite, with a program in VS Code's place that writes down what it
//! was asked for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::super::{Home, Ran};

const INSTALL: &[&str] = &["install", "vscode"];
const UNINSTALL: &[&str] = &["uninstall", "vscode"];

const BEFORE: &str = "// mine\n{\n    \"editor.tabSize\": 2, // narrow\n}\n";

/// Keeps one line for each run, and lists what was installed as VS Code does.
const STAND_IN: &str = r#"#!/bin/sh
echo "$* key=$ANTHROPIC_API_KEY" >> "$HOME/runs"
case "$1" in
  --install-extension) [ -f "$2" ] || { echo "no $2" >&2; exit 1; }; echo Tandem.tandem > "$HOME/listed" ;;
  --uninstall-extension) rm "$HOME/listed" ;;
  --list-extensions) echo other.one; [ ! -f "$HOME/listed" ] || cat "$HOME/listed" ;;
esac
"#;

/// Where VS Code keeps its settings, from the home folder.
const FOLDER: &str = if cfg!(target_os = "macos") {
    "Library/Application Support/Code/User"
} else {
    ".config/Code/User"
};

impl Home {
    /// With a program of this name on `PATH`, and a packaged extension.
    fn with_program(name: &str, script: &str) -> Self {
        let home = Self::new();
        home.write(&format!("bin/{name}"), script);
        let path = home.path().join("bin").join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        home.write("a.vsix", "packaged");
        home
    }

    fn settings(&self) -> PathBuf {
        self.path().join(FOLDER).join("settings.json")
    }

    fn has_settings(&self, text: &str) {
        fs::create_dir_all(self.path().join(FOLDER)).unwrap();
        fs::write(self.settings(), text).unwrap();
    }

    /// Runs it with the stand-in on `PATH`, holds its exit code, and returns both of its streams.
    fn does(&self, args: &[&str], more: &[&str], code: i32) -> String {
        let mut command = self.command(&[args, more].concat());
        let path = format!("{}:/usr/bin:/bin", self.path().join("bin").display());
        command
            .env("PATH", path)
            .env("ANTHROPIC_API_KEY", "sk-ant-secret");
        let ran = Ran::from(command.output().unwrap());
        assert_eq!(ran.code, Some(code), "{ran:?}");
        format!("{}{}", ran.stdout, ran.stderr)
    }

    fn runs(&self) -> String {
        fs::read_to_string(self.path().join("runs")).unwrap_or_default()
    }
}

#[test]
fn the_extension_and_its_setting_come_and_go() {
    let home = Home::with_program("code", STAND_IN);
    home.has_settings(BEFORE);
    let vsix = home.path().join("a.vsix");
    let said = home.does(INSTALL, &["--vsix", "a.vsix", "--dry-run"], 0);
    let line = format!("code --install-extension {}\n", vsix.display());
    assert!(
        said.contains("Would run: ") && said.contains(&line),
        "{said}"
    );
    assert!(said.contains("\n+    \"tandem.path\": \""), "{said}");
    assert_eq!(home.runs(), "", "a dry run runs nothing");
    assert_eq!(fs::read_to_string(home.settings()).unwrap(), BEFORE);

    let said = home.does(INSTALL, &["--vsix", "a.vsix"], 0);
    for part in [
        "Installed: tandem.tandem in ",
        "As it was before: ",
        "Reload Window",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let installed = format!("--install-extension {} key=\n", vsix.display());
    assert_eq!(home.runs(), installed, "and no key");
    let after = fs::read_to_string(home.settings()).unwrap();
    let program = env!("CARGO_BIN_EXE_tandem");
    let expected = format!(
        "// mine\n{{\n    \"editor.tabSize\": 2, // narrow\n    \"tandem.path\": \"{program}\",\n}}\n"
    );
    assert_eq!(after, expected);

    // Twice is the same as once.
    home.does(INSTALL, &["--vsix", "a.vsix"], 0);
    assert_eq!(fs::read_to_string(home.settings()).unwrap(), after);

    let said = home.does(UNINSTALL, &["--dry-run"], 0);
    assert!(
        said.contains("--uninstall-extension tandem.tandem\n"),
        "{said}"
    );
    assert!(said.contains("\n-    \"tandem.path\": \""), "{said}");
    assert_eq!(home.runs(), installed.repeat(2));
    home.does(UNINSTALL, &[], 0);
    assert_eq!(fs::read_to_string(home.settings()).unwrap(), BEFORE);
    assert_eq!(fs::read_dir(home.path().join(FOLDER)).unwrap().count(), 1);
    assert!(
        home.runs()
            .ends_with("--list-extensions key=\n--uninstall-extension tandem.tandem key=\n")
    );

    let said = home.does(UNINSTALL, &[], 0);
    assert!(said.contains("Not installed"), "{said}");
}

#[test]
fn on_path_the_program_needs_no_setting() {
    let home = Home::with_program("code", STAND_IN);
    let ours = home.path().join("bin/tandem");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_tandem"), ours).unwrap();
    let said = home.does(INSTALL, &["--vsix", "a.vsix"], 0);
    assert!(said.contains("It starts `tandem` from your PATH"), "{said}");
    assert!(!home.path().join(FOLDER).exists());

    // One that names another program is corrected all the same.
    home.has_settings("{\"tandem.path\": \"/old\"}");
    home.does(INSTALL, &["--vsix", "a.vsix"], 0);
    let after = fs::read_to_string(home.settings()).unwrap();
    assert_eq!(
        after,
        format!("{{\"tandem.path\": \"{}\"}}", env!("CARGO_BIN_EXE_tandem"))
    );
}

#[test]
fn each_program_has_settings_of_its_own() {
    for (name, settings) in [
        ("codium", ".config/VSCodium/User/settings.json"),
        ("cursor", ".config/Cursor/User/settings.json"),
        (
            "code-insiders",
            ".config/Code - Insiders/User/settings.json",
        ),
        (
            "code-server",
            ".local/share/code-server/Machine/settings.json",
        ),
    ] {
        let home = Home::with_program(name, STAND_IN);
        for more in [&[][..], &["--program", name]] {
            home.does(INSTALL, &[&["--vsix", "a.vsix"], more].concat(), 0);
            let settings = settings.replace(".config", FOLDER.trim_end_matches("/Code/User"));
            let text = fs::read_to_string(home.path().join(&settings)).unwrap();
            assert!(text.contains("\"tandem.path\""), "{settings}: {text}");
        }
    }
    // What a distribution builds has another folder, and the same name.
    let home = Home::with_program("code", STAND_IN);
    let folder = FOLDER.replace("Code", "Code - OSS");
    fs::create_dir_all(home.path().join(&folder)).unwrap();
    home.does(INSTALL, &["--vsix", "a.vsix"], 0);
    assert!(home.path().join(folder).join("settings.json").exists());

    // One that nobody has heard of needs to be told.
    let home = Home::with_program("own-code", STAND_IN);
    let named = ["--vsix", "a.vsix", "--program", "own-code"];
    let said = home.does(INSTALL, &named, 2);
    assert!(said.contains("Name the file with --file"), "{said}");
    assert_eq!(home.runs(), "");
    home.does(
        INSTALL,
        &[&named[..], &["--file", "own/settings.json"]].concat(),
        0,
    );
    assert!(home.path().join("own/settings.json").exists());
}

#[test]
fn what_is_missing_is_told_before_anything_is_done() {
    let home = Home::with_program("code", STAND_IN);
    for (more, told) in [
        (
            &["--vsix", "none.vsix"][..],
            "none.vsix: there is no such file. Correct --vsix",
        ),
        (
            &[],
            "tandem.vsix: the extension is not beside this program. Build it with `npm ci && npm run package`",
        ),
        (
            &["--vsix", "a.vsix", "--program", "nothing"],
            "nothing: there is no such program. Correct --program",
        ),
    ] {
        let said = home.does(INSTALL, more, 2);
        assert!(said.contains(told), "{said}");
    }
    assert_eq!(home.runs(), "");
    assert!(!home.path().join(FOLDER).exists());

    let home = Home::with_program("other", STAND_IN);
    for (args, more) in [(INSTALL, &["--vsix", "a.vsix"][..]), (UNINSTALL, &[])] {
        let said = home.does(args, more, 1);
        assert!(
            said.contains("VS Code seems not to be installed") && said.contains("--program"),
            "{said}"
        );
    }
}

#[test]
fn settings_that_cannot_be_edited_stay_and_nothing_is_run() {
    let home = Home::with_program("code", STAND_IN);
    let vsix = ["--vsix", "a.vsix"];
    home.has_settings("{\n  \"a\": 1,,\n}");
    for (args, more) in [(INSTALL, &vsix[..]), (UNINSTALL, &[])] {
        let said = home.does(args, more, 2);
        assert!(
            said.contains("line 2, column 10") && said.contains("Nothing was changed"),
            "{said}"
        );
    }
    home.has_settings(BEFORE);
    let mut permissions = fs::metadata(home.settings()).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(home.settings(), permissions).unwrap();
    let said = home.does(INSTALL, &vsix, 1);
    assert!(said.contains("is read-only. Make it writable"), "{said}");
    assert_eq!(fs::read_to_string(home.settings()).unwrap(), BEFORE);

    fs::remove_file(home.settings()).unwrap();
    fs::create_dir_all(home.settings()).unwrap();
    let said = home.does(INSTALL, &vsix, 2);
    assert!(said.contains("is no file"), "{said}");
    assert_eq!(home.runs(), "");
    assert_eq!(fs::read_dir(home.path().join(FOLDER)).unwrap().count(), 1);
}

#[test]
fn what_vs_code_complains_of_is_passed_on() {
    let home = Home::with_program("code", "#!/bin/sh\necho 'the reason' >&2\nexit 3\n");
    home.has_settings(BEFORE);
    for (args, more) in [(INSTALL, &["--vsix", "a.vsix"][..]), (UNINSTALL, &[])] {
        let said = home.does(args, more, 1);
        assert!(
            said.contains("the reason") && said.contains("run this again"),
            "{said}"
        );
        assert_eq!(fs::read_to_string(home.settings()).unwrap(), BEFORE);
    }
    let home = Home::with_program("code", "\u{7f}ELF");
    let said = home.does(INSTALL, &["--vsix", "a.vsix"], 1);
    assert!(
        said.contains("cannot be started") || said.contains("failed"),
        "{said}"
    );
}
