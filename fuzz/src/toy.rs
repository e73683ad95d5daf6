//! A client with insecure toy parameters, the same in every run.

use std::ops::ControlFlow;
use std::sync::OnceLock;

use veilformer_ckks::testing::tiny_params;
use veilformer_ckks::{
    Encoder, KeyList, KeyPurpose, Params, SlotVector, StoredCiphertext, StoredEvaluationKeys,
};
use veilformer_ring::{Cpu, CpuConfig, Isa};
use veilformer_secret::{Encryptor, KeyGenerator, SecretKey};

/// Largest ring on which anything is computed: larger ones would only be slow.
pub const MAX_LOG_N: u32 = 6;

/// What a toy client has.
pub struct Toy {
    pub params: Params,
    pub backend: Cpu,
    pub encoder: Encoder,
    pub secret: SecretKey,
    pub keys: StoredEvaluationKeys,
}

/// The one with the tiniest parameters.
pub fn toy() -> &'static Toy {
    static TOY: OnceLock<Toy> = OnceLock::new();
    TOY.get_or_init(|| {
        let params = tiny_params();
        let mut keys = KeyList::default();
        let top = params.max_level();
        keys.need(KeyPurpose::Relinearization, top, &params);
        keys.need(KeyPurpose::Rotation(1), top, &params);
        keys.need(KeyPurpose::Conjugation, 1, &params);
        keys.need(KeyPurpose::FromEphemeral, top, &params);
        Toy::new(&params, &keys, [0; 32]).expect("toy parameters make keys")
    })
}

impl Toy {
    /// A client of insecure parameters; none for others, or where its keys cannot be made.
    pub fn new(params: &Params, keys: &KeyList, program: [u8; 32]) -> Option<Self> {
        let mut generator = KeyGenerator::insecure_deterministic_for_tests(params, 1).ok()?;
        let secret = generator.secret_key().ok()?;
        let keys = generator
            .evaluation_keys(
                &secret,
                keys,
                program,
                &mut |_, _| ControlFlow::Continue(()),
            )
            .ok()?;
        Some(Self {
            params: params.clone(),
            backend: backend(params),
            encoder: Encoder::new(params).ok()?,
            secret,
            keys,
        })
    }

    /// A constant, encrypted.
    pub fn encrypt(&self, level: usize) -> StoredCiphertext {
        let mut encryptor =
            Encryptor::insecure_deterministic_for_tests(&self.secret, 1).expect("toy parameters");
        encryptor
            .encrypt(&SlotVector::real_constant(0.5), level)
            .expect("one half fits every scale")
    }
}

/// The scalar CPU: what it refuses, all refuse.
pub fn backend(params: &Params) -> Cpu {
    Cpu::new(params.chain().clone(), CpuConfig { isa: Isa::Scalar })
        .expect("every machine has the scalar kernels")
}
