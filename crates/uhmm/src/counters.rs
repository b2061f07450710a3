//! What happened, counted by cause. Counting is one relaxed add; reading takes no lock.

// Nothing is decided by them, so they are no steps to the schedule explorer.
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters while they count. One relaxed add each, never a lock.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        /// What was counted up to some moment, since the address space was opened.
        ///
        /// The numbers are read one after the other while others count, so two of them need not be
        /// of the very same moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct CounterValues {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            pub(crate) fn values(&self) -> CounterValues {
                CounterValues { $($name: self.$name.0.load(Relaxed),)* }
            }
        }

        impl CounterValues {
            /// Each counter's name and value, in the order in which they are declared.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

/// One counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Relaxed);
    }
}

counters! {
    /// CPU faults on pages that were away.
    cpu_faults,
    /// CPU faults on trapped pages that had never been touched.
    cpu_first_touches,
    /// CPU faults that found the page there, or the area gone.
    cpu_faults_stale,
    /// CPU faults that were served by the thread that held the block, not by a handler.
    cpu_faults_parked,
    /// CPU faults looked up anew because the address space was changing.
    cpu_faults_retried,
    /// Device faults.
    device_faults,
    /// Pages moved to a device because it faulted on them.
    to_device_fault,
    /// Pages moved to a device as neighbours of a fault.
    to_device_neighbour,
    /// Pages moved to a device because the program asked.
    to_device_request,
    /// Of the pages moved to a device: made there, as they had never been touched.
    made_on_device,
    /// Pages that were made exclusive to a device.
    made_exclusive,
    /// Of the pages moved to a device: taken from another device.
    between_devices,
    /// Pages brought back because the CPU faulted on them.
    to_system_fault,
    /// Pages brought back as neighbours of a fault.
    to_system_neighbour,
    /// Pages brought back because a device's memory was short.
    to_system_eviction,
    /// Pages brought back because another device was to use them in main memory.
    to_system_coherence,
    /// Pages brought back because the program asked, or the device or the address space closed.
    to_system_request,
    /// Range faults.
    range_faults,
    /// Pages of which a device got a translation to where the program has them.
    mapped_in_place,
    /// Pages of which a device got a translation to a peer's memory.
    mapped_from_peer,
    /// Times that a mirror was told that its translations end.
    invalidations,
    /// Of the pages brought back: copied. The others were moved.
    copied_back,
    /// Pages that stayed in system memory although a migration was asked for.
    stayed,
    /// Pages of a device that ended because their area was unmapped or mapped over.
    ended_by_unmap,
    /// Pages of a device that ended because the program discarded their content.
    ended_by_discard,
    /// Pages of a device whose address changed with a remapping.
    remapped,
    /// Pages of a device that ended because the CPU's side had got a page of its own.
    superseded,
    /// Changes of the address space that were applied.
    changes,
    /// Times that changes waited for one that came before them and was told after.
    changes_waited,
    /// Unmappings of pages to which others had moved by the time that they were told.
    changes_outdated,
    /// Times that a commit backed out because the address space was changing.
    commits_retried,
    /// Accesses that were failed because there was no memory for their page.
    failed_for_memory,
    /// Children whose fork was told.
    children,
    /// Pages that such children got copies of, or marks for.
    copied_to_children,
}
