//! Records what a circuit does, instead of doing it.

use super::{
    CiphertextProgram, Instruction, Operation, PlainId, PlainPattern, PlainSpec, ValueId, ValueInfo,
};
use std::collections::HashMap;
use veilformer_ckks::{
    Complex, Ops, OpsError, Params, Scale, SlotVector, Transform, adjust_constant,
};

/// An implementer of [`Ops`] whose ciphertexts are names: running a circuit on it yields the
/// circuit's program. It applies the scheme's level and scale rules exactly as the evaluator
/// does, and bounds every slot of every value.
pub struct Recorder {
    pub(super) params: Params,
    pub(super) program: CiphertextProgram,
    pub(super) section: u32,
    /// Plaintexts already stored, by their content: a repeated one is stored once.
    known: HashMap<u64, Vec<PlainId>>,
    /// Per plaintext its largest and its mean absolute value, computed once: a plaintext of many
    /// slots may be used by very many terms.
    norms: Vec<(f64, f64)>,
    /// Per plaintext whether it may meet rotated inputs: whoever records a circuit says so where
    /// an evaluator would have to know. The program itself shows who needs it. Equal plaintexts
    /// are stored once, so that one may be asked for twice, and then serves for both.
    extended: Vec<bool>,
}

impl Recorder {
    /// An empty program for `params`.
    pub fn new(params: &Params) -> Self {
        let program = CiphertextProgram {
            params_digest: params.digest(),
            slots: params.slots(),
            batch: 1,
            sections: vec![],
            inputs: vec![],
            plains: vec![],
            instructions: vec![],
            values: vec![],
            outputs: vec![],
            bootstraps: vec![],
        };
        Self {
            params: params.clone(),
            program,
            section: 0,
            known: HashMap::new(),
            norms: vec![],
            extended: vec![],
        }
    }

    /// Names the part of the model that the following instructions belong to; a part may go on
    /// where it stopped before.
    pub fn section(&mut self, name: impl Into<String>) {
        let name = name.into();
        let sections = &mut self.program.sections;
        let at = sections.iter().position(|known| *known == name);
        self.section = at.unwrap_or_else(|| {
            sections.push(name);
            sections.len() - 1
        }) as u32;
    }

    /// A new input at `level` and its canonical scale, whose slots are at most `bound`.
    ///
    /// # Errors
    /// A level that the parameters do not have.
    pub fn input(&mut self, level: usize, bound: f64) -> Result<ValueId, OpsError> {
        self.params.check_level(level)?;
        let info = ValueInfo {
            level,
            scale: self.params.scale_at(level),
            bound,
            mean: bound,
        };
        let index = self.program.inputs.len();
        self.program.inputs.push(info.clone());
        Ok(self.emit(Operation::Input { index }, info))
    }

    /// Slot bound of a value.
    pub fn bound(&self, ct: ValueId) -> f64 {
        self.program.info(ct).map_or(f64::INFINITY, |i| i.bound)
    }

    /// States a tighter bound of a value than its operations show, which the caller answers for.
    pub fn tighten(&mut self, ct: ValueId, bound: f64) {
        if let Some(v) = self.program.values.get_mut(ct.0 as usize) {
            v.bound = v.bound.min(bound);
            v.mean = v.mean.min(bound);
        }
    }

    /// The same for the mean over the slots.
    pub fn tighten_mean(&mut self, ct: ValueId, mean: f64) {
        if let Some(v) = self.program.values.get_mut(ct.0 as usize) {
            v.mean = v.mean.min(mean);
        }
    }

    /// The finished program, answering with `outputs`.
    pub fn finish(mut self, outputs: Vec<ValueId>) -> CiphertextProgram {
        self.program.outputs = outputs;
        self.program
    }

    /// Number of values so far.
    pub(super) fn value_count(&self) -> usize {
        self.program.values.len()
    }

    /// The values from number `first` on.
    pub(super) fn results_since(&self, first: usize) -> Vec<ValueId> {
        (first as u32..self.program.values.len() as u32)
            .map(ValueId)
            .collect()
    }

    /// Takes the next plaintext of a program that is checked, even where an equal one is there. It
    /// may meet anything: a finished program is encoded as its instructions need it. What is kept
    /// is what a check needs, not the values: large models would be in memory twice.
    pub(super) fn keep_plain(&mut self, spec: &PlainSpec) -> Result<(), OpsError> {
        self.params.check_level(spec.level)?;
        spec.pattern.check(self.params.slots())?;
        let norms = (spec.pattern.max_abs(), spec.pattern.mean_abs());
        let known = PlainSpec {
            pattern: PlainPattern::Constant(Complex::default()),
            ..*spec
        };
        self.push_plain(known, norms, true);
        Ok(())
    }

