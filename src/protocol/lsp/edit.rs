//! From an action to an edit: what is replaced, what the model is told, and whether the document is
//! still the one it was told about.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use ropey::Rope;
use tower_lsp::lsp_types::{
    self, DocumentChanges, OneOf, OptionalVersionedTextDocumentIdentifier, ProgressToken,
    TextDocumentEdit, TextEdit, WorkspaceEdit,
};

use crate::inference::{
    Attribution, ClientId, EditTask, Effort, FinishReason, GenerateRequest, Priority, RequestId,
    Sampling, Task,
};
use crate::router::{Answer, NoAnswer, Origin, RouteRequest};

use super::actions::{Kind, Target};
use super::block;
use super::context::{self, PREFIX_BYTES, SUFFIX_BYTES};
use super::documents::{Snapshot, State};
use super::position::{self, Encoding, PositionError};
use super::progress::Bar;
use super::server::Server;

/// The longest an action may take. Claude's longest answers take about a minute.
pub const ACTION_LIMIT: Duration = Duration::from_mins(2);

/// More text than this, in bytes, is not rewritten at once: the answer would be as long.
const MAX_PIECE_BYTES: usize = 32 << 10;

/// Lines on either side of a diagnostic that may have to change with it, where no block tells.
const MAX_FIX_LINES: usize = 80;

/// Why there is no edit. Each ends with the next step.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Trouble {
    /// The document is not open, too large or out of step.
    #[error("the document is not open here, or larger than 10 MiB. Close and open it.")]
    Unavailable,
    /// The range is none.
    #[error("the selection is not in the document ({0}). Select again.")]
    NoSuchRange(PositionError),
    /// There is too much to do at once.
    #[error("the selection is larger than 32 KiB. Select less.")]
    TooLarge,
    /// There is nothing to do it to.
    #[error("there is nothing here to work on. Select some code.")]
    NoText,
    /// The document is not the one that the model was told about.
    #[error(
        "the document has changed in the meantime, so nothing was edited. Run the action again."
    )]
    Changed,
    /// The document was closed.
    #[error("the document was closed. Open it and run the action again.")]
    Closed,
    /// The model says what is there already.
    #[error(
        "{model} would change nothing here. Select other code, or say what to do with the rewrite action."
    )]
    Unchanged {
        /// Who says so.
        model: String,
    },
    /// The answer has no end.
    #[error(
        "the answer was cut off, so nothing was edited. Select less, and run the action again."
    )]
    CutOff,
    /// No answer came.
    #[error("{0}")]
    NoAnswer(String),
}

/// An edit that may be applied.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The document it is for.
    pub document: Snapshot,
    /// What it replaces, in characters.
    pub range: Range<usize>,
    /// What by.
    pub new_text: String,
    /// Who wrote it.
    pub attribution: Attribution,
}

/// What of a document an action is about.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    /// In characters.
    range: Range<usize>,
    /// Goes before the answer.
    lead: &'static str,
}

/// Asks for the edit of an action. Whoever uses it must check [`still_current`] once more if they
/// wait in between.
///
/// # Errors
/// [`Trouble`], for the user to read.
pub async fn propose(
    server: &Server,
    kind: Kind,
    target: &Target,
    progress: Option<ProgressToken>,
) -> Result<Proposal, Trouble> {
    let document = open(server, target)?;
    let encoding = server.capabilities().encoding;
    let piece = piece(&document.text, kind, target, encoding)?;
    let text = &document.text;
    let selection = context::piece(text, piece.range.clone());
    let task = EditTask {
        path: context::shown_path(server, &document),
        language: document.language.clone(),
        before: context::before(text, piece.range.start, PREFIX_BYTES),
        after: context::after(text, piece.range.end, SUFFIX_BYTES),
        instruction: instruction(kind, target),
        selection: selection.clone(),
    };
    let effort = match kind {
        Kind::Fix | Kind::Test | Kind::Rewrite => Effort::High,
        Kind::Document | Kind::Explain => Effort::Low,
    };
    // A token is at least a few bytes, and an answer seldom more than twice its question.
    let max_tokens =
        (selection.len() * 2 / 3 + 512).min(server.session.router.settings().claude.max_tokens);
    let bar = Bar::create(server, kind.title().to_owned(), progress).await;
    let answer = ask(server, &document, Task::Edit(task), effort, max_tokens).await;
    if let Some(bar) = bar {
        bar.end(String::new()).await;
    }
    let answer = whole(answer?)?;
    let model = answer.attribution.model.clone();
    if answer.text.trim().is_empty() && !selection.trim().is_empty() || answer.text == *selection {
        return Err(Trouble::Unchanged { model });
    }
    still_current(server, &document)?;
    let lead = match piece.lead {
        lead if is_crlf(text) => lead.replace('\n', "\r\n"),
        lead => lead.to_owned(),
    };
    Ok(Proposal {
        document,
        range: piece.range,
        new_text: lead + &answer.text,
        attribution: answer.attribution,
    })
}

