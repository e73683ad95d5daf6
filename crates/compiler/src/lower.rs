//! Pass 5: layouts, levels, and the ciphertext program itself, recorded from the circuits.

use std::collections::BTreeMap;

use crate::CompileError;
use crate::calibrate::Bounds;
use crate::length::{LengthFree, LevelForm, Node, Power, Source};
use veilformer_circuits::attention::{
    AttentionShape, POWER_ATTENTION_FACTOR, POWER_ATTENTION_LEVELS, power_attention,
};
use veilformer_circuits::recurrence::recurrence;
use veilformer_circuits::reduce::weighted_slot_sum;
use veilformer_circuits::transform::{Chunk, Layout, LayoutMap, Weight};
use veilformer_ckks::{Complex, Ops, Params, SlotVector, Transform};
use veilformer_ir::ciphertext::{CiphertextProgram, PlainId, Recorder, ValueId};
use veilformer_ir::{InputKind, InputSpec, Signature};

/// Levels that the program needs: the longest chain of products.
pub fn levels(program: &LengthFree) -> usize {
    let mut depth: Vec<usize> = Vec::with_capacity(program.nodes.len());
    for node in &program.nodes {
        let read = |f: &LevelForm| {
            let sources = f.terms.iter().map(|(s, _)| source_depth(*s, &depth));
            sources.max().unwrap_or(0)
        };
        let operands = 1 + node.forms().into_iter().map(read).max().unwrap_or(0);
        depth.push(match node {
            Node::Attention { .. } => operands + POWER_ATTENTION_LEVELS,
            Node::Square { .. } | Node::Product { .. } | Node::Lift { .. } => operands + 1,
            // What only scales one value is part of the map over tokens.
            Node::Recurrence { form, .. } if form.diagonal().is_some() => operands,
            Node::Recurrence { .. } => operands + 1,
        });
    }
    let answer = program.answer.iter();
    1 + answer
        .map(|t| source_depth(t.source, &depth))
        .max()
        .unwrap_or(0)
}

fn source_depth(source: Source, depth: &[usize]) -> usize {
    match source {
        Source::Tokens | Source::Mask => 0,
        Source::Node(n) => depth.get(n).copied().unwrap_or(0),
    }
}

/// Tokens of a chunk: padded to a power of two, at least two.
pub fn run_length(max_tokens: usize) -> usize {
    max_tokens.next_power_of_two().max(2)
}

/// Least number of chunks that the program can be laid out in: one head in doubled rows.
pub fn least_chunks(program: &LengthFree) -> usize {
    let head = program.nodes.iter().map(|n| match n {
        Node::Attention { query, heads, .. } => {
            2 * (query.bias.len() / (*heads).max(1)).next_power_of_two()
        }
        _ => 1,
    });
    head.max().unwrap_or(1)
}

/// A lowered program with the names of its inputs.
pub struct Lowered {
    /// The program.
    pub program: CiphertextProgram,
    /// Its inputs and outputs.
    pub signature: Signature,
}

/// Records the program for `params`, to answer `batch` sentences (a power of two) at once.
///
/// # Errors
/// A program that does not fit the slots or levels; what a circuit refuses.
pub fn lower(
    program: &LengthFree,
    labels: &[String],
    bounds: &Bounds,
    (params, batch): (&Params, usize),
) -> Result<Lowered, CompileError> {
    let tokens = run_length(program.max_tokens);
    let run = tokens * batch;
    let chunks = params.slots() / run;
    if chunks < least_chunks(program) {
        return Err(CompileError::DoesNotFit {
            slots: params.slots(),
            needed: run * least_chunks(program),
        });
    }
    let mut pass = Lower {
        program,
        recorder: Recorder::new(params),
        run,
        batch,
        chunks,
        inputs: vec![],
        values: vec![],
        adjusted: BTreeMap::new(),
    };
    for (index, node) in program.nodes.iter().enumerate() {
        let at = |b: &[f64]| b.get(index).copied().unwrap_or(f64::INFINITY);
        let values = pass.node(node, [at(&bounds.nodes), at(&bounds.forms)])?;
        pass.values.push(values);
    }
    let outputs = pass.answer(bounds)?;
    // A complex answer of twice the bound is what `answer` reserves at the bottom level.
    let room = (params.log_q(0) - 2.0).exp2() / params.scale_at(0).value();
    let signature = Signature {
        max_tokens: program.max_tokens,
        answer_bound: bounds.answer.min(room),
        run: tokens,
        batch,
        features: program.token_features,
        inputs: pass.inputs.iter().map(|i| i.spec.clone()).collect(),
        labels: labels.to_vec(),
        encoder: None,
    };
    let mut program = pass.recorder.finish(outputs);
    program.batch = batch;
    program.verify(params)?;
    Ok(Lowered { program, signature })
}

