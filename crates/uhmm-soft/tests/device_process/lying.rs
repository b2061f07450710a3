//! A device process whose program does not keep to what both agree on: it ends, and says by its status why.

use std::{
    io::Read,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    process::{Child, Command as Process, Stdio},
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use uhmm::{
    AddressSpace, StayCause,
    ring::{self, Command, Order, Words},
    units::{PageNumber, PageRange},
};
use uhmm_soft::{Home, KernelDevice, KernelStartError, ProcessOptions};

use crate::{
    kernels::{ADD, KERNELS, TOUCH},
    place::myself,
    shared::{
        COMMANDS, FRAME_COUNT, FRAMES, GIVEN_COUNT, Memory, PAGE, READY, REPORTS, STATE, given,
        len_with, orders,
    },
};

/// What the process ends as.
const TOLD: i32 = 0;
const REFUSED: i32 = 3;
const PROTOCOL: i32 = 4;
const MEMORY: i32 = 5;
const PANICKED: i32 = 6;

/// What goes before the rings, as a program has it.
type Head = [u8; 128];

const FRAMES_THERE: usize = 4;

/// Where words are before the rings: what a program introduces itself by.
const MAGIC: usize = 0;
const VERSION: usize = 8;
const PAGE_BYTES: usize = 16;
const PAGE_LIMIT: usize = 32;
const KERNEL_COUNT: usize = 40;
const FINGERPRINT: usize = 48;
const PROGRAM: usize = 56;
const WORKERS: usize = 72;

/// A program of this process's, as it would begin with a device process.
struct Program {
    head: Head,
}

impl Program {
    /// Has one begin, and takes down what it says.
    fn listen() -> Self {
        let space = AddressSpace::open().unwrap();
        let (mut read, write) = std::io::pipe().unwrap();
        let mut command = Process::new("/bin/sh");
        command.args(["-c", "head -c 128"]).stdout(write);
        let memory = FRAMES_THERE * PAGE;
        let options = ProcessOptions::new(memory).workers(2).command(command);
        let error = KernelDevice::start(&space, Home::OwnProcess(options), KERNELS).unwrap_err();
        assert!(matches!(error, KernelStartError::NotReady { .. }), "{error}");
        let mut head = [0; 128];
        read.read_exact(&mut head).unwrap();
        space.close().unwrap();
        Self { head }
    }

    /// Starts a device process with a file of so many bytes, after `change` has changed what is said.
    fn start(&self, len: usize, seals: i32, change: impl FnOnce(&Memory)) -> Device {
        let name = c"uhmm-device";
        // SAFETY: a new file, which is this function's alone.
        let file = unsafe {
            let file =
                libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
            assert!(file >= 0);
            OwnedFd::from_raw_fd(file)
        };
        // SAFETY: the file is there.
        unsafe {
            assert_eq!(libc::ftruncate(file.as_raw_fd(), len.try_into().unwrap()), 0);
            assert_eq!(libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals), 0);
        }
        let memory = Memory::map(file.as_fd());
        for (at, word) in self.head.chunks_exact(4).enumerate() {
            memory.word(4 * at).store(u32::from_ne_bytes(word.try_into().unwrap()), SeqCst);
        }
        change(&memory);
        Device { memory, child: begin(Stdio::from(file)) }
    }

    fn device(&self) -> Device {
        let device = self.start(len_with(FRAMES_THERE), SEALS, |_| ());
        let since = Instant::now();
        while device.memory.word(STATE).load(SeqCst) != READY {
            assert!(since.elapsed() < Duration::from_secs(20), "it is ready");
            std::thread::sleep(Duration::from_millis(1));
        }
        device
    }
}

const SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

fn begin(file: Stdio) -> Child {
    let mut command = Process::new(myself());
    command.env("UHMM_SOFT_DEVICE_OF", std::process::id().to_string());
    command.stdin(file).spawn().unwrap()
}

struct Device {
    memory: Memory,
    child: Child,
}

