//! Every kernel of every instruction set against the scalar one, bit for bit.
//!
//! Words that pass between two kernels in a form of their own are compared after the second.

use proptest::prelude::*;

use super::*;
use crate::buffer::Buffer;
use crate::galois::{GaloisElement, Permutation};
use crate::modulus::ntt_primes_near;
use crate::ntt::is_roomy;

/// A generator of test words (SplitMix64), which likes the ends of ranges.
pub(super) struct Words(pub(super) u64);

impl Words {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        match self.next() % 16 {
            0 => 0,
            1 | 2 => bound - 1,
            3 => bound / 2,
            4 => bound / 2 - 1,
            _ => self.next() % bound,
        }
    }

    pub(super) fn many(&mut self, n: usize, bound: u64) -> Vec<u64> {
        // A quarter of all slices is constant at the upper end.
        let largest = self.next().is_multiple_of(4);
        (0..n)
            .map(|_| {
                if largest {
                    bound - 1
                } else {
                    self.below(bound)
                }
            })
            .collect()
    }
}

/// One of the largest primes of a size, for which degree `2^log_n` has a transform.
pub(super) fn prime(bits: u32, log_n: u32) -> Modulus {
    // There are such primes from here on.
    let bits = bits.max(log_n + 10);
    let below = 2f64.powi(bits as i32) - 2f64.powi(log_n as i32 + 6);
    Modulus::new(ntt_primes_near(below, log_n, &[], 1).unwrap()[0]).unwrap()
}

fn table(bits: u32, log_n: u32) -> NttTable {
    NttTable::new(&prime(bits, log_n), log_n)
}

/// Runs `f` on each instruction set and compares what it gives with what scalar code gives.
pub(super) fn agree(f: impl Fn(Kernels) -> Vec<Vec<u64>>) -> Vec<Vec<u64>> {
    let mut expected = None;
    for isa in Isa::available() {
        let result = f(Kernels::new(isa).unwrap());
        let expected = expected.get_or_insert_with(|| result.clone());
        for (number, (a, b)) in expected.iter().zip(&result).enumerate() {
            if let Some(at) = (0..a.len()).find(|&i| a[i] != b[i]) {
                panic!(
                    "{isa:?}, result {number}, word {at}: {} instead of {}",
                    b[at], a[at]
                );
            }
        }
    }
    expected.unwrap_or_default()
}

/// Key rows packed, from eight words of each row in turn, and words behind them that no kernel may mix
/// in; every instruction set packs them alike.
pub(super) fn packed(m: &Modulus, words: &[u64], rows: usize) -> Vec<u64> {
    let n = words.len() / rows;
    let row = |r: usize| -> Vec<u64> {
        let columns = words.chunks(8 * rows);
        columns.flat_map(|c| c[8 * r..8 * r + 8].to_vec()).collect()
    };
    let mut out = agree(|k| {
        let mut out = vec![u64::MAX; packed_words(m, rows, n) + PACKED_PAD];
        for r in 0..rows {
            k.pack_row(m, &mut out, &row(r), m.shoup(1), (r, rows));
        }
        vec![out]
    });
    let out = out.remove(0);
    for (i, &word) in words.iter().enumerate() {
        let (column, row) = (i / (8 * rows) * 8 + i % 8, i / 8 % rows);
        assert_eq!(packed::packed_word(m, &out, (row, rows), column), word);
    }
    out
}

/// The factor of a row, of primes of each width.
#[test]
fn rows_are_multiplied_when_they_are_packed() {
    for bits in [30, 40, 46, 48, 50] {
        let m = prime(bits, 8);
        let mut w = Words(bits.into());
        let (q, x) = (m.value(), w.many(1040, m.value()));
        for c in [0, 1, q - 1, m.mont_one().w, w.below(q)] {
            let mut out = agree(|k| {
                let mut out = vec![u64::MAX; packed_words(&m, 3, 1040) + PACKED_PAD];
                k.pack_row(&m, &mut out, &x, m.shoup(c), (1, 3));
                vec![out]
            });
            let out = out.remove(0);
            for (j, &x) in x.iter().enumerate() {
                assert_eq!(packed::packed_word(&m, &out, (1, 3), j), m.mul(x, c));
                // What lies around it stays.
                for row in [0, 2] {
                    let width = packed::packed_width(&m);
                    let other = packed::packed_word(&m, &out, (row, 3), j);
                    assert_eq!(other, u64::MAX >> (64 - width));
                }
            }
        }
    }
}

