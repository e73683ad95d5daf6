//! How threads slow one another down, and help one another.

use std::sync::Barrier;

use rayon::ThreadPool;
use veilformer_ckks::{Giant, OpsError, SharedCiphertext, SharedPlain, Term, Transform};
use veilformer_ring::Backend;

use super::clock::once;
use super::{Bench, pool};
use crate::RuntimeError;

/// Rounds, of which the shortest times count: what else the machine does, even for seconds, only adds to them.
const ROUNDS: usize = 5;

/// What so many threads make of a mixture of operations.
pub(super) struct Threads {
    /// How much longer each takes when all threads do the same: not more than if they took turns, nor than
    /// if they shared one.
    pub(super) slowdown: f64,
    /// How much faster it is when the others have nothing else to do.
    pub(super) helped: f64,
}

impl<B: Backend> Bench<'_, B> {
    /// What threads make of operations at a level.
    pub(super) fn threads(&self, level: usize, threads: usize) -> Result<Threads, RuntimeError> {
        let mixed = self.mixed(level)?;
        let pools: Vec<ThreadPool> = (0..threads).map(|_| pool(1)).collect::<Result<_, _>>()?;
        let (shared, all) = (pool(threads)?, Barrier::new(threads));
        let [mut alone, mut together, mut helped] = [f64::INFINITY; 3];
        for _ in 0..ROUNDS {
            alone = alone.min(self.mix(&mixed, &Barrier::new(1))?);
            let times: Vec<f64> = std::thread::scope(|scope| {
                let workers: Vec<_> = pools
                    .iter()
                    .map(|pool| scope.spawn(|| pool.install(|| self.mix(&mixed, &all))))
                    .collect();
                let times = workers.into_iter().map(|worker| match worker.join() {
                    Ok(time) => time,
                    Err(panic) => std::panic::resume_unwind(panic),
                });
                times.collect::<Result<_, _>>()
            })?;
            together = together.min(times.iter().sum::<f64>() / threads as f64);
            helped = helped.min(shared.install(|| self.mix(&mixed, &Barrier::new(1)))?);
        }
        let most = threads as f64;
        let helped = (alone / helped.max(1e-9)).clamp(1.0, most);
        Ok(Threads {
            slowdown: (together / alone.max(1e-9)).clamp(1.0, most / helped),
            helped,
        })
    }

    /// Seconds of what programs are made of, a little of each: a rotation, a product, a transform
    /// whose plaintexts have no period, and what only adds and multiplies. They do not gain alike from
    /// threads, since some wait for memory. On each of as many threads as `all` is for.
    fn mix(&self, mixed: &Mixed<B>, all: &Barrier) -> Result<f64, OpsError> {
        let (e, [a, b], plains) = (&self.evaluator, &mixed.inputs, &mixed.plains);
        let mut plains = plains.iter().cycle();
        let giants = (0..MIXED.0).map(|giant| Giant {
            rotation: giant,
            terms: (0..MIXED.1)
                .zip(&mut plains)
                .map(|(baby, plain)| Term {
                    input: 0,
                    baby,
                    plain: plain.clone(),
                })
                .collect(),
        });
        let transform = Transform {
            giants: giants.collect(),
        };
        self.clock.repeated_with(all, || {
            once(|| {
                let turned = e.rotate_many(a, &[1])?;
                let product = e.mul_sum(&[(a, b)])?;
                let mapped = e.linear_transforms(&[a], &[&transform])?;
                let (sum, lower) = (e.add(a, b)?, e.rescale(a)?);
                Ok((turned, product, mapped, sum, lower))
            })
        })
    }

    fn mixed(&self, level: usize) -> Result<Mixed<B>, RuntimeError> {
        let scale = self.params.scale_at(level);
        let plains = (0..MIXED.0 * MIXED.1).map(|number| {
            let slots = self.slots(number as usize);
            self.evaluator.encode_extended(&slots, level, scale)
        });
        Ok(Mixed {
            inputs: [self.ciphertext(level, 0)?, self.ciphertext(level, 1)?],
            plains: plains.collect::<Result<_, _>>()?,
        })
    }
}

/// Giant and baby steps of the transform in [`Bench::mix`].
const MIXED: (i64, i64) = (3, 4);

/// What [`Bench::mix`] works on.
struct Mixed<B: Backend> {
    inputs: [SharedCiphertext<B>; 2],
    plains: Vec<SharedPlain<B>>,
}
