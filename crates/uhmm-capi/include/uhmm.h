// uhmm: user-space heterogeneous memory management for Linux, for C.
//
// A device takes pages of the program's memory into its own, or maps them where they are, at the addresses that
// the program has for them. Whoever touches a page next gets it back. Linux 6.8 or later; `uhmm doctor` tells what
// a machine has of what is needed.
//
// Made of the crate uhmm-capi; not to be edited.
//
// Handles. A space, mirror, device or accessor is a number that the library gives. One that was ended, is of another
// kind, was made up, or is of the parent of a fork is found out: the call answers so and does nothing. There can be
// 65536 at a time.
//
// Owners. The library owns what is behind a handle until it is ended. Structures and buffers that are passed are the
// caller's, are read or written during the call alone, and are ordinary memory. The data of a device's functions is
// the caller's, and must stay until the mirror or device has ended. Memory of a device is the library's, and the
// device touches it only between a commit and the invalidation of the page.
//
// Threads. Every function can be called on any thread, at the same time, but for accessors, which are of one thread.
// Who ends a handle waits for the calls of others that use it. From within a device's functions none can be called
// but uhmm_accessor_refuse(), uhmm_status_text() and uhmm_cause_text(). No function is to be called by a signal
// handler.
//
// Forks. Before libc's fork() everything comes back, so a child has all content. It has none of the handles: they
// answer UHMM_STATUS_OTHER_PROCESS, cost nothing, and it may open its own space. vfork() and posix_spawn() share
// memory and see no difference.
//
// Failures. A function that answers anything but UHMM_STATUS_OK has noted a message for its thread: uhmm_message().
// Null for a pointer that must not be null, and numbers that are not allowed, are told and change nothing. What
// cannot be found out, such as a buffer that is too short, is up to the caller: each function says what must hold.


#ifndef UHMM_H
#define UHMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What a function answers. Where it is not UHMM_STATUS_OK nothing was done, unless the function says
// otherwise; uhmm_message() has the particulars.
typedef enum {
  // Done.
  UHMM_STATUS_OK = 0,
  // The handle is none of its kind: it was never given, or is of something else.
  UHMM_STATUS_BAD_HANDLE = 1,
  // What the handle was of has ended.
  UHMM_STATUS_ENDED = 2,
  // The handle is of the process that this one was forked from. It has none of it, and opens its own.
  UHMM_STATUS_OTHER_PROCESS = 3,
  // A pointer is null that must not be, or a number is none of those that are allowed.
  UHMM_STATUS_BAD_ARGUMENT = 4,
  // A range is empty, wraps, is not one of whole pages, or reaches beyond what it has to lie in.
  UHMM_STATUS_BAD_RANGE = 5,
  // The function was called by a callback, which may call uhmm_accessor_refuse() alone.
  UHMM_STATUS_IN_CALLBACK = 6,
  // An accessor is used by the thread that opened it alone.
  UHMM_STATUS_OTHER_THREAD = 7,
  // The system lacks something, or does not allow it.
  UHMM_STATUS_SYSTEM = 8,
  // The process has an address space open already.
  UHMM_STATUS_ALREADY_OPEN = 9,
  // Engine memory or system memory is exhausted.
  UHMM_STATUS_NO_MEMORY = 10,
  // There are as many handles, devices or accessors as there can be.
  UHMM_STATUS_TOO_MANY = 11,
  // Memory that was to be adopted cannot be, or a page cannot be had.
  UHMM_STATUS_REFUSED = 12,
  // Pages could not be brought back from a device.
  UHMM_STATUS_STAYED = 13,
  // A panic was caught: a defect of uhmm. What it was at work on may be half done: save what is to be saved
  // and end the process.
  UHMM_STATUS_PANICKED = 14,
  // Accessors of the mirror or device are open: close them first.
  UHMM_STATUS_IN_USE = 15,
} uhmm_status;

