//! What the examples of encoders share: a folder with polynomials in place of its functions, its
//! sentences, and runs in the clear, with or without the noise of ciphertexts.
#![allow(dead_code, clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use veilformer_circuits::bootstrap::{BootstrapPlan, Order, Preset};
use veilformer_circuits::testing::{ClearCiphertext, ClearOps, ClearPlain, IdealBootstrap};
use veilformer_ckks::{Complex, Params, SecretKind};
use veilformer_compiler::encoder::circuit::{
    Bootstraps, EncoderCircuit, Event, Layout, Plains, StageReport, Times, layer_of,
};
use veilformer_compiler::encoder::{
    Budget, Polynomials, Substitution, answer_error, answer_tolerance, substitute,
    substitute_within,
};
use veilformer_compiler::placement::{Flow, Loops, Placement, greedy, in_turn, per_layer, place};
use veilformer_ir::ciphertext::BootstrapInfo;
use veilformer_ir::encoder::{Encoder, Ranges};
use veilformer_models::DataSet;
use veilformer_models::encoder::{
    EncoderFolder, EncoderTokenizer, Execution, Trace, calibrate, center_keys, lengthened,
};

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The texts of a data set, or the paragraphs of a text file: lines of some words that are no
/// headings.
pub fn texts(path: &str) -> Result<Vec<String>> {
    let path = Path::new(path);
    if path.extension().is_some_and(|e| e == "txt") {
        let text = std::fs::read_to_string(path)?;
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|l| !l.starts_with('=') && l.split_whitespace().count() >= 12);
        return Ok(lines.map(str::to_owned).collect());
    }
    let set = DataSet::load(path)?;
    let set = set.sample(set.examples.len(), 1);
    Ok(set.examples.into_iter().map(|e| e.text).collect())
}

/// The tokens of as many words of a text as fit.
pub fn fitted(tokenizer: &EncoderTokenizer, text: &str) -> Option<Vec<u32>> {
    let words: Vec<&str> = text.split_whitespace().take(tokenizer.limit()).collect();
    let mut count = words.len();
    while count > 0 {
        if let Ok(ids) = tokenizer.encode(&words[..count].join(" ")) {
            return Some(ids);
        }
        count -= count.div_ceil(10);
    }
    None
}

/// A sentence of each of these lengths, made of the others' tokens one after the other.
pub fn of_lengths(sentences: &[Vec<u32>], lengths: &[usize]) -> Vec<Vec<u32>> {
    let inner = |ids: &Vec<u32>| ids[1..ids.len().max(2) - 1].to_vec();
    let all: Vec<u32> = sentences.iter().flat_map(inner).collect();
    let (Some(first), Some(last)) = (
        sentences.first().and_then(|s| s.first()),
        sentences.first().and_then(|s| s.last()),
    ) else {
        return Vec::new();
    };
    let mut from = all.iter().copied().cycle();
    let mut one = |length: usize| {
        let words = from.by_ref().take(length.saturating_sub(2));
        let ids = [*first].into_iter().chain(words).chain([*last]);
        ids.take(length).collect()
    };
    lengths.iter().map(|length| one(*length)).collect()
}

/// Sentences whose answers say how small the functions' errors have to be.
const JUDGED: usize = 32;

/// A model after substitution.
pub struct Prepared {
    pub encoder: Encoder,
    pub tokenizer: EncoderTokenizer,
    pub ranges: Ranges,
    pub substitution: Substitution,
}

impl Prepared {
    /// Loads the folder, calibrates it on `count` texts of a file. Without a budget, errors are as
    /// small as its answers want.
    pub fn load(
        (folder, tokens): (&str, usize),
        (calibration, count): (&str, usize),
        (budget, center): (Option<&Budget>, bool),
    ) -> Result<Self> {
        let mut folder = EncoderFolder::load(Path::new(folder), tokens)?;
        let texts = texts(calibration)?;
        let ids = texts.iter().filter_map(|t| fitted(&folder.tokenizer, t));
        let sentences: Vec<Vec<u32>> = ids.take(count).collect();
        let sentences = lengthened(&sentences, tokens);
        if center {
            center_keys(&mut folder.encoder, &sentences)?;
        }
        let ranges = calibrate(&Execution::new(&folder.encoder)?, &sentences)?;
        let model = &folder.encoder;
        let substitution = match budget {
            Some(budget) => substitute(&ranges, model, budget)?,
            None => {
                let execution = Execution::new(model)?;
                let sample = sentences.get(..JUDGED).unwrap_or(&sentences);
                let exact = execution.answers(sample)?;
                let mut error = |s: &Substitution| -> Result<f64> {
                    let answers = execution.answers_with(sample, &|| Polynomials::new(s))?;
                    let error = answer_error(&model.head, &exact, &answers);
                    println!("depth {}: answers off by {error:.4}", s.depth());
                    Ok(error)
                };
                let of = (&ranges, model);
                substitute_within(
                    of,
                    &Budget::default(),
                    answer_tolerance(&model.head),
                    &mut error,
                )?
            }
        };
        Ok(Self {
            encoder: folder.encoder,
            tokenizer: folder.tokenizer,
            ranges,
            substitution,
        })
    }

