//! Operations of an encoder's kernels at N = 2^16 and 128 tokens, counted, and on request measured:
//!
//! `cargo run --release -p veilformer-circuits --example encoder_speed -- SHAPE LEVELS [measure]`
//!
//! Shapes are in [`SHAPES`]. Kernels start at the highest of so many levels; primes of 45 bits,
//! 8 special primes, digits of 8 primes. Measured, each runs encrypted, on one thread, after a first
//! run that fills the pool of buffers. Between [`Scores`] and [`Weighted`] there are no polynomials:
//! weights are scores.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::time::Instant;

use veilformer_circuits::encoder::{
    Heads, KeySum, LayerNorm, Mask, Pool, Scores, Spread, Variance, Weighted,
};
use veilformer_circuits::matrix::Counts;
use veilformer_circuits::testing::{ClearOps, Counting};
use veilformer_ckks::{
    EvaluationKeys, Evaluator, Ops, Params, ParamsSpec, SecurityLevel, SlotVector,
};
use veilformer_ring::{Cpu, CpuConfig, Isa};
use veilformer_secret::{Encryptor, KeyGenerator, SecureRng};

/// Name; heads, dimensions of a head, lanes, copies, babies; features.
const SHAPES: [(&str, [usize; 5], usize); 7] = [
    ("minilm", [12, 32, 16, 1, 16], 384),
    // A group of whole heads, of 8 in 12.
    ("minilm-whole", [8, 32, 8, 1, 32], 384),
    ("base", [12, 64, 16, 1, 16], 768),
    // A group of whole heads, of 4 in 12.
    ("base-whole", [4, 64, 4, 1, 64], 768),
    ("tiny", [2, 64, 4, 1, 32], 128),
    // Each product covers two, or four, distances.
    ("tiny-2", [2, 64, 4, 2, 32], 128),
    ("tiny-4", [2, 64, 8, 4, 16], 128),
];

/// Every kernel once, on ciphertexts that all are `x`.
fn kernels<O: Ops>(
    ops: &mut O,
    (heads, hidden): (Heads, usize),
    x: &O::Ct,
    mut done: impl FnMut(&mut O, &str),
) {
    let top = ops.level(x);
    let blocks = vec![x.clone(); heads.blocks()];
    if heads.copies > 1 {
        let spread = Spread::new(ops, heads, top).unwrap();
        done(ops, "(encoding)");
        for block in blocks.iter().chain(&blocks) {
            spread.apply(ops, block).unwrap();
        }
        done(ops, "spread of keys and values");
    }
    let scores = Scores::new(ops, heads, top, 0.1).unwrap();
    done(ops, "(encoding)");
    let scores = scores.apply(ops, &blocks, &blocks).unwrap();
    done(ops, "scores");
    let sum = KeySum::new(ops, heads, top - 2, (1.0, 1.0)).unwrap();
    done(ops, "(encoding)");
    sum.apply(ops, &scores).unwrap();
    done(ops, "sum over keys");
    let weighted = Weighted::new(ops, heads, top - 2).unwrap();
    done(ops, "(encoding)");
    weighted.apply(ops, &scores, &blocks).unwrap();
    done(ops, "weighted values");
    let width = heads.width;
    let blocks = vec![x.clone(); hidden.div_ceil(width)];
    for (variance, name) in [
        (Variance::Centred, "centre, variance of centred"),
        (Variance::Moments, "centre, variance of moments"),
    ] {
        let norm = LayerNorm::new(ops, (hidden, width), top, variance).unwrap();
        done(ops, "(encoding)");
        norm.centre(ops, &blocks).unwrap();
        done(ops, name);
    }
    let tokens = heads.tokens;
    let pool = Pool { tokens, width };
    let mean = pool.of_tokens(|_| 1.0 / tokens as f64).unwrap();
    let mean = Mask::public(ops, &mean, top).unwrap();
    done(ops, "(encoding)");
    pool.sum(ops, x, &mean).unwrap();
    done(ops, "mean of tokens, a block");
}

