//! Evaluation keys that are kept small: seeded, composed, of few levels; and what pairing two real
//! vectors takes.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Cursor, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use common::*;
use veilformer_ckks::container::{self, KeyFile};
use veilformer_ckks::{
    CkksError, Complex, EvaluationKeys, Evaluator, Giant, KeyList, KeyPurpose, Ops, OpsError,
    Params, SharedCiphertext, SlotVector, StoredEvaluationKeys, Term, Transform, pairing,
};
use veilformer_ring::{Backend, Cpu, CpuKey};
use veilformer_secret::KeyGenerator;

fn stored(params: &Params, kit: &Kit, rotations: &[i64]) -> StoredEvaluationKeys {
    let mut list = KeyList::default();
    let top = params.max_level();
    list.need(KeyPurpose::Relinearization, top, params);
    list.need(KeyPurpose::Conjugation, top, params);
    for &by in rotations {
        list.need(KeyPurpose::Rotation(by), top, params);
    }
    let mut generator = KeyGenerator::insecure_deterministic_for_tests(params, 99).unwrap();
    let go_on = &mut |_, _| ControlFlow::Continue(());
    generator
        .evaluation_keys(&kit.secret, &list, [0; 32], go_on)
        .unwrap()
}

fn seeded(params: &Params, stored: StoredEvaluationKeys, resident: usize) -> EvaluationKeys<Cpu> {
    let mut keys = EvaluationKeys::empty(params, stored.key_id);
    for key in stored.keys {
        keys.insert_seeded(params, key).unwrap();
    }
    keys.keep_resident(resident);
    keys
}

/// Everything that takes a key.
fn results(ops: &mut Evaluator<'_, Cpu>, ct: &SharedCiphertext<Cpu>) -> Vec<SharedCiphertext<Cpu>> {
    let mut all = ops.rotate_many(ct, &[1, 0, 2, 1]).unwrap();
    all.push(ops.conjugate(ct).unwrap());
    all.push(ops.mul(ct, ct).unwrap());
    let (level, scale) = (ct.level(), ct.scale());
    let slots = SlotVector::real_constant(0.5);
    let terms = [0, 1].map(|baby| Term {
        input: 0,
        baby,
        plain: ops.term_plain(&slots, level, scale, baby).unwrap(),
    });
    let giant = Giant {
        rotation: 2,
        terms: terms.to_vec(),
    };
    let transform = Transform {
        giants: vec![giant],
    };
    all.push(ops.linear_transform(&[ct], &transform).unwrap());
    all
}

#[test]
fn seeded_keys_do_what_prepared_keys_do() {
    let params = toy(8);
    let kit = Kit::new(&params, 1, &[]);
    let made = || stored(&params, &kit, &[1, 2]);
    let prepared = EvaluationKeys::prepare(&params, &kit.backend, &made()).unwrap();
    let mut ops = Evaluator::new(&params, &kit.backend, &prepared).unwrap();
    let x = slots(7, params.slots());
    for level in [params.max_level(), 1, 2] {
        let ct = kit.encrypt(3, &x, level);
        let expected = results(&mut ops, &ct);
        for resident in [0, 1, 10] {
            let keys = seeded(&params, made(), resident);
            assert_eq!((keys.len(), keys.security().rows.len()), (4, 4));
            let mut ops = Evaluator::new(&params, &kit.backend, &keys).unwrap();
            for _ in 0..2 {
                let found = results(&mut ops, &ct);
                for (a, b) in found.iter().zip(&expected) {
                    assert!(a.parts() == b.parts() && a.info() == b.info());
                }
            }
        }
    }
}

/// The same keys in a file.
fn file_of(params: &Params, stored: &StoredEvaluationKeys) -> std::fs::File {
    let bytes = container::evaluation_keys_to_bytes(params, stored).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    file
}

