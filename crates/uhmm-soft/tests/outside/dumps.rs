//! What a process that crashes leaves behind.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
};

use crate::{
    skip::skip,
    subject::{PAGES, content},
    watcher::{Subject, Who},
};

/// Where cores go that are left in the directory of who crashes; nothing where they go elsewhere.
fn goes_to_the_directory() -> bool {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    !pattern.is_empty() && !pattern.starts_with(['|', '/', '@'])
}

/// A directory of this test's own, which goes with it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("uhmm-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    /// The core that was left.
    fn core(&self) -> Option<PathBuf> {
        let mut files = fs::read_dir(&self.0).expect("a directory").flatten();
        files.next().map(|entry| entry.path())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn number(bytes: &[u8], at: usize, len: usize) -> usize {
    let mut word = [0; 8];
    word[..len].copy_from_slice(&bytes[at..at + len]);
    usize::try_from(u64::from_le_bytes(word)).expect("a number of this file")
}

/// The bytes that a core has for an address: it is an ELF file, whose table of segments tells where.
fn bytes_at(core: &Path, address: usize, len: usize) -> Option<Vec<u8>> {
    let file = fs::read(core).expect("a core");
    assert_eq!(&file[..5], b"\x7fELF\x02", "a core of 64 bits");
    let (table, entry, count) = (number(&file, 32, 8), number(&file, 54, 2), number(&file, 56, 2));
    (0..count).map(|index| table + index * entry).find_map(|header| {
        let [offset, start, _, size] = [8, 16, 24, 32].map(|at| number(&file, header + at, 8));
        let place = address.checked_sub(start).filter(|place| place + len <= size)?;
        let is_load = number(&file, header, 4) == 1;
        is_load.then(|| file[offset + place..][..len].to_vec())
    })
}

/// Has a subject crash with its pages away, and looks at the core for each of them. Answers how many
/// have their content there, and how many are zeros.
fn crash(test: &str, what: &str, how: &str, signal: i32) -> Option<(usize, usize)> {
    if !goes_to_the_directory() {
        // Of the machine, which a test does not change.
        eprintln!("skipped: {test}: cores do not go to the directory of who crashes");
        return None;
    }
    let directory = Directory::new(&format!("{what}-{how}"));
    let mut subject = Subject::start(test, what, Who::Us, Some(&directory.0))?;
    subject.tell(how);
    let status = subject.ended();
    assert_eq!(status.signal(), Some(signal));
    let Some(core) = directory.core().filter(|_| status.core_dumped()) else {
        skip(test, "a core");
        return None;
    };
    let (mut right, mut zeros) = (0, 0);
    for page in 0..PAGES {
        let bytes = bytes_at(&core, subject.address(page), subject.page).expect("in the core");
        let words: Vec<_> = (0..8).map(|word| number(&bytes, word * 8, 8) as u64).collect();
        right += usize::from((0..8).all(|word| words[word] == content(page, word)));
        zeros += usize::from(bytes.iter().all(|&byte| byte == 0));
    }
    Some((right, zeros))
}

#[test]
fn has_zeros_where_pages_are_away() {
    let test = "dumps::has_zeros_where_pages_are_away";
    for (how, signal) in [("abort", libc::SIGABRT), ("crash", libc::SIGSEGV)] {
        if let Some(found) = crash(test, "still", how, signal) {
            assert_eq!(found, (0, PAGES));
        }
    }
}

#[test]
fn has_all_where_the_signal_brings_it_back() {
    let test = "dumps::has_all_where_the_signal_brings_it_back";
    for (how, signal) in [("abort", libc::SIGABRT), ("crash", libc::SIGSEGV)] {
        if let Some(found) = crash(test, "still-returns", how, signal) {
            assert_eq!(found, (PAGES, 0));
        }
    }
}

#[test]
fn is_left_with_faults_in_flight() {
    let test = "dumps::is_left_with_faults_in_flight";
    if let Some((right, zeros)) = crash(test, "still-busy", "abort", libc::SIGABRT) {
        assert_eq!(right + zeros, PAGES, "a page is as it is, or a hole");
    }
}
