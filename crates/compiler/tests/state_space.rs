//! Recurrences, products, both poolings and batches: random programs of every kind against the
//! interpreter of the tensor program.
#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use support::{close, replay_clear};
use veilformer_ckks::SecurityLevel;
use veilformer_compiler::calibrate::evaluate;
use veilformer_compiler::{
    CompileError, DEFAULT_MARGIN, Options, atoms, compile, full_batch, length,
};
use veilformer_ir::Matrix;
use veilformer_ir::tensor::{TensorId, TensorOp, TensorProgram};
use veilformer_models::interpreter::interpret;

/// A small generator of reproducible numbers in -1 .. 1.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1u64 << 31) as f64 * 2.0 - 1.0
    }

    fn list(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.next()).collect()
    }
}

/// What the head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    Last,
    Mean,
    Both,
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    features: usize,
    state: usize,
    layers: usize,
    tokens: usize,
    labels: usize,
    head: Head,
    /// Whether a linear map stands between product and recurrence, with a bias.
    written: bool,
}

fn model(shape: Shape, seed: u64) -> TensorProgram {
    let mut n = Numbers(seed.wrapping_add(77));
    let labels = (0..shape.labels).map(|l| format!("label {l}")).collect();
    let mut p = TensorProgram {
        name: "random".into(),
        max_tokens: shape.tokens,
        ops: vec![],
        labels,
    };
    let input = TensorOp::Input {
        features: shape.features,
        bound: vec![1.0; shape.features],
    };
    let mut x = p.push(input);
    let mut linear = |p: &mut TensorProgram, x: TensorId, out: usize, inp: usize| {
        let data: Vec<f64> = n
            .list(out * inp)
            .iter()
            .map(|v| v / (inp as f64).sqrt())
            .collect();
        let weight = Matrix::from_rows(out, inp, data).unwrap();
        let bias = n.list(out);
        p.push(TensorOp::Linear { x, weight, bias })
    };
    for layer in 0..shape.layers {
        let u = linear(&mut p, x, shape.state, shape.features);
        let g = linear(&mut p, x, shape.state, shape.features);
        let mut w = p.push(TensorOp::Product { x: u, y: g });
        if shape.written {
            w = linear(&mut p, w, shape.state, shape.state);
        }
        let decay = (0..shape.state)
            .map(|f| ((f * 7 + layer * 3) % 10) as f64 / 10.0)
            .collect();
        let s = p.push(TensorOp::Recurrence { x: w, decay });
        let c = linear(&mut p, s, shape.features, shape.state);
        x = p.push(TensorOp::Add { x, y: c });
    }
    let pooled = match shape.head {
        Head::Last => p.push(TensorOp::LastToken { x }),
        Head::Mean => p.push(TensorOp::MeanPool { x }),
        Head::Both => {
            let last = p.push(TensorOp::LastToken { x });
            let mean = p.push(TensorOp::MeanPool { x });
            p.push(TensorOp::Add { x: last, y: mean })
        }
    };
    linear(&mut p, pooled, shape.labels, shape.features);
    p
}

fn rows(shape: Shape, n: usize, seed: u64) -> Vec<Vec<f64>> {
    let mut numbers = Numbers(seed ^ 0xabcd);
    (0..n).map(|_| numbers.list(shape.features)).collect()
}

fn options(shape: Shape, batch: usize) -> Options {
    let calibration = (1..=shape.tokens)
        .map(|n| rows(shape, n, n as u64))
        .collect();
    Options {
        security: SecurityLevel::Bits128,
        calibration,
        margin: DEFAULT_MARGIN,
        tokens: None,
        batch,
    }
}

