//! Shared memory of a pool of huge pages (hugetlb) goes whole, where nobody changes what is mapped, and comes
//! back whole.

use std::{
    env,
    fs::File,
    os::fd::{AsRawFd as _, FromRawFd as _},
    process::Command,
    ptr, thread,
};

use uhmm::{AddressSpace, Migration, PageLocation, StayCause, mm::Backing, units::AddressRange};
use uhmm_soft::{Options, Soft};

use crate::{
    child::in_child,
    huge_pages::{HugePages, huge_page},
    place::{READ_WRITE, add, at, causes, load, lock, moved, number, seen, store},
    skip::skip,
};

/// Set where the pool was filled by who started this process, who may.
const FILLED: &str = "UHMM_TEST_POOL_IS_FILLED";

/// How many huge pages each memory has.
const COUNT: usize = 3;

/// A page of a kind that does not go.
const STAYS: StayCause = StayCause::Backing(Backing::SharedHugetlb);

/// An address space, a device, and shared memory of a pool that is adopted, of which base page `n` holds the
/// number `n + 1`.
struct Pool {
    space: AddressSpace,
    file: Option<File>,
    start: usize,
    page: usize,
    /// Base pages of a huge one.
    huge: usize,
}

/// Runs a test with memory of either kind, where there is a pool.
fn test(name: &str, body: impl Fn(&Pool, &Soft)) {
    let alone = lock();
    let bytes = huge_page().expect("the system has huge pages");
    let filled = if env::var_os(FILLED).is_some() {
        Ok(None)
    } else {
        // Of a file one more, for a mapping that is made anew meanwhile.
        HugePages::add(COUNT + 1).map(Some)
    };
    let _filled = match filled {
        Ok(filled) => filled,
        // SAFETY: asking who runs this is always sound.
        Err(reason) if unsafe { libc::geteuid() } == 0 => return skip(name, reason),
        Err(_) => return eprintln!("skipped: {name}: run again with a pool that root fills"),
    };
    for with_file in [true, false] {
        // Without a descriptor the file is reached by a link, which takes a privilege.
        // SAFETY: as above.
        if !with_file && unsafe { libc::geteuid() } != 0 {
            continue;
        }
        let space = AddressSpace::open().unwrap();
        let page = space.page_size().bytes();
        let file = with_file.then(|| {
            let flags = libc::MFD_CLOEXEC | libc::MFD_HUGETLB;
            // SAFETY: the descriptor is new and this caller's.
            let file =
                unsafe { File::from_raw_fd(libc::memfd_create(c"uhmm-pool".as_ptr(), flags)) };
            file.set_len((COUNT * bytes).try_into().unwrap()).unwrap();
            file
        });
        let start = map(file.as_ref(), COUNT * bytes);
        let pool = Pool { space, file, start, page, huge: bytes / page };
        for page in 0..pool.pages() {
            store(pool.address(page), page as u64 + 1);
        }
        pool.space.adopt(pool.all()).unwrap();
        let device =
            Soft::start(&pool.space, Options::new(COUNT * bytes).workers(1).keep_pages()).unwrap();
        body(&pool, &device);
        drop(device);
        let Pool { space, start, .. } = pool;
        space.close().unwrap();
        // SAFETY: the memory is this test's; parts that it has unmapped are nobody's.
        unsafe { libc::munmap(at(start).cast(), COUNT * bytes) };
    }
    drop(alone);
}

fn map(file: Option<&File>, bytes: usize) -> usize {
    let (flags, file) = match file {
        Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
        None => (libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB, -1),
    };
    // SAFETY: a new mapping.
    let start = unsafe { libc::mmap(ptr::null_mut(), bytes, READ_WRITE, flags, file, 0) };
    assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    start.expose_provenance()
}

/// Has a device take pages.
fn go(device: &Soft, range: AddressRange) -> Migration {
    // SAFETY: the tests change nothing of what is mapped there meanwhile.
    unsafe { device.migrate_undisturbed(range) }.unwrap()
}

impl Pool {
    fn pages(&self) -> usize {
        COUNT * self.huge
    }

    fn address(&self, page: usize) -> usize {
        self.start + page * self.page
    }

    fn range(&self, first: usize, pages: usize) -> AddressRange {
        AddressRange::new(self.address(first), pages * self.page).unwrap()
    }

    fn all(&self) -> AddressRange {
        self.range(0, self.pages())
    }

