//! Bootstraps of [`ClearOps`]: the circuit itself on slots, after a look at every slot.

use std::sync::Arc;

use veilformer_ckks::{OpsError, SlotVector};

use super::{ClearCiphertext, ClearOps, ClearPlain, Result};
use crate::CircuitError;
use crate::bootstrap::{Bootstrap, BootstrapPlan, Content, RANGE_MARGIN, entry, refused};

const OP: &str = "bootstrap";

/// How far values may be from what the content says that they are: real, or of a period. More
/// than noise, less than anything that is meant.
const TOLERANCE: f64 = 1e-3;

/// A bootstrap that is right to the last bit and costs nothing: for tests of what is around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdealBootstrap {
    /// What the slots hold.
    pub content: Content,
    /// The lowest level of an input.
    pub input_level: usize,
    /// The level of the results.
    pub output_level: usize,
}

/// What [`veilformer_ckks::Ops::bootstraps`] runs.
pub(super) enum Table {
    Circuits(Vec<Bootstrap<ClearPlain>>),
    Ideal(Vec<IdealBootstrap>),
}

impl Default for Table {
    fn default() -> Self {
        Self::Circuits(Vec::new())
    }
}

impl ClearOps {
    /// Takes a table of bootstraps that only check levels and slots, as the circuits would, and
    /// give the same values back without any error.
    pub fn set_ideal_bootstraps(&mut self, table: &[IdealBootstrap]) {
        self.bootstraps = Arc::new(Table::Ideal(table.to_vec()));
    }

    /// Encodes a table of bootstraps, which [`veilformer_ckks::Ops::bootstraps`] then runs. Like
    /// any encoding it takes samples of noise.
    ///
    /// # Errors
    /// Plans of other parameters; what the encoder refuses.
    pub fn set_bootstraps(
        &mut self,
        plans: &[BootstrapPlan],
    ) -> std::result::Result<(), CircuitError> {
        if plans.iter().any(|plan| plan.params() != &self.params) {
            return Err(CircuitError::shape(OP, "a plan is of other parameters"));
        }
        let encoded = BootstrapPlan::encode_table(plans, self)?;
        self.bootstraps = Arc::new(Table::Circuits(encoded));
        Ok(())
    }

    pub(super) fn bootstrapped(
        &mut self,
        inputs: &[&ClearCiphertext],
        which: usize,
    ) -> Result<Vec<ClearCiphertext>> {
        let table = Arc::clone(&self.bootstraps);
        match table.as_ref() {
            Table::Circuits(table) => {
                let bootstrap = entry(table, which)?;
                for input in inputs {
                    self.check_slots(input, bootstrap.plan().content(), inputs.len() > 1)?;
                }
                bootstrap.run_many(self, inputs).map_err(refused)
            }
            Table::Ideal(table) => {
                let ideal = entry(table, which)?;
                let again = inputs.iter().map(|input| self.ideal(input, ideal));
                again.collect()
            }
        }
    }

    fn ideal(&self, input: &ClearCiphertext, ideal: &IdealBootstrap) -> Result<ClearCiphertext> {
        if input.level < ideal.input_level {
            return Err(OpsError::OutOfLevels {
                op: OP,
                level: input.level,
                needed: ideal.input_level,
            });
        }
        self.check_slots(input, ideal.content, !ideal.content.is_complex())?;
        let slots = SlotVector::Dense(self.decrypt(input));
        let mut fresh = Self::new(&self.params);
        fresh.encrypt(&slots, ideal.output_level)
    }

    /// Whether all slots are what a bootstrap takes.
    fn check_slots(&self, input: &ClearCiphertext, content: Content, paired: bool) -> Result<()> {
        let slots = self.decrypt(input);
        let refuse = |what: String| Err(OpsError::Invalid { op: OP, what });
        let most = 1.0 + RANGE_MARGIN;
        for (j, z) in slots.iter().enumerate() {
            // A maximum would pass over what is not a number.
            if !(z.re.abs() <= most && z.im.abs() <= most) {
                return refuse(format!("slot {j} holds {z:.4e}, expected at most 1"));
            }
            if paired && z.im.abs() > TOLERANCE {
                return refuse(format!(
                    "slot {j} holds {z:.4e}; of a pair only real numbers come out"
                ));
            }
            let Some(period) = content.period() else {
                continue;
            };
            let first = slots.get(j % period.max(1)).copied().unwrap_or_default();
            let apart = z - first;
            let complex = content.is_complex() && apart.im.abs() > TOLERANCE;
            if apart.re.abs() > TOLERANCE || complex {
                return refuse(format!(
                    "slot {j} holds {z:.4e} and slot {} {first:.4e}; expected a period of {period}",
                    j % period.max(1)
                ));
            }
        }
        Ok(())
    }
}
