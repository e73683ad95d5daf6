//! `explain`: the programs that a model becomes, as text.

use std::path::Path;

use veilformer::build::build;
use veilformer::ckks::SecurityLevel;
use veilformer::model::ModelFiles;

use crate::cli::error::Result;
use crate::cli::{Context, args, json, load};

pub fn run(context: &Context, args: &args::Explain) -> Result<()> {
    let path = Path::new(&args.what);
    let report = if path.is_file() {
        json::Explain {
            tensor_program: None,
            ciphertext_program: load::server_bundle(path)?.program().print(),
        }
    } else {
        let files = ModelFiles::find(&args.what)?;
        let stage = context.progress.stage("compiling the model");
        let model = files.load()?;
        let bundles = build(&model, SecurityLevel::Bits128)?;
        stage.finish();
        json::Explain {
            tensor_program: Some(model.program.print()),
            ciphertext_program: bundles.server.program().print(),
        }
    };
    context.output.answer(&report, || {
        let tensor = report.tensor_program.as_deref().unwrap_or_default();
        format!("{tensor}\n{}", report.ciphertext_program)
            .trim_start()
            .to_owned()
    })
}
