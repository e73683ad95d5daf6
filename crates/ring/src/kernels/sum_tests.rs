//! Inner products and sums of products: every instruction set against the scalar kernels.

use proptest::prelude::*;

use super::tests::{Words, agree, packed, packed_row, prime};
use super::*;
use crate::buffer::Buffer;
use crate::galois::{GaloisElement, Permutation};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn inner_products(
        bits in 20u32..=50,
        digits in 1usize..=20,
        seed: u64,
        extras in 0usize..4,
        products in prop_oneof![0usize..=8, 0usize..=8, 0usize..=8, Just(MOST_PRODUCTS)],
    ) {
        let m = prime(bits, 8);
        let (q, n, rows) = (m.value(), 40, 2 * digits + 2);
        let mut w = Words(seed);
        let words = packed(&m, &w.many(n * rows, q), rows);
        let values: Vec<Vec<u64>> = (0..digits).map(|_| w.many(n, 4 * q)).collect();
        let digits: Vec<&[u64]> = values.iter().map(Vec::as_slice).collect();
        let first: Vec<usize> = (0..digits.len()).map(|d| 2 * d + d % 3).collect();
        let (x0, x1) = (w.many(n, q), w.many(n, q));
        let factors: Vec<[Vec<u64>; 4]> = (0..products)
            .map(|_| [(); 4].map(|()| w.many(n, q)))
            .collect();
        let tensors: Vec<Tensor<'_>> = factors
            .iter()
            .map(|[a0, a1, b0, b1]| Tensor { a: [a0, a1], b: [b0, b1] })
            .collect();
        let extra = Extra {
            tensors: &tensors,
            x: [(extras & 1 != 0).then_some(&x0[..]), (extras & 2 != 0).then_some(&x1[..])],
            factor: w.below(q),
        };
        let key = KeyRows { words: &words, rows, first: &first, digits: &digits, uniform: None, order: None, loose: false, ahead: &words };
        agree(|k| {
            let (mut out0, mut out1) = (vec![0; n], vec![0; n]);
            k.inner_product(&m, &mut out0, &mut out1, &key, &extra);
            vec![out0, out1]
        });
    }

    /// Results in the order of an automorphism are those that are permuted afterwards.
    #[test]
    fn ordered_inner_products(bits in 20u32..=50, log_n in 4u32..=8, odd in 0u64..128, seed: u64) {
        let (m, n) = (prime(bits, 8), 1 << log_n);
        // A block of four.
        let g = GaloisElement::new(2 * odd + 1, log_n + 2);
        prop_assume!(g.is_ok());
        let permutation = Permutation::new(g.unwrap(), log_n + 2);
        let mut w = Words(seed);
        let words = packed(&m, &w.many(4 * n, m.value()), 4);
        let values = [w.many(n, 4 * m.value()), w.many(n, 4 * m.value())];
        let digits = values.each_ref().map(Vec::as_slice);
        let x = w.many(n, m.value());
        let extra = Extra { x: [Some(&x), None], tensors: &[], factor: w.below(m.value()) };
        for target in 0..4 {
            let (source, piece) = permutation.piece_for(target, n);
            let order = permutation.piece_from(source, n);
            agree(|k| {
                let product = |order| {
                    let (mut out0, mut out1) = (vec![0; n], vec![0; n]);
                    let key = KeyRows {
                        words: &words,
                        rows: 4,
                        first: &[0, 2],
                        digits: &digits,
                        uniform: None,
                        order,
                        loose: false, ahead: &words,
                    };
                    k.inner_product(&m, &mut out0, &mut out1, &key, &extra);
                    [out0, out1]
                };
                let ordered = product(Some(&order));
                let permuted = product(None).map(|x| {
                    let mut out = vec![0; n];
                    k.permute(&mut out, &x, &piece, &[], false);
                    out
                });
                assert_eq!(ordered, permuted, "{:?}, block {target}", k.isa());
                ordered.to_vec()
            });
        }
    }

    #[test]
    fn sums_of_products(
        bits in prop_oneof![20u32..=50, 46u32..=50],
        count in prop_oneof![5 => 0usize..=40, 1 => 41usize..=400],
        sums in 1usize..=9,
        n in prop_oneof![Just(40usize), Just(64), Just(256)],
        seed: u64,
        largest: bool,
    ) {
        let m = prime(bits, 8);
        let q = m.value();
        let mut w = Words(seed);
        let mut many = |n: usize| if largest { vec![q - 1; n] } else { w.many(n, q) };
        // All of them, packed or not, one, or one for each run of a power of two; in one case of two runs of one
        // length alone, else mixed, in one case of three also shorter ones than vectors take.
        let uniform = seed.is_multiple_of(2).then_some(seed as usize % 9 % 7);
        let kinds = if seed.is_multiple_of(3) { 7 } else { 6 };
        let packed = |i: usize| match n {
            40 => uniform.unwrap_or(i) % 3 == 2,
            _ => uniform.unwrap_or(i) % kinds == 5,
        };
        let values = |i: usize| match n {
            40 => [1, 40, 40][uniform.unwrap_or(i) % 3],
            n => n >> [0, 3, 4, 5, 6, 0, 1][uniform.unwrap_or(i) % kinds],
        };
        let x: Vec<[Vec<u64>; 2]> = (0..count).map(|_| [many(n), many(n)]).collect();
        let x: Vec<[&[u64]; 2]> = x.iter().map(|x| x.each_ref().map(Vec::as_slice)).collect();
        // Some are zero.
        let gaps = if seed & 4 == 0 { 3 } else { 100 };
        let y: Vec<Vec<u64>> = (0..sums * count)
            .map(|i| match (many(values(i)), packed(i)) {
                _ if i % gaps == 1 => Vec::new(),
                (y, true) => packed_row(&m, &y),
                (y, false) => y,
            })
            .collect();
        let factors: Vec<Factor<'_>> = y
            .iter()
            .enumerate()
            .map(|(i, y)| Factor {
                y: match (y.is_empty(), packed(i)) {
                    (true, _) => Values::Zero,
                    (_, true) => Values::Packed(Packed { words: y }),
                    (_, false) => Values::Runs(y),
                },
                ahead: y,
            })
            .collect();
        let old: Vec<[Vec<u64>; 2]> = (0..sums).map(|_| [many(n), many(n)]).collect();
        for fresh in [[false; 2], [true; 2], [true, false], [false, true]] {
            agree(|k| {
                let mut out = old.clone();
                let mut all: Vec<ProductSum<'_>> = out
                    .iter_mut()
                    .enumerate()
                    .map(|(s, out)| ProductSum {
                        out: out.each_mut().map(Vec::as_mut_slice),
                        fresh,
                        factors: &factors[s * count..(s + 1) * count],
                        next: None,
                    })
                    .collect();
                k.sum_products(&m, &mut all, &x);
                out.concat()
            });
        }
    }

    #[test]
    fn sums_of_few_products(bits in prop_oneof![20u32..=50, 49u32..=50], count in 1usize..=TERMS, blocks in 0usize..7, odd in prop_oneof![3 => Just(0), 1 => 1..16usize], extreme: bool, seed: u64) {
        let (m, n) = (prime(bits, 8), 16 * blocks + odd);
        let q = m.value();
        let mut w = Words(seed);
        let mut words = || if extreme { vec![q - 1; n] } else { w.many(n, q) };
        let terms: Vec<[Vec<u64>; 2]> = (0..count).map(|_| [words(), packed_row(&m, &words())]).collect();
        let terms: Vec<(&[u64], Packed<'_>)> =
            terms.iter().map(|[x, y]| (&x[..], Packed { words: y })).collect();
        let old = words();
        agree(|k| {
            let mut out = Buffer::dirty(n);
            let mut on = |keep| {
                out.copy_from_slice(&old);
                k.mul_mont(&m, &mut out, &terms, keep);
                order_past();
                out.to_vec()
            };
            let [written, past, mut added] = [Keep::Written, Keep::Past, Keep::Added].map(&mut on);
            assert_eq!(written, past);
            k.sub(&m, &mut added, &old);
            assert_eq!(written, added);
            vec![written]
        });
    }

    #[test]
    fn words_spread_over_runs(log_n in 0u32..=10, run in 1u32..=3, seed: u64) {
        let x = Words(seed).many(1 << log_n, u64::MAX);
        agree(|k| {
            let mut out = vec![0; x.len() << run];
            k.spread(&mut out, &x);
            for (j, out) in out.iter().enumerate() {
                assert_eq!(*out, x[j >> run], "{:?}", k.isa());
            }
            vec![out]
        });
    }
}

