/* The real-valued stream beside the spikes: float, (places, channels). */

/* Maxima, times `scale` of each channel. */
void pool_numbers(const Window *w, wide channels, const float *in, const float *scale, float *out, wide threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (wide line = w->first_line; line < w->end_line; line++)
        for (wide x = 0; x < w->OW; x++) {
            float *to = out + (line * w->OW + x) * channels;
            const wide n = line / w->OH, y = line % w->OH;
            int first = 1;
            for (wide i = 0; i < w->kernel_h; i++)
                for (wide j = 0; j < w->kernel_w; j++) {
                    const wide iy = y * w->stride_h - w->pad_h + i, ix = x * w->stride_w - w->pad_w + j;
                    if (iy < 0 || iy >= w->H || ix < 0 || ix >= w->W) continue;
                    const float *from = in + ((n * w->H + iy) * w->W + ix) * channels;
                    if (first)
                        memcpy(to, from, channels * sizeof *to);
                    else
                        for (wide c = 0; c < channels; c++) to[c] = to[c] > from[c] ? to[c] : from[c];
                    first = 0;
                }
            for (wide c = 0; c < channels; c++) to[c] *= scale[c];
        }
}

/* Copies `channels` channels of each place to those of `out` from `offset` on. */
void join_numbers(wide places, const float *in, wide channels, float *out, wide out_channels, wide offset) {
    for (wide p = 0; p < places; p++) memcpy(out + p * out_channels + offset, in + p * channels, channels * sizeof *out);
}

void add_numbers(wide entries, const float *in, const float *other, float *out) {
    for (wide i = 0; i < entries; i++) out[i] = in[i] + other[i];
}

/* Means of `size` entries that lie side by side. */
void mean_numbers(wide entries, wide size, const float *in, float *out) {
    for (wide i = 0; i < entries; i++) {
        float sum = 0;
        for (wide k = 0; k < size; k++) sum += in[i * size + k];
        out[i] = sum / (float)size;
    }
}

#define TILE 16

/* (N, rows, columns) to (N, columns, rows). */
void transpose_numbers(wide N, wide rows, wide columns, const float *in, float *out) {
    for (wide n = 0; n < N; n++, in += rows * columns, out += rows * columns)
        for (wide r = 0; r < rows; r += TILE)
            for (wide c = 0; c < columns; c += TILE)
                for (wide i = r; i < MIN(r + TILE, rows); i++)
                    for (wide j = c; j < MIN(c + TILE, columns); j++) out[j * rows + i] = in[i * columns + j];
}
