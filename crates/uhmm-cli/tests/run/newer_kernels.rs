//! What newer kernels do with huge pages in a device's private memory (Linux 6.19, `mm/migrate_device.c` and
//! `lib/test_hmm.c`), and what the selftest of 6.12 does not ask: by programs of our own.

use super::holds;
use super::skip::skip;

/// A huge page's worth of memory and what is asked of it. `huge` says whether it is to be one page.
const MEMORY: &str = r#"
enum { HUGE = 2 << 20, SMALL = 4096, PAGES = HUGE / SMALL };
enum { SEEN_WRITE = 0x02, SEEN_2M = 0x04, SEEN_OWN = 0x20, SEEN_ERROR = 0xff };

static unsigned char copy[HUGE], seen[PAGES];
static int node = -1;

static unsigned char pattern(size_t index, unsigned salt)
{
    return index / 7 + index / SMALL + salt;
}

__attribute__((unused)) static void fill(unsigned char *memory, unsigned salt)
{
    for (size_t i = 0; i < HUGE; i++)
        memory[i] = pattern(i, salt);
}

static bool has(const unsigned char *memory, size_t from, size_t to, unsigned salt)
{
    for (size_t i = from; i < to; i++)
        if (memory[i] != pattern(i, salt))
            return false;
    return true;
}

/// Whether the kernel has a page at an address, of whatever kind: by its own tables.
static bool is_present(const unsigned char *address)
{
    uint64_t entry;
    int map = open("/proc/self/pagemap", O_RDONLY);
    CHECK(pread(map, &entry, sizeof entry, (uintptr_t)address / SMALL * 8) == sizeof entry);
    close(map);
    return entry >> 62;
}

/// What the device sees of all pages alike; -1 where they differ.
static int sees(const unsigned char *memory)
{
    CHECK(call(node, SNAPSHOT, (void *)memory, seen, PAGES) == 0);
    for (size_t i = 1; i < PAGES; i++)
        if (seen[i] != seen[0])
            return -1;
    return seen[0];
}

