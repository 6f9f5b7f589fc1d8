/* A Scheme (R7RS-small without bignums and libraries) on the Besom collector: the worked example of embedding.
 *
 * How the collector sees this interpreter, in the order in which a reader meets it:
 *  - a Value is one 64-bit word whose low bits are a tag; odd words are pointers. `options.encoding` says so (heap.c),
 *    so objects of kind BESOM_VALUES, the VM stacks and the table of globals are scanned precisely;
 *  - strings, bytevectors, bytecode and floats hold no pointer: BESOM_NOSCAN;
 *  - code objects, ports and hash tables are C structs with plain pointers: registered layouts (BESOM_LAYOUT);
 *  - each thread has a value stack, known to the collector through besom_stack_set. C code that must keep an object across
 *    an allocation pushes it there with hold(); whoever called it cuts the stack back. C locals that hold plain struct
 *    pointers use BESOM_FRAME;
 *  - a store into an object goes through besom_write*, except the first stores after its allocation;
 *  - besom_safepoint stands on calls and loops; blocking calls stand between besom_block and besom_unblock. */
#ifndef SCHEME_H
#define SCHEME_H

#include <besom.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* ---- values: xx00 fixnum (62 bits), xx10 immediate, 001 pair, 011 object with header, 101 float, 111 procedure ---- */
typedef uint64_t Value;
typedef struct vm vm;
enum { TAG_PAIR = 1, TAG_OBJECT = 3, TAG_FLONUM = 5, TAG_PROC = 7 };

#define FIXNUM_MAX ((int64_t)1 << 61)
#define FIX(n) ((Value)((uint64_t)(int64_t)(n) << 2))
#define UNFIX(v) ((int64_t)(v) >> 2)
#define IS_FIX(v) (((v) & 3) == 0)
#define BOTH_FIX(a, b) ((((a) | (b)) & 3) == 0)
#define FITS_FIX(n) ((n) >= -FIXNUM_MAX && (n) < FIXNUM_MAX)

#define IMMEDIATE(n) ((Value)(n) << 8 | 2)
#define NIL IMMEDIATE(0)
#define FALSE IMMEDIATE(1)
#define TRUE IMMEDIATE(2)
#define UNSPECIFIED IMMEDIATE(3)
#define EOF_OBJECT IMMEDIATE(4)
#define UNBOUND IMMEDIATE(5)    /* a global without a value, a letrec variable before its time */
#define CALL_REQUEST IMMEDIATE(6) /* returned by a control builtin: 'now call what is on the stack' */
#define BOOL(c) ((c) ? TRUE : FALSE)
#define CHAR(c) ((Value)(uint32_t)(c) << 8 | 6)
#define IS_CHAR(v) (((v) & 255) == 6)
#define UNCHAR(v) ((uint32_t)((v) >> 8))
#define SPECIAL(n) ((Value)(n) << 8 | 10) /* the value of a symbol that names a core form */
#define IS_SPECIAL(v) (((v) & 255) == 10)

#define TAG(v) ((v) & 7)
#define IS_POINTER(v) ((v) & 1)
#define ADDRESS(v) ((void *)((v) & ~(Value)7))
#define TAGGED(p, tag) ((Value)(uintptr_t)(p) | (tag))
#define IS_PAIR(v) (TAG(v) == TAG_PAIR)
#define IS_FLONUM(v) (TAG(v) == TAG_FLONUM)
#define IS_PROC(v) (TAG(v) == TAG_PROC)

struct pair { Value car, cdr; };
#define PAIR(v) ((struct pair *)((v) - TAG_PAIR))
#define CAR(v) (PAIR(v)->car)
#define CDR(v) (PAIR(v)->cdr)
#define CADR(v) CAR(CDR(v))
#define CDDR(v) CDR(CDR(v))
#define FLONUM(v) (*(double *)((v) - TAG_FLONUM))

