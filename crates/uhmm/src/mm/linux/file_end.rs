//! Where a mapped file ends.
//!
//! The kernel tells of an area which file it shows and from where on. How long the file is, it tells
//! only to who reaches the file: by the link that stands for the mapping, which takes
//! `CAP_CHECKPOINT_RESTORE` to follow (`proc_pid_map_files(5)`), or else by the file's own path, if
//! that leads to the same file still.

use core::ffi::CStr;

use rustix::fs::{AtFlags, CWD, StatxFlags};

use super::{abi, areas::Areas};
use crate::units::PageNumber;

/// The longest path that the kernel tells, its end included: on the stack, as nothing here may use
/// the heap.
const PATH: usize = 4096;

/// What keeps the pages of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    /// Memory, or a pool of it.
    Memory,
    /// A disk, or whatever else.
    Medium,
}

/// Whether the file that is mapped at `page` has a page there, and what keeps it; `None` where that
/// cannot be told.
pub(super) fn has_page(areas: &Areas, page: PageNumber) -> Option<(bool, Keeper)> {
    let mut name = [0; PATH];
    let query = areas.ask(page, 0, &mut name).ok()?;
    let mut link = [0; LINK];
    let link = link_of(&query, &mut link)?;
    let path = CStr::from_bytes_until_nul(&name).ok()?;
    let (end, path) =
        [link, path].into_iter().find_map(|path| Some((end_of(path, &query)?, path)))?;
    let keeper = match rustix::fs::statfs(path).ok()?.f_type {
        TMPFS | HUGETLBFS => Keeper::Memory,
        _ => Keeper::Medium,
    };
    let place = areas.address_of(page) - abi::bytes(query.start) + abi::bytes(query.offset);
    Some((abi::word(place) < end, keeper))
}

const TMPFS: rustix::fs::FsWord = 0x0102_1994;
const HUGETLBFS: rustix::fs::FsWord = 0x9584_58f6;

/// The length in bytes of the file that the path leads to, if it is that of the area.
fn end_of(path: &CStr, query: &abi::AreaQuery) -> Option<u64> {
    let wanted = StatxFlags::SIZE | StatxFlags::INO;
    let status = rustix::fs::statx(CWD, path, AtFlags::NO_AUTOMOUNT, wanted).ok()?;
    let same = status.stx_ino == query.inode
        && [status.stx_dev_major, status.stx_dev_minor] == query.device;
    same.then_some(status.stx_size)
}

const DIRECTORY: &[u8] = b"/proc/self/map_files/";
/// Bytes of a link: two addresses in hexadecimal digits, a dash between, an end.
pub(super) const LINK: usize = DIRECTORY.len() + 2 * 16 + 2;

/// The link that stands for an area.
pub(super) fn link_of<'a>(query: &abi::AreaQuery, link: &'a mut [u8; LINK]) -> Option<&'a CStr> {
    let mut len = DIRECTORY.len();
    link[..len].copy_from_slice(DIRECTORY);
    for (number, end) in [(query.start, b'-'), (query.end, 0)] {
        let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
        for place in (0..digits).rev() {
            let digit = u8::try_from(number >> (4 * place) & 0xf).unwrap_or(0);
            link[len] = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
            len += 1;
        }
        link[len] = end;
        len += 1;
    }
    CStr::from_bytes_until_nul(link.as_slice()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_have_no_leading_zeros() {
        let query =
            abi::AreaQuery { start: 0x7f_0a10_0000, end: 0x7f_0a10_2000, ..Default::default() };
        let mut link = [0; LINK];
        let link = link_of(&query, &mut link).unwrap();
        assert_eq!(link, c"/proc/self/map_files/7f0a100000-7f0a102000");
        let most = abi::AreaQuery { start: 0, end: u64::MAX, ..Default::default() };
        let mut link = [0; LINK];
        let link = link_of(&most, &mut link).unwrap();
        assert_eq!(link, c"/proc/self/map_files/0-ffffffffffffffff");
    }
}
