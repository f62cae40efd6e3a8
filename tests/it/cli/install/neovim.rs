//! `tandem install neovim` and its opposite: the plugin in a home of its own. `editors/neovim/tests` has
//! real Neovims load what is installed.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::Home;
use super::super::Ran;

const INSTALL: &[&str] = &["install", "neovim"];
const UNINSTALL: &[&str] = &["uninstall", "neovim"];

/// Neovim's data folder, from the home folder.
const DATA: &str = if cfg!(windows) {
    "AppData/Local/nvim-data"
} else {
    ".local/share/nvim"
};

const RECORD: &str = "tandem-installed.json";

impl Home {
    /// Where Neovim has been started before.
    fn with_neovim() -> Self {
        let home = Self::new();
        fs::create_dir_all(home.path().join(DATA)).unwrap();
        home
    }

    fn plugin(&self, name: &str) -> PathBuf {
        let folder = self.path().join(DATA).join("site/pack/tandem/start/tandem");
        if name.is_empty() {
            folder
        } else {
            folder.join(name)
        }
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.plugin(name)).unwrap()
    }
}

/// Every file below a folder, by its path from there, and what it holds.
fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                files.push((name, fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn the_plugin_is_installed_once_and_uninstalled_without_a_trace() {
    let home = Home::with_neovim();
    let said = home.says(INSTALL, &["--dry-run"], 0);
    for part in ["New: ", "plugin/tandem.lua (", RECORD] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(tree(home.path()), [], "a dry run leaves nothing");

    let said = home.says(INSTALL, &[], 0);
    for part in [
        "Installed: ",
        "<Plug>(tandem-accept)",
        ":checkhealth tandem",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("editors/neovim");
    for (name, text) in tree(&home.plugin("")) {
        match name.to_str().unwrap() {
            RECORD | "lua/tandem/installed.lua" | "lua\\tandem\\installed.lua" => {}
            _ => assert_eq!(
                text,
                fs::read(source.join(&name)).unwrap(),
                "{}",
                name.display()
            ),
        }
    }
    let installed = home.text("lua/tandem/installed.lua");
    let program = env!("CARGO_BIN_EXE_tandem").replace('\\', "\\\\");
    assert!(
        installed.contains(&format!("program = \"{program}\"")),
        "{installed}"
    );

    let after = tree(home.path());
    let said = home.says(INSTALL, &[], 0);
    assert!(said.contains("Already installed"), "{said}");
    assert_eq!(tree(home.path()), after);

    // What Neovim makes of the help goes, too.
    fs::write(home.plugin("doc/tags"), "tandem\ttandem.txt\t/*tandem*\n").unwrap();
    let said = home.says(UNINSTALL, &["--dry-run"], 0);
    assert!(said.contains("Removed: "), "{said}");
    assert!(home.plugin(RECORD).exists());
    home.says(UNINSTALL, &[], 0);
    let left: Vec<_> = fs::read_dir(home.path().join(DATA)).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let said = home.says(UNINSTALL, &[], 0);
    assert!(said.contains("Not installed"), "{said}");
}

/// An older version's file, and its SHA-256.
const OLD: &str = "-- old\n";
const OLD_HASH: &str = "bb9646ae9e05879af694207da3a794a5537ebea5446523aa6425eef0beb95a68";

#[test]
fn another_version_replaces_what_nobody_changed_and_nothing_else() {
    let home = Home::with_neovim();
    home.says(INSTALL, &[], 0);
    let whole = tree(&home.plugin(""));
    // One file is another now, one is no more.
    let old = ["lua/tandem/say.lua", "lua/tandem/old/gone.lua"];
    let mut record: serde_json::Value = serde_json::from_str(&home.text(RECORD)).unwrap();
    record["version"] = "0.0.1".into();
    for name in old {
        fs::create_dir_all(home.plugin(name).parent().unwrap()).unwrap();
        fs::write(home.plugin(name), OLD).unwrap();
        record["files"][name] = OLD_HASH.into();
    }
    fs::write(home.plugin(RECORD), record.to_string()).unwrap();

    // Changed by a person since.
    fs::write(home.plugin(old[0]), "-- mine\n").unwrap();
    for more in [&[][..], &["--dry-run"]] {
        let said = home.says(INSTALL, more, 1);
        for part in [
            "not as Tandem installs them: lua/tandem/say.lua.",
            "Nothing was changed",
            "run this again",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    assert_eq!(home.text(old[0]), "-- mine\n");
    assert_eq!(home.text(old[1]), OLD);

    fs::write(home.plugin(old[0]), OLD).unwrap();
    let said = home.says(INSTALL, &["--dry-run"], 0);
    assert!(said.contains("\n--- old\n"), "{said}");
    assert!(said.contains("Removed: "), "{said}");
    home.says(INSTALL, &[], 0);
    fs::remove_dir(home.plugin("lua/tandem/old")).unwrap();
    assert_eq!(tree(&home.plugin("")), whole);
}

#[test]
fn what_people_put_there_or_changed_outlives_the_plugin() {
    let home = Home::with_neovim();
    home.says(INSTALL, &[], 0);
    fs::write(home.plugin("lua/tandem/text.lua"), "-- mine\n").unwrap();
    fs::write(home.plugin("notes.txt"), "mine").unwrap();
    let said = home.says(UNINSTALL, &[], 0);
    assert!(
        said.contains("Left there, since they were changed: lua/tandem/text.lua\n"),
        "{said}"
    );
    let left: Vec<_> = tree(&home.plugin(""))
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        left,
        ["lua/tandem/text.lua", "notes.txt"].map(PathBuf::from)
    );

    // A folder that is not ours to remove.
    let said = home.says(UNINSTALL, &[], 1);
    assert!(said.contains("Remove the folder yourself"), "{said}");
}

#[test]
fn a_copy_made_by_hand_becomes_an_installed_one() {
    let home = Home::with_neovim();
    home.says(INSTALL, &[], 0);
    let whole = tree(&home.plugin(""));
    fs::remove_file(home.plugin(RECORD)).unwrap();
    fs::remove_file(home.plugin("lua/tandem/installed.lua")).unwrap();
    home.says(INSTALL, &[], 0);
    assert_eq!(tree(&home.plugin("")), whole);
}

#[test]
fn a_record_that_cannot_be_read_or_leads_elsewhere_is_not_followed() {
    let home = Home::with_neovim();
    home.says(INSTALL, &[], 0);
    home.write("precious.txt", "mine");
    let hash = "e5d9e1b0a1fbc8a0fb4a0f0b9c8f8b5a1a3a57c9f1d4be0d2d1f4e1c3b5a7986";
    for record in [
        "{".to_owned(),
        "[]".to_owned(),
        format!(
            "{{\"version\": \"0.1.0\", \"files\": {{\"../../../../../../../../precious.txt\": \"{hash}\"}}}}"
        ),
    ] {
        fs::write(home.plugin(RECORD), &record).unwrap();
        let before = tree(home.path());
        for args in [INSTALL, UNINSTALL] {
            let said = home.says(args, &[], 2);
            assert!(
                said.contains(RECORD)
                    && said.contains("Nothing was changed")
                    && said.contains("run this again"),
                "{said}"
            );
        }
        assert_eq!(tree(home.path()), before);
    }
}

#[test]
fn without_neovim_it_says_so_and_how_to_go_on() {
    let home = Home::new();
    let said = home.says(INSTALL, &[], 1);
    assert!(
        said.contains("Neovim seems not to be installed") && said.contains("--folder"),
        "{said}"
    );
    assert_eq!(tree(home.path()), []);

    // A folder that is named is made.
    home.says(INSTALL, &["--folder", "plugins/tandem"], 0);
    assert!(
        home.path()
            .join("plugins/tandem/plugin/tandem.lua")
            .exists()
    );
    home.says(UNINSTALL, &["--folder", "plugins/tandem"], 0);
    assert!(!home.path().join("plugins/tandem").exists());
    assert!(home.path().join("plugins").exists());
}

#[test]
fn what_is_in_the_way_is_told() {
    // A file where the folder is to be.
    let home = Home::with_neovim();
    fs::create_dir_all(home.plugin("").parent().unwrap()).unwrap();
    fs::write(home.plugin(""), "mine").unwrap();
    for args in [INSTALL, UNINSTALL] {
        let said = home.says(args, &[], 2);
        assert!(said.contains("is no folder. Move it away"), "{said}");
    }
    assert_eq!(fs::read_to_string(home.plugin("")).unwrap(), "mine");

    // A file where a folder above is to be.
    let home = Home::with_neovim();
    fs::write(home.path().join(DATA).join("site"), "mine").unwrap();
    let said = home.says(INSTALL, &[], 1);
    assert!(said.contains("Check"), "{said}");

    // A folder where a file is to be.
    let home = Home::with_neovim();
    fs::create_dir_all(home.plugin("plugin/tandem.lua")).unwrap();
    let said = home.says(INSTALL, &[], 1);
    assert!(
        said.contains("not as Tandem installs them: plugin/tandem.lua."),
        "{said}"
    );
    assert_eq!(tree(home.path()), []);

    // A file that its owner does not want written.
    let home = Home::with_neovim();
    home.says(INSTALL, &[], 0);
    let locked = home.plugin("lua/tandem/say.lua");
    let mut permissions = fs::metadata(&locked).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&locked, permissions).unwrap();
    let before = tree(home.path());
    let said = home.says(UNINSTALL, &[], 1);
    assert!(said.contains("is read-only. Make it writable"), "{said}");
    assert_eq!(tree(home.path()), before);
}

#[test]
fn neovims_variables_say_where_its_data_is() {
    let home = Home::new();
    let run = |data: &str, name: &str| {
        let mut command = home.command(&["install", "neovim"]);
        command
            .env("XDG_DATA_HOME", home.path().join(data))
            .env("NVIM_APPNAME", name);
        Ran::from(command.output().unwrap())
    };
    let suffix = if cfg!(windows) { "-data" } else { "" };
    for (data, name) in [("a", "nvim"), ("b", "lazy/own")] {
        let folder = home.path().join(data).join(format!("{name}{suffix}"));
        fs::create_dir_all(&folder).unwrap();
        let ran = run(data, name);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let plugin = folder.join("site/pack/tandem/start/tandem/plugin/tandem.lua");
        assert!(plugin.exists(), "{}", plugin.display());
    }
    for name in ["../up", "/absolute"] {
        let ran = run("c", name);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains("NVIM_APPNAME"), "{ran:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_to_the_source_stays() {
    use std::os::unix::fs::symlink;

    let home = Home::with_neovim();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("editors/neovim");
    fs::create_dir_all(home.plugin("").parent().unwrap()).unwrap();
    symlink(&source, home.plugin("")).unwrap();
    let said = home.says(INSTALL, &[], 0);
    assert!(
        said.contains("Already installed") && said.contains("is a link to"),
        "{said}"
    );
    let said = home.says(UNINSTALL, &[], 1);
    assert!(said.contains("Remove the link yourself"), "{said}");
    assert!(home.plugin("").is_symlink());
    assert!(!source.join(RECORD).exists());

    fs::remove_file(home.plugin("")).unwrap();
    symlink(home.path().join("nowhere"), home.plugin("")).unwrap();
    let said = home.says(INSTALL, &[], 1);
    assert!(said.contains("a link that leads nowhere"), "{said}");

    // Nor is anything written through a link inside.
    fs::remove_file(home.plugin("")).unwrap();
    fs::create_dir_all(home.plugin("")).unwrap();
    fs::create_dir_all(home.path().join("elsewhere")).unwrap();
    symlink(home.path().join("elsewhere"), home.plugin("lua")).unwrap();
    let said = home.says(INSTALL, &[], 1);
    assert!(said.contains("lua/tandem/init.lua"), "{said}");
    assert_eq!(
        fs::read_dir(home.path().join("elsewhere")).unwrap().count(),
        0
    );
}
