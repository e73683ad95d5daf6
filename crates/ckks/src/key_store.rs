//! Evaluation keys that a backend computes with: prepared for good, or regenerated from their
//! seeds when they are used.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use veilformer_ring::{Backend, GaloisElement};

use crate::keys::{StoredEvaluationKeys, StoredSwitchingKey};
use crate::security::SecurityReport;
use crate::{CkksError, KeyId, KeyPurpose, Params};

/// Evaluation keys that a backend computes with.
///
/// # Prepared or seeded
/// A key that is *prepared* ([`EvaluationKeys::insert`]) stays in memory as its backend wants it:
/// both halves, ready. A key that is *seeded* ([`EvaluationKeys::insert_seeded`]) stays as it was
/// sent, with the seed in place of its uniform half, in half the memory; each use expands and
/// prepares it, on no more limbs than the use needs, unless it is among the few that were
/// used last ([`EvaluationKeys::keep_resident`]). That is for machines that are short of memory:
/// it takes about as long as the key switch itself. An operation holds all the keys that it names
/// while it runs, and a linear transform names many.
pub struct EvaluationKeys<B: Backend> {
    params: [u8; 32],
    key_id: KeyId,
    keys: BTreeMap<Name, Entry<B>>,
    /// Rotations that have a key, modulo the number of slots.
    rotations: BTreeMap<i64, Name>,
    recent: Mutex<VecDeque<(Name, Arc<PreparedKey<B>>)>>,
    resident: usize,
    report: SecurityReport,
}

/// What tells keys apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    /// Of rotations and the conjugation: the same slots may be moved under several names.
    Automorphism(GaloisElement),
    /// All others.
    Purpose(KeyPurpose),
}

enum Entry<B: Backend> {
    Prepared(Arc<PreparedKey<B>>),
    Seeded(Box<StoredSwitchingKey>),
}

impl<B: Backend> Entry<B> {
    fn level(&self) -> usize {
        match self {
            Self::Prepared(key) => key.level,
            Self::Seeded(stored) => stored.level,
        }
    }
}

/// One prepared key with the highest level at which it can be used.
pub struct PreparedKey<B: Backend> {
    key: B::Key,
    level: usize,
}

impl<B: Backend> PreparedKey<B> {
    /// The backend's key.
    #[must_use]
    pub fn key(&self) -> &B::Key {
        &self.key
    }

    /// The highest level at which it can be used.
    #[must_use]
    pub fn level(&self) -> usize {
        self.level
    }
}

impl<B: Backend> EvaluationKeys<B> {
    /// No keys yet, for one secret key. Keys can then be inserted as they are read.
    #[must_use]
    pub fn empty(params: &Params, key_id: KeyId) -> Self {
        Self {
            params: params.digest(),
            key_id,
            keys: BTreeMap::new(),
            rotations: BTreeMap::new(),
            recent: Mutex::new(VecDeque::new()),
            resident: 1,
            report: SecurityReport::default(),
        }
    }

    /// Checks and prepares a whole set.
    ///
    /// # Errors
    /// As [`StoredEvaluationKeys::conform`], or the backend's.
    pub fn prepare(
        params: &Params,
        backend: &B,
        stored: &StoredEvaluationKeys,
    ) -> Result<Self, CkksError> {
        stored.conform(params)?;
        let mut keys = Self::empty(params, stored.key_id);
        for key in &stored.keys {
            keys.insert(params, backend, key)?;
        }
        Ok(keys)
    }

    /// Checks, prepares and adds one key; of two keys of one purpose the one that covers more
    /// levels stays.
    ///
    /// # Errors
    /// As [`StoredSwitchingKey::conform`], [`CkksError::WrongKey`], [`CkksError::WrongParams`],
    /// or the backend's.
    pub fn insert(
        &mut self,
        params: &Params,
        backend: &B,
        stored: &StoredSwitchingKey,
    ) -> Result<(), CkksError> {
        let prepared = Self::prepare_one(params, backend, stored)?;
        self.insert_prepared(params, stored, prepared)
    }

    /// Checks and prepares one key without adding it, so that several threads can prepare keys
    /// at once; [`EvaluationKeys::insert_prepared`] adds it.
    ///
    /// # Errors
    /// As [`StoredSwitchingKey::conform`], or the backend's.
    pub fn prepare_one(
        params: &Params,
        backend: &B,
        stored: &StoredSwitchingKey,
    ) -> Result<PreparedKey<B>, CkksError> {
        Self::prepare_at(params, backend, stored, stored.level)
    }

    fn prepare_at(
        params: &Params,
        backend: &B,
        stored: &StoredSwitchingKey,
        level: usize,
    ) -> Result<PreparedKey<B>, CkksError> {
        Ok(PreparedKey {
            key: backend.prepare_key(&stored.expand_at(params, level)?)?,
            level,
        })
    }