/// The document of an action, if it is the one that its range is for.
///
/// # Errors
/// [`Trouble`], for the user to read.
pub fn open(server: &Server, target: &Target) -> Result<Snapshot, Trouble> {
    let document = server
        .documents
        .get(&target.uri)
        .filter(|document| document.state == State::Good)
        .ok_or(Trouble::Unavailable)?;
    if target
        .version
        .is_some_and(|version| version != document.version)
    {
        return Err(Trouble::Changed);
    }
    Ok(document)
}

/// Whether a document is still as it was.
///
/// # Errors
/// [`Trouble::Changed`] or [`Trouble::Closed`].
pub fn still_current(server: &Server, document: &Snapshot) -> Result<(), Trouble> {
    match server.documents.get(&document.uri) {
        None => Err(Trouble::Closed),
        Some(now) if now.revision != document.revision => Err(Trouble::Changed),
        Some(_) => Ok(()),
    }
}

/// Asks for a whole answer about a document.
///
/// # Errors
/// [`Trouble`], for the user to read.
pub async fn ask(
    server: &Server,
    document: &Snapshot,
    task: Task,
    effort: Effort,
    max_tokens: usize,
) -> Result<Answer, Trouble> {
    let file = document.file();
    let request = RouteRequest {
        generate: GenerateRequest {
            client: ClientId::default(),
            id: RequestId::next(),
            task,
            sampling: Sampling::GREEDY,
            max_tokens,
            stop: Vec::new(),
            effort,
            priority: Priority::Tool,
        },
        origin: Origin {
            workspace: file.as_deref().and_then(|file| server.workspace_of(file)),
            file,
            name: document.name(),
            document: Some(document.uri.to_string()),
            automatic: false,
            ..Origin::default()
        },
    };
    let answer = server
        .session
        .router
        .route(request, &document.closed)
        .collect_within(ACTION_LIMIT, |_| {});
    tokio::select! {
        biased;
        () = document.closed.cancelled() => Err(Trouble::Closed),
        answer = answer => answer.map_err(no_answer),
    }
}

/// An answer that came to its end: what a cut-off one leaves out would be deleted from the document.
fn whole(answer: Answer) -> Result<Answer, Trouble> {
    match &answer.finish {
        Some(finish) if finish.reason == FinishReason::Stop => Ok(answer),
        _ => Err(Trouble::CutOff),
    }
}

/// What to tell where no answer came.
#[must_use]
pub fn no_answer(none: NoAnswer) -> Trouble {
    let why = none.error.map_or_else(
        || "the model had nothing to say. Try again with more code selected.".to_owned(),
        |error| error.to_string(),
    );
    Trouble::NoAnswer(why)
}

fn instruction(kind: Kind, target: &Target) -> String {
    match kind {
        Kind::Fix => format!(
            "Fix this problem, and change nothing that has nothing to do with it: {}",
            target
                .diagnostic
                .as_deref()
                .unwrap_or("find out what is wrong here"),
        ),
        Kind::Document => "Add documentation comments the way this language has them. Keep the code \
                           itself as it is."
            .to_owned(),
        Kind::Test => "Write a unit test for the definition right before this place, the way this \
                       language and this file have tests. Write the test alone; it goes right after \
                       that definition."
            .to_owned(),
        Kind::Explain | Kind::Rewrite => target.instruction.clone().unwrap_or_default(),
    }
}

/// What an action works on: the selection, or what is around the cursor.
fn piece(text: &Rope, kind: Kind, target: &Target, encoding: Encoding) -> Result<Piece, Trouble> {
    let at = |position| position::to_char(text, position, encoding).map_err(Trouble::NoSuchRange);
    let (start, end) = (at(target.range.start)?, at(target.range.end)?);
    if start > end {
        return Err(Trouble::NoSuchRange(PositionError::Backwards));
    }
    let range = match kind {
        Kind::Rewrite if start < end => start..end,
        Kind::Fix => {
            let whole = whole_lines(text, start, end);
            let block = block::around(text, text.char_to_line(start));
            let lines = text.char_to_line(whole.start)..text.char_to_line(whole.end) + 1;
            let holds = block.start <= lines.start && lines.end <= block.end;
            if holds && block.len() <= MAX_FIX_LINES {
                block_chars(text, &block)
            } else {
                whole
            }
        }
        _ if start < end => whole_lines(text, start, end),
        _ => block_chars(text, &block::around(text, text.char_to_line(start))),
    };
    let held = text.slice(range.clone());
    if held.len_bytes() > MAX_PIECE_BYTES {
        return Err(Trouble::TooLarge);
    }
    if held.chars().all(char::is_whitespace) {
        return Err(Trouble::NoText);
    }
    Ok(match kind {
        Kind::Test => Piece {
            range: range.end..range.end,
            lead: "\n\n",
        },
        _ => Piece { range, lead: "" },
    })
}

/// The characters of what an explanation is about.
///
/// # Errors
/// [`Trouble`], for the user to read.
pub fn explained(
    text: &Rope,
    target: &Target,
    encoding: Encoding,
) -> Result<Range<usize>, Trouble> {
    piece(text, Kind::Explain, target, encoding).map(|piece| piece.range)
}

