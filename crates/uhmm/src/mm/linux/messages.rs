//! Messages of the descriptor: waiting for them, reading them, and ending a wait.

use core::time::Duration;
use std::time::Instant;

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fd::OwnedFd,
    io::Errno as E,
};

use super::{
    abi, abi::event, children::Spare, descriptor::Descriptor, forks::Forks, in_place::Accessors,
};
use crate::{
    mm::{Access, Child, Message},
    units::{PageNumber, PageRange, PageSize},
};

/// Messages read in one call: two kilobytes of stack.
const BATCH: usize = 64;
pub(super) const EVENT_BYTES: usize = size_of::<abi::Event>();

/// How long a fork that cannot go on for want of a descriptor waits before that is tried again.
const PAUSE: Duration = Duration::from_millis(1);

/// Waits for a message, a kick, or the time. Forks whose children are filled go on meanwhile.
pub(super) fn wait(
    descriptor: &Descriptor,
    kick: &OwnedFd,
    forks: Option<&Forks>,
    spare: &Spare,
    timeout: Option<Duration>,
) {
    let start = timeout.map(|_| Instant::now());
    let mut stuck = false;
    loop {
        let left = match (timeout, start) {
            (Some(timeout), Some(start)) => Some(timeout.saturating_sub(start.elapsed())),
            _ => None,
        };
        let most = if stuck { Some(left.map_or(PAUSE, |left| left.min(PAUSE))) } else { left };
        let hold = forks.filter(|_| !stuck).and_then(Forks::hold_to_read);
        let mut files = [
            PollFd::new(descriptor, PollFlags::IN),
            PollFd::new(kick, PollFlags::IN),
            hold.map_or(PollFd::new(kick, PollFlags::empty()), |hold| {
                PollFd::new(hold, PollFlags::IN)
            }),
        ];
        match rustix::event::poll(&mut files, most.map(time).as_ref()) {
            Err(E::INTR) => continue,
            Ok(0) if most != left => {
                stuck = false;
                continue;
            }
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let message = !files[0].revents().is_empty();
        // A kick ends the wait of one thread; others that saw it too wait on.
        let kicked = !files[1].revents().is_empty() && take_kick(kick);
        if let (Some(forks), Some(_), false) = (forks, hold, files[2].revents().is_empty()) {
            stuck = !forks.let_go(spare);
        }
        if message || kicked {
            return;
        }
    }
}

fn time(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// Whether there is something to read.
pub(super) fn is_readable(descriptor: &Descriptor) -> bool {
    let mut files = [PollFd::new(descriptor, PollFlags::IN)];
    rustix::event::poll(&mut files, Some(&time(Duration::ZERO))).is_ok_and(|ready| ready > 0)
}

/// Takes one kick, if there still is one.
fn take_kick(kick: &OwnedFd) -> bool {
    let mut count = [0_u8; size_of::<u64>()];
    rustix::io::retry_on_intr(|| rustix::io::read(kick, &mut count)).is_ok()
}

/// Ends the wait of one thread.
pub(super) fn kick(kick: &OwnedFd) {
    // It is refused only where so many kicks are there that every wait ends.
    let _ = rustix::io::retry_on_intr(|| rustix::io::write(kick, &1_u64.to_ne_bytes()));
}

/// Reads messages without waiting. A fault within an access in place, of `accessors`, is told to
/// nobody: the access is ended.
pub(super) fn read(
    descriptor: &Descriptor,
    page: PageSize,
    accessors: Option<&Accessors>,
    spare: &Spare,
    out: &mut [Message],
) -> usize {
    let mut buffer = [0_u8; BATCH * EVENT_BYTES];
    let room = &mut buffer[..out.len().min(BATCH) * EVENT_BYTES];
    if room.is_empty() {
        return 0;
    }
    loop {
        let read = match rustix::io::read(descriptor, &mut *room) {
            Err(E::INTR) => continue,
            // The message is of a fork, and this process has as many files open as it may. It stays
            // to be read.
            Err(E::MFILE | E::NFILE) if spare.give_up() => continue,
            Err(_) | Ok(0) => return 0,
            Ok(read) => read,
        };
        let (events, _) = room[..read].as_chunks::<EVENT_BYTES>();
        let messages = events
            .iter()
            .filter_map(|event| message(&parse(event), page))
            .filter(|message| !accessors.is_some_and(|accessors| is_ended(message, accessors)));
        let count = out.iter_mut().zip(messages).map(|(place, message)| *place = message).count();
        // Where there was room for more, all that was there has been read, were it only what is
        // told to nobody. A device may make more of that all the time.
        if count > 0 || read < room.len() {
            return count;
        }
    }
}

/// Whether it is the fault of an access in place, which is ended.
fn is_ended(message: &Message, accessors: &Accessors) -> bool {
    matches!(*message, Message::Fault { thread, .. } if accessors.refuse_fault_of(thread))
}

/// The event in its bytes.
pub(super) fn parse(bytes: &[u8; EVENT_BYTES]) -> abi::Event {
    let (words, _) = bytes.as_chunks::<{ size_of::<u64>() }>();
    let word = |i: usize| words.get(i).copied().map_or(0, u64::from_ne_bytes);
    let [kind, reserved @ ..] = words.first().copied().unwrap_or_default();
    abi::Event { kind, reserved, argument: [word(1), word(2), word(3)] }
}

/// The message in an event; `None` for kinds that are not asked for.
pub(super) fn message(event: &abi::Event, page: PageSize) -> Option<Message> {
    let [first, second, third] = event.argument;
    let page_of = |address: u64| page.page_of(abi::bytes(address));
    let range = |start: u64, end: u64| PageRange::new(page_of(start), page_of(end));
    Some(match event.kind {
        event::PAGEFAULT => {
            let [a, b, c, d, ..] = third.to_ne_bytes();
            let write = first & abi::PAGEFAULT_WRITE != 0;
            Message::Fault {
                page: page_of(second),
                access: if write { Access::Write } else { Access::Read },
                thread: u32::from_ne_bytes([a, b, c, d]),
            }
        }
        event::UNMAP => Message::Unmapped(range(first, second)),
        event::REMOVE => Message::Discarded(range(first, second)),
        event::FORK => {
            let [a, b, c, d, ..] = first.to_ne_bytes();
            Message::Forked(Child::new(u32::from_ne_bytes([a, b, c, d])))
        }
        event::REMAP => {
            let pages: PageNumber = page_of(third);
            Message::Remapped { from: PageRange::of(page_of(first), pages.0), to: page_of(second) }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u8, argument: [u64; 3]) -> [u8; EVENT_BYTES] {
        let mut bytes = [0; EVENT_BYTES];
        bytes[0] = kind;
        for (place, word) in bytes[8..].chunks_exact_mut(8).zip(argument) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn events_become_messages() {
        let page = PageSize::new(4096).unwrap();
        let at = |kind, argument| message(&parse(&event(kind, argument)), page);
        let mut thread = [0; 8];
        thread[..4].copy_from_slice(&77_u32.to_ne_bytes());
        assert_eq!(
            at(0x12, [1, 0x5123, u64::from_ne_bytes(thread)]),
            Some(Message::Fault { page: PageNumber(5), access: Access::Write, thread: 77 })
        );
        let three = PageRange::of(PageNumber(1), 3);
        assert_eq!(at(0x16, [0x1000, 0x4000, 0]), Some(Message::Unmapped(three)));
        assert_eq!(at(0x15, [0x1000, 0x4000, 0]), Some(Message::Discarded(three)));
        assert_eq!(
            at(0x14, [0x1000, 0x9000, 0x3000]),
            Some(Message::Remapped { from: three, to: PageNumber(9) })
        );
        let mut child = [0; 8];
        child[..4].copy_from_slice(&3_u32.to_ne_bytes());
        let child = [u64::from_ne_bytes(child), 0, 0];
        assert_eq!(at(0x13, child), Some(Message::Forked(Child::new(3))));
        assert_eq!(at(0x17, [3, 0, 0]), None);
    }

    proptest::proptest! {
        #[test]
        fn any_event_is_a_message_or_none(bytes: [u8; EVENT_BYTES]) {
            let page = PageSize::new(4096).unwrap();
            let _ = message(&parse(&bytes), page);
        }

        #[test]
        fn any_event_of_a_known_kind_is_a_message(kind in 0x12_u8..0x17, argument: [u64; 3]) {
            let page = PageSize::new(4096).unwrap();
            assert!(message(&parse(&event(kind, argument)), page).is_some());
        }
    }
}
