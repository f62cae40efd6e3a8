//! The day's spend cap.

use serde_json::json;
use tandem::inference::ErrorKind;

use super::messages_api::http::Piece;
use super::*;

/// An answer that says it took a million tokens: half a dollar, by the fast model's price.
fn dear(asked: &Asked<'_>) -> Response {
    let mut pieces = reply::events(asked.body, asked.usage, &Say::text("A"));
    let end = pieces.len() - 2;
    pieces[end] = reply::end("end_turn", 1_000_000);
    reply::stream(pieces)
}

#[tokio::test]
async fn the_cap_holds_for_all_sessions_together_and_before_the_call() {
    let rig = Rig::new(dear).await;
    rig.set(|settings| settings.claude.daily_spend_cap_usd = 0.75);
    let folder = rig.state.path().to_owned();
    let other = ClaudeBackend::new(rig.settings.subscribe(), Some(folder));
    let ask_other = || async { read(other.generate(chat("Hi"), CancellationToken::new())).await };

    rig.ask(chat("Hi")).await.1.unwrap();
    ask_other().await.1.unwrap();
    for end in [rig.ask(chat("Hi")).await.1, ask_other().await.1] {
        let error = end.unwrap_err();
        assert_eq!(error.kind, ErrorKind::SpendCap);
        let shown = error.to_string();
        assert!(
            shown.contains("$1.00 of today's $0.75") && shown.contains("daily_spend_cap_usd"),
            "{shown}"
        );
    }
    assert_eq!(rig.server.counts().borrow().requests, 2);

    rig.set(|settings| settings.claude.daily_spend_cap_usd = 5.0);
    ask_other().await.1.unwrap();
}

#[tokio::test]
async fn a_request_that_could_pass_the_cap_is_not_sent() {
    let rig = Rig::saying("never").await;
    for cap in [0.0, 1e-9, -1.0, f64::NAN] {
        rig.set(|settings| settings.claude.daily_spend_cap_usd = cap);
        let error = rig.ask(chat("Hi")).await.1.unwrap_err();
        assert_eq!(error.kind, ErrorKind::SpendCap, "{cap}");
    }
    assert_eq!(rig.server.counts().borrow().requests, 0);
}

#[tokio::test]
async fn what_is_abandoned_is_paid_for_and_what_is_turned_away_is_not() {
    let spent = |rig: &Rig| {
        let file = std::fs::read(rig.state.path().join("claude-spend.json")).unwrap();
        let day: serde_json::Value = serde_json::from_slice(&file).unwrap();
        assert_eq!(day["reserved"], json!([]), "nothing stays set aside");
        day["spent_nano_usd"].as_u64().unwrap()
    };
    let rig = Rig::new(|asked| {
        let mut pieces = reply::events(asked.body, asked.usage, &Say::text("A"));
        pieces.truncate(4);
        pieces.push(Piece::Close);
        reply::stream(pieces)
    })
    .await;
    rig.ask(chat("Hi")).await.1.unwrap_err();
    assert!(spent(&rig) > 0);

    let rig = Rig::saying("never").await;
    rig.set(|settings| settings.claude.api_key = ApiKey::new("wrong"));
    rig.ask(chat("Hi")).await.1.unwrap_err();
    assert_eq!(spent(&rig), 0);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_stops_the_spending() {
    let rig = Rig::saying("never").await;
    let file = rig.state.path().join("claude-spend.json");
    std::fs::write(&file, "{").unwrap();
    let error = rig.ask(chat("Hi")).await.1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.to_string().contains("claude-spend.json"), "{error}");
    assert_eq!(rig.server.counts().borrow().requests, 0);
}
