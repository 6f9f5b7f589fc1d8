/* Metrics: what the registry promises, that the values are those of the statistics, consistent in each batch, and that
 * both texts are what they claim to be. */
#include "check.h"
#include <ctype.h>
#include <math.h>

BESOM_STATIC_ASSERT(BESOM_METRIC_GAUGE == 0 && BESOM_METRIC_COUNTER == 1 && BESOM_METRIC_HISTOGRAM == 2, "kinds");
BESOM_STATIC_ASSERT(sizeof(besom_metric) == 5 * 8 && sizeof(besom_metric_value) == 5 * 8, "no holes");

static const besom_metric *list;
static size_t count;

/* All metrics of a heap, with room for every histogram; freed with batch_free. */
static besom_metric_value *batch_new(void)
{
    size_t i;
    besom_metric_value *values;
    count = besom_metrics(NULL, &list);
    values = (besom_metric_value *)calloc(count, sizeof *values);
    NEED(values != NULL);
    for (i = 0; i < count; i++)
        if (list[i].buckets != 0) {
            values[i].counts = (uint64_t *)calloc(list[i].buckets, sizeof(uint64_t));
            values[i].buckets = list[i].buckets;
            NEED(values[i].counts != NULL);
        }
    return values;
}

static void batch_free(besom_metric_value *values)
{
    size_t i;
    for (i = 0; i < count; i++) free(values[i].counts);
    free(values);
}

static const besom_metric_value *at(const besom_metric_value *values, const char *name)
{
    size_t i;
    for (i = 0; i < count; i++)
        if (strcmp(list[i].name, name) == 0) return &values[i];
    printf("no metric %s\n", name);
    check_fail(__FILE__, __LINE__, "the metric is there");
    exit(1);
}

static uint64_t number(const besom_metric_value *values, const char *name)
{
    return at(values, name)->number;
}

/* What the header says of every batch. */
static void equations(const besom_metric_value *values)
{
    static const char *const phases[] = {
        "besom/gc/phases/finish-sweep:nanoseconds", "besom/gc/phases/stop:nanoseconds", "besom/gc/phases/flush:nanoseconds",
        "besom/gc/phases/roots:nanoseconds",        "besom/gc/phases/mark:nanoseconds", "besom/gc/phases/end:nanoseconds",
        "besom/gc/phases/start:nanoseconds",        "besom/gc/phases/beside:nanoseconds",
    };
    const uint64_t pauses = number(values, "besom/gc/pauses:nanoseconds");
    const uint64_t beside = at(values, "besom/gc/phases/beside:nanoseconds")->sum;
    const uint64_t cycles = number(values, "besom/gc/cycles:cycles");
    const besom_metric_value *allocs = at(values, "besom/heap/allocs-by-size:bytes");
    const besom_metric_value *frees = at(values, "besom/heap/frees-by-size:bytes");
    const uint64_t tiny = number(values, "besom/heap/tiny/allocs:objects");
    uint64_t sum = 0;
    size_t i, k;
    for (i = 0; i < count; i++) {
        uint64_t least = 0, all = 0;
        if (list[i].buckets == 0) continue;
        for (k = 0; k < list[i].buckets; k++) {
            all += values[i].counts[k];
            least += values[i].counts[k] * values[i].bounds[k];
        }
        CHECK_EQ(all, values[i].number);
        CHECK(least <= values[i].sum);
    }
    CHECK_EQ(cycles, number(values, "besom/gc/cycles/pace:cycles") + number(values, "besom/gc/cycles/forced:cycles") +
                         number(values, "besom/gc/cycles/every:cycles") + number(values, "besom/gc/cycles/limit:cycles"));
    CHECK(check_concurrent() ? pauses >= 2 * cycles : pauses == cycles);
    for (i = 0; i < sizeof phases / sizeof *phases; i++) {
        CHECK_EQ(number(values, phases[i]), cycles);
        if (i > 0 && i < 7) sum += at(values, phases[i])->sum;
    }
    CHECK_EQ(at(values, "besom/gc/pauses:nanoseconds")->sum + beside, sum);
    CHECK(check_concurrent() ? cycles == 0 || beside > 0 : beside == 0);
    CHECK_EQ(number(values, "besom/sched/stops/delay:nanoseconds"),
             pauses + number(values, "besom/sched/pauses/other:nanoseconds"));
    CHECK_EQ(number(values, "besom/cpu/gc:nanoseconds"),
             number(values, "besom/cpu/gc/mark:nanoseconds") + number(values, "besom/cpu/gc/stop:nanoseconds") +
                 number(values, "besom/cpu/gc/sweep:nanoseconds"));
    CHECK_EQ(number(values, "besom/heap/allocs:bytes"), allocs->sum);
    CHECK_EQ(number(values, "besom/heap/allocs:objects"), allocs->number + tiny);
    CHECK_EQ(number(values, "besom/heap/frees:bytes"), frees->sum);
    CHECK_EQ(number(values, "besom/heap/frees:objects"), frees->number + tiny);
    for (k = 0; k < allocs->buckets; k++) CHECK(frees->counts[k] <= allocs->counts[k]);
    CHECK_EQ(number(values, "besom/heap/objects:bytes"), allocs->sum - frees->sum);
    CHECK_EQ(number(values, "besom/heap/objects:objects"), allocs->number - frees->number);
    CHECK(number(values, "besom/heap/objects:bytes") <= number(values, "besom/memory/in-heap:bytes"));
    CHECK(number(values, "besom/memory/in-heap:bytes") + number(values, "besom/memory/in-stacks:bytes") +
              number(values, "besom/memory/in-work-bufs:bytes") <=
          number(values, "besom/memory/committed:bytes"));
    CHECK_EQ(number(values, "besom/memory/committed:bytes") + number(values, "besom/memory/released:bytes"),
             number(values, "besom/memory/mapped:bytes"));
    CHECK_LE(number(values, "besom/memory/footprint:bytes"), number(values, "besom/memory/peak-footprint:bytes"));
    CHECK_LE(number(values, "besom/sweep/background:pages") + number(values, "besom/sweep/finish:pages"),
             number(values, "besom/sweep/due:pages"));
    CHECK(number(values, "besom/sched/threads/running:threads") + number(values, "besom/sched/threads/waiting:threads") <=
          number(values, "besom/sched/threads/attached:threads"));
}

