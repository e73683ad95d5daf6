//! The three splits as token ids, kept apart from each other.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use veilformer_models::tokenizer::wordpiece_json;
use veilformer_models::{DataSet, ModelError, Tokenizer};

use crate::error::{Result, TrainError};
use crate::features::Features;
use crate::recipe::{LongSentences, Recipe, ScratchRecipe, Vocabulary};

/// The token of words that are not in the vocabulary.
const UNKNOWN: &str = "[UNK]";

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

/// Where token vectors come from in training.
pub enum TokenSource {
    /// A linear map on frozen features is learned.
    Frozen(Features),
    /// The vectors themselves are learned.
    Learned {
        /// The tokens; token `i` has vector `i`.
        tokens: Vec<String>,
        /// Standard deviation of the initial vectors.
        sd: f64,
    },
}

impl TokenSource {
    /// The tokens, in the order of their ids.
    pub fn tokens(&self) -> &[String] {
        match self {
            Self::Frozen(features) => &features.tokens,
            Self::Learned { tokens, .. } => tokens,
        }
    }
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
    /// Sentences of train, dev and test that were left out because they have more tokens than the
    /// model takes; those of dev and test count as answered wrongly.
    pub too_long: [usize; 3],
    /// The text of `tokenizer.json`.
    pub tokenizer_json: String,
    /// The tokenizer's tokens and where their vectors come from.
    pub source: TokenSource,
}

impl Corpus {
    /// Reads the recipe's files in the folder `data`.
    ///
    /// # Errors
    /// When a file is not usable, a label has no name in the recipe, a dev or test sentence is
    /// empty or longer than the model's limit, or no training sentence is left.
    pub fn load(recipe: &Recipe, data: &Path, features: Features) -> Result<Self> {
        let mut sets = [
            DataSet::default(),
            recipe.data.dev.load(data)?,
            recipe.data.test.load(data)?,
        ];
        for source in &recipe.data.train {
            sets[0].examples.extend(source.load(data)?.examples);
        }
        let features = match recipe.data.vocabulary {
            Vocabulary::Full => features,
            Vocabulary::Data => used_words(&sets, features)?,
        };
        let tokenizer_json = match &features.shared {
            Some(shared) => String::from_utf8_lossy(&shared.files.tokenizer).into_owned(),
            None => wordpiece_json(&features.tokens)?,
        };
        let tokenizer = Tokenizer::from_bytes(tokenizer_json.as_bytes())?;
        let [train, dev, test] = sets;
        let encode = |set: DataSet| encode(recipe, &tokenizer, set);
        let (dev, test, all) = (encode(dev)?, encode(test)?, encode(train)?);
        let too_long = [all.1, dev.1, test.1];
        let (dev, test, all) = (dev.0, test.0, all.0);
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
            too_long,
            tokenizer_json,
            source: TokenSource::Frozen(features),
        })
    }

    /// Sentences of dev, also those that no model of this length can answer.
    pub fn dev_size(&self) -> usize {
        self.dev.len() + self.too_long[1]
    }

    /// Sentences of test, also those that no model of this length can answer.
    pub fn test_size(&self) -> usize {
        self.test.len() + self.too_long[2]
    }

    /// The same sentences for a model that learns its token vectors from scratch: its tokens are
    /// the words that stand in at least `scratch.min_sentences` training sentences, and `[UNK]` for
    /// all others.
    ///
    /// # Errors
    /// When the tokenizer cannot be made.
    pub fn from_scratch(&self, scratch: &ScratchRecipe) -> Result<Self> {
        let tokenizer = Tokenizer::from_bytes(self.tokenizer_json.as_bytes())?;
        let mut sentences: BTreeMap<String, usize> = BTreeMap::new();
        for item in &self.train {
            let words: BTreeSet<String> = tokenizer.words(&item.text)?.into_iter().collect();
            for word in words {
                *sentences.entry(word).or_default() += 1;
            }
        }
        let frequent = sentences
            .into_iter()
            .filter(|(word, n)| *n >= scratch.min_sentences && word != UNKNOWN);
        let mut tokens = vec![UNKNOWN.to_owned()];
        tokens.extend(frequent.map(|(word, _)| word));
        let tokenizer_json = wordpiece_json(&tokens)?;
        let tokenizer = Tokenizer::from_bytes(tokenizer_json.as_bytes())?;
        let encode = |items: &[Item]| -> Result<Vec<Item>> {
            let one = |item: &Item| -> Result<Item> {
                Ok(Item {
                    ids: tokenizer.encode(&item.text)?,
                    ..item.clone()
                })
            };
            items.iter().map(one).collect()
        };
        Ok(Self {
            train: encode(&self.train)?,
            dev: encode(&self.dev)?,
            test: encode(&self.test)?,
            excluded: self.excluded,
            too_long: self.too_long,
            tokenizer_json,
            source: TokenSource::Learned {
                tokens,
                sd: scratch.embedding,
            },
        })
    }
}

/// The sentences as token ids, and the number of those that are too long where the recipe has them
/// left out.
fn encode(recipe: &Recipe, tokenizer: &Tokenizer, set: DataSet) -> Result<(Vec<Item>, usize)> {
    let classes = recipe.model.labels.len();
    let mut too_long = 0;
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
            Err(ModelError::EmptySentence) => continue,
            Err(ModelError::TooLong { .. }) if recipe.data.long == LongSentences::Wrong => {
                too_long += 1;
                continue;
            }
            other => other?,
        };
        items.push(Item {
            text: example.text,
            ids,
            label: example.label,
        });
    }
    Ok((items, too_long))
}

/// `[UNK]` and the vocabulary's whole words that occur in the data, in the vocabulary's order.
fn used_words(sets: &[DataSet], features: Features) -> Result<Features> {
    let full = Tokenizer::from_bytes(wordpiece_json(&features.tokens)?.as_bytes())?;
    let mut used = BTreeSet::new();
    used.extend(full.token_to_id(UNKNOWN));
    for example in sets.iter().flat_map(|s| &s.examples) {
        used.extend(full.encode(&example.text)?);
    }
    let ids: Vec<usize> = used.into_iter().map(|i| i as usize).collect();
    Ok(features.select(&ids))
}
