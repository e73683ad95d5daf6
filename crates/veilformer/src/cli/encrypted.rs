//! Both roles in one process, for commands that answer many sentences: all that passes between
//! them are the bytes of the files that the separate commands would write.

use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::time::Instant;

use veilformer::any::AnyModel;
use veilformer::build::Target;
use veilformer::client::{Answer, ClientBundle};
use veilformer::ring::Cpu;
use veilformer::runtime::{RunStats, Server, ServerBundle};
use veilformer::secret::{KeyGenerator, SecretKey, SecureRng};

use super::error::{Failure, Result};
use super::{Context, args, files, load};

/// A client and a server with fresh keys.
pub struct Encrypted {
    client: ClientBundle,
    secret: SecretKey,
    server: Server<Cpu>,
    /// Time that the server took so far.
    pub run_seconds: f64,
    /// What its runs took.
    pub stats: RunStats,
}

impl Encrypted {
    /// Compiles a model for `target`, makes keys and loads them.
    pub fn new(context: &Context, model: &AnyModel, target: Target) -> Result<Self> {
        let stage = context.progress.stage("compiling the model");
        let bundles = model.build(target, &mut |part| stage.part(part))?;
        stage.finish();
        let stage = context.progress.stage("making keys");
        let client = bundles.client;
        let mut generator = KeyGenerator::new(client.params(), SecureRng::from_os()?);
        let secret = generator.secret_key()?;
        // On disk: a set of keys takes gigabytes, and the server prepares them one by one.
        let (file, folder) = files::unnamed()?;
        let mut out = BufWriter::with_capacity(1 << 16, &file);
        let go = &mut |done, total| {
            stage.update(done, total);
            ControlFlow::Continue(())
        };
        client
            .write_evaluation_keys(&mut generator, &secret, &mut out, go)
            .map_err(|e| Failure::writing(&folder, e))?;
        out.flush().map_err(|e| Failure::write(&folder, &e))?;
        drop(out);
        stage.finish();
        let stage = context.progress.stage("loading keys");
        let memory = args::Memory::default();
        let server = load::server(context, bundles.server, &file, &memory, |done, total| {
            stage.update(done, total);
        })?;
        stage.finish();
        Ok(Self {
            client,
            secret,
            server,
            run_seconds: 0.0,
            stats: RunStats::default(),
        })
    }

    /// Sentences that one run answers.
    pub fn batch(&self) -> usize {
        self.client.signature().batch.max(1)
    }

    /// The server's half of the compiled model.
    pub fn server_bundle(&self) -> &ServerBundle {
        self.server.bundle()
    }

    /// The client's half.
    pub fn client_bundle(&self) -> &ClientBundle {
        &self.client
    }

    /// Encrypts, runs, decrypts.
    pub fn answer(&mut self, sentences: &[&str]) -> Result<Vec<Answer>> {
        let input = self.client.encrypt(&self.secret, sentences)?;
        let started = Instant::now();
        let run = self.server.run(&input, &|_, _| ControlFlow::Continue(()))?;
        self.run_seconds += started.elapsed().as_secs_f64();
        self.stats.add(&run.stats);
        let answers = self.client.decrypt(&self.secret, &run.answer)?;
        if answers.len() == sentences.len() {
            return Ok(answers);
        }
        Err(Failure::system(format!(
            "{} answers came back for {} sentences; please report this",
            answers.len(),
            sentences.len()
        )))
    }
}
