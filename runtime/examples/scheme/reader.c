/* The reader. It remembers the file and line of every pair of the last datum, beside the heap: objects do not move. */
#include "scheme.h"
#include <ctype.h>
#include <wctype.h>

struct position { Value pair; int line; const char *file; };
struct positions { struct position *slots; size_t room, count; }; /* open addressing; room is a power of two */
/* Depth of nested data. The reader recurses: more needs more C stack, less refuses data that machines write. */
enum { MAX_DEPTH = 3000 };

static size_t position_slot(struct positions *p, Value pair) {
    size_t i = (pair >> 4) * 0x9E3779B97F4A7C15u >> 20 & (p->room - 1);
    while (p->slots[i].pair && p->slots[i].pair != pair) i = (i + 1) & (p->room - 1);
    return i;
}

void position_set(vm *v, Value pair, int line, const char *file) {
    if (!IS_PAIR(pair)) return;
    struct positions *p = v->positions;
    if (!p && !(p = v->positions = calloc(1, sizeof *p))) return;
    if (2 * p->count >= p->room) {
        struct positions old = *p; size_t room = old.room ? 2 * old.room : 256;
        struct position *slots = calloc(room, sizeof *slots);
        if (!slots) return; /* lines are a convenience */
        p->slots = slots, p->room = room;
        for (size_t i = 0; i < old.room; i++)
            if (old.slots[i].pair) p->slots[position_slot(p, old.slots[i].pair)] = old.slots[i];
        free(old.slots);
    }
    struct position *s = &p->slots[position_slot(p, pair)]; p->count += s->pair == 0;
    *s = (struct position){pair, line, file};
}

int position_of(vm *v, Value pair, const char **file) {
    if (!v->positions || v->positions->room == 0 || !IS_PAIR(pair)) return 0;
    struct position *s = &v->positions->slots[position_slot(v->positions, pair)];
    if (s->pair) *file = s->file;
    return s->pair ? s->line : 0;
}

static void forget(struct positions *p) {
    if (!p || !p->count) return;
    if (p->room > 4096) free(p->slots), p->slots = NULL, p->room = 0;
    else memset(p->slots, 0, p->room * sizeof *p->slots);
    p->count = 0;
}

void positions_free(vm *v) {
    if (v->positions) free(v->positions->slots);
    free(v->positions); v->positions = NULL;
}

struct reader { vm *v; Value port; int depth; };

static _Noreturn void bad(struct reader *r, const char *what) {
    char text[300]; struct port *p = PORT(r->port);
    snprintf(text, sizeof text, "%.200s:%u: %s", p->name, p->line, what); fail_kind(r->v, "read", text, NIL);
}

static int32_t next(struct reader *r) { return port_char(r->v, r->port, false); }
static int32_t peek(struct reader *r) { return port_char(r->v, r->port, true); }
static bool delimiter(int32_t c) { return c == -1 || c == '(' || c == ')' || c == '[' || c == ']' || c == '"' || c == ';' || c == '\'' || (c < 128 && isspace((int)c)); }
static Value datum(struct reader *), datum_from(struct reader *, int32_t first);

static void skip_block_comment(struct reader *r) {
    for (int depth = 1; depth > 0;) {
        int32_t c = next(r);
        if (c == -1) bad(r, "end of file in a comment");
        if (c == '|' && peek(r) == '#') next(r), depth--;
        else if (c == '#' && peek(r) == '|') next(r), depth++;
    }
}

/* The first character of the next datum, consumed. */
static int32_t skip_space(struct reader *r) {
    for (;;) {
        int32_t c = next(r);
        if (c == ';') {
            while (c != '\n' && c != -1) c = next(r);
        } else if (c == '#' && peek(r) == '|') next(r), skip_block_comment(r);
        else if (c == '#' && peek(r) == ';') {
            next(r); Value *base = r->v->sp;
            if (datum(r) == EOF_OBJECT) bad(r, "end of file after #;");
            r->v->sp = base;
        } else if (c == -1 || c > 127 || !isspace((int)c)) return c;
    }
}

