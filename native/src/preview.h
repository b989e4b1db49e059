/* A preview of the output layer: its matrix in few bits, so that few words need exact scores.
 *
 * Row i of the output matrix is w = p + B'(c + d) + e. B has 32 or fewer orthonormal rows, the
 * directions in which the matrix is largest; p is what is left without them, in few bits; c is
 * what B sees of w - p, in 8 bits; d is what these 8 bits lose; e is across all of B. With g the
 * vector that exact products see, x the one before it is rounded, and u = B g,
 *
 *     |w g - (p x' + c u')| <= |e| |g - B'u| + |d| |u| + |c| |u - u'| + |p| |g - x'|
 *
 * where x' and u' are x and u rounded to 8 bits. Without B the bound would be so wide that nearly
 * every word survives: language models have a few directions that all words share.
 *
 * Rows lie as the blocks of the output matrix do, each block filled up to a multiple of 64, so that
 * a product of 64 rows of one block, by the same kernels as ever, gives exact scores of a part. */
#ifndef TLM_PREVIEW_H
#define TLM_PREVIEW_H

#include <math.h>

#include "best.h"
#include "bias.h"
#include "product.h"

#define TLM_NO_ROW UINT32_MAX

typedef struct tlm_preview {
    uint32_t bits;             /* 0: there is none */
    bool fast;
    bool integers;             /* every exact product sees x' */
    const tlm_matrix *weight;  /* the output matrix, or its last factor */
    uint32_t rows;             /* padding included */
    tlm_matrix codes;          /* p, [rows, columns] */
    tlm_matrix shares;         /* c, [rows, directions] */
    tlm_matrix directions;     /* B, [directions, columns] */
    uint32_t *words;           /* [rows]: ids; TLM_NO_ROW in the padding */
    float *bias;               /* [rows]; -INFINITY in the padding */
    float *across;             /* [rows]: |e| */
    float *along;              /* [rows]: |d| */
    float largest;             /* of all |w|, |p| and |w - p| */
    float largest_share;       /* of all |c| */
    float largest_bias;
    /* After one output vector: */
    const tlm_input *input;
    float *scores;             /* [rows]: exact where `exact` says so */
    float *most;               /* [rows]: what the exact score is at most */
    uint8_t *exact;            /* [rows / 64] */
} tlm_preview;

typedef struct tlm_context tlm_context;

/* Rows of a block in a preview. */
static inline uint32_t tlm_filled_up(uint32_t rows)
{
    return (rows + TLM_BLOCK_ROWS - 1) / TLM_BLOCK_ROWS * TLM_BLOCK_ROWS;
}

/* A length for a bound: a little more than it is, and neither NaN nor infinite. */
static inline float tlm_length(double square)
{
    const double length = sqrt(square <= 0 ? 0 : square) * 1.0001;
    return length < 1e30 ? (float)length : 1e30f;
}

/* Fill in what `lay_out` needs. A preview that would not save a quarter of the bytes is left out
   (bits is 0), and that of a matrix with whole blocks of zeros. TLM_ERROR_ARGUMENT for output
   layers that can have none. */
tlm_status tlm_preview_plan(const tlm_model *model, const tlm_options *options, tlm_preview *out);
/* Take its memory, zeroed, from `scratch`; NULL to count. Returns the bytes. */
size_t tlm_preview_lay_out(tlm_preview *preview, tlm_scratch *scratch);
/* Scratch for the calls below. */
size_t tlm_preview_room(const tlm_preview *preview, const tlm_model *model);
/* Compute it; `bias` is that of the output layer. */
void tlm_preview_build(const tlm_engine *engine, const tlm_bias *bias, tlm_preview *preview,
                       tlm_scratch scratch);

/* Blocks of the output matrix, and the row of a word. */
const tlm_matrix *tlm_preview_block(const tlm_preview *preview, uint32_t number);
uint32_t tlm_preview_row(const tlm_preview *preview, uint32_t word);

/* Scores of all words after an output vector, nearly. What it takes of the context's scratch the
   next two calls use; the caller puts it back. */
void tlm_preview_read(tlm_context *context, const float *vector);
/* scores += most (the other part of the scores) + bias, then most = scores + the bound: `across`
   times |e| + `along` times |d| + `all`. */
void tlm_preview_bound(tlm_preview *preview, float across, float along, float all);
/* The exact score of a word. */
float tlm_preview_score(tlm_context *context, uint32_t word);
/* Offer all words that may be among the best, by their exact scores. */
void tlm_preview_offer(tlm_context *context, tlm_best *best);
/* log of the sum of exp over the scores, exact or not. */
float tlm_preview_log_sum(const tlm_context *context);

#endif
