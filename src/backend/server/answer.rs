//! What the events of a streamed answer mean. Pure.
//!
//! The fields: OpenAI's reference for completions and chat
//! (<https://platform.openai.com/docs/api-reference/chat-streaming>), what vLLM, SGLang, TGI and
//! llama.cpp's server send besides, `tools/server/README.md` of llama.cpp for `/infill`, and Ollama's
//! `docs/api.md` for `/api/generate`.

use serde::Deserialize;
use serde_json::Value;

use crate::backend::http::read::Framing;
use crate::inference::{FinishReason, Usage};

/// More tokens than any request can have. A server that counts more is not to be believed.
const MOST_TOKENS: u64 = 50_000_000;

/// The longest model name that is passed on.
const LONGEST_MODEL_NAME: usize = 200;

/// Which form a server answers in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `/infill`: `content` and `stop`, and no `[DONE]`.
    Infill,
    /// `/v1/completions`: `choices[0].text`.
    Completion,
    /// `/v1/chat/completions`: `choices[0].delta.content`.
    Chat,
    /// Ollama's `/api/generate`: `response` and `done`, in lines of JSON.
    Generate,
}

impl Form {
    /// How its events are told apart.
    #[must_use]
    pub fn framing(self) -> Framing {
        match self {
            Self::Infill | Self::Completion | Self::Chat => Framing::Sse,
            Self::Generate => Framing::Lines,
        }
    }
}

/// What one event brings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// Text, perhaps empty.
    pub text: String,
    /// Whether the answer came on.
    pub progress: bool,
    /// Whether nothing follows.
    pub done: bool,
}

/// How an answer ended, by the server's own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As wanted.
    Finished(FinishReason),
    /// A filter of the server's took the answer away.
    Refused,
    /// The server gave it up.
    GivenUp,
}

/// Why an event cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    /// The server reports an error within the stream.
    #[error("an error within the stream")]
    Reported(ApiError),
    /// The event is not JSON of the documented form.
    #[error("an event has not the documented form")]
    Malformed,
    /// Text after the end.
    #[error("text came after the end")]
    AfterTheEnd,
    /// Token counts that cannot be.
    #[error("the token counts are impossible")]
    ImpossibleCounts,
    /// The model wants to call a tool, though it was given none.
    #[error("the model called a tool, though it was given none")]
    UnaskedTool,
}

/// An error as servers write it: in `error`, or at the top (vLLM before 0.10).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApiError {
    /// Such as `exceed_context_size_error` or `BadRequestError`.
    pub kind: String,
    /// For people. Looked at for two wordings, never shown.
    pub message: String,
    /// A status, where there is one.
    pub code: Option<u16>,
}

