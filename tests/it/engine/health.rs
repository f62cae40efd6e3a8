//! What a model must show before it counts as healthy, and what happens to one that stops: with a
//! model that does as it is told, and a clock that only the test moves.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tandem::backend::local::loader::Loaded;
use tandem::backend::local::probe::{Canary, Floor};
use tandem::backend::local::queue::Clock;
use tandem::backend::local::sampler::Scores;
use tandem::backend::local::sequence::{ReleasedStates, Sequence, StateHandle};
use tandem::backend::local::stamp::{ABSENCE, Files, Stamp};
use tandem::backend::local::tokenizer::Tokenizer;
use tandem::backend::local::watchdog::{LOAD_LIMIT, STEP_LIMIT};
use tandem::backend::local::window::Window;
use tandem::backend::local::worker::{Worker, WorkerOptions};
use tandem::backend::local::{LanguageModel, ModelSource, Prefill};
use tandem::inference::{
    ErrorKind, Event, GenerateError, Health, Placement, Priority, TokenStream,
};
use tandem::prompt::profile::Prompting;
use tokio_util::sync::CancellationToken;

use super::backend::complete;
use super::fixture;

const ROWS: usize = 384;
const BATCH: usize = 16;

/// What the model does.
#[derive(Clone, Copy, Default)]
struct Script {
    /// Insists on batches.
    batched: bool,
    /// Batches give other logits than single tokens.
    batches_differ: bool,
    not_finite: bool,
    /// Every forward pass takes so long.
    pass: Duration,
    golden: Option<[u32; 3]>,
}

/// What the test and the model share.
struct Stage {
    script: Script,
    start: Instant,
    elapsed: Mutex<Duration>,
    /// While set, a forward pass waits for the other end to be dropped.
    hangs: AtomicBool,
    load_hangs: AtomicBool,
    gate: Mutex<Receiver<()>>,
    loads: AtomicUsize,
    dropped: AtomicUsize,
    token_by_token: AtomicBool,
}

impl Stage {
    fn advance(&self, by: Duration) {
        *self.elapsed.lock().unwrap() += by;
    }

    /// Hangs until the test lets go of the gate. Only the first to come hangs.
    fn hang(&self, switch: &AtomicBool) {
        if switch.swap(false, Ordering::SeqCst) {
            let gate = self.gate.lock().unwrap();
            assert!(gate.recv().is_err(), "the gate only closes");
        }
    }
}

/// Says the tokens 1, 2, 3, 4 and so on by their position.
struct Fake(Arc<Stage>);

impl Drop for Fake {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl LanguageModel for Fake {
    fn sequence(&mut self) -> Result<Sequence, GenerateError> {
        let handle = StateHandle::new(0, 100, &ReleasedStates::default());
        Ok(Sequence::in_state(handle))
    }

    fn forward(
        &mut self,
        tokens: &[u32],
        sequence: &mut Sequence,
        scores: Option<&mut Scores>,
    ) -> Result<(), GenerateError> {
        self.0.hang(&self.0.hangs);
        self.0.advance(self.0.script.pass);
        let batch = tokens.len() > 1 && self.0.script.batches_differ;
        sequence.push(tokens);
        if let Some(scores) = scores {
            scores.logits.clear();
            scores.logits.resize(ROWS, 0.0);
            scores.logits[sequence.len() % 100] = if batch { 3.0 } else { 1.0 };
            if self.0.script.not_finite {
                scores.logits[0] = f32::NAN;
            }
        }
        Ok(())
    }

    /// It says the same whatever was begun, so no answer is to begin with that.
    fn gives_logits(&self) -> bool {
        false
    }

    fn window(&self) -> Window {
        Window::fixed(2000)
    }

    fn block(&self) -> Option<usize> {
        self.0.script.batched.then_some(BATCH)
    }

    fn set_prefill(&mut self, prefill: Prefill) {
        let token_by_token = prefill == Prefill::TokenByToken;
        self.0
            .token_by_token
            .store(token_by_token, Ordering::SeqCst);
    }
}

struct Rig {
    worker: Worker,
    stage: Arc<Stage>,
    gate: Option<Sender<()>>,
}

impl Rig {
    fn new(script: Script) -> Self {
        Self::of(script, Files::default())
    }

    fn of(script: Script, files: Files) -> Self {
        Self::from(script, files, Health::Unloaded)
    }

