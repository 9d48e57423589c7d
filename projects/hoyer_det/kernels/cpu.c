/* Batch norm and neuron, max pooling and spikes as bits on a CPU; called by cpu.py.
 *
 * A tensor (A, C, B) has no gaps: B entries of a channel lie side by side, or, where B is 1 (the layout
 * channels_last), the C channels of a place. The potential is u = x * alpha[c] + beta[c], without a norm
 * alpha = 1 and beta = 0. Sums are of float32 over some hundred entries and of float64 beyond.
 *
 * Threads come from the OpenMP runtime of PyTorch. Where B > 1 a channel is read from memory once and
 * gone through again while it is in the cache.
 */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "bits are packed for little endian only"
#endif

#define BLOCK 2048 /* entries of a channel that are summed in float32 */
#define ROWS 128   /* places that are summed in float32, where B is 1 */
#define MIN(a, b) ((a) < (b) ? (a) : (b))

typedef int64_t wide;
enum { LAYER, CHANNEL, FIXED };

/* Must be as `_Layer` in cpu.py. */
typedef struct {
    wide A, C, B;
    int threads, has_norm, extremum, exclude;
    float eps, scale, window, height;
} Layer;

/* Statistics: rows of C entries, VAR without bias, VALID 1 where a channel or layer has an extremum. */
enum { ALPHA, BETA, MEAN, INVERSE, LEVEL, VAR, EXTREMUM, VALID, ROWS_KEPT };
/* And behind them the sums of the whole layer. */
enum { FIRST, SECOND, NUMBERS };
/* Sums of a channel's clipped potentials, and of those below the clip; infs among them. */
enum { F, S, F_BELOW, S_BELOW, INFS, SUMS };

/* Places of a share where B is 1. */
#define SHARE(l, s) (l)->A *(s) / (l)->threads, (l)->A *((s) + 1) / (l)->threads

/* Runs the code for every block of channel c, p being its first entry's place in memory, n its length. */
#define FOR_BLOCKS(l, c, ...)                                              \
    for (wide a_ = 0; a_ < (l)->A; a_++)                                   \
        for (wide b_ = 0; b_ < (l)->B; b_ += BLOCK) {                      \
            const wide p = (a_ * (l)->C + (c)) * (l)->B + b_;              \
            const int n = (int)MIN(BLOCK, (l)->B - b_);                    \
            __VA_ARGS__                                                    \
        }

/* The tensors of a loop are apart in memory. */
#define APART _Pragma("GCC ivdep")

/* ---- Moments ------------------------------------------------------------------------------------- */

typedef struct {
    double count, mean, m2;
} Moments;

/* Chan, Golub and LeVeque's rule for the moments of two samples together. */
static void join(Moments *to, double count, double mean, double m2) {
    if (count == 0) return;
    const double d = mean - to->mean, total = to->count + count;
    to->m2 += m2 + d * d * to->count * count / total;
    to->mean += d * count / total;
    to->count = total;
}

static Moments channel_moments(const Layer *l, const float *x, wide c) {
    Moments m = {0, 0, 0};
    FOR_BLOCKS(l, c, {
        float s = 0, r = 0, q = 0;
        for (int i = 0; i < n; i++) s += x[p + i];
        const float mean = s / n;
        for (int i = 0; i < n; i++) {
            const float d = x[p + i] - mean;
            r += d; /* what rounding left of the sum */
            q += d * d;
        }
        join(&m, n, mean + (double)r / n, q - (double)r * r / n);
    })
    return m;
}

/* Moments of all channels over the places [a0, a1); s and q are room for C entries each. */
static void place_moments(const Layer *l, const float *x, wide a0, wide a1, Moments *m, float *s,
                          float *q) {
    const wide C = l->C;
    memset(m, 0, C * sizeof *m);
    for (wide a = a0; a < a1; a += ROWS) {
        const wide end = MIN(a + ROWS, a1);
        for (wide c = 0; c < C; c++) s[c] = q[c] = 0;
        for (wide i = a; i < end; i++)
            APART for (wide c = 0; c < C; c++) s[c] += x[i * C + c];
        for (wide c = 0; c < C; c++) s[c] /= (float)(end - a);
        for (wide i = a; i < end; i++)
            APART for (wide c = 0; c < C; c++)
                q[c] += (x[i * C + c] - s[c]) * (x[i * C + c] - s[c]);
        for (wide c = 0; c < C; c++) join(m + c, (double)(end - a), s[c], q[c]);
    }
}

