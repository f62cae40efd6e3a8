//! The cases in `tests/data/prompts`: what each profile makes of a document, to the letter.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use expect_test::expect_file;

use super::Budget;
use super::bytes::{Bytes, text_of};
use super::chatml::ChatTemplate;
use super::completion::{self, Prompt};
use super::profile::{Declared, Form, PROFILES, Profile, Prompting};
use crate::inference::{CompleteTask, CompletionShape, Snippet, Task};

/// The cursor in a case's document.
const CURSOR: char = '▮';

/// A case as its file has it, without what is generated.
#[derive(Debug, Default)]
struct Case {
    name: String,
    keys: Vec<(String, String)>,
    document: String,
    files: Vec<(String, String)>,
}

impl Case {
    fn key(&self, wanted: &str) -> Option<&str> {
        let found = self.keys.iter().find(|(key, _)| key == wanted);
        found.map(|(_, value)| value.as_str())
    }

    fn task(&self) -> CompleteTask {
        let document = self.document.split_once(CURSOR);
        let (prefix, suffix) = document.unwrap_or_else(|| panic!("{}: no cursor", self.name));
        CompleteTask {
            path: self.key("path").map(str::to_owned),
            language: self.key("language").unwrap_or("rust").to_owned(),
            prefix: prefix.into(),
            suffix: suffix.into(),
            snippets: self
                .files
                .iter()
                .map(|(path, text)| Snippet {
                    path: path.clone(),
                    file: None,
                    text: text.as_str().into(),
                })
                .collect(),
            shape: CompletionShape::Auto,
        }
    }

    /// The case as its file should have it.
    fn rendered(&self, profile: &Profile) -> String {
        let mut out = format!("### {}\n", self.name);
        for (key, value) in &self.keys {
            let _ = writeln!(out, "{key}: {value}");
        }
        let _ = writeln!(out, "--- document\n{}", self.document);
        for (path, text) in &self.files {
            let _ = writeln!(out, "--- file {path}\n{text}");
        }
        if profile.form == Form::Question {
            let prompt = super::chat::render(&Task::Complete(self.task())).unwrap();
            let _ = writeln!(out, "--- system\n{}", prompt.system);
            for block in prompt.turns.iter().flat_map(|turn| &turn.blocks) {
                let kept = if block.stable {
                    " that may be cached"
                } else {
                    ""
                };
                let _ = writeln!(out, "--- question{kept}\n{}", block.text);
            }
            let _ = writeln!(out, "--- ends before\n{}", prompt.stop.unwrap());
            return out;
        }
        let number = |key, default| {
            let value = self.key(key).map(|value| value.parse().unwrap());
            value.unwrap_or(default)
        };
        let budget = Budget {
            context_tokens: number("context", 2000),
            max_tokens: number("answer", 64),
        };
        let task = self.task();
        let prompting = prompting(profile);
        let heals = self.key("typing") == Some("yes");
        let prompt = completion::render(&task, &Bytes, &prompting, budget, heals).unwrap();
        let Prompt {
            tokens,
            begun,
            stop,
        } = prompt;
        let _ = writeln!(out, "--- prompt\n{}", text_of(&tokens));
        if !begun.is_empty() {
            let _ = writeln!(out, "--- answer begins with\n{begun}");
        }
        if !stop.is_empty() {
            let stop: Vec<String> = stop.iter().map(|stop| stop.replace('\n', "\\n")).collect();
            let _ = writeln!(out, "--- ends before\n{}", stop.join(" or "));
        }
        out
    }
}

fn prompting(profile: &Profile) -> Prompting {
    // As the chat template of a Qwen of that generation has it.
    let template = match profile.name {
        "qwen3" => "<|im_start|> enable_thinking",
        _ => "<|im_start|>",
    };
    let declared = Declared {
        profile: Some(profile.name),
        ..Declared::default()
    };
    let template = ChatTemplate::find(template, &Bytes);
    let prompting = Prompting::of(&declared, &Bytes, template);
    assert_eq!(prompting.profile.name, profile.name);
    prompting
}

fn cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for whole in text.split("### ").skip(1) {
        let mut parts = whole.split("\n--- ");
        let mut head = parts.next().unwrap_or_default().lines();
        let mut case = Case {
            name: head.next().unwrap_or_default().to_owned(),
            ..Case::default()
        };
        for line in head {
            let (key, value) = line.split_once(": ").unwrap();
            assert!(
                ["language", "path", "context", "answer", "typing"].contains(&key),
                "{}: no such key: {key}",
                case.name
            );
            case.keys.push((key.to_owned(), value.to_owned()));
        }
        for part in parts {
            let (title, text) = part.split_once('\n').unwrap_or((part, ""));
            match title.split_once(' ') {
                None if title == "document" => text.clone_into(&mut case.document),
                Some(("file", path)) => case.files.push((path.to_owned(), text.to_owned())),
                // Generated.
                _ => {}
            }
        }
        cases.push(case);
    }
    cases
}

#[test]
fn every_profile_renders_its_cases_as_they_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/prompts");
    for profile in &PROFILES {
        let file = folder.join(format!("{}.txt", profile.name));
        let text = fs::read_to_string(&file).unwrap_or_else(|error| {
            panic!("{} has no cases ({error})", profile.name);
        });
        let cases = cases(&text);
        assert!(cases.len() >= 2, "{}: {} cases", profile.name, cases.len());
        let rendered: Vec<String> = cases.iter().map(|case| case.rendered(profile)).collect();
        expect_file![file].assert_eq(&rendered.join("\n"));
    }
}
