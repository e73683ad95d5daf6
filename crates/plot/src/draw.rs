//! Drawing with `plotters`.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::panel::{Figure, Histogram, Kind, Labels, Panel, Series};
use crate::{PlotError, Result, roofs};

/// Colours that stay apart for colour-blind readers (Okabe & Ito 2008).
pub(crate) const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub(crate) fn fail(e: impl std::fmt::Display) -> PlotError {
    PlotError::Draw(e.to_string())
}

pub(crate) fn figure(figure: &Figure, columns: usize, rows: usize) -> Result<String> {
    let (width, height) = figure.size;
    let size = (width * columns as u32, height * rows as u32);
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        root.fill(&WHITE).map_err(fail)?;
        let areas = root.split_evenly((rows, columns));
        for (area, panel) in areas.iter().zip(&figure.panels) {
            draw(area, panel)?;
        }
        root.present().map_err(fail)?;
    }
    Ok(text)
}

fn draw(area: &Area<'_>, panel: &Panel) -> Result<()> {
    match &panel.kind {
        Kind::Lines(series) => {
            let points = || series.iter().flat_map(|s| s.points.iter().copied());
            let x = padded(points().map(|p| p.0), 0.0);
            let y = padded(points().map(|p| p.1), 0.06);
            let mut chart = frame(area, &panel.labels)?
                .build_cartesian_2d(x, y)
                .map_err(fail)?;
            mesh(&mut chart, &panel.labels)?;
            for (s, color) in series.iter().zip(COLORS.iter().cycle()) {
                let line = PathElement::new(s.points.clone(), color.stroke_width(2));
                chart
                    .draw_series([line])
                    .map_err(fail)?
                    .label(s.name.as_str())
                    .legend(|(x, y)| {
                        PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2))
                    });
            }
            legend(&mut chart, series)
        }
        Kind::Scatter(series) => {
            let values = series
                .iter()
                .flat_map(|s| &s.points)
                .flat_map(|p| [p.0, p.1]);
            let range = padded(values, 0.04);
            let ends = [range.start, range.end].map(|v| (v, v));
            let mut chart = frame(area, &panel.labels)?
                .build_cartesian_2d(range.clone(), range)
                .map_err(fail)?;
            mesh(&mut chart, &panel.labels)?;
            let identity = PathElement::new(ends, BLACK.mix(0.4));
            chart.draw_series([identity]).map_err(fail)?;
            for (s, color) in series.iter().zip(COLORS.iter().cycle()) {
                let dots = s.points.iter();
                chart
                    .draw_series(dots.map(|&p| Circle::new(p, 2, color.mix(0.7).filled())))
                    .map_err(fail)?
                    .label(s.name.as_str())
                    .legend(|(x, y)| Circle::new((x + 8, y), 3, color.filled()));
            }
            legend(&mut chart, series)
        }
        Kind::Roofs(shown) => roofs::draw(area, &panel.labels, shown),
        Kind::Histogram(histogram) => {
            let end = histogram.start + histogram.width * histogram.counts.len() as f64;
            let top = histogram.counts.iter().max().copied().unwrap_or(1) as f64;
            let mut frame = frame(area, &panel.labels)?;
            let x = histogram.start..end;
            if histogram.log {
                // A bin of one value is visible, an empty one is not.
                let y = (0.5..2.0 * top.max(5.0)).log_scale();
                let mut chart = frame.build_cartesian_2d(x, y).map_err(fail)?;
                mesh(&mut chart, &panel.labels)?;
                let shape = steps(histogram, 0.5);
                chart.draw_series([shape]).map_err(fail)?;
            } else {
                let mut chart = frame.build_cartesian_2d(x, 0.0..1.05 * top).map_err(fail)?;
                mesh(&mut chart, &panel.labels)?;
                chart.draw_series([steps(histogram, 0.0)]).map_err(fail)?;
            }
            Ok(())
        }
    }
}

