//! The routines that touch the program's memory, and what a thread's place in one of them means.
//!
//! Each is a leaf without a stack frame, in the processor's own file. It notes that an access is
//! under way, then comes its *critical part*. Before the end of that the access is not made, or
//! without effect: so a thread that is interrupted there, at its last instruction at the latest, can
//! be sent to where the access ends as refused, as restartable sequences are ended
//! (`Documentation/userspace-api/rseq.rst`). Behind it the access is made, and must not be called
//! refused, for who is refused makes it again. A copy is critical from its first byte to its last,
//! as it may be made again in part.

use core::{ffi::c_void, sync::atomic::AtomicU32};

use super::processor::Context;
use crate::mm::{Refused, Width};

/// What a routine answers, in the two registers for results.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Answer {
    /// What was loaded, or was there before.
    value: u64,
    /// Not zero where the access was refused.
    refused: u64,
}

impl Answer {
    const fn of(self, width: Width) -> Result<u64, Refused> {
        if self.refused == 0 { Ok(width.part_of(self.value)) } else { Err(Refused) }
    }
}

/// A critical part, as offsets from the start of the text.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Part {
    start: u32,
    end: u32,
}

type Busy = *const AtomicU32;
type Load = unsafe extern "C" fn(Busy, usize) -> Answer;
type Store = unsafe extern "C" fn(Busy, usize, u64) -> Answer;
type CompareExchange = unsafe extern "C" fn(Busy, usize, u64, u64) -> Answer;

unsafe extern "C" {
    fn uhmm_in_place_load_1(busy: Busy, address: usize) -> Answer;
    fn uhmm_in_place_load_2(busy: Busy, address: usize) -> Answer;
    fn uhmm_in_place_load_4(busy: Busy, address: usize) -> Answer;
    fn uhmm_in_place_load_8(busy: Busy, address: usize) -> Answer;
    fn uhmm_in_place_store_1(busy: Busy, address: usize, value: u64) -> Answer;
    fn uhmm_in_place_store_2(busy: Busy, address: usize, value: u64) -> Answer;
    fn uhmm_in_place_store_4(busy: Busy, address: usize, value: u64) -> Answer;
    fn uhmm_in_place_store_8(busy: Busy, address: usize, value: u64) -> Answer;
    fn uhmm_in_place_compare_exchange_1(b: Busy, at: usize, expected: u64, new: u64) -> Answer;
    fn uhmm_in_place_compare_exchange_2(b: Busy, at: usize, expected: u64, new: u64) -> Answer;
    fn uhmm_in_place_compare_exchange_4(b: Busy, at: usize, expected: u64, new: u64) -> Answer;
    fn uhmm_in_place_compare_exchange_8(b: Busy, at: usize, expected: u64, new: u64) -> Answer;
    fn uhmm_in_place_fetch_add_1(busy: Busy, address: usize, value: u64) -> Answer;
    fn uhmm_in_place_fetch_add_2(busy: Busy, address: usize, value: u64) -> Answer;
    fn uhmm_in_place_fetch_add_4(busy: Busy, address: usize, value: u64) -> Answer;
    fn uhmm_in_place_fetch_add_8(busy: Busy, address: usize, value: u64) -> Answer;
    fn uhmm_in_place_copy(busy: Busy, to: *mut u8, from: *const u8, bytes: usize) -> Answer;
    /// Where every routine ends whose access is refused. Only to be gone on at in one of them.
    fn uhmm_in_place_refused();
    /// Where the text of the routines starts.
    safe static uhmm_in_place_text: u8;
    /// The critical parts, from here to the next.
    safe static uhmm_in_place_parts: Part;
    safe static uhmm_in_place_parts_end: Part;
}

