//! The routing table: every situation there is, and the table of the design as data.

use super::*;
use crate::inference::{ClientId, EmptyReason, ErrorKind};

const MODES: [Mode; 3] = [Mode::Auto, Mode::LocalOnly, Mode::ClaudeOnly];
const TASKS: [TaskKind; 3] = [TaskKind::Complete, TaskKind::Chat, TaskKind::Edit];
const EFFORTS: [Effort; 2] = [Effort::Low, Effort::High];
const STARTS: [Start; 3] = [
    Start::Invoked,
    Start::AutomaticClaudeOn,
    Start::AutomaticClaudeOff,
];
const LOCALS: [LocalState; 7] = [
    LocalState::None,
    LocalState::Downloading,
    LocalState::Loading,
    LocalState::Healthy,
    LocalState::Degraded,
    LocalState::Failed,
    LocalState::BreakerOpen,
];
const SERVERS: [ServerState; 6] = [
    ServerState::None,
    ServerState::Ready,
    ServerState::DoesNotFit,
    ServerState::AutomaticOff,
    ServerState::Failed,
    ServerState::BreakerOpen,
];
const CLAUDES: [ClaudeState; 4] = [
    ClaudeState::NoKey,
    ClaudeState::Ready,
    ClaudeState::BreakerOpen,
    ClaudeState::CapReached,
];

fn disclosures() -> Vec<Disclosure> {
    [
        Denial::GitIgnored,
        Denial::TandemIgnored,
        Denial::SensitiveName,
        Denial::DeniedByUser { glob: "*.x".into() },
        Denial::OutsideWorkspace,
        Denial::Secret { rule: "x".into() },
        Denial::KeptByProject { file: "x".into() },
        Denial::ProjectUnreadable { why: "x".into() },
        Denial::Unexaminable,
    ]
    .into_iter()
    .map(Disclosure::Denied)
    .chain([Disclosure::Unexamined, Disclosure::Allowed])
    .collect()
}

/// Every situation there is.
fn every(mut check: impl FnMut(&Situation, &Plan)) {
    let mut count = 0;
    for server in SERVERS {
        count += with_server(server, &mut check);
    }
    assert_eq!(count, 6 * 3 * 3 * 2 * 2 * 3 * 7 * 2 * 4 * 11);
}

