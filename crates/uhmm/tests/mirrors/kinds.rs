//! Every kind of memory is mapped where it is.

use std::fs::File;

use uhmm::{PageState, Request, Want};

use crate::{
    memory::{READ_WRITE, anonymous, map, memory_file},
    open, open_with, page,
    table::{Recorder, page_at, translations},
};

#[test]
fn private_and_shared_memory_is_read_and_written() {
    let Some(world) = open("private_and_shared_memory_is_read_and_written") else { return };
    let mut file = tempfile();
    let areas = [
        ("private anonymous", anonymous(4)),
        ("shared anonymous", map(4, READ_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, None)),
        ("memfd, shared", map(4, READ_WRITE, libc::MAP_SHARED, Some(memory_file(4)))),
        ("memfd, private", map(4, READ_WRITE, libc::MAP_PRIVATE, Some(memory_file(4)))),
        ("file, private", map(4, READ_WRITE, libc::MAP_PRIVATE, file.take().map(Into::into))),
        ("file, shared", map(4, READ_WRITE, libc::MAP_SHARED, tempfile().map(Into::into))),
    ];
    for (name, area) in &areas {
        let pages = area.numbers();
        let report = world.mirror.fault(&Request::read(area.range())).expect("a request");
        assert_eq!((report.entered(), report.failed()), (4, 0), "{name}: {report:?}");
        assert_eq!(translations(&world.mirror.table().take(), pages), [Some(false); 4], "{name}");
        let report = world.mirror.fault(&Request::write(area.range())).expect("a request");
        assert_eq!((report.entered(), report.failed()), (4, 0), "{name}: {report:?}");
        assert_eq!(translations(&world.mirror.table().take(), pages), [Some(true); 4], "{name}");
        // What was given is given still, until something changes.
        let report = world.mirror.fault(&Request::read(area.range())).expect("a request");
        assert_eq!(report.held(), 4, "{name}: {report:?}");
        assert_eq!(world.mirror.table().take(), []);
    }
    drop(areas);
    drop(world.mirror);
    world.space.close().expect("a close");
}

/// A file of four pages that nobody else has.
fn tempfile() -> Option<File> {
    use std::os::unix::fs::FileExt;
    let path = std::env::temp_dir().join(format!("uhmm-mirrors-{}", std::process::id()));
    let options =
        File::options().read(true).write(true).create(true).truncate(true).open(&path).ok()?;
    let _ = std::fs::remove_file(&path);
    options.write_all_at(&vec![7; 4 * page()], 0).ok()?;
    Some(options)
}

#[test]
fn a_constant_of_the_program_is_read() {
    static CONSTANT: [u8; 64] = [3; 64];
    let Some(world) = open("a_constant_of_the_program_is_read") else { return };
    let address = CONSTANT.as_ptr().addr() / page() * page();
    let range = uhmm::units::AddressRange::new(address, page()).expect("a page");
    let report = world.mirror.fault(&Request::read(range)).expect("a request");
    assert_eq!((report.entered(), report.failed()), (1, 0), "{report:?}");
    assert!(page_at(address) == page_at(range.start()));
    drop(world.mirror);
    world.space.close().expect("a close");
}

