//! Scores boiled down to rows, and rows to tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::filling::Filled;
use crate::measure::controls::Control;
use crate::measure::holes::Kind;
use crate::measure::score::Score;
use crate::measure::syntax::Language;
use crate::replay::Tally;

/// What one of those who answer did at some holes. Shares are from 0 to 1.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// `None` for all together.
    pub language: Option<Language>,
    /// `None` for all together.
    pub kind: Option<Kind>,
    pub who: String,
    pub holes: usize,
    pub packages: usize,
    pub exact: f64,
    pub first_line: f64,
    /// Mean; an empty answer has 0.
    pub similarity: f64,
    /// Of the answers that are not empty.
    pub adds_errors: f64,
    /// Of the answers that are not empty: with them the source does not parse.
    pub does_not_parse: f64,
    /// Of the answers that are not empty.
    pub repeats_suffix: f64,
    pub empty: f64,
    /// Of all characters that were missing.
    pub saved: f64,
    /// Nothing for controls.
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    /// Why answers were empty.
    pub reasons: BTreeMap<String, usize>,
}

/// The rows of `filled` for everybody: in all, by language, by kind, and by both.
pub fn rows(filled: &[Filled], model: &str) -> Vec<Row> {
    let languages = || std::iter::once(None).chain(Language::ALL.map(Some));
    let kinds = || std::iter::once(None).chain(Kind::ALL.map(Some));
    let mut rows = Vec::new();
    for (language, kind) in
        languages().flat_map(|language| kinds().map(move |kind| (language, kind)))
    {
        let some: Vec<&Filled> = filled
            .iter()
            .filter(|one| language.is_none_or(|language| one.language == language))
            .filter(|one| kind.is_none_or(|kind| one.kind == kind))
            .collect();
        if some.is_empty() {
            continue;
        }
        for (index, control) in Control::ALL.iter().enumerate() {
            let scores: Vec<&Score> = some.iter().map(|one| &one.controls[index]).collect();
            rows.push(row(language, kind, control.name(), &some, &scores));
        }
        let scores: Vec<&Score> = some.iter().map(|one| &one.score).collect();
        let mut row = row(language, kind, model, &some, &scores);
        let mut times: Vec<f64> = some.iter().map(|one| one.ms).collect();
        (row.p50_ms, row.p95_ms) = (percentile(&mut times, 0.5), percentile(&mut times, 0.95));
        for reason in some.iter().filter_map(|one| one.reason.clone()) {
            *row.reasons.entry(reason).or_default() += 1;
        }
        rows.push(row);
    }
    rows
}

fn row(
    language: Option<Language>,
    kind: Option<Kind>,
    who: &str,
    holes: &[&Filled],
    scores: &[&Score],
) -> Row {
    let shown: Vec<&Score> = scores.iter().copied().filter(|one| !one.empty).collect();
    let share = |among: &[&Score], is: fn(&Score) -> bool| {
        among.iter().filter(|one| is(one)).count() as f64 / among.len().max(1) as f64
    };
    let mut packages: Vec<&str> = holes.iter().map(|hole| &*hole.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let sum = |of: fn(&Score) -> usize| scores.iter().map(|one| of(one)).sum::<usize>() as f64;
    Row {
        language,
        kind,
        who: who.to_owned(),
        holes: holes.len(),
        packages: packages.len(),
        exact: share(scores, |one| one.exact),
        first_line: share(scores, |one| one.first_line),
        similarity: scores.iter().map(|one| one.similarity).sum::<f64>() / holes.len() as f64,
        adds_errors: share(&shown, |one| one.errors_added > 0),
        does_not_parse: share(&shown, |one| !one.parses),
        repeats_suffix: share(&shown, |one| one.repeats_suffix),
        empty: share(scores, |one| one.empty),
        saved: sum(|one| one.saved) / sum(|one| one.missing).max(1.0),
        p50_ms: None,
        p95_ms: None,
        reasons: BTreeMap::new(),
    }
}

/// The value below which a share of all lies; `None` without any.
pub fn percentile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some(values[((share * last as f64).round() as usize).min(last)])
}

