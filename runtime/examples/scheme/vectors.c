/* Vectors and bytevectors, and what strings have in common with them. A copy of many words into a vector is one
 * besom_write_range. */
#include "scheme.h"

static Value vector_arg(vm *v, const char *who, Value x) {
    if (!IS(x, T_VECTOR)) fail_type(v, who, "a vector", x);
    return x;
}
static Value bytes_arg(vm *v, const char *who, Value x) {
    if (!IS(x, T_BYTES)) fail_type(v, who, "a bytevector", x);
    return x;
}

BUILTIN(is_vector, "vector?", 1, 1) { return BOOL(IS(argv[0], T_VECTOR)); }
BUILTIN(make_vector, "make-vector", 1, 2) {
    int64_t n = index_arg(v, "make-vector", argv[0], (int64_t)1 << 50);
    return make_object(v, T_VECTOR, n, argc > 1 ? argv[1] : UNSPECIFIED);
}
BUILTIN(vector, "vector", 0, -1) { return object_of(v, T_VECTOR, argc, argv); }
BUILTIN(vector_length, "vector-length", 1, 1) { return FIX(LENGTH(vector_arg(v, "vector-length", argv[0]))); }
BUILTIN(vector_ref, "vector-ref", 2, 2) { return FIELD(argv[0], index_arg(v, "vector-ref", argv[1], LENGTH(vector_arg(v, "vector-ref", argv[0])) - 1)); }
BUILTIN(vector_set, "vector-set!", 3, 3) {
    int64_t i = index_arg(v, "vector-set!", argv[1], LENGTH(vector_arg(v, "vector-set!", argv[0])) - 1);
    return store(v, argv[0], &FIELD(argv[0], i), argv[2]), UNSPECIFIED;
}
BUILTIN(vector_to_list, "vector->list", 1, 3) {
    int64_t start, end;
    range_args(v, "vector->list", argc, argv, 1, LENGTH(vector_arg(v, "vector->list", argv[0])), &start, &end);
    return list_from(v, (int)(end - start), VECTOR(argv[0])->item + start, NIL);
}
BUILTIN(list_to_vector, "list->vector", 1, 1) {
    if (list_length(argv[0]) < 0) fail_type(v, "list->vector", "a list", argv[0]);
    return list_to_vector(v, argv[0]);
}
BUILTIN(vector_fill, "vector-fill!", 2, 4) {
    int64_t start, end;
    range_args(v, "vector-fill!", argc, argv, 2, LENGTH(vector_arg(v, "vector-fill!", argv[0])), &start, &end);
    for (; start < end; start++) store(v, argv[0], &FIELD(argv[0], start), argv[1]);
    return UNSPECIFIED;
}
BUILTIN(is_bytes, "bytevector?", 1, 1) { return BOOL(IS(argv[0], T_BYTES)); }
BUILTIN(make_bytes, "make-bytevector", 1, 2) {
    uint8_t fill = argc > 1 ? (uint8_t)index_arg(v, "make-bytevector", argv[1], 255) : 0;
    int64_t n = index_arg(v, "make-bytevector", argv[0], (int64_t)1 << 50); Value b = make_bytes(v, n);
    if (fill) memset(BYTES(b)->at, fill, (size_t)n);
    return b;
}
BUILTIN(bytes, "bytevector", 0, -1) {
    for (int i = 0; i < argc; i++) index_arg(v, "bytevector", argv[i], 255);
    Value b = make_bytes(v, argc);
    for (int i = 0; i < argc; i++) BYTES(b)->at[i] = (uint8_t)UNFIX(argv[i]);
    return b;
}
BUILTIN(bytes_length, "bytevector-length", 1, 1) { return FIX(LENGTH(bytes_arg(v, "bytevector-length", argv[0]))); }
BUILTIN(bytes_ref, "bytevector-u8-ref", 2, 2) {
    return FIX(BYTES(argv[0])->at[index_arg(v, "bytevector-u8-ref", argv[1], LENGTH(bytes_arg(v, "bytevector-u8-ref", argv[0])) - 1)]);
}
BUILTIN(bytes_set, "bytevector-u8-set!", 3, 3) {
    int64_t i = index_arg(v, "bytevector-u8-set!", argv[1], LENGTH(bytes_arg(v, "bytevector-u8-set!", argv[0])) - 1);
    BYTES(argv[0])->at[i] = (uint8_t)index_arg(v, "bytevector-u8-set!", argv[2], 255); return UNSPECIFIED;
}
BUILTIN(bytes_fill, "bytevector-fill!", 2, 4) {
    int64_t start, end;
    range_args(v, "bytevector-fill!", argc, argv, 2, LENGTH(bytes_arg(v, "bytevector-fill!", argv[0])), &start, &end);
    memset(BYTES(argv[0])->at + start, (int)index_arg(v, "bytevector-fill!", argv[1], 255), (size_t)(end - start));
    return UNSPECIFIED;
}

