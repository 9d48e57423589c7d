/* A convolution of spikes: the weights of active inputs are added, nothing is multiplied.
 *
 * It goes through the places of its output. For each it first lists the active inputs of its window; then,
 * for a group of output channels at a time, it adds the rows of weights that the list names. Inputs are
 * taken in blocks, so that the rows of a block stay in the first cache.
 *
 * Four kinds of weights:
 *   FLOAT32  rows of 32 floats.
 *   INT16    rows of 64, kept as int8, widened when a block is loaded. Sums of int16.
 *   INT6     rows of 64 bytes, magnitudes up to 31: four rows are added as bytes before they are widened.
 *   INT5     the same with magnitudes up to 15 and eight rows.
 * Bytes come in pairs: the lower one of a pair is of channel i of the group and has OFFSET added, so that
 * it stays positive and never borrows from the upper one, which is of channel 32 + i. For words s of such
 * pairs, the sum of s >> 8 is that of the upper bytes, and the sum of s less 256 times it that of the lower.
 *
 * Integer sums may overflow on the way: additions modulo 2^16 give the right end if that fits into
 * int16, which the export makes sure of.
 */
#define PARTS(bytes) ((bytes) / VECTOR)
#define LISTED 2048 /* places whose inputs are listed at once, at most */

enum { FLOAT32, INT16, INT6, INT5 };

/* Must be as `_Window` in native.py. */
typedef struct {
    wide N, H, W, OH, OW;
    wide kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
} Window;

/* Must be as `_Convolution` in native.py. */
typedef struct {
    Window window;
    wide words, M;    /* words of an input place; channels of the output */
    wide block_words; /* words of a block of inputs; the last block is filled up with words of zeros */
    wide capacity;    /* entries of the lists of a thread */
    wide kind, threads;
} Convolution;

static inline wide block_count(const Convolution *l) { return (l->words + l->block_words - 1) / l->block_words; }
static inline wide row_count(const Convolution *l) {
    return l->window.kernel_h * l->window.kernel_w * l->block_words * 32;
}
static inline wide row_bytes(const Convolution *l) { return l->kind <= INT16 ? 128 : 64; }
/* A block of weights in memory: INT16 is kept as int8, without a row of zeros. */
static inline wide block_bytes(const Convolution *l) {
    return l->kind == INT16 ? row_count(l) * 64 : (row_count(l) + 1) * row_bytes(l);
}
/* Lists hold places of rows in units of 8 bytes, which processors multiply by in addresses. */
static inline int row_shift(const Convolution *l) { return l->kind <= INT16 ? 4 : 3; }
static inline int chunk_shift(const Convolution *l) { return l->kind == INT6 ? 2 : 3; }
static inline wide chunk_of(const Convolution *l) { return 1 << chunk_shift(l); }
static inline wide lanes_of(const Convolution *l) { return l->kind == FLOAT32 ? 32 : 64; }

/* ---- Lists of active inputs ---------------------------------------------------------------------- */

/* The active channels of the input's places, written down once for all windows that contain them: of each
 * unit of 32 or 64 channels the numbers of the active ones. Only as many lines of the input are kept as a
 * window is high, line y in slot y % height. */
typedef struct {
    uint8_t *numbers, *counts;
    wide height, units, width; /* units of a place; channels of a unit */
    wide image, next;          /* lines of this image are there up to `next`, which is not */
} Active;

static inline wide unit_words(const Convolution *l) { return l->block_words % 2 ? 1 : 2; }
static inline wide unit_count(const Convolution *l) { return (l->words + unit_words(l) - 1) / unit_words(l); }
static inline wide window_height(const Window *w) { return (w->kernel_h - 1) * w->dilation_h + 1; }

/* Makes sure of the lines that windows of output line y see. */
static void find_active(const Convolution *l, const uint32_t *in, wide n, wide y, Active *a) {
    const Window *w = &l->window;
    const wide top = y * w->stride_h - w->pad_h, end = MIN(top + a->height, w->H);
    if (n != a->image) a->image = n, a->next = 0;
    for (wide line = MAX(MAX(top, 0), a->next); line < end; line++) {
        const uint32_t *bits = in + (n * w->H + line) * w->W * l->words;
        uint8_t *numbers = a->numbers + line % a->height * w->W * a->units * a->width;
        uint8_t *counts = a->counts + line % a->height * w->W * a->units;
        for (wide x = 0; x < w->W; x++, bits += l->words)
            for (wide u = 0; u < a->units; u++, numbers += a->width, counts++) {
                uint64_t word = bits[u * (a->width / 32)];
                if (a->width == 64 && 2 * u + 1 < l->words) word |= (uint64_t)bits[2 * u + 1] << 32;
                *counts = (uint8_t)put_numbers(numbers, word, (int)a->width);
            }
    }
    a->next = MAX(a->next, end);
}

