/* The heap as this VM sets it up, the objects on it, symbols, and the threads' stacks. */
#include "scheme.h"
#include <sys/mman.h>
#include <sys/resource.h>

besom_heap *heap;
Value globals[GLOBALS];
bool booting = true;
static pthread_mutex_t symbols_lock = PTHREAD_MUTEX_INITIALIZER;
/* Buckets of the symbol table. More: memory of an idle interpreter; fewer: longer chains in string->symbol. */
enum { SYMBOL_BUCKETS = 4096 };
/* Words between a stack's limit and its true end: what the compiler's own frames and handlers may use unchecked. */
enum { STACK_RESERVE = 4096 };
/* Bytes of C stack that recursion on data may use, if the system allows as much. More: deeper data; less: smaller threads will do. */
enum { C_STACK = 2 << 20 };

void global_set(vm *v, int which, Value x) { besom_write_value(v->m, NULL, &globals[which], x); }

/* Bytes kept for handlers of `out of memory`, which allocate before they let go of anything. Less, and a handler may fail too. */
enum { RESERVE = 256 << 10 };
void reserve_refill(vm *v) {
    struct bytes *b = besom_alloc(v->m, RESERVE, BESOM_NOSCAN);
    if (!b) return;
    b->header = HEADER(T_BYTES, 0); global_set(v, G_RESERVE, TAGGED(b, TAG_OBJECT));
}

void *alloc_slow_error(vm *v) {
    if (globals[G_OUT_OF_MEMORY] == 0) {
        fputs("scheme: the heap limit is too small to start\n", stderr); exit(70);
    }
    global_set(v, G_RESERVE, NIL);
    throw_value(v, globals[G_OUT_OF_MEMORY]); /* built at start: reporting must not allocate */
}

void stack_overflow(vm *v) {
    v->limit += STACK_RESERVE / 2; /* room to build the condition */
    Value kind = hold(v, symbol(v, "error")), c = condition_new(v, kind, string_from_c(v, "stack overflow"), NIL);
    v->limit -= STACK_RESERVE / 2;
    v->fp = v->sp = v->stack + REGISTERS; /* an error does not return: its handler starts on an empty stack */
    v->ip = halt_code; throw_value(v, c);
}

Value cons(vm *v, Value a, Value d) {
    hold(v, a), hold(v, d); Value p = cons_unrooted(v, a, d); v->sp -= 2;
    return p;
}

Value make_object(vm *v, int type, int64_t length, Value fill) {
    if (IS_POINTER(fill)) hold(v, fill);
    struct vector *p = alloc(v, sizeof *p + (length < 1 ? 1 : (size_t)length) * sizeof(Value), BESOM_VALUES);
    if (IS_POINTER(fill)) v->sp--;
    p->header = HEADER(type, length);
    if (fill != 0) /* memory arrives zeroed, and zero is fixnum 0 */
        for (int64_t i = 0; i < length; i++) p->item[i] = fill;
    return TAGGED(p, type >= T_CLOSURE ? TAG_PROC : TAG_OBJECT);
}

Value object_of(vm *v, int type, int n, const Value *items) {
    Value x = make_object(v, type, n, 0);
    for (int i = 0; i < n; i++) FIELD(x, i) = items[i]; /* first stores: no barrier */
    return x;
}

Value make_string(vm *v, int64_t length, uint32_t fill) {
    struct string *s = alloc(v, sizeof *s + (size_t)length * 4 + (length < 2 ? 8 : 0), BESOM_NOSCAN);
    s->header = HEADER(T_STRING, length);
    if (fill != 0)
        for (int64_t i = 0; i < length; i++) s->ch[i] = fill;
    return TAGGED(s, TAG_OBJECT);
}

Value make_bytes(vm *v, int64_t length) {
    struct bytes *b = alloc(v, sizeof *b + (length < 8 ? 8 : (size_t)length), BESOM_NOSCAN);
    b->header = HEADER(T_BYTES, length); return TAGGED(b, TAG_OBJECT);
}

