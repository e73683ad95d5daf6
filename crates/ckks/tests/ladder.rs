//! Chains whose outer levels have primes of other sizes: scales, digits, what is refused, files.
#![allow(clippy::unwrap_used)] // a test's way to fail

use proptest::prelude::*;
use veilformer_ckks::container::{params_from_bytes, params_to_bytes};
use veilformer_ckks::testing::toy_spec;
use veilformer_ckks::*;
use veilformer_ring::{Basis, Cpu, CpuConfig, Isa, ntt_primes_near};

/// The chain of a bootstrap that leaves 14 levels.
fn bootstrap_spec() -> ParamsSpec {
    ParamsSpec {
        log_n: 16,
        first_bits: 50,
        scale_bits: 40,
        levels: 30,
        special_bits: 50,
        special_count: 6,
        digit_limbs: 6,
        security: SecurityLevel::Bits128,
    }
}

fn ladder(below: (u32, usize), above: (u32, usize)) -> Ladder {
    Ladder {
        below: vec![below.0; below.1],
        above: vec![above.0; above.1],
    }
}

/// What the documentation of `Params` says about scales; returns the largest distance of a scale
/// from its power of two, relative.
fn check_scales(params: &Params, ladder: &Ladder) -> f64 {
    let top = params.max_level();
    let (bottom, middle_top) = (ladder.below.len(), top - ladder.above.len());
    assert_eq!(params.middle(), bottom..=middle_top);
    let bits = |level: usize| match level {
        _ if level > middle_top => ladder.above[level - middle_top - 1],
        _ if level < bottom => ladder.below[level.max(1) - 1],
        _ => params.spec().scale_bits,
    };
    let mut drift = 0f64;
    for level in 0..=top {
        let scale = params.scale_at(level);
        let power = 2f64.powi(bits(level) as i32);
        drift = drift.max((scale.value() / power - 1.0).abs());
        if level == top || bits(level) != bits(level + 1) {
            assert_eq!(scale.value(), power, "level {level} begins a table");
        } else {
            let above = params.scale_at(level + 1);
            let prime = params.product(params.step_at(level + 1).drop);
            assert_eq!(above.product(above).divide(prime), scale, "level {level}");
        }
        if level > 0 {
            let prime = params.product(params.step_at(level).drop).log2();
            let expected = match level {
                _ if level > middle_top => ladder.above[level - middle_top - 1],
                _ if level <= bottom => ladder.below[level - 1],
                _ => params.spec().scale_bits,
            };
            assert!((prime - f64::from(expected)).abs() < 0.01, "level {level}");
        }
    }
    drift
}

/// Every digit within P, none that could have taken the next prime.
fn check_digits(params: &Params) {
    let log = |basis| params.chain().product_log2(basis);
    let room = log(params.special()) + 0.5;
    let mut next = 0;
    for (i, &digit) in params.digits().iter().enumerate() {
        assert_eq!(digit.iter().next(), Some(next));
        next += digit.len();
        assert!(log(digit) <= room && digit.len() <= 2 * params.spec().digit_limbs);
        if let Some(&following) = params.digits().get(i + 1) {
            let first = veilformer_ring::Basis::single(following.iter().next().unwrap());
            let full = digit.len() == 2 * params.spec().digit_limbs;
            assert!(full || log(digit) + log(first) > room, "digit {i}");
        }
    }
    assert_eq!(next, params.basis_at(params.max_level()).len());
}

