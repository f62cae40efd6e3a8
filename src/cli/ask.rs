//! `tandem ask`: a question, answered as it comes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::args::AskArgs;
use super::complete::{
    LOADING, milliseconds, nothing, open_projects, read_document, read_stdin, tell_who_failed,
    tokens,
};
use super::edge::Surroundings;
use super::exit::{Exit, Failure};
use super::output;
use super::progress::Progress;
use crate::app::App;
use crate::inference::{
    AnswerSchema, ChatTask, ClientId, Effort, FinishReason, GenerateRequest, Message, Priority,
    RequestId, Role, Sampling, Task,
};
use crate::router::{Answer, NoAnswer, Origin, RouteRequest, RoutedEvent, RoutedStream};

/// A person who waited so long has left.
const LIMIT: Duration = Duration::from_mins(10);

/// Qwen's own advice for answers without thinking (model card of Qwen3); Claude has its own.
const SAMPLING: Sampling = Sampling {
    temperature: 0.7,
    top_k: 20,
    top_p: 0.8,
    ..Sampling::GREEDY
};

const SYSTEM: &str = "You answer questions of a programmer at a command line. Be brief and exact. \
                      Write plain text; put code on lines of its own.";

const SYSTEM_OF_JSON: &str =
    "You answer questions of a programmer at a command line. Be brief and exact.";

/// See the module.
pub async fn run(app: App, surroundings: &Surroundings, args: AskArgs) -> Result<Exit, Failure> {
    let mut origin = Origin::default();
    let mut context = String::new();
    let files: Vec<PathBuf> = args
        .files
        .iter()
        .map(|file| surroundings.folder.join(file))
        .collect();
    // What governs the current folder and every file's own governs what may leave.
    let folders = files.iter().filter_map(|file| file.parent());
    let folders: Vec<PathBuf> = folders
        .chain([surroundings.folder.as_path()])
        .map(Path::to_owned)
        .collect();
    open_projects(&app, &folders)?;
    for file in &files {
        let text = read_document(file)?;
        let shown = file.strip_prefix(&surroundings.folder).unwrap_or(file);
        context.push_str(&fenced(&format!("File `{}`:", shown.display()), &text));
    }
    origin.also = files;
    if !surroundings.stdin_is_terminal {
        let text = read_stdin()?;
        if !text.trim().is_empty() {
            context.push_str(&fenced("Piped in:", &text));
        }
    }
    let schema = match &args.schema {
        None => None,
        Some(file) => {
            let text = read_document(&surroundings.folder.join(file))?;
            Some(AnswerSchema::parse(&text)?)
        }
    };
    let by_schema = schema.is_some();
    let limit = app.router.settings().claude.max_tokens;
    let request = RouteRequest {
        generate: GenerateRequest {
            client: ClientId::default(),
            id: RequestId::next(),
            task: Task::Chat(ChatTask {
                system: Some(if by_schema { SYSTEM_OF_JSON } else { SYSTEM }.to_owned()),
                messages: vec![Message {
                    role: Role::User,
                    text: context + &args.question.join(" "),
                }],
                schema,
            }),
            sampling: SAMPLING,
            max_tokens: args.max_tokens.map_or(limit, |tokens| tokens as usize),
            stop: Vec::new(),
            effort: Effort::from(args.effort),
            priority: Priority::Tool,
        },
        origin,
    };
    let progress = Progress::start(&app.router, surroundings.stderr_is_terminal);
    let started = Instant::now();
    // What is meant for Claude need not wait.
    if request.generate.effort == Effort::Low {
        app.router.local_decided(LOADING).await;
    }
    let stream = app.router.route(request, &CancellationToken::new());
    if args.json {
        let outcome = stream.collect_within(LIMIT, |_| ()).await;
        drop(progress);
        tell_who_failed(&app);
        return in_json(outcome, by_schema, started.elapsed());
    }
    let outcome = tokio::time::timeout(
        LIMIT,
        print(stream, progress, surroundings.stdout_is_terminal),
    );
    let outcome = outcome.await;
    tell_who_failed(&app);
    match outcome {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::failed(format!(
            "no end within {} minutes. Ask for less at once.",
            LIMIT.as_secs() / 60
        ))),
    }
}

/// A block of context. The fence is longer than any in the text, so that the text cannot end it.
fn fenced(title: &str, text: &str) -> String {
    let longest = text
        .lines()
        .map(|line| {
            line.trim_start()
                .bytes()
                .take_while(|byte| *byte == b'`')
                .count()
        })
        .max()
        .unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{title}\n{fence}\n{}\n{fence}\n\n", text.trim_end())
}

async fn print(
    mut stream: RoutedStream,
    progress: Option<Progress>,
    terminal: bool,
) -> Result<Exit, Failure> {
    let mut progress = progress;
    let mut ends_with_newline = true;
    while let Some(event) = stream.next().await {
        match event {
            RoutedEvent::Attributed(_) => {}
            RoutedEvent::Delta(text) => {
                progress = None;
                let text = if terminal {
                    output::harmless(&text)
                } else {
                    text
                };
                output::print_bytes(text.as_bytes())?;
                ends_with_newline = text.ends_with('\n');
            }
            RoutedEvent::Done(_) => {
                if !ends_with_newline {
                    output::print_bytes(b"\n")?;
                }
                return Ok(Exit::Done);
            }
            RoutedEvent::Empty(_) => break,
            RoutedEvent::Failed(error) => {
                drop(progress);
                if !ends_with_newline {
                    output::print_bytes(b"\n")?;
                }
                return Err(error.into());
            }
        }
    }
    Err(Failure::failed(
        "nothing was answered. Ask again in other words.",
    ))
}

fn in_json(
    outcome: Result<Answer, NoAnswer>,
    by_schema: bool,
    took: Duration,
) -> Result<Exit, Failure> {
    let answer = match outcome {
        Ok(answer) => answer,
        Err(no_answer) => return nothing(&no_answer, true, took),
    };
    let mut shown = json!({
        "answer": answer.text,
        "backend": answer.attribution.backend,
        "model": answer.attribution.model,
        "reason": answer.attribution.reason,
        "complete": answer
            .finish
            .as_ref()
            .is_some_and(|finish| finish.reason == FinishReason::Stop),
        "tokens": tokens(&answer),
        "milliseconds": milliseconds(took),
    });
    if by_schema {
        shown["value"] = serde_json::from_str(&answer.text).unwrap_or_default();
    }
    output::print_json(&shown)?;
    Ok(Exit::Done)
}
