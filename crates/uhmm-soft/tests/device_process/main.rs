//! A device in a process of its own: it computes, it is killed, it hangs, it says nonsense, and the program
//! lives.
//!
//! What holds wherever a device lives is in `either`, and in `clean` what it tells of its use of pages. The test's
//! executable is the device process too, so it has a `main` of its own, which runs the tests that are named, or all, one
//! after the other.

mod acting;
mod clean;
mod copied;
mod either;
mod evil;
mod kernels;
mod lying;
mod place;
mod shared;
#[path = "../../../uhmm/tests/support/skip.rs"]
mod skip;

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use kernels::{ADD, KERNELS, OTHER_KERNELS, TOUCH};
use place::{Lives, Place, killed, page_at, start, start_with, stopped};
use skip::skip;
use uhmm::{AddressSpace, DeviceFaultError, PageLocation};
use uhmm_soft::{
    AccessError, Home, KernelDevice, KernelRunError, KernelStartError, Options, ProcessOptions,
    RunError, Soft, StartError, serve_if_asked,
};

const PAGES: usize = 300;

fn main() {
    if std::env::var_os(evil::ASKED).is_some() {
        evil::serve();
    }
    if let Ok(part) = std::env::var(acting::ASKED) {
        acting::serve(&part);
    }
    if std::env::var_os("UHMM_OTHER_KERNELS").is_some() {
        serve_if_asked(OTHER_KERNELS);
    }
    serve_if_asked(KERNELS);
    let tests: [(&str, fn()); 14] = [
        ("it_computes_on_more_than_it_holds", it_computes_on_more_than_it_holds),
        ("it_gets_what_a_launch_names_alone", it_gets_what_a_launch_names_alone),
        ("what_it_held_is_lost_with_it", what_it_held_is_lost_with_it),
        ("it_is_killed_as_it_computes", it_is_killed_as_it_computes),
        ("it_hangs_and_is_ended", it_hangs_and_is_ended),
        ("a_kernel_panics", a_kernel_panics),
        ("it_writes_anything_anywhere", it_writes_anything_anywhere),
        ("what_it_left_unread_is_not_waited_on", what_it_left_unread_is_not_waited_on),
        ("it_acts_against_what_is_meant", acting::it_acts),
        ("it_is_given_other_memory", lying::it_is_given_other_memory),
        ("its_program_lies", lying::its_program_lies),
        ("its_program_writes_anything_anywhere", lying::its_program_writes_anything_anywhere),
        ("others_are_refused", others_are_refused),
        ("two_processes_and_a_thread", two_processes_and_a_thread),
    ];
    let named: Vec<_> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    if std::env::args().any(|argument| argument == "--list") {
        for (name, _) in tests.iter().chain(either::TESTS).chain(clean::TESTS) {
            println!("{name}: test");
        }
        return;
    }
    if let Err(error) = AddressSpace::open().map(AddressSpace::close) {
        return skip("device_process", error);
    }
    for &(name, test) in either::TESTS.iter().chain(clean::TESTS).chain(&tests) {
        if named.is_empty() || named.iter().any(|part| name.contains(part.as_str())) {
            let since = Instant::now();
            test();
            println!("test {name} ... ok ({:.1?})", since.elapsed());
        }
    }
}

fn it_computes_on_more_than_it_holds() {
    let (space, place) = Place::open(PAGES);
    let device = start(&space, PAGES / 4);
    for round in 0..3 {
        // SAFETY: nobody else touches the place meanwhile, which holds numbers.
        unsafe { device.run(ADD, 0..PAGES, [place.base, 4096, 5, 0], &[place.range()]) }.unwrap();
        for page in (round..PAGES).step_by(7) {
            assert_eq!(place.load(page), Some(Place::content(page) + 5 * (round as u64 + 1)));
        }
    }
    assert!(space.counters().to_system_eviction > 0);
    assert_eq!(device.migrate(place.part(0..20)).unwrap().stayed(), 0);
    assert_eq!(device.bring_all_back().stayed(), 0);
    assert_eq!(device.memory_used(), 0);
    for page in 0..PAGES {
        assert_eq!(place.load(page), Some(Place::content(page) + 15), "page {page}");
    }
    drop(device);
    space.close().unwrap();
}

