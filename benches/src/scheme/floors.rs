//! The floors of ring and scheme operations, in counts of the shape.
//!
//! N: ring dimension; L: limbs of the ciphertext; K: special primes; D: digits of at most A limbs;
//! words have 8 bytes where they are not packed. What one phase hands to the next stays where it fits.

use crate::floor::{Floor, Phase};
use crate::machine::Unit;

/// What counts depend on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// log2 of the ring dimension.
    pub log_n: u32,
    /// Limbs of a ciphertext's polynomials.
    pub limbs: usize,
    /// Special primes.
    pub special: usize,
    /// Limbs per digit.
    pub digit_limbs: usize,
    /// Bits of a residue: what it takes at least where its form is free, as in prepared keys and plaintexts.
    pub bits: u32,
    /// Halves of a key that are read, of two: where backends make the uniform one, it is no bytes but work.
    pub halves: u32,
}

/// log2 of the words that a sub-transform in the first cache can have: half of 48 KiB.
const LOG_L1_WORDS: u32 = 12;

impl Shape {
    /// Words of a limb.
    #[must_use]
    pub fn n(&self) -> f64 {
        2f64.powi(self.log_n as i32)
    }

    /// Limbs of a ciphertext's polynomials.
    #[must_use]
    pub fn l(&self) -> f64 {
        self.limbs as f64
    }

    /// Special primes.
    #[must_use]
    pub fn k(&self) -> f64 {
        self.special as f64
    }

    /// Number of digits.
    #[must_use]
    pub fn d(&self) -> f64 {
        self.limbs.div_ceil(self.digit_limbs) as f64
    }

    /// Bytes of so many limbs.
    #[must_use]
    pub fn limb_bytes(&self, limbs: f64) -> f64 {
        8.0 * self.n() * limbs
    }

    /// Bytes of so many limbs of a prepared key or plaintext.
    #[must_use]
    pub fn packed_bytes(&self, limbs: f64) -> f64 {
        self.packed() * self.limb_bytes(limbs)
    }

    /// What a prepared plaintext takes of a polynomial.
    #[must_use]
    pub fn packed(&self) -> f64 {
        f64::from(self.bits) / 64.0
    }

    /// Butterflies of a transform of one limb.
    fn butterflies(&self) -> f64 {
        self.n() / 2.0 * f64::from(self.log_n)
    }

    /// `limbs` transforms, which read and write their limb in as many passes as sub-transforms of
    /// the first cache leave necessary.
    fn ntts(&self, phase: Phase, limbs: f64, text: &str) -> Phase {
        let passes = f64::from(self.log_n.div_ceil(LOG_L1_WORDS));
        let bytes = self.limb_bytes(limbs) * passes;
        phase
            .work(
                Unit::Butterfly,
                limbs * self.butterflies(),
                format!("{text} N/2 log N"),
            )
            .bytes(
                self.limb_bytes(1.0),
                (bytes, bytes),
                format!("{passes} passes of {text} 8N read and written"),
            )
    }

    /// Transforms of `limbs` limbs, in place.
    #[must_use]
    pub fn transforms(&self, limbs: f64, inverse: bool) -> Floor {
        let phase = self.ntts(Phase::new("transform"), limbs, &format!("{limbs}"));
        let bytes = self.limb_bytes(limbs);
        // One limb alone is where its passes are.
        let phase = if limbs > 1.0 {
            phase.bytes(
                bytes,
                (bytes, bytes),
                format!("{limbs} 8N read and written"),
            )
        } else {
            phase
        };
        // A product with 1/N, which a forward transform does not have.
        Floor::of(vec![if inverse {
            phase.work(
                Unit::Multiply,
                limbs * self.n() / 2.0,
                format!("{limbs} N/2"),
            )
        } else {
            phase
        }])
    }

    /// Word by word: `reads` polynomials in, `writes` out, `work` per word of L limbs; `polys` of
    /// them are different ones.
    #[must_use]
    pub fn words(&self, polys: f64, (reads, writes): (f64, f64), work: &[(Unit, f64)]) -> Floor {
        let poly = self.limb_bytes(self.l());
        let mut phase = Phase::new("words").bytes(
            polys * poly,
            (reads * poly, writes * poly),
            format!(
                "{} 8LN read, {writes} 8LN written",
                (100.0 * reads).round() / 100.0
            ),
        );
        // Not in place.
        if polys > reads {
            phase = phase.apart();
        }
        for &(unit, per_word) in work {
            phase = phase.work(
                unit,
                per_word * self.l() * self.n(),
                format!("{per_word} LN"),
            );
        }
        Floor::of(vec![phase])
    }

