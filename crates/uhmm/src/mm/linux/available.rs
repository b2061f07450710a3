//! How much memory the system has left.
//!
//! Sources: proc(5), `/proc/meminfo`; `drivers/base/node.c` of Linux 6.8, `node_read_meminfo`.

use core::{ffi::CStr, fmt::Write};

use rustix::fs::{Mode, OFlags};

use crate::units::NumaNode;

/// Bytes of such a file that are looked at, which is all of it.
const TEXT: usize = 8192;

/// How many bytes of memory are to be had, of a node if one is named: free, or of files that can be read again.
/// `None` where the system does not say.
pub(super) fn bytes(node: Option<NumaNode>) -> Option<usize> {
    let mut text = [0; TEXT];
    match node {
        None => {
            let text = read(c"/proc/meminfo", &mut text)?;
            number(text, b"MemAvailable:")
        }
        Some(NumaNode(node)) => {
            let mut path = Path { bytes: [0; LONGEST], len: 0 };
            write!(path, "/sys/devices/system/node/node{node}/meminfo").ok()?;
            let text = read(path.text()?, &mut text)?;
            let of_files = [&b"Active(file):"[..], b"Inactive(file):"];
            let of_files = of_files.iter().filter_map(|name| number(text, name)).sum::<usize>();
            Some(number(text, b"MemFree:")? + of_files)
        }
    }
}

/// The number of kilobytes behind a name, in bytes.
fn number(text: &[u8], name: &[u8]) -> Option<usize> {
    let mut words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.find(|word| *word == name)?;
    let number = core::str::from_utf8(words.next()?).ok()?;
    number.parse::<usize>().ok()?.checked_mul(1024)
}

/// Reads a file, as much of it as there is room for.
fn read<'t>(path: &CStr, text: &'t mut [u8]) -> Option<&'t [u8]> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty())).ok()?;
    let mut len = 0;
    loop {
        match rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut text[len..])).ok()? {
            0 => return Some(&text[..len]),
            read => len += read,
        }
    }
}

/// Bytes that a path has room for, with its end.
const LONGEST: usize = 64;

/// A short path that takes no heap.
struct Path {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Path {
    fn text(&self) -> Option<&CStr> {
        CStr::from_bytes_until_nul(&self.bytes).ok()
    }
}

impl Write for Path {
    fn write_str(&mut self, part: &str) -> core::fmt::Result {
        // The last byte stays zero.
        let end = self.len + part.len();
        let to = self.bytes[..LONGEST - 1].get_mut(self.len..end).ok_or(core::fmt::Error)?;
        to.copy_from_slice(part.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::{bytes, number};
    use crate::units::NumaNode;

    #[test]
    fn a_number_is_found_by_its_name() {
        let all = b"MemTotal:       24684084 kB\nMemAvailable:   23898100 kB\n";
        assert_eq!(number(all, b"MemAvailable:"), Some(23_898_100 * 1024));
        assert_eq!(number(all, b"MemFree:"), None);
        let node = b"Node 0 MemFree:         4971524 kB\nNode 0 Active(file):    1 kB\n";
        assert_eq!(number(node, b"MemFree:"), Some(4_971_524 * 1024));
        assert_eq!(number(node, b"Active(file):"), Some(1024));
        assert_eq!(number(b"MemFree: many kB", b"MemFree:"), None);
        assert_eq!(number(b"MemFree:", b"MemFree:"), None);
    }

    #[test]
    fn the_system_says_how_much_there_is() {
        let all = bytes(None).unwrap();
        assert!(all > 1 << 20, "{all} bytes");
        assert_eq!(bytes(Some(NumaNode(u32::MAX))), None);
        if let Some(node) = bytes(Some(NumaNode(0))) {
            assert!(node > 0);
        }
    }
}
