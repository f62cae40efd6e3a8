//! Whether our kernels say what llama.cpp says, of the same files of a trained model.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use tandem::backend::local::ModelSource;
use tandem::backend::local::loader::{Arithmetic, Loaded, load_by};
use tandem::backend::local::sampler::Scores;
use tandem::config::ComputeDevice;
use tandem::prompt::Vocabulary;

use super::server::{Said, Server};
use super::widened;

/// Beginnings of code, a line of equal signs between them.
const BEGINNINGS: &str = include_str!("beginnings.txt");
/// A text of which both say how likely it is.
const TEXT: &str = include_str!("../../models/tandem-mini/fim.py");
/// Its first tokens.
const TEXT_TOKENS: usize = 600;
/// Tokens said behind each beginning, and how many that llama.cpp held likely are compared at each.
const ANSWER: usize = 32;
const LIKELY: usize = 10;
/// Two tokens that lie less than this apart, in logarithms of llama.cpp's probabilities, are a tie: both
/// programs round what goes into each product to 8 bits, in blocks of another size for K-types, and that
/// moves those of the likeliest tokens by 0.03 to 0.04 (root mean square). This is six times that.
const TIE: f64 = 0.25;
/// By which share the mean logarithm of the text's probability may differ.
const BOUND: f64 = 0.005;
/// Tokens whose scores are computed at once.
const BLOCK: usize = 32;

/// What llama.cpp says of a file.
struct Peer {
    beginnings: Vec<Vec<u32>>,
    /// What it says behind each, and whether it ended by itself.
    answers: Vec<(Vec<Said>, bool)>,
    text: Vec<u32>,
    /// Mean logarithm of the probability of the text's tokens, from the second on.
    mean: f64,
}

impl Peer {
    fn ask(folder: &Path, file: &Path, rows: usize) -> anyhow::Result<Self> {
        let server = Server::start(folder, file)?;
        let beginnings: Vec<Vec<u32>> = BEGINNINGS
            .split("====\n")
            .map(|text| server.encode(text.trim_end_matches('\n')))
            .collect::<anyhow::Result<_>>()?;
        let answers = beginnings
            .iter()
            .map(|prompt| server.complete(prompt, ANSWER, LIKELY))
            .collect::<anyhow::Result<_>>()?;
        let mut text = server.encode(TEXT)?;
        text.truncate(TEXT_TOKENS);
        let mut sum = 0.0;
        for at in 1..text.len() {
            sum += likelihood(&server, &text[..at], text[at], rows)?;
        }
        Ok(Self {
            mean: sum / (text.len() - 1) as f64,
            beginnings,
            answers,
            text,
        })
    }
}

/// The logarithm of the probability that llama.cpp gives `token` behind `before`.
fn likelihood(server: &Server, before: &[u32], token: u32, rows: usize) -> anyhow::Result<f64> {
    // It is rarely not among the first, and all of them are much to write and to read.
    for likely in [rows / 16, rows] {
        let (said, _) = server.complete(before, 1, likely)?;
        let said = said.first().context("llama-server told nothing")?;
        if let Some((_, there)) = said.likely.iter().find(|(other, _)| *other == token) {
            return Ok(*there);
        }
    }
    bail!("llama-server left the token {token} out")
}

/// How our arithmetic compares.
#[derive(Default)]
struct Agreement {
    tokens: usize,
    same: usize,
    /// Different choices among tokens that nearly tie, and others.
    ties: usize,
    others: usize,
    /// The most that two tokens lay apart between which the choice was another.
    widest: f64,
    /// Beginnings behind which everything is the same.
    whole: usize,
    /// Squares of the differences of logarithms of probabilities.
    squares: f64,
    compared: usize,
}

