#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "tests are off the fault path"
)]

use core::{sync::atomic::Ordering::Relaxed, time::Duration};
use std::{boxed::Box, vec::Vec};

use proptest::prelude::*;

use super::{
    Command, Limits, Order, Receiver, Report, RingMemory, SLOTS, Sender, Words, cause_of,
    cause_words,
};
use crate::units::BLOCK_PAGES;

const LIMITS: Limits =
    Limits { frames: 1000, kernels: 3, workers: 5, pages: 4 * BLOCK_PAGES, page_bytes: 4096 };

fn cases() -> ProptestConfig {
    let cases = if cfg!(miri) { 4 } else { 20_000 };
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

/// Any words, mostly such as are nearly a message.
fn words() -> impl Strategy<Value = Words> {
    let small = prop_oneof![
        4 => 0..2_u64,
        4 => 0..3000_u64,
        1 => any::<u64>(),
        1 => Just(LIMITS.frames as u64),
        1 => Just((LIMITS.pages * LIMITS.page_bytes) as u64),
        1 => Just(u64::MAX),
    ];
    let head = prop_oneof![
        8 => (0..40_u64, 0..2_u64).prop_map(|(kind, flag)| kind | flag << 8),
        1 => any::<u64>(),
    ];
    let zeros = 0..8_usize;
    (head, proptest::array::uniform7(small), zeros).prop_map(|(head, rest, zeros)| {
        let mut words = [0; 8];
        words[0] = head;
        words[1..8 - zeros].copy_from_slice(&rest[..7 - zeros]);
        words
    })
}

proptest! {
    #![proptest_config(cases())]

    /// Whatever a parser lets through is within the limits, and is written as it was read.
    #[test]
    fn what_is_parsed_is_allowed_and_nothing_else_is(words in words()) {
        if let Ok(command) = Command::parse(words, &LIMITS) {
            prop_assert_eq!(command.encode(), words);
            match command {
                Command::Commit { pages, frame, .. } => {
                    prop_assert!(frame + pages.len() <= LIMITS.frames);
                    prop_assert!(!pages.is_empty() && pages.end().0 <= LIMITS.pages);
                    prop_assert!(pages.start().in_block() + pages.len() <= BLOCK_PAGES);
                }
                Command::Invalidate { pages } => {
                    prop_assert!(!pages.is_empty() && pages.end().0 <= LIMITS.pages);
                    prop_assert!(pages.start().in_block() + pages.len() <= BLOCK_PAGES);
                }
                Command::Stop => {}
            }
        }
        if let Ok(order) = Order::parse(words, &LIMITS) {
            prop_assert_eq!(order.encode(), words);
            if let Order::Launch { kernel, first, count, .. } = order {
                prop_assert!(kernel < LIMITS.kernels && first.checked_add(count).is_some());
            }
        }
        if let Ok(report) = Report::parse(words, &LIMITS) {
            prop_assert_eq!(report.encode(), words);
            let worker = match report {
                Report::Fault { worker, address, .. } => {
                    prop_assert!(address < LIMITS.pages * LIMITS.page_bytes);
                    worker
                }
                Report::Done { worker } | Report::Failed { worker, .. } => worker,
            };
            prop_assert!(worker < LIMITS.workers);
        }
    }

    /// What goes in comes out, in order, however the two sides take turns.
    #[test]
    fn a_ring_keeps_the_order(steps in proptest::collection::vec((any::<bool>(), 0..600_usize), 1..12)) {
        let memory = Box::new(RingMemory::default());
        let (mut sender, mut receiver) = (Sender::new(&memory), Receiver::new(&memory));
        let (mut sent, mut received) = (0_u64, 0_u64);
        for (sends, count) in steps {
            for _ in 0..count {
                if sends {
                    let room = sender.send(&[sent; 8]).unwrap();
                    prop_assert_eq!(room, sent - received < SLOTS as u64);
                    sent += u64::from(room);
                } else {
                    let expected = (received < sent).then_some([received; 8]);
                    prop_assert_eq!(receiver.receive().unwrap(), expected);
                    received += u64::from(expected.is_some());
                }
            }
        }
    }

    /// A side that writes anything anywhere into the ring ends the other's trust in it, or is heard as
    /// somebody who says nonsense: nothing is read or written outside the ring, and nothing hangs.
    #[test]
    fn the_other_side_can_write_anything(writes in proptest::collection::vec(
        (0..6_usize, prop_oneof![0..600_u32, any::<u32>()], words()), 1..40)) {
        let memory = Box::new(RingMemory::default());
        let (mut sender, mut receiver) = (Sender::new(&memory), Receiver::new(&memory));
        let mut heard = Vec::new();
        for (what, number, words) in writes {
            match what {
                0 => memory.sender.place.store(number, Relaxed),
                1 => memory.receiver.place.store(number, Relaxed),
                2 => memory.sender.sleeps.store(number, Relaxed),
                3 => memory.receiver.sleeps.store(number, Relaxed),
                _ => {
                    let slot = &memory.slots[number as usize % SLOTS];
                    slot.iter().zip(words).for_each(|(word, value)| word.store(value, Relaxed));
                }
            }
            let _ = sender.send(&words);
            if let Ok(Some(words)) = receiver.receive() {
                heard.push(Command::parse(words, &LIMITS));
            }
            receiver.wait(Duration::ZERO);
            sender.wait_for_room(Duration::ZERO);
        }
    }
}

/// Every cause that is written is read, and no two are written alike.
#[test]
fn causes_are_read_as_they_were_written() {
    let mut seen = Vec::new();
    for number in 0..40 {
        for with in [0, 1, 2, 3, 4, 5, 6, 7, u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX]
        {
            if let Some(cause) = cause_of([number, with]) {
                assert_eq!(cause_words(cause), [number, with]);
                assert!(!seen.contains(&cause), "{cause:?}");
                seen.push(cause);
                let order = Order::Refused { cause: Some(cause) };
                assert_eq!(Order::parse(order.encode(), &LIMITS), Ok(order));
            }
        }
    }
    // 17 with nothing, 7 kinds of memory, 3 with a number of 32 bits.
    assert_eq!(seen.len(), 17 + 7 + 3 * 9);
}

/// A side that once claimed what cannot be is not heard again, though it claims what can be.
#[test]
fn trust_that_is_lost_is_lost_for_good() {
    let memory = Box::new(RingMemory::default());
    let (mut sender, mut receiver) = (Sender::new(&memory), Receiver::new(&memory));
    assert_eq!(sender.send(&[1; 8]), Ok(true));
    memory.receiver.place.store(7, Relaxed);
    let error = sender.send(&[2; 8]).unwrap_err();
    assert_eq!((error.claimed, error.own), (7, 1));
    memory.receiver.place.store(1, Relaxed);
    assert_eq!(sender.send(&[2; 8]), Err(error));
    memory.sender.place.store(1000, Relaxed);
    let error = receiver.receive().unwrap_err();
    assert_eq!((error.claimed, error.own), (1000, 0));
    memory.sender.place.store(1, Relaxed);
    assert_eq!(receiver.receive(), Err(error));
}

#[test]
fn two_threads_talk() {
    const MESSAGES: u64 = if cfg!(miri) { 300 } else { 200_000 };
    let memory = Box::new(RingMemory::default());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut sender = Sender::new(&memory);
            for number in 0..MESSAGES {
                while !sender.send(&[number; 8]).unwrap() {
                    sender.wait_for_room(Duration::from_secs(1));
                }
            }
        });
        let mut receiver = Receiver::new(&memory);
        for number in 0..MESSAGES {
            loop {
                if let Some(words) = receiver.receive().unwrap() {
                    assert_eq!(words, [number; 8]);
                    break;
                }
                receiver.wait(Duration::from_secs(1));
            }
        }
    });
}
