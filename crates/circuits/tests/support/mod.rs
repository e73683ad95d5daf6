//! What tests of bootstraps share: a client with its keys, counted multiples of q0, and a long
//! iteration with the error that is predicted for it.
#![allow(clippy::unwrap_used, dead_code)]

use std::ops::ControlFlow;

use veilformer_circuits::bootstrap::tail::uniform_sum_tail;
use veilformer_circuits::bootstrap::{
    BootstrapPlan, BootstrapSpec, Content, estimate, multiples_of_q0,
};
use veilformer_circuits::testing::{ClearOps, toy_bootstrap};
use veilformer_ckks::noise::NoiseModel;
use veilformer_ckks::{
    Complex, EvaluationKeys, Evaluator, KeyPurpose, Ops, Params, Scale, SecretKind,
    SharedCiphertext, SlotVector,
};
use veilformer_ring::{Cpu, CpuConfig, Isa};
use veilformer_secret::{Decryptor, Encryptor, KeyGenerator, SecretKey, SecureRng};

pub fn worst(got: &[Complex], expected: &[Complex]) -> f64 {
    got.iter()
        .zip(expected)
        .map(|(a, b)| (a - b).re.abs().max((a - b).im.abs()))
        .fold(0.0, f64::max)
}

pub type Ct = SharedCiphertext<Cpu>;

/// A client with the keys of a bootstrap.
pub struct Client {
    pub plan: BootstrapPlan,
    secret: SecretKey,
    backend: Cpu,
    keys: EvaluationKeys<Cpu>,
    seed: Option<u64>,
}

impl Client {
    /// With keys from this seed; secure parameters refuse one, and their keys are new every time.
    pub fn new(plan: BootstrapPlan, seed: Option<u64>) -> Self {
        let params = plan.params().clone();
        let mut generator = match seed {
            Some(seed) => KeyGenerator::insecure_deterministic_for_tests(&params, seed).unwrap(),
            None => KeyGenerator::new(&params, SecureRng::from_os().unwrap()),
        };
        let secret = generator.secret_key().unwrap();
        let backend = Cpu::new(params.chain().clone(), CpuConfig { isa: Isa::detect() }).unwrap();
        let mut keys = EvaluationKeys::empty(&params, secret.id());
        let go = &mut |_: usize, _: usize| ControlFlow::Continue(());
        let mut list = plan.keys().unwrap();
        // For products between bootstraps.
        list.need_up_to(KeyPurpose::Relinearization, plan.output_level(), &params);
        generator
            .each_evaluation_key(&secret, &list, go, &mut |key| {
                Ok(keys.insert(&params, &backend, &key)?)
            })
            .unwrap();
        Self {
            plan,
            secret,
            backend,
            keys,
            seed,
        }
    }

    pub fn ops(&self) -> Evaluator<'_, Cpu> {
        Evaluator::new(self.plan.params(), &self.backend, &self.keys).unwrap()
    }

    pub fn encrypt(&self, slots: &[Complex], level: usize, seed: u64) -> Ct {
        self.encrypt_at(slots, level, self.plan.params().scale_at(level), seed)
    }

    fn encrypt_at(&self, slots: &[Complex], level: usize, scale: Scale, seed: u64) -> Ct {
        let encryptor = match self.seed {
            Some(_) => Encryptor::insecure_deterministic_for_tests(&self.secret, seed),
            None => Encryptor::new(&self.secret, SecureRng::from_os().unwrap()),
        };
        let ct = encryptor
            .unwrap()
            .encrypt_at(&SlotVector::Dense(slots.to_vec()), level, scale)
            .unwrap();
        let ct = ct.expand(self.plan.params()).unwrap();
        self.ops().import(ct).unwrap()
    }

    pub fn decrypt(&self, ct: &Ct) -> Vec<Complex> {
        let ct = ct.export(&self.backend).unwrap();
        let decryptor = Decryptor::new(&self.secret).unwrap();
        decryptor.decrypt(&ct).unwrap().reveal_to_owner().unwrap()
    }

    /// Raises so many ciphertexts with these slots; the number of coefficients by the absolute value
    /// of their multiple of q0.
    pub fn count_multiples(&self, slots: &[Complex], raises: u64) -> Vec<u64> {
        let (params, bits) = (self.plan.params(), self.plan.spec().message_ratio_bits);
        let q0 = params.product(params.basis_at(0));
        let scale = Scale::new(q0 / f64::from(bits).exp2()).unwrap();
        let ops = self.ops();
        let mut counts = Vec::new();
        for seed in 0..raises {
            let x = self.encrypt_at(slots, 0, scale, seed);
            let raised = self.decrypt(&ops.mod_raise(&x).unwrap());
            for multiple in multiples_of_q0(&raised, bits) {
                let at = multiple.unsigned_abs() as usize;
                assert!(at < 100, "{at} times q0");
                counts.resize(counts.len().max(at + 1), 0);
                counts[at] += 1;
            }
        }
        counts
    }
}

