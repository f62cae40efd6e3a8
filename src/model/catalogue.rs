//! The catalogue: which models there are by name, as data, with what is known about their files.

use std::fmt;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{ModelError, ModelErrorKind};
use super::names;

/// What is inside the program.
const BUILT_IN: &str = include_str!("catalogue.yaml");

/// A catalogue is written by hand; more than this is something else.
const LARGEST_BYTES: usize = 1 << 20;

/// A list of models.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// The models; a name stands once.
    pub models: Vec<Entry>,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The name on the command line and in `local.model`: lower-case letters, digits, `-`, `.`, `_`.
    pub id: String,
    /// The name for people.
    pub title: String,
    /// The form of its files.
    pub kind: Kind,
    /// Owner and name of the repository on the hub.
    pub repository: String,
    /// A commit of 40 digits, which is fixed for good; or a branch or tag, which is looked up when
    /// the model is pulled for the first time and fixed from then on.
    pub revision: String,
    /// The files, where their names are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
    /// Globs of the repository's files, where their names are not known. `*` stays in its folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// The licence of the files, as an SPDX expression; left out where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// How a conversation is written down for it.
    pub template: Template,
    /// Prompt and answer together, in tokens.
    pub context_tokens: usize,
    /// What it is fit for.
    pub tasks: Vec<Fitness>,
    /// Memory that must be free for it, in MiB.
    pub memory_mib: u64,
    /// What it is known to answer, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub golden: Option<Golden>,
}

/// The form of a model's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A folder of Core ML components, made by ANEMLL.
    Anemll,
    /// One GGUF file.
    Gguf,
    /// A folder with safetensors, tokenizer and configuration.
    Safetensors,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its path in the repository.
    pub path: String,
    /// Its size, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Its SHA-256 in hexadecimal, where it is known; else the hub's own is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// How a conversation is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Template {
    /// ChatML, with a place for thoughts that is left empty.
    Qwen3,
    /// ChatML.
    Qwen2,
}

/// What a model is fit for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fitness {
    /// Filling in code between a prefix and a suffix.
    Complete,
    /// Conversations.
    Chat,
    /// Rewriting code.
    Edit,
}

/// What a model is known to answer, greedily: a self-test that needs no judgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// The text before.
    pub prompt: String,
    /// The text it continues with.
    pub answer: String,
}

impl Catalogue {
    /// The models that the program knows by itself.
    ///
    /// # Errors
    /// None: a test reads it.
    pub fn built_in() -> Result<Self, ModelError> {
        Self::from_yaml(BUILT_IN, "the built-in catalogue")
    }

    /// Reads a catalogue.
    ///
    /// # Errors
    /// [`ModelErrorKind::Malformed`], naming `place` and what is wrong.
    pub fn from_yaml(text: &str, place: &str) -> Result<Self, ModelError> {
        if text.len() > LARGEST_BYTES {
            return Err(ModelError::malformed(place, "larger than 1 MiB"));
        }
        let catalogue: Self =
            serde_yaml::from_str(text).map_err(|error| ModelError::malformed(place, error))?;
        for (index, entry) in catalogue.models.iter().enumerate() {
            entry.check().map_err(|what| {
                ModelError::malformed(place, format_args!("model `{}`: {what}", entry.id))
            })?;
            if catalogue.models[..index]
                .iter()
                .any(|other| other.id == entry.id)
            {
                let what = format_args!("two models are called `{}`", entry.id);
                return Err(ModelError::malformed(place, what));
            }
        }
        Ok(catalogue)
    }

    /// These models and those of `other`, which wins where both have a name.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        for entry in other.models {
            match self.models.iter_mut().find(|known| known.id == entry.id) {
                Some(known) => *known = entry,
                None => self.models.push(entry),
            }
        }
        self
    }

    /// The model of this name.
    ///
    /// # Errors
    /// [`ModelErrorKind::Unknown`], with the nearest name.
    pub fn find(&self, id: &str) -> Result<&Entry, ModelError> {
        if let Some(entry) = self.models.iter().find(|entry| entry.id == id) {
            return Ok(entry);
        }
        let nearest = self
            .models
            .iter()
            .map(|entry| (strsim::jaro_winkler(&entry.id, id), &entry.id))
            .filter(|(likeness, _)| *likeness > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let next_step = match nearest {
            Some((_, id)) => format!("Did you mean `{id}`? `tandem model list` shows all."),
            None => "`tandem model list` shows those there are.".to_owned(),
        };
        Err(ModelError::new(
            ModelErrorKind::Unknown,
            format!("no model is called `{}`", id.escape_debug()),
            next_step,
        ))
    }
}

