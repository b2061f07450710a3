//! The report: one HTML file with a picture of who held which addresses when, faults and moves as time
//! goes on, latencies, and a table.
//!
//! The charts are SVG, drawn here. The picture is too fine for that: its cells are in the file as
//! base64, and a few lines of script draw them on a canvas. Nothing is loaded from elsewhere.

use std::fmt;
use std::io::{self, Write};

use serde_json::json;
use uhmm::Latency;

use super::bars::{Counts, Series};
use super::picture::Picture;
use super::{latencies, recorded::Recorded};

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// Colours that the style has for devices and series; more of either repeat them.
const COLOURS: usize = 8;

/// What a report says of the run besides what was recorded.
pub struct Facts<'a> {
    /// What ran.
    pub title: &'a str,
    /// Whether its result is right.
    pub verdict: &'a str,
    /// What is known of it: names and values.
    pub rows: &'a [(&'static str, String)],
    /// All counters of the core.
    pub counters: &'a [(&'static str, u64)],
}

impl Recorded {
    /// Writes one HTML file that needs nothing else.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write_report(&self, facts: &Facts<'_>, out: &mut dyn Write) -> io::Result<()> {
        write(self, facts, out)
    }
}

/// Writes the report.
fn write(recorded: &Recorded, facts: &Facts<'_>, out: &mut dyn Write) -> io::Result<()> {
    let title = Escaped(facts.title);
    writeln!(out, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">")?;
    writeln!(out, "<meta name=\"viewport\" content=\"width=device-width\">")?;
    writeln!(out, "<title>uhmm: {title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>")?;
    writeln!(out, "<h1>{title}</h1>\n<p>{}</p>", Escaped(facts.verdict))?;
    if recorded.lost > 0 {
        writeln!(
            out,
            "<p class=\"lost\">{} events are missing here: there was room for {}. What is shown \
             ends where they begin.</p>",
            recorded.lost,
            recorded.events.len()
        )?;
    }
    picture(recorded, out)?;
    writeln!(out, "<h2>Faults</h2>")?;
    stacked(&Counts::of_faults(recorded), "faults a second", out)?;
    writeln!(out, "<h2>Pages that moved</h2>")?;
    stacked(&Counts::of_moves(recorded), "pages a second", out)?;
    writeln!(out, "<h2>Latencies</h2>\n<div class=\"side-by-side\">")?;
    for latency in Latency::ALL {
        histogram(recorded, latency, out)?;
    }
    writeln!(out, "</div>\n<h2>Figures</h2>\n<div class=\"side-by-side\">")?;
    table("the run", facts.rows, out)?;
    let counted: Vec<_> = facts
        .counters
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|&(name, count)| (name.replace('_', " "), count.to_string()))
        .collect();
    table("counters", &counted, out)?;
    writeln!(out, "</div>\n<script>\n{SCRIPT}</script>\n</body>\n</html>")
}

fn picture(recorded: &Recorded, out: &mut dyn Write) -> io::Result<()> {
    let picture = Picture::of(recorded);
    let (start, end) = recorded.span();
    writeln!(out, "<h2>Who held which addresses</h2>")?;
    if picture.rows == 0 {
        return writeln!(out, "<p>No page moved.</p>");
    }
    writeln!(out, "<p class=\"legend\"><span class=\"key c-none\"></span> system memory")?;
    for &(number, _) in &picture.devices {
        writeln!(out, " <span class=\"key c{}\"></span> device {number}", number % COLOURS)?;
    }
    writeln!(
        out,
        "</p>\n<p>Addresses go from top to bottom, time from left to right. Only pages \
             that moved are shown; a line is where addresses are left out. The stronger the \
             colour, the more of the pages the device held.</p>"
    )?;
    writeln!(
        out,
        "<div id=\"picture\"><canvas width=\"{}\" height=\"{}\" role=\"img\" aria-label=\"addresses \
         by time\"></canvas><div id=\"axis\"></div><p id=\"told\">Point at the picture.</p></div>\n\
         <noscript><p>The picture needs the script in this file to be allowed.</p></noscript>",
        picture.columns, picture.rows
    )?;
    let devices: Vec<_> = picture
        .devices
        .iter()
        .map(|(number, cells)| json!({ "number": number, "cells": base64(cells) }))
        .collect();
    let addresses: Vec<_> = picture
        .first_pages
        .iter()
        .map(|&page| format!("{:x}", recorded.address_of(page)))
        .collect();
    let data = json!({
        "columns": picture.columns,
        "rows": picture.rows,
        "rowBytes": recorded.page.bytes_in(picture.pages_a_row),
        "nanoseconds": end - start,
        "addresses": addresses,
        "devices": devices,
    });
    writeln!(out, "<script type=\"application/json\" id=\"data\">{data}</script>")
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 22.0;
const TOP: f64 = 8.0;

/// Bars over time, those of one time on top of each other.
#[expect(clippy::cast_precision_loss, reason = "what is drawn need not be exact")]
fn stacked(counts: &Counts, unit: &str, out: &mut dyn Write) -> io::Result<()> {
    if counts.series.is_empty() {
        return writeln!(out, "<p>None.</p>");
    }
    let bins = counts.series.iter().map(|series| series.counts.len()).max().unwrap_or(1);
    let a_second = 1e9 / counts.part as f64;
    let sum = |bin: usize| counts.series.iter().map(|series| series.counts[bin]).sum::<u64>();
    let most = (0..bins).map(sum).max().unwrap_or(0).max(1) as f64 * a_second;
    let top = round_up(most);
    let (plot, base) = (WIDTH - LEFT, HEIGHT - BOTTOM);
    writeln!(out, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{unit}\">")?;
    for part in 0..=2 {
        let value = top * f64::from(part) / 2.0;
        let y = base - (base - TOP) * f64::from(part) / 2.0;
        writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            Short(value)
        )?;
    }
    let width = plot / bins as f64;
    for bin in 0..bins {
        let mut y = base;
        for (number, series) in counts.series.iter().enumerate() {
            let value = series.counts[bin];
            if value == 0 {
                continue;
            }
            let height = (base - TOP) * (value as f64 * a_second / top);
            y -= height;
            writeln!(
                out,
                "<rect class=\"c{}\" x=\"{:.2}\" y=\"{y:.2}\" width=\"{:.2}\" \
                 height=\"{height:.2}\"><title>{}: {} {unit}</title></rect>",
                number % COLOURS,
                LEFT + width * bin as f64,
                (width - 0.5).max(0.5),
                Escaped(&series.name),
                Short(value as f64 * a_second)
            )?;
        }
    }
    let seconds = counts.part as f64 * bins as f64 / 1e9;
    for (part, anchor) in (0..).zip(["start", "middle", "middle", "middle", "end"]) {
        let x = LEFT + plot * f64::from(part) / 4.0;
        writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{:.3} s</text>",
            HEIGHT - 6.0,
            seconds * f64::from(part) / 4.0
        )?;
    }
    writeln!(out, "</svg>\n<p class=\"legend\">{unit}:")?;
    for (number, Series { name, counts }) in counts.series.iter().enumerate() {
        let all: u64 = counts.iter().sum();
        let name = Escaped(name);
        writeln!(
            out,
            " <span class=\"item\"><span class=\"key c{}\"></span> {name} ({all} in all)</span>",
            number % COLOURS
        )?;
    }
    writeln!(out, "</p>")
}

