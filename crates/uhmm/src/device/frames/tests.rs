//! Against a state for each frame.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use proptest::prelude::*;

use super::{CHUNK, FrameNumber, FramePool, FrameRun};
use crate::testing::{cases, memory};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    Hole,
    Used,
    Stale,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Take {
        want: usize,
    },
    TakeStale {
        want: usize,
    },
    TakeFreeChunk,
    /// Gives a part of a run back that is out: which, from where, how much, in 256ths.
    GiveBack {
        which: usize,
        from: usize,
        len: usize,
        stale: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let want = prop_oneof![1..8_usize, 1..100_usize, Just(CHUNK), Just(2 * CHUNK)];
    prop_oneof![
        4 => want.clone().prop_map(|want| Step::Take { want }),
        1 => want.prop_map(|want| Step::TakeStale { want }),
        1 => Just(Step::TakeFreeChunk),
        4 => (any::<usize>(), 0..256_usize, 1..=256_usize, any::<bool>()).prop_map(
            |(which, from, len, stale)| Step::GiveBack { which, from, len, stale }
        ),
    ]
}

fn numbers(run: FrameRun) -> core::ops::Range<usize> {
    let first = run.first.0 as usize;
    first..first + run.frames
}

/// The longest run of `state` within one chunk.
fn longest(frames: &[Frame], state: Frame) -> usize {
    frames
        .chunks(CHUNK)
        .flat_map(|chunk| chunk.split(|&frame| frame != state))
        .map(<[Frame]>::len)
        .max()
        .unwrap_or(0)
}

/// Marks a run that was handed out, all of which was in `before`.
fn hand_out(frames: &mut [Frame], run: FrameRun, before: Frame) {
    assert!(run.frames > 0);
    for frame in &mut frames[numbers(run)] {
        assert_eq!(*frame, before, "{run:?}");
        *frame = Frame::Used;
    }
    let numbers = numbers(run);
    assert_eq!(numbers.start / CHUNK, (numbers.end - 1) / CHUNK, "within one chunk");
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn each_frame_is_handed_out_once(
        count in prop_oneof![1..20_usize, 1..3 * CHUNK, Just(CHUNK), Just(2 * CHUNK)],
        steps in proptest::collection::vec(step(), 1..if cfg!(miri) { 12 } else { 100 }),
    ) {
        let memory = memory();
        let mut pool = FramePool::new(count, &memory).unwrap();
        let mut frames = core::iter::repeat_n(Frame::Hole, count).collect::<Vec<_>>();
        let mut out = Vec::<FrameRun>::new();
        for step in steps {
            match step {
                Step::Take { want } => {
                    let expected = longest(&frames, Frame::Hole).min(want);
                    let run = pool.take(want);
                    assert_eq!(run.map_or(0, |run| run.frames), expected);
                    if let Some(run) = run {
                        hand_out(&mut frames, run, Frame::Hole);
                        out.push(run);
                    }
                }
                Step::TakeStale { want } => {
                    let run = pool.take_stale(want);
                    assert_eq!(run.is_some(), frames.contains(&Frame::Stale));
                    if let Some(run) = run {
                        assert!(run.frames <= want);
                        hand_out(&mut frames, run, Frame::Stale);
                        out.push(run);
                    }
                }
                Step::TakeFreeChunk => {
                    let is_free = |chunk: &[Frame]| {
                        let is_free = chunk.iter().all(|&frame| frame != Frame::Used);
                        chunk.len() == CHUNK && is_free && chunk.contains(&Frame::Stale)
                    };
                    let run = pool.take_free_chunk();
                    assert_eq!(run.is_some(), frames.chunks(CHUNK).any(is_free));
                    if let Some(run) = run {
                        assert!(is_free(&frames[numbers(run)]));
                        frames[numbers(run)].fill(Frame::Used);
                        out.push(run);
                    }
                }
                Step::GiveBack { which, from, len, stale } if !out.is_empty() => {
                    let run = out.swap_remove(which % out.len());
                    let from = run.frames * from / 256;
                    let len = (run.frames * len / 256).clamp(1, run.frames - from);
                    let part = |from: usize, frames| FrameRun {
                        first: FrameNumber(run.first.0 + u32::try_from(from).unwrap()),
                        frames,
                    };
                    let given = part(from, len);
                    pool.give_back(given, stale);
                    frames[numbers(given)].fill(if stale { Frame::Stale } else { Frame::Hole });
                    let rest = [part(0, from), part(from + len, run.frames - from - len)];
                    out.extend(rest.into_iter().filter(|rest| rest.frames > 0));
                }
                Step::GiveBack { .. } => {}
            }
            let free = frames.iter().filter(|&&frame| frame != Frame::Used).count();
            assert_eq!(pool.free(), free);
        }
    }
}

#[test]
fn whole_chunks_go_last_and_whole() {
    let memory = memory();
    let mut pool = FramePool::new(2 * CHUNK, &memory).unwrap();
    let one = pool.take(1).unwrap();
    let whole = pool.take(CHUNK).unwrap();
    assert_eq!(whole.frames, CHUNK);
    assert_eq!(whole.first.0 as usize % CHUNK, 0);
    assert_eq!(pool.take(CHUNK).unwrap().frames, CHUNK - 1);
    assert!(pool.take(1).is_none());
    pool.give_back(whole, false);
    pool.give_back(one, false);
    let next = pool.take(1).unwrap();
    assert_eq!(next, one, "the whole one is spared");
}
