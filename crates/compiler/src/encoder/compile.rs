//! An encoder to a ciphertext program: polynomials, layout, and the stages recorded with their
//! bootstraps.

use veilformer_circuits::bootstrap::BootstrapSpec;
use veilformer_ckks::Params;
use veilformer_ir::ciphertext::{PlainPattern, Recorder, ValueId};
use veilformer_ir::encoder::{Encoder, EncoderInput, Head, Ranges};
use veilformer_ir::{InputKind, InputSpec, Signature};

use super::Substitution;
use super::circuit::{Bootstraps, EncoderCircuit, Event, Layout, Plains, StageReport, Times};
use crate::placement::{Loops, Placement, place};
use crate::{CompileError, Compiled};

/// A compiled encoder.
#[derive(Clone, Debug)]
pub struct CompiledEncoder {
    /// What becomes the bundles.
    pub compiled: Compiled,
    /// Where it bootstraps.
    pub placement: Placement,
    /// Its stages: levels, ciphertexts and bootstraps of each.
    pub stages: Vec<StageReport>,
}

/// Compiles `model` with `substitution` in place of its functions, for sentences of up to `tokens`
/// tokens (special ones included) and for parameters that bootstrap as `bootstrap` says. `ranges` are
/// those of calibration, which the substitution was made for; `progress` hears the name of each stage
/// before it is recorded.
///
/// Weights and all other plaintexts with more than one value are rounded to 32-bit floating point
/// numbers, with which a file takes half as much: a relative error of at most 2^-24 of each, far below
/// what a level's rescale leaves.
///
/// Nothing is compiled that could leave its range: every value that goes into a bootstrap or a
/// polynomial is bounded in every slot, and [`CiphertextProgram::verify`] holds the program against that.
///
/// # Errors
/// A length that the model does not have; no layout for so many tokens; stages that are deeper than
/// what a bootstrap gives.
///
/// [`CiphertextProgram::verify`]: veilformer_ir::ciphertext::CiphertextProgram::verify
pub fn compile(
    model: &Encoder,
    (substitution, ranges): (&Substitution, &Ranges),
    (params, bootstrap): (&Params, &BootstrapSpec),
    tokens: usize,
    progress: &mut dyn FnMut(&str),
) -> Result<CompiledEncoder, CompileError> {
    let (found, limit) = (tokens, model.max_tokens());
    if !(1..=limit).contains(&found) {
        return Err(CompileError::Tokens { found, limit });
    }
    progress("layout");
    let at = |stage: &str| {
        let stage = stage.to_owned();
        move |source| CompileError::Stage { stage, source }
    };
    let layout = Layout::choose(model, tokens, params.slots()).map_err(at("layout"))?;
    let circuit =
        EncoderCircuit::new(model, (substitution, ranges), layout).map_err(at("layout"))?;

    let mut recorder = Recorder::new(params);
    let mut entry = |content| {
        let entry = recorder.bootstrap_entry(bootstrap, content);
        entry.map_err(at("bootstraps"))
    };
    let [complex, real] = layout.contents(params.slots());
    let (complex, real) = (entry(complex)?, entry(real)?);
    progress("placement of bootstraps");
    let times = Times::estimated(params);
    let [of_complex, of_real] = [complex, real].map(|which| recorder.bootstrap_info(which));
    let (Some(of_complex), Some(of_real)) = (of_complex, of_real) else {
        return Err(CompileError::Placement("there is no bootstrap".to_owned()));
    };
    let (input_level, output_level) = (of_complex.input_level, of_complex.output_level);
    let bootstraps = Bootstraps {
        input_level,
        output_level,
        complex,
        real,
    };
    let machine = times.machine(of_complex, of_real);
    let flow = circuit.flow(params, &bootstraps, &times);
    let flow = flow.map_err(at("placement of bootstraps"))?;
    let placement = place(&flow, &machine, Loops::Free).map_err(|e| match e {
        CompileError::Placement(what) => CompileError::Placement(format!(
            "{what}: a stage is deeper than the {} levels that a bootstrap gives; allow larger errors or \
             take a preset with more levels",
            output_level - input_level
        )),
        other => other,
    })?;
    let mut specs = Vec::new();
    recorder.section("inputs");
    let inputs = circuit.inputs().map(|kind: &EncoderInput| {
        specs.push(InputSpec {
            kind: InputKind::Encoder(*kind),
            power: 0.0,
            level: output_level,
        });
        recorder.input(output_level, 1.0)
    })?;
    let mut last = String::new();
    let mut watch = |recorder: &mut Recorder, event: Event<'_, ValueId>| match event {
        Event::Stage(name) => {
            progress(name);
            recorder.section(name);
            name.clone_into(&mut last);
        }
        Event::Bound(_, values, bound) => {
            values
                .iter()
                .for_each(|value| recorder.tighten(*value, bound));
        }
        Event::End(_) => {}
    };
    let mut plains = Plains::default();
    let run = circuit.run(
        &mut recorder,
        (&bootstraps, &placement),
        (&inputs, &mut plains),
        &mut watch,
    );
    let (outputs, stages) = run.map_err(at(&last))?;
    let slots = *circuit.slots();
    let labels = match &model.head {
        Head::Classifier { labels, .. } => labels.clone(),
        Head::Embedding { .. } => Vec::new(),
    };
    // The recorder has its own copy of the weights.
    drop(circuit);
    let mut program = recorder.finish(outputs);
    program
        .plains
        .iter_mut()
        .for_each(|plain| round(&mut plain.pattern));
    progress("verification");
    program.verify(params)?;
    let signature = Signature {
        max_tokens: tokens,
        run: layout.heads.tokens,
        batch: 1,
        features: model.hidden(),
        inputs: specs,
        answer_bound: slots.answer_bound,
        labels,
        encoder: Some(slots),
    };
    Ok(CompiledEncoder {
        compiled: Compiled {
            params: params.clone(),
            keys: program.key_list(params),
            program,
            signature,
        },
        placement,
        stages,
    })
}

/// Values to the nearest 32-bit numbers.
fn round(pattern: &mut PlainPattern) {
    if let PlainPattern::Slots(slots) = pattern {
        for z in slots.entries_mut() {
            z.re = f64::from(z.re as f32);
            z.im = f64::from(z.im as f32);
        }
    }
}
