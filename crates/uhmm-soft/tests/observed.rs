//! What a process shows of itself is what is so, and others can tell who shows nothing, and why.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uhmm::{
    AddressSpace, Latency, ObserveError, ObservedPlace, Observer, PageLocation, units::AddressRange,
};
use uhmm_soft::{Options, Soft};

const PAGES: usize = 600;

/// A process has one address space.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn me() -> u32 {
    std::process::id()
}

#[test]
fn what_is_shown_is_what_is_so() {
    let _alone = alone();
    let mut numbers = vec![1_u64; 1 << 20];
    let space = AddressSpace::open().unwrap();
    assert!(space.is_shown());
    let size = space.page_size();
    let start = numbers.as_ptr().addr().next_multiple_of(size.bytes());
    let page = |number: usize| start + number * size.bytes();
    let range = |first, pages| AddressRange::new(page(first), pages * size.bytes()).unwrap();
    let seen = Observer::of(me()).unwrap();
    assert!(seen.is_open() && seen.is_alive() && seen.devices().is_empty());
    assert_eq!(seen.page_size(), size);
    assert_eq!(seen.page(start), None);

    space.adopt(range(0, PAGES)).unwrap();
    let (adopted, all) = seen.adopted();
    assert!(all && adopted == [range(0, PAGES).pages(size).unwrap()]);
    space.release(range(PAGES - 1, 1)).unwrap();
    assert_eq!(seen.adopted().0, [range(0, PAGES - 1).pages(size).unwrap()]);

    let device = Soft::start(&space, Options::new(300 * size.bytes())).unwrap();
    let other = Soft::start(&space, Options::new(PAGES * size.bytes())).unwrap();
    let frames: Vec<_> = seen.devices().iter().map(|device| device.frames).collect();
    assert_eq!(frames, [300, PAGES]);

    device.migrate(range(0, 200)).unwrap();
    other.migrate(range(150, 300)).unwrap();
    let touched = (page(7) - numbers.as_ptr().addr()) / 8;
    numbers[touched] += 1;
    device.migrate(range(PAGES - 1, 1)).unwrap();
    for number in 0..PAGES {
        let told = seen.page(page(number)).unwrap_or_default();
        let seen_on = match told.place {
            ObservedPlace::Device { device, .. } => Some(device),
            _ => None,
        };
        let device = match space.locate(page(number)) {
            PageLocation::Device(device) => Some(device),
            PageLocation::System | PageLocation::Poisoned => None,
        };
        assert_eq!(seen_on, device, "page {number}");
    }
    assert_eq!(seen.page(page(7)).unwrap().place, ObservedPlace::CameBack);
    let held: usize =
        seen.blocks().iter().flat_map(|(_, pages)| pages).map(|&pages| usize::from(pages)).sum();
    assert_eq!(held, device.memory_used() / size.bytes() + other.memory_used() / size.bytes());
    assert_eq!(seen.counters(), space.counters());
    assert_eq!(seen.blocks_left_out(), 0);

    // Why a page stays: it is locked into memory.
    let at = std::ptr::with_exposed_provenance::<libc::c_void>(page(500));
    // SAFETY: the page is of the vector.
    assert_eq!(unsafe { libc::mlock(at, size.bytes()) }, 0);
    let left = device.migrate(range(500, 1)).unwrap();
    if let Some(stayed) = left.causes().next() {
        let (why, told) = (seen.page(page(500)).unwrap().stayed.unwrap(), stayed.cause.to_string());
        assert!(why.starts_with(&told) || told.starts_with(why), "{why}, and {told}");
    }
    // SAFETY: as above.
    assert_eq!(unsafe { libc::munlock(at, size.bytes()) }, 0);
    // An exclusive page, and latencies.
    let recording = space.record(16).unwrap();
    for number in &mut numbers {
        *number += 1;
    }
    assert!(seen.histogram(Latency::CpuFault).count() > 0);
    drop(recording);

    // What is discarded is nobody's, what is lost is told.
    other.migrate(range(100, 2)).unwrap();
    let at = std::ptr::with_exposed_provenance_mut::<libc::c_void>(page(100));
    // SAFETY: the page is of the vector, whose numbers may become zero.
    assert_eq!(unsafe { libc::madvise(at, size.bytes(), libc::MADV_DONTNEED) }, 0);
    space.locate(page(100));
    assert_eq!(seen.page(page(100)).unwrap().place, ObservedPlace::Elsewhere);
    other.lose();
    assert_eq!(seen.page(page(101)).unwrap().place, ObservedPlace::Lost);
    assert!(seen.devices().iter().any(|device| device.lost));
    drop((device, other));
    assert!(seen.devices().is_empty());
    space.close().unwrap();
    assert!(!seen.is_open());
    assert_eq!(Observer::of(me()).unwrap_err(), ObserveError::NotOpen { process: me() });
}