    /// The same into new polynomials.
    #[must_use]
    pub fn pointwise(&self, (reads, writes): (f64, f64), work: &[(Unit, f64)]) -> Floor {
        self.words(reads + writes, (reads, writes), work)
    }

    /// Coefficients of one polynomial in NTT form, scaled for base conversion.
    fn coefficients(&self, limbs: f64, text: &str, resident: f64) -> Phase {
        let phase = Phase::new("to coefficients");
        let bytes = self.limb_bytes(limbs);
        self.ntts(phase, limbs, text)
            .work(Unit::Multiply, limbs * self.n(), format!("{text} N"))
            .bytes(resident, (bytes, 0.0), format!("{text} 8N read"))
    }

    /// Digits of a polynomial on all primes of Q and P in NTT form (ModUp), ready for products.
    #[must_use]
    pub fn decompose(&self, resident: f64) -> Floor {
        let (n, l, k, d) = (self.n(), self.l(), self.k(), self.d());
        // Digit by digit: own limbs times the limbs that it lacks.
        let (mut macs, mut outputs, mut left) = (0.0, 0.0, self.limbs);
        while left > 0 {
            let own = left.min(self.digit_limbs);
            macs += own as f64 * (l + k - own as f64);
            outputs += l + k - own as f64;
            left -= own;
        }
        let up = Phase::new("convert digits and transform")
            .work(Unit::MultiplyAccumulate, macs * n, "sum of A (L+K-A) N")
            .work(Unit::Reduce, outputs * n, "(D(L+K)-L) N")
            .bytes(self.limb_bytes(l), (self.limb_bytes(l), 0.0), "8LN read");
        let up = self.ntts(up, outputs, "(D(L+K)-L)");
        debug_assert!(outputs == d * (l + k) - l);
        Floor::of(vec![self.coefficients(l, "L", resident), up])
    }

    /// The products of digits that were just made with a key, two results: keys are as large as they are and come
    /// from memory.
    #[must_use]
    pub fn inner_product(&self) -> Floor {
        let (n, all, d) = (self.n(), self.l() + self.k(), self.d());
        let phase = Phase::new("inner product")
            .work(Unit::MultiplyAccumulate, 2.0 * d * all * n, "2D(L+K) N")
            .work(Unit::Reduce, 2.0 * all * n, "2(L+K) N");
        Floor::of(vec![self.key(phase)])
    }

    /// A key: what is read of it, and what is made.
    #[must_use]
    pub fn key(&self, phase: Phase) -> Phase {
        let limbs = self.d() * (self.l() + self.k());
        let phase = phase.bytes(
            f64::INFINITY,
            (self.packed_bytes(f64::from(self.halves) * limbs), 0.0),
            format!("{}D(L+K) {}/8 N of key read", self.halves, self.bits),
        );
        match self.halves {
            1 => phase.work(Unit::UniformWord, limbs * self.n(), "D(L+K) N"),
            _ => phase,
        }
    }

    /// Digits that are read again, for another key than the first.
    #[must_use]
    pub fn digits(&self, phase: Phase) -> Phase {
        let bytes = self.limb_bytes(self.d() * (self.l() + self.k()));
        phase.bytes(bytes, (bytes, 0.0), "D(L+K) 8N of digits read")
    }

    /// Division of `polys` polynomials by P and `dropped` more primes (ModDown), added to what is
    /// read of as many polynomials (`add`).
    #[must_use]
    pub fn mod_down(&self, polys: f64, dropped: f64, add: f64) -> Floor {
        let n = self.n();
        let (from, to) = (self.k() + dropped, self.l() - dropped);
        let coefficients = self.coefficients(
            polys * from,
            &format!("{polys} {from}"),
            self.limb_bytes(polys * from),
        );
        let down = Phase::new("convert from P and transform")
            .work(
                Unit::MultiplyAccumulate,
                polys * from * to * n,
                format!("{polys} {from} {to} N"),
            )
            .work(Unit::Reduce, polys * to * n, format!("{polys} {to} N"))
            .work(Unit::Multiply, polys * to * n, format!("{polys} {to} N"))
            .bytes(
                f64::INFINITY,
                (self.limb_bytes(add * to), self.limb_bytes(polys * to)),
                format!("{add} {to} 8N read, {polys} {to} 8N written"),
            );
        Floor::of(vec![
            coefficients,
            self.ntts(down, polys * to, &format!("{polys} {to}")),
        ])
    }