#[test]
fn keys_on_disk_do_what_prepared_keys_do() {
    let params = toy(8);
    let kit = Kit::new(&params, 1, &[]);
    let made = stored(&params, &kit, &[1, 2]);
    let prepared = EvaluationKeys::prepare(&params, &kit.backend, &made).unwrap();
    let mut expected = Vec::new();
    let x = slots(7, params.slots());
    let levels = [params.max_level(), 1, 2];
    for level in levels {
        let mut ops = Evaluator::new(&params, &kit.backend, &prepared).unwrap();
        expected.push(results(&mut ops, &kit.encrypt(3, &x, level)));
    }
    let file = Arc::new(KeyFile::open(file_of(&params, &made), &params).unwrap());
    for (resident, ahead) in [(0, 0), (1, 1), (0, 2), (2, 3), (1, 10)] {
        let mut keys = EvaluationKeys::empty(&params, made.key_id);
        for index in 0..file.header().keys.len() {
            keys.insert_from_file(&params, &file, index).unwrap();
        }
        assert!(keys.insert_from_file(&params, &file, 4).is_err());
        assert_eq!(keys.security(), prepared.security());
        keys.keep_resident(resident);
        keys.read_ahead(&params, ahead).unwrap();
        // The order is learnt in the first round.
        for _ in 0..3 {
            for (level, expected) in levels.iter().zip(&expected) {
                let mut ops = Evaluator::new(&params, &kit.backend, &keys).unwrap();
                let found = results(&mut ops, &kit.encrypt(3, &x, *level));
                for (a, b) in found.iter().zip(expected) {
                    assert!(a.parts() == b.parts() && a.info() == b.info());
                }
            }
        }
    }
    let other = KeyGenerator::insecure_deterministic_for_tests(&params, 2)
        .unwrap()
        .secret_key();
    let mut keys = EvaluationKeys::<Cpu>::empty(&params, other.unwrap().id());
    let refused = keys.insert_from_file(&params, &file, 0).unwrap_err();
    assert!(matches!(refused, CkksError::WrongKey { .. }), "{refused}");
}

#[test]
fn several_threads_read_ahead() {
    let params = toy(8);
    let kit = Kit::new(&params, 1, &[]);
    let mut keys = seeded(&params, stored(&params, &kit, &[1, 2]), 1);
    keys.read_ahead(&params, 2).unwrap();
    let ct = kit.encrypt(3, &slots(7, params.slots()), 3);
    let run = || {
        results(
            &mut Evaluator::new(&params, &kit.backend, &keys).unwrap(),
            &ct,
        )
    };
    let expected = run();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let found = run();
                    let mut both = found.iter().zip(&expected);
                    assert!(both.all(|(a, b)| a.parts() == b.parts()));
                }
            });
        }
    });
}

#[test]
fn damaged_key_files_are_refused() {
    let params = toy(7);
    let kit = Kit::new(&params, 1, &[]);
    let made = stored(&params, &kit, &[1]);
    let bytes = container::evaluation_keys_to_bytes(&params, &made).unwrap();
    let open = |bytes: &[u8], params: &Params| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        KeyFile::open(file, params).map(|_| ())
    };
    open(&bytes, &params).unwrap();
    for at in (0..bytes.len()).step_by(997).chain([bytes.len() - 1]) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        assert!(open(&damaged, &params).is_err(), "byte {at}");
        assert!(open(&bytes[..at], &params).is_err(), "{at} bytes");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(open(&longer, &params).is_err());
    assert!(open(&bytes, &toy(8)).is_err());
    let secret = kit.secret.to_bytes().unwrap();
    let refused = open(&secret, &params).unwrap_err().to_string();
    assert!(refused.contains("secret"), "{refused}");
}

/// A file that is whole, its digest included, but whose head was changed: another version, kind,
/// watermark or parameters, reserved bytes, lengths.
#[test]
fn key_files_of_another_head_are_refused() {
    let params = toy(7);
    let kit = Kit::new(&params, 1, &[]);
    let bytes = container::evaluation_keys_to_bytes(&params, &stored(&params, &kit, &[1])).unwrap();
    let open = |at: usize, bits: u8| {
        let mut changed = bytes.clone();
        changed[at] ^= bits;
        let body = changed.len() - blake3::OUT_LEN;
        let digest = blake3::hash(&changed[..body]);
        changed[body..].copy_from_slice(digest.as_bytes());
        KeyFile::open(Cursor::new(changed), &params).map(|_| ())
    };
    open(0, 0).unwrap();
    let sections = u32::from_le_bytes(bytes[48..52].try_into().unwrap()) as usize;
    assert!(sections >= 3);
    for (at, why) in [
        (0, "no Veilformer file"),
        (8, "version"),
        (12, "expected evaluation keys"),
        (14, "other parameters"),
        (16, "other parameters"),
        (48, "file"),
        (52, "unknown flags"),
        (56, "file"),
        (68, "add up"),
        (72, "add up"),
        // Tags of the list and of the last key.
        (80, "KEYS"),
        (64 + 16 * (sections - 1), "announced"),
    ] {
        let refused = open(at, 1).unwrap_err().to_string();
        assert!(refused.contains(why), "byte {at}: {refused}");
    }
}

