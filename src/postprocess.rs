//! From what a model said to what a person would keep. Pure.

mod brackets;
mod circles;
mod completion;
mod place;
mod stop;
mod text;

pub use completion::CompletionFilter;
pub use place::is_in_empty_block;
pub use text::TextFilter;

/// Whether more of an answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More may matter.
    More,
    /// Whatever follows would be cut anyway: the backend can be stopped.
    Enough,
}

/// Whether a document ends its lines with a carriage return and a line feed, judged by the first
/// line end in any of its parts.
fn is_crlf(parts: &[&str]) -> bool {
    parts
        .iter()
        .find_map(|part| part.find('\n').map(|at| part[..at].ends_with('\r')))
        .unwrap_or(false)
}

/// `text`, which has line feeds alone, with the document's line ends.
fn to_document(text: String, crlf: bool) -> String {
    if crlf {
        text.replace('\n', "\r\n")
    } else {
        text
    }
}
