//! Element-wise operations on polynomials that are long enough to go past the caches here.

use super::*;
use crate::conformance::Samples;
use crate::modulus::ntt_primes_near;
use crate::reference::Reference;

#[test]
fn large_results_are_those_of_the_reference() {
    let primes = ntt_primes_near(2f64.powi(45), 11, &[], 9).unwrap();
    let chain = Chain::new(11, &primes).unwrap();
    let all = chain.all();
    assert!(goes_past(all.len() * chain.n()));
    let reference = Reference::new(chain.clone());
    let mut samples = Samples::new(&chain, 5);
    let mut poly = || samples.poly(all, Form::Ntt).unwrap();
    let (a, b) = (poly(), poly());
    let mut plains: Vec<PlainPoly> = (0..5).map(|_| PlainPoly::Dense(poly())).collect();
    plains.push(PlainPoly::Periodic {
        period: 16,
        basis: all,
        values: samples.residues(all, 16),
    });
    let theirs: Vec<_> = plains
        .iter()
        .map(|plain| reference.prepare_plain(plain).unwrap())
        .collect();
    for isa in Isa::available() {
        let cpu = Cpu::new(chain.clone(), CpuConfig { isa }).unwrap();
        assert!(cpu.add(&a, &b).unwrap() == reference.add(&a, &b).unwrap());
        assert!(cpu.sub(&a, &b).unwrap() == reference.sub(&a, &b).unwrap());
        assert!(cpu.mul(&a, &b).unwrap() == reference.mul(&a, &b).unwrap());
        let ours: Vec<_> = plains
            .iter()
            .map(|plain| cpu.prepare_plain(plain).unwrap())
            .collect();
        for (ours, theirs) in ours.iter().zip(&theirs) {
            let sum = cpu.add_plain(&a, ours).unwrap();
            assert!(sum == reference.add_plain(&a, theirs).unwrap());
        }
        // Written once; in two goes; with one that repeats.
        for some in [0..1, 0..4, 0..5, 4..6, 5..6] {
            let terms: Vec<_> = ours[some.clone()].iter().map(|p| (&a, p)).collect();
            let expected: Vec<_> = theirs[some.clone()].iter().map(|p| (&a, p)).collect();
            let sum = cpu.mul_plain_sum(&terms).unwrap();
            let expected = reference.mul_plain_sum(&expected).unwrap();
            assert!(sum == expected, "{isa:?}: {some:?}");
        }
    }
}
