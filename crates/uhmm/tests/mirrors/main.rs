//! Mirrors and range faults on Linux, by the public interface: memory of every kind, what is told of
//! its changes, and each error that there is.
#![cfg(not(any(shuttle, miri)))]
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "tests are off the fault path"
)]

mod errors;
mod exclusive;
mod huge;
#[path = "../support/huge_pages.rs"]
mod huge_pages;
mod invalidations;
mod kinds;
mod lives;
mod memory;
#[path = "../support/nobody.rs"]
mod nobody;
mod orders;
mod pool;
#[path = "../support/skip.rs"]
mod skip;
mod table;
mod turns;

use std::sync::{Mutex, MutexGuard, PoisonError};

use uhmm::{AddressSpace, Mirror};

use skip::skip;
use table::Recorder;

/// The size of a page in bytes.
fn page() -> usize {
    // SAFETY: asking for a number touches no memory.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("a size of pages")
}

/// An address space with a mirror of everything, while no other test has one.
struct World {
    mirror: Mirror<Recorder>,
    space: AddressSpace,
    _alone: MutexGuard<'static, ()>,
}

/// Opens it, or says why the test is left out; where the checks of the project run it may not be.
fn open(test: &str) -> Option<World> {
    open_with(test, Recorder::default())
}

fn open_with(test: &str, table: Recorder) -> Option<World> {
    static ONE: Mutex<()> = Mutex::new(());
    let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    match AddressSpace::open() {
        Ok(space) => {
            let mirror = space.mirror(space.everything(), table).expect("a mirror");
            Some(World { mirror, space, _alone: alone })
        }
        Err(error) => {
            skip(test, error);
            None
        }
    }
}

#[test]
fn and_all_of_it_as_an_ordinary_user() {
    nobody::run_all_but("and_all_of_it_as_an_ordinary_user");
}
