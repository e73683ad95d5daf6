//! Linear maps, their giant steps side by side or nested: from slots and steps to the ring's plan.

use std::sync::Arc;

use veilformer_ring::{Backend, DiagonalTerm, GiantStep, OutputPlan, TransformPlan};

use super::{Ct, Evaluator, Result, SharedPlain, short_answer};
use crate::ciphertext::CiphertextInfo;
use crate::key_store::PreparedKey;
use crate::ops::{Giant, OpsError};
use crate::{KeyPurpose, Scale, Transform};

const OP: &str = "linear_transform";

impl<B: Backend> Evaluator<'_, B> {
    /// See [`crate::Ops::linear_transforms`].
    ///
    /// # Errors
    /// See there.
    pub fn linear_transforms(
        &self,
        inputs: &[&Ct<B>],
        transforms: &[&Transform<SharedPlain<B>>],
    ) -> Result<Vec<Ct<B>>> {
        self.transforms(inputs, transforms, false)
    }

    /// See [`crate::Ops::nested_transform`].
    ///
    /// # Errors
    /// See there.
    pub fn nested_transform(
        &self,
        inputs: &[&Ct<B>],
        transform: &Transform<SharedPlain<B>>,
    ) -> Result<Ct<B>> {
        let mut results = self.transforms(inputs, &[transform], true)?;
        results.pop().ok_or_else(|| short_answer(OP))
    }

    fn transforms(
        &self,
        inputs: &[&Ct<B>],
        transforms: &[&Transform<SharedPlain<B>>],
        nested: bool,
    ) -> Result<Vec<Ct<B>>> {
        let Some(first) = inputs.first() else {
            return Err(OpsError::empty(OP, "input"));
        };
        for input in inputs {
            OpsError::expect_level(OP, input.level(), first.level())?;
            OpsError::expect_scale(OP, input.scale(), first.scale())?;
            self.check_key_id(OP, input.info())?;
        }
        if transforms.is_empty() {
            return Err(OpsError::empty(OP, "transform"));
        }
        let giants = transforms.iter().flat_map(|t| &t.giants);
        let term = giants.flat_map(|g| &g.terms).next();
        let mut plan = Plan {
            evaluator: self,
            level: first.level(),
            inputs: inputs.len(),
            scale: term
                .ok_or_else(|| OpsError::empty(OP, "term"))?
                .plain
                .scale(),
            key_purposes: Vec::new(),
            keys: Vec::new(),
            plains: Vec::new(),
        };
        let outputs = transforms
            .iter()
            .map(|transform| plan.output(&transform.giants, nested))
            .collect::<Result<Vec<_>>>()?;
        let info = CiphertextInfo {
            scale: first.scale().product(plan.scale),
            ..first.info()
        };
        let ring_plan = TransformPlan {
            keys: plan.keys.iter().map(|key| key.key()).collect(),
            plains: plan.plains,
            outputs,
        };
        let parts: Vec<_> = inputs.iter().map(|input| input.parts()).collect();
        self.fused_step(OP, info, |drop| {
            self.backend.linear_transform(&parts, &ring_plan, drop)
        })
    }
}

/// The ring's plan of a transform while it is being built: every key once.
struct Plan<'e, 'a, B: Backend> {
    evaluator: &'e Evaluator<'a, B>,
    level: usize,
    /// How many there are.
    inputs: usize,
    /// Of all plaintexts.
    scale: Scale,
    key_purposes: Vec<i64>,
    keys: Vec<Arc<PreparedKey<B>>>,
    plains: Vec<&'e B::Plain>,
}

impl<'e, B: Backend> Plan<'e, '_, B> {
    fn output(&mut self, giants: &'e [Giant<SharedPlain<B>>], nested: bool) -> Result<OutputPlan> {
        let mut steps: Vec<GiantStep> = Vec::with_capacity(giants.len());
        for giant in giants {
            // Beside others a step of nothing is nothing; around others it is a rotation.
            if giant.terms.is_empty() && !nested {
                continue;
            }
            let mut step = self.giant(giant)?;
            match steps.last_mut() {
                // Without a rotation the sum is part of the one around it.
                Some(around) if nested && step.key.is_none() => {
                    around.terms.append(&mut step.terms)
                }
                _ => steps.push(step),
            }
        }
        if nested {
            let innermost = steps.iter().rposition(|step| !step.terms.is_empty());
            steps.truncate(innermost.map_or(0, |last| last + 1));
        }
        if steps.is_empty() {
            return Err(OpsError::empty(OP, "term"));
        }
        Ok(OutputPlan {
            giants: steps,
            nested,
        })
    }

    fn giant(&mut self, giant: &'e Giant<SharedPlain<B>>) -> Result<GiantStep> {
        let mut terms = Vec::with_capacity(giant.terms.len());
        for term in &giant.terms {
            if term.input >= self.inputs {
                return Err(OpsError::Invalid {
                    op: OP,
                    what: format!("term names input {}, there are {}", term.input, self.inputs),
                });
            }
            OpsError::expect_plain_level(OP, term.plain.level(), self.level)?;
            OpsError::expect_scale(OP, term.plain.scale(), self.scale)?;
            let step = (term.baby, self.evaluator.params.slots());
            OpsError::expect_extended(OP, term.plain.extended(), step)?;
            self.plains.push(term.plain.plain());
            terms.push(DiagonalTerm {
                input: term.input,
                baby: self.key(term.baby)?,
                plain: self.plains.len() - 1,
            });
        }
        Ok(GiantStep {
            key: self.key(giant.rotation)?,
            terms,
        })
    }

    fn key(&mut self, by: i64) -> Result<Option<usize>> {
        if !self.evaluator.is_turn(by) {
            return Ok(None);
        }
        let by = by.rem_euclid(self.evaluator.params.slots() as i64);
        if let Some(known) = self.key_purposes.iter().position(|&other| other == by) {
            return Ok(Some(known));
        }
        let purpose = KeyPurpose::Rotation(by);
        let key = self.evaluator.key(OP, purpose, self.level)?;
        self.key_purposes.push(by);
        self.keys.push(key);
        Ok(Some(self.keys.len() - 1))
    }
}
