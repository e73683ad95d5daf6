//! The gate of this crate: times and checks of key switching at the sizes of the hardest users.
//!
//! `cargo run --release -p veilformer-ring --example key_switch_gate [-- ISA] [threads=N] [ring=I]..`
//! (scalar, avx2 or avx512ifma; 1; rings 0 to 2 of those below) prints the best and the median of
//! several runs. Every result is checked against an identity (with a real key under a ternary
//! secret), or bit for bit against another path.

#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::Instant;

use veilformer_ring::conformance::Samples;
use veilformer_ring::{
    Backend, Basis, Chain, Cpu, CpuConfig, CpuKey, CpuPlain, DiagonalTerm, Form, GaloisElement,
    GiantStep, Isa, OutputPlan, PlainPoly, RnsPoly, SwitchingKey, TransformPlan, UniformHalf,
    ntt_primes_near,
};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// One ring with keys under a ternary secret.
struct Setting {
    cpu: Cpu,
    chain: Arc<Chain>,
    q: Basis,
    special: Basis,
    digits: Vec<Basis>,
    secret: RnsPoly,
    samples: Samples,
}

/// Milliseconds: the best and the median of `runs` calls.
fn time<T>(runs: usize, mut f: impl FnMut() -> T) -> (f64, f64) {
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(f());
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[0], times[runs / 2])
}

fn row(name: &str, (best, median): (f64, f64), note: &str) {
    println!("  {name:<44} {best:>9.3} ms  (median {median:>9.3})  {note}");
}

impl Setting {
    fn new(
        log_n: u32,
        words: &[(f64, usize)],
        special: (f64, usize),
        digit: usize,
        isa: Isa,
    ) -> Outcome<Self> {
        let mut primes = Vec::new();
        for &(target, count) in words.iter().chain([&special]) {
            primes.extend(ntt_primes_near(target, log_n, &primes, count)?);
        }
        let count: usize = words.iter().map(|w| w.1).sum();
        let chain = Chain::new(log_n, &primes)?;
        let cpu = Cpu::new(chain.clone(), CpuConfig { isa })?;
        let mut samples = Samples::new(&chain, 7);
        let digits = (0..count)
            .step_by(digit)
            .map(|a| Basis::range(a, (a + digit).min(count)))
            .collect();
        // A ternary secret for the example; real secrets are sampled elsewhere.
        let noise = samples.residues(Basis::single(0), chain.n());
        let coefficients: Vec<i64> = noise.iter().map(|r| (r % 3) as i64 - 1).collect();
        let mut secret = RnsPoly::from_signed(&chain, chain.all(), &coefficients)?;
        cpu.forward_ntt(&mut secret)?;
        let (q, special) = (Basis::first(count), Basis::range(count, chain.len()));
        Ok(Self {
            cpu,
            chain,
            q,
            special,
            digits,
            secret,
            samples,
        })
    }

    /// The key from `target` to the secret: `b_d = -a_d s + e_d + P g_d target`.
    fn key(&mut self, galois: GaloisElement, target: &RnsPoly) -> Outcome<CpuKey> {
        let all = self.chain.all();
        let mut parts = Vec::new();
        for digit in self.digits.clone() {
            let a = self.samples.poly(all, Form::Ntt)?;
            let noise = self.samples.residues(Basis::single(0), self.chain.n());
            let e: Vec<i64> = noise.iter().map(|r| (r % 13) as i64 - 6).collect();
            let mut b = RnsPoly::from_signed(&self.chain, all, &e)?;
            self.cpu.forward_ntt(&mut b)?;
            self.cpu
                .sub_assign(&mut b, &self.cpu.mul(&a, &self.secret)?)?;
            let mut gadget = target.clone();
            let residues: Vec<u64> = all
                .iter()
                .map(|j| {
                    if digit.contains(j) {
                        self.chain.product_mod(self.special, j)
                    } else {
                        0
                    }
                })
                .collect();
            self.cpu.mul_scalar_assign(&mut gadget, &residues)?;
            self.cpu.add_assign(&mut b, &gadget)?;
            parts.push((b, UniformHalf::Poly(a)));
        }
        let digits = self.digits.clone();
        let key = SwitchingKey {
            galois,
            digits,
            special: self.special,
            parts,
        };
        Ok(self.cpu.prepare_key(&key)?)
    }