static void the_registry(void)
{
    besom_heap *heap;
    const besom_metric *again;
    size_t i, k, kinds[3] = {0, 0, 0};
    NEED(besom_heap_new(NULL, &heap) == BESOM_OK);
    count = besom_metrics(heap, &list);
    CHECK(count > 40);
    for (i = 0; i < count; i++) {
        const char *colon = strchr(list[i].name, ':');
        CHECK(strncmp(list[i].name, "besom/", 6) == 0);
        CHECK(colon != NULL && strcmp(colon + 1, list[i].unit) == 0 && list[i].unit[0] != 0);
        for (k = 0; colon != NULL && list[i].name + k < colon; k++)
            CHECK(islower((unsigned char)list[i].name[k]) || strchr("/-", list[i].name[k]) != NULL);
        for (k = 0; k < i; k++) CHECK(strcmp(list[k].name, list[i].name) != 0);
        k = strlen(list[i].description);
        CHECK(k > 3 && list[i].description[k - 1] == '.');
        NEED(list[i].kind >= BESOM_METRIC_GAUGE && list[i].kind <= BESOM_METRIC_HISTOGRAM);
        kinds[list[i].kind]++;
        CHECK((list[i].buckets != 0) == (list[i].kind == BESOM_METRIC_HISTOGRAM));
    }
    CHECK(kinds[BESOM_METRIC_GAUGE] > 0 && kinds[BESOM_METRIC_COUNTER] > 0 && kinds[BESOM_METRIC_HISTOGRAM] > 0);
    CHECK_OK(besom_heap_free(heap));
    CHECK(besom_metrics(NULL, &again) == count && again == list); /* static, and no heap's */
    CHECK(besom_metrics(NULL, NULL) == count);
}

static void bounds_are_static_and_ascend(void)
{
    besom_heap *heap;
    besom_metric_value *values = batch_new(), *again = batch_new();
    size_t i, k;
    NEED(besom_heap_new(NULL, &heap) == BESOM_OK);
    CHECK_OK(besom_metrics_read(heap, values, count));
    CHECK_OK(besom_metrics_read(heap, again, count));
    CHECK_OK(besom_heap_free(heap));
    for (i = 0; i < count; i++) {
        CHECK_EQ(values[i].buckets, list[i].buckets);
        if (list[i].buckets == 0) {
            CHECK(values[i].bounds == NULL && values[i].sum == 0);
            continue;
        }
        NEED(values[i].bounds != NULL && values[i].bounds == again[i].bounds);
        for (k = 0; k < values[i].buckets; k++) CHECK(values[i].bounds[k] < values[i].bounds[k + 1]);
        CHECK(values[i].bounds[values[i].buckets] == UINT64_MAX && values[i].bounds[0] <= 1);
    }
    batch_free(values), batch_free(again);
}

