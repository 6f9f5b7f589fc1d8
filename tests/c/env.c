/* The environment: each BESOM_* variable, well formed and not. A child reads it, so that each test starts clean. */
#include "check.h"
#include <errno.h>
#include <regex.h>
#include <sys/wait.h>

extern char **environ;

typedef struct outcome {
    besom_options options;
    char text[8192]; /* what it printed on stderr */
    int lines;
} outcome;

/* besom_options_init in a child whose environment holds these, "NAME=value" up to NULL. */
static outcome init_with(const char *a, const char *b)
{
    outcome r;
    int err[2], out[2], status;
    pid_t child;
    size_t n = 0;
    ssize_t got;
    char *c;
    memset(&r, 0, sizeof r);
    NEED(pipe(err) == 0 && pipe(out) == 0);
    fflush(NULL);
    child = fork();
    NEED(child >= 0);
    if (child == 0) {
        if (a != NULL) putenv(strdup(a));
        if (b != NULL) putenv(strdup(b));
        dup2(err[1], 2);
        besom_options_init(&r.options);
        if (write(out[1], &r.options, sizeof r.options) != (ssize_t)sizeof r.options) _exit(1);
        _exit(0);
    }
    close(err[1]);
    close(out[1]);
    NEED(read(out[0], &r.options, sizeof r.options) == (ssize_t)sizeof r.options);
    while ((got = read(err[0], r.text + n, sizeof r.text - 1 - n)) > 0) n += (size_t)got;
    close(err[0]);
    close(out[0]);
    NEED(waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
    for (c = r.text; *c != 0; c++) r.lines += *c == '\n';
    return r;
}

static int matches(const char *text, const char *pattern)
{
    regex_t re;
    int found;
    NEED(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB) == 0);
    found = regexec(&re, text, 0, NULL, 0) == 0;
    regfree(&re);
    return found;
}

#define SET(variable, field, expected)                                                                                 \
    do {                                                                                                               \
        outcome r = init_with(variable, NULL);                                                                         \
        CHECK_EQ(r.options.field, expected);                                                                           \
        if (r.lines != 0) printf("%s printed: %s", variable, r.text);                                                  \
        CHECK_EQ(r.lines, 0);                                                                                          \
    } while (0)

static void good_values_are_taken(void)
{
    SET("BESOM_HEAP_LIMIT=1048576", heap_limit, 1048576);
    SET("BESOM_HEAP_LIMIT=64m", heap_limit, 64 << 20);
    SET("BESOM_HEAP_LIMIT=64M", heap_limit, 64 << 20);
    SET("BESOM_HEAP_LIMIT=3g", heap_limit, (size_t)3 << 30);
    SET("BESOM_HEAP_LIMIT=0", heap_limit, 0);
    SET("BESOM_MEMORY_LIMIT=100k", memory_limit, 100 << 10);
    SET("BESOM_GC_PERCENT=0", gc_percent, 0);
    SET("BESOM_GC_PERCENT=250", gc_percent, 250);
    SET("BESOM_PROCS=3", procs, 3);
    SET("BESOM_PROCS=4096", procs, BESOM_PROCS_MAX);
    SET("BESOM_MARK_WORKERS=2", mark_workers, 2);
    SET("BESOM_SCAN_NATIVE_STACKS=0", scan_native_stacks, 0);
    SET("BESOM_SCAN_NATIVE_STACKS=1", scan_native_stacks, 1);
    SET("BESOM_TINY=0", tiny, 0);
    SET("BESOM_GC_TRACE=1", gc_trace, 1);
    SET("BESOM_VERIFY=off", verify, BESOM_VERIFY_OFF);
    SET("BESOM_VERIFY=marks", verify, BESOM_VERIFY_MARKS);
    SET("BESOM_VERIFY=heap", verify, BESOM_VERIFY_HEAP);
    SET("BESOM_VERIFY=both", verify, BESOM_VERIFY_BOTH);
    SET("BESOM_COLLECT_EVERY=17", collect_every, 17);
    SET("BESOM_CLOBBER_FREE=1", clobber_free, 1);
    SET("NOT_BESOM=1", gc_percent, 100);
}

