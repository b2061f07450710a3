//! `uhmm run`: programs as they are.

mod any_calls;
mod basics;
mod descriptors;
mod library;
mod newer_kernels;
mod observed;
mod programs;
#[path = "../../../uhmm/tests/support/skip.rs"]
mod skip;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use library::uhmm;

fn run(arguments: &[&str]) -> Output {
    uhmm().arg("run").args(arguments).stdin(Stdio::null()).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A program of the test's own, of the C in `source`.
fn compiled(name: &str, source: &str, options: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (program, c) = (folder.join(name), folder.join(format!("{name}.c")));
    fs::write(&c, source).expect("the folder for tests is writable");
    let built = Command::new("cc").args(options).arg("-o").arg(&program).arg(&c).status();
    assert!(built.expect("there is a C compiler").success());
    program
}

/// What programs of the tests begin with: calls of nodes.
const NODES: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct command { uint64_t address, data, pages, done, faults; };

enum { READ, WRITE, TO_DEVICE, TO_SYSTEM, SNAPSHOT, EXCLUSIVE, CHECK_EXCLUSIVE, RELEASE, FLAGS };

static struct command c;

__attribute__((unused)) static int call(int node, int number, void *address, void *data, uint64_t pages)
{
    c = (struct command){ (uintptr_t)address, (uintptr_t)data, pages, 0, 0 };
    return ioctl(node, _IOWR('H', number, struct command), &c);
}

#define CHECK(condition)                                                                     \
    do {                                                                                     \
        if (!(condition)) {                                                                  \
            printf("line %d: %s (errno %d, done %llu)\n", __LINE__, #condition, errno,       \
                   (unsigned long long)c.done);                                              \
            exit(1);                                                                         \
        }                                                                                    \
    } while (0)
"#;

/// Compiles `main` behind what all programs begin with, and runs it with options. It says what does not hold.
#[track_caller]
fn holds(name: &str, main: &str, options: &[&str], arguments: &[&str]) -> Output {
    let program =
        compiled(name, &format!("{NODES}\n#line 1\n{main}"), &["-O1", "-pthread", "-Wall"]);
    let path = program.to_string_lossy().into_owned();
    let output = run(&[options, &["--", &path], arguments].concat());
    assert!(output.status.success(), "{}: {output:?}", text(&output.stdout));
    output
}
