/* Ports: a buffer on the heap, or a file. Reads and writes of files happen in C memory, while this thread is blocked as a mutator: a
 * collection need not wait for a terminal. */
#include "scheme.h"
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <unistd.h>

/* Bytes per file buffer: fewer means more system calls, more means memory for each open port and C stack. */
enum { PORT_BUFFER = 8192 };
/* What an open file port has beside the heap, so that the cleanup of a port that was dropped can write the rest and close the file. */
struct file { int fd; besom_cleanup cleanup; size_t at; char bytes[]; }; /* output only: bytes to be written are [0, at) */
static struct file no_file = {.fd = -1}; /* of closed ports */
static besom_layout port_layout;
int output_error; /* the errno of a write that failed */
static pthread_mutex_t output_lock = PTHREAD_MUTEX_INITIALIZER; /* one display at a time, for all file ports */

static Value port_new(vm *v, bool input, bool binary, const char *name, Value buffer, size_t room) {
    Value *base = v->sp; hold(v, buffer);
    if (buffer == NIL) *base = make_bytes(v, (int64_t)room);
    struct port *p = besom_new(v->m, port_layout);
    if (!p) alloc_slow_error(v);
    p->header = HEADER(T_PORT, 0), p->buffer = ADDRESS(*base), p->name = name, p->line = 1;
    p->input = input, p->binary = binary, p->end = buffer == NIL ? 0 : (size_t)LENGTH(buffer); return v->sp = base, TAGGED(p, TAG_OBJECT);
}

static void write_out(struct file *f) {
    for (size_t done = 0; done < f->at;) {
        ssize_t n = write(f->fd, f->bytes + done, f->at - done);
        if (n < 0 && errno != EINTR) { output_error = errno; break; } /* said at the exit: here the caller may hold a lock */
        if (n > 0) done += (size_t)n;
    }
    f->at = 0;
}
static void file_close(void *file) { struct file *f = file; write_out(f), close(f->fd), free(f); }

static Value port_file(vm *v, Value port, int fd) { /* the standard ones are never closed */
    struct port *p = PORT(port); struct file *f = malloc(sizeof *f + (p->input ? 0 : PORT_BUFFER));
    if (f) f->fd = fd, f->at = 0, p->file = f, p->interactive = isatty(fd);
    if (f && (fd <= 2 || besom_cleanup_add(v->m, p, file_close, f, &f->cleanup) == BESOM_OK)) return port;
    p->file = &no_file, free(f), close(fd); return alloc_slow_error(v), 0;
}

#define ROOM(p) ((size_t)((p)->buffer->header >> 8))

/* ---- input ---- */
static bool fill(vm *v, Value port) { /* keeps the unread bytes; false at the end */
    struct port *p = PORT(port);
    char bytes[PORT_BUFFER];
    if (!p->file || p->closed) return false;
    size_t left = p->end - p->at, want = ROOM(p) - left; int fd = p->file->fd;
    if (p->interactive) ports_flush_all(v), besom_finalizers_run(v->m, SIZE_MAX); /* somebody thinks: there is time */
    memmove(p->buffer->at, p->buffer->at + p->at, left); p->at = 0, p->end = left; besom_block(v->m);
    ssize_t n;
    do n = read(fd, bytes, want); while (n < 0 && errno == EINTR);
    int error = errno; besom_unblock(v->m);
    if (n < 0) {
        Value name = hold(v, string_from_c(v, p->name));
        fail_kind(v, "file", strerror(error), list_from(v, 1, &name, NIL));
    }
    if (n == 0) return false;
    memcpy(p->buffer->at + left, bytes, (size_t)n); p->end = left + (size_t)n; return true;
}

int port_byte(vm *v, Value port, bool peek) {
    struct port *p = PORT(port);
    if (p->at == p->end && !fill(v, port)) return -1;
    return p->buffer->at[peek ? p->at : p->at++];
}