// Where the pages of uhmm_entries are.
typedef enum {
  // Where the program has them, at the program's addresses: reached by an accessor alone.
  UHMM_WHERE_IN_PLACE = 0,
  // In this device's memory, at `memory`, one after the other.
  UHMM_WHERE_OWN = 1,
  // In the memory of a peer, at `memory`, one after the other.
  UHMM_WHERE_PEER = 2,
} uhmm_where;

// Why translations end.
typedef enum {
  // The addresses were unmapped, mapped over, or their pages moved to other addresses.
  UHMM_WHY_UNMAP = 0,
  // The program discards the content.
  UHMM_WHY_CLEAR = 1,
  // The program changed what may be done with the pages.
  UHMM_WHY_PROTECTION = 2,
  // The content moves: to the device `owner`, or back to system memory where that is negative.
  UHMM_WHY_MIGRATE = 3,
  // The device `owner` alone may access the pages from here on; where that is negative that ends.
  UHMM_WHY_EXCLUSIVE = 4,
  // The address space closes.
  UHMM_WHY_RELEASE = 5,
  // For a cause that this header does not know.
  UHMM_WHY_OTHER = 6,
} uhmm_why;

// Why a page cannot be had, or stayed where it was.
typedef enum {
  // There is no cause.
  UHMM_CAUSE_NOTHING = 0,
  // The page was not adopted.
  UHMM_CAUSE_NOT_ADOPTED = 1,
  // Nothing is mapped there.
  UHMM_CAUSE_NO_AREA = 2,
  // A stack.
  UHMM_CAUSE_STACK = 3,
  // It holds a thread's control block, a loaded object's writable data or engine memory, or is to stay.
  UHMM_CAUSE_KEPT = 4,
  // The memory is of a kind that does not migrate, a driver's or the kernel's own.
  UHMM_CAUSE_KIND = 5,
  // The area's protection forbids it.
  UHMM_CAUSE_PROTECTION = 6,
  // The page is locked into memory.
  UHMM_CAUSE_LOCKED = 7,
  // Another userfaultfd holds the area.
  UHMM_CAUSE_FOREIGN_USERFAULTFD = 8,
  // The area cannot be trapped, or its changes not watched.
  UHMM_CAUSE_CANNOT_WATCH = 9,
  // The process has as many areas as the system allows.
  UHMM_CAUSE_NO_ROOM_FOR_AREAS = 10,
  // The page is pinned, merged with an equal one, or shared with a child.
  UHMM_CAUSE_BUSY = 11,
  // The device's memory is full.
  UHMM_CAUSE_NO_FRAMES = 12,
  // Engine memory or system memory is exhausted.
  UHMM_CAUSE_NO_MEMORY = 13,
  // The program discarded the content, which is not gone yet.
  UHMM_CAUSE_DISCARDED = 14,
  // The page's content is lost.
  UHMM_CAUSE_POISONED = 15,
  // The device's memory is gone, or the device or the address space closed.
  UHMM_CAUSE_GONE = 16,
  // The device refuses the page: the code is its own.
  UHMM_CAUSE_DEVICE_REFUSES = 17,
  // The system refuses: the code is of errno.
  UHMM_CAUSE_SYSTEM = 18,
  // The device could not copy the page: the code is its own.
  UHMM_CAUSE_DEVICE_FAILS = 19,
  // The page lies beyond the end of its file.
  UHMM_CAUSE_BEYOND_END = 20,
  // The page is on a peer that does not let this device have it.
  UHMM_CAUSE_PEER_REFUSES = 21,
  // A cause that this header does not know.
  UHMM_CAUSE_OTHER = 22,
} uhmm_cause;

// Where a page is, as a device sees it.
typedef enum {
  // Not there; a fault would make it present.
  UHMM_PLACE_NONE = 0,
  // It cannot be had: `cause` says why.
  UHMM_PLACE_ERROR = 1,
  // In system memory.
  UHMM_PLACE_IN_PLACE = 2,
  // In the memory of the device that asks.
  UHMM_PLACE_OWN = 3,
  // In the memory of another device: `device` says of which.
  UHMM_PLACE_PEER = 4,
} uhmm_place;

