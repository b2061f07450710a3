//! The steps of a random program, and how they are drawn.
//!
//! The program works on an arena of a few blocks, named by page from 0 on. Of each page it uses
//! [`CELL`] bytes, half of them at the page's start and half at its end, so that neighbouring pages
//! meet and an access can cross from one to the next whatever the size of a page is.

use std::{fmt, ops::Range};

use proptest::{collection, prelude::*, sample};
use uhmm::{
    Export, Want,
    mm::{
        Errno, PopulateFailure, Stop,
        injected::{Call, Failure as CallFailure},
    },
    units::BLOCK_PAGES,
};
use uhmm_soft::Placement;

use crate::world::Allowed;

/// Pages of the arena.
pub(crate) const PAGES: usize = 4 * BLOCK_PAGES;

/// Bytes that the program uses of each page.
pub(crate) const CELL: usize = 64;

/// The most bytes of one access.
pub(crate) const LONGEST: usize = 24;

/// The most pages of an area that only a device backs.
pub(crate) const MOST_RESERVED: usize = 4;

/// One of the two devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    First,
    Second,
}

/// An access of the same bytes of each of some pages: `len` bytes from `offset` on, which may reach
/// into the page behind.
#[derive(Clone, Debug)]
pub(crate) struct Cells {
    pub(crate) pages: Range<usize>,
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

/// A range that a device without memory asks for, what it wants of its pages, and of some of them
/// something else, of which the later counts.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) pages: Range<usize>,
    pub(crate) want: Want,
    pub(crate) overrides: Vec<(Range<usize>, Want)>,
    /// Whether it is to be told of each page what it got.
    pub(crate) tell: bool,
}

impl Ask {
    /// What is wanted of a page.
    pub(crate) fn of(&self, page: usize) -> Want {
        let last = self.overrides.iter().rev().find(|(pages, _)| pages.contains(&page));
        last.map_or(self.want, |&(_, want)| want)
    }
}

/// How a remapping moves pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// The old addresses are unmapped.
    Nothing,
    /// The old addresses stay mapped, without content.
    Holes,
}

/// One step of a program.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The range is adopted.
    Adopt(Range<usize>),
    /// Its adoption is taken back.
    Release(Range<usize>),
    /// The processor stores.
    Write(Cells, u64),
    /// The processor loads.
    Read(Cells),
    /// The range is asked to go to a device.
    Migrate(Which, Range<usize>),
    /// As [`Migrate`](Self::Migrate), what cannot be written too.
    MigrateUndisturbed(Which, Range<usize>),
    /// A device is to have the range alone.
    Exclusive(Which, Range<usize>),
    /// The range is asked to come back, from one device or from any.
    BringBack(Option<Which>, Range<usize>),
    /// A device loads.
    DeviceRead(Which, Cells),
    /// A device stores.
    DeviceWrite(Which, Cells, u64),
    /// The processor adds to a number of eight bytes, as one atomic access.
    Add(Cells, u64),
    /// A device does.
    DeviceAdd(Which, Cells, u64),
    /// A device is to have the range where the program has it, or in its own memory.
    Place(Which, Range<usize>, Placement),
    /// What a device lets its peers have of the range while it has it.
    Export(Which, Range<usize>, Export),
    /// A device gets an area that it alone backs, of so many pages, instead of the one that it had.
    Reserve { of: Which, pages: usize, export: Export },
    /// Its area ends.
    EndArea(Which),
    /// A device adds to a number of a page of a device's area.
    UseArea { by: Which, of: Which, page: usize, value: u64 },
    /// A device without memory asks for translations.
    RangeFault(Ask),
    /// It looks what it would find.
    Snapshot(Range<usize>),
    /// Devices are told that the range's protection changed.
    ProtectionChanged(Range<usize>),
    /// What may be done with the range changes, which the core is told or not.
    Protect { pages: Range<usize>, allowed: Allowed, told: bool },
    /// New memory is mapped, over what is there.
    Map(Range<usize>),
    /// The range is unmapped.
    Unmap(Range<usize>),
    /// What of the range is mapped moves to other addresses, over what is there, and the last run
    /// of it is made longer.
    Remap { from: Range<usize>, to: usize, more: usize, leave: Leave },
    /// The memory before the first hole from the page on is made longer in place.
    Grow { page: usize, more: usize },
    /// The end of the program's data, which is in the arena, is set to a page (`brk`): what was unmapped
    /// between the old end and the new one is mapped, or what was mapped is not any more.
    Break(usize),
    /// The content of the range is dropped.
    Discard(Range<usize>),
    /// The content of what may be written in the range is no longer needed: it may be dropped until it
    /// is written again.
    Free(Range<usize>),
    /// The memory behind the range is to be made free, which this kind of memory refuses.
    Remove(Range<usize>),
    /// Huge pages are wanted in the range.
    AdviseHuge(Range<usize>),
    /// The block is to be made one huge page; it may well be refused.
    Collapse(usize),
    /// The process forks. The child looks at all that it has, and ends.
    Fork(Child),
    /// A call to the system fails while a step is made, which is then made again.
    Failing { call: Call, nth: usize, failure: CallFailure, step: Box<Self> },
}