int32_t port_char(vm *v, Value port, bool peek) {
    struct port *p = PORT(port);
    if (p->at == p->end && !fill(v, port)) return -1;
    uint8_t first = p->buffer->at[p->at];
    if (first < 0x80) {
        if (!peek) p->at++, p->line += first == '\n';
        return first;
    }
    size_t need = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    while (p->end - p->at < need && fill(v, port)) {}
    const uint8_t *at = p->buffer->at + p->at, *start = at; uint32_t c = utf8_get(&at, p->buffer->at + p->end);
    if (!peek) p->at += (size_t)(at - start);
    return (int32_t)c;
}

/* ---- output ---- */
void port_flush(vm *v, Value port) { /* under output_lock */
    struct file *f = PORT(port)->file;
    if (f && f->at > 0) besom_block(v->m), write_out(f), besom_unblock(v->m);
}

void port_put(vm *v, Value port, const char *s, size_t n) {
    struct port *p = PORT(port); struct file *f = p->file;
    if (!f) {
        if (p->at + n > ROOM(p)) {
            Value *base = v->sp; hold(v, port);
            struct bytes *bigger = ADDRESS(make_bytes(v, (int64_t)(2 * (p->at + n)))); v->sp = base;
            memcpy(bigger->at, p->buffer->at, p->at); besom_write(v->m, p, &p->buffer, bigger);
        }
        memcpy(p->buffer->at + p->at, s, n); p->at += n; return;
    }
    bool line = p->interactive && memchr(s, '\n', n);
    while (n > 0 && f->fd >= 0) { /* else another thread has closed it */
        size_t room = PORT_BUFFER - f->at, k = n < room ? n : room; memcpy(f->bytes + f->at, s, k);
        f->at += k, s += k, n -= k;
        if (f->at == PORT_BUFFER) port_flush(v, port);
    }
    if (line) port_flush(v, port);
}

void ports_flush_all(vm *v) {
    lock(v, &output_lock); port_flush(v, FIELD(globals[G_STDOUT], 0)), port_flush(v, FIELD(globals[G_STDERR], 0));
    pthread_mutex_unlock(&output_lock);
}

Value port_string_out(vm *v) { return port_new(v, false, false, "string", NIL, 64); }
Value port_memory_in(vm *v, Value bytes, bool binary) { return port_new(v, true, binary, "string", bytes, 0); }
Value port_string_of(vm *v, Value port) { return string_from_port(v, port, NULL, PORT(port)->at); }
static Value bytes_of(vm *v, Value port) {
    Value r = make_bytes(v, (int64_t)PORT(port)->at); return memcpy(BYTES(r)->at, PORT(port)->buffer->at, (size_t)LENGTH(r)), r;
}

/* ---- builtins ---- */
static Value parameter_value(vm *v, Value parameter) {
    for (Value l = v->stack[REG_PARAMS]; l != NIL; l = CDR(l))
        if (CAR(CAR(l)) == parameter) return CDR(CAR(l));
    return FIELD(parameter, 0);
}
static Value port_arg(vm *v, int argc, Value *argv, int index, bool input) {
    Value p = argc > index ? argv[index] : parameter_value(v, globals[input ? G_STDIN : G_STDOUT]);
    if (!IS(p, T_PORT) || PORT(p)->input != input) fail_type(v, NULL, input ? "an input port" : "an output port", p);
    if (PORT(p)->closed) fail(v, NULL, "port is closed", 1, p);
    return p;
}
Value port_out(vm *v, int argc, Value *argv, int index) { return port_arg(v, argc, argv, index, false); }
static Value port_in(vm *v, int argc, Value *argv, int index) { return port_arg(v, argc, argv, index, true); }

