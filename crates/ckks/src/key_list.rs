//! The list of the evaluation keys that a program needs.

use serde::{Deserialize, Serialize};

use crate::keys::check_switching_key;
use crate::security::{SecretKind, SecurityReport};
use crate::{CkksError, KeyPurpose, Params};

/// The keys that a program needs, each with the highest level at which it is used: a key covers
/// the primes of that level, and P.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
pub struct KeyList {
    /// Level of the relinearization key.
    pub relinearization: Option<usize>,
    /// Rotations with their levels; each rotation once.
    pub rotations: Vec<(i64, usize)>,
    /// Level of the conjugation key.
    pub conjugation: Option<usize>,
    /// Level to which the modulus is raised: that of the key from the ephemeral secret, which comes
    /// with the one to it.
    pub encapsulation: Option<usize>,
}

/// The postcard form of a list. The first two variants are what a list was before it had an
/// encapsulation: the field `relinearization` came first, and an option's byte is that of a variant's
/// number. Lists without an encapsulation are still written like that.
#[derive(Serialize, Deserialize)]
enum Wire {
    /// No relinearization, no encapsulation.
    Without(Vec<(i64, usize)>, Option<usize>),
    /// With the level of the relinearization key, no encapsulation.
    With(usize, Vec<(i64, usize)>, Option<usize>),
    /// With the level of the encapsulation, which comes last.
    Raising(Option<usize>, Vec<(i64, usize)>, Option<usize>, usize),
}

impl From<Wire> for KeyList {
    fn from(wire: Wire) -> Self {
        let (relinearization, rotations, conjugation, encapsulation) = match wire {
            Wire::Without(rotations, conjugation) => (None, rotations, conjugation, None),
            Wire::With(level, rotations, conjugation) => {
                (Some(level), rotations, conjugation, None)
            }
            Wire::Raising(relinearization, rotations, conjugation, level) => {
                (relinearization, rotations, conjugation, Some(level))
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
        let (relinearization, rotations, conjugation) =
            (list.relinearization, list.rotations, list.conjugation);
        match (list.encapsulation, relinearization) {
            (Some(level), _) => Self::Raising(relinearization, rotations, conjugation, level),
            (None, Some(level)) => Self::With(level, rotations, conjugation),
            (None, None) => Self::Without(rotations, conjugation),
        }
    }
}

impl KeyList {
    /// Notes that a key is used at `level`. Rotations are taken modulo `slots`; a rotation by 0
    /// needs no key. Of the keys to and from the ephemeral secret each brings the other.
    pub fn need(&mut self, purpose: KeyPurpose, level: usize, slots: usize) {
        let raise = |old: &mut Option<usize>| *old = Some(old.map_or(level, |l| l.max(level)));
        match purpose {
            KeyPurpose::Relinearization => raise(&mut self.relinearization),
            KeyPurpose::Conjugation => raise(&mut self.conjugation),
            KeyPurpose::FromEphemeral | KeyPurpose::ToEphemeral => raise(&mut self.encapsulation),
            KeyPurpose::Rotation(by) => {
                let by = by.rem_euclid(slots.max(1) as i64);
                if by == 0 {
                    return;
                }
                match self.rotations.binary_search_by_key(&by, |entry| entry.0) {
                    Ok(i) => self.rotations[i].1 = self.rotations[i].1.max(level),
                    Err(i) => self.rotations.insert(i, (by, level)),
                }
            }
        }
    }

    /// All keys with their levels: relinearization, rotations, conjugation, to and from the ephemeral
    /// secret.
    pub fn iter(&self) -> impl Iterator<Item = (KeyPurpose, usize)> + '_ {
        let relinearization = self
            .relinearization
            .map(|level| (KeyPurpose::Relinearization, level));
        let rotations = self
            .rotations
            .iter()
            .map(|&(by, level)| (KeyPurpose::Rotation(by), level));
        let conjugation = self
            .conjugation
            .map(|level| (KeyPurpose::Conjugation, level));
        let encapsulation = self.encapsulation.into_iter().flat_map(|level| {
            [
                (KeyPurpose::ToEphemeral, 0),
                (KeyPurpose::FromEphemeral, level),
            ]
        });
        relinearization
            .into_iter()
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
                        relinearization,
                        rotations,
                        conjugation,
                        encapsulation: None,
                    };
                    let bytes = postcard::to_allocvec(&list).unwrap();
                    assert_eq!(bytes, postcard::to_allocvec(&before).unwrap());
                    assert_eq!(postcard::from_bytes::<KeyList>(&bytes).unwrap(), list);
                    list.encapsulation = Some(30);
                    let bytes = postcard::to_allocvec(&list).unwrap();
                    assert_eq!(bytes[0], 2);
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
                list.need(both[i].0, both[i].1, 8);
            }
            assert_eq!(list.iter().collect::<Vec<_>>(), both);
        }
    }
}
