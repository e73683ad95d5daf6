//! The floor of a product from its counts.

use veilformer_circuits::matrix::Counts;

use crate::floor::{Floor, Phase};
use crate::machine::Unit;
use crate::scheme::floors::Shape;

/// Bytes of a switching key for inputs of the shape's limbs.
pub(super) fn key_bytes(s: &Shape) -> f64 {
    s.packed_bytes(f64::from(s.halves) * s.d() * (s.l() + s.k()))
}

/// Bytes that the plaintexts of a product take at least: those of rotated inputs are modulo the special primes as
/// well.
pub(super) fn plain_bytes(s: &Shape, c: &Counts) -> f64 {
    let all = (c.plain.total() + c.extended.total()).max(1) as f64;
    let primes = s.l() + s.k() * c.extended.total() as f64 / all;
    f64::from(s.bits) / 8.0 * c.plain_words as f64 * primes
}

/// The floors of the operations one after the other, at the inputs' level. Plaintexts and inputs are read
/// once and outputs written once; what the products read of rotated inputs stays in caches.
pub(super) fn of(s: &Shape, c: &Counts) -> Floor {
    let (n, l, k) = (s.n(), s.l(), s.k());
    let (plain, extended) = (c.plain.total() as f64, c.extended.total() as f64);
    let ciphertexts = |count: usize| s.limb_bytes(2.0 * l * count as f64);
    let read = plain_bytes(s, c) + ciphertexts(c.inputs);
    let products = Phase::new("products")
        .work(
            Unit::MultiplyAccumulate,
            2.0 * n * (plain * l + extended * (l + k)),
            format!("2N ({plain} L + {extended} (L+K))"),
        )
        .work(
            Unit::MultiplyAccumulate,
            4.0 * n * l * c.products as f64,
            format!("4 {} LN", c.products),
        )
        .work(
            Unit::Add,
            2.0 * n * l * c.additions as f64,
            format!("2 {} LN", c.additions),
        )
        .bytes(
            f64::INFINITY,
            (read, ciphertexts(c.outputs)),
            "plaintexts and inputs read, outputs written",
        );
    let near = s.limb_bytes(l);
    let plain_giant = s.decompose(near).then(s.inner_product());
    let parts = [
        (c.decompositions, s.decompose(f64::INFINITY)),
        (c.hoisted, s.inner_product().then(s.mod_down(2.0, 0.0, 1.0))),
        (c.babies, s.inner_product()),
        (
            c.giants,
            s.mod_down(1.0, 0.0, 0.0).then(plain_giant.clone()),
        ),
        (c.plain_giants, plain_giant),
        (c.rotations, s.rotate(1.0)),
        (
            c.relinearizations,
            s.decompose(near)
                .then(s.inner_product())
                .then(s.mod_down(2.0, 1.0, 0.0)),
        ),
        (c.rescales, s.rescale(2.0)),
        (c.divisions, s.mod_down(2.0, 1.0, 0.0)),
    ];
    let parts = parts.into_iter().filter(|(times, _)| *times > 0);
    parts.fold(Floor::of(vec![products]), |floor, (times, part)| {
        floor.then(part.times(times as f64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::round;

    #[test]
    fn floors_count_what_a_product_has() {
        let s = Shape {
            log_n: 3,
            limbs: 2,
            special: 1,
            digit_limbs: 1,
            bits: 64,
            halves: 2,
        };
        let operations = |c: &Counts| of(&s, c).on(&round(), 1).operations;
        let none = Counts::default();
        assert_eq!(operations(&none), 0.0);
        let mut c = none;
        c.plain.dense = 3;
        c.extended.periodic = 5;
        // N = 8: two polynomials on two primes, or on all three.
        assert_eq!(operations(&c), 16.0 * (3.0 * 2.0 + 5.0 * 3.0));
        c.plain_words = 8;
        assert_eq!(plain_bytes(&s, &c), 8.0 * 8.0 * (2.0 + 5.0 / 8.0));
        let rotated = |rotations| Counts { rotations, ..none };
        let one = s.rotate(1.0).on(&round(), 1).operations;
        assert_eq!(operations(&rotated(4)), 4.0 * one);
        // Two digits, pairs on three primes.
        assert_eq!(key_bytes(&s), 2.0 * 2.0 * 3.0 * 64.0);
    }
}
