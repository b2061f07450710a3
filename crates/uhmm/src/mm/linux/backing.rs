//! What stands behind an area, told by the name that the kernel gives to it.
//!
//! Source: `fs/proc/task_mmu.c` of Linux 6.12, `get_vma_name`;
//! `proc_pid_maps(5)`.

use crate::mm::Backing;

/// What stands behind an area of this name, whose stores are seen by others where it is `shared`.
/// Pages of a hugetlb pool are not told by a name.
pub(super) fn of_name(name: &[u8], shared: bool) -> Backing {
    let starts = |prefix: &[u8]| name.starts_with(prefix);
    let anonymous = if shared { Backing::SharedAnonymous } else { Backing::PrivateAnonymous };
    match name {
        b"" | b"[heap]" | b"[stack]" => anonymous,
        _ if starts(b"[anon:") || starts(b"[anon_shmem:") => anonymous,
        // A private mapping of the zero device is anonymous; what is called so and deleted is
        // how the kernel keeps shared anonymous memory.
        b"/dev/zero" if !shared => Backing::PrivateAnonymous,
        b"/dev/zero (deleted)" if shared => Backing::SharedAnonymous,
        _ if starts(b"/SYSV") && shared => Backing::SharedAnonymous,
        // The kernel's own, and files that are no files: `[vdso]`, `anon_inode:`, `socket:`.
        _ if !starts(b"/") => Backing::Special,
        _ if starts(b"/dev/") && !starts(b"/dev/shm/") => Backing::Special,
        // Where these can be mapped at all they show a device, or the kernel's own memory.
        _ if starts(b"/sys/") || starts(b"/proc/") => Backing::Special,
        _ if starts(b"/[aio]") || starts(b"/dmabuf:") || starts(b"/secretmem") => Backing::Special,
        _ if shared => Backing::SharedFile,
        _ => Backing::PrivateFile,
    }
}