// What a device wants of pages.
typedef enum {
  // To read those that are there. Nothing is made present.
  UHMM_WANT_PRESENT = 0,
  // To read. A page is made present as a load would.
  UHMM_WANT_READ = 1,
  // To write. A page is made present, and the process's own, as a store would.
  UHMM_WANT_WRITE = 2,
} uhmm_want;

// What is said of memory.
typedef enum {
  // It stays in system memory from now on, whatever is adopted: what is away comes back, and all is made
  // present. For stacks of the program's own.
  UHMM_ADVICE_STAY = 0,
  // No page of it goes to a device any more. What is away stays until it is touched or brought back.
  UHMM_ADVICE_RELEASE = 1,
  // What is away comes back. Devices may take it again.
  UHMM_ADVICE_BRING_BACK = 2,
  // What may be done with it has changed (mprotect()), which the system tells nobody: devices see it at once.
  UHMM_ADVICE_PROTECTION_CHANGED = 3,
} uhmm_advice;

// A handle of the address space of this process: its memory, as its processors and devices see it. There is one a
// process. All zeros are no handle.
typedef struct {
  // For the library alone.
  uint64_t id;
} uhmm_space;

// A handle of a mirror: a device's subscription to a range. All zeros are no handle.
typedef struct {
  // For the library alone.
  uint64_t id;
} uhmm_mirror;

// A handle of an accessor: the right of one thread, of a device in this process, to reach the program's memory
// where it is. An access is made or refused; it never ends the process and never waits for a page. All zeros are
// no handle.
typedef struct {
  // For the library alone.
  uint64_t id;
} uhmm_accessor;

// A handle of a device with memory of its own. All zeros are no handle.
typedef struct {
  // For the library alone.
  uint64_t id;
} uhmm_device;

// Translations to enter: consecutive pages that are alike. They replace what was there.
typedef struct {
  // The first address.
  uintptr_t address;
  // How many pages.
  uintptr_t pages;
  // Where they are.
  uhmm_where place;
  // In a device's memory: where the first one's content is. Else null.
  void *memory;
  // Whether the device may write them. It may always read.
  bool write;
  // In place: whether they are the shared page of zeros.
  bool zero;
  // The binary logarithm of how many pages one entry of the processor's page table, or one huge page in frames,
  // has here. A device maps no larger. 0 also stands for not known, as of pages that a migration brings: a
  // snapshot tells.
  uint8_t order;
  // At a peer: its number among the devices. Else 0.
  uint8_t device;
} uhmm_entries;

// Translations that end.
typedef struct {
  // The first address.
  uintptr_t address;
  // How many pages.
  uintptr_t pages;
  // Why.
  uhmm_why why;
  // The device that the cause is of, by its number; negative where there is none.
  int32_t owner;
} uhmm_ended;

// A device's functions.
//
// They are called on any thread, several at a time for different addresses; for the pages of one block (512 pages,
// aligned) `commit` and `invalidate` come one at a time, in the order in which they take effect. All signals are
// blocked meanwhile. They touch engine memory, static data and their own stack, and nothing else of the program:
// not what malloc() gave, which could be away. They take no lock that is held around a call of uhmm, wait for no
// such call, do not return by longjmp() or an exception, and call uhmm_accessor_refuse() and the two functions for
// texts alone: all others answer UHMM_STATUS_IN_CALLBACK.
typedef struct {
  // What each function gets. It is the caller's, and must stay until `released` was called.
  void *data;
  // Makes ready for a commit of these pages, within one block, for writing or for reading: does what can fail or
  // sleep. No lock is held. Answers 0, or a code of the device's own, which refuses the pages. May be null.
  int32_t (*prepare)(void *data, uintptr_t address, uintptr_t pages, bool write);
  // Enters translations. Cannot fail.
  void (*commit)(void *data, const uhmm_entries *entries);
  // Ends all translations of these pages, within one block. When it returns the device has none, and no access
  // through one is in flight. While it waits for an access of an accessor it calls uhmm_accessor_refuse() again
  // and again.
  void (*invalidate)(void *data, const uhmm_ended *ended);
  // Says how many of these pages, within one block, the device used since it was last asked, and since they
  // came. Both are 0 before. For devices with memory alone; may be null, and then all count as used at some time
  // and none as used lately.
  void (*take_use)(void *data, uintptr_t address, uintptr_t pages, uintptr_t *lately, uintptr_t *ever);
  // Is called once, after the last call of the others, as the mirror or device has ended. May be null.
  void (*released)(void *data);
  // Whether the device holds on to the memory behind a page that it maps in place, rather than going through the
  // processor's page table with each access. Such a device is not given pages that the program is about to drop.
  bool pins;
} uhmm_calls;

