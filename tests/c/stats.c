/* Statistics: exact where they can be, consistent at every moment, readable by any thread. */
#include "check.h"

static void equations(const besom_stats *s)
{
    CHECK(s->total_free_bytes <= s->total_alloc_bytes);
    CHECK(s->free_count <= s->alloc_count);
    CHECK_LE(s->total_alloc_bytes - s->total_free_bytes, s->in_heap);
    CHECK_LE(s->in_heap + s->in_stacks + s->in_work_bufs, s->committed);
    CHECK(s->released >= 0 && s->in_metadata >= 0 && s->in_stacks >= 0 && s->in_work_bufs >= 0);
    CHECK(s->forced_cycles <= s->cycles && s->pause_max_ns <= s->pause_total_ns);
    CHECK_LE(s->committed, s->peak_footprint);
}

static void a_new_heap_counts_nothing(void)
{
    besom_heap *heap;
    besom_stats s;
    memset(&s, 0xee, sizeof s);
    NEED(besom_heap_new(NULL, &heap) == BESOM_OK);
    besom_stats_read(heap, &s); /* from a thread that is not attached */
    equations(&s);
    CHECK(s.alloc_count == 0 && s.free_count == 0 && s.total_alloc_bytes == 0 && s.in_heap == 0);
    CHECK(s.cycles == 0 && s.pause_total_ns == 0 && s.live_bytes == 0 && s.tiny_allocs == 0);
    CHECK_OK(besom_heap_free(heap));
}

static void counts_are_exact_after_a_collection(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    besom_stats s;
    char *large;
    uint64_t **array = (uint64_t **)besom_alloc(m, 1000 * sizeof *array, BESOM_VALUES);
    size_t i;
    BESOM_FRAME(m, &array);
    for (i = 0; i < 1000; i++) besom_write(m, array, &array[i], besom_alloc(m, 48, BESOM_NOSCAN));
    for (i = 0; i < 500; i++) (void)besom_alloc(m, 112, BESOM_VALUES); /* garbage */
    large = (char *)besom_alloc(m, 100000, BESOM_NOSCAN);
    BESOM_FRAME(m, &large);
    CHECK_OK(besom_collect(m));
    besom_stats_read(heap, &s);
    equations(&s);
    CHECK(s.in_metadata > 0);
    CHECK_EQ(s.alloc_count, 1 + 1000 + 500 + 1);
    CHECK_EQ(s.free_count, 500);
    CHECK_EQ(s.total_free_bytes, 500 * 112);
    CHECK_EQ(s.total_alloc_bytes, 8192 + 1000 * 48 + 500 * 112 + 13 * 8192); /* large: in pages */
    CHECK_EQ(s.live_bytes, s.total_alloc_bytes - s.total_free_bytes);
    CHECK_EQ(s.cycles, 1);
    CHECK_EQ(s.forced_cycles, 1);
    CHECK(s.pause_total_ns > 0 && s.pause_max_ns > 0 && s.pause_max_ns <= s.pause_total_ns);
    CHECK(s.next_goal >= (4 << 20) && s.next_goal <= (16 << 20)); /* the least goal, and what is live */
    CHECK_EQ(s.tiny_allocs, 0);
    BESOM_FRAME_END(m);
    BESOM_FRAME_END(m);
    CHECK_OK(besom_collect(m));
    besom_stats_read(heap, &s);
    equations(&s);
    CHECK_EQ(s.alloc_count, s.free_count);
    CHECK_EQ(s.total_alloc_bytes, s.total_free_bytes);
    CHECK_EQ(s.live_bytes, 0);
    CHECK_EQ(s.cycles, 2);
    CHECK_OK(besom_detach(m));
    besom_stats_read(heap, &s);
    equations(&s);
    CHECK_EQ(s.alloc_count, 1502);
    CHECK_OK(besom_heap_free(heap));
}

static void detach_settles_the_counts(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    besom_stats s;
    int i;
    for (i = 0; i < 777; i++) (void)besom_alloc(m, 64, BESOM_VALUES);
    CHECK_OK(besom_detach(m));
    besom_stats_read(heap, &s);
    equations(&s);
    CHECK_EQ(s.alloc_count - s.free_count, 777);
    CHECK_EQ(s.total_alloc_bytes - s.total_free_bytes, 777 * 64);
    CHECK_OK(besom_heap_free(heap));
}

static besom_heap *shared;
static volatile int stop;
static void *churn(void *argument)
{
    besom_mutator *m;
    uint64_t i = 0, *kept = NULL;
    if (besom_attach(shared, &m) != BESOM_OK) abort();
    {
        BESOM_FRAME(m, &kept);
        while (!stop) {
            uint64_t *p = (uint64_t *)besom_alloc(m, 1 + i % 300, BESOM_NOSCAN);
            if (p == NULL) abort();
            if (i % 1000 == 0) kept = (uint64_t *)besom_alloc(m, 40000, BESOM_VALUES);
            i++;
            if (i % 50000 == 0) { /* a P comes and goes */
                besom_block(m);
                besom_unblock(m);
            }
        }
        BESOM_FRAME_END(m);
    }
    if (besom_detach(m) != BESOM_OK) abort();
    *(uint64_t *)argument = i;
    return NULL;
}

/* Read all the time, by a thread that is not attached, while three allocate and collect. */
static void snapshots_are_consistent(void)
{
    pthread_t threads[3];
    uint64_t done[3], end;
    besom_stats now, last;
    besom_mutator *m;
    long reads = 0;
    int i;
    NEED(besom_heap_new(NULL, &shared) == BESOM_OK);
    stop = 0;
    besom_stats_read(shared, &last);
    for (i = 0; i < 3; i++) NEED(pthread_create(&threads[i], NULL, churn, &done[i]) == 0);
    end = check_now_ns() + (check_short() ? 300 : 2000) * (uint64_t)1000000;
    last.cycles = 0;
    now = last;
    while ((check_now_ns() < end || now.cycles < 3 || now.tiny_allocs == 0) && check_failures_here == 0) {
        besom_stats_read(shared, &now);
        equations(&now);
        CHECK(now.free_count >= last.free_count && now.cycles >= last.cycles);
        CHECK(now.total_free_bytes >= last.total_free_bytes && now.pause_total_ns >= last.pause_total_ns);
        CHECK(now.tiny_allocs >= last.tiny_allocs && now.peak_footprint >= last.peak_footprint);
        last = now;
        reads++;
    }
    CHECK(reads > 20);
    stop = 1;
    for (i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    NEED(besom_attach(shared, &m) == BESOM_OK);
    CHECK_OK(besom_collect(m));
    besom_stats_read(shared, &now);
    equations(&now);
    {
        uint64_t expected = 0;
        for (i = 0; i < 3; i++) expected += done[i] + (done[i] + 999) / 1000;
        CHECK_EQ(now.alloc_count, expected);
        CHECK(now.cycles > 2 && now.tiny_allocs > 0);
    }
    CHECK_OK(besom_detach(m));
    CHECK_OK(besom_heap_free(shared));
}

int main(void)
{
    RUN(a_new_heap_counts_nothing);
    RUN(counts_are_exact_after_a_collection);
    RUN(detach_settles_the_counts);
    RUN(snapshots_are_consistent);
    return check_done();
}
