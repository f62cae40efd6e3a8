//! Packing loses nothing, products are those of float64 within what rounding activations costs, and all
//! kernels give the same bits.

use super::{CODES, Random, packed, values};
use crate::format::{BLOCK, Stored};
use crate::kernels::Kernels;
use crate::lanes::{Block, Groups, Lanes, Pairs, exponential, most_of, round};
use crate::matrix::TILE;

#[test]
fn a_packed_row_is_the_stored_one() {
    let mut random = Random(1);
    for stored in [
        Stored::F32,
        Stored::Q4_0,
        Stored::Q8_0,
        Stored::Q4K,
        Stored::Q6K,
    ] {
        for (rows, columns) in [(1, 256), (16, 512), (53, 256), (100, 768)] {
            let bytes = random.rows(stored, rows, columns, 0.1);
            let matrix = packed(stored, rows, columns, &bytes);
            let mut row = vec![0.0; columns];
            for (number, stored_row) in bytes.chunks_exact(stored.row_bytes(columns)).enumerate() {
                matrix.row(number, &mut row);
                assert_eq!(
                    row,
                    values(stored, stored_row, columns),
                    "{stored:?}, row {number}"
                );
            }
        }
    }
}

/// Numbers rounded to 8 bits.
fn block_of(numbers: &[f32]) -> Block {
    let mut block = Block::ZERO;
    let halves = numbers.as_chunks().0;
    round([&halves[0], &halves[1]], &mut block);
    block
}

/// Activations of `tokens` by block, and their own numbers by token.
fn activations(
    random: &mut Random,
    tokens: usize,
    columns: usize,
    size: f32,
) -> (Vec<Block>, Vec<Vec<f32>>) {
    let mut rows: Vec<Vec<f32>> = (0..tokens).map(|_| random.numbers(columns, size)).collect();
    for row in &mut rows {
        // A block of zeros, and one with a single large number.
        let blocks = columns / BLOCK;
        row[random.below(blocks) * BLOCK..][..BLOCK].fill(0.0);
        let outlier = random.below(columns);
        row[outlier] = 50.0 * size;
    }
    let mut blocks = Vec::new();
    for block in 0..columns / BLOCK {
        for row in &rows {
            blocks.push(block_of(&row[block * BLOCK..][..BLOCK]));
        }
    }
    (blocks, rows)
}

/// An activation is rounded to the nearest 127th of its block's largest: off by half of that at most.
/// Beyond it, only float32's own rounding of a sum of so many terms is allowed.
#[test]
fn products_are_those_of_float64_within_the_rounding_of_activations() {
    let mut random = Random(2);
    let kernels = Kernels::portable();
    for stored in CODES {
        for (columns, tokens, size, scale) in [
            (256, 1, 1.0, 0.01),
            (1024, 3, 1.0, 0.01),
            (512, 9, 1e4, 100.0),
            // Scales below the smallest normal float16, and activations near float32's end.
            (256, 2, 1e-6, 1e-6),
            (256, 2, 1e30, 1e-3),
        ] {
            let bytes = random.rows(stored, TILE, columns, scale);
            let matrix = packed(stored, TILE, columns, &bytes);
            let (blocks, rows) = activations(&mut random, tokens, columns, size);
            let mut out = vec![Lanes::ZERO; tokens];
            (kernels.product)(matrix.tile(0), &blocks, tokens, &mut out);
            for (row, stored_row) in bytes.chunks_exact(stored.row_bytes(columns)).enumerate() {
                let weights = values(stored, stored_row, columns);
                for (token, activations) in rows.iter().enumerate() {
                    let (mut exact, mut allowed) = (0.0, 0.0);
                    let both = weights.chunks(BLOCK).zip(activations.chunks(BLOCK));
                    for (weights, activations) in both {
                        let largest = activations.iter().fold(0f32, |a, b| a.max(b.abs()));
                        for (weight, activation) in weights.iter().zip(activations) {
                            let product = f64::from(*weight) * f64::from(*activation);
                            exact += product;
                            allowed +=
                                f64::from(weight.abs()) * f64::from(largest) / 127.0 * 0.5001;
                            allowed += product.abs() * 1e-5;
                        }
                    }
                    let got = f64::from(out[token].0[row]);
                    assert!(
                        (got - exact).abs() <= allowed,
                        "{stored:?}, {columns} columns: {got} and not {exact} within {allowed}"
                    );
                }
            }
        }
    }
}