/// By what the process forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// libc.
    Libc,
    /// The bare system call.
    Raw,
}

/// What a child does, after it has looked at all that it has.
#[derive(Clone, Debug)]
pub(crate) struct Child {
    /// By what it is made.
    pub(crate) way: Way,
    /// By what it makes a child of its own, which looks likewise.
    pub(crate) then: Option<Way>,
    /// Whether it opens its own address space, and has a device take some of what it has.
    pub(crate) opens: bool,
    /// What it writes last.
    pub(crate) writes: Cells,
    pub(crate) value: u64,
}

/// A program.
/// How a device is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Make {
    /// The size of its memory, in pages.
    pub(crate) frames: usize,
    /// What memory that is.
    pub(crate) memory: Memory,
}

/// What a device's memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Pages move into it.
    Staging,
    /// Pages are copied into it and out of it.
    Copying,
    /// Pages are copied into it, and the CPU maps it.
    Coherent,
}

/// Devices of so many frames as one of these numbers.
pub(crate) fn make(frames: Vec<usize>) -> impl Strategy<Value = Make> {
    let memory = sample::select(vec![Memory::Staging, Memory::Copying, Memory::Coherent]);
    (sample::select(frames), memory).prop_map(|(frames, memory)| Make { frames, memory })
}

#[derive(Clone)]
pub(crate) struct Program {
    pub(crate) devices: [Make; 2],
    /// Whether the system may give the program huge pages.
    pub(crate) huge: bool,
    pub(crate) steps: Vec<Step>,
}

/// Shows steps one a line, whatever the caller wants.
pub(crate) fn show(f: &mut fmt::Formatter<'_>, steps: &[Step]) -> fmt::Result {
    steps.iter().enumerate().try_for_each(|(number, step)| writeln!(f, "  {number}: {step:?}"))
}

impl Which {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, huge, steps } = self;
        writeln!(f, "devices {devices:?}, huge pages: {huge}")?;
        show(f, steps)
    }
}

/// What the programs of a test have in them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// The part of the arena that the steps keep to.
    pub(crate) first: usize,
    pub(crate) pages: usize,
    /// Whether memory is mapped and moved to other addresses after the start, what may be done with
    /// it changes, huge pages are made, and areas are reserved: what then lies on a device depends on how
    /// the system forms areas, and where.
    pub(crate) maps: bool,
    /// Whether calls to the system fail.
    pub(crate) fails: bool,
}

impl Kind {
    /// The whole arena, every step.
    pub(crate) const ALL: Self = Self { first: 0, pages: PAGES, maps: true, fails: false };
}

/// Pages of the part, mostly close to where blocks and windows of pages begin and end.
fn page(kind: Kind) -> impl Strategy<Value = usize> {
    let edges = [
        0, 1, 2, 7, 8, 9, 10, 11, 15, 16, 17, 31, 32, 63, 64, 65, 127, 128, 129, 255, 256, 447,
        448, 509, 510, 511,
    ]
    .map(|edge| edge % BLOCK_PAGES);
    let place = prop_oneof![
        3 => sample::select(edges.to_vec()),
        1 => 0..BLOCK_PAGES,
    ];
    let blocks = kind.pages.div_ceil(BLOCK_PAGES);
    (0..blocks, place)
        .prop_map(move |(block, place)| kind.first + (block * BLOCK_PAGES + place) % kind.pages)
}

fn len(kind: Kind) -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 1_usize..5,
        4 => 5_usize..21,
        3 => 60_usize..68,
        2 => BLOCK_PAGES - 2..BLOCK_PAGES + 3,
        1 => 1..=kind.pages,
    ]
}

fn range(kind: Kind) -> impl Strategy<Value = Range<usize>> {
    (page(kind), len(kind))
        .prop_map(move |(start, len)| start..(start + len).min(kind.first + kind.pages))
}