/// Prints what came to the counts since the last time.
fn row<O: Ops>(ops: &Counting<O>, before: &mut Counts, name: &str, milliseconds: Option<f64>) {
    let (now, last) = (ops.counts(), *before);
    let of = |field: fn(&Counts) -> usize| field(&now) - field(&last);
    let plain = of(|c| c.plain.total()) + of(|c| c.extended.total());
    let columns = [
        of(|c| c.products),
        of(|c| c.relinearizations),
        of(|c| c.rotations),
        of(|c| c.hoisted),
        of(|c| c.plain_giants + c.giants),
        of(|c| c.babies),
        of(|c| c.divisions),
        plain,
        of(|c| c.plain_words),
        of(|c| c.keys),
    ];
    if name != "(encoding)" || columns[8] > 0 {
        print!("{name:<28}");
        columns.iter().for_each(|n| print!("{n:>9}"));
        println!(
            "{:>9}",
            milliseconds.map_or(String::new(), |ms| format!("{ms:.0}"))
        );
    }
    *before = now;
}

fn params(levels: usize) -> Params {
    let spec = ParamsSpec {
        log_n: 16,
        first_bits: 45,
        scale_bits: 45,
        levels,
        special_bits: 46,
        special_count: 8,
        digit_limbs: 8,
        security: SecurityLevel::Bits128,
    };
    spec.validate().unwrap()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().map_or("minilm", |a| a.as_str());
    let levels = arguments.get(1).and_then(|a| a.parse().ok()).unwrap_or(6);
    let measured = arguments.iter().any(|a| a == "measure");
    let (_, [heads, dim, lanes, copies, babies], hidden) =
        *SHAPES.iter().find(|s| s.0 == name).unwrap();
    let heads = Heads {
        tokens: 128,
        width: 256,
        heads,
        dim,
        lanes,
        copies,
        babies,
    };
    let params = params(levels);
    println!(
        "{heads:?}, {} limbs, log2(QP) {:.0}",
        levels + 1,
        params.log_qp()
    );
    let titles = [
        "products", "relin", "rotate", "hoisted", "giants", "babies", "outputs", "plain", "words",
        "keys", "ms",
    ];
    println!(
        "{:<28}{}",
        "",
        titles.map(|title| format!("{title:>9}")).concat()
    );
    let mut ops = Counting::new(ClearOps::new(&params));
    let slots = SlotVector::real_constant(0.5);
    let x = ops.inner().encrypt(&slots, levels).unwrap();
    let mut before = ops.counts();
    kernels(&mut ops, (heads, hidden), &x, |ops, name| {
        if !measured {
            row(ops, &mut before, name, None);
        }
    });
    if !measured {
        return;
    }
    let list = ops.keys().clone();
    drop(ops);

    let mut generator = KeyGenerator::new(&params, SecureRng::from_os().unwrap());
    let secret = generator.secret_key().unwrap();
    let go = &mut |_: usize, _: usize| ControlFlow::Continue(());
    let stored = generator
        .evaluation_keys(&secret, &list, [0; 32], go)
        .unwrap();
    let backend = Cpu::new(params.chain().clone(), CpuConfig { isa: Isa::detect() }).unwrap();
    let keys = EvaluationKeys::prepare(&params, &backend, &stored).unwrap();
    drop(stored);
    let ops = Evaluator::new(&params, &backend, &keys).unwrap();
    let mut encryptor = Encryptor::new(&secret, SecureRng::from_os().unwrap()).unwrap();
    let x = encryptor.encrypt(&slots, levels).unwrap();
    let x = ops.import(x.expand(&params).unwrap()).unwrap();
    let mut ops = Counting::new(ops);
    kernels(&mut ops, (heads, hidden), &x, |_, _| {});
    let mut before = ops.counts();
    let mut start = Instant::now();
    kernels(&mut ops, (heads, hidden), &x, |ops, name| {
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        row(ops, &mut before, name, Some(milliseconds));
        start = Instant::now();
    });
}
