//! What this machine can do, and what is said where it is not enough.

use core::fmt;

use thiserror::Error;

use super::{abi::feature, descriptor::Descriptor, page_size, pagemap::Pagemap};
use crate::{
    mm::{Errno, Look},
    units::PageSize,
};

/// Features of userfaultfd, as a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureSet(u64);

/// A feature of userfaultfd that this back end asks for where it is offered.
struct Wanted {
    name: &'static str,
    bit: u64,
    needed: bool,
    hint: &'static str,
}

const KERNEL_4_11: &str = "a kernel of Linux 4.11 or later";
const KERNEL_4_14: &str = "a kernel of Linux 4.14 or later";
const KERNEL_6_8: &str = "a kernel of Linux 6.8 or later: boot one";

const WANTED: [Wanted; 10] = [
    Wanted { name: "UFFDIO_MOVE", bit: feature::MOVE, needed: true, hint: KERNEL_6_8 },
    Wanted { name: "EVENT_UNMAP", bit: feature::EVENT_UNMAP, needed: true, hint: KERNEL_4_11 },
    Wanted { name: "EVENT_REMOVE", bit: feature::EVENT_REMOVE, needed: true, hint: KERNEL_4_11 },
    Wanted { name: "EVENT_REMAP", bit: feature::EVENT_REMAP, needed: true, hint: KERNEL_4_11 },
    Wanted { name: "THREAD_ID", bit: feature::THREAD_ID, needed: true, hint: KERNEL_4_14 },
    Wanted {
        name: "EXACT_ADDRESS",
        bit: feature::EXACT_ADDRESS,
        needed: false,
        hint: "a kernel of Linux 5.18 or later",
    },
    Wanted {
        name: "UFFDIO_POISON",
        bit: feature::POISON,
        needed: false,
        hint: "a kernel of Linux 6.6 or later; without it lost pages end the program",
    },
    Wanted {
        name: "WP_ASYNC",
        bit: feature::WP_ASYNC,
        needed: false,
        hint: "a kernel of Linux 6.7 or later with CONFIG_PTE_MARKER_UFFD_WP, on x86-64 or arm64; without it files are not watched",
    },
    Wanted {
        name: "MISSING_SHMEM",
        bit: feature::MISSING_SHMEM,
        needed: false,
        hint: "a kernel of Linux 4.11 or later with CONFIG_SHMEM",
    },
    Wanted {
        name: "MISSING_HUGETLBFS",
        bit: feature::MISSING_HUGETLBFS,
        needed: false,
        hint: "a kernel of Linux 4.11 or later with CONFIG_HUGETLBFS",
    },
];

impl FeatureSet {
    /// The names of the features in the set, as far as this back end knows them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.wanted().map(|wanted| wanted.name)
    }

    fn wanted(self) -> impl Iterator<Item = &'static Wanted> {
        WANTED.iter().filter(move |wanted| self.0 & wanted.bit != 0)
    }
}

impl fmt::Display for FeatureSet {
    /// One line for each: its name and what it needs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, wanted) in self.wanted().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{} needs {}", wanted.name, wanted.hint)?;
        }
        Ok(())
    }
}

/// Why the memory management of this system cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// userfaultfd is not to be had, in none of its three ways
    #[error("no userfaultfd ({0}): {hint}", hint = descriptor_hint(*.0))]
    NoDescriptor(Errno),
    /// the kernel's userfaultfd speaks another language
    #[error("userfaultfd refuses the handshake ({0}): boot a kernel of Linux 6.8 or later")]
    Handshake(Errno),
    /// the kernel's userfaultfd lacks what is needed
    #[error("userfaultfd lacks what is needed:\n{0}")]
    Missing(FeatureSet),
    /// page tables cannot be looked at
    #[error(
        "PAGEMAP_SCAN on /proc/self/pagemap does not work ({0}): mount /proc, and boot a kernel of Linux 6.7 or later with CONFIG_PROC_PAGE_MONITOR"
    )]
    Pagemap(Errno),
    /// the system has no descriptor left for wake-ups
    #[error("no eventfd ({0}): raise the limit of open files (ulimit -n)")]
    Wakeups(Errno),
    /// a few pages could not be mapped
    #[error("no memory for a few pages of our own ({0}): raise vm.max_map_count or free memory")]
    Memory(Errno),
}

/// What helps against not getting a descriptor.
fn descriptor_hint(error: Errno) -> &'static str {
    match error.0 {
        libc::ENOSYS => "boot a kernel with CONFIG_USERFAULTFD",
        libc::EPERM | libc::EACCES => {
            "allow userfaultfd in the container's seccomp profile, or give it /dev/userfaultfd"
        }
        libc::EMFILE | libc::ENFILE => "raise the limit of open files (ulimit -n)",
        _ => "free memory",
    }
}

