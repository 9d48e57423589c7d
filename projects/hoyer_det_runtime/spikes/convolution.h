/* A convolution of spikes: the weights of active inputs are added, nothing is multiplied.
 *
 * It goes through the places of its output. For each it first lists the active inputs of its window; then,
 * for a group of output channels at a time, it adds the rows of weights that the list names. Inputs are
 * taken in blocks, so that the rows of a block stay in the first cache. A list is put together from shorter
 * ones, each made once: of a place, of the places below each other in a window, of a window.
 *
 * Four kinds of weights:
 *   FLOAT32  rows of 32 floats.
 *   INT16    rows of 64, kept as int8, widened when a block is loaded. Sums of int16.
 *   INT6     rows of 32 int16: 256 times the weight of channel 32 + i of the group, plus that of channel i,
 *            with magnitudes up to 31: four rows are added before the two are parted.
 *   INT5     the same with magnitudes up to 15 and eight rows.
 * In a sum s of so few of these the part of channel i has a magnitude below 128. So that of channel 32 + i is
 * (s + 128) >> 8.
 *
 * Integer sums may overflow on the way: additions modulo 2^16 give the right end if that fits into
 * int16, which the export makes sure of.
 */
#define PARTS(bytes) ((bytes) / VECTOR)
#define LISTED 1024 /* places whose inputs are listed at once, at most */

enum { FLOAT32, INT16, INT6, INT5 };

/* Must be as `_Window` in native.py. */
typedef struct {
    wide N, H, W, OH, OW;
    wide kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
    wide first_line, end_line; /* lines of the output to make, counted through all images */
} Window;

/* Must be as `_Convolution` in native.py. */
typedef struct {
    Window window;
    wide words, M;    /* words of an input place; channels of the output */
    wide block_words; /* words of a block of inputs; the last block is filled up with words of zeros */
    wide capacity;    /* entries of the lists of a thread */
    wide kind, threads;
} Convolution;

static inline wide place_count(const Window *w) { return (w->end_line - w->first_line) * w->OW; }
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

#define SLACK 64 /* entries behind a list that may be written */

static inline wide unit_words(const Convolution *l) { return l->block_words % 2 ? 1 : 2; }
static inline wide unit_count(const Convolution *l) { return (l->words + unit_words(l) - 1) / unit_words(l); }
/* Lines and columns of the input that are kept while windows see them: powers of 2, as numbers are taken
 * modulo these. */
static inline wide power_of_two(wide least) {
    wide power = 1;
    while (power < least) power *= 2;
    return power;
}
static inline wide kept_lines(const Window *w) { return power_of_two((w->kernel_h - 1) * w->dilation_h + 1); }
static inline wide kept_columns(const Window *w) { return power_of_two((w->kernel_w - 1) * w->dilation_w + 1); }
/* Rows of a block at one horizontal position of the window. */
static inline wide column_rows(const Convolution *l) { return l->window.kernel_h * l->block_words * 32; }

/* The lists of a thread. Their entries are places of rows of weights in units of 8 bytes. */
typedef struct {
    /* Of each unit of 32 or 64 channels of each place of the lines kept: the active ones. */
    uint16_t *active;
    uint8_t *active_counts;
    wide image, next_line; /* lines of this image are there up to `next_line`, which is not */
    /* Of each block of each column kept: the active inputs at its places that windows of this line see. */
    uint16_t *column, *column_counts;
    wide line, next_column;
    /* Of each block and place of the output: those of the window; filled up to whole chunks with a row of
     * zeros. Those of a block lie side by side. */
    uint16_t *rows, *chunks;
    wide room, places; /* for a block */
    /* Divisions take long, so this is worked out once: words of a unit, units and blocks of a place, units of a
     * block, entries that a column has room for, lines and columns kept less 1. */
    wide unit_words, units, blocks, block_units, column_room, line_mask, column_mask;
} Lists;

/* Makes sure of the lines that windows of output line y see. */
static void list_lines(const Convolution *l, const uint32_t *in, wide n, wide y, Lists *a) {
    const Window *w = &l->window;
    const wide words = a->unit_words, width = 32 * words, top = y * w->stride_h - w->pad_h;
    const wide end = MIN(top + (w->kernel_h - 1) * w->dilation_h + 1, w->H);
    if (n != a->image) a->image = n, a->next_line = 0;
    for (wide line = MAX(MAX(top, 0), a->next_line); line < end; line++) {
        const uint32_t *bits = in + (n * w->H + line) * w->W * l->words;
        uint16_t *to = a->active + (line & a->line_mask) * w->W * a->units * width;
        uint8_t *counts = a->active_counts + (line & a->line_mask) * w->W * a->units;
        for (wide x = 0; x < w->W; x++, bits += l->words)
            for (wide u = 0; u < a->units; u++, to += width) {
                uint64_t word = bits[u * words];
                if (words == 2 && 2 * u + 1 < l->words) word |= (uint64_t)bits[2 * u + 1] << 32;
                *counts++ = (uint8_t)put_numbers(to, word, (int)width, row_shift(l));
            }
    }
    a->next_line = MAX(a->next_line, end);
}

