//! `explain`: the programs that a model becomes, as text.

use veilformer::compiler::schedule::schedule;

use crate::cli::error::Result;
use crate::cli::{Context, args, json, load};

pub fn run(context: &Context, args: &args::Explain) -> Result<()> {
    let what = args.model.as_deref().or(args.what.as_deref());
    let what = what.unwrap_or_default();
    let (bundle, model) = load::named_server_bundle(context, what, &args.target)?;
    let report = json::Explain {
        tensor_program: model.map(|m| m.program.print()),
        ciphertext_program: bundle.program().print(),
        device_program: args.device.then(|| {
            let threads = rayon::current_num_threads();
            let device = schedule(bundle.program(), bundle.params(), threads);
            device.print(bundle.program())
        }),
    };
    context.output.answer(&report, || {
        let tensor = report.tensor_program.as_deref().unwrap_or_default();
        let device = report.device_program.as_deref().unwrap_or_default();
        format!("{tensor}\n{}\n{device}", report.ciphertext_program)
            .trim()
            .to_owned()
    })
}
