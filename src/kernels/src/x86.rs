//! What the kernels of several instruction sets for x86 share: one source, compiled for each.
//!
//! Each macro is written in the names that the file of an instruction set gives to its intrinsics, so
//! that the width of a register is theirs to say: `Integers` and `Floats` hold `ROWS` rows of a tile,
//! eight or all sixteen.

/// Makes safe functions of those that need the instructions. They must be reached through what saw
/// that the instructions are there.
macro_rules! detected {
    ($features:literal: $($name:ident => $inner:path, ($($argument:ident: $kind:ty),*) $(-> $result:ty)?;)*) => {
        $(fn $name($($argument: $kind),*) $(-> $result)? {
            #[target_feature(enable = $features)]
            fn inner($($argument: $kind),*) $(-> $result)? {
                $inner($($argument),*)
            }
            // SAFETY: this function is reached through `kernels` alone, which saw the instructions.
            unsafe { inner($($argument),*) }
        })*
    };
}

/// `panels_f32`, with at most `$most` rows at a time: as many as there are registers for, and as the
/// latency of a fused multiply-add wants.
macro_rules! panels {
    ($features:literal, $($fewer:literal)|*, $most:literal) => {
        #[target_feature(enable = $features)]
        fn panels_f32(
            depth: usize,
            a: &[f32],
            a_stride: usize,
            b: &[u8],
            c: &mut [f32],
            c_stride: usize,
        ) {
            let rows = c.len().div_ceil(c_stride);
            assert!(b.len() >= depth * TILE * 4);
            assert!(rows == 0 || depth == 0 || a.len() >= (rows - 1) * a_stride + depth);
            assert!(rows == 0 || c.len() >= (rows - 1) * c_stride + TILE);
            let b = b.as_ptr();
            let mut row = 0;
            while row < rows {
                let a = a[row * a_stride..].as_ptr();
                let c = c[row * c_stride..].as_mut_ptr();
                // SAFETY: checked above for all rows.
                row += unsafe {
                    match rows - row {
                        $($fewer => rows_of::<$fewer>(depth, a, a_stride, b, c, c_stride),)*
                        _ => rows_of::<$most>(depth, a, a_stride, b, c, c_stride),
                    }
                };
            }
        }

        /// # Safety
        /// `R` rows must be there, `depth` numbers wide in `a` and 16 in `c`, and `depth` of 16 in `b`.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn rows_of<const R: usize>(
            depth: usize,
            a: *const f32,
            a_stride: usize,
            b: *const u8,
            c: *mut f32,
            c_stride: usize,
        ) -> usize {
            let mut sums = [[zeros(); TILE / ROWS]; R];
            for (row, sums) in sums.iter_mut().enumerate() {
                for (part, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: the caller promises the rows.
                    *sum = unsafe { load_floats(c.add(row * c_stride + part * ROWS)) };
                }
            }
            for k in 0..depth {
                let mut numbers = [zeros(); TILE / ROWS];
                for (part, numbers) in numbers.iter_mut().enumerate() {
                    // SAFETY: the caller promises the rows.
                    *numbers = unsafe { load_floats(b.add((k * TILE + part * ROWS) * 4).cast()) };
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: the caller promises the rows.
                    let a = every_float(unsafe { *a.add(row * a_stride + k) });
                    for (sum, number) in sums.iter_mut().zip(numbers) {
                        *sum = multiply_add(a, number, *sum);
                    }
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                for (part, sum) in sums.iter().enumerate() {
                    // SAFETY: the caller promises the rows.
                    unsafe { store_floats(c.add(row * c_stride + part * ROWS), *sum) };
                }
            }
            R
        }
    };
}

