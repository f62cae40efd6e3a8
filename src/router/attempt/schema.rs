//! An answer that has to be valid by a schema: read to its end, and looked at before any of it is given
//! out.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::super::breaker::Pass;
use super::{AttemptEnd, Serving};
use crate::inference::{AnswerSchema, ErrorKind, Event, FinishReason, GenerateError, TokenStream};

/// How long looking may take. A schema can make it take as long as it likes, since its parts may each
/// refer to several others.
const LIMIT: Duration = Duration::from_secs(5);

/// No model writes so much within the tokens that it may; a server that goes on is broken.
const LONGEST_ANSWER: usize = 4 << 20;

impl Serving {
    /// Reads the answer, which is given out whole and valid or fails as if nothing had come.
    pub(super) async fn valid(
        &mut self,
        mut stream: TokenStream,
        pass: Pass,
        schema: AnswerSchema,
    ) -> AttemptEnd {
        let mut text = String::new();
        let finish = loop {
            match self.next(&mut stream).await {
                None => return self.abandoned(pass),
                Some(Event::Delta(piece)) => {
                    text.push_str(&piece);
                    if text.len() > LONGEST_ANSWER {
                        return self.failed(pass, invalid("it has no end"));
                    }
                }
                Some(Event::Done(finish)) => break finish,
                Some(Event::Failed(error)) => return self.failed(pass, error),
            }
        };
        drop(stream);
        self.note_finish(&finish);
        let cut = finish.reason == FinishReason::Length;
        let looked = tokio::task::spawn_blocking(move || {
            let json = without_fence(&text);
            match schema.value_of(json) {
                // A number may have had more digits to come.
                Ok(_) if !cut || json.ends_with(['}', ']', '"']) => Ok(json.to_owned()),
                Err(why) if !cut => Err(Some(why)),
                Err(_) if !may_begin_json(json) => Err(Some("it is not JSON".to_owned())),
                Ok(_) | Err(_) => Err(None),
            }
        });
        let looked = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return self.abandoned(pass),
            looked = timeout(LIMIT, looked) => looked,
        };
        match looked {
            Ok(Ok(Ok(json))) => {
                pass.succeeded();
                self.first_token.get_or_insert_with(Instant::now);
                if !self.emit(json).await {
                    return AttemptEnd::Final(self.cancelled());
                }
                self.finished(finish).await
            }
            Ok(Ok(Err(Some(why)))) => self.failed(pass, invalid(&why)),
            Ok(Ok(Err(None))) => self.failed(pass, cut_off(finish.usage.completion_tokens)),
            Ok(Err(_)) | Err(_) => {
                let why = "to find out whether it is would take too long";
                self.failed(pass, invalid(why))
            }
        }
    }
}

/// Models that are only told to write JSON like to put it into a fence.
fn without_fence(text: &str) -> &str {
    let text = text.trim();
    let inside = text.strip_prefix("```").and_then(|rest| {
        let (language, rest) = rest.split_once('\n')?;
        let language = language.trim();
        (language.is_empty() || language.eq_ignore_ascii_case("json")).then_some(rest)
    });
    let inside = inside.and_then(|rest| rest.strip_suffix("```"));
    inside.map_or(text, str::trim)
}

/// Whether `text` may be the beginning of JSON, or of a fence with some in it.
fn may_begin_json(text: &str) -> bool {
    let literals = ["true", "false", "null"];
    text.starts_with(['{', '[', '"', '-'])
        || text.starts_with(|first: char| first.is_ascii_digit())
        || literals.iter().any(|word| word.starts_with(text))
        || text.starts_with("```")
}

fn cut_off(tokens: usize) -> GenerateError {
    GenerateError::new(
        ErrorKind::TooLong,
        format!("the answer was cut off after {tokens} tokens, before its JSON was complete"),
        "Allow it more tokens, or ask for less at once.",
    )
}

fn invalid(why: &str) -> GenerateError {
    GenerateError::new(
        ErrorKind::Backend,
        format!("the answer is not valid by the schema: {why}"),
        "Ask again, or by a simpler schema.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_become_json() {
        for text in ["", "{", "[1", "\"a", "-", "0", "tr", "null", "```json\n{"] {
            assert!(may_begin_json(text), "{text}");
        }
        for text in ["Sure", "from", "` `", "<", "*"] {
            assert!(!may_begin_json(text), "{text}");
        }
    }

    #[test]
    fn a_fence_around_the_whole_answer_is_left_out() {
        for (text, json) in [
            (" {}\n", "{}"),
            ("```json\n{}\n```\n", "{}"),
            ("```\n[1]```", "[1]"),
            ("```rust\n{}\n```", "```rust\n{}\n```"),
            ("```json\n{}", "```json\n{}"),
            ("```", "```"),
            ("\"```\"", "\"```\""),
        ] {
            assert_eq!(without_fence(text), json, "{text}");
        }
    }
}