/// Compares counts of |I| with the sum of one uniform per coefficient of the ephemeral secret, whose
/// nearest integer `I` is: `c1 s / q0`, made whole by `c0`.
///
/// One coefficient follows that distribution exactly. Two of one ciphertext share at most a few of
/// the uniforms, each pair with a correlation of 1/h per shared one; over all pairs that at most
/// doubles the variance of a count of |I| (h^2 pairs of squared correlation h^-2; higher orders are
/// smaller). Each tail may be off by 5 deviations of the doubled variance, and by 5 counts where few
/// are expected: by chance less than once in 10^6.
pub fn check_multiples(counts: &[u64], weight: u32) {
    let n: u64 = counts.iter().sum();
    for at_least in 1..counts.len().max(9) {
        let seen: u64 = counts.iter().skip(at_least).sum();
        let p = uniform_sum_tail(weight, at_least as f64 - 0.5);
        let expected = n as f64 * p;
        let deviation = (2.0 * expected * (1.0 - p)).sqrt();
        let off = seen as f64 - expected;
        eprintln!(
            "|I| >= {at_least}: {seen} of {n}, expected {expected:.2}; log2 {:.3} and {:.3}, off by \
             {:.2} deviations",
            (seen as f64 / n as f64).log2(),
            p.log2(),
            off / deviation
        );
        let few = if expected < 25.0 { 5.0 } else { 0.0 };
        assert!(off.abs() <= 5.0 * deviation + few, "|I| >= {at_least}");
    }
}

/// What is iterated in a group of slots: x -> a - x^2, which maps [a - 1, a] into itself for a in
/// [0, 1]. Its derivative is -2 x.
#[derive(Clone, Copy, Debug)]
pub enum Map {
    /// Attracting fixed point: errors shrink.
    Contracting,
    /// Attracting cycle of two points: errors grow and shrink by turns, and shrink in all.
    Cycle,
    /// On the repelling fixed point x*: errors grow by 2 x* per level, up to a thousandfold in 200.
    Repelling,
}

impl Map {
    pub const ALL: [Self; 3] = [Self::Contracting, Self::Cycle, Self::Repelling];

    /// `a` and the first `x`, from two numbers in [0, 1].
    fn start(self, u: f64, v: f64) -> (f64, f64) {
        match self {
            Self::Contracting => (0.1 + 0.6 * u, 1.8 * v - 0.9),
            // Not near the repelling fixed point between both: few slots would have most of the error.
            Self::Cycle => (0.85 + 0.15 * u, 0.4 * v - 0.2),
            Self::Repelling => {
                let x = (0.01 + 0.025 * u).exp() / 2.0;
                (x + x * x, x)
            }
        }
    }
}

/// An orbit of one slot, and its error: the mean and the variance that are predicted.
#[derive(Clone, Copy, Debug)]
struct Slot {
    map: Map,
    a: f64,
    x: f64,
    mean: f64,
    variance: f64,
}

/// The iteration in f64 with first-order propagation of errors.
pub struct Iteration {
    slots: Vec<Slot>,
    model: NoiseModel,
    /// Variance that a bootstrap adds.
    bootstrap: f64,
    /// What the sine leaves, at the numbers from -1 to 1.
    left: Vec<f64>,
}

impl Iteration {
    pub fn new(plan: &BootstrapPlan) -> Self {
        let params = plan.params();
        let model = NoiseModel::new(params, SecretKind::DenseTernary);
        let level = plan.output_level() + plan.spec().eval_mod_depth().unwrap();
        let spec = BootstrapSpec {
            key_switch_multiple: (model.relinearization(level) / model.division()).sqrt(),
            ..*plan.spec()
        };
        let golden = (5f64.sqrt() - 1.0) / 2.0;
        let slots = (0..params.slots()).map(|j| {
            let map = Map::ALL[j % 3];
            let (a, x) = map.start(
                (j as f64 * golden).fract(),
                (j as f64 * 2f64.sqrt()).fract(),
            );
            Slot {
                map,
                a,
                x,
                mean: 0.0,
                variance: 0.0,
            }
        });
        Self {
            slots: slots.collect(),
            model,
            bootstrap: estimate(&spec).unwrap().total.powi(2),
            left: left_by_the_sine(),
        }
    }

    pub fn values(&self) -> Vec<Complex> {
        self.slots.iter().map(|s| Complex::new(s.x, 0.0)).collect()
    }

    pub fn constants(&self) -> SlotVector {
        SlotVector::Dense(self.slots.iter().map(|s| Complex::new(s.a, 0.0)).collect())
    }

