//! The client bundle and its file.
//!
//! A container of kind [`Kind::ClientBundle`] with these sections: the parameters, a record
//! (name, signature, key list, table shapes), the tokenizer as it came (`tokenizer.json`), the
//! token table (its packed rows), its scales (one little-endian f64 per column), the position table
//! (little-endian f64, row after row; empty for a model without one), and the content digest of
//! the server bundle. Two more where a model has them: the bits of a value of the token table (a
//! byte per column; without it a column per feature, of 8 bits), and the projection from columns to
//! features (little-endian f64, a row per feature).

use serde::{Deserialize, Serialize};
use std::io::{Read, Seek, Write};
use veilformer_ckks::container::{Kind, Reader, Tag, Writer, read_params};
use veilformer_ckks::{KeyList, Params};
use veilformer_ir::{InputKind, Signature};
use veilformer_models::{Embedding, EmbeddingTable, Matrix, Tokenizer};
use veilformer_secret::{KeyGenerator, Progress, Resumed, SecretKey};

use crate::ClientError;

const RECORD: Tag = Tag(*b"CLNT");
const TOKENIZER: Tag = Tag(*b"TOKN");
const TABLE: Tag = Tag(*b"EMBV");
const SCALES: Tag = Tag(*b"EMBS");
const POSITIONS: Tag = Tag(*b"POSN");
const BITS: Tag = Tag(*b"EMBB");
const PROJECTION: Tag = Tag(*b"PROJ");
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
    /// From tokens to features: the token table, what maps its rows to `signature.features`
    /// features, and a position table of at least `signature.max_tokens` rows, if there is one.
    pub embedding: Embedding,
    /// Content digest of the server bundle: the name of the program.
    pub server_content: [u8; 32],
}

/// The client's half of a compiled model, checked: its parts belong together.
#[derive(Clone, Debug)]
pub struct ClientBundle {
    params: Params,
    parts: BundleParts,
    tokenizer: Tokenizer,
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
        let tokenizer = Tokenizer::from_bytes(&parts.tokenizer)?;
        let rows = parts.embedding.table.vocab_size();
        if tokenizer.vocab_size() != rows {
            return Err(refuse(format!(
                "the tokenizer knows {} tokens and the token table has {rows} rows",
                tokenizer.vocab_size(),
            )));
        }
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
        Ok(self.tokenizer.encode_within(text, limit)?)
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
            return Err(veilformer_models::ModelError::TooLong { count, limit }.into());
        }
        let rows = self.parts.embedding.lookup(tokens)?;
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
        let floats = |xs: &[f64]| xs.iter().flat_map(|x| x.to_le_bytes()).collect();
        let Embedding {
            table,
            projection,
            position,
        } = &parts.embedding;
        let positions = position.as_ref().map_or(&[][..], Matrix::data);
        let mut writer = Writer::new(Kind::ClientBundle, Some(&self.params))?;
        writer.meta(
            RECORD,
            &Record {
                model_name: parts.model_name.clone(),
                signature: parts.signature.clone(),
                keys: parts.keys.clone(),
                vocab_size: table.vocab_size() as u64,
                positions: position.as_ref().map_or(0, Matrix::rows) as u64,
            },
        )?;
        writer.section(TOKENIZER, parts.tokenizer.clone());
        writer.section(TABLE, table.packed().to_vec());
        writer.section(SCALES, floats(table.scale()));
        writer.section(POSITIONS, floats(positions));
        writer.section(SERVER, parts.server_content.to_vec());
        if table.bits().iter().any(|b| *b != 8) || table.width() != parts.signature.features {
            writer.section(BITS, table.bits().to_vec());
        }
        if let Some(projection) = projection {
            writer.section(PROJECTION, floats(projection.data()));
        }
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
        let parts = BundleParts {
            tokenizer: reader.section(TOKENIZER)?.to_vec(),
            embedding: read_embedding(&reader, &record)?,
            server_content: server
                .try_into()
                .map_err(|_| refuse("the server bundle's digest is not 32 bytes".into()))?,
            model_name: record.model_name,
            signature: record.signature,
            keys: record.keys,
        };
        Self::new(&params, parts)
    }
}

