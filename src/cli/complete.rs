//! `tandem complete`: one completion at a place in a file.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use globset::Glob;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::args::CompleteArgs;
use super::edge::Surroundings;
use super::exit::{Exit, Failure};
use super::place::Place;
use super::progress::Progress;
use super::{language, output};
use crate::app::App;
use crate::config::Settings;
use crate::inference::{
    BackendKind, ClientId, CompleteTask, CompletionShape, Effort, EmptyReason, GenerateRequest,
    Priority, RequestId, Sampling, Task,
};
use crate::router::{Answer, NoAnswer, Origin, RouteRequest};

/// The longest document that is read, in bytes. Larger ones are data, not code.
const LARGEST_DOCUMENT: u64 = 16 << 20;

/// A person who waited so long has left.
const LIMIT: Duration = Duration::from_mins(2);

/// The longest wait for a local model to load: a large one from a slow disk.
pub const LOADING: Duration = Duration::from_mins(1);

/// Lines shown before and after the completion.
const CONTEXT_LINES: usize = 5;

/// See the module.
pub async fn run(
    app: App,
    surroundings: &Surroundings,
    args: CompleteArgs,
) -> Result<Exit, Failure> {
    let place = Place::parse(&args.place)?;
    let file = surroundings.folder.join(&place.file);
    let document = if args.stdin {
        read_stdin()?
    } else {
        read_document(&file)?
    };
    let offset = place.offset(&document)?;
    let folder = file.parent().unwrap_or(&surroundings.folder);
    open_projects(&app, &[folder.to_owned()])?;
    let workspace = workspace_of(folder);
    if let Some(reason) = switched_off(&app.router.settings(), &file, &workspace) {
        let no_answer = NoAnswer {
            empty: Some(reason),
            error: None,
            attribution: None,
        };
        return nothing(&no_answer, args.json, Duration::ZERO);
    }
    let request = request(&app, &file, workspace, document.split_at(offset));

    let progress = Progress::start(&app.router, surroundings.stderr_is_terminal);
    let started = Instant::now();
    let mut first_text = None;
    app.router.local_decided(LOADING).await;
    let outcome = app
        .router
        .route(request, &CancellationToken::new())
        .collect_within(LIMIT, |_| {
            first_text.get_or_insert_with(|| started.elapsed());
        })
        .await;
    let took = started.elapsed();
    drop(progress);
    tell_who_failed(&app);

    match outcome {
        Ok(answer) if args.json => {
            print_json(&answer, took, first_text)?;
            Ok(Exit::Done)
        }
        Ok(answer) if args.show => {
            let text = around(&document, offset, &answer.text);
            output::print_styled(&text)?;
            Ok(Exit::Done)
        }
        Ok(answer) => {
            let text = if surroundings.stdout_is_terminal {
                output::harmless(&answer.text)
            } else {
                answer.text
            };
            output::print_bytes(text.as_bytes())?;
            if !text.ends_with('\n') {
                output::print_bytes(b"\n")?;
            }
            Ok(Exit::Done)
        }
        Err(no_answer) => nothing(&no_answer, args.json, took),
    }
}

/// Tells which backends did not answer that should have: another model's answer looks the same. The error of
/// a request that failed names those that were asked, so only the others are told of here.
pub fn tell_who_failed(app: &App) {
    let Some(decision) = app.router.decisions().pop() else {
        return;
    };
    let Some(who) = decision.attribution.map(|who| who.backend) else {
        return;
    };
    let (begin, does_not) = match decision.why {
        None => (format!("{who} answers, since "), "does not"),
        Some(_) => (String::new(), "does not answer"),
    };
    let asked = &decision.failed_attempts;
    let has_model = app.router.settings().local.model.is_some();
    let status = app.router.status();
    let not_asked = status.iter().filter(|one| {
        let is_wanted = match one.kind {
            BackendKind::Embedded | BackendKind::Claude => false,
            BackendKind::Server => true,
            BackendKind::CoreMl | BackendKind::Candle | BackendKind::Scripted => has_model,
        };
        is_wanted && one.kind != who && asked.iter().all(|failed| failed.backend != one.kind)
    });
    let not_asked = not_asked.filter_map(|one| Some((one.kind, one.health.trouble()?)));
    let asked = asked
        .iter()
        .filter(|_| decision.why.is_none())
        .map(|failed| (failed.backend, failed.message.as_str()));
    for (kind, trouble) in asked.chain(not_asked) {
        let name = match kind {
            BackendKind::Server => "the inference server",
            BackendKind::Claude => "Claude",
            BackendKind::Embedded => "the embedded model",
            BackendKind::CoreMl | BackendKind::Candle | BackendKind::Scripted => "the local model",
        };
        output::note(&format!("{begin}{name} {does_not}: {trouble}"));
    }
}

