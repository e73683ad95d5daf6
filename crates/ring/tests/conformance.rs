//! Every instruction set of this machine against the reference.

use veilformer_ring::conformance::Samples;
use veilformer_ring::{
    Backend, Basis, Chain, Cpu, CpuConfig, CpuKey, DiagonalTerm, Expander, ExpanderId, Form,
    GaloisElement, GiantStep, Isa, OutputPlan, PlainPoly, Reference, Stream, TransformPlan,
    UniformHalf, conformance, ntt_primes_near,
};

#[test]
fn every_isa_conforms() {
    for isa in Isa::available() {
        if let Err(e) = conformance::check_all(|chain| Cpu::new(chain, CpuConfig { isa })) {
            panic!("{isa:?}: {e}");
        }
    }
}

/// The same with the uniform halves of all keys in memory.
#[test]
fn stored_halves_conform() {
    let stored = |chain| Ok(Cpu::new(chain, CpuConfig::default())?.with_stored_halves());
    if let Err(e) = conformance::check_all(stored) {
        panic!("{e}");
    }
}

/// In rings of several blocks, which the suite has none of: made halves are the stored ones, with an
/// automorphism and without.
#[test]
fn made_halves_are_the_stored_ones_in_every_block() {
    let log_n = 14;
    let chain = Chain::new(
        log_n,
        &ntt_primes_near(2f64.powi(45), log_n, &[], 3).unwrap(),
    )
    .unwrap();
    let (digits, special) = ([Basis::single(0), Basis::single(1)], Basis::single(2));
    let mut samples = Samples::new(&chain, 4);
    let x = samples.poly(Basis::range(0, 2), Form::Ntt).unwrap();
    for by in [0, 3] {
        let g = GaloisElement::rotation(by, log_n);
        let mut key = samples.key(g, &digits, special).unwrap();
        for (digit, (_, a)) in (0..).zip(&mut key.parts) {
            *a = UniformHalf::Seeded {
                expander: Expander::new(ExpanderId::Aes128, [5; 32]),
                stream: Stream { digit, part: 2 },
            };
        }
        let switched = |cpu: &Cpu| {
            let key = cpu.prepare_key(&key).unwrap();
            cpu.key_switch_sum(None, &[(&x, &key)], Basis::empty())
                .unwrap()
        };
        let cpu = || Cpu::new(chain.clone(), CpuConfig::default()).unwrap();
        assert!(
            switched(&cpu()) == switched(&cpu().with_stored_halves()),
            "by {by}"
        );
    }
}

/// The same where an inner product has only some of a key's digits, and where blocks are shorter: rotations of one
/// ciphertext at a level below, and a linear transform of rotated inputs.
#[test]
fn made_halves_are_the_stored_ones_in_every_operation() {
    let log_n = 14;
    let primes = ntt_primes_near(2f64.powi(45) + 2f64.powi(24), log_n, &[], 5).unwrap();
    let chain = Chain::new(log_n, &primes).unwrap();
    let digits = [0, 1, 2].map(Basis::single);
    let special = Basis::range(3, 5);
    let mut samples = Samples::new(&chain, 6);
    let mut keys: Vec<_> = (1..=3)
        .map(|by| {
            let g = GaloisElement::rotation(by, log_n);
            samples.key(g, &digits, special).unwrap()
        })
        .collect();
    for (k, key) in (0..).zip(&mut keys) {
        for (digit, (_, a)) in (0..).zip(&mut key.parts) {
            *a = UniformHalf::Seeded {
                expander: Expander::new(ExpanderId::Aes128, [k; 32]),
                stream: Stream { digit, part: 2 },
            };
        }
    }
    let plain = PlainPoly::Dense(samples.poly(chain.all(), Form::Ntt).unwrap());
    for basis in [
        Basis::range(0, 3),
        Basis::range(0, 2),
        Basis::single(0).union(Basis::single(2)),
    ] {
        let mut poly = || samples.poly(basis, Form::Ntt).unwrap();
        let (c0, c1) = (poly(), poly());
        let all = |cpu: &Cpu| {
            let keys: Vec<_> = keys.iter().map(|k| cpu.prepare_key(k).unwrap()).collect();
            let keys: Vec<_> = keys.iter().collect();
            let plain = cpu.prepare_plain(&plain).unwrap();
            let term = |baby| DiagonalTerm {
                input: 0,
                baby: Some(baby),
                plain: 0,
            };
            let plan = TransformPlan {
                keys: keys.clone(),
                plains: vec![&plain],
                outputs: vec![OutputPlan::beside(vec![GiantStep {
                    key: Some(2),
                    terms: vec![term(0), term(1)],
                }])],
            };
            let mut results = cpu.rotate_many((&c0, &c1), &keys).unwrap();
            results.extend(
                cpu.linear_transform(&[(&c0, &c1)], &plan, Basis::empty())
                    .unwrap(),
            );
            results
        };
        let cpu = || Cpu::new(chain.clone(), CpuConfig::default()).unwrap();
        assert!(all(&cpu()) == all(&cpu().with_stored_halves()));
    }
}

/// Where memory is waited for and words are seldom refused, keys with seeds take half of it; elsewhere they
/// take what keys without seeds take.
#[test]
fn keys_keep_seeds_where_it_pays() {
    for (near, seldom) in [
        (2f64.powi(45), true),
        (2f64.powi(49) + 2f64.powi(20), false),
    ] {
        let chain = Chain::new(10, &ntt_primes_near(near, 10, &[], 3).unwrap()).unwrap();
        let (digits, special) = ([Basis::range(0, 2)], Basis::single(2));
        let mut samples = Samples::new(&chain, 3);
        let g = GaloisElement::rotation(1, 10);
        let mut key = samples.key(g, &digits, special).unwrap();
        for isa in Isa::available() {
            let cpu = || Cpu::new(chain.clone(), CpuConfig { isa }).unwrap();
            key.parts[0].1 = UniformHalf::Seeded {
                expander: Expander::new(ExpanderId::Aes128, [1; 32]),
                stream: Stream::default(),
            };
            let kept = cpu().prepare_key(&key).unwrap().bytes();
            let stored = cpu()
                .with_stored_halves()
                .prepare_key(&key)
                .unwrap()
                .bytes();
            assert_eq!(kept, CpuKey::bytes_of(&chain, isa, key.basis(), 1).unwrap());
            let made = seldom && isa == Isa::Avx512Ifma;
            assert_eq!(kept < stored * 3 / 5, made, "{isa:?}: {kept} of {stored}");
            // Seeds of another function are expanded once.
            key.parts[0].1 = UniformHalf::Seeded {
                expander: Expander::new(ExpanderId::Blake3, [1; 32]),
                stream: Stream::default(),
            };
            assert_eq!(cpu().prepare_key(&key).unwrap().bytes(), stored);
        }
    }
}

#[test]
fn the_reference_conforms() {
    if let Err(e) = conformance::check_all(|chain| Ok(Reference::new(chain))) {
        panic!("{e}");
    }
}
