//! Mode `sim` for commands that answer many sentences.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use veilformer::any::AnyModel;
use veilformer::ckks::SecretKind;
use veilformer::client::{Answer, ClientBundle};
use veilformer::runtime::{RuntimeError, ServerBundle, Simulator};

use super::error::{Failure, Result};

/// Answers with simulated noise, and what left its promised range.
pub struct Simulated {
    /// One per sentence, in their order.
    pub answers: Vec<Answer>,
    /// One line per value and sentence (or batch of them) that left its range.
    pub violations: Vec<String>,
    /// Per value of the program the largest part of its promised range that any sentence took.
    pub used: Vec<f64>,
}

/// Simulates the compiled model on all sentences; what is drawn for one follows from its place in
/// the list and `seed`.
pub fn simulate(
    model: &AnyModel,
    (client, server): (&ClientBundle, &ServerBundle),
    sentences: &[&str],
    seed: u64,
    progress: impl Fn(usize, usize) + Sync,
) -> Result<Simulated> {
    let signature = client.signature();
    let (program, params) = (server.program(), server.params());
    let done = AtomicUsize::new(0);
    let open = || Simulator::new(program, params, SecretKind::DenseTernary);
    let one = |simulator: &mut std::result::Result<Simulator<'_>, RuntimeError>,
               (number, batch): (usize, &[&str])| {
        let simulator = simulator
            .as_mut()
            .map_err(|e| Failure::system(format!("{e}; please report this")))?;
        let rows = batch
            .iter()
            .map(|text| model.rows(text))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let pack = |spec| signature.pack(spec, &rows, params.slots());
        let inputs: Vec<Vec<f64>> = signature.inputs.iter().map(pack).collect();
        let run = simulator.run(&inputs, seed.wrapping_add(number as u64))?;
        let answers = signature.unpack(&run.outputs).into_iter();
        let answers = answers
            .take(batch.len())
            .map(|a| client.answer_of(a.logits));
        progress(
            done.fetch_add(batch.len(), Ordering::Relaxed) + batch.len(),
            sentences.len(),
        );
        let violations = run.violations.iter().map(ToString::to_string);
        Ok(Simulated {
            answers: answers.collect(),
            violations: violations.collect(),
            used: run.used,
        })
    };
    let parts = sentences
        .par_chunks(signature.batch.max(1))
        .enumerate()
        .map_init(open, one)
        .collect::<Result<Vec<_>>>()?;
    let mut all = Simulated {
        answers: Vec::with_capacity(sentences.len()),
        violations: Vec::new(),
        used: vec![0.0; program.values.len()],
    };
    for part in parts {
        all.answers.extend(part.answers);
        all.violations.extend(part.violations);
        for (most, used) in all.used.iter_mut().zip(part.used) {
            *most = most.max(used);
        }
    }
    Ok(all)
}
