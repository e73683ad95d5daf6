//! `demo`: both roles in one process, kept apart.
//!
//! All that passes between [`Client`] and [`Server`] are the bytes of the files that the separate
//! commands would write.

use std::io::Cursor;
use std::ops::ControlFlow;
use std::path::Path;

use veilformer::build::{Target, build};
use veilformer::ckks::SecretKind;
use veilformer::ckks::container::inspect;
use veilformer::client::{Answer, ClientBundle};
use veilformer::model::Model;
use veilformer::models::ModelError;
use veilformer::runtime::ServerBundle;
use veilformer::secret::{KeyGenerator, SecretKey, SecureRng};

use crate::cli::args;
use crate::cli::error::{Failure, Result};
use crate::cli::json::{Demo, DemoSeconds, DemoSentence, LabelledAnswer, Security};
use crate::cli::output::{bytes, counted, peak_rss_bytes, printable, table};
use crate::cli::{Context, load};

/// What is encrypted when the user names no sentence. Ours, and in no data set.
const SENTENCES: [&str; 5] = [
    "A warm, clever film with a wonderful cast.",
    "The plot is a mess and none of the jokes land.",
    "I expected very little, and it turned out to be a delight.",
    "Dull, predictable and an hour too long.",
    "It is not a good film, and it is far too long.",
];

/// The client's side: the only one with a secret key.
struct Client {
    bundle: ClientBundle,
    secret: SecretKey,
}

/// What only people are shown.
struct Details {
    compile: f64,
    load: f64,
    threads: usize,
}

pub fn run(context: &Context, args: &args::Demo) -> Result<()> {
    let sentences: Vec<String> = if args.sentences.is_empty() {
        SENTENCES.map(str::to_owned).to_vec()
    } else {
        args.sentences.clone()
    };
    if load::is_encoder(&args.model)? {
        return Err(Failure::input(
            "the demo shows models that take a second; encoders from Hugging Face folders take \
             gigabytes and some minutes: use compile, keygen, encrypt, run and decrypt",
        )
        .of(Path::new(&args.model)));
    }
    let model = load::own_model(&args.model)?;
    // Refused before any work: an empty or over-long sentence.
    for sentence in &sentences {
        let refuse = |e: &dyn std::fmt::Display| {
            Failure::input(format!("\"{}\": {e}", printable(sentence, 200)))
        };
        let count = model.folder.encode(sentence).map_err(|e| refuse(&e))?.len();
        let limit = args.size.tokens.unwrap_or(usize::MAX);
        if count > limit {
            return Err(refuse(&ModelError::TooLong { count, limit }));
        }
    }

    let stage = context.progress.stage("compiling the model");
    let (client_file, server_file) = bundle_files(&model, args.size.resolve())?;
    let compile = stage.finish();

    let stage = context.progress.stage("client: making keys");
    let client = Client::new(&client_file)?;
    let key_file = client.evaluation_keys(|done, total| stage.update(done, total))?;
    let keygen = stage.finish();

    let stage = context.progress.stage("client: encrypting");
    let input_file = client.bundle.encrypt(&client.secret, &sentences)?;
    let encrypt = stage.finish();

    let stage = context.progress.stage("server: loading bundle and keys");
    let bundle = ServerBundle::from_bytes(&server_file)?;
    let server = load::server(
        context,
        bundle,
        Cursor::new(&key_file),
        &args::Memory::default(),
        |done, total| {
            stage.update(done, total);
        },
    )?;
    let load = stage.finish();

    let stage = context.progress.stage("server: running on ciphertexts");
    let answer_file = server
        .run(&input_file, &|done, total| {
            stage.update(done, total);
            ControlFlow::Continue(())
        })?
        .answer;
    let run = stage.finish();

    let stage = context.progress.stage("client: decrypting");
    let answers = client.bundle.decrypt(&client.secret, &answer_file)?;
    let decrypt = stage.finish();

    let report = Demo {
        sentences: compare(&model, &sentences, &answers)?,
        seconds: DemoSeconds {
            keygen,
            encrypt,
            run,
            decrypt,
            total: context.started.elapsed().as_secs_f64(),
        },
        peak_rss_bytes: peak_rss_bytes().unwrap_or(0),
        key_bytes: key_file.len() as u64,
        ciphertext_bytes_up: input_file.len() as u64,
        ciphertext_bytes_down: answer_file.len() as u64,
        security: security(&client.bundle, &key_file)?,
    };
    let details = Details {
        compile,
        load,
        threads: rayon::current_num_threads(),
    };
    context
        .output
        .answer(&report, || text(&report, &model, &details))?;
    let differ = |s: &&DemoSentence| s.encrypted.label != s.plaintext.label;
    match report.sentences.iter().filter(differ).count() {
        0 => Ok(()),
        n => Err(Failure::system(format!(
            "{n} encrypted answers differ from the plaintext ones; please report this"
        ))),
    }
}

impl Client {
    fn new(bundle: &[u8]) -> Result<Self> {
        let bundle = ClientBundle::from_bytes(bundle)?;
        let mut generator = KeyGenerator::new(bundle.params(), SecureRng::from_os()?);
        let secret = generator.secret_key()?;
        Ok(Self { bundle, secret })
    }

    fn evaluation_keys(&self, mut progress: impl FnMut(usize, usize)) -> Result<Vec<u8>> {
        let mut generator = KeyGenerator::new(self.bundle.params(), SecureRng::from_os()?);
        let mut file = Vec::new();
        self.bundle.write_evaluation_keys(
            &mut generator,
            &self.secret,
            &mut file,
            &mut |done, total| {
                progress(done, total);
                ControlFlow::Continue(())
            },
        )?;
        Ok(file)
    }
}