/// `panels_codes`, with at most `$most` rows at a time: as many as there are registers for.
macro_rules! panels_of_codes {
    ($features:literal, $($fewer:literal)|*, $most:literal) => {
        #[target_feature(enable = $features)]
        fn panels_codes(
            a: &[i16],
            a_stride: usize,
            b: &[Pairs],
            c: &mut [[i32; TILE]],
            c_stride: usize,
        ) {
            let rows = c.len().div_ceil(c_stride);
            assert!(rows == 0 || a.len() >= (rows - 1) * a_stride + 2 * b.len());
            assert!(rows == 0 || c.len() > (rows - 1) * c_stride);
            // SAFETY: checked above. Distances that the compiler knows take no instruction.
            unsafe {
                match a_stride {
                    64 => rows_of_codes::<64>(a, a_stride, b, c, c_stride),
                    128 => rows_of_codes::<128>(a, a_stride, b, c, c_stride),
                    _ => rows_of_codes::<0>(a, a_stride, b, c, c_stride),
                }
            }
        }

        /// # Safety
        /// Each row must be there, `2 * b.len()` codes wide in `a`, whose distances are `STRIDE`, or
        /// `a_stride` where that is 0.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn rows_of_codes<const STRIDE: usize>(
            a: &[i16],
            a_stride: usize,
            b: &[Pairs],
            c: &mut [[i32; TILE]],
            c_stride: usize,
        ) {
            let rows = c.len().div_ceil(c_stride);
            let mut row = 0;
            while row < rows {
                let a = a[row * a_stride..].as_ptr();
                let c = c[row * c_stride..].as_mut_ptr();
                // SAFETY: the caller promises the rows.
                row += unsafe {
                    match rows - row {
                        $($fewer => codes_of::<$fewer, STRIDE>(a, a_stride, b, c, c_stride),)*
                        _ => codes_of::<$most, STRIDE>(a, a_stride, b, c, c_stride),
                    }
                };
            }
        }

        /// # Safety
        /// `R` rows must be there, `2 * b.len()` codes wide in `a`, at distances as for all rows.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn codes_of<const R: usize, const STRIDE: usize>(
            a: *const i16,
            a_stride: usize,
            b: &[Pairs],
            c: *mut [i32; TILE],
            c_stride: usize,
        ) -> usize {
            let a_stride = if STRIDE > 0 { STRIDE } else { a_stride };
            let mut sums = [[every_integer(0); TILE / ROWS]; R];
            for (k, b) in b.iter().enumerate() {
                let mut pairs = [every_integer(0); TILE / ROWS];
                for (part, pairs) in pairs.iter_mut().enumerate() {
                    // SAFETY: these are sixteen pairs.
                    *pairs = unsafe { load(b.0.as_ptr().add(part * ROWS).cast()) };
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: the caller promises the rows; a pair needs no alignment to be read.
                    let a = unsafe { a.add(row * a_stride + 2 * k).cast::<i32>().read_unaligned() };
                    let a = every_integer(a);
                    for (sum, pairs) in sums.iter_mut().zip(pairs) {
                        *sum = add_pairs(*sum, pairs, a);
                    }
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                for (part, sum) in sums.iter().enumerate() {
                    // SAFETY: the caller promises the rows.
                    unsafe {
                        let to = c.add(row * c_stride).cast::<i32>().add(part * ROWS);
                        store_integers(to.cast(), *sum);
                    }
                }
            }
            R
        }
    };
}

