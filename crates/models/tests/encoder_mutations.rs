//! What import accepts never panics, in import or in an execution.

mod common;

use common::Xorshift;
use veilformer_ir::encoder::AttentionFunction;
use veilformer_models::encoder::{
    EncoderConfig, EncoderTokenizer, Execution, RandomEncoder, encoder_from_bytes,
    write_random_folder,
};

#[test]
fn mutations_of_each_file_never_panic() {
    let shape = RandomEncoder {
        layers: 2,
        hidden: 6,
        heads: 2,
        intermediate: 7,
        activation: "quadratic".into(),
        attention: AttentionFunction::PowerSoftmax {
            power: 4,
            epsilon: 0.5,
        },
        positions: 5,
        vocabulary: 96,
        labels: 2,
        ranges: vec![],
    };
    let dir = tempfile::tempdir().unwrap();
    write_random_folder(dir.path(), &shape, 1).unwrap();
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let (config, weights) = (read("config.json"), read("model.safetensors"));
    let tokenizer = read("tokenizer.json");
    let usual = EncoderConfig::from_json(&config).unwrap();
    let modules = br#"[{"path":"","type":"m.Transformer"},{"path":"p","type":"m.Pooling"}]"#;
    let pooling = br#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}"#;
    let mut rng = Xorshift(1);
    let mut accepted = [0; 5];
    let mut mutated = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        rng.mutate(&mut bytes);
        bytes
    };
    let run = |config: &EncoderConfig, bytes: &[u8]| {
        let Ok(encoder) = encoder_from_bytes(config, bytes, 4) else {
            return false;
        };
        let execution = Execution::new(&encoder).unwrap();
        let width = encoder.outputs();
        let answers = execution.answers(&[vec![2, 95, 3], vec![2]]).unwrap();
        assert!(answers.iter().all(|answer| answer.len() == width));
        true
    };
    for round in 0..100_000 {
        if let Ok(config) = EncoderConfig::from_json(&mutated(&config)) {
            accepted[0] += usize::from(run(&config, &weights));
        }
        accepted[1] += usize::from(run(&usual, &mutated(&weights)));
        let mut config = EncoderConfig::from_json(
            br#"{"hidden_size":6,"num_hidden_layers":1,
            "num_attention_heads":1,"intermediate_size":1,"max_position_embeddings":1,
            "vocab_size":1,"hidden_act":"relu"}"#,
        )
        .unwrap();
        let modules = mutated(modules);
        accepted[2] += usize::from(
            config
                .set_pooling(&modules, |_| Ok(pooling.to_vec()))
                .is_ok(),
        );
        let pooling = mutated(pooling);
        let modules = br#"[{"path":"p","type":"m.Pooling"}]"#;
        accepted[3] += usize::from(config.set_pooling(modules, |_| Ok(pooling.clone())).is_ok());
        // A tokenizer takes a millisecond to be built.
        if round % 20 == 0
            && let Ok(tokenizer) = EncoderTokenizer::from_bytes(&mutated(&tokenizer), 96, 32)
        {
            accepted[4] += 1;
            for text in ["", "It's [MASK] 2 FILMS!", "\u{301}\u{0}\u{fffd} \u{1f600}"] {
                let ids = tokenizer.encode(text).unwrap_or_default();
                assert!(ids.iter().all(|id| *id < 96));
            }
        }
    }
    // A changed weight, label or token is no error; most other changes are.
    let limits = [90_000, 90_000, 90_000, 90_000, 4_900];
    assert!(
        accepted
            .iter()
            .zip(limits)
            .all(|(n, limit)| *n > 0 && *n < limit),
        "{accepted:?}"
    );
}
