//! Encoders of the BERT family: import, and execution in the clear.
#![allow(clippy::unwrap_used)]

mod common;

use std::ops::ControlFlow;
use std::sync::Mutex;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use veilformer_ir::encoder::{Activation, AttentionFunction, Encoder, Head, Pooling};
use veilformer_models::encoder::{
    EncoderConfig, EncoderFolder, Execution, Progress, RandomEncoder, calibrate,
    calibrate_observed, center_keys, center_keys_observed, encoder_from_bytes, write_random_folder,
};
use veilformer_models::interpreter::label_of;
use veilformer_models::{DataSet, ModelError};

/// The encoder that shares no size with a shipped or published one.
fn other(labels: usize) -> RandomEncoder {
    RandomEncoder {
        layers: 2,
        hidden: 192,
        heads: 3,
        intermediate: 480,
        activation: "gelu_pytorch_tanh".into(),
        attention: AttentionFunction::Softmax,
        positions: 48,
        vocabulary: 1000,
        labels,
        ranges: vec![(12.0, 9.0), (6.0, 5.0)],
    }
}

fn folder(shape: &RandomEncoder) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_random_folder(dir.path(), shape, 7).unwrap();
    dir
}

fn tokens(folder: &EncoderFolder, texts: &[&str]) -> Vec<Vec<u32>> {
    texts
        .iter()
        .map(|text| folder.tokenizer.encode(text).unwrap())
        .collect()
}

#[test]
fn bert_tiny_has_its_published_accuracy() {
    let (Some(dir), Some(data)) = (
        common::shared("bert_tiny_sst2"),
        common::shared("sst2/stsa.binary.dev"),
    ) else {
        return;
    };
    let folder = EncoderFolder::load(&dir, 128).unwrap();
    let set = DataSet::load(&data).unwrap();
    let ids: Vec<_> = set
        .examples
        .iter()
        .map(|e| folder.tokenizer.encode(&e.text).unwrap())
        .collect();
    let answers = Execution::new(&folder.encoder)
        .unwrap()
        .answers(&ids)
        .unwrap();
    let right = set.examples.iter().zip(&answers);
    let right = right.filter(|(e, a)| label_of(a) == e.label).count();
    assert_eq!((right, ids.len()), (690, 872));
}

#[test]
fn minilm_knows_what_is_alike() {
    let Some(dir) = common::minilm() else { return };
    let folder = EncoderFolder::load(dir.path(), 128).unwrap();
    let head = &folder.encoder.head;
    assert!(matches!(
        head,
        Head::Embedding {
            pooling: Pooling::Mean,
            normalize: true
        }
    ));
    let ids = tokens(
        &folder,
        &[
            "A man is eating food.",
            "A man is eating a piece of bread.",
            "The girl is carrying a baby.",
        ],
    );
    let e = Execution::new(&folder.encoder)
        .unwrap()
        .answers(&ids)
        .unwrap();
    let cosine = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    // By an independent program (numpy, from the definition).
    assert!((cosine(&e[0], &e[1]) - 0.755_337_080_617_691_1).abs() < 1e-9);
    assert!((cosine(&e[0], &e[2]) + 0.104_958_497_200_244_65).abs() < 1e-9);
}

