//! The verifier: run after every pass that touches a ciphertext program, and when one is loaded.

use super::{
    BootstrapInfo, CiphertextProgram, Instruction, MAX_BOOTSTRAPS, Operation, PlainId, Recorder,
    ValueId, replay,
};
use crate::IrError;
use veilformer_circuits::bootstrap::{BootstrapSpec, Content};
use veilformer_ckks::{KeyList, KeyPurpose, Ops, Params, mod_raise_keys, moves};

/// Longest name of a section, in bytes: names are shown to people.
const MAX_SECTION_NAME: usize = 256;

impl CiphertextProgram {
    /// Checks the program against the parameters: operands precede their uses, every level and
    /// scale follows the scheme's rules, and no value can exceed its modulus.
    ///
    /// A loaded program is a stranger's: what passes here never panics in an evaluator.
    ///
    /// # Errors
    /// [`IrError`] names the first instruction that does not hold.
    pub fn verify(&self, params: &Params) -> Result<(), IrError> {
        if self.params_digest != params.digest() {
            return Err(IrError::Program(
                "it was compiled for other parameters".into(),
            ));
        }
        if self.slots != params.slots() {
            return Err(IrError::Program(format!(
                "{} slots, the parameters have {}",
                self.slots,
                params.slots()
            )));
        }
        if !self.batch.is_power_of_two() || self.batch > self.slots {
            return Err(IrError::Program(format!(
                "{} sentences a run; a power of two of at most {} is expected",
                self.batch, self.slots
            )));
        }
        self.check_tables(params)?;
        let mut twin = Recorder::new(params);
        for plain in &self.plains {
            twin.keep_plain(plain)
                .map_err(|e| IrError::Program(e.to_string()))?;
        }
        twin.sections_of(self);
        self.check_bootstraps(params)?;
        twin.set_bootstraps(&self.bootstraps);
        let mut inputs_seen = 0;
        for (index, instruction) in self.instructions.iter().enumerate() {
            self.check_instruction(params, &mut twin, instruction, &mut inputs_seen)
                .map_err(|why| IrError::Ciphertext { index, why })?;
        }
        if inputs_seen != self.inputs.len() || twin.value_count() != self.values.len() {
            return Err(IrError::Program(
                "its tables and its instructions disagree in length".into(),
            ));
        }
        for id in &self.outputs {
            self.check_room(params, *id).map_err(IrError::Program)?;
        }
        Ok(())
    }

    /// What can be said before any instruction is looked at.
    fn check_tables(&self, params: &Params) -> Result<(), IrError> {
        let fail = |why: String| Err(IrError::Program(why));
        for (i, input) in self.inputs.iter().enumerate() {
            let canonical = params.scale_at(input.level);
            if input.level > params.max_level() || !input.scale.matches(canonical) {
                return fail(format!(
                    "input {i} is at level {} and scale {:e}; a level up to {} and its canonical \
                     scale are expected",
                    input.level,
                    input.scale.value(),
                    params.max_level()
                ));
            }
        }
        let unprintable =
            |name: &String| name.len() > MAX_SECTION_NAME || name.chars().any(char::is_control);
        if self.sections.iter().any(unprintable) {
            return fail(format!(
                "the name of a section is not text of at most {MAX_SECTION_NAME} bytes"
            ));
        }
        // Each answer is a value of its own; more of them would only make the answer file longer.
        let unknown = |id: &ValueId| self.info(*id).is_none();
        if self.outputs.is_empty()
            || self.outputs.len() > self.values.len()
            || self.outputs.iter().any(unknown)
        {
            return fail("an answer is not a value of the program".into());
        }
        Ok(())
    }

    /// The table against what follows from its specifications.
    fn check_bootstraps(&self, params: &Params) -> Result<(), IrError> {
        if self.bootstraps.len() > MAX_BOOTSTRAPS {
            return Err(IrError::Program(format!(
                "{} bootstraps; at most {MAX_BOOTSTRAPS} fit its table",
                self.bootstraps.len()
            )));
        }
        for (which, entry) in self.bootstraps.iter().enumerate() {
            let follows = BootstrapInfo::new(params, &entry.spec, entry.content);
            let why = match follows {
                Ok(follows) if follows == *entry => continue,
                Ok(_) => "it is not what follows from its specification".to_owned(),
                Err(error) => error.to_string(),
            };
            return Err(IrError::Program(format!("bootstrap {which}: {why}")));
        }
        Ok(())
    }

    /// Gives the program the table of bootstraps that was stored beside it.
    ///
    /// # Errors
    /// A table that is too long; a specification that does not fit the parameters.
    pub fn set_bootstraps(
        &mut self,
        params: &Params,
        table: &[(BootstrapSpec, Content)],
    ) -> Result<(), IrError> {
        // Not more work than for a table that will pass.
        let known = table.iter().take(MAX_BOOTSTRAPS + 1);
        let infos = known.map(|(spec, content)| BootstrapInfo::new(params, spec, *content));
        self.bootstraps = infos
            .collect::<Result<_, _>>()
            .map_err(|e| IrError::Program(e.to_string()))?;
        Ok(())
    }

