//! Failures that a test asks for, and a record of what the engine did.

use crate::{
    mm::{Errno, PopulateFailure, Stop},
    units::PageNumber,
};

/// The calls of the seam that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`Mm::take`](crate::mm::Mm::take).
    Take,
    /// [`Mm::give`](crate::mm::Mm::give).
    Give,
    /// [`Mm::copy`](crate::mm::Mm::copy).
    Copy,
    /// [`Mm::zero`](crate::mm::Mm::zero).
    Zero,
    /// [`Mm::poison`](crate::mm::Mm::poison).
    Poison,
    /// [`Mm::trap`](crate::mm::Mm::trap).
    Trap,
    /// [`Mm::untrap`](crate::mm::Mm::untrap).
    Untrap,
    /// [`Mm::mapping_at`](crate::mm::Mm::mapping_at).
    MappingAt,
    /// [`Mm::watch`](crate::mm::Mm::watch).
    Watch,
    /// [`Mm::populate`](crate::mm::Mm::populate).
    Populate,
    /// [`Mm::scan`](crate::mm::Mm::scan).
    Scan,
    /// [`Mm::may_write`](crate::mm::Mm::may_write).
    MayWrite,
    /// [`Mm::areas`](crate::mm::Mm::areas).
    Areas,
    /// [`Mm::exclusions`](crate::mm::Mm::exclusions).
    Exclusions,
    /// [`Mm::look`](crate::mm::Mm::look).
    Look,
    /// [`Mm::unshare`](crate::mm::Mm::unshare).
    Unshare,
    /// [`Mm::map_staging`](crate::mm::Mm::map_staging).
    MapStaging,
    /// [`Mm::empty_staging`](crate::mm::Mm::empty_staging).
    EmptyStaging,
    /// [`Mm::open_accessor`](crate::mm::Mm::open_accessor).
    OpenAccessor,
    /// [`Mm::set_inherited`](crate::mm::Mm::set_inherited).
    SetInherited,
    /// [`Mm::copy_to_child`](crate::mm::Mm::copy_to_child) and
    /// [`Mm::poison_in_child`](crate::mm::Mm::poison_in_child).
    FillChild,
}

impl Call {
    const COUNT: usize = Self::FillChild as usize + 1;

    /// Whether the call does page after page and reports how far it came.
    const fn is_bulk(self) -> bool {
        matches!(
            self,
            Self::Take | Self::Give | Self::Copy | Self::Zero | Self::Poison | Self::FillChild
        )
    }
}

/// What a call answers instead of doing all its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A bulk call does at most `after` pages and then stops so, unless it stops by itself before.
    Stop {
        /// Pages that it still does.
        after: usize,
        /// Why it goes no further.
        stop: Stop,
    },
    /// The call does nothing; a bulk call reports it as [`Stop::Other`],
    /// [`Mm::populate`](crate::mm::Mm::populate) as [`PopulateFailure::Other`].
    Errno(Errno),
    /// [`Mm::populate`](crate::mm::Mm::populate) makes at most `after` pages present and then fails
    /// so, unless it fails by itself before.
    Populate {
        /// Pages that it still makes present.
        after: usize,
        /// Why it goes no further.
        failure: PopulateFailure,
    },
}

/// Something that the core must never do, seen by the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A page was taken from an area that is not trapped: its next access would read zeros.
    TakenUntrapped(PageNumber),
    /// A page that is a hole was copied from: Linux would wait for a fault that nobody serves.
    CopiedHole(PageNumber),
    /// Zeros replaced a mark of poison: lost content reads as if there had been none.
    ZeroedPoison(PageNumber),
}

/// The failures to come.
#[derive(Debug, Default)]
pub(super) struct Injections {
    calls: [usize; Call::COUNT],
    /// Each fires when its call's count reaches the number.
    failures: Vec<(Call, usize, Failure)>,
}

impl Injections {
    /// Has the `nth` call of the kind from now on fail, the next being the first.
    pub(super) fn add(&mut self, call: Call, nth: usize, failure: Failure) {
        assert!(nth > 0, "the next call is the first");
        let fits = match failure {
            Failure::Errno(_) => true,
            Failure::Stop { .. } => call.is_bulk(),
            Failure::Populate { .. } => call == Call::Populate,
        };
        assert!(fits, "{call:?} does not fail so: give it an error number");
        self.failures.push((call, self.calls[call as usize] + nth, failure));
    }

    /// Counts a call and answers how it fails.
    pub(super) fn count(&mut self, call: Call) -> Option<Failure> {
        let number = &mut self.calls[call as usize];
        *number += 1;
        let due = (call, *number);
        let place = self.failures.iter().position(|&(call, number, _)| (call, number) == due)?;
        Some(self.failures.remove(place).2)
    }

    /// How many calls of the kind there were.
    pub(super) const fn calls(&self, call: Call) -> usize {
        self.calls[call as usize]
    }
}