// What a migration did. Partial success is normal.
typedef struct {
  // Pages that moved.
  uintptr_t moved;
  // Pages that were where they were wanted.
  uintptr_t already;
  // Pages that stayed.
  uintptr_t stayed;
} uhmm_moved;

// A run of pages, and why they stayed or cannot be had.
typedef struct {
  // The first address.
  uintptr_t address;
  // The length in bytes.
  uintptr_t length;
  // Why.
  uhmm_cause cause;
  // The device's or the system's number that goes with that, or 0.
  int32_t code;
} uhmm_run;

// Room for runs, which the caller provides. What there are more of is counted and left out.
typedef struct {
  // Where they are written.
  uhmm_run *runs;
  // How many there is room for.
  uintptr_t capacity;
  // Set: how many there are.
  uintptr_t count;
} uhmm_runs;

// Another wish for some pages of a request.
typedef struct {
  // The first address, on a page boundary.
  uintptr_t address;
  // The length in bytes, whole pages. What lies outside of the request does not matter.
  uintptr_t length;
  // A uhmm_want.
  uint32_t want;
} uhmm_wish;

// A range, and what is wanted of it. Asking does not change it.
typedef struct {
  // The first address, on a page boundary.
  uintptr_t address;
  // The length in bytes, whole pages.
  uintptr_t length;
  // A uhmm_want.
  uint32_t want;
  // Whether to ask also for what the device was given and has had no invalidation of: for a device whose
  // access was refused.
  bool anew;
  // Other wishes for some of the pages; of two for one page the later counts. A few are meant. May be null
  // where there are none.
  const uhmm_wish *wishes;
  // How many there are.
  uintptr_t wishes_count;
} uhmm_ask;

// What came of a range fault.
typedef struct {
  // Pages of which the device had a translation still, as good as was asked.
  uintptr_t held;
  // Pages of which a translation was entered.
  uintptr_t entered;
  // Pages that are not there and were to be mapped only if present.
  uintptr_t absent;
  // Pages that cannot be had as was asked.
  uintptr_t failed;
} uhmm_faulted;

// A page, as a range fault or a snapshot reports it.
typedef struct {
  // Where it is.
  uhmm_place place;
  // Where it is at a peer: the peer's number among the devices.
  uint8_t device;
  // The binary logarithm of how many pages one entry of the processor's page table, or one huge frame, maps
  // here. It may reach past the range.
  uint8_t order;
  // Whether it may be written.
  bool write;
  // Whether it is the shared page of zeros.
  bool zero;
  // Whether one device alone may access it.
  bool exclusive;
  // Why it cannot be had.
  uhmm_cause cause;
  // The device's or the system's number that goes with that, or 0.
  int32_t code;
} uhmm_page;

// How often something happened, since the address space was opened.
typedef struct {
  // What, in words joined by underscores, with a zero at the end.
  char name[40];
  // How often.
  uint64_t value;
} uhmm_counter;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Opens an accessor of the calling thread for what a mirror maps in place, and writes a handle to `accessor`. Who
// opened it closes it, before the thread ends and before the mirror does.
//
// What must hold:
// `accessor` is null or can be written.
uhmm_status uhmm_mirror_accessor(uhmm_space space,
                                 uhmm_mirror mirror,
                                 uhmm_accessor *accessor);

