//! What went wrong with Claude, in words for people. Pure.
//!
//! No text of a server's gets into an error as it is: a server may repeat what it was sent.

use reqwest::StatusCode;

use crate::backend::http::failure::{Failure, not_the_api};
use crate::inference::{ErrorKind, GenerateError};
use crate::prompt::chat::ChatPrompt;

use super::PEER;
use super::answer::{AnswerFault, ApiError};
use super::models::NanoDollars;
use super::spend::SpendFault;

const CHECK_KEY: &str = "Set ANTHROPIC_API_KEY, or `claude.api_key_command` in your configuration, \
     to a key from https://platform.claude.com/settings/keys.";

/// There is no key.
pub fn no_key() -> GenerateError {
    GenerateError::new(
        ErrorKind::Unauthorized,
        "there is no key for Claude",
        CHECK_KEY,
    )
}

/// The key cannot be one.
pub fn malformed_key() -> GenerateError {
    GenerateError::new(
        ErrorKind::Unauthorized,
        "the key for Claude holds characters that no key has",
        CHECK_KEY,
    )
}

/// The request is larger than the models' context.
pub fn too_long(tokens: usize, most: usize) -> GenerateError {
    GenerateError::new(
        ErrorKind::TooLong,
        format!("the request comes to about {tokens} tokens, and Claude takes {most}"),
        "Select less text and ask again.",
    )
}

/// The model declined.
pub fn refused(category: Option<&str>) -> GenerateError {
    let about = category.map_or_else(String::new, |category| format!(" (policy: {category})"));
    GenerateError::new(
        ErrorKind::Refused,
        format!("Claude declined to answer{about}"),
        "Ask in other words, or leave out what may have been misunderstood.",
    )
}

/// Claude does not take the schema that the answer has to be valid by.
pub fn schema(why: &str) -> GenerateError {
    GenerateError::new(
        ErrorKind::Unavailable,
        format!("Claude {why}"),
        "Name all properties, leave recursion out, and see \
         https://platform.claude.com/docs/en/build-with-claude/structured-outputs.",
    )
}

/// The request may not be paid for.
pub fn spend(fault: &SpendFault, cap_usd: f64) -> GenerateError {
    match fault {
        SpendFault::Cap { spent, request } => GenerateError::new(
            ErrorKind::SpendCap,
            format!(
                "${:.2} of today's ${cap_usd:.2} for Claude are spent or set aside, and this \
                 request may cost up to ${:.4}",
                dollars(*spent),
                dollars(*request)
            ),
            "Raise `claude.daily_spend_cap_usd`, or wait until the day ends at 00:00 UTC.",
        ),
        SpendFault::File(path, what) => GenerateError::new(
            ErrorKind::Unavailable,
            format!(
                "what was spent on Claude today cannot be kept in {} ({what})",
                path.display()
            ),
            "Make that file readable and writable, or delete it to count from nothing.",
        ),
    }
}

fn dollars(amount: NanoDollars) -> f64 {
    amount as f64 / 1e9
}

/// A status that is not success, with the error in its body where it has one.
pub fn status(
    status: StatusCode,
    body: Option<&ApiError>,
    prompt: &ChatPrompt,
    key: &str,
) -> GenerateError {
    let kind = body.map_or("", |error| error.kind.as_str());
    let said = body.map_or_else(String::new, |error| quote(&error.message, prompt, key));
    if status.is_redirection() {
        return not_the_api(&PEER, "a redirect");
    }
    match status.as_u16() {
        401 => GenerateError::new(
            ErrorKind::Unauthorized,
            format!("Claude does not accept the key{said}"),
            CHECK_KEY,
        ),
        402 => GenerateError::new(
            ErrorKind::Unauthorized,
            format!("Claude refuses the request for want of payment{said}"),
            "Check the billing page of https://platform.claude.com.",
        ),
        403 => GenerateError::new(
            ErrorKind::Unauthorized,
            format!("the key may not do this{said}"),
            "Check what the key and its workspace allow at https://platform.claude.com.",
        ),
        404 => GenerateError::new(
            ErrorKind::Unavailable,
            format!("Claude does not know the model or the address{said}"),
            "Check `claude.fast_model`, `claude.strong_model` and `claude.base_url`.",
        ),
        413 => GenerateError::new(
            ErrorKind::TooLong,
            "the request is larger than Claude takes",
            "Select less text and ask again.",
        ),
        // The one wording that is looked at; should it change, the kind becomes less exact.
        400 if body.is_some_and(|error| error.message.contains("prompt is too long")) => {
            GenerateError::new(
                ErrorKind::TooLong,
                "the request is longer than the model's context",
                "Select less text and ask again.",
            )
        }
        // An error that is not in the API's form comes from another server on the way.
        400..=499 if kind.is_empty() && !matches!(status.as_u16(), 408 | 409 | 429) => {
            not_the_api(&PEER, format_args!("status {}", status.as_u16()))
        }
        400..=499 if !matches!(status.as_u16(), 408 | 409 | 429) => GenerateError::new(
            ErrorKind::InvalidRequest,
            format!(
                "Claude finds the request invalid (status {}){said}",
                status.as_u16()
            ),
            "Check `claude.fast_model` and `claude.strong_model`; if they are right, please report \
             this with the log.",
        ),
        408 | 504 => by_type("timeout_error"),
        429 => by_type("rate_limit_error"),
        529 => by_type("overloaded_error"),
        code => {
            let kind = if kind.is_empty() { "no reason" } else { kind };
            let kind = plain(kind);
            GenerateError::new(
                ErrorKind::Backend,
                format!("Claude failed with status {code} ({kind})"),
                PEER.try_again,
            )
        }
    }
}

