//! One bootstrapping preset of poulpy-ckks: `poulpy-bootstrap PRESET ROUNDS THREADS` prints a report
//! (benches/peers/README.md).

use std::collections::HashMap;
use std::time::Instant;

use poulpy_ckks::api::{
    CKKSBootstrappingCIOps, CKKSBootstrappingOps, CKKSDecryptOps, CKKSEncodingHostOps,
    CKKSEncryptOps,
};
use poulpy_ckks::layouts::{
    BootstrappingContextPrepared, CKKSCiphertextAlloc, CKKSPlaintextAlloc, EvalModRing,
};
use poulpy_ckks::presets::bootstrapping::{
    BootstrappingPreset, n16_d35_k685_p19_s2c_ffr_ci, n16_d35_k733_p20_s2c,
};
use poulpy_ckks::test_suite::presets::{CIBackend, preset_for_backend};
use poulpy_ckks::{CKKSInfos, GLWEPlaintextMeta, Scale, SetCKKSInfos, SlotsKind};
use poulpy_core::api::{
    GLWEAutomorphismKeyPreparedFactory, GLWESecretPreparedFactory, GLWESecretSampling,
};
use poulpy_core::layouts::{GGLWEInfos, GLWESecretAlloc, LWEInfos, SetK};
use poulpy_cpu_avx512::{NTT3x42CIIfma, NTT3x42Ifma, NTT3x42IfmaRayon};
use poulpy_hal::api::{ScratchOwnedAlloc, ScratchOwnedBorrow};
use poulpy_hal::layouts::{Module, ScratchOwned};
use poulpy_hal::source::Source;
use serde_json::{Map, Value, json};

/// Room above the scale when a result is decoded, in bits.
const HEADROOM: usize = 8;
/// Room for encryption and decryption, in bytes.
const CLIENT_SCRATCH: usize = 1 << 30;

/// What the slots hold; magnitudes of both parts up to 1.
const KINDS: [&str; 4] = ["random", "constant", "signs", "replicated"];
const PERIOD: usize = 128;

/// Multiples of 2^-20, from splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014).
struct Values(u64);

impl Values {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn uniform(&mut self) -> f64 {
        ((self.next() >> 43) as f64 - f64::from(1 << 20)) / f64::from(1 << 20)
    }

    fn of(&mut self, kind: &str, slots: usize) -> Vec<f64> {
        let period = if kind == "replicated" { PERIOD } else { slots };
        let one = |values: &mut Self| match kind {
            "constant" => 1.0,
            "signs" => values.uniform().signum(),
            _ => values.uniform(),
        };
        let block: Vec<f64> = (0..period).map(|_| one(self)).collect();
        block.into_iter().cycle().take(slots).collect()
    }
}

/// Seconds of all threads; the kernel counts in hundredths.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |s| s.1);
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// The most memory that was resident, in bytes.
fn peak_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<f64>().ok());
    1024.0 * kib.unwrap_or(0.0)
}

/// Bytes of a key as it is stored, 8 per coefficient.
fn bytes_of(key: &(impl GGLWEInfos + LWEInfos)) -> usize {
    let parts = key.rank_in().as_usize() * (key.rank_out().as_usize() + 1);
    8 * key.n().as_usize() * key.dnum().as_usize() * key.size() * parts
}

/// Bytes of all keys, and bits of the widest one under the persistent and the ephemeral secret.
fn keys_of(preset: &BootstrappingPreset) -> (usize, usize, usize) {
    let layout = preset.keys_layout();
    let (mut bytes, mut wide, mut narrow) = (0, 0, 0);
    let bits = |key: &dyn LWEInfos| key.k().as_usize();
    for key in layout.rotation_keys.values() {
        bytes += bytes_of(key);
        wide = wide.max(bits(key));
    }
    bytes += bytes_of(&layout.tensor_key);
    wide = wide.max(bits(&layout.tensor_key));
    if let Some(e) = &layout.encapsulation {
        bytes += bytes_of(&e.dense_to_sparse);
        narrow = bits(&e.dense_to_sparse);
        if let Some(key) = &e.sparse_to_dense {
            bytes += bytes_of(key);
            wide = wide.max(bits(key));
        }
    }
    if let Some(key) = &layout.first_factor_key {
        let count = preset
            .plan()
            .coeffs_to_slots()
            .diagonal_indexes(preset.log_n())[0]
            .len();
        bytes += count * bytes_of(key);
        wide = wide.max(bits(key));
    }
    if let Some((trace, embed)) = &layout.conversion_keys {
        for key in [trace, embed] {
            bytes += bytes_of(key);
            wide = wide.max(bits(key));
        }
    }
    (bytes, wide, narrow)
}