// Opens an accessor of the calling thread for what a device maps in place. As uhmm_mirror_accessor().
//
// What must hold:
// `accessor` is null or can be written.
uhmm_status uhmm_device_accessor(uhmm_space space, uhmm_device device, uhmm_accessor *accessor);

// Closes an accessor, by the thread that opened it.
uhmm_status uhmm_accessor_close(uhmm_accessor accessor);

// Sees to it again that accesses end where they find no page, as the program may have set handlers for SIGSEGV or
// SIGBUS since. To be called before the first access of each piece of work.
uhmm_status uhmm_accessor_renew(uhmm_accessor accessor);

// Copies `length` bytes of the program at `address` to `bytes`. Answers UHMM_STATUS_REFUSED where a page is not
// there or may not be read; some may be copied then. To be called between the look into the device's page table
// and the end of the access, for which invalidate() waits.
//
// What must hold:
// `bytes` has room for them. Nobody writes the program's bytes meanwhile but by atomic accesses, or in place.
uhmm_status uhmm_accessor_read(uhmm_accessor accessor,
                               uintptr_t address,
                               void *bytes,
                               uintptr_t length);

// Copies `length` bytes at `bytes` to the program's memory at `address`. As uhmm_accessor_read().
//
// What must hold:
// `bytes` has so many. What is at the address may be written, and nobody else accesses it meanwhile but by atomic
// accesses, or in place.
uhmm_status uhmm_accessor_write(uhmm_accessor accessor,
                                uintptr_t address,
                                const void *bytes,
                                uintptr_t length);

// Adds to the number of eight bytes at an address that is a multiple of eight, as one atomic access, and writes
// what was there to `before`, if that is not null. Else as uhmm_accessor_write().
//
// What must hold:
// As of uhmm_accessor_write(); `before` is null or can be written.
uhmm_status uhmm_accessor_add(uhmm_accessor accessor,
                              uintptr_t address,
                              uint64_t number,
                              uint64_t *before);

// Has an access of an accessor end that is under way, as done or as refused; does nothing where none is. To be
// called by invalidate(), again and again, while it waits for that access: which may wait for whoever runs
// invalidate(). Safe in a callback; leaves no message.
uhmm_status uhmm_accessor_refuse(uhmm_accessor accessor);

// Attaches a device with a memory of `frames` pages, into which pages move without a copy, and writes a handle to
// `device`. It has a mirror of the whole address space. There can be sixteen at a time. The functions are copied;
// their data must stay.
//
// What must hold:
// `calls` is null or valid, and its functions keep to what is said of them; `device` is null or can be written.
uhmm_status uhmm_device_attach(uhmm_space space,
                               uintptr_t frames,
                               const uhmm_calls *calls,
                               uhmm_device *device);

// Brings back all that a device holds, and ends it: when it returns no function of it runs or will. Waits for
// calls that use the handle. Answers UHMM_STATUS_IN_USE where accessors of it are open. The process ends where a
// page cannot be brought back for want of memory.
uhmm_status uhmm_device_detach(uhmm_device device);

// Writes a device's number among the devices to `number`, and how many frames hold a page to `used`, where they
// are not null.
//
// What must hold:
// Both are null or can be written.
uhmm_status uhmm_device_state(uhmm_device device,
                              uint32_t *number,
                              uintptr_t *used);

// Returns when every change of the address space that the program made before is applied: a device has no
// translation of what was unmapped, moved or discarded. To be called before a device begins work that the program
// gave it.
uhmm_status uhmm_device_settle(uhmm_device device);

// Moves a range, whole pages, to a device, as far as it will go. What moved, and what stayed and why, is written
// to `moved` and `runs` where they are not null. That pages stayed is no failure.
//
// What must hold:
// `moved` and `runs` are null or can be written, and `runs` has the room that it says.
uhmm_status uhmm_device_migrate(uhmm_device device,
                                uintptr_t address,
                                uintptr_t length,
                                uhmm_moved *moved,
                                uhmm_runs *runs);

