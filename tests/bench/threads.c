/* Thread scaling: each thread does the same work, and the rate is that of all together.
 * usage: threads count [scale] */
#include "tree.h"
#include <pthread.h>

static double scale;

/* Trees of depth 10 are dropped while one of depth 14 stays. */
static void *trees(void *unused) {
    peer_thread *m = peer_attach();
    tree *kept = tree_make(m, 14);
    const long n = (long)(4000 * scale) + 1;
    for (long i = 0; i < n; i++) {
        tree *t = tree_make(m, 10);
        CHECK(t->right != NULL);
        tree_drop(t);
    }
    CHECK(tree_count(kept) == TREE_NODES(14));
    tree_drop(kept);
    peer_detach(m);
    return unused;
}
static double trees_objects(void) { return (double)((long)(4000 * scale) + 1) * TREE_NODES(10) + TREE_NODES(14); }

/* 64 bytes at a time; the last 1,024 stay. */
static void *small(void *unused) {
    peer_thread *m = peer_attach();
    const long n = (long)(8e6 * scale) + 1;
    void **ring = peer_alloc(m, 1024 * sizeof *ring, VALUES);
    for (long i = 0; i < n; i++) {
        peer_free(ring[i % 1024]);
        void *p = peer_alloc(m, 64, VALUES);
        peer_write(m, ring, &ring[i % 1024], p);
    }
    for (int i = 0; i < 1024; i++) peer_free(ring[i]);
    peer_free(ring);
    peer_detach(m);
    return unused;
}
static double small_objects(void) { return (double)((long)(8e6 * scale) + 1); }

static void run(const char *name, int count, void *(*work)(void *), double objects) {
    pthread_t thread[64];
    const uint64_t start = now_ns();
    for (int i = 0; i < count; i++) CHECK(pthread_create(&thread[i], NULL, work, NULL) == 0);
    for (int i = 0; i < count; i++) CHECK(pthread_join(thread[i], NULL) == 0);
    REPORT("M objects/s", objects * count * 1e3 / (double)(now_ns() - start), "%s, %d thread%s", name, count,
           count == 1 ? "" : "s");
}

int main(int argc, char **argv) {
    const int count = (int)argument(argc, argv, 1, 2);
    scale = argument(argc, argv, 2, 1);
    CHECK(count >= 1 && count <= 64);
    peer_start();
    run("trees", count, trees, trees_objects());
    run("64 B", count, small, small_objects());
    return 0;
}
