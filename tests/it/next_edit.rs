//! The pure half of `cargo bench --bench next_edit`: commits become steps, proposals get verdicts.

#[path = "../../benches/next_edit/measure/mod.rs"]
mod measure;

use proptest::prelude::*;

use measure::fit::{Case, WIDTH, fit};
use measure::judge::{Verdict, judge};
use measure::occurrence::{Last, next};
use measure::steps::Typed;

const OLD: &str = "a(1);\nb(1);\nc(1);\nd(1);\n";

#[test]
fn a_hunk_of_as_many_lines_is_a_step_for_each_that_differs() {
    let typed = Typed::new(OLD, "a(1);\nb(2);\nc(2);\nx\nd(1);\ny\n");
    let steps: Vec<_> = typed
        .remaining
        .iter()
        .map(|step| (step.line, step.old, step.new.concat()))
        .collect();
    let hunk = "b(2);\nc(2);\nx\n".to_owned();
    assert_eq!(steps, [(1, 2, hunk), (4, 0, "y\n".to_owned())]);
    let typed = Typed::new(OLD, "a(2);\nb(2);\nc(1);\nd(2);\n");
    let lines: Vec<_> = typed.remaining.iter().map(|step| step.line).collect();
    assert_eq!(lines, [0, 1, 3]);
}

#[test]
fn what_is_typed_is_what_differs() {
    let mut typed = Typed::new("let a = old(1);\r\nx\r\n", "let a = new(1);\r\nx\r\n");
    let mut seen = Vec::new();
    typed.step(0, |change| {
        let inserted = change.replaced.start..change.replaced.start + change.inserted;
        seen.push((
            change.before.slice(change.replaced.clone()).to_string(),
            change.after.slice(inserted).to_string(),
        ));
    });
    assert_eq!(seen, [("old".to_owned(), "new".to_owned())]);
    assert_eq!(typed.text.to_string(), "let a = new(1);\r\nx\r\n");
}

fn check(new: &str, line: usize, after: &str, expected: Verdict) {
    let before = OLD.lines().nth(line).unwrap();
    let verdict = judge(&Typed::new(OLD, new), line, before, after);
    assert_eq!(verdict, expected, "{after}");
}

#[test]
fn a_proposal_is_held_against_what_remains() {
    let new = "a(1);\nb(2);\nc(1);\nz(1, 2);\n";
    check(new, 1, "b(2);", Verdict::Exact(Some(0)));
    check(new, 1, "b(3);", Verdict::Place);
    check(new, 3, "d(1, 2);", Verdict::Part);
    check(new, 3, "d(2);", Verdict::Place);
    check(new, 0, "a(2);", Verdict::Wrong);
    // In a hunk that gets longer a line may be right, but is not all of the step.
    check(
        "a(2);\nb(2);\nx();\ny();\nz();\nc(1);\nd(1);\n",
        1,
        "b(2);",
        Verdict::Exact(None),
    );
}

#[test]
fn the_control_goes_to_the_next_occurrence() {
    let mut typed = Typed::new("f(one)\ng(two)\nh(one)\n", "f(three)\ng(two)\nh(one)\n");
    let mut last = None;
    typed.step(0, |change| last = Last::of(change));
    let found = next(last.as_ref().unwrap(), &typed.text, 0);
    assert_eq!(found, Some((2, "h(one)".to_owned(), "h(three)".to_owned())));
    let mut typed = Typed::new("f()\n", "f(x)\n");
    typed.step(0, |change| last = Last::of(change));
    assert_eq!(last, None);
}

#[test]
fn fitted_weights_tell_right_from_wrong() {
    // Right nine times of ten with the second feature, once in ten without.
    let cases: Vec<Case> = (0..2000)
        .map(|at| {
            let with = at % 2 == 0;
            let mut features = [0.0; WIDTH];
            features[0] = 1.0;
            features[1] = f32::from(u8::from(with));
            Case {
                features,
                right: with != (at % 20 < 2),
                weight: 1.0,
            }
        })
        .collect();
    let weights = fit(&cases);
    let chance = |sum: f64| 1.0 / (1.0 + (-sum).exp());
    assert!((chance(weights[0]) - 0.1).abs() < 0.01, "{weights:?}");
    assert!(
        (chance(weights[0] + weights[1]) - 0.9).abs() < 0.01,
        "{weights:?}"
    );
    assert!(weights[2..].iter().all(|weight| weight.abs() < 1e-6));
}

fn text() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec!["a\n", "b\n", "c(é)\n", "c(😀)\n", "\n", "d\r\n", "e"]);
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn all_steps_in_any_order_make_the_new_text(
        old in text(),
        new in text(),
        order in prop::collection::vec(0..100_usize, 40),
    ) {
        let mut typed = Typed::new(&old, &new);
        for at in order {
            if typed.remaining.is_empty() {
                break;
            }
            let at = at % typed.remaining.len();
            typed.step(at, |_| {});
        }
        prop_assert!(typed.remaining.is_empty());
        prop_assert_eq!(typed.text.to_string(), new);
    }
}
