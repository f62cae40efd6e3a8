//! What those may say who are not the user: a project's file, which can only tighten, and the
//! editor, whose settings may come out of a project too.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decode::{self, Refusal};
use super::document::Node;
use super::options::{CompletionOptions, LogOptions, Options, PrivacyOptions};
use super::texts::{LogFilter, ModelName, PathGlob};
use super::values::{Count, Dollars, Off};
use super::{ClaudeOptions, ConfigError, Mode, ServerOptions};

/// The configuration of one project, `.tandem.yaml` at its root. It can only take away: what it
/// cannot say, its types do not have.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProjectOptions {
    /// `local-only`: nothing of this project leaves the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ProjectMode>,
    /// The user's inference server.
    pub server: ProjectServerOptions,
    /// Claude.
    pub claude: ProjectClaudeOptions,
    /// Code completion.
    pub completion: ProjectCompletionOptions,
    /// What may leave the machine.
    pub privacy: TighterPrivacy,
}

/// The one mode that a project can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProjectMode {
    /// Nothing leaves the machine.
    LocalOnly,
}

/// The user's inference server, in one project.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProjectServerOptions {
    /// `false`: completions that start by themselves while typing do not go there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatic_completions: Option<Off>,
}

/// Claude, in one project.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProjectClaudeOptions {
    /// `false`: completions that start by themselves while typing do not go to Claude.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatic_completions: Option<Off>,
    /// The most that may be spent in one day, in US dollars, where that is less than the user's cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily_spend_cap_usd: Option<Dollars>,
}

/// Code completion, in one project.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProjectCompletionOptions {
    /// `false`: no completions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<Off>,
    /// `false`: no completions while typing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatic: Option<Off>,
    /// `false`: the next edit is not proposed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_edit: Option<Off>,
    /// Languages, by LSP identifier, in which nothing is offered, besides the user's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub languages_off: Vec<String>,
    /// Paths, as globs, in which nothing is offered, besides the user's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths_off: Vec<PathGlob>,
}

/// What may leave the machine: less than before, never more.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TighterPrivacy {
    /// Paths, as globs, that never leave the machine, besides those denied already.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<PathGlob>,
    /// `false`: files that git ignores do not leave the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_git_ignored: Option<Off>,
    /// `false`: text in which a secret is recognised does not leave the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_secrets: Option<Off>,
}

/// What an editor may say (`initializationOptions`, `workspace/configuration`).
///
/// Most editors mix a project's own settings into what they send, so this has no programs, keys,
/// addresses, model files or log files, and its privacy can only tighten.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EditorOptions {
    /// Which backends may answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Your inference server.
    pub server: EditorServerOptions,
    /// Claude.
    pub claude: EditorClaudeOptions,
    /// Code completion.
    pub completion: CompletionOptions,
    /// What may leave the machine.
    pub privacy: TighterPrivacy,
    /// Logs.
    pub log: EditorLogOptions,
    /// Belongs to the editor's own client (VS Code keeps `trace.server` here) and means nothing to us.
    #[serde(skip_serializing)]
    pub trace: Option<serde_json::Value>,
}

/// The user's inference server, as the editor may set it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EditorServerOptions {
    /// `false`: completions that start by themselves while typing do not go to your inference server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatic_completions: Option<Off>,
}

/// Claude, as the editor may set it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EditorClaudeOptions {
    /// The model for completions and light work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast_model: Option<ModelName>,
    /// The model for heavy work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strong_model: Option<ModelName>,
    /// Whether completions that start by themselves while typing may go to Claude.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatic_completions: Option<bool>,
    /// The most that may be spent in one day (UTC), in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily_spend_cap_usd: Option<Dollars>,
    /// The longest answer to heavy work, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<Count<1, 128_000>>,
}

/// Logs, as the editor may set them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EditorLogOptions {
    /// What is logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<LogFilter>,
}

impl ProjectOptions {
    /// Reads a project's file.
    ///
    /// # Errors
    /// Every mistake, in order: each names the file, the line, the key and the next step; a key that
    /// only the user may set says so. What is no YAML is one mistake.
    pub fn from_yaml(text: &str, place: &str) -> Result<Self, Vec<ConfigError>> {
        let refusal = Refusal {
            elsewhere: Options::keys,
            why: "is not for a project's file to say, which can only tighten what the user allows",
            next_step: "Remove it here; `tandem config path` says where your own file is.",
        };
        decode::yaml(text, place, &refusal)
    }
}

impl EditorOptions {
    /// Reads what an editor sent; `null` says nothing.
    ///
    /// # Errors
    /// Every mistake: each names the key and the next step; a key that only the user's own file may hold
    /// says so.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, Vec<ConfigError>> {
        let refusal = Refusal {
            elsewhere: Options::keys,
            why: "is not for the editor's settings to say, which may come out of a project",
            next_step: "Write it in your own file (`tandem config path` says where that is), or \
                        start `tandem` with `--set`.",
        };
        decode::decode(Node::from_json(json), "the editor's settings", &refusal)
    }

    /// The same as options, less what would loosen what `user` says in so many words about what
    /// leaves the machine.
    #[must_use]
    pub fn within(self, user: &Options) -> Options {
        let mode = match user.mode {
            Some(Mode::LocalOnly) => Some(Mode::LocalOnly),
            Some(Mode::Auto | Mode::ClaudeOnly) | None => self.mode,
        };
        let automatic_completions = match user.claude.automatic_completions {
            Some(false) => Some(false),
            Some(true) | None => self.claude.automatic_completions,
        };
        let daily_spend_cap_usd = match (
            self.claude.daily_spend_cap_usd,
            user.claude.daily_spend_cap_usd,
        ) {
            (Some(here), Some(user)) => Some(Dollars::from(here.get().min(user.get()))),
            (here, _) => here,
        };
        let off = |switch: Option<Off>| switch.map(|Off| false);
        Options {
            mode,
            server: ServerOptions {
                automatic_completions: off(self.server.automatic_completions),
                ..ServerOptions::default()
            },
            claude: ClaudeOptions {
                fast_model: self.claude.fast_model,
                strong_model: self.claude.strong_model,
                automatic_completions,
                daily_spend_cap_usd,
                max_tokens: self.claude.max_tokens,
                ..ClaudeOptions::default()
            },
            completion: self.completion,
            privacy: PrivacyOptions {
                deny: self.privacy.deny,
                allow_git_ignored: off(self.privacy.allow_git_ignored),
                allow_secrets: off(self.privacy.allow_secrets),
            },
            log: LogOptions {
                filter: self.log.filter,
                file: None,
            },
            ..Options::default()
        }
    }
}
