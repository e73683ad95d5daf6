//! The client bundle and its file.
//!
//! A container of kind [`Kind::ClientBundle`] with these sections: the parameters, a record
//! (name, signature, key list, table shapes), the tokenizer as it came (`tokenizer.json`), the
//! token table (its packed rows), its scales (one little-endian f64 per column), the position table
//! (little-endian f64, row after row; empty for a model without one), and the content digest of
//! the server bundle. Two more where a model has them: the bits of a value of the token table (a
//! byte per column; without it a column per feature, of 8 bits), and the projection from columns to
//! features (little-endian f64, a row per feature). An encoder's has instead the token table
//! (little-endian f32), the position table, what its vectors are normalized with, and where values
//! stand in slots ([`veilformer_ir::encoder::EncoderSlots`]).

use serde::{Deserialize, Serialize};
use std::io::{Read, Seek, Write};
use veilformer_ckks::container::{Kind, Reader, Tag, Writer, read_params};
use veilformer_ckks::{KeyList, KeyPurpose, Params};
use veilformer_ir::{InputKind, Signature};
use veilformer_models::encoder::EncoderTokenizer;
use veilformer_models::{ModelError, Tokenizer};
use veilformer_secret::{KeyGenerator, Progress, Resumed, SecretKey};

use crate::ClientError;
use crate::vectors::{Shape, TokenVectors};

const RECORD: Tag = Tag(*b"CLNT");
const TOKENIZER: Tag = Tag(*b"TOKN");
const SERVER: Tag = Tag(*b"PEER");

/// Most bytes of a tokenizer file that a bundle may hold.
const MAX_TOKENIZER_BYTES: usize = 64 << 20;
/// Most bytes of a name or a label.
const MAX_NAME_BYTES: usize = 256;
/// Most labels.
const MAX_LABELS: usize = 1 << 12;
/// Most input ciphertexts of one sentence.
const MAX_INPUTS: usize = 1 << 10;

/// What a bundle is made of.
#[derive(Clone, Debug)]
pub struct BundleParts {
    /// What the model calls itself.
    pub model_name: String,
    /// How inputs and outputs are encoded.
    pub signature: Signature,
    /// The evaluation keys that the program uses.
    pub keys: KeyList,
    /// The bytes of `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// From tokens to features.
    pub embedding: TokenVectors,
    /// Content digest of the server bundle: the name of the program.
    pub server_content: [u8; 32],
}

/// The client's half of a compiled model, checked: its parts belong together.
#[derive(Clone, Debug)]
pub struct ClientBundle {
    params: Params,
    parts: BundleParts,
    tokenizer: AnyTokenizer,
}

/// Of our own families, or of an encoder, with special tokens.
#[derive(Clone, Debug)]
enum AnyTokenizer {
    Own(Tokenizer),
    Encoder(EncoderTokenizer),
}

#[derive(Serialize, Deserialize)]
struct Record {
    model_name: String,
    signature: Signature,
    keys: KeyList,
    vocab_size: u64,
    positions: u64,
}

impl ClientBundle {
    /// A bundle of its parts, after checks that they belong together.
    ///
    /// # Errors
    /// [`ClientError::Bundle`] that says what does not fit, the tokenizer's, or a key of the list
    /// above its security bound.
    pub fn new(params: &Params, parts: BundleParts) -> Result<Self, ClientError> {
        check(params, &parts)?;
        parts.keys.security(params)?;
        let rows = parts.embedding.vocab_size();
        let tokenizer = match &parts.embedding {
            TokenVectors::Table(_) => {
                let tokenizer = Tokenizer::from_bytes(&parts.tokenizer)?;
                if tokenizer.vocab_size() != rows {
                    return Err(refuse(format!(
                        "the tokenizer knows {} tokens and the token table has {rows} rows",
                        tokenizer.vocab_size(),
                    )));
                }
                AnyTokenizer::Own(tokenizer)
            }
            TokenVectors::Encoder(_) => {
                let limit = parts.signature.max_tokens;
                let tokenizer = EncoderTokenizer::from_bytes(&parts.tokenizer, rows, limit)?;
                AnyTokenizer::Encoder(tokenizer)
            }
        };
        Ok(Self {
            params: params.clone(),
            parts,
            tokenizer,
        })
    }

    /// The parameters.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// What the model calls itself.
    #[must_use]
    pub fn model_name(&self) -> &str {
        &self.parts.model_name
    }

