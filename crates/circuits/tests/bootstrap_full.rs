//! Bootstraps of the 10-level preset at full size, with real keys: minutes, and 6 GiB of memory.
//!
//! `cargo test --release -p veilformer-circuits --test bootstrap_full -- --ignored --nocapture NAME`
#![allow(clippy::unwrap_used)]

mod support;

use std::f64::consts::TAU;
use std::time::Instant;

use support::{Client, check_multiples, iterate};
use veilformer_circuits::bootstrap::{Content, LEAST_BITS, Preset};
use veilformer_ckks::Complex;
use veilformer_ckks::testing::TestRng;

fn client(content: Content) -> (&'static Preset, Client) {
    let preset = Preset::named("11-levels").unwrap();
    let params = preset.validate().unwrap();
    let client = Client::new(preset.plan(&params, content).unwrap(), None);
    eprintln!("keys are made");
    (preset, client)
}

/// Inputs at the edge of the range: both parts 1, random signs, random numbers of absolute value 1.
#[derive(Clone, Copy, Debug)]
enum Edge {
    Constant,
    Signs,
    Phases,
}

impl Edge {
    const ALL: [Self; 3] = [Self::Constant, Self::Signs, Self::Phases];

    fn slots(self, slots: usize, seed: u64) -> Vec<Complex> {
        let mut rng = TestRng::new(seed);
        let mut sign = || rng.symmetric().signum();
        match self {
            Self::Constant => vec![Complex::new(1.0, 1.0); slots],
            Self::Signs => (0..slots).map(|_| Complex::new(sign(), sign())).collect(),
            Self::Phases => (0..slots)
                .map(|_| Complex::from_polar(1.0, TAU * rng.symmetric()))
                .collect(),
        }
    }
}

/// -log2 of the mean and of the largest error of all parts.
fn bits(got: &[Complex], expected: &[Complex]) -> (f64, f64) {
    let parts = got.iter().zip(expected).flat_map(|(a, b)| {
        let error = a - b;
        [error.re.abs(), error.im.abs()]
    });
    let (sum, worst) = parts.fold((0.0, 0f64), |(sum, worst), e| (sum + e, worst.max(e)));
    (-(sum / (2 * got.len()) as f64).log2(), -worst.log2())
}

/// The worst slot of all is precise enough, and mean and worst slot of each kind of input (of the
/// latter the median over bootstraps) are within a bit of the preset's prediction.
#[test]
#[ignore = "100 bootstraps at full size: minutes"]
fn a_hundred_bootstraps_at_the_edge_of_the_range() {
    let (preset, client) = client(Content::Complex);
    let mut ops = client.ops();
    let boot = client.plan.encode(&mut ops).unwrap();
    let slots = client.plan.params().slots();
    let mut all: [Vec<(f64, f64)>; 3] = Default::default();
    let start = Instant::now();
    for run in 0..100 {
        let edge = Edge::ALL[run % 3];
        let expected = edge.slots(slots, run as u64);
        let x = client.encrypt(&expected, client.plan.input_level(), run as u64);
        let y = boot.run(&mut ops, &x).unwrap();
        let (mean, worst) = bits(&client.decrypt(&y), &expected);
        eprintln!(
            "{run}: {edge:?}: mean {mean:.2}, worst {worst:.2} bits; {:.0} s",
            start.elapsed().as_secs_f64()
        );
        all[run % 3].push((mean, worst));
    }
    let predicted = &preset.predicted;
    for (edge, runs) in Edge::ALL.into_iter().zip(all) {
        let mean = runs.iter().map(|r| r.0).sum::<f64>() / runs.len() as f64;
        let mut worst: Vec<f64> = runs.iter().map(|r| r.1).collect();
        worst.sort_by(f64::total_cmp);
        let median = worst[worst.len() / 2];
        eprintln!(
            "{edge:?}: mean {mean:.2} (predicted {:.2}), worst slot {median:.2} (predicted {:.2}), \
             worst of all {:.2}",
            predicted.mean_bits, predicted.worst_bits, worst[0]
        );
        assert!(worst[0] >= LEAST_BITS, "{edge:?}");
        assert!((mean - predicted.mean_bits).abs() <= 1.0, "{edge:?}");
        assert!((median - predicted.worst_bits).abs() <= 1.0, "{edge:?}");
    }
}

#[test]
#[ignore = "20 raised ciphertexts at full size: a minute"]
fn multiples_of_q0_follow_the_sum_of_uniforms() {
    let (preset, client) = client(Content::Periodic(1));
    let slots = Edge::Phases.slots(client.plan.params().slots(), 1);
    let counts = client.count_multiples(&slots, 20);
    check_multiples(&counts, preset.bootstrap.ephemeral_weight);
}

/// 200 levels through 19 bootstraps.
#[test]
#[ignore = "a long iteration at full size: a minute"]
fn errors_of_a_long_iteration_grow_as_predicted() {
    let (_, client) = client(Content::Real);
    iterate(&client, 200, 0.25);
}