/// The status that a process ends with.
fn status(child: &mut Child, what: &str) -> i32 {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or_else(|| panic!("{what}: {status}"));
        }
        if since.elapsed() > Duration::from_secs(20) {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{what}: it goes on");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Such files are no memory to serve with.
pub(crate) fn it_is_given_other_memory() {
    let program = Program::listen();
    // As it should be.
    let mut device = program.device();
    device.memory.say(COMMANDS, &[Command::Stop.encode()]);
    assert_eq!(status(&mut device.child, "nothing else"), TOLD);
    let len = len_with(FRAMES_THERE);
    let words = [
        ("magic", MAGIC, 1),
        ("version", VERSION, ring::VERSION + 1),
        ("page_bytes", PAGE_BYTES, 8192),
        ("frames", FRAME_COUNT, FRAMES_THERE as u64 + 1),
        ("kernels", KERNEL_COUNT, 1 + KERNELS.len() as u64),
        ("fingerprint", FINGERPRINT, 1),
        ("program", PROGRAM, 1),
        ("workers", WORKERS, 0),
        ("workers", WORKERS, 65),
    ];
    for (what, word, value) in words {
        let mut device =
            program.start(len, SEALS, |memory| memory.long_word(word).store(value, SeqCst));
        assert_eq!(status(&mut device.child, what), REFUSED, "{what} is {value}");
    }
    let unlimited = |memory: &Memory| memory.long_word(PAGE_LIMIT).store(u64::MAX, SeqCst);
    let mut device = program.start(len, SEALS, unlimited);
    assert_eq!(status(&mut device.child, "pages"), MEMORY);
    for (what, len, seals) in [
        ("a file that could shrink", len, libc::F_SEAL_GROW),
        ("a part of a page more", len + 1, SEALS),
        ("no notes of frames", FRAMES + FRAMES_THERE * PAGE, SEALS),
        ("no frame", FRAMES, SEALS),
        ("less than the head", FRAMES - PAGE, SEALS),
    ] {
        let mut device = program.start(len, seals, |_| ());
        assert_eq!(status(&mut device.child, what), REFUSED, "{what}");
    }
    assert_eq!(status(&mut begin(Stdio::null()), "no file"), REFUSED);
}

/// A launch of two items at page 16, which it may not reach unless it is given.
fn launch(kernel: usize) -> Words {
    Order::Launch { kernel, first: 0, count: 2, arguments: [16 << 12, 4096, 1, 0] }.encode()
}

fn commit(frame: usize) -> Words {
    let pages = PageRange::of(PageNumber(16), 2);
    Command::Commit { pages, frame, write: true }.encode()
}

fn name_pages(memory: &Memory) {
    memory.long_word(given(0)).store(16, SeqCst);
    memory.long_word(given(0) + 8).store(18, SeqCst);
    memory.word(GIVEN_COUNT).store(1, SeqCst);
}

/// What the program says, and what the process ends as then.
type Lie = (&'static str, fn(&Memory), i32);

const LIES: &[Lie] = &[
    ("no command", |memory| memory.say(COMMANDS, &[[99; 8]]), PROTOCOL),
    ("a frame that is not", |memory| memory.say(COMMANDS, &[commit(FRAMES_THERE - 1)]), PROTOCOL),
    ("more commands than can be", |memory| memory.claim(COMMANDS, 257), PROTOCOL),
    ("no order", |memory| memory.say(orders(0), &[[99; 8]]), PROTOCOL),
    ("a kernel that is not", |memory| memory.say(orders(1), &[launch(KERNELS.len())]), PROTOCOL),
    ("more orders than can be", |memory| memory.claim(orders(1), 257), PROTOCOL),
    (
        "an answer to nothing",
        |memory| memory.say(orders(0), &[Order::Served { commands: 0 }.encode()]),
        PROTOCOL,
    ),
    (
        "a launch in answer to a fault",
        |memory| {
            name_pages(memory);
            memory.say(orders(0), &[launch(TOUCH), launch(TOUCH)]);
        },
        PROTOCOL,
    ),
    (
        "more ranges than can be",
        |memory| {
            memory.word(GIVEN_COUNT).store(257, SeqCst);
            memory.say(orders(0), &[launch(TOUCH)]);
        },
        PROTOCOL,
    ),
    (
        "a range that ends before it begins",
        |memory| {
            name_pages(memory);
            memory.long_word(given(0) + 8).store(3, SeqCst);
            memory.say(orders(0), &[launch(TOUCH)]);
        },
        PROTOCOL,
    ),
    (
        "more reports heard than were made",
        |memory| {
            memory.word(REPORTS + 64).store(1, SeqCst);
            memory.say(orders(0), &[launch(TOUCH)]);
        },
        PROTOCOL,
    ),
    (
        "stop, while a worker waits for what never comes",
        |memory| {
            name_pages(memory);
            let served = Order::Served { commands: 1000 };
            memory.say(orders(1), &[launch(ADD), served.encode()]);
            std::thread::sleep(Duration::from_millis(100));
            memory.say(COMMANDS, &[commit(0), Command::Stop.encode()]);
        },
        TOLD,
    ),
    (
        "stop, when what a worker waited for was refused",
        |memory| {
            name_pages(memory);
            let refused = Order::Refused { cause: Some(StayCause::NoFrames) };
            memory.say(orders(0), &[launch(ADD), refused.encode()]);
            while memory.word(REPORTS).load(SeqCst) < 2 {
                std::thread::sleep(Duration::from_millis(1));
            }
            memory.say(COMMANDS, &[Command::Stop.encode()]);
        },
        TOLD,
    ),
];

pub(crate) fn its_program_lies() {
    let program = Program::listen();
    for &(what, lie, ends) in LIES {
        let mut device = program.device();
        lie(&device.memory);
        assert_eq!(status(&mut device.child, what), ends, "{what}");
    }
}

/// Numbers by chance, from a seed that is not zero.
fn chance(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// The process ends as it should, or serves on, whatever its program writes wherever it can; but for kernels that panic.
pub(crate) fn its_program_writes_anything_anywhere() {
    let program = Program::listen();
    for seed in 1..=8_u64 {
        let mut device = program.device();
        let memory = device.memory;
        let mut next = chance(seed);
        if seed > 4 {
            // Its workers have something to do.
            name_pages(&memory);
            memory.say(COMMANDS, &[commit(0), commit(2)]);
            (0..2).for_each(|worker| memory.say(orders(worker), &[launch(TOUCH), launch(ADD)]));
        }
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(300)
            && device.child.try_wait().unwrap().is_none()
        {
            for _ in 0..20 {
                // All, or what goes before the orders of the third worker, or, by seed, places.
                let word = match next() % 4 {
                    0 => next() % (memory.len as u64 / 8),
                    1 if seed % 4 == 0 => {
                        let places = [COMMANDS, REPORTS + 64, orders(0), orders(1)];
                        places[usize::try_from(next() % 4).unwrap()] as u64 / 8
                    }
                    _ => next() % (orders(2) as u64 / 8),
                };
                let value = match next() % 6 {
                    0 => next(),
                    1 => next() % 300,
                    // Nearly messages.
                    2 => (1 + next() % 3) | (next() % 2) << 8,
                    3 => (16 + next() % 3) | (next() % 2) << 8,
                    4 => next() % 3 + 1,
                    _ => u64::MAX,
                };
                memory.long_word(8 * usize::try_from(word).unwrap()).store(value, SeqCst);
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        // If it still serves.
        memory.say(COMMANDS, &[Command::Stop.encode()]);
        let since = Instant::now();
        let ended = loop {
            match device.child.try_wait().unwrap() {
                None if since.elapsed() < Duration::from_millis(200) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                ended => break ended,
            }
        };
        if let Some(status) = ended {
            let code = status.code().unwrap_or_else(|| panic!("seed {seed}: {status}"));
            assert!([TOLD, PROTOCOL, PANICKED].contains(&code), "seed {seed}: {status}");
        } else {
            device.child.kill().unwrap();
            device.child.wait().unwrap();
        }
    }
}