    /// Which of the huge pages are away; none is in part.
    fn away(&self) -> Vec<usize> {
        let is_away =
            |page| matches!(self.space.locate(self.address(page)), PageLocation::Device(_));
        let is_whole = |huge: &usize| {
            let first = huge * self.huge;
            let away = is_away(first);
            assert!((first..first + self.huge).all(|page| is_away(page) == away), "{huge} in part");
            away
        };
        (0..COUNT).filter(is_whole).collect()
    }

    fn check(&self, more: u64) {
        for page in 0..self.pages() {
            assert_eq!(load(self.address(page)), page as u64 + 1 + more, "page {page}");
        }
    }

    fn add(&self, device: &Soft, value: u64) {
        add(device, self.start, self.pages(), self.page, value);
    }
}

#[test]
fn pages_of_a_pool_go_and_come_back_whole() {
    test("pages_of_a_pool_go_and_come_back_whole", |pool, device| {
        moved(&go(device, pool.all()), pool.pages());
        assert_eq!((pool.away(), device.memory_used()), (vec![0, 1, 2], 0));
        pool.add(device, 1000);
        assert_eq!(pool.away(), [0, 1, 2]);
        // By a fault on one, by a request for a few, by the device's end.
        assert_eq!(load(pool.address(pool.huge + 3)), (pool.huge + 1004) as u64);
        assert_eq!(pool.away(), [0, 2]);
        moved(&pool.space.bring_back(pool.range(2 * pool.huge + 7, 4)).unwrap(), 4);
        assert_eq!(pool.away(), [0]);
        pool.add(device, 1000);
        pool.check(2000);
        assert_eq!(pool.away(), []);
        for _ in 0..3 {
            moved(&go(device, pool.all()), pool.pages());
            assert_eq!(pool.away(), [0, 1, 2]);
            pool.space.bring_all_back();
            pool.check(2000);
        }
        moved(&go(device, pool.range(0, pool.huge)), pool.huge);
    });
}

#[test]
fn pages_of_a_pool_stay_where_they_could_be_disturbed_or_are_wanted_in_part() {
    test(
        "pages_of_a_pool_stay_where_they_could_be_disturbed_or_are_wanted_in_part",
        |pool, device| {
            let report = device.migrate(pool.all()).unwrap();
            assert_eq!((report.moved(), report.stayed()), (0, pool.pages()));
            assert_eq!(causes(&report), [STAYS]);
            // In place a device has them all the same.
            pool.add(device, 5);
            let report = go(device, pool.range(3, pool.huge));
            assert_eq!((report.moved(), report.stayed()), (0, pool.huge), "{report:?}");
            // With the whole pages between.
            let report = go(device, pool.range(3, 2 * pool.huge));
            assert_eq!((report.moved(), report.stayed()), (pool.huge, pool.huge), "{report:?}");
            assert!(causes(&report).iter().all(|cause| *cause == STAYS), "{report:?}");
            assert_eq!(pool.away(), [1]);
            pool.check(5);
        },
    );
}

#[test]
fn pages_of_a_pool_go_from_device_to_device() {
    test("pages_of_a_pool_go_from_device_to_device", |pool, device| {
        let options = Options::new(pool.page).workers(1).keep_pages();
        let other = Soft::start(&pool.space, options).unwrap();
        moved(&go(device, pool.all()), pool.pages());
        // A part of one by a request without a promise: nothing is mapped anew.
        moved(&other.migrate(pool.range(5, 9)).unwrap(), 9);
        pool.add(&other, 3);
        pool.add(device, 4);
        assert_eq!(pool.away(), [0, 1, 2]);
        let expected: Vec<_> = (0..pool.pages() as u64).map(|page| page + 8).collect();
        assert_eq!(seen(&other, pool.start, pool.pages(), pool.page), expected);
        drop(other);
        pool.check(7);
    });
}

#[test]
fn threads_and_a_device_share_pages_of_a_pool() {
    const ROUNDS: u64 = 40;
    test("threads_and_a_device_share_pages_of_a_pool", |pool, device| {
        let pages: Vec<_> = (0..pool.pages()).step_by(37).collect();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        for &page in &pages {
                            let number = number(pool.address(page));
                            number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                });
            }
            for _ in 0..ROUNDS {
                moved(&go(device, pool.all()), pool.pages());
                pool.add(device, 1000);
            }
        });
        for page in 0..pool.pages() {
            let threads = if pages.contains(&page) { 2 * ROUNDS } else { 0 };
            let expected = page as u64 + 1 + threads + 1000 * ROUNDS;
            assert_eq!(load(pool.address(page)), expected, "page {page}");
        }
    });
}

