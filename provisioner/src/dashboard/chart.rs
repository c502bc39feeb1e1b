//! Counts over time, as SVG. Its colours are placeholders: the page's style sheet replaces each one with its value in
//! the light or dark scheme. The only external data in the SVG are numbers and times.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::view::Chart;
use crate::counts::Quantity;
use crate::counts::period::{Extent, Period};
use crate::text::grouped;

/// The number of series with a colour of their own.
pub(crate) const COLOURS: usize = 8;
/// The placeholder of each series' colour, as in style.css; the last one is for all other series.
const SERIES: [RGBColor; COLOURS + 1] = [
    RGBColor(0x25, 0x63, 0xEB),
    RGBColor(0xD9, 0x77, 0x06),
    RGBColor(0x05, 0x96, 0x69),
    RGBColor(0xDB, 0x27, 0x77),
    RGBColor(0x7C, 0x3A, 0xED),
    RGBColor(0x08, 0x91, 0xB2),
    RGBColor(0x65, 0xA3, 0x0D),
    RGBColor(0xDC, 0x26, 0x26),
    RGBColor(0x6B, 0x72, 0x80),
];
const GRID: RGBColor = RGBColor(0xE5, 0xE7, 0xEB);
const TEXT: RGBColor = RGBColor(0x52, 0x52, 0x5B);

/// The size of a drawing and of its letters, in units of the SVG. A pixel of the screen is two units, because plotters
/// has integer coordinates only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Width and height.
    pub(crate) area: (u32, u32),
    /// The height of letters.
    pub(crate) letters: u32,
    /// The maximum number of labels below the chart.
    pub(crate) labels: usize,
}

/// The size for a desktop.
pub(crate) const WIDE: Size = Size { area: (1880, 640), letters: 24, labels: 9 };
/// The size for a phone.
pub(crate) const NARROW: Size = Size { area: (760, 640), letters: 30, labels: 3 };

/// The height of the labels below the chart, and the margin at its top and right.
const BELOW: u32 = 64;
const EDGE: u32 = 24;

/// One line or one layer of bars.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drawn<'a> {
    /// The index of its colour; [`COLOURS`] is the colour of all other series.
    pub(crate) colour: usize,
    /// The counts by part.
    pub(crate) parts: &'a [Quantity],
    /// True for the counts of the previous period: a thin dashed line, also in a chart of bars.
    pub(crate) is_previous: bool,
}

/// The opacity of the bar of an unfinished part.
const UNFINISHED: f64 = 0.45;
/// The maximum number of steps of the y axis, and its lowest top.
const STEPS: f64 = 5.0;
const LOWEST_TOP: f64 = 4.0;

/// Returns the labels of the y axis: from 0, in equal steps of 1, 2 or 5 times a power of ten, up to the highest count
/// or above.
fn y_labels(highest: f64) -> Vec<f64> {
    let highest = highest.max(LOWEST_TOP);
    let power = 10_f64.powf((highest / STEPS).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| step * STEPS >= highest);
    let step = step.unwrap_or(10.0 * power);
    let mut labels = vec![0.0];
    while let Some(last) = labels.last().copied().filter(|last| *last < highest) {
        labels.push(last + step);
    }
    labels
}

/// A drawing and the positions of its first and last part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Drawing {
    /// The SVG element.
    pub(crate) svg: String,
    /// The position of the first part, in thousandths of the width.
    pub(crate) left: u32,
    /// The position of the last part, in thousandths of the width.
    pub(crate) right: u32,
}

fn colour(n: usize) -> RGBColor {
    SERIES.get(n).copied().unwrap_or(SERIES[COLOURS])
}