    fn rotation_key(&mut self, by: i64) -> Outcome<CpuKey> {
        let g = GaloisElement::rotation(by, self.chain.log_n());
        let target = self.cpu.automorphism(&self.secret, g)?;
        self.key(g, &target)
    }

    /// log2 of the largest coefficient of `c0 + c1 s - expected`, which all primes must agree on.
    fn error_bits(&self, c: &(RnsPoly, RnsPoly), expected: &RnsPoly) -> Outcome<f64> {
        let s = self.cpu.restrict(&self.secret, c.0.basis())?;
        let mut e = c.0.clone();
        self.cpu.mul_acc(&mut e, &c.1, &s)?;
        self.cpu.sub_assign(&mut e, expected)?;
        self.cpu.inverse_ntt(&mut e)?;
        let mut largest = 0;
        for (pos, i) in e.basis().iter().enumerate() {
            let m = self.chain.modulus(i);
            let of_limb = e
                .limb(pos)
                .iter()
                .map(|&x| m.center(x).unsigned_abs())
                .max();
            largest = largest.max(of_limb.unwrap_or(0));
        }
        Ok((largest as f64).log2())
    }

    /// `c0 + c1 s`.
    fn decrypt(&self, c0: &RnsPoly, c1: &RnsPoly) -> Outcome<RnsPoly> {
        let mut x = c0.clone();
        self.cpu
            .mul_acc(&mut x, c1, &self.cpu.restrict(&self.secret, c1.basis())?)?;
        Ok(x)
    }

    /// A ciphertext of a random message below 2^`bits`.
    fn encrypt(&mut self, basis: Basis, bits: u32) -> Outcome<(RnsPoly, RnsPoly)> {
        let noise = self.samples.residues(Basis::single(0), self.chain.n());
        let m: Vec<i64> = noise
            .iter()
            .map(|r| (r & ((1 << bits) - 1)) as i64)
            .collect();
        let mut c0 = RnsPoly::from_signed(&self.chain, basis, &m)?;
        self.cpu.forward_ntt(&mut c0)?;
        let c1 = self.samples.poly(basis, Form::Ntt)?;
        self.cpu.sub_assign(
            &mut c0,
            &self.decrypt(&RnsPoly::zero(&self.chain, basis, Form::Ntt)?, &c1)?,
        )?;
        Ok((c0, c1))
    }

    fn require(&self, what: &str, bits: f64, at_most: f64) -> Outcome<String> {
        if bits <= at_most {
            Ok(format!("error 2^{bits:.1}"))
        } else {
            Err(format!("{what}: error 2^{bits:.1}, at most 2^{at_most} expected").into())
        }
    }
}

/// The parts of which a key switch consists.
fn parts(s: &mut Setting, runs: usize) -> Outcome<()> {
    let mut limb = s.samples.poly(Basis::single(0), Form::Coefficient)?;
    let original = limb.clone();
    let mut forward = Vec::new();
    let mut inverse = Vec::new();
    for _ in 0..10 * runs {
        forward.push(time(1, || s.cpu.forward_ntt(&mut limb)).0);
        inverse.push(time(1, || s.cpu.inverse_ntt(&mut limb)).0);
    }
    if limb != original {
        return Err("the inverse NTT does not invert".into());
    }
    for (name, mut t) in [("forward", forward), ("inverse", inverse)] {
        t.sort_by(f64::total_cmp);
        row(
            &format!("NTT of one limb, hot, {name}"),
            (t[0], t[t.len() / 2]),
            "",
        );
    }
    let mut all = s.samples.poly(s.q, Form::Coefficient)?;
    let limbs = s.q.len();
    let swept = time(runs, || {
        s.cpu.forward_ntt(&mut all)?;
        s.cpu.inverse_ntt(&mut all)
    });
    let per = |x: f64| x / (2 * limbs) as f64;
    row(
        "NTT of one limb, swept over Q",
        (per(swept.0), per(swept.1)),
        "",
    );
    let digit = s.samples.poly(s.digits[0], Form::Coefficient)?;
    let t = time(runs, || s.cpu.extend(&digit, s.chain.all()));
    row("base conversion of one digit to Q + P", t, "");
    Ok(())
}