/// Abreast, or one after the other where many factors are zero; values in one piece and in several.
#[test]
fn sums_whose_factors_stand_for_long_runs() {
    let m = prime(45, 12);
    let q = m.value();
    let mut w = Words(6);
    for (n, values) in [(256, 4), (1024, 8), (512, 1), (1024, 16), (4096, 32)] {
        for (sums, count, zeros) in [
            (4, 5, 0),
            (3, 5, 0),
            (2, 5, 1),
            (9, 7, 1),
            (14, 3, 2),
            (5, 70, 3),
        ] {
            let x: Vec<[Vec<u64>; 2]> = (0..count).map(|_| [w.many(n, q), w.many(n, q)]).collect();
            let x: Vec<[&[u64]; 2]> = x.iter().map(|x| x.each_ref().map(Vec::as_slice)).collect();
            // So many of four are zero, and all of one sum.
            let zero =
                |i: usize| i.wrapping_mul(0x9e37) / 64 % 4 < zeros || (zeros > 0 && i / count == 1);
            let y: Vec<Vec<u64>> = (0..sums * count).map(|_| w.many(values, q)).collect();
            let factors = y.iter().enumerate().map(|(i, y)| Factor {
                y: if zero(i) {
                    Values::Zero
                } else {
                    Values::Runs(y)
                },
                ahead: y,
            });
            let factors: Vec<Factor<'_>> = factors.collect();
            agree(|k| {
                let mut out = vec![[x[0][0].to_vec(), x[1][1].to_vec()]; sums];
                let all = out.iter_mut().zip(factors.chunks(count));
                let all = all.map(|(out, factors)| ProductSum {
                    out: out.each_mut().map(Vec::as_mut_slice),
                    fresh: [true, false],
                    factors,
                    next: Some(x[2][0]),
                });
                let mut all: Vec<ProductSum<'_>> = all.collect();
                k.sum_products(&m, &mut all, &x);
                out.concat()
            });
        }
    }
}

