//! Against a residence for each page.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use core::ops::Range;

use proptest::prelude::*;

use super::{BLOCK_PAGES, DeviceIndex, FrameNumber, HALF, Pages, Residence};
use crate::{
    engine_memory::{EngineBox, EngineMemory},
    testing::{cases, memory},
};

#[derive(Clone, Debug)]
enum Step {
    /// Room is made for `pages`, and they are recorded from the first on, in parts that end at
    /// these places, as calls do that stop.
    Record {
        pages: Range<usize>,
        first: Residence,
        ends: Vec<usize>,
    },
    /// Pages come back with those before them, without room made.
    ComeBack {
        pages: Range<usize>,
    },
    Settle,
}

fn part() -> impl Strategy<Value = Range<usize>> {
    prop_oneof![
        1 => Just(0..BLOCK_PAGES),
        2 => (0..BLOCK_PAGES).prop_map(|place| place..place + 1),
        4 => (0..BLOCK_PAGES).prop_flat_map(|start| {
            (Just(start), start + 1..=BLOCK_PAGES).prop_map(|(start, end)| start..end)
        }),
    ]
}

fn residence() -> impl Strategy<Value = Residence> {
    prop_oneof![
        // Few frames, so that runs that lie side by side often go on in the same frames.
        8 => (0..2_u8, 0..3_u32, prop::bool::weighted(0.2)).prop_map(|(device, frame, exclusive)| {
            Residence::Away { device: DeviceIndex(device), frame: FrameNumber(frame), exclusive }
        }),
        4 => (0..2_u8, 0..3_u32).prop_map(|(device, frame)| {
            Residence::Mapped { device: DeviceIndex(device), frame: FrameNumber(frame) }
        }),
        4 => Just(Residence::System),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (part(), residence(), prop::collection::vec(0..=BLOCK_PAGES, 0..3)).prop_map(
            |(pages, first, mut ends)| {
                let first = later(first, pages.start);
                ends.sort_unstable();
                Step::Record { pages, first, ends }
            },
        ),
        2 => part().prop_map(|pages| Step::ComeBack { pages }),
        2 => Just(Step::Settle),
    ]
}

/// The residence of the page `pages` behind one with this residence, in the same run.
fn later(residence: Residence, pages: usize) -> Residence {
    match residence {
        Residence::Away { device, frame, exclusive } => {
            Residence::Away { device, frame: frame.plus(pages), exclusive }
        }
        Residence::Mapped { device, frame } => {
            Residence::Mapped { device, frame: frame.plus(pages) }
        }
        Residence::System => Residence::System,
    }
}

fn away(frame: usize) -> Residence {
    let frame = FrameNumber(u32::try_from(frame).unwrap());
    Residence::Away { device: DeviceIndex(1), frame, exclusive: false }
}

/// A record, and a residence for each page.
struct Both {
    memory: EngineMemory,
    pages: Pages,
    oracle: [Residence; BLOCK_PAGES],
}

impl Both {
    fn new() -> Self {
        let oracle = [Residence::System; BLOCK_PAGES];
        Self { memory: memory(), pages: Pages::default(), oracle }
    }

    fn record(&mut self, pages: Range<usize>, first: Residence) {
        self.pages.record(&pages, first);
        for page in pages.clone() {
            self.oracle[page] = later(first, page - pages.start);
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Record { pages, first, ends } => {
                self.pages.reserve(&self.memory, &pages, first).unwrap();
                let mut start = pages.start;
                for end in ends.into_iter().chain([pages.end]) {
                    let end = end.min(pages.end);
                    if start < end {
                        self.record(start..end, later(first, start - pages.start));
                        start = end;
                    }
                }
            }
            Step::ComeBack { pages } => {
                let first = self.pages.whole_from(pages.start);
                assert!(first <= pages.start);
                self.record(first..pages.end, Residence::System);
            }
            Step::Settle => self.settle(),
        }
    }

    fn settle(&mut self) {
        self.pages.settle(&self.memory);
        let away = self.oracle.iter().filter(|at| **at != Residence::System).count();
        assert!(self.memory.used() <= 8 * away, "{} for {away}", self.memory.used());
    }

    fn check(&self, within: &Range<usize>) {
        for (page, residence) in self.oracle.iter().enumerate() {
            assert_eq!(self.pages.residence(page), *residence, "page {page}");
        }
        let mut at = within.start;
        let mut next = None;
        for run in self.pages.runs(within.clone()) {
            assert_eq!(run.pages.start, at, "runs follow one another");
            assert_ne!(next, Some(run.residence), "a run is as long as can be");
            for page in run.pages.clone() {
                let residence = later(run.residence, page - run.pages.start);
                assert_eq!(self.oracle[page], residence, "page {page} of {run:?}");
            }
            at = run.pages.end;
            next = Some(later(run.residence, run.pages.len()));
        }
        assert_eq!(at, within.end, "runs are all of it");
        let mut runs = self.pages.runs(within.clone());
        let first = runs.find(|run| run.residence != Residence::System);
        assert_eq!(self.pages.next_run(within), first, "in {within:?}");
        let first = self.oracle[0];
        let is_whole = matches!(first, Residence::Away { .. })
            && (0..BLOCK_PAGES).all(|page| self.oracle[page] == later(first, page));
        assert_eq!(self.pages.is_whole(), is_whole);
    }

