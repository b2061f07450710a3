//! Pages that go, or may not be touched any more, while they are accessed.

use std::thread;

use super::*;

/// All accesses that there are, of one page; whether each was made.
fn all(open: &Open<'_>, page: Page) -> [bool; 6] {
    let address = page.address();
    let mut byte = [0];
    [
        open.load(address, Width::Two).is_ok(),
        open.copy_out(address + 3, &mut byte).is_ok(),
        open.store(address, Width::One, 1).is_ok(),
        open.compare_exchange(address, Width::Eight, 1, 1).is_ok(),
        open.fetch_add(address, Width::Four, 0).is_ok(),
        open.copy_in(address + 3, &[1]).is_ok(),
    ]
}

const MADE: [bool; 6] = [true; 6];
const REFUSED: [bool; 6] = [false; 6];

#[test]
fn what_is_not_there_is_refused() {
    let accessors = Accessors::new().unwrap();
    let open = Open::new(&accessors);
    let page = Page::new();
    assert_eq!(all(&open, page), MADE);
    page.unmap();
    assert_eq!(all(&open, page), REFUSED);
    // The first page, what is no address, and the kernel's part.
    for address in [8, 1 << 62, usize::MAX - 7] {
        assert_eq!(open.load(address, Width::Eight), Err(Refused));
        assert_eq!(open.fetch_add(address, Width::Eight, 1), Err(Refused));
    }
    assert_eq!(open.busy().load(Relaxed), 0);
}

#[test]
fn what_is_forbidden_is_refused() {
    let accessors = Accessors::new().unwrap();
    let open = Open::new(&accessors);
    let page = Page::new();
    page.protect(READ);
    // A comparison that fails need not be refused.
    assert_eq!(all(&open, page)[..3], [true, true, false]);
    assert_eq!(open.compare_exchange(page.address(), Width::Eight, 0, 1), Err(Refused));
    assert_eq!(all(&open, page)[4..], [false, false]);
    page.protect(NONE);
    assert_eq!(all(&open, page), REFUSED);
    page.protect(READ_WRITE);
    assert_eq!(all(&open, page), MADE);
}

#[test]
fn what_a_file_lost_is_refused() {
    let accessors = Accessors::new().unwrap();
    let open = Open::new(&accessors);
    let (page, file) = Page::of_file();
    assert_eq!(all(&open, page), MADE);
    rustix::fs::ftruncate(&file, 0).unwrap();
    assert_eq!(all(&open, page), REFUSED);
    rustix::fs::ftruncate(&file, 1).unwrap();
    assert_eq!(all(&open, page), MADE);
}

#[test]
fn a_copy_ends_at_the_first_page_that_is_not_there() {
    let accessors = Accessors::new().unwrap();
    let open = Open::new(&accessors);
    let page = Page::several(3);
    let second = Page(page.byte(page_bytes()).cast());
    second.protect(NONE);
    let bytes = [7; 64];
    assert_eq!(open.copy_in(second.address() - 32, &bytes), Err(Refused));
    let mut out = [0; 64];
    assert_eq!(open.copy_out(second.address() - 32, &mut out), Err(Refused));
    second.protect(READ_WRITE);
    assert_eq!(second.read(0), 0);
    assert_eq!(open.copy_in(second.address() - 32, &bytes), Ok(()));
    assert_eq!(open.copy_out(second.address() - 32, &mut out), Ok(()));
    assert_eq!(out, bytes);
}

/// Adds through an accessor again and again while `change` goes on for a while, and shows that what
/// was made and what was refused are told apart: the sum is the number of those made.
fn adds_while(page: Page, rounds: usize, mut change: impl FnMut(&Accessors, AccessorNumber)) {
    let accessors = Accessors::new().unwrap();
    let (over, number) = (AtomicBool::new(false), AtomicU32::new(u32::MAX));
    let (made, refused) = thread::scope(|scope| {
        let adder = scope.spawn(|| {
            let open = Open::new(&accessors);
            number.store(open.number().0, Release);
            let (mut made, mut refused) = (0_u64, 0_u64);
            while !over.load(Acquire) {
                match open.fetch_add(page.address(), Width::Eight, 1) {
                    Ok(_) => made += 1,
                    Err(Refused) => refused += 1,
                }
            }
            (made, refused)
        });
        let end = Over(&over);
        while number.load(Acquire) == u32::MAX {
            thread::yield_now();
        }
        for _ in 0..rounds {
            change(&accessors, AccessorNumber(number.load(Relaxed)));
        }
        drop(end);
        adder.join().unwrap()
    });
    page.protect(READ_WRITE);
    assert_eq!(page.word().load(Acquire), made, "and {refused} were refused");
}

#[test]
fn adds_are_made_or_refused_while_the_page_is_protected() {
    let page = Page::new();
    adds_while(page, 5_000, |_, _| {
        for protection in [READ, READ_WRITE, NONE, READ_WRITE] {
            page.protect(protection);
        }
    });
}

#[test]
fn adds_are_made_or_refused_while_others_refuse_them() {
    let page = Page::new();
    adds_while(page, 200_000, Accessors::refuse);
}

#[test]
fn accesses_survive_while_the_page_is_unmapped_and_mapped() {
    let accessors = Accessors::new().unwrap();
    let page = Page::new();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let open = Open::new(&accessors);
            let mut out = [0; 256];
            while !over.load(Acquire) {
                let _ = all(&open, page);
                let _ = open.copy_out(page.address() + 100, &mut out);
            }
            assert_eq!(all(&open, page), MADE);
        });
        let _end = Over(&over);
        for _ in 0..5_000 {
            page.unmap();
            page.map_again();
        }
    });
}
