//! `tandem ask --schema`: JSON that is valid, or an error that says what to do.

use std::path::Path;

use serde_json::json;

use super::Home;

#[test]
fn a_question_is_answered_by_the_schema() {
    let home = Home::new();
    home.write("choice.json", r#"{"enum": ["yes", "no"]}"#);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let model = fixtures.join("qwen3-tiny.gguf");
    let model = model.to_str().unwrap();
    let ask = |more: &[&str]| {
        let ask = [
            "ask",
            "?",
            "--schema",
            "choice.json",
            "--local-only",
            "--model",
            model,
        ];
        home.run(&[&ask, more].concat())
    };
    // Its weights are random, and still it says one of the two.
    let ran = ask(&["--max-tokens", "40"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(["\"yes\"\n", "\"no\"\n"].contains(&&*ran.stdout), "{ran:?}");
    let answered = ask(&["--max-tokens", "40", "--json"]).json();
    assert!(
        [json!("yes"), json!("no")].contains(&answered["value"]),
        "{answered}"
    );
    let ran = ask(&["--max-tokens", "1"]);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.stdout, "");
    assert!(
        ran.stderr.contains("before its JSON was complete"),
        "{ran:?}"
    );
    home.write("choice.json", r#"{"not": {"type": "string"}}"#);
    let ran = ask(&[]);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("`not`"), "{ran:?}");
}

#[test]
fn what_is_no_schema_is_told_before_anybody_is_asked() {
    let home = Home::new();
    for (text, told) in [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        (r#"{"type": "strin"}"#, "/type"),
    ] {
        home.write("s.json", text);
        let ran = home.run(&["ask", "?", "--schema", "s.json", "--scripted-answer", "x"]);
        assert_eq!(ran.stdout, "", "{ran:?}");
        assert_ne!(ran.code, Some(0), "{ran:?}");
        assert!(ran.stderr.contains(told), "{ran:?}");
    }
    let ran = home.run(&[
        "ask",
        "?",
        "--schema",
        "none.json",
        "--scripted-answer",
        "x",
    ]);
    assert!(ran.stderr.contains("none.json"), "{ran:?}");
}
