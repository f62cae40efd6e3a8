//! The bundle for Claude Desktop says of the server what the server says of itself.

use serde_json::{Value, json};
use tandem::backend::scripted::Script;

use super::client::{Client, Era, local, router};

/// What writes the manifest anew.
const UPDATE: &str =
    "Run: cargo build --release && cd editors/claude-desktop && npm ci && npm run manifest";

fn manifest() -> Value {
    let text = include_str!("../../../editors/claude-desktop/manifest.json");
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn the_manifest_lists_the_tools_and_the_version_of_the_server() {
    let mut client = Client::connect(router(local(|_| Script::text(""))));
    let hello = client.greet(Era::Initialize("2025-11-25")).await;
    let manifest = manifest();
    assert_eq!(manifest["name"], hello["serverInfo"]["name"]);
    assert_eq!(
        manifest["version"], hello["serverInfo"]["version"],
        "{UPDATE}"
    );
    let listed = client.ask("tools/list", json!({})).await;
    let tools: Vec<_> = listed["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| json!({ "name": tool["name"], "description": tool["description"] }))
        .collect();
    assert_eq!(manifest["tools"], Value::from(tools), "{UPDATE}");
}

#[test]
fn the_manifest_keeps_the_key_a_secret_and_writes_none() {
    let manifest = manifest();
    let key = &manifest["user_config"]["anthropic_api_key"];
    assert_eq!(key["sensitive"], true);
    assert_eq!(key["required"], false);
    // Hosts put a default in the place of what was not given, and without one they leave the
    // placeholder there.
    assert_eq!(key["default"], "");
    let config = &manifest["server"]["mcp_config"];
    assert_eq!(config["args"], json!(["mcp"]));
    for (name, value) in config["env"].as_object().unwrap() {
        let setting = value
            .as_str()
            .and_then(|value| value.strip_prefix("${user_config."))
            .and_then(|value| value.strip_suffix('}'))
            .unwrap_or_else(|| panic!("{name}: {value}"));
        assert!(
            manifest["user_config"][setting].is_object(),
            "{name}: {setting}"
        );
    }
}