    /// Replays one instruction on the twin and compares what comes out with the tables.
    fn check_instruction(
        &self,
        params: &Params,
        twin: &mut Recorder,
        instruction: &Instruction,
        inputs_seen: &mut usize,
    ) -> Result<(), String> {
        let before = twin.value_count();
        twin.enter(instruction.section);
        match &instruction.operation {
            Operation::Input { index } => {
                let Some(info) = self.inputs.get(*index) else {
                    return Err(format!("input {index} of {}", self.inputs.len()));
                };
                if *index != *inputs_seen {
                    return Err(format!("input {index} where input {inputs_seen} is due"));
                }
                *inputs_seen += 1;
                twin.input(info.level, info.bound)
                    .map_err(|e| e.to_string())?;
            }
            // An evaluator gives one result for each step, also for one that does not move
            // anything, where the recorder leaves such a step out: they would be mixed up.
            Operation::RotateMany { steps, .. }
                if steps.len() != instruction.results.len()
                    || steps.iter().any(|s| s.rem_euclid(self.slots as i64) == 0) =>
            {
                return Err(format!(
                    "{} rotations with {} results; as many are expected, and each has to move \
                     the slots",
                    steps.len(),
                    instruction.results.len()
                ));
            }
            Operation::RotateSum { steps, .. }
                if steps.is_empty() || steps.iter().any(|s| !moves(*s, self.slots)) =>
            {
                return Err("a sum of rotations of which some move nothing".into());
            }
            operation => {
                let value = |id: ValueId| ((id.0 as usize) < before).then_some(id);
                let plain = |id: PlainId| ((id.0 as usize) < self.plains.len()).then_some(id);
                replay(twin, operation, &value, &plain, &|_| None).map_err(|e| e.to_string())?;
            }
        }
        let made = twin.results_since(before);
        if made != instruction.results || made.is_empty() {
            return Err("its results are not numbered in order".into());
        }
        made.iter().try_for_each(|id| self.check_value(twin, *id))?;
        // Between rescales everything is linear modulo the product of the primes: only what a
        // rescale leaves behind, and what goes into a product, has to fit.
        let must_fit = match &instruction.operation {
            Operation::MulSum(_) => [instruction.operation.operands(), made].concat(),
            Operation::Rescale(_)
            | Operation::Adjust { .. }
            | Operation::LinearTransform { .. }
            | Operation::NestedTransform { .. }
            | Operation::Bootstrap { .. } => made,
            // What goes in must not run over q0 before the multiples of it come.
            Operation::ModRaise(_) => [instruction.operation.operands(), made].concat(),
            _ => vec![],
        };
        must_fit
            .iter()
            .try_for_each(|id| self.check_room(params, *id))
    }

    /// The table's entry against what the operations give; bounds may be tighter.
    fn check_value(&self, twin: &mut Recorder, id: ValueId) -> Result<(), String> {
        let Some(info) = self.info(id) else {
            return Err(format!("c{} is not in the table", id.0));
        };
        let (level, scale) = (twin.level(&id), twin.scale(&id));
        if info.level != level || !info.scale.matches(scale) {
            return Err(format!(
                "c{} is noted at level {} but is at level {level}",
                id.0, info.level
            ));
        }
        // Not a number fails the comparison as well.
        if !(info.bound >= 0.0 && info.mean >= 0.0) {
            return Err(format!("the bound of c{} is not a positive number", id.0));
        }
        twin.tighten(id, info.bound);
        twin.tighten_mean(id, info.mean);
        Ok(())
    }

    /// Checks that the value's coefficients stay below half the modulus of its level.
    fn check_room(&self, params: &Params, id: ValueId) -> Result<(), String> {
        let Some(info) = self.info(id) else {
            return Err(format!("c{} is not in the table", id.0));
        };
        let room = params.log_q(info.level) - 1.0;
        let need = info.mean.max(f64::MIN_POSITIVE).log2() + info.scale.log2();
        if need <= room {
            return Ok(());
        }
        Err(format!(
            "c{} may take slots of {:.3e} on average, which at scale 2^{:.1} need {need:.1} bits; \
             level {} has {room:.1}",
            id.0,
            info.mean,
            info.scale.log2(),
            info.level
        ))
    }

    /// The evaluation keys that the program uses, each with the highest level of its use in a band.
    pub fn key_list(&self, params: &Params) -> KeyList {
        let mut list = KeyList::default();
        let level_of = |id: &ValueId| self.info(*id).map_or(0, |i| i.level);
        let mut need = |purpose, level| list.need(purpose, level, params);
        for instruction in &self.instructions {
            match &instruction.operation {
                Operation::MulSum(pairs) => {
                    let level = pairs.first().map_or(0, |p| level_of(&p.0));
                    need(KeyPurpose::Relinearization, level);
                }
                Operation::Conjugate(a) => need(KeyPurpose::Conjugation, level_of(a)),
                Operation::RotateMany { source, steps }
                | Operation::RotateSum { source, steps } => {
                    steps
                        .iter()
                        .for_each(|s| need(KeyPurpose::Rotation(*s), level_of(source)));
                }
                Operation::LinearTransform { inputs, .. }
                | Operation::NestedTransform { inputs, .. } => {
                    let level = inputs.first().map_or(0, level_of);
                    let transforms = instruction.operation.transforms();
                    for giant in transforms.iter().flat_map(|t| &t.giants) {
                        need(KeyPurpose::Rotation(giant.rotation), level);
                        giant
                            .terms
                            .iter()
                            .for_each(|t| need(KeyPurpose::Rotation(t.baby), level));
                    }
                }
                Operation::ModRaise(_) => {
                    let result = instruction.results.first().map_or(0, level_of);
                    for (purpose, level) in mod_raise_keys(result) {
                        need(purpose, level);
                    }
                }
                Operation::Bootstrap { which, .. } => {
                    let entry = self.bootstraps.get(*which as usize);
                    for (purpose, level) in entry.iter().flat_map(|b| b.keys.iter()) {
                        need(purpose, level);
                    }
                }
                _ => {}
            }
        }
        list
    }
}
