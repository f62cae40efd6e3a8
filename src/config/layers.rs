//! The levels of the configuration, and what comes of them.
//!
//! A flag wins over a variable, a variable over the editor, the editor over the user's own file, and
//! that over the defaults. Lists add up. Then every project's file takes its part away, always last:
//! no level can give back what a project keeps.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::options::joined;
use super::restricted::{EditorOptions, ProjectMode, ProjectOptions};
use super::{ConfigError, Mode, Options, PrivacySettings, Settings};

/// What one source says.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer<T> {
    /// The source: a file, a variable, a flag.
    pub place: String,
    /// What it says.
    pub options: T,
}

impl<T> Layer<T> {
    /// What `place` says.
    pub fn new(place: impl Into<String>, options: T) -> Self {
        Self {
            place: place.into(),
            options,
        }
    }
}

/// Every level, as read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layers {
    /// From the command line, highest first.
    pub flags: Vec<Layer<Options>>,
    /// From the environment, highest first.
    pub environment: Vec<Layer<Options>>,
    /// What the editor sent.
    pub editor: EditorOptions,
    /// The user's own file.
    pub user: Option<Layer<Options>>,
    /// The files of the projects that are open.
    pub projects: Vec<Layer<ProjectOptions>>,
    /// Levels that cannot be read. While there is one, nothing leaves the machine: what cannot be
    /// read may have said so.
    pub problems: Vec<ConfigError>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody said otherwise.
    Default,
    /// The user's own file.
    UserFile(String),
    /// The editor.
    Editor,
    /// A variable.
    Variable(String),
    /// A flag.
    Flag(String),
    /// A project's file.
    Project(String),
    /// A level cannot be read, so nothing leaves the machine.
    Problem,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::UserFile(place)
            | Self::Variable(place)
            | Self::Flag(place)
            | Self::Project(place) => f.write_str(place),
            Self::Editor => f.write_str("editor"),
            Self::Problem => f.write_str("a level that cannot be read"),
        }
    }
}

/// What a level says of a key for somebody.
struct Key {
    /// The key itself.
    given: bool,
    /// The command that prints it.
    command: bool,
}

/// One key with its value in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The dotted key.
    pub key: String,
    /// Its value as it would be written; `null` where there is none.
    pub value: Value,
    /// Where it comes from; several for a list that adds up.
    pub origins: Vec<Origin>,
}

impl Layers {
    /// What comes of all levels.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let user = self.user_options();
        let merged = self
            .flags
            .iter()
            .chain(&self.environment)
            .map(|layer| layer.options.clone())
            .chain([self.editor.clone().within(&user), user])
            .reduce(Options::over)
            .unwrap_or_default();
        let mut settings = Settings::from(merged);
        for project in &self.projects {
            settings.tighten(&project.options);
        }
        if !self.problems.is_empty() {
            settings.mode = Mode::LocalOnly;
        }
        settings
    }

    /// Every key, its value in force and where that comes from, in alphabetical order. Holds no
    /// secrets: the keys for Claude and the server are not among them.
    #[must_use]
    pub fn explain(&self) -> Vec<Resolved> {
        let user = self.user_options();
        let mut levels = Vec::new();
        for layer in &self.projects {
            let origin = Origin::Project(layer.place.clone());
            levels.push((origin, leaves(&layer.options)));
        }
        for layer in &self.flags {
            levels.push((Origin::Flag(layer.place.clone()), leaves(&layer.options)));
        }
        for layer in &self.environment {
            let origin = Origin::Variable(layer.place.clone());
            levels.push((origin, leaves(&layer.options)));
        }
        // Before the editor: where both say the same, or the editor may not say otherwise, the
        // value is the user's.
        if let Some(layer) = &self.user {
            levels.push((Origin::UserFile(layer.place.clone()), leaves(&user)));
        }
        let editor = self.editor.clone().within(&user);
        levels.push((Origin::Editor, leaves(&editor)));
        let said = leaves(&Options::from(&self.settings()));
        let groups = Options::keys();
        let is_group = |key: &String| {
            let prefix = format!("{key}.");
            groups.iter().any(|other| other.starts_with(&prefix))
        };
        Options::keys()
            .into_iter()
            .filter(|key| !is_group(key))
            .map(|key| {
                let value = said.get(&key).cloned().unwrap_or(Value::Null);
                let value = if value.is_null() && LISTS.contains(&key.as_str()) {
                    Value::Array(Vec::new())
                } else {
                    value
                };
                let origins = self.origins(&key, &value, &levels);
                Resolved {
                    key,
                    value,
                    origins,
                }
            })
            .collect()
    }

    fn origins(
        &self,
        key: &str,
        value: &Value,
        levels: &[(Origin, BTreeMap<String, Value>)],
    ) -> Vec<Origin> {
        if key == "mode" && !self.problems.is_empty() {
            return vec![Origin::Problem];
        }
        let mut origins: Vec<Origin> = levels
            .iter()
            .filter(|(_, said)| {
                said.get(key)
                    .is_some_and(|said| LISTS.contains(&key) || said == value)
            })
            .map(|(origin, _)| origin.clone())
            .collect();
        if !LISTS.contains(&key) {
            origins.truncate(1);
        }
        if origins.is_empty() {
            origins.push(Origin::Default);
        }
        origins
    }

    /// Where the key for Claude comes from; `None` without one.
    #[must_use]
    pub fn key_origin(&self) -> Option<Origin> {
        self.origin_of_key(|options| Key {
            given: options.claude.api_key.is_some(),
            command: options.claude.api_key_command.is_some(),
        })
    }

    /// Where the key for the inference server comes from; `None` without one.
    #[must_use]
    pub fn server_key_origin(&self) -> Option<Origin> {
        self.origin_of_key(|options| Key {
            given: options.server.api_key.is_some(),
            command: options.server.api_key_command.is_some(),
        })
    }

    fn origin_of_key(&self, key: impl Fn(&Options) -> Key) -> Option<Origin> {
        let mut environment = self.environment.iter();
        let given = environment.find(|layer| key(&layer.options).given);
        let user = self.user.iter().find(|layer| key(&layer.options).command);
        given
            .map(|layer| Origin::Variable(layer.place.clone()))
            .or_else(|| user.map(|layer| Origin::UserFile(layer.place.clone())))
    }

    fn user_options(&self) -> Options {
        self.user
            .as_ref()
            .map(|layer| layer.options.clone())
            .unwrap_or_default()
    }
}

