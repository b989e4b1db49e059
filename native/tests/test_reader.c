/* The reader: JSON, SHA-256, and model files that tests/make_malformed.py wrote.
 *
 * Usage: test_reader [FOLDER]. Without the folder, what needs files is left out, and says so. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "container.h"
#include "model.h"
#include "sha256.h"

#ifndef MUTATIONS
#define MUTATIONS 60 /* of each good file; more: make CPPFLAGS=-DMUTATIONS=... */
#endif

static unsigned checks, failures;

static TLM_PRINTF(2, 3) void check(bool good, const char *format, ...)
{
    checks++;
    if (!good) {
        va_list arguments;
        va_start(arguments, format);
        failures++;
        printf("FAILED: ");
        vprintf(format, arguments);
        printf("\n");
        va_end(arguments);
    }
}

static tlm_json_fault fault_of(const char *text, size_t size)
{
    /* A block of the very size, so that a sanitizer sees a read beyond it. */
    char *copy = malloc(size == 0 ? 1 : size);
    tlm_json value;
    size_t where;
    if (copy == NULL) {
        return TLM_JSON_OK;
    }
    memcpy(copy, text, size);
    tlm_json_fault fault = tlm_json_check(copy, size, &value, &where);
    check(where <= size, "place %zu of %s", where, text);
    free(copy);
    return fault;
}

