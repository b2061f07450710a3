//! The CPUs that measurements use, and which thread runs on which.

use std::fs;

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

use super::BenchError;

/// A CPU, by the kernel's number.
#[derive(Clone, Copy)]
pub(super) struct Cpu(usize);

/// The CPUs that measurements use: the first two that this process may run on.
#[derive(Clone, Copy)]
pub(super) struct Cpus {
    /// Where the program, the handlers of ours and those of the floor run.
    pub(super) main: Cpu,
    /// Where the busy thread runs, if there is another one.
    pub(super) other: Option<Cpu>,
}

impl Cpus {
    /// Looks up which there are.
    pub(super) fn find() -> Result<Self, BenchError> {
        let failed = BenchError::while_doing("the CPUs of this process cannot be looked up");
        let allowed = sched_getaffinity(None).map_err(failed)?;
        let mut cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).map(Cpu);
        let main = cpus.next().ok_or_else(|| BenchError::failed("no CPU", "none is allowed"))?;
        Ok(Self { main, other: cpus.next() })
    }
}

impl Cpu {
    /// Binds the thread that calls, and those that it starts from now on.
    pub(super) fn bind_this_thread(self) -> Result<(), BenchError> {
        self.bind(None)
    }

    /// Binds the engine's handlers, by the names of their threads.
    pub(super) fn bind_handlers(self) -> Result<(), BenchError> {
        let failed = BenchError::while_doing("the engine's handlers cannot be found");
        let mut found = 0;
        for task in fs::read_dir("/proc/self/task").map_err(failed)? {
            let task = task.map_err(failed)?;
            // A thread may end between the two looks.
            let Ok(name) = fs::read_to_string(task.path().join("comm")) else { continue };
            if name.starts_with("uhmm-handler-") {
                let thread = task.file_name().to_str().and_then(|id| id.parse().ok());
                self.bind(thread.and_then(Pid::from_raw))?;
                found += 1;
            }
        }
        if found == 0 {
            return Err(BenchError::failed("no handler", "no thread has the name of one"));
        }
        Ok(())
    }

    fn bind(self, thread: Option<Pid>) -> Result<(), BenchError> {
        let mut only = CpuSet::new();
        only.set(self.0);
        sched_setaffinity(thread, &only)
            .map_err(BenchError::while_doing("a thread cannot be bound to a CPU"))
    }
}
