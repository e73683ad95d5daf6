//! Residue polynomials: the ring `Z_q[X]/(X^N+1)` over a chain of word-sized primes.
//!
//! # Conventions
//! * `N = 2^3 ..= 2^17`; every prime is `1 mod 2N` and below `2^50`; one `u64` per residue,
//!   limb-major; values are canonical, in `[0, q)`, at every public boundary, and every
//!   instruction set gives bit-identical results.
//! * A polynomial lives on a [`Basis`], an arbitrary set of primes of its [`Chain`].
//! * **NTT order (a contract):** let `psi = a^((q-1)/2N)` for the smallest `a = 2, 3, ..` with
//!   `psi^N = -1 mod q`. Index `j` of a limb in [`Form::Ntt`] holds the value at
//!   `psi^(2*rev(j)+1)`, `rev` reversing the `log2 N` bits.
//! * [`Backend`] is a machine that computes on such polynomials: [`Cpu`] is the fast one,
//!   [`Reference`] the oracle that follows the definitions.

mod backend;
mod basis;
mod buffer;
mod chain;
pub mod conformance;
mod cpu;
mod error;
mod expander;
mod galois;
mod kernels;
mod key;
mod keystream;
mod modulus;
mod ntt;
mod poly;
mod reference;
mod shelves;
mod words;

pub use backend::{
    Backend, DiagonalTerm, FactorsRef, GiantStep, OutputPlan, Pair, PairRef, TransformPlan,
};
pub use basis::Basis;
pub use buffer::{pool_bytes, set_pool_limit};
pub use chain::Chain;
pub use cpu::{Cpu, CpuConfig, CpuKey, CpuPlain, grouping};
pub use error::{Result, RingError};
pub use expander::{Expander, ExpanderId, Stream};
pub use galois::GaloisElement;
pub use kernels::Isa;
pub use key::{PlainPoly, SwitchingKey, UniformHalf};
pub use modulus::{
    MAX_MODULUS_BITS, Modulus, ShoupConst, is_prime, ntt_primes_below, ntt_primes_near,
};
pub use poly::{Form, RnsPoly};
pub use reference::{Reference, ReferenceKey};
pub use shelves::{Shelves, size_class};