/// The outline of a histogram in one polygon, which takes far fewer bytes than a bar per bin.
fn steps(histogram: &Histogram, floor: f64) -> Polygon<(f64, f64)> {
    let edge = |i: usize| histogram.start + histogram.width * i as f64;
    let mut points = vec![(edge(0), floor)];
    for (i, &count) in histogram.counts.iter().enumerate() {
        let height = (count as f64).max(floor);
        points.push((edge(i), height));
        points.push((edge(i + 1), height));
    }
    points.push((edge(histogram.counts.len()), floor));
    // Corners between equally high bins say nothing.
    points.dedup();
    let flat = |w: &[(f64, f64)]| matches!(w, [a, b, c] if a.1 == b.1 && b.1 == c.1);
    let inner: Vec<bool> = points.windows(3).map(flat).collect();
    let drop = |i: usize| i > 0 && inner.get(i - 1).copied().unwrap_or(false);
    let kept = points.iter().enumerate().filter(|(i, _)| !drop(*i));
    let kept: Vec<(f64, f64)> = kept.map(|(_, p)| *p).collect();
    Polygon::new(kept, COLORS[0].mix(0.75))
}

/// Space for the axes, and the title.
pub(crate) fn frame<'a, 'b>(
    area: &'a Area<'b>,
    labels: &Labels,
) -> Result<ChartBuilder<'a, 'b, SVGBackend<'b>>> {
    let mut builder = ChartBuilder::on(area);
    builder
        .margin(10)
        .x_label_area_size(if labels.x.is_empty() { 24 } else { 38 })
        .y_label_area_size(if labels.y.is_empty() { 44 } else { 58 });
    if !labels.title.is_empty() {
        builder.caption(&labels.title, ("sans-serif", 15));
    }
    Ok(builder)
}

type Chart<'a, 'b, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, Y>>;

fn mesh<Y>(chart: &mut Chart<'_, '_, Y>, labels: &Labels) -> Result<()>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .x_labels(6)
        .y_labels(6)
        .max_light_lines(0)
        .bold_line_style(BLACK.mix(0.12))
        .label_style(("sans-serif", 11))
        .axis_desc_style(("sans-serif", 12))
        .x_desc(labels.x.as_str())
        .y_desc(labels.y.as_str())
        .x_label_formatter(&|v| number(*v))
        .y_label_formatter(&|v| number(*v))
        .draw()
        .map_err(fail)
}

fn legend<'a, 'b: 'a, Y>(chart: &mut Chart<'a, 'b, Y>, series: &[Series]) -> Result<()>
where
    Y: Ranged<ValueType = f64>,
{
    if series.len() < 2 {
        return Ok(());
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 11))
        .draw()
        .map_err(fail)
}

/// A number in three digits, or as many as it has before the point.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if size < 1e-12 {
        return "0".into();
    }
    if !(1e-4..1e4).contains(&size) {
        return format!("{value:.0e}");
    }
    let decimals = (2.0 - size.log10().floor()).max(0.0) as usize;
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').into(),
        false => text,
    }
}

/// The range of the values, wider by a part of itself on either side; never a point.
fn padded(values: impl Iterator<Item = f64>, part: f64) -> std::ops::Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
        (l.min(v), h.max(v))
    });
    let margin = if high > low {
        part * (high - low)
    } else {
        0.5 * high.abs().max(1.0)
    };
    low - margin..high + margin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_on_axes_are_short_and_apart() {
        for (value, expected) in [
            (0.0, "0"),
            (-1e-17, "0"),
            (0.0015, "0.0015"),
            (0.002, "0.002"),
            (-0.5, "-0.5"),
            (12.5, "12.5"),
            (100.0, "100"),
            (1000.0, "1000"),
            (1e4, "1e4"),
            (5e-5, "5e-5"),
        ] {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn ranges_are_never_points() {
        assert_eq!(padded([1.0, 3.0].into_iter(), 0.5), 0.0..4.0);
        assert_eq!(padded([0.0].into_iter(), 0.1), -0.5..0.5);
        assert_eq!(padded([8.0, 8.0].into_iter(), 0.0), 4.0..12.0);
    }
}
