//! Encoders from Hugging Face folders: loaded, calibrated, compiled.

use std::path::Path;

use veilformer_circuits::bootstrap::{BootstrapSpec, Preset};
use veilformer_ckks::Params;
use veilformer_client::{BundleParts, ClientBundle, EncoderVectors, TokenVectors};
use veilformer_compiler::encoder::circuit::StageReport;
use veilformer_compiler::encoder::{
    Budget, CompiledEncoder, Polynomials, Substitution, answer_error, answer_tolerance, compile,
    substitute, substitute_within,
};
use veilformer_ir::encoder::{Encoder, Head, Ranges};
use veilformer_models::encoder::{
    EncoderConfig, EncoderFolder, EncoderTokenizer, Execution, Pass, Progress, calibrate_observed,
    center_keys_observed, lengthened,
};
use veilformer_models::{DataSet, Example, ModelError, read_text};
use veilformer_runtime::ServerBundle;

use crate::build::{BuildError, Bundles};

/// Most sentences that are calibrated on; more change little and take time.
pub const CALIBRATION_LIMIT: usize = 2000;

/// Sentences of the calibration whose answers say how small errors have to be.
const JUDGED: usize = 32;

/// The length that an encoder is compiled for unless another one is asked for, or its own limit if
/// that is smaller.
pub const DEFAULT_TOKENS: usize = 128;

/// The preset of bootstraps that is taken unless another one is asked for.
pub const DEFAULT_PRESET: &str = "11-levels";

/// What an encoder is compiled for.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderTarget {
    /// Longest sentence in tokens, special ones included.
    pub tokens: Option<usize>,
    /// Name of a preset of bootstraps.
    pub preset: String,
    /// Errors of the functions' polynomials. If none is given, they are as small as the model's
    /// answers want.
    pub budget: Option<Budget>,
    /// Sentences like those that it will see.
    pub calibration: Vec<String>,
}

/// An encoder, calibrated.
#[derive(Clone, Debug)]
pub struct EncoderModel {
    /// The folder's name.
    pub name: String,
    /// The model; its keys are centred.
    pub encoder: Encoder,
    /// Its tokenizer, for the length that it is compiled for.
    pub tokenizer: EncoderTokenizer,
    /// What stands in place of its functions.
    pub substitution: Substitution,
    /// What calibration saw.
    pub ranges: Ranges,
    /// Sentences of the calibration that the tokenizer refused: most are too long.
    pub left_out: usize,
    tokenizer_json: Vec<u8>,
    tokens: usize,
    preset: String,
}

/// Both halves, and what was decided.
pub struct EncoderBuild {
    /// The bundles.
    pub bundles: Bundles,
    /// Stages with their levels and bootstraps.
    pub stages: Vec<StageReport>,
}

/// Sentences of a file: a data set, whose labels are left out, or text with a sentence per line.
///
/// # Errors
/// A file that cannot be read, or has no sentence.
pub fn sentences_of(path: &Path) -> Result<Vec<String>, ModelError> {
    let set = match DataSet::load(path) {
        Ok(set) => set,
        Err(error) => match read_text(path) {
            Ok(text) if !looks_like_data_set(&text) => plain_lines(&text).ok_or(error)?,
            _ => return Err(error),
        },
    };
    let set = set.sample(CALIBRATION_LIMIT, 1);
    Ok(set.examples.into_iter().map(|e| e.text).collect())
}

/// Text with a sentence per line.
fn plain_lines(text: &str) -> Option<DataSet> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty());
    let examples: Vec<Example> = lines
        .map(|line| Example {
            text: line.to_owned(),
            label: 0,
        })
        .collect();
    (!examples.is_empty()).then_some(DataSet { examples })
}

/// Whether text that is no data set was meant as one: it has columns, or most of its lines begin with a label. Its
/// labels would otherwise be words of its sentences.
fn looks_like_data_set(text: &str) -> bool {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let first = lines.clone().next().unwrap_or_default();
    let named = |name: &str| {
        let columns = first.split([',', '\t', ';']);
        columns
            .map(|c| c.trim().trim_matches('"'))
            .any(|c| c.eq_ignore_ascii_case(name))
    };
    let labelled = |line: &str| {
        let label = line.split_whitespace().next().unwrap_or_default();
        label.parse::<u64>().is_ok()
    };
    let all = lines.clone().count();
    first.contains('\t')
        || (named("sentence") || named("text")) && named("label")
        || 2 * lines.by_ref().filter(|line| labelled(line)).count() > all
}

