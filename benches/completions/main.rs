//! What completions are worth: `cargo bench --bench completions`. See benches/README.md.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

mod client;
mod corpus;
mod fetch;
mod figures;
mod filling;
mod measure;
mod plot;
mod replay;
mod server;
#[path = "../session/wire.rs"]
mod wire;

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use serde::Serialize;

use crate::corpus::Source;
use crate::figures::Row;
use crate::filling::Filled;
use crate::measure::syntax::Language;
use crate::replay::Tally;
use crate::server::{Server, Setup};

/// Measures completions at holes in real source that no model of Tandem's was trained on.
#[derive(Debug, Parser)]
struct Arguments {
    /// First bring the packages that are not there yet.
    #[arg(long)]
    fetch: bool,
    /// Where the packages are.
    #[arg(long, default_value = "target/completions/corpus")]
    corpus: PathBuf,
    /// Where results.json and results.svg go.
    #[arg(long, default_value = "target/completions")]
    out: PathBuf,
    /// Which languages.
    #[arg(long, value_delimiter = ',', default_values = ["rust", "python", "typescript", "go"])]
    languages: Vec<Language>,
    /// Holes of each of the five kinds in each language.
    #[arg(long, default_value_t = 120)]
    holes: usize,
    /// Other files of the same package that are open.
    #[arg(long, default_value_t = 2)]
    neighbours: usize,
    /// Passages of each language that are typed, in real time.
    #[arg(long, default_value_t = 2)]
    passages: usize,
    /// The longest passage, in bytes.
    #[arg(long, default_value_t = 300)]
    passage_bytes: usize,
    /// Another seed is another choice of holes, passages and pauses.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The program that is measured, if not the one that cargo has just built.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_tandem"))]
    program: PathBuf,
    /// Hand on a variable of this name, such as `ANTHROPIC_API_KEY`.
    #[arg(long = "env", value_name = "NAME")]
    environment: Vec<String>,
    /// Arguments of `tandem lsp`, after `--`, such as `--model FILE.gguf --set completion.max_tokens=32`.
    #[arg(last = true)]
    tandem: Vec<String>,
    /// What cargo passes to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// All that is known afterwards.
#[derive(Serialize)]
struct Results<'a> {
    model: &'a str,
    arguments: &'a [String],
    seed: u64,
    neighbours: usize,
    rows: &'a [Row],
    typing: &'a [(Language, Tally)],
    holes: &'a [Filled],
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.fetch {
        fetch::fetch(&arguments.corpus)?;
    } else if !arguments.corpus.exists() {
        println!(
            "completions is left out: no packages are in {}. Bring them with\n  \
             cargo bench --bench completions -- --fetch",
            arguments.corpus.display()
        );
        return Ok(());
    }
    // One candidate: it is the one that is shown.
    let mut tandem = vec!["--set".to_owned(), "completion.candidates=1".to_owned()];
    tandem.extend(arguments.tandem.iter().cloned());
    let mut server = Server::start(&Setup {
        program: arguments.program.clone(),
        arguments: tandem,
        environment: arguments.environment.clone(),
    })?;
    let model = server.model()?;
    let mut filled = Vec::new();
    let mut typing = Vec::new();
    for language in &arguments.languages {
        let sources = corpus::read(&arguments.corpus, *language, arguments.seed)?;
        println!("{}: {}", language.id(), described(&sources));
        filled.extend(holes(&arguments, &mut server, &sources)?);
        let tally = typed(&arguments, &mut server, &sources)?;
        if tally.keystrokes > 0 {
            typing.push((*language, tally));
        }
    }
    server.end()?;
    let rows = figures::rows(&filled, &model);
    println!("\n{}", figures::tables(&rows, &model));
    if !typing.is_empty() {
        println!("{}", figures::replay_table(&typing));
    }
    let results = Results {
        model: &model,
        arguments: &arguments.tandem,
        seed: arguments.seed,
        neighbours: arguments.neighbours,
        rows: &rows,
        typing: &typing,
        holes: &filled,
    };
    let write = |name: &str, text: String| {
        let path = arguments.out.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    };
    fs::create_dir_all(&arguments.out)?;
    write(
        "results.json",
        serde_json::to_string_pretty(&results)? + "\n",
    )?;
    write("results.svg", plot::svg(&rows))
}

fn described(sources: &[Source]) -> String {
    let mut packages: Vec<&str> = sources.iter().map(|source| &*source.package).collect();
    packages.dedup();
    format!("{} files of {} packages", sources.len(), packages.len())
}

fn holes(
    arguments: &Arguments,
    server: &mut Server,
    sources: &[Source],
) -> anyhow::Result<Vec<Filled>> {
    let holes = corpus::holes(sources, arguments.holes, arguments.seed);
    let (neighbours, seed) = (arguments.neighbours, arguments.seed);
    filling::fill(server, &holes, sources, neighbours, seed)
}

fn typed(arguments: &Arguments, server: &mut Server, sources: &[Source]) -> anyhow::Result<Tally> {
    let (count, bytes, seed) = (arguments.passages, arguments.passage_bytes, arguments.seed);
    let mut all = Tally::default();
    for passage in replay::passages(sources, count, bytes, seed) {
        all.add(replay::replay(server, &passage, seed)?);
    }
    Ok(all)
}