size_t utf8_put(uint32_t c, char out[4]) {
    if (c < 0x80) return out[0] = (char)c, 1;
    if (c < 0x800) return out[0] = (char)(0xC0 | c >> 6), out[1] = (char)(0x80 | (c & 63)), 2;
    if (c < 0x10000)
        return out[0] = (char)(0xE0 | c >> 12), out[1] = (char)(0x80 | (c >> 6 & 63)), out[2] = (char)(0x80 | (c & 63)), 3;
    out[0] = (char)(0xF0 | c >> 18), out[1] = (char)(0x80 | (c >> 12 & 63));
    return out[2] = (char)(0x80 | (c >> 6 & 63)), out[3] = (char)(0x80 | (c & 63)), 4;
}

uint32_t utf8_get(const uint8_t **at, const uint8_t *end) {
    uint32_t c = *(*at)++; int more = c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : c >= 0xC0 ? 1 : 0;
    if (more) c &= 0x3Fu >> more;
    while (more-- > 0 && *at < end && (**at & 0xC0) == 0x80) c = c << 6 | (*(*at)++ & 63);
    return c;
}

/* From C memory, or from a port's first bytes: its buffer is looked up again after the allocation, for a thread that writes to it
 * may have put a larger one in its place. */
Value string_from_port(vm *v, Value port, const char *utf8, size_t bytes) {
    const uint8_t *at = port ? PORT(port)->buffer->at : (const uint8_t *)utf8, *end = at + bytes; int64_t n = 0;
    while (at < end) utf8_get(&at, end), n++;
    Value s = make_string(v, n, 0); at = port ? PORT(port)->buffer->at : (const uint8_t *)utf8, end = at + bytes;
    for (int64_t i = 0; i < n && at < end; i++) STRING(s)->ch[i] = utf8_get(&at, end);
    return s;
}
Value string_from(vm *v, const char *utf8, size_t bytes) { return string_from_port(v, 0, utf8, bytes); }
Value string_from_c(vm *v, const char *s) { return string_from(v, s, strlen(s)); }

char *string_to_c(vm *v, Value string) {
    int64_t n = LENGTH(string); char *out = malloc((size_t)n * 4 + 1), *p = out;
    if (!out) alloc_slow_error(v);
    for (int64_t i = 0; i < n; i++) p += utf8_put(STRING(string)->ch[i], p);
    *p = 0;
    return out;
}

/* ---- symbols ---- */
static Value symbol_find(Value bucket, Value name) {
    for (; bucket != NIL; bucket = CDR(bucket)) {
        Value n = SYMBOL(CAR(bucket))->name;
        if (LENGTH(n) == LENGTH(name) && memcmp(STRING(n)->ch, STRING(name)->ch, (size_t)LENGTH(n) * 4) == 0) return CAR(bucket);
    }
    return 0;
}

/* Nothing is allocated under the lock: an allocation may fail, and a failure leaves by longjmp. */
Value intern(vm *v, Value name) {
    Value *bucket = &FIELD(globals[G_SYMBOLS], hash_equal(name) % SYMBOL_BUCKETS), *base = v->sp;
    lock(v, &symbols_lock); Value found = symbol_find(*bucket, name); pthread_mutex_unlock(&symbols_lock);
    if (found) return found;
    hold(v, name);
    Value copy = hold(v, make_string(v, LENGTH(name), 0)); /* the caller may change its string */
    memcpy(STRING(copy)->ch, STRING(name)->ch, (size_t)LENGTH(name) * 4);
    Value s = hold(v, make_object(v, T_SYMBOL, 3, 0)), link = hold(v, cons_unrooted(v, s, NIL));
    store(v, s, &SYMBOL(s)->name, copy); store(v, s, &SYMBOL(s)->value, UNBOUND); lock(v, &symbols_lock);
    found = symbol_find(*bucket, name);
    if (!found) { store(v, link, &CDR(link), *bucket); store(v, globals[G_SYMBOLS], bucket, link); found = s; }
    pthread_mutex_unlock(&symbols_lock); return v->sp = base, found;
}

Value symbol(vm *v, const char *name) { return intern(v, string_from_c(v, name)); }

/* ---- lists ---- */
Value list_from(vm *v, int n, const Value *items, Value tail) { /* items are rooted by the caller */
    Value *base = v->sp;
    hold(v, tail);
    while (n-- > 0) *base = cons_unrooted(v, items[n], *base);
    return v->sp = base, *base;
}

