//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use veilformer_ring::Isa;

use crate::peers::Peer;

/// What can be measured or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Operations of the scheme
    Ops,
    /// Number-theoretic transforms at 2^13 to 2^17
    Ntt,
    /// The ring's kernels
    Kernels,
    /// Operations on two threads beside one
    Threads,
    /// Matrix products by every method beside what their operations take
    Linear,
    /// All of the above
    All,
    /// Bootstraps, also of other libraries with --peers: minutes each, and up to 18 GiB of memory
    Bootstrap,
    /// One of our bootstraps (--only) in this process; prints what a driver prints
    #[value(hide = true)]
    BootstrapRun,
    /// Nothing: makes the table of the newest results (benches/results/README.md)
    Table,
    /// Nothing: makes the roofline plot of the newest results (SVG and PNG beside the table)
    Plot,
}

/// Measures operations beside their floors, and beside other libraries.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub struct Args {
    /// What to measure
    pub what: What,
    /// Print the names of what would be measured, and what each is
    #[arg(long)]
    pub list: bool,
    /// Print one JSON object per operation
    #[arg(long)]
    pub json: bool,
    /// Keep the results under benches/results, with their commit
    #[arg(long)]
    pub save: bool,
    /// Fewer rounds and shorter batches, same sizes
    #[arg(long)]
    pub quick: bool,
    /// Threads
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub threads: u8,
    /// Only these operations
    #[arg(long, value_delimiter = ',', value_name = "OP")]
    pub only: Vec<String>,
    /// Rounds (15, with --quick 7, in all --quick 3; of linear 5, with --quick 3, never fewer; of
    /// bootstraps 3, with --quick 1, of every kind of input)
    #[arg(long, value_name = "COUNT")]
    pub rounds: Option<usize>,
    /// log2 of the ring dimension
    #[arg(long, default_value_t = 16)]
    pub log_n: u32,
    /// Primes of Q
    #[arg(long, default_value_t = 24)]
    pub limbs: usize,
    /// Key-switching digits
    #[arg(long, default_value_t = 3)]
    pub dnum: usize,
    /// Bits of the scale and of the primes of Q
    #[arg(long, default_value_t = 45)]
    pub scale: u32,
    /// Instruction set of our kernels and of the floors; the best by default
    #[arg(long)]
    pub isa: Option<IsaName>,
    /// The core of a run on one thread; the last by default
    #[arg(long)]
    pub core: Option<usize>,
    /// Measure these other libraries in the same run; without names all of them
    #[arg(long, value_delimiter = ',', num_args = 0.., value_name = "PEER")]
    pub peers: Option<Vec<Peer>>,
    /// Where other libraries are installed [default: .cache/veilformer/peers in the home folder]
    #[arg(long, value_name = "DIR")]
    pub peers_dir: Option<PathBuf>,
    /// CPython 3.10, which two of them need
    #[arg(long, value_name = "FILE")]
    pub python: Option<PathBuf>,
}

/// An instruction set on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IsaName {
    /// Portable code
    Scalar,
    /// AVX2 and FMA
    Avx2,
    /// AVX-512 with IFMA
    Avx512ifma,
}

impl From<Isa> for IsaName {
    fn from(isa: Isa) -> Self {
        match isa {
            Isa::Scalar => Self::Scalar,
            Isa::Avx2 => Self::Avx2,
            Isa::Avx512Ifma => Self::Avx512ifma,
        }
    }
}

impl IsaName {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512ifma => "avx512ifma",
        }
    }
}

impl From<IsaName> for Isa {
    fn from(name: IsaName) -> Self {
        match name {
            IsaName::Scalar => Self::Scalar,
            IsaName::Avx2 => Self::Avx2,
            IsaName::Avx512ifma => Self::Avx512Ifma,
        }
    }
}
