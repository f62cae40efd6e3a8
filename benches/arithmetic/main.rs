//! Our own kernels beside candle and llama.cpp, on a model in the sizes of Qwen3-0.6B with random
//! weights (speed does not depend on values): `cargo bench --bench arithmetic`.
//!
//! `-- --types q4_0,q8_0,q4_k_m` chooses the types of weights, `--threads N` the threads, `--llama FOLDER`
//! adds llama.cpp, whose programs are there, `--quick` goes round once. In place of the tables, `--sizes
//! PICTURE` draws single tokens against context and model size, `--agree` compares what a trained model
//! says with llama.cpp, `--schema` what holding an answer to a JSON Schema costs, and `--look-up REPOSITORY`
//! says the last 100 edits of a Git history again, with drafts that are looked up and without. Each engine has a process of its own, so that its memory can be
//! told. Figures are medians.
#![expect(clippy::print_stdout, reason = "a bench reports on stdout")]

mod agree;
mod engine;
#[expect(dead_code, reason = "`next_edit` asks Git for more")]
#[path = "../next_edit/git.rs"]
mod git;
mod guided;
mod machine;
mod model_file;
mod peer;
mod replay;
mod server;
mod sizes;
mod widened;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use self::machine::Machine;
use self::model_file::{SIZES, Sizes};

/// What one engine did with one file, by the figure's name: each round's.
type Samples = BTreeMap<String, Vec<f64>>;

/// What of the machine a figure is a share of.
enum Limit {
    /// The reading of memory, by tokens with so many before them.
    Reading(usize),
    /// The products of bytes.
    Products,
    None,
}

/// The table's rows: a figure's name, its unit, how many digits behind the point are meant, its limit.
const FIGURES: [(&str, &str, usize, Limit); 14] = [
    ("prefill 64", "tok/s", 0, Limit::Products),
    ("prefill 512", "tok/s", 0, Limit::Products),
    ("prefill 1000", "tok/s", 0, Limit::Products),
    ("prefill 4000", "tok/s", 0, Limit::Products),
    ("decode at 128", "tok/s", 1, Limit::Reading(128)),
    ("decode at 512", "tok/s", 1, Limit::Reading(512)),
    ("decode at 2000", "tok/s", 1, Limit::Reading(2000)),
    (
        "first token, 1,000 warm, last 8 changed",
        "ms",
        0,
        Limit::None,
    ),
    ("batch of 4 over batch of 1", "times", 2, Limit::None),
    ("load", "s", 2, Limit::None),
    ("into large pages, once idle", "s", 2, Limit::None),
    ("resident at peak", "MB", 0, Limit::None),
    ("resident beside the file's pages", "MB", 0, Limit::None),
    ("file", "MB", 0, Limit::None),
];

struct Arguments {
    types: Vec<String>,
    threads: usize,
    /// The folder of llama.cpp's programs.
    llama: Option<PathBuf>,
    quick: bool,
    /// Where the picture of contexts and sizes goes.
    sizes: Option<PathBuf>,
    agree: bool,
    /// The repository whose edits are said again, and how many.
    look_up: Option<PathBuf>,
    edits: usize,
    /// Whether it is measured what a schema costs.
    schema: bool,
    child: Child,
}

/// For the process of one engine.
#[derive(Default)]
struct Child {
    /// The engine's name and the file.
    engine: Option<(String, PathBuf)>,
    long: bool,
    contexts: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::read()?;
    // SAFETY: no other thread has been started yet.
    unsafe { tandem::backend::local::threads::limit(Some(arguments.threads)) };
    let rounds = if arguments.quick { 2 } else { 3 };
    let Child {
        engine,
        long,
        contexts,
    } = &arguments.child;
    if let Some((engine, file)) = engine {
        let samples = if *contexts {
            engine::decode_at(file, &sizes::CONTEXTS, rounds)?
        } else {
            engine::measure(engine, file, rounds, *long)?
        };
        println!("{}", serde_json::to_string(&samples)?);
        return Ok(());
    }
    if arguments.agree {
        let folder = arguments.llama.as_ref();
        return agree::measure(folder.context("--agree needs --llama FOLDER")?);
    }
    let mut machine = Machine::measure(arguments.threads);
    println!("{machine}\n");
    if let Some(picture) = &arguments.sizes {
        return sizes::measure(&mut machine, picture, &arguments);
    }
    let sizes = SIZES[0];
    for kind in &arguments.types {
        let file = sizes.file(kind)?;
        if arguments.schema {
            println!("| {kind} | tok/s | held to a schema | times as long | a grammar, ms |");
            println!("|---|---|---|---|---|");
            println!("| {}\n", guided::measure(&file, arguments.quick)?);
            continue;
        }
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
        let columns = side_by_side(&file, &arguments, &mut machine)?;
        println!("{machine}\n");
        print(&machine, sizes, kind, &columns);
    }
    Ok(())
}

