//! Encoders after substitution: `poly` against the original.
#![allow(clippy::unwrap_used)]

#[path = "../../models/tests/common/mod.rs"]
mod common;

use std::path::Path;

use proptest::prelude::*;
use veilformer_compiler::CompileError;
use veilformer_compiler::encoder::{
    Budget, Inverse, Polynomials, Substitution, Weights, answer_error, answer_tolerance,
    substitute, substitute_within,
};
use veilformer_ir::encoder::{AttentionFunction, Encoder, Ranges};
use veilformer_models::DataSet;
use veilformer_models::encoder::{
    EncoderFolder, Execution, RandomEncoder, calibrate, center_keys, write_random_folder,
};

/// Two layers, another width and vocabulary than any published model, GELU by tanh, 48 tokens.
fn shape(labels: usize) -> RandomEncoder {
    RandomEncoder {
        layers: 2,
        hidden: 192,
        heads: 3,
        intermediate: 480,
        activation: "gelu_new".into(),
        attention: AttentionFunction::Softmax,
        positions: 48,
        vocabulary: 1000,
        labels,
        ranges: vec![(12.0, 9.0), (6.0, 5.0)],
    }
}

fn loaded(shape: &RandomEncoder) -> EncoderFolder {
    let dir = tempfile::tempdir().unwrap();
    write_random_folder(dir.path(), shape, 3).unwrap();
    EncoderFolder::load(dir.path(), 48).unwrap()
}

fn other(labels: usize) -> EncoderFolder {
    loaded(&shape(labels))
}

/// Sentences of 3 to 48 tokens, from a generator that is the same everywhere.
fn sentences(count: u64, vocabulary: u64) -> Vec<Vec<u32>> {
    let mut rng = common::Xorshift(9);
    let mut sentence = |_| {
        let words = 1 + rng.below(46);
        let words = (0..words).map(|_| 5 + rng.below(vocabulary as usize - 5) as u32);
        [2].into_iter().chain(words).chain([3]).collect()
    };
    (0..count).map(&mut sentence).collect()
}

/// The largest error, the least cosine and the number of sentences with violations.
fn compare(model: &Encoder, substitution: &Substitution, test: &[Vec<u32>]) -> (f64, f64, usize) {
    let execution = Execution::new(model).unwrap();
    let (mut worst, mut cosine, mut violations) = (0.0f64, 1.0f64, 0);
    for ids in test {
        let input = execution.embed(ids).unwrap();
        let mut poly = Polynomials::new(substitution);
        let a = execution.answer(&input, &mut execution.exact()).unwrap();
        let b = execution.answer(&input, &mut poly).unwrap();
        assert!(b.iter().all(|v| v.is_finite()));
        violations += usize::from(!poly.violations().is_empty());
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        cosine = cosine.min(dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt());
        worst = a
            .iter()
            .zip(&b)
            .fold(worst, |m, (a, b)| m.max((a - b).abs()));
    }
    (worst, cosine, violations)
}

fn prepared(model: &mut Encoder, sample: &[Vec<u32>], budget: &Budget) -> Substitution {
    center_keys(model, sample).unwrap();
    let ranges = calibrate(&Execution::new(model).unwrap(), sample).unwrap();
    substitute(&ranges, model, budget).unwrap()
}

/// With errors as small as the answers to the first sentences want.
fn accurate(model: &mut Encoder, sample: &[Vec<u32>]) -> Substitution {
    center_keys(model, sample).unwrap();
    let execution = Execution::new(model).unwrap();
    let ranges = calibrate(&execution, sample).unwrap();
    let judged = &sample[..32];
    let exact = execution.answers(judged).unwrap();
    let mut error = |s: &Substitution| -> Result<f64, CompileError> {
        let answers = execution.answers_with(judged, &|| Polynomials::new(s));
        Ok(answer_error(&model.head, &exact, &answers.unwrap()))
    };
    let (of, budget) = ((&ranges, &*model), Budget::default());
    substitute_within(of, &budget, answer_tolerance(&model.head), &mut error).unwrap()
}

