//! The files of `--stats` and `--trace`, however the program ends.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Output, compiled, run, text};

/// A program that has 64 pages go to a device, reads them, and ends as it is told.
const MAIN: &str = r#"
#include <sys/syscall.h>

int main(int count, char **arguments)
{
    size_t page = sysconf(_SC_PAGESIZE), pages = 64;
    char way = arguments[1][0];
    char *nothing[] = { "true", NULL };
    if (way == 'n')
        return 0;
    char *memory = mmap(NULL, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *copy = malloc(pages * page);
    int status;
    if (way == 'f' && fork() != 0)
        return wait(&status) < 0 || status != 0;
    if (way == 'b' && fork() != 0)
        CHECK(wait(&status) > 0 && status == 0);
    int node = open("/dev/hmm_dmirror0", O_RDWR);
    CHECK(node >= 0);
    memset(memory, 7, pages * page);
    CHECK(call(node, TO_DEVICE, memory, copy, pages) == 0 && c.done == pages);
    for (size_t i = 0; i < pages; i++)
        CHECK(memory[i * page] == 7);
    if (vfork() == 0)
        _exit(0);
    switch (way) {
    case '_': _exit(0);
    case 'E': _Exit(0);
    case 's': syscall(SYS_exit_group, 0);
    case 'q': quick_exit(0);
    case 'x': execvp("true", nothing);
    case 'X': execve("/no/such/program", nothing, nothing); _exit(0);
    case 'k': sleep(3); kill(getpid(), SIGKILL);
    }
    return 0;
}
"#;

/// Runs it so; answers where the files are.
fn ends(way: &str, stats: &str) -> (Output, PathBuf, PathBuf) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("observed-{way}-{stats}"));
    // What an earlier run left of children would be taken for this one's.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the folder for tests is writable");
    let (stats, trace) = (folder.join(stats), folder.join("trace.json"));
    let source = format!("{}\n#line 1\n{MAIN}", super::NODES);
    let program = compiled(&format!("observed-{way}"), &source, &["-O1", "-Wall"]);
    let options = [
        "--stats",
        &stats.to_string_lossy(),
        "--trace",
        &trace.to_string_lossy(),
        "--",
        &program.to_string_lossy(),
        way,
    ];
    (run(&options), stats, trace)
}

fn json(path: &Path) -> Value {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{}: {error}: {text}", path.display()))
}

/// Files beside, of children.
fn of_children(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().expect("it is in a folder");
    let start = format!("{}.", path.file_name().expect("it has a name").to_string_lossy());
    let all = fs::read_dir(folder).expect("it is there").map(|file| file.expect("it can be read"));
    all.map(|file| file.path())
        .filter(|file| {
            file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start))
        })
        .collect()
}

#[track_caller]
fn assert_told(stats: &Path, trace: &Path, stage: &str) {
    let stats = json(stats);
    assert_eq!(stats["stage"], stage, "{stats}");
    assert_eq!(stats["counters"]["to_device_request"], 64, "{stats}");
    assert!(stats["counters"]["cpu_faults"].as_u64() > Some(0), "{stats}");
    let trace = json(trace);
    assert_eq!(trace["otherData"]["lost"], 0);
    let moves = trace["traceEvents"].as_array().expect("there are events");
    let moved = |name: &str| -> u64 {
        let named = moves
            .iter()
            .filter(|event| event["name"].as_str().is_some_and(|is| is.starts_with(name)));
        named.filter_map(|event| event["args"]["pages"].as_u64()).sum()
    };
    assert_eq!(moved("system to device 0"), 64);
    assert_eq!(moved("device 0 to system"), 64);
}

#[test]
fn they_are_written_however_the_program_ends() {
    for way in ["r", "_", "E", "q", "s", "X"] {
        let (output, stats, trace) = ends(way, "stats.json");
        assert!(output.status.success() && output.stdout.is_empty(), "{way}: {output:?}");
        assert_told(&stats, &trace, "ended");
        assert!(of_children(&stats).is_empty(), "a child of vfork has nothing of its own");
    }
    let (output, stats, trace) = ends("x", "stats.json");
    assert!(output.status.success(), "{output:?}");
    assert_told(&stats, &trace, "replaced");
}

#[test]
fn of_one_that_is_killed_all_but_the_last_second_is_written() {
    let (output, stats, trace) = ends("k", "stats.json");
    assert_eq!(output.status.signal(), Some(9), "{output:?}");
    assert_told(&stats, &trace, "running");
}

#[test]
fn children_have_files_of_their_own() {
    let (output, stats, trace) = ends("b", "stats.json");
    assert!(output.status.success(), "{output:?}");
    assert_told(&stats, &trace, "ended");
    let (child, its_trace) = (of_children(&stats), of_children(&trace));
    assert_eq!((child.len(), its_trace.len()), (1, 1), "{child:?} {its_trace:?}");
    assert_told(&child[0], &its_trace[0], "ended");

    // Where the child alone opens a device.
    let (output, stats, trace) = ends("f", "stats.json");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json(&stats)["stage"], "not opened");
    assert!(json(&trace)["traceEvents"].as_array().is_some_and(Vec::is_empty));
    assert_told(&of_children(&stats)[0], &of_children(&trace)[0], "ended");
}

#[test]
fn a_program_without_a_device_has_them_too_and_others_are_text() {
    let (output, stats, trace) = ends("n", "stats.json");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json(&stats)["stage"], "not opened");
    assert!(json(&trace)["traceEvents"].as_array().is_some_and(Vec::is_empty));
    let (output, stats, _) = ends("r", "stats.txt");
    assert!(output.status.success(), "{output:?}");
    let told = fs::read_to_string(&stats).expect("it is there");
    let line = told.lines().find(|line| line.starts_with("to device request"));
    assert!(line.is_some_and(|line| line.ends_with(" 64")), "{told}");
}

#[test]
fn a_file_that_cannot_be_written_is_told_before() {
    for option in ["--stats", "--trace"] {
        let output = run(&[option, "/no/such/folder/file", "--", "echo", "begun"]);
        assert_eq!(output.status.code(), Some(125));
        assert!(output.stdout.is_empty());
        assert!(text(&output.stderr).starts_with("uhmm: cannot write /no/such/folder/file: "));
    }
    let output = run(&["--stats", "/dev/full", "--", "echo", "begun"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(125), 0));
}
