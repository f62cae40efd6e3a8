//! The key: without one, with a wrong one, and never shown.

use std::fmt::Write as _;
use std::io;
use std::sync::Mutex;

use tandem::inference::{ErrorKind, Health};
use tracing_subscriber::filter::LevelFilter;

use super::messages_api::check::Refusal;
use super::*;

#[tokio::test]
async fn a_key_that_is_added_later_is_used() {
    let rig = Rig::saying("hello").await;
    rig.set(|settings| settings.claude.api_key = None);
    let mut health = rig.backend.health();
    health
        .wait_for(
            |health| matches!(health, Health::Absent { why } if why.contains("ANTHROPIC_API_KEY")),
        )
        .await
        .unwrap();
    let error = rig.ask(chat("Hi")).await.1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    assert!(error.to_string().contains("ANTHROPIC_API_KEY"), "{error}");
    assert_eq!(*rig.server.counts().borrow(), Counts::default());

    rig.set(|settings| settings.claude.api_key = ApiKey::new(KEY));
    let healthy = Health::Healthy { speed: None };
    health.wait_for(|health| *health == healthy).await.unwrap();
    assert_eq!(rig.ask(chat("Hi")).await.0, "hello");
}

#[tokio::test]
async fn a_key_that_is_refused_shows_in_the_health_until_another_comes() {
    let rig = Rig::saying("hello").await;
    rig.set(|settings| settings.claude.api_key = ApiKey::new("sk-ant-wrong-5521"));
    let error = rig.ask(chat("Hi")).await.1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    let mut health = rig.backend.health();
    health
        .wait_for(|health| {
            matches!(health, Health::Failed { error, retry_after: Some(_) }
                if error.contains("ANTHROPIC_API_KEY") && !error.contains("5521"))
        })
        .await
        .unwrap();
    rig.set(|settings| settings.claude.api_key = ApiKey::new(KEY));
    let healthy = Health::Healthy { speed: None };
    health.wait_for(|health| *health == healthy).await.unwrap();
    assert_eq!(rig.ask(chat("Hi")).await.0, "hello");
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_is_tried_again_after_a_while() {
    let mut settings = Settings::default();
    // Refused before anything is sent: the paused clock and a socket do not go together.
    settings.claude.api_key = ApiKey::from_command(vec!["/nowhere/secrets".to_owned()]);
    let settings = watch::Sender::new(Arc::new(settings));
    let backend = ClaudeBackend::new(settings.subscribe(), None);
    let end = read(backend.generate(chat("Hi"), CancellationToken::new())).await;
    assert_eq!(end.1.unwrap_err().kind, ErrorKind::Unauthorized);
    let mut health = backend.health();
    assert!(!health.borrow_and_update().can_serve());
    health.changed().await.unwrap();
    assert_eq!(*health.borrow(), Health::Healthy { speed: None });
}

#[tokio::test]
async fn a_key_that_no_header_can_hold_is_an_error() {
    let rig = Rig::saying("never").await;
    rig.set(|settings| settings.claude.api_key = ApiKey::new("sk-ant-\u{1}"));
    let error = rig.ask(chat("Hi")).await.1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unauthorized);
}

/// A log that can be read.
#[derive(Default)]
struct Log(Mutex<Vec<u8>>);

impl io::Write for &Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn neither_key_nor_text_is_ever_shown() {
    const SECRET: &str = "the colour of my bicycle is green";
    let log: &'static Log = Box::leak(Box::default());
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(move || log)
        .finish();
    // Where there is one subscriber, a thread without it that comes to a line first has it switched off for all.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let _logged = tracing::subscriber::set_default(subscriber);

    // A server that repeats what it was sent, in every place it has.
    let echo = format!("bad key {KEY}: {SECRET}");
    let mut shown = String::new();
    for status in [400, 401, 403, 404, 429, 500] {
        let message = echo.clone();
        let rig = Rig::new(move |_| {
            reply::error(&Refusal {
                status,
                kind: "api_error",
                message: message.clone(),
            })
        })
        .await;
        let error = rig.ask(chat(SECRET)).await.1.unwrap_err();
        let health = rig.backend.health();
        writeln!(shown, "{error} {error:?} {:?}", *health.borrow()).unwrap();
        let settings = rig.settings.borrow();
        writeln!(shown, "{:?}", settings.claude).unwrap();
    }
    for event in [
        reply::error_event("invalid_request_error", &echo),
        reply::event(&echo, &serde_json::json!({})),
        reply::text(0, &echo),
    ] {
        let rig = Rig::new(move |_| reply::stream(vec![event.clone()])).await;
        writeln!(shown, "{:?}", rig.ask(chat(SECRET)).await.1).unwrap();
    }
    let rig = Rig::saying("fine").await;
    assert_eq!(rig.ask(chat(SECRET)).await.0, "fine");
    let nowhere = "http://user:hunter2@127.0.0.1:1/";
    rig.set(|settings| settings.claude.base_url = nowhere.to_owned());
    writeln!(shown, "{:?}", rig.ask(chat(SECRET)).await.1).unwrap();

    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.contains("Claude answers"), "the log is captured: {log}");
    for secret in [KEY, SECRET, "hunter2"] {
        assert!(!shown.contains(secret), "{secret} is shown in {shown}");
        let at = log.find(secret);
        assert!(
            at.is_none(),
            "{secret} is in the log: {}",
            &log[at.unwrap_or(0).saturating_sub(200)..]
        );
    }
}
