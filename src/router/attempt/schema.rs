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
        if finish.reason == FinishReason::Length {
            return self.failed(pass, cut_off(finish.usage.completion_tokens));
        }
        let looked = tokio::task::spawn_blocking(move || {
            let json = without_fence(&text);
            schema.value_of(json).map(|_| json.to_owned())
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
            Ok(Ok(Err(why))) => self.failed(pass, invalid(&why)),
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
