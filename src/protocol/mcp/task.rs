//! From a tool's arguments to the task a backend gets: reads, bounds and resolves them. Pure.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::types::{
    Ask, CommitMessage, CommitStyle, CompleteCode, EditCode, ExplainCode, Summarize, SummaryLength,
};
use crate::config::Settings;
use crate::inference::{
    AnswerSchema, ChatTask, ClientId, CompleteTask, CompletionShape, EditTask, Effort,
    GenerateRequest, Message, Priority, RequestId, Role, Sampling, Task,
};
use crate::protocol::commit;
use crate::router::{Origin, RouteRequest};

/// The longest text of one argument, in bytes: more than any model in use takes at once.
const LONGEST_TEXT: usize = 1 << 20;
/// The longest instruction, question or focus, in bytes.
const LONGEST_INSTRUCTION: usize = 64 << 10;
/// The longest path or language name, in bytes; the former is what Linux takes.
const LONGEST_NAME: usize = 4096;

/// The longest completion that may be asked for, in tokens.
const MOST_COMPLETION_TOKENS: usize = 4096;
/// The longest answer to a question that may be asked for, in tokens: a local context.
const MOST_ANSWER_TOKENS: usize = 32_768;
/// The longest answers in tokens, by what they are for. A local context is a few thousand tokens,
/// prompt and answer together, so what is not needed is not asked for.
const EXPLANATION_TOKENS: usize = 1024;
const SUMMARY_TOKENS: usize = 512;
const ANSWER_TOKENS: usize = 1024;

/// Qwen's own advice for chat without thinking (model card of Qwen3): greedy decoding makes these
/// models repeat themselves.
const CHAT_SAMPLING: Sampling = Sampling {
    temperature: 0.7,
    top_k: 20,
    top_p: 0.8,
    min_p: 0.0,
    repetition_penalty: 1.05,
    repeat_last_n: 64,
    seed: 0,
};

/// What is wrong with an argument, ending with the next step.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadArgument(pub String);

/// What a tool call may look at besides its arguments.
pub(super) struct Surroundings<'a> {
    pub settings: &'a Settings,
    pub workspace: Option<&'a Path>,
}

/// Reads the arguments of a tool.
pub(super) fn arguments<T: DeserializeOwned>(arguments: Value) -> Result<T, BadArgument> {
    serde_path_to_error::deserialize(arguments).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.inner();
        let what = if path == "." {
            inner.to_string()
        } else {
            format!("`{path}`: {inner}")
        };
        BadArgument(format!(
            "The arguments do not fit the tool's input schema: {what}. Correct the arguments and \
             call the tool again."
        ))
    })
}

pub(super) fn complete_code(
    input: CompleteCode,
    around: &Surroundings,
) -> Result<RouteRequest, BadArgument> {
    bounded("prefix", &input.prefix, LONGEST_TEXT)?;
    let suffix = input.suffix.unwrap_or_default();
    bounded("suffix", &suffix, LONGEST_TEXT)?;
    if input.prefix.trim().is_empty() && suffix.trim().is_empty() {
        return Err(BadArgument(
            "`prefix` and `suffix` are empty. Pass the code around the cursor.".to_owned(),
        ));
    }
    let place = Place::resolve(input.path, input.language, around)?;
    let max_tokens = match input.max_tokens.map(|tokens| tokens as usize) {
        None => around.settings.completion.max_tokens,
        Some(tokens @ 1..=MOST_COMPLETION_TOKENS) => tokens,
        Some(tokens) => {
            return Err(BadArgument(format!(
                "`max_tokens` is {tokens}. Pass a number from 1 to {MOST_COMPLETION_TOKENS}."
            )));
        }
    };
    let task = Task::Complete(CompleteTask {
        path: place.shown,
        language: place.language,
        prefix: input.prefix.into(),
        suffix: suffix.into(),
        snippets: Vec::new(),
        shape: CompletionShape::Auto,
    });
    Ok(route(
        task,
        Sampling::GREEDY,
        max_tokens,
        Effort::Low,
        place.origin,
    ))
}

