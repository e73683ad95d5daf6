//! `models`: what ships inside this program.

use veilformer::model::{ModelFiles, shipped};

use crate::cli::error::Result;
use crate::cli::output::{bytes, table};
use crate::cli::{Context, args, json};

pub fn run(context: &Context, args: &args::Models) -> Result<()> {
    let chosen = match &args.name {
        Some(name) => vec![ModelFiles::find(name)?],
        None => shipped()?,
    };
    let models = chosen.iter().map(describe).collect::<Result<Vec<_>>>()?;
    let report = json::Models { models };
    context.output.answer(&report, || match &args.name {
        Some(_) => report.models.iter().map(|m| m.card.as_str()).collect(),
        None => {
            let row = |m: &json::ShippedModel| {
                vec![
                    m.name.clone(),
                    m.summary.clone(),
                    m.labels.join(" / "),
                    format!("{} tokens", m.max_tokens),
                    bytes(m.bytes),
                ]
            };
            table(&report.models.iter().map(row).collect::<Vec<_>>())
        }
    })
}

fn describe(files: &ModelFiles) -> Result<json::ShippedModel> {
    let config = files.config()?;
    let card = String::from_utf8_lossy(&files.card).into_owned();
    let mut paragraphs = card.lines().map(str::trim);
    let first = paragraphs.find(|l| !l.is_empty() && !l.starts_with('#'));
    let label = |c| config.label(c).map(str::to_owned);
    Ok(json::ShippedModel {
        name: files.name.clone(),
        summary: first
            .and_then(|l| l.split_once(". ").map(|s| s.0).or(Some(l)))
            .unwrap_or_default()
            .trim_end_matches('.')
            .to_owned(),
        labels: (0..config.num_classes()).filter_map(label).collect(),
        max_tokens: config.max_position_embeddings,
        bytes: files.files.size() as u64,
        card,
    })
}
