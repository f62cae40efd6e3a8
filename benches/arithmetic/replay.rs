//! What look-up brings: edits of a Git history said again, with and without.
//!
//! A model of random weights says nothing worth looking up, so it is made an oracle: each step is computed
//! as ever, and the token that is then likeliest is the one that the commit has there. So the figures are
//! those of a model of this size that makes every edit as the person did.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use similar::{Algorithm, DiffOp, DiffTag, capture_diff_slices, group_diff_ops};
use tandem::backend::local::continuation::Pace;
use tandem::backend::local::decode::{DecodeRequest, Decoding, Step};
use tandem::backend::local::drafting::Drafted;
use tandem::backend::local::guide::Guide;
use tandem::backend::local::infinigram::InfiniGram;
use tandem::backend::local::loader::{Loaded, load};
use tandem::backend::local::lookup::Lookup;
use tandem::backend::local::sampler::Scores;
use tandem::backend::local::sequence::Sequence;
use tandem::backend::local::window::Window;
use tandem::backend::local::{LanguageModel, ModelSource};
use tandem::config::ComputeDevice;
use tandem::inference::{CompleteTask, CompletionShape, GenerateError, Sampling};
use tandem::prompt::{Budget, Vocabulary, completion};

use super::git::{self, Texts};

/// Lines around a change that a model which rewrites a passage has to say as well.
const AROUND: usize = 8;
/// Tokens of an answer, and of what stands before a passage.
const ANSWER: usize = 128;
const BEFORE: usize = 256;
/// Answers that are shorter tell little.
const SHORTEST: usize = 12;
/// Of a document on either side of the cursor.
const DOCUMENT: usize = 16_000;

/// Says what is written down, at the cost of computing it.
struct Oracle {
    model: Box<dyn LanguageModel>,
    /// Prompt and answer.
    truth: Vec<u32>,
}

impl Oracle {
    fn tell(&self, position: usize, logits: &mut [f32]) {
        let token = self.truth.get(position + 1);
        if let Some(logit) = token.and_then(|token| logits.get_mut(*token as usize)) {
            *logit = 1e9;
        }
    }
}

impl LanguageModel for Oracle {
    fn sequence(&mut self) -> Result<Sequence, GenerateError> {
        self.model.sequence()
    }

    fn forward(
        &mut self,
        tokens: &[u32],
        sequence: &mut Sequence,
        scores: Option<&mut Scores>,
    ) -> Result<(), GenerateError> {
        let Some(scores) = scores else {
            return self.model.forward(tokens, sequence, None);
        };
        self.model.forward(tokens, sequence, Some(scores))?;
        self.tell(sequence.len() - 1, &mut scores.logits);
        Ok(())
    }

    fn window(&self) -> Window {
        self.model.window()
    }

    fn ahead(&self) -> usize {
        self.model.ahead()
    }

    fn forward_all(
        &mut self,
        tokens: &[u32],
        sequence: &mut Sequence,
        logits: &mut Vec<f32>,
    ) -> Result<(), GenerateError> {
        let first = sequence.len();
        self.model.forward_all(tokens, sequence, logits)?;
        let rows = logits.len() / tokens.len();
        for (position, row) in (first..).zip(logits.chunks_mut(rows)) {
            self.tell(position, row);
        }
        Ok(())
    }
}

/// A passage that a commit changed.
struct Edit {
    language: &'static str,
    /// The file before, up to the passage.
    before: String,
    /// The passage, before and after.
    passage: [String; 2],
    /// From the passage's start to the first change.
    same: usize,
    /// What the first change puts there.
    new: String,
    /// The file before, behind the first change.
    after: String,
}

/// The newest edits of a repository, one for each file of a commit.
fn edits(repository: &Path, most: usize) -> anyhow::Result<Vec<Edit>> {
    let mut texts = Texts::of(repository)?;
    let mut edits = Vec::new();
    for file in git::commits(repository)?
        .into_iter()
        .flat_map(|it| it.files)
    {
        if edits.len() == most {
            break;
        }
        let [Some(old), Some(new)] = [texts.get(&file.blobs[0])?, texts.get(&file.blobs[1])?]
        else {
            continue;
        };
        let language = git::language(&file.path).unwrap_or_default();
        edits.extend(edit(language, &old, &new));
    }
    Ok(edits)
}

