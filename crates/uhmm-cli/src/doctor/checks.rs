//! What is looked at, what it means, and how to get what is missing.

use serde::Serialize;
use uhmm::mm::linux::{Feature, probe};

use super::machine::{self, Node};

/// The capability to trace other processes.
const SYS_PTRACE: u32 = 19;

/// The capabilities to follow the links of mappings, which each gives.
const SYS_ADMIN: u32 = 21;
const CHECKPOINT_RESTORE: u32 = 40;

/// So many areas are enough for a program whose whole heap is adopted.
const ENOUGH_AREAS: u64 = 262_144;

const NODE: &str = "/dev/userfaultfd";

/// How it is with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It is there.
    Ok,
    /// It is not there, and uhmm does less or is slower without it.
    Less,
    /// It is not there, and uhmm does not work without it.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Check {
    /// What it is.
    pub(super) name: &'static str,
    pub(super) state: State,
    /// What was found.
    pub(super) found: String,
    /// What it is for, or what goes without it.
    pub(super) means: &'static str,
    /// How to get it, a line for each step; nothing where it is there.
    pub(super) get: Vec<String>,
}

impl Check {
    fn new(
        name: &'static str,
        state: State,
        found: impl Into<String>,
        means: &'static str,
        get: &[&str],
    ) -> Self {
        let get = if state == State::Ok { &[] } else { get };
        let get = get.iter().map(|&line| line.to_owned()).collect();
        Self { name, state, found: found.into(), means, get }
    }
}

/// Looks at all.
pub(super) fn all() -> Vec<Check> {
    let mut checks = vec![kernel()];
    checks.extend(probe().iter().map(feature));
    checks.extend([
        node(),
        unprivileged(),
        tracing(),
        files_of_mappings(),
        areas(),
        huge_pages(),
        huge_pool(),
        open_files(),
        container(),
    ]);
    checks
}

fn kernel() -> Check {
    // By a call, not from `/proc`: where that is not mounted the kernel is still what it is.
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let state = match machine::version(&release) {
        Some(version) if version >= (6, 13) => State::Ok,
        Some(version) if version >= (6, 8) => State::Less,
        _ => State::Missing,
    };
    Check::new(
        "kernel",
        state,
        format!("Linux {release}"),
        "6.8 moves pages without a copy; 6.13 discards in many areas by one call",
        &["boot a kernel of Linux 6.13 or later; 6.8 is the oldest that works"],
    )
}

/// What a feature that the core asks for is good for.
fn meaning(name: &str) -> &'static str {
    match name {
        "userfaultfd" => "tells of accesses to pages that are away",
        "userfaultfd for system calls" => {
            "read(2) and others may use memory that is away; without it they fail with EFAULT, and \
             launches that are waited for bring their pages back"
        }
        "PAGEMAP_SCAN" => "tells which pages are there",
        "UFFDIO_MOVE" => "pages go to a device without a copy",
        "EVENT_UNMAP" => "what is unmapped ends on devices",
        "EVENT_REMOVE" => "what is discarded ends on devices",
        "EVENT_REMAP" => "what is moved is followed",
        "EVENT_FORK" => "children of a fork by the bare system call get what is away",
        "THREAD_ID" => "tells an engine thread's own fault from a program's",
        "EXACT_ADDRESS" => "tells where in a page an access was",
        "UFFDIO_POISON" => "lost pages end the access, not the program",
        "WP_ASYNC" => "devices map files and shared memory where they lie",
        "MISSING_SHMEM" => "shared memory can be trapped",
        "MISSING_HUGETLBFS" => "pages of a hugetlb pool can be trapped",
        _ => "asked for where it is offered",
    }
}

fn feature(feature: &Feature) -> Check {
    let state = match (feature.present, feature.needed) {
        (true, _) => State::Ok,
        (false, false) => State::Less,
        (false, true) => State::Missing,
    };
    let found = if feature.present { "there" } else { "not there" };
    Check::new(feature.name, state, found, meaning(feature.name), &[feature.hint])
}

