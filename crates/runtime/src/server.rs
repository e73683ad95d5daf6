//! The server: a bundle on a backend, a client's evaluation keys, and runs.

use std::io::{Read, Seek};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rayon::prelude::*;
use veilformer_ckks::container::{
    EvaluationKeysHeader, KeyFile, Kind, MAX_CIPHERTEXTS, Reader, Writer, append_ciphertexts,
    read_ciphertexts,
};
use veilformer_ckks::{
    CkksError, Encoder, EvaluationKeys, Evaluator, KeyId, KeyPurpose, SecurityReport,
    StoredCiphertext,
};
use veilformer_compiler::schedule::schedule;
use veilformer_ir::device::DeviceProgram;
use veilformer_ir::signature::{PROGRAM_DIGEST, SENTENCES, read_sentences};
use veilformer_ring::Backend;

use crate::bundle::{ServerBundle, container};
use crate::executor::{Prepared, Progress, Stream, run};
use crate::stats::RunStats;
use crate::{RuntimeError, error::short_hex};

/// A compiled model that is ready to run on encrypted inputs of one client.
pub struct Server<B: Backend> {
    bundle: ServerBundle,
    backend: B,
    encoder: Encoder,
    prepared: Prepared<B>,
    device: DeviceProgram,
    stream: Stream,
    keys: Option<EvaluationKeys<B>>,
}

/// What a run gives.
#[derive(Clone, Debug)]
pub struct ServerRun {
    /// The file of answers, to go back to the client.
    pub answer: Vec<u8>,
    /// Number of inputs (sentences) that were answered.
    pub items: usize,
    /// What the run took, over all inputs.
    pub stats: RunStats,
}

impl<B: Backend> Server<B> {
    /// Encodes the program's weights for a backend, which must be made for the chain of the
    /// bundle's parameters.
    ///
    /// # Errors
    /// What the encoder or the backend refuses.
    pub fn open(bundle: ServerBundle, backend: B) -> Result<Self, RuntimeError> {
        Self::open_keeping(bundle, backend, u64::MAX)
    }

    /// As [`Server::open`], with at most `kept` bytes of encoded weights in memory: those beyond are
    /// encoded anew whenever a run reads them (see [`crate::Plan::within`]).
    ///
    /// # Errors
    /// As [`Server::open`].
    pub fn open_keeping(bundle: ServerBundle, backend: B, kept: u64) -> Result<Self, RuntimeError> {
        let threads = rayon::current_num_threads();
        let device = schedule(bundle.program(), bundle.params(), threads);
        Self::open_with(bundle, backend, device, kept)
    }

    /// As [`Server::open`], along a given device program.
    ///
    /// # Errors
    /// As [`Server::open`], and a device program that is not the bundle's.
    pub fn open_scheduled(
        bundle: ServerBundle,
        backend: B,
        device: DeviceProgram,
    ) -> Result<Self, RuntimeError> {
        Self::open_with(bundle, backend, device, u64::MAX)
    }

    fn open_with(
        bundle: ServerBundle,
        backend: B,
        device: DeviceProgram,
        kept: u64,
    ) -> Result<Self, RuntimeError> {
        let stream = Stream::new(bundle.program(), &device)?;
        let encoder = Encoder::new(bundle.params())?;
        let none = EvaluationKeys::empty(bundle.params(), KeyId::from_bytes([0; 16]));
        let evaluator = Evaluator::with_encoder(encoder.clone(), &backend, &none)?;
        let prepared = Prepared::keeping(bundle.program(), &evaluator, kept)?;
        Ok(Self {
            bundle,
            backend,
            encoder,
            prepared,
            device,
            stream,
            keys: None,
        })
    }

    /// The bundle.
    #[must_use]
    pub fn bundle(&self) -> &ServerBundle {
        &self.bundle
    }

    /// The instruction stream that runs follow.
    #[must_use]
    pub fn device(&self) -> &DeviceProgram {
        &self.device
    }

