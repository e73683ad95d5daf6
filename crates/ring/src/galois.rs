//! Galois elements and the permutations that they are in NTT order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Result, RingError};
use crate::kernels::{LOW_LOG, PermutationPiece};
use crate::ntt::bit_reverse;
use serde::{Deserialize, Serialize};

/// An automorphism `X -> X^g` of `Z[X]/(X^N+1)`: an odd `g` below `2N`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GaloisElement(u64);

impl GaloisElement {
    /// A checked element.
    ///
    /// # Errors
    /// [`RingError::BadGalois`] if `g` is even or at least `2N`.
    pub fn new(g: u64, log_n: u32) -> Result<Self> {
        if g % 2 == 1 && log_n < 63 && g >> (log_n + 1) == 0 {
            Ok(Self(g))
        } else {
            Err(RingError::BadGalois { value: g, log_n })
        }
    }

    /// The identity, `g = 1`.
    pub const fn identity() -> Self {
        Self(1)
    }

    /// Complex conjugation of all slots, `g = 2N - 1`.
    pub const fn conjugation(log_n: u32) -> Self {
        Self((1 << (log_n + 1)) - 1)
    }

    /// Rotation of the slots by `by` positions to the left, `g = 5^by mod 2N`. Any integer is
    /// taken modulo the number of slots `N/2`.
    pub fn rotation(by: i64, log_n: u32) -> Self {
        let slots = 1i64 << log_n.saturating_sub(1);
        let mask = (1u64 << (log_n + 1)) - 1;
        let (mut e, mut base, mut acc) = (by.rem_euclid(slots), 5u64, 1u64);
        while e != 0 {
            if e & 1 == 1 {
                acc = acc.wrapping_mul(base) & mask;
            }
            base = base.wrapping_mul(base) & mask;
            e >>= 1;
        }
        Self(acc & mask)
    }

    /// The exponent `g`.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// Whether this is `g = 1`.
    pub const fn is_identity(self) -> bool {
        self.0 == 1
    }

    /// The inverse modulo `2N`.
    #[must_use]
    pub const fn inverse(self, log_n: u32) -> Self {
        let mut inv = self.0;
        let mut i = 0;
        while i < 5 {
            inv = inv.wrapping_mul(2u64.wrapping_sub(self.0.wrapping_mul(inv)));
            i += 1;
        }
        Self(inv & ((1 << (log_n + 1)) - 1))
    }

    /// First `self`, then `other` (they commute).
    #[must_use]
    pub const fn compose(self, other: Self, log_n: u32) -> Self {
        Self(self.0.wrapping_mul(other.0) & ((1 << (log_n + 1)) - 1))
    }

    /// Whether the element is valid for this degree.
    pub(crate) fn check(self, log_n: u32) -> Result<()> {
        Self::new(self.0, log_n).map(|_| ())
    }
}

/// The permutation of NTT values that an automorphism is: `out[j] = in[source(j)]`.
///
/// In bit-reversed order aligned blocks go to aligned blocks, and inside a block of eight the
/// order depends on three bits only: one word per block and eight lane orders are the whole table.
#[derive(Clone)]
pub(crate) struct Permutation {
    /// Per block of eight: `source block << 3 | lane order`.
    pub(crate) blocks: Vec<u32>,
    /// The same table by source: `target block << 3 | lane order`.
    targets: Vec<u32>,
    /// The eight lane orders.
    pub(crate) lanes: [[u64; 8]; 8],
    /// Words of the pieces below.
    piece: usize,
    /// Source piece `i` goes to piece `target[i]`.
    target: Vec<usize>,
}

impl Permutation {
    pub(crate) fn new(g: GaloisElement, log_n: u32) -> Self {
        let n = 1u64 << log_n;
        let rev3 = |x: u64| bit_reverse(x, 3);
        let mut lanes = [[0; 8]; 8];
        for (c, order) in lanes.iter_mut().enumerate() {
            for (lane, src) in order.iter_mut().enumerate() {
                // Lane l of a block adds rev3(l) to the top three bits of (e-1)/2, where e is the
                // exponent of psi; the automorphism multiplies that by g.
                *src = rev3((c as u64 + g.0 * rev3(lane as u64)) % 8);
            }
        }
        let blocks: Vec<u32> = (0..n / 8)
            .map(|b| {
                let e = 2 * bit_reverse(8 * b, log_n) + 1;
                let half = (g.0.wrapping_mul(e) & (2 * n - 1)) >> 1;
                let top = half >> (log_n - 3);
                let source = bit_reverse(half, log_n) >> 3;
                (source << 3 | top) as u32
            })
            .collect();
        let mut targets = vec![0; blocks.len()];
        for (b, &from) in blocks.iter().enumerate() {
            targets[(from >> 3) as usize] = (b as u32) << 3 | from & 7;
        }
        let piece = 1usize << LOW_LOG.min(log_n);
        let mut target = vec![0; (n as usize) / piece];
        for (i, first) in blocks.iter().step_by(piece / 8).enumerate() {
            let source = (first >> 3) as usize * 8 / piece;
            target[source] = i;
        }
        Self {
            blocks,
            targets,
            lanes,
            piece,
            target,
        }
    }

