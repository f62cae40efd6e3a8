//! Stands in for the Hugging Face hub as a program: `cargo run --example hub-stand-in -- --help`.

mod hub_api;

use std::io::Write as _;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use tokio::sync::Semaphore;

use self::hub_api::{Asked, Fault, HubStandIn, Repository, StoredFile, What};

/// A local server that stands in for the Hugging Face hub, with one repository, `stand-in/tiny`.
#[derive(Parser)]
#[command(name = "hub-stand-in")]
struct Options {
    /// The port on 127.0.0.1; 0 takes a free one. The address is printed as the first line.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The token that clients must send.
    #[arg(long)]
    token: Option<String>,
    /// What goes wrong the first time that a file's content is asked for.
    #[arg(long)]
    fault: Option<Named>,
    /// Print the requests that came when it is stopped.
    #[arg(long)]
    log: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Named {
    Failing,
    TooMany,
    Cut,
    Silent,
    WrongContent,
    RangeIgnored,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let fault = options.fault.map(|named| match named {
        Named::Failing => Fault::Status(503, ""),
        Named::TooMany => Fault::TooMany(1),
        Named::Cut => Fault::Cut,
        Named::Silent => Fault::Gate(Arc::new(Semaphore::new(0))),
        Named::WrongContent => Fault::WrongContent,
        Named::RangeIgnored => Fault::RangeIgnored,
    });
    let always = matches!(options.fault, Some(Named::RangeIgnored));
    let decide = move |asked: &Asked| {
        let spoilt = asked.what == What::Content && (asked.before == 0 || always);
        fault.clone().filter(|_| spoilt)
    };
    let token = options.token.as_deref();
    let server = HubStandIn::serve(options.port, vec![tiny()], token, decide)
        .await
        .context("the port cannot be served")?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", server.endpoint())?;
    stdout.flush()?;
    tokio::signal::ctrl_c().await?;
    if options.log {
        for seen in server.seen() {
            let request = &seen.request;
            let mut stderr = std::io::stderr();
            writeln!(
                stderr,
                "{:?} {} {}",
                seen.what, request.method, request.target
            )?;
        }
    }
    Ok(())
}

/// Files of every kind that a model has: small and large, in folders, with names that need escapes.
fn tiny() -> Repository {
    let weights: Vec<u8> = (0..300_000_u32)
        .map(|at| (at.wrapping_mul(at) >> 7) as u8)
        .collect();
    Repository::new(
        "stand-in/tiny",
        vec![
            StoredFile::small("config.json", "{\"model_type\": \"none\"}\n"),
            StoredFile::small("empty.txt", ""),
            StoredFile::small("notes 100% #1.txt", "a name with white space and signs\n"),
            StoredFile::large("model.gguf", weights.clone()),
            StoredFile::large("part.mlmodelc/weights/weight.bin", &weights[..70_000]),
        ],
    )
}
