/* What a user's first program looks like, built against an installed tree. */
#include <besom.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    besom_options options;
    besom_heap *heap;
    besom_mutator *m;
    char *text;
    if (strcmp(besom_version(), BESOM_VERSION_STRING) != 0) return 1;
    besom_options_init(&options);
    if (besom_heap_new(&options, &heap) != BESOM_OK || besom_attach(heap, &m) != BESOM_OK) return 1;
    text = (char *)besom_alloc(m, 32, BESOM_NOSCAN);
    if (text == NULL) return 1;
    strcpy(text, "swept clean");
    if (besom_collect(m) != BESOM_OK) return 1;
    printf("besom %s: %s\n", besom_version(), text);
    return besom_detach(m) == BESOM_OK && besom_heap_free(heap) == BESOM_OK ? 0 : 1;
}
