//! Memory of a file: what is done to the file, by whom ever, is so for devices too.

use std::{
    fs::{self, File},
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use uhmm::{DeviceFaultError, MapError, PageError, StayCause, mm::Backing, units::AddressRange};
use uhmm_soft::{AccessError, Placement, RunError, Soft, Worker};

use crate::{
    child::in_child,
    place::{
        Kind, PAGES, Place, add, areas, at, causes, load, map_file, moved, number, seen, store,
        test_of,
    },
    skip::skip,
    small_tmpfs,
};

/// A test of memory of files, which it gets too.
fn test(body: impl Fn(&Place, &File)) {
    for kind in [Kind::Memfd, Kind::Tmpfs] {
        test_of(kind, |place| body(place, place.file.as_ref().unwrap()));
    }
}

fn set_pages(place: &Place, file: &File, pages: usize) {
    file.set_len((pages * place.page) as u64).unwrap();
}

pub(crate) fn punch(file: &File, first: usize, pages: usize, page: usize) {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let [first, len] = [first, pages].map(|pages| libc::off_t::try_from(pages * page).unwrap());
    // SAFETY: content of a file changes that only this test has.
    assert_eq!(unsafe { libc::fallocate(file.as_raw_fd(), mode, first, len) }, 0);
}

/// What a device says that adds to a number, or loads and stores it as bytes.
pub(crate) fn try_access(device: &Soft, address: usize, bytes: bool) -> Result<(), RunError> {
    let access = move |worker: &mut Worker<'_>, _| {
        let mut value = [0; 16];
        // SAFETY: who else accesses the number does so atomically.
        unsafe {
            if bytes {
                worker.read(address, &mut value)?;
                worker.write(address, &value)
            } else {
                worker.fetch_add(address, 1_u64).map(drop)
            }
        }
    };
    // SAFETY: as above.
    unsafe { device.run(0..1, access) }
}

pub(crate) fn beyond(address: usize) -> Result<(), RunError> {
    let cause = StayCause::BeyondEnd;
    let error = AccessError::Fault(DeviceFaultError { address, cause });
    Err(RunError::Item { item: 0, error })
}

/// What the device says that adds 1 to a number in each of so many pages.
fn try_accesses(device: &Soft, place: &Place, pages: usize) -> Vec<Result<(), AccessError>> {
    let (start, page) = (place.start, place.page);
    let outcomes = Arc::new(Mutex::new(vec![Ok(()); pages]));
    let told = outcomes.clone();
    let access = move |worker: &mut Worker<'_>, item: usize| {
        // SAFETY: who else accesses the number does so atomically.
        let done = unsafe { worker.fetch_add(start + item * page, 1_u64) };
        told.lock().unwrap()[item] = done.map(drop);
        Ok(())
    };
    // SAFETY: as above.
    unsafe { device.run(0..pages, access) }.unwrap();
    outcomes.lock().unwrap().clone()
}

/// Whether an access failed as the file ends before.
fn is_beyond(error: &AccessError) -> bool {
    matches!(
        error,
        AccessError::Fault(DeviceFaultError { cause: StayCause::BeyondEnd, .. })
            | AccessError::Map(MapError { error: PageError::BeyondEnd, .. })
    )
}

/// Whether the kernel can read for the process what is at an address.
fn can_be_read(address: usize) -> bool {
    let mut byte = 0_u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: at(address).cast(), iov_len: 1 };
    // SAFETY: one byte is written, to the one that is ours.
    unsafe {
        libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) == 1
    }
}

