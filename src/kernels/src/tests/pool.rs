//! Every chunk is worked on once, by whatever thread, and a panic comes through.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::pool::Pool;

#[test]
fn every_chunk_is_worked_on_once() {
    for threads in [1, 2, 5] {
        let mut pool = Pool::new(threads);
        let mut locals = vec![0usize; pool.threads()];
        // Many short phases: most threads come late to most of them.
        for phase in 0..2000 {
            let mut data = vec![0u32; 1 + phase % 97];
            let chunk = 1 + phase % 7;
            pool.chunks(&mut data, chunk, &mut locals, |local, number, elements| {
                *local += elements.len();
                for (at, element) in elements.iter_mut().enumerate() {
                    *element += (number * chunk + at) as u32 + 1;
                }
            });
            assert!(
                data.iter()
                    .zip(1..)
                    .all(|(element, expected)| *element == expected)
            );
        }
        let expected: usize = (0..2000).map(|phase| 1 + phase % 97).sum();
        assert_eq!(locals.iter().sum::<usize>(), expected);
    }
}

/// A thread that does not go on in its own run keeps nobody waiting but for the chunk that it has begun.
#[test]
fn what_a_thread_is_kept_from_is_done_by_others() {
    const CHUNKS: usize = 64;
    let mut pool = Pool::new(2);
    let mut data = [0u8; CHUNKS];
    let caller = thread::current().id();
    for _ in 0..100 {
        let done = AtomicUsize::new(0);
        pool.chunks(&mut data, 1, &mut [(), ()], |(), _, elements| {
            let since = Instant::now();
            while thread::current().id() != caller && done.load(Ordering::Relaxed) < CHUNKS - 1 {
                assert!(
                    since.elapsed() < Duration::from_mins(1),
                    "nobody does the rest"
                );
                thread::yield_now();
            }
            elements[0] += 1;
            done.fetch_add(1, Ordering::Relaxed);
        });
    }
    assert_eq!(data, [100; CHUNKS]);
}

#[test]
fn a_panic_reaches_the_caller_and_leaves_the_data_alone() {
    for threads in [1, 3] {
        let mut pool = Pool::new(threads);
        let mut locals = vec![(); pool.threads()];
        let mut data = vec![0u8; 64];
        let caught = catch_unwind(AssertUnwindSafe(|| {
            pool.chunks(&mut data, 1, &mut locals, |(), number, _| {
                assert!(number != 40, "chunk 40");
            });
        }));
        assert!(caught.is_err());
        // What is left of the pool still computes.
        pool.chunks(&mut data, 1, &mut locals, |(), _, elements| {
            elements[0] += 1;
        });
        assert!(data.iter().all(|byte| *byte == 1));
    }
}