/// The lines that a selection touches, without the last one's end. A selection that ends at a line's
/// start does not touch that line.
fn whole_lines(text: &Rope, start: usize, end: usize) -> Range<usize> {
    let first = text.char_to_line(start);
    let mut last = text.char_to_line(end);
    if last > first && text.line_to_char(last) == end {
        last -= 1;
    }
    text.line_to_char(first)..position::line_end(text, last)
}

fn block_chars(text: &Rope, block: &Range<usize>) -> Range<usize> {
    let last = block.end.saturating_sub(1).max(block.start);
    text.line_to_char(block.start)..position::line_end(text, last)
}

fn is_crlf(text: &Rope) -> bool {
    let first = text.line(0);
    let length = first.len_chars();
    length > 1 && first.char(length - 1) == '\n' && first.char(length - 2) == '\r'
}

impl Proposal {
    /// As the client takes it: for this version of the document alone, where it can say so.
    #[must_use]
    pub fn workspace_edit(&self, server: &Server) -> WorkspaceEdit {
        let encoding = server.capabilities().encoding;
        let position = |index| position::to_position(&self.document.text, index, encoding);
        let range = lsp_types::Range::new(position(self.range.start), position(self.range.end));
        workspace_edit(server, &self.document, range, self.new_text.clone())
    }
}

/// One edit of one document, for the version that we know where the client knows versions.
#[must_use]
pub fn workspace_edit(
    server: &Server,
    document: &Snapshot,
    range: lsp_types::Range,
    new_text: String,
) -> WorkspaceEdit {
    let edit = TextEdit { range, new_text };
    let uri = document.uri.clone();
    if server.capabilities().versioned_edits {
        let edit = TextDocumentEdit {
            text_document: OptionalVersionedTextDocumentIdentifier {
                uri,
                version: Some(document.version),
            },
            edits: vec![OneOf::Left(edit)],
        };
        WorkspaceEdit {
            document_changes: Some(DocumentChanges::Edits(vec![edit])),
            ..WorkspaceEdit::default()
        }
    } else {
        WorkspaceEdit::new(HashMap::from([(uri, vec![edit])]))
    }
}

#[cfg(test)]
mod tests {
    use tower_lsp::lsp_types::{Position, Range as LspRange};

    use super::*;
    use crate::inference::{BackendKind, Finish, RouteReason, Usage};

    #[test]
    fn a_cut_off_answer_edits_nothing() {
        for (reason, expected) in [
            (Some(FinishReason::Stop), true),
            (Some(FinishReason::Length), false),
            (None, false),
        ] {
            let answer = Answer {
                text: "fn f() {".to_owned(),
                attribution: Attribution {
                    backend: BackendKind::Scripted,
                    model: String::new(),
                    reason: RouteReason::LocalHealthy,
                },
                finish: reason.map(|reason| Finish {
                    reason,
                    usage: Usage::default(),
                    model: None,
                }),
            };
            assert_eq!(whole(answer).is_ok(), expected, "{reason:?}");
        }
    }

    const TEXT: &str = "use a;\n\nfn f() {\n    g(1);\n    h();\n}\n";

    fn check(kind: Kind, range: [u32; 4], expected: Result<(&str, &str), Trouble>) {
        let [line, character, end_line, end_character] = range;
        let target = Target {
            uri: "file:///a".parse().unwrap(),
            range: LspRange::new(
                Position::new(line, character),
                Position::new(end_line, end_character),
            ),
            version: None,
            diagnostic: None,
            instruction: None,
        };
        let text = Rope::from_str(TEXT);
        let found = piece(&text, kind, &target, Encoding::Utf16);
        let found = found.map(|piece| (text.slice(piece.range).to_string(), piece.lead));
        let expected = expected.map(|(text, lead)| (text.to_owned(), lead));
        assert_eq!(found, expected, "{kind:?} {range:?}");
    }

    #[test]
    fn an_action_works_on_the_selection_or_what_is_around_the_cursor() {
        let function = "fn f() {\n    g(1);\n    h();\n}";
        check(Kind::Document, [3, 5, 3, 5], Ok((function, "")));
        check(Kind::Document, [3, 5, 3, 6], Ok(("    g(1);", "")));
        check(Kind::Document, [2, 0, 3, 0], Ok(("fn f() {", "")));
        check(Kind::Test, [3, 5, 3, 5], Ok(("", "\n\n")));
        check(Kind::Rewrite, [3, 4, 3, 8], Ok(("g(1)", "")));
        check(Kind::Rewrite, [3, 4, 3, 4], Ok((function, "")));
        check(Kind::Fix, [3, 4, 3, 5], Ok((function, "")));
        check(Kind::Fix, [0, 4, 0, 5], Ok(("use a;", "")));
        check(Kind::Rewrite, [1, 0, 2, 0], Err(Trouble::NoText));
        check(
            Kind::Rewrite,
            [99, 0, 99, 0],
            Err(Trouble::NoSuchRange(PositionError::LinePastEnd)),
        );
        check(
            Kind::Rewrite,
            [3, 0, 2, 0],
            Err(Trouble::NoSuchRange(PositionError::Backwards)),
        );
    }
}