/// `products`, by instructions that add four products of an unsigned and a signed byte to 32 bits at
/// once (VNNI). Nothing saturates: a block's products sum to less than 2^21.
macro_rules! products_of_vnni {
    ($features:literal) => {
        /// The sums of tokens are in memory: the registers hold the codes of a block, which all tokens
        /// then meet one after another.
        #[target_feature(enable = $features)]
        fn products(tile: Tile<'_>, blocks: &[Block], stride: usize, out: &mut [Lanes]) {
            // All that is read below lies within these bounds.
            let code_bytes = tile.packed.code_bytes();
            assert!(tile.codes.len() >= tile.blocks * code_bytes);
            assert!(tile.scales.len() >= tile.packed.scale_bytes(tile.blocks));
            assert!(tile.blocks == 0 || blocks.len() >= (tile.blocks - 1) * stride + out.len());
            out.fill(Lanes::ZERO);
            for block in 0..tile.blocks {
                let tokens = &blocks[block * stride..][..out.len()];
                for line in (0..code_bytes).step_by(64) {
                    let ahead = tile.codes.as_ptr();
                    let ahead = ahead.wrapping_add(block * code_bytes + AHEAD + line);
                    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                }
                for row in (0..TILE).step_by(ROWS) {
                    // SAFETY: the tile has so many blocks, as was checked above, and the rows.
                    unsafe {
                        match tile.packed {
                            Packed::Q4_0 => q4_0(&tile, block, row, tokens, out),
                            Packed::Q8_0 => q8_0(&tile, block, row, tokens, out),
                            Packed::Q4K => q4_k(&tile, block, row, tokens, out),
                            Packed::Q6K => q6_k(&tile, block, row, tokens, out),
                            Packed::F32 => {}
                        }
                    }
                }
            }
        }

        /// `start` and the dot products of groups of four columns, the first of which is group `first`
        /// of the token's block. In two sums, since each of these instructions waits for the sum that
        /// it adds to.
        #[inline]
        #[target_feature(enable = $features)]
        fn dots<const GROUPS: usize>(
            groups: &[Integers; GROUPS],
            token: &Block,
            first: usize,
            start: i32,
        ) -> Integers {
            let mut sums = [every_integer(start), every_integer(0)];
            for (group, codes) in groups.iter().enumerate() {
                let [a, b, c, d] = [0, 1, 2, 3].map(|i| token.codes[(first + group) * 4 + i]);
                let four = i32::from_ne_bytes([a, b, c, d].map(i8::cast_unsigned));
                sums[group % 2] = add_dots(sums[group % 2], *codes, every_integer(four));
            }
            add_integers(sums[0], sums[1])
        }

        /// Adds `dot` times the two scales to a token's sums of the rows from `row` on.
        #[inline]
        #[target_feature(enable = $features)]
        fn add_scaled(sums: &mut Lanes, row: usize, dot: Integers, scale: Floats, activation: f32) {
            let scale = multiply_floats(scale, every_float(activation));
            add(sums, row, to_floats(dot), scale);
        }

        /// Adds a product to a token's sums of the rows from `row` on.
        #[inline]
        #[target_feature(enable = $features)]
        fn add(sums: &mut Lanes, row: usize, a: Floats, b: Floats) {
            let sums = &mut sums.0.as_chunks_mut::<ROWS>().0[row / ROWS];
            // SAFETY: these are so many numbers as a register holds.
            unsafe {
                let sum = multiply_add(a, b, load_floats(sums.as_ptr()));
                store_floats(sums.as_mut_ptr(), sum);
            }
        }

        /// The eight groups of four columns of a block of codes of four bits.
        ///
        /// # Safety
        /// A block of 256 bytes must be there, but for the rows before.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn groups_of_four(codes: *const u8) -> [Integers; 8] {
            let mask = every_byte(15);
            let mut groups = [mask; 8];
            for pair in 0..4 {
                // SAFETY: the rows of the pair lie within the 256 bytes.
                let both = unsafe { load(codes.add(pair * 64)) };
                groups[2 * pair] = and(both, mask);
                groups[2 * pair + 1] = and(shift_right::<4>(both), mask);
            }
            groups
        }

        /// # Safety
        /// The tile must have the block, and `ROWS` rows from `row` on.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn q4_0(
            tile: &Tile<'_>,
            block: usize,
            row: usize,
            tokens: &[Block],
            sums: &mut [Lanes],
        ) {
            // SAFETY: a block has 256 bytes of codes and 32 of scales.
            let (groups, scale) = unsafe {
                (
                    groups_of_four(tile.codes.as_ptr().add(block * 256 + row * 4)),
                    scales(tile.scales.as_ptr().add(block * 32 + row * 2)),
                )
            };
            for (sums, token) in sums.iter_mut().zip(tokens) {
                let dot = dots(&groups, token, 0, token.minus_8);
                add_scaled(sums, row, dot, scale, token.scale);
            }
        }

        /// # Safety
        /// The tile must have the block, and `ROWS` rows from `row` on.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn q4_k(
            tile: &Tile<'_>,
            block: usize,
            row: usize,
            tokens: &[Block],
            sums: &mut [Lanes],
        ) {
            // SAFETY: a block has 256 bytes of codes, and eight blocks have 320 of scales: 32 with
            // scales of float16, 32 with minima, then 32 for each block.
            let (groups, scale, minimum) = unsafe {
                let base = tile.scales.as_ptr().add(block / 8 * 320);
                let own = base.add(64 + block % 8 * 32 + row);
                let base = base.add(row * 2);
                (
                    groups_of_four(tile.codes.as_ptr().add(block * 256 + row * 4)),
                    multiply_floats(scales(base), to_floats(unsigned_bytes(own))),
                    multiply_floats(scales(base.add(32)), to_floats(unsigned_bytes(own.add(16)))),
                )
            };
            for (sums, token) in sums.iter_mut().zip(tokens) {
                let dot = dots(&groups, token, 0, 0);
                add_scaled(sums, row, dot, scale, token.scale);
                add(sums, row, minimum, every_float(token.minus_sum));
            }
        }

        /// # Safety
        /// The tile must have the block, and `ROWS` rows from `row` on.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn q8_0(
            tile: &Tile<'_>,
            block: usize,
            row: usize,
            tokens: &[Block],
            sums: &mut [Lanes],
        ) {
            // A code with its sign turned is the code plus 128, and never negative.
            let sign = every_byte(i8::MIN);
            let mut groups = [sign; 8];
            for (group, codes) in groups.iter_mut().enumerate() {
                // SAFETY: a block has 512 bytes of codes.
                let signed =
                    unsafe { load(tile.codes.as_ptr().add(block * 512 + group * 64 + row * 4)) };
                *codes = xor(signed, sign);
            }
            // SAFETY: a block has 32 bytes of scales.
            let scale = unsafe { scales(tile.scales.as_ptr().add(block * 32 + row * 2)) };
            for (sums, token) in sums.iter_mut().zip(tokens) {
                let dot = dots(&groups, token, 0, 16 * token.minus_8);
                add_scaled(sums, row, dot, scale, token.scale);
            }
        }

        /// # Safety
        /// The tile must have the block, and `ROWS` rows from `row` on.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn q6_k(
            tile: &Tile<'_>,
            block: usize,
            row: usize,
            tokens: &[Block],
            sums: &mut [Lanes],
        ) {
            let low = every_byte(15);
            let high = every_byte(0x30);
            for part in 0..2 {
                // SAFETY: a block has 384 bytes of codes, and eight blocks have 288 of scales: 32 of
                // float16, then 32 for each block.
                let (upper, a, b, scale) = unsafe {
                    let codes = tile.codes.as_ptr().add(block * 384 + row * 4);
                    let base = tile.scales.as_ptr().add(block / 8 * 288);
                    let own = base.add(32 + block % 8 * 32 + part * 16 + row);
                    (
                        load(codes.add(256 + part * 64)),
                        load(codes.add(part * 128)),
                        load(codes.add(part * 128 + 64)),
                        multiply_floats(scales(base.add(row * 2)), to_floats(signed_bytes(own))),
                    )
                };
                let code = |four: Integers, bits: Integers| or(and(four, low), and(bits, high));
                let groups = [
                    code(a, shift_left::<4>(upper)),
                    code(shift_right::<4>(a), shift_left::<2>(upper)),
                    code(b, upper),
                    code(shift_right::<4>(b), shift_right::<2>(upper)),
                ];
                for (sums, token) in sums.iter_mut().zip(tokens) {
                    let dot = dots(&groups, token, part * 4, token.minus_32[part]);
                    add_scaled(sums, row, dot, scale, token.scale);
                }
            }
        }
    };
}

pub(crate) use {detected, panels, panels_of_codes, products_of_vnni};
