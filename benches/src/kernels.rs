//! The ring's kernels against their floors, driven through the backend's calls.
//!
//! The kernels themselves are private to the ring. Each case here is a call in which one kernel does
//! (almost) all the work, on one limb that stays in the second cache or on all limbs of a ciphertext;
//! what callers pay for allocation and for choosing the kernel is in the figure, as it is in every
//! program.

use std::hint::black_box;
use std::time::{Duration, Instant};

use veilformer_ckks::Params;
use veilformer_ring::conformance::Samples;
use veilformer_ring::{
    Backend, Basis, Chain, Cpu, CpuConfig, CpuKey, DiagonalTerm, Expander, ExpanderId, Form,
    GaloisElement, GiantStep, OutputPlan, PlainPoly, RnsPoly, Stream, TransformPlan, UniformHalf,
    ntt_primes_near,
};

use crate::error::Result;
use crate::floor::{Floor, Phase};
use crate::interleave::{Case, median_ms};
use crate::machine::Unit;
use crate::scheme::floors::Shape;
use crate::scheme::{shape, transform_case};

/// A kernel: name, floor, case.
pub type Kernel<'a> = (String, Floor, Case<'a>);

/// Baby steps whose time is taken together.
const STEPS: usize = 8;

/// Names without the place, and what each is.
pub const ALL: [(&str, &str); 13] = [
    ("ntt_forward", "NTT, per limb"),
    ("ntt_inverse", "inverse NTT, per limb"),
    ("add", "a += b, per limb"),
    ("multiply", "a b into a new polynomial, per limb"),
    ("multiply_add", "c += a b, per limb"),
    (
        "plaintext_multiply_sum",
        "a p + b p with a prepared plaintext, into a new polynomial, per limb",
    ),
    ("multiply_scalar", "a *= constant, per limb"),
    ("permute", "automorphism of all limbs in NTT form"),
    ("convert_digit", "base conversion of one digit to Q and P"),
    ("mod_down", "division of a polynomial on Q and P by P"),
    ("rescale", "division of a polynomial by its last prime"),
    (
        "rescale_mixed",
        "the same by a prime of 50 bits that others of 40 lie below, as in EvalMod",
    ),
    (
        "baby_step",
        "inner product of digits and key, permuted, times a plaintext",
    ),
];

/// Words and transforms come on one limb and on all.
pub const PLACES: [&str; 2] = ["hot", "swept"];

/// The names of all kernels and what each is.
#[must_use]
pub fn names() -> Vec<(String, String)> {
    let placed = |(name, text): (&str, &str)| {
        let places: &[&str] = if text.ends_with("per limb") {
            &PLACES
        } else {
            &[]
        };
        if places.is_empty() {
            return vec![(name.to_owned(), text.to_owned())];
        }
        let one = |place: &&str| (format!("{name}_{place}"), format!("{text}, {place}"));
        places.iter().map(one).collect()
    };
    ALL.into_iter().flat_map(placed).collect()
}

/// All kernels on a ring.
///
/// # Errors
/// The ring's.
pub fn kernels<'a>(params: &Params, cpu: &'a Cpu) -> Result<Vec<Kernel<'a>>> {
    let all = params.basis_at(params.max_level());
    let shape = shape(params, cpu.isa());
    let mut list = Vec::new();
    for (place, basis) in PLACES.into_iter().zip([Basis::single(1), all]) {
        let shape = Shape {
            limbs: basis.len(),
            ..shape
        };
        let limbs = shape.l();
        for (name, inverse) in [("ntt_forward", false), ("ntt_inverse", true)] {
            let case = transform_case(cpu, basis, inverse)?;
            let floor = shape.transforms(limbs, inverse).shared_by(limbs);
            list.push(named(&format!("{name}_{place}"), floor, case));
        }
        list.extend(words(cpu, basis, &shape, place)?);
    }
    list.extend(conversions(params, cpu, &shape)?);
    list.push(baby_step(params, cpu, &shape)?);
    Ok(list)
}

fn named<'a>(name: &str, floor: Floor, mut case: Case<'a>) -> Kernel<'a> {
    name.clone_into(&mut case.name);
    (name.to_owned(), floor, case)
}

