//! Stacks that the program provides itself, in memory that is adopted: they are found or told of, and
//! stay. Where faults of system calls are not served a signal would end the process on one that is away.

#[path = "../../uhmm/tests/support/privileges.rs"]
mod privileges;

use std::{
    io, mem, ptr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use privileges::drop_privileges;
use uhmm::{AddressSpace, PageLocation, StayCause, units::AddressRange};
use uhmm_soft::{Options, Soft};

const PAGES: usize = 256;

/// Where the stack is in that memory, in pages.
const STACK: usize = 64;
const STACK_PAGES: usize = 64;

/// As whom a test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Us,
    Nobody,
}

fn checked(returned: i32, what: &str) -> i32 {
    assert!(returned >= 0, "{what}: {}", io::Error::last_os_error());
    returned
}

/// Runs `what` in a process of its own, and answers the signal that it ended with, or zero.
fn in_child(who: Who, what: impl FnOnce(&Place)) -> i32 {
    // SAFETY: the child has this thread alone, and does not return from here.
    let child = checked(unsafe { libc::fork() }, "fork");
    if child == 0 {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            if who == Who::Nobody {
                drop_privileges();
            }
            let place = Place::new();
            what(&place);
            drop(place.device);
            place.space.close().unwrap();
        }));
        // SAFETY: the child ends here.
        unsafe { libc::_exit(i32::from(done.is_err())) }
    }
    let mut status = 0;
    // SAFETY: there is room for the status of our child.
    checked(unsafe { libc::waitpid(child, &raw mut status, 0) }, "waitpid");
    if libc::WIFSIGNALED(status) {
        return libc::WTERMSIG(status);
    }
    assert_eq!(status, 0, "as {who:?}");
    0
}

/// Memory with room for a stack in its midst.
struct Place {
    device: Soft,
    space: AddressSpace,
    start: usize,
    page: usize,
}

impl Place {
    fn new() -> Self {
        let space = AddressSpace::open().unwrap();
        let page = space.page_size().bytes();
        let (access, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the system's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), PAGES * page, access, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        let device = Soft::start(&space, Options::new(PAGES * page)).unwrap();
        Self { device, space, start: start.expose_provenance(), page }
    }

    fn range(&self, first: usize, pages: usize) -> AddressRange {
        AddressRange::new(self.start + first * self.page, pages * self.page).unwrap()
    }

    fn all(&self) -> AddressRange {
        self.range(0, PAGES)
    }

    fn stack(&self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.start + STACK * self.page)
    }

    fn bytes(&self) -> usize {
        STACK_PAGES * self.page
    }

    /// Has signal handlers of this thread run on the stack.
    fn use_for_signals(&self) {
        let stack =
            libc::stack_t { ss_sp: self.stack().cast(), ss_flags: 0, ss_size: self.bytes() };
        // SAFETY: the memory is this thread's for that.
        checked(unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) }, "sigaltstack");
    }

    /// Has all go to the device, but the stack, which stays.
    fn all_goes_but_the_stack(&self) {
        let report = self.device.migrate(self.all()).unwrap();
        assert!(report.stayed() >= STACK_PAGES, "{report:?}");
        // A control block beside it stays for the same cause.
        let gone = report.moved() + report.already();
        assert!(gone + STACK_PAGES + 2 >= PAGES, "{report:?}");
        assert!(report.causes().all(|stayed| stayed.cause == StayCause::Kept), "{report:?}");
        for page in 0..STACK_PAGES {
            let address = self.start + (STACK + page) * self.page;
            assert_eq!(self.space.locate(address), PageLocation::System);
        }
    }
}

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handler(_: i32) {
    let local = 1;
    HANDLED.fetch_add(ptr::from_ref(std::hint::black_box(&local)).addr(), Relaxed);
}

/// Raises a signal of which the handler runs on the stack for that; answers where it ran.
fn raise() -> usize {
    // SAFETY: zeros are an action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as extern "C" fn(i32) as usize;
    action.sa_flags = libc::SA_ONSTACK;
    HANDLED.store(0, Relaxed);
    // SAFETY: the handler notes a number.
    unsafe {
        checked(libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut()), "sigaction");
        checked(libc::raise(libc::SIGUSR1), "raise");
    }
    HANDLED.load(Relaxed)
}

#[test]
fn the_signal_stack_of_who_adopts_stays() {
    for who in [Who::Us, Who::Nobody] {
        let ended = in_child(who, |place| {
            place.use_for_signals();
            place.space.adopt(place.all()).unwrap();
            place.all_goes_but_the_stack();
            let at = raise();
            assert!((place.stack().addr()..place.stack().addr() + place.bytes()).contains(&at));
        });
        assert_eq!(ended, 0, "as {who:?}");
    }
}