fn key_switches(s: &mut Setting, runs: usize) -> Outcome<()> {
    let (q, top) = (s.q, s.q.highest().unwrap_or(0));
    let square = s.cpu.mul(&s.secret, &s.secret)?;
    let relin = s.key(GaloisElement::identity(), &square)?;
    let mut rotations = Vec::new();
    for by in 1..=8 {
        rotations.push(s.rotation_key(by)?);
    }
    let (k, l, p) = (s.digits.len(), q.len(), s.special.len());
    let ntts = l + (k * (l + p) - l) + 2 * p + 2 * l;
    println!(
        "  one key switch: {ntts} NTTs, key {:.0} MiB",
        relin.bytes() as f64 / 1048576.0
    );

    let a = s.encrypt(q, 30)?;
    let b = s.encrypt(q, 30)?;
    let t = time(runs, || {
        s.cpu
            .key_switch_sum(None, &[(&a.1, &rotations[0])], Basis::empty())
    });
    row(
        "key switch (ModUp, inner product, ModDown)",
        t,
        "<- the gate: at most 60 at N=2^16",
    );

    let g = s.cpu.key_galois(&rotations[0]);
    let expected = s.cpu.automorphism(&s.decrypt(&a.0, &a.1)?, g)?;
    let t = time(runs, || s.cpu.rotate_many((&a.0, &a.1), &[&rotations[0]]));
    let c = s.cpu.rotate_many((&a.0, &a.1), &[&rotations[0]])?.remove(0);
    row(
        "rotate",
        t,
        &s.require("rotate", s.error_bits(&c, &expected)?, 26.0)?,
    );

    let pair = [((&a.0, &a.1), (&b.0, &b.1))];
    let t = time(runs, || s.cpu.mul_sum_relin(&pair, &relin, Basis::empty()));
    let c = s.cpu.mul_sum_relin(&pair, &relin, Basis::empty())?;
    let product = s
        .cpu
        .mul(&s.decrypt(&a.0, &a.1)?, &s.decrypt(&b.0, &b.1)?)?;
    row(
        "multiply + relinearize",
        t,
        &s.require("relin", s.error_bits(&c, &product)?, 26.0)?,
    );
    let drop = Basis::single(top);
    let t = time(runs, || s.cpu.mul_sum_relin(&pair, &relin, drop));
    let c = s.cpu.mul_sum_relin(&pair, &relin, drop)?;
    let rescaled = s.cpu.div_round(&product, drop)?;
    row(
        "multiply + relinearize + rescale",
        t,
        &s.require("mul", s.error_bits(&c, &rescaled)?, 26.0)?,
    );

    let many = [
        (&a.1, &rotations[0]),
        (&b.1, &rotations[1]),
        (&a.0, &rotations[2]),
        (&b.0, &relin),
    ];
    let t = time(runs, || {
        s.cpu.key_switch_sum(Some((&a.0, &b.0)), &many, drop)
    });
    let fused = s.cpu.key_switch_sum(Some((&a.0, &b.0)), &many, drop)?;
    // What each term decrypts to: sigma(poly s) for rotations, poly s^2 for relinearization.
    let mut sum = s.decrypt(&a.0, &b.0)?;
    let secret = s.cpu.restrict(&s.secret, q)?;
    for (i, (poly, key)) in many.iter().enumerate() {
        let m = s.cpu.mul(poly, &secret)?;
        let m = if i == 3 {
            s.cpu.mul(&m, &secret)?
        } else {
            s.cpu.automorphism(&m, s.cpu.key_galois(key))?
        };
        s.cpu.add_assign(&mut sum, &m)?;
    }
    let expected = s.cpu.div_round(&sum, drop)?;
    row(
        "fused sum of 4 key switches + rescale",
        t,
        &s.require("sum", s.error_bits(&fused, &expected)?, 26.0)?,
    );

    let keys: Vec<&CpuKey> = rotations.iter().collect();
    let t = time(runs, || s.cpu.rotate_many((&a.0, &a.1), &keys));
    let outs = s.cpu.rotate_many((&a.0, &a.1), &keys)?;
    let mut worst = 0f64;
    for (c, key) in outs.iter().zip(&keys) {
        let expected = s
            .cpu
            .automorphism(&s.decrypt(&a.0, &a.1)?, s.cpu.key_galois(key))?;
        worst = worst.max(s.error_bits(c, &expected)?);
    }
    let note = format!(
        "{:.3} each, {}",
        t.0 / 8.0,
        s.require("hoisted", worst, 26.0)?
    );
    row("8 hoisted rotations", t, &note);

    transform(s, runs, &keys, (4, 4))?;

    // A basis with holes that cuts and leaves out digits.
    let holes = Basis::from_indices(&q.iter().filter(|i| i % 3 != 1).collect::<Vec<_>>());
    let x = s.encrypt(holes, 30)?;
    let t = time(runs, || s.cpu.rotate_many((&x.0, &x.1), &keys[..1]));
    let c = s.cpu.rotate_many((&x.0, &x.1), &keys[..1])?.remove(0);
    let expected = s.cpu.automorphism(&s.decrypt(&x.0, &x.1)?, g)?;
    let name = format!("rotate on an arbitrary basis of {} primes", holes.len());
    row(
        &name,
        t,
        &s.require("holes", s.error_bits(&c, &expected)?, 26.0)?,
    );

    let t = time(runs, || s.cpu.div_round_pair((&a.0, &a.1), drop));
    row("rescale of a ciphertext by one prime", t, "");
    // Three words out, two in.
    let out = Basis::range(top.saturating_sub(2), top + 1);
    let x = s.cpu.restrict(&a.0, q.minus(Basis::range(2, 4)))?;
    let t = time(runs, || s.cpu.rescale_rational(&x, out, Basis::range(2, 4)));
    let y = s.cpu.rescale_rational(&x, out, Basis::range(2, 4))?;
    // out * y - in * x is small: at most half of the product that was dropped.
    let residues = |f: Basis, of: Basis| {
        of.iter()
            .map(|j| s.chain.product_mod(f, j))
            .collect::<Vec<_>>()
    };
    let common = y.basis().intersect(x.basis());
    let (mut left, mut right) = (s.cpu.restrict(&y, common)?, s.cpu.restrict(&x, common)?);
    s.cpu.mul_scalar_assign(&mut left, &residues(out, common))?;
    s.cpu
        .mul_scalar_assign(&mut right, &residues(Basis::range(2, 4), common))?;
    s.cpu.sub_assign(&mut left, &right)?;
    s.cpu.inverse_ntt(&mut left)?;
    let rest = common.minus(Basis::single(0));
    let small = s.cpu.div_round(&left, rest)?;
    let bound = (s.chain.product_log2(out) - 1.0 - s.chain.product_log2(rest)).exp2() + 1.0;
    let m0 = s.chain.modulus(0);
    let exact = small
        .limb(0)
        .iter()
        .all(|&r| m0.center(r).unsigned_abs() as f64 <= bound);
    row(
        "rational rescale of a polynomial (-3 +2 words)",
        t,
        if exact { "exact" } else { "WRONG" },
    );
    if exact {
        Ok(())
    } else {
        Err("rational rescale is wrong".into())
    }
}

