//! The objects that `--json` prints, one per command, on standard output.
//!
//! Fields are only ever added. Times are wall-clock seconds, sizes are bytes. On failure nothing
//! is printed on standard output; the sentence is on standard error and the exit code is not 0.

use serde::Serialize;
use veilformer::ckks::SecurityRow;
use veilformer::client::Answer;

/// An answer, encrypted or not.
#[derive(Debug, Serialize)]
pub struct LabelledAnswer {
    /// Name of the label with the largest logit.
    pub label: String,
    /// Its probability, the softmax of the logits.
    pub probability: f64,
    /// One logit per label, in the model's order.
    pub logits: Vec<f64>,
}

impl LabelledAnswer {
    /// An answer with the name of its label.
    pub fn new(answer: &Answer, labels: &[String]) -> Self {
        Self {
            label: labels.get(answer.label).cloned().unwrap_or_default(),
            probability: answer
                .probabilities
                .get(answer.label)
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