/* Turns moments into what the norm does. */
static void set_norm(const Layer *l, wide c, Moments m, const float *weight, const float *bias,
                     float *kept) {
    const wide C = l->C;
    const float mean = (float)m.mean, var = (float)(m.m2 / m.count);
    const float inverse = 1 / sqrtf(var + l->eps), alpha = weight[c] * inverse;
    kept[ALPHA * C + c] = alpha;
    kept[BETA * C + c] = bias[c] - mean * alpha;
    kept[MEAN * C + c] = mean;
    kept[INVERSE * C + c] = inverse;
    kept[VAR * C + c] = (float)(m.m2 / (m.count - 1));
}

static void set_no_norm(const Layer *l, float *kept) {
    for (wide c = 0; c < l->C; c++) {
        kept[ALPHA * l->C + c] = kept[INVERSE * l->C + c] = 1;
        kept[BETA * l->C + c] = kept[MEAN * l->C + c] = 0;
    }
}

/* ---- Sums of the clipped potentials -------------------------------------------------------------- */

/* Adds one entry to float32 sums; a NaN stays one. */
#define ADD_CLIPPED(X, AL, BE, SF, SS, SG, ST, SO)                         \
    {                                                                      \
        const float u = (X) * (AL) + (BE);                                 \
        const float low = u < 0 ? 0 : u;                                   \
        const float v = low > clip ? clip : low;                           \
        const float below = u >= clip ? 0 : v;                             \
        SF += v;                                                           \
        SS += v * v;                                                       \
        SG += below;                                                       \
        ST += below * below;                                               \
        SO += fabsf(u) > FLT_MAX ? 1.0f : 0.0f;                            \
    }

static void channel_sums(const Layer *l, const float *x, wide c, float clip, const float *kept,
                         double *sums) {
    const float al = kept[ALPHA * l->C + c], be = kept[BETA * l->C + c];
    for (int k = 0; k < SUMS; k++) sums[k] = 0;
    FOR_BLOCKS(l, c, {
        float f = 0, s = 0, g = 0, t = 0, o = 0;
        APART for (int i = 0; i < n; i++) ADD_CLIPPED(x[p + i], al, be, f, s, g, t, o)
        sums[F] += f;
        sums[S] += s;
        sums[F_BELOW] += g;
        sums[S_BELOW] += t;
        sums[INFS] += o;
    })
}

/* The same for all channels over the places [a0, a1); rows is room for 5 * C entries. */
static void place_sums(const Layer *l, const float *x, wide a0, wide a1, float clip,
                       const float *kept, double *sums, float *rows) {
    const wide C = l->C;
    const float *al = kept + ALPHA * C, *be = kept + BETA * C;
    float *f = rows, *s = f + C, *g = s + C, *t = g + C, *o = t + C;
    memset(sums, 0, SUMS * C * sizeof *sums);
    for (wide a = a0; a < a1; a += ROWS) {
        memset(rows, 0, SUMS * C * sizeof *rows);
        for (wide i = a; i < MIN(a + ROWS, a1); i++)
            APART for (wide c = 0; c < C; c++)
                ADD_CLIPPED(x[i * C + c], al[c], be[c], f[c], s[c], g[c], t[c], o[c])
        for (wide c = 0; c < C; c++)
            for (int k = 0; k < SUMS; k++) sums[c * SUMS + k] += rows[k * C + c];
    }
}

