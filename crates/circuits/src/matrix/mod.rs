//! Products of matrices with encrypted activations.
//!
//! A table of features by tokens lies in several ciphertexts ([`Packing`]); a matrix of
//! [`Weights`] multiplies every token's features. [`MatrixProduct`] has the steps: they are counted
//! ([`Counts`]) before anything is encoded, and run on any [`veilformer_ckks::Ops`].
//!
//! # Packed rows
//!
//! [`Method::PackedRows`], the baseline that other ways are compared with: the naive row method of
//! Juvekar, Vaikuntanathan and Chandrakasan ("GAZELLE", USENIX Security 2018, section 4), which
//! arXiv 2512.11135 calls packed row, for all tokens of a ciphertext at once. Per output feature:
//! every input ciphertext is multiplied with the feature's row of weights, the products are summed
//! and rescaled; log2(width) rotations, each added to what it rotated, sum a token's slots into the
//! output's slot; a mask clears the others, and the outputs of a ciphertext are added and rescaled.
//! Rotations are signed so that the sum arrives at its place; so there is none to bring it there.
//! Two levels.
//!
//! # Diagonals
//!
//! [`Method::Diagonals`]: baby and giant steps, hoisted once or twice, one level. In the token-fast
//! packing rotations are cyclic and plaintexts dense; in the feature-fast one plaintexts have the
//! period of a token, and a rotation runs into the next token ([`Wrap`]). With one feature per
//! ciphertext ([`Packing::Column`]) all that is left are products with constants.
//!
//! # Two encrypted matrices
//!
//! [`TileProduct`] multiplies square matrices that lie in a ciphertext each, several of them side by
//! side: three levels.
//!
//! # Choosing
//!
//! [`plan`] counts the ways there are and takes the cheapest by measured [`UnitCosts`].

mod counts;
mod diagonals;
mod estimate;
mod packing;
mod plan;
mod product;
mod rows;
mod tally;
mod tiles;
mod weights;

pub use counts::{Counts, ProductCosts, Products, UnitCosts};
pub use diagonals::{Diagonal, Wrap};
pub use packing::Packing;
pub use plan::{Choice, plan};
pub use product::{Hoisting, MatrixProduct, Method, Role};
pub use tiles::{TileProduct, TileShape};
pub use weights::{PruneUnit, Weights};
