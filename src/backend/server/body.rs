//! From a task to what is sent for it.
//!
//! What is sent field by field is in [`super::fields`].

use std::borrow::Cow;

use serde::Serialize;

use crate::inference::{
    CompleteTask, CompletionShape, Effort, GenerateError, GenerateRequest, Role, Snippet, Task,
};
use crate::prompt::Extractor;
use crate::prompt::chat;
use crate::prompt::context::estimate_tokens;
use crate::prompt::infill::{Parts, Room};

use super::answer::Form;
use super::discovery::{Known, Software, Way};
use super::fields::{
    Chat, Common, Completion, Extra, Generate, Infill, MOST_STOPS, Message, NamedSchema, Options,
    ResponseFormat, TemplateArguments, USAGE,
};

/// What a completion shows: some 4,000 tokens, most of which a server keeps from one keystroke to the
/// next. Chosen by judgement, not measured.
const ROOM: Room = Room {
    before: 8_000,
    after: 2_000,
    files: 6_000,
};

/// The same for `/infill`: llama-server takes three quarters of a batch (2,048 tokens by default) of the
/// text before the cursor and a quarter of the text after it. What is longer it cuts itself, at another
/// place with each keystroke.
const INFILL_ROOM: Room = Room {
    before: 4_500,
    after: 1_500,
    files: 6_000,
};

/// Tokens of what a conversation about a completion says besides the document, from above.
const INSTRUCTIONS: usize = 600;

/// A request as it goes over the wire, and how its answer is read.
#[derive(Debug)]
pub struct Wire {
    /// Below the base URL.
    pub path: &'static [&'static str],
    /// The form of the answer.
    pub form: Form,
    /// JSON.
    pub body: Vec<u8>,
    /// How the answer is taken out of what the model says.
    pub extractor: Extractor,
    /// Stop sequences for what the model says, besides the request's own.
    pub ends: Vec<String>,
    /// Whether a space before the cursor was left out, with which the answer may then begin.
    pub space_left_out: bool,
    /// Tokens of the prompt, estimated from above.
    pub prompt_tokens: usize,
    /// The longest answer, in tokens.
    pub max_tokens: usize,
    /// Whether a whole answer says how it ended. One that does not was given up for a newer request, as
    /// llama-cpp-python does by itself.
    pub says_how_it_ended: bool,
}

const INFILL: &[&str] = &["infill"];
const COMPLETIONS: &[&str] = &["v1", "completions"];
const GENERATE: &[&str] = &["api", "generate"];
const CHAT: &[&str] = &["v1", "chat", "completions"];

impl Wire {
    /// For `request`, whose completions go by `way`. Conversations and edits are chat always. An answer to
    /// a schema is `held` to it, or only told of it.
    ///
    /// # Errors
    /// For a conversation that does not begin and end with a user's turn.
    pub fn new(
        request: &GenerateRequest,
        known: &Known,
        way: Way,
        context_tokens: usize,
        held: bool,
    ) -> Result<Self, GenerateError> {
        match (&request.task, way) {
            (
                Task::Complete(task),
                Way::Infill | Way::Marks(_) | Way::Raw(_) | Way::Suffix | Way::Continuation,
            ) => Ok(Self::completion(request, task, known, way, context_tokens)),
            (Task::Complete(task), Way::Chat) => {
                let cut = GenerateRequest {
                    task: Task::Complete(cut(task, context_tokens, request.max_tokens)),
                    ..request.clone()
                };
                Self::chat(&cut, known, context_tokens, held)
            }
            (Task::Chat(_) | Task::Edit(_), _) => Self::chat(request, known, context_tokens, held),
        }
    }

