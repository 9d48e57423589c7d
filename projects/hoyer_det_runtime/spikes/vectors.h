/* Vectors, and the two steps that compilers do not find by themselves, for AVX-512, AVX2 and any processor. */
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "bits are packed for little endian only"
#endif

#if defined(__AVX512BW__)
#define VECTOR 64
#elif defined(__AVX2__)
#define VECTOR 32
#else
#define VECTOR 16
#endif
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

typedef int64_t wide;
typedef uint8_t Bytes __attribute__((vector_size(VECTOR), aligned(16), may_alias));
typedef uint16_t Words __attribute__((vector_size(VECTOR), aligned(16), may_alias)); /* overflow is defined */
typedef int16_t Signed __attribute__((vector_size(VECTOR), aligned(16), may_alias));
typedef uint16_t Entries __attribute__((vector_size(VECTOR), aligned(2), may_alias)); /* of lists */
typedef float Floats __attribute__((vector_size(VECTOR), aligned(16), may_alias));

#if defined(__AVX512BW__) && defined(__AVX512VBMI2__)

static uint16_t lane_numbers[32];

/* Must run once, before anything else. */
void prepare(void) {
    for (int i = 0; i < 32; i++) lane_numbers[i] = (uint16_t)i;
}

/* Writes 2^shift times the number of each bit that is set, in order, and perhaps entries behind them, in all as
 * many as the bits of the unit and 16; returns how many there are. */
static inline int put_numbers(uint16_t *to, uint64_t bits, int width, int shift) {
    int n = 0;
    for (int base = 0; base < width; base += 32, bits >>= 32) {
        const __m512i lanes = _mm512_add_epi16(_mm512_loadu_si512(lane_numbers), _mm512_set1_epi16((int16_t)base));
        const __m512i found = _mm512_maskz_compress_epi16((uint32_t)bits, lanes);
        _mm512_storeu_si512(to + n, _mm512_sll_epi16(found, _mm_cvtsi32_si128(shift)));
        n += __builtin_popcount((uint32_t)bits);
    }
    return n;
}

#else

typedef uint16_t Eight __attribute__((vector_size(16), aligned(2), may_alias));

/* The places of the bits of each byte, in order, and their number. */
static uint16_t bit_places[256][8];
static uint8_t bit_counts[256];

void prepare(void) {
    for (int byte = 0; byte < 256; byte++) {
        int n = 0;
        for (int bit = 0; bit < 8; bit++)
            if (byte >> bit & 1) bit_places[byte][n++] = (uint16_t)bit;
        bit_counts[byte] = (uint8_t)n;
    }
}

static inline int put_numbers(uint16_t *to, uint64_t bits, int width, int shift) {
    int n = 0;
    for (int base = 0; base < width; base += 8, bits >>= 8) {
        /* Eight entries at once; those of later bytes lie behind. */
        *(Eight *)(to + n) = (*(const Eight *)bit_places[bits & 255] + (uint16_t)base) << (uint16_t)shift;
        n += bit_counts[bits & 255];
    }
    return n;
}

#endif

/* Writes base plus each of some entries, and perhaps others behind them. */
static inline void put_rows(uint16_t *to, const uint16_t *from, uint16_t base, wide count) {
    for (wide i = 0; i < count; i += VECTOR / 2) *(Entries *)(to + i) = *(const Entries *)(from + i) + base;
}

/* Bit i: sums[i] > below[i], of 64 int16 each. */
static inline uint64_t above(const char *sums, const int16_t *below) {
    uint64_t bits = 0;
#if defined(__AVX512BW__)
    for (int p = 0; p < 2; p++) {
        const __m512i s = _mm512_loadu_si512(sums + 64 * p), t = _mm512_loadu_si512(below + 32 * p);
        bits |= (uint64_t)_mm512_cmpgt_epi16_mask(s, t) << 32 * p;
    }
#elif defined(__AVX2__)
    for (int p = 0; p < 2; p++) {
        __m256i greater[2];
        for (int h = 0; h < 2; h++) {
            const __m256i s = _mm256_loadu_si256((const __m256i *)(sums + 64 * p + 32 * h));
            greater[h] = _mm256_cmpgt_epi16(s, _mm256_loadu_si256((const __m256i *)(below + 32 * p + 16 * h)));
        }
        /* Packing goes by halves of 128 bits: put the quarters in order. */
        const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(greater[0], greater[1]), 0xd8);
        bits |= (uint64_t)(uint32_t)_mm256_movemask_epi8(bytes) << 32 * p;
    }
#else
    const int16_t *s = (const int16_t *)sums;
    for (int i = 0; i < 64; i++) bits |= (uint64_t)(s[i] > below[i]) << i;
#endif
    return bits;
}
