//! The objects that `--json` prints, one per command, on standard output.
//!
//! Fields are only ever added. Times are wall-clock seconds, sizes are bytes. On failure nothing
//! is printed on standard output; the sentence is on standard error and the exit code is not 0.

use serde::Serialize;
use veilformer::ckks::SecurityRow;
use veilformer::ckks::container::Inspection;
use veilformer::client::Answer;
use veilformer::compiler::encoder::SiteReport;

/// An answer, encrypted or not.
#[derive(Debug, Serialize)]
pub struct LabelledAnswer {
    /// Name of the label with the largest logit; empty for an embedding and for a single value.
    pub label: String,
    /// Its probability, the softmax of the logits; 0 for an embedding and for a single value.
    pub probability: f64,
    /// One logit per label, in the model's order; of an embedding its values.
    pub logits: Vec<f64>,
}

impl LabelledAnswer {
    /// An answer with the name of its label.
    pub fn new(answer: &Answer, labels: &[String]) -> Self {
        Self {
            label: answer
                .label
                .and_then(|at| labels.get(at))
                .cloned()
                .unwrap_or_default(),
            probability: answer
                .label
                .and_then(|at| answer.probabilities.get(at))
                .copied()
                .unwrap_or(0.0),
            logits: answer.logits.clone(),
        }
    }
}

/// The security of one key (or of the ciphertexts).
#[derive(Debug, Serialize)]
pub struct Security {
    /// Which: `relinearization`, `rotation 64`, `conjugation`, `ciphertexts`.
    pub key: String,
    /// log2 of the ring dimension.
    pub log_n: u32,
    /// log2 of the product of the key's own moduli.
    pub log_qp: f64,
    /// Distribution of the secret that it hides under.
    pub secret: String,
    /// The highest of 128, 192 and 256 whose row of the table the moduli satisfy; 0 for none.
    pub bits: u32,
}

impl From<&SecurityRow> for Security {
    fn from(row: &SecurityRow) -> Self {
        Self {
            key: row.key.clone(),
            log_n: row.log_n,
            log_qp: row.log_qp,
            secret: row.secret.to_string(),
            bits: row.bits,
        }
    }
}

/// One sentence of `demo`.
#[derive(Debug, Serialize)]
pub struct DemoSentence {
    /// The sentence.
    pub text: String,
    /// What came out of the ciphertexts.
    pub encrypted: LabelledAnswer,
    /// What the same model says in floating point.
    pub plaintext: LabelledAnswer,
    /// Largest absolute difference of two logits.
    pub max_logit_error: f64,
}

/// Seconds of the stages of `demo`, over all sentences.
#[derive(Debug, Serialize)]
pub struct DemoSeconds {
    /// Client: secret key and evaluation keys.
    pub keygen: f64,
    /// Client: tokens, embedding, encoding, encryption.
    pub encrypt: f64,
    /// Server: the network on ciphertexts, keys and weights already prepared.
    pub run: f64,
    /// Client: decryption and labels.
    pub decrypt: f64,
    /// The whole process from its start, compiling the model and preparing keys included.
    pub total: f64,
}

/// `demo --json`.
#[derive(Debug, Serialize)]
pub struct Demo {
    /// Per sentence both answers.
    pub sentences: Vec<DemoSentence>,
    /// Where the time went.
    pub seconds: DemoSeconds,
    /// Most memory that the process had resident; 0 where the system does not tell.
    pub peak_rss_bytes: u64,
    /// Size of the evaluation key file.
    pub key_bytes: u64,
    /// Size of the file of encrypted sentences.
    pub ciphertext_bytes_up: u64,
    /// Size of the file of encrypted answers.
    pub ciphertext_bytes_down: u64,
    /// Every evaluation key, and the ciphertexts.
    pub security: Vec<Security>,
}

/// `compile --json`.
#[derive(Debug, Serialize)]
pub struct Compile {
    /// Name of the model.
    pub model: String,
    /// Path of the client bundle.
    pub client: String,
    /// Path of the server bundle.
    pub server: String,
    /// Size of the client bundle.
    pub client_bytes: u64,
    /// Size of the server bundle.
    pub server_bytes: u64,
    /// log2 of the ring dimension.
    pub log_n: u32,
    /// Levels of the parameters.
    pub levels: usize,
    /// Longest sentence in tokens.
    pub max_tokens: usize,
    /// Sentences that one run answers.
    pub batch: usize,
    /// Ciphertexts of one run.
    pub inputs: usize,
    /// Every evaluation key that the program uses.
    pub security: Vec<Security>,
    /// Time of the compilation.
    pub seconds: f64,
    /// Bootstraps of one run, each of one value or of a pair.
    pub bootstraps: usize,
    /// Of an encoder, the levels of all its polynomials one after the other.
    pub polynomial_depth: Option<usize>,
}

