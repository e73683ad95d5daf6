//! A model of either kind: of our own families, or an encoder.

use veilformer_models::ModelError;

use crate::build::{BuildError, Bundles, Target, build};
use crate::encoder::EncoderModel;
use crate::model::Model;

/// A model, loaded.
#[derive(Clone, Debug)]
pub enum AnyModel {
    /// Of our own families: polynomial as it was trained.
    Own(Box<Model>),
    /// An encoder as it was trained, with polynomials for its functions.
    Encoder(Box<EncoderModel>),
}

impl AnyModel {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Own(model) => &model.name,
            Self::Encoder(model) => &model.name,
        }
    }

    /// Names of the labels; none of an embedding.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        match self {
            Self::Own(model) => &model.program.labels,
            Self::Encoder(model) => model.labels(),
        }
    }

    /// The tokens of a sentence.
    ///
    /// # Errors
    /// None, or too many.
    pub fn encode(&self, sentence: &str) -> Result<Vec<u32>, ModelError> {
        match self {
            Self::Own(model) => model.folder.encode(sentence),
            Self::Encoder(model) => model.tokenizer.encode(sentence),
        }
    }

    /// What a client encrypts for a sentence.
    ///
    /// # Errors
    /// As [`AnyModel::encode`].
    pub fn rows(&self, sentence: &str) -> Result<Vec<Vec<f64>>, ModelError> {
        let ids = self.encode(sentence)?;
        match self {
            Self::Own(model) => model.rows(&ids),
            Self::Encoder(model) => model.rows(&ids),
        }
    }

    /// Mode `poly`: the polynomial model in floating point.
    ///
    /// # Errors
    /// As [`AnyModel::encode`].
    pub fn poly(&self, sentence: &str) -> Result<Vec<f64>, ModelError> {
        match self {
            Self::Own(model) => model.poly(sentence),
            Self::Encoder(model) => model.poly(sentence),
        }
    }

    /// Mode `clear`: the model as it was trained.
    ///
    /// # Errors
    /// As [`AnyModel::encode`].
    pub fn original(&self, sentence: &str) -> Result<Vec<f64>, ModelError> {
        match self {
            Self::Own(model) => model.poly(sentence),
            Self::Encoder(model) => model.original(sentence),
        }
    }

    /// Compiles it; `progress` hears what is being done. An encoder was loaded for its target.
    ///
    /// # Errors
    /// What the compiler refuses.
    pub fn build(
        &self,
        target: Target,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Bundles, BuildError> {
        match self {
            Self::Own(model) => build(model, target),
            Self::Encoder(model) => Ok(model.build(progress)?.bundles),
        }
    }
}
