//! The daemon's part of `tandem status`: what it holds, for whom, and how that goes.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use super::described;
use crate::cli::output::{harmless, styled};
use crate::daemon::wire::{DaemonStatus, ModelStatus, SessionStatus};
use crate::inference::{Health, Statistics};

/// Several lines, with styles.
pub fn text(status: &DaemonStatus) -> String {
    let dim = Style::new().dimmed();
    let mut text = String::new();
    let memory = status
        .resident_bytes
        .map_or_else(String::new, |bytes| format!(", {}", megabytes(bytes)));
    let _ = write!(
        text,
        "{} for {}{memory} {}",
        styled(Style::new().bold(), "serving"),
        lasting(status.uptime_ms),
        styled(
            dim,
            &format!(
                "(process {}, {})",
                status.pid,
                harmless(&status.build.version)
            )
        ),
    );
    if status.draining {
        let yellow = AnsiColor::Yellow.on_default();
        let _ = write!(
            text,
            ", {}",
            styled(yellow, "leaving: answers what it has begun")
        );
    }
    text.push('\n');
    for model in &status.models {
        model_lines(&mut text, model);
    }
    for session in &status.sessions {
        session_line(&mut text, session);
    }
    text
}

fn model_lines(text: &mut String, model: &ModelStatus) {
    let dim = Style::new().dimmed();
    let (colour, state) = described(&Health::from(model.health.clone()));
    let name = format!("{} · {}", model.kind, harmless(&model.name));
    let _ = writeln!(text, "  {name:<36} {}", styled(colour, &harmless(&state)));
    let sessions = counted(model.sessions as u64, "session");
    let Some(statistics) = &model.statistics else {
        let _ = writeln!(text, "    {}", styled(dim, &sessions));
        return;
    };
    let Statistics {
        loads,
        waiting,
        active,
        answered,
        failed,
        cancelled,
        ..
    } = statistics;
    let queue = format!(
        "{sessions} · {} · {active} in the making, {waiting} waiting · {answered} answered, {failed} \
         failed, {cancelled} cancelled",
        counted(*loads, "load")
    );
    let _ = writeln!(text, "    {}", styled(dim, &queue));
    let _ = writeln!(text, "    {}", styled(dim, &cache(statistics)));
}

fn cache(statistics: &Statistics) -> String {
    let hits = match statistics.prompt_tokens {
        0 => "nothing asked yet".to_owned(),
        all => format!(
            "{:.0} % of {all} prompt tokens",
            100.0 * statistics.cached_tokens as f64 / all as f64
        ),
    };
    let mut line = format!(
        "cache: {hits} · {}, {}",
        counted(statistics.kv_sequences as u64, "sequence"),
        megabytes(statistics.kv_bytes as u64)
    );
    if statistics.tokens_per_second > 0.0 {
        let _ = write!(line, " · {:.0} tokens/s last", statistics.tokens_per_second);
    }
    if statistics.drafted_tokens > 0 {
        let (accepted, drafted) = (statistics.accepted_tokens, statistics.drafted_tokens);
        let _ = write!(line, " · {accepted} of {drafted} drafted tokens right");
    }
    line
}

fn session_line(text: &mut String, session: &SessionStatus) {
    let _ = write!(
        text,
        "  session {} {}: {} in flight of {}, for {}",
        harmless(&session.name),
        styled(Style::new().dimmed(), &format!("(process {})", session.pid)),
        session.in_flight,
        session.requests,
        lasting(session.connected_ms)
    );
    for backend in &session.backends {
        if backend.breaker != "closed" {
            let told = format!("{} breaker {}", backend.kind, harmless(&backend.breaker));
            let _ = write!(text, ", {}", styled(AnsiColor::Yellow.on_default(), &told));
        }
    }
    text.push('\n');
}

fn counted(count: u64, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// A span in its largest whole unit: what is shown is how old a thing is, not a measurement.
fn lasting(ms: u64) -> String {
    let seconds = Duration::from_millis(ms).as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::config::LocalSettings;
    use crate::daemon::wire::{ReportedBackend, WireHealth};
    use crate::daemon::{Build, ModelSpec};
    use crate::inference::BackendKind;

    fn status() -> DaemonStatus {
        let build = Build {
            version: "0.1.0".to_owned(),
            built_unix_ms: 1,
        };
        let statistics = Statistics {
            loads: 1,
            waiting: 2,
            active: 1,
            answered: 812,
            failed: 1,
            cancelled: 40,
            prompt_tokens: 1000,
            cached_tokens: 934,
            completion_tokens: 55,
            drafted_tokens: 20,
            accepted_tokens: 17,
            tokens_per_second: 812.4,
            kv_sequences: 4,
            kv_bytes: 12_000_000,
        };
        DaemonStatus {
            build: build.clone(),
            pid: 41,
            uptime_ms: 180_000,
            resident_bytes: Some(41_000_000),
            draining: false,
            models: vec![ModelStatus {
                spec: ModelSpec::new(None, &LocalSettings::default()).unwrap(),
                kind: BackendKind::Embedded,
                name: "tandem-mini".to_owned(),
                health: WireHealth::Unloaded,
                placement: None,
                statistics: Some(statistics),
                sessions: 2,
            }],
            sessions: vec![SessionStatus {
                name: "lsp\u{1b}[2J".to_owned(),
                pid: 42,
                build,
                connected_ms: 9_000_000,
                in_flight: 1,
                requests: 853,
                backends: vec![ReportedBackend {
                    kind: BackendKind::Claude,
                    model: "m".to_owned(),
                    health: "healthy".to_owned(),
                    breaker: "open".to_owned(),
                }],
            }],
        }
    }

    #[test]
    fn a_person_sees_what_is_held_for_whom() {
        let plain = anstream::adapter::strip_str(&text(&status())).to_string();
        expect![[r"
            serving for 3 min, 41.0 MB (process 41, 0.1.0)
              embedded · tandem-mini               ready: loads on first need
                2 sessions · 1 load · 1 in the making, 2 waiting · 812 answered, 1 failed, 40 cancelled
                cache: 93 % of 1000 prompt tokens · 4 sequences, 12.0 MB · 812 tokens/s last · 17 of 20 drafted tokens right
              session lsp[2J (process 42): 1 in flight of 853, for 2 h, claude breaker open
        "]].assert_eq(&plain);
    }
}
