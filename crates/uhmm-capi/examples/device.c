// A device in C, of both kinds: one that maps memory where it is, and one with memory of its own. Then what is misused
// is told. Every step is checked; the exit status is 0 where all hold.

#define _GNU_SOURCE
#include "uhmm.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES = 64 };

static void fail(int line, const char *what, uhmm_status status)
{
    char message[256];
    uhmm_message(message, sizeof message);
    fprintf(stderr, "line %d: %s: %s (%s)\n", line, what, uhmm_status_text((int32_t)status), message);
    exit(1);
}

#define CALL(call)                              \
    do {                                        \
        uhmm_status answered = (call);          \
        if (answered != UHMM_STATUS_OK)         \
            fail(__LINE__, #call, answered);    \
    } while (0)

#define REFUSED(call, expected)                 \
    do {                                        \
        uhmm_status answered = (call);          \
        if (answered != (expected))             \
            fail(__LINE__, #call, answered);    \
    } while (0)

#define CHECK(condition)                                    \
    do {                                                    \
        if (!(condition))                                   \
            fail(__LINE__, #condition, UHMM_STATUS_OK);     \
    } while (0)

// A page table: an entry for each page of a window, in engine memory. An entry is nothing, or where the page is; the
// lowest bit is set where the program has it, the next where it may be written.
enum { IN_PLACE = 1, WRITE = 2, FLAGS = 3 };

struct table {
    uintptr_t first, page;
    atomic_uintptr_t entries[PAGES];
    // Whether an access is in flight, and by which accessor; 0 is none.
    atomic_bool busy;
    _Atomic uint64_t accessor;
    atomic_size_t commits, invalidations, unmapped, released;
    // What a function of the header answered to a callback.
    atomic_int answered;
    uhmm_space space;
};

static int32_t prepare(void *data, uintptr_t address, uintptr_t pages, bool write)
{
    struct table *table = data;
    (void)write;
    // The device has entries for its window alone.
    return address < table->first || address + pages * table->page > table->first + PAGES * table->page ? 7 : 0;
}

static void commit(void *data, const uhmm_entries *entries)
{
    struct table *table = data;
    uintptr_t at = entries->place == UHMM_WHERE_IN_PLACE ? entries->address : (uintptr_t)entries->memory;
    uintptr_t flags = (entries->place == UHMM_WHERE_IN_PLACE ? IN_PLACE : 0) | (entries->write ? WRITE : 0);
    size_t first = (entries->address - table->first) / table->page;
    for (size_t i = 0; i < entries->pages; i++)
        atomic_store(&table->entries[first + i], (at + i * table->page) | flags);
    atomic_fetch_add(&table->commits, 1);
}

static void invalidate(void *data, const uhmm_ended *ended)
{
    struct table *table = data;
    for (size_t i = 0; i < ended->pages; i++) {
        uintptr_t address = ended->address + i * table->page;
        if (address >= table->first && address < table->first + PAGES * table->page)
            atomic_store(&table->entries[(address - table->first) / table->page], 0);
    }
    uhmm_accessor accessor = { atomic_load(&table->accessor) };
    while (atomic_load(&table->busy))
        uhmm_accessor_refuse(accessor);
    atomic_fetch_add(&table->invalidations, 1);
    if (ended->why == UHMM_WHY_UNMAP)
        atomic_fetch_add(&table->unmapped, ended->pages);
    atomic_store(&table->answered, (int)uhmm_adopt(table->space, table->first, table->page));
}

static void released(void *data)
{
    struct table *table = data;
    atomic_fetch_add(&table->released, 1);
}

// The device reads a byte. It faults by what it is told until it has an entry.
static unsigned char device_reads(struct table *table, uhmm_accessor accessor, uintptr_t address,
                                  void (*fault)(uintptr_t address, void *), void *how)
{
    for (;;) {
        unsigned char byte;
        bool done = false;
        atomic_store(&table->busy, true);
        uintptr_t entry = atomic_load(&table->entries[(address - table->first) / table->page]);
        if (entry & IN_PLACE) {
            done = uhmm_accessor_read(accessor, address, &byte, 1) == UHMM_STATUS_OK;
        } else if (entry) {
            byte = ((unsigned char *)(entry & ~(uintptr_t)FLAGS))[address % table->page];
            done = true;
        }
        atomic_store(&table->busy, false);
        if (done)
            return byte;
        fault(address - address % table->page, how);
    }
}

static size_t page;

static void fault_mirror(uintptr_t address, void *how)
{
    uhmm_ask ask = { .address = address, .length = page, .want = UHMM_WANT_READ, .anew = true };
    uhmm_faulted faulted;
    CALL(uhmm_mirror_fault(*(uhmm_mirror *)how, &ask, NULL, &faulted, NULL));
    CHECK(faulted.failed == 0);
}

static void fault_device(uintptr_t address, void *how)
{
    CALL(uhmm_device_fault(*(uhmm_device *)how, address, false));
}

static struct table *new_table(uhmm_space space, void *window)
{
    void *block;
    CALL(uhmm_engine_allocate(space, sizeof(struct table), 0, &block));
    struct table *table = block;
    table->first = (uintptr_t)window;
    table->page = page;
    table->space = space;
    return table;
}

// Pages of the program's own. Anonymous memory that follows the data of a library directly is taken for a part of
// that, which never migrates: so there is a page of another kind in front.
static unsigned char *new_window(void)
{
    unsigned char *front = mmap(NULL, (1 + PAGES) * page, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(front != MAP_FAILED);
    unsigned char *window = mmap(front + page, PAGES * page, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    CHECK(window == front + page);
    for (size_t i = 0; i < PAGES; i++)
        memset(window + i * page, (int)i, page);
    return window;
}

static uint64_t counter(uhmm_space space, const char *name)
{
    uhmm_counter counters[256];
    size_t count;
    CALL(uhmm_counters(space, counters, 256, &count));
    for (size_t i = 0; i < count && i < 256; i++)
        if (!strcmp(counters[i].name, name))
            return counters[i].value;
    fail(__LINE__, name, UHMM_STATUS_OK);
    return 0;
}

// A device without memory: it maps the window where it is.
static void mirrors(uhmm_space space)
{
    unsigned char *window = new_window();
    struct table *table = new_table(space, window);
    uhmm_calls calls = { .data = table, .prepare = prepare, .commit = commit, .invalidate = invalidate, .released = released };
    uhmm_mirror mirror;
    uhmm_accessor accessor;
    CALL(uhmm_mirror_begin(space, table->first, PAGES * page, &calls, &mirror));
    CALL(uhmm_mirror_accessor(space, mirror, &accessor));
    atomic_store(&table->accessor, accessor.id);
    CALL(uhmm_accessor_renew(accessor));

    // All to read, two pages to write, and each page told.
    uhmm_wish wish = { table->first + 2 * page, 2 * page, UHMM_WANT_WRITE };
    uhmm_ask ask = { table->first, PAGES * page, UHMM_WANT_READ, false, &wish, 1 };
    uhmm_page pages[PAGES];
    uhmm_faulted faulted;
    CALL(uhmm_mirror_fault(mirror, &ask, pages, &faulted, NULL));
    CHECK(faulted.entered == PAGES && faulted.failed == 0);
    for (size_t i = 0; i < PAGES; i++)
        CHECK(pages[i].place == UHMM_PLACE_IN_PLACE);
    CHECK(pages[2].write && pages[3].write);
    for (size_t i = 0; i < PAGES; i++)
        CHECK(device_reads(table, accessor, table->first + i * page + 5, fault_mirror, &mirror) == i);
    uint64_t before, number = 0x0202020202020202;
    CALL(uhmm_accessor_add(accessor, table->first + 2 * page, 1, &before));
    CHECK(before == number && window[2 * page] == 3);
    unsigned char nine = 9;
    CALL(uhmm_accessor_write(accessor, table->first + 2 * page, &nine, 1));
    CHECK(window[2 * page] == 9);

    // What is unmapped the device has no translation of, and an access is refused, not deadly.
    CHECK(munmap(window + 8 * page, 4 * page) == 0);
    CALL(uhmm_mirror_fault(mirror, &ask, NULL, &faulted, NULL));
    CHECK(faulted.failed == 4);
    CHECK(atomic_load(&table->unmapped) == 4);
    REFUSED(uhmm_accessor_read(accessor, table->first + 8 * page, &nine, 1), UHMM_STATUS_REFUSED);
    uhmm_run run;
    uhmm_runs runs = { &run, 1, 0 };
    CALL(uhmm_mirror_fault(mirror, &ask, NULL, &faulted, &runs));
    CHECK(runs.count == 1 && run.address == table->first + 8 * page && run.length == 4 * page);
    CHECK(run.cause == UHMM_CAUSE_NO_AREA && strstr(uhmm_cause_text(run.cause), "nothing is mapped"));
    CHECK(atomic_load(&table->answered) == UHMM_STATUS_IN_CALLBACK);

    REFUSED(uhmm_mirror_end(mirror), UHMM_STATUS_IN_USE);
    CALL(uhmm_accessor_close(accessor));
    CHECK(atomic_load(&table->released) == 0);
    CALL(uhmm_mirror_end(mirror));
    CHECK(atomic_load(&table->released) == 1);
    REFUSED(uhmm_mirror_end(mirror), UHMM_STATUS_ENDED);
    REFUSED(uhmm_accessor_close(accessor), UHMM_STATUS_ENDED);
    CALL(uhmm_engine_free(space, table, sizeof *table, 0));
    munmap(window - page, (1 + PAGES) * page);
}

// A device with memory, into which pages move.
static void migrates(uhmm_space space)
{
    unsigned char *window = new_window();
    struct table *table = new_table(space, window);
    uhmm_calls calls = { .data = table, .prepare = prepare, .commit = commit, .invalidate = invalidate, .released = released };
    uhmm_device device;
    uhmm_accessor accessor;
    uhmm_moved moved;
    uhmm_run run;
    uhmm_runs runs = { &run, 1, 0 };
    CALL(uhmm_device_attach(space, PAGES, &calls, &device));
    CALL(uhmm_device_accessor(space, device, &accessor));
    atomic_store(&table->accessor, accessor.id);

    // Nothing moves that was not adopted.
    CALL(uhmm_device_migrate(device, table->first, PAGES * page, &moved, &runs));
    CHECK(moved.moved == 0 && moved.stayed == PAGES && runs.count == 1 && run.cause == UHMM_CAUSE_NOT_ADOPTED);
    CALL(uhmm_adopt(space, table->first, PAGES * page));
    CALL(uhmm_device_migrate(device, table->first, PAGES * page / 2, &moved, &runs));
    CHECK(moved.moved == PAGES / 2 && moved.stayed == 0 && runs.count == 0);
    uint32_t number;
    size_t used;
    CALL(uhmm_device_state(device, &number, &used));
    CHECK(used == PAGES / 2);

    // The device reads what it has, and faults for the rest.
    CALL(uhmm_device_settle(device));
    for (size_t i = 0; i < PAGES; i++)
        CHECK(device_reads(table, accessor, table->first + i * page + 5, fault_device, &device) == i);
    uhmm_page pages[PAGES];
    CALL(uhmm_device_look(device, table->first, PAGES * page, pages));
    for (size_t i = 0; i < PAGES; i++)
        CHECK(pages[i].place == UHMM_PLACE_OWN);

    // The processor reads on, which brings them back.
    for (size_t i = 0; i < PAGES; i++)
        CHECK(window[i * page + 7] == i);
    CHECK(counter(space, "cpu_faults") > 0 && counter(space, "to_device_request") == PAGES / 2);
    CALL(uhmm_device_make_exclusive(device, table->first, page, &moved, NULL));
    CHECK(moved.moved + moved.already == 1);
    CALL(uhmm_device_look(device, table->first, page, pages));
    CHECK(pages[0].place == UHMM_PLACE_OWN && pages[0].exclusive);

    // Brought back by request, and used where they are from then on.
    CALL(uhmm_device_bring_back(device, table->first, PAGES * page, &moved, &runs));
    CHECK(moved.moved == 1 && moved.stayed == 0 && runs.count == 0);
    CALL(uhmm_device_state(device, &number, &used));
    CHECK(used == 0);
    uhmm_ask ask = { .address = table->first, .length = PAGES * page, .want = UHMM_WANT_READ };
    uhmm_faulted faulted;
    CALL(uhmm_device_fault_range(device, &ask, &faulted, &runs));
    CHECK(faulted.entered + faulted.held == PAGES && faulted.failed == 0 && runs.count == 0);
    CALL(uhmm_device_look(device, table->first, PAGES * page, pages));
    for (size_t i = 0; i < PAGES; i++) {
        CHECK(pages[i].place == UHMM_PLACE_IN_PLACE);
        CHECK(device_reads(table, accessor, table->first + i * page + 9, fault_device, &device) == i);
    }
    CALL(uhmm_advise(space, table->first, PAGES * page, UHMM_ADVICE_STAY, &moved, &runs));
    CHECK(runs.count == 0);
    CALL(uhmm_device_migrate(device, table->first, page, &moved, &runs));
    CHECK(moved.stayed == 1 && run.cause == UHMM_CAUSE_KEPT);

    CALL(uhmm_accessor_close(accessor));
    CALL(uhmm_device_detach(device));
    CHECK(atomic_load(&table->released) == 1);
    CALL(uhmm_engine_free(space, table, sizeof *table, 0));
    munmap(window - page, (1 + PAGES) * page);
}

// Devices may take all that the program has by now, and nothing that it maps later.
static void adopts_everything(uhmm_space space)
{
    unsigned char *window = new_window();
    struct table *table = new_table(space, window);
    uhmm_calls calls = { .data = table, .commit = commit, .invalidate = invalidate };
    uhmm_device device;
    uhmm_moved moved;
    size_t adopted = 0;
    CALL(uhmm_device_attach(space, PAGES, &calls, &device));
    CALL(uhmm_adopt_everything(space, &adopted));
    CHECK(adopted >= PAGES);
    CALL(uhmm_adopt_everything(space, NULL));
    unsigned char *later = new_window();
    CALL(uhmm_device_migrate(device, (uintptr_t)later, PAGES * page, &moved, NULL));
    CHECK(moved.moved == 0 && moved.stayed == PAGES);
    CALL(uhmm_device_migrate(device, (uintptr_t)window, PAGES * page, &moved, NULL));
    CHECK(moved.moved == PAGES && moved.stayed == 0);
    for (size_t i = 0; i < PAGES; i++)
        CHECK(window[i * page + 7] == i);
    CALL(uhmm_device_detach(device));
    CALL(uhmm_engine_free(space, table, sizeof *table, 0));
    munmap(window - page, (1 + PAGES) * page);
    munmap(later - page, (1 + PAGES) * page);
}

static void is_misused(uhmm_space space)
{
    uhmm_space none = { 0 }, made_up = { 0xffffffff01000003 };
    uhmm_mirror mirror = { space.id };
    uhmm_calls calls = { .commit = commit };
    char message[16];
    int local = 0;
    REFUSED(uhmm_open(NULL), UHMM_STATUS_BAD_ARGUMENT);
    REFUSED(uhmm_open(&none), UHMM_STATUS_ALREADY_OPEN);
    REFUSED(uhmm_close(none), UHMM_STATUS_BAD_HANDLE);
    REFUSED(uhmm_adopt(made_up, 0, page), UHMM_STATUS_BAD_HANDLE);
    REFUSED(uhmm_mirror_end(mirror), UHMM_STATUS_BAD_HANDLE);
    REFUSED(uhmm_mirror_begin(space, 0, 0, NULL, &mirror), UHMM_STATUS_BAD_ARGUMENT);
    REFUSED(uhmm_mirror_begin(space, 0, 0, &calls, &mirror), UHMM_STATUS_BAD_ARGUMENT);
    CHECK(uhmm_message(message, sizeof message) == strlen("the function invalidate is null"));
    CHECK(!strcmp(message, "the function in"));
    calls.invalidate = invalidate;
    REFUSED(uhmm_mirror_begin(space, 1, page, &calls, &mirror), UHMM_STATUS_BAD_RANGE);
    REFUSED(uhmm_mirror_begin(space, UINTPTR_MAX, page, &calls, &mirror), UHMM_STATUS_BAD_RANGE);
    REFUSED(uhmm_adopt(space, page, page), UHMM_STATUS_REFUSED);
    REFUSED(uhmm_advise(space, page, page, 99, NULL, NULL), UHMM_STATUS_BAD_ARGUMENT);
    REFUSED(uhmm_engine_free(space, &local, sizeof local, 0), UHMM_STATUS_BAD_ARGUMENT);
    REFUSED(uhmm_engine_allocate(space, page, 3, &(void *){ 0 }), UHMM_STATUS_NO_MEMORY);
    CHECK(!strcmp(uhmm_status_text(-1), "no status of uhmm") && !strcmp(uhmm_cause_text(1000), "no cause of uhmm"));

    // A mirror of everything, by which nothing is asked; pages are asked for of a range that there is no memory for.
    uhmm_page one;
    CALL(uhmm_mirror_begin(space, 0, 0, &calls, &mirror));
    REFUSED(uhmm_mirror_look(mirror, 0, page, NULL), UHMM_STATUS_BAD_ARGUMENT);
    CALL(uhmm_mirror_look(mirror, 0, page, &one));
    CHECK(one.place == UHMM_PLACE_ERROR && one.cause == UHMM_CAUSE_NO_AREA);
    uhmm_ask ask = { 0, page, 17, false, NULL, 0 };
    REFUSED(uhmm_mirror_fault(mirror, &ask, NULL, NULL, NULL), UHMM_STATUS_BAD_ARGUMENT);
    CALL(uhmm_mirror_end(mirror));

    // A child has none of it, and can open its own.
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        uhmm_space own;
        REFUSED(uhmm_adopt(space, page, page), UHMM_STATUS_OTHER_PROCESS);
        REFUSED(uhmm_close(space), UHMM_STATUS_OTHER_PROCESS);
        CALL(uhmm_open(&own));
        mirrors(own);
        migrates(own);
        CALL(uhmm_close(own));
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

// The address space closes under a mirror and a device: what is away comes back first, and both can be ended.
static void closes(uhmm_space space)
{
    unsigned char *window = new_window();
    struct table *table = new_table(space, window);
    // Not in engine memory, which is gone once the last of it has ended.
    static struct table after;
    uhmm_calls calls = { .data = table, .prepare = prepare, .commit = commit, .invalidate = invalidate };
    uhmm_calls counted = { .data = &after, .commit = commit, .invalidate = invalidate, .released = released };
    after.first = (uintptr_t)window;
    after.page = page;
    uhmm_device device;
    uhmm_mirror mirror;
    uhmm_moved moved;
    uhmm_faulted faulted;
    CALL(uhmm_device_attach(space, PAGES, &calls, &device));
    CALL(uhmm_mirror_begin(space, table->first, PAGES * page, &counted, &mirror));
    CALL(uhmm_adopt(space, table->first, PAGES * page));
    CALL(uhmm_device_migrate(device, table->first, PAGES * page / 2, &moved, NULL));
    CHECK(moved.moved == PAGES / 2);
    uhmm_ask ask = { .address = table->first + PAGES * page / 2, .length = PAGES * page / 2, .want = UHMM_WANT_READ };
    CALL(uhmm_mirror_fault(mirror, &ask, NULL, &faulted, NULL));
    CHECK(faulted.entered == PAGES / 2);
    CALL(uhmm_close(space));
    for (size_t i = 0; i < PAGES; i++)
        CHECK(atomic_load(&table->entries[i]) == 0 && atomic_load(&after.entries[i]) == 0);
    for (size_t i = 0; i < PAGES; i++)
        CHECK(window[i * page + 7] == i);
    CALL(uhmm_device_migrate(device, (uintptr_t)window, page, &moved, NULL));
    CHECK(moved.moved == 0 && moved.stayed == 1);
    REFUSED(uhmm_counters(space, NULL, 0, NULL), UHMM_STATUS_ENDED);
    CALL(uhmm_device_detach(device));
    CALL(uhmm_mirror_end(mirror));
    CHECK(atomic_load(&after.released) == 1);
    munmap(window - page, (1 + PAGES) * page);
}

int main(void)
{
    uhmm_space space;
    CALL(uhmm_open(&space));
    CALL(uhmm_page_size(space, &page));
    mirrors(space);
    migrates(space);
    is_misused(space);
    adopts_everything(space);
    CALL(uhmm_close(space));
    REFUSED(uhmm_close(space), UHMM_STATUS_ENDED);
    CALL(uhmm_open(&space));
    mirrors(space);
    closes(space);
    REFUSED(uhmm_close(space), UHMM_STATUS_ENDED);
    puts("all hold");
    return 0;
}
