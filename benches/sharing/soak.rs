//! The soak: sessions that complete, cancel, read slowly and are killed, and a daemon that is killed
//! under them. Every request must end exactly once, and nothing may grow or stay behind.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::home::{self, Home};

/// Sessions at once.
const SESSIONS: usize = 8;

/// Between two kills of a session.
const SESSION_KILL: (u64, u64) = (4, 10);

/// Between two kills of the daemon, in seconds; now and then soon enough for a crash loop.
const DAEMON_KILL: (u64, u64) = (10, 50);

/// The share of requests that are cancelled.
const CANCELLED: f64 = 0.15;

/// The share of requests after which a client reads nothing for a while.
const SLOW: f64 = 0.01;

/// How long a slow reader reads nothing, in milliseconds.
const PAUSE: (u64, u64) = (200, 3000);

/// Between two rows of the table.
const ROW: Duration = Duration::from_mins(1);

/// Until every request must have ended, once no more are sent.
const PATIENCE: Duration = Duration::from_mins(1);

/// What happened to all requests.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    text: AtomicU64,
    empty: AtomicU64,
    cancelled: AtomicU64,
    failed: AtomicU64,
    /// Their session was killed.
    lost_with_session: AtomicU64,
    /// Ended a second time: must stay 0.
    again: AtomicU64,
    sessions_killed: AtomicU64,
    daemons_killed: AtomicU64,
}

impl Counts {
    fn row(&self) -> [u64; 9] {
        [
            &self.sent,
            &self.text,
            &self.empty,
            &self.cancelled,
            &self.failed,
            &self.lost_with_session,
            &self.again,
            &self.sessions_killed,
            &self.daemons_killed,
        ]
        .map(|count| count.load(Ordering::Relaxed))
    }
}

/// Soaks for `span` at `rate` requests a second and prints a table.
pub fn run(span: Duration, rate: u32) -> anyhow::Result<()> {
    let home = Home::new()?;
    let counts = Counts::default();
    let stop = AtomicBool::new(false);
    println!(
        "| minute | requests | with text | empty | cancelled | failed | ended with their session | \
         ended twice | sessions killed | daemons killed | daemon MB | daemon fds | largest session MB \
         | most session fds |\n|{}",
        "---|".repeat(14)
    );
    let unanswered = thread::scope(|scope| -> anyhow::Result<usize> {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|index| {
                let (home, counts, stop) = (&home, &counts, &stop);
                let pace = Duration::from_secs(SESSIONS as u64) / rate;
                scope.spawn(move || one_session(home, counts, stop, pace, index as u64))
            })
            .collect();
        let killing = scope.spawn(|| kill_daemons(&home, &counts, &stop));
        let neighbour = scope.spawn(|| bad_neighbour(&home, &stop));
        let began = Instant::now();
        let mut minute = 0;
        while began.elapsed() < span {
            thread::sleep(ROW.min(span.saturating_sub(began.elapsed())));
            minute += 1;
            print_row(minute, &counts, &home)?;
        }
        stop.store(true, Ordering::Relaxed);
        let mut unanswered = 0;
        for session in sessions {
            unanswered += session
                .join()
                .map_err(|_| anyhow::anyhow!("a session's thread broke"))??;
        }
        killing
            .join()
            .map_err(|_| anyhow::anyhow!("the killer broke"))??;
        neighbour
            .join()
            .map_err(|_| anyhow::anyhow!("the neighbour broke"))??;
        Ok(unanswered)
    })?;
    let left = home.end()?;
    let row = counts.row();
    println!(
        "\n{} requests, {unanswered} never ended, {} ended twice; processes left behind: {}",
        row[0],
        row[6],
        left.len()
    );
    ensure!(
        unanswered == 0 && row[6] == 0 && left.is_empty(),
        "the soak failed"
    );
    let ended: u64 = row[1..6].iter().sum();
    ensure!(ended == row[0], "{} sent, {ended} accounted for", row[0]);
    Ok(())
}

fn print_row(minute: u64, counts: &Counts, home: &Home) -> anyhow::Result<()> {
    // A daemon that was killed a moment ago is none.
    let daemon = home.daemon().ok().flatten().map(|status| status.pid);
    let (mut most, mut largest) = (0, 0);
    for process in home.processes()? {
        if Some(process) != daemon {
            most = most.max(home::descriptors(process).unwrap_or(0));
            let memory = home::memory(&[process]).unwrap_or_default();
            largest = largest.max(memory.resident);
        }
    }
    let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    let of_daemon = daemon.and_then(|process| {
        let memory = home::memory(&[process]).ok()?;
        Some((
            megabytes(memory.resident),
            home::descriptors(process)?.to_string(),
        ))
    });
    let (memory, descriptors) = of_daemon.unwrap_or(("–".to_owned(), "–".to_owned()));
    let counted = counts.row().map(|count| count.to_string()).join(" | ");
    println!(
        "| {minute} | {counted} | {memory} | {descriptors} | {} | {most} |",
        megabytes(largest)
    );
    Ok(())
}

