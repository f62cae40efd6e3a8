//! Every message, held to its text: what changes here changes what other builds understand.

use expect_test::{Expect, expect};
use serde::de::DeserializeOwned;

use super::request::{WireMessage, WirePriority, WireRole, WireSampling, WireSnippet};
use super::*;
use crate::config::{BundleRuntime, ComputeDevice, ComputeEngine};
use crate::daemon::SpecSource;
use crate::inference::{
    BackendKind, ClientId, CompletionShape, Effort, ErrorKind, GenerateRequest, Sampling, Task,
};

/// `message` is written so, and what is written so is read and written the same again.
fn check<T: Serialize + DeserializeOwned>(message: &T, text: &Expect) {
    let written = serde_json::to_string(message).unwrap();
    text.assert_eq(&written);
    let read: T = serde_json::from_str(&written).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), written);
}

fn build() -> Build {
    Build {
        version: "0.1.0".to_owned(),
        built_unix_ms: 1,
    }
}

fn request(task: WireTask) -> ToDaemon {
    ToDaemon::Generate {
        id: 7,
        model: 1,
        request: Box::new(WireRequest {
            task,
            sampling: Sampling::GREEDY.into(),
            max_tokens: 64,
            stop: vec!["\n".to_owned()],
            effort: Effort::Low,
            priority: WirePriority::Inline,
        }),
    }
}

fn completion() -> WireTask {
    WireTask::Complete {
        path: Some("a.rs".to_owned()),
        language: "rust".to_owned(),
        prefix: "a".into(),
        suffix: "b".into(),
        snippets: vec![WireSnippet {
            path: "c.rs".to_owned(),
            text: "c".into(),
        }],
        shape: CompletionShape::OneLine,
    }
}

