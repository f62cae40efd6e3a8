//! What a server is and has: its models, its software, whether it fills holes by itself. Asked once,
//! with nothing of the user's in it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use crate::config::ServerApi;
use crate::prompt::infill::Marks;

use super::answer::is_model_name;

/// How many of a server's models an error names.
const MOST_OTHERS: usize = 5;

/// Ollama unloads a model after five minutes, unless told otherwise.
const KEPT: Duration = Duration::from_mins(4);

/// What serves the model, as far as it matters for what may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Software {
    /// llama.cpp's server.
    LlamaCpp,
    /// The server of llama-cpp-python.
    LlamaCppPython,
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// Ollama.
    Ollama,
    /// Something else, which gets the documented fields only.
    Other,
}

impl Software {
    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LlamaCpp => "llama.cpp",
            Self::LlamaCppPython => "llama-cpp-python",
            Self::Vllm => "vLLM",
            Self::Sglang => "SGLang",
            Self::Ollama => "Ollama",
            Self::Other => "an unknown server",
        }
    }
}

/// What is known of a server.
#[derive(Debug)]
pub struct Known {
    /// The model to ask for.
    pub model: String,
    /// What serves it.
    pub software: Software,
    /// Its context in tokens, where the server says.
    pub context_tokens: Option<usize>,
    /// How it was taught to fill holes, where its name tells.
    pub marks: Option<&'static Marks>,
    /// How `/v1/completions` takes a prompt.
    pub takes: Takes,
    /// Whether `/infill` is there.
    pub infill: AtomicBool,
    /// Whether Ollama's `/api/generate` is, which takes a prompt as it is.
    pub raw: AtomicBool,
    /// What it lists, where it does not list `model`: the first few.
    pub others: Vec<String>,
    /// Its context in tokens as an error told it; the largest number until then.
    pub found_context: AtomicUsize,
    /// When it was last asked for something.
    asked: Mutex<Instant>,
}

/// What a server makes of a prompt to complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// The text that the model sees.
    Text,
    /// The text before the cursor, in a frame of the server's with the one after it.
    Suffix,
    /// A question, put into the model's chat template.
    Question,
}

/// Why it is not known what to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoModel {
    /// The server lists models, of which it has none.
    Listed,
    /// Neither the server nor the configuration names one.
    Named,
}

/// How a completion is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By `/infill`.
    Infill,
    /// By `/v1/completions`, in the model's own frame.
    Marks(&'static Marks),
    /// By `/v1/completions`, the text after the cursor beside, in the server's frame.
    Suffix,
    /// By Ollama's `/api/generate`, in the model's own frame.
    Raw(&'static Marks),
    /// By `/v1/completions`, the text before the cursor alone.
    Continuation,
    /// By `/v1/chat/completions`, between tags.
    Chat,
}

impl Way {
    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Infill => "/infill",
            Self::Marks(_) => "/v1/completions, in the model's own frame",
            Self::Raw(_) => "/api/generate, in the model's own frame",
            Self::Suffix => "/v1/completions, in the server's frame",
            Self::Continuation => "/v1/completions, the text before the cursor alone",
            Self::Chat => "/v1/chat/completions",
        }
    }
}

