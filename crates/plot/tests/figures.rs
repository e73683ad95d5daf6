//! Figures: what they show, that they are the same every time, and what is refused.
#![allow(clippy::unwrap_used)]

use veilformer_plot::{Figure, Histogram, Labels, Named, Panel, PlotError, Roofs, Series};

fn labels(title: &str) -> Labels {
    Labels::new(title, "across", "up")
}

fn lines() -> Panel {
    let wave = |f: fn(f64) -> f64| (0..40).map(|i| (f64::from(i), f(f64::from(i)))).collect();
    Panel::lines(
        labels("two <lines> & more"),
        vec![
            Series::new("sine", wave(|t| (0.3 * t).sin())),
            Series::new("root", wave(f64::sqrt)),
        ],
    )
}

fn histogram(log: bool) -> Panel {
    let counts = (0..30i32)
        .map(|i| 900u64 >> (i - 15).unsigned_abs())
        .collect();
    let histogram = Histogram {
        start: -3.0,
        width: 0.2,
        counts,
        log,
    };
    Panel::histogram(labels("a histogram"), histogram)
}

fn scatter() -> Panel {
    let points = (0..50).map(|i| (f64::from(i), f64::from(i) + (f64::from(i) * 7.1).sin()));
    Panel::scatter(
        labels("a scatter"),
        vec![Series::new("pairs", points.collect())],
    )
}

#[test]
fn every_kind_is_drawn_with_its_texts_and_the_same_every_time() {
    for panel in [lines(), histogram(false), histogram(true), scatter()] {
        let svg = Figure::single(panel.clone()).svg().unwrap();
        assert_eq!(svg, Figure::single(panel).svg().unwrap());
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in ["across", "up"] {
            assert!(svg.contains(text), "{svg}");
        }
        assert!(!svg.contains("NaN") && svg.len() < 20_000, "{}", svg.len());
    }
    let svg = Figure::single(lines()).svg().unwrap();
    assert!(svg.contains("two &lt;lines&gt; &amp; more"));
    assert!(svg.contains("sine") && svg.contains("root"));
}

#[test]
fn a_grid_holds_all_panels() {
    let panels = vec![
        lines(),
        histogram(true),
        scatter(),
        histogram(false),
        lines(),
    ];
    let svg = Figure::grid(panels, 2).svg().unwrap();
    assert!(
        svg.contains("width=\"720\" height=\"780\""),
        "{}",
        &svg[..120]
    );
    assert_eq!(svg.matches("a histogram").count(), 2);
}

#[test]
fn a_single_value_and_a_flat_line_are_drawn() {
    for points in [
        vec![(1.0, 2.0)],
        vec![(0.0, 0.0), (1.0, 0.0)],
        vec![(5.0, 1e-9), (6.0, 1e12)],
    ] {
        let series = vec![Series::new("one", points)];
        Figure::single(Panel::lines(labels("l"), series.clone()))
            .svg()
            .unwrap();
        Figure::single(Panel::scatter(labels("s"), series))
            .svg()
            .unwrap();
    }
}

#[test]
fn what_has_no_place_on_a_chart_is_refused() {
    let one = |points| Panel::lines(labels("l"), vec![Series::new("s", points)]);
    let bins = |start, width, counts| {
        let log = true;
        Panel::histogram(
            labels("h"),
            Histogram {
                start,
                width,
                counts,
                log,
            },
        )
    };
    let empty = |what: &str| PlotError::Empty(what.to_owned());
    let not_finite = |what: &str| PlotError::NotFinite(what.to_owned());
    for (panel, expected) in [
        (one(vec![]), empty("the panel \"l\"")),
        (one(vec![(0.0, f64::NAN)]), not_finite("the panel \"l\"")),
        (
            one(vec![(f64::INFINITY, 0.0)]),
            not_finite("the panel \"l\""),
        ),
        (bins(0.0, 1.0, vec![]), empty("the panel \"h\"")),
        (bins(0.0, 1.0, vec![0, 0]), empty("the panel \"h\"")),
        (bins(0.0, 0.0, vec![1]), not_finite("the panel \"h\"")),
        (bins(f64::NAN, 1.0, vec![1]), not_finite("the panel \"h\"")),
    ] {
        assert_eq!(Figure::single(panel).svg(), Err(expected));
    }
    assert_eq!(Figure::grid(vec![], 3).svg(), Err(empty("the figure")));
    let mut small = Figure::single(lines());
    small.size = (50, 400);
    assert!(matches!(
        small.svg(),
        Err(PlotError::Size { width: 50, .. })
    ));
    small.size = (5000, u32::MAX);
    assert!(matches!(small.svg(), Err(PlotError::Size { .. })));
}

#[test]
fn logarithmic_axes_take_positive_numbers_only() {
    let panel = |at: (f64, f64), roof: (f64, f64)| {
        let name = "p".to_owned();
        let roofs = Roofs {
            roofs: vec![Series::new("r", vec![(1.0, 1.0), roof])],
            points: vec![("g".to_owned(), vec![Named { name, at }])],
        };
        Figure::single(Panel::roofs(labels("roofs"), roofs)).svg()
    };
    let good = (2.0, 0.5);
    assert!(panel(good, good).is_ok());
    let refused = Err(PlotError::NotFinite("the panel \"roofs\"".to_owned()));
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        for bad in [(bad, 1.0), (1.0, bad)] {
            assert_eq!(panel(bad, good), refused, "a point at {bad:?}");
            assert_eq!(panel(good, bad), refused, "a roof at {bad:?}");
        }
    }
}
