//! Calls of nodes with anything in them, by several threads, while the memory that they are of changes: all end, as
//! done or with an error that the interface has, and bad addresses are told.
//!
//! `UHMM_FUZZ_SECONDS` says for how long, and `UHMM_SEED` where it starts.

use super::holds;

const MAIN: &str = r#"
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>

// Memory of all kinds lies in the midst of addresses that nothing may touch, so that no call of a device reaches
// anything of the program's but that.
enum { PAGES = 1024, THREADS = 4 };
static const size_t AROUND = (size_t)64 << 30;
static char *arena, *bad_struct;
static size_t page;
static int nodes[3];
static volatile bool over;
static volatile unsigned long calls, done;

static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}

// An address: mostly of the arena, else one that is none.
static uint64_t address(uint64_t *random, bool aligned)
{
    static const uint64_t none[] = { 0, 4096, 0x7ffffffff000, 0x800000000000, 0xffff800000000000, UINT64_MAX - 4095, UINT64_MAX };
    switch (next(random) % 8) {
    case 0: return none[next(random) % (sizeof none / sizeof *none)];
    case 1: return (uintptr_t)arena - AROUND / 2 + next(random) % 1000 * page;
    default: return (uintptr_t)arena + next(random) % (PAGES + 8) * page + (aligned ? 0 : next(random) % page);
    }
}

static uint64_t length(uint64_t *random)
{
    switch (next(random) % 16) {
    case 0: return 0;
    case 1: return 1 << next(random) % 18;
    case 2: return next(random);
    case 3: return UINT64_MAX >> next(random) % 20;
    default: return 1 + next(random) % 64;
    }
}

static void *drive(void *seed)
{
    uint64_t random = (uintptr_t)seed;
    // Where it is not that, it lies where nothing is; or what is answered cannot be written.
    struct command own;
    while (!over) {
        struct command command = {
            address(&random, next(&random) % 8), address(&random, next(&random) % 2), length(&random), next(&random), next(&random)
        };
        unsigned number = next(&random) % 9;
        unsigned long request = _IOWR('H', number, struct command);
        struct command *argument = &own;
        own = command;
        int expected = 0;
        switch (next(&random) % 32) {
        case 0: argument = (void *)address(&random, false); break;
        case 1: argument = NULL, expected = EFAULT; break;
        case 2: argument = (void *)bad_struct, expected = EFAULT; break;
        case 3: request = next(&random); break;
        case 4: request = _IOWR('H', 9 + next(&random) % 200, struct command), expected = EINVAL; break;
        }
        if (number == FLAGS && argument == &own && expected == 0)
            own.pages &= 1;
        errno = 0;
        int result = ioctl(nodes[next(&random) % 2], request, argument);
        bool is_ours = result == 0 || errno == EINVAL || errno == EFAULT || errno == EPERM || errno == ENOENT ||
                       errno == EBUSY || errno == ENOMEM;
        c = own;
        CHECK(is_ours);
        CHECK(expected == 0 || (result == -1 && errno == expected));
        // What no program can have is told to be bad.
        bool beyond = own.address >= 0x800000000000 && argument == &own && request == _IOWR('H', number, struct command);
        CHECK(!beyond || number == FLAGS || result == -1);
        __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&done, result == 0, __ATOMIC_RELAXED);
        if (next(&random) % 64 == 0)
            ioctl(nodes[2], _IOWR('g', 1 + next(&random) % 6, char[96]), address(&random, false));
    }
    return NULL;
}

// Changes memory: all kinds of it, in all ways.
static void *change(void *seed)
{
    uint64_t random = (uintptr_t)seed;
    int file = syscall(SYS_memfd_create, "file", 0);
    CHECK(ftruncate(file, 64 * page) == 0);
    const int any = PROT_READ | PROT_WRITE, kinds[] = { PROT_NONE, PROT_READ, any, any };
    while (!over) {
        size_t first = next(&random) % PAGES, count = 1 + next(&random) % 64;
        if (first + count > PAGES)
            count = PAGES - first;
        char *start = arena + first * page;
        size_t bytes = count * page;
        int protection = kinds[next(&random) % 4], fixed = MAP_FIXED | MAP_NORESERVE;
        switch (next(&random) % 10) {
        case 0: case 1: case 2: mmap(start, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1, 0); break;
        case 3: mmap(start, bytes, protection, MAP_SHARED | MAP_ANONYMOUS | fixed, -1, 0); break;
        case 4: mmap(start, bytes, protection, (next(&random) % 2 ? MAP_PRIVATE : MAP_SHARED) | fixed, file, 0); break;
        case 5: mprotect(start, bytes, protection); break;
        case 6: madvise(start, bytes, MADV_DONTNEED); break;
        // What is unmapped is a hole for a moment, which no other mapping takes: it is reserved again at once.
        case 7: madvise(start, bytes, MADV_FREE); break;
        case 8: madvise(start, bytes, MADV_POPULATE_WRITE); break;
        case 9: {
            char *to = arena + next(&random) % (PAGES - count + 1) * page;
            if (to + bytes <= start || start + bytes <= to)
                mremap(start, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED | (next(&random) % 2 ? 4 /* DONTUNMAP */ : 0), to);
            // A hole is reserved again, but where something is.
            mmap(start, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE, -1, 0);
        }
        }
        if (next(&random) % 16 == 0) {
            struct timespec moment = { 0, next(&random) % 300000 };
            nanosleep(&moment, NULL);
        }
    }
    return NULL;
}

int main(int count, char **arguments)
{
    page = sysconf(_SC_PAGESIZE);
    arena = mmap(NULL, AROUND, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(arena != MAP_FAILED);
    arena += AROUND / 2;
    bad_struct = arena - AROUND / 4;
    CHECK(mprotect(arena, PAGES * page, PROT_READ | PROT_WRITE) == 0);
    nodes[0] = open("/dev/hmm_dmirror0", O_RDWR);
    nodes[1] = open("/dev/hmm_dmirror1", O_RDWR);
    nodes[2] = open("/sys/kernel/debug/gup_test", O_RDWR);
    CHECK(nodes[0] >= 0 && nodes[1] >= 0 && nodes[2] >= 0);
    pthread_t threads[THREADS + 1];
    uint64_t seed = strtoull(arguments[2], NULL, 10) * 2654435761 + 1;
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, drive, (void *)(uintptr_t)(seed + 1000 * i));
    pthread_create(&threads[THREADS], NULL, change, (void *)(uintptr_t)(seed + 7));
    unsigned long seconds = strtoul(arguments[1], NULL, 10), before = 0;
    for (unsigned long second = 0, still = 0; second < seconds; second++) {
        sleep(1);
        // A call may take long, where it is of much; all of them, for so long, hang.
        still = calls == before ? still + 1 : 0;
        CHECK(still < 60);
        before = calls;
    }
    over = true;
    for (int i = 0; i <= THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK(calls > seconds && done > calls / 100);
    printf("%lu calls, %lu done", calls, done);
    return 0;
}
"#;

#[test]
fn any_call_ends_as_done_or_with_an_error() {
    let seconds = std::env::var("UHMM_FUZZ_SECONDS").unwrap_or_else(|_| "4".into());
    let seed = std::env::var("UHMM_SEED").unwrap_or_else(|_| "1".into());
    let output = holds("any-calls", MAIN, &["--device-memory", "2M"], &[&seconds, &seed]);
    eprintln!("{}", super::text(&output.stdout));
}
