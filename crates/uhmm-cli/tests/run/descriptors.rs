//! Descriptors of nodes: copies, and what is closed by whatever call.

use super::holds;

const MAIN: &str = r#"
#include <sys/syscall.h>
#include <sys/stat.h>

enum { PAGES = 16 };
static char *memory, copy[PAGES * 4096];

// Moves memory there by a descriptor, and answers whether its device has it. It must be a node's.
static bool works(int node)
{
    CHECK(call(node, TO_DEVICE, memory, copy, PAGES) == 0 && c.done == PAGES);
    unsigned char seen[PAGES];
    CHECK(call(node, SNAPSHOT, memory, seen, PAGES) == 0);
    return seen[0] == 0x22;
}

static bool is_away(void)
{
    uint64_t entry;
    int map = open("/proc/self/pagemap", O_RDONLY);
    CHECK(pread(map, &entry, sizeof entry, (uintptr_t)memory / sysconf(_SC_PAGESIZE) * 8) == sizeof entry);
    close(map);
    return !(entry >> 62);
}

static bool is_other(int descriptor)
{
    unsigned char seen[PAGES];
    errno = 0;
    return call(descriptor, SNAPSHOT, memory, seen, PAGES) == -1 && errno == ENOTTY;
}

int main(void)
{
    memory = mmap(NULL, sizeof copy, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(memory, 5, sizeof copy);
    int node = open("/dev/hmm_dmirror0", O_RDWR);
    int copies[] = {
        dup(node), dup2(node, 100), dup3(node, 101, O_CLOEXEC), fcntl(node, F_DUPFD, 200), fcntl(node, F_DUPFD_CLOEXEC, 300),
    };
    CHECK(copies[1] == 100 && copies[2] == 101 && copies[3] == 200 && copies[4] == 300);
    CHECK(fcntl(101, F_GETFD) == FD_CLOEXEC && fcntl(300, F_GETFD) == FD_CLOEXEC && fcntl(200, F_GETFD) == 0);
    CHECK(dup2(node, node) == node && dup3(node, node, 0) == -1 && errno == EINVAL);
    CHECK(dup2(-1, 100) == -1 && errno == EBADF);
    close(node);
    for (int i = 0; i < 5; i++)
        CHECK(works(copies[i]));
    // The device goes with the last of them.
    for (int i = 0; i < 4; i++)
        CHECK(close(copies[i]) == 0);
    CHECK(works(300) && is_away());
    close(300);
    CHECK(!is_away() && memory[0] == 5);

    // Another file takes the number, by a call of ours or by none.
    int null = open("/dev/null", O_RDONLY);
    node = open("/dev/hmm_dmirror0", O_RDWR);
    CHECK(works(node) && dup2(null, node) == node && is_other(node) && !is_away());
    close(node);
    node = open("/dev/hmm_dmirror0", O_RDWR);
    // libc closes and opens streams by itself.
    FILE *stream = fdopen(node, "r");
    CHECK(works(node) && fclose(stream) == 0 && (stream = fopen("/dev/null", "r")));
    CHECK(fileno(stream) == node && is_other(node) && !is_away());
    fclose(stream);
    node = open("/dev/hmm_dmirror0", O_RDWR);
    CHECK(works(node));
    CHECK(close_range(node, node, 0) == 0 && !is_away());
    node = open("/dev/hmm_dmirror0", O_RDWR);
    CHECK(works(node) && close_range(node, node, 4 /* CLOSE_RANGE_CLOEXEC */) == 0 && works(node));
    CHECK(fcntl(node, F_GETFD) == FD_CLOEXEC);
    closefrom(node);
    CHECK(!is_away() && fcntl(node, F_GETFD) == -1);

    // By their numbers.
    node = syscall(SYS_openat, AT_FDCWD, "/dev/hmm_dmirror0", O_RDWR | O_CLOEXEC);
    CHECK(works(node) && fcntl(node, F_GETFD) == FD_CLOEXEC);
    struct command all = { (uintptr_t)memory, (uintptr_t)copy, PAGES, 0, 0 };
    CHECK(syscall(SYS_ioctl, node, _IOWR('H', TO_SYSTEM, struct command), &all) == 0 && all.done == PAGES);
    CHECK(syscall(SYS_ioctl, node, _IOWR('H', TO_SYSTEM, struct command), NULL) == -1 && errno == EFAULT);
    char *zeros = (char *)syscall(SYS_mmap, NULL, 4096L, (long)PROT_READ, (long)MAP_PRIVATE, (long)node, 0L);
    CHECK(zeros != MAP_FAILED && zeros[4095] == 0 && munmap(zeros, 4096) == 0);
    CHECK(syscall(SYS_dup, node) == node + 1 && syscall(SYS_dup3, node, 50, 0) == 50);
    CHECK(syscall(SYS_fcntl, node, F_DUPFD, 60) == 60 && works(50) && works(60) && works(node + 1));
    CHECK(syscall(SYS_close, node) == 0 && syscall(SYS_close_range, 50, 60, 0) == 0 && is_away());
    CHECK(syscall(SYS_close, node + 1) == 0 && !is_away());
    CHECK(syscall(SYS_close, node + 1) == -1 && errno == EBADF);
    CHECK(syscall(SYS_getpid) == getpid() && syscall(SYS_openat, AT_FDCWD, "/no/such/file", O_RDONLY) == -1);

    // A child of vfork that closes its descriptors leaves the parent's alone; so does one of fork.
    node = open("/dev/hmm_dmirror1", O_RDWR);
    CHECK(works(node));
    pid_t child = vfork();
    if (child == 0) {
        close(node);
        dup2(null, node);
        close_range(3, ~0u, 0);
        execl("/bin/true", "true", (char *)NULL);
        _exit(1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0 && works(node));
    child = fork();
    if (child == 0) {
        CHECK(call(node, RELEASE, memory, copy, PAGES) == -1 && errno == EIO);
        close(node);
        CHECK(memory[7] == 5);
        int own = open("/dev/hmm_dmirror1", O_RDWR);
        CHECK(own == node && works(own));
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0 && works(node));

    // Numbers that cannot be noted.
    struct { uint64_t now, most; } limits = { 8192, 8192 };
    if (syscall(SYS_prlimit64, 0, 7 /* RLIMIT_NOFILE */, &limits, NULL) == 0) {
        CHECK(fcntl(node, F_DUPFD, 5000) == -1 && errno == EMFILE && fcntl(5000, F_GETFD) == -1);
        CHECK(dup2(node, 5001) == -1 && errno == EMFILE);
    }
    CHECK(works(node));
    printf("all");
    return 0;
}
"#;

#[test]
fn a_copy_of_a_descriptor_is_of_the_node() {
    let output = holds("copies", MAIN, &[], &[]);
    assert_eq!(output.stdout, b"all", "{output:?}");
}
