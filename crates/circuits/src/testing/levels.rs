//! [`LevelOps`]: the rules of levels and scales, and nothing else.

use veilformer_ckks::{Ops, OpsError, Params, Scale, SlotVector, Transform, adjust_constant};

use super::empty;

type Result<T> = std::result::Result<T, OpsError>;

/// [`Ops`] on values of which nothing is known but level and scale: as fast as a circuit can be
/// walked through. Within [`super::Counting`] it says what a circuit costs before there is a plaintext.
#[derive(Clone, Debug)]
pub struct LevelOps {
    params: Params,
    /// Levels that bootstraps take and give, by their number in the table.
    bootstraps: Vec<(usize, usize)>,
}

/// Level and scale of a ciphertext or plaintext.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AtLevel {
    /// The level.
    pub level: usize,
    /// The scale.
    pub scale: Scale,
}

impl LevelOps {
    /// Operations under these parameters, with bootstraps from and to these levels.
    #[must_use]
    pub fn new(params: &Params, bootstraps: &[(usize, usize)]) -> Self {
        Self {
            params: params.clone(),
            bootstraps: bootstraps.to_vec(),
        }
    }

    /// A value at the canonical scale of `level`.
    ///
    /// # Errors
    /// No such level.
    pub fn value(&self, level: usize) -> Result<AtLevel> {
        self.params.check_level(level)?;
        let scale = self.params.scale_at(level);
        Ok(AtLevel { level, scale })
    }

    fn stepped(&self, op: &'static str, level: usize, scale: Scale) -> Result<AtLevel> {
        let Some(below) = level.checked_sub(1) else {
            let needed = 1;
            return Err(OpsError::OutOfLevels { op, level, needed });
        };
        let step = self.params.step_at(level);
        let factor = self.params.product(step.drop) / self.params.product(step.add);
        Ok(AtLevel {
            level: below,
            scale: scale.divide(factor),
        })
    }

    fn lower(&self, op: &'static str, a: &AtLevel, needed: usize) -> Result<()> {
        if needed <= a.level {
            return Ok(());
        }
        let level = a.level;
        Err(OpsError::OutOfLevels { op, level, needed })
    }
}

fn alike(op: &'static str, a: &AtLevel, b: &AtLevel) -> Result<AtLevel> {
    OpsError::expect_level(op, b.level, a.level)?;
    OpsError::expect_scale(op, b.scale, a.scale)?;
    Ok(*a)
}

impl Ops for LevelOps {
    type Ct = AtLevel;
    type Plain = AtLevel;

    fn params(&self) -> &Params {
        &self.params
    }

    fn level(&self, ct: &AtLevel) -> usize {
        ct.level
    }

    fn scale(&self, ct: &AtLevel) -> Scale {
        ct.scale
    }

    fn plain(&mut self, _: &SlotVector, level: usize, scale: Scale) -> Result<AtLevel> {
        self.params.check_level(level)?;
        Ok(AtLevel { level, scale })
    }

    fn add(&mut self, a: &AtLevel, b: &AtLevel) -> Result<AtLevel> {
        alike("add", a, b)
    }

    fn sub(&mut self, a: &AtLevel, b: &AtLevel) -> Result<AtLevel> {
        alike("sub", a, b)
    }

    fn negate(&mut self, a: &AtLevel) -> Result<AtLevel> {
        Ok(*a)
    }

    fn add_plain(&mut self, a: &AtLevel, p: &AtLevel) -> Result<AtLevel> {
        OpsError::expect_plain_level("add_plain", p.level, a.level)?;
        OpsError::expect_scale("add_plain", p.scale, a.scale)?;
        Ok(*a)
    }

    fn mul_plain(&mut self, a: &AtLevel, p: &AtLevel) -> Result<AtLevel> {
        OpsError::expect_plain_level("mul_plain", p.level, a.level)?;
        Ok(AtLevel {
            level: a.level,
            scale: a.scale.product(p.scale),
        })
    }

    fn rescale(&mut self, a: &AtLevel) -> Result<AtLevel> {
        self.stepped("rescale", a.level, a.scale)
    }

    fn mul_sum(&mut self, pairs: &[(&AtLevel, &AtLevel)]) -> Result<AtLevel> {
        const OP: &str = "mul_sum";
        let (first, other) = pairs.first().ok_or_else(|| empty(OP))?;
        let scale = first.scale.product(other.scale);
        for (a, b) in pairs {
            OpsError::expect_level(OP, a.level, first.level)?;
            OpsError::expect_level(OP, b.level, first.level)?;
            OpsError::expect_scale(OP, a.scale.product(b.scale), scale)?;
        }
        self.stepped(OP, first.level, scale)
    }

