//! The encoder: round trips, compact forms against the dense one, precision, refusals.
#![allow(clippy::unwrap_used)] // a test's way to fail

use proptest::prelude::*;
use veilformer_ckks::testing::{TestRng, tiny_params, toy_params};
use veilformer_ckks::*;
use veilformer_ring::{Backend, Cpu, CpuConfig, PlainPoly, RnsPoly};

fn random(rng: &mut TestRng, count: usize) -> Vec<Complex> {
    (0..count)
        .map(|_| Complex::new(rng.symmetric(), rng.symmetric()))
        .collect()
}

#[test]
fn round_trip_error_is_the_rounding() {
    let params = toy_params();
    let encoder = Encoder::new(&params).unwrap();
    let mut rng = TestRng::new(5);
    let slots = random(&mut rng, params.slots());
    for bits in [20, 30, 40, 60] {
        let scale = Scale::power_of_two(bits);
        let poly = encoder
            .encode(&SlotVector::Dense(slots.clone()), params.basis_at(3), scale)
            .unwrap();
        let back = encoder.decode(&poly, scale).unwrap();
        let mean_square: f64 = slots
            .iter()
            .zip(&back)
            .map(|(a, b)| (a - b).norm_sqr())
            .sum::<f64>()
            / params.slots() as f64;
        // N/12 from rounding; at 2^60 what double precision leaves, 2^-48 at most.
        let rounding = (params.n() as f64 / 12.0).sqrt() / scale.value();
        let bound = 1.2 * rounding + 2f64.powi(-50);
        assert!(
            mean_square.sqrt() < bound,
            "2^{bits}: {:e}",
            mean_square.sqrt()
        );
        if bits < 50 {
            assert!(mean_square.sqrt() > 0.8 * rounding);
        }
    }
}

#[test]
fn slots_are_the_values_at_powers_of_five() {
    // X itself has the slots exp(i pi 5^j / N).
    let params = tiny_params();
    let encoder = Encoder::new(&params).unwrap();
    let mut x = vec![0i64; params.n()];
    x[1] = 1 << 20;
    let poly = RnsPoly::from_signed(params.chain(), params.basis_at(0), &x).unwrap();
    let slots = encoder.decode(&poly, Scale::power_of_two(20)).unwrap();
    let mut power = 1u32;
    for slot in slots {
        let angle = std::f64::consts::PI * f64::from(power) / params.n() as f64;
        assert!((slot - Complex::from_polar(1.0, angle)).norm() < 1e-12);
        power = power * 5 % (2 * params.n() as u32);
    }
}

/// A plaintext as a full polynomial, by adding it to zero.
fn spread(params: &Params, plain: &PlainPoly) -> RnsPoly {
    let backend = Cpu::new(params.chain().clone(), CpuConfig::default()).unwrap();
    let prepared = backend.prepare_plain(plain).unwrap();
    let zero = backend
        .zero(plain.basis(), veilformer_ring::Form::Ntt)
        .unwrap();
    backend.add_plain(&zero, &prepared).unwrap()
}

#[test]
fn compact_plaintexts_are_the_dense_one() {
    let params = toy_params();
    let encoder = Encoder::new(&params).unwrap();
    let mut rng = TestRng::new(6);
    // With the special primes, as factors of rotated inputs are.
    let basis = params.rotation_basis(2);
    let scale = params.scale_at(2);
    let mut vectors = vec![
        SlotVector::real_constant(-1.25),
        SlotVector::Constant(Complex::new(0.5, 3.0)),
    ];
    let mut period = 1;
    while period <= params.slots() {
        vectors.push(SlotVector::Periodic(random(&mut rng, period)));
        period *= 2;
    }
    for vector in vectors {
        let plain = encoder.encode_plain(&vector, basis, scale).unwrap();
        let entries = vector.entries().len();
        match &plain {
            PlainPoly::Scalar { residues, .. } => assert_eq!(residues.len(), basis.len()),
            PlainPoly::Periodic { period, values, .. } => {
                assert_eq!(*period, 2 * entries);
                assert_eq!(values.len(), period * basis.len());
            }
            PlainPoly::Dense(_) => assert_eq!(entries, params.slots()),
        }
        let whole = encoder.encode(&vector, basis, scale).unwrap();
        assert!(spread(&params, &plain) == whole, "{entries} entries");
        // The same slots written out give the same polynomial up to the rounding of the FFT.
        let dense = SlotVector::Dense(vector.to_dense(params.slots()).unwrap().into_owned());
        let back = encoder
            .decode(&encoder.encode(&dense, basis, scale).unwrap(), scale)
            .unwrap();
        for (j, slot) in back.iter().enumerate() {
            assert!((slot - vector.at(j)).norm() < 1e-6);
        }
    }
}

