//! What our bootstraps are held to.

use super::BootstrapRow;
use crate::gate::Gate;

/// Times faster per level and bit than the best preset of a library that is inside of its bound.
const FASTER_INSIDE: f64 = 1.5;
/// Times faster per level and bit than libraries that are above theirs.
const FASTER_ABOVE: f64 = 4.0;
/// Bits of the worst slot, on every kind of input.
const LEAST_BITS: f64 = 18.0;
/// Processor seconds of making keys.
const MOST_KEYGEN_S: f64 = 15.0;
/// Times faster on two threads.
const LEAST_THREADS: f64 = 1.6;
/// What one bootstrap of a batch may take, of one by itself: no more, but for the noise of times.
const MOST_BATCH: f64 = 1.02;
/// Name, milliseconds on one thread, and GiB resident.
const FULL: [(&str, f64, f64); 2] = [
    ("bootstrap_10_levels", 2300.0, 8.0),
    ("bootstrap_14_levels", 3100.0, 12.0),
];
/// Name, and the published share of a full bootstrap's time.
const SPARSE: [(&str, f64); 2] = [("bootstrap_512_slots", 0.65), ("bootstrap_1_slot", 0.56)];

fn find<'a>(rows: &'a [BootstrapRow], op: &str) -> Option<&'a BootstrapRow> {
    rows.iter().find(|row| row.op == op)
}

/// The gates whose rows are there.
pub(super) fn gates(rows: &[BootstrapRow]) -> Vec<Gate> {
    let mut gates = Vec::new();
    for (name, most_ms, most_gib) in FULL {
        if let Some(row) = find(rows, name) {
            full(row, (most_ms, most_gib), &mut gates);
        }
    }
    for (name, most) in SPARSE {
        if let (Some(row), Some(full)) = (find(rows, name), find(rows, FULL[0].0)) {
            let share = row.ms / full.ms;
            let text =
                format!("{name}: {share:.2} of the time of full slots: at most {most} (published)");
            gates.push(Gate::new(share <= most, text));
        }
    }
    gates
}

fn full(row: &BootstrapRow, (most_ms, most_gib): (f64, f64), gates: &mut Vec<Gate>) {
    let name = &row.op;
    let mut gate = |met: bool, text: String| gates.push(Gate::new(met, format!("{name}: {text}")));
    let p = &row.params;
    gate(
        p.bits >= LEAST_BITS,
        format!("worst slot {:.1} bits: at least {LEAST_BITS}", p.bits),
    );
    gate(
        row.security_bits >= 128,
        format!(
            "every key inside its bound at 128 bits: weakest {}",
            row.security_bits
        ),
    );
    if row.threads == 1 {
        gate(
            row.ms <= most_ms,
            format!("{:.0} ms on one thread: at most {most_ms}", row.ms),
        );
        gate(
            p.keygen_s <= MOST_KEYGEN_S,
            format!(
                "keys in {:.1} processor seconds: at most {MOST_KEYGEN_S}",
                p.keygen_s
            ),
        );
    }
    if let Some(bytes) = p.resident_bytes {
        let gib = bytes / 2f64.powi(30);
        gate(
            gib <= most_gib,
            format!("{gib:.1} GiB resident: at most {most_gib}"),
        );
    }
    if let Some(details) = &p.details {
        if let Some(share) = details.batch_ratio {
            gate(
                share <= MOST_BATCH,
                format!("one of a batch takes {share:.3} of one by itself: at most {MOST_BATCH}"),
            );
        }
        if let Some(one) = details.one_thread_ms {
            let gain = one / row.ms;
            gate(
                gain >= LEAST_THREADS,
                format!(
                    "{} threads are {gain:.2} times as fast as one: at least {LEAST_THREADS}",
                    row.threads
                ),
            );
        }
    }
    // Of each library the preset that is best by the figure that is compared.
    for (other, peer) in row.best_peers() {
        let (least, why) = if peer.inside {
            (FASTER_INSIDE, "inside its bound")
        } else {
            (FASTER_ABOVE, "above its bound at 128 bits")
        };
        gate(
            peer.ratio >= least,
            format!(
                "{:.2} times better per level and bit than {} ({why}): at least {least}",
                peer.ratio, other
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::{peer, sample};
    use super::super::{Details, compare};
    use super::*;

    fn texts(rows: &[BootstrapRow]) -> Vec<String> {
        gates(rows).iter().map(ToString::to_string).collect()
    }

    fn ours(op: &str, ms: f64) -> BootstrapRow {
        let mut row = sample();
        row.op = op.into();
        row.ms = ms;
        row.security_bits = 128;
        row.params.levels = 10;
        row.params.bits = 19.0;
        row.seconds_per_level_bit = ms / 1e3 / 190.0;
        row.params.resident_bytes = Some(5.0 * 2f64.powi(30));
        row.params.keygen_s = 12.0;
        row
    }

    #[test]
    fn what_is_met_and_what_is_missed() {
        assert_eq!(gates(&[sample()]), []);
        let mut full = ours("bootstrap_10_levels", 1900.0);
        full.params.details = Some(Details {
            batch_ratio: Some(1.0),
            ..Details::default()
        });
        let sparse = ours("bootstrap_512_slots", 1300.0);
        // 10 ms per level and bit.
        let mut rows = vec![
            full,
            sparse,
            peer("poulpy_15_levels", 14.0),
            peer("poulpy_17_levels", 16.0),
            peer("lattigo_9_levels", 90.0),
        ];
        rows[2].security_bits = 128;
        rows[3].security_bits = 128;
        compare(&mut rows);
        assert_eq!(
            texts(&rows),
            [
                "met    bootstrap_10_levels: worst slot 19.0 bits: at least 18",
                "met    bootstrap_10_levels: every key inside its bound at 128 bits: weakest 128",
                "met    bootstrap_10_levels: 1900 ms on one thread: at most 2300",
                "met    bootstrap_10_levels: keys in 12.0 processor seconds: at most 15",
                "met    bootstrap_10_levels: 5.0 GiB resident: at most 8",
                "met    bootstrap_10_levels: one of a batch takes 1.000 of one by itself: at most 1.02",
                "met    bootstrap_10_levels: 9.00 times better per level and bit than lattigo_9_levels (above its bound at 128 bits): at least 4",
                "MISSED bootstrap_10_levels: 1.40 times better per level and bit than poulpy_15_levels (inside its bound): at least 1.5",
                "MISSED bootstrap_512_slots: 0.68 of the time of full slots: at most 0.65 (published)",
            ]
        );
    }

    #[test]
    fn two_threads_are_held_to_one() {
        let mut row = ours("bootstrap_14_levels", 2000.0);
        row.threads = 2;
        row.params.bits = 17.9;
        row.security_bits = 0;
        row.params.resident_bytes = Some(13.0 * 2f64.powi(30));
        row.params.details = Some(Details {
            batch_ratio: Some(1.05),
            one_thread_ms: Some(3000.0),
            ..Details::default()
        });
        let texts = texts(&[row]);
        assert!(texts.iter().all(|t| t.starts_with("MISSED")), "{texts:#?}");
        assert_eq!(texts.len(), 5);
    }
}
