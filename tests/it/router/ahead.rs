//! Work ahead of need: for this machine's models, and never in the way.

use tandem::config::{Mode, Settings};
use tandem::inference::{BackendKind, EmptyReason, ErrorKind, Health, Priority};
use tandem::router::RouteRequest;

use super::{World, automatic, claude, complete, failing, local, started};

fn ahead() -> RouteRequest {
    let mut request = automatic("let x = ");
    request.generate.priority = Priority::Background;
    request.origin.ahead = true;
    request
}

#[tokio::test(start_paused = true)]
async fn it_never_goes_to_claude() {
    let unable = || {
        let loading = local("1;");
        loading.publish(Health::Failed {
            error: "It broke.".to_owned(),
            retry_after: None,
        });
        loading
    };
    let broken = || failing(BackendKind::Candle, ErrorKind::Backend);
    for (mode, on_device) in [
        (Mode::ClaudeOnly, None),
        (Mode::ClaudeOnly, Some(local("1;"))),
        (Mode::Auto, None),
        (Mode::Auto, Some(unable())),
        (Mode::Auto, Some(broken())),
    ] {
        let mut settings = Settings {
            mode,
            ..Settings::default()
        };
        settings.claude.automatic_completions = true;
        let world = World::new(settings, on_device, None, Some(claude("2;")));
        let no_answer = world.ask(ahead()).await.unwrap_err();
        assert_ne!(no_answer.empty, None);
        assert_eq!(started(world.claude.as_ref()), 0, "{mode:?}");
        // The same while typing does.
        assert_eq!(world.ask(automatic("let x = ")).await.unwrap().text, "2;");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_ends_it_and_it_ends_no_key() {
    let world = World::new(Settings::default(), Some(local("1;")), None, None);
    let work = world.route(ahead());
    let key = world.route(automatic("let x = "));
    let late = world.route(ahead());
    for stream in [work, late] {
        let no_answer = stream.collect_within(super::LIMIT, |_| {}).await;
        assert_eq!(no_answer.unwrap_err().empty, Some(EmptyReason::Superseded));
    }
    let answer = key.collect_within(super::LIMIT, |_| {}).await;
    assert_eq!(answer.unwrap().text, "1;");
    assert_eq!(started(world.local.as_ref()), 1);
    assert!(world.ask(complete("let x = ", "")).await.is_ok());
}
