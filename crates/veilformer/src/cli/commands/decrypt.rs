//! `decrypt`: answers become labels, for the owner of the secret key.

use crate::cli::error::{Failure, Result};
use crate::cli::files;
use crate::cli::{Context, args, json, load};

pub fn run(context: &Context, args: &args::Decrypt) -> Result<()> {
    let bundle = load::client_bundle(&args.client)?;
    let secret = load::secret_key(&args.secret, bundle.params())?;
    let answer = files::read(&args.answer)?;
    let answers = bundle
        .decrypt(&secret, &answer)
        .map_err(|e| Failure::from(e).of(&args.answer))?;
    let labelled = |a| json::LabelledAnswer::new(a, bundle.labels());
    let report = json::Decrypt {
        answers: answers.iter().map(labelled).collect(),
    };
    context.output.answer(&report, || {
        let line = |a: &json::LabelledAnswer| {
            let logits: Vec<String> = a.logits.iter().map(|l| format!("{l:.6}")).collect();
            if a.label.is_empty() {
                return format!("{}\n", logits.join(" "));
            }
            format!(
                "{} ({:.2} %), logits {}\n",
                a.label,
                100.0 * a.probability,
                logits.join(" ")
            )
        };
        report.answers.iter().map(line).collect()
    })
}