impl Entry {
    /// Its size, where the catalogue knows all of it.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        if self.include.is_empty() {
            self.files.iter().map(|file| file.bytes).sum()
        } else {
            None
        }
    }

    /// Whether a file of the repository belongs to it.
    ///
    /// # Errors
    /// None for an entry that was read.
    pub(super) fn included(&self) -> Result<GlobSet, ModelError> {
        let globs = || {
            let mut set = GlobSetBuilder::new();
            for glob in &self.include {
                set.add(GlobBuilder::new(glob).literal_separator(true).build()?);
            }
            set.build()
        };
        globs().map_err(|error| ModelError::malformed(&self.id, error))
    }

    fn check(&self) -> Result<(), String> {
        let Self {
            id,
            repository,
            revision,
            files,
            include,
            context_tokens,
            ..
        } = self;
        let sound = [
            (names::is_id(id), "its id is not of the form `qwen3-0.6b`"),
            (
                names::is_repository(repository),
                "its repository is not of the form `owner/name`",
            ),
            (
                names::is_revision(revision),
                "its revision is no commit, branch or tag",
            ),
            (
                files.is_empty() != include.is_empty(),
                "it needs either `files` or `include`",
            ),
            (
                *context_tokens > 0 && *context_tokens <= 1 << 20,
                "its context is not between 1 and 1,048,576 tokens",
            ),
            (
                self.included().is_ok(),
                "a glob in `include` makes no sense",
            ),
            (
                self.kind != Kind::Gguf || files.len() == 1,
                "a GGUF model has one file",
            ),
        ];
        if let Some((_, what)) = sound.iter().find(|(sound, _)| !sound) {
            return Err((*what).to_owned());
        }
        for (index, file) in files.iter().enumerate() {
            if names::file_path(&file.path).is_none() {
                return Err(format!(
                    "`{}` is no path of a file",
                    file.path.escape_debug()
                ));
            }
            if !file.sha256.as_deref().is_none_or(names::is_sha256) {
                return Err(format!("the SHA-256 of `{}` is none", file.path));
            }
            if files[..index].iter().any(|other| other.path == file.path) {
                return Err(format!("`{}` stands twice", file.path));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anemll => "anemll",
            Self::Gguf => "gguf",
            Self::Safetensors => "safetensors",
        })
    }
}

/// The schema of a catalogue.
#[must_use]
pub fn catalogue_schema() -> Value {
    let mut settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    settings
        .into_generator()
        .into_root_schema_for::<Catalogue>()
        .to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalogue_is_sound_and_invents_nothing() {
        let catalogue = Catalogue::built_in().unwrap();
        assert!(catalogue.models.len() >= 5);
        for entry in &catalogue.models {
            let pinned = names::is_commit(&entry.revision);
            for file in &entry.files {
                assert_eq!(file.sha256.is_some(), pinned, "{}", entry.id);
                assert_eq!(file.bytes.is_some(), pinned, "{}", entry.id);
            }
        }
        let seed = catalogue.find("qwen3-0.6b-ane").unwrap();
        assert_eq!(
            seed.repository,
            "anemll/anemll-Qwen-Qwen3-0.6B-ctx512_0.3.4"
        );
        let included = seed.included().unwrap();
        for (path, expected) in [
            ("meta.yaml", true),
            ("tokenizer.json", true),
            ("qwen_embeddings.mlmodelc/weights/weight.bin", true),
            ("qwen_lm_head.mlmodelc.zip", true),
            ("chat.py", false),
            (".DS_Store", false),
            ("old/meta.yaml", false),
        ] {
            assert_eq!(included.is_match(path), expected, "{path}");
        }
    }

    fn one(more: &str) -> String {
        format!(
            "models:\n- id: a\n  title: A\n  kind: gguf\n  repository: o/n\n  revision: main\n  \
             template: qwen3\n  context_tokens: 512\n  tasks: [chat]\n  memory_mib: 1\n{more}"
        )
    }

    #[test]
    fn a_catalogue_that_makes_no_sense_is_refused_by_name() {
        let good = one("  files: [{path: a.gguf}]\n");
        assert_eq!(Catalogue::from_yaml(&good, "mine").unwrap().models.len(), 1);
        for (text, expected) in [
            (one(""), "either `files` or `include`"),
            (one("  files: [{path: ../a.gguf}]\n"), "no path of a file"),
            (one("  files: [{path: a.gguf, sha256: 12}]\n"), "mine: "),
            (one("  files: [{path: a.gguf, sha256: '12'}]\n"), "SHA-256"),
            (
                one("  files: [{path: a.gguf}, {path: b.gguf}]\n"),
                "one file",
            ),
            (one("  files: [{path: a.gguf}]\n  colour: red\n"), "colour"),
            (good.replace("id: a", "id: ../a"), "its id"),
            (good.replace("o/n", "o/n/../x"), "its repository"),
            (good.replace("main", "../main"), "its revision"),
            (good.replace("512", "0"), "its context"),
            (
                format!("{good}{}", good.replace("models:\n", "")),
                "two models",
            ),
            ("x".repeat(2 << 20), "1 MiB"),
            (String::new(), "mine: "),
        ] {
            let error = Catalogue::from_yaml(&text, "mine").unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn the_users_own_models_win() {
        let mine = one("  files: [{path: a.gguf}]\n").replace("id: a", "id: qwen3-0.6b");
        let mine = Catalogue::from_yaml(&mine, "mine").unwrap();
        let all = Catalogue::built_in().unwrap().with(mine);
        assert_eq!(all.find("qwen3-0.6b").unwrap().title, "A");
        let error = all.find("qwen3-0.6").unwrap_err();
        assert_eq!(error.kind, ModelErrorKind::Unknown);
        assert!(error.to_string().contains("`qwen3-0.6b`?"), "{error}");
    }
}
