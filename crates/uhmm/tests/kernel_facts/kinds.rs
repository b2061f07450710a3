//! The kinds of memory that a program maps.

use std::{fs::File, path::Path};

use rustix::{
    fd::OwnedFd,
    fs::{MemfdFlags, Mode, OFlags},
    io::Errno as E,
    mm::MapFlags,
};
use uhmm::{
    mm::{Backing, Mm as _, linux::Linux},
    units::BLOCK_PAGES,
};

use crate::{
    huge_pages::{HugePages, huge_page},
    memory::Memory,
    skip::skip,
};

/// A kind of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    PrivateAnonymous,
    SharedAnonymous,
    SharedMemfd,
    PrivateMemfd,
    Tmpfs,
    SharedFile,
    PrivateFile,
    SharedHugetlb,
    PrivateHugetlb,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::PrivateAnonymous,
        Self::SharedAnonymous,
        Self::SharedMemfd,
        Self::PrivateMemfd,
        Self::Tmpfs,
        Self::SharedFile,
        Self::PrivateFile,
        Self::SharedHugetlb,
        Self::PrivateHugetlb,
    ];

    pub(crate) const fn is_private(self) -> bool {
        matches!(
            self,
            Self::PrivateAnonymous | Self::PrivateMemfd | Self::PrivateFile | Self::PrivateHugetlb
        )
    }

    pub(crate) const fn is_hugetlb(self) -> bool {
        matches!(self, Self::SharedHugetlb | Self::PrivateHugetlb)
    }

    /// Whether holes of such memory can be trapped.
    pub(crate) const fn traps(self) -> bool {
        !matches!(self, Self::SharedFile | Self::PrivateFile)
    }

    pub(crate) const fn backing(self) -> Backing {
        match self {
            Self::PrivateAnonymous => Backing::PrivateAnonymous,
            Self::SharedAnonymous => Backing::SharedAnonymous,
            Self::SharedMemfd | Self::Tmpfs | Self::SharedFile => Backing::SharedFile,
            Self::PrivateMemfd | Self::PrivateFile => Backing::PrivateFile,
            Self::PrivateHugetlb => Backing::PrivateHugetlb,
            Self::SharedHugetlb => Backing::SharedHugetlb,
        }
    }
}

/// Memory of some kind, all of it an area by itself, and the file that it shows.
pub(crate) struct Mapped<'a> {
    pub(crate) kind: Kind,
    pub(crate) memory: Memory,
    pub(crate) file: Option<OwnedFd>,
    linux: &'a Linux,
    /// What was put into the pool for it. Taken away last.
    _pool: Option<HugePages>,
}

impl Drop for Mapped<'_> {
    /// Gives the pages of a pool back, as there are few.
    fn drop(&mut self) {
        let there = self.linux.mapping_at(self.memory.page(0));
        if self.kind.is_hugetlb()
            && there.is_ok_and(|there| there.is_some_and(|at| at.backing == self.kind.backing()))
        {
            let _ = self.linux.untrap(self.memory.pages);
            self.memory.unmap();
        }
    }
}

/// What every test of all kinds maps: as many pages as two huge ones of the common size have.
pub(crate) const PAGES: usize = 2 * BLOCK_PAGES;

/// Memory of each kind that is to be had, filled.
pub(crate) fn each(linux: &Linux) -> impl Iterator<Item = Mapped<'_>> {
    Kind::ALL.into_iter().filter_map(move |kind| {
        let mapped = map(linux, kind, PAGES)?;
        mapped.memory.fill();
        Some(mapped)
    })
}

/// Memory of a kind, all zeros. Where there is none to be had the test, which has the thread's name, says that it
/// is left out of that. Hugetlb pages are where the pool may be filled (`vm.nr_hugepages`), or somebody did.
pub(crate) fn map(linux: &Linux, kind: Kind, pages: usize) -> Option<Mapped<'_>> {
    let mapped = map_where_there_is(linux, kind, pages);
    if mapped.is_none() {
        let test = std::thread::current();
        skip(test.name().unwrap_or("a fact"), format_args!("memory of the kind {kind:?}"));
    }
    mapped
}

fn map_where_there_is(linux: &Linux, kind: Kind, pages: usize) -> Option<Mapped<'_>> {
    let bytes = linux.page_size().bytes_in(pages).try_into().unwrap();
    let file = match kind {
        Kind::PrivateAnonymous | Kind::SharedAnonymous => None,
        Kind::SharedMemfd | Kind::PrivateMemfd => Some(memfd(MemfdFlags::CLOEXEC).unwrap()),
        Kind::SharedHugetlb | Kind::PrivateHugetlb => Some(memfd(MemfdFlags::HUGETLB).ok()?),
        Kind::Tmpfs => Some(unnamed_file(Path::new("/dev/shm"))?),
        Kind::SharedFile | Kind::PrivateFile => Some(disk_file()?),
    };
    let flags = if kind.is_private() { MapFlags::PRIVATE } else { MapFlags::SHARED };
    let Some(file) = file else {
        let memory = Memory::with(linux, pages, flags);
        return Some(Mapped { kind, memory, file: None, linux, _pool: None });
    };
    let pool = kind.is_hugetlb().then(|| fill_pool(linux, pages)).flatten();
    rustix::fs::ftruncate(&file, bytes).unwrap();
    // Pages of a pool are reserved as it is mapped, or the mapping fails.
    let memory = Memory::new(linux, pages);
    match memory.try_map_over(flags, &file) {
        Ok(()) => Some(Mapped { kind, memory, file: Some(file), linux, _pool: pool }),
        Err(E::NOMEM) if kind.is_hugetlb() => None,
        Err(error) => panic!("{kind:?}: {error}"),
    }
}

/// Puts pages into the pool for an area of so many base pages, and as many for what a private one may
/// copy.
fn fill_pool(linux: &Linux, pages: usize) -> Option<HugePages> {
    let huge = linux.page_size().pages_for(huge_page()?);
    let added = HugePages::add(2 * pages.div_ceil(huge));
    added.inspect_err(|reason| eprintln!("{reason}")).ok()
}

fn memfd(flags: MemfdFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::memfd_create(c"fact", flags)
}

/// A file without a name in a directory; `None` where there can be none.
fn unnamed_file(directory: &Path) -> Option<OwnedFd> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR).ok()
}

/// A file without a name that is not kept in memory: beside what cargo builds, or else where
/// temporary files are.
fn disk_file() -> Option<OwnedFd> {
    const TMPFS: rustix::fs::FsWord = 0x0102_1994;
    let temporary = std::env::temp_dir();
    [Path::new(env!("CARGO_TARGET_TMPDIR")), &temporary]
        .into_iter()
        .filter_map(unnamed_file)
        .find(|file| rustix::fs::fstatfs(file).is_ok_and(|system| system.f_type != TMPFS))
}

/// A file without a name, of `pages` pages of zeros, to be mapped.
pub(crate) fn file(linux: &Linux, pages: usize) -> File {
    let file = disk_file().unwrap_or_else(|| memfd(MemfdFlags::CLOEXEC).unwrap());
    let bytes = linux.page_size().bytes_in(pages).try_into().unwrap();
    rustix::fs::ftruncate(&file, bytes).unwrap();
    file.into()
}