    fn from(script: Script, files: Files, health: Health) -> Self {
        let (gate, closed) = channel();
        let stage = Arc::new(Stage {
            script,
            start: Instant::now(),
            elapsed: Mutex::default(),
            hangs: AtomicBool::default(),
            load_hangs: AtomicBool::default(),
            gate: Mutex::new(closed),
            loads: AtomicUsize::default(),
            dropped: AtomicUsize::default(),
            token_by_token: AtomicBool::default(),
        });
        let told = Arc::clone(&stage);
        let load = move || {
            told.loads.fetch_add(1, Ordering::SeqCst);
            told.hang(&told.load_hangs);
            let json = fs::read(fixture("qwen3-tiny/tokenizer.json")).unwrap();
            let canary = told.script.golden.map(|greedy| Canary {
                prompt: vec![5; 20],
                greedy: greedy.to_vec(),
            });
            Ok(Loaded {
                model: Box::new(Fake(Arc::clone(&told))),
                tokenizer: Tokenizer::from_json(&json, ROWS, "tokenizer.json")?,
                context_tokens: 2000,
                ends: Arc::default(),
                completion_ends: Arc::default(),
                prompting: Prompting::continuation(),
                chat: None,
                canary,
                placement: Placement {
                    requested: "chip".into(),
                    observed: Some("half of the chip".into()),
                },
            })
        };
        let time = Arc::clone(&stage);
        let options = WorkerOptions {
            kv_cache_bytes: 1 << 20,
            idle_unload: Duration::from_hours(24),
            floor: Floor::default(),
            placement: Placement {
                requested: "chip".into(),
                observed: None,
            },
            files,
            clock: Clock::new(move || time.start + *time.elapsed.lock().unwrap()),
        };
        Self {
            worker: Worker::start(Arc::new(load), options, health).unwrap(),
            stage,
            gate: Some(gate),
        }
    }

    fn ask(&self) -> TokenStream {
        let cancel = CancellationToken::new();
        let (sender, stream) = TokenStream::channel(cancel.clone());
        let mut request = complete("let x = ", "", 4);
        request.priority = Priority::Inline;
        self.worker.submit(request, cancel, sender);
        stream
    }

    fn advance(&self, by: Duration) {
        self.stage.advance(by);
        self.worker.look_at_clock();
    }

    /// The health once it is one that `wanted` names.
    async fn until(&self, wanted: &[&str]) -> Health {
        let mut health = self.worker.health();
        let there = health.wait_for(|health| wanted.contains(&health.word()));
        there.await.unwrap().clone()
    }

