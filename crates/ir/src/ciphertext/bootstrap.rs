//! The table of bootstraps of a ciphertext program.

use std::collections::BTreeMap;

use veilformer_circuits::CircuitError;
use veilformer_circuits::bootstrap::{BootstrapPlan, BootstrapSpec, Content, RANGE_MARGIN};
use veilformer_circuits::matrix::Counts;
use veilformer_circuits::testing::Counting;
use veilformer_ckks::{KeyList, KeyPurpose, OpsError, Params, adjust_constant};

use super::{CiphertextProgram, Operation, Recorder, ValueId, ValueInfo};

const BOOTSTRAP: &str = "bootstrap";

/// Most bootstraps of one table: there is one for each content, and few contents.
pub const MAX_BOOTSTRAPS: usize = 16;

/// A bootstrap that a program uses: what decides it, and what follows from that under the program's
/// parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapInfo {
    /// What decides the noise.
    pub spec: BootstrapSpec,
    /// What the slots hold.
    pub content: Content,
    /// The lowest level of an input.
    pub input_level: usize,
    /// The level of the result.
    pub output_level: usize,
    /// The largest error that is predicted of any slot's part.
    pub error: f64,
    /// The keys that it switches with, each with the highest level of its use in a band.
    pub keys: KeyList,
    /// What they are for, in the order of the first use.
    pub order: Vec<KeyPurpose>,
    /// Inner products with a key.
    pub key_switches: usize,
    /// Products of two ciphertexts.
    pub multiplications: usize,
    /// Its operations by level; of a pair where that takes a conjugation more.
    pub counts: BTreeMap<usize, Counts>,
}

impl BootstrapInfo {
    /// What follows from a specification.
    ///
    /// # Errors
    /// As [`BootstrapPlan::new`].
    pub fn new(
        params: &Params,
        spec: &BootstrapSpec,
        content: Content,
    ) -> Result<Self, CircuitError> {
        let plan = BootstrapPlan::new(params, spec, content)?;
        let (inside, counts) = recorded(&plan)?;
        let operations = inside.instructions.iter().map(|i| &i.operation);
        let mut order = Vec::new();
        for key in operations.flat_map(|operation| inside.key_uses(operation)) {
            if !order.contains(&key) {
                order.push(key);
            }
        }
        Ok(Self {
            spec: *spec,
            content,
            input_level: plan.input_level(),
            output_level: plan.output_level(),
            error: plan.error()?,
            keys: inside.key_list(params),
            order,
            key_switches: counts.values().map(Counts::key_switches).sum(),
            multiplications: counts.values().map(|c| c.products).sum(),
            counts,
        })
    }

    /// The plan of its circuit.
    ///
    /// # Errors
    /// As [`BootstrapPlan::new`].
    pub fn plan(&self, params: &Params) -> Result<BootstrapPlan, CircuitError> {
        BootstrapPlan::new(params, &self.spec, self.content)
    }

    /// What happens inside, as a program of its own from [`BootstrapInfo::input_level`] to
    /// [`BootstrapInfo::output_level`]: for what is planned of it. Nothing bounds its values. Of complex
    /// content with a period it is what happens to a pair, which takes a conjugation more than one value.
    ///
    /// # Errors
    /// As [`BootstrapPlan::new`].
    pub fn inside(&self, params: &Params) -> Result<CiphertextProgram, CircuitError> {
        Ok(recorded(&self.plan(params)?)?.0)
    }
}

/// The circuit of one value, recorded and counted; of a pair where that takes a conjugation more.
fn recorded(
    plan: &BootstrapPlan,
) -> Result<(CiphertextProgram, BTreeMap<usize, Counts>), CircuitError> {
    let mut ops = Counting::new(Recorder::new(plan.params()));
    let bootstrap = plan.encode(&mut ops)?;
    let input = ops.inner().input(plan.input_level(), 1.0)?;
    let outputs = match plan.content() {
        Content::PeriodicComplex(_) => {
            let other = ops.inner().input(plan.input_level(), 1.0)?;
            bootstrap.run_many(&mut ops, &[&input, &other])?
        }
        _ => vec![bootstrap.run(&mut ops, &input)?],
    };
    let counts = ops.take();
    Ok((ops.into_inner().finish(outputs), counts))
}