/* Extremum and firing level: `hoyer_spike` of spiking/neuron.py. */
static void set_levels(const Layer *l, const double *sums, float clip, float *kept, float *square,
                       float *nonfinite) {
    float *report = kept + ROWS_KEPT * l->C;
    double total[SUMS] = {0};
    for (wide c = 0; c < l->C; c++)
        for (int k = 0; k < SUMS; k++) total[k] += sums[c * SUMS + k];
    for (wide c = 0; c < l->C; c++) {
        if (l->extremum != CHANNEL && c > 0) {
            kept[LEVEL * l->C + c] = kept[LEVEL * l->C];
            continue;
        }
        const double *of = l->extremum == CHANNEL ? sums + c * SUMS : total;
        const float first = (float)of[l->exclude ? F_BELOW : F];
        const float second = (float)of[l->exclude ? S_BELOW : S];
        /* Not where either is NaN. */
        const int valid = second > 0 && second <= FLT_MAX && clip <= FLT_MAX;
        const float extremum = valid && l->extremum != FIXED ? second / (first * clip) : 1;
        kept[EXTREMUM * l->C + c] = extremum;
        kept[VALID * l->C + c] = (float)valid;
        kept[LEVEL * l->C + c] = l->scale * clip * extremum;
    }
    const float first = (float)total[F], second = (float)total[S];
    report[FIRST] = first;
    report[SECOND] = second;
    *square = first * first / (second == 0 ? 1 : second);
    *nonfinite = total[INFS] > 0 || !(fabs(total[F]) <= DBL_MAX) ? 1 : 0;
}

static void write_spikes(const Layer *l, const float *x, const float *kept, float *spikes) {
    const wide A = l->A, C = l->C, B = l->B;
    const int T = l->threads;
    const float *alpha = kept + ALPHA * C, *beta = kept + BETA * C, *level = kept + LEVEL * C;
    if (B > 1) {
#pragma omp parallel for num_threads(T) schedule(static)
        for (wide row = 0; row < A * C; row++) {
            const float al = alpha[row % C], be = beta[row % C], le = level[row % C];
            const float *from = x + row * B;
            float *to = spikes + row * B;
            APART for (wide i = 0; i < B; i++) to[i] = from[i] * al + be >= le ? 1.0f : 0.0f;
        }
    } else {
#pragma omp parallel for num_threads(T) schedule(static)
        for (wide a = 0; a < A; a++) {
            const float *from = x + a * C;
            float *to = spikes + a * C;
            APART for (wide c = 0; c < C; c++)
                to[c] = from[c] * alpha[c] + beta[c] >= level[c] ? 1.0f : 0.0f;
        }
    }
}

/* ---- Forward ------------------------------------------------------------------------------------- */

/* kept: room for ROWS_KEPT * C + NUMBERS entries; scratch: 8 * C entries for each thread. */
void forward(const Layer *l, const float *x, const float *weight, const float *bias,
             const float *threshold, float *kept, float *square, float *nonfinite, float *spikes,
             double *scratch) {
    const wide C = l->C, B = l->B;
    const int T = l->threads;
    const float clip = fabsf(*threshold);
    if (!l->has_norm) set_no_norm(l, kept);

    if (B > 1) {
#pragma omp parallel for num_threads(T) schedule(static)
        for (wide c = 0; c < C; c++) {
            if (l->has_norm)
                set_norm(l, c, channel_moments(l, x, c), weight, bias, kept);
            channel_sums(l, x, c, clip, kept, scratch + c * SUMS);
        }
    } else {
        if (l->has_norm) {
#pragma omp parallel for num_threads(T) schedule(static)
            for (int s = 0; s < T; s++) {
                double *own = scratch + s * 8 * C;
                float *room = (float *)(own + 3 * C);
                place_moments(l, x, SHARE(l, s), (Moments *)own, room, room + C);
            }
            for (wide c = 0; c < C; c++) {
                Moments m = {0, 0, 0};
                for (int s = 0; s < T; s++) {
                    const Moments *part = (Moments *)(scratch + s * 8 * C) + c;
                    join(&m, part->count, part->mean, part->m2);
                }
                set_norm(l, c, m, weight, bias, kept);
            }
        }
#pragma omp parallel for num_threads(T) schedule(static)
        for (int s = 0; s < T; s++) {
            double *own = scratch + s * 8 * C;
            place_sums(l, x, SHARE(l, s), clip, kept, own, (float *)(own + SUMS * C));
        }
        for (int s = 1; s < T; s++)
            for (wide i = 0; i < SUMS * C; i++) scratch[i] += scratch[s * 8 * C + i];
    }
    set_levels(l, scratch, clip, kept, square, nonfinite);

    write_spikes(l, x, kept, spikes);
}