#[test]
fn errors_are_halved_until_answers_are_near_enough() {
    let sample = sentences(60, 1000);
    let mut model = other(2).encoder;
    center_keys(&mut model, &sample).unwrap();
    let ranges = calibrate(&Execution::new(&model).unwrap(), &sample).unwrap();
    let within = |errors: &[f64]| {
        let mut found = errors.iter();
        let result = substitute_within::<CompileError>(
            (&ranges, &model),
            &Budget::default(),
            0.01,
            &mut |_| Ok(found.next().copied().unwrap_or(f64::INFINITY)),
        );
        (result, found.len())
    };
    let after = |halvings: i32| {
        let budget = Budget::default().scaled(0.5f64.powi(halvings));
        substitute(&ranges, &model, &budget).unwrap()
    };
    // No more halvings than it takes, and what is returned is what was measured last.
    for (errors, halvings) in [(&[0.01, 0.0][..], 0), (&[0.5, 0.02, 0.003, 0.0], 2)] {
        let (result, left) = within(errors);
        assert_eq!(left, 1);
        assert!(result.unwrap() == after(halvings));
    }
    assert!(after(0) != after(2));
    let (result, _) = within(&[0.5, 0.2, 0.3]);
    let error = result.unwrap_err().to_string();
    assert!(
        error.contains("off by 2.0e-1 at best, and 1.0e-2"),
        "{error}"
    );

    // The worst sentence counts, and what is no number is worse than any.
    let (two, embedding) = (&model.head, &other(0).encoder.head);
    let exact = vec![vec![3.0, 4.0], vec![0.6, -0.8]];
    let near = vec![vec![3.0, 4.5], vec![0.4, -0.8]];
    assert_eq!(answer_error(two, &exact, &near), 0.5);
    assert!((answer_error(embedding, &exact, &near) - 0.2).abs() < 1e-12);
    for head in [two, embedding] {
        let nan = vec![vec![3.0, f64::NAN], vec![0.6, -0.8]];
        assert_eq!(answer_error(head, &exact, &nan), f64::INFINITY);
    }
}

#[test]
fn any_shape_goes_through_and_a_smaller_budget_is_nearer() {
    for labels in [0, 2] {
        let folder = other(labels);
        let all = sentences(220, 1000);
        let (sample, test) = all.split_at(200);
        let mut model = folder.encoder.clone();
        let usual = prepared(&mut model, sample, &Budget::default());
        let (coarse, cosine, violations) = compare(&model, &usual, test);
        assert!(cosine > 0.99 && violations == 0, "{cosine} {violations}");
        let budget = Budget {
            exponential: 1e-5,
            inverse: 1e-5,
            inverse_root: 1e-5,
            activation: 1e-4,
            tanh: 1e-4,
            ..Budget::default()
        };
        let precise = prepared(&mut model, sample, &budget);
        let (fine, ..) = compare(&model, &precise, test);
        assert!(fine < 2e-3 && fine < 0.1 * coarse, "{fine} {coarse}");
        assert!(usual.depth() < precise.depth());
        // The report has every function, and adds up.
        let report = usual.report();
        let products = 5 * model.layers.len();
        let levels: usize = report.iter().map(|site| site.depth).sum();
        assert_eq!(levels + products, usual.depth());
        assert!(
            report
                .iter()
                .all(|site| site.max_error.is_finite() && site.depth > 0)
        );
        let bytes = postcard::to_stdvec(&usual).unwrap();
        assert_eq!(postcard::from_bytes::<Substitution>(&bytes).unwrap(), usual);
    }
}

