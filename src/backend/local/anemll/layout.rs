//! Where a tensor's elements lie in memory: strides, padded rows, and copies that honour them.
//!
//! The rows of an IOSurface begin at multiples of some number of bytes, so a tensor in one has gaps
//! between its rows. Everything here is about slices and numbers: the memory itself, and what is
//! unsafe about it, is the runtimes'.

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Why shape and strides make no layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// One stride is needed for each dimension.
    #[error("{shape:?} has not as many dimensions as there are strides, {strides:?}")]
    Rank {
        /// The shape.
        shape: Vec<usize>,
        /// The strides.
        strides: Vec<usize>,
    },
    /// A row is longer than what it is given.
    #[error("rows of {row} elements do not fit into {stride}")]
    Row {
        /// The last dimension.
        row: usize,
        /// Elements from one row's beginning to the next one's.
        stride: usize,
    },
    /// No machine has so much memory.
    #[error("{shape:?} is larger than any memory")]
    Overflow {
        /// The shape.
        shape: Vec<usize>,
    },
}

/// Where the elements of a tensor lie. All figures are elements, not bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    shape: Vec<usize>,
    strides: Vec<usize>,
    elements: usize,
    span: usize,
    run: usize,
}

/// Elements that lie side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first one's index in row-major order.
    pub index: usize,
    /// Where the first one lies.
    pub offset: usize,
    /// How many there are.
    pub length: usize,
}

impl Layout {
    /// The layout of `shape` with these strides.
    ///
    /// # Errors
    /// [`LayoutError`] when their numbers differ or the size overflows.
    pub fn new(shape: &[usize], strides: &[usize]) -> Result<Self, LayoutError> {
        if shape.len() != strides.len() {
            return Err(LayoutError::Rank {
                shape: shape.to_vec(),
                strides: strides.to_vec(),
            });
        }
        let overflow = || LayoutError::Overflow {
            shape: shape.to_vec(),
        };
        let elements = product(shape).ok_or_else(overflow)?;
        let mut span = usize::from(elements > 0);
        if elements > 0 {
            for (&length, &stride) in shape.iter().zip(strides) {
                span = (length - 1)
                    .checked_mul(stride)
                    .and_then(|reach| reach.checked_add(span))
                    .ok_or_else(overflow)?;
            }
        }
        // Dimensions of one element never step, so their strides say nothing.
        let mut run = 1;
        for (&length, &stride) in shape.iter().zip(strides).rev() {
            if length == 1 {
                continue;
            }
            if stride != run {
                break;
            }
            run *= length;
        }
        Ok(Self {
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            elements,
            span,
            run: run.max(1),
        })
    }

    /// Elements side by side in row-major order, without gaps.
    ///
    /// # Errors
    /// [`LayoutError::Overflow`].
    pub fn packed(shape: &[usize]) -> Result<Self, LayoutError> {
        Self::padded_rows(shape, shape.last().copied().unwrap_or(1))
    }

    /// Rows, which are the last dimension, that begin `row_stride` elements after one another.
    ///
    /// # Errors
    /// [`LayoutError::Row`] when the rows are longer than that, [`LayoutError::Overflow`].
    pub fn padded_rows(shape: &[usize], row_stride: usize) -> Result<Self, LayoutError> {
        let row = shape.last().copied().unwrap_or(1);
        if row > row_stride {
            return Err(LayoutError::Row {
                row,
                stride: row_stride,
            });
        }
        let mut strides = vec![1; shape.len()];
        let mut step = row_stride;
        for at in (0..shape.len().saturating_sub(1)).rev() {
            strides[at] = step;
            step = step
                .checked_mul(shape[at])
                .ok_or_else(|| LayoutError::Overflow {
                    shape: shape.to_vec(),
                })?;
        }
        Self::new(shape, &strides)
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The strides.
    #[must_use]
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// How many elements there are.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// How much memory they take, gaps between them included: what lies after the last one does not
    /// belong to the tensor.
    #[must_use]
    pub fn span(&self) -> usize {
        self.span
    }

    /// Where the element with this row-major index lies. The index is below [`Self::elements`].
    #[must_use]
    pub fn offset(&self, index: usize) -> usize {
        let mut rest = index;
        let mut offset = 0;
        for (&length, &stride) in self.shape.iter().zip(&self.strides).rev() {
            offset += rest % length * stride;
            rest /= length;
        }
        offset
    }

    /// The elements with these row-major indices, in as few pieces as the gaps allow. Indices past
    /// the end are left out.
    pub fn runs(&self, range: Range<usize>) -> impl Iterator<Item = Run> + '_ {
        let end = range.end.min(self.elements);
        let mut index = range.start;
        std::iter::from_fn(move || {
            if index >= end {
                return None;
            }
            let run = Run {
                index,
                offset: self.offset(index),
                length: (self.run - index % self.run).min(end - index),
            };
            index += run.length;
            Some(run)
        })
    }

