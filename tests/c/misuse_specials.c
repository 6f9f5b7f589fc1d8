/* Weak references, ephemerons, cleanups and finalizers of what is no object, or no such thing. */
#include "misuse.h"

static void nothing(void *arg) { (void)arg; }
static void finalizer(besom_mutator *r, void *o, void *data) { (void)r, (void)o, (void)data; }
static void weak_get_freed(void) { besom_weak_free(heap, weak), (void)besom_weak_get(m, weak); }
static void weak_free_freed(void) { besom_weak_free(heap, weak), besom_weak_free(heap, weak); }
static void weak_get_foreign(void) { (void)besom_weak_get(other_m, weak); }
static void weak_free_foreign(void) { besom_weak_free(other_heap, weak); }
static void weak_get_wild(void) { (void)besom_weak_get(m, (besom_weak *)(void *)no_object); }
static void weak_get_inside(void) { (void)besom_weak_get(m, (besom_weak *)(void *)((char *)weak + 8)); }
static void weak_get_null(void) { (void)besom_weak_get(m, NULL); }
static void weak_get_handle(void) { (void)besom_weak_get(m, (besom_weak *)(void *)handle); }
static void weak_new_null(void) { (void)besom_weak_new(m, NULL); }
static void weak_new_inside(void) { (void)besom_weak_new(m, (char *)object + 8); }
static void weak_new_c_object(void) { (void)besom_weak_new(m, no_object); }
static void weak_new_foreign(void) { (void)besom_weak_new(other_m, object); }
static void weak_new_not_handed_out(void) { (void)besom_weak_new(m, (char *)object + 64); }
static void weak_new_freed(void)
{
    void *const dead = besom_alloc(m, 2000, BESOM_VALUES);
    NEED(besom_collect(m) == BESOM_OK);
    (void)besom_weak_new(m, dead);
}
/* Found dead by a cycle that leaves the sweep for later: again and again, until the sweeper was not faster. */
static void weak_new_unswept(void)
{
    enum { DEAD = 100 };
    void *dead[DEAD];
    besom_stats stats;
    size_t i, round;
    for (round = 1; round < 1000; round++) {
        for (i = 0; i < DEAD; i++) dead[i] = besom_alloc(m, 30000, BESOM_NOSCAN);
        do {
            NEED(besom_alloc(m, 100, BESOM_VALUES) != NULL);
            besom_stats_read(heap, &stats);
        } while (stats.cycles < 2 * round);
        for (i = DEAD; i-- > 0;)
            if (besom_size(heap, dead[i]) != 0) (void)besom_weak_new(m, dead[i]);
    }
}
static void ephemeron_new_null(void) { (void)besom_ephemeron_new(m, NULL, object); }
static void ephemeron_new_c_object(void) { (void)besom_ephemeron_new(m, no_object, object); }
static void ephemeron_key_null(void) { (void)besom_ephemeron_key(m, NULL); }
static void ephemeron_key_object(void) { (void)besom_ephemeron_key(m, object); }
static void ephemeron_key_inside(void)
{
    void *const e = besom_ephemeron_new(m, object, NULL);
    (void)besom_ephemeron_key(m, (char *)e + 16);
}
static void ephemeron_value_foreign(void) { (void)besom_ephemeron_value(other_m, besom_ephemeron_new(m, object, NULL)); }
static void ephemeron_value_dead(void)
{
    void *const e = besom_ephemeron_new(m, object, NULL);
    NEED(besom_collect(m) == BESOM_OK);
    (void)besom_ephemeron_value(m, e);
}
static void cleanup_add_null(void) { (void)besom_cleanup_add(m, NULL, nothing, NULL, NULL); }
static void cleanup_add_inside(void) { (void)besom_cleanup_add(m, (char *)object + 1, nothing, NULL, NULL); }
static void finalizer_set_c_object(void) { (void)besom_finalizer_set(m, no_object, finalizer, NULL); }
static void finalizer_set_null(void) { (void)besom_finalizer_set(m, NULL, NULL, NULL); }
static void block_for_good(besom_mutator *r, void *o, void *data)
{
    (void)o, (void)data;
    besom_block(r);
}
static void finalizer_blocks(void)
{
    NEED(besom_finalizer_set(m, besom_alloc(m, 16, BESOM_VALUES), block_for_good, NULL) == BESOM_OK);
    NEED(besom_collect(m) == BESOM_OK);
    (void)besom_finalizers_run(m, 1);
}

#define WEAK_FREED(fn) "^besom: " fn ": weak reference 0x[0-9a-f]+ is freed already$"
#define NO_WEAK(fn) "^besom: " fn ": weak reference 0x[0-9a-f]+ is no weak reference of this heap$"
#define NOT_OF_HEAP(fn) "^besom: " fn ": 0x[0-9a-f]+ is no object of the heap$"
#define NO_EPHEMERON(fn) "^besom: " fn ": 0x[0-9a-f]+ is no ephemeron of the heap$"

static const misuse_case cases[] = {
    CASE(weak_get_freed, WEAK_FREED("besom_weak_get")),
    CASE(weak_free_freed, WEAK_FREED("besom_weak_free")),
    CASE(weak_get_foreign, NO_WEAK("besom_weak_get")),
    CASE(weak_free_foreign, NO_WEAK("besom_weak_free")),
    CASE(weak_get_wild, NO_WEAK("besom_weak_get")),
    CASE(weak_get_inside, NO_WEAK("besom_weak_get")),
    CASE(weak_get_null, NO_WEAK("besom_weak_get")),
    CASE(weak_get_handle, NO_WEAK("besom_weak_get")),
    CASE(weak_new_null, NOT_OF_HEAP("besom_weak_new")),
    CASE(weak_new_inside, NOT_OF_HEAP("besom_weak_new")),
    CASE(weak_new_c_object, NOT_OF_HEAP("besom_weak_new")),
    CASE(weak_new_foreign, NOT_OF_HEAP("besom_weak_new")),
    CASE(weak_new_not_handed_out, NOT_OF_HEAP("besom_weak_new")),
    CASE(weak_new_freed, NOT_OF_HEAP("besom_weak_new")),
    CASE(weak_new_unswept, NOT_OF_HEAP("besom_weak_new")),
    CASE(ephemeron_new_null, NOT_OF_HEAP("besom_ephemeron_new")),
    CASE(ephemeron_new_c_object, NOT_OF_HEAP("besom_ephemeron_new")),
    CASE(ephemeron_key_null, NO_EPHEMERON("besom_ephemeron_key")),
    CASE(ephemeron_key_object, NO_EPHEMERON("besom_ephemeron_key")),
    CASE(ephemeron_key_inside, NO_EPHEMERON("besom_ephemeron_key")),
    CASE(ephemeron_value_foreign, NO_EPHEMERON("besom_ephemeron_value")),
    CASE(ephemeron_value_dead, NO_EPHEMERON("besom_ephemeron_value")),
    CASE(cleanup_add_null, NOT_OF_HEAP("besom_cleanup_add")),
    CASE(cleanup_add_inside, NOT_OF_HEAP("besom_cleanup_add")),
    CASE(finalizer_set_c_object, NOT_OF_HEAP("besom_finalizer_set")),
    CASE(finalizer_set_null, NOT_OF_HEAP("besom_finalizer_set")),
    CASE(finalizer_blocks, BLOCKED("besom_finalizers_run")),
};

int main(int argc, char **argv)
{
    return misuse_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