    /// How inputs and outputs are encoded.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.parts.signature
    }

    /// Label names, in the order of the logits.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.parts.signature.labels
    }

    /// The evaluation keys that the program uses.
    #[must_use]
    pub fn keys(&self) -> &KeyList {
        &self.parts.keys
    }

    /// Content digest of the server bundle: the name of the program, which evaluation keys,
    /// ciphertexts and answers carry.
    #[must_use]
    pub fn server_content(&self) -> [u8; 32] {
        self.parts.server_content
    }

    /// The same bundle with another server content digest.
    #[must_use]
    pub fn with_server_content(mut self, digest: [u8; 32]) -> Self {
        self.parts.server_content = digest;
        self
    }

    /// BLAKE3 of the name and content of every section but the server's digest.
    ///
    /// # Errors
    /// None in practice; serialization's.
    pub fn content_digest(&self) -> Result<[u8; 32], ClientError> {
        let bytes = self.to_bytes()?;
        let reader = Reader::open_unverified(&bytes)?;
        let mut hasher = blake3::Hasher::new();
        for (tag, section) in reader.sections().filter(|s| s.0 != SERVER) {
            hasher.update(&tag.0);
            hasher.update(&(section.len() as u64).to_le_bytes());
            hasher.update(section);
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// The tokens of `text`, between 1 and the compiled length.
    ///
    /// # Errors
    /// When no token is left of the text, or more than the limit: a text is never cut.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, ClientError> {
        let limit = self.parts.signature.max_tokens;
        Ok(match &self.tokenizer {
            AnyTokenizer::Own(tokenizer) => tokenizer.encode_within(text, limit)?,
            AnyTokenizer::Encoder(tokenizer) => tokenizer.encode(text)?,
        })
    }

    /// The features of every token: its row of the table, projected where there is a projection,
    /// plus the position's vector where there is one. All in the clear.
    ///
    /// # Errors
    /// When there is no token, more than the compiled length, or one outside the table.
    pub fn embed(&self, tokens: &[u32]) -> Result<Vec<Vec<f64>>, ClientError> {
        let limit = self.parts.signature.max_tokens;
        if tokens.len() > limit {
            let count = tokens.len();
            return Err(ModelError::TooLong { count, limit }.into());
        }
        let rows = self.parts.embedding.rows(tokens)?;
        Ok(rows.iter_rows().map(<[f64]>::to_vec).collect())
    }

    /// Writes the file of the evaluation keys that the program uses; they carry the program's
    /// digest. Returns the file's length in bytes.
    ///
    /// # Errors
    /// A key of other parameters, the stream's, or stopped by `progress`.
    pub fn write_evaluation_keys<W: Write>(
        &self,
        generator: &mut KeyGenerator,
        secret: &SecretKey,
        out: W,
        progress: &mut Progress<'_>,
    ) -> Result<u64, ClientError> {
        let program = self.server_content();
        Ok(generator.write_evaluation_keys(secret, self.keys(), program, out, progress)?)
    }

    /// As [`ClientBundle::write_evaluation_keys`], into a file that may hold what an interrupted call
    /// came to (see [`KeyGenerator::resume_evaluation_keys`]).
    ///
    /// # Errors
    /// As there.
    pub fn resume_evaluation_keys<F: Read + Write + Seek>(
        &self,
        generator: &mut KeyGenerator,
        secret: &SecretKey,
        file: F,
        progress: &mut Progress<'_>,
    ) -> Result<Resumed, ClientError> {
        let what = (self.keys(), self.server_content());
        Ok(generator.resume_evaluation_keys(secret, what, file, progress)?)
    }

    /// The bundle's file.
    ///
    /// # Errors
    /// None in practice; serialization's.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ClientError> {
        let parts = &self.parts;
        let mut writer = Writer::new(Kind::ClientBundle, Some(&self.params))?;
        writer.meta(
            RECORD,
            &Record {
                model_name: parts.model_name.clone(),
                signature: parts.signature.clone(),
                keys: parts.keys.clone(),
                vocab_size: parts.embedding.vocab_size() as u64,
                positions: parts.embedding.positions() as u64,
            },
        )?;
        writer.section(TOKENIZER, parts.tokenizer.clone());
        parts.embedding.write(&mut writer, &parts.signature)?;
        writer.section(SERVER, parts.server_content.to_vec());
        Ok(writer.to_bytes()?)
    }

    /// A bundle from the bytes of its file; everything is checked anew.
    ///
    /// # Errors
    /// What the container says, and as [`ClientBundle::new`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ClientError> {
        let reader = Reader::open_kind(bytes, Kind::ClientBundle)?;
        let params = read_params(&reader)?;
        // The file is whole, its digest says so: what does not parse was written otherwise.
        let record: Record = reader
            .meta(RECORD)
            .map_err(|e| refuse(format!("its description is not of this version ({e})")))?;
        let server = reader.section(SERVER)?;
        let shape = Shape {
            vocab_size: record.vocab_size,
            positions: record.positions,
            features: record.signature.features,
        };
        let (embedding, encoder) = TokenVectors::read(&reader, shape)?;
        let parts = BundleParts {
            tokenizer: reader.section(TOKENIZER)?.to_vec(),
            embedding,
            server_content: server
                .try_into()
                .map_err(|_| refuse("the server bundle's digest is not 32 bytes".into()))?,
            model_name: record.model_name,
            signature: Signature {
                encoder,
                ..record.signature
            },
            keys: record.keys,
        };
        Self::new(&params, parts)
    }
}

