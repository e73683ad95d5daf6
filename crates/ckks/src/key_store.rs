//! Evaluation keys that a backend computes with: prepared for good, or regenerated from their
//! seeds, or read from disk, when they are used.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use veilformer_ring::{Backend, GaloisElement};

use crate::container::KeyFile;
use crate::keys::{StoredEvaluationKeys, StoredSwitchingKey, check_switching_key};
use crate::read_ahead::{ReadAhead, Source};
use crate::security::SecurityReport;
use crate::{CkksError, KeyId, KeyPurpose, Params};

/// Evaluation keys that a backend computes with.
///
/// # Prepared, seeded or on disk
/// A key that is *prepared* ([`EvaluationKeys::insert`]) stays in memory as its backend wants it:
/// both halves, ready. A key that is *seeded* ([`EvaluationKeys::insert_seeded`]) stays as it was
/// sent, with the seed in place of its uniform half, in half the memory; each use expands and
/// prepares it, on no more limbs than the use needs, unless it is among the few that were
/// used last ([`EvaluationKeys::keep_resident`]). That is for machines that are short of memory:
/// it takes about as long as the key switch itself. A key that is *on disk*
/// ([`EvaluationKeys::insert_from_file`]) is used like a seeded one, and takes no memory otherwise. An
/// operation holds all the keys that it names while it runs, and a linear transform names many.
///
/// What seeded keys and those on disk take can be done by a thread of its own before they are
/// used ([`EvaluationKeys::read_ahead`]).
pub struct EvaluationKeys<B: Backend> {
    params: [u8; 32],
    key_id: KeyId,
    keys: BTreeMap<Name, Entry<B>>,
    /// Rotations that have a key in a band, modulo the number of slots.
    rotations: BTreeMap<(usize, i64), Name>,
    recent: Mutex<VecDeque<(Name, Arc<PreparedKey<B>>)>>,
    resident: usize,
    ahead: Option<ReadAhead<Name>>,
    report: SecurityReport,
}

/// What tells keys apart; the number is that of the band of levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    /// Of rotations and the conjugation: the same slots may be moved under several names.
    Automorphism(usize, GaloisElement),
    /// All others.
    Purpose(usize, KeyPurpose),
}

enum Entry<B: Backend> {
    Prepared(Arc<PreparedKey<B>>),
    /// Prepared when it is used, up to a level.
    Source(Source, usize),
}

