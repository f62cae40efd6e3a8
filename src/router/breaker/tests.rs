//! The breaker on a clock that the tests turn.

use proptest::prelude::*;

use super::*;

/// A clock that stands still until it is turned, with a fixed jitter.
struct TestClock {
    start: Instant,
    passed: Mutex<Duration>,
    jitter: f64,
}

impl TestClock {
    fn new(jitter: f64) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            passed: Mutex::default(),
            jitter,
        })
    }

    fn turn(&self, by: Duration) {
        *self.passed.lock().unwrap() += by;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        self.start + *self.passed.lock().unwrap()
    }

    fn jitter(&self) -> f64 {
        self.jitter
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn breaker() -> (Arc<TestClock>, Arc<Breaker>) {
    let clock = TestClock::new(0.0);
    let breaker = Breaker::new(Arc::clone(&clock) as _, Limits::default());
    (clock, breaker)
}

fn fault(breaker: &Arc<Breaker>) {
    breaker.try_pass().unwrap().faulted(None);
}

#[test]
fn it_opens_after_three_faults_in_a_row_and_lets_one_probe_through_after_the_hold() {
    let (clock, breaker) = breaker();
    fault(&breaker);
    fault(&breaker);
    breaker.try_pass().unwrap().succeeded();
    fault(&breaker);
    fault(&breaker);
    assert_eq!(breaker.state(), BreakerState::Closed);
    fault(&breaker);
    assert_eq!(breaker.state(), BreakerState::Open);
    assert!(breaker.try_pass().is_none());
    clock.turn(Duration::new(4, 999_999_999));
    assert!(breaker.try_pass().is_none());
    clock.turn(Duration::from_nanos(1));
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    let probe = breaker.try_pass().unwrap();
    assert!(breaker.try_pass().is_none());
    assert!(!breaker.would_pass());
    probe.succeeded();
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert!(breaker.try_pass().is_some());
}

#[test]
fn holds_double_up_to_the_cap_and_start_anew_after_a_success() {
    let (clock, breaker) = breaker();
    for _ in 0..3 {
        fault(&breaker);
    }
    for expected in [5, 10, 20, 40, 80, 120, 120, 120] {
        clock.turn((expected - 1) * SECOND);
        assert!(breaker.try_pass().is_none(), "{expected}");
        clock.turn(SECOND);
        fault(&breaker);
    }
    clock.turn(120 * SECOND);
    breaker.try_pass().unwrap().succeeded();
    for _ in 0..3 {
        fault(&breaker);
    }
    clock.turn(5 * SECOND);
    assert!(breaker.try_pass().is_some());
}

#[test]
fn a_cancelled_probe_frees_its_place_and_counts_as_nothing() {
    let (clock, breaker) = breaker();
    for _ in 0..3 {
        fault(&breaker);
    }
    clock.turn(5 * SECOND);
    for _ in 0..10 {
        drop(breaker.try_pass().unwrap());
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
    }
    breaker.try_pass().unwrap().succeeded();
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn it_opens_when_half_of_the_last_outcomes_are_faults() {
    let (_, breaker) = breaker();
    let mut outcomes = 0;
    while breaker.state() == BreakerState::Closed {
        breaker.try_pass().unwrap().succeeded();
        fault(&breaker);
        outcomes += 2;
        assert!(outcomes <= 10, "still closed");
    }
    assert_eq!(outcomes, Limits::default().window_least);
}

#[test]
fn a_backend_that_names_a_time_is_left_alone_for_so_long_but_not_for_ever() {
    let (clock, breaker) = breaker();
    breaker.try_pass().unwrap().faulted(Some(30 * SECOND));
    clock.turn(29 * SECOND);
    assert!(breaker.try_pass().is_none());
    clock.turn(SECOND);
    breaker
        .try_pass()
        .unwrap()
        .faulted(Some(Duration::from_hours(1_000_000)));
    clock.turn(Duration::from_hours(1));
    assert!(breaker.try_pass().is_some());
}

#[test]
fn what_began_before_it_opened_changes_nothing_when_it_ends() {
    let (clock, breaker) = breaker();
    let old = [(); 4].map(|()| breaker.try_pass().unwrap());
    for _ in 0..3 {
        fault(&breaker);
    }
    let [success, failure, late_success, late_failure] = old;
    success.succeeded();
    failure.faulted(Some(Duration::from_mins(50)));
    assert_eq!(breaker.state(), BreakerState::Open);
    clock.turn(5 * SECOND);
    let probe = breaker.try_pass().unwrap();
    late_success.succeeded();
    late_failure.faulted(None);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert!(breaker.try_pass().is_none(), "a second probe");
    drop(probe);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Begin,
    Succeed(usize),
    Fail(usize, Option<u64>),
    Cancel(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Begin),
        2 => (0..8_usize).prop_map(Step::Succeed),
        3 => (0..8_usize, proptest::option::weighted(0.2, 0..200_u64))
            .prop_map(|(index, after)| Step::Fail(index, after)),
        1 => (0..8_usize).prop_map(Step::Cancel),
        2 => (0..200_u64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    /// Whatever happens: nobody passes while it is open, one probe at most passes while it is
    /// half-open, and a backend that is well again is let in for good.
    #[test]
    fn it_never_lets_two_probes_in_and_always_recovers(steps in steps(), jitter in 0.0..1.0) {
        let clock = TestClock::new(jitter);
        let breaker = Breaker::new(Arc::clone(&clock) as _, Limits::default());
        let mut passes: Vec<(Pass, bool)> = Vec::new();
        let take = |passes: &mut Vec<(Pass, bool)>, index: usize| {
            (index < passes.len()).then(|| passes.swap_remove(index).0)
        };
        for step in steps {
            match step {
                Step::Begin => {
                    let state = breaker.state();
                    let would_pass = breaker.would_pass();
                    let pass = breaker.try_pass();
                    prop_assert_eq!(pass.is_some(), would_pass);
                    prop_assert!(state != BreakerState::Open || pass.is_none());
                    if let Some(pass) = pass {
                        let era = pass.era;
                        let probe = state == BreakerState::HalfOpen;
                        let others = passes.iter().any(|(other, _)| probe && other.era == era);
                        prop_assert!(!others, "two probes at once");
                        passes.push((pass, probe));
                    }
                }
                Step::Succeed(index) => if let Some(pass) = take(&mut passes, index) {
                    pass.succeeded();
                },
                Step::Fail(index, after) => if let Some(pass) = take(&mut passes, index) {
                    pass.faulted(after.map(Duration::from_secs));
                },
                Step::Cancel(index) => drop(take(&mut passes, index)),
                Step::Wait(seconds) => clock.turn(Duration::from_secs(seconds)),
            }
        }
        passes.clear();
        clock.turn(Limits::default().retry_after_cap);
        breaker.try_pass().unwrap().succeeded();
        prop_assert_eq!(breaker.state(), BreakerState::Closed);
    }

    /// A hold is within its bounds whatever the jitter.
    #[test]
    fn holds_are_within_their_bounds(holds in 0..100_u32, jitter in 0.0..1.0) {
        let limits = Limits::default();
        let breaker = Breaker::new(TestClock::new(jitter), limits);
        let hold = breaker.hold(holds);
        prop_assert!(hold >= limits.hold.mul_f64(0.8));
        prop_assert!(hold <= limits.hold_cap);
    }
}