    fn push_plain(&mut self, spec: PlainSpec, norms: (f64, f64), extended: bool) {
        self.extended.push(extended);
        self.norms.push(norms);
        self.program.plains.push(spec);
    }

    /// Largest and mean absolute value of a plaintext's slots.
    fn norms(&self, id: PlainId) -> (f64, f64) {
        let unknown = (f64::INFINITY, f64::INFINITY);
        self.norms.get(id.0 as usize).copied().unwrap_or(unknown)
    }

    pub(super) fn info(&self, op: &'static str, id: ValueId) -> Result<ValueInfo, OpsError> {
        self.program
            .info(id)
            .cloned()
            .ok_or_else(|| OpsError::Invalid {
                op,
                what: format!("ciphertext c{} is not of this program", id.0),
            })
    }

    /// The number of a plaintext, which is stored if it is not there yet.
    fn known_plain(
        &mut self,
        slots: &SlotVector,
        level: usize,
        scale: Scale,
        extended: bool,
    ) -> Result<PlainId, OpsError> {
        self.params.check_level(level)?;
        slots.check(self.params.slots())?;
        let spec = PlainSpec {
            pattern: PlainPattern::of(slots),
            level,
            scale,
        };
        let print = fingerprint(&spec);
        let same = self.known.get(&print).into_iter().flatten();
        if let Some(id) = same
            .copied()
            .find(|id| self.program.plains.get(id.0 as usize) == Some(&spec))
        {
            if let Some(known) = self.extended.get_mut(id.0 as usize) {
                *known |= extended;
            }
            return Ok(id);
        }
        let id = PlainId(self.program.plains.len() as u32);
        let norms = (spec.pattern.max_abs(), spec.pattern.mean_abs());
        self.push_plain(spec, norms, extended);
        self.known.entry(print).or_default().push(id);
        Ok(id)
    }

    fn plain_spec(&self, op: &'static str, id: PlainId) -> Result<&PlainSpec, OpsError> {
        self.program
            .plains
            .get(id.0 as usize)
            .ok_or_else(|| OpsError::Invalid {
                op,
                what: format!("plaintext p{} is not of this program", id.0),
            })
    }

    pub(super) fn emit_many(
        &mut self,
        operation: Operation,
        infos: Vec<ValueInfo>,
    ) -> Vec<ValueId> {
        let first = self.program.values.len() as u32;
        let results: Vec<ValueId> = (first..first + infos.len() as u32).map(ValueId).collect();
        self.program.values.extend(infos);
        let section = self.section;
        self.program.instructions.push(Instruction {
            operation,
            results: results.clone(),
            section,
        });
        results
    }

    fn emit(&mut self, operation: Operation, info: ValueInfo) -> ValueId {
        let id = ValueId(self.program.values.len() as u32);
        self.emit_many(operation, vec![info]);
        id
    }

    /// Checks that `b` has the level of `a` and a scale that may be added to it.
    fn alike(
        &self,
        op: &'static str,
        a: ValueId,
        b: ValueId,
    ) -> Result<(ValueInfo, ValueInfo), OpsError> {
        let (x, y) = (self.info(op, a)?, self.info(op, b)?);
        OpsError::expect_level(op, y.level, x.level)?;
        OpsError::expect_scale(op, y.scale, x.scale)?;
        Ok((x, y))
    }

    /// Level and scale below `level`.
    fn step(
        &self,
        op: &'static str,
        level: usize,
        scale: Scale,
    ) -> Result<(usize, Scale), OpsError> {
        if level == 0 {
            return Err(OpsError::OutOfLevels {
                op,
                level,
                needed: 1,
            });
        }
        let step = self.params.step_at(level);
        let scale = scale
            .multiply(self.params.product(step.add))
            .divide(self.params.product(step.drop));
        Ok((level - 1, scale))
    }
}

/// Bounds of a sum with something of that bound and mean.
fn plus(x: ValueInfo, bound: f64, mean: f64) -> ValueInfo {
    ValueInfo {
        bound: x.bound + bound,
        mean: x.mean + mean,
        ..x
    }
}