#[test]
fn activations_that_are_not_finite_show_in_the_product() {
    let mut random = Random(3);
    for stored in CODES {
        let matrix = random.matrix(stored, TILE, 256, 0.1);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut row = random.numbers(256, 1.0);
            row[77] = bad;
            let blocks: Vec<Block> = row.chunks_exact(BLOCK).map(block_of).collect();
            let mut out = [Lanes::ZERO];
            (Kernels::portable().product)(matrix.tile(0), &blocks, 1, &mut out);
            assert!(
                out[0].0.iter().all(|sum| !sum.is_finite()),
                "{stored:?}, {bad}"
            );
        }
    }
}

/// The same bits, whatever the instructions: also where numbers are extreme, and scales infinite.
#[test]
fn all_kernels_give_the_same_bits() {
    let mut random = Random(4);
    let portable = Kernels::portable();
    for kernels in Kernels::present() {
        assert_eq!(kernels.check(), Ok(()));
        for _ in 0..60 {
            let stored = CODES[random.below(4)];
            let columns = (1 + random.below(4)) * 256;
            // More than are done together, too.
            let tokens = 1 + [random.below(19), random.below(70)][random.below(2)];
            let scale = [0.01, 1e-7, 60_000.0, 200_000.0][random.below(4)];
            let matrix = random.matrix(stored, 2 * TILE, columns, scale);
            let size = [1.0, 1e-35, 1e20][random.below(3)];
            let (blocks, _) = activations(&mut random, tokens, columns, size);
            let tiles = [matrix.tile(0), matrix.tile(1)];
            let mut theirs = [0; 2].map(|_| vec![Lanes::ZERO; tokens]);
            let mut ours = theirs.clone();
            for ((tile, ours), theirs) in tiles.iter().zip(&mut ours).zip(&mut theirs) {
                (kernels.product)(*tile, &blocks, tokens, ours);
                (portable.product)(*tile, &blocks, tokens, theirs);
            }
            let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
            let all_same = |ours: &[Vec<Lanes>; 2]| {
                for (ours, theirs) in ours.iter().flatten().zip(theirs.iter().flatten()) {
                    for (ours, theirs) in ours.0.iter().zip(theirs.0) {
                        let name = kernels.name;
                        assert!(
                            same(*ours, theirs),
                            "{name}, {stored:?}: {ours} and {theirs}"
                        );
                    }
                }
            };
            all_same(&ours);
            if let Some(pair) = kernels.pair {
                let mut ours = [0; 2].map(|_| vec![Lanes([7.0; 16]); tokens]);
                let [one, other] = &mut ours;
                pair(tiles, &blocks, tokens, [one, other]);
                all_same(&ours);
            }
        }
    }
}

/// As many rows as a kernel takes at once, fewer and more, however far apart.
#[test]
fn all_kernels_give_the_same_bits_of_panels() {
    let mut random = Random(6);
    let portable = Kernels::portable();
    for kernels in Kernels::present() {
        for rows in 1..=20 {
            let depth = 1 + random.below(40);
            let (a_stride, c_stride) = (depth + random.below(3), TILE + random.below(9));
            let a = random.numbers(rows * a_stride, 1.0);
            let numbers = random.numbers(depth * TILE, 2.0);
            let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
            let mut ours = random.numbers((rows - 1) * c_stride + TILE, 1.0);
            let mut theirs = ours.clone();
            for (kernels, c) in [(&kernels, &mut ours), (&portable, &mut theirs)] {
                (kernels.panel_f32)(depth, &a, a_stride, &bytes, c, c_stride);
            }
            assert_eq!(ours, theirs, "{}, {rows} rows", kernels.name);
        }
    }
}

/// The same with codes: at distances that are written into the kernels and at others, with the largest codes
/// that fit.
#[test]
fn all_kernels_give_the_same_dot_products_of_codes() {
    let mut random = Random(7);
    let portable = Kernels::portable();
    for kernels in Kernels::present() {
        for rows in 1..=20 {
            let depth = [1 + random.below(40), 32, 64][rows % 3];
            let (count, apart) = (1 + random.below(9), depth + random.below(3));
            let (a_stride, c_stride) = (2 * depth + rows % 2, count + random.below(3));
            let most = most_of(2 * depth) as i16;
            let mut code = || match random.below(4) {
                0 => most,
                1 => -most,
                _ => (random.below(2 * most as usize) as i32 - i32::from(most)) as i16,
            };
            let a: Vec<i16> = (0..rows * a_stride).map(|_| code()).collect();
            let pairs: Vec<Pairs> = (0..count * apart)
                .map(|_| Pairs(std::array::from_fn(|_| [code(), code()])))
                .collect();
            let b = Groups {
                pairs: &pairs,
                apart,
                depth,
                ahead: &pairs,
            };
            let mut ours = vec![[7; 16]; rows * c_stride];
            let mut theirs = ours.clone();
            (kernels.panel_codes)(&a, a_stride, b, &mut ours, c_stride);
            (portable.panel_codes)(&a, a_stride, b, &mut theirs, c_stride);
            let name = kernels.name;
            assert_eq!(ours, theirs, "{name}, {rows} rows, {count} groups");
        }
    }
}

