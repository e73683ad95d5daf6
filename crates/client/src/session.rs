//! Sentences to ciphertexts, and the answer back.

use std::collections::BTreeMap;
use veilformer_ckks::container::{
    Kind, MAX_CIPHERTEXTS, Reader, Writer, append_ciphertexts, read_ciphertexts,
};
use veilformer_ckks::{SlotVector, StoredCiphertext};
use veilformer_ir::InputSpec;
use veilformer_ir::signature::{PROGRAM_DIGEST, SENTENCES, SentenceLogits, read_sentences};
use veilformer_models::interpreter::{label_of, probabilities};
use veilformer_secret::{Decryptor, Encryptor, SecretKey, SecureRng};

use crate::{ClientBundle, ClientError};

/// Most sentences that one file may hold.
pub const MAX_SENTENCES: usize = 1024;

/// Slots of one answer may differ from their mean by so much, relative to the larger of 1 and
/// that mean. Noise is orders of magnitude below; a decryption under another key fills the whole
/// modulus.
const LARGEST_SPREAD: f64 = 0.01;

/// What a sentence came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// One logit per label, or the values of an embedding.
    pub logits: Vec<f64>,
    /// The logits' softmax; none of an embedding.
    pub probabilities: Vec<f64>,
    /// Index of the label with the largest logit; none of an embedding.
    pub label: Option<usize>,
}

impl Answer {
    /// The answer of given logits. A single one is a value (of a regression), not a class among others: it
    /// has no label and no probability.
    #[must_use]
    pub fn of_logits(logits: Vec<f64>) -> Self {
        if logits.len() < 2 {
            return Self::of_embedding(logits);
        }
        Self {
            probabilities: probabilities(&logits),
            label: Some(label_of(&logits)),
            logits,
        }
    }

    /// The answer of an embedding.
    #[must_use]
    pub fn of_embedding(values: Vec<f64>) -> Self {
        Self {
            logits: values,
            probabilities: Vec::new(),
            label: None,
        }
    }
}

impl ClientBundle {
    /// Tokenizes and encrypts sentences into the bytes of one ciphertext file, under fresh
    /// randomness of the operating system. Its size tells their number and nothing else of them.
    ///
    /// # Errors
    /// [`ClientError::Sentence`] for one that is empty or too long, [`ClientError::Count`], or a
    /// key of other parameters.
    pub fn encrypt<S: AsRef<str>>(
        &self,
        secret: &SecretKey,
        sentences: &[S],
    ) -> Result<Vec<u8>, ClientError> {
        self.check_count(sentences.len())?;
        let rows = sentences.iter().enumerate().map(|(i, text)| {
            let tokens = self.tokenize(text.as_ref()).map_err(|error| match error {
                ClientError::Model(source) => ClientError::Sentence {
                    number: i + 1,
                    source,
                },
                other => other,
            })?;
            self.embed(&tokens)
        });
        self.encrypt_rows(secret, &rows.collect::<Result<Vec<_>, _>>()?)
    }

    /// As [`ClientBundle::encrypt`], from the features of every token of every sentence.
    ///
    /// # Errors
    /// As [`ClientBundle::encrypt`], and [`ClientError::Rows`].
    pub fn encrypt_rows(
        &self,
        secret: &SecretKey,
        sentences: &[Vec<Vec<f64>>],
    ) -> Result<Vec<u8>, ClientError> {
        self.check_secret(secret)?;
        self.check_count(sentences.len())?;
        let signature = self.signature();
        let width = |rows: &Vec<Vec<f64>>| rows.iter().all(|r| r.len() == signature.features);
        for rows in sentences {
            if !(1..=signature.max_tokens).contains(&rows.len()) || !width(rows) {
                return Err(ClientError::Rows {
                    found: rows.len(),
                    limit: signature.max_tokens,
                    features: signature.features,
                });
            }
        }
        let ciphertexts = self.encrypt_inputs(secret, sentences)?;
        let mut writer = Writer::new(Kind::Ciphertexts, Some(self.params()))?;
        append_ciphertexts(&mut writer, self.params(), &ciphertexts)?;
        writer.section(PROGRAM_DIGEST, self.server_content().to_vec());
        let count = sentences.len() as u32;
        writer.section(SENTENCES, count.to_le_bytes().to_vec());
        Ok(writer.to_bytes()?)
    }

