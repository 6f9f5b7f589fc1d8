/* The cost of one large object, 64 KiB to 64 MiB, collections included. The program writes a word in each 4 KiB of
 * it, so that memory which the system backs late is paid for too; the last four stay reachable.
 * usage: large [scale] */
#include "peer.h"

#define RING 4
#define TOTAL ((size_t)2 << 30) /* bytes to allocate in each row */
static void *ring[RING];

PEER_INLINE double one(peer_thread *m, size_t bytes, double scale, enum peer_kind kind) {
    long n = (long)(scale * (double)(TOTAL / bytes));
    if (n < 2 * RING) n = 2 * RING;
    const uint64_t start = now_ns();
    for (long i = 0; i < n; i++) {
        peer_free(ring[i % RING]);
        char *p = peer_alloc(m, bytes, kind);
        CHECK(p != NULL && (kind == BYTES || p[bytes - 1] == 0));
        for (size_t at = 0; at < bytes; at += 4096) *(volatile uint64_t *)(p + at) = 1;
        peer_write(m, NULL, &ring[i % RING], p);
    }
    return (double)(now_ns() - start) / 1e3 / (double)n;
}

int main(int argc, char **argv) {
    const double scale = argument(argc, argv, 1, 1);
    peer_thread *m;
    peer_start();
    m = peer_attach();
    peer_root(ring, RING);
    for (size_t kib = 64; kib <= 65536; kib *= 4) {
        char name[32];
        snprintf(name, sizeof name, kib < 1024 ? "%zu KiB" : "%zu MiB", kib < 1024 ? kib : kib / 1024);
        REPORT("us", one(m, kib << 10, scale, VALUES), "%s values", name);
        REPORT("us", one(m, kib << 10, scale, BYTES), "%s bytes", name);
    }
    return 0;
}
