//! Every operation of the evaluator, encrypted, against the same operation on slots; and every
//! refusal.
#![allow(clippy::unwrap_used)] // a test's way to fail

mod support;

use support::{ToyClient, assert_close};
use veilformer_ckks::testing::toy_params;
use veilformer_ckks::*;
use veilformer_ring::Cpu;

type Ct = SharedCiphertext<Cpu>;

/// Slot error that no operation here exceeds: scale 2^30, N = 2^10.
const BOUND: f64 = 2e-5;

struct Bench {
    client: ToyClient,
    keys: EvaluationKeys<Cpu>,
}

impl Bench {
    fn new() -> Self {
        let params = toy_params();
        let mut client = ToyClient::new(&params, 1);
        let mut list = KeyList::default();
        list.need(KeyPurpose::Relinearization, 3, &params);
        list.need(KeyPurpose::Conjugation, 2, &params);
        for by in [1, 2, -3, 8, 16] {
            list.need(KeyPurpose::Rotation(by), 3, &params);
        }
        list.need(KeyPurpose::Rotation(5), 1, &params);
        let stored = client.keys(&list);
        let keys = EvaluationKeys::prepare(&params, &client.backend, &stored).unwrap();
        Self { client, keys }
    }

    fn evaluator(&self) -> Evaluator<'_, Cpu> {
        Evaluator::with_encoder(
            self.client.encoder.clone(),
            &self.client.backend,
            &self.keys,
        )
        .unwrap()
    }

    fn encrypted(&mut self, level: usize) -> (Vec<Complex>, Ct) {
        let slots = self.client.random_slots();
        let stored = self
            .client
            .encrypt(&SlotVector::Dense(slots.clone()), level);
        let host = stored.expand(&self.client.params).unwrap();
        let ct = self.evaluator().import(host).unwrap();
        (slots, ct)
    }

    fn check(&self, ct: &Ct, expected: &[Complex], what: &str) {
        let host = ct.export(&self.client.backend).unwrap();
        assert_close(&self.client.decrypt(&host), expected, BOUND, what);
    }
}

fn zip(a: &[Complex], b: &[Complex], f: impl Fn(Complex, Complex) -> Complex) -> Vec<Complex> {
    a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
}

fn turned(a: &[Complex], by: i64) -> Vec<Complex> {
    let mut out = a.to_vec();
    out.rotate_left(by.rem_euclid(a.len() as i64) as usize);
    out
}

#[test]
fn sums_and_plain_products() {
    let mut bench = Bench::new();
    let (x, cx) = bench.encrypted(3);
    let (y, cy) = bench.encrypted(3);
    let params = bench.client.params.clone();
    let ev = &mut bench.evaluator();
    bench.check(
        &ev.add(&cx, &cy).unwrap(),
        &zip(&x, &y, |a, b| a + b),
        "add",
    );
    bench.check(
        &ev.sub(&cx, &cy).unwrap(),
        &zip(&x, &y, |a, b| a - b),
        "sub",
    );
    bench.check(&ev.negate(&cx).unwrap(), &zip(&x, &x, |a, _| -a), "negate");
    let scale = params.scale_at(3);
    for vector in [
        SlotVector::real_constant(-0.75),
        SlotVector::Constant(Complex::new(0.25, -1.5)),
        SlotVector::real_periodic(&[0.5, -1.0, 2.0, 0.0]),
        SlotVector::Dense(y.clone()),
    ] {
        let dense = vector.to_dense(params.slots()).unwrap().into_owned();
        let p = ev.plain(&vector, 3, scale).unwrap();
        let sum = ev.add_plain(&cx, &p).unwrap();
        bench.check(&sum, &zip(&x, &dense, |a, b| a + b), "add_plain");
        let difference = ev.sub_plain(&cx, &p).unwrap();
        bench.check(&difference, &zip(&x, &dense, |a, b| a - b), "sub_plain");
        let product = ev.mul_plain(&cx, &p).unwrap();
        assert!(product.scale().matches(scale.product(scale)));
        let product = ev.rescale(&product).unwrap();
        assert_eq!(
            product.scale(),
            params.scale_at(2),
            "canonical, bit for bit"
        );
        bench.check(&product, &zip(&x, &dense, |a, b| a * b), "mul_plain");
        let low = ev.drop_to(&cx, 1).unwrap();
        let p = ev.plain(&vector, 2, low.scale()).unwrap();
        let sum = ev.add_plain(&low, &p).unwrap();
        bench.check(
            &sum,
            &zip(&x, &dense, |a, b| a + b),
            "plain of a higher level",
        );
    }
}