/// Bounds of a product, slot by slot: the mean of one side meets the largest of the other.
fn times(x: &ValueInfo, bound: f64, mean: f64) -> ValueInfo {
    ValueInfo {
        bound: x.bound * bound,
        mean: (x.mean * bound).min(x.bound * mean),
        ..x.clone()
    }
}

/// A cheap fingerprint of a plaintext; equality is checked on the content.
fn fingerprint(spec: &PlainSpec) -> u64 {
    let mut h = spec.level as u64 ^ spec.scale.value().to_bits();
    let mut mix = |x: f64| h = (h.rotate_left(5) ^ x.to_bits()).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    match &spec.pattern {
        PlainPattern::Constant(c) => {
            mix(c.re);
            mix(c.im);
        }
        PlainPattern::Runs { values, .. } => values.iter().for_each(|c| {
            mix(c.re);
            mix(c.im);
        }),
        PlainPattern::Slots(s) => s.entries().iter().for_each(|c| {
            mix(c.re);
            mix(c.im);
        }),
    }
    h
}

impl Ops for Recorder {
    type Ct = ValueId;
    type Plain = PlainId;

    fn params(&self) -> &Params {
        &self.params
    }

    fn level(&self, ct: &ValueId) -> usize {
        self.program.info(*ct).map_or(0, |i| i.level)
    }

    fn scale(&self, ct: &ValueId) -> Scale {
        self.program
            .info(*ct)
            .map_or_else(|| self.params.scale_at(0), |i| i.scale)
    }

    fn plain(
        &mut self,
        slots: &SlotVector,
        level: usize,
        scale: Scale,
    ) -> Result<PlainId, OpsError> {
        self.known_plain(slots, level, scale, false)
    }

    fn extended_plain(
        &mut self,
        slots: &SlotVector,
        level: usize,
        scale: Scale,
    ) -> Result<PlainId, OpsError> {
        self.known_plain(slots, level, scale, true)
    }

    fn add(&mut self, a: &ValueId, b: &ValueId) -> Result<ValueId, OpsError> {
        let (x, y) = self.alike("add", *a, *b)?;
        Ok(self.emit(Operation::Add(*a, *b), plus(x, y.bound, y.mean)))
    }

    fn sub(&mut self, a: &ValueId, b: &ValueId) -> Result<ValueId, OpsError> {
        let (x, y) = self.alike("sub", *a, *b)?;
        Ok(self.emit(Operation::Sub(*a, *b), plus(x, y.bound, y.mean)))
    }

    fn negate(&mut self, a: &ValueId) -> Result<ValueId, OpsError> {
        let x = self.info("negate", *a)?;
        Ok(self.emit(Operation::Negate(*a), x))
    }

    fn add_plain(&mut self, a: &ValueId, p: &PlainId) -> Result<ValueId, OpsError> {
        let x = self.info("add_plain", *a)?;
        let spec = self.plain_spec("add_plain", *p)?;
        OpsError::expect_plain_level("add_plain", spec.level, x.level)?;
        OpsError::expect_scale("add_plain", spec.scale, x.scale)?;
        let (max, mean) = self.norms(*p);
        let info = plus(x, max, mean);
        Ok(self.emit(Operation::AddPlain(*a, *p), info))
    }

    fn mul_plain(&mut self, a: &ValueId, p: &PlainId) -> Result<ValueId, OpsError> {
        let x = self.info("mul_plain", *a)?;
        let spec = self.plain_spec("mul_plain", *p)?;
        OpsError::expect_plain_level("mul_plain", spec.level, x.level)?;
        let scale = x.scale.product(spec.scale);
        let (max, mean) = self.norms(*p);
        let info = times(&x, max, mean);
        Ok(self.emit(Operation::MulPlain(*a, *p), ValueInfo { scale, ..info }))
    }

    fn rescale(&mut self, a: &ValueId) -> Result<ValueId, OpsError> {
        let x = self.info("rescale", *a)?;
        let (level, scale) = self.step("rescale", x.level, x.scale)?;
        Ok(self.emit(Operation::Rescale(*a), ValueInfo { level, scale, ..x }))
    }