#[test]
fn a_file_is_cut_short_under_a_device() {
    const LEFT: usize = 600;
    test(|place, file| {
        let device = place.device(PAGES);
        moved(&device.migrate(place.all()).unwrap(), PAGES);
        add(&device, place.start, PAGES, place.page, 100);
        set_pages(place, file, LEFT);
        for bytes in [false, true] {
            for page in [LEFT, LEFT + 1, PAGES - 1] {
                let address = place.address(page);
                assert_eq!(try_access(&device, address, bytes), beyond(address), "page {page}");
            }
            assert_eq!(try_access(&device, place.address(LEFT - 1), bytes), Ok(()));
        }
        // Asked for again they stay, each for that cause; those before are there.
        let report = device.migrate(place.range(LEFT - 10, 20)).unwrap();
        assert_eq!(report.stayed() + report.already(), 20, "{report:?}");
        // Nor does the processor get them, by whatever way, and nobody waits.
        let killed = in_child(false, || i32::from(load(place.address(LEFT)) == 0), || ());
        assert_eq!(killed, -libc::SIGBUS);
        assert!(!can_be_read(place.address(PAGES - 1)));
        assert_eq!(load(place.address(LEFT - 2)), LEFT as u64 - 1 + 100);
        assert_eq!(load(place.address(LEFT - 1)), LEFT as u64 + 100 + 1);
        // Longer again they are zeros, for all.
        set_pages(place, file, PAGES);
        add(&device, place.address(LEFT), PAGES - LEFT, place.page, 5);
        assert_eq!(load(place.address(LEFT)), 5);
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, ((PAGES - 1) * place.page) as u64).unwrap();
        assert_eq!(u64::from_ne_bytes(bytes), 5);
        moved(&device.migrate(place.all()).unwrap(), PAGES);
        // What comes back as the file has no such page any more comes back as that.
        set_pages(place, file, LEFT);
        place.space.bring_all_back();
        assert_eq!(place.count_away(), 0);
        assert_eq!(load(place.address(0)), 101);
        assert!(!can_be_read(place.address(LEFT)));
        let report = device.migrate(place.all()).unwrap();
        assert_eq!((report.moved(), report.stayed()), (LEFT, PAGES - LEFT));
        assert!(causes(&report).iter().all(|cause| *cause == StayCause::BeyondEnd), "{report:?}");
        set_pages(place, file, PAGES);
    });
}

#[test]
fn pages_beyond_the_end_are_not_mapped_where_they_are() {
    test(|place, file| {
        let device = place.device(PAGES);
        moved(&device.migrate(place.range(0, 20)).unwrap(), 20);
        set_pages(place, file, 10);
        // What the device has, and what nobody has.
        device.place(place.range(0, 40), Placement::InPlace).unwrap();
        for page in [10, 19, 30] {
            let address = place.address(page);
            let error = MapError { address, error: PageError::BeyondEnd };
            let error = AccessError::Map(error);
            assert_eq!(
                try_access(&device, address, false),
                Err(RunError::Item { item: 0, error }),
                "page {page}"
            );
        }
        assert_eq!(try_access(&device, place.address(9), false), Ok(()));
        set_pages(place, file, PAGES);
        assert_eq!(try_access(&device, place.address(19), false), Ok(()));
        assert_eq!(load(place.address(19)), 1);
    });
}

#[test]
fn holes_are_punched_under_a_device() {
    test(|place, file| {
        let device = place.device(PAGES);
        moved(&device.migrate(place.all()).unwrap(), PAGES);
        punch(file, 100, 500, place.page);
        add(&device, place.address(90), 20, place.page, 1);
        for page in 90..110 {
            let before = if page < 100 { page as u64 + 1 } else { 0 };
            assert_eq!(load(place.address(page)), before + 1);
        }
        assert_eq!(load(place.address(599)), 0);
        assert_eq!(seen(&device, place.address(598), 3, place.page), [0, 0, 601]);
        // Of pages that are trapped and not away, too.
        place.space.bring_all_back();
        punch(file, 0, 50, place.page);
        assert_eq!(load(place.address(49)), 0);
        assert_eq!(load(place.address(50)), 51);
    });
}

