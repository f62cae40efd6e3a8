//! How many threads do the arithmetic.

/// Has candle use `threads` threads, instead of one for each physical core.
///
/// candle reads the number from the environment, once, when its pools start; there is no other way
/// to tell it.
///
/// # Safety
/// No other thread of the process may run: another one might read the environment at this moment.
pub unsafe fn limit(threads: usize) {
    for variable in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
        // SAFETY: the caller promises that this is the only thread.
        unsafe { std::env::set_var(variable, threads.to_string()) };
    }
}