// Brings back what of a range is on a device. As uhmm_device_migrate().
//
// What must hold:
// As of uhmm_device_migrate().
uhmm_status uhmm_device_bring_back(uhmm_device device,
                                   uintptr_t address,
                                   uintptr_t length,
                                   uhmm_moved *moved,
                                   uhmm_runs *runs);

// Moves a range to a device which alone may access it, until somebody else does, which the device is told before.
// As uhmm_device_migrate().
//
// What must hold:
// As of uhmm_device_migrate().
uhmm_status uhmm_device_make_exclusive(uhmm_device device,
                                       uintptr_t address,
                                       uintptr_t length,
                                       uhmm_moved *moved,
                                       uhmm_runs *runs);

// Serves a fault of a device: brings the page at an address, and its neighbours where they will come. When it
// returns the device has been told of the page's translation; it may have lost it again, and faults again then.
// Answers UHMM_STATUS_REFUSED where the page cannot go there.
uhmm_status uhmm_device_fault(uhmm_device device,
                              uintptr_t address,
                              bool write);

// Makes a range accessible to a device where it is: in system memory, in the device's, or in a peer's. As
// uhmm_mirror_fault(); what each page is then is told by uhmm_device_look().
//
// What must hold:
// As of uhmm_mirror_fault().
uhmm_status uhmm_device_fault_range(uhmm_device device,
                                    const uhmm_ask *ask,
                                    uhmm_faulted *faulted,
                                    uhmm_runs *runs);

// Looks what a fault of a range would find now, page by page, and changes nothing. `pages` has room for all.
//
// What must hold:
// `pages` is null or has the room.
uhmm_status uhmm_device_look(uhmm_device device, uintptr_t address, uintptr_t length, uhmm_page *pages);

// Subscribes a device without memory of its own to a range, whole pages of any kind of memory, mapped or not, and
// writes a handle to `mirror`. A length of 0 at address 0 is the whole address space. Nothing is watched or made
// present until the device faults. The functions are copied; their data must stay.
//
// What must hold:
// `calls` is null or valid, and its functions keep to what is said of them; `mirror` is null or can be written.
uhmm_status uhmm_mirror_begin(uhmm_space space,
                              uintptr_t address,
                              uintptr_t length,
                              const uhmm_calls *calls,
                              uhmm_mirror *mirror);

// Ends a mirror, from any thread: when it returns no function of it runs or will. Waits for calls that use the
// handle. Answers UHMM_STATUS_IN_USE where accessors of it are open.
uhmm_status uhmm_mirror_end(uhmm_mirror mirror);

// Makes a range accessible to a mirror's device as `ask` says, and has translations of it entered. When it returns
// each page has a translation, or is reported with why it has none. A translation holds until its invalidation,
// which can come at once. Where they are not null, `pages` gets each page, of which it has room for all; `faulted`
// how many had what; and `runs` those that cannot be had.
//
// What must hold:
// `ask` is null or valid, with its wishes; the others are null or can be written, with the room that is said.
uhmm_status uhmm_mirror_fault(uhmm_mirror mirror,
                              const uhmm_ask *ask,
                              uhmm_page *pages,
                              uhmm_faulted *faulted,
                              uhmm_runs *runs);

// Looks what a fault of a range would find now, page by page, and changes nothing. `pages` has room for all.
//
// What must hold:
// `pages` is null or has the room.
uhmm_status uhmm_mirror_look(uhmm_mirror mirror, uintptr_t address, uintptr_t length, uhmm_page *pages);

// A cause in a few words of English. The text is there for good. Anything but a cause is said to be none. Safe in
// a callback.
const char *uhmm_cause_text(uint32_t cause);

// Opens the address space of this process, and writes a handle of it to `space`. Starts two threads, which serve
// faults.
//
// In the child of a fork the handle answers UHMM_STATUS_OTHER_PROCESS, and the child may open its own. fork()
// brings everything back first, so the child has all content.
//
// What must hold:
// `space` is null or can be written.
uhmm_status uhmm_open(uhmm_space *space);

