//! Raw text and the spaced form of treebank corpora give the same tokens.
// Helpers of tests stand outside the test functions that clippy lets unwrap.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Xorshift, root, shared};
use proptest::prelude::*;
use std::sync::LazyLock;
use veilformer_models::tokenizer::wordpiece_json;
use veilformer_models::{DataSet, Tokenizer};

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    Tokenizer::load(&root().join("models/minilm-tokens/tokenizer.json"))
        .expect("the shipped tokenizer")
});

fn ids(text: &str) -> Vec<u32> {
    TOKENIZER.encode(text).unwrap_or_default()
}

/// (raw, spaced as the treebank's script does it).
const PAIRS: &[(&str, &str)] = &[
    ("It wasn't good.", "it was n't good ."),
    ("It wasn\u{2019}t good.", "it was n't good ."),
    (
        "I can't, I won't and I shan't!",
        "i ca n't , i wo n't and i sha n't !",
    ),
    ("You cannot say that", "you can not say that"),
    ("it's", "it 's"),
    (
        "they're, we've, I'd, he'll, I'm",
        "they 're , we 've , i 'd , he 'll , i 'm",
    ),
    ("The actors' faces", "the actors ' faces"),
    (
        "I'm gonna, you gotta, we wanna",
        "i 'm gon na , you got ta , we wan na",
    ),
    ("Gimme more, lemme go", "gim me more , lem me go"),
    ("'Tis true; 'twas dull", "'t is true ; 't was dull"),
    ("a film (of sorts)", "a film -lrb- of sorts -rrb-"),
    ("a film [of sorts]", "a film -LSB- of sorts -RSB-"),
    (
        "He said: \u{201C}never again\u{201D}",
        "he said : `` never again ''",
    ),
    ("He said: \"never again\"", "he said : `` never again ''"),
    ("fast \u{2014} very fast", "fast -- very fast"),
    ("fast\u{2014}very fast", "fast -- very fast"),
    ("a must-see", "a must-see"),
    ("what?!", "what ? !"),
    ("and/or", "and\\/or"),
    ("rock 'n' roll", "rock ' n ' roll"),
    ("Well\u{2026} no", "well ... no"),
    ("$10 and 50%", "$ 10 and 50 %"),
    ("Clich\u{E9}d", "cliched"),
    ("Cliche\u{301}d", "cliched"),
    ("one;two:three,four", "one ; two : three , four"),
];