    /// One application of the map, from `level`.
    fn map(&mut self, params: &Params, level: usize) {
        let added = self.model.relinearize_rescale(0.0, level);
        let scale = params.scale_at(level - 1);
        let added = self.model.slot_deviation_real(added, scale).powi(2);
        for s in &mut self.slots {
            let derivative = -2.0 * s.x;
            s.x = s.a - s.x * s.x;
            s.mean *= derivative;
            s.variance = s.variance * derivative * derivative + added;
        }
    }

    fn bootstrap(&mut self) {
        for s in &mut self.slots {
            let place = (s.x + 1.0) / 2.0 * (self.left.len() - 1) as f64;
            let at = (place as usize).min(self.left.len() - 2);
            let part = place - at as f64;
            s.mean += self.left[at] * (1.0 - part) + self.left[at + 1] * part;
            s.variance += self.bootstrap;
        }
    }

    /// Root mean squares over the slots with this map, each predicted and of `got`: of the errors,
    /// and of what is left of them without their predicted means, which is noise.
    pub fn errors(&self, map: Map, got: &[Complex]) -> [(f64, f64); 2] {
        let (mut all, mut noise, mut count) = ((0.0, 0.0), (0.0, 0.0), 0.0);
        for (s, y) in self.slots.iter().zip(got) {
            if s.map as u8 == map as u8 {
                let error = y.re - s.x;
                all.0 += s.mean * s.mean + s.variance;
                all.1 += error * error;
                noise.0 += s.variance;
                noise.1 += (error - s.mean).powi(2);
                count += 1.0;
            }
        }
        [all, noise].map(|(p, m): (f64, f64)| ((p / count).sqrt(), (m / count).sqrt()))
    }
}

/// `bootstrap(m) - m` without any noise at 512 numbers m from -1 to 1, on a small ring.
fn left_by_the_sine() -> Vec<f64> {
    let (params, spec) = toy_bootstrap(10);
    let plan = BootstrapPlan::new(&params, &spec, Content::Real).unwrap();
    let mut ops = ClearOps::new(&params);
    let boot = plan.encode(&mut ops).unwrap();
    let last = (params.slots() - 1) as f64;
    let grid = (0..params.slots()).map(|j| Complex::new(2.0 * j as f64 / last - 1.0, 0.0));
    let grid: Vec<Complex> = grid.collect();
    let x = ops
        .encrypt(&SlotVector::Dense(grid.clone()), plan.input_level())
        .unwrap();
    let y = boot.run(&mut ops, &x).unwrap();
    let y = ops.decrypt(&y);
    y.iter().zip(&grid).map(|(y, x)| (y - x).re).collect()
}

/// Iterates so many times, with a bootstrap whenever no level is left, and compares with f64 after
/// every bootstrap and at the end: errors, and the noise in them, are off from the prediction by
/// `most_off` bits at most. (Few slots have a wide scatter: errors are Laplace over the slots.)
pub fn iterate(client: &Client, levels: usize, most_off: f64) {
    let params = client.plan.params();
    let mut iteration = Iteration::new(&client.plan);
    let mut ops = client.ops();
    let boot = client.plan.encode(&mut ops).unwrap();
    let constants = iteration.constants();
    let mut x = client.encrypt(&iteration.values(), client.plan.output_level(), 2);
    let (mut bootstraps, mut off) = (0, 0f64);
    for done in 0..levels {
        if x.level() == client.plan.input_level() {
            x = boot.run(&mut ops, &x).unwrap();
            iteration.bootstrap();
            bootstraps += 1;
            off = off.max(compare(client, &iteration, &x, (done, bootstraps)));
        }
        let level = x.level();
        let square = ops.square(&x).unwrap();
        let a = ops
            .plain(&constants, level - 1, ops.scale(&square))
            .unwrap();
        let negated = ops.negate(&square).unwrap();
        x = Ops::add_plain(&mut ops, &negated, &a).unwrap();
        iteration.map(params, level);
    }
    off = off.max(compare(client, &iteration, &x, (levels, bootstraps)));
    assert!(off <= most_off, "off by {off:.2} bits");
    assert_eq!(bootstraps, (levels - 1) / client.plan.useful_levels());
}

/// The most bits that anything is off.
fn compare(
    client: &Client,
    iteration: &Iteration,
    x: &Ct,
    (levels, bootstraps): (usize, usize),
) -> f64 {
    let got = client.decrypt(x);
    let mut most = 0f64;
    for map in Map::ALL {
        let [all, noise] = iteration.errors(map, &got);
        for (what, (predicted, measured)) in [("all", all), ("noise", noise)] {
            eprintln!(
                "{levels} levels, {bootstraps} bootstraps, {map:?}, {what}: 2^{:.2}, predicted 2^{:.2}",
                measured.log2(),
                predicted.log2()
            );
            most = most.max((measured / predicted).log2().abs());
        }
    }
    most
}
