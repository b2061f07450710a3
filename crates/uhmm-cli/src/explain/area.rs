//! Areas of another process, as `/proc/PID/smaps` tells of them.

use std::fmt;

/// An area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Area {
    start: usize,
    end: usize,
    /// As in `rw-p`.
    access: String,
    /// The file, or a name in brackets, without what a terminal would take for commands; or nothing.
    name: String,
    /// Two letters each, such as `lo` for locked.
    flags: Vec<String>,
}

/// The area that has an address.
pub(super) fn find(smaps: &str, address: usize) -> Option<Area> {
    let mut lines = smaps.lines();
    let mut area = lines.find_map(|line| parse(line).filter(|area| area.contains(address)))?;
    // Its lines go on until the next area begins.
    let flags = lines
        .take_while(|line| parse(line).is_none())
        .find_map(|line| line.strip_prefix("VmFlags:"))
        .unwrap_or_default();
    area.flags = flags.split_ascii_whitespace().map(str::to_owned).collect();
    Some(area)
}

/// The first line of an area.
fn parse(line: &str) -> Option<Area> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    let mut fields = rest.trim_start().splitn(4, ' ');
    let (access, _offset, _device) = (fields.next()?, fields.next()?, fields.next()?);
    // The number of the file's node stands before its name.
    let name = fields.next().unwrap_or_default().trim_start();
    let name = name.split_once(' ').map_or("", |(_, name)| name.trim());
    if access.len() != 4 || access.contains(|letter| !"rwxsp-".contains(letter)) || start >= end {
        return None;
    }
    Some(Area {
        start,
        end,
        access: access.to_owned(),
        name: name.chars().filter(|character| !character.is_control()).collect(),
        flags: Vec::new(),
    })
}

impl Area {
    const fn contains(&self, address: usize) -> bool {
        self.start <= address && address < self.end
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|other| other == flag)
    }

    /// What of the area keeps its pages from going to a device.
    pub(super) fn keeps(&self) -> impl Iterator<Item = &'static str> {
        let is_shared = self.access.ends_with('s');
        // Shared memory is of a file that is kept in memory, and migrates. What has another name may be of
        // a tmpfs all the same.
        let names = ["/dev/zero (deleted)", "/SYSV", "/memfd:", "/dev/shm/"];
        let in_memory = is_shared && names.iter().any(|name| self.name.starts_with(name));
        let is_file = !self.name.is_empty() && !self.name.starts_with('[') && !in_memory;
        [
            (self.name == "[stack]", "it is the stack of the first thread"),
            (is_file && !is_shared, "it is of a file, which devices map where it is"),
            (
                is_file && is_shared,
                "it is of a file, which devices map where it is but for a tmpfs",
            ),
            (!self.access.starts_with("rw"), "its area cannot be read and written"),
            (self.has("lo"), "its area is locked into memory (mlock)"),
            (self.has("ht"), "it is of huge pages of their own kind (hugetlb), of which only shared ones go, by a promise"),
            (self.has("io") || self.has("pf"), "it is memory of a driver"),
        ]
        .into_iter()
        .filter(|&(is_so, _)| is_so)
        .map(|(_, reason)| reason)
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, end, access, name, .. } = self;
        write!(f, "{start:#x} to {end:#x}, {access}")?;
        let kib = (end - start) >> 10;
        write!(f, ", {kib} KiB, {}", if name.is_empty() { "anonymous" } else { name })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMAPS: &str = "\
55d0c0000000-55d0c0021000 rw-p 00000000 00:00 0                          [heap]
Size:                132 kB
Rss:                   8 kB
VmFlags: rd wr mr mw me ac sd um uw
7f0000000000-7f0000200000 rw-s 00000000 00:01 1024                       /memfd:a b (deleted)
Size:               2048 kB
VmFlags: rd wr sh mr mw me ms sd
7f0000200000-7f0000400000 r--p 00000000 00:00 0
VmFlags: rd mr mw me lo sd
7f0000400000-7f0000600000 rw-s 00000000 00:01 1025                       /dev/zero (deleted)
VmFlags: rd wr sh mr mw me ms sd
7f0000600000-7f0000800000 rw-s 00000000 08:01 77                         /var/lib/a
VmFlags: rd wr sh mr mw me ms sd
";

    #[test]
    fn an_address_is_found_in_its_area() {
        let heap = find(SMAPS, 0x55d0_c000_1000).unwrap();
        assert_eq!(heap.to_string(), "0x55d0c0000000 to 0x55d0c0021000, rw-p, 132 KiB, [heap]");
        assert_eq!(heap.keeps().next(), None);
        let shared = find(SMAPS, 0x7f00_001f_ffff).unwrap();
        assert_eq!((&*shared.name, shared.flags.len()), ("/memfd:a b (deleted)", 8));
        assert_eq!(shared.keeps().next(), None);
        let on_disk = find(SMAPS, 0x7f00_0060_0000).unwrap();
        assert!(
            on_disk.keeps().eq(["it is of a file, which devices map where it is but for a tmpfs"])
        );
        let locked = find(SMAPS, 0x7f00_0020_0000).unwrap();
        assert!(
            locked.keeps().eq([
                "its area cannot be read and written",
                "its area is locked into memory (mlock)"
            ])
        );
        let anonymous = find(SMAPS, 0x7f00_0040_0000).unwrap();
        assert_eq!(anonymous.keeps().next(), None);
        for outside in [0, 0x55d0_c002_1000, 0x7f00_0080_0000, usize::MAX] {
            assert_eq!(find(SMAPS, outside), None);
        }
    }

    #[test]
    fn names_cannot_command_a_terminal() {
        let text = "1000-2000 rw-p 0 00:00 1 /tmp/\u{1b}[2Jx\nVmFlags: rd\n";
        assert_eq!(find(text, 0x1000).unwrap().name, "/tmp/[2Jx");
    }

    #[test]
    fn access_is_four_of_its_letters() {
        for access in ["rw\u{1b}c", "rw", "rw-px", "1234"] {
            assert_eq!(
                find(&format!("1000-2000 {access} 0 00:00 1 /x\n"), 0x1000),
                None,
                "{access:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_has_an_area_or_none(text in "([0-9a-f]{0,18}[- ]?|VmFlags:|\\PC|\n){0,40}", address: usize) {
            if let Some(area) = find(&text, address) {
                prop_assert!(area.contains(address));
            }
        }

        #[test]
        fn any_line_is_one_or_not(line in "[0-9a-f]{0,17}-[0-9a-f]{0,17} \\PC{0,30}") {
            let _ = parse(&line);
        }
    }
}
