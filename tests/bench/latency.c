/* Latency, from the program's side: how long one operation takes beside a large live structure.
 * usage: latency live-MiB threads plain|deep|array|weak [scale]
 *
 * The structure: each thread has a table of full binary trees, 15 nodes of 64 bytes each (two pointers, a number, its
 * complement). Live bytes are those of all nodes; the tables are 0.8 % more.
 *
 * One operation, on the thread's own table, with every pointer stored through peer_write:
 *   1. a new tree of 15 nodes is made, from the root down;
 *   2. of another tree, anywhere, three nodes change places with three of the new one: old ones hang under a new parent,
 *      new ones under an old parent, the bytes that live stay the same;
 *   3. the new tree takes the place of a third one, anywhere, which is dropped.
 * The kinds besides `plain`:
 *   deep    operations run below 1 MiB of native stack, 2,048 frames of 64 pointers each, to a node each that nothing else holds
 *   array   an array of 32 Mi pointers (256 MiB) to nodes that stay; each operation stores one of them anew, anywhere
 *   weak    a million weak references, to nodes in an array of as many. Each operation reads one, anywhere; if it holds what
 *           the array does, the array gets a new node and the collector will clear it; else it is made anew
 *
 * An operation's time is from the end of the one before to its own, CLOCK_MONOTONIC read once for each: whatever
 * keeps the program, in it or between two, is in one of them. Its histogram has 32 buckets for each power of two, so a
 * percentile is at most 1/32 too long; the longest is exact. Building is not measured, and is in the whole run's time. */
#include "peer.h"
#include "stops.h"
#include "weak.h"
#include <pthread.h>

typedef struct node {
    struct node *left, *right;
    uint64_t number, complement, payload[4];
} node;
enum { DEPTH = 3, NODES = 15, FRAMES = 2048, HELD = 64, THREADS = 16, STAYING = 1024 };
enum what { PLAIN, DEEP, ARRAY, WEAK };

typedef struct {
    uint64_t count[60 * 32], longest, n;
} histogram;

typedef struct {
    uint64_t random, made, began, ended;
    weak_slot *weak;
    unsigned char *stale; /* of each weak reference: its object was dropped */
    peer_thread *m;
    histogram times;
} worker;

/* Roots, a range for all threads: a thread's own lie side by side. */
static struct {
    node **table;  /* trees of them */
    node **array;  /* pointers of them, each to one of the nodes that stay */
    node **staying;
    node **target; /* weaks of them, each with its weak reference */
} roots[THREADS];
static worker workers[THREADS];
static size_t trees, operations, pointers, weaks;
static int threads;
static enum what what;

static void histogram_add(histogram *h, uint64_t ns) {
    const int e = ns < 32 ? 4 : 63 - __builtin_clzll(ns);
    h->count[ns < 32 ? ns : (size_t)(e - 4) * 32 + ((ns >> (e - 5)) & 31)]++;
    h->n++;
    if (ns > h->longest) h->longest = ns;
}
/* The upper end of the bucket in which the value of that rank is. */
static double histogram_at(const histogram *h, double share) {
    const uint64_t rank = (uint64_t)(share * (double)h->n);
    uint64_t seen = 0;
    for (size_t i = 0; i < 60 * 32; i++) {
        seen += h->count[i];
        if (seen > rank) {
            const uint64_t high = i < 32 ? i : ((32 + i % 32 + 1) << (i / 32 - 1)) - 1;
            return (double)(high < h->longest ? high : h->longest);
        }
    }
    return (double)h->longest;
}

PEER_NOINLINE node *make(worker *w, int depth) {
    node *n = peer_alloc(w->m, sizeof *n, VALUES);
    CHECK(n != NULL);
    n->number = ++w->made, n->complement = ~n->number;
    if (depth > 0) {
        node *child = make(w, depth - 1);
        peer_write(w->m, n, &n->left, child);
        child = make(w, depth - 1);
        peer_write(w->m, n, &n->right, child);
    } else {
        n->left = n->right = NULL;
    }
    return n;
}
PEER_NOINLINE void drop(node *n) {
    if (n->left) drop(n->left), drop(n->right);
    peer_free(n);
}
/* Whole nodes. */
PEER_NOINLINE size_t count(const node *n) {
    CHECK(n->complement == ~n->number);
    return n->left ? 1 + count(n->left) + count(n->right) : 1;
}