/// The rows as Markdown: everybody by language and by kind, then the model by both.
pub fn tables(rows: &[Row], model: &str) -> String {
    let mut text = String::new();
    let mut table = |heading: &str, keep: &dyn Fn(&Row) -> bool| {
        let _ = writeln!(
            text,
            "| {heading} | holes | who | exact | first line | similarity | saved | adds errors | does not \
             parse | repeats suffix | empty | p50 ms | p95 ms |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
        );
        for row in rows.iter().filter(|row| keep(row)) {
            let ms = |value: Option<f64>| value.map_or(String::new(), |ms| format!("{ms:.0}"));
            let place = match (row.language, row.kind) {
                (None, None) => "all".to_owned(),
                (Some(language), None) => language.id().to_owned(),
                (None, Some(kind)) => kind.name().to_owned(),
                (Some(language), Some(kind)) => format!("{}, {}", language.id(), kind.name()),
            };
            let _ = writeln!(
                text,
                "| {place} | {} | {} | {} | {} | {:.3} | {} | {} | {} | {} | {} | {} | {} |",
                row.holes,
                row.who,
                percent(row.exact),
                percent(row.first_line),
                row.similarity,
                percent(row.saved),
                percent(row.adds_errors),
                percent(row.does_not_parse),
                percent(row.repeats_suffix),
                percent(row.empty),
                ms(row.p50_ms),
                ms(row.p95_ms),
            );
        }
        text.push('\n');
    };
    table("language", &|row| row.kind.is_none());
    table("kind of hole", &|row| {
        row.language.is_none() && row.kind.is_some()
    });
    table("language and kind", &|row| {
        row.language.is_some() && row.kind.is_some() && row.who == model
    });
    text + &reasons(rows, model)
}

fn reasons(rows: &[Row], model: &str) -> String {
    let mut text = "| empty answers of | reason | holes |\n|---|---|---|\n".to_owned();
    for row in rows
        .iter()
        .filter(|row| row.who == model && row.kind.is_none())
    {
        for (reason, count) in &row.reasons {
            let language = row.language.map_or("all", Language::id);
            let _ = writeln!(text, "| {language} | {reason} | {count} of {} |", row.holes);
        }
    }
    text + "\n"
}

/// What came of typing, as Markdown.
pub fn replay_table(tallies: &[(Language, Tally)]) -> String {
    let mut text = "| typing | keystrokes | requests | reached the model | cancelled | shown | still valid at \
                    the next key | replaced while right | accepted | characters retained, of accepted | of all \
                    typed | p50 ms | p95 ms |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    let mut all = Tally::default();
    for (_, tally) in tallies {
        all.add(tally.clone());
    }
    let named = tallies
        .iter()
        .map(|(language, tally)| (language.id(), tally));
    for (name, tally) in named.chain([("all", &all)]) {
        let mut times = tally.latencies.clone();
        let mut ms =
            |share| percentile(&mut times, share).map_or(String::new(), |ms| format!("{ms:.0}"));
        let share = |part: usize, whole: usize| percent(part as f64 / whole.max(1) as f64);
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} | {} ({}) | {} | {} | {} of {} | {} | {} | {} |",
            tally.keystrokes,
            tally.requests,
            tally
                .reached_model
                .map_or_else(|| "not counted".to_owned(), |count| count.to_string()),
            tally.cancels,
            tally.shown,
            tally.still_valid,
            share(tally.still_valid, tally.shown),
            tally.replaced_while_right,
            tally.accepted,
            tally.retained_characters,
            tally.accepted_characters,
            share(tally.retained_characters, tally.characters),
            ms(0.5),
            ms(0.95),
        );
    }
    let reasons: Vec<String> = all
        .reasons
        .iter()
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    if !reasons.is_empty() {
        let _ = writeln!(
            text,
            "\nEmpty answers while typing: {}.",
            reasons.join(", ")
        );
    }
    text
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
