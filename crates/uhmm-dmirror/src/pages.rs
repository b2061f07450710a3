//! `gup_test`, by emulation: the kernel's tester of how drivers get a program's pages.
//!
//! The kernel's gets pages by `get_user_pages` and lets go of them. A program cannot call that. What it
//! does to pages is what counts for who looks after: each is made present and the program's own, as by a
//! store, and what a device holds privately comes back for it. What it holds in coherent memory
//! stays, but for who gets pages for long. So that is what is done here, and no pin is taken.
//!
//! Source: `mm/gup_test.c` and `mm/gup_test.h` of Linux 6.12.

use uhmm::{AddressSpace, units::AddressRange};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{error::Error, program};

/// What a call is given.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Argument {
    get_microseconds: u64,
    put_microseconds: u64,
    address: u64,
    bytes: u64,
    pages_per_call: u32,
    flags: u32,
    test_flags: u32,
    which_pages: [u32; 8],
    padding: u32,
}

/// `_IOWR('g', 1, struct gup_test)`.
const FIRST: u64 = 3 << 30 | (size_of::<Argument>() as u64) << 16 | (b'g' as u64) << 8 | 1;
/// How many calls there are that get pages and let them go: by `get_user_pages` and `pin_user_pages`, fast
/// or not, for long or not.
const CALLS: u64 = 5;

/// The call that gets pages for long, by its number behind the first.
const FOR_LONG: u64 = 2;
/// The flag by which others do (`FOLL_LONGTERM`).
const FOR_LONG_FLAG: u32 = 1 << 8;

/// Does what a call of `ioctl` on the tester asks for, in a program with the address space `space`, if it
/// has one; `argument` is the address of its structure.
///
/// # Errors
/// [`Error::Invalid`] where there is no such call, [`Error::Fault`] where a page cannot be had.
pub fn get_pages(space: Option<&AddressSpace>, request: u64, argument: usize) -> Result<(), Error> {
    let call = (request & u64::from(u32::MAX)).wrapping_sub(FIRST);
    if call >= CALLS {
        return Err(Error::Invalid);
    }
    let mut wanted = Argument::default();
    program::copy_from_program(argument, wanted.as_mut_bytes())?;
    let number = |number| usize::try_from(number).map_err(|_| Error::Invalid);
    if (call == FOR_LONG || wanted.flags & FOR_LONG_FLAG != 0)
        && let Some(space) = space
    {
        let range = AddressRange::new(number(wanted.address)?, number(wanted.bytes)?);
        let pages = range.map_err(|_| Error::Invalid)?.pages_touched(space.page_size());
        let whole = AddressRange::of_pages(pages, space.page_size());
        let report = space.bring_back(whole.map_err(|_| Error::Invalid)?);
        if report.map_err(|_| Error::Invalid)?.stayed() > 0 {
            return Err(Error::Busy);
        }
    }
    let address = core::ptr::with_exposed_provenance_mut(number(wanted.address)?);
    // SAFETY: no content changes.
    let done = unsafe { libc::madvise(address, number(wanted.bytes)?, libc::MADV_POPULATE_WRITE) };
    if done != 0 {
        return Err(Error::Fault);
    }
    program::copy_to_program(argument, wanted.as_bytes())
}
