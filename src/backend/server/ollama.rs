//! What Ollama says of a model by its own interface: how it takes a prompt that it frames itself, and the
//! context that the model was loaded with. Nothing of the user's is in it.
//!
//! Its `docs/api.md` has the fields. Seen with Ollama 0.33.0.

use std::time::Duration;

use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;
use tokio::time::{timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::backend::http::failure::connection;
use crate::backend::http::read;
use crate::backend::http::retry::Tries;
use crate::inference::GenerateError;

use super::call::{Line, host};
use super::discovery::{Known, Software, Takes};
use super::{PEER, failure};

/// What Ollama gives a model by itself on a machine without much graphics memory, and cuts longer prompts
/// to without a word.
const USUAL_CONTEXT: usize = 4_096;

/// Longer than a model takes to load, from a disk that turns.
const LONGEST_LOAD: Duration = Duration::from_mins(10);

/// Where to ask.
pub struct Urls {
    /// `/api/show`: what a model is.
    pub show: Url,
    /// `/api/ps`: which models are loaded.
    pub loaded: Url,
    /// `/api/generate`, which without a prompt loads a model and does nothing else.
    pub generate: Url,
}

/// A model that is being loaded. Ollama gives that up with the request that asked for it, and whoever types
/// gives up each request by the next: so this one is nobody's, and ends with the backend.
#[derive(Default)]
pub struct Loading(Mutex<Option<(String, Load)>>);

type Load = AbortOnDropHandle<Result<(), GenerateError>>;

impl Loading {
    /// Waits until `model` is there.
    async fn wait(
        &self,
        model: &str,
        load: impl Future<Output = Result<(), GenerateError>> + Send + 'static,
        tries: &Tries,
    ) -> Result<(), GenerateError> {
        let mut loading = self.0.lock().await;
        let (_, task) = match &mut *loading {
            Some(begun) if begun.0 == model => begun,
            other => {
                let task = AbortOnDropHandle::new(tokio::spawn(load));
                other.insert((model.to_owned(), task))
            }
        };
        let Ok(outcome) = timeout_at(tries.deadline, task).await else {
            return Err(failure::loading());
        };
        *loading = None;
        outcome.unwrap_or_else(|_| Err(failure::loading()))
    }
}

/// Asks a server of which nothing is known whether it is Ollama, and completes what is known if so.
///
/// # Errors
/// If it is, and has not loaded the model in time.
pub async fn ask(
    line: &Line<'_>,
    urls: &Urls,
    loading: &Loading,
    known: &mut Known,
    tries: &Tries,
) -> Result<(), GenerateError> {
    let idle = line.settings.idle_timeout;
    let model = json!({"model": known.model, "stream": false}).to_string();
    let shown = line
        .send(&urls.show, Some(model.clone().into()), tries)
        .await;
    let Some(shown) = ok(shown.ok()) else {
        return Ok(());
    };
    let Some(shown) = Shown::read(&read::body(shown, idle).await) else {
        return Ok(());
    };
    known.software = Software::Ollama;
    known.takes = shown.takes();
    *known.raw.get_mut() = true;
    let loaded = async || {
        let response = ok(line.send(&urls.loaded, None, tries).await.ok())?;
        loaded_context(&read::body(response, idle).await, &known.model)
    };
    let mut context_tokens = loaded().await;
    if context_tokens.is_none() {
        // The first request would load it as well, and would be cut to nobody knows what.
        let request = line.request(&urls.generate, Some(model.into()));
        let request = request.map_err(|failure| failure.error)?;
        let host = host(&urls.generate).unwrap_or_default();
        let (path, has_key) = (urls.generate.path().to_owned(), line.key.is_some());
        let load = async move {
            match timeout(LONGEST_LOAD, request.send()).await {
                Ok(Ok(response)) if response.status() == StatusCode::OK => Ok(()),
                Ok(Ok(response)) => Err(failure::status(response.status(), None, &path, has_key)),
                Ok(Err(error)) => Err(connection(&PEER, &host, error)),
                Err(_) => Err(failure::loading()),
            }
        };
        loading.wait(&known.model, load, tries).await?;
        context_tokens = loaded().await;
    }
    let usual = || shown.own_context().unwrap_or(usize::MAX).min(USUAL_CONTEXT);
    known.context_tokens = Some(context_tokens.unwrap_or_else(usual));
    Ok(())
}

fn ok(response: Option<Response>) -> Option<Response> {
    response.filter(|response| response.status() == StatusCode::OK)
}

/// The answer of `/api/show`.
#[derive(Deserialize)]
struct Shown {
    #[serde(default)]
    template: String,
    /// Older ones do not tell.
    #[serde(default)]
    capabilities: Vec<String>,
    model_info: Map<String, Value>,
}

impl Shown {
    fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    fn takes(&self) -> Takes {
        let plain: String = self.template.split_whitespace().collect();
        if self.capabilities.iter().any(|what| what == "insert") || plain.contains(".Suffix") {
            Takes::Suffix
        } else if plain == "{{.Prompt}}" {
            Takes::Text
        } else {
            Takes::Question
        }
    }

    /// What the model itself can take.
    fn own_context(&self) -> Option<usize> {
        let key = |key: &String| key.ends_with(".context_length");
        let (_, tokens) = self.model_info.iter().find(|entry| key(entry.0))?;
        usize::try_from(tokens.as_u64()?).ok()
    }
}

/// The context of `model` by the answer of `/api/ps`; `None` where it is not loaded, or an older
/// Ollama does not tell.
fn loaded_context(body: &[u8], model: &str) -> Option<usize> {
    #[derive(Deserialize)]
    struct Loaded {
        models: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        model: String,
        context_length: Option<usize>,
    }
    let loaded: Loaded = serde_json::from_slice(body).ok()?;
    let is = |name: &str| name == model || name.strip_suffix(":latest") == Some(model);
    let entry = loaded.models.into_iter().find(|entry| is(&entry.model))?;
    entry.context_length.filter(|tokens| *tokens > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(template: &str, capabilities: &[&str]) -> Shown {
        let body = json!({
            "template": template,
            "capabilities": capabilities,
            "model_info": {"general.architecture": "qwen2", "qwen2.context_length": 32_768},
        });
        Shown::read(body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn how_a_prompt_is_taken_follows_from_the_template() {
        let coder = "{{- if .Suffix }}<|fim_prefix|>{{ .Prompt }}<|fim_suffix|>{{ .Suffix }}<|fim_middle|>\
                     {{ else }}{{ .Prompt }}{{ end }}";
        for (template, capabilities, takes) in [
            ("{{ .Prompt }}", &["completion"][..], Takes::Text),
            ("{{.Prompt}}\n", &[], Takes::Text),
            (coder, &["completion", "insert"], Takes::Suffix),
            // Before capabilities were told.
            (coder, &[], Takes::Suffix),
            (
                "{{ range .Messages }}",
                &["completion", "insert"],
                Takes::Suffix,
            ),
            ("<s>{{ .Prompt }}", &["completion"], Takes::Question),
            (
                "{{ range .Messages }}",
                &["completion", "tools"],
                Takes::Question,
            ),
            // Its model has a template of its own, in another language.
            ("", &["completion"], Takes::Question),
        ] {
            let found = shown(template, capabilities).takes();
            assert_eq!(found, takes, "{template} {capabilities:?}");
        }
        assert_eq!(shown("", &[]).own_context(), Some(32_768));
    }

    #[test]
    fn other_answers_are_not_ollamas() {
        // LM Studio has 200 for whatever it does not know.
        for body in [
            "",
            "<html>",
            "[]",
            r#"{"error":"Unexpected endpoint or method."}"#,
        ] {
            assert!(Shown::read(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn the_context_is_that_of_the_loaded_model() {
        let body = br#"{"models":[{"name":"a:7b","model":"a:7b","context_length":8192},
            {"name":"b:latest","model":"b:latest","context_length":4096},
            {"name":"c:1b","model":"c:1b"}]}"#;
        for (model, tokens) in [
            ("a:7b", Some(8_192)),
            ("b", Some(4_096)),
            ("b:latest", Some(4_096)),
            ("a", None),
            ("c:1b", None),
        ] {
            assert_eq!(loaded_context(body, model), tokens, "{model}");
        }
        assert_eq!(loaded_context(b"{}", "a"), None);
    }
}