/// Nothing but the inverses of sums and roots is approximated: with those exact, `poly` is the model.
#[test]
fn powers_and_squares_stay_what_they_are() {
    for (power, epsilon) in [(4, 0.5), (8, 1e3)] {
        let shape = RandomEncoder {
            activation: "quadratic".into(),
            attention: AttentionFunction::PowerSoftmax { power, epsilon },
            ranges: vec![(6.0, 4.0)],
            ..shape(2)
        };
        let mut model = loaded(&shape).encoder;
        let all = sentences(80, 1000);
        let (sample, test) = all.split_at(70);
        let budget = Budget {
            exponential: 0.0,
            activation: 0.0,
            inverse: 1e-5,
            inverse_root: 1e-4,
            tanh: 1e-5,
            max_depth: 14,
            margin: 0.3,
            ..Budget::default()
        };
        let substitution = prepared(&mut model, sample, &budget);
        let (error, _, violations) = compare(&model, &substitution, test);
        assert!(
            error < 2e-3 && violations == 0,
            "{power}: {error} {violations}"
        );
        for (index, layer) in substitution.layers.iter().enumerate() {
            assert_eq!(layer.activation.depth(), 1);
            assert_eq!(layer.weights.depth(), power.ilog2() as usize);
            // Sums of weights are at most 1, and no inverse is for what is below the epsilon.
            for (head, inverse) in layer.inverses.iter().enumerate() {
                let least = layer.weights.epsilon(head);
                assert!(least > 0.0 && inverse.interval().0 >= least);
            }
            let Weights::Power { scales, .. } = &layer.weights else {
                panic!("{:?}", layer.weights);
            };
            let ranges = calibrate(&Execution::new(&model).unwrap(), sample).unwrap();
            for (sums, scale) in ranges.layers[index].log_sums.iter().zip(scales) {
                let most = (sums.high - f64::from(power) * scale.ln()).exp();
                assert!((0.05..1.0).contains(&most), "{most}");
            }
        }
        let report = substitution.report();
        let names = ["layer 0, power", "layer 1, activation"];
        let exact = report
            .iter()
            .filter(|site| names.contains(&site.site.as_str()));
        for site in exact.clone() {
            assert!(
                site.max_error == 0.0 && site.method.contains("itself"),
                "{site}"
            );
        }
        assert_eq!(exact.count(), 2);
        let levels: usize = report.iter().map(|site| site.depth).sum();
        assert_eq!(levels + 5 * model.layers.len(), substitution.depth());
        let bytes = postcard::to_stdvec(&substitution).unwrap();
        let back = postcard::from_bytes::<Substitution>(&bytes).unwrap();
        assert_eq!(back, substitution);
    }
}

proptest! {
    /// What is off by in attention is what the inverse is off by, whatever the scores.
    #[test]
    fn powers_differ_by_their_inverse(
        scores in prop::collection::vec(-5.0..5.0f64, 1..40),
        power in (1u32..=4).prop_map(|half| 2 * half),
        epsilon in 1e-3..10.0f64,
        headroom in 0.01..2.0f64,
    ) {
        let function = AttentionFunction::PowerSoftmax { power, epsilon };
        let top = function.log_sum(&scores) + headroom;
        let weights = Weights::Power {
            power,
            epsilon,
            scales: vec![1.0, (top / f64::from(power)).exp()],
        };
        let inverse = Inverse::new(weights.epsilon(1), 1.0, 5).unwrap();
        let powers = scores.iter().map(|s| weights.evaluate(weights.input(1, *s)));
        let powers: Vec<f64> = powers.collect();
        let sum = weights.epsilon(1) + powers.iter().sum::<f64>();
        prop_assert!(sum <= 1.0);
        let (low, high) = weights.interval();
        prop_assert!(scores.iter().all(|s| (low..=high).contains(&weights.input(1, *s))));
        let mut exact = scores.clone();
        function.apply(&mut exact);
        for (exact, power) in exact.iter().zip(&powers) {
            let error = (power * inverse.evaluate(sum) - exact).abs();
            prop_assert!(error <= inverse.error() * exact + 1e-12, "{error}");
        }
    }
}