    /// A rotation, its digits shared by `hoisted`.
    #[must_use]
    pub fn rotate(&self, hoisted: f64) -> Floor {
        let digits = self.decompose(f64::INFINITY);
        let digits = if hoisted > 1.0 {
            digits.shared_by(hoisted)
        } else {
            digits
        };
        digits
            .then(self.inner_product())
            .then(self.mod_down(2.0, 0.0, 1.0))
    }

    /// A product of ciphertexts, relinearized, divided by `dropped` primes.
    #[must_use]
    pub fn multiply(&self, dropped: f64) -> Floor {
        let (n, l) = (self.n(), self.l());
        let tensor = Phase::new("tensor")
            .work(Unit::MultiplyAccumulate, 4.0 * l * n, "4LN")
            .work(Unit::Reduce, 3.0 * l * n, "3LN")
            .bytes(f64::INFINITY, (self.limb_bytes(4.0 * l), 0.0), "4 8LN read");
        Floor::of(vec![tensor])
            .then(self.decompose(self.limb_bytes(l)))
            .then(self.inner_product())
            .then(self.mod_down(2.0, dropped, 0.0))
    }

    /// Division of a ciphertext by its last prime.
    #[must_use]
    pub fn rescale(&self, polys: f64) -> Floor {
        let (n, to) = (self.n(), self.l() - 1.0);
        let first = self.coefficients(polys, &format!("{polys}"), self.limb_bytes(polys));
        let resident = self.limb_bytes(2.0 * polys * to);
        let second = Phase::new("reduce, transform, subtract")
            .work(Unit::Multiply, polys * to * n, format!("{polys} (L-1) N"))
            .bytes(
                resident,
                (self.limb_bytes(polys * to), self.limb_bytes(polys * to)),
                format!("{polys} (L-1) 8N read and written"),
            );
        Floor::of(vec![
            first,
            self.ntts(second, polys * to, &format!("{polys} (L-1)")),
        ])
    }

    /// A linear transform of `babies * giants` diagonals with double hoisting and a rescale.
    #[must_use]
    pub fn linear_transform(&self, babies: f64, giants: f64) -> Floor {
        let (n, all) = (self.n(), self.l() + self.k());
        let diagonals = babies * giants;
        let products = Phase::new("products")
            .work(
                Unit::MultiplyAccumulate,
                2.0 * diagonals * all * n,
                "2 128 (L+K) N",
            )
            .work(Unit::Reduce, 2.0 * giants * all * n, "2 8 (L+K) N")
            .bytes(
                f64::INFINITY,
                (self.packed_bytes(diagonals * all), 0.0),
                format!("128 (L+K) {}/8 N of plaintexts read", self.bits),
            );
        let giant = self
            .mod_down(1.0, 0.0, 0.0)
            .then(self.decompose(self.limb_bytes(self.l())))
            .then(self.inner_product());
        self.decompose(f64::INFINITY)
            .then(self.inner_product().times(babies - 1.0))
            .then(Floor::of(vec![products]))
            .then(giant.times(giants - 1.0))
            .then(self.mod_down(2.0, 1.0, 0.0))
    }

    /// A complex transform of N/2 slots.
    fn embedding(&self) -> Phase {
        let n = self.n();
        Phase::new("embedding")
            .work(
                Unit::ComplexButterfly,
                n / 4.0 * (f64::from(self.log_n) - 1.0),
                "N/4 log(N/2)",
            )
            .bytes(8.0 * n, (8.0 * n, 8.0 * n), "8N read and written")
    }

