//! What an event tells, and how it is packed into four words.

use core::time::Duration;

use super::queue::Words;
use crate::{
    driver::{DeviceIndex, MAX_DEVICES},
    mm::Access,
    units::{PageNumber, PageRange},
};

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// When it began, in nanoseconds of `CLOCK_MONOTONIC`.
    pub began: u64,
    /// How long it took; 18 minutes at most.
    pub took: Duration,
    /// The thread that did it, by the system's number: for a CPU fault the one that served it.
    pub thread: u32,
    /// The processor on which it ended.
    pub processor: u16,
    /// The pages: of a fault the one that was touched.
    pub pages: PageRange,
    /// What it was.
    pub what: What,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// Pages changed their holder.
    Moved {
        /// Who held them.
        from: Holder,
        /// Who holds them from then on.
        to: Holder,
        /// Why.
        cause: MoveCause,
    },
    /// A thread of the program touched a trapped hole, and was served.
    CpuFault {
        /// How it touched it.
        access: Access,
        /// What came of it.
        outcome: CpuFaultOutcome,
    },
    /// A device had no translation of a page.
    DeviceFault {
        /// The device.
        device: DeviceIndex,
        /// How it touched the page.
        access: Access,
        /// What came of it.
        outcome: DeviceFaultOutcome,
    },
    /// A device asked for a range to be made accessible where it is.
    RangeFault {
        /// The device, if it has memory of its own.
        device: Option<DeviceIndex>,
    },
}

/// Who holds the content of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// System memory: the CPU reaches them without a fault.
    System,
    /// A device's memory.
    Device(DeviceIndex),
    /// Nobody: it is gone, or goes to another address.
    Nobody,
}

macro_rules! numbered {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// In a few words.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            fn of(number: u64) -> Option<Self> {
                Self::ALL.get(usize::try_from(number).ok()?).copied()
            }
        }
    };
}

numbered! {
    /// Why pages changed their holder.
    MoveCause {
        /// The device faulted on one of them, or the CPU on the first.
        Fault = "fault",
        /// They are neighbours of a page with a fault.
        Neighbour = "neighbour of a fault",
        /// The program asked, or their device or the address space closes.
        Request = "request",
        /// The program asked for a device to have them alone.
        Exclusive = "exclusive",
        /// Their device's memory is short.
        Eviction = "eviction",
        /// Another device is to use them in main memory.
        Coherence = "coherence",
        /// Their area was unmapped or mapped over.
        Unmapped = "unmapped",
        /// The program discarded their content.
        Discarded = "discarded",
        /// Their address changed.
        Remapped = "remapped",
        /// Their content was lost with the device.
        Lost = "lost with the device",
    }
}

numbered! {
    /// What came of a CPU fault.
    CpuFaultOutcome {
        /// The page was away and came back.
        BroughtBack = "brought back",
        /// The page had never been touched and was made.
        FirstTouch = "first touch",
        /// The page was there by then, or its area gone.
        Stale = "there already",
        /// There was no memory for the page, and the access failed.
        Failed = "failed for want of memory",
    }
}

numbered! {
    /// What came of a device fault.
    DeviceFaultOutcome {
        /// The page is in the device's memory.
        Migrated = "migrated",
        /// The device maps the page where it is.
        Mapped = "mapped in place",
        /// The device cannot have the page.
        Refused = "refused",
    }
}

// How the words are laid out: when it began; the first page; 40 bits of how long it took, 24 of how
// many pages; 32 bits of the thread, 12 of the processor, and five fields of 4, 5, 5, 5 and 1 bits.
const TOOK_BITS: u32 = 40;
const PAGES_BITS: u32 = 24;
const PROCESSOR_BITS: u32 = 12;
const FIELDS: u32 = 32 + PROCESSOR_BITS;

const fn ones(bits: u32) -> u64 {
    (1 << bits) - 1
}

impl Holder {
    const fn number(self) -> u64 {
        match self {
            Self::System => 0,
            Self::Nobody => 1,
            Self::Device(device) => 2 + device.0 as u64,
        }
    }

    fn of(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::System),
            1 => Some(Self::Nobody),
            number => device_of(number - 2).map(Self::Device),
        }
    }
}

fn device_of(number: u64) -> Option<DeviceIndex> {
    let number = u8::try_from(number).ok()?;
    (usize::from(number) < MAX_DEVICES).then_some(DeviceIndex(number))
}

