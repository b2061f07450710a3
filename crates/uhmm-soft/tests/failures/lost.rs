//! A device fails for good: its pages are marked, and all else lives.

use core::ops::Range;

use uhmm::{AddressSpace, Options, PageLocation, StayCause, mm::Mm, units::AddressRange};
use uhmm_soft::{Options as DeviceOptions, RunError, Soft};

use crate::{
    has_linux,
    world::{LinuxWorld, ModelWorld, World},
};

const LOST: Range<usize> = 508..516;
const ELSEWHERE: Range<usize> = 520..524;
const AT_HOME: Range<usize> = 530..532;
const AREA: Range<usize> = 508..532;

/// What memory the devices have: such that pages move into, and coherent.
const KINDS: [fn(DeviceOptions) -> DeviceOptions; 2] = [|options| options, DeviceOptions::coherent];

const fn content(page: usize) -> u64 {
    page as u64 + 7
}

fn range<W: World>(world: &W, pages: Range<usize>) -> AddressRange {
    let start = world.address(pages.start);
    AddressRange::new(start, world.address(pages.end) - start).unwrap()
}

fn read<M: Mm>(device: &Soft<M>, address: usize) -> Result<(), RunError> {
    // SAFETY: nobody touches the page meanwhile.
    unsafe { device.run(0..1, move |worker, _| worker.load::<u64>(address).map(drop)) }
}

fn a_device_is_lost<W: World>(options_of: impl Fn(DeviceOptions) -> DeviceOptions) {
    let (world, mm) = W::start();
    let options = Options::new().engine_memory(Options::LEAST_ENGINE_MEMORY);
    let space: AddressSpace<W::Mm> = options.open_on(mm).unwrap();
    world.map(AREA);
    for page in AREA {
        world.store(page, content(page)).unwrap();
    }
    space.adopt(range(&world, AREA)).unwrap();
    let memory = options_of(DeviceOptions::new(16 * space.page_size().bytes()));
    let [one, other] = [(); 2].map(|()| Soft::start(&space, memory).unwrap());
    assert_eq!(one.migrate(range(&world, LOST)).unwrap().moved(), LOST.len());
    assert_eq!(other.migrate(range(&world, ELSEWHERE)).unwrap().moved(), ELSEWHERE.len());

    assert_eq!(one.lose(), LOST.len());
    assert_eq!(space.counters().poisoned, LOST.len() as u64);
    assert_eq!(one.memory_used(), 0);
    for page in LOST {
        assert_eq!(world.load(page), None, "an access ends with a signal");
        assert_eq!(world.store(page, 1), None, "an access ends with a signal");
        assert_eq!(space.locate(world.address(page)), PageLocation::Poisoned);
    }
    for page in AREA.filter(|page| !LOST.contains(page)) {
        assert_eq!(world.load(page), Some(content(page)), "all else lives");
    }

    // Nothing goes there any more, and what was lost goes nowhere.
    let refused = one.migrate(range(&world, AT_HOME)).unwrap();
    assert!(refused.causes().all(|stayed| stayed.cause == StayCause::DeviceLost));
    assert_eq!(refused.stayed(), AT_HOME.len());
    assert!(read(&one, world.address(AT_HOME.start)).is_err());
    let marked = other.migrate(range(&world, LOST)).unwrap();
    assert!(marked.causes().all(|stayed| stayed.cause == StayCause::Poisoned), "{marked:?}");
    assert_eq!(marked.stayed(), LOST.len());
    assert!(read(&other, world.address(LOST.start)).is_err());
    read(&other, world.address(AT_HOME.start)).unwrap();

    // The program gives the content up, and goes on.
    world.discard(LOST);
    for page in LOST {
        assert_eq!(world.load(page), Some(0));
        world.store(page, content(page)).unwrap();
    }
    assert_eq!(other.migrate(range(&world, LOST)).unwrap().moved(), LOST.len());
    assert_eq!(one.lose(), LOST.len(), "a second time there are no more");
    drop(one);
    let new = Soft::start(&space, memory).unwrap();
    assert_eq!(new.migrate(range(&world, LOST)).unwrap().moved(), LOST.len());
    drop((new, other));
    for page in AREA {
        assert_eq!(world.load(page), Some(content(page)));
    }
    space.close().unwrap();
    assert_eq!(world.end(), None);
}

#[test]
fn a_device_is_lost_on_the_model() {
    for options in KINDS {
        a_device_is_lost::<ModelWorld>(options);
    }
}

#[test]
fn a_device_is_lost_on_linux() {
    if has_linux("a_device_is_lost_on_linux") {
        for options in KINDS {
            a_device_is_lost::<LinuxWorld>(options);
        }
    }
}
