//! Recorded events, for fuzzers.

use super::{event::Event, queue::Words};

/// The event in some words, and the words that it is packed into.
pub fn recorded(words: Words) -> Option<(Event, Words)> {
    Event::unpack(words).map(|event| (event, event.pack()))
}
