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
    CHECK_LE(s->committed - s->in_work_bufs, s->peak_footprint);
    CHECK_EQ(s->committed + s->released, s->mapped);
    CHECK(s->large_free <= s->large_alloc && s->large_free_count <= s->large_alloc_count);
    {
        uint64_t allocs = s->large_alloc_count + s->tiny_allocs, frees = s->large_free_count + s->tiny_allocs;
        int c;
        for (c = 0; c < BESOM_SIZE_CLASSES; c++) {
            CHECK(s->small_free_count[c] <= s->small_alloc_count[c]);
            allocs += s->small_alloc_count[c], frees += s->small_free_count[c];
        }
        CHECK_EQ(s->alloc_count, allocs);
        CHECK_EQ(s->free_count, frees);
    }
}

/* No counter is smaller than it was. */
static void grew(const besom_stats *a, const besom_stats *b)
{
    int c;
    CHECK(a->total_alloc_bytes <= b->total_alloc_bytes && a->total_free_bytes <= b->total_free_bytes);
    CHECK(a->alloc_count <= b->alloc_count && a->free_count <= b->free_count && a->tiny_allocs <= b->tiny_allocs);
    CHECK(a->cycles <= b->cycles && a->forced_cycles <= b->forced_cycles);
    CHECK(a->pause_total_ns <= b->pause_total_ns && a->pause_max_ns <= b->pause_max_ns);
    CHECK(a->peak_footprint <= b->peak_footprint && a->large_alloc <= b->large_alloc && a->large_free <= b->large_free);
    CHECK(a->large_alloc_count <= b->large_alloc_count && a->large_free_count <= b->large_free_count);
    for (c = 0; c < BESOM_SIZE_CLASSES; c++)
        CHECK(a->small_alloc_count[c] <= b->small_alloc_count[c] && a->small_free_count[c] <= b->small_free_count[c]);
}

/* What besom.h says of every record of besom_mem_stats. */
static void identities(const besom_mem_stats *s)
{
    uint64_t mallocs = s->tiny_allocs, frees = s->tiny_allocs;
    int c;
    CHECK_EQ(s->alloc, s->heap_alloc);
    CHECK_EQ(s->heap_objects, s->mallocs - s->frees);
    CHECK_EQ(s->heap_sys, s->heap_inuse + s->heap_idle);
    CHECK_LE(s->heap_alloc, s->heap_inuse);
    CHECK_LE(s->heap_released, s->heap_idle);
    CHECK_EQ(s->sys, s->heap_sys + s->stacks_inuse + s->work_bufs + s->spans_sys + s->page_tables_sys + s->mark_bits_sys +
                         s->mcaches_sys + s->gc_sys + s->other_sys);
    for (c = 0; c < BESOM_SIZE_CLASSES; c++) {
        mallocs += s->by_size[c].mallocs, frees += s->by_size[c].frees;
        CHECK_EQ(s->by_size[c].size, besom_class_bytes[c]);
    }
    CHECK_EQ(s->mallocs, mallocs);
    CHECK_EQ(s->frees, frees);
    CHECK(s->gc_cpu_fraction >= 0 && s->gc_cpu_fraction <= 1);
}

/* Counts twice; the records must be equal, byte for byte. */
static besom_mem_stats twins(besom_mutator *m)
{
    besom_mem_stats counted, walked;
    memset(&counted, 0xee, sizeof counted);
    memset(&walked, 0xdd, sizeof walked);
    besom_mem_stats_read_slow(m, &counted, &walked);
    CHECK(memcmp(&counted, &walked, sizeof counted) == 0);
    identities(&counted);
    return counted;
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
    CHECK(s.large_alloc == 0 && s.large_alloc_count == 0 && s.mapped == 0);
    CHECK_OK(besom_heap_free(heap));
}

static size_t class_of(size_t bytes)
{
    size_t c;
    for (c = 1; besom_class_bytes[c] < bytes; c++) {}
    return c;
}

