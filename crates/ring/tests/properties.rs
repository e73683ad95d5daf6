//! Laws of the ring, of bases and of seeds, on the instruction set of this machine.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use num_bigint::BigInt;
use proptest::prelude::*;
use veilformer_ring::conformance::{Samples, test_chain};
use veilformer_ring::{
    Backend, Basis, Chain, Cpu, CpuConfig, Expander, ExpanderId, Form, GaloisElement, Isa, Modulus,
    RingError, RnsPoly, Stream, is_prime, ntt_primes_below, ntt_primes_near,
};

fn cpu(log_n: u32, q: usize, p: usize) -> Cpu {
    Cpu::new(test_chain(log_n, q, p).unwrap(), CpuConfig::default()).unwrap()
}

/// `a * b mod X^N + 1` over the integers.
fn schoolbook(a: &[i64], b: &[i64]) -> Vec<i128> {
    let n = a.len();
    let mut out = vec![0i128; n];
    for (i, &x) in a.iter().enumerate() {
        for (j, &y) in b.iter().enumerate() {
            let p = i128::from(x) * i128::from(y);
            if i + j < n {
                out[i + j] += p
            } else {
                out[i + j - n] -= p
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn ntt_product_is_the_negacyclic_product(
        log_n in 3u32..9,
        seed in any::<u64>(),
    ) {
        let cpu = cpu(log_n, 4, 1);
        let chain = cpu.chain().clone();
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as i64 - (1 << 30)
        };
        let a: Vec<i64> = (0..chain.n()).map(|_| next()).collect();
        let b: Vec<i64> = (0..chain.n()).map(|_| next()).collect();
        let mut x = RnsPoly::from_signed(&chain, chain.all(), &a).unwrap();
        let mut y = RnsPoly::from_signed(&chain, chain.all(), &b).unwrap();
        cpu.forward_ntt(&mut x).unwrap();
        cpu.forward_ntt(&mut y).unwrap();
        let mut product = cpu.mul(&x, &y).unwrap();
        cpu.inverse_ntt(&mut product).unwrap();
        let expected = RnsPoly::from_i128(&chain, chain.all(), &schoolbook(&a, &b)).unwrap();
        prop_assert!(product == expected);
    }

    #[test]
    fn automorphisms_compose(log_n in 3u32..10, a in -40i64..40, b in -40i64..40, flip: bool) {
        let cpu = cpu(log_n, 2, 1);
        let mut samples = Samples::new(cpu.chain(), 3);
        let x = samples.poly(Basis::first(2), Form::Ntt).unwrap();
        let g = GaloisElement::rotation(a, log_n);
        let mut h = GaloisElement::rotation(b, log_n);
        if flip {
            h = h.compose(GaloisElement::conjugation(log_n), log_n);
        }
        let both = cpu.automorphism(&x, g.compose(h, log_n)).unwrap();
        let one = cpu.automorphism(&cpu.automorphism(&x, g).unwrap(), h).unwrap();
        prop_assert!(both == one);
        let back = cpu.automorphism(&both, g.compose(h, log_n).inverse(log_n)).unwrap();
        prop_assert!(back == x);
        // The forms agree.
        let mut y = x.clone();
        cpu.inverse_ntt(&mut y).unwrap();
        let mut y = cpu.automorphism(&y, g).unwrap();
        cpu.forward_ntt(&mut y).unwrap();
        prop_assert!(y == cpu.automorphism(&x, g).unwrap());
    }

    #[test]
    fn extension_is_exact_and_centred(log_n in 3u32..9, source in 1u128..511, seed: u8) {
        let cpu = cpu(log_n, 6, 3);
        let chain = cpu.chain().clone();
        let source: Vec<usize> = (0..9).filter(|i| source >> i & 1 == 1).collect();
        let source = Basis::from_indices(&source);
        let x = Samples::new(&chain, seed).poly(source, Form::Coefficient).unwrap();
        let centred = x.to_centered_bigint().unwrap();
        let y = cpu.extend(&x, chain.all()).unwrap();
        prop_assert!(y == RnsPoly::from_bigint(&chain, chain.all(), &centred).unwrap());
        let product: BigInt =
            source.iter().map(|i| BigInt::from(chain.modulus(i).value())).product();
        prop_assert!(centred.iter().all(|c| c * 2 < product && c * 2 >= -product.clone()));
    }

    #[test]
    fn division_rounds_to_nearest(log_n in 3u32..9, drop in 1u128..255, seed: u8) {
        let cpu = cpu(log_n, 6, 2);
        let chain = cpu.chain().clone();
        let drop: Vec<usize> = (0..8).filter(|i| drop >> i & 1 == 1).collect();
        let drop = Basis::from_indices(&drop);
        prop_assume!(drop != chain.all());
        let x = Samples::new(&chain, seed).poly(chain.all(), Form::Coefficient).unwrap();
        let y = cpu.div_round(&x, drop).unwrap();
        let divisor: BigInt = drop.iter().map(|i| BigInt::from(chain.modulus(i).value())).product();
        for (x, y) in x.to_centered_bigint().unwrap().iter().zip(y.to_centered_bigint().unwrap()) {
            let error = x - y * &divisor;
            prop_assert!(&error * 2 <= divisor && &error * 2 >= -divisor.clone());
        }
    }

    #[test]
    fn bases_are_sets(a: u128, b: u128) {
        let set = |x: u128| {
            let list: Vec<usize> = (0..128).filter(|i| x >> i & 1 == 1).collect();
            (Basis::from_indices(&list), list)
        };
        let ((a, list), (b, _)) = (set(a), set(b));
        prop_assert_eq!(a.iter().collect::<Vec<_>>(), list.clone());
        prop_assert_eq!(a.len(), list.len());
        prop_assert_eq!(a.highest(), list.last().copied());
        for (pos, &i) in list.iter().enumerate() {
            prop_assert_eq!(a.position_of(i), Some(pos));
        }
        prop_assert!(a.minus(b).is_disjoint(b));
        prop_assert_eq!(a.minus(b).union(a.intersect(b)), a);
        prop_assert!(a.union(b).contains_all(a) && a.contains_all(a.intersect(b)));
        prop_assert_eq!(a.union(b).len() + a.intersect(b).len(), a.len() + b.len());
    }

    #[test]
    fn modular_arithmetic_is_right(a: u64, b: u64, wide: i128, which in 0usize..4) {
        let target = [20.0f64, 36.0, 45.0, 49.99][which].exp2();
        let q = ntt_primes_near(target, 10, &[], 1).unwrap()[0];
        let m = Modulus::new(q).unwrap();
        let (a, b) = (a % q, b % q);
        let big = |x: u64| u128::from(x);
        prop_assert_eq!(big(m.mul(a, b)), big(a) * big(b) % big(q));
        prop_assert_eq!(m.mul_shoup(a, m.shoup(b)), m.mul(a, b));
        prop_assert_eq!(big(m.add(a, b)), (big(a) + big(b)) % big(q));
        prop_assert_eq!(m.add(m.sub(a, b), b), a);
        prop_assert_eq!(m.add(a, m.neg(a)), 0);
        prop_assert_eq!(m.from_i64(m.center(a)), a);
        prop_assert_eq!(i128::from(m.from_i128(wide)), wide.rem_euclid(i128::from(q)));
        if a != 0 {
            prop_assert_eq!(m.mul(a, m.inv(a).unwrap()), 1);
        }
    }
}

/// A coefficient at the edge of the centred range, where one source prime must decide exactly.
#[test]
fn single_prime_extension_is_exact_at_the_tie() {
    let cpu = cpu(4, 2, 1);
    let chain = cpu.chain().clone();
    let q = chain.modulus(0).value() as i64;
    let mut values = vec![0i64; chain.n()];
    values[..4].copy_from_slice(&[(q - 1) / 2, -(q - 1) / 2, 1, -1]);
    let x = RnsPoly::from_signed(&chain, Basis::single(0), &values).unwrap();
    let expected = RnsPoly::from_signed(&chain, chain.all(), &values).unwrap();
    assert!(cpu.extend(&x, chain.all()).unwrap() == expected);
}

/// The wire format of expanded seeds: computed once, independently, by a straight reading of the
/// documented format.
#[test]
fn expander_golden_vectors() {
    let m = Modulus::new(1125899906826241).unwrap();
    let expander = Expander::new(ExpanderId::Blake3, [42; 32]);
    let mut out = [0; 4];
    expander.fill(Stream { digit: 3, part: 1 }, &m, &mut out);
    let mut message = b"veil-exp".to_vec();
    message.extend(3u32.to_le_bytes());
    message.extend(1u32.to_le_bytes());
    message.extend(m.value().to_le_bytes());
    let mut bytes = [0; 32];
    blake3::Hasher::new_keyed(&[42; 32])
        .update(&message)
        .finalize_xof()
        .fill(&mut bytes);
    let expected: Vec<u64> = bytes
        .chunks(8)
        .map(|b| u64::from_le_bytes(b.try_into().unwrap()))
        .map(|x| ((u128::from(x) * u128::from(m.value())) >> 64) as u64)
        .collect();
    assert_eq!(out.to_vec(), expected);
    assert_eq!(out, GOLDEN);
    // Long outputs begin like short ones.
    let mut long = vec![0; 5000];
    expander.fill(Stream { digit: 3, part: 1 }, &m, &mut long);
    assert_eq!(long[..4], out);
    assert_eq!(ExpanderId::try_from(1).unwrap(), ExpanderId::Blake3);
    assert_eq!(ExpanderId::try_from(2).unwrap(), ExpanderId::Aes128);
    assert!(matches!(
        ExpanderId::try_from(9),
        Err(RingError::UnknownExpander(9))
    ));
}

const GOLDEN: [u64; 4] = [
    1036314299700684,
    622456465060852,
    466351062860499,
    101945938197943,
];

/// The same of the expander of keys: a straight reading of its format, where of eight words about one is
/// refused.
#[test]
fn keystream_golden_vectors() {
    let q = ntt_primes_near(2f64.powi(49) + 2f64.powi(20), 10, &[], 1).unwrap()[0];
    let m = Modulus::new(q).unwrap();
    let mut out = vec![0; 64];
    let expander = Expander::new(ExpanderId::Aes128, [42; 32]);
    expander.fill(Stream { digit: 3, part: 2 }, &m, &mut out);
    let mut message = b"veil-aes".to_vec();
    message.extend(3u32.to_le_bytes());
    message.extend(2u32.to_le_bytes());
    message.extend(q.to_le_bytes());
    let hash = blake3::keyed_hash(&[42; 32], &message);
    let key: [u8; 16] = hash.as_bytes()[..16].try_into().unwrap();
    let cipher = aes::Aes128::new(&Array::from(key));
    let mut refused = 0;
    for (j, &residue) in out.iter().enumerate() {
        let attempt = |t: u64| {
            let mut block = [0; 16];
            block[..8].copy_from_slice(&(j as u64 / 2).to_le_bytes());
            block[8..].copy_from_slice(&t.to_le_bytes());
            let mut block = Array::from(block);
            cipher.encrypt_block(&mut block);
            let half: [u8; 8] = block[j % 2 * 8..][..8].try_into().unwrap();
            u64::from_le_bytes(half) % (1 << 52)
        };
        let taken = (0..).position(|t| attempt(t) < (1 << 52) / q * q).unwrap();
        refused += taken;
        let back = (u128::from(residue) << 52) % u128::from(q);
        assert_eq!(back, u128::from(attempt(taken as u64) % q));
    }
    assert!((1..32).contains(&refused), "{refused}");
    assert_eq!((q, &out[..4]), (GOLDEN_PRIME, &GOLDEN_KEYSTREAM[..]));
}

const GOLDEN_PRIME: u64 = 562_949_954_476_033;
const GOLDEN_KEYSTREAM: [u64; 4] = [
    475842324675522,
    149805649825598,
    202908258868404,
    303238071742849,
];

/// Chi-square over 64 cells: 63 degrees of freedom, so beyond 130 has a probability below 1e-6.
#[test]
fn expanded_residues_are_uniform() {
    // Of the second, words of AES are refused often.
    for near in [2f64.powi(36), 2f64.powi(49) + 2f64.powi(20)] {
        let m = Modulus::new(ntt_primes_near(near, 10, &[], 1).unwrap()[0]).unwrap();
        for id in [ExpanderId::Blake3, ExpanderId::Aes128] {
            let mut out = vec![0; 1 << 16];
            Expander::new(id, [1; 32]).fill(Stream::default(), &m, &mut out);
            let mut cells = [0f64; 64];
            for x in &out {
                assert!(*x < m.value());
                cells[(u128::from(*x) * 64 / u128::from(m.value())) as usize] += 1.0;
            }
            let mean = out.len() as f64 / 64.0;
            let chi: f64 = cells.iter().map(|c| (c - mean) * (c - mean) / mean).sum();
            assert!(chi < 130.0, "{id:?}: chi-square {chi}");
        }
    }
}

#[test]
fn primes_are_near_distinct_and_fit() {
    let near = ntt_primes_near(2f64.powi(40), 16, &[], 20).unwrap();
    assert!(near.iter().all(|&q| q % (1 << 17) == 1 && is_prime(q)));
    let distance = |q: u64| (q as f64 - 2f64.powi(40)).abs();
    assert!(
        near.windows(2)
            .all(|w| w[0] != w[1] && distance(w[0]) <= distance(w[1]))
    );
    let others = ntt_primes_near(2f64.powi(40), 16, &near, 5).unwrap();
    assert!(others.iter().all(|q| !near.contains(q)));
    assert!(
        ntt_primes_near(2f64.powi(50) - 1.0, 16, &[], 3)
            .unwrap()
            .iter()
            .all(|q| q >> 50 == 0)
    );
    assert!(matches!(
        ntt_primes_near(2f64.powi(18), 17, &[], 50),
        Ok(v) if v.len() == 50
    ));
    let below = ntt_primes_below(1 << 46, 16, &[], 9).unwrap();
    assert!(below.is_sorted_by(|a, b| a > b) && below[0] < 1 << 46);
    let both = ntt_primes_near(2f64.powi(46), 16, &[], 18).unwrap();
    let nearest: Vec<u64> = both.into_iter().filter(|&q| q < 1 << 46).collect();
    assert!(below.starts_with(&nearest) || nearest.starts_with(&below));
    assert_eq!(
        ntt_primes_below(1 << 46, 16, &below[..3], 6).unwrap(),
        below[3..]
    );
    assert!(ntt_primes_below(u64::MAX, 16, &[], 3).unwrap()[0] < 1 << 50);
    assert!(
        ntt_primes_below(0, 16, &[], 1).is_err() && ntt_primes_below(1 << 20, 18, &[], 1).is_err()
    );
    assert!(ntt_primes_near(f64::NAN, 16, &[], 1).is_err());
    assert!(ntt_primes_near(2f64.powi(60), 16, &[], 1).is_err());
    assert!([2, 3, 1125899906826241].iter().all(|&p| is_prime(p)));
    assert!(
        [0, 1, 4, 3215031751, 3825123056546413051]
            .iter()
            .all(|&c| !is_prime(c))
    );
}

#[test]
fn malformed_chains_and_limbs_are_refused() {
    let q = ntt_primes_near(2f64.powi(40), 10, &[], 2).unwrap();
    assert!(Chain::new(10, &[]).is_err());
    assert!(Chain::new(2, &q).is_err());
    assert!(Chain::new(10, &[q[0], q[0]]).is_err());
    assert!(Chain::new(10, &[q[0] + 2048]).is_err() || is_prime(q[0] + 2048));
    assert!(Chain::new(10, &[97]).is_err());
    let chain = Chain::new(10, &q).unwrap();
    let words = vec![q[0].min(q[1]) - 1; 2048];
    assert!(RnsPoly::from_limbs(&chain, chain.all(), Form::Ntt, &words).is_ok());
    assert!(RnsPoly::from_limbs(&chain, chain.all(), Form::Ntt, &words[1..]).is_err());
    assert!(RnsPoly::from_limbs(&chain, Basis::single(5), Form::Ntt, &words[..1024]).is_err());
    let bad = vec![u64::MAX; 2048];
    assert!(matches!(
        RnsPoly::from_limbs(&chain, chain.all(), Form::Ntt, &bad),
        Err(RingError::NotCanonical { .. })
    ));
    assert!(GaloisElement::new(4, 10).is_err() && GaloisElement::new(2049, 10).is_err());
    assert!(Isa::available().contains(&Isa::detect()));
}
