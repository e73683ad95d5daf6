//! [`Bootstrapping`]: operations with a table of bootstraps.

use veilformer_ckks::{Ops, OpsError, Params, Scale, SlotVector, Transform};

use super::circuit::Bootstrap;
use crate::CircuitError;

type Result<T> = std::result::Result<T, OpsError>;

/// [`Ops`] that does all that another one does, and bootstraps by the circuits of a table.
#[derive(Clone, Debug)]
pub struct Bootstrapping<'t, O: Ops> {
    ops: O,
    table: &'t [Bootstrap<O::Plain>],
}

impl<'t, O: Ops> Bootstrapping<'t, O> {
    /// Operations with the bootstraps of `table`, which were encoded by operations of the kind.
    pub fn new(ops: O, table: &'t [Bootstrap<O::Plain>]) -> Self {
        Self { ops, table }
    }

    /// The operations beneath.
    pub fn inner(&mut self) -> &mut O {
        &mut self.ops
    }
}

/// The entry of a table.
///
/// # Errors
/// There is none of this number.
pub(crate) fn entry<T>(table: &[T], which: usize) -> Result<&T> {
    table.get(which).ok_or_else(|| OpsError::Invalid {
        op: "bootstrap",
        what: format!("entry {which} of a table of {}", table.len()),
    })
}

/// What a circuit refuses, as an operation's error.
pub(crate) fn refused(error: CircuitError) -> OpsError {
    match error {
        CircuitError::Ops(error) => error,
        CircuitError::Levels { level, needed, .. } => OpsError::OutOfLevels {
            op: "bootstrap",
            level,
            needed,
        },
        CircuitError::Shape { what, .. } => OpsError::Invalid {
            op: "bootstrap",
            what,
        },
        other => OpsError::Invalid {
            op: "bootstrap",
            what: other.to_string(),
        },
    }
}

impl<O: Ops> Ops for Bootstrapping<'_, O> {
    type Ct = O::Ct;
    type Plain = O::Plain;

    fn params(&self) -> &Params {
        self.ops.params()
    }

    fn level(&self, ct: &O::Ct) -> usize {
        self.ops.level(ct)
    }

    fn scale(&self, ct: &O::Ct) -> Scale {
        self.ops.scale(ct)
    }

    fn plain(&mut self, slots: &SlotVector, level: usize, scale: Scale) -> Result<O::Plain> {
        self.ops.plain(slots, level, scale)
    }

    fn extended_plain(
        &mut self,
        slots: &SlotVector,
        level: usize,
        scale: Scale,
    ) -> Result<O::Plain> {
        self.ops.extended_plain(slots, level, scale)
    }

    fn add(&mut self, a: &O::Ct, b: &O::Ct) -> Result<O::Ct> {
        self.ops.add(a, b)
    }

    fn sub(&mut self, a: &O::Ct, b: &O::Ct) -> Result<O::Ct> {
        self.ops.sub(a, b)
    }

    fn negate(&mut self, a: &O::Ct) -> Result<O::Ct> {
        self.ops.negate(a)
    }

    fn add_plain(&mut self, a: &O::Ct, p: &O::Plain) -> Result<O::Ct> {
        self.ops.add_plain(a, p)
    }

    fn mul_plain(&mut self, a: &O::Ct, p: &O::Plain) -> Result<O::Ct> {
        self.ops.mul_plain(a, p)
    }

    fn mul_plain_sum(&mut self, terms: &[(&O::Ct, &O::Plain)]) -> Result<O::Ct> {
        self.ops.mul_plain_sum(terms)
    }

    fn rescale(&mut self, a: &O::Ct) -> Result<O::Ct> {
        self.ops.rescale(a)
    }

    fn mul_sum(&mut self, pairs: &[(&O::Ct, &O::Ct)]) -> Result<O::Ct> {
        self.ops.mul_sum(pairs)
    }

    fn rotate_many(&mut self, a: &O::Ct, by: &[i64]) -> Result<Vec<O::Ct>> {
        self.ops.rotate_many(a, by)
    }

    fn rotate_sum(&mut self, a: &O::Ct, by: &[i64]) -> Result<O::Ct> {
        self.ops.rotate_sum(a, by)
    }

    fn conjugate(&mut self, a: &O::Ct) -> Result<O::Ct> {
        self.ops.conjugate(a)
    }

    fn drop_to(&mut self, a: &O::Ct, level: usize) -> Result<O::Ct> {
        self.ops.drop_to(a, level)
    }

    fn adjust(&mut self, a: &O::Ct, level: usize) -> Result<O::Ct> {
        self.ops.adjust(a, level)
    }

    fn linear_transforms(
        &mut self,
        inputs: &[&O::Ct],
        transforms: &[&Transform<O::Plain>],
    ) -> Result<Vec<O::Ct>> {
        self.ops.linear_transforms(inputs, transforms)
    }

    fn nested_transform(
        &mut self,
        inputs: &[&O::Ct],
        transform: &Transform<O::Plain>,
    ) -> Result<O::Ct> {
        self.ops.nested_transform(inputs, transform)
    }

    fn mod_raise(&mut self, a: &O::Ct) -> Result<O::Ct> {
        self.ops.mod_raise(a)
    }

    fn promise(&mut self, ct: &O::Ct, bound: f64) {
        self.ops.promise(ct, bound);
    }

    fn bootstraps(&mut self, inputs: &[&O::Ct], which: usize) -> Result<Vec<O::Ct>> {
        let bootstrap = entry(self.table, which)?;
        bootstrap.run_many(&mut self.ops, inputs).map_err(refused)
    }
}