/* Every other object starts with a header: length << 8 | type << 1. It is even, so never taken for a pointer. */
enum type {
    T_VECTOR = 1, T_STRING, T_BYTES, T_SYMBOL, T_BOX, T_VALUES, T_RECORD, T_CODE, T_PORT, T_TABLE, T_ALIAS, T_MACRO,
    T_PROMISE, T_THREAD, T_MUTEX, T_CONDVAR, T_CONDITION, T_RTD,
    T_CLOSURE, T_BUILTIN, T_CONTINUATION, T_PARAMETER, T_CASE, T_MAKER, T_GETTER, T_SETTER, T_ISA /* these are procedures */
};
#define HEADER(type, length) ((uint64_t)(length) << 8 | (uint64_t)(type) << 1)
#define HEADER_OF(v) (*(uint64_t *)ADDRESS(v))
#define TYPE(v) ((int)(HEADER_OF(v) >> 1 & 127))
#define LENGTH(v) ((int64_t)(HEADER_OF(v) >> 8))
#define IS(v, type) (TAG(v) == TAG_OBJECT && TYPE(v) == (type))
#define IS_PROC_TYPE(v, type) (IS_PROC(v) && TYPE(v) == (type))

struct vector { uint64_t header; Value item[]; };  /* also box, values, record (item 0 = its type), and the small ones below */
struct string { uint64_t header; uint32_t ch[]; }; /* code points: constant-time string-ref and string-set! */
struct bytes { uint64_t header; uint8_t at[]; };
struct symbol { uint64_t header; Value name, value; uint64_t prim; }; /* value: the global; prim: 2 * index of inlined primitive */
struct closure { uint64_t header; Value code; Value free[]; };
typedef Value builtin_fn(vm *, int argc, Value *argv);
struct builtin { const char *name; builtin_fn *fn; int16_t min, max, control; }; /* max < 0: any number */
struct primitive { uint64_t header; const struct builtin *def; };
struct code { /* layout: ops, constants, name, lines are plain pointers */
    uint64_t header;
    uint32_t *ops;
    struct vector *constants; /* keeps alive what the bytecode mentions */
    struct symbol *name;
    uint32_t *lines; /* (first op, line) pairs */
    const char *file;
    uint32_t line_count, params, rest, frame_size;
};
struct port { /* layout: buffer */
    uint64_t header;
    struct bytes *buffer;
    const char *name;
    size_t at, end; /* input: unread bytes are [at, end). output to memory: bytes so far are [0, at) */
    uint32_t line;
    struct file *file; /* NULL: memory */
    bool input, binary, closed, interactive, fold; /* fold: the reader folds the case of names */
};
struct table { /* layout: buckets */
    uint64_t header;
    struct vector *buckets; /* each a list of (key . value) */
    size_t count;
    int kind;
    bool weak;
};
struct continuation { uint64_t header; Value dynamic[4]; Value fp, ip; Value stack[]; };
struct alias { uint64_t header; Value name; void *scope; };               /* a symbol renamed by a macro */
struct macro { uint64_t header; Value rules, literals, ellipsis; void *scope; };

#define VECTOR(v) ((struct vector *)((v) - TAG_OBJECT))
#define STRING(v) ((struct string *)((v) - TAG_OBJECT))
#define BYTES(v) ((struct bytes *)((v) - TAG_OBJECT))
#define SYMBOL(v) ((struct symbol *)((v) - TAG_OBJECT))
#define CODE(v) ((struct code *)((v) - TAG_OBJECT))
#define PORT(v) ((struct port *)((v) - TAG_OBJECT))
#define TABLE(v) ((struct table *)((v) - TAG_OBJECT))
#define ALIAS(v) ((struct alias *)((v) - TAG_OBJECT))
#define MACRO(v) ((struct macro *)((v) - TAG_OBJECT))
#define CLOSURE(v) ((struct closure *)((v) - TAG_PROC))
#define PRIMITIVE(v) ((struct primitive *)((v) - TAG_PROC))
#define CONTINUATION(v) ((struct continuation *)((v) - TAG_PROC))
#define FIELD(v, n) (((struct vector *)ADDRESS(v))->item[n]) /* of any object that is laid out as a vector */

enum { CONDITION_KIND, CONDITION_MESSAGE, CONDITION_IRRITANTS, CONDITION_WHERE, CONDITION_FIELDS };
enum { THREAD_THUNK, THREAD_STATE, THREAD_RESULT, THREAD_NAME, THREAD_SPECIFIC, THREAD_PARAMS, THREAD_FIELDS };