#[test]
fn products_down_to_level_zero() {
    let mut bench = Bench::new();
    let (x, cx) = bench.encrypted(3);
    let (y, cy) = bench.encrypted(3);
    let params = bench.client.params.clone();
    let ev = &mut bench.evaluator();
    let product = ev.mul(&cx, &cy).unwrap();
    assert_eq!((product.level(), product.scale()), (2, params.scale_at(2)));
    let xy = zip(&x, &y, |a, b| a * b);
    bench.check(&product, &xy, "mul");
    let sum = ev.mul_sum(&[(&cx, &cy), (&cx, &cx), (&cy, &cy)]).unwrap();
    let expected = zip(&x, &y, |a, b| a * b + a * a + b * b);
    bench.check(&sum, &expected, "mul_sum");
    let fourth = ev.square(&product).unwrap();
    let eighth = ev.square(&fourth).unwrap();
    assert_eq!((eighth.level(), eighth.scale()), (0, params.scale_at(0)));
    let expected = zip(&xy, &xy, |a, _| a * a * a * a);
    bench.check(&eighth, &expected, "product at the lowest level");
    assert!(matches!(
        ev.square(&eighth),
        Err(OpsError::OutOfLevels { .. })
    ));
    assert!(matches!(
        ev.rescale(&eighth),
        Err(OpsError::OutOfLevels { .. })
    ));
}

#[test]
fn rotations_and_conjugation() {
    let mut bench = Bench::new();
    let (x, cx) = bench.encrypted(3);
    let slots = bench.client.params.slots() as i64;
    let ev = &mut bench.evaluator();
    let by = [1, 0, 2, -3, slots, 8 - slots];
    for (ct, by) in ev.rotate_many(&cx, &by).unwrap().iter().zip(by) {
        bench.check(ct, &turned(&x, by), "rotate_many");
    }
    let single = ev.rotate(&cx, -3).unwrap();
    let many = ev.rotate_many(&cx, &[2, -3]).unwrap();
    let export = |ct: &Ct| ct.export(&bench.client.backend).unwrap();
    assert!(
        export(&single).c0() == export(&many[1]).c0(),
        "hoisting changes no bit"
    );
    let low = ev.drop_to(&cx, 1).unwrap();
    bench.check(
        &ev.rotate(&low, 5).unwrap(),
        &turned(&x, 5),
        "level-aware key",
    );
    let conjugate = zip(&x, &x, |a, _| a.conj());
    let lower = ev.drop_to(&cx, 2).unwrap();
    bench.check(&ev.conjugate(&lower).unwrap(), &conjugate, "conjugate");
    for missing in [ev.rotate(&cx, 5), ev.rotate(&low, 7), ev.conjugate(&cx)] {
        assert!(matches!(missing, Err(OpsError::MissingKey { .. })));
    }
}

#[test]
fn adjust_and_drop() {
    let mut bench = Bench::new();
    let (x, cx) = bench.encrypted(3);
    let params = bench.client.params.clone();
    let ev = &mut bench.evaluator();
    for level in 0..=3 {
        let ct = ev.adjust(&cx, level).unwrap();
        assert_eq!((ct.level(), ct.scale()), (level, params.scale_at(level)));
        bench.check(&ct, &x, "adjust");
        let dropped = ev.drop_to(&cx, level).unwrap();
        assert_eq!(
            (dropped.level(), dropped.scale()),
            (level, params.scale_at(3))
        );
        bench.check(&dropped, &x, "drop_to");
    }
    let low = ev.drop_to(&cx, 1).unwrap();
    assert!(matches!(
        ev.adjust(&low, 2),
        Err(OpsError::OutOfLevels { .. })
    ));
    assert!(matches!(
        ev.drop_to(&low, 2),
        Err(OpsError::OutOfLevels { .. })
    ));
    let p = ev
        .plain(&SlotVector::real_constant(3.0), 1, low.scale())
        .unwrap();
    let product = ev.mul_plain(&low, &p).unwrap();
    assert!(matches!(
        ev.adjust(&product, 1),
        Err(OpsError::ScaleMismatch { .. })
    ));
}

