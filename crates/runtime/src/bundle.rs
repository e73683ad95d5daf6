//! The server's half of a compiled model as a file.

use veilformer_circuits::bootstrap::{BootstrapSpec, Content};
use veilformer_ckks::container::{ContainerError, Kind, Reader, Tag, Writer, read_params};
use veilformer_ckks::{KeyList, Params};
use veilformer_ir::ciphertext::CiphertextProgram;

use crate::{RuntimeError, weights};

/// The model's name: metadata.
const NAME: Tag = Tag(*b"NAME");
/// The ciphertext program: metadata.
const PROGRAM: Tag = Tag(*b"PROG");
/// The specifications of the program's bootstraps: metadata, absent if there are none.
const BOOTSTRAPS: Tag = Tag(*b"BOOT");
/// Where the values of plaintexts are that [`VALUES`] has: metadata, absent if there are none.
const ENTRIES: Tag = Tag(*b"WGTI");
/// Values of plaintexts: little-endian 32-bit floating point numbers.
const VALUES: Tag = Tag(*b"WGTS");
/// Content digest of the client bundle of the same compilation: 32 bytes.
const PEER: Tag = Tag(*b"PEER");

/// Longest program that is read, in bytes of its file.
const PROGRAM_LIMIT: usize = 1 << 28;
/// Longest model name, in bytes.
const NAME_LIMIT: usize = 256;
/// Longest table of bootstraps, in bytes.
const BOOTSTRAPS_LIMIT: usize = 1 << 12;
/// Longest list of plaintexts with values beside the program, in bytes.
const ENTRIES_LIMIT: usize = 1 << 26;

/// What a server needs of a compiled model: parameters and program, weights included. Nothing
/// secret, nothing of the client's tokenizer or embedding.
///
/// A bundle that exists is verified: its program runs on these parameters without a panic.
#[derive(Clone, Debug)]
pub struct ServerBundle {
    params: Params,
    program: CiphertextProgram,
    model_name: String,
    client_content: [u8; 32],
    content: [u8; 32],
    keys: KeyList,
}

impl ServerBundle {
    /// A bundle of a compiled program; `client_content` is the client bundle's content digest
    /// (see [`ServerBundle::set_client_content`] where the two are made one after the other).
    ///
    /// # Errors
    /// What [`CiphertextProgram::verify`] refuses; a name that is empty, longer than 256 bytes or
    /// has control characters.
    pub fn new(
        params: Params,
        program: CiphertextProgram,
        model_name: impl Into<String>,
        client_content: [u8; 32],
    ) -> Result<Self, RuntimeError> {
        let model_name = model_name.into();
        check_name(&model_name)?;
        program.verify(&params)?;
        let mut bundle = Self {
            keys: program.key_list(&params),
            params,
            program,
            model_name,
            client_content,
            content: [0; 32],
        };
        bundle.content = bundle.digest_of_content()?;
        Ok(bundle)
    }

