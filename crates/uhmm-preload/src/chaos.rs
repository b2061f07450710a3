//! Chaos: random pages of the program go to a device and back all the time.
//!
//! A thread of the engine, with all signals blocked, begins as the library is loaded. It has the program's
//! memory adopted again and again, as it changes, and has runs of pages taken from it; some come back by
//! request, the others as the program touches them. Nothing of the program is to change but its pace.
//!
//! In the child of a fork it begins anew, where that was libc's; of another it does as the child runs another
//! program.

use std::{
    env,
    sync::atomic::{AtomicBool, Ordering::AcqRel},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use procfs::process::{MMPermissions, MMapPath, Process};
use rand_xoshiro::{
    Xoshiro256PlusPlus,
    rand_core::{Rng, SeedableRng},
};
use uhmm::{
    AddressSpace,
    engine_memory::thread::spawn,
    units::{AddressRange, PageRange, PageSize},
};
use uhmm_dmirror::Node;

use crate::{memory, nodes};

/// By what `uhmm run` says how many runs of pages are to go in a second.
const RATE_NAME: &str = "UHMM_RUN_CHAOS";

/// How much memory the device has that takes them.
const MEMORY: usize = 64 << 20;

/// How many pages go at once at most.
const MOST_PAGES: usize = 512;

/// How often the areas of the program are looked up.
const LOOK: Duration = Duration::from_millis(50);

#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

/// Begins chaos, where it is asked for.
extern "C" fn begin() {
    let rate = env::var(RATE_NAME).ok().and_then(|rate| rate.parse::<u32>().ok());
    let Some(pause) = rate.and_then(|rate| Duration::from_secs(1).checked_div(rate)) else {
        return;
    };
    let begun = nodes::space().ok().and_then(|space| {
        let device = Node::attach(space, MEMORY).ok()?;
        let own = memory::memory()?;
        // It ends with the process.
        let run = move |_: &_| work(space, &device, pause, own.range());
        spawn(space.engine_memory(), c"uhmm-chaos", run).ok()
    });
    match begun {
        Some(thread) => core::mem::forget(thread),
        None => uhmm::abort::abort(b"chaos was asked for and cannot begin"),
    }
    begin_in_children();
}

/// Has it begin in children, too. They inherit that.
fn begin_in_children() {
    static PREPARED: AtomicBool = AtomicBool::new(false);
    if PREPARED.swap(true, AcqRel) {
        return;
    }
    // It comes after what the engine does in a child, which was there before.
    // SAFETY: the function is there as long as the library is, which is never unloaded.
    if unsafe { libc::pthread_atfork(None, None, Some(begin_in_child)) } != 0 {
        uhmm::abort::abort(b"chaos in children was asked for and cannot be prepared");
    }
}

unsafe extern "C" fn begin_in_child() {
    begin();
}

fn work(space: &AddressSpace, device: &Node<'_>, pause: Duration, own: AddressRange) {
    let page_size = space.page_size();
    let own = own.pages_touched(page_size);
    let mut random =
        Xoshiro256PlusPlus::seed_from_u64(u64::from(std::process::id()) ^ nanoseconds());
    let mut areas = Vec::new();
    let mut looked = None::<Instant>;
    loop {
        if looked.is_none_or(|looked| looked.elapsed() > LOOK) {
            looked = Some(Instant::now());
            // What cannot be adopted now may be the next time.
            let _ = space.adopt_everything();
            if let Ok(own) = AddressRange::of_pages(own, page_size) {
                let _ = space.release(own);
            }
            find_areas(&mut areas, own, page_size);
        }
        if let Some(range) = choose(&areas, page_size, &mut random) {
            // What stays does so for a reason, as does what comes back by itself.
            let _ = if random.next_u32() % 4 == 0 {
                device.bring_back(range)
            } else {
                device.migrate(range)
            };
        }
        thread::sleep(pause);
    }
}

/// A number that is another each time.
fn nanoseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos().into())
}

/// The program's private memory that can be written, but for this library's.
fn find_areas(areas: &mut Vec<PageRange>, own: PageRange, page_size: PageSize) {
    areas.clear();
    let Ok(maps) = Process::myself().and_then(|me| me.maps()) else { return };
    for map in maps {
        let may_go = map.perms.contains(MMPermissions::READ | MMPermissions::WRITE)
            && !map.perms.contains(MMPermissions::SHARED)
            && matches!(map.pathname, MMapPath::Anonymous | MMapPath::Heap);
        let (Ok(start), Ok(end)) = (usize::try_from(map.address.0), usize::try_from(map.address.1))
        else {
            continue;
        };
        let pages = PageRange::new(page_size.page_of(start), page_size.page_of(end));
        if may_go && !pages.overlaps(own) {
            areas.push(pages);
        }
    }
}

/// A random run of pages: every other time of a random area, so that small ones have their turn, else from a
/// random page on, so that large ones do.
fn choose(
    areas: &[PageRange],
    page_size: PageSize,
    random: &mut Xoshiro256PlusPlus,
) -> Option<AddressRange> {
    let mut below =
        |limit: usize| usize::try_from(random.next_u64() % (limit.max(1) as u64)).unwrap_or(0);
    let (area, first) = if below(2) == 0 {
        let area = areas.get(below(areas.len()))?;
        (area, below(area.len()))
    } else {
        let mut place = below(areas.iter().map(|area| area.len()).sum());
        let of_page = areas.iter().find(|area| {
            let is_there = place < area.len();
            if !is_there {
                place -= area.len();
            }
            is_there
        });
        (of_page?, place)
    };
    let pages = PageRange::of(area.start().plus(first), 1 + below(MOST_PAGES)).intersection(*area);
    AddressRange::of_pages(pages, page_size).ok()
}
