//! Bootstraps as a table.

use super::{BootstrapRow, Parameters};
use crate::row::digits;

/// Kinds of input in the order of the columns.
const KINDS: [&str; 4] = ["random", "constant", "signs", "replicated"];

/// A table of bootstraps; empty without rows.
#[must_use]
pub fn table<'a>(rows: impl IntoIterator<Item = &'a BootstrapRow>) -> String {
    let mut text = String::new();
    for row in rows {
        if text.is_empty() {
            text += "\
| bootstrap | s | levels | bits of the worst slot: random, constant, signs, replicated | bits of the mean | \
ms per level and bit (random inputs alone) | slots | log QP | at 128 bits | keys, GiB | resident, GiB | making keys, s |
|---|---|---|---|---|---|---|---|---|---|---|---|
";
        }
        let p = &row.params;
        let all = |bits: fn(&super::row::Bits) -> f64| {
            let kinds = KINDS.iter().map(|&kind| p.precision.get(kind).map(bits));
            let kinds = kinds.map(|bits| bits.map_or("-".to_owned(), |b| format!("{b:.1}")));
            kinds.collect::<Vec<_>>().join(", ")
        };
        let gib = |bytes: Option<f64>| {
            bytes.map_or("-".to_owned(), |b| format!("{:.1}", b / 2f64.powi(30)))
        };
        text += &format!(
            "| {} | {} [{}, {}] | {} at 2^{} | {} | {} | {} ({}) | {}{} | {:.0} | {} | {} | {} | {:.0} |\n",
            row.op,
            digits(row.ms / 1e3),
            digits(row.ms_low / 1e3),
            digits(row.ms_high / 1e3),
            p.levels,
            p.scale_bits,
            all(|b| b.worst),
            all(|b| b.mean),
            digits(1e3 * row.seconds_per_level_bit),
            row.seconds_per_level_bit_random
                .map_or("-".to_owned(), |s| digits(1e3 * s)),
            p.slots,
            if p.complex { " complex" } else { " real" },
            row.log_qp,
            within(p),
            gib(p.key_bytes),
            gib(p.resident_bytes),
            p.keygen_s
        );
    }
    text
}

/// Whether all keys are inside of their bounds at 128 bits; if not, which is not.
fn within(p: &Parameters) -> String {
    match p.above_bound() {
        None => "inside".to_owned(),
        Some((key, bound)) => {
            let secret = key
                .secret_weight
                .map_or("a dense secret".to_owned(), |w| format!("weight {w}"));
            format!("**above**: {:.0} > {bound:.0} ({secret})", key.log_qp)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::sample;
    use super::*;

    #[test]
    fn tables_say_what_is_above_its_bound() {
        assert_eq!(table([]), "");
        let mut row = sample();
        let text = table([&row]);
        let line = "| lattigo_9_levels | 12.97 [12.90, 13.90] | 9 at 2^40 | 25.0, 20.0, -, - | 27.0, 21.0, -, - | \
                    72.08 (57.67) | 32768 real | 1546 | **above**: 1546 > 1481 (weight 192) | - | 15.0 | 30 |";
        assert!(text.lines().any(|l| l == line), "{text}");
        row.params.keys[0].secret_weight = None;
        assert!(table([&row]).contains("| inside |"));
    }
}
