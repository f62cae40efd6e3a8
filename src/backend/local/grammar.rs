//! Which tokens keep an answer valid by a JSON Schema.
//!
//! llguidance makes a grammar over bytes of the schema and walks a trie of the vocabulary with it, so
//! that a token may cut the JSON anywhere. It works on bytes and knows nothing of the model.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::earley::SlicedBiasComputer;
use llguidance::{JsonCompileOptions, Matcher, ParserFactory, panic_utils};
use serde_json::Value;
use toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};

use super::guide::FORBIDDEN;
use super::tokenizer::Tokenizer;
use crate::inference::{AnswerSchema, ErrorKind, GenerateError};

/// White space between the tokens of JSON, once in each place: a space, or a line and its indentation. A
/// model that may write as much as it wants sometimes writes nothing else any more.
const WHITE_SPACE: &str = r"[\x20]|\n[\x20]{0,16}";

/// How much work a schema may be at its beginning, and each token: some 20 and 15 milliseconds at most by
/// llguidance's own figures. A schema that asks for more is refused, or its answer ends in a failure.
const INITIAL_FUEL: u64 = 1_000_000;
const STEP_FUEL: u64 = 200_000;

/// llguidance counts the multiples of a number in 32 bits, without looking whether they fit.
const LARGEST_MULTIPLE: u64 = u32::MAX as u64;

/// What is said where llguidance fails by a defect of its own.
const DEFECT: &str = "its grammar is more than can be worked with";

/// How much of an error of llguidance's is shown.
const LONGEST_ERROR: usize = 300;

/// What grammars need of one vocabulary: some megabytes and tenths of a second, so one for each model.
pub struct Grammars {
    factory: ParserFactory,
    rows: u32,
}

/// One answer's grammar.
pub struct Grammar {
    matcher: Matcher,
    /// The first row behind the model's own stands for the end of an answer, of which a model may have
    /// several tokens.
    rows: u32,
    ends: Arc<HashSet<u32>>,
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Grammar")
    }
}

impl Grammars {
    /// For answers in the tokens of `tokenizer` that stand for text.
    ///
    /// # Errors
    /// When llguidance cannot work with the vocabulary.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, GenerateError> {
        let rows = tokenizer.rows() as u32;
        let special: HashSet<u32> = tokenizer.added().map(|(_, id)| id).collect();
        let mut words: Vec<Vec<u8>> = (0..rows)
            .map(|token| {
                if special.contains(&token) {
                    return Vec::new();
                }
                tokenizer.bytes(token).to_vec()
            })
            .collect();
        words.push([&[TokTrie::SPECIAL_TOKEN_MARKER], b"<end>".as_slice()].concat());
        let trie = TokTrie::from(&TokRxInfo::new(rows + 1, rows), &words);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = SlicedBiasComputer::json_slices();
        let mut factory =
            ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
                .map_err(|error| failed(&error.to_string()))?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.initial_lexer_fuel = INITIAL_FUEL;
        limits.step_lexer_fuel = STEP_FUEL;
        // They would quote the answer.
        limits.verbose_errors = false;
        Ok(Self { factory, rows })
    }

    /// A grammar for an answer that is valid by `schema`, and that any of `ends` may end.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`], so that others may be asked, for a keyword that a grammar cannot have,
    /// a schema that is too much work, and one that no answer is valid by.
    pub fn grammar(
        &self,
        schema: &AnswerSchema,
        ends: &Arc<HashSet<u32>>,
    ) -> Result<Grammar, GenerateError> {
        let mut json = schema.json().clone();
        if !multiples_fit(&json) {
            return Err(unsupported(
                "its `multipleOf` has more digits than a grammar can count",
            ));
        }
        let options = JsonCompileOptions {
            whitespace_pattern: Some(WHITE_SPACE.to_owned()),
            ..JsonCompileOptions::default()
        };
        if let Value::Object(members) = &mut json {
            // What is ours to say.
            members.shift_remove("x-guidance");
            options.apply_to(&mut json);
        }
        let grammar = TopLevelGrammar::from_json_schema(json);
        // Nothing of the factory's is left half done by a parser that is not made.
        let made = AssertUnwindSafe(|| Ok(Matcher::new(self.factory.create_parser(grammar))));
        let made = panic_utils::catch_unwind(made);
        let mut matcher = made.map_err(|error| unsupported(&error.to_string()))?;
        if let Some(error) = matcher.get_error() {
            return Err(unsupported(&error));
        }
        // A schema that refers to itself only is a grammar, and nothing can be said by it.
        if matcher.compute_mask().is_err() {
            return Err(unsupported("no answer is valid by it"));
        }
        Ok(Grammar {
            matcher,
            rows: self.rows,
            ends: Arc::clone(ends),
        })
    }
}

