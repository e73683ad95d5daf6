//! Hugging Face folders of random encoders of any shape, for tests and benches.

use std::collections::HashMap;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use veilformer_ir::encoder::AttentionFunction;

use crate::error::{ModelError, Result};

/// The shape of a random encoder, and how wide its values range.
#[derive(Clone, Debug, PartialEq)]
pub struct RandomEncoder {
    /// Layers.
    pub layers: usize,
    /// Features of a token.
    pub hidden: usize,
    /// Heads per layer.
    pub heads: usize,
    /// Features between the two maps of the feed-forward part.
    pub intermediate: usize,
    /// Name of the activation, as config.json has it.
    pub activation: String,
    /// From scores to attention weights.
    pub attention: AttentionFunction,
    /// Rows of the position table.
    pub positions: usize,
    /// Rows of the token table, at least 96: special tokens, letters and digits come first.
    pub vocabulary: usize,
    /// Labels of a classifier; 0 for an embedding model in the sentence-transformers form.
    pub labels: usize,
    /// Per layer, the magnitude that attention scores and activation inputs reach; the last entry
    /// holds for all further layers, and no entry for a layer stands for (4, 4).
    pub ranges: Vec<(f64, f64)>,
}

impl RandomEncoder {
    /// The shape of BERT-base, with ranges per layer that are at least those that
    /// all-MiniLM-L6-v2 has on SST-2, each of its layers' for two.
    pub fn bert_base() -> Self {
        let minilm = [
            (46.0, 25.0),
            (20.0, 20.0),
            (18.0, 18.0),
            (13.0, 14.0),
            (20.0, 10.0),
            (11.0, 11.0),
        ];
        Self {
            layers: 12,
            hidden: 768,
            heads: 12,
            intermediate: 3072,
            activation: "gelu".into(),
            attention: AttentionFunction::Softmax,
            positions: 512,
            vocabulary: 30522,
            labels: 2,
            ranges: minilm.into_iter().flat_map(|r| [r, r]).collect(),
        }
    }
}

/// Writes a Hugging Face folder of random weights into `dir`, which is made if absent:
/// `config.json`, `model.safetensors`, `tokenizer.json`, `vocab.txt`, and for an embedding model
/// `modules.json` with its pooling. The same for a seed on every machine (up to the last bits of
/// its logarithm and cosine).
///
/// As in trained models, few heads and channels reach the wide ranges: in each layer the first head
/// and the first four channels of the feed-forward part.
///
/// # Errors
/// When the shape is not one of an encoder, or a file cannot be written.
pub fn write_random_folder(dir: &Path, shape: &RandomEncoder, seed: u64) -> Result<()> {
    let s = shape;
    let sizes = [s.layers, s.hidden, s.heads, s.intermediate, s.positions];
    if sizes.contains(&0) || !s.hidden.is_multiple_of(s.heads) || s.vocabulary < 96 {
        return Err(ModelError::Config(
            "a random encoder has at least one layer, feature, head, channel and position, 96 \
             tokens, and heads that divide the features"
                .into(),
        ));
    }
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        let parent = path.parent().unwrap_or(dir);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, bytes))
            .map_err(|source| ModelError::Write { path, source })
    };
    put("config.json", config(s).to_string().as_bytes())?;
    put("model.safetensors", &weights(s, seed)?)?;
    let tokens = vocabulary(s.vocabulary);
    put("tokenizer.json", tokenizer(&tokens).to_string().as_bytes())?;
    put("vocab.txt", (tokens.join("\n") + "\n").as_bytes())?;
    if s.labels == 0 {
        let module = |idx: usize, path: &str, kind: &str| {
            serde_json::json!({"idx": idx, "name": idx.to_string(), "path": path,
                "type": format!("sentence_transformers.models.{kind}")})
        };
        let modules = serde_json::json!([
            module(0, "", "Transformer"),
            module(1, "1_Pooling", "Pooling"),
            module(2, "2_Normalize", "Normalize")
        ]);
        let pooling = serde_json::json!({
            "word_embedding_dimension": s.hidden, "pooling_mode_cls_token": false,
            "pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": false
        });
        put("modules.json", modules.to_string().as_bytes())?;
        put("1_Pooling/config.json", pooling.to_string().as_bytes())?;
    }
    Ok(())
}

fn config(s: &RandomEncoder) -> serde_json::Value {
    let name = if s.labels == 0 {
        "BertModel"
    } else {
        "BertForSequenceClassification"
    };
    let mut file = serde_json::json!({
        "architectures": [name], "model_type": "bert", "hidden_size": s.hidden,
        "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
        "intermediate_size": s.intermediate, "hidden_act": s.activation,
        "max_position_embeddings": s.positions, "type_vocab_size": 2,
        "vocab_size": s.vocabulary, "layer_norm_eps": 1e-12, "pad_token_id": 0,
        "position_embedding_type": "absolute"
    });
    if let AttentionFunction::PowerSoftmax { power, epsilon } = s.attention {
        file["attention_function"] = "power_softmax".into();
        file["power_softmax_power"] = power.into();
        file["power_softmax_epsilon"] = epsilon.into();
    }
    if s.labels > 0 {
        let labels: serde_json::Map<String, serde_json::Value> = (0..s.labels)
            .map(|l| (l.to_string(), format!("label {l}").into()))
            .collect();
        file["id2label"] = labels.into();
    }
    file
}