fn heads() -> impl Strategy<Value = Head> {
    prop_oneof![Just(Head::Last), Just(Head::Mean), Just(Head::Both)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Folding recurrences into the answer and absorbing the length keep the model's function.
    #[test]
    fn without_tokens_and_length_it_is_the_same_model(
        features in 1usize..7, state in 1usize..7, layers in 1usize..4, tokens in 1usize..9,
        labels in 1usize..4, head in heads(), written in any::<bool>(), room in 0usize..20, seed in 0u64..1000,
    ) {
        let shape = Shape { features, state, layers, tokens, labels, head, written };
        let program = model(shape, seed);
        let free = length::absorb(&atoms::fold(&program).unwrap(), room).unwrap();
        for n in 1..=tokens {
            let input = rows(shape, n, seed);
            close(&evaluate(&free, &input).0, &interpret(&program, &input).unwrap().logits, 1e-9);
        }
    }
}

/// Whole programs on slots, for one and several sentences of unequal lengths at once.
#[test]
fn lowered_programs_compute_the_model_for_every_sentence_of_a_batch() {
    let base = Shape {
        features: 5,
        state: 6,
        layers: 1,
        tokens: 7,
        labels: 2,
        head: Head::Last,
        written: false,
    };
    let shapes = [
        base,
        Shape {
            head: Head::Mean,
            ..base
        },
        Shape {
            head: Head::Both,
            labels: 3,
            ..base
        },
        Shape { layers: 2, ..base },
        Shape {
            layers: 2,
            written: true,
            head: Head::Both,
            ..base
        },
        Shape { tokens: 1, ..base },
        Shape {
            features: 70,
            state: 90,
            tokens: 33,
            ..base
        },
    ];
    for shape in shapes {
        let program = model(shape, 3);
        let most = full_batch(&program, &options(shape, 1)).unwrap();
        for batch in [1, 4, most] {
            let compiled = compile(&program, &options(shape, batch)).unwrap();
            assert_eq!(compiled.program.batch, batch);
            // Some places stay empty, and lengths differ.
            let sentences: Vec<_> = (0..batch.div_ceil(2) as u64)
                .map(|i| rows(shape, 1 + (i as usize * 5) % shape.tokens, i))
                .collect();
            for (tokens, got) in sentences.iter().zip(replay_clear(&compiled, &sentences)) {
                close(&got, &interpret(&program, tokens).unwrap().logits, 1e-5);
            }
        }
    }
}

/// A window is one map over tokens: no more levels for more of them, and a recurrence that only the
/// answer reads costs none.
#[test]
fn levels_do_not_depend_on_the_number_of_tokens() {
    let shape = Shape {
        features: 8,
        state: 8,
        layers: 1,
        tokens: 64,
        labels: 2,
        head: Head::Last,
        written: false,
    };
    let program = model(shape, 1);
    let levels = |tokens, layers| {
        let shape = Shape {
            layers,
            tokens,
            ..shape
        };
        let program = model(shape, 1);
        compile(&program, &options(shape, 1))
            .unwrap()
            .params
            .max_level()
    };
    for tokens in [1, 2, 16, 32, 64] {
        assert_eq!(levels(tokens, 1), 3);
        assert_eq!(levels(tokens, 2), 6);
    }
    let short = Options {
        tokens: Some(16),
        ..options(
            Shape {
                tokens: 16,
                ..shape
            },
            1,
        )
    };
    let compiled = compile(&program, &short).unwrap();
    assert_eq!(compiled.signature.max_tokens, 16);
    assert_eq!(compiled.params.max_level(), 3);
    let tokens = rows(shape, 16, 5);
    let got = replay_clear(&compiled, std::slice::from_ref(&tokens));
    close(&got[0], &interpret(&program, &tokens).unwrap().logits, 1e-5);
}

#[test]
fn targets_that_no_model_has_are_refused() {
    let shape = Shape {
        features: 3,
        state: 3,
        layers: 1,
        tokens: 4,
        labels: 2,
        head: Head::Last,
        written: false,
    };
    let program = model(shape, 1);
    for batch in [0, 3, 1 << 20] {
        let refused = compile(&program, &options(shape, batch));
        assert!(
            matches!(refused, Err(CompileError::Batch { .. })),
            "{batch}"
        );
    }
    for tokens in [0, 5] {
        let options = Options {
            tokens: Some(tokens),
            ..options(shape, 1)
        };
        assert!(matches!(
            compile(&program, &options),
            Err(CompileError::Tokens { .. })
        ));
    }
    // More sentences than one ring holds of a model with heads would not fit; this one has none.
    assert!(compile(&program, &options(shape, 4096)).is_ok());
}

/// A feature that is written with the factor zero still has whatever value it had before: the bound
/// of the operand must not come from what is written. `replay_clear` checks every bound.
#[test]
fn a_feature_that_is_not_written_keeps_its_bound() {
    let labels = vec!["a".to_string(), "b".to_string()];
    let mut p = TensorProgram {
        name: "zero".into(),
        max_tokens: 4,
        ops: vec![],
        labels,
    };
    let bound = vec![1.0; 2];
    let x = p.push(TensorOp::Input { features: 2, bound });
    let square = p.push(TensorOp::Product { x, y: x });
    // The second feature is large, and the state never sees it.
    let scale = vec![1e-4, 0.0];
    let written = p.push(TensorOp::Affine {
        x: square,
        scale,
        shift: vec![0.0; 2],
    });
    let state = p.push(TensorOp::Recurrence {
        x: written,
        decay: vec![0.5; 2],
    });
    let again = p.push(TensorOp::Product {
        x: state,
        y: square,
    });
    let sum = p.push(TensorOp::Add {
        x: again,
        y: square,
    });
    let pooled = p.push(TensorOp::LastToken { x: sum });
    let weight = Matrix::from_rows(2, 2, vec![1.0, 0.5, -0.5, 1.0]).unwrap();
    p.push(TensorOp::Linear {
        x: pooled,
        weight,
        bias: vec![0.0; 2],
    });
    let tokens = vec![vec![0.01, 0.9], vec![0.02, -0.8], vec![0.01, 0.7]];
    let options = Options {
        security: SecurityLevel::Bits128,
        calibration: vec![tokens.clone()],
        margin: 1.0,
        tokens: None,
        batch: 1,
    };
    let compiled = compile(&p, &options).unwrap();
    let got = replay_clear(&compiled, std::slice::from_ref(&tokens));
    close(&got[0], &interpret(&p, &tokens).unwrap().logits, 1e-5);
}
