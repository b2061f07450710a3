//! A ring whose other side writes anything anywhere into it between the steps of this one: a side touches nothing
//! but its own place and the slot at it, believes a claim only where a ring can be so, and hears nothing from
//! whom it once did not believe. With two sides that keep to it all that is sent comes, in order.
#![no_main]

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use libfuzzer_sys::fuzz_target;
use uhmm::ring::{Receiver, RingMemory, SLOTS, Sender, WORDS, Words};
use uhmm_fuzz::Input;

const ALL: usize = size_of::<RingMemory>() / 8;

/// The words of a place, and of whether its side sleeps: of the sender, and of the receiver.
const PLACES: [usize; 2] = [0, 8];
const SLOTS_AT: usize = 16;

/// A ring as words.
fn words(memory: &RingMemory) -> &[AtomicU64; ALL] {
    // SAFETY: it is atomics, aligned to more than words, whose bytes are all words too.
    unsafe { &*std::ptr::from_ref(memory).cast() }
}

/// What a ring holds but for who sleeps.
fn seen(memory: &RingMemory) -> Vec<u64> {
    let mut seen: Vec<_> = words(memory).iter().map(|word| word.load(Relaxed)).collect();
    PLACES.iter().for_each(|&place| seen[place] &= u64::from(u32::MAX));
    seen
}

fn place(seen: &[u64], side: usize) -> u32 {
    seen[PLACES[side]] as u32
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let memory = Box::new(RingMemory::default());
    match input.byte() % 3 {
        0 => both_keep_to_it(&memory, input),
        1 => sends(&memory, input),
        _ => receives(&memory, input),
    }
});

fn both_keep_to_it(memory: &RingMemory, mut input: Input) {
    let (mut sender, mut receiver) = (Sender::new(memory), Receiver::new(memory));
    let (mut sent, mut received) = (0_u64, 0_u64);
    while !input.is_empty() {
        let sends = input.is_set();
        for _ in 0..input.below(300) {
            if sends {
                let room = sender.send(&[sent; WORDS]).expect("it is believed");
                assert_eq!(room, sent - received < SLOTS as u64);
                sent += u64::from(room);
            } else {
                let there = receiver.receive().expect("it is believed");
                assert_eq!(there, (received < sent).then_some([received; WORDS]));
                received += u64::from(there.is_some());
            }
        }
    }
}

/// Writes something somewhere.
fn meddle(memory: &RingMemory, input: &mut Input, own: u32, other: usize) {
    let known =
        [u64::from(own), u64::from(own.wrapping_sub(256)), u64::from(own.wrapping_add(256))];
    let word = if input.is_set() { PLACES[other] } else { input.below(ALL) };
    words(memory)[word].store(input.number(&known), Relaxed);
}

fn sends(memory: &RingMemory, mut input: Input) {
    let mut sender = Sender::new(memory);
    let (mut own, mut broken) = (0_u32, None);
    while !input.is_empty() {
        meddle(memory, &mut input, own, 1);
        let message: Words = [input.byte().into(); WORDS];
        let before = seen(memory);
        let under_way = own.wrapping_sub(place(&before, 1)) as usize;
        let result = sender.send(&message);
        let mut expected = before.clone();
        if broken.is_some() {
            assert_eq!(Some(result), broken);
        } else if under_way > SLOTS {
            assert!(result.is_err());
            broken = Some(result);
        } else if under_way == SLOTS {
            assert_eq!(result, Ok(false));
        } else {
            assert_eq!(result, Ok(true));
            expected[SLOTS_AT + own as usize % SLOTS * WORDS..][..WORDS].copy_from_slice(&message);
            own = own.wrapping_add(1);
            // The other half of the word is who sleeps.
            expected[PLACES[0]] = own.into();
        }
        assert!(seen(memory) == expected, "it wrote where it should not");
        sender.wait_for_room(Duration::ZERO);
        assert!(seen(memory) == expected, "it wrote where it should not");
    }
}

fn receives(memory: &RingMemory, mut input: Input) {
    let mut receiver = Receiver::new(memory);
    let (mut own, mut broken) = (0_u32, None);
    while !input.is_empty() {
        meddle(memory, &mut input, own, 0);
        let before = seen(memory);
        let there = place(&before, 0).wrapping_sub(own) as usize;
        let result = receiver.receive();
        let mut expected = before.clone();
        if broken.is_some() {
            assert_eq!(Some(result), broken);
        } else if there > SLOTS {
            assert!(result.is_err());
            broken = Some(result);
        } else if there == 0 {
            assert_eq!(result, Ok(None));
        } else {
            let slot = &before[SLOTS_AT + own as usize % SLOTS * WORDS..][..WORDS];
            assert_eq!(
                result.expect("it is believed").as_ref().map(|words| &words[..]),
                Some(slot)
            );
            own = own.wrapping_add(1);
            expected[PLACES[1]] = own.into();
        }
        assert!(seen(memory) == expected, "it wrote where it should not");
        receiver.wait(Duration::ZERO);
        assert!(seen(memory) == expected, "it wrote where it should not");
    }
}
