/* Random matrices in the packed layouts, written place by place from docs/architecture.md and not
   from the code under test, and their products in double. Included by tests of kernels. */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L /* posix_memalign */
#endif
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/kernels.h"

static uint64_t seed = 1;

static uint32_t draw(uint32_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(((seed >> 33) * (uint64_t)below) >> 31);
}

static float draw_float(void)
{
    return (float)((int)draw(20001) - 10000) / 10000.0f;
}

/* Freed together by `free_all`. */
static void *owned[64];
static int owned_count;

static void *fresh(size_t bytes)
{
    void *block = NULL;
    if (owned_count == 64 || posix_memalign(&block, 64, bytes ? bytes : 1))
        abort();
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)block)[i] = (uint8_t)draw(256);
    return owned[owned_count++] = block;
}

static void free_all(void)
{
    while (owned_count)
        free(owned[--owned_count]);
}

static uint32_t up(uint32_t value, uint32_t to) { return (value + to - 1) / to * to; }
static uint32_t block_of(uint32_t r) { return r / 64 * 64; }
static uint32_t height(uint32_t rows, uint32_t r)
{
    const uint32_t left = up(rows, 16) - block_of(r);
    return left < 64 ? left : 64;
}

/* Positive halves with an exact float: 1.mmm * 2^e, or 1. */
static uint16_t draw_half(bool one, float *value)
{
    const uint32_t m = one ? 0 : draw(1024), e = one ? 15 : 8 + draw(6);
    *value = ldexpf(1.0f + (float)m / 1024.0f, (int)e - 15);
    const bool minus = !one && draw(2);
    if (minus)
        *value = -*value;
    return (uint16_t)((minus ? 0x8000u : 0) | e << 10 | m);
}

/* [groups][R] a block. */
static size_t scale_place(uint32_t rows, uint32_t groups, uint32_t r, uint32_t g)
{
    return (size_t)block_of(r) * groups + (size_t)g * height(rows, r) + r % 64;
}

static uint16_t *pack_halves(float *values, uint32_t rows, uint32_t groups, bool one)
{
    uint16_t *packed = fresh((size_t)up(rows, 16) * groups * 2);
    memset(packed, 0, (size_t)up(rows, 16) * groups * 2);
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t g = 0; g < groups; g++)
            packed[scale_place(rows, groups, r, g)] = draw_half(one, &values[r * groups + g]);
    return packed;
}

static void set_bits(uint8_t *byte, unsigned shift, unsigned bits, unsigned value)
{
    *byte = (uint8_t)((*byte & ~(((1u << bits) - 1) << shift)) | value << shift);
}

static uint8_t *pack_integers(const int *codes, uint32_t rows, uint32_t columns, unsigned bits)
{
    uint32_t runs = (columns + 32 / (bits == 3 ? 2 : bits) - 1) / (32 / (bits == 3 ? 2 : bits));
    if (bits == 3)
        runs += (columns + 31) / 32;
    uint8_t *packed = fresh((size_t)up(rows, 16) * 4 * runs);
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t c = 0; c < columns; c++) {
            const uint32_t run = height(rows, r) * 4;
            const int code = codes[r * columns + c];
            uint8_t *at = packed + (size_t)block_of(r) * 4 * runs + r % 64 * 4 + c % 4;
            if (bits == 8) {
                at[(size_t)(c / 4) * run] = (uint8_t)(int8_t)code;
            } else if (bits == 4) {
                set_bits(&at[(size_t)(c / 8) * run], 4 * (c % 8 / 4), 4, (unsigned)(code + 8));
            } else if (bits == 2) {
                set_bits(&at[(size_t)(c / 16) * run], 2 * (c % 16 / 4), 2, (unsigned)(code + 2));
            } else {
                const unsigned u = (unsigned)(code + 4);
                at += (size_t)(c / 32) * 3 * run;
                set_bits(at, c % 32 / 4, 1, u >> 2);
                set_bits(at + (1 + c % 32 / 16) * run, 2 * (c % 16 / 4), 2, u & 3);
            }
        }
    return packed;
}

