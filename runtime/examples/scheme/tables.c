/* Hash tables (SRFI 69): chains of pairs in a vector of buckets. Objects do not move, so addresses are good hashes. A thread that
 * shares a table with others must hold a mutex, but without one it loses entries at worst: every access is to a vector
 * by its own length. Of a weak table an entry whose key is an object stands in an ephemeron, which drops it when the key dies, also
 * if the value leads to the key; what is left of it goes when the table would grow. */
#include "scheme.h"

enum { BY_EQ, BY_EQV, BY_EQUAL, BY_STRING };
/* Entries per bucket before the buckets double. More: longer chains; fewer: more memory for empty buckets. */
enum { LOAD = 2, FIRST_BUCKETS = 16 };
static besom_layout table_layout;

static uint64_t mix(uint64_t h) { return h *= 0x9E3779B97F4A7C15u, h ^ h >> 29; }
static uint64_t hash_at(Value x, int depth) {
    uint64_t h = 0;
    if (IS_FLONUM(x)) return memcpy(&h, &FLONUM(x), 8), mix(h);
    if (IS_PAIR(x)) {
        for (int n = 0; IS_PAIR(x) && n < 16 && depth < 4; n++, x = CDR(x)) h = mix(h + hash_at(CAR(x), depth + 1));
        return h + 1;
    }
    if (TAG(x) != TAG_OBJECT) return mix(x);
    if (TYPE(x) == T_STRING) {
        h = (uint64_t)LENGTH(x);
        for (int64_t i = 0; i < LENGTH(x); i++) h = (h ^ STRING(x)->ch[i]) * 0x100000001B3u;
        return mix(h);
    }
    if (TYPE(x) == T_BYTES || TYPE(x) == T_VECTOR) return mix((uint64_t)LENGTH(x)); /* its elements may be many */
    return mix(x);
}
uint64_t hash_equal(Value x) { return hash_at(x, 0); }
static uint64_t hash_for(int kind, Value x) { return kind == BY_EQ || (kind == BY_EQV && !IS_FLONUM(x)) ? mix(x) : hash_at(x, 0); }
static bool same(vm *v, int kind, Value a, Value b) { return a == b || (kind == BY_EQV ? eqv(a, b) : kind >= BY_EQUAL && equal(v, a, b)); }

static Value table_arg(vm *v, const char *who, Value x) {
    if (!IS(x, T_TABLE)) fail_type(v, who, "a hash table", x);
    return x;
}
static Value *bucket_of(struct vector *buckets, int kind, Value key) {
    return &buckets->item[hash_for(kind, key) % (buckets->header >> 8)];
}
static Value entry_of(vm *v, Value link) { /* (key . value), or #f: its key has died */
    if (IS_PAIR(CAR(link))) return CAR(link);
    Value entry = (Value)besom_ephemeron_value(v->m, ADDRESS(CAR(link))); return entry ? entry : FALSE;
}
static bool is_for(vm *v, struct table *t, Value link, Value key) {
    Value entry = entry_of(v, link); return entry != FALSE && same(v, t->kind, key, CAR(entry));
}
static Value find(vm *v, Value table, Value key) { /* the entry, or #f */
    struct table *t = TABLE(table); Value l = *bucket_of(t->buckets, t->kind, key);
    while (l != NIL && !is_for(v, t, l, key)) l = CDR(l);
    return l == NIL ? FALSE : entry_of(v, l);
}
static size_t live(vm *v, struct table *t) {
    size_t n = 0;
    for (uint64_t i = 0; t->weak && i < t->buckets->header >> 8; i++)
        for (Value l = t->buckets->item[i]; l != NIL; l = CDR(l)) n += entry_of(v, l) != FALSE;
    return t->weak ? n : t->count;
}

static void grow(vm *v, Value table) { /* or only drops the entries that have died, if they are the half */
    struct table *t = TABLE(table); int64_t n = (int64_t)(t->buckets->header >> 8);
    if (live(v, t) > LOAD * (size_t)n / 2) n *= 2;
    struct vector *wider = ADDRESS(make_object(v, T_VECTOR, n, NIL)), *old = t->buckets; besom_mutator *m = v->m;
    t->count = 0;
    for (uint64_t i = 0; i < old->header >> 8; i++)
        for (Value l = old->item[i], next, entry; l != NIL; l = next) {
            next = CDR(l);
            if ((entry = entry_of(v, l)) == FALSE) continue;
            Value *to = bucket_of(wider, t->kind, CAR(entry)); store(v, l, &CDR(l), *to);
            besom_write_value(m, wider, to, l); t->count++;
        }
    besom_write(m, t, &t->buckets, wider);
}

static void set(vm *v, Value table, Value key, Value value) { /* all three are arguments, so rooted */
    Value entry = find(v, table, key); struct table *t = TABLE(table);
    if (entry != FALSE) { store(v, entry, &CDR(entry), value); return; }
    if (t->count > LOAD * (t->buckets->header >> 8)) grow(v, table);
    Value *base = v->sp; entry = hold(v, cons_unrooted(v, key, value));
    if (t->weak && IS_POINTER(key)) {
        void *e = besom_ephemeron_new(v->m, ADDRESS(key), (void *)entry);
        entry = hold(v, TAGGED(e ? e : alloc_slow_error(v), TAG_OBJECT));
    }
    Value link = cons_unrooted(v, entry, NIL);
    struct vector *buckets = t->buckets; Value *to = bucket_of(buckets, t->kind, key);
    store(v, link, &CDR(link), *to); besom_write_value(v->m, buckets, to, link); t->count++;
    v->sp = base;
}

