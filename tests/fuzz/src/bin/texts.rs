//! Texts of `/proc` and `/sys`, cut short, damaged, or of anything: both readers of areas make the same of the same
//! text however it comes in pieces, agree with one another on what is well formed, and what is written from what
//! was read is read as that again.
#![no_main]
#![allow(dead_code, reason = "of the program's files only the parsers are used")]

use libfuzzer_sys::fuzz_target;
use uhmm::{
    fuzzing::{areas, innermost_number},
    mm::Area,
    units::PageSize,
};
use uhmm_fuzz::Input;

#[path = "../../../../crates/uhmm-cli/src/doctor/machine.rs"]
mod machine;
#[path = "../../../../crates/uhmm-cli/src/memory.rs"]
mod memory;
#[path = "../../../../crates/uhmm-cli/src/explain/area.rs"]
mod shown;

const PAGE: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let kind = input.byte() % 4;
    let piece = 1 + input.below(400);
    let number = input.number(&[]) as usize;
    let bytes = input.rest();
    match kind {
        0 | 1 => core(bytes, piece),
        2 => program(&String::from_utf8_lossy(bytes), number),
        _ => others(&String::from_utf8_lossy(bytes), piece as u32),
    }
});

/// The core's reader.
fn core(text: &[u8], piece: usize) {
    let page = PageSize::new(PAGE).expect("a power of two");
    let whole = areas(text, usize::MAX, page);
    assert_eq!(areas(text, piece, page), whole, "in pieces of {piece}");
    let lines = text.split(|&byte| byte == b'\n').count();
    assert!(whole.len() <= lines);
    let written: String = whole.iter().map(write).collect();
    for (area, again) in whole.iter().zip(areas(written.as_bytes(), piece, page)) {
        assert_eq!((area.pages, area.protection), (again.pages, again.protection), "{written}");
        assert_eq!((area.locked, area.inherited), (again.locked, again.inherited), "{written}");
        assert_eq!(area.registered, again.registered, "{written}");
    }
    assert_eq!(areas(written.as_bytes(), 1, page).len(), whole.len());
}

/// An area as the kernel writes it, but for its backing.
fn write(area: &Area) -> String {
    let bit = |is, letter| if is { letter } else { '-' };
    let (start, end) = (area.pages.start().0 * PAGE, area.pages.end().0 * PAGE);
    let protection = area.protection;
    let flags = [(area.locked, "lo"), (!area.inherited, "dc"), (area.registered, "um")];
    let flags: String =
        flags.iter().filter(|(is, _)| *is).map(|(_, flag)| format!(" {flag}")).collect();
    format!(
        "{start:x}-{end:x} {}{}{}p 00000000 00:00 0 \nVmFlags: rd{flags} \n",
        bit(protection.read, 'r'),
        bit(protection.write, 'w'),
        bit(protection.execute, 'x'),
    )
}

/// The reader of `explain`.
fn program(text: &str, address: usize) {
    let mut addresses = vec![address];
    // Such as the text names.
    for word in text.split(|letter: char| !letter.is_ascii_hexdigit()).take(40) {
        addresses.extend(usize::from_str_radix(word, 16));
    }
    for address in addresses {
        let Some(area) = shown::find(text, address) else { continue };
        let told = area.to_string();
        assert!(!told.contains(char::is_control), "{told:?} goes to a terminal");
        let mut bounds = told.split(", ").next().unwrap_or_default().split(" to ").map(|bound| {
            usize::from_str_radix(bound.trim_start_matches("0x"), 16).expect("an address")
        });
        let (start, end) = (bounds.next().expect("a start"), bounds.next().expect("an end"));
        assert!(start <= address && address < end, "{address:#x} of {told}");
        assert!(area.keeps().count() <= 7);
    }
}

fn others(text: &str, capability: u32) {
    let digits = |number: u64| text.contains(number.to_string().as_str());
    if let Some((major, minor)) = machine::version(text) {
        let numbers: Vec<u32> = text
            .split(|letter: char| !letter.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect();
        assert!(numbers.starts_with(&[major, minor]), "{text:?}");
    }
    if let Some(chosen) = machine::chosen(text) {
        assert!(text.contains(&format!("[{chosen}]")) && !chosen.contains(']'));
    }
    if let Some(value) = machine::value_of(text, "CapEff") {
        assert!(text.contains(&value) && !value.contains('\n'));
        let has = machine::has_capability(&value, capability % 64);
        assert!(!has || u64::from_str_radix(&value, 16).is_ok_and(|bits| bits != 0));
    }
    if let Some(bytes) = memory::parse_available(text) {
        assert!(bytes % 1024 == 0 && text.contains("MemAvailable:"));
    }
    if let Some(number) = innermost_number(text) {
        assert!(text.contains("NSpid:") && (digits(number.into()) || text.contains("00")));
    }
}
