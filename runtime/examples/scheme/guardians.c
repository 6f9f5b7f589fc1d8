/* Guardians: an object that was registered with one comes back from it, once, when nothing else reaches it any more. Its finalizer
 * moves it to the queues of its guardians, and allocates nothing: the links were made when it was registered (prelude.scm). */
#include "scheme.h"

static pthread_mutex_t queues = PTHREAD_MUTEX_INITIALIZER; /* held for moments, never at a safepoint */
/* data: a handle of ((tag of the object) (queue . link) ...). A queue is (#f . links); a link that waits is (#f). */
static void died(besom_mutator *m, void *object, void *data) {
    Value all = TAGGED(besom_handle_get(m, data), TAG_PAIR), x = TAGGED(object, (Value)UNFIX(CAR(all))); pthread_mutex_lock(&queues);
    for (Value l = CDR(all); l != NIL; l = CDR(l)) {
        Value queue = CAR(CAR(l)), link = CDR(CAR(l)); besom_write_value(m, PAIR(link), &CAR(link), x);
        besom_write_value(m, PAIR(link), &CDR(link), CDR(queue)); besom_write_value(m, PAIR(queue), &CDR(queue), link);
    }
    pthread_mutex_unlock(&queues); besom_handle_free(heap, data);
}
BUILTIN(guard, "%guard", 2, 2) { /* (%guard object list): the list may grow until the object dies */
    store(v, argv[1], &CAR(argv[1]), FIX(TAG(argv[0]))); besom_handle *h = besom_handle_new(v->m, PAIR(argv[1]));
    if (!h || besom_finalizer_set(v->m, ADDRESS(argv[0]), died, h) != BESOM_OK) besom_handle_free(heap, h), alloc_slow_error(v);
    return UNSPECIFIED;
}
BUILTIN(is_mortal, "%mortal?", 1, 1) { return BOOL(IS_POINTER(argv[0])); }
BUILTIN(guarded_next, "%guarded-next", 1, 1) { /* (%guarded-next queue): an object, or #f */
    besom_finalizers_run(v->m, SIZE_MAX); pthread_mutex_lock(&queues); Value link = CDR(argv[0]);
    if (link != NIL) store(v, argv[0], &CDR(argv[0]), CDR(link));
    pthread_mutex_unlock(&queues); return link == NIL ? FALSE : CAR(link);
}
