//! What programs do, under chaos: load libraries, run others, handle their faults themselves.

use super::{compiled, holds};

#[test]
fn libraries_that_are_loaded_have_their_data_and_their_thread_locals() {
    let library = compiled(
        "loaded.so",
        r"
#include <stdlib.h>
#include <string.h>

char data[1 << 20] = { 1 };
char zeros[1 << 20];
static __thread char own[1 << 16];
static char *heap;

__attribute__((constructor)) static void begin(void)
{
    heap = malloc(1 << 20);
    memset(heap, 3, 1 << 20);
}

__attribute__((destructor)) static void end(void)
{
    free(heap);
}

int check(int salt)
{
    for (size_t i = 0; i < sizeof zeros; i += 512) {
        if (heap[i] != 3 || zeros[i] != data[i + 1 < sizeof data ? i + 1 : 0])
            return 1;
        zeros[i] = salt, data[i + 1 < sizeof data ? i + 1 : 0] = salt;
    }
    for (size_t i = 0; i < sizeof own; i += 512)
        own[i] += salt;
    return own[0] == own[sizeof own - 512] ? 0 : 2;
}
",
        &["-O1", "-shared", "-fPIC"],
    );
    let output = holds(
        "loads",
        r#"
#include <dlfcn.h>
#include <pthread.h>

static const char *path;

static void *work(void *name)
{
    for (int round = 0; round < 20; round++) {
        char *mine = malloc(3 << 20);
        memset(mine, round, 3 << 20);
        void *library = dlopen(path, RTLD_NOW);
        if (!library)
            printf("%s\n", dlerror()), exit(1);
        int (*check)(int) = (int (*)(int))dlsym(library, "check");
        int failed = name ? 0 : check(round);
        CHECK(failed == 0);
        dlclose(library);
        for (size_t i = 0; i < 3 << 20; i += 1000)
            CHECK(mine[i] == round);
        free(mine);
        pthread_t other;
        // A thread whose thread-locals and stack are new.
        if (!name && pthread_create(&other, NULL, work, "other") == 0)
            pthread_join(other, NULL);
    }
    return NULL;
}

int main(int count, char **arguments)
{
    path = arguments[1];
    work(NULL);
    printf("all");
    return 0;
}
"#,
        &["--chaos", "1000"],
        &[&library.to_string_lossy()],
    );
    assert_eq!(output.stdout, b"all", "{output:?}");
}

#[test]
fn other_programs_are_run_in_every_way() {
    let output = holds(
        "spawns",
        r#"
#include <spawn.h>

extern char **environ;

static void ended(pid_t child, int expected)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == expected);
}

int main(int count, char **arguments)
{
    size_t bytes = 8 << 20;
    // Arguments, names and what is written lie in memory that is away at times.
    char *memory = malloc(bytes);
    for (int round = 0; round < 30; round++) {
        memset(memory, round, bytes);
        char *script = memory + bytes / 2, *name = memory + bytes / 4;
        sprintf(script, "read line; test \"$line\" = round%d && exit %d", round, round);
        strcpy(name, "/bin/sh");
        char *list[] = { name, "-c", script, NULL };
        int pipes[2];
        CHECK(pipe(pipes) == 0);
        pid_t child;
        if (round % 3 == 0) {
            posix_spawn_file_actions_t actions;
            posix_spawn_file_actions_init(&actions);
            posix_spawn_file_actions_adddup2(&actions, pipes[0], 0);
            posix_spawn_file_actions_addclose(&actions, pipes[1]);
            CHECK(posix_spawn(&child, name, &actions, NULL, list, environ) == 0);
            posix_spawn_file_actions_destroy(&actions);
        } else if (round % 3 == 1) {
            child = vfork();
            if (child == 0) {
                dup2(pipes[0], 0);
                close(pipes[1]);
                execve(name, list, environ);
                _exit(99);
            }
        } else {
            child = fork();
            if (child == 0) {
                dup2(pipes[0], 0);
                close(pipes[1]);
                execvp(name, list);
                _exit(99);
            }
        }
        close(pipes[0]);
        int written = sprintf(memory, "round%d\n", round);
        CHECK(write(pipes[1], memory, written) == written);
        close(pipes[1]);
        ended(child, round);
        FILE *other = popen("echo told", "r");
        CHECK(fgets(memory, 100, other) && !strcmp(memory, "told\n") && pclose(other) == 0);
        CHECK(memory[bytes - 1] == round);
    }
    if (count > 1) {
        printf("all");
        fflush(stdout);
        return 0;
    }
    char *again[] = { arguments[0], "again", NULL };
    execv(arguments[0], again);
    return 1;
}
"#,
        &["--chaos", "1000"],
        &[],
    );
    assert_eq!(output.stdout, b"all", "{output:?}");
}