/// `keygen --json`.
#[derive(Debug, Serialize)]
pub struct Keygen {
    /// Public name of the secret key.
    pub key_id: String,
    /// Path of the secret key.
    pub secret: String,
    /// Path of the evaluation keys.
    pub keys: String,
    /// Number of evaluation keys.
    pub key_count: usize,
    /// Those of them that an interrupted generation had made.
    pub keys_kept: usize,
    /// Size of the evaluation key file.
    pub key_bytes: u64,
    /// Time of the generation.
    pub seconds: f64,
}

/// `encrypt --json`.
#[derive(Debug, Serialize)]
pub struct Encrypt {
    /// Number of sentences.
    pub sentences: usize,
    /// Path of the ciphertexts.
    pub output: String,
    /// Size of the ciphertext file.
    pub ciphertext_bytes_up: u64,
    /// Time of the encryption.
    pub seconds: f64,
}

/// `run --json`.
#[derive(Debug, Serialize)]
pub struct Run {
    /// Number of sentences answered.
    pub sentences: usize,
    /// Path of the answers.
    pub output: String,
    /// Size of the answer file.
    pub ciphertext_bytes_down: u64,
    /// Time to load bundle and keys.
    pub load_seconds: f64,
    /// Time of the network on ciphertexts.
    pub seconds: f64,
    /// Processor time of the process meanwhile, all threads together; 0 where the system does not tell.
    pub cpu_seconds: f64,
    /// Key switches done, over all sentences.
    pub key_switches: u64,
    /// Products of two ciphertexts done, over all sentences.
    pub multiplications: u64,
    /// Most memory that the process had resident; 0 where the system does not tell.
    pub peak_rss_bytes: u64,
}

/// `decrypt --json`.
#[derive(Debug, Serialize)]
pub struct Decrypt {
    /// One per sentence, in the order they were encrypted.
    pub answers: Vec<LabelledAnswer>,
}

/// `plan --json`: one run. Bytes, key switches and multiplications are exact.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// Sentences that one run answers.
    pub batch: usize,
    /// Time of the network on ciphertexts, keys and weights already prepared.
    pub seconds: f64,
    /// Processor time of the same, all threads together.
    pub cpu_seconds: f64,
    /// Time to load bundle and keys, once.
    pub load_seconds: f64,
    /// Most memory that the server process will have resident.
    pub peak_memory_bytes: u64,
    /// Encoded weights of the model.
    pub weight_bytes: u64,
    /// What they would take if each plaintext had a (packed) value for every prime and coefficient.
    pub full_weight_bytes: u64,
    /// Size of the evaluation key file.
    pub key_bytes: u64,
    /// Size of the file with the encrypted sentences of one run.
    pub ciphertext_bytes_up: u64,
    /// Size of the file with the encrypted answers of one run.
    pub ciphertext_bytes_down: u64,
    /// Key switches: rotations, conjugations and relinearizations.
    pub key_switches: u64,
    /// Products of two ciphertexts.
    pub multiplications: u64,
    /// Bootstraps, of one value or of a pair.
    pub bootstraps: u64,
    /// Seconds of all threads that they take together.
    pub bootstrap_seconds: f64,
    /// The highest level of the parameters.
    pub levels: usize,
    /// Every evaluation key that the program uses.
    pub security: Vec<Security>,
}

/// `explain --json`.
#[derive(Debug, Serialize)]
pub struct Explain {
    /// The tensor program as text; absent for a server bundle.
    pub tensor_program: Option<String>,
    /// The ciphertext program as text.
    pub ciphertext_program: String,
    /// The device program as text, with --device.
    pub device_program: Option<String>,
    /// Of an encoder, what stands in place of its functions.
    pub substitutions: Option<Vec<SiteReport>>,
}

/// `inspect --json`: the fields of [`Inspection`], and what only bundles have.
#[derive(Debug, Serialize)]
pub struct Inspect {
    /// What every file has.
    #[serde(flatten)]
    pub file: Inspection,
    /// What a bundle has.
    pub bundle: Option<Bundle>,
}