/// Ranges short enough to be touched page by page.
fn cells(kind: Kind) -> impl Strategy<Value = Cells> {
    let len = prop_oneof![6 => 1_usize..4, 3 => 4_usize..21, 1 => 60_usize..68];
    (page(kind), len, 0..CELL, 1..=LONGEST).prop_map(move |(start, pages, offset, len)| {
        let end = kind.first + kind.pages;
        let pages = start..(start + pages).min(end);
        // Nothing reaches beyond the part.
        let len = if pages.end == end { len.min(CELL - offset) } else { len };
        Cells { pages, offset, len }
    })
}

/// Numbers of eight bytes, aligned, one a page.
fn numbers(kind: Kind) -> impl Strategy<Value = Cells> {
    cells(kind).prop_map(|Cells { pages, offset, .. }| Cells {
        pages,
        offset: offset / 8 * 8,
        len: 8,
    })
}

fn ask(kind: Kind) -> impl Strategy<Value = Ask> {
    let want = || {
        prop_oneof![
            1 => Just(Want::Present),
            2 => Just(Want::Read),
            2 => Just(Want::Write),
        ]
    };
    let overrides = prop_oneof![
        3 => Just(Vec::new()),
        2 => collection::vec((range(kind), want()), 1..4),
    ];
    (range(kind), want(), overrides, any::<bool>()).prop_map(|(pages, want, overrides, tell)| Ask {
        pages,
        want,
        overrides,
        tell,
    })
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![Just(Which::First), Just(Which::Second)]
}

fn export() -> impl Strategy<Value = Export> {
    prop_oneof![
        4 => Just(Export::Map),
        1 => Just(Export::SystemMemory),
        1 => Just(Export::Refuse),
    ]
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![Just(Way::Libc), Just(Way::Raw)]
}

fn child(kind: Kind) -> impl Strategy<Value = Child> {
    let then = prop_oneof![3 => Just(None), 1 => way().prop_map(Some)];
    let opens = prop_oneof![19 => Just(false), 1 => Just(true)];
    (way(), then, opens, cells(kind), any::<u64>())
        .prop_map(|(way, then, opens, writes, value)| Child { way, then, opens, writes, value })
}

/// How a call fails.
fn failing() -> impl Strategy<Value = (Call, CallFailure)> {
    let errno = || {
        let numbers = vec![libc::ENOMEM, libc::EINVAL];
        sample::select(numbers).prop_map(|number| CallFailure::Errno(Errno(number)))
    };
    let stops = vec![Stop::NoMemory, Stop::Changing, Stop::Busy, Stop::Refused];
    let stop = (0_usize..3, sample::select(stops))
        .prop_map(|(after, stop)| CallFailure::Stop { after, stop });
    let bulk: Vec<_> = Call::ALL.into_iter().filter(|call| call.is_bulk()).collect();
    let populate = CallFailure::Populate { after: 1, failure: PopulateFailure::NoMemory };
    // A first touch that cannot be filled with zeros ends with a signal.
    let ends_accesses = |(call, failure): &(Call, CallFailure)| {
        let changing = matches!(failure, CallFailure::Stop { stop: Stop::Changing, .. });
        *call == Call::Zero && !changing
    };
    prop_oneof![
        4 => (sample::select(Call::ALL.to_vec()), errno()),
        4 => (sample::select(bulk), stop),
        1 => Just((Call::Populate, populate)),
    ]
    .prop_filter("an access ends with a signal", move |failing| !ends_accesses(failing))
}

/// A step of a kind.
pub(crate) fn step(kind: Kind) -> BoxedStrategy<Step> {
    let plain = plain_step(kind).boxed();
    if !kind.fails {
        return plain;
    }
    let failing =
        (failing(), 1_usize..4, plain.clone()).prop_map(|((call, failure), nth, step)| {
            Step::Failing { call, nth, failure, step: Box::new(step) }
        });
    prop_oneof![3 => plain, 2 => failing].boxed()
}

/// What is done with an area that only a device backs.
fn area_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (which(), 1..=MOST_RESERVED, export())
            .prop_map(|(of, pages, export)| Step::Reserve { of, pages, export }),
        1 => which().prop_map(Step::EndArea),
        8 => (which(), which(), 0..MOST_RESERVED, any::<u64>())
            .prop_map(|(by, of, page, value)| Step::UseArea { by, of, page, value }),
    ]
}

