/* Weak references of the peers that have them: WEAK_KNOWN. A slot lies outside the heap and belongs to one thread.
 *
 *     weak_make(m, slot, object)   the slot is empty before
 *     weak_get(m, slot)            NULL once the object was found dead
 *     weak_drop(m, slot)           the slot is empty again
 */
#ifndef WEAK_H
#define WEAK_H
#include "peer.h"

#if defined(PEER_BESOM) && defined(PEER_WEAK) /* the runner looks whether the header has them */
#define WEAK_KNOWN 1
typedef besom_weak *weak_slot;
PEER_INLINE void weak_make(peer_thread *m, weak_slot *slot, void *object) {
    *slot = besom_weak_new(m, object);
    CHECK(*slot != NULL);
}
PEER_INLINE void *weak_get(peer_thread *m, weak_slot *slot) { return besom_weak_get(m, *slot); }
PEER_INLINE void weak_drop(peer_thread *m, weak_slot *slot) {
    (void)m;
    besom_weak_free(peer_heap, *slot);
}

#elif defined(PEER_LIBGC)
#define WEAK_KNOWN 1
typedef void *weak_slot;
PEER_INLINE void weak_make(peer_thread *m, weak_slot *slot, void *object) {
    (void)m;
    *slot = object;
    CHECK(GC_general_register_disappearing_link(slot, object) == GC_SUCCESS);
}
/* Its links are cleared after the world went on: only its lock keeps a dead object from being found. */
static void *weak_read(void *slot) { return *(void **)slot; }
PEER_INLINE void *weak_get(peer_thread *m, weak_slot *slot) {
    (void)m;
    return GC_call_with_alloc_lock(weak_read, slot);
}
PEER_INLINE void weak_drop(peer_thread *m, weak_slot *slot) {
    (void)m;
    (void)GC_unregister_disappearing_link(slot);
    *slot = NULL;
}

#else
#define WEAK_KNOWN 0
typedef void *weak_slot;
PEER_INLINE void weak_make(peer_thread *m, weak_slot *slot, void *object) { (void)m, (void)slot, (void)object; }
PEER_INLINE void *weak_get(peer_thread *m, weak_slot *slot) { return (void)m, (void)slot, NULL; }
PEER_INLINE void weak_drop(peer_thread *m, weak_slot *slot) { (void)m, (void)slot; }
#endif
#endif
