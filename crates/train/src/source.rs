//! Data files in recipes: a name, or a name and a range of lines.

use std::fmt;
use std::path::Path;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use veilformer_models::{DataSet, LineRange};

use crate::error::Result;

/// A file of the data folder, whole or some lines of it. In a recipe `"train.txt"`, or
/// `{ file = "rt-polarity.pos", lines = "0..4265" }`; see [`DataSet::load_lines`] for how lines are
/// counted.
#[derive(Debug, Clone, PartialEq)]
pub struct DataSource {
    /// Name of the file in the data folder.
    pub file: String,
    /// The lines to take; all without it.
    pub lines: Option<LineRange>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    file: String,
    lines: String,
}

impl DataSource {
    /// Reads the sentences; `data` is the data folder.
    ///
    /// # Errors
    /// As [`DataSet::load_lines`].
    pub fn load(&self, data: &Path) -> Result<DataSet> {
        Ok(DataSet::load_lines(&data.join(&self.file), self.lines)?)
    }
}

impl Serialize for DataSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.lines {
            None => serializer.serialize_str(&self.file),
            Some(lines) => Table {
                file: self.file.clone(),
                lines: lines.to_string(),
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for DataSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(SourceVisitor)
    }
}

struct SourceVisitor;

impl<'de> Visitor<'de> for SourceVisitor {
    type Value = DataSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a file, or { file = NAME, lines = \"FIRST..END\" }")
    }

    fn visit_str<E: Error>(self, file: &str) -> std::result::Result<DataSource, E> {
        Ok(DataSource {
            file: file.to_owned(),
            lines: None,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<DataSource, A::Error> {
        let table = Table::deserialize(MapAccessDeserializer::new(map))?;
        Ok(DataSource {
            file: table.file,
            lines: Some(table.lines.parse().map_err(A::Error::custom)?),
        })
    }
}
