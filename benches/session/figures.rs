//! Durations boiled down to the figures that are printed and kept.

use std::time::Duration;

use serde::Serialize;

/// One row: what was measured, and how long it took in milliseconds.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Half of the runs took at most so long.
    pub p50_ms: f64,
    /// Of a hundred runs one took longer.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// How often it was measured.
    pub runs: usize,
    /// What p50 and p99 are held to, in milliseconds, where there is a goal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal_ms: Option<Goal>,
}

/// What a row is held to, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Goal {
    /// For [`Row::p50_ms`].
    pub p50: f64,
    /// For [`Row::p99_ms`].
    pub p99: f64,
}

impl Row {
    /// The figures of `durations`, which need no order. `None` without any.
    pub fn new(
        name: impl Into<String>,
        mut durations: Vec<Duration>,
        goal: Option<Goal>,
    ) -> Option<Self> {
        durations.sort_unstable();
        let last = durations.len().checked_sub(1)?;
        let at = |share: f64| {
            let rank = (share * last as f64).round() as usize;
            durations[rank.min(last)].as_secs_f64() * 1e3
        };
        Some(Self {
            name: name.into(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: at(1.0),
            runs: durations.len(),
            goal_ms: goal,
        })
    }

    /// Whether the goal, if there is one, is reached.
    fn verdict(&self) -> &'static str {
        match self.goal_ms {
            None => "",
            Some(goal) if self.p50_ms <= goal.p50 && self.p99_ms <= goal.p99 => "reached",
            Some(_) => "missed",
        }
    }
}

/// The rows as a table for people.
pub fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let mut lines = vec![format!(
        "{:width$}  {:>9}  {:>9}  {:>9}  {:>5}  goal p50/p99",
        "milliseconds", "p50", "p99", "max", "runs"
    )];
    lines.extend(rows.iter().map(|row| {
        let goal = row.goal_ms.map_or_else(String::new, |goal| {
            format!("{}/{} {}", goal.p50, goal.p99, row.verdict())
        });
        format!(
            "{:width$}  {:>9.3}  {:>9.3}  {:>9.3}  {:>5}  {goal}",
            row.name, row.p50_ms, row.p99_ms, row.max_ms, row.runs
        )
    }));
    lines.join("\n")
}
