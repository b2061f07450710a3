//! `uhmm explain`: of an address of a running program where its content is, who maps it, and what
//! keeps it from a device.
//!
//! Two sources: what the program shows of itself, which is as the engine has it, and what the kernel
//! tells of its areas. The program is not asked, and not stopped.

mod area;

use std::io::{self, Write};

use serde::Serialize;
use uhmm::{ObserveError, ObservedPage, ObservedPlace, Observer};

use crate::failure::Failure;
use area::Area;

/// Tell of an address of a running program where it is, who maps it, and what keeps it from devices.
///
/// The program runs on; nothing waits. To be run as its user or as root.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The process.
    #[arg(value_name = "PID")]
    process: u32,

    /// An address in it, hexadecimal behind 0x, or decimal.
    #[arg(value_name = "ADDRESS", value_parser = parse_address)]
    address: usize,

    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// Why an address is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("give an address as 0x7f1234000000 or as a decimal number")]
struct NotAnAddress;

fn parse_address(text: &str) -> Result<usize, NotAnAddress> {
    let digits = text.replace('_', "");
    let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    // What a sign before the digits means is not asked.
    let (digits, radix) = hexadecimal.map_or((&*digits, 10), |digits| (digits, 16));
    if !digits.starts_with(|digit: char| digit.is_digit(radix)) {
        return Err(NotAnAddress);
    }
    usize::from_str_radix(digits, radix).map_err(|_| NotAnAddress)
}

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
enum ExplainError {
    /// The process shows nothing.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// Its areas cannot be looked up.
    #[error("the areas of process {process} cannot be read: {source}")]
    Areas {
        /// The process.
        process: u32,
        /// The system's error.
        source: io::Error,
    },
}

impl From<ExplainError> for Failure {
    fn from(error: ExplainError) -> Self {
        Self::new(error)
    }
}

/// All that is told. The names of the fields are the keys of the JSON object.
#[derive(Debug, Serialize)]
struct Explanation {
    process: u32,
    /// In hexadecimal.
    address: String,
    /// The page that the address is in.
    page: String,
    page_bytes: usize,
    /// The area, as the kernel tells of it.
    area: Option<String>,
    /// Where the content is.
    place: String,
    /// Who maps it besides.
    mapped: String,
    adopted: Option<bool>,
    /// What keeps the page from going to a device, if anything is known to.
    keeps_it: Vec<String>,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let told = explain(args.process, args.address)?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &told).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        told.write(&mut out)?;
    }
    Ok(out.flush()?)
}

fn explain(process: u32, address: usize) -> Result<Explanation, ExplainError> {
    let seen = Observer::of(process)?;
    let areas = std::fs::read_to_string(format!("/proc/{process}/smaps"))
        .map_err(|source| ExplainError::Areas { process, source })?;
    if !seen.is_alive() {
        return Err(ObserveError::NoSuchProcess { process }.into());
    }
    let size = seen.page_size();
    let page = size.page_of(address);
    let area = area::find(&areas, address);
    let (ranges, all) = seen.adopted();
    let adopted = if ranges.iter().any(|range| range.contains(page)) {
        Some(true)
    } else {
        all.then_some(false)
    };
    let shown = seen.page(address);
    Ok(Explanation {
        process,
        address: format!("{address:#x}"),
        page: format!("{:#x}", size.address_of(page)),
        page_bytes: size.bytes(),
        place: place(shown.as_ref(), area.as_ref()),
        mapped: mapped(shown.as_ref()),
        keeps_it: keeps_it(shown.as_ref(), area.as_ref(), adopted),
        area: area.map(|area| area.to_string()),
        adopted,
    })
}

