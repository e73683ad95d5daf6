//! The roofline plot of stored results, as SVG and as PNG.

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};
use veilformer_plot::{Figure, Labels, Named, Panel, Roofs, Series};

use crate::error::{BenchError, Result};
use crate::machine::{Machine, Place, Unit};
use crate::results::Results;

/// Pixels of the picture, at least.
const SIZE: (u32, u32) = (1080, 760);
/// Pixels of a line of the legend.
const LINE: u32 = 14;

/// Operations per byte at the ends of the roofs.
const ENDS: (f64, f64) = (0.02, 20.0);

/// The plot of the rows on one thread: x is operations per byte of the farthest place that a row
/// reads or writes, y is operations per time. Operations are those that floors count, butterflies and
/// products alike; the flat roof is that of multiply-accumulates, the slanted ones are the places'.
///
/// # Errors
/// The plot's, if there is no row.
pub fn svg(results: &Results) -> Result<String> {
    let machine = &results.header.machine;
    let mut groups: Vec<(String, Vec<Named>)> = Vec::new();
    for row in results.rows.iter().filter(|r| r.threads == 1) {
        let at = (row.operations / row.bytes, row.operations / row.ms * 1e-6);
        // What only moves has no operations, and no place on the axes.
        if !(at.0.is_finite() && at.0 > 0.0 && at.1 > 0.0) {
            continue;
        }
        let point = Named {
            name: format!("{} ({})", row.op, row.place),
            at,
        };
        match groups.iter_mut().find(|g| g.0 == row.what) {
            Some(group) => group.1.push(point),
            None => groups.push((row.what.clone(), vec![point])),
        }
    }
    // The legend has a line for every point and every group.
    let lines: usize = groups.iter().map(|g| g.1.len() + 1).sum();
    let height = SIZE.1.max(LINE * (lines as u32 + 4));
    let title = format!(
        "{} {}, one thread, {}",
        machine.cpu, machine.isa, results.header.date
    );
    let labels = Labels::new(
        &title,
        "operations per byte of the farthest place",
        "operations per second, in units of 10^9",
    );
    let roofs = Roofs {
        roofs: roofs(machine),
        points: groups,
    };
    let figure = Figure {
        panels: vec![Panel::roofs(labels, roofs)],
        columns: 1,
        size: (SIZE.0, height),
    };
    Ok(figure.svg()?)
}

/// What one thread can do at most, by operations per byte.
fn roofs(machine: &Machine) -> Vec<Series> {
    let cost = machine.costs.get(&Unit::MultiplyAccumulate);
    let peak = 1.0 / cost.copied().unwrap_or(1.0);
    let places = machine.places().into_iter();
    let mut roofs: Vec<Series> = places
        .filter(|(place, _)| *place != Place::L1)
        .map(|(place, b)| {
            let most = b.copy.max(b.read);
            let corner = peak / most;
            let points = vec![(ENDS.0, ENDS.0 * most), (corner, peak)];
            Series::new(&format!("{place}, {most:.0} GB/s"), points)
        })
        .collect();
    let corners = roofs.iter().filter_map(|r| r.points.last()).map(|p| p.0);
    let flat = vec![(corners.fold(ENDS.1, f64::min), peak), (ENDS.1, peak)];
    roofs.push(Series::new("multiply-accumulates", flat));
    roofs
}

/// The picture in pixels, twice as many each way.
///
/// # Errors
/// [`BenchError::Usage`] if the picture cannot be drawn, or no font is installed for its text.
pub fn png(svg: &str) -> Result<Vec<u8>> {
    let fail = |what: String| BenchError::Usage(format!("the picture as PNG: {what}"));
    let mut options = Options::default();
    let fonts = options.fontdb_mut();
    fonts.load_system_fonts();
    let Some(family) = fonts
        .faces()
        .find_map(|f| f.families.first())
        .map(|f| f.0.clone())
    else {
        return Err(fail(
            "no font is installed; install one, such as DejaVu".into(),
        ));
    };
    // Whatever there is stands for what is missing.
    let has = |name: &str| {
        fonts
            .faces()
            .any(|f| f.families.iter().any(|n| n.0 == name))
    };
    let sans = ["DejaVu Sans", "Liberation Sans", "Arial"]
        .into_iter()
        .find(|n| has(n));
    let sans = sans.map_or(family, str::to_owned);
    fonts.set_sans_serif_family(sans);
    let tree = Tree::from_str(svg, &options).map_err(|e| fail(e.to_string()))?;
    let size = tree.size().to_int_size().scale_by(2.0);
    let size = size.ok_or_else(|| fail("it has no size".into()))?;
    let mut pixels =
        Pixmap::new(size.width(), size.height()).ok_or_else(|| fail("it is too large".into()))?;
    resvg::render(&tree, Transform::from_scale(2.0, 2.0), &mut pixels.as_mut());
    pixels.encode_png().map_err(|e| fail(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::round;
    use crate::results::Header;
    use crate::row::tests::sample;

    fn results() -> Results {
        let header = Header {
            date: "1970-01-01".into(),
            time: 0,
            commit: "0".into(),
            dirty: false,
            machine: round(),
        };
        let mut moved = sample();
        moved.op = "permute".into();
        moved.operations = 0.0;
        Results {
            header,
            rows: vec![sample(), moved],
            bootstraps: Vec::new(),
        }
    }

    #[test]
    fn points_and_roofs_are_drawn_and_named() {
        let svg = svg(&results()).unwrap();
        for text in [
            "1  rotate (memory)",
            "memory, 1 GB/s",
            "multiply-accumulates",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(!svg.contains("permute"));
        let mut none = results();
        none.rows.clear();
        assert!(super::svg(&none).is_err());
    }

    #[test]
    fn roofs_end_where_arithmetic_begins_to_count() {
        // One operation per ns; memory moves a byte per ns, the last cache two.
        let roofs = roofs(&round());
        let corner = |name: &str| {
            let roof = roofs.iter().find(|r| r.name.starts_with(name)).unwrap();
            *roof.points.last().unwrap()
        };
        assert_eq!(corner("memory"), (1.0, 1.0));
        let (x, y) = corner("L3");
        assert!(x < 0.5 && y == 1.0);
    }

    #[test]
    fn pictures_have_pixels() {
        // A machine without fonts is told so; with one there is a picture with its signature.
        match png(&svg(&results()).unwrap()) {
            Ok(bytes) => assert_eq!(bytes[..4], [0x89, b'P', b'N', b'G']),
            Err(e) => assert!(e.to_string().contains("font"), "{e}"),
        }
    }
}