pub(super) fn edit_code(
    input: EditCode,
    around: &Surroundings,
) -> Result<RouteRequest, BadArgument> {
    given("code", &input.code, LONGEST_TEXT)?;
    given("instruction", &input.instruction, LONGEST_INSTRUCTION)?;
    let before = input.before.unwrap_or_default();
    bounded("before", &before, LONGEST_TEXT)?;
    let after = input.after.unwrap_or_default();
    bounded("after", &after, LONGEST_TEXT)?;
    let place = Place::resolve(input.path, input.language, around)?;
    // Code is three to four bytes a token; an edit may double it and still needs room when it is
    // short.
    let max_tokens = (input.code.len() * 2 / 3 + 256).min(around.settings.claude.max_tokens);
    let task = Task::Edit(EditTask {
        path: place.shown,
        language: place.language,
        before: before.into(),
        selection: input.code.into(),
        after: after.into(),
        instruction: input.instruction,
    });
    Ok(route(
        task,
        Sampling::GREEDY,
        max_tokens,
        Effort::Low,
        place.origin,
    ))
}

pub(super) fn explain_code(
    input: ExplainCode,
    around: &Surroundings,
) -> Result<RouteRequest, BadArgument> {
    given("code", &input.code, LONGEST_TEXT)?;
    let question = input.question.unwrap_or_default();
    bounded("question", &question, LONGEST_INSTRUCTION)?;
    let place = Place::resolve(input.path, input.language, around)?;
    let wish = if question.trim().is_empty() {
        "Explain what this code does and why it is written this way."
    } else {
        &question
    };
    let fence = fence_for(&input.code);
    let task = chat(
        "You explain code to a programmer. Say what it does first, then what is easy to miss. \
         Be brief, and never invent what the code does not show.",
        format!(
            "{fence}{}\n{}\n{fence}\n\n{wish}",
            place.language, input.code
        ),
    );
    Ok(route(
        task,
        CHAT_SAMPLING,
        EXPLANATION_TOKENS,
        Effort::Low,
        place.origin,
    ))
}

pub(super) fn summarize(
    input: Summarize,
    around: &Surroundings,
) -> Result<RouteRequest, BadArgument> {
    given("text", &input.text, LONGEST_TEXT)?;
    let focus = input.focus.unwrap_or_default();
    bounded("focus", &focus, LONGEST_INSTRUCTION)?;
    let form = match input.length.unwrap_or_default() {
        SummaryLength::Sentence => "in one sentence",
        SummaryLength::Paragraph => "in one paragraph",
        SummaryLength::Bullets => "as a few bullet points",
    };
    let mut wish = format!("Summarize the text above {form}.");
    if !focus.trim().is_empty() {
        wish.push_str(" Look out for: ");
        wish.push_str(focus.trim());
    }
    let task = chat(
        "You summarize texts. Give the summary alone, in the language of the text, with its \
         facts and figures as they stand and nothing that it does not say.",
        format!("<text>\n{}\n</text>\n\n{wish}", input.text),
    );
    Ok(route(
        task,
        CHAT_SAMPLING,
        SUMMARY_TOKENS,
        Effort::Low,
        nowhere(around),
    ))
}

pub(super) fn commit_message(
    input: &CommitMessage,
    around: &Surroundings,
) -> Result<RouteRequest, BadArgument> {
    given("diff", &input.diff, commit::LONGEST_DIFF)?;
    let task = chat(
        commit_rules(input.style.unwrap_or_default()),
        commit::question(&input.diff),
    );
    Ok(route(
        task,
        Sampling::GREEDY,
        commit::MAX_TOKENS,
        Effort::Low,
        nowhere(around),
    ))
}

