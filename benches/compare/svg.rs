//! What drawings of measurements are made with: SVG, written as text.

use std::fmt::{Arguments, Write as _};

/// Distinguishable with the common kinds of colour blindness (Okabe and Ito).
pub(crate) const COLOURS: [&str; 7] =
    ["#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#000000", "#cc79a7"];

/// A drawing, whose elements are added one after the other.
pub(crate) struct Svg(String);

impl Svg {
    /// An empty one, white, of so many pixels.
    pub(crate) fn new(width: f64, height: f64) -> Self {
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        ))
    }

    /// Adds an element, or the beginning or end of one.
    pub(crate) fn add(&mut self, element: Arguments<'_>) {
        // Writing to a string doesn't fail.
        let _ = writeln!(self.0, "{element}");
    }

    /// A line of a scale; darker if its number is a whole one.
    pub(crate) fn scale_line(&mut self, from: (f64, f64), to: (f64, f64), whole: bool) {
        let colour = if whole { "#bbbbbb" } else { "#eeeeee" };
        self.add(format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
            from.0, from.1, to.0, to.1
        ));
    }

    /// The whole drawing.
    pub(crate) fn finish(self) -> String {
        self.0 + "</svg>\n"
    }
}

/// A number on a scale: 20, 20k, 2M.
pub(crate) fn short(value: f64) -> String {
    if value >= 1e6 {
        format!("{}M", value / 1e6)
    } else if value >= 1e3 {
        format!("{}k", value / 1e3)
    } else {
        format!("{value}")
    }
}

#[cfg(test)]
mod tests {
    use super::{Svg, short};

    #[test]
    fn a_drawing_is_one_element_with_all_that_was_added() {
        let mut svg = Svg::new(20.0, 10.0);
        svg.add(format_args!("<g/>"));
        svg.scale_line((0.0, 0.0), (1.0, 2.0), true);
        let text = svg.finish();
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"), "{text}");
        assert!(text.contains("viewBox=\"0 0 20 10\"") && text.contains("<g/>\n<line x1=\"0.0\""));
    }

    #[test]
    fn numbers_of_a_scale_are_short() {
        assert_eq!([5.0, 20e3, 2e6].map(short), ["5", "20k", "2M"]);
    }
}