    /// The security row of every key loaded.
    #[must_use]
    pub fn key_security(&self) -> Option<&SecurityReport> {
        self.keys.as_ref().map(EvaluationKeys::security)
    }

    /// Checks and prepares a client's evaluation keys from their file, in the current rayon pool;
    /// they replace those of the client before. Keys that the program does not use are left out. Of
    /// the file no more keys are in memory at once than there are threads.
    ///
    /// # Errors
    /// [`RuntimeError::SecretKey`] for a file that a server must not see,
    /// [`RuntimeError::OtherProgram`], [`RuntimeError::MissingKey`], [`RuntimeError::KeysStopped`]
    /// if `progress` breaks, and what is wrong with the file.
    pub fn load_keys<F: Read + Seek + Send>(
        &mut self,
        mut file: F,
        progress: &Progress<'_>,
    ) -> Result<(), RuntimeError> {
        let params = self.bundle.params();
        if matches!(KeyFile::kind_of(&mut file), Ok(Kind::SecretKey)) {
            return Err(RuntimeError::SecretKey);
        }
        let stored = KeyFile::open(file, params)?;
        let header = stored.header();
        self.check_program("the evaluation keys", &header.program)?;
        let chosen = self.choose_keys(header)?;
        let done = AtomicUsize::new(0);
        let total = chosen.len();
        let prepare = |&index: &usize| {
            let key = stored.key(index)?;
            let prepared = EvaluationKeys::prepare_one(params, &self.backend, &key)?;
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if progress(done, total).is_break() {
                return Err(RuntimeError::KeysStopped { done, total });
            }
            Ok((key, prepared))
        };
        let mut keys = EvaluationKeys::empty(params, header.key_id);
        // No more stored keys are in memory at once than there are threads.
        for chunk in chosen.chunks(rayon::current_num_threads().max(1)) {
            let batch: Vec<_> = chunk.par_iter().map(prepare).collect::<Result<_, _>>()?;
            for (stored, prepared) in batch {
                keys.insert_prepared(params, &stored, prepared)?;
            }
        }
        self.keys = Some(keys);
        Ok(())
    }

    /// Per key that the program needs, in the order of their first use, the index of one in the
    /// file that covers its level, of the same band.
    fn choose_keys(&self, header: &EvaluationKeysHeader) -> Result<Vec<usize>, RuntimeError> {
        let params = self.bundle.params();
        let log_n = params.log_n();
        let records = &header.keys;
        let mut needed: Vec<(KeyPurpose, usize)> = self.bundle.keys().iter().collect();
        needed.sort_by_key(|(purpose, _)| self.device.keys.iter().position(|k| k == purpose));
        needed
            .into_iter()
            .map(|(purpose, level)| {
                let same = |p: KeyPurpose| {
                    // Rotations name the same automorphism modulo the number of slots;
                    // relinearization shares the identity with none that is ever needed.
                    p == purpose
                        || (matches!(p, KeyPurpose::Rotation(_))
                            && matches!(purpose, KeyPurpose::Rotation(_))
                            && p.galois(log_n) == purpose.galois(log_n))
                };
                let band = |level| params.band_at(purpose, level);
                let covers = |found: usize| found >= level && band(found) == band(level);
                records
                    .iter()
                    .position(|r| same(r.purpose) && covers(r.level as usize))
                    .ok_or(RuntimeError::MissingKey { purpose, level })
            })
            .collect()
    }