/// Every level in one band, whose digits are its primes, none of them in P and each below it; no key has
/// more bits than the largest. Where fewer conversions and inner products were worth it, NTTs are up to
/// a third more than digits and P of the highest level would take.
fn check_bands(params: &Params, purpose: KeyPurpose) {
    let log = |basis| params.chain().product_log2(basis);
    let (lower, highest) = {
        let (highest, lower) = params.bands(purpose).split_last().unwrap();
        (lower, highest)
    };
    assert_eq!(*highest.levels.end(), params.max_level());
    assert_eq!(
        (&*highest.digits, highest.special),
        (params.digits(), params.special())
    );
    let mut next = 0;
    for (number, band) in params.bands(purpose).iter().enumerate() {
        assert_eq!(*band.levels.start(), next);
        next = band.levels.end() + 1;
        let top = params.covering(*band.levels.end());
        let union = band.digits.iter().fold(Basis::empty(), |all, digit| {
            assert!(all.is_disjoint(*digit));
            all.union(*digit)
        });
        assert_eq!(union, top);
        assert!(band.special.is_disjoint(top));
        assert!(log(top.union(band.special)) <= params.log_qp() + 1e-9);
        for level in band.levels.clone() {
            assert_eq!(
                (
                    params.band_at(purpose, level),
                    params.special_at(purpose, level)
                ),
                (number, band.special)
            );
            let transforms = |digits: usize, special: Basis| {
                let limbs = params.covering(level).len() + special.len();
                limbs * (digits + 2)
            };
            let digits = params.digits_at(purpose, level);
            let own = transforms(digits.len(), band.special);
            let of_highest = highest.digits.iter();
            let of_highest = of_highest.filter(|d| !d.is_disjoint(params.covering(level)));
            let whole = transforms(of_highest.count(), params.special());
            assert!(
                own <= whole + whole / 3,
                "level {level}: {own} NTTs, not {whole}"
            );
        }
    }
    for band in lower {
        for digit in &band.digits {
            assert!(
                log(*digit) <= log(band.special) - 4.0
                    && digit.len() <= 2 * params.spec().digit_limbs
            );
        }
    }
}

/// A chain of ten levels between those of a bootstrap.
fn with_bands() -> Params {
    let spec = ParamsSpec {
        levels: 26,
        special_count: 9,
        digit_limbs: 9,
        ..bootstrap_spec()
    };
    spec.validate_ladder(&ladder((44, 3), (50, 13))).unwrap()
}

#[test]
fn lower_levels_of_a_bootstrap_have_digits_of_their_own() {
    let params = with_bands();
    check_bands(&params, KeyPurpose::Rotation(1));
    check_bands(&params, KeyPurpose::Relinearization);
    // Digits and primes of P: few where little is to be covered; and where EvalMod begins, two of
    // the ciphertext primes above stand beside the nine special ones.
    let purpose = KeyPurpose::Relinearization;
    let shape = |level| {
        (
            params.digits_at(purpose, level).len(),
            params.special_at(purpose, level).len(),
        )
    };
    assert_eq!(
        [1, 3, 7, 12, 15, 23, 26].map(shape),
        [(1, 2), (1, 4), (1, 7), (1, 11), (2, 7), (2, 11), (3, 9)]
    );
    assert!(params.special_at(purpose, 23).contains(params.max_level()));
}

#[test]
fn a_key_list_names_a_key_for_each_band() {
    let params = with_bands();
    let mut list = KeyList::default();
    for level in [26, 3, 20, 4] {
        list.need(KeyPurpose::Rotation(1), level, &params);
    }
    for level in [12, 4, 10, 3] {
        list.need(KeyPurpose::Relinearization, level, &params);
    }
    list.need_up_to(KeyPurpose::Conjugation, 4, &params);
    assert_eq!(list.rotations, [(1, 4), (1, 26)]);
    assert_eq!(list.relinearization, [3, 4, 12]);
    assert_eq!(list.conjugation, [1, 2, 3, 4]);
}

/// Where ciphertext primes stand in P, a plaintext still has to fit those of its level.
#[test]
fn plaintexts_do_without_the_primes_of_p() {
    let spec = ParamsSpec {
        levels: 6,
        special_bits: 50,
        special_count: 1,
        digit_limbs: 1,
        ..toy_spec(8)
    };
    let params = spec
        .validate_ladder_insecure_for_tests(&ladder((34, 1), (40, 2)))
        .unwrap();
    let lent = params
        .special_at(KeyPurpose::Rotation(1), 1)
        .minus(params.special());
    assert!(!lent.is_empty());
    let backend = Cpu::new(params.chain().clone(), CpuConfig { isa: Isa::Scalar }).unwrap();
    let keys = EvaluationKeys::empty(&params, KeyId::from_bytes([1; 16]));
    let evaluator = Evaluator::new(&params, &backend, &keys).unwrap();
    let scale = params.scale_at(1);
    for (bits, fits) in [(-2.0, true), (1.0, false)] {
        let value = (params.log_q(1) + bits - scale.log2()).exp2();
        for slots in [
            SlotVector::Periodic(vec![Complex::new(value, 0.0)]),
            SlotVector::Constant(Complex::new(value, 0.0)),
        ] {
            assert_eq!(evaluator.encode(&slots, 1, scale).is_ok(), fits);
            assert_eq!(evaluator.encode_extended(&slots, 1, scale).is_ok(), fits);
        }
    }
}