/* The lists of some places; those of one block lie side by side. */
typedef struct {
    uint16_t *rows; /* places of rows of weights in units of 8 bytes; filled up to whole chunks with a row of zeros */
    wide room;      /* for a block */
    uint16_t *chunks; /* of each block and place */
    uint16_t *totals; /* chunks of each place in all blocks */
    wide places;      /* that `chunks` has room for in a block */
} Lists;

/* Where the windows of a line of the output find their inputs. */
typedef struct {
    wide x, y, n;
    int count;         /* taps inside the image */
    wide *unit, *row;  /* of each tap: the first unit of its place, and its first row of weights */
} Taps;

static void find_taps(const Window *w, const Active *a, wide rows_of_tap, Taps *t) {
    t->count = 0;
    for (wide i = 0; i < w->kernel_h; i++) {
        const wide iy = t->y * w->stride_h - w->pad_h + i * w->dilation_h;
        if (iy < 0 || iy >= w->H) continue;
        for (wide j = 0, ix = t->x * w->stride_w - w->pad_w; j < w->kernel_w; j++, ix += w->dilation_w)
            if (ix >= 0 && ix < w->W) {
                t->unit[t->count] = (iy % a->height * w->W + ix) * a->units;
                t->row[t->count++] = (i * w->kernel_w + j) * rows_of_tap;
            }
    }
}

/* Lists the inputs of places from `first` on, to `last` at most; returns the place behind the last listed. */
static wide list_inputs(const Convolution *l, const uint32_t *in, wide first, wide last, Active *active,
                        Lists *lists) {
    const Window *w = &l->window;
    const wide blocks = block_count(l), rows = row_count(l), width = active->width;
    const wide block_units = l->block_words / unit_words(l);
    const int scale = row_shift(l), by = chunk_shift(l);
    /* Windows at places from `inner` on, before `outer`, lie inside from left to right. */
    const wide inner = (w->pad_w + w->stride_w - 1) / w->stride_w;
    const wide room = w->W + w->pad_w - (w->kernel_w - 1) * w->dilation_w - 1;
    const wide outer = room < 0 ? 0 : room / w->stride_w + 1;
    wide unit[w->kernel_h * w->kernel_w], row[w->kernel_h * w->kernel_w], used[blocks];
    Taps taps = {first % w->OW, first / w->OW % w->OH, first / w->OW / w->OH, 0, unit, row};
    memset(used, 0, sizeof used);
    last = MIN(last, first + lists->places);
    for (wide place = first; place < last; place++, taps.x++) {
        for (wide b = 0; b < blocks; b++)
            if (used[b] + rows + 64 + 8 > lists->room) return place;
        if (taps.x == w->OW) {
            taps.x = 0;
            if (++taps.y == w->OH) taps.y = 0, taps.n++;
        }
        if (taps.x == 0 || place == first) find_active(l, in, taps.n, taps.y, active);
        if (taps.x > inner && taps.x < outer && place > first)
            for (int t = 0; t < taps.count; t++) unit[t] += w->stride_w * active->units;
        else
            find_taps(w, active, l->block_words * 32, &taps);
        wide total = 0;
        for (wide b = 0; b < blocks; b++) {
            uint16_t *start = lists->rows + b * lists->room + used[b], *end = start;
            const wide from = b * block_units, units = MIN(block_units, active->units - from);
            for (int t = 0; t < taps.count; t++)
                for (wide u = 0; u < units; u++) {
                    const wide which = unit[t] + from + u;
                    const int count = active->counts[which];
                    const uint16_t base = (uint16_t)((row[t] + u * width) << scale);
                    put_rows(end, active->numbers + which * width, base, scale, count);
                    end += count;
                }
            for (int i = 0; i < 8; i++) end[i] = (uint16_t)(rows << scale);
            const wide chunks = (end - start + chunk_of(l) - 1) >> by;
            lists->chunks[b * lists->places + place - first] = (uint16_t)chunks;
            used[b] += chunks << by;
            total += chunks;
        }
        lists->totals[place - first] = (uint16_t)total;
    }
    return last;
}

/* ---- Sums ---------------------------------------------------------------------------------------- */

