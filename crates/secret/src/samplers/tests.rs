//! Statistics of the samplers under fixed seeds. Thresholds are 5 standard deviations of the
//! statistic, so a correct sampler fails one of them for about one seed in a million.

use super::gaussian_table::CUMULATIVE;
use super::*;
use crate::SecretError;
use crate::rng::Entropy;

fn chi_square(observed: &[u64], expected: &[f64]) -> f64 {
    observed
        .iter()
        .zip(expected)
        .map(|(&o, &e)| (o as f64 - e).powi(2) / e)
        .sum()
}

/// Largest credible chi-square: mean k, standard deviation sqrt(2k).
fn chi_square_limit(degrees: usize) -> f64 {
    degrees as f64 + 5.0 * (2.0 * degrees as f64).sqrt()
}

#[test]
fn ternary_values_are_uniform_and_independent_of_their_neighbours() {
    let mut rng = Entropy::for_sampler_tests(1);
    // Enough to see the 2^-9 by which the remainder of a byte by three is off.
    let mut values = vec![0i8; 1 << 22];
    ternary(&mut rng, &mut values);
    let mut single = [0u64; 3];
    let mut pairs = [0u64; 9];
    for pair in values.chunks_exact(2) {
        let (a, b) = ((pair[0] + 1) as usize, (pair[1] + 1) as usize);
        single[a] += 1;
        single[b] += 1;
        pairs[3 * a + b] += 1;
    }
    let n = values.len() as f64;
    assert!(chi_square(&single, &[n / 3.0; 3]) < chi_square_limit(2));
    assert!(chi_square(&pairs, &[n / 18.0; 9]) < chi_square_limit(8));
}

#[test]
fn ternary_fills_lengths_that_are_no_multiple_of_a_chunk() {
    let mut rng = Entropy::for_sampler_tests(2);
    for length in [0, 1, 255, 256, 257, 1000] {
        let mut values = vec![7i8; length];
        ternary(&mut rng, &mut values);
        assert!(values.iter().all(|v| (-1..=1).contains(v)));
    }
}

#[test]
fn gaussian_matches_its_probabilities() {
    let mut rng = Entropy::for_sampler_tests(3);
    let mut values = vec![0i64; 1 << 20];
    gaussian(&mut rng, &mut values);
    let bound = 13;
    let density = |x: i64| (-(x * x) as f64 / (2.0 * SIGMA * SIGMA)).exp();
    let total: f64 = (-60..=60).map(density).sum();
    let n = values.len() as f64;
    // One bin per value, and one for each tail.
    let mut observed = vec![0u64; 2 * bound as usize + 3];
    let mut expected = vec![0f64; observed.len()];
    for x in -60..=60 {
        expected[(x.clamp(-bound - 1, bound + 1) + bound + 1) as usize] += n * density(x) / total;
    }
    for &x in &values {
        observed[(x.clamp(-bound - 1, bound + 1) + bound + 1) as usize] += 1;
    }
    let statistic = chi_square(&observed, &expected);
    assert!(
        statistic < chi_square_limit(observed.len() - 1),
        "{statistic}"
    );

    let mean = values.iter().sum::<i64>() as f64 / n;
    assert!(mean.abs() < 5.0 * SIGMA / n.sqrt(), "{mean}");
    let variance = values.iter().map(|x| (x * x) as f64).sum::<f64>() / n;
    // The variance of a Gaussian's sample variance is 2 sigma^4 / n.
    let slack = 5.0 * (2.0 / n).sqrt();
    assert!(
        (variance / (SIGMA * SIGMA) - 1.0).abs() < slack,
        "{variance}"
    );
}

#[test]
fn gaussian_table_is_the_cumulative_distribution() {
    assert!(CUMULATIVE.is_sorted_by(|a, b| a < b));
    assert!(CUMULATIVE.iter().all(|&t| t < 1 << 63));
    let density = |x: i64| (-(x * x) as f64 / (2.0 * SIGMA * SIGMA)).exp();
    let total: f64 = 1.0 + 2.0 * (1..100).map(density).sum::<f64>();
    let mut cumulative = 0.0;
    for (x, &entry) in CUMULATIVE.iter().enumerate() {
        cumulative += if x == 0 { 1.0 } else { 2.0 } * density(x as i64) / total;
        assert!((entry as f64 / (1u64 << 63) as f64 - cumulative).abs() < 1e-15);
    }
}

#[test]
fn fixed_weight_has_the_weight_and_is_uniform_over_places_and_signs() {
    let mut rng = Entropy::for_sampler_tests(4);
    let (length, weight, rounds) = (64usize, 12usize, 8000u64);
    let mut places = vec![0u64; length];
    let mut positive = 0u64;
    let mut values = vec![0i8; length];
    for _ in 0..rounds {
        fixed_weight(&mut rng, weight, &mut values).unwrap();
        assert_eq!(values.iter().filter(|v| **v != 0).count(), weight);
        assert!(values.iter().all(|v| (-1..=1).contains(v)));
        for (count, value) in places.iter_mut().zip(&values) {
            *count += u64::from(*value != 0);
        }
        positive += values.iter().filter(|v| **v == 1).count() as u64;
    }
    let expected = rounds as f64 * weight as f64 / length as f64;
    let statistic = chi_square(&places, &vec![expected; length]);
    assert!(statistic < chi_square_limit(length - 1), "{statistic}");
    let draws = (rounds * weight as u64) as f64;
    assert!((positive as f64 - draws / 2.0).abs() < 5.0 * draws.sqrt() / 2.0);
}

#[test]
fn fixed_weight_takes_the_extremes_and_refuses_the_impossible() {
    let mut rng = Entropy::for_sampler_tests(5);
    let mut values = vec![0i8; 1024];
    fixed_weight(&mut rng, 0, &mut values).unwrap();
    assert!(values.iter().all(|v| *v == 0));
    fixed_weight(&mut rng, 1024, &mut values).unwrap();
    assert!(values.iter().all(|v| *v != 0));
    for (weight, length) in [(5, 4), (1, 3), (0, 0)] {
        let refused = fixed_weight(&mut rng, weight, &mut vec![0i8; length]);
        assert!(matches!(refused, Err(SecretError::Weight { .. })));
    }
}

#[test]
fn forked_streams_differ() {
    let mut rng = Entropy::for_sampler_tests(6);
    let (mut a, mut b) = (rng.fork(), rng.fork());
    assert_ne!(a.bytes::<32>(), b.bytes::<32>());
}
