/* Besom: a garbage-collected heap for interpreters and virtual machines.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * This header is the whole C interface, and its reference. It is C11 and C++17. Link with libbesom.a and
 * `-lpthread -ldl -lm`. A program that uses it looks like this:
 *
 *     besom_options options;
 *     besom_heap *heap;
 *     besom_mutator *m;
 *     besom_options_init(&options);
 *     if (besom_heap_new(&options, &heap) != BESOM_OK || besom_attach(heap, &m) != BESOM_OK) return 1;
 *     double *point = (double *)besom_alloc(m, 2 * sizeof *point, BESOM_NOSCAN);
 *     ...
 *     besom_detach(m);
 *     besom_heap_free(heap);
 *
 * Rules that hold everywhere, so that the items below need not repeat them:
 *
 *  - Objects never move. A plain pointer to one stays good for as long as the object is reachable from a root.
 *  - Memory handed out is zeroed, and aligned to 8 bytes, to 16 from 16 bytes up. (Two exceptions, both named
 *    where they arise: tiny objects, and registered layouts of exactly 24 bytes.)
 *  - A function that can fail returns a `besom_status`, or NULL for an object. On failure nothing has changed,
 *    and the `out` argument is not written. (One exception, named where it arises: the length of a metrics text.)
 *  - No function unwinds, exits or prints, except where it says that it aborts: a broken contract prints one
 *    line `besom: <what was wrong>, <the values>` on stderr and calls abort(). docs/messages.md lists each line
 *    with its cause and its cure. These checks are in release builds too; they lie off the fast paths.
 *  - What may be done by a thread that is not attached takes the heap: any thread, at any time between besom_heap_new
 *    and besom_heap_free. What touches objects, or may be a safepoint, takes the mutator: a `besom_mutator *` belongs
 *    to the thread it is attached on, and is used on that one only. What either do afterwards is undefined; the checked
 *    build (see the chapter on debugging) aborts, `besom: <function>: heap is freed`.
 *  - A *safepoint* is where the collector may stop the calling thread and collect. Every function marked
 *    [safepoint] may be one. Across it, an object survives only if a root holds it: see the chapter on roots.
 *  - Sizes are in bytes unless the name says words; a word is 8 bytes. Durations are in nanoseconds.
 *  - A function marked INLINE is defined here and costs what its comment says. The rest are calls.
 *  - In the child of a fork a heap is not used before besom_after_fork_child(heap).
 *
 * Chapters: version, status, heap, threads, processes, allocation, layouts, stores, roots, weak references (with
 * ephemerons, cleanups, finalizers), collection, statistics, metrics, timeline, debugging. The last part, 'Inside the
 * fast paths', is not for callers: it is what the inline functions need.
 */
#ifndef BESOM_H
#define BESOM_H

#include <stddef.h>
#include <stdint.h>

/* ==== Version ============================================================================================
 *
 * The fast paths are compiled into the program, so the header and the library must be of one version.
 * besom_version() tells the library's; a careful program compares it with BESOM_VERSION_STRING once.
 */

#define BESOM_VERSION_MAJOR 0
#define BESOM_VERSION_MINOR 1
#define BESOM_VERSION_PATCH 0
#define BESOM_VERSION_STRING "0.1.0"
/* One number that grows with the version, for #if. */
#define BESOM_VERSION (BESOM_VERSION_MAJOR * 1000000 + BESOM_VERSION_MINOR * 1000 + BESOM_VERSION_PATCH)

/* ---- The compiler. Nothing here is for callers. ---- */
#if defined(__GNUC__)
#define BESOM_INLINE static inline __attribute__((always_inline, unused))
#define BESOM_COLD __attribute__((cold))
#define BESOM_MUST_USE __attribute__((warn_unused_result))
#define BESOM_LIKELY(x) __builtin_expect(!!(x), 1)
#define BESOM_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define BESOM_IS_CONSTANT(x) __builtin_constant_p(x)
#else
#define BESOM_INLINE static inline
#define BESOM_COLD
#define BESOM_MUST_USE
#define BESOM_LIKELY(x) (x)
#define BESOM_UNLIKELY(x) (x)
#define BESOM_IS_CONSTANT(x) 0
#endif
#if defined(__cplusplus)
#define BESOM_STATIC_ASSERT(condition, why) static_assert(condition, why)
#else
#define BESOM_STATIC_ASSERT(condition, why) _Static_assert(condition, why)
#endif

BESOM_STATIC_ASSERT(sizeof(void *) == 8 && sizeof(size_t) == 8, "Besom needs a 64-bit system");