    fn mul_sum(&mut self, pairs: &[(&ValueId, &ValueId)]) -> Result<ValueId, OpsError> {
        let op = "mul_sum";
        let mut sum: Option<ValueInfo> = None;
        for (a, b) in pairs {
            let (x, y) = (self.info(op, **a)?, self.info(op, **b)?);
            OpsError::expect_level(op, y.level, x.level)?;
            let scale = x.scale.product(y.scale);
            let product = ValueInfo {
                scale,
                ..times(&x, y.bound, y.mean)
            };
            sum = Some(match sum {
                None => product,
                Some(s) => {
                    OpsError::expect_level(op, product.level, s.level)?;
                    OpsError::expect_scale(op, scale, s.scale)?;
                    plus(s, product.bound, product.mean)
                }
            });
        }
        let Some(sum) = sum else {
            return Err(OpsError::Invalid {
                op,
                what: "an empty sum of products".into(),
            });
        };
        let (level, scale) = self.step(op, sum.level, sum.scale)?;
        let pairs = pairs.iter().map(|(a, b)| (**a, **b)).collect();
        Ok(self.emit(
            Operation::MulSum(pairs),
            ValueInfo {
                level,
                scale,
                ..sum
            },
        ))
    }

    fn rotate_many(&mut self, a: &ValueId, by: &[i64]) -> Result<Vec<ValueId>, OpsError> {
        let x = self.info("rotate", *a)?;
        let slots = self.params.slots() as i64;
        let steps: Vec<i64> = by.iter().map(|s| s.rem_euclid(slots)).collect();
        let turned: Vec<i64> = steps.iter().copied().filter(|s| *s != 0).collect();
        let infos = vec![x; turned.len()];
        let mut results = if turned.is_empty() {
            vec![]
        } else {
            self.emit_many(
                Operation::RotateMany {
                    source: *a,
                    steps: turned,
                },
                infos,
            )
        }
        .into_iter();
        Ok(steps
            .iter()
            .map(|s| {
                if *s == 0 {
                    *a
                } else {
                    results.next().unwrap_or(*a)
                }
            })
            .collect())
    }

    fn rotate_sum(&mut self, a: &ValueId, by: &[i64]) -> Result<ValueId, OpsError> {
        let x = self.info("rotate_sum", *a)?;
        let slots = self.params.slots() as i64;
        let steps: Vec<i64> = by.iter().map(|s| s.rem_euclid(slots)).collect();
        // What does not move has no key.
        let turned: Vec<i64> = steps.iter().copied().filter(|s| *s != 0).collect();
        let mut sum = *a;
        if !turned.is_empty() {
            let terms = (1 + turned.len()) as f64;
            let operation = Operation::RotateSum {
                source: *a,
                steps: turned.clone(),
            };
            let info = ValueInfo {
                bound: terms * x.bound,
                mean: terms * x.mean,
                ..x
            };
            sum = self.emit(operation, info);
        }
        for _ in turned.len()..steps.len() {
            sum = self.add(&sum, a)?;
        }
        Ok(sum)
    }

    fn conjugate(&mut self, a: &ValueId) -> Result<ValueId, OpsError> {
        let x = self.info("conjugate", *a)?;
        Ok(self.emit(Operation::Conjugate(*a), x))
    }

    fn drop_to(&mut self, a: &ValueId, level: usize) -> Result<ValueId, OpsError> {
        let x = self.info("drop_to", *a)?;
        if level > x.level {
            return Err(OpsError::OutOfLevels {
                op: "drop_to",
                level: x.level,
                needed: level,
            });
        }
        if level == x.level {
            return Ok(*a);
        }
        Ok(self.emit(
            Operation::DropTo { source: *a, level },
            ValueInfo { level, ..x },
        ))
    }

    fn adjust(&mut self, a: &ValueId, level: usize) -> Result<ValueId, OpsError> {
        let x = self.info("adjust", *a)?;
        let scale = self.params.scale_at(level);
        if level > x.level {
            return Err(OpsError::OutOfLevels {
                op: "adjust",
                level: x.level,
                needed: level,
            });
        }
        if level == x.level {
            OpsError::expect_scale("adjust", x.scale, scale)?;
            return Ok(*a);
        }
        // Where the evaluator would refuse, the recorder does.
        adjust_constant(&self.params, x.scale, level)?;
        let info = ValueInfo { level, scale, ..x };
        Ok(self.emit(Operation::Adjust { source: *a, level }, info))
    }

