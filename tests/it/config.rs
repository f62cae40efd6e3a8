//! The configuration: what is read, what is refused and how, which level wins, and that no project
//! can loosen what its user keeps.

mod mistakes;

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};
use tandem::config::{
    ConfigError, Configuration, EditorOptions, Layer, Layers, Mode, Options, Origin,
    ProjectOptions, Settings, config_schema, from_environment, starting_file,
};

fn user(yaml: &str) -> Layer<Options> {
    Layer::new(
        "config.yaml",
        Options::from_yaml(yaml, "config.yaml").unwrap(),
    )
}

/// What is told of a source that cannot be read, one mistake a line.
#[track_caller]
fn told<T: std::fmt::Debug>(read: Result<T, Vec<ConfigError>>) -> String {
    let errors: Vec<String> = read.unwrap_err().iter().map(ToString::to_string).collect();
    errors.join("\n")
}

fn project(yaml: &str) -> Layer<ProjectOptions> {
    let options = ProjectOptions::from_yaml(yaml, ".tandem.yaml").unwrap();
    Layer::new(".tandem.yaml", options)
}

fn variables(pairs: &[(&str, &str)]) -> Vec<Layer<Options>> {
    let pairs = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    from_environment(pairs).unwrap()
}

fn flag(key: &str, value: &str) -> Layer<Options> {
    Layer::new("--set", Options::from_text(key, value, "--set").unwrap())
}

#[test]
fn mistakes_name_the_line_the_key_and_the_next_step() {
    for (yaml, expected) in [
        (
            "mode: auto\nclaude:\n  fast_modle: x\n",
            "f:3: unknown key `claude.fast_modle`. Did you mean `claude.fast_model`?",
        ),
        (
            "completion:\n  debounce: fast\n",
            "f:2: `completion.debounce` is `fast`, expected `auto`, or a time from 0ms to 5s, such as \
             `75ms`, `2s` or `10m`. Correct the value; `tandem config schema` describes every key.",
        ),
        (
            "debounce: 5ms",
            "f:1: unknown key `debounce`. Did you mean `completion.debounce`?",
        ),
        (
            "local:\n  threads: 0",
            "f:2: `local.threads` is `0`, expected a whole number from 1 to 1024. Correct the value; \
             `tandem config schema` describes every key.",
        ),
        (
            "claude:\n  api_key: sk-ant-secret",
            "f:2: unknown key `claude.api_key`. Did you mean `claude.api_key_command`?",
        ),
        (
            "claude:\n  api_key_command: sk-ant-secret",
            "f:2: `claude.api_key_command` is text, expected a list. Correct the value; `tandem \
             config schema` describes every key.",
        ),
        (
            "mode: local",
            "f:1: `mode` cannot be `local`. Did you mean `local-only`? Known: `auto`, `local-only`, \
             `claude-only`.",
        ),
        (
            "completion:\n  enabled: yes",
            "f:2: `completion.enabled` is text, expected `true` or `false`. Correct the value; \
             `tandem config schema` describes every key.",
        ),
        (
            "privacy:\n  deny:\n  - '*.pem'\n  - '{a'",
            "f:4: `privacy.deny` is `{a`, expected a glob such as `**/*.pem`. Correct the value; \
             `tandem config schema` describes every key.",
        ),
        (
            "- mode",
            "f:1: found a list, expected a group of keys. Correct the value; `tandem config schema` \
             describes every key.",
        ),
        (
            "zzz: 1",
            "f:1: unknown key `zzz`. Known here: `claude`, `completion`, `daemon`, `local`, `log`, `mode`, \
             `privacy`, `server`.",
        ),
    ] {
        let error = told(Options::from_yaml(yaml, "f"));
        assert_eq!(error, expected, "{yaml}");
        assert!(!error.contains("secret"));
    }
}

#[test]
fn a_file_of_comments_changes_nothing() {
    for yaml in [
        "",
        "# nothing\n",
        "local:\n  # model: x\n",
        &starting_file(),
    ] {
        let options = Options::from_yaml(yaml, "f").unwrap();
        assert_eq!(Settings::from(options), Settings::default(), "{yaml}");
    }
}

