//! Answers that need no model: what a measure says of them shows what its figures are worth.

use tandem::inference::{CompleteTask, CompletionShape};
use tandem::postprocess::{CompletionFilter, Progress};

use super::score::Case;

/// Who answers besides the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Nobody.
    Empty,
    /// The rest of the earlier line that is most like the cursor's, or, where nothing is typed on
    /// that yet, the line that followed the one most like the line before.
    Repeat,
    /// What really stood there.
    Oracle,
    /// A model that knows what stood there and writes on: what Tandem's post-processing leaves of it.
    Trimmed,
}

impl Control {
    /// In the order of the tables.
    pub const ALL: [Self; 4] = [Self::Empty, Self::Repeat, Self::Oracle, Self::Trimmed];

    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Repeat => "repeat of the most similar earlier line",
            Self::Oracle => "oracle",
            Self::Trimmed => "oracle that writes on, post-processed",
        }
    }

    pub fn answer(self, case: &Case<'_>) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Repeat => repeat(case.prefix(), case.suffix()),
            Self::Oracle => case.truth().to_owned(),
            Self::Trimmed => trimmed(case),
        }
    }
}

fn repeat(prefix: &str, suffix: &str) -> String {
    let (before, line) = prefix.rsplit_once('\n').unwrap_or(("", prefix));
    let typed = line.trim_start();
    let answer = if typed.is_empty() {
        line_after_most_similar(before)
    } else {
        rest_of_most_similar(before, typed)
    };
    // What follows on the line is there already.
    let follows = suffix.split('\n').next().unwrap_or_default().trim();
    let end = match answer.find(follows) {
        Some(at) if !follows.is_empty() => at,
        _ => answer.len(),
    };
    answer[..end].trim_end().to_owned()
}

/// What follows, on the latest of the lines that have most of it, the longest end of `typed`.
fn rest_of_most_similar<'a>(before: &'a str, typed: &str) -> &'a str {
    let mut best = (0, "");
    for line in before.lines().rev() {
        let ends = typed.char_indices().map(|(at, _)| &typed[at..]);
        let mut longer = ends.take_while(|end| end.len() > best.0);
        if let Some((at, end)) = longer.find_map(|end| line.find(end).map(|at| (at, end))) {
            best = (end.len(), &line[at + end.len()..]);
        }
    }
    best.1
}

fn line_after_most_similar(before: &str) -> &str {
    let lines: Vec<&str> = before
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let Some((last, earlier)) = lines.split_last() else {
        return "";
    };
    let mut best = (0.0, "");
    for pair in earlier.windows(2).rev() {
        let similarity = strsim::normalized_levenshtein(pair[0], last);
        if similarity > best.0 {
            best = (similarity, pair[1]);
        }
    }
    best.1
}

fn trimmed(case: &Case<'_>) -> String {
    let task = CompleteTask {
        path: None,
        language: case.language.id().to_owned(),
        prefix: case.prefix().into(),
        suffix: case.suffix().into(),
        snippets: Vec::new(),
        shape: CompletionShape::Auto,
    };
    let mut filter = CompletionFilter::new(&task, &[]);
    for character in case.truth().chars().chain(case.suffix().chars()) {
        if filter.push(character.encode_utf8(&mut [0; 4])) == Progress::Enough {
            break;
        }
    }
    filter.finish().unwrap_or_default()
}