static void a_new_heap_has_counted_nothing(void)
{
    besom_options o;
    besom_heap *heap;
    besom_metric_value *values = batch_new();
    size_t i;
    besom_options_init(&o);
    o.heap_limit = 64 << 20, o.memory_limit = 32 << 20, o.gc_percent = 70, o.procs = 3;
    NEED(besom_heap_new(&o, &heap) == BESOM_OK);
    CHECK_OK(besom_metrics_read(heap, values, count));
    equations(values);
    for (i = 0; i < count; i++)
        if (list[i].kind != BESOM_METRIC_GAUGE) CHECK(values[i].number == 0 && values[i].sum == 0);
    CHECK_EQ(number(values, "besom/memory/limit/hard:bytes"), 64 << 20);
    CHECK_EQ(number(values, "besom/memory/limit/soft:bytes"), 32 << 20);
    CHECK_EQ(number(values, "besom/gc/percent:percent"), 70);
    CHECK_EQ(number(values, "besom/sched/procs/limit:procs"), 3);
    CHECK_EQ(number(values, "besom/sched/procs:procs"), 0);
    CHECK_EQ(number(values, "besom/sched/threads/attached:threads"), 0);
    besom_gc_percent_set(heap, 0);
    besom_memory_limit_set(heap, 0);
    CHECK_OK(besom_procs_set(heap, 0));
    CHECK_OK(besom_metrics_read(heap, values, count));
    CHECK(number(values, "besom/gc/percent:percent") == 0 && number(values, "besom/memory/limit/soft:bytes") == 0);
    CHECK_EQ(number(values, "besom/sched/procs/limit:procs"), 0);
    CHECK_OK(besom_heap_free(heap));
    batch_free(values);
}

static int visit(void *object, size_t bytes, besom_kind kind, void *data)
{
    (void)object, (void)kind;
    *(size_t *)data += bytes;
    return 0;
}

static void values_agree_with_the_statistics(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    besom_metric_value *values = batch_new(), one;
    besom_stats s;
    void **kept;
    size_t i, walked = 0;
    for (i = 0; i < 3000; i++) (void)besom_alloc(m, 1 + i % 7, BESOM_NOSCAN); /* tiny */
    kept = (void **)besom_alloc(m, 80, BESOM_VALUES);
    BESOM_FRAME(m, &kept);
    CHECK_OK(besom_collect(m));
    CHECK_OK(besom_collect(m));
    CHECK_EQ(besom_walk(m, visit, &walked), 0);
    besom_stats_read(heap, &s);
    CHECK_OK(besom_metrics_read(heap, values, count));
    equations(values);
#define AGREES(name, field) CHECK_EQ(number(values, name), s.field)
    AGREES("besom/memory/committed:bytes", committed);
    AGREES("besom/memory/released:bytes", released);
    AGREES("besom/memory/in-heap:bytes", in_heap);
    AGREES("besom/memory/in-stacks:bytes", in_stacks);
    AGREES("besom/memory/in-work-bufs:bytes", in_work_bufs);
    AGREES("besom/memory/metadata:bytes", in_metadata);
    AGREES("besom/memory/peak-footprint:bytes", peak_footprint);
    AGREES("besom/heap/live:bytes", live_bytes);
    AGREES("besom/heap/goal:bytes", next_goal);
    AGREES("besom/heap/allocs:bytes", total_alloc_bytes);
    AGREES("besom/heap/allocs:objects", alloc_count);
    AGREES("besom/heap/frees:bytes", total_free_bytes);
    AGREES("besom/heap/frees:objects", free_count);
    AGREES("besom/heap/tiny/allocs:objects", tiny_allocs);
    AGREES("besom/gc/cycles:cycles", cycles);
    AGREES("besom/gc/cycles/forced:cycles", forced_cycles);
    CHECK_EQ(at(values, "besom/gc/pauses:nanoseconds")->sum, s.pause_total_ns);
    CHECK_EQ(number(values, "besom/heap/objects:bytes"), s.total_alloc_bytes - s.total_free_bytes);
    CHECK_EQ(number(values, "besom/heap/objects:bytes"), walked);
    CHECK_EQ(number(values, "besom/heap/objects:objects"), s.alloc_count - s.free_count);
    CHECK(check_watched() ? s.tiny_allocs == 0 : s.tiny_allocs > 2000);
    CHECK_EQ(s.cycles, 2);
    CHECK(number(values, "besom/memory/footprint:bytes") > 0);
    CHECK(number(values, "besom/memory/footprint:bytes") <= number(values, "besom/memory/peak-footprint:bytes"));
    CHECK_EQ(number(values, "besom/sched/pauses/other:nanoseconds"), 1); /* the walk */
    CHECK_EQ(number(values, "besom/sched/stops/delay:nanoseconds"), 1 + number(values, "besom/gc/pauses:nanoseconds"));
    CHECK(number(values, "besom/gc/scan/roots:bytes") > 0); /* the frame */
    CHECK(number(values, "besom/cpu/gc/mark:nanoseconds") > 0 && number(values, "besom/cpu/gc/stop:nanoseconds") > 0);
    CHECK(number(values, "besom/sweep/due:pages") > 0);
    CHECK_EQ(number(values, "besom/sweep/finish:pages"), number(values, "besom/sweep/due:pages")); /* nobody else did */
    CHECK_EQ(number(values, "besom/sched/procs:procs"), 1);
    CHECK_EQ(number(values, "besom/sched/threads/attached:threads"), 1);
    CHECK_EQ(number(values, "besom/sched/threads/running:threads"), 1);
    CHECK_EQ(number(values, "besom/sched/threads/waiting:threads"), 0);
    /* Each for itself says the same. */
    for (i = 0; i < count; i++) {
        memset(&one, 0xee, sizeof one);
        one.counts = NULL;
        CHECK_OK(besom_metric_read(heap, list[i].name, &one));
        CHECK(one.number == values[i].number && one.sum == values[i].sum && one.counts == NULL);
        CHECK(one.buckets == list[i].buckets && one.bounds == values[i].bounds);
    }
    besom_block(m);
    CHECK_OK(besom_metrics_read(heap, values, count));
    CHECK(number(values, "besom/sched/threads/attached:threads") == 1 && number(values, "besom/sched/threads/running:threads") == 0);
    besom_unblock(m);
    BESOM_FRAME_END(m);
    check_heap_end(heap, m);
    batch_free(values);
}