PEER_INLINE void operate(worker *w, int at) {
    node **table = roots[at].table;
    const size_t i = random_next(&w->random) % trees, j = random_next(&w->random) % trees;
    node *fresh = make(w, DEPTH), *other = table[j], *mine = fresh->left->left, *theirs = other->left->left;
    peer_write(w->m, fresh->left, &fresh->left->left, theirs);
    peer_write(w->m, other->left, &other->left->left, mine);
    if (PEER_MANUAL) drop(table[i]);
    peer_write(w->m, table, &table[i], fresh);
    if (what == ARRAY) {
        const size_t to = random_next(&w->random) % pointers, from = random_next(&w->random) % STAYING;
        peer_write(w->m, roots[at].array, &roots[at].array[to], roots[at].staying[from]);
    }
    if (what == WEAK) {
        const size_t k = random_next(&w->random) % weaks;
        node **target = roots[at].target, *found = weak_get(w->m, &w->weak[k]);
        CHECK(w->stale[k] ? found != target[k] : found == target[k]);
        if (w->stale[k]) {
            weak_drop(w->m, &w->weak[k]);
            weak_make(w->m, &w->weak[k], target[k]);
        } else {
            peer_write(w->m, target, &target[k], make(w, 0));
        }
        w->stale[k] ^= 1;
    }
}
PEER_NOINLINE void loop(worker *w, int at) {
    uint64_t then = w->began = now_ns();
    for (size_t i = 0; i < operations; i++) {
        operate(w, at);
        const uint64_t now = now_ns();
        histogram_add(&w->times, now - then);
        then = now;
    }
    w->ended = then;
}
PEER_NOINLINE void deep(worker *w, int at, int frames) {
    node *held[HELD];
    uint64_t first = w->made + 1;
    for (int k = 0; k < HELD; k++) held[k] = make(w, 0);
    __asm__ volatile("" : : "r"(held) : "memory"); /* they are in the frame */
    if (frames > 1) deep(w, at, frames - 1);
    else loop(w, at);
    for (int k = 0; k < HELD; k++) {
        CHECK(held[k]->number == first + (uint64_t)k && count(held[k]) == 1);
        peer_free(held[k]);
    }
}

static node **array_make(worker *w, node ***root, size_t n) {
    node **array = peer_alloc(w->m, n * sizeof *array, VALUES);
    CHECK(array != NULL);
    peer_write(w->m, NULL, root, array);
    return array;
}
PEER_NOINLINE void build(worker *w, int at) {
    node **table = array_make(w, &roots[at].table, trees);
    for (size_t i = 0; i < trees; i++) peer_write(w->m, table, &table[i], make(w, DEPTH));
    if (what == ARRAY) {
        node **staying = array_make(w, &roots[at].staying, STAYING);
        for (size_t i = 0; i < STAYING; i++) peer_write(w->m, staying, &staying[i], make(w, 0));
        node **array = array_make(w, &roots[at].array, pointers);
        for (size_t i = 0; i < pointers; i++) {
            peer_write(w->m, array, &array[i], staying[i % STAYING]);
            peer_safepoint(w->m);
        }
    }
    if (what == WEAK) {
        node **target = array_make(w, &roots[at].target, weaks);
        w->weak = calloc(weaks, sizeof *w->weak), w->stale = calloc(weaks, 1);
        CHECK(w->weak != NULL && w->stale != NULL);
        for (size_t i = 0; i < weaks; i++) {
            peer_write(w->m, target, &target[i], make(w, 0));
            weak_make(w->m, &w->weak[i], target[i]);
        }
    }
}
static void *build_thread(void *argument) {
    worker *w = argument;
    w->m = peer_attach();
    build(w, (int)(w - workers));
    peer_detach(w->m);
    return NULL;
}
static void *loop_thread(void *argument) {
    worker *w = argument;
    w->m = peer_attach();
    if (what == DEEP) deep(w, (int)(w - workers), FRAMES);
    else loop(w, (int)(w - workers));
    peer_detach(w->m);
    return NULL;
}
static void run(void *(*work)(void *)) {
    pthread_t thread[THREADS];
    for (int i = 0; i < threads; i++) CHECK(pthread_create(&thread[i], NULL, work, &workers[i]) == 0);
    for (int i = 0; i < threads; i++) CHECK(pthread_join(thread[i], NULL) == 0);
}
static double cpu_ms(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e3;
}

