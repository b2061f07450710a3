//! Random programs on shared memory: content is after every step what an oracle says.

use std::{env, fs, os::unix::fs::FileExt as _};

use uhmm::units::AddressRange;
use uhmm_soft::Soft;

use crate::{
    files::{beyond, punch, try_access},
    place::{PAGES, Place, READ_WRITE, add, at, load, seen, store, test},
    random_numbers::Random,
};

const STEPS: usize = 400;

impl Random {
    /// A first page and how many pages from there on.
    fn range(&mut self) -> (usize, usize) {
        let first = self.below(PAGES);
        (first, 1 + self.below((PAGES - first).min(200)))
    }
}

/// Whether the system has one area from `start` up to `end`.
fn is_one_area(start: usize, end: usize) -> bool {
    fs::read_to_string("/proc/self/maps").unwrap().lines().any(|line| {
        let (area, _) = line.split_once(' ').unwrap();
        let (first, last) = area.split_once('-').unwrap();
        let number = |digits| usize::from_str_radix(digits, 16).unwrap();
        number(first) <= start && end <= number(last)
    })
}

/// The program: what each page of its memory holds, and where the memory of each is.
struct Program<'a> {
    place: &'a Place,
    devices: [Soft; 2],
    /// Of each page: its number, while it is mapped.
    content: Vec<Option<u64>>,
    /// Of each page of the file: by which page it is shown, and whether that is mapped by the file's own
    /// mapping still.
    shows: Vec<Option<usize>>,
}