/// `babies * giants` diagonals of one input, and what their transform takes: doubly hoisted, and
/// from rotations with a ModDown each.
fn transform(
    s: &mut Setting,
    runs: usize,
    keys: &[&CpuKey],
    (babies, giants): (usize, usize),
) -> Outcome<()> {
    let a = s.encrypt(s.q, 30)?;
    let mut plains: Vec<CpuPlain> = Vec::new();
    for _ in 0..babies * giants {
        // Small coefficients, so that products of noise stay far below the modulus.
        let noise = s.samples.residues(Basis::single(0), s.chain.n());
        let small: Vec<i64> = noise.iter().map(|r| (r % 7) as i64 - 3).collect();
        let mut p = RnsPoly::from_signed(&s.chain, s.chain.all(), &small)?;
        s.cpu.forward_ntt(&mut p)?;
        plains.push(s.cpu.prepare_plain(&PlainPoly::Dense(p))?);
    }
    // Any key stands in for that of a giant step.
    let last = keys.len().saturating_sub(giants);
    let outputs = vec![OutputPlan::beside(
        (0..giants)
            .map(|giant| GiantStep {
                key: (giant > 0).then_some(last + giant),
                terms: (0..babies)
                    .map(|baby| DiagonalTerm {
                        input: 0,
                        baby: baby.checked_sub(1),
                        plain: babies * giant + baby,
                    })
                    .collect(),
            })
            .collect(),
    )];
    let plan: TransformPlan<'_, Cpu> = TransformPlan {
        keys: keys.to_vec(),
        plains: plains.iter().collect(),
        outputs,
    };
    let drop = Basis::single(s.q.highest().unwrap_or(0));
    let t = time(runs, || {
        s.cpu.linear_transform(&[(&a.0, &a.1)], &plan, drop)
    });
    let c = s
        .cpu
        .linear_transform(&[(&a.0, &a.1)], &plan, drop)?
        .remove(0);
    let m = s.decrypt(&a.0, &a.1)?;
    let mut sum = RnsPoly::zero(&s.chain, s.q, Form::Ntt)?;
    for giant in &plan.outputs[0].giants {
        let turned = giant.terms.iter().map(|t| match t.baby {
            None => Ok(m.clone()),
            Some(k) => s.cpu.automorphism(&m, s.cpu.key_galois(keys[k])),
        });
        let turned: Vec<_> = turned.collect::<veilformer_ring::Result<_>>()?;
        let plains = giant.terms.iter().map(|t| &plains[t.plain]);
        let terms: Vec<_> = turned.iter().zip(plains).collect();
        let mut inner = s.cpu.mul_plain_sum(&terms)?;
        if let Some(k) = giant.key {
            inner = s.cpu.automorphism(&inner, s.cpu.key_galois(keys[k]))?;
        }
        s.cpu.add_assign(&mut sum, &inner)?;
    }
    let expected = s.cpu.div_round(&sum, drop)?;
    let note = format!(
        "{} key switches, {}",
        babies + giants - 2,
        s.require("transform", s.error_bits(&c, &expected)?, 26.0)?
    );
    let count = babies * giants;
    let name = format!("linear transform, {count} diagonals ({babies} x {giants})");
    row(&name, t, &note);
    let t = time(runs.div_ceil(3), || once_hoisted(s, &a, &plan, drop));
    let c = once_hoisted(s, &a, &plan, drop)?;
    let note = s.require("once hoisted", s.error_bits(&c, &expected)?, 26.0)?;
    row("  the same, hoisted once", t, &note);
    Ok(())
}

