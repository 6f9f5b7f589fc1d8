/* One allocation interface over Besom and what a VM author would pick instead. The compiler chooses: -DPEER_BESOM,
 * -DPEER_LIBGC (with -DPEER_INCREMENTAL its incremental mode), -DPEER_MIMALLOC, -DPEER_MALLOC (the system's) or -DPEER_BUMP (an arena that its owner resets, the
 * floor under all of them; one thread, no collection).
 *
 *     peer_start()                        once
 *     peer_attach(), peer_detach(t)       each thread that allocates
 *     peer_alloc(t, bytes, kind)          zeroed unless kind is BYTES; the kind is a constant
 *     peer_new(t, layout)                 an object of a layout from peer_layout_make
 *     peer_write(t, object, slot, value)  every store of a pointer; object is NULL for a root
 *     peer_safepoint(t)                   in loops that do not allocate
 *     peer_root(words, count)             a range of roots
 *     peer_free(p)                        nothing where a collector frees; PEER_MANUAL says that the program must
 *     peer_collect(t)                     a full collection; PEER_COLLECTS says whether there is one
 *     peer_collecting(on)                 lets collections start by themselves, or not
 *     peer_stopped_ns()                   how long the world has been stopped since the start, 0 where unknown
 *     peer_marked_ns()                    processor time spent marking since the start, 0 where unknown
 */
#ifndef PEER_H
#define PEER_H
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum peer_kind {
    BYTES,    /* no pointers */
    VALUES,   /* words that are pointers or NULL */
    ANY,      /* words of which any may be a pointer */
    TRACED    /* pointers that a trace function finds */
};

#define PEER_INLINE static inline __attribute__((always_inline, unused))
#define PEER_NOINLINE static __attribute__((noinline, unused))

#if defined(PEER_BESOM)
#include <besom.h>
#define PEER_COLLECTS 1
#define PEER_MANUAL 0
typedef besom_mutator peer_thread;
typedef besom_layout peer_layout;
static besom_heap *peer_heap;
/* Traced objects hold one pointer, in their first word. */
static void peer_trace(besom_tracer *tracer, void *object, void *data) {
    (void)data;
    if (object != NULL) besom_trace(tracer, *(void **)object);
}
PEER_INLINE void peer_start(void) {
    besom_options options;
    besom_options_init(&options);
    options.trace = peer_trace;
    if (besom_heap_new(&options, &peer_heap) != BESOM_OK) abort();
}
PEER_INLINE peer_thread *peer_attach(void) {
    peer_thread *t;
    if (besom_attach(peer_heap, &t) != BESOM_OK) abort();
    return t;
}
PEER_INLINE void peer_detach(peer_thread *t) {
    if (besom_detach(t) != BESOM_OK) abort();
}
PEER_INLINE void *peer_alloc(peer_thread *t, size_t bytes, enum peer_kind kind) {
    return besom_alloc(t, bytes, kind == BYTES ? BESOM_NOSCAN : kind == VALUES ? BESOM_VALUES
                                 : kind == ANY ? BESOM_CONSERVATIVE : BESOM_TRACED);
}
PEER_INLINE peer_layout peer_layout_make(size_t bytes, const uint32_t *offsets, size_t n) {
    besom_layout layout;
    if (besom_layout_register(peer_heap, bytes, offsets, n, &layout) != BESOM_OK) abort();
    return layout;
}
PEER_INLINE void *peer_new(peer_thread *t, peer_layout layout) { return besom_new(t, layout); }
PEER_INLINE void peer_free(void *p) { (void)p; }
#define peer_write(t, object, slot, value) besom_write((t), (object), (slot), (value))
#define peer_safepoint(t) besom_safepoint(t)
PEER_INLINE void peer_root(void *words, size_t count) {
    if (besom_roots_add(peer_heap, words, count, BESOM_VALUES) != BESOM_OK) abort();
}
PEER_INLINE void peer_collect(peer_thread *t) {
    if (besom_collect(t) != BESOM_OK) abort();
}
PEER_INLINE void peer_collecting(int on) { besom_gc_percent_set(peer_heap, on ? 100 : 0); }
PEER_INLINE uint64_t peer_stopped_ns(void) {
    besom_stats stats;
    besom_stats_read(peer_heap, &stats);
    return stats.pause_total_ns;
}
PEER_INLINE uint64_t peer_marked_ns(void) {
    besom_metric_value marked = {0};
    if (besom_metric_read(peer_heap, "besom/cpu/gc/mark:nanoseconds", &marked) != BESOM_OK) abort();
    return marked.number;
}

