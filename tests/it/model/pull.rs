//! Pulling: what comes, what is asked for it, and what is not.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tandem::model::{self, ModelErrorKind, State, Step};
use tokio::sync::Semaphore;

use super::hub_api::{Fault, Repository, StoredFile, What};
use super::{Rig, TOKEN, tiny, weights};

#[tokio::test]
async fn a_folder_comes_whole_and_once() {
    let rig = Rig::new(|_| None).await;
    let (installed, steps) = rig.pull_told("folder").await;
    let installed = installed.unwrap();
    let tiny = tiny();
    assert_eq!(installed.manifest.commit, tiny.commit);
    for file in &tiny.files {
        let path = installed.path.join(&file.path);
        let expected = file.path != "chat.py" && file.path != "tiny.gguf";
        assert_eq!(path.exists(), expected, "{}", file.path);
        if expected {
            assert_eq!(fs::read(path).unwrap(), file.content, "{}", file.path);
            let kept = installed
                .manifest
                .files
                .iter()
                .find(|kept| kept.path == file.path);
            assert_eq!(kept.unwrap().sha256, file.sha256());
        }
    }
    let total = installed.manifest.files.iter().map(|file| file.bytes).sum();
    assert_eq!(steps.first(), Some(&Step::Started { total }));
    assert_eq!(steps.last(), Some(&Step::Advanced { done: total }));
    let mut last = 0;
    for step in &steps[1..] {
        let Step::Advanced { done } = step else {
            panic!("{step:?}")
        };
        assert!(
            (last..=total).contains(done),
            "{done} after {last} of {total}"
        );
        last = *done;
    }

    let before = rig.server.seen().len();
    assert_eq!(rig.pull("folder").await.unwrap(), installed);
    assert_eq!(rig.server.seen().len(), before, "nothing was asked again");
    let models = rig.models();
    let entry = models.catalogue.find("folder").unwrap();
    assert_eq!(
        model::state(&models.store, &models.hub, entry),
        State::Installed(installed)
    );
}

#[tokio::test]
async fn a_pinned_file_is_fetched_without_a_question() {
    let rig = Rig::new(|_| None).await;
    let installed = rig.pull("pinned").await.unwrap();
    assert!(installed.path.ends_with("tiny.gguf"));
    assert_eq!(fs::read(&installed.path).unwrap(), weights());
    assert!(rig.asked(What::Description).is_empty());
    assert_eq!(rig.asked(What::File).len(), 1);
}

#[tokio::test]
async fn the_token_goes_to_the_hub_and_nowhere_else() {
    let rig = Rig::new(|_| None).await;
    rig.pull("folder").await.unwrap();
    let token = format!("Bearer {TOKEN}");
    let mut content = 0;
    for seen in rig.server.seen() {
        let sent = seen.request.header("authorization");
        if seen.what == What::Content {
            assert_eq!(sent, None);
            content += 1;
        } else {
            assert_eq!(sent, Some(token.as_str()), "{}", seen.request.target);
        }
    }
    assert!(content > 0);
    assert!(!format!("{:?}", rig.environment).contains(TOKEN));
}

#[tokio::test]
async fn a_file_that_would_leave_the_folder_is_refused() {
    for path in [
        "x.mlmodelc/../../../evil.json",
        "/evil.json",
        "x.mlmodelc/nul",
        "a\\..\\b.json",
    ] {
        let files = vec![
            StoredFile::small("config.json", "{}"),
            StoredFile::small(path, "evil"),
        ];
        let rig = Rig::with(vec![Repository::new("o/tiny", files)], |_| None).await;
        let mut rig = rig;
        rig.catalogue = rig.catalogue.replace("'*.json'", "'**'");
        let error = rig.pull("folder").await.unwrap_err();
        assert_eq!(error.kind, ModelErrorKind::Malformed, "{path}: {error}");
        rig.nothing_counts("folder");
        assert!(!rig.home.path().join("evil.json").exists());
    }
}

#[tokio::test]
async fn of_two_who_pull_one_works_and_the_other_waits() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let rig = Rig::new(move |asked| {
        (asked.what == What::Content).then(|| Fault::Gate(Arc::clone(&held)))
    })
    .await;
    let models = rig.models();
    let entry = models.catalogue.find("one").unwrap();
    // Opens once the other has been seen to wait.
    let told = |step| {
        if step == Step::Waiting {
            gate.add_permits(1);
        }
    };
    let (first, second) = tokio::join!(
        model::pull(&models.store, &models.hub, entry, &told),
        model::pull(&models.store, &models.hub, entry, &told),
    );
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(rig.asked(What::Content).len(), 1);
}

#[tokio::test]
async fn a_pull_that_was_dropped_goes_on_where_it_was() {
    let rig = Rig::new(|asked| {
        let first = asked.what == What::Content && asked.before == 0;
        first.then(|| Fault::Gate(Arc::new(Semaphore::new(0))))
    })
    .await;
    let models = rig.models();
    let entry = models.catalogue.find("one").unwrap();
    let half = weights().len() as u64 / 2;
    let arrived = Arc::new(tokio::sync::Notify::new());
    let notify = Arc::clone(&arrived);
    let told = move |step| {
        if step == (Step::Advanced { done: half }) {
            notify.notify_one();
        }
    };
    tokio::select! {
        outcome = model::pull(&models.store, &models.hub, entry, &told) => panic!("{outcome:?}"),
        () = arrived.notified() => {}
    }
    rig.nothing_counts("one");
    assert_eq!(
        model::state(&models.store, &models.hub, entry),
        State::Unfinished { bytes: half }
    );
    let installed = rig.pull("one").await.unwrap();
    assert_eq!(fs::read(&installed.path).unwrap(), weights());
    let ranges: Vec<_> = rig
        .asked(What::Content)
        .iter()
        .map(|seen| seen.request.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges, [None, Some(format!("bytes={half}-"))]);
}

