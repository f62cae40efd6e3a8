//! What a person is told when nobody may or can serve a request: what happened, and the next step.

use super::disclosure::Denial;
use super::policy::{LocalState, ServerState, Situation, TaskKind, Withheld};
use crate::config::Mode;
use crate::inference::{EmptyReason, ErrorKind, GenerateError};

/// Why nobody is asked. A completion ends with the reason, other tasks with the error.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// For completions.
    pub empty: EmptyReason,
    /// For people, and for tasks other than completions.
    pub error: GenerateError,
}

/// The refusal of a request that has nobody to go to. `withheld` says why Claude is out.
pub(super) fn refuse(situation: &Situation, withheld: Option<&Withheld>) -> Refusal {
    let local = local_obstacle(situation);
    let Some(withheld) = withheld else {
        // Claude is always somebody to go to, so this is said only if the table has a hole.
        return Refusal {
            empty: EmptyReason::NoBackend,
            error: GenerateError::new(
                ErrorKind::Unavailable,
                "no backend serves this request",
                "Run `tandem status` to see what is configured.",
            ),
        };
    };
    // Where nothing but this keeps it from the server, it is what can be changed.
    let denied = situation.denied_server().cloned().map(Withheld::Denied);
    let withheld = denied.as_ref().unwrap_or(withheld);
    let server = server_obstacle(situation);
    let (obstacle, next_step) = match situation.denied_server() {
        Some(denial) => (
            format!("it must not leave this machine: {denial}"),
            denial.next_step(),
        ),
        None => claude_obstacle(withheld),
    };
    let waits = situation.local == LocalState::Downloading && situation.mode != Mode::ClaudeOnly;
    let message = match (&situation.local_trouble, local) {
        (_, None) => obstacle,
        // It ends with a next step of its own.
        (Some(trouble), Some(_)) if local_unusable(situation) => {
            let trouble = trouble.trim_end_matches('.');
            format!("{obstacle}, and the local model cannot be used: {trouble}")
        }
        (Some(progress), Some(local)) if waits => format!("{local} ({progress}), and {obstacle}"),
        (_, Some(local)) => format!("{local}, and {obstacle}"),
    };
    let message = match server {
        Some(server) => format!("{server}, {message}"),
        None => message,
    };
    let next_step = match withheld {
        Withheld::Denied(_) => next_step,
        _ if server_failed(situation) => {
            "Run `tandem doctor` to see what is wrong with the inference server.".to_owned()
        }
        Withheld::LocalOnly | Withheld::NoKey if waits => {
            "Wait for the download to end; `tandem status` shows how far it is.".to_owned()
        }
        Withheld::LocalOnly if situation.local_trouble.is_none() || !local_unusable(situation) => {
            local_next_step(situation)
        }
        _ => next_step,
    };
    Refusal {
        empty: match withheld {
            Withheld::Denied(_) => EmptyReason::Denied,
            Withheld::CapReached => EmptyReason::SpendCap,
            Withheld::AutomaticOff if situation.mode == Mode::ClaudeOnly => EmptyReason::Disabled,
            _ if waits => EmptyReason::Loading,
            Withheld::BreakerOpen => EmptyReason::BackendFailed,
            _ if local_failed(situation) || server_failed(situation) => EmptyReason::BackendFailed,
            Withheld::LocalOnly | Withheld::NoKey | Withheld::AutomaticOff => {
                EmptyReason::NoBackend
            }
        },
        error: GenerateError::new(kind(situation, withheld), message, next_step),
    }
}

fn kind(situation: &Situation, withheld: &Withheld) -> ErrorKind {
    match withheld {
        Withheld::Denied(_) => ErrorKind::Denied,
        Withheld::CapReached => ErrorKind::SpendCap,
        Withheld::NoKey if situation.mode == Mode::ClaudeOnly => ErrorKind::Unauthorized,
        Withheld::LocalOnly | Withheld::NoKey | Withheld::AutomaticOff | Withheld::BreakerOpen => {
            let too_long = !situation.fits_local
                && situation.mode != Mode::ClaudeOnly
                && matches!(
                    situation.local,
                    LocalState::Healthy | LocalState::Loading | LocalState::Degraded
                );
            if too_long || (in_auto(situation) && situation.server == ServerState::DoesNotFit) {
                ErrorKind::TooLong
            } else {
                ErrorKind::Unavailable
            }
        }
    }
}

