/* Characters and strings. Strings are arrays of code points, of fixed length. */
#include "scheme.h"
#include <ctype.h>
#include <wctype.h>

static Value string_arg(vm *v, const char *who, Value s) {
    if (!IS(s, T_STRING)) fail_type(v, who, "a string", s);
    return s;
}
static uint32_t char_arg(vm *v, const char *who, Value c) {
    if (!IS_CHAR(c)) fail_type(v, who, "a character", c);
    return UNCHAR(c);
}
static uint32_t up(uint32_t c) { return (uint32_t)towupper((wint_t)c); }
static uint32_t down(uint32_t c) { return (uint32_t)towlower((wint_t)c); }
static uint32_t same(uint32_t c) { return c; }

/* ---- characters ---- */
BUILTIN(is_char, "char?", 1, 1) { return BOOL(IS_CHAR(argv[0])); }
BUILTIN(char_to_integer, "char->integer", 1, 1) { return FIX(char_arg(v, "char->integer", argv[0])); }
BUILTIN(integer_to_char, "integer->char", 1, 1) {
    int64_t n = index_arg(v, "integer->char", argv[0], 0x10FFFF);
    if (n >= 0xD800 && n < 0xE000) fail(v, "integer->char", "a surrogate is no character", 1, argv[0]);
    return CHAR(n);
}
#define CHAR_CLASS(name, text, test) BUILTIN(name, text, 1, 1) { return BOOL(test((wint_t)char_arg(v, text, argv[0]))); }
CHAR_CLASS(alphabetic, "char-alphabetic?", iswalpha)
CHAR_CLASS(whitespace, "char-whitespace?", iswspace)
CHAR_CLASS(upper_case, "char-upper-case?", iswupper)
CHAR_CLASS(lower_case, "char-lower-case?", iswlower)
static int is_digit(wint_t c) { return c >= '0' && c <= '9'; }
CHAR_CLASS(numeric, "char-numeric?", is_digit)
BUILTIN(char_upcase, "char-upcase", 1, 1) { return CHAR(up(char_arg(v, "char-upcase", argv[0]))); }
BUILTIN(char_downcase, "char-downcase", 1, 1) { return CHAR(down(char_arg(v, "char-downcase", argv[0]))); }
ALSO(char_downcase, 1, "char-foldcase", 1, 1)

static int compare_strings(Value a, Value b, uint32_t (*fold)(uint32_t)) {
    for (int64_t i = 0; i < LENGTH(a) && i < LENGTH(b); i++) {
        uint32_t x = fold(STRING(a)->ch[i]), y = fold(STRING(b)->ch[i]);
        if (x != y) return x < y ? -1 : 1;
    }
    return LENGTH(a) < LENGTH(b) ? -1 : LENGTH(a) > LENGTH(b);
}
#define COMPARISONS(name, op, sign)                                                                                           \
    static Value chars_##name(vm *v, int argc, Value *argv, uint32_t (*fold)(uint32_t)) {                               \
        bool ok = true;                                                                                                 \
        for (int i = 0; i + 1 < argc; i++)                                                                              \
            if (!(fold(char_arg(v, "char" sign, argv[i])) op fold(char_arg(v, "char" sign, argv[i + 1])))) ok = false;    \
        return BOOL(ok);                                                                                                \
    }                                                                                                                   \
    static Value strings_##name(vm *v, int argc, Value *argv, uint32_t (*fold)(uint32_t)) {                             \
        bool ok = true;                                                                                                 \
        for (int i = 0; i + 1 < argc; i++)                                                                              \
            if (!(compare_strings(string_arg(v, "string" sign, argv[i]), string_arg(v, "string" sign, argv[i + 1]), fold) op 0)) ok = false; \
        return BOOL(ok);                                                                                                \
    }                                                                                                                   \
    BUILTIN(char_##name, "char" sign, 1, -1) { return chars_##name(v, argc, argv, same); }                                                  \
    BUILTIN(char_ci_##name, "char-ci" sign, 1, -1) { return chars_##name(v, argc, argv, down); }                                               \
    BUILTIN(string_##name, "string" sign, 1, -1) { return strings_##name(v, argc, argv, same); }                                              \
    BUILTIN(string_ci_##name, "string-ci" sign, 1, -1) { return strings_##name(v, argc, argv, down); }
COMPARISONS(eq, ==, "=?") COMPARISONS(lt, <, "<?") COMPARISONS(gt, >, ">?") COMPARISONS(le, <=, "<=?") COMPARISONS(ge, >=, ">=?")

/* ---- strings ---- */
BUILTIN(is_string, "string?", 1, 1) { return BOOL(IS(argv[0], T_STRING)); }
BUILTIN(make_string, "make-string", 1, 2) {
    int64_t n = index_arg(v, "make-string", argv[0], (int64_t)1 << 50);
    return make_string(v, n, argc > 1 ? char_arg(v, "make-string", argv[1]) : ' ');
}
BUILTIN(string, "string", 0, -1) {
    for (int i = 0; i < argc; i++) char_arg(v, "string", argv[i]);
    Value s = make_string(v, argc, 0);
    for (int i = 0; i < argc; i++) STRING(s)->ch[i] = UNCHAR(argv[i]);
    return s;
}
BUILTIN(string_length, "string-length", 1, 1) { return FIX(LENGTH(string_arg(v, "string-length", argv[0]))); }
BUILTIN(string_ref, "string-ref", 2, 2) { return CHAR(STRING(argv[0])->ch[index_arg(v, "string-ref", argv[1], LENGTH(string_arg(v, "string-ref", argv[0])) - 1)]); }
BUILTIN(string_set, "string-set!", 3, 3) {
    int64_t i = index_arg(v, "string-set!", argv[1], LENGTH(string_arg(v, "string-set!", argv[0])) - 1);
    STRING(argv[0])->ch[i] = char_arg(v, "string-set!", argv[2]); return UNSPECIFIED;
}
BUILTIN(string_to_list, "string->list", 1, 3) {
    int64_t start, end;
    range_args(v, "string->list", argc, argv, 1, LENGTH(string_arg(v, "string->list", argv[0])), &start, &end);
    Value *base = v->sp; hold(v, NIL);
    while (end-- > start) *base = cons_unrooted(v, CHAR(STRING(argv[0])->ch[end]), *base);
    return *base;
}
BUILTIN(list_to_string, "list->string", 1, 1) {
    int64_t n = list_length(argv[0]);
    if (n < 0) fail_type(v, "list->string", "a list", argv[0]);
    Value s = make_string(v, n, 0), l = argv[0];
    for (int64_t i = 0; i < n; i++, l = CDR(l)) STRING(s)->ch[i] = char_arg(v, "list->string", CAR(l));
    return s;
}
BUILTIN(utf8_to_string, "utf8->string", 1, 3) {
    int64_t start, end;
    if (!IS(argv[0], T_BYTES)) fail_type(v, "utf8->string", "a bytevector", argv[0]);
    range_args(v, "utf8->string", argc, argv, 1, LENGTH(argv[0]), &start, &end);
    return string_from(v, (const char *)BYTES(argv[0])->at + start, (size_t)(end - start));
}