fn edit(language: &'static str, old: &str, new: &str) -> Option<Edit> {
    let lines = [old, new].map(|text| text.split_inclusive('\n').collect::<Vec<_>>());
    let [old, new] = &lines;
    let ops = capture_diff_slices(Algorithm::Patience, old, new);
    let group = group_diff_ops(ops, AROUND).into_iter().next()?;
    let (first, last) = (group.first()?, group.last()?);
    let passage = [
        first.old_range().start..last.old_range().end,
        first.new_range().start..last.new_range().end,
    ];
    let change = group
        .iter()
        .find(|op: &&DiffOp| op.tag() != DiffTag::Equal)?;
    let (from, to) = (change.old_range(), change.new_range());
    Some(Edit {
        language,
        before: old[..passage[0].start].concat(),
        same: old[passage[0].start..from.start].concat().len(),
        after: old[from.end..].concat(),
        new: new[to].concat(),
        passage: [
            old[passage[0].clone()].concat(),
            new[passage[1].clone()].concat(),
        ],
    })
}

/// Makes something to say of an edit.
type Told = fn(&Edit, &dyn Vocabulary) -> anyhow::Result<Case>;

/// What is said, and what is known before.
struct Case {
    prompt: Vec<u32>,
    truth: Vec<u32>,
    lookup: Lookup,
}

impl Edit {
    /// The passage is shown and said again as it is after the commit.
    fn rewritten(&self, words: &dyn Vocabulary) -> anyhow::Result<Case> {
        let before = words.encode(&self.before)?;
        let mut prompt = before[before.len().saturating_sub(BEFORE)..].to_vec();
        let passage = format!("<selection>{}</selection>\n\nInstruction:", self.passage[0]);
        prompt.extend(words.encode(&passage)?);
        Ok(Case {
            lookup: Lookup::new([], &prompt),
            truth: words.encode(&self.passage[1])?,
            prompt,
        })
    }

    /// Only what is new is said, at its place in the document.
    fn completed(&self, words: &dyn Vocabulary) -> anyhow::Result<Case> {
        let before = format!("{}{}", self.before, &self.passage[0][..self.same]);
        let before = words.encode(&before)?;
        let mut after = words.encode(&self.after)?;
        after.truncate(DOCUMENT);
        let before = &before[before.len().saturating_sub(DOCUMENT)..];
        let mut prompt = after[..after.len().min(BEFORE)].to_vec();
        prompt.extend(&before[before.len().saturating_sub(BEFORE)..]);
        // A prompt has a token.
        prompt.insert(0, 0);
        Ok(Case {
            lookup: Lookup::new([&*after], before),
            truth: words.encode(&self.new)?,
            prompt,
        })
    }

    /// The beginning of the file goes on, and nothing else is known.
    fn fresh(&self, words: &dyn Vocabulary) -> anyhow::Result<Case> {
        let text = words.encode(&format!("{}{}", self.before, self.passage[0]))?;
        let (prompt, truth) = text.split_at(text.len().min(BEFORE / 4));
        Ok(Case {
            lookup: Lookup::new([], prompt),
            truth: truth.to_vec(),
            prompt: [&[0], prompt].concat(),
        })
    }
}

/// What was said in what time.
#[derive(Default)]
struct Sum {
    tokens: usize,
    time: Duration,
    drafted: Drafted,
}

impl Sum {
    fn rate(&self) -> f64 {
        self.tokens as f64 / self.time.as_secs_f64()
    }
}

/// Says the answer behind `sequence`, which has all of the prompt but its last token; what is timed is
/// what comes after the first token.
fn say(
    (model, words): (&mut dyn LanguageModel, &Loaded),
    request: DecodeRequest,
    sequence: Sequence,
    pace: &mut Pace,
    sum: &mut Sum,
) -> anyhow::Result<(Vec<u32>, Sequence)> {
    let computed = request.prompt.len() - 1;
    let mut decoding = Decoding::new(request, model, sequence, *pace);
    let mut scores = Scores::default();
    let mut started = Instant::now();
    loop {
        let step = decoding.step(model, &words.tokenizer, &mut scores)?;
        if decoding.answer().len() == 1 {
            started = Instant::now();
        }
        if matches!(step, Step::Finished(..)) {
            break;
        }
    }
    sum.time += started.elapsed();
    sum.tokens += decoding.answer().len().saturating_sub(1);
    sum.drafted.offered += decoding.drafted().offered;
    sum.drafted.accepted += decoding.drafted().accepted;
    *pace = decoding.pace();
    let answer = decoding.answer().to_vec();
    let mut sequence = decoding.into_sequence();
    sequence.truncate(computed);
    Ok((answer, sequence))
}

/// A row of the table.
fn row(what: &str, cases: usize, plain: &Sum, ahead: &Sum) -> String {
    let Drafted { offered, accepted } = ahead.drafted;
    let (plain, rate, tokens) = (plain.rate(), ahead.rate(), ahead.tokens);
    let ratio = rate / plain;
    format!(
        "| {what} | {cases} | {tokens} | {plain:.1} | {rate:.1} | {ratio:.2} | {offered} | {accepted} |"
    )
}