    /// Records that each of `pages` is away on its own, and answers the bytes that this takes.
    fn lone(&mut self, pages: impl IntoIterator<Item = usize>) -> usize {
        for page in pages {
            self.take(Step::Record { pages: page..page + 1, first: away(7), ends: Vec::new() });
            self.settle();
        }
        self.memory.used()
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_record_says_where_each_page_is(
        steps in prop::collection::vec((step(), part()), 1..if cfg!(miri) { 12 } else { 60 }),
    ) {
        let mut both = Both::new();
        for (step, within) in steps {
            both.take(step);
            both.check(&within);
        }
        both.record(0..BLOCK_PAGES, Residence::System);
        both.settle();
        assert_eq!(both.memory.used(), 0);
    }

    #[test]
    fn lone_pages_go_and_come_back_in_any_order(
        pages in Just((0..BLOCK_PAGES).collect::<Vec<_>>()).prop_shuffle(),
        back in Just((0..BLOCK_PAGES).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut both = Both::new();
        let used = both.lone(pages);
        assert!((7 * BLOCK_PAGES..=8 * BLOCK_PAGES).contains(&used), "{used}");
        both.check(&(0..BLOCK_PAGES));
        for page in back {
            both.record(page..page + 1, Residence::System);
            both.settle();
        }
        assert_eq!(both.memory.used(), 0);
    }
}

#[test]
fn a_run_in_place_takes_no_memory() {
    let mut both = Both::new();
    assert_eq!(both.lone([3]), 0, "one page");
    both.record(0..BLOCK_PAGES, away(7));
    both.settle();
    assert_eq!(both.memory.used(), 0, "a whole block");
    assert!(both.pages.is_whole());
    let run = both.pages.run(&(3..BLOCK_PAGES));
    assert_eq!((run.pages, run.residence), (3..BLOCK_PAGES, away(10)));
    both.record(0..BLOCK_PAGES, Residence::System);
    both.check(&(0..BLOCK_PAGES));
}

#[test]
fn a_few_pages_away_take_eight_bytes_each_at_most() {
    let last = BLOCK_PAGES - 1;
    for (pages, bytes) in [
        (&[0][..], 0),
        (&[0, HALF], 0),
        (&[0, 2], 16),
        (&[0, 2, last], 16),
        (&[0, 2, 3], 24),
        (&[0, 2, HALF, last], 32),
    ] {
        assert_eq!(Both::new().lone(pages.iter().copied()), bytes, "{pages:?}");
    }
}

#[test]
fn exclusive_pages_are_a_run_of_their_own() {
    let mut both = Both::new();
    let pages = 1..3;
    both.record(0..BLOCK_PAGES, away(0));
    let (device, frame) = (DeviceIndex(1), FrameNumber(1));
    let there = Residence::Away { device, frame, exclusive: true };
    both.pages.reserve(&both.memory, &pages, there).unwrap();
    both.pages.record_away(&pages, device, frame, true);
    let runs = both.pages.runs(0..BLOCK_PAGES).map(|run| run.pages);
    assert!(runs.eq([0..1, 1..3, 3..BLOCK_PAGES]));
    assert_eq!(both.pages.residence(1), there);
    both.pages.record_away(&pages, device, frame, false);
    assert!(both.pages.is_whole());
    both.settle();
}

#[test]
fn a_frame_can_have_a_large_number() {
    let mut both = Both::new();
    let (device, frame) = (DeviceIndex(15), FrameNumber(u32::MAX - 1));
    both.record(2..3, Residence::Away { device, frame, exclusive: true });
    both.check(&(0..BLOCK_PAGES));
}

/// Takes memory until there is none for two runs.
fn exhaust(memory: &EngineMemory) -> Vec<EngineBox<[u8]>> {
    let mut taken = Vec::new();
    for bytes in [4096, 16] {
        while let Ok(one) = EngineBox::try_zeroed(memory, bytes) {
            taken.push(one);
        }
    }
    taken
}

#[test]
fn what_cannot_be_reserved_changes_nothing() {
    let mut both = Both::new();
    both.record(0..HALF, away(0));
    let taken = exhaust(&both.memory);
    assert!(both.pages.reserve(&both.memory, &(1..2), Residence::System).is_err());
    both.check(&(0..BLOCK_PAGES));
    assert_eq!(both.pages.whole_from(1), 0);
    both.pages.reserve(&both.memory, &(0..2), Residence::System).unwrap();
    both.record(0..2, Residence::System);
    both.check(&(0..BLOCK_PAGES));
    drop(taken);
    both.pages.reserve(&both.memory, &(2..3), away(0)).unwrap();
}
