/* What a peer's collector says of itself while a program runs: which stops, how long, who marked.
 *
 *     stops_start()                       from here on
 *     stops_end()                         to here; both outside the threads that allocate
 *     stops_report(name)                  rows, and lines with every stop by its cause; STOPS_KNOWN says whether there are any
 *
 * Peers differ in what they tell. Besom: the histograms among its metrics, by their buckets, a bucket by its upper end
 * (at most 1/8 too long; the longest stop is exact if none before was longer). libgc: the clock around its events. */
#ifndef STOPS_H
#define STOPS_H
#include "peer.h"
#include <inttypes.h>

#if defined(PEER_BESOM)
#define STOPS_KNOWN 1
enum { STOPS_BUCKETS = 1024 };
typedef struct {
    besom_metric_value value;
    uint64_t counts[STOPS_BUCKETS];
} stops_metric;
static const besom_metric *stops_list;
static size_t stops_n;
static stops_metric *stops_before, *stops_after;

PEER_NOINLINE stops_metric *stops_read(void) {
    stops_n = besom_metrics(peer_heap, &stops_list);
    stops_metric *all = calloc(stops_n, sizeof *all);
    besom_metric_value *values = calloc(stops_n, sizeof *values);
    CHECK(all != NULL && values != NULL);
    for (size_t i = 0; i < stops_n; i++) {
        CHECK(stops_list[i].buckets <= STOPS_BUCKETS);
        values[i].counts = all[i].counts, values[i].buckets = STOPS_BUCKETS;
    }
    CHECK(besom_metrics_read(peer_heap, values, stops_n) == BESOM_OK);
    for (size_t i = 0; i < stops_n; i++) all[i].value = values[i];
    free(values);
    return all;
}
PEER_INLINE void stops_start(void) { stops_before = stops_read(); }
PEER_INLINE void stops_end(void) { stops_after = stops_read(); }

/* Of a counter and of a histogram's sum, what was added. */
PEER_INLINE uint64_t stops_added(size_t i) {
    return stops_list[i].kind == BESOM_METRIC_HISTOGRAM ? stops_after[i].value.sum - stops_before[i].value.sum
                                                        : stops_after[i].value.number - stops_before[i].value.number;
}
/* The longest value that a histogram got: no less than it was. */
PEER_NOINLINE uint64_t stops_longest(size_t i, uint64_t longest_ever) {
    for (size_t b = stops_after[i].value.buckets; b-- > 0;)
        if (stops_after[i].counts[b] != stops_before[i].counts[b]) {
            const uint64_t low = stops_after[i].value.bounds[b], high = stops_after[i].value.bounds[b + 1];
            return longest_ever >= low && longest_ever < high ? longest_ever : high;
        }
    return 0;
}
PEER_NOINLINE void stops_report(const char *name) {
    uint64_t longest = 0, stopped = 0, delay = 0, assist = 0, cpu = 0;
    int assists = 0;
    besom_stats stats;
    besom_stats_read(peer_heap, &stats);
    for (size_t i = 0; i < stops_n; i++) {
        const char *metric = stops_list[i].name;
        const int timed = strcmp(stops_list[i].unit, "nanoseconds") == 0;
        if (stops_list[i].kind == BESOM_METRIC_HISTOGRAM && timed) {
            const uint64_t n = stops_after[i].value.number - stops_before[i].value.number;
            const int pauses = strstr(metric, "/pauses") != NULL, delays = strstr(metric, "stops/delay") != NULL;
            const uint64_t most = stops_longest(i, pauses ? stats.pause_max_ns : 0);
            if (n > 0) printf("  %s: %" PRIu64 ", longest %.1f us, in sum %.1f us\n", metric, n, (double)most / 1e3,
                              (double)stops_added(i) / 1e3);
            if (pauses) stopped += stops_added(i);
            if (pauses || (strstr(metric, "/stops/") != NULL && !delays)) longest = most > longest ? most : longest;
            if (delays) delay = most;
        } else if (stops_list[i].kind == BESOM_METRIC_COUNTER && (timed || strstr(metric, "gc/cycles") != NULL)) {
            if (stops_added(i) > 0) printf("  %s: %" PRIu64 "\n", metric, stops_added(i));
            if (strcmp(metric, "besom/cpu/gc:nanoseconds") == 0) cpu = stops_added(i);
        }
        if (timed && strstr(metric, "assist") != NULL && stops_list[i].kind != BESOM_METRIC_GAUGE)
            assists = 1, assist += stops_added(i);
    }
    REPORT("us", (double)longest / 1e3, "%s: longest stop", name);
    REPORT("ms", (double)stopped / 1e6, "%s: all stops", name);
    REPORT("us", (double)delay / 1e3, "%s: longest time to a safepoint", name);
    if (assists) REPORT("ms", (double)assist / 1e6, "%s: assists", name);
    REPORT("ms", (double)cpu / 1e6, "%s: collector's CPU", name);
    free(stops_before), free(stops_after);
}

#elif defined(PEER_LIBGC)
#define STOPS_KNOWN 1
typedef struct {
    uint64_t n, sum, longest;
} stops_times;
static stops_times stops_whole, stops_delay, stops_marks;
static uint64_t stops_asked, stops_mark_began;
static GC_word stops_cycles;
static int stops_on;

PEER_NOINLINE void stops_add(stops_times *times, uint64_t ns) {
    times->n++, times->sum += ns;
    if (ns > times->longest) times->longest = ns;
}
/* Under libgc's lock, at times with the world stopped: no allocation. */
static void stops_event(GC_EventType event) {
    const uint64_t now = now_ns();
    if (!stops_on) return;
    if (event == GC_EVENT_PRE_STOP_WORLD) stops_asked = now;
    if (event == GC_EVENT_POST_STOP_WORLD && stops_asked) stops_add(&stops_delay, now - stops_asked);
    if (event == GC_EVENT_POST_START_WORLD && stops_asked) stops_add(&stops_whole, now - stops_asked), stops_asked = 0;
    if (event == GC_EVENT_MARK_START) stops_mark_began = now;
    if (event == GC_EVENT_MARK_END && stops_mark_began) stops_add(&stops_marks, now - stops_mark_began);
}
PEER_INLINE void stops_start(void) {
    GC_set_on_collection_event(stops_event);
    stops_cycles = GC_get_gc_no();
    stops_on = 1;
}
PEER_INLINE void stops_end(void) {
    stops_on = 0;
    stops_cycles = GC_get_gc_no() - stops_cycles;
}
PEER_NOINLINE void stops_report(const char *name) {
    const struct {
        const char *what;
        const stops_times *times;
    } all[] = {{"stops", &stops_whole}, {"to the stop", &stops_delay}, {"marking in stops", &stops_marks}};
    printf("  %s: %lu cycles\n", GC_is_incremental_mode() ? "incremental" : "not incremental", (unsigned long)stops_cycles);
    for (int i = 0; i < 3; i++)
        printf("  %s: %" PRIu64 ", longest %.1f us, in sum %.1f us\n", all[i].what, all[i].times->n,
               (double)all[i].times->longest / 1e3, (double)all[i].times->sum / 1e3);
    REPORT("us", (double)stops_whole.longest / 1e3, "%s: longest stop", name);
    REPORT("ms", (double)stops_whole.sum / 1e6, "%s: all stops", name);
    REPORT("us", (double)stops_delay.longest / 1e3, "%s: longest time to a safepoint", name);
}

#else
#define STOPS_KNOWN 0
PEER_INLINE void stops_start(void) {}
PEER_INLINE void stops_end(void) {}
PEER_INLINE void stops_report(const char *name) { (void)name; }
#endif
#endif
