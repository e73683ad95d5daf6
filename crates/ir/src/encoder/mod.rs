//! The encoder program: a bidirectional transformer with attention and LayerNorm after
//! each residual sum (Devlin et al., arXiv 1810.04805), as it was trained.
//!
//! Unlike a [`crate::tensor::TensorProgram`] it is not polynomial, and it is kept as a list of
//! layers of one form, so that what is made of it can stay a loop. Its non-linear functions are
//! not part of it: an execution takes them from a [`Functions`], which computes them exactly,
//! writes down their ranges, or replaces them by polynomials.

mod functions;
mod program;
mod ranges;
mod slots;

pub use functions::{
    Activation, AttentionFunction, Functions, HeadSite, NormSite, SublayerNorm, TokenClass,
    ValueSite,
};
pub use program::{Centering, Dense, Embeddings, Encoder, EncoderLayer, Head, LayerNorm, Pooling};
pub use ranges::{Histogram, LayerRanges, NormRanges, Range, Ranges};
pub use slots::{EncoderInput, EncoderSlots};
