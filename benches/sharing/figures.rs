//! The figures: what the way to the daemon costs, what sharing saves, how a rush at the start ends.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::home::{self, Home, Memory, complete};

/// One token: what is compared is the time to the first.
const ONE_TOKEN: [&str; 4] = ["--set", "completion.max_tokens=1", "--log", "error"];

/// Completions before the measured ones.
const WARM_UP: u64 = 50;

/// The time to a first token through the daemon and without one, in turns.
pub fn latency(completions: usize) -> anyhow::Result<()> {
    let home = Home::new()?;
    let mut shared = home.session(&ONE_TOKEN)?;
    let mut alone = home.session(&[&ONE_TOKEN[..], &["--no-daemon"]].concat())?;
    let (mut through, mut without) = (Vec::new(), Vec::new());
    for version in 2..completions as u64 + WARM_UP + 2 {
        let one = complete(&mut shared, version)?.took;
        let other = complete(&mut alone, version)?.took;
        if version > WARM_UP {
            through.push(one);
            without.push(other);
        }
    }
    let status = home.daemon()?.context("no daemon was used")?;
    ensure!(
        status.sessions.len() == 1,
        "a session with --no-daemon used the daemon"
    );
    let (through, without) = (spread(through), spread(without));
    println!("A completion of one token, milliseconds, p50 and p99:");
    println!(
        "  in this process      {:>7.3} {:>7.3}",
        without.0, without.1
    );
    println!(
        "  through the daemon   {:>7.3} {:>7.3}",
        through.0, through.1
    );
    println!(
        "  the way there and back {:>5.3} at p50 (goal: 0.3)\n",
        through.0 - without.0
    );
    shared.shut_down()?;
    alone.shut_down()
}

/// The memory of many sessions with one model, against one session with a model of its own.
fn memory_of(home: &Home, sessions: usize, arguments: &[&str]) -> anyhow::Result<(Memory, u64)> {
    let mut clients = Vec::new();
    for _ in 0..sessions {
        let mut client = home.session(arguments)?;
        for version in 2..5 {
            complete(&mut client, version)?;
        }
        clients.push(client);
    }
    let loads = home.daemon()?.map_or(0, |status| {
        let counted = status.models.iter().filter_map(|model| model.statistics);
        counted.map(|statistics| statistics.loads).sum()
    });
    let memory = home::memory(&home.processes()?)?;
    for client in clients {
        client.shut_down()?;
    }
    Ok((memory, loads))
}

/// Prints what `sessions` sessions occupy together.
pub fn memory(sessions: usize) -> anyhow::Result<()> {
    let alone = memory_of(&Home::new()?, 1, &["--no-daemon"])?.0;
    let (shared, loads) = memory_of(&Home::new()?, sessions, &[])?;
    let each = |shared: u64, alone: u64| (shared as f64 - alone as f64) / sessions as f64 / 1e6;
    println!("Memory, MB resident (shared pages counted once):");
    println!(
        "  one session, its own model     {:>7.1} ({:.1})",
        alone.resident as f64 / 1e6,
        alone.proportional as f64 / 1e6
    );
    println!(
        "  {sessions} sessions and the daemon    {:>7.1} ({:.1}), {loads} load",
        shared.resident as f64 / 1e6,
        shared.proportional as f64 / 1e6
    );
    println!(
        "  for each session more          {:>7.1} ({:.1}) (goal: 12)\n",
        each(shared.resident, alone.resident),
        each(shared.proportional, alone.proportional)
    );
    Ok(())
}

/// Many sessions at once, where no daemon runs yet.
pub fn starts(sessions: usize) -> anyhow::Result<()> {
    let home = Home::new()?;
    let began = Instant::now();
    let served = thread::scope(|scope| -> anyhow::Result<Vec<_>> {
        let started: Vec<_> = (0..sessions)
            .map(|_| {
                scope.spawn(|| -> anyhow::Result<_> {
                    let mut client = home.session(&[])?;
                    let answer = complete(&mut client, 2)?;
                    let items = answer.result["items"].as_array().map_or(0, Vec::len);
                    Ok((client, items, began.elapsed()))
                })
            })
            .collect();
        let ended = started.into_iter().map(|one| match one.join() {
            Ok(outcome) => outcome,
            Err(_) => anyhow::bail!("a session's thread broke"),
        });
        ended.collect()
    })?;
    let last = served
        .iter()
        .map(|(_, _, at)| *at)
        .max()
        .unwrap_or_default();
    let with_text = served.iter().filter(|(_, items, _)| *items > 0).count();
    let status = home.daemon()?.context("no daemon was started")?;
    let processes = home.processes()?.len();
    println!("{sessions} sessions at once, no daemon before:");
    println!(
        "  the last is answered after {:.2} s (goal: 3)",
        last.as_secs_f64()
    );
    println!(
        "  {with_text} with text; {} connected to one daemon; {} processes besides the sessions\n",
        status.sessions.len(),
        processes - sessions
    );
    for (client, ..) in served {
        client.shut_down()?;
    }
    Ok(())
}

/// Median and 99th percentile, in milliseconds.
fn spread(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
    (at(50), at(99))
}