impl Known {
    /// From the body of `/v1/models` and the configured model.
    ///
    /// # Errors
    /// Where neither names one.
    pub fn read(body: &[u8], configured: Option<&str>) -> Result<Self, NoModel> {
        let list = serde_json::from_slice::<List>(body).ok();
        let empty = list
            .as_ref()
            .is_some_and(|list| list.data.as_ref().is_none_or(Vec::is_empty));
        let listed = list.and_then(|list| list.data).unwrap_or_default();
        let is = |entry: &&Entry| {
            let is_called = |name: &str| {
                let is = |other: &str| other == name || other.strip_suffix(":latest") == Some(name);
                is(&entry.id) || entry.root.as_deref().is_some_and(is)
            };
            configured.is_none_or(is_called)
        };
        let entry = listed.iter().find(is);
        let model = configured.map(str::to_owned).or_else(|| {
            let entry = entry.filter(|entry| is_model_name(&entry.id));
            entry.map(|entry| entry.id.clone())
        });
        let model = model.ok_or(if empty {
            NoModel::Listed
        } else {
            NoModel::Named
        })?;
        let owner = entry.or(listed.first());
        let software = match owner.map(|entry| entry.owned_by.as_str()) {
            Some("llamacpp") => Software::LlamaCpp,
            Some("me") => Software::LlamaCppPython,
            Some("vllm") => Software::Vllm,
            Some("sglang") => Software::Sglang,
            _ => Software::Other,
        };
        let root = entry.and_then(|entry| entry.root.as_deref());
        let others = listed.iter().map(|entry| entry.id.as_str());
        let others = others.filter(|name| entry.is_none() && is_model_name(name));
        Ok(Self {
            others: others.take(MOST_OTHERS).map(str::to_owned).collect(),
            marks: Marks::of_model(&[&model, root.unwrap_or_default()]),
            model,
            software,
            context_tokens: entry.and_then(|entry| {
                let by_llama = || entry.meta.as_ref()?.n_ctx;
                let told = entry.max_model_len.or_else(by_llama);
                told.filter(|tokens| *tokens > 0)
            }),
            takes: Takes::Text,
            found_context: AtomicUsize::new(usize::MAX),
            asked: Mutex::new(Instant::now()),
            raw: AtomicBool::new(false),
            infill: AtomicBool::new(software == Software::LlamaCpp),
        })
    }

    /// Whether the model is certain to be loaded still, if it is asked for now. All but Ollama keep theirs.
    #[must_use]
    pub fn is_there_still(&self) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *asked, Instant::now());
        self.software != Software::Ollama || before.elapsed() < KEPT
    }

    /// The most tokens of a prompt and its answer that it takes, as far as it told.
    #[must_use]
    pub fn most_tokens(&self) -> usize {
        let told = self.context_tokens.unwrap_or(usize::MAX);
        told.min(self.found_context.load(Ordering::Relaxed))
    }

    /// Whether it has one model, and takes any name for it.
    #[must_use]
    pub fn takes_any_name(&self) -> bool {
        match self.software {
            Software::LlamaCpp | Software::LlamaCppPython => true,
            Software::Vllm | Software::Sglang | Software::Ollama | Software::Other => false,
        }
    }

    /// How to ask for a completion, if the user says `api`.
    ///
    /// `/infill` has the better of it, since the server knows the model's tokens; but it puts the text
    /// before the cursor first, which not every model learnt.
    #[must_use]
    pub fn way(&self, api: ServerApi) -> Way {
        let framed = self.marks.map(Way::Marks);
        if matches!(api, ServerApi::Completions | ServerApi::Auto)
            && let Some(marks) = self.raw_marks()
        {
            return Way::Raw(marks);
        }
        match api {
            ServerApi::Infill => Way::Infill,
            ServerApi::Completions | ServerApi::Auto if self.takes == Takes::Suffix => Way::Suffix,
            ServerApi::Auto if self.takes == Takes::Question => Way::Chat,
            ServerApi::Completions => framed.unwrap_or(Way::Continuation),
            ServerApi::Chat => Way::Chat,
            ServerApi::Auto => {
                let suits = self.marks.is_none_or(Marks::is_prefix_first);
                if suits && self.infill.load(Ordering::Relaxed) {
                    Way::Infill
                } else {
                    framed.unwrap_or(Way::Chat)
                }
            }
        }
    }

    /// The frame for a prompt that is to be taken as it is, where that is better than what the server makes
    /// of one: it has a place for other files, or is no question.
    fn raw_marks(&self) -> Option<&'static Marks> {
        let marks = self.marks?;
        let is_better = match self.takes {
            Takes::Text => false,
            Takes::Suffix => marks.has_files(),
            Takes::Question => true,
        };
        (is_better && self.raw.load(Ordering::Relaxed)).then_some(marks)
    }

    /// Whether it is worth asking if `/infill` is there.
    #[must_use]
    pub fn may_have_infill(&self, api: ServerApi) -> bool {
        api == ServerApi::Auto
            && self.software == Software::Other
            && self.marks.is_none_or(Marks::is_prefix_first)
    }
}

