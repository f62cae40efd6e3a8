//! `tandem generate`: raw tokens or text in, the likeliest tokens out, from a model named by hand.
//!
//! No router, no template and no fallback stand between: what is printed is what the named runtime
//! makes of the named model.

use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::args::{GenerateArgs, Globals};
use super::edge::{self, Surroundings};
use super::exit::{Exit, Failure};
use super::{logging, model, output};
use crate::backend::local::anemll::bundle::AnemllBundle;
use crate::backend::local::anemll::choice::{RuntimeName, System, to_try};
use crate::backend::local::anemll::contract::ComponentRuntime;
use crate::backend::local::anemll::runtimes;
use crate::backend::local::anemll::trace::{TraceLog, Traced};
use crate::backend::local::greedy::{Greedy, Model, greedy, tokens_of};
use crate::backend::local::{ModelSource, threads};
use crate::config::{BundleRuntime, LocalSettings};
use crate::inference::{ErrorKind, GenerateError};

/// How often the sign of life is drawn: what looks alive without drawing attention.
const PACE: Duration = Duration::from_millis(100);

/// A model and what computes it.
struct Opened {
    model: Model,
    runtime: &'static str,
    /// The calls of its components, where they are recorded.
    log: Option<TraceLog>,
}

/// See the module.
pub fn run(
    globals: &Globals,
    surroundings: &Surroundings,
    args: &GenerateArgs,
) -> Result<Exit, Failure> {
    let layers = surroundings.layers(globals)?;
    edge::sound(&layers)?;
    let settings = layers.settings();
    // SAFETY: commands run on the main thread, and no other is started before this point.
    unsafe { threads::limit(settings.local.threads) };
    let _filter = logging::start(
        &settings.log,
        surroundings.stderr_is_terminal,
        logging::Teller::Command,
    )?;
    let Some(path) = &settings.local.model else {
        return Err(Failure::usage(
            "no model is named. Name a GGUF file, a folder with safetensors or an ANEMLL bundle \
             with --model.",
        ));
    };
    let path = model::path_of(path, surroundings, &settings.local)?;
    let life = SignOfLife::start(surroundings.stderr_is_terminal);
    life.says("loading the model");
    let mut opened = open(&path, args, &settings.local)?;
    let prompt = match &args.text {
        Some(text) => tokens_of(opened.model.tokenizer(), text)?,
        None => args.tokens.clone(),
    };
    life.says("reading the prompt");
    let told = |tokens| life.says(&format!("{tokens} tokens"));
    let said = greedy(&mut opened.model, &prompt, args.max_tokens, told);
    drop(life);
    let said = said.map_err(failure)?;
    if args.json {
        output::print_json(&in_json(&said, &prompt, &opened))?;
    } else if args.text.is_some() {
        let text = if surroundings.stdout_is_terminal {
            output::harmless(&said.text)
        } else {
            said.text
        };
        output::print_bytes(format!("{text}\n").as_bytes())?;
    } else {
        let ids: Vec<String> = said.tokens.iter().map(u32::to_string).collect();
        output::print_bytes(format!("{}\n", ids.join(",")).as_bytes())?;
    }
    Ok(Exit::Done)
}

fn open(path: &Path, args: &GenerateArgs, local: &LocalSettings) -> Result<Opened, Failure> {
    let place = path.display();
    let asked = args.runtime;
    if AnemllBundle::is_at(path) {
        let Some(asked) = asked.map_or(Some(None), |asked| asked.of_components().map(Some)) else {
            return Err(Failure::usage(format!(
                "{place} is an ANEMLL bundle, which candle cannot compute. Say --runtime reference \
                 or coreml, or name a GGUF file or a folder with safetensors."
            )));
        };
        return open_bundle(path, asked, args);
    }
    if asked.is_some_and(|asked| asked.of_components().is_some()) && path.exists() {
        return Err(Failure::usage(format!(
            "{place} is no ANEMLL bundle (it has no meta.yaml). Name a bundle's folder, or say \
             --runtime candle."
        )));
    }
    if args.trace {
        return Err(Failure::usage(
            "--trace records the calls of a bundle's components, and there are none here. Leave it \
             out.",
        ));
    }
    Ok(Opened {
        model: Model::whole(
            &ModelSource::at(path, BundleRuntime::Auto),
            local.device,
            local.engine,
        )?,
        runtime: "candle",
        log: None,
    })
}

fn open_bundle(
    path: &Path,
    asked: Option<RuntimeName>,
    args: &GenerateArgs,
) -> Result<Opened, Failure> {
    // The first of those that would serve here. Where none would, the reference runtime still tells
    // what the model gives.
    let tried = to_try(asked, System::here())
        .map_err(|message| Failure::Told(Exit::Unavailable, message))?;
    let name = tried.first().copied().unwrap_or(RuntimeName::Reference);
    let bundle =
        AnemllBundle::open(path).map_err(|error| GenerateError::from(error.into_load_error()))?;
    let mut runtime = runtimes::open(name, &bundle, args.weights.as_deref())?;
    let mut log = None;
    if args.trace {
        let (traced, calls) = Traced::new(runtime);
        runtime = Box::new(traced) as Box<dyn ComponentRuntime>;
        log = Some(calls);
    }
    Ok(Opened {
        model: Model::of_components(&bundle, runtime)?,
        runtime: name.as_str(),
        log,
    })
}

/// The model has the last word on what its tokens are, and tells it as a request's fault; here it is
/// the command line's.
fn failure(error: GenerateError) -> Failure {
    match error.kind {
        ErrorKind::InvalidRequest => Failure::usage(error.to_string()),
        _ => error.into(),
    }
}

fn in_json(said: &Greedy, prompt: &[u32], opened: &Opened) -> Value {
    let milliseconds = |duration: Duration| (duration.as_secs_f64() * 1e4).round() / 10.0;
    let stop_text = said.stop.map(|stop| {
        let bytes = opened.model.tokenizer().bytes(stop);
        String::from_utf8_lossy(bytes).into_owned()
    });
    let mut value = json!({
        "runtime": opened.runtime,
        "prompt": prompt,
        "tokens": said.tokens,
        "stop": said.stop,
        "stop_text": stop_text,
        "text": said.text,
        "first_step_top5": said.first_step,
        "milliseconds": {
            "first_token": milliseconds(said.first_token),
            "other_tokens": milliseconds(said.others),
        },
    });
    if let Some(log) = &opened.log {
        value["calls"] = json!(log.take());
    }
    value
}

/// A line on a terminal that goes away when it is dropped; nothing in a pipe.
struct SignOfLife(Option<ProgressBar>);

impl SignOfLife {
    fn start(terminal: bool) -> Self {
        Self(terminal.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::default_spinner());
            bar.enable_steady_tick(PACE);
            bar
        }))
    }

    fn says(&self, message: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(message.to_owned());
        }
    }
}

impl Drop for SignOfLife {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
