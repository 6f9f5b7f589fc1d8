/* The command: options, start, files, the toplevel, the end. */
#include "scheme.h"
#include <errno.h>
#include <locale.h>
#include <unistd.h>

/* Bytes of value stack of the main thread, reserved and committed as touched: some millions of frames. */
#define MAIN_STACK ((size_t)256 << 20)

/* What is easier in Scheme, as a C string that the build makes of prelude.scm. */
static const char prelude[] =
#include "prelude.inc"
    ;

char **scheme_arguments; static bool print_stats; static const char *metrics_file, *timeline;

static void stats(void) {
    besom_stats s; besom_stats_read(heap, &s);
#define SIGNED(field) fprintf(stderr, "  %-20s %14lld\n", #field, (long long)s.field);
#define UNSIGNED(field) fprintf(stderr, "  %-20s %14llu\n", #field, (unsigned long long)s.field);
    fputs("besom statistics\n", stderr);
    SIGNED(committed) SIGNED(released) SIGNED(in_heap) SIGNED(in_stacks) SIGNED(in_work_bufs) SIGNED(in_metadata)
    UNSIGNED(total_alloc_bytes) UNSIGNED(total_free_bytes) UNSIGNED(alloc_count) UNSIGNED(free_count) UNSIGNED(tiny_allocs)
    UNSIGNED(cycles) UNSIGNED(forced_cycles) UNSIGNED(pause_total_ns) UNSIGNED(pause_max_ns) UNSIGNED(live_bytes)
    UNSIGNED(next_goal) UNSIGNED(peak_footprint)
}

/* Writes all metrics, in JSON or in Prometheus' text; false, and a line on stderr, if it cannot. */
static bool metrics(void) {
    char *text = NULL; size_t n = 0, length = strlen(metrics_file); besom_status status;
    bool json = length > 5 && !strcmp(metrics_file + length - 5, ".json");
    while ((status = (json ? besom_metrics_json : besom_metrics_prometheus)(heap, text, n, &n)) == BESOM_ERR_LIMIT && (text = realloc(text, n))) {}
    FILE *f = status == BESOM_OK ? fopen(metrics_file, "w") : NULL; if (f && fwrite(text, 1, n, f) == n && !fclose(f)) return true;
    return fprintf(stderr, "scheme: cannot write %s: %s\n", metrics_file, strerror(errno)), false;
}

_Noreturn void scheme_exit(vm *v, int status) {
    extern int output_error; ports_flush_all(v); bool failed = output_error != 0;
    if (failed) fprintf(stderr, "scheme: cannot write: %s\n", strerror(output_error));
    if (metrics_file && !metrics()) failed = true;
    if (timeline && besom_timeline_stop(heap) == BESOM_ERR_LIMIT) failed = fprintf(stderr, "scheme: cannot write %s\n", timeline) > 0;
    if (print_stats) stats();
    exit(status == 0 && failed ? 74 : status); /* other threads may be attached, so the heap ends with the process */
}

static void report(vm *v, Value c) {
    Value *base = v->sp, port = hold(v, port_string_out(v));
    if (IS(FIELD(c, CONDITION_WHERE), T_STRING)) print(v, port, FIELD(c, CONDITION_WHERE), false), port_put(v, port, ": ", 2);
    print(v, port, FIELD(c, CONDITION_MESSAGE), false);
    for (Value l = FIELD(c, CONDITION_IRRITANTS); IS_PAIR(l); l = CDR(l)) port_put(v, port, " ", 1), print(v, port, CAR(l), true);
    port_put(v, port, "\n", 1); ports_flush_all(v); fwrite(PORT(port)->buffer->at, 1, PORT(port)->at, stderr);
    v->sp = base;
}

/* Calls a global procedure at the bottom of the stack, with a string if there is one. False: an error was reported. */
static bool toplevel(vm *v, const char *name, const char *argument) {
    jmp_buf top; jmp_buf *volatile outer = v->on_exit; v->on_exit = v->on_error = &top;
    if (setjmp(top)) {
        jmp_buf again;
        v->on_error = v->on_exit = &again; /* memory may be so short that the report fails too */
        v->sp = v->stack + REGISTERS, v->fp = v->sp, v->ip = halt_code, v->compiler = NULL;
        for (int i = 0; i < REG_THREAD; i++) v->stack[i] = NIL;
        Value c = v->stack[REG_LAST];
        if (setjmp(again)) fputs("out of memory\n", stderr);
        else report(v, hold(v, c));
        v->on_exit = outer; return false;
    }
    v->sp = v->stack + REGISTERS; Value form = NIL;
    if (argument) form = hold(v, cons(v, hold(v, string_from_c(v, argument)), NIL));
    form = hold(v, cons(v, symbol(v, name), form));
    vm_run(v, compile(v, form)); v->on_exit = outer; return true;
}

