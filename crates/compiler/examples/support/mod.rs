//! What the examples of encoders share: a folder with polynomials in place of its functions, its
//! sentences, and runs in the clear, with or without the noise of ciphertexts.
#![allow(dead_code, clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use veilformer_circuits::CircuitError;
use veilformer_circuits::testing::{ClearCiphertext, ClearOps, ClearPlain};
use veilformer_ckks::{Complex, Params, SlotVector};
use veilformer_compiler::encoder::circuit::{
    EncoderCircuit, Layout, Plains, Refresh, StageReport, layer_of,
};
use veilformer_compiler::encoder::{Budget, Polynomials, Substitution, substitute};
use veilformer_ir::encoder::{Encoder, Ranges};
use veilformer_models::DataSet;
use veilformer_models::encoder::{
    EncoderFolder, EncoderTokenizer, Execution, Trace, calibrate, center_keys, lengthened,
};

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Decrypts and encrypts again.
pub struct Ideal(pub (usize, usize));

impl Refresh<ClearOps> for Ideal {
    fn levels(&self) -> (usize, usize) {
        self.0
    }
    fn real(
        &mut self,
        ops: &mut ClearOps,
        ct: &ClearCiphertext,
    ) -> std::result::Result<ClearCiphertext, CircuitError> {
        let slots = SlotVector::Dense(ops.decrypt(ct));
        Ok(ops.encrypt(&slots, self.0.1)?)
    }
    fn pair(
        &mut self,
        ops: &mut ClearOps,
        [re, im]: [&ClearCiphertext; 2],
    ) -> std::result::Result<[ClearCiphertext; 2], CircuitError> {
        Ok([self.real(ops, re)?, self.real(ops, im)?])
    }
    fn complex(
        &mut self,
        ops: &mut ClearOps,
        ct: &ClearCiphertext,
    ) -> std::result::Result<ClearCiphertext, CircuitError> {
        self.real(ops, ct)
    }
}

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

/// A model after substitution.
pub struct Prepared {
    pub encoder: Encoder,
    pub tokenizer: EncoderTokenizer,
    pub ranges: Ranges,
    pub substitution: Substitution,
}

impl Prepared {
    /// Loads the folder, calibrates it on `count` texts of a file.
    pub fn load(
        (folder, tokens): (&str, usize),
        (calibration, count): (&str, usize),
        (budget, center): (&Budget, bool),
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
        let substitution = substitute(&ranges, folder.encoder.activation, budget)?;
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

    pub fn circuit(&self, tokens: usize, params: &Params) -> Result<EncoderCircuit> {
        let layout = Layout::choose(&self.encoder, tokens, params.slots())?;
        println!("{layout:?}; depth {}", self.substitution.depth());
        let parts = (&self.substitution, &self.ranges);
        Ok(EncoderCircuit::new(&self.encoder, parts, layout)?)
    }

    /// What the model was trained to answer.
    pub fn original(&self, ids: &[u32]) -> Result<Vec<f64>> {
        let execution = self.execution()?;
        Ok(execution.answer(&execution.embed(ids)?, &mut execution.exact())?)
    }

    /// What the polynomials answer, with the outputs of the layers and violated ranges.
    pub fn poly(&self, ids: &[u32]) -> Result<(Vec<f64>, Trace<Polynomials<'_>>)> {
        let execution = self.execution()?;
        let mut trace = Trace::new(Polynomials::new(&self.substitution));
        let answer = execution.answer(&execution.embed(ids)?, &mut trace)?;
        Ok((answer, trace))
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

/// A run without ciphertexts.
pub struct Clear<'a, R> {
    pub circuit: &'a EncoderCircuit,
    pub ops: ClearOps,
    pub refresh: R,
    pub plains: Plains<ClearPlain>,
}

/// What came of it.
pub struct Outcome {
    pub answer: Vec<f64>,
    pub layers: Layers,
    pub stages: Vec<StageReport>,
    pub excess: Vec<String>,
    pub took: Duration,
}

impl<'a, R: Refresh<ClearOps>> Clear<'a, R> {
    pub fn new(circuit: &'a EncoderCircuit, ops: ClearOps, refresh: R) -> Self {
        Self {
            circuit,
            ops,
            refresh,
            plains: Plains::default(),
        }
    }

    pub fn run(&mut self, execution: &Execution<'_>, ids: &[u32]) -> Result<Outcome> {
        let rows = execution.embed(ids)?;
        let (_, top) = self.refresh.levels();
        let inputs = self.circuit.inputs(&rows)?;
        let inputs = inputs.map(|slots| self.ops.encrypt(slots, top))?;
        let (mut excess, mut layers) = (Vec::new(), Layers::default());
        let circuit = self.circuit;
        #[allow(clippy::type_complexity)]
        let watch: &mut dyn FnMut(&mut ClearOps, &str, &[ClearCiphertext], f64) =
            &mut |ops, name, cts, bound| {
                let slots: Vec<Vec<Complex>> = cts.iter().map(|ct| ops.decrypt(ct)).collect();
                let all = slots.iter().flatten();
                let largest = all.fold(0.0, |m: f64, z| m.max(z.re.abs()).max(z.im.abs()));
                if !(largest <= bound) {
                    excess.push(format!("{name}: {largest:.3}"));
                }
                layers.push(circuit, name, || (slots, ids.len()));
            };
        let start = Instant::now();
        let (out, stages) = circuit.run(
            &mut self.ops,
            (&mut self.refresh, &mut self.plains),
            &inputs,
            watch,
        )?;
        let took = start.elapsed();
        let slots: Vec<Vec<Complex>> = out.iter().map(|ct| self.ops.decrypt(ct)).collect();
        Ok(Outcome {
            answer: circuit.read(&slots, ids.len()),
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
