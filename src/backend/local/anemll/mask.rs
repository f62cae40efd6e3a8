//! Causal masks: 0 where a position may look, minus infinity where it may not.
//!
//! The row of absolute position p allows every j <= p, stale slots of an earlier sequence being
//! behind p and so hidden. Rows for whole batches are made once; the row for a single token changes
//! by one element a step.

use half::f16;

/// What a mask has where a position may look.
const OPEN: f16 = f16::ZERO;
/// What it has where it may not.
const CLOSED: f16 = f16::NEG_INFINITY;
/// Elements written at once where a row changes by many.
const RUN: usize = 64;

/// The rows of positions `start..start + rows` in row-major order, `[rows, context]`.
#[must_use]
pub fn block(start: usize, rows: usize, context: usize) -> Vec<f16> {
    let mut mask = vec![CLOSED; rows * context];
    for (row, values) in mask.chunks_mut(context.max(1)).enumerate() {
        let open = (start + row + 1).min(context);
        values[..open].fill(OPEN);
    }
    mask
}

/// The one row of a single token, as it stands in its buffer.
#[derive(Debug)]
pub struct Row {
    /// Elements from the front that are open.
    open: usize,
    context: usize,
}

impl Row {
    /// A row whose elements are all 0, as a fresh buffer's are.
    #[must_use]
    pub fn zeroed(context: usize) -> Self {
        Self {
            open: context,
            context,
        }
    }

    /// Makes it the row of `position`: `write(at, values)` is called for what changes, which is one
    /// element when the position moves on by one.
    pub fn turn_to(&mut self, position: usize, mut write: impl FnMut(usize, &[f16])) {
        const OPENED: [f16; RUN] = [OPEN; RUN];
        const CLOSED_AGAIN: [f16; RUN] = [CLOSED; RUN];
        let open = (position + 1).min(self.context);
        let (mut at, end, values) = if open >= self.open {
            (self.open, open, &OPENED)
        } else {
            (open, self.open, &CLOSED_AGAIN)
        };
        while at < end {
            let count = (end - at).min(RUN);
            write(at, &values[..count]);
            at += count;
        }
        self.open = open;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(row: &[f16]) -> Vec<usize> {
        let open = row.iter().enumerate().filter(|(_, value)| **value == OPEN);
        open.map(|(at, _)| at).collect()
    }

    #[test]
    fn a_position_sees_itself_and_what_is_before_it() {
        let mask = block(4, 3, 8);
        assert_eq!(mask.len(), 24);
        assert_eq!(allowed(&mask[..8]), [0, 1, 2, 3, 4]);
        assert_eq!(allowed(&mask[16..]), [0, 1, 2, 3, 4, 5, 6]);
        assert!(mask.iter().all(|value| *value == OPEN || *value == CLOSED));
        assert_eq!(allowed(&block(7, 2, 8)[8..]).len(), 8, "past the end: all");
    }

    #[test]
    fn a_row_turns_to_any_position_and_writes_what_changes_only() {
        let mut buffer = vec![OPEN; 200];
        let mut row = Row::zeroed(200);
        for (position, changes) in [(150, 49), (151, 1), (152, 1), (3, 149), (3, 0), (199, 196)] {
            let mut changed = 0;
            row.turn_to(position, |at, values| {
                changed += values.len();
                buffer[at..at + values.len()].copy_from_slice(values);
            });
            assert_eq!(changed, changes, "position {position}");
            assert_eq!(buffer, block(position, 1, 200), "position {position}");
        }
    }
}
