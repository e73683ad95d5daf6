//! What the products are held to.

use super::UNPRUNED;
use crate::gate::Gate;
use crate::row::Row;

/// Most that a product may take of its counted time, either way.
const MOST_OVER_COUNTED: f64 = 1.5;
/// Most that a measured ratio of two methods may be from the counted one, either way.
const MOST_OFF_RATIO: f64 = 1.2;
/// Most that the gain by pruning may be from the counted one, either way.
const MOST_OFF_PRUNED: f64 = 1.15;

/// Whether `ratio` is within a factor of one.
fn within(ratio: f64, factor: f64) -> bool {
    ratio <= factor && ratio >= 1.0 / factor
}

/// Milliseconds measured, and counted.
fn times(rows: &[Row], op: &str) -> Option<(f64, f64)> {
    let row = rows.iter().find(|row| row.op == op)?;
    Some((row.ms, row.counted.as_ref()?.ms))
}

/// The gates whose rows are there.
pub(super) fn gates(rows: &[Row]) -> Vec<Gate> {
    let mut gates = Vec::new();
    for size in ["128x128", "768x768", "768x3072"] {
        let both = [
            times(rows, &format!("periodic_{size}")),
            times(rows, &format!("bsgs_twice_{size}")),
        ];
        if let [Some(periodic), Some(full)] = both {
            let text = format!(
                "{size}: periodic encodings {:.0} ms, full encodings {:.0} ms: not slower",
                periodic.0, full.0
            );
            gates.push(Gate::new(periodic.0 <= full.0, text));
        }
        let both = [
            times(rows, &format!("packed_rows_{size}")),
            times(rows, &format!("periodic_{size}")),
        ];
        if let [Some(slow), Some(fast)] = both {
            let (measured, counted) = (slow.0 / fast.0, slow.1 / fast.1);
            let text = format!(
                "{size}: packed rows over diagonals: counted {counted:.1}, measured {measured:.1}: \
                 within {MOST_OFF_RATIO}"
            );
            gates.push(Gate::new(within(measured / counted, MOST_OFF_RATIO), text));
        }
    }
    for row in rows {
        let Some(counted) = &row.counted else {
            continue;
        };
        let text = format!(
            "{}: {:.2} of its count: within {MOST_OVER_COUNTED}",
            row.op, counted.over
        );
        gates.push(Gate::new(within(counted.over, MOST_OVER_COUNTED), text));
        let pruned = row.op.starts_with("diagonals_less") || row.op.starts_with("blocks_less");
        let size = row.op.rsplit('_').next().unwrap_or_default();
        if let (true, Some(full)) = (pruned, times(rows, &format!("periodic_{size}"))) {
            // What ran right before it, rather than a median of other moments.
            let beside = row.ratios.get(UNPRUNED).map(|gain| gain.median);
            let (measured, expected) = (beside.unwrap_or(full.0 / row.ms), full.1 / counted.ms);
            let text = format!(
                "{}: faster than unpruned by {measured:.2}, counted {expected:.2}: within \
                 {MOST_OFF_PRUNED}",
                row.op
            );
            gates.push(Gate::new(
                within(measured / expected, MOST_OFF_PRUNED),
                text,
            ));
        }
    }
    gates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::{counted, sample};
    use crate::stats::Summary;

    fn row(op: &str, ms: f64, count: f64) -> Row {
        let mut row = sample();
        row.op = op.into();
        row.ms = ms;
        row.counted = Some(counted(count, ms));
        row
    }

    #[test]
    fn gates_compare_measured_with_counted() {
        let texts = |rows: &[Row]| {
            let gates = gates(rows).into_iter();
            gates.map(|g| g.to_string()).collect::<Vec<_>>()
        };
        let rows = [
            row("packed_rows_768x3072", 900.0, 1000.0),
            row("periodic_768x3072", 12.0, 10.0),
        ];
        assert_eq!(
            texts(&rows),
            [
                "MISSED 768x3072: packed rows over diagonals: counted 100.0, measured 75.0: within 1.2",
                "met    packed_rows_768x3072: 0.90 of its count: within 1.5",
                "met    periodic_768x3072: 1.20 of its count: within 1.5",
            ]
        );
        let rows = [
            row("periodic_768x768", 30.0, 28.0),
            row("bsgs_twice_768x768", 29.0, 60.0),
            row("blocks_less_50_768x768", 20.0, 14.0),
        ];
        let texts = texts(&rows);
        for text in [
            "MISSED 768x768: periodic encodings 30 ms, full encodings 29 ms: not slower",
            "MISSED bsgs_twice_768x768: 0.48 of its count: within 1.5",
            "MISSED blocks_less_50_768x768: faster than unpruned by 1.50, counted 2.00: within 1.15",
        ] {
            assert!(texts.iter().any(|t| t == text), "{text}\n{texts:#?}");
        }
        assert_eq!(super::gates(&[sample()]), []);
        // Of 30 ms and 20 it is 1.5; beside one another 1.9 was seen.
        let mut pruned = rows[2].clone();
        let gain = Summary::of(&[1.9]).unwrap();
        pruned.ratios.insert(UNPRUNED.to_owned(), gain);
        let gates = super::gates(&[rows[0].clone(), pruned]);
        let text = "met    blocks_less_50_768x768: faster than unpruned by 1.90, counted 2.00: within 1.15";
        assert!(gates.iter().any(|g| g.to_string() == text));
    }
}