#[test]
fn the_starting_file_is_right_when_its_comments_are_removed() {
    // Prose stands after `# `, keys after `#`; the keys within a group are indented by two more.
    let is_key = |line: &&str| {
        !line.starts_with(' ')
            || line
                .trim_start()
                .split(' ')
                .next()
                .is_some_and(|word| word.ends_with(':'))
    };
    let lines = starting_file();
    let keys: Vec<&str> = lines
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(is_key)
        .collect();
    let text = keys.join("\n");
    let options =
        Options::from_yaml(&text, "f").unwrap_or_else(|error| panic!("{error:?}\n{text}"));
    assert_eq!(Settings::from(options), Settings::default(), "{text}");
}

#[test]
fn settings_and_options_turn_into_each_other() {
    let yaml = "mode: claude-only\nlocal: {model: /m.gguf, threads: 3, kv_cache: 1GiB}\n\
                claude: {api_key_command: [pass, show], retries: 0}\nlog: {filter: debug}\n\
                server: {base_url: 'https://models/v1/', api_key_command: [pass], model: m, api: infill}\n";
    let settings = Settings::from(Options::from_yaml(yaml, "f").unwrap());
    assert_eq!(settings.local.kv_cache_bytes, 1 << 30);
    assert_eq!(
        settings.server.base_url.as_deref(),
        Some("https://models/v1")
    );
    assert_eq!(Settings::from(Options::from(&settings)), settings);
    assert_eq!(
        Settings::from(Options::from(&Settings::default())),
        Settings::default()
    );
}

#[test]
fn a_flag_wins_over_a_variable_over_the_editor_over_the_file() {
    let mut layers = Layers {
        flags: vec![flag("completion.max_tokens", "5")],
        environment: variables(&[("TANDEM_COMPLETION_MAX_TOKENS", "4")]),
        editor: EditorOptions::from_json(&json!({"completion": {"max_tokens": 3}})).unwrap(),
        user: Some(user("completion: {max_tokens: 2}")),
        ..Layers::default()
    };
    let mut check = |expected: usize, origin: Origin, strip: fn(&mut Layers)| {
        assert_eq!(layers.settings().completion.max_tokens, expected);
        let explained = layers.explain();
        let line = explained
            .iter()
            .find(|line| line.key == "completion.max_tokens")
            .unwrap();
        assert_eq!(
            (line.value.as_u64(), &line.origins[..]),
            (Some(expected as u64), &[origin][..])
        );
        strip(&mut layers);
    };
    check(5, Origin::Flag("--set".into()), |layers| {
        layers.flags.clear();
    });
    let variable = Origin::Variable("TANDEM_COMPLETION_MAX_TOKENS".into());
    check(4, variable, |layers| layers.environment.clear());
    check(3, Origin::Editor, |layers| {
        layers.editor = EditorOptions::default();
    });
    check(2, Origin::UserFile("config.yaml".into()), |layers| {
        layers.user = None;
    });
    check(64, Origin::Default, |_| ());
}

#[test]
fn lists_of_all_levels_add_up() {
    let layers = Layers {
        flags: vec![flag("privacy.deny", "a, b")],
        environment: variables(&[("TANDEM_PRIVACY_DENY", "c")]),
        editor: EditorOptions::from_json(&json!({"privacy": {"deny": ["d"]}})).unwrap(),
        user: Some(user("privacy: {deny: [e, a]}")),
        projects: vec![project("privacy: {deny: [f]}")],
        ..Layers::default()
    };
    let deny = layers.settings().privacy.deny;
    let mut sorted = deny.clone();
    sorted.sort();
    assert_eq!(sorted, ["a", "b", "c", "d", "e", "f"], "{deny:?}");
    let explained = layers.explain();
    let line = explained
        .iter()
        .find(|line| line.key == "privacy.deny")
        .unwrap();
    assert_eq!(line.origins.len(), 5, "{line:?}");
}