pub(super) fn ask(input: Ask, around: &Surroundings) -> Result<RouteRequest, BadArgument> {
    given("question", &input.question, LONGEST_INSTRUCTION)?;
    let context = input.context.unwrap_or_default();
    bounded("context", &context, LONGEST_TEXT)?;
    let effort = input.effort.unwrap_or_default();
    let max_tokens = match (input.max_tokens.map(|tokens| tokens as usize), effort) {
        (Some(tokens @ 1..=MOST_ANSWER_TOKENS), _) => tokens,
        (Some(tokens), _) => {
            return Err(BadArgument(format!(
                "`max_tokens` is {tokens}. Pass a number from 1 to {MOST_ANSWER_TOKENS}."
            )));
        }
        (None, Effort::Low) => ANSWER_TOKENS,
        (None, Effort::High) => around.settings.claude.max_tokens,
    };
    let schema = input.schema.map(Value::Object).map(AnswerSchema::new);
    let schema = schema
        .transpose()
        .map_err(|error| BadArgument(format!("`schema`: {error}")))?;
    let text = if context.trim().is_empty() {
        input.question
    } else {
        format!("<context>\n{context}\n</context>\n\n{}", input.question)
    };
    let mut task = chat(
        "You answer a programmer's questions. Come to the point first. Rest on the context where \
         there is one, and say so when you do not know.",
        text,
    );
    if let Task::Chat(task) = &mut task {
        task.schema = schema;
    }
    Ok(route(
        task,
        CHAT_SAMPLING,
        max_tokens,
        effort,
        nowhere(around),
    ))
}

/// What a commit message must be, for the tool and for the prompt.
pub(super) fn commit_rules(style: CommitStyle) -> &'static str {
    match style {
        CommitStyle::Plain => commit::RULES,
        CommitStyle::Conventional => {
            "You write git commit messages as Conventional Commits. Answer with the message \
             alone: a subject `type(scope): description` of at most 72 characters with a type \
             such as feat, fix, docs, refactor, perf, test, build, ci or chore, and, only where \
             the reason is not plain from the subject, an empty line and a body that says why."
        }
    }
}

