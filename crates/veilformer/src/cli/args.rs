//! The flags and arguments of every command.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use veilformer::build::Batch;
use veilformer::circuits::bootstrap::Preset;
use veilformer::ckks::SecurityLevel;
use veilformer::models::LineRange;
use veilformer::ring::Isa;

/// Transformers on fully encrypted data: the server computes on what it cannot read.
#[derive(Debug, Parser)]
#[command(name = "veilformer", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub struct Global {
    /// Number of threads [default: all cores]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Instruction set of the server's kernels [default: the fastest of this processor]
    #[arg(long, global = true, value_enum, value_name = "ISA")]
    pub isa: Option<IsaName>,
    /// No progress, and no report of what was written
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// One JSON object on standard output, all else on standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Overwrite files that exist
    #[arg(long, global = true)]
    pub force: bool,
    /// How progress is shown on standard error
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        conflicts_with = "quiet"
    )]
    pub progress: ProgressKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressKind {
    /// Bars on a terminal, lines elsewhere
    Auto,
    /// A JSON object per line
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum IsaName {
    Scalar,
    Avx2,
    Avx512ifma,
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

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Encrypts sentences, runs the shipped model on ciphertexts and shows both answers
    Demo(Demo),
    /// Makes a client and a server bundle of a model
    Compile(Compile),
    /// Client: makes a secret key and the evaluation keys of a client bundle
    Keygen(Keygen),
    /// Client: encrypts sentences
    Encrypt(Encrypt),
    /// Server: answers encrypted sentences
    Run(Run),
    /// Client: decrypts the answers
    Decrypt(Decrypt),
    /// Server: predicts time, memory and bytes of a run without running
    Plan(Plan),
    /// Prints the programs that a model becomes
    Explain(Explain),
    /// Says what a file is
    Inspect(Inspect),
    /// Lists the models that ship with this program
    Models(Models),
    /// Runs a data set through a model
    Eval(Eval),
    /// Answers sentences in the clear, simulated and encrypted, and draws what was predicted
    /// against what happened
    Report(Report),
}

/// What a model of any kind is compiled for.
#[derive(Debug, Clone, Args)]
pub struct Size {
    /// Longest sentence in tokens [default: the model's own limit]
    #[arg(long, value_name = "N")]
    pub tokens: Option<usize>,
    /// Sentences per run: a power of two, or `full` for as many as fill the slots
    /// [default: 1]
    #[arg(long, value_name = "N|full", value_parser = parse_batch)]
    pub batch: Option<Batch>,
    /// Security of every key in bits [default: 128]
    #[arg(long, value_parser = ["128", "192", "256"])]
    pub security: Option<String>,
}

/// What a model is compiled for, with what only encoders take.
#[derive(Debug, Clone, Args)]
pub struct Target {
    #[command(flatten)]
    pub size: Size,
    /// Of an encoder: sentences like those that it will see, a data set or one per line
    #[arg(long, value_name = "DATA")]
    pub calibrate: Option<PathBuf>,
    /// Of an encoder: how it bootstraps [default: 11-levels]
    #[arg(long, value_name = "NAME", value_parser = presets())]
    pub preset: Option<String>,
    /// Of an encoder: factor of the errors that its functions' polynomials may have
    /// [default: what keeps its answers to sentences of the calibration near its own]
    #[arg(long, value_name = "FACTOR")]
    pub budget: Option<f64>,
}

/// The names of all presets.
fn presets() -> PossibleValuesParser {
    let all = Preset::all().unwrap_or_default();
    all.iter().map(|p| p.name.as_str()).into()
}

fn parse_batch(text: &str) -> Result<Batch, String> {
    if text == "full" {
        return Ok(Batch::Full);
    }
    match text.parse::<usize>() {
        Ok(n) if n.is_power_of_two() => Ok(Batch::Of(n)),
        _ => Err("expected a power of two (1, 2, 4, ...) or `full`".to_owned()),
    }
}

impl Target {
    /// True where any of the flags is given.
    pub fn is_given(&self) -> bool {
        self.size.tokens.is_some()
            || self.size.batch.is_some()
            || self.size.security.is_some()
            || self.is_given_for_encoders()
    }

    /// True where a flag is given that only encoders take.
    pub fn is_given_for_encoders(&self) -> bool {
        self.calibrate.is_some() || self.preset.is_some() || self.budget.is_some()
    }

    /// With the defaults filled in.
    pub fn resolve(&self) -> veilformer::build::Target {
        self.size.resolve()
    }
}

impl Size {
    /// With the defaults filled in.
    pub fn resolve(&self) -> veilformer::build::Target {
        veilformer::build::Target {
            security: match self.security.as_deref() {
                Some("192") => SecurityLevel::Bits192,
                Some("256") => SecurityLevel::Bits256,
                _ => SecurityLevel::Bits128,
            },
            tokens: self.tokens,
            batch: self.batch.unwrap_or(Batch::Of(1)),
        }
    }
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Sentences to encrypt [default: five of ours]
    pub sentences: Vec<String>,
    /// A shipped model or a model folder
    #[arg(long, default_value = veilformer::model::DEMO_MODEL)]
    pub model: String,
    #[command(flatten)]
    pub size: Size,
}

#[derive(Debug, Args)]
pub struct Compile {
    /// A shipped model (see `models`), a model folder, or the Hugging Face folder of an encoder
    #[arg(required_unless_present = "named")]
    pub model: Option<String>,
    /// The same as a flag
    #[arg(
        long = "model",
        id = "named",
        value_name = "MODEL",
        conflicts_with = "model"
    )]
    pub named: Option<String>,
    /// Folder for client.veil and server.veil
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, Args)]
pub struct Keygen {
    /// The client bundle
    #[arg(long, value_name = "FILE", default_value = "client.veil")]
    pub client: PathBuf,
    /// Where the secret key goes (mode 0600; it never leaves the client)
    #[arg(long, value_name = "FILE", default_value = "secret.veil")]
    pub secret: PathBuf,
    /// Where the evaluation keys go (for the server)
    #[arg(long, value_name = "FILE", default_value = "keys.veil")]
    pub keys: PathBuf,
    /// Go on where an interrupted `keygen --resume` ended: take the secret key if it exists, keep
    /// the evaluation keys that are there (in KEYS.unfinished), and make the others
    #[arg(long)]
    pub resume: bool,
}

