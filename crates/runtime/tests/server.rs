//! The server on files: what it answers, what it refuses, and that nothing but the inputs decides
//! the answer.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Cursor;
use std::ops::ControlFlow;

use support::{Client, GO_ON, program};
use veilformer_ckks::container::{
    Kind, Reader, Writer, append_ciphertexts, ciphertexts_to_bytes, read_ciphertexts,
};
use veilformer_ckks::testing::{toy_params, toy_spec};
use veilformer_ckks::{Complex, Params, SlotVector};
use veilformer_compiler::schedule::{schedule, unscheduled};
use veilformer_ir::signature::SENTENCES;
use veilformer_ring::{Cpu, CpuConfig, Isa};
use veilformer_runtime::{PROGRAM_DIGEST, RuntimeError, Server, ServerBundle};
use veilformer_secret::Decryptor;

fn bundle(params: &Params) -> ServerBundle {
    ServerBundle::new(params.clone(), program(params), "toy", [3; 32]).unwrap()
}

fn backend(params: &Params, isa: Isa) -> Cpu {
    Cpu::new(params.chain().clone(), CpuConfig { isa }).unwrap()
}

fn server(bundle: &ServerBundle, isa: Isa) -> Server<Cpu> {
    Server::open(bundle.clone(), backend(bundle.params(), isa)).unwrap()
}

fn answer_with(server: &Server<Cpu>, file: &[u8], threads: usize) -> Vec<u8> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap();
    pool.install(|| server.run(file, GO_ON).unwrap().answer)
}

fn refusal<T>(result: Result<T, RuntimeError>) -> String {
    match result {
        Ok(_) => panic!("was not refused"),
        Err(error) => error.to_string(),
    }
}

/// The toy program on slots.
fn expected(a: &[f64], b: &[f64]) -> [Vec<Complex>; 2] {
    let n = a.len();
    let at = |x: &[f64], j: usize| Complex::new(x[j % n], 0.0);
    let wave = |k: usize, j: usize| ((j % n) % k) as f64 / 8.0;
    let product: Vec<Complex> = (0..n)
        .map(|j| (at(a, j + 1) + at(a, j + n - 1)) * at(b, j) + at(a, j + 2) * at(a, j))
        .collect();
    let p = |j: usize| product[j % n];
    let inner0 = |j: usize| p(j) * wave(3, j) + at(b, j + 1) * wave(4, j);
    let inner2 = |j: usize| p(j + 1) * wave(5, j) + at(b, j + 1) * wave(2, j);
    let mapped: Vec<Complex> = (0..n).map(|j| inner0(j) + inner2(j + 2)).collect();
    let shifted: Vec<Complex> = mapped.iter().map(|z| z - z.conj() + 0.25).collect();
    let period = [Complex::new(0.5, 0.0), Complex::new(0.0, 0.5)];
    let scaled = shifted.iter().enumerate().map(|(j, z)| z * period[j % 2]);
    [scaled.collect(), shifted.clone()]
}

#[test]
fn answers_every_sentence_of_a_file() {
    let params = toy_params();
    let bundle = bundle(&params);
    let mut client = Client::new(&params, 1);
    let mut server = server(&bundle, Isa::detect());
    let inputs = client.encrypt(6, 3);
    let file = client.file(&inputs, bundle.program_digest());
    assert!(refusal(server.run(&file, GO_ON)).contains("no evaluation keys"));
    server
        .load_keys(Cursor::new(&client.keys(&bundle)), GO_ON)
        .unwrap();
    assert_eq!(
        server.key_security().unwrap().rows.len(),
        bundle.keys().len()
    );
    let run = server.run(&file, GO_ON).unwrap();
    assert_eq!(run.items, 3);
    let reader = Reader::open_for(&run.answer, Kind::Answer, &params).unwrap();
    assert_eq!(
        reader.section(PROGRAM_DIGEST).unwrap(),
        bundle.program_digest()
    );
    let answers = read_ciphertexts(&reader, &params).unwrap();
    assert_eq!(answers.len(), 6);
    let decryptor = Decryptor::new(&client.secret).unwrap();
    let open = |ct: &veilformer_ckks::StoredCiphertext| {
        let ct = ct.expand(&params).unwrap();
        decryptor.decrypt(&ct).unwrap().reveal_to_owner().unwrap()
    };
    for (inputs, answers) in inputs.chunks(2).zip(answers.chunks(2)) {
        let real = |ct| open(ct).iter().map(|z| z.re).collect::<Vec<f64>>();
        let want = expected(&real(&inputs[0]), &real(&inputs[1]));
        for (answer, want) in answers.iter().zip(want) {
            for (got, want) in open(answer).iter().zip(want) {
                assert!((got - want).norm() < 1e-2, "{got} {want}");
            }
        }
    }
}