#if defined(__cplusplus)
extern "C" {
#endif

/* ==== Status =============================================================================================
 *
 * What a function that can fail returns. There is no hidden error state: nothing is kept for later.
 */

typedef enum besom_status {
    BESOM_OK = 0,
    BESOM_ERR_NO_MEMORY = 1, /* the system or the heap's hard limit refused memory, after a full collection */
    BESOM_ERR_INVALID = 2,   /* an argument is out of its range */
    BESOM_ERR_STATE = 3,     /* right call, wrong time: e.g. the thread is attached already */
    BESOM_ERR_LIMIT = 4      /* too many of something; the function says of what */
} besom_status;

/* The enumerator's name, "BESOM_OK" and so on; "unknown status" for any other number. Static storage. */
const char *besom_status_name(besom_status status);

/* The library's version, as BESOM_VERSION_STRING is the header's. Static storage. */
const char *besom_version(void);

/* ==== Heap ===============================================================================================
 *
 * A heap is a value: a process may hold several; they share nothing, and freeing one returns all of its
 * memory to the system. A heap is made from options; besom_options_init fills in the defaults and then
 * applies the environment, so that a user can tune a program that never thought of it.
 */

typedef struct besom_heap besom_heap;       /* a heap; opaque */
typedef struct besom_mutator besom_mutator; /* a thread attached to a heap; see the chapter on threads */
typedef struct besom_tracer besom_tracer;   /* the collector, as a trace function sees it; opaque */

/* How the collector finds pointers in an object, in a registered range or in a VM stack. */
typedef enum besom_kind {
    BESOM_NOSCAN = 0,       /* no pointers: strings, numbers, bytes. Never scanned */
    BESOM_CONSERVATIVE = 1, /* any words: one that is an address inside an object of the heap keeps that object */
    BESOM_VALUES = 2,       /* words in the heap's own encoding, besom_options.encoding */
    BESOM_TRACED = 3,       /* the VM's own format: besom_options.trace is called with the object */
    BESOM_TYPED = 4         /* an object of a registered layout. besom_walk reports it; it is no argument */
} besom_kind;

/* How words of kind BESOM_VALUES hold pointers: a word w is a pointer if (w & mask) == tag, to the object that
 * starts at w & address. NULL and addresses outside the heap are skipped, so that integers that look like
 * pointers do no harm. Low-bit tags and NaN boxes both fit; where several tags are pointers (pair, string,
 * ...), the mask leaves out the bits in which they differ.
 *
 *     plain aligned pointers (the default)        { 7, 0, ~(uint64_t)7 }
 *     low bits 000, 001, 010, 011 are pointers,
 *     1xx is an integer                           { 4, 0, ~(uint64_t)7 }
 *     NaN boxes, 0xfffc in the top 16 bits        { 0xffff000000000000, 0xfffc000000000000, 0x0000fffffffffff8 } */
typedef struct besom_encoding {
    uint64_t mask;    /* the bits that tell a pointer from the rest */
    uint64_t tag;     /* their value in a pointer; (tag & ~mask) == 0 */
    uint64_t address; /* the bits that are the address; not 0. Of the low three only those that the mask has and that
                       * are 0 in the tag: objects start at multiples of 8 */
} besom_encoding;

/* A trace function tells the collector about edges by calling besom_trace and besom_trace_range, and does nothing
 * else: it runs on a collector's thread or on one that allocates, several at a time for different objects, and in a cycle
 * perhaps more than once for one object.
 * It must not allocate, lock, or call any other function of this header. One that takes the mutator, and is not inline,
 * aborts, on the mutator's own thread with
 *   besom: <function>: called by a trace function or a visit
 * and on a thread of the collector's as any call on another thread than the mutator's; besom_detach returns
 * BESOM_ERR_STATE. The others are not checked: an inline one that stays on its fast path, and those that take the heap.
 * `data` is besom_options.data for options.trace and options.roots, and the pointer given to besom_mutator_roots for
 * that one. `object` is the object to trace, or NULL when roots are asked for. A newborn is zeroed: a trace function
 * must take that.
 *
 * In mode BESOM_CONCURRENT, options.trace runs beside the program, which may change the object at the same moment. So
 * it must take what it finds: read each word once, whole; look at a length once, and let what lies up to it be
 * readable, also if the object has just shrunk or moved to another storage (an object whose elements lie in memory of
 * malloc's must not free or reallocate that while a cycle may trace it: make the storage an object of the heap). What
 * it misses because of a store at that moment, the store has handed in, if it went through besom_write. */
typedef void (*besom_trace_fn)(besom_tracer *tracer, void *object, void *data);

/* One strong edge, to the object that starts at `object`. NULL and addresses outside the heap are skipped; an
 * address inside an object keeps that object. Only inside a trace function. */
void besom_trace(besom_tracer *tracer, void *object);

/* As many edges as there are pointers in words[0..words) read as `kind`, BESOM_CONSERVATIVE or BESOM_VALUES; other
 * kinds add none. Only inside a trace function. */
void besom_trace_range(besom_tracer *tracer, const void *start, size_t words, int kind);

/* besom_options.mode */
enum {
    BESOM_STOP_THE_WORLD = 0, /* marking stops every mutator; stores need no barrier */
    BESOM_CONCURRENT = 1      /* marking goes on beside the program, which is stopped for some ten microseconds, twice a
                               * cycle, or three times if there are weak references, ephemerons, cleanups or finalizers
                               * (seldom once more); stores go through besom_write, and a thread that allocates much
                               * helps to mark */
};

/* besom_options.verify; see the chapter on debugging */
enum {
    BESOM_VERIFY_OFF = 0,
    BESOM_VERIFY_MARKS = 1, /* mark twice and compare */
    BESOM_VERIFY_HEAP = 2,  /* check every structure after each cycle, and the objects given to besom_write */
    BESOM_VERIFY_BOTH = 3
};

#define BESOM_PROCS_MAX 4096 /* the most Ps a heap can be limited to */

typedef struct besom_options {
    size_t struct_size;     /* set by besom_options_init; leave it. It lets this struct grow */
    size_t heap_limit;      /* bytes, hard: peak_footprint stays below it, which counts the pages that have memory and
                             * the tables of as many pages as ever had (2.4 % of them), but not what is beside them:
                             * a cache for each P (some 40 KiB), the mark queues (what a cycle needed, up to a few MiB),
                             * handles, registered roots and layouts, the C heap. An allocation that would
                             * pass it collects, asks out_of_memory, and at last returns NULL; one that would pass it in
                             * an empty heap returns NULL at once.  default 0: none */
    size_t memory_limit;    /* bytes, soft, counted as heap_limit is: collect sooner, and give free memory back before
                             * more is taken, to stay below; what is live may pass it. From 95 % of it on free memory
                             * goes back in the background too.  default 0: none */
    unsigned gc_percent;    /* growth over live bytes before the next cycle.
                             * default 100; 0: collect on request and at a limit only */
    unsigned procs;         /* Ps: how many attached threads run at once, at most BESOM_PROCS_MAX.
                             * default 0: as many as are attached */
    unsigned mark_workers;  /* threads that may mark at once, at most 256. Beside the program they take a quarter of the
                             * CPUs in sum, and those that it leaves idle.  default 0: one for each CPU */
    int mode;               /* default BESOM_CONCURRENT; or BESOM_STOP_THE_WORLD */
    int scan_native_stacks; /* 1: attached threads' C stacks and registers are conservative roots, so C locals need
                             * no frames; a thread must be on its own stack, not a coroutine's, when it enters
                             * the library. 0: the program names its roots.  default 1 */
    int tiny;               /* 1: BESOM_NOSCAN objects under 16 bytes share blocks.  default 1 */
    besom_encoding encoding; /* for BESOM_VALUES.  default: plain aligned pointers */
    besom_trace_fn trace;    /* for BESOM_TRACED objects; with NULL they have no edges.  default NULL */
    besom_trace_fn roots;    /* the heap's own roots beside all others; called once a cycle with object = NULL, while
                              * the world is stopped, in either mode: keep it short. On any thread: the collector's, or
                              * one of the program's inside a call that passes a safepoint or detaches, on the stack
                              * that it has there. Stores to what it reads need no barrier.  default NULL */
    void *data;              /* handed to trace, roots and out_of_memory.  default NULL */
    /* Called on the allocating thread when a full collection did not make room for `bytes`, its own or one of another
     * thread's that marked after the request. It may drop references, free handles, remove roots and lower what the
     * program caches, but not allocate. Nonzero: it freed something, collect and try again (it may be asked again); 0:
     * give up, the allocation returns NULL. */
    int (*out_of_memory)(besom_heap *heap, size_t bytes, void *data);
    int gc_trace;      /* 1: one line a cycle on stderr.  default 0 */
    int verify;        /* BESOM_VERIFY_*.  default BESOM_VERIFY_OFF */
    int collect_every; /* n > 0: a full cycle at every n-th allocation of a mutator.  default 0: off */
    int clobber_free;  /* 1: freed memory is filled with a pattern.  default 0 */
} besom_options;

/* The defaults, then what the environment says (see the chapter on debugging for the variables). Prints one
 * line for each BESOM_* variable that is malformed or unknown, and keeps the default. */
void besom_options_init(besom_options *options);

/* Makes a heap; options may be NULL for besom_options_init's. Costs about fifteen mappings, and well under 1 MiB of
 * resident memory. Address space is reserved, not committed: 1 TiB, or eight times heap_limit if there is one, so set a
 * limit to have hundreds of heaps. Its threads, which mark and sweep, start with the first cycle.
 *   BESOM_ERR_INVALID     an option is out of range, struct_size is not besom_options_init's, or out is NULL
 *   BESOM_ERR_NO_MEMORY   the system refused */
BESOM_MUST_USE besom_status besom_heap_new(const besom_options *options, besom_heap **out);

/* Frees a heap with all its objects, roots and handles, and returns its memory to the system. No other thread may
 * be inside a function of this heap. NULL is fine.
 *   BESOM_ERR_STATE       a thread is attached */
besom_status besom_heap_free(besom_heap *heap);

/* ==== Threads ============================================================================================
 *
 * A thread that touches objects is *attached*: it is a mutator. To run it holds a P, a processor in the heap's
 * sense: the caches that make allocation cheap. With procs = 0 each mutator has a P for itself; with procs = n,
 * n mutators run at once and the others wait, served in turn: one that has waited 10 ms gets the P of a running
 * one at that one's next safepoint.
 *
 * The collector stops the world by asking every mutator to reach a safepoint, so a mutator must reach one often:
 * allocation is one, and a loop that does not allocate calls besom_safepoint. After the stop in which marking begins,
 * each mutator scans its own roots before it goes on: some microseconds, and 0.1 ms or so for each MiB of its stacks.
 * Around anything that may wait (a read, a lock, a join, a sleep) a mutator is *blocked*: its P is free for others and
 * no collection waits for it. Between besom_block and besom_unblock the thread must touch no object.
 *
 * Pointers to a heap, a mutator or a place for a result must not be NULL, unless a function says what it does then.
 * Every function that takes a mutator, where it is not inline, aborts when called wrongly:
 *   besom: <function>: called on another thread than the mutator's, attached on thread <id>, called on <id>
 *   besom: <function>: mutator is blocked, between besom_block and besom_unblock
 *   besom: <function>: mutator is detached
 * The ids are the system's thread ids. A mutator's memory stays readable until its heap is freed, or until the
 * thread attaches again, which is how a late call can be told.
 */

/* Attaches the calling thread. Waits for a P when procs are all taken. A thread may be attached to several heaps, once
 * to each; then it waits here as in any other call: block its other mutators first.
 *   BESOM_ERR_STATE       the thread is attached to this heap already
 *   BESOM_ERR_INVALID     heap or out is NULL
 *   BESOM_ERR_LIMIT       65,536 threads are attached
 *   BESOM_ERR_NO_MEMORY   the system refused */
BESOM_MUST_USE besom_status besom_attach(besom_heap *heap, besom_mutator **out);

/* Detaches: the P goes back, its unused memory and its statistics to the heap, and this thread's roots (stack,
 * frames, besom_stack_set, besom_mutator_roots) are forgotten. Handles stay. Do it before the thread ends.
 *   BESOM_ERR_STATE       m is another thread's, is blocked, or is detached already; called by a trace function or a
 *                         visit; in the child of a fork, before besom_after_fork_child
 *   BESOM_ERR_INVALID     m is NULL */
besom_status besom_detach(besom_mutator *m);

/* Lets the collector stop this thread, or a waiting thread have its P, if either wants to.  [safepoint]
 * Put it on loop back-edges. INLINE: one load and one branch that is predicted not taken. */
BESOM_INLINE void besom_safepoint(besom_mutator *m);

/* Before a call that may wait. The P becomes free; a collection will not wait for this thread, and uses what the stack
 * and the registers hold now. Takes a lock, and with scan_native_stacks a look at each word of the stack. Aborts:
 *   besom: besom_block: mutator is blocked already */
void besom_block(besom_mutator *m);

/* After it. Waits while the world is stopped, and for a P if procs are all taken.  [safepoint]  Aborts:
 *   besom: besom_unblock: mutator is not blocked */
void besom_unblock(besom_mutator *m);

/* Changes besom_options.procs while threads run: more Ps serve waiting threads at once; fewer take effect at the
 * running threads' next safepoints. n = 0 is as many as are attached. Any thread; takes a lock, stops nothing.
 *   BESOM_ERR_LIMIT       n > BESOM_PROCS_MAX
 *   BESOM_ERR_NO_MEMORY   the system refused */
besom_status besom_procs_set(besom_heap *heap, unsigned n);

/* The number last set, by besom_options.procs or besom_procs_set. */
unsigned besom_procs(besom_heap *heap);

/* ==== Processes ==========================================================================================
 *
 * Fork. The library installs handlers (pthread_atfork) with the first heap: fork() stops the world of every heap before
 * the process is copied, as a collection would, and lets it go on in the parent. So a fork waits until every mutator
 * reaches a safepoint or blocks, and until a cycle that runs is over. The thread that forks may be attached, blocked or
 * neither. The child may exec or _exit at once; if it is to go on with a heap, it calls besom_after_fork_child first.
 *
 *  - A handler of the VM's own that takes a lock in which mutators may pass a safepoint is to be installed after the
 *    first heap was made: then it is called before the library's.
 *  - A trace function and a besom_walk visit must not fork, except to exec. Nor may a signal handler on a thread that
 *    may be in the library: fork() is one of the library's functions in this respect.
 *  - In a process that forks a thread that is attached to several heaps keeps all its mutators but one blocked: at a
 *    safepoint of one heap it would wait for the end of a fork that waits for it in another.
 *  - posix_spawn, system, popen and vfork stop nothing, nor does _Fork(), whose child can only exec.
 *
 * Signals. The library's own threads (besom-gc, besom-mark, besom-sweep, besom-scavenge) block every signal, so that
 * the VM's handlers run on the VM's threads. A handler may interrupt the library anywhere, provided that it returns; it
 * must call nothing here.
 *
 * Exit. A process may end at any time: by exit, quick_exit, _exit, a return from main or a signal, from any thread, in
 * the middle of a cycle and with threads attached. The library has no handlers for that. A destructor or an atexit
 * handler may free a heap that nobody is attached to. Freeing one ends its cycle, if one is going on, without waiting
 * for the rest of it.
 */

/* In the child of a fork, once for each heap that it goes on with, by the thread that forked, before anything else.
 * That thread is attached, or blocked, as it was before the fork, on its old mutator. The other threads do not exist in
 * the child: they are detached, and what only they held is garbage; a finalizer or cleanup that one of them was about
 * to run in besom_finalizers_run, or ran, is the parent's alone, and those that still waited run in both. Handles,
 * registered roots, layouts, options and statistics are the parent's, each process having its own from here on. The
 * library's threads are started anew when they are needed. A recording of the timeline goes on in the parent only.
 *
 * Until then functions that take a mutator abort, allocation among them,
 *   besom: <function>: the process was forked, and besom_after_fork_child was not called
 * and besom_detach, besom_attach and besom_heap_free return BESOM_ERR_STATE. The others are not checked: inline ones
 * that stay on their fast path, as besom_write and besom_safepoint do, and the rest of those that take the heap.
 *   BESOM_ERR_STATE       this is no such child, or it was called already, or a trace function or a visit forked, or
 *                         _Fork
 *   BESOM_ERR_INVALID     heap is NULL */
besom_status besom_after_fork_child(besom_heap *heap);

/* ==== Allocation =========================================================================================
 *
 * Objects up to 32 KiB come from size classes (16, 24, 32, 48, 64, 80, ...: at most 12.5 % above the size asked,
 * beyond 128 bytes); larger ones have pages of their own. The kind is chosen for each object and stays. NULL means
 * that memory is short: the system or heap_limit refused it after a full collection, and out_of_memory, if set,
 * gave up. The heap is usable afterwards. A size that cannot be met at all (above PTRDIFF_MAX) gives NULL at once.
 */

/* Allocates zeroed memory of `bytes`.  [safepoint]
 *
 * 0 bytes is valid: a pointer that no other object has. Memory is aligned to 16 bytes from 16 bytes up, to 8 below.
 *
 * Tiny objects: BESOM_NOSCAN of 1 to 15 bytes share 16-byte blocks, aligned to the largest power of two that
 * divides the size, at most 8 (12 bytes: 4; 5 bytes: 1). One of them that is reachable keeps its whole block.
 * besom_options.tiny = 0 turns it off: each has a slot of 16 bytes.
 *
 * INLINE: with constant size and kind eight instructions with the return, one branch, no atomic operation, no
 * call (tiny objects: a few more, to align and count); a variable size adds a table look-up. When the cell is used
 * up: a call that takes the next run of free slots, now and then sweeps, now and then collects. Aborts:
 *   besom: besom_alloc: kind <n>, expected 0..3
 *   besom: besom_alloc: mutator is blocked, between besom_block and besom_unblock */
BESOM_INLINE void *besom_alloc(besom_mutator *m, size_t bytes, besom_kind kind);

/* The usable bytes of the object that starts at `object`: what was asked for, or a little more. 0 if no object of the
 * heap starts there: NULL, an interior pointer, a freed object, a C pointer. A tiny object is not known for itself, its
 * block is: 16 at the block's start, else 0. Takes a few loads, and a lock and a look at each P where its neighbours
 * are being allocated. On a thread that is not attached the answer may be out of date when it arrives. */
size_t besom_size(besom_heap *heap, const void *object);

/* The start of the object that holds this address, or NULL if none does. What rounding added to an object counts as
 * its own. Cost as besom_size. */
void *besom_base(besom_heap *heap, const void *interior);

/* ---- Layouts --------------------------------------------------------------------------------------------
 *
 * A layout is a registered shape: so many bytes, with plain pointers at these offsets and nothing elsewhere.
 * Objects of a layout are scanned exactly, without a header and without a callback, and besom_new needs no size.
 * The first 1,024 layouts of a heap of at most 32 KiB have memory of their own; later and larger ones share memory,
 * pay a word an object, and besom_new is a call for them.
 */

typedef uint32_t besom_layout; /* the number of a layout; good in the heap that it was registered in */

#define BESOM_LAYOUTS_MAX 65536 /* how many layouts a heap can hold */

/* Registers a layout. Layouts cannot be taken back; the same shape registered twice gives two numbers. Takes a lock.
 *   BESOM_ERR_INVALID     bytes is 0 or above UINT32_MAX; an offset is no multiple of 8, or offset + 8 > bytes; there
 *                         are offsets and bytes is no multiple of 8; n > 0 and pointer_offsets is NULL; out is NULL
 *   BESOM_ERR_LIMIT       BESOM_LAYOUTS_MAX are registered
 *   BESOM_ERR_NO_MEMORY   the system refused */
BESOM_MUST_USE besom_status besom_layout_register(besom_heap *heap, size_t bytes, const uint32_t *pointer_offsets,
                                                  size_t n, besom_layout *out);

/* BESOM_LAYOUT(heap, &layout, type, field, ...) registers a struct by the names of its pointer fields, 1 to 16 of
 * them, and is besom_layout_register's status. For a struct without pointers call besom_layout_register with n = 0.
 *
 *     typedef struct pair { void *head, *tail; long mark; } pair;
 *     besom_layout pairs;
 *     if (BESOM_LAYOUT(heap, &pairs, pair, head, tail) != BESOM_OK) ...
 *     pair *p = (pair *)besom_new(m, pairs); */
#if defined(__cplusplus)
#define BESOM_LAYOUT(heap, out, type, ...)                                                                             \
    besom_layout_register((heap), sizeof(type),                                                                        \
                          besom_offsets<BESOM_COUNT(__VA_ARGS__)>{{BESOM_EACH(BESOM_OFFSET, type, __VA_ARGS__)}}.at,   \
                          BESOM_COUNT(__VA_ARGS__), (out))
#else
#define BESOM_LAYOUT(heap, out, type, ...)                                                                             \
    besom_layout_register((heap), sizeof(type),                                                                        \
                          (const uint32_t[]){BESOM_EACH(BESOM_OFFSET, type, __VA_ARGS__)}, BESOM_COUNT(__VA_ARGS__),   \
                          (out))
#endif

/* Allocates a zeroed object of a layout.  [safepoint]  Aligned to 16 bytes from 16 bytes up, except that a layout of 17
 * to 24 bytes is aligned to 8. INLINE: as besom_alloc, and a range check, an index and a load of the slot size
 * more. NULL as besom_alloc. Aborts:
 *   besom: besom_new: layout <n> is not registered
 *   besom: besom_new: mutator is blocked, between besom_block and besom_unblock */
BESOM_INLINE void *besom_new(besom_mutator *m, besom_layout layout);

/* Allocates `count` zeroed elements of a layout in one object, one element every `bytes` of the layout.  [safepoint]
 * count 0 is valid, as besom_alloc of 0 bytes. A product that overflows gives NULL. Huge arrays are marked in
 * pieces, by several workers. Aborts:
 *   besom: besom_new_array: layout <n> is not registered
 *   besom: besom_new_array: mutator is blocked, between besom_block and besom_unblock */
void *besom_new_array(besom_mutator *m, besom_layout element, size_t count);

/* ==== Stores =============================================================================================
 *
 * Every store of what may be a pointer, into a heap object or into a registered root range (then object = NULL),
 * goes through these; else concurrent marking can miss what the store overwrites, and free it while a thread holds it.
 * Not needed: C locals, frames, the VM stack of besom_stack_set, what besom_options.roots and besom_mutator_roots
 * trace, handles (besom_handle_set sees to it), and the first stores into an object that was allocated since the last
 * safepoint. In mode BESOM_STOP_THE_WORLD a plain store will do. A missing one is found by BESOM_VERIFY=marks, which
 * prints the object that was lost and how it is reached.
 *
 * With verify = heap each checks the object it is given, and aborts:
 *   besom: besom_write: 0x<address> is no object of this heap
 * (likewise besom_write_value, besom_write_range).
 */

/* *slot = value, where slot is a field of object, of any pointer type. INLINE: one load, one branch, and the store
 * of one untorn word. While objects are marked, one more load and branch where the slot is 0; else a call, some ten
 * nanoseconds: what is overwritten goes into the mutator's buffer of 32 words, which it marks when it is full (Yuasa's
 * barrier: what was reachable when marking began is kept). */
BESOM_INLINE void besom_write(besom_mutator *m, void *object, void *slot, void *value);

/* *slot = value for a word in the heap's encoding, pointer or not. INLINE, cost as besom_write.
 *
 * What a store overwrites is read as a plain pointer and in the heap's encoding. If a BESOM_TRACED object holds a
 * pointer in a form that only the trace function knows, show it before it is overwritten, with no safepoint between:
 *     void *shown = <the pointer in the slot>;
 *     besom_write(m, NULL, &shown, NULL); */
BESOM_INLINE void besom_write_value(besom_mutator *m, void *object, uint64_t *slot, uint64_t value);

/* Copies words from `from` to `to`, a part of object; they may overlap. Each word is stored whole while objects are
 * marked. */
void besom_write_range(besom_mutator *m, void *object, void *to, const void *from, size_t words);

/* ==== Roots ==============================================================================================
 *
 * An object lives while a root leads to it. Roots are: attached threads' C stacks and registers, if
 * besom_options.scan_native_stacks is on; frames; each mutator's VM stack and trace function; handles; registered
 * ranges; besom_options.roots. Nothing else is: not the program's global variables, not malloc's memory, not
 * thread-local variables.
 */

/* Registers `words` words at `start` as roots, e.g. a global array. start must be aligned to 8 bytes; kind is
 * BESOM_CONSERVATIVE or BESOM_VALUES. Ranges of different starts may overlap. The memory must stay readable until
 * it is removed. Takes a lock; a cycle scans each range once, beside the program, as it was when marking began.
 *   BESOM_ERR_INVALID     start is NULL, unaligned or registered already; words is 0 or overflows; kind is another
 *   BESOM_ERR_NO_MEMORY   the system refused */
besom_status besom_roots_add(besom_heap *heap, void *start, size_t words, besom_kind kind);

/*   BESOM_ERR_INVALID     no range starts there */
besom_status besom_roots_remove(besom_heap *heap, void *start);

/* The VM's own value stack: the words [base, *top) are roots, read as kind, BESOM_CONSERVATIVE or BESOM_VALUES. It
 * grows up; the VM moves *top freely and pushes with plain stores. The collector reads *top at safepoints: store it
 * before one. One stack for each mutator; a second call replaces it, base = NULL removes it.
 *   BESOM_ERR_INVALID     base is unaligned; top is NULL; *top is below base; kind is another
 * (With base = NULL the rest is not looked at.) */
besom_status besom_stack_set(besom_mutator *m, void *base, void **top, besom_kind kind);

/* Anything else of this thread: the function is called with object = NULL whenever its roots are scanned, on this
 * thread or, while it is stopped, blocked or waits for a P, on another. One for each mutator; a second call replaces
 * it, NULL removes it. */
besom_status besom_mutator_roots(besom_mutator *m, besom_trace_fn trace, void *data);

/* BESOM_FRAME(m, &a, &b, ...) makes 1 to 16 C locals precise roots from here to BESOM_FRAME_END(m), which every way out
 * of the block must pass. The locals must be initialised first, and hold plain pointers to objects (interior ones
 * too) or NULL. Frames nest. Cost: a few stores on the C stack, no call. Both are statements; m is evaluated once.
 *
 *     tree *grow(besom_mutator *m, int depth) {
 *         tree *t = (tree *)besom_alloc(m, sizeof *t, BESOM_VALUES);
 *         if (t == NULL || depth == 0) return t;
 *         BESOM_FRAME(m, &t);
 *         tree *left = grow(m, depth - 1);
 *         besom_write(m, t, &t->left, left);
 *         BESOM_FRAME_END(m);
 *         return t;
 *     } */
#define BESOM_FRAME(m, ...)                                                                                            \
    void **const BESOM_PASTE(besom_frame_slots_, __LINE__)[] = {BESOM_EACH(BESOM_SLOT, 0, __VA_ARGS__)};               \
    struct besom_frame BESOM_PASTE(besom_frame_, __LINE__) = {0, BESOM_COUNT(__VA_ARGS__),                             \
                                                              BESOM_PASTE(besom_frame_slots_, __LINE__)};              \
    besom_frame_push((m), &BESOM_PASTE(besom_frame_, __LINE__))
#define BESOM_FRAME_END(m) besom_frame_pop(m)

/* Frames and longjmp: a jump out of functions that hold frames must drop their frames. Save before setjmp, restore
 * after the jump has landed, before anything that may be a safepoint. (A C++ exception likewise.) INLINE, one load or
 * store. */
BESOM_INLINE struct besom_frame *besom_frames_save(besom_mutator *m);
BESOM_INLINE void besom_frames_restore(besom_mutator *m, struct besom_frame *saved);

/* A strong root that outlives a frame and a thread: for C structures that hold an object. Any attached thread of the
 * heap may use it. Each function takes a lock or an atomic operation: it is no substitute for a local. */
typedef struct besom_handle besom_handle;

/* NULL when memory is short. object may be NULL. */
besom_handle *besom_handle_new(besom_mutator *m, void *object);

/* The object. Get, set and free abort when given anything else than a handle of the heap:
 *   besom: besom_handle_get: handle 0x<address> is freed already
 *   besom: besom_handle_get: handle 0x<address> is no handle of this heap */
void *besom_handle_get(besom_mutator *m, const besom_handle *handle);

/* Makes the handle hold another object, or NULL. Aborts as besom_handle_get, with its own name. */
void besom_handle_set(besom_mutator *m, besom_handle *handle, void *object);

/* Frees the handle; its address may come back from besom_handle_new. NULL is fine. Aborts as besom_handle_get. */
void besom_handle_free(besom_heap *heap, besom_handle *handle);

/* ==== Weak references, ephemerons, cleanups, finalizers ===================================================
 *
 * What a program can learn of an object's death, and do about it. Each cycle, when all that roots reach is marked, sees
 * to them in this order:
 *
 *  1. a weak reference to an object that is not reached is cleared: besom_weak_get gives NULL from then on;
 *  2. an ephemeron whose key is not reached is closed: its key and its value are NULL from then on;
 *  3. the finalizers of objects that are not reached become due, and keep these objects, and all that they lead to,
 *     until they have run. Objects that lead to each other are due together, cycles too, in no order;
 *  4. the cleanups of objects that nothing keeps even now become due: the objects are gone.
 *
 * So a finalizer gets its object alive, when no weak reference leads there any more, and may make it reachable again; a
 * cleanup does not get it, and runs when that is past. What is due waits until the VM calls besom_finalizers_run, on a
 * thread of its choice; nothing is ever run inside an allocation or a collection. When the heap is freed nothing is
 * run.
 *
 * An object is what a besom_alloc* or besom_new* gave, by its start. Tiny objects (see besom_alloc) live and die with
 * their block: a weak reference to one may lead to it for as long as another in its block lives, an ephemeron keep its
 * value as long, and a finalizer or cleanup wait as long.
 *
 * Cost: 16 bytes for a weak reference, 40 for a cleanup, 44 for a finalizer, which come from addresses that are
 * reserved with the heap (1/1024 of its reservation for each: 64 million weak references and 27 million of the others
 * if it has no limit, at least a million and 800,000) and count in gc_sys of besom_mem_stats; once used they are kept
 * for others. A cycle looks at each weak reference, cleanup and finalizer that there is: some nanoseconds each. An
 * ephemeron is an object of 32 bytes, its key, its value and two words of the collector's; a cycle scans each that is
 * reached once, or twice if its key is found late, whatever depends on it. Objects cost nothing.
 */

/* Names an object without keeping it. Any attached thread of the heap may use it; it lives until besom_weak_free,
 * whatever becomes of the object. An object may have any number. */
typedef struct besom_weak besom_weak;

/* A weak reference; NULL when there are too many. Aborts when nothing alive starts at `object`, NULL included:
 *   besom: besom_weak_new: 0x<address> is no object of the heap
 * (An object that was found dead, but whose memory is not used again yet, is told; one whose memory is, cannot be.)
 * Takes a lock; for an object allocated since the last cycle it looks at every P. */
besom_weak *besom_weak_new(besom_mutator *m, void *object);

/* The object, which the caller holds then; NULL once a cycle has found it dead. Some 3 ns: no lock. Get and free
 * abort when given anything else than a weak reference of the heap:
 *   besom: besom_weak_get: weak reference 0x<address> is freed already
 *   besom: besom_weak_get: weak reference 0x<address> is no weak reference of this heap */
void *besom_weak_get(besom_mutator *m, besom_weak *weak);

/* Frees the weak reference; its address may come back from besom_weak_new. NULL is fine. Aborts as besom_weak_get. */
void besom_weak_free(besom_heap *heap, besom_weak *weak);

/* An ephemeron: an object that keeps `value` for as long as something else than itself, and what only such values lead
 * to, keeps `key`: the entry of a weak hash table. It does not keep its key. It never changes but when its key dies.
 * The arguments need not be held by roots. value may be anything: NULL and what is no pointer to an object are given
 * back as they are, and a pointer into an object keeps that. To besom_size and besom_walk it is an object of 16 bytes,
 * its key and its value, of kind BESOM_TYPED; it must not be written. NULL when memory is short.  [safepoint] Aborts
 * when nothing alive starts at `key`:
 *   besom: besom_ephemeron_new: 0x<address> is no object of the heap */
void *besom_ephemeron_new(besom_mutator *m, void *key, void *value);

/* Its key; NULL once a cycle has found that dead, as the value is then. To use both, get the key first: while the
 * caller holds it the value stays. Some 3 ns: no lock. Both abort when given anything else than an ephemeron of the
 * heap:
 *   besom: besom_ephemeron_key: 0x<address> is no ephemeron of the heap */
void *besom_ephemeron_key(besom_mutator *m, void *ephemeron);

/* Its value. Aborts as besom_ephemeron_key, with its own name. */
void *besom_ephemeron_value(besom_mutator *m, void *ephemeron);

/* What cancels a cleanup; never 0. */
typedef uint64_t besom_cleanup;

/* run(arg) becomes due when `object` is gone: for what the object stood for, e.g. a file. arg is not a root, and must
 * not lead to the object, which a root that led to it would keep. An object may have any number; one that has a
 * finalizer is gone when that has run, and left it unreachable. out may be NULL. Takes a lock.
 *   BESOM_ERR_INVALID     run is NULL
 *   BESOM_ERR_LIMIT       there are too many
 * Aborts when nothing alive starts at `object`, as besom_weak_new. */
besom_status besom_cleanup_add(besom_mutator *m, void *object, void (*run)(void *arg), void *arg, besom_cleanup *out);

/* 1: the cleanup was neither due nor cancelled before, and will not run. 0: it is due, has run, was cancelled, or never
 * was. */
int besom_cleanup_cancel(besom_heap *heap, besom_cleanup cleanup);

/* run(m, object, data) becomes due when nothing reaches `object` any more; it gets the object alive, once. An object
 * has one finalizer at most: a second call replaces the first (but one that is due runs), run = NULL removes it. data
 * is not a root. Takes a lock.
 *   BESOM_ERR_LIMIT       there are too many
 * Aborts when nothing alive starts at `object`, as besom_weak_new. */
besom_status besom_finalizer_set(besom_mutator *m, void *object,
                                 void (*run)(besom_mutator *m, void *object, void *data), void *data);

/* Runs what is due, cleanups and finalizers, first come, first served: at most `at_most`, and nothing that becomes due
 * meanwhile. Returns how many. One load when nothing is due. Several threads may call it: each takes what the others
 * left.
 *
 * The functions run on this thread, with no lock of Besom's held, and may do what the program may: allocate, collect,
 * store the object anywhere, set its finalizer anew, call besom_finalizers_run. The object is kept while its finalizer
 * runs. One that calls besom_detach, which is allowed, ends the call that runs it, and all calls that it is nested in,
 * as soon as it returns; what they had not run stays due. They must return (no longjmp, no exception), and with the
 * mutator not blocked:
 *   besom: besom_finalizers_run: mutator is blocked, between besom_block and besom_unblock
 * [safepoint] */
size_t besom_finalizers_run(besom_mutator *m, size_t at_most);

/* ==== Collection =========================================================================================
 *
 * Cycles start by themselves when the heap has grown by gc_percent over what was live, or nears a limit; in mode
 * BESOM_CONCURRENT a little before, so that they end then. These are for tests, for idle moments, and for tuning while
 * running.
 */

/* A whole cycle, marked and swept, before it returns: what was unreachable at the call is free afterwards (as far as no
 * conservative root happens to hold it). Waits for a cycle that runs already, which says nothing of what died since. In
 * mode BESOM_CONCURRENT other threads go on meanwhile, and the caller's is the one that leads the marking.
 * [safepoint] */
besom_status besom_collect(besom_mutator *m);

/* Sets besom_options.gc_percent. Takes effect with the next allocation that asks whether to collect. */
void besom_gc_percent_set(besom_heap *heap, unsigned percent);

/* Sets besom_options.memory_limit, in bytes; 0 is none. Takes effect as besom_gc_percent_set does; the thread that
 * gives free memory back looks at once. A limit below what is live is allowed, and refuses nothing: a cycle follows
 * whenever a sixteenth of what is live, and at least 256 KiB, was allocated, or later where that would take more than
 * half of the program's processors. */
void besom_memory_limit_set(besom_heap *heap, size_t bytes);

/* Gives the free pages back to the system now: they leave the resident set. Returns the bytes given back. Collect
 * first if what died lately should go too. Without it a thread of the heap gives back what the next cycle is not
 * expected to need, slowly: with 1 % of one processor, and what was in dense use lately a second later. */
size_t besom_release_memory(besom_heap *heap);

/* Visits every object that is allocated, in address order, with the world stopped and no cycle going on (it waits for
 * one that is): reachable or not yet swept away (collect first to see the reachable only). `bytes` is besom_size's;
 * `kind` is BESOM_TYPED for objects of a layout and for ephemerons; tiny objects are visited a block at a time. visit
 * must not allocate nor call back into the heap, except besom_size and besom_base; what is checked of that is what is
 * checked in a trace function. It returns 0 to go on; any other number ends the walk and is besom_walk's result. 0 at
 * the end.  [safepoint] */
int besom_walk(besom_mutator *m, int (*visit)(void *object, size_t bytes, besom_kind kind, void *data), void *data);

/* ==== Statistics =========================================================================================
 *
 * Two records. besom_stats is a consistent snapshot: of one moment, though no thread is stopped for it, cheap enough to
 * be read all the time. besom_mem_stats is exact: the world is stopped and every cache flushed.
 *
 * Of besom_stats the fields that come from the heap's counters (committed to in_work_bufs, total_alloc_bytes to
 * free_count, mapped to the end) are of one moment; in_metadata and those from tiny_allocs to peak_footprint are each
 * read for itself, a little later. alloc_count and free_count both include the same tiny_allocs. In every snapshot
 *
 *     total_free_bytes <= total_alloc_bytes       free_count <= alloc_count
 *     small_free_count[c] <= small_alloc_count[c] for each class c, and so for large objects
 *     total_alloc_bytes - total_free_bytes <= in_heap
 *     in_heap + in_stacks + in_work_bufs <= committed
 *     committed + released == mapped
 *
 * and no unsigned field but live_bytes and next_goal is smaller than in an earlier snapshot of the same reader. Objects
 * are counted when their span leaves a P's cache, so the counts of objects lag behind the program: by at most one span
 * of 8 to 80 KiB for each size and kind that a P has in use, and by nothing when the caches are flushed, which
 * collections and besom_mem_stats_read do for all Ps, and the end of a P for its own (with procs = 0, at besom_detach).
 */

/* Size classes: objects of up to 32 KiB are allocated in slots of 66 sizes, from 16 bytes. Class 0 is the large
 * objects'. */
#define BESOM_SIZE_CLASSES 67

typedef struct besom_stats {
    int64_t committed;          /* bytes of heap pages that the system may back with memory, and of the mark queue */
    int64_t released;           /* bytes of heap pages without memory: never used yet, or given back to the system */
    int64_t in_heap;            /* bytes of pages in use for objects */
    int64_t in_stacks;          /* bytes of pages in use for stacks; 0, since threads bring their own */
    int64_t in_work_bufs;       /* bytes of the mark queue, as the last cycle left it */
    int64_t in_metadata;        /* bytes of tables beside the pages (2.4 % of mapped, and 65 KB) and of Ps' caches */
    uint64_t total_alloc_bytes; /* bytes allocated ever, in whole slots; of large objects in whole 8 KiB pages */
    uint64_t total_free_bytes;  /* bytes freed ever, likewise */
    uint64_t alloc_count;       /* objects allocated ever, tiny ones included */
    uint64_t free_count;        /* objects freed ever; tiny ones count as freed at once, their blocks when swept */
    uint64_t tiny_allocs;       /* tiny objects that shared a block, ever */
    uint64_t cycles;            /* collections finished */
    uint64_t forced_cycles;     /* those of them that besom_collect asked for */
    uint64_t pause_total_ns;    /* time for which the world was stopped, all cycles */
    uint64_t pause_max_ns;      /* the longest single stop; a cycle beside the program has several */
    uint64_t live_bytes;        /* bytes that the last cycle marked */
    uint64_t next_goal;         /* heap bytes at which the next cycle is due; UINT64_MAX when none is */
    uint64_t peak_footprint;    /* the most bytes of pages committed at once, with their tables: what limits count */
    int64_t mapped;             /* bytes that may be touched: heap pages out of the reservation, and the mark queue */
    uint64_t large_alloc;       /* bytes of large objects allocated ever, in pages */
    uint64_t large_alloc_count; /* large objects allocated ever */
    uint64_t large_free;        /* bytes of large objects freed ever */
    uint64_t large_free_count;  /* large objects freed ever */
    uint64_t small_alloc_count[BESOM_SIZE_CLASSES]; /* by size class; a block of tiny objects is one */
    uint64_t small_free_count[BESOM_SIZE_CLASSES];
} besom_stats;

/* Fills *out. Any thread, attached, blocked or neither. Takes a lock that is never held for long, and waits for at most
 * a few additions of each running mutator. Allocation does not wait for it; a P that is made or goes does, for the walk
 * over the others. Grows with the most Ps that there ever were: some 150 ns for a few, 25 us for 4,096. */
void besom_stats_read(besom_heap *heap, besom_stats *out);

/* Objects of one size class. */
typedef struct besom_size_count {
    uint64_t size;    /* bytes of a slot; 0 of class 0, which is the large objects' */
    uint64_t mallocs; /* allocated ever; a block of tiny objects is one */
    uint64_t frees;   /* freed ever */
} besom_size_count;

#define BESOM_PAUSES 256 /* cycles whose stops besom_mem_stats remembers */

/* Exact, of one moment:
 *
 *     alloc == heap_alloc                         heap_objects == mallocs - frees
 *     heap_sys == heap_inuse + heap_idle          heap_alloc <= heap_inuse, heap_released <= heap_idle
 *     sys == heap_sys + stacks_inuse + work_bufs + spans_sys + page_tables_sys + mark_bits_sys + mcaches_sys + gc_sys
 *            + other_sys
 *     mallocs == by_size[0].mallocs + by_size[1].mallocs + ... + tiny_allocs; frees likewise
 *
 * What is dead and not swept yet counts as allocated; after besom_collect nothing is. Memory counts by what may be
 * touched: of a table that grows with the heap the part for the pages of heap_sys, of which the system may have backed
 * less. The C library's memory is not counted (stacks of the collector's threads), nor a timeline's, nor a few small
 * allocations'. */
typedef struct besom_mem_stats {
    uint64_t alloc;           /* bytes of allocated objects: heap_alloc */
    uint64_t total_alloc;     /* bytes allocated ever */
    uint64_t sys;             /* bytes of memory taken from the system, in all */
    uint64_t mallocs;         /* objects allocated ever, tiny ones included */
    uint64_t frees;           /* objects freed ever; a tiny object that shares a block is freed at once */
    uint64_t tiny_allocs;     /* tiny objects that shared a block, ever: in mallocs and frees, never in bytes */
    uint64_t heap_alloc;      /* bytes of objects that are reachable, or not swept yet; whole slots and pages */
    uint64_t heap_sys;        /* bytes of pages that may be touched, in use or not, with memory or without */
    uint64_t heap_idle;       /* bytes of pages that hold no object */
    uint64_t heap_inuse;      /* bytes of pages of spans */
    uint64_t heap_released;   /* bytes of idle pages without memory: never used yet, or given back */
    uint64_t heap_objects;    /* objects allocated and not freed */
    uint64_t stacks_inuse;    /* bytes of pages that hold stacks; 0 */
    uint64_t work_bufs;       /* bytes of the mark queue */
    uint64_t spans_sys;       /* bytes of span descriptors and of the lists of spans */
    uint64_t page_tables_sys; /* bytes of the page table and of the page allocator's tables */
    uint64_t mark_bits_sys;   /* bytes of mark bits and allocation bits */
    uint64_t mcaches_sys;     /* bytes of the caches of Ps */
    uint64_t gc_sys;          /* bytes of the collector's own: workers' blocks, layouts, weak references, their like */
    uint64_t other_sys;       /* bytes of all else: the heap's struct, mutators, handles, root ranges, blocked stacks */
    uint64_t next_goal;       /* heap bytes at which the next cycle is due; UINT64_MAX: none is */
    uint64_t last_gc_unix_ns; /* when the last cycle ended, since the Unix epoch; 0: there was none */
    uint64_t pause_total_ns;  /* how long the world was stopped for cycles */
    uint64_t num_gc;          /* cycles finished */
    uint64_t num_forced_gc;   /* those that besom_collect asked for */
    uint64_t gc_cpu_ns;       /* processor time that threads spent marking; sweeping is not in it */
    double gc_cpu_fraction;   /* its share of all processors' time since the heap was made, 0 to 1 */
    uint64_t pause_ns[BESOM_PAUSES];          /* cycle n's stops in sum (n from 1), at (n - 1) % BESOM_PAUSES */
    uint64_t pause_end_unix_ns[BESOM_PAUSES]; /* when its last stop ended */
    besom_size_count by_size[BESOM_SIZE_CLASSES];
} besom_mem_stats;

/* Fills *out with the world stopped, for some microseconds and for what flushing the caches of Ps takes; waits for a
 * cycle that runs, beside the program too. No sweep, no walk. Needs 20 KiB of C stack.  [safepoint] */
void besom_mem_stats_read(besom_mutator *m, besom_mem_stats *out);

/* The same, and its twin: *walked is counted anew in the same stop by a walk over every span, slot, page bitmap and P.
 * They are equal in every field, after any history. What only happened leaves nothing to be counted, and is taken over:
 * frees by class, tiny_allocs, num_forced_gc, the pauses, gc_cpu_*. For tests: the stop grows with the heap. Needs 40
 * KiB of C stack. Aborts when they are not equal, or an identity between the heap's counters does not hold:
 *   besom: mem_stats: <field>: <n> counted, <n> walked[; class <size> mallocs <n>/<n> frees <n>/<n>, ...]
 *   besom: mem_stats: class <size>: <n> counted, <n> told by spans
 *   besom: mem_stats: class <size>: <n> mallocs against <n> frees
 *   besom: mem_stats: <what>, and <what>: <n> against <n>
 * [safepoint] */
void besom_mem_stats_read_slow(besom_mutator *m, besom_mem_stats *counted, besom_mem_stats *walked);

/* ==== Metrics ============================================================================================
 *
 * Statistics by name, for tools: each has a name, a unit, a kind and a sentence, and new ones come with new versions,
 * so that a program that walks the list shows them all. docs/metrics.md lists what there is. Nothing is counted for a
 * metric alone except once a cycle, once a stop, and once a span that is swept in the background: one that nobody reads
 * costs nothing per allocation.
 *
 * All values are uint64_t, durations in nanoseconds. What is read in one call fits together:
 *
 *  - of one moment: committed, released, mapped and in-* of memory, allocs, frees, objects and the size histograms of
 *    heap, with the inequalities of besom_stats; committed and released together are mapped. allocs:bytes is the sum of
 *    allocs-by-size, and allocs:objects the number of its values and tiny/allocs together; likewise with frees;
 *  - of one moment, a little later: cycles, cpu, pauses, phases, stops. cycles is the sum of its causes, and how many
 *    values each phase has. pauses has a value for each stop of a cycle: one with the world stopped, two or more beside
 *    the program. The sum of pauses and of phases/beside is that of the phases start, stop, flush, roots, mark and end;
 *    stops/delay has as many values as gc/pauses and sched/pauses/other together. A cycle is in none of them until its
 *    last stop is over;
 *  - of one moment, between those: procs and threads;
 *  - live, goal, tiny, metadata, footprint, peak-footprint, limits, percent, specials and sweep: each read for itself;
 *    but footprint is at most peak-footprint, and background and finish of sweep together at most due.
 *
 * A counter never goes back from one call to a later one, nor does the count of a bucket.
 */

typedef enum besom_metric_kind {
    BESOM_METRIC_GAUGE = 0,    /* what is now */
    BESOM_METRIC_COUNTER = 1,  /* what was so far */
    BESOM_METRIC_HISTOGRAM = 2 /* values so far, counted in buckets */
} besom_metric_kind;

typedef struct besom_metric {
    const char *name;        /* "besom/heap/live:bytes": a path, a colon, the unit; no two are the same */
    const char *unit;        /* the part of it behind the colon: bytes, objects, nanoseconds, ... */
    const char *description; /* one sentence, in English */
    int kind;                /* BESOM_METRIC_* */
    size_t buckets;          /* of a histogram; 0 of the others */
} besom_metric;

/* What one metric says. `counts` and `buckets` are set before each call; the rest need not be. */
typedef struct besom_metric_value {
    uint64_t number;        /* gauge, counter: the value. Histogram: how many values were recorded, the sum of counts */
    uint64_t sum;           /* histogram: the sum of the values. Else 0 */
    uint64_t *counts;       /* in: room for a histogram's counts, which are written there; or NULL, they are not */
    size_t buckets;         /* in: for how many there is room. Out: how many the metric has, 0 unless a histogram */
    const uint64_t *bounds; /* out: of a histogram buckets + 1 bounds, ascending, static storage: bucket i counts the
                             * values from bounds[i] to below bounds[i + 1], the last one UINT64_MAX too. Else NULL */
} besom_metric_value;

/* How many metrics there are; *out is the list of them, in static storage, the same for every heap and at every call.
 * heap and out may be NULL. */
size_t besom_metrics(besom_heap *heap, const besom_metric **out);

/* Reads one metric. Any thread. Costs as besom_stats_read, and a lock that a collecting thread may wait for after its
 * stop, held while the values are copied; a histogram of durations is 4 KiB.
 *   BESOM_ERR_INVALID     no metric has that name; heap, name or out is NULL
 *   BESOM_ERR_LIMIT       out->counts is not NULL and out->buckets less than the metric's */
besom_status besom_metric_read(besom_heap *heap, const char *name, besom_metric_value *out);

/* Reads them all, in the list's order; of `values` the first besom_metrics() are written. Any thread. Costs as
 * besom_metric_read, and the copying of what is asked for.
 *   BESOM_ERR_INVALID     heap or values is NULL
 *   BESOM_ERR_LIMIT       n is less than besom_metrics(); a value has counts, but too few for its histogram */
besom_status besom_metrics_read(besom_heap *heap, besom_metric_value *values, size_t n);

/* Writes them all as text, with a NUL behind it: in Prometheus' text format, version 0.0.4, or as a JSON object with a
 * member for each name. Prometheus has its own names (besom_heap_live_bytes; counters end in _total) and durations in
 * seconds. *length is the length of the text, without the NUL. Any thread. Costs some 100 us, and some 50 KiB
 * of the library's own memory for the time. To write a text of any length:
 *
 *     char *text = NULL;
 *     size_t n = 0;
 *     besom_status status;
 *     while ((status = besom_metrics_prometheus(heap, text, n, &n)) == BESOM_ERR_LIMIT)
 *         text = (char *)realloc(text, n);
 *
 *   BESOM_ERR_INVALID     heap or length is NULL; buffer is NULL and room is not 0
 *   BESOM_ERR_LIMIT       the text and its NUL take more than `room` bytes: *length is the room that they take now, and
 *                         buffer is as it was
 *   BESOM_ERR_NO_MEMORY   the system refused */
besom_status besom_metrics_prometheus(besom_heap *heap, char *buffer, size_t room, size_t *length);
besom_status besom_metrics_json(besom_heap *heap, char *buffer, size_t room, size_t *length);

/* ==== Timeline ===========================================================================================
 *
 * A picture of a run: what the collector did, when, on which thread, and how large the heap was. Between a start and a
 * stop the heap records; the stop writes one file, a JSON object in the Chrome trace event format, which
 * https://ui.perfetto.dev and chrome://tracing open. docs/debugging.md says what its tracks show. A slice of time is in
 * the file if it began after the start and ended before the stop; of a thread that goes on, the last bit of sweeping
 * may be missing.
 *
 * Nothing is recorded for an allocation. While nothing is recorded at all, a thread looks at one word where it takes a
 * span, sweeps, collects or goes on after it waited. While it is, each event costs some 100 ns; a cycle makes some
 * tens of them, sweeping at most one every 100 us for each P. There is room for 1,048,576 of them in 64 MiB of
 * addresses, which hold memory as they are filled and until the stop. Those beyond are dropped, and the file says how
 * many.
 */

/* Starts recording, for a file at `path`, which is made, or emptied, now. Any thread, attached or not, while others
 * work. Each heap needs a path of its own: two that are given the same one write over each other. A pipe must have its
 * reader, and the stop waits for it.
 *   BESOM_ERR_INVALID     heap or path is NULL, or the file cannot be made; it is a pipe that nobody reads
 *   BESOM_ERR_STATE       the heap records already
 *   BESOM_ERR_NO_MEMORY   the system refused */
besom_status besom_timeline_start(besom_heap *heap, const char *path);

/* Stops recording and writes the file. Any thread. The others go on meanwhile, and only a start or stop of the same
 * heap waits; but a stop of the world waits for the caller, if it is attached and not blocked: writing takes about half
 * a second for a million events. besom_heap_free does the same for a heap that records, and does not tell if the file
 * could not be written.
 *   BESOM_ERR_INVALID     heap is NULL
 *   BESOM_ERR_STATE       the heap does not record
 *   BESOM_ERR_LIMIT       the file could not be written to its end, most likely for want of space: it is cut off, and
 *                         recording has ended all the same */
besom_status besom_timeline_stop(besom_heap *heap);

/* ==== Debugging ==========================================================================================
 *
 * besom_options_init reads these variables, in release builds too. Sizes take k, m or g (KiB, MiB, GiB).
 *
 *   BESOM_HEAP_LIMIT=size          BESOM_MEMORY_LIMIT=size        BESOM_GC_PERCENT=n
 *   BESOM_PROCS=n                  BESOM_MARK_WORKERS=n           BESOM_SCAN_NATIVE_STACKS=0|1
 *   BESOM_MODE=concurrent|stop_the_world
 *   BESOM_TINY=0|1                 BESOM_GC_TRACE=0|1             BESOM_VERIFY=off|marks|heap|both
 *   BESOM_COLLECT_EVERY=n          BESOM_CLOBBER_FREE=0|1
 *
 * A value that cannot be read, and a name that begins with BESOM_ and is none of these, prints
 *   besom: BESOM_PROCS=many, expected a number from 0 to 4096; ignored
 * A VM that crashes after a collection has a root or an edge that it did not name, or a store that bypassed
 * besom_write: that goes away with BESOM_MODE=stop_the_world. BESOM_COLLECT_EVERY=1 makes it crash soon,
 * BESOM_CLOBBER_FREE=1 near the cause, and BESOM_VERIFY=both tells it before, by a line that begins with
 *   besom: verify: ...    a check of the heap's structures, or of marking against a second marking, failed
 *   besom: zombie: ...    the sweeper found a marked slot that was never allocated: a stray or stale pointer
 *
 * Under valgrind's memcheck, and in a program built with -fsanitize=address, memory of a heap that is no object's may
 * not be accessed: the use of an object after it was swept is reported at its line. The library finds out by itself,
 * and then allocates object by object on the slow path, tiny objects too, and uses freed memory again late.
 * docs/debugging.md has the commands, and what a report says.
 *
 * The checked build is the library with its debug assertions (make lib CHECKED=1, in target/checked): slower, and it
 * keeps the struct of each heap that was freed, and the array of its mutators, so that every function that takes a heap
 * or a mutator tells a freed one (the inline ones where they leave their fast path):
 *   besom: <function>: heap is freed
 *   besom: <function>: 0x<address> is no heap
 */

/* ==== Inside the fast paths ==============================================================================
 *
 * From here on nothing is for callers, and everything may change with the version. The library asserts at compile
 * time that its own structures agree with these.
 */

/* A cell hands out slots of one span class: [cursor, limit) is zeroed and free, slot is the size of one.
 *   cursor <= limit; (limit - cursor) % slot == 0; slot > 0, so that cursor + slot > limit when the cell is empty.
 * An empty cell has cursor = limit (NULL, too); a cell that may serve nothing, because its layout is not registered
 * or its mutator is blocked, is empty with slot = 1 << 48. Cell 0 bumps through tiny blocks: there cursor has any
 * alignment, and slot counts the objects. */
struct besom_cell {
    char *cursor;
    char *limit;
    size_t slot;
};

/* What the inline functions see of a mutator; the library's own part follows it. */
struct besom_mutator {
    struct besom_cell *cells;   /* of its P; while it has none, cells that serve nothing */
    uint32_t poll;              /* nonzero: somebody wants this thread at a safepoint. Written by other threads */
    uint32_t barrier;           /* 0: stores just store. 1, objects are marked: those over a 0 do, others call. 2: all
                                 * call. Changes at safepoints only */
    struct besom_frame *frames; /* the innermost frame */
};

/* A frame of roots on the C stack. */
struct besom_frame {
    struct besom_frame *previous; /* NULL in the outermost */
    size_t count;                 /* of slots */
    void **const *slots;          /* the addresses of the locals */
};

BESOM_STATIC_ASSERT(sizeof(struct besom_cell) == 24, "besom.h: layout of besom_cell");
BESOM_STATIC_ASSERT(sizeof(struct besom_mutator) == 24 && offsetof(struct besom_mutator, frames) == 16,
                    "besom.h: layout of besom_mutator");
BESOM_STATIC_ASSERT(sizeof(struct besom_frame) == 24, "besom.h: layout of besom_frame");

/* The slow paths: what the inline functions call when their cell is empty or their flag is up. */
BESOM_COLD void *besom_alloc_slow(besom_mutator *m, size_t bytes, besom_kind kind);
BESOM_COLD void *besom_new_slow(besom_mutator *m, besom_layout layout);
BESOM_COLD void besom_safepoint_slow(besom_mutator *m);
BESOM_COLD void besom_write_slow(besom_mutator *m, void *object, void *slot, void *value);
BESOM_COLD void besom_write_value_slow(besom_mutator *m, void *object, uint64_t *slot, uint64_t value);

/* Cells by number: kind * BESOM_SIZE_CLASSES + size class, then one for each layout with memory of its own, whose
 * besom_layout is its cell's number. */
#define BESOM_OWN_LAYOUT_FIRST 336
#define BESOM_OWN_LAYOUT_END 1360
#define BESOM_SMALL_MAX 32768
#define BESOM_TINY_MAX 15

/* Slot size by size class. Class 0 is the large objects' (and the tiny block's cell); class 2, 24 bytes, serves
 * layouts only. */
static const uint16_t besom_class_bytes[BESOM_SIZE_CLASSES] = {
    0, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352, 384, 416,
    448, 480, 512, 576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536, 1792, 2048, 2304, 2688, 3072, 3200,
    3456, 4096, 4864, 5376, 6144, 6528, 6784, 6912, 8192, 9472, 9728, 10240, 10880, 12288, 13568, 14336,
    16384, 18432, 19072, 20480, 21760, 24576, 27264, 28672, 32768
};
/* Size class by (bytes + 7) / 8, up to 1,024 bytes. */
static const uint8_t besom_class_by_8[129] = {
    1, 1, 1, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15, 16,
    16, 17, 17, 18, 18, 18, 18, 19, 19, 19, 19, 20, 20, 20, 20, 21, 21, 21, 21, 22, 22, 22, 22, 23, 23, 23,
    23, 24, 24, 24, 24, 25, 25, 25, 25, 26, 26, 26, 26, 26, 26, 26, 26, 27, 27, 27, 27, 27, 27, 27, 27, 28,
    28, 28, 28, 28, 28, 28, 28, 29, 29, 29, 29, 29, 29, 29, 29, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30,
    30, 30, 30, 30, 30, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31
};
/* Size class by (bytes - 1024 + 127) / 128, above. */
static const uint8_t besom_class_by_128[249] = {
    31, 32, 33, 34, 35, 36, 36, 37, 37, 38, 38, 39, 39, 39, 40, 40, 40, 41, 42, 42, 43, 43, 43, 43, 43, 44,
    44, 44, 44, 44, 44, 45, 45, 45, 45, 46, 46, 46, 46, 46, 46, 47, 47, 47, 48, 48, 49, 50, 50, 50, 50, 50,
    50, 50, 50, 50, 50, 51, 51, 51, 51, 51, 51, 51, 51, 51, 51, 52, 52, 53, 53, 53, 53, 54, 54, 54, 54, 54,
    55, 55, 55, 55, 55, 55, 55, 55, 55, 55, 55, 56, 56, 56, 56, 56, 56, 56, 56, 56, 56, 57, 57, 57, 57, 57,
    57, 58, 58, 58, 58, 58, 58, 58, 58, 58, 58, 58, 58, 58, 58, 58, 58, 59, 59, 59, 59, 59, 59, 59, 59, 59,
    59, 59, 59, 59, 59, 59, 59, 60, 60, 60, 60, 60, 61, 61, 61, 61, 61, 61, 61, 61, 61, 61, 61, 62, 62, 62,
    62, 62, 62, 62, 62, 62, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
    63, 63, 63, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 65, 65,
    65, 65, 65, 65, 65, 65, 65, 65, 65, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66,
    66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66
};

BESOM_INLINE void *besom_alloc(besom_mutator *m, size_t bytes, besom_kind kind)
{
    struct besom_cell *cell;
    size_t size_class, slot;
    uintptr_t start, end;

    if (BESOM_UNLIKELY(bytes > BESOM_SMALL_MAX || (unsigned)kind > BESOM_TRACED))
        return besom_alloc_slow(m, bytes, kind);
    if (kind == BESOM_NOSCAN && bytes - 1 < BESOM_TINY_MAX) {
        const uintptr_t align = (bytes | 8) & (0 - (bytes | 8)); /* the lowest bit of bytes, at most 8 */
        cell = m->cells;
        start = ((uintptr_t)cell->cursor + align - 1) & (0 - align);
        end = start + bytes;
        if ((bytes & (bytes - 1)) != 0 && (start ^ (end - 1)) > BESOM_TINY_MAX) {
            start = (start + BESOM_TINY_MAX) & ~(uintptr_t)BESOM_TINY_MAX; /* it would lie in two blocks */
            end = start + bytes;
        }
        if (BESOM_UNLIKELY(end > (uintptr_t)cell->limit)) return besom_alloc_slow(m, bytes, kind);
        cell->cursor = (char *)end;
        cell->slot += 1;
        return (void *)start;
    }
    size_class = bytes <= 1024 ? besom_class_by_8[(bytes + 7) / 8] : besom_class_by_128[(bytes - 1024 + 127) / 128];
    cell = &m->cells[(size_t)kind * BESOM_SIZE_CLASSES + size_class];
    slot = BESOM_IS_CONSTANT(bytes) ? besom_class_bytes[size_class] : cell->slot;
    start = (uintptr_t)cell->cursor;
    end = start + slot;
    if (BESOM_UNLIKELY(end > (uintptr_t)cell->limit)) return besom_alloc_slow(m, bytes, kind);
    cell->cursor = (char *)end;
    return (void *)start;
}

BESOM_INLINE void *besom_new(besom_mutator *m, besom_layout layout)
{
    struct besom_cell *cell;
    uintptr_t start, end;

    if (BESOM_UNLIKELY(layout - BESOM_OWN_LAYOUT_FIRST >= BESOM_OWN_LAYOUT_END - BESOM_OWN_LAYOUT_FIRST))
        return besom_new_slow(m, layout);
    cell = &m->cells[layout];
    start = (uintptr_t)cell->cursor;
    end = start + cell->slot;
    if (BESOM_UNLIKELY(end > (uintptr_t)cell->limit)) return besom_new_slow(m, layout);
    cell->cursor = (char *)end;
    return (void *)start;
}

BESOM_INLINE void besom_safepoint(besom_mutator *m)
{
#if defined(__GNUC__)
    const uint32_t poll = __atomic_load_n(&m->poll, __ATOMIC_RELAXED);
#else
    const uint32_t poll = *(const volatile uint32_t *)&m->poll;
#endif
    if (BESOM_UNLIKELY(poll != 0)) besom_safepoint_slow(m);
}

/* One word, stored whole, whatever type the slot was declared with. Who finds it, another thread or the collector,
 * finds what the object it points to was filled with. */
BESOM_INLINE void besom_store_word(void *slot, uint64_t value)
{
#if defined(__GNUC__)
    typedef uint64_t __attribute__((may_alias)) word;
    __atomic_store_n((word *)slot, value, __ATOMIC_RELEASE);
#else
    *(volatile uint64_t *)slot = value;
#endif
}

/* AddressSanitizer does not see what the slow path stores to; it sees this. */
#if defined(__has_feature)
#define BESOM_HAS_FEATURE(x) __has_feature(x)
#else
#define BESOM_HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || BESOM_HAS_FEATURE(address_sanitizer)
#define BESOM_LOOK(slot) ((void)*(const volatile char *)(slot))
#else
#define BESOM_LOOK(slot) ((void)0)
#endif

/* Whether a store must go through the slow path, as it may overwrite the last way to an object. It overwrites nothing
 * where an object is filled for the first time. */
BESOM_INLINE int besom_hands_in(const besom_mutator *m, const void *slot)
{
#if defined(__GNUC__)
    typedef uint64_t __attribute__((may_alias)) word;
    return m->barrier != 1 || __atomic_load_n((const word *)slot, __ATOMIC_RELAXED) != 0;
#else
    (void)m, (void)slot;
    return 1; /* the store would not be in order with what the object was filled with */
#endif
}

BESOM_INLINE void besom_write(besom_mutator *m, void *object, void *slot, void *value)
{
    if (BESOM_UNLIKELY(m->barrier != 0) && besom_hands_in(m, slot)) {
        BESOM_LOOK(slot);
        besom_write_slow(m, object, slot, value);
    } else {
        besom_store_word(slot, (uint64_t)(uintptr_t)value);
    }
}

BESOM_INLINE void besom_write_value(besom_mutator *m, void *object, uint64_t *slot, uint64_t value)
{
    if (BESOM_UNLIKELY(m->barrier != 0) && besom_hands_in(m, slot)) {
        BESOM_LOOK(slot);
        besom_write_value_slow(m, object, slot, value);
    } else {
        besom_store_word(slot, value);
    }
}

BESOM_INLINE void besom_frame_push(besom_mutator *m, struct besom_frame *frame)
{
    frame->previous = m->frames;
    m->frames = frame;
}

BESOM_INLINE void besom_frame_pop(besom_mutator *m)
{
    m->frames = m->frames->previous;
}

BESOM_INLINE struct besom_frame *besom_frames_save(besom_mutator *m)
{
    return m->frames;
}

BESOM_INLINE void besom_frames_restore(besom_mutator *m, struct besom_frame *saved)
{
    m->frames = saved;
}

#if defined(__cplusplus)
} /* extern "C" */

