//! The model's thread with a model that does as it is told: order, cancels, failures.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tandem::backend::local::LanguageModel;
use tandem::backend::local::loader::Loaded;
use tandem::backend::local::probe::Floor;
use tandem::backend::local::queue::Clock;
use tandem::backend::local::sampler::Scores;
use tandem::backend::local::sequence::{ReleasedStates, Sequence, StateHandle};
use tandem::backend::local::stamp::Files;
use tandem::backend::local::threads;
use tandem::backend::local::tokenizer::Tokenizer;
use tandem::backend::local::window::Window;
use tandem::backend::local::worker::{MAX_WAITING, Worker, WorkerOptions};
use tandem::inference::{
    ClientId, ErrorKind, Event, FinishReason, GenerateError, GenerateRequest, Health, Priority,
    TokenStream,
};
use tandem::prompt::Vocabulary;
use tandem::prompt::profile::Prompting;
use tokio_util::sync::CancellationToken;

use super::backend::complete;
use super::fixture;

const ROWS: usize = 384;

/// What the model does, and what it has done.
#[derive(Default)]
struct Script {
    /// While set, every forward pass waits for a permit.
    gated: AtomicBool,
    /// While set, every forward pass takes until it is cancelled.
    endless: AtomicBool,
    forwards: AtomicUsize,
    loads: AtomicUsize,
    panics: AtomicBool,
    not_finite: AtomicBool,
    /// Says something else with every pass.
    wavers: AtomicBool,
    /// Permits to do one of three things that can wait.
    may_settle: Mutex<Option<Receiver<()>>>,
    settled: AtomicUsize,
}

struct Fake {
    script: Arc<Script>,
    permits: Receiver<()>,
    cancel: Option<CancellationToken>,
    says: u32,
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
        if self.script.gated.load(Ordering::SeqCst) {
            let _ = self.permits.recv_timeout(Duration::from_secs(20));
        }
        let endless = self.script.endless.load(Ordering::SeqCst);
        let passes = self.script.forwards.fetch_add(1, Ordering::SeqCst);
        if endless {
            let cancel = self.cancel.as_ref().expect("whom to heed");
            let started = Instant::now();
            while !cancel.is_cancelled() {
                assert!(
                    started.elapsed() < Duration::from_secs(20),
                    "never cancelled"
                );
                thread::sleep(Duration::from_millis(1));
            }
            return Err(GenerateError::cancelled());
        }
        assert!(!self.script.panics.load(Ordering::SeqCst), "as told");
        sequence.push(tokens);
        let Some(scores) = scores else {
            return Ok(());
        };
        let logits = &mut scores.logits;
        logits.clear();
        logits.resize(ROWS, 0.0);
        logits[self.says as usize] = 1.0;
        if self.script.not_finite.load(Ordering::SeqCst) {
            logits[7] = f32::NAN;
        }
        if self.script.wavers.load(Ordering::SeqCst) {
            logits[passes % ROWS] = 2.0;
        }
        Ok(())
    }

    fn heed(&mut self, cancel: Option<&CancellationToken>) {
        self.cancel = cancel.cloned();
    }

    fn settle(&mut self) -> bool {
        let Some(permits) = &*self.script.may_settle.lock().unwrap() else {
            return false;
        };
        let _ = permits.recv_timeout(Duration::from_secs(20));
        self.script.settled.fetch_add(1, Ordering::SeqCst) < 2
    }

    /// It says the same whatever was begun, so no answer is to begin with that.
    fn gives_logits(&self) -> bool {
        false
    }

    fn window(&self) -> Window {
        Window::fixed(2000)
    }
}

struct Rig {
    worker: Worker,
    script: Arc<Script>,
    permits: SyncSender<()>,
}

impl Rig {
    /// A worker whose model says `a` without end.
    fn new(script: Script) -> Self {
        let script = Arc::new(script);
        let (permits, receiver) = sync_channel(1024);
        let receiver = Mutex::new(Some(receiver));
        let told = Arc::clone(&script);
        let load = move || {
            told.loads.fetch_add(1, Ordering::SeqCst);
            let json = fs::read(fixture("qwen3-tiny/tokenizer.json")).unwrap();
            let tokenizer = Tokenizer::from_json(&json, ROWS, "tokenizer.json")?;
            let says = tokenizer.encode("a").unwrap()[0];
            Ok(Loaded {
                model: Box::new(Fake {
                    script: Arc::clone(&told),
                    permits: receiver
                        .lock()
                        .unwrap()
                        .take()
                        .unwrap_or_else(|| sync_channel(1).1),
                    cancel: None,
                    says,
                }),
                tokenizer,
                context_tokens: 2000,
                ends: Arc::default(),
                completion_ends: Arc::default(),
                prompting: Prompting::continuation(),
                chat: None,
                canary: None,
                placement: threads::requested(),
            })
        };
        let options = WorkerOptions {
            kv_cache_bytes: 1 << 20,
            idle_unload: Duration::from_mins(10),
            floor: Floor::default(),
            placement: threads::requested(),
            clock: Clock::default(),
            files: Files::default(),
        };
        let worker = Worker::start(Arc::new(load), options, Health::Unloaded).unwrap();
        Self {
            worker,
            script,
            permits,
        }
    }