static void exact_statistics_tell_a_known_history(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    besom_mem_stats s, first;
    void *kept = besom_alloc(m, 100, BESOM_VALUES), *large = besom_alloc(m, 50000, BESOM_NOSCAN);
    const int sharing = check_watched() ? 0 : 1000;
    int i;
    BESOM_FRAME(m, &kept, &large);
    s = twins(m);
    CHECK(s.mallocs == 2 && s.frees == 0 && s.num_gc == 0 && s.last_gc_unix_ns == 0 && s.gc_cpu_ns == 0);
    CHECK_EQ(s.heap_alloc, 112 + 57344);
    CHECK_EQ(s.next_goal, 4 << 20);
    for (i = 0; i < 1000; i++) (void)besom_alloc(m, 12, BESOM_NOSCAN), (void)besom_alloc(m, 4, BESOM_NOSCAN);
    for (i = 0; i < 500; i++) (void)besom_alloc(m, 48, BESOM_VALUES);
    besom_mem_stats_read(m, &s);
    identities(&s);
    CHECK_EQ(s.mallocs, 2 + 2000 + 500);
    CHECK_EQ(s.tiny_allocs, sharing); /* the second of each block */
    CHECK_EQ(s.frees, sharing);
    CHECK_EQ(s.heap_alloc, 112 + 57344 + (2000 - sharing) * 16 + 500 * 48); /* tiny objects by their blocks only */
    first = s;
    CHECK_OK(besom_collect(m));
    s = twins(m);
    CHECK_EQ(s.heap_alloc, 112 + 57344);
    CHECK_EQ(s.total_alloc, first.total_alloc);
    CHECK_EQ(s.mallocs, first.mallocs);
    CHECK_EQ(s.heap_objects, 2);
    CHECK_EQ(s.by_size[class_of(48)].mallocs, 500);
    CHECK_EQ(s.by_size[class_of(48)].frees, 500);
    CHECK_EQ(s.by_size[class_of(112)].mallocs, 1);
    CHECK_EQ(s.by_size[0].mallocs, 1);
    CHECK(s.num_gc == 1 && s.num_forced_gc == 1);
    CHECK(s.pause_ns[0] > 0 && s.pause_ns[0] == s.pause_total_ns && s.pause_ns[1] == 0);
    CHECK(s.pause_end_unix_ns[0] == s.last_gc_unix_ns && s.gc_cpu_ns > 0);
    CHECK(s.last_gc_unix_ns / 1000000000 - (uint64_t)time(NULL) + 60 < 120); /* now, by the wall clock */
    CHECK(s.stacks_inuse == 0 && s.mcaches_sys > 0 && s.spans_sys > 0 && s.mark_bits_sys > 0 && s.page_tables_sys > 0);
    CHECK(s.gc_sys > 0 && s.other_sys > 0);
    besom_gc_percent_set(heap, 0);
    CHECK(twins(m).next_goal == UINT64_MAX);
    BESOM_FRAME_END(m);
    check_heap_end(heap, m);
}

/* What a thread that is not attached may do at any time, and what is left of threads that came and went. */
static void the_twins_agree_after_anything(void)
{
    besom_mutator *m;
    besom_options o;
    besom_heap *heap;
    besom_layout layout;
    besom_handle *handles[100];
    static void *range[4];
    uint32_t offset = 8;
    int i;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.procs = 2;
    o.heap_limit = (size_t)64 << 20;
    heap = check_heap(&o, &m);
    for (i = 0; i < 100; i++) handles[i] = besom_handle_new(m, besom_alloc(m, (size_t)i * 400, BESOM_NOSCAN));
    twins(m);
    for (i = 0; i < 100; i += 2) besom_handle_free(heap, handles[i]);
    CHECK_OK(besom_roots_add(heap, range, 4, BESOM_CONSERVATIVE));
    CHECK_OK(besom_layout_register(heap, 16, &offset, 1, &layout));
    CHECK_OK(besom_layout_register(heap, 8000, &offset, 1, &layout));
    twins(m);
    range[0] = besom_new_array(m, layout, 9);
    CHECK_OK(besom_procs_set(heap, 7));
    CHECK_OK(besom_collect(m));
    twins(m);
    CHECK_OK(besom_procs_set(heap, 1));
    (void)besom_release_memory(heap);
    besom_block(m);
    besom_unblock(m);
    twins(m);
    CHECK(besom_alloc(m, (size_t)100 << 20, BESOM_NOSCAN) == NULL); /* beyond the limit */
    twins(m);
    CHECK_OK(besom_roots_remove(heap, range));
    for (i = 1; i < 100; i += 2) besom_handle_free(heap, handles[i]);
    CHECK_OK(besom_detach(m));
    NEED(besom_attach(heap, &m) == BESOM_OK);
    CHECK_OK(besom_collect(m));
    CHECK_EQ(twins(m).heap_alloc, 0);
    check_heap_end(heap, m);
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
static int stop;
static void *churn(void *argument)
{
    besom_mutator *m;
    uint64_t i = 0, *kept = NULL;
    if (besom_attach(shared, &m) != BESOM_OK) abort();
    {
        BESOM_FRAME(m, &kept);
        while (!check_is_set(&stop)) {
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
    check_set(&stop, 0);
    besom_stats_read(shared, &last);
    for (i = 0; i < 3; i++) NEED(pthread_create(&threads[i], NULL, churn, &done[i]) == 0);
    end = check_now_ns() + (check_short() ? 300 : 2000) * (uint64_t)1000000;
    last.cycles = 0;
    now = last;
    while (CHECK_LASTS(end, reads > 20 && now.cycles >= 3 && (now.tiny_allocs > 0 || check_watched()))) {
        besom_stats_read(shared, &now);
        equations(&now);
        grew(&last, &now);
        last = now;
        reads++;
    }
    check_set(&stop, 1);
    for (i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    NEED(besom_attach(shared, &m) == BESOM_OK);
    CHECK_OK(besom_collect(m));
    besom_stats_read(shared, &now);
    equations(&now);
    {
        uint64_t expected = 0;
        for (i = 0; i < 3; i++) expected += done[i] + (done[i] + 999) / 1000;
        CHECK_EQ(now.alloc_count, expected);
        CHECK(now.cycles > 2 && (now.tiny_allocs > 0) == !check_watched());
    }
    CHECK_OK(besom_detach(m));
    CHECK_OK(besom_heap_free(shared));
}

int main(void)
{
    RUN(a_new_heap_counts_nothing);
    RUN(exact_statistics_tell_a_known_history);
    RUN(the_twins_agree_after_anything);
    RUN(counts_are_exact_after_a_collection);
    RUN(detach_settles_the_counts);
    RUN(snapshots_are_consistent);
    return check_done();
}
