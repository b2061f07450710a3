//! Kernels over slices, atomics and buffers of the program, without unsafe code.

mod arguments;
mod atomics;
mod ends;
mod jobs;
#[path = "../../../uhmm/tests/support/nobody.rs"]
mod nobody;
mod scopes;

use std::sync::{Mutex, MutexGuard, PoisonError};

use uhmm::{AddressSpace, units::AddressRange};
use uhmm_soft::{AccessError, InOut, Options, Placement, Soft, Worker};

/// A device on this process's address space, of which there is one at a time.
struct Machine {
    device: Soft,
    space: AddressSpace,
    _alone: MutexGuard<'static, ()>,
}

impl Machine {
    /// A device with two workers and a memory of so many bytes.
    fn start(memory: usize) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let space = AddressSpace::open().unwrap();
        let device = Soft::start(&space, Options::new(memory).workers(2)).unwrap();
        Self { device, space, _alone: alone }
    }

    /// The whole pages that values lie in, and share with others.
    fn pages_of<T>(&self, values: &[T]) -> AddressRange {
        let size = self.space.page_size();
        let pages = AddressRange::of_slice(values).unwrap().pages_touched(size);
        AddressRange::new(size.address_of(pages.start()), size.bytes_in(pages.len())).unwrap()
    }

    /// Has values worked on where `placement` says.
    fn place<T>(&self, values: &[T], placement: Placement) {
        let pages = self.pages_of(values);
        self.space.adopt(pages).unwrap();
        self.device.place(pages, placement).unwrap();
    }
}

const PLACEMENTS: [Placement; 2] = [Placement::Migrate, Placement::InPlace];

/// A kernel: adds one to an element.
fn add_one(worker: &mut Worker<'_>, item: usize, numbers: &InOut<u64>) -> Result<(), AccessError> {
    let number = numbers.get(worker, item)?;
    numbers.set(worker, item, number + 1)
}

#[test]
fn and_all_of_it_as_an_ordinary_user() {
    nobody::run_all_but("and_all_of_it_as_an_ordinary_user");
}