/// A single packed row, filled up to whole eights of columns.
pub(super) fn packed_row(m: &Modulus, words: &[u64]) -> Vec<u64> {
    let mut whole = words.to_vec();
    whole.resize(words.len().next_multiple_of(8), 0);
    packed(m, &whole, 1)
}

/// A whole inverse transform as the engine does it: low stages, then tiles of columns.
fn inverse(k: Kernels, t: &NttTable, x: &[u64], c: u64) -> Vec<u64> {
    let scale = t.scaled(c);
    let layouts = [Layout::dense(x.len()), Layout::apart(x.len())];
    let [low, apart] = layouts.map(|layout| {
        let mut low = vec![0; layout.words()];
        let blocks = low.chunks_mut(layout.pitch).zip(x.chunks(layout.width));
        for (b, (low, x)) in blocks.enumerate() {
            k.inverse_low(t, &mut low[..layout.width], x, b, &scale);
        }
        low
    });
    let width = layouts[0].width;
    let columns = tile_columns(x.len());
    let mut out = vec![0; x.len()];
    for start in (0..width).step_by(columns) {
        let rows = (0..x.len()).step_by(width);
        let mut tile = vec![0; x.len() / width * columns];
        let from = Columns {
            x: &low,
            range: start..start + columns,
            soon: &[],
            past: false,
        };
        k.inverse_top(t, &mut tile, &from, &scale);
        let mut other = Buffer::dirty(tile.len());
        let from = Columns {
            x: &apart,
            past: true,
            ..from
        };
        k.inverse_top(t, &mut other, &from, &scale);
        order_past();
        assert_eq!(
            tile,
            other[..],
            "{:?}: rows apart, past the caches",
            k.isa()
        );
        for (r, row) in rows.zip(tile.chunks(columns)) {
            out[r + start..r + start + columns].copy_from_slice(row);
        }
    }
    let mut whole = vec![0; x.len()];
    k.inverse(t, &mut whole, Some(x), &scale, &low);
    assert_eq!(out, whole, "{:?}: by tiles and at once", k.isa());
    let mut whole = x.to_vec();
    k.inverse(t, &mut whole, None, &scale, &[]);
    assert_eq!(out, whole, "{:?}: in place", k.isa());
    out
}

/// How many q the words between `inverse_low` and `inverse_top` stay below, and whether they are signed
/// integers in doubles.
fn lazy_range(isa: Isa, bits: u32) -> (u64, bool) {
    match (isa, bits) {
        (Isa::Avx2, ..=48) => (2, true),
        (Isa::Avx2, _) => (1, true),
        (Isa::Avx512Ifma, ..=46) => (8, false),
        _ => (2, false),
    }
}

/// The last stages of the inverse transform on words at the ends of their range, in the orders of signs
/// that make sums and differences largest, modulo the smallest and the largest primes of each size.
#[test]
fn the_ends_of_the_inverse() {
    for (log_n, bits) in [13u32, 14, 15, 16, 17]
        .into_iter()
        .flat_map(|n| (40..=50).map(move |b| (n, b)))
    {
        let smallest = 2f64.powi(bits as i32 - 1) + 2f64.powi(log_n as i32 + 6);
        let smallest = ntt_primes_near(smallest, log_n, &[], 1).unwrap()[0];
        for m in [prime(bits, log_n), Modulus::new(smallest).unwrap()] {
            let t = NttTable::new(&m, log_n);
            let scale = t.scaled(m.value() - 1);
            for isa in Isa::available() {
                ends_of_the_inverse(&t, isa, &scale);
            }
        }
    }
}