#[test]
fn the_chain_of_a_bootstrap_is_secure() {
    let sizes = ladder((42, 3), (50, 13));
    let params = bootstrap_spec().validate_ladder(&sizes).unwrap();
    assert!(
        (params.log_qp() - 1686.0).abs() < 0.1,
        "{}",
        params.log_qp()
    );
    assert_eq!(params.security().bits(), 128);
    assert!(params.primes().iter().all(|&q| q < 1 << 50));
    let drift = check_scales(&params, &sizes);
    assert!(drift < 2f64.powi(-13), "{drift:e}");
    check_digits(&params);
    let lengths: Vec<usize> = params.digits().iter().map(|d| d.len()).collect();
    assert_eq!(lengths, [7, 7, 6, 6, 5]);

    let spec = ParamsSpec {
        levels: 26,
        special_count: 9,
        digit_limbs: 9,
        ..bootstrap_spec()
    };
    let params = spec.validate_ladder(&sizes).unwrap();
    assert_eq!(params.middle(), 3..=13);
    assert_eq!(params.digits().len(), 3);
    check_digits(&params);

    // Two levels more, or one special prime.
    for (levels, special_count) in [(32, 6), (30, 7)] {
        let spec = ParamsSpec {
            levels,
            special_count,
            ..bootstrap_spec()
        };
        assert!(matches!(
            spec.clone().validate_ladder(&sizes),
            Err(CkksError::Insecure { .. })
        ));
        let marked = spec.validate_ladder_insecure_for_tests(&sizes).unwrap();
        assert!(marked.is_insecure() && marked.digest() != params.digest());
    }
}

#[test]
fn without_outer_levels_it_is_the_plain_chain() {
    let plain = toy_spec(10).validate_insecure_for_tests().unwrap();
    let ordinary = plain.spec().scale_bits;
    for sizes in [
        Ladder::default(),
        ladder((ordinary, 1), (ordinary, 1)),
        ladder((ordinary, 3), (ordinary, 0)),
    ] {
        let made = toy_spec(10).validate_ladder_insecure_for_tests(&sizes);
        assert_eq!(made.unwrap().digest(), plain.digest());
    }
    assert_eq!(plain.middle(), 0..=plain.max_level());
    let trimmed = Ladder {
        below: vec![34, ordinary],
        above: vec![],
    };
    let made = toy_spec(10).validate_ladder_insecure_for_tests(&trimmed);
    assert_eq!(made.unwrap().middle(), 1..=3);
}

#[test]
fn impossible_ladders_are_errors() {
    let refused = |below: &[u32], above: &[u32]| {
        let sizes = Ladder {
            below: below.to_vec(),
            above: above.to_vec(),
        };
        matches!(
            toy_spec(10).validate_ladder_insecure_for_tests(&sizes),
            Err(CkksError::Params { .. })
        )
    };
    assert!(!refused(&[34], &[40]));
    assert!(refused(&[31], &[]), "one bit from the scale");
    assert!(refused(&[], &[29]));
    assert!(refused(&[34], &[40, 40]), "no middle level");
    assert!(refused(&[34, 34, 34, 34], &[]));
    assert!(!refused(&[], &[51]), "two primes");
    assert!(refused(&[], &[61]));
    assert!(refused(&[14], &[]));
    assert!(refused(&[30, 34], &[]), "an ordinary level outside");
    assert!(refused(&[], &[40, 30]));
    assert!(refused(&[u32::MAX], &[]));
    let near = toy_spec(10).validate_ladder_insecure_for_tests(&ladder((31, 1), (40, 1)));
    let error = near.unwrap_err().to_string();
    assert!(error.contains("next to scales of 30"), "{error}");
    // More primes than levels count.
    let many = ladder((60, MAX_PRIMES / 2), (0, 0));
    let spec = ParamsSpec {
        levels: many.below.len() + 1,
        ..toy_spec(10)
    };
    let error = spec.validate_ladder_insecure_for_tests(&many).unwrap_err();
    assert!(error.to_string().contains("primes, at most"), "{error}");
    // A prime that is larger than P.
    let spec = ParamsSpec {
        special_bits: 40,
        special_count: 1,
        digit_limbs: 1,
        ..toy_spec(10)
    };
    let sizes = ladder((0, 0), (45, 1));
    assert!(spec.validate_ladder_insecure_for_tests(&sizes).is_err());
}

