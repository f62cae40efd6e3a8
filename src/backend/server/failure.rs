//! What went wrong with an inference server, in words for people. Pure.
//!
//! No text of the server's gets into an error, not even in part: it may repeat what it was sent, and
//! whose server it is, nobody knows.

use reqwest::StatusCode;

use crate::backend::http::failure::{Failure, cut_off, not_the_api};
use crate::inference::{ErrorKind, GenerateError};

use super::PEER;
use super::answer::{AnswerFault, ApiError, is_model_name};
use super::discovery::NoModel;

const CHECK_KEY: &str = "Set TANDEM_SERVER_API_KEY, or `server.api_key_command` in your configuration, \
     to the key that the server was started with.";
const CHECK_WAY: &str = "Check `server.base_url`, `server.model` and `server.api`; `tandem doctor` tries \
     them.";
const LESS_TEXT: &str = "Send less text, or serve the model with a longer context.";

/// The key cannot be one.
pub fn malformed_key() -> GenerateError {
    GenerateError::new(
        ErrorKind::Unauthorized,
        "the key for the inference server holds characters that no key has",
        CHECK_KEY,
    )
}

/// No model to ask for.
pub fn no_model(why: NoModel) -> GenerateError {
    let (message, next_step) = match why {
        NoModel::Listed => (
            "the inference server has no model",
            "Give it one (Ollama: `ollama pull`), then try again.",
        ),
        NoModel::Named => (
            "the inference server does not say which models it has",
            "Set `server.model` to the model's name there.",
        ),
    };
    GenerateError::new(ErrorKind::Unavailable, message, next_step)
}

/// The model is not there yet.
pub fn loading() -> GenerateError {
    GenerateError::new(
        ErrorKind::Backend,
        "the inference server is still loading its model",
        "Wait until it has, then try again.",
    )
}

/// The server turned a request away, and lists `others`, and not `model`.
pub fn not_listed(model: &str, others: &[String]) -> GenerateError {
    let others: Vec<_> = others.iter().map(|name| format!("`{name}`")).collect();
    GenerateError::new(
        ErrorKind::Unavailable,
        if is_model_name(model) {
            format!("the inference server does not have the model `{model}`")
        } else {
            "the inference server does not have the configured model".to_owned()
        },
        format!(
            "Set `server.model` to one that it lists: {}.",
            others.join(", ")
        ),
    )
}

/// The request is larger than the model's context.
pub fn too_long(tokens: usize, most: usize) -> GenerateError {
    GenerateError::new(
        ErrorKind::TooLong,
        format!(
            "the request comes to about {tokens} tokens, and the inference server's model takes {most}"
        ),
        "Send less text, or raise `server.context_tokens` if the server allows it.",
    )
}

/// A filter of the server's took the answer away.
pub fn refused() -> GenerateError {
    GenerateError::new(
        ErrorKind::Refused,
        "a filter of the inference server's declined to answer",
        "Ask in other words, or leave out what may have been misunderstood.",
    )
}

/// The server gave the answer up, since another request came. Asking again at once would do the same to
/// that one.
pub fn interrupted() -> GenerateError {
    GenerateError::new(
        ErrorKind::RateLimited,
        "the inference server gave this answer up for a newer request",
        "Start it with `--interrupt_requests false`, so that requests wait for each other.",
    )
}

/// A status that is not success, with the error in its body where it has one. `path` is what was
/// asked, `has_key` whether a key was sent.
pub fn status(
    status: StatusCode,
    body: Option<&ApiError>,
    path: &str,
    has_key: bool,
) -> GenerateError {
    if status.is_redirection() {
        return not_the_api(&PEER, "a redirect, which is not followed");
    }
    let code = match status.as_u16() {
        // LiteLLM without a database, for any key but its own.
        400 if body.is_some_and(|error| error.kind == "no_db_connection") => 401,
        code => code,
    };
    match code {
        401 | 403 => GenerateError::new(
            ErrorKind::Unauthorized,
            if has_key {
                "the inference server does not accept the key"
            } else {
                "the inference server wants a key"
            },
            CHECK_KEY,
        ),
        404 | 405 | 501 => GenerateError::new(
            ErrorKind::Unavailable,
            format!(
                "the inference server does not know {path}, or not for this model (status {code})"
            ),
            CHECK_WAY,
        ),
        408 | 504 => GenerateError::new(
            ErrorKind::Timeout,
            "the inference server took too long by its own limits",
            "Try again, or ask for less at once.",
        ),
        413 => GenerateError::new(
            ErrorKind::TooLong,
            "the request is larger than the inference server takes",
            LESS_TEXT,
        ),
        429 => GenerateError::new(
            ErrorKind::RateLimited,
            "the inference server has more requests than it takes",
            "Wait a moment, or give it more room (vLLM's `--max-num-seqs`, llama-server's `-np`).",
        ),
        400..=499 if body.is_some_and(is_too_long) => GenerateError::new(
            ErrorKind::TooLong,
            "the request is longer than the context of the inference server's model",
            LESS_TEXT,
        ),
        // The one wording besides that is looked at: of vLLM, for base models.
        400..=499 if body.is_some_and(|error| error.message.contains("chat template")) => {
            GenerateError::new(
                ErrorKind::Unavailable,
                "the inference server's model holds no conversations",
                "Serve an instruct model, or one with a chat template.",
            )
        }
        // What is sent has the documented form; a server that does not take it is another than was
        // thought, so somebody else may be asked.
        400..=499 => GenerateError::new(
            ErrorKind::Unavailable,
            format!("the inference server does not take this request (status {code})"),
            "Check `server.api`; the server's own log says what it refused.",
        ),
        503 => GenerateError::new(
            ErrorKind::Backend,
            "the inference server is not ready (status 503)",
            "Wait until it has loaded its model, then try again.",
        ),
        _ => GenerateError::new(
            ErrorKind::Backend,
            format!("the inference server failed with status {code}"),
            PEER.try_again,
        ),
    }
}

