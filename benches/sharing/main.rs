//! What it costs and brings to share one model: `cargo bench --bench sharing`. See benches/README.md.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]
#![cfg_attr(
    not(unix),
    expect(dead_code, unused_imports, reason = "there is a daemon on Unix alone")
)]

#[path = "../session/client.rs"]
mod client;
mod figures;
mod home;
mod soak;
#[path = "../session/wire.rs"]
mod wire;

use std::time::Duration;

use clap::Parser;

/// Measures sessions of Tandem that share a model.
#[derive(Debug, Parser)]
struct Arguments {
    /// Sessions whose memory is counted.
    #[arg(long, default_value_t = 20)]
    sessions: usize,
    /// Sessions that start at once, cold.
    #[arg(long, default_value_t = 50)]
    starts: usize,
    /// Completions of each kind whose time is compared.
    #[arg(long, default_value_t = 1000)]
    completions: usize,
    /// Instead of all that: so many minutes of requests, cancels, kills and slow readers.
    #[arg(long)]
    soak_minutes: Option<u64>,
    /// Requests a second of the soak.
    #[arg(long, default_value_t = 30)]
    rate: u32,
    /// What cargo passes to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[cfg(not(unix))]
fn main() {
    println!("On this system each session loads its own model: there is nothing to measure.");
}

#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(minutes) = arguments.soak_minutes {
        return soak::run(Duration::from_secs(minutes * 60), arguments.rate);
    }
    figures::latency(arguments.completions)?;
    figures::memory(arguments.sessions)?;
    figures::starts(arguments.starts)
}
