//! What a figure shows.

use crate::draw;
use crate::{PlotError, Result};

/// Title and names of the axes of a panel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// Above the panel.
    pub title: String,
    /// Name and unit of the horizontal axis.
    pub x: String,
    /// Name and unit of the vertical axis.
    pub y: String,
}

impl Labels {
    /// Labels of these texts.
    pub fn new(title: &str, x: &str, y: &str) -> Self {
        Self {
            title: title.to_owned(),
            x: x.to_owned(),
            y: y.to_owned(),
        }
    }
}

/// Points that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What the legend calls it.
    pub name: String,
    /// The points, in the order in which a line joins them.
    pub points: Vec<(f64, f64)>,
}

impl Series {
    /// The points under the name.
    pub fn new(name: &str, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: name.to_owned(),
            points,
        }
    }
}

/// Counts in bins of equal width.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Lower end of the first bin.
    pub start: f64,
    /// Width of a bin, above 0.
    pub width: f64,
    /// Number of values in each bin.
    pub counts: Vec<u64>,
    /// Whether the counts stand on a logarithmic axis.
    pub log: bool,
}

/// Points and the lines that they stay below, on logarithmic axes: a roofline plot (Williams,
/// Waterman, Patterson, "Roofline", 2009).
#[derive(Debug, Clone, PartialEq)]
pub struct Roofs {
    /// The lines.
    pub roofs: Vec<Series>,
    /// Points of one colour each; a point has a number on the chart and its name beside it.
    pub points: Vec<(String, Vec<Named>)>,
}

/// A point with a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// The name.
    pub name: String,
    /// Where it is; both numbers are above 0.
    pub at: (f64, f64),
}

/// How the data of a panel is drawn.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Lines, with a legend if there is more than one.
    Lines(Vec<Series>),
    /// A histogram.
    Histogram(Histogram),
    /// Points on two axes of the same range, and the line where both are equal.
    Scatter(Vec<Series>),
    /// Points under roofs, on logarithmic axes.
    Roofs(Roofs),
}

/// One chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Title and names of the axes.
    pub labels: Labels,
    /// What it shows.
    pub kind: Kind,
}

impl Panel {
    /// A chart of one or more lines.
    pub fn lines(labels: Labels, series: Vec<Series>) -> Self {
        let kind = Kind::Lines(series);
        Self { labels, kind }
    }

    /// A histogram.
    pub fn histogram(labels: Labels, histogram: Histogram) -> Self {
        let kind = Kind::Histogram(histogram);
        Self { labels, kind }
    }

    /// Points and the identity line.
    pub fn scatter(labels: Labels, series: Vec<Series>) -> Self {
        let kind = Kind::Scatter(series);
        Self { labels, kind }
    }

    /// Points under roofs.
    pub fn roofs(labels: Labels, roofs: Roofs) -> Self {
        let kind = Kind::Roofs(roofs);
        Self { labels, kind }
    }

    /// Refuses what has no place on a chart.
    pub(crate) fn check(&self) -> Result<()> {
        let name = || format!("the panel \"{}\"", self.labels.title);
        match &self.kind {
            Kind::Lines(series) | Kind::Scatter(series) => {
                if series.iter().all(|s| s.points.is_empty()) {
                    return Err(PlotError::Empty(name()));
                }
                let finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
                if !series.iter().flat_map(|s| &s.points).all(finite) {
                    return Err(PlotError::NotFinite(name()));
                }
            }
            Kind::Roofs(r) => {
                let points = || r.points.iter().flat_map(|group| &group.1).map(|p| p.at);
                let lines = r.roofs.iter().flat_map(|s| s.points.iter().copied());
                if points().next().is_none() {
                    return Err(PlotError::Empty(name()));
                }
                let on_axes = |v: f64| v.is_finite() && v > 0.0;
                if !points().chain(lines).all(|(x, y)| on_axes(x) && on_axes(y)) {
                    return Err(PlotError::NotFinite(name()));
                }
            }
            Kind::Histogram(h) => {
                if h.counts.iter().all(|c| *c == 0) {
                    return Err(PlotError::Empty(name()));
                }
                let end = h.start + h.width * h.counts.len() as f64;
                if !(h.start.is_finite() && end.is_finite() && h.width > 0.0) {
                    return Err(PlotError::NotFinite(name()));
                }
            }
        }
        Ok(())
    }
}

/// Panels in rows, all of the same size.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// The panels, row after row.
    pub panels: Vec<Panel>,
    /// Panels beside each other, at least 1.
    pub columns: usize,
    /// Width and height of a panel in pixels.
    pub size: (u32, u32),
}

impl Figure {
    /// One panel of 720 x 420 pixels.
    pub fn single(panel: Panel) -> Self {
        Self {
            panels: vec![panel],
            columns: 1,
            size: (720, 420),
        }
    }

    /// Panels of 360 x 260 pixels, `columns` beside each other.
    pub fn grid(panels: Vec<Panel>, columns: usize) -> Self {
        Self {
            panels,
            columns: columns.max(1),
            size: (360, 260),
        }
    }

    /// The figure as the text of an SVG file.
    ///
    /// # Errors
    /// When there is no panel, a panel has no data or a value that is not finite, or the size is
    /// below 100 pixels or above 10000.
    pub fn svg(&self) -> Result<String> {
        if self.panels.is_empty() {
            return Err(PlotError::Empty("the figure".into()));
        }
        self.panels.iter().try_for_each(Panel::check)?;
        let columns = self.columns.clamp(1, self.panels.len());
        let rows = self.panels.len().div_ceil(columns);
        let width = columns as u64 * u64::from(self.size.0);
        let height = rows as u64 * u64::from(self.size.1);
        let fits = |pixels: u64| (100..=10_000).contains(&pixels);
        if !fits(width) || !fits(height) || self.size.0 < 100 || self.size.1 < 100 {
            return Err(PlotError::Size { width, height });
        }
        draw::figure(self, columns, rows)
    }
}