#[test]
fn centering_changes_nothing_but_the_range_of_sums() {
    let folder = other(2);
    let (mut model, sample) = (folder.encoder.clone(), sentences(60, 1000));
    center_keys(&mut model, &sample).unwrap();
    let (before, after) = (
        Execution::new(&folder.encoder).unwrap(),
        Execution::new(&model).unwrap(),
    );
    let answers = before.answers(&sample).unwrap().into_iter().flatten();
    for (a, b) in answers.zip(after.answers(&sample).unwrap().into_iter().flatten()) {
        assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    }
    let (before, after) = (
        calibrate(&before, &sample).unwrap(),
        calibrate(&after, &sample).unwrap(),
    );
    let width = |ranges: &Ranges| {
        let sums = ranges.layers.iter().flat_map(|layer| &layer.log_sums);
        sums.map(|r| r.high - r.low).fold(0.0, f64::max)
    };
    assert!(
        width(&after) < 0.8 * width(&before),
        "{} {}",
        width(&after),
        width(&before)
    );
}

#[test]
fn calibration_is_the_same_in_any_order_and_refuses_nothing_at_all() {
    let folder = other(2);
    let execution = Execution::new(&folder.encoder).unwrap();
    let mut sample = sentences(40, 1000);
    let ranges = calibrate(&execution, &sample).unwrap();
    sample.reverse();
    assert_eq!(calibrate(&execution, &sample).unwrap(), ranges);
    assert_eq!((ranges.sentences, ranges.lengths.1 <= 48), (40, true));
    let bytes = postcard::to_stdvec(&ranges).unwrap();
    assert_eq!(postcard::from_bytes::<Ranges>(&bytes).unwrap(), ranges);
    let message = calibrate(&execution, &[]).unwrap_err().to_string();
    assert!(
        message.contains("no sentence to calibrate with"),
        "{message}"
    );
    assert!(center_keys(&mut folder.encoder.clone(), &[]).is_err());
}

#[test]
fn values_out_of_their_range_are_named() {
    let mut model = other(2).encoder;
    let all = sentences(60, 1000);
    let (sample, test) = all.split_at(20);
    center_keys(&mut model, sample).unwrap();
    let budget = Budget {
        margin: 0.0,
        ..Budget::default()
    };
    let execution = Execution::new(&model).unwrap();
    let ranges = calibrate(&execution, sample).unwrap();
    let substitution = substitute(&ranges, &model, &budget).unwrap();
    let mut seen = 0;
    for ids in test {
        let mut poly = Polynomials::new(&substitution);
        execution
            .answer(&execution.embed(ids).unwrap(), &mut poly)
            .unwrap();
        for violation in poly.violations() {
            assert!(violation.site.contains("layer") || violation.site.contains("pooler"));
            assert!(violation.excess() > 0.0, "{violation:?}");
            seen += usize::from(violation.value.is_finite());
        }
    }
    assert!(seen > 0);
    // What calibration saw is within, as far as nothing was replaced before.
    for ids in sample {
        let mut poly = Polynomials::new(&substitution);
        execution
            .answer(&execution.embed(ids).unwrap(), &mut poly)
            .unwrap();
        let softmax = ["layer 0, scores", "layer 0, sums"];
        let within = |site: &str| !softmax.iter().any(|s| site.starts_with(s));
        assert!(poly.violations().iter().all(|v| within(&v.site)));
    }
}

#[test]
fn ranges_that_allow_no_polynomial_are_refused() {
    let mut model = other(2).encoder;
    let sample = sentences(20, 1000);
    center_keys(&mut model, &sample).unwrap();
    let ranges = calibrate(&Execution::new(&model).unwrap(), &sample).unwrap();
    let model = &model;
    let refused = |change: &dyn Fn(&mut Ranges, &mut Budget), words: &str| {
        let (mut ranges, mut budget) = (ranges.clone(), Budget::default());
        change(&mut ranges, &mut budget);
        let message = substitute(&ranges, model, &budget).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    };
    refused(&|r, _| r.sentences = 0, "of no sentence");
    refused(&|_, b| b.max_depth = 2, "layer 0, softmax: no degree");
    refused(&|_, b| b.activation = 0.0, "layer 0, activation: no degree");
    refused(
        &|r, _| r.layers[1].output_norm.variance[1].low = 0.0,
        "layer 1, last normalization: interval",
    );
    refused(
        &|r, _| r.layers[1].scores[0].include(f64::NAN),
        "layer 1, softmax",
    );
    refused(
        &|r, _| r.tanh[3].include(f64::INFINITY),
        "tanh of the pooler: interval",
    );
}

