//! The text of `/proc/self/smaps`, line by line, and what it says of an area. The text of
//! `/proc/self/maps` says less in the same way.
//!
//! Source: `fs/proc/task_mmu.c` of Linux 6.8, `show_map_vma`, `show_smap` and
//! `show_smap_vma_flags`; proc(5).

use core::ops::ControlFlow;

use super::backing;
use crate::{
    mm::{Area, Backing, Protection},
    units::{PageRange, PageSize},
};

/// Bytes of a line that are looked at. What a line says that matters here is within: names are
/// told by how they start, and the longest list of flags has fewer.
const LINE: usize = 192;

/// Puts lines together from pieces of text, whatever their length, and areas from lines.
pub(super) struct Parser {
    page: PageSize,
    line: [u8; LINE],
    len: usize,
    told: Option<Area>,
    /// Where the last area ended, if what is directly behind it is the zero-initialised data of an
    /// object when it is anonymous.
    data_end: Option<usize>,
}

impl Parser {
    /// A parser at the start of the text.
    pub(super) const fn new(page: PageSize) -> Self {
        Self { page, line: [0; LINE], len: 0, told: None, data_end: None }
    }

    /// Takes the next piece of text, and visits the areas that end in it.
    pub(super) fn feed(
        &mut self,
        text: &[u8],
        visit: &mut dyn FnMut(&Area) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for piece in text.split_inclusive(|&byte| byte == b'\n') {
            let (line, ends) = match piece.split_last() {
                Some((b'\n', line)) => (line, true),
                _ => (piece, false),
            };
            let kept = line.len().min(LINE - self.len);
            self.line[self.len..self.len + kept].copy_from_slice(&line[..kept]);
            self.len += kept;
            if ends {
                self.end_line(visit)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Takes the end of the text, and visits the last area.
    pub(super) fn finish(
        mut self,
        visit: &mut dyn FnMut(&Area) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.end_line(visit)?;
        self.end_area(visit)
    }

    fn end_line(&mut self, visit: &mut dyn FnMut(&Area) -> ControlFlow<()>) -> ControlFlow<()> {
        let line = self.line;
        let line = &line[..self.len];
        self.len = 0;
        if let Some(flags) = line.strip_prefix(b"VmFlags:") {
            if let Some(area) = &mut self.told {
                apply_flags(area, flags);
            }
            self.end_area(visit)?;
        } else if let Some(number) = line.strip_prefix(b"THPeligible:") {
            if let Some(area) = &mut self.told {
                area.huge = number.trim_ascii() == b"1";
            }
        } else if let Some(header) = Header::parse(line) {
            self.end_area(visit)?;
            self.told = Some(header.area(self.page));
        }
        ControlFlow::Continue(())
    }

    /// Visits the area whose lines have come, if there is one.
    fn end_area(&mut self, visit: &mut dyn FnMut(&Area) -> ControlFlow<()>) -> ControlFlow<()> {
        let Some(mut area) = self.told.take() else { return ControlFlow::Continue(()) };
        let follows = self.data_end == Some(area.pages.start().0);
        area.object_data = follows && area.backing == Backing::PrivateAnonymous;
        let starts = area.backing == Backing::PrivateFile && area.protection.write;
        self.data_end = (starts || area.object_data).then_some(area.pages.end().0);
        visit(&area)
    }
}

/// The first line of an area.
struct Header<'a> {
    start: usize,
    end: usize,
    protection: Protection,
    shared: bool,
    name: &'a [u8],
}

impl<'a> Header<'a> {
    /// Parses `start-end perms offset device inode   name`; `None` for other lines.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let (start, rest) = hexadecimal(line)?;
        let (end, rest) = hexadecimal(rest.strip_prefix(b"-")?)?;
        let [read, write, execute, shared, rest @ ..] = rest.strip_prefix(b" ")? else {
            return None;
        };
        let protection =
            Protection { read: *read == b'r', write: *write == b'w', execute: *execute == b'x' };
        let mut name = rest;
        for _ in 0..3 {
            let field = name.strip_prefix(b" ")?;
            let len = field.iter().position(|&byte| byte == b' ').unwrap_or(field.len());
            name = &field[len..];
        }
        Some(Self { start, end, protection, shared: *shared == b's', name: name.trim_ascii() })
    }

    /// The area, as far as this line tells.
    fn area(&self, page: PageSize) -> Area {
        Area {
            pages: PageRange::new(page.page_of(self.start), page.page_of(self.end)),
            protection: self.protection,
            backing: backing::of_name(self.name, self.shared),
            stack: self.name == b"[stack]",
            locked: false,
            registered: false,
            object_data: false,
            inherited: true,
            huge: false,
        }
    }
}

/// A number at the start of `text`, in small hexadecimal digits, and what follows it.
fn hexadecimal(text: &[u8]) -> Option<(usize, &[u8])> {
    let digits = text.iter().take_while(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')).count();
    if digits == 0 || digits > 16 {
        return None;
    }
    let (digits, rest) = text.split_at(digits);
    let number = digits.iter().fold(0_usize, |number, &digit| {
        let value = if digit <= b'9' { digit - b'0' } else { digit - b'a' + 10 };
        number << 4 | usize::from(value)
    });
    Some((number, rest))
}

/// Adds what the flags of an area tell, two letters each.
fn apply_flags(area: &mut Area, flags: &[u8]) {
    let mut shared = false;
    for flag in flags.split(|&byte| byte == b' ') {
        match flag {
            // Memory mapped for a stack gets no huge pages since Linux 6.7, and is told by that.
            b"nh" => area.stack |= area.backing == Backing::PrivateAnonymous,
            b"gd" => area.stack = true,
            b"lo" => area.locked = true,
            b"dc" => area.inherited = false,
            b"um" | b"uw" | b"ui" => area.registered = true,
            // It comes before what follows.
            b"sh" => shared = true,
            b"ht" => area.backing = Backing::of_pool(shared),
            b"io" | b"pf" | b"mm" => area.backing = Backing::Special,
            _ => {}
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_macros, clippy::disallowed_types, reason = "tests have a heap")]
mod tests;