    /// Slots to a polynomial of L limbs.
    #[must_use]
    pub fn encode(&self) -> Floor {
        let (n, l) = (self.n(), self.l());
        let limbs = Phase::new("reduce and transform")
            .work(Unit::Multiply, l * n, "LN")
            .bytes(f64::INFINITY, (0.0, self.limb_bytes(l)), "8LN written");
        Floor::of(vec![self.embedding(), self.ntts(limbs, l, "L")])
    }

    /// A polynomial of two limbs (coefficients) to slots.
    #[must_use]
    pub fn decode(&self) -> Floor {
        let n = self.n();
        let compose = Phase::new("compose").work(Unit::Multiply, n, "N").bytes(
            self.limb_bytes(2.0),
            (self.limb_bytes(2.0), 0.0),
            "2 8N read",
        );
        Floor::of(vec![compose, self.embedding()])
    }

    /// c0 + c1 s of two limbs, as coefficients.
    #[must_use]
    pub fn decrypt(&self) -> Floor {
        let n = self.n();
        let phase = Phase::new("product and transform")
            .work(Unit::Multiply, 2.0 * n, "2N")
            .work(Unit::Add, 2.0 * n, "2N")
            .bytes(f64::INFINITY, (self.limb_bytes(6.0), 0.0), "6 8N read");
        Floor::of(vec![self.ntts(phase, 2.0, "2")])
    }

    /// Encryption of slots under the secret key; the uniform half is expanded from a seed.
    #[must_use]
    pub fn encrypt_secret(&self) -> Floor {
        let (n, l) = (self.n(), self.l());
        let words = Phase::new("expand, multiply, transform")
            .work(Unit::RandomWord, l * n, "LN")
            .work(Unit::RandomWord, n, "N")
            .work(Unit::Multiply, 2.0 * l * n, "2LN")
            .work(Unit::Add, l * n, "LN")
            .bytes(
                f64::INFINITY,
                (self.limb_bytes(l), self.limb_bytes(l)),
                "8LN of secret read, 8LN written",
            );
        Floor::of(vec![self.embedding(), self.ntts(words, l, "L")])
    }

    /// Encryption of slots under a public key.
    #[must_use]
    pub fn encrypt_public(&self) -> Floor {
        let (n, l) = (self.n(), self.l());
        let words = Phase::new("sample, transform, multiply")
            .work(Unit::RandomWord, 3.0 * n, "3N")
            .work(Unit::Multiply, 3.0 * l * n, "3LN")
            .work(Unit::Add, 2.0 * l * n, "2LN")
            .bytes(
                f64::INFINITY,
                (self.limb_bytes(2.0 * l), self.limb_bytes(2.0 * l)),
                "2 8LN of key read, 2 8LN written",
            );
        Floor::of(vec![self.embedding(), self.ntts(words, 3.0 * l, "3L")])
    }

    /// A switching key with its seed.
    #[must_use]
    pub fn keygen(&self) -> Floor {
        let (n, words) = (self.n(), self.d() * (self.l() + self.k()));
        // Where kernels make no uniform words, they are as any random ones.
        let word = match self.halves {
            1 => Unit::UniformWord,
            _ => Unit::RandomWord,
        };
        let phase = Phase::new("expand, sample, transform, multiply")
            .work(word, words * n, "D(L+K) N")
            .work(Unit::RandomWord, self.d() * n, "DN")
            .work(Unit::Multiply, words * n, "D(L+K) N")
            .work(Unit::Add, 2.0 * words * n, "2D(L+K) N")
            .bytes(
                f64::INFINITY,
                (0.0, self.limb_bytes(words)),
                "D(L+K) 8N written",
            );
        Floor::of(vec![self.ntts(phase, words, "D(L+K)")])
    }