impl ApiError {
    /// The error that a body holds; `None` where there is none.
    #[must_use]
    pub fn find(body: &Value) -> Option<Self> {
        let inner = match body.get("error") {
            Some(Value::Null) => return None,
            Some(error) => error,
            None if body.get("object").and_then(Value::as_str) == Some("error") => body,
            None => return None,
        };
        let text = |key: &str| {
            let value = inner.get(key).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        Some(Self {
            kind: text("type"),
            // Some servers write nothing but a text.
            message: inner
                .as_str()
                .map_or_else(|| text("message"), str::to_owned),
            code: inner.get("code").and_then(|code| match code {
                // LiteLLM's.
                Value::String(code) => code.parse().ok(),
                code => u16::try_from(code.as_u64()?).ok(),
            }),
        })
    }

    /// The context that the server's model has, in tokens, where the error tells it.
    #[must_use]
    pub fn context_tokens(&self) -> Option<usize> {
        let (_, told) = self.message.split_once("maximum context length is ")?;
        let end = told.find(|c: char| !c.is_ascii_digit());
        let tokens = told[..end.unwrap_or(told.len())].parse().ok();
        tokens.filter(|tokens| *tokens > 0)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Answer {
    form: Form,
    /// How it ended, once that is known.
    pub ending: Option<Ending>,
    /// Counted so far.
    pub usage: Usage,
    /// The model that answers, as the server names it.
    pub model: Option<String>,
}

impl Answer {
    /// Nothing yet.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self {
            form,
            ending: None,
            usage: Usage::default(),
            model: None,
        }
    }

    /// Takes the data of the next event.
    ///
    /// # Errors
    /// [`AnswerFault`]; the answer is then lost.
    pub fn take(&mut self, data: &str) -> Result<Step, AnswerFault> {
        if data.trim() == "[DONE]" {
            return Ok(Step {
                done: true,
                ..Step::default()
            });
        }
        let value: Value = serde_json::from_str(data).map_err(|_| AnswerFault::Malformed)?;
        if let Some(error) = ApiError::find(&value) {
            return Err(AnswerFault::Reported(error));
        }
        let chunk: Chunk = serde_json::from_value(value).map_err(|_| AnswerFault::Malformed)?;
        if let Some(model) = chunk.model.filter(|name| is_model_name(name)) {
            self.model = Some(shown(&model).to_owned());
        }
        match self.form {
            Form::Infill => {
                let text = chunk.content.ok_or(AnswerFault::Malformed)?;
                self.count(
                    chunk.tokens_evaluated,
                    chunk.timings.and_then(|timings| timings.cache_n),
                    chunk.tokens_predicted,
                )?;
                let done = chunk.stop == Some(true);
                if done {
                    self.ending = Some(Ending::Finished(match chunk.stop_type.as_deref() {
                        Some("limit") => FinishReason::Length,
                        _ => FinishReason::Stop,
                    }));
                }
                Ok(Step {
                    text,
                    progress: true,
                    done,
                })
            }
            Form::Generate => {
                let text = chunk.response.ok_or(AnswerFault::Malformed)?;
                self.count(chunk.prompt_eval_count, None, chunk.eval_count)?;
                let done = chunk.done == Some(true);
                if done {
                    let reason = chunk.done_reason.as_deref();
                    self.ending = Some(ending(reason.unwrap_or("stop"))?);
                }
                Ok(Step {
                    text,
                    progress: true,
                    done,
                })
            }
            Form::Completion | Form::Chat => {
                if chunk.choices.is_none() && chunk.usage.is_none() {
                    return Err(AnswerFault::Malformed);
                }
                if let Some(usage) = chunk.usage {
                    let cached = usage
                        .prompt_tokens_details
                        .and_then(|details| details.cached_tokens);
                    self.count(usage.prompt_tokens, cached, usage.completion_tokens)?;
                }
                let choice = chunk.choices.unwrap_or_default().into_iter().next();
                choice.map_or_else(|| Ok(Step::default()), |choice| self.choice(choice))
            }
        }
    }

    fn choice(&mut self, choice: Choice) -> Result<Step, AnswerFault> {
        let Choice {
            text,
            delta,
            finish_reason,
        } = choice;
        let delta = delta.unwrap_or_default();
        if delta.tool_calls.is_some_and(|calls| !calls.is_empty()) {
            return Err(AnswerFault::UnaskedTool);
        }
        let text = match self.form {
            Form::Chat => delta.content,
            Form::Infill | Form::Completion | Form::Generate => text,
        }
        .unwrap_or_default();
        if self.ending.is_some() && !text.is_empty() {
            return Err(AnswerFault::AfterTheEnd);
        }
        if let Some(reason) = finish_reason {
            self.ending = Some(ending(&reason)?);
        }
        Ok(Step {
            text,
            progress: true,
            done: false,
        })
    }

    /// Counts are totals so far; one that is left out keeps its value.
    fn count(
        &mut self,
        prompt: Option<u64>,
        cached: Option<u64>,
        completion: Option<u64>,
    ) -> Result<(), AnswerFault> {
        let usage = &mut self.usage;
        for (kept, told) in [
            (&mut usage.prompt_tokens, prompt),
            (&mut usage.cached_tokens, cached),
            (&mut usage.completion_tokens, completion),
        ] {
            if let Some(told) = told {
                if told > MOST_TOKENS {
                    return Err(AnswerFault::ImpossibleCounts);
                }
                *kept = told as usize;
            }
        }
        Ok(())
    }
}

fn ending(reason: &str) -> Result<Ending, AnswerFault> {
    Ok(match reason {
        // The latter two are TGI's.
        "stop" | "eos_token" | "stop_sequence" => Ending::Finished(FinishReason::Stop),
        "content_filter" => Ending::Refused,
        "tool_calls" | "function_call" => return Err(AnswerFault::UnaskedTool),
        "abort" | "error" => Ending::GivenUp,
        // `length`, and reasons to come: there may be more to say.
        _ => Ending::Finished(FinishReason::Length),
    })
}

/// A model's name for people: llama-server calls a model by its file's whole path.
pub(super) fn shown(name: &str) -> &str {
    let file = name.rsplit('/').next().unwrap_or(name);
    let is_path = name.starts_with('/') && !file.is_empty();
    if is_path { file } else { name }
}

/// Whether a name may be shown to people as it is.
pub(super) fn is_model_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= LONGEST_MODEL_NAME
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/@+ ".contains(&byte))
}

