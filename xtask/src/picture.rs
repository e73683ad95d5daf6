//! A picture of a terminal: text with ANSI colours as SVG.

use std::fmt::Write;

const FONT_SIZE: f64 = 14.0;
/// Advance of a character, in font sizes: what the common monospaced fonts have.
const ADVANCE: f64 = 0.602;
const LINE: f64 = 1.35 * FONT_SIZE;
const MARGIN: f64 = 16.0;
const BACKGROUND: &str = "#14161b";
const TEXT: &str = "#d6d9e0";
/// Colours of SGR 30..37; 90..97 are shown alike.
const COLOURS: [&str; 8] = [
    "#6b7280", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d6d9e0",
];

#[derive(Clone, Copy, Default, PartialEq)]
struct Style {
    colour: Option<&'static str>,
    bold: bool,
    dim: bool,
}

/// The picture of `shown`.
pub fn svg(shown: &str) -> String {
    let mut style = Style::default();
    let lines: Vec<Vec<(String, Style)>> = shown
        .trim_end()
        .lines()
        .map(|line| spans(line, &mut style))
        .collect();
    let columns = |l: &Vec<(String, Style)>| l.iter().map(|s| s.0.chars().count()).sum::<usize>();
    let widest = lines.iter().map(columns).max().unwrap_or(0).max(40);
    let width = widest as f64 * ADVANCE * FONT_SIZE + 2.0 * MARGIN;
    let height = lines.len() as f64 * LINE + 2.0 * MARGIN;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         width=\"{width:.0}\" height=\"{height:.0}\" font-size=\"{FONT_SIZE}\" \
         font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n"
    );
    for (row, line) in lines.iter().enumerate() {
        let y = MARGIN + row as f64 * LINE + FONT_SIZE;
        let mut column = 0;
        for (text, style) in line {
            let x = MARGIN + column as f64 * ADVANCE * FONT_SIZE;
            column += text.chars().count();
            if text.trim().is_empty() {
                continue;
            }
            let bold = if style.bold {
                " font-weight=\"bold\""
            } else {
                ""
            };
            let dim = if style.dim { " opacity=\"0.6\"" } else { "" };
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{}\"{bold}{dim} xml:space=\"preserve\">{}</text>",
                style.colour.unwrap_or(TEXT),
                escape(text)
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

/// Cuts a line into runs of one style; escape sequences other than colours are dropped, and what
/// a carriage return overwrote is too.
fn spans(line: &str, style: &mut Style) -> Vec<(String, Style)> {
    let line = line.trim_end_matches('\r');
    let line = line.rsplit('\r').next().unwrap_or(line);
    let mut out: Vec<(String, Style)> = Vec::new();
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            let mut code = String::new();
            for c in rest.by_ref().skip(1) {
                if c.is_ascii_alphabetic() {
                    if c == 'm' {
                        apply(&code, style);
                    }
                    break;
                }
                code.push(c);
            }
            continue;
        }
        match out.last_mut() {
            Some(last) if last.1 == *style => last.0.push(c),
            _ => out.push((c.to_string(), *style)),
        }
    }
    out
}

fn apply(code: &str, style: &mut Style) {
    for number in code.split(';').map(|n| n.parse::<usize>().unwrap_or(0)) {
        match number {
            0 => *style = Style::default(),
            1 => style.bold = true,
            2 => style.dim = true,
            22 => (style.bold, style.dim) = (false, false),
            30..=37 => style.colour = COLOURS.get(number - 30).copied(),
            90..=97 => style.colour = COLOURS.get(number - 90).copied(),
            39 => style.colour = None,
            _ => {}
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_coloured() {
        let picture = svg("plain <&>\n\u{1b}[1;32mgreen\u{1b}[0m after\nover\rwritten");
        assert!(picture.contains("plain &lt;&amp;&gt;"));
        assert!(picture.contains("fill=\"#98c379\" font-weight=\"bold\""));
        assert!(picture.contains("> after<"));
        assert!(picture.contains(">written<") && !picture.contains("over<"));
        assert!(!picture.contains('\u{1b}'));
    }
}