/// A session that lives as long as the soak, and is killed and started again now and then. Gives how
/// many of its requests never ended.
fn one_session(
    home: &Home,
    counts: &Counts,
    stop: &AtomicBool,
    pace: Duration,
    seed: u64,
) -> anyhow::Result<usize> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut session = Session::start(&mut home.command(&["lsp", "--log", "error"]))?;
    let mut next_kill = due(&mut random, SESSION_KILL);
    let mut version = 1;
    while !stop.load(Ordering::Relaxed) {
        if Instant::now() >= next_kill && random.random_bool(1.0 / SESSIONS as f64) {
            let lost = session.kill(counts)?;
            counts
                .lost_with_session
                .fetch_add(lost as u64, Ordering::Relaxed);
            counts.sessions_killed.fetch_add(1, Ordering::Relaxed);
            session = Session::start(&mut home.command(&["lsp", "--log", "error"]))?;
            version = 1;
        }
        if Instant::now() >= next_kill {
            next_kill = due(&mut random, SESSION_KILL);
        }
        version += 1;
        let id = session.complete(version, counts)?;
        if random.random_bool(SLOW) {
            let pause = Duration::from_millis(random.random_range(PAUSE.0..PAUSE.1));
            session.heard.pause(Instant::now() + pause);
        }
        let rest = pace.mul_f64(random.random_range(0.5..1.5));
        if random.random_bool(CANCELLED) {
            let wait = rest.mul_f64(random.random_range(0.0..0.5));
            thread::sleep(wait);
            session.send(&json!({
                "jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": id},
            }))?;
            thread::sleep(rest.saturating_sub(wait));
        } else {
            thread::sleep(rest);
        }
        session.heard.count(counts);
    }
    let deadline = Instant::now() + PATIENCE;
    while session.heard.waiting() > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    session.heard.count(counts);
    let unanswered = session.heard.waiting();
    session.end()?;
    Ok(unanswered)
}

fn due(random: &mut StdRng, between: (u64, u64)) -> Instant {
    Instant::now() + Duration::from_secs(random.random_range(between.0..=between.1))
}

/// Kills the daemon that runs, now and then.
fn kill_daemons(home: &Home, counts: &Counts, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(99);
    let mut next = due(&mut random, DAEMON_KILL);
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(100));
        if Instant::now() < next {
            continue;
        }
        next = due(&mut random, DAEMON_KILL);
        let Ok(Some(status)) = home.daemon() else {
            continue;
        };
        let killed = Command::new("kill")
            .args(["-9", &status.pid.to_string()])
            .status()?;
        counts
            .daemons_killed
            .fetch_add(u64::from(killed.success()), Ordering::Relaxed);
    }
    Ok(())
}