#[test]
fn every_size_of_coefficient_is_reduced_right() {
    let params = toy_params();
    let encoder = Encoder::new(&params).unwrap();
    let backend = Cpu::new(params.chain().clone(), CpuConfig::default()).unwrap();
    let mut rng = TestRng::new(7);
    let slots = SlotVector::Dense(random(&mut rng, params.slots()));
    for bits in [10, 28, 33, 45, 62, 75, 95] {
        let scale = Scale::power_of_two(bits);
        let coefficients = encoder.coefficients(&slots, scale).unwrap().to_i128();
        let basis = params.basis_at(3);
        let mut expected = RnsPoly::from_i128(params.chain(), basis, &coefficients).unwrap();
        backend.forward_ntt(&mut expected).unwrap();
        assert!(
            encoder.encode(&slots, basis, scale).unwrap() == expected,
            "2^{bits}"
        );
    }
}

#[test]
fn refusals() {
    let params = toy_params();
    let encoder = Encoder::new(&params).unwrap();
    let scale = params.scale_at(3);
    let basis = params.basis_at(0);
    let fits = SlotVector::real_constant(511.0);
    assert!(encoder.encode_plain(&fits, basis, scale).is_ok());
    for vector in [
        SlotVector::real_constant(513.0),
        SlotVector::real_constant(1e300),
        SlotVector::real_constant(f64::MAX),
        SlotVector::real_periodic(&[f64::MAX, f64::MAX]),
        SlotVector::real_constant(f64::INFINITY),
        SlotVector::real(&[1.0]),
    ] {
        assert!(
            encoder.encode_plain(&vector, basis, scale).is_err(),
            "{vector:?}"
        );
        assert!(encoder.encode(&vector, basis, scale).is_err());
        // The special primes do not make room.
        let extended = params.rotation_basis(0);
        assert!(encoder.encode_plain(&vector, extended, scale).is_err());
    }
    let outside = veilformer_ring::Basis::single(100);
    assert!(encoder.encode_plain(&fits, outside, scale).is_err());
    assert!(encoder.encode(&fits, outside, scale).is_err());
    let other = tiny_params();
    let foreign = RnsPoly::zero(other.chain(), other.basis_at(0), veilformer_ring::Form::Ntt);
    assert!(encoder.decode(&foreign.unwrap(), scale).is_err());
    let empty = RnsPoly::zero(
        params.chain(),
        veilformer_ring::Basis::empty(),
        veilformer_ring::Form::Ntt,
    );
    assert!(encoder.decode(&empty.unwrap(), scale).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn products_of_slots_are_products_of_polynomials(seed in any::<u64>(), log_period in 0u32..=9) {
        let params = toy_params();
        let encoder = Encoder::new(&params).unwrap();
        let backend = Cpu::new(params.chain().clone(), CpuConfig::default()).unwrap();
        let mut rng = TestRng::new(seed);
        let a = SlotVector::Dense(random(&mut rng, params.slots()));
        let b = SlotVector::Periodic(random(&mut rng, 1 << log_period));
        let (basis, scale) = (params.basis_at(3), params.scale_at(3));
        let pa = encoder.encode(&a, basis, scale).unwrap();
        let pb = backend.prepare_plain(&encoder.encode_plain(&b, basis, scale).unwrap()).unwrap();
        let product = backend.mul_plain(&pa, &pb).unwrap();
        let slots = encoder.decode(&product, scale.product(scale)).unwrap();
        for (j, slot) in slots.iter().enumerate() {
            prop_assert!((slot - a.at(j) * b.at(j)).norm() < 1e-6);
        }
    }
}