    /// The parameters.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &CiphertextProgram {
        &self.program
    }

    /// The evaluation keys that the program uses.
    #[must_use]
    pub fn keys(&self) -> &KeyList {
        &self.keys
    }

    /// The model's name.
    #[must_use]
    pub fn model_name(&self) -> &str {
        &self.model_name
    }

    /// Content digest of the client bundle of the same compilation.
    #[must_use]
    pub fn client_content(&self) -> [u8; 32] {
        self.client_content
    }

    /// Notes the client bundle of the same compilation. The content digest does not change.
    pub fn set_client_content(&mut self, digest: [u8; 32]) {
        self.client_content = digest;
    }

    /// BLAKE3 of parameters, name and program, without what points to the client bundle: two
    /// bundles can so carry each other's.
    #[must_use]
    pub fn content_digest(&self) -> [u8; 32] {
        self.content
    }

    /// What evaluation keys, encrypted inputs and answers carry to say which program they belong
    /// to: [`ServerBundle::content_digest`].
    #[must_use]
    pub fn program_digest(&self) -> [u8; 32] {
        self.content
    }

    /// The file.
    ///
    /// # Errors
    /// None in practice; serialization's.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RuntimeError> {
        let mut writer = self.content_writer()?;
        writer.section(PEER, self.client_content.to_vec());
        writer.to_bytes().map_err(container)
    }

    /// A bundle from its file, verified.
    ///
    /// # Errors
    /// What is wrong with the file: another kind, damaged, of a newer version; or what
    /// [`ServerBundle::new`] refuses.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RuntimeError> {
        let reader = Reader::open_kind(bytes, Kind::ServerBundle).map_err(container)?;
        let params = read_params(&reader)?;
        let name: String = reader.meta_up_to(NAME, NAME_LIMIT + 8).map_err(container)?;
        // The file is whole, its digest says so: what does not parse was written otherwise.
        let program = reader.meta_up_to(PROGRAM, PROGRAM_LIMIT);
        let mut program: CiphertextProgram = program.map_err(|e| {
            RuntimeError::Bundle(format!(
                "its program is not of this version ({e}); compile the model again, both bundles"
            ))
        })?;
        if reader.sections().any(|(tag, _)| tag == BOOTSTRAPS) {
            let table: Vec<(BootstrapSpec, Content)> = reader
                .meta_up_to(BOOTSTRAPS, BOOTSTRAPS_LIMIT)
                .map_err(container)?;
            program.set_bootstraps(&params, &table)?;
        }
        if reader.sections().any(|(tag, _)| tag == ENTRIES) {
            let entries = reader.meta_up_to(ENTRIES, ENTRIES_LIMIT);
            let entries: Vec<weights::Entry> = entries.map_err(container)?;
            let values = reader.section(VALUES).map_err(container)?;
            weights::put(&mut program, &entries, values)
                .map_err(|e| RuntimeError::Bundle(format!("{e}; compile the model again")))?;
        }
        let peer = reader.section(PEER).map_err(container)?;
        let peer = <[u8; 32]>::try_from(peer).map_err(|_| {
            RuntimeError::Bundle(format!(
                "the client bundle's digest has {} bytes, expected 32; compile the model again",
                peer.len()
            ))
        })?;
        Self::new(params, program, name, peer)
    }

    fn content_writer(&self) -> Result<Writer, RuntimeError> {
        let mut writer = Writer::new(Kind::ServerBundle, Some(&self.params)).map_err(container)?;
        writer.meta(NAME, &self.model_name).map_err(container)?;
        match weights::take(&self.program) {
            None => {
                writer.meta(PROGRAM, &self.program).map_err(container)?;
            }
            Some(taken) => {
                writer.meta(PROGRAM, &taken.program).map_err(container)?;
                writer.meta(ENTRIES, &taken.entries).map_err(container)?;
                writer.section(VALUES, taken.values);
            }
        }
        let table = self.program.bootstraps.iter();
        let table: Vec<(BootstrapSpec, Content)> = table.map(|b| (b.spec, b.content)).collect();
        if !table.is_empty() {
            writer.meta(BOOTSTRAPS, &table).map_err(container)?;
        }
        Ok(writer)
    }

    /// The digest of a container that holds the content sections alone.
    fn digest_of_content(&self) -> Result<[u8; 32], RuntimeError> {
        let bytes = self.content_writer()?.to_bytes().map_err(container)?;
        Ok(*blake3::hash(&bytes).as_bytes())
    }
}

fn check_name(name: &str) -> Result<(), RuntimeError> {
    if name.is_empty() || name.len() > NAME_LIMIT || name.chars().any(char::is_control) {
        return Err(RuntimeError::Bundle(format!(
            "the model's name has {} bytes or characters that cannot be printed; expected 1 to \
             {NAME_LIMIT} bytes of text",
            name.len()
        )));
    }
    Ok(())
}

pub(crate) fn container(error: ContainerError) -> RuntimeError {
    RuntimeError::Ckks(error.into())
}
