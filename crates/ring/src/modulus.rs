//! Word-sized prime moduli below 2^50 and the search for NTT primes.

use crate::error::{Result, RingError};

/// Every prime of this crate is below `2^MAX_MODULUS_BITS`; AVX-512 IFMA multiplies 52-bit words
/// and the NTT works lazily in `[0, 4q)`.
pub const MAX_MODULUS_BITS: u32 = 50;

/// A constant factor together with its Shoup quotient `floor(w * 2^52 / q)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShoupConst {
    /// The factor, canonical.
    pub w: u64,
    /// `floor(w * 2^52 / q)`.
    pub quotient: u64,
}

/// An odd prime below 2^50 with the constants that its arithmetic needs.
///
/// Arguments of the arithmetic are canonical (`< q`) unless said otherwise; results always are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modulus {
    q: u64,
    bits: u32,
    /// `floor(2^(2 bits) / q)`.
    barrett: u64,
    /// `q^-1 mod 2^52`.
    inv52: u64,
    /// `2^52 mod q`.
    r1: ShoupConst,
    /// See [`Modulus::times_in`].
    times_in: u64,
    /// See [`Modulus::top_quotient`].
    top_quotient: u64,
}

/// How many of a prime's bits stay when a value is cut short for its quotient, see [`Modulus::top_quotient`].
pub(crate) const TOP_BITS: u32 = 9;

impl Modulus {
    /// A modulus from an odd prime below 2^50.
    ///
    /// # Errors
    /// [`RingError::BadModulus`] if `q` is 2, composite, or too large.
    pub fn new(q: u64) -> Result<Self> {
        if q >> MAX_MODULUS_BITS != 0 {
            return Err(RingError::BadModulus {
                value: q,
                reason: "it is not below 2^50",
            });
        }
        if q < 3 || !is_prime(q) {
            return Err(RingError::BadModulus {
                value: q,
                reason: "it is not an odd prime",
            });
        }
        let bits = 64 - q.leading_zeros();
        let barrett = ((1u128 << (2 * bits)) / u128::from(q)) as u64;
        // Newton iteration doubles the number of correct low bits each time; 5 -> 80 bits.
        let mut inv = q;
        for _ in 0..5 {
            inv = inv.wrapping_mul(2u64.wrapping_sub(q.wrapping_mul(inv)));
        }
        // Kernels want these for every piece of their work, and divisions of double words are slow.
        let of_power = |exponent: u32| ((1u128 << exponent) / u128::from(q)) as u64;
        let r1 = ((1u128 << 52) % u128::from(q)) as u64;
        let shoup_r1 = ShoupConst {
            w: r1,
            quotient: ((u128::from(r1) << 52) / u128::from(q)) as u64,
        };
        Ok(Self {
            q,
            bits,
            barrett,
            inv52: inv & ((1 << 52) - 1),
            r1: shoup_r1,
            times_in: of_power(52),
            top_quotient: of_power(52 + bits.saturating_sub(TOP_BITS)),
        })
    }

    /// The prime.
    #[inline]
    pub fn value(&self) -> u64 {
        self.q
    }

    /// Its bit length.
    #[inline]
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// `q^-1 mod 2^52`, for Montgomery reduction with radix 2^52.
    #[inline]
    pub(crate) fn inv52(&self) -> u64 {
        self.inv52
    }

    /// `floor(2^52 / q)`: the Shoup quotient of 1.
    #[inline]
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    pub(crate) fn times_in(&self) -> u64 {
        self.times_in
    }

    /// `floor(2^(52 + bits - TOP_BITS) / q)`, below `2^(53 - TOP_BITS)`.
    #[inline]
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    pub(crate) fn top_quotient(&self) -> u64 {
        self.top_quotient
    }

    /// `a + b mod q`.
    #[inline]
    pub fn add(&self, a: u64, b: u64) -> u64 {
        let s = a + b;
        s.min(s.wrapping_sub(self.q))
    }

