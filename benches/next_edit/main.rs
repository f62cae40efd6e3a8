//! How often the next edit is right: `cargo bench --bench next_edit`. See benches/README.md.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

mod figures;
mod git;
mod measure;
mod replay;

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use serde::Serialize;
use tandem::next_edit::{Kind, LEAST_CONFIDENCE};

use crate::figures::Tally;
use crate::measure::fit::{Case, fit};
use crate::replay::{Author, Replay};

/// Types the commits of Git repositories again, and asks after each step for the next edit.
#[expect(clippy::struct_excessive_bools, reason = "flags are what it holds")]
#[derive(Debug, Parser)]
struct Arguments {
    /// Repositories, with or without a work tree.
    #[arg(long = "repo", value_name = "PATH", default_value = ".")]
    repositories: Vec<PathBuf>,
    /// Commits of each, spread over its history.
    #[arg(long, default_value_t = 500)]
    commits: usize,
    /// Begin in each file at any place, and go on from there and around, rather than at the top.
    #[arg(long)]
    anywhere: bool,
    /// The least confidence of a proposal.
    #[arg(long, default_value_t = LEAST_CONFIDENCE)]
    threshold: f32,
    /// Print each proposal that was not what the commit has.
    #[arg(long)]
    show: bool,
    /// Print weights fitted to these repositories, typed in both orders, in place of measuring.
    #[arg(long)]
    fit: bool,
    /// Where results.json goes.
    #[arg(long, default_value = "target/next_edit")]
    out: PathBuf,
    /// What cargo passes to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// All that is known afterwards.
#[derive(Serialize)]
struct Results {
    threshold: f32,
    anywhere: bool,
    repositories: Vec<Repository>,
    total: Tally,
    next_occurrence: Tally,
}

#[derive(Serialize)]
struct Repository {
    name: String,
    tandem: Tally,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.fit {
        return weights(&arguments);
    }
    let replay = |author, repository: &PathBuf| {
        Replay {
            commits: arguments.commits,
            anywhere: arguments.anywhere,
            show: arguments.show,
            author,
        }
        .run(repository, &mut |_, _| {})
    };
    let mut total = Tally::default();
    let mut next_occurrence = Tally::default();
    let mut repositories = Vec::new();
    for repository in &arguments.repositories {
        let tandem = replay(Author::Tandem(arguments.threshold), repository)?;
        next_occurrence.add(&replay(Author::NextOccurrence, repository)?);
        total.add(&tandem);
        let name = repository.display().to_string();
        println!("{name}: {} commits", tandem.commits);
        repositories.push(Repository { name, tandem });
    }
    println!("\n{}", figures::table(&total, &next_occurrence));
    let results = Results {
        threshold: arguments.threshold,
        anywhere: arguments.anywhere,
        repositories,
        total,
        next_occurrence,
    };
    fs::create_dir_all(&arguments.out)?;
    let path = arguments.out.join("results.json");
    fs::write(&path, serde_json::to_string_pretty(&results)?)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// Prints the tables of src/next_edit/score.rs.
fn weights(arguments: &Arguments) -> anyhow::Result<()> {
    let mut cases: [Vec<Case>; 2] = Default::default();
    for repository in &arguments.repositories {
        for anywhere in [false, true] {
            let replay = Replay {
                commits: arguments.commits,
                anywhere,
                show: false,
                // Nobody's proposals are followed, so that each candidate is seen.
                author: Author::Nobody,
            };
            replay.run(repository, &mut |kind, case| {
                cases[usize::from(kind == Kind::Repeat)].push(case);
            })?;
        }
    }
    for (name, cases) in ["RENAME", "REPEAT"].into_iter().zip(&cases) {
        let weights = fit(cases).map(|weight| format!("{weight:.2}"));
        println!(
            "pub const {name}: Features = [{}]; // {} candidates",
            weights.join(", "),
            cases.len()
        );
    }
    Ok(())
}