    /// Writes `values` from the row-major index `at` on. `memory` is at least [`Self::span`] long.
    pub fn write<T: Copy>(&self, memory: &mut [T], at: usize, values: &[T]) {
        for run in self.runs(at..at + values.len()) {
            let from = run.index - at;
            memory[run.offset..run.offset + run.length]
                .copy_from_slice(&values[from..from + run.length]);
        }
    }

    /// Reads all elements into `into`, which has as many.
    pub fn read<T: Copy>(&self, memory: &[T], into: &mut [T]) {
        for run in self.runs(0..into.len()) {
            into[run.index..run.index + run.length]
                .copy_from_slice(&memory[run.offset..run.offset + run.length]);
        }
    }

    /// Reads all elements into `into`, which has as many, and widens them.
    pub fn widen(&self, memory: &[f16], into: &mut [f32]) {
        for run in self.runs(0..into.len()) {
            memory[run.offset..run.offset + run.length]
                .convert_to_f32_slice(&mut into[run.index..run.index + run.length]);
        }
    }

    /// Copies all elements of `from`, which lie as `source` says, to where this layout says. Both
    /// have as many elements.
    pub fn copy_from<T: Copy>(&self, memory: &mut [T], source: &Self, from: &[T]) {
        for run in source.runs(0..self.elements) {
            self.write(
                memory,
                run.index,
                &from[run.offset..run.offset + run.length],
            );
        }
    }
}

