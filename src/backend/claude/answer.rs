//! What the events of a streamed answer mean, in the order they may come. Pure.
//!
//! The order and the fields: <https://platform.claude.com/docs/en/build-with-claude/streaming>.

use serde::Deserialize;

use crate::inference::FinishReason;

/// More tokens than any request can have. A server that counts more is not to be believed.
const MOST_TOKENS: u64 = 50_000_000;

/// The longest model name that is passed on.
const LONGEST_MODEL_NAME: usize = 100;

/// Tokens as the server counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenCounts {
    /// Of the prompt, neither read from nor written to the cache.
    pub input: u64,
    /// Of the prompt, written to the cache.
    pub cache_creation: u64,
    /// Of the prompt, read from the cache.
    pub cache_read: u64,
    /// Of the answer, thinking included.
    pub output: u64,
}

impl TokenCounts {
    /// All of the prompt.
    #[must_use]
    pub fn prompt(&self) -> u64 {
        self.input
            .saturating_add(self.cache_creation)
            .saturating_add(self.cache_read)
    }
}

/// What one event brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing: a sign of life, or an event that is not ours to understand.
    Nothing,
    /// The answer came on, without text.
    Progress,
    /// Text.
    Text(String),
    /// The answer is whole.
    End(Ending),
}

/// How a whole answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// As wanted.
    Finished(FinishReason),
    /// The model, or a classifier, declined; with the policy's category where there is one.
    Refused(Option<String>),
}

/// Why an event cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    /// The server reports an error within the stream.
    #[error("{}", .0.kind)]
    Reported(ApiError),
    /// The event is not JSON of the documented form.
    #[error("an event has not the documented form")]
    Malformed,
    /// The event does not belong here.
    #[error("a `{0}` event came out of order")]
    OutOfOrder(&'static str),
    /// Token counts that cannot be.
    #[error("the token counts are impossible")]
    ImpossibleCounts,
    /// The model wants to call a tool, though it was given none.
    #[error("the model called a tool, though it was given none")]
    UnaskedTool,
}

/// An error as the API writes it, in a body or an event.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ApiError {
    /// Such as `overloaded_error`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// For people; its wording may change.
    #[serde(default)]
    pub message: String,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Answer {
    phase: Phase,
    blocks: u32,
    ending: Option<Ending>,
    /// Counted so far.
    pub counts: TokenCounts,
    /// The model that answers, as the server names it.
    pub model: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    /// Nothing has come.
    #[default]
    Before,
    /// Between blocks.
    Between,
    /// In the block with this index; whether it is text.
    InBlock(u32, bool),
    /// The stop reason is known.
    Stopping,
    /// Over.
    Over,
}

impl Answer {
    /// Whether the server has begun to answer.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.phase != Phase::Before
    }

    /// Takes the data of the next event.
    ///
    /// # Errors
    /// [`AnswerFault`]; the answer is then lost.
    pub fn take(&mut self, data: &str) -> Result<Step, AnswerFault> {
        let event: StreamEvent = serde_json::from_str(data).map_err(|_| AnswerFault::Malformed)?;
        match (event, self.phase) {
            (StreamEvent::Ping | StreamEvent::Unknown, _) | (_, Phase::Over) => Ok(Step::Nothing),
            (StreamEvent::Error { error }, _) => Err(AnswerFault::Reported(error)),
            (StreamEvent::MessageStart { message }, Phase::Before) => {
                self.phase = Phase::Between;
                self.model = message.model.filter(|name| is_model_name(name));
                self.count(&message.usage.unwrap_or_default())?;
                Ok(Step::Progress)
            }
            (StreamEvent::MessageStart { .. }, _) => Err(AnswerFault::OutOfOrder("message_start")),
            (
                StreamEvent::ContentBlockStart {
                    index,
                    content_block,
                },
                Phase::Between,
            ) if index == self.blocks => {
                let is_text = matches!(content_block, Content::Text { .. });
                self.phase = Phase::InBlock(index, is_text);
                Ok(match content_block {
                    Content::Text { text } if !text.is_empty() => Step::Text(text),
                    Content::Text { .. } | Content::Other => Step::Progress,
                })
            }
            (StreamEvent::ContentBlockStart { .. }, _) => {
                Err(AnswerFault::OutOfOrder("content_block_start"))
            }
            (StreamEvent::ContentBlockDelta { index, delta }, Phase::InBlock(open, is_text))
                if index == open =>
            {
                match delta {
                    Delta::Text { text } if is_text => Ok(Step::Text(text)),
                    Delta::Text { .. } => Err(AnswerFault::OutOfOrder("text_delta")),
                    // Thinking, its signature, a tool's input, citations.
                    Delta::Other => Ok(Step::Progress),
                }
            }
            (StreamEvent::ContentBlockDelta { .. }, _) => {
                Err(AnswerFault::OutOfOrder("content_block_delta"))
            }
            (StreamEvent::ContentBlockStop { index }, Phase::InBlock(open, _)) if index == open => {
                self.phase = Phase::Between;
                self.blocks += 1;
                Ok(Step::Progress)
            }
            (StreamEvent::ContentBlockStop { .. }, _) => {
                Err(AnswerFault::OutOfOrder("content_block_stop"))
            }
            (StreamEvent::MessageDelta { delta, usage }, Phase::Between | Phase::Stopping) => {
                self.count(&usage.unwrap_or_default())?;
                if let Some(reason) = delta.stop_reason {
                    self.phase = Phase::Stopping;
                    self.ending = Some(ending(&reason, delta.stop_details)?);
                }
                Ok(Step::Progress)
            }
            (StreamEvent::MessageDelta { .. }, _) => Err(AnswerFault::OutOfOrder("message_delta")),
            (StreamEvent::MessageStop, Phase::Stopping) => {
                self.phase = Phase::Over;
                let ending = self.ending.take();
                Ok(Step::End(
                    ending.ok_or(AnswerFault::OutOfOrder("message_stop"))?,
                ))
            }
            (StreamEvent::MessageStop, _) => Err(AnswerFault::OutOfOrder("message_stop")),
        }
    }

    /// Counts are totals so far; one that is left out keeps its value.
    fn count(&mut self, usage: &UsageFields) -> Result<(), AnswerFault> {
        for (kept, told) in [
            (&mut self.counts.input, usage.input),
            (&mut self.counts.cache_creation, usage.cache_creation),
            (&mut self.counts.cache_read, usage.cache_read),
            (&mut self.counts.output, usage.output),
        ] {
            if let Some(told) = told {
                if told > MOST_TOKENS {
                    return Err(AnswerFault::ImpossibleCounts);
                }
                *kept = told;
            }
        }
        Ok(())
    }
}