#[test]
fn as_many_seeded_keys_stay_prepared_as_are_allowed() {
    let params = toy(7);
    let kit = Kit::new(&params, 1, &[]);
    let mut keys = seeded(&params, stored(&params, &kit, &[1, 2]), 1);
    let get = |keys: &EvaluationKeys<Cpu>, purpose, level| {
        let key = keys.get(&params, &kit.backend, (purpose, level));
        key.unwrap()
    };
    let [one, two] = [1, 2].map(KeyPurpose::Rotation);
    let first = get(&keys, one, 3).unwrap();
    assert_eq!(first.level(), 3);
    // The same at its level and below, another above it.
    assert!(Arc::ptr_eq(&first, &get(&keys, one, 3).unwrap()));
    assert!(Arc::ptr_eq(&first, &get(&keys, one, 0).unwrap()));
    let higher = get(&keys, one, 4).unwrap();
    assert!(!Arc::ptr_eq(&first, &higher));
    assert!(Arc::ptr_eq(&higher, &get(&keys, one, 3).unwrap()));
    // Another key takes the only place; of two places the one used last stays.
    get(&keys, two, 3);
    assert!(!Arc::ptr_eq(&higher, &get(&keys, one, 4).unwrap()));
    keys.keep_resident(2);
    let (a, b) = (get(&keys, one, 3).unwrap(), get(&keys, two, 3).unwrap());
    assert!(Arc::ptr_eq(&a, &get(&keys, one, 3).unwrap()));
    get(&keys, KeyPurpose::Conjugation, 1);
    assert!(Arc::ptr_eq(&a, &get(&keys, one, 3).unwrap()));
    assert!(!Arc::ptr_eq(&b, &get(&keys, two, 3).unwrap()));
    keys.keep_resident(0);
    let none = get(&keys, one, 3).unwrap();
    assert!(!Arc::ptr_eq(&none, &get(&keys, one, 3).unwrap()));
    let missing = KeyPurpose::Rotation(3);
    assert!(get(&keys, missing, 0).is_none());
    assert!(get(&keys, one, params.max_level() + 1).is_none());
}

/// A key for a level has the limbs of that level and P, and as many digits as they make.
#[test]
fn keys_have_no_limbs_that_are_not_used() {
    let params = toy(7);
    let kit = Kit::new(&params, 1, &[]);
    let mut generator = KeyGenerator::insecure_deterministic_for_tests(&params, 5).unwrap();
    let special = params.special().len();
    for level in 0..=params.max_level() {
        let limbs = level + 1 + special;
        let digits = params.digits_at(KeyPurpose::Relinearization, level).len();
        let bytes = |digits| {
            let basis = params.rotation_basis(level);
            CpuKey::bytes_of(params.chain(), kit.backend.isa(), basis, digits).unwrap()
        };
        let made = generator.rotation(&kit.secret, 1, level).unwrap();
        assert_eq!(made.b.len(), digits);
        assert!(made.b.iter().all(|b| b.basis().len() == limbs));
        let prepared = EvaluationKeys::prepare_one(&params, &kit.backend, &made).unwrap();
        assert_eq!(prepared.key().bytes(), bytes(digits));
        // A key for the highest level, expanded for this one.
        let whole = generator.rotation(&kit.secret, 1, params.max_level());
        let cut = whole.unwrap().expand_at(&params, level).unwrap();
        let cut = kit.backend.prepare_key(&cut).unwrap();
        assert_eq!(cut.bytes(), bytes(digits));
        assert!(made.expand_at(&params, level + 1).is_err());
    }
}