#[test]
fn variables_are_read_by_the_names_of_their_keys() {
    let layers = Layers {
        environment: variables(&[
            ("ANTHROPIC_BASE_URL", "https://low"),
            ("TANDEM_CLAUDE_BASE_URL", "https://high/"),
            ("TANDEM_COMPLETION_DEBOUNCE", "100"),
            ("TANDEM_COMPLETION_LANGUAGES_OFF", "markdown, plaintext"),
            ("TANDEM_LOCAL_EMBEDDED", "0"),
            ("TANDEM_LOCAL_MODEL", "/models/1 #2.gguf"),
            ("TANDEM_MODE", ""),
            ("TANDEM_CONFIG", "/elsewhere"),
            ("HOME", "/home/u"),
        ]),
        ..Layers::default()
    };
    let settings = layers.settings();
    assert_eq!(settings.claude.base_url, "https://high");
    let debounce = settings.completion.debounce.unwrap();
    assert_eq!(debounce.as_millis(), 100);
    assert_eq!(settings.completion.languages_off, ["markdown", "plaintext"]);
    assert!(!settings.local.embedded);
    assert_eq!(
        settings.local.model.as_deref(),
        Some(Path::new("/models/1 #2.gguf"))
    );
    for (name, value, expected) in [
        (
            "TANDEM_MOD",
            "auto",
            "TANDEM_MOD: no key is named so. Did you mean TANDEM_MODE?",
        ),
        (
            "TANDEM_LOCAL_THREADS",
            "many",
            "TANDEM_LOCAL_THREADS: `local.threads` is text",
        ),
        (
            "TANDEM_CLAUDE_API_KEY_COMMAND",
            "sh",
            "names a program to run",
        ),
        (
            "TANDEM_SERVER_API_KEY_COMMAND",
            "sh",
            "names a program to run",
        ),
        (
            "TANDEM_SERVER_BASE_URL",
            "http://models.example.com",
            "without TLS only on this machine",
        ),
        (
            "ANTHROPIC_BASE_URL",
            "sk-secret",
            "ANTHROPIC_BASE_URL: not an address",
        ),
    ] {
        let error = told(from_environment([(name.to_owned(), value.to_owned())]));
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn a_variable_that_holds_nothing_or_a_bundles_placeholder_is_unset() {
    for value in ["", " ", "${user_config.anthropic_api_key}"] {
        for name in [
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_BASE_URL",
            "TANDEM_LOCAL_MODEL",
        ] {
            assert!(variables(&[(name, value)]).is_empty(), "{name}={value}");
        }
    }
}

#[test]
fn a_project_cannot_say_what_is_not_its_own() {
    let refused = "is not for a project's file to say";
    for (yaml, expected) in [
        ("claude: {api_key_command: [sh]}", refused),
        ("claude: {base_url: 'http://evil'}", refused),
        ("claude: {fast_model: x}", refused),
        ("server: {base_url: 'https://evil'}", refused),
        ("server: {api_key_command: [sh]}", refused),
        ("server: {model: x}", refused),
        ("server: {api: chat}", refused),
        (
            "server: {automatic_completions: true}",
            "it can only be switched off here",
        ),
        ("local: {model: ./evil.gguf}", refused),
        ("local: {embedded: true}", refused),
        ("log: {file: /tmp/x}", refused),
        ("log: {filter: trace}", refused),
        ("completion: {max_tokens: 9}", refused),
        ("mode: auto", "`mode` cannot be `auto`. Write `local-only`."),
        ("mode: claude-only", "`mode` cannot be `claude-only`"),
        (
            "privacy: {allow_secrets: true}",
            "it can only be switched off here",
        ),
        (
            "privacy: {allow_git_ignored: true}",
            "it can only be switched off here",
        ),
        (
            "completion: {enabled: true}",
            "it can only be switched off here",
        ),
        (
            "claude: {automatic_completions: true}",
            "it can only be switched off here",
        ),
        ("privcy: {}", "Did you mean `privacy`?"),
    ] {
        let error = told(ProjectOptions::from_yaml(yaml, ".tandem.yaml"));
        assert!(error.contains(expected), "{yaml}: {error}");
        assert!(error.starts_with(".tandem.yaml:1: "), "{error}");
    }
}

#[test]
fn an_editor_cannot_name_programs_addresses_or_files_nor_loosen() {
    let refused = "is not for the editor's settings to say";
    for (settings, expected) in [
        (json!({"claude": {"api_key_command": ["sh"]}}), refused),
        (json!({"claude": {"base_url": "http://evil"}}), refused),
        (json!({"server": {"base_url": "https://evil"}}), refused),
        (json!({"server": {"api_key_command": ["sh"]}}), refused),
        (
            json!({"server": {"automatic_completions": true}}),
            "it can only be switched off here",
        ),
        (
            json!({"local": {"model": "evil.gguf"}}),
            "`local` is not for the editor's settings",
        ),
        (json!({"log": {"file": "/tmp/x"}}), refused),
        (
            json!({"privacy": {"allow_secrets": true}}),
            "it can only be switched off here",
        ),
        (
            json!({"completion": {"debounce": [1]}}),
            "`completion.debounce` is a list",
        ),
        (json!([1]), "found a list, expected a group of keys"),
        (json!({"mod": "auto"}), "Did you mean `mode`?"),
    ] {
        let error = told(EditorOptions::from_json(&settings));
        assert!(error.contains(expected), "{settings}: {error}");
    }
    assert_eq!(
        EditorOptions::from_json(&Value::Null).unwrap(),
        EditorOptions::default()
    );
    let editor = json!({
        "mode": "claude-only", "trace": {"server": "off"},
        "claude": {"automatic_completions": true, "daily_spend_cap_usd": 1000},
    });
    let editor = EditorOptions::from_json(&editor).unwrap();
    let layers = |yaml: &str| Layers {
        editor: editor.clone(),
        user: Some(user(yaml)),
        ..Layers::default()
    };
    let free = layers("").settings();
    assert_eq!(free.mode, Mode::ClaudeOnly);
    assert!(free.claude.automatic_completions);
    let kept =
        layers("mode: local-only\nclaude: {automatic_completions: false, daily_spend_cap_usd: 2}")
            .settings();
    assert_eq!(kept.mode, Mode::LocalOnly);
    assert!(!kept.claude.automatic_completions);
    assert!((kept.claude.daily_spend_cap_usd - 2.0).abs() < f64::EPSILON);
}

/// How much `settings` let out, as numbers that may only fall.
fn openness(settings: &Settings) -> Vec<f64> {
    let switch = |on: bool| f64::from(u8::from(on));
    vec![
        switch(settings.mode != Mode::LocalOnly),
        switch(settings.mode == Mode::ClaudeOnly),
        switch(settings.claude.automatic_completions),
        settings.claude.daily_spend_cap_usd,
        switch(settings.completion.enabled),
        switch(settings.completion.automatic),
        switch(settings.privacy.allow_git_ignored),
        switch(settings.privacy.allow_secrets),
        -(settings.privacy.deny.len() as f64),
        -(settings.completion.languages_off.len() as f64),
        -(settings.completion.paths_off.len() as f64),
    ]
}

proptest! {
    #[test]
    fn no_project_loosens_anything(
        mode in prop::sample::select(vec!["auto", "local-only", "claude-only"]),
        switches in prop::collection::vec(any::<bool>(), 5),
        cap in 0.0..100.0_f64,
        project_mode in any::<bool>(),
        project_switches in prop::collection::vec(any::<bool>(), 5),
        project_cap in prop::option::of(0.0..100.0_f64),
        deny in prop::collection::vec("[a-z]{1,2}", 0..3),
    ) {
        let before = Settings::from(Options::from_yaml(&format!(
            "mode: {mode}\nclaude: {{automatic_completions: {}, daily_spend_cap_usd: {cap}}}\n\
             completion: {{enabled: {}, automatic: {}, languages_off: [aa]}}\n\
             privacy: {{allow_git_ignored: {}, allow_secrets: {}, deny: [aa, b]}}\n",
            switches[0], switches[1], switches[2], switches[3], switches[4],
        ), "f").unwrap());
        let mut yaml = String::new();
        let mut say = |on: bool, key: &str, value: &str| if on {
            let (group, name) = key.split_once('.').unwrap_or(("", key));
            let said = if group.is_empty() {
                format!("{name}: {value}\n")
            } else {
                format!("{group}: {{{name}: {value}}}\n")
            };
            yaml.push_str(&said);
        };
        say(project_mode, "mode", "local-only");
        match project_cap {
            Some(cap) => say(true, "claude.daily_spend_cap_usd", &cap.to_string()),
            None => say(project_switches[0], "claude.automatic_completions", "false"),
        }
        say(project_switches[1], "completion.enabled", "false");
        say(true, "privacy.deny", &format!("{deny:?}"));
        let mut after = before.clone();
        after.tighten(&ProjectOptions::from_yaml(&yaml, "p").unwrap());
        for (before, after) in openness(&before).iter().zip(openness(&after)) {
            prop_assert!(after <= *before, "{yaml}");
        }
        prop_assert!(before.privacy.deny.iter().all(|glob| after.privacy.deny.contains(glob)));
    }

    #[test]
    fn any_text_is_a_configuration_or_a_mistake_with_its_line(
        text in "((mode|local|claude|completion|privacy|log|deny|model|debounce|x)?[-:,?!&*#|>'\"\\[\\]{}%@ \\n\\t0-9a-z~.]{0,6}){0,12}"
    ) {
        if let Err(errors) = Options::from_yaml(&text, "f") {
            prop_assert!(!errors.is_empty());
            for error in errors {
                prop_assert!(error.place.starts_with('f'));
                prop_assert!(!error.next_step.is_empty());
            }
        }
        let _ = ProjectOptions::from_yaml(&text, "f");
        let _ = from_environment([("TANDEM_COMPLETION_DEBOUNCE".to_owned(), text)]);
    }
}

#[test]
fn a_session_follows_its_editor_and_its_projects() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("project");
    let inner = root.join("crates/one");
    std::fs::create_dir_all(root.join(".git")).unwrap();
    std::fs::create_dir_all(&inner).unwrap();
    std::fs::write(
        folder.path().join(".tandem.yaml"),
        "privacy: {deny: [outside]}",
    )
    .unwrap();
    std::fs::write(root.join(".tandem.yaml"), "privacy: {deny: [root]}").unwrap();
    std::fs::write(inner.join(".tandem.yaml"), "privacy: {deny: [inner]}").unwrap();
    let configuration = Configuration::new(Layers::default());
    let settings = configuration.settings();
    let folders = [inner.clone()];
    configuration.set_folders(&folders).unwrap();
    let deny = settings.borrow().privacy.deny.clone();
    assert_eq!(
        deny,
        ["inner", "root"],
        "up to the root of the repository and no farther"
    );

    configuration
        .set_editor(&json!({"completion": {"max_tokens": 9}}))
        .unwrap();
    assert_eq!(settings.borrow().completion.max_tokens, 9);
    let error = configuration
        .set_editor(&json!({"mode": "locl-only"}))
        .unwrap_err();
    assert!(
        error.to_string().contains("Did you mean `local-only`?"),
        "{error}"
    );
    assert_eq!(
        settings.borrow().mode,
        Mode::LocalOnly,
        "closed until it can be read"
    );
    assert_eq!(settings.borrow().completion.max_tokens, 9, "the rest stays");
    configuration.set_editor(&Value::Null).unwrap();
    assert_eq!(settings.borrow().mode, Mode::Auto);

    std::fs::write(inner.join(".tandem.yaml"), "mode: auto").unwrap();
    let errors = configuration.set_folders(&folders).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(
        settings.borrow().mode,
        Mode::LocalOnly,
        "closed until it can be read"
    );
    std::fs::remove_file(inner.join(".tandem.yaml")).unwrap();
    std::fs::write(inner.join(".tandem.yml"), "").unwrap();
    let errors = configuration.set_folders(&folders).unwrap_err();
    assert!(
        errors[0]
            .to_string()
            .contains("Rename it to `.tandem.yaml`"),
        "{errors:?}"
    );
    std::fs::remove_file(inner.join(".tandem.yml")).unwrap();
    configuration.set_folders(&folders).unwrap();
    assert_eq!(settings.borrow().mode, Mode::Auto);
}

#[test]
fn the_schema_describes_every_key() {
    let schema = config_schema();
    for key in Options::keys() {
        let pointer = format!("/properties/{}", key.replace('.', "/properties/"));
        let property = schema.pointer(&pointer).unwrap_or_else(|| panic!("{key}"));
        assert!(property["description"].is_string(), "{key}: {property}");
    }
    assert_eq!(
        schema.pointer("/properties/completion/properties/debounce/default"),
        Some(&json!("auto"))
    );
    assert_eq!(schema["additionalProperties"], json!(false));
}

#[test]
fn messages_name_keys_that_exist() {
    let schema = config_schema();
    let exists = |section: &str, key: &str| {
        schema["properties"][section]["properties"]
            .get(key)
            .is_some()
    };
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut named = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            for word in text.split('`') {
                let word = word.split(": ").next().unwrap_or(word);
                let Some((section @ ("local" | "claude" | "completion" | "privacy"), key)) =
                    word.split_once('.')
                else {
                    continue;
                };
                let is_key = !key.is_empty()
                    && key
                        .bytes()
                        .all(|byte| matches!(byte, b'a'..=b'z' | b'_' | b'-'));
                if is_key && key != "rs" {
                    named += 1;
                    assert!(
                        exists(section, key),
                        "{}: there is no `{word}`",
                        path.display()
                    );
                }
            }
        }
    }
    assert!(named > 10, "{named}");
}