/// A run of backticks that the code itself does not hold.
pub(super) fn fence_for(code: &str) -> String {
    let mut longest = 2;
    let mut run = 0;
    for character in code.chars() {
        run = if character == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    "`".repeat(longest + 1)
}

fn chat(system: &str, text: String) -> Task {
    Task::Chat(ChatTask {
        system: Some(system.to_owned()),
        messages: vec![Message {
            role: Role::User,
            text,
        }],
        schema: None,
    })
}

fn route(
    task: Task,
    sampling: Sampling,
    max_tokens: usize,
    effort: Effort,
    origin: Origin,
) -> RouteRequest {
    RouteRequest {
        generate: GenerateRequest {
            client: ClientId::default(),
            id: RequestId::next(),
            task,
            sampling,
            max_tokens,
            stop: Vec::new(),
            effort,
            priority: Priority::Tool,
        },
        origin,
    }
}

/// The origin of text that is in no file.
fn nowhere(around: &Surroundings) -> Origin {
    Origin {
        workspace: around.workspace.map(Path::to_path_buf),
        ..Origin::default()
    }
}

/// Where a piece of code stands.
struct Place {
    /// The path as the model sees it: never more of it than its place in the workspace.
    shown: Option<String>,
    language: String,
    origin: Origin,
}

impl Place {
    fn resolve(
        path: Option<String>,
        language: Option<String>,
        around: &Surroundings,
    ) -> Result<Self, BadArgument> {
        let language = language.unwrap_or_default();
        bounded("language", &language, LONGEST_NAME)?;
        let path = path.unwrap_or_default();
        bounded("path", &path, LONGEST_NAME)?;
        if path.contains('\0') {
            return Err(BadArgument(
                "`path` holds a NUL character. Pass the path of a file.".to_owned(),
            ));
        }
        let file = file_of(path.trim(), around.workspace);
        Ok(Self {
            shown: file
                .as_deref()
                .and_then(|file| shown(file, around.workspace)),
            language: language.trim().to_lowercase(),
            origin: Origin {
                file,
                ..nowhere(around)
            },
        })
    }
}

/// The file that a path means: the privacy policy must see it whole, so a relative path is taken
/// from the workspace.
fn file_of(path: &str, workspace: Option<&Path>) -> Option<PathBuf> {
    let path = path.strip_prefix("file://").unwrap_or(path);
    if path.is_empty() {
        return None;
    }
    Some(match workspace {
        // Joining an absolute path gives that path.
        Some(workspace) => workspace.join(path),
        None => PathBuf::from(path),
    })
}

fn shown(file: &Path, workspace: Option<&Path>) -> Option<String> {
    let inside = workspace.and_then(|workspace| file.strip_prefix(workspace).ok());
    let shown = match inside {
        Some(inside) => inside,
        None => Path::new(file.file_name()?),
    };
    Some(shown.to_string_lossy().replace('\\', "/"))
}

/// Refuses an argument that is longer than `limit` bytes.
fn bounded(name: &str, text: &str, limit: usize) -> Result<(), BadArgument> {
    if text.len() <= limit {
        return Ok(());
    }
    Err(BadArgument(format!(
        "`{name}` is {} KiB long and may be {} KiB. Pass the part that matters.",
        text.len().div_ceil(1024),
        limit >> 10
    )))
}

/// Refuses an argument that is longer than `limit` bytes, or holds nothing.
fn given(name: &str, text: &str, limit: usize) -> Result<(), BadArgument> {
    if text.trim().is_empty() {
        return Err(BadArgument(format!(
            "`{name}` is empty. Pass it and call the tool again."
        )));
    }
    bounded(name, text, limit)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_is_whole_for_the_policy_and_short_for_the_model() {
        let check =
            |path: &str, workspace: Option<&str>, file: Option<&str>, seen: Option<&str>| {
                let settings = Settings::default();
                let around = Surroundings {
                    settings: &settings,
                    workspace: workspace.map(Path::new),
                };
                let place = Place::resolve(Some(path.to_owned()), None, &around).unwrap();
                assert_eq!(place.origin.file.as_deref(), file.map(Path::new), "{path}");
                assert_eq!(place.shown.as_deref(), seen, "{path}");
            };
        check(
            "/w/src/a.rs",
            Some("/w"),
            Some("/w/src/a.rs"),
            Some("src/a.rs"),
        );
        check(
            "src/a.rs",
            Some("/w"),
            Some("/w/src/a.rs"),
            Some("src/a.rs"),
        );
        check(
            "/home/me/.env",
            Some("/w"),
            Some("/home/me/.env"),
            Some(".env"),
        );
        check("file:///w/a.rs", Some("/w"), Some("/w/a.rs"), Some("a.rs"));
        check("a.rs", None, Some("a.rs"), Some("a.rs"));
        check("  ", Some("/w"), None, None);
    }

    #[test]
    fn a_bad_argument_is_named_with_the_next_step() {
        let check = |given: Value, says: &str| {
            let settings = Settings::default();
            let around = Surroundings {
                settings: &settings,
                workspace: None,
            };
            let found = arguments::<CompleteCode>(given)
                .and_then(|input| complete_code(input, &around))
                .unwrap_err()
                .0;
            assert!(found.contains(says), "{found}");
            assert!(found.ends_with('.'), "{found}");
        };
        check(json!({}), "`prefix`");
        check(json!({"prefix": 5}), "`prefix`");
        check(json!({"prefix": "a", "sufix": "b"}), "`sufix`");
        check(json!({"prefix": " ", "suffix": "\n"}), "`prefix`");
        check(json!({"prefix": "a".repeat(LONGEST_TEXT + 1)}), "1024 KiB");
        check(json!({"prefix": "a", "max_tokens": 0}), "`max_tokens`");
        check(json!({"prefix": "a", "max_tokens": -1}), "`max_tokens`");
        check(json!({"prefix": "a", "path": "a\0b"}), "`path`");
    }

    #[test]
    fn a_fence_is_longer_than_any_in_the_code() {
        assert_eq!(fence_for("a"), "```");
        assert_eq!(fence_for("````x``"), "`````");
    }
}
