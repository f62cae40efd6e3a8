//! Threads for steps of milliseconds that consist of hundreds of short phases.
//!
//! A phase is a slice cut into chunks. Each thread has a run of them of its own and takes one after
//! another, since memory is read fastest on and on; then it takes what is left of the others' runs.
//! Between phases a thread spins for a moment, then sleeps. Whoever starts a phase works in it too, and
//! waits at its end only for threads that have begun a chunk: one that the system has not yet woken, or
//! has put aside for another program, holds nobody up.

use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A thread that waits spins for so long before it sleeps: longer than what lies between two phases
/// or two tokens, far less than what would be felt elsewhere.
const SPIN: Duration = Duration::from_micros(100);
/// Turns of the spin between two looks at the clock.
const TURNS: usize = 64;

/// The state's lower bits count the threads in the phase; above them are two flags and the phase's
/// number.
const RUNNING: u64 = (1 << 16) - 1;
const OPEN: u64 = 1 << 16;
const STOP: u64 = 1 << 17;
const PHASE: u64 = 1 << 18;

/// What a thread does in a phase, given its number.
type Work = dyn Fn(usize) + Sync;

/// The next chunk of a thread's run, on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Next(AtomicUsize);

struct Shared {
    state: AtomicU64,
    /// Of each thread that was asked for.
    next: Box<[Next]>,
    work: UnsafeCell<Option<*const Work>>,
    /// Threads that sleep, or are about to.
    sleeping: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
    /// What a thread panicked with.
    panicked: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `work` is written only by the pool's owner while no phase is open and no thread is in one,
// and read only by threads that entered an open phase (their entry reads the state that was stored
// after the write).
unsafe impl Sync for Shared {}
// SAFETY: the pointer is to something `Sync`, and is used as said above.
unsafe impl Send for Shared {}

/// The threads.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({})", self.threads())
    }
}

impl Pool {
    /// A pool of `threads`, the caller's included. Where the system gives fewer, it is smaller.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let threads = threads.clamp(1, 1 << 10);
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            next: (0..threads).map(|_| Next::default()).collect(),
            work: UnsafeCell::new(None),
            sleeping: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            panicked: Mutex::new(None),
        });
        let mut handles = Vec::new();
        for number in 1..threads {
            let shared = Arc::clone(&shared);
            let name = format!("tandem-compute-{number}");
            let thread = thread::Builder::new().name(name);
            match thread.spawn(move || shared.serve(number)) {
                Ok(handle) => handles.push(handle),
                Err(_) => break,
            }
        }
        Self {
            shared,
            threads: handles,
        }
    }

    /// How many threads there are, the caller's included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Has `work` done on every chunk of `chunk` elements of `data` (the last may be shorter), given
    /// the chunk's number, its elements, and the one of `locals` that belongs to the thread.
    ///
    /// # Panics
    /// When there are fewer `locals` than threads, or `work` panics.
    pub fn chunks<T: Send, L: Send>(
        &mut self,
        data: &mut [T],
        chunk: usize,
        locals: &mut [L],
        work: impl Fn(&mut L, usize, &mut [T]) + Sync,
    ) {
        assert!(locals.len() >= self.threads(), "a local for each thread");
        let chunk = chunk.max(1);
        let count = data.len().div_ceil(chunk);
        if count <= 1 || self.threads.is_empty() {
            for (number, elements) in data.chunks_mut(chunk).enumerate() {
                work(&mut locals[0], number, elements);
            }
            return;
        }
        let (length, data, locals) = (data.len(), Raw(data.as_mut_ptr()), Raw(locals.as_mut_ptr()));
        let threads = self.threads();
        let next = &self.shared.next[..threads];
        let first = |thread: usize| thread * count / threads;
        for (thread, next) in next.iter().enumerate() {
            next.0.store(first(thread), Ordering::Relaxed);
        }
        self.run(&|thread| {
            // SAFETY: there is a local for each thread, no other thread has this number, and `run`
            // ends before the borrow of `locals` does.
            let local = unsafe { &mut *locals.at(thread) };
            for whose in (thread..threads).chain(0..thread) {
                loop {
                    let number = next[whose].0.fetch_add(1, Ordering::Relaxed);
                    if number >= first(whose + 1) {
                        break;
                    }
                    let start = number * chunk;
                    // SAFETY: the chunk lies within `data`, whose borrow outlives `run`. Each number is
                    // of one run and is handed out once, so that nobody else has its elements.
                    let elements = unsafe {
                        std::slice::from_raw_parts_mut(data.at(start), chunk.min(length - start))
                    };
                    work(local, number, elements);
                }
            }
        });
    }

    /// Runs `work` on the calling thread and on all others that come in time.
    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        let work: *const (dyn Fn(usize) + Sync) = work;
        // SAFETY: only the lifetime changes. The pointer is used by threads inside this phase alone,
        // and `Closing` keeps this function from ending while there are any.
        #[expect(
            clippy::transmute_ptr_to_ptr,
            reason = "a cast cannot change the lifetime"
        )]
        let work =
            unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const Work>(work) };
        // SAFETY: no phase is open and no thread in one, since the last call waited for that, and
        // the only one that calls this has `&mut self`, so that there is no other call.
        unsafe { *shared.work.get() = Some(work) };
        let phase = (shared.state.load(Ordering::Relaxed) & !(PHASE - 1)).wrapping_add(PHASE);
        shared.state.store(phase | OPEN, Ordering::SeqCst);
        if shared.sleeping.load(Ordering::SeqCst) > 0 {
            // Whoever sleeps or is about to holds the lock until it can be woken.
            drop(shared.lock.lock().unwrap_or_else(PoisonError::into_inner));
            shared.wake.notify_all();
        }
        {
            let _closing = Closing(shared);
            // SAFETY: the reference that the pointer came from is alive.
            (unsafe { &*work })(0);
        }
        let panicked = || {
            shared
                .panicked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take()
        };
        if shared.state.load(Ordering::Relaxed) & STOP != 0
            && let Some(cause) = panicked()
        {
            resume_unwind(cause);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.fetch_or(STOP, Ordering::SeqCst);
        drop(
            self.shared
                .lock
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Closes the phase and waits for those in it, also where the caller's own part panicked.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let state = &self.0.state;
        state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut turns = 0;
        while state.load(Ordering::Acquire) & RUNNING != 0 {
            turns += 1;
            if turns > 100 * TURNS {
                thread::yield_now();
            } else {
                spin_loop();
            }
        }
    }
}

