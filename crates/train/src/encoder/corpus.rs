//! The three splits as token ids of an encoder's tokenizer.

use std::collections::HashSet;
use std::path::Path;

use veilformer_models::encoder::EncoderTokenizer;
use veilformer_models::{DataSet, ModelError};

use super::recipe::EncoderRecipe;
use crate::corpus::Item;
use crate::error::{Result, TrainError};

/// What a run trains on and evaluates on.
pub struct EncoderCorpus {
    /// Training sentences; none of them has the tokens of a dev or test sentence.
    pub train: Vec<Item>,
    /// The split that is evaluated after each epoch.
    pub dev: Vec<Item>,
    /// The split that is evaluated once.
    pub test: Vec<Item>,
    /// Training sentences left out because their tokens are those of a dev or test sentence.
    pub excluded: usize,
}

impl EncoderCorpus {
    /// Reads the recipe's files in the folder `data`.
    ///
    /// # Errors
    /// When a file is not usable, a label has no name in the recipe, a sentence has too many tokens,
    /// or no training sentence is left.
    pub fn load(recipe: &EncoderRecipe, data: &Path, tokenizer: &EncoderTokenizer) -> Result<Self> {
        let mut all = DataSet::default();
        for source in &recipe.data.train {
            all.examples.extend(source.load(data)?.examples);
        }
        let encode = |set: DataSet| encode(recipe, tokenizer, set);
        let dev = encode(recipe.data.dev.load(data)?)?;
        let test = encode(recipe.data.test.load(data)?)?;
        let all = encode(all)?;
        let held_out: HashSet<&[u32]> = dev.iter().chain(&test).map(|i| i.ids.as_slice()).collect();
        let before = all.len();
        let mut train = all;
        train.retain(|i| !held_out.contains(i.ids.as_slice()));
        if train.is_empty() {
            return Err(TrainError::Recipe {
                path: data.to_owned(),
                what: "no training sentence is left that is not in dev or test".into(),
            });
        }
        Ok(Self {
            excluded: before - train.len(),
            train,
            dev,
            test,
        })
    }
}

fn encode(recipe: &EncoderRecipe, tokenizer: &EncoderTokenizer, set: DataSet) -> Result<Vec<Item>> {
    let classes = recipe.data.labels.len();
    let mut items = Vec::with_capacity(set.len());
    for example in set.examples {
        if example.label >= classes {
            return Err(TrainError::Recipe {
                path: "data.labels".into(),
                what: format!(
                    "the data has a label {} and the recipe names {classes} classes",
                    example.label
                ),
            });
        }
        let ids = match tokenizer.encode(&example.text) {
            Err(ModelError::EmptySentence) => continue,
            other => other?,
        };
        items.push(Item {
            text: example.text,
            ids,
            label: example.label,
        });
    }
    Ok(items)
}