fn is_too_long(error: &ApiError) -> bool {
    // llama.cpp has a type for it; the others have words: vLLM and SGLang, then TGI.
    error.kind == "exceed_context_size_error"
        || [
            "maximum context length",
            "model's context length",
            "max_new_tokens",
        ]
        .iter()
        .any(|words| error.message.contains(words))
}

/// An event of the stream that cannot be taken.
pub fn event(fault: AnswerFault, path: &str, has_key: bool) -> Failure {
    let AnswerFault::Reported(error) = fault else {
        return Failure::lasting(not_the_api(&PEER, fault));
    };
    let code = error
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .filter(|code| code.is_client_error() || code.is_server_error())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Failure {
        error: status(code, Some(&error), path, has_key),
        may_pass: code.is_server_error() || code == StatusCode::TOO_MANY_REQUESTS,
    }
}

/// The server gave the answer up.
pub fn given_up() -> Failure {
    Failure::passing(cut_off(&PEER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: u16, message: &str, kind: ErrorKind, text: &str) {
        let body = ApiError {
            kind: "some_error".into(),
            message: format!("{message} and what the user wrote"),
            code: None,
        };
        let code = StatusCode::from_u16(code).unwrap();
        let error = status(code, Some(&body), "/v1/completions", true);
        assert_eq!(error.kind, kind, "{code}");
        assert!(error.message.contains(text), "{error}");
        assert!(error.to_string().ends_with('.'), "{error}");
        assert!(!error.to_string().contains("the user wrote"), "{error}");
    }

    #[test]
    fn every_status_has_its_kind() {
        check(301, "", ErrorKind::Backend, "redirect");
        check(400, "bad", ErrorKind::Unavailable, "(status 400)");
        check(
            400,
            "This model's maximum context length is 4096 tokens",
            ErrorKind::TooLong,
            "context",
        );
        check(
            400,
            "you must provide a chat template",
            ErrorKind::Unavailable,
            "no conversations",
        );
        check(401, "", ErrorKind::Unauthorized, "does not accept the key");
        check(404, "", ErrorKind::Unavailable, "/v1/completions");
        check(413, "", ErrorKind::TooLong, "larger");
        check(
            422,
            "`inputs` tokens + `max_new_tokens` must be",
            ErrorKind::TooLong,
            "longer",
        );
        check(429, "", ErrorKind::RateLimited, "more requests");
        check(500, "", ErrorKind::Backend, "500");
        check(501, "", ErrorKind::Unavailable, "501");
        check(503, "", ErrorKind::Backend, "not ready");
        check(504, "", ErrorKind::Timeout, "too long");
        let error = status(StatusCode::UNAUTHORIZED, None, "/infill", false);
        assert_eq!(error.message, "the inference server wants a key");
        let llama = ApiError {
            kind: "exceed_context_size_error".into(),
            ..ApiError::default()
        };
        let error = status(StatusCode::BAD_REQUEST, Some(&llama), "/infill", false);
        assert_eq!(error.kind, ErrorKind::TooLong);
        let lite = ApiError {
            kind: "no_db_connection".into(),
            message: "No connected db.".into(),
            code: Some(400),
        };
        let error = status(StatusCode::BAD_REQUEST, Some(&lite), "/v1/models", true);
        assert_eq!(error.kind, ErrorKind::Unauthorized);
    }

    #[test]
    fn an_error_within_a_stream_counts_by_its_code() {
        for (code, kind, may_pass) in [
            (Some(400), ErrorKind::Unavailable, false),
            (Some(429), ErrorKind::RateLimited, true),
            (Some(503), ErrorKind::Backend, true),
            (Some(200), ErrorKind::Backend, true),
            (None, ErrorKind::Backend, true),
        ] {
            let fault = AnswerFault::Reported(ApiError {
                code,
                ..ApiError::default()
            });
            let failure = event(fault, "/infill", false);
            assert_eq!(
                (failure.error.kind, failure.may_pass),
                (kind, may_pass),
                "{code:?}"
            );
        }
    }
}