fn ending(reason: &str, details: Option<StopDetails>) -> Result<Ending, AnswerFault> {
    Ok(match reason {
        "end_turn" | "stop_sequence" => Ending::Finished(FinishReason::Stop),
        "refusal" => Ending::Refused(
            details
                .and_then(|details| details.category)
                .filter(|category| is_model_name(category)),
        ),
        "tool_use" => return Err(AnswerFault::UnaskedTool),
        // `max_tokens`, `model_context_window_exceeded`, `pause_turn`, and reasons to come: there
        // may be more to say.
        _ => Ending::Finished(FinishReason::Length),
    })
}

/// Whether a name may be shown to people as it is.
fn is_model_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= LONGEST_MODEL_NAME
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/@".contains(&byte))
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum StreamEvent {
    MessageStart {
        message: MessageFields,
    },
    ContentBlockStart {
        index: u32,
        content_block: Content,
    },
    ContentBlockDelta {
        index: u32,
        delta: Delta,
    },
    ContentBlockStop {
        index: u32,
    },
    MessageDelta {
        delta: MessageDeltaFields,
        usage: Option<UsageFields>,
    },
    MessageStop,
    Ping,
    Error {
        error: ApiError,
    },
    #[serde(other)]
    Unknown,
}

#[derive(Deserialize)]
struct MessageFields {
    model: Option<String>,
    usage: Option<UsageFields>,
}

#[derive(Deserialize)]
struct MessageDeltaFields {
    stop_reason: Option<String>,
    stop_details: Option<StopDetails>,
}

#[derive(Deserialize)]
struct StopDetails {
    category: Option<String>,
}