/// Special tokens, then what spells any word of letters and digits, then made-up words.
fn vocabulary(count: usize) -> Vec<String> {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let letters = || ('a'..='z').chain('0'..='9');
    let mut tokens: Vec<String> = special.into();
    tokens.extend(letters().map(String::from));
    tokens.extend(letters().map(|c| format!("##{c}")));
    tokens.extend(".,!?'-:;()".chars().map(String::from));
    // Two letters, then three, ..: base 26 without a zero.
    let mut number = 27usize;
    while tokens.len() < count {
        let (mut rest, mut word) = (number, String::new());
        while rest > 0 {
            word.insert(0, char::from(b'a' + ((rest - 1) % 26) as u8));
            rest = (rest - 1) / 26;
        }
        tokens.push(word);
        number += 1;
    }
    tokens.truncate(count);
    tokens
}

fn tokenizer(tokens: &[String]) -> serde_json::Value {
    let vocab: serde_json::Map<String, serde_json::Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| (token.clone(), id.into()))
        .collect();
    let added: Vec<serde_json::Value> = tokens
        .iter()
        .take(5)
        .enumerate()
        .map(|(id, token)| {
            serde_json::json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    serde_json::json!({
        "version": "1.0",
        "truncation": {"max_length": 16, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab}
    })
}

struct Tensors {
    rng: ChaCha8Rng,
    all: Vec<(String, Vec<usize>, Vec<u8>)>,
}

impl Tensors {
    /// Normal values (Box & Muller 1958) around `mean`, of deviation `sd(row)`.
    fn push(&mut self, name: &str, shape: &[usize], mean: f64, sd: impl Fn(usize) -> f64) {
        let width = shape.get(1).copied().unwrap_or(1);
        let count: usize = shape.iter().product();
        let mut unit = || (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut bytes = Vec::with_capacity(count * 4);
        for index in 0..count {
            let radius = (-2.0 * (1.0 - unit()).ln()).sqrt();
            let normal = radius * (std::f64::consts::TAU * unit()).cos();
            let value = (mean + sd(index / width) * normal) as f32;
            bytes.extend(value.to_le_bytes());
        }
        self.all.push((name.to_owned(), shape.to_vec(), bytes));
    }

    fn dense(&mut self, name: &str, rows: usize, cols: usize, gain: impl Fn(usize) -> f64) {
        let unit = (cols as f64).sqrt().recip();
        self.push(&format!("{name}.weight"), &[rows, cols], 0.0, |r| {
            unit * gain(r)
        });
        self.push(&format!("{name}.bias"), &[rows], 0.0, |_| 0.05);
    }

    /// The last tensor anew, with another deviation per row.
    fn replace_last(&mut self, name: &str, shape: &[usize], sd: impl Fn(usize) -> f64) {
        self.all.pop();
        self.push(name, shape, 0.0, sd);
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.push(&format!("{name}.LayerNorm.weight"), &[width], 1.0, |_| 0.1);
        self.push(&format!("{name}.LayerNorm.bias"), &[width], 0.0, |_| 0.1);
    }
}

fn weights(s: &RandomEncoder, seed: u64) -> Result<Vec<u8>> {
    let mut t = Tensors {
        rng: ChaCha8Rng::seed_from_u64(seed),
        all: Vec::new(),
    };
    let (d, f) = (s.hidden, s.intermediate);
    let prefix = if s.labels == 0 { "" } else { "bert." };
    let e = format!("{prefix}embeddings");
    for (part, rows, sd) in [
        ("word", s.vocabulary, 1.0),
        ("position", s.positions, 0.3),
        ("token_type", 2, 0.1),
    ] {
        t.push(
            &format!("{e}.{part}_embeddings.weight"),
            &[rows, d],
            0.0,
            |_| sd,
        );
    }
    t.norm(&e, d);
    let dim = d / s.heads;
    for layer in 0..s.layers {
        let name = |part: &str| format!("{prefix}encoder.layer.{layer}.{part}");
        let last = s.ranges.len().saturating_sub(1);
        let (scores, inputs) = s.ranges.get(layer.min(last)).copied().unwrap_or((4.0, 4.0));
        // A score is a normal value of deviation gain^2, and a sentence has thousands of them:
        // four deviations are reached. Wide scores of trained models differ most from query to
        // query, and less within one: so the first head's, by the bias of its keys. There, as for
        // activation inputs, fewer deviations are counted on: one head or channel is one sample.
        let within = scores.min(6.0);
        let head = |row: usize| {
            let reached: f64 = if row / dim == 0 {
                within
            } else {
                within.min(4.0)
            };
            (reached / 4.0).sqrt()
        };
        let across = (scores - within) / 1.2 / head(0).max(f64::MIN_POSITIVE);
        let channel = |row: usize| if row < 4 { inputs / 2.0 } else { 1.0 };
        t.dense(&name("attention.self.query"), d, d, head);
        t.dense(&name("attention.self.key"), d, d, head);
        let wide = |row: usize| {
            if row / dim == 0 {
                across.max(0.05)
            } else {
                0.05
            }
        };
        t.replace_last(&name("attention.self.key.bias"), &[d], wide);
        t.dense(&name("attention.self.value"), d, d, |_| 1.0);
        t.dense(&name("attention.output.dense"), d, d, |_| 0.7);
        t.norm(&name("attention.output"), d);
        t.dense(&name("intermediate.dense"), f, d, channel);
        t.dense(&name("output.dense"), d, f, |_| 0.7);
        t.norm(&name("output"), d);
    }
    t.dense(&format!("{prefix}pooler.dense"), d, d, |_| 1.0);
    if s.labels > 0 {
        t.dense("classifier", s.labels, d, |_| 1.0);
    }
    let failed = |e: safetensors::SafeTensorError| ModelError::Safetensors(e.to_string());
    let views = t
        .all
        .iter()
        .map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(failed)?;
            Ok((name.as_str(), view))
        })
        .collect::<Result<Vec<_>>>()?;
    let info = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(info)).map_err(failed)
}
