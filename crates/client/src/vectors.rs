//! From tokens to vectors: the table of our own families, or an encoder's, and their sections in a
//! client bundle.

use veilformer_ckks::container::{Reader, Tag, Writer};
use veilformer_ir::Signature;
use veilformer_ir::encoder::{Embeddings, EncoderSlots, LayerNorm};
use veilformer_models::encoder::embed;
use veilformer_models::{Embedding, EmbeddingTable, Matrix, ModelError};

use crate::ClientError;

const TABLE: Tag = Tag(*b"EMBV");
const SCALES: Tag = Tag(*b"EMBS");
const POSITIONS: Tag = Tag(*b"POSN");
const BITS: Tag = Tag(*b"EMBB");
const PROJECTION: Tag = Tag(*b"PROJ");
/// Where an encoder's values stand in slots: metadata. It says that the bundle is an encoder's.
const ENCODER: Tag = Tag(*b"ENCD");
/// What an encoder's client normalizes with: gains, offsets, and what is added to variances.
const NORM: Tag = Tag(*b"EMBN");

/// Longest [`ENCODER`] section, in bytes.
const ENCODER_LIMIT: usize = 1 << 12;

/// From tokens to the features that are encrypted.
#[derive(Clone, Debug)]
pub enum TokenVectors {
    /// The token table, what maps its rows to `signature.features` features, and a position table of
    /// at least `signature.max_tokens` rows, if there is one.
    Table(Embedding),
    /// Of an encoder.
    Encoder(EncoderVectors),
}

/// An encoder's token vectors: normalized sums of token and position.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderVectors {
    /// Tables and normalization.
    pub embeddings: Embeddings,
    /// Added to every variance.
    pub eps: f64,
}

impl From<Embedding> for TokenVectors {
    fn from(embedding: Embedding) -> Self {
        Self::Table(embedding)
    }
}

/// What the bundle's record says of its tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) vocab_size: u64,
    pub(crate) positions: u64,
    pub(crate) features: usize,
}

impl TokenVectors {
    /// Tokens of the table.
    pub(crate) fn vocab_size(&self) -> usize {
        match self {
            Self::Table(embedding) => embedding.table.vocab_size(),
            Self::Encoder(vectors) => vectors.embeddings.vocab_size,
        }
    }

    /// Positions of the table; none where there is no table.
    pub(crate) fn positions(&self) -> usize {
        match self {
            Self::Table(embedding) => embedding.position.as_ref().map_or(0, Matrix::rows),
            Self::Encoder(vectors) => vectors.embeddings.positions.rows(),
        }
    }

    /// The features of every token.
    pub(crate) fn rows(&self, tokens: &[u32]) -> Result<Matrix, ModelError> {
        match self {
            Self::Table(embedding) => embedding.lookup(tokens),
            Self::Encoder(vectors) => embed(&vectors.embeddings, vectors.eps, tokens),
        }
    }

    /// Adds the sections.
    pub(crate) fn write(
        &self,
        writer: &mut Writer,
        signature: &Signature,
    ) -> Result<(), ClientError> {
        let floats = |xs: &[f64]| xs.iter().flat_map(|x| x.to_le_bytes()).collect();
        match self {
            Self::Table(embedding) => {
                let Embedding {
                    table,
                    projection,
                    position,
                } = embedding;
                let positions = position.as_ref().map_or(&[][..], Matrix::data);
                writer.section(TABLE, table.packed().to_vec());
                writer.section(SCALES, floats(table.scale()));
                writer.section(POSITIONS, floats(positions));
                if table.bits().iter().any(|b| *b != 8) || table.width() != signature.features {
                    writer.section(BITS, table.bits().to_vec());
                }
                if let Some(projection) = projection {
                    writer.section(PROJECTION, floats(projection.data()));
                }
            }
            Self::Encoder(EncoderVectors { embeddings, eps }) => {
                let tokens = embeddings.tokens.iter().flat_map(|x| x.to_le_bytes());
                let LayerNorm { weight, bias } = &embeddings.norm;
                writer.section(TABLE, tokens.collect());
                writer.section(POSITIONS, floats(embeddings.positions.data()));
                writer.section(NORM, floats(&[&weight[..], bias, &[*eps]].concat()));
                writer.meta(ENCODER, &signature.encoder)?;
            }
        }
        Ok(())
    }

    /// Reads the sections, as long as the record and each other say, and an encoder's slots.
    pub(crate) fn read(
        reader: &Reader<'_>,
        shape: Shape,
    ) -> Result<(Self, Option<EncoderSlots>), ClientError> {
        if !reader.sections().any(|(tag, _)| tag == ENCODER) {
            return Ok((Self::Table(read_table(reader, shape)?), None));
        }
        let slots: Option<EncoderSlots> = reader.meta_up_to(ENCODER, ENCODER_LIMIT)?;
        let d = shape.features;
        let rows = usize::try_from(shape.vocab_size).unwrap_or(usize::MAX);
        let positions = usize::try_from(shape.positions).unwrap_or(usize::MAX);
        let bytes = rows.checked_mul(d).and_then(|n| n.checked_mul(4));
        let (tokens, _) = expect(reader, TABLE, bytes)?.as_chunks::<4>();
        let norm = floats(expect(
            reader,
            NORM,
            bytes_of(2, d).and_then(|n| n.checked_add(8)),
        )?);
        let (weight, rest) = norm.split_at(d.min(norm.len()));
        let (bias, eps) = rest.split_at(d.min(rest.len()));
        let data = floats(expect(reader, POSITIONS, bytes_of(positions, d))?);
        let vectors = EncoderVectors {
            embeddings: Embeddings {
                vocab_size: rows,
                tokens: tokens.iter().map(|b| f32::from_le_bytes(*b)).collect(),
                positions: veilformer_models::matrix(positions, d, data)?,
                norm: LayerNorm {
                    weight: weight.to_vec(),
                    bias: bias.to_vec(),
                },
            },
            eps: eps.first().copied().unwrap_or_default(),
        };
        Ok((Self::Encoder(vectors), slots))
    }