/// A bundle in `inspect --json`.
#[derive(Debug, Serialize)]
pub struct Bundle {
    /// Name of the model.
    pub model: String,
    /// Content digest of the bundle, hexadecimal.
    pub content: String,
    /// Content digest of the other bundle of the same compilation, hexadecimal.
    pub other: String,
    /// Number of evaluation keys that the program uses.
    pub keys: usize,
    /// Ciphertexts per sentence.
    pub inputs: usize,
}

/// `models --json`.
#[derive(Debug, Serialize)]
pub struct Models {
    /// Those that ship, or the one asked for.
    pub models: Vec<ShippedModel>,
}

/// One model of `models --json`.
#[derive(Debug, Serialize)]
pub struct ShippedModel {
    /// What `compile` and `demo --model` take.
    pub name: String,
    /// First sentence of the card.
    pub summary: String,
    /// Label names in the order of the logits.
    pub labels: Vec<String>,
    /// Longest sentence in tokens.
    pub max_tokens: usize,
    /// Size of weights, configuration, tokenizer and token table; models may share the last two.
    pub bytes: u64,
    /// The whole card, Markdown.
    pub card: String,
}

/// `eval --json`.
#[derive(Debug, Serialize)]
pub struct Eval {
    /// Number of sentences.
    pub items: usize,
    /// Those of them that are too long for the model and count as answered wrongly.
    pub too_long: usize,
    /// Those whose label is that of mode `poly`.
    pub agree: usize,
    /// Fraction of the sentences whose label is the data set's.
    pub accuracy: f64,
    /// Largest absolute difference of a logit from that of mode `poly`.
    pub max_logit_error: f64,
    /// Time of all sentences, without compilation and key generation.
    pub seconds: f64,
    /// Of this the server's part, in mode `encrypted`.
    pub run_seconds: Option<f64>,
    /// Sentences that one run answers, in the modes `encrypted` and `sim`.
    pub batch: Option<usize>,
    /// What left the range that it was compiled for, a line each, in mode `sim`.
    pub range_violations: Option<Vec<String>>,
    /// Of an encoder, the answers against those of the original model.
    pub original: Option<Original>,
}

/// Answers against those of the original model, in `eval --json`.
#[derive(Debug, Serialize)]
pub struct Original {
    /// Sentences whose label is the same; of embeddings 0.
    pub agree: usize,
    /// Largest absolute difference of a logit, or of a value of an embedding.
    pub max_error: f64,
    /// The least cosine of an answer and the original's.
    pub min_cosine: f64,
}

/// `report --json`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Name of the model.
    pub model: String,
    /// Number of sentences.
    pub items: usize,
    /// Those of them that are too long for the model and count as answered wrongly.
    pub too_long: usize,
    /// Fraction of the sentences whose decrypted label is the data set's.
    pub accuracy: f64,
    /// Sentences that one run answers.
    pub batch: usize,
    /// Number of runs.
    pub runs: usize,
    /// The decrypted answers against those in the clear.
    pub encrypted: Errors,
    /// The simulated answers against those in the clear.
    pub simulated: Errors,
    /// Root mean square of the simulated errors over that of the measured ones.
    pub error_ratio: f64,
    /// What left the range that it was compiled for, a line each.
    pub range_violations: Vec<String>,
    /// Time on the server, all runs.
    pub seconds: Pair,
    /// Processor time of the same, all threads together; measured 0 where the system does not tell.
    pub cpu_seconds: Pair,
    /// Key switches, all runs.
    pub key_switches: Pair,
    /// Most bytes of ciphertexts at once.
    pub peak_ciphertext_bytes: Pair,
    /// Paths of the charts.
    pub charts: Vec<String>,
}

/// Answers against those in the clear, in `report --json`.
#[derive(Debug, Serialize)]
pub struct Errors {
    /// Sentences whose label is the same.
    pub agree: usize,
    /// Largest absolute difference of a logit.
    pub max_logit_error: f64,
    /// Root mean square of the differences of all logits.
    pub rms_logit_error: f64,
}

/// What was planned and what happened, in `report --json`.
#[derive(Debug, Serialize)]
pub struct Pair {
    /// Before the run.
    pub planned: f64,
    /// By the run.
    pub measured: f64,
}