/// The layout of huggingface_hub's cache, links left out: tools on Windows write it so, too.
fn cache(hub: &Path, content: &[u8]) {
    let tiny = tiny();
    let folder = hub.join("models--o--tiny");
    let snapshot = folder.join("snapshots").join(&tiny.commit);
    fs::create_dir_all(folder.join("refs")).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(folder.join("refs").join("main"), &tiny.commit).unwrap();
    fs::write(snapshot.join("tiny.gguf"), content).unwrap();
}

#[tokio::test]
async fn what_the_cache_has_is_not_downloaded_again() {
    let mut rig = Rig::new(|_| None).await;
    rig.environment.offline = true;
    let error = rig.pull("pinned").await.unwrap_err();
    assert_eq!(error.kind, ModelErrorKind::Offline);
    cache(&rig.home.path().join("hub"), &weights());
    let models = rig.models();
    let entry = models.catalogue.find("pinned").unwrap();
    assert_eq!(
        model::state(&models.store, &models.hub, entry),
        State::Cached
    );
    let installed = rig.pull("pinned").await.unwrap();
    assert_eq!(fs::read(&installed.path).unwrap(), weights());
    assert!(rig.server.seen().is_empty());
    // The cache may go: the model stays.
    fs::remove_dir_all(rig.home.path().join("hub")).unwrap();
    assert!(models.store.verify("pinned").is_ok());
}

#[tokio::test]
async fn a_cached_file_with_another_content_is_not_believed() {
    let mut wrong = weights();
    wrong[7] ^= 1;
    let rig = Rig::new(|_| None).await;
    cache(&rig.home.path().join("hub"), &wrong);
    let installed = rig.pull("pinned").await.unwrap();
    assert_eq!(fs::read(&installed.path).unwrap(), weights());
    assert_eq!(rig.asked(What::Content).len(), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn a_linked_cache_gives_a_branch_its_commit_and_hashes() {
    let mut rig = Rig::new(|_| None).await;
    rig.environment.offline = true;
    let hub = rig.home.path().join("hub");
    cache(&hub, b"");
    let tiny = tiny();
    let file = tiny
        .files
        .iter()
        .find(|file| file.path == "tiny.gguf")
        .unwrap();
    let folder = hub.join("models--o--tiny");
    fs::create_dir_all(folder.join("blobs")).unwrap();
    fs::write(folder.join("blobs").join(file.sha256()), &file.content).unwrap();
    let link = folder
        .join("snapshots")
        .join(&tiny.commit)
        .join("tiny.gguf");
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(format!("../../blobs/{}", file.sha256()), link).unwrap();
    let installed = rig.pull("one").await.unwrap();
    assert_eq!(installed.manifest.commit, tiny.commit);
    assert_eq!(fs::read(&installed.path).unwrap(), weights());
}

#[tokio::test]
async fn a_damaged_model_is_told_and_mended() {
    let rig = Rig::new(|_| None).await;
    let installed = rig.pull("folder").await.unwrap();
    let models = rig.models();
    let before = rig.asked(What::File).len();
    // The same size: only its hash tells.
    fs::write(installed.path.join("config.json"), "[]\n").unwrap();
    assert!(models.store.installed("folder").is_ok());
    let error = models.store.verify("folder").unwrap_err();
    assert_eq!(error.kind, ModelErrorKind::Damaged);
    assert!(error.to_string().contains("config.json"), "{error}");
    assert!(
        error.to_string().contains("tandem model pull folder"),
        "{error}"
    );
    assert_eq!(rig.pull("folder").await.unwrap(), installed);
    assert_eq!(
        rig.asked(What::File).len(),
        before + 1,
        "only what was damaged"
    );

    fs::remove_file(installed.path.join("config.json")).unwrap();
    let error = models.store.installed("folder").unwrap_err();
    assert_eq!(error.kind, ModelErrorKind::Damaged);
    assert_eq!(rig.pull("folder").await.unwrap(), installed);

    fs::write(rig.model_folder("folder").join("manifest.json"), "{").unwrap();
    let error = models.store.installed("folder").unwrap_err();
    assert_eq!(error.kind, ModelErrorKind::Damaged);
    assert_eq!(rig.pull("folder").await.unwrap(), installed);
}

#[tokio::test]
async fn a_removed_model_is_gone() {
    let rig = Rig::new(|_| None).await;
    rig.pull("one").await.unwrap();
    let store = rig.models().store;
    assert!(store.remove("one").await.unwrap() >= weights().len() as u64);
    rig.nothing_counts("one");
    assert!(!rig.model_folder("one").exists());
    for id in ["one", "../models", ".locks", ""] {
        let error = store.remove(id).await.unwrap_err();
        assert_eq!(error.kind, ModelErrorKind::Absent, "{id}");
    }
}
