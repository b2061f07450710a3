//! The kernels, which run in either place.

use uhmm_soft::{ARGUMENTS, AccessError, Kernel, Worker};

/// Adds the third argument to the first number of each page.
pub(crate) const ADD: usize = 0;
/// Loads the first number of each page.
pub(crate) const TOUCH: usize = 1;
pub(crate) const PANIC: usize = 2;
/// Uses every kind of access on a page: see [`mix`].
pub(crate) const MIX: usize = 3;
/// Adds to the one number at the first argument, as many times as the second argument says.
pub(crate) const COUNT: usize = 4;
/// Loads the first number of each page, and goes on where it cannot.
pub(crate) const TOUCH_OR_NOT: usize = 5;
/// Fails from the item on that the first argument is, with an error of the kernel's own.
pub(crate) const GIVE_UP: usize = 6;
/// Loads past the end of the address space, or, for an odd item, atomically where it is not aligned.
pub(crate) const ASTRAY: usize = 7;

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel { name: "add", run: add },
    Kernel { name: "touch", run: touch },
    Kernel { name: "panic", run: panic },
    Kernel { name: "mix", run: mix },
    Kernel { name: "count", run: count },
    Kernel { name: "touch or not", run: touch_or_not },
    Kernel { name: "give up", run: give_up },
    Kernel { name: "astray", run: astray },
];

/// As many, of which one has another name.
pub(crate) const OTHER_KERNELS: &[Kernel] = &{
    let mut others = [Kernel { name: "sub", run: add }; KERNELS.len()];
    let mut place = 1;
    while place < KERNELS.len() {
        others[place] = KERNELS[place];
        place += 1;
    }
    others
};

type Result = core::result::Result<(), AccessError>;

fn number(argument: u64) -> usize {
    usize::try_from(argument).expect("a number of the machine's")
}

fn address(item: usize, arguments: &[u64; ARGUMENTS]) -> usize {
    number(arguments[0]) + item * number(arguments[1])
}

fn add(worker: &mut Worker<'_>, item: usize, arguments: &[u64; ARGUMENTS]) -> Result {
    let at = address(item, arguments);
    // SAFETY: as the caller of the launch says.
    unsafe {
        let value: u64 = worker.load(at)?;
        worker.store(at, value + arguments[2])
    }
}

fn touch(worker: &mut Worker<'_>, item: usize, arguments: &[u64; ARGUMENTS]) -> Result {
    // SAFETY: as the caller of the launch says.
    unsafe { worker.load::<u64>(address(item, arguments)) }.map(drop)
}

fn panic(_: &mut Worker<'_>, _: usize, _: &[u64; ARGUMENTS]) -> Result {
    panic!("a kernel of a test panics, as it is to")
}

/// Every kind of access, on the page of an item: numbers of each width, one that is not aligned and lies
/// in two pages, slices, bytes, and atomic operations. Asks for the next page ahead.
fn mix(worker: &mut Worker<'_>, item: usize, arguments: &[u64; ARGUMENTS]) -> Result {
    let (page, len) = (address(item, arguments), number(arguments[1]));
    // SAFETY: as the caller of the launch says.
    unsafe {
        worker.prefetch(page + len, 1);
        let first: u64 = worker.load(page)?;
        let low = u8::try_from(first % 251).expect("a byte");
        worker.store(page + 8, low)?;
        worker.store(page + 10, u16::from(low) * 3)?;
        worker.store(page + 12, i32::from(low) - 100)?;
        worker.store(page + 16, f64::from(low) / 8.0)?;
        // Not aligned.
        let part: u32 = worker.load(page + 5)?;
        worker.store(page + 25, part ^ 0x5a5a_5a5a)?;
        let mut words = [0_u64; 16];
        worker.load_slice(page, &mut words)?;
        worker.store_slice(page + len / 2, &words)?;
        // Bytes that lie on both sides of the page's middle.
        let mut bytes = [0; 33];
        worker.read(page + 1, &mut bytes)?;
        worker.write(page + len / 2 - 17, &bytes)?;
        let before: u64 = worker.fetch_add(page + 256, first)?;
        let seen = worker.compare_exchange(page + 264, before, first)?;
        worker.store(page + 272, u8::from(seen.is_ok()))
    }
}

fn count(worker: &mut Worker<'_>, _: usize, arguments: &[u64; ARGUMENTS]) -> Result {
    for _ in 0..arguments[1] {
        // SAFETY: as the caller of the launch says.
        let _: u64 = unsafe { worker.fetch_add(number(arguments[0]), 1) }?;
    }
    Ok(())
}

fn touch_or_not(worker: &mut Worker<'_>, item: usize, arguments: &[u64; ARGUMENTS]) -> Result {
    match touch(worker, item, arguments) {
        Err(AccessError::Fault(_) | AccessError::NotNamed { .. }) => Ok(()),
        other => other,
    }
}

fn give_up(_: &mut Worker<'_>, item: usize, arguments: &[u64; ARGUMENTS]) -> Result {
    let from = number(arguments[0]);
    if item < from { Ok(()) } else { Err(AccessError::GivenUp { address: item }) }
}

fn astray(worker: &mut Worker<'_>, item: usize, arguments: &[u64; ARGUMENTS]) -> Result {
    // SAFETY: as the caller of the launch says; neither is done.
    unsafe {
        if item.is_multiple_of(2) {
            worker.load_slice(usize::MAX - 7, &mut [0_u8; 16])
        } else {
            worker.fetch_add(number(arguments[0]) + 1, 1_u64).map(drop)
        }
    }
}