/// Two primes of an ordinary level, or of level 0, make words of a chain and no ladder.
#[test]
fn two_primes_of_an_ordinary_level_are_no_ladder() {
    let spec = toy_spec(8);
    let mut used = Vec::new();
    let mut near = |bits: i32, count: usize| {
        let found = ntt_primes_near(2f64.powi(bits), spec.log_n, &used, count).unwrap();
        used.extend(&found);
        found
    };
    let (first, steps) = (near(40, 1), near(30, 3));
    let (first_halves, halves) = (near(20, 2), near(15, 2));
    let special = near(40, 2);
    let chains = [
        [&first, &steps[..2], &halves].concat(),
        [&first_halves, &steps[..]].concat(),
    ];
    for (chain, ends) in chains.iter().zip([[1, 2, 3, 5], [2, 3, 4, 5]]) {
        let primes = [&chain[..], &special].concat();
        let levels = ends.map(Basis::first);
        let params = Params::from_levels(spec.clone(), &primes, &levels, false).unwrap();
        assert_eq!(params.middle(), 0..=3);
        for (level, own) in levels.iter().enumerate() {
            assert_eq!(params.basis_at(level), *own);
            assert!((params.scale_at(level).log2() - 30.0).abs() < 1.0);
        }
        let back = params_from_bytes(&params_to_bytes(&params).unwrap()).unwrap();
        assert_eq!(back, params);
    }
}

/// The digest of a chain with a ladder is that of the version that chose special primes below their size.
#[test]
fn files_and_digests_are_stable() {
    let sizes = ladder((34, 1), (40, 1));
    let params = toy_spec(10)
        .validate_ladder_insecure_for_tests(&sizes)
        .unwrap();
    let back = params_from_bytes(&params_to_bytes(&params).unwrap()).unwrap();
    assert_eq!(back, params);
    assert_eq!((back.middle(), back.digits()), (1..=2, params.digits()));
    for level in 0..=params.max_level() {
        assert_eq!(back.scale_at(level), params.scale_at(level));
    }
    let digest: String = params.digest().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        digest,
        "844c4841101a539975d3799407b911eae69562481b4b66abdbb66504cfd25d2a"
    );

    let sizes = ladder((42, 3), (50, 13));
    let params = bootstrap_spec().validate_ladder(&sizes).unwrap();
    let back = params_from_bytes(&params_to_bytes(&params).unwrap()).unwrap();
    assert_eq!(back.digest(), params.digest());
}

proptest! {
    #[test]
    fn ladders_follow_their_rules(
        below in proptest::collection::vec(prop_oneof![22u32..=28, 32u32..=60], 0..4),
        above in proptest::collection::vec(prop_oneof![22u32..=28, 32u32..=60], 0..4),
        middle in 1usize..5,
        special_count in 2usize..5,
        digit_limbs in 1usize..4,
    ) {
        let spec = ParamsSpec {
            levels: below.len() + middle + above.len(),
            special_bits: 50,
            special_count,
            digit_limbs,
            ..toy_spec(8)
        };
        let sizes = Ladder { below, above };
        let params = spec.clone().validate_ladder_insecure_for_tests(&sizes).unwrap();
        prop_assert!(check_scales(&params, &sizes) < 2f64.powi(-6));
        if !sizes.below.is_empty() || !sizes.above.is_empty() {
            check_digits(&params);
            check_bands(&params, KeyPurpose::Rotation(1));
            check_bands(&params, KeyPurpose::Relinearization);
        } else {
            prop_assert_eq!(params.bands(KeyPurpose::Rotation(1)).len(), 1);
        }
        let mut known = 1;
        for (level, step) in (1..=params.max_level()).map(|l| (l, params.step_at(l))) {
            let bits = params.product(step.drop).log2();
            prop_assert_eq!(step.drop.len(), if bits.round() > 50.0 { 2 } else { 1 });
            known += step.drop.len();
            prop_assert_eq!(params.basis_at(level), veilformer_ring::Basis::first(known));
        }
        let levels: Vec<_> = (0..=params.max_level()).map(|l| params.basis_at(l)).collect();
        let back = Params::from_levels(spec, params.primes(), &levels, false).unwrap();
        prop_assert_eq!(back.digest(), params.digest());
        prop_assert_eq!(back.middle(), params.middle());
        let back = params_from_bytes(&params_to_bytes(&params).unwrap()).unwrap();
        prop_assert_eq!(back.digest(), params.digest());
        for level in 0..=params.max_level() {
            prop_assert_eq!(back.scale_at(level), params.scale_at(level));
        }
    }
}
