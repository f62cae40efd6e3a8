//! How each server is started, configured and asked: ours, lsp-ai and llm-ls.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::corpus::Keystroke;
use crate::mock::Mock;

/// Characters of prompt that both peers are allowed: llm-ls counts characters where it has no
/// tokenizer, lsp-ai estimates four to a token.
const PROMPT_CHARACTERS: usize = 4096;

/// A language server that completes code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Server {
    /// Ours.
    Tandem,
    /// <https://github.com/SilasMarvin/lsp-ai>.
    LspAi,
    /// <https://github.com/huggingface/llm-ls>.
    LlmLs,
}

impl Server {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tandem => "tandem",
            Self::LspAi => "lsp-ai",
            Self::LlmLs => "llm-ls",
        }
    }

    /// The variable of the environment that says where its program is.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Tandem => "TANDEM_BIN",
            Self::LspAi => "LSP_AI_BIN",
            Self::LlmLs => "LLM_LS_BIN",
        }
    }

    /// Its program, where it is known.
    pub fn program(self) -> Option<PathBuf> {
        let named = std::env::var_os(self.variable()).map(PathBuf::from);
        match self {
            Self::Tandem => named.or_else(|| Some(env!("CARGO_BIN_EXE_tandem").into())),
            Self::LspAi | Self::LlmLs => named,
        }
    }

    /// The command that starts it with `home` for all it keeps, set up to ask `mock` at once for
    /// every keystroke.
    pub fn command(self, program: &Path, home: &Path, mock: &Mock) -> Command {
        let mut command = alone(program, home);
        match self {
            Self::Tandem => {
                // Every keystroke is answered at once, by what stands in for Claude.
                command
                    .arg("lsp")
                    .env("ANTHROPIC_API_KEY", "not-a-key")
                    .env("ANTHROPIC_BASE_URL", format!("http://{}", mock.address))
                    .env("TANDEM_MODE", "claude-only")
                    .env("TANDEM_CLAUDE_AUTOMATIC_COMPLETIONS", "true")
                    .env("TANDEM_COMPLETION_DEBOUNCE", "0");
            }
            Self::LspAi => {
                command.env("LSP_AI_LOG", "error");
            }
            Self::LlmLs => {}
        }
        command
    }

    /// `initializationOptions`.
    pub fn options(self, mock: &Mock) -> Value {
        match self {
            Self::Tandem | Self::LlmLs => Value::Null,
            Self::LspAi => json!({
                "memory": {"file_store": {}},
                "models": {"mock": {
                    "type": "ollama",
                    "model": "mock",
                    "generate_endpoint": format!("http://{}/api/generate", mock.address),
                    // The default is one request a second.
                    "max_requests_per_second": 1e6,
                }},
                "completion": {"model": "mock", "parameters": {
                    "max_context": PROMPT_CHARACTERS / 4,
                    "options": {"num_predict": 64},
                    "fim": {"start": "<|fim_prefix|>", "middle": "<|fim_suffix|>", "end": "<|fim_middle|>"},
                }},
            }),
        }
    }

    /// The request for a completion after `keystroke`.
    pub fn completion(
        self,
        uri: &str,
        keystroke: &Keystroke,
        mock: &Mock,
    ) -> (&'static str, Value) {
        let document = json!({"uri": uri});
        let position = json!({"line": keystroke.line, "character": keystroke.column});
        match self {
            Self::Tandem => inline_completion(uri, keystroke),
            Self::LspAi => (
                "textDocument/completion",
                json!({"textDocument": document, "position": position}),
            ),
            Self::LlmLs => (
                "llm-ls/getCompletions",
                json!({
                    "textDocument": document,
                    "position": position,
                    "model": "mock",
                    "backend": "ollama",
                    "url": format!("http://{}", mock.address),
                    "fim": {
                        "enabled": true,
                        "prefix": "<|fim_prefix|>",
                        "suffix": "<|fim_suffix|>",
                        "middle": "<|fim_middle|>",
                    },
                    "tokensToClear": [],
                    "contextWindow": PROMPT_CHARACTERS,
                    "tlsSkipVerifyInsecure": false,
                    "requestBody": {"options": {"num_predict": 64}},
                }),
            ),
        }
    }

    /// Checks that an answer offers what the model said.
    pub fn check(self, result: &Value) -> anyhow::Result<()> {
        let text = match self {
            Self::Tandem => {
                let items = result.get("items").unwrap_or(result);
                items[0]["insertText"].as_str()
            }
            Self::LspAi => result["items"][0]["textEdit"]["newText"].as_str(),
            Self::LlmLs => result["completions"][0]["generated_text"].as_str(),
        };
        let text = text.with_context(|| format!("{} offered nothing: {result}", self.name()))?;
        if !text.contains("wrapping_mul") {
            bail!("{} offered {text:?}", self.name());
        }
        Ok(())
    }
}

/// The command of `program` with `home` for all it keeps. Nothing of this machine's owner takes
/// part: no configuration, no key, no cache.
pub fn alone(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .current_dir(home);
    command
}

/// The standard's request, as an editor sends it while its user types.
pub fn inline_completion(uri: &str, keystroke: &Keystroke) -> (&'static str, Value) {
    let params = json!({
        "textDocument": {"uri": uri},
        "position": {"line": keystroke.line, "character": keystroke.column},
        "context": {"triggerKind": 2},
    });
    ("textDocument/inlineCompletion", params)
}
