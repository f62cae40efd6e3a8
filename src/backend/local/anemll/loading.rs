//! From a bundle's folder to a model that generates, by whichever runtime serves.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::bundle::AnemllBundle;
use super::choice::{self, Probed, RuntimeName, System};
use super::contract::RuntimeError;
use super::model::AnemllModel;
use super::pipeline::Pipeline;
use super::plan::Layout;
use super::runtimes;
use crate::backend::local::LanguageModel;
use crate::backend::local::error::{LoadError, LoadErrorKind};
use crate::backend::local::sampler::{Sampler, Scores};
use crate::config::BundleRuntime;
use crate::inference::{ErrorKind, Sampling};

/// A bundle, and what is to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleSource {
    /// The folder with meta.yaml.
    pub folder: PathBuf,
    /// The runtime; `None` for the best that this system has.
    pub runtime: Option<RuntimeName>,
    /// For the reference runtime, the folder with the original weights; `None` for `hf` beside the
    /// bundle's folder.
    pub weights: Option<PathBuf>,
}

impl From<BundleRuntime> for Option<RuntimeName> {
    fn from(runtime: BundleRuntime) -> Self {
        match runtime {
            BundleRuntime::Auto => None,
            BundleRuntime::Coreml => Some(RuntimeName::CoreMl),
            BundleRuntime::CandleCoreml => Some(RuntimeName::CandleCoreMl),
            BundleRuntime::Reference => Some(RuntimeName::Reference),
        }
    }
}

/// Tokens that runtimes are compared by, where there is more than one. Enough for a rate, few beside
/// a load.
const COMPARED_TOKENS: usize = 16;

/// The model of `bundle` over the runtime that serves: the one that was asked for, else the faster of
/// those that load, generate and agree with each other.
///
/// # Errors
/// When the runtime that was asked for, or all there are, cannot run it; each is named.
pub fn model(bundle: &AnemllBundle, source: &BundleSource) -> Result<AnemllModel, LoadError> {
    let folder = bundle.folder.display().to_string();
    let names =
        choice::to_try(source.runtime, System::here()).map_err(|why| unavailable(&folder, &why))?;
    if names.is_empty() {
        return Err(unavailable(
            &folder,
            "Bundles for the Apple Neural Engine need macOS 15. On this system set `local.model` to \
             a GGUF model, or `local.runtime` to `reference` to check the bundle.",
        ));
    }
    let mut failures = Vec::new();
    let mut ready: Vec<Candidate> = Vec::new();
    for name in names {
        match pipeline(bundle, name, source.weights.as_deref()) {
            Ok(pipeline) => ready.push(Candidate::new(name, pipeline)),
            Err(error) => failures.push((name, error)),
        }
    }
    if ready.len() > 1 {
        compare(&mut ready);
    }
    let chosen = match ready.as_slice() {
        [] => None,
        [only] => Some(only.name),
        several => choice::serves(&several.iter().map(Candidate::probed).collect::<Vec<_>>()),
    };
    for (name, error) in &failures {
        tracing::warn!(runtime = %name, %error, "a runtime cannot run the bundle");
    }
    let serving = ready.into_iter().find(|ready| Some(ready.name) == chosen);
    if let Some(serving) = serving {
        tracing::info!(runtime = %serving.name, "the bundle is loaded");
        return Ok(serving.model);
    }
    Err(none_serves(&folder, failures))
}

/// A pipeline over one runtime.
///
/// # Errors
/// When the runtime cannot load the bundle or refuses its calls.
pub fn pipeline(
    bundle: &AnemllBundle,
    name: RuntimeName,
    weights: Option<&Path>,
) -> Result<Pipeline, LoadError> {
    let folder = bundle.folder.display().to_string();
    let runtime = runtimes::open(name, bundle, weights).map_err(|error| LoadError {
        kind: match error.kind {
            ErrorKind::Unavailable => LoadErrorKind::Unsupported,
            _ => LoadErrorKind::Malformed,
        },
        file: folder.clone(),
        fact: error.message,
        next_step: error.next_step,
    })?;
    Pipeline::new(runtime, &Layout::from(bundle)).map_err(|error| failed(&folder, &error))
}

/// A runtime that loaded, and what it was seen to do.
struct Candidate {
    name: RuntimeName,
    model: AnemllModel,
    greedy: Option<Vec<u32>>,
    tokens_per_second: f64,
}

impl Candidate {
    fn new(name: RuntimeName, pipeline: Pipeline) -> Self {
        Self {
            name,
            model: AnemllModel::new(pipeline),
            greedy: None,
            tokens_per_second: 0.0,
        }
    }

    fn probed(&self) -> Probed {
        Probed {
            name: self.name,
            healthy: self.greedy.is_some(),
            tokens_per_second: self.tokens_per_second,
        }
    }

    /// Generates a few tokens from the token 0, and measures.
    fn generate(&mut self) {
        let Ok(mut sequence) = self.model.sequence() else {
            return;
        };
        let mut scores = Scores::default();
        let mut sampler = Sampler::new(Sampling::GREEDY);
        let mut token = 0;
        let mut greedy = Vec::with_capacity(COMPARED_TOKENS);
        let started = Instant::now();
        for _ in 0..COMPARED_TOKENS {
            let done = self
                .model
                .forward(&[token], &mut sequence, Some(&mut scores));
            let Ok(next) = done.and_then(|()| sampler.choose(&mut scores, &greedy)) else {
                return;
            };
            token = next;
            greedy.push(token);
        }
        self.tokens_per_second = COMPARED_TOKENS as f64 / started.elapsed().as_secs_f64().max(1e-9);
        self.greedy = Some(greedy);
    }
}

/// Has each runtime generate the same; one that disagrees with the first healthy one is noted, and
/// is not chosen for its speed.
fn compare(ready: &mut [Candidate]) {
    let mut agreed: Option<(RuntimeName, Vec<u32>)> = None;
    for candidate in ready {
        candidate.generate();
        match (&agreed, &candidate.greedy) {
            (None, Some(greedy)) => agreed = Some((candidate.name, greedy.clone())),
            (Some((first, expected)), Some(greedy)) if greedy != expected => {
                tracing::warn!(
                    "{first} and {} generate different tokens; run `tandem doctor`",
                    candidate.name
                );
                candidate.greedy = None;
            }
            _ => {}
        }
    }
}

fn unavailable(folder: &str, next_step: &str) -> LoadError {
    LoadError {
        kind: LoadErrorKind::Unsupported,
        file: folder.to_owned(),
        fact: "nothing on this system runs it".to_owned(),
        next_step: next_step.to_owned(),
    }
}

fn failed(folder: &str, error: &RuntimeError) -> LoadError {
    LoadError {
        kind: LoadErrorKind::Malformed,
        file: folder.to_owned(),
        fact: error.to_string(),
        next_step: "Run `tandem doctor`; if it shows nothing else, download the model again."
            .to_owned(),
    }
}

fn none_serves(folder: &str, mut failures: Vec<(RuntimeName, LoadError)>) -> LoadError {
    if failures.len() == 1 {
        return failures.remove(0).1;
    }
    let told: Vec<String> = failures
        .iter()
        .map(|(name, error)| format!("{name}: {}", error.fact))
        .collect();
    LoadError {
        kind: LoadErrorKind::Malformed,
        file: folder.to_owned(),
        fact: if told.is_empty() {
            "it loads, but generates nothing".to_owned()
        } else {
            told.join("; ")
        },
        next_step: "Run `tandem doctor` to see which part fails.".to_owned(),
    }
}
