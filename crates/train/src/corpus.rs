//! The three splits as token ids, kept apart from each other.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use veilformer_models::tokenizer::wordpiece_json;
use veilformer_models::{DataSet, Tokenizer};

use crate::error::{Result, TrainError};
use crate::features::Features;
use crate::recipe::{Recipe, Vocabulary};

/// A sentence as token ids, and its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The sentence's text.
    pub text: String,
    /// Token ids, at least one.
    pub ids: Vec<u32>,
    /// The class.
    pub label: usize,
}

/// What the trainer trains on and evaluates on.
pub struct Corpus {
    /// Training sentences; none of them has the tokens of a dev or test sentence.
    pub train: Vec<Item>,
    /// The split on which the epoch is selected.
    pub dev: Vec<Item>,
    /// The split that is evaluated once.
    pub test: Vec<Item>,
    /// Training sentences left out because their tokens are those of a dev or test sentence.
    pub excluded: usize,
    /// The text of `tokenizer.json`.
    pub tokenizer_json: String,
    /// Features of the tokenizer's tokens.
    pub features: Features,
}

impl Corpus {
    /// Reads the recipe's files in the folder `data`.
    ///
    /// # Errors
    /// When a file is not usable, a label has no name in the recipe, a dev or test sentence is
    /// empty or longer than the model's limit, or no training sentence is left.
    pub fn load(recipe: &Recipe, data: &Path, features: Features) -> Result<Self> {
        let read = |name: &String| DataSet::load(&data.join(name));
        let mut sets = [
            DataSet::default(),
            read(&recipe.data.dev)?,
            read(&recipe.data.test)?,
        ];
        for name in &recipe.data.train {
            sets[0].examples.extend(read(name)?.examples);
        }
        let features = match recipe.data.vocabulary {
            Vocabulary::Full => features,
            Vocabulary::Data => used_words(&sets, features)?,
        };
        let tokenizer_json = wordpiece_json(&features.tokens)?;
        let tokenizer = Tokenizer::from_bytes(tokenizer_json.as_bytes())?;
        let [train, dev, test] = sets;
        let encode = |set: DataSet| encode(recipe, &tokenizer, set);
        let (dev, test, all) = (encode(dev)?, encode(test)?, encode(train)?);
        let held_out: HashSet<&[u32]> = dev.iter().chain(&test).map(|i| i.ids.as_slice()).collect();
        let before = all.len();
        let train: Vec<Item> = all
            .iter()
            .filter(|i| !held_out.contains(i.ids.as_slice()))
            .cloned()
            .collect();
        if train.is_empty() {
            return Err(TrainError::Recipe {
                path: data.to_owned(),
                what: "no training sentence is left that is not in dev or test".into(),
            });
        }
        let excluded = before - train.len();
        Ok(Self {
            train,
            dev,
            test,
            excluded,
            tokenizer_json,
            features,
        })
    }
}

fn encode(recipe: &Recipe, tokenizer: &Tokenizer, set: DataSet) -> Result<Vec<Item>> {
    let classes = recipe.model.labels.len();
    let mut items = Vec::with_capacity(set.len());
    for example in set.examples {
        if example.label >= classes {
            return Err(TrainError::Recipe {
                path: "model.labels".into(),
                what: format!(
                    "the data has a label {} and the recipe names {classes} classes",
                    example.label
                ),
            });
        }
        // A phrase of punctuation only is no sentence; GLUE's training phrases have a few.
        let ids = match tokenizer.encode_within(&example.text, recipe.model.max_position_embeddings)
        {
            Err(veilformer_models::ModelError::EmptySentence) => continue,
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

/// `[UNK]` and the vocabulary's whole words that occur in the data, in the vocabulary's order.
fn used_words(sets: &[DataSet], features: Features) -> Result<Features> {
    let full = Tokenizer::from_bytes(wordpiece_json(&features.tokens)?.as_bytes())?;
    let mut used = BTreeSet::new();
    used.extend(full.token_to_id("[UNK]"));
    for example in sets.iter().flat_map(|s| &s.examples) {
        used.extend(full.encode(&example.text)?);
    }
    let ids: Vec<usize> = used.into_iter().map(|i| i as usize).collect();
    Ok(features.select(&ids))
}
