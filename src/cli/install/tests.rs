//! What becomes of a configuration file, shape by shape.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::claude_desktop::{with_entry, without_entry};
use super::edit;
use super::file::ConfigFile;
use super::vscode::{with_path, without_path};

const PROGRAM: &str = "/opt/tandem";

/// Adds the entry, and holds that adding it again changes nothing.
fn added(before: &str) -> String {
    let after = with_entry(before, PROGRAM).unwrap_or_else(|error| panic!("{before:?}: {error}"));
    assert_eq!(with_entry(&after, PROGRAM).as_ref(), Ok(&after), "twice");
    after
}

/// Adding the entry to `before` gives `after`, and removing it gives `before` again. Returns what
/// removing it gives where no backup is.
fn check(before: &str, after: &str) -> String {
    assert_eq!(added(before), after, "of {before:?}");
    let restored = without_entry(after, Some(before)).unwrap();
    assert_eq!(restored.as_deref(), Some(before));
    let removed = without_entry(after, None).unwrap().unwrap();
    assert_eq!(without_entry(&removed, None), Ok(None), "{removed:?}");
    removed
}

/// As [`check`], where no backup is needed.
fn check_alone(before: &str, after: &str) {
    assert_eq!(check(before, after), before);
}

#[test]
fn a_file_without_servers_gets_some() {
    let fresh = "{\n  \"mcpServers\": {\n    \"tandem\": {\n      \"command\": \"/opt/tandem\",\n      \
                 \"args\": [\"mcp\"]\n    }\n  }\n}";
    check("", &format!("{fresh}\n"));
    check(" \n\n", &format!("{fresh}\n"));
    check("// mine", &format!("// mine\n{fresh}\n"));
    check("{}", fresh);
    check("{\n}\n", &format!("{fresh}\n"));
    check("{ // mine\n}", &fresh.replacen('{', "{ // mine", 1));
    check(
        "{ /* mine */ }",
        &fresh
            .replacen('{', "{ /* mine */", 1)
            .replace("\n}", "\n }"),
    );
    // One line stays one.
    check(
        r#"{"theme":"dark"}"#,
        r#"{"theme":"dark", "mcpServers": {"tandem": {"command": "/opt/tandem", "args": ["mcp"]}}}"#,
    );
    check(
        r#"{"mcpServers":{}}"#,
        r#"{"mcpServers":{"tandem": {"command": "/opt/tandem", "args": ["mcp"]}}}"#,
    );
    // Names that only look like it, elsewhere.
    check(
        "{\n  \"tandem\": 1,\n  \"x\": {\"mcpServers\": {\"tandem\": 2}}\n}\n",
        "{\n  \"tandem\": 1,\n  \"x\": {\"mcpServers\": {\"tandem\": 2}},\n  \"mcpServers\": {\n    \
         \"tandem\": {\n      \"command\": \"/opt/tandem\",\n      \"args\": [\"mcp\"]\n    }\n  }\n}\n",
    );
    // The end of a line is the file's.
    check(
        "{\r\n    \"theme\": 1\r\n}\r\n",
        "{\r\n    \"theme\": 1,\r\n    \"mcpServers\": {\r\n        \"tandem\": {\r\n            \
         \"command\": \"/opt/tandem\",\r\n            \"args\": [\"mcp\"]\r\n        }\r\n    \
         }\r\n}\r\n",
    );
}

