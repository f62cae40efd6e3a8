//! `tandem model`: which models there are by name, and what is on this machine of them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::args::ModelCommand;
use super::edge::Surroundings;
use super::exit::{Exit, Failure};
use super::output::{self, harmless, note, styled};
use crate::app::App;
use crate::config::{LocalSettings, is_model_name};
use crate::model::{self, Entry, Limits, Models, State, Step};

/// In a pipe, the progress is told when another so many percent have arrived.
const LINE_EVERY_PERCENT: u64 = 10;

/// See the module.
pub async fn run(
    app: App,
    surroundings: &Surroundings,
    command: ModelCommand,
) -> Result<Exit, Failure> {
    let models = open(surroundings, &app.router.settings().local)?;
    match command {
        ModelCommand::List { json } => list(&models, json),
        ModelCommand::Pull { id } => pull(&models, &id, surroundings.stderr_is_terminal).await,
        ModelCommand::Verify { id } => verify(&models, id).await,
        ModelCommand::Path { id } => {
            let installed = models.installed(&id)?;
            output::print_bytes(format!("{}\n", installed.path.display()).as_bytes())?;
            Ok(Exit::Done)
        }
        ModelCommand::Remove { id } => {
            let bytes = models.store.remove(&id).await?;
            output::print_bytes(format!("removed {id}, {}\n", size(bytes)).as_bytes())?;
            Ok(Exit::Done)
        }
    }
}

/// Where the model is that `local.model` means: a path as it stands, or that of a model of the
/// catalogue.
///
/// # Errors
/// When it is a name, and no model of this name is on this machine.
pub fn path_of(
    model: &Path,
    surroundings: &Surroundings,
    settings: &LocalSettings,
) -> Result<PathBuf, Failure> {
    match model.to_str() {
        Some(id) if is_model_name(model) && !model.exists() => {
            Ok(open(surroundings, settings)?.installed(id)?.path)
        }
        _ => Ok(model.to_owned()),
    }
}

fn open(surroundings: &Surroundings, settings: &LocalSettings) -> Result<Models, Failure> {
    let folder = surroundings.data_folder.as_ref().ok_or_else(|| {
        Failure::failed("there is no home folder to keep models in. Set HOME or XDG_DATA_HOME.")
    })?;
    let models = Models::open(folder, surroundings.hub(), settings, Limits::default())?;
    Ok(models)
}

fn list(models: &Models, json: bool) -> Result<Exit, Failure> {
    let rows: Vec<(&Entry, State)> = models
        .catalogue
        .models
        .iter()
        .map(|entry| (entry, model::state(&models.store, &models.hub, entry)))
        .collect();
    // Such as a model of a catalogue that is not configured any more.
    let known = |id: &String| models.catalogue.models.iter().any(|entry| entry.id == *id);
    let others: Vec<String> = models
        .store
        .ids()
        .into_iter()
        .filter(|id| !known(id))
        .collect();
    if json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|(entry, state)| row(entry, state))
            .collect();
        output::print_json(&json!({
            "folder": models.store.root(),
            "models": rows,
            "others": others,
        }))?;
        return Ok(Exit::Done);
    }
    let bold = Style::new().bold();
    let mut text = String::new();
    for (entry, state) in &rows {
        let (style, state) = described(state);
        let bytes = entry.bytes().map_or_else(|| "?".to_owned(), size);
        let _ = writeln!(
            text,
            "{}  {:<10} {bytes:>9}  {:<26} {}",
            styled(bold, &format!("{:<20}", harmless(&entry.id))),
            entry.kind.to_string(),
            styled(style, &format!("{state:<26}")),
            harmless(&entry.title),
        );
    }
    for id in others {
        let _ = writeln!(
            text,
            "{id:<20}  in no catalogue; `tandem model remove {id}` removes it"
        );
    }
    output::print_styled(&text)?;
    Ok(Exit::Done)
}

fn row(entry: &Entry, state: &State) -> Value {
    let mut row = json!({
        "id": entry.id,
        "title": entry.title,
        "kind": entry.kind,
        "repository": entry.repository,
        "revision": entry.revision,
        "licence": entry.licence,
        "context_tokens": entry.context_tokens,
        "tasks": entry.tasks,
        "memory_mib": entry.memory_mib,
        "bytes": entry.bytes(),
    });
    let more = match state {
        State::Installed(installed) => json!({
            "state": "installed",
            "path": installed.path,
            "commit": installed.manifest.commit,
            "bytes": installed.manifest.files.iter().map(|file| file.bytes).sum::<u64>(),
        }),
        State::Damaged(error) => json!({ "state": "damaged", "problem": error.to_string() }),
        State::Unfinished { bytes } => json!({ "state": "unfinished", "arrived": bytes }),
        State::Cached => json!({ "state": "cached" }),
        State::Absent => json!({ "state": "absent" }),
    };
    if let (Value::Object(row), Value::Object(more)) = (&mut row, more) {
        row.extend(more);
    }
    row
}