/// An aligned range of its own, with nothing mapped behind it, filled. Where the kernel has huge pages of itself,
/// those that are to be small are touched while there is no room for a huge one.
static unsigned char *window(bool huge, unsigned salt)
{
    char *all = mmap(NULL, 3 * HUGE, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(all != MAP_FAILED);
    char *aligned = (char *)(((uintptr_t)all + HUGE) / HUGE * HUGE);
    unsigned char *memory = (unsigned char *)aligned;
    size_t step = huge ? HUGE : HUGE / 2;
    for (size_t from = 0; from < HUGE; from += step) {
        CHECK(mmap(memory + from, step, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                   -1, 0) == memory + from);
        if (huge)
            CHECK(madvise(memory, HUGE, MADV_HUGEPAGE) == 0);
        for (size_t i = from; i < from + step; i++)
            memory[i] = pattern(i, salt);
    }
    // MADV_COLLAPSE, where none was free at first.
    if (huge)
        madvise(memory, HUGE, 25);
    CHECK(node < 0 || sees(memory) == (SEEN_WRITE | (huge ? SEEN_2M : 0)));
    return memory;
}

__attribute__((unused)) static bool all_present(const unsigned char *memory, bool wanted)
{
    for (size_t i = 0; i < PAGES; i++)
        if (is_present(memory + i * SMALL) != wanted)
            return false;
    return true;
}

/// Moves all of it to the device, which has its content then.
static void migrate(unsigned char *memory, unsigned salt)
{
    memset(copy, 0, HUGE);
    CHECK(call(node, TO_DEVICE, memory, copy, PAGES) == 0 && c.done == PAGES);
    CHECK(has(copy, 0, HUGE, salt));
}

/// Whether the kernel gives a huge page at all, and the size is the one that is meant here.
static bool has_huge(void)
{
    if (sysconf(_SC_PAGESIZE) != SMALL)
        return false;
    int here = node;
    node = -1;
    unsigned char *memory = window(true, 0);
    node = here;
    bool is = sees(memory) == (SEEN_WRITE | SEEN_2M);
    munmap(memory, HUGE);
    return is;
}

static void begin(void)
{
    node = open("/dev/hmm_dmirror0", O_RDWR);
    CHECK(node >= 0);
    if (!has_huge()) {
        printf("no huge pages");
        exit(0);
    }
}
"#;

#[track_caller]
fn holds_of_memory(name: &str, main: &str) {
    let output = holds(name, &format!("{MEMORY}\n{main}"), &[], &[]);
    if output.stdout == b"no huge pages" {
        return skip(name, "huge pages of 2 MiB");
    }
    assert_eq!(output.stdout, b"all", "{output:?}");
}

#[test]
fn a_migrated_huge_page_is_one_to_the_device_and_none_to_the_processor() {
    holds_of_memory(
        "huge",
        r#"
int main(void)
{
    begin();
    unsigned char *memory = window(true, 1);
    CHECK(all_present(memory, true));
    migrate(memory, 1);
    CHECK(sees(memory) == (SEEN_OWN | SEEN_WRITE | SEEN_2M));
    CHECK(all_present(memory, false));
    // It comes back whole, by request.
    CHECK(call(node, TO_SYSTEM, memory, copy, PAGES) == 0 && c.done == PAGES);
    CHECK(sees(memory) == (SEEN_WRITE | SEEN_2M) && all_present(memory, true));
    CHECK(has(memory, 0, HUGE, 1));
    // And as the processor touches it.
    migrate(memory, 1);
    CHECK(memory[HUGE / 2] == pattern(HUGE / 2, 1));
    CHECK(has(memory, 0, HUGE, 1) && all_present(memory, true));
    printf("all");
    return 0;
}
"#,
    );
}

#[test]
fn what_is_left_of_a_huge_page_that_is_partly_unmapped_keeps_its_content() {
    holds_of_memory(
        "partly-unmapped",
        r#"
int main(void)
{
    begin();
    size_t starts[] = { 0, HUGE / 4, HUGE / 2 };
    for (int at = 0; at < 3; at++)
        for (int by_device = 0; by_device < 2; by_device++) {
            unsigned char *memory = window(true, at);
            size_t start = starts[at], end = start + HUGE / 4;
            migrate(memory, at);
            CHECK(sees(memory) == (SEEN_OWN | SEEN_WRITE | SEEN_2M));
            CHECK(munmap(memory + start, end - start) == 0);
            CHECK(sees(memory) == -1);
            for (size_t i = 0; i < PAGES; i++) {
                bool gone = i * SMALL >= start && i * SMALL < end;
                // No longer one huge page.
                CHECK(seen[i] == (gone ? SEEN_ERROR : SEEN_OWN | SEEN_WRITE));
            }
            if (by_device) {
                // The device has the rest still.
                memset(copy, 0, HUGE);
                if (start > 0)
                    CHECK(call(node, READ, memory, copy, start / SMALL) == 0 && c.faults == 0);
                CHECK(call(node, READ, memory + end, copy + end, (HUGE - end) / SMALL) == 0 && c.faults == 0);
                CHECK(has(copy, 0, start, at) && has(copy, end, HUGE, at));
            }
            CHECK(has(memory, 0, start, at) && has(memory, end, HUGE, at));
            munmap(memory, HUGE);
        }
    printf("all");
    return 0;
}
"#,
    );
}

#[test]
fn what_is_migrated_moves_with_its_addresses() {
    holds_of_memory(
        "remapped",
        r#"
static unsigned char *moved(unsigned char *memory, bool keep)
{
    unsigned char *to = window(false, 99);
    CHECK(munmap(to, HUGE) == 0);
    int flags = MREMAP_MAYMOVE | MREMAP_FIXED | (keep ? MREMAP_DONTUNMAP : 0);
    CHECK(mremap(memory, HUGE, HUGE, flags, to) == to);
    return to;
}

int main(void)
{
    begin();
    for (int huge = 1; huge >= 0; huge--)
        for (int keep = 0; keep < 2; keep++)
            for (int before = 0; before < 2; before++)
                for (int to_system = 0; to_system < 2; to_system++) {
                    unsigned salt = 8 * huge + 4 * keep + 2 * before + to_system;
                    unsigned char *old = window(huge, salt), *now;
                    if (before) {
                        now = moved(old, keep);
                        migrate(now, salt);
                    } else {
                        migrate(old, salt);
                        now = moved(old, keep);
                    }
                    int expected = SEEN_OWN | SEEN_WRITE | (huge ? SEEN_2M : 0);
                    CHECK(sees(now) == expected && all_present(now, false));
                    // The device reads it at its new place.
                    memset(copy, 0, HUGE);
                    CHECK(call(node, READ, now, copy, PAGES) == 0 && has(copy, 0, HUGE, salt));
                    if (keep) {
                        // Nothing is left at the old one, and it can be used again.
                        CHECK(all_present(old, false));
                        for (size_t i = 0; i < HUGE; i += 512)
                            CHECK(old[i] == 0);
                        fill(old, salt + 50);
                        migrate(old, salt + 50);
                        CHECK(has(old, 0, HUGE, salt + 50));
                        munmap(old, HUGE);
                    } else {
                        CHECK(sees(old) == SEEN_ERROR);
                    }
                    if (to_system)
                        CHECK(call(node, TO_SYSTEM, now, copy, PAGES) == 0 && c.done == PAGES);
                    CHECK(has(now, 0, HUGE, salt) && all_present(now, true));
                    munmap(now, HUGE);
                }
    printf("all");
    return 0;
}
"#,
    );
}

#[test]
fn where_a_large_allocation_fails_every_page_moves_as_a_small_one() {
    holds_of_memory(
        "large-fails",
        r#"
int main(void)
{
    begin();
    CHECK(ioctl(node, _IOWR('H', FLAGS, struct command), NULL) == -1 && errno == EFAULT);

    // What was set can be taken back.
    unsigned char *memory = window(true, 3);
    CHECK(call(node, FLAGS, memory, NULL, 1) == 0 && call(node, FLAGS, memory, NULL, 0) == 0);
    migrate(memory, 3);
    CHECK(sees(memory) == (SEEN_OWN | SEEN_WRITE | SEEN_2M));
    CHECK(call(node, TO_SYSTEM, memory, copy, PAGES) == 0 && c.done == PAGES);
    CHECK(sees(memory) == (SEEN_WRITE | SEEN_2M));

    // On the way back.
    migrate(memory, 3);
    CHECK(sees(memory) == (SEEN_OWN | SEEN_WRITE | SEEN_2M));
    CHECK(call(node, FLAGS, memory, NULL, 1) == 0);
    CHECK(call(node, TO_SYSTEM, memory, copy, PAGES) == 0 && c.done == PAGES);
    CHECK(sees(memory) == SEEN_WRITE && all_present(memory, true));
    CHECK(has(memory, 0, HUGE, 3));

    // To the device, and once: of two huge pages the first goes as small ones.
    memory = mmap(NULL, 4 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED && madvise(memory, 4 * HUGE, MADV_HUGEPAGE) == 0);
    memory = (unsigned char *)(((uintptr_t)memory + HUGE) / HUGE * HUGE);
    fill(memory, 4);
    fill(memory + HUGE, 5);
    CHECK(sees(memory) == (SEEN_WRITE | SEEN_2M) && sees(memory + HUGE) == (SEEN_WRITE | SEEN_2M));
    CHECK(call(node, FLAGS, memory, NULL, 1) == 0);
    static unsigned char both[2 * HUGE];
    CHECK(call(node, TO_DEVICE, memory, both, 2 * PAGES) == 0 && c.done == 2 * PAGES);
    CHECK(has(both, 0, HUGE, 4) && has(both + HUGE, 0, HUGE, 5));
    CHECK(sees(memory) == (SEEN_OWN | SEEN_WRITE) && all_present(memory, false));
    CHECK(sees(memory + HUGE) == (SEEN_OWN | SEEN_WRITE | SEEN_2M) && all_present(memory + HUGE, false));
    CHECK(has(memory, 0, HUGE, 4) && has(memory + HUGE, 0, HUGE, 5));
    printf("all");
    return 0;
}
"#,
    );
}

#[test]
fn a_child_reads_what_its_parent_has_on_the_device() {
    holds_of_memory(
        "children",
        r#"
int main(void)
{
    begin();
    for (int huge = 0; huge < 2; huge++) {
        unsigned char *memory = window(huge, 6);
        migrate(memory, 6);
        pid_t child = fork();
        if (child == 0) {
            if (!has(memory, 0, HUGE, 6))
                _exit(1);
            fill(memory, 7);
            // It has a device of its own.
            int inherited = node;
            if (call(inherited, SNAPSHOT, memory, seen, PAGES) != -1 || errno != EIO)
                _exit(2);
            node = open("/dev/hmm_dmirror0", O_RDWR);
            migrate(memory, 7);
            _exit(has(memory, 0, HUGE, 7) ? 0 : 3);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        CHECK(has(memory, 0, HUGE, 6));
        migrate(memory, 6);
        CHECK(has(memory, 0, HUGE, 6));
        munmap(memory, HUGE);
    }
    printf("all");
    return 0;
}
"#,
    );
}
