//! A running program is watched and explained, as people do it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use uhmm::AddressSpace;
use uhmm::units::AddressRange;
use uhmm_soft::{Options, Soft};

fn uhmm() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uhmm"));
    command.stdin(Stdio::null());
    command
}

/// A program that is ended as the value is dropped, if it runs still.
struct Running(Child);

impl Running {
    /// A demonstration that goes on and on.
    fn demo() -> Self {
        let mut program = uhmm()
            .args(["demo", "--scale", "9", "--iterations", "100000000"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stderr = BufReader::new(program.stderr.take().expect("it is piped"));
        let mut line = String::new();
        // The reference takes as long as the iterations, so it is not waited for.
        while !line.contains("computing by the CPU alone") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).expect("the program speaks"), 0);
        }
        Self(program)
    }

    fn process(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(arguments: &[&str]) -> Output {
    uhmm().args(arguments).output().expect("the program starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn who_does_not_run_uhmm_is_told_apart() {
    let mut sleeper = Command::new("sleep").arg("100").spawn().expect("sleep starts");
    let process = sleeper.id().to_string();
    for arguments in [&["top", &*process, "--once"][..], &["explain", &*process, "0x1000"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        let expected = format!("uhmm: process {process} has no address space of uhmm open\n");
        assert_eq!(stderr(&output), expected);
    }
    sleeper.kill().expect("it runs");
    sleeper.wait().expect("it ends");
    let output = run(&["explain", &process, "0x1000"]);
    assert_eq!(stderr(&output), format!("uhmm: there is no process {process}\n"));
    // One that has none open yet, or any more.
    let demo = Running::demo();
    let output = run(&["top", &demo.process(), "--once"]);
    assert!(stderr(&output).contains("has no address space of uhmm open"), "{}", stderr(&output));
}

#[test]
fn bad_usage_is_refused() {
    for arguments in [
        &["top"][..],
        &["top", "x"],
        &["top", "1", "--interval", "0"],
        &["explain", "1"],
        &["explain", "1", "here"],
        &["explain", "-1", "0x1000"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    // Standard output is a pipe here.
    let output = run(&["top", &std::process::id().to_string()]);
    assert_eq!(output.status.code(), Some(1));
}

/// Another process that shows itself, with the address of a page that is away, until its standard input
/// ends.
fn target() -> (Running, usize) {
    let mut program = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "shows_itself", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdout = BufReader::new(program.stdout.take().expect("it is piped"));
    let mut line = String::new();
    let address = loop {
        line.clear();
        assert_ne!(stdout.read_line(&mut line).expect("it speaks"), 0, "it has ended");
        if let Some((_, address)) = line.split_once("away: ") {
            break address.trim().parse().expect("an address");
        }
    };
    // What it says in the end has to go somewhere.
    std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    (Running(program), address)
}

#[test]
#[ignore = "it is a part of others"]
fn shows_itself() {
    let space = AddressSpace::open().expect("an address space");
    let page = space.page_size().bytes();
    let numbers = vec![1_u8; 64 * page];
    let start = numbers.as_ptr().addr().next_multiple_of(page);
    let all = AddressRange::new(start, 32 * page).expect("a range");
    space.adopt(all).expect("adopted");
    let device = Soft::start(&space, Options::new(8 * page)).expect("a device");
    let some = AddressRange::new(start, 8 * page).expect("a range");
    assert_eq!(device.migrate(some).expect("a migration").moved(), 8);
    // One comes back.
    assert_eq!(numbers[start + page - numbers.as_ptr().addr()], 1);
    println!("away: {start}");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).expect("its end");
    drop(device);
    space.close().expect("closed");
}

#[test]
fn a_running_program_is_explained_and_watched() {
    let (mut program, address) = target();
    let process = program.process();
    let page = rustix::param::page_size();
    let explain = |address: usize| {
        let output = run(&["explain", &process, &format!("{address:#x}"), "--json"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        serde_json::from_slice::<Value>(&output.stdout).expect("a JSON object")
    };
    let away = explain(address + 5);
    assert_eq!(away["place"], "in the memory of device 0");
    assert_eq!(away["adopted"], true);
    assert_eq!(away["page"], format!("{address:#x}"));
    assert_eq!(away["keeps_it"], Value::Array(Vec::new()));
    let back = explain(address + page);
    assert_eq!(back["place"], "in system memory, back from a device");
    let never = explain(address + 12 * page);
    assert_eq!(never["place"], "in system memory, if it was ever touched");
    let nowhere = explain(0x1000);
    assert_eq!(nowhere["place"], "nowhere: nothing is mapped there");
    assert!(nowhere["area"].is_null());
    let output = run(&["explain", &process, &address.to_string()]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("place     in the memory of device 0\n"), "{text}");

    let output = run(&["top", &process, "--once", "--interval", "0.1"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    for part in ["uhmm top", &format!("process {process} runs"), "device 0", "to device request"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    drop(program.0.stdin.take());
    assert!(program.0.wait().expect("it ends").success());
}

/// A pseudo terminal: its two ends.
fn terminal() -> (File, File) {
    let (mut ours, mut theirs) = (-1, -1);
    let size = libc::winsize { ws_row: 30, ws_col: 90, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the numbers and the size are there for the call.
    let opened = unsafe {
        let (name, settings) = (std::ptr::null_mut(), std::ptr::null_mut());
        libc::openpty(&raw mut ours, &raw mut theirs, name, settings, (&raw const size).cast_mut())
    };
    assert_eq!(opened, 0, "a pseudo terminal");
    // SAFETY: both descriptors are new, and nobody else's.
    unsafe { (File::from_raw_fd(ours), File::from_raw_fd(theirs)) }
}

/// Reads until some text came, and returns all that came.
fn read_until(terminal: &mut File, text: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut all = String::new();
    while !all.contains(text) {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "no {text:?} came, but {all:?}");
        let mut ready = libc::pollfd { fd: terminal.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor is there for the call.
        if unsafe { libc::poll(&raw mut ready, 1, 1000) } < 1 {
            continue;
        }
        let mut some = [0; 4096];
        match terminal.read(&mut some) {
            Ok(0) | Err(_) => panic!("the other end was closed after {all:?}"),
            Ok(read) => all.push_str(&String::from_utf8_lossy(&some[..read])),
        }
    }
    all
}

#[test]
fn it_is_drawn_on_a_terminal_until_the_user_has_enough() {
    let (mut program, _) = target();
    let process = program.process();
    let (mut ours, theirs) = terminal();
    let end = || Stdio::from(theirs.try_clone().expect("another descriptor"));
    let mut top = Command::new(env!("CARGO_BIN_EXE_uhmm"))
        .args(["top", &process, "--interval", "0.1"])
        .env("TERM", "xterm")
        .stdin(end())
        .stdout(end())
        .stderr(Stdio::inherit())
        .spawn()
        .map(Running)
        .expect("the program starts");
    let first = read_until(&mut ours, "counters");
    assert!(first.contains("uhmm top"), "{first:?}");
    // The program ends, and is still there to be looked at.
    drop(program.0.stdin.take());
    assert!(program.0.wait().expect("it ends").success());
    read_until(&mut ours, "ended");
    ours.write_all(b"q").expect("the terminal takes a key");
    // The screen is as it was before.
    read_until(&mut ours, "\u{1b}[?1049l");
    assert!(top.0.wait().expect("it ends").success());
}
