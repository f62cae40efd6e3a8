//! Tests: models by name, pulled from a server that stands in for the hub and can be told to fail.

mod clients;
mod commands;
mod faults;
#[path = "../clients/hub/hub_api/mod.rs"]
mod hub_api;
mod pull;
mod session;

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use tandem::config::LocalSettings;
use tandem::model::{self, HubEnvironment, Installed, Limits, ModelError, Models, Step, Token};
use tempfile::TempDir;

use self::hub_api::{Asked, Fault, HubStandIn, Repository, Seen, StoredFile, What};

const TOKEN: &str = "hf_it_4b1f09";

/// Nothing here is worth a wait, and a loaded machine is no silent one.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(10),
    idle: Duration::from_secs(20),
    retries: 2,
    first_pause: Duration::from_millis(1),
    longest_pause: Duration::from_secs(1),
};

/// A hub, and a home folder for the models that come from it.
struct Rig {
    server: HubStandIn,
    home: TempDir,
    environment: HubEnvironment,
    limits: Limits,
    /// The user's own catalogue.
    catalogue: String,
}

impl Rig {
    async fn new(decide: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) -> Self {
        Self::with(vec![tiny()], decide).await
    }

    async fn with(
        repositories: Vec<Repository>,
        decide: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        let server = HubStandIn::serve(0, repositories, Some(TOKEN), decide)
            .await
            .unwrap();
        let home = tempfile::tempdir().unwrap();
        let environment = HubEnvironment {
            endpoint: Some(server.endpoint()),
            token: Token::new(TOKEN),
            offline: false,
            cache: Some(home.path().join("hub")),
        };
        Self {
            server,
            home,
            environment,
            limits: LIMITS,
            catalogue: catalogue(),
        }
    }

    fn models(&self) -> Models {
        let file = self.home.path().join("mine.yaml");
        std::fs::write(&file, &self.catalogue).unwrap();
        let settings = LocalSettings {
            catalogue: vec![file],
            ..LocalSettings::default()
        };
        Models::open(
            self.home.path(),
            self.environment.clone(),
            &settings,
            self.limits,
        )
        .unwrap()
    }

    async fn pull(&self, id: &str) -> Result<Installed, ModelError> {
        self.pull_told(id).await.0
    }

    async fn pull_told(&self, id: &str) -> (Result<Installed, ModelError>, Vec<Step>) {
        let models = self.models();
        let steps = Mutex::new(Vec::new());
        let entry = models.catalogue.find(id).unwrap();
        let told = |step| steps.lock().unwrap().push(step);
        let outcome = model::pull(&models.store, &models.hub, entry, &told).await;
        (outcome, steps.into_inner().unwrap())
    }

    fn asked(&self, what: What) -> Vec<Seen> {
        let seen = self.server.seen().into_iter();
        seen.filter(|seen| seen.what == what).collect()
    }

    /// Nothing that is half a model counts as one, and no file outside the folder was touched.
    fn nothing_counts(&self, id: &str) {
        let models = self.models();
        assert_eq!(models.store.installed(id), Ok(None));
        assert!(models.store.ids().is_empty());
        assert!(models.store.verify(id).is_err());
    }

    fn model_folder(&self, id: &str) -> PathBuf {
        self.home.path().join("models").join(id)
    }
}

fn weights() -> Vec<u8> {
    (0..200_000_u32)
        .map(|at| (at.wrapping_mul(at) >> 5) as u8)
        .collect()
}

/// A repository with files of both kinds, in folders, with names that need escapes.
fn tiny() -> Repository {
    Repository::new(
        "o/tiny",
        vec![
            StoredFile::small("config.json", "{}\n"),
            StoredFile::small("notes 100% #1.json", "{\"a\": 1}\n"),
            StoredFile::small("empty.json", ""),
            StoredFile::small("chat.py", "not asked for\n"),
            StoredFile::large("tiny.gguf", weights()),
            StoredFile::large("x.mlmodelc/weights/weight.bin", &weights()[..50_000]),
        ],
    )
}

/// `one`: a file by name. `pinned`: the same with all that can be known. `folder`: by globs.
fn catalogue() -> String {
    let tiny = tiny();
    let file = tiny
        .files
        .iter()
        .find(|file| file.path == "tiny.gguf")
        .unwrap();
    let mut text = "models:\n".to_owned();
    for (id, kind, revision, files) in [
        (
            "one",
            "gguf",
            "main",
            "files: [{path: tiny.gguf}]".to_owned(),
        ),
        (
            "pinned",
            "gguf",
            tiny.commit.as_str(),
            format!(
                "files: [{{path: tiny.gguf, bytes: {}, sha256: {}}}]",
                file.content.len(),
                file.sha256()
            ),
        ),
        (
            "folder",
            "anemll",
            "main",
            "include: ['*.json', 'x.mlmodelc/**']".to_owned(),
        ),
    ] {
        use std::fmt::Write as _;
        let _ = writeln!(
            text,
            "- {{id: {id}, title: A, kind: {kind}, repository: o/tiny, revision: {revision}, {files}, \
             template: qwen3, context_tokens: 512, tasks: [chat], memory_mib: 1}}"
        );
    }
    text
}