fn it_gets_what_a_launch_names_alone() {
    let (space, place) = Place::open(PAGES);
    let device = start(&space, PAGES);
    let given = [place.part(0..10)];
    // SAFETY: as above.
    let result = unsafe { device.run(TOUCH, 0..PAGES, [place.base, 4096, 0, 0], &given) };
    let address = place.base + 10 * 4096;
    let address = usize::try_from(address).unwrap();
    let error = AccessError::NotNamed { address };
    assert_eq!(result, Err(RunError::Item { item: 10, error }.into()));
    assert_eq!(space.locate(address), PageLocation::System);
    // What never migrates is refused with its cause.
    let here = 0_u64;
    let address = std::ptr::from_ref(&here).addr();
    let given = [page_at(address)];
    // SAFETY: as above.
    let result = unsafe { device.run(TOUCH, 0..1, [address as u64, 0, 0, 0], &given) };
    assert!(
        matches!(
            result,
            Err(KernelRunError::Run(RunError::Item {
                item: 0,
                error: AccessError::Fault(DeviceFaultError { address: at, .. })
            })) if at == address
        ),
        "{result:?}"
    );
    drop(device);
    space.close().unwrap();
}

fn what_it_held_is_lost_with_it() {
    let (space, place) = Place::open(PAGES);
    let device = start(&space, PAGES);
    let other = Soft::start(&space, Options::new(PAGES * 4096)).unwrap();
    assert_eq!(device.migrate(place.part(0..100)).unwrap().moved(), 100);
    assert_eq!(other.migrate(place.part(100..150)).unwrap().moved(), 50);
    killed(&device);
    let since = Instant::now();
    while device.lost_pages() == 0 && since.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(device.is_lost());
    assert_eq!((device.lost_pages(), device.memory_used()), (100, 0));
    assert_eq!(space.counters().poisoned, 100);
    for page in 0..PAGES {
        assert_eq!(place.load(page), (page >= 100).then_some(Place::content(page)), "page {page}");
    }
    // SAFETY: as above.
    let result = unsafe { device.run(TOUCH, 0..1, [place.base, 4096, 0, 0], &[place.range()]) };
    assert_eq!(result, Err(KernelRunError::Lost));
    assert_eq!(device.migrate(place.part(200..210)).unwrap().stayed(), 10);
    // The program gives up what is lost, and begins anew.
    drop(device);
    place.fill(0..100);
    let device = start(&space, PAGES);
    // SAFETY: as above.
    unsafe { device.run(ADD, 0..PAGES, [place.base, 4096, 1, 0], &[place.range()]) }.unwrap();
    for page in 0..PAGES {
        assert_eq!(place.load(page), Some(Place::content(page) + 1), "page {page}");
    }
    drop((device, other));
    space.close().unwrap();
}

fn it_is_killed_as_it_computes() {
    for (delay, workers) in [(1, 1), (5, 4), (20, 1), (60, 4)] {
        let (space, place) = Place::open(PAGES);
        let device = Lives::InOwnProcess.start(&space, PAGES / 3, workers);
        let result = std::thread::scope(|scope| -> Result<(), KernelRunError> {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(delay));
                killed(&device);
            });
            loop {
                let items = 0..PAGES;
                // SAFETY: as above.
                unsafe { device.run(ADD, items, [place.base, 4096, 0, 0], &[place.range()]) }?;
            }
        });
        assert_eq!(result, Err(KernelRunError::Lost));
        let lost = (0..PAGES).filter(|&page| match place.load(page) {
            None => true,
            Some(content) => {
                assert_eq!(content, Place::content(page), "page {page}");
                false
            }
        });
        let lost = lost.count();
        assert!(
            lost <= PAGES / 3,
            "{lost} pages are lost, of {} that there were room for",
            PAGES / 3
        );
        assert_eq!(space.counters().poisoned, lost as u64);
        drop(device);
        space.close().unwrap();
    }
}

fn it_hangs_and_is_ended() {
    let (space, place) = Place::open(PAGES);
    let device = start_with(&space, PAGES, 2, Duration::from_millis(300));
    device.migrate(place.part(0..20)).unwrap();
    stopped(&device);
    let since = Instant::now();
    // A thread waits for a page of it, and is told that it is lost.
    assert_eq!(place.load(3), None);
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert!(device.is_lost());
    for page in 0..PAGES {
        assert_eq!(place.load(page), (page >= 20).then_some(Place::content(page)), "page {page}");
    }
    drop(device);
    space.close().unwrap();
}

fn a_kernel_panics() {
    let (space, place) = Place::open(PAGES);
    let device = start(&space, PAGES);
    // SAFETY: as above.
    let result = unsafe { device.run(kernels::PANIC, 0..1, [0; 4], &[]) };
    assert_eq!(result, Err(KernelRunError::Lost));
    assert_eq!(place.load(0), Some(Place::content(0)));
    drop(device);
    space.close().unwrap();
}

