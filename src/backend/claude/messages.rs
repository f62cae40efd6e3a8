//! The body of a request to the Messages API.
//!
//! Fields and limits: <https://platform.claude.com/docs/en/api/messages>. There is no
//! `temperature`, `top_p` or `top_k`: current models refuse them.

use serde::Serialize;
use serde_json::Value;

use crate::inference::{Effort, Role};
use crate::prompt::chat::ChatPrompt;

use super::models::Thinking;

/// Tokens for thinking beyond those for the answer, since `max_tokens` counts both. Chosen by
/// judgement: enough to think through a file's worth of code.
const THINKING_HIGH: usize = 8_192;
/// The same where little thought is asked for and none cannot be had.
const THINKING_LOW: usize = 2_048;

/// The most that the API takes (128K for every model since Claude 4.6, 64K before).
const MOST_TOKENS: usize = 64_000;

/// What is asked for besides the prompt.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The model.
    pub model: &'a str,
    /// How it thinks.
    pub thinking: Thinking,
    /// How much it should.
    pub effort: Effort,
    /// The longest answer, in tokens.
    pub max_tokens: usize,
    /// Stop sequences besides the prompt's own. Blank ones are left out.
    pub stop: &'a [String],
    /// What the answer is held to, as [`super::format::accepted`] gives it.
    pub schema: Option<&'a Value>,
}

/// The body. Cheap to serialize; holds no copies of the prompt.
#[derive(Debug, Serialize)]
pub struct Body<'a> {
    model: &'a str,
    /// The longest answer with its thinking, in tokens.
    pub max_tokens: usize,
    stream: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    system: Vec<Text<'a>>,
    messages: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop_sequences: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<ThinkingField>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig<'a>>,
}

#[derive(Debug, Serialize)]
struct Turn<'a> {
    role: &'static str,
    content: Vec<Text<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "text")]
struct Text<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "ephemeral")]
struct CacheControl {}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ThinkingField {
    Disabled,
    BetweenTools,
    /// Summaries arrive while the model thinks and show that it is alive; by default nothing does.
    Adaptive {
        display: &'static str,
    },
}

#[derive(Debug, Serialize)]
struct OutputConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Format<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "json_schema")]
struct Format<'a> {
    schema: &'a Value,
}

impl<'a> Body<'a> {
    /// The body for `prompt`.
    #[must_use]
    pub fn new(prompt: &'a ChatPrompt, wanted: Wanted<'a>) -> Self {
        let adaptive = ThinkingField::Adaptive {
            display: "summarized",
        };
        let low = "low";
        let (thinking, effort, room) = match (wanted.thinking, wanted.effort) {
            (Thinking::WhenAsked, _) => (None, None, 0),
            (Thinking::UnlessDisabled, Effort::Low) => (Some(ThinkingField::Disabled), None, 0),
            (Thinking::UnlessBetweenTools, Effort::Low) => {
                (Some(ThinkingField::BetweenTools), None, 0)
            }
            (Thinking::Always, Effort::Low) => (Some(adaptive), Some(low), THINKING_LOW),
            (
                Thinking::UnlessDisabled | Thinking::UnlessBetweenTools | Thinking::Always,
                Effort::High,
            ) => (Some(adaptive), None, THINKING_HIGH),
            (Thinking::Unknown, Effort::Low) => (None, None, THINKING_LOW),
            (Thinking::Unknown, Effort::High) => (None, None, THINKING_HIGH),
        };
        let format = wanted.schema.map(|schema| Format { schema });
        let output_config =
            (effort.is_some() || format.is_some()).then_some(OutputConfig { effort, format });
        let own_stop = prompt.stop.iter();
        let stop_sequences = own_stop
            .chain(wanted.stop)
            .map(String::as_str)
            .filter(|sequence| !sequence.trim().is_empty())
            .collect();
        Self {
            model: wanted.model,
            max_tokens: wanted
                .max_tokens
                .max(1)
                .saturating_add(room)
                .min(MOST_TOKENS),
            stream: true,
            system: match prompt.system.as_str() {
                "" => Vec::new(),
                system => vec![text(system, true)],
            },
            messages: prompt
                .turns
                .iter()
                .map(|turn| Turn {
                    role: match turn.role {
                        Role::User => "user",
                        Role::Assistant => "assistant",
                    },
                    content: turn
                        .blocks
                        .iter()
                        .map(|block| text(&block.text, block.stable))
                        .collect(),
                })
                .collect(),
            stop_sequences,
            thinking,
            output_config,
        }
    }
}

fn text(text: &str, stable: bool) -> Text<'_> {
    Text {
        text,
        cache_control: stable.then_some(CacheControl {}),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::inference::{ChatTask, Message, Task};
    use crate::prompt::chat;

    fn check(thinking: Thinking, effort: Effort, expected: &Expect) {
        check_with(None, thinking, effort, expected);
    }

    fn check_with(schema: Option<&Value>, thinking: Thinking, effort: Effort, expected: &Expect) {
        let task = Task::Chat(ChatTask {
            system: Some("Be brief.".into()),
            messages: vec![Message {
                role: Role::User,
                text: "Hi".into(),
            }],
            schema: None,
        });
        let prompt = chat::render(&task).unwrap();
        let stop = ["\n".to_owned(), "END".to_owned()];
        let body = Body::new(
            &prompt,
            Wanted {
                model: "m",
                thinking,
                effort,
                max_tokens: 64,
                stop: &stop,
                schema,
            },
        );
        expected.assert_eq(&serde_json::to_string(&body).unwrap());
    }

    #[test]
    fn an_answer_is_held_to_a_schema_by_the_output_format() {
        let schema = serde_json::json!({"type": "string"});
        check_with(
            Some(&schema),
            Thinking::WhenAsked,
            Effort::Low,
            &expect![[
                r#"{"model":"m","max_tokens":64,"stream":true,"system":[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}],"stop_sequences":["END"],"output_config":{"format":{"type":"json_schema","schema":{"type":"string"}}}}"#
            ]],
        );
        check_with(
            Some(&schema),
            Thinking::Always,
            Effort::Low,
            &expect![[
                r#"{"model":"m","max_tokens":2112,"stream":true,"system":[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}],"stop_sequences":["END"],"thinking":{"type":"adaptive","display":"summarized"},"output_config":{"effort":"low","format":{"type":"json_schema","schema":{"type":"string"}}}}"#
            ]],
        );
    }

    #[test]
    fn a_request_as_it_is_sent() {
        check(
            Thinking::UnlessDisabled,
            Effort::Low,
            &expect![[
                r#"{"model":"m","max_tokens":64,"stream":true,"system":[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}],"stop_sequences":["END"],"thinking":{"type":"disabled"}}"#
            ]],
        );
        check(
            Thinking::Always,
            Effort::Low,
            &expect![[
                r#"{"model":"m","max_tokens":2112,"stream":true,"system":[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}],"stop_sequences":["END"],"thinking":{"type":"adaptive","display":"summarized"},"output_config":{"effort":"low"}}"#
            ]],
        );
        check(
            Thinking::Always,
            Effort::High,
            &expect![[
                r#"{"model":"m","max_tokens":8256,"stream":true,"system":[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}],"stop_sequences":["END"],"thinking":{"type":"adaptive","display":"summarized"}}"#
            ]],
        );
        check(
            Thinking::WhenAsked,
            Effort::High,
            &expect![[
                r#"{"model":"m","max_tokens":64,"stream":true,"system":[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}],"stop_sequences":["END"]}"#
            ]],
        );
    }
}
