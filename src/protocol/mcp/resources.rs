//! What a client can read: the state of Tandem and its last routes, as JSON.

use rmcp::model::{ErrorData, ReadResourceResult, Resource, ResourceContents};
use serde::Serialize;
use serde_json::json;

use super::types::{BackendState, RoutedRequest, Routes, Status};
use crate::config::Mode;
use crate::inference::{BackendKind, Health};
use crate::router::Router;

const STATUS: &str = "tandem://status";
const DECISIONS: &str = "tandem://decisions";

/// The resources, in the order in which they are listed.
pub(super) fn list() -> Vec<Resource> {
    vec![
        Resource::new(STATUS, "status")
            .with_title("Tandem's status")
            .with_description(
                "Which models can answer now, how healthy and how fast they are, and whether text \
                 may leave this machine.",
            )
            .with_mime_type("application/json"),
        Resource::new(DECISIONS, "decisions")
            .with_title("Tandem's last routes")
            .with_description(
                "Where the last requests went, why, and what became of them. Holds no text.",
            )
            .with_mime_type("application/json"),
    ]
}

/// Reads a resource.
pub(super) fn read(uri: &str, router: &Router) -> Result<ReadResourceResult, ErrorData> {
    let text = match uri {
        STATUS => pretty(&status(router)),
        DECISIONS => pretty(&decisions(router)),
        _ => {
            let message = format!(
                "There is no resource {uri:?}. Read {STATUS} or {DECISIONS}, which \
                 `resources/list` gives."
            );
            return Err(ErrorData::resource_not_found(
                message,
                Some(json!({ "uri": uri })),
            ));
        }
    }?;
    let contents = ResourceContents::text(text, uri).with_mime_type("application/json");
    Ok(ReadResourceResult::new(vec![contents]))
}

/// The state of Tandem. Asks no model.
pub(super) fn status(router: &Router) -> Status {
    Status {
        version: env!("CARGO_PKG_VERSION"),
        mode: router.settings().mode,
        may_leave_machine: may_leave_machine(router),
        backends: router
            .status()
            .into_iter()
            .map(BackendState::from)
            .collect(),
        last_route: router.decisions().pop().map(RoutedRequest::from),
    }
}

/// Whether Claude or an inference server may be called for anything.
pub(super) fn may_leave_machine(router: &Router) -> bool {
    let mode = router.settings().mode;
    router.status().iter().any(|backend| {
        let allowed = match backend.kind {
            BackendKind::Claude => mode != Mode::LocalOnly,
            BackendKind::Server => mode == Mode::Auto,
            BackendKind::CoreMl
            | BackendKind::Candle
            | BackendKind::Embedded
            | BackendKind::Scripted => false,
        };
        allowed && !matches!(backend.health, Health::Absent { .. })
    })
}

/// The status for a model or a person: a line for each backend.
pub(super) fn in_words(status: &Status) -> String {
    let may = if status.may_leave_machine {
        "may"
    } else {
        "cannot"
    };
    let mode = mode_word(status.mode);
    let mut lines = vec![format!(
        "Tandem {} in mode {mode}; text {may} leave this machine.",
        status.version
    )];
    if status.backends.is_empty() {
        lines.push(
            "There is no model. Set `local.model`, or ANTHROPIC_API_KEY for Claude.".to_owned(),
        );
    }
    lines.extend(status.backends.iter().map(|backend| {
        let mut parts = vec![backend.state.to_owned()];
        if backend.breaker != "closed" {
            parts.push(format!("breaker {}", backend.breaker));
        }
        if let Some(rate) = backend.tokens_per_second {
            parts.push(format!("{rate:.0} tokens/s"));
        }
        parts.extend(backend.detail.clone());
        format!(
            "{} ({}): {}",
            backend.backend,
            backend.model,
            parts.join(", ")
        )
    }));
    lines.join("\n")
}

fn decisions(router: &Router) -> Routes {
    let mut decisions = router.decisions();
    decisions.reverse();
    Routes {
        decisions: decisions.into_iter().map(RoutedRequest::from).collect(),
    }
}

fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Auto => "auto",
        Mode::LocalOnly => "local-only",
        Mode::ClaudeOnly => "claude-only",
    }
}

fn pretty(value: &impl Serialize) -> Result<String, ErrorData> {
    serde_json::to_string_pretty(value).map_err(|error| {
        let message = format!(
            "The resource cannot be written as JSON: {error}. This is a defect in Tandem: please \
             report it."
        );
        ErrorData::internal_error(message, None)
    })
}