#[test]
fn other_servers_stay_as_they_are_even_without_a_backup() {
    check_alone(
        "{\n\t\"mcpServers\": {\n\t\t\"other\": {\"command\":\"x\"}\n\t}\n}",
        "{\n\t\"mcpServers\": {\n\t\t\"other\": {\"command\":\"x\"},\n\t\t\"tandem\": {\n\t\t\t\
         \"command\": \"/opt/tandem\",\n\t\t\t\"args\": [\"mcp\"]\n\t\t}\n\t}\n}",
    );
    // Comments keep their places, and their commas.
    check_alone(
        "{\n  \"mcpServers\": {\n    \"b\": {} // last\n    // none below\n  }, // end\n}\n",
        "{\n  \"mcpServers\": {\n    \"b\": {}, // last\n    // none below\n    \"tandem\": {\n      \
         \"command\": \"/opt/tandem\",\n      \"args\": [\"mcp\"]\n    }\n  }, // end\n}\n",
    );
    // A trailing comma stays one.
    check_alone(
        "{\n  \"mcpServers\": {\n    \"b\": {}, // last\n  },\n}\n",
        "{\n  \"mcpServers\": {\n    \"b\": {}, // last\n    \"tandem\": {\n      \
         \"command\": \"/opt/tandem\",\n      \"args\": [\"mcp\"]\n    },\n  },\n}\n",
    );
    check_alone(
        "{\"mcpServers\": {\"b\": {} // why\n}}",
        "{\"mcpServers\": {\"b\": {}, // why\n  \"tandem\": {\n    \"command\": \"/opt/tandem\",\n    \
         \"args\": [\"mcp\"]\n  }\n}}",
    );
    check_alone(
        "{\n  \"\\u006dcpServers\": {\"b\": {\"env\": {\"KEY\": \"s\"}}}\n}",
        "{\n  \"\\u006dcpServers\": {\"b\": {\"env\": {\"KEY\": \"s\"}}, \"tandem\": {\"command\": \
         \"/opt/tandem\", \"args\": [\"mcp\"]}}\n}",
    );
}

#[test]
fn an_entry_that_is_there_is_corrected_and_what_people_added_stays() {
    for (before, after) in [
        (
            r#"{"mcpServers": {"tandem": {"command": "/old", "args": ["lsp"]}, "b": 1}}"#,
            r#"{"mcpServers": {"tandem": {"command": "/opt/tandem", "args": ["mcp"]}, "b": 1}}"#,
        ),
        (
            "{\"mcpServers\": {\n  \"tandem\": null\n}}",
            "{\"mcpServers\": {\n  \"tandem\": {\n    \"command\": \"/opt/tandem\",\n    \"args\": \
             [\"mcp\"]\n  }\n}}",
        ),
        (
            "{\"mcpServers\": {\"tandem\": {\n  // home\n  \"env\": {\"A\": \"1\"},\n  \"command\": \
             \"/old\"\n}}}",
            "{\"mcpServers\": {\"tandem\": {\n  // home\n  \"env\": {\"A\": \"1\"},\n  \"command\": \
             \"/opt/tandem\",\n  \"args\": [\"mcp\"]\n}}}",
        ),
        (
            r#"{"mcpServers": {"tandem": {"args": ["mcp", "--local-only"], "command": "/old"}}}"#,
            r#"{"mcpServers": {"tandem": {"args": ["mcp", "--local-only"], "command": "/opt/tandem"}}}"#,
        ),
    ] {
        assert_eq!(added(before), after);
    }
}

