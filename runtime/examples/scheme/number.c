/* Numbers: fixnums of 62 bits and floats. An integer result that does not fit becomes a float. */
#include "scheme.h"
#include <ctype.h>
#include <math.h>

Value integer(vm *v, int64_t n) { return FITS_FIX(n) ? FIX(n) : flonum(v, (double)n); }

static double to_double(vm *v, const char *who, Value x) {
    if (IS_FIX(x)) return (double)UNFIX(x);
    if (!IS_FLONUM(x)) fail_type(v, who, "a number", x);
    return FLONUM(x);
}

static bool is_integer(Value x) { return IS_FIX(x) || (IS_FLONUM(x) && floor(FLONUM(x)) == FLONUM(x) && isfinite(FLONUM(x))); }

static Value to_exact(vm *v, const char *who, double d) {
    if (!(d >= -(double)FIXNUM_MAX && d < (double)FIXNUM_MAX)) fail(v, who, "no exact integer is that large", 1, flonum(v, d));
    return FIX((int64_t)d);
}

#define OPERATION(name, sign, op, checked)                                                                              \
    Value number_##name(vm *v, Value x, Value y) {                                                                      \
        int64_t r;                                                                                                      \
        if (BOTH_FIX(x, y) && !checked) return (Value)r;                                                                \
        double a = to_double(v, sign, x), b = to_double(v, sign, y);                                                    \
        return flonum(v, a op b);                                                                                       \
    }
OPERATION(add, "+", +, __builtin_add_overflow((int64_t)x, (int64_t)y, &r))
OPERATION(sub, "-", -, __builtin_sub_overflow((int64_t)x, (int64_t)y, &r))
OPERATION(mul, "*", *, __builtin_mul_overflow(UNFIX(x), (int64_t)y, &r))

int number_compare(vm *v, const char *who, Value x, Value y) {
    if (BOTH_FIX(x, y)) return (int64_t)x < (int64_t)y ? -1 : x != y;
    double a = to_double(v, who, x), b = to_double(v, who, y);
    return a < b ? -1 : a > b ? 1 : a == b ? 0 : 2;
}

enum { QUOTIENT, REMAINDER, MODULO, FLOOR_QUOTIENT };
static Value divide(vm *v, const char *who, int what, Value x, Value y) {
    if (!is_integer(x) || !is_integer(y)) fail_type(v, who, "an integer", is_integer(x) ? y : x);
    if (y == 0 || (IS_FLONUM(y) && FLONUM(y) == 0)) fail(v, who, "division by zero", 1, x);
    if (BOTH_FIX(x, y)) {
        int64_t a = UNFIX(x), b = UNFIX(y), q = a / b, r = a % b; bool adjust = r != 0 && (r < 0) != (b < 0);
        return what == QUOTIENT ? integer(v, q) : what == REMAINDER ? FIX(r) : what == MODULO ? FIX(adjust ? r + b : r) : integer(v, adjust ? q - 1 : q);
    }
    double a = to_double(v, who, x), b = to_double(v, who, y), r = fmod(a, b);
    if (what == MODULO && r != 0 && (r < 0) != (b < 0)) r += b;
    return flonum(v, what == QUOTIENT ? trunc(a / b) : what == FLOOR_QUOTIENT ? floor(a / b) : r);
}
Value number_quotient(vm *v, Value x, Value y) { return divide(v, "quotient", QUOTIENT, x, y); }
Value number_remainder(vm *v, Value x, Value y) { return divide(v, "remainder", REMAINDER, x, y); }

