//! The process to which things are done.

use std::{
    env,
    io::{BufRead, stdin},
    ptr,
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread,
};

use uhmm::{AddressSpace, Options, units::AddressRange};
use uhmm_soft::{Options as DeviceOptions, Soft};

/// The variable by which the subject is told what it is to be.
pub(crate) const VARIABLE: &str = "UHMM_SUBJECT";

/// What comes before an answer: other lines are the test harness's.
pub(crate) const MARK: &str = "subject: ";

/// Pages that are away.
pub(crate) const PAGES: usize = 256;

/// Pages before and after them that stay, so that their area is theirs alone.
const NUMBERS: usize = 512;

/// What is in a word of a page.
pub(crate) fn content(page: usize, word: usize) -> u64 {
    (page as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ word as u64
}

fn say(line: impl AsRef<str>) {
    // In one piece, as children write there too.
    let line = format!("{MARK}{}\n", line.as_ref());
    // SAFETY: the line is as long as is said.
    let written = unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
    assert_eq!(written.cast_unsigned(), line.len());
}

struct Subject {
    device: Soft,
    space: AddressSpace,
    range: AddressRange,
    page: usize,
}

impl Subject {
    fn new(options: Options) -> Result<Self, String> {
        let space = options.open().map_err(|error| error.to_string())?;
        let page = space.page_size().bytes();
        let bytes = PAGES * page;
        let (access, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: the system chooses the addresses.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        let range = AddressRange::new(start.expose_provenance(), bytes).expect("some pages");
        space.adopt(range).expect("private memory");
        let device = Soft::start(&space, DeviceOptions::new(bytes)).expect("a device starts");
        let subject = Self { device, space, range, page };
        for page in 0..PAGES {
            for word in 0..NUMBERS {
                // SAFETY: the page is the subject's, and nobody else uses it yet.
                unsafe { subject.word(page, word).write(content(page, word)) };
            }
        }
        Ok(subject)
    }

    fn word(&self, page: usize, word: usize) -> *mut u64 {
        ptr::with_exposed_provenance_mut(self.range.start() + page * self.page + word * 8)
    }

    fn send_away(&self) {
        self.device.migrate(self.range).expect("whole pages");
        assert_eq!(self.device.memory_used(), self.range.len(), "all is away");
    }

    fn is_right(&self, page: usize) -> bool {
        [0, 1, NUMBERS - 1].into_iter().all(|word| {
            // SAFETY: the page is the subject's; who writes there writes what is there.
            let found = unsafe { AtomicU64::from_ptr(self.word(page, word)) }.load(Relaxed);
            found == content(page, word)
        })
    }

    fn all_are_right(&self) -> bool {
        (0..PAGES).all(|page| self.is_right(page))
    }

    /// Has the kernel read a page for a pipe; answers whether it did.
    fn call_the_system(&self) -> String {
        let mut pipe = [0; 2];
        // SAFETY: there is room for two descriptors.
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
        // SAFETY: the kernel reads eight bytes of a page, or says that it cannot.
        let written = unsafe { libc::write(pipe[1], self.word(7, 3).cast(), 8) };
        if written < 0 { std::io::Error::last_os_error().to_string() } else { "called".to_owned() }
    }
}

fn thread_number() -> i32 {
    // SAFETY: it takes nothing.
    unsafe { libc::gettid() }
}

/// Threads touch the pages while another has them go away, again and again.
struct Load<'a> {
    subject: &'a Subject,
    rounds: AtomicU64,
    wrong: AtomicBool,
    stop: AtomicBool,
}

impl Load<'_> {
    fn touch(&self, seed: u64) {
        let mut random = seed;
        while !self.stop.load(Relaxed) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed);
            let page = usize::try_from(random >> 33).unwrap_or(0) % PAGES;
            if !self.subject.is_right(page) {
                self.wrong.store(true, Release);
            }
            // SAFETY: the page is the subject's; nothing is changed.
            unsafe { AtomicU64::from_ptr(self.subject.word(page, 5)) }.fetch_xor(0, Relaxed);
            self.rounds.fetch_add(1, Relaxed);
        }
    }

    fn send_away(&self) {
        while !self.stop.load(Relaxed) {
            self.subject.device.migrate(self.subject.range).expect("whole pages");
        }
    }
}

/// Children of the bare system call read what was away.
fn start_children(subject: &Subject, count: usize) {
    for _ in 0..count {
        subject.device.migrate(subject.range).expect("whole pages");
        // SAFETY: the child reads memory and ends, by what needs no lock.
        let child = unsafe { libc::syscall(libc::SYS_clone, i64::from(libc::SIGCHLD), 0, 0, 0, 0) };
        assert!(child >= 0, "no child");
        if child == 0 {
            // SAFETY: ending a process is always sound.
            unsafe { libc::_exit(i32::from(!subject.all_are_right())) }
        }
    }
}

fn follow(subject: &Subject, load: &Load<'_>) {
    for line in stdin().lock().lines() {
        match line.expect("a line").as_str() {
            "away" => {
                subject.send_away();
                say("away");
            }
            "check" => say(if subject.all_are_right() { "right" } else { "WRONG" }),
            "rounds" => say(load.rounds.load(Relaxed).to_string()),
            "call" => say(subject.call_the_system()),
            "children" => {
                start_children(subject, 3);
                say("children");
            }
            "abort" => std::process::abort(),
            "crash" => {
                // SAFETY: it ends this process, as it is told to.
                unsafe { ptr::without_provenance_mut::<u8>(8).write_volatile(1) };
            }
            "end" => return,
            other => panic!("what is {other}"),
        }
    }
}

/// Does as it is told until it is told to end, and says whether all was right.
pub(crate) fn run() {
    let Ok(what) = env::var(VARIABLE) else { return };
    let mut options = Options::new();
    if what.contains("returns") {
        options = options.bring_back_on(libc::SIGABRT).bring_back_on(libc::SIGSEGV);
    }
    let subject = match Subject::new(options) {
        Ok(subject) => subject,
        Err(error) => return say(format!("no: {error}")),
    };
    subject.send_away();
    let load = Load {
        subject: &subject,
        rounds: AtomicU64::new(0),
        wrong: AtomicBool::new(false),
        stop: AtomicBool::new(false),
    };
    let said = |load: &Load<'_>| {
        let serves = subject.space.serves_system_calls();
        say(format!("at {} {} {} {serves}", subject.range.start(), subject.page, thread_number()));
        follow(&subject, load);
        load.stop.store(true, Relaxed);
    };
    if what.contains("busy") {
        thread::scope(|scope| {
            let load = &load;
            for seed in [3, 5, 7] {
                scope.spawn(move || load.touch(seed));
            }
            scope.spawn(|| load.send_away());
            said(load);
        });
    } else {
        said(&load);
    }
    let right = subject.all_are_right() && !load.wrong.load(Acquire);
    drop(subject.device);
    subject.space.close().expect("everything comes back");
    say(if right { "right" } else { "WRONG" });
}