#[test]
fn an_entry_is_removed_with_its_own_comma_alone() {
    for (before, after) in [
        (
            r#"{"mcpServers": {"tandem": {}, "b": 1}}"#,
            r#"{"mcpServers": { "b": 1}}"#,
        ),
        (
            r#"{"mcpServers": {"a": 1, "tandem": {}, "b": 1}}"#,
            r#"{"mcpServers": {"a": 1, "b": 1}}"#,
        ),
        (
            r#"{"mcpServers": {"a": 1, "tandem": {}}}"#,
            r#"{"mcpServers": {"a": 1}}"#,
        ),
        (
            "{\"mcpServers\": {\n  \"tandem\": {},\n}}",
            "{\"mcpServers\": {}}",
        ),
        (
            "{\"mcpServers\": {\n  // a\n  \"tandem\": {} /* b */, // c\n  \"d\": 1\n}}",
            "{\"mcpServers\": {\n  // a\n   /* b */ // c\n  \"d\": 1\n}}",
        ),
        (
            "{\"mcpServers\": { // a\n  \"tandem\": {}, \"d\": 1\n}}",
            "{\"mcpServers\": { // a\n   \"d\": 1\n}}",
        ),
    ] {
        assert_eq!(without_entry(before, None).unwrap().as_deref(), Some(after));
        // A backup that is not what was before, and one that has the entry itself.
        let other = Some("{\"theme\": 1}");
        assert_eq!(
            without_entry(before, other).unwrap().as_deref(),
            Some(after)
        );
        assert_eq!(
            without_entry(before, Some(before)).unwrap().as_deref(),
            Some(after)
        );
    }
    for none in ["", "{}", "{\"mcpServers\": {}}", "{\"tandem\": 1}"] {
        assert_eq!(without_entry(none, None), Ok(None), "{none}");
    }
}

#[test]
fn a_broken_file_is_told_with_its_place() {
    for (text, place) in [
        ("{", "line 1, column 1: "),
        ("{\n  \"a\": 1\n  \"b\": 2\n}", "line 2, column 9: "),
        ("{\n  \"ä\": x\n}", "line 2, column 8: "),
        ("{} {}", "line 1, column 4: "),
        ("[]", "line 1, column 1: this is no object"),
        (
            "{\"mcpServers\": []}",
            "line 1, column 16: `mcpServers` is no object",
        ),
        (
            "{\"mcpServers\": {},\n \"mcpServers\": {}}",
            "line 2, column 2: a second `mcpServers` is here",
        ),
        ("{'a': 1}", "line 1, column 2: "),
        ("{\"a\": \"x}", "line 1, column 7: "),
        ("<?xml?>", "line 1, column 1: "),
    ] {
        for error in [
            with_entry(text, PROGRAM).unwrap_err(),
            without_entry(text, None).unwrap_err(),
        ] {
            let told = error.to_string();
            assert!(told.starts_with(place), "{text:?}: {told}");
        }
    }
    let deep = "[".repeat(100_000);
    assert!(with_entry(&deep, PROGRAM).is_err());
}

#[test]
fn the_setting_of_vs_code_comes_and_goes_alone() {
    for (before, after) in [
        ("", "{\n  \"tandem.path\": \"/opt/tandem\"\n}\n"),
        (
            "{\n\t// mine\n\t\"tandem\": {\"path\": 1}\n}\n",
            "{\n\t// mine\n\t\"tandem\": {\"path\": 1},\n\t\"tandem.path\": \"/opt/tandem\"\n}\n",
        ),
        (
            "{\"a\": 1, /* last */}",
            "{\"a\": 1, /* last */ \"tandem.path\": \"/opt/tandem\",}",
        ),
    ] {
        assert_eq!(
            with_path(before, PROGRAM, false).as_deref(),
            Ok(before),
            "it is on PATH"
        );
        assert_eq!(with_path(before, PROGRAM, true).as_deref(), Ok(after));
        assert_eq!(
            with_path(after, PROGRAM, true).as_deref(),
            Ok(after),
            "twice"
        );
        let restored = without_path(after, Some(before)).unwrap();
        assert_eq!(restored.as_deref(), Some(before));
        assert_eq!(without_path(before, None), Ok(None));
    }
    let other = "{\"tandem.path\": \"/old\", \"b\": 1}";
    let ours = "{\"tandem.path\": \"/opt/tandem\", \"b\": 1}";
    for is_needed in [true, false] {
        assert_eq!(with_path(other, PROGRAM, is_needed).as_deref(), Ok(ours));
    }
    assert_eq!(
        without_path(other, None),
        Ok(Some("{ \"b\": 1}".to_owned()))
    );
}