fn in_auto(situation: &Situation) -> bool {
    situation.mode == Mode::Auto
}

fn server_failed(situation: &Situation) -> bool {
    in_auto(situation)
        && matches!(
            situation.server,
            ServerState::Failed | ServerState::BreakerOpen
        )
}

/// Why the inference server is not asked, where there is one and the mode does not rule it out.
fn server_obstacle(situation: &Situation) -> Option<&'static str> {
    if !in_auto(situation) {
        return None;
    }
    match situation.server {
        ServerState::None | ServerState::Ready => None,
        ServerState::DoesNotFit => Some("the request does not fit the inference server's context"),
        ServerState::AutomaticOff => {
            Some("completions that start by themselves do not go to the inference server")
        }
        ServerState::Failed => Some("the inference server cannot be used"),
        ServerState::BreakerOpen => {
            Some("the inference server failed several times in a row and is being left alone")
        }
    }
}

fn local_failed(situation: &Situation) -> bool {
    situation.mode != Mode::ClaudeOnly
        && matches!(
            situation.local,
            LocalState::Failed | LocalState::BreakerOpen
        )
}

/// Whether there is a local model and it does not generate, now or at all.
fn local_unusable(situation: &Situation) -> bool {
    matches!(
        situation.local,
        LocalState::None | LocalState::Failed | LocalState::BreakerOpen
    )
}

/// Why nothing on the device can serve, `None` where the mode rules it out anyway.
fn local_obstacle(situation: &Situation) -> Option<&'static str> {
    if situation.mode == Mode::ClaudeOnly {
        return None;
    }
    Some(match situation.local {
        LocalState::None if situation.task == TaskKind::Complete => "there is no local model",
        LocalState::None => "there is no local model (the embedded one only completes code)",
        LocalState::Downloading => "the local model is still being downloaded",
        LocalState::Loading | LocalState::Healthy | LocalState::Degraded => {
            "the request does not fit the local model's context"
        }
        LocalState::Failed => "the local model failed",
        LocalState::BreakerOpen => {
            "the local model failed several times in a row and is being left alone for a while"
        }
    })
}

/// The next step where nothing may leave the machine.
fn local_next_step(situation: &Situation) -> String {
    match situation.local {
        LocalState::None => {
            "Set `local.model` to a GGUF file or a model folder, or set `mode: auto` to allow Claude."
        }
        LocalState::Downloading => {
            "Wait for the download to end; `tandem status` shows how far it is."
        }
        LocalState::Loading | LocalState::Healthy | LocalState::Degraded => {
            "Ask about less text at once, raise `local.context_tokens`, or set `mode: auto` to allow \
             Claude."
        }
        LocalState::Failed | LocalState::BreakerOpen => {
            "Run `tandem status` to see why it failed, or set `mode: auto` to allow Claude."
        }
    }
    .to_owned()
}

/// Why Claude is out, and what would change that.
fn claude_obstacle(withheld: &Withheld) -> (String, String) {
    match withheld {
        Withheld::LocalOnly => (
            "the mode is `local-only`".to_owned(),
            "Set `mode: auto` to allow Claude.".to_owned(),
        ),
        Withheld::NoKey => (
            "Claude has no key".to_owned(),
            "Set `ANTHROPIC_API_KEY` to use Claude, or `local.model` to a GGUF file or a model \
             folder."
                .to_owned(),
        ),
        Withheld::AutomaticOff => (
            "completions that start by themselves do not go to Claude".to_owned(),
            "Invoke the completion by hand, or set `claude.automatic_completions: true`."
                .to_owned(),
        ),
        Withheld::Denied(denial) => denied(denial),
        Withheld::CapReached => (
            "the day's spend cap for Claude is reached".to_owned(),
            "Raise `claude.daily_spend_cap_usd`, or wait until midnight UTC.".to_owned(),
        ),
        Withheld::BreakerOpen => (
            "Claude failed several times in a row and is being left alone for a while".to_owned(),
            "Try again in a minute; `tandem status` shows when Claude is asked again.".to_owned(),
        ),
    }
}

fn denied(denial: &Denial) -> (String, String) {
    (
        format!("it must not go to Claude: {denial}"),
        denial.next_step(),
    )
}
