//! Linear maps of a program, measured whole: in a map of its shape products wait for one another and for
//! memory as no piece of it alone does.

use std::collections::HashMap;

use veilformer_ckks::{Evaluator, KeyList, OpsError, SharedCiphertext, SharedPlain, SlotVector};
use veilformer_ir::ciphertext::{PlainId, ValueId, replay};
use veilformer_ring::Backend;

use super::clock::once;
use super::{Bench, prepared_keys};
use crate::RuntimeError;
use crate::shape::{Shaped, level};
use crate::stats::plain_values;

/// The most that plaintexts of one length take, in words: more than what a core gets of its last level of
/// cache. Maps that have more of them use the same ones again.
const PLAINS: usize = 1 << 25;

/// Seconds from which on a map is run once more and not several times: what comes and goes on the machine is
/// within it.
const LONG: f64 = 1.0;

impl<B: Backend> Bench<'_, B> {
    /// Seconds of a map of this shape, with keys and plaintexts of its own.
    pub(super) fn whole(&self, map: &Shaped<'_>) -> Result<f64, RuntimeError> {
        let (program, params) = (map.program, self.params);
        let level = level(program, map.operation);
        let mut list = KeyList::default();
        for purpose in program.key_uses(map.operation) {
            list.need(purpose, level, params);
        }
        let keys = prepared_keys(params, self.backend, &list)?;
        let mut evaluator = Evaluator::new(params, self.backend, &keys)?;
        let operands = map.operation.operands();
        let inputs = (0..operands.len()).map(|number| self.ciphertext(level, number));
        let inputs: Vec<SharedCiphertext<B>> = inputs.collect::<Result<_, _>>()?;
        let inputs: HashMap<ValueId, _> = operands.into_iter().zip(inputs).collect();
        let mut plains = Plains {
            bench: self,
            map,
            level,
            extended: program.extended_plains(),
            known: HashMap::new(),
            by_length: HashMap::new(),
        };
        for id in map.operation.plains() {
            plains.encode(id)?;
        }
        let value = |id: ValueId| inputs.get(&id).cloned();
        let plain = |id: PlainId| plains.known.get(&id).cloned();
        let mut run = || replay(&mut evaluator, map.operation, &value, &plain, &|_| None);
        Ok(self.clock.long(LONG, || once(&mut run))?)
    }
}

/// Plaintexts of a map, each encoded once.
struct Plains<'a, B: Backend> {
    bench: &'a Bench<'a, B>,
    map: &'a Shaped<'a>,
    level: usize,
    /// Per plaintext of the program whether it has the special primes.
    extended: Vec<bool>,
    known: HashMap<PlainId, SharedPlain<B>>,
    /// By length and special primes.
    by_length: HashMap<(usize, bool), Alike<B>>,
}

/// Plaintexts of one length.
struct Alike<B: Backend> {
    encoded: Vec<SharedPlain<B>>,
    /// How many of the map have one of these.
    uses: usize,
}

impl<B: Backend> Plains<'_, B> {
    fn encode(&mut self, id: PlainId) -> Result<(), OpsError> {
        if self.known.contains_key(&id) {
            return Ok(());
        }
        let (program, bench) = (self.map.program, self.bench);
        let plain = program.plains.get(id.0 as usize);
        let words = plain.map_or(1, |plain| plain_values(&plain.pattern, program.slots));
        let extended = self.extended.get(id.0 as usize) == Some(&true);
        let alike = self.by_length.entry((words, extended));
        let Alike { encoded, uses } = alike.or_insert_with(|| Alike {
            encoded: Vec::new(),
            uses: 0,
        });
        let most = PLAINS / (words * bench.params.rotation_basis(self.level).len());
        let number = *uses % most.max(1);
        *uses += 1;
        if encoded.len() <= number {
            let slots = match words {
                1 => SlotVector::real_constant(0.5),
                words if words < 2 * program.slots => bench.periodic(number, words / 2),
                _ => bench.slots(number),
            };
            let (e, scale) = (&bench.evaluator, bench.params.scale_at(self.level));
            encoded.push(match extended {
                true => e.encode_extended(&slots, self.level, scale)?,
                false => e.encode(&slots, self.level, scale)?,
            });
        }
        self.known.insert(id, encoded[number].clone());
        Ok(())
    }
}