#[test]
fn what_is_kept_stays_wherever_it_is_moved_until_it_is_unmapped() {
    for who in [Who::Us, Who::Nobody] {
        let ended = in_child(who, |place| {
            place.space.adopt(place.all()).unwrap();
            assert_eq!(place.device.migrate(place.all()).unwrap().moved(), PAGES);
            // It comes back, and stays, also when it is adopted again.
            let report = place.space.keep(place.range(STACK, STACK_PAGES)).unwrap();
            assert_eq!((report.moved(), report.stayed()), (STACK_PAGES, 0));
            place.space.adopt(place.all()).unwrap();
            place.all_goes_but_the_stack();
            place.use_for_signals();
            assert_ne!(raise(), 0);
            // Moved, it is kept where it is then, and not where it was.
            let (from, bytes) = (place.stack().cast(), place.bytes());
            // SAFETY: nobody uses the memory meanwhile: no signal comes.
            let to = unsafe {
                libc::mremap(from, bytes, bytes, libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP)
            };
            assert_ne!(to, libc::MAP_FAILED, "mremap: {}", io::Error::last_os_error());
            let there = AddressRange::new(to.expose_provenance(), bytes).unwrap();
            let report = place.device.migrate(there).unwrap();
            assert_eq!((report.moved(), report.stayed()), (0, STACK_PAGES), "{report:?}");
            // Unmapped and mapped anew it is memory as any.
            // SAFETY: nobody uses the memory.
            checked(unsafe { libc::munmap(to, bytes) }, "munmap");
            let (access, flags) = (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
            );
            // SAFETY: the addresses are free, or it fails.
            let again = unsafe { libc::mmap(to, bytes, access, flags, -1, 0) };
            assert_eq!(again, to);
            place.space.adopt(there).unwrap();
            assert_eq!(place.device.migrate(there).unwrap().moved(), STACK_PAGES);
        });
        assert_eq!(ended, 0, "as {who:?}");
    }
}

/// A thread on the stack, which adopts, migrates, and takes signals there.
#[test]
fn the_stack_of_who_adopts_stays_where_the_program_provides_it() {
    extern "C" fn work(place: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: whoever started the thread waits for it, and lends it this.
        let place = unsafe { &*place.cast::<Place>() };
        place.space.adopt(place.all()).unwrap();
        place.all_goes_but_the_stack();
        let local = 7_u64;
        let at = ptr::from_ref(std::hint::black_box(&local)).addr();
        assert!((place.stack().addr()..place.stack().addr() + place.bytes()).contains(&at));
        for _ in 0..3 {
            place.all_goes_but_the_stack();
            assert_ne!(raise(), 0);
            assert_eq!(place.space.bring_back(place.all()).unwrap().stayed(), 0);
        }
        ptr::null_mut()
    }
    for who in [Who::Us, Who::Nobody] {
        let ended = in_child(who, |place| {
            let mut thread = 0;
            // SAFETY: the attributes are made and destroyed here; the stack is memory of its own, and the
            // thread is waited for.
            unsafe {
                let mut attributes = mem::zeroed::<libc::pthread_attr_t>();
                assert_eq!(libc::pthread_attr_init(&raw mut attributes), 0);
                let (stack, bytes) = (place.stack().cast(), place.bytes());
                assert_eq!(libc::pthread_attr_setstack(&raw mut attributes, stack, bytes), 0);
                let argument = ptr::from_ref(place).cast_mut().cast();
                let started =
                    libc::pthread_create(&raw mut thread, &raw const attributes, work, argument);
                assert_eq!(started, 0, "pthread_create");
                libc::pthread_attr_destroy(&raw mut attributes);
                assert_eq!(libc::pthread_join(thread, ptr::null_mut()), 0);
            }
        });
        assert_eq!(ended, 0, "as {who:?}");
    }
}

#[test]
fn a_signal_on_a_stack_that_is_away_needs_faults_of_the_system_to_be_served() {
    for who in [Who::Us, Who::Nobody] {
        let mut served = true;
        // The same in this process, to know what its child has.
        if who == Who::Nobody {
            served = uhmm::mm::linux::probe()
                .iter()
                .any(|feature| feature.name == "userfaultfd for system calls" && feature.present);
            // What an ordinary user has is another matter.
            // SAFETY: asking who runs this is always sound.
            served &= unsafe { libc::geteuid() } != 0;
        }
        let ended = in_child(who, |place| {
            place.space.adopt(place.all()).unwrap();
            place.use_for_signals();
            assert_eq!(place.device.migrate(place.all()).unwrap().moved(), PAGES);
            raise();
        });
        if served {
            assert_eq!(ended, 0, "as {who:?}");
        } else {
            assert!([0, libc::SIGSEGV].contains(&ended), "as {who:?}: {ended}");
            eprintln!("as {who:?} the process ended with signal {ended}");
        }
    }
}
