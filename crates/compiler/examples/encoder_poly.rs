//! Substitution on a real model: calibrates a folder on a data set's sentences, substitutes, and
//! compares `poly` with the original on another one.
//!
//! ```text
//! cargo run --release -p veilformer-compiler --example encoder_poly -- \
//!     FOLDER CALIBRATION_DATA TEST_DATA [name=value ..]
//! ```
//!
//! Values are those of `Budget`, and `calibrate`, `test`: numbers of sentences.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use veilformer_compiler::encoder::{Budget, Polynomials, substitute};
use veilformer_models::DataSet;
use veilformer_models::encoder::{EncoderFolder, Execution, Trace, calibrate, center_keys};
use veilformer_models::interpreter::label_of;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, calibration, test, settings @ ..] = arguments.as_slice() else {
        return Err("FOLDER CALIBRATION_DATA TEST_DATA [name=value ..]".into());
    };
    let (mut budget, mut count, mut tests, mut center) = (Budget::default(), 500.0, 20.0, 1.0);
    let mut depth = budget.max_depth as f64;
    for setting in settings {
        let (name, value) = setting.split_once('=').ok_or("name=value")?;
        *match name {
            "exponential" => &mut budget.exponential,
            "inverse" => &mut budget.inverse,
            "inverse_root" => &mut budget.inverse_root,
            "activation" => &mut budget.activation,
            "tanh" => &mut budget.tanh,
            "margin" => &mut budget.margin,
            "max_depth" => &mut depth,
            "calibrate" => &mut count,
            "test" => &mut tests,
            "center" => &mut center,
            other => return Err(format!("no setting {other}").into()),
        } = value.parse()?;
    }
    budget.max_depth = depth as usize;
    let mut folder = EncoderFolder::load(Path::new(folder), 128)?;
    let tokens = |path: &str, count: f64| -> Result<Vec<Vec<u32>>, Box<dyn Error>> {
        let set = DataSet::load(Path::new(path))?.sample(count as usize, 1);
        let ids = set
            .examples
            .iter()
            .map(|e| folder.tokenizer.encode(&e.text));
        Ok(ids.collect::<Result<_, _>>()?)
    };
    let (calibration, test) = (tokens(calibration, count)?, tokens(test, tests)?);
    let start = Instant::now();
    if center > 0.0 {
        center_keys(&mut folder.encoder, &calibration)?;
    }
    let centered = start.elapsed();
    let execution = Execution::new(&folder.encoder)?;
    let ranges = calibrate(&execution, &calibration)?;
    println!(
        "{} sentences; keys centred in {centered:.1?}, calibrated by {:.1?}",
        ranges.sentences,
        start.elapsed()
    );
    let substitution = substitute(&ranges, folder.encoder.activation, &budget)?;
    for site in substitution.report() {
        println!("{site}");
    }
    println!(
        "depth {}, substituted by {:.1?}",
        substitution.depth(),
        start.elapsed()
    );
    let (mut agree, mut worst, mut least) = (0, 0.0f64, 1.0f64);
    let mut layers = vec![0.0f64; folder.encoder.layers.len()];
    let mut violations = Vec::new();
    for ids in &test {
        let input = execution.embed(ids)?;
        let mut clear = Trace::new(execution.exact());
        let mut poly = Trace::new(Polynomials::new(&substitution));
        let a = execution.answer(&input, &mut clear)?;
        let b = execution.answer(&input, &mut poly)?;
        for (layer, error) in layers.iter_mut().enumerate() {
            *error = error.max(poly.relative_error(&clear, layer));
        }
        violations.extend(poly.functions().violations().to_vec());
        agree += usize::from(label_of(&a) == label_of(&b));
        worst = a
            .iter()
            .zip(&b)
            .fold(worst, |m, (a, b)| m.max((a - b).abs()));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        least = least.min(dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt());
    }
    println!(
        "{} sentences: least cosine {least:.5}, largest error {worst:.4}, labels equal {agree}",
        test.len()
    );
    let layers: Vec<String> = layers.iter().map(|e| format!("{e:.1e}")).collect();
    println!("relative error per layer: {}", layers.join(" "));
    println!("{} range violations", violations.len());
    violations.sort_by(|a, b| b.excess().total_cmp(&a.excess()));
    for v in violations.iter().take(5) {
        println!("  {}: {:.3} outside of {:?}", v.site, v.value, v.range);
    }
    Ok(())
}