/// Polynomials whose errors let the answers to `sentences` be as near as they are wanted.
fn accurate(
    encoder: &Encoder,
    ranges: &Ranges,
    sentences: &[Vec<u32>],
    progress: &Progress<'_>,
) -> Result<Substitution, BuildError> {
    let execution = Execution::new(encoder)?;
    let pass = Pass::through("answering exactly", sentences, progress)?;
    let exact = execution.answers_observed(sentences, &|| execution.exact(), &pass)?;
    let mut error = |s: &Substitution| -> Result<f64, BuildError> {
        // How often errors are halved is not known before: what is left is of this attempt.
        let pass = Pass::through("answering with polynomials", sentences, progress)?;
        let answers = execution.answers_observed(sentences, &|| Polynomials::new(s), &pass)?;
        Ok(answer_error(&encoder.head, &exact, &answers))
    };
    let (budget, wanted) = (Budget::default(), answer_tolerance(&encoder.head));
    substitute_within((ranges, encoder), &budget, wanted, &mut error)
}

impl EncoderModel {
    /// Whether a folder is to be read as an encoder's: its `config.json` names a `model_type` (or
    /// `architectures`) that is none of our own families'.
    #[must_use]
    pub fn is_one(folder: &Path) -> bool {
        let bytes = std::fs::read(folder.join("config.json")).unwrap_or_default();
        let file: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match file.get("model_type").and_then(|v| v.as_str()) {
            Some(kind) => !kind.starts_with("veilformer"),
            None => file.get("architectures").is_some(),
        }
    }

    /// Reads a folder and calibrates its model, which takes minutes if it is large; `progress` hears
    /// how far each step is.
    ///
    /// # Errors
    /// What cannot be read or is not supported; no sentence to calibrate on that fits; ranges for
    /// which no polynomial will do; [`ModelError::Stopped`] if `progress` breaks.
    pub fn load(
        folder: &Path,
        target: &EncoderTarget,
        progress: &Progress<'_>,
    ) -> Result<Self, BuildError> {
        let read = |file: &str| {
            let path = folder.join(file);
            std::fs::read(&path).map_err(|source| ModelError::Read { path, source })
        };
        let config = EncoderConfig::from_json(&read("config.json")?)?;
        let limit = config.max_position_embeddings;
        let tokens = target.tokens.unwrap_or(DEFAULT_TOKENS.min(limit));
        let EncoderFolder {
            mut encoder,
            tokenizer,
        } = EncoderFolder::load(folder, tokens)?;
        let (mut ids, mut refused) = (Vec::new(), Vec::new());
        for text in target.calibration.iter().take(CALIBRATION_LIMIT) {
            match tokenizer.encode(text) {
                Ok(of_text) => ids.push(of_text),
                Err(error) => refused.push(error),
            }
        }
        let left_out = refused.len();
        if let (true, Some(first)) = (ids.is_empty(), refused.into_iter().next()) {
            return Err(BuildError::Calibration {
                given: left_out,
                tokens,
                first,
            });
        }
        // Every length that will be taken, whatever lengths these have.
        let ids = lengthened(&ids, tokens);
        center_keys_observed(&mut encoder, &ids, progress)?;
        let ranges = calibrate_observed(&Execution::new(&encoder)?, &ids, progress)?;
        let substitution = match &target.budget {
            Some(budget) => substitute(&ranges, &encoder, budget)?,
            None => {
                let judged = ids.get(..JUDGED).unwrap_or(&ids);
                accurate(&encoder, &ranges, judged, progress)?
            }
        };
        let name = folder.canonicalize().ok();
        let name = name.and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
        Ok(Self {
            name: name.unwrap_or_else(|| "encoder".to_owned()),
            encoder,
            tokenizer,
            substitution,
            ranges,
            left_out,
            tokenizer_json: read("tokenizer.json")?,
            tokens,
            preset: target.preset.clone(),
        })
    }

