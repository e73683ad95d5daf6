//! Keys, inputs, and products that are ready to run.

use std::collections::BTreeMap;
use std::hint::black_box;

use veilformer_circuits::CircuitError;
use veilformer_circuits::matrix::{Diagonal, MatrixProduct, Packing, Role, TileProduct, TileShape};
use veilformer_ckks::{
    EvaluationKeys, Evaluator, KeyList, Ops, Params, Scale, SharedCiphertext, SharedPlain,
    SlotVector,
};
use veilformer_ring::{Cpu, CpuConfig, Isa};
use veilformer_secret::{Encryptor, KeyGenerator, SecretKey, SecureRng};

use super::{Kind, Product, Spec, TOKENS, Way};
use crate::error::Result;
use crate::interleave::Case;

pub(super) type Plain = SharedPlain<Cpu>;
pub(super) type Ct = SharedCiphertext<Cpu>;

/// Different full plaintexts of a product: more than the caches hold, and less than the memory. They
/// stand for the product's own in turns.
const POOL: usize = 64;

/// Different inputs where each feature has a ciphertext, for the same reason.
const COLUMNS: usize = 64;

/// A number between -1 and 1 for two indices.
pub(super) fn value(a: usize, b: usize) -> f64 {
    let mut random = crate::interleave::Shuffler::new((a as u64) << 32 | b as u64);
    random.below(1 << 24) as f64 / f64::from(1 << 23) - 1.0
}

/// A table of so many features.
fn table(features: usize) -> Vec<Vec<f64>> {
    let feature = |f| (0..TOKENS).map(|t| value(f, 1000 + t)).collect();
    (0..features).map(feature).collect()
}

/// A scheme with keys, and inputs at a level.
pub(super) struct Setting {
    pub(super) params: Params,
    pub(super) level: usize,
    cpu: Cpu,
    secret: SecretKey,
    keys: EvaluationKeys<Cpu>,
}

impl Setting {
    pub(super) fn new(params: &Params, isa: Isa, list: &KeyList, level: usize) -> Result<Self> {
        let cpu = Cpu::new(params.chain().clone(), CpuConfig { isa })?;
        let mut generator = KeyGenerator::new(params, SecureRng::from_os()?);
        let secret = generator.secret_key()?;
        let mut keys = EvaluationKeys::empty(params, secret.id());
        for (purpose, level) in list.iter() {
            let key = generator.switching_key(&secret, purpose, level)?;
            keys.insert(params, &cpu, &key)?;
        }
        Ok(Self {
            params: params.clone(),
            level,
            cpu,
            secret,
            keys,
        })
    }

    pub(super) fn evaluator(&self) -> Result<Evaluator<'_, Cpu>> {
        Ok(Evaluator::new(&self.params, &self.cpu, &self.keys)?)
    }

    pub(super) fn encrypt(&self, slots: &[SlotVector]) -> Result<Vec<Ct>> {
        let mut encryptor = Encryptor::new(&self.secret, SecureRng::from_os()?)?;
        let ops = self.evaluator()?;
        let one = |slots: &SlotVector| {
            let ct = encryptor.encrypt(slots, self.level)?;
            Ok(ops.import(ct.expand(&self.params)?)?)
        };
        slots.iter().map(one).collect()
    }

    /// The product with its plaintexts and inputs. Its time is that of all outputs.
    pub(super) fn case(&self, product: &Product) -> Result<Case<'_>> {
        match &product.kind {
            Kind::Plain(steps) => self.plain(product.spec, steps),
            Kind::Tiles(shape, steps) => self.tiles(product.spec, *shape, steps),
        }
    }

    fn plain(&self, spec: Spec, product: &MatrixProduct<Diagonal>) -> Result<Case<'_>> {
        let mut ops = self.evaluator()?;
        let full = matches!(spec.way, Way::Once | Way::Twice);
        let encoded = if full {
            self.pooled(product, &mut ops)?
        } else {
            product.encode(&mut ops, self.level)?
        };
        let packing = product.packing();
        let features = if packing == Packing::Column {
            spec.from.min(COLUMNS)
        } else {
            spec.from
        };
        let slots = packing.pack(&table(features), self.params.slots())?;
        let different = self.encrypt(&slots)?;
        let count = packing.ciphertexts(spec.from);
        let whole = spec.to as f64 / product.features() as f64;
        let mut case = Case::timed(&spec.name(), move || {
            let inputs: Vec<&Ct> = different.iter().cycle().take(count).collect();
            black_box(encoded.apply(&mut ops, &inputs)?);
            Ok(())
        });
        Ok(Case {
            name: std::mem::take(&mut case.name),
            run: Box::new(move |repeats| Ok((case.run)(repeats)? * whole)),
        })
    }

    fn tiles(
        &self,
        spec: Spec,
        shape: TileShape,
        product: &TileProduct<Diagonal>,
    ) -> Result<Case<'_>> {
        let mut ops = self.evaluator()?;
        let encoded = product.encode(&mut ops, self.level)?;
        let side = |h: usize| (0..spec.to * spec.to).map(|i| value(h, i)).collect();
        let slots = |from: usize| {
            let matrices: Vec<Vec<f64>> = (from..from + shape.batch).map(side).collect();
            SlotVector::Dense(shape.pack(&matrices, self.params.slots()))
        };
        let inputs = self.encrypt(&[slots(0), slots(shape.batch)])?;
        Ok(Case::timed(&spec.name(), move || {
            if let [a, b] = inputs.as_slice() {
                black_box(encoded.apply(&mut ops, a, b)?);
            }
            Ok(())
        }))
    }

    /// The product with [`POOL`] plaintexts of each kind instead of its own, which would not fit the
    /// memory.
    fn pooled(
        &self,
        product: &MatrixProduct<Diagonal>,
        ops: &mut Evaluator<'_, Cpu>,
    ) -> Result<MatrixProduct<Plain>> {
        let mut pools: BTreeMap<String, Vec<Plain>> = BTreeMap::new();
        let mut next = 0;
        let pooled = product.map(|diagonal, role| {
            let known = pools.entry(format!("{role:?}")).or_default();
            next += 1;
            if known.len() < POOL {
                known.push(self.encoded(ops, diagonal, role)?);
            }
            Ok::<Plain, CircuitError>(known[next % known.len()].clone())
        });
        Ok(pooled?)
    }

    fn encoded(
        &self,
        ops: &mut Evaluator<'_, Cpu>,
        diagonal: &Diagonal,
        role: Role,
    ) -> std::result::Result<Plain, CircuitError> {
        let slots = diagonal.slots();
        let (down, extended) = match role {
            Role::Factor { extended } => (0, extended),
            Role::Below { levels } => (levels, false),
            Role::Unit => {
                let one = Scale::power_of_two(0);
                return Ok(ops.plain(&slots, self.level - 1, one)?);
            }
        };
        let level = self.level - down;
        let scale = self.params.scale_at(level);
        Ok(if extended {
            ops.extended_plain(&slots, level, scale)?
        } else {
            ops.plain(&slots, level, scale)?
        })
    }
}
