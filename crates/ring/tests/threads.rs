//! One call on several threads gives what it gives on one.

#![allow(clippy::unwrap_used)]

use veilformer_ring::conformance::{Samples, test_chain};
use veilformer_ring::{
    Backend, Basis, Cpu, CpuConfig, CpuKey, DiagonalTerm, Form, GaloisElement, GiantStep,
    OutputPlan, PlainPoly, Result, RnsPoly, TransformPlan,
};

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap()
}

/// A ring large enough that every operation is shared out.
struct Setting {
    cpu: Cpu,
    a: (RnsPoly, RnsPoly),
    b: (RnsPoly, RnsPoly),
    rotations: Vec<CpuKey>,
    relin: CpuKey,
    plain: <Cpu as Backend>::Plain,
    drop: Basis,
}

impl Setting {
    fn new() -> Result<Self> {
        let (log_n, q, p) = (15, 7, 3);
        let chain = test_chain(log_n, q, p)?;
        let cpu = Cpu::new(chain.clone(), CpuConfig::default())?;
        let mut s = Samples::new(&chain, 3);
        let basis = Basis::first(q);
        let digits = [Basis::range(0, 3), Basis::range(3, 6), Basis::range(6, 7)];
        let special = Basis::range(q, q + p);
        let mut key = |by: i64| {
            let galois = GaloisElement::rotation(by, log_n);
            cpu.prepare_key(&s.key(galois, &digits, special)?)
        };
        let rotations = [1, 2, 5].map(&mut key).into_iter().collect::<Result<_>>()?;
        let relin = key(0)?;
        let mut pair = || Ok((s.poly(basis, Form::Ntt)?, s.poly(basis, Form::Ntt)?));
        let (a, b) = (pair()?, pair()?);
        let plain = cpu.prepare_plain(&PlainPoly::Dense(s.poly(chain.all(), Form::Ntt)?))?;
        Ok(Self {
            cpu,
            a,
            b,
            rotations,
            relin,
            plain,
            drop: Basis::single(q - 1),
        })
    }

    /// What every operation gives.
    fn all(&self) -> Result<Vec<RnsPoly>> {
        let (cpu, a, b) = (&self.cpu, &self.a, &self.b);
        let keys: Vec<&CpuKey> = self.rotations.iter().collect();
        let mut out = Vec::new();
        let mut put = |pair: (RnsPoly, RnsPoly)| out.extend([pair.0, pair.1]);
        for pair in cpu.rotate_many((&a.0, &a.1), &keys)? {
            put(pair);
        }
        let factors = [((&a.0, &a.1), (&b.0, &b.1)), ((&a.0, &a.0), (&b.1, &b.1))];
        put(cpu.mul_sum_relin(&factors, &self.relin, self.drop)?);
        put(cpu.mul_sum_relin(&factors, keys[0], self.drop)?);
        let terms = [(&a.0, keys[0]), (&a.1, keys[1]), (&b.0, &self.relin)];
        put(cpu.key_switch_sum(Some((&b.0, &b.1)), &terms, self.drop)?);
        let term = |baby: Option<usize>| DiagonalTerm {
            input: 0,
            baby,
            plain: 0,
        };
        let giants = |turned: bool| {
            let babies = [None, Some(0), Some(1)];
            let babies = if turned { &babies[..] } else { &babies[..1] };
            [None, Some(2)].map(|key| GiantStep {
                key,
                terms: babies.iter().map(|b| term(*b)).collect(),
            })
        };
        let plan: TransformPlan<'_, Cpu> = TransformPlan {
            keys,
            plains: vec![&self.plain],
            outputs: [true, false]
                .into_iter()
                .flat_map(|turned| {
                    let giants = || giants(turned).to_vec();
                    [OutputPlan::beside(giants()), OutputPlan::nested(giants())]
                })
                .collect(),
        };
        for pair in cpu.linear_transform(&[(&a.0, &a.1)], &plan, self.drop)? {
            put(pair);
        }
        put(cpu.div_round_pair((&a.0, &b.0), self.drop)?);
        let mut x = cpu.mul(&a.0, &b.0)?;
        cpu.mul_acc(&mut x, &a.1, &b.1)?;
        cpu.add_assign(&mut x, &a.0)?;
        cpu.sub_assign(&mut x, &b.1)?;
        cpu.neg_assign(&mut x)?;
        cpu.mul_scalar_assign(&mut x, &[3, 5, 7, 11, 13, 17, 19])?;
        x = cpu.mul_plain_sum(&[(&x, &self.plain), (&a.0, &self.plain)])?;
        x = cpu.add_plain(&x, &self.plain)?;
        x = cpu.sub(&cpu.add(&x, &a.1)?, &b.0)?;
        let turned = cpu.automorphism(&x, GaloisElement::rotation(3, 15))?;
        let divided = cpu.div_round(&x, Basis::range(5, 7))?;
        let mut coefficients = x.clone();
        cpu.inverse_ntt(&mut coefficients)?;
        let extended = cpu.extend(&coefficients, x.chain().all())?;
        let mut back = coefficients.clone();
        cpu.forward_ntt(&mut back)?;
        assert_eq!(back, x);
        let small = cpu.rescale_rational(&x, Basis::range(4, 7), Basis::range(7, 9))?;
        let mirrored = cpu.automorphism(&coefficients, GaloisElement::rotation(3, 15))?;
        out.extend([x, turned, divided, coefficients, extended, small, mirrored]);
        Ok(out)
    }
}

#[test]
fn every_operation_gives_the_same_on_any_number_of_threads() {
    let setting = Setting::new().unwrap();
    let expected = pool(1).install(|| setting.all()).unwrap();
    for threads in [2, 3, 5] {
        let found = pool(threads).install(|| setting.all()).unwrap();
        for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!(found == expected, "{threads} threads: result {number}");
        }
    }
}

#[test]
fn calls_inside_of_parallel_work_do_not_wait_for_one_another() {
    use rayon::prelude::*;
    let setting = Setting::new().unwrap();
    let expected = pool(1).install(|| setting.all()).unwrap();
    pool(3).install(|| {
        (0..9).into_par_iter().for_each(|_| {
            assert!(setting.all().unwrap() == expected);
        });
    });
    // From threads of no pool, which go through the global one.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert!(setting.all().unwrap() == expected));
        }
    });
}