    /// Loaded and probed; from here on the model takes one step a permit.
    async fn gated() -> Self {
        let rig = Self::new(Script::default());
        rig.worker.warm_up();
        let mut health = rig.worker.health();
        let healthy = |health: &Health| matches!(health, Health::Healthy { .. });
        health.wait_for(healthy).await.unwrap();
        rig.script.gated.store(true, Ordering::SeqCst);
        rig
    }

    fn allow(&self, steps: usize) {
        for _ in 0..steps {
            self.permits.send(()).unwrap();
        }
    }

    fn generate(&self, request: GenerateRequest, cancel: &CancellationToken) -> TokenStream {
        let cancel = cancel.child_token();
        let (sender, stream) = TokenStream::channel(cancel.clone());
        self.worker.submit(request, cancel, sender);
        stream
    }
}

fn ask(max_tokens: usize, priority: Priority) -> GenerateRequest {
    GenerateRequest {
        client: ClientId::default(),
        priority,
        ..complete("let x = ", "", max_tokens)
    }
}

#[tokio::test]
async fn a_cancel_takes_effect_within_one_token() {
    let rig = Rig::gated().await;
    let cancel = CancellationToken::new();
    let mut stream = rig.generate(ask(500, Priority::Inline), &cancel);
    rig.allow(1);
    assert_eq!(stream.next().await, Some(Event::Delta("a".into())));
    let before = rig.script.forwards.load(Ordering::SeqCst);
    cancel.cancel();
    // The next one is served although the first asked for 499 tokens more; at most one of those
    // was in the making.
    let second = rig.generate(ask(2, Priority::Inline), &CancellationToken::new());
    rig.allow(3);
    let second = second.collect().await.unwrap();
    assert_eq!(second.text, "aa");
    assert!(rig.script.forwards.load(Ordering::SeqCst) - before <= 3);
    // The token that was in the making may still have been told.
    let mut last = stream.next().await;
    if matches!(last, Some(Event::Delta(_))) {
        last = stream.next().await;
    }
    let Some(Event::Failed(error)) = last else {
        panic!("{last:?} is not the end")
    };
    assert_eq!(error.kind, ErrorKind::Cancelled);
}

/// A forward pass that would take forever.
#[tokio::test]
async fn a_cancel_ends_what_is_being_computed() {
    let rig = Rig::gated().await;
    rig.script.gated.store(false, Ordering::SeqCst);
    rig.script.endless.store(true, Ordering::SeqCst);
    let before = rig.script.forwards.load(Ordering::SeqCst);
    let cancel = CancellationToken::new();
    let first = rig.generate(ask(5, Priority::Inline), &cancel);
    while rig.script.forwards.load(Ordering::SeqCst) == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    rig.script.endless.store(false, Ordering::SeqCst);
    cancel.cancel();
    let second = rig.generate(ask(2, Priority::Inline), &CancellationToken::new());
    assert_eq!(second.collect().await.unwrap().text, "aa");
    let error = first.collect().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
    let health = rig.worker.health().borrow().clone();
    assert!(matches!(health, Health::Healthy { .. }), "{health:?}");
}

#[tokio::test]
async fn a_more_urgent_request_goes_first_and_the_other_goes_on() {
    let rig = Rig::gated().await;
    let never = CancellationToken::new();
    let mut tool = rig.generate(ask(40, Priority::Tool), &never);
    rig.allow(1);
    assert_eq!(tool.next().await, Some(Event::Delta("a".into())));
    let background = rig.generate(ask(3, Priority::Background), &never);
    let inline = rig.generate(ask(4, Priority::Inline), &never);
    // One step of the tool's answer may have begun.
    rig.allow(5);
    let inline = inline.collect().await.unwrap();
    assert_eq!(inline.text, "aaaa");
    rig.script.gated.store(false, Ordering::SeqCst);
    rig.allow(1);
    let tool = tool.collect().await.unwrap();
    assert_eq!(tool.text.len(), 39);
    assert_eq!(tool.finish.reason, FinishReason::Length);
    assert_eq!(background.collect().await.unwrap().text, "aaa");
}