#[test]
fn only_what_is_asked_for_is_made_present() {
    let Some(world) = open("only_what_is_asked_for_is_made_present") else { return };
    let area = anonymous(8);
    area.touch(1, 1, 5);
    let mut entries = [uhmm::PageEntry::default(); 8];
    world.mirror.snapshot(area.range(), &mut entries).expect("a snapshot");
    let present = |entries: &[uhmm::PageEntry]| -> Vec<bool> {
        entries.iter().map(|entry| entry.state == PageState::InPlace).collect()
    };
    let mut expected = [false; 8];
    expected[1] = true;
    assert_eq!(present(&entries), expected);
    assert!(entries[1].write && !entries[1].zero);

    let report = world.mirror.fault(&Request::present(area.range())).expect("a request");
    assert_eq!((report.entered(), report.absent()), (1, 7), "{report:?}");
    let page_2 = uhmm::units::PageRange::of(area.numbers().start().plus(2), 1);
    let page_4 = uhmm::units::PageRange::of(area.numbers().start().plus(4), 1);
    let wishes = [
        uhmm::Override { pages: page_2, want: Want::Read },
        uhmm::Override { pages: page_4, want: Want::Write },
    ];
    let request = Request::present(area.range()).overriding(&wishes);
    let report = world.mirror.fault_into(&request, &mut entries).expect("a request");
    assert_eq!((report.entered(), report.absent()), (3, 5), "{report:?}");
    assert!(entries[2].zero && !entries[2].write, "a page that is read only is of zeros");
    assert!(!entries[4].zero && entries[4].write);
    expected[2] = true;
    expected[4] = true;
    assert_eq!(present(&entries), expected);
    world.mirror.snapshot(area.range(), &mut entries).expect("a snapshot");
    assert_eq!(present(&entries), expected, "and nothing else was made present");
    drop(world.mirror);
    world.space.close().expect("a close");
}

#[test]
fn a_fault_for_writing_is_served_after_one_that_gave_less() {
    let Some(world) = open("a_fault_for_writing_is_served_after_one_that_gave_less") else {
        return;
    };
    let area = anonymous(4);
    let few = area.part(0, 3);
    world.mirror.fault(&Request::write(few)).expect("a request");
    // The last page is a hole, and nobody asks that it be filled.
    let report = world.mirror.fault(&Request::present(area.range())).expect("a request");
    assert_eq!((report.entered(), report.absent()), (3, 1), "{report:?}");
    let report = world.mirror.fault(&Request::write(few)).expect("a request");
    assert_eq!((report.entered(), report.held()), (3, 0), "{report:?}");
    drop(world.mirror);
    world.space.close().expect("a close");
}

/// Whether each page is this process's alone, as the system tells.
fn is_own(area: &crate::memory::Mapped) -> Vec<bool> {
    use std::os::unix::fs::FileExt;
    let pagemap = File::open("/proc/self/pagemap").expect("the pages of this process");
    let word = |page: uhmm::units::PageNumber| {
        let mut word = [0; 8];
        pagemap.read_exact_at(&mut word, 8 * page.0 as u64).expect("a page's word");
        u64::from_ne_bytes(word)
    };
    area.numbers().pages().map(|page| word(page) >> 56 & 1 == 1).collect()
}

#[test]
fn pages_that_are_read_stay_shared_with_a_child() {
    const TEST: &str = "pages_that_are_read_stay_shared_with_a_child";
    // What it writes has to be the process's own before it is pinned.
    let table = Recorder { pins: true, ..Default::default() };
    let Some(world) = open_with(TEST, table) else { return };
    let area = anonymous(4);
    area.touch(0, 4, 5);
    // SAFETY: the child calls nothing but what waits for a signal.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "{}", std::io::Error::last_os_error());
    if child == 0 {
        loop {
            // SAFETY: it touches no memory.
            unsafe { libc::pause() };
        }
    }
    let mirror = &world.mirror;
    let page_2 = uhmm::units::PageRange::of(area.numbers().start().plus(2), 1);
    let wishes = [uhmm::Override { pages: page_2, want: Want::Write }];
    let read = mirror.fault(&Request::read(area.range())).map(|report| report.entered());
    let after_reading = is_own(&area);
    let request = Request::read(area.range()).overriding(&wishes);
    let written = mirror.fault(&request).map(|report| report.failed());
    let after_writing = is_own(&area);
    // SAFETY: the child is ours, and nobody else waits for it.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    assert_eq!((read, written), (Ok(4), Ok(0)));
    assert_eq!(after_reading, [false; 4]);
    assert_eq!(after_writing, [false, false, true, false]);
    drop(world.mirror);
    world.space.close().expect("a close");
}
