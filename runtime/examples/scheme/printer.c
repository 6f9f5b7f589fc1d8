/* display and write. */
#include "scheme.h"
#include <stdarg.h>

/* Depth of nested data that is printed; deeper shows as "...". More needs more C stack. */
enum { PRINT_DEPTH = 3000 };

/* Nodes of data that are walked as a tree before anyone looks for cycles: a table costs more than that. */
enum { SMALL = 500 };

/* ---- datum labels: a table by address, as a bytevector, so that an error leaks nothing ---- */
enum { OPEN = 1, LABELLED = 2, NUMBER = 4 }; /* OPEN: the walk is inside it. From NUMBER on: 1 + its number, once printed */
struct label { Value x; uint64_t state; };
struct labels { uint64_t header; size_t room, count, numbers; struct label slots[]; };
#define LABELS(t) ((struct labels *)BYTES(t))

static bool has_parts(Value x) { return IS(x, T_VECTOR) || IS(x, T_RECORD) || IS(x, T_VALUES) || IS(x, T_CONDITION); }

static bool is_small_tree(Value x, int *budget) {
    for (; IS_PAIR(x); x = CDR(x))
        if (--*budget < 0 || !is_small_tree(CAR(x), budget)) return false;
    for (int64_t i = 0; has_parts(x) && i < LENGTH(x); i++)
        if (--*budget < 0 || !is_small_tree(FIELD(x, i), budget)) return false;
    return true;
}

static Value labels_new(vm *v, size_t room) {
    Value t = make_bytes(v, (int64_t)(sizeof(struct labels) + room * sizeof(struct label)));
    return LABELS(t)->room = room, LABELS(t)->count = LABELS(t)->numbers = 0, t;
}
static struct label *label_slot(struct labels *t, Value x) { /* its own, or a free one */
    size_t i = x * 0x9E3779B97F4A7C15u >> 20 & (t->room - 1);
    while (t->slots[i].x && t->slots[i].x != x) i = (i + 1) & (t->room - 1);
    return &t->slots[i];
}
static uint64_t *label_of(vm *v, Value *table, Value x) { /* makes an entry */
    if (2 * LABELS(*table)->count >= LABELS(*table)->room) {
        Value wider = labels_new(v, 2 * LABELS(*table)->room);
        struct labels *old = LABELS(*table), *t = LABELS(wider);
        for (size_t i = 0; i < old->room; i++)
            if (old->slots[i].x) *label_slot(t, old->slots[i].x) = old->slots[i];
        t->count = old->count, *table = wider;
    }
    struct label *l = label_slot(LABELS(*table), x);
    if (!l->x) l->x = x, LABELS(*table)->count++;
    return &l->state;
}

/* Depth first: an object that is met inside itself is in a cycle. `table` is a slot of the value stack. */
static void find_shared(vm *v, Value *table, Value x, bool all, int depth) {
    Value first = x; int64_t n = 0;
    if (depth > PRINT_DEPTH) return;
    for (; IS_PAIR(x) || has_parts(x); n++, x = CDR(x)) {
        size_t before = LABELS(*table)->count; uint64_t *state = label_of(v, table, x);
        if (LABELS(*table)->count == before) { /* met before */
            if (all || *state & OPEN) *state |= LABELLED;
            break;
        }
        *state = OPEN;
        if (IS_PAIR(x)) find_shared(v, table, CAR(x), all, depth + 1);
        else {
            for (int64_t i = 0; i < LENGTH(x); i++) find_shared(v, table, FIELD(x, i), all, depth + 1);
            *label_of(v, table, x) &= ~(uint64_t)OPEN;
            break;
        }
    }
    for (; n > 0; n--, first = CDR(first)) *label_of(v, table, first) &= ~(uint64_t)OPEN;
}

Value print_labels(vm *v, Value x, int mode) {
    int budget = SMALL;
    if (!IS_PAIR(x) && !has_parts(x)) return FALSE;
    if (mode != WRITE_SHARED && is_small_tree(x, &budget)) return FALSE;
    Value *table = v->sp; hold(v, labels_new(v, 1024)); find_shared(v, table, x, mode == WRITE_SHARED, 0);
    return v->sp = table, *table;
}

static bool is_labelled(Value labels, Value x) {
    if (labels == FALSE || !(IS_PAIR(x) || has_parts(x))) return false;
    struct label *l = label_slot(LABELS(labels), x); return l->x && l->state & LABELLED;
}