/// The two bundles as files.
fn bundle_files(model: &Model, target: Target) -> Result<(Vec<u8>, Vec<u8>)> {
    let bundles = build(model, target)?;
    Ok((bundles.client.to_bytes()?, bundles.server.to_bytes()?))
}

fn compare(model: &Model, sentences: &[String], answers: &[Answer]) -> Result<Vec<DemoSentence>> {
    // A pairing of unequal lengths would drop what is missing instead of showing it.
    if answers.len() != sentences.len() {
        return Err(Failure::system(format!(
            "{} answers came back for {} sentences; please report this",
            answers.len(),
            sentences.len()
        )));
    }
    let labels = &model.program.labels;
    let one = |(text, encrypted): (&String, &Answer)| {
        let plaintext = Answer::of_logits(model.poly(text)?);
        let pairs = encrypted.logits.iter().zip(&plaintext.logits);
        Ok(DemoSentence {
            text: text.clone(),
            max_logit_error: pairs.fold(0.0, |m, (a, b)| m.max((a - b).abs())),
            encrypted: LabelledAnswer::new(encrypted, labels),
            plaintext: LabelledAnswer::new(&plaintext, labels),
        })
    };
    sentences.iter().zip(answers).map(one).collect()
}

/// The row of every evaluation key, from the file that the server got, and of the ciphertexts.
fn security(client: &ClientBundle, key_file: &[u8]) -> Result<Vec<Security>> {
    let inspection = inspect(key_file)?;
    let params = client.params();
    let inputs = &client.signature().inputs;
    let highest = inputs.iter().map(|i| i.level).max().unwrap_or(0);
    let basis = params.basis_at(highest);
    let ciphertexts = params.check_key("ciphertexts", basis, SecretKind::DenseTernary)?;
    let rows = inspection.security.iter().chain([&ciphertexts]);
    Ok(rows.map(Security::from).collect())
}

fn text(report: &Demo, model: &Model, details: &Details) -> String {
    let mut out = format!("model {}\n\n", model.name);
    let answer = |a: &LabelledAnswer| format!("{} ({:.2} %)", a.label, 100.0 * a.probability);
    let header = ["sentence", "encrypted", "plaintext", "logit error"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for s in &report.sentences {
        rows.push(vec![
            printable(&s.text, 60),
            answer(&s.encrypted),
            answer(&s.plaintext),
            format!("{:.1e}", s.max_logit_error),
        ]);
    }
    out.push_str(&table(&rows));
    let s = &report.seconds;
    let count = report.sentences.len();
    let threads = counted(details.threads, "thread");
    out.push_str(&format!("\nseconds, {threads}\n"));
    let time = |name: &str, seconds: f64, note: String| {
        vec![name.to_owned(), format!("{seconds:.2}"), note]
    };
    let each = |seconds: f64| format!("{:.2} per sentence", seconds / count.max(1) as f64);
    out.push_str(&table(&[
        time("compile", details.compile, "once per model".into()),
        time("client: make keys", s.keygen, "once per client".into()),
        time("client: encrypt", s.encrypt, each(s.encrypt)),
        time("server: load", details.load, "once per client".into()),
        time("server: run", s.run, each(s.run)),
        time("client: decrypt", s.decrypt, each(s.decrypt)),
        time("total", s.total, String::new()),
    ]));
    out.push_str("\nbytes\n");
    let row = |name: &str, n: u64, note: &str| vec![name.to_owned(), bytes(n), note.to_owned()];
    out.push_str(&table(&[
        row(
            "evaluation keys",
            report.key_bytes,
            "client to server, once",
        ),
        row(
            "ciphertexts up",
            report.ciphertext_bytes_up,
            "client to server",
        ),
        row(
            "ciphertexts down",
            report.ciphertext_bytes_down,
            "server to client",
        ),
        row(
            "peak memory",
            report.peak_rss_bytes,
            "client and server together",
        ),
    ]));
    out.push_str("\nsecurity (bits: highest of 128, 192, 256 whose table row holds)\n");
    out.push_str(&table(&security_table(&report.security)));
    out
}

/// One line per kind of key: the keys of a kind share ring and secret, the largest moduli count.
fn security_table(rows: &[Security]) -> Vec<Vec<String>> {
    let kind = |key: &str| key.split(' ').next().unwrap_or_default().to_owned();
    let header = ["key", "number", "ring", "largest log QP", "secret", "bits"];
    let mut out = vec![header.map(str::to_owned).to_vec()];
    let mut kinds: Vec<String> = Vec::new();
    for row in rows {
        if !kinds.contains(&kind(&row.key)) {
            kinds.push(kind(&row.key));
        }
    }
    for name in kinds {
        let of_kind: Vec<&Security> = rows.iter().filter(|r| kind(&r.key) == name).collect();
        let Some(first) = of_kind.first() else {
            continue;
        };
        let log_qp = of_kind.iter().fold(0.0f64, |m, r| m.max(r.log_qp));
        let bits = of_kind.iter().map(|r| r.bits).min().unwrap_or(0);
        out.push(vec![
            name,
            of_kind.len().to_string(),
            format!("2^{}", first.log_n),
            format!("{log_qp:.1}"),
            first.secret.clone(),
            bits.to_string(),
        ]);
    }
    out
}