static void put_nibble(uint8_t *packed, uint32_t rows, uint32_t columns, uint32_t r, uint32_t c,
                       unsigned value)
{
    const uint32_t half = height(rows, r) / 2, i = r % 64;
    uint8_t *at = packed + (size_t)block_of(r) * columns / 2 + (size_t)c * half;
    set_bits(at + (i < half ? i : i - half), i < half ? 0 : 4, 4, value);
}

static uint8_t *pack_planes(const int *codes, uint32_t rows, uint32_t columns, unsigned bits)
{
    const uint32_t quads = (columns + 3) / 4;
    uint8_t *packed = fresh((size_t)up(rows, 16) * quads * bits / 2);
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t quad = 0; quad < quads; quad++)
            for (unsigned p = 0; p < bits; p++) {
                unsigned nibble = 0;
                for (uint32_t c = 0; c < 4 && 4 * quad + c < columns; c++)
                    nibble |= ((unsigned)codes[r * columns + 4 * quad + c] >> p & 1u) << c;
                put_nibble(packed, rows, quads * bits, r, quad * bits + p, nibble);
            }
    return packed;
}

/* The values of sparse forms: floats, halves or codes; numbers[i] is what value i stands for
   (without the scale of its row). */
static tlm_stored_values pack_values(unsigned kind, size_t count, double *numbers)
{
    tlm_stored_values s = {0};
    const size_t room = count; /* exactly: the sanitizer sees any step beyond */
    if (kind == 32) {
        float *values = fresh(room * 4);
        for (size_t i = 0; i < count; i++)
            numbers[i] = (double)(values[i] = draw_float());
        s.values = values;
    } else if (kind == 16) {
        uint16_t *values = fresh(room * 2);
        for (size_t i = 0; i < count; i++) {
            float value;
            values[i] = draw_half(false, &value);
            numbers[i] = (double)value;
        }
        s.values = values;
        s.half = true;
    } else {
        uint8_t *codes = fresh((room * kind + 7) / 8);
        for (size_t i = 0; i < count; i++) {
            const int code = kind == 8 ? (int)draw(255) - 127 : (int)draw(16) - 8;
            if (kind == 8)
                codes[i] = (uint8_t)(int8_t)code;
            else
                set_bits(&codes[i / 2], i % 2 * 4, 4, (unsigned)(code + 8));
            numbers[i] = code;
        }
        s.codes = codes;
        s.bits = (uint8_t)kind;
    }
    return s;
}

/* Positions of the stored places in the order of the layout; returns the bytes before the end. */
static size_t pack_positions(const bool *stored, uint32_t rows, uint32_t columns,
                             tlm_positions coding, uint8_t *out, uint32_t *starts)
{
    size_t nibbles = 0; /* bits for a bitmap, bytes for gaps of 8 bits */
    uint32_t values = 0, block = 0;
    for (uint32_t first = 0; first < rows; first += 64, block++) {
        const uint32_t high = height(rows, first);
        const size_t unit = coding == TLM_BITMAP ? 8 : coding == TLM_GAPS4 ? 2 : 1;
        unsigned gap = 0;
        starts[2 * block] = values;
        starts[2 * block + 1] = (uint32_t)(nibbles / unit);
        for (uint32_t c = 0; c < columns; c++)
            for (uint32_t r = first; r < first + high; r++) {
                const bool here = r < rows && stored[r * columns + c];
                const unsigned greatest = coding == TLM_GAPS4 ? 15 : 255;
                values += here;
                if (coding == TLM_BITMAP) {
                    set_bits(&out[nibbles / 8], nibbles % 8, 1, here);
                    nibbles++;
                    continue;
                }
                unsigned code = 256;
                if (here)
                    code = gap, gap = 0;
                else if (++gap == greatest)
                    code = greatest, gap = 0;
                if (code == 256)
                    continue;
                if (greatest == 15)
                    set_bits(&out[nibbles / 2], nibbles % 2 * 4, 4, code);
                else
                    out[nibbles] = (uint8_t)code;
                nibbles++;
            }
        if (coding == TLM_GAPS4 && nibbles % 2)
            set_bits(&out[nibbles / 2], 4, 4, 15), nibbles++;
        starts[2 * block + 2] = values;
        starts[2 * block + 3] = (uint32_t)(nibbles / unit);
    }
    return starts[2 * block + 1];
}