    /// `a - b mod q`.
    #[inline]
    pub fn sub(&self, a: u64, b: u64) -> u64 {
        let d = a.wrapping_sub(b);
        d.min(d.wrapping_add(self.q))
    }

    /// `-a mod q`.
    #[inline]
    pub fn neg(&self, a: u64) -> u64 {
        if a == 0 { 0 } else { self.q - a }
    }

    /// `a * b mod q` (Barrett).
    #[inline]
    pub fn mul(&self, a: u64, b: u64) -> u64 {
        let x = u128::from(a) * u128::from(b);
        let t = (x >> (self.bits - 1)) as u64;
        let quot = ((u128::from(t) * u128::from(self.barrett)) >> (self.bits + 1)) as u64;
        let r = (x as u64).wrapping_sub(quot.wrapping_mul(self.q));
        let r = r.min(r.wrapping_sub(self.q));
        r.min(r.wrapping_sub(self.q))
    }

    /// The Shoup form of a canonical constant.
    #[inline]
    pub fn shoup(&self, w: u64) -> ShoupConst {
        ShoupConst {
            w,
            quotient: ((u128::from(w) << 52) / u128::from(self.q)) as u64,
        }
    }

    /// `a * w mod q` for any `a < 2^52`.
    #[inline]
    pub fn mul_shoup(&self, a: u64, w: ShoupConst) -> u64 {
        let r = self.mul_shoup_lazy(a, w);
        r.min(r.wrapping_sub(self.q))
    }

    /// `a * w mod q` in `[0, 2q)` for any `a < 2^52`.
    #[inline]
    pub(crate) fn mul_shoup_lazy(&self, a: u64, w: ShoupConst) -> u64 {
        let quot = ((u128::from(a) * u128::from(w.quotient)) >> 52) as u64;
        a.wrapping_mul(w.w).wrapping_sub(quot.wrapping_mul(self.q))
    }

    /// `a^e mod q`.
    pub fn pow(&self, a: u64, mut e: u64) -> u64 {
        let (mut base, mut acc) = (a, self.reduce(1));
        while e != 0 {
            if e & 1 == 1 {
                acc = self.mul(acc, base);
            }
            base = self.mul(base, base);
            e >>= 1;
        }
        acc
    }

    /// `a^-1 mod q`, or `None` for zero.
    pub fn inv(&self, a: u64) -> Option<u64> {
        (a != 0).then(|| self.pow(a, self.q - 2))
    }

    /// `a mod q` of any word.
    #[inline]
    pub fn reduce(&self, a: u64) -> u64 {
        a % self.q
    }

    /// `a mod q` of any double word.
    #[inline]
    pub fn reduce_u128(&self, a: u128) -> u64 {
        (a % u128::from(self.q)) as u64
    }

    /// The residue of a signed word.
    #[inline]
    pub fn from_i64(&self, a: i64) -> u64 {
        let r = self.reduce(a.unsigned_abs());
        if a < 0 { self.neg(r) } else { r }
    }

    /// The residue of a signed double word.
    #[inline]
    pub fn from_i128(&self, a: i128) -> u64 {
        let r = self.reduce_u128(a.unsigned_abs());
        if a < 0 { self.neg(r) } else { r }
    }

    /// The representative in `[-(q-1)/2, (q-1)/2]`.
    #[inline]
    pub fn center(&self, a: u64) -> i64 {
        if a > self.q / 2 {
            a as i64 - self.q as i64
        } else {
            a as i64
        }
    }

    /// `2^52 mod q` as a constant: multiplying by it enters Montgomery form.
    #[inline]
    pub(crate) fn mont_one(&self) -> ShoupConst {
        self.r1
    }

    /// Leaves Montgomery form.
    #[inline]
    pub(crate) fn leave_mont(&self, a: u64) -> u64 {
        let t = (a.wrapping_mul(self.inv52)) & ((1 << 52) - 1);
        let high = ((u128::from(t) * u128::from(self.q)) >> 52) as u64;
        self.neg(high)
    }

    /// `a * 2^52 mod q`: Montgomery form with radix 2^52.
    #[inline]
    pub(crate) fn to_mont(&self, a: u64) -> u64 {
        self.mul_shoup(a, self.r1)
    }
}