#[derive(Deserialize)]
struct List {
    /// `null` where Ollama has none. The field itself is there in any list.
    #[serde(deserialize_with = "Option::deserialize")]
    data: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    id: String,
    /// What the model is, where `id` is a name that its server gave it (vLLM, SGLang).
    root: Option<String>,
    #[serde(default)]
    owned_by: String,
    max_model_len: Option<usize>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    n_ctx: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const VLLM: &str = r#"{"object":"list","data":[{"id":"coder","object":"model","created":1,
        "owned_by":"vllm","root":"Qwen/Qwen2.5-Coder-7B","parent":null,"max_model_len":8192}]}"#;
    const LLAMA: &str = r#"{"models":[],"object":"list","data":[{"id":"NAME","object":"model",
        "owned_by":"llamacpp","meta":{"n_ctx":4096,"n_ctx_train":32768}}]}"#;
    const OTHER: &str = r#"{"data":[{"id":"a"},{"id":"starcoder2:3b"}]}"#;

    fn known(body: &str, configured: Option<&str>) -> Known {
        Known::read(body.as_bytes(), configured).unwrap()
    }

    #[test]
    fn a_server_says_what_it_is_and_has() {
        let vllm = known(VLLM, None);
        assert_eq!(
            (vllm.model.as_str(), vllm.software, vllm.context_tokens),
            ("coder", Software::Vllm, Some(8192))
        );
        assert!(
            vllm.marks.is_some(),
            "by what the model is, not how it is called"
        );
        let llama = known(LLAMA, Some("another"));
        assert_eq!(
            (llama.model.as_str(), llama.software, llama.context_tokens),
            ("another", Software::LlamaCpp, None)
        );
        let other = known(OTHER, Some("starcoder2:3b"));
        assert_eq!(
            (other.software, other.marks.is_some()),
            (Software::Other, true)
        );
        assert_eq!(known("<html>", Some("m")).model, "m");
        for body in ["", "<html>", "{}", r#"{"data":[{"id":"a\u001b"}]}"#] {
            let none = Known::read(body.as_bytes(), None).unwrap_err();
            assert_eq!(none, NoModel::Named, "{body}");
        }
        // The latter is Ollama's.
        for body in [r#"{"data":[]}"#, r#"{"object":"list","data":null}"#] {
            let none = Known::read(body.as_bytes(), None).unwrap_err();
            assert_eq!(none, NoModel::Listed, "{body}");
            assert_eq!(known(body, Some("m")).model, "m");
        }
    }

    #[test]
    fn a_model_that_is_not_listed_is_told_from_one_that_is() {
        for (configured, others) in [
            (None, &[][..]),
            (Some("a"), &[]),
            (Some("starcoder2"), &["a", "starcoder2:3b", "b:latest"]),
            // Ollama takes either.
            (Some("b"), &[]),
            (Some("b:latest"), &[]),
        ] {
            let body =
                r#"{"data":[{"id":"a"},{"id":"starcoder2:3b"},{"id":"b:latest"},{"id":"c\n"}]}"#;
            assert_eq!(known(body, configured).others, others, "{configured:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ollama_may_have_unloaded_what_was_not_asked_for() {
        for (software, stays) in [(Software::Ollama, false), (Software::Vllm, true)] {
            let known = Known {
                software,
                ..known(OTHER, None)
            };
            for _ in 0..3 {
                tokio::time::advance(KEPT / 2).await;
                assert!(known.is_there_still(), "{software:?}");
            }
            tokio::time::advance(KEPT).await;
            assert_eq!(known.is_there_still(), stays, "{software:?}");
        }
    }

    #[test]
    fn how_ollama_takes_a_prompt_decides_how_it_is_asked() {
        let ollama = |takes: Takes| Known {
            takes,
            infill: AtomicBool::new(false),
            ..known(OTHER, Some("starcoder2:3b"))
        };
        let marks = Way::Marks(ollama(Takes::Text).marks.unwrap());
        for (takes, auto, completions) in [
            (Takes::Text, marks, marks),
            (Takes::Suffix, Way::Suffix, Way::Suffix),
            (Takes::Question, Way::Chat, marks),
        ] {
            let known = ollama(takes);
            assert_eq!(known.way(ServerApi::Auto), auto, "{takes:?}");
            assert_eq!(known.way(ServerApi::Completions), completions, "{takes:?}");
            assert_eq!(known.way(ServerApi::Chat), Way::Chat, "{takes:?}");
        }
    }

    #[test]
    fn ollama_takes_a_frame_as_it_is_where_that_is_better_than_its_own() {
        let way = |model: &str, takes: Takes, api: ServerApi| {
            let known = Known {
                takes,
                raw: AtomicBool::new(true),
                infill: AtomicBool::new(false),
                ..known(r#"{"data":[]}"#, Some(model))
            };
            known.way(api).as_str()
        };
        let raw = "/api/generate, in the model's own frame";
        for (model, takes, expected) in [
            ("qwen2.5-coder:7b", Takes::Suffix, raw),
            ("qwen2.5-coder:7b", Takes::Question, raw),
            (
                "qwen2.5-coder:7b",
                Takes::Text,
                "/v1/completions, in the model's own frame",
            ),
            // Its frame has no place for other files.
            (
                "codellama:7b-code",
                Takes::Suffix,
                "/v1/completions, in the server's frame",
            ),
            ("codellama:7b-code", Takes::Question, raw),
            (
                "qwen3:8b",
                Takes::Suffix,
                "/v1/completions, in the server's frame",
            ),
            ("qwen3:8b", Takes::Question, "/v1/chat/completions"),
        ] {
            let auto = way(model, takes, ServerApi::Auto);
            assert_eq!(auto, expected, "{model} {takes:?}");
        }
        let by_hand = |api| way("qwen2.5-coder:7b", Takes::Suffix, api);
        assert_eq!(by_hand(ServerApi::Completions), raw);
        assert_eq!(by_hand(ServerApi::Chat), "/v1/chat/completions");
    }

    #[test]
    fn the_way_follows_from_the_model_and_the_software() {
        let llama = |name: &str| known(&LLAMA.replace("NAME", name), None);
        let mini = llama("tandem-mini.gguf");
        assert_eq!(mini.way(ServerApi::Auto), Way::Marks(mini.marks.unwrap()));
        assert_eq!(mini.way(ServerApi::Infill), Way::Infill);
        assert_eq!(
            llama("qwen2.5-coder.gguf").way(ServerApi::Auto),
            Way::Infill
        );
        let unknown = llama("some.gguf");
        assert_eq!(unknown.way(ServerApi::Auto), Way::Infill);
        unknown.infill.store(false, Ordering::Relaxed);
        assert_eq!(unknown.way(ServerApi::Auto), Way::Chat);
        assert_eq!(unknown.way(ServerApi::Completions), Way::Continuation);
        let vllm = known(VLLM, None);
        assert_eq!(vllm.way(ServerApi::Auto), Way::Marks(vllm.marks.unwrap()));
        assert_eq!(vllm.way(ServerApi::Chat), Way::Chat);
        assert!(!vllm.may_have_infill(ServerApi::Auto));
        assert!(known(OTHER, None).may_have_infill(ServerApi::Auto));
    }
}