/* An array that an expression can make: C's compound literal. */
template <size_t N> struct besom_offsets {
    uint32_t at[N];
};
#endif

/* The preprocessor's part of BESOM_FRAME and BESOM_LAYOUT: count 1 to 16 arguments, apply F(x, argument) to each. */
#define BESOM_SLOT(unused, address) (void **)(void *)(address)
#define BESOM_OFFSET(type, field) (uint32_t) offsetof(type, field)
#define BESOM_PASTE_(a, b) a##b
#define BESOM_PASTE(a, b) BESOM_PASTE_(a, b)
#define BESOM_COUNT(...) BESOM_COUNT_(__VA_ARGS__, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#define BESOM_COUNT_(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, count, ...) count
#define BESOM_EACH(F, x, ...) BESOM_PASTE(BESOM_EACH_, BESOM_COUNT(__VA_ARGS__))(F, x, __VA_ARGS__)
#define BESOM_EACH_1(F, x, a) F(x, a)
#define BESOM_EACH_2(F, x, a, ...) F(x, a), BESOM_EACH_1(F, x, __VA_ARGS__)
#define BESOM_EACH_3(F, x, a, ...) F(x, a), BESOM_EACH_2(F, x, __VA_ARGS__)
#define BESOM_EACH_4(F, x, a, ...) F(x, a), BESOM_EACH_3(F, x, __VA_ARGS__)
#define BESOM_EACH_5(F, x, a, ...) F(x, a), BESOM_EACH_4(F, x, __VA_ARGS__)
#define BESOM_EACH_6(F, x, a, ...) F(x, a), BESOM_EACH_5(F, x, __VA_ARGS__)
#define BESOM_EACH_7(F, x, a, ...) F(x, a), BESOM_EACH_6(F, x, __VA_ARGS__)
#define BESOM_EACH_8(F, x, a, ...) F(x, a), BESOM_EACH_7(F, x, __VA_ARGS__)
#define BESOM_EACH_9(F, x, a, ...) F(x, a), BESOM_EACH_8(F, x, __VA_ARGS__)
#define BESOM_EACH_10(F, x, a, ...) F(x, a), BESOM_EACH_9(F, x, __VA_ARGS__)
#define BESOM_EACH_11(F, x, a, ...) F(x, a), BESOM_EACH_10(F, x, __VA_ARGS__)
#define BESOM_EACH_12(F, x, a, ...) F(x, a), BESOM_EACH_11(F, x, __VA_ARGS__)
#define BESOM_EACH_13(F, x, a, ...) F(x, a), BESOM_EACH_12(F, x, __VA_ARGS__)
#define BESOM_EACH_14(F, x, a, ...) F(x, a), BESOM_EACH_13(F, x, __VA_ARGS__)
#define BESOM_EACH_15(F, x, a, ...) F(x, a), BESOM_EACH_14(F, x, __VA_ARGS__)
#define BESOM_EACH_16(F, x, a, ...) F(x, a), BESOM_EACH_15(F, x, __VA_ARGS__)

#endif /* BESOM_H */