/// Compares all files, prints a table, and fails where they disagree.
pub fn measure(folder: &Path) -> anyhow::Result<()> {
    let mini = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tandem-mini/tandem-mini.gguf");
    let mut files = vec![("tandem-mini, q8_0".to_owned(), mini.clone())];
    for kind in ["f32", "q4_0", "q4_k_m", "q6_k"] {
        files.push((
            format!("the same wider, {kind}"),
            widened::file(&mini, kind)?,
        ));
    }
    println!(
        "| | tokens | the same | ties | others | widest | whole answers | off at the {LIKELY} likeliest | \
         mean log-probability | llama.cpp's | off |"
    );
    println!("|---|{}", "---|".repeat(10));
    let mut bad = Vec::new();
    for (name, file) in files {
        let mut exact = load(&file, Arithmetic::Packed)?;
        let peer = Peer::ask(folder, &file, exact.tokenizer.rows())?;
        let mut rounded = load(&file, Arithmetic::Rounded)?;
        let mut ways = vec![("in float32", &mut exact)];
        if !name.ends_with("f32") {
            ways.push(("on its codes", &mut rounded));
        }
        for (way, model) in ways {
            let agreement = compare(model, &peer)?;
            let mean = mean(model, &peer.text)?;
            let off = (mean / peer.mean - 1.0).abs();
            let Agreement {
                tokens,
                same,
                ties,
                others,
                widest,
                whole,
                ..
            } = agreement;
            let (all, theirs) = (peer.beginnings.len(), peer.mean);
            let apart = (agreement.squares / agreement.compared as f64).sqrt();
            println!(
                "| {name}, {way} | {tokens} | {same} | {ties} | {others} | {widest:.3} | {whole} of {all} | \
                 {apart:.3} | {mean:.4} | {theirs:.4} | {:.2} % |",
                off * 100.0
            );
            if others > 0 || off > BOUND {
                bad.push(format!("{name}, {way}"));
            }
        }
    }
    ensure!(
        bad.is_empty(),
        "another answer than llama.cpp's: {}",
        bad.join("; ")
    );
    Ok(())
}

fn load(file: &Path, arithmetic: Arithmetic) -> anyhow::Result<Loaded> {
    let source = ModelSource::Gguf(file.to_owned());
    Ok(load_by(&source, 1024, ComputeDevice::Cpu, arithmetic)?)
}

/// Logarithms of probabilities.
fn likelihoods(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|logit| f64::from(logit - most).exp())
        .sum();
    let all = f64::from(most) + sum.ln();
    logits.iter().map(|logit| f64::from(*logit) - all).collect()
}

/// Our choice behind each beginning and each token that llama.cpp said there.
fn compare(model: &mut Loaded, peer: &Peer) -> anyhow::Result<Agreement> {
    let texts = BEGINNINGS.split("====\n");
    for (text, tokens) in texts.zip(&peer.beginnings).chain([(TEXT, &peer.text)]) {
        let mut ours = model.tokenizer.encode(text.trim_end_matches('\n'))?;
        ours.truncate(TEXT_TOKENS);
        ensure!(ours == *tokens, "llama.cpp makes other tokens of {text:?}");
    }
    let ends: HashSet<u32> = model.completion_ends.union(&model.ends).copied().collect();
    let mut agreement = Agreement::default();
    for (beginning, (answer, ended)) in peer.beginnings.iter().zip(&peer.answers) {
        if answer.is_empty() {
            bail!("llama-server said nothing");
        }
        let mut sequence = model.model.sequence()?;
        let mut scores = Scores::default();
        let mut next = beginning.clone();
        let others = agreement.ties + agreement.others;
        for (at, said) in answer.iter().enumerate() {
            model
                .model
                .forward(&next, &mut sequence, Some(&mut scores))?;
            let ours = likelihoods(&scores.logits);
            let best = (0..ours.len()).max_by(|a, b| ours[*a].total_cmp(&ours[*b]));
            let best = best.context("there are no scores")? as u32;
            agreement.tokens += 1;
            let last = *ended && at + 1 == answer.len();
            // Which of the tokens that end a text does not matter.
            if best == said.token || last && ends.contains(&best) && ends.contains(&said.token) {
                agreement.same += 1;
            } else {
                let likely = |token| said.likely.iter().find(|(other, _)| *other == token);
                let apart = match (likely(said.token), likely(best)) {
                    (Some((_, theirs)), Some((_, ours))) => theirs - ours,
                    _ => f64::INFINITY,
                };
                agreement.widest = agreement.widest.max(apart);
                let count = if apart < TIE {
                    &mut agreement.ties
                } else {
                    &mut agreement.others
                };
                *count += 1;
            }
            for (token, likely) in &said.likely {
                agreement.squares += (ours[*token as usize] - likely).powi(2);
                agreement.compared += 1;
            }
            next = vec![said.token];
        }
        agreement.whole += usize::from(agreement.ties + agreement.others == others);
    }
    Ok(agreement)
}

/// Mean logarithm of the probability of each token behind those before it.
fn mean(model: &mut Loaded, text: &[u32]) -> anyhow::Result<f64> {
    let mut sequence = model.model.sequence()?;
    let (mut logits, mut sum, mut at) = (Vec::new(), 0.0, 1);
    for block in text[..text.len() - 1].chunks(BLOCK) {
        model.model.forward_all(block, &mut sequence, &mut logits)?;
        for row in logits.chunks(logits.len() / block.len()) {
            sum += likelihoods(row)[text[at] as usize];
            at += 1;
        }
    }
    Ok(sum / (text.len() - 1) as f64)
}