fn sources() -> [Source; 3] {
    [7, 1, 2].map(|seed| Source::new([seed; 32]))
}

/// Runs a preset on one backend (they share no trait that would take them all). `$make` gives the
/// function of a bootstrap from modules, secret and preset.
macro_rules! measure {
    ($backend:ty, $preset:expr, $rounds:expr) => {{
        type Ci = CIBackend<$backend>;
        let preset = preset_for_backend::<$backend, NTT3x42CIIfma>(&$preset).unwrap();
        let (n, plan, layout) = (preset.n(), preset.plan(), preset.keys_layout());
        let on_ci = !matches!(plan.eval_mod_ring(), EvalModRing::Standard);
        // EvalMod on the conjugate-invariant ring takes a module of twice the degree.
        let module = Module::<$backend>::new(if on_ci { 2 * n } else { n } as u64);
        let ci = Module::<Ci>::new(n as u64);
        let (full, input_layout) = (preset.bootstrap_layout(), preset.input_layout());
        let mut secret = module.glwe_secret_alloc_from_infos(&full.glwe_layout);
        let weight = preset.dense_secret_hamming_weight();
        module.glwe_secret_fill_ternary_hw(&mut secret, weight, &mut Source::new([9; 32]));
        let mut prepared = module.glwe_secret_prepared_alloc_from_infos(&full.glwe_layout);
        module.glwe_secret_prepare(&mut prepared, &secret);
        let mut client = ScratchOwned::<$backend>::alloc(CLIENT_SCRATCH);

        eprintln!("poulpy: making keys ..");
        let start = cpu_seconds();
        let [mut xs, mut xa, mut xe] = sources();
        let mut client_ci = ScratchOwned::<Ci>::alloc(if on_ci { CLIENT_SCRATCH } else { 0 });
        let keys = if on_ci {
            plan.generate_keys_ci(
                &module, &ci, &secret, layout, &mut xs, &mut xe, &mut xa,
                &mut client.borrow(), &mut client_ci.borrow(),
            )
        } else {
            plan.generate_keys(&module, &secret, layout, &mut xs, &mut xe, &mut xa, &mut client.borrow())
        };
        let mut keys = keys.unwrap();
        let keygen = cpu_seconds() - start;

        eprintln!("poulpy: {keygen:.1} s; preparing ..");
        let start = cpu_seconds();
        // Rotation keys are nearly all of the memory: each goes as soon as it is prepared.
        let mut rotations = HashMap::new();
        for (element, key) in std::mem::take(&mut keys.rotation_keys) {
            let mut prepared = module.glwe_automorphism_key_prepared_alloc_from_infos(&key);
            module.glwe_automorphism_key_prepare(&mut prepared, &key, &mut client.borrow());
            rotations.insert(element, prepared);
        }
        type Context<'a> = BootstrappingContextPrepared<$backend, f64>;
        let mut bootstrap: Box<dyn FnMut(&mut _, &_) -> ()> = if on_ci {
            let context = Context::compile_ci(
                &module, &ci, preset.base2k().into(), plan, &mut client.borrow(), &mut client_ci.borrow(),
            ).unwrap();
            let mut keys = keys.transfer_and_prepare_ci(
                &module, &ci, &mut client.borrow(), &mut client_ci.borrow(),
            ).unwrap();
            keys.rotation_keys = rotations;
            let (bytes, bytes_ci) =
                module.ckks_bootstrap_ci_tmp_bytes(&ci, &full, &input_layout, &context, layout);
            let mut scratch = ScratchOwned::<$backend>::alloc(bytes);
            let mut scratch_ci = ScratchOwned::<Ci>::alloc(bytes_ci);
            let (module, ci) = (&module, &ci);
            Box::new(move |output, input| {
                module.ckks_bootstrap_ci_into(
                    ci, output, input, &context, &keys, &mut scratch.borrow(), &mut scratch_ci.borrow(),
                ).unwrap()
            })
        } else {
            let context = Context::compile(
                &module, preset.base2k().into(), plan, &mut client.borrow(),
            ).unwrap();
            let mut keys = keys.transfer_and_prepare(&module, &mut client.borrow());
            keys.rotation_keys = rotations;
            let bytes = module.ckks_bootstrap_tmp_bytes(&full, &input_layout, &context, layout);
            let mut scratch = ScratchOwned::<$backend>::alloc(bytes);
            let module = &module;
            Box::new(move |output, input| {
                module.ckks_bootstrap(output, input, &context, &keys, &mut scratch.borrow()).unwrap()
            })
        };
        drop(client_ci);
        let setup = cpu_seconds() - start;

        eprintln!("poulpy: {setup:.1} s; bootstrapping ..");
        let slots = n / 2;
        let mut input = module.ckks_ciphertext_alloc_from_glwe_infos(&input_layout);
        let mut output = module.ckks_ciphertext_alloc_from_glwe_infos(&full);
        let mut values = Values(11);
        let (mut times, mut precision) = (Vec::new(), Map::new());
        for round in 0..$rounds {
            for kind in KINDS {
                let (re, im) = (values.of(kind, slots), values.of(kind, slots));
                let mut plain =
                    module.ckks_plaintext_alloc_from_slots(slots, preset.base2k().into(), input_layout.k());
                plain.set_meta(input_layout.meta());
                module.ckks_encode_slots_host_into(&mut plain, &re, &im, &mut client.borrow()).unwrap();
                let [_, mut xa, mut xe] = sources();
                module.ckks_encrypt_sk(
                    &mut input, &plain, &prepared, &mut xe, &mut xa, &mut client.borrow(),
                ).unwrap();
                input.set_meta(input_layout.meta());
                output.set_k(preset.bootstrap_k().into());
                let (cpu, wall) = (cpu_seconds(), Instant::now());
                bootstrap(&mut output, &input);
                let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
                times.push(json!({"wall_ms": wall * 1e3, "cpu_ms": cpu * 1e3}));

                let log_delta = output.log_delta();
                let bits = output.log_budget().min(HEADROOM) + log_delta;
                let mut plain =
                    module.ckks_plaintext_alloc_from_slots(slots, output.base2k(), bits.into());
                plain.set_meta(GLWEPlaintextMeta {
                    scale: Scale::Log(log_delta),
                    slots: SlotsKind::Complex,
                    log_sparsity: 0,
                });
                module.ckks_decrypt(&mut plain, &output, &prepared, &mut client.borrow()).unwrap();
                let (mut got_re, mut got_im) = (vec![0.0; slots], vec![0.0; slots]);
                module.ckks_decode_slots_host_into(
                    &plain, &mut got_re, &mut got_im, &mut client.borrow(),
                ).unwrap();
                let got = got_re.iter().chain(&got_im);
                let errors: Vec<f64> = got.zip(re.iter().chain(&im)).map(|(a, b)| (a - b).abs()).collect();
                let worst = -errors.iter().copied().fold(0.0, f64::max).log2();
                let mean = -(errors.iter().sum::<f64>() / errors.len() as f64).log2();
                eprintln!("poulpy: {kind} {wall:.2} s, worst {worst:.1} bits, mean {mean:.1}");
                if round == 0 {
                    precision.insert(kind.to_owned(), json!({"worst": worst, "mean": mean}));
                }
            }
        }
        let (key_bytes, wide, narrow) = keys_of(&preset);
        let levels = (preset.output_k() - preset.input_k()) / preset.log_delta();
        json!({
            "preset": preset.name(),
            "log_n": preset.log_n(),
            "slots": slots,
            "complex": true,
            "levels": levels,
            "scale_bits": preset.log_delta(),
            "keys": [
                {"secret_weight": weight, "log_qp": wide},
                {"secret_weight": preset.sparse_secret_hamming_weight(), "log_qp": narrow},
            ],
            "key_bytes": key_bytes,
            "keygen_s": keygen,
            "setup_s": setup,
            "resident_bytes": peak_bytes(),
            "times": times,
            "precision": precision,
            "note": "not RNS: digits of 52 bits; keys are prepared one by one",
        })
    }};
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, rounds, threads] = &arguments[..] else {
        eprintln!("usage: poulpy-bootstrap levels_15|levels_17 ROUNDS THREADS");
        std::process::exit(2);
    };
    let preset = match name.as_str() {
        "levels_15" => n16_d35_k685_p19_s2c_ffr_ci(),
        "levels_17" => n16_d35_k733_p20_s2c(),
        _ => {
            eprintln!("there is no preset {name}");
            std::process::exit(2);
        }
    };
    let (preset, rounds) = (preset.unwrap(), rounds.parse().unwrap_or(1));
    let report: Value = if threads == "1" {
        measure!(NTT3x42Ifma, preset, rounds)
    } else {
        measure!(NTT3x42IfmaRayon, preset, rounds)
    };
    println!("{report}");
}
