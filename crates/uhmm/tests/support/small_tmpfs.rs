//! A file on a tmpfs of a few pages, to fill it.

use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags},
};

/// What it takes to have one.
pub(crate) const NEEDED: &str = "the right to mount a file system";

/// A file on a tmpfs of its own, mounted nowhere, that has room for `pages` base pages. `None` where this
/// user may not have one.
pub(crate) fn file_with_room_for(pages: usize) -> Option<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
    rustix::mount::fsconfig_set_string(&context, "nr_blocks", pages.to_string().as_str()).ok()?;
    rustix::mount::fsconfig_create(&context).ok()?;
    let close = FsMountFlags::FSMOUNT_CLOEXEC;
    let root = rustix::mount::fsmount(&context, close, MountAttrFlags::empty()).ok()?;
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::openat(root, "full", flags, Mode::RUSR | Mode::WUSR).ok()
}
