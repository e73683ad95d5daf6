//! All instruction sets of this machine give the same bits, at degrees where each path of the
//! vector kernels runs.

use veilformer_ring::conformance::{Samples, test_chain};
use veilformer_ring::{
    Backend, Basis, Chain, Cpu, CpuConfig, DiagonalTerm, Form, GaloisElement, GiantStep, Isa,
    OutputPlan, PlainPoly, RingError, RnsPoly, TransformPlan, ntt_primes_near,
};

#[test]
fn all_isas_agree_at_every_degree() {
    for log_n in 3..=17 {
        let chain = test_chain(log_n, 6, 2).unwrap();
        let digits = [Basis::range(0, 2), Basis::range(2, 4), Basis::range(4, 6)];
        let mut results = Vec::new();
        for isa in Isa::available() {
            let cpu = Cpu::new(chain.clone(), CpuConfig { isa }).unwrap();
            let mut samples = Samples::new(&chain, log_n as u8);
            let basis = Basis::range(0, 4);
            let a = samples.poly(chain.all(), Form::Coefficient).unwrap();
            let mut ntt = a.clone();
            cpu.forward_ntt(&mut ntt).unwrap();
            let mut back = ntt.clone();
            cpu.inverse_ntt(&mut back).unwrap();
            assert!(
                a == back,
                "{isa:?} at {log_n}: the inverse NTT does not invert"
            );
            let x = cpu.restrict(&ntt, basis).unwrap();
            let y = samples.poly(basis, Form::Ntt).unwrap();
            let g = GaloisElement::rotation(5, log_n);
            let key = samples.key(g, &digits, Basis::range(6, 8)).unwrap();
            let key = cpu.prepare_key(&key).unwrap();
            let (s0, s1) = cpu
                .key_switch_sum(Some((&y, &x)), &[(&x, &key)], Basis::single(3))
                .unwrap();
            let mut more = vec![ntt, s0, s1, cpu.div_round(&x, Basis::single(2)).unwrap()];
            for (c0, c1) in cpu.rotate_many((&y, &x), &[&key]).unwrap() {
                more.extend([c0, c1]);
            }
            let plain = PlainPoly::Dense(samples.poly(chain.all(), Form::Ntt).unwrap());
            let plain = cpu.prepare_plain(&plain).unwrap();
            let terms = [None, Some(0)].map(|baby| DiagonalTerm {
                input: 0,
                baby,
                plain: 0,
            });
            let giants = [None, Some(0)].map(|key| GiantStep {
                key,
                terms: terms.to_vec(),
            });
            let plan = TransformPlan {
                keys: vec![&key],
                plains: vec![&plain],
                outputs: vec![OutputPlan::beside(giants.to_vec())],
            };
            let outputs = cpu
                .linear_transform(&[(&y, &x)], &plan, Basis::single(3))
                .unwrap();
            for (c0, c1) in outputs {
                more.extend([c0, c1]);
            }
            results.push((isa, more));
        }
        for (isa, r) in &results[1..] {
            assert!(
                *r == results[0].1,
                "{isa:?} at N = 2^{log_n} differs from scalar"
            );
        }
    }
}

/// The vector kernels skip reductions where a prime leaves room for it: the largest primes of
/// every size, and the largest residues, show where the room ends.
#[test]
fn all_isas_agree_at_every_size_of_prime() {
    for log_n in [5, 8, 12, 13, 15, 17] {
        let mut primes = Vec::new();
        for bits in 40..=50 {
            let below = 2f64.powi(bits) - 2f64.powi(log_n + 5);
            primes.extend(ntt_primes_near(below, log_n as u32, &primes, 1).unwrap());
        }
        let chain = Chain::new(log_n as u32, &primes).unwrap();
        let mut samples = Samples::new(&chain, 7);
        let random = samples.poly(chain.all(), Form::Ntt).unwrap();
        let largest = RnsPoly::from_signed(&chain, chain.all(), &vec![-1; chain.n()]).unwrap();
        let mut results = Vec::new();
        for isa in Isa::available() {
            let cpu = Cpu::new(chain.clone(), CpuConfig { isa }).unwrap();
            let mut back = random.clone();
            cpu.inverse_ntt(&mut back).unwrap();
            let mut forth = back.clone();
            cpu.forward_ntt(&mut forth).unwrap();
            assert!(forth == random, "{isa:?} at {log_n}: not inverse");
            let mut high = largest.clone();
            cpu.forward_ntt(&mut high).unwrap();
            let product = cpu.mul(&high, &random).unwrap();
            // From one, a few and many primes to the others, of the largest residues as well.
            let mut all = vec![back.clone(), high, product];
            for x in [&back, &largest] {
                for drop in [Basis::single(10), Basis::range(8, 11), Basis::range(1, 11)] {
                    all.push(cpu.div_round(x, drop).unwrap());
                    let few = cpu.restrict(x, drop).unwrap();
                    all.push(cpu.extend(&few, chain.all()).unwrap());
                }
            }
            for x in [&random, &product_of(&cpu, &random).unwrap()] {
                all.push(cpu.div_round(x, Basis::range(5, 11)).unwrap());
            }
            results.push((isa, all));
        }
        for (isa, r) in &results[1..] {
            for (i, (a, b)) in results[0].1.iter().zip(r).enumerate() {
                assert!(
                    a == b,
                    "{isa:?} at N = 2^{log_n} differs from scalar in {i}"
                );
            }
        }
    }
}

/// The element-wise kernels in a row.
fn product_of(cpu: &Cpu, x: &RnsPoly) -> Result<RnsPoly, RingError> {
    let mut y = cpu.mul(x, x)?;
    cpu.mul_acc(&mut y, x, x)?;
    cpu.neg_assign(&mut y)?;
    cpu.sub_assign(&mut y, x)?;
    let factors: Vec<u64> = (0..x.basis().len() as u64).map(|i| (1 << 39) - i).collect();
    cpu.mul_scalar_assign(&mut y, &factors)?;
    Ok(y)
}
