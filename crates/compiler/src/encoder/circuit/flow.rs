//! An encoder's stages as a flow, for bootstraps to be placed in.

use std::collections::BTreeMap;

use veilformer_circuits::CircuitError;
use veilformer_circuits::matrix::{Counts, UnitCosts};
use veilformer_circuits::testing::{AtLevel, Counting, LevelOps};
use veilformer_ckks::Params;
use veilformer_ir::ciphertext::BootstrapInfo;

use super::{Bootstraps, EncoderCircuit, Event, Inputs, Plains};
use crate::placement::{Block, Flow, Machine, Node, Packing, Value};

/// Seconds of an NTT of one limb at N = 2^16 among other operations, on one thread of a Zen 5 with AVX-512
/// IFMA. What is decided depends on ratios alone, so that every machine compiles the same program.
const NTT: f64 = 5.9e-5;

/// What operations take at each level, for placement to weigh them: see [`UnitCosts::estimated`].
#[derive(Clone, Debug, PartialEq)]
pub struct Times {
    /// By level from the lowest.
    levels: Vec<UnitCosts>,
}

impl Times {
    /// Those of a chain.
    #[must_use]
    pub fn estimated(params: &Params) -> Self {
        let levels = (0..=params.max_level()).map(|level| UnitCosts::estimated(params, level));
        Self {
            levels: levels.collect(),
        }
    }

    /// Seconds of operations that are counted by level.
    #[must_use]
    pub fn seconds(&self, counts: &BTreeMap<usize, Counts>) -> f64 {
        self.lowered(counts, 0)
    }

    /// The same if everything happens so many levels lower.
    fn lowered(&self, counts: &BTreeMap<usize, Counts>, lower: usize) -> f64 {
        let of = |(level, counts): (&usize, &Counts)| {
            let units = self.levels.get(level.saturating_sub(lower));
            units.map_or(0.0, |units| units.of(counts))
        };
        NTT * counts.iter().map(of).sum::<f64>()
    }

    /// Bootstraps as placement wants them: of complex values and of real ones.
    #[must_use]
    pub fn machine(&self, complex: &BootstrapInfo, real: &BootstrapInfo) -> Machine {
        let real_seconds = self.seconds(&real.counts);
        Machine {
            levels: complex.output_level - complex.input_level.min(complex.output_level),
            complex: self.seconds(&complex.counts),
            real: real_seconds,
            sparse: real_seconds,
        }
    }
}

impl EncoderCircuit {
    /// The stages with what they read, what they take at each level, and what comes of them: a
    /// block for each layer, and one for the answer. Nothing is computed for it.
    ///
    /// # Errors
    /// As [`EncoderCircuit::run`].
    pub fn flow(
        &self,
        params: &Params,
        bootstraps: &Bootstraps,
        times: &Times,
    ) -> Result<Flow, CircuitError> {
        let (low, high) = (bootstraps.input_level, bootstraps.output_level);
        let entries = 1 + bootstraps.complex.max(bootstraps.real);
        let levels = LevelOps::new(params, &vec![(low, high); entries]);
        let value = levels.value(high)?;
        let blocks = self.layout.blocks(self.layout.hidden);
        let neighbours = if self.reads_neighbours() {
            2 * blocks
        } else {
            0
        };
        let inputs = Inputs {
            features: vec![value; blocks],
            neighbours: vec![value; neighbours],
            keys: vec![value; self.layout.heads.rows()],
            mean: self.answer.is_mean().then_some(value),
        };
        let mut ops = Counting::new(levels);
        let mut counts: Vec<BTreeMap<usize, Counts>> = Vec::new();
        let watch: &mut dyn FnMut(&mut Counting<LevelOps>, Event<'_, AtLevel>) =
            &mut |ops, event| {
                if matches!(event, Event::End(_)) {
                    counts.push(ops.take());
                }
            };
        let mut plains = Plains::default();
        let machine = super::Machine::new(&mut ops, (bootstraps, None), &mut plains, watch);
        let (_, stages) = self.stages(machine, bootstraps, &inputs)?;
        let mut flow = Flow {
            entry: vec![high - low],
            blocks: Vec::new(),
        };
        let mut width = blocks;
        for (stage, counts) in stages.iter().zip(&counts) {
            if flow.blocks.len() == stage.block {
                flow.blocks.push(Block {
                    inputs: vec![Value {
                        ciphertexts: width,
                        packing: Packing::Real,
                    }],
                    times: 1,
                    ..Block::default()
                });
            }
            let Some(block) = flow.blocks.last_mut() else {
                continue;
            };
            width = stage.ciphertexts.1;
            // It ran from the highest level.
            let seconds = (0..=high - low)
                .rev()
                .map(|lower| times.lowered(counts, lower));
            block.nodes.push(Node {
                name: stage.name.clone(),
                reads: stage.reads.clone(),
                depth: stage.depth,
                seconds: seconds.collect(),
                value: Value {
                    ciphertexts: width,
                    packing: stage.packing,
                },
            });
            block.outputs = vec![block.nodes.len()];
        }
        Ok(flow)
    }
}
