//! What has to be in the memory that both have, as it follows from what the program wrote and the kernels stored.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
    slice,
    sync::atomic::Ordering::Relaxed,
};

use uhmm::ring::RingMemory;
use uhmm_fuzz::rings::{RECEIVED, SLOTS_AT};
use uhmm_soft::fuzzing::{Between, Head};

/// What has to be there. All else is zeros.
pub struct Shadow {
    /// What lies before the frames, as far as it is looked at.
    words: Vec<u32>,
    /// Bytes of frames.
    frames: BTreeMap<usize, u8>,
    /// Frames that commands named.
    named: HashSet<usize>,
    /// What the process has to have noted of frames, and what it may have.
    noted: HashMap<usize, u8>,
    may_note: HashMap<usize, u8>,
    workers: usize,
    page: usize,
}

/// Where something lies among the words of the head.
pub fn index<T>(head: &Head<'_>, at: &T) -> usize {
    (std::ptr::from_ref(at).addr() - head.words.as_ptr().addr()) / 4
}

/// What is noted of a frame that was used, and of one that was written.
const USED: u8 = 0b011;
const WRITTEN: u8 = 0b111;

const RING: usize = size_of::<RingMemory>() / 4;

impl Shadow {
    pub fn new(between: &Between, workers: usize, page: usize) -> Self {
        let head = between.head();
        let end = index(&head, &head.orders[0]) + workers * RING;
        let words = head.words[..end].iter().map(|word| word.load(Relaxed)).collect();
        Self {
            words,
            frames: BTreeMap::new(),
            named: HashSet::new(),
            noted: HashMap::new(),
            may_note: HashMap::new(),
            workers,
            page,
        }
    }

    /// The program wrote a word.
    pub fn wrote(&mut self, at: usize, value: u32) {
        if let Some(word) = self.words.get_mut(at) {
            *word = value;
        }
    }

    /// Some bytes of a frame were written.
    pub fn store(&mut self, at: usize, bytes: &[u8]) {
        self.frames.extend((at..).zip(bytes.iter().copied()));
    }

    /// What is in a byte of the frames.
    pub fn byte(&self, at: usize) -> u8 {
        self.frames.get(&at).copied().unwrap_or(0)
    }

    /// The process has used a frame, or has written it.
    pub fn used(&mut self, frame: usize, written: bool) {
        *self.noted.entry(frame).or_default() |= if written { WRITTEN } else { USED };
    }

    /// The program takes what is noted of a frame.
    pub fn take_note(&mut self, frame: usize) {
        self.noted.remove(&frame);
    }

    /// Commands name frames, which may be used from now on, and may be written where it is said so.
    pub fn name(&mut self, frames: Range<usize>, write: bool) {
        for frame in frames.clone() {
            *self.may_note.entry(frame).or_default() |= if write { WRITTEN } else { USED };
        }
        // There are many: those behind are looked at where something was stored.
        self.named.extend(frames.take(8));
    }

    /// That the process wrote what is its own, and what was stored.
    pub fn check(&self, between: &Between) {
        let head = between.head();
        let mut expected = self.words.clone();
        // SAFETY: they are words, of which nobody writes one any more.
        let seen =
            unsafe { slice::from_raw_parts(head.words.as_ptr().cast::<u32>(), expected.len()) };
        let mut may_be_any = |from: usize, count: usize| {
            expected[from..from + count].copy_from_slice(&seen[from..from + count]);
        };
        may_be_any(index(&head, head.applied), 1);
        may_be_any(index(&head, head.awaited), 1);
        may_be_any(index(&head, head.taken), 2);
        may_be_any(index(&head, head.failed), 1);
        // Of a ring that the process receives from it writes its own place, and whether it sleeps.
        let received = std::iter::once(head.commands).chain(&head.orders[..self.workers]);
        for ring in received {
            may_be_any(index(&head, ring) + 2 * RECEIVED, 2);
        }
        let reports = index(&head, head.reports);
        may_be_any(reports, 2);
        may_be_any(reports + 2 * SLOTS_AT, RING - 2 * SLOTS_AT);
        if seen != expected {
            let at = seen.iter().zip(&expected).position(|(seen, expected)| seen != expected);
            panic!("word {at:?} before the frames is none that it may write");
        }
        self.check_frames(between);
        self.check_notes(between);
    }

    fn check_notes(&self, between: &Between) {
        for (frame, note) in between.notes().iter().enumerate() {
            let seen = note.load(Relaxed);
            let of = |notes: &HashMap<usize, u8>| notes.get(&frame).copied().unwrap_or(0);
            let (noted, may_note) = (of(&self.noted), of(&self.may_note));
            assert!(
                seen & noted == noted && seen & !may_note == 0,
                "of frame {frame} it noted {seen:#b}, and not {noted:#b} at least and {may_note:#b} at most"
            );
        }
    }

    fn check_frames(&self, between: &Between) {
        let (first, len) = between.frames();
        let known = self.frames.keys().map(|at| at / self.page);
        let beside = self.named.iter().flat_map(|&frame| [frame, frame + 1]).chain([0]);
        let looked_at: HashSet<_> = known.chain(beside).collect();
        for frame in looked_at.into_iter().filter(|frame| frame * self.page < len) {
            let start = frame * self.page;
            // SAFETY: the frame is there, and nobody writes it any more.
            let seen = unsafe { slice::from_raw_parts(first.add(start), self.page) };
            let mut expected = vec![0; self.page];
            for (&at, &byte) in self.frames.range(start..start + self.page) {
                expected[at - start] = byte;
            }
            assert!(seen == expected, "in frame {frame} is what was not stored");
        }
    }
}