#[tokio::test]
async fn a_reader_that_stands_still_keeps_nobody_waiting() {
    let rig = Rig::new(Script::default());
    let never = CancellationToken::new();
    let unread = rig.generate(ask(900, Priority::Inline), &never);
    for _ in 0..3 {
        let answer = rig.generate(ask(2, Priority::Tool), &never);
        assert_eq!(answer.collect().await.unwrap().text, "aa");
    }
    assert_eq!(unread.collect().await.unwrap().text.len(), 900);
}

#[tokio::test]
async fn a_panic_in_the_model_fails_the_request_and_not_the_thread() {
    let rig = Rig::gated().await;
    let never = CancellationToken::new();
    let first = rig.generate(ask(5, Priority::Inline), &never);
    rig.script.panics.store(true, Ordering::SeqCst);
    rig.allow(1);
    let error = first.collect().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Backend);
    let health = rig.worker.health();
    let Health::Failed { retry_after, .. } = health.borrow().clone() else {
        panic!("not failed")
    };
    assert!(retry_after.is_some());
    // The thread answers, and does not load again at once.
    let again = rig.generate(ask(5, Priority::Inline), &never);
    assert_eq!(again.collect().await.unwrap_err(), error);
    assert_eq!(rig.script.loads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_model_that_cannot_generate_is_never_healthy() {
    for script in [
        Script {
            not_finite: true.into(),
            ..Script::default()
        },
        Script {
            wavers: true.into(),
            ..Script::default()
        },
        Script {
            panics: true.into(),
            ..Script::default()
        },
    ] {
        let rig = Rig::new(script);
        let answer = rig.generate(ask(5, Priority::Inline), &CancellationToken::new());
        let error = answer.collect().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Backend);
        let health = rig.worker.health();
        assert!(matches!(*health.borrow(), Health::Failed { .. }));
    }
}

#[tokio::test]
async fn numbers_that_are_not_finite_fail_one_answer() {
    let rig = Rig::gated().await;
    let never = CancellationToken::new();
    rig.script.not_finite.store(true, Ordering::SeqCst);
    rig.allow(1);
    let answer = rig.generate(ask(5, Priority::Inline), &never);
    let error = answer.collect().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Backend);
}

#[tokio::test]
async fn a_full_queue_says_so_at_once_and_cancelled_requests_leave_it() {
    let rig = Rig::gated().await;
    let cancel = CancellationToken::new();
    let streams: Vec<TokenStream> = (0..=MAX_WAITING)
        .map(|_| rig.generate(ask(5, Priority::Inline), &cancel))
        .collect();
    let refused = rig.generate(ask(5, Priority::Inline), &CancellationToken::new());
    assert_eq!(
        refused.collect().await.unwrap_err().kind,
        ErrorKind::Unavailable
    );
    cancel.cancel();
    drop(streams);
    let served = rig.generate(ask(2, Priority::Inline), &CancellationToken::new());
    rig.allow(4);
    assert_eq!(served.collect().await.unwrap().text, "aa");
}

fn ask_of(client: u64, max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        client: ClientId(client),
        ..ask(max_tokens, Priority::Inline)
    }
}

#[tokio::test]
async fn a_client_that_floods_holds_another_up_by_one_answer() {
    let rig = Rig::gated().await;
    let never = CancellationToken::new();
    let flood: Vec<TokenStream> = (0..50)
        .map(|_| rig.generate(ask_of(1, 2), &never))
        .collect();
    let single = rig.generate(ask_of(2, 2), &never);
    // Two tokens for the one answer that may have begun, two for this one.
    rig.allow(4);
    assert_eq!(single.collect().await.unwrap().text, "aa");
    let counted = rig.worker.statistics();
    assert!(
        counted.answered <= 2 && counted.waiting >= 48,
        "{counted:?}"
    );
    rig.script.gated.store(false, Ordering::SeqCst);
    rig.allow(1);
    for stream in flood {
        assert_eq!(stream.collect().await.unwrap().text, "aa");
    }
}

