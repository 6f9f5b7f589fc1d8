/* The timeline: a file that other programs read, made at any time by any thread, and what is wrong told by a status. */
#include "check.h"
#include "json.h"
#include <fcntl.h>
#include <sys/stat.h>

static char path[64], other_path[64];

static size_t file_bytes(const char *name)
{
    struct stat s;
    return stat(name, &s) == 0 ? (size_t)s.st_size : (size_t)-1;
}

#define MISSING ((size_t)-1)

/* Members of the file at `path`; -1: it is no JSON. */
static long count(const char *key, const char *value)
{
    char *text = json_file(path);
    long n;
    NEED(text != NULL);
    n = json_count(text, key, value);
    free(text);
    return n;
}

static long cycles_in_file(void)
{
    return count("\"name\"", "\"cycle\"");
}

static uint64_t cycles(besom_heap *heap)
{
    besom_stats s;
    besom_stats_read(heap, &s);
    return s.cycles;
}

static void the_reader_of_json_knows_json(void)
{
    CHECK_EQ(json_count("{\"a\":1,\"b\":[{\"a\":1},{\"a\":2}],\"a\":1}", "\"a\"", "1"), 3);
    CHECK_EQ(json_count(" [ 1.5e-3 , true , null , \"\\u00e4\\n\" , { } , [ ] , -0 ] ", "\"a\"", "1"), 0);
    CHECK_EQ(json_count("", "", ""), -1);
    CHECK_EQ(json_count("{\"a\":1", "", ""), -1);
    CHECK_EQ(json_count("{\"a\":1,}", "", ""), -1);
    CHECK_EQ(json_count("[1 2]", "", ""), -1);
    CHECK_EQ(json_count("[1]]", "", ""), -1);
    CHECK_EQ(json_count("[01]", "", ""), -1);
    CHECK_EQ(json_count("[1.]", "", ""), -1);
    CHECK_EQ(json_count("[\"\\x\"]", "", ""), -1);
    CHECK_EQ(json_count("[nul]", "", ""), -1);
}

static void bad_input_has_a_status(void)
{
    besom_heap *heap;
    NEED(besom_heap_new(NULL, &heap) == BESOM_OK);
    CHECK_EQ(besom_timeline_start(NULL, path), BESOM_ERR_INVALID);
    CHECK_EQ(besom_timeline_start(heap, NULL), BESOM_ERR_INVALID);
    CHECK_EQ(besom_timeline_start(NULL, NULL), BESOM_ERR_INVALID);
    CHECK_EQ(besom_timeline_start(heap, ""), BESOM_ERR_INVALID);
    CHECK_EQ(besom_timeline_start(heap, "/tmp"), BESOM_ERR_INVALID);
    CHECK_EQ(besom_timeline_start(heap, "/no/such/directory/file"), BESOM_ERR_INVALID);
    CHECK_EQ(besom_timeline_stop(NULL), BESOM_ERR_INVALID);
    CHECK_EQ(besom_timeline_stop(heap), BESOM_ERR_STATE); /* no start has had an effect */
    CHECK(file_bytes(path) == MISSING);
    CHECK_OK(besom_timeline_start(heap, path));
    CHECK_EQ(besom_timeline_start(heap, other_path), BESOM_ERR_STATE);
    CHECK(file_bytes(other_path) == MISSING);
    CHECK_EQ(besom_timeline_start(heap, path), BESOM_ERR_STATE);
    CHECK_EQ(besom_timeline_start(heap, NULL), BESOM_ERR_INVALID);
    CHECK_OK(besom_timeline_stop(heap)); /* nor had these */
    CHECK_EQ(besom_timeline_stop(heap), BESOM_ERR_STATE);
    CHECK_EQ(cycles_in_file(), 0);
    unlink(path);
    CHECK_OK(besom_heap_free(heap));
}

static void a_file_has_the_cycles_between_start_and_stop(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    FILE *f = fopen(path, "w");
    int i;
    NEED(f != NULL);
    fputs("what was there before", f);
    fclose(f);
    CHECK_OK(besom_collect(m));
    CHECK_OK(besom_timeline_start(heap, path));
    CHECK_EQ(file_bytes(path), 0);
    for (i = 0; i < 3; i++) CHECK_OK(besom_collect(m));
    CHECK_OK(besom_timeline_stop(heap));
    CHECK_OK(besom_collect(m));
    CHECK_EQ(cycles_in_file(), 3);
    CHECK_EQ(count("\"why\"", "\"cycle\""), 3);
    CHECK_EQ(count("\"cause\"", "\"forced\""), 3);
    CHECK_EQ(count("\"number\"", "1"), 0); /* the first was before */
    CHECK_EQ(count("\"number\"", "4"), 1);
    CHECK_EQ(count("\"dropped\"", "0"), 1);
    CHECK(count("\"ph\"", "\"C\"") >= 6);
    {
        char *text = json_file(path);
        NEED(text != NULL);
        CHECK(text[0] == '{' && strstr(text, "\"traceEvents\":[") != NULL);
        free(text);
    }
    /* Again, into the same file; and by the heap's end. */
    CHECK_OK(besom_timeline_start(heap, path));
    CHECK_OK(besom_timeline_stop(heap));
    CHECK_EQ(cycles_in_file(), 0);
    CHECK_OK(besom_timeline_start(heap, path));
    CHECK_OK(besom_collect(m));
    CHECK_EQ(besom_heap_free(heap), BESOM_ERR_STATE); /* attached still, and recording still */
    CHECK_EQ(file_bytes(path), 0);
    CHECK_OK(besom_collect(m));
    CHECK_OK(besom_detach(m));
    CHECK_OK(besom_heap_free(heap));
    CHECK_EQ(cycles_in_file(), 2);
    unlink(path);
}

