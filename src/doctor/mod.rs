//! What works on this machine, seen by trying it: the checklist behind `tandem doctor`.
//!
//! A backend is not called working before it has generated. What was not tried is told as not
//! tried, and what the hardware was asked for is kept apart from what it was seen to do.

mod local;
mod others;

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use crate::backend::local::ModelSource;
use crate::backend::local::anemll::bundle::AnemllBundle;
use crate::backend::local::anemll::choice::RuntimeName;
use crate::backend::local::probe::Floor;
use crate::backend::server::Tried;
use crate::config::{BundleRuntime, ComputeDevice, ComputeEngine};
use crate::inference::BackendKind;

/// One item of the checklist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The model's files are there.
    Download,
    /// Its configuration can be read and fits itself.
    Configuration,
    /// Its components are found.
    Components,
    /// What each function takes and gives.
    TensorSpecs,
    /// It loads.
    Initialization,
    /// It generates from a simple prompt.
    Generation,
    /// Nothing fails while it does, and it says the same thing twice.
    RuntimeErrors,
    /// What it says does not depend on how its prompt is computed, and goes somewhere.
    OutputQuality,
    /// How fast it is.
    Speed,
}

/// How an item came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As it should.
    Passed,
    /// It works, and something should be looked at.
    Warned,
    /// It does not work.
    Failed,
    /// Not tried.
    Skipped,
}

/// One item, tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// Which.
    pub step: Step,
    /// How it came out.
    pub outcome: Outcome,
    /// What was seen, without a closing full stop.
    pub seen: String,
    /// What to do, for what failed or was not tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_step: Option<String>,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<f64>,
}

/// What was measured, for comparison between machines.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measured {
    /// From a prompt of [`Measured::prompt_tokens`] to the first token, in milliseconds.
    pub first_token_ms: f64,
    /// Tokens of that prompt.
    pub prompt_tokens: usize,
    /// Decoded tokens a second.
    pub tokens_per_second: f64,
    /// Whether that is enough to be asked for completions first; absent for a server, which is asked
    /// whatever it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admitted: Option<bool>,
}

/// One backend.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its name, or that of the GPU it computes on: `core-ml`, `candle`, `embedded`, `metal`, `cuda`,
    /// `daemon`, `claude`, `server`, `adapters`.
    pub backend: String,
    /// What runs it, where there is a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether its failure is a failure of this set-up: it is configured, or asked for.
    pub matters: bool,
    /// The hardware that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
    /// What was seen of the hardware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed: Option<String>,
    /// The profile by which it is asked for completions (`src/prompt/profile.rs`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<String>,
    /// Speed, where it generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// The checklist.
    pub checks: Vec<Check>,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The system, as Rust names it.
    pub os: &'static str,
    /// The processor's architecture, as Rust names it.
    pub architecture: &'static str,
    /// Processors that this program may use.
    pub processors: usize,
}

/// Everything that was tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Tandem's version.
    pub version: &'static str,
    /// The machine.
    pub machine: Machine,
    /// The worst outcome among the rows that matter.
    pub verdict: Outcome,
    /// The backends.
    pub rows: Vec<Row>,
}

/// What to try.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Examination<'a> {
    /// The configured or named model.
    pub model: Option<&'a Path>,
    /// The only runtime to try for a bundle.
    pub runtime: Option<RuntimeName>,
    /// The original weights, for the reference runtime.
    pub weights: Option<&'a Path>,
    /// What a whole model is computed on.
    pub device: ComputeDevice,
    /// What computes a GGUF file on the processor.
    pub engine: ComputeEngine,
    /// What is fast enough for completions.
    pub floor: Floor,
    /// Whether the embedded model may answer.
    pub embedded: bool,
    /// Where Claude's key comes from, if there is one.
    pub claude_key: Option<String>,
    /// Whether the mode allows Claude.
    pub claude_allowed: bool,
    /// What was seen of the user's inference server.
    pub server: ServerSeen,
    /// What was seen of the process that sessions share models through.
    pub daemon: DaemonSeen,
}

/// What was seen of the user's inference server.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum ServerSeen {
    /// None is configured.
    #[default]
    None,
    /// The mode lets nothing go there, so it was left alone.
    NotAllowed,
    /// It was asked.
    Tried(Tried),
}

/// What was seen of the process that sessions share models through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DaemonSeen {
    /// The configuration switches it off.
    #[default]
    Off,
    /// None can be reached or started: what happened, ending with the next step.
    Unusable(String),
    /// None runs, and one could.
    NoneRuns,
    /// One runs.
    Runs {
        /// Its version.
        version: String,
        /// Its process.
        process: u32,
        /// Sessions that are connected.
        sessions: usize,
    },
}

