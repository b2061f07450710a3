//! A program that maps its own memory: it discards, protects, locks, moves, grows and replaces it.

use std::{fs, ptr, slice};

use crate::{
    random::{check, fill, lost, note},
    work::Job,
};

const PAGE: usize = 4096;

/// Memory that this thread mapped, and what must be in it: a seed for each page, zero for zeros.
struct Region {
    start: *mut u8,
    seeds: Vec<u64>,
    huge: bool,
}

fn map(at: *mut u8, bytes: usize, more: i32) -> *mut u8 {
    let (access, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, or one in place of memory of this thread's own.
    let start = unsafe { libc::mmap(at.cast(), bytes, access, flags | more, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    start.cast()
}

fn unmap(start: *mut u8, bytes: usize) {
    // SAFETY: memory of this thread's own, which it does not use any more.
    let result = unsafe { libc::munmap(start.cast(), bytes) };
    assert_eq!(result, 0, "munmap: {}", std::io::Error::last_os_error());
}

impl Region {
    fn new(pages: usize, huge: bool) -> Self {
        let region =
            Self { start: map(ptr::null_mut(), pages * PAGE, 0), seeds: vec![0; pages], huge };
        region.advise_huge();
        region
    }

    fn advise_huge(&self) {
        if self.huge {
            self.advise(0, self.seeds.len(), libc::MADV_HUGEPAGE);
        }
    }

    fn at(&self, page: usize) -> *mut u8 {
        // SAFETY: the page is in the region, or is the one behind its last.
        unsafe { self.start.add(page * PAGE) }
    }

    /// Gives an advice. It may be refused, where a kernel does not know it.
    fn advise(&self, first: usize, pages: usize, advice: i32) -> bool {
        // SAFETY: the advices given here change what the caller notes, and this thread's memory.
        unsafe { libc::madvise(self.at(first).cast(), pages * PAGE, advice) == 0 }
    }

    fn protect(&self, first: usize, pages: usize, access: i32) {
        // SAFETY: nobody but this thread uses the memory, and it keeps to the protection.
        let result = unsafe { libc::mprotect(self.at(first).cast(), pages * PAGE, access) };
        assert_eq!(result, 0, "mprotect: {}", std::io::Error::last_os_error());
    }

    fn check(&self, first: usize, pages: usize) {
        for page in first..first + pages {
            // SAFETY: the page is mapped and readable; nobody else uses it.
            let content = unsafe { slice::from_raw_parts(self.at(page), PAGE) };
            if self.seeds[page] != 0 {
                check("a page of an area", content, self.seeds[page], 0);
            } else if let Some(place) = content.iter().position(|&byte| byte != 0) {
                let found = u64::from(content[place]);
                lost(
                    "a page of an area that must be zeros",
                    content[place..].as_ptr().addr(),
                    found,
                );
            }
        }
    }

    fn write(&mut self, first: usize, pages: usize, seed: u64) {
        for page in first..first + pages {
            self.seeds[page] = seed | 1;
            // SAFETY: the page is mapped and writable; nobody else uses it.
            let content = unsafe { slice::from_raw_parts_mut(self.at(page), PAGE) };
            fill(content, seed | 1, 0);
        }
    }

    /// Whether the system has the region as one area. Several of them move one by one, and where
    /// one cannot the kernel leaves the others where they are by then.
    fn is_one_area(&self) -> bool {
        let maps = fs::read_to_string("/proc/self/maps").expect("the areas can be read");
        let (start, end) = (self.start.addr(), self.at(self.seeds.len()).addr());
        maps.lines().any(|line| {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            range.is_some_and(|(first, behind)| {
                usize::from_str_radix(first, 16).is_ok_and(|first| first <= start)
                    && usize::from_str_radix(behind, 16).is_ok_and(|behind| end <= behind)
            })
        })
    }

    /// Moves the region as a program does where the system refuses: to `pages` pages of zeros.
    fn copy_to(&mut self, to: *mut u8, pages: usize) {
        let old = self.seeds.len();
        // SAFETY: both are this thread's own memory, and do not overlap.
        unsafe { ptr::copy_nonoverlapping(self.start, to, old.min(pages) * PAGE) };
        unmap(self.start, old * PAGE);
        self.start = to;
        self.seeds.resize(pages, 0);
    }

    /// Remaps the region.
    fn remap(&mut self, pages: usize, flags: i32, to: *mut u8) -> bool {
        let (old, new) = (self.seeds.len() * PAGE, pages * PAGE);
        // SAFETY: this thread's own memory, to which it has no references now.
        let at = unsafe { libc::mremap(self.start.cast(), old, new, flags, to) };
        if at == libc::MAP_FAILED {
            // A region that is more than one area does not grow or move as one.
            return false;
        }
        self.start = at.cast();
        self.seeds.resize(pages, 0);
        true
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        unmap(self.start, self.seeds.len() * PAGE);
    }
}

pub(crate) fn run(mut job: Job, huge: bool) {
    let largest = if huge { 4096 } else { 600 };
    let mut region = Region::new(largest / 2, huge);
    while job.goes_on() {
        let all = region.seeds.len();
        let first = job.random.below(all);
        let most = if job.random.one_in(8) { all } else { 40 };
        let pages = 1 + job.random.below((all - first).min(most));
        let step = job.random.below(18);
        note(format!(
            "{step}: {:?}..{:?} at {:?}",
            region.at(first),
            region.at(first + pages),
            region.start
        ));
        match step {
            0..=3 => region.check(first, pages),
            4..=6 => {
                let seed = job.random.next();
                region.write(first, pages, seed);
            }
            7 => {
                assert!(region.advise(first, pages, libc::MADV_DONTNEED), "it can be discarded");
                region.seeds[first..first + pages].fill(0);
                region.check(first, pages.min(20));
            }
            8 => {
                // The system may drop the content now or later, until it is written anew.
                region.advise(first, pages, libc::MADV_FREE);
                let seed = job.random.next();
                region.write(first, pages, seed);
            }
            9 => {
                region.protect(first, pages, libc::PROT_READ);
                region.check(first, pages);
                region.protect(first, pages, libc::PROT_READ | libc::PROT_WRITE);
            }
            10 => {
                region.protect(first, pages, libc::PROT_NONE);
                std::thread::yield_now();
                region.protect(first, pages, libc::PROT_READ | libc::PROT_WRITE);
                region.check(first, pages);
            }
            11 => {
                // SAFETY: locking changes no content.
                let locked = unsafe { libc::mlock(region.at(first).cast(), pages * PAGE) == 0 };
                region.check(first, pages);
                if locked {
                    // SAFETY: as above.
                    unsafe { libc::munlock(region.at(first).cast(), pages * PAGE) };
                }
            }
            12 => {
                let pages = 1 + job.random.below(largest);
                region.remap(pages, libc::MREMAP_MAYMOVE, ptr::null_mut());
                region.advise_huge();
            }
            13 => {
                let pages = if job.random.one_in(2) { all } else { 1 + job.random.below(largest) };
                let to = map(ptr::null_mut(), pages * PAGE, 0);
                let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                if !region.is_one_area() || !region.remap(pages, flags, to) {
                    region.copy_to(to, pages);
                }
                region.advise_huge();
            }
            14 => {
                map(region.at(first), pages * PAGE, libc::MAP_FIXED);
                region.seeds[first..first + pages].fill(0);
            }
            15 => {
                region.advise(first, pages, libc::MADV_COLD);
            }
            16 => {
                region.advise(first, pages, libc::MADV_POPULATE_WRITE);
            }
            _ => {
                region.check(0, all);
                region = Region::new(1 + job.random.below(largest), huge);
            }
        }
    }
    region.check(0, region.seeds.len());
}