/// A ciphertext and what lies where in it.
type Placed = (ValueId, Layout);

/// A ciphertext that a form reads, and which of its terms; the mask has none.
type Operand = (ValueId, Layout, Option<usize>);

/// Most layouts into which forms are evaluated by one operation: so often is what they read used
/// while it is in the cache. More would be fewer operations that can run at once.
const TOGETHER: usize = 8;

struct InputValue {
    spec: InputSpec,
    value: ValueId,
}

struct Lower<'a> {
    program: &'a LengthFree,
    recorder: Recorder,
    /// Slots per chunk.
    run: usize,
    /// Sentences side by side in a chunk.
    batch: usize,
    chunks: usize,
    inputs: Vec<InputValue>,
    values: Vec<Vec<Placed>>,
    /// What was brought to a lower level, by value and level: once is enough.
    adjusted: BTreeMap<(ValueId, usize), ValueId>,
}

impl Lower<'_> {
    /// A value at the canonical scale of `level`.
    fn adjust(&mut self, value: ValueId, level: usize) -> Result<ValueId, CompileError> {
        if let Some(known) = self.adjusted.get(&(value, level)) {
            return Ok(*known);
        }
        let lowered = self.recorder.adjust(&value, level)?;
        self.adjusted.insert((value, level), lowered);
        Ok(lowered)
    }

    fn node(&mut self, node: &Node, [bound, read]: [f64; 2]) -> Result<Vec<Placed>, CompileError> {
        match node {
            Node::Attention {
                query,
                key,
                value,
                heads,
                layer,
            } => self.attention([query, key, value], *heads, *layer, [bound, read]),
            Node::Square { form, layer } => {
                let mut out = Vec::new();
                for layouts in self.plain_layouts(form.bias.len()).chunks(TOGETHER) {
                    self.recorder
                        .section(format!("layer {layer}, feed-forward"));
                    let made = self.forms(&[(form, 1.0)], layouts)?;
                    for (read_values, layout) in made.iter().zip(layouts) {
                        let [x] = read_values.as_slice() else {
                            return Err(CompileError::Empty);
                        };
                        self.recorder.tighten(*x, read);
                        let y = self.recorder.square(x)?;
                        self.recorder.tighten(y, bound);
                        out.push((y, layout.clone()));
                    }
                }
                Ok(out)
            }
            Node::Product { factors, layer } => {
                let mut out = Vec::new();
                for layouts in self.plain_layouts(node.features()).chunks(TOGETHER) {
                    self.recorder.section(format!("layer {layer}, projections"));
                    let made = self.forms(&[(&factors[0], 1.0), (&factors[1], 1.0)], layouts)?;
                    self.recorder.section(format!("layer {layer}, product"));
                    for (read_values, layout) in made.iter().zip(layouts) {
                        let [x, y] = read_values.as_slice() else {
                            return Err(CompileError::Empty);
                        };
                        for v in [x, y] {
                            self.recorder.tighten(*v, read);
                        }
                        let product = self.recorder.mul(x, y)?;
                        self.recorder.tighten(product, bound);
                        out.push((product, layout.clone()));
                    }
                }
                Ok(out)
            }
            Node::Recurrence { form, decay, layer } => {
                let written = self.written(form, *layer, read)?;
                self.recorder.section(format!("layer {layer}, state"));
                let mut out = Vec::new();
                for (value, layout, scale) in written {
                    let level = self.recorder.level(&value);
                    let maps = [decay.as_slice(), scale.as_slice()];
                    let map = recurrence(&mut self.recorder, &layout, self.batch, maps, level)?;
                    let state = self.recorder.linear_transform(&[&value], &map)?;
                    self.recorder.tighten(state, bound);
                    out.push((state, layout));
                }
                Ok(out)
            }
            Node::Lift { form, by } => {
                let mut out = Vec::new();
                for layout in self.plain_layouts(form.bias.len()) {
                    self.recorder.section("length");
                    let x = self.form(form, &layout, 1.0)?;
                    self.recorder.tighten(x, read);
                    let level = self.recorder.level(&x);
                    let mask = self.mask(*by, level)?;
                    let y = self.recorder.mul(&x, &mask)?;
                    out.push((y, layout));
                }
                Ok(out)
            }
        }
    }

    /// What a recurrence reads, with the factor per feature that is still due: where the form does
    /// no more than scale one value, the scaling is left to the recurrence's own map, and the value
    /// keeps the bound that it has: of a feature scaled by zero, what is written says nothing.
    fn written(
        &mut self,
        form: &LevelForm,
        layer: usize,
        read: f64,
    ) -> Result<Vec<(ValueId, Layout, Vec<f64>)>, CompileError> {
        if let Some((source, scale)) = form.diagonal() {
            let top = self.recorder.params().max_level();
            let level = self.level_of(form).unwrap_or(top);
            let plain = Layout::plain(&[], self.run, self.chunks);
            let placed = self.source(source, form.power, level, &plain)?;
            let mut out = Vec::with_capacity(placed.len());
            for (value, layout) in placed {
                let value = self.adjust(value, level)?;
                out.push((value, layout, scale.clone()));
            }
            return Ok(out);
        }
        self.recorder.section(format!("layer {layer}, projections"));
        let one = vec![1.0; form.bias.len()];
        let layouts = self.plain_layouts(form.bias.len());
        let one = |layout: Layout| {
            let value = self.form(form, &layout, 1.0)?;
            self.recorder.tighten(value, read);
            Ok((value, layout, one.clone()))
        };
        layouts.into_iter().map(one).collect()
    }

    fn attention(
        &mut self,
        [query, key, value]: [&LevelForm; 3],
        heads: usize,
        layer: usize,
        [bound, read]: [f64; 2],
    ) -> Result<Vec<Placed>, CompileError> {
        let head_dim = query.bias.len() / heads.max(1);
        let dim = head_dim.next_power_of_two();
        let fit = (self.chunks / (2 * dim)).max(1);
        let group = (if fit.is_power_of_two() {
            fit
        } else {
            fit.next_power_of_two() / 2
        })
        .min(heads.next_power_of_two());
        let shape = AttentionShape {
            batch: self.batch,
            tokens: self.run / self.batch,
            heads: group,
            dim,
        };
        let mut out = Vec::new();
        for first in (0..heads).step_by(group) {
            let row = |r: usize| {
                let (i, h) = (r / group, first + r % group);
                (i < head_dim && h < heads).then_some(h * head_dim + i)
            };
            let rows: Vec<Option<usize>> = (0..dim * group).map(row).collect();
            let layout = Layout::doubled(&rows, self.run, self.chunks);
            self.recorder
                .section(format!("layer {layer}, query, key, value"));
            let factor = 1.0 / POWER_ATTENTION_FACTOR;
            let forms = [(query, 1.0), (key, 1.0), (value, factor)];
            let made = self.forms(&forms, std::slice::from_ref(&layout))?.concat();
            made.iter().for_each(|x| self.recorder.tighten(*x, read));
            let [q, k, v] = made.as_slice() else {
                return Err(CompileError::Empty);
            };
            self.recorder.section(format!("layer {layer}, attention"));
            let o = power_attention(&mut self.recorder, q, k, v, shape)?;
            self.recorder.tighten(o, bound);
            out.push((o, layout.first_halves()));
        }
        Ok(out)
    }

    /// `features` in one or more ciphertexts, one chunk each.
    fn plain_layouts(&self, features: usize) -> Vec<Layout> {
        let all: Vec<usize> = (0..features).collect();
        all.chunks(self.chunks)
            .map(|block| Layout::plain(block, self.run, self.chunks))
            .collect()
    }

    /// Evaluates `factor * form` into `target`, one level below its sources.
    fn form(
        &mut self,
        form: &LevelForm,
        target: &Layout,
        factor: f64,
    ) -> Result<ValueId, CompileError> {
        let made = self.forms(&[(form, factor)], std::slice::from_ref(target))?;
        made.concat().pop().ok_or(CompileError::Empty)
    }

    /// Evaluates each `factor * form` into each of the targets, all one level below the lowest of
    /// their sources: per target one value per form. What they read in common is rotated, and
    /// brought into the cache, once for all. The targets are alike in whether rows are doubled.
    fn forms(
        &mut self,
        forms: &[(&LevelForm, f64)],
        targets: &[Layout],
    ) -> Result<Vec<Vec<ValueId>>, CompileError> {
        let top = self.recorder.params().max_level();
        let levels = forms.iter().filter_map(|(form, _)| self.level_of(form));
        let level = levels.min().unwrap_or(top);
        let mut inputs: Vec<ValueId> = Vec::new();
        let mut transforms = Vec::with_capacity(forms.len() * targets.len());
        for target in targets {
            for (form, factor) in forms {
                let operands = self.operands(form, level, target)?;
                let mut transform = self.map((form, *factor), &operands, target, level)?;
                let places: Vec<usize> = operands
                    .iter()
                    .map(|(value, ..)| {
                        inputs.iter().position(|i| i == value).unwrap_or_else(|| {
                            inputs.push(*value);
                            inputs.len() - 1
                        })
                    })
                    .collect();
                for term in transform.giants.iter_mut().flat_map(|g| &mut g.terms) {
                    term.input = places.get(term.input).copied().unwrap_or(usize::MAX);
                }
                transforms.push(transform);
            }
        }
        let inputs: Vec<&ValueId> = inputs.iter().collect();
        let transforms: Vec<_> = transforms.iter().collect();
        let made = self.recorder.linear_transforms(&inputs, &transforms)?;
        Ok(made.chunks(forms.len().max(1)).map(<[_]>::to_vec).collect())
    }

    /// The transform of `factor * form` from its operands to a layout.
    fn map(
        &mut self,
        (form, factor): (&LevelForm, f64),
        operands: &[Operand],
        target: &Layout,
        level: usize,
    ) -> Result<Transform<PlainId>, CompileError> {
        let weights: Vec<Box<dyn Fn(usize, usize) -> f64>> = operands
            .iter()
            .map(|(_, _, term)| -> Box<dyn Fn(usize, usize) -> f64> {
                match term.and_then(|t| form.terms.get(t)) {
                    Some((_, matrix)) => Box::new(move |j, i| factor * matrix.get(j, i)),
                    None => Box::new(move |j, _| factor * form.bias.get(j).copied().unwrap_or(0.0)),
                }
            })
            .collect();
        let sources = operands.iter().zip(&weights);
        let map = LayoutMap {
            sources: sources.map(|(o, w)| (&o.1, &**w as Weight<'_>)).collect(),
            target,
        };
        Ok(map.transform(&mut self.recorder, level)?)
    }

    /// What a form reads at `level`: values with their layouts and the form's terms; the mask has
    /// none.
    fn operands(
        &mut self,
        form: &LevelForm,
        level: usize,
        target: &Layout,
    ) -> Result<Vec<Operand>, CompileError> {
        let mut operands = Vec::new();
        for (index, (source, _)) in form.terms.iter().enumerate() {
            for (value, layout) in self.source(*source, form.power, level, target)? {
                operands.push((self.adjust(value, level)?, layout, Some(index)));
            }
        }
        if form.has_bias() {
            let mask = self.mask(form.power, level)?;
            operands.push((mask, self.everywhere(), None));
        }
        Ok(operands)
    }

    /// One feature in every chunk: the mask's layout.
    fn everywhere(&self) -> Layout {
        Layout {
            run: self.run,
            chunks: vec![Chunk::Feature(0); self.chunks],
        }
    }

    /// Lowest level of the nodes that a form reads.
    fn level_of(&self, form: &LevelForm) -> Option<usize> {
        let nodes = form.terms.iter().filter_map(|(s, _)| match s {
            Source::Node(n) => self.values.get(*n),
            Source::Tokens | Source::Mask => None,
        });
        nodes.flatten().map(|(v, _)| self.recorder.level(v)).min()
    }

    fn source(
        &mut self,
        source: Source,
        power: Power,
        level: usize,
        target: &Layout,
    ) -> Result<Vec<Placed>, CompileError> {
        match source {
            Source::Node(n) => Ok(self.values.get(n).cloned().unwrap_or_default()),
            Source::Mask => Ok(vec![(self.mask(power, level)?, self.everywhere())]),
            Source::Tokens => {
                let features: Vec<usize> = (0..self.program.token_features).collect();
                let doubled = is_doubled(target);
                let block = if doubled {
                    (self.chunks / 2).max(1)
                } else {
                    self.chunks
                };
                let mut out = Vec::new();
                for part in features.chunks(block) {
                    let layout = if doubled {
                        let rows: Vec<Option<usize>> = part.iter().map(|f| Some(*f)).collect();
                        Layout::doubled(&rows, self.run, self.chunks)
                    } else {
                        Layout::plain(part, self.run, self.chunks)
                    };
                    let value = self.token_input(&layout, power, level)?;
                    out.push((value, layout));
                }
                Ok(out)
            }
        }
    }

    fn token_input(
        &mut self,
        layout: &Layout,
        power: Power,
        level: usize,
    ) -> Result<ValueId, CompileError> {
        let chunk = |c: &Chunk| match c {
            Chunk::Feature(f) => Some(*f as u32),
            Chunk::Junk => None,
        };
        let kind = InputKind::Tokens {
            chunks: layout.chunks.iter().map(chunk).collect(),
        };
        // n >= 1 and the power is not negative: the factor n^-power is at most one.
        let bound = self
            .program
            .token_bound
            .iter()
            .fold(0.0f64, |m, b| m.max(*b));
        self.input(
            InputSpec {
                kind,
                power: power.0,
                level,
            },
            bound,
        )
    }

    fn mask(&mut self, power: Power, level: usize) -> Result<ValueId, CompileError> {
        self.input(
            InputSpec {
                kind: InputKind::Mask,
                power: power.0,
                level,
            },
            1.0,
        )
    }

    /// An input of this kind at `level`: one that is there already, adjusted, or a new one.
    fn input(&mut self, spec: InputSpec, bound: f64) -> Result<ValueId, CompileError> {
        let same = |i: &&InputValue| {
            i.spec.kind == spec.kind
                && Power(i.spec.power).same(Power(spec.power))
                && i.spec.level >= spec.level
        };
        if let Some(known) = self.inputs.iter().find(same) {
            let value = known.value;
            return self.adjust(value, spec.level);
        }
        let value = self.recorder.input(spec.level, bound)?;
        self.inputs.push(InputValue { spec, value });
        Ok(value)
    }

    fn answer(&mut self, bounds: &Bounds) -> Result<Vec<ValueId>, CompileError> {
        self.recorder.section("answer");
        let program = self.program;
        let top = self.recorder.params().max_level();
        let sources = program.answer.iter().filter_map(|t| match t.source {
            Source::Node(n) => self.values.get(n),
            Source::Tokens | Source::Mask => None,
        });
        let levels = sources.flatten().map(|(v, _)| self.recorder.level(v));
        let level = levels.min().unwrap_or(top);
        let plain = Layout::plain(&[], self.run, self.chunks);
        let mut operands: Vec<(ValueId, Layout, usize)> = Vec::new();
        for (index, term) in program.answer.iter().enumerate() {
            for (value, layout) in self.source(term.source, term.power, level, &plain)? {
                operands.push((self.adjust(value, level)?, layout, index));
            }
        }
        let mut outputs = Vec::new();
        for first in (0..program.constant.len()).step_by(2) {
            let weighted: Vec<(&ValueId, SlotVector)> = operands
                .iter()
                .map(|(value, layout, index)| {
                    let kernel = &program.answer[*index].kernel;
                    let weight = |f, k| {
                        kernel.at(k).map_or(Complex::new(0.0, 0.0), |m| {
                            Complex::new(m.get(first, f), m.get(first + 1, f))
                        })
                    };
                    let slots = once_each(layout, self.batch, weight);
                    (value, SlotVector::Dense(slots))
                })
                .collect();
            if weighted.is_empty() {
                return Err(CompileError::Empty);
            }
            // A logit pair is one complex value: both parts bound it.
            let slots = (self.recorder.params().slots() / self.batch) as f64;
            let terms = 2.0 * bounds.answer_terms / slots;
            let note = |recorder: &mut Recorder, product: &ValueId| {
                recorder.tighten_mean(*product, terms);
            };
            let sum = weighted_slot_sum(&mut self.recorder, &weighted, self.batch, note)?;
            let bound = 2.0 * bounds.answer;
            let at = |i: usize| program.constant.get(i).copied().unwrap_or(0.0);
            let constant = SlotVector::Constant(Complex::new(at(first), at(first + 1)));
            let (level, scale) = (self.recorder.level(&sum), self.recorder.scale(&sum));
            let constant = self.recorder.plain(&constant, level, scale)?;
            self.recorder.tighten(sum, bound);
            let answer = self.recorder.add_plain(&sum, &constant)?;
            self.recorder.tighten(answer, bound);
            outputs.push(answer);
        }
        Ok(outputs)
    }
}

/// The weights on the first chunk of every feature, at each token `k` before the last: a repeated
/// feature counts once.
fn once_each(
    layout: &Layout,
    batch: usize,
    weight: impl Fn(usize, usize) -> Complex,
) -> Vec<Complex> {
    let tokens = layout.run / batch.max(1);
    let none = Complex::new(0.0, 0.0);
    let mut seen = std::collections::BTreeSet::new();
    let mut out = Vec::with_capacity(layout.slots());
    for chunk in &layout.chunks {
        let feature = match chunk {
            Chunk::Feature(f) if seen.insert(*f) => Some(*f),
            _ => None,
        };
        for k in (0..tokens).rev() {
            let value = feature.map_or(none, |f| weight(f, k));
            out.extend(std::iter::repeat_n(value, batch));
        }
    }
    out
}

/// True where both chunks of every row hold the same.
fn is_doubled(layout: &Layout) -> bool {
    layout.chunks.len() >= 2 && layout.chunks.chunks(2).all(|row| row.first() == row.last())
}
