//! Children of this process: each looks at all that it has, and says by its exit status what is wrong.
//!
//! A child has its parent's heap as it was, maybe locked by a thread that it does not have. So it keeps
//! off the heap, but where it opens an address space.

use std::{
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use uhmm::{AddressSpace, units::AddressRange};
use uhmm_soft::{Options, Soft};

use crate::{
    linux::LinuxWorld,
    oracle::{Oracle, pattern},
    run::{Failure, ensure},
    step::{CELL, Child, Way},
    world::Allowed,
};

/// What a child finds wrong.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// A page is there that is not mapped.
    Extra,
    /// A page is not there.
    Lacks,
    /// A page has other content.
    Content,
    /// A page has not what was written to it.
    Written,
    /// Its own child found something wrong.
    Grandchild,
    /// It could not open an address space, or use it.
    Space,
}

/// What the exit statuses begin with, and what they stand for.
const WRONG: [Wrong; 6] =
    [Wrong::Extra, Wrong::Lacks, Wrong::Content, Wrong::Written, Wrong::Grandchild, Wrong::Space];
const FIRST_STATUS: i32 = 40;

/// What a child tells of where it is, and at which address a signal ended it: in memory that it shares
/// with its parent.
struct Notes {
    stage: AtomicUsize,
    address: AtomicUsize,
}

fn notes() -> &'static Notes {
    static NOTES: OnceLock<usize> = OnceLock::new();
    let address = *NOTES.get_or_init(|| {
        let (access, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let mapped =
            unsafe { libc::mmap(ptr::null_mut(), size_of::<Notes>(), access, flags, -1, 0) };
        assert_ne!(mapped, libc::MAP_FAILED, "no memory for a child's notes");
        mapped.expose_provenance()
    });
    // SAFETY: the mapping is never ended, and any bytes are such notes.
    unsafe { &*ptr::with_exposed_provenance(address) }
}

/// Notes where an access ended, and ends as it would have.
extern "C" fn note_signal(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes what it tells of the signal, which is one of an access.
    let address = unsafe { (*info).si_addr() };
    notes().address.store(address.addr(), Relaxed);
    // SAFETY: it is the default again, and comes when this returns and the access is made again.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Has it noted where an access ends.
fn watch_signals() {
    // SAFETY: all zeros is an action, and the handler is one for three arguments.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = (note_signal as *const ()).expose_provenance();
        action.sa_flags = libc::SA_SIGINFO;
        for signal in [libc::SIGBUS, libc::SIGSEGV] {
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
    }
}

/// Whether forks by the bare call are told.
fn told() -> bool {
    static TOLD: OnceLock<bool> = OnceLock::new();
    *TOLD.get_or_init(|| {
        uhmm::mm::linux::probe()
            .iter()
            .any(|feature| feature.name == "EVENT_FORK" && feature.present)
    })
}

fn fork_by(way: Way) -> libc::pid_t {
    // SAFETY: the child keeps to what is said above. Without a stack of its own that of the bare call goes
    // on with a copy of this one; the flags are the first argument, and the stack the second on the
    // processors that there are.
    let child = unsafe {
        match way {
            Way::Libc => i64::from(libc::fork()),
            Way::Raw => libc::syscall(libc::SYS_clone, i64::from(libc::SIGCHLD), 0, 0, 0, 0),
        }
    };
    if child == 0 {
        // SAFETY: it goes with its parent's thread.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    }
    libc::pid_t::try_from(child).expect("a process number")
}

fn end(result: Result<(), Wrong>) -> ! {
    let status = result.map_or_else(|wrong| FIRST_STATUS + wrong as i32, |()| 0);
    // SAFETY: ending a process is always sound.
    unsafe { libc::_exit(status) }
}

/// How a child ended.
fn status_of(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: the status is ours to be written.
    if unsafe { libc::waitpid(child, &raw mut status, 0) } == child { status } else { -1 }
}

/// Forks, and has the child do what it is to do.
pub(crate) fn fork(world: &LinuxWorld, child: &Child, oracle: &Oracle) -> Result<(), Failure> {
    let whole = told() || world.hooked && child.way == Way::Libc;
    notes().address.store(0, Relaxed);
    let pid = fork_by(child.way);
    ensure!(pid >= 0, "no child");
    if pid == 0 {
        watch_signals();
        end(run(world, child, oracle, whole));
    }
    let status = status_of(pid);
    if status == 0 {
        return Ok(());
    }
    let wrong = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status) - FIRST_STATUS);
    let wrong = wrong.and_then(|number| WRONG.get(usize::try_from(number).ok()?));
    let (stage, at) = (notes().stage.load(Relaxed), notes().address.load(Relaxed));
    let base = world.place.base;
    let page = at.checked_sub(base).map(|offset| offset / world.place.page);
    Err(format!(
        "a child ended in stage {stage} with status {status:#x}: {wrong:?}, at {at:#x}, page {page:?}"
    ))
}

