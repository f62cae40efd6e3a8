//! Where requests go with an inference server configured: it comes first for light ones, who comes after
//! it answers where it fails, and what must not leave the machine does not go there.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tandem::backend::scripted::{Script, ScriptedBackend};
use tandem::config::{Mode, Settings};
use tandem::inference::{
    BackendKind, EmptyReason, ErrorKind, GenerateError, Health, RouteReason, Snippet, Task,
};
use tandem::router::{Answer, NoAnswer, RouteRequest};

use crate::router::{
    World, automatic, chat, claude, complete, embedded, failing, local, started, with_mode,
};

fn server(text: &str) -> ScriptedBackend {
    ScriptedBackend::saying(BackendKind::Server, text)
}

fn all(server: ScriptedBackend) -> World {
    World::with_server(
        Settings::default(),
        Some(local("local")),
        Some(embedded("embedded")),
        Some(server),
        Some(claude("claude")),
    )
}

fn who(answer: &Result<Answer, NoAnswer>) -> Option<(BackendKind, RouteReason)> {
    let attribution = match answer {
        Ok(answer) => Some(&answer.attribution),
        Err(no_answer) => no_answer.attribution.as_ref(),
    };
    attribution.map(|one| (one.backend, one.reason))
}

#[tokio::test(start_paused = true)]
async fn light_requests_go_to_the_server() {
    let world = all(server("server"));
    for request in [
        complete("let x = ", ""),
        automatic("let x = "),
        chat("why?"),
    ] {
        let answer = world.ask(request).await;
        let expected = (BackendKind::Server, RouteReason::ServerConfigured);
        assert_eq!(who(&answer), Some(expected));
    }
    assert_eq!(started(world.local.as_ref()), 0);
    assert_eq!(started(world.claude.as_ref()), 0);
    assert_eq!(world.router.status()[0].kind, BackendKind::Server);
}

