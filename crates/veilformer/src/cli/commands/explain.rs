//! `explain`: the programs that a model becomes, as text.

use veilformer::any::AnyModel;
use veilformer::compiler::schedule::schedule;
use veilformer::ir::ciphertext::{CiphertextProgram, Operation};

use crate::cli::error::{Failure, Result};
use crate::cli::output::table;
use crate::cli::{Context, args, json, load};

pub fn run(context: &Context, args: &args::Explain) -> Result<()> {
    let what = args.model.as_deref().or(args.what.as_deref());
    let what = what.unwrap_or_default();
    let (bundle, model) = load::named_server_bundle(context, what, &args.target)?;
    let substitutions = match &model {
        Some(AnyModel::Encoder(model)) => Some(model.substitution.report()),
        _ if args.substitutions => {
            let refused = "--substitutions is for the Hugging Face folder of an encoder: in a bundle \
                           there are polynomials alone, and our own families have no other functions";
            return Err(Failure::input(refused));
        }
        _ => None,
    };
    let report = json::Explain {
        tensor_program: match &model {
            Some(AnyModel::Own(model)) => Some(model.program.print()),
            _ => None,
        },
        substitutions,
        ciphertext_program: bundle.program().print(),
        device_program: args.device.then(|| {
            let threads = rayon::current_num_threads();
            let device = schedule(bundle.program(), bundle.params(), threads);
            device.print(bundle.program())
        }),
    };
    context.output.answer(&report, || {
        let sites = report.substitutions.iter().flatten();
        let sites: String = sites.map(|site| format!("{site}\n")).collect();
        if args.substitutions {
            return format!("{sites}\n{}", stages(bundle.program()));
        }
        let tensor = report.tensor_program.as_deref().unwrap_or_default();
        let device = report.device_program.as_deref().unwrap_or_default();
        format!("{sites}{tensor}\n{}\n{device}", report.ciphertext_program)
            .trim()
            .to_owned()
    })
}

/// Per part of the program: the levels of its values, operations and bootstraps.
fn stages(program: &CiphertextProgram) -> String {
    let mut rows = vec![
        ["stage", "levels", "operations", "bootstraps"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for (number, name) in program.sections.iter().enumerate() {
        let own = || {
            let all = program.instructions.iter();
            all.filter(move |i| i.section as usize == number)
        };
        let results = own().flat_map(|i| &i.results);
        let levels = results.filter_map(|id| Some(program.info(*id)?.level));
        let (low, high) = levels.fold((usize::MAX, 0), |(a, b), l| (a.min(l), b.max(l)));
        let is_bootstrap = |o: &Operation| matches!(o, Operation::Bootstrap { .. });
        let bootstraps = own().filter(|i| is_bootstrap(&i.operation)).count();
        if own().next().is_some() {
            rows.push(vec![
                name.clone(),
                format!("{high} > {low}"),
                own().count().to_string(),
                bootstraps.to_string(),
            ]);
        }
    }
    table(&rows)
}