fn it_writes_anything_anywhere() {
    for seed in 1..=8_u64 {
        let (space, place) = Place::open(PAGES);
        let workers = if seed < 5 { 1 } else { 4 };
        let device = evil_device(&space, seed, workers);
        for _ in 0..20 {
            // SAFETY: as above. What it is given may be overwritten by anything.
            let _ =
                unsafe { device.run(TOUCH, 0..10, [place.base, 4096, 0, 0], &[place.part(0..10)]) };
            let _ = device.migrate(place.part(20..30));
            let _ = device.bring_back(place.part(20..25));
        }
        drop(device);
        for page in (10..20).chain(30..PAGES) {
            assert_eq!(place.load(page), Some(Place::content(page)), "seed {seed}, page {page}");
        }
        space.close().unwrap();
    }
}

/// One that was ready before it began, as it was seen. It may have written over that too.
fn evil_device(space: &AddressSpace, seed: u64, workers: usize) -> KernelDevice {
    for _ in 0..50 {
        let mut command = Command::new(place::myself());
        command.env(evil::ASKED, seed.to_string());
        let options = ProcessOptions::new(PAGES * 4096)
            .workers(workers)
            .command(command)
            .patience(Duration::from_millis(200));
        match KernelDevice::start(space, Home::OwnProcess(options), KERNELS) {
            Ok(device) => return device,
            Err(KernelStartError::Refused) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    panic!("seed {seed}: it was never seen to be ready")
}

/// A process that was ended for what it claims costs the program no time from then on.
fn what_it_left_unread_is_not_waited_on() {
    let (space, place) = Place::open(PAGES);
    let device = evil_device(&space, evil::CLAIMS, 1);
    let since = Instant::now();
    while !device.is_lost() && since.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(device.is_lost());
    let before = place::time_used();
    std::thread::sleep(Duration::from_secs(1));
    let used = place::time_used().saturating_sub(before);
    assert!(used < Duration::from_millis(50), "{used:?} of processors in a second");
    assert_eq!(place.load(0), Some(Place::content(0)));
    drop(device);
    space.close().unwrap();
}

fn others_are_refused() {
    let (space, place) = Place::open(PAGES);
    let start = |options| KernelDevice::start(&space, Home::OwnProcess(options), KERNELS);
    let try_to = |command| {
        start(ProcessOptions::new(1 << 20).command(command).patience(Duration::from_secs(1)))
    };
    let error = try_to(Command::new("/bin/true")).unwrap_err();
    assert!(matches!(error, KernelStartError::NotReady { .. }), "{error}");
    let error = try_to(Command::new("/does/not/exist")).unwrap_err();
    assert!(matches!(error, KernelStartError::Spawn(_)), "{error}");
    let mut others = Command::new(place::myself());
    others.env("UHMM_OTHER_KERNELS", "1");
    let error = try_to(others).unwrap_err();
    assert!(matches!(error, KernelStartError::Refused), "{error}");
    let error = start(ProcessOptions::new(1)).unwrap_err();
    assert!(
        matches!(error, KernelStartError::Device(StartError::MemoryTooSmall { .. })),
        "{error}"
    );
    for workers in [0, 65] {
        let error = start(ProcessOptions::new(1 << 20).workers(workers)).unwrap_err();
        assert!(matches!(error, KernelStartError::Device(StartError::Workers { .. })), "{error}");
    }
    assert_eq!(place.load(0), Some(Place::content(0)));
    space.close().unwrap();
}

/// Two device processes add to pages in turns with a thread of the program that reads them all the time.
fn two_processes_and_a_thread() {
    const ROUNDS: u64 = 10;
    let (space, place) = Place::open(PAGES);
    let devices = [PAGES / 3, PAGES].map(|frames| start(&space, frames));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                for page in (0..PAGES).step_by(11) {
                    let seen = place.load(page).expect("nothing is lost") - Place::content(page);
                    assert!(seen <= 2 * ROUNDS * 3, "{seen}");
                }
            }
        });
        for _ in 0..ROUNDS {
            for device in &devices {
                // SAFETY: as above, but for the thread that reads, whole numbers.
                unsafe { device.run(ADD, 0..PAGES, [place.base, 4096, 3, 0], &[place.range()]) }
                    .unwrap();
            }
        }
        done.store(true, Relaxed);
    });
    for page in 0..PAGES {
        assert_eq!(place.load(page), Some(Place::content(page) + 2 * ROUNDS * 3), "page {page}");
    }
    assert!(space.counters().between_devices > 0);
    drop(devices);
    space.close().unwrap();
}