impl Grammar {
    /// Forbids all tokens in `logits` but those that can come next; the ends where the answer is whole.
    ///
    /// # Errors
    /// [`ErrorKind::Backend`] where nothing can come next, or finding it out is too much work.
    pub fn allow(&mut self, logits: &mut [f32]) -> Result<(), GenerateError> {
        let mask = self
            .matcher
            .compute_mask()
            .map_err(|error| failed(&error.to_string()))?;
        let ends = mask.is_allowed(self.rows).then(|| {
            let ends = self.ends.iter().copied();
            ends.filter_map(|end| Some((end, *logits.get(end as usize)?)))
                .collect::<Vec<_>>()
        });
        let rows = self.rows as usize;
        for (block, bits) in logits.chunks_mut(32).zip(mask.as_slice()) {
            match *bits {
                u32::MAX => {}
                0 => block.fill(FORBIDDEN),
                bits => {
                    for (bit, logit) in block.iter_mut().enumerate() {
                        if (bits >> bit) & 1 == 0 {
                            *logit = FORBIDDEN;
                        }
                    }
                }
            }
        }
        // Rows that no token uses.
        if let Some(beyond) = logits.get_mut(rows..) {
            beyond.fill(FORBIDDEN);
        }
        for (end, logit) in ends.into_iter().flatten() {
            logits[end as usize] = logit;
        }
        Ok(())
    }

    /// Notes that `token`, which was allowed and is no end, was chosen.
    ///
    /// # Errors
    /// [`ErrorKind::Backend`] for a token that was not allowed.
    pub fn accept(&mut self, token: u32) -> Result<(), GenerateError> {
        self.matcher
            .consume_token(token)
            .map_err(|error| failed(&error.to_string()))
    }

    /// Whether the answer is whole and nothing can follow.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.matcher.is_stopped() && self.matcher.stop_reason().is_ok()
    }
}

/// Whether the multiples that `json` asks for can be counted, also where a value must be one of several
/// numbers at once.
fn multiples_fit(json: &Value) -> bool {
    let mut all = Decimal {
        digits: 1,
        places: 0,
    };
    let mut places = vec![json];
    while let Some(json) = places.pop() {
        match json {
            Value::Object(members) => {
                if let Some(number) = members.get("multipleOf").and_then(Value::as_f64) {
                    let with = Decimal::of(number).and_then(|number| all.lcm(number));
                    match with {
                        Some(with) => all = with,
                        None => return false,
                    }
                }
                places.extend(members.values());
            }
            Value::Array(items) => places.extend(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    true
}

/// `digits` divided by ten as often as there are `places`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decimal {
    digits: u64,
    places: u32,
}

impl Decimal {
    /// `None` for what llguidance cannot count the multiples of.
    fn of(number: f64) -> Option<Self> {
        // In full, without an exponent.
        let text = number.to_string();
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let places = u32::try_from(fraction.len()).ok()?;
        let digits = format!("{whole}{fraction}").parse().ok()?;
        Self { digits, places }.counted()
    }

    /// The least number that is a multiple of both.
    fn lcm(self, other: Self) -> Option<Self> {
        let places = self.places.max(other.places);
        let scaled = |it: Self| {
            it.digits
                .checked_mul(10u64.checked_pow(places - it.places)?)
        };
        let (a, b) = (scaled(self)?, scaled(other)?);
        let (mut divisor, mut rest) = (a, b);
        while rest > 0 {
            (divisor, rest) = (rest, divisor % rest);
        }
        let digits = (a / divisor.max(1)).checked_mul(b)?;
        Self { digits, places }.counted()
    }

    /// Itself, if a remainder of it with one more digit fits.
    fn counted(self) -> Option<Self> {
        let digit = 10u64.checked_pow(self.places)?.checked_mul(9)?;
        let longest = self.digits.checked_mul(10)?.checked_add(digit)?;
        (longest <= LARGEST_MULTIPLE).then_some(self)
    }
}

fn unsupported(error: &str) -> GenerateError {
    GenerateError::new(
        ErrorKind::Unavailable,
        format!(
            "the local model cannot be held to this JSON Schema: {}",
            first_line(error)
        ),
        "Say it without that, or allow Claude.",
    )
}

fn failed(error: &str) -> GenerateError {
    GenerateError::new(
        ErrorKind::Backend,
        format!(
            "the local model could not be held to the JSON Schema: {}",
            first_line(error)
        ),
        "Ask by a simpler schema.",
    )
}

/// Behind the first line are traces.
fn first_line(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    if line.starts_with("panic") {
        return DEFECT.to_owned();
    }
    let keywords = line.strip_prefix("Unimplemented keys: ").map(|keywords| {
        let keywords = keywords.trim_matches(['[', ']']).replace('"', "`");
        format!("it has {keywords}, which no grammar is made of")
    });
    let line = keywords.unwrap_or_else(|| line.to_owned());
    line.chars().take(LONGEST_ERROR).collect()
}
