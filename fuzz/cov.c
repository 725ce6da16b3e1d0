/* Lets libFuzzer see the branches and the comparisons of the compiled codec.

   GCC calls __sanitizer_cov_trace_pc() at every edge, and libFuzzer counts in
   arrays that are registered with it. Between the two there is this: a counter
   a place, found by the caller's address. Comparisons are handed on as they
   are; by a jump, since libFuzzer tells them apart by the return address, so
   this file needs -O2. libFuzzer is loaded in a way that hides its functions
   from the linker, and fuzz/watch.py looks them up. Only the fuzzer's build of
   the codec has any of this. */

#include <stdint.h>

#define HIDDEN __attribute__((visibility("hidden"), noinline))
#define COUNTERS 4096 /* a power of two, larger than the codec has edges */

static uint8_t counters[COUNTERS];
static uintptr_t places[2 * COUNTERS];

HIDDEN void __sanitizer_cov_trace_pc(void) {
    uintptr_t place = (uintptr_t)__builtin_return_address(0);
    uint32_t offset = (uint32_t)(place - (uintptr_t)counters);
    counters[(offset * 2654435761u) >> 20]++;
}

#define HAND_ON(name, type)                                \
    void (*on_##name)(type, type);                         \
    HIDDEN void __sanitizer_cov_trace_##name(type a, type b) { \
        if (on_##name)                                     \
            on_##name(a, b);                               \
    }

HAND_ON(cmp1, uint8_t)
HAND_ON(cmp2, uint16_t)
HAND_ON(cmp4, uint32_t)
HAND_ON(cmp8, uint64_t)
HAND_ON(const_cmp1, uint8_t)
HAND_ON(const_cmp2, uint16_t)
HAND_ON(const_cmp4, uint32_t)
HAND_ON(const_cmp8, uint64_t)

void (*on_switch)(uint64_t, void *);
HIDDEN void __sanitizer_cov_trace_switch(uint64_t value, void *cases) {
    if (on_switch)
        on_switch(value, cases);
}

/* libFuzzer does not look at floating point. */
HIDDEN void __sanitizer_cov_trace_cmpf(float a, float b) { (void)a; (void)b; }
HIDDEN void __sanitizer_cov_trace_cmpd(double a, double b) { (void)a; (void)b; }

/* Called once, with libFuzzer's two functions. */
void fuzz_register(
    void (*add_counters)(uint8_t *, uint8_t *),
    void (*add_places)(const uintptr_t *, const uintptr_t *)
) {
    for (int index = 0; index < COUNTERS; index++)
        places[2 * index] = (uintptr_t)&counters[index];
    add_counters(counters, counters + COUNTERS);
    add_places(places, places + 2 * COUNTERS);
}