    pub fn execution(&self) -> Result<Execution<'_>> {
        Ok(Execution::new(&self.encoder)?)
    }

    /// What the model was trained to answer.
    pub fn original(&self, ids: &[u32]) -> Result<Vec<f64>> {
        let execution = self.execution()?;
        let answer = execution.answer(&execution.embed(ids)?, &mut execution.exact())?;
        Ok(execution.finish(answer))
    }

    /// What the polynomials answer, with the outputs of the layers and violated ranges.
    pub fn poly(&self, ids: &[u32]) -> Result<(Vec<f64>, Trace<Polynomials<'_>>)> {
        let execution = self.execution()?;
        let mut trace = Trace::new(Polynomials::new(&self.substitution));
        let answer = execution.answer(&execution.embed(ids)?, &mut trace)?;
        Ok((execution.finish(answer), trace))
    }
}

/// The outputs of the layers that a run has seen.
#[derive(Default)]
pub struct Layers(Vec<Vec<f64>>);

impl Layers {
    pub fn push(&mut self, circuit: &EncoderCircuit, stage: &str, see: impl FnOnce() -> Seen) {
        if let Some(layer) = layer_of(stage) {
            let (slots, tokens) = see();
            self.0.push(circuit.read_layer(layer, &slots, tokens));
        }
    }

    /// Per layer the distance from `poly`'s outputs, relative to their length.
    pub fn errors(&self, poly: &Trace<Polynomials<'_>>) -> Vec<f64> {
        let one = |(layer, mine): (usize, &Vec<f64>)| {
            let theirs = poly.layer(layer);
            let pairs = mine.iter().zip(theirs);
            let distance: f64 = pairs.map(|(a, b)| (a - b) * (a - b)).sum();
            let length: f64 = theirs.iter().take(mine.len()).map(|b| b * b).sum();
            (distance / length).sqrt()
        };
        self.0.iter().enumerate().map(one).collect()
    }
}

/// Slots of blocks, for so many tokens.
pub type Seen = (Vec<Vec<Complex>>, usize);

/// A circuit with its bootstraps.
pub struct Compiled {
    pub params: Params,
    pub plans: Vec<BootstrapPlan>,
    pub bootstraps: Bootstraps,
    pub circuit: EncoderCircuit,
    pub flow: Flow,
    pub placement: Placement,
}

impl Compiled {
    /// For up to `tokens` tokens; bootstraps where they cost least, or `greedily`.
    pub fn new(model: &Prepared, (tokens, preset): (usize, &str), greedily: bool) -> Result<Self> {
        let preset = preset_of(preset)?;
        let params = preset.validate()?;
        let layout = Layout::choose(&model.encoder, tokens, params.slots())?;
        let mut contents = layout.contents(params.slots()).to_vec();
        contents.dedup();
        let plans = contents
            .iter()
            .map(|content| preset.plan(&params, *content));
        let plans: Vec<BootstrapPlan> = plans.collect::<std::result::Result<_, _>>()?;
        let [first, ..] = plans.as_slice() else {
            return Err("no bootstrap".into());
        };
        let bootstraps = Bootstraps {
            input_level: first.input_level(),
            output_level: first.output_level(),
            complex: 0,
            real: contents.len() - 1,
        };
        let report = model.substitution.report();
        let depths: Vec<String> = report.iter().map(|site| site.depth.to_string()).collect();
        let layers: Vec<String> = depths.chunks(5).map(|layer| layer.join("+")).collect();
        let depth = model.substitution.depth();
        println!("{layout:?}; depth {depth}: {}", layers.join("  "));
        let parts = (&model.substitution, &model.ranges);
        let circuit = EncoderCircuit::new(&model.encoder, parts, layout)?;
        let times = Times::estimated(&params);
        let flow = circuit.flow(&params, &bootstraps, &times)?;
        let infos = contents
            .iter()
            .map(|content| BootstrapInfo::new(&params, &preset.bootstrap, *content));
        let infos: Vec<BootstrapInfo> = infos.collect::<std::result::Result<_, _>>()?;
        let (Some(complex), Some(real)) = (infos.first(), infos.last()) else {
            return Err("no bootstrap".into());
        };
        let machine = times.machine(complex, real);
        println!(
            "bootstraps: complex {:.2} s, real {:.2} s",
            machine.complex, machine.real
        );
        let best = place(&flow, &machine, Loops::Free)?;
        let describe = |name: &str, p: &Placement| {
            let (count, seconds) = (p.bootstraps, p.seconds);
            println!("{name:<10}{count:>5} bootstraps, {seconds:>7.1} s predicted");
        };
        describe("placed", &best);
        let simple = greedy(&flow, &machine)?;
        describe("greedy", &simple);
        describe("in turn", &in_turn(&flow, &machine)?);
        match per_layer(&flow, &machine) {
            Ok(layers) => describe("one level", &layers),
            Err(error) => println!("one level: {error}"),
        }
        Ok(Self {
            params,
            plans,
            bootstraps,
            circuit,
            flow,
            placement: if greedily { simple } else { best },
        })
    }
}

