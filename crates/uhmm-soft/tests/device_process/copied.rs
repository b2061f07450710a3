//! How pages have left a device whose memory is reached by copies: copied out, or clean.

use uhmm::CounterValues;

/// How pages have left a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Out of the device.
    pub(crate) out: u64,
    /// Not out of the device, as it had not written them.
    pub(crate) clean: u64,
}

pub(crate) fn copied(out: usize, clean: usize) -> Copied {
    Copied { out: out as u64, clean: clean as u64 }
}

impl Copied {
    /// What was copied from one look at the counters to another.
    pub(crate) fn between(before: &CounterValues, after: &CounterValues) -> Self {
        Self {
            out: after.copied_out - before.copied_out,
            clean: after.returned_clean - before.returned_clean,
        }
    }
}

/// How pages come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Request,
    Touched,
    Eviction,
    Detached,
}

/// Of so many pages some that are written, and how many are copied then.
pub(crate) fn some_written(pages: usize) -> [(Vec<usize>, usize); 7] {
    [
        (vec![17], 1),
        (vec![], 0),
        (vec![0, pages - 1], 2),
        (vec![40, 41, 42], 3),
        // What is between takes one copy more than it would take to copy it along.
        (vec![3, 5], 3),
        (vec![3, 12], 2),
        ((0..pages).collect(), pages),
    ]
}
