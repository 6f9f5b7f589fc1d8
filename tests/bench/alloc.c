/* The cost of one small allocation, collections included, by size and kind. The last 1,024 objects stay reachable.
 * Sizes are constants of the program, as they are in an interpreter, except in the last row.  usage: alloc [scale] */
#include "peer.h"

#define RING 1024
static void *ring[RING];

/* Runs `one` as often as the size is worth, and gives the ns of each. */
#define TIMED(result, bytes, one)                                                                                      \
    do {                                                                                                               \
        const long n = (long)(scale * ((bytes) <= 128 ? 1e7 : (bytes) <= 1024 ? 3e6 : (bytes) <= 4096 ? 1e6 : 1e5));   \
        const uint64_t start = now_ns();                                                                               \
        for (long i = 0; i < n; i++) {                                                                                 \
            peer_free(ring[i % RING]);                                                                                 \
            void *p = (one);                                                                                           \
            peer_write(m, NULL, &ring[i % RING], p);                                                                   \
        }                                                                                                              \
        (result) = (double)(now_ns() - start) / (double)n;                                                             \
    } while (0)

#define BOTH(bytes)                                                                                                    \
    PEER_NOINLINE void both_##bytes(peer_thread *m, double scale) {                                                    \
        double ns;                                                                                                     \
        TIMED(ns, bytes, peer_alloc(m, bytes, VALUES));                                                                \
        REPORT("ns", ns, "%d B values", bytes);                                                                        \
        TIMED(ns, bytes, peer_alloc(m, bytes, BYTES));                                                                 \
        REPORT("ns", ns, "%d B bytes", bytes);                                                                         \
    }
BOTH(8) BOTH(16) BOTH(24) BOTH(32) BOTH(48) BOTH(64) BOTH(96) BOTH(128) BOTH(256) BOTH(1024) BOTH(4096) BOTH(32768)

/* Besom's other kinds. A peer knows one kind of object with pointers: it is measured once, for all three rows. */
#define OTHERS(bytes)                                                                                                  \
    PEER_NOINLINE void others_##bytes(peer_thread *m, double scale) {                                                  \
        static const uint32_t offsets[] = {0, 8};                                                                      \
        const peer_layout layout = peer_layout_make(bytes, offsets, 2);                                                \
        double conservative, typed, traced;                                                                            \
        TIMED(typed, bytes, peer_new(m, layout));                                                                      \
        conservative = traced = typed;                                                                                 \
        if (BESOMS) {                                                                                                  \
            TIMED(conservative, bytes, peer_alloc(m, bytes, ANY));                                                     \
            TIMED(traced, bytes, peer_alloc(m, bytes, TRACED));                                                        \
        }                                                                                                              \
        REPORT("ns", typed, "%d B layout", bytes);                                                                     \
        REPORT("ns", conservative, "%d B conservative", bytes);                                                        \
        REPORT("ns", traced, "%d B traced", bytes);                                                                    \
    }
#if defined(PEER_BESOM)
#define BESOMS 1
#else
#define BESOMS 0
#endif
OTHERS(16) OTHERS(32) OTHERS(64) OTHERS(128)

/* Small vectors of all lengths: 2 to 32 words, in no order. */
PEER_NOINLINE void mixed(peer_thread *m, double scale) {
    static uint8_t words[4096];
    uint64_t random = 1;
    double ns;
    for (size_t i = 0; i < sizeof words; i++) words[i] = (uint8_t)(2 + random_next(&random) % 31);
    TIMED(ns, 128, peer_alloc(m, (size_t)words[i % (long)sizeof words] * 8, VALUES));
    REPORT("ns", ns, "16 to 256 B values, mixed");
}

int main(int argc, char **argv) {
    const double scale = argument(argc, argv, 1, 1);
    peer_thread *m;
    peer_start();
    m = peer_attach();
    peer_root(ring, RING);
    both_8(m, scale), both_16(m, scale), both_24(m, scale), both_32(m, scale), both_48(m, scale), both_64(m, scale);
    both_96(m, scale), both_128(m, scale), both_256(m, scale), both_1024(m, scale), both_4096(m, scale);
    both_32768(m, scale);
    others_16(m, scale), others_32(m, scale), others_64(m, scale), others_128(m, scale);
    mixed(m, scale);
    return 0;
}
