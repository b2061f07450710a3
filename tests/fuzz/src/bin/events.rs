//! Events of a descriptor, and words of a recording: what is let through is an event that there may be, with what the
//! bytes say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uhmm::{
    fuzzing::{EVENT_BYTES, message, recorded},
    mm::{Access, Message},
    units::{PageNumber, PageRange, PageSize},
};
use uhmm_fuzz::Input;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let page = PageSize::new(1 << (6 + input.below(11))).expect("a power of two");
    while !input.is_empty() {
        if input.is_set() {
            told(&mut input, page);
        } else {
            let words = std::array::from_fn(|_| input.number(&[]));
            if let Some((event, packed)) = recorded(words) {
                assert!(event.pages.start().0.checked_add(event.pages.len()).is_some());
                assert_eq!(recorded(packed).expect("an event is one"), (event, packed));
            }
        }
    }
});

fn told(input: &mut Input, page: PageSize) {
    let mut bytes = [0; EVENT_BYTES];
    bytes[0] = 0x11 + (input.byte() % 8);
    let arguments: [u64; 3] = std::array::from_fn(|_| input.number(&[]));
    for (place, argument) in bytes[8..].chunks_exact_mut(8).zip(arguments) {
        place.copy_from_slice(&argument.to_ne_bytes());
    }
    let [one, two, three] = arguments;
    let at = |address: u64| PageNumber(address as usize >> page.bytes().trailing_zeros());
    let range = (at(two) >= at(one)).then(|| PageRange::new(at(one), at(two)));
    let same = |seen: PageRange| range.map_or(seen.is_empty(), |range| range == seen);
    let right = match (bytes[0], message(&bytes, page)) {
        (0x12, Some(Message::Fault { page, access, .. })) => {
            page == at(two) && (access == Access::Write) == (one & 1 == 1)
        }
        (0x13, Some(Message::Forked(_))) => true,
        (0x14, Some(Message::Remapped { from, to })) => {
            from.start() == at(one) && from.len() == at(three).0 && to == at(two)
        }
        (0x15, Some(Message::Discarded(pages))) | (0x16, Some(Message::Unmapped(pages))) => {
            same(pages)
        }
        (0x12..=0x16, _) => false,
        (_, message) => message.is_none(),
    };
    assert!(right, "{:#x}, {arguments:x?}: {:?}", bytes[0], message(&bytes, page));
}