/// Answers of an independent program (numpy in doubles, from the definition) for the folders that
/// `other` describes: tokens, logits, features 0, 95 and 191 of the embedding.
#[test]
fn any_shape_is_as_an_independent_program_computes_it() {
    let golden = [
        (
            "the cat sat",
            8,
            [0.6596118072630166, -1.2430137156016958, 0.5172611845480786],
            [
                0.11285086491503052,
                -0.0716826499508271,
                -0.03513834370846483,
            ],
        ),
        (
            "a",
            3,
            [1.2037228838904597, -1.1352652050099075, 0.30470938592166136],
            [
                0.22968781538090038,
                -0.06268799355994106,
                -0.017063178661000013,
            ],
        ),
        (
            "a tale of 2 cities: x1 is y2, or is it not so?",
            27,
            [0.7210989309859873, -1.3768236356257009, 0.5026334485040886],
            [
                0.15312421754672506,
                -0.053760368206666104,
                -0.04419637995399084,
            ],
        ),
    ];
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    for labels in [0, 3] {
        let dir = folder(&other(labels));
        let folder = EncoderFolder::load(dir.path(), 48).unwrap();
        assert_eq!(folder.encoder.activation, Activation::GeluTanh);
        let execution = Execution::new(&folder.encoder).unwrap();
        for (text, count, logits, embedding) in golden {
            // The file's own padding and cutting at 16 are not taken over.
            let ids = folder.tokenizer.encode(text).unwrap();
            assert_eq!(ids.len(), count);
            let answer = &execution.answers(&[ids]).unwrap()[0];
            if labels == 0 {
                assert_eq!(answer.len(), 192);
                close(answer.iter().map(|v| v * v).sum(), 1.0);
                for (index, value) in [0, 95, 191].into_iter().zip(embedding) {
                    close(answer[index], value);
                }
            } else {
                answer.iter().zip(logits).for_each(|(a, l)| close(*a, l));
            }
        }
    }
}

/// The same with power-softmax and a quadratic activation; the weights are the same.
fn powers(labels: usize) -> RandomEncoder {
    RandomEncoder {
        activation: "quadratic".into(),
        attention: AttentionFunction::PowerSoftmax {
            power: 4,
            epsilon: 0.5,
        },
        ..other(labels)
    }
}

/// Logits of an independent program (Python, from the definition in doubles) for these folders.
#[test]
fn power_softmax_is_as_an_independent_program_computes_it() {
    let golden = [
        (
            "the cat sat",
            [0.7444149826059061, -1.0658464185231413, 0.2829394009265143],
        ),
        (
            "a",
            [
                1.1863639088907638,
                -1.2105425113117618,
                -0.03288014704992316,
            ],
        ),
    ];
    let dir = folder(&powers(3));
    let loaded = EncoderFolder::load(dir.path(), 48).unwrap();
    assert_eq!(loaded.encoder.activation, Activation::Quadratic);
    assert_eq!(loaded.encoder.attention, powers(3).attention);
    let execution = Execution::new(&loaded.encoder).unwrap();
    for (text, logits) in golden {
        let answer = &execution.answers(&tokens(&loaded, &[text])).unwrap()[0];
        for (a, l) in answer.iter().zip(logits) {
            assert!((a - l).abs() < 1e-9, "{answer:?} is not {logits:?}");
        }
    }
    // The absence of its fields, and the name, are softmax.
    let usual = EncoderFolder::load(folder(&other(3)).path(), 48).unwrap();
    let named = changed("config.json", |text| {
        text.replacen('{', "{\"attention_function\":\"softmax\",", 1)
    });
    assert_eq!(usual.encoder.attention, AttentionFunction::Softmax);
    assert!(named.unwrap().encoder == usual.encoder);
    // Nothing is centred, and calibration sees the sums with their epsilon.
    let ids = tokens(&loaded, &["the cat sat", "a b c d e f"]);
    let mut encoder = loaded.encoder.clone();
    center_keys(&mut encoder, &ids).unwrap();
    assert!(encoder == loaded.encoder);
    let ranges = calibrate(&execution, &ids).unwrap();
    for layer in &ranges.layers {
        for (sums, scores) in layer.log_sums.iter().zip(&layer.scores) {
            let most = (11.0 * scores.magnitude().powi(4) + 0.5).ln();
            assert!(sums.low >= 0.5f64.ln() && sums.high <= most, "{sums:?}");
        }
    }
    encoder.layers[0].centering = Some(Vec::new());
    let error = Execution::new(&encoder).unwrap_err().to_string();
    assert!(error.contains("no softmax"), "{error}");
}

