//! Drafts that are looked up change nothing but the time: the same tokens, text and end as without.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use proptest::prelude::*;
use tandem::backend::local::continuation::{Continuation, Pace};
use tandem::backend::local::decode::{DecodeRequest, Decoding, Step};
use tandem::backend::local::drafting::Drafted;
use tandem::backend::local::guide::Guide;
use tandem::backend::local::infinigram::InfiniGram;
use tandem::backend::local::loader::{Arithmetic, Loaded, load_by};
use tandem::backend::local::lookup::Lookup;
use tandem::backend::local::payoff::Payoff;
use tandem::backend::local::sampler::Scores;
use tandem::backend::local::sequence::{ReleasedStates, Sequence, StateHandle};
use tandem::backend::local::window::Window;
use tandem::backend::local::{LanguageModel, ModelSource};
use tandem::config::{BundleRuntime, ComputeDevice};
use tandem::inference::{FinishReason, GenerateError, Sampling};
use tandem::prompt::Vocabulary;

use super::{CONTEXT, fixture};

/// Code that says some things more than once.
const CODE: &str = "fn area(width: u32, height: u32) -> u32 {\n    width * height\n}\n\n\
    fn perimeter(width: u32, height: u32) -> u32 {\n    2 * (width + height)\n}\n\n\
    #[test]\nfn areas() {\n    assert_eq!(area(2, 3), 6);\n    assert_eq!(area(2, 4), 8);\n    assert";

const WARM: Sampling = Sampling {
    temperature: 0.8,
    top_k: 40,
    top_p: 0.95,
    repetition_penalty: 1.1,
    repeat_last_n: 32,
    seed: 11,
    ..Sampling::GREEDY
};

/// All that there is to an answer.
#[derive(Debug, PartialEq)]
struct Answer {
    tokens: Vec<u32>,
    text: String,
    reason: FinishReason,
}

struct Question {
    prompt: Vec<u32>,
    sampling: Sampling,
    stop: Vec<String>,
    begun: &'static str,
    document: bool,
}

/// The answer, what was drafted, and what of prompt and answer is kept computed.
fn answer(
    loaded: &mut Loaded,
    question: &Question,
    lookup: Option<Lookup>,
    payoff: Payoff,
) -> (Answer, Drafted, usize) {
    let prompt = question.prompt.clone();
    let document = question
        .document
        .then(|| InfiniGram::new(&prompt, &[], &[]));
    let request = DecodeRequest {
        prompt: prompt.clone(),
        sampling: question.sampling,
        max_tokens: 40,
        ends: Arc::clone(&loaded.ends),
        stop: question.stop.clone(),
        guide: Guide::new(question.begun, document),
        lookup,
    };
    let pace = Pace {
        payoff,
        ..Pace::default()
    };
    let sequence = loaded.model.sequence().unwrap();
    let mut decoding = Decoding::new(request, loaded.model.as_ref(), sequence, pace);
    let mut scores = Scores::default();
    let mut text = String::new();
    let reason = loop {
        let step = decoding.step(loaded.model.as_mut(), &loaded.tokenizer, &mut scores);
        match step.unwrap() {
            Step::Text(piece) => text += &piece,
            Step::Finished(piece, reason) => {
                text += &piece;
                break reason;
            }
        }
    };
    let (tokens, drafted) = (decoding.answer().to_vec(), decoding.drafted());
    let sequence = decoding.into_sequence();
    let all = [prompt, tokens.clone()].concat();
    assert!(all.starts_with(sequence.tokens()), "what is kept was said");
    let answer = Answer {
        tokens,
        text,
        reason,
    };
    (answer, drafted, sequence.len())
}

/// The same tokens with every seventh another one, so that guesses are right for a while.
fn nearly(tokens: &[u32]) -> Vec<u32> {
    let changed = tokens.iter().enumerate();
    let changed = changed.map(|(at, token)| if at % 7 == 5 { token ^ 1 } else { *token });
    changed.collect()
}

fn check(source: &ModelSource, arithmetic: Arithmetic) {
    let mut loaded = load_by(source, CONTEXT, ComputeDevice::Cpu, arithmetic).unwrap();
    let what = format!("{} by {arithmetic:?}", source.name());
    let code = loaded.tokenizer.encode(CODE).unwrap();
    let mut all = Drafted::default();
    for (prompt, begun) in [(code.clone(), ""), (code[..9].to_vec(), "  w")] {
        for sampling in [Sampling::GREEDY, WARM] {
            for (stop, document) in [(vec![], false), (vec!["\n\n".to_owned()], true)] {
                let question = Question {
                    prompt: prompt.clone(),
                    sampling,
                    stop,
                    begun,
                    document,
                };
                let (plain, none, kept) = answer(&mut loaded, &question, None, Payoff::default());
                assert_eq!(none, Drafted::default());
                for (count, text) in [
                    (7, plain.tokens.clone()),
                    (1, nearly(&plain.tokens)),
                    (3, nearly(&plain.tokens)),
                    (7, nearly(&plain.tokens)),
                ] {
                    let lookup = Some(Lookup::new([&*code, &*text], &question.prompt));
                    let payoff = Payoff::fixed(count);
                    let (got, drafted, got_kept) = answer(&mut loaded, &question, lookup, payoff);
                    assert_eq!(got, plain, "{what}, {count} at most");
                    assert!(got_kept.abs_diff(kept) <= 1, "{what}: {got_kept} of {kept}");
                    all.offered += drafted.offered;
                    all.accepted += drafted.accepted;
                }
            }
        }
    }
    assert!(all.accepted > 60, "{what}: {all:?}");
    assert!(all.offered > all.accepted + 20, "{what}: {all:?}");
}