#[derive(Deserialize)]
struct Chunk {
    model: Option<String>,
    choices: Option<Vec<Choice>>,
    usage: Option<UsageFields>,
    content: Option<String>,
    stop: Option<bool>,
    stop_type: Option<String>,
    tokens_evaluated: Option<u64>,
    tokens_predicted: Option<u64>,
    timings: Option<Timings>,
    response: Option<String>,
    done: Option<bool>,
    done_reason: Option<String>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
}

#[derive(Deserialize)]
struct Choice {
    text: Option<String>,
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

/// Thoughts (`reasoning_content`, `reasoning`) are no text of the answer, so they are not read.
#[derive(Deserialize, Default)]
struct Delta {
    content: Option<String>,
    tool_calls: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct UsageFields {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Timings {
    cache_n: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text, how it ended, and whether the stream said that nothing follows.
    fn read(form: Form, events: &[&str]) -> Result<(String, Option<Ending>, bool), AnswerFault> {
        let mut answer = Answer::new(form);
        let (mut text, mut done) = (String::new(), false);
        for event in events {
            let step = answer.take(event)?;
            text.push_str(&step.text);
            done |= step.done;
        }
        Ok((text, answer.ending, done))
    }

    const STOP: Option<Ending> = Some(Ending::Finished(FinishReason::Stop));
    const LENGTH: Option<Ending> = Some(Ending::Finished(FinishReason::Length));

    #[test]
    fn whole_answers_in_each_form() {
        let infill = [
            r#"{"index":0,"content":"re","tokens":[1],"stop":false,"tokens_predicted":1}"#,
            r#"{"index":0,"content":"turn","stop":false}"#,
            r#"{"content":"","stop":true,"model":"m","stop_type":"eos","tokens_evaluated":9,"tokens_predicted":2,"timings":{"cache_n":7}}"#,
        ];
        let expected = ("return".to_owned(), STOP, true);
        assert_eq!(read(Form::Infill, &infill), Ok(expected.clone()));
        let mut answer = Answer::new(Form::Infill);
        for event in infill {
            answer.take(event).unwrap();
        }
        let usage = Usage {
            prompt_tokens: 9,
            cached_tokens: 7,
            completion_tokens: 2,
        };
        assert_eq!((answer.usage, answer.model.as_deref()), (usage, Some("m")));
        for (name, expected) in [
            ("/models/some.gguf", "some.gguf"),
            ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
            ("/", "/"),
        ] {
            assert_eq!(shown(name), expected);
        }

        let completion = [
            r#"{"id":"c","object":"text_completion","model":"m","choices":[{"index":0,"text":"re","logprobs":null,"finish_reason":null}]}"#,
            r#"{"choices":[{"index":0,"text":"turn","finish_reason":"stop"}],"usage":null}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}"#,
            "[DONE]",
        ];
        assert_eq!(read(Form::Completion, &completion), Ok(expected.clone()));

        let chat = [
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":null},"finish_reason":null}]}"#,
            r#"{"choices":[{"index":0,"delta":{"reasoning_content":"Hm"},"finish_reason":null}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"return","tool_calls":[]}}]}"#,
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
            " [DONE] ",
        ];
        assert_eq!(read(Form::Chat, &chat), Ok(expected));
    }

    #[test]
    fn every_reason_has_its_ending() {
        for (reason, ending) in [
            ("stop", STOP),
            ("eos_token", STOP),
            ("length", LENGTH),
            ("something_new", LENGTH),
            ("content_filter", Some(Ending::Refused)),
            ("abort", Some(Ending::GivenUp)),
        ] {
            let event = format!(r#"{{"choices":[{{"text":"","finish_reason":"{reason}"}}]}}"#);
            let (_, found, done) = read(Form::Completion, &[&event]).unwrap();
            assert_eq!((found, done), (ending, false), "{reason}");
        }
        let limit = r#"{"content":"","stop":true,"stop_type":"limit"}"#;
        assert_eq!(read(Form::Infill, &[limit]).unwrap().1, LENGTH);
        let tool = r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#;
        assert_eq!(read(Form::Chat, &[tool]), Err(AnswerFault::UnaskedTool));
    }

    #[test]
    fn what_cannot_be_is_a_fault() {
        for (form, event) in [
            (Form::Chat, ""),
            (Form::Chat, "[]"),
            (Form::Chat, "{}"),
            (Form::Chat, "done"),
            (Form::Chat, r#"{"choices":[{"delta":{"content":5}}]}"#),
            (Form::Completion, r#"{"choices":{}}"#),
            (Form::Completion, r#"{"content":"x","stop":false}"#),
            (
                Form::Completion,
                r#"{"choices":[],"usage":{"prompt_tokens":-1}}"#,
            ),
            (Form::Infill, r#"{"choices":[{"text":"x"}]}"#),
            (Form::Infill, r#"{"stop":true}"#),
        ] {
            assert_eq!(read(form, &[event]), Err(AnswerFault::Malformed), "{event}");
        }
        let many = r#"{"choices":[],"usage":{"completion_tokens":18446744073709551615}}"#;
        assert_eq!(
            read(Form::Chat, &[many]),
            Err(AnswerFault::ImpossibleCounts)
        );
        let end = r#"{"choices":[{"text":"a","finish_reason":"stop"}]}"#;
        assert_eq!(
            read(Form::Completion, &[end, end]),
            Err(AnswerFault::AfterTheEnd)
        );
    }

    #[test]
    fn an_error_is_found_wherever_servers_write_it() {
        for (event, kind, code) in [
            (
                r#"{"error":{"message":"m","type":"server_error","code":500}}"#,
                "server_error",
                Some(500),
            ),
            (
                r#"{"object":"error","message":"m","type":"BadRequestError","code":400}"#,
                "BadRequestError",
                Some(400),
            ),
            (
                r#"{"error":{"message":"m","type":"None","param":"None","code":"400"}}"#,
                "None",
                Some(400),
            ),
            (r#"{"error":"m"}"#, "", None),
        ] {
            let Err(AnswerFault::Reported(error)) = read(Form::Chat, &[event]) else {
                panic!("{event}")
            };
            assert_eq!((error.kind.as_str(), error.code), (kind, code), "{event}");
            assert_eq!(error.message, "m");
        }
    }
}