/// One column per order of signs: that many are more than the bits of a row's number.
fn ends_of_the_inverse(t: &NttTable, isa: Isa, scale: &InverseScale) {
    let (q, n) = (t.modulus.value(), 1usize << t.log_n);
    let (most, signed) = lazy_range(isa, t.modulus.bits());
    let columns = tile_columns(n);
    let width = 1 << LOW_LOG;
    // Word and what it stands for, below q.
    let word = |r: usize, j: usize| -> (u64, u64) {
        let high = match j % 4 {
            // All alike, by the parity of some bits of the row, and by chance.
            0 => j.is_multiple_of(8),
            1 | 2 => (r & (j / 4)).count_ones() % 2 == j as u32 % 2,
            _ => Words((r * columns + j) as u64).next().is_multiple_of(2),
        };
        if signed {
            let x = (most * q - 1) as f64;
            if high {
                (x.to_bits(), q - 1)
            } else {
                ((-x).to_bits(), 1)
            }
        } else if high {
            (most * q - 1, q - 1)
        } else {
            (0, 0)
        }
    };
    let (mut lazy, mut plain) = (vec![0; n], vec![0; n]);
    for (r, j) in (0..n / width).flat_map(|r| (0..columns).map(move |j| (r, j))) {
        (lazy[r * width + j], plain[r * width + j]) = word(r, j);
    }
    let tile = |isa, x: &[u64]| {
        let mut tile = vec![0; n / width * columns];
        let from = Columns {
            x,
            range: 0..columns,
            soon: &[],
            past: false,
        };
        Kernels::new(isa)
            .unwrap()
            .inverse_top(t, &mut tile, &from, scale);
        tile
    };
    let (bits, log_n) = (t.modulus.bits(), t.log_n);
    assert_eq!(
        tile(isa, &lazy),
        tile(Isa::Scalar, &plain),
        "{isa:?}, {bits} bits, 2^{log_n}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn elementwise(
        bits in prop_oneof![20u32..=50, 49u32..=50],
        n in prop_oneof![0usize..80, (0usize..10).prop_map(|blocks| 8 * blocks)],
        seed: u64,
    ) {
        let m = prime(bits, 8);
        let q = m.value();
        let mut w = Words(seed);
        let (out, x, y) = (w.many(n, q), w.many(n, q), w.many(n, q));
        let row = packed_row(&m, &y);
        let row = Packed { words: &row };
        let c = w.below(q);
        let shoup = m.shoup(c);
        agree(|k| {
            let on = |f: &dyn Fn(&mut [u64])| {
                let mut out = out.clone();
                f(&mut out);
                out
            };
            // To whole lines.
            let past = |f: &dyn Fn(&mut [u64])| {
                let mut out = Buffer::dirty(n);
                f(&mut out);
                order_past();
                out.to_vec()
            };
            vec![
                on(&|o| k.add(&m, o, &x)),
                on(&|o| k.sub(&m, o, &x)),
                on(&|o| k.neg(&m, o)),
                on(&|o| k.mul(&m, o, &x, &y, false)),
                past(&|o| k.mul(&m, o, &x, &y, true)),
                on(&|o| k.mul_acc(&m, o, &x, &y)),
                on(&|o| k.mul_mont(&m, o, &[(&x, row)], Keep::Written)),
                on(&|o| k.mul_mont(&m, o, &[(&x, row)], Keep::Added)),
                on(&|o| k.sum(&m, o, &x, &y, false)),
                past(&|o| k.sum(&m, o, &x, &y, true)),
                on(&|o| k.difference(&m, o, &x, &y, false)),
                past(&|o| k.difference(&m, o, &x, &y, true)),
                on(&|o| k.sum_mont(&m, o, &x, row, false)),
                past(&|o| k.sum_mont(&m, o, &x, row, true)),
                on(&|o| k.mul_const(&m, o, &x, shoup)),
                on(&|o| k.mul_const_acc(&m, o, &x, shoup)),
                on(&|o| k.scale(&m, o, shoup)),
                on(&|o| k.add_const(&m, o, c)),
                on(&|o| k.sum_const(&m, o, &x, c)),
                on(&|o| k.sub_from_scaled(&m, o, &x, shoup)),
            ]
        });
    }

    #[test]
    fn quotients(limbs in 1usize..=40, blocks in 1usize..=12, odd in 0usize..2, seed: u64) {
        let n = 8 * blocks + odd;
        let mut w = Words(seed);
        let mut ys = Vec::new();
        let mut fractions = Vec::new();
        for i in 0..limbs {
            let m = prime(30 + (i as u32 + seed as u32 % 21) % 21, 8);
            fractions.push(Fraction {
                shift: 52 - m.bits(),
                inverse: ((1u128 << (m.bits() + 51)) / u128::from(m.value())) as u64,
                half: m.value() / 2,
            });
            ys.extend(w.many(n, m.value()));
        }
        // One more, of the largest size: with it every second sum comes within a few units of
        // where the quotient changes, so that an error of one unit in one term may show.
        let m = prime(50, 8);
        let f = Fraction {
            shift: 2,
            inverse: ((1u128 << 101) / u128::from(m.value())) as u64,
            half: m.value() / 2,
        };
        for j in 0..n {
            let term = |i: usize, f: &Fraction| {
                ((u128::from(ys[i * n + j] << f.shift) * u128::from(f.inverse)) >> 52) as u64
            };
            let sum: u64 = fractions.iter().enumerate().map(|(i, f)| term(i, f)).sum();
            let missing = (sum + (1 << 50) + limbs as u64 + 1).wrapping_neg() % (1 << 51);
            let near = ((u128::from(missing) * u128::from(m.value())) >> 51) as u64;
            let y = if j % 2 == 0 { near + w.next() % 3 } else { w.next() };
            ys.push(y % m.value());
        }
        fractions.push(f);
        agree(|k| {
            let mut v = vec![0; n];
            k.quotient(&mut v, &ys, &fractions);
            vec![v.iter().map(|&v| u64::from(v)).collect()]
        });
    }

    #[test]
    fn permutations(log_n in 3u32..=13, g: u64, seed: u64) {
        let (n, m) = (1usize << log_n, prime(50, log_n));
        let g = GaloisElement::new(((g << 1) | 1) % (2 * n as u64), log_n).unwrap();
        let p = Permutation::new(g, log_n);
        let mut w = Words(seed);
        let (x, out) = (w.many(n, m.value()), w.many(n, m.value()));
        agree(|k| {
            let mut results = vec![out.clone(); 3];
            k.permute(&mut results[0], &x, &p.whole(), &x[..n / 2], false);
            let mut past = Buffer::dirty(results[0].len());
            k.permute(&mut past, &x, &p.whole(), &[], true);
            order_past();
            assert_eq!(past[..], results[0], "{:?}: past the caches", k.isa());
            k.permute_acc(&m, &mut results[1], &x, &p.whole());
            k.permute_coefficients(&m, &mut results[2], &x, g.value());
            results
        });
    }
}