/* ---- copies: elements follow the header in all three ---- */
struct sequence { int type; size_t size; const char *expected; };
static const struct sequence vectors = {T_VECTOR, sizeof(Value), "a vector"}, byte_vectors = {T_BYTES, 1, "a bytevector"},
                             strings = {T_STRING, 4, "a string"};
#define ELEMENTS(x) ((char *)ADDRESS(x) + sizeof(uint64_t))
static int64_t length_arg(vm *v, const char *who, const struct sequence *q, Value x) {
    if (!IS(x, q->type)) fail_type(v, who, q->expected, x);
    return LENGTH(x);
}
static Value sequence_new(vm *v, const struct sequence *q, int64_t n) {
    return q->type == T_VECTOR ? make_object(v, T_VECTOR, n, 0) : q->type == T_BYTES ? make_bytes(v, n) : make_string(v, n, 0);
}
static Value copy(vm *v, const char *who, const struct sequence *q, int argc, Value *argv) {
    int64_t start, end; range_args(v, who, argc, argv, 1, length_arg(v, who, q, argv[0]), &start, &end);
    Value r = sequence_new(v, q, end - start);
    memcpy(ELEMENTS(r), ELEMENTS(argv[0]) + (size_t)start * q->size, (size_t)(end - start) * q->size); /* first stores */
    return r;
}
static Value copy_to(vm *v, const char *who, const struct sequence *q, int argc, Value *argv) { /* to at from [start end] */
    int64_t start, end, at = index_arg(v, who, argv[1], length_arg(v, who, q, argv[0]));
    range_args(v, who, argc, argv, 3, length_arg(v, who, q, argv[2]), &start, &end);
    if (end - start > LENGTH(argv[0]) - at) fail(v, who, "no room", 1, argv[1]);
    char *to = ELEMENTS(argv[0]) + (size_t)at * q->size, *from = ELEMENTS(argv[2]) + (size_t)start * q->size;
    if (q->type == T_VECTOR) besom_write_range(v->m, ADDRESS(argv[0]), to, from, (size_t)(end - start));
    else memmove(to, from, (size_t)(end - start) * q->size);
    return UNSPECIFIED;
}
static Value append(vm *v, const char *who, const struct sequence *q, int argc, Value *argv) {
    int64_t n = 0;
    for (int i = 0; i < argc; i++) n += length_arg(v, who, q, argv[i]);
    Value r = sequence_new(v, q, n); char *to = ELEMENTS(r);
    for (int i = 0; i < argc; to += (size_t)LENGTH(argv[i++]) * q->size) memcpy(to, ELEMENTS(argv[i]), (size_t)LENGTH(argv[i]) * q->size);
    return r;
}
#define COPIES(id, name, kind)                                                                                          \
    BUILTIN(id##_copy, name "-copy", 1, 3) { return copy(v, name "-copy", &kind, argc, argv); }                         \
    BUILTIN(id##_copy_to, name "-copy!", 3, 5) { return copy_to(v, name "-copy!", &kind, argc, argv); }                 \
    BUILTIN(id##_append, name "-append", 0, -1) { return append(v, name "-append", &kind, argc, argv); }
COPIES(vector, "vector", vectors) COPIES(bytevector, "bytevector", byte_vectors) COPIES(string, "string", strings)
BUILTIN(substring, "substring", 2, 3) { return copy(v, "substring", &strings, argc, argv); }
