//! One exchange as a line for a person.

use std::fmt::{self, Display, Write as _};

use crate::exchange::Exchange;

const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const CYAN: &str = "\x1b[36m";
const RESET: &str = "\x1b[0m";

/// Appends the line to `out`. `text` is scratch space.
pub(super) fn line(exchange: &Exchange, colour: bool, out: &mut Vec<u8>, text: &mut String) {
    let mut line = Line { out, text, colour };
    exchange.call.with(|call| {
        let process = exchange.process.executable.as_deref().unwrap_or("?");
        line.column(DIM, Align::Left(13), format_args!("{}", TimeOfDay(exchange.start_unix_nano)));
        line.column("", Align::Left(22), format_args!("{process}[{}]", exchange.process.pid));
        line.column(CYAN, Align::Left(16), format_args!("{}", call.provider));
        match call.response_model.or(call.request_model) {
            Some(model) => line.column(BOLD, Align::Left(38), format_args!("{} {model}", call.operation)),
            None => line.column(BOLD, Align::Left(38), format_args!("{}", call.operation)),
        }
        line.column("", Align::Right(8), format_args!("{}", OrDash(call.input_tokens)));
        line.column(DIM, Align::Left(2), format_args!("in"));
        line.column("", Align::Right(7), format_args!("{}", OrDash(call.output_tokens)));
        line.column(DIM, Align::Left(3), format_args!("out"));
        line.column("", Align::Right(8), format_args!("{}", OrDash(exchange.first_chunk_nano.map(Seconds))));
        line.column(DIM, Align::Left(5), format_args!("first"));
        line.column("", Align::Right(8), format_args!("{}", Seconds(exchange.duration_nano())));
        let status = OrDash(call.status_code);
        match call.error_type {
            Some(error) => line.column(RED, Align::Left(0), format_args!("{status} {error}")),
            None => line.column(GREEN, Align::Left(0), format_args!("{status}")),
        }
    });
    if exchange.incomplete || exchange.lost_bytes > 0 {
        line.column(YELLOW, Align::Left(0), format_args!("incomplete"));
    }
    while out.last() == Some(&b' ') {
        out.pop();
    }
}

#[derive(Clone, Copy)]
enum Align {
    Left(usize),
    Right(usize),
}

struct Line<'a> {
    out: &'a mut Vec<u8>,
    text: &'a mut String,
    colour: bool,
}

impl Line<'_> {
    /// One column and the two spaces after it. Longer text pushes the rest of the line on.
    fn column(&mut self, colour: &str, align: Align, content: fmt::Arguments<'_>) {
        self.text.clear();
        self.text.write_fmt(content).expect("a String takes everything");
        // What the wire says must not steer the terminal.
        let printable = |letter: char| if letter.is_control() || is_bidi(letter) { '\u{fffd}' } else { letter };
        let width = self.text.chars().count();
        let (before, after) = match align {
            Align::Left(wanted) => (0, wanted.saturating_sub(width)),
            Align::Right(wanted) => (wanted.saturating_sub(width), 0),
        };
        let colour = if self.colour { colour } else { "" };
        let reset = if colour.is_empty() { "" } else { RESET };
        pad(self.out, before);
        self.out.extend_from_slice(colour.as_bytes());
        let mut utf8 = [0; 4];
        for letter in self.text.chars().map(printable) {
            self.out.extend_from_slice(letter.encode_utf8(&mut utf8).as_bytes());
        }
        self.out.extend_from_slice(reset.as_bytes());
        pad(self.out, after + 2);
    }
}

fn pad(out: &mut Vec<u8>, count: usize) {
    out.resize(out.len() + count, b' ');
}

/// Characters that reorder the text around them (Unicode UAX #9).
fn is_bidi(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A value or, where there is none, a dash.
struct OrDash<T>(Option<T>);

impl<T: Display> Display for OrDash<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(out),
            None => out.write_str("-"),
        }
    }
}

/// The time of day in UTC of nanoseconds since the Unix epoch.
struct TimeOfDay(u64);

impl Display for TimeOfDay {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0 / 1_000_000;
        let (seconds, millis) = (millis / 1000 % 86_400, millis % 1000);
        write!(out, "{:02}:{:02}:{:02}.{millis:03}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }
}

/// Nanoseconds as seconds with two decimals.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.2}s", self.0 as f64 / 1e9)
    }
}