/* The comparison procedure chooses among the four built in; any other compares as equal?. */
static Value table_new(vm *v, int argc, Value *argv, bool weak) {
    Value *base = v->sp, buckets = hold(v, make_object(v, T_VECTOR, FIRST_BUCKETS, NIL));
    const char *name = argc > 0 && IS_PROC_TYPE(argv[0], T_BUILTIN) ? PRIMITIVE(argv[0])->def->name : "";
    struct table *t = besom_new(v->m, table_layout);
    if (!t) alloc_slow_error(v);
    t->header = HEADER(T_TABLE, 0), t->buckets = ADDRESS(buckets), t->weak = weak;
    t->kind = !strcmp(name, "eq?") ? BY_EQ : !strcmp(name, "eqv?") || !strcmp(name, "=") ? BY_EQV : !strcmp(name, "string=?") ? BY_STRING : BY_EQUAL;
    return v->sp = base, TAGGED(t, TAG_OBJECT);
}
BUILTIN(make, "make-hash-table", 0, -1) { return table_new(v, argc, argv, false); }
BUILTIN(make_weak, "make-weak-hash-table", 0, -1) { return table_new(v, argc, argv, true); }
BUILTIN(is_weak, "hash-table-weak?", 1, 1) { return BOOL(TABLE(table_arg(v, "hash-table-weak?", argv[0]))->weak); }
BUILTIN(is_table, "hash-table?", 1, 1) { return BOOL(IS(argv[0], T_TABLE)); }
BUILTIN(ref, "%hash-table-ref", 3, 3) { /* (%hash-table-ref table key absent) */
    Value e = find(v, table_arg(v, "hash-table-ref", argv[0]), argv[1]);
    return e == FALSE ? argv[2] : CDR(e);
}
ALSO(ref, 1, "hash-table-ref/default", 3, 3)
BUILTIN(contains, "hash-table-contains?", 2, 2) { return BOOL(find(v, table_arg(v, "hash-table-contains?", argv[0]), argv[1]) != FALSE); }
ALSO(contains, 2, "hash-table-exists?", 2, 2)
BUILTIN(set, "hash-table-set!", 3, 3) { return set(v, table_arg(v, "hash-table-set!", argv[0]), argv[1], argv[2]), UNSPECIFIED; }
BUILTIN(delete, "hash-table-delete!", 2, 2) {
    struct table *t = TABLE(table_arg(v, "hash-table-delete!", argv[0])); struct vector *buckets = t->buckets;
    Value *bucket = bucket_of(buckets, t->kind, argv[1]), before = 0;
    for (Value l = *bucket; l != NIL; before = l, l = CDR(l)) {
        if (!is_for(v, t, l, argv[1])) continue;
        if (before) store(v, before, &CDR(before), CDR(l));
        else besom_write_value(v->m, buckets, bucket, CDR(l));
        t->count--; return TRUE;
    }
    return FALSE;
}
BUILTIN(count, "hash-table-size", 1, 1) { return FIX((int64_t)live(v, TABLE(table_arg(v, "hash-table-size", argv[0])))); }
ALSO(count, 3, "hash-table-count", 1, 1)
BUILTIN(to_alist, "hash-table->alist", 1, 1) {
    Value *base = v->sp; hold(v, NIL);
    struct vector *buckets = TABLE(table_arg(v, "hash-table->alist", argv[0]))->buckets;
    hold(v, TAGGED(buckets, TAG_OBJECT)); /* another thread may replace them */
    for (uint64_t i = 0; i < buckets->header >> 8; i++)
        for (Value l = buckets->item[i], e; l != NIL; l = CDR(l))
            if ((e = entry_of(v, l)) != FALSE) *base = cons(v, cons(v, CAR(e), CDR(e)), *base);
    return *base;
}
static Value hash_result(Value h, int argc, Value *argv) {
    h &= (uint64_t)FIXNUM_MAX - 1;
    return FIX((int64_t)(argc > 1 && IS_FIX(argv[1]) && UNFIX(argv[1]) > 0 ? h % (uint64_t)UNFIX(argv[1]) : h));
}
BUILTIN(hash, "hash", 1, 2) { return hash_result(hash_equal(argv[0]), argc, argv); }
ALSO(hash, 4, "equal-hash", 1, 2)
BUILTIN(string_hash, "string-hash", 1, 2) {
    if (!IS(argv[0], T_STRING)) fail_type(v, "string-hash", "a string", argv[0]);
    return hash_result(hash_equal(argv[0]), argc, argv);
}
BUILTIN(eq_hash, "eq-hash", 1, 2) { return hash_result(hash_for(BY_EQ, argv[0]), argc, argv); }
BUILTIN(eqv_hash, "eqv-hash", 1, 2) { return hash_result(hash_for(BY_EQV, argv[0]), argc, argv); }
BUILTIN(kind, "%hash-table-kind", 1, 1) { return FIX(TABLE(table_arg(v, "hash-table-hash-function", argv[0]))->kind); }

void boot_tables(void) { if (BESOM_LAYOUT(heap, &table_layout, struct table, buckets) != BESOM_OK) abort(); }