#define ADD_ROWS(NAME, TYPE)                                                                       \
    static inline void NAME(const char *block, const uint16_t *list, int chunks, char *sums) {     \
        TYPE s[PARTS(128)];                                                                        \
        for (int p = 0; p < PARTS(128); p++) s[p] = *(const TYPE *)(sums + p * VECTOR);            \
        for (; chunks; chunks--, list += 8)                                                        \
            for (int r = 0; r < 8; r++) {                                                          \
                const char *row = block + 8 * (uint64_t)list[r];                                 \
                for (int p = 0; p < PARTS(128); p++) s[p] += *(const TYPE *)(row + p * VECTOR);    \
            }                                                                                      \
        for (int p = 0; p < PARTS(128); p++) *(TYPE *)(sums + p * VECTOR) = s[p];                  \
    }
ADD_ROWS(add_float, Floats)
ADD_ROWS(add_int16, Words)

/* Sums: the words of pairs, and behind them the sums of the upper bytes. */
#define ADD_PAIRS(NAME, CHUNK)                                                                     \
    static inline void NAME(const char *block, const uint16_t *list, int chunks, char *sums) {     \
        Words all[PARTS(64)], upper[PARTS(64)];                                                    \
        for (int p = 0; p < PARTS(64); p++) {                                                      \
            all[p] = *(const Words *)(sums + p * VECTOR);                                          \
            upper[p] = *(const Words *)(sums + 64 + p * VECTOR);                                   \
        }                                                                                          \
        for (; chunks; chunks--, list += CHUNK) {                                                  \
            Bytes s[PARTS(64)];                                                                    \
            for (int p = 0; p < PARTS(64); p++) s[p] = *(const Bytes *)(block + 8 * (uint64_t)list[0] + p * VECTOR); \
            for (int r = 1; r < CHUNK; r++)                                                        \
                for (int p = 0; p < PARTS(64); p++) s[p] += *(const Bytes *)(block + 8 * (uint64_t)list[r] + p * VECTOR); \
            for (int p = 0; p < PARTS(64); p++) {                                                  \
                all[p] += (Words)s[p];                                                             \
                upper[p] += (Words)((Signed)s[p] >> 8);                                            \
            }                                                                                      \
        }                                                                                          \
        for (int p = 0; p < PARTS(64); p++) {                                                      \
            *(Words *)(sums + p * VECTOR) = all[p];                                                \
            *(Words *)(sums + 64 + p * VECTOR) = upper[p];                                         \
        }                                                                                          \
    }
ADD_PAIRS(add_int6, 4)
ADD_PAIRS(add_int5, 8)

/* Turns the sums of pairs into 64 sums of int16 in the order of their channels. */
static inline void part_pairs(char *sums, uint16_t offset) {
    for (int p = 0; p < PARTS(64); p++) {
        Words *all = (Words *)(sums + p * VECTOR), *upper = (Words *)(sums + 64 + p * VECTOR);
        *all -= (*upper << 8) + offset;
    }
}

/* Loads a block of weights, with a row of zeros (of OFFSETs) behind it. */
static const char *load_block(const Convolution *l, const void *weights, wide block, wide places, char *panel) {
    const wide rows = row_count(l);
    if (l->kind == INT16) {
        const int8_t *from = (const int8_t *)weights + block * rows * 64;
        int16_t *to = (int16_t *)panel;
        for (wide i = 0; i < rows * 64; i++) to[i] = from[i];
        memset(panel + rows * 128, 0, 128);
        return panel;
    }
    const wide bytes = (rows + 1) * row_bytes(l);
    const char *from = (const char *)weights + block * bytes;
    /* A copy reads memory in order; for a few places it would read more than they need. */
    return places < 16 ? from : memcpy(panel, from, bytes);
}

/* ---- The whole ----------------------------------------------------------------------------------- */

/* What becomes of the sums: spikes, or numbers. Must be as `_Ends` in native.py. */
typedef struct {
    const int16_t *below; /* a channel fires where its sum is above; whole groups */
    const uint32_t *flip; /* spikes to turn around, the words of an output place and one more */
    uint32_t *spikes;     /* (places, words) */
    const float *step, *bias; /* numbers are step * sum + bias, whole groups; step 1 for FLOAT32 */
    const float *stream;      /* (places, M), added; NULL for none; may be `numbers` itself */
    float *numbers;           /* (places, M); NULL where spikes are wanted */
} Ends;

static inline void finish_spikes(const Convolution *l, const Ends *e, wide group, wide place, const char *sums) {
    const wide words = (l->M + 31) / 32;
    const uint64_t bits = above(sums, e->below + group * 64);
    uint32_t *to = e->spikes + place * words + 2 * group;
    to[0] = (uint32_t)bits ^ e->flip[2 * group];
    if (2 * group + 1 < words) to[1] = (uint32_t)(bits >> 32) ^ e->flip[2 * group + 1];
}