#[test]
fn what_another_program_wrote_meanwhile_is_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    for first in [None, Some("{}")] {
        if let Some(first) = first {
            std::fs::write(&path, first).unwrap();
        }
        let file = ConfigFile::open(&path).unwrap();
        std::fs::write(&path, "{\"theirs\": 1}").unwrap();
        let told = file.replace("{\"ours\": 1}").unwrap_err().to_string();
        assert!(told.contains("another program wrote it just now"), "{told}");
        let now = std::fs::read_to_string(&path).unwrap();
        assert_eq!(now, "{\"theirs\": 1}");
        std::fs::remove_file(&path).unwrap();
    }
    let file = ConfigFile::open(&path).unwrap();
    file.replace("{}").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// Any JSON value, small.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("tandem|mcpServers|.{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// An object without our entry, as text in many layouts.
fn configurations() -> impl Strategy<Value = (Value, String)> {
    let members = || prop::collection::btree_map(".{0,6}", values(), 0..4);
    let layouts = (0_usize..4, any::<bool>(), any::<bool>());
    (members(), prop::option::of(members()), layouts).prop_map(|(others, servers, layout)| {
        let mut root: Map<_, _> = others.into_iter().collect();
        if let Some(servers) = servers {
            let mut servers: Map<_, _> = servers.into_iter().collect();
            servers.remove("tandem");
            root.insert("mcpServers".to_owned(), servers.into());
        }
        let root = Value::Object(root);
        let (indent, ends_line, crlf) = layout;
        let mut text = match indent {
            0 => root.to_string(),
            1 => pretty(&root, b"\t"),
            2 => pretty(&root, b"  "),
            _ => pretty(&root, b"    "),
        };
        if ends_line {
            text.push('\n');
        }
        if crlf {
            text = text.replace('\n', "\r\n");
        }
        (root, text)
    })
}

fn pretty(value: &Value, indent: &[u8]) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(value, &mut serializer).unwrap();
    String::from_utf8(bytes).unwrap()
}

proptest! {
    #[test]
    fn install_and_uninstall_are_the_identity((root, before) in configurations()) {
        let after = added(&before);
        let mut expected = root.clone();
        expected["mcpServers"]["tandem"] = json!({ "command": PROGRAM, "args": ["mcp"] });
        prop_assert_eq!(serde_json::from_str::<Value>(&after).unwrap(), expected);

        let restored = without_entry(&after, Some(&before)).unwrap();
        prop_assert_eq!(restored.as_deref(), Some(before.as_str()));

        // Without a backup, only an object that was not there, or empty, is left behind.
        let removed = without_entry(&after, None).unwrap().unwrap();
        let mut expected = root.clone();
        if expected["mcpServers"].is_null() {
            expected["mcpServers"] = json!({});
        }
        prop_assert_eq!(serde_json::from_str::<Value>(&removed).unwrap(), expected);
        if root["mcpServers"].as_object().is_some_and(|servers| !servers.is_empty()) {
            prop_assert_eq!(removed, before);
        }
    }

    #[test]
    fn no_text_makes_it_panic_or_write_what_cannot_be_read(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\"mcpServers\"", "\"tandem\"", "\"args\"", "1", " ",
                "\n", "\r\n", "\t", "// c\n", "// c", "/* c */", "/*", "\"", "\u{feff}", "ä", "\u{a0}",
                "{\"mcpServers\": {", "\"tandem\": {", "\"b\": 1,", "}}",
            ]),
            0..16,
        )
    ) {
        let text = parts.concat();
        if let Ok(after) = with_entry(&text, PROGRAM) {
            let command = edit::read(&after, &["mcpServers", "tandem", "command"]);
            prop_assert_eq!(command, Ok(Some(edit::Node::Text(PROGRAM.to_owned()))));
        }
        if let Ok(Some(after)) = without_entry(&text, None) {
            prop_assert_eq!(without_entry(&after, None), Ok(None));
        }
    }
}