static Value print_locked(vm *v, int argc, Value *argv, int mode) {
    Value p = port_out(v, argc, argv, 1), labels = hold(v, print_labels(v, argv[0], mode));
    bool file = PORT(p)->file != NULL; /* such a port allocates nothing, so no error can leave the lock behind */
    if (file) lock(v, &output_lock);
    print_labelled(v, p, argv[0], mode, labels);
    if (file) pthread_mutex_unlock(&output_lock);
    return UNSPECIFIED;
}
static void put_locked(vm *v, Value port, const char *s, size_t n) {
    bool file = PORT(port)->file != NULL;
    if (file) lock(v, &output_lock);
    port_put(v, port, s, n);
    if (file) pthread_mutex_unlock(&output_lock);
}
BUILTIN(display, "display", 1, 2) { return print_locked(v, argc, argv, DISPLAY); }
BUILTIN(write, "write", 1, 2) { return print_locked(v, argc, argv, WRITE); }
ALSO(write, 1, "write-simple", 1, 2)
BUILTIN(write_shared, "write-shared", 1, 2) { return print_locked(v, argc, argv, WRITE_SHARED); }
BUILTIN(newline, "newline", 0, 1) { return put_locked(v, port_out(v, argc, argv, 0), "\n", 1), UNSPECIFIED; }
BUILTIN(write_char, "write-char", 1, 2) {
    char text[4];
    if (!IS_CHAR(argv[0])) fail_type(v, "write-char", "a character", argv[0]);
    return put_locked(v, port_out(v, argc, argv, 1), text, utf8_put(UNCHAR(argv[0]), text)), UNSPECIFIED;
}
BUILTIN(write_string, "write-string", 1, 4) {
    if (!IS(argv[0], T_STRING)) fail_type(v, "write-string", "a string", argv[0]);
    int64_t start, end; range_args(v, "write-string", argc, argv, 2, LENGTH(argv[0]), &start, &end);
    Value p = port_out(v, argc, argv, 1);
    if (start == 0 && end == LENGTH(argv[0])) return print_locked(v, argc, argv, DISPLAY);
    for (char text[4]; start < end; start++) put_locked(v, p, text, utf8_put(STRING(argv[0])->ch[start], text));
    return UNSPECIFIED;
}
BUILTIN(write_u8, "write-u8", 1, 2) {
    char b = (char)index_arg(v, "write-u8", argv[0], 255);
    return put_locked(v, port_out(v, argc, argv, 1), &b, 1), UNSPECIFIED;
}
BUILTIN(write_bytevector, "write-bytevector", 1, 4) {
    if (!IS(argv[0], T_BYTES)) fail_type(v, "write-bytevector", "a bytevector", argv[0]);
    int64_t start, end; range_args(v, "write-bytevector", argc, argv, 2, LENGTH(argv[0]), &start, &end);
    return put_locked(v, port_out(v, argc, argv, 1), (char *)BYTES(argv[0])->at + start, (size_t)(end - start)), UNSPECIFIED;
}
BUILTIN(flush, "flush-output-port", 0, 1) {
    Value p = port_out(v, argc, argv, 0); lock(v, &output_lock), port_flush(v, p), pthread_mutex_unlock(&output_lock); return UNSPECIFIED;
}