#[derive(Debug, Args)]
pub struct Encrypt {
    /// Sentences
    pub sentences: Vec<String>,
    /// A file with one sentence per line instead; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "sentences")]
    pub file: Option<PathBuf>,
    /// The client bundle
    #[arg(long, value_name = "FILE", default_value = "client.veil")]
    pub client: PathBuf,
    /// The secret key
    #[arg(long, value_name = "FILE", default_value = "secret.veil")]
    pub secret: PathBuf,
    /// Where the ciphertexts go (for the server)
    #[arg(long, short, value_name = "FILE", default_value = "input.veil")]
    pub output: PathBuf,
}

#[derive(Debug, Args)]
pub struct Run {
    /// The ciphertexts that `encrypt` wrote
    #[arg(default_value = "input.veil")]
    pub input: PathBuf,
    /// The server bundle
    #[arg(long, value_name = "FILE", default_value = "server.veil")]
    pub server: PathBuf,
    /// The client's evaluation keys
    #[arg(long, value_name = "FILE", default_value = "keys.veil")]
    pub keys: PathBuf,
    /// Where the answers go (for the client)
    #[arg(long, short, value_name = "FILE", default_value = "answer.veil")]
    pub output: PathBuf,
    #[command(flatten)]
    pub memory: Memory,
}

/// How much memory a server may take.
#[derive(Debug, Default, Args)]
pub struct Memory {
    /// Most memory that the server may take, in GiB: weights that do not fit are encoded anew for
    /// every sentence [default: three quarters of the machine's]
    #[arg(long, value_name = "GIB")]
    pub memory: Option<f64>,
}

#[derive(Debug, Args)]
pub struct Decrypt {
    /// The answers that `run` wrote
    #[arg(default_value = "answer.veil")]
    pub answer: PathBuf,
    /// The client bundle
    #[arg(long, value_name = "FILE", default_value = "client.veil")]
    pub client: PathBuf,
    /// The secret key
    #[arg(long, value_name = "FILE", default_value = "secret.veil")]
    pub secret: PathBuf,
}

#[derive(Debug, Args)]
pub struct Plan {
    /// A server bundle, a folder with one, a shipped model or a model folder
    #[arg(default_value = "server.veil", value_name = "SERVER")]
    pub server: String,
    /// A shipped model or a model folder, as a flag
    #[arg(long, value_name = "MODEL", conflicts_with = "server")]
    pub model: Option<String>,
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub memory: Memory,
    /// Where measured costs of this machine are kept [default: a file per parameters in
    /// ~/.cache/veilformer]
    #[arg(long, value_name = "FILE")]
    pub costs: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Explain {
    /// A server bundle, a folder with one, a shipped model or a model folder
    #[arg(required_unless_present = "model")]
    pub what: Option<String>,
    /// A shipped model or a model folder, as a flag
    #[arg(long, value_name = "MODEL", conflicts_with = "what")]
    pub model: Option<String>,
    /// Of an encoder only this: what stands in place of its functions, and its stages
    #[arg(long, conflicts_with = "device")]
    pub substitutions: bool,
    /// The device program too: order, buffers, keys by first use, for --threads threads
    #[arg(long)]
    pub device: bool,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// Any file that this program wrote
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct Models {
    /// Print this model's card
    pub name: Option<String>,
}

/// A data set, the sentences of it that are taken, and the model that answers them.
#[derive(Debug, Args)]
pub struct Sentences {
    /// `label text` lines, a table with the columns sentence and label, or a .pos/.neg pair
    pub data: PathBuf,
    /// A shipped model or a model folder
    #[arg(long, default_value = veilformer::model::DEMO_MODEL)]
    pub model: String,
    /// Take these lines only, counted from 0 and the last one excluded; of a pair, of either file
    #[arg(long, value_name = "FIRST..END")]
    pub lines: Option<LineRange>,
    /// Count a sentence that is too long for the model as answered wrongly, instead of stopping
    #[arg(long)]
    pub long_as_wrong: bool,
    #[command(flatten)]
    pub target: Target,
    /// Take at most so many sentences [default: all; of `report` 50]
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Draw the sentences at random with this seed instead of from the start of the file
    /// [default of `report`: 1]
    #[arg(long)]
    pub seed: Option<u64>,
}

#[derive(Debug, Args)]
pub struct Eval {
    #[command(flatten)]
    pub sentences: Sentences,
    /// How sentences are answered
    #[arg(long, value_enum, default_value = "poly")]
    pub mode: Mode,
}

#[derive(Debug, Args)]
pub struct Report {
    #[command(flatten)]
    pub sentences: Sentences,
    /// Folder for the charts
    #[arg(long, short, value_name = "DIR", default_value = "report")]
    pub output: PathBuf,
    /// Where measured costs of this machine are kept [default: a file per parameters in
    /// ~/.cache/veilformer]
    #[arg(long, value_name = "FILE")]
    pub costs: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The original model in floating point (of our own families the same as poly)
    Clear,
    /// The polynomial model in floating point
    Poly,
    /// The polynomial model with simulated noise
    Sim,
    /// On ciphertexts, with fresh keys
    Encrypted,
}
