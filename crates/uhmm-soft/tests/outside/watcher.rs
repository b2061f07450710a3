//! What is outside: it starts a subject, talks to it, and waits for it with patience that ends.

use std::{
    env,
    fs::File,
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::{fs::FileExt, process::CommandExt},
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use crate::{
    skip::skip,
    subject::{MARK, PAGES, VARIABLE},
};

/// After how long something counts as hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// As whom the subject runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The user who runs the tests.
    Us,
    /// An ordinary user, for whom faults of user mode alone are served.
    Nobody,
}

/// A subject, which is killed where it is dropped.
pub(crate) struct Subject {
    child: Child,
    input: ChildStdin,
    /// What it says, and nothing more when nobody is left who could say something.
    lines: Receiver<String>,
    /// Where its pages are.
    pub(crate) start: usize,
    pub(crate) page: usize,
    /// The thread that does what it is told.
    pub(crate) thread: i32,
    /// Whether faults of its system calls are served.
    pub(crate) serves_system_calls: bool,
}

/// Waits until `done` answers something.
pub(crate) fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = done() {
            return answer;
        }
        assert!(since.elapsed() < PATIENCE, "{what}: not for {} s", PATIENCE.as_secs());
        thread::sleep(Duration::from_millis(2));
    }
}

impl Subject {
    /// Starts one for `test`. Nothing where it cannot be, which is said.
    pub(crate) fn start(
        test: &str,
        what: &str,
        who: Who,
        directory: Option<&Path>,
    ) -> Option<Self> {
        let mut command = Command::new(env::current_exe().expect("this test has a name"));
        command
            .args(["--exact", "subject_of_the_other_tests", "--ignored", "--nocapture"])
            .env(VARIABLE, what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        // SAFETY: asking who runs this is always sound.
        if who == Who::Nobody && unsafe { libc::geteuid() } == 0 {
            command.uid(65534).gid(65534);
        }
        if let Some(directory) = directory {
            command.current_dir(directory);
            // SAFETY: the child calls what may be called after a fork.
            unsafe {
                command.pre_exec(|| {
                    let all = libc::rlimit {
                        rlim_cur: libc::RLIM_INFINITY,
                        rlim_max: libc::RLIM_INFINITY,
                    };
                    libc::setrlimit(libc::RLIMIT_CORE, &raw const all);
                    Ok(())
                });
            }
        }
        let mut child = match command.spawn() {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                skip(test, "a path to the tests that an ordinary user may take");
                return None;
            }
            child => child.expect("this test can start itself"),
        };
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix(MARK) {
                    let _ = sender.send(line.to_owned());
                }
            }
        });
        let mut subject =
            Self { child, input, lines, start: 0, page: 0, thread: 0, serves_system_calls: false };
        let line = subject.hear();
        if let Some(reason) = line.strip_prefix("no: ") {
            skip(test, reason);
            return None;
        }
        let mut words = line.split(' ').skip(1);
        let mut number =
            || words.next().and_then(|word| word.parse().ok()).expect("a number in its first line");
        (subject.start, subject.page) = (number(), number());
        subject.thread = i32::try_from(number()).expect("a thread's number");
        subject.serves_system_calls = words.next() == Some("true");
        if who == Who::Nobody && subject.serves_system_calls {
            eprintln!("skipped: {test}: here an ordinary user's system calls are served too");
            return None;
        }
        Some(subject)
    }

    pub(crate) fn id(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process's number")
    }

    /// What it says next.
    pub(crate) fn hear(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the subject says something")
    }

    /// What it has said, without waiting.
    pub(crate) fn has_said(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// Tells it to do something.
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the subject listens");
    }

    /// Tells it to do something and answers what it says about it.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.hear()
    }

    /// How often its threads touched a page.
    pub(crate) fn rounds(&mut self) -> u64 {
        self.ask("rounds").parse().expect("a number")
    }

    /// Waits until its threads have touched some more pages.
    pub(crate) fn goes_on(&mut self) {
        let before = self.rounds();
        eventually("the subject's threads touch pages", || {
            (self.rounds() > before + 20).then_some(())
        });
    }

    /// Where a page is.
    pub(crate) fn address(&self, page: usize) -> usize {
        self.start + page * self.page
    }

    /// How many of its pages are there, by its page tables.
    pub(crate) fn present(&self) -> usize {
        let pagemap = File::open(format!("/proc/{}/pagemap", self.id())).expect("its page tables");
        let mut entries = vec![0_u8; PAGES * 8];
        pagemap
            .read_exact_at(&mut entries, (self.start / self.page * 8) as u64)
            .expect("its page tables");
        entries.chunks(8).filter(|entry| entry[7] & 0x80 != 0).count()
    }

    pub(crate) fn send(&self, signal: i32) {
        // SAFETY: a signal to a process of ours.
        assert_eq!(unsafe { libc::kill(self.id(), signal) }, 0);
    }

    /// The state of a thread, as `/proc` tells it by a letter.
    pub(crate) fn state(&self, thread: i32) -> Option<char> {
        let path = format!("/proc/{}/task/{thread}/stat", self.id());
        let stat = std::fs::read_to_string(path).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// Its threads, with their names.
    pub(crate) fn threads(&self) -> Vec<(i32, String)> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id())).expect("its threads");
        let told = |entry: std::fs::DirEntry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
            Some((number, name.trim().to_owned()))
        };
        tasks.flatten().filter_map(told).collect()
    }

    /// Waits until it has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        eventually("the subject ends", || self.child.try_wait().expect("a child of ours"))
    }

    /// Waits until nobody is left of it and its children.
    pub(crate) fn all_ended(&self) {
        eventually("the subject's children end", || {
            matches!(self.lines.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected))
                .then_some(())
        });
    }

    /// Tells it to end, and checks that all was right to the last.
    pub(crate) fn end(mut self) {
        assert_eq!(self.ask("end"), "right");
        assert!(self.ended().success());
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
