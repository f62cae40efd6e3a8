//! Holes, filled by a server and by the controls.

use std::collections::BTreeMap;

use rand::seq::IndexedRandom;
use serde::Serialize;

use crate::corpus::Source;
use crate::measure::controls::Control;
use crate::measure::holes::{Hole, Kind};
use crate::measure::random;
use crate::measure::score::{Case, Score};
use crate::measure::syntax::Language;
use crate::server::Server;

/// A hole and what a server made of it.
#[derive(Debug, Serialize)]
pub struct Filled {
    pub language: Language,
    pub kind: Kind,
    pub package: String,
    pub path: String,
    pub line: usize,
    /// What is on the cursor's line before it.
    pub before: String,
    pub truth: String,
    pub answer: String,
    /// Why the answer is empty.
    pub reason: Option<String>,
    pub ms: f64,
    pub score: Score,
    /// What the controls would have got.
    #[serde(skip)]
    pub controls: Vec<Score>,
}

/// Has `server` fill `holes`, with `neighbours` other files of the same package open.
pub fn fill(
    server: &mut Server,
    holes: &[(&Source, Hole)],
    sources: &[Source],
    neighbours: usize,
    seed: u64,
) -> anyhow::Result<Vec<Filled>> {
    let mut by_source: BTreeMap<(&str, &str), (&Source, Vec<&Hole>)> = BTreeMap::new();
    for (source, hole) in holes {
        let of_source = by_source.entry((&source.package, &source.path));
        of_source
            .or_insert_with(|| (source, Vec::new()))
            .1
            .push(hole);
    }
    let mut filled = Vec::new();
    for (source, holes) in by_source.into_values() {
        let language = source.language.id();
        let others: Vec<&Source> = sources
            .iter()
            .filter(|other| other.package == source.package && other.path != source.path)
            .collect();
        let mut random = random(
            seed,
            &format!("neighbours {} {}", source.package, source.path),
        );
        let open: Vec<_> = others
            .choose_multiple(&mut random, neighbours)
            .map(|other| server.document(&place(other), other.text.clone()))
            .collect();
        for document in &open {
            server.open(document, language)?;
        }
        for hole in holes {
            let case = Case::new(source.language, &source.text, hole);
            let document = server.document(&place(source), case.with(""));
            server.open(&document, language)?;
            let (answer, took) = server.complete(&document, hole.start)?;
            server.close(&document)?;
            let line = case.prefix().rfind('\n').map_or(0, |at| at + 1);
            filled.push(Filled {
                language: source.language,
                kind: hole.kind,
                package: source.package.clone(),
                path: source.path.clone(),
                line: case.prefix().matches('\n').count() + 1,
                before: case.prefix()[line..].to_owned(),
                truth: case.truth().to_owned(),
                score: case.score(&answer.text),
                answer: answer.text,
                reason: answer.reason,
                ms: took.as_secs_f64() * 1e3,
                controls: Control::ALL
                    .iter()
                    .map(|control| case.score(&control.answer(&case)))
                    .collect(),
            });
        }
        for document in &open {
            server.close(document)?;
        }
    }
    Ok(filled)
}

/// Where a source stands in the workspace.
pub fn place(source: &Source) -> String {
    format!("{}/{}", source.package, source.path)
}
