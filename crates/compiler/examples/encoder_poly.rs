//! Substitution on a real model: calibrates a folder on a data set's sentences, substitutes, and
//! compares `poly` with the original on another one.
//!
//! ```text
//! cargo run --release -p veilformer-compiler --example encoder_poly -- \
//!     FOLDER CALIBRATION_DATA TEST_DATA [name=value ..]
//! ```
//!
//! Values are those of `Budget`; numbers of sentences, `calibrate` and `test`; `center=0` leaves
//! the keys as they are; `verbose=1` prints every site. After `--` come further values to try.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use veilformer_compiler::encoder::{Budget, Polynomials, substitute};
use veilformer_ir::encoder::Ranges;
use veilformer_models::DataSet;
use veilformer_models::encoder::{EncoderFolder, Execution, Trace, calibrate, center_keys};
use veilformer_models::interpreter::label_of;

/// What the command line says.
struct Settings {
    budget: Budget,
    calibrate: f64,
    test: f64,
    center: f64,
    verbose: f64,
}

impl Settings {
    fn read(&mut self, settings: &[String]) -> Result<(), Box<dyn Error>> {
        let budget = &mut self.budget;
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
                "sum_margin" => &mut budget.sum_margin,
                "max_depth" => &mut depth,
                "calibrate" => &mut self.calibrate,
                "test" => &mut self.test,
                "center" => &mut self.center,
                "verbose" => &mut self.verbose,
                other => return Err(format!("no setting {other}").into()),
            } = value.parse()?;
        }
        budget.max_depth = depth as usize;
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, calibration, test, rest @ ..] = arguments.as_slice() else {
        return Err("FOLDER CALIBRATION_DATA TEST_DATA [name=value ..] [-- name=value ..]".into());
    };
    let mut groups = rest.split(|a| a == "--");
    let mut settings = Settings {
        budget: Budget::default(),
        calibrate: 500.0,
        test: 20.0,
        center: 1.0,
        verbose: 0.0,
    };
    settings.read(groups.next().unwrap_or_default())?;
    let mut folder = EncoderFolder::load(Path::new(folder), 128)?;
    let tokens = |path: &str, count: f64| -> Result<Vec<Vec<u32>>, Box<dyn Error>> {
        let set = DataSet::load(Path::new(path))?.sample(count as usize, 1);
        let ids = set
            .examples
            .iter()
            .map(|e| folder.tokenizer.encode(&e.text));
        Ok(ids.collect::<Result<_, _>>()?)
    };
    let calibration = tokens(calibration, settings.calibrate)?;
    let test = tokens(test, settings.test)?;
    let start = Instant::now();
    if settings.center > 0.0 {
        center_keys(&mut folder.encoder, &calibration)?;
    }
    let centered = start.elapsed();
    let execution = Execution::new(&folder.encoder)?;
    let ranges = calibrate(&execution, &calibration)?;
    let all = start.elapsed();
    println!(
        "{} sentences; keys centred in {centered:.1?}, calibrated by {all:.1?}",
        ranges.sentences
    );
    run(&execution, &ranges, &test, &settings)?;
    for group in groups {
        println!("-- {}", group.join(" "));
        settings.read(group)?;
        if let Err(e) = run(&execution, &ranges, &test, &settings) {
            println!("{e}");
        }
    }
    Ok(())
}

fn run(
    execution: &Execution<'_>,
    ranges: &Ranges,
    test: &[Vec<u32>],
    settings: &Settings,
) -> Result<(), Box<dyn Error>> {
    let model = execution.model();
    let substitution = substitute(ranges, model, &settings.budget)?;
    let report = substitution.report();
    if settings.verbose > 0.0 {
        report.iter().for_each(|site| println!("{site}"));
    }
    let depths: Vec<String> = report.iter().map(|site| site.depth.to_string()).collect();
    let per_layer: Vec<String> = depths.chunks(5).map(|layer| layer.join("+")).collect();
    println!("depth {}: {}", substitution.depth(), per_layer.join("  "));
    let mut cosines = Vec::new();
    let (mut agree, mut worst) = (0, 0.0f64);
    let mut layers = vec![0.0f64; model.layers.len()];
    let mut violations = Vec::new();
    for ids in test {
        let input = execution.embed(ids)?;
        let mut clear = Trace::new(execution.exact());
        let mut poly = Trace::new(Polynomials::new(&substitution));
        let a = execution.answer(&input, &mut clear)?;
        let b = execution.answer(&input, &mut poly)?;
        for (layer, error) in layers.iter_mut().enumerate() {
            *error = error.max(poly.relative_error(&clear, layer));
        }
        violations.extend(poly.functions().violations().first().cloned());
        agree += usize::from(label_of(&a) == label_of(&b));
        let largest = |m: f64, (a, b): (&f64, &f64)| m.max((a - b).abs());
        worst = a.iter().zip(&b).fold(worst, largest);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let cosine = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
        cosines.push(if cosine.is_nan() { -1.0 } else { cosine });
    }
    cosines.sort_by(f64::total_cmp);
    let at = |part: usize| cosines.get(cosines.len() * part / 100).unwrap_or(&0.0);
    println!(
        "{} sentences: cosine least {:.5}, of 5% {:.5}, median {:.5}; largest error {worst:.4}; \
         labels equal {agree}",
        test.len(),
        at(0),
        at(5),
        at(50)
    );
    let layers: Vec<String> = layers.iter().map(|e| format!("{e:.1e}")).collect();
    println!("relative error per layer: {}", layers.join(" "));
    println!(
        "{} sentences with range violations, first ones:",
        violations.len()
    );
    for v in violations.iter().take(8) {
        println!(
            "  {}: {:.3} outside of {:?}, by {:.2} of it",
            v.site,
            v.value,
            v.range,
            v.excess()
        );
    }
    Ok(())
}
