//! What was substituted for what, in numbers.

use std::fmt;

use serde::Serialize;
use veilformer_circuits::polynomial::{Chebyshev, optimal_depth};

use super::substitute::{NormSubstitution, relative_error};
use super::{ActivationSubstitution, Inverse, Substitution, Weights};

/// One function's place, and what stands there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SiteReport {
    /// Layer and function.
    pub site: String,
    /// The range that it holds on.
    pub range: (f64, f64),
    /// In words.
    pub method: String,
    /// Degree in the input.
    pub degree: usize,
    /// Levels.
    pub depth: usize,
    /// Largest error on the range: of inverses and roots relative.
    pub max_error: f64,
}

impl Substitution {
    /// Every function, in the order of the data.
    pub fn report(&self) -> Vec<SiteReport> {
        let mut all = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let at = |site: &str| format!("layer {index}, {site}");
            all.push(weights(at, &layer.weights));
            let lows = layer.inverses.iter().map(|inverse| inverse.interval().0);
            let errors = layer.inverses.iter().map(Inverse::error);
            all.push(SiteReport {
                site: at("1/sum"),
                range: (lows.fold(1.0, f64::min), 1.0),
                method: format!(
                    "relaxed Goldschmidt; {:.1e} on what occurs",
                    layer.inverse_error
                ),
                degree: (1 << layer.inverse_depth()) - 1,
                depth: layer.inverse_depth(),
                max_error: errors.fold(0.0, f64::max),
            });
            all.push(norm(at("1/sqrt after attention"), &layer.attention_norm));
            all.push(match &layer.activation {
                ActivationSubstitution::Polynomial(p) => {
                    plain(at("activation"), p, |x| self.function.apply(x))
                }
                square @ ActivationSubstitution::Square { .. } => SiteReport {
                    site: at("activation"),
                    range: square.interval(),
                    method: "itself, a square".into(),
                    degree: square.degree(),
                    depth: square.depth(),
                    max_error: 0.0,
                },
            });
            all.push(norm(at("1/sqrt, last"), &layer.output_norm));
        }
        if let Some(tanh) = &self.tanh {
            all.push(plain("tanh of the pooler".into(), tanh, f64::tanh));
        }
        all
    }
}

fn weights(at: impl Fn(&str) -> String, weights: &Weights) -> SiteReport {
    let (range, depth) = (weights.interval(), weights.depth());
    match weights {
        Weights::Exponential { exponential, .. } => {
            let (degree, squarings) = (exponential.polynomial().degree(), exponential.squarings());
            SiteReport {
                site: at("exp"),
                range,
                method: format!("minimax of degree {degree}, {squarings} squarings"),
                degree: degree << squarings.min(20),
                depth,
                max_error: exponential.max_error(),
            }
        }
        Weights::Power { power, scales, .. } => {
            let ends = (f64::INFINITY, 0.0f64);
            let ends = (scales.iter()).fold(ends, |(a, b), s| (a.min(*s), b.max(*s)));
            SiteReport {
                site: at("power"),
                range,
                method: format!("itself, of scores over {:.3} to {:.3}", ends.0, ends.1),
                degree: *power as usize,
                depth,
                max_error: 0.0,
            }
        }
    }
}

fn plain(site: String, p: &Chebyshev, f: impl Fn(f64) -> f64) -> SiteReport {
    SiteReport {
        site,
        range: p.interval(),
        method: "minimax".into(),
        degree: p.degree(),
        depth: optimal_depth(p.degree()),
        max_error: p.max_error(f, 16 * (p.degree() + 2)),
    }
}

fn norm(site: String, norm: &NormSubstitution) -> SiteReport {
    let [first, other] = norm.scales;
    SiteReport {
        site,
        range: norm.root.interval(),
        method: format!("minimax on variance / {first:.3} or {other:.3}"),
        degree: norm.root.degree(),
        depth: norm.depth(),
        max_error: relative_error(&norm.root),
    }
}

impl fmt::Display for SiteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<32} [{:>9.4}, {:>8.3}]  degree {:>4}  depth {:>2}  error {:.1e}  {}",
            self.site,
            self.range.0,
            self.range.1,
            self.degree,
            self.depth,
            self.max_error,
            self.method
        )
    }
}
