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

/// `panels_codes`, with at most `$most` rows at a time, and with so many rows so many groups: as many as there
/// are registers for.
macro_rules! panels_of_codes {
    ($features:literal, $($fewer:literal => $groups:literal),*; $most:literal => $most_groups:literal) => {
        #[target_feature(enable = $features)]
        fn panels_codes(
            a: &[i16],
            a_stride: usize,
            b: Groups<'_>,
            c: &mut [[i32; TILE]],
            c_stride: usize,
        ) {
            let rows = c.len() / c_stride;
            assert!(rows == 0 || a.len() >= (rows - 1) * a_stride + 2 * b.depth);
            assert!(b.depth <= b.apart && b.count() <= c_stride);
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
        /// Each row must be there, `2 * b.depth` codes wide in `a`, whose distances are `STRIDE`, or
        /// `a_stride` where that is 0; there must be no more groups than `c_stride`.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn rows_of_codes<const STRIDE: usize>(
            a: &[i16],
            a_stride: usize,
            b: Groups<'_>,
            c: &mut [[i32; TILE]],
            c_stride: usize,
        ) {
            let rows = c.len() / c_stride;
            let (mut row, mut b) = (0, b);
            while row < rows {
                let a = a[row * a_stride..].as_ptr();
                let c = c[row * c_stride..].as_mut_ptr();
                let times = (rows - row).div_ceil($most);
                // SAFETY: the caller promises the rows.
                row += unsafe {
                    match rows - row {
                        $($fewer => groups_of_codes::<$fewer, STRIDE, $groups>(a, a_stride, &mut b, times, c, c_stride),)*
                        _ => groups_of_codes::<$most, STRIDE, $most_groups>(a, a_stride, &mut b, times, c, c_stride),
                    }
                };
            }
        }

        /// `GROUPS` groups at a time, and one at a time of what is left. So many `times` rows will meet them.
        ///
        /// # Safety
        /// `R` rows must be there, `2 * b.depth` codes wide in `a`, at distances as for all rows, and as many
        /// sixteens in `c` as there are groups.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn groups_of_codes<const R: usize, const STRIDE: usize, const GROUPS: usize>(
            a: *const i16,
            a_stride: usize,
            b: &mut Groups<'_>,
            times: usize,
            c: *mut [i32; TILE],
            c_stride: usize,
        ) -> usize {
            // Lines of what is ahead that are asked for with each line that is read now: all at once, they
            // would wait for each other.
            let turns = times * b.count().div_ceil(GROUPS) * b.depth;
            let lines = b.ahead.len().div_ceil(turns.max(1));
            let mut rest = b.pairs;
            let mut group = 0;
            while GROUPS > 1 && rest.len() >= GROUPS * b.apart {
                // SAFETY: so many groups are left, and as the caller promises.
                unsafe {
                    let c = c.add(group);
                    codes_of::<R, STRIDE, GROUPS>(a, a_stride, rest.as_ptr(), b, lines, c, c_stride);
                }
                rest = &rest[GROUPS * b.apart..];
                group += GROUPS;
            }
            while rest.len() >= b.apart {
                // SAFETY: a group is left, and as the caller promises.
                unsafe {
                    let c = c.add(group);
                    codes_of::<R, STRIDE, 1>(a, a_stride, rest.as_ptr(), b, lines, c, c_stride);
                }
                rest = &rest[b.apart..];
                group += 1;
            }
            R
        }

        /// # Safety
        /// `R` rows must be there, `2 * b.depth` codes wide in `a`, at distances as for all rows, `GROUPS`
        /// groups at `pairs`, apart and deep as those of `b`, and `GROUPS` sixteens of each row in `c`.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn codes_of<const R: usize, const STRIDE: usize, const GROUPS: usize>(
            a: *const i16,
            a_stride: usize,
            pairs: *const Pairs,
            b: &mut Groups<'_>,
            lines: usize,
            c: *mut [i32; TILE],
            c_stride: usize,
        ) {
            let a_stride = if STRIDE > 0 { STRIDE } else { a_stride };
            let mut sums = [[[every_integer(0); TILE / ROWS]; GROUPS]; R];
            let (ahead, later) = b.ahead.split_at((lines * b.depth).min(b.ahead.len()));
            b.ahead = later;
            for k in 0..b.depth {
                for line in k * lines..(k + 1) * lines {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.as_ptr().wrapping_add(line).cast());
                }
                let mut numbers = [[every_integer(0); TILE / ROWS]; GROUPS];
                for (group, numbers) in numbers.iter_mut().enumerate() {
                    for (part, numbers) in numbers.iter_mut().enumerate() {
                        // SAFETY: the caller promises the groups, and these are sixteen pairs.
                        *numbers = unsafe {
                            let pairs = pairs.add(group * b.apart + k).cast::<i32>();
                            load(pairs.add(part * ROWS).cast())
                        };
                    }
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: the caller promises the rows; a pair needs no alignment to be read.
                    let a = unsafe { a.add(row * a_stride + 2 * k).cast::<i32>().read_unaligned() };
                    let a = every_integer(a);
                    for (sums, numbers) in sums.iter_mut().zip(numbers) {
                        for (sum, numbers) in sums.iter_mut().zip(numbers) {
                            *sum = add_pairs(*sum, numbers, a);
                        }
                    }
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                for (group, sums) in sums.iter().enumerate() {
                    for (part, sum) in sums.iter().enumerate() {
                        // SAFETY: the caller promises the rows.
                        unsafe {
                            let to = c.add(row * c_stride + group).cast::<i32>();
                            store_integers(to.add(part * ROWS).cast(), *sum);
                        }
                    }
                }
            }
        }
    };
}

