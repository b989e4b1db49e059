/* SHA-256 (FIPS 180-4). */
#ifndef TLM_SHA256_H
#define TLM_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tlm_sha256 {
    uint32_t state[8];
    uint64_t bytes;
    uint8_t block[64]; /* the first bytes % 64 of it wait */
} tlm_sha256;

void tlm_sha256_start(tlm_sha256 *sha);
void tlm_sha256_add(tlm_sha256 *sha, const void *bytes, size_t size);
/* Write 64 lower-case hexadecimal digits, without a final NUL. */
void tlm_sha256_finish(tlm_sha256 *sha, char digits[64]);

/* The constants of the rounds. */
extern const uint32_t TLM_SHA256_ROUND[64];

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define TLM_SHA_X86 1
/* Whether this processor has instructions for it. */
bool tlm_sha256_has_x86(void);
/* Add whole blocks of 64 bytes to a state. */
void tlm_sha256_x86(uint32_t state[8], const uint8_t *at, size_t blocks);
#else
#define TLM_SHA_X86 0
#endif

#endif