static Value char_or_eof(int32_t c) { return c < 0 ? EOF_OBJECT : CHAR(c); }
BUILTIN(read, "read", 0, 1) { return read_datum(v, port_in(v, argc, argv, 0)); }
BUILTIN(read_char, "read-char", 0, 1) { return char_or_eof(port_char(v, port_in(v, argc, argv, 0), false)); }
BUILTIN(peek_char, "peek-char", 0, 1) { return char_or_eof(port_char(v, port_in(v, argc, argv, 0), true)); }
static Value byte_or_eof(int b) { return b < 0 ? EOF_OBJECT : FIX(b); }
BUILTIN(read_u8, "read-u8", 0, 1) { return byte_or_eof(port_byte(v, port_in(v, argc, argv, 0), false)); }
BUILTIN(peek_u8, "peek-u8", 0, 1) { return byte_or_eof(port_byte(v, port_in(v, argc, argv, 0), true)); }
BUILTIN(char_ready, "char-ready?", 0, 1) { return port_in(v, argc, argv, 0), TRUE; }
ALSO(char_ready, 3, "u8-ready?", 0, 1)
static Value collect(vm *v, Value in, int64_t limit, bool line) {
    Value out = hold(v, port_string_out(v)); int32_t c = -1; char text[4];
    for (int64_t n = 0; n < limit && (c = port_char(v, in, false)) >= 0 && !(line && c == '\n'); n++) port_put(v, out, text, utf8_put((uint32_t)c, text));
    if (c < 0 && PORT(out)->at == 0 && limit > 0) return EOF_OBJECT;
    return port_string_of(v, out);
}
BUILTIN(read_line, "read-line", 0, 1) { return collect(v, port_in(v, argc, argv, 0), INT64_MAX, true); }
BUILTIN(read_string, "read-string", 1, 2) { return collect(v, port_in(v, argc, argv, 1), index_arg(v, "read-string", argv[0], FIXNUM_MAX), false); }
BUILTIN(read_bytevector, "read-bytevector", 1, 2) {
    int64_t k = index_arg(v, "read-bytevector", argv[0], FIXNUM_MAX);
    Value in = port_in(v, argc, argv, 1), out = hold(v, port_string_out(v)); int b = -1;
    for (char byte; k > 0 && (b = port_byte(v, in, false)) >= 0; k--) byte = (char)b, port_put(v, out, &byte, 1);
    return b < 0 && PORT(out)->at == 0 && k > 0 ? EOF_OBJECT : bytes_of(v, out);
}

