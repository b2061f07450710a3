//! What is written of a run, where that is asked for: the counters (`--stats`) and a trace (`--trace`).
//!
//! Both are written as the process ends: by `exit`, as the library's last function is called; by `_exit` and
//! its kin, and before it becomes another program, as these are defined here again. Nobody announces a
//! signal that ends a process. So a thread of the engine writes the counters each second, and the trace as
//! often as takes a twentieth of the time; what comes after is lost then. A file is replaced as a whole, so
//! none is ever half written.
//!
//! A process writes once its memory is open to devices. The one that `uhmm run` became has the file that was
//! asked for; others, its children, have one of their own beside it, with their number behind the name.
//!
//! None of this is on a fault's path: events lie in engine memory, and are taken from there.

use std::{
    env,
    ffi::{OsStr, c_int},
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr,
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicPtr, AtomicUsize,
            Ordering::{Acquire, Release},
        },
    },
    thread,
    time::{Duration, Instant},
};

use uhmm::{AddressSpace, CounterValues, engine_memory::thread::spawn, sync::SignalsBlocked};
use uhmm_record::{Recorder, Stage, Stats};

/// By what `uhmm run` says where the counters and the trace go, and which process it became.
const STATS_NAME: &str = "UHMM_RUN_STATS";
const TRACE_NAME: &str = "UHMM_RUN_TRACE";
const PROCESS_NAME: &str = "UHMM_RUN_PROCESS";

/// Events that the engine keeps until they are gathered.
const EVENTS: usize = 1 << 20;
/// How often they are gathered.
const GATHER: Duration = Duration::from_millis(200);
/// How often counters are written at most, but for the last time.
const PERIOD: Duration = Duration::from_secs(1);
/// Writing a trace while the process runs takes at most one part in so many of the time.
const PART: u32 = 20;

/// The longest name that the system takes, with the zero behind it.
const LONGEST: usize = libc::PATH_MAX as usize;

/// What was asked for as the library was loaded: of each file the name, at its length. What the program does to
/// its environment later does not matter, and a child has it too.
struct Asked {
    stats: Name,
    trace: Name,
    /// The process that `uhmm run` became.
    process: AtomicUsize,
}

struct Name {
    len: AtomicUsize,
    bytes: AtomicPtr<[u8; LONGEST]>,
}

impl Name {
    const fn none() -> Self {
        Self { len: AtomicUsize::new(0), bytes: AtomicPtr::new(ptr::null_mut()) }
    }

    fn set(&self, name: &[u8]) {
        if name.is_empty() || name.len() >= LONGEST {
            return;
        }
        // SAFETY: a new mapping at an address of the kernel's choice, for that many bytes; children inherit it.
        unsafe {
            let place = libc::mmap(
                ptr::null_mut(),
                LONGEST,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            if place == libc::MAP_FAILED {
                return;
            }
            place.cast::<u8>().copy_from_nonoverlapping(name.as_ptr(), name.len());
            self.bytes.store(place.cast(), Release);
        }
        self.len.store(name.len(), Release);
    }

    fn get(&self) -> Option<&'static [u8]> {
        let len = self.len.load(Acquire);
        // SAFETY: it is null, or a mapping that is never unmapped nor changed.
        unsafe { self.bytes.load(Acquire).as_ref() }.map(|bytes| &bytes[..len])
    }
}

static ASKED: Asked =
    Asked { stats: Name::none(), trace: Name::none(), process: AtomicUsize::new(0) };

#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = remember;

#[used]
#[unsafe(link_section = ".fini_array")]
static END: extern "C" fn() = at_exit;

/// Keeps what was asked for.
extern "C" fn remember() {
    for (name, place) in [(STATS_NAME, &ASKED.stats), (TRACE_NAME, &ASKED.trace)] {
        if let Some(path) = env::var_os(name) {
            place.set(path.as_bytes());
        }
    }
    let process = env::var(PROCESS_NAME).ok().and_then(|number| number.parse().ok());
    ASKED.process.store(process.unwrap_or(0), Release);
    if is_asked() {
        // Where there is no room for it, what `quick_exit` ends loses its last second.
        let _ = at_quick_exit(at_exit);
    }
}

unsafe extern "C" {
    safe fn at_quick_exit(function: extern "C" fn()) -> c_int;
}

fn is_asked() -> bool {
    ASKED.stats.get().is_some() || ASKED.trace.get().is_some()
}

/// Whether a trace is asked for, which takes more memory of ours.
pub(crate) fn traces() -> bool {
    ASKED.trace.get().is_some()
}

/// What is observed of a process.
struct Observed {
    process: u32,
    space: &'static AddressSpace,
    told: Mutex<Told>,
}

/// What was written so far.
struct Told {
    recorder: Option<Recorder>,
    counters: Option<CounterValues>,
    stats: Instant,
    trace: Instant,
    /// How long writing the trace took.
    took: Duration,
    /// How many events it had.
    events: Option<usize>,
    /// The last was written.
    over: bool,
}