fn refuse(what: String) -> ClientError {
    ClientError::Bundle(what)
}

/// Everything that encryption and decryption rely on.
fn check(params: &Params, parts: &BundleParts) -> Result<(), ClientError> {
    let fail = |what: String| Err(refuse(what));
    let name = &parts.model_name;
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        return fail(format!(
            "the model's name is not 1 to {MAX_NAME_BYTES} bytes of printable text"
        ));
    }
    if parts.tokenizer.len() > MAX_TOKENIZER_BYTES {
        return fail(format!(
            "the tokenizer has more than {MAX_TOKENIZER_BYTES} bytes"
        ));
    }
    parts.embedding.check(&parts.signature)?;
    check_signature(params, &parts.signature)?;
    let slots = params.slots() as i64;
    let in_bands =
        |(by, level): (i64, usize)| (by, params.band_at(KeyPurpose::Rotation(by), level));
    let rotations: Vec<_> = parts.keys.rotations.iter().map(|&r| in_bands(r)).collect();
    if rotations.iter().any(|r| !(1..slots).contains(&r.0)) || !rotations.is_sorted_by(|a, b| a < b)
    {
        return fail(format!(
            "its list of rotation keys is not ascending within 1..{slots}, one for a band of levels"
        ));
    }
    let singles = [
        (&parts.keys.relinearization, KeyPurpose::Relinearization),
        (&parts.keys.conjugation, KeyPurpose::Conjugation),
    ];
    for (levels, purpose) in singles {
        let bands = levels.iter().map(|&level| params.band_at(purpose, level));
        let bands: Vec<_> = bands.collect();
        if !bands.is_sorted_by(|a, b| a < b) {
            return fail("its keys of one purpose are not one for a band of levels".to_owned());
        }
    }
    Ok(())
}

fn check_signature(params: &Params, signature: &Signature) -> Result<(), ClientError> {
    let fail = |what: String| Err(refuse(what));
    let slots = params.slots();
    if signature.max_tokens == 0 || signature.max_tokens > signature.run || signature.features == 0
    {
        return fail(format!(
            "sentences of up to {} tokens of {} features in runs of {} slots",
            signature.max_tokens, signature.features, signature.run
        ));
    }
    let chunk = signature.run.checked_mul(signature.batch);
    let fits = chunk.is_some_and(|c| c <= slots && c.is_power_of_two());
    if !fits || !signature.batch.is_power_of_two() {
        return fail(format!(
            "{} sentences in runs of {} slots of {slots}",
            signature.batch, signature.run
        ));
    }
    if signature.inputs.is_empty() || signature.inputs.len() > MAX_INPUTS {
        return fail(format!(
            "{} input ciphertexts, 1 to {MAX_INPUTS} are expected",
            signature.inputs.len()
        ));
    }
    let bound = signature.answer_bound;
    if !(bound.is_finite() && bound > 0.0) {
        return fail(format!("a bound {bound} of the answer"));
    }
    for input in &signature.inputs {
        params.check_level(input.level)?;
        if !(input.power.is_finite() && input.power.abs() <= 16.0) {
            return fail(format!("a power {} of the length", input.power));
        }
        match (&input.kind, &signature.encoder) {
            (InputKind::Encoder(kind), Some(encoder)) => {
                encoder.check_input(*kind).map_err(refuse)?;
            }
            (InputKind::Encoder(_), None) | (_, Some(_)) => {
                return fail("an input is of another kind of model".into());
            }
            _ => {}
        }
        if let InputKind::Tokens { chunks } = &input.kind {
            let fits = chunks.len().checked_mul(signature.chunk_slots()) == Some(slots);
            let known = |f: &u32| (*f as usize) < signature.features;
            if !fits || !chunks.iter().flatten().all(known) {
                return fail("an input's chunks do not fit its slots and features".into());
            }
        }
    }
    let names = &signature.labels;
    if let Some(encoder) = &signature.encoder {
        encoder.check(slots).map_err(refuse)?;
        let labels = [0, encoder.answers].contains(&names.len());
        if signature.run != encoder.heads.tokens
            || signature.features != encoder.hidden
            || signature.batch != 1
            || !labels
        {
            return fail("its signature does not fit the slots of its encoder".into());
        }
    }
    let least = usize::from(signature.encoder.is_none());
    if names.len() < least || names.len() > MAX_LABELS {
        return fail(format!(
            "{} labels, {least} to {MAX_LABELS} are expected",
            names.len()
        ));
    }
    let shown = |n: &String| n.len() <= MAX_NAME_BYTES && !n.chars().any(char::is_control);
    if !names.iter().all(shown) {
        return fail(format!(
            "a label is not printable text of at most {MAX_NAME_BYTES} bytes"
        ));
    }
    Ok(())
}