#[test]
fn linear_transform_matches_its_formula() {
    let mut bench = Bench::new();
    let (x, cx) = bench.encrypted(3);
    let (y, cy) = bench.encrypted(3);
    let params = bench.client.params.clone();
    let scale = params.scale_at(3);
    let mut ev = bench.evaluator();
    let inputs = [&x, &y];
    let mut expected = vec![Complex::default(); params.slots()];
    let mut giants = Vec::new();
    for (g, rotation) in [0i64, 8, 16].into_iter().enumerate() {
        let mut inner = vec![Complex::default(); params.slots()];
        let mut terms = Vec::new();
        for (t, baby) in [0i64, 1, 2, -3].into_iter().enumerate() {
            let input = (g + t) % 2;
            let values: Vec<f64> = (0..8)
                .map(|j| ((j * 7 + t + 3 * g) % 5) as f64 / 8.0)
                .collect();
            let vector = SlotVector::real_periodic(&values);
            for (j, (sum, z)) in inner
                .iter_mut()
                .zip(turned(inputs[input], baby))
                .enumerate()
            {
                *sum += vector.at(j) * z;
            }
            let plain = ev.term_plain(&vector, 3, scale, baby).unwrap();
            terms.push(Term { input, baby, plain });
        }
        expected = zip(&expected, &turned(&inner, rotation), |a, b| a + b);
        giants.push(Giant { rotation, terms });
    }
    let mut transform = Transform { giants };
    let out = Ops::linear_transform(&mut ev, &[&cx, &cy], &transform).unwrap();
    assert_eq!((out.level(), out.scale()), (2, params.scale_at(2)));
    bench.check(&out, &expected, "linear_transform");

    transform.giants[0].terms[0].input = 2;
    let refused = Ops::linear_transform(&mut ev, &[&cx, &cy], &transform);
    assert!(matches!(refused, Err(OpsError::Invalid { .. })));
    transform.giants[0].terms[0].input = 0;
    // A plaintext that does not live on the special primes meets no rotated input.
    transform.giants[0].terms[0].baby = 1;
    let refused = Ops::linear_transform(&mut ev, &[&cx, &cy], &transform);
    assert!(matches!(refused, Err(OpsError::NotExtended { .. })));
    transform.giants[0].terms[0].plain = transform.giants[0].terms[1].plain.clone();
    transform.giants[0].terms[0].baby = 11;
    let refused = Ops::linear_transform(&mut ev, &[&cx, &cy], &transform);
    assert!(matches!(refused, Err(OpsError::MissingKey { .. })));
    transform.giants[0].terms[0].baby = 0;
    transform.giants[0].terms[0].plain = ev
        .plain(&SlotVector::real_constant(1.0), 3, params.scale_at(2))
        .unwrap();
    let refused = Ops::linear_transform(&mut ev, &[&cx, &cy], &transform);
    assert!(matches!(refused, Err(OpsError::ScaleMismatch { .. })));
    transform.giants.clear();
    assert!(Ops::linear_transform(&mut ev, &[&cx, &cy], &transform).is_err());
    assert!(Ops::linear_transform(&mut ev, &[], &transform).is_err());
}

#[test]
fn mismatches_are_errors() {
    let mut bench = Bench::new();
    let (_, cx) = bench.encrypted(3);
    let (_, cy) = bench.encrypted(2);
    let params = bench.client.params.clone();
    let mut stranger = ToyClient::new(&params, 2);
    let foreign = stranger
        .encrypt(&SlotVector::real_constant(1.0), 3)
        .expand(&params)
        .unwrap();
    let ev = &mut bench.evaluator();
    assert!(matches!(
        ev.add(&cx, &cy),
        Err(OpsError::LevelMismatch { .. })
    ));
    assert!(matches!(
        ev.mul(&cx, &cy),
        Err(OpsError::LevelMismatch { .. })
    ));
    let dropped = ev.drop_to(&cx, 2).unwrap();
    assert!(matches!(
        ev.sub(&dropped, &cy),
        Err(OpsError::ScaleMismatch { .. })
    ));
    let p = ev
        .plain(&SlotVector::real_constant(1.0), 2, params.scale_at(2))
        .unwrap();
    assert!(matches!(
        ev.add_plain(&cx, &p),
        Err(OpsError::LevelMismatch { .. })
    ));
    assert!(matches!(
        ev.mul_plain(&cx, &p),
        Err(OpsError::LevelMismatch { .. })
    ));
    assert!(matches!(ev.mul_sum(&[]), Err(OpsError::Invalid { .. })));
    assert!(matches!(ev.import(foreign), Err(OpsError::WrongKey { .. })));
    assert!(
        ev.plain(&SlotVector::real_constant(1.0), 4, params.scale_at(2))
            .is_err()
    );
    assert!(
        ev.plain(&SlotVector::real_constant(1e40), 3, params.scale_at(2))
            .is_err()
    );
    let other = testing::tiny_params();
    let keys = EvaluationKeys::<Cpu>::empty(&other, bench.client.key_id);
    assert!(Evaluator::new(&params, &bench.client.backend, &keys).is_err());
}

#[test]
fn threads_share_one_evaluator() {
    let mut bench = Bench::new();
    let (x, cx) = bench.encrypted(3);
    let evaluator = bench.evaluator();
    let expected: Vec<_> = [1, 2, -3, 8].map(|by| turned(&x, by)).into();
    let found: Vec<Ct> = std::thread::scope(|scope| {
        let handles: Vec<_> = [1, 2, -3, 8]
            .map(|by| {
                let (evaluator, cx) = (&evaluator, &cx);
                scope.spawn(move || evaluator.rotate_many(cx, &[by]).unwrap().remove(0))
            })
            .into();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap())
            .collect()
    });
    for (ct, expected) in found.iter().zip(&expected) {
        bench.check(ct, expected, "rotated on another thread");
    }
}