static void boot(vm *v) {
    jmp_buf failed; v->on_error = &failed;
    if (setjmp(failed)) alloc_slow_error(v);
    heap_boot(v); boot_compiler(); define_builtins(v);
    boot_syntax(v), boot_ports(v), boot_tables(), boot_threads(v), boot_primitives(v);
    Value bytes = hold(v, make_bytes(v, (int64_t)strlen(prelude)));
    memcpy(BYTES(bytes)->at, prelude, strlen(prelude)); Value port = port_memory_in(v, bytes, false);
    PORT(port)->name = "<prelude>";
    besom_handle *h = besom_handle_new(v->m, ADDRESS(port)); /* vm_run cuts the stack to its bottom */
    for (Value form; v->sp = v->stack + REGISTERS, (form = read_datum(v, TAGGED(besom_handle_get(v->m, h), TAG_OBJECT))) != EOF_OBJECT;)
        vm_run(v, compile(v, form));
    besom_handle_free(heap, h); global_set(v, G_REWIND, SYMBOL(symbol(v, "%rewind"))->value);
    global_set(v, G_RAISE, SYMBOL(symbol(v, "raise"))->value); reserve_refill(v); booting = false;
}

static size_t size_of(const char *text) {
    char *end; errno = 0; unsigned long long n = strtoull(text, &end, 10);
    int shift = *end == 'k' || *end == 'K' ? 10 : *end == 'm' || *end == 'M' ? 20 : *end == 'g' || *end == 'G' ? 30 : 0;
    if (end == text || end[shift != 0] != 0 || *text == '-' || errno != 0 || n > SIZE_MAX >> shift) {
        fprintf(stderr, "scheme: --heap-limit: expected a size like 64m, not '%s'\n", text); exit(64);
    }
    return (size_t)n << shift;
}

static const char help[] =
    "usage: scheme [option ...] [file [argument ...]]\n"
    "Runs a Scheme program (R7RS-small without bignums and libraries), or reads expressions from the terminal.\n"
    "  -e EXPR              evaluate EXPR and print its value; may be repeated\n"
    "  -i                   go on with the terminal after the file or the expressions\n"
    "  --heap-limit N[kmg]  at most N bytes of heap; beyond it the program gets the error 'out of memory'\n"
    "  --gc-stats           print the collector's statistics at exit\n"
    "  --metrics FILE       write its metrics at exit: as JSON if FILE ends in .json, else as Prometheus' text\n"
    "  --gc-timeline FILE   write a picture of the run, for https://ui.perfetto.dev\n"
    "  --help, --version\n"
    "The collector also reads BESOM_* from the environment.\n";

int main(int argc, char **argv) {
    const char *value, *expressions[64]; int expression_count = 0, i = 1; bool interactive = false, ok = true;
    besom_options options; setlocale(LC_CTYPE, "C.UTF-8"); besom_options_init(&options);
    for (; i < argc && argv[i][0] == '-' && argv[i][1]; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) return fputs(help, stdout), 0;
        if (!strcmp(argv[i], "--version")) return printf("scheme on besom %s\n", besom_version()), 0;
        if (!strcmp(argv[i], "--gc-stats")) print_stats = true;
        else if (!strcmp(argv[i], "-i")) interactive = true;
        else if (!strcmp(argv[i], "-e") && i + 1 < argc && expression_count < 64) expressions[expression_count++] = argv[++i];
#define VALUE(name) (!strcmp(argv[i], name) && i + 1 < argc ? argv[++i] : !strncmp(argv[i], name "=", sizeof name) ? argv[i] + sizeof name : NULL)
        else if ((value = VALUE("--heap-limit"))) options.heap_limit = size_of(value);
        else if ((value = VALUE("--metrics"))) metrics_file = value;
        else if ((value = VALUE("--gc-timeline"))) timeline = value;
        else return fprintf(stderr, "scheme: unknown option '%s', or its value is missing\n%s", argv[i], help), 64;
    }
    options.encoding = (besom_encoding){.mask = 1, .tag = 1, .address = ~(uint64_t)7}; /* odd words are pointers, tagged below bit 3 */
    options.scan_native_stacks = 0; /* C locals are no roots: what must live is on the VM stack */
    besom_status status = besom_heap_new(&options, &heap);
    if (status != BESOM_OK) return fprintf(stderr, "scheme: cannot make the heap: %s\n", besom_status_name(status)), 70;
    if (timeline && besom_timeline_start(heap, timeline) != BESOM_OK) return fprintf(stderr, "scheme: cannot make %s\n", timeline), 73;
    vm *v = vm_new(MAIN_STACK);
    if (!v || besom_roots_add(heap, globals, GLOBALS, BESOM_VALUES) != BESOM_OK) return fputs("scheme: no memory\n", stderr), 70;
    scheme_arguments = argv + i; v->is_main = true; boot(v);
    for (int k = 0; k < expression_count && ok; k++) ok = toplevel(v, "%eval-string", expressions[k]);
    if (ok && i < argc) ok = toplevel(v, "load", argv[i]);
    if (interactive || (i == argc && expression_count == 0)) {
        while (!toplevel(v, "%repl", NULL)) {}
        ok = true;
    }
    scheme_exit(v, ok ? 0 : 70);
}
