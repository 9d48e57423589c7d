/* What happens to spikes between convolutions, and where they meet tensors of other layers. */

/* The maximum of spikes is their disjunction. flip: spikes to turn around afterwards, for each word. */
void pool_bits(const Window *w, wide words, const uint32_t *in, const uint32_t *flip, uint32_t *out, wide threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (wide line = w->first_line; line < w->end_line; line++)
        for (wide x = 0; x < w->OW; x++) {
            uint32_t *to = out + (line * w->OW + x) * words;
            memset(to, 0, words * sizeof *to);
            const wide n = line / w->OH, y = line % w->OH;
            for (wide i = 0; i < w->kernel_h; i++)
                for (wide j = 0; j < w->kernel_w; j++) {
                    const wide iy = y * w->stride_h - w->pad_h + i, ix = x * w->stride_w - w->pad_w + j;
                    if (iy < 0 || iy >= w->H || ix < 0 || ix >= w->W) continue;
                    const uint32_t *from = in + ((n * w->H + iy) * w->W + ix) * words;
                    for (wide k = 0; k < words; k++) to[k] |= from[k];
                }
            for (wide k = 0; k < words; k++) to[k] ^= flip[k];
        }
}

/* Puts `channels` channels of each place behind the first `offset` ones of `out`, whose place has `out_words`
 * words and is of zeros there. */
void append_channels(wide places, const uint32_t *in, wide channels, uint32_t *out, wide out_words, wide offset) {
    const wide words = (channels + 31) / 32, first = offset / 32, shift = offset % 32;
    for (wide p = 0; p < places; p++, in += words, out += out_words)
        for (wide k = 0; k < words; k++) {
            const uint64_t both = (uint64_t)in[k] << shift;
            out[first + k] |= (uint32_t)both;
            if (first + k + 1 < out_words) out[first + k + 1] |= (uint32_t)(both >> 32);
        }
}

/* Repeats each place `scale_h` times downwards and `scale_w` times to the right. */
void repeat_places(wide N, wide H, wide W, wide words, wide scale_h, wide scale_w, const uint32_t *in, uint32_t *out) {
    for (wide line = 0; line < N * H * scale_h; line++)
        for (wide x = 0; x < W * scale_w; x++, out += words)
            memcpy(out, in + (line / scale_h * W + x / scale_w) * words, words * sizeof *out);
}

/* Bits of numbers (places, channels): number >= level, turned around where `flip` says so. */
void fire(wide places, wide channels, const float *in, const float *level, const uint32_t *flip, uint32_t *out,
          wide threads) {
    const wide words = (channels + 31) / 32;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (wide p = 0; p < places; p++)
        for (wide k = 0; k < words; k++) {
            const wide count = MIN(32, channels - 32 * k);
            const float *numbers = in + p * channels + 32 * k, *levels = level + 32 * k;
            uint32_t bits = 0;
#if defined(__AVX512BW__)
            if (count == 32)
                for (int h = 0; h < 2; h++)
                    bits |= (uint32_t)_mm512_cmp_ps_mask(_mm512_loadu_ps(numbers + 16 * h), _mm512_loadu_ps(levels + 16 * h), _CMP_GE_OQ) << 16 * h;
            else
#elif defined(__AVX2__)
            if (count == 32)
                for (int h = 0; h < 4; h++)
                    bits |= (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(numbers + 8 * h), _mm256_loadu_ps(levels + 8 * h), _CMP_GE_OQ)) << 8 * h;
            else
#endif
                for (wide c = 0; c < count; c++) bits |= (uint32_t)(numbers[c] >= levels[c]) << c;
            out[p * words + k] = bits ^ flip[k];
        }
}

/* Bits of bytes of 0 and 1, (N, channels, places). */
void pack(wide N, wide channels, wide places, const uint8_t *in, uint32_t *out) {
    const wide words = (channels + 31) / 32;
    memset(out, 0, N * places * words * sizeof *out);
    for (wide n = 0; n < N; n++)
        for (wide c = 0; c < channels; c++)
            for (wide p = 0; p < places; p++)
                out[(n * places + p) * words + c / 32] |= (uint32_t)(in[(n * channels + c) * places + p] & 1) << c % 32;
}

/* Bytes of 0 and 1, (N, channels, places), of bits. */
void unpack(wide N, wide channels, wide places, const uint32_t *in, uint8_t *out) {
    const wide words = (channels + 31) / 32;
    for (wide n = 0; n < N; n++)
        for (wide c = 0; c < channels; c++)
            for (wide p = 0; p < places; p++)
                out[(n * channels + c) * places + p] = in[(n * places + p) * words + c / 32] >> c % 32 & 1;
}

/* The number of bits that are set. */
wide count_bits(wide words, const uint32_t *in) {
    wide n = 0;
    for (wide i = 0; i < words; i++) n += __builtin_popcount(in[i]);
    return n;
}