/* The bucket of a value, by the bounds. */
static size_t bucket(const besom_metric_value *v, uint64_t value)
{
    size_t k = 0;
    while (k + 1 < v->buckets && value >= v->bounds[k + 1]) k++;
    return k;
}

static void object_sizes_are_exact(void)
{
    static const struct { size_t bytes, slot; unsigned n; } objects[] = {
        {0, 16, 5}, {16, 16, 7}, {17, 32, 11}, {64, 64, 13}, {1000, 1024, 17}, {32768, 32768, 3}, {32769, 40960, 2},
        {1000000, 1007616, 4},
    };
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    besom_metric_value *values = batch_new();
    const besom_metric_value *allocs = at(values, "besom/heap/allocs-by-size:bytes");
    const besom_metric_value *frees = at(values, "besom/heap/frees-by-size:bytes");
    const uint64_t *of[2];
    uint64_t expected[256], sum = 0, all = 0;
    besom_layout layout;
    size_t i, k, round;
    memset(expected, 0, sizeof expected);
    NEED(besom_layout_register(heap, 24, NULL, 0, &layout) == BESOM_OK);
    CHECK_OK(besom_metrics_read(heap, values, count));
    NEED(allocs->buckets == 67 && frees->buckets == 67);
    /* The buckets are the size classes: what has a class's slots is in its bucket, and in no other. */
    for (k = 1; k < BESOM_SIZE_CLASSES; k++) {
        CHECK_EQ(allocs->bounds[k], (uint64_t)besom_class_bytes[k] + 1);
        CHECK_EQ(bucket(allocs, besom_class_bytes[k]), k - 1);
    }
    for (i = 0; i < sizeof objects / sizeof *objects; i++)
        for (k = 0; k < objects[i].n; k++) {
            NEED(besom_alloc(m, objects[i].bytes, BESOM_CONSERVATIVE) != NULL);
            expected[bucket(allocs, objects[i].slot)]++;
            sum += objects[i].slot;
            all++;
        }
    for (k = 0; k < 19; k++) NEED(besom_new(m, layout) != NULL);
    expected[bucket(allocs, 24)] += 19;
    sum += 19 * 24;
    all += 19;
    of[0] = allocs->counts, of[1] = frees->counts;
    for (round = 0; round < 2; round++) {
        CHECK_OK(besom_collect(m)); /* all of it is garbage */
        CHECK_OK(besom_metrics_read(heap, values, count));
        equations(values);
        for (i = 0; i < 2; i++)
            for (k = 0; k < 67; k++) CHECK_EQ(of[i][k], expected[k]);
        CHECK(allocs->number == all && frees->number == all && allocs->sum == sum && frees->sum == sum);
    }
    check_heap_end(heap, m);
    batch_free(values);
}