fn place(shown: Option<&ObservedPage>, area: Option<&Area>) -> String {
    let place = shown.map_or(ObservedPlace::Elsewhere, |shown| shown.place);
    match (place, area) {
        (ObservedPlace::Device { device, exclusive }, _) => {
            let alone = if exclusive { ", which has it alone" } else { "" };
            format!("in the memory of device {}{alone}", device.number())
        }
        (_, None) => "nowhere: nothing is mapped there".to_owned(),
        (ObservedPlace::Lost, _) => {
            "nowhere: lost with its device, so an access ends with SIGBUS".to_owned()
        }
        (ObservedPlace::CameBack, _) => "in system memory, back from a device".to_owned(),
        _ => "in system memory, if it was ever touched".to_owned(),
    }
}

fn mapped(shown: Option<&ObservedPage>) -> String {
    let Some(shown) = shown else { return "by no device".to_owned() };
    let mut names: Vec<_> =
        shown.mapped_by.iter().map(|device| format!("device {}", device.number())).collect();
    if shown.mapped_by_mirrors {
        names.push("mirrors of devices without memory".to_owned());
    }
    if names.is_empty() {
        return "by no other device".to_owned();
    }
    format!("{} may map pages of its block where they are", names.join(", "))
}

fn keeps_it(
    shown: Option<&ObservedPage>,
    area: Option<&Area>,
    adopted: Option<bool>,
) -> Vec<String> {
    let is_away = |shown: &ObservedPage| matches!(shown.place, ObservedPlace::Device { .. });
    if shown.is_some_and(is_away) {
        return Vec::new();
    }
    let mut reasons = Vec::new();
    match area {
        None => reasons.push("nothing is mapped there".to_owned()),
        Some(area) => reasons.extend(area.keeps().map(str::to_owned)),
    }
    if adopted == Some(false) {
        reasons.push("it is not adopted".to_owned());
    }
    if let Some(stayed) = shown.and_then(|shown| shown.stayed) {
        reasons.push(format!("it stayed when it was last to go: {stayed}"));
    }
    reasons
}

impl Explanation {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { address, process, page, page_bytes, .. } = self;
        writeln!(
            out,
            "{address} of process {process}, in the page of {page_bytes} bytes at {page}"
        )?;
        writeln!(out, "area      {}", self.area.as_deref().unwrap_or("none"))?;
        writeln!(out, "place     {}", self.place)?;
        writeln!(out, "mapped    {}", self.mapped)?;
        let adopted = match self.adopted {
            Some(true) => "yes: devices may take it",
            Some(false) => "no: devices may map it where it is, not take it",
            None => "not known: more ranges are adopted than are shown",
        };
        writeln!(out, "adopted   {adopted}")?;
        let nothing = "nothing that is known";
        let reasons =
            if self.keeps_it.is_empty() { nothing.to_owned() } else { self.keeps_it.join("; ") };
        writeln!(out, "kept by   {reasons}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_hexadecimal_or_decimal() {
        assert_eq!(parse_address("0x7f12_3400"), Ok(0x7f12_3400));
        assert_eq!(parse_address("4096"), Ok(4096));
        for wrong in ["", "0x", "x", "-1", "+1", "0x+1", "7f00", "0x1ffffffffffffffff"] {
            assert_eq!(parse_address(wrong), Err(NotAnAddress), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_not(text: String) {
            let _ = parse_address(&text);
        }

        #[test]
        fn what_is_printed_is_read(address: usize) {
            prop_assert_eq!(parse_address(&format!("{address:#x}")), Ok(address));
            prop_assert_eq!(parse_address(&address.to_string()), Ok(address));
        }
    }

    #[test]
    fn each_reason_is_told() {
        let heap = "1000-3000 rw-p 00000000 00:00 0 [heap]\nVmFlags: rd wr mr\n";
        let area = area::find(heap, 0x1000);
        let mut shown = ObservedPage::default();
        shown.stayed = Some("pinned");
        let reasons = keeps_it(Some(&shown), area.as_ref(), Some(false));
        assert_eq!(reasons, ["it is not adopted", "it stayed when it was last to go: pinned"]);
        assert!(keeps_it(None, area.as_ref(), Some(true)).is_empty());
        assert_eq!(keeps_it(None, None, None), ["nothing is mapped there"]);
        assert_eq!(place(None, None), "nowhere: nothing is mapped there");
    }
}