impl Shared {
    /// What a thread of the pool does all its life.
    fn serve(&self, number: usize) {
        let mut seen = 0;
        while let Some(state) = self.next_phase(seen) {
            let entered =
                self.state
                    .compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed);
            if entered.is_err() {
                continue;
            }
            seen = state & !(PHASE - 1);
            // SAFETY: this thread is in an open phase, so the work is there until it leaves.
            let work = unsafe { (*self.work.get()).map(|work| &*work) };
            if let Some(work) = work
                && let Err(cause) = catch_unwind(AssertUnwindSafe(|| work(number)))
            {
                *self.panicked.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
                self.state.fetch_or(STOP, Ordering::SeqCst);
            }
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// The state once a phase other than `seen` is open; `None` when the pool ends.
    fn next_phase(&self, seen: u64) -> Option<u64> {
        let is_new = |state: u64| state & OPEN != 0 && state & !(PHASE - 1) != seen;
        let mut spun_since = None;
        let mut turns = 0;
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state & STOP != 0 {
                return None;
            }
            if is_new(state) {
                return Some(state);
            }
            spin_loop();
            turns += 1;
            if turns % TURNS != 0 {
                continue;
            }
            let since = *spun_since.get_or_insert_with(Instant::now);
            if since.elapsed() < SPIN {
                continue;
            }
            let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.sleeping.fetch_add(1, Ordering::SeqCst);
            loop {
                let state = self.state.load(Ordering::SeqCst);
                if is_new(state) || state & STOP != 0 {
                    break;
                }
                lock = self.wake.wait(lock).unwrap_or_else(PoisonError::into_inner);
            }
            self.sleeping.fetch_sub(1, Ordering::SeqCst);
            drop(lock);
            spun_since = None;
        }
    }
}

/// A pointer that threads may share; how is said where it is used.
struct Raw<T>(*mut T);

// SAFETY: see each use.
unsafe impl<T: Send> Sync for Raw<T> {}

impl<T> Raw<T> {
    /// # Safety
    /// `index` must lie within what the pointer points to.
    unsafe fn at(&self, index: usize) -> *mut T {
        // SAFETY: as required of the caller.
        unsafe { self.0.add(index) }
    }
}