static int visit(void *object, size_t bytes, besom_kind kind, void *data)
{
    (void)object, (void)bytes, (void)kind, (void)data;
    return 1;
}

static void other_stops_are_named(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    CHECK_OK(besom_timeline_start(heap, path));
    (void)besom_alloc(m, 100, BESOM_VALUES);
    CHECK_EQ(besom_walk(m, visit, NULL), 1);
    besom_release_memory(heap);
    besom_block(m);
    CHECK_OK(besom_timeline_stop(heap)); /* while blocked */
    besom_unblock(m);
    CHECK_EQ(cycles_in_file(), 0);
    CHECK_EQ(count("\"why\"", "\"walk\""), 2); /* its thread's slice, and that of the stopped world */
    CHECK_EQ(count("\"name\"", "\"release\""), 1);
    unlink(path);
    check_heap_end(heap, m);
}

static void a_file_that_cannot_be_written(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    if (access("/dev/full", W_OK) == 0) {
        CHECK_OK(besom_timeline_start(heap, "/dev/full"));
        CHECK_OK(besom_collect(m));
        CHECK_EQ(besom_timeline_stop(heap), BESOM_ERR_LIMIT);
        CHECK_EQ(besom_timeline_stop(heap), BESOM_ERR_STATE); /* it has ended */
        CHECK_OK(besom_timeline_start(heap, "/dev/full"));
    }
    check_heap_end(heap, m); /* and ends with the heap, without a word */
}

static void *read_all(void *bytes)
{
    static char buffer[4096];
    const int fd = open(path, O_RDONLY);
    ssize_t n;
    NEED(fd >= 0);
    while ((n = read(fd, buffer, sizeof buffer)) > 0) *(size_t *)bytes += (size_t)n;
    close(fd);
    return NULL;
}

/* A start waits for nobody: not for a reader either. */
static void a_pipe_that_nobody_reads(void)
{
    besom_mutator *m;
    besom_heap *heap = check_heap(NULL, &m);
    besom_status status;
    pthread_t reader;
    size_t bytes = 0;
    int i;
    NEED(mkfifo(path, 0600) == 0);
    CHECK_EQ(besom_timeline_start(heap, path), BESOM_ERR_INVALID);
    CHECK_EQ(besom_timeline_stop(heap), BESOM_ERR_STATE);
    NEED(pthread_create(&reader, NULL, read_all, &bytes) == 0);
    while ((status = besom_timeline_start(heap, path)) == BESOM_ERR_INVALID) check_sleep_ms(1); /* until it is there */
    CHECK_OK(status);
    for (i = 0; i < 200; i++) CHECK_OK(besom_collect(m));
    CHECK_OK(besom_timeline_stop(heap)); /* more than a pipe holds: the rest waits for the reader */
    pthread_join(reader, NULL);
    CHECK(bytes > 100000);
    unlink(path);
    check_heap_end(heap, m);
}

static besom_heap *shared;
static int stop;
static void *churn(void *unused)
{
    besom_mutator *m;
    uint64_t i;
    void *kept = NULL;
    if (besom_attach(shared, &m) != BESOM_OK) abort();
    {
        BESOM_FRAME(m, &kept);
        for (i = 0; !check_is_set(&stop); i++) {
            if (besom_alloc(m, 1 + i % 500, BESOM_NOSCAN) == NULL) abort();
            if (i % 1000 == 0) kept = besom_alloc(m, 40000, BESOM_VALUES);
            if (i % 100000 == 0 && besom_collect(m) != BESOM_OK) abort();
            if (i % 5000 == 0) {
                besom_block(m);
                besom_unblock(m);
            }
        }
        BESOM_FRAME_END(m);
    }
    if (besom_detach(m) != BESOM_OK) abort();
    return unused;
}