    fn completion(
        request: &GenerateRequest,
        task: &CompleteTask,
        known: &Known,
        way: Way,
        context_tokens: usize,
    ) -> Self {
        let max_tokens = request.max_tokens.max(1);
        let says_how_it_ended = known.software == Software::LlamaCppPython;
        let line = (task.shape == CompletionShape::OneLine).then(|| "\n".to_owned());
        let mut ends: Vec<String> = line.into_iter().collect();
        let marks = match way {
            Way::Marks(marks) | Way::Raw(marks) => Some(marks),
            Way::Suffix => known.marks,
            Way::Infill | Way::Continuation | Way::Chat => None,
        };
        if let Some(marks) = marks {
            ends.extend(marks.ends.iter().map(ToString::to_string));
        }
        let common = Common::new(request, known, &ends);
        let mut space_left_out = false;
        let mut fitting = |room: Room| {
            let mut parts = Parts::of(task, room.within(context_tokens, max_tokens));
            if let Some(before) = without_space(parts.before) {
                parts.before = before;
                space_left_out = true;
            }
            parts
        };
        if way == Way::Infill {
            let parts = fitting(INFILL_ROOM);
            let body = Infill {
                input_prefix: parts.before,
                input_suffix: parts.after,
                input_extra: parts
                    .files
                    .iter()
                    .map(|piece| Extra {
                        filename: piece.path,
                        text: piece.text,
                    })
                    .collect(),
                n_predict: max_tokens,
                cache_prompt: true,
                common,
            };
            let shown = [parts.before, parts.after].into_iter();
            let shown = shown.chain(parts.files.iter().map(|piece| piece.text));
            return Self {
                path: INFILL,
                form: Form::Infill,
                prompt_tokens: shown.map(estimate_tokens).sum(),
                body: json(&body),
                extractor: Extractor::verbatim(),
                ends,
                space_left_out,
                max_tokens,
                says_how_it_ended,
            };
        }
        let parts = fitting(ROOM);
        let plain = |text| marks.map_or(Cow::Borrowed(text), |marks| marks.plain(text));
        let (prompt, suffix) = match way {
            Way::Marks(marks) | Way::Raw(marks) => {
                (marks.render(&parts, task.path.as_deref()).into(), None)
            }
            // Without a suffix it would be another frame: that of a chat.
            Way::Suffix if parts.after.is_empty() => (plain(parts.before), Some("\n".into())),
            Way::Suffix => (plain(parts.before), Some(plain(parts.after))),
            Way::Infill | Way::Continuation | Way::Chat => (parts.before.into(), None),
        };
        let (path, form, body) = if let Way::Raw(_) = way {
            let body = json(&Generate {
                model: &common.model,
                prompt: &prompt,
                raw: true,
                stream: true,
                options: Options {
                    num_predict: max_tokens,
                    temperature: common.temperature,
                    top_p: common.top_p,
                    seed: common.seed,
                    stop: common.stop,
                },
            });
            (GENERATE, Form::Generate, body)
        } else {
            let body = json(&Completion {
                prompt: &prompt,
                suffix: suffix.as_deref(),
                max_tokens,
                stream_options: USAGE,
                common,
            });
            (COMPLETIONS, Form::Completion, body)
        };
        Self {
            path,
            form,
            prompt_tokens: estimate_tokens(&prompt) + suffix.as_deref().map_or(0, estimate_tokens),
            body,
            extractor: Extractor::verbatim(),
            ends,
            space_left_out,
            max_tokens,
            says_how_it_ended,
        }
    }

    fn chat(
        request: &GenerateRequest,
        known: &Known,
        context_tokens: usize,
        held: bool,
    ) -> Result<Self, GenerateError> {
        let (prompt, schema) = match &request.task {
            Task::Chat(task) => {
                let told = chat::told_schema(task).into_owned();
                (chat::render(&Task::Chat(told))?, task.schema.as_ref())
            }
            task => (chat::render(task)?, None),
        };
        let prompt_tokens = prompt.estimated_tokens();
        // The most that a request allows for its answer is rarely used: a quarter is kept for it.
        let left = context_tokens.saturating_sub(prompt_tokens);
        let most = left.max(context_tokens / 4);
        let max_tokens = request.max_tokens.clamp(1, most.max(1));
        // A tagged answer is not yet the text that the request's stop sequences are meant for.
        let stops: Vec<String> = match &prompt.stop {
            Some(stop) => vec![stop.clone()],
            None => request.stop.clone(),
        };
        let system = (!prompt.system.is_empty()).then(|| Message {
            role: "system",
            content: prompt.system.clone(),
        });
        let turns = prompt.turns.iter().map(|turn| Message {
            role: match turn.role {
                Role::User => "user",
                Role::Assistant => "assistant",
            },
            content: turn
                .blocks
                .iter()
                .map(|block| block.text.as_str())
                .collect(),
        });
        let thinks = request.effort == Effort::High;
        let (by_template, by_effort) = match known.software {
            Software::LlamaCpp | Software::Vllm | Software::Sglang => (!thinks, false),
            Software::Ollama => (false, !thinks),
            Software::LlamaCppPython | Software::Other => (false, false),
        };
        let body = Chat {
            messages: system.into_iter().chain(turns).collect(),
            max_tokens,
            stream_options: USAGE,
            template_arguments: by_template.then_some(TemplateArguments {
                enable_thinking: false,
            }),
            reasoning_effort: by_effort.then_some("none"),
            response_format: schema.filter(|_| held).map(|schema| {
                let schema = schema.json();
                match known.software {
                    Software::LlamaCppPython => ResponseFormat::JsonObject { schema },
                    _ => ResponseFormat::JsonSchema {
                        json_schema: NamedSchema {
                            name: "answer",
                            strict: true,
                            schema,
                        },
                    },
                }
            }),
            common: Common {
                stop: stops.into_iter().take(MOST_STOPS).collect(),
                skip_special_tokens: None,
                ..Common::new(request, known, &[])
            },
        };
        Ok(Self {
            path: CHAT,
            form: Form::Chat,
            prompt_tokens,
            body: json(&body),
            extractor: prompt.extractor,
            ends: Vec::new(),
            space_left_out: false,
            max_tokens,
            says_how_it_ended: known.software == Software::LlamaCppPython,
        })
    }
}

