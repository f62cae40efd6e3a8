//! What a session costs beside the model: `cargo bench --bench session`. See benches/README.md.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

mod client;
mod corpus;
mod figures;
mod mock;
mod peers;
mod scripted;
mod wire;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use serde_json::Value;

use crate::client::Client;
use crate::corpus::{Document, LINES, Workspace};
use crate::figures::{Goal, Row};
use crate::mock::{ANSWER, Mock};
use crate::peers::Server;

/// What one server still does after its answer must not fall into the next one's time.
const SETTLE: Duration = Duration::from_millis(10);

/// Measures a session of Tandem over real pipes.
#[derive(Debug, Parser)]
struct Arguments {
    /// Write the figures here too, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Open documents.
    #[arg(long, default_value_t = 100)]
    documents: usize,
    /// Measured completions with the scripted backend; 0 leaves the measurement out, as below.
    #[arg(long, default_value_t = 2000)]
    completions: usize,
    /// Measured completions of each server side by side.
    #[arg(long, default_value_t = 300)]
    side_by_side: usize,
    /// Who takes part side by side. A server whose program is not known is left out.
    #[arg(long, value_delimiter = ',', default_values = ["tandem", "lsp-ai", "llm-ls"])]
    servers: Vec<Server>,
    /// Measured starts.
    #[arg(long, default_value_t = 50)]
    starts: usize,
    /// Be the server with the scripted backend: how this program starts itself.
    #[arg(long, hide = true)]
    serve_scripted: bool,
    /// What cargo passes to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.serve_scripted {
        return scripted::serve();
    }
    let workspace = Workspace::new(arguments.documents)?;
    let mut rows = Vec::new();
    if arguments.starts > 0 {
        rows.extend(starts(&arguments, &workspace)?);
    }
    if arguments.completions > 0 {
        rows.extend(scripted_round_trips(&arguments, &workspace, Cursor::Stays)?);
        rows.extend(typed_along(&arguments, &workspace)?);
        rows.extend(scripted_round_trips(
            &arguments,
            &workspace,
            Cursor::MovesOn,
        )?);
    }
    if arguments.side_by_side > 0 {
        rows.extend(side_by_side(&arguments, &workspace)?);
    }
    println!("\n{}", figures::table(&rows));
    if let Some(path) = arguments.json {
        let text = serde_json::to_string_pretty(&rows)?;
        std::fs::write(&path, text + "\n").with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// From the start of the process to the answer to `initialize`.
fn starts(arguments: &Arguments, workspace: &Workspace) -> anyhow::Result<Option<Row>> {
    let home = tempfile::tempdir()?;
    let program = Server::Tandem.program().context("no program")?;
    let mut durations = Vec::new();
    for run in 0..=arguments.starts {
        let started = std::time::Instant::now();
        let mut client = Client::start(peers::alone(&program, home.path()).arg("lsp"))?;
        client.initialize(&workspace.root, &Value::Null)?;
        // The first run brings the program's pages into memory.
        if run > 0 {
            durations.push(started.elapsed());
        }
        client.shut_down()?;
    }
    Ok(Row::new(
        "process start to initialize reply",
        durations,
        Some(Goal {
            p50: 20.0,
            p99: 20.0,
        }),
    ))
}

/// Where a person types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cursor {
    /// Where they typed before in that document.
    Stays,
    /// Elsewhere each time, so that what else is like that place is looked for in all documents.
    MovesOn,
}

/// The round trip of a keystroke and its inline completion, where the backend takes no time.
fn scripted_round_trips(
    arguments: &Arguments,
    workspace: &Workspace,
    cursor: Cursor,
) -> anyhow::Result<Option<Row>> {
    let program = std::env::current_exe()?;
    let mut client = Client::start(Command::new(program).arg("--serve-scripted"))?;
    client.initialize(&workspace.root, &Value::Null)?;
    let mut documents = open_documents(&mut client, workspace)?;
    let mut durations = Vec::new();
    let warm_up = documents.len();
    for run in 0..warm_up + arguments.completions {
        let count = documents.len();
        let document = &mut documents[run % count];
        if cursor == Cursor::MovesOn {
            document.move_on(run);
        }
        let keystroke = document.type_one();
        let (method, params) = peers::inline_completion(&document.uri, &keystroke);
        let answer = client.change_and_request(&keystroke.change, method, &params)?;
        Server::Tandem.check(&answer.result)?;
        if run >= warm_up {
            durations.push(answer.took);
        }
    }
    client.shut_down()?;
    let (place, goal) = match cursor {
        Cursor::Stays => ("", Goal { p50: 0.5, p99: 2.0 }),
        Cursor::MovesOn => (" at another place each time", Goal { p50: 5.0, p99: 5.0 }),
    };
    Ok(Row::new(
        format!(
            "keystroke{place} to inline completion, scripted backend, {} documents of {LINES} lines",
            arguments.documents
        ),
        durations,
        Some(goal),
    ))
}

