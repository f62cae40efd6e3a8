//! A hub that fails: what is tried again, what is told, and that nothing half counts as a model.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tandem::model::ModelErrorKind;
use tokio::sync::Semaphore;

use super::hub_api::{Fault, What};
use super::{LIMITS, Limits, Rig, TOKEN, weights};

/// The first answer of this kind fails, the next ones do not: the model comes all the same.
async fn passes(what: What, fault: Fault, ranges: &[Option<u64>]) {
    let spoilt = fault.clone();
    let mut rig =
        Rig::new(move |asked| (asked.what == what && asked.before == 0).then(|| spoilt.clone()))
            .await;
    if matches!(fault, Fault::Gate(_)) {
        rig.limits.idle = Duration::from_millis(300);
    }
    let installed = rig
        .pull("one")
        .await
        .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
    assert_eq!(fs::read(&installed.path).unwrap(), weights(), "{fault:?}");
    let asked: Vec<Option<u64>> = rig
        .asked(What::Content)
        .iter()
        .map(|seen| {
            let range = seen.request.header("range")?;
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        })
        .collect();
    assert_eq!(asked, ranges, "{fault:?}");
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    let half = weights().len() as u64 / 2;
    for (what, fault, ranges) in [
        (What::Content, Fault::Cut, &[None, Some(half)][..]),
        (
            What::Content,
            Fault::Gate(Arc::new(Semaphore::new(0))),
            &[None, Some(half)],
        ),
        (What::Content, Fault::WrongContent, &[None, None]),
        (What::Content, Fault::Status(503, ""), &[None, None]),
        (What::Content, Fault::TooMany(0), &[None, None]),
        (What::File, Fault::TooMany(1), &[None]),
        (What::File, Fault::Status(500, ""), &[None]),
        (What::Description, Fault::TooMany(0), &[None]),
        (What::Description, Fault::Status(502, ""), &[None]),
    ] {
        passes(what, fault, ranges).await;
    }
}

#[tokio::test]
async fn a_server_that_ignores_the_range_starts_over() {
    let rig = Rig::new(|asked| match (asked.what, asked.before) {
        (What::Content, 0) => Some(Fault::Cut),
        (What::Content, _) => Some(Fault::RangeIgnored),
        _ => None,
    })
    .await;
    let installed = rig.pull("one").await.unwrap();
    assert_eq!(fs::read(&installed.path).unwrap(), weights());
    let asked = rig.asked(What::Content);
    assert_eq!(asked.len(), 2);
    assert!(asked[1].request.header("range").is_some());
}

#[tokio::test]
async fn a_part_of_something_else_is_thrown_away() {
    for length in [10, weights().len(), weights().len() + 10] {
        let rig = Rig::new(|_| None).await;
        let commit = super::tiny().commit;
        let folder = rig.model_folder("one").join(format!("{commit}.partial"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("tiny.gguf.part"), vec![b'x'; length]).unwrap();
        let installed = rig.pull("one").await.unwrap();
        assert_eq!(fs::read(&installed.path).unwrap(), weights(), "{length}");
    }
}

/// All answers of this kind fail.
async fn fails(what: What, fault: Fault, kind: ModelErrorKind, told: &[&str]) {
    let spoilt = fault.clone();
    let mut rig = Rig::new(move |asked| (asked.what == what).then(|| spoilt.clone())).await;
    rig.limits = Limits {
        idle: if matches!(fault, Fault::Gate(_)) {
            Duration::from_millis(300)
        } else {
            LIMITS.idle
        },
        ..LIMITS
    };
    let error = rig.pull("one").await.unwrap_err();
    assert_eq!(error.kind, kind, "{fault:?}: {error}");
    let text = error.to_string();
    for part in told {
        assert!(text.contains(part), "{fault:?}: {text}");
    }
    assert!(text.ends_with('.'), "{text}");
    assert!(
        !text.contains(TOKEN) && !text.contains("signature"),
        "{text}"
    );
    rig.nothing_counts("one");
}

#[tokio::test]
async fn what_does_not_pass_is_told_with_the_next_step() {
    use ModelErrorKind as Kind;
    for (what, fault, kind, told) in [
        (
            What::Description,
            Fault::Status(401, "RepoNotFound"),
            Kind::Refused,
            &["o/tiny", "HF_TOKEN"][..],
        ),
        (
            What::Description,
            Fault::Status(403, "GatedRepo"),
            Kind::Refused,
            &["terms", "model's page"],
        ),
        (
            What::Description,
            Fault::Status(404, "RevisionNotFound"),
            Kind::Gone,
            &["no such revision", "local.catalogue"],
        ),
        (
            What::File,
            Fault::Status(404, "EntryNotFound"),
            Kind::Gone,
            &["no such file", "tiny.gguf"],
        ),
        (
            What::Description,
            Fault::Status(404, "RepoNotFound"),
            Kind::Gone,
            &["no such repository"],
        ),
        (
            What::Content,
            Fault::Status(403, ""),
            Kind::Refused,
            &["tiny.gguf"],
        ),
        // An hour: longer than anybody waits.
        (
            What::Content,
            Fault::TooMany(3600),
            Kind::Busy,
            &["429", "what has arrived is kept"],
        ),
        (What::Content, Fault::Status(503, ""), Kind::Busy, &["503"]),
        (
            What::Content,
            Fault::WrongContent,
            Kind::WrongContent,
            &["twice"],
        ),
        (
            What::Description,
            Fault::Status(418, ""),
            Kind::Malformed,
            &["418"],
        ),
    ] {
        fails(what, fault, kind, told).await;
    }
}

#[tokio::test]
async fn without_a_token_the_hub_says_who_may_come_in() {
    let mut rig = Rig::new(|_| None).await;
    rig.environment.token = None;
    let error = rig.pull("one").await.unwrap_err();
    assert_eq!(error.kind, ModelErrorKind::Refused);
    assert!(error.to_string().contains("hf auth login"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_told() {
    let mut rig = Rig::new(|_| None).await;
    // Nothing listens where a listener was just dropped.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    rig.environment.endpoint = Some(format!("http://{}", gone.local_addr().unwrap()));
    drop(gone);
    let error = rig.pull("one").await.unwrap_err();
    assert_eq!(error.kind, ModelErrorKind::Unreachable);
    rig.nothing_counts("one");
}

#[tokio::test]
async fn a_hub_that_contradicts_the_catalogue_is_not_believed() {
    let mut rig = Rig::new(|_| None).await;
    let other = "0".repeat(64);
    let named = format!("files: [{{path: tiny.gguf, sha256: '{other}'}}]");
    rig.catalogue = rig.catalogue.replace("files: [{path: tiny.gguf}]", &named);
    let error = rig.pull("one").await.unwrap_err();
    assert_eq!(error.kind, ModelErrorKind::WrongContent);
    assert!(rig.asked(What::Content).is_empty());

    let mut rig = Rig::new(|_| None).await;
    rig.catalogue = rig
        .catalogue
        .replace("path: tiny.gguf}", "path: gone.gguf}");
    let error = rig.pull("one").await.unwrap_err();
    assert_eq!(error.kind, ModelErrorKind::Gone);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let rig = Rig::new(|_| None).await;
    fs::write(rig.home.path().join("models"), "in the way").unwrap();
    let error = rig.pull("one").await.unwrap_err();
    assert_eq!(error.kind, ModelErrorKind::Disk);
    assert!(error.to_string().contains("models"), "{error}");
    assert!(
        rig.server.seen().is_empty(),
        "found before anything was fetched"
    );
}