static inline void finish_numbers(const Convolution *l, const Ends *e, wide group, wide place, const char *sums) {
    const wide lanes = lanes_of(l), width = MIN(lanes, l->M - group * lanes);
    const float *step = e->step + group * lanes, *bias = e->bias + group * lanes;
    float numbers[64];
    for (wide c = 0; c < lanes; c++)
        numbers[c] = (l->kind == FLOAT32 ? ((const float *)sums)[c] : (float)((const int16_t *)sums)[c] * step[c]) + bias[c];
    float *to = e->numbers + place * l->M + group * lanes;
    if (e->stream) {
        const float *stream = e->stream + place * l->M + group * lanes;
        for (wide c = 0; c < width; c++) to[c] = numbers[c] + stream[c];
    } else
        memcpy(to, numbers, width * sizeof *to);
}

static void convolve_places(const Convolution *l, const uint32_t *in, const void *weights, const Ends *ends,
                            wide first, wide last, char *scratch) {
    const wide blocks = block_count(l), groups = (l->M + lanes_of(l) - 1) / lanes_of(l), chunk = chunk_of(l);
    const wide bytes = block_bytes(l);
    const uint16_t offset = (uint16_t)(l->kind == INT6 ? 31 : l->kind == INT5 ? 15 : 0);
    Lists lists = {.places = MIN(last - first, LISTED), .room = l->capacity / blocks};
    char *panel = scratch, *sums = panel + (row_count(l) + 1) * 128;
    lists.chunks = (uint16_t *)(sums + lists.places * 128);
    lists.totals = lists.chunks + blocks * lists.places;
    lists.rows = lists.totals + lists.places;
    Active active = {.height = window_height(&l->window), .units = unit_count(l), .width = 32 * unit_words(l), .image = -1};
    active.counts = (uint8_t *)(lists.rows + l->capacity);
    active.numbers = active.counts + active.height * l->window.W * active.units;
    while (first < last) {
        const wide end = list_inputs(l, in, first, last, &active, &lists), count = end - first;
        for (wide g = 0; g < groups; g++) {
            memset(sums, 0, count * 128);
            for (wide b = 0; b < blocks; b++) {
                const uint16_t *list = lists.rows + b * lists.room, *chunks = lists.chunks + b * lists.places;
                const char *block = load_block(l, weights, g * blocks + b, count, panel);
                /* Weights come from far away: fetch the next block while this one is at work. */
                const char *next = (const char *)weights + (g * blocks + b + 1) * bytes;
                const wide ahead = g * blocks + b + 1 < groups * blocks ? (bytes / 64 + count - 1) / count : 0;
#define SWEEP(ADD)                                                                    \
    for (wide i = 0; i < count; list += chunks[i++] * chunk) {                        \
        for (wide k = i * ahead; k < MIN((i + 1) * ahead, bytes / 64); k++)           \
            __builtin_prefetch(next + 64 * k, 0, 2);                                  \
        if (chunks[i]) ADD(block, list, chunks[i], sums + i * 128);                   \
    }
                if (l->kind == FLOAT32) { SWEEP(add_float); }
                else if (l->kind == INT16) { SWEEP(add_int16); }
                else if (l->kind == INT6) { SWEEP(add_int6); }
                else { SWEEP(add_int5); }
            }
            for (wide i = 0; i < count; i++) {
                if (offset) part_pairs(sums + i * 128, (uint16_t)(offset * chunk * lists.totals[i]));
                if (ends->numbers)
                    finish_numbers(l, ends, g, first + i, sums + i * 128);
                else
                    finish_spikes(l, ends, g, first + i, sums + i * 128);
            }
        }
        first = end;
    }
}

/* Bytes that each thread of `convolve` needs, a multiple of 64. */
wide scratch_bytes(const Convolution *l) {
    const wide places = MIN(l->window.N * l->window.OH * l->window.OW, LISTED);
    const wide units = window_height(&l->window) * l->window.W * unit_count(l);
    const wide bytes = (row_count(l) + 1) * 128 + places * 128 + ((block_count(l) + 1) * places + l->capacity) * 2 +
                       units * (1 + 32 * unit_words(l));
    return (bytes + 127) / 64 * 64;
}

/* scratch: `threads` times `scratch_bytes`, aligned to 64 bytes, as `weights` are. */
void convolve(const Convolution *l, const uint32_t *in, const void *weights, const Ends *ends, char *scratch) {
    const wide places = l->window.N * l->window.OH * l->window.OW, bytes = scratch_bytes(l);
#pragma omp parallel for num_threads(l->threads) schedule(static, 1) if (l->threads > 1)
    for (wide t = 0; t < l->threads; t++)
        convolve_places(l, in, weights, ends, places * t / l->threads, places * (t + 1) / l->threads, scratch + t * bytes);
}
