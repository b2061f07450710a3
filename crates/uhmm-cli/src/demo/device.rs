//! The device that `uhmm demo` computes with: `soft`, on this process's address space.

use std::error::Error;
use std::mem::{MaybeUninit, size_of};

use uhmm::{AddressSpace, CounterValues};
use uhmm_soft::{AccessError, Options, Soft, Worker};

use super::accelerator::{Accelerator, Counters, DeviceError};
use crate::interrupt::Stop;
use crate::pagerank::{
    Step,
    kernel::{Operands, rank_of},
};
use uhmm_record::{Recorded, Recorder};

/// Vertices of one launch: between launches the user can stop the device.
const LAUNCH: usize = 1 << 16;

/// Opens a device with so many bytes of memory, or the next size that it can have.
pub(super) fn open(memory_bytes: u64) -> Result<Box<dyn Accelerator>, DeviceError> {
    let failed = |doing| move |source| DeviceError::Failed { doing, source };
    let space = AddressSpace::open()
        .map_err(|error| failed("the address space cannot be opened")(error.into()))?;
    let page = space.page_size().bytes();
    let bytes = usize::try_from(memory_bytes).unwrap_or(usize::MAX);
    let bytes = bytes.max(page).checked_next_multiple_of(page).unwrap_or(usize::MAX / page * page);
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(2);
    let soft = Soft::start(&space, Options::new(bytes).workers(workers))
        .map_err(|error| failed("the device cannot be started")(error.into()))?;
    Ok(Box::new(SoftAccelerator { recorder: None, soft, space, adopted_for: None }))
}

struct SoftAccelerator {
    recorder: Option<Recorder>,
    soft: Soft,
    space: AddressSpace,
    /// Where the vectors lay for which everything was adopted last.
    adopted_for: Option<[usize; 3]>,
}

impl Accelerator for SoftAccelerator {
    fn memory_bytes(&self) -> u64 {
        self.soft.memory() as u64
    }

    fn step(&mut self, step: Step<'_>, stop: &Stop) -> Result<(), DeviceError> {
        let lists = step.in_neighbours.as_ptr().addr();
        let contributions = step.contributions.as_ptr().addr();
        let ranks = step.ranks.as_mut_ptr().addr();
        if self.adopted_for != Some([lists, contributions, ranks]) {
            self.space.adopt_everything().map_err(|error| DeviceError::Failed {
                doing: "the program's memory cannot be adopted",
                source: error.into(),
            })?;
            self.adopted_for = Some([lists, contributions, ranks]);
        }
        let base = step.base;
        let vertices = step.ranks.len();
        for first in (0..vertices).step_by(LAUNCH) {
            stop.check()?;
            let items = first..vertices.min(first + LAUNCH);
            // SAFETY: the kernel touches memory through its worker alone, allocates nothing and
            // cannot panic. It reads the lists and contributions, which are borrowed for the step,
            // and writes the ranks of its own vertices, which are borrowed mutably.
            let done = unsafe {
                self.soft.run(items, move |worker, vertex| {
                    let mut operands = DeviceOperands { worker, lists, contributions };
                    let rank = rank_of(&mut operands, vertex, base)?;
                    worker.store(ranks + vertex * size_of::<f64>(), rank)
                })
            };
            done.map_err(|error| DeviceError::Failed {
                doing: "the device cannot compute the ranks",
                source: error.into(),
            })?;
        }
        Ok(())
    }

    fn counters(&self) -> Counters {
        let page = self.space.page_size().bytes() as u64;
        let CounterValues {
            cpu_faults,
            device_faults,
            to_device_fault,
            to_device_neighbour,
            to_device_request,
            to_system_fault,
            to_system_neighbour,
            to_system_eviction,
            to_system_request,
            ..
        } = self.space.counters();
        let to_device = to_device_fault + to_device_neighbour + to_device_request;
        let to_system =
            to_system_fault + to_system_neighbour + to_system_eviction + to_system_request;
        Counters {
            cpu_faults,
            device_faults,
            migrated_to_device_bytes: to_device * page,
            migrated_to_system_bytes: to_system * page,
        }
    }

    fn all_counters(&self) -> Vec<(&'static str, u64)> {
        self.space.counters().iter().collect()
    }

    fn record(&mut self) -> Result<(), DeviceError> {
        let recorder = Recorder::start(&self.space, Recorder::EVENTS).map_err(|error| {
            DeviceError::Failed { doing: "what happens cannot be recorded", source: error.into() }
        })?;
        self.recorder = Some(recorder);
        Ok(())
    }

    fn recorded(&mut self) -> Option<Recorded> {
        Some(self.recorder.take()?.stop())
    }

    fn close(self: Box<Self>) -> Result<(), DeviceError> {
        let Self { recorder, soft, space, .. } = *self;
        drop(recorder);
        drop(soft);
        space.close().map_err(|error| DeviceError::Failed {
            doing: "the address space cannot be closed",
            source: Box::<dyn Error + Send + Sync>::from(error.to_string()),
        })
    }
}

/// Reads operands through the device's page table.
///
/// # Invariants
/// The lists and the contributions are borrowed from the program while this lives.
struct DeviceOperands<'w, 'a> {
    worker: &'w mut Worker<'a>,
    /// The address of the first vertex's list.
    lists: usize,
    /// The address of the first contribution.
    contributions: usize,
}

/// A list as the program holds it: the address of its first neighbour, and how many there are.
#[derive(Clone, Copy)]
struct List {
    first: usize,
    len: usize,
}

impl Operands for DeviceOperands<'_, '_> {
    type List = List;
    type Error = AccessError;

    fn list(&mut self, vertex: usize) -> Result<List, AccessError> {
        // How a vector is laid out only Rust knows, so its bytes are taken over whole.
        let mut words = [0_usize; size_of::<Vec<u32>>() / size_of::<usize>()];
        let at = self.lists + vertex * size_of::<Vec<u32>>();
        // SAFETY: by the invariant the vectors are borrowed; their bytes are loaded.
        unsafe { self.worker.load_slice(at, &mut words) }?;
        let mut copy = MaybeUninit::<Vec<u32>>::uninit();
        // SAFETY: the words are the bytes of a vector that the program lends for the step; the copy
        // is only asked where its elements are and never dropped.
        let list = unsafe {
            copy.as_mut_ptr()
                .cast::<[usize; size_of::<Vec<u32>>() / size_of::<usize>()]>()
                .write(words);
            copy.assume_init_ref()
        };
        Ok(List { first: list.as_ptr().addr(), len: list.len() })
    }

    fn neighbours(
        &mut self,
        list: List,
        from: usize,
        into: &mut [u32],
    ) -> Result<usize, AccessError> {
        let got = into.len().min(list.len - from);
        let at = list.first + from * size_of::<u32>();
        // SAFETY: by the invariant the list, a vector's, is borrowed.
        unsafe { self.worker.load_slice(at, &mut into[..got]) }?;
        Ok(got)
    }

    fn contribution(&mut self, vertex: u32) -> Result<f64, AccessError> {
        let at = self.contributions + vertex as usize * size_of::<f64>();
        // SAFETY: by the invariant the contributions are borrowed.
        unsafe { self.worker.load(at) }
    }
}
