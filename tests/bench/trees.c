/* Binary trees: makes and drops trees of many depths while one large tree stays.  usage: trees [depth] */
#include "tree.h"

static tree *long_lived;

/* Each in a frame of its own, so that no stale copy of a root stays on the stack. */
PEER_NOINLINE void stretch(peer_thread *m, int depth) {
    tree *t = tree_make(m, depth);
    CHECK(tree_count(t) == TREE_NODES(depth));
    tree_drop(t);
}
PEER_NOINLINE void short_lived(peer_thread *m, int depth, long trees) {
    long nodes = 0;
    for (long i = 0; i < trees; i++) {
        tree *t = tree_make(m, depth);
        nodes += tree_count(t);
        tree_drop(t);
    }
    CHECK(nodes == trees * TREE_NODES(depth));
}

int main(int argc, char **argv) {
    const int depth = (int)argument(argc, argv, 1, 20), least = 4;
    peer_thread *m;
    peer_start();
    m = peer_attach();
    peer_root(&long_lived, 1);
    const uint64_t start = now_ns();
    stretch(m, depth + 1);
    peer_write(m, NULL, &long_lived, tree_make(m, depth));
    for (int d = least; d <= depth; d += 4) short_lived(m, d, 1L << (depth - d + least));
    CHECK(tree_count(long_lived) == TREE_NODES(depth));
    REPORT("s", (double)(now_ns() - start) / 1e9, "depth %d", depth);
    REPORT("MB", peak_rss_mb(), "depth %d, peak resident", depth);
    return 0;
}