/// All codes at their largest, and of one sign: the sum is the largest there can be.
#[test]
fn no_sum_of_codes_overflows() {
    for dims in [16, 24, 64, 80, 128, 256] {
        let most = most_of(dims) as i16;
        let a = vec![most; dims];
        let pairs = vec![Pairs([[-most; 2]; 16]); dims / 2];
        let b = Groups {
            pairs: &pairs,
            apart: dims / 2,
            depth: dims / 2,
            ahead: &[],
        };
        let exact = -i64::from(most) * i64::from(most) * dims as i64;
        for kernels in Kernels::present() {
            let mut dots = [[0; 16]];
            (kernels.panel_codes)(&a, dims, b, &mut dots, 1);
            assert!(dots[0].iter().all(|dot| i64::from(*dot) == exact));
        }
        let next = i64::from(most) + 1;
        assert!(
            next * next * dims as i64 > i64::from(i32::MAX),
            "{dims}: more would fit"
        );
    }
}

/// What is not finite is not finite afterwards, and the smallest numbers become nothing.
#[test]
fn codes_of_16_bits_are_the_nearest() {
    let mut random = Random(8);
    for kernels in Kernels::present() {
        for size in [1e-35, 1e-20, 1.0, 3e38] {
            for count in [1, 16, 31, 128] {
                let numbers = random.numbers(count, size);
                let mut codes = vec![9; count];
                let scale = (kernels.encode)(&numbers, 4095.0, &mut codes);
                for (number, code) in numbers.iter().zip(&codes) {
                    let off = (f64::from(*number) - f64::from(*code) * f64::from(scale)).abs();
                    assert!(off <= f64::from(scale) * 0.501 || size < 1e-30);
                    assert!(code.abs() <= 4095);
                }
                if size < 1e-30 {
                    assert!(scale == 0.0 && codes.iter().all(|code| *code == 0));
                }
            }
        }
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut numbers = random.numbers(40, 1.0);
            numbers[33] = odd;
            let mut codes = [9; 40];
            let scale = (kernels.encode)(&numbers, 4095.0, &mut codes);
            assert!(!scale.is_finite() && codes == [0; 40], "{odd}: {scale}");
        }
    }
}

#[test]
fn a_kernel_that_is_wrong_is_found_out() {
    let mut kernels = Kernels::portable();
    kernels.product = |tile, blocks, stride, out| {
        (Kernels::portable().product)(tile, blocks, stride, out);
        if let Some(last) = out.get_mut(6) {
            last.0[15] = last.0[15].next_up();
        }
    };
    assert!(kernels.check().unwrap_err().contains("product of Q4_0"));
    let mut kernels = Kernels::portable();
    kernels.pair = Some(|tiles, blocks, stride, out| {
        let [one, other] = out;
        (Kernels::portable().product)(tiles[0], blocks, stride, one);
        (Kernels::portable().product)(tiles[0], blocks, stride, other);
    });
    assert!(kernels.check().unwrap_err().contains("two tiles of Q4_0"));
    let mut kernels = Kernels::portable();
    kernels.soften = |scores, running| {
        scores[0] += 1e-3;
        (Kernels::portable().soften)(scores, running)
    };
    assert!(kernels.check().is_err());
}

#[test]
fn powers_of_e_are_within_two_units_in_the_last_place() {
    for step in -8700..=8800 {
        let x = step as f32 / 100.0;
        let (got, exact) = (f64::from(exponential(x)), f64::from(x).exp());
        assert!(
            (got - exact).abs() <= exact * 2.5e-7,
            "exp({x}): {got} and not {exact}"
        );
    }
    assert_eq!(exponential(f32::NEG_INFINITY).to_bits(), 0);
    assert_eq!(exponential(0.0).to_bits(), 1f32.to_bits());
    assert!(exponential(f32::NAN).is_nan());
}
