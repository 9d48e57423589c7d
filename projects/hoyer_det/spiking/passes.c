/* The passes over a layer's tensors on CPU; what they compute is described in chunked.py.
 *
 * A tensor (A, C, B) without gaps: B entries of a channel lie side by side, or, where B is 1 (the
 * layout channels_last), the C channels of a place. A call handles the range [a0, a1) x [c0, c1); for
 * B = 1 always all channels. u = x * alpha[c] + beta[c]. Sums are of float32 over at most BLOCK
 * entries, then of float64, in `sums` of shape (number, C), which must be 0 at first.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#define BLOCK 2048
#define ROWS 128
typedef long long wide;

typedef struct {
    wide a0, a1, c0, c1, C, B;
} Range;

#define MIN(a, b) ((a) < (b) ? (a) : (b))

/* Runs BODY for every block of a channel (i from 0 to n) with x0 as its place in memory. */
#define FOR_BLOCKS(...)                                                   \
    for (wide c = r->c0; c < r->c1; c++)                                  \
        for (wide a = r->a0; a < r->a1; a++)                              \
            for (wide b = 0; b < r->B; b += BLOCK) {                      \
                const wide x0 = (a * r->C + c) * r->B + b;                \
                const int n = (int)MIN(BLOCK, r->B - b);                  \
                __VA_ARGS__                                                \
            }

void moments(const float *x, double *sums, const Range *r) {
    double *mean = sums, *m2 = sums + r->C, *count = sums + 2 * r->C;
    if (r->B > 1) {
        FOR_BLOCKS({
            const float *p = x + x0;
            float s = 0, q = 0;
            for (int i = 0; i < n; i++) s += p[i];
            const float m = s / n;
            for (int i = 0; i < n; i++) q += (p[i] - m) * (p[i] - m);
            const double d = m - mean[c], total = count[c] + n;
            m2[c] += q + d * d * count[c] * n / total;
            mean[c] += d * n / total;
            count[c] = total;
        })
        return;
    }
    const wide C = r->C;
    float *s = malloc(2 * C * sizeof(float)), *q = s + C;
    for (wide a = r->a0; a < r->a1; a += ROWS) {
        const wide n = MIN(ROWS, r->a1 - a);
        for (wide c = 0; c < C; c++) s[c] = q[c] = 0;
        for (wide i = a; i < a + n; i++)
            for (wide c = 0; c < C; c++) s[c] += x[i * C + c];
        for (wide c = 0; c < C; c++) s[c] /= n;
        for (wide i = a; i < a + n; i++)
            for (wide c = 0; c < C; c++) q[c] += (x[i * C + c] - s[c]) * (x[i * C + c] - s[c]);
        for (wide c = 0; c < C; c++) {
            const double d = s[c] - mean[c], total = count[c] + n;
            m2[c] += q[c] + d * d * count[c] * n / total;
            mean[c] += d * n / total;
            count[c] = total;
        }
    }
    free(s);
}

/* One entry of `clipped_sums`; a NaN stays one. O counts infs. */
#define CLIP_ENTRY(X, ALPHA, BETA, F, S, G, T, O)                          \
    {                                                                      \
        const float u = (X) * (ALPHA) + (BETA);                            \
        const float low = u < 0 ? 0 : u;                                   \
        const float v = low > clip ? clip : low;                           \
        const float below = u < clip ? 1.0f : 0.0f;                        \
        F += v; S += v * v; G += v * below; T += v * v * below;            \
        O += fabsf(u) > FLT_MAX ? 1.0f : 0.0f;                             \
    }

void clipped_sums(const float *x, const float *alpha, const float *beta, float clip, double *sums,
                  const Range *r) {
    const wide C = r->C;
    if (r->B > 1) {
        FOR_BLOCKS({
            const float *p = x + x0;
            const float al = alpha[c], be = beta[c];
            float f = 0, s = 0, g = 0, t = 0, o = 0;
            for (int i = 0; i < n; i++) CLIP_ENTRY(p[i], al, be, f, s, g, t, o)
            sums[c] += f; sums[C + c] += s; sums[2 * C + c] += g; sums[3 * C + c] += t;
            sums[4 * C + c] += o;
        })
        return;
    }
    float *f = malloc(5 * C * sizeof(float)), *s = f + C, *g = s + C, *t = g + C, *o = t + C;
    for (wide a = r->a0; a < r->a1; a += ROWS) {
        for (wide c = 0; c < 5 * C; c++) f[c] = 0;
        for (wide i = a; i < MIN(a + ROWS, r->a1); i++)
            for (wide c = 0; c < C; c++)
                CLIP_ENTRY(x[i * C + c], alpha[c], beta[c], f[c], s[c], g[c], t[c], o[c])
        for (wide c = 0; c < 5 * C; c++) sums[c] += f[c];
    }
    free(f);
}