fn node() -> Check {
    let node = machine::node(NODE);
    let (state, found) = match node {
        Node::Open => (State::Ok, "open to this user"),
        Node::Refused => (State::Less, "not open to this user"),
        Node::Absent => (State::Less, "not there"),
    };
    let get: &[&str] = if node == Node::Absent {
        &[
            "as root: mknod /dev/userfaultfd c 10 \"$(sed -n 's/ *userfaultfd$//p' /proc/misc)\"; in a \
           container: --device /dev/userfaultfd",
        ]
    } else {
        &[
            "as root: groupadd --system uhmm && usermod --append --groups uhmm \"$USER\"",
            "as root: echo 'KERNEL==\"userfaultfd\", GROUP=\"uhmm\", MODE=\"0660\"' \
             >/etc/udev/rules.d/60-uhmm.rules && udevadm control --reload && udevadm trigger \
             /dev/userfaultfd",
            "log in anew, for the group to count",
        ]
    };
    Check::new(
        NODE,
        state,
        found,
        "gives an ordinary user faults of system calls too, and no other right",
        get,
    )
}

fn unprivileged() -> Check {
    let value = machine::number("/proc/sys/vm/unprivileged_userfaultfd");
    let state =
        if value == Some(1) || machine::node(NODE) == Node::Open { State::Ok } else { State::Less };
    Check::new(
        "vm.unprivileged_userfaultfd",
        state,
        value.map_or_else(|| "not there".to_owned(), |value| value.to_string()),
        "1 gives every user what the node gives; not needed where that is open",
        &["better give the user the node; else as root: sysctl vm.unprivileged_userfaultfd=1"],
    )
}

fn tracing() -> Check {
    let set = machine::status("CapEff").unwrap_or_default();
    let has = machine::has_capability(&set, SYS_PTRACE);
    Check::new(
        "CAP_SYS_PTRACE",
        if has { State::Ok } else { State::Less },
        if has { "held" } else { "not held" },
        "to be told of forks by the bare system call",
        &["as root: setcap cap_sys_ptrace+ep PROGRAM; in a container: --cap-add SYS_PTRACE"],
    )
}

fn files_of_mappings() -> Check {
    let set = machine::status("CapEff").unwrap_or_default();
    let has = [CHECKPOINT_RESTORE, SYS_ADMIN].iter().any(|&one| machine::has_capability(&set, one));
    Check::new(
        "CAP_CHECKPOINT_RESTORE",
        if has { State::Ok } else { State::Less },
        if has { "held, or CAP_SYS_ADMIN" } else { "not held" },
        "shared hugetlb pages go to devices also where the program has no descriptor of their file, and a nameless \
         file's end is known",
        &["as root: setcap cap_checkpoint_restore+ep PROGRAM; in a container: --cap-add \
             CHECKPOINT_RESTORE"],
    )
}

fn areas() -> Check {
    let (most, now) = (machine::number("/proc/sys/vm/max_map_count"), machine::areas());
    let state = match most {
        Some(most) if most >= ENOUGH_AREAS => State::Ok,
        _ => State::Less,
    };
    let found = match (most, now) {
        (Some(most), Some(now)) => format!("{most}, and this program has {now} areas"),
        (Some(most), None) => most.to_string(),
        _ => "not known".to_owned(),
    };
    Check::new(
        "vm.max_map_count",
        state,
        found,
        "areas split where parts of them are adopted; beyond the limit calls of the program fail",
        &["as root: sysctl vm.max_map_count=1048576, and for good in /etc/sysctl.d"],
    )
}

fn huge_pages() -> Check {
    let choice = machine::choice("/sys/kernel/mm/transparent_hugepage/enabled");
    let state = match choice.as_deref() {
        Some("always" | "madvise") => State::Ok,
        _ => State::Less,
    };
    Check::new(
        "transparent huge pages",
        state,
        choice.unwrap_or_else(|| "not there".to_owned()),
        "two megabytes move for what eight pages cost",
        &["as root: echo madvise >/sys/kernel/mm/transparent_hugepage/enabled"],
    )
}

fn huge_pool() -> Check {
    let pages = machine::number("/proc/sys/vm/nr_hugepages");
    Check::new(
        "vm.nr_hugepages",
        if pages.is_some_and(|pages| pages > 0) { State::Ok } else { State::Less },
        pages.map_or_else(|| "not there".to_owned(), |pages| pages.to_string()),
        "a pool for programs that map with MAP_HUGETLB; others need none",
        &["as root, for programs that want it: sysctl vm.nr_hugepages=64"],
    )
}

fn open_files() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    Check::new(
        "limit of open files",
        if limit.is_none_or(|limit| limit >= 64) { State::Ok } else { State::Less },
        limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string()),
        "an address space opens a handful",
        &["ulimit -n 1024"],
    )
}

fn container() -> Check {
    let contained = machine::is_contained();
    Check::new(
        "container",
        State::Ok,
        if contained { "in one, or under a seccomp filter" } else { "in none" },
        "a seccomp profile can forbid userfaultfd(2): allow it, or give the node",
        &[],
    )
}