impl Recorder {
    /// The number of a bootstrap in the program's table, into which it comes if it is not there:
    /// for [`veilformer_ckks::Ops::bootstraps`].
    ///
    /// # Errors
    /// What does not fit the parameters; a full table.
    pub fn bootstrap_entry(
        &mut self,
        spec: &BootstrapSpec,
        content: Content,
    ) -> Result<usize, CircuitError> {
        let table = &mut self.program.bootstraps;
        let known = table
            .iter()
            .position(|b| (&b.spec, b.content) == (spec, content));
        if let Some(which) = known {
            return Ok(which);
        }
        if table.len() >= MAX_BOOTSTRAPS {
            let what = format!("a program has at most {MAX_BOOTSTRAPS} bootstraps");
            return Err(CircuitError::shape(BOOTSTRAP, what));
        }
        table.push(BootstrapInfo::new(&self.params, spec, content)?);
        Ok(table.len() - 1)
    }

    /// What is known of an entry of the table.
    pub fn bootstrap_info(&self, which: usize) -> Option<&BootstrapInfo> {
        self.program.bootstraps.get(which)
    }

    /// Takes over a table that was checked.
    pub(super) fn set_bootstraps(&mut self, table: &[BootstrapInfo]) {
        self.program.bootstraps = table.to_vec();
    }

    /// Takes over the names of another program's parts.
    pub(super) fn sections_of(&mut self, program: &CiphertextProgram) {
        self.program.sections.clone_from(&program.sections);
    }

    /// What follows belongs to this part.
    pub(super) fn enter(&mut self, section: u32) {
        self.section = section;
    }

    /// [`Ops::bootstraps`].
    pub(super) fn bootstrapped(
        &mut self,
        inputs: &[&ValueId],
        which: usize,
    ) -> Result<Vec<ValueId>, OpsError> {
        let invalid = |what: String| OpsError::Invalid {
            op: BOOTSTRAP,
            what,
        };
        let table = &self.program.bootstraps;
        let entry = table
            .get(which)
            .ok_or_else(|| invalid(format!("entry {which} of a table of {}", table.len())))?;
        let (content, low, error) = (entry.content, entry.input_level, entry.error);
        let (level, scale) = (entry.output_level, self.params.scale_at(entry.output_level));
        match (inputs.len(), content) {
            (1, _) => {}
            (2, content) if content.is_complex() => {}
            (count, content) => {
                let what = format!(
                    "{count} values for {content:?} slots; expected one, or two where they are complex"
                );
                return Err(invalid(what));
            }
        }
        let mut infos = Vec::with_capacity(inputs.len());
        for id in inputs {
            let x = self.info(BOOTSTRAP, **id)?;
            match x.level {
                l if l < low => {
                    return Err(OpsError::OutOfLevels {
                        op: BOOTSTRAP,
                        level: l,
                        needed: low,
                    });
                }
                l if l == low => {
                    OpsError::expect_scale(BOOTSTRAP, x.scale, self.params.scale_at(low))?;
                }
                _ => {
                    adjust_constant(&self.params, x.scale, low)?;
                }
            }
            // Not a number fails the comparison as well.
            if x.bound.is_nan() || x.bound > 1.0 + RANGE_MARGIN {
                let section = self.program.sections.get(self.section as usize);
                let section = section.map_or("", String::as_str);
                return Err(invalid(format!(
                    "{section}: slots of c{} may reach {:.4e}, expected at most 1; scale the value \
                     down before it is bootstrapped, or state a tighter bound",
                    id.0, x.bound
                )));
            }
            infos.push(ValueInfo {
                level,
                scale,
                bound: x.bound + error,
                mean: x.mean + error,
            });
        }
        let operation = Operation::Bootstrap {
            inputs: inputs.iter().map(|id| **id).collect(),
            which: which as u32,
        };
        Ok(self.emit_many(operation, infos))
    }
}
