//! Against a map from frames to their twins.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{CHUNK, FrameNumber, FrameRun, TwinRun, Twins};
use crate::testing::{cases, memory};

const FRAMES: usize = 96;
/// Of two chunks, the first of which ends within what is used.
const PAGES: usize = CHUNK + 64;
const FIRST_PAGE: usize = CHUNK - 64;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Frames from one on get twins, from a page on, as far as both are free.
    Add {
        frame: usize,
        page: usize,
        len: usize,
    },
    Written {
        frame: usize,
        len: usize,
    },
    /// The twins of the first frames go back.
    Take {
        frame: usize,
        len: usize,
    },
    /// Others are wanted.
    TakeAny {
        want: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (frame, len) = (0..FRAMES, 1..24_usize);
    let page = FIRST_PAGE..PAGES;
    prop_oneof![
        4 => (frame.clone(), page, len.clone())
            .prop_map(|(frame, page, len)| Step::Add { frame, page, len }),
        2 => (frame.clone(), len.clone()).prop_map(|(frame, len)| Step::Written { frame, len }),
        2 => (frame, len.clone()).prop_map(|(frame, len)| Step::Take { frame, len }),
        1 => len.prop_map(|want| Step::TakeAny { want }),
    ]
}

fn run(first: usize, frames: usize) -> FrameRun {
    FrameRun { first: FrameNumber(u32::try_from(first).unwrap()), frames }
}

fn numbers(run: FrameRun) -> core::ops::Range<usize> {
    let first = run.first.0 as usize;
    first..first + run.frames
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_frames_twin_is_found_until_it_is_taken(
        steps in proptest::collection::vec(step(), 1..if cfg!(miri) { 12 } else { 200 }),
    ) {
        let mut twins = Twins::new(FRAMES, PAGES, &memory()).unwrap();
        // The page of each frame's twin, and whether it was written.
        let mut expected = BTreeMap::<usize, (usize, bool)>::new();
        for step in steps {
            match step {
                Step::Add { frame, page, len } => {
                    let free = |place: &usize| {
                        let (frame, page) = (frame + place, page + place);
                        frame < FRAMES
                            && page < PAGES
                            && !expected.contains_key(&frame)
                            && expected.values().all(|&(other, _)| other != page)
                    };
                    let len = (0..len).take_while(free).count();
                    if len > 0 {
                        let frames = run(frame, len);
                        twins.add(run(page, len), frames.first, |place| place % 3 == 1);
                        for frame in (frame..frame + len).filter(|frame| frame % 4 != 0) {
                            twins.note_writable(run(frame, 1));
                        }
                        expected.extend((0..len).map(|at| (frame + at, (page + at, at % 3 == 1))));
                    }
                }
                Step::Written { frame, len } => {
                    let len = len.min(FRAMES - frame);
                    // Of every fourth nobody ever got a translation by which to write.
                    twins.note_written(run(frame, len));
                    for (&frame, (_, written)) in expected.range_mut(frame..frame + len) {
                        *written |= frame % 4 != 0;
                    }
                }
                Step::Take { frame, len } => {
                    let len = len.min(FRAMES - frame);
                    match (twins.leading(run(frame, len)), expected.get(&frame)) {
                        (Err(without), None) => {
                            assert!((1..=len).contains(&without));
                            let next = expected.range(frame..).next().map(|(&next, _)| next);
                            let next = next.unwrap_or(usize::MAX).min(frame + len);
                            assert_eq!(frame + without, next);
                        }
                        (Ok(TwinRun { pages, written }), Some(_)) => {
                            assert!((1..=len).contains(&pages.frames));
                            for (place, page) in numbers(pages).enumerate() {
                                let twin = expected.remove(&(frame + place));
                                assert_eq!(twin, Some((page, written.has(place))));
                            }
                            let end = numbers(pages).end;
                            let next = expected.get(&(frame + pages.frames));
                            let goes_on = next.is_some_and(|&(page, _)| page == end);
                            assert!(pages.frames == len || !goes_on || end.is_multiple_of(CHUNK));
                            twins.take(pages);
                        }
                        other => panic!("{other:?}"),
                    }
                }
                Step::TakeAny { want } => {
                    let taken = twins.take_any(want);
                    assert_eq!(taken.is_some(), !expected.is_empty());
                    for page in taken.into_iter().flat_map(numbers) {
                        let before = expected.len();
                        expected.retain(|_, &mut (other, _)| other != page);
                        assert_eq!(expected.len(), before - 1);
                    }
                }
            }
            assert_eq!(twins.len(), expected.len());
        }
    }
}

#[test]
fn without_frames_there_are_none() {
    let mut twins = Twins::new(0, PAGES, &memory()).unwrap();
    assert_eq!((twins.len(), twins.have_whole(), twins.take_any(1)), (0, false, None));
}