/* ---- text ---- */
Value parse_number(vm *v, const char *s, int radix) {
    bool exact = false, inexact = false;
    for (; s[0] == '#'; s += 2) {
        switch (tolower((unsigned char)s[1])) {
        case 'x': radix = 16; break;
        case 'b': radix = 2; break;
        case 'o': radix = 8; break;
        case 'd': radix = 10; break;
        case 'e': exact = true; break;
        case 'i': inexact = true; break;
        default: return FALSE;
        }
    }
    const char *p = s + (*s == '+' || *s == '-'), *digits = p;
    if ((*s == '+' || *s == '-') && (!strcmp(p, "inf.0") || !strcmp(p, "nan.0")))
        return flonum(v, *p == 'n' ? NAN : *s == '-' ? -INFINITY : INFINITY);
    int64_t n = 0;
    double d = 0;
    bool fits = true;
    for (;; p++) {
        int c = tolower((unsigned char)*p), k = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;
        if (k >= radix) break;
        fits = fits && !__builtin_mul_overflow(n, radix, &n) && !__builtin_add_overflow(n, k, &n); d = d * radix + k;
    }
    if (*p == 0) {
        if (p == digits) return FALSE;
        if (!fits && radix == 10) d = strtod(digits, NULL);
        if (*s == '-') n = -n, d = -d;
        return fits && FITS_FIX(n) && !inexact ? FIX(n) : flonum(v, fits ? (double)n : d);
    }
    if (*p == '/' && p > digits) { /* no ratios: the quotient */
        Value below = parse_number(v, p + 1, radix);
        if (below == FALSE || p[1] == '+' || p[1] == '-' || !fits || below == 0) return FALSE;
        double q = (double)n / to_double(v, "read", below);
        if (*s == '-') q = -q;
        return floor(q) == q && fabs(q) < (double)FIXNUM_MAX ? FIX((int64_t)q) : flonum(v, q);
    }
    if (radix != 10) return FALSE;
    int figures = 0;
    for (p = digits; isdigit((unsigned char)*p); p++) figures++;
    if (*p == '.')
        for (p++; isdigit((unsigned char)*p); p++) figures++;
    if (figures == 0) return FALSE;
    if (*p == 'e' || *p == 'E') {
        p += 1 + (p[1] == '+' || p[1] == '-');
        if (!isdigit((unsigned char)*p)) return FALSE;
        while (isdigit((unsigned char)*p)) p++;
    }
    if (*p) return FALSE;
    d = strtod(s, NULL);
    return exact && floor(d) == d && fabs(d) < (double)FIXNUM_MAX ? FIX((int64_t)d) : flonum(v, d);
}

void format_number(Value x, int radix, char out[80]) {
    if (IS_FIX(x)) {
        char digits[70]; int n = 0, k = 0; uint64_t u = (uint64_t)llabs(UNFIX(x));
        do digits[n++] = "0123456789abcdefghijklmnopqrstuvwxyz"[u % (unsigned)radix], u /= (unsigned)radix; while (u);
        if (UNFIX(x) < 0) out[k++] = '-';
        while (n) out[k++] = digits[--n];
        out[k] = 0; return;
    }
    double d = FLONUM(x);
    if (isnan(d)) strcpy(out, "+nan.0");
    else if (isinf(d)) strcpy(out, d < 0 ? "-inf.0" : "+inf.0");
    else {
        for (int digits = 15; digits <= 17; digits++) { /* the shortest that reads back */
            snprintf(out, 80, "%.*g", digits, d);
            if (strtod(out, NULL) == d) break;
        }
        if (!strpbrk(out, ".e")) strcat(out, ".0");
    }
}

/* ---- builtins ---- */
#define FOLD(name, sign, start, step)                                                                                         \
    BUILTIN(name, sign, 0, -1) {                                                                                        \
        Value r = start;                                                                                                \
        for (int i = 0; i < argc; i++) r = step(v, r, argv[i]);                                                         \
        return r;                                                                                                       \
    }