    fn linear_transforms(
        &mut self,
        inputs: &[&ValueId],
        transforms: &[&Transform<PlainId>],
    ) -> Result<Vec<ValueId>, OpsError> {
        let infos = self.all_transformed(inputs, transforms)?;
        let operation = Operation::LinearTransform {
            inputs: inputs.iter().map(|i| **i).collect(),
            transforms: transforms.iter().map(|t| (*t).clone()).collect(),
        };
        Ok(self.emit_many(operation, infos))
    }

    fn nested_transform(
        &mut self,
        inputs: &[&ValueId],
        transform: &Transform<PlainId>,
    ) -> Result<ValueId, OpsError> {
        let infos = self.all_transformed(inputs, &[transform])?;
        let operation = Operation::NestedTransform {
            inputs: inputs.iter().map(|i| **i).collect(),
            transform: transform.clone(),
        };
        let results = self.emit_many(operation, infos);
        results.first().copied().ok_or(OpsError::Invalid {
            op: "nested_transform",
            what: "nothing came out".to_owned(),
        })
    }

    /// Nothing is known of the result's slots: they hold multiples of q0, which the circuit around
    /// has a bound for ([`Recorder::tighten`]).
    fn mod_raise(&mut self, a: &ValueId) -> Result<ValueId, OpsError> {
        let x = self.info("mod_raise", *a)?;
        OpsError::expect_level("mod_raise", x.level, 0)?;
        let info = ValueInfo {
            level: self.params.max_level(),
            scale: x.scale,
            bound: f64::INFINITY,
            mean: f64::INFINITY,
        };
        Ok(self.emit(Operation::ModRaise(*a), info))
    }

    fn promise(&mut self, ct: &ValueId, bound: f64) {
        self.tighten(*ct, bound);
    }

    fn bootstraps(&mut self, inputs: &[&ValueId], which: usize) -> Result<Vec<ValueId>, OpsError> {
        self.bootstrapped(inputs, which)
    }
}

impl Recorder {
    /// What is known of the results of transforms of either kind.
    fn all_transformed(
        &self,
        inputs: &[&ValueId],
        transforms: &[&Transform<PlainId>],
    ) -> Result<Vec<ValueInfo>, OpsError> {
        let op = "linear_transform";
        let none = |what: &str| OpsError::Invalid {
            op,
            what: what.to_owned(),
        };
        let first = inputs.first().ok_or_else(|| none("no inputs"))?;
        let x = self.info(op, **first)?;
        for other in inputs {
            self.alike(op, **first, **other)?;
        }
        if transforms.is_empty() {
            return Err(none("no transform"));
        }
        let giants = transforms.iter().flat_map(|t| &t.giants);
        let term = giants.flat_map(|g| &g.terms).next();
        let term = term.ok_or_else(|| none("no term"))?;
        let scale = self.plain_spec(op, term.plain)?.scale;
        transforms
            .iter()
            .map(|transform| self.transformed(op, (&x, inputs), (transform, scale)))
            .collect()
    }

    /// What is known of the result of one transform of inputs that are like the first, `x`, by
    /// plaintexts of one scale.
    fn transformed(
        &self,
        op: &'static str,
        (x, inputs): (&ValueInfo, &[&ValueId]),
        (transform, plain_scale): (&Transform<PlainId>, Scale),
    ) -> Result<ValueInfo, OpsError> {
        let (mut bound, mut mean) = (0.0, 0.0);
        for term in transform.giants.iter().flat_map(|g| &g.terms) {
            let Some(input) = inputs.get(term.input) else {
                let what = format!("a term reads input {} of {}", term.input, inputs.len());
                return Err(OpsError::Invalid { op, what });
            };
            let spec = self.plain_spec(op, term.plain)?;
            OpsError::expect_plain_level(op, spec.level, x.level)?;
            OpsError::expect_scale(op, spec.scale, plain_scale)?;
            let extended = self.extended.get(term.plain.0 as usize);
            let step = (term.baby, self.params.slots());
            OpsError::expect_extended(op, extended == Some(&true), step)?;
            let (max, mean_abs) = self.norms(term.plain);
            let product = times(&self.info(op, **input)?, max, mean_abs);
            bound += product.bound;
            mean += product.mean;
        }
        if transform.giants.iter().all(|g| g.terms.is_empty()) {
            let what = "a transform without a term".into();
            return Err(OpsError::Invalid { op, what });
        }
        let (level, scale) = self.step(op, x.level, x.scale.product(plain_scale))?;
        Ok(ValueInfo {
            level,
            scale,
            bound,
            mean,
        })
    }
}
