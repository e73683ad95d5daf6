//! Power attention and layout maps against naive loops, on slots in the clear that keep the
//! scheme's level and scale rules.
#![allow(clippy::unwrap_used)] // a test's way to fail

use proptest::prelude::*;
use veilformer_circuits::attention::{AttentionShape, POWER_ATTENTION_FACTOR, power_attention};
use veilformer_circuits::reduce::weighted_slot_sum;
use veilformer_circuits::testing::{ClearOps, toy_params};
use veilformer_circuits::transform::{Chunk, Layout, LayoutMap, Weight};
use veilformer_ckks::{Complex, Ops, SlotVector};

fn value(a: usize, b: usize, seed: u64) -> f64 {
    let x =
        (a as u64 * 131 + b as u64 * 31 + seed * 7919).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    x as f64 / (1u64 << 24) as f64 * 2.0 - 1.0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn attention_is_the_naive_double_loop_for_every_sentence(
        log_tokens in 1u32..5, log_heads in 0u32..3, log_dim in 0u32..3, log_batch in 0u32..3,
        real in 1usize..17, seed in 0u64..100,
    ) {
        let params = toy_params(4);
        let (tokens, heads, dim) = (1usize << log_tokens, 1usize << log_heads, 1usize << log_dim);
        let batch = 1usize << log_batch;
        let shape = AttentionShape { tokens, heads, dim, batch };
        prop_assume!(shape.period() <= params.slots());
        // Sentences of unequal lengths, each at the end of its tokens.
        let lengths: Vec<usize> = (0..batch).map(|b| 1 + (real + 3 * b) % tokens).collect();
        let run = tokens * batch;
        let chunks = params.slots() / run;
        let rows: Vec<Option<usize>> = (0..heads * dim).map(Some).collect();
        let layout = Layout::doubled(&rows, run, chunks);
        let at = |f: usize, t: usize, b: usize, which: u64| {
            let real = t + lengths[b] >= tokens;
            if real { value(f, t * 8 + b, seed + which) } else { 0.0 }
        };
        let table = |which: u64| -> Vec<Vec<f64>> {
            let row = |f| (0..run).map(|j| at(f, j / batch, j % batch, which)).collect();
            (0..heads * dim).map(row).collect()
        };
        let mut ops = ClearOps::new(&params);
        let level = params.max_level();
        let mut encrypt = |which| ops.encrypt(&SlotVector::Dense(layout.pack(&table(which))), level).unwrap();
        let (cq, ck, cv) = (encrypt(1), encrypt(2), encrypt(3));
        let out = power_attention(&mut ops, &cq, &ck, &cv, shape).unwrap();
        prop_assert_eq!(ops.level(&out), level - 3);
        let slots = ops.decrypt(&out);
        for (c, chunk) in layout.first_halves().chunks.iter().enumerate() {
            let Chunk::Feature(f) = chunk else { continue };
            let head = f % heads;
            for j in 0..run {
                let (t, b) = (j / batch, j % batch);
                let mut want = 0.0;
                for u in 0..tokens {
                    let dot: f64 = (0..dim)
                        .map(|i| at(i * heads + head, t, b, 1) * at(i * heads + head, u, b, 2))
                        .sum();
                    want += dot * dot * at(*f, u, b, 3);
                }
                let got = slots[c * run + j] / POWER_ATTENTION_FACTOR;
                prop_assert!((got - Complex::new(want, 0.0)).norm() < 1e-6, "{} {} {} {}", got, want, t, b);
            }
        }
    }

    #[test]
    fn layout_maps_are_the_naive_matrix_product(
        inputs in 1usize..20, outputs in 1usize..20, log_run in 0u32..4, doubled in any::<bool>(), seed in 0u64..100,
    ) {
        let params = toy_params(2);
        let run = 1usize << log_run;
        let chunks = params.slots() / run;
        let rows = if doubled { 2 * inputs.next_power_of_two() } else { inputs };
        prop_assume!(rows <= chunks && outputs <= chunks);
        let ids: Vec<usize> = (0..inputs).collect();
        let source = if doubled {
            let rows: Vec<Option<usize>> = ids.iter().map(|i| Some(*i)).collect();
            Layout::doubled(&rows, run, chunks)
        } else {
            Layout::plain(&ids, run, chunks)
        };
        let target = Layout::plain(&(0..outputs).collect::<Vec<_>>(), run, chunks);
        // Some weights are zero: their diagonals may vanish.
        let weight = |j: usize, i: usize| if (i + j).is_multiple_of(3) { 0.0 } else { value(j, i, seed) };
        prop_assume!((0..outputs).any(|j| (0..inputs).any(|i| weight(j, i) != 0.0)));
        let table: Vec<Vec<f64>> = ids.iter().map(|i| (0..run).map(|t| value(*i, t, seed + 9)).collect()).collect();
        let mut ops = ClearOps::new(&params);
        let ct = ops.encrypt(&SlotVector::Dense(source.pack(&table)), 2).unwrap();
        let map = LayoutMap { sources: vec![(&source, &weight as Weight<'_>)], target: &target };
        let transform = map.transform(&mut ops, 2).unwrap();
        let out = ops.linear_transform(&[&ct], &transform).unwrap();
        let slots = ops.decrypt(&out);
        for (c, chunk) in target.chunks.iter().enumerate() {
            for t in 0..run {
                let want: f64 = match chunk {
                    Chunk::Feature(j) => (0..inputs).map(|i| weight(*j, i) * table[i][t]).sum(),
                    Chunk::Junk => 0.0,
                };
                prop_assert!((slots[c * run + t] - Complex::new(want, 0.0)).norm() < 1e-6);
            }
        }
    }
}

#[test]
fn the_weighted_sum_stands_in_every_slot() {
    let params = toy_params(2);
    let n = params.slots();
    let mut ops = ClearOps::new(&params);
    let x: Vec<f64> = (0..n).map(|i| value(i, 1, 3)).collect();
    let w: Vec<f64> = (0..n).map(|i| value(i, 2, 3)).collect();
    let ct = ops.encrypt(&SlotVector::real(&x), 1).unwrap();
    let sum = weighted_slot_sum(&mut ops, &[(&ct, SlotVector::real(&w))], 1, |_, _| {}).unwrap();
    let want: f64 = x.iter().zip(&w).map(|(a, b)| a * b).sum();
    assert!(
        ops.decrypt(&sum)
            .iter()
            .all(|s| (s - Complex::new(want, 0.0)).norm() < 1e-4)
    );
    let operands = [(&ct, SlotVector::real(&w))];
    let sums = weighted_slot_sum(&mut ops, &operands, 8, |_, _| {}).unwrap();
    for (j, got) in ops.decrypt(&sums).iter().enumerate() {
        let own = x.iter().zip(&w).skip(j % 8).step_by(8);
        let want: f64 = own.map(|(a, b)| a * b).sum();
        assert!((got - Complex::new(want, 0.0)).norm() < 1e-4);
    }
    assert!(weighted_slot_sum(&mut ops, &operands, 3, |_, _| {}).is_err());
    assert!(weighted_slot_sum::<ClearOps>(&mut ops, &[], 1, |_, _| {}).is_err());
}
