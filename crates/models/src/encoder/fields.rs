//! Fields of a JSON object, whose messages name the field, what it holds and what is expected.

use serde_json::{Map, Value};

use crate::error::{ModelError, Result};
use crate::tokenizer_file::short;

/// The fields of a `config.json`. Of those that may be absent, null is as if absent.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let file: Value = serde_json::from_slice(bytes).map_err(|e| {
            ModelError::Config(format!("not valid JSON ({e}); copy the model folder again"))
        })?;
        match file {
            Value::Object(fields) => Ok(Self(fields)),
            other => Err(ModelError::Config(format!(
                "it is `{}`, expected an object of fields; copy the model folder again",
                short(&other.to_string())
            ))),
        }
    }

    /// What is there beside null.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// The error for a field that does not hold what is expected.
    pub fn wrong(&self, name: &str, expected: &str) -> ModelError {
        ModelError::Config(match self.0.get(name) {
            None => format!(
                "{name} is missing, expected {expected}; take the file that the model was saved with"
            ),
            Some(value) => format!(
                "{name} is {}, expected {expected}",
                short(&value.to_string())
            ),
        })
    }

    fn optional<'a, T>(
        &'a self,
        name: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let value = self.get(name);
        value
            .map(|value| read(value).ok_or_else(|| self.wrong(name, expected)))
            .transpose()
    }

    /// A text that may be absent.
    pub fn text(&self, name: &str) -> Result<Option<&str>> {
        self.optional(name, "a text", Value::as_str)
    }

    /// Whether a switch is on.
    pub fn is_on(&self, name: &str) -> Result<bool> {
        let on = self.optional(name, "true or false", Value::as_bool)?;
        Ok(on == Some(true))
    }

    /// A whole number that may be absent.
    pub fn count(&self, name: &str) -> Result<Option<usize>> {
        self.optional(name, "a whole number, not below 0", count)
    }

    /// A number that may be absent.
    pub fn number(&self, name: &str) -> Result<Option<f64>> {
        self.optional(name, "a number", Value::as_f64)
    }

    /// A whole number that has to be there.
    pub fn size(&self, name: &str) -> Result<usize> {
        let value = self.0.get(name).and_then(count);
        value.ok_or_else(|| self.wrong(name, "a whole number above 0"))
    }

    /// Whether the field stands in the file, be it null.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

fn count(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok()
}