void fire(const float *x, const float *alpha, const float *beta, const float *level, float *spikes,
          const Range *r) {
    if (r->B > 1) {
        FOR_BLOCKS({
            const float *p = x + x0;
            float *o = spikes + x0;
            const float al = alpha[c], be = beta[c], l = level[c];
            for (int i = 0; i < n; i++) o[i] = p[i] * al + be >= l ? 1.0f : 0.0f;
        })
        return;
    }
    for (wide i = r->a0; i < r->a1; i++)
        for (wide c = 0; c < r->C; c++)
            spikes[i * r->C + c] = x[i * r->C + c] * alpha[c] + beta[c] >= level[c] ? 1.0f : 0.0f;
}

#define GRADIENT_ENTRY(GRAD, X, ALPHA, BETA, MEAN, OUT, SUM, PRODUCT)      \
    {                                                                      \
        const float u = (X) * (ALPHA) + (BETA);                            \
        const float box = u > 0 && u <= window ? height * (GRAD) : 0;      \
        const float pull = u > 0 && u <= clip ? slope * u + offset : 0;    \
        const float g = box + pull;                                        \
        OUT = g; SUM += g; PRODUCT += g * ((X) - (MEAN));                  \
    }

/* constants: window, height, clip, slope, offset. grad may be x itself, with height 0. */
void gradient(const float *grad, const float *x, const float *alpha, const float *beta,
              const float *mean, const float *constants, float *out, double *sums,
              const Range *r) {
    const float window = constants[0], height = constants[1], clip = constants[2];
    const float slope = constants[3], offset = constants[4];
    const wide C = r->C;
    if (r->B > 1) {
        FOR_BLOCKS({
            const float *p = x + x0, *d = grad + x0;
            float *o = out + x0;
            const float al = alpha[c], be = beta[c], m = mean[c];
            float s = 0, t = 0;
            for (int i = 0; i < n; i++) GRADIENT_ENTRY(d[i], p[i], al, be, m, o[i], s, t)
            sums[c] += s; sums[C + c] += t;
        })
        return;
    }
    float *s = malloc(2 * C * sizeof(float)), *t = s + C;
    for (wide a = r->a0; a < r->a1; a += ROWS) {
        for (wide c = 0; c < 2 * C; c++) s[c] = 0;
        for (wide i = a; i < MIN(a + ROWS, r->a1); i++) {
            const float *p = x + i * C, *d = grad + i * C;
            float *o = out + i * C;
            for (wide c = 0; c < C; c++)
                GRADIENT_ENTRY(d[c], p[c], alpha[c], beta[c], mean[c], o[c], s[c], t[c])
        }
        for (wide c = 0; c < 2 * C; c++) sums[c] += s[c];
    }
    free(s);
}

/* grad = grad * scale + (x - mean) * slope + offset */
void norm_gradient(const float *x, const float *mean, const float *scale, const float *slope,
                   const float *offset, float *grad, const Range *r) {
    if (r->B > 1) {
        FOR_BLOCKS({
            const float *p = x + x0;
            float *g = grad + x0;
            const float m = mean[c], k = scale[c], s = slope[c], o = offset[c];
            for (int i = 0; i < n; i++) g[i] = g[i] * k + (p[i] - m) * s + o;
        })
        return;
    }
    for (wide i = r->a0; i < r->a1; i++) {
        const float *p = x + i * r->C;
        float *g = grad + i * r->C;
        for (wide c = 0; c < r->C; c++)
            g[c] = g[c] * scale[c] + (p[c] - mean[c]) * slope[c] + offset[c];
    }
}