impl Settings {
    /// Takes away what a project's file takes away. Never gives anything.
    pub fn tighten(&mut self, project: &ProjectOptions) {
        if let Some(ProjectMode::LocalOnly) = project.mode {
            self.mode = Mode::LocalOnly;
        }
        if project.server.automatic_completions.is_some() {
            self.server.automatic_completions = false;
        }
        if project.claude.automatic_completions.is_some() {
            self.claude.automatic_completions = false;
        }
        if let Some(cap) = project.claude.daily_spend_cap_usd {
            self.claude.daily_spend_cap_usd = self.claude.daily_spend_cap_usd.min(cap.get());
        }
        let completion = &mut self.completion;
        completion.enabled &= project.completion.enabled.is_none();
        completion.automatic &= project.completion.automatic.is_none();
        completion.next_edit &= project.completion.next_edit.is_none();
        completion.languages_off = joined(
            project.completion.languages_off.clone(),
            std::mem::take(&mut completion.languages_off),
        );
        let texts = |globs: &[super::texts::PathGlob]| {
            globs
                .iter()
                .cloned()
                .map(super::texts::PathGlob::into_string)
                .collect()
        };
        completion.paths_off = joined(
            texts(&project.completion.paths_off),
            std::mem::take(&mut completion.paths_off),
        );
        let privacy: &mut PrivacySettings = &mut self.privacy;
        privacy.deny = joined(
            texts(&project.privacy.deny),
            std::mem::take(&mut privacy.deny),
        );
        privacy.allow_git_ignored &= project.privacy.allow_git_ignored.is_none();
        privacy.allow_secrets &= project.privacy.allow_secrets.is_none();
    }
}

/// The lists that add up. They are left out where they are empty.
pub(super) const LISTS: [&str; 4] = [
    "local.catalogue",
    "completion.languages_off",
    "completion.paths_off",
    "privacy.deny",
];

/// Every value that is said, by its dotted key.
pub(super) fn leaves(options: &impl Serialize) -> BTreeMap<String, Value> {
    fn walk(value: Value, prefix: &str, leaves: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    let key = if prefix.is_empty() {
                        name
                    } else {
                        format!("{prefix}.{name}")
                    };
                    walk(value, &key, leaves);
                }
            }
            value => {
                leaves.insert(prefix.to_owned(), value);
            }
        }
    }
    let mut all = BTreeMap::new();
    // Options hold numbers, texts, lists and structs, all of which JSON has; a path that is not
    // UTF-8 cannot be written and is shown as none.
    if let Ok(value) = serde_json::to_value(options) {
        walk(value, "", &mut all);
    }
    all
}
