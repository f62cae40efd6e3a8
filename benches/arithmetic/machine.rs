//! What the machine itself can do: how fast it reads memory, and how many products of bytes it adds.

use std::fmt;
use std::hint::black_box;
use std::time::Instant;

use tandem_kernels::memory::{Memory, Room};

/// More than any cache holds.
const MEMORY: usize = 512 << 20;

/// What was measured of the machine, once or at several times.
pub struct Machine {
    name: String,
    threads: usize,
    memory: Room,
    /// Thousand million bytes that all threads together read a second.
    reads: Vec<f64>,
    /// Thousand million products and sums of bytes a second: the best of each time, and by which
    /// instructions.
    products: Vec<(f64, &'static str)>,
}

impl Machine {
    /// Measures it, in a few seconds.
    pub fn measure(threads: usize) -> Self {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map_or("a processor", |name| {
                name.trim_start_matches([' ', '\t', ':'])
            });
        let mut all = Memory::of([MEMORY]);
        let mut memory = all.part(MEMORY);
        memory.fill(1);
        let mut pages = all.into_large_pages();
        while pages.step() {}
        let mut machine = Self {
            name: name.to_owned(),
            threads,
            memory,
            reads: Vec::new(),
            products: Vec::new(),
        };
        machine.measure_again();
        machine
    }

    /// The same at another time, since others may use the memory and the processor, now more, now less.
    pub fn measure_again(&mut self) {
        let (threads, memory) = (self.threads, &self.memory);
        for _ in 0..7 {
            let seconds = together(threads, |thread| {
                let share = memory.len() / threads;
                let part = &memory[thread * share..][..share];
                // Eight sums, so that none waits for another.
                let mut sums = [0u64; 8];
                for line in part.as_chunks::<64>().0 {
                    ask_ahead(line);
                    for (sum, number) in sums.iter_mut().zip(line.as_chunks().0) {
                        *sum ^= u64::from_ne_bytes(*number);
                    }
                }
                black_box(sums);
            });
            self.reads.push(MEMORY as f64 / seconds / 1e9);
        }
        self.products.extend(byte_products(threads));
    }

    /// Of the processor.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Thousand million bytes that all threads together read a second: the median.
    pub fn read(&self) -> f64 {
        super::median(self.reads.clone()).unwrap_or(0.0)
    }

    /// Thousand million products and sums of bytes a second, the median of the times, and by which
    /// instructions.
    pub fn products(&self) -> Option<(f64, &'static str)> {
        let (_, by) = self.products.first()?;
        let rates = self.products.iter().map(|(rate, _)| *rate);
        Some((super::median(rates.collect())?, by))
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, threads, .. } = self;
        let (read, best) = (self.read(), self.reads.iter().copied().fold(0.0, f64::max));
        write!(
            f,
            "{name}, {threads} threads: reads {read:.1} GB/s (median; best {best:.1})"
        )?;
        if let Some((rate, by)) = self.products() {
            write!(f, ", {rate:.0} GOP/s of 8-bit products by {by}")?;
        }
        Ok(())
    }
}

/// Bytes of the process's memory, as the system counts them under this name.
pub fn own_memory(name: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    let kilobytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024.0)
}

/// Asks for what lies as far behind as our kernels ask for weights: a processor's own prefetching stops at each
/// page.
fn ask_ahead(line: &[u8; 64]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_NTA, _mm_prefetch};
        // SAFETY: every such processor has the instruction, which reads nothing where there is nothing.
        unsafe { _mm_prefetch::<_MM_HINT_NTA>(line.as_ptr().wrapping_add(6144).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Seconds until all threads have done `work`.
fn together(threads: usize, work: impl Fn(usize) + Sync) -> f64 {
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 1..threads {
            let work = &work;
            scope.spawn(move || work(thread));
        }
        work(0);
    });
    started.elapsed().as_secs_f64()
}

/// The most products and sums of bytes a second, in thousands of millions, two for each product, and the
/// instructions that give them.
#[cfg(target_arch = "x86_64")]
fn byte_products(threads: usize) -> Option<(f64, &'static str)> {
    use std::arch::x86_64::{
        _mm256_add_epi16, _mm256_dpbusd_avx_epi32, _mm256_maddubs_epi16, _mm256_set1_epi8,
        _mm256_setzero_si256, _mm512_dpbusd_epi32, _mm512_set1_epi8, _mm512_setzero_si512,
    };

    const TURNS: u64 = 4_000_000;
    const SUMS: usize = 8;

    #[target_feature(enable = "avx2")]
    fn avx2() {
        let (a, b) = (black_box(_mm256_set1_epi8(3)), _mm256_set1_epi8(5));
        let mut sums = [_mm256_setzero_si256(); SUMS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(a, _mm256_add_epi16(*sum, b)));
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,avxvnni")]
    fn vnni() {
        let (a, b) = (
            black_box(_mm256_set1_epi8(3)),
            black_box(_mm256_set1_epi8(5)),
        );
        let mut sums = [_mm256_setzero_si256(); SUMS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn wide_vnni() {
        let (a, b) = (
            black_box(_mm512_set1_epi8(3)),
            black_box(_mm512_set1_epi8(5)),
        );
        let mut sums = [_mm512_setzero_si512(); SUMS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }

    let rate = |bytes: usize, work: &(dyn Fn() + Sync)| {
        let best = (0..5).map(|_| together(threads, |_| work()));
        let seconds = best.fold(f64::MAX, f64::min);
        (threads * SUMS * 2 * bytes) as f64 * TURNS as f64 / seconds / 1e9
    };
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        // SAFETY: the instructions are there, as was just seen.
        Some((rate(64, &|| unsafe { wide_vnni() }), "AVX-512 VNNI"))
    } else if is_x86_feature_detected!("avxvnni") {
        // SAFETY: the instructions are there, as was just seen.
        Some((rate(32, &|| unsafe { vnni() }), "AVX-VNNI"))
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: the instructions are there, as was just seen.
        Some((rate(32, &|| unsafe { avx2() }), "AVX2"))
    } else {
        None
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn byte_products(_: usize) -> Option<(f64, &'static str)> {
    None
}
