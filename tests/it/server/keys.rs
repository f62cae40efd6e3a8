//! The key: without one, with a wrong one, and never shown.

use std::fmt::Write as _;
use std::io;
use std::sync::Mutex;

use serde_json::json;
use tandem::inference::ErrorKind;
use tracing_subscriber::filter::LevelFilter;

use super::stand_in::{error, event, stream, text};
use super::*;

#[tokio::test]
async fn a_server_without_a_key_gets_none() {
    let server = StandIn::serve(Plays::LlamaServer, "m", None, |asked| say(asked, "b")).await;
    let mut settings = Settings::default();
    settings.server.base_url = Some(server.base_url());
    let settings = watch::Sender::new(Arc::new(settings));
    let backend = ServerBackend::new(settings.subscribe()).unwrap();
    let asked = backend.generate(completion("a", ""), CancellationToken::new());
    assert_eq!(read(asked).await.0, "b");
    let requests = server.requests();
    assert!(
        requests
            .iter()
            .all(|one| one.header("authorization").is_none())
    );
}

#[tokio::test]
async fn a_key_that_is_missing_or_refused_says_where_it_comes_from() {
    let rig = Rig::saying(Plays::LlamaServer, "m", "b").await;
    for (key, told) in [
        (None, "wants a key"),
        (ApiKey::new("tk-wrong-5521"), "does not accept the key"),
        (ApiKey::new("tk-\u{1}"), "characters that no key has"),
    ] {
        rig.set(|settings| settings.server.api_key = key);
        let error = rig.ask(completion("a", "")).await.1.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unauthorized);
        assert!(error.message.contains(told), "{error}");
        assert!(error.next_step.contains("TANDEM_SERVER_API_KEY"), "{error}");
        let health = rig.health();
        assert!(
            matches!(&health, Health::Failed { error, retry_after: Some(_) } if !error.contains("5521")),
            "{health:?}"
        );
    }
    rig.set(|settings| settings.server.api_key = ApiKey::new(KEY));
    assert_eq!(rig.ask(completion("a", "")).await.0, "b");
    assert_eq!(rig.health(), Health::Healthy { speed: None });
}

#[tokio::test(start_paused = true)]
async fn a_server_that_failed_is_asked_again_after_a_while() {
    let mut settings = Settings::default();
    settings.server.base_url = Some("http://127.0.0.1:9".to_owned());
    // Refused before anything is sent: the paused clock and a socket do not go together.
    settings.server.api_key = ApiKey::from_command(vec!["/nowhere/secrets".to_owned()]);
    let settings = watch::Sender::new(Arc::new(settings));
    let backend = ServerBackend::new(settings.subscribe()).unwrap();
    let end = read(backend.generate(chat("Hi"), CancellationToken::new())).await;
    let error = end.1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    assert!(
        error.next_step.contains("server.api_key_command"),
        "{error}"
    );
    let mut health = backend.health();
    assert!(!health.borrow_and_update().can_serve());
    health.changed().await.unwrap();
    assert_eq!(*health.borrow(), Health::Unloaded);
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
    for status in [400, 401, 403, 404, 422, 429, 500, 503] {
        let message = echo.clone();
        let answer = move |_: &Asked<'_>| error(status, &message, &message);
        let rig = Rig::new(Plays::Vllm, "m", answer).await;
        let error = rig.ask(chat(SECRET)).await.1.unwrap_err();
        writeln!(shown, "{error} {error:?} {:?}", rig.health()).unwrap();
        writeln!(shown, "{:?}", rig.settings.borrow().server).unwrap();
    }
    for lie in [
        event(&json!({"error": {"message": echo, "type": echo, "code": 400}})),
        event(&json!({"object": "error", "message": echo})),
        event(&json!({"choices": [{"delta": {}, "finish_reason": echo}]})),
        event(&json!(echo)),
        text("/infill", &echo),
    ] {
        let rig = Rig::new(Plays::Vllm, "m", move |_| stream(vec![lie.clone()])).await;
        writeln!(shown, "{:?}", rig.ask(chat(SECRET)).await.1).unwrap();
    }
    // A model's name that holds more than a name is not shown either.
    let rig = Rig::saying(Plays::Vllm, &format!("{echo}\u{1b}"), "never").await;
    writeln!(shown, "{:?}", rig.ask(chat(SECRET)).await.1).unwrap();
    let rig = Rig::saying(Plays::Vllm, "m", "fine").await;
    assert_eq!(rig.ask(chat(SECRET)).await.0, "fine");
    let nowhere = "http://user:hunter2@127.0.0.1:1/";
    rig.set(|settings| settings.server.base_url = Some(nowhere.to_owned()));
    writeln!(shown, "{:?}", rig.ask(chat(SECRET)).await.1).unwrap();

    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    let captured = log.contains("the inference server answers");
    assert!(captured, "the log is captured: {log}");
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
