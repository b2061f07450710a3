//! What happened, counted by cause. Counting is one relaxed add, noting what may be the most so far
//! mostly a load; reading takes no lock.

// Nothing is decided by them, so they are no steps to the schedule explorer.
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident: $kind:ty,)*) => {
        /// The counters while they count. One relaxed operation each, never a lock.
        #[derive(Debug, Default)]
        #[repr(C)]
        pub(crate) struct Counters {
            $(pub(crate) $name: $kind,)*
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
            /// A number that changes with the names and their order.
            pub(crate) const FINGERPRINT: u64 =
                fingerprint(concat!($(stringify!($name), " ",)*).as_bytes());

            pub(crate) fn values(&self) -> CounterValues {
                CounterValues { $($name: self.$name.get(),)* }
            }
        }

        impl CounterValues {
            /// Each counter's name and value, in the order in which they are declared.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            /// Whether the counter of this name is the most that was seen, and no sum: how fast it grows
            /// says nothing.
            pub fn is_maximum(name: &str) -> bool {
                [$((stringify!($name), <$kind>::IS_MAXIMUM),)*].contains(&(name, true))
            }
        }
    };
}

const fn fingerprint(text: &[u8]) -> u64 {
    // FNV-1a.
    let (mut hash, mut place) = (0xcbf2_9ce4_8422_2325_u64, 0);
    while place < text.len() {
        hash = (hash ^ text[place] as u64).wrapping_mul(0x0100_0000_01b3);
        place += 1;
    }
    hash
}

/// One counter.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    const IS_MAXIMUM: bool = false;

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    #[inline]
    pub(crate) fn add(&self, count: usize) {
        if count > 0 {
            self.0.fetch_add(count as u64, Relaxed);
        }
    }
}

/// The most of what was noted.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Maximum(AtomicU64);

impl Maximum {
    const IS_MAXIMUM: bool = true;

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn note(&self, value: u32) {
        // It seldom is the most, and a load leaves the line where other processors have it.
        if self.get() < value.into() {
            self.0.fetch_max(value.into(), Relaxed);
        }
    }
}

counters! {
    /// CPU faults on pages that were away.
    cpu_faults: Counter,
    /// CPU faults on trapped pages that had never been touched.
    cpu_first_touches: Counter,
    /// CPU faults that found the page there, or the area gone.
    cpu_faults_stale: Counter,
    /// CPU faults that were served by the thread that held the block, not by a handler.
    cpu_faults_parked: Counter,
    /// CPU faults that were over before their turn, as their thread had faulted again: the later one
    /// took the place in the block's queue.
    cpu_faults_over: Counter,
    /// CPU faults looked up anew because the address space was changing.
    cpu_faults_retried: Counter,
    /// Device faults.
    device_faults: Counter,
    /// Batches of device faults that were served.
    fault_batches: Counter,
    /// Areas that were looked up for batches of device faults.
    fault_areas: Counter,
    /// Of the faults of batches: merged with another on the same page.
    faults_merged: Counter,
    /// Of the faults of batches: stale, as the page was there, or the queue's work was over.
    faults_stale: Counter,
    /// Faults that were held back, as a device's fault buffer was full.
    faults_held_back: Counter,
    /// Queues of devices that were cancelled, as a fault could not be served.
    queues_cancelled: Counter,
    /// Pages moved to a device because it faulted on them.
    to_device_fault: Counter,
    /// Pages moved to a device as neighbours of a fault.
    to_device_neighbour: Counter,
    /// Pages moved to a device because the program asked.
    to_device_request: Counter,
    /// Of the pages moved to a device: made there, as they had never been touched.
    made_on_device: Counter,
    /// Pages that were made exclusive to a device.
    made_exclusive: Counter,
    /// Of the pages moved to a device: taken from another device.
    between_devices: Counter,
    /// Pages brought back because the CPU faulted on them.
    to_system_fault: Counter,
    /// Pages brought back as neighbours of a fault.
    to_system_neighbour: Counter,
    /// Pages brought back because a device's memory was short.
    to_system_eviction: Counter,
    /// Of these, pages whose frames nobody waited for.
    evicted_ahead: Counter,
    /// Pages brought back because another device was to use them in main memory.
    to_system_coherence: Counter,
    /// Pages brought back because the program asked, or the device or the address space closed.
    to_system_request: Counter,
    /// Range faults.
    range_faults: Counter,
    /// Pages of which a device got a translation to where the program has them.
    mapped_in_place: Counter,
    /// Pages of which a device got a translation to a peer's memory.
    mapped_from_peer: Counter,
    /// Times that a mirror was told that its translations end.
    invalidations: Counter,
    /// Pages whose content was lost with their device.
    poisoned: Counter,
    /// Of the pages brought back: copied. The others were moved.
    copied_back: Counter,
    /// Of the pages brought back from coherent memory: those that the program kept where they are, as it
    /// forked, or as the CPU does not let go of them.
    left_in_place: Counter,
    /// Pages that were copied into memory of a device that is reached by copies, or coherent.
    copied_in: Counter,
    /// Pages that were copied out of such memory. Some did not come back then, and were again.
    copied_out: Counter,
    /// Pages that left such memory without being copied out, as the engine still had what was copied in and
    /// the device had not written since.
    returned_clean: Counter,
    /// Copies into and out of devices' memory that failed.
    transfers_failed: Counter,
    /// Pages that were left in the engine's memory on their way, as a copy to a device had failed and
    /// they could not go back. They come back when they are touched, or asked for.
    left_in_transit: Counter,
    /// Pages that stayed in system memory although a migration was asked for.
    stayed: Counter,
    /// Pages of a device that ended because their area was unmapped or mapped over.
    ended_by_unmap: Counter,
    /// Pages of a device that ended because the program discarded their content.
    ended_by_discard: Counter,
    /// Pages of a device whose address changed with a remapping.
    remapped: Counter,
    /// Pages of a device, or on the way to one, that ended because the CPU's side had got a page of its own.
    /// What a device had counts as come back.
    superseded: Counter,
    /// Changes of the address space that were applied.
    changes: Counter,
    /// Times that changes waited for one that came before them and was told after.
    changes_waited: Counter,
    /// Unmappings of pages to which others had moved by the time that they were told.
    changes_outdated: Counter,
    /// Times that a commit backed out because the address space was changing.
    commits_retried: Counter,
    /// Accesses that were failed because there was no memory for their page.
    failed_for_memory: Counter,
    /// Children whose fork was told.
    children: Counter,
    /// Pages that such children got copies of, or marks for.
    copied_to_children: Counter,
    /// The most turns that passed before a thread or a fault had its own in a block's queue. No sum:
    /// the most that was seen.
    most_turns_waited: Maximum,
    /// The most of such turns that were of threads at work in the engine, the rest being faults: at
    /// most one of each other thread. No sum either.
    most_thread_turns_waited: Maximum,
}