#[test]
fn what_a_session_says() {
    check(
        &ToDaemon::Hello(SessionHello {
            protocols: PROTOCOLS,
            build: build(),
            pid: 5,
            name: "lsp".to_owned(),
            works: true,
        }),
        &expect![[
            r#"{"say":"hello","protocols":{"min":1,"max":1},"build":{"version":"0.1.0","built_unix_ms":1},"pid":5,"name":"lsp","works":true}"#
        ]],
    );
    check(
        &ToDaemon::Open {
            model: 1,
            spec: ModelSpec {
                source: SpecSource::Path("/m.gguf".to_owned()),
                context_tokens: 2,
                kv_cache_bytes: 3,
                idle_unload_ms: 4,
                runtime: BundleRuntime::CandleCoreml,
                device: ComputeDevice::Cpu,
                engine: ComputeEngine::Candle,
                max_first_token_ms: 5,
                min_tokens_per_second: 6,
            },
        },
        &expect![[
            r#"{"say":"open","model":1,"spec":{"source":{"path":"/m.gguf"},"context_tokens":2,"kv_cache_bytes":3,"idle_unload_ms":4,"runtime":"candle-coreml","device":"cpu","engine":"candle","max_first_token_ms":5,"min_tokens_per_second":6}}"#
        ]],
    );
    check(
        &ToDaemon::WarmUp { model: 1 },
        &expect![[r#"{"say":"warm-up","model":1}"#]],
    );
    check(
        &ToDaemon::Cancel { id: 7 },
        &expect![[r#"{"say":"cancel","id":7}"#]],
    );
    check(
        &ToDaemon::Report {
            backends: vec![ReportedBackend {
                kind: BackendKind::Candle,
                model: "m".to_owned(),
                health: "healthy".to_owned(),
                breaker: "closed".to_owned(),
            }],
        },
        &expect![[
            r#"{"say":"report","backends":[{"kind":"candle","model":"m","health":"healthy","breaker":"closed"}]}"#
        ]],
    );
    check(&ToDaemon::Status, &expect![[r#"{"say":"status"}"#]]);
    check(&ToDaemon::Drain, &expect![[r#"{"say":"drain"}"#]]);
    check(
        &request(completion()),
        &expect![[
            r#"{"say":"generate","id":7,"model":1,"request":{"task":{"complete":{"path":"a.rs","language":"rust","prefix":"a","suffix":"b","snippets":[{"path":"c.rs","text":"c"}],"shape":"one-line"}},"sampling":{"temperature":0.0,"top_k":0,"top_p":1.0,"min_p":0.0,"repetition_penalty":1.0,"repeat_last_n":64,"seed":0},"max_tokens":64,"stop":["\n"],"effort":"low","priority":"inline"}}"#
        ]],
    );
    check(
        &request(WireTask::Chat {
            system: None,
            messages: vec![WireMessage {
                role: WireRole::User,
                text: "hi".to_owned(),
            }],
            schema: None,
        }),
        &expect![[
            r#"{"say":"generate","id":7,"model":1,"request":{"task":{"chat":{"system":null,"messages":[{"role":"user","text":"hi"}]}},"sampling":{"temperature":0.0,"top_k":0,"top_p":1.0,"min_p":0.0,"repetition_penalty":1.0,"repeat_last_n":64,"seed":0},"max_tokens":64,"stop":["\n"],"effort":"low","priority":"inline"}}"#
        ]],
    );
    check(
        &request(WireTask::Chat {
            system: None,
            messages: Vec::new(),
            schema: Some(serde_json::json!({"type": "string", "maxLength": 5})),
        }),
        &expect![[
            r#"{"say":"generate","id":7,"model":1,"request":{"task":{"chat":{"system":null,"messages":[],"schema":{"type":"string","maxLength":5}}},"sampling":{"temperature":0.0,"top_k":0,"top_p":1.0,"min_p":0.0,"repetition_penalty":1.0,"repeat_last_n":64,"seed":0},"max_tokens":64,"stop":["\n"],"effort":"low","priority":"inline"}}"#
        ]],
    );
    check(
        &request(WireTask::Edit {
            path: None,
            language: String::new(),
            before: "a".into(),
            selection: "b".into(),
            after: "c".into(),
            instruction: "d".to_owned(),
        }),
        &expect![[
            r#"{"say":"generate","id":7,"model":1,"request":{"task":{"edit":{"path":null,"language":"","before":"a","selection":"b","after":"c","instruction":"d"}},"sampling":{"temperature":0.0,"top_k":0,"top_p":1.0,"min_p":0.0,"repetition_penalty":1.0,"repeat_last_n":64,"seed":0},"max_tokens":64,"stop":["\n"],"effort":"low","priority":"inline"}}"#
        ]],
    );
}

#[test]
fn what_the_daemon_says() {
    let usage = WireUsage {
        prompt: 9,
        cached: 8,
        completion: 7,
    };
    check(
        &FromDaemon::Hello(DaemonHello {
            protocol: 1,
            build: build(),
            pid: 5,
            draining: false,
        }),
        &expect![[
            r#"{"say":"hello","protocol":1,"build":{"version":"0.1.0","built_unix_ms":1},"pid":5,"draining":false}"#
        ]],
    );
    check(
        &FromDaemon::Refused {
            why: "no".to_owned(),
            next_step: "Stop.".to_owned(),
        },
        &expect![[r#"{"say":"refused","why":"no","next_step":"Stop."}"#]],
    );
    check(
        &FromDaemon::Health {
            model: 1,
            health: WireHealth::Healthy {
                first_token_ms: Some(1.5),
                tokens_per_second: Some(2.0),
            },
            placement: Some(WirePlacement {
                requested: "cpu".to_owned(),
                observed: None,
            }),
        },
        &expect![[
            r#"{"say":"health","model":1,"health":{"state":"healthy","first_token_ms":1.5,"tokens_per_second":2.0},"placement":{"requested":"cpu","observed":null}}"#
        ]],
    );
    check(
        &FromDaemon::Count { id: 7, usage },
        &expect![[r#"{"say":"count","id":7,"usage":{"prompt":9,"cached":8,"completion":7}}"#]],
    );
    check(
        &FromDaemon::Delta {
            id: 7,
            text: "é".to_owned(),
        },
        &expect![[r#"{"say":"delta","id":7,"text":"é"}"#]],
    );
    check(
        &FromDaemon::Done {
            id: 7,
            finish: WireFinish {
                cut: true,
                usage,
                model: None,
            },
        },
        &expect![[
            r#"{"say":"done","id":7,"finish":{"cut":true,"usage":{"prompt":9,"cached":8,"completion":7},"model":null}}"#
        ]],
    );
    check(
        &FromDaemon::Failed {
            id: 7,
            error: WireError {
                kind: ErrorKind::TooLong,
                message: "m".to_owned(),
                next_step: "n".to_owned(),
                retry_after_ms: None,
            },
        },
        &expect![[
            r#"{"say":"failed","id":7,"error":{"kind":"too-long","message":"m","next_step":"n","retry_after_ms":null}}"#
        ]],
    );
}

#[test]
fn what_the_daemon_says_of_itself() {
    check(&FromDaemon::Beat, &expect![[r#"{"say":"beat"}"#]]);
    check(&FromDaemon::Draining, &expect![[r#"{"say":"draining"}"#]]);
    check(
        &FromDaemon::Status(Box::new(DaemonStatus {
            build: build(),
            pid: 5,
            uptime_ms: 6,
            resident_bytes: None,
            draining: false,
            models: Vec::new(),
            sessions: vec![SessionStatus {
                name: "lsp".to_owned(),
                pid: 6,
                build: build(),
                connected_ms: 7,
                in_flight: 0,
                requests: 8,
                backends: Vec::new(),
            }],
        })),
        &expect![[
            r#"{"say":"status","build":{"version":"0.1.0","built_unix_ms":1},"pid":5,"uptime_ms":6,"resident_bytes":null,"draining":false,"models":[],"sessions":[{"name":"lsp","pid":6,"build":{"version":"0.1.0","built_unix_ms":1},"connected_ms":7,"in_flight":0,"requests":8,"backends":[]}]}"#
        ]],
    );
}

#[test]
fn what_a_newer_build_says_is_passed_over() {
    let message = serde_json::from_str(r#"{"say":"sing","song":"la"}"#).unwrap();
    assert!(matches!(message, ToDaemon::Unknown));
    let message = serde_json::from_str(r#"{"say":"beat","loud":true}"#).unwrap();
    assert!(matches!(message, FromDaemon::Beat));
    let message = serde_json::from_str(r#"{"say":"dance"}"#).unwrap();
    assert!(matches!(message, FromDaemon::Unknown));
}

#[test]
fn the_newest_common_protocol_is_spoken() {
    let protocols = |min, max| Protocols { min, max };
    for (ours, theirs, common) in [
        (protocols(1, 1), protocols(1, 1), Some(1)),
        (protocols(1, 3), protocols(2, 5), Some(3)),
        (protocols(2, 5), protocols(1, 3), Some(3)),
        (protocols(1, 1), protocols(2, 3), None),
        (protocols(4, 5), protocols(2, 3), None),
    ] {
        assert_eq!(ours.common(theirs), common, "{ours:?} {theirs:?}");
    }
}

#[test]
fn a_request_arrives_as_it_was_sent_and_leaves_where_files_lie_behind() {
    let wire = WireRequest {
        task: completion(),
        sampling: WireSampling {
            temperature: 0.5,
            top_k: 1,
            top_p: 0.9,
            min_p: 0.1,
            repetition_penalty: 1.5,
            repeat_last_n: 2,
            seed: u64::MAX,
        },
        max_tokens: 5,
        stop: vec!["x".to_owned()],
        effort: Effort::High,
        priority: WirePriority::Background,
    };
    let mut request: GenerateRequest = wire.clone().of(ClientId(3)).unwrap();
    assert_eq!(request.client, ClientId(3));
    if let Task::Complete(task) = &mut request.task {
        task.snippets[0].file = Some("/home/a/c.rs".into());
    }
    let again = WireRequest::from(&request);
    assert_eq!(again, wire);
    let text = serde_json::to_string(&again).unwrap();
    assert!(!text.contains("/home"), "{text}");
    assert_eq!(serde_json::from_str::<WireRequest>(&text).unwrap(), wire);
}

#[test]
fn a_schema_travels_and_one_that_is_none_is_refused() {
    let mut wire = WireRequest {
        task: WireTask::Chat {
            system: None,
            messages: Vec::new(),
            schema: Some(serde_json::json!({"properties": {"b": {}, "a": {}}})),
        },
        sampling: Sampling::GREEDY.into(),
        max_tokens: 5,
        stop: Vec::new(),
        effort: Effort::Low,
        priority: WirePriority::Tool,
    };
    let request = wire.clone().of(ClientId(3)).unwrap();
    let text = serde_json::to_string(&WireRequest::from(&request)).unwrap();
    // Members keep their order, which is that of the answer's.
    assert!(text.contains(r#"{"properties":{"b":{},"a":{}}}"#), "{text}");
    wire.task = WireTask::Chat {
        system: None,
        messages: Vec::new(),
        schema: Some(serde_json::json!({"type": 5})),
    };
    let error = wire.of(ClientId(3)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidRequest);
}
