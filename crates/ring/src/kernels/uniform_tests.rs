//! Inner products that make the uniform halves of a key themselves.

use proptest::prelude::*;

use super::tests::{Words, agree, packed, prime};
use super::*;
use crate::galois::{GaloisElement, Permutation};
use crate::keystream::Keystream;
use crate::modulus::ntt_primes_near;

/// A prime above a power of two: of `2^49` an eighth of all words is refused.
fn just_above(bits: u32) -> Modulus {
    let near = 2f64.powi(bits.max(18) as i32) + 2f64.powi(14);
    Modulus::new(ntt_primes_near(near, 8, &[], 1).unwrap()[0]).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Uniform halves that are made for an inner product give what stored ones give, for every instruction
    /// set, order and share of refused words.
    #[test]
    fn uniform_halves(
        bits in 20u32..=50,
        digits in 1usize..=6,
        log_n in 4u32..=9,
        odd in 0u64..128,
        seed: u64,
        above: bool,
    ) {
        let m = if above { just_above(bits - 1) } else { prime(bits, 8) };
        let n = 1 << log_n;
        // A block of four.
        let g = GaloisElement::new(2 * odd + 1, log_n + 2);
        prop_assume!(g.is_ok());
        let permutation = Permutation::new(g.unwrap(), log_n + 2);
        let mut w = Words(seed);
        let q = m.value();
        let values: Vec<Vec<u64>> = (0..digits).map(|_| w.many(n, 4 * q)).collect();
        let values: Vec<&[u64]> = values.iter().map(Vec::as_slice).collect();
        let b: Vec<Vec<u64>> = (0..digits).map(|_| w.many(n, q)).collect();
        let keys: Vec<[u8; 16]> = (0..digits)
            .map(|_| (u128::from(w.next()) << 64 | u128::from(w.next())).to_le_bytes())
            .collect();
        let rows = |rows: &[&[u64]]| {
            let groups = (0..n / 8).flat_map(|c| rows.iter().flat_map(move |r| &r[8 * c..8 * c + 8]));
            packed(&m, &groups.copied().collect::<Vec<u64>>(), rows.len())
        };
        let (x0, x1) = (w.many(n, q), w.many(n, q));
        let extra = Extra { x: [Some(&x0), Some(&x1)], tensors: &[], factor: w.below(q) };
        let first: Vec<usize> = (0..digits).map(|d| 2 * d).collect();
        for source in 0..4 {
            let order = permutation.piece_from(source, n);
            for order in [None, Some(&order)] {
                // The words that each column meets: those of the place to which it goes.
                let at = |j: usize| match order {
                    None => (source * n + j) as u64,
                    Some(_) => {
                        let goes = |target: &usize| {
                            let group = permutation.blocks[target / 8];
                            let lane = permutation.lanes[(group & 7) as usize][target % 8];
                            (group >> 3) as usize * 8 + lane as usize == source * n + j
                        };
                        (0..4 * n).find(goes).unwrap() as u64
                    }
                };
                let a: Vec<Vec<u64>> = keys
                    .iter()
                    .map(|key| {
                        let stream = Keystream::new(*key, &m);
                        let word = |j: usize| {
                            let mut two = [0; 2];
                            stream.words(at(j) & !1, &mut two);
                            m.reduce(two[(at(j) & 1) as usize])
                        };
                        (0..n).map(word).collect()
                    })
                    .collect();
                let both: Vec<&[u64]> = b.iter().zip(&a).flat_map(|(b, a)| [&b[..], &a[..]]).collect();
                let alone: Vec<&[u64]> = b.iter().map(Vec::as_slice).collect();
                let (both, alone) = (rows(&both), rows(&alone));
                agree(|k| {
                    let mut round_keys = vec![0; digits * ROUND_KEYS];
                    for (key, out) in keys.iter().zip(round_keys.chunks_exact_mut(ROUND_KEYS)) {
                        k.round_keys(key, out);
                    }
                    let mut refused = Vec::new();
                    for (digit, keys) in (0..).zip(round_keys.chunks_exact(ROUND_KEYS)) {
                        let mut words = Vec::new();
                        k.refused(&m, keys, 4 * n, &mut words);
                        let place = |word| if order.is_some() { permutation.source(word) } else { word };
                        refused.extend(words.iter().map(|&(word, more)| Refused { column: place(word), digit, more }));
                    }
                    // Sorted by the caller; any order will do here.
                    refused.retain(|r| (r.column as usize) / n == source);
                    let uniform = Uniform { round_keys: &round_keys, order, first: source * n / 8, refused: &refused };
                    let product = |words, rows, uniform, loose| {
                        let (mut out0, mut out1) = (vec![0; n], vec![0; n]);
                        let key = KeyRows { words, rows, first: &first, digits: &values, uniform, order, loose, ahead: &[] };
                        k.inner_product(&m, &mut out0, &mut out1, &key, &extra);
                        [out0, out1]
                    };
                    let made = product(&alone, digits, Some(uniform), false);
                    let stored = product(&both, 2 * digits, None, false);
                    assert_eq!(made, stored, "{:?}", k.isa());
                    for (words, rows, uniform) in [(&alone, digits, Some(uniform)), (&both, 2 * digits, None)] {
                        let loose = product(words, rows, uniform, true);
                        for (loose, made) in loose.iter().flatten().zip(made.iter().flatten()) {
                            // What `divide_low` takes.
                            assert!(loose % q == *made && (loose == made || loose + 12 * q < 1 << 52));
                        }
                    }
                    made.to_vec()
                });
            }
        }
    }
}