/// Whether `n` is prime (deterministic Miller-Rabin: the first twelve primes as bases decide every
/// 64-bit integer, Sorenson and Webster 2015).
pub fn is_prime(n: u64) -> bool {
    const BASES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
    if n < 2 {
        return false;
    }
    for p in BASES {
        if n.is_multiple_of(p) {
            return n == p;
        }
    }
    let mul = |a: u64, b: u64| (u128::from(a) * u128::from(b) % u128::from(n)) as u64;
    let s = (n - 1).trailing_zeros();
    let d = (n - 1) >> s;
    'bases: for a in BASES {
        let (mut x, mut base, mut e) = (1, a, d);
        while e != 0 {
            if e & 1 == 1 {
                x = mul(x, base);
            }
            base = mul(base, base);
            e >>= 1;
        }
        if x == 1 || x == n - 1 {
            continue;
        }
        for _ in 1..s {
            x = mul(x, x);
            if x == n - 1 {
                continue 'bases;
            }
        }
        return false;
    }
    true
}

/// The `count` largest NTT primes (`q = 1 mod 2^(log_n+1)`) below `limit`, the largest first, of at most 50 bits and not
/// in `exclude`.
///
/// # Errors
/// [`RingError::BadDegree`] or [`RingError::NotEnoughPrimes`].
pub fn ntt_primes_below(limit: u64, log_n: u32, exclude: &[u64], count: usize) -> Result<Vec<u64>> {
    if !(3..=17).contains(&log_n) {
        return Err(RingError::BadDegree { log_n });
    }
    let step = 1u64 << (log_n + 1);
    let limit = limit.min(1 << MAX_MODULUS_BITS);
    // Candidates are 1 + k*step.
    let candidates = (1..limit.saturating_sub(1).div_ceil(step)).rev();
    let primes = candidates.map(|k| k * step + 1);
    let primes = primes.filter(|q| !exclude.contains(q) && is_prime(*q));
    let found: Vec<u64> = primes.take(count).collect();
    match found.len() {
        n if n == count => Ok(found),
        n => Err(RingError::NotEnoughPrimes {
            found: n,
            wanted: count,
            target: limit as f64,
            log_n,
        }),
    }
}

/// The `count` NTT primes (`q = 1 mod 2^(log_n+1)`) closest to `target`, nearest first, below
/// 2^50 and not in `exclude`. Equal distances prefer the smaller prime.
///
/// # Errors
/// [`RingError::BadDegree`] or [`RingError::NotEnoughPrimes`].
pub fn ntt_primes_near(target: f64, log_n: u32, exclude: &[u64], count: usize) -> Result<Vec<u64>> {
    if !(3..=17).contains(&log_n) {
        return Err(RingError::BadDegree { log_n });
    }
    let limit = 1u64 << MAX_MODULUS_BITS;
    let step = 1u64 << (log_n + 1);
    let mut found = Vec::new();
    let none = |found: usize| RingError::NotEnoughPrimes {
        found,
        wanted: count,
        target,
        log_n,
    };
    if !(target >= 2.0 && target < limit as f64) {
        return Err(none(0));
    }
    let center = target.round() as u64;
    // Candidates are 1 + k*step: `down` walks below the target, `up` above.
    let mut down = Some((center / step) * step + 1).filter(|&c| c > 1);
    let mut up = (center / step + 1) * step + 1;
    if let Some(d) = down.filter(|&d| d > center) {
        up = d;
        down = d.checked_sub(step).filter(|&d| d > 1);
    }
    while found.len() < count {
        let next = match down {
            Some(d) if up >= limit || center - d <= up - center => {
                down = d.checked_sub(step).filter(|&d| d > 1);
                d
            }
            _ if up < limit => {
                up += step;
                up - step
            }
            _ => return Err(none(found.len())),
        };
        if next < limit && !exclude.contains(&next) && is_prime(next) {
            found.push(next);
        }
    }
    Ok(found)
}