/// The round trip of a keystroke that agrees with what is suggested.
fn typed_along(arguments: &Arguments, workspace: &Workspace) -> anyhow::Result<Option<Row>> {
    let program = std::env::current_exe()?;
    let mut client = Client::start(Command::new(program).arg("--serve-scripted"))?;
    client.initialize(&workspace.root, &Value::Null)?;
    let mut documents = open_documents(&mut client, workspace)?;
    let mut durations = Vec::new();
    let mut suggestions = 0;
    let count = documents.len();
    while durations.len() < arguments.completions {
        let document = &mut documents[suggestions % count];
        let first = document.type_one();
        let (method, params) = peers::inline_completion(&document.uri, &first);
        let answer = client.change_and_request(&first.change, method, &params)?;
        Server::Tandem.check(&answer.result)?;
        suggestions += 1;
        // All but the last, after which nothing is left.
        for key in ANSWER[..ANSWER.len() - 1].chars() {
            let keystroke = document.press(key);
            let (method, params) = peers::inline_completion(&document.uri, &keystroke);
            let answer = client.change_and_request(&keystroke.change, method, &params)?;
            Server::Tandem.check(&answer.result)?;
            durations.push(answer.took);
        }
    }
    let report = client.request("tandem/status", &Value::Null)?.result;
    let counts = &report["completions"];
    anyhow::ensure!(
        counts["fromCache"] == durations.len() && counts["offered"] == suggestions,
        "of {} keys that agree with {suggestions} suggestions some asked the model: {counts}",
        durations.len()
    );
    client.shut_down()?;
    Ok(Row::new(
        format!(
            "keystroke that agrees with the suggestion, no model asked, {} documents of {LINES} lines",
            arguments.documents
        ),
        durations,
        Some(Goal { p50: 1.0, p99: 1.0 }),
    ))
}

/// The same keystrokes for every server, in turn, over the same HTTP model: the round trip less
/// the model's own time.
fn side_by_side(arguments: &Arguments, workspace: &Workspace) -> anyhow::Result<Vec<Row>> {
    let mock = Mock::start()?;
    let home = tempfile::tempdir()?;
    let mut contestants = Vec::new();
    for server in arguments.servers.iter().copied() {
        let Some(program) = server.program() else {
            println!(
                "{} is left out: {} does not say where it is",
                server.name(),
                server.variable()
            );
            continue;
        };
        let home = home.path().join(server.name());
        std::fs::create_dir(&home)?;
        let mut client = Client::start(&mut server.command(&program, &home, &mock))?;
        client.initialize(&workspace.root, &server.options(&mock))?;
        let documents = open_documents(&mut client, workspace)?;
        contestants.push((server, client, documents, Vec::new()));
    }
    let warm_up = arguments.documents;
    for run in 0..warm_up + arguments.side_by_side {
        // Nobody always follows the same neighbour.
        contestants.rotate_left(1);
        for (server, client, documents, durations) in &mut contestants {
            let count = documents.len();
            let document = &mut documents[run % count];
            let keystroke = document.type_one();
            let (method, params) = server.completion(&document.uri, &keystroke, &mock);
            std::thread::sleep(SETTLE);
            mock.forget();
            let answer = client
                .change_and_request(&keystroke.change, method, &params)
                .with_context(|| server.name())?;
            server.check(&answer.result)?;
            let model = mock.took().with_context(|| server.name())?;
            if run >= warm_up {
                durations.push(answer.took.saturating_sub(model));
            }
        }
    }
    let mut rows = Vec::new();
    for (server, client, _, durations) in contestants {
        client.shut_down().with_context(|| server.name())?;
        rows.extend(Row::new(
            format!(
                "side by side over HTTP, less the model's time: {}",
                server.name()
            ),
            durations,
            None,
        ));
    }
    Ok(rows)
}

fn open_documents(client: &mut Client, workspace: &Workspace) -> anyhow::Result<Vec<Document>> {
    let documents = workspace.documents();
    for document in &documents {
        client.notify("textDocument/didOpen", &document.open())?;
    }
    Ok(documents)
}
