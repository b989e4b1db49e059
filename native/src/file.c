/* Bringing a file into memory. Left out by TLM_NO_FILES and by TLM_NO_MALLOC. */
#if defined(__unix__) || defined(__APPLE__)
#define TLM_HAS_MMAP 1
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#endif

#include "model.h"

#if !defined(TLM_NO_FILES) && !defined(TLM_NO_MALLOC)

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef TLM_HAS_MMAP
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#define FIRST_READ ((size_t)1 << 16)

#ifdef TLM_HAS_MMAP
/* Map a regular file; NULL where that is not possible. */
static void *map_file(const char *path, size_t *size)
{
    void *bytes = NULL;
    struct stat about;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return NULL;
    }
    if (fstat(file, &about) == 0 && S_ISREG(about.st_mode) && about.st_size > 0 &&
        (uint64_t)about.st_size <= SIZE_MAX) {
        void *mapped = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, file, 0);
        if (mapped != MAP_FAILED) {
            bytes = mapped;
            *size = (size_t)about.st_size;
        }
    }
    close(file);
    return bytes;
}
#endif

/* Read to the end; NULL, and the status, where that is not possible. */
static void *read_file(const char *path, size_t *size, tlm_status *status)
{
    FILE *file = fopen(path, "rb");
    unsigned char *bytes = NULL;
    size_t room = 0, used = 0;
    *status = file == NULL ? TLM_ERROR_READ : TLM_OK;
    while (*status == TLM_OK && used == room) {
        size_t more = room == 0 ? FIRST_READ : room * 2;
        unsigned char *grown = more > room ? realloc(bytes, more) : NULL;
        if (grown == NULL) {
            *status = TLM_ERROR_MEMORY;
            break;
        }
        bytes = grown;
        room = more;
        used += fread(bytes + used, 1, room - used, file);
        if (ferror(file)) {
            *status = TLM_ERROR_READ;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    if (*status != TLM_OK) {
        free(bytes);
        return NULL;
    }
    *size = used;
    return bytes;
}

static tlm_status open_path(const char *path, tlm_trust trust, tlm_model **out, char *message,
                            size_t message_size)
{
    tlm_fault fault = {message, message_size};
    if (out != NULL) {
        *out = NULL;
    }
    if (path == NULL || out == NULL) {
        return tlm_fail(&fault, TLM_ERROR_ARGUMENT, "%s is NULL", path == NULL ? "path" : "out");
    }
    tlm_status status = TLM_OK;
    void *bytes = NULL;
    size_t size = 0, mapped_size = 0;
    errno = 0;
#ifdef TLM_HAS_MMAP
    bytes = map_file(path, &size);
    mapped_size = size;
#endif
    if (bytes == NULL) {
        bytes = read_file(path, &size, &status);
    }
    if (bytes == NULL) {
        return tlm_fail(&fault, status, "cannot read %.200s: %s", path,
                        status == TLM_ERROR_MEMORY || errno == 0 ? tlm_error_text(status)
                                                                 : strerror(errno));
    }
    status = tlm_open_model(bytes, size, trust, out, message, message_size);
    if (status != TLM_OK) {
        tlm_release_file(bytes, mapped_size);
        return status;
    }
    (*out)->mapping = bytes;
    (*out)->mapping_size = mapped_size;
    return TLM_OK;
}

tlm_status tlm_open_file(const char *path, tlm_model **out, char *message, size_t message_size)
{
    return open_path(path, TLM_VERIFY, out, message, message_size);
}

tlm_status tlm_open_trusted_file(const char *path, tlm_model **out, char *message,
                                 size_t message_size)
{
    return open_path(path, TLM_TRUST, out, message, message_size);
}

void tlm_release_file(void *mapping, size_t mapping_size)
{
#ifdef TLM_HAS_MMAP
    if (mapping_size > 0) {
        munmap(mapping, mapping_size);
        return;
    }
#endif
    (void)mapping_size;
    free(mapping);
}

#endif