/// `task` with as much of its texts as a conversation about it has room for.
fn cut(task: &CompleteTask, context_tokens: usize, max_tokens: usize) -> CompleteTask {
    let room = ROOM.within(context_tokens.saturating_sub(INSTRUCTIONS), max_tokens);
    let parts = Parts::of(task, room);
    let snippets = parts.files.iter().rev().map(|piece| Snippet {
        path: piece.path.to_owned(),
        file: None,
        text: piece.text.into(),
    });
    CompleteTask {
        path: task.path.clone(),
        language: task.language.clone(),
        prefix: parts.before.into(),
        suffix: parts.after.into(),
        snippets: snippets.collect(),
        shape: task.shape,
    }
}

/// `before` without a space at its end that belongs to the word to come: tokenizers join the two, so a
/// model has hardly ever seen a word after a space that stands alone. Indentation stays.
fn without_space(before: &str) -> Option<&str> {
    let rest = before.strip_suffix(' ')?;
    (!rest.is_empty() && !rest.ends_with(char::is_whitespace)).then_some(rest)
}

/// Texts, numbers and lists, all of which JSON has.
fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::{Expect, expect};

    use super::*;
    use crate::inference::{ChatTask, ClientId, Message as Said, Priority, RequestId, Sampling};

    fn request(task: Task, effort: Effort) -> GenerateRequest {
        GenerateRequest {
            client: ClientId::default(),
            id: RequestId::next(),
            task,
            sampling: Sampling::GREEDY,
            max_tokens: 64,
            stop: Vec::new(),
            effort,
            priority: Priority::Inline,
        }
    }

    fn complete(shape: CompletionShape) -> GenerateRequest {
        let task = CompleteTask {
            path: Some("a.rs".into()),
            language: "rust".into(),
            prefix: "fn a() {".into(),
            suffix: "}\n".into(),
            snippets: Vec::new(),
            shape,
        };
        request(Task::Complete(task), Effort::Low)
    }

    fn known(model: &str, owner: &str) -> Known {
        let list = format!(r#"{{"data":[{{"id":"{model}","owned_by":"{owner}"}}]}}"#);
        Known::read(list.as_bytes(), None).unwrap()
    }

    fn check(request: &GenerateRequest, known: &Known, way: Way, expected: &Expect) {
        let wire = Wire::new(request, known, way, 8_192, true).unwrap();
        let body = String::from_utf8(wire.body).unwrap();
        expected.assert_eq(&format!("/{} {body}", wire.path.join("/")));
    }

    #[test]
    fn requests_as_they_are_sent() {
        let vllm = known("qwen2.5-coder", "vllm");
        let llama = known("some.gguf", "llamacpp");
        let other = known("some", "");
        let framed = Way::Marks(vllm.marks.unwrap());
        let (auto, line) = (
            complete(CompletionShape::Auto),
            complete(CompletionShape::OneLine),
        );
        check(
            &line,
            &llama,
            Way::Infill,
            &expect![[
                r#"/infill {"input_prefix":"fn a() {","input_suffix":"}\n","input_extra":[],"n_predict":64,"cache_prompt":true,"model":"some.gguf","stream":true,"temperature":0.0,"stop":["\n"]}"#
            ]],
        );
        check(
            &auto,
            &vllm,
            framed,
            &expect![[
                r#"/v1/completions {"prompt":"<|file_sep|>a.rs\n<|fim_prefix|>fn a() {<|fim_suffix|>}\n<|fim_middle|>","max_tokens":64,"stream_options":{"include_usage":true},"model":"qwen2.5-coder","stream":true,"temperature":0.0,"stop":["<|file_sep|>","<|endoftext|>","<|fim_pad|>","<|repo_name|>"],"skip_special_tokens":false}"#
            ]],
        );
        check(
            &auto,
            &other,
            Way::Continuation,
            &expect![[
                r#"/v1/completions {"prompt":"fn a() {","max_tokens":64,"stream_options":{"include_usage":true},"model":"some","stream":true,"temperature":0.0}"#
            ]],
        );
        let ollama = known("qwen2.5-coder:7b", "library");
        check(
            &auto,
            &ollama,
            Way::Raw(ollama.marks.unwrap()),
            &expect![[
                r#"/api/generate {"model":"qwen2.5-coder:7b","prompt":"<|file_sep|>a.rs\n<|fim_prefix|>fn a() {<|fim_suffix|>}\n<|fim_middle|>","raw":true,"stream":true,"options":{"num_predict":64,"temperature":0.0,"stop":["<|file_sep|>","<|endoftext|>","<|fim_pad|>","<|repo_name|>"]}}"#
            ]],
        );
        // The frame is the server's, and the marks in a document are told apart all the same.
        let mut marked = complete(CompletionShape::OneLine);
        if let Task::Complete(task) = &mut marked.task {
            (task.prefix, task.suffix) = ("a<|fim_suffix|>".into(), "".into());
        }
        check(
            &marked,
            &ollama,
            Way::Suffix,
            &expect![[
                r#"/v1/completions {"prompt":"a< |fim_suffix|>","suffix":"\n","max_tokens":64,"stream_options":{"include_usage":true},"model":"qwen2.5-coder:7b","stream":true,"temperature":0.0,"stop":["\n","<|file_sep|>","<|endoftext|>","<|fim_pad|>"]}"#
            ]],
        );
    }

    #[test]
    fn a_conversation_as_it_is_sent() {
        let task = ChatTask {
            system: Some("Be brief.".into()),
            messages: vec![Said {
                role: Role::User,
                text: "Hi".into(),
            }],
            schema: None,
        };
        let mut light = request(Task::Chat(task.clone()), Effort::Low);
        light.stop = ["1", "2", "3", "4", "5"].map(String::from).to_vec();
        check(
            &light,
            &known("m", "vllm"),
            Way::Infill,
            &expect![[
                r#"/v1/chat/completions {"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}],"max_tokens":64,"stream_options":{"include_usage":true},"chat_template_kwargs":{"enable_thinking":false},"model":"m","stream":true,"temperature":0.0,"stop":["1","2","3","4"]}"#
            ]],
        );
        let mut heavy = request(Task::Chat(task), Effort::High);
        heavy.sampling = Sampling {
            temperature: 0.5,
            top_p: 0.5,
            seed: u64::MAX,
            ..Sampling::GREEDY
        };
        check(
            &heavy,
            &known("m", "vllm"),
            Way::Chat,
            &expect![[
                r#"/v1/chat/completions {"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}],"max_tokens":64,"stream_options":{"include_usage":true},"model":"m","stream":true,"temperature":0.5,"top_p":0.5,"seed":2147483647}"#
            ]],
        );
    }

    #[test]
    fn a_space_before_the_cursor_is_left_to_the_word_to_come() {
        for (before, sent) in [
            ("return ", Some("return")),
            ("return", None),
            ("return  ", None),
            ("    ", None),
            (" ", None),
            ("{\n ", None),
            ("é ", Some("é")),
        ] {
            assert_eq!(without_space(before), sent, "{before:?}");
        }
    }

    #[test]
    fn a_completion_by_chat_asks_for_tags() {
        let wire = Wire::new(
            &complete(CompletionShape::Auto),
            &known("m", ""),
            Way::Chat,
            8_192,
            true,
        )
        .unwrap();
        let body = String::from_utf8(wire.body).unwrap();
        assert!(body.contains("<cursor/>") && body.contains(r#""stop":["</insert>"]"#));
        assert!(!body.contains("chat_template_kwargs"), "not for everybody");
        assert_eq!((wire.form, wire.path), (Form::Chat, CHAT));
        // However long the document is, it is cut to the context.
        let mut long = complete(CompletionShape::Auto);
        if let Task::Complete(task) = &mut long.task {
            task.prefix = "let number = 1;\n".repeat(9_000).into();
            task.suffix = Arc::clone(&task.prefix);
        }
        for context_tokens in [2_048, 4_096, 32_768] {
            let wire = Wire::new(&long, &known("m", ""), Way::Chat, context_tokens, true).unwrap();
            let tokens = wire.prompt_tokens + wire.max_tokens;
            assert!((1_000..=context_tokens).contains(&tokens), "{tokens}");
        }
    }
}