/// All engines on a file: ours and llama.cpp in turns, so that whatever else the machine does hits both, and
/// between them the machine itself.
fn side_by_side(
    file: &Path,
    arguments: &Arguments,
    machine: &mut Machine,
) -> anyhow::Result<Vec<(&'static str, Samples)>> {
    let turns = if arguments.quick { 1 } else { 2 };
    let (mut ours, mut llama) = (Samples::new(), Samples::new());
    for turn in 0..turns {
        let long = turn == 0;
        let words: &[&str] = if long { &["--long"] } else { &[] };
        add(&mut ours, in_process("tandem", file, words, arguments)?);
        machine.measure_again();
        if let Some(folder) = &arguments.llama {
            let bench = peer::Bench {
                folder,
                file,
                threads: arguments.threads,
            };
            add(&mut llama, bench.measure(long)?);
            machine.measure_again();
        }
    }
    let candle = in_process("candle", file, &[], arguments)?;
    let mut columns = vec![("tandem", ours), ("candle", candle)];
    if arguments.llama.is_some() {
        columns.push(("llama.cpp", llama));
    }
    Ok(columns)
}

fn add(all: &mut Samples, more: Samples) {
    for (figure, values) in more {
        all.entry(figure).or_default().extend(values);
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

impl Arguments {
    fn read() -> anyhow::Result<Self> {
        let mut arguments = Self {
            types: ["q4_0", "q8_0", "q4_k_m"].map(str::to_owned).to_vec(),
            threads: tandem::backend::local::threads::count(),
            llama: None,
            quick: false,
            sizes: None,
            agree: false,
            look_up: None,
            edits: 100,
            schema: false,
            child: Child::default(),
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
                "--llama" => arguments.llama = Some(value()?.into()),
                "--sizes" => arguments.sizes = Some(value()?.into()),
                "--agree" => arguments.agree = true,
                "--look-up" => arguments.look_up = Some(value()?.into()),
                "--edits" => arguments.edits = value()?.parse()?,
                "--schema" => arguments.schema = true,
                "--quick" => arguments.quick = true,
                "--engine" => arguments.child.engine = Some((value()?, value()?.into())),
                "--long" => arguments.child.long = true,
                "--contexts" => arguments.child.contexts = true,
                other => bail!("{other} is not known; see benches/README.md"),
            }
        }
        Ok(arguments)
    }
}

fn in_process(
    engine: &str,
    file: &Path,
    words: &[&str],
    arguments: &Arguments,
) -> anyhow::Result<Samples> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--threads").arg(arguments.threads.to_string());
    if arguments.quick {
        command.arg("--quick");
    }
    command.args(words).arg("--engine").arg(engine).arg(file);
    let output = command.output()?;
    if !output.status.success() {
        bail!("{engine}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn print(machine: &Machine, sizes: Sizes, kind: &str, columns: &[(&str, Samples)]) {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    println!("| {kind} | {} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(names.len()));
    for (figure, unit, digits, limit) in FIGURES {
        // What the machine could do, in the unit of the figure.
        let most = match limit {
            Limit::Reading(context) => {
                Some(machine.read() * 1e9 / sizes.bytes_per_token(kind, context))
            }
            Limit::Products => machine
                .products()
                .map(|(rate, _)| rate * 1e9 / sizes.operations_per_token()),
            Limit::None => None,
        };
        let cells: Vec<String> = columns
            .iter()
            .map(|(_, samples)| {
                let Some(value) = samples.get(figure).cloned().and_then(median) else {
                    return "-".to_owned();
                };
                let share = most.map_or_else(String::new, |most| {
                    format!(" ({:.0} %)", value / most * 100.0)
                });
                format!("{value:.digits$}{share}")
            })
            .collect();
        println!("| {figure}, {unit} | {} |", cells.join(" | "));
    }
    println!(
        "\nIn brackets: of the bytes that this machine reads, for single tokens, and of the products that it \
         does, for prompts.\n-: not measured: llama-bench does not say it, candle is not given 4,000 tokens, and nothing is measured \
         that would take longer than {} s once.\n",
        engine::PATIENCE.as_secs()
    );
}
