/* Binary trees of two pointers a node: for several of the benchmarks. */
#ifndef TREE_H
#define TREE_H
#include "peer.h"

typedef struct tree {
    struct tree *left, *right;
} tree;

/* A full tree; depth 0 is a leaf. The collector finds `t` on the C stack. */
PEER_NOINLINE tree *tree_make(peer_thread *m, int depth) {
    tree *t = peer_alloc(m, sizeof *t, VALUES), *child;
#if defined(PEER_BUMP)
    t->left = t->right = NULL;
#endif
    if (depth > 0) {
        child = tree_make(m, depth - 1);
        peer_write(m, t, &t->left, child);
        child = tree_make(m, depth - 1);
        peer_write(m, t, &t->right, child);
    }
    return t;
}

PEER_NOINLINE long tree_count(const tree *t) {
    return t->left ? 1 + tree_count(t->left) + tree_count(t->right) : 1;
}

PEER_NOINLINE void tree_drop(tree *t) {
#if PEER_MANUAL && !defined(PEER_BUMP) /* the arena's root was allocated first: it takes the rest along */
    if (t->left) {
        tree_drop(t->left);
        tree_drop(t->right);
    }
#endif
    peer_free(t);
}

#define TREE_NODES(depth) ((2L << (depth)) - 1)
#endif
