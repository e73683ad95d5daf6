//! A valid file for every target, to start from.

use std::error::Error;

use veilformer_circuits::bootstrap::Content;
use veilformer_circuits::encoder::Heads;
use veilformer_circuits::testing::toy_bootstrap_of;
use veilformer_ckks::container::{
    Kind, ciphertexts_to_bytes, evaluation_keys_to_bytes, params_to_bytes, public_key_to_bytes,
};
use veilformer_ckks::testing::tiny_params;
use veilformer_ckks::{Complex, Ops, Params, SlotVector};
use veilformer_client::{BundleParts, ClientBundle, EncoderVectors, TokenVectors};
use veilformer_ir::ciphertext::{CiphertextProgram, Recorder};
use veilformer_ir::encoder::{AttentionFunction, EncoderInput, EncoderSlots};
use veilformer_ir::{InputKind, InputSpec, Signature};
use veilformer_models::encoder::{EncoderFolder, RandomEncoder, write_random_folder};
use veilformer_models::{
    EmbeddingTable, Matrix, ModelConfig, random_checkpoint, tokenizer::wordpiece_json,
};
use veilformer_runtime::{Cost, CostTable, ServerBundle};
use veilformer_secret::KeyGenerator;

use crate::toy::toy;

/// The configuration of the tiny model that `checkpoint` reads weights for.
pub const CONFIG: &str = r#"{"model_type":"veilformer-poly","format_version":1,"hidden_size":2,
"num_hidden_layers":1,"num_attention_heads":1,"head_dim":2,"intermediate_size":2,
"max_position_embeddings":4,"vocab_size":5,"attention":{"kind":"power","power":2,
"length_scaling":"1/n"},"activation":{"kind":"polynomial","degree":2},"normalization":"batch",
"norm_eps":1e-5,"pooling":"mean","id2label":{"0":"negative","1":"positive"}}"#;

/// The configuration of the tiny state-space model that `checkpoint` reads weights for; its token
/// table is [`table`].
pub const STATE_SPACE: &str = r#"{"model_type":"veilformer-ssm","format_version":1,"hidden_size":2,
"state_size":3,"num_hidden_layers":1,"max_position_embeddings":4,"vocab_size":5,
"token_table":{"name":"tiny","blake3":"0000000000000000000000000000000000000000000000000000000000000000",
"tokenizer_blake3":"0000000000000000000000000000000000000000000000000000000000000000"},
"pooling":"mean","norm_eps":1e-5,"id2label":{"0":"negative","1":"positive"}}"#;

/// The configuration that `encoder_weights` reads weights for.
pub const ENCODER: &str = r#"{"architectures":["BertModel"],"model_type":"bert","hidden_size":2,
"num_hidden_layers":1,"num_attention_heads":1,"intermediate_size":2,"max_position_embeddings":4,
"type_vocab_size":2,"vocab_size":96,"hidden_act":"gelu","layer_norm_eps":1e-12}"#;

/// A shared token table: five tokens, columns of 1, 2, 3, 5 and 8 bits.
///
/// # Panics
/// Never: its parts fit.
pub fn table() -> EmbeddingTable {
    let values = (0..25u8).map(|i| f64::from(i * 7 % 11) - 5.0).collect();
    let values = Matrix::from_rows(5, 5, values).expect("25 values");
    EmbeddingTable::quantize_to(&values, &[1, 2, 3, 5, 8]).expect("the bits fit")
}

