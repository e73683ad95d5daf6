//! Encoders from Hugging Face folders that nobody has seen, from the folder to decrypted answers: on a
//! ring without security, so that it is quick.
#![allow(clippy::unwrap_used)]

use std::io::Cursor;
use std::ops::ControlFlow;
use std::sync::Mutex;

use tempfile::TempDir;
use veilformer::ckks::SecretKind;
use veilformer::client::{Answer, ClientBundle, ClientError};
use veilformer::compiler::encoder::Budget;
use veilformer::encoder::{DEFAULT_PRESET, EncoderBuild, EncoderModel, EncoderTarget};
use veilformer::ir::encoder::AttentionFunction;
use veilformer::models::encoder::{Progress, RandomEncoder, write_random_folder};
use veilformer::ring::{Cpu, CpuConfig};
use veilformer::runtime::{RuntimeError, Server, ServerBundle, Simulator};
use veilformer::secret::{KeyGenerator, SecretKey, SecureRng};
use veilformer_circuits::testing::toy_bootstrap_of;

/// Hidden 192, three heads, GELU by tanh, another vocabulary, sentences of up to 48 tokens.
fn shape(labels: usize) -> RandomEncoder {
    RandomEncoder {
        layers: if labels == 0 { 1 } else { 2 },
        hidden: 192,
        heads: 3,
        intermediate: 384,
        activation: "gelu_pytorch_tanh".into(),
        attention: AttentionFunction::Softmax,
        positions: 48,
        vocabulary: 300,
        labels,
        ranges: vec![(4.0, 4.0)],
    }
}

/// One layer of that with power-softmax and a quadratic activation.
fn powers(labels: usize) -> RandomEncoder {
    RandomEncoder {
        layers: 1,
        activation: "quadratic".into(),
        attention: AttentionFunction::PowerSoftmax {
            power: 4,
            epsilon: 1.0,
        },
        ..shape(labels)
    }
}

/// Sentences of all lengths.
fn sentences() -> Vec<String> {
    let word = |i: usize| char::from(b'a' + (i * i % 23) as u8).to_string();
    let sentence = |seed: usize| {
        let words = 1 + seed * 7 % 44;
        let words: Vec<String> = (0..words).map(|i| word(i + 3 * seed)).collect();
        words.join(" ")
    };
    (0..60).map(sentence).collect()
}

fn target() -> EncoderTarget {
    EncoderTarget {
        tokens: Some(48),
        preset: DEFAULT_PRESET.into(),
        budget: Some(Budget {
            margin: 0.3,
            ..Budget::default()
        }),
        calibration: sentences(),
    }
}

const GO_ON: &Progress<'static> = &|_| ControlFlow::Continue(());