/// Loads.
///
/// # Safety
/// `busy` is the calling thread's own, and its accessor is open. The access may race with the
/// program as atomics do.
pub(in super::super) unsafe fn load(
    busy: &AtomicU32,
    address: usize,
    width: Width,
) -> Result<u64, Refused> {
    check(address, width);
    let routine: Load = match width {
        Width::One => uhmm_in_place_load_1,
        Width::Two => uhmm_in_place_load_2,
        Width::Four => uhmm_in_place_load_4,
        Width::Eight => uhmm_in_place_load_8,
    };
    // SAFETY: the caller's promise; a fault of the routine is answered as refused.
    unsafe { routine(busy, address) }.of(width)
}

/// Stores.
///
/// # Safety
/// As of [`load`].
pub(in super::super) unsafe fn store(
    busy: &AtomicU32,
    address: usize,
    width: Width,
    value: u64,
) -> Result<(), Refused> {
    check(address, width);
    let routine: Store = match width {
        Width::One => uhmm_in_place_store_1,
        Width::Two => uhmm_in_place_store_2,
        Width::Four => uhmm_in_place_store_4,
        Width::Eight => uhmm_in_place_store_8,
    };
    // SAFETY: as in `load`.
    unsafe { routine(busy, address, value) }.of(width).map(drop)
}

/// Stores `new` where `expected` is, and answers what was there.
///
/// # Safety
/// As of [`load`].
pub(in super::super) unsafe fn compare_exchange(
    busy: &AtomicU32,
    address: usize,
    width: Width,
    expected: u64,
    new: u64,
) -> Result<u64, Refused> {
    check(address, width);
    let routine: CompareExchange = match width {
        Width::One => uhmm_in_place_compare_exchange_1,
        Width::Two => uhmm_in_place_compare_exchange_2,
        Width::Four => uhmm_in_place_compare_exchange_4,
        Width::Eight => uhmm_in_place_compare_exchange_8,
    };
    // SAFETY: as in `load`.
    unsafe { routine(busy, address, width.part_of(expected), new) }.of(width)
}

/// Adds, and answers what was there.
///
/// # Safety
/// As of [`load`].
pub(in super::super) unsafe fn fetch_add(
    busy: &AtomicU32,
    address: usize,
    width: Width,
    value: u64,
) -> Result<u64, Refused> {
    check(address, width);
    let routine: Store = match width {
        Width::One => uhmm_in_place_fetch_add_1,
        Width::Two => uhmm_in_place_fetch_add_2,
        Width::Four => uhmm_in_place_fetch_add_4,
        Width::Eight => uhmm_in_place_fetch_add_8,
    };
    // SAFETY: as in `load`.
    unsafe { routine(busy, address, value) }.of(width)
}

fn check(address: usize, width: Width) {
    debug_assert!(address.is_multiple_of(width.bytes()), "an access in place is aligned");
}

/// Copies. One side is the program's memory, the other is the caller's own.
///
/// # Safety
/// As of [`load`]; the caller's own side is valid for the copy.
pub(in super::super) unsafe fn copy(
    busy: &AtomicU32,
    to: *mut u8,
    from: *const u8,
    bytes: usize,
) -> Result<(), Refused> {
    // SAFETY: as in `load`.
    unsafe { uhmm_in_place_copy(busy, to, from, bytes) }.of(Width::Eight).map(drop)
}

/// Has a thread that was interrupted in a critical part go on where its access ends as refused.
/// Answers whether it was in one.
pub(super) fn refuse(context: &mut Context) -> bool {
    let offset = context.position().wrapping_sub((&raw const uhmm_in_place_text).addr());
    let critical =
        parts().iter().any(|part| (part.start as usize..part.end as usize).contains(&offset));
    if critical {
        context.go_on_at(uhmm_in_place_refused as *const c_void);
    }
    critical
}

/// The critical parts.
fn parts() -> &'static [Part] {
    let (start, end) = (&raw const uhmm_in_place_parts, &raw const uhmm_in_place_parts_end);
    // SAFETY: the processor's file puts nothing but parts between the two, and nobody writes there.
    unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_critical_parts_are_in_order_and_apart() {
        let parts = parts();
        assert_eq!(parts.len(), 17);
        assert!(parts.iter().all(|part| part.start < part.end));
        assert!(parts.windows(2).all(|pair| pair[0].end < pair[1].start));
    }
}