    /// The health once a load has ended.
    async fn probed(&self) -> Health {
        self.worker.warm_up();
        self.until(&["healthy", "degraded", "failed"]).await
    }
}

/// Probes a model; its health must be `state` and, where there is trouble, name all of `named`.
async fn check(script: Script, state: &str, named: &[&str]) {
    let rig = Rig::new(script);
    let health = rig.probed().await;
    assert_eq!(health.word(), state, "{health:?}");
    let trouble = health.trouble().unwrap_or_default();
    for name in named {
        assert!(trouble.contains(name), "{name} is not in {trouble}");
    }
    assert!(trouble.is_empty() || trouble.ends_with('.'), "{trouble}");
    // What is degraded still answers.
    let answer = rig.ask().collect().await;
    assert_eq!(answer.is_ok(), state != "failed");
}

#[tokio::test]
async fn a_model_is_as_healthy_as_what_it_generates() {
    let good = Script::default();
    check(good, "healthy", &[]).await;
    let golden = Some([20, 21, 22]);
    check(Script { golden, ..good }, "healthy", &[]).await;
    let golden = Some([20, 21, 99]);
    let named = ["[20, 21, 22]", "[20, 21, 99]"];
    check(Script { golden, ..good }, "failed", &named).await;
    let not_finite = true;
    check(Script { not_finite, ..good }, "failed", &["not finite"]).await;
    // 150 ms a pass: soon enough, and 6.7 tokens a second.
    let pass = Duration::from_millis(150);
    let named = ["too slow", "150 ms", "6.7 tokens/s (at least 10)"];
    check(Script { pass, ..good }, "degraded", &named).await;
    let pass = Duration::from_millis(20);
    check(Script { pass, ..good }, "healthy", &[]).await;
}

#[tokio::test]
async fn a_model_whose_batches_are_wrong_computes_token_by_token_and_says_so() {
    let script = Script {
        batched: true,
        ..Script::default()
    };
    check(script, "healthy", &[]).await;
    let rig = Rig::new(Script {
        batches_differ: true,
        ..script
    });
    let health = rig.probed().await;
    assert_eq!(health.word(), "degraded", "{health:?}");
    let why = health.trouble().unwrap();
    assert!(
        why.contains("token by token") && why.contains("2.00"),
        "{why}"
    );
    assert!(rig.stage.token_by_token.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_probe_that_failed_is_repeated_after_longer_and_longer() {
    let rig = Rig::new(Script {
        not_finite: true,
        ..Script::default()
    });
    for (loads, wait) in [
        (1, 30),
        (2, 60),
        (3, 120),
        (4, 240),
        (5, 480),
        (6, 600),
        (7, 600),
    ] {
        let Health::Failed { retry_after, .. } = rig.probed().await else {
            panic!("not failed")
        };
        let wait = Duration::from_secs(wait);
        assert_eq!(retry_after, Some(wait));
        // Not a moment earlier.
        rig.advance(wait.saturating_sub(Duration::from_millis(1)));
        let error = rig.ask().collect().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Backend);
        assert_eq!(rig.stage.loads.load(Ordering::SeqCst), loads);
        rig.advance(Duration::from_millis(1));
        rig.until(&["unloaded"]).await;
    }
}

#[tokio::test]
async fn a_prediction_that_never_returns_fails_what_waits_and_a_fresh_thread_goes_on() {
    let mut rig = Rig::new(Script::default());
    assert_eq!(rig.probed().await.word(), "healthy");
    rig.stage.hangs.store(true, Ordering::SeqCst);
    let mut stuck = rig.ask();
    // The model is inside the prediction once it has taken the switch.
    while rig.stage.hangs.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    let waiting = rig.ask();
    rig.advance(STEP_LIMIT);
    let Some(Event::Failed(error)) = stuck.next().await else {
        panic!("not failed")
    };
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert!(error.may_fall_back() && error.is_backend_fault());
    let health = rig.until(&["failed"]).await;
    let Health::Failed { retry_after, .. } = health else {
        panic!("{health:?}")
    };
    assert_eq!(retry_after, Some(Duration::from_secs(30)));
    // The one that had not begun learns the same, from the fresh thread.
    let error = waiting.collect().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    // After the wait the model is loaded anew, although the first thread still hangs.
    rig.advance(Duration::from_secs(30));
    rig.until(&["unloaded"]).await;
    assert_eq!(
        rig.ask()
            .collect()
            .await
            .unwrap()
            .finish
            .usage
            .completion_tokens,
        4
    );
    assert_eq!(rig.until(&["healthy"]).await.word(), "healthy");
    assert_eq!(rig.stage.loads.load(Ordering::SeqCst), 2);
    assert_eq!(rig.stage.dropped.load(Ordering::SeqCst), 0);
    // When its prediction returns at last, it drops its model and says nothing.
    rig.gate = None;
    while rig.stage.dropped.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.worker.health().borrow().word(), "healthy");
    assert_eq!(stuck.next().await, None);
}

#[tokio::test]
async fn a_load_may_take_minutes_and_not_for_ever() {
    let rig = Rig::new(Script::default());
    rig.stage.load_hangs.store(true, Ordering::SeqCst);
    rig.worker.warm_up();
    let asked = rig.ask();
    while rig.stage.load_hangs.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    rig.advance(LOAD_LIMIT.saturating_sub(Duration::from_secs(1)));
    assert_eq!(rig.until(&["loading", "failed"]).await.word(), "loading");
    rig.advance(Duration::from_secs(1));
    let error = asked.collect().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert_eq!(rig.until(&["failed"]).await.word(), "failed");
}

#[tokio::test]
async fn hardware_that_was_asked_for_and_hardware_that_was_seen_are_two_things() {
    let rig = Rig::new(Script::default());
    let asked = "requested chip, observed nothing yet";
    assert_eq!(rig.worker.placement().to_string(), asked);
    rig.probed().await;
    let seen = "requested chip, observed half of the chip";
    assert_eq!(rig.worker.placement().to_string(), seen);
}

#[tokio::test]
async fn a_model_whose_file_was_replaced_is_loaded_anew_and_not_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, "old").unwrap();
    let files = Files::of(ModelSource::Gguf(path.clone()));
    let rig = Rig::of(Script::default(), files);
    // Asks after more than a second; how often the model was loaded by then.
    let loads = async || {
        rig.advance(Duration::from_secs(2));
        rig.ask().collect().await.unwrap();
        rig.stage.loads.load(Ordering::SeqCst)
    };
    assert_eq!((loads().await, loads().await), (1, 1));
    // While it is written to, each look sees another file.
    for part in ["new, ", "new, and ", "new, and whole"] {
        fs::write(&path, part).unwrap();
        rig.ask().collect().await.unwrap();
        assert_eq!(loads().await, 1, "{part}");
        fs::write(&path, format!("{part}.")).unwrap();
    }
    // It stands still: without a request it is let go of, with the next it is there.
    assert_eq!(loads().await, 1);
    rig.advance(Duration::from_secs(2));
    rig.until(&["unloaded"]).await;
    assert_eq!((loads().await, loads().await), (2, 2));
    assert_eq!(rig.stage.dropped.load(Ordering::SeqCst), 1);
    // What is gone goes on from memory.
    fs::remove_file(&path).unwrap();
    assert_eq!((loads().await, loads().await), (2, 2));
}

#[tokio::test]
async fn a_model_that_was_not_there_is_noticed_once_its_file_has_come() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let source = ModelSource::Gguf(path.clone());
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    let files = Files::new(move || {
        let stamp = Stamp::of(&source);
        counted.fetch_add(1, Ordering::SeqCst);
        stamp
    });
    let absent = Health::Absent { why: String::new() };
    let rig = Rig::from(Script::default(), files, absent);
    let looked = async |times: usize| {
        while looks.load(Ordering::SeqCst) < times {
            tokio::task::yield_now().await;
        }
    };
    looked(1).await;
    fs::write(&path, "whole").unwrap();
    rig.advance(ABSENCE);
    looked(2).await;
    assert_eq!(rig.worker.health().borrow().word(), "absent");
    // A second look sees the same: nobody writes to it any more.
    rig.advance(ABSENCE);
    rig.until(&["unloaded"]).await;
    assert_eq!(rig.stage.loads.load(Ordering::SeqCst), 0);
    rig.ask().collect().await.unwrap();
    assert_eq!(rig.until(&["healthy"]).await.word(), "healthy");
}
