/* The AVX-512 instructions of the engine on spikes, one lane after another: so that code for AVX-512 is tested
 * on processors without it. After Intel's Intrinsics Guide. */
#include <stdint.h>
#include <string.h>

typedef union {
    uint8_t u8[64];
    int8_t i8[64];
    int16_t i16[32];
    int32_t i32[16];
} __m512i;
typedef struct { float f[16]; } __m512;

#define EACH(lanes) for (int i = 0; i < (lanes); i++)
#define _CMP_GE_OQ 29

static inline __m512i _mm512_loadu_si512(const void *from) {
    __m512i r;
    memcpy(&r, from, sizeof r);
    return r;
}
static inline void _mm512_storeu_si512(void *to, __m512i a) { memcpy(to, &a, sizeof a); }
static inline __m512 _mm512_loadu_ps(const float *from) {
    __m512 r;
    memcpy(&r, from, sizeof r);
    return r;
}
static inline __m512i _mm512_set1_epi16(int16_t a) {
    __m512i r;
    EACH(32) r.i16[i] = a;
    return r;
}
static inline __m512i _mm512_set1_epi32(int32_t a) {
    __m512i r;
    EACH(16) r.i32[i] = a;
    return r;
}
static inline __m512i _mm512_add_epi16(__m512i a, __m512i b) {
    EACH(32) a.i16[i] = (int16_t)((uint16_t)a.i16[i] + (uint16_t)b.i16[i]);
    return a;
}
static inline __m512i _mm512_add_epi32(__m512i a, __m512i b) {
    EACH(16) a.i32[i] = (int32_t)((uint32_t)a.i32[i] + (uint32_t)b.i32[i]);
    return a;
}
/* The lanes of a that the mask names, in order; 0 behind them. */
static inline __m512i _mm512_maskz_compress_epi16(uint32_t mask, __m512i a) {
    __m512i r = {{0}};
    int n = 0;
    EACH(32) if (mask >> i & 1) r.i16[n++] = a.i16[i];
    return r;
}
/* The count is the lowest 64 bits of a vector of 128. */
typedef uint64_t __m128i;
static inline __m128i _mm_cvtsi32_si128(int a) { return (uint32_t)a; }
static inline __m512i _mm512_sll_epi16(__m512i a, __m128i count) {
    EACH(32) a.i16[i] = (int16_t)(count > 15 ? 0 : (uint32_t)(uint16_t)a.i16[i] << count);
    return a;
}
static inline uint32_t _mm512_cmpgt_epi16_mask(__m512i a, __m512i b) {
    uint32_t mask = 0;
    EACH(32) mask |= (uint32_t)(a.i16[i] > b.i16[i]) << i;
    return mask;
}
static inline uint16_t _mm512_cmpge_epi32_mask(__m512i a, __m512i b) {
    uint32_t mask = 0;
    EACH(16) mask |= (uint32_t)(a.i32[i] >= b.i32[i]) << i;
    return (uint16_t)mask;
}
/* Of the comparisons this one alone: a >= b, false for NaN. */
static inline uint16_t _mm512_cmp_ps_mask(__m512 a, __m512 b, int comparison) {
    uint32_t mask = 0;
    EACH(16) mask |= (uint32_t)(comparison == _CMP_GE_OQ && a.f[i] >= b.f[i]) << i;
    return (uint16_t)mask;
}
/* Bytes without times bytes with a sign; sums of two neighbours saturate. */
static inline __m512i _mm512_maddubs_epi16(__m512i a, __m512i b) {
    __m512i r;
    EACH(32) {
        const int sum = a.u8[2 * i] * b.i8[2 * i] + a.u8[2 * i + 1] * b.i8[2 * i + 1];
        r.i16[i] = (int16_t)(sum > INT16_MAX ? INT16_MAX : sum < INT16_MIN ? INT16_MIN : sum);
    }
    return r;
}
static inline __m512i _mm512_madd_epi16(__m512i a, __m512i b) {
    __m512i r;
    EACH(16) r.i32[i] = a.i16[2 * i] * b.i16[2 * i] + a.i16[2 * i + 1] * b.i16[2 * i + 1];
    return r;
}
/* VNNI: four products a lane, none of them saturates. */
static inline __m512i _mm512_dpbusd_epi32(__m512i sum, __m512i a, __m512i b) {
    EACH(16) for (int k = 0; k < 4; k++) sum.i32[i] += a.u8[4 * i + k] * b.i8[4 * i + k];
    return sum;
}