/* Makes sure of the columns from `start` up to `end` that windows of line y see. */
static void list_columns(const Convolution *l, wide y, wide start, wide end, Lists *a) {
    const Window *w = &l->window;
    const wide width = 32 * a->unit_words, top = y * w->stride_h - w->pad_h;
    for (wide x = MAX(MAX(start, 0), a->next_column); x < MIN(end, w->W); x++) {
        for (wide b = 0; b < a->blocks; b++) {
            const wide list = (x & a->column_mask) * a->blocks + b;
            uint16_t *first = a->column + list * a->column_room, *to = first;
            const wide units = MIN(a->block_units, a->units - b * a->block_units);
            for (wide i = 0, iy = top; i < w->kernel_h; i++, iy += w->dilation_h) {
                if (iy < 0 || iy >= w->H) continue;
                const wide unit = ((iy & a->line_mask) * w->W + x) * a->units + b * a->block_units;
                for (wide u = 0; u < units; u++) {
                    const wide row = (i * l->block_words * 32 + u * width) << row_shift(l);
                    put_rows(to, a->active + (unit + u) * width, (uint16_t)row, a->active_counts[unit + u]);
                    to += a->active_counts[unit + u];
                }
            }
            a->column_counts[list] = (uint16_t)(to - first);
        }
    }
    a->next_column = MAX(a->next_column, end);
}

/* Lists the inputs of places from `first` on, to `last` at most; returns the place behind the last listed. */
static wide list_windows(const Convolution *l, const uint32_t *in, wide first, wide last, Lists *a) {
    const Window *w = &l->window;
    const wide span = (w->kernel_w - 1) * w->dilation_w + 1, rows = row_count(l), of_column = column_rows(l);
    const uint16_t zeros = (uint16_t)(rows << row_shift(l));
    const int by = chunk_shift(l);
    wide used[a->blocks], x = first % w->OW, y = first / w->OW % w->OH, n = first / w->OW / w->OH;
    memset(used, 0, sizeof used);
    last = MIN(last, first + a->places);
    for (wide place = first; place < last; place++, x++) {
        if (x == w->OW) {
            x = 0;
            if (++y == w->OH) y = 0, n++;
        }
        if (n * w->OH + y != a->line) {
            a->line = n * w->OH + y, a->next_column = 0;
            list_lines(l, in, n, y, a);
        }
        const wide left = x * w->stride_w - w->pad_w;
        list_columns(l, y, left, left + span, a);
        for (wide b = 0; b < a->blocks; b++) {
            if (used[b] + rows + SLACK > a->room) return place;
            uint16_t *start = a->rows + b * a->room + used[b], *end = start;
            for (wide j = 0, ix = left; j < w->kernel_w; j++, ix += w->dilation_w) {
                if (ix < 0 || ix >= w->W) continue;
                const wide list = (ix & a->column_mask) * a->blocks + b;
                const uint16_t row = (uint16_t)(j * of_column << row_shift(l));
                put_rows(end, a->column + list * a->column_room, row, a->column_counts[list]);
                end += a->column_counts[list];
            }
            for (int i = 0; i < 8; i++) end[i] = zeros;
            const wide chunks = (end - start + chunk_of(l) - 1) >> by;
            a->chunks[b * a->places + place - first] = (uint16_t)chunks;
            used[b] += chunks << by;
        }
    }
    return last;
}

/* ---- Sums ---------------------------------------------------------------------------------------- */

/* Eight rows a chunk, or four; the entries of four are read at once. */
#define EACH_ROW(FOURS, ROW, STATEMENT)                                                            \
    for (int f = 0; f < FOURS; f++) {                                                              \
        uint64_t four;                                                                             \
        memcpy(&four, list + 4 * f, 8);                                                            \
        for (int r = 0; r < 4; r++, four >>= 16) {                                                 \
            const char *ROW = block + 8 * (four & 0xffff);                                         \
            STATEMENT;                                                                             \
        }                                                                                          \
    }

#define ADD_ROWS(NAME, TYPE)                                                                       \
    static inline void NAME(const char *block, const uint16_t *list, int chunks, char *sums) {     \
        TYPE s[PARTS(128)];                                                                        \
        for (int p = 0; p < PARTS(128); p++) s[p] = *(const TYPE *)(sums + p * VECTOR);            \
        for (; chunks; chunks--, list += 8)                                                        \
            EACH_ROW(2, row, for (int p = 0; p < PARTS(128); p++) s[p] += *(const TYPE *)(row + p * VECTOR)) \
        for (int p = 0; p < PARTS(128); p++) *(TYPE *)(sums + p * VECTOR) = s[p];                  \
    }
ADD_ROWS(add_float, Floats)
ADD_ROWS(add_int16, Words)