/// Abbreviates a number: 950, 12k, 3.4M.
fn short(value: f64) -> String {
    let (divisor, unit) = match value.abs() {
        v if v >= 1e9 => (1e9, "G"),
        v if v >= 1e6 => (1e6, "M"),
        v if v >= 1e4 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let scaled = format!("{:.1}", value / divisor);
    let plain = scaled.strip_suffix(".0").unwrap_or(&scaled);
    if divisor == 1.0 { plain.parse().map_or_else(|_| plain.to_owned(), grouped) } else { format!("{plain}{unit}") }
}

/// Draws the series of a period.
///
/// # Errors
/// The error of plotters, which does not fail when it draws into memory.
pub(crate) fn draw(series: &[Drawn<'_>], period: &Period, chart: Chart, size: Size) -> Result<Drawing, String> {
    let mut svg = String::new();
    let edges = plot(&mut svg, series, period, chart, size).map_err(|error| error.to_string())?;
    let share = |x: i32| u32::try_from(i64::from(x) * 1000 / i64::from(size.area.0).max(1)).unwrap_or(0);
    Ok(Drawing { svg, left: share(edges.0), right: share(edges.1) })
}

/// Draws into `svg` and returns the positions of the first and the last part.
fn plot(
    svg: &mut String,
    series: &[Drawn<'_>],
    period: &Period,
    chart: Chart,
    size: Size,
) -> Result<(i32, i32), Box<dyn std::error::Error>> {
    let length = period.len();
    let parts = i32::try_from(length)?;
    let stacked = chart == Chart::Bars;
    let sum = |part: usize| -> Quantity {
        let layers = series.iter().filter(|drawn| !drawn.is_previous);
        layers.filter_map(|drawn| drawn.parts.get(part)).copied().sum()
    };
    let highest = series.iter().flat_map(|drawn| drawn.parts).copied().max().unwrap_or_default();
    let highest = if stacked { (0..length).map(sum).max().unwrap_or_default().max(highest) } else { highest };
    let labels = y_labels(highest.approximate());
    let top = labels.last().copied().unwrap_or(1.0);
    let root = SVGBackend::with_string(svg, size.area).into_drawing_area();
    let widest = labels.iter().map(|label| short(*label).len()).max().unwrap_or(1);
    let beside = u32::try_from(widest)? * size.letters * 5 / 8 + 28;
    // Half a part of margin on either side, so that bars and single points fit.
    let mut chart = ChartBuilder::on(&root)
        .margin_top(EDGE)
        .margin_right(EDGE)
        .x_label_area_size(BELOW)
        .y_label_area_size(beside)
        .build_cartesian_2d(-0.5..f64::from(parts) - 0.5, 0.0..top)?;
    let letters = ("sans-serif", size.letters).into_font().color(&TEXT);
    let pixels = chart.plotting_area().get_pixel_range();
    let beside_axis = letters.pos(Pos::new(HPos::Right, VPos::Center));
    for label in labels {
        let y = pixels.1.end - rounded(label / top * f64::from(pixels.1.end - pixels.1.start));
        let line = vec![(pixels.0.start, y), (pixels.0.end, y)];
        root.draw(&PathElement::new(line, GRID.stroke_width(2)))?;
        root.draw(&Text::new(short(label), (pixels.0.start - 12, y), beside_axis.clone()))?;
    }
    // The labels below are drawn here, at the start of parts and as many as fit.
    let step = length.div_ceil(size.labels.max(1)).max(1);
    let width = f64::from(pixels.0.end - pixels.0.start) / f64::from(parts.max(1));
    let at = |part: f64| pixels.0.start + rounded((part + 0.5) * width);
    let centred = letters.pos(Pos::new(HPos::Center, VPos::Top));
    for part in (0..length).step_by(step) {
        let text = period.tick(part);
        let x = at(f64::from(i32::try_from(part)?));
        // The first and the last label must not be cut off.
        let half = i32::try_from(text.chars().count())? * i32::try_from(size.letters)? * 3 / 10;
        let x = x.clamp(half, i32::try_from(size.area.0)? - half);
        root.draw(&Text::new(text, (x, pixels.1.end + 16), centred.clone()))?;
    }
    if stacked {
        let mut floors = vec![Quantity::default(); length];
        let narrow = if width > 6.0 { 0.4 } else { 0.5 };
        for drawn in series.iter().filter(|drawn| !drawn.is_previous) {
            let layer = drawn.parts.iter().zip(&mut floors).enumerate().filter_map(|(part, (count, floor))| {
                let (low, x) = (*floor, f64::from(i32::try_from(part).ok()?));
                *floor = floor.plus(*count);
                let corners = [(x - narrow, low.approximate()), (x + narrow, floor.approximate())];
                let opacity = if period.extent(part) == Extent::SoFar { UNFINISHED } else { 1.0 };
                (!count.is_zero()).then(|| Rectangle::new(corners, colour(drawn.colour).mix(opacity).filled()))
            });
            chart.draw_series(layer.collect::<Vec<_>>())?;
        }
    }
    // A part that has not begun has no point, and the line to an unfinished one is dashed.
    let begun = (0..length).take_while(|part| period.extent(*part) != Extent::Future).count();
    let finished = (0..begun).take_while(|part| period.extent(*part) != Extent::SoFar).count();
    let points = |parts: &[Quantity], range: std::ops::Range<usize>| -> Vec<(f64, f64)> {
        let point = |part: usize| Some((f64::from(i32::try_from(part).ok()?), parts.get(part)?.approximate()));
        range.filter_map(point).collect()
    };
    for drawn in series.iter().filter(|drawn| drawn.is_previous || !stacked) {
        let colour = colour(drawn.colour);
        if drawn.is_previous {
            let all = points(drawn.parts, 0..length);
            chart.draw_series(DashedLineSeries::new(all, 10, 8, colour.stroke_width(3)))?;
            continue;
        }
        let unfinished = points(drawn.parts, finished.saturating_sub(1)..begun);
        if finished < begun {
            chart.draw_series(DashedLineSeries::new(unfinished.clone(), 6, 10, colour.stroke_width(5)))?;
        }
        // Dots mark the points of a short line; a single point has no line at all.
        let dots = if length <= 40 { 7 } else { 0 };
        chart.draw_series(
            LineSeries::new(points(drawn.parts, 0..finished), colour.stroke_width(5).filled()).point_size(dots),
        )?;
        // The point of an unfinished part is a ring.
        let ring = unfinished.last().copied().filter(|_| finished < begun);
        chart.draw_series(ring.map(|point| Circle::new(point, dots.max(5), colour.stroke_width(3))))?;
    }
    root.present()?;
    let edges = (at(0.0), at(f64::from(parts - 1)));
    drop(chart);
    Ok(edges)
}

#[expect(clippy::cast_possible_truncation, reason = "pixels are few")]
fn rounded(pixels: f64) -> i32 {
    pixels.round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::view::View;

    fn drawing(parts: &[&[i64]], chart: Chart) -> Drawing {
        let period = View::of("from=2015-08-01&to=2015-08-04").period().expect("a period");
        let parts: Vec<Vec<Quantity>> =
            parts.iter().map(|parts| parts.iter().copied().map(Quantity::from).collect()).collect();
        let series: Vec<Drawn<'_>> =
            parts.iter().enumerate().map(|(colour, parts)| Drawn { colour, parts, is_previous: false }).collect();
        draw(&series, &period, chart, WIDE).expect("a drawing")
    }

    #[test]
    fn large_numbers_are_abbreviated() {
        assert_eq!([0.0, 950.0, 1234.0, 12_345.0, 3_400_000.0].map(short), ["0", "950", "1,234", "12.3k", "3.4M"]);
    }

    #[test]
    fn y_axis_ends_above_the_data_in_readable_steps() {
        for (highest, labels) in [
            (0, vec!["0", "1", "2", "3", "4"]),
            (5, vec!["0", "1", "2", "3", "4", "5"]),
            (950, vec!["0", "200", "400", "600", "800", "1,000"]),
            (12_345, vec!["0", "5,000", "10k", "15k"]),
            (4_000_001, vec!["0", "1M", "2M", "3M", "4M", "5M"]),
        ] {
            assert_eq!(y_labels(f64::from(highest)).into_iter().map(short).collect::<Vec<_>>(), labels, "{highest}");
        }
        for highest in (0..1_000_000).step_by(997).map(f64::from).chain([1e37, -3.0]) {
            let labels = y_labels(highest);
            let texts: std::collections::BTreeSet<String> = labels.iter().map(|label| short(*label)).collect();
            assert!(labels.last().is_some_and(|top| *top >= highest), "{highest}: {labels:?}");
            assert!((3..=6).contains(&labels.len()) && texts.len() == labels.len(), "{highest}: {labels:?}");
        }
    }

    #[test]
    fn unfinished_part_is_dashed_and_a_future_one_is_not_drawn() {
        let now = jiff::Timestamp::now().to_zoned_datetime(jiff::tz::TimeZone::UTC).date();
        let day = |n: i64| now.checked_add(jiff::Span::new().days(n)).expect("a date");
        let draw = |from: i64, to: i64, chart| {
            let query = format!("from={}&to={}&by=day", day(from), day(to));
            let period = View::of(&query).period().expect("a period");
            let parts: Vec<Quantity> = (1..=period.len()).map(|n| i64::try_from(n).expect("a number").into()).collect();
            super::draw(&[Drawn { colour: 0, parts: &parts, is_previous: false }], &period, chart, WIDE)
                .expect("a drawing")
                .svg
        };
        let lines = |svg: &str| svg.matches("<polyline").count();
        let (past, current, future) = (draw(-4, 0, Chart::Lines), draw(-3, 1, Chart::Lines), draw(-3, 3, Chart::Lines));
        assert_eq!(past.matches("<circle").count(), 4);
        assert!(lines(&current) > lines(&past) + 3, "no dashes");
        assert_eq!(future.matches("<circle").count(), 4, "a future part has a point");
        assert!(draw(-3, 1, Chart::Bars).contains("opacity=\"0.45\""));
        assert!(!draw(-4, 0, Chart::Bars).contains("opacity=\"0.45\""));
    }

    #[test]
    fn stacked_bars_omit_empty_layers() {
        let svg = drawing(&[&[1, 2, 3], &[3, 0, 1]], Chart::Bars).svg;
        assert_eq!(svg.matches("fill=\"#2563EB\"").count(), 3);
        assert_eq!(svg.matches("fill=\"#D97706\"").count(), 2, "a bar is drawn for a count of zero");
    }

    #[test]
    fn extreme_counts_are_drawn() {
        for parts in [[0, 0, 0], [i64::MAX, 0, i64::MAX], [-3, 1, 0]] {
            for chart in [Chart::Lines, Chart::Bars] {
                let drawing = drawing(&[&parts, &parts], chart);
                assert!(drawing.svg.ends_with("</svg>\n") && drawing.left < drawing.right, "{parts:?}");
            }
        }
        assert!(drawing(&[], Chart::Lines).svg.contains("Aug"));
    }
}
