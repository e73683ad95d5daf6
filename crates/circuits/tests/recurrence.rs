//! The recurrence as one map over tokens, against the loop that defines it.
#![allow(clippy::unwrap_used)] // a test's way to fail

use proptest::prelude::*;
use veilformer_circuits::recurrence::recurrence;
use veilformer_circuits::testing::{ClearOps, toy_params};
use veilformer_circuits::transform::{Chunk, Layout};
use veilformer_ckks::{Complex, Ops, SlotVector};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_window_is_the_loop_for_every_sentence(
        log_tokens in 0u32..6, log_batch in 0u32..3, features in 1usize..9, seed in 0u64..1000,
    ) {
        let params = toy_params(2);
        let (tokens, batch) = (1usize << log_tokens, 1usize << log_batch);
        let run = tokens * batch;
        prop_assume!(run * features <= params.slots());
        let chunks = params.slots() / run;
        let ids: Vec<usize> = (0..features).collect();
        let layout = Layout::plain(&ids, run, chunks);
        let value = |f: usize, t: usize, b: usize| {
            (((f * 31 + t * 7 + b * 13) as u64 + seed) % 17) as f64 / 8.5 - 1.0
        };
        // Decays that forget at once, that never do, and in between.
        let decay: Vec<f64> = ids.iter().map(|f| ((*f as u64 + seed) % 5) as f64 / 4.0).collect();
        let scale: Vec<f64> = ids.iter().map(|f| 0.5 + *f as f64 / 8.0).collect();
        let table: Vec<Vec<f64>> = ids
            .iter()
            .map(|f| (0..run).map(|j| value(*f, j / batch, j % batch)).collect())
            .collect();
        let mut ops = ClearOps::new(&params);
        let ct = ops.encrypt(&SlotVector::Dense(layout.pack(&table)), 2).unwrap();
        let map = recurrence(&mut ops, &layout, batch, [&decay, &scale], 2).unwrap();
        let out = ops.linear_transform(&[&ct], &map).unwrap();
        prop_assert_eq!(ops.level(&out), 1);
        let slots = ops.decrypt(&out);
        for (c, chunk) in layout.chunks.iter().enumerate() {
            for b in 0..batch {
                let mut state = 0.0;
                for t in 0..tokens {
                    if let Chunk::Feature(f) = chunk {
                        state = decay[*f] * state + scale[*f] * value(*f, t, b);
                    }
                    let got = slots[c * run + t * batch + b];
                    prop_assert!((got - Complex::new(state, 0.0)).norm() < 1e-6, "{} {}", got, state);
                }
            }
        }
    }
}

#[test]
fn a_batch_that_does_not_divide_the_chunks_is_refused() {
    let params = toy_params(2);
    let layout = Layout::plain(&[0], 8, params.slots() / 8);
    let mut ops = ClearOps::new(&params);
    for batch in [0, 3, 16] {
        assert!(recurrence(&mut ops, &layout, batch, [&[0.5], &[1.0]], 2).is_err());
    }
}
