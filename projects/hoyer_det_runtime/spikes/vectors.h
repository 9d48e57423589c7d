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
typedef float Floats __attribute__((vector_size(VECTOR), aligned(16), may_alias));

#if defined(__AVX512BW__) && defined(__AVX512VBMI2__)

static uint8_t lane_numbers[64];

/* Must run once, before anything else. */
void prepare(void) {
    for (int i = 0; i < 64; i++) lane_numbers[i] = (uint8_t)i;
}

/* Writes the numbers of the bits that are set, in order, and perhaps bytes behind them, in all as many as
 * the bits of the unit; returns how many there are. */
static inline int put_numbers(uint8_t *to, uint64_t bits, int width) {
    const __m512i found = _mm512_maskz_compress_epi8(bits, _mm512_loadu_si512(lane_numbers));
    if (width == 64)
        _mm512_storeu_si512(to, found);
    else
        _mm256_storeu_si256((__m256i *)to, _mm512_castsi512_si256(found));
    return __builtin_popcountll(bits);
}

#else

/* The places of the bits of each byte, in order, and their number. */
static uint8_t bit_places[256][8], bit_counts[256];

void prepare(void) {
    for (int byte = 0; byte < 256; byte++) {
        int n = 0;
        for (int bit = 0; bit < 8; bit++)
            if (byte >> bit & 1) bit_places[byte][n++] = (uint8_t)bit;
        bit_counts[byte] = (uint8_t)n;
    }
}

static inline int put_numbers(uint8_t *to, uint64_t bits, int width) {
    int n = 0;
    for (int base = 0; base < width; base += 8, bits >>= 8) {
        /* Eight numbers at once; those of later bytes lie behind, never beyond the unit. */
        uint64_t eight;
        memcpy(&eight, bit_places[bits & 255], 8);
        eight += 0x0101010101010101u * (uint64_t)base;
        memcpy(to + n, &eight, 8);
        n += bit_counts[bits & 255];
    }
    return n;
}

#endif

/* Writes base + 2^scale times each of the numbers, and perhaps entries behind them, 64 in all at most. */
static inline void put_rows(uint16_t *to, const uint8_t *numbers, uint16_t base, int scale, int count) {
#if defined(__AVX512BW__)
    const __m512i from = _mm512_set1_epi16((int16_t)base);
    for (int i = 0; i < (count > 32 ? 64 : 32); i += 32) {
        const __m512i some = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(numbers + i)));
        _mm512_storeu_si512(to + i, _mm512_add_epi16(_mm512_slli_epi16(some, scale), from));
    }
#elif defined(__AVX2__)
    const __m256i from = _mm256_set1_epi16((int16_t)base);
    const __m128i shift = _mm_cvtsi32_si128(scale);
    for (int i = 0; i < count; i += 16) {
        const __m256i some = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(numbers + i)));
        _mm256_storeu_si256((__m256i *)(to + i), _mm256_add_epi16(_mm256_sll_epi16(some, shift), from));
    }
#else
    for (int i = 0; i < count; i += 16) {
        uint16_t some[16];
        for (int k = 0; k < 16; k++) some[k] = (uint16_t)(base + (numbers[i + k] << scale));
        memcpy(to + i, some, sizeof some);
    }
#endif
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
