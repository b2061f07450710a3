//! A child of the process, by whatever fork.

/// Runs `body` in a child, by libc's `fork` or by the bare system call, and `meanwhile` beside it. Returns the exit
/// status, or the signal's number, negated.
pub(crate) fn in_child(
    libc_fork: bool,
    body: impl FnOnce() -> i32,
    meanwhile: impl FnOnce(),
) -> i32 {
    // SAFETY: the child makes system calls and accesses to the test's memory alone, then ends.
    let child = unsafe {
        if libc_fork {
            libc::fork()
        } else {
            let none = 0_usize;
            let child = libc::syscall(libc::SYS_clone, libc::SIGCHLD, none, none, none, none);
            i32::try_from(child).unwrap()
        }
    };
    if child == 0 {
        let status = body();
        // SAFETY: ending a process is always sound.
        unsafe { libc::_exit(status) };
    }
    assert!(child > 0);
    meanwhile();
    let mut status = 0;
    // SAFETY: the status is ours to be written.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
}
