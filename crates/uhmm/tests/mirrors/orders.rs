//! How large a device is told that pages are which a migration brings.

use core::{
    ptr::{self, NonNull},
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

use uhmm::{Begun, CopyingMemory, Frames, Ticket, Transfer, TransferError, units::BLOCK_PAGES};

use crate::{huge::HugePage, open, page, table::Listener};

/// Frames that pages are copied into and out of.
struct Memory(Vec<AtomicU8>);

impl Memory {
    fn new(frames: usize) -> Self {
        Self((0..frames * page()).map(|_| AtomicU8::new(0)).collect())
    }

    fn bytes(&self, frames: Frames) -> &[AtomicU8] {
        &self.0[frames.first * page()..][..frames.count * page()]
    }
}

// SAFETY: a transfer is done when it has begun, and frames hold what was copied in.
unsafe impl CopyingMemory for Memory {
    fn begin(&self, transfer: &Transfer) -> Result<Begun, TransferError> {
        let bytes = self.bytes(transfer.frames());
        let copy = |from: *const u8, to: *mut u8| {
            // SAFETY: there are as many bytes of pages, as the core says, and nobody else uses these frames
            // meanwhile.
            unsafe { ptr::copy_nonoverlapping(from, to, bytes.len()) };
        };
        match *transfer {
            Transfer::In { from, .. } => copy(from.as_ptr(), bytes.as_ptr().cast_mut().cast()),
            Transfer::Out { to, .. } => copy(bytes.as_ptr().cast(), NonNull::as_ptr(to)),
            _ => bytes.iter().for_each(|byte| byte.store(0, Relaxed)),
        }
        Ok(Begun::Done)
    }

    fn finish(&self, _: Ticket) -> Result<(), TransferError> {
        Ok(())
    }
}

#[test]
fn a_huge_page_that_is_copied_is_told_as_one() {
    const TEST: &str = "a_huge_page_that_is_copied_is_told_as_one";
    let Some(world) = open(TEST) else { return };
    let Some(huge) = HugePage::new(TEST, &world) else { return };
    let memory = Memory::new(2 * BLOCK_PAGES);
    let device = world.space.attach_copying(Listener::default(), memory, 2 * BLOCK_PAGES);
    let device = device.expect("a device");

    assert_eq!(device.migrate(huge.range()).expect("whole pages").moved(), BLOCK_PAGES);
    assert_eq!(device.device().take_given(), [(huge.numbers(0, BLOCK_PAGES), 9)]);
    // It is there already.
    assert_eq!(device.migrate(huge.range()).expect("whole pages").already(), BLOCK_PAGES);
    assert_eq!(device.device().take_given(), [(huge.numbers(0, BLOCK_PAGES), 9)]);

    // One page comes back, and goes again: it is no huge page any more.
    assert_eq!(device.bring_back(huge.part(7, 1)).expect("whole pages").moved(), 1);
    assert_eq!(device.migrate(huge.range()).expect("whole pages").moved(), 1);
    let given = device.device().take_given();
    let pages: usize = given.iter().map(|(pages, _)| pages.len()).sum();
    assert_eq!(pages, BLOCK_PAGES);
    assert!(given.iter().all(|(_, order)| *order == 0), "{given:?}");

    drop(device);
    huge.check();
    drop(world.mirror);
    world.space.close().expect("a close");
}
