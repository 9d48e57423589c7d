/* The first convolution: bytes of an image times small integers, in int32. */

#define GROUP 16 /* output channels that are summed together */
#define DEPTH 4  /* channels of the image, filled up to so many */

/* Must be as `_Stem` in native.py. */
typedef struct {
    Window window;
    wide C, M;   /* channels of the image and of the output */
    wide border; /* value of the places outside */
    wide threads;
} Stem;

/* Largest magnitude of weights. Up to 64, sums of two products stay within int16, which vectors without VNNI
 * go through. */
wide largest_stem_weight(void) {
#if defined(__AVX2__) && !defined(__AVX512VNNI__)
    return 64;
#else
    return 127;
#endif
}

/* Adds to each of 16 sums the products of the bytes of a pixel and four weights. */
#if defined(__AVX512BW__)
typedef __m512i Accumulator;
static inline void multiply(Accumulator *sum, const int8_t *weights, int32_t pixel) {
    const __m512i w = _mm512_loadu_si512(weights), x = _mm512_set1_epi32(pixel);
#if defined(__AVX512VNNI__)
    *sum = _mm512_dpbusd_epi32(*sum, x, w);
#else
    *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(_mm512_maddubs_epi16(x, w), _mm512_set1_epi16(1)));
#endif
}
static inline void store(int32_t *to, const Accumulator *sum) { _mm512_storeu_si512(to, *sum); }
static inline uint32_t at_least(const Accumulator *sum, const int32_t *level) {
    return _mm512_cmpge_epi32_mask(*sum, _mm512_loadu_si512(level));
}
#elif defined(__AVX2__)
typedef struct { __m256i half[2]; } Accumulator;
static inline void multiply(Accumulator *sum, const int8_t *weights, int32_t pixel) {
    const __m256i x = _mm256_set1_epi32(pixel), one = _mm256_set1_epi16(1);
    for (int h = 0; h < 2; h++) {
        const __m256i w = _mm256_loadu_si256((const __m256i *)weights + h);
        sum->half[h] = _mm256_add_epi32(sum->half[h], _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), one));
    }
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
static inline void multiply(Accumulator *sum, const int8_t *weights, int32_t pixel) {
    uint8_t bytes[DEPTH];
    memcpy(bytes, &pixel, sizeof bytes);
    for (int c = 0; c < GROUP; c++)
        for (int k = 0; k < DEPTH; k++) sum->of[c] += weights[DEPTH * c + k] * bytes[k];
}
static inline void store(int32_t *to, const Accumulator *sum) { memcpy(to, sum, sizeof *sum); }
static inline uint32_t at_least(const Accumulator *sum, const int32_t *level) {
    uint32_t bits = 0;
    for (int c = 0; c < GROUP; c++) bits |= (uint32_t)(sum->of[c] >= level[c]) << c;
    return bits;
}
#endif

/* One line of the image, places with its border, channels last and filled up with zeros. */
static void fill_line(const Stem *s, const uint8_t *image, wide n, wide y, wide places, uint8_t *line) {
    const Window *w = &s->window;
    for (wide x = 0; x < places; x++)
        for (wide c = 0; c < DEPTH; c++) line[x * DEPTH + c] = (uint8_t)(c < s->C ? s->border : 0);
    if (y < 0 || y >= w->H) return;
    for (wide c = 0; c < s->C; c++) {
        const uint8_t *from = image + ((n * s->C + c) * w->H + y) * w->W;
        for (wide x = 0; x < w->W && x + w->pad_w < places; x++) line[(x + w->pad_w) * DEPTH + c] = from[x];
    }
}

static inline wide stem_places(const Window *w) { return MAX(w->W + w->pad_w, (w->OW + 3) * w->stride_w + w->kernel_w); }

/* Where a line of the image is kept while windows see it. */
static inline wide slot(const Window *w, wide y) { return (y + w->pad_h) % w->kernel_h; }

/* Bytes that each thread of `run_stem` needs. */
wide stem_bytes(const Stem *s) {
    return (s->window.kernel_h * stem_places(&s->window) * DEPTH + 127) / 64 * 64;
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

/* image: (N, C, H, W). weights: (groups of 16 outputs, kernel_h, kernel_w, 16, 4 channels of the image). */
void run_stem(const Stem *s, const uint8_t *image, const int8_t *weights, const StemEnds *ends, char *scratch) {
    const Window *w = &s->window;
    const wide words = (s->M + 31) / 32, groups = (s->M + GROUP - 1) / GROUP, places = stem_places(w);
    const wide bytes = stem_bytes(s);
#pragma omp parallel for num_threads(s->threads) schedule(static) if (s->threads > 1)
    for (wide t = 0; t < s->threads; t++) {
        uint8_t *pixels = (uint8_t *)(scratch + t * bytes);
        const wide lines = w->end_line - w->first_line;
        const wide start = w->first_line + lines * t / s->threads, last = w->first_line + lines * (t + 1) / s->threads;
        wide next = 0; /* line of the image that comes behind those that are there */
        for (wide line = start; line < last; line++) {
            const wide n = line / w->OH, y = line % w->OH;
            const wide top = y * w->stride_h - w->pad_h;
            if (y == 0 || line == start) next = top;
            for (next = MAX(next, top); next < top + w->kernel_h; next++)
                fill_line(s, image, n, next, places, pixels + slot(w, next) * places * DEPTH);
            const uint8_t *kept[w->kernel_h]; /* worked out once a line: divisions take long */
            for (wide i = 0; i < w->kernel_h; i++) kept[i] = pixels + slot(w, top + i) * places * DEPTH;
            for (wide x = 0; x < w->OW; x += 4) {
                const wide place = line * w->OW + x, count = MIN(4, w->OW - x);
                uint32_t *to = ends->spikes + place * words;
                if (!ends->numbers) memset(to, 0, count * words * sizeof *to);
                for (wide g = 0; g < groups; g++) {
                    Accumulator sums[4];
                    memset(sums, 0, sizeof sums);
                    const int8_t *row = weights + g * w->kernel_h * w->kernel_w * GROUP * DEPTH;
                    for (wide i = 0; i < w->kernel_h; i++) {
                        const uint8_t *from = kept[i] + x * w->stride_w * DEPTH;
                        for (wide k = 0; k < w->kernel_w; k++, row += GROUP * DEPTH)
                            for (int p = 0; p < 4; p++) {
                                int32_t pixel;
                                memcpy(&pixel, from + (p * w->stride_w + k) * DEPTH, 4);
                                multiply(&sums[p], row, pixel);
                            }
                    }
                    for (wide p = 0; p < count; p++) {
                        if (!ends->numbers) {
                            to[p * words + g / 2] |= at_least(&sums[p], ends->level + g * GROUP) << g % 2 * GROUP;
                            continue;
                        }
                        const wide first = g * GROUP;
                        int32_t whole[GROUP];
                        float numbers[GROUP];
                        store(whole, &sums[p]);
                        for (wide c = 0; c < GROUP; c++)
                            numbers[c] = ends->step[first + c] * (float)(whole[c] - ends->shift[first + c]) + ends->bias[first + c];
                        float *number = ends->numbers + (place + p) * s->M + first;
                        if (first + GROUP <= s->M) /* a copy of fixed size is fast */
                            memcpy(number, numbers, sizeof numbers);
                        else
                            memcpy(number, numbers, (s->M - first) * sizeof *number);
                    }
                }
                if (!ends->numbers)
                    for (wide p = 0; p < count; p++)
                        for (wide k = 0; k < words; k++) to[p * words + k] ^= ends->flip[k];
            }
        }
    }
}