/// Kernels that go once through words: sums and products. Times are per limb.
fn words<'a>(cpu: &'a Cpu, basis: Basis, shape: &Shape, place: &str) -> Result<Vec<Kernel<'a>>> {
    let chain = cpu.chain();
    let mut samples = Samples::new(chain, 3);
    let mut poly = || samples.poly(basis, Form::Ntt);
    let (a, b) = (poly()?, poly()?);
    let plain = cpu.prepare_plain(&PlainPoly::Dense(poly()?))?;
    let factors: Vec<u64> = basis.iter().map(|i| chain.modulus(i).value() / 3).collect();
    let limbs = shape.l();
    let per_limb = |mut once: Box<dyn FnMut() -> Result<()> + Send + 'a>| Case {
        name: String::new(),
        run: Box::new(move |repeats| {
            let ms = median_ms(repeats, || {
                let start = Instant::now();
                once()?;
                Ok(start.elapsed())
            })?;
            Ok(ms / limbs)
        }),
    };
    let floor = |polys: f64, traffic, work: &[(Unit, f64)]| {
        shape.words(polys, traffic, work).shared_by(limbs)
    };
    let (mut x, y) = (a.clone(), b.clone());
    let add = per_limb(Box::new(move || Ok(cpu.add_assign(&mut x, &y)?)));
    let (x, y) = (a.clone(), b.clone());
    let multiply = per_limb(Box::new(move || {
        black_box(cpu.mul(&x, &y)?);
        Ok(())
    }));
    let (mut x, y, z) = (b.clone(), a.clone(), b.clone());
    let accumulate = per_limb(Box::new(move || Ok(cpu.mul_acc(&mut x, &y, &z)?)));
    let (x, y) = (b.clone(), a.clone());
    let plaintext = per_limb(Box::new(move || {
        black_box(cpu.mul_plain_sum(&[(&x, &plain), (&y, &plain)])?);
        Ok(())
    }));
    let mut x = b;
    let scalar = per_limb(Box::new(move || {
        Ok(cpu.mul_scalar_assign(&mut x, &factors)?)
    }));
    let product = (Unit::Multiply, 1.0);
    let sum = (Unit::Add, 1.0);
    Ok([
        ("add", floor(2.0, (2.0, 1.0), &[sum]), add),
        ("multiply", floor(3.0, (2.0, 1.0), &[product]), multiply),
        (
            "multiply_add",
            floor(3.0, (3.0, 1.0), &[product, sum]),
            accumulate,
        ),
        (
            "plaintext_multiply_sum",
            floor(
                3.0 + shape.packed(),
                (2.0 + shape.packed(), 1.0),
                &[product, product, sum],
            ),
            plaintext,
        ),
        (
            "multiply_scalar",
            floor(1.0, (1.0, 1.0), &[product]),
            scalar,
        ),
    ]
    .into_iter()
    .map(|(name, floor, case)| named(&format!("{name}_{place}"), floor, case))
    .collect())
}

/// What works on all limbs at once: automorphisms, base conversion, divisions.
fn conversions<'a>(params: &Params, cpu: &'a Cpu, shape: &Shape) -> Result<Vec<Kernel<'a>>> {
    let chain = cpu.chain();
    let mut samples = Samples::new(chain, 5);
    let q = params.basis_at(params.max_level());
    let special = params.special();
    let Some(&digit) = params.digits().first() else {
        return Ok(Vec::new());
    };
    let own = digit.len() as f64;
    let source = samples.poly(digit, Form::Coefficient)?;
    let extend = Case::timed("extend", move || {
        black_box(cpu.extend(&source, chain.all())?);
        Ok(())
    });
    let source = samples.poly(chain.all(), Form::Ntt)?;
    let mod_down = Case::timed("mod_down", move || {
        black_box(cpu.div_round(&source, special)?);
        Ok(())
    });
    let source = samples.poly(q, Form::Ntt)?;
    let last = Basis::single(params.max_level());
    let rescale = Case::timed("rescale", move || {
        black_box(cpu.div_round(&source, last)?);
        Ok(())
    });
    let mixed = rescale_mixed(cpu, q.len())?;
    let source = samples.poly(q, Form::Ntt)?;
    let g = GaloisElement::rotation(1, chain.log_n());
    let permute = Case::timed("permute", move || {
        black_box(cpu.automorphism(&source, g)?);
        Ok(())
    });
    let to = shape.l() + shape.k() - own;
    Ok(vec![
        named("permute", shape.pointwise((1.0, 1.0), &[]), permute),
        named("convert_digit", shape.convert(own, to), extend),
        named("mod_down", shape.mod_down(1.0, 0.0, 1.0), mod_down),
        named("rescale", shape.rescale(1.0), rescale),
        named("rescale_mixed", shape.rescale(1.0), mixed),
    ])
}

