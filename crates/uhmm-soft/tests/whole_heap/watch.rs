//! The side that watches: it starts the work in a process of its own and sees to it that it ends.

use std::{
    fs,
    path::Path,
    process::{Child, Command},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::{
    allocator::{ALLOCATOR, Allocator},
    progress::{Kind, Progress, Stage},
    work::{ONLY, PROGRESS, number_in},
};

/// Has such kinds of work done, or all where none is named, unless the variable chooses some.
pub(crate) fn run(allocator: Allocator, kinds: &[Kind]) {
    // One at a time: each is to have the processors, and to make progress.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let progress = Progress::new();
    let mut command = Command::new(std::env::current_exe().expect("this test has a name"));
    if !kinds.is_empty() && std::env::var_os(ONLY).is_none() {
        let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
        command.env(ONLY, names.join(","));
    }
    let mut child = command
        .args(["--exact", "work_in_a_process_of_its_own", "--ignored", "--nocapture"])
        .env(PROGRESS, progress.number().to_string())
        .env(ALLOCATOR, allocator.name())
        .spawn()
        .expect("this test can start itself");
    let patience = Duration::from_secs(number_in("UHMM_CHAOS_STALL_SECONDS").unwrap_or(60));
    let mut last_line = Instant::now();
    let mut seen = Kind::ALL.map(|_| (0, Instant::now()));
    let mut stage = (Stage::Starting, Instant::now());
    loop {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            eprintln!("rounds: {}", progress.line());
            assert!(status.success(), "the work ended with {status}");
            return;
        }
        let now = Instant::now();
        if stage.0 != progress.stage() {
            stage = (progress.stage(), now);
            seen = seen.map(|(rounds, _)| (rounds, now));
        }
        let stalled = if stage.0 == Stage::Working {
            Kind::ALL.into_iter().find(|&kind| {
                let (rounds, since) = &mut seen[kind as usize];
                if *rounds != progress.rounds(kind) || !progress.works(kind) {
                    (*rounds, *since) = (progress.rounds(kind), now);
                }
                now - *since > patience
            })
        } else {
            None
        };
        if stalled.is_some() || stage.0 != Stage::Working && now - stage.1 > patience {
            let what = stalled.map_or("ending or starting", Kind::name);
            eprintln!("no progress of {what} for {} s", patience.as_secs());
            eprintln!("rounds: {}", progress.line());
            report(&mut child);
            let _ = child.kill();
            let _ = child.wait();
            panic!("the work hangs: no progress of {what}");
        }
        if now - last_line > Duration::from_secs(30) {
            last_line = now;
            eprintln!("rounds: {}", progress.line());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Says what each thread of the child is doing, a few times: what is the same each time does not go on.
fn report(child: &mut Child) {
    const TIMES: usize = 3;
    let tasks = format!("/proc/{}/task", child.id());
    for time in 1..=TIMES {
        let Ok(threads) = fs::read_dir(&tasks) else { return };
        eprintln!("look {time} of {TIMES}:");
        threads.flatten().for_each(|thread| report_thread(&thread.path()));
        thread::sleep(Duration::from_secs(1));
    }
}

/// Where a thread is, how long it ran, and who of the kernel called whom there.
fn report_thread(thread: &Path) {
    let told = |name| {
        fs::read_to_string(thread.join(name))
            .map_or_else(|error| error.to_string(), |text| text.trim().to_owned())
    };
    let status = told("status");
    let state = status.lines().find(|line| line.starts_with("State:")).unwrap_or_default();
    // What follows the name in parentheses: the state is the third field, and the times are 14 and 15.
    let stat = told("stat");
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let times: Vec<_> = fields.split(' ').skip(11).take(2).collect();
    eprintln!(
        "{} {}: {state}, waits in {}, system call {}, ran for {} ticks",
        thread.file_name().unwrap_or_default().display(),
        told("comm"),
        told("wchan"),
        told("syscall"),
        times.join(" and "),
    );
    // Root alone may read it.
    if let Ok(stack) = fs::read_to_string(thread.join("stack")) {
        let calls = stack.lines().filter_map(|line| line.split(' ').nth(1));
        let calls: Vec<_> = calls.filter_map(|call| call.split('+').next()).collect();
        eprintln!("    {}", calls.join(" < "));
    }
}