/* By a thread that is not attached, while three allocate and collect on two Ps. */
static void any_thread_may_while_others_work(void)
{
    pthread_t threads[3];
    besom_options o;
    uint64_t end, before = 0;
    long seen = 0, sessions = 0;
    int i;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.procs = 2;
    NEED(besom_heap_new(&o, &shared) == BESOM_OK);
    check_set(&stop, 0);
    for (i = 0; i < 3; i++) NEED(pthread_create(&threads[i], NULL, churn, NULL) == 0);
    end = check_now_ns() + (check_short() ? 300 : 1500) * (uint64_t)1000000;
    while (CHECK_LASTS(end, seen >= 3 && sessions > 3)) {
        const uint64_t start = cycles(shared);
        long n;
        CHECK_OK(besom_timeline_start(shared, path));
        before = cycles(shared);
        /* Until one that began after the start has ended, for a while: on a slow machine a cycle takes longer than 20 ms. */
        for (i = 0; i < 100 && (i == 0 || cycles(shared) - before < 2); i++) check_sleep_ms(20);
        n = (long)(cycles(shared) - before);
        CHECK_OK(besom_timeline_stop(shared));
        /* Those that were counted between the two looks are there, but for one that had begun before, and one that has
         * been counted and not yet recorded. */
        CHECK_LE(n - 2, cycles_in_file());
        CHECK_LE(cycles_in_file(), (long)(cycles(shared) - start));
        seen += cycles_in_file();
        sessions++;
    }
    CHECK_OK(besom_timeline_start(shared, path));
    check_set(&stop, 1);
    for (i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    CHECK_OK(besom_heap_free(shared));
    CHECK(cycles_in_file() >= 0);
    unlink(path);
}

static void *start_and_stop(void *result)
{
    long *started = (long *)result;
    int i;
    for (i = 0; i < 200; i++) {
        const besom_status status = besom_timeline_start(shared, "/dev/null");
        if (status == BESOM_OK) {
            ++*started;
            CHECK(besom_timeline_stop(shared) == BESOM_OK);
        } else {
            CHECK_EQ(status, BESOM_ERR_STATE);
        }
    }
    return NULL;
}

/* Several want to record: one at a time does, and stops what it has started. */
static void one_records_at_a_time(void)
{
    pthread_t threads[4];
    long started[4] = {0, 0, 0, 0}, total = 0;
    int i;
    NEED(besom_heap_new(NULL, &shared) == BESOM_OK);
    for (i = 0; i < 4; i++) NEED(pthread_create(&threads[i], NULL, start_and_stop, &started[i]) == 0);
    for (i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        total += started[i];
    }
    CHECK(total > 0);
    CHECK_EQ(besom_timeline_stop(shared), BESOM_ERR_STATE);
    CHECK_OK(besom_heap_free(shared));
}

/* More than there is room for: each release is one event, and one sample of the heap's size. */
static void what_finds_no_room_is_counted(void)
{
    const long room = 1 << 20, releases = room / 2 + 1000;
    char number[32];
    besom_heap *heap;
    size_t before, full;
    long i;
    if (check_short()) return;
    NEED(besom_heap_new(NULL, &heap) == BESOM_OK);
    CHECK_OK(besom_timeline_start(heap, path));
    before = check_statm(1);
    for (i = 0; i < releases; i++) (void)besom_release_memory(heap);
    full = check_statm(1);
    CHECK_LE(full - before, (size_t)66 << 20); /* 64 bytes each */
    CHECK(full - before > (size_t)60 << 20);
    CHECK_OK(besom_timeline_stop(heap));
    CHECK_LE(check_statm(1), before + ((size_t)1 << 20)); /* given back */
    snprintf(number, sizeof number, "%ld", room);
    CHECK_EQ(count("\"events\"", number), 1);
    {
        char *text = json_file(path), *dropped;
        NEED(text != NULL && (dropped = strstr(text, "\"dropped\":")) != NULL);
        i = atol(dropped + 10);
        free(text);
    }
    /* And the samples of the start and of the stop. */
    CHECK_EQ(i, 2 * releases + 2 - room);
    CHECK_EQ(count("\"ph\"", "\"X\"") + count("\"ph\"", "\"C\""), room);
    unlink(path);
    CHECK_OK(besom_heap_free(heap));
}

int main(void)
{
    snprintf(path, sizeof path, "/tmp/besom-timeline-%ld.json", (long)getpid());
    snprintf(other_path, sizeof other_path, "/tmp/besom-timeline-%ld-other.json", (long)getpid());
    RUN(the_reader_of_json_knows_json);
    RUN(bad_input_has_a_status);
    RUN(a_file_has_the_cycles_between_start_and_stop);
    RUN(other_stops_are_named);
    RUN(a_file_that_cannot_be_written);
    RUN(a_pipe_that_nobody_reads);
    RUN(any_thread_may_while_others_work);
    RUN(one_records_at_a_time);
    RUN(what_finds_no_room_is_counted);
    return check_done();
}
