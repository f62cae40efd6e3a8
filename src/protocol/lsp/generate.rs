//! From a cursor to candidates: what keeps a completion from being computed, and the ways it is
//! computed.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use globset::{Glob, GlobSet, GlobSetBuilder};
use tokio::time::Instant;
use tower_lsp::lsp_types::{Position, Url};

use crate::config::Settings;
use crate::inference::{
    BackendKind, ClientId, CompleteTask, CompletionShape, Effort, EmptyReason, GenerateRequest,
    Priority, RequestId, Sampling, Task,
};
use crate::router::{Answer, Origin, RouteRequest};
use crate::telemetry::Outcome;

use super::agree::Seen;
use super::context::{self, PREFIX_BYTES, SUFFIX_BYTES};
use super::documents::{Snapshot, State};
use super::pace::Cost;
use super::position::{self, Encoding};
use super::server::Server;
use super::status::{Nothing, Source};
use super::suggestions::{Asked, Suggestion};

/// The longest a person waits for a completion. Backends have stricter limits of their own; this
/// one is behind them.
pub const COMPLETION_LIMIT: Duration = Duration::from_secs(15);

/// How candidates after the first are chosen: warm enough to differ, cool enough to be code.
const VARIED: Sampling = Sampling {
    temperature: 0.7,
    top_k: 40,
    top_p: 0.95,
    min_p: 0.05,
    ..Sampling::GREEDY
};

/// Where a completion is wanted.
#[derive(Debug, Clone)]
pub struct Place {
    /// The document.
    pub uri: Url,
    /// The cursor.
    pub position: Position,
    /// The entry of the editor's own popup that is selected: what it replaces, and by what.
    pub selected: Option<Selected>,
    /// Whether the editor asks by itself, for the spend, the debounce and the latest-wins rule.
    pub automatic: bool,
    /// Whether it asks while the user types, where [`CompletionSettings::automatic`] and the rule
    /// about words hold.
    ///
    /// [`CompletionSettings::automatic`]: crate::config::CompletionSettings::automatic
    pub typing: bool,
    /// How many candidates are wanted at most.
    pub candidates: usize,
}

/// The selected entry of the editor's own popup.
#[derive(Debug, Clone)]
pub struct Selected {
    /// What it replaces.
    pub range: tower_lsp::lsp_types::Range,
    /// By what.
    pub text: String,
}

/// A cursor in a document, checked.
#[derive(Debug, Clone)]
pub struct Cursor {
    /// The document.
    pub document: Snapshot,
    /// The first character that an item replaces: the start of the line, or of the popup's range.
    pub from: usize,
    /// The end of what it replaces.
    pub to: usize,
    /// What stands between, as items repeat it.
    pub typed: String,
    /// What positions count.
    pub encoding: Encoding,
}

/// Compiled `completion.paths_off`, as long as the settings stay the same.
#[derive(Debug, Default)]
pub struct PathsOff(Mutex<Option<(Vec<String>, GlobSet)>>);

/// Computes completions, and tells the user when there are none.
///
/// An answer that was given before and holds again is given again without asking anybody: at once,
/// in the first poll.
pub async fn complete(server: &Server, place: Place) -> Option<(Cursor, Vec<Suggestion>)> {
    // While typing, the request that took the place of another tells what came of it.
    let taken_back = TakenBack((!place.typing).then_some(server));
    let outcome = suggestions(server, &place).await;
    taken_back.disarm();
    match outcome {
        Ok((cursor, suggestions, source)) => {
            if let Some(first) = suggestions.first() {
                server.status.answered(&first.attribution, source).await;
            }
            Some((cursor, suggestions))
        }
        Err(nothing) => {
            if !(place.typing && nothing.reason == EmptyReason::Superseded) {
                server.status.empty(&nothing).await;
            }
            None
        }
    }
}

async fn suggestions(
    server: &Server,
    place: &Place,
) -> Result<(Cursor, Vec<Suggestion>, Source), Nothing> {
    let settings = server.session.router.settings();
    let cursor = gate(server, &settings, place)?;
    let asked = Asked {
        uri: place.uri.clone(),
        seen: cursor.seen(),
        automatic: place.automatic,
        candidates: place.candidates.max(1),
        settings,
    };
    let document = &cursor.document;
    if place.typing {
        server.pace.key(Instant::now(), document.revision);
    }
    if let Some(recalled) = recall(server, &asked) {
        return Ok((cursor, recalled?, Source::Cache));
    }
    if let Some(ended) = server.ahead.ends(&asked) {
        // What is asked for is being computed ahead.
        tokio::select! {
            biased;
            () = document.closed.cancelled() => return Err(EmptyReason::DocumentUnavailable.into()),
            () = ended.cancelled() => {}
        }
        let now = server.documents.get(&place.uri);
        if now.is_none_or(|now| now.revision != document.revision) {
            return Err(EmptyReason::Superseded.into());
        }
        if let Some(recalled) = recall(server, &asked) {
            return Ok((cursor, recalled?, Source::Cache));
        }
    }
    server.ahead.give_way();
    if place.typing && inside_word(&asked.seen.text, asked.seen.cursor) {
        return Err(EmptyReason::CursorInsideWord.into());
    }
    if place.typing && document.shrunk && document.last_change == cursor.to {
        return Err(EmptyReason::AfterDeletion.into());
    }
    match candidates(server, place, &cursor, &asked).await {
        Ok(answers) => {
            let offered = |answer: Answer| Suggestion {
                text: answer.text,
                attribution: answer.attribution,
                command: server.acceptance.offer(),
            };
            let suggestions: Vec<_> = answers.into_iter().map(offered).collect();
            server.suggestions.keep(asked, suggestions.clone());
            Ok((cursor, suggestions, Source::Model))
        }
        Err(nothing) => {
            server.suggestions.keep_nothing(asked, &nothing);
            Err(nothing)
        }
    }
}

