//! Blocks.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::backend::{Backend, DiagonalTerm, GiantStep, OutputPlan};
use crate::conformance::{Samples, test_chain};
use crate::reference::Reference;
use crate::{CpuConfig, CpuPlain, GaloisElement, Isa, PlainPoly};

/// The conformance suite looks at rings that are smaller than a block: a limb in one block,
/// which it has seen, against many blocks.
#[test]
fn results_do_not_depend_on_blocks() {
    let log_n = 13;
    let chain = test_chain(log_n, 4, 2).unwrap();
    let digits = [Basis::range(0, 2), Basis::range(2, 4)];
    let (q, special) = (Basis::range(0, 4), Basis::range(4, 6));
    for isa in Isa::available() {
        let cpu = Cpu::new(chain.clone(), CpuConfig { isa }).unwrap();
        let mut samples = Samples::new(&chain, 3);
        let mut keys = Vec::new();
        for by in [1, -5, 700, 2000] {
            let g = GaloisElement::rotation(by, log_n);
            let key = samples.key(g, &digits, special).unwrap();
            keys.push(cpu.prepare_key(&key).unwrap());
        }
        let all = chain.all();
        let mut plains = vec![PlainPoly::Dense(samples.poly(all, Form::Ntt).unwrap())];
        for period in [1 << 4, 1 << 7, 1 << 10, 1 << 11] {
            plains.push(PlainPoly::Periodic {
                period,
                basis: all,
                values: samples.residues(all, period),
            });
        }
        let plains: Vec<CpuPlain> = plains
            .iter()
            .map(|p| cpu.prepare_plain(p).unwrap())
            .collect();
        let step = |key: Option<usize>, terms: usize, babies: &[Option<usize>]| GiantStep {
            key,
            terms: (0..terms)
                .map(|i| DiagonalTerm {
                    input: i % 2,
                    baby: babies[(i / 2) % babies.len()],
                    plain: i % 5,
                })
                .collect(),
        };
        let steps = |babies: &[Option<usize>]| {
            let steps = [(None, 5), (Some(3), 8), (Some(1), 2)];
            let steps = steps.map(|(key, terms)| step(key, terms, babies));
            steps.to_vec()
        };
        let rotated = steps(&[None, Some(0), Some(1), Some(2)]);
        let plain = steps(&[None]);
        // Rotated inputs; and none, with giant steps and without.
        let rotated = vec![
            OutputPlan::beside(rotated.clone()),
            OutputPlan::nested(rotated),
        ];
        let plain = vec![
            OutputPlan::beside(plain.clone()),
            OutputPlan::beside(plain[..1].to_vec()),
        ];
        let plan = |outputs: Vec<OutputPlan>| -> TransformPlan<'_, Cpu> {
            TransformPlan {
                keys: keys.iter().collect(),
                plains: plains.iter().collect(),
                outputs,
            }
        };
        let c: Vec<RnsPoly> = (0..4)
            .map(|_| samples.poly(q, Form::Ntt).unwrap())
            .collect();
        let inputs = [(&c[0], &c[1]), (&c[2], &c[3])];
        let run = |outputs: &[OutputPlan], batch: usize, block: usize| {
            let blocking = Blocking {
                batch,
                long_batch: batch,
                words: 4 * batch * block,
                longest: 1 << log_n,
            };
            let plan = plan(outputs.to_vec());
            cpu.transform_in_blocks(&inputs, &plan, Basis::single(3), blocking)
                .unwrap()
        };
        for outputs in [&rotated, &plain] {
            let whole = run(outputs, 8, 1 << log_n);
            for (batch, block) in [(8, 1 << 12), (8, 1 << 7), (3, 1 << 9), (1, 1 << 6)] {
                let cut = run(outputs, batch, block);
                assert!(cut == whole, "{isa:?}, {batch}, {block}");
            }
        }
    }
}

/// Plaintexts that are short for the ring, so that sums are made several at a time.
#[test]
fn sums_of_groups_are_those_of_the_reference() {
    sums_of_groups([1 << 2, 1 << 4, 1 << 6], 3, 4);
}

/// The same where most sums multiply one of three inputs, or two, so that more are made at a time.
#[test]
fn sums_of_different_inputs_are_those_of_the_reference() {
    sums_of_groups([1 << 2; 3], 7, 1);
    sums_of_groups([1 << 3; 3], 4, 2);
}

/// So many outputs of three sums each, of so many terms.
fn sums_of_groups(periods: [usize; 3], outputs: usize, terms: usize) {
    let log_n = 8;
    let chain = test_chain(log_n, 3, 2).unwrap();
    let digits = [Basis::range(0, 2), Basis::single(2)];
    let (q, special) = (Basis::range(0, 3), Basis::range(3, 5));
    let reference = Reference::new(chain.clone());
    let mut samples = Samples::new(&chain, 4);
    let keys: Vec<_> = [1, -5, 70]
        .into_iter()
        .map(|by| samples.key(GaloisElement::rotation(by, log_n), &digits, special))
        .map(Result::unwrap)
        .collect();
    let all = chain.all();
    let plains: Vec<PlainPoly> = periods
        .into_iter()
        .map(|period| PlainPoly::Periodic {
            period,
            basis: all,
            values: samples.residues(all, period),
        })
        .collect();
    // Sums of some of the same inputs, a third of them without a key.
    let step = |number: usize| GiantStep {
        key: [None, Some(0), Some(2)][number % 3],
        terms: (0..terms)
            .map(|i| DiagonalTerm {
                input: (i + number / 2) % 3,
                baby: None,
                plain: (i + number) % 3,
            })
            .collect(),
    };
    let output = |o: usize| OutputPlan::beside((3 * o..3 * o + 3).map(step).collect());
    let outputs: Vec<OutputPlan> = (0..outputs).map(output).collect();
    let c: Vec<RnsPoly> = (0..6)
        .map(|_| samples.poly(q, Form::Ntt).unwrap())
        .collect();
    let inputs = [(&c[0], &c[1]), (&c[2], &c[3]), (&c[4], &c[5])];
    let prepared: Vec<_> = keys
        .iter()
        .map(|key| reference.prepare_key(key).unwrap())
        .collect();
    let plan = TransformPlan {
        keys: prepared.iter().collect(),
        plains: plains.iter().collect(),
        outputs: outputs.clone(),
    };
    let drop = Basis::single(2);
    let expected = reference.linear_transform(&inputs, &plan, drop).unwrap();
    for isa in Isa::available() {
        let cpu = Cpu::new(chain.clone(), CpuConfig { isa }).unwrap();
        let keys = keys.iter().map(|key| cpu.prepare_key(key).unwrap());
        let keys: Vec<CpuKey> = keys.collect();
        let plains = plains.iter().map(|p| cpu.prepare_plain(p).unwrap());
        let plains: Vec<CpuPlain> = plains.collect();
        let plan: TransformPlan<'_, Cpu> = TransformPlan {
            keys: keys.iter().collect(),
            plains: plains.iter().collect(),
            outputs: outputs.clone(),
        };
        let made = cpu.linear_transform(&inputs, &plan, drop).unwrap();
        assert!(made == expected, "{isa:?}");
    }
}