/* ---- one per thread ---- */
/* at the bottom of the stack, so they are roots; a continuation saves those before REG_LAST */
enum { REG_HANDLERS, REG_WINDERS, REG_PARAMS, REG_THREAD, REG_LAST, REGISTERS };
struct vm {
    besom_mutator *m;
    Value *sp; /* the collector scans [stack, sp) */
    Value *stack, *limit;
    size_t stack_bytes;
    Value *fp; /* of the running closure: fp[-3] caller's fp, fp[-2] return address, fp[-1] closure, fp[0..] arguments and locals */
    const uint32_t *ip;
    int argc; /* with CALL_REQUEST */
    jmp_buf *on_error, *on_exit;
    bool is_main;
    char *c_limit; /* of this thread's C stack */
    struct compiler *compiler; /* while compiling: errors are reported at its line */
    struct arena *arena;
    struct positions *positions;
};

/* ---- globals: one registered root range ---- */
enum {
    G_SYMBOLS, G_OUT_OF_MEMORY, G_RAISE, G_REWIND, G_STDIN, G_STDOUT, G_STDERR, G_QUOTE, G_QUASIQUOTE, G_UNQUOTE, G_SPLICING,
    G_ELLIPSIS, G_UNDERSCORE, G_ELSE, G_ARROW, G_DEFINE, G_SYNTAX_RULES, G_RESERVE, GLOBALS
};
extern Value globals[GLOBALS];
extern besom_heap *heap;
extern bool booting; /* the prelude is being compiled: globals are bound early */
void global_set(vm *, int which, Value);

/* ---- heap.c: objects ---- */
void *alloc_slow_error(vm *); /* throws `out of memory` */
void reserve_refill(vm *);
static inline void *alloc(vm *v, size_t bytes, besom_kind kind) {
    void *p = besom_alloc(v->m, bytes, kind);
    return likely(p != NULL) ? p : alloc_slow_error(v);
}
void stack_overflow(vm *) __attribute__((noreturn));
static inline Value hold(vm *v, Value x) { /* root x until the caller cuts the stack back */
    if (unlikely(v->sp >= v->limit)) stack_overflow(v);
    *v->sp++ = x;
    return x;
}
static inline void store(vm *v, Value object, Value *slot, Value x) { besom_write_value(v->m, ADDRESS(object), slot, x); }
static inline Value cons_unrooted(vm *v, Value a, Value d) { /* a and d are reachable otherwise */
    struct pair *p = alloc(v, sizeof *p, BESOM_VALUES);
    p->car = a, p->cdr = d;
    return TAGGED(p, TAG_PAIR);
}
static inline Value flonum(vm *v, double d) {
    double *p = alloc(v, sizeof *p, BESOM_NOSCAN);
    *p = d;
    return TAGGED(p, TAG_FLONUM);
}
Value cons(vm *, Value a, Value d); /* roots its arguments while it allocates */
Value make_object(vm *, int type, int64_t length, Value fill); /* laid out as a vector */
Value object_of(vm *, int type, int n, const Value *items);    /* items are rooted by the caller */
Value make_string(vm *, int64_t length, uint32_t fill);
Value make_bytes(vm *, int64_t length);
Value string_from(vm *, const char *utf8, size_t bytes);
Value string_from_port(vm *, Value port, const char *utf8, size_t bytes), string_from_c(vm *, const char *);
size_t utf8_put(uint32_t c, char out[4]);
uint32_t utf8_get(const uint8_t **at, const uint8_t *end);
char *string_to_c(vm *, Value string); /* malloc */
Value intern(vm *, Value string);
Value symbol(vm *, const char *);
Value list_from(vm *, int n, const Value *items, Value tail);
int64_t list_length(Value); /* -1: not a proper list */
Value list_to_vector(vm *, Value);
Value vector_to_list(vm *, Value);
void heap_boot(vm *);
vm *vm_new(size_t stack_bytes);
void vm_free(vm *);
void lock(vm *, pthread_mutex_t *); /* waits as a blocked mutator */
void define_builtins(vm *);
#define UNUSED __attribute__((unused))
/* BUILTIN(id, "name", least, most) { ... } defines a procedure of that name; most < 0: any number of arguments. The linker collects
 * pointers to all of them in a section. A CONTROL builtin ends in a call that the VM makes in its place (control.c). */
#define REGISTER_(id, n, name, min, max, control)                                                                       \
    static const struct builtin def_##id##_##n = {name, b_##id, min, max, control};                                  \
    static const struct builtin *const ref_##id##_##n __attribute__((section("builtins"), used)) = &def_##id##_##n;