#[test]
fn who_shows_nothing_is_told_apart() {
    let _alone = alone();
    let mut sleeper = Command::new("sleep").arg("100").spawn().unwrap();
    let process = sleeper.id();
    assert_eq!(Observer::of(process).unwrap_err(), ObserveError::NotOpen { process });
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert_eq!(Observer::of(process).unwrap_err(), ObserveError::NoSuchProcess { process });
    for process in [0, u32::MAX] {
        assert_eq!(Observer::of(process).unwrap_err(), ObserveError::NoSuchProcess { process });
    }
}

#[test]
fn a_child_of_a_fork_is_no_process_of_its_own() {
    let _alone = alone();
    let space = AddressSpace::open().unwrap();
    // SAFETY: the child makes calls of the system only.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: it waits to be killed.
        unsafe {
            libc::alarm(60);
            libc::pause();
            libc::_exit(0);
        }
    }
    let process = u32::try_from(child).unwrap();
    let told = Observer::of(process).unwrap_err();
    // SAFETY: the child is ours, and was not waited for.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    assert_eq!(told, ObserveError::Child { process, parent: me() });
    space.close().unwrap();
}

#[test]
fn the_file_can_be_changed_by_nobody_else() {
    let _alone = alone();
    let space = AddressSpace::open().unwrap();
    let ours = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("uhmm-view"))
        })
        .expect("the file");
    if let Ok(file) = std::fs::OpenOptions::new().read(true).write(true).open(&ours) {
        // Root may open it all the same.
        file.set_len(0).unwrap_err();
        std::os::unix::fs::FileExt::write_at(&file, &[1; 8], 0).unwrap_err();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        // SAFETY: a new mapping, which is not to be.
        let mapped = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_SHARED, fd, 0)
        };
        assert_eq!(mapped, libc::MAP_FAILED);
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: it is a file of ours, and is not changed.
        assert_eq!(unsafe { libc::fallocate(fd, punch, 0, 4096) }, -1);
    }
    assert!(Observer::of(me()).is_ok());
    space.close().unwrap();
}

/// A file of the same name that is not sealed, or whose content is none of ours, is not believed.
#[test]
fn a_process_that_pretends_is_not_believed() {
    let _alone = alone();
    for (sealed, bytes) in [(false, 1 << 30), (true, 4096), (true, 80 << 20)] {
        let flags = libc::MFD_ALLOW_SEALING;
        // SAFETY: a new file.
        let fd = unsafe { libc::memfd_create(c"uhmm-view".as_ptr(), flags) };
        // SAFETY: the descriptor is new and ours.
        let file = unsafe { <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(fd) };
        file.set_len(bytes).unwrap();
        if sealed {
            let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | 0x10 | libc::F_SEAL_SEAL;
            // SAFETY: the file is ours.
            assert_eq!(unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, seals) }, 0);
        }
        let told = Observer::of(me()).unwrap_err();
        assert_eq!(told, ObserveError::OtherVersion { process: me() });
        drop(file);
    }
}

#[test]
fn who_may_not_look_is_told() {
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: who_may_not_look_is_told: needs root, to become another user");
        return;
    }
    // Another user looks at this process.
    let this = std::env::current_exe().unwrap();
    let mut command = Command::new(this);
    command.args(["--exact", "looks_at_its_parent", "--ignored", "--nocapture"]);
    command.env("UHMM_LOOK_AT", me().to_string()).stdout(Stdio::piped()).stderr(Stdio::null());
    std::os::unix::process::CommandExt::uid(&mut command, 65534);
    std::os::unix::process::CommandExt::gid(&mut command, 65534);
    let Ok(mut other) = command.spawn() else {
        eprintln!("skipped: who_may_not_look_is_told: the test cannot be started as another user");
        return;
    };
    let told: Vec<_> =
        BufReader::new(other.stdout.take().unwrap()).lines().map_while(Result::ok).collect();
    other.wait().unwrap();
    let expected = ObserveError::NotAllowed { process: me() }.to_string();
    assert!(told.iter().any(|line| line.contains(&expected)), "{told:?}");
}

#[test]
#[ignore = "it is a part of who_may_not_look_is_told"]
fn looks_at_its_parent() {
    let process = std::env::var("UHMM_LOOK_AT").unwrap().parse().unwrap();
    match Observer::of(process) {
        Ok(_) => println!("seen"),
        Err(error) => println!("{error}"),
    }
}