FOLD(add, "+", FIX(0), number_add)
FOLD(mul, "*", FIX(1), number_mul)
BUILTIN(sub, "-", 1, -1) {
    if (argc == 1) return IS_FLONUM(argv[0]) ? flonum(v, -FLONUM(argv[0])) : number_sub(v, FIX(0), argv[0]);
    Value r = argv[0];
    for (int i = 1; i < argc; i++) r = number_sub(v, r, argv[i]);
    return r;
}
BUILTIN(div, "/", 1, -1) {
    Value r = argc == 1 ? FIX(1) : argv[0];
    for (int i = argc > 1; i < argc; i++) {
        Value y = argv[i];
        if (y == 0) fail(v, "/", "division by zero", 1, r);
        if (BOTH_FIX(r, y) && UNFIX(r) % UNFIX(y) == 0) r = integer(v, UNFIX(r) / UNFIX(y));
        else {
            double a = to_double(v, "/", r), b = to_double(v, "/", y);
            r = flonum(v, a / b);
        }
    }
    return r;
}
#define COMPARISON(name, sign, test)                                                                                    \
    BUILTIN(name, sign, 1, -1) {                                                                                        \
        bool ok = true;                                                                                                 \
        if (argc == 1 && !IS_NUMBER(argv[0])) fail_type(v, sign, "a number", argv[0]);                                  \
        for (int i = 0; i + 1 < argc; i++) {                                                                            \
            int r = number_compare(v, sign, argv[i], argv[i + 1]);                                                      \
            ok = ok && (test);                                                                                          \
        }                                                                                                               \
        return BOOL(ok);                                                                                                \
    }
COMPARISON(eq, "=", r == 0)
COMPARISON(lt, "<", r == -1)
COMPARISON(gt, ">", r == 1)
COMPARISON(le, "<=", r == -1 || r == 0)
COMPARISON(ge, ">=", r == 1 || r == 0)

