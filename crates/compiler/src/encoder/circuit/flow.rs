//! An encoder's stages as a flow, for bootstraps to be placed in.

use veilformer_circuits::CircuitError;
use veilformer_circuits::matrix::{Counts, ProductCosts, UnitCosts};
use veilformer_circuits::testing::{AtLevel, Counting, LevelOps};
use veilformer_ckks::Params;

use super::{Bootstraps, EncoderCircuit, Event, Inputs, Plains};
use crate::placement::{Block, Flow, Machine, Node, Packing, Value};

/// What operations take, for placement to weigh them. What is decided depends on ratios alone, so
/// that those of one machine serve others, and every machine compiles the same program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    /// Milliseconds at so many limbs; at others in proportion.
    pub units: UnitCosts,
    /// Limbs at which they were measured.
    pub limbs: usize,
    /// Seconds of a bootstrap of a complex ciphertext or of two real ones.
    pub complex: f64,
    /// Seconds of one real ciphertext.
    pub real: f64,
}

impl Times {
    /// About what one thread of a Zen 5 with AVX-512 IFMA takes at N = 2^16 with nine special primes:
    /// rounded from several measurements of the preset 10-levels, and used for the others too.
    pub const REFERENCE: Self = Self {
        units: UnitCosts {
            decomposition: 4.4,
            hoisted: 9.0,
            baby: 3.0,
            giant: 9.5,
            plain_giant: 8.0,
            rotation: 11.0,
            relinearization: 12.0,
            product: 0.8,
            plain: ProductCosts {
                dense: 0.9,
                periodic: 0.3,
                scalar: 0.4,
            },
            extended: ProductCosts {
                dense: 1.6,
                periodic: 0.7,
                scalar: 0.7,
            },
            addition: 0.5,
            rescale: 2.2,
            division: 5.0,
        },
        limbs: 12,
        complex: 1.70,
        real: 1.25,
    };

    /// Seconds of some operations that begin at so many limbs.
    fn seconds(&self, counts: &Counts, limbs: usize) -> f64 {
        self.units.of(counts) / 1e3 * limbs as f64 / self.limbs.max(1) as f64
    }

    /// Bootstraps as placement wants them.
    #[must_use]
    pub fn machine(&self, bootstraps: &Bootstraps) -> Machine {
        Machine {
            levels: bootstraps.output_level - bootstraps.input_level.min(bootstraps.output_level),
            // One of both kinds puts all coefficients through EvalMod at once.
            complex: match bootstraps.complex == bootstraps.real {
                true => self.real,
                false => self.complex,
            },
            real: self.real,
            sparse: self.real,
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
        let mut counts: Vec<Counts> = Vec::new();
        let watch: &mut dyn FnMut(&mut Counting<LevelOps>, Event<'_, AtLevel>) =
            &mut |ops, event| {
                if matches!(event, Event::End(_)) {
                    counts.push(ops.take());
                }
            };
        let mut plains = Plains::default();
        let machine = super::Machine::new(&mut ops, (bootstraps, None), &mut plains, watch);
        let (_, stages) = self.stages(machine, bootstraps, &inputs)?;
        let limbs = |level: usize| params.basis_at(low + level).len();
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
            let seconds = (0..=high - low).map(|level| times.seconds(counts, limbs(level)));
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