#[tokio::test(start_paused = true)]
async fn who_comes_after_it_answers_where_it_fails() {
    let world = all(failing(BackendKind::Server, ErrorKind::Backend));
    for _ in 0..3 {
        let answer = world.ask(complete("let x = ", "")).await;
        assert_eq!(
            who(&answer),
            Some((BackendKind::Candle, RouteReason::FellBack))
        );
    }
    // Its breaker is open: nobody waits for it any more.
    let answer = world.ask(complete("let x = ", "")).await;
    assert_eq!(
        who(&answer),
        Some((BackendKind::Candle, RouteReason::LocalHealthy))
    );
    assert_eq!(started(world.server.as_ref()), 3);
    assert_eq!(world.router.status()[0].breaker, "open");
    // One that says of itself that it cannot be reached is not asked at all.
    let world = all(server("server"));
    world.server.as_ref().unwrap().publish(Health::Failed {
        error: "it cannot be reached. Start it.".into(),
        retry_after: None,
    });
    let answer = world.ask(complete("let x = ", "")).await;
    assert_eq!(
        who(&answer),
        Some((BackendKind::Candle, RouteReason::LocalHealthy))
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_it_began_is_nobody_elses() {
    let broken = ScriptedBackend::new(BackendKind::Server, |_| Script {
        pieces: vec!["half ".into()],
        failure: Some(GenerateError::new(
            ErrorKind::Backend,
            "it broke",
            "Mend it.",
        )),
        ..Script::text("")
    });
    let world = all(broken);
    let no_answer = world.ask(chat("why?")).await.unwrap_err();
    assert_eq!(no_answer.error.unwrap().kind, ErrorKind::Backend);
    assert_eq!(started(world.local.as_ref()), 0);
    assert_eq!(started(world.claude.as_ref()), 0);
}

#[tokio::test(start_paused = true)]
async fn neither_mode_that_rules_it_out_asks_it() {
    for (mode, expected) in [
        (Mode::LocalOnly, BackendKind::Candle),
        (Mode::ClaudeOnly, BackendKind::Claude),
    ] {
        let world = all(server("server"));
        world.settings.send_replace(Arc::new(with_mode(mode)));
        let answer = world.ask(complete("let x = ", "")).await;
        assert_eq!(who(&answer).unwrap().0, expected, "{mode:?}");
        assert_eq!(started(world.server.as_ref()), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn completions_by_themselves_go_there_unless_switched_off() {
    let world = all(server("server"));
    let mut settings = Settings::default();
    settings.server.automatic_completions = false;
    world.settings.send_replace(Arc::new(settings));
    let answer = world.ask(automatic("let x = ")).await;
    assert_eq!(who(&answer).unwrap().0, BackendKind::Candle);
    let answer = world.ask(complete("let x = ", "")).await;
    assert_eq!(who(&answer).unwrap().0, BackendKind::Server);
}

#[tokio::test(start_paused = true)]
async fn what_is_computed_ahead_of_need_stays_on_this_machine() {
    let world = all(server("server"));
    let mut ahead = automatic("let x = ");
    ahead.origin.ahead = true;
    let answer = world.ask(ahead).await;
    assert_eq!(who(&answer).unwrap().0, BackendKind::Candle);
    assert_eq!(started(world.server.as_ref()), 0);
}

#[tokio::test(start_paused = true)]
async fn where_nobody_is_left_the_error_names_the_server() {
    let world = World::with_server(
        Settings::default(),
        None,
        None,
        Some(server("server").with_context_tokens(300)),
        None,
    );
    let long = chat(&"word ".repeat(2_000));
    let error = world.ask(long).await.unwrap_err().error.unwrap();
    assert_eq!(error.kind, ErrorKind::TooLong);
    assert!(
        error.message.contains("the inference server's context"),
        "{error}"
    );
    world.server.as_ref().unwrap().publish(Health::Failed {
        error: "it cannot be reached. Start it.".into(),
        retry_after: None,
    });
    let error = world.ask(chat("why?")).await.unwrap_err().error.unwrap();
    assert!(error.next_step.contains("tandem doctor"), "{error}");
    let empty = world.ask(complete("let x = ", "")).await.unwrap_err().empty;
    assert_eq!(empty, Some(EmptyReason::BackendFailed));
}

fn at(mut request: RouteRequest, file: PathBuf, workspace: &Path) -> RouteRequest {
    request.origin.file = Some(file);
    request.origin.workspace = Some(workspace.to_owned());
    request
}

#[tokio::test]
async fn what_must_not_leave_the_machine_does_not_go_there() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    std::fs::create_dir(root.join(".git")).unwrap();
    for (name, text) in [
        (".gitignore", "hidden.rs\n"),
        ("hidden.rs", "fn a() {}"),
        ("open.rs", "fn a() {}"),
        (".env", "A=1"),
    ] {
        std::fs::write(root.join(name), text).unwrap();
    }
    let secret = format!("let key = \"{}{}\";\n", "AKIA", "Z7Q3N5X2W4R6T2YB");
    for (name, prefix, kind) in [
        ("open.rs", "let x = ", BackendKind::Server),
        ("hidden.rs", "let x = ", BackendKind::Embedded),
        (".env", "let x = ", BackendKind::Embedded),
        ("open.rs", secret.as_str(), BackendKind::Embedded),
    ] {
        let world = World::with_server(
            Settings::default(),
            None,
            Some(embedded("embedded")),
            Some(server("server")),
            None,
        );
        let request = at(complete(prefix, ""), root.join(name), &root);
        assert_eq!(
            who(&world.ask(request).await).unwrap().0,
            kind,
            "{name} {prefix}"
        );
        let asked = usize::from(kind == BackendKind::Server);
        assert_eq!(started(world.server.as_ref()), asked, "{name}");
    }
    // A conversation about it says that it is this, and not a key for somebody else, that is missing.
    let world = World::with_server(
        Settings::default(),
        None,
        None,
        Some(server("server")),
        None,
    );
    let request = at(chat("why?"), root.join("hidden.rs"), &root);
    let error = world.ask(request).await.unwrap_err().error.unwrap();
    assert_eq!(error.kind, ErrorKind::Denied);
    assert!(error.message.contains("git ignores this file"), "{error}");
    assert_eq!(started(world.server.as_ref()), 0);
}

#[tokio::test]
async fn pieces_of_denied_files_are_left_out_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    std::fs::create_dir(root.join(".git")).unwrap();
    std::fs::write(root.join(".gitignore"), "hidden.rs\n").unwrap();
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let spied = Arc::clone(&seen);
    let spy = ScriptedBackend::new(BackendKind::Server, move |request| {
        let Task::Complete(task) = &request.task else {
            panic!("a completion")
        };
        let paths = task.snippets.iter().map(|snippet| snippet.path.clone());
        spied.lock().unwrap().extend(paths);
        Script::text("b")
    });
    let world = World::with_server(Settings::default(), None, None, Some(spy), None);
    let mut request = at(complete("a", ""), root.join("main.rs"), &root);
    let Task::Complete(task) = &mut request.generate.task else {
        panic!("a completion")
    };
    task.snippets = ["open.rs", "hidden.rs", ".env"]
        .map(|name| Snippet {
            path: name.into(),
            file: Some(root.join(name)),
            text: "fn a() {}".into(),
        })
        .to_vec();
    world.ask(request).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["open.rs"]);
}
