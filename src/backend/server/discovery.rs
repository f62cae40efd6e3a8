//! What a server is and has: its models, its software, whether it fills holes by itself. Asked once,
//! with nothing of the user's in it.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::Deserialize;

use crate::config::ServerApi;
use crate::prompt::infill::Marks;

use super::answer::is_model_name;

/// What serves the model, as far as it matters for what may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Software {
    /// llama.cpp's server.
    LlamaCpp,
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// Something else, which gets the documented fields only.
    Other,
}

impl Software {
    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LlamaCpp => "llama.cpp",
            Self::Vllm => "vLLM",
            Self::Sglang => "SGLang",
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
    /// Whether `/infill` is there.
    pub infill: AtomicBool,
}

/// How a completion is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By `/infill`.
    Infill,
    /// By `/v1/completions`, in the model's own frame.
    Marks(&'static Marks),
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
            Self::Continuation => "/v1/completions, the text before the cursor alone",
            Self::Chat => "/v1/chat/completions",
        }
    }
}

impl Known {
    /// From the body of `/v1/models` and the configured model; `None` where neither names one.
    #[must_use]
    pub fn read(body: &[u8], configured: Option<&str>) -> Option<Self> {
        let listed: List = serde_json::from_slice(body).unwrap_or_default();
        let is = |entry: &&Entry| {
            configured.is_none_or(|name| entry.id == name || entry.root.as_deref() == Some(name))
        };
        let entry = listed.data.iter().find(is);
        let model = configured.map(str::to_owned).or_else(|| {
            let entry = entry.filter(|entry| is_model_name(&entry.id));
            entry.map(|entry| entry.id.clone())
        })?;
        let owner = entry.or(listed.data.first());
        let software = match owner.map(|entry| entry.owned_by.as_str()) {
            Some("llamacpp") => Software::LlamaCpp,
            Some("vllm") => Software::Vllm,
            Some("sglang") => Software::Sglang,
            _ => Software::Other,
        };
        let root = entry.and_then(|entry| entry.root.as_deref());
        Some(Self {
            marks: Marks::of_model(&[&model, root.unwrap_or_default()]),
            model,
            software,
            context_tokens: entry.and_then(|entry| {
                let by_llama = || entry.meta.as_ref()?.n_ctx;
                let told = entry.max_model_len.or_else(by_llama);
                told.filter(|tokens| *tokens > 0)
            }),
            infill: AtomicBool::new(software == Software::LlamaCpp),
        })
    }

    /// How to ask for a completion, if the user says `api`.
    ///
    /// `/infill` has the better of it, since the server knows the model's tokens; but it puts the text
    /// before the cursor first, which not every model learnt.
    #[must_use]
    pub fn way(&self, api: ServerApi) -> Way {
        let framed = self.marks.map(Way::Marks);
        match api {
            ServerApi::Infill => Way::Infill,
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

    /// Whether it is worth asking if `/infill` is there.
    #[must_use]
    pub fn may_have_infill(&self, api: ServerApi) -> bool {
        api == ServerApi::Auto
            && self.software == Software::Other
            && self.marks.is_none_or(Marks::is_prefix_first)
    }
}

#[derive(Deserialize, Default)]
struct List {
    #[serde(default)]
    data: Vec<Entry>,
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
        for body in [
            "",
            "<html>",
            "{}",
            r#"{"data":[]}"#,
            r#"{"data":[{"id":"a\u001b"}]}"#,
        ] {
            assert!(Known::read(body.as_bytes(), None).is_none(), "{body}");
        }
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