/// The degrees at which each path of a transform runs, few of the large ones.
fn degree() -> impl Strategy<Value = u32> {
    prop_oneof![3u32..=12, 3u32..=12, 3u32..=12, 13u32..=17]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn transforms(bits in 20u32..=50, log_n in degree(), seed: u64) {
        let t = table(bits, log_n);
        let q = t.modulus.value();
        let mut w = Words(seed);
        let (lazy, x) = (w.many(1 << log_n, 4 * q), w.many(1 << log_n, q));
        let c = w.below(q);
        agree(|k| {
            let (mut forward, mut multiples) = (lazy.clone(), vec![3 * q; x.len()]);
            k.forward(&t, &mut forward, &x);
            k.forward(&t, &mut multiples, &[]);
            vec![forward, multiples, inverse(k, &t, &x, c), inverse(k, &t, &vec![q - 1; x.len()], c)]
        });
    }

    #[test]
    fn divisions_by_one(
        bits in prop_oneof![20u32..=50, 44u32..=50],
        dropped in prop_oneof![20u32..=50, Just(50u32)],
        log_n in degree(),
        past: bool,
        seed: u64,
    ) {
        let (t, n) = (table(bits, log_n), 1 << log_n);
        let (m, p) = (&t.modulus, prime(dropped, log_n).value());
        let mut w = Words(seed);
        let (mut words, x, old) = (w.many(n, p), w.many(n, m.value()), w.many(n, m.value()));
        if seed.is_multiple_of(2) {
            // Zero, what is most, and what is least.
            words.iter_mut().step_by(3).for_each(|y| *y = p / 2);
            words.iter_mut().step_by(5).for_each(|y| *y = p - 1);
            words.iter_mut().step_by(7).for_each(|y| *y = 0);
        }
        if seed % 4 == 1 {
            words.fill([p - 1, 0, p / 2][(seed / 4 % 3) as usize]);
        }
        let from = Minuend { x: &x, order: None, factor: m.shoup(w.below(m.value())) };
        let results = agree(|k| {
            // Aligned, as words are that go past the caches.
            let (mut out, mut work) = (Buffer::zeroed(n), old.clone());
            let rest = Rest { words: &words, prime: p, past };
            k.divide_rest(&t, &mut out, &mut work, &rest, &from);
            vec![out.to_vec()]
        });
        // Of words that are all alike the order does not matter.
        if words.iter().all(|&y| y == words[0]) {
            let kernels = Kernels::new(Isa::Scalar).unwrap();
            let mut rest = vec![m.from_i64(words[0] as i64 - (p / 2) as i64); n];
            kernels.forward(&t, &mut rest, &[]);
            let value = |(&r, &x): (&u64, &u64)| m.mul(m.sub(x, r), from.factor.w);
            let expected: Vec<u64> = rest.iter().zip(&x).map(value).collect();
            assert_eq!(results[0], expected);
        }
    }

    #[test]
    fn conversions(
        bits in 20u32..=50,
        log_n in degree(),
        terms in prop_oneof![0usize..=23, Just(1usize), Just(8), Just(15), Just(40)],
        others in 0u32..3,
        top: bool,
        seed: u64,
    ) {
        let tables: Vec<NttTable> = (0..=others).map(|i| table(bits - i * bits % 5, log_n)).collect();
        let (n, t) = (1usize << log_n, &tables[0]);
        let p = t.modulus.value();
        let mut w = Words(seed);
        let width = n.min(1 << LOW_LOG);
        let columns = tile_columns(n);
        let words = n / width * columns;
        // From a single prime the residue is the value, but for its sign.
        let single = terms == 1 && !seed.is_multiple_of(3);
        let bound = [1 << 50, 3 * p, 8 * p, p, (p >> 5).max(2)][(w.next() % 5) as usize].min(1 << 50);
        let smaller = w.next() % 2 * 10 + 1;
        let rows: Vec<ConvRow> = tables
            .iter()
            .map(|t| {
                let p = t.modulus.value();
                let weights = match single {
                    true => vec![t.modulus.to_mont(1)],
                    false => w.many(terms, p),
                };
                ConvRow::new(&t.modulus, weights, w.below(p))
            })
            .collect();
        let (minuend, factor) = (w.many(n, p), t.modulus.shoup(w.below(p)));
        let g = GaloisElement::rotation(w.next() as i64, log_n);
        let permutation = Permutation::new(g, log_n);
        let key = packed(&t.modulus, &w.many(6 * n, p), 6);
        let tiles: Vec<(Vec<u64>, Vec<u8>)> = (0..width / columns)
            .map(|_| {
                let ys = (0..terms).flat_map(|i| w.many(words, bound >> (i as u64 % smaller))).collect();
                let v = (0..words).map(|_| w.below(terms.max(1) as u64 + 1).min(terms as u64) as u8);
                (ys, v.collect())
            })
            .collect();
        agree(|k| {
            let convert = |outs: &mut [&mut [u64]], tile: usize, place: Option<Tile>, past: bool| {
                let (ys, v) = &tiles[tile];
                let source = ConvSource { ys, v, bound };
                let outs = outs.iter_mut().zip(&rows).zip(&tables);
                let mut targets: Vec<Converted<'_>> = outs
                    .map(|((out, row), table)| Converted { table, row, out, ahead: ys, past })
                    .collect();
                match place {
                    Some(place) => k.convert_tile(&mut targets, &source, &place),
                    None => k.convert(&mut targets, &source),
                }
            };
            let mut outs = vec![vec![0; n]; tables.len()];
            let apart = Layout::apart(n);
            // Past the caches where places allow it, as in large pages.
            let mut others: Vec<Buffer> = tables.iter().map(|_| Buffer::dirty(apart.words())).collect();
            for i in 0..tiles.len() {
                let tile = |i| Some(Tile { columns: i * columns..(i + 1) * columns, top });
                let mut dense: Vec<&mut [u64]> = outs.iter_mut().map(|x| &mut x[..]).collect();
                convert(&mut dense, i, tile(i), false);
                let mut dispersed: Vec<&mut [u64]> = others.iter_mut().map(|x| &mut x[..]).collect();
                convert(&mut dispersed, i, tile(i), true);
            }
            order_past();
            for (out, other) in outs.iter().zip(&others) {
                for (row, other) in out.chunks(width).zip(other.chunks(apart.pitch)) {
                    assert_eq!(row, &other[..width], "{:?}: rows apart", k.isa());
                }
            }
            if !top {
                let mut compact = vec![vec![0; words]; tables.len()];
                let mut places: Vec<&mut [u64]> = compact.iter_mut().map(|x| &mut x[..]).collect();
                convert(&mut places, 0, None, false);
                outs.extend(compact);
                return outs;
            }
            // To the end, and with the end of a division: blocks in order, and permuted.
            let out = outs.remove(0);
            for (out, t) in outs.iter_mut().zip(&tables[1..]) {
                for (b, block) in out.chunks_mut(width).enumerate() {
                    k.forward_low(t, block, b, &[]);
                }
            }
            let mut digits = out.clone();
            let mut results = vec![out; 3];
            for (b, block) in results[0].chunks_mut(width).enumerate() {
                k.forward_low(t, block, b, &tiles[0].0);
            }
            for b in 0..n / width {
                let (target, piece) = permutation.of_piece(b);
                let x = &minuend[b * width..(b + 1) * width];
                for (result, at, order) in [(1, b, None), (2, target, Some(&piece))] {
                    let block = &mut results[result][at * width..(at + 1) * width];
                    let mut other = block.to_vec();
                    k.divide_low(t, block, at, x, &Minuend { x, order, factor });
                    if k.isa() == Isa::Avx512Ifma && is_roomy(&t.modulus) && log_n >= 8 {
                        // From what inner products leave for it.
                        let room = ((1 << 52) - 1) / p - 13;
                        let loose: Vec<u64> = (0..).zip(x).map(|(i, x)| x + i % (room + 1) * p).collect();
                        k.divide_low(t, &mut other, at, x, &Minuend { x: &loose, order, factor });
                        assert_eq!(block, other, "loose");
                    }
                }
            }
            let (mut apart, mut work) = (Buffer::zeroed(n), digits.clone());
            k.divide_converted(t, &mut apart, &mut work, &Minuend { x: &minuend, order: None, factor });
            assert_eq!(apart[..], results[1], "{:?}: apart", k.isa());
            // As digits of an inner product, three times the same: lazy ones give what others give.
            for (b, block) in digits.chunks_mut(width).enumerate() {
                k.forward_digits(t, block, b, &[]);
            }
            let products = [&digits, &results[0]].map(|x| {
                let (mut out0, mut out1) = (vec![0; n], vec![0; n]);
                let (digits, first) = ([&x[..]; 3], [0, 2, 4]);
                let key = KeyRows { words: &key, rows: 6, first: &first, digits: &digits, uniform: None, order: None, loose: false, ahead: &[] };
                let extra = Extra { x: [Some(&minuend), None], tensors: &[], factor: p - 1 };
                k.inner_product(&t.modulus, &mut out0, &mut out1, &key, &extra);
                [out0, out1]
            });
            assert_eq!(products[0], products[1], "{:?}: digits", k.isa());
            results.extend(products.concat());
            results.extend(outs);
            results
        });
    }
}

/// Word 0 of a transform is never multiplied, only added to, once per stage. Here every product
/// that meets it is as large as a product can be, so that it grows as fast as it can.
#[test]
fn the_fastest_growth() {
    for log_n in [5, 8, 11, 12, 16, 17] {
        for bits in 40..=50 {
            let t = table(bits, log_n);
            let m = &t.modulus;
            let q = m.value();
            // Kernels bring products near to zero, or near to q. From the largest word upwards in the
            // first block of each stage, from zero downwards in the last one.
            for (word, product, down) in
                [(4 * q - 1, q / 2, 0), (4 * q - 1, q - 1, 0), (0, q - 1, 1)]
            {
                let mut x = vec![0; 1 << log_n];
                x[0] = word;
                for stage in 0..log_n {
                    let block = down * ((1 << stage) - 1);
                    let w = t.forward.shoup(m).get(1 << stage, block).w;
                    let by = m.mul(product, m.inv(w).unwrap());
                    x[1 << (log_n - 1 - stage)] = by + q;
                }
                agree(|k| {
                    let mut x = x.clone();
                    k.forward(&t, &mut x, &[]);
                    vec![x]
                });
            }
        }
    }
}
