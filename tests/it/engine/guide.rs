//! What bears on a completion besides the model: the piece being typed, and the document's own words.

use std::sync::Arc;

use proptest::prelude::*;
use tandem::backend::local::continuation::Pace;
use tandem::backend::local::decode::{DecodeRequest, Decoding, Step};
use tandem::backend::local::guide::Guide;
use tandem::backend::local::sampler::Scores;
use tandem::backend::local::sequence::{ReleasedStates, Sequence, StateHandle};
use tandem::backend::local::window::Window;
use tandem::backend::local::{LanguageModel, LocalBackend, ModelSource};
use tandem::config::LocalSettings;
use tandem::inference::{Backend as _, FinishReason, GenerateError, Generation, Sampling};
use tokio_util::sync::CancellationToken;

use super::backend::complete;
use super::load_fixture;

const CLASS: &str = "class Counter:
    def __init__(self, count):
        self.frobnicated_count = count

    def add(self, other):
        ";

async fn answer(backend: &LocalBackend, prefix: &str, max_tokens: usize) -> Generation {
    let request = complete(
        prefix,
        "\n\n    def next(self):\n        pass\n",
        max_tokens,
    );
    let stream = backend.generate(request, CancellationToken::new());
    stream.collect().await.unwrap()
}

fn embedded() -> LocalBackend {
    LocalBackend::open(ModelSource::embedded(), &LocalSettings::default()).unwrap()
}

#[tokio::test]
async fn a_completion_goes_on_in_the_middle_of_a_word() {
    let backend = embedded();
    for (typed, rest) in [
        ("retu", "rn"),
        ("self.frobni", "cated_count"),
        ("self.frobnicated_c", "ount"),
    ] {
        let text = answer(&backend, &format!("{CLASS}{typed}"), 16).await.text;
        assert!(text.starts_with(rest), "{typed}: {text:?}");
    }
}

#[tokio::test]
async fn while_a_word_is_typed_its_prompt_stays() {
    let backend = embedded();
    let mut last = None;
    for typed in ["return frob", "return frobn", "return frobni"] {
        let usage = answer(&backend, &format!("{CLASS}{typed}"), 4)
            .await
            .finish
            .usage;
        if let Some(prompt_tokens) = last {
            assert_eq!(usage.prompt_tokens, prompt_tokens);
            assert_eq!(usage.cached_tokens, prompt_tokens - 1);
        }
        last = Some(usage.prompt_tokens);
    }
}

/// Text as it may stand before a cursor: words, marks, and characters of several bytes.
fn begun() -> impl Strategy<Value = String> {
    "( |\\.|é|_)?([a-zA-Z]{0,9}|[éß日本🦀]{0,3}|[(){};=>-]{0,4})"
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the model would rather say, what was begun is said first, and the answer adds the rest.
    #[test]
    fn what_is_begun_is_said_first(begun in begun(), seed in any::<u32>()) {
        let tokenizer = load_fixture("qwen3-tiny").tokenizer;
        let mut guide = Guide::new(&begun, None);
        let (mut said, mut added) = (Vec::new(), Vec::new());
        let mut state = seed;
        while !guide.has_begun() {
            let logits = (0..tokenizer.rows()).map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 1e6
            });
            let mut scores = Scores { logits: logits.collect(), best: None };
            guide.apply(&mut scores, &tokenizer).unwrap();
            prop_assert!(scores.logits.iter().all(|logit| logit.is_finite()));
            let best = (0..scores.logits.len()).max_by(|a, b| scores.logits[*a].total_cmp(&scores.logits[*b]));
            let token = best.unwrap() as u32;
            let bytes = tokenizer.bytes(token);
            prop_assert!(!bytes.is_empty());
            said.extend_from_slice(bytes);
            added.extend_from_slice(guide.accept(token, bytes).unwrap());
        }
        prop_assert!(said.starts_with(begun.as_bytes()));
        prop_assert_eq!(&said[begun.len()..], &added[..]);
    }
}

/// Would rather say a token that stands for no text, always.
struct Speechless {
    rows: usize,
}

impl LanguageModel for Speechless {
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
            scores.logits = vec![0.0; self.rows + 1];
            scores.logits[self.rows] = 1.0;
        }
        Ok(())
    }

    fn window(&self) -> Window {
        Window::fixed(2000)
    }
}

#[test]
fn what_is_begun_does_not_count_as_the_answer_and_all_else_does() {
    let tokenizer = load_fixture("qwen3-tiny").tokenizer;
    let mut model = Speechless {
        rows: tokenizer.rows(),
    };
    for begun in ["", "retu"] {
        let request = DecodeRequest {
            prompt: vec![1, 2, 3],
            sampling: Sampling::GREEDY,
            max_tokens: 5,
            ends: Arc::default(),
            stop: Vec::new(),
            guide: Guide::new(begun, None),
            lookup: None,
        };
        let sequence = model.sequence().unwrap();
        let mut decoding = Decoding::new(request, &model, sequence, Pace::default());
        let mut scores = Scores::default();
        let reason = loop {
            if let Step::Finished(_, reason) =
                decoding.step(&mut model, &tokenizer, &mut scores).unwrap()
            {
                break reason;
            }
        };
        assert_eq!(reason, FinishReason::Length);
        let most = 5 + begun.len();
        assert!((5..=most).contains(&decoding.answer().len()), "{begun:?}");
    }
}

#[test]
fn a_model_that_chooses_by_itself_is_not_guided() {
    let tokenizer = load_fixture("qwen3-tiny").tokenizer;
    let own = Scores {
        logits: Vec::new(),
        best: Some((3, 1.0)),
    };
    let mut scores = own.clone();
    Guide::new("retu", None)
        .apply(&mut scores, &tokenizer)
        .unwrap();
    assert_eq!(scores, own);
}