/// That of this process, or of one that it was forked from and whose memory it does not have.
static OBSERVED: AtomicPtr<Observed> = AtomicPtr::new(ptr::null_mut());
/// Whose that is; 0 where there is none.
static OBSERVED_PROCESS: AtomicUsize = AtomicUsize::new(0);

fn this_process() -> usize {
    std::process::id() as usize
}

/// Begins to observe a process whose memory was just opened, if that is asked for.
pub(crate) fn begin(space: &'static AddressSpace) {
    if !is_asked() {
        return;
    }
    let now = Instant::now();
    // Where there is no memory for it there is an empty trace.
    let recorder = traces().then(|| Recorder::start(space, EVENTS).ok()).flatten();
    let told = Told {
        recorder,
        counters: None,
        stats: now,
        trace: now,
        took: Duration::ZERO,
        events: None,
        over: false,
    };
    let observed: &'static Observed = Box::leak(Box::new(Observed {
        process: std::process::id(),
        space,
        told: Mutex::new(told),
    }));
    OBSERVED.store(ptr::from_ref(observed).cast_mut(), Release);
    OBSERVED_PROCESS.store(this_process(), Release);
    let started = spawn(space.engine_memory(), c"uhmm-observer", move |_: &_| {
        loop {
            thread::sleep(GATHER);
            observed.go_on();
        }
    });
    // It ends with the process. Where it could not be started the end of the process is what is written.
    core::mem::forget(started);
}

/// What this process is observed by.
fn observed() -> Option<&'static Observed> {
    let process = OBSERVED_PROCESS.load(Acquire);
    if process == 0 || process != this_process() {
        return None;
    }
    // SAFETY: as this process has set the number it has set the pointer, to a value that is never dropped.
    unsafe { OBSERVED.load(Acquire).as_ref() }
}

/// Writes all, as the process comes to its end, or to that of this program. In the child of `vfork`, which has
/// the parent's memory, it does nothing.
pub(crate) fn end(stage: Stage) {
    if let Some(observed) = observed() {
        observed.end(stage);
    }
}

/// The process did not become another program.
pub(crate) fn did_not_end() {
    if let Some(observed) = observed() {
        let _signals = SignalsBlocked::new();
        observed.told.lock().unwrap_or_else(PoisonError::into_inner).over = false;
    }
}

extern "C" fn at_exit() {
    end(Stage::Ended);
}

impl Observed {
    /// What the thread does each time.
    fn go_on(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.over {
            return;
        }
        if told.stats.elapsed() >= PERIOD {
            told.stats = Instant::now();
            self.write_stats(&mut told, Stage::Running);
        }
        if let Some(recorder) = &mut told.recorder {
            recorder.gather();
        }
        if told.trace.elapsed() >= (told.took * PART).max(PERIOD) {
            self.write_trace(&mut told);
        }
    }

    fn end(&self, stage: Stage) {
        // A handler that ends the process must not come upon the lock held by what it interrupted.
        let _signals = SignalsBlocked::new();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.counters = None;
        if let Some(recorder) = &told.recorder {
            recorder.settle();
        }
        self.write_stats(&mut told, stage);
        self.write_trace(&mut told);
        told.over = true;
    }

    /// Writes the counters, where they have changed.
    fn write_stats(&self, told: &mut Told, stage: Stage) {
        let (Some(name), counters) = (ASKED.stats.get(), self.space.counters()) else { return };
        if told.counters == Some(counters) {
            return;
        }
        told.counters = Some(counters);
        let stats = Stats { process: self.process, stage, counters };
        let is_json = Path::new(OsStr::from_bytes(name)).extension() == Some(OsStr::new("json"));
        // The program's streams are not ours to complain on.
        let _ =
            self.replace(
                name,
                |out| {
                    if is_json { stats.write_json(out) } else { stats.write_text(out) }
                },
            );
    }

    /// Writes the trace, where something happened since.
    fn write_trace(&self, told: &mut Told) {
        let (Some(name), Some(recorder)) = (ASKED.trace.get(), &mut told.recorder) else { return };
        let recorded = recorder.gather();
        let began = Instant::now();
        if told.events != Some(recorded.events()) {
            told.events = Some(recorded.events());
            let _ = self.replace(name, |out| recorded.write_trace(out));
        }
        told.took = began.elapsed();
        told.trace = Instant::now();
    }

    /// Puts a new file in the place of one, as a whole; writes to what is no file, such as a pipe, in place.
    fn replace(
        &self,
        name: &[u8],
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut path = name.to_vec();
        if ASKED.process.load(Acquire) != self.process as usize {
            write!(path, ".{}", self.process)?;
        }
        let is_file = fs::metadata(OsStr::from_bytes(&path)).map_or(true, |there| there.is_file());
        let mut beside = path.clone();
        if is_file {
            write!(beside, ".part")?;
        }
        let (beside, path) = (OsStr::from_bytes(&beside), OsStr::from_bytes(&path));
        let mut out = BufWriter::new(File::create(beside)?);
        content(&mut out)?;
        out.flush()?;
        drop(out);
        if is_file { fs::rename(beside, path) } else { Ok(()) }
    }
}
