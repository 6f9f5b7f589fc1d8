#include "besom.h"
#include <stdio.h>

typedef struct tree { struct tree *left, *right; } tree;
static besom_layout trees;

static tree *grow(besom_mutator *m, int depth) {
    tree *left = depth > 0 ? grow(m, depth - 1) : NULL;
    tree *right = depth > 0 ? grow(m, depth - 1) : NULL;
    tree *t = (tree *)besom_new(m, trees); /* may collect: left and right are on the C stack, which is a root */
    if (t == NULL) return NULL;
    besom_write(m, t, &t->left, left);
    besom_write(m, t, &t->right, right);
    return t;
}
static long count(const tree *t) { return t ? 1 + count(t->left) + count(t->right) : 0; }

int main(void) {
    besom_heap *heap;
    besom_mutator *m;
    besom_stats s;
    long nodes = 0;
    if (besom_heap_new(NULL, &heap) != BESOM_OK || besom_attach(heap, &m) != BESOM_OK) return 1;
    if (BESOM_LAYOUT(heap, &trees, tree, left, right) != BESOM_OK) return 1;
    for (int i = 0; i < 100; i++) nodes += count(grow(m, 14));
    besom_stats_read(heap, &s);
    printf("%ld nodes, %d collections, at most %.1f MiB\n", nodes, (int)s.cycles, (double)s.peak_footprint / (1 << 20));
    besom_detach(m);
    return besom_heap_free(heap) == BESOM_OK ? 0 : 1;
}
