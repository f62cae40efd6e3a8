//! Several mistakes in one source of the configuration.

use serde_json::json;
use tandem::config::{EditorOptions, Options, ProjectOptions, from_environment};

use super::told;

#[test]
fn every_mistake_of_a_source_is_told_at_once() {
    let yaml = "\
mod: local-only
completion:
  debounce: 75 parsecs
  max_tokens: 0
  enabled: [true]
  maxtokens: 9
privacy:
  deny: ['*.pem', '{a', 7, '**/x', '[']
claude: 1
";
    let wrong = "Correct the value; `tandem config schema` describes every key.";
    let expected = [
        "f:1: unknown key `mod`. Did you mean `mode`?".to_owned(),
        format!(
            "f:3: `completion.debounce` is `75 parsecs`, expected `auto`, or a time from 0ms to 5s, such as \
             `75ms`, `2s` or `10m`. {wrong}"
        ),
        format!(
            "f:4: `completion.max_tokens` is `0`, expected a whole number from 1 to 1024. {wrong}"
        ),
        format!("f:5: `completion.enabled` is a list, expected `true` or `false`. {wrong}"),
        "f:6: unknown key `completion.maxtokens`. Did you mean `completion.max_tokens`?".to_owned(),
        format!("f:8: `privacy.deny` is `{{a`, expected a glob such as `**/*.pem`. {wrong}"),
        format!("f:8: `privacy.deny` is a number, expected text. {wrong}"),
        format!("f:8: `privacy.deny` is `[`, expected a glob such as `**/*.pem`. {wrong}"),
        format!("f:9: `claude` is a number, expected a group of keys. {wrong}"),
    ];
    assert_eq!(told(Options::from_yaml(yaml, "f")), expected.join("\n"));

    // A program has a name at least; this one's was taken out as wrong, which is told once.
    let errors = Options::from_yaml("server: {api_key_command: [[x]]}", "f").unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");

    let project = told(ProjectOptions::from_yaml(
        "mode: auto\nserver: {base_url: 'https://x', modle: y}\nprivacy: {allow_secrets: true}\n",
        ".tandem.yaml",
    ));
    let lines: Vec<&str> = project.lines().collect();
    let starts = [
        ".tandem.yaml:1: `mode` cannot be `auto`.",
        ".tandem.yaml:2: `server.base_url` is not for a project's file to say",
        ".tandem.yaml:2: unknown key `server.modle`.",
        ".tandem.yaml:3: `privacy.allow_secrets` is `true`",
    ];
    assert_eq!(lines.len(), starts.len(), "{project}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }

    let editor = EditorOptions::from_json(&json!({"mode": 1, "log": {"filter": "a=b=c", "x": 1}}));
    assert_eq!(editor.unwrap_err().len(), 3);

    let variables = [("TANDEM_MOD", "x"), ("TANDEM_COMPLETION_MAX_TOKENS", "x")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let places: Vec<String> = from_environment(variables)
        .unwrap_err()
        .into_iter()
        .map(|error| error.place)
        .collect();
    assert_eq!(places, ["TANDEM_COMPLETION_MAX_TOKENS", "TANDEM_MOD"]);
}

#[test]
fn of_a_wrong_file_enough_is_told() {
    let keys: Vec<_> = (0..5_000).map(|number| format!("k{number}: 1")).collect();
    let errors = Options::from_yaml(&keys.join("\n"), "f").unwrap_err();
    assert_eq!(errors.len(), 21);
    assert_eq!(
        errors[20].to_string(),
        "f: there are more mistakes. Correct these first."
    );
}