impl<B: Backend> Entry<B> {
    fn level(&self) -> usize {
        match self {
            Self::Prepared(key) => key.level,
            Self::Source(_, level) => *level,
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
            ahead: None,
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

    /// Checks, prepares and adds one key; of two keys of one purpose and one band of levels
    /// ([`Params::bands`]) the one that covers more levels stays.
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
        Ok(PreparedKey {
            key: backend.prepare_key(&stored.expand(params)?)?,
            level: stored.level,
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
        self.add(
            params,
            (stored.purpose, stored.level),
            Entry::Prepared(Arc::new(prepared)),
        );
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
        let (purpose, level) = (stored.purpose, stored.level);
        self.add(
            params,
            (purpose, level),
            Entry::Source(Source::Memory(Arc::new(stored)), level),
        );
        Ok(())
    }

    /// Adds one key of a file, which is read, checked and prepared when it is used, and not for long.
    ///
    /// # Errors
    /// As [`EvaluationKeys::insert`], as far as it can be told without its polynomials; a key that the
    /// file does not have.
    pub fn insert_from_file(
        &mut self,
        params: &Params,
        file: &Arc<KeyFile>,
        index: usize,
    ) -> Result<(), CkksError> {
        let header = file.header();
        let record = header.keys.get(index).ok_or_else(|| {
            CkksError::malformed("evaluation key file", format!("it has no key {index}"))
        })?;
        self.belongs(params, header.key_id)?;
        let (purpose, level) = (record.purpose, record.level as usize);
        let (_, row) = check_switching_key(params, (purpose, level), record.secret)?;
        self.report.rows.push(row);
        let source = Source::File(file.clone(), index);
        self.add(params, (purpose, level), Entry::Source(source, level));
        Ok(())
    }

    /// Starts a thread that expands seeded keys and reads those on disk before they are used, at most
    /// `count` of them, which wait in memory; 0 ends it. It learns the order in which they are used
    /// while they are, so that a first run gains nothing; runs that use them in another order wait as
    /// long as without it.
    ///
    /// # Errors
    /// The system's, if there can be no thread.
    pub fn read_ahead(&mut self, params: &Params, count: usize) -> Result<(), CkksError> {
        self.ahead = match count {
            0 => None,
            count => Some(ReadAhead::start(params, count)?),
        };
        Ok(())
    }

    /// How many keys that are not prepared for good stay so after their use: those used last. 1 at first.
    pub fn keep_resident(&mut self, count: usize) {
        self.resident = count;
        self.recent().truncate(count);
    }

    fn admit(&mut self, params: &Params, stored: &StoredSwitchingKey) -> Result<(), CkksError> {
        self.belongs(params, stored.key_id)?;
        self.report.rows.push(stored.conform(params)?);
        Ok(())
    }

    /// Whether keys under these parameters and of this secret key belong here.
    fn belongs(&self, params: &Params, key_id: KeyId) -> Result<(), CkksError> {
        if self.params != params.digest() {
            return Err(CkksError::WrongParams {
                object: "the evaluation key set",
                found: crate::error::short_hex(&params.digest()),
                expected: crate::error::short_hex(&self.params),
            });
        }
        if key_id != self.key_id {
            return Err(CkksError::WrongKey {
                object: "a switching key",
                found: key_id,
                expected: self.key_id,
            });
        }
        Ok(())
    }

    fn add(&mut self, params: &Params, key: (KeyPurpose, usize), entry: Entry<B>) {
        let name = name(params, key);
        if let (KeyPurpose::Rotation(by), level) = key {
            let by = by.rem_euclid(params.slots() as i64);
            self.rotations
                .insert((params.band_at(key.0, level), by), name);
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
        let name = name(params, (purpose, level));
        let entry = self.keys.get(&name).filter(|key| key.level() >= level);
        let source = match entry {
            None => return Ok(None),
            Some(Entry::Prepared(key)) => return Ok(Some(key.clone())),
            Some(Entry::Source(source, _)) => source,
        };
        let recalled = self.recall(name, level);
        let made = match &self.ahead {
            Some(ahead) => {
                let made = match recalled {
                    Some(_) => None,
                    None => ahead.take(name, level),
                };
                ahead.used(name, level, |name, level| self.upcoming(name, level));
                made
            }
            None => None,
        };
        if let Some(key) = recalled {
            return Ok(Some(key));
        }
        // Not under the lock: other threads may use other keys meanwhile.
        let (expanded, level) = match made {
            Some(made) => made,
            None => (source.expand(params, level)?, level),
        };
        let key = Arc::new(PreparedKey {
            key: backend.prepare_key(&expanded)?,
            level,
        });
        let mut recent = self.recent();
        recent.retain(|(other, _)| *other != name);
        recent.push_front((name, key.clone()));
        recent.truncate(self.resident);
        Ok(Some(key))
    }

    /// Where a key that will be used comes from, unless it is still prepared.
    fn upcoming(&self, name: Name, level: usize) -> Option<Source> {
        let recent = self.recent();
        if recent
            .iter()
            .any(|(n, key)| *n == name && key.level >= level)
        {
            return None;
        }
        match self.keys.get(&name) {
            Some(Entry::Source(source, most)) if *most >= level => Some(source.clone()),
            _ => None,
        }
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
        let key = self.keys.get(&name(params, (purpose, level)));
        key.is_some_and(|key| key.level() >= level)
    }

    /// The rotations, modulo the number of slots, whose keys cover `level`, in ascending order.
    pub fn rotations(&self, params: &Params, level: usize) -> impl Iterator<Item = i64> + '_ {
        let covers = move |name| self.keys.get(name).is_some_and(|key| key.level() >= level);
        let band = params.band_at(KeyPurpose::Rotation(1), level);
        let of_band = self.rotations.range((band, i64::MIN)..=(band, i64::MAX));
        let known = of_band.filter(move |(_, name)| covers(name));
        known.map(|(&(_, by), _)| by)
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

fn name(params: &Params, (purpose, level): (KeyPurpose, usize)) -> Name {
    let band = params.band_at(purpose, level);
    match purpose {
        KeyPurpose::Rotation(_) | KeyPurpose::Conjugation => {
            Name::Automorphism(band, purpose.galois(params.log_n()))
        }
        other => Name::Purpose(band, other),
    }
}