fn sst2(folder: &EncoderFolder, file: &str, count: usize) -> Option<Vec<Vec<u32>>> {
    let path = common::shared(file)?;
    let set = DataSet::load(&path).unwrap().sample(count, 1);
    let ids = set
        .examples
        .iter()
        .map(|e| folder.tokenizer.encode(&e.text).unwrap());
    Some(ids.collect())
}

#[test]
fn bert_tiny_keeps_its_logits() {
    let Some(dir) = common::shared("bert_tiny_sst2") else {
        return;
    };
    let mut folder = EncoderFolder::load(&dir, 128).unwrap();
    let (Some(sample), Some(test)) = (
        sst2(&folder, "sst2/stsa.binary.train", 1000),
        sst2(&folder, "sst2/stsa.binary.dev", 20),
    ) else {
        return;
    };
    let substitution = accurate(&mut folder.encoder, &sample);
    let (error, _, violations) = compare(&folder.encoder, &substitution, &test);
    assert!(error < 0.02 && violations == 0, "{error} {violations}");
    assert!(substitution.depth() <= 62, "{}", substitution.depth());
}

#[test]
fn minilm_keeps_its_embeddings() {
    let Some(dir) = common::minilm() else { return };
    let mut folder = EncoderFolder::load(Path::new(dir.path()), 128).unwrap();
    let (Some(sample), Some(test)) = (
        sst2(&folder, "sst2/stsa.binary.train", 300),
        sst2(&folder, "sst2/stsa.binary.dev", 20),
    ) else {
        return;
    };
    let substitution = accurate(&mut folder.encoder, &sample);
    let (_, cosine, violations) = compare(&folder.encoder, &substitution, &test);
    assert!(cosine > 0.99 && violations == 0, "{cosine} {violations}");
    assert!(substitution.depth() <= 165, "{}", substitution.depth());
}

#[test]
#[ignore = "writes and runs 440 MB of weights"]
fn a_bert_base_shape_ranges_as_wide_as_minilm_and_goes_through() {
    let dir = tempfile::tempdir().unwrap();
    write_random_folder(dir.path(), &RandomEncoder::bert_base(), 5).unwrap();
    let mut model = EncoderFolder::load(dir.path(), 128).unwrap().encoder;
    let all = sentences(48, 30522);
    let (sample, test) = all.split_at(40);
    let ranges = calibrate(&Execution::new(&model).unwrap(), sample).unwrap();
    for (layer, (scores, inputs)) in ranges.layers.iter().zip(&RandomEncoder::bert_base().ranges) {
        let magnitude = |r: &[veilformer_ir::encoder::Range]| {
            r.iter().fold(0.0f64, |m, r| m.max(r.magnitude()))
        };
        let found = (magnitude(&layer.scores), magnitude(&layer.activation));
        assert!(
            found.0 >= *scores && found.1 >= *inputs,
            "{found:?} {scores} {inputs}"
        );
    }
    let substitution = prepared(&mut model, sample, &Budget::default());
    for site in substitution.report() {
        eprintln!("{site}");
    }
    let (error, cosine, violations) = compare(&model, &substitution, test);
    eprintln!(
        "depth {}: {error} {cosine} {violations}",
        substitution.depth()
    );
    // Two logits of random weights are near 0, so a cosine says little.
    assert!(error < 0.3 && violations == 0, "{error} {violations}");
}
