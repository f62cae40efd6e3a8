//! Where Core ML means to run a function's operations, from its compute plan.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use block2::RcBlock;
use objc2::runtime::NSObjectProtocol;
use objc2_core_ml::{MLComputePlan, MLModelStructureProgramBlock, MLNeuralEngineComputeDevice};
use objc2_foundation::NSError;

use super::super::contract::MAIN;
use super::{model, objc};

/// Operations by the device that Core ML prefers for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    neural_engine: usize,
    others: usize,
}

/// The share of a function's operations that Core ML prefers to run on the Neural Engine. Constants
/// and whatever else runs nowhere are not counted.
///
/// The plan is made on a queue of Core ML's own; `wait` bounds how long it is waited for.
pub fn neural_engine_share(folder: &Path, function: &str, wait: Duration) -> Result<f64, String> {
    let url = objc::url(folder)?;
    let configuration = model::configuration(function);
    let name = function.to_owned();
    // One answer: the handler is called once, and nobody waits for a second.
    let (send, receive) = mpsc::sync_channel(1);
    let handler = RcBlock::new(move |plan: *mut MLComputePlan, error: *mut NSError| {
        // SAFETY: Core ML passes a plan or an error, which live as long as the handler runs.
        let (plan, error) = unsafe { (plan.as_ref(), error.as_ref()) };
        let counts = match (plan, error) {
            (Some(plan), _) => objc::guarded(|| count(plan, &name)),
            (None, Some(error)) => Err(objc::text(error)),
            (None, None) => Err("Core ML gave neither a plan nor an error".to_owned()),
        };
        // Nobody listens any more once the wait is over.
        let _ = send.try_send(counts);
    });
    // SAFETY: the arguments are valid objects, and the handler, which owns all it uses, may be called
    // on any thread: the channel and the name are Send.
    unsafe {
        MLComputePlan::loadContentsOfURL_configuration_completionHandler(
            &url,
            &configuration,
            &handler,
        );
    }
    let counts = receive
        .recv_timeout(wait)
        .map_err(|_| format!("its compute plan was not there after {} s", wait.as_secs()))??;
    let placed = counts.neural_engine + counts.others;
    if placed == 0 {
        return Err("its compute plan does not say where operations run".to_owned());
    }
    Ok(counts.neural_engine as f64 / placed as f64)
}

fn count(plan: &MLComputePlan, function: &str) -> Result<Counts, String> {
    // SAFETY: properties without side effects.
    let program = unsafe { plan.modelStructure().program() }.ok_or("it is not an ML program")?;
    let functions = unsafe { program.functions() };
    let found = functions
        .objectForKey(&objc::name(function))
        .or_else(|| functions.objectForKey(&objc::name(MAIN)))
        .ok_or_else(|| format!("its compute plan has no function {function}"))?;
    let mut counts = Counts::default();
    add(plan, &*unsafe { found.block() }, &mut counts);
    Ok(counts)
}

/// Counts a block's operations, and those of the blocks inside them: the branches of a condition.
fn add(plan: &MLComputePlan, block: &MLModelStructureProgramBlock, counts: &mut Counts) {
    // SAFETY: properties without side effects, of objects that this thread alone uses.
    for operation in unsafe { block.operations() } {
        for inner in unsafe { operation.blocks() } {
            add(plan, &inner, counts);
        }
        let Some(usage) = (unsafe { plan.computeDeviceUsageForMLProgramOperation(&operation) })
        else {
            continue;
        };
        if unsafe { usage.preferredComputeDevice() }.isKindOfClass(neural_engine()) {
            counts.neural_engine += 1;
        } else {
            counts.others += 1;
        }
    }
}

fn neural_engine() -> &'static objc2::runtime::AnyClass {
    <MLNeuralEngineComputeDevice as objc2::ClassType>::class()
}