/// An event of the stream that cannot be taken.
pub fn event(fault: AnswerFault, prompt: &ChatPrompt, key: &str) -> Failure {
    let AnswerFault::Reported(error) = fault else {
        return Failure::lasting(not_the_api(&PEER, fault));
    };
    let code = match error.kind.as_str() {
        "overloaded_error" | "api_error" | "rate_limit_error" | "timeout_error" => {
            return Failure::passing(by_type(&error.kind));
        }
        "invalid_request_error" => StatusCode::BAD_REQUEST,
        "authentication_error" => StatusCode::UNAUTHORIZED,
        "billing_error" => StatusCode::PAYMENT_REQUIRED,
        "permission_error" => StatusCode::FORBIDDEN,
        "not_found_error" => StatusCode::NOT_FOUND,
        "request_too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Failure::lasting(status(code, Some(&error), prompt, key))
}

fn by_type(kind: &str) -> GenerateError {
    match kind {
        "rate_limit_error" => GenerateError::new(
            ErrorKind::RateLimited,
            "Claude gets more requests than your account allows",
            "Wait a moment; https://platform.claude.com/settings/limits shows your limits.",
        ),
        "overloaded_error" => {
            GenerateError::new(ErrorKind::Backend, "Claude is overloaded", PEER.try_again)
        }
        "timeout_error" => GenerateError::new(
            ErrorKind::Timeout,
            "Claude took too long by its own limits",
            "Try again, or ask for less at once.",
        ),
        _ => GenerateError::new(ErrorKind::Backend, "Claude failed", PEER.try_again),
    }
}

/// A server's words, if they can be shown: short, printable, and with nothing of the key or of what
/// was sent.
fn quote(message: &str, prompt: &ChatPrompt, key: &str) -> String {
    /// Longer runs that the prompt holds too are the user's text, not a coincidence.
    const SHARED: usize = 16;
    const LONGEST: usize = 200;
    let message = plain(message.trim().trim_end_matches('.'));
    let chars: Vec<char> = message.chars().take(LONGEST).collect();
    let shares = chars
        .windows(SHARED)
        .any(|run| prompt.contains(&run.iter().collect::<String>()));
    if chars.is_empty() || shares || message.contains(key) {
        return String::new();
    }
    format!(": {}", chars.iter().collect::<String>())
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::{ChatTask, Message, Role, Task};
    use crate::prompt::chat;

    fn prompt() -> ChatPrompt {
        let task = Task::Chat(ChatTask {
            system: None,
            messages: vec![Message {
                role: Role::User,
                text: "my secret recipe for soup".into(),
            }],
            schema: None,
        });
        chat::render(&task).unwrap()
    }

    fn check(code: u16, message: &str, kind: ErrorKind, text: &str) {
        let body = ApiError {
            kind: "some_error".into(),
            message: message.into(),
        };
        let code = StatusCode::from_u16(code).unwrap();
        let error = status(code, Some(&body), &prompt(), "sk-key");
        assert_eq!(error.kind, kind, "{code}");
        assert!(error.message.contains(text), "{error}");
        assert!(error.to_string().ends_with('.'), "{error}");
    }

    #[test]
    fn every_status_has_its_kind() {
        check(301, "", ErrorKind::Backend, "redirect");
        check(400, "bad", ErrorKind::InvalidRequest, "(status 400): bad");
        check(
            400,
            "prompt is too long: 9 tokens",
            ErrorKind::TooLong,
            "context",
        );
        check(
            401,
            "invalid x-api-key",
            ErrorKind::Unauthorized,
            "x-api-key",
        );
        check(402, "", ErrorKind::Unauthorized, "payment");
        check(403, "", ErrorKind::Unauthorized, "may not");
        check(404, "model: x", ErrorKind::Unavailable, ": model: x");
        check(408, "", ErrorKind::Timeout, "too long");
        check(409, "", ErrorKind::Backend, "409");
        check(413, "", ErrorKind::TooLong, "larger");
        check(422, "", ErrorKind::InvalidRequest, "422");
        check(429, "", ErrorKind::RateLimited, "more requests");
        check(500, "", ErrorKind::Backend, "500 (some_error)");
        check(504, "", ErrorKind::Timeout, "too long");
        check(529, "", ErrorKind::Backend, "overloaded");
    }

    #[test]
    fn what_was_sent_is_not_repeated() {
        for message in [
            "cannot read `my secret recipe for soup`",
            "the key sk-key is wrong",
        ] {
            let body = ApiError {
                kind: "invalid_request_error".into(),
                message: message.into(),
            };
            let error = status(StatusCode::BAD_REQUEST, Some(&body), &prompt(), "sk-key");
            assert!(error.message.ends_with("(status 400)"), "{error}");
        }
    }

    #[test]
    fn a_cap_names_the_amounts_and_the_next_step() {
        let fault = SpendFault::Cap {
            spent: 4_990_000_000,
            request: 250_000_000,
        };
        assert_eq!(
            spend(&fault, 5.0).to_string(),
            "$4.99 of today's $5.00 for Claude are spent or set aside, and this request may cost \
             up to $0.2500. Raise `claude.daily_spend_cap_usd`, or wait until the day ends at \
             00:00 UTC."
        );
    }
}