/// A rescale of so many limbs on a chain of its own, whose last prime is far longer than the others.
fn rescale_mixed<'a>(cpu: &Cpu, limbs: usize) -> Result<Case<'a>> {
    let log_n = cpu.chain().log_n();
    let mut primes = ntt_primes_near(2f64.powi(40), log_n, &[], limbs.saturating_sub(1))?;
    primes.extend(ntt_primes_near(
        2f64.powi(50) - 2f64.powi(30),
        log_n,
        &primes,
        1,
    )?);
    let chain = Chain::new(log_n, &primes)?;
    let source = Samples::new(&chain, 5).poly(chain.all(), Form::Ntt)?;
    let cpu = Cpu::new(chain, CpuConfig { isa: cpu.isa() })?;
    let last = Basis::single(limbs.saturating_sub(1));
    Ok(Case::timed("rescale_mixed", move || {
        black_box(cpu.div_round(&source, last)?);
        Ok(())
    }))
}

/// One rotated input of a linear transform that is hoisted twice: the inner product of digits and
/// key, permuted, times a plaintext, added. It is the difference between transforms of [`STEPS`] + 1
/// baby steps and of one, which have everything else in common.
fn baby_step<'a>(params: &Params, cpu: &'a Cpu, shape: &Shape) -> Result<Kernel<'a>> {
    let chain = cpu.chain();
    let mut samples = Samples::new(chain, 7);
    let q = params.basis_at(params.max_level());
    let keys: Vec<CpuKey> = (1..=STEPS as i64 + 1)
        .map(|by| {
            let g = GaloisElement::rotation(by, chain.log_n());
            let mut key = samples.key(g, params.digits(), params.special())?;
            // As keys are sent.
            for (digit, (_, a)) in (0..).zip(&mut key.parts) {
                *a = UniformHalf::Seeded {
                    expander: Expander::new(ExpanderId::Aes128, [7; 32]),
                    stream: Stream { digit, part: 2 },
                };
            }
            cpu.prepare_key(&key)
        })
        .collect::<veilformer_ring::Result<_>>()?;
    let plain = cpu.prepare_plain(&PlainPoly::Dense(samples.poly(chain.all(), Form::Ntt)?))?;
    let input: [RnsPoly; 2] = [samples.poly(q, Form::Ntt)?, samples.poly(q, Form::Ntt)?];
    let transform = move |steps: usize| -> Result<Duration> {
        let term = |baby| DiagonalTerm {
            input: 0,
            baby: Some(baby),
            plain: 0,
        };
        let plan = TransformPlan {
            keys: keys.iter().collect(),
            plains: vec![&plain],
            outputs: vec![OutputPlan::beside(vec![GiantStep {
                key: None,
                terms: (0..steps).map(term).collect(),
            }])],
        };
        let start = Instant::now();
        black_box(cpu.linear_transform(&[(&input[0], &input[1])], &plan, Basis::empty())?);
        Ok(start.elapsed())
    };
    let case = Case {
        name: String::new(),
        run: Box::new(move |repeats| {
            median_ms(repeats, || {
                let more = transform(STEPS + 1)?;
                Ok(more.saturating_sub(transform(1)?) / STEPS as u32)
            })
        }),
    };
    let (n, all, d) = (shape.n(), shape.l() + shape.k(), shape.d());
    let phase = Phase::new("inner product, permuted, times a plaintext")
        .work(
            Unit::MultiplyAccumulate,
            2.0 * (d + 1.0) * all * n,
            "2(D+1)(L+K) N",
        )
        .work(Unit::Reduce, 2.0 * all * n, "2(L+K) N");
    let phase = shape.digits(shape.key(phase));
    Ok(named("baby_step", Floor::of(vec![phase]), case))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::Sizes;
    use std::collections::BTreeSet;
    use veilformer_ring::Isa;

    #[test]
    fn every_kernel_runs_and_has_a_floor() {
        let params = Sizes::params(10, 4, 2, 40).unwrap();
        let cpu = Cpu::new(params.chain().clone(), CpuConfig { isa: Isa::Scalar }).unwrap();
        let machine = crate::machine::tests::round();
        let list = kernels(&params, &cpu).unwrap();
        let listed: BTreeSet<String> = names().into_iter().map(|n| n.0).collect();
        assert_eq!(listed, list.iter().map(|k| k.0.clone()).collect());
        for (name, floor, mut case) in list {
            assert_eq!(case.name, name);
            // The difference of two times may be nothing on a busy machine.
            assert!((case.run)(1).unwrap() >= 0.0, "{name}");
            assert!(floor.ms(&machine, 1) > 0.0, "{name}");
        }
    }
}