#[test]
fn every_sentence_is_heard_of_and_any_may_be_the_last() {
    let folder = EncoderFolder::load(folder(&other(3)).path(), 48).unwrap();
    // More than a chunk, of one to four words.
    let texts: Vec<String> = (0..100)
        .map(|i| "a b c d "[..2 * (1 + i % 4)].to_owned())
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let ids = tokens(&folder, &texts);
    let heads = folder.encoder.layers.len() * folder.encoder.heads;
    let steps = [
        ("collecting queries", 100),
        ("centring keys", heads),
        ("calibrating", 100),
    ];

    let work = |progress: &Progress<'_>| -> Result<_, ModelError> {
        let mut encoder = folder.encoder.clone();
        center_keys_observed(&mut encoder, &ids, progress)?;
        calibrate_observed(&Execution::new(&encoder)?, &ids, progress)
    };
    let heard = Mutex::new(Vec::new());
    let ranges = work(&|reached| {
        heard.lock().unwrap().push(reached);
        ControlFlow::Continue(())
    });
    let mut encoder = folder.encoder.clone();
    center_keys(&mut encoder, &ids).unwrap();
    let unheard = calibrate(&Execution::new(&encoder).unwrap(), &ids);
    assert_eq!(ranges.unwrap(), unheard.unwrap());
    let heard = heard.into_inner().unwrap();
    let expected = steps
        .iter()
        .flat_map(|&(step, total)| (0..=total).map(move |n| (step, n, total)));
    assert!(heard.iter().map(|r| (r.step, r.done, r.total)).eq(expected));
    for pair in heard.windows(2).filter(|pair| pair[0].step == pair[1].step) {
        assert!(pair[0].share < pair[1].share, "{pair:?}");
    }
    assert!(
        heard
            .iter()
            .all(|r| r.share.is_some() && (r.done < r.total || r.share == Some(1.0)))
    );

    for (step, total) in steps {
        for last in [0, 1, total - 1] {
            let stopped = work(
                &|reached| match reached.step == step && reached.done >= last {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                },
            );
            // Another thread may have finished its sentence meanwhile.
            let error = stopped.unwrap_err();
            let ModelError::Stopped {
                step: at,
                done,
                total: of,
            } = error
            else {
                panic!("{error}");
            };
            assert_eq!((at, of), (step, total));
            assert!(
                (last..=last + 64).contains(&done),
                "{done} of {total}, {last} asked for"
            );
        }
    }
}

