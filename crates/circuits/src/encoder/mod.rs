//! The kernels of a BERT-family encoder on ciphertexts: attention with softmax, LayerNorm, pooling.
//!
//! Features are the fast axis, as in [`Packing::FeatureFast`](crate::matrix::Packing): token `t` of
//! a sentence has the slots from `t * width` on, and what is longer than `width` lies in several
//! ciphertexts (*blocks*). Tokens and width are powers of two, and everything repeats with period
//! `tokens * width`: so a rotation by multiples of `width` is a clean cyclic rotation over tokens,
//! and what is the same for all tokens is a plaintext of a short period. Values are real; where two
//! of them ride in one ciphertext as real and imaginary part, it says so.
//!
//! # Attention
//!
//! With [`Heads`] queries, keys and values lie in *lanes*: lane `h` of each block holds some
//! dimensions of head `h`, the next block the next ones. The scores of all token pairs at distance
//! `s = G a + b` are one product,
//!
//! `(rot_(-G a)(q) * rot_b(k))[t] = q[t - G a] k[t + b]`,
//!
//! rotations counted in tokens: queries by giant steps, keys by baby steps, and no score has to be
//! rotated by its own distance. Three things make this cheap:
//!
//! * products of all blocks are summed before they are relinearized, because a head's dimensions
//!   lie in the same places of all blocks;
//! * two giant steps ride in one product: with `q_a + i q_a'` it is the scores of one in the real
//!   part, those of the other in the imaginary part;
//! * the sum over a lane puts as many products as a lane has places into one ciphertext, each into
//!   a place of its own ([`Scores`]); so there is one score per slot, and the ciphertexts that
//!   softmax works on are as few as can be.
//!
//! [`KeySum`] adds up what belongs to a query; [`Weighted`] is the way back, from a weight per slot
//! to the sum of weighted values. The sum of a query stands in the slots of its outputs, so that
//! softmax is normalized by one product per block, after the values are summed: [`attend`].
//!
//! | kernel | levels |
//! |---|---|
//! | [`Spread`], where a lane of keys stands for several | 1 |
//! | [`Scores`] | 2 |
//! | [`Mask`] | 1 |
//! | [`KeySum`] | 1 |
//! | [`Weighted`] | 2 |
//! | [`LayerNorm::centre`] | 1 |
//! | variance ([`Variance`]) | 2 below the input, or 2 below the centred one |
//! | [`Pool`] | 1 |

mod heads;
mod norm;
mod pool;
mod scores;
mod slots;
mod softmax;
mod weighted;

pub use heads::{Heads, ScorePlace};
pub use norm::{LayerNorm, Variance};
pub use pool::Pool;
pub use scores::{Scores, Spread};
pub use slots::{Mask, Parts, fold};
pub use softmax::{KeySum, Softmax, attend, power};
pub use weighted::Weighted;