/* The same in evaluation, at given levels, one for the layer or one for each channel; kept: room for
 * 5 * C entries. */
void fire(const Layer *l, const float *x, const float *weight, const float *bias, const float *mean,
          const float *var, const float *level, float *kept, float *spikes) {
    const wide C = l->C;
    set_no_norm(l, kept);
    for (wide c = 0; c < C; c++) {
        kept[LEVEL * C + c] = level[l->extremum == CHANNEL ? c : 0];
        if (!l->has_norm) continue;
        kept[ALPHA * C + c] = weight[c] / sqrtf(var[c] + l->eps);
        kept[BETA * C + c] = bias[c] - mean[c] * kept[ALPHA * C + c];
    }
    write_spikes(l, x, kept, spikes);
}

/* ---- Backward ------------------------------------------------------------------------------------ */

/* Gradient of the potential: the box of the spike and the slope of the Hoyer square. */
#define POTENTIAL_GRADIENT(G, GRAD, X, AL, BE)                             \
    const float u = (X) * (AL) + (BE);                                     \
    const float G = (u > 0 && u <= window ? height * (GRAD) : 0) +         \
                    (u >= 0 && u <= clip ? slope * u + offset : 0);

/* Gradients of x, of the norm and of the threshold. grad is NULL where the spikes have none; scratch:
 * 3 * C entries for each thread, the last third of which is room for floats. */