#else /* the others need no thread, no roots, and know a layout by its size */
#if defined(PEER_LIBGC)
#define GC_THREADS
#include <gc.h>
#endif
typedef void peer_thread;
typedef size_t peer_layout;
#define peer_write(t, object, slot, value) ((void)(t), (void)(object), peer_store((slot), (value)))
#define peer_safepoint(t) ((void)(t))
typedef void *__attribute__((may_alias)) peer_word;
/* The compiler must assume that the memory is read: a store that only a collector reads stays. */
PEER_INLINE void peer_store(void *slot, void *value) {
#if defined(PEER_INCREMENTAL)
    GC_PTR_STORE_AND_DIRTY(slot, value);
#else
    *(peer_word *)slot = value;
#endif
    __asm__ volatile("" ::: "memory");
}
PEER_INLINE peer_thread *peer_attach(void) { return NULL; }
PEER_INLINE void peer_detach(peer_thread *t) { (void)t; }
/* Found without being named; but the compiler must not drop a variable that the program itself never reads. */
PEER_INLINE void peer_root(void *words, size_t count) {
    (void)count;
    __asm__ volatile("" : : "r"(words) : "memory");
}
PEER_INLINE peer_layout peer_layout_make(size_t bytes, const uint32_t *offsets, size_t n) {
    (void)offsets, (void)n;
    return bytes;
}
PEER_INLINE void *peer_alloc(peer_thread *t, size_t bytes, enum peer_kind kind);
PEER_INLINE void *peer_new(peer_thread *t, peer_layout layout) { return peer_alloc(t, layout, VALUES); }
PEER_INLINE uint64_t peer_stopped_ns(void) { return 0; }
PEER_INLINE uint64_t peer_marked_ns(void) { return 0; }

#if defined(PEER_LIBGC)
#define PEER_COLLECTS 1
#define PEER_MANUAL 0
PEER_INLINE void peer_start(void) {
    GC_INIT();
#if defined(PEER_INCREMENTAL)
    /* Told which pages were written to. Else it protects them one by one, until the system has no more mappings. */
    GC_set_manual_vdb_allowed(1);
    GC_enable_incremental();
    if (!GC_is_incremental_mode()) abort();
#endif
    GC_set_warn_proc(GC_ignore_warn_proc); /* it has advice about very large objects */
}
PEER_INLINE void *peer_alloc(peer_thread *t, size_t bytes, enum peer_kind kind) {
    (void)t;
    return kind == BYTES ? GC_MALLOC_ATOMIC(bytes) : GC_MALLOC(bytes);
}
PEER_INLINE void peer_free(void *p) { (void)p; }
PEER_INLINE void peer_collect(peer_thread *t) {
    (void)t;
    GC_gcollect();
}
PEER_INLINE void peer_collecting(int on) {
    if (on) GC_enable();
    else GC_disable();
}

#else
#define PEER_COLLECTS 0
#define PEER_MANUAL 1
PEER_INLINE void peer_collect(peer_thread *t) { (void)t; }
PEER_INLINE void peer_collecting(int on) { (void)on; }
#if defined(PEER_MIMALLOC)
#include <mimalloc.h>
PEER_INLINE void peer_start(void) {}
PEER_INLINE void *peer_alloc(peer_thread *t, size_t bytes, enum peer_kind kind) {
    (void)t;
    return kind == BYTES ? mi_malloc(bytes) : mi_zalloc(bytes);
}
PEER_INLINE void peer_free(void *p) { mi_free(p); }
#elif defined(PEER_MALLOC)
PEER_INLINE void peer_start(void) {}
PEER_INLINE void *peer_alloc(peer_thread *t, size_t bytes, enum peer_kind kind) {
    (void)t;
    return kind == BYTES ? malloc(bytes) : calloc(1, bytes);
}
PEER_INLINE void peer_free(void *p) { free(p); }
#elif defined(PEER_BUMP)
#include <sys/mman.h>
static char *peer_cursor;
PEER_INLINE void peer_start(void) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    peer_cursor = mmap(NULL, (size_t)16 << 30, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (peer_cursor == MAP_FAILED) abort();
}
/* Only as zeroed as the program makes it after a reset. */
PEER_INLINE void *peer_alloc(peer_thread *t, size_t bytes, enum peer_kind kind) {
    void *p = peer_cursor;
    (void)t, (void)kind;
    peer_cursor += (bytes + 15) & ~(size_t)15;
    return p;
}
PEER_INLINE void peer_free(void *p) { peer_cursor = p; } /* and all that was allocated after it */
#else
#error "name a peer: -DPEER_BESOM, -DPEER_LIBGC, -DPEER_MIMALLOC, -DPEER_MALLOC or -DPEER_BUMP"
#endif
#endif
#endif

PEER_INLINE uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

PEER_INLINE double peak_rss_mb(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss * 1024 / 1e6;
}

/* One measurement, as the runner reads it. The unit says which way is better: a time, a size or a count of
 * instructions is better when lower, a rate (it has a slash) when higher. */
#define REPORT(unit, value, ...) (printf(__VA_ARGS__), printf("|%s|%.6g\n", (unit), (double)(value)))

/* A workload that did not do what it claims has no speed. */
#define CHECK(condition)                                                                                               \
    ((condition) ? (void)0 : (fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition), exit(1)))

/* splitmix64: the same shapes everywhere, in C and in Go. */
PEER_INLINE uint64_t random_next(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
PEER_INLINE double argument(int argc, char **argv, int at, double otherwise) {
    return argc > at ? atof(argv[at]) : otherwise;
}
#endif