/// An answer that was given before and holds again.
fn recall(server: &Server, asked: &Asked) -> Option<Result<Vec<Suggestion>, Nothing>> {
    let recalled = server.suggestions.recall(asked, &server.acceptance)?;
    let (attribution, outcome) = match &recalled {
        Ok(suggestions) => {
            server.acceptance.recalled();
            let first = suggestions.first();
            let attribution = first.map(|first| first.attribution.clone());
            (attribution, Outcome::Answered)
        }
        Err(nothing) => (nothing.attribution.clone(), Outcome::Empty(nothing.reason)),
    };
    let router = &server.session.router;
    router.note_recalled(asked.uri.as_str(), asked.automatic, attribution, outcome);
    Some(recalled)
}

/// Asks the models.
async fn candidates(
    server: &Server,
    place: &Place,
    cursor: &Cursor,
    asked: &Asked,
) -> Result<Vec<Answer>, Nothing> {
    let document = &cursor.document;
    let mut first = request(server, cursor, asked);
    if place.automatic {
        let fixed = asked.settings.completion.debounce;
        first.origin.rest = fixed.unwrap_or_else(|| server.pace.rest());
    }
    let rest = first.origin.rest;
    let started = Instant::now();
    let answers = (0..asked.candidates).map(|index| {
        let mut request = first.clone();
        if index > 0 {
            request.generate.id = RequestId::next();
            request.generate.sampling = Sampling {
                seed: index as u64,
                ..VARIED
            };
        }
        server
            .session
            .router
            .route(request, &document.closed)
            .collect_within(COMPLETION_LIMIT, |_| {})
    });
    let answers = futures_util::future::join_all(answers);
    let answers = tokio::select! {
        biased;
        () = document.closed.cancelled() => return Err(EmptyReason::DocumentUnavailable.into()),
        answers = answers => answers,
    };
    let mut kept: Vec<Answer> = Vec::new();
    let mut nothing = None;
    for answer in answers {
        match answer {
            Ok(answer) if kept.iter().any(|other| other.text == answer.text) => {}
            Ok(answer) => kept.push(answer),
            Err(none) => {
                nothing.get_or_insert(none);
            }
        }
    }
    // Who asks by hand asks at new places, where more is to be read.
    if let Some(answer) = kept.first().filter(|_| place.typing) {
        let cost = match answer.attribution.backend {
            BackendKind::Claude | BackendKind::Server => Cost::Money,
            BackendKind::CoreMl
            | BackendKind::Candle
            | BackendKind::Embedded
            | BackendKind::Scripted => Cost::Work,
        };
        let took = started.elapsed().saturating_sub(rest);
        server.pace.answered(took, cost);
    }
    match nothing {
        Some(nothing) if kept.is_empty() => Err(nothing.into()),
        _ => Ok(kept),
    }
}

/// The request for the likeliest completion at `cursor`.
pub fn request(server: &Server, cursor: &Cursor, asked: &Asked) -> RouteRequest {
    let document = &cursor.document;
    let file = document.file();
    RouteRequest {
        generate: GenerateRequest {
            client: ClientId::default(),
            id: RequestId::next(),
            task: Task::Complete(task(server, cursor)),
            sampling: Sampling::GREEDY,
            max_tokens: asked.settings.completion.max_tokens,
            stop: Vec::new(),
            effort: Effort::Low,
            priority: Priority::Inline,
        },
        origin: Origin {
            workspace: file.as_deref().and_then(|file| server.workspace_of(file)),
            file,
            name: document.name(),
            document: Some(document.uri.to_string()),
            automatic: asked.automatic,
            ..Origin::default()
        },
    }
}

/// Whether anything is to be computed here, cheapest check first.
fn gate(server: &Server, settings: &Settings, place: &Place) -> Result<Cursor, EmptyReason> {
    let completion = &settings.completion;
    if !completion.enabled || place.typing && !completion.automatic {
        return Err(EmptyReason::Disabled);
    }
    if server.status.paused() {
        return Err(EmptyReason::Paused);
    }
    let document = server
        .documents
        .get(&place.uri)
        .filter(|document| document.state == State::Good)
        .ok_or(EmptyReason::DocumentUnavailable)?;
    if completion.languages_off.contains(&document.language) {
        return Err(EmptyReason::LanguageOff);
    }
    if let Some(file) = document.file() {
        let workspace = server.workspace_of(&file);
        let relative = workspace
            .as_deref()
            .and_then(|folder| file.strip_prefix(folder).ok());
        if server
            .paths_off
            .matches(&completion.paths_off, relative.unwrap_or(&file))
        {
            return Err(EmptyReason::PathOff);
        }
    }
    locate(document, place, server.capabilities().encoding)
}