#[test]
fn calls_on_the_file_and_a_device_see_each_other() {
    test(|place, file| {
        let device = place.device(PAGES);
        moved(&device.migrate(place.all()).unwrap(), PAGES);
        add(&device, place.start, PAGES, place.page, 7);
        let mut bytes = vec![0; PAGES * place.page];
        file.read_exact_at(&mut bytes, 0).unwrap();
        for (page, bytes) in bytes.chunks(place.page).enumerate() {
            assert_eq!(u64::from_ne_bytes(bytes[..8].try_into().unwrap()), page as u64 + 8);
        }
        file.write_all_at(&70_u64.to_ne_bytes(), 3 * place.page as u64).unwrap();
        assert_eq!(seen(&device, place.address(3), 1, place.page), [70]);
        assert_eq!(place.count_away(), PAGES, "nothing came back for that");
    });
}

#[test]
fn a_view_of_a_part_of_the_file_is_a_part() {
    test(|place, file| {
        // SAFETY: a new mapping.
        let start = unsafe {
            let offset = libc::off_t::try_from(700 * place.page).unwrap();
            let file = file.as_raw_fd();
            let flags = libc::MAP_SHARED;
            libc::mmap(core::ptr::null_mut(), 100 * place.page, 3, flags, file, offset)
        };
        let start = start.expose_provenance();
        let range = AddressRange::new(start, 100 * place.page).unwrap();
        place.space.adopt(range).unwrap();
        let device = place.device(PAGES);
        // Those that the first view has mapped stay for now.
        place.advise(0, PAGES, libc::MADV_DONTNEED);
        moved(&device.migrate(range).unwrap(), 100);
        add(&device, start, 100, place.page, 1000);
        assert_eq!(load(place.address(750)), 1751);
        assert_eq!(load(start + 50 * place.page), 1751);
        // SAFETY: the test's own memory.
        assert_eq!(unsafe { libc::munmap(at(start).cast(), 100 * place.page) }, 0);
    });
}

/// Says that it is over as it is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn a_file_changes_its_length_all_the_time() {
    const ROUNDS: usize = 100;
    const KEPT: usize = 20;
    test(|place, file| {
        let device = place.device(PAGES);
        let over = AtomicBool::new(false);
        let adds = thread::scope(|scope| {
            scope.spawn(|| {
                let mut round = 0;
                while !over.load(Relaxed) {
                    set_pages(place, file, KEPT + round % 60);
                    punch(file, KEPT, 50, place.page);
                    set_pages(place, file, KEPT + 80);
                    round += 7;
                }
            });
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    for page in 0..KEPT {
                        number(place.address(page)).fetch_add(1, Relaxed);
                        number(place.address(page)).fetch_sub(1, Relaxed);
                    }
                    // By the kernel, which the end of a file does not kill.
                    let _ = can_be_read(place.address(KEPT + 33));
                }
            });
            let mut adds = [0; KEPT];
            // The others end also where this thread panics.
            let _ends = Ends(&over);
            for round in 0..ROUNDS {
                device.migrate(place.range(0, 100)).unwrap();
                for (page, outcome) in try_accesses(&device, place, 100).into_iter().enumerate() {
                    match outcome {
                        Ok(()) if page < KEPT => adds[page] += 1,
                        Ok(()) => {}
                        Err(error) => {
                            let cut = is_beyond(&error) && page >= KEPT;
                            assert!(cut, "page {page} in round {round}: {error}");
                        }
                    }
                }
            }
            adds
        });
        set_pages(place, file, PAGES);
        for (page, adds) in adds.into_iter().enumerate() {
            assert_eq!(load(place.address(page)), page as u64 + 1 + adds, "page {page}");
        }
    });
}

#[test]
fn a_file_grows_under_its_view() {
    test(|place, file| {
        set_pages(place, file, 1);
        let device = place.device(PAGES);
        let report = device.migrate(place.all()).unwrap();
        assert_eq!((report.moved(), report.stayed()), (1, PAGES - 1));
        for page in 1..30 {
            set_pages(place, file, page + 1);
            store(place.address(page), page as u64 + 1);
            add(&device, place.address(page), 1, place.page, 1);
            let next = place.address(page + 1);
            assert_eq!(try_access(&device, next, false), beyond(next));
        }
        assert_eq!(seen(&device, place.address(1), 29, place.page), (3..32).collect::<Vec<_>>());
        set_pages(place, file, PAGES);
    });
}

