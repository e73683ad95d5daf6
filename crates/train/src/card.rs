//! The model's card (`README.md` of its folder).

use std::fmt::Write as _;

use veilformer_models::{Checkpoint, Layers, Linear, Norm, Pooling};

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
    /// The shipped model.
    pub model: &'a Checkpoint,
    /// History of the run.
    pub progress: &'a Progress,
    /// Figures of the shipped model.
    pub figures: &'a Figures,
    /// Test accuracy before a token table of the model's own was rounded.
    pub unrounded_test: f64,
    /// Dev and test accuracy of the bag of words.
    pub bag_of_words: [f64; 2],
    /// Dev and test accuracy of the model with token vectors learned from scratch, and the size of
    /// its vocabulary.
    pub from_scratch: Option<([f64; 2], usize)>,
}

/// The card's text in Markdown; a function of the facts only, without date or machine.
pub fn text(facts: &Facts<'_>) -> String {
    let recipe = facts.recipe;
    let mut out = format!("# {}\n\n{}\n\n", recipe.name, recipe.task);
    architecture(&mut out, facts);
    let position = match facts.model.embedding.position {
        Some(_) => "token table and position table are",
        None => "and token table are",
    };
    let _ = writeln!(
        out,
        "**The client looks the embedding up.** Tokenizer{} {position} used on the client's side, \
         in the clear; the server gets only encrypted vectors. Whoever holds the model folder \
         holds the whole model.\n",
        if position.starts_with("and") { "" } else { "," }
    );
    accuracies(&mut out, facts);
    ranges(&mut out, facts);
    data(&mut out, facts);
    out.push_str("## Recipe\n\n");
    for note in &recipe.notes {
        let _ = writeln!(out, "* {note}");
    }
    let features = match &recipe.features.table {
        Some(table) => format!(
            "FOLDER_OF_{}",
            table.name.to_uppercase().replace(['-', '.'], "_")
        ),
        None => "FEATURES".to_owned(),
    };
    let _ = write!(
        out,
        "\n`recipe.toml` holds every hyperparameter and seed. Train again with\n\n```\n\
         cargo run --release -p veilformer-train -- train recipe.toml --data DATA_FOLDER \
         --features {features} --out OUT\n```\n\n\
         `golden.json` holds the logits of {} sentences, computed in f64 by the trainer from this \
         folder's files. `loss.svg` shows the training, `ranges.svg` how the intermediate values \
         are distributed.\n",
        recipe.golden.len()
    );
    out
}

fn architecture(out: &mut String, facts: &Facts<'_>) {
    let (recipe, model) = (facts.recipe, facts.model);
    let m = &recipe.model;
    let (name, shape, formulas) = match &model.layers {
        Layers::Transformer(layers) => {
            let heads = layers.first().map_or(0, |l| l.heads);
            let width = layers.first().map_or(0, |l| l.query.bias.len()) / heads.max(1);
            let channels = layers.first().map_or(0, |l| l.up.bias.len());
            (
                "A polynomial transformer",
                format!("{heads} heads of width {width}, {channels} feed-forward channels"),
                "Every operation is a polynomial: attention weights are the squared score over the \
                 number of tokens, `S^2 / n`, normalization is the affine map of batch \
                 normalization, and the activation is `u^2 + beta u` with a learned beta per \
                 channel (the coefficient of `u^2` is fixed at 1; the second matrix takes any \
                 factor)."
                    .to_owned(),
            )
        }
        Layers::StateSpace(layers) => {
            let times: Vec<f64> = layers
                .iter()
                .flat_map(|l| l.decay.iter().map(|a| -1.0 / a.ln()))
                .collect();
            let shortest = times.iter().copied().fold(f64::INFINITY, f64::min);
            let longest = times.iter().copied().fold(0.0, f64::max);
            let pooling = match model.config.pooling() {
                Pooling::Mean => "the mean over the tokens",
                Pooling::Last => "the last token",
            };
            let channels = layers.first().map_or(0, |l| l.decay.len());
            (
                "A public-decay state-space classifier (after arXiv 2605.16647)",
                format!("{channels} state channels"),
                format!(
                    "A layer writes `w = (1 - a) u g` into the state `s_t = a s_(t-1) + w_t`, with \
                     u and g affine in the normalized token vector, and adds an affine map of the \
                     state to the token vector; the classifier reads {pooling}. The product of u \
                     and g is the only one of two encrypted values; the decay a is learned, one \
                     per channel, and public, so that the recurrence is linear. Time constants \
                     after training run from {shortest:.1} to {longest:.1} tokens; normalization \
                     is the affine map of batch normalization."
                ),
            )
        }
    };
    let _ = writeln!(
        out,
        "{name}: {} layer(s), width {}, {shape}, at most {} tokens, {} tokens in the vocabulary; \
         {} parameters evaluated on ciphertexts. {formulas}\n",
        m.num_hidden_layers,
        m.hidden_size,
        m.max_position_embeddings,
        model.config.vocab_size,
        body_parameters(model),
    );
}