void backward(const Layer *l, const float *grad, const float *grad_square, const float *x,
              const float *weight, const float *bias, const float *threshold, const float *kept,
              float *out, float *grad_weight, float *grad_bias, float *grad_threshold,
              double *scratch) {
    const wide A = l->A, C = l->C, B = l->B;
    const int T = l->threads, norm = l->has_norm;
    const float clip = fabsf(*threshold);
    const float window = l->window * clip, height = grad && clip > 0 ? l->height / clip : 0;
    const float *report = kept + ROWS_KEPT * l->C;
    const float *alpha = kept + ALPHA * C, *beta = kept + BETA * C, *mean = kept + MEAN * C;
    const float *inverse = kept + INVERSE * C;
    float slope = 0, offset = 0;
    if (grad_square && report[SECOND] != 0) {
        const float ratio = report[FIRST] / report[SECOND];
        offset = 2 * ratio * *grad_square;
        slope = -offset * ratio;
    }
    if (!grad) grad = x; /* times a height of 0 */
    const double total = (double)A * B;
    double along = 0;

    if (B > 1) {
#pragma omp parallel for num_threads(T) schedule(static)
        for (wide c = 0; c < C; c++) {
            const float al = alpha[c], be = beta[c], me = mean[c];
            double sum = 0, product = 0;
            FOR_BLOCKS(l, c, {
                float s = 0, t = 0;
                if (norm) {
                    APART for (int i = 0; i < n; i++) {
                        POTENTIAL_GRADIENT(g, grad[p + i], x[p + i], al, be)
                        s += g;
                        t += g * (x[p + i] - me);
                    }
                } else {
                    APART for (int i = 0; i < n; i++) {
                        POTENTIAL_GRADIENT(g, grad[p + i], x[p + i], al, be)
                        out[p + i] = g;
                        t += g * x[p + i];
                    }
                }
                sum += s;
                product += t;
            })
            scratch[2 * c] = sum;
            scratch[2 * c + 1] = product * inverse[c];
            if (!norm) continue;
            const float k = (float)(-al * inverse[c] * scratch[2 * c + 1] / total);
            const float o = (float)(-al * sum / total);
            FOR_BLOCKS(l, c, {
                APART for (int i = 0; i < n; i++) {
                    POTENTIAL_GRADIENT(g, grad[p + i], x[p + i], al, be)
                    out[p + i] = g * al + (x[p + i] - me) * k + o;
                }
            })
        }
    } else {
#pragma omp parallel for num_threads(T) schedule(static)
        for (int share = 0; share < T; share++) {
            double *sums = scratch + share * 3 * C;
            float *s = (float *)(sums + 2 * C), *t = s + C;
            const wide bounds[2] = {SHARE(l, share)};
            memset(sums, 0, 2 * C * sizeof *sums);
            for (wide a = bounds[0]; a < bounds[1]; a += ROWS) {
                for (wide c = 0; c < C; c++) s[c] = t[c] = 0;
                for (wide i = a; i < MIN(a + ROWS, bounds[1]); i++)
                    APART for (wide c = 0; c < C; c++) {
                        POTENTIAL_GRADIENT(g, grad[i * C + c], x[i * C + c], alpha[c], beta[c])
                        if (!norm) out[i * C + c] = g;
                        s[c] += g;
                        t[c] += g * (x[i * C + c] - mean[c]);
                    }
                for (wide c = 0; c < C; c++) {
                    sums[2 * c] += s[c];
                    sums[2 * c + 1] += t[c] * inverse[c];
                }
            }
        }
        for (int s = 1; s < T; s++)
            for (wide i = 0; i < 2 * C; i++) scratch[i] += scratch[s * 3 * C + i];
        if (norm) {
            /* The sums stay; what follows from them goes behind them. */
            float *k = (float *)(scratch + 2 * C), *o = k + C;
            for (wide c = 0; c < C; c++) {
                k[c] = (float)(-alpha[c] * inverse[c] * scratch[2 * c + 1] / total);
                o[c] = (float)(-alpha[c] * scratch[2 * c] / total);
            }
#pragma omp parallel for num_threads(T) schedule(static)
            for (wide a = 0; a < A; a++)
                APART for (wide c = 0; c < C; c++) {
                    const wide i = a * C + c;
                    POTENTIAL_GRADIENT(g, grad[i], x[i], alpha[c], beta[c])
                    out[i] = g * alpha[c] + (x[i] - mean[c]) * k[c] + o[c];
                }
        }
    }

    /* Spikes and Hoyer square depend on u and v through u / |v| alone, so u du + v dv = 0. */
    for (wide c = 0; c < C; c++) {
        const double sum = scratch[2 * c], product = scratch[2 * c + 1];
        if (norm) {
            grad_bias[c] = (float)sum;
            grad_weight[c] = (float)product;
            along += product * weight[c] + sum * bias[c];
        } else {
            along += product;
        }
    }
    *grad_threshold = clip > 0 ? (float)(-along / *threshold) : 0;
}

/* ---- Spikes as bits ------------------------------------------------------------------------------ */

#define ONE 0x3f800000u /* 1.0f */

/* bits[i]: eight entries, the first as the highest. Returns 0 if an entry is neither 0 nor 1. */
int pack(const uint32_t *entries, uint8_t *bits, wide count, int threads) {
    const wide whole = count / 8;
    int other = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(| : other)
    for (wide start = 0; start < whole; start += 512) {
        if (other) continue; /* of this thread */
        uint8_t flags[8 * 512];
        const wide bytes = MIN(512, whole - start);
        const uint32_t *from = entries + 8 * start;
        uint32_t bad = 0;
        for (wide i = 0; i < 8 * bytes; i++) {
            flags[i] = from[i] == ONE;
            bad |= (from[i] != 0) & (from[i] != ONE);
        }
        if (bad) other = 1;
        for (wide i = 0; i < bytes; i++) {
            uint64_t eight;
            memcpy(&eight, flags + 8 * i, 8);
            /* Moves bit 0 of byte k to bit 63 - k; nothing carries. */
            bits[start + i] = (uint8_t)(eight * 0x8040201008040201u >> 56);
        }
    }
    if (count % 8) {
        bits[whole] = 0;
        for (wide i = 8 * whole; i < count; i++) {
            bits[whole] |= (uint8_t)((entries[i] == ONE) << (7 - i % 8));
            if (entries[i] != 0 && entries[i] != ONE) other = 1;
        }
    }
    return !other;
}