    /// All inputs of all sentences, batch after batch; what is left of the last one is padding.
    /// Those of one level are encrypted together: that is what runs in parallel.
    fn encrypt_inputs(
        &self,
        secret: &SecretKey,
        sentences: &[Vec<Vec<f64>>],
    ) -> Result<Vec<StoredCiphertext>, ClientError> {
        let signature = self.signature();
        let inputs = signature.inputs.len();
        let mut levels: BTreeMap<usize, Vec<(usize, &InputSpec)>> = BTreeMap::new();
        for (index, spec) in signature.inputs.iter().enumerate() {
            levels.entry(spec.level).or_default().push((index, spec));
        }
        let mut encryptor = Encryptor::new(secret, SecureRng::from_os()?)?;
        let mut placed: BTreeMap<usize, StoredCiphertext> = BTreeMap::new();
        for (level, members) in &levels {
            let mut positions = Vec::new();
            let mut vectors = Vec::new();
            for (number, batch) in sentences.chunks(signature.batch.max(1)).enumerate() {
                for (index, spec) in members {
                    let slots = signature.pack(spec, batch, self.params().slots());
                    vectors.push(SlotVector::real(&slots));
                    positions.push(number * inputs + index);
                }
            }
            let encrypted = encryptor.encrypt_many(&vectors, *level)?;
            placed.extend(positions.into_iter().zip(encrypted));
        }
        Ok(placed.into_values().collect())
    }

    /// Decrypts the server's answer: one [`Answer`] per sentence, in their order.
    ///
    /// The result is for the owner of the key; what is done with it must not reach the server.
    ///
    /// # Errors
    /// A file of another kind, key, program or parameters, or damaged;
    /// [`ClientError::NoAnswer`] if the slots of an output do not agree with each other.
    pub fn decrypt(&self, secret: &SecretKey, answer: &[u8]) -> Result<Vec<Answer>, ClientError> {
        self.check_secret(secret)?;
        let reader = Reader::open_for(answer, Kind::Answer, self.params())?;
        let found = reader.section(PROGRAM_DIGEST)?;
        if found != self.server_content() {
            return Err(ClientError::OtherProgram {
                found: short_hex(found),
                expected: short_hex(&self.server_content()),
            });
        }
        let outputs = read_ciphertexts(&reader, self.params())?;
        let signature = self.signature();
        let per_run = signature.outputs();
        if outputs.is_empty() || outputs.len() % per_run != 0 {
            return Err(ClientError::AnswerCount {
                found: outputs.len(),
                per_sentence: per_run,
            });
        }
        let runs = outputs.len() / per_run;
        let count = read_sentences(&reader, runs, signature.batch).map_err(ClientError::Items)?;
        let decryptor = Decryptor::new(secret)?;
        let mut answers = Vec::with_capacity(count);
        for outputs in outputs.chunks(per_run) {
            let slots = outputs
                .iter()
                .map(|output| decryptor.decrypt_stored(output)?.reveal_to_owner())
                .collect::<Result<Vec<_>, _>>()?;
            for sentence in signature.unpack(&slots) {
                if answers.len() < count {
                    answers.push(self.answer(answers.len() + 1, sentence)?);
                }
            }
        }
        Ok(answers)
    }

    fn answer(&self, number: usize, sentence: SentenceLogits) -> Result<Answer, ClientError> {
        let SentenceLogits {
            logits,
            largest,
            spread,
        } = sentence;
        if spread > LARGEST_SPREAD {
            return Err(ClientError::NoAnswer { number, spread });
        }
        let limit = self.signature().answer_bound;
        if largest > limit {
            return Err(ClientError::OutOfRange {
                number,
                found: largest,
                limit,
            });
        }
        Ok(self.answer_of(logits))
    }

    /// What a sentence came to, of the values that the model gives.
    #[must_use]
    pub fn answer_of(&self, values: Vec<f64>) -> Answer {
        if self.labels().is_empty() {
            Answer::of_embedding(values)
        } else {
            Answer::of_logits(values)
        }
    }

    fn check_count(&self, found: usize) -> Result<(), ClientError> {
        // Both this file and the one with the answers must hold all ciphertexts.
        let signature = self.signature();
        let widest = signature.inputs.len().max(signature.outputs()).max(1);
        let fit = (MAX_CIPHERTEXTS / widest).saturating_mul(signature.batch);
        let limit = MAX_SENTENCES.min(fit);
        if (1..=limit).contains(&found) {
            Ok(())
        } else {
            Err(ClientError::Count { found, limit })
        }
    }

    fn check_secret(&self, secret: &SecretKey) -> Result<(), ClientError> {
        if secret.params() == self.params() {
            Ok(())
        } else {
            Err(veilformer_secret::SecretError::WrongParams {
                object: "the client bundle",
            }
            .into())
        }
    }
}

fn short_hex(digest: &[u8]) -> String {
    digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
}