/* Sums: of the rows as they are, and behind them those of the channels 32 + i. */
#define ADD_PAIRS(NAME, FOURS)                                                                     \
    static inline void NAME(const char *block, const uint16_t *list, int chunks, char *sums) {     \
        Words all[PARTS(64)], upper[PARTS(64)];                                                    \
        for (int p = 0; p < PARTS(64); p++) {                                                      \
            all[p] = *(const Words *)(sums + p * VECTOR);                                          \
            upper[p] = *(const Words *)(sums + 64 + p * VECTOR);                                   \
        }                                                                                          \
        for (; chunks; chunks--, list += 4 * FOURS) {                                              \
            Words s[PARTS(64)] = {0};                                                              \
            EACH_ROW(FOURS, row, for (int p = 0; p < PARTS(64); p++) s[p] += *(const Words *)(row + p * VECTOR)) \
            for (int p = 0; p < PARTS(64); p++) {                                                  \
                all[p] += s[p];                                                                    \
                upper[p] += (Words)((Signed)(s[p] + 128) >> 8);                                    \
            }                                                                                      \
        }                                                                                          \
        for (int p = 0; p < PARTS(64); p++) {                                                      \
            *(Words *)(sums + p * VECTOR) = all[p];                                                \
            *(Words *)(sums + 64 + p * VECTOR) = upper[p];                                         \
        }                                                                                          \
    }
ADD_PAIRS(add_int6, 1)
ADD_PAIRS(add_int5, 2)

/* Turns the sums of pairs into 64 sums of int16 in the order of their channels. */
static inline void part_pairs(char *sums) {
    for (int p = 0; p < PARTS(64); p++) {
        Words *all = (Words *)(sums + p * VECTOR), *upper = (Words *)(sums + 64 + p * VECTOR);
        *all -= *upper << 8;
    }
}

/* Loads a block of weights, with a row of zeros behind it. */
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

/* Where the parts of a thread's memory begin, in bytes; the first is a block of weights. */
typedef struct {
    wide sums, rows, chunks, column, column_counts, active, active_counts, end;
} Layout;

static Layout lay_out(const Convolution *l) {
    const Window *w = &l->window;
    const wide places = MIN(place_count(w), LISTED), blocks = block_count(l);
    const wide columns = kept_columns(w) * blocks, units = kept_lines(w) * w->W * unit_count(l);
    wide end = (row_count(l) + 1) * row_bytes(l);
    Layout at;
#define PUT(PART, BYTES) at.PART = end, end += ((BYTES) + 63) / 64 * 64
    PUT(sums, places * 128);
    PUT(rows, l->capacity * 2);
    PUT(chunks, blocks * places * 2);
    PUT(column, columns * (column_rows(l) + SLACK) * 2);
    PUT(column_counts, columns * 2);
    PUT(active, (units * 32 * unit_words(l) + SLACK) * 2);
    PUT(active_counts, units);
#undef PUT
    at.end = end;
    return at;
}

static void convolve_places(const Convolution *l, const uint32_t *in, const void *weights, const Ends *ends,
                            wide first, wide last, char *scratch) {
    const wide blocks = block_count(l), groups = (l->M + lanes_of(l) - 1) / lanes_of(l), chunk = chunk_of(l);
    const wide bytes = block_bytes(l);
    const Layout at = lay_out(l);
    char *sums = scratch + at.sums;
    Lists lists = {
        .active = (uint16_t *)(scratch + at.active), .active_counts = (uint8_t *)(scratch + at.active_counts),
        .column = (uint16_t *)(scratch + at.column), .column_counts = (uint16_t *)(scratch + at.column_counts),
        .rows = (uint16_t *)(scratch + at.rows), .chunks = (uint16_t *)(scratch + at.chunks),
        .room = l->capacity / blocks, .places = MIN(last - first, LISTED), .image = -1, .line = -1,
        .unit_words = unit_words(l), .units = unit_count(l), .blocks = blocks,
        .block_units = l->block_words / unit_words(l), .column_room = column_rows(l) + SLACK,
        .line_mask = kept_lines(&l->window) - 1, .column_mask = kept_columns(&l->window) - 1};
    while (first < last) {
        const wide end = list_windows(l, in, first, last, &lists), count = end - first;
        for (wide g = 0; g < groups; g++) {
            memset(sums, 0, count * 128);
            for (wide b = 0; b < blocks; b++) {
                const uint16_t *list = lists.rows + b * lists.room, *chunks = lists.chunks + b * lists.places;
                const char *block = load_block(l, weights, g * blocks + b, count, scratch);
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
                if (l->kind >= INT6) part_pairs(sums + i * 128);
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
wide scratch_bytes(const Convolution *l) { return lay_out(l).end; }

/* scratch: `threads` times `scratch_bytes`, aligned to 64 bytes, as `weights` are. */
void convolve(const Convolution *l, const uint32_t *in, const void *weights, const Ends *ends, char *scratch) {
    const Window *w = &l->window;
    const wide first = w->first_line * w->OW, places = place_count(w), bytes = scratch_bytes(l);
#pragma omp parallel for num_threads(l->threads) schedule(static, 1) if (l->threads > 1)
    for (wide t = 0; t < l->threads; t++)
        convolve_places(l, in, weights, ends, first + places * t / l->threads, first + places * (t + 1) / l->threads,
                        scratch + t * bytes);
}
