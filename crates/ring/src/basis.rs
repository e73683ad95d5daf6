//! Sets of prime indices: a polynomial lives on an arbitrary *basis*, never on "level k".

use serde::{Deserialize, Serialize};

/// A set of prime indices (0..128) of a [`Chain`](crate::Chain).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Basis(u128);

impl Basis {
    /// The largest number of primes in a chain.
    pub const MAX: usize = 128;

    /// The empty set.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// The set `{i}`; empty if `i >= 128`.
    pub const fn single(i: usize) -> Self {
        if i < Self::MAX { Self(1 << i) } else { Self(0) }
    }

    /// The set `{0, .., n-1}`, cut at 128.
    pub const fn first(n: usize) -> Self {
        if n >= Self::MAX {
            Self(u128::MAX)
        } else {
            Self((1 << n) - 1)
        }
    }

    /// The half-open range `{a, .., b-1}`, cut at 128.
    pub const fn range(a: usize, b: usize) -> Self {
        Self(Self::first(b).0 & !Self::first(a).0)
    }

    /// The set of the given indices; those of 128 and more are ignored.
    pub fn from_indices(indices: &[usize]) -> Self {
        indices
            .iter()
            .fold(Self::empty(), |b, &i| b.union(Self::single(i)))
    }

    /// All elements of either.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The elements of `self` that are not in `other`.
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The common elements.
    pub const fn intersect(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether `i` is an element.
    pub const fn contains(self, i: usize) -> bool {
        i < Self::MAX && (self.0 >> i) & 1 == 1
    }

    /// Whether `other` is a subset.
    pub const fn contains_all(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Whether no element is common.
    pub const fn is_disjoint(self, other: Self) -> bool {
        self.0 & other.0 == 0
    }

    /// Number of elements.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The elements in ascending order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = usize> + Clone {
        Elements(self)
    }

    /// The largest element.
    pub const fn highest(self) -> Option<usize> {
        if self.0 == 0 {
            None
        } else {
            Some(127 - self.0.leading_zeros() as usize)
        }
    }

    /// The smallest element.
    const fn lowest(self) -> Option<usize> {
        if self.0 == 0 {
            None
        } else {
            Some(self.0.trailing_zeros() as usize)
        }
    }

    /// The rank of `i` among the elements: the position of its limb in a polynomial.
    pub const fn position_of(self, i: usize) -> Option<usize> {
        if self.contains(i) {
            Some(Self::first(i).intersect(self).len())
        } else {
            None
        }
    }
}

/// What is left of a set. Constants of a limb go through small sets hundreds of times: each step
/// takes an element, and none looks for one.
#[derive(Clone)]
struct Elements(Basis);

impl Elements {
    fn take(&mut self, i: Option<usize>) -> Option<usize> {
        self.0 = self.0.minus(i.map_or(Basis::empty(), Basis::single));
        i
    }
}

impl Iterator for Elements {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.take(self.0.lowest())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.len(), Some(self.0.len()))
    }
}

impl DoubleEndedIterator for Elements {
    fn next_back(&mut self) -> Option<usize> {
        self.take(self.0.highest())
    }
}

impl std::fmt::Display for Basis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("primes {")?;
        let (mut i, mut sep) = (0, "");
        while i < Self::MAX {
            if self.contains(i) {
                let start = i;
                while self.contains(i + 1) {
                    i += 1;
                }
                if i == start {
                    write!(f, "{sep}{i}")?;
                } else {
                    write!(f, "{sep}{start}..={i}")?;
                }
                sep = ", ";
            }
            i += 1;
        }
        f.write_str("}")
    }
}