#[test]
fn raw_and_spaced_forms_agree() {
    for (raw, spaced) in PAIRS {
        assert!(!ids(raw).is_empty(), "{raw}");
        assert_eq!(ids(raw), ids(spaced), "{raw} / {spaced}");
    }
    assert_eq!(ids("can't"), ids("can not"));
    assert_eq!(ids("won't"), ids("will not"));
    assert_ne!(ids("good!"), ids("good"));
    assert_ne!(ids("good?"), ids("good!"));
    assert_ne!(ids("was"), ids("wasn't"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn sentences_made_of_both_forms_agree(
        choice in prop::collection::vec((0..PAIRS.len(), any::<bool>()), 1..5)
    ) {
        let join = |side: &dyn Fn(usize, bool) -> &'static str| {
            choice.iter().map(|&(i, b)| side(i, b)).collect::<Vec<_>>().join(" ")
        };
        let raw = join(&|i, _| PAIRS[i].0);
        let spaced = join(&|i, _| PAIRS[i].1);
        let mixed = join(&|i, b| if b { PAIRS[i].0 } else { PAIRS[i].1 });
        prop_assert_eq!(ids(&raw), ids(&spaced));
        prop_assert_eq!(ids(&raw), ids(&mixed));
        prop_assert_eq!(ids(&raw), ids(&raw.to_uppercase()));
    }

    #[test]
    fn any_text_gives_tokens_of_the_table_or_an_error(text in any::<String>()) {
        for id in ids(&text) {
            prop_assert!((id as usize) < TOKENIZER.vocab_size());
        }
    }
}

/// Writes a spaced sentence as a person would.
fn unspaced(text: &str) -> String {
    let mut out = format!(" {text} ");
    for (from, to) in [
        (" n't ", "n't "),
        (" n't ", "n't "),
        (" 's ", "\u{2019}s "),
        (" 're ", "'re "),
        (" 've ", "'ve "),
        (" 'll ", "'ll "),
        (" 'd ", "'d "),
        (" 'm ", "'m "),
        (" , ", ", "),
        (" . ", ". "),
        (" ; ", "; "),
        (" : ", ": "),
        (" ? ", "? "),
        (" ! ", "! "),
        ("`` ", "\u{201C}"),
        (" '' ", "\u{201D} "),
        ("-lrb- ", "("),
        (" -rrb-", ")"),
        (" gon na ", " gonna "),
        (" got ta ", " gotta "),
        (" wan na ", " wanna "),
        ("\\/", "/"),
        (" can not ", " cannot "),
        (" -- ", "\u{2014}"),
    ] {
        out = out.replace(from, to);
    }
    out.trim().to_owned()
}

#[test]
fn real_sentences_give_the_same_tokens_when_written_plainly_and_fit_the_model() {
    for (name, longest) in [("train", 58), ("dev", 48), ("test", 54)] {
        let Some(path) = shared(&format!("sst2/stsa.binary.{name}")) else {
            return;
        };
        let set = DataSet::load(&path).unwrap();
        let mut found = 0;
        for example in &set
            .sample(if name == "train" { 7000 } else { 2000 }, 1)
            .examples
        {
            let spaced = ids(&example.text);
            assert_eq!(spaced, ids(&unspaced(&example.text)), "{}", example.text);
            found = found.max(spaced.len());
        }
        assert_eq!(found, longest, "{name}");
    }
}

#[test]
fn empty_and_long_texts_are_refused() {
    for text in ["", "   ", "\t\n", "...", "\u{2014}", "\u{1F600}"] {
        let message = TOKENIZER.encode(text).unwrap_err().to_string();
        assert!(message.contains("empty"), "{message}");
    }
    let long = "word ".repeat(65);
    let message = TOKENIZER.encode_within(&long, 64).unwrap_err().to_string();
    assert!(
        message.contains("65 tokens") && message.contains("limit is 64"),
        "{message}"
    );
    assert_eq!(
        TOKENIZER
            .encode_within(&"word ".repeat(64), 64)
            .unwrap()
            .len(),
        64
    );
}

#[test]
fn text_cannot_name_a_special_token() {
    assert_eq!(ids("[SEP] good [PAD]"), ids("sep good pad"));
}

#[test]
fn a_padding_or_cutting_entry_has_no_effect() {
    let text = wordpiece_json(&["[UNK]", "a", "b"]).unwrap();
    let text = text.replace(
        "\"truncation\":null",
        r#""truncation":{"max_length":2,"strategy":"LongestFirst","stride":0,"direction":"Right"}"#,
    );
    let tokenizer = Tokenizer::from_bytes(text.as_bytes()).unwrap();
    assert_eq!(tokenizer.encode("a b a b").unwrap(), [1, 2, 1, 2]);
    assert_eq!(tokenizer.encode("a q").unwrap(), [1, 0]);
}

#[test]
fn wrong_files_are_refused() {
    for bytes in [
        &b""[..],
        b"{}",
        b"\xff",
        b"{\"model\":{\"type\":\"WordPiece\"}}",
    ] {
        let message = Tokenizer::from_bytes(bytes).unwrap_err().to_string();
        assert!(message.contains("tokenizer.json"), "{message}");
    }
    let good = wordpiece_json(&["[UNK]", "a", "b"]).unwrap();
    for (from, to, expected) in [
        ("\"a\":1", "\"a\":2", "each once"),
        ("\"a\":1", "\"a\":3", "expected the ids 0 to 2"),
        (
            "\"type\":\"WordPiece\",\"unk",
            "\"type\":\"BPE\",\"unk",
            "model.type is `BPE`",
        ),
        (
            "\"added_tokens\":[]",
            "\"added_tokens\":[1]",
            "added tokens",
        ),
        (
            "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}",
            "\"pre_tokenizer\":{\"type\":\"FixedLength\",\"length\":0}",
            "the type of pre_tokenizer is `FixedLength`",
        ),
        (
            "\"type\":\"Sequence\"}",
            "\"type\":\"Precompiled\",\"precompiled_charsmap\":\"\"}",
            "the type of normalizer is `Precompiled`",
        ),
        (
            "\"type\":\"BertNormalizer\"",
            "\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"",
            "the type of normalizer is `Precompiled`",
        ),
        (
            "\"unk_token\":\"[UNK]\"",
            "\"unk_token\":\"[NOPE]\"",
            "`[NOPE]`, which is not in model.vocab",
        ),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{from}");
        let message = Tokenizer::from_bytes(text.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}");
    }
    assert!(wordpiece_json(&["a"]).is_err());
    assert!(wordpiece_json(&["[UNK]", "a", "a"]).is_err());
}

fn mutate(rounds: usize) {
    let text = wordpiece_json(&["[UNK]", "a", "b", "##c"]).unwrap();
    let mut rng = Xorshift(4);
    for _ in 0..rounds {
        let mut bytes = text.as_bytes().to_vec();
        rng.mutate(&mut bytes);
        if let Ok(tokenizer) = Tokenizer::from_bytes(&bytes) {
            let _ = tokenizer.encode("a bc wasn't [UNK] !");
        }
    }
}

#[test]
fn mutated_files_never_panic() {
    mutate(2_000);
}

#[test]
#[ignore = "takes 20 seconds"]
fn a_hundred_thousand_mutated_files_never_panic() {
    mutate(100_000);
}