fn plain_step(kind: Kind) -> impl Strategy<Value = Step> {
    let placement = prop_oneof![3 => Just(Placement::InPlace), 2 => Just(Placement::Migrate)];
    let leave = prop_oneof![3 => Just(Leave::Nothing), 2 => Just(Leave::Holes)];
    let more = prop_oneof![3 => Just(0), 1 => 1_usize..4, 1 => 16_usize..20];
    let end = kind.first + kind.pages;
    let remap = (range(kind), page(kind), more, leave).prop_filter_map(
        "the old and the new place overlap",
        move |(from, to, more, leave)| {
            let len = from.len().min(end - to);
            let from = from.start..from.start + len;
            // Memory that is to leave holes behind does not grow.
            let more = if leave == Leave::Holes { 0 } else { more.min(end - to - len) };
            let apart = to + len + more <= from.start || from.end <= to;
            apart.then_some(Step::Remap { from, to, more, leave })
        },
    );
    let allowed = prop_oneof![
        2 => Just(Allowed::Reading),
        1 => Just(Allowed::Nothing),
        3 => Just(Allowed::All),
    ];
    let protect = (range(kind), allowed, any::<bool>())
        .prop_map(|(pages, allowed, told)| Step::Protect { pages, allowed, told });
    // The data end in one place.
    let breaks = if kind.pages == PAGES {
        page(kind).prop_map(Step::Break).boxed()
    } else {
        range(kind).prop_map(Step::Map).boxed()
    };
    let changing = if kind.maps {
        prop_oneof![
            2 => breaks,
            3 => range(kind).prop_map(Step::Map),
            3 => protect,
            3 => remap,
            1 => (page(kind), 1_usize..20).prop_map(|(page, more)| Step::Grow { page, more }),
            1 => (0..PAGES / BLOCK_PAGES).prop_map(Step::Collapse),
            1 => range(kind).prop_map(Step::Free),
            1 => range(kind).prop_map(Step::Remove),
            1 => range(kind).prop_map(Step::AdviseHuge),
            1 => child(kind).prop_map(Step::Fork),
            3 => area_step(),
        ]
        .boxed()
    } else {
        (which(), range(kind)).prop_map(|(device, pages)| Step::Migrate(device, pages)).boxed()
    };
    prop_oneof![
        6 => (cells(kind), any::<u64>()).prop_map(|(cells, value)| Step::Write(cells, value)),
        4 => cells(kind).prop_map(Step::Read),
        6 => (which(), cells(kind)).prop_map(|(device, cells)| Step::DeviceRead(device, cells)),
        6 => (which(), cells(kind), any::<u64>())
            .prop_map(|(device, cells, value)| Step::DeviceWrite(device, cells, value)),
        5 => (which(), range(kind)).prop_map(|(device, pages)| Step::Migrate(device, pages)),
        2 => (which(), range(kind))
            .prop_map(|(device, pages)| Step::MigrateUndisturbed(device, pages)),
        2 => (which(), range(kind)).prop_map(|(device, pages)| Step::Exclusive(device, pages)),
        2 => (proptest::option::of(which()), range(kind))
            .prop_map(|(device, pages)| Step::BringBack(device, pages)),
        2 => (numbers(kind), any::<u64>()).prop_map(|(cells, value)| Step::Add(cells, value)),
        3 => (which(), numbers(kind), any::<u64>())
            .prop_map(|(device, cells, value)| Step::DeviceAdd(device, cells, value)),
        1 => (which(), range(kind), placement)
            .prop_map(|(device, pages, placement)| Step::Place(device, pages, placement)),
        2 => (which(), range(kind), export())
            .prop_map(|(device, pages, export)| Step::Export(device, pages, export)),
        6 => ask(kind).prop_map(Step::RangeFault),
        1 => range(kind).prop_map(Step::Snapshot),
        1 => range(kind).prop_map(Step::ProtectionChanged),
        3 => range(kind).prop_map(Step::Adopt),
        1 => range(kind).prop_map(Step::Release),
        2 => range(kind).prop_map(Step::Unmap),
        2 => range(kind).prop_map(Step::Discard),
        8 => changing,
    ]
}

/// A program of at most `most` steps.
pub(crate) fn program(kind: Kind, most: usize) -> impl Strategy<Value = Program> {
    let device = || make(vec![1, 2, 7, 16, 64, 65, 100, 511, 512, 513, 700, 1100]);
    let all = kind.first..kind.first + kind.pages;
    // Most programs begin with memory that devices may take, some with data that end where the arena does.
    let data = if kind.pages == PAGES && kind.maps { 4 } else { 0 };
    let begin = prop_oneof![
        1 => Just(Vec::new()),
        9 => Just(vec![Step::Map(all.clone()), Step::Adopt(all.clone())]),
        data => Just(vec![Step::Break(all.end), Step::Adopt(all)]),
    ];
    let steps = collection::vec(step(kind), 1..=most);
    (device(), device(), any::<bool>(), begin, steps).prop_map(
        move |(first, second, huge, begin, steps)| {
            let steps = begin.into_iter().chain(steps).take(most).collect();
            Program { devices: [first, second], huge: huge && kind.maps, steps }
        },
    )
}