/// The first output of a plan of one input from coarser operations: every rotation of the input
/// with its own ModDown, one for all giant steps.
fn once_hoisted(
    s: &Setting,
    c: &(RnsPoly, RnsPoly),
    plan: &TransformPlan<'_, Cpu>,
    drop: Basis,
) -> veilformer_ring::Result<(RnsPoly, RnsPoly)> {
    let giants = &plan.outputs[0].giants;
    let babies = giants[0].terms.iter().filter_map(|t| t.baby);
    let keys: Vec<&CpuKey> = babies.map(|k| plan.keys[k]).collect();
    let rotated = s.cpu.rotate_many((&c.0, &c.1), &keys)?;
    let zero = || RnsPoly::zero(&s.chain, s.q, Form::Ntt);
    let (mut sum0, mut sum1) = (zero()?, zero()?);
    let mut switched = Vec::new();
    for giant in giants {
        let sum = |part: fn(&(RnsPoly, RnsPoly)) -> &RnsPoly| {
            let terms = giant.terms.iter().map(|t| {
                let x = t.baby.map_or(c, |k| &rotated[k]);
                (part(x), plan.plains[t.plain])
            });
            s.cpu.mul_plain_sum(&terms.collect::<Vec<_>>())
        };
        let (a0, a1) = (sum(|c| &c.0)?, sum(|c| &c.1)?);
        match giant.key.map(|k| plan.keys[k]) {
            None => {
                s.cpu.add_assign(&mut sum0, &a0)?;
                s.cpu.add_assign(&mut sum1, &a1)?;
            }
            Some(key) => {
                let turned = s.cpu.automorphism(&a0, s.cpu.key_galois(key))?;
                s.cpu.add_assign(&mut sum0, &turned)?;
                switched.push((a1, key));
            }
        }
    }
    let terms: Vec<(&RnsPoly, &CpuKey)> = switched.iter().map(|(p, k)| (p, *k)).collect();
    s.cpu.key_switch_sum(Some((&sum0, &sum1)), &terms, drop)
}

