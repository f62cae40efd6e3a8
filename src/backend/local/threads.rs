//! How many threads do the arithmetic.

use crate::inference::Placement;

/// Where candle is asked to run, before it does.
#[must_use]
pub fn requested() -> Placement {
    Placement {
        requested: "cpu".to_owned(),
        observed: None,
    }
}

/// Where candle runs, seen from the thread that computes.
#[must_use]
pub fn observed() -> Placement {
    by("candle", rayon::current_num_threads(), instructions())
}

/// That `threads` of the processor compute with `instructions`, by the engine of this name.
#[must_use]
pub fn by(engine: &str, threads: usize, instructions: &str) -> Placement {
    let plural = if threads == 1 { "" } else { "s" };
    let mut observed = format!("cpu: {engine}, {threads} thread{plural}");
    if !instructions.is_empty() {
        observed = format!("{observed}, {instructions}");
    }
    Placement {
        observed: Some(observed),
        ..requested()
    }
}

/// How many threads the arithmetic of a large model takes: what [`limit`] said.
#[must_use]
pub fn count() -> usize {
    candle_core::utils::get_num_threads()
}

/// The widest vector instructions of this processor that candle's products (gemm) look for.
fn instructions() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::is_x86_feature_detected!("avx512f") {
            return "avx512";
        }
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            return "avx2";
        }
    }
    if cfg!(target_arch = "aarch64") {
        return "neon";
    }
    ""
}

/// From now on the arithmetic of the calling thread stays on it. A small model's products are too
/// short to share: handing them over costs more than it gains as soon as anything else runs on the
/// machine.
pub fn stay_on_this_one() {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .use_current_thread()
        .build();
    // The thread belongs to its pool for good. It fails where the thread stays on itself already,
    // or belongs to another pool, and then everything is slower at worst.
    if let Err(error) = pool {
        tracing::debug!(%error, "the thread keeps its pool");
    }
}

/// Has candle use `threads` threads; `None` keeps its own choice, one for each physical core.
///
/// candle takes the number from the environment, there is no other way to tell it. Where it is not
/// there, candle 0.11 counts the cores anew for every matrix product, by reading /proc/cpuinfo: so
/// the number is set in any case (measured on tandem-mini: 500 tokens a second without, 2,000 with).
///
/// # Safety
/// No other thread of the process may run: another one might read the environment at this moment.
pub unsafe fn limit(threads: Option<usize>) {
    let threads = threads.unwrap_or_else(candle_core::utils::get_num_threads);
    for variable in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
        // SAFETY: the caller promises that this is the only thread.
        unsafe { std::env::set_var(variable, threads.to_string()) };
    }
}