    /// Adds a key that [`EvaluationKeys::prepare_one`] made of `stored`.
    ///
    /// # Errors
    /// As [`EvaluationKeys::insert`].
    pub fn insert_prepared(
        &mut self,
        params: &Params,
        stored: &StoredSwitchingKey,
        prepared: PreparedKey<B>,
    ) -> Result<(), CkksError> {
        self.admit(params, stored)?;
        self.add(params, stored.purpose, Entry::Prepared(Arc::new(prepared)));
        Ok(())
    }

    /// Checks and adds one key as it is: it is prepared when it is used, and not for long.
    ///
    /// # Errors
    /// As [`EvaluationKeys::insert`].
    pub fn insert_seeded(
        &mut self,
        params: &Params,
        stored: StoredSwitchingKey,
    ) -> Result<(), CkksError> {
        self.admit(params, &stored)?;
        let purpose = stored.purpose;
        self.add(params, purpose, Entry::Seeded(Box::new(stored)));
        Ok(())
    }

    /// How many seeded keys stay prepared after their use: those used last. 1 at first.
    pub fn keep_resident(&mut self, count: usize) {
        self.resident = count;
        self.recent().truncate(count);
    }

    fn admit(&mut self, params: &Params, stored: &StoredSwitchingKey) -> Result<(), CkksError> {
        if self.params != params.digest() {
            return Err(CkksError::WrongParams {
                object: "the evaluation key set",
                found: crate::error::short_hex(&params.digest()),
                expected: crate::error::short_hex(&self.params),
            });
        }
        if stored.key_id != self.key_id {
            return Err(CkksError::WrongKey {
                object: "a switching key",
                found: stored.key_id,
                expected: self.key_id,
            });
        }
        self.report.rows.push(stored.conform(params)?);
        Ok(())
    }

    fn add(&mut self, params: &Params, purpose: KeyPurpose, entry: Entry<B>) {
        let name = name(params, purpose);
        if let KeyPurpose::Rotation(by) = purpose {
            self.rotations
                .insert(by.rem_euclid(params.slots() as i64), name);
        }
        let old = self.keys.get(&name).map(Entry::level);
        if old.is_none_or(|level| level < entry.level()) {
            self.keys.insert(name, entry);
        }
    }

    /// The key of a purpose, ready for an operation at `level` and below; `None` if there is none
    /// that covers the level.
    ///
    /// # Errors
    /// The backend's, when a seeded key is prepared.
    pub fn get(
        &self,
        params: &Params,
        backend: &B,
        (purpose, level): (KeyPurpose, usize),
    ) -> Result<Option<Arc<PreparedKey<B>>>, CkksError> {
        let name = name(params, purpose);
        let entry = self.keys.get(&name).filter(|key| key.level() >= level);
        let stored = match entry {
            None => return Ok(None),
            Some(Entry::Prepared(key)) => return Ok(Some(key.clone())),
            Some(Entry::Seeded(stored)) => stored,
        };
        if let Some(key) = self.recall(name, level) {
            return Ok(Some(key));
        }
        // Not under the lock: other threads may use other keys meanwhile.
        let key = Arc::new(Self::prepare_at(params, backend, stored, level)?);
        let mut recent = self.recent();
        recent.retain(|(other, _)| *other != name);
        recent.push_front((name, key.clone()));
        recent.truncate(self.resident);
        Ok(Some(key))
    }

    /// A seeded key that is still prepared, which now is the one used last.
    fn recall(&self, name: Name, level: usize) -> Option<Arc<PreparedKey<B>>> {
        let mut recent = self.recent();
        let at = recent
            .iter()
            .position(|(other, key)| *other == name && key.level >= level)?;
        let entry = recent.remove(at)?;
        let key = entry.1.clone();
        recent.push_front(entry);
        Some(key)
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, VecDeque<(Name, Arc<PreparedKey<B>>)>> {
        // Nothing in the queue is half made when a thread panics.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a key of that purpose that covers `level`.
    #[must_use]
    pub fn covers(&self, params: &Params, purpose: KeyPurpose, level: usize) -> bool {
        let key = self.keys.get(&name(params, purpose));
        key.is_some_and(|key| key.level() >= level)
    }

    /// The rotations, modulo the number of slots, whose keys cover `level`, in ascending order.
    pub fn rotations(&self, level: usize) -> impl Iterator<Item = i64> + '_ {
        let covers = move |name| self.keys.get(name).is_some_and(|key| key.level() >= level);
        let known = self.rotations.iter().filter(move |(_, name)| covers(name));
        known.map(|(&by, _)| by)
    }

    /// The secret key that they belong to.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Digest of the parameters that they belong to.
    #[must_use]
    pub fn params_digest(&self) -> [u8; 32] {
        self.params
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The security row of every key, as computed when it was loaded.
    #[must_use]
    pub fn security(&self) -> &SecurityReport {
        &self.report
    }
}

fn name(params: &Params, purpose: KeyPurpose) -> Name {
    match purpose {
        KeyPurpose::Rotation(_) | KeyPurpose::Conjugation => {
            Name::Automorphism(purpose.galois(params.log_n()))
        }
        other => Name::Purpose(other),
    }
}