int64_t list_length(Value l) {
    int64_t n = 0; Value slow = l;
    for (; IS_PAIR(l); l = CDR(l)) {
        if ((++n & 1) == 0) slow = CDR(slow);
        if (n > 1 && l == slow && (n & 1)) return -1; /* a circle */
    }
    return l == NIL ? n : -1;
}

Value list_to_vector(vm *v, Value l) {
    hold(v, l); Value r = make_object(v, T_VECTOR, list_length(l), 0); v->sp--;
    for (int64_t i = 0; IS_PAIR(l); l = CDR(l)) VECTOR(r)->item[i++] = CAR(l); /* first stores: no barrier */
    return r;
}

Value vector_to_list(vm *v, Value vec) {
    Value *base = v->sp; hold(v, vec), hold(v, NIL);
    for (int64_t i = LENGTH(vec); i-- > 0;) base[1] = cons_unrooted(v, VECTOR(vec)->item[i], base[1]);
    return v->sp = base, base[1];
}

/* ---- threads and locks ---- */
vm *vm_new(size_t stack_bytes) { /* NULL: no memory */
    vm *v = calloc(1, sizeof *v);
    if (!v) return NULL;
    struct rlimit r; /* what the main thread's stack may grow to, and what pthread_create gives to others */
    size_t c_bytes = getrlimit(RLIMIT_STACK, &r) == 0 && r.rlim_cur < C_STACK ? r.rlim_cur : C_STACK;
    v->c_limit = (char *)__builtin_frame_address(0) - c_bytes / 4 * 3; v->stack_bytes = stack_bytes;
    v->stack = mmap(NULL, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (v->stack == MAP_FAILED) return free(v), NULL;
    v->limit = v->stack + stack_bytes / sizeof(Value) - STACK_RESERVE;
    for (int i = 0; i < REGISTERS; i++) v->stack[i] = NIL;
    v->sp = v->fp = v->stack + REGISTERS;
    if (besom_attach(heap, &v->m) == BESOM_OK) {
        if (besom_stack_set(v->m, v->stack, (void **)&v->sp, BESOM_VALUES) == BESOM_OK) return v;
        besom_detach(v->m);
    }
    munmap(v->stack, stack_bytes); return free(v), NULL;
}

void check_c_stack(vm *v) {
    if ((char *)__builtin_frame_address(0) < v->c_limit) fail(v, NULL, "data nested too deeply", 0);
}

void vm_free(vm *v) {
    arena_reset(v); positions_free(v); besom_detach(v->m);
    munmap(v->stack, v->stack_bytes); free(v);
}

void lock(vm *v, pthread_mutex_t *mutex) {
    if (pthread_mutex_trylock(mutex) == 0) return;
    besom_block(v->m); /* its holder may be waiting for a collection, which would wait for us */
    pthread_mutex_lock(mutex); besom_unblock(v->m);
}

extern const struct builtin *const __start_builtins[], *const __stop_builtins[]; /* by the linker */
void define_builtins(vm *v) {
    for (const struct builtin *const *b = __start_builtins; b < __stop_builtins; b++) {
        Value s = hold(v, symbol(v, (*b)->name)), p = make_object(v, T_BUILTIN, 1, 0); PRIMITIVE(p)->def = *b;
        store(v, s, &SYMBOL(s)->value, p); v->sp--;
    }
}

void heap_boot(vm *v) {
    static const struct { int global; const char *name; } names[] = {
        {G_QUOTE, "quote"}, {G_QUASIQUOTE, "quasiquote"}, {G_UNQUOTE, "unquote"}, {G_SPLICING, "unquote-splicing"}, {G_ELLIPSIS, "..."},
        {G_UNDERSCORE, "_"}, {G_ELSE, "else"}, {G_ARROW, "=>"}, {G_DEFINE, "define"}, {G_SYNTAX_RULES, "syntax-rules"},
    };
    global_set(v, G_SYMBOLS, make_object(v, T_VECTOR, SYMBOL_BUCKETS, NIL));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) global_set(v, names[i].global, symbol(v, names[i].name));
    Value *base = v->sp, kind = hold(v, symbol(v, "memory")), text = hold(v, string_from_c(v, "out of memory"));
    global_set(v, G_OUT_OF_MEMORY, condition_new(v, kind, text, NIL)); v->sp = base;
}
