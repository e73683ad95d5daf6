//! `poly`: the functions of an encoder after substitution, in floating point.

use veilformer_ir::encoder::{Functions, HeadSite, NormSite, SublayerNorm, TokenClass};

use super::Substitution;

/// A value outside the range that its polynomial was made for.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// Where: layer and function.
    pub site: String,
    /// The value.
    pub value: f64,
    /// The range.
    pub range: (f64, f64),
}

impl Violation {
    /// By which part of the range's width the value lies outside; infinite for what is no number.
    pub fn excess(&self) -> f64 {
        if self.value.is_nan() {
            return f64::INFINITY;
        }
        let (low, high) = self.range;
        (low - self.value).max(self.value - high) / (high - low)
    }
}

/// The functions of one sentence, with the worst of its range violations per site.
#[derive(Clone, Debug)]
pub struct Polynomials<'s> {
    substitution: &'s Substitution,
    violations: Vec<Violation>,
}

impl<'s> Polynomials<'s> {
    /// For one sentence.
    pub fn new(substitution: &'s Substitution) -> Self {
        Self {
            substitution,
            violations: Vec::new(),
        }
    }

    /// Per site, the value that lay outside its range by most.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    fn check(&mut self, value: f64, range: (f64, f64), site: impl FnOnce() -> String) {
        if value >= range.0 && value <= range.1 {
            return;
        }
        let found = Violation {
            site: site(),
            value,
            range,
        };
        match self.violations.iter_mut().find(|v| v.site == found.site) {
            Some(worst) if worst.excess() >= found.excess() => {}
            Some(worst) => *worst = found,
            None => self.violations.push(found),
        }
    }
}

impl Functions for Polynomials<'_> {
    fn softmax(&mut self, at: HeadSite, scores: &mut [f64]) {
        let Some(layer) = self.substitution.layers.get(at.layer) else {
            return;
        };
        let (weights, range) = (&layer.weights, layer.weights.interval());
        let mut sum = weights.epsilon(at.head);
        for score in scores.iter_mut() {
            let x = weights.input(at.head, *score);
            self.check(x, range, || {
                format!("layer {}, scores of head {}", at.layer, at.head)
            });
            *score = weights.evaluate(x);
            sum += *score;
        }
        let Some(inverse) = layer.inverses.get(at.head) else {
            return;
        };
        // Small sums are within what the inverse can do; only large ones are not.
        let high = inverse.interval().1;
        self.check(sum, (0.0, high), || {
            format!("layer {}, sums of head {}", at.layer, at.head)
        });
        let inverse = inverse.evaluate(sum);
        scores.iter_mut().for_each(|s| *s *= inverse);
    }

    fn inverse_root(&mut self, at: NormSite, x: f64) -> f64 {
        let Some(layer) = self.substitution.layers.get(at.layer) else {
            return 0.0;
        };
        let (norm, name) = match at.norm {
            SublayerNorm::Attention => (&layer.attention_norm, "variance after attention"),
            SublayerNorm::Output => (&layer.output_norm, "last variance"),
        };
        let [first, other] = norm.scales;
        let scale = match at.token {
            TokenClass::First => first,
            TokenClass::Other => other,
        };
        let u = x / scale;
        self.check(u, norm.root.interval(), || {
            format!("layer {}, {name}", at.layer)
        });
        norm.root.evaluate(u) / scale.sqrt()
    }

    fn activation(&mut self, layer: usize, _: TokenClass, features: &mut [f64]) {
        let Some(substituted) = self.substitution.layers.get(layer) else {
            return;
        };
        let p = &substituted.activation;
        for x in features {
            self.check(*x, p.interval(), || format!("layer {layer}, activation"));
            *x = p.evaluate(*x);
        }
    }

    fn tanh(&mut self, features: &mut [f64]) {
        let Some(p) = &self.substitution.tanh else {
            return;
        };
        for x in features {
            self.check(*x, p.interval(), || "tanh of the pooler".into());
            *x = p.evaluate(*x);
        }
    }
}
