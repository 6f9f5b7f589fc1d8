/* Marking rate: how long a full collection takes in which everything is alive; and where the collector says what processor
 * time went into marking, the rate by that, 'per CPU', whoever marks and whatever else runs.
 * usage: mark shape workers [scale]; workers is for the name only, the environment sets them */
#include "tree.h"

static void *root;
static long objects;
static double bytes;

/* A full binary tree of 16-byte nodes: depth-first order is memory order. */
PEER_NOINLINE void make_trees(peer_thread *m, double scale) {
    int depth = 21;
    while (depth > 4 && scale < 1) depth--, scale *= 2;
    peer_write(m, NULL, &root, tree_make(m, depth));
    objects = TREE_NODES(depth);
    bytes = (double)objects * sizeof(tree);
}
PEER_NOINLINE long count_trees(void) { return tree_count(root); }

/* A graph of 48-byte nodes with four edges: one is on a random cycle through all nodes, three lead anywhere. Every
 * edge is a cache miss. */
typedef struct node {
    struct node *edge[4];
    uint64_t payload[2];
} node;
PEER_NOINLINE void make_graph(peer_thread *m, double scale) {
    static const uint32_t offsets[] = {0, 8, 16, 24};
    const peer_layout layout = peer_layout_make(sizeof(node), offsets, 4);
    const size_t n = (size_t)(2e6 * scale) + 16;
    uint64_t random = 1;
    node **nodes = malloc(n * sizeof *nodes);
    CHECK(nodes != NULL);
    for (size_t i = 0; i < n; i++) nodes[i] = peer_new(m, layout);
    for (size_t i = n - 1; i > 0; i--) { /* a random order */
        const size_t j = random_next(&random) % (i + 1);
        node *other = nodes[j];
        nodes[j] = nodes[i], nodes[i] = other;
    }
    for (size_t i = 0; i < n; i++) {
        peer_write(m, nodes[i], &nodes[i]->edge[0], nodes[(i + 1) % n]);
        for (int k = 1; k < 4; k++) peer_write(m, nodes[i], &nodes[i]->edge[k], nodes[random_next(&random) % n]);
    }
    peer_write(m, NULL, &root, nodes[0]);
    free(nodes);
    objects = (long)n;
    bytes = (double)n * sizeof(node);
}
PEER_NOINLINE long count_graph(void) {
    const node *at = root;
    long n = 0;
    do at = at->edge[0], n++;
    while (at != root);
    return n;
}

/* A hash table: an array of buckets, chains of 32-byte entries, a pointer-free key of 16 bytes for each. */
typedef struct entry {
    struct entry *next;
    uint64_t *key;
    uint64_t hash, value;
} entry;
PEER_NOINLINE void make_table(peer_thread *m, double scale) {
    const size_t n = (size_t)(2e6 * scale) + 16;
    uint64_t random = 1;
    entry **buckets = peer_alloc(m, n * sizeof *buckets, VALUES);
    CHECK(buckets != NULL);
    peer_write(m, NULL, &root, buckets);
    for (size_t i = 0; i < n; i++) {
        entry *e = peer_alloc(m, sizeof *e, VALUES);
        uint64_t *key = peer_alloc(m, 16, BYTES);
        key[0] = i, key[1] = 0;
        e->hash = random_next(&random), e->value = i;
        entry **bucket = &buckets[e->hash % n];
        peer_write(m, e, &e->key, key);
        peer_write(m, e, &e->next, *bucket);
        peer_write(m, buckets, bucket, e);
    }
    objects = (long)(2 * n + 1);
    bytes = (double)n * (sizeof(entry *) + sizeof(entry) + 16);
}
PEER_NOINLINE long count_table(void) {
    entry **buckets = root;
    const long n = (objects - 1) / 2;
    long found = 0;
    for (long i = 0; i < n; i++)
        for (const entry *e = buckets[i]; e != NULL; e = e->next) found += e->key[0] == e->value;
    return 2 * found + 1;
}

/* One array of pointers, each to a pointer-free object of 16 bytes. */
PEER_NOINLINE void make_array(peer_thread *m, double scale) {
    const size_t n = (size_t)(4e6 * scale) + 16;
    void **array = peer_alloc(m, n * sizeof *array, VALUES);
    CHECK(array != NULL);
    peer_write(m, NULL, &root, array);
    for (size_t i = 0; i < n; i++) {
        uint64_t *p = peer_alloc(m, 16, BYTES);
        p[0] = p[1] = i;
        peer_write(m, array, &array[i], p);
    }
    objects = (long)(n + 1);
    bytes = (double)n * (sizeof(void *) + 16);
}
PEER_NOINLINE long count_array(void) {
    void **array = root;
    long found = 0;
    for (long i = 0; i < objects - 1; i++) found += *(uint64_t *)array[i] == (uint64_t)i;
    return found + 1;
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*make)(peer_thread *, double);
        long (*count)(void);
    } shapes[] = {{"trees", make_trees, count_trees},
                  {"graph", make_graph, count_graph},
                  {"table", make_table, count_table},
                  {"array", make_array, count_array}};
    enum { ROUNDS = 7 };
    double took[ROUNDS], stopped[ROUNDS];
    peer_thread *m;
    size_t shape = 0;
    CHECK(PEER_COLLECTS && argc > 2);
    while (shape < 4 && strcmp(argv[1], shapes[shape].name) != 0) shape++;
    CHECK(shape < 4);
    peer_start();
    m = peer_attach();
    peer_root(&root, 1);
    peer_collecting(0);
    shapes[shape].make(m, argument(argc, argv, 3, 1));
    peer_collecting(1);
    peer_collect(m);
    const uint64_t marked = peer_marked_ns();
    for (int i = 0; i < ROUNDS; i++) {
        const uint64_t start = now_ns(), before = peer_stopped_ns();
        peer_collect(m);
        stopped[i] = (double)(peer_stopped_ns() - before);
        took[i] = (double)(now_ns() - start);
    }
    const double marking = (double)(peer_marked_ns() - marked) / ROUNDS;
    CHECK(shapes[shape].count() == objects); /* all are alive and whole */
    qsort(took, ROUNDS, sizeof *took, ascending);
    qsort(stopped, ROUNDS, sizeof *stopped, ascending);
    const double ns = took[ROUNDS / 2], pause = stopped[ROUNDS / 2];
    char name[64];
    snprintf(name, sizeof name, "%s, %s worker%s", argv[1], argv[2], strcmp(argv[2], "1") == 0 ? "" : "s");
    REPORT("M objects/s", (double)objects * 1e3 / ns, "%s", name);
    REPORT("GB/s", bytes / ns, "%s", name);
    if (marking > 0) REPORT("M objects/s", (double)objects * 1e3 / marking, "%s, per CPU", name);
    if (pause > ns / 2) REPORT("M objects/s", (double)objects * 1e3 / pause, "%s, stop only", name); /* not beside the program */
    return 0;
}
