//! A copy to a device fails, and the pages cannot go back at once either: their content waits on the way,
//! and nobody misses it.

use core::ops::Range;

use uhmm::{
    AddressSpace, Options, StayCause,
    mm::{
        Errno, Stop,
        injected::{Call, Failure, Injected, Injections},
    },
    units::AddressRange,
};
use uhmm_soft::{Bus, Options as DeviceOptions, Soft};

use crate::{
    has_linux,
    world::{LinuxWorld, ModelWorld, World},
};

/// Pages of two blocks, of which all go.
const AREA: Range<usize> = 500..524;
/// Those of the first block: the first transfer's.
const FIRST: usize = 512 - AREA.start;
const MOVED_TO: usize = 1100;

const fn content(page: usize) -> u64 {
    page as u64 * 3 + 1
}

struct Left<W: World> {
    world: W,
    space: AddressSpace<Injected<W::Mm>>,
    device: Soft<Injected<W::Mm>>,
    injections: Injections,
}

impl<W: World> Left<W> {
    fn range(&self, pages: Range<usize>) -> AddressRange {
        let start = self.world.address(pages.start);
        AddressRange::new(start, self.world.address(pages.end) - start).unwrap()
    }

    /// A copy fails, and of its pages all but the first stay on the way.
    fn new() -> Self {
        let (world, mm) = W::start();
        let mm = Injected::new(mm);
        let injections = mm.injections();
        let options = Options::new().engine_memory(Options::LEAST_ENGINE_MEMORY);
        let space = options.open_on(mm).unwrap();
        world.map(AREA);
        for page in AREA {
            world.store(page, content(page)).unwrap();
        }
        let options = DeviceOptions::new(64 * space.page_size().bytes()).behind_bus(Bus::new());
        let device = Soft::start(&space, options).unwrap();
        let left = Self { world, space, device, injections };
        left.space.adopt(left.range(AREA)).unwrap();
        left.device.fail_transfer(1);
        let stop = Failure::Stop { after: 1, stop: Stop::Changing };
        left.injections.inject(Call::Give, 1, stop);
        let report = left.device.migrate(left.range(AREA)).unwrap();
        assert_eq!((report.moved(), report.stayed()), (AREA.len() - FIRST, FIRST));
        assert!(report.causes().all(|stayed| matches!(stayed.cause, StayCause::DeviceFails(_))));
        let counters = left.space.counters();
        assert_eq!((counters.transfers_failed, counters.left_in_transit), (1, FIRST as u64 - 1));
        left
    }

    fn check(&self, pages: Range<usize>, first: usize) {
        for (page, of) in pages.zip(first..) {
            assert_eq!(self.world.load(page), Some(content(of)), "page {page}");
        }
    }

    fn end(self) {
        assert_eq!(self.injections.clear(), 0);
        drop(self.device);
        self.space.close().unwrap();
        assert_eq!(self.world.end(), None);
    }
}

fn the_processor_gets_them<W: World>() {
    let left = Left::<W>::new();
    left.check(AREA, AREA.start);
    left.end();
}

fn the_device_gets_them<W: World>() {
    let left = Left::<W>::new();
    let report = left.device.migrate(left.range(AREA)).unwrap();
    assert_eq!((report.moved(), report.stayed()), (FIRST, 0));
    left.check(AREA, AREA.start);
    left.end();
}

fn another_device_gets_them<W: World>(options: impl Fn(DeviceOptions) -> DeviceOptions) {
    let left = Left::<W>::new();
    let memory = DeviceOptions::new(64 * left.space.page_size().bytes());
    let other = Soft::start(&left.space, options(memory)).unwrap();
    let report = other.migrate(left.range(AREA)).unwrap();
    assert_eq!((report.moved(), report.stayed()), (AREA.len(), 0));
    left.check(AREA, AREA.start);
    drop(other);
    left.end();
}

fn they_move_and_end<W: World>() {
    let left = Left::<W>::new();
    left.world.remap(AREA, MOVED_TO);
    left.world.unmap(MOVED_TO..MOVED_TO + 3);
    left.world.discard(MOVED_TO + 3..MOVED_TO + 5);
    for page in MOVED_TO + 3..MOVED_TO + 5 {
        assert_eq!(left.world.load(page), Some(0));
    }
    left.check(MOVED_TO + 5..MOVED_TO + AREA.len(), AREA.start + 5);
    left.end();
}

/// The device is lost: they are not.
fn the_device_is_lost<W: World>() {
    let left = Left::<W>::new();
    assert_eq!(left.device.lose(), AREA.len() - FIRST);
    left.check(AREA.start..AREA.start + FIRST, AREA.start);
    for page in AREA.start + FIRST..AREA.end {
        assert_eq!(left.world.load(page), None, "page {page}");
    }
    left.end();
}

/// The device goes.
fn the_device_ends<W: World>() {
    let left = Left::<W>::new();
    // One of the tries to bring them back fails too.
    left.injections.inject(Call::Give, 1, Failure::Errno(Errno(libc::ENOMEM)));
    left.injections.inject(Call::Copy, 1, Failure::Errno(Errno(libc::ENOMEM)));
    let Left { world, space, device, injections } = left;
    drop(device);
    assert_eq!(injections.clear(), 0);
    for page in AREA {
        assert_eq!(world.load(page), Some(content(page)));
    }
    space.close().unwrap();
    assert_eq!(world.end(), None);
}

fn all<W: World>() {
    the_processor_gets_them::<W>();
    the_device_gets_them::<W>();
    another_device_gets_them::<W>(|memory| memory);
    another_device_gets_them::<W>(|memory| memory.behind_bus(Bus::new()));
    they_move_and_end::<W>();
    the_device_is_lost::<W>();
    the_device_ends::<W>();
}

#[test]
fn what_is_left_in_transit_is_not_lost_on_the_model() {
    all::<ModelWorld>();
}

#[test]
fn what_is_left_in_transit_is_not_lost_on_linux() {
    if has_linux("what_is_left_in_transit_is_not_lost_on_linux") {
        all::<LinuxWorld>();
    }
}