/// Finds the cursor in the document.
fn locate(document: Snapshot, place: &Place, encoding: Encoding) -> Result<Cursor, EmptyReason> {
    let text = &document.text;
    let at = |position| {
        position::to_char(text, position, encoding).map_err(|_| EmptyReason::PositionInvalid)
    };
    let cursor = at(place.position)?;
    let (from, to, typed) = if let Some(selected) = &place.selected {
        let (from, to) = (at(selected.range.start)?, at(selected.range.end)?);
        if from > to || text.char_to_line(from) != text.char_to_line(to) {
            return Err(EmptyReason::PositionInvalid);
        }
        (from, to, selected.text.clone())
    } else {
        let from = start_of_typed(text, cursor);
        (from, cursor, text.slice(from..cursor).to_string())
    };
    Ok(Cursor {
        document,
        from,
        to,
        typed,
        encoding,
    })
}

/// Lines longer than this many characters are not repeated in every item; the word is.
const MAX_TYPED: usize = 512;

/// Where items start: at the line's start, so that a client that accepts while the user types stays
/// right, or at the word's start on very long lines.
fn start_of_typed(text: &ropey::Rope, cursor: usize) -> usize {
    let line = text.line_to_char(text.char_to_line(cursor));
    if cursor - line <= MAX_TYPED {
        return line;
    }
    start_of_word(text, cursor, cursor - MAX_TYPED)
}

/// The start of the word that ends at `cursor`, not before `limit`.
#[must_use]
pub fn start_of_word(text: &ropey::Rope, cursor: usize, limit: usize) -> usize {
    let mut start = cursor;
    let mut before = text.chars_at(cursor);
    while start > limit && before.prev().is_some_and(is_word) {
        start -= 1;
    }
    start
}

fn inside_word(text: &ropey::Rope, cursor: usize) -> bool {
    text.get_char(cursor).is_some_and(is_word)
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn task(server: &Server, cursor: &Cursor) -> CompleteTask {
    let Cursor { document, .. } = cursor;
    let text = &document.text;
    // What an item replaces and what it repeats differ only for a selected popup entry, whose text
    // the model is to see as if it were typed.
    let before = context::before(text, cursor.from, PREFIX_BYTES);
    let mut prefix = String::with_capacity(before.len() + cursor.typed.len());
    prefix.push_str(&before);
    prefix.push_str(&cursor.typed);
    CompleteTask {
        path: context::shown_path(server, document),
        language: document.language.clone(),
        prefix: prefix.into(),
        suffix: context::after(text, cursor.to, SUFFIX_BYTES),
        snippets: context::snippets(server, document, cursor.to),
        shape: CompletionShape::Auto,
    }
}

impl Cursor {
    /// The text as a model is to see it: an entry of the popup that is selected as if it were typed.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let mut text = self.document.text.clone();
        if text.slice(self.from..self.to) != self.typed.as_str() {
            text.remove(self.from..self.to);
            text.insert(self.from, &self.typed);
        }
        let cursor = self.from + self.typed.chars().count();
        Seen { text, cursor }
    }

    /// The range that items replace.
    #[must_use]
    pub fn range(&self) -> tower_lsp::lsp_types::Range {
        let position = |index| position::to_position(&self.document.text, index, self.encoding);
        tower_lsp::lsp_types::Range::new(position(self.from), position(self.to))
    }
}

impl PathsOff {
    /// Whether a path is switched off by one of `globs`.
    pub fn matches(&self, globs: &[String], path: &Path) -> bool {
        if globs.is_empty() {
            return false;
        }
        let mut compiled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*compiled {
            Some((of, set)) if of == globs => set.is_match(path),
            _ => {
                let set = compile(globs);
                let matches = set.is_match(path);
                *compiled = Some((globs.to_vec(), set));
                matches
            }
        }
    }
}

fn compile(globs: &[String]) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        match Glob::new(glob) {
            Ok(glob) => {
                set.add(glob);
            }
            Err(error) => tracing::warn!(%error, "a glob in completion.paths_off is not one"),
        }
    }
    set.build().unwrap_or_else(|error| {
        tracing::warn!(%error, "completion.paths_off cannot be used");
        GlobSet::empty()
    })
}

/// Tells the user that a request was cancelled, when the future that holds it is dropped.
struct TakenBack<'a>(Option<&'a Server>);

impl TakenBack<'_> {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for TakenBack<'_> {
    fn drop(&mut self) {
        if let Some(server) = self.0 {
            server.status.empty_now(&EmptyReason::Cancelled.into());
        }
    }
}