/// A client of the daemon that asks for much and reads nothing.
#[cfg(unix)]
fn bad_neighbour(home: &Home, stop: &AtomicBool) -> anyhow::Result<()> {
    use std::os::unix::net::UnixStream;

    use tandem::config::LocalSettings;
    use tandem::daemon::wire::{
        PROTOCOLS, SessionHello, ToDaemon, WireMessage, WirePriority, WireRequest, WireRole,
        WireTask,
    };
    use tandem::daemon::{Build, Frame, ModelSpec};
    use tandem::inference::{Effort, Sampling};

    let spec = ModelSpec::new(None, &LocalSettings::default()).context("a spec")?;
    let mut messages = vec![
        ToDaemon::Hello(SessionHello {
            protocols: PROTOCOLS,
            build: Build::of_this_program(),
            pid: std::process::id(),
            name: "neighbour".to_owned(),
            works: false,
        }),
        ToDaemon::Open { model: 0, spec },
    ];
    for id in 0..8 {
        messages.push(ToDaemon::Generate {
            id,
            model: 0,
            request: Box::new(WireRequest {
                task: WireTask::Chat {
                    system: None,
                    schema: None,
                    messages: vec![WireMessage {
                        role: WireRole::User,
                        text: "a ".repeat(2000),
                    }],
                },
                sampling: Sampling::GREEDY.into(),
                max_tokens: 1000,
                stop: Vec::new(),
                effort: Effort::Low,
                priority: WirePriority::Background,
            }),
        });
    }
    let socket = home.place()?.socket();
    while !stop.load(Ordering::Relaxed) {
        if let Ok(mut stream) = UnixStream::connect(&socket) {
            for message in &messages {
                // The daemon may be killed at any moment.
                if stream.write_all(Frame::new(message)?.bytes()).is_err() {
                    break;
                }
            }
            thread::sleep(Duration::from_secs(3));
        }
        thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

#[cfg(not(unix))]
fn bad_neighbour(_: &Home, _: &AtomicBool) -> anyhow::Result<()> {
    Ok(())
}

/// What a session's reader has heard.
#[derive(Debug, Default)]
struct Heard {
    /// Requests that have not ended.
    pending: Mutex<HashSet<u64>>,
    /// Ends that were not counted yet: of a request that waited, or of one that did not.
    ended: Mutex<Vec<(bool, Value)>>,
    /// The reader reads nothing until then.
    paused_until: Mutex<Option<Instant>>,
}

impl Heard {
    fn waiting(&self) -> usize {
        lock(&self.pending).len()
    }

    fn pause(&self, until: Instant) {
        *lock(&self.paused_until) = Some(until);
    }

    fn hear(&self, message: Value) {
        if let Some(id) = message["id"].as_u64()
            && message.get("method").is_none()
        {
            let waited = lock(&self.pending).remove(&id);
            lock(&self.ended).push((waited, message));
        }
    }

    fn count(&self, counts: &Counts) {
        for (waited, message) in lock(&self.ended).drain(..) {
            let count = if !waited {
                &counts.again
            } else if let Some(error) = message.get("error") {
                match error["code"].as_i64() {
                    // RequestCancelled, ContentModified, ServerCancelled.
                    Some(-32802..=-32800) => &counts.cancelled,
                    _ => &counts.failed,
                }
            } else if message["result"]["items"]
                .as_array()
                .is_some_and(|items| !items.is_empty())
            {
                &counts.text
            } else {
                &counts.empty
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A real session over pipes.
struct Session {
    child: Child,
    input: ChildStdin,
    heard: Arc<Heard>,
    next_id: u64,
}

impl Session {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a session")?;
        let input = child.stdin.take().context("no pipe")?;
        let output = child.stdout.take().context("no pipe")?;
        let heard = Arc::new(Heard::default());
        let listening = Arc::clone(&heard);
        // Ends with the session's output.
        thread::spawn(move || listen(output, &listening));
        let mut session = Self {
            child,
            input,
            heard,
            next_id: 1,
        };
        // The reply to `initialize` is no completion: it is not waited for, and not counted.
        session.send(&json!({
            "jsonrpc": "2.0", "id": "hello", "method": "initialize", "params": {"capabilities": {}},
        }))?;
        session.send(&json!({"jsonrpc": "2.0", "method": "initialized", "params": {}}))?;
        session.send(&json!({
            "jsonrpc": "2.0", "method": "textDocument/didOpen", "params": home::opened(),
        }))?;
        Ok(session)
    }

    fn send(&mut self, message: &Value) -> anyhow::Result<()> {
        let body = message.to_string();
        write!(self.input, "Content-Length: {}\r\n\r\n{body}", body.len())?;
        Ok(self.input.flush()?)
    }

    fn complete(&mut self, version: u64, counts: &Counts) -> anyhow::Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        lock(&self.heard.pending).insert(id);
        counts.sent.fetch_add(1, Ordering::Relaxed);
        self.send(&json!({
            "jsonrpc": "2.0", "method": "textDocument/didChange",
            "params": home::keystroke(version),
        }))?;
        self.send(&json!({
            "jsonrpc": "2.0", "id": id, "method": "textDocument/inlineCompletion",
            "params": home::completion(),
        }))?;
        Ok(id)
    }

    /// Kills it and gives how many requests ended with it.
    fn kill(mut self, counts: &Counts) -> anyhow::Result<usize> {
        self.child.kill()?;
        self.child.wait()?;
        // What it had said is heard first: the pipe outlives it.
        thread::sleep(Duration::from_millis(50));
        self.heard.count(counts);
        Ok(self.heard.waiting())
    }

    fn end(mut self) -> anyhow::Result<()> {
        self.send(&json!({"jsonrpc": "2.0", "id": "bye", "method": "shutdown"}))?;
        self.send(&json!({"jsonrpc": "2.0", "method": "exit"}))?;
        self.child.wait()?;
        Ok(())
    }
}

fn listen(output: ChildStdout, heard: &Heard) {
    let mut output = BufReader::new(output);
    loop {
        let paused = lock(&heard.paused_until).take();
        if let Some(until) = paused {
            thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        let mut header = String::new();
        if output.read_line(&mut header).unwrap_or(0) == 0 {
            return;
        }
        let Some(length) = header.trim().strip_prefix("Content-Length: ") else {
            continue;
        };
        let Ok(length) = length.parse::<usize>() else {
            return;
        };
        let mut body = vec![0; length + 2];
        if output.read_exact(&mut body).is_err() {
            return;
        }
        if let Ok(message) = serde_json::from_slice(&body[2..]) {
            heard.hear(message);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
