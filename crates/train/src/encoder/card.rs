//! The card of a trained encoder.

use std::fmt::Write;

use super::ranges::LayerWidths;
use super::recipe::EncoderRecipe;
use super::run::Metrics;

/// The text of `README.md`.
pub fn text(recipe: &EncoderRecipe, metrics: &Metrics) -> String {
    let mut out = format!("# {}\n\n{}\n\n", recipe.name, recipe.task);
    let percent = |x: f64| format!("{:.2} %", 100.0 * x);
    let kind = match &recipe.student {
        None => {
            "Fine-tuned: softmax, LayerNorm and activation are those of the model it comes from."
                .into()
        }
        Some(s) => format!(
            "A student: attention has the weights `s^{p} / ({e} + sum of s^{p})` over a sentence's \
             tokens, the activation is `x^2/8 + x/4 + 1/2`, LayerNorm is exact with {n} added to \
             variances.",
            p = s.power,
            e = s.epsilon,
            n = s.layer_norm_eps
        ),
    };
    let _ = writeln!(out, "{kind} It comes from {}.\n", recipe.origin);
    let _ = writeln!(out, "## Accuracy\n\n| | dev | test |\n|---|---|---|");
    let mut row = |name: &str, dev: f64, test: f64| {
        let _ = writeln!(out, "| {name} | {} | {} |", percent(dev), percent(test));
    };
    row("this model", metrics.dev_accuracy, metrics.test_accuracy);
    if let Some([dev, test]) = metrics.teacher {
        row("its teacher", dev, test);
    }
    let [train, dev, test] = metrics.sizes;
    let error = |p: f64, n: usize| 100.0 * (p * (1.0 - p) / n.max(1) as f64).sqrt();
    let _ = writeln!(
        out,
        "\n{dev} sentences of dev and {test} of test; one standard error is {:.1} points on dev and \
         {:.1} on test. The last epoch is kept, none was selected.\n",
        error(metrics.dev_accuracy, dev),
        error(metrics.test_accuracy, test)
    );
    let _ = writeln!(
        out,
        "| epoch | loss | range term | dev |\n|---|---|---|---|"
    );
    for (i, e) in metrics.history.iter().enumerate() {
        let _ = writeln!(
            out,
            "| {} | {:.4} | {:.4} | {} |",
            i + 1,
            e.loss,
            e.range_loss,
            percent(e.dev_accuracy)
        );
    }
    out.push_str(
        "\n## Ranges\n\nOver dev and test, per layer: largest over smallest sum of attention in the \
         worst head; largest over smallest variance after attention and after the feed-forward \
         part, of first tokens and of all others; and the activation's argument.\n\n",
    );
    ranges(&mut out, "after training", &metrics.ranges);
    if let Some(before) = &metrics.ranges_before {
        ranges(&mut out, "before", before);
    }
    let _ = writeln!(
        out,
        "## Data\n\n{} {train} training sentences; {} more were left out because their tokens are \
         exactly those of a dev or test sentence. The data is not part of this folder.",
        recipe.data.terms, metrics.excluded
    );
    if !recipe.notes.is_empty() {
        out.push_str("\n## Notes\n\n");
        for note in &recipe.notes {
            let _ = writeln!(out, "* {note}");
        }
    }
    out
}

fn ranges(out: &mut String, when: &str, layers: &[LayerWidths]) {
    let _ = writeln!(
        out,
        "| {when}: layer | sums | variances, attention | variances, feed-forward | activation \
         |\n|---|---|---|---|---|"
    );
    for (i, l) in layers.iter().enumerate() {
        let [a, b, c, d] = l.variance_ratios;
        let [low, high] = l.activation;
        let _ = writeln!(
            out,
            "| {i} | {:.3e} | {a:.2}, {b:.1} | {c:.2}, {d:.1} | {low:.1} .. {high:.1} |",
            l.sum_ratio
        );
    }
    out.push('\n');
}
