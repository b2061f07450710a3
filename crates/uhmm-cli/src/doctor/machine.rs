//! What this machine says of itself: files of `/proc`, `/sys` and `/dev`, read as they are.

use std::fs::{self, File};
use std::path::Path;

/// A file's content without the space around it.
fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|content| content.trim().to_owned())
}

/// A file that holds a number.
pub(super) fn number(path: &str) -> Option<u64> {
    read(path)?.parse().ok()
}

/// The two first numbers of a kernel's release.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The value of a line of `/proc/self/status`.
pub(super) fn status(key: &str) -> Option<String> {
    value_of(&read("/proc/self/status")?, key)
}

pub(super) fn value_of(status: &str, key: &str) -> Option<String> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// Whether a set of capabilities, as `/proc/self/status` writes it, has one.
pub(super) fn has_capability(set: &str, capability: u32) -> bool {
    u64::from_str_radix(set, 16).is_ok_and(|bits| bits >> capability & 1 == 1)
}

/// The choice of a file that lists several with the chosen one in brackets.
pub(super) fn choice(path: &str) -> Option<String> {
    chosen(&read(path)?)
}

pub(super) fn chosen(choices: &str) -> Option<String> {
    let (_, rest) = choices.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// Whether there is a device node, and whether this user may open it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Absent,
    Refused,
    Open,
}

/// How it is with a device node.
pub(super) fn node(path: &str) -> Node {
    if !Path::new(path).exists() {
        Node::Absent
    } else if File::options().read(true).write(true).open(path).is_ok() {
        Node::Open
    } else {
        Node::Refused
    }
}

/// How many areas this process has.
pub(super) fn areas() -> Option<usize> {
    Some(read("/proc/self/maps")?.lines().count())
}

/// Whether this process lives in a container, as far as can be told.
pub(super) fn is_contained() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|path| Path::new(path).exists())
        || status("Seccomp").is_some_and(|mode| mode == "2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version("6.18.5-amd64"), Some((6, 18)));
        assert_eq!(version("6.8.0"), Some((6, 8)));
        assert_eq!(version("5.15.167.4-microsoft-standard"), Some((5, 15)));
        assert_eq!(version("six"), None);
    }

    #[test]
    fn lines_of_a_status_are_found() {
        let status = "Name:\tuhmm\nCapEff:\t0000000000080000\nSeccomp_filters:\t1\nSeccomp:\t2";
        assert_eq!(value_of(status, "CapEff").as_deref(), Some("0000000000080000"));
        assert_eq!(value_of(status, "Seccomp").as_deref(), Some("2"));
        assert_eq!(value_of(status, "CapPrm"), None);
    }

    #[test]
    fn capabilities_are_bits() {
        assert!(has_capability("0000000000080000", 19));
        assert!(!has_capability("0000000000080000", 18));
        assert!(!has_capability("nothing", 19));
    }

    #[test]
    fn choices_are_in_brackets() {
        assert_eq!(chosen("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(chosen("always madvise never"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_not(text: String, key: String, capability in 0_u32..64) {
            let _ = (version(&text), value_of(&text, &key), chosen(&text));
            let _ = has_capability(&text, capability);
        }
    }
}