static void test_json_faults(void)
{
    static const struct {
        const char *text;
        tlm_json_fault fault;
    } cases[] = {
        {"{}", TLM_JSON_OK}, {" [ ] ", TLM_JSON_OK}, {"7", TLM_JSON_OK}, {"-0.5e-3", TLM_JSON_OK},
        {"{\"a\":[1,true,null,\"\\n\\u00e9\"],\"b\":{}}", TLM_JSON_OK},
        {"\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"", TLM_JSON_OK},
        {"\"\\ud83d\\ude00\"", TLM_JSON_OK}, {"1e308", TLM_JSON_OK}, {"0e999", TLM_JSON_OK},
        {"0.0001e309", TLM_JSON_OK}, {"12345678901234567890", TLM_JSON_OK},
        {"", TLM_JSON_SYNTAX}, {"{", TLM_JSON_SYNTAX}, {"[1,]", TLM_JSON_SYNTAX},
        {"[,1]", TLM_JSON_SYNTAX}, {"{\"a\"}", TLM_JSON_SYNTAX}, {"{\"a\":}", TLM_JSON_SYNTAX},
        {"{\"a\":1,}", TLM_JSON_SYNTAX}, {"{1:2}", TLM_JSON_SYNTAX}, {"[1 2]", TLM_JSON_SYNTAX},
        {"[1}", TLM_JSON_SYNTAX}, {"01", TLM_JSON_SYNTAX}, {"1.", TLM_JSON_SYNTAX},
        {".5", TLM_JSON_SYNTAX}, {"1e", TLM_JSON_SYNTAX}, {"-", TLM_JSON_SYNTAX},
        {"+1", TLM_JSON_SYNTAX}, {"NaN", TLM_JSON_SYNTAX}, {"tru", TLM_JSON_SYNTAX},
        {"\"a", TLM_JSON_SYNTAX}, {"\"\\", TLM_JSON_SYNTAX}, {"\"\\x\"", TLM_JSON_SYNTAX},
        {"\"\\u12\"", TLM_JSON_SYNTAX}, {"\"\t\"", TLM_JSON_SYNTAX}, {"1 2", TLM_JSON_SYNTAX},
        {"{\"a\":1", TLM_JSON_SYNTAX}, {"{\"a\"", TLM_JSON_SYNTAX}, {"{\"a\":", TLM_JSON_SYNTAX},
        {"\"\\u0000\"", TLM_JSON_NUL}, {"\"\\ud83d\"", TLM_JSON_BAD_TEXT},
        {"\"\\ude00\"", TLM_JSON_BAD_TEXT}, {"\"\\ud83d\\u0041\"", TLM_JSON_BAD_TEXT},
        {"\"\x80\"", TLM_JSON_BAD_TEXT}, {"\"\xc0\xaf\"", TLM_JSON_BAD_TEXT},
        {"\"\xe0\x80\x80\"", TLM_JSON_BAD_TEXT}, {"\"\xed\xa0\x80\"", TLM_JSON_BAD_TEXT},
        {"\"\xf4\x90\x80\x80\"", TLM_JSON_BAD_TEXT}, {"\"\xe2\x82\"", TLM_JSON_BAD_TEXT},
        {"\"\xf0\x9f\x98", TLM_JSON_BAD_TEXT}, {"1e309", TLM_JSON_TOO_LARGE},
        {"[1e99999999999999999999]", TLM_JSON_TOO_LARGE}, {"[12e308]", TLM_JSON_TOO_LARGE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tlm_json_fault found = fault_of(cases[i].text, strlen(cases[i].text));
        check(found == cases[i].fault, "JSON %s: %s", cases[i].text, tlm_json_fault_text(found));
    }
    check(fault_of("[\0]", 3) == TLM_JSON_NUL, "a NUL in an array");
    check(fault_of("{\"\0\":1}", 7) == TLM_JSON_NUL, "a NUL in a key");
    char deep[2 * (TLM_JSON_DEPTH + 1)];
    for (size_t depth = TLM_JSON_DEPTH; depth <= TLM_JSON_DEPTH + 1; depth++) {
        memset(deep, '[', depth);
        memset(deep + depth, ']', depth);
        tlm_json_fault wanted = depth == TLM_JSON_DEPTH ? TLM_JSON_OK : TLM_JSON_TOO_DEEP;
        check(fault_of(deep, 2 * depth) == wanted, "depth %zu", depth);
    }
}

static void test_json_walk(void)
{
    static const char text[] =
        " { \"a\" : [ 1 , -9223372036854775808 ] , \"b\\u00e9\\ud83d\\ude00\\n\" : \"x\" ,"
        "\"t\":true,\"n\":null,\"a{\":\"}\\\"{\",\"d\":1,\"d\":2,\"big\":9223372036854775808} ";
    tlm_json top, value, key, item;
    size_t where;
    int64_t number = 0;
    bool flag = false;
    char decoded[16];
    check(tlm_json_check(text, sizeof text - 1, &top, &where) == TLM_JSON_OK, "a walk");
    check(tlm_json_count(top) == 8, "members: %zu", tlm_json_count(top));
    check(tlm_json_find(top, "a", &value) == TLM_JSON_FOUND && tlm_json_count(value) == 2, "a");
    tlm_json_walk walk = tlm_json_walk_of(value);
    check(tlm_json_next(&walk, &key, &item) && tlm_json_integer(item, &number) && number == 1, "1");
    check(tlm_json_next(&walk, &key, &item) && tlm_json_integer(item, &number) &&
              number == INT64_MIN, "the least integer");
    check(!tlm_json_next(&walk, &key, &item) && !tlm_json_next(&walk, &key, &item), "the end");
    check(tlm_json_find(top, "b\xc3\xa9\xf0\x9f\x98\x80\n", &value) == TLM_JSON_FOUND &&
              tlm_json_equals(value, "x") && !tlm_json_equals(value, "xy"), "an escaped key");
    check(tlm_json_find(top, "t", &value) == TLM_JSON_FOUND && tlm_json_boolean(value, &flag) &&
              flag && !tlm_json_integer(value, &number), "true");
    check(tlm_json_find(top, "n", &value) == TLM_JSON_FOUND && tlm_json_is_null(value), "null");
    check(tlm_json_find(top, "a{", &value) == TLM_JSON_FOUND &&
              tlm_json_decode(value, decoded) == 3 && memcmp(decoded, "}\"{", 3) == 0, "braces");
    check(tlm_json_find(top, "d", &value) == TLM_JSON_TWICE, "a key there twice");
    check(tlm_json_find(top, "e", &value) == TLM_JSON_MISSING && value.begin == NULL, "missing");
    check(tlm_json_find(top, "big", &value) == TLM_JSON_FOUND && !tlm_json_integer(value, &number),
          "an integer beyond int64");
}

static void test_sha256(void)
{
    /* FIPS 180-4 examples; a million letters a. */
    static const struct {
        const char *text;
        unsigned times;
        const char *digits;
    } cases[] = {
        {"", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 25000,
         "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tlm_sha256 sha;
        char digits[64];
        tlm_sha256_start(&sha);
        for (unsigned time = 0; time < cases[i].times; time++) {
            tlm_sha256_add(&sha, cases[i].text, strlen(cases[i].text));
        }
        tlm_sha256_finish(&sha, digits);
        check(memcmp(digits, cases[i].digits, 64) == 0, "SHA-256 number %zu", i);
    }
}

static void test_arguments(void)
{
    tlm_model *model = (tlm_model *)&failures;
    tlm_description description;
    static const uint64_t bytes[2];
    char message[200] = "before";
    check(tlm_open(NULL, 0, &model, message, sizeof message) == TLM_ERROR_ARGUMENT &&
              model == NULL && message[0] != '\0', "NULL bytes");
    check(tlm_open((const char *)bytes + 1, 8, &model, NULL, 0) == TLM_ERROR_ARGUMENT,
          "misaligned bytes");
    check(tlm_open(bytes, 16, NULL, message, sizeof message) == TLM_ERROR_ARGUMENT, "NULL out");
    check(tlm_open_file(NULL, &model, message, 4) == TLM_ERROR_ARGUMENT && strlen(message) == 3,
          "NULL path, short message");
    check(tlm_open_file("/no/such/file", &model, message, sizeof message) == TLM_ERROR_READ &&
              strstr(message, "/no/such/file") != NULL, "a missing file: %s", message);
    check(tlm_open_file("/", &model, message, sizeof message) == TLM_ERROR_READ, "a folder");
    check(tlm_describe(NULL, &description) == TLM_ERROR_ARGUMENT, "no model to describe");
    tlm_close(NULL);
    for (int status = -1; status < 12; status++) {
        check(tlm_error_text((tlm_status)status)[0] != '\0', "text of status %d", status);
    }
}

typedef struct bytes {
    unsigned char *at; /* a block of the very size */
    size_t size;
} bytes;

static bytes read_all(const char *path)
{
    bytes found = {NULL, 0};
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        check(false, "cannot read %s", path);
        return found;
    }
    found.size = (size_t)ftell(file);
    rewind(file);
    found.at = malloc(found.size == 0 ? 8 : found.size);
    if (found.at == NULL || fread(found.at, 1, found.size, file) != found.size) {
        check(false, "cannot read %s", path);
    }
    fclose(file);
    return found;
}

static void test_file(const char *path, const char *name, int status, const char *words)
{
    char message[300], again[300];
    tlm_model *model = NULL;
    bytes file = read_all(path);
    tlm_status found = tlm_open(file.at, file.size, &model, message, sizeof message);
    check((int)found == status, "%s: status %d, expected %d: %s", name, (int)found, status,
          message);
    check(strstr(message, words) != NULL, "%s: \"%s\" does not say \"%s\"", name, message, words);
    check((found == TLM_OK) == (model != NULL), "%s: model and status differ", name);
    check(strchr(message, '\n') == NULL, "%s: more than one line", name);
    tlm_close(model);
    found = tlm_open_file(path, &model, again, sizeof again);
    check((int)found == status && strcmp(message, again) == 0, "%s by path: %s", name, again);
    if (found == TLM_OK && strstr(name, "vocabulary") == NULL && strstr(name, "work") == NULL &&
        strstr(name, "preview") == NULL) {
        tlm_description about;
        check(tlm_describe(model, &about) == TLM_OK && about.file_bytes == file.size &&
                  about.vocabulary_size == 37 && about.hidden[0] == 20 && about.format == 1 &&
                  strcmp(about.vocabulary_kind, "words") == 0 &&
                  about.tied == (strstr(name, "tied") != NULL || strstr(name, "projected") ==
                                 name + strlen("good-output-")),
              "%s: wrong description", name);
        if (strncmp(name, "good-lstm", 9) != 0 && strstr(name, "form") == NULL &&
            strstr(name, "output") == NULL) {
            check(strncmp(name + 5, about.cell, strlen(about.cell)) == 0, "%s: cell %s", name,
                  about.cell);
        }
    }
    tlm_close(model);
    free(file.at);
}

/* Put the right checksum into a changed file, so that what comes after it is tried. */
static void sign(bytes file)
{
    static const char key[] = "\"terselm.sha256\": \"";
    size_t start = 0, length = sizeof key - 1;
    while (start + length + 64 < file.size && memcmp(file.at + start, key, length) != 0) {
        start++;
    }
    if (start + length + 64 >= file.size) {
        return;
    }
    tlm_sha256 sha;
    memset(file.at + start + length, '0', 64);
    tlm_sha256_start(&sha);
    tlm_sha256_add(&sha, file.at, file.size);
    tlm_sha256_finish(&sha, (char *)file.at + start + length);
}

static uint32_t draw(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Change bytes of a good file, sign it, open it: any status will do, a bad access will not. */
static void test_mutations(const char *path, uint32_t *state)
{
    bytes file = read_all(path);
    bytes changed = {malloc(file.size), file.size};
    size_t header = 8 + file.at[0] + 256u * file.at[1] + 65536u * file.at[2];
    for (unsigned i = 0; changed.at != NULL && i < MUTATIONS; i++) {
        memcpy(changed.at, file.at, file.size);
        unsigned count = 1 + draw(state) % 3;
        for (unsigned k = 0; k < count; k++) {
            bool inside = i % 3 != 0; /* digits of the header are where most is decided */
            size_t range = inside ? header : file.size;
            size_t at = draw(state) % range;
            while (inside && at + 1 < header && (file.at[at] < '0' || file.at[at] > '9')) {
                at++;
            }
            uint32_t random = draw(state);
            changed.at[at] = (unsigned char)(inside && i % 3 == 1 ? '0' + random % 10 : random);
        }
        sign(changed);
        tlm_model *model;
        char message[200];
        tlm_status status = tlm_open(changed.at, file.size, &model, message, sizeof message);
        check((status == TLM_OK) == (message[0] == '\0'), "%s changed: %s", path, message);
        tlm_close(model);
    }
    for (size_t size = 0; size < file.size; size += 1 + file.size / 40) {
        bytes cut = {malloc(size == 0 ? 1 : size), size};
        tlm_model *model;
        if (cut.at != NULL) {
            memcpy(cut.at, file.at, size);
            tlm_status status = tlm_open(cut.at, size, &model, NULL, 0);
            check(status == TLM_ERROR_DAMAGED, "%s cut to %zu: status %d", path, size,
                  (int)status);
        }
        free(cut.at);
    }
    free(changed.at);
    free(file.at);
}

static void test_files(const char *folder)
{
    char path[1024], line[512];
    uint32_t state = 20;
    unsigned files = 0;
    snprintf(path, sizeof path, "%s/manifest.txt", folder);
    FILE *manifest = fopen(path, "r");
    if (manifest == NULL) {
        printf("SKIPPED: model files, there is no %s; run `make files`\n", path);
        return;
    }
    while (fgets(line, sizeof line, manifest) != NULL) {
        char *status = strchr(line, '\t');
        char *words = status == NULL ? NULL : strchr(status + 1, '\t');
        if (words == NULL) {
            check(false, "manifest: %s", line);
            continue;
        }
        *status = *words = '\0';
        words[1 + strcspn(words + 1, "\n")] = '\0';
        snprintf(path, sizeof path, "%s/%s", folder, line);
        test_file(path, line, atoi(status + 1), words + 1);
        /* The files for previews are large, and their forms are those of others. */
        if (strcmp(status + 1, "0") == 0 && strstr(line, "preview") == NULL) {
            test_mutations(path, &state);
        }
        files++;
    }
    fclose(manifest);
    printf("%u model files\n", files);
    check(files > 0, "the manifest is empty");
}

int main(int argc, char **argv)
{
    test_json_faults();
    test_json_walk();
    test_sha256();
    test_arguments();
    if (argc > 1) {
        test_files(argv[1]);
    } else {
        printf("SKIPPED: model files, no folder is given\n");
    }
    printf("%u checks, %u failed\n", checks, failures);
    return failures == 0 ? 0 : 1;
}
