//! The parsers of what the kernel writes, for fuzzers.
#![expect(clippy::disallowed_types, reason = "off the fault path: it is for fuzzers")]

use core::ops::ControlFlow;
use std::vec::Vec;

use super::{messages, smaps::Parser};
use crate::{
    mm::{Area, Message},
    units::PageSize,
};

/// How many bytes an event has.
pub const EVENT_BYTES: usize = messages::EVENT_BYTES;

/// The areas in the text of `/proc/self/smaps`, read in pieces of so many bytes.
pub fn areas(text: &[u8], piece: usize, page: PageSize) -> Vec<Area> {
    let mut areas = Vec::new();
    let mut parser = Parser::new(page);
    let mut visit = |area: &Area| {
        areas.push(*area);
        ControlFlow::Continue(())
    };
    for piece in text.chunks(piece) {
        let _ = parser.feed(piece, &mut visit);
    }
    let _ = parser.finish(&mut visit);
    areas
}

/// The message in an event of a userfaultfd descriptor.
pub fn message(bytes: &[u8; EVENT_BYTES], page: PageSize) -> Option<Message> {
    messages::message(&messages::parse(bytes), page)
}
