//! Charts of a training run.

use veilformer_plot::{Figure, Histogram, Labels, Panel, Series};

use crate::network::Ranges;
use crate::trainer::EpochReport;

/// Most bars of a histogram; neighbouring bins are put together until there are no more.
const BARS: usize = 64;

/// Loss, range terms and dev accuracy per epoch.
pub fn training(history: &[EpochReport]) -> Figure {
    let of = |value: fn(&EpochReport) -> f64| -> Vec<(f64, f64)> {
        history
            .iter()
            .map(|r| ((r.epoch + 1) as f64, value(r)))
            .collect()
    };
    let panel = |title: &str, y: &str, points: Vec<(f64, f64)>| {
        Panel::lines(
            Labels::new(title, "epoch", y),
            vec![Series::new(title, points)],
        )
    };
    let panels = vec![
        panel("Training loss", "mean cross entropy", of(|r| r.loss)),
        panel("Range terms", "mean, weighted", of(|r| r.range_loss)),
        panel("Dev accuracy", "percent", of(|r| 100.0 * r.dev_accuracy)),
    ];
    Figure::grid(panels, 3)
}

/// A histogram of each kind of intermediate values, counts on a logarithmic axis.
pub fn ranges(ranges: &Ranges) -> Figure {
    let panels = ranges
        .entries
        .iter()
        .filter(|r| r.histogram.counts.iter().any(|c| *c > 0))
        .map(|r| {
            let labels = Labels::new(&r.name, "", "values");
            Panel::histogram(labels, shown(&r.histogram))
        });
    Figure::grid(panels.collect(), 3)
}

/// The bins that hold values, in at most [`BARS`] bars.
fn shown(histogram: &crate::network::Histogram) -> Histogram {
    let counts = &histogram.counts;
    let first = counts.iter().position(|c| *c > 0).unwrap_or(0);
    let last = counts.iter().rposition(|c| *c > 0).unwrap_or(0);
    let mut size = 1;
    while (last / size + 1 - first / size) > BARS {
        size *= 2;
    }
    let start = first / size * size;
    let bars = counts.chunks(size).skip(start / size);
    Histogram {
        start: histogram.edge(start),
        width: size as f64 * (histogram.edge(1) - histogram.edge(0)),
        counts: bars
            .take(last / size + 1 - start / size)
            .map(|bins| bins.iter().sum())
            .collect(),
        log: true,
    }
}
