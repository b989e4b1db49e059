/* The stored forms of a matrix, as they lie in the file (docs/architecture.md, "The file").
 *
 * Nothing is copied: pointers lead into the file, which the model keeps open. Every size, offset
 * and index that a product uses was checked when the matrix was read, so a product checks none.
 * Rows go in blocks of 64, the last one rounded up to a multiple of 16; "R" below is the height
 * of such a block, "padded" the rows rounded up to a multiple of 16. */
#ifndef TLM_MATRIX_H
#define TLM_MATRIX_H

#include <stdbool.h>
#include <stdint.h>

typedef enum tlm_form {
    TLM_DENSE,
    TLM_LOW_RANK,
    TLM_QUANTIZED,
    TLM_CODEBOOK,
    TLM_BINARY_CODES,
    TLM_PRODUCT_CODES,
    TLM_SPARSE,
    TLM_SPARSE_QUANTIZED,
    TLM_BLOCK_SPARSE,
    TLM_BLOCK_SPARSE_QUANTIZED,
    TLM_ROW_BLOCKS,
    TLM_GROUPED_ROWS,
    TLM_PLACED_BLOCKS,
    TLM_TENSOR_TRAIN
} tlm_form;

#define TLM_FORM_COUNT 14
#define TLM_BLOCK_ROWS 64u
#define TLM_ROW_MULTIPLE 16u
#define TLM_MAX_CORES 16u
#define TLM_MAX_BLOCKS 256u

/* How the places of a sparse matrix are coded. */
typedef enum tlm_positions { TLM_BITMAP, TLM_GAPS4, TLM_GAPS8 } tlm_positions;

struct tlm_matrix;

/* float32, or float16 where `half`, [out][in]. */
typedef struct tlm_dense {
    const void *values;
    bool half;
} tlm_dense;

/* left [out, rank] times right [rank, in]; the rank is left->in. */
typedef struct tlm_low_rank {
    const struct tlm_matrix *left;
    const struct tlm_matrix *right;
} tlm_low_rank;

/* Codes in the quantized layout: 8 bits two's complement and never -128, fewer bits stored plus
 * 2^(bits - 1). Level: the code; 2 code + 1 where `mid_rise`; code - zero where `zeros`. */
typedef struct tlm_quantized {
    const uint8_t *codes;
    const uint16_t *scales; /* float16 [groups][R] a block, or one number where group is 0 */
    const int8_t *zeros;    /* laid out as the scales; NULL: none */
    uint32_t group;         /* columns that share a scale, `in` for one a row; 0: all the matrix */
    uint32_t groups;        /* scales a row; 1 where group is 0 */
    uint8_t bits;           /* 8, 4, 3 or 2 */
    bool mid_rise;
} tlm_quantized;

/* Bit planes of codes and the float16 values they stand for. */
typedef struct tlm_codebook {
    const uint8_t *codes;   /* [columns / 4][bits][R / 2] a block */
    const uint16_t *values; /* [2^bits], or [2^bits][R] a block where per_row */
    uint8_t bits;           /* 1 to 8; 2 to 4 where per_row */
    bool per_row;
} tlm_codebook;

/* Sums of matrices of signs: a set bit is +1, a clear one -1. */
typedef struct tlm_binary_codes {
    const uint8_t *codes;   /* [columns / 4][bits][R / 2] a block */
    const uint16_t *scales; /* float16 [groups][bits][R] a block */
    uint32_t group;         /* columns that share scales; `in` for the whole row */
    uint32_t groups;
    uint8_t bits;           /* 1 to 4 */
} tlm_binary_codes;

/* Rows as chains of centroids. */
typedef struct tlm_product_codes {
    const uint8_t *codes;       /* [blocks][R / 2] nibbles, or [blocks][R] bytes, a block of rows */
    const uint16_t *centroids;  /* float16 [blocks, or 1 where shared][count][size] */
    const uint16_t *norms;      /* float16 [padded], or NULL: all 1 */
    uint32_t blocks;            /* blocks of columns; the last may have less than `size` */
    uint32_t count;             /* 16 (codes are nibbles) or 256 */
    uint32_t size;              /* columns of a block, 1 to 64 */
    bool shared;
} tlm_product_codes;

