/* The safetensors container: named tensors in one range of bytes, and a JSON document. */
#ifndef TLM_CONTAINER_H
#define TLM_CONTAINER_H

#include "arena.h"
#include "fault.h"
#include "json.h"

#define TLM_ALIGNMENT 64u
#define TLM_MAX_RANK 4u
#define TLM_MAX_HEADER ((uint64_t)16 << 20)

typedef enum tlm_type {
    TLM_BOOL, TLM_U8, TLM_I8, TLM_U16, TLM_I16, TLM_F16, TLM_BF16,
    TLM_U32, TLM_I32, TLM_F32, TLM_U64, TLM_I64, TLM_F64
} tlm_type;

typedef struct tlm_tensor {
    const char *name; /* `name_size` bytes, no final NUL */
    const void *data;
    uint64_t begin; /* bytes from the start of the data section */
    uint64_t end;
    uint64_t shape[TLM_MAX_RANK];
    uint32_t name_size;
    uint8_t rank;
    tlm_type type;
} tlm_tensor;

typedef struct tlm_container {
    const unsigned char *bytes; /* the whole file */
    uint64_t size;
    const unsigned char *data;  /* the data section */
    uint64_t data_size;
    tlm_json header;
    tlm_json digest;            /* 64 hexadecimal digits in quotes */
    tlm_json document;          /* a string that holds JSON */
    tlm_tensor *tensors;        /* by name, while a model is being opened */
    size_t count;
    size_t arena_bytes;         /* what `tlm_container_read` takes from the arena */
    uint64_t table_bytes;       /* bytes of tensors that tables of 4 bytes an entry are made of */
} tlm_container;

/* Check the header as far as possible without memory, and count what there is. */
tlm_status tlm_container_open(tlm_container *container, const void *bytes, uint64_t size,
                              const tlm_fault *fault);
/* Fill the table of tensors and check that they cover the data section without gap or overlap. */
tlm_status tlm_container_read(tlm_container *container, tlm_arena *arena, const tlm_fault *fault);
/* Compare the SHA-256 of the file with the one it states. */
tlm_status tlm_container_verify(const tlm_container *container, const tlm_fault *fault);
/* Read the entry of one tensor, of which the name is not set, before there is a table; false where
   there is none. Its places are within the data section. */
bool tlm_container_peek(const tlm_container *container, const char *name, tlm_tensor *tensor);
/* Return the tensor of this name (NUL at its end), or NULL. */
const tlm_tensor *tlm_container_find(const tlm_container *container, const char *name);

uint32_t tlm_type_size(tlm_type type);
/* The name in the file: "F32", ... */
const char *tlm_type_name(tlm_type type);

#endif
