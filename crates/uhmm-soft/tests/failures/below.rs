//! The kernel itself refuses calls, each kind in turn and for good: what lies between the seam and the
//! system says so, or does without. No access finds wrong content, and nothing hangs.
//!
//! A filter of the process's system calls answers an error in place of the call. It cannot be taken off
//! again, so each is tried in a process of its own: from before the address space is opened, from before
//! pages go away, and while they are away.

use std::{
    env,
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
    time::Instant,
};

use uhmm::{AddressSpace, units::AddressRange};
use uhmm_soft::{Options, Soft};

use crate::{
    has_linux,
    world::{LinuxWorld, World},
};

/// A kind of call: its number, and an argument that it is told by.
struct Kind {
    name: &'static str,
    number: libc::c_long,
    argument: Option<(u32, u32)>,
}

const fn kind(name: &'static str, number: libc::c_long) -> Kind {
    Kind { name, number, argument: None }
}

/// A call of `ioctl`, by its request (`linux/userfaultfd.h`, `linux/fs.h`).
const fn ioctl(name: &'static str, request: u32) -> Kind {
    Kind { name, number: libc::SYS_ioctl, argument: Some((1, request)) }
}

const fn advice(name: &'static str, advice: i32) -> Kind {
    Kind { name, number: libc::SYS_madvise, argument: Some((2, advice.cast_unsigned())) }
}

/// What the engine asks the kernel for. Left out are reading messages, waking and waiting, which the
/// kernel never refuses a descriptor that it has given, and without which there is nothing to be tried.
const KINDS: &[Kind] = &[
    kind("userfaultfd", libc::SYS_userfaultfd),
    ioctl("USERFAULTFD_IOC_NEW", 0xaa00),
    ioctl("UFFDIO_API", 0xc018_aa3f),
    ioctl("UFFDIO_REGISTER", 0xc020_aa00),
    ioctl("UFFDIO_UNREGISTER", 0x8010_aa01),
    ioctl("UFFDIO_COPY", 0xc028_aa03),
    ioctl("UFFDIO_ZEROPAGE", 0xc020_aa04),
    ioctl("UFFDIO_MOVE", 0xc028_aa05),
    ioctl("UFFDIO_WRITEPROTECT", 0xc018_aa06),
    ioctl("UFFDIO_POISON", 0xc020_aa08),
    ioctl("PAGEMAP_SCAN", 0xc060_6610),
    ioctl("PROCMAP_QUERY", 0xc068_6611),
    advice("MADV_DONTNEED", libc::MADV_DONTNEED),
    advice("MADV_DONTFORK", libc::MADV_DONTFORK),
    advice("MADV_DOFORK", libc::MADV_DOFORK),
    advice("MADV_POPULATE_READ", libc::MADV_POPULATE_READ),
    advice("MADV_POPULATE_WRITE", libc::MADV_POPULATE_WRITE),
    kind("process_madvise", libc::SYS_process_madvise),
    kind("openat", libc::SYS_openat),
    kind("pread64", libc::SYS_pread64),
    kind("getdents64", libc::SYS_getdents64),
    kind("get_robust_list", libc::SYS_get_robust_list),
    kind("eventfd2", libc::SYS_eventfd2),
    kind("membarrier", libc::SYS_membarrier),
    kind("rt_sigaction", libc::SYS_rt_sigaction),
    kind("rt_sigprocmask", libc::SYS_rt_sigprocmask),
    kind("rt_tgsigqueueinfo", libc::SYS_rt_tgsigqueueinfo),
    kind("clone3", libc::SYS_clone3),
    kind("munmap", libc::SYS_munmap),
];

const ERRORS: [i32; 3] = [libc::ENOMEM, libc::EINVAL, libc::EPERM];

/// From when on calls are refused.
const MOMENTS: [&str; 3] = ["before opening", "before migrating", "while away"];

const KIND: &str = "UHMM_REFUSED_KIND";
const ERROR: &str = "UHMM_REFUSED_ERROR";
const MOMENT: &str = "UHMM_REFUSED_MOMENT";

/// Refuses all threads of this process the calls of a kind, for good.
fn refuse(kind: &Kind, error: i32) {
    let instruction = |code: u32, skip, value| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: 0,
        jf: skip,
        k: value,
    };
    let load = |at| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, at);
    let answer = |what| instruction(libc::BPF_RET | libc::BPF_K, 0, what);
    let unless =
        |value, skip| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skip, value);
    let number = u32::try_from(kind.number).unwrap();
    let refused = answer(libc::SECCOMP_RET_ERRNO | error.cast_unsigned());
    let allowed = answer(libc::SECCOMP_RET_ALLOW);
    // The number comes first in `struct seccomp_data`, arguments from its 16th byte on.
    let mut program = vec![load(0)];
    match kind.argument {
        None => program.extend([unless(number, 1), refused, allowed]),
        Some((place, value)) => {
            let low = if cfg!(target_endian = "big") { 4 } else { 0 };
            let argument = load(16 + 8 * place + low);
            program.extend([unless(number, 3), argument, unless(value, 1), refused, allowed]);
        }
    }
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap(),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the filter is a program of so many instructions, which the kernel copies and checks.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let (set, all) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_TSYNC);
        let done = libc::syscall(libc::SYS_seccomp, set, all, &raw const filter);
        assert_eq!(done, 0, "seccomp: {}", std::io::Error::last_os_error());
    }
}