#[test]
fn loading_says_how_far_it_is_and_stops() {
    let folder = TempDir::new().unwrap();
    let shape = RandomEncoder {
        hidden: 48,
        intermediate: 96,
        ..shape(2)
    };
    write_random_folder(folder.path(), &shape, 7).unwrap();
    let target = EncoderTarget {
        budget: None,
        ..target()
    };
    let load = |last: &str| {
        let heard = Mutex::new(Vec::new());
        let loaded = EncoderModel::load(folder.path(), &target, &|reached| {
            let mut heard = heard.lock().unwrap();
            if reached.done == 0 {
                heard.push(reached.step);
            }
            match reached.step == last && reached.done == reached.total {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        let mut heard = heard.into_inner().unwrap();
        // Errors are halved as often as they have to be.
        heard.dedup();
        (loaded, heard)
    };
    let steps = [
        "collecting queries",
        "centring keys",
        "calibrating",
        "answering exactly",
        "answering with polynomials",
    ];
    let (loaded, heard) = load("");
    loaded.unwrap();
    assert_eq!(heard, steps);
    for (index, step) in steps.iter().enumerate() {
        let (stopped, heard) = load(step);
        let message = stopped.unwrap_err().to_string();
        assert!(
            message.contains(step) && message.contains("stopped after"),
            "{message}"
        );
        assert_eq!(heard, steps[..=index]);
    }
}

struct Conversation {
    model: EncoderModel,
    client: ClientBundle,
    secret: SecretKey,
    server: Server<Cpu>,
}

impl Conversation {
    /// All through the bytes of files.
    fn new(shape: &RandomEncoder) -> Self {
        let folder = TempDir::new().unwrap();
        write_random_folder(folder.path(), shape, 7).unwrap();
        let model = EncoderModel::load(folder.path(), &target(), GO_ON).unwrap();
        let (params, spec) = toy_bootstrap_of(12, 11);
        let EncoderBuild { bundles, stages } =
            model.build_for((&params, &spec), &mut |_| ()).unwrap();
        assert!(stages.iter().any(|stage| stage.bootstraps > 0));
        let client = bundles.client.to_bytes().unwrap();
        let client = ClientBundle::from_bytes(&client).unwrap();
        let bytes = bundles.server.to_bytes().unwrap();
        let server = ServerBundle::from_bytes(&bytes).unwrap();
        // The file loses nothing of the program, and weights take four bytes.
        assert!(server.program() == bundles.server.program());
        assert_eq!(server.content_digest(), bundles.server.content_digest());
        assert_eq!(client.server_content(), server.content_digest());
        assert_eq!(server.to_bytes().unwrap().len(), bytes.len());
        let mut generator = KeyGenerator::new(client.params(), SecureRng::from_os().unwrap());
        let secret = generator.secret_key().unwrap();
        let mut keys = Vec::new();
        let go = &mut |_: usize, _: usize| ControlFlow::Continue(());
        client
            .write_evaluation_keys(&mut generator, &secret, &mut keys, go)
            .unwrap();
        let backend = Cpu::new(params.chain().clone(), CpuConfig::default()).unwrap();
        let mut server = Server::open(server, backend).unwrap();
        server
            .load_keys(Cursor::new(&keys), &|_, _| ControlFlow::Continue(()))
            .unwrap();
        Self {
            model,
            client,
            secret,
            server,
        }
    }

    fn run(&self, input: &[u8]) -> Result<Vec<Answer>, ClientError> {
        let run = self
            .server
            .run(input, &|_, _| ControlFlow::Continue(()))
            .unwrap();
        self.client.decrypt(&self.secret, &run.answer)
    }

    /// The largest difference of encrypted answers from the polynomials' in floating point.
    fn error(&self, sentences: &[&str]) -> f64 {
        let input = self.client.encrypt(&self.secret, sentences).unwrap();
        let answers = self.run(&input).unwrap();
        assert_eq!(answers.len(), sentences.len());
        let mut worst = 0.0f64;
        for (text, answer) in sentences.iter().zip(&answers) {
            let expected = self.model.poly(text).unwrap();
            let scale = expected.iter().fold(1e-6, |m, v| f64::max(m, v.abs()));
            assert_eq!(answer.logits.len(), expected.len());
            for (a, b) in answer.logits.iter().zip(&expected) {
                worst = worst.max((a - b).abs() / scale);
            }
        }
        worst
    }
}

#[test]
fn a_classifier_nobody_has_seen_answers_on_ciphertexts() {
    let all = Conversation::new(&shape(3));
    simulated_as_encrypted(&all);
    let known = sentences();
    let error = all.error(&[known[0].as_str(), &known[1], &known[25]]);
    assert!(error < 0.02, "{error:e}");
    // A sentence that is too long is refused by the client, and nothing is cut.
    let long = vec!["k"; 47].join(" ");
    let error = all.client.encrypt(&all.secret, &[&long]).unwrap_err();
    assert!(error.to_string().contains("49 tokens"), "{error}");
    // Rows far outside of what was calibrated: the client alone is told that the answer is none.
    let ids = all.model.tokenizer.encode("a b c").unwrap();
    let mut rows = all.model.rows(&ids).unwrap();
    for row in &mut rows {
        row.iter_mut().for_each(|v| *v *= 3.0);
    }
    let input = all
        .client
        .encrypt_rows(&all.secret, &[rows.clone()])
        .unwrap();
    let error = all.run(&input).unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::NoAnswer { .. } | ClientError::OutOfRange { .. }
        ),
        "{error}"
    );
    // A simulation says where, and by how much.
    let bundle = all.server.bundle();
    let signature = all.client.signature();
    let mut simulator =
        Simulator::new(bundle.program(), bundle.params(), SecretKind::DenseTernary).unwrap();
    let pack = |spec| signature.pack(spec, &[&rows], bundle.params().slots());
    let inputs: Vec<Vec<f64>> = signature.inputs.iter().map(pack).collect();
    let message = match simulator.run(&inputs, 1) {
        Ok(simulation) => simulation.violations[0].to_string(),
        Err(RuntimeError::Range(message)) => message,
        Err(other) => panic!("{other}"),
    };
    for part in [
        "layer 0",
        "reaches",
        "was compiled for at most",
        "times as much",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn an_embedding_nobody_has_seen_is_computed_on_ciphertexts() {
    let all = Conversation::new(&shape(0));
    let known = sentences();
    let error = all.error(&[&known[0]]);
    assert!(error < 0.02, "{error:e}");
    let input = all.client.encrypt(&all.secret, &known[1..2]).unwrap();
    let answers = all.run(&input).unwrap();
    let length: f64 = answers[0].logits.iter().map(|v| v * v).sum();
    assert!((length - 1.0).abs() < 1e-9);
    assert!(answers[0].label.is_none());
}

#[test]
fn powers_of_scores_are_computed_on_ciphertexts() {
    let all = Conversation::new(&powers(2));
    let program = all.server.bundle().program();
    let stages = ["layer 0, power", "layer 0, activation"];
    for stage in stages {
        assert!(program.sections.iter().any(|s| s == stage), "{stage}");
    }
    let known = sentences();
    let error = all.error(&[&known[0], &known[25]]);
    assert!(error < 0.02, "{error:e}");
}

/// What a simulation says of the error is what ciphertexts have.
fn simulated_as_encrypted(all: &Conversation) {
    let bundle = all.server.bundle();
    let (signature, params) = (all.client.signature(), bundle.params());
    let mut simulator = Simulator::new(bundle.program(), params, SecretKind::DenseTernary).unwrap();
    let (mut simulated, mut measured) = (0.0, 0.0);
    for (number, text) in sentences()[..3].iter().enumerate() {
        let expected = all.model.poly(text).unwrap();
        let rows = all
            .model
            .rows(&all.model.tokenizer.encode(text).unwrap())
            .unwrap();
        let pack = |spec| signature.pack(spec, &[&rows], params.slots());
        let inputs: Vec<Vec<f64>> = signature.inputs.iter().map(pack).collect();
        let run = simulator.run(&inputs, number as u64).unwrap();
        assert!(run.violations.is_empty(), "{}", run.violations[0]);
        let square = |values: &[f64]| {
            let pairs = values.iter().zip(&expected);
            pairs.map(|(a, b)| (a - b) * (a - b)).sum::<f64>()
        };
        simulated += square(&signature.unpack(&run.outputs)[0].logits);
        let input = all.client.encrypt(&all.secret, &[text]).unwrap();
        measured += square(&all.run(&input).unwrap()[0].logits);
    }
    let ratio = (simulated / measured).sqrt();
    assert!((0.3..3.0).contains(&ratio), "{ratio}");
}
