//! Against a residence for each page.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use core::ops::Range;

use proptest::prelude::*;

use super::{BLOCK_PAGES, DeviceIndex, FrameNumber, Pages, Residence, Table};
use crate::testing::{cases, memory};

#[derive(Clone, Debug)]
enum Step {
    Away { pages: Range<usize>, device: u8, frame: u32 },
    System { pages: Range<usize> },
    Settle,
}

fn part() -> impl Strategy<Value = Range<usize>> {
    prop_oneof![
        1 => Just(0..BLOCK_PAGES),
        4 => (0..BLOCK_PAGES).prop_flat_map(|start| {
            (Just(start), start + 1..=BLOCK_PAGES).prop_map(|(start, end)| start..end)
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    // Few frames, so that runs that lie side by side often go on in the same frames.
    prop_oneof![
        3 => (part(), 0..3_u8, 0..4_u32).prop_map(|(pages, device, frame)| {
            let frame = frame + u32::try_from(pages.start).unwrap();
            Step::Away { pages, device, frame }
        }),
        2 => part().prop_map(|pages| Step::System { pages }),
        1 => Just(Step::Settle),
    ]
}

/// The residence of the page after one with this residence, in the same run.
fn next(residence: Residence) -> Residence {
    match residence {
        Residence::Away { device, frame } => Residence::Away { device, frame: frame.plus(1) },
        other => other,
    }
}

fn check(pages: &Pages, oracle: &[Residence], within: &Range<usize>) {
    for (page, residence) in oracle.iter().enumerate() {
        assert_eq!(pages.residence(page), *residence, "page {page}");
    }
    let mut at = within.start;
    for run in pages.runs(within.clone()) {
        assert_eq!(run.pages.start, at, "runs follow one another");
        let mut residence = run.residence;
        for page in run.pages.clone() {
            assert_eq!(oracle[page], residence, "page {page} of {run:?}");
            residence = next(residence);
        }
        at = run.pages.end;
    }
    assert_eq!(at, within.end, "runs are all of it");
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_record_says_where_each_page_is(
        steps in proptest::collection::vec((step(), part()), 1..if cfg!(miri) { 12 } else { 40 }),
    ) {
        let memory = memory();
        let mut pages = Pages::default();
        let mut oracle = [Residence::System; BLOCK_PAGES];
        for (step, within) in steps {
            let mut spare = None;
            match step {
                Step::Away { pages: part, device, frame } => {
                    if pages.wants_table() && part.len() < BLOCK_PAGES {
                        spare = Some(Table::reserve(&memory).unwrap());
                    }
                    let (device, frame) = (DeviceIndex(device), FrameNumber(frame));
                    pages.record_away(part.clone(), device, frame, &mut spare);
                    let mut residence = Residence::Away { device, frame };
                    for place in &mut oracle[part] {
                        *place = residence;
                        residence = next(residence);
                    }
                }
                Step::System { pages: part } => {
                    if pages.wants_table() && part.len() < BLOCK_PAGES {
                        spare = Some(Table::reserve(&memory).unwrap());
                    }
                    pages.record_system(part.clone(), &mut spare);
                    oracle[part].fill(Residence::System);
                }
                Step::Settle => {
                    pages.settle();
                    let quiet = oracle.iter().all(|residence| *residence == Residence::System);
                    assert_eq!(matches!(pages, Pages::Quiet), quiet);
                }
            }
            check(&pages, &oracle, &within);
        }
    }
}

#[test]
fn a_whole_block_is_one_entry() {
    let mut pages = Pages::default();
    // No table is there to be used.
    pages.record_away(0..BLOCK_PAGES, DeviceIndex(1), FrameNumber(7), &mut None);
    assert!(pages.is_whole());
    let run = pages.run(&(3..BLOCK_PAGES));
    assert_eq!(run.pages, 3..BLOCK_PAGES);
    let expected = Residence::Away { device: DeviceIndex(1), frame: FrameNumber(10) };
    assert_eq!(run.residence, expected);
    pages.record_system(0..BLOCK_PAGES, &mut None);
    assert!(matches!(pages, Pages::Quiet));
}

#[test]
fn a_frame_can_have_the_largest_number() {
    let memory = memory();
    let mut pages = Pages::default();
    let mut spare = Some(Table::reserve(&memory).unwrap());
    let (device, frame) = (DeviceIndex(15), FrameNumber(u32::MAX >> 1));
    pages.record_away(2..3, device, frame, &mut spare);
    assert_eq!(pages.residence(2), Residence::Away { device, frame });
    assert_eq!(pages.residence(3), Residence::System);
}
