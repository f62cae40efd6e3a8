//! The prompts that a person can pick in a host: a review, and a commit message.

use rmcp::model::{
    ErrorData, GetPromptRequestParams, GetPromptResult, JsonObject, Prompt, PromptArgument,
    PromptMessage, Role,
};
use serde_json::Value;

use super::task::{commit_rules, fence_for};
use super::types::CommitStyle;

const REVIEW: &str = "review";
const COMMIT_MESSAGE: &str = "commit_message";

/// The longest argument, in bytes; as for the tools.
const LONGEST_ARGUMENT: usize = 1 << 20;

/// The prompts, in the order in which they are listed.
pub(super) fn list() -> Vec<Prompt> {
    vec![
        Prompt::new(
            REVIEW,
            Some("Review a change or a piece of code for faults, worst first."),
            Some(vec![
                PromptArgument::new("code")
                    .with_title("Code or diff")
                    .with_description("What to review: a diff, or a piece of code.")
                    .with_required(true),
                PromptArgument::new("focus")
                    .with_title("Focus")
                    .with_description("What to look at most, such as `security` or `naming`."),
            ]),
        )
        .with_title("Review code"),
        Prompt::new(
            COMMIT_MESSAGE,
            Some("Write a commit message for a diff."),
            Some(vec![
                PromptArgument::new("diff")
                    .with_title("Diff")
                    .with_description("The change, as `git diff --staged` prints it.")
                    .with_required(true),
                PromptArgument::new("style")
                    .with_title("Style")
                    .with_description("`plain` (the default) or `conventional`."),
            ]),
        )
        .with_title("Write a commit message"),
    ]
}

/// Fills in a prompt.
pub(super) fn get(request: &GetPromptRequestParams) -> Result<GetPromptResult, ErrorData> {
    let none = JsonObject::new();
    let arguments = Arguments {
        prompt: &request.name,
        given: request.arguments.as_ref().unwrap_or(&none),
    };
    match request.name.as_str() {
        REVIEW => review(&arguments),
        COMMIT_MESSAGE => commit_message(&arguments),
        name => Err(invalid(format!(
            "There is no prompt {name:?}. Use {REVIEW:?} or {COMMIT_MESSAGE:?}, which \
             `prompts/list` gives."
        ))),
    }
}

fn review(arguments: &Arguments) -> Result<GetPromptResult, ErrorData> {
    arguments.only(&["code", "focus"])?;
    let code = arguments.required("code")?;
    let fence = fence_for(code);
    let mut text = format!(
        "Review this code. Name the faults that matter, worst first: what goes wrong, with which \
         input, and the smallest change that cures it. Leave out praise and matters of taste. Say \
         so if you find nothing.\n\n{fence}\n{code}\n{fence}"
    );
    if let Some(focus) = arguments.optional("focus")? {
        text.push_str("\n\nLook most at: ");
        text.push_str(focus);
    }
    Ok(said(text).with_description("Review code"))
}

fn commit_message(arguments: &Arguments) -> Result<GetPromptResult, ErrorData> {
    arguments.only(&["diff", "style"])?;
    let diff = arguments.required("diff")?;
    let style = match arguments.optional("style")? {
        None | Some("plain") => CommitStyle::Plain,
        Some("conventional") => CommitStyle::Conventional,
        Some(_) => {
            return Err(invalid(
                "Argument `style` is unknown. Use `plain` or `conventional`.".to_owned(),
            ));
        }
    };
    let rules = commit_rules(style);
    let fence = fence_for(diff);
    let text =
        format!("{rules}\n\n{fence}diff\n{diff}\n{fence}\n\nWrite the message for this diff.");
    Ok(said(text).with_description("Write a commit message"))
}

fn said(text: String) -> GetPromptResult {
    GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)])
}

/// What a client passed to a prompt.
struct Arguments<'a> {
    prompt: &'a str,
    given: &'a JsonObject,
}

impl<'a> Arguments<'a> {
    fn required(&self, name: &str) -> Result<&'a str, ErrorData> {
        self.optional(name)?.ok_or_else(|| {
            invalid(format!(
                "Prompt `{}` needs the argument `{name}`. Pass it as a string.",
                self.prompt
            ))
        })
    }

    fn optional(&self, name: &str) -> Result<Option<&'a str>, ErrorData> {
        let text = match self.given.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text,
            Some(_) => {
                return Err(invalid(format!(
                    "Argument `{name}` is no string. Pass it as a string."
                )));
            }
        };
        if text.len() > LONGEST_ARGUMENT {
            return Err(invalid(format!(
                "Argument `{name}` is longer than {} KiB. Pass the part that matters.",
                LONGEST_ARGUMENT >> 10
            )));
        }
        Ok((!text.trim().is_empty()).then_some(text.as_str()))
    }

    fn only(&self, known: &[&str]) -> Result<(), ErrorData> {
        match self
            .given
            .keys()
            .find(|name| !known.contains(&name.as_str()))
        {
            None => Ok(()),
            Some(unknown) => Err(invalid(format!(
                "Prompt `{}` has no argument `{unknown}`. It takes `{}`.",
                self.prompt,
                known.join("` and `")
            ))),
        }
    }
}

fn invalid(message: String) -> ErrorData {
    ErrorData::invalid_params(message, None)
}