static Value open_file(vm *v, const char *who, Value name, int flags, bool binary) {
    if (!IS(name, T_STRING)) fail_type(v, who, "a string", name);
    char *path = string_to_c(v, name), text[200]; /* code compiled from it names the path for ever: it is not freed */
    bool input = flags == O_RDONLY; Value port = hold(v, port_new(v, input, binary, path, NIL, input ? PORT_BUFFER : 0));
    besom_finalizers_run(v->m, SIZE_MAX); /* closes files whose ports were dropped, as cycles find them; it costs a load if there are none */
    int fd = open(path, flags | O_CLOEXEC, 0666);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE)) { /* there may be more of them */
        besom_collect(v->m), besom_finalizers_run(v->m, SIZE_MAX); fd = open(path, flags | O_CLOEXEC, 0666);
    }
    if (fd >= 0) return port_file(v, port, fd);
    snprintf(text, sizeof text, "%s: %s:", who, strerror(errno)); free(path);
    fail_kind(v, "file", text, list_from(v, 1, &name, NIL));
}
Value port_file_in(vm *v, Value name) { return open_file(v, "include", name, O_RDONLY, false); }
#define OPEN(name, text, flags, binary) BUILTIN(name, text, 1, 1) { return open_file(v, text, argv[0], flags, binary); }
OPEN(open_in, "open-input-file", O_RDONLY, false)
OPEN(open_out, "open-output-file", O_WRONLY | O_CREAT | O_TRUNC, false)
OPEN(open_binary_in, "open-binary-input-file", O_RDONLY, true)
OPEN(open_binary_out, "open-binary-output-file", O_WRONLY | O_CREAT | O_TRUNC, true)
void port_close(vm *v, Value port) {
    struct port *p = PORT(port); lock(v, &output_lock); port_flush(v, port);
    if (p->file && p->file != &no_file && p->file->fd > 2 && besom_cleanup_cancel(heap, p->file->cleanup)) file_close(p->file), p->file = &no_file;
    p->closed = true; pthread_mutex_unlock(&output_lock);
}
BUILTIN(close, "close-port", 1, 1) {
    if (!IS(argv[0], T_PORT)) fail_type(v, "close-port", "a port", argv[0]);
    return port_close(v, argv[0]), UNSPECIFIED;
}
ALSO(close, 4, "close-input-port", 1, 1) ALSO(close, 5, "close-output-port", 1, 1)
BUILTIN(open_in_string, "open-input-string", 1, 1) {
    if (!IS(argv[0], T_STRING)) fail_type(v, "open-input-string", "a string", argv[0]);
    Value bytes = hold(v, port_string_out(v)); print(v, bytes, argv[0], DISPLAY);
    PORT(bytes)->end = PORT(bytes)->at, PORT(bytes)->at = 0, PORT(bytes)->input = true; return bytes;
}
BUILTIN(open_in_bytes, "open-input-bytevector", 1, 1) {
    if (!IS(argv[0], T_BYTES)) fail_type(v, "open-input-bytevector", "a bytevector", argv[0]);
    return port_memory_in(v, argv[0], true);
}
BUILTIN(open_out_string, "open-output-string", 0, 0) { return port_string_out(v); }
BUILTIN(open_out_bytes, "open-output-bytevector", 0, 0) { return port_new(v, false, true, "string", NIL, 64); }
static Value memory_arg(vm *v, Value p) {
    if (!IS(p, T_PORT) || PORT(p)->input || PORT(p)->file) fail_type(v, NULL, "a string or bytevector output port", p);
    return p;
}
BUILTIN(get_string, "get-output-string", 1, 1) { return port_string_of(v, memory_arg(v, argv[0])); }
BUILTIN(get_bytes, "get-output-bytevector", 1, 1) { return bytes_of(v, memory_arg(v, argv[0])); }
BUILTIN(is_port, "port?", 1, 1) { return BOOL(IS(argv[0], T_PORT)); }
BUILTIN(is_input, "input-port?", 1, 1) { return BOOL(IS(argv[0], T_PORT) && PORT(argv[0])->input); }
BUILTIN(is_output, "output-port?", 1, 1) { return BOOL(IS(argv[0], T_PORT) && !PORT(argv[0])->input); }
BUILTIN(is_textual, "textual-port?", 1, 1) { return BOOL(IS(argv[0], T_PORT) && !PORT(argv[0])->binary); }
BUILTIN(is_binary, "binary-port?", 1, 1) { return BOOL(IS(argv[0], T_PORT) && PORT(argv[0])->binary); }
BUILTIN(is_open, "input-port-open?", 1, 1) { return BOOL(IS(argv[0], T_PORT) && !PORT(argv[0])->closed); }
ALSO(is_open, 6, "output-port-open?", 1, 1)
BUILTIN(eof, "eof-object", 0, 0) { return EOF_OBJECT; }
BUILTIN(is_eof, "eof-object?", 1, 1) { return BOOL(argv[0] == EOF_OBJECT); }
static int on_path(vm *v, Value name, int (*act)(const char *)) {
    if (!IS(name, T_STRING)) fail_type(v, NULL, "a file name", name);
    char *path = string_to_c(v, name); int r = act(path); free(path);
    return r;
}
static int readable(const char *path) { return access(path, F_OK); }
BUILTIN(file_exists, "file-exists?", 1, 1) { return BOOL(on_path(v, argv[0], readable) == 0); }
BUILTIN(delete_file, "delete-file", 1, 1) {
    if (on_path(v, argv[0], unlink) != 0) fail_kind(v, "file", "delete-file: cannot delete", list_from(v, 1, argv, NIL));
    return UNSPECIFIED;
}

void boot_ports(vm *v) {
    static const struct { const char *name; int global; bool input; } standard[] = {
        {"current-input-port", G_STDIN, true}, {"current-output-port", G_STDOUT, false}, {"current-error-port", G_STDERR, false}};
    if (BESOM_LAYOUT(heap, &port_layout, struct port, buffer) != BESOM_OK) abort();
    for (int i = 0; i < 3; i++) {
        Value port = hold(v, port_new(v, standard[i].input, false, standard[i].name, NIL, standard[i].input ? PORT_BUFFER : 0));
        Value p = make_object(v, T_PARAMETER, 2, port_file(v, port, i));
        FIELD(p, 1) = FALSE, global_set(v, standard[i].global, p); Value s = symbol(v, standard[i].name);
        store(v, s, &SYMBOL(s)->value, globals[standard[i].global]); v->sp--;
    }
}