#[test]
fn a_file_of_a_disk_stays() {
    const NAME: &str = "a_file_of_a_disk_stays";
    test_of(Kind::Memfd, |place| {
        let path = std::env::temp_dir().join(format!("uhmm-on-disk-{}", std::process::id()));
        let options = File::options().read(true).write(true).create_new(true).clone();
        let file = options.open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let tmpfs = |file: &File| {
            // SAFETY: zeros are a value of the type, and the call fills it.
            unsafe {
                let mut told = core::mem::zeroed::<libc::statfs>();
                libc::fstatfs(file.as_raw_fd(), &raw mut told);
                told.f_type == libc::TMPFS_MAGIC
            }
        };
        if tmpfs(&file) {
            return skip(NAME, "a directory for temporary files on a disk");
        }
        set_pages(place, &file, 8);
        let start = map_file(&file, 8 * place.page);
        store(start, 5);
        let range = AddressRange::new(start, 8 * place.page).unwrap();
        place.space.adopt(range).unwrap();
        let device = place.device(PAGES);
        let before = areas();
        let report = device.migrate(range).unwrap();
        assert_eq!(causes(&report), [StayCause::Backing(Backing::SharedFile)]);
        assert_eq!(areas(), before);
        // It is reached in place.
        add(&device, start, 8, place.page, 2);
        assert_eq!((load(start), load(start + place.page)), (7, 2));
        // SAFETY: the test's own memory.
        assert_eq!(unsafe { libc::munmap(at(start).cast(), 8 * place.page) }, 0);
    });
}

#[test]
fn a_full_file_system_is_no_memory() {
    const NAME: &str = "a_full_file_system_is_no_memory";
    // SAFETY: asking who runs this is always sound.
    if unsafe { libc::geteuid() } != 0 {
        return eprintln!("skipped: {NAME}: an ordinary user cannot mount a file system");
    }
    test_of(Kind::Anonymous, |place| {
        let Some(file) = small_tmpfs::file_with_room_for(16).map(File::from) else {
            return skip(NAME, small_tmpfs::NEEDED);
        };
        set_pages(place, &file, 64);
        let start = map_file(&file, 64 * place.page);
        let range = AddressRange::new(start, 64 * place.page).unwrap();
        place.space.adopt(range).unwrap();
        let device = place.device(PAGES);
        let report = device.migrate(range).unwrap();
        let fits = report.moved();
        assert!((1..=16).contains(&fits), "{report:?}");
        assert_eq!(causes(&report), [StayCause::NoMemory]);
        add(&device, start, fits, place.page, 1);
        let refused = try_access(&device, start + 40 * place.page, false);
        assert!(refused.is_err(), "there is no room");
        // Nor has the processor: it is told as by the kernel, and waits for nobody.
        assert!(!can_be_read(start + 41 * place.page));
        // With room again a device has the page.
        punch(&file, 0, fits, place.page);
        assert_eq!(try_access(&device, start + 40 * place.page, false), Ok(()));
        // And the processor, though there is room for no other.
        let any = vec![1; place.page];
        let fill = |page: usize| file.write_all_at(&any, (page * place.page) as u64);
        assert!((0..64).filter(|page| *page != 40).any(|page| fill(page).is_err()));
        assert_eq!(load(start + 40 * place.page), 1);
        // SAFETY: the test's own memory.
        assert_eq!(unsafe { libc::munmap(at(start).cast(), 64 * place.page) }, 0);
    });
}

#[test]
fn what_the_engine_shows_of_itself_stays() {
    test_of(Kind::Memfd, |place| {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.contains("uhmm-view")).unwrap();
        let (addresses, _) = line.split_once(' ').unwrap();
        let (start, end) = addresses.split_once('-').unwrap();
        let number = |digits| usize::from_str_radix(digits, 16).unwrap();
        let range = AddressRange::new(number(start), number(end) - number(start)).unwrap();
        let adopted = place.space.adopt(range);
        let report = place.device(PAGES).migrate(range).unwrap();
        assert_eq!(report.moved(), 0, "{adopted:?}");
    });
}