#[test]
fn power_softmax_without_what_belongs_to_it_is_refused() {
    let refused_as = |from: &str, to: &str, words: &[&str]| {
        let dir = folder(&powers(3));
        let path = dir.path().join("config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        refused(EncoderFolder::load(dir.path(), 48), words);
    };
    let power = r#""power_softmax_power":4"#;
    let epsilon = r#""power_softmax_epsilon":0.5"#;
    let needs = "needs power_softmax_power (even, 2 to 8) and power_softmax_epsilon (above 0)";
    for wrong in [0, 1, 3, 10] {
        let to = format!(r#""power_softmax_power":{wrong}"#);
        let found = format!("power_softmax_power is {wrong}");
        refused_as(power, &to, &[&found, "an even power from 2 to 8"]);
    }
    for wrong in ["0", "-1.0", "0.0"] {
        let to = format!(r#""power_softmax_epsilon":{wrong}"#);
        refused_as(epsilon, &to, &["power_softmax_epsilon", "a number above 0"]);
    }
    refused_as(power, r#""x":1"#, &[needs]);
    refused_as(epsilon, r#""x":1"#, &[needs]);
    refused_as(
        power,
        r#""power_softmax_power":-4"#,
        &["power_softmax_power is -4, expected a whole number"],
    );
    refused_as(
        r#""attention_function":"power_softmax""#,
        r#""attention_function":"sparsemax""#,
        &["`sparsemax`", "supported are softmax and power_softmax"],
    );
    refused_as(
        r#""attention_function":"power_softmax""#,
        r#""x":1"#,
        &["attention_function is not `power_softmax`"],
    );
}

/// A folder of three labels whose `file` was changed.
fn changed(file: &str, change: impl Fn(&str) -> String) -> Result<EncoderFolder, ModelError> {
    let dir = folder(&other(3));
    let path = dir.path().join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, change(&text)).unwrap();
    EncoderFolder::load(dir.path(), 48)
}

fn refused(result: Result<EncoderFolder, ModelError>, words: &[&str]) {
    let message = result.expect_err("it has to be refused").to_string();
    for word in words {
        assert!(message.contains(word), "`{message}` does not say `{word}`");
    }
}

#[test]
fn configurations_that_are_not_supported_are_refused() {
    for (from, to, words) in [
        (
            "BertForSequenceClassification",
            "BertForMaskedLM",
            ["BertForMaskedLM", "supported"],
        ),
        (
            "gelu_pytorch_tanh",
            "silu",
            ["hidden_act is `silu`", "gelu"],
        ),
        (
            "\"absolute\"",
            "\"relative_key\"",
            ["relative_key", "absolute"],
        ),
        ("\"bert\"", "\"roberta\"", ["roberta", "bert"]),
        (
            "\"num_attention_heads\":3",
            "\"num_attention_heads\":5",
            ["5", "192"],
        ),
        (
            "\"hidden_size\":192",
            "\"hidden_size\":0",
            ["hidden_size is 0", "expected 1"],
        ),
        (
            "\"1\":\"label 1\"",
            "\"7\":\"label 1\"",
            ["\"1\"", "without gaps"],
        ),
        (
            "\"vocab_size\":1000",
            "\"vocab_size\":500",
            ["vocab_size 500", "id 500"],
        ),
        (
            "\"vocab_size\":1000",
            "\"vocab_size\":2000",
            ["1000 tokens", "vocab_size 2000"],
        ),
        (
            "\"intermediate_size\":480",
            "\"intermediate_size\":481",
            ["[480, 192]", "[481, 192]"],
        ),
        (
            "\"num_hidden_layers\":2",
            "\"num_hidden_layers\":1",
            ["encoder.layer.1", "holds"],
        ),
        (
            "\"num_hidden_layers\":2",
            "\"num_hidden_layers\":3",
            ["encoder.layer.2", "no tensor"],
        ),
        ("{", "", ["config.json", "copy"]),
    ] {
        refused(
            changed("config.json", |text| text.replacen(from, to, 1)),
            &words,
        );
    }
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let vocabulary = |text: &str| text.replace("[SEP]\n[MASK]", "[MASK]\n[SEP]");
    refused(
        changed("vocab.txt", vocabulary),
        &["line 4", "[MASK]", "id 4"],
    );
    let kind = |text: &str| {
        let from = "\"model\":{\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":100,\"type\":\"WordPiece\"";
        assert!(text.contains(from));
        text.replace(from, &from.replace("WordPiece", "BPE"))
    };
    refused(changed("tokenizer.json", kind), &["`BPE`", "WordPiece"]);
    let dir = folder(&other(3));
    let too_long = EncoderFolder::load(dir.path(), 49);
    refused(too_long, &["up to 49 tokens", "48"]);
    let loaded = EncoderFolder::load(dir.path(), 16).unwrap();
    let long = loaded
        .tokenizer
        .encode("one word and another word and one more");
    let message = long.unwrap_err().to_string();
    assert!(message.contains("limit is 16"), "{message}");
    assert!(loaded.tokenizer.encode(" ").is_err());
    let execution = Execution::new(&loaded.encoder).unwrap();
    for ids in [vec![], vec![1; 17], vec![1000]] {
        assert!(execution.answers(&[ids]).is_err());
    }
    let dir = folder(&other(0));
    let pooling = dir.path().join("1_Pooling/config.json");
    std::fs::write(&pooling, r#"{"pooling_mode_max_tokens": true}"#).unwrap();
    refused(
        EncoderFolder::load(dir.path(), 48),
        &["pooling", "no other is supported"],
    );
    let modules = r#"[{"path": "../x", "type": "sentence_transformers.models.Pooling"}]"#;
    std::fs::write(dir.path().join("modules.json"), modules).unwrap();
    refused(
        EncoderFolder::load(dir.path(), 48),
        &["modules.json", "../x"],
    );
}

/// The tensors of a folder of three labels, each as name, type, shape and bytes.
type Tensors = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

fn rewritten(change: impl Fn(&mut Tensors)) -> Result<Encoder, ModelError> {
    let dir = folder(&other(3));
    let config = std::fs::read(dir.path().join("config.json")).unwrap();
    let bytes = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Tensors = file
        .iter()
        .map(|(name, v)| {
            (
                name.to_owned(),
                v.dtype(),
                v.shape().to_vec(),
                v.data().to_vec(),
            )
        })
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    encoder_from_bytes(&EncoderConfig::from_json(&config).unwrap(), &bytes, 48)
}

#[test]
fn weights_are_read_under_every_name_and_of_every_type() {
    let usual = rewritten(|_| ()).unwrap();
    let bare = rewritten(|tensors| {
        for (name, ..) in tensors {
            *name = name.trim_start_matches("bert.").to_owned();
            *name = name.replace("LayerNorm.weight", "LayerNorm.gamma");
            *name = name.replace("LayerNorm.bias", "LayerNorm.beta");
        }
    });
    assert_eq!(bare.unwrap(), usual);
    // The upper half of a 32-bit number is the same number with fewer digits.
    let short = rewritten(|tensors| {
        for (_, dtype, _, bytes) in tensors {
            *dtype = Dtype::BF16;
            *bytes = bytes.chunks_exact(4).flat_map(|w| [w[2], w[3]]).collect();
        }
    });
    let short = short.unwrap();
    let pairs = short.layers[1]
        .up
        .weight
        .data()
        .iter()
        .zip(usual.layers[1].up.weight.data());
    for (a, b) in pairs {
        assert!((a - b).abs() <= b.abs() / 128.0);
    }
}

#[test]
fn weights_that_are_not_usable_are_refused_by_name() {
    let message = |change: &dyn Fn(&mut Tensors)| rewritten(change).unwrap_err().to_string();
    let name = "bert.encoder.layer.1.output.dense.weight";
    let position = |t: &Tensors| t.iter().position(|t| t.0 == name).unwrap();
    let missing = message(&|t| {
        let at = position(t);
        t.remove(at);
    });
    assert!(
        missing.contains(name) && missing.contains("no tensor"),
        "{missing}"
    );
    for (pattern, name) in [
        ("classifier.weight", "`classifier.weight`"),
        ("bert.pooler.dense.bias", "`bert.pooler.dense.bias`"),
        (
            "bert.embeddings.word_embeddings.weight",
            "`bert.embeddings.word_embeddings.weight`",
        ),
    ] {
        let missing = message(&|t| t.retain(|t| t.0 != pattern));
        assert!(missing.contains(&format!("no tensor {name}")), "{missing}");
    }
    for name in [
        "bert.encoder.layer.0.attention.self.query.lora_A.default.weight",
        "bert.encoder.layer.0.output.adapters.a.adapter_down.0.weight",
        "bert.encoder.layer.0.output.dense.weight_scale",
        "bert.embeddings.projection.weight",
        "encoder.layer.2.output.LayerNorm.weight",
    ] {
        let extra = (name.to_owned(), Dtype::F32, vec![1], vec![0; 4]);
        let unknown = message(&|t| t.push(extra.clone()));
        assert!(unknown.contains(name), "{unknown}");
    }
    let ignored = rewritten(|t| {
        for name in ["bert.embeddings.position_ids", "cls.predictions.bias"] {
            t.push((name.to_owned(), Dtype::I64, vec![1], vec![0; 8]));
        }
    });
    assert!(ignored.is_ok());
    let shape = message(&|t| {
        let at = position(t);
        t[at].2 = vec![480, 192];
    });
    assert!(
        shape.contains(name) && shape.contains("[480, 192], expected [192, 480]"),
        "{shape}"
    );
    let value = message(&|t| {
        let at = position(t);
        t[at].3[400..404].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert!(
        value.contains(name) && value.contains("NaN at index 100"),
        "{value}"
    );
    let dtype = message(&|t| {
        let at = position(t);
        (t[at].1, t[at].2) = (Dtype::F64, vec![96, 480]);
        t[at].2 = vec![192, 240];
    });
    assert!(dtype.contains(name), "{dtype}");
}