/// One thing that this machine has, or has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// What the kernel calls it.
    pub name: &'static str,
    /// Whether it is there.
    pub present: bool,
    /// Whether [`Linux::open`](super::Linux::open) fails without it.
    pub needed: bool,
    /// What it needs, or how to allow it: to be said where it is absent.
    pub hint: &'static str,
}

/// How many things [`probe`] reports.
const REPORTED: usize = WANTED.len() + 4;

/// Finds out what this machine can do. Changes nothing, and works where
/// [`Linux::open`](super::Linux::open) fails.
pub fn probe() -> [Feature; REPORTED] {
    let descriptor = Descriptor::new();
    let offered = descriptor.as_ref().map_or(0, |d| d.agree(0).unwrap_or(0));
    let error = descriptor.as_ref().err().map_or(Errno(0), |&error| error.into());
    let page = page_size();
    let mut report = [Feature {
        name: "userfaultfd",
        present: descriptor.is_ok(),
        needed: true,
        hint: descriptor_hint(error),
    }; REPORTED];
    report[1] = Feature {
        name: "userfaultfd for system calls",
        present: descriptor.is_ok_and(|d| !d.user_mode_only()),
        needed: false,
        hint: "give the user /dev/userfaultfd, or set vm.unprivileged_userfaultfd=1, or grant CAP_SYS_PTRACE",
    };
    report[2] = Feature {
        name: "PAGEMAP_SCAN",
        present: working_pagemap(page).is_ok(),
        needed: true,
        hint: "/proc, and a kernel of Linux 6.7 or later with CONFIG_PROC_PAGE_MONITOR",
    };
    report[3] = Feature {
        name: "EVENT_FORK",
        present: offered & feature::EVENT_FORK != 0 && told_of_forks().is_some(),
        needed: false,
        hint: "CAP_SYS_PTRACE; without it children of a bare system call (clone) do not have the areas that devices took pages from",
    };
    for (place, wanted) in report[4..].iter_mut().zip(&WANTED) {
        *place = Feature {
            name: wanted.name,
            present: offered & wanted.bit != 0,
            needed: wanted.needed,
            hint: wanted.hint,
        };
    }
    report
}

/// A descriptor that is told of forks and nothing else, where this process may be told.
fn told_of_forks() -> Option<Descriptor> {
    Descriptor::new().ok().filter(|descriptor| descriptor.agree(feature::EVENT_FORK).is_ok())
}

/// A descriptor on which all that is wanted and offered is agreed. Where forks are told, as is wanted
/// with `forks`, and allowed, there is another besides that is told of them alone.
pub(super) fn agreed_descriptor(
    forks: bool,
) -> Result<(Descriptor, Option<Descriptor>), OpenError> {
    let no_descriptor = |error: rustix::io::Errno| OpenError::NoDescriptor(error.into());
    let handshake = |error: rustix::io::Errno| OpenError::Handshake(error.into());
    // What is offered is told by agreeing on nothing, and a descriptor agrees once.
    let offered = Descriptor::new().map_err(no_descriptor)?.agree(0).map_err(handshake)?;
    let (mut ask, mut missing) = (0, 0);
    for wanted in &WANTED {
        if offered & wanted.bit != 0 {
            ask |= wanted.bit;
        } else if wanted.needed {
            missing |= wanted.bit;
        }
    }
    if missing != 0 {
        return Err(OpenError::Missing(FeatureSet(missing)));
    }
    let descriptor = Descriptor::new().map_err(no_descriptor)?;
    // A descriptor that was refused has agreed on nothing, and is asked again.
    if forks
        && offered & feature::EVENT_FORK != 0
        && let Some(other) = told_of_forks()
        && descriptor.agree(ask | feature::EVENT_FORK).is_ok()
    {
        return Ok((descriptor, Some(other)));
    }
    descriptor.agree(ask).map_err(handshake)?;
    Ok((descriptor, None))
}

/// A pagemap that can be scanned.
pub(super) fn working_pagemap(page: PageSize) -> Result<Pagemap, Errno> {
    let pagemap = Pagemap::open(page)?;
    let local = 0_u8;
    let here = page.page_of((&raw const local).addr());
    pagemap.look(here, &mut [Look::Hole])?;
    Ok(pagemap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_feature_gets_its_line() {
        let missing = OpenError::Missing(FeatureSet(feature::MOVE | feature::EVENT_REMAP));
        assert_eq!(
            missing.to_string(),
            "userfaultfd lacks what is needed:\n\
             UFFDIO_MOVE needs a kernel of Linux 6.8 or later: boot one\n\
             EVENT_REMAP needs a kernel of Linux 4.11 or later"
        );
    }

    #[test]
    fn what_helps_depends_on_the_error() {
        let denied = OpenError::NoDescriptor(Errno(libc::EPERM)).to_string();
        assert!(denied.contains("seccomp"), "{denied}");
        let absent = OpenError::NoDescriptor(Errno(libc::ENOSYS)).to_string();
        assert!(absent.contains("CONFIG_USERFAULTFD"), "{absent}");
    }
}