// Brings everything back, stops serving faults, and ends the handle. Waits for calls of other threads to end that
// use it. Mirrors and devices that are still there get nothing more, and are to be ended as ever.
//
// Answers UHMM_STATUS_STAYED or UHMM_STATUS_SYSTEM where that cannot be done: what could be brought back is, the
// handle stays, nothing goes to a device any more, and closing again goes on with the rest.
uhmm_status uhmm_close(uhmm_space space);

// Writes the size of a page in bytes to `bytes`.
//
// What must hold:
// `bytes` is null or can be written.
uhmm_status uhmm_page_size(uhmm_space space, uintptr_t *bytes);

// Lets devices take the anonymous memory of a range, whole pages: what is mapped there now and what will be.
// Nothing moves until a device wants it. Adopts nothing, and answers UHMM_STATUS_REFUSED, where a part of it is
// not mapped or never migrates.
uhmm_status uhmm_adopt(uhmm_space space,
                       uintptr_t address,
                       uintptr_t length);

// Lets devices take all anonymous memory that this process has now: heaps, and what it mapped itself. What never
// migrates is left out: stacks, control blocks of threads, data of loaded objects, the engine's own. Memory that
// is mapped later is not adopted: call again. Stacks of the program's own in such memory are to be kept
// (UHMM_ADVICE_STAY). Writes to `pages` how many were adopted, if that is not null.
//
// What must hold:
// `pages` is null or can be written.
uhmm_status uhmm_adopt_everything(uhmm_space space,
                                  uintptr_t *pages);

// Says something of a range, whole pages: `advice` is a uhmm_advice. What moved, and what stayed and why, is
// written to `moved` and `runs` where they are not null.
//
// What must hold:
// `moved` and `runs` are null or can be written, and `runs` has the room that it says.
uhmm_status uhmm_advise(uhmm_space space,
                        uintptr_t address,
                        uintptr_t length,
                        uint32_t advice,
                        uhmm_moved *moved,
                        uhmm_runs *runs);

// Writes the counters to `counters`, which has room for `capacity`, and how many there are to `count`. What there
// is no room for is left out: ask with no room first. Takes no lock. Names stay what they are; later versions have
// more.
//
// What must hold:
// `counters` is null or has the room; `count` is null or can be written.
uhmm_status uhmm_counters(uhmm_space space,
                          uhmm_counter *counters,
                          uintptr_t capacity,
                          uintptr_t *count);

// Allocates engine memory, for what a device's functions touch: it never migrates and is not inherited by a fork.
// `align` is a power of two, or 0 for what any type needs. It is filled with zeros. Writes the block's address to
// `block`. All of it ends with the address space, when the last mirror and device have ended too.
//
// What must hold:
// `block` is null or can be written.
uhmm_status uhmm_engine_allocate(uhmm_space space,
                                 uintptr_t bytes,
                                 uintptr_t align,
                                 void **block);

// Gives a block of engine memory back, of so many bytes, with that alignment, which uhmm_engine_allocate() gave. A
// null `block` is nothing.
//
// What must hold:
// Nobody uses the block any more, and it has this length and alignment.
uhmm_status uhmm_engine_free(uhmm_space space,
                             void *block,
                             uintptr_t bytes,
                             uintptr_t align);

// A status in a few words of English. The text is there for good. Anything but a status is said to be none.
// Safe in a callback.
const char *uhmm_status_text(int32_t status);

// Copies the message of the calling thread's last failure to `buffer`, which has room for `size` bytes: as
// much of it as there is room for, with a zero at the end. Answers how long the message is without that zero.
// What succeeds leaves it as it is; before any failure it is empty. A null buffer only asks for the length.
// In a callback it answers 0.
//
// What must hold:
// `buffer` is null or has room for `size` bytes.
uintptr_t uhmm_message(char *buffer, uintptr_t size);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* UHMM_H */