static void causes_are_told_apart(void)
{
    besom_options o;
    besom_mutator *m;
    besom_heap *heap;
    besom_metric_value *values = batch_new();
    size_t i;
    besom_options_init(&o);
    o.scan_native_stacks = 0, o.heap_limit = 16 << 20, o.gc_percent = 0;
    heap = check_heap(&o, &m);
    CHECK_OK(besom_collect(m));
    for (i = 0; i < 100; i++) NEED(besom_alloc(m, 1 << 20, BESOM_NOSCAN) != NULL);
    CHECK_OK(besom_metrics_read(heap, values, count));
    equations(values);
    CHECK_EQ(number(values, "besom/gc/cycles/forced:cycles"), 1);
    CHECK(number(values, "besom/gc/cycles/limit:cycles") + number(values, "besom/gc/cycles/pace:cycles") > 0);
    check_heap_end(heap, m);
    o.heap_limit = 0, o.gc_percent = 100, o.collect_every = 10;
    heap = check_heap(&o, &m);
    for (i = 0; i < 55; i++) (void)besom_alloc(m, 100, BESOM_VALUES);
    CHECK_OK(besom_metrics_read(heap, values, count));
    CHECK_EQ(number(values, "besom/gc/cycles/every:cycles"), 5);
    CHECK_EQ(number(values, "besom/gc/cycles:cycles"), 5);
    check_heap_end(heap, m);
    o.collect_every = 0;
    heap = check_heap(&o, &m);
    /* Under a checker 40 allocations may be over before a second cycle is. */
    for (i = 0; i < 40 || (check_short() && i < 4000 && number(values, "besom/gc/cycles/pace:cycles") < 2); i++) {
        NEED(besom_alloc(m, 1 << 20, BESOM_NOSCAN) != NULL);
        CHECK_OK(besom_metrics_read(heap, values, count));
    }
    CHECK(number(values, "besom/gc/cycles/pace:cycles") > 1);
    CHECK_EQ(number(values, "besom/gc/cycles:cycles"), number(values, "besom/gc/cycles/pace:cycles"));
    check_heap_end(heap, m);
    batch_free(values);
}