/* What the stored values of a sparse form are: `values`, or `codes` and a scale a row. */
typedef struct tlm_stored_values {
    const void *values;     /* float32, or float16 where `half`; NULL in a quantized form */
    const uint8_t *codes;   /* int8, never -128; or nibbles of code + 8, the low one first */
    const uint16_t *scales; /* float16 [padded] */
    uint8_t bits;           /* 8 or 4; 0 where there are values */
    bool half;
} tlm_stored_values;

/* Single places. starts[2 b] values and starts[2 b + 1] bytes of positions lie before row block b. */
typedef struct tlm_sparse {
    const uint8_t *positions;
    const uint32_t *starts; /* [2 (row_blocks + 1)] */
    tlm_stored_values stored;
    uint32_t row_blocks;
    uint32_t count;         /* places stored */
    tlm_positions coding;
} tlm_sparse;

/* Whole blocks. Padding inside a block, beyond the matrix, is finite but otherwise unchecked. */
typedef struct tlm_block_sparse {
    const uint8_t *bitmap;  /* a bit a block, row of blocks by row of blocks, lowest bit first */
    tlm_stored_values stored;
    uint64_t kept;          /* blocks stored */
    uint32_t grid_rows;
    uint32_t grid_columns;
    uint32_t high;          /* rows and columns of a block: powers of two up to 64 */
    uint32_t wide;
} tlm_block_sparse;

/* Blocks one under the other. */
typedef struct tlm_row_blocks {
    const struct tlm_matrix *blocks; /* [count] */
    uint32_t count;
} tlm_row_blocks;

/* Row i is row place[i] of blocks[groups[i]]; inside a block rows keep their order. */
typedef struct tlm_grouped_rows {
    const struct tlm_matrix *blocks; /* [count] */
    const uint8_t *groups;           /* [out] */
    const uint32_t *place;           /* [out]; made by the reader */
    uint32_t count;
} tlm_grouped_rows;

/* The sum of blocks, each times a number, zero elsewhere. The rows of the matrix and of each block
 * are cut into the same number of bands; row r of band k of block b is row places[2 b] + r of band
 * k, and its column c is column places[2 b + 1] + c. */
typedef struct tlm_placed_blocks {
    const struct tlm_matrix *blocks; /* [count] */
    const uint32_t *places;          /* [count][2]: row, column */
    const float *scales;             /* [count]; NULL: all 1 */
    uint32_t count;
    uint32_t bands;
} tlm_placed_blocks;

/* Core m is [ranks[m] row_shape[m], column_shape[m] ranks[m + 1]]; ranks[0] = ranks[count] = 1. */
typedef struct tlm_tensor_train {
    const struct tlm_matrix *cores; /* [count] */
    const uint32_t *row_shape;      /* [count] */
    const uint32_t *column_shape;   /* [count] */
    const uint32_t *ranks;          /* [count + 1] */
    uint32_t count;                 /* 1 to 16 */
} tlm_tensor_train;

typedef struct tlm_matrix {
    tlm_form form;
    uint32_t out; /* rows, 1 to 2^31 - 1 */
    uint32_t in;  /* columns, likewise */
    union {
        tlm_dense dense;
        tlm_low_rank low_rank;
        tlm_quantized quantized;
        tlm_codebook codebook;
        tlm_binary_codes binary_codes;
        tlm_product_codes product_codes;
        tlm_sparse sparse;             /* TLM_SPARSE and TLM_SPARSE_QUANTIZED */
        tlm_block_sparse block_sparse; /* TLM_BLOCK_SPARSE and TLM_BLOCK_SPARSE_QUANTIZED */
        tlm_row_blocks row_blocks;
        tlm_grouped_rows grouped_rows;
        tlm_placed_blocks placed_blocks;
        tlm_tensor_train tensor_train;
    } u;
} tlm_matrix;

/* The kind of a form as the file names it: "dense", "low_rank", ... */
const char *tlm_form_name(tlm_form form);

#endif