struct text { char *at; size_t n, room; char small[256]; };
static void put(struct reader *r, struct text *t, uint32_t c) {
    if (t->n + 8 > t->room) { /* a long token moves to a heap object, so that an error leaks nothing */
        Value bigger = hold(r->v, make_bytes(r->v, (int64_t)t->room * 2));
        memcpy(BYTES(bigger)->at, t->at, t->n); t->at = (char *)BYTES(bigger)->at, t->room *= 2;
    }
    t->n += utf8_put(c, t->at + t->n); t->at[t->n] = 0;
}
#define TEXT(t) struct text t = {.room = sizeof t.small}; t.at = t.small, t.at[0] = 0

static uint32_t hex_escape(struct reader *r) {
    uint32_t n = 0;
    for (int32_t c; (c = next(r)) != ';';) {
        if (c > 127 || !isxdigit((int)c) || n > 0x10FFFF) bad(r, "bad \\x escape");
        n = n * 16 + (uint32_t)(isdigit((int)c) ? c - '0' : tolower((int)c) - 'a' + 10);
    }
    if (n > 0x10FFFF || (n >= 0xD800 && n < 0xE000)) bad(r, "bad \\x escape");
    return n;
}

static void quoted_text(struct reader *r, struct text *t, int32_t end) {
    for (int32_t c; (c = next(r)) != end;) {
        if (c == -1) bad(r, end == '"' ? "end of file in a string" : "end of file in a symbol");
        if (c != '\\') {
            put(r, t, (uint32_t)c);
            continue;
        }
        c = next(r);
        const char *letter = c > 0 && c < 128 ? strchr("n\nt\tr\ra\ab\b", (int)c) : NULL; /* each before what it stands for */
        if (letter && c >= 'a') { put(r, t, (uint32_t)letter[1]); continue; }
        switch (c) {
        case 'x': case 'X': put(r, t, hex_escape(r)); break;
        case ' ': case '\t': case '\n': /* a line break and the space around it */
            while (c == ' ' || c == '\t') c = next(r);
            if (c != '\n') bad(r, "bad escape");
            while (peek(r) == ' ' || peek(r) == '\t') next(r);
            break;
        case -1: bad(r, "end of file in a string");
        default: put(r, t, (uint32_t)c);
        }
    }
}

static Value list(struct reader *r, int32_t close) {
    vm *v = r->v; Value *base = v->sp, last = 0; hold(v, NIL);
    for (;;) {
        int32_t c = skip_space(r); uint32_t line = PORT(r->port)->line;
        if (c == -1) bad(r, "end of file in a list");
        if (c == close) break;
        if (c == ')' || c == ']') bad(r, "mismatched parenthesis");
        if (c == '.' && delimiter(peek(r)) && last) {
            Value x = datum(r); store(v, last, &CDR(last), x);
            if (skip_space(r) != close) bad(r, "expected ) after the datum behind a dot");
            break;
        }
        Value x = hold(v, datum_from(r, c)), p = cons_unrooted(v, x, NIL);
        position_set(v, p, (int)line, PORT(r->port)->name);
        if (last) store(v, last, &CDR(last), p);
        else base[0] = p;
        last = p, v->sp = base + 1;
    }
    Value out = base[0]; return v->sp = base, out;
}

const struct char_name char_names[] = { /* the printer takes the first that fits */
    {"space", ' '}, {"newline", '\n'}, {"tab", '\t'}, {"null", 0}, {"nul", 0}, {"return", '\r'}, {"linefeed", '\n'}, {"escape", 27}, {"altmode", 27},
    {"backspace", 8}, {"delete", 127}, {"rubout", 127}, {"alarm", 7}, {NULL, 0},
};
static Value character(struct reader *r) {
    TEXT(t); int32_t c = next(r);
    if (c == -1) bad(r, "end of file in a character");
    put(r, &t, (uint32_t)c); size_t first = t.n;
    while (!delimiter(peek(r))) put(r, &t, (uint32_t)next(r));
    if (t.n == first) return CHAR(c);
    for (const struct char_name *n = char_names; n->name; n++)
        if (strcmp(t.at, n->name) == 0) return CHAR(n->c);
    char *end; unsigned long n = c == 'x' ? strtoul(t.at + 1, &end, 16) : 0;
    if (c != 'x' || *end || n > 0x10FFFF || (n >= 0xD800 && n < 0xE000)) bad(r, "unknown character name");
    return CHAR(n);
}