    /// The whole permutation.
    pub(crate) fn whole(&self) -> PermutationPiece<'_> {
        PermutationPiece {
            blocks: &self.blocks,
            base: 0,
            lanes: &self.lanes,
        }
    }

    /// The word from which word `target` comes.
    pub(crate) fn source(&self, target: u32) -> u32 {
        let entry = self.blocks[(target / 8) as usize];
        let lane = self.lanes[(entry & 7) as usize][(target % 8) as usize];
        (entry >> 3) * 8 + lane as u32
    }

    /// Where source piece `i` (of `2^LOW_LOG` words, or all) goes, and how.
    pub(crate) fn of_piece(&self, i: usize) -> (usize, PermutationPiece<'_>) {
        let (target, chunks) = (self.target[i], self.piece / 8);
        let blocks = &self.blocks[target * chunks..(target + 1) * chunks];
        (
            target,
            PermutationPiece {
                blocks,
                base: i * chunks,
                lanes: &self.lanes,
            },
        )
    }

    /// The part of the permutation that makes words `target * words ..` (`words` a power of two,
    /// at least eight, at most N): the aligned block of as many words that it reads, and how.
    pub(crate) fn piece_for(&self, target: usize, words: usize) -> (usize, PermutationPiece<'_>) {
        let chunks = words / 8;
        let blocks = &self.blocks[target * chunks..(target + 1) * chunks];
        let source = (blocks[0] >> 3) as usize / chunks;
        let piece = PermutationPiece {
            blocks,
            base: source * chunks,
            lanes: &self.lanes,
        };
        (source, piece)
    }

    /// Where words `source * words ..` (as many as in `piece_for`) go: in the order of reading.
    pub(crate) fn piece_from(&self, source: usize, words: usize) -> PermutationPiece<'_> {
        let chunks = words / 8;
        let blocks = &self.targets[source * chunks..(source + 1) * chunks];
        PermutationPiece {
            blocks,
            base: (blocks[0] >> 3) as usize / chunks * chunks,
            lanes: &self.lanes,
        }
    }

    /// Per block of `words` words that is read the block that it goes to.
    pub(crate) fn block_targets(&self, words: usize) -> Vec<usize> {
        let count = 8 * self.blocks.len() / words;
        let mut targets = vec![0; count];
        for target in 0..count {
            targets[self.piece_for(target, words).0] = target;
        }
        targets
    }
}

/// Tables that are kept of one ring: 4 MiB of them at `N = 2^16`.
const MOST_KEPT: usize = 64;

/// The permutations that were last asked for, of one ring.
#[derive(Default)]
pub(crate) struct Permutations(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// Each with the number of the call that asked for it last.
    tables: BTreeMap<GaloisElement, (u64, Arc<Permutation>)>,
    calls: u64,
}

impl Permutations {
    /// The permutation of `g`; made outside the lock if it is not kept, perhaps by several threads.
    pub(crate) fn get(&self, g: GaloisElement, log_n: u32) -> Arc<Permutation> {
        if let Some(p) = self.kept(|kept| kept.find(g)) {
            return p;
        }
        let new = Arc::new(Permutation::new(g, log_n));
        self.kept(|kept| kept.keep(g, &new));
        new
    }

    fn kept<T>(&self, f: impl FnOnce(&mut Kept) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Kept {
    fn find(&mut self, g: GaloisElement) -> Option<Arc<Permutation>> {
        self.calls += 1;
        let (last, p) = self.tables.get_mut(&g)?;
        *last = self.calls;
        Some(p.clone())
    }

    /// Keeps one more; if they are too many, the one goes that nobody asked for the longest.
    fn keep(&mut self, g: GaloisElement, p: &Arc<Permutation>) {
        self.tables.insert(g, (self.calls, p.clone()));
        if self.tables.len() > MOST_KEPT {
            let oldest = self.tables.iter().min_by_key(|(_, (last, _))| *last);
            if let Some(g) = oldest.map(|(g, _)| *g) {
                self.tables.remove(&g);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_are_kept_and_the_oldest_goes() {
        let kept = Permutations::default();
        let element = |by: usize| GaloisElement::rotation(by as i64, 10);
        let first = kept.get(element(0), 10);
        for by in 1..MOST_KEPT {
            kept.get(element(by), 10);
        }
        // Asked for again, the first one is not the oldest any more.
        assert!(Arc::ptr_eq(&first, &kept.get(element(0), 10)));
        let second = kept.get(element(1), 10);
        kept.get(element(MOST_KEPT), 10);
        assert!(Arc::ptr_eq(&first, &kept.get(element(0), 10)));
        assert!(Arc::ptr_eq(&second, &kept.get(element(1), 10)));
        let has = |by| kept.kept(|kept| kept.tables.contains_key(&element(by)));
        assert!(!has(2) && has(3) && has(MOST_KEPT));
        assert_eq!(kept.kept(|kept| kept.tables.len()), MOST_KEPT);
        for by in [0, 3, MOST_KEPT] {
            let new = Permutation::new(element(by), 10);
            assert_eq!(kept.get(element(by), 10).blocks, new.blocks);
        }
    }
}