    /// Base conversion of `from` limbs (coefficients) to `to` others.
    #[must_use]
    pub fn convert(&self, from: f64, to: f64) -> Floor {
        let n = self.n();
        let phase = Phase::new("convert")
            .work(Unit::Multiply, from * n, format!("{from} N"))
            .work(
                Unit::MultiplyAccumulate,
                from * to * n,
                format!("{from} {to} N"),
            )
            .work(Unit::Reduce, to * n, format!("{to} N"))
            .bytes(
                self.limb_bytes(2.0 * from + to),
                (self.limb_bytes(2.0 * from), self.limb_bytes(from + to)),
                format!("2 {from} 8N read, ({from} + {to}) 8N written"),
            );
        Floor::of(vec![phase])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::round;

    const TINY: Shape = Shape {
        log_n: 3,
        limbs: 2,
        special: 1,
        digit_limbs: 1,
        bits: 64,
        halves: 2,
    };

    /// Everything fits the first cache or is far below memory's share: counts alone.
    fn operations(floor: &Floor) -> f64 {
        floor.on(&round(), 1).operations
    }

    #[test]
    fn counts_of_a_tiny_ring() {
        // N = 8: a transform has 12 butterflies.
        assert_eq!(operations(&TINY.transforms(2.0, false)), 24.0);
        assert_eq!(operations(&TINY.transforms(2.0, true)), 24.0 + 8.0);
        // Two inverse transforms and their scaling; per digit one limb to two: 2 macs, 2
        // reductions, 2 transforms.
        let decompose = 2.0 * (12.0 + 8.0) + 2.0 * (2.0 * 8.0 + 2.0 * 8.0 + 2.0 * 12.0);
        assert_eq!(operations(&TINY.decompose(0.0)), decompose);
        // Two digits, three primes, two results.
        assert_eq!(operations(&TINY.inner_product()), (12.0 + 6.0) * 8.0);
        // From P: two inverse transforms with scaling, 4 macs, 4 reductions, 4 products, 4
        // transforms.
        let down = 2.0 * (12.0 + 8.0) + 4.0 * (3.0 * 8.0 + 12.0);
        assert_eq!(operations(&TINY.mod_down(2.0, 0.0, 1.0)), down);
        let rotate = decompose + 18.0 * 8.0 + down;
        assert_eq!(operations(&TINY.rotate(1.0)), rotate);
        let hoisted = operations(&TINY.rotate(8.0));
        assert!((hoisted - (rotate - decompose * 7.0 / 8.0)).abs() < 1e-9);
        assert_eq!(
            operations(&TINY.pointwise((2.0, 1.0), &[(Unit::Add, 2.0)])),
            32.0
        );
        assert_eq!(operations(&TINY.convert(2.0, 3.0)), (2.0 + 6.0 + 3.0) * 8.0);
    }

    #[test]
    fn keys_that_are_made_are_work() {
        let made = Shape { halves: 1, ..TINY };
        let key = |s: &Shape| Floor::of(vec![s.key(Phase::new("key"))]);
        // Two digits, three primes.
        assert_eq!(operations(&key(&made)), 6.0 * 8.0);
        assert_eq!(operations(&key(&TINY)), 0.0);
        assert_eq!(key(&made).on(&round(), 1).bytes, 6.0 * 64.0);
        assert_eq!(key(&TINY).on(&round(), 1).bytes, 12.0 * 64.0);
        let digits = Floor::of(vec![TINY.digits(Phase::new("digits"))]);
        assert_eq!(digits.on(&round(), 1).bytes, 6.0 * 64.0);
    }

    #[test]
    fn keys_come_from_memory() {
        // 24 + 8 limbs, three digits: 72 MiB of key of 48 bits at 1 byte per ns, more than all its work.
        let shape = Shape {
            log_n: 16,
            limbs: 24,
            special: 8,
            digit_limbs: 8,
            bits: 48,
            halves: 2,
        };
        let key = 2.0 * 3.0 * 32.0 * 65536.0 * 6.0;
        let floor = shape.inner_product();
        assert_eq!(floor.on(&round(), 1).bytes, key);
        assert!((floor.ms(&round(), 1) - key * 1e-6).abs() < 1e-9);
        // A plaintext takes three quarters of a polynomial.
        let product = shape
            .pointwise((2.0 + shape.packed(), 2.0), &[])
            .on(&round(), 1);
        assert_eq!(product.bytes, 4.75 * 24.0 * 65536.0 * 8.0);
        assert!(product.formula.contains("2.75 8LN read, 2 8LN written"));
        // Counted butterflies of a rotation: 24 + 72 + 16 + 48 transforms.
        let butterflies = 160.0 * 32768.0 * 16.0;
        assert!(operations(&shape.rotate(1.0)) > butterflies);
        // A transform of one limb is two passes over the second cache.
        let one = shape.transforms(1.0, false);
        assert!(
            one.on(&round(), 1)
                .formula
                .contains("2 passes of 1 8N read and written at L2")
        );
    }
}
