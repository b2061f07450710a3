//! What each access does where nothing hinders it.

use super::*;
use crate::sync::thread_id;

const WIDTHS: [Width; 4] = [Width::One, Width::Two, Width::Four, Width::Eight];
const VALUE: u64 = 0x8182_8384_8586_8788;

/// The eight bytes at the start of a page.
fn word(page: Page) -> u64 {
    u64::from_le_bytes(core::array::from_fn(|offset| page.read(offset)))
}

#[test]
fn each_width_reaches_its_bytes_alone() {
    let accessors = Accessors::new().unwrap();
    let open = Open::new(&accessors);
    for width in WIDTHS {
        let page = Page::new();
        let address = page.address();
        let part = width.part_of(VALUE);
        assert_eq!(open.load(address, Width::Eight), Ok(0));
        assert_eq!(open.store(address, width, VALUE), Ok(()));
        assert_eq!(word(page), part);
        assert_eq!(open.store(address, Width::Eight, u64::MAX), Ok(()));
        assert_eq!(open.load(address, width), Ok(width.part_of(u64::MAX)));
        assert_eq!(open.store(address, width, VALUE), Ok(()));
        assert_eq!(open.load(address, width), Ok(part));
        let above = !width.part_of(u64::MAX);
        assert_eq!(word(page), above | part);
        assert_eq!(open.compare_exchange(address, width, 1, 2), Ok(part));
        assert_eq!(word(page), above | part);
        assert_eq!(open.compare_exchange(address, width, VALUE, 5), Ok(part));
        assert_eq!(word(page), above | 5);
        assert_eq!(open.fetch_add(address, width, u64::MAX), Ok(5));
        assert_eq!(word(page), above | 4);
        assert_eq!(open.fetch_add(address, width, u64::MAX - 5), Ok(4));
        assert_eq!(word(page), above | width.part_of(u64::MAX - 1));
        assert_eq!(open.busy().load(Relaxed), 0);
    }
}

/// A byte that tells its place from near ones.
fn pattern(place: usize) -> u8 {
    u8::try_from(place % 251).unwrap()
}

#[test]
fn copies_of_every_length_and_alignment() {
    let accessors = Accessors::new().unwrap();
    let open = Open::new(&accessors);
    let page = Page::several(2);
    let end = 2 * page_bytes();
    for offset in 0..end {
        page.write(offset, pattern(offset));
    }
    let mut out = [0; 100];
    for start in [0, 1, 7, 16, page_bytes() - 50, page_bytes() - 3] {
        for len in 0..out.len() - 1 {
            out.fill(0xff);
            assert_eq!(open.copy_out(page.address() + start, &mut out[1..=len]), Ok(()));
            assert!((0..len).all(|i| out[1 + i] == pattern(start + i)));
            assert!(out[0] == 0xff && out[1 + len..].iter().all(|&byte| byte == 0xff));
            let bytes: [u8; 100] = core::array::from_fn(|i| pattern(100 + i));
            assert_eq!(open.copy_in(page.address() + start, &bytes[..len]), Ok(()));
            for (i, &byte) in bytes[..len].iter().enumerate() {
                assert_eq!(page.read(start + i), byte);
                page.write(start + i, pattern(start + i));
            }
            assert_eq!(page.read(start + len), pattern(start + len));
        }
    }
}

#[test]
fn adds_of_threads_and_of_the_program_are_all_made() {
    const ADDS: u64 = 20_000;
    let accessors = Accessors::new().unwrap();
    let page = Page::new();
    std::thread::scope(|scope| {
        for width in [Width::Four, Width::Eight] {
            let accessors = &accessors;
            scope.spawn(move || {
                let open = Open::new(accessors);
                for _ in 0..ADDS {
                    open.fetch_add(page.address(), width, 1).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..ADDS {
                page.word().fetch_add(1, Relaxed);
            }
        });
    });
    assert_eq!(word(page), 3 * ADDS);
}

/// Which signals are blocked on this thread.
pub(super) fn blocked() -> u64 {
    let mut set = 0_u64;
    // SAFETY: the pointer is valid for the eight bytes that the last argument states.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, 0, &raw mut set, size_of::<u64>())
    };
    assert_eq!(result, 0);
    set
}

#[test]
fn signals_are_as_before_when_the_last_is_closed() {
    const SEGV: u64 = 1 << (libc::SIGSEGV - 1);
    const USR1: u64 = 1 << (libc::SIGUSR1 - 1);
    let accessors = Accessors::new().unwrap();
    for all_blocked in [false, true] {
        let signals = all_blocked.then(SignalsBlocked::new);
        let before = blocked();
        assert_eq!((before & SEGV != 0, before & USR1 != 0), (all_blocked, all_blocked));
        let (first, second) = (Open::new(&accessors), Open::new(&accessors));
        assert_eq!(first.number(), second.number());
        for _ in 0..2 {
            assert!(blocked() & SEGV == 0 && blocked() & USR1 != 0);
            assert_eq!(first.load(8, Width::Eight), Err(Refused));
        }
        drop(first);
        assert_eq!(second.load(8, Width::Eight), Err(Refused));
        drop(second);
        assert_eq!(blocked(), before);
        drop(signals);
    }
}

#[test]
fn places_run_out_and_are_given_back() {
    let accessors = Accessors::new().unwrap();
    let table = accessors.table();
    for thread in &table.threads[1..] {
        thread.store(u32::MAX, Relaxed);
    }
    let first = Open::new(&accessors);
    table.threads[0].store(u32::MAX, Relaxed);
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(accessors.open().map(drop), Err(Errno(libc::EAGAIN))));
    });
    table.threads[0].store(thread_id(), Relaxed);
    drop(first);
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(Open::new(&accessors).number(), AccessorNumber(0)));
    });
}

#[test]
fn a_place_that_was_left_behind_is_as_new_to_a_thread_of_that_number() {
    let accessors = Accessors::new().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| _ = accessors.open().unwrap());
    });
    let table = accessors.table();
    assert!(table.threads[0].load(Relaxed) != 0);
    table.threads[0].store(thread_id(), Relaxed);
    let before = blocked();
    assert_eq!(Open::new(&accessors).number(), AccessorNumber(0));
    assert_eq!((table.threads[0].load(Relaxed), blocked()), (0, before));
}

#[test]
fn signals_are_open_until_the_last_of_all_tables_is_closed() {
    let tables = [(); 2].map(|()| Accessors::new().unwrap());
    let before = blocked();
    let [first, second] = tables.each_ref().map(Open::new);
    drop(first);
    assert_eq!(second.load(8, Width::Eight), Err(Refused));
    assert!(blocked() != before);
    drop(second);
    assert_eq!(blocked(), before);
}