    /// `Ok` if the tables fit the signature, and no sum of products with their values overflows.
    pub(crate) fn check(&self, signature: &Signature) -> Result<(), ClientError> {
        // Far beyond what a model holds.
        let sane = |v: &f64| v.abs() <= 1e12;
        let features = signature.features;
        let (fits, sound) = match self {
            Self::Table(embedding) => {
                let Embedding {
                    table,
                    projection,
                    position,
                } = embedding;
                let columns = projection.as_ref().map_or(features, Matrix::cols);
                let fits = table.width() == columns
                    && projection.as_ref().is_none_or(|p| p.rows() == features)
                    && position.as_ref().is_none_or(|p| p.cols() == features);
                let matrices = [projection, position].into_iter().flatten();
                let mut values = table.scale().iter().chain(matrices.flat_map(Matrix::data));
                (fits, values.all(sane))
            }
            Self::Encoder(EncoderVectors { embeddings: e, eps }) => {
                let fits = e.vocab_size.checked_mul(features) == Some(e.tokens.len())
                    && !e.tokens.is_empty()
                    && e.positions.cols() == features
                    && e.norm.weight.len() == features
                    && e.norm.bias.len() == features;
                let norm = e.norm.weight.iter().chain(&e.norm.bias);
                let sound = norm.chain(e.positions.data()).all(sane)
                    && e.tokens.iter().all(|v| sane(&f64::from(*v)))
                    && (0.0..=1.0).contains(eps);
                (fits, sound)
            }
        };
        if !fits {
            let what = format!("its tables are not {features} features wide");
            return Err(ClientError::Bundle(what));
        }
        let positions = self.positions();
        let has_table = positions > 0 || matches!(self, Self::Encoder(_));
        if has_table && positions < signature.max_tokens {
            return Err(ClientError::Bundle(format!(
                "its position table has {positions} rows for sentences of up to {} tokens",
                signature.max_tokens
            )));
        }
        if !sound {
            let what = "a value of its tables is above 1e12 or not a number";
            return Err(ClientError::Bundle(what.into()));
        }
        Ok(())
    }
}

/// The tables of our own families. A bundle without a projection has one scale per feature.
fn read_table(reader: &Reader<'_>, shape: Shape) -> Result<Embedding, ClientError> {
    let features = shape.features;
    let optional = |tag: Tag| reader.sections().find(|s| s.0 == tag).map(|s| s.1);
    let bits = match optional(BITS) {
        Some(bits) => bits.to_vec(),
        None => vec![8; features],
    };
    let columns = bits.len();
    let scale = expect(reader, SCALES, bytes_of(1, columns))?;
    let rows = usize::try_from(shape.vocab_size).unwrap_or(usize::MAX);
    let values = reader.section(TABLE)?.to_vec();
    let table = EmbeddingTable::new(rows, bits, floats(scale), values);
    let matrix = |tag: Tag, rows: usize, width: usize| {
        let bytes = expect(reader, tag, bytes_of(rows, width))?;
        Ok::<_, ClientError>(veilformer_models::matrix(rows, width, floats(bytes))?)
    };
    let projection = optional(PROJECTION).map(|_| matrix(PROJECTION, features, columns));
    let positions = usize::try_from(shape.positions).unwrap_or(usize::MAX);
    let position = (positions > 0).then(|| matrix(POSITIONS, positions, features));
    Ok(Embedding {
        table: table.map_err(|what| ClientError::Bundle(format!("its token table is {what}")))?,
        projection: projection.transpose()?,
        position: position.transpose()?,
    })
}

/// Bytes of so many 64-bit numbers.
fn bytes_of(rows: usize, columns: usize) -> Option<usize> {
    rows.checked_mul(columns)?.checked_mul(8)
}

/// A section of this length.
fn expect<'a>(
    reader: &Reader<'a>,
    tag: Tag,
    expected: Option<usize>,
) -> Result<&'a [u8], ClientError> {
    let section = reader.section(tag)?;
    if expected == Some(section.len()) {
        return Ok(section);
    }
    Err(ClientError::Bundle(format!(
        "section {tag} has {} bytes, its record calls for another length",
        section.len()
    )))
}

fn floats(bytes: &[u8]) -> Vec<f64> {
    let (numbers, _) = bytes.as_chunks::<8>();
    numbers.iter().map(|b| f64::from_le_bytes(*b)).collect()
}
