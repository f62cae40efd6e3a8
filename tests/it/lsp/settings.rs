//! The editor's settings.

use serde_json::{Value, json};

use super::client::{Lsp, Setup};

const URI: &str = "file:///project/a.rs";

async fn offers(lsp: &mut Lsp, expected: bool) {
    let items = lsp.inline(URI, (0, 0), 2).await;
    assert_eq!(!items.is_empty(), expected);
}

/// Waits for the status that says that an answer took effect.
async fn in_force(lsp: &mut Lsp, state: &str) {
    while lsp.notification("tandem/status").await["state"] != state {}
}

#[tokio::test(start_paused = true)]
async fn settings_are_asked_for_at_the_start_and_when_they_change() {
    let setup = Setup::saying("x").capabilities(json!({"workspace": {
        "configuration": true,
        "didChangeConfiguration": {"dynamicRegistration": true},
    }}));
    let mut lsp = setup.start().await;
    let (id, params) = lsp.asked("client/registerCapability").await;
    assert_eq!(
        params["registrations"][0]["method"],
        "workspace/didChangeConfiguration"
    );
    lsp.answer(id, Value::Null).await;
    let (id, params) = lsp.asked("workspace/configuration").await;
    assert_eq!(params["items"], json!([{"section": "tandem"}]));
    lsp.answer(id, json!([{"completion": {"enabled": false}}]))
        .await;
    in_force(&mut lsp, "disabled").await;
    lsp.open(URI, "rust", "").await;
    offers(&mut lsp, false).await;
    lsp.notify(
        "workspace/didChangeConfiguration",
        json!({"settings": null}),
    )
    .await;
    let (id, _) = lsp.asked("workspace/configuration").await;
    lsp.answer(id, json!([{"completion": {"enabled": true}}]))
        .await;
    in_force(&mut lsp, "healthy").await;
    offers(&mut lsp, true).await;
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn clients_that_cannot_be_asked_send_their_settings() {
    let mut lsp = Setup::saying("x").start().await;
    lsp.open(URI, "rust", "").await;
    for (settings, expected) in [
        (json!({"tandem": {"completion": {"enabled": false}}}), false),
        (json!({"completion": {"enabled": true}}), true),
        (Value::Null, true),
    ] {
        lsp.notify(
            "workspace/didChangeConfiguration",
            json!({"settings": settings}),
        )
        .await;
        offers(&mut lsp, expected).await;
    }
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn wrong_settings_change_nothing_and_are_told() {
    let mut lsp = Setup::saying("x").start().await;
    lsp.open(URI, "rust", "").await;
    lsp.notify(
        "workspace/didChangeConfiguration",
        json!({"settings": {"tandem": {"completion": {"enabeld": false}}}}),
    )
    .await;
    let shown = lsp.notification("window/showMessage").await;
    assert_eq!(shown["type"], 2);
    let message = shown["message"].as_str().unwrap();
    assert!(message.contains("`completion.enabled`"), "{message}");
    offers(&mut lsp, true).await;
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn settings_may_come_with_the_handshake() {
    let mut lsp = Setup::saying("x").raw();
    let params =
        json!({"capabilities": {}, "initializationOptions": {"completion": {"enabled": false}}});
    lsp.call("initialize", params).await.unwrap();
    lsp.notify("initialized", json!({})).await;
    lsp.open(URI, "rust", "").await;
    offers(&mut lsp, false).await;
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_projects_file_is_in_force_once_it_is_saved() {
    let project = tempfile::tempdir().unwrap();
    let uri = |name: &str| format!("file://{}/{name}", project.path().display());
    let mut lsp = Setup::saying("x").raw();
    let folders = json!([{"uri": uri(""), "name": "project"}]);
    let params = json!({"capabilities": {}, "workspaceFolders": folders});
    lsp.call("initialize", params).await.unwrap();
    lsp.notify("initialized", json!({})).await;
    lsp.open(URI, "rust", "").await;
    offers(&mut lsp, true).await;
    for (text, expected) in [
        ("completion: {enabled: false}", false),
        ("completion: {}", true),
    ] {
        let file = uri(".tandem.yaml");
        std::fs::write(project.path().join(".tandem.yaml"), text).unwrap();
        lsp.notify(
            "textDocument/didSave",
            json!({"textDocument": {"uri": file}}),
        )
        .await;
        offers(&mut lsp, expected).await;
    }
    // Mistakes are told, in one message: each is a window that wants to be closed.
    let wrong = "completoin: {}\nmode: auto\n";
    std::fs::write(project.path().join(".tandem.yaml"), wrong).unwrap();
    let file = json!({"textDocument": {"uri": uri(".tandem.yaml")}});
    lsp.notify("textDocument/didSave", file).await;
    let shown = lsp.notification("window/showMessage").await;
    let message = shown["message"].as_str().unwrap();
    assert!(message.contains("Did you mean `completion`?"), "{message}");
    assert!(message.contains(".tandem.yaml:2: `mode`"), "{message}");
    lsp.finish().await;
}