static void what_is_wrong_is_said_and_changes_nothing(void)
{
    static const char *const wrong[] = {"", "besom", "besom/heap/live", "besom/heap/live:", "besom/heap/live:byte",
                                        "besom/heap/live:bytes ", "BESOM/HEAP/LIVE:BYTES", "bytes", ":bytes"};
    besom_heap *heap;
    besom_metric_value *values = batch_new(), value, before;
    uint64_t counts[1000];
    size_t i, k;
    NEED(besom_heap_new(NULL, &heap) == BESOM_OK);
    memset(&value, 0x5a, sizeof value);
    value.counts = counts;
    before = value;
    for (i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_EQ(besom_metric_read(heap, wrong[i], &value), BESOM_ERR_INVALID);
    CHECK_EQ(besom_metric_read(heap, NULL, &value), BESOM_ERR_INVALID);
    CHECK_EQ(besom_metric_read(NULL, "besom/heap/live:bytes", &value), BESOM_ERR_INVALID);
    CHECK_EQ(besom_metric_read(heap, "besom/heap/live:bytes", NULL), BESOM_ERR_INVALID);
    CHECK(memcmp(&value, &before, sizeof value) == 0);
    for (i = 0; i < count; i++) {
        if (list[i].buckets == 0) continue;
        memset(counts, 0x5a, sizeof counts);
        for (k = 0; k < 2; k++) {
            memset(&value, 0x5a, sizeof value);
            value.counts = counts, value.buckets = k == 0 ? 0 : list[i].buckets - 1;
            before = value;
            CHECK_EQ(besom_metric_read(heap, list[i].name, &value), BESOM_ERR_LIMIT);
            CHECK(memcmp(&value, &before, sizeof value) == 0);
            CHECK_EQ(counts[0], 0x5a5a5a5a5a5a5a5a);
        }
        value.buckets = list[i].buckets; /* an exact fit, and nothing is written behind it */
        CHECK_OK(besom_metric_read(heap, list[i].name, &value));
        CHECK_EQ(counts[list[i].buckets - 1], 0);
        CHECK_EQ(counts[list[i].buckets], 0x5a5a5a5a5a5a5a5a);
    }
    /* The batch: too few values, too little room in one of them, more than enough. */
    CHECK_EQ(besom_metrics_read(NULL, values, count), BESOM_ERR_INVALID);
    CHECK_EQ(besom_metrics_read(heap, NULL, count), BESOM_ERR_INVALID);
    for (i = 0; i < count; i++) values[i].number = 0x5a5a;
    CHECK_EQ(besom_metrics_read(heap, values, count - 1), BESOM_ERR_LIMIT);
    CHECK_EQ(besom_metrics_read(heap, values, 0), BESOM_ERR_LIMIT);
    for (i = count - 1; list[i].buckets == 0; i--) {}
    values[i].buckets--;
    CHECK_EQ(besom_metrics_read(heap, values, count), BESOM_ERR_LIMIT);
    values[i].buckets++;
    for (k = 0; k < count; k++) CHECK_EQ(values[k].number, 0x5a5a);
    CHECK_OK(besom_metrics_read(heap, values, count + 1)); /* the last is not there, nor written */
    for (k = 0; k < count; k++) CHECK(values[k].number != 0x5a5a);
    CHECK_OK(besom_heap_free(heap));
    batch_free(values);
}

typedef besom_status (*text_fn)(besom_heap *heap, char *buffer, size_t room, size_t *length);

static char *text_of(besom_heap *heap, text_fn write, size_t *length)
{
    char *text = NULL;
    size_t n = 0;
    besom_status status;
    while ((status = write(heap, text, n, &n)) == BESOM_ERR_LIMIT) NEED((text = (char *)realloc(text, n)) != NULL);
    NEED(status == BESOM_OK && n == strlen(text));
    *length = n;
    return text;
}

static void texts_and_their_room(void)
{
    static const text_fn writers[] = {besom_metrics_prometheus, besom_metrics_json};
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    size_t i, n, length;
    CHECK_OK(besom_collect(m));
    for (i = 0; i < 2; i++) {
        char *text = text_of(heap, writers[i], &n), *small = (char *)malloc(n + 2);
        size_t room[4];
        int k;
        NEED(small != NULL);
        CHECK(n > 1000 && text[n - 1] == '\n');
        room[0] = 0, room[1] = 1, room[2] = n / 2, room[3] = n; /* the NUL does not fit */
        for (k = 0; k < 4; k++) {
            memset(small, 0x5a, n + 2);
            length = 77;
            CHECK_EQ(writers[i](heap, small, room[k], &length), BESOM_ERR_LIMIT);
            CHECK_EQ(length, n + 1);
            CHECK(small[0] == 0x5a && small[n / 2] == 0x5a && small[n] == 0x5a);
        }
        length = 77;
        CHECK_EQ(writers[i](heap, NULL, 0, &length), BESOM_ERR_LIMIT);
        CHECK_EQ(length, n + 1);
        CHECK_OK(writers[i](heap, small, n + 1, &length)); /* an exact fit, and nothing is written behind it */
        CHECK_EQ(length, n);
        CHECK(strcmp(small, text) == 0 && small[n + 1] == 0x5a);
        length = 77;
        CHECK_EQ(writers[i](NULL, small, n + 1, &length), BESOM_ERR_INVALID);
        CHECK_EQ(writers[i](heap, NULL, 1, &length), BESOM_ERR_INVALID);
        CHECK_EQ(writers[i](heap, small, n + 1, NULL), BESOM_ERR_INVALID);
        CHECK_EQ(length, 77);
        free(small), free(text);
    }
    check_heap_end(heap, m);
}

/* ---- Prometheus' text format, version 0.0.4, line by line. ---- */

static int is_name(const char *s, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        if (!(islower((unsigned char)s[i]) || s[i] == '_' || (i > 0 && isdigit((unsigned char)s[i])))) return 0;
    return n > 6 && strncmp(s, "besom_", 6) == 0;
}

struct family { char name[128], type[16]; int help, samples; double last, buckets, sum, count; int inf; };

/* Ends a family: what it must have had. */
static void family_end(const struct family *f)
{
    if (f->name[0] == 0) return;
    CHECK(f->help == 1 && f->type[0] != 0);
    if (strcmp(f->type, "histogram") == 0)
        CHECK(f->inf == 1 && f->sum >= 0 && f->count >= 0 && f->buckets == f->count);
    else
        CHECK_EQ(f->samples, 1);
    if (strcmp(f->type, "counter") == 0)
        CHECK(strcmp(f->name + strlen(f->name) - 6, "_total") == 0);
}

static int prometheus_families(char *text)
{
    struct family f;
    int families = 0;
    char *line, *save = NULL;
    memset(&f, 0, sizeof f);
    for (line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
        char *end;
        double value;
        size_t n;
        if (strncmp(line, "# HELP ", 7) == 0) {
            family_end(&f);
            families++;
            memset(&f, 0, sizeof f);
            f.help = 1, f.sum = f.count = -1, f.last = -1;
            n = strcspn(line + 7, " ");
            CHECK(is_name(line + 7, n) && n < sizeof f.name && strlen(line + 7) > n + 3);
            memcpy(f.name, line + 7, n < sizeof f.name ? n : 0);
            continue;
        }
        if (strncmp(line, "# TYPE ", 7) == 0) {
            n = strlen(f.name);
            CHECK(strncmp(line + 7, f.name, n) == 0 && line[7 + n] == ' ' && f.samples == 0 && f.type[0] == 0);
            snprintf(f.type, sizeof f.type, "%s", line + 8 + n);
            CHECK(strcmp(f.type, "gauge") == 0 || strcmp(f.type, "counter") == 0 || strcmp(f.type, "histogram") == 0);
            continue;
        }
        n = strlen(f.name);
        CHECK(f.type[0] != 0 && strncmp(line, f.name, n) == 0);
        line += n;
        f.samples++;
        if (strcmp(f.type, "histogram") == 0) {
            if (strncmp(line, "_bucket{le=\"", 12) == 0) {
                double le = strtod(line + 12, &end);
                CHECK(end != line + 12 && le > f.last && strncmp(end, "\"} ", 3) == 0 && f.inf == 0 && f.sum < 0);
                f.inf += isinf(le) != 0;
                f.last = le;
                value = strtod(end + 3, &end);
                CHECK(value >= f.buckets && *end == 0); /* cumulative */
                f.buckets = value;
                continue;
            }
            CHECK(strncmp(line, "_sum ", 5) == 0 || strncmp(line, "_count ", 7) == 0);
            if (strncmp(line, "_sum ", 5) == 0) f.sum = value = strtod(line + 5, &end);
            else f.count = value = strtod(line + 7, &end);
            CHECK(*end == 0);
            continue;
        }
        CHECK(line[0] == ' ' && isdigit((unsigned char)line[1]));
        (void)strtod(line + 1, &end);
        CHECK(*end == 0);
    }
    family_end(&f);
    return families;
}

/* ---- JSON, by its grammar; the depth is bounded by what is there. ---- */

static const char *json_value(const char *s);

static const char *json_space(const char *s)
{
    while (s != NULL && (*s == ' ' || *s == '\n' || *s == '\t' || *s == '\r')) s++;
    return s;
}

static const char *json_string(const char *s)
{
    if (*s++ != '"') return NULL;
    for (; *s != '"'; s++) {
        if ((unsigned char)*s < 0x20) return NULL;
        if (*s == '\\' && strchr("\"\\/bfnrt", *++s) == NULL) return NULL;
    }
    return s + 1;
}

static const char *json_list(const char *s, char close, int members)
{
    s = json_space(s + 1);
    if (*s == close) return s + 1;
    for (;;) {
        if (members) {
            if ((s = json_string(s)) == NULL || *(s = json_space(s)) != ':') return NULL;
            s = json_space(s + 1);
        }
        if ((s = json_space(json_value(s))) == NULL) return NULL;
        if (*s == close) return s + 1;
        if (*s != ',') return NULL;
        s = json_space(s + 1);
    }
}

static const char *json_value(const char *s)
{
    char *end;
    if (*s == '{') return json_list(s, '}', 1);
    if (*s == '[') return json_list(s, ']', 0);
    if (*s == '"') return json_string(s);
    if (!isdigit((unsigned char)*s)) return NULL; /* there is nothing else than whole numbers in it */
    (void)strtoull(s, &end, 10);
    return end;
}

/* Where the value of a member begins that stands in the object of a metric; NULL if it does not. */
static const char *json_member(const char *text, const char *name, const char *member)
{
    char key[256];
    const char *s, *end;
    snprintf(key, sizeof key, "\"%s\":{", name);
    if ((s = strstr(text, key)) == NULL) return NULL;
    s += strlen(key) - 1;
    end = json_value(s);
    snprintf(key, sizeof key, "\"%s\":", member);
    s = strstr(s, key);
    return s == NULL || s >= end ? NULL : s + strlen(key);
}

static void texts_are_well_formed(void)
{
    besom_mutator *m;
    besom_options o;
    besom_heap *heap;
    besom_metric_value *values = batch_new();
    char *text, sample[256];
    const char *end;
    size_t i, n;
    besom_options_init(&o);
    o.gc_percent = 0; /* nothing goes back in the background between two readings */
    heap = check_heap(&o, &m);
    for (i = 0; i < 20000; i++) (void)besom_alloc(m, i % 3000, (besom_kind)(i % 4));
    (void)besom_alloc(m, 5000000, BESOM_NOSCAN);
    for (i = 0; i < 5; i++) CHECK_OK(besom_collect(m));
    CHECK_OK(besom_metrics_read(heap, values, count));
    text = text_of(heap, besom_metrics_json, &n);
    end = json_space(json_value(text));
    CHECK(end != NULL && *end == 0);
    for (i = 0; i < count; i++) {
        const char *s = json_member(text, list[i].name, list[i].buckets != 0 ? "count" : "value");
        NEED(s != NULL);
        CHECK(strtoull(s, NULL, 10) == values[i].number);
        s = json_member(text, list[i].name, "unit");
        CHECK(s != NULL && strncmp(s + 1, list[i].unit, strlen(list[i].unit)) == 0);
        s = json_member(text, list[i].name, "sum");
        CHECK(list[i].buckets == 0 ? s == NULL : s != NULL && strtoull(s, NULL, 10) == values[i].sum);
    }
    free(text);
    text = text_of(heap, besom_metrics_prometheus, &n);
    snprintf(sample, sizeof sample, "\nbesom_heap_allocs_bytes_total %" PRIu64 "\n", number(values, "besom/heap/allocs:bytes"));
    CHECK(strstr(text, sample) != NULL);
    snprintf(sample, sizeof sample, "\nbesom_gc_pauses_seconds_count %" PRIu64 "\n", number(values, "besom/gc/pauses:nanoseconds"));
    CHECK(strstr(text, sample) != NULL);
    CHECK(strstr(text, "\n# TYPE besom_heap_live_bytes gauge\n") != NULL);
    CHECK_EQ(prometheus_families(text), count);
    free(text);
    check_heap_end(heap, m);
    batch_free(values);
}

static besom_heap *shared;
static int stop;

static void *churn(void *unused)
{
    uint64_t i = 0;
    while (!check_is_set(&stop)) { /* comes and goes */
        besom_mutator *m;
        void **kept = NULL;
        size_t walked = 0;
        NEED(besom_attach(shared, &m) == BESOM_OK);
        BESOM_FRAME(m, &kept);
        do {
            NEED(besom_alloc(m, 1 + i % 500, (besom_kind)(i % 3)) != NULL);
            if (i % 997 == 0) kept = (void **)besom_alloc(m, 50000, BESOM_VALUES);
        } while (++i % 60000 != 0 && !check_is_set(&stop));
        (void)besom_walk(m, visit, &walked);
        BESOM_FRAME_END(m);
        NEED(besom_detach(m) == BESOM_OK);
    }
    return unused;
}

/* Read by a thread that is not attached, while others allocate, collect, walk, come and go. */
static void batches_are_consistent_and_counters_only_grow(void)
{
    pthread_t threads[3];
    besom_metric_value *now = batch_new(), *last = batch_new(), *swap;
    const uint64_t end = check_now_ns() + (check_short() ? 500 : 3000) * (uint64_t)1000000;
    size_t i, k, reads = 0, n;
    NEED(besom_heap_new(NULL, &shared) == BESOM_OK);
    check_set(&stop, 0);
    CHECK_OK(besom_metrics_read(shared, last, count));
    for (i = 0; i < 3; i++) NEED(pthread_create(&threads[i], NULL, churn, NULL) == 0);
    while (CHECK_LASTS(end, number(last, "besom/gc/cycles:cycles") >= 3 &&
                                number(last, "besom/sched/pauses/other:nanoseconds") >= 3 && reads > 20)) {
        CHECK_OK(besom_metrics_read(shared, now, count));
        equations(now);
        for (i = 0; i < count; i++) {
            if (list[i].kind == BESOM_METRIC_GAUGE) continue;
            CHECK(now[i].number >= last[i].number && now[i].sum >= last[i].sum);
            for (k = 0; k < list[i].buckets; k++) CHECK(now[i].counts[k] >= last[i].counts[k]);
        }
        swap = now, now = last, last = swap;
        if (++reads % 64 == 0) {
            char *text = text_of(shared, besom_metrics_prometheus, &n);
            CHECK_EQ(prometheus_families(text), count);
            free(text);
            text = text_of(shared, besom_metrics_json, &n);
            CHECK(json_value(text) == text + n - 1);
            free(text);
        }
    }
    check_set(&stop, 1);
    for (i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    CHECK_OK(besom_metrics_read(shared, now, count));
    equations(now);
    CHECK_EQ(number(now, "besom/sched/threads/attached:threads"), 0);
    CHECK_OK(besom_heap_free(shared));
    batch_free(now), batch_free(last);
}

int main(void)
{
    RUN(the_registry);
    RUN(bounds_are_static_and_ascend);
    RUN(a_new_heap_has_counted_nothing);
    RUN(values_agree_with_the_statistics);
    RUN(object_sizes_are_exact);
    RUN(causes_are_told_apart);
    RUN(what_is_wrong_is_said_and_changes_nothing);
    RUN(texts_and_their_room);
    RUN(texts_are_well_formed);
    RUN(batches_are_consistent_and_counters_only_grow);
    return check_done();
}
