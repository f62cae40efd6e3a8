//! Stop sequences, also where they are split across chunks.

/// What a search for stop sequences found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A stop sequence starts at this byte: the answer ends before it.
    StopAt(usize),
    /// No stop sequence; up to this byte none can start any more, whatever follows.
    ClearTo(usize),
}

/// The stop sequences of one request.
#[derive(Debug, Clone)]
pub(super) struct StopSequences(Vec<String>);

impl StopSequences {
    /// Empty sequences stop nothing.
    pub(super) fn new(stops: &[String]) -> Self {
        Self(
            stops
                .iter()
                .filter(|stop| !stop.is_empty())
                .cloned()
                .collect(),
        )
    }

    /// The earliest stop sequence in `text`, or how far `text` is free of one for good.
    pub(super) fn find(&self, text: &str) -> Found {
        if let Some(at) = self.0.iter().filter_map(|stop| text.find(stop)).min() {
            return Found::StopAt(at);
        }
        let held = self.0.iter().map(|stop| begun(text, stop)).max();
        Found::ClearTo(text.len() - held.unwrap_or(0))
    }
}

/// How many bytes at the end of `text` are the beginning of `stop`.
fn begun(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest)
        .rev()
        .find(|len| {
            stop.is_char_boundary(*len) && text.as_bytes().ends_with(&stop.as_bytes()[..*len])
        })
        .unwrap_or(0)
}