/// `products`, by instructions that add four products of an unsigned and a signed byte to 32 bits at
/// once (VNNI). Nothing saturates: a block's products sum to less than 2^21.
macro_rules! products_of_vnni {
    ($features:literal) => {
        /// `N` tiles of the same sizes with the same tokens. The sums of tokens are in memory: the registers
        /// hold the codes of a block of each tile, which all tokens then meet one after another.
        #[target_feature(enable = $features)]
        fn products<const N: usize>(
            tiles: [Tile<'_>; N],
            blocks: &[Block],
            stride: usize,
            mut out: [&mut [Lanes]; N],
        ) {
            let Some(first) = tiles.first() else { return };
            let (packed, count) = (first.packed, first.blocks);
            let tokens = out.first().map_or(0, |out| out.len());
            let code_bytes = packed.code_bytes();
            // All that is read below lies within these bounds.
            for tile in &tiles {
                assert!(tile.packed == packed && tile.blocks == count);
                assert!(tile.codes.len() >= count * code_bytes);
                assert!(tile.scales.len() >= packed.scale_bytes(count));
            }
            assert!(count == 0 || blocks.len() >= (count - 1) * stride + tokens);
            for out in &mut out {
                assert!(out.len() == tokens);
                out.fill(Lanes::ZERO);
            }
            let sums = out.map(<[Lanes]>::as_mut_ptr);
            for block in 0..count {
                let tokens = &blocks[block * stride..][..tokens];
                // Tiles lie one behind the other, so that behind these come others.
                let mut ahead = block * code_bytes + AHEAD;
                if ahead >= count * code_bytes {
                    ahead += (N - 1) * count * code_bytes;
                }
                for tile in &tiles {
                    for line in (ahead..ahead + code_bytes).step_by(64) {
                        _mm_prefetch::<_MM_HINT_NTA>(tile.codes.as_ptr().wrapping_add(line).cast());
                    }
                    // The scales of the same block in the tile that comes next.
                    let scales = N * tile.scales.len() + packed.scale_bytes(block);
                    _mm_prefetch::<_MM_HINT_T0>(tile.scales.as_ptr().wrapping_add(scales).cast());
                }
                for row in (0..TILE).step_by(ROWS) {
                    // SAFETY: the tiles have so many blocks, as was checked above, and the rows; there are as
                    // many sums as tokens.
                    unsafe {
                        match packed {
                            Packed::Q4_0 => q4_0(&tiles, block, row, tokens, sums),
                            Packed::Q8_0 => q8_0(&tiles, block, row, tokens, sums),
                            Packed::Q4K => q4_k(&tiles, block, row, tokens, sums),
                            Packed::Q6K => q6_k(&tiles, block, row, tokens, sums),
                            Packed::F32 => {}
                        }
                    }
                }
            }
        }

        /// `start` and the dot products of each tile's groups of four columns, the first of which is group
        /// `first` of the token's block. In two sums, since each of these instructions waits for the sum
        /// that it adds to.
        #[inline]
        #[target_feature(enable = $features)]
        fn dots<const N: usize, const GROUPS: usize>(
            groups: &[[Integers; GROUPS]; N],
            token: &Block,
            first: usize,
            start: i32,
        ) -> [Integers; N] {
            let mut sums = [[every_integer(start), every_integer(0)]; N];
            for group in 0..GROUPS {
                let [a, b, c, d] = [0, 1, 2, 3].map(|i| token.codes[(first + group) * 4 + i]);
                let four = i32::from_ne_bytes([a, b, c, d].map(i8::cast_unsigned));
                let four = every_integer(four);
                for (sums, groups) in sums.iter_mut().zip(groups) {
                    sums[group % 2] = add_dots(sums[group % 2], groups[group], four);
                }
            }
            let mut dots = [every_integer(0); N];
            for (dots, sums) in dots.iter_mut().zip(sums) {
                *dots = add_integers(sums[0], sums[1]);
            }
            dots
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
        /// The tiles must have the block, and `ROWS` rows from `row` on; there must be sums for all tokens.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn q4_0<const N: usize>(
            tiles: &[Tile<'_>; N],
            block: usize,
            row: usize,
            tokens: &[Block],
            sums: [*mut Lanes; N],
        ) {
            let mut groups = [[every_byte(0); 8]; N];
            let mut scale = [zeros(); N];
            for (n, tile) in tiles.iter().enumerate() {
                // SAFETY: a block has 256 bytes of codes and 32 of scales.
                unsafe {
                    groups[n] = groups_of_four(tile.codes.as_ptr().add(block * 256 + row * 4));
                    scale[n] = scales(tile.scales.as_ptr().add(block * 32 + row * 2));
                }
            }
            for (at, token) in tokens.iter().enumerate() {
                let dots = dots(&groups, token, 0, token.minus_8);
                for n in 0..N {
                    // SAFETY: the caller promises the sums.
                    let sums = unsafe { &mut *sums[n].add(at) };
                    add_scaled(sums, row, dots[n], scale[n], token.scale);
                }
            }
        }

        /// # Safety
        /// The tiles must have the block, and `ROWS` rows from `row` on; there must be sums for all tokens.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn q4_k<const N: usize>(
            tiles: &[Tile<'_>; N],
            block: usize,
            row: usize,
            tokens: &[Block],
            sums: [*mut Lanes; N],
        ) {
            let mut groups = [[every_byte(0); 8]; N];
            let mut factors = [[zeros(); 2]; N];
            for (n, tile) in tiles.iter().enumerate() {
                // SAFETY: a block has 256 bytes of codes, and eight blocks have 320 of scales: 32 with
                // scales of float16, 32 with minima, then 32 for each block.
                unsafe {
                    groups[n] = groups_of_four(tile.codes.as_ptr().add(block * 256 + row * 4));
                    let base = tile.scales.as_ptr().add(block / 8 * 320);
                    let own = base.add(64 + block % 8 * 32 + row);
                    let base = base.add(row * 2);
                    let minima = to_floats(unsigned_bytes(own.add(16)));
                    factors[n] = [
                        multiply_floats(scales(base), to_floats(unsigned_bytes(own))),
                        multiply_floats(scales(base.add(32)), minima),
                    ];
                }
            }
            for (at, token) in tokens.iter().enumerate() {
                let dots = dots(&groups, token, 0, 0);
                for n in 0..N {
                    // SAFETY: the caller promises the sums.
                    let sums = unsafe { &mut *sums[n].add(at) };
                    let [scale, minimum] = factors[n];
                    add_scaled(sums, row, dots[n], scale, token.scale);
                    add(sums, row, minimum, every_float(token.minus_sum));
                }
            }
        }

        /// # Safety
        /// The tiles must have the block, and `ROWS` rows from `row` on; there must be sums for all tokens.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn q8_0<const N: usize>(
            tiles: &[Tile<'_>; N],
            block: usize,
            row: usize,
            tokens: &[Block],
            sums: [*mut Lanes; N],
        ) {
            // A code with its sign turned is the code plus 128, and never negative.
            let sign = every_byte(i8::MIN);
            let mut groups = [[sign; 8]; N];
            let mut scale = [zeros(); N];
            for (n, tile) in tiles.iter().enumerate() {
                for (group, codes) in groups[n].iter_mut().enumerate() {
                    // SAFETY: a block has 512 bytes of codes.
                    let signed = unsafe {
                        load(tile.codes.as_ptr().add(block * 512 + group * 64 + row * 4))
                    };
                    *codes = xor(signed, sign);
                }
                // SAFETY: a block has 32 bytes of scales.
                scale[n] = unsafe { scales(tile.scales.as_ptr().add(block * 32 + row * 2)) };
            }
            for (at, token) in tokens.iter().enumerate() {
                let dots = dots(&groups, token, 0, 16 * token.minus_8);
                for n in 0..N {
                    // SAFETY: the caller promises the sums.
                    let sums = unsafe { &mut *sums[n].add(at) };
                    add_scaled(sums, row, dots[n], scale[n], token.scale);
                }
            }
        }

        /// # Safety
        /// The tiles must have the block, and `ROWS` rows from `row` on; there must be sums for all tokens.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn q6_k<const N: usize>(
            tiles: &[Tile<'_>; N],
            block: usize,
            row: usize,
            tokens: &[Block],
            sums: [*mut Lanes; N],
        ) {
            let low = every_byte(15);
            let high = every_byte(0x30);
            let code = |four: Integers, bits: Integers| or(and(four, low), and(bits, high));
            for part in 0..2 {
                let mut groups = [[low; 4]; N];
                let mut scale = [zeros(); N];
                for (n, tile) in tiles.iter().enumerate() {
                    // SAFETY: a block has 384 bytes of codes, and eight blocks have 288 of scales: 32 of
                    // float16, then 32 for each block.
                    unsafe {
                        let codes = tile.codes.as_ptr().add(block * 384 + row * 4);
                        let upper = load(codes.add(256 + part * 64));
                        let (a, b) = (
                            load(codes.add(part * 128)),
                            load(codes.add(part * 128 + 64)),
                        );
                        groups[n] = [
                            code(a, shift_left::<4>(upper)),
                            code(shift_right::<4>(a), shift_left::<2>(upper)),
                            code(b, upper),
                            code(shift_right::<4>(b), shift_right::<2>(upper)),
                        ];
                        let base = tile.scales.as_ptr().add(block / 8 * 288);
                        let own = base.add(32 + block % 8 * 32 + part * 16 + row);
                        scale[n] = multiply_floats(
                            scales(base.add(row * 2)),
                            to_floats(signed_bytes(own)),
                        );
                    }
                }
                for (at, token) in tokens.iter().enumerate() {
                    let dots = dots(&groups, token, part * 4, token.minus_32[part]);
                    for n in 0..N {
                        // SAFETY: the caller promises the sums.
                        let sums = unsafe { &mut *sums[n].add(at) };
                        add_scaled(sums, row, dots[n], scale[n], token.scale);
                    }
                }
            }
        }
    };
}

pub(crate) use {detected, panels, panels_of_codes, products_of_vnni};
