//! Streams, status, arguments; what is refused; a device; chaos.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use super::{compiled, run, text, uhmm};

#[test]
fn streams_and_exit_status_are_the_programs() {
    let output = run(&["--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("out\n".into(), "err\n".into()));
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn a_signal_that_ends_it_is_the_programs() {
    assert_eq!(run(&["--", "sh", "-c", "kill -TERM $$"]).status.signal(), Some(15));
}

#[test]
fn arguments_go_through_as_they_are() {
    let output = run(&["--", "printf", "%s|", "--help", "a b", ""]);
    assert_eq!(text(&output.stdout), "--help|a b||");
}

#[test]
fn other_preloaded_libraries_stay() {
    let ours = text(
        &uhmm()
            .args(["run", "--", "sh", "-c", "echo $LD_PRELOAD"])
            .env("LD_PRELOAD", "libm.so.6")
            .output()
            .expect("it starts")
            .stdout,
    );
    assert!(ours.trim_end().ends_with("/libuhmm_preload.so:libm.so.6"), "{ours}");
}

#[track_caller]
fn assert_not_started(arguments: &[&str], status: i32, part: &str) {
    let output = run(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert!(stderr.starts_with("uhmm: ") && stderr.contains(part), "{stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn what_cannot_be_run_is_refused_by_name() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    assert_not_started(&["--", "no-such-program"], 127, "in the directories of PATH");
    assert_not_started(&["--", "/no/such/program"], 127, "/no/such/program was not found");
    assert_not_started(&["--device-memory", "1/4", "--", "true"], 2, "--device-memory");
    assert_not_started(&[], 2, "Usage: uhmm run");

    let data = folder.join("data");
    fs::write(&data, "no program").expect("the folder for tests is writable");
    fs::set_permissions(&data, Permissions::from_mode(0o755)).expect("it is ours");
    assert_not_started(
        &["--", &data.to_string_lossy()],
        126,
        "neither an ELF program nor a script",
    );

    let fixed = compiled("static", "int main(void) { return 0; }", &["-static"]);
    assert_not_started(&["--", &fixed.to_string_lossy()], 126, "linked statically");
    let script = folder.join("script");
    fs::write(&script, format!("#!{} -x\n", fixed.display())).expect("it is writable");
    fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("it is ours");
    assert_not_started(&["--", &script.to_string_lossy()], 126, "linked statically");

    // A program for another processor: the machine's number stands in bytes 18 and 19.
    let mut foreign = fs::read("/proc/self/exe").expect("this program is there");
    foreign[18] ^= 0x55;
    let path = folder.join("foreign");
    fs::write(&path, foreign).expect("it is writable");
    assert_not_started(&["--", &path.to_string_lossy()], 126, "another kind of processor");
}

/// A program that has a device take its memory, and finds there what it should.
const USES_A_DEVICE: &str = r#"
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

struct command { uint64_t address, data, pages, done, faults; };

static int call(int node, int number, void *address, void *data, uint64_t pages, struct command *command)
{
    *command = (struct command){ (uintptr_t)address, (uintptr_t)data, pages, 0, 0 };
    return ioctl(node, _IOWR('H', number, struct command), command);
}

int main(void)
{
    struct command c;
    size_t page = sysconf(_SC_PAGESIZE), pages = 64;
    char *memory = mmap(NULL, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *copy = malloc(pages * page);
    int node = open("/dev/hmm_dmirror0", O_RDWR);
    if (node < 0) { perror("open"); return 1; }
    memset(memory, 7, pages * page);
    if (call(node, 2, memory, copy, pages, &c) || c.done != pages) { perror("migrate"); return 2; }
    if (memcmp(memory, copy, pages * page)) return 3;
    memset(copy, 9, pages * page);
    if (call(node, 1, memory, copy, pages, &c) || c.done != pages) { perror("write"); return 4; }
    if (memcmp(memory, copy, pages * page)) return 5;
    close(node);
    puts("same");
    return 0;
}
"#;

#[test]
fn a_program_uses_a_device() {
    let program = compiled("uses-a-device", USES_A_DEVICE, &["-O2"]);
    let path = program.to_string_lossy().into_owned();
    let plain = Command::new(&program).output().expect("it starts");
    assert_eq!(plain.status.code(), Some(1), "there is no such node here: {}", text(&plain.stderr));
    let output = run(&["--", &path]);
    assert_eq!(
        (text(&output.stdout), output.status.code()),
        ("same\n".into(), Some(0)),
        "{output:?}"
    );
    // Half of what it wants to have there.
    let output = run(&["--device-memory", "128KiB", "--", &path]);
    assert_eq!(output.status.code(), Some(2), "not all of it fits: {output:?}");
}

#[test]
fn under_chaos_a_program_computes_what_it_does_without() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut number = 1_u64;
    let mut next = || {
        number =
            number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        number >> 20
    };
    let mut lines: Vec<String> = (0..200_000).map(|_| next().to_string()).collect();
    let file = folder.join("numbers");
    fs::write(&file, lines.join("\n") + "\n").expect("the folder for tests is writable");
    let output = uhmm()
        .args(["run", "--chaos", "300", "--", "sort"])
        .arg(&file)
        .env("LC_ALL", "C")
        .output()
        .expect("it starts");
    lines.sort_unstable();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout) == lines.join("\n") + "\n",
        "the lines are not those of the file, sorted"
    );
}

/// A program whose children work on what they inherited, and run others.
const FORKS: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COUNT = 1 << 18 };

int main(void)
{
    long *numbers = malloc(COUNT * sizeof *numbers);
    for (long i = 0; i < COUNT; i++)
        numbers[i] = i * 3;
    for (int round = 0; round < 20; round++) {
        pid_t child = fork();
        if (child == 0) {
            for (long i = 0; i < COUNT; i++)
                if (numbers[i] != i * 3 + round)
                    _exit(1);
            if (round % 4 == 0)
                execl("/bin/sh", "sh", "-c", "test $(echo a | tr a b) = b", (char *)NULL);
            exit(0);
        }
        for (long i = 0; i < COUNT; i++)
            numbers[i]++;
        int status;
        if (waitpid(child, &status, 0) != child || status != 0) {
            printf("round %d: status %#x\n", round, status);
            return 1;
        }
    }
    puts("all");
    return 0;
}
"#;

#[test]
fn under_chaos_children_have_what_they_should() {
    let program = compiled("forks", FORKS, &["-O2"]);
    let output = run(&["--chaos", "1000", "--", &program.to_string_lossy()]);
    assert_eq!(
        (text(&output.stdout), output.status.code()),
        ("all\n".into(), Some(0)),
        "{output:?}"
    );
}