    /// Answers a file of encrypted inputs, one batch of sentences after the other, each in as many threads
    /// as the current rayon pool has. `progress` hears instructions done of all sentences'.
    ///
    /// # Errors
    /// [`RuntimeError::NoKeys`] before [`Server::load_keys`]; a file of another kind, parameters,
    /// program or key; a number of ciphertexts that no number of sentences makes; levels that the
    /// program does not take; [`RuntimeError::Stopped`] if `progress` breaks.
    pub fn run(&self, file: &[u8], progress: &Progress<'_>) -> Result<ServerRun, RuntimeError> {
        let params = self.bundle.params();
        let program = self.bundle.program();
        let keys = self.keys.as_ref().ok_or(RuntimeError::NoKeys)?;
        let reader = open(file, Kind::Ciphertexts, &self.bundle)?;
        let digest = reader.section(PROGRAM_DIGEST).map_err(container)?;
        self.check_program("the encrypted inputs", digest)?;
        let stored = read_ciphertexts(&reader, params)?;
        let per_item = program.inputs.len();
        if stored.is_empty() || per_item == 0 || !stored.len().is_multiple_of(per_item) {
            return Err(RuntimeError::InputCount {
                found: stored.len(),
                expected: per_item,
            });
        }
        let runs = stored.len() / per_item;
        let items = read_sentences(&reader, runs, program.batch).map_err(RuntimeError::Items)?;
        // Said before the work is done, not when the answers do not fit their file.
        let limit = MAX_CIPHERTEXTS / program.outputs.len().max(1);
        if runs > limit {
            return Err(RuntimeError::TooManyItems { found: runs, limit });
        }
        if let Some(ct) = stored.iter().find(|ct| ct.info.key_id != keys.key_id()) {
            return Err(RuntimeError::OtherKey {
                found: ct.info.key_id,
                expected: keys.key_id(),
            });
        }
        let evaluator = Evaluator::with_encoder(self.encoder.clone(), &self.backend, keys)?;
        let total = runs * program.instructions.len();
        let mut answers = Vec::with_capacity(runs * program.outputs.len());
        let mut stats = RunStats::default();
        for (number, inputs) in stored.chunks(per_item).enumerate() {
            let started = Instant::now();
            let input = |index: usize| match inputs.get(index) {
                Some(ct) => Ok(evaluator.import(ct.expand(params)?)?),
                None => Err(RuntimeError::InputCount {
                    found: inputs.len(),
                    expected: per_item,
                }),
            };
            let before = number * program.instructions.len();
            let (outputs, mut took) = run(
                (program, &self.stream),
                &self.prepared,
                &evaluator,
                &input,
                &|done, _| progress(before + done, total),
            )?;
            for ct in outputs {
                answers.push(ct.export(&self.backend)?.into_stored());
            }
            // Taking the inputs over and copying the answers back is part of it.
            took.seconds = started.elapsed().as_secs_f64();
            stats.add(&took);
        }
        Ok(ServerRun {
            answer: self.answer_file(&answers, items)?,
            items,
            stats,
        })
    }

    fn answer_file(
        &self,
        answers: &[StoredCiphertext],
        sentences: usize,
    ) -> Result<Vec<u8>, RuntimeError> {
        let params = self.bundle.params();
        let mut writer = Writer::new(Kind::Answer, Some(params)).map_err(container)?;
        writer.section(PROGRAM_DIGEST, self.bundle.program_digest().to_vec());
        writer.section(SENTENCES, (sentences as u32).to_le_bytes().to_vec());
        append_ciphertexts(&mut writer, params, answers)?;
        writer.to_bytes().map_err(container)
    }

    fn check_program(&self, object: &'static str, found: &[u8]) -> Result<(), RuntimeError> {
        let expected = self.bundle.program_digest();
        if found == expected {
            return Ok(());
        }
        Err(RuntimeError::OtherProgram {
            object,
            found: short_hex(found),
            expected: short_hex(&expected),
        })
    }
}

/// Opens a file of a client. A secret key is named as what it is before anything else is said.
fn open<'a>(file: &'a [u8], kind: Kind, bundle: &ServerBundle) -> Result<Reader<'a>, RuntimeError> {
    if let Ok(reader) = Reader::open_unverified(file)
        && reader.kind() == Kind::SecretKey
    {
        return Err(RuntimeError::SecretKey);
    }
    Ok(Reader::open_for(file, kind, bundle.params()).map_err(CkksError::from)?)
}