fn run(world: &LinuxWorld, child: &Child, oracle: &Oracle, whole: bool) -> Result<(), Wrong> {
    let stage = |number| notes().stage.store(number, Relaxed);
    stage(1);
    look(world, oracle, whole)?;
    stage(2);
    if let Some(way) = child.then {
        let pid = fork_by(way);
        if pid == 0 {
            end(look(world, oracle, whole));
        }
        if status_of(pid) != 0 {
            return Err(Wrong::Grandchild);
        }
    }
    stage(3);
    if child.opens {
        migrate(world, oracle).ok_or(Wrong::Space)?;
        stage(4);
        look(world, oracle, whole)?;
    }
    stage(5);
    write(world, child, oracle)
}

fn is_mapped(world: &LinuxWorld, page: usize) -> bool {
    let mut there = 0_u8;
    // SAFETY: there is a byte for the page.
    unsafe { libc::mincore(world.at(page), world.place.page, &raw mut there) == 0 }
}

/// Compares all pages with what they have to have. Where a child is not whole, it may lack areas.
fn look(world: &LinuxWorld, oracle: &Oracle, whole: bool) -> Result<(), Wrong> {
    for page in oracle.part.clone() {
        let known = oracle.page(page);
        match (known.mapped, is_mapped(world, page)) {
            (false, true) => return Err(Wrong::Extra),
            // What memory has grown by may be kept from children that are not told of, for good.
            (true, false) if whole && (told() || !known.grown) => return Err(Wrong::Lacks),
            (_, false) => continue,
            (true, true) => {}
        }
        if known.allowed == Allowed::Nothing {
            continue;
        }
        let at = world.at(page).cast::<u8>();
        for (place, &byte) in known.bytes.iter().enumerate() {
            let offset = if place < CELL / 2 { place } else { world.place.page - CELL + place };
            // SAFETY: the page is mapped, and can be read.
            if unsafe { at.add(offset).read_volatile() } != byte {
                return Err(Wrong::Content);
            }
        }
    }
    Ok(())
}

/// Opens an address space and has a device take what it may.
fn migrate(world: &LinuxWorld, oracle: &Oracle) -> Option<()> {
    let may = |page: &usize| oracle.page(*page).allows(true) && is_mapped(world, *page);
    let Some(start) = oracle.part.clone().find(may) else { return Some(()) };
    let end = (start..oracle.part.end).find(|page| !may(page)).unwrap_or(oracle.part.end);
    let len = (end - start) * world.place.page;
    let space = AddressSpace::open().ok()?;
    let range = AddressRange::new(world.place.page(start), len).ok()?;
    space.adopt(range).ok()?;
    let device = Soft::start(&space, Options::new(64 * world.place.page)).ok()?;
    let migration = device.migrate(range).ok()?;
    let dealt = migration.moved() + migration.already() + migration.stayed();
    drop(device);
    space.close().ok()?;
    (dealt == end - start).then_some(())
}

/// Writes, and reads back.
fn write(world: &LinuxWorld, child: &Child, oracle: &Oracle) -> Result<(), Wrong> {
    for touch in child.writes.touches() {
        if !oracle.page(touch.page).allows(true) || !is_mapped(world, touch.page) {
            continue;
        }
        let first = child.writes.bytes(touch.item).start;
        let pattern = pattern(child.value, touch.item);
        for byte in touch.bytes {
            let at = ptr::with_exposed_provenance_mut::<u8>(world.place.byte(byte));
            let value = pattern[byte - first];
            // SAFETY: the page is mapped, and can be written.
            unsafe { at.write_volatile(value) };
            // SAFETY: as above.
            if unsafe { at.read_volatile() } != value {
                return Err(Wrong::Written);
            }
        }
    }
    Ok(())
}