/// The tables, their sections as long as the record and each other say. A bundle without a
/// projection has one scale per feature.
fn read_embedding(reader: &Reader<'_>, record: &Record) -> Result<Embedding, ClientError> {
    let features = record.signature.features;
    let expect = |tag: Tag, expected: Option<usize>| {
        let section = reader.section(tag)?;
        if expected == Some(section.len()) {
            return Ok(section);
        }
        Err(refuse(format!(
            "section {tag} has {} bytes, its record calls for another length",
            section.len()
        )))
    };
    let bytes_of = |rows: usize, columns: usize| rows.checked_mul(columns)?.checked_mul(8);
    let optional = |tag: Tag| reader.sections().find(|s| s.0 == tag).map(|s| s.1);
    let bits = match optional(BITS) {
        Some(bits) => bits.to_vec(),
        None => vec![8; features],
    };
    let columns = bits.len();
    let scale = expect(SCALES, bytes_of(1, columns))?;
    let rows = usize::try_from(record.vocab_size).unwrap_or(usize::MAX);
    let values = reader.section(TABLE)?.to_vec();
    let table = EmbeddingTable::new(rows, bits, floats(scale), values);
    let matrix = |tag: Tag, rows: usize, width: usize| {
        let bytes = expect(tag, bytes_of(rows, width))?;
        Ok::<_, ClientError>(veilformer_models::matrix(rows, width, floats(bytes))?)
    };
    let projection = optional(PROJECTION).map(|_| matrix(PROJECTION, features, columns));
    let positions = usize::try_from(record.positions).unwrap_or(usize::MAX);
    let position = (positions > 0).then(|| matrix(POSITIONS, positions, features));
    Ok(Embedding {
        table: table.map_err(|what| refuse(format!("its token table is {what}")))?,
        projection: projection.transpose()?,
        position: position.transpose()?,
    })
}

fn floats(bytes: &[u8]) -> Vec<f64> {
    let chunks = bytes.chunks_exact(8);
    let value = |c: &[u8]| c.first_chunk().copied().map_or(0.0, f64::from_le_bytes);
    chunks.map(value).collect()
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
    check_tables(parts)?;
    check_signature(params, &parts.signature)?;
    let slots = params.slots() as i64;
    let rotations = &parts.keys.rotations;
    if rotations.iter().any(|r| !(1..slots).contains(&r.0))
        || rotations.windows(2).any(|w| match w {
            [a, b] => a.0 >= b.0,
            _ => false,
        })
    {
        return fail(format!(
            "its list of rotation keys is not ascending within 1..{slots}"
        ));
    }
    Ok(())
}

fn check_tables(parts: &BundleParts) -> Result<(), ClientError> {
    let Embedding {
        table,
        projection,
        position,
    } = &parts.embedding;
    let features = parts.signature.features;
    let columns = projection.as_ref().map_or(features, Matrix::cols);
    if table.width() != columns
        || projection.as_ref().is_some_and(|p| p.rows() != features)
        || position.as_ref().is_some_and(|p| p.cols() != features)
    {
        return Err(refuse(format!(
            "its tables are not {features} features wide"
        )));
    }
    if let Some(position) = position
        && position.rows() < parts.signature.max_tokens
    {
        return Err(refuse(format!(
            "its position table has {} rows for sentences of up to {} tokens",
            position.rows(),
            parts.signature.max_tokens
        )));
    }
    // Far beyond what a model holds, and no sum of products overflows.
    let sane = |v: &f64| v.abs() <= 1e12;
    let matrices = [projection, position].into_iter().flatten();
    let mut values = table.scale().iter().chain(matrices.flat_map(Matrix::data));
    if !values.all(sane) {
        return Err(refuse(
            "a value of its tables is above 1e12 or not a number".into(),
        ));
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
        if let InputKind::Tokens { chunks } = &input.kind {
            let fits = chunks.len().checked_mul(signature.chunk_slots()) == Some(slots);
            let known = |f: &u32| (*f as usize) < signature.features;
            if !fits || !chunks.iter().flatten().all(known) {
                return fail("an input's chunks do not fit its slots and features".into());
            }
        }
    }
    let names = &signature.labels;
    if names.is_empty() || names.len() > MAX_LABELS {
        return fail(format!(
            "{} labels, 1 to {MAX_LABELS} are expected",
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
