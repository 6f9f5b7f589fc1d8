/* Reads JSON: whether a text is one value and nothing else, and how often an object in it has a member. */
#ifndef JSON_H
#define JSON_H
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct json {
    const char *at;
    const char *key, *value; /* the member that is counted: "key", and its value as it is written */
    long found;
    int depth;
} json;

static inline void json_space(json *j)
{
    while (*j->at == ' ' || *j->at == '\n' || *j->at == '\t' || *j->at == '\r') j->at++;
}

static inline int json_string(json *j)
{
    if (*j->at++ != '"') return 0;
    for (; *j->at != '"'; j->at++) {
        if ((unsigned char)*j->at < ' ') return 0;
        if (*j->at != '\\') continue;
        j->at++;
        if (*j->at == 'u') {
            int i;
            for (i = 0; i < 4; i++)
                if (!isxdigit((unsigned char)*++j->at)) return 0;
        } else if (*j->at == 0 || strchr("\"\\/bfnrt", *j->at) == NULL) {
            return 0;
        }
    }
    j->at++;
    return 1;
}

static inline int json_digits(json *j)
{
    const char *from = j->at;
    while (isdigit((unsigned char)*j->at)) j->at++;
    return j->at > from;
}

static inline int json_number(json *j)
{
    if (*j->at == '-') j->at++;
    if (*j->at == '0')
        j->at++;
    else if (!json_digits(j))
        return 0;
    if (*j->at == '.' && (j->at++, !json_digits(j))) return 0;
    if (*j->at == 'e' || *j->at == 'E') {
        j->at++;
        if (*j->at == '+' || *j->at == '-') j->at++;
        return json_digits(j);
    }
    return 1;
}

static inline int json_any(json *j);

/* What is between two brackets, after the first. */
static inline int json_inside(json *j, char close, int members)
{
    json_space(j);
    if (*j->at == close) return j->at++, 1;
    for (;;) {
        const char *key, *value;
        json_space(j);
        key = j->at;
        if (members) {
            if (!json_string(j)) return 0;
            json_space(j);
            if (*j->at++ != ':') return 0;
            json_space(j);
        }
        value = j->at;
        if (!json_any(j)) return 0;
        if (members && strncmp(key, j->key, strlen(j->key)) == 0 && (size_t)(j->at - value) == strlen(j->value) &&
            memcmp(value, j->value, strlen(j->value)) == 0)
            j->found++;
        json_space(j);
        if (*j->at == close) return j->at++, 1;
        if (*j->at++ != ',') return 0;
    }
}

static inline int json_any(json *j)
{
    int good;
    switch (*j->at) {
    case '{':
    case '[':
        if (++j->depth > 100) return 0;
        j->at++;
        good = json_inside(j, j->at[-1] == '{' ? '}' : ']', j->at[-1] == '{');
        j->depth--;
        return good;
    case '"': return json_string(j);
    case 't': return strncmp(j->at, "true", 4) == 0 ? (j->at += 4, 1) : 0;
    case 'f': return strncmp(j->at, "false", 5) == 0 ? (j->at += 5, 1) : 0;
    case 'n': return strncmp(j->at, "null", 4) == 0 ? (j->at += 4, 1) : 0;
    default: return json_number(j);
    }
}

/* Members "key": value in a text, both as they are written, the key's quotes too; -1: it is no JSON. */
static inline long json_count(const char *text, const char *key, const char *value)
{
    json j = {text, key, value, 0, 0};
    json_space(&j);
    if (!json_any(&j)) return -1;
    json_space(&j);
    return *j.at == 0 ? j.found : -1;
}

/* A whole file, to be freed; NULL: it cannot be read. */
static inline char *json_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = NULL;
    long length;
    if (f != NULL && fseek(f, 0, SEEK_END) == 0 && (length = ftell(f)) >= 0 && fseek(f, 0, SEEK_SET) == 0 &&
        (text = (char *)malloc((size_t)length + 1)) != NULL)
        text[fread(text, 1, (size_t)length, f)] = 0;
    if (f != NULL) fclose(f);
    return text;
}
#endif