/// How many took how long.
#[expect(clippy::cast_precision_loss, reason = "what is drawn need not be exact")]
fn histogram(recorded: &Recorded, latency: Latency, out: &mut dyn Write) -> io::Result<()> {
    let histogram = &recorded.latencies[latency as usize];
    let (name, count) = (latencies::name(latency), histogram.count());
    writeln!(out, "<figure><figcaption><b>{name}</b>, {count} in all</figcaption>")?;
    let bars = latencies::bars(histogram);
    if !bars.is_empty() {
        let (width, height) = (WIDTH / 2.0 - 16.0, 140.0);
        let base = height - BOTTOM;
        let most = bars.iter().map(|bar| bar.count).max().unwrap_or(1) as f64;
        let step = width / bars.len() as f64;
        writeln!(out, "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{name}\">")?;
        writeln!(
            out,
            "<line class=\"grid\" x1=\"0\" x2=\"{width}\" y1=\"{base}\" y2=\"{base}\"/>"
        )?;
        // As many labels as have room.
        let labels = 8;
        let each = bars.len().div_ceil(labels);
        for (number, bar) in bars.iter().enumerate() {
            let tall = if bar.count == 0 { 0.0 } else { (base - 4.0) * bar.count as f64 / most };
            let tall = if bar.count > 0 { tall.max(1.0) } else { tall };
            let x = step * number as f64;
            let up_to = latencies::text(bar.up_to);
            writeln!(
                out,
                "<rect class=\"c0\" x=\"{:.2}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{tall:.2}\">\
                 <title>{} below {up_to}</title></rect>",
                x + 1.0,
                base - tall,
                (step - 2.0).max(0.5),
                bar.count
            )?;
            if number % each == each - 1 || bars.len() == 1 {
                writeln!(
                    out,
                    "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{up_to}</text>",
                    x + step,
                    height - 6.0
                )?;
            }
        }
        let [half, rare, rarest] =
            [500, 990, 999].map(|part| latencies::text(histogram.per_mille(part)));
        writeln!(
            out,
            "</svg>\n<p>half below {half}, 99 % below {rare}, 99.9 % below {rarest}</p>"
        )?;
    }
    writeln!(out, "</figure>")
}

fn table<N: fmt::Display>(
    caption: &str,
    rows: &[(N, String)],
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "<table><caption>{caption}</caption>")?;
    for (name, value) in rows {
        let name = name.to_string();
        writeln!(out, "<tr><th>{}</th><td>{}</td></tr>", Escaped(&name), Escaped(value))?;
    }
    writeln!(out, "</table>")
}

/// The next number of one digit and zeros.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1e-9).log10().floor());
    (value / power).ceil() * power
}

/// A number in few characters.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            value if value >= 1e6 => write!(f, "{:.1} M", value / 1e6),
            value if value >= 1e3 => write!(f, "{:.1} k", value / 1e3),
            value => write!(f, "{value:.0}"),
        }
    }
}

/// Text in which nothing is markup.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                other => fmt::Write::write_char(f, other)?,
            }
        }
        Ok(())
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |place: usize| u32::from(three.get(place).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            if place <= three.len() {
                text.push(char::from(DIGITS[(bits >> (18 - 6 * place) & 63) as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_its_standard() {
        let pairs = ["", "f", "fo", "foo", "foob", "fooba", "foobar"];
        let texts = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (bytes, text) in pairs.iter().zip(texts) {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn nothing_of_a_name_is_markup() {
        let name = Escaped("<script>\"a\" & b</script>").to_string();
        assert_eq!(name, "&lt;script&gt;&quot;a&quot; &amp; b&lt;/script&gt;");
    }

    #[test]
    fn the_top_of_a_chart_is_round() {
        assert!((round_up(1234.0) - 2000.0).abs() < 1e-6);
        assert!((round_up(0.5) - 0.5).abs() < 1e-6);
    }
}