/// A shipped preset, or one that is made for this number of levels: `11-levels`.
fn preset_of(name: &str) -> Result<Preset> {
    if let Ok(preset) = Preset::named(name) {
        return Ok(preset.clone());
    }
    let levels = name.strip_suffix("-levels").ok_or("unknown preset")?;
    Ok(Preset::generate(Order::SlotToCoeffFirst, levels.parse()?)?)
}

/// Runs without ciphertexts.
pub struct Clear<'a> {
    compiled: &'a Compiled,
    ops: ClearOps,
    plains: Plains<ClearPlain>,
}

/// What came of it.
pub struct Outcome {
    pub answer: Vec<f64>,
    pub layers: Layers,
    pub stages: Vec<StageReport>,
    pub excess: Vec<String>,
    pub took: Duration,
}

impl<'a> Clear<'a> {
    /// With bootstraps that have no error.
    pub fn exact(compiled: &'a Compiled) -> Self {
        let mut ops = ClearOps::new(&compiled.params);
        let ideal = compiled.plans.iter().map(|plan| IdealBootstrap {
            content: plan.content(),
            input_level: plan.input_level(),
            output_level: plan.output_level(),
        });
        ops.set_ideal_bootstraps(&ideal.collect::<Vec<_>>());
        let plains = Plains::default();
        Self {
            compiled,
            ops,
            plains,
        }
    }

    /// With samples of the noise that ciphertexts have.
    pub fn noisy(compiled: &'a Compiled) -> Result<Self> {
        let mut ops = ClearOps::with_noise(&compiled.params, SecretKind::DenseTernary, 1);
        ops.set_bootstraps(&compiled.plans)?;
        let plains = Plains::default();
        Ok(Self {
            compiled,
            ops,
            plains,
        })
    }

    pub fn run(&mut self, execution: &Execution<'_>, ids: &[u32]) -> Result<Outcome> {
        let rows = execution.embed(ids)?;
        let (circuit, with) = (&self.compiled.circuit, self.compiled);
        let top = with.bootstraps.output_level;
        let inputs = circuit.encode(&rows)?;
        let inputs = inputs.map(|slots| self.ops.encrypt(slots, top))?;
        let (mut excess, mut layers) = (Vec::new(), Layers::default());
        #[allow(clippy::type_complexity)]
        let watch: &mut dyn FnMut(&mut ClearOps, Event<'_, ClearCiphertext>) = &mut |ops, event| {
            let Event::Bound(name, cts, bound) = event else {
                return;
            };
            let slots: Vec<Vec<Complex>> = cts.iter().map(|ct| ops.decrypt(ct)).collect();
            let all = slots.iter().flatten();
            let largest = all.fold(0.0, |m: f64, z| m.max(z.re.abs()).max(z.im.abs()));
            if largest > bound || largest.is_nan() {
                excess.push(format!("{name}: {largest:.3}"));
            }
            layers.push(circuit, name, || (slots, ids.len()));
        };
        let start = Instant::now();
        let (out, stages) = circuit.run(
            &mut self.ops,
            (&with.bootstraps, &with.placement),
            (&inputs, &mut self.plains),
            watch,
        )?;
        let took = start.elapsed();
        let slots: Vec<Vec<Complex>> = out.iter().map(|ct| self.ops.decrypt(ct)).collect();
        Ok(Outcome {
            answer: circuit.read(&slots),
            layers,
            stages,
            excess,
            took,
        })
    }
}

/// The largest difference of two answers.
pub fn difference(a: &[f64], b: &[f64]) -> f64 {
    let pairs = a.iter().zip(b);
    pairs.fold(0.0, |m, (a, b)| f64::max(m, (a - b).abs()))
}

/// The cosine of the angle between two answers.
pub fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Numbers in short.
pub fn short(values: &[f64]) -> String {
    let all: Vec<String> = values.iter().map(|v| format!("{v:.1e}")).collect();
    all.join(" ")
}
