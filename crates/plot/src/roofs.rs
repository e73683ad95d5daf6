//! Points under roofs, on logarithmic axes, with a list of their names beside the chart.

use plotters::prelude::*;

use crate::Result;
use crate::draw::{Area, COLORS, fail, frame, number};
use crate::panel::{Labels, Roofs};

/// Pixels of a line of the list.
const LINE: i32 = 14;
/// Share of the width that the chart has.
const CHART: f64 = 0.74;

pub(crate) fn draw(area: &Area<'_>, labels: &Labels, shown: &Roofs) -> Result<()> {
    let (width, _) = area.dim_in_pixel();
    let (left, right) = area.split_horizontally((f64::from(width) * CHART) as i32);
    let points = || {
        let groups = shown.points.iter().zip(COLORS.iter().cycle());
        groups.flat_map(|((_, points), color)| points.iter().map(move |p| (p, *color)))
    };
    let lines = shown.roofs.iter().flat_map(|s| s.points.iter().copied());
    let all = points().map(|(p, _)| p.at).chain(lines);
    let (x, y) = all.fold(
        ([f64::INFINITY, 0.0], [f64::INFINITY, 0.0]),
        |(x, y): ([f64; 2], [f64; 2]), p| {
            (
                [x[0].min(p.0), x[1].max(p.0)],
                [y[0].min(p.1), y[1].max(p.1)],
            )
        },
    );
    let mut chart = frame(&left, labels)?
        .build_cartesian_2d(
            (x[0] / 1.3..x[1] * 1.3).log_scale(),
            (y[0] / 1.5..y[1] * 1.5).log_scale(),
        )
        .map_err(fail)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .bold_line_style(BLACK.mix(0.12))
        .label_style(("sans-serif", 11))
        .axis_desc_style(("sans-serif", 12))
        .x_desc(labels.x.as_str())
        .y_desc(labels.y.as_str())
        .x_label_formatter(&|v| number(*v))
        .y_label_formatter(&|v| number(*v))
        .draw()
        .map_err(fail)?;
    for roof in &shown.roofs {
        let line = PathElement::new(roof.points.clone(), BLACK.mix(0.55).stroke_width(1));
        chart.draw_series([line]).map_err(fail)?;
        // Its name where it begins.
        if let Some(&at) = roof.points.first() {
            let name =
                EmptyElement::at(at) + Text::new(roof.name.clone(), (4, -14), ("sans-serif", 11));
            chart.draw_series([name]).map_err(fail)?;
        }
    }
    for (i, (point, color)) in points().enumerate() {
        let style = ("sans-serif", 10).into_font().color(&color);
        let mark = EmptyElement::at(point.at)
            + Circle::new((0, 0), 3, color.filled())
            + Text::new((i + 1).to_string(), (5, -5), style);
        chart.draw_series([mark]).map_err(fail)?;
    }
    let mut y = 24;
    let mut number = 0;
    for ((group, points), color) in shown.points.iter().zip(COLORS.iter().cycle()) {
        let title = ("sans-serif", 12).into_font().color(color);
        right
            .draw(&Text::new(group.as_str(), (4, y), title))
            .map_err(fail)?;
        y += LINE + 3;
        for point in points {
            number += 1;
            let text = format!("{number}  {}", point.name);
            right
                .draw(&Text::new(text, (4, y), ("sans-serif", 11)))
                .map_err(fail)?;
            y += LINE;
        }
    }
    Ok(())
}