#define DEFINE_(id, name, min, max, control)                                                                            \
    static builtin_fn b_##id;                                                                                           \
    REGISTER_(id, 0, name, min, max, control)                                                                              \
    static Value b_##id(vm *v UNUSED, int argc UNUSED, Value *argv UNUSED)
#define BUILTIN(id, name, min, max) DEFINE_(id, name, min, max, 0)
#define CONTROL(id, name, min, max) DEFINE_(id, name, min, max, 1)
#define ALSO(id, n, name, min, max) REGISTER_(id, n, name, min, max, 0) /* another name of the same procedure */
void boot_ports(vm *), boot_tables(void), boot_threads(vm *), boot_syntax(vm *), boot_primitives(vm *), boot_compiler(void);

/* ---- errors ---- */
_Noreturn void throw_value(vm *, Value);
_Noreturn void fail(vm *, const char *who, const char *message, int irritants, ...); /* irritants: Values */
_Noreturn void fail_type(vm *, const char *who, const char *expected, Value got);
_Noreturn void fail_kind(vm *, const char *kind, const char *message, Value irritants);
Value condition_new(vm *, Value kind, Value message, Value irritants);
Value vm_where(vm *, bool skip_prelude); /* "file:line" or #f */

/* ---- number.c ---- */
Value number_add(vm *, Value, Value), number_sub(vm *, Value, Value), number_mul(vm *, Value, Value);
Value number_quotient(vm *, Value, Value), number_remainder(vm *, Value, Value);
int number_compare(vm *, const char *who, Value, Value); /* -1, 0, 1; 2 unordered */
Value integer(vm *, int64_t);
Value parse_number(vm *, const char *, int radix); /* #f: not a number */
void format_number(Value, int radix, char out[80]);
#define IS_NUMBER(v) (IS_FIX(v) || IS_FLONUM(v))

/* ---- other builtins that C code calls ---- */
bool eqv(Value, Value), equal(vm *, Value, Value);
uint64_t hash_equal(Value);
int64_t index_arg(vm *, const char *who, Value, int64_t limit); /* 0 <= index <= limit */
void range_args(vm *, const char *who, int argc, Value *argv, int from, int64_t length, int64_t *start, int64_t *end);
Value apply_values(vm *, Value *argv, Value proc, Value values);
Value call_with(vm *, Value *argv, Value proc, int argc); /* a control builtin's last act */

/* ---- reader.c, printer.c, ports.c ---- */
extern const struct char_name { const char *name; uint32_t c; } char_names[];
Value read_datum(vm *, Value port);
int position_of(vm *, Value pair, const char **file); /* line, 0 if unknown */
void position_set(vm *, Value pair, int line, const char *file);
void positions_free(vm *);
enum { DISPLAY, WRITE, WRITE_SHARED };
void print(vm *, Value port, Value, int mode);
void print_labelled(vm *, Value port, Value, int mode, Value labels); /* allocates nothing if the port does not */
Value print_labels(vm *, Value, int mode); /* which objects get datum labels; #f: none */
Value port_out(vm *, int argc, Value *argv, int index); /* argument or current-output-port */
void port_put(vm *, Value port, const char *, size_t);
void port_flush(vm *, Value port);
void ports_flush_all(vm *);
int port_byte(vm *, Value port, bool peek); /* -1 at the end */
int32_t port_char(vm *, Value port, bool peek);
Value port_string_out(vm *), port_string_of(vm *, Value port);
Value port_memory_in(vm *, Value bytes, bool binary), port_file_in(vm *, Value name);
void port_close(vm *, Value port);

/* ---- syntax.c, analyze.c, compile.c ---- */
struct scope;
void *arena_alloc(vm *, size_t);
void arena_reset(vm *);
Value expand_macro(vm *, Value macro, Value form, struct scope *use);
bool same_identifier(Value a, struct scope *, Value b, struct scope *);
Value make_alias(vm *, Value name, struct scope *);
Value make_macro(vm *, Value spec, struct scope *);
Value strip_syntax(vm *, Value);
void check_c_stack(vm *); /* in functions that recurse on data */
_Noreturn void syntax_error(vm *, const char *message, Value form);
Value compile(vm *, Value form); /* a closure without arguments */
bool is_identifier(Value);
Value identifier_symbol(Value);

/* ---- vm.c ---- */
Value vm_run(vm *, Value thunk); /* from C at the bottom of the stack; errors arrive at vm->on_error */
void vm_loop(vm *);
extern const uint32_t halt_code[];

#endif