#[test]
fn children_and_other_views_have_what_is_away_of_a_pool() {
    test("children_and_other_views_have_what_is_away_of_a_pool", |pool, device| {
        for libc_fork in [true, false] {
            moved(&go(device, pool.all()), pool.pages());
            pool.add(device, 10);
            let ends = in_child(
                libc_fork,
                || {
                    for page in 0..pool.pages() {
                        if load(pool.address(page)) != page as u64 + 11 {
                            return 1;
                        }
                        store(pool.address(page), page as u64 + 1);
                    }
                    0
                },
                || (),
            );
            assert_eq!(ends, 0);
            let expected: Vec<_> = (1..=pool.pages() as u64).collect();
            assert_eq!(seen(device, pool.start, pool.pages(), pool.page), expected);
        }
        if let Some(file) = &pool.file {
            let bytes = pool.pages() * pool.page;
            let view = map(Some(file), bytes);
            moved(&go(device, pool.all()), pool.pages());
            pool.add(device, 10);
            assert_eq!(load(view + 5 * pool.page), 16);
            // SAFETY: the test's own mapping.
            unsafe { libc::munmap(at(view).cast(), bytes) };
        }
    });
}

#[test]
fn pages_of_a_pool_follow_what_the_program_does() {
    test("pages_of_a_pool_follow_what_the_program_does", |pool, device| {
        let bytes = pool.huge * pool.page;
        moved(&go(device, pool.all()), pool.pages());
        pool.add(device, 10);
        // A discard ends the view, not the content.
        // SAFETY: the test's own memory.
        let discarded = unsafe { libc::madvise(at(pool.start).cast(), bytes, libc::MADV_DONTNEED) };
        assert_eq!(discarded, 0);
        assert_eq!(load(pool.start), 11);
        // The last one moves.
        let target = map(pool.file.as_ref(), bytes);
        let from = pool.address(2 * pool.huge);
        // SAFETY: the test's own mappings.
        let there = unsafe {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            libc::mremap(at(from).cast(), bytes, bytes, flags, at(target))
        };
        assert_eq!(there.addr(), target);
        assert!(matches!(pool.space.locate(target), PageLocation::Device(_)));
        assert_eq!(load(target + 7 * pool.page), (2 * pool.huge + 18) as u64);
        // The middle one goes.
        // SAFETY: the test's own mapping.
        unsafe { libc::munmap(at(pool.address(pool.huge)).cast(), bytes) };
        assert_eq!(pool.away(), []);
        assert_eq!(load(pool.start + 3 * pool.page), 14);
        // SAFETY: as above.
        unsafe { libc::munmap(at(target).cast(), bytes) };
    });
}

#[test]
fn a_hole_in_the_file_of_a_pool_is_zeros_for_all() {
    test("a_hole_in_the_file_of_a_pool_is_zeros_for_all", |pool, device| {
        let Some(file) = &pool.file else { return };
        moved(&go(device, pool.all()), pool.pages());
        let bytes = libc::off_t::try_from(pool.huge * pool.page).unwrap();
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: the test's own file.
        assert_eq!(unsafe { libc::fallocate(file.as_raw_fd(), mode, bytes, bytes) }, 0);
        // First by the device, and by a thread.
        pool.add(device, 5);
        assert_eq!(load(pool.address(pool.huge)), 5);
        assert_eq!(load(pool.address(0)), 6);
        moved(&go(device, pool.all()), pool.pages());
        // SAFETY: as above.
        assert_eq!(unsafe { libc::fallocate(file.as_raw_fd(), mode, bytes, bytes) }, 0);
        assert_eq!(load(pool.address(pool.huge + 9)), 0);
        assert_eq!(load(pool.address(2 * pool.huge)), 2 * pool.huge as u64 + 6);
    });
}

#[test]
fn as_an_ordinary_user_with_a_pool_that_root_fills() {
    const TEST: &str = "as_an_ordinary_user_with_a_pool_that_root_fills";
    // SAFETY: asking who runs this is always sound.
    if unsafe { libc::geteuid() } != 0 {
        return eprintln!("skipped: {TEST}: this user is an ordinary one");
    }
    let filled = {
        let _alone = lock();
        HugePages::add(COUNT + 1)
    };
    let _filled = match filled {
        Ok(filled) => filled,
        Err(reason) => return skip(TEST, reason),
    };
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(env::current_exe().expect("this test has a name"));
    command.args(["pool::", "--test-threads=1", "--skip", TEST]).env(FILLED, "1");
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !said.contains(" 0 passed"), "{said}\n{errors}");
            assert!(!errors.contains("skipped"), "{errors}");
        }
        Err(error) => skip(TEST, format!("no setpriv: {error}")),
    }
}