/// Puts the projects' files that govern `folders` in force.
pub fn open_projects(app: &App, folders: &[PathBuf]) -> Result<(), Failure> {
    let opened = app.configuration.set_folders(folders);
    opened.map_err(|mistakes| Failure::configuration(&mistakes))
}

/// The repository's root above `folder`, or `folder` itself.
fn workspace_of(folder: &Path) -> PathBuf {
    folder
        .ancestors()
        .find(|folder| folder.join(".git").exists())
        .unwrap_or(folder)
        .to_owned()
}

/// Reads a document.
pub fn read_document(file: &Path) -> Result<String, Failure> {
    let shown = file.display();
    let unreadable = |error: std::io::Error| {
        Failure::failed(format!("{shown}: cannot be read: {error}. Check the path."))
    };
    let mut bytes = Vec::new();
    // What the system says of a file's size is not the truth for all files: a device has none.
    std::fs::File::open(file)
        .and_then(|file| file.take(LARGEST_DOCUMENT + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST_DOCUMENT {
        return Err(Failure::failed(format!(
            "{shown}: larger than {} MiB. Choose a smaller file.",
            LARGEST_DOCUMENT >> 20
        )));
    }
    String::from_utf8(bytes)
        .map_err(|_| Failure::failed(format!("{shown}: not UTF-8. Convert it first.")))
}

/// Reads standard input to its end.
pub fn read_stdin() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(LARGEST_DOCUMENT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::failed(format!("standard input cannot be read: {error}.")))?;
    if bytes.len() as u64 > LARGEST_DOCUMENT {
        return Err(Failure::failed(format!(
            "standard input is larger than {} MiB. Send less.",
            LARGEST_DOCUMENT >> 20
        )));
    }
    String::from_utf8(bytes)
        .map_err(|_| Failure::failed("standard input is not UTF-8. Convert it first."))
}

/// Why nothing is to be offered here, if so.
fn switched_off(settings: &Settings, file: &Path, workspace: &Path) -> Option<EmptyReason> {
    let completion = &settings.completion;
    if !completion.enabled {
        return Some(EmptyReason::Disabled);
    }
    let language = language::of(file);
    if completion.languages_off.iter().any(|off| off == language) {
        return Some(EmptyReason::LanguageOff);
    }
    let path = file.strip_prefix(workspace).unwrap_or(file);
    completion
        .paths_off
        .iter()
        .filter_map(|glob| Glob::new(glob).ok())
        .any(|glob| glob.compile_matcher().is_match(path))
        .then_some(EmptyReason::PathOff)
}

fn request(
    app: &App,
    file: &Path,
    workspace: PathBuf,
    (prefix, suffix): (&str, &str),
) -> RouteRequest {
    let settings = app.router.settings();
    let shown = file.strip_prefix(&workspace).unwrap_or(file);
    let task = Task::Complete(CompleteTask {
        path: Some(shown.to_string_lossy().into_owned()),
        language: language::of(file).to_owned(),
        prefix: prefix.into(),
        suffix: suffix.into(),
        snippets: Vec::new(),
        shape: CompletionShape::Auto,
    });
    RouteRequest {
        generate: GenerateRequest {
            client: ClientId::default(),
            id: RequestId::next(),
            task,
            sampling: Sampling::GREEDY,
            max_tokens: settings.completion.max_tokens,
            stop: Vec::new(),
            effort: Effort::Low,
            priority: Priority::Inline,
        },
        origin: Origin {
            file: Some(file.to_owned()),
            workspace: Some(workspace),
            ..Origin::default()
        },
    }
}

fn print_json(
    answer: &Answer,
    took: Duration,
    first_text: Option<Duration>,
) -> Result<(), Failure> {
    output::print_json(&json!({
        "completion": answer.text,
        "backend": answer.attribution.backend,
        "model": answer.attribution.model,
        "reason": answer.attribution.reason,
        "tokens": tokens(answer),
        "milliseconds": milliseconds(took),
        "first_text_milliseconds": first_text.map(milliseconds),
    }))
}

/// What an answer cost.
pub fn tokens(answer: &Answer) -> serde_json::Value {
    answer
        .finish
        .as_ref()
        .map_or(serde_json::Value::Null, |finish| {
            json!({
                "prompt": finish.usage.prompt_tokens,
                "cached": finish.usage.cached_tokens,
                "completion": finish.usage.completion_tokens,
            })
        })
}

/// To a tenth of a millisecond.
pub fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Tells why there is no answer.
pub fn nothing(no_answer: &NoAnswer, as_json: bool, took: Duration) -> Result<Exit, Failure> {
    let exit = match (&no_answer.error, no_answer.empty) {
        (Some(error), None) => Exit::of(error.kind),
        (_, Some(reason)) => Exit::of_empty(reason),
        (None, None) => Exit::Empty,
    };
    if as_json {
        output::print_json(&json!({
            "completion": null,
            "empty": no_answer.empty,
            "error": no_answer.error.as_ref().map(|error| json!({
                "kind": error.kind,
                "message": error.message,
                "next_step": error.next_step,
            })),
            "backend": no_answer.attribution.as_ref().map(|who| who.backend),
            "model": no_answer.attribution.as_ref().map(|who| &who.model),
            "reason": no_answer.attribution.as_ref().map(|who| who.reason),
            "milliseconds": milliseconds(took),
        }))?;
    }
    let why = match (&no_answer.error, no_answer.empty) {
        (Some(error), _) => error.to_string(),
        (None, Some(EmptyReason::Disabled)) => {
            "completions are switched off. Set `completion.enabled: true`; `tandem config show` says \
             who switched them off."
                .to_owned()
        }
        (None, Some(EmptyReason::LanguageOff)) => {
            "completions are off for this language. Take it out of `completion.languages_off`."
                .to_owned()
        }
        (None, Some(EmptyReason::PathOff)) => {
            "completions are off for this path. Take it out of `completion.paths_off`.".to_owned()
        }
        (None, Some(reason)) => {
            let code = serde_json::to_value(reason).unwrap_or_default();
            format!(
                "nothing to suggest here ({}). Try another place, or `--set \
                 completion.max_tokens=128` for more.",
                code.as_str().unwrap_or("no reason")
            )
        }
        (None, None) => "nothing was answered. Ask again in other words.".to_owned(),
    };
    Err(Failure::Told(exit, why))
}

/// The lines around a completion, and the completion in its place.
fn around(document: &str, offset: usize, completion: &str) -> String {
    let (prefix, suffix) = document.split_at(offset);
    let before: Vec<&str> = prefix.split('\n').rev().take(CONTEXT_LINES + 1).collect();
    let before: Vec<&str> = before.into_iter().rev().collect();
    let after: Vec<&str> = suffix.split('\n').take(CONTEXT_LINES + 1).collect();
    let dim = Style::new().dimmed();
    let new = AnsiColor::Green.on_default().bold();
    let mut text = output::styled(dim, &output::harmless(&before.join("\n")));
    // Each line on its own, so that no style runs over a line's end.
    let lines: Vec<String> = output::harmless(completion)
        .split('\n')
        .map(|line| output::styled(new, line))
        .collect();
    text.push_str(&lines.join("\n"));
    let after = output::harmless(&after.join("\n"));
    text.push_str(&output::styled(dim, after.trim_end_matches('\n')));
    text.push('\n');
    text
}