/// Both ways of one request, the way that goes first in turn.
fn both(
    (model, words): (&mut dyn LanguageModel, &Loaded),
    request: impl Fn(bool) -> DecodeRequest,
    number: usize,
    pace: &mut Pace,
    sums: &mut [Sum; 2],
) -> anyhow::Result<()> {
    let mut sequence = model.sequence()?;
    let prompt = request(false).prompt;
    for block in prompt[..prompt.len() - 1].chunks(256) {
        model.forward(block, &mut sequence, None)?;
    }
    let mut answers = Vec::new();
    for turn in 0..2 {
        let looks = (number + turn) % 2 == 1;
        let sum = &mut sums[usize::from(looks)];
        let (answer, back) = say((&mut *model, words), request(looks), sequence, pace, sum)?;
        answers.push(answer);
        sequence = back;
    }
    anyhow::ensure!(answers[0] == answers[1], "the two answers are not the same");
    Ok(())
}

/// The table of a model's file by an oracle, and of tandem-mini by itself.
pub fn measure(file: &Path, repository: &Path, most: usize) -> anyhow::Result<Vec<String>> {
    let edits = edits(repository, most)?;
    let mini = load(&ModelSource::embedded(), 4096, ComputeDevice::Cpu)?;
    let mut rows = Vec::new();
    let model = load(
        &ModelSource::Gguf(file.to_owned()),
        4096,
        ComputeDevice::Cpu,
    )?
    .model;
    let mut oracle = Oracle {
        model,
        truth: Vec::new(),
    };
    let mut pace = Pace::default();
    let kinds: [(&str, Told); 3] = [
        ("passages rewritten", Edit::rewritten),
        ("what is new, at its place", Edit::completed),
        ("beginnings of files", Edit::fresh),
    ];
    for (what, told) in kinds {
        let (mut sums, mut cases) = (<[Sum; 2]>::default(), 0);
        for edit in &edits {
            let mut case = told(edit, &mini.tokenizer)?;
            case.truth.truncate(ANSWER);
            if case.truth.len() < SHORTEST || case.prompt.len() + ANSWER > 3000 {
                continue;
            }
            oracle.truth = [&*case.prompt, &*case.truth].concat();
            let request = |looks: bool| DecodeRequest {
                prompt: case.prompt.clone(),
                sampling: Sampling::GREEDY,
                max_tokens: case.truth.len(),
                ends: Arc::new(HashSet::new()),
                stop: Vec::new(),
                guide: Guide::default(),
                lookup: looks.then(|| case.lookup.clone()),
            };
            both((&mut oracle, &mini), request, cases, &mut pace, &mut sums)?;
            cases += 1;
        }
        rows.push(row(what, cases, &sums[0], &sums[1]));
    }
    rows.push(by_itself(&edits)?);
    Ok(rows)
}

/// What tandem-mini says where something is new, as Tandem asks it.
fn by_itself(edits: &[Edit]) -> anyhow::Result<String> {
    let mini = load(&ModelSource::embedded(), 4096, ComputeDevice::Cpu)?;
    // Its arithmetic apart, for the same reason that a loaded model is one thing: both are borrowed.
    let mut model = load(&ModelSource::embedded(), 4096, ComputeDevice::Cpu)?.model;
    let words = &mini.tokenizer;
    let (mut pace, mut sums, mut cases) = (Pace::default(), <[Sum; 2]>::default(), 0);
    for edit in edits {
        let task = CompleteTask {
            path: None,
            language: edit.language.into(),
            prefix: format!("{}{}", edit.before, &edit.passage[0][..edit.same]).into(),
            suffix: edit.after.as_str().into(),
            snippets: Vec::new(),
            shape: CompletionShape::Auto,
        };
        let budget = Budget {
            context_tokens: mini.context_tokens,
            max_tokens: ANSWER,
        };
        let prompt = completion::render(&task, words, &mini.prompting, budget, true)?;
        let end = task.prefix.len() - prompt.begun.len();
        let mut before = words.encode(&task.prefix[..end])?;
        before.drain(..before.len().saturating_sub(DOCUMENT));
        let mut after = words.encode(&task.suffix)?;
        after.truncate(DOCUMENT / 4);
        let request = |looks: bool| DecodeRequest {
            prompt: prompt.tokens.clone(),
            sampling: Sampling::GREEDY,
            max_tokens: ANSWER,
            ends: Arc::clone(&mini.completion_ends),
            stop: prompt.stop.clone(),
            guide: Guide::new(prompt.begun, Some(InfiniGram::new(&before, &after, &[]))),
            lookup: looks.then(|| Lookup::new([&*after], &before)),
        };
        if prompt.tokens.len() < 2 {
            continue;
        }
        both(
            (model.as_mut(), &mini),
            request,
            cases,
            &mut pace,
            &mut sums,
        )?;
        cases += 1;
    }
    let what = "tandem-mini's own answers there";
    Ok(row(what, cases, &sums[0], &sums[1]))
}
