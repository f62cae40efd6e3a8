//! An editor's byte stream into a whole session: no panic, no hang, and only well-framed replies.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tandem::backend::scripted::ScriptedBackend;
use tandem::config::{Configuration, Layer, Layers, Options};
use tandem::inference::BackendKind;
use tandem::protocol::lsp::{Session, serve};
use tandem::router::{Backends, Router};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, duplex};

/// A handshake, so that what follows reaches the handlers.
const HANDSHAKE: &[&str] = &[
    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"capabilities":{}}}"#,
    r#"{"jsonrpc":"2.0","method":"initialized","params":{}}"#,
    r#"{"jsonrpc":"2.0","method":"textDocument/didOpen","params":{"textDocument":{"uri":"file:///a.rs","languageId":"rust","version":1,"text":"fn a() {\n    é🦀\n}\n"}}}"#,
];

fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs nothing but memory");
    runtime.block_on(async {
        let session = session();
        let (mut editor, server) = duplex(1 << 20);
        let (from_editor, to_editor) = tokio::io::split(server);
        let serving = serve(BufReader::new(from_editor), to_editor, session);
        let talking = async {
            for body in HANDSHAKE {
                let frame = format!("Content-Length: {}\r\n\r\n{body}", body.len());
                let _ = editor.write_all(frame.as_bytes()).await;
            }
            let _ = editor.write_all(bytes).await;
            let _ = editor.shutdown().await;
            let mut replies = Vec::new();
            let _ = editor.read_to_end(&mut replies).await;
            replies
        };
        let both = async { tokio::join!(serving, talking) };
        let (_, replies) = tokio::time::timeout(Duration::from_secs(10), both)
            .await
            .expect("a session ends with its input");
        check_framing(&replies);
    });
});

fn session() -> Session {
    let at_once = Options::from_text("completion.debounce", "0", "the fuzzer")
        .expect("the key and its value are ours");
    let configuration = Arc::new(Configuration::new(Layers {
        flags: vec![Layer::new("the fuzzer", at_once)],
        ..Layers::default()
    }));
    let backends = Backends {
        local: Some(Arc::new(ScriptedBackend::saying(
            BackendKind::Candle,
            "answer()",
        ))),
        ..Backends::default()
    };
    Session {
        router: Arc::new(Router::new(configuration.settings(), backends)),
        configuration,
        cache: std::env::temp_dir(),
    }
}

/// Every byte that an editor gets is in a frame with a JSON object.
fn check_framing(mut replies: &[u8]) {
    while !replies.is_empty() {
        let end = replies
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("headers end with an empty line");
        let headers = std::str::from_utf8(&replies[..end]).expect("headers are ASCII");
        let length: usize = headers
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .and_then(|value| value.parse().ok())
            .expect("every frame has its length");
        let body = &replies[end + 4..end + 4 + length];
        let message: serde_json::Value = serde_json::from_slice(body).expect("a body is JSON");
        assert!(message.is_object(), "{message}");
        replies = &replies[end + 4 + length..];
    }
}