/// A program with a userfaultfd of its own for one area, and a device for another.
const OWN_USERFAULTFD: &str = r#"
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/syscall.h>

enum { PAGES = 64 };
static size_t page;
static int faults;
static volatile int served;

static void *serve(void *unused)
{
    char *content = malloc(page);
    struct uffd_msg message;
    struct pollfd wait = { faults, POLLIN, 0 };
    while (poll(&wait, 1, -1) == 1 && read(faults, &message, sizeof message) == sizeof message) {
        if (message.event != UFFD_EVENT_PAGEFAULT)
            continue;
        uintptr_t at = message.arg.pagefault.address / page * page;
        memset(content, at / page, page);
        struct uffdio_copy copy = { at, (uintptr_t)content, page, 0, 0 };
        served++;
        ioctl(faults, UFFDIO_COPY, &copy);
    }
    return NULL;
}

int main(void)
{
    page = sysconf(_SC_PAGESIZE);
    faults = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    CHECK(faults >= 0);
    struct uffdio_api api = { UFFD_API, 0, 0 };
    CHECK(ioctl(faults, UFFDIO_API, &api) == 0);
    char *copy = malloc(PAGES * page);
    int node = open("/dev/hmm_dmirror0", O_RDWR);
    CHECK(node >= 0);
    pthread_t server;
    pthread_create(&server, NULL, serve, NULL);
    for (int round = 0; round < 20; round++) {
        char *theirs = mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        struct uffdio_register area = { { (uintptr_t)theirs, PAGES * page }, UFFDIO_REGISTER_MODE_MISSING, 0 };
        CHECK(ioctl(faults, UFFDIO_REGISTER, &area) == 0);
        served = 0;
        char *ours = mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(ours, round, PAGES * page);
        CHECK(call(node, TO_DEVICE, ours, copy, PAGES) == 0 && c.done == PAGES);
        // No page of the program's userfaultfd goes anywhere, and it serves all of its faults.
        CHECK(call(node, TO_DEVICE, theirs, copy, PAGES) == -1 && errno == ENOENT);
        for (int i = 0; i < PAGES; i++)
            CHECK((unsigned char)theirs[i * page] == (unsigned char)((uintptr_t)theirs / page + i));
        CHECK(served == PAGES);
        CHECK(call(node, TO_DEVICE, theirs, copy, PAGES) == -1 && errno == ENOENT);
        for (int i = 0; i < PAGES; i++)
            CHECK(ours[i * page] == round);
        munmap(theirs, PAGES * page);
        munmap(ours, PAGES * page);
    }
    printf("all");
    return 0;
}
"#;

#[test]
fn a_program_has_its_own_userfaultfd() {
    let output = holds("own-userfaultfd", OWN_USERFAULTFD, &[], &[]);
    assert_eq!(output.stdout, b"all", "{output:?}");
}

#[test]
fn its_own_handlers_of_signals_get_what_is_theirs() {
    let output = holds(
        "signals",
        r#"
#include <setjmp.h>

static sigjmp_buf back;
static volatile int caught;
static void *volatile at;

static void handle(int signal, siginfo_t *info, void *context)
{
    caught = signal;
    at = info->si_addr;
    siglongjmp(back, 1);
}

int main(void)
{
    size_t page = sysconf(_SC_PAGESIZE), pages = 256;
    struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    stack_t stack = { .ss_sp = malloc(1 << 16), .ss_size = 1 << 16 };
    CHECK(sigaltstack(&stack, NULL) == 0);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    char *memory = mmap(NULL, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *big = malloc(4 << 20);
    for (int round = 0; round < 200; round++) {
        memset(memory, round, pages * page);
        memset(big, round, 4 << 20);
        mprotect(memory + page, page, PROT_NONE);
        caught = 0;
        if (sigsetjmp(back, 1) == 0)
            memory[page + 8] = 1;
        CHECK(caught == SIGSEGV && at == memory + page + 8);
        mprotect(memory + page, page, PROT_READ);
        CHECK(memory[page + 8] == (char)round);
        caught = 0;
        if (sigsetjmp(back, 1) == 0)
            memory[page] = 1;
        CHECK(caught == SIGSEGV && at == memory + page);
        mprotect(memory + page, page, PROT_READ | PROT_WRITE);
        for (size_t i = 0; i < pages; i++)
            CHECK(memory[i * page] == (char)round);
        for (size_t i = 0; i < 4 << 20; i += page)
            CHECK(big[i] == (char)round);
    }
    printf("all");
    return 0;
}
"#,
        &["--chaos", "1000"],
        &[],
    );
    assert_eq!(output.stdout, b"all", "{output:?}");
}
