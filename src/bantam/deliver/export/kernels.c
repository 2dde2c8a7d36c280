/* kernel: row */
/* Where row y of a map begins: a map that is used row by row keeps only its newest rows. */
static inline uint8_t *row(const map *m, int y)
{
    return m->at + (y % m->rows) * m->row_bytes;
}

/* kernel: byte */
/* A value in steps of a grid, rounded half to even. Adding 1.5 * 2^23 leaves float no digits behind the point. */
static inline uint8_t byte(float value, float steps, int zero)
{
    float step = value * steps;
    if (step < (float)-zero)
        step = (float)-zero;
    if (step > (float)(255 - zero))
        step = (float)(255 - zero);
    return (uint8_t)((int)((step + 12582912.0f) - 12582912.0f) + zero);
}

/* kernel: value */
/* What a byte of a grid stands for. */
static inline float value(uint8_t byte, int zero, float scale)
{
    return (float)((int)byte - zero) * scale;
}

/* kernel: relu */
static inline float relu(float x)
{
    return x > 0.0f ? x : 0.0f;
}

/* kernel: relu6 */
static inline float relu6(float x)
{
    return x < 0.0f ? 0.0f : x > 6.0f ? 6.0f : x;
}

/* kernel: hardsigmoid */
static inline float hardsigmoid(float x)
{
    return relu6(x + 3.0f) * SIXTH;
}

/* kernel: hardswish */
static inline float hardswish(float x)
{
    return x * relu6(x + 3.0f) * SIXTH;
}

/* kernel: pointwise */
/* One pixel through a 1 x 1 convolution or a linear layer: weights[outputs][inputs]. The zero of the input's grid is in
   the bias. Four outputs at a time, so that an input is read once for four products. */
static void pointwise(const uint8_t *in, int inputs, int outputs, const int8_t *weights, const int32_t *bias,
                      const float *scale)
{
    for (int o = 0; o < outputs; o++, weights += inputs) {
        int32_t sum = bias[o];
        if (o + 4 <= outputs) {
            const int8_t *w1 = weights + inputs, *w2 = w1 + inputs, *w3 = w2 + inputs;
            int32_t sum1 = bias[o + 1], sum2 = bias[o + 2], sum3 = bias[o + 3];
            for (int i = 0; i < inputs; i++) {
                int32_t x = in[i];
                sum += x * weights[i];
                sum1 += x * w1[i];
                sum2 += x * w2[i];
                sum3 += x * w3[i];
            }
            vector[o + 1] = (float)sum1 * scale[o + 1];
            vector[o + 2] = (float)sum2 * scale[o + 2];
            vector[o + 3] = (float)sum3 * scale[o + 3];
            vector[o] = (float)sum * scale[o];
            o += 3;
            weights = w3;
        } else {
            for (int i = 0; i < inputs; i++)
                sum += in[i] * weights[i];
            vector[o] = (float)sum * scale[o];
        }
    }
}

/* kernel: convolution */
/* One pixel of any other convolution: weights[outputs][high][wide][inputs], `inputs` of them in each group of
   `together` outputs. (y, x) is the first pixel that the kernel sees; outside the map it sees zero. */
static void convolution(const map *m, int start, int inputs, int y, int x, int high, int wide, int zero, int outputs,
                        int together, const int8_t *weights, const int32_t *bias, const float *scale)
{
    for (int o = 0; o < outputs; o++) {
        int32_t sum = bias[o];
        int first = start + o / together * inputs;
        for (int ky = 0; ky < high; ky++) {
            if (y + ky < 0 || y + ky >= m->height)
                continue;
            const uint8_t *line = row(m, y + ky);
            for (int kx = 0; kx < wide; kx++) {
                if (x + kx < 0 || x + kx >= m->width)
                    continue;
                const uint8_t *in = line + (x + kx) * m->channels + first;
                const int8_t *w = weights + ((o * high + ky) * wide + kx) * inputs;
                for (int i = 0; i < inputs; i++)
                    sum += (in[i] - zero) * w[i];
            }
        }
        vector[o] = (float)sum * scale[o];
    }
}

/* kernel: depthwise */
/* One pixel of a depthwise convolution: weights[high][wide][channels], `apart` pixels from one to the next. */
static void depthwise(const map *m, int start, int channels, int y, int x, int high, int wide, int apart, int zero,
                      const int8_t *weights, const int32_t *bias, const float *scale)
{
    for (int c = 0; c < channels; c++)
        sums[c] = bias[c];
    for (int ky = 0; ky < high; ky++) {
        int at = y + apart * ky;
        if (at < 0 || at >= m->height)
            continue;
        const uint8_t *line = row(m, at);
        for (int kx = 0; kx < wide; kx++) {
            int along = x + apart * kx;
            if (along < 0 || along >= m->width)
                continue;
            const uint8_t *in = line + along * m->channels + start;
            const int8_t *w = weights + (ky * wide + kx) * channels;
            for (int c = 0; c < channels; c++)
                sums[c] += (in[c] - zero) * w[c];
        }
    }
    for (int c = 0; c < channels; c++)
        vector[c] = (float)sums[c] * scale[c];
}

/* kernel: average */
/* The average of a window: along each axis the first place, the one after the last, and what it counts as. */
static void average(const map *m, int start, int channels, const uint16_t *rows, const uint16_t *columns, int zero,
                    float scale)
{
    float each = scale / (float)(rows[2] * columns[2]);
    int seen = (rows[1] - rows[0]) * (columns[1] - columns[0]);
    for (int c = 0; c < channels; c++)
        sums[c] = -seen * zero;
    for (int y = rows[0]; y < rows[1]; y++) {
        const uint8_t *in = row(m, y) + columns[0] * m->channels + start;
        for (int x = columns[0]; x < columns[1]; x++, in += m->channels)
            for (int c = 0; c < channels; c++)
                sums[c] += in[c];
    }
    for (int c = 0; c < channels; c++)
        vector[c] = (float)sums[c] * each;
}

/* kernel: largest */
/* The largest value of a window: along each axis the first place, and the one after the last. */
static void largest(const map *m, int start, int channels, const uint16_t *rows, const uint16_t *columns, int zero,
                    float scale)
{
    for (int c = 0; c < channels; c++) {
        int most = 0;
        for (int y = rows[0]; y < rows[1]; y++) {
            const uint8_t *in = row(m, y) + start + c;
            for (int x = columns[0]; x < columns[1]; x++)
                if (in[x * m->channels] > most)
                    most = in[x * m->channels];
        }
        vector[c] = (float)(most - zero) * scale;
    }
}

/* kernel: exponential */
/* e to the x, for x <= 0, after S. Moshier's Cephes: own arithmetic, so that every processor agrees on it. */
static float exponential(float x)
{
    if (x < -87.0f)
        return 0.0f;
    float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    float r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    float y = p * (r * r) + r + 1.0f;
    uint32_t bits = (uint32_t)((int)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return y * power;
}

/* kernel: confidence */
/* The largest probability among the scores. */
static float confidence(const float *scores, int classes)
{
    float most = scores[0], sum = 0.0f;
    for (int k = 1; k < classes; k++)
        if (scores[k] > most)
            most = scores[k];
    for (int k = 0; k < classes; k++)
        sum += exponential(scores[k] - most);
    return 1.0f / sum;
}

/* kernel: best */
/* The class with the largest score, the first of equal ones. */
static int best(const float *scores, int classes)
{
    int found = 0;
    for (int k = 1; k < classes; k++)
        if (scores[k] > scores[found])
            found = k;
    return found;
}