#[test]
fn the_embedded_model_says_the_same() {
    check(&ModelSource::embedded(), Arithmetic::Auto);
}

#[test]
fn tiny_models_say_the_same_by_candle_and_by_our_kernels() {
    for (name, arithmetics) in [
        (
            "qwen3-tiny.gguf",
            &[Arithmetic::Candle, Arithmetic::Packed][..],
        ),
        ("qwen2-tiny.gguf", &[Arithmetic::Candle, Arithmetic::Packed]),
        ("qwen3-tiny-q8_0.gguf", &[Arithmetic::Rounded]),
    ] {
        for arithmetic in arithmetics {
            let source = ModelSource::at(&fixture(name), BundleRuntime::Auto);
            check(&source, *arithmetic);
        }
    }
}

/// An answer ends with the context, whatever is guessed beyond it.
#[test]
fn guesses_end_with_the_context() {
    let source = ModelSource::at(&fixture("qwen3-tiny.gguf"), BundleRuntime::Auto);
    for arithmetic in [Arithmetic::Candle, Arithmetic::Packed] {
        let mut loaded = load_by(&source, 64, ComputeDevice::Cpu, arithmetic).unwrap();
        let question = Question {
            prompt: [5, 6, 7].repeat(20),
            sampling: Sampling::GREEDY,
            stop: Vec::new(),
            begun: "",
            document: false,
        };
        let (plain, ..) = answer(&mut loaded, &question, None, Payoff::default());
        let lookup = Some(Lookup::new([&*plain.tokens], &question.prompt));
        let (got, ..) = answer(&mut loaded, &question, lookup, Payoff::fixed(7));
        assert_eq!((got.tokens.len(), got.reason), (4, FinishReason::Length));
        assert_eq!(got, plain);
    }
}

/// Whose scores depend on every token before, so that one which was guessed wrongly and stayed shows.
struct Chaotic;

/// Its tokens.
const ROWS: u32 = 5;

impl LanguageModel for Chaotic {
    fn sequence(&mut self) -> Result<Sequence, GenerateError> {
        let handle = StateHandle::new(0, 1, &ReleasedStates::default());
        Ok(Sequence::in_state(handle))
    }

    fn forward(
        &mut self,
        tokens: &[u32],
        sequence: &mut Sequence,
        scores: Option<&mut Scores>,
    ) -> Result<(), GenerateError> {
        sequence.push(tokens);
        if let Some(scores) = scores {
            scores.logits = (0..ROWS)
                .map(|row| {
                    let mut hasher = DefaultHasher::new();
                    (sequence.tokens(), row).hash(&mut hasher);
                    (hasher.finish() % 1000) as f32 / 400.0
                })
                .collect();
        }
        Ok(())
    }

    fn window(&self) -> Window {
        Window::fixed(200)
    }

    fn ahead(&self) -> usize {
        7
    }
}

fn said(sampling: Sampling, prompt: &[u32], lookup: Option<Lookup>, pace: Pace) -> Vec<u32> {
    let sequence = Chaotic.sequence().unwrap();
    let mut continuation = Continuation::new(prompt.to_vec(), sampling, &Chaotic, sequence, 16)
        .with_lookup(lookup, 40, pace);
    let mut scores = Scores::default();
    while continuation.answer().len() < 40 {
        if let Some(token) = continuation.step(&mut Chaotic, &mut scores).unwrap() {
            continuation.accept(token);
        }
    }
    continuation.answer().to_vec()
}

proptest! {
    /// A draft is a certainty, so accepting it with the probability that the model gives it, and drawing
    /// anew from the rest otherwise, is drawing once and comparing. With the same random numbers that is
    /// the same answer, and so the distribution is the same to the last bit.
    #[test]
    fn drawn_answers_are_the_same(
        prompt in proptest::collection::vec(0..ROWS, 1..30),
        text in proptest::collection::vec(0..ROWS, 0..30),
        temperature in 0f32..2.0,
        repetition_penalty in 0.9f32..1.5,
        fixed in proptest::option::of(0usize..9),
        seed: u64,
    ) {
        let sampling = Sampling { temperature, repetition_penalty, seed, ..WARM };
        let plain = said(sampling, &prompt, None, Pace::default());
        let payoff = fixed.map_or_else(Payoff::default, Payoff::fixed);
        let pace = Pace { payoff, ..Pace::default() };
        for text in [text, nearly(&plain)] {
            let lookup = Some(Lookup::new([&*text], &prompt));
            prop_assert_eq!(&said(sampling, &prompt, lookup, pace), &plain);
        }
    }
}