#[test]
fn sums_without_any_factor() {
    let (m, n) = (prime(45, 8), 64);
    let mut w = Words(5);
    let x = [w.many(n, m.value()), w.many(n, m.value())];
    let factors = [Factor {
        y: Values::Zero,
        ahead: &[],
    }];
    for sums in 1..=5 {
        agree(|k| {
            let mut out = vec![[x[0].clone(), x[1].clone()]; sums];
            let all = out.iter_mut().map(|out| ProductSum {
                out: out.each_mut().map(Vec::as_mut_slice),
                fresh: [true, false],
                factors: &factors,
                next: None,
            });
            let mut all: Vec<ProductSum<'_>> = all.collect();
            k.sum_products(&m, &mut all, &[[&x[0], &x[1]]]);
            assert!(out.iter().all(|out| out[0] == vec![0; n] && out[1] == x[1]));
            out.concat()
        });
    }
}

/// Products of a digit and a key word as large as a reduced product can be, all of one sign.
#[test]
fn the_largest_sums() {
    for bits in 40..=50 {
        for (count, up) in [(6, true), (7, false), (20, true), (20, false)] {
            let m = prime(bits, 8);
            let (q, n) = (m.value(), 8);
            // Odd, so that a sum that is too long for a double shows.
            let part = (q / 100 * 49) | 1;
            let target = if up { part } else { q - part };
            let word = |i: usize| 3 + 2 * i as u64;
            let words: Vec<u64> = (0..2 * count * n).map(word).collect();
            let words = packed(&m, &words, 2 * count);
            let values: Vec<Vec<u64>> = (0..count)
                .map(|d| {
                    let key = (0..n).map(|j| word(2 * d * n + j));
                    let x = key.map(|k| m.mul(target, m.inv(k).unwrap()));
                    x.map(|x| x + 2 * q).collect()
                })
                .collect();
            let digits: Vec<&[u64]> = values.iter().map(Vec::as_slice).collect();
            let first: Vec<usize> = (0..count).map(|d| 2 * d).collect();
            let key = KeyRows {
                words: &words,
                rows: 2 * count,
                first: &first,
                digits: &digits,
                uniform: None,
                order: None,
                loose: false,
                ahead: &[],
            };
            let ones = vec![1; n];
            let extra = Extra {
                x: [Some(&ones), None],
                tensors: &[],
                factor: target,
            };
            agree(|k| {
                let (mut out0, mut out1) = (vec![0; n], vec![0; n]);
                k.inner_product(&m, &mut out0, &mut out1, &key, &extra);
                vec![out0, out1]
            });
        }
    }
}
