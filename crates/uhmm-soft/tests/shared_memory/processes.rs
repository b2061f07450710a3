//! Two processes with a file, each with its own address space and a device.

use std::{
    env,
    fs::{self, File},
    process::{Child, Command, Stdio},
    sync::atomic::Ordering::Relaxed,
};

use uhmm::{StayCause, units::AddressRange};

use crate::place::{
    Kind, PAGES, Place, add, at, causes, in_tmpfs, load, map_file, number, store, test_of,
};

/// By which the other process is told where the file is.
const PATH: &str = "UHMM_SHARED_FILE";
const SHARED: usize = 60;
const ROUNDS: u64 = 40;

/// Maps a file of `SHARED` pages, and more for the two to meet, as another area of the place.
fn map_shared(place: &Place, file: &File) -> usize {
    file.set_len(((SHARED + 1) * place.page) as u64).unwrap();
    let start = map_file(file, (SHARED + 1) * place.page);
    let range = AddressRange::new(start, SHARED * place.page).unwrap();
    place.space.adopt(range).unwrap();
    start
}

fn unmap(place: &Place, start: usize) {
    // SAFETY: the test's own memory.
    assert_eq!(unsafe { libc::munmap(at(start).cast(), (SHARED + 1) * place.page) }, 0);
}

/// Both meet.
fn meet(place: &Place, start: usize, all: u64) {
    let arrived = number(start + SHARED * place.page);
    arrived.fetch_add(1, Relaxed);
    while arrived.load(Relaxed) < all {
        std::thread::yield_now();
    }
}

/// What each of the two does.
fn work(place: &Place, start: usize) {
    let device = place.device(PAGES);
    let range = AddressRange::new(start, SHARED * place.page).unwrap();
    meet(place, start, 2);
    for round in 0..ROUNDS {
        let report = device.migrate(range).unwrap();
        // What the other has mapped, or its device, stays.
        assert!(causes(&report).iter().all(|cause| *cause == StayCause::Busy), "{report:?}");
        add(&device, start, SHARED, place.page, 1000);
        for page in 0..SHARED {
            number(start + page * place.page).fetch_add(1, Relaxed);
        }
        if round % 8 == 0 {
            device.bring_all_back();
        }
    }
}

fn other(path: &str, test: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(PATH, path)
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn two_processes_and_their_devices_share_a_file() {
    const NAME: &str = "processes::two_processes_and_their_devices_share_a_file";
    let path = env::var(PATH);
    test_of(Kind::Anonymous, |place| {
        if let Ok(path) = &path {
            let file = File::options().read(true).write(true).open(path).unwrap();
            let start = map_shared(place, &file);
            work(place, start);
            return unmap(place, start);
        }
        let path = in_tmpfs("-shared");
        let options = File::options().read(true).write(true).create_new(true).clone();
        let file = options.open(&path).unwrap();
        let start = map_shared(place, &file);
        for page in 0..SHARED {
            store(start + page * place.page, page as u64);
        }
        let mut child = other(&path, NAME);
        work(place, start);
        let status = child.wait().unwrap();
        fs::remove_file(&path).unwrap();
        assert!(status.success(), "the other process: {status}");
        for page in 0..SHARED {
            let sum = page as u64 + 2 * ROUNDS * 1001;
            assert_eq!(load(start + page * place.page), sum, "page {page}");
        }
        unmap(place, start);
    });
}
