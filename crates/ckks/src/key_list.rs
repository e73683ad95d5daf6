//! The list of the evaluation keys that a program needs.

use serde::{Deserialize, Serialize};

use crate::keys::check_switching_key;
use crate::security::{SecretKind, SecurityReport};
use crate::{CkksError, KeyPurpose, Params};

/// The keys that a program needs, each with the highest level at which it is used: a key covers
/// the primes of that level, and P. What is used in several bands of levels ([`Params::bands`]) needs
/// a key in each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
pub struct KeyList {
    /// Levels of the relinearization keys, ascending.
    pub relinearization: Vec<usize>,
    /// Rotations with their levels, ascending; each rotation once in a band.
    pub rotations: Vec<(i64, usize)>,
    /// Levels of the conjugation keys, ascending.
    pub conjugation: Vec<usize>,
    /// Level to which the modulus is raised: that of the key from the ephemeral secret, which comes
    /// with the one to it.
    pub encapsulation: Option<usize>,
}

/// The postcard form of a list. The first two variants are what a list was before it had an
/// encapsulation: the field `relinearization` came first, and an option's byte is that of a variant's
/// number. Lists that these can tell are still written like that.
#[derive(Serialize, Deserialize)]
enum Wire {
    /// No relinearization, no encapsulation.
    Without(Vec<(i64, usize)>, Option<usize>),
    /// With the level of the relinearization key, no encapsulation.
    With(usize, Vec<(i64, usize)>, Option<usize>),
    /// With the level of the encapsulation, which comes last.
    Raising(Option<usize>, Vec<(i64, usize)>, Option<usize>, usize),
    /// With several levels of one purpose.
    Banded(Vec<usize>, Vec<(i64, usize)>, Vec<usize>, Option<usize>),
}

impl From<Wire> for KeyList {
    fn from(wire: Wire) -> Self {
        let list = |level: Option<usize>| Vec::from_iter(level);
        let (relinearization, rotations, conjugation, encapsulation) = match wire {
            Wire::Without(rotations, conjugation) => {
                (Vec::new(), rotations, list(conjugation), None)
            }
            Wire::With(level, rotations, conjugation) => {
                (vec![level], rotations, list(conjugation), None)
            }
            Wire::Raising(relinearization, rotations, conjugation, level) => (
                list(relinearization),
                rotations,
                list(conjugation),
                Some(level),
            ),
            Wire::Banded(relinearization, rotations, conjugation, level) => {
                (relinearization, rotations, conjugation, level)
            }
        };
        Self {
            relinearization,
            rotations,
            conjugation,
            encapsulation,
        }
    }
}

impl From<KeyList> for Wire {
    fn from(list: KeyList) -> Self {
        let KeyList {
            relinearization,
            rotations,
            conjugation,
            encapsulation,
        } = list;
        let (relinearization, conjugation) = match (&*relinearization, &*conjugation) {
            ([] | [_], [] | [_]) => (relinearization.first(), conjugation.first()),
            _ => return Self::Banded(relinearization, rotations, conjugation, encapsulation),
        };
        let conjugation = conjugation.copied();
        match (encapsulation, relinearization.copied()) {
            (Some(level), relinearization) => {
                Self::Raising(relinearization, rotations, conjugation, level)
            }
            (None, Some(level)) => Self::With(level, rotations, conjugation),
            (None, None) => Self::Without(rotations, conjugation),
        }
    }
}

impl KeyList {
    /// Notes that a key is used at `level`. Rotations are taken modulo the number of slots; a rotation by
    /// 0 needs no key. Of the keys to and from the ephemeral secret each brings the other.
    pub fn need(&mut self, purpose: KeyPurpose, level: usize, params: &Params) {
        let same_band =
            |other: usize| params.band_at(purpose, other) == params.band_at(purpose, level);
        let raise = |levels: &mut Vec<usize>| match levels.iter_mut().find(|l| same_band(**l)) {
            Some(old) => *old = level.max(*old),
            None => {
                let place = levels.partition_point(|&old| old < level);
                levels.insert(place, level);
            }
        };
        match purpose {
            KeyPurpose::Relinearization => raise(&mut self.relinearization),
            KeyPurpose::Conjugation => raise(&mut self.conjugation),
            KeyPurpose::FromEphemeral | KeyPurpose::ToEphemeral => {
                self.encapsulation = self.encapsulation.max(Some(level));
            }
            KeyPurpose::Rotation(by) => {
                let by = by.rem_euclid(params.slots().max(1) as i64);
                if by == 0 {
                    return;
                }
                let place = self.rotations.partition_point(|&old| old < (by, level));
                // Of one band there is one level, so that it is next to where this one would be.
                let near = [place.checked_sub(1), Some(place)].into_iter().flatten();
                let known = near.into_iter().find(|&at| {
                    let entry = self.rotations.get(at);
                    entry.is_some_and(|&(other, l)| other == by && same_band(l))
                });
                match known.and_then(|at| self.rotations.get_mut(at)) {
                    Some(entry) => entry.1 = level.max(entry.1),
                    None => self.rotations.insert(place, (by, level)),
                }
            }
        }
    }

