//! A page of text, tables and plots that needs nothing but itself.

use std::{fs, io, path::Path};

use crate::svg::Chart;

enum Part {
    Text(String),
    Preformatted(String),
    Chart(String, Chart),
}

/// The page.
pub struct Page {
    title: String,
    parts: Vec<Part>,
}

impl Page {
    /// A page with a title only.
    pub fn new(title: &str) -> Self {
        Self { title: title.to_owned(), parts: vec![] }
    }

    /// Adds a paragraph.
    pub fn text(&mut self, text: &str) {
        self.parts.push(Part::Text(text.to_owned()));
    }

    /// Adds a table that is made of spaces.
    pub fn preformatted(&mut self, text: &str) {
        self.parts.push(Part::Preformatted(text.to_owned()));
    }

    /// Adds a plot; `name` is that of its file.
    pub fn chart(&mut self, name: &str, chart: Chart) {
        self.parts.push(Part::Chart(name.to_owned(), chart));
    }

    /// The page as one HTML file.
    pub fn html(&self) -> String {
        let style = "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222;background:#fff}\
                     pre{overflow-x:auto;background:#f4f4f4;padding:1em}svg{max-width:100%;height:auto}";
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{0}</title><style>{style}</style>\n<h1>{0}</h1>\n",
            escaped(&self.title)
        );
        for part in &self.parts {
            html.push_str(&match part {
                Part::Text(text) => format!("<p>{}</p>\n", escaped(text)),
                Part::Preformatted(text) => format!("<pre>{}</pre>\n", escaped(text)),
                Part::Chart(_, chart) => chart.svg(),
            });
        }
        html
    }

    /// The page as Markdown in `folder`, with the plots as files beside it.
    pub fn write(&self, folder: &Path, name: &str) -> io::Result<()> {
        let mut text = format!("# {}\n", self.title);
        for part in &self.parts {
            text.push_str(&match part {
                Part::Text(words) => format!("\n{words}\n"),
                Part::Preformatted(table) => format!("\n```\n{}\n```\n", table.trim_end()),
                Part::Chart(chart_name, chart) => {
                    let file = format!("{name}-{chart_name}.svg");
                    fs::write(folder.join(&file), chart.svg())?;
                    format!("\n![{}]({file})\n", chart.title())
                }
            });
        }
        fs::write(folder.join(format!("{name}.md")), text)
    }
}

/// Text as HTML and SVG have it.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