#[test]
fn rotations_are_composed_when_that_is_asked_for() {
    let params = toy(7);
    let kit = Kit::new(&params, 2, &[1, 5]);
    let x = slots(9, params.slots());
    let ct = kit.encrypt(1, &x, 2);
    let plain = kit.evaluator();
    let composing = kit.evaluator().composing_rotations(4);
    let by = [0, 1, 5, 2, 3, 7, 12, 4, 1, -54];
    let rotated = composing.rotate_many(&ct, &by).unwrap();
    for (rotated, &by) in rotated.iter().zip(&by) {
        let error = max_error(&kit.decrypt(rotated), &rotate(&x, by));
        assert!(error < 2f64.powi(-22), "by {by}: {error:e}");
    }
    let sum = composing.rotate_sum(&ct, &[1, 7]).unwrap();
    let turned = rotate(&x, 1).into_iter().zip(rotate(&x, 7));
    let expected: Vec<Complex> = x.iter().zip(turned).map(|(x, (a, b))| x + a + b).collect();
    assert!(max_error(&kit.decrypt(&sum), &expected) < 2f64.powi(-20));
    // One key switch after the other, and no other.
    let one = plain.rotate_many(&ct, &[1]).unwrap();
    let six = plain.rotate_many(&one[0], &[5]).unwrap();
    let found = composing.rotate_many(&ct, &[6]).unwrap();
    assert!(found[0].parts() == six[0].parts());
    let missing = |ops: &Evaluator<'_, Cpu>, by| {
        let refused = ops.rotate_many(&ct, &[by]);
        matches!(refused, Err(OpsError::MissingKey { purpose, .. })
            if purpose == KeyPurpose::Rotation(by))
    };
    assert!(missing(&plain, 6));
    assert!(missing(&composing, 19), "that takes seven");
    // Keys of lower levels do not count.
    let mut list = KeyList::default();
    list.need(KeyPurpose::Rotation(1), 1, &params);
    let mut generator = KeyGenerator::insecure_deterministic_for_tests(&params, 3).unwrap();
    let go_on = &mut |_, _| ControlFlow::Continue(());
    let low = generator.evaluation_keys(&kit.secret, &list, [0; 32], go_on);
    let low = EvaluationKeys::prepare(&params, &kit.backend, &low.unwrap()).unwrap();
    let low = Evaluator::new(&params, &kit.backend, &low).unwrap();
    assert!(missing(&low.composing_rotations(4), 2));
}

#[test]
fn two_real_vectors_ride_as_one() {
    let params = toy(8);
    let kit = Kit::new(&params, 4, &[3]);
    let mut ops = kit.evaluator();
    let top = params.max_level();
    let part = |seed| -> Vec<f64> { slots(seed, params.slots()).iter().map(|z| z.re).collect() };
    let (x, y) = (part(1), part(2));
    let SlotVector::Dense(both) = pairing::halves(&x, &y).unwrap() else {
        panic!("dense parts make a dense vector");
    };
    assert!(pairing::halves(&x, &y[1..]).is_err());
    let ct = kit.encrypt(1, &both, top);
    // What acts on real and imaginary parts alike.
    let turned = ops.rotate(&ct, 3).unwrap();
    let (re, im) = pairing::split(&mut ops, &turned).unwrap();
    assert_eq!((re.level(), re.scale()), (top, ct.scale()));
    let complex =
        |part: &[f64]| -> Vec<Complex> { part.iter().map(|&x| Complex::new(x, 0.0)).collect() };
    let tolerance = 2f64.powi(-24);
    assert!(max_error(&kit.decrypt(&re), &rotate(&complex(&x), 3)) < tolerance);
    assert!(max_error(&kit.decrypt(&im), &rotate(&complex(&y), 3)) < tolerance);
    let joined = pairing::join(&mut ops, &re, &im).unwrap();
    assert_eq!((joined.level(), joined.scale()), (top, ct.scale()));
    let expected = zip(&complex(&x), &complex(&y), |x, y| x + Complex::i() * y);
    assert!(max_error(&kit.decrypt(&joined), &rotate(&expected, 3)) < tolerance);
}
