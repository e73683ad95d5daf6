//! poulpy-ckks on its AVX-512 IFMA backend, behind the line protocol of the benches.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::time::Instant;

use poulpy_ckks::api::{CKKSAddOps, CKKSModuleInfos, CKKSMulOps, CKKSRotateOps};
use poulpy_ckks::test_suite::helpers::{
    alloc_ct, alloc_scratch, ckks_decrypt_decode, ckks_encrypt, gen_atk, gen_sk_with_raw, gen_tsk,
    test_vector_1,
};
use poulpy_ckks::test_suite::reference_encoder::ReferenceEncoder;
use poulpy_ckks::test_suite::{BASE52_PARAMS_F64, CKKSTestParams};
use poulpy_cpu_avx512::{FFT64Avx512EncodingTable, NTT3x42Ifma, NTT3x42IfmaRayon};
use poulpy_hal::api::ScratchOwnedBorrow;
use poulpy_hal::layouts::{HostBytesBackend, Module};
use serde_json::{Value, json};

/// Bits of a digit of its representation.
const DIGIT_BITS: usize = 52;
const SECRET_WEIGHT: usize = 192;
const OPS: [&str; 7] = [
    "add",
    "multiply_relinearize_rescale",
    "rotate",
    "encrypt",
    "decrypt_decode",
    "keygen_relinearization",
    "keygen_rotation",
];

/// The next line's command and the rest of the line; `None` at the end.
fn next_line() -> Option<(String, String)> {
    let line = std::io::stdin().lock().lines().next()?.ok()?;
    let (command, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    (command != "quit").then(|| (command.to_owned(), rest.to_owned()))
}

fn answer(value: &Value) {
    println!("{value}");
    let _ = std::io::stdout().flush();
}

/// Median of the repetitions, in milliseconds.
fn timed<T>(repeats: usize, mut run: impl FnMut() -> T) -> f64 {
    let mut times: Vec<f64> = (0..repeats)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(run());
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    0.5 * (times[(repeats - 1) / 2] + times[repeats / 2])
}

/// Sets up on one backend (they share no trait that would take them all) and answers until the end.
macro_rules! serve {
    ($backend:ty, $parameters:expr) => {{
        let number = |key: &str| $parameters[key].as_u64().unwrap_or(0) as usize;
        // As many bits as RNS libraries with a first prime of 60 bits have.
        let bits = 60 + (number("limbs") - 1) * number("scale");
        let digits = bits / DIGIT_BITS / number("dnum");
        let p = CKKSTestParams {
            n: 1 << number("log_n"),
            base2k: DIGIT_BITS,
            k: bits,
            hw: SECRET_WEIGHT,
            dsize: digits,
            ..BASE52_PARAMS_F64
        };
        let module = Module::<$backend>::new(p.n as u64);
        let host = Module::<HostBytesBackend>::new(p.n as u64);
        let encoder = ReferenceEncoder::<FFT64Avx512EncodingTable>::new::<f64>(p.n / 2).unwrap();
        let (re, im) = test_vector_1::<f64>(p.n / 2);
        let (raw, secret) = gen_sk_with_raw(&p, &module, &host, [7; 32]);
        let mut scratch = alloc_scratch(&p, &module);
        let tensor = gen_tsk(&p, &module, &raw, &mut scratch.borrow());
        let galois = module.ckks_galois_element(1);
        let key = gen_atk(&p, &module, galois, &raw, &mut scratch.borrow());
        let keys = HashMap::from([(galois, key)]);
        let mut encrypt = || {
            ckks_encrypt(&p, &module, &host, &encoder, &secret, p.k, &re, &im, &mut scratch.borrow())
        };
        let (a, b) = (encrypt(), encrypt());
        let asked = $parameters["ops"].as_array().cloned().unwrap_or_default();
        let known: Vec<&Value> = asked
            .iter()
            .filter(|op| op.as_str().is_some_and(|op| OPS.contains(&op)))
            .collect();
        let note = format!("not RNS: {bits} bits in digits of {digits} x 52; secret of weight 192");
        answer(&json!({"ops": known, "note": note}));
        while let Some((command, rest)) = next_line() {
            let (op, repeats) = rest.split_once(' ').unwrap_or(("", ""));
            let repeats: usize = repeats.parse().unwrap_or(1).max(1);
            if command != "run" {
                answer(&json!({"error": format!("no command {command}")}));
                continue;
            }
            let mut out = alloc_ct(&p, &module, p.k);
            let ms = match op {
                "add" => timed(repeats, || {
                    module.ckks_add_into(&mut out, &a, &b, &mut scratch.borrow()).unwrap()
                }),
                "multiply_relinearize_rescale" => timed(repeats, || {
                    module.ckks_mul_into(&mut out, &a, &b, &tensor, &mut scratch.borrow()).unwrap()
                }),
                "rotate" => timed(repeats, || {
                    module.ckks_rotate_into(1, &mut out, &a, &keys, &mut scratch.borrow()).unwrap()
                }),
                "encrypt" => timed(repeats, || {
                    let scratch = &mut scratch.borrow();
                    ckks_encrypt(&p, &module, &host, &encoder, &secret, p.k, &re, &im, scratch)
                }),
                "decrypt_decode" => timed(repeats, || {
                    let scratch = &mut scratch.borrow();
                    ckks_decrypt_decode::<_, f64, _>(&p, &module, &encoder, &a, &secret, scratch)
                }),
                "keygen_relinearization" => timed(repeats, || {
                    gen_tsk(&p, &module, &raw, &mut scratch.borrow())
                }),
                "keygen_rotation" => timed(repeats, || {
                    gen_atk(&p, &module, galois, &raw, &mut scratch.borrow())
                }),
                _ => {
                    answer(&json!({"error": format!("no operation {op}")}));
                    continue;
                }
            };
            answer(&json!({"ms": ms}));
        }
    }};
}

fn main() {
    let Some((command, rest)) = next_line() else {
        return;
    };
    let parameters: Value = match serde_json::from_str(&rest) {
        Ok(value) if command == "setup" => value,
        _ => return answer(&json!({"error": "expected setup and its parameters"})),
    };
    if parameters["threads"].as_u64() == Some(1) {
        serve!(NTT3x42Ifma, parameters);
    } else {
        serve!(NTT3x42IfmaRayon, parameters);
    }
}