/// Target and file.
pub type Seed = (&'static str, Vec<u8>);

/// One or more files per target.
///
/// # Errors
/// None in practice: whatever the libraries refuse.
pub fn all() -> Result<Vec<Seed>, Box<dyn Error>> {
    let toy = toy();
    let params = &toy.params;
    let seeded = toy.encrypt(params.max_level());
    let full = toy.encrypt(1).expand(params)?.into_stored();
    let ciphertexts = ciphertexts_to_bytes(Kind::Ciphertexts, params, &[seeded, full])?;
    let keys = evaluation_keys_to_bytes(params, &toy.keys)?;
    let mut generator = KeyGenerator::insecure_deterministic_for_tests(params, 2)?;
    let public = public_key_to_bytes(params, &generator.public_key(&toy.secret, 2)?)?;
    let config = ModelConfig::from_json(CONFIG.as_bytes())?;
    let checkpoint = random_checkpoint(&config, 1)?;
    let tokenizer = wordpiece_json(&["[UNK]", "good", "bad", "film", "##s"])?;
    let server = ServerBundle::new(params.clone(), program(params)?, "tiny", [1; 32])?;
    let client = ClientBundle::new(
        params,
        BundleParts {
            model_name: "tiny".to_owned(),
            signature: signature(params),
            keys: server.keys().clone(),
            tokenizer: tokenizer.clone().into_bytes(),
            embedding: checkpoint.embedding.clone().into(),
            server_content: server.content_digest(),
        },
    )?;
    let config = ModelConfig::from_json(STATE_SPACE.as_bytes())?;
    let mut state_space = random_checkpoint(&config, 1)?;
    state_space.embedding.table = table();
    let projected = ClientBundle::new(
        params,
        BundleParts {
            model_name: "tiny".to_owned(),
            signature: signature(params),
            keys: server.keys().clone(),
            tokenizer: tokenizer.clone().into_bytes(),
            embedding: state_space.embedding.clone().into(),
            server_content: server.content_digest(),
        },
    )?;
    let dir = tempfile::tempdir()?;
    let shape = RandomEncoder {
        layers: 1,
        hidden: 2,
        heads: 1,
        intermediate: 2,
        activation: "quadratic".to_owned(),
        attention: AttentionFunction::PowerSoftmax {
            power: 4,
            epsilon: 0.5,
        },
        positions: 4,
        vocabulary: 96,
        labels: 0,
        ranges: Vec::new(),
    };
    write_random_folder(dir.path(), &shape, 1)?;
    let embeddings = EncoderFolder::load(dir.path(), 4)?.encoder.embeddings;
    let encoder = |file: &str| std::fs::read(dir.path().join(file));
    let encoders = ClientBundle::new(
        params,
        BundleParts {
            model_name: "tiny".to_owned(),
            signature: encoder_signature(params)?,
            keys: server.keys().clone(),
            tokenizer: encoder("tokenizer.json")?,
            embedding: TokenVectors::Encoder(EncoderVectors {
                embeddings,
                eps: 1e-12,
            }),
            server_content: server.content_digest(),
        },
    )?;
    let texts = "1 a good film\n0 a bad one\n";
    let columns = "sentence\tlabel\na good film\t1\na bad one\t0\n";
    Ok(vec![
        ("container", ciphertexts.clone()),
        ("container", keys.clone()),
        ("params", params_to_bytes(params)?),
        ("ciphertexts", ciphertexts),
        ("evaluation_keys", keys),
        ("public_key", public),
        ("secret_key", toy.secret.to_bytes()?.to_vec()),
        ("client_bundle", client.to_bytes()?),
        ("client_bundle", projected.to_bytes()?),
        ("client_bundle", encoders.to_bytes()?),
        ("server_bundle", server.to_bytes()?),
        ("server_bundle", weights()?.to_bytes()?),
        ("cost_table", costs(params).to_bytes()?),
        ("model_config", CONFIG.as_bytes().to_vec()),
        ("model_config", STATE_SPACE.as_bytes().to_vec()),
        ("checkpoint", checkpoint.to_bytes()?),
        ("checkpoint", state_space.to_bytes()?),
        ("encoder_config", encoder("config.json")?),
        ("encoder_config", encoder("modules.json")?),
        ("encoder_config", encoder("1_Pooling/config.json")?),
        ("encoder_weights", encoder("model.safetensors")?),
        ("encoder_tokenizer", encoder("tokenizer.json")?),
        ("token_table", table().to_bytes()?),
        ("tokenizer", tokenizer.into_bytes()),
        ("data_set", texts.as_bytes().to_vec()),
        ("data_set", columns.as_bytes().to_vec()),
    ])
}

/// A table of two measurements.
fn costs(params: &Params) -> CostTable {
    let mut table = CostTable::empty(params, "toy");
    table.seconds.insert((Cost::Add, 1), 1e-6);
    table.seconds.insert((Cost::Rescale, 2), 2e-6);
    table.slowdown.insert(2, 1.5);
    table
}

/// Every kind of operation but a transform, on two inputs.
fn program(params: &Params) -> Result<CiphertextProgram, Box<dyn Error>> {
    let mut ops = Recorder::new(params);
    let top = params.max_level();
    let (a, b) = (ops.input(top, 1.0)?, ops.input(top, 1.0)?);
    ops.section("all");
    let product = ops.mul_sum(&[(&a, &b)])?;
    let turned = ops.rotate_many(&product, &[1])?;
    let sum = ops.add(&product, turned.first().ok_or("no rotation")?)?;
    let sum = ops.conjugate(&sum)?;
    let answer = ops.adjust(&sum, 0)?;
    Ok(ops.finish(vec![answer]))
}

/// A bundle with bootstraps, and with so many weights that they have sections of their own.
fn weights() -> Result<ServerBundle, Box<dyn Error>> {
    let (params, spec) = toy_bootstrap_of(9, 2);
    let mut ops = Recorder::new(&params);
    let entry = ops.bootstrap_entry(&spec, Content::Real)?;
    let level = ops.bootstrap_info(entry).map_or(0, |b| b.input_level);
    let scale = params.scale_at(level);
    let mut sum = ops.input(level, 1.0)?;
    let count = (1 << 14) / params.slots();
    for number in 0..count {
        let value = |slot: usize| (slot * slot * (number + 3) % 251) as f64 / f64::from(1 << 20);
        let slots = (0..params.slots()).map(|slot| Complex::new(value(slot), 0.0));
        let plain = ops.plain(&SlotVector::Periodic(slots.collect()), level, scale)?;
        sum = ops.add_plain(&sum, &plain)?;
    }
    ops.tighten(sum, 1.0);
    let fresh = ops.bootstrap(&sum, entry)?;
    let answer = ops.adjust(&fresh, 0)?;
    Ok(ServerBundle::new(
        params,
        ops.finish(vec![answer]),
        "tiny",
        [1; 32],
    )?)
}

/// Two features of two tokens, which the mean of an embedding is of.
fn encoder_signature(params: &Params) -> Result<Signature, Box<dyn Error>> {
    let input = |input| InputSpec {
        kind: InputKind::Encoder(input),
        power: 0.0,
        level: params.max_level(),
    };
    let features = EncoderInput::Features { block: 0, step: 0 };
    Ok(Signature {
        encoder: Some(EncoderSlots {
            heads: Heads::new(2, 2, 1, 2)?,
            hidden: 2,
            bound: 4.0,
            answers: 2,
            answer_bound: 2.0,
            normalize: true,
        }),
        answer_bound: 2.0,
        max_tokens: 2,
        run: 2,
        features: 2,
        batch: 1,
        inputs: vec![input(features), input(EncoderInput::Mean)],
        labels: Vec::new(),
    })
}

fn signature(params: &Params) -> Signature {
    let input = |kind| InputSpec {
        kind,
        power: 0.5,
        level: tiny_params().max_level(),
    };
    let chunks = (0..params.slots() / 2)
        .map(|c| Some(c as u32 % 2))
        .collect();
    Signature {
        encoder: None,
        answer_bound: 100.0,
        max_tokens: 2,
        run: 2,
        features: 2,
        batch: 1,
        inputs: vec![input(InputKind::Tokens { chunks }), input(InputKind::Mask)],
        labels: vec!["negative".into(), "positive".into()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the body of a target; unknown names fail the test.
    fn run(target: &str, data: &[u8]) {
        match target {
            "container" => crate::container(data),
            "params" => crate::params(data),
            "ciphertexts" => crate::ciphertexts(data),
            "evaluation_keys" => crate::evaluation_keys(data),
            "public_key" => crate::public_key(data),
            "secret_key" => crate::secret_key(data),
            "client_bundle" => crate::client_bundle(data),
            "server_bundle" => crate::server_bundle(data),
            "cost_table" => crate::cost_table(data),
            "model_config" => crate::model_config(data),
            "checkpoint" => crate::checkpoint(data),
            "encoder_config" => crate::encoder_config(data),
            "encoder_weights" => crate::encoder_weights(data),
            "encoder_tokenizer" => crate::encoder_tokenizer(data),
            "token_table" => crate::token_table(data),
            "tokenizer" => crate::tokenizer(data),
            "data_set" => crate::data_set(data),
            other => panic!("no target {other}"),
        }
    }

    #[test]
    fn seeds_and_their_mutations_pass() {
        let all = all().unwrap();
        let has = |tag: &[u8]| all.iter().any(|(_, b)| b.windows(4).any(|w| w == tag));
        for tag in [b"WGTI", b"WGTS", b"ENCD"] {
            assert!(has(tag), "no file has a section {}", tag.escape_ascii());
        }
        for (target, bytes) in all {
            match target {
                "client_bundle" => drop(ClientBundle::from_bytes(&bytes).unwrap()),
                "server_bundle" => drop(ServerBundle::from_bytes(&bytes).unwrap()),
                _ => {}
            }
            run(target, &bytes);
            for seed in 0..200 {
                run(target, &veilformer_ckks::testing::mutate(&bytes, seed));
            }
        }
    }
}
