//! The fused operations: values against formulas in f64, gradients against differences of values.
// Helpers of tests stand outside the test functions that clippy lets unwrap.
#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor, Var};
use veilformer_ir::encoder::{Activation, AttentionFunction};
use veilformer_train::encoder::ops::{
    Attention, activate, add_bias, attend, excess, layer_norm, log_variance,
};
use veilformer_train::noise::Noise;

fn random(seed: u64, shape: &[usize], sd: f64) -> Tensor {
    let n = shape.iter().product();
    Tensor::from_vec(Noise::new(seed, 0).normal(n, sd), shape, &Device::Cpu).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// Checks the gradient of the sum of `f` times random numbers, in a random direction of each
/// argument, against a difference quotient of fourth order.
fn check(name: &str, arguments: &[Tensor], f: impl Fn(&[Tensor]) -> Tensor) {
    let shape = f(arguments).dims().to_vec();
    let weights = random(99, &shape, 1.0);
    let loss = |x: &[Tensor]| (f(x) * &weights).unwrap().sum_all().unwrap();
    let vars: Vec<Var> = arguments
        .iter()
        .map(|x| Var::from_tensor(x).unwrap())
        .collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let grads = loss(&tensors).backward().unwrap();
    for (i, var) in vars.iter().enumerate() {
        let direction = random(100 + i as u64, var.dims(), 1.0);
        let gradient = grads.get(var.as_tensor()).unwrap();
        let exact: f64 = values(gradient)
            .iter()
            .zip(values(&direction))
            .map(|(a, b)| f64::from(a * b))
            .sum();
        let at = |step: f64| {
            let mut moved = arguments.to_vec();
            moved[i] = (&moved[i] + (&direction * step).unwrap()).unwrap();
            // Sums in f64: what is lost in them would be divided by the step.
            let y = values(&f(&moved));
            let terms = y.iter().zip(values(&weights));
            terms
                .map(|(y, w)| f64::from(*y) * f64::from(w))
                .sum::<f64>()
        };
        let h = 0.01;
        let quotient = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
        let size = exact.abs().max(1.0);
        assert!(
            (quotient - exact).abs() < 2e-3 * size,
            "{name}, argument {i}: {exact} and {quotient}"
        );
    }
}

const FUNCTIONS: [AttentionFunction; 4] = [
    AttentionFunction::Softmax,
    AttentionFunction::PowerSoftmax {
        power: 2,
        epsilon: 1.0,
    },
    AttentionFunction::PowerSoftmax {
        power: 4,
        epsilon: 0.25,
    },
    AttentionFunction::PowerSoftmax {
        power: 6,
        epsilon: 0.5,
    },
];

fn attention(function: AttentionFunction, sums: bool) -> Attention {
    Attention {
        lengths: vec![3, 1, 9],
        heads: 2,
        function,
        sums,
    }
}

#[test]
fn gradients_are_those_of_the_values() {
    let x = random(1, &[13, 10], 1.0);
    let (w, b) = (random(2, &[10], 1.0), random(3, &[10], 1.0));
    check("bias", &[x.clone(), b.clone()], |x| {
        add_bias(&x[0], &x[1]).unwrap()
    });
    check("norm", &[x.clone(), w, b], |x| {
        layer_norm(&x[0], &x[1], &x[2], 0.1).unwrap()
    });
    check("log variance", std::slice::from_ref(&x), |x| {
        log_variance(&x[0], 0.1).unwrap()
    });
    check("excess", std::slice::from_ref(&x), |x| {
        excess(&x[0], -0.5, 0.7).unwrap()
    });
    // Not ReLU, which has no derivative at 0.
    for activation in [
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Quadratic,
    ] {
        check("activation", std::slice::from_ref(&x), |x| {
            activate(&x[0], activation).unwrap()
        });
    }
    let qkv = [4, 5, 6].map(|seed| random(seed, &[13, 10], 0.8));
    for function in FUNCTIONS {
        check("attention", &qkv, |x| {
            attend(&x[0], &x[1], &x[2], attention(function, false))
                .unwrap()
                .context
        });
        check("attention and sums", &qkv, |x| {
            let all = attend(&x[0], &x[1], &x[2], attention(function, true)).unwrap();
            Tensor::cat(&[all.context, all.log_sums.unwrap()], 1).unwrap()
        });
    }
}

#[test]
fn values_are_those_of_the_formulas() {
    let qkv = [4, 5, 6].map(|seed| random(seed, &[13, 10], 1.5));
    let rows: Vec<Vec<Vec<f32>>> = qkv.iter().map(|x| x.to_vec2().unwrap()).collect();
    for function in FUNCTIONS {
        let all = attend(&qkv[0], &qkv[1], &qkv[2], attention(function, true)).unwrap();
        let context: Vec<Vec<f32>> = all.context.to_vec2().unwrap();
        let sums: Vec<Vec<f32>> = all.log_sums.unwrap().to_vec2().unwrap();
        let mut start = 0;
        for n in [3, 1, 9] {
            for (token, head) in (start..start + n).flat_map(|t| [(t, 0), (t, 1)]) {
                let columns = head * 5..head * 5 + 5;
                let score = |other: usize| {
                    let pairs = columns
                        .clone()
                        .map(|c| (rows[0][token][c], rows[1][other][c]));
                    pairs.map(|(q, k)| f64::from(q) * f64::from(k)).sum::<f64>() / 5f64.sqrt()
                };
                let mut weights: Vec<f64> = (start..start + n).map(score).collect();
                let log = function.log_sum(&weights);
                assert!((f64::from(sums[token][head]) - log).abs() < 1e-5 * (1.0 + log.abs()));
                function.apply(&mut weights);
                for c in columns {
                    let pairs = weights.iter().zip(start..);
                    let expected: f64 = pairs
                        .map(|(w, other)| w * f64::from(rows[2][other][c]))
                        .sum();
                    assert!((f64::from(context[token][c]) - expected).abs() < 1e-5);
                }
            }
            start += n;
        }
    }
    let x = random(7, &[40, 25], 3.0);
    for activation in [
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::Quadratic,
    ] {
        for (x, y) in values(&x)
            .iter()
            .zip(values(&activate(&x, activation).unwrap()))
        {
            // GELU of the clear executor has an error function of its own, within 1e-6.
            let expected = activation.apply(f64::from(*x));
            assert!(
                (f64::from(y) - expected).abs() < 4e-6,
                "{activation:?} of {x}"
            );
        }
    }
    let y = values(&excess(&x, -2.0, 3.0).unwrap())[0];
    let over = |x: f32| (x - 3.0).max(0.0) + (-2.0 - x).max(0.0);
    let expected: f32 = values(&x).iter().map(|x| over(*x).powi(2)).sum();
    assert!((y / expected - 1.0).abs() < 1e-5);
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let x = random(1, &[13, 10], 1.0);
    let softmax = AttentionFunction::Softmax;
    for (lengths, heads) in [(vec![3, 9], 2), (vec![13], 3), (vec![13], 0)] {
        let shape = Attention {
            lengths,
            heads,
            ..attention(softmax, true)
        };
        assert!(attend(&x, &x, &x, shape).is_err());
    }
    let other = random(1, &[13, 8], 1.0);
    assert!(attend(&x, &other, &x, attention(softmax, false)).is_err());
    let short = random(1, &[8], 1.0);
    assert!(add_bias(&x, &short).is_err());
    assert!(layer_norm(&x, &short, &short, 0.1).is_err());
    // Operands that are not in order.
    assert!(log_variance(&x.t().unwrap(), 0.1).is_err());
}