    fn rotate_many(&mut self, a: &AtLevel, by: &[i64]) -> Result<Vec<AtLevel>> {
        Ok(vec![*a; by.len()])
    }

    fn conjugate(&mut self, a: &AtLevel) -> Result<AtLevel> {
        Ok(*a)
    }

    fn drop_to(&mut self, a: &AtLevel, level: usize) -> Result<AtLevel> {
        self.lower("drop_to", a, level)?;
        Ok(AtLevel { level, ..*a })
    }

    fn adjust(&mut self, a: &AtLevel, level: usize) -> Result<AtLevel> {
        const OP: &str = "adjust";
        self.lower(OP, a, level)?;
        let target = self.value(level)?;
        if level == a.level {
            OpsError::expect_scale(OP, a.scale, target.scale)?;
        } else {
            adjust_constant(&self.params, a.scale, level)?;
        }
        Ok(target)
    }

    fn linear_transforms(
        &mut self,
        inputs: &[&AtLevel],
        transforms: &[&Transform<AtLevel>],
    ) -> Result<Vec<AtLevel>> {
        const OP: &str = "linear_transform";
        let first = inputs.first().ok_or_else(|| empty(OP))?;
        for other in inputs {
            alike(OP, first, other)?;
        }
        let one = |transform: &&Transform<AtLevel>| {
            let mut terms = transform.giants.iter().flat_map(|g| &g.terms);
            let plain = terms.next().ok_or_else(|| empty(OP))?.plain;
            self.stepped(OP, first.level, first.scale.product(plain.scale))
        };
        transforms.iter().map(one).collect()
    }

    fn nested_transform(
        &mut self,
        inputs: &[&AtLevel],
        transform: &Transform<AtLevel>,
    ) -> Result<AtLevel> {
        let out = self.linear_transforms(inputs, &[transform])?;
        out.first()
            .copied()
            .ok_or_else(|| empty("nested_transform"))
    }

    fn mod_raise(&mut self, a: &AtLevel) -> Result<AtLevel> {
        OpsError::expect_level("mod_raise", a.level, 0)?;
        Ok(AtLevel {
            level: self.params.max_level(),
            scale: a.scale,
        })
    }

    fn bootstraps(&mut self, inputs: &[&AtLevel], which: usize) -> Result<Vec<AtLevel>> {
        const OP: &str = "bootstrap";
        let entry = self.bootstraps.get(which).copied();
        let (from, to) = entry.ok_or_else(|| OpsError::Invalid {
            op: OP,
            what: format!("entry {which} of a table of {}", self.bootstraps.len()),
        })?;
        for input in inputs {
            self.lower(OP, input, from)?;
        }
        Ok(vec![self.value(to)?; inputs.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::polynomial::{Chebyshev, EvaluationPlan, InputMap, evaluate};
    use crate::testing::{ClearOps, toy_params};

    /// Levels and scales of a polynomial are those of operations that compute.
    #[test]
    fn levels_and_scales_are_those_of_a_run() {
        let params = toy_params(6);
        let coefficients = (0..20).map(|i| 1.0 / f64::from(i + 1)).collect();
        let p = Chebyshev::new(coefficients, (-2.0, 1.0)).unwrap();
        let plan = EvaluationPlan::new(&[p], InputMap::Affine).unwrap();
        let mut clear = ClearOps::new(&params);
        let x = clear.encrypt(&SlotVector::real_constant(0.3), 6).unwrap();
        let mut levels = LevelOps::new(&params, &[(1, 5)]);
        let y = levels.value(6).unwrap();
        for (a, b) in evaluate(&mut clear, &x, &plan)
            .unwrap()
            .iter()
            .zip(evaluate(&mut levels, &y, &plan).unwrap())
        {
            assert_eq!((clear.level(a), clear.scale(a)), (b.level, b.scale));
            let up = levels.bootstraps(&[&b], 0);
            assert_eq!(up.is_ok(), b.level >= 1);
        }
        let zero = levels.value(0).unwrap();
        assert!(levels.bootstraps(&[&zero], 0).is_err() && levels.bootstraps(&[&y], 1).is_err());
        assert!(levels.rescale(&zero).is_err() && levels.mul_sum(&[]).is_err());
    }
}