const PAGES: usize = 600;
const AWAY: usize = 40;

const fn content(page: usize) -> u64 {
    page as u64 * 3 + 5
}

/// Opens, migrates, touches, changes, detaches and closes. Answers how many accesses failed, or what
/// was reported.
fn work(mut at: impl FnMut(&str)) -> Result<usize, Box<dyn std::error::Error>> {
    let (world, linux) = {
        at("before opening");
        let linux = uhmm::mm::linux::Linux::open()?;
        drop(linux);
        LinuxWorld::start()
    };
    drop(linux);
    let space = AddressSpace::open()?;
    world.map(0..PAGES);
    let mut expected: Vec<_> = (0..PAGES).map(content).collect();
    for page in 0..PAGES {
        world.store(page, content(page)).ok_or("a store of memory that nobody has adopted")?;
    }
    let start = world.address(0);
    let range = AddressRange::new(start, world.address(AWAY) - start)?;
    space.adopt(AddressRange::new(start, world.address(PAGES) - start)?)?;
    let device = Soft::start(&space, Options::new(range.len() * 2).workers(1))?;
    at("before migrating");
    let moved = device.migrate(range)?;
    at("while away");
    let mut failed = 0;
    // One at a time, many, and by the device.
    let mut touch = |page: usize, expected: u64| match world.load(page) {
        Some(found) => assert_eq!(found, expected, "LOST: page {page}"),
        None => failed += 1,
    };
    touch(3, expected[3]);
    let doubled = |page: usize| {
        let at = world.address(page);
        // SAFETY: nobody touches the page meanwhile.
        unsafe {
            device.run(0..1, move |worker, _| {
                let value: u64 = worker.load(at)?;
                worker.store(at, value * 2)
            })
        }
    };
    if doubled(7).is_ok() {
        expected[7] *= 2;
    }
    // The program's own call may be what is refused.
    let discard = |first: usize, pages: usize| {
        let at = std::ptr::with_exposed_provenance_mut(world.address(first));
        // SAFETY: the memory is this test's.
        unsafe { libc::madvise(at, pages * space.page_size().bytes(), libc::MADV_DONTNEED) == 0 }
    };
    if discard(10, 2) {
        expected[10..12].fill(0);
    }
    let back = space.bring_back(range)?;
    for (page, &expected) in expected.iter().enumerate().take(AWAY) {
        touch(page, expected);
    }
    let again = device.migrate(range)?;
    // The first touch of a hole in a trapped area.
    if discard(500, 1) {
        expected[500] = 0;
    }
    touch(500, expected[500]);
    for (page, &expected) in expected.iter().enumerate().take(AWAY) {
        touch(page, expected);
    }
    eprintln!("moved {}, back {}, moved {}", moved.moved(), back.moved(), again.moved());
    drop(device);
    space.close()?;
    for (page, &expected) in expected.iter().enumerate().take(AWAY) {
        touch(page, expected);
    }
    Ok(failed)
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn what_is_refused_here() {
    let number = |name| env::var(name).ok()?.parse::<usize>().ok();
    let (Some(kind), Some(error), Some(moment)) = (number(KIND), number(ERROR), number(MOMENT))
    else {
        return;
    };
    let outcome = work(|now| {
        if now == MOMENTS[moment] {
            refuse(&KINDS[kind], ERRORS[error]);
        }
    });
    // Not by the harness, which would need what may be refused.
    let said = match outcome {
        Ok(failed) => format!("done, {failed} accesses failed\n"),
        Err(error) => format!("reported: {error}\n"),
    };
    // SAFETY: the text is as long as is said; ending a process is always sound.
    unsafe {
        libc::write(1, said.as_ptr().cast(), said.len());
        libc::_exit(0);
    }
}

#[test]
fn every_kind_of_call_is_refused_by_the_kernel() {
    if !has_linux("every_kind_of_call_is_refused_by_the_kernel") {
        return;
    }
    let mut table = Vec::new();
    for number in 0..KINDS.len() {
        for moment in 0..MOMENTS.len() {
            table.extend((0..ERRORS.len()).map(|error| try_one(number, moment, error)));
        }
    }
    eprintln!("{}", table.join("\n"));
}

/// Tries one, and answers what came of it in a line.
fn try_one(kind: usize, moment: usize, error: usize) -> String {
    let since = Instant::now();
    let output = Command::new("timeout")
        .args(["--signal=KILL", "60"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "below::what_is_refused_here", "--ignored", "--nocapture"])
        .env(KIND, kind.to_string())
        .env(ERROR, error.to_string())
        .env(MOMENT, moment.to_string())
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let end = said.lines().find(|line| line.starts_with("done") || line.starts_with("reported"));
    let message = errors.lines().find(|line| line.starts_with("uhmm: "));
    let what = format!("{} fails with {} {}", KINDS[kind].name, ERRORS[error], MOMENTS[moment]);
    match (end, output.status.signal(), message) {
        (Some(end), None, _) if output.status.success() => format!("{what}: {end}"),
        (_, Some(libc::SIGABRT), Some(message)) => format!("{what}: {message}"),
        _ => {
            let (status, after) = (output.status, since.elapsed());
            panic!("{what}: ended with {status} after {after:?}\n{said}\n{errors}")
        }
    }
}
