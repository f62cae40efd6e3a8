//! How fast the local engine answers: `cargo bench --bench engine [-- MODEL]`.
//!
//! Without an argument it measures tandem-mini; with a GGUF file or a folder, that model. Figures are
//! medians over the rounds, and the worst of them.
#![expect(clippy::print_stdout, reason = "a bench reports on stdout")]

use std::path::Path;
use std::time::{Duration, Instant};

use tandem::backend::local::{LocalBackend, ModelSource, threads};
use tandem::config::{BundleRuntime, LocalSettings};
use tandem::inference::{
    Backend, ClientId, CompleteTask, CompletionShape, Effort, Event, GenerateRequest, Priority,
    RequestId, Sampling, Task, Usage,
};
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 20;
/// Enough source for a prompt of about 700 tokens of tandem-mini.
const SOURCE: &str = include_str!("../src/backend/local/kv_cache.rs");
const PREFIX_BYTES: usize = 2000;

struct Answer {
    first_token: Duration,
    whole: Duration,
    usage: Usage,
}

fn main() -> anyhow::Result<()> {
    // SAFETY: no other thread has been started yet.
    unsafe { threads::limit(None) };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let model = std::env::args()
        .skip(1)
        .find(|argument| argument != "--bench");
    let source = model.map_or_else(ModelSource::embedded, |path| {
        ModelSource::at(Path::new(&path), BundleRuntime::Auto)
    });
    let mut cold = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        let backend = LocalBackend::open(source.clone(), &LocalSettings::default())?;
        let mut answer = ask(&backend, 0, 1).await?;
        answer.first_token = started.elapsed();
        cold.push(answer);
    }
    report("first token cold, load and canary included", &cold);

    let backend = LocalBackend::open(source, &LocalSettings::default())?;
    ask(&backend, 0, 1).await?;
    let mut warm = Vec::new();
    for typed in 1..=ROUNDS {
        warm.push(ask(&backend, typed, 1).await?);
    }
    report("first token after a keystroke", &warm);
    let mut decoded = Vec::new();
    for typed in 0..ROUNDS {
        let answer = ask(&backend, typed, 64).await?;
        if answer.usage.completion_tokens > 8 {
            decoded.push(answer);
        }
    }
    let mut rates: Vec<f64> = decoded
        .iter()
        .map(|answer| {
            let rest = answer.whole.saturating_sub(answer.first_token);
            (answer.usage.completion_tokens - 1) as f64 / rest.as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    if let Some(median) = rates.get(rates.len() / 2) {
        println!(
            "decode: {median:.0} tokens/s median over {} answers",
            rates.len()
        );
    }
    Ok(())
}

/// One completion, `typed` characters further on.
async fn ask(backend: &LocalBackend, typed: usize, max_tokens: usize) -> anyhow::Result<Answer> {
    let cursor = SOURCE.ceil_char_boundary(PREFIX_BYTES + typed);
    let task = CompleteTask {
        path: Some("src/kv_cache.rs".into()),
        language: "rust".into(),
        prefix: SOURCE[..cursor].into(),
        suffix: SOURCE[PREFIX_BYTES + 100..].into(),
        snippets: Vec::new(),
        shape: CompletionShape::Auto,
    };
    let request = GenerateRequest {
        client: ClientId::default(),
        id: RequestId::next(),
        task: Task::Complete(task),
        sampling: Sampling::GREEDY,
        max_tokens,
        stop: Vec::new(),
        effort: Effort::Low,
        priority: Priority::Inline,
    };
    let started = Instant::now();
    let mut first_token = None;
    let mut stream = backend.generate(request, CancellationToken::new());
    loop {
        match stream.next().await {
            Some(Event::Delta(_)) => {
                first_token.get_or_insert_with(|| started.elapsed());
            }
            Some(Event::Done(finish)) => {
                let whole = started.elapsed();
                return Ok(Answer {
                    first_token: first_token.unwrap_or(whole),
                    whole,
                    usage: finish.usage,
                });
            }
            Some(Event::Failed(error)) => return Err(error.into()),
            None => anyhow::bail!("the stream ended without a terminal event"),
        }
    }
}

fn report(what: &str, answers: &[Answer]) {
    let mut times: Vec<f64> = answers
        .iter()
        .map(|answer| answer.first_token.as_secs_f64() * 1e3)
        .collect();
    times.sort_by(f64::total_cmp);
    let usage = answers[answers.len() - 1].usage;
    println!(
        "{what}: {:.1} ms median, {:.1} ms worst ({} prompt tokens, {} of them cached)",
        times[times.len() / 2],
        times[times.len() - 1],
        usage.prompt_tokens,
        usage.cached_tokens
    );
}