impl Program<'_> {
    /// The runs of mapped pages in a range.
    fn mapped(&self, first: usize, pages: usize) -> Vec<(usize, usize)> {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for page in first..first + pages {
            match runs.last_mut() {
                _ if self.content[page].is_none() => {}
                Some((start, len)) if *start + *len == page => *len += 1,
                _ => runs.push((page, 1)),
            }
        }
        runs
    }

    fn advise(&mut self, first: usize, pages: usize, advice: i32) {
        for (first, pages) in self.mapped(first, pages) {
            self.place.advise(first, pages, advice);
            if advice == libc::MADV_REMOVE {
                self.content[first..first + pages].fill(Some(0));
            }
        }
    }

    fn map(&mut self, first: usize, pages: usize, kind: i32) {
        let (start, bytes) = (at(self.place.address(first)).cast(), pages * self.place.page);
        let flags = kind | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the test's own memory, or nobody's.
        let mapped = unsafe { libc::mmap(start, bytes, READ_WRITE, flags, -1, 0) };
        assert_eq!(mapped, start);
        self.content[first..first + pages].fill(Some(0));
        self.no_view(first, pages);
    }

    /// What of the file those pages showed, nobody shows any more.
    fn no_view(&mut self, first: usize, pages: usize) {
        for shown in &mut self.shows {
            *shown = shown.filter(|page| !(first..first + pages).contains(page));
        }
    }

    /// Moves pages of one area over others, which are mapped as well.
    fn remap(&mut self, first: usize, pages: usize, to: usize) {
        let bytes = pages * self.place.page;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let (from, target) = (self.place.address(first), self.place.address(to));
        // Of several areas a move can be half done.
        if !is_one_area(from, from + bytes) {
            return;
        }
        // SAFETY: the test's own memory.
        let moved = unsafe { libc::mremap(at(from).cast(), bytes, bytes, flags, at(target)) };
        assert_eq!(moved.addr(), target, "{}", std::io::Error::last_os_error());
        self.no_view(to, pages);
        for page in 0..pages {
            self.content[to + page] = self.content[first + page].take();
        }
        for shown in self.shows.iter_mut().flatten() {
            if (first..first + pages).contains(shown) {
                *shown = *shown - first + to;
            }
        }
        self.map(first, pages, libc::MAP_SHARED);
    }

    /// Something is done to the file, of which all views tell: a hole, another length and the old one again, or
    /// a call that writes.
    fn change_file(&mut self, random: &mut Random, first: usize, pages: usize) {
        let size = self.place.page;
        let Some(file) = &self.place.file else { return };
        let after = match random.below(3) {
            0 => {
                punch(file, first, pages, size);
                0
            }
            1 => {
                file.set_len((first * size) as u64).unwrap();
                // Beyond the end a device is refused, whether it has the page or not.
                if let Some(page) = self.shows[first] {
                    let address = self.place.address(page);
                    assert_eq!(try_access(&self.devices[0], address, false), beyond(address));
                }
                file.set_len((PAGES * size) as u64).unwrap();
                return self.file_is(first..PAGES, 0);
            }
            _ => {
                for page in first..first + pages {
                    file.write_all_at(&9_u64.to_ne_bytes(), (page * size) as u64).unwrap();
                }
                9
            }
        };
        self.file_is(first..first + pages, after);
    }

    /// Pages of the file hold that number.
    fn file_is(&mut self, pages: core::ops::Range<usize>, number: u64) {
        for page in self.shows[pages].iter().flatten() {
            self.content[*page] = Some(number);
        }
    }

    fn step(&mut self, random: &mut Random) {
        let (first, pages) = random.range();
        let device = random.below(2);
        let (start, size) = (self.place.start, self.place.page);
        match random.below(14) {
            0..3 => {
                let range = AddressRange::new(start + first * size, pages * size).unwrap();
                self.devices[device].migrate(range).unwrap();
            }
            3..5 => {
                for (first, pages) in self.mapped(first, pages) {
                    add(&self.devices[device], start + first * size, pages, size, 3);
                    for page in first..first + pages {
                        self.content[page] = self.content[page].map(|value| value + 3);
                    }
                }
            }
            5 => {
                for (first, pages) in self.mapped(first, pages) {
                    let seen = seen(&self.devices[device], start + first * size, pages, size);
                    let expected = self.content[first..first + pages].iter().flatten().copied();
                    assert_eq!(seen, expected.collect::<Vec<_>>());
                }
            }
            6 => {
                for (first, pages) in self.mapped(first, pages) {
                    for page in first..first + pages {
                        store(start + page * size, page as u64);
                        self.content[page] = Some(page as u64);
                    }
                }
            }
            7 => self.advise(first, pages, libc::MADV_DONTNEED),
            8 => {
                // Of private memory nothing is removed, so all is made shared first.
                self.map(first, pages, libc::MAP_SHARED);
                self.advise(first, pages, libc::MADV_REMOVE);
            }
            9 => self.map(first, pages, libc::MAP_SHARED),
            10 => {
                let to = random.below(PAGES);
                let pages = pages.min(PAGES - to);
                if to + pages <= first || first + pages <= to {
                    self.remap(first, pages, to);
                }
            }
            11 => self.fork(first, pages),
            _ => self.change_file(random, first, pages),
        }
    }

    /// A child, by the bare system call, sees the memory and writes to it.
    fn fork(&mut self, first: usize, pages: usize) {
        let runs = self.mapped(first, pages);
        let none = 0_usize;
        // SAFETY: the child makes accesses to the test's memory alone, then ends.
        let child =
            unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, none, none, none, none) };
        if child == 0 {
            let mut wrong = 0;
            for &(first, pages) in &runs {
                for page in first..first + pages {
                    let address = self.place.address(page);
                    wrong |= i32::from(Some(load(address)) != self.content[page]);
                    store(address, 7);
                }
            }
            // SAFETY: ending a process is always sound.
            unsafe { libc::_exit(wrong) };
        }
        let mut status = 0;
        // SAFETY: our own child.
        unsafe { libc::waitpid(i32::try_from(child).unwrap(), &raw mut status, 0) };
        assert_eq!(status, 0, "the child saw something else");
        for (first, pages) in runs {
            self.content[first..first + pages].fill(Some(7));
        }
    }

    fn check(&self, pages: core::ops::Range<usize>) {
        for page in pages {
            if let Some(expected) = self.content[page] {
                assert_eq!(load(self.place.address(page)), expected, "page {page}");
            }
        }
    }
}

#[test]
pub(crate) fn random_programs_do_what_the_oracle_says() {
    let seed = env::var("UHMM_SEED").map_or(1, |seed| seed.parse().unwrap());
    let steps = env::var("UHMM_STEPS").map_or(STEPS, |steps| steps.parse().unwrap());
    test(|place| {
        let mut random = Random::new(seed);
        let devices = [place.device(50), place.device(PAGES)];
        let content = (1..=PAGES as u64).map(Some).collect();
        let shows = (0..PAGES).map(Some).collect();
        let mut program = Program { place, devices, content, shows };
        for step in 0..steps {
            program.step(&mut random);
            if step % 8 == 0 {
                let (first, pages) = random.range();
                program.check(first..first + pages);
            }
        }
        program.check(0..PAGES);
    });
}