/// Every instruction set finds the words that portable code finds, those of a limb that are refused once, and of primes
/// that refuse an eighth of all attempts also those that are refused several times.
#[test]
fn refused_words_are_the_same_for_all() {
    for (m, least, most) in [
        (just_above(49), 400, 620),
        (just_above(45), 16, 50),
        (prime(46, 8), 0, 0),
    ] {
        let found: Vec<Vec<(u32, u64)>> = Isa::available()
            .into_iter()
            .map(|isa| {
                let k = Kernels::new(isa).unwrap();
                let mut round_keys = vec![0; ROUND_KEYS];
                k.round_keys(&[9; 16], &mut round_keys);
                let mut found = Vec::new();
                k.refused(&m, &round_keys, 4096, &mut found);
                found
            })
            .collect();
        assert!(
            (least..=most).contains(&found[0].len()),
            "{}",
            found[0].len()
        );
        assert!(found.iter().all(|f| f == &found[0]));
        assert!(found[0].iter().all(|&(_, more)| more < m.value()));
    }
}

/// The residues of a stream, of primes that refuse no attempt, some, and one in eight, in lengths of whole vectors and
/// others.
#[test]
fn residues_are_those_of_the_stream() {
    for m in [just_above(49), just_above(45), prime(46, 8), prime(20, 8)] {
        for n in [1, 2, 31, 32, 4096, 4100] {
            let key = [n as u8; 16];
            let mut expected = vec![0; n];
            Keystream::new(key, &m).residues(&m, &mut expected);
            let made = agree(|k| {
                let mut round_keys = vec![0; ROUND_KEYS];
                k.round_keys(&key, &mut round_keys);
                let mut out = vec![u64::MAX; n];
                k.uniform(&m, &round_keys, &mut out);
                vec![out]
            });
            assert_eq!(made, [expected]);
        }
    }
}

/// With digits as large as transforms leave them, and few enough of them that results may stay as they are, and more.
#[test]
fn loose_results_are_what_a_division_takes() {
    let (m, n) = (prime(46, 8), 256);
    let q = m.value();
    let mut w = Words(3);
    for digits in 1..=6 {
        let least: Vec<Vec<u64>> = (0..digits).map(|_| w.many(n, q)).collect();
        let most: Vec<Vec<u64>> = least
            .iter()
            .map(|x| x.iter().map(|x| x + 11 * q).collect())
            .collect();
        let b: Vec<u64> = w.many(digits * n, q);
        let words = packed(&m, &b, digits);
        let first: Vec<usize> = (0..digits).map(|d| 2 * d).collect();
        let x = w.many(n, q);
        let extra = Extra {
            x: [Some(&x), None],
            tensors: &[],
            factor: q - 1,
        };
        for isa in Isa::available() {
            let k = Kernels::new(isa).unwrap();
            let mut round_keys = vec![0; digits * ROUND_KEYS];
            for (d, out) in (0..).zip(round_keys.chunks_exact_mut(ROUND_KEYS)) {
                k.round_keys(&[d; 16], out);
            }
            // Of so few words and this prime none.
            let mut found = Vec::new();
            for keys in round_keys.chunks_exact(ROUND_KEYS) {
                k.refused(&m, keys, n, &mut found);
            }
            assert!(found.is_empty());
            let refused = [];
            let product = |values: &[Vec<u64>], loose| {
                let values: Vec<&[u64]> = values.iter().map(Vec::as_slice).collect();
                let uniform = Uniform {
                    round_keys: &round_keys,
                    order: None,
                    first: 0,
                    refused: &refused,
                };
                let key = KeyRows {
                    words: &words,
                    rows: digits,
                    first: &first,
                    digits: &values,
                    uniform: Some(uniform),
                    order: None,
                    loose,
                    ahead: &[],
                };
                let (mut out0, mut out1) = (vec![0; n], vec![0; n]);
                k.inner_product(&m, &mut out0, &mut out1, &key, &extra);
                [out0, out1].concat()
            };
            let expected = product(&least, false);
            // Only these leave digits so large.
            let digits = if isa == Isa::Avx512Ifma {
                &most
            } else {
                &least
            };
            for (found, expected) in product(digits, true).iter().zip(&expected) {
                let canonical = found == expected;
                assert!(found % q == *expected && (canonical || found + 12 * q < 1 << 52));
            }
        }
    }
}