fn described(state: &State) -> (Style, String) {
    let green = AnsiColor::Green.on_default();
    let yellow = AnsiColor::Yellow.on_default();
    let red = AnsiColor::Red.on_default();
    match state {
        State::Installed(_) => (green, "on this machine".to_owned()),
        State::Damaged(_) => (red, "damaged: pull it again".to_owned()),
        State::Unfinished { bytes } => (yellow, format!("unfinished, {} there", size(*bytes))),
        State::Cached => (yellow, "in Hugging Face's cache".to_owned()),
        State::Absent => (Style::new(), "not on this machine".to_owned()),
    }
}

async fn pull(models: &Models, id: &str, terminal: bool) -> Result<Exit, Failure> {
    let entry = models.catalogue.find(id)?;
    let told = Told::new(id, terminal);
    let outcome = model::pull(&models.store, &models.hub, entry, &|step| told.step(step)).await;
    told.bar.finish_and_clear();
    let installed = outcome?;
    output::print_bytes(format!("{}\n", installed.path.display()).as_bytes())?;
    Ok(Exit::Done)
}

async fn verify(models: &Models, id: Option<String>) -> Result<Exit, Failure> {
    let ids = id.map_or_else(|| models.store.ids(), |id| vec![id]);
    if ids.is_empty() {
        note("there is no model on this machine; `tandem model pull` downloads one.");
    }
    let mut last = None;
    for id in ids {
        let (store, name) = (models.store.clone(), id.clone());
        // Elsewhere, so that a signal ends the command meanwhile.
        let verified = tokio::task::spawn_blocking(move || store.verify(&name)).await;
        let verified = verified.map_err(|error| Failure::failed(format!("{id}: {error}.")))?;
        match verified {
            Ok(installed) => {
                let files = installed.manifest.files.len();
                let line = format!("{id}: sound, files: {files}\n");
                output::print_bytes(line.as_bytes())?;
            }
            Err(error) => {
                // All are looked at; the last trouble is what the command ends with.
                if let Some(Failure::Told(_, message)) = last.replace(Failure::from(error)) {
                    note(&message);
                }
            }
        }
    }
    last.map_or(Ok(Exit::Done), Err)
}

/// Tells how a download goes: a bar on a terminal, a line now and then in a pipe.
struct Told<'a> {
    id: &'a str,
    bar: ProgressBar,
    lines: bool,
    total: AtomicU64,
    /// The share that was told last, in percent.
    share: Mutex<Option<u64>>,
}

impl<'a> Told<'a> {
    fn new(id: &'a str, terminal: bool) -> Self {
        let bar = if terminal {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        } else {
            ProgressBar::hidden()
        };
        let template = "{msg} {bytes}/{total_bytes} {wide_bar} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(id.to_owned());
        Self {
            id,
            bar,
            lines: !terminal,
            total: AtomicU64::new(0),
            share: Mutex::new(None),
        }
    }

    fn step(&self, step: Step) {
        match step {
            Step::Waiting => self.say("another process downloads it, which is waited for"),
            Step::Started { total } => {
                self.total.store(total, Ordering::Relaxed);
                self.bar.set_length(total);
            }
            Step::Advanced { done } => {
                self.bar.set_position(done);
                self.advanced(done);
            }
            Step::Again { why, pause } => {
                self.say(&format!("{why}; again in {:.1} s", pause.as_secs_f64()));
            }
        }
    }

    fn say(&self, text: &str) {
        let text = harmless(text);
        if self.lines {
            note(&format!("{}: {text}", self.id));
        } else {
            self.bar.set_message(format!("{} ({text})", self.id));
        }
    }

    fn advanced(&self, done: u64) {
        let total = self.total.load(Ordering::Relaxed);
        if !self.lines || total == 0 {
            return;
        }
        let share = (u128::from(done) * 100 / u128::from(total)).min(100) as u64;
        let share = share - share % LINE_EVERY_PERCENT;
        let mut told = self.share.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told < share) {
            *told = Some(share);
            note(&format!("{}: {share} % of {}", self.id, size(total)));
        }
    }
}

/// For people: as hubs and disks count, in powers of ten.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}