    /// As [`KeyList::need`] for a key that is used at `level` or at any below it.
    pub fn need_up_to(&mut self, purpose: KeyPurpose, level: usize, params: &Params) {
        for band in params.bands(purpose) {
            if *band.levels.start() <= level {
                self.need(purpose, level.min(*band.levels.end()), params);
            }
        }
    }

    /// All keys with their levels: relinearization, rotations, conjugation, to and from the ephemeral
    /// secret.
    pub fn iter(&self) -> impl Iterator<Item = (KeyPurpose, usize)> + '_ {
        let relinearization = self.relinearization.iter();
        let relinearization = relinearization.map(|&level| (KeyPurpose::Relinearization, level));
        let rotations = self
            .rotations
            .iter()
            .map(|&(by, level)| (KeyPurpose::Rotation(by), level));
        let conjugation = self.conjugation.iter();
        let conjugation = conjugation.map(|&level| (KeyPurpose::Conjugation, level));
        let encapsulation = self.encapsulation.into_iter().flat_map(|level| {
            [
                (KeyPurpose::ToEphemeral, 0),
                (KeyPurpose::FromEphemeral, level),
            ]
        });
        relinearization
            .chain(rotations)
            .chain(conjugation)
            .chain(encapsulation)
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether no key is needed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The security row of every key on the list, of a client with a dense secret.
    ///
    /// # Errors
    /// [`CkksError::Insecure`], or what [`KeyPurpose::shape`] says.
    pub fn security(&self, params: &Params) -> Result<SecurityReport, CkksError> {
        let rows = self
            .iter()
            .map(|(purpose, level)| {
                let secret = purpose.secret(params, SecretKind::DenseTernary);
                Ok(check_switching_key(params, (purpose, level), secret)?.1)
            })
            .collect::<Result<_, CkksError>>()?;
        Ok(SecurityReport { rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a list was before it had an encapsulation.
    #[derive(Clone, Serialize)]
    struct Before {
        relinearization: Option<usize>,
        rotations: Vec<(i64, usize)>,
        conjugation: Option<usize>,
    }

    #[test]
    fn lists_without_encapsulation_are_written_as_before() {
        for relinearization in [None, Some(0), Some(300)] {
            for conjugation in [None, Some(7)] {
                for rotations in [vec![], vec![(1, 2), (-5, 300)]] {
                    let before = Before {
                        relinearization,
                        rotations: rotations.clone(),
                        conjugation,
                    };
                    let mut list = KeyList {
                        relinearization: Vec::from_iter(relinearization),
                        rotations,
                        conjugation: Vec::from_iter(conjugation),
                        encapsulation: None,
                    };
                    let bytes = postcard::to_allocvec(&list).unwrap();
                    assert_eq!(bytes, postcard::to_allocvec(&before).unwrap());
                    assert_eq!(postcard::from_bytes::<KeyList>(&bytes).unwrap(), list);
                    list.encapsulation = Some(30);
                    let bytes = postcard::to_allocvec(&list).unwrap();
                    assert_eq!(bytes[0], 2);
                    assert_eq!(postcard::from_bytes::<KeyList>(&bytes).unwrap(), list);
                    list.conjugation = vec![1, 9];
                    let bytes = postcard::to_allocvec(&list).unwrap();
                    assert_eq!(bytes[0], 3);
                    assert_eq!(postcard::from_bytes::<KeyList>(&bytes).unwrap(), list);
                }
            }
        }
    }

    #[test]
    fn each_key_of_the_ephemeral_secret_brings_the_other() {
        let both = [(KeyPurpose::ToEphemeral, 0), (KeyPurpose::FromEphemeral, 3)];
        for order in [[0, 1], [1, 0]] {
            let mut list = KeyList::default();
            for i in order {
                list.need(both[i].0, both[i].1, &crate::testing::toy_params());
            }
            assert_eq!(list.iter().collect::<Vec<_>>(), both);
        }
    }
}