/* ---- printing ---- */
static void put(vm *v, Value port, const char *s) { port_put(v, port, s, strlen(s)); }

static __attribute__((format(printf, 3, 4))) void putf(vm *v, Value port, const char *format, ...) {
    char text[200]; va_list args; va_start(args, format);
    vsnprintf(text, sizeof text, format, args); va_end(args); put(v, port, text);
}

static void print_chars(vm *v, Value port, Value s) {
    char chunk[256]; size_t n = 0;
    for (int64_t i = 0; i < LENGTH(s); i++) {
        n += utf8_put(STRING(s)->ch[i], chunk + n);
        if (n > sizeof chunk - 4) port_put(v, port, chunk, n), n = 0;
    }
    port_put(v, port, chunk, n);
}

static void print_quoted(vm *v, Value port, Value s, char quote) {
    char one[5]; one[0] = quote; port_put(v, port, one, 1);
    for (int64_t i = 0; i < LENGTH(s); i++) {
        uint32_t c = STRING(s)->ch[i];
        if (c == (uint32_t)quote || c == '\\') put(v, port, "\\");
        if (c == '\n') put(v, port, "\\n");
        else if (c == '\t') put(v, port, "\\t");
        else if (c == '\r') put(v, port, "\\r");
        else if (c < 32 || c == 127) putf(v, port, "\\x%x;", c);
        else port_put(v, port, one, utf8_put(c, one));
    }
    one[0] = quote; port_put(v, port, one, 1);
}

static void print_symbol(vm *v, Value port, Value name) {
    int64_t n = LENGTH(name); bool plain = n > 0 && n < 200;
    for (int64_t i = 0; i < n && plain; i++) {
        uint32_t c = STRING(name)->ch[i];
        plain = c > 32 && c != 127 && !(c < 128 && strchr("()[]\"';`,|", (int)c)) && !(i == 0 && c == '#');
    }
    if (plain && STRING(name)->ch[0] < 128 && strchr("+-.0123456789", (int)STRING(name)->ch[0])) {
        char text[210];
        for (int64_t i = 0; i <= n; i++) text[i] = i < n && STRING(name)->ch[i] < 128 ? (char)STRING(name)->ch[i] : 0;
        plain = strcmp(text, ".") != 0 && (n == 1 || parse_number(v, text, 10) == FALSE);
        if (n == 1 && STRING(name)->ch[0] >= '0' && STRING(name)->ch[0] <= '9') plain = false;
    }
    if (plain) print_chars(v, port, name);
    else print_quoted(v, port, name, '|');
}

static void print_char(vm *v, Value port, uint32_t c) {
    char text[5] = {0};
    for (const struct char_name *n = char_names; n->name; n++)
        if (n->c == c) return putf(v, port, "#\\%s", n->name);
    if (c < 32) return putf(v, port, "#\\x%x", c);
    utf8_put(c, text); putf(v, port, "#\\%s", text);
}

static void print_at(vm *v, Value port, Value x, bool write, Value labels, int depth);

static void print_items(vm *v, Value port, Value x, int64_t from, bool write, Value labels, int depth) {
    for (int64_t i = from; i < LENGTH(x); i++) {
        if (i > from) put(v, port, " ");
        print_at(v, port, FIELD(x, i), write, labels, depth);
    }
}

static void print_pair(vm *v, Value port, Value x, bool write, Value labels, int depth) {
    static const struct { int global; const char *prefix; } prefixes[] = {{G_QUOTE, "'"}, {G_QUASIQUOTE, "`"}, {G_UNQUOTE, ","}, {G_SPLICING, ",@"}};
    if (IS_PAIR(CDR(x)) && CDDR(x) == NIL && !is_labelled(labels, CDR(x)))
        for (int i = 0; i < 4; i++)
            if (CAR(x) == globals[prefixes[i].global]) {
                put(v, port, prefixes[i].prefix); return print_at(v, port, CADR(x), write, labels, depth);
            }
    put(v, port, "(");
    for (;;) {
        print_at(v, port, CAR(x), write, labels, depth); x = CDR(x);
        if (!IS_PAIR(x) || is_labelled(labels, x)) break;
        put(v, port, " ");
    }
    if (x != NIL) put(v, port, " . "), print_at(v, port, x, write, labels, depth);
    put(v, port, ")");
}

static void print_named(vm *v, Value port, const char *what, Value name) {
    putf(v, port, "#<%s", what);
    if (name) put(v, port, " "), print_at(v, port, IS_PAIR(name) ? NIL : name, false, FALSE, PRINT_DEPTH - 1);
    put(v, port, ">");
}

