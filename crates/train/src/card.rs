//! The model's card (`README.md` of its folder).

use std::fmt::Write as _;

use crate::corpus::Corpus;
use crate::export::Figures;
use crate::recipe::Recipe;
use crate::state::Progress;

/// What a card tells.
pub struct Facts<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// The data.
    pub corpus: &'a Corpus,
    /// History of the run.
    pub progress: &'a Progress,
    /// Figures of the shipped model.
    pub figures: &'a Figures,
    /// Test accuracy before the token table was rounded.
    pub unrounded_test: f64,
    /// Dev and test accuracy of the bag of words.
    pub bag_of_words: [f64; 2],
}

/// The card's text in Markdown; a function of the facts only, without date or machine.
pub fn text(facts: &Facts<'_>) -> String {
    let (recipe, corpus, figures) = (facts.recipe, facts.corpus, facts.figures);
    let mut out = format!("# {}\n\n{}\n\n", recipe.name, recipe.task);
    let m = &recipe.model;
    let body: usize = body_parameters(recipe);
    let _ = writeln!(
        out,
        "A polynomial transformer: {} layer(s), width {}, {} heads of width {}, {} feed-forward \
         channels, at most {} tokens, {} tokens in the vocabulary; {body} parameters evaluated on \
         ciphertexts. Every operation is a polynomial: attention weights are the squared score over \
         the number of tokens, `S^2 / n`, normalization is the affine map of batch normalization, \
         and the activation is `u^2 + beta u` with a learned beta per channel (the coefficient of \
         `u^2` is fixed at 1; the second matrix takes any factor).\n",
        m.num_hidden_layers,
        m.hidden_size,
        m.num_attention_heads,
        m.head_dim,
        m.intermediate_size,
        m.max_position_embeddings,
        corpus.features.tokens.len(),
    );
    out.push_str(
        "**The client looks the embedding up.** Tokenizer, token table and position table are used \
         on the client's side, in the clear; the server gets only encrypted vectors. Whoever holds \
         the model folder holds the whole model.\n\n",
    );
    accuracies(&mut out, facts);
    ranges(&mut out, figures);
    let _ = writeln!(
        out,
        "## Data and licences\n\n{}\n\nOf the training sentences {} were left out because their \
         tokens are exactly those of a dev or test sentence; {} remain. The data is not part of \
         this folder.\n\nToken features: {} ({}). They were frozen; a linear map to the model's \
         width was learned, its result rounded to 8 bits with one scale per feature, and all figures \
         above are measured with the rounded table.\n",
        recipe.data.terms,
        corpus.excluded,
        corpus.train.len(),
        recipe.features.source,
        recipe.features.license,
    );
    out.push_str("## Recipe\n\n");
    for note in &recipe.notes {
        let _ = writeln!(out, "* {note}");
    }
    let _ = write!(
        out,
        "\n`recipe.toml` holds every hyperparameter and seed. Train again with\n\n```\n\
         cargo run --release -p veilformer-train -- train recipe.toml --data DATA_FOLDER \
         --features FEATURES --out OUT\n```\n\n\
         `golden.json` holds the logits of {} sentences, computed in f64 by the trainer from this \
         folder's files.\n",
        recipe.golden.len()
    );
    out
}

fn accuracies(out: &mut String, facts: &Facts<'_>) {
    let (figures, percent) = (facts.figures, |x: f64| format!("{:.2} %", 100.0 * x));
    let error = |x: f64, n: usize| 100.0 * (x * (1.0 - x) / n.max(1) as f64).sqrt();
    let _ = writeln!(out, "## Accuracy\n\n| | dev | test |\n|---|---|---|");
    let row = |out: &mut String, name: &str, dev: String, test: String| {
        let _ = writeln!(out, "| {name} | {dev} | {test} |");
    };
    row(
        out,
        "this model",
        percent(figures.dev_accuracy),
        percent(figures.test_accuracy),
    );
    let [dev, test] = facts.bag_of_words;
    row(
        out,
        "bag of words of the same features",
        percent(dev),
        percent(test),
    );
    let [dev, test] = figures.without_attention;
    row(
        out,
        "this model, attention output set to zero",
        percent(dev),
        percent(test),
    );
    let (size, test_size) = (figures.dev_size, figures.test_size);
    row(out, "sentences", size.to_string(), test_size.to_string());
    let _ = writeln!(
        out,
        "\nOne standard error is {:.1} points on dev and {:.1} on test. The epoch ({} of {}) was \
         selected by dev accuracy, of both models, so that the dev figures are optimistic; test was \
         not used for any choice. The bag of words is the mean of the projected features and a \
         linear map, trained by the same recipe. Before the token table was rounded, test accuracy \
         was {}.\n",
        error(figures.dev_accuracy, size),
        error(figures.test_accuracy, test_size),
        facts.progress.best_epoch + 1,
        facts.recipe.optimizer.epochs,
        percent(facts.unrounded_test),
    );
}

fn ranges(out: &mut String, figures: &Figures) {
    out.push_str(
        "## Ranges\n\nSmallest and largest value over all training, dev and test sentences:\n\n\
         | value | smallest | largest |\n|---|---|---|\n",
    );
    for (name, low, high) in &figures.ranges {
        let _ = writeln!(out, "| {name} | {low:.3} | {high:.3} |");
    }
    let deviations: Vec<String> = figures
        .test_logit_std
        .iter()
        .map(|s| format!("{s:.4}"))
        .collect();
    let _ = writeln!(
        out,
        "\nE: the whole token table; x: input of the first layer; q, k, v, S: queries, keys, values, scores; o: attention \
         before its output matrix; y: after attention; u: input of the activation. Standard \
         deviation of the logits over the test split: {}.\n",
        deviations.join(", ")
    );
}

fn body_parameters(recipe: &Recipe) -> usize {
    let m = &recipe.model;
    let (d, a, f) = (
        m.hidden_size,
        m.num_attention_heads * m.head_dim,
        m.intermediate_size,
    );
    let attention = 3 * (a * d + a) + d * a + d;
    let feed_forward = f * d + f + 2 * f + d * f + d;
    let norms = 2 * 4 * d;
    m.num_hidden_layers * (attention + feed_forward + norms) + m.labels.len() * (d + 1)
}