/// How many elements a tensor of this shape has, unless no number can say it.
#[must_use]
pub fn product(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1_usize, |product, &length| product.checked_mul(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layout, its span, and its pieces as offset and length.
    fn check(layout: &Layout, span: usize, pieces: &[(usize, usize)]) {
        assert_eq!(layout.span(), span);
        let runs: Vec<Run> = layout.runs(0..layout.elements()).collect();
        let found: Vec<(usize, usize)> = runs.iter().map(|run| (run.offset, run.length)).collect();
        assert_eq!(found, pieces);
        // Pieces and single elements agree, and every element is in one piece.
        let mut next = 0;
        for run in runs {
            assert_eq!(run.index, next);
            for step in 0..run.length {
                assert_eq!(layout.offset(run.index + step), run.offset + step);
            }
            next += run.length;
        }
        assert_eq!(next, layout.elements());
    }

    #[test]
    fn rows_without_gaps_are_one_piece() {
        check(
            &Layout::packed(&[1, 1, 4, 512]).unwrap(),
            2048,
            &[(0, 2048)],
        );
        check(
            &Layout::padded_rows(&[1, 64, 1024], 1024).unwrap(),
            65536,
            &[(0, 65536)],
        );
        check(&Layout::packed(&[]).unwrap(), 1, &[(0, 1)]);
        check(&Layout::packed(&[3, 0]).unwrap(), 0, &[]);
    }

    #[test]
    fn rows_with_gaps_are_pieces() {
        check(
            &Layout::padded_rows(&[1, 3, 5], 32).unwrap(),
            69,
            &[(0, 5), (32, 5), (64, 5)],
        );
        check(
            &Layout::padded_rows(&[2, 2, 3], 4).unwrap(),
            15,
            &[(0, 3), (4, 3), (8, 3), (12, 3)],
        );
    }

    #[test]
    fn strides_of_single_elements_say_nothing() {
        check(
            &Layout::new(&[1, 1, 9496], &[9536, 9536, 1]).unwrap(),
            9496,
            &[(0, 9496)],
        );
        check(&Layout::new(&[1, 4, 1], &[7, 1, 99]).unwrap(), 4, &[(0, 4)]);
    }

    #[test]
    fn elements_apart_are_read_one_by_one() {
        let columns = Layout::new(&[2, 2], &[1, 10]).unwrap();
        check(&columns, 12, &[(0, 1), (10, 1), (1, 1), (11, 1)]);
    }

    #[test]
    fn what_is_no_layout_is_refused() {
        let check = |layout: Result<Layout, LayoutError>, expected: &str| {
            let error = layout.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(Layout::new(&[1, 2], &[1]), "strides");
        check(Layout::padded_rows(&[4, 8], 7), "do not fit");
        check(Layout::packed(&[usize::MAX, 2]), "larger than any memory");
        check(Layout::new(&[3], &[usize::MAX]), "larger than any memory");
        check(
            Layout::padded_rows(&[4, usize::MAX / 2, 8], 8),
            "larger than any memory",
        );
    }

    #[test]
    fn writes_and_reads_leave_the_gaps_alone() {
        let layout = Layout::padded_rows(&[1, 3, 4], 6).unwrap();
        let mut memory = vec![-1; layout.span()];
        // From the middle of the first row to the middle of the last.
        layout.write(&mut memory, 2, &[2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(
            memory,
            [-1, -1, 2, 3, -1, -1, 4, 5, 6, 7, -1, -1, 8, 9, -1, -1]
        );
        let mut all = [0; 12];
        layout.read(&memory, &mut all);
        assert_eq!(all, [-1, -1, 2, 3, 4, 5, 6, 7, 8, 9, -1, -1]);
    }

    #[test]
    fn half_precision_is_widened_in_place() {
        let layout = Layout::padded_rows(&[2, 3], 32).unwrap();
        let values = [0.5, -2.0, f32::NEG_INFINITY, 1024.0, 0.0, 65504.0];
        let mut memory = vec![f16::NAN; layout.span()];
        layout.write(&mut memory, 0, &values.map(f16::from_f32));
        let mut read = [0.0; 6];
        layout.widen(&memory, &mut read);
        // To the bit: each value is exact in half precision.
        assert_eq!(read.map(f32::to_bits), values.map(f32::to_bits));
    }

    #[test]
    fn a_copy_goes_from_one_layout_to_another() {
        let source = Layout::padded_rows(&[2, 2, 3], 5).unwrap();
        let target = Layout::padded_rows(&[1, 4, 3], 4).unwrap();
        let mut from = vec![0; source.span()];
        source.write(&mut from, 0, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let mut memory = vec![0; target.span()];
        target.copy_from(&mut memory, &source, &from);
        assert_eq!(memory, [1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 10, 11, 12]);
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(
            shape in proptest::collection::vec(1_usize..5, 1..5),
            padding in 0_usize..4,
            seed in 0_i32..1000,
        ) {
            let layout = Layout::padded_rows(&shape, shape[shape.len() - 1] + padding).unwrap();
            let values: Vec<i32> = (0..layout.elements() as i32).map(|at| at + seed).collect();
            let mut memory = vec![-1; layout.span()];
            layout.write(&mut memory, 0, &values);
            let mut read = vec![0; values.len()];
            layout.read(&memory, &mut read);
            proptest::prop_assert_eq!(&read, &values);
            let untouched = memory.iter().filter(|&&value| value == -1).count();
            proptest::prop_assert_eq!(untouched, layout.span() - layout.elements());
        }
    }
}
