//! A session's model by name: not there, on its way, and there.

use std::sync::Arc;

use tandem::backend::local::{LocalBackend, ModelSource, NamedBackend};
use tandem::config::BundleRuntime;
use tandem::config::LocalSettings;
use tandem::inference::{Backend, ErrorKind, Health};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Rig;
use super::hub_api::{Asked, Fault, Repository, StoredFile, What};
use crate::engine::backend::complete;

fn settings() -> LocalSettings {
    LocalSettings {
        context_tokens: 400,
        ..LocalSettings::default()
    }
}

fn open(rig: &Rig, download: bool) -> NamedBackend {
    let open = Box::new(|installed: &tandem::model::Installed| {
        let source = ModelSource::at(&installed.path, BundleRuntime::Auto);
        let backend = LocalBackend::open(source, &settings())?;
        Ok(Arc::new(backend) as Arc<dyn Backend>)
    });
    NamedBackend::open("one", rig.models(), 400, download, open).unwrap()
}

/// A hub whose `tiny.gguf` is a model.
pub async fn rig(decide: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) -> Rig {
    let model = std::fs::read(crate::engine::fixture("qwen3-tiny.gguf")).unwrap();
    let files = vec![StoredFile::large("tiny.gguf", model)];
    Rig::with(vec![Repository::new("o/tiny", files)], decide).await
}

#[tokio::test]
async fn a_model_that_is_not_there_says_how_to_get_it() {
    let rig = rig(|_| None).await;
    let backend = open(&rig, false);
    let Health::Absent { why } = backend.health().borrow().clone() else {
        panic!("not absent")
    };
    assert!(why.contains("tandem model pull one"), "{why}");
    backend.warm_up();
    let answer = backend.generate(complete("a", "", 4), CancellationToken::new());
    let error = answer.collect().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(
        error.to_string().contains("tandem model pull one"),
        "{error}"
    );
    assert!(
        rig.server.seen().is_empty(),
        "nobody said that it may be downloaded"
    );
}

#[tokio::test]
async fn a_model_comes_on_first_need_and_is_loaded() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let rig =
        rig(move |asked| (asked.what == What::Content).then(|| Fault::Gate(Arc::clone(&held))))
            .await;
    let backend = open(&rig, true);
    let mut health = backend.health();
    assert_eq!(*health.borrow(), Health::Unloaded);
    assert!(rig.server.seen().is_empty(), "nothing is needed yet");
    let answer = backend.generate(complete("a", "", 4), CancellationToken::new());
    let error = answer.collect().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let half_way = |health: &Health| matches!(health, Health::Downloading { bytes, total: Some(total) } if *bytes > 0 && bytes < total);
    health.wait_for(half_way).await.unwrap();
    gate.add_permits(1);
    let healthy = |health: &Health| matches!(health, Health::Healthy { .. });
    health.wait_for(healthy).await.unwrap();
    let answer = backend.generate(complete("fn main", "", 4), CancellationToken::new());
    assert!(answer.collect().await.unwrap().finish.usage.prompt_tokens > 0);
    assert_eq!(backend.descriptor().model, "one");

    let again = open(&rig, false);
    assert_eq!(*again.health().borrow(), Health::Unloaded);
    assert_eq!(again.descriptor().model, "one");
    let answer = again.generate(complete("fn main", "", 4), CancellationToken::new());
    answer.collect().await.unwrap();
    assert_eq!(rig.asked(What::Content).len(), 1);
}

#[tokio::test]
async fn a_download_that_fails_is_told() {
    let rig = rig(|_| Some(Fault::Status(404, "RepoNotFound"))).await;
    let backend = open(&rig, true);
    backend.warm_up();
    let mut health = backend.health();
    let failed = |health: &Health| matches!(health, Health::Failed { .. });
    let health = health.wait_for(failed).await.unwrap();
    let told = health.trouble().unwrap();
    assert!(
        told.contains("no such repository") && told.ends_with('.'),
        "{told}"
    );
}
