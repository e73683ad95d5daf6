//! Key generation that goes on where an interrupted one ended.

use std::io::{Read, Seek, Write};

use veilformer_ckks::container::{EvaluationKeysHeader, UnfinishedKeys};
use veilformer_ckks::{KeyList, KeyPurpose};

use crate::keygen::{Job, Progress};
use crate::{KeyGenerator, SecretError, SecretKey};

/// A file of evaluation keys that was begun before, now finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// Its length in bytes.
    pub bytes: u64,
    /// Keys that were there and whole.
    pub kept: usize,
}

impl KeyGenerator {
    /// As [`KeyGenerator::write_evaluation_keys`], into a file that may hold what an interrupted call
    /// came to: keys that are there and whole are kept, the others are made. The same call on an
    /// empty file begins. If it is stopped or fails, what was made stays in `file` for the next call;
    /// when it is done, the file is to be cut to [`Resumed::bytes`].
    ///
    /// The keys to and from an ephemeral secret are made anew, together: kept one by one they could be
    /// of two secrets.
    ///
    /// # Errors
    /// As [`KeyGenerator::write_evaluation_keys`] and [`UnfinishedKeys::open`]: nothing is written to
    /// a file of another secret key, program or parameters.
    pub fn resume_evaluation_keys<F: Read + Write + Seek>(
        &mut self,
        key: &SecretKey,
        (list, program): (&KeyList, [u8; 32]),
        file: F,
        progress: &mut Progress<'_>,
    ) -> Result<Resumed, SecretError> {
        self.check(key)?;
        let client_key = (key.id(), key.kind());
        let header = EvaluationKeysHeader::of_list(&self.params, list, client_key, program);
        let mut file = UnfinishedKeys::open(file, &self.params, &header)?;
        let wanted: Vec<(KeyPurpose, usize)> = list.iter().collect();
        let (mut jobs, mut kept) = (Vec::new(), 0);
        for (index, &(purpose, level)) in wanted.iter().enumerate() {
            match file.holds(index)? && !of_ephemeral(purpose) {
                true => kept += 1,
                false => jobs.extend(Job::of((purpose, level))),
            }
        }
        let count = (kept, wanted.len());
        self.each_job(key, jobs, (count, progress), &mut |made| {
            let is_it = |w: &(KeyPurpose, usize)| *w == (made.purpose, made.level);
            match wanted.iter().position(is_it) {
                Some(index) => Ok(file.write(index, &made)?),
                None => Err(SecretError::Purpose(made.purpose)),
            }
        })?;
        let bytes = file.finish()?.1;
        Ok(Resumed { bytes, kept })
    }
}

/// Whether a key is one of two of an ephemeral secret.
fn of_ephemeral(purpose: KeyPurpose) -> bool {
    matches!(purpose, KeyPurpose::ToEphemeral | KeyPurpose::FromEphemeral)
}