BUILTIN(quotient, "quotient", 2, 2) { return divide(v, "quotient", QUOTIENT, argv[0], argv[1]); }
ALSO(quotient, 1, "truncate-quotient", 2, 2)
BUILTIN(remainder, "remainder", 2, 2) { return divide(v, "remainder", REMAINDER, argv[0], argv[1]); }
ALSO(remainder, 2, "truncate-remainder", 2, 2)
BUILTIN(modulo, "modulo", 2, 2) { return divide(v, "modulo", MODULO, argv[0], argv[1]); }
ALSO(modulo, 3, "floor-remainder", 2, 2)
BUILTIN(floor_quotient, "floor-quotient", 2, 2) { return divide(v, "floor-quotient", FLOOR_QUOTIENT, argv[0], argv[1]); }
BUILTIN(is_number, "number?", 1, 1) { return BOOL(IS_NUMBER(argv[0])); }
ALSO(is_number, 4, "complex?", 1, 1) ALSO(is_number, 5, "real?", 1, 1)
BUILTIN(is_integer, "integer?", 1, 1) { return BOOL(is_integer(argv[0])); }
BUILTIN(is_rational, "rational?", 1, 1) { return BOOL(IS_FIX(argv[0]) || (IS_FLONUM(argv[0]) && isfinite(FLONUM(argv[0])))); }
BUILTIN(is_exact, "exact?", 1, 1) { return to_double(v, "exact?", argv[0]), BOOL(IS_FIX(argv[0])); }
BUILTIN(is_inexact, "inexact?", 1, 1) { return to_double(v, "inexact?", argv[0]), BOOL(IS_FLONUM(argv[0])); }
BUILTIN(is_exact_integer, "exact-integer?", 1, 1) { return BOOL(IS_FIX(argv[0])); }
BUILTIN(is_nan, "nan?", 1, 1) { return BOOL(isnan(to_double(v, "nan?", argv[0]))); }
BUILTIN(is_infinite, "infinite?", 1, 1) { return BOOL(isinf(to_double(v, "infinite?", argv[0]))); }
BUILTIN(is_finite, "finite?", 1, 1) { return BOOL(isfinite(to_double(v, "finite?", argv[0]))); }
BUILTIN(is_zero, "zero?", 1, 1) { return BOOL(to_double(v, "zero?", argv[0]) == 0); }
BUILTIN(is_positive, "positive?", 1, 1) { return BOOL(to_double(v, "positive?", argv[0]) > 0); }
BUILTIN(is_negative, "negative?", 1, 1) { return BOOL(to_double(v, "negative?", argv[0]) < 0); }
BUILTIN(is_odd, "odd?", 1, 1) {
    Value r = divide(v, "odd?", REMAINDER, argv[0], FIX(2)); return BOOL(IS_FIX(r) ? r != 0 : FLONUM(r) != 0);
}
BUILTIN(exact, "exact", 1, 1) {
    if (IS_FIX(argv[0])) return argv[0];
    double d = to_double(v, "exact", argv[0]);
    if (floor(d) != d) fail(v, "exact", "no exact fractions here", 1, argv[0]);
    return to_exact(v, "exact", d);
}
ALSO(exact, 8, "inexact->exact", 1, 1)
BUILTIN(inexact, "inexact", 1, 1) { return IS_FLONUM(argv[0]) ? argv[0] : flonum(v, to_double(v, "inexact", argv[0])); }
ALSO(inexact, 9, "exact->inexact", 1, 1)
#define ROUNDING(name, function) BUILTIN(name, #name, 1, 1) { return IS_FIX(argv[0]) ? argv[0] : flonum(v, function(to_double(v, #name, argv[0]))); }
ROUNDING(floor, floor)
ROUNDING(ceiling, ceil)
ROUNDING(truncate, trunc)
ROUNDING(round, nearbyint)
#define FLOAT(name, function) BUILTIN(name, #name, 1, 1) { return flonum(v, function(to_double(v, #name, argv[0]))); }
FLOAT(sin, sin) FLOAT(cos, cos) FLOAT(tan, tan) FLOAT(asin, asin) FLOAT(acos, acos)
BUILTIN(exp, "exp", 1, 1) { return argv[0] == 0 ? FIX(1) : flonum(v, exp(to_double(v, "exp", argv[0]))); }
BUILTIN(log, "log", 1, 2) {
    double a = log(to_double(v, "log", argv[0]));
    return flonum(v, argc > 1 ? a / log(to_double(v, "log", argv[1])) : a);
}
BUILTIN(atan, "atan", 1, 2) {
    double a = to_double(v, "atan", argv[0]);
    return flonum(v, argc > 1 ? atan2(a, to_double(v, "atan", argv[1])) : atan(a));
}
static int64_t root(int64_t n) {
    int64_t r = (int64_t)sqrt((double)n);
    while (r * r > n) r--;
    while ((r + 1) * (r + 1) <= n) r++;
    return r;
}
BUILTIN(sqrt, "sqrt", 1, 1) {
    if (IS_FIX(argv[0]) && UNFIX(argv[0]) >= 0) {
        int64_t n = UNFIX(argv[0]), r = root(n);
        if (r * r == n) return FIX(r);
    }
    return flonum(v, sqrt(to_double(v, "sqrt", argv[0])));
}
BUILTIN(pow, "%pow", 2, 2) { return flonum(v, pow(to_double(v, "expt", argv[0]), to_double(v, "expt", argv[1]))); }
static int radix_arg(vm *v, const char *who, int argc, Value *argv) {
    if (argc < 2) return 10;
    int64_t r = index_arg(v, who, argv[1], 36);
    if (r < 2) fail(v, who, "radix out of range", 1, argv[1]);
    return (int)r;
}
BUILTIN(number_to_string, "number->string", 1, 2) {
    char text[80]; to_double(v, "number->string", argv[0]);
    format_number(argv[0], radix_arg(v, "number->string", argc, argv), text);
    return string_from_c(v, text);
}
BUILTIN(string_to_number, "string->number", 1, 2) {
    if (!IS(argv[0], T_STRING)) fail_type(v, "string->number", "a string", argv[0]);
    int radix = radix_arg(v, "string->number", argc, argv); char *s = string_to_c(v, argv[0]);
    Value r = parse_number(v, s, radix); free(s); return r;
}
