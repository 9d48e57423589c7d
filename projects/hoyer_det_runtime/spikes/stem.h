/* The first convolution: bytes of an image times small integers, in int32. */

#define GROUP 16     /* output channels that are summed together */
#define MAX_DEPTH 4  /* channels of the image, filled up to so many */

/* Must be as `_Stem` in native.py. */
typedef struct {
    Window window;
    wide C, M;  /* channels of the image and of the output */
    wide border; /* value of the places outside */
    wide threads;
} Stem;

/* Pairs of products of int16, summed in int32: a vector of pairs of weights, a pair of inputs. */
#if defined(__AVX512BW__)
typedef __m512i Accumulator;
static inline void multiply(Accumulator *sum, const int16_t *weights, int32_t pair) {
#if defined(__AVX512VNNI__)
    *sum = _mm512_dpwssd_epi32(*sum, _mm512_loadu_si512(weights), _mm512_set1_epi32(pair));
#else
    *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(_mm512_loadu_si512(weights), _mm512_set1_epi32(pair)));
#endif
}
static inline void store(int32_t *to, const Accumulator *sum) { _mm512_storeu_si512(to, *sum); }
static inline uint32_t at_least(const Accumulator *sum, const int32_t *level) {
    return _mm512_cmpge_epi32_mask(*sum, _mm512_loadu_si512(level));
}
#elif defined(__AVX2__)
typedef struct { __m256i half[2]; } Accumulator;
static inline void multiply(Accumulator *sum, const int16_t *weights, int32_t pair) {
    for (int h = 0; h < 2; h++)
        sum->half[h] = _mm256_add_epi32(sum->half[h], _mm256_madd_epi16(_mm256_loadu_si256((const __m256i *)weights + h), _mm256_set1_epi32(pair)));
}
static inline void store(int32_t *to, const Accumulator *sum) { memcpy(to, sum, sizeof *sum); }
static inline uint32_t at_least(const Accumulator *sum, const int32_t *level) {
    uint32_t below = 0;
    for (int h = 0; h < 2; h++) {
        const __m256i less = _mm256_cmpgt_epi32(_mm256_loadu_si256((const __m256i *)level + h), sum->half[h]);
        below |= (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(less)) << 8 * h;
    }
    return ~below & 0xffff;
}
#else
typedef struct { int32_t of[GROUP]; } Accumulator;
static inline void multiply(Accumulator *sum, const int16_t *weights, int32_t pair) {
    int16_t inputs[2];
    memcpy(inputs, &pair, sizeof inputs);
    for (int c = 0; c < GROUP; c++) sum->of[c] += weights[2 * c] * inputs[0] + weights[2 * c + 1] * inputs[1];
}
static inline void store(int32_t *to, const Accumulator *sum) { memcpy(to, sum, sizeof *sum); }
static inline uint32_t at_least(const Accumulator *sum, const int32_t *level) {
    uint32_t bits = 0;
    for (int c = 0; c < GROUP; c++) bits |= (uint32_t)(sum->of[c] >= level[c]) << c;
    return bits;
}
#endif

/* One line of the image, places with its border, channels last and filled up with zeros. */
static void fill_line(const Stem *s, const uint8_t *image, wide n, wide y, wide places, int16_t *line) {
    const Window *w = &s->window;
    for (wide x = 0; x < places; x++)
        for (wide c = 0; c < MAX_DEPTH; c++) line[x * MAX_DEPTH + c] = (int16_t)(c < s->C ? s->border : 0);
    if (y < 0 || y >= w->H) return;
    for (wide c = 0; c < s->C; c++) {
        const uint8_t *from = image + ((n * s->C + c) * w->H + y) * w->W;
        for (wide x = 0; x < w->W && x + w->pad_w < places; x++) line[(x + w->pad_w) * MAX_DEPTH + c] = from[x];
    }
}

static inline wide stem_places(const Window *w) { return MAX(w->W + w->pad_w, (w->OW + 3) * w->stride_w + w->kernel_w); }

/* Bytes that each thread of `run_stem` needs. */
wide stem_bytes(const Stem *s) {
    return (s->window.kernel_h * stem_places(&s->window) * MAX_DEPTH * 2 + 127) / 64 * 64;
}

/* What becomes of the sums of image times weights. Must be as `_StemEnds` in native.py. */
typedef struct {
    const int32_t *level; /* a channel fires where its sum reaches it; whole words of channels */
    const uint32_t *flip; /* spikes to turn around, the words of a place */
    uint32_t *spikes;     /* (places, words) */
    const float *step, *bias; /* numbers are step * (sum - shift) + bias, whole groups of channels */
    const int32_t *shift;
    float *numbers; /* (places, M); NULL where spikes are wanted */
} StemEnds;

/* image: (N, C, H, W). weights: (groups of 16 outputs, kernel_h, kernel_w, 2 pairs of channels, 16, 2). */
void run_stem(const Stem *s, const uint8_t *image, const int16_t *weights, const StemEnds *ends, char *scratch) {
    const Window *w = &s->window;
    const wide words = (s->M + 31) / 32, groups = (s->M + GROUP - 1) / GROUP, places = stem_places(w);
    const wide depth = MAX_DEPTH / 2, bytes = stem_bytes(s);
#pragma omp parallel for num_threads(s->threads) schedule(static) if (s->threads > 1)
    for (wide t = 0; t < s->threads; t++) {
        int16_t *lines = (int16_t *)(scratch + t * bytes);
        const wide last = w->N * w->OH * (t + 1) / s->threads;
        for (wide line = w->N * w->OH * t / s->threads; line < last; line++) {
            const wide n = line / w->OH, y = line % w->OH;
            for (wide i = 0; i < w->kernel_h; i++)
                fill_line(s, image, n, y * w->stride_h - w->pad_h + i, places, lines + i * places * MAX_DEPTH);
            for (wide x = 0; x < w->OW; x += 4) {
                const wide place = line * w->OW + x, count = MIN(4, w->OW - x);
                uint32_t *to = ends->spikes + place * words;
                if (!ends->numbers) memset(to, 0, count * words * sizeof *to);
                for (wide g = 0; g < groups; g++) {
                    Accumulator sums[4];
                    memset(sums, 0, sizeof sums);
                    const int16_t *row = weights + g * w->kernel_h * w->kernel_w * depth * 2 * GROUP;
                    for (wide i = 0; i < w->kernel_h; i++) {
                        const int16_t *from = lines + (i * places + x * w->stride_w) * MAX_DEPTH;
                        for (wide k = 0; k < w->kernel_w * depth; k++, row += 2 * GROUP)
                            for (int p = 0; p < 4; p++) {
                                int32_t pair;
                                memcpy(&pair, from + p * w->stride_w * MAX_DEPTH + 2 * k, 4);
                                multiply(&sums[p], row, pair);
                            }
                    }
                    for (wide p = 0; p < count; p++) {
                        if (!ends->numbers) {
                            to[p * words + g / 2] |= at_least(&sums[p], ends->level + g * GROUP) << g % 2 * GROUP;
                            continue;
                        }
                        const wide first = g * GROUP;
                        int32_t whole[GROUP];
                        store(whole, &sums[p]);
                        for (wide c = 0; c < MIN(GROUP, s->M - first); c++)
                            ends->numbers[(place + p) * s->M + first + c] =
                                ends->step[first + c] * (float)(whole[c] - ends->shift[first + c]) + ends->bias[first + c];
                    }
                }
                if (!ends->numbers)
                    for (wide p = 0; p < count; p++)
                        for (wide k = 0; k < words; k++) to[p * words + k] ^= ends->flip[k];
            }
        }
    }
}
