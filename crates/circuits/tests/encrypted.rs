//! Circuits on real ciphertexts over a toy ring, against the same function in the clear.
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;

use veilformer_circuits::polynomial::{Chebyshev, EvaluationPlan, InputMap, evaluate};
use veilformer_circuits::testing::ClearOps;
use veilformer_ckks::{
    EvaluationKeys, Evaluator, KeyList, KeyPurpose, Ops, Params, ParamsSpec, SecurityLevel,
    SlotVector,
};
use veilformer_ring::{Cpu, CpuConfig, Isa};
use veilformer_secret::{Decryptor, Encryptor, KeyGenerator};

fn toy() -> Params {
    ParamsSpec {
        log_n: 10,
        first_bits: 48,
        scale_bits: 40,
        levels: 6,
        special_bits: 48,
        special_count: 2,
        digit_limbs: 2,
        security: SecurityLevel::Bits128,
    }
    .validate_insecure_for_tests()
    .unwrap()
}

/// Several polynomials of one plan on encrypted slots, the interval's ends included.
#[test]
fn polynomials_on_ciphertexts() {
    let params = toy();
    let top = params.max_level();
    let interval = (-3.0, 5.0);
    let functions: [fn(f64) -> f64; 3] =
        [f64::tanh, |x| (x * 0.5).cos(), |x| 1.0 / (1.0 + (-x).exp())];
    let polynomials: Vec<Chebyshev> = functions
        .iter()
        .zip([31, 16, 23])
        .map(|(f, degree)| Chebyshev::fit(f, degree, interval).unwrap())
        .collect();
    let plan = EvaluationPlan::new(&polynomials, InputMap::Affine).unwrap();
    assert_eq!(plan.depth(), 6);

    let n = params.slots();
    let xs: Vec<f64> = (0..n)
        .map(|i| -3.0 + 8.0 * i as f64 / (n - 1) as f64)
        .collect();
    let slots = SlotVector::real(&xs);

    // The keys that the circuit needs are those that the clear run noted.
    let mut clear = ClearOps::new(&params);
    let x = clear.encrypt(&slots, top).unwrap();
    evaluate(&mut clear, &x, &plan).unwrap();
    let list: KeyList = clear.keys().clone();
    assert_eq!(
        list.iter().collect::<Vec<_>>(),
        [(KeyPurpose::Relinearization, top - 1)]
    );

    let mut generator = KeyGenerator::insecure_deterministic_for_tests(&params, 1).unwrap();
    let secret = generator.secret_key().unwrap();
    let stored = generator
        .evaluation_keys(&secret, &list, [0; 32], &mut |_, _| {
            ControlFlow::Continue(())
        })
        .unwrap();
    let backend = Cpu::new(params.chain().clone(), CpuConfig { isa: Isa::detect() }).unwrap();
    let keys = EvaluationKeys::prepare(&params, &backend, &stored).unwrap();
    let mut ops = Evaluator::new(&params, &backend, &keys).unwrap();
    let x = Encryptor::insecure_deterministic_for_tests(&secret, 2)
        .unwrap()
        .encrypt_at(&slots, top, params.scale_at(top))
        .unwrap();
    let x = ops.import(x.expand(&params).unwrap()).unwrap();

    let outputs = evaluate(&mut ops, &x, &plan).unwrap();
    for (y, p) in outputs.iter().zip(&polynomials) {
        assert_eq!(ops.level(y), 0);
        assert!(ops.scale(y).matches(params.scale_at(0)));
        let host = y.export(&backend).unwrap();
        let got = Decryptor::new(&secret)
            .unwrap()
            .decrypt(&host)
            .unwrap()
            .reveal_to_owner()
            .unwrap();
        let worst = xs
            .iter()
            .zip(got.iter())
            .map(|(x, z)| (z.re - p.evaluate(*x)).abs().max(z.im.abs()))
            .fold(0.0, f64::max);
        eprintln!("degree {}: 2^{:.1}", p.degree(), worst.log2());
        assert!(worst < 2f64.powi(-20), "degree {}: {worst:e}", p.degree());
    }
}
