//! Charts as SVG: lines, histograms, scatter plots with the identity line, points under roofs.
//!
//! A [`Figure`] is a grid of panels; [`Figure::svg`] draws it. The text of the SVG is a function of
//! the figure only: no date, no fonts of a machine.
//!
//! ```
//! use veilformer_plot::{Figure, Labels, Panel, Series};
//! let loss = Series::new("loss", vec![(1.0, 0.7), (2.0, 0.5), (3.0, 0.45)]);
//! let panel = Panel::lines(Labels::new("Training", "epoch", "loss"), vec![loss]);
//! let svg = Figure::single(panel).svg()?;
//! assert!(svg.starts_with("<svg"));
//! # Ok::<(), veilformer_plot::PlotError>(())
//! ```
#![forbid(unsafe_code)]

mod draw;
mod panel;
mod roofs;

pub use panel::{Figure, Histogram, Kind, Labels, Named, Panel, Roofs, Series};

/// A figure that cannot be drawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlotError {
    /// Nothing to draw.
    #[error("{0} has no data; give it at least one point")]
    Empty(String),
    /// A value that has no place on an axis.
    #[error(
        "{0} has a value that is not a finite number, or not above 0 on a logarithmic axis; leave it out"
    )]
    NotFinite(String),
    /// A figure or panel without a size.
    #[error("a figure of {width} x {height} pixels, expected 100 to 10000 each way")]
    Size {
        /// Width in pixels.
        width: u64,
        /// Height in pixels.
        height: u64,
    },
    /// The drawing library.
    #[error("drawing failed ({0}); please report this with the data")]
    Draw(String),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, PlotError>;