impl What {
    /// Its kind and three fields.
    const fn fields(self) -> [u64; 5] {
        const fn written(access: Access) -> u64 {
            matches!(access, Access::Write) as u64
        }
        match self {
            Self::Moved { from, to, cause } => [0, from.number(), to.number(), cause as u64, 0],
            Self::CpuFault { access, outcome } => [1, 0, 0, outcome as u64, written(access)],
            Self::DeviceFault { device, access, outcome } => {
                [2, device.0 as u64, 0, outcome as u64, written(access)]
            }
            Self::RangeFault { device: Some(device) } => [3, device.0 as u64, 1, 0, 0],
            Self::RangeFault { device: None } => [3, 0, 0, 0, 0],
        }
    }

    fn of([kind, one, two, three, written]: [u64; 5]) -> Option<Self> {
        let access = if written == 1 { Access::Write } else { Access::Read };
        Some(match kind {
            0 => Self::Moved {
                from: Holder::of(one)?,
                to: Holder::of(two)?,
                cause: MoveCause::of(three)?,
            },
            1 => Self::CpuFault { access, outcome: CpuFaultOutcome::of(three)? },
            2 => Self::DeviceFault {
                device: device_of(one)?,
                access,
                outcome: DeviceFaultOutcome::of(three)?,
            },
            3 => Self::RangeFault { device: if two == 1 { Some(device_of(one)?) } else { None } },
            _ => return None,
        })
    }
}

impl Event {
    pub(super) fn pack(&self) -> Words {
        let most = |value: u64, bits| value.min(ones(bits));
        let took = u64::try_from(self.took.as_nanos()).unwrap_or(u64::MAX);
        let [kind, one, two, three, written] = self.what.fields();
        let fields = kind | one << 4 | two << 9 | three << 14 | written << 19;
        [
            self.began,
            self.pages.start().0 as u64,
            most(took, TOOK_BITS) | most(self.pages.len() as u64, PAGES_BITS) << TOOK_BITS,
            u64::from(self.thread)
                | most(self.processor.into(), PROCESSOR_BITS) << 32
                | fields << FIELDS,
        ]
    }

    /// The event in some words; nothing where they are of none.
    pub(crate) fn unpack([began, first, lengths, rest]: Words) -> Option<Self> {
        let fields = rest >> FIELDS;
        let field = |shift: u32, bits| fields >> shift & ones(bits);
        let first = usize::try_from(first).ok()?;
        let pages = usize::try_from(lengths >> TOOK_BITS).ok()?;
        first.checked_add(pages)?;
        Some(Self {
            began,
            took: Duration::from_nanos(lengths & ones(TOOK_BITS)),
            thread: u32::try_from(rest & ones(32)).ok()?,
            processor: u16::try_from(rest >> 32 & ones(PROCESSOR_BITS)).ok()?,
            pages: PageRange::of(PageNumber(first), pages),
            what: What::of([field(0, 4), field(4, 5), field(9, 5), field(14, 5), field(19, 1)])?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whats() -> impl Iterator<Item = What> {
        let last = DeviceIndex(15);
        let holders = [Holder::System, Holder::Nobody, Holder::Device(DeviceIndex(0))];
        let holders = holders.into_iter().chain([Holder::Device(last)]);
        let moves = holders.clone().flat_map(move |from| {
            holders.clone().flat_map(move |to| {
                MoveCause::ALL.iter().map(move |&cause| What::Moved { from, to, cause })
            })
        });
        let accesses = [Access::Read, Access::Write];
        let faults = accesses.into_iter().flat_map(move |access| {
            let by_cpu = CpuFaultOutcome::ALL.iter();
            let by_cpu = by_cpu.map(move |&outcome| What::CpuFault { access, outcome });
            let by_device = DeviceFaultOutcome::ALL.iter();
            let device = last;
            by_cpu.chain(by_device.map(move |&outcome| What::DeviceFault {
                device,
                access,
                outcome,
            }))
        });
        let ranges = [None, Some(last)].map(|device| What::RangeFault { device });
        moves.chain(faults).chain(ranges)
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        for what in whats() {
            let event = Event {
                began: u64::MAX - 3,
                took: Duration::from_nanos(ones(TOOK_BITS)),
                thread: u32::MAX,
                processor: 4095,
                pages: PageRange::of(PageNumber((1 << 52) - 512), 512),
                what,
            };
            assert_eq!(Event::unpack(event.pack()), Some(event));
        }
    }

    proptest! {
        #[test]
        fn any_words_are_an_event_or_none(words: Words) {
            if let Some(event) = Event::unpack(words) {
                assert_eq!(Event::unpack(event.pack()), Some(event));
            }
        }
    }
}