#define BAD(name, value)                                                                                               \
    do {                                                                                                               \
        outcome r = init_with(name "=" value, NULL), plain = init_with(NULL, NULL);                                    \
        if (r.lines != 1 || !matches(r.text, "^besom: " name "=.*, expected .*; ignored\n$") ||                        \
            strncmp(r.text + 7, name "=" value ",", strlen(name "=" value ",")) != 0) {                                \
            printf("%s=%s printed: %s\n", name, value, r.text);                                                        \
            check_fail(__FILE__, __LINE__, "one line that names it: " name "=" value);                                 \
        }                                                                                                              \
        CHECK(memcmp(&r.options, &plain.options, sizeof r.options) == 0);                                              \
    } while (0)

static void bad_values_are_named_and_ignored(void)
{
    BAD("BESOM_HEAP_LIMIT", "");
    BAD("BESOM_HEAP_LIMIT", "lots");
    BAD("BESOM_HEAP_LIMIT", "-1");
    BAD("BESOM_HEAP_LIMIT", "12x");
    BAD("BESOM_HEAP_LIMIT", "12mm");
    BAD("BESOM_HEAP_LIMIT", "m");
    BAD("BESOM_HEAP_LIMIT", " 12");
    BAD("BESOM_HEAP_LIMIT", "18446744073709551616");
    BAD("BESOM_HEAP_LIMIT", "18446744073709551615g"); /* overflows by its suffix */
    BAD("BESOM_MEMORY_LIMIT", "1.5g");
    BAD("BESOM_GC_PERCENT", "100%");
    BAD("BESOM_GC_PERCENT", "4294967296");
    BAD("BESOM_PROCS", "many");
    BAD("BESOM_PROCS", "4097");
    BAD("BESOM_MARK_WORKERS", "-2");
    BAD("BESOM_SCAN_NATIVE_STACKS", "2");
    BAD("BESOM_SCAN_NATIVE_STACKS", "perhaps");
    BAD("BESOM_TINY", "-1");
    BAD("BESOM_GC_TRACE", "loud");
    BAD("BESOM_VERIFY", "everything");
    BAD("BESOM_VERIFY", "4");
    BAD("BESOM_COLLECT_EVERY", "-3");
    BAD("BESOM_COLLECT_EVERY", "2147483648");
    BAD("BESOM_CLOBBER_FREE", "0x1");
}

static void unknown_names_are_named(void)
{
    outcome r = init_with("BESOM_HAEP_LIMIT=1g", NULL);
    CHECK_EQ(r.lines, 1);
    CHECK(matches(r.text, "^besom: BESOM_HAEP_LIMIT=1g, expected .*; ignored\n$"));
    CHECK_EQ(r.options.heap_limit, 0);
    r = init_with("BESOM_=", "BESOM_HEAP_LIMIT_=3"); /* one line each */
    CHECK_EQ(r.lines, 2);
    CHECK(matches(r.text, "besom: BESOM_=,? ?expected .*; ignored\n") || matches(r.text, "besom: BESOM_=, expected"));
    CHECK(matches(r.text, "besom: BESOM_HEAP_LIMIT_=3, expected .*; ignored\n"));
    r = init_with("BESOM_GC_PERCENT=1x", "BESOM_PROCS=5"); /* the good one counts beside a bad one */
    CHECK_EQ(r.lines, 1);
    CHECK(r.options.gc_percent == 100 && r.options.procs == 5);
}

static void odd_bytes_do_no_harm(void)
{
    static char name[5000];
    outcome r;
    memset(name, 'x', sizeof name - 1);
    memcpy(name, "BESOM_HEAP_LIMIT=", 17);
    r = init_with(name, NULL); /* long: cut, but one line, with the name */
    CHECK_EQ(r.lines, 1);
    CHECK(strncmp(r.text, "besom: BESOM_HEAP_LIMIT=xxxx", 28) == 0);
    r = init_with("BESOM_PROCS=\xff\xfe", NULL); /* no UTF-8 */
    CHECK_EQ(r.lines, 1);
    CHECK(strncmp(r.text, "besom: BESOM_PROCS=", 19) == 0);
    r = init_with("BESOM_PROCS=1\n2", NULL); /* a line break in it makes no second line */
    CHECK_EQ(r.lines, 1);
}