#[tokio::test]
async fn a_queue_that_one_client_fills_takes_anothers_request() {
    let rig = Rig::gated().await;
    let never = CancellationToken::new();
    let flood = MAX_WAITING + 16;
    let mut streams: Vec<TokenStream> = (0..flood)
        .map(|_| rig.generate(ask_of(1, 2), &never))
        .collect();
    for _ in 0..3 {
        streams.push(rig.generate(ask_of(2, 2), &never));
    }
    rig.script.gated.store(false, Ordering::SeqCst);
    rig.allow(1);
    let mut refused = Vec::new();
    for (index, stream) in streams.into_iter().enumerate() {
        match stream.collect().await {
            Ok(answer) => assert_eq!(answer.text, "aa"),
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::Unavailable);
                refused.push(index);
            }
        }
    }
    // One may have begun before the queue was full. The others' three took the places of the newest
    // that waited.
    let kept = flood - refused.len();
    assert!(
        (MAX_WAITING - 3..=MAX_WAITING - 2).contains(&kept),
        "{refused:?}"
    );
    assert_eq!(refused, (kept..flood).collect::<Vec<_>>());
    let counted = rig.worker.statistics();
    assert_eq!(
        counted.answered + counted.failed,
        flood as u64 + 3,
        "{counted:?}"
    );
    assert_eq!(
        (counted.waiting, counted.active, counted.cancelled),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn readers_that_stand_still_take_no_place_from_another_client() {
    let rig = Rig::new(Script::default());
    let never = CancellationToken::new();
    let unread: Vec<TokenStream> = (0..10)
        .map(|_| rig.generate(ask_of(1, 400), &never))
        .collect();
    for _ in 0..12 {
        let answer = rig.generate(ask_of(2, 2), &never);
        assert_eq!(answer.collect().await.unwrap().text, "aa");
    }
    for stream in unread {
        assert_eq!(stream.collect().await.unwrap().text.len(), 400);
    }
}

/// One thing after another, and none before an answer.
#[tokio::test]
async fn what_can_wait_is_done_once_nothing_is_asked() {
    let (permits, receiver) = sync_channel(1024);
    let rig = Rig::new(Script {
        may_settle: Mutex::new(Some(receiver)),
        ..Script::default()
    });
    let settled = || rig.script.settled.load(Ordering::SeqCst);
    let never = CancellationToken::new();
    let first = rig.generate(ask(3, Priority::Inline), &never);
    assert_eq!(first.collect().await.unwrap().text, "aaa");
    assert_eq!(settled(), 0);
    let second = rig.generate(ask(3, Priority::Background), &never);
    permits.send(()).unwrap();
    assert_eq!(second.collect().await.unwrap().text, "aaa");
    assert!(settled() <= 1);
    for _ in 0..8 {
        permits.send(()).unwrap();
    }
    let started = Instant::now();
    while settled() < 3 {
        assert!(started.elapsed() < Duration::from_secs(20), "never done");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // There is nothing more to do.
    let third = rig.generate(ask(3, Priority::Inline), &never);
    third.collect().await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(settled(), 3);
}

#[tokio::test]
async fn what_was_done_is_counted_once() {
    let rig = Rig::gated().await;
    let never = CancellationToken::new();
    let before = rig.worker.statistics();
    assert_eq!((before.loads, before.answered, before.active), (1, 0, 0));
    assert!(before.tokens_per_second.abs() < f64::EPSILON);

    let mut begun = rig.generate(ask_of(1, 4), &never);
    rig.allow(1);
    assert_eq!(begun.next().await, Some(Event::Delta("a".into())));
    let cancel = CancellationToken::new();
    let waits = rig.generate(ask_of(2, 4), &cancel);
    let now = rig.worker.statistics();
    assert_eq!((now.active, now.waiting, now.answered), (1, 1, 0));
    assert!(now.prompt_tokens > 0);
    cancel.cancel();
    assert_eq!(rig.worker.statistics().waiting, 0);
    rig.allow(3);
    let first = begun.collect().await.unwrap().finish.usage;
    assert_eq!(
        waits.collect().await.unwrap_err().kind,
        ErrorKind::Cancelled
    );

    rig.script.gated.store(false, Ordering::SeqCst);
    let again = rig.generate(ask_of(1, 4), &never);
    let again = again.collect().await.unwrap().finish.usage;
    let counted = rig.worker.statistics();
    assert_eq!(counted.cached_tokens, again.cached_tokens as u64);
    assert!(counted.cached_tokens > 0);
    let prompts = first.prompt_tokens + again.prompt_tokens;
    assert_eq!(counted.prompt_tokens, prompts as u64);
    assert_eq!(counted.completion_tokens, 8);
    assert!(counted.tokens_per_second > 0.0);
    assert_eq!((counted.kv_sequences, counted.kv_bytes), (1, 100));

    rig.script.panics.store(true, Ordering::SeqCst);
    let failed = rig.generate(ask_of(1, 4), &never);
    failed.collect().await.unwrap_err();
    let counted = rig.worker.statistics();
    assert_eq!(
        (counted.answered, counted.failed, counted.cancelled),
        (2, 1, 1)
    );
    assert_eq!((counted.kv_sequences, counted.kv_bytes), (0, 0));
    assert_eq!((counted.waiting, counted.active, counted.loads), (0, 0, 1));
}