impl Examination<'_> {
    /// Tries everything. Takes as long as loading the models does.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut rows = Vec::new();
        let bundle = self.model.filter(|path| AnemllBundle::is_at(path));
        match (bundle, self.model) {
            (Some(folder), _) => {
                let asked = self.runtime;
                let tried = asked.map_or_else(|| RuntimeName::ALL.to_vec(), |name| vec![name]);
                for name in tried {
                    rows.push(local::bundle(folder, name, asked.is_some(), self));
                }
                local::compare(&mut rows);
                rows.push(others::portable_unused());
            }
            (None, Some(path)) => {
                rows.push(others::core_ml_unused());
                let source = ModelSource::at(path, BundleRuntime::Auto);
                rows.push(local::whole(
                    &source,
                    BackendKind::Candle,
                    self.device,
                    self,
                ));
            }
            (None, None) => {
                rows.push(others::core_ml_unused());
                rows.push(others::portable_unused());
            }
        }
        if self.embedded {
            let source = ModelSource::embedded();
            rows.push(local::whole(
                &source,
                BackendKind::Embedded,
                ComputeDevice::Cpu,
                self,
            ));
        }
        let whole = self.model.filter(|_| bundle.is_none());
        let gpus = [ComputeDevice::Metal, ComputeDevice::Cuda];
        for gpu in gpus {
            // The whole model's own row has told about the device that was chosen for it.
            if whole.is_none() || gpu != self.device {
                rows.push(local::gpu(whole, gpu, self));
            }
        }
        rows.push(others::daemon(&self.daemon));
        rows.push(others::claude(
            self.claude_key.as_deref(),
            self.claude_allowed,
        ));
        rows.push(others::server(&self.server));
        rows.push(others::adapters());
        Report {
            version: env!("CARGO_PKG_VERSION"),
            machine: Machine {
                os: std::env::consts::OS,
                architecture: std::env::consts::ARCH,
                processors: std::thread::available_parallelism().map_or(1, usize::from),
            },
            verdict: verdict(&rows),
            rows,
        }
    }
}

/// The worst outcome among the rows that matter. What was not tried is nothing to complain of.
fn verdict(rows: &[Row]) -> Outcome {
    let matter = rows.iter().filter(|row| row.matters);
    let outcomes: Vec<Outcome> = matter.map(Row::worst).collect();
    [Outcome::Failed, Outcome::Warned]
        .into_iter()
        .find(|worst| outcomes.contains(worst))
        .unwrap_or(Outcome::Passed)
}

impl Row {
    fn new(backend: &str, matters: bool) -> Self {
        Self {
            backend: backend.to_owned(),
            runtime: None,
            model: None,
            matters,
            requested: None,
            observed: None,
            prompts: None,
            measured: None,
            checks: Vec::new(),
        }
    }

    /// The worst of its checks; [`Outcome::Skipped`] where nothing was tried.
    #[must_use]
    pub fn worst(&self) -> Outcome {
        let has = |outcome| self.checks.iter().any(|check| check.outcome == outcome);
        [Outcome::Failed, Outcome::Warned, Outcome::Passed]
            .into_iter()
            .find(|outcome| has(*outcome))
            .unwrap_or(Outcome::Skipped)
    }

    fn passed(&mut self, step: Step, seen: impl Into<String>, since: Option<Instant>) {
        self.checks.push(Check {
            step,
            outcome: Outcome::Passed,
            seen: seen.into(),
            next_step: None,
            milliseconds: since.map(milliseconds),
        });
    }

    fn told(
        &mut self,
        step: Step,
        outcome: Outcome,
        seen: impl Into<String>,
        next: impl Into<String>,
    ) {
        self.checks.push(Check {
            step,
            outcome,
            seen: seen.into(),
            next_step: Some(next.into()),
            milliseconds: None,
        });
    }
}

fn milliseconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 1e4).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(matters: bool, outcomes: &[Outcome]) -> Row {
        let mut row = Row::new("test", matters);
        for outcome in outcomes {
            row.told(Step::Generation, *outcome, "seen", "next");
        }
        row
    }

    #[test]
    fn the_verdict_is_the_worst_of_what_matters() {
        use Outcome::{Failed, Passed, Skipped, Warned};
        let check = |rows: &[Row], expected| assert_eq!(verdict(rows), expected);
        check(&[], Passed);
        check(&[row(true, &[Passed, Skipped])], Passed);
        check(
            &[row(true, &[Passed, Warned]), row(false, &[Failed])],
            Warned,
        );
        check(
            &[row(true, &[Passed, Failed]), row(true, &[Warned])],
            Failed,
        );
        check(&[row(false, &[Failed])], Passed);
    }
}
