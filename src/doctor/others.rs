//! The rows of what is not tried here, each with why not and how to.

use super::{DaemonSeen, Measured, Outcome, Row, ServerSeen, Step};
use crate::prompt::profile::CLAUDE;

/// In so many pieces a server's text must come for its speed to be told.
const LEAST_PIECES: usize = 3;

fn untried(backend: &str, seen: &str, next_step: &str) -> Row {
    let mut row = Row::new(backend, false);
    row.told(Step::Generation, Outcome::Skipped, seen, next_step);
    row
}

pub(super) fn core_ml_unused() -> Row {
    untried(
        "core-ml",
        "no bundle for the Apple Neural Engine is configured",
        "Name one with --model, or `tandem model pull` one and set `local.model`.",
    )
}

pub(super) fn portable_unused() -> Row {
    untried(
        "candle",
        "no GGUF file or folder with safetensors is configured",
        "Name one with --model, or `tandem model pull` one and set `local.model`.",
    )
}

/// Claude is not asked: an answer costs money, and nothing here is worth it unasked.
pub(super) fn claude(key: Option<&str>, allowed: bool) -> Row {
    let mut row = Row::new("claude", key.is_some() && allowed);
    row.prompts = Some(super::local::prompts(&CLAUDE));
    match key {
        None => row.told(
            Step::Configuration,
            Outcome::Skipped,
            "there is no key",
            "Set ANTHROPIC_API_KEY, or `claude.api_key_command` in your own configuration.",
        ),
        Some(_) if !allowed => row.told(
            Step::Configuration,
            Outcome::Skipped,
            "there is a key, and the mode keeps everything on this machine",
            "Set `mode` to auto if heavy and failed requests may go to Claude.",
        ),
        Some(origin) => {
            row.passed(
                Step::Configuration,
                format!("the key comes from {origin}"),
                None,
            );
            row.told(
                Step::Generation,
                Outcome::Skipped,
                "not asked, since an answer costs money",
                "Run `tandem ask --mode claude-only say yes` to see it answer.",
            );
        }
    }
    row
}

/// A session that cannot share a model has one of its own, so this is never a failure.
pub(super) fn daemon(seen: &DaemonSeen) -> Row {
    let mut row = Row::new("daemon", !matches!(seen, DaemonSeen::Off));
    match seen {
        DaemonSeen::Off => row.told(
            Step::Configuration,
            Outcome::Skipped,
            "each session loads its own model, as configured",
            "Leave out `daemon.enabled: false` to share one.",
        ),
        DaemonSeen::Unusable(trouble) => row.told(
            Step::Initialization,
            Outcome::Warned,
            trouble.trim_end_matches('.'),
            "Until then each session loads its own model.",
        ),
        DaemonSeen::NoneRuns => row.passed(
            Step::Configuration,
            "its folder is closed to others; none runs, a session starts one on first need",
            None,
        ),
        DaemonSeen::Runs {
            version,
            process,
            sessions,
        } => row.passed(
            Step::Initialization,
            format!("{version} runs as process {process}, sessions connected: {sessions}"),
            None,
        ),
    }
    row
}

/// An inference server, which costs nothing to ask and was asked.
pub(super) fn server(seen: &ServerSeen) -> Row {
    let tried = match seen {
        ServerSeen::None => {
            return untried(
                "server",
                "no inference server is configured",
                "Set `server.base_url` in your own configuration to have one of yours answer.",
            );
        }
        ServerSeen::NotAllowed => {
            return untried(
                "server",
                "one is configured, and the mode lets nothing go there",
                "Set `mode` to auto if completions may go to it.",
            );
        }
        ServerSeen::Tried(tried) => tried,
    };
    let mut row = Row::new("server", true);
    row.model.clone_from(&tried.model);
    if let Some(found) = &tried.found {
        row.passed(Step::Configuration, found, None);
    }
    let generated = match &tried.outcome {
        Ok(generated) => generated,
        Err(error) => {
            let (message, next) = (error.message.as_str(), error.next_step.as_str());
            row.told(Step::Generation, Outcome::Failed, message, next);
            return row;
        }
    };
    if generated.text.is_empty() {
        row.told(
            Step::Generation,
            Outcome::Warned,
            "it ended its answer at once",
            "Set `server.api` to another of its interfaces, or serve a model for code.",
        );
        return row;
    }
    let seen = format!("{:?}", generated.text);
    row.passed(Step::Generation, seen, None);
    let Some(first) = generated.first_text else {
        return row;
    };
    let after = generated.took.saturating_sub(first).as_secs_f64();
    let others = generated.completion_tokens.saturating_sub(1);
    let first_token_ms = first.as_secs_f64() * 1e3;
    // The first request finds out what the server is, too.
    let mut told = format!("first text after {first_token_ms:.1} ms, connecting included");
    // What a server keeps back comes at once, and says nothing of its speed.
    if generated.pieces >= LEAST_PIECES && others > 0 && after > 0.0 {
        let tokens_per_second = others as f64 / after;
        row.measured = Some(Measured {
            first_token_ms,
            prompt_tokens: generated.prompt_tokens,
            tokens_per_second,
            admitted: None,
        });
        told = format!("{told}, then {tokens_per_second:.1} tokens/s");
    }
    row.passed(Step::Speed, told, None);
    row
}

pub(super) fn adapters() -> Row {
    untried(
        "adapters",
        "adapters (LoRA) are not supported",
        "Merge an adapter into its model and convert that.",
    )
}