static Value prefixed(struct reader *r, int global) {
    vm *v = r->v; uint32_t line = PORT(r->port)->line; Value x = hold(v, datum(r));
    if (x == EOF_OBJECT) bad(r, "end of file after a quote");
    Value tail = hold(v, cons_unrooted(v, x, NIL)), out = cons_unrooted(v, globals[global], tail);
    position_set(v, out, (int)line, PORT(r->port)->name); v->sp -= 2; return out;
}

static Value atom(struct reader *r, int32_t c) {
    vm *v = r->v; TEXT(t); bool verbatim = false, fold = PORT(r->port)->fold;
    for (;; c = next(r)) {
        if (c == '|') verbatim = true, quoted_text(r, &t, '|');
        else put(r, &t, fold ? (uint32_t)towlower((wint_t)c) : (uint32_t)c);
        if (delimiter(peek(r))) break;
    }
    Value n = verbatim ? FALSE : parse_number(v, t.at, 10);
    return n != FALSE ? n : intern(v, string_from(v, t.at, t.n));
}

static Value hash(struct reader *r) {
    vm *v = r->v; int32_t c = peek(r);
    if (c == '(') {
        next(r);
        return list_to_vector(v, list(r, ')'));
    }
    if (c == '\\') return next(r), character(r);
    TEXT(t); put(r, &t, '#');
    while (!delimiter(peek(r))) put(r, &t, (uint32_t)next(r));
    if (!strcmp(t.at, "#t") || !strcmp(t.at, "#true")) return TRUE;
    if (!strcmp(t.at, "#f") || !strcmp(t.at, "#false")) return FALSE;
    if (!strcmp(t.at, "#!eof")) return EOF_OBJECT;
    if (!strcmp(t.at, "#!fold-case") || !strcmp(t.at, "#!no-fold-case")) PORT(r->port)->fold = t.at[2] == 'f';
    if (!strncmp(t.at, "#!", 2)) return datum(r); /* #!fold-case, or a script's first line */
    if (!strcmp(t.at, "#u8") && peek(r) == '(') {
        next(r);
        Value l = list(r, ')'), b;
        hold(v, l); b = make_bytes(v, list_length(l));
        for (int64_t i = 0; l != NIL; l = CDR(l), i++) {
            if (!IS_FIX(CAR(l)) || UNFIX(CAR(l)) < 0 || UNFIX(CAR(l)) > 255) bad(r, "bytevector element is no byte");
            BYTES(b)->at[i] = (uint8_t)UNFIX(CAR(l));
        }
        return b;
    }
    Value n = parse_number(v, t.at, 10);
    if (n == FALSE) bad(r, "unknown # syntax");
    return n;
}

static Value datum_from(struct reader *r, int32_t c) {
    Value *base = r->v->sp, out;
    if (++r->depth > MAX_DEPTH) bad(r, "data nested too deeply");
    switch (c) {
    case -1: out = EOF_OBJECT; break;
    case '(': out = list(r, ')'); break;
    case '[': out = list(r, ']'); break;
    case ')': case ']': bad(r, "unexpected )");
    case '\'': out = prefixed(r, G_QUOTE); break;
    case '`': out = prefixed(r, G_QUASIQUOTE); break;
    case ',':
        if (peek(r) == '@') next(r), out = prefixed(r, G_SPLICING);
        else out = prefixed(r, G_UNQUOTE);
        break;
    case '"': {
        TEXT(t); quoted_text(r, &t, '"'); out = string_from(r->v, t.at, t.n);
        break;
    }
    case '#': out = hash(r); break;
    default: out = atom(r, c);
    }
    r->depth--; r->v->sp = base; return out;
}

static Value datum(struct reader *r) { return datum_from(r, skip_space(r)); }

Value read_datum(vm *v, Value port) {
    struct reader r = {v, port, 0}; hold(v, port);
    if (!v->compiler) forget(v->positions); /* an include keeps those of the form that it is in */
    Value out = datum(&r); return v->sp--, out;
}