fn with_server(server: ServerState, check: &mut impl FnMut(&Situation, &Plan)) -> usize {
    let disclosures = disclosures();
    let mut count = 0;
    for mode in MODES {
        for task in TASKS {
            for effort in EFFORTS {
                for fits_local in [true, false] {
                    for start in STARTS {
                        for local in LOCALS {
                            for embedded in [true, false] {
                                for claude in CLAUDES {
                                    for disclosure in &disclosures {
                                        let situation = Situation {
                                            mode,
                                            task,
                                            effort,
                                            fits_local,
                                            start,
                                            local,
                                            local_trouble: None,
                                            embedded,
                                            server,
                                            claude,
                                            disclosure: disclosure.clone(),
                                        };
                                        check(&situation, &plan(&situation));
                                        count += 1;
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    count
}

fn asked(plan: &Plan) -> Vec<Target> {
    match &plan.route {
        Route::Ask(attempts) => attempts.iter().map(|attempt| attempt.target).collect(),
        Route::Refuse(_) => Vec::new(),
    }
}

#[test]
fn claude_is_asked_only_where_everything_allows_it() {
    every(|situation, plan| {
        let allowed = situation.mode != Mode::LocalOnly
            && situation.claude == ClaudeState::Ready
            && !matches!(situation.disclosure, Disclosure::Denied(_))
            && !(situation.task == TaskKind::Complete
                && situation.start == Start::AutomaticClaudeOff);
        let asks = asked(plan).contains(&Target::Claude);
        // Where it is allowed it is also somewhere in the plan: first or as what it falls back to.
        assert_eq!(asks, allowed, "{situation:?}");
    });
}

#[test]
fn the_server_is_asked_only_where_everything_allows_it() {
    every(|situation, plan| {
        let allowed = situation.mode == Mode::Auto
            && situation.server == ServerState::Ready
            && !matches!(situation.disclosure, Disclosure::Denied(_));
        let asks = asked(plan).contains(&Target::Server);
        assert_eq!(asks, allowed, "{situation:?}");
    });
}

#[test]
fn nothing_leaves_in_local_only() {
    let mut seen = 0;
    every(|situation, plan| {
        if situation.mode == Mode::LocalOnly {
            let leaves = |target: &Target| matches!(target, Target::Server | Target::Claude);
            assert!(!asked(plan).iter().any(leaves), "{situation:?}");
            seen += 1;
        }
    });
    assert!(seen > 10_000, "{seen}");
}

#[test]
fn who_has_no_server_is_routed_as_if_there_were_none_to_have() {
    every(|situation, plan| {
        let without = Situation {
            server: ServerState::None,
            ..situation.clone()
        };
        let others: Vec<_> = asked(plan)
            .into_iter()
            .filter(|target| *target != Target::Server)
            .collect();
        assert_eq!(asked(&super::plan(&without)), others, "{situation:?}");
    });
}

#[test]
fn the_embedded_model_only_completes() {
    every(|situation, plan| {
        if asked(plan).contains(&Target::Embedded) {
            assert!(situation.embedded, "{situation:?}");
            assert_eq!(situation.task, TaskKind::Complete, "{situation:?}");
            assert_ne!(situation.mode, Mode::ClaudeOnly, "{situation:?}");
        }
    });
}

#[test]
fn the_local_model_is_asked_only_if_it_generates_and_the_request_fits() {
    every(|situation, plan| {
        let serves = matches!(
            situation.local,
            LocalState::Loading | LocalState::Healthy | LocalState::Degraded
        );
        let asks = asked(plan).contains(&Target::Local);
        let expected = serves && situation.fits_local && situation.mode != Mode::ClaudeOnly;
        assert_eq!(asks, expected, "{situation:?}");
    });
}

#[test]
fn nobody_is_asked_twice_and_whoever_comes_later_fell_back() {
    every(|situation, plan| {
        let Route::Ask(attempts) = &plan.route else {
            return;
        };
        assert!(!attempts.is_empty(), "{situation:?}");
        for (place, attempt) in attempts.iter().enumerate() {
            let before = &attempts[..place];
            assert!(
                before.iter().all(|one| one.target != attempt.target),
                "{situation:?}"
            );
            assert_eq!(
                attempt.reason == RouteReason::FellBack,
                place > 0,
                "{situation:?}"
            );
        }
    });
}

#[test]
fn heavy_requests_go_to_claude_first_and_light_ones_to_the_server_or_a_healthy_local_model() {
    every(|situation, plan| {
        let asked = asked(plan);
        let heavy = situation.effort == Effort::High || !situation.fits_local;
        if heavy && asked.contains(&Target::Claude) {
            assert_eq!(asked[0], Target::Claude, "{situation:?}");
        }
        let server = asked.contains(&Target::Server);
        if !heavy && server {
            assert_eq!(asked[0], Target::Server, "{situation:?}");
        }
        if !heavy && situation.local == LocalState::Healthy && asked.contains(&Target::Local) {
            assert_eq!(asked[usize::from(server)], Target::Local, "{situation:?}");
        }
    });
}

#[test]
fn every_refusal_says_what_happened_and_what_to_do() {
    every(|situation, plan| {
        let Route::Refuse(refusal) = &plan.route else {
            return;
        };
        let error = &refusal.error;
        assert!(error.next_step.ends_with('.'), "{situation:?}: {error}");
        assert!(!error.message.ends_with('.'), "{situation:?}: {error}");
        assert!(error.message.len() > 10, "{situation:?}: {error}");
        assert!(!error.is_backend_fault(), "{situation:?}: {error}");
        // Nobody is told to allow in the mode what the mode is not the obstacle to.
        if situation.mode != Mode::LocalOnly {
            assert!(!error.next_step.contains("mode: auto"), "{situation:?}");
        }
        // Nor to configure a key where no key would help.
        if situation.claude != ClaudeState::NoKey || situation.mode == Mode::LocalOnly {
            assert!(!error.next_step.contains("API_KEY"), "{situation:?}");
        }
        if let Disclosure::Denied(denial) = &situation.disclosure
            && error.kind == ErrorKind::Denied
        {
            assert!(error.message.contains(&denial.to_string()));
            assert_eq!(refusal.empty, EmptyReason::Denied);
        }
    });
}

#[test]
fn a_load_is_begun_whenever_the_mode_may_need_it() {
    every(|situation, plan| {
        let expected = situation.local == LocalState::Loading && situation.mode != Mode::ClaudeOnly;
        assert_eq!(plan.warm_up, expected, "{situation:?}");
    });
}

#[test]
fn what_was_examined_and_denied_is_never_cleared() {
    let request = |path: &str| GenerateRequest {
        client: ClientId::default(),
        id: crate::inference::RequestId::next(),
        task: Task::Chat(crate::inference::ChatTask {
            system: None,
            messages: vec![crate::inference::Message {
                role: crate::inference::Role::User,
                text: path.into(),
            }],
            schema: None,
        }),
        sampling: crate::inference::Sampling::GREEDY,
        max_tokens: 1,
        stop: Vec::new(),
        effort: Effort::Low,
        priority: crate::inference::Priority::Tool,
    };
    every(|situation, _| {
        let clean = Evidence {
            request: None,
            snippets: Vec::new(),
        };
        for (target, may) in [
            (Target::Claude, situation.withheld().is_none()),
            (Target::Server, situation.server_allowed()),
            (Target::Local, false),
            (Target::Embedded, false),
        ] {
            let cleared = clear(target, situation, &clean, request("a"));
            assert_eq!(cleared.is_some(), may, "{target:?} {situation:?}");
            assert!(clear(target, situation, &Evidence::unknown(), request("a")).is_none());
        }
    });
}

/// A line of the design's table: the situation in words, and who is asked, in order.
fn check(situation: &str, expected: &str) {
    let mut one = Situation {
        mode: Mode::Auto,
        task: TaskKind::Complete,
        effort: Effort::Low,
        fits_local: true,
        start: Start::Invoked,
        local: LocalState::Healthy,
        local_trouble: None,
        embedded: true,
        server: ServerState::None,
        claude: ClaudeState::Ready,
        disclosure: Disclosure::Allowed,
    };
    for word in situation.split_whitespace() {
        match word {
            "complete" => one.task = TaskKind::Complete,
            "chat" => one.task = TaskKind::Chat,
            "edit" => one.task = TaskKind::Edit,
            "long" => one.fits_local = false,
            "deep" => one.effort = Effort::High,
            "automatic" => one.start = Start::AutomaticClaudeOff,
            "automatic-to-claude" => one.start = Start::AutomaticClaudeOn,
            "none" => one.local = LocalState::None,
            "downloading" => one.local = LocalState::Downloading,
            "loading" => one.local = LocalState::Loading,
            "healthy" => one.local = LocalState::Healthy,
            "degraded" => one.local = LocalState::Degraded,
            "failed" => one.local = LocalState::Failed,
            "held" => one.local = LocalState::BreakerOpen,
            "bare" => one.embedded = false,
            "server" => one.server = ServerState::Ready,
            "server-small" => one.server = ServerState::DoesNotFit,
            "server-automatic-off" => one.server = ServerState::AutomaticOff,
            "server-failed" => one.server = ServerState::Failed,
            "server-held" => one.server = ServerState::BreakerOpen,
            "keyless" => one.claude = ClaudeState::NoKey,
            "spent" => one.claude = ClaudeState::CapReached,
            "claude-held" => one.claude = ClaudeState::BreakerOpen,
            "denied" => one.disclosure = Disclosure::Denied(Denial::GitIgnored),
            "local-only" => one.mode = Mode::LocalOnly,
            "claude-only" => one.mode = Mode::ClaudeOnly,
            other => panic!("no such word: {other}"),
        }
    }
    let found = match plan(&one).route {
        Route::Ask(attempts) => {
            let reason = attempts[0].reason;
            let targets: Vec<_> = attempts
                .iter()
                .map(|attempt| format!("{:?}", attempt.target).to_lowercase())
                .collect();
            format!("{} ({reason:?})", targets.join(", "))
        }
        Route::Refuse(refusal) => format!("{:?}/{:?}", refusal.empty, refusal.error.kind),
    };
    assert_eq!(found, expected, "{situation}");
}

#[test]
fn the_table_of_the_design() {
    for (situation, expected) in [
        // Local healthy.
        ("complete healthy", "local, claude, embedded (LocalHealthy)"),
        ("chat healthy", "local, claude (LocalHealthy)"),
        ("edit healthy keyless", "local (LocalHealthy)"),
        ("chat healthy deep", "claude, local (HeavyEffort)"),
        ("chat healthy long", "claude (DoesNotFitLocal)"),
        ("chat healthy long keyless", "NoBackend/TooLong"),
        ("chat healthy deep keyless", "local (HeavyButLocalOnly)"),
        ("chat healthy deep denied", "local (HeavyButLocalOnly)"),
        ("chat healthy long denied", "Denied/Denied"),
        ("chat healthy long spent", "SpendCap/SpendCap"),
        ("chat healthy long claude-held", "BackendFailed/TooLong"),
        // Local loading.
        ("complete loading", "claude, embedded, local (LocalLoading)"),
        ("complete loading keyless", "embedded, local (LocalLoading)"),
        ("complete loading keyless bare", "local (LocalLoading)"),
        (
            "complete loading automatic",
            "embedded, local (LocalLoading)",
        ),
        (
            "complete loading automatic-to-claude",
            "claude, embedded, local (LocalLoading)",
        ),
        ("chat loading", "claude, local (LocalLoading)"),
        ("chat loading keyless", "local (LocalLoading)"),
        ("chat loading deep", "claude, local (HeavyEffort)"),
        // Local downloading.
        ("complete downloading", "claude, embedded (LocalLoading)"),
        ("complete downloading keyless", "embedded (LocalLoading)"),
        ("complete downloading keyless bare", "Loading/Unavailable"),
        ("chat downloading keyless", "Loading/Unavailable"),
        // Local degraded.
        (
            "complete degraded",
            "claude, embedded, local (LocalDegraded)",
        ),
        ("chat degraded keyless", "local (LocalDegraded)"),
        // Local failed, or its breaker open.
        ("complete failed", "claude, embedded (LocalFailed)"),
        ("complete held keyless", "embedded (LocalFailed)"),
        ("complete failed denied bare", "Denied/Denied"),
        ("complete failed keyless bare", "BackendFailed/Unavailable"),
        ("chat failed", "claude (LocalFailed)"),
        ("chat held keyless", "BackendFailed/Unavailable"),
        ("chat failed deep", "claude (HeavyEffort)"),
        // No local model.
        ("complete none", "claude, embedded (NoLocalModel)"),
        ("complete none automatic", "embedded (NoLocalModel)"),
        ("complete none keyless", "embedded (NoLocalModel)"),
        ("complete none keyless deep", "embedded (LastResort)"),
        ("complete none automatic bare", "NoBackend/Unavailable"),
        ("chat none", "claude (NoLocalModel)"),
        ("chat none keyless", "NoBackend/Unavailable"),
        // Modes.
        (
            "complete healthy local-only",
            "local, embedded (ModeLocalOnly)",
        ),
        ("chat healthy local-only deep", "local (HeavyButLocalOnly)"),
        ("chat healthy local-only long", "NoBackend/TooLong"),
        ("chat none local-only", "NoBackend/Unavailable"),
        (
            "complete loading local-only",
            "embedded, local (LocalLoading)",
        ),
        ("complete failed local-only", "embedded (LocalFailed)"),
        ("complete healthy claude-only", "claude (ModeClaudeOnly)"),
        ("chat healthy claude-only keyless", "NoBackend/Unauthorized"),
        (
            "complete healthy claude-only automatic",
            "Disabled/Unavailable",
        ),
        ("complete healthy claude-only denied", "Denied/Denied"),
        (
            "chat healthy claude-only claude-held",
            "BackendFailed/Unavailable",
        ),
    ] {
        check(situation, expected);
    }
}

#[test]
fn the_table_with_an_inference_server() {
    for (situation, expected) in [
        (
            "complete healthy server",
            "server, local, claude, embedded (ServerConfigured)",
        ),
        (
            "complete loading server",
            "server, claude, embedded, local (ServerConfigured)",
        ),
        (
            "complete none server automatic",
            "server, embedded (ServerConfigured)",
        ),
        ("chat none server keyless", "server (ServerConfigured)"),
        (
            "chat healthy deep server",
            "claude, server, local (HeavyEffort)",
        ),
        (
            "chat healthy deep server keyless",
            "server, local (ServerConfigured)",
        ),
        (
            "chat healthy long server keyless",
            "server (ServerConfigured)",
        ),
        (
            "complete healthy server-failed",
            "local, claude, embedded (LocalHealthy)",
        ),
        (
            "complete healthy server-automatic-off",
            "local, claude, embedded (LocalHealthy)",
        ),
        (
            "complete healthy server denied",
            "local, embedded (LocalHealthy)",
        ),
        ("chat none server denied keyless", "Denied/Denied"),
        ("chat none server-held keyless", "BackendFailed/Unavailable"),
        ("chat none server-small keyless", "NoBackend/TooLong"),
        (
            "complete healthy server local-only",
            "local, embedded (ModeLocalOnly)",
        ),
        ("chat none server local-only", "NoBackend/Unavailable"),
        (
            "complete healthy server claude-only",
            "claude (ModeClaudeOnly)",
        ),
    ] {
        check(situation, expected);
    }
}

#[test]
fn kinds_that_leave_the_machine_are_known() {
    let stay = [
        BackendKind::CoreMl,
        BackendKind::Candle,
        BackendKind::Embedded,
        BackendKind::Scripted,
    ];
    assert!(stay.into_iter().all(|kind| !leaves_the_machine(kind)));
    assert!(leaves_the_machine(BackendKind::Claude));
    assert!(leaves_the_machine(BackendKind::Server));
}
