//! Shared token tables: where they are looked for, and what is refused.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::path::Path;

use common::tiny_ssm;
use safetensors::tensor::{Dtype, TensorView};
use veilformer_models::config::TokenTableRef;
use veilformer_models::folder::{TABLE_FILE, TOKENIZER_FILE};
use veilformer_models::tokenizer::wordpiece_json;
use veilformer_models::{
    Checkpoint, EmbeddingTable, FolderFiles, ModelFolder, TokenTableFiles, random_checkpoint,
};

const WORDS: [&str; 7] = ["[UNK]", "a", "good", "bad", "film", "not", "##s"];

/// A model that names a shared table, and the table.
fn model() -> (Checkpoint, TokenTableFiles) {
    let mut config = tiny_ssm();
    let table = random_checkpoint(&config, 1).unwrap().embedding.table;
    let files = TokenTableFiles {
        name: "tiny-tokens".into(),
        table: table.to_bytes().unwrap().into(),
        tokenizer: wordpiece_json(&WORDS).unwrap().into_bytes().into(),
    };
    config.token_table = Some(files.reference());
    (random_checkpoint(&config, 1).unwrap(), files)
}

fn put(dir: &Path, files: &TokenTableFiles) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join(TABLE_FILE), &files.table).unwrap();
    std::fs::write(dir.join(TOKENIZER_FILE), &files.tokenizer).unwrap();
}

fn refusal(dir: &Path) -> String {
    ModelFolder::load(dir).unwrap_err().to_string()
}

#[test]
fn a_table_is_looked_for_in_the_folder_beside_it_and_among_the_known() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("model");
    let (checkpoint, files) = model();
    checkpoint.save(&dir).unwrap();
    let missing = refusal(&dir);
    assert!(
        missing.contains("`tiny-tokens`: it is neither in the model's folder"),
        "{missing}"
    );
    let known = FolderFiles::read(&dir, std::slice::from_ref(&files)).unwrap();
    assert!(known.load().unwrap().checkpoint == checkpoint);

    put(&root.path().join("tiny-tokens"), &files);
    let folder = ModelFolder::load(&dir).unwrap();
    assert!(folder.checkpoint == checkpoint);
    assert_eq!(folder.encode("a good film").unwrap(), [1, 2, 4]);

    // The folder's own table comes first, even if it is the wrong one.
    let mut other = files.clone();
    other.tokenizer = wordpiece_json(&["[UNK]"]).unwrap().into_bytes().into();
    put(&dir, &other);
    let wrong = refusal(&dir);
    assert!(
        wrong.contains("the digest of tokenizer.json begins with"),
        "{wrong}"
    );
    put(&dir, &files);
    assert!(ModelFolder::load(&dir).unwrap().checkpoint == checkpoint);
}

#[test]
fn another_table_or_none_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("model");
    let (checkpoint, files) = model();
    checkpoint.save(&dir).unwrap();
    let mut changed = files.clone();
    let last = changed.table.len() - 1;
    changed.table.to_mut()[last] ^= 1;
    put(&dir, &changed);
    let message = refusal(&dir);
    assert!(
        message.contains("the digest of token_table.safetensors begins with"),
        "{message}"
    );
    std::fs::remove_file(dir.join(TOKENIZER_FILE)).unwrap();
    assert!(refusal(&dir).contains("tokenizer.json"));

    // A model with a table of its own takes no other.
    let own = FolderFiles {
        config: checkpoint.config.to_json().unwrap().into_bytes().into(),
        weights: checkpoint.to_bytes().unwrap().into(),
        tokens: veilformer_models::TokenFiles::Own(files.tokenizer.clone()),
    };
    assert!(own.load().unwrap_err().to_string().contains("tiny-tokens"));
    let none = TokenTableFiles::named(&checkpoint.config, &[]).unwrap_err();
    assert!(none.to_string().contains("copy the folder tiny-tokens"));
}

#[test]
fn a_table_file_that_is_none_is_refused_with_its_reason() {
    let (checkpoint, _) = model();
    let table = checkpoint.embedding.table;
    let bytes = table.to_bytes().unwrap();
    assert_eq!(EmbeddingTable::from_bytes(&bytes).unwrap(), table);
    let refusal = |bytes: &[u8]| EmbeddingTable::from_bytes(bytes).unwrap_err();
    assert!(refusal(&bytes[..bytes.len() - 1]).contains("malformed"));
    let weights = random_checkpoint(&common::tiny(), 1).unwrap().to_bytes();
    assert!(refusal(&weights.unwrap()).contains("no tensor `embedding.weight` of type U8"));
    let pack = |name: &str, weight: &[u8], scale: f32| {
        let scale: Vec<u8> = [scale; 2].iter().flat_map(|s| s.to_le_bytes()).collect();
        let view =
            |dtype, shape: &[usize], bytes| TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
        let views = [
            (
                "embedding.weight",
                view(Dtype::U8, &[2, weight.len() / 2], weight),
            ),
            (name, view(Dtype::U8, &[2], &[4, 8])),
            ("embedding.scale", view(Dtype::F32, &[2], &scale)),
        ];
        safetensors::serialize(views, None::<HashMap<String, String>>).unwrap()
    };
    assert!(EmbeddingTable::from_bytes(&pack("embedding.bits", &[0; 4], 1.0)).is_ok());
    for (bytes, expected) in [
        (
            pack("embedding.bit", &[0; 4], 1.0),
            "no tensor `embedding.bits`",
        ),
        (
            pack("embedding.bits", &[0; 6], 1.0),
            "it has 6 bytes of values, expected 4",
        ),
        (
            pack("embedding.bits", &[0; 4], f32::NAN),
            "not a finite number",
        ),
    ] {
        let message = refusal(&bytes);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_reference_is_of_both_files() {
    let (_, files) = model();
    let TokenTableRef {
        name,
        blake3,
        tokenizer_blake3,
    } = files.reference();
    assert_eq!(name, "tiny-tokens");
    assert_ne!(blake3, tokenizer_blake3);
    let text = blake3.to_string();
    assert_eq!(text.len(), 64);
    assert_eq!(
        veilformer_models::digest::Digest::parse(&text),
        Some(blake3)
    );
    assert!(text.starts_with(&blake3.short()));
}
