//! Ranges and histograms of intermediate values.

use candle_core::{DType, Tensor};

use crate::error::Result;

/// Bins of a histogram.
const BINS: usize = 256;

/// A histogram of values whose range nobody knows beforehand: its bins cover an interval around 0
/// and are merged in pairs when a value lies outside. The result does not depend on the order of
/// the values.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// The bins cover `-reach..reach` evenly; a power of two.
    pub reach: f64,
    /// Number of values in each bin.
    pub counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            reach: 2f64.powi(-4),
            counts: vec![0; BINS],
        }
    }
}

impl Histogram {
    /// Counts `value`; what is not finite is left out.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        while value.abs() >= self.reach {
            self.widen();
        }
        let place = (value + self.reach) / (2.0 * self.reach) * BINS as f64;
        if let Some(count) = self.counts.get_mut((place as usize).min(BINS - 1)) {
            *count += 1;
        }
    }

    /// Lower end of bin `index`.
    pub fn edge(&self, index: usize) -> f64 {
        self.reach * (2.0 * index as f64 / BINS as f64 - 1.0)
    }

    fn widen(&mut self) {
        let mut wider = vec![0; BINS];
        let (pairs, _) = self.counts.as_chunks::<2>();
        for (slot, [a, b]) in wider.iter_mut().skip(BINS / 4).zip(pairs) {
            *slot = a + b;
        }
        self.counts = wider;
        self.reach *= 2.0;
    }
}

/// Smallest and largest value of each kind of intermediate over real tokens, and their histogram.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ranges {
    /// The kinds in the order in which the network computes them.
    pub entries: Vec<Range>,
}

/// One kind of intermediate values.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    /// What a card calls it.
    pub name: String,
    /// Smallest value.
    pub smallest: f64,
    /// Largest value.
    pub largest: f64,
    /// All values.
    pub histogram: Histogram,
}

impl Ranges {
    /// Counts the values whose `mask` (of the same shape) is not 0.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn add(&mut self, name: &str, values: &Tensor, mask: Option<&Tensor>) -> Result<()> {
        let flat = |t: &Tensor| -> Result<Vec<f64>> {
            Ok(t.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?)
        };
        let values = flat(values)?;
        match mask {
            Some(mask) => {
                let mask = flat(mask)?;
                let real = values.iter().zip(&mask).filter(|(_, m)| **m != 0.0);
                self.extend(name, real.map(|(v, _)| *v));
            }
            None => self.extend(name, values),
        }
        Ok(())
    }

    /// Counts all `values`.
    pub fn extend(&mut self, name: &str, values: impl IntoIterator<Item = f64>) {
        let place = match self.entries.iter().position(|e| e.name == name) {
            Some(place) => place,
            None => {
                self.entries.push(Range {
                    name: name.to_owned(),
                    smallest: f64::INFINITY,
                    largest: f64::NEG_INFINITY,
                    histogram: Histogram::default(),
                });
                self.entries.len() - 1
            }
        };
        if let Some(entry) = self.entries.get_mut(place) {
            for value in values {
                entry.smallest = entry.smallest.min(value);
                entry.largest = entry.largest.max(value);
                entry.histogram.add(value);
            }
        }
    }
}