/// Transforms of 128 diagonals, cut in several ways.
fn transforms(s: &mut Setting, runs: usize) -> Outcome<()> {
    let mut rotations = Vec::new();
    for by in 1..32 {
        rotations.push(s.rotation_key(by)?);
    }
    let keys: Vec<&CpuKey> = rotations.iter().collect();
    for cut in [(8, 16), (16, 8), (32, 4)] {
        transform(s, runs, &keys, cut)?;
    }
    Ok(())
}

/// What the command line asks for.
struct Request {
    isa: Isa,
    threads: usize,
    /// Numbers of the rings to run; all if empty.
    rings: Vec<usize>,
}

impl Request {
    fn parse() -> Outcome<Self> {
        let mut request = Self {
            isa: Isa::detect(),
            threads: 1,
            rings: Vec::new(),
        };
        for word in std::env::args().skip(1) {
            match word.as_str() {
                "scalar" => request.isa = Isa::Scalar,
                "avx2" => request.isa = Isa::Avx2,
                "avx512ifma" => request.isa = Isa::Avx512Ifma,
                other => match other.split_once('=') {
                    Some(("threads", n)) => request.threads = n.parse()?,
                    Some(("ring", n)) => request.rings.push(n.parse()?),
                    _ => {
                        let expected = "scalar, avx2, avx512ifma, threads=N or ring=0|1|2";
                        return Err(format!("{other}: expected {expected}").into());
                    }
                },
            }
        }
        Ok(request)
    }

    fn wants(&self, ring: usize) -> bool {
        self.rings.is_empty() || self.rings.contains(&ring)
    }
}

fn run(request: &Request) -> Result<(), String> {
    let isa = request.isa;
    let runs = if isa == Isa::Scalar { 1 } else { 9 };
    println!("{isa:?}, {} threads; best of {runs}", request.threads);
    let b = |bits: f64| bits.exp2();
    let all = |s: Outcome<Setting>, runs: (usize, usize)| -> Outcome<Setting> {
        let mut s = s?;
        parts(&mut s, runs.0)?;
        key_switches(&mut s, runs.1)?;
        Ok(s)
    };
    let rings = || -> Outcome<()> {
        if request.wants(0) {
            println!("N = 2^14, 8 + 3 limbs of 36 / 41 bits, dnum 3");
            let words = [(b(41.0), 1), (b(36.0), 7)];
            all(
                Setting::new(14, &words, (b(41.0), 3), 3, isa),
                (runs, 3 * runs),
            )?;
        }
        if request.wants(1) {
            println!("N = 2^16, 31 + 6 limbs of 40..50 bits, dnum 6");
            let words = [(b(50.0) - b(24.0), 8), (b(42.0), 9), (b(40.0), 14)];
            let special = (b(50.0) - b(30.0), 6);
            all(Setting::new(16, &words, special, 6, isa), (runs, runs))?;
        }
        if request.wants(2) {
            println!("N = 2^16, 24 + 8 limbs of 45 / 46 bits, dnum 3");
            let setting = Setting::new(16, &[(b(45.0), 24)], (b(46.0), 8), 8, isa);
            let mut s = all(setting, (runs, runs))?;
            transforms(&mut s, runs)?;
        }
        Ok(())
    };
    rings().map_err(|e| e.to_string())
}

fn main() -> Outcome<()> {
    let request = Request::parse()?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(request.threads)
        .build()?;
    Ok(pool.install(|| run(&request))?)
}