int main(int argc, char **argv) {
    static const char *const kinds[] = {"plain", "deep", "array", "weak"};
    static const char *const titles[] = {"", ", 1 MiB of stack", ", 256 MiB array", ", 1 M weak references"};
    const double live = argument(argc, argv, 1, 64), scale = argument(argc, argv, 4, 1);
    char name[96];
    histogram all = {0};
    threads = (int)argument(argc, argv, 2, 1);
    while (what < WEAK && (argc <= 3 || strcmp(argv[3], kinds[what]) != 0)) what++;
    CHECK(threads >= 1 && threads <= THREADS && argc > 3 && strcmp(argv[3], kinds[what]) == 0);
    if (what == WEAK && !WEAK_KNOWN) return 77; /* the runner leaves the cell empty */
    const double bytes = live * scale * 1048576, tree = NODES * sizeof(node);
    trees = (size_t)(bytes / tree / threads) + 16;
    pointers = (size_t)(scale * (32 << 20) / threads) + 16;
    weaks = (size_t)(1e6 * scale / threads) + 16;
    /* Enough for six cycles of a collector that lets the heap double, and for a p99.99. */
    const double beside = what == ARRAY ? scale * (256 << 20) : what == WEAK ? scale * 72e6 : 0;
    const double cycles = 6 * (bytes + beside) / tree, least = 2e6 * scale;
    operations = (size_t)((cycles > least ? cycles : least) / threads) + 1;
    snprintf(name, sizeof name, "%s MiB, %d thread%s%s", argv[1], threads, threads == 1 ? "" : "s", titles[what]);

    peer_start();
    peer_root(roots, sizeof roots / (sizeof(void *)));
    for (int i = 0; i < threads; i++) workers[i].random = (uint64_t)i + 1;
    const uint64_t start = now_ns();
    run(build_thread);
    const double cpu = cpu_ms();
    stops_start();
    run(loop_thread);
    stops_end();
    const double run_s = (double)(now_ns() - start) / 1e9, cpu_loop = cpu_ms() - cpu;

    uint64_t began = UINT64_MAX, ended = 0;
    for (int t = 0; t < threads; t++) {
        const worker *w = &workers[t];
        for (size_t i = 0; i < 60 * 32; i++) all.count[i] += w->times.count[i];
        all.n += w->times.n;
        all.longest = w->times.longest > all.longest ? w->times.longest : all.longest;
        began = w->began < began ? w->began : began;
        ended = w->ended > ended ? w->ended : ended;
        for (size_t i = 0; i < trees; i++) CHECK(count(roots[t].table[i]) == NODES); /* all are alive and whole */
        for (size_t i = 0; what == ARRAY && i < pointers; i++) CHECK(count(roots[t].array[i]) == 1);
        for (size_t i = 0; what == WEAK && i < weaks; i++) CHECK(count(roots[t].target[i]) == 1);
    }
    CHECK(all.n == operations * (size_t)threads);
    static const struct {
        const char *name;
        double share;
    } shares[] = {{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}};
    printf("%s:", name);
    for (int i = 0; i < 4; i++) printf(" %s %.2f us,", shares[i].name, histogram_at(&all, shares[i].share) / 1e3);
    printf(" longest %.1f us; %zu operations in %.3f s, whole run %.3f s\n", (double)all.longest / 1e3, (size_t)all.n,
           (double)(ended - began) / 1e9, run_s);
    for (int i = 0; i < 4; i++) REPORT("us", histogram_at(&all, shares[i].share) / 1e3, "%s: %s", name, shares[i].name);
    REPORT("us", (double)all.longest / 1e3, "%s: longest operation", name);
    if (STOPS_KNOWN) stops_report(name);
    REPORT("s", run_s, "%s: whole run", name);
    REPORT("ms", cpu_loop, "%s: CPU of the operations", name);
    REPORT("MB", peak_rss_mb(), "%s: peak resident", name);
    return 0;
}