    /// Names of the labels; none of an embedding.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        match &self.encoder.head {
            Head::Classifier { labels, .. } => labels,
            Head::Embedding { .. } => &[],
        }
    }

    /// What the client encrypts for these tokens.
    ///
    /// # Errors
    /// No token, too many, or one outside the table.
    pub fn rows(&self, ids: &[u32]) -> Result<Vec<Vec<f64>>, ModelError> {
        let rows = Execution::new(&self.encoder)?.embed(ids)?;
        Ok(rows.iter_rows().map(<[f64]>::to_vec).collect())
    }

    /// The original model's logits or embedding.
    ///
    /// # Errors
    /// A sentence without tokens or with too many.
    pub fn original(&self, sentence: &str) -> Result<Vec<f64>, ModelError> {
        let execution = Execution::new(&self.encoder)?;
        let rows = execution.embed(&self.tokenizer.encode(sentence)?)?;
        Ok(execution.finish(execution.answer(&rows, &mut execution.exact())?))
    }

    /// The same with polynomials in place of the model's functions.
    ///
    /// # Errors
    /// As [`EncoderModel::original`].
    pub fn poly(&self, sentence: &str) -> Result<Vec<f64>, ModelError> {
        let execution = Execution::new(&self.encoder)?;
        let rows = execution.embed(&self.tokenizer.encode(sentence)?)?;
        let mut poly = Polynomials::new(&self.substitution);
        Ok(execution.finish(execution.answer(&rows, &mut poly)?))
    }

    /// Compiles for the preset that was asked for.
    ///
    /// # Errors
    /// An unknown preset; what the compiler refuses.
    pub fn build(&self, progress: &mut dyn FnMut(&str)) -> Result<EncoderBuild, BuildError> {
        let preset = Preset::named(&self.preset)?;
        let params = preset
            .validate()
            .map_err(veilformer_compiler::CompileError::Ckks)?;
        self.build_for((&params, &preset.bootstrap), progress)
    }

    /// Compiles for parameters that bootstrap.
    ///
    /// # Errors
    /// What the compiler refuses.
    pub fn build_for(
        &self,
        (params, bootstrap): (&Params, &BootstrapSpec),
        progress: &mut dyn FnMut(&str),
    ) -> Result<EncoderBuild, BuildError> {
        let of = (&self.substitution, &self.ranges);
        let with = (params, bootstrap);
        let compiled = compile(&self.encoder, of, with, self.tokens, progress)?;
        let CompiledEncoder {
            compiled, stages, ..
        } = compiled;
        let parts = BundleParts {
            model_name: self.name.clone(),
            signature: compiled.signature,
            keys: compiled.keys,
            tokenizer: self.tokenizer_json.clone(),
            embedding: TokenVectors::Encoder(EncoderVectors {
                embeddings: self.encoder.embeddings.clone(),
                eps: self.encoder.layer_norm_eps,
            }),
            server_content: [0; 32],
        };
        progress("bundles");
        let client = ClientBundle::new(params, parts)?;
        let digest = client.content_digest()?;
        let server = ServerBundle::new(params.clone(), compiled.program, &self.name, digest)?;
        let client = client.with_server_content(server.content_digest());
        Ok(EncoderBuild {
            bundles: Bundles { client, server },
            stages,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_with_their_labels_are_a_data_set() {
        let labelled = "1 good\n".repeat(9);
        for text in [
            &(labelled.clone() + "1\n"),
            "a film\t1\n",
            "sentence,label\nfine,1\n",
            "\"Label\";\"Text\"\n",
            "idx\tsentence\n0\tfine\n",
        ] {
            assert!(looks_like_data_set(text), "{text}");
        }
        for text in [
            "",
            "A fine film.\n2 fast, 2 furious\n",
            "2 fast\nslow\n",
            "A label, and a sentence\n",
        ] {
            assert!(!looks_like_data_set(text), "{text}");
        }
    }

    #[test]
    fn plain_lines_are_sentences() {
        let texts = |text: &str| plain_lines(text).map(|set| set.examples.len());
        assert_eq!(texts("a b\n\n  \r\nc\r\n"), Some(2));
        assert_eq!(texts(" \n"), None);
    }
}