#[test]
fn neither_threads_nor_schedule_nor_instruction_set_change_a_byte() {
    let params = toy_params();
    let bundle = bundle(&params);
    let mut client = Client::new(&params, 2);
    let keys = client.keys(&bundle);
    let file = client.file(&client.encrypt(2, 3), bundle.program_digest());
    let mut answers = Vec::new();
    let (program, params) = (bundle.program(), bundle.params());
    let devices = [
        schedule(program, params, 1),
        schedule(program, params, 3),
        unscheduled(program, params, 2),
    ];
    for (isa, device) in Isa::available()
        .into_iter()
        .flat_map(|i| devices.iter().map(move |d| (i, d)))
    {
        let backend = Cpu::new(params.chain().clone(), CpuConfig { isa }).unwrap();
        let mut server = Server::open_scheduled(bundle.clone(), backend, device.clone()).unwrap();
        server.load_keys(Cursor::new(&keys), GO_ON).unwrap();
        for threads in [1, 2, 3, 1] {
            answers.push(answer_with(&server, &file, threads));
        }
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn weights_that_are_not_kept_are_encoded_when_they_are_read() {
    let params = toy_params();
    let bundle = bundle(&params);
    let mut client = Client::new(&params, 2);
    let keys = client.keys(&bundle);
    let file = client.file(&client.encrypt(2, 3), bundle.program_digest());
    let answer = |kept: u64, threads: usize| {
        let config = CpuConfig { isa: Isa::detect() };
        let backend = Cpu::new(bundle.params().chain().clone(), config).unwrap();
        let mut server = Server::open_keeping(bundle.clone(), backend, kept).unwrap();
        server.load_keys(Cursor::new(&keys), GO_ON).unwrap();
        answer_with(&server, &file, threads)
    };
    let all = answer(u64::MAX, 1);
    for (kept, threads) in [(0, 1), (0, 3), (2000, 2), (5000, 1)] {
        assert!(answer(kept, threads) == all, "{kept} bytes kept");
    }
}

#[test]
fn progress_counts_to_the_end_and_stops() {
    let params = toy_params();
    let bundle = bundle(&params);
    let mut client = Client::new(&params, 3);
    let mut server = server(&bundle, Isa::detect());
    let keys = client.keys(&bundle);
    let stop_at = |n: usize| {
        move |done: usize, _: usize| {
            if done >= n {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }
    };
    let stopped = refusal(server.load_keys(Cursor::new(&keys), &stop_at(1)));
    assert!(
        stopped.contains("evaluation keys") && stopped.contains("stopped"),
        "{stopped}"
    );
    server.load_keys(Cursor::new(&keys), GO_ON).unwrap();
    let file = client.file(&client.encrypt(4, 3), bundle.program_digest());
    let total = 2 * bundle.program().instructions.len();
    for at in [1, 7, total / 2 + 1, total] {
        let stopped = refusal(server.run(&file, &stop_at(at)));
        assert!(stopped.contains("stopped after"), "{stopped}");
    }
    let most = std::sync::atomic::AtomicUsize::new(0);
    let watch = |done: usize, all: usize| {
        assert_eq!(all, total);
        most.fetch_max(done, std::sync::atomic::Ordering::Relaxed);
        ControlFlow::Continue(())
    };
    server.run(&file, &watch).unwrap();
    assert_eq!(most.into_inner(), total);
}

#[test]
fn refuses_what_is_not_its_own() {
    let params = toy_params();
    let bundle = bundle(&params);
    let digest = bundle.program_digest();
    let mut client = Client::new(&params, 4);
    let mut server = server(&bundle, Isa::detect());
    let keys = client.keys(&bundle);

    let secret = client.secret.to_bytes().unwrap();
    assert!(
        refusal(server.load_keys(Cursor::new(&secret), GO_ON)).contains("a server must never see")
    );
    let inputs = client.file(&client.encrypt(2, 3), digest);
    assert!(
        refusal(server.load_keys(Cursor::new(&inputs), GO_ON)).contains("expected evaluation keys")
    );
    assert!(
        refusal(server.load_keys(Cursor::new(&keys[..keys.len() - 1]), GO_ON))
            .contains("truncated")
    );
    let mut damaged = keys.clone();
    damaged[9000] ^= 1;
    assert!(refusal(server.load_keys(Cursor::new(&damaged), GO_ON)).contains("corrupted"));

    let other = ServerBundle::new(params.clone(), program(&params), "other", [3; 32]).unwrap();
    assert!(
        refusal(server.load_keys(Cursor::new(&client.keys(&other)), GO_ON))
            .contains("another program")
    );
    let foreign = toy_spec(9).validate_insecure_for_tests().unwrap();
    let mut stranger = Client::new(&foreign, 4);
    let foreign_keys = stranger.keys(&self::bundle(&foreign));
    assert!(
        refusal(server.load_keys(Cursor::new(&foreign_keys), GO_ON)).contains("other parameters")
    );

    server.load_keys(Cursor::new(&keys), GO_ON).unwrap();
    assert!(refusal(server.run(&secret, GO_ON)).contains("a server must never see"));
    assert!(refusal(server.run(&keys, GO_ON)).contains("expected encrypted inputs"));
    for count in [0, 1, 3] {
        let file = client.file(&client.encrypt(count, 3), digest);
        assert!(refusal(server.run(&file, GO_ON)).contains("input ciphertexts were given"));
    }
    let file = client.file(&client.encrypt(2, 2), digest);
    assert!(refusal(server.run(&file, GO_ON)).contains("is at level 2"));
    let file = client.file(&client.encrypt(2, 3), [9; 32]);
    assert!(refusal(server.run(&file, GO_ON)).contains("another program"));
    let bare = ciphertexts_to_bytes(Kind::Ciphertexts, &params, &client.encrypt(2, 3)).unwrap();
    assert!(refusal(server.run(&bare, GO_ON)).contains("no section PDIG"));
    // Of so many sentences as the ciphertexts do not hold.
    for count in [0u32, 2, u32::MAX] {
        let mut writer = Writer::new(Kind::Ciphertexts, Some(&params)).unwrap();
        writer.section(PROGRAM_DIGEST, digest.to_vec());
        writer.section(SENTENCES, count.to_le_bytes().to_vec());
        append_ciphertexts(&mut writer, &params, &client.encrypt(2, 3)).unwrap();
        let refused = refusal(server.run(&writer.to_bytes().unwrap(), GO_ON));
        assert!(refused.contains("encrypt the sentences again"), "{refused}");
    }
    let another = Client::new(&params, 5);
    let file = another.file(&another.encrypt(2, 3), digest);
    assert!(refusal(server.run(&file, GO_ON)).contains("under secret key"));
}

#[test]
fn refuses_a_key_file_that_lacks_a_key() {
    let params = toy_params();
    let whole = bundle(&params);
    let mut client = Client::new(&params, 6);
    // The keys of a program with one rotation less, under the digest of the whole program.
    let mut list = whole.keys().clone();
    let (missing, _) = list.rotations.pop().unwrap();
    let mut file = Vec::new();
    let mut generator =
        veilformer_secret::KeyGenerator::insecure_deterministic_for_tests(&params, 6).unwrap();
    let go_on = &mut |_, _| ControlFlow::Continue(());
    generator
        .write_evaluation_keys(
            &client.secret,
            &list,
            whole.program_digest(),
            &mut file,
            go_on,
        )
        .unwrap();
    let mut server = server(&whole, Isa::detect());
    let message = refusal(server.load_keys(Cursor::new(&file), GO_ON));
    assert!(
        message.contains(&format!("rotation {missing} key")),
        "{message}"
    );
    server
        .load_keys(Cursor::new(&client.keys(&whole)), GO_ON)
        .unwrap();
}

#[test]
fn a_bundle_names_its_peer_and_its_content() {
    let params = toy_params();
    let mut bundle = bundle(&params);
    let bytes = bundle.to_bytes().unwrap();
    let back = ServerBundle::from_bytes(&bytes).unwrap();
    assert_eq!(back.program(), bundle.program());
    assert_eq!(back.model_name(), "toy");
    assert_eq!(back.client_content(), [3; 32]);
    assert_eq!(back.content_digest(), bundle.content_digest());
    assert_eq!(back.to_bytes().unwrap(), bytes);
    bundle.set_client_content([4; 32]);
    assert_eq!(back.content_digest(), bundle.content_digest());
    assert_ne!(bundle.to_bytes().unwrap(), bytes);
    let mut program = program(&params);
    program.plains[0].pattern =
        veilformer_ir::ciphertext::PlainPattern::of(&SlotVector::real_constant(0.5));
    let other = ServerBundle::new(params.clone(), program, "toy", [3; 32]).unwrap();
    assert_ne!(other.content_digest(), bundle.content_digest());

    let refused = |bytes: &[u8]| refusal(ServerBundle::from_bytes(bytes));
    assert!(refused(&[]).contains("no Veilformer file"));
    assert!(refused(&bytes[..500]).contains("truncated"));
    let mut newer = bytes.clone();
    newer[8] = 9;
    assert!(refused(&newer).contains("format version 9"));
    let client = Client::new(&params, 1);
    let inputs = client.file(&client.encrypt(2, 3), [0; 32]);
    assert!(refused(&inputs).contains("expected a server bundle"));
    for name in ["", "a\nb", &"x".repeat(300)] {
        let program = support::program(&params);
        assert!(ServerBundle::new(params.clone(), program, name, [0; 32]).is_err());
    }
}

/// A bundle whose program another version wrote: the file is whole, and says what to do.
#[test]
fn a_program_of_another_version_is_refused_with_a_way_out() {
    let params = toy_params();
    let bytes = bundle(&params).to_bytes().unwrap();
    let reader = Reader::open(&bytes).unwrap();
    let mut writer = Writer::new(Kind::ServerBundle, Some(&params)).unwrap();
    for (tag, section) in reader.sections() {
        let other = tag.0 == *b"PROG";
        writer.section(
            tag,
            if other {
                vec![0xff; 40]
            } else {
                section.to_vec()
            },
        );
    }
    let refused = ServerBundle::from_bytes(&writer.to_bytes().unwrap());
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("not of this version") && message.contains("compile the model again"),
        "{message}"
    );
}
