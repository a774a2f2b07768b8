//! Plots as SVG.

use std::fmt::Write as _;

use crate::page::escaped;

/// Points of one line.
pub struct Series {
    /// What it shows.
    pub name: String,
    /// Where it goes, from left to right.
    pub points: Vec<(f64, f64)>,
}

enum Kind {
    Bars(Vec<(String, f64)>),
    Lines { x_unit: String, series: Vec<Series> },
}

/// A plot.
pub struct Chart {
    title: String,
    unit: String,
    kind: Kind,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 50.0;
/// Told apart by those who see few colours as well (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"];

impl Chart {
    /// A bar for each of some figures, from 0.
    pub fn bars(title: &str, unit: &str, bars: impl IntoIterator<Item = (String, f64)>) -> Self {
        Self { title: title.to_owned(), unit: unit.to_owned(), kind: Kind::Bars(bars.into_iter().collect()) }
    }

    /// Lines over an axis that multiplies, as does the other one.
    pub fn lines(title: &str, x_unit: &str, unit: &str, series: impl IntoIterator<Item = Series>) -> Self {
        let kind = Kind::Lines { x_unit: x_unit.to_owned(), series: series.into_iter().collect() };
        Self { title: title.to_owned(), unit: unit.to_owned(), kind }
    }

    /// Its title.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The plot, complete in itself.
    pub fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"13\"><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\
             <text x=\"{LEFT}\" y=\"22\" font-size=\"16\">{} ({})</text>",
            escaped(&self.title),
            escaped(&self.unit)
        );
        // Writing to a string can't fail.
        let _ = match &self.kind {
            Kind::Bars(bars) => draw_bars(&mut svg, bars),
            Kind::Lines { x_unit, series } => draw_lines(&mut svg, x_unit, series),
        };
        svg.push_str("</svg>\n");
        svg
    }
}

fn draw_bars(svg: &mut String, bars: &[(String, f64)]) -> std::fmt::Result {
    let highest =
        bars.iter().map(|(_, value)| *value).filter(|value| value.is_finite()).fold(f64::MIN_POSITIVE, f64::max);
    let step = (WIDTH - LEFT - RIGHT) / bars.len().max(1) as f64;
    for (index, (name, value)) in bars.iter().enumerate() {
        let value = if value.is_finite() { *value } else { 0.0 };
        let height = (HEIGHT - TOP - BOTTOM) * value / highest;
        let (x, y) = (LEFT + step * index as f64, HEIGHT - BOTTOM - height);
        let (middle, colour) = (x + step * 0.4, COLOURS[index % COLOURS.len()]);
        write!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>\
             <text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value:.0}</text>\
             <text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            step * 0.8,
            y - 5.0,
            HEIGHT - BOTTOM + 20.0,
            escaped(name)
        )?;
    }
    Ok(())
}

fn draw_lines(svg: &mut String, x_unit: &str, series: &[Series]) -> std::fmt::Result {
    let points = || series.iter().flat_map(|series| &series.points).filter(|(x, y)| *x > 0.0 && *y > 0.0);
    let range = |of: fn(&(f64, f64)) -> f64| {
        let logarithms = points().map(|point| of(point).log10());
        let (low, high) = logarithms.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        if low <= high { (low.floor(), high.ceil().max(low.floor() + 1.0)) } else { (0.0, 1.0) }
    };
    let (xs, ys) = (range(|point| point.0), range(|point| point.1));
    let x_of = |x: f64| LEFT + (WIDTH - LEFT - RIGHT) * (x.log10() - xs.0) / (xs.1 - xs.0);
    let y_of = |y: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y.log10() - ys.0) / (ys.1 - ys.0);
    for exponent in ys.0 as i32..=ys.1 as i32 {
        let (value, y) = (10f64.powi(exponent), y_of(10f64.powi(exponent)));
        write!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0
        )?;
    }
    for exponent in xs.0 as i32..=xs.1 as i32 {
        let x = x_of(10f64.powi(exponent));
        let y = HEIGHT - BOTTOM + 18.0;
        write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{}</text>", 10f64.powi(exponent))?;
    }
    let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
    write!(svg, "<text x=\"{middle}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>", HEIGHT - 12.0, escaped(x_unit))?;
    for (index, Series { name, points }) in series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        write!(svg, "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"")?;
        for (x, y) in points.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0) {
            write!(svg, "{:.1},{:.1} ", x_of(*x), y_of(*y))?;
        }
        let (x, y) = (LEFT + 150.0 * index as f64, 46.0);
        write!(
            svg,
            "\"/><line x1=\"{x}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"3\"/>\
             <text x=\"{}\" y=\"{}\">{}</text>",
            x + 18.0,
            x + 24.0,
            y + 4.0,
            escaped(name)
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_nonsense_can_be_drawn() {
        let none = Chart::lines("a < b", "bytes", "ns", []).svg();
        assert!(none.contains("a &lt; b") && none.ends_with("</svg>\n"));
        let odd = [Series { name: "x".into(), points: vec![(0.0, f64::NAN), (10.0, 100.0)] }];
        assert!(!Chart::lines("", "", "", odd).svg().contains("NaN"));
        assert!(!Chart::bars("", "", [("x".to_owned(), f64::NAN)]).svg().contains("NaN"));
    }
}