/* The reverse: 8 * bytes entries of 0 and 1. */
void unpack(const uint8_t *bits, float *entries, wide bytes, int threads) {
    float table[256][8];
    for (int i = 0; i < 256; i++)
        for (int k = 0; k < 8; k++) table[i][k] = (float)(i >> (7 - k) & 1);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (wide i = 0; i < bytes; i++) memcpy(entries + 8 * i, table[bits[i]], sizeof table[0]);
}

/* ---- Max pooling --------------------------------------------------------------------------------- */

/* Must be as `_Window` in cpu.py. Planes of H * W and their maxima of OH * OW. */
typedef struct {
    wide planes, H, W, OH, OW, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
    int threads;
} Window;

#define COLUMNS 512

/* One line of window entries against the best so far; step is a constant where this is called. */
static inline void pool_line(const float *from, wide step, wide begin, wide end, int here,
                             float *best, int *place) {
    APART for (wide o = begin; o < end; o++) {
        const float v = from[o * step];
        const int better = place[o] < 0 || v > best[o] || v != v;
        best[o] = better ? v : best[o];
        place[o] = better ? here : place[o];
    }
}

/* places: which entry of its window is the largest, counted by lines; the first of equal ones, and a
 * NaN before all, as in PyTorch. */
void max_pool(const Window *w, const float *x, float *out, uint8_t *places) {
    const wide W = w->W, OW = w->OW, step = w->stride_w;
#pragma omp parallel for num_threads(w->threads) schedule(static)
    for (wide row = 0; row < w->planes * w->OH; row++) {
        const float *plane = x + row / w->OH * w->H * W;
        const wide top = row % w->OH * w->stride_h - w->pad_h;
        for (wide left = 0; left < OW; left += COLUMNS) {
            const wide columns = MIN(COLUMNS, OW - left);
            float *best = out + row * OW + left;
            int place[COLUMNS];
            for (wide o = 0; o < columns; o++) place[o] = -1;
            for (wide i = 0; i < w->kernel_h; i++) {
                const wide line = top + i;
                if (line < 0 || line >= w->H) continue;
                for (wide j = 0; j < w->kernel_w; j++) {
                    const wide shift = left * step + j - w->pad_w;
                    const float *from = plane + line * W + shift;
                    /* Outputs whose window has an entry here. */
                    const wide begin = shift < 0 ? (-shift + step - 1) / step : 0;
                    const wide end = W <= shift ? 0 : MIN(columns, (W - shift + step - 1) / step);
                    const int here = (int)(i * w->kernel_w + j);
                    if (step == 1)
                        pool_line(from, 1, begin, end, here, best, place);
                    else if (step == 2)
                        pool_line(from, 2, begin, end, here, best, place);
                    else
                        pool_line(from, step, begin, end, here, best, place);
                }
            }
            uint8_t *to = places + row * OW + left;
            for (wide o = 0; o < columns; o++) to[o] = (uint8_t)place[o];
        }
    }
}

void max_pool_backward(const Window *w, const float *grad, const uint8_t *places, float *out) {
    const wide W = w->W, OW = w->OW;
    wide from_corner[256]; /* from a window's first entry to its others */
    for (wide i = 0; i < w->kernel_h * w->kernel_w; i++)
        from_corner[i] = i / w->kernel_w * W + i % w->kernel_w;
#pragma omp parallel for num_threads(w->threads) schedule(static)
    for (wide plane = 0; plane < w->planes; plane++) {
        float *to = out + plane * w->H * W;
        memset(to, 0, w->H * W * sizeof *to);
        for (wide o = 0; o < w->OH; o++) {
            const wide row = (plane * w->OH + o) * OW;
            float *line = to + (o * w->stride_h - w->pad_h) * W - w->pad_w;
            for (wide p = 0; p < OW; p++)
                line[p * w->stride_w + from_corner[places[row + p]]] += grad[row + p];
        }
    }
}
