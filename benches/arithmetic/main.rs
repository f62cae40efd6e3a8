//! Our own kernels beside candle and llama.cpp, on a model in the sizes of Qwen3-0.6B with random
//! weights (speed does not depend on values): `cargo bench --bench arithmetic`.
//!
//! `-- --types q4_0,q8_0,q4_k_m` chooses the types of weights, `--threads N` the threads, `--llama-bench
//! PROGRAM` adds llama.cpp, `--quick` takes fewer rounds. `--look-up REPOSITORY` says the last 100 edits of
//! a Git history again in place of all that, with drafts that are looked up and without. Each engine has a process of its own, so that
//! its memory can be told. Figures are medians.
#![expect(clippy::print_stdout, reason = "a bench reports on stdout")]

mod engine;
#[expect(dead_code, reason = "`next_edit` asks Git for more")]
#[path = "../next_edit/git.rs"]
mod git;
mod machine;
mod model_file;
mod peer;
mod replay;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// What one engine did with one file: by the figure's name, in the order of [`FIGURES`].
type Figures = BTreeMap<String, f64>;

/// The table's rows: a figure's name, its unit and how many digits behind the point are meant.
const FIGURES: [(&str, &str, usize); 12] = [
    ("prefill 64", "tok/s", 0),
    ("prefill 512", "tok/s", 0),
    ("prefill 1000", "tok/s", 0),
    ("decode at 128", "tok/s", 1),
    ("decode at 512", "tok/s", 1),
    ("decode at 2000", "tok/s", 1),
    ("first token, 1,000 warm, last 8 changed", "ms", 0),
    ("batch of 4 over batch of 1", "times", 2),
    ("load", "s", 2),
    ("resident at peak", "MB", 0),
    ("resident beside the file's pages", "MB", 0),
    ("file", "MB", 0),
];

struct Arguments {
    types: Vec<String>,
    threads: usize,
    llama_bench: Option<PathBuf>,
    quick: bool,
    /// The repository whose edits are said again, and how many.
    look_up: Option<PathBuf>,
    edits: usize,
    /// For the process of one engine: its name and the file.
    child: Option<(String, PathBuf)>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::read()?;
    // SAFETY: no other thread has been started yet.
    unsafe { tandem::backend::local::threads::limit(Some(arguments.threads)) };
    if let Some((engine, file)) = &arguments.child {
        let figures = engine::measure(engine, file, arguments.quick)?;
        println!("{}", serde_json::to_string(&figures)?);
        return Ok(());
    }
    println!("{}\n", machine::describe(arguments.threads));
    for kind in &arguments.types {
        let file = model_file::at(kind)?;
        if let Some(repository) = &arguments.look_up {
            println!(
                "| {kind} | answers | tokens | tok/s | with look-up | ratio | offered | right |"
            );
            println!("|---|---|---|---|---|---|---|---|");
            for row in replay::measure(&file, repository, arguments.edits)? {
                println!("{row}");
            }
            println!();
            continue;
        }
        let mut columns = Vec::new();
        for engine in ["tandem", "candle"] {
            columns.push((engine, in_process(engine, &file, &arguments)?));
        }
        if let Some(program) = &arguments.llama_bench {
            columns.push(("llama.cpp", peer::measure(program, &file, &arguments)?));
        }
        print(kind, &columns);
    }
    Ok(())
}

impl Arguments {
    fn read() -> anyhow::Result<Self> {
        let mut arguments = Self {
            types: ["q4_0", "q8_0", "q4_k_m"].map(str::to_owned).to_vec(),
            threads: tandem::backend::local::threads::count(),
            llama_bench: None,
            quick: false,
            look_up: None,
            edits: 100,
            child: None,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("{word} needs a value"))
            };
            match word.as_str() {
                // What cargo says to every bench.
                "--bench" => {}
                "--types" => arguments.types = value()?.split(',').map(str::to_owned).collect(),
                "--threads" => arguments.threads = value()?.parse()?,
                "--llama-bench" => arguments.llama_bench = Some(value()?.into()),
                "--look-up" => arguments.look_up = Some(value()?.into()),
                "--edits" => arguments.edits = value()?.parse()?,
                "--quick" => arguments.quick = true,
                "--engine" => arguments.child = Some((value()?, value()?.into())),
                other => bail!("{other} is not known; see benches/README.md"),
            }
        }
        Ok(arguments)
    }
}

fn in_process(engine: &str, file: &Path, arguments: &Arguments) -> anyhow::Result<Figures> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--threads").arg(arguments.threads.to_string());
    if arguments.quick {
        command.arg("--quick");
    }
    let output = command.arg("--engine").arg(engine).arg(file).output()?;
    if !output.status.success() {
        bail!("{engine}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn print(kind: &str, columns: &[(&str, Figures)]) {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    println!("| {kind} | {} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(names.len()));
    for (figure, unit, digits) in FIGURES {
        let cells: Vec<String> = columns
            .iter()
            .map(|(_, figures)| match figures.get(figure) {
                Some(value) => format!("{value:.digits$}"),
                None => "-".to_owned(),
            })
            .collect();
        println!("| {figure}, {unit} | {} |", cells.join(" | "));
    }
    println!();
}
