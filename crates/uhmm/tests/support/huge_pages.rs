//! Pages of the pool of huge pages (`vm.nr_hugepages`), put there for a test and taken away after it.
//!
//! The pool is the machine's. A test adds as many pages as it needs to what is there, so it takes none
//! from anybody, and no other test, here or in another process, takes its own: each changes the number
//! by what it added, with a file locked meanwhile.

use std::{fs::File, io};

const POOL: &str = "/proc/sys/vm/nr_hugepages";

/// Pages that were added to the pool. They are taken away as this is dropped, after what is mapped of
/// them was unmapped.
#[derive(Debug)]
pub(crate) struct HugePages(usize);

impl HugePages {
    /// Adds pages to the pool; an error says why that cannot be.
    pub(crate) fn add(count: usize) -> Result<Self, String> {
        let (before, after) = change(|pages| pages + count)
            .map_err(|error| format!("huge pages cannot be put into the pool ({POOL}): {error}"))?;
        let added = Self(after.saturating_sub(before));
        if added.0 < count {
            // What there is goes back by the drop.
            return Err(format!("{} huge pages are to be had, not {count}", added.0));
        }
        Ok(added)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Err(error) = change(|pages| pages.saturating_sub(self.0)) {
            eprintln!("{} huge pages stay in the pool ({POOL}): {error}", self.0);
        }
    }
}

fn pages() -> io::Result<usize> {
    std::fs::read_to_string(POOL)?.trim().parse().map_err(io::Error::other)
}

/// Changes how many pages there are. Answers how many there were, and are.
fn change(to: impl FnOnce(usize) -> usize) -> io::Result<(usize, usize)> {
    let path = std::env::temp_dir().join("uhmm-huge-pages");
    let lock = File::options().create(true).write(true).truncate(false).open(path)?;
    lock.lock()?;
    let before = pages()?;
    std::fs::write(POOL, to(before).to_string())?;
    Ok((before, pages()?))
}

/// Bytes of a page of the pool; `None` where the system has none.
pub(crate) fn huge_page() -> Option<usize> {
    let told = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = told.lines().find_map(|line| line.strip_prefix("Hugepagesize:"))?;
    let kilobytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}
