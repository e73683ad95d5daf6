//! Runs a recorded program on any implementer of `Ops`, instruction by instruction.

use super::{CiphertextProgram, Operation, PlainId, ValueId};
use veilformer_ckks::{Giant, Ops, OpsError, Term, Transform};

impl CiphertextProgram {
    /// All plaintexts of the program, encoded one after the other.
    ///
    /// # Errors
    /// What `ops` refuses to encode.
    pub fn encode<O: Ops>(&self, ops: &mut O) -> Result<Vec<O::Plain>, OpsError> {
        let plains = self.plains.iter().zip(self.extended_plains());
        let encoded = plains.map(|(plain, extended)| {
            let slots = plain.pattern.expand();
            if extended {
                ops.extended_plain(&slots, plain.level, plain.scale)
            } else {
                ops.plain(&slots, plain.level, plain.scale)
            }
        });
        encoded.collect()
    }
}

/// Runs one operation. `value` finds an operand, `plain` an encoded plaintext, `input` a
/// ciphertext of the client.
///
/// # Errors
/// What `ops` refuses, and an operand that is not there.
pub fn replay<O: Ops>(
    ops: &mut O,
    operation: &Operation,
    value: &dyn Fn(ValueId) -> Option<O::Ct>,
    plain: &dyn Fn(PlainId) -> Option<O::Plain>,
    input: &dyn Fn(usize) -> Option<O::Ct>,
) -> Result<Vec<O::Ct>, OpsError> {
    let missing = |what: String| OpsError::Invalid { op: "replay", what };
    let get =
        |id: &ValueId| value(*id).ok_or_else(|| missing(format!("c{} is not there yet", id.0)));
    let constant =
        |id: &PlainId| plain(*id).ok_or_else(|| missing(format!("p{} is not encoded", id.0)));
    let one = |ct: O::Ct| Ok(vec![ct]);
    match operation {
        Operation::Input { index } => {
            one(input(*index).ok_or_else(|| missing(format!("input {index} was not given")))?)
        }
        Operation::Add(a, b) => one(ops.add(&get(a)?, &get(b)?)?),
        Operation::Sub(a, b) => one(ops.sub(&get(a)?, &get(b)?)?),
        Operation::Negate(a) => one(ops.negate(&get(a)?)?),
        Operation::AddPlain(a, p) => one(ops.add_plain(&get(a)?, &constant(p)?)?),
        Operation::MulPlain(a, p) => one(ops.mul_plain(&get(a)?, &constant(p)?)?),
        Operation::Rescale(a) => one(ops.rescale(&get(a)?)?),
        Operation::MulSum(pairs) => {
            let pairs: Vec<(O::Ct, O::Ct)> = pairs
                .iter()
                .map(|(a, b)| Ok((get(a)?, get(b)?)))
                .collect::<Result<_, OpsError>>()?;
            let pairs: Vec<(&O::Ct, &O::Ct)> = pairs.iter().map(|(a, b)| (a, b)).collect();
            one(ops.mul_sum(&pairs)?)
        }
        Operation::RotateMany { source, steps } => ops.rotate_many(&get(source)?, steps),
        Operation::RotateSum { source, steps } => one(ops.rotate_sum(&get(source)?, steps)?),
        Operation::Conjugate(a) => one(ops.conjugate(&get(a)?)?),
        Operation::DropTo { source, level } => one(ops.drop_to(&get(source)?, *level)?),
        Operation::Adjust { source, level } => one(ops.adjust(&get(source)?, *level)?),
        Operation::LinearTransform { inputs, transforms } => {
            let inputs: Vec<O::Ct> = inputs.iter().map(get).collect::<Result<_, _>>()?;
            let inputs: Vec<&O::Ct> = inputs.iter().collect();
            let maps = transforms.iter().map(|map| encoded(map, &constant));
            let maps = maps.collect::<Result<Vec<_>, OpsError>>()?;
            ops.linear_transforms(&inputs, &maps.iter().collect::<Vec<_>>())
        }
        Operation::NestedTransform { inputs, transform } => {
            let inputs: Vec<O::Ct> = inputs.iter().map(get).collect::<Result<_, _>>()?;
            let inputs: Vec<&O::Ct> = inputs.iter().collect();
            one(ops.nested_transform(&inputs, &encoded(transform, &constant)?)?)
        }
        Operation::ModRaise(a) => one(ops.mod_raise(&get(a)?)?),
        Operation::Bootstrap { inputs, which } => {
            let inputs: Vec<O::Ct> = inputs.iter().map(get).collect::<Result<_, _>>()?;
            ops.bootstraps(&inputs.iter().collect::<Vec<_>>(), *which as usize)
        }
    }
}

/// A transform with the plaintexts that its terms name.
fn encoded<Pl>(
    transform: &Transform<PlainId>,
    plain: &dyn Fn(&PlainId) -> Result<Pl, OpsError>,
) -> Result<Transform<Pl>, OpsError> {
    let giants = transform.giants.iter().map(|g| {
        let terms = g.terms.iter().map(|t| {
            Ok(Term {
                input: t.input,
                baby: t.baby,
                plain: plain(&t.plain)?,
            })
        });
        Ok(Giant {
            rotation: g.rotation,
            terms: terms.collect::<Result<_, OpsError>>()?,
        })
    });
    let giants = giants.collect::<Result<_, OpsError>>()?;
    Ok(Transform { giants })
}
