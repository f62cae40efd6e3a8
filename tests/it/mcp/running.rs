//! A call while it runs: progress, cancellation and the limit.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tandem::backend::scripted::Script;
use tandem::inference::Health;
use tokio::time::Instant;

use super::client::{Client, Era, local, router, text};

const ERA: Era = Era::Initialize("2025-11-25");

#[tokio::test(start_paused = true)]
async fn progress_grows_is_not_a_flood_and_ends_before_the_answer() {
    for era in [ERA, Era::Stateless] {
        let backend = local(|_| Script {
            pieces: vec!["word ".to_owned(); 100],
            pause: Duration::from_millis(20),
            ..Script::text("")
        });
        let mut client = Client::open(router(backend), era).await;
        let id = client
            .request(
                "tools/call",
                json!({
                    "name": "ask",
                    "arguments": { "question": "?" },
                    "_meta": { "progressToken": "p1" },
                }),
            )
            .await;
        let reply = client.reply(id).await;
        assert_eq!(reply["result"]["isError"], false, "{reply}");
        let notes = client.take_unread();
        // Two seconds of work at one note in a quarter of a second.
        assert!((5..=9).contains(&notes.len()), "{} notes", notes.len());
        assert!(
            notes
                .iter()
                .all(|note| note["method"] == "notifications/progress")
        );
        assert!(
            notes
                .iter()
                .all(|note| note["params"]["progressToken"] == "p1")
        );
        let steps: Vec<_> = notes
            .iter()
            .map(|note| note["params"]["progress"].as_f64().unwrap())
            .collect();
        assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
        let first = notes[0]["params"]["message"].as_str().unwrap();
        assert!(first.contains("scripted-candle"), "{first}");
        let last = notes.last().unwrap()["params"]["message"].as_str().unwrap();
        assert!(last.contains("tokens"), "{last}");
        assert!(
            client.hang_up().await.is_empty(),
            "something came after the answer"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_model_still_shows_signs_of_life() {
    let backend = local(|_| Script {
        pause: Duration::from_secs(30),
        ..Script::text("at last")
    });
    backend.publish(Health::Loading);
    let mut client = Client::open(router(backend), ERA).await;
    let params = json!({
        "name": "ask",
        "arguments": { "question": "?" },
        "_meta": { "progressToken": 5 },
    });
    let id = client.request("tools/call", params).await;
    client.reply(id).await;
    let notes = client.take_unread();
    assert!((6..=8).contains(&notes.len()), "{} notes", notes.len());
    let first = notes[0]["params"]["message"].as_str().unwrap();
    assert!(first.contains("scripted-candle is being loaded"), "{first}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_at_once_needs_no_progress() {
    let mut client = Client::open(router(local(|_| Script::text("hi"))), ERA).await;
    let params = json!({
        "name": "ask",
        "arguments": { "question": "?" },
        "_meta": { "progressToken": 5 },
    });
    let id = client.request("tools/call", params).await;
    client.reply(id).await;
    assert!(client.take_unread().is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_a_token_there_is_no_progress() {
    let backend = local(|_| Script {
        pieces: vec!["word ".to_owned(); 10],
        pause: Duration::from_millis(500),
        ..Script::text("")
    });
    let mut client = Client::open(router(backend), ERA).await;
    client.call("ask", json!({ "question": "?" })).await;
    assert!(client.take_unread().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_stops_the_model_and_gets_no_reply() {
    for era in [ERA, Era::Stateless] {
        let backend = local(|_| Script {
            pieces: vec!["word ".to_owned(); 10_000],
            pause: Duration::from_millis(10),
            ..Script::text("")
        });
        let seen = backend.observed();
        let mut client = Client::open(router(backend), era).await;
        let params = json!({ "name": "ask", "arguments": { "question": "?" } });
        let id = client.request("tools/call", params).await;
        while seen.pieces.load(Ordering::SeqCst) < 5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let reason = json!({ "requestId": id, "reason": "enough" });
        client.notify("notifications/cancelled", reason).await;
        while seen.cancelled.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let pieces = seen.pieces.load(Ordering::SeqCst);
        assert!(pieces <= 7, "{pieces} pieces");
        client.ask("tools/list", json!({})).await;
        let lines = client.hang_up().await;
        assert!(lines.is_empty(), "{lines:?}");
        assert_eq!(seen.pieces.load(Ordering::SeqCst), pieces);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_limit_with_what_there_is() {
    let backend = local(|_| Script {
        pieces: vec!["word ".to_owned(); 1000],
        pause: Duration::from_secs(1),
        ..Script::text("")
    });
    let seen = backend.observed();
    let mut client = Client::open(router(backend), ERA).await;
    let tools = client.ask("tools/list", json!({})).await;
    let started = Instant::now();
    let result = client.call("ask", json!({ "question": "?" })).await;
    assert_eq!(started.elapsed().as_secs(), 45);
    let data = &result["structuredContent"];
    assert_eq!(data["truncated"], "deadline");
    assert!(text(&result).starts_with("word word "), "{result}");
    assert_eq!(data["milliseconds"]["first_token"], 1000);
    jsonschema::validate(&tools["tools"][5]["outputSchema"], data).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(seen.cancelled.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_any_text_ends_at_its_limit_as_an_error() {
    let backend = local(|_| Script {
        pieces: Vec::new(),
        hang: true,
        ..Script::text("")
    });
    let mut client = Client::open(router(backend), ERA).await;
    let result = client.call("ask", json!({ "question": "?" })).await;
    assert_eq!(result["isError"], true);
    assert!(text(&result).contains("45 s"), "{result}");
    assert_eq!(result["_meta"]["tandem/error"]["kind"], "timeout");
}