#[derive(Deserialize, Default)]
struct UsageFields {
    #[serde(rename = "input_tokens")]
    input: Option<u64>,
    #[serde(rename = "cache_creation_input_tokens")]
    cache_creation: Option<u64>,
    #[serde(rename = "cache_read_input_tokens")]
    cache_read: Option<u64>,
    #[serde(rename = "output_tokens")]
    output: Option<u64>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Content {
    Text {
        #[serde(default)]
        text: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Delta {
    #[serde(rename = "text_delta")]
    Text { text: String },
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],"model":"claude-haiku-5-5","stop_reason":null,"usage":{"input_tokens":5,"cache_read_input_tokens":7,"cache_creation_input_tokens":null,"output_tokens":1}}}"#;
    const OPEN: &str =
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
    const HI: &str =
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}"#;
    const CLOSE: &str = r#"{"type":"content_block_stop","index":0}"#;
    const STOP: &str = r#"{"type":"message_stop"}"#;
    const PING: &str = r#"{"type":"ping"}"#;

    fn ended(reason: &str) -> String {
        format!(
            r#"{{"type":"message_delta","delta":{{"stop_reason":"{reason}","stop_sequence":null}},"usage":{{"output_tokens":3}}}}"#
        )
    }

    fn last(events: &[&str]) -> Result<Step, AnswerFault> {
        let mut answer = Answer::default();
        let mut step = Ok(Step::Nothing);
        for event in events {
            step = answer.take(event);
            if step.is_err() {
                break;
            }
        }
        step
    }

    #[test]
    fn a_whole_answer() {
        let mut answer = Answer::default();
        let end = ended("end_turn");
        let steps: Vec<Step> = [
            PING,
            START,
            OPEN,
            PING,
            HI,
            CLOSE,
            &end,
            STOP,
            "{\"type\":\"later\"}",
        ]
        .iter()
        .map(|event| answer.take(event).unwrap())
        .collect();
        assert_eq!(
            steps,
            [
                Step::Nothing,
                Step::Progress,
                Step::Progress,
                Step::Nothing,
                Step::Text("Hi".into()),
                Step::Progress,
                Step::Progress,
                Step::End(Ending::Finished(FinishReason::Stop)),
                Step::Nothing,
            ]
        );
        assert_eq!(
            answer.counts,
            TokenCounts {
                input: 5,
                cache_creation: 0,
                cache_read: 7,
                output: 3
            }
        );
        assert_eq!(answer.model.as_deref(), Some("claude-haiku-5-5"));
    }

    #[test]
    fn thinking_and_tools_are_progress_and_no_text() {
        let mut answer = Answer::default();
        for event in [
            START,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"x"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{"}}"#,
            CLOSE,
        ] {
            assert_eq!(answer.take(event), Ok(Step::Progress), "{event}");
        }
        let text = r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":"A"}}"#;
        assert_eq!(answer.take(text), Ok(Step::Text("A".into())));
    }

    #[test]
    fn every_stop_reason_has_its_ending() {
        for (reason, ending) in [
            ("end_turn", Ending::Finished(FinishReason::Stop)),
            ("stop_sequence", Ending::Finished(FinishReason::Stop)),
            ("max_tokens", Ending::Finished(FinishReason::Length)),
            (
                "model_context_window_exceeded",
                Ending::Finished(FinishReason::Length),
            ),
            ("something_new", Ending::Finished(FinishReason::Length)),
            ("refusal", Ending::Refused(None)),
        ] {
            let end = ended(reason);
            assert_eq!(
                last(&[START, &end, STOP]),
                Ok(Step::End(ending)),
                "{reason}"
            );
        }
        let end = ended("tool_use");
        assert_eq!(last(&[START, &end]), Err(AnswerFault::UnaskedTool));
    }

    #[test]
    fn events_out_of_order_are_faults() {
        let end = ended("end_turn");
        let other =
            r#"{"type":"content_block_delta","index":3,"delta":{"type":"text_delta","text":"x"}}"#;
        let second =
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}"#;
        for events in [
            &[HI][..],
            &[STOP],
            &[OPEN],
            &[START, START],
            &[START, HI],
            &[START, second],
            &[START, CLOSE],
            &[START, OPEN, OPEN],
            &[START, OPEN, other],
            &[START, OPEN, &end],
            &[START, STOP],
            &[START, OPEN, CLOSE, STOP],
            &[START, &end, OPEN],
        ] {
            assert!(
                matches!(last(events), Err(AnswerFault::OutOfOrder(_))),
                "{events:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_is_a_fault() {
        for event in [
            "",
            "[DONE]",
            "[]",
            "{}",
            r#"{"type":"content_block_start","index":-1,"content_block":{"type":"text"}}"#,
            r#"{"type":"message_start","message":{"usage":{"input_tokens":-5}}}"#,
            r#"{"type":"message_start","message":{"usage":{"input_tokens":1.5}}}"#,
        ] {
            assert_eq!(last(&[event]), Err(AnswerFault::Malformed), "{event}");
        }
        let many =
            r#"{"type":"message_start","message":{"usage":{"input_tokens":18446744073709551615}}}"#;
        assert_eq!(last(&[many]), Err(AnswerFault::ImpossibleCounts));
        let mut answer = Answer::default();
        let odd = r#"{"type":"message_start","message":{"model":"a\u001b[31m"}}"#;
        answer.take(odd).unwrap();
        assert_eq!(answer.model, None);
    }

    #[test]
    fn an_error_event_is_reported_anywhere() {
        let error =
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
        for events in [&[error][..], &[START, error], &[START, OPEN, HI, error]] {
            assert!(
                matches!(last(events), Err(AnswerFault::Reported(ref e)) if e.kind == "overloaded_error"),
                "{events:?}"
            );
        }
    }
}