static void print_at(vm *v, Value port, Value x, bool write, Value labels, int depth) {
    char text[80];
    if (++depth > PRINT_DEPTH) return put(v, port, "...");
    if (IS_NUMBER(x)) return format_number(x, 10, text), put(v, port, text);
    if (IS_CHAR(x)) {
        if (write) return print_char(v, port, UNCHAR(x));
        return port_put(v, port, text, utf8_put(UNCHAR(x), text));
    }
    if (IS_SPECIAL(x)) return put(v, port, "#<syntax>");
    if (!IS_POINTER(x)) {
        const char *names[] = {"()", "#f", "#t", "#<unspecified>", "#<eof>", "#<unbound>", "#<call>"};
        return put(v, port, names[x >> 8]);
    }
    if (is_labelled(labels, x)) {
        uint64_t *state = &label_slot(LABELS(labels), x)->state;
        if (*state >= NUMBER) return putf(v, port, "#%u#", (unsigned)(*state / NUMBER - 1));
        *state += NUMBER * (uint64_t)++LABELS(labels)->numbers;
        putf(v, port, "#%u=", (unsigned)LABELS(labels)->numbers - 1);
    }
    if (IS_PAIR(x)) return print_pair(v, port, x, write, labels, depth);
    switch (TYPE(x)) {
    case T_VECTOR: put(v, port, "#("), print_items(v, port, x, 0, write, labels, depth), put(v, port, ")"); break;
    case T_VALUES: print_items(v, port, x, 0, write, labels, depth); break;
    case T_STRING:
        if (write) print_quoted(v, port, x, '"');
        else print_chars(v, port, x);
        break;
    case T_SYMBOL:
        if (write) print_symbol(v, port, SYMBOL(x)->name);
        else print_chars(v, port, SYMBOL(x)->name);
        break;
    case T_BYTES:
        put(v, port, "#u8(");
        for (int64_t i = 0; i < LENGTH(x); i++) putf(v, port, i ? " %d" : "%d", BYTES(x)->at[i]);
        put(v, port, ")");
        break;
    case T_RECORD: {
        Value fields = FIELD(FIELD(x, 0), 1);
        put(v, port, "#<"), print_at(v, port, FIELD(FIELD(x, 0), 0), false, labels, depth);
        for (int64_t i = 0; i < LENGTH(fields); i++) {
            put(v, port, " "), print_at(v, port, FIELD(fields, i), false, labels, depth);
            put(v, port, "="), print_at(v, port, FIELD(x, i + 1), true, labels, depth);
        }
        put(v, port, ">"); break;
    }
    case T_CONDITION: print_named(v, port, "condition", FIELD(x, CONDITION_MESSAGE)); break;
    case T_CLOSURE: {
        struct code *c = CODE(CLOSURE(x)->code);
        print_named(v, port, "procedure", c->name ? TAGGED(c->name, TAG_OBJECT) : 0); break;
    }
    case T_BUILTIN: putf(v, port, "#<procedure %s>", PRIMITIVE(x)->def->name); break;
    case T_THREAD: print_named(v, port, "thread", FIELD(x, THREAD_NAME)); break;
    case T_RTD: print_named(v, port, "record-type", FIELD(x, 0)); break;
    case T_ALIAS: print_at(v, port, ALIAS(x)->name, write, labels, depth); break;
    default: {
        static const char *const names[] = {
            [T_BOX] = "box", [T_CODE] = "code", [T_PORT] = "port", [T_TABLE] = "hash-table", [T_MACRO] = "macro", [T_PROMISE] = "promise",
            [T_MUTEX] = "mutex", [T_CONDVAR] = "condition-variable", [T_CONTINUATION] = "continuation", [T_PARAMETER] = "parameter",
            [T_CASE] = "procedure", [T_MAKER] = "procedure", [T_GETTER] = "procedure", [T_SETTER] = "procedure", [T_ISA] = "procedure",
        };
        putf(v, port, "#<%s>", names[TYPE(x)]);
    }
    }
}

void print_labelled(vm *v, Value port, Value x, int mode, Value labels) { print_at(v, port, x, mode != DISPLAY, labels, 0); }
void print(vm *v, Value port, Value x, int mode) {
    Value labels = hold(v, print_labels(v, x, mode)); print_labelled(v, port, x, mode, labels);
    v->sp--;
}