fn accuracies(out: &mut String, facts: &Facts<'_>) {
    let (figures, percent) = (facts.figures, |x: f64| format!("{:.2} %", 100.0 * x));
    let error = |x: f64, n: usize| 100.0 * (x * (1.0 - x) / n.max(1) as f64).sqrt();
    let _ = writeln!(out, "## Accuracy\n\n| | dev | test |\n|---|---|---|");
    let row = |out: &mut String, name: &str, [dev, test]: [f64; 2]| {
        let _ = writeln!(out, "| {name} | {} | {} |", percent(dev), percent(test));
    };
    row(
        out,
        "this model",
        [figures.dev_accuracy, figures.test_accuracy],
    );
    row(out, "bag of words of the same features", facts.bag_of_words);
    if let Some((accuracy, _)) = facts.from_scratch {
        row(
            out,
            "the same with token vectors learned from scratch",
            accuracy,
        );
    }
    let silenced = match facts.model.layers {
        Layers::Transformer(_) => "this model, attention output set to zero",
        Layers::StateSpace(_) => "this model, what is read from the state set to zero",
    };
    row(out, silenced, figures.without_mixing);
    let (size, test_size) = (figures.dev_size, figures.test_size);
    let _ = writeln!(out, "| sentences | {size} | {test_size} |");
    let _ = write!(
        out,
        "\nOne standard error is {:.1} points on dev and {:.1} on test. The epoch ({} of {}) was \
         selected by dev accuracy, of all trained models, so that the dev figures are optimistic; \
         test was not used for any choice. The bag of words is the mean of the projected features \
         and a linear map, trained by the same recipe.",
        error(figures.dev_accuracy, size),
        error(figures.test_accuracy, test_size),
        facts.progress.best_epoch + 1,
        facts.recipe.optimizer.epochs,
    );
    if let (Some((_, tokens)), Some(scratch)) = (facts.from_scratch, &facts.recipe.from_scratch) {
        let _ = write!(
            out,
            " From scratch means the same recipe without anything pre-trained: {tokens} token \
             vectors are learned, one for every word that stands in at least {} training sentences \
             and one for all others.",
            scratch.min_sentences
        );
    }
    if facts.model.embedding.projection.is_none() {
        let _ = write!(
            out,
            " Before the token table was rounded, test accuracy was {}.",
            percent(facts.unrounded_test)
        );
    }
    out.push_str("\n\n");
}

fn ranges(out: &mut String, facts: &Facts<'_>) {
    let figures = facts.figures;
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
    let names = match facts.model.layers {
        Layers::Transformer(_) => {
            "q, k, v, S: queries, keys, values, scores; o: attention before its output matrix; y: \
             after attention; u: input of the activation"
        }
        Layers::StateSpace(_) => {
            "u, g: the two factors; w: what is written into the state; s: the state; y: output of a \
             layer"
        }
    };
    let _ = writeln!(
        out,
        "\nE: the vectors of all tokens; x: input of the first layer; {names}. Standard deviation \
         of the logits over the test split: {}.\n",
        deviations.join(", ")
    );
}

fn data(out: &mut String, facts: &Facts<'_>) {
    let (recipe, corpus) = (facts.recipe, facts.corpus);
    let _ = writeln!(
        out,
        "## Data and licences\n\n{}\n\nOf the training sentences {} were left out because their \
         tokens are exactly those of a dev or test sentence; {} remain. The data is not part of \
         this folder.\n",
        recipe.data.terms,
        corpus.excluded,
        corpus.train.len(),
    );
    if corpus.too_long != [0; 3] {
        let [train, dev, test] = corpus.too_long;
        let _ = writeln!(
            out,
            "Sentences of more tokens than the model takes: {train} in train, left out; {dev} in \
             dev and {test} in test, counted as answered wrongly (`eval --long-as-wrong` counts \
             them so too).\n"
        );
    }
    let (source, license) = (&recipe.features.source, &recipe.features.license);
    let _ = match &recipe.features.table {
        Some(table) => writeln!(
            out,
            "Token features: {source} ({license}), frozen, as the shared token table \
             [{name}](../{name}/README.md), which saw no labelled data. A linear map to the \
             model's width was learned; it is part of the weights, and the client applies it.\n",
            name = table.name,
        ),
        None => writeln!(
            out,
            "Token features: {source} ({license}). They were frozen; a linear map to the model's \
             width was learned, its result rounded to 8 bits with one scale per feature, and all \
             figures above are measured with the rounded table.\n"
        ),
    };
}

fn body_parameters(model: &Checkpoint) -> usize {
    let linear = |l: &Linear| l.weight.data().len() + l.bias.len();
    let norm = |n: &Norm| 4 * n.weight.len();
    let layers: usize = match &model.layers {
        Layers::Transformer(layers) => layers
            .iter()
            .map(|l| {
                let linears = [&l.query, &l.key, &l.value, &l.output, &l.up, &l.down];
                linears.into_iter().map(linear).sum::<usize>()
                    + 2 * l.activation.len()
                    + norm(&l.norm1)
                    + norm(&l.norm2)
            })
            .sum(),
        Layers::StateSpace(layers) => layers
            .iter()
            .map(|l| {
                let linears = [&l.input, &l.gate, &l.output];
                linears.into_iter().map(linear).sum::<usize>() + l.decay.len() + norm(&l.norm)
            })
            .sum(),
    };
    layers + linear(&model.classifier)
}
