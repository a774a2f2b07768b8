//! How the demo's outcome is shown.

use std::io::{self, Write};

use super::receiver::{STATUS_ERROR, Span};

/// One row of the table: an exchange and what became of it.
pub struct Row {
    /// The client's name.
    pub client: &'static str,
    /// What the exchange shows.
    pub title: String,
    /// The span that was found for it.
    pub span: Option<Span>,
    /// What is wrong, if anything.
    pub faults: Vec<String>,
}

/// Writes tables, in colour or without.
pub struct Report<W> {
    output: W,
    colour: bool,
}

const HEADINGS: [&str; 8] = ["client", "exchange", "span", "tokens in/out", "first chunk", "total", "status", ""];

impl<W: Write> Report<W> {
    /// Writes to `output`; escape sequences only with `colour`.
    pub fn new(output: W, colour: bool) -> Self {
        Self { output, colour }
    }

    /// The table, and under it what is wrong in detail.
    pub fn table(&mut self, rows: &[Row]) -> io::Result<()> {
        let cells: Vec<[String; 8]> = rows.iter().map(cells).collect();
        let mut widths = HEADINGS.map(|heading| heading.chars().count());
        for row in &cells {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let headings = self.paint("1", &line(&HEADINGS.map(str::to_owned), &widths));
        writeln!(self.output, "{headings}")?;
        for (row, cells) in rows.iter().zip(&cells) {
            let text = line(cells, &widths);
            let colour = if row.faults.is_empty() { "32" } else { "31" };
            let (start, verdict) = text.split_at(text.rfind(cells[7].as_str()).unwrap_or(text.len()));
            let verdict = self.paint(colour, verdict);
            writeln!(self.output, "{start}{verdict}")?;
        }
        for row in rows.iter().filter(|row| !row.faults.is_empty()) {
            let title = self.paint("1", &format!("{}, {}", row.client, row.title));
            writeln!(self.output, "\n{title}")?;
            for fault in &row.faults {
                writeln!(self.output, "  {fault}")?;
            }
        }
        Ok(())
    }

    /// The last line.
    pub fn conclusion(&mut self, right: bool, text: &str) -> io::Result<()> {
        let text = self.paint(if right { "1;32" } else { "1;31" }, text);
        writeln!(self.output, "\n{text}")
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn line(cells: &[String; 8], widths: &[usize; 8]) -> String {
    let padded: Vec<String> = cells
        .iter()
        .zip(widths)
        .enumerate()
        .map(|(column, (cell, &width))| match column {
            3..=5 => format!("{cell:>width$}"),
            7 => cell.clone(),
            _ => format!("{cell:<width$}"),
        })
        .collect();
    padded.join("  ").trim_end().to_owned()
}

fn cells(row: &Row) -> [String; 8] {
    let verdict = if row.faults.is_empty() { "right" } else { "WRONG" }.to_owned();
    let Some(span) = &row.span else {
        let none = "-".to_owned();
        return [
            row.client.to_owned(),
            row.title.clone(),
            none.clone(),
            none.clone(),
            none.clone(),
            none.clone(),
            none,
            "MISSING".to_owned(),
        ];
    };
    let number = |name: &str| span.attributes.get(name).map_or("-".to_owned(), ToString::to_string);
    let text = |name: &str| span.attributes.get(name).and_then(|value| value.as_str()).unwrap_or("ERROR").to_owned();
    let first_chunk = span.attributes.get("gen_ai.response.time_to_first_chunk").and_then(serde_json::Value::as_f64);
    let total = span.end_unix_nano.saturating_sub(span.start_unix_nano);
    let mut status = number("http.response.status_code");
    if span.status == STATUS_ERROR {
        status = format!("{status} {}", text("error.type"));
    }
    [
        row.client.to_owned(),
        row.title.clone(),
        span.name.clone(),
        format!("{}/{}", number("gen_ai.usage.input_tokens"), number("gen_ai.usage.output_tokens")),
        first_chunk.map_or("-".to_owned(), |seconds| format!("{:.1} ms", seconds * 1e3)),
        format!("{}.{} ms", total / 1_000_000, total / 100_000 % 10),
        status,
        verdict,
    ]
}