static void gc_trace_prints_a_line_a_cycle(void)
{
    int err[2], saved = dup(2), lines = 0, i;
    char text[8192];
    ssize_t n;
    besom_options o;
    besom_mutator *m;
    besom_heap *heap;
    NEED(pipe(err) == 0);
    fflush(stderr);
    dup2(err[1], 2);
    besom_options_init(&o);
    o.gc_trace = 1;
    o.scan_native_stacks = 0;
    heap = check_heap(&o, &m);
    for (i = 0; i < 3; i++) CHECK_OK(besom_collect(m));
    check_heap_end(heap, m);
    dup2(saved, 2);
    close(err[1]);
    n = read(err[0], text, sizeof text - 1);
    close(err[0]);
    text[n > 0 ? n : 0] = 0;
    for (i = 0; text[i] != 0; i++) lines += text[i] == '\n';
    CHECK_EQ(lines, 3);
    CHECK(matches(text, "^besom: heap [0-9]+ gc 1 @"));
    CHECK(matches(text, "\nbesom: heap [0-9]+ gc 3 @"));
}

/* The debugging modes change nothing that the program can see. */
static void debugging_modes_are_harmless(void)
{
    static const char *const modes[] = {"collect_every", "clobber_free", "verify marks", "verify heap", "all"};
    size_t k;
    for (k = 0; k < sizeof modes / sizeof *modes; k++) {
        besom_options o;
        besom_mutator *m;
        besom_heap *heap;
        besom_stats s;
        void **head = NULL, **p;
        int i, length = 0;
        besom_options_init(&o);
        o.scan_native_stacks = 0;
        if (k == 0 || k == 4) o.collect_every = 10;
        if (k == 1 || k == 4) o.clobber_free = 1;
        if (k == 2 || k == 4) o.verify |= BESOM_VERIFY_MARKS;
        if (k == 3 || k == 4) o.verify |= BESOM_VERIFY_HEAP;
        heap = check_heap(&o, &m);
        BESOM_FRAME(m, &head);
        for (i = 0; i < 2000; i++) {
            p = (void **)besom_alloc(m, (size_t)(16 + i % 200), BESOM_VALUES);
            NEED(p != NULL);
            CHECK(check_is_zero(p, (size_t)(16 + i % 200)));
            if (i % 3 == 0) {
                besom_write(m, p, p, head);
                head = p;
                length++;
            }
            (void)besom_alloc(m, (size_t)(i % 20), BESOM_NOSCAN);
            if (i % 500 == 0) CHECK_OK(besom_collect(m));
        }
        for (p = head; p != NULL; p = (void **)*p) length--;
        CHECK_EQ(length, 0);
        besom_stats_read(heap, &s);
        if (k == 0) CHECK(s.cycles >= 300); /* 4,000 allocations, one in ten */
        BESOM_FRAME_END(m);
        check_heap_end(heap, m);
    }
}

static void clobbered_memory_shows(void)
{
    besom_options o;
    besom_mutator *m;
    besom_heap *heap;
    volatile uint64_t *stale, *stays;
    besom_options_init(&o);
    o.scan_native_stacks = 0;
    o.clobber_free = 1;
    heap = check_heap(&o, &m);
    stays = (uint64_t *)besom_alloc(m, 64, BESOM_NOSCAN); /* holds the span, so that it stays mapped */
    {
        void *keep = (void *)(uintptr_t)stays;
        BESOM_FRAME(m, &keep);
        stale = (uint64_t *)besom_alloc(m, 64, BESOM_NOSCAN);
        stale[3] = 12345;
        CHECK_OK(besom_collect(m));
        CHECK(stale[3] != 12345 && stale[3] != 0 && stale[3] == stale[4]);
        BESOM_FRAME_END(m);
    }
    check_heap_end(heap, m);
}

int main(void)
{
    char **e;
    for (e = environ; *e != NULL;) { /* a clean start */
        if (strncmp(*e, "BESOM_", 6) == 0) {
            char name[256];
            snprintf(name, sizeof name, "%.*s", (int)strcspn(*e, "="), *e);
            unsetenv(name);
            e = environ;
        } else {
            e++;
        }
    }
    RUN(good_values_are_taken);
    RUN(bad_values_are_named_and_ignored);
    RUN(unknown_names_are_named);
    RUN(odd_bytes_do_no_harm);
    RUN(gc_trace_prints_a_line_a_cycle);
    RUN(debugging_modes_are_harmless);
    if (!check_watched()) RUN(clobbered_memory_shows);
    return check_done();
}
