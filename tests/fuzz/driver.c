/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/fuzz/driver.c - main for a fuzzer where there is no libFuzzer: replays files, folders and
 * mutations of them.
 *
 *   fuzz_x [-mutations=N] [-seed=N] [-current=FILE] FILE|FOLDER...
 *
 * Each input is handed over in a block of exactly its size, so that ASan and valgrind see a read
 * behind it. With -current the input being worked on is kept in a mapped FILE (8 bytes length, then
 * the bytes), which survives a crash.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define INPUT_MAX (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

struct input {
    uint8_t *p;
    size_t n;
};

static struct input *inputs;
static size_t n_inputs;
static uint8_t *current;

static void die(const char *what, const char *path)
{
    perror(path);
    fprintf(stderr, "%s failed\n", what);
    exit(2);
}

static void *allocate(size_t n)
{
    void *p = malloc(n != 0 ? n : 1);

    if (p == NULL) {
        die("malloc", "driver");
    }
    return p;
}

static void run(const uint8_t *p, size_t n)
{
    uint8_t *copy = allocate(n);
    uint64_t size = n;

    memcpy(copy, p, n);
    if (current != NULL) {
        memcpy(current, &size, sizeof(size));
        memcpy(current + sizeof(size), p, n);
    }
    LLVMFuzzerTestOneInput(copy, n);
    free(copy);
}

/* ---- inputs ---- */

static void load_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *p = allocate(INPUT_MAX);
    size_t n;

    if (f == NULL) {
        die("open", path);
    }
    n = fread(p, 1, INPUT_MAX, f);
    if (ferror(f)) {
        die("read", path);
    }
    fclose(f);
    inputs = realloc(inputs, (n_inputs + 1) * sizeof(*inputs));
    if (inputs == NULL) {
        die("realloc", path);
    }
    inputs[n_inputs].p = allocate(n);
    inputs[n_inputs].n = n;
    memcpy(inputs[n_inputs].p, p, n);
    n_inputs++;
    free(p);
}

static void load(const char *path)
{
    struct dirent **names;
    struct stat st;
    int n;

    if (stat(path, &st) != 0) {
        die("stat", path);
    }
    if (!S_ISDIR(st.st_mode)) {
        load_file(path);
        return;
    }
    n = scandir(path, &names, NULL, alphasort); /* sorted: the same mutations everywhere */
    if (n < 0) {
        die("scandir", path);
    }
    for (int i = 0; i < n; i++) {
        char child[4096];

        if (names[i]->d_name[0] != '.') {
            snprintf(child, sizeof(child), "%s/%s", path, names[i]->d_name);
            load(child);
        }
        free(names[i]);
    }
    free(names);
}

/* ---- mutations ---- */

static uint64_t random_state;

static size_t below(size_t n) /* xorshift64* */
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return n != 0 ? (size_t)((random_state * UINT64_C(0x2545F4914F6CDD1D)) >> 33) % n : 0;
}

static size_t cut_out(uint8_t *p, size_t n)
{
    size_t at = below(n), len = 1 + below(n - at < 16 ? n - at : 16);

    if (len > n - at) {
        len = n - at;
    }
    memmove(p + at, p + at + len, n - at - len);
    return n - len;
}

static size_t insert(uint8_t *p, size_t n, const uint8_t *from, size_t len)
{
    size_t at = below(n + 1);

    if (len > INPUT_MAX - n) {
        len = INPUT_MAX - n;
    }
    memmove(p + at + len, p + at, n - at);
    memcpy(p + at, from, len);
    return n + len;
}

static size_t insert_piece(uint8_t *p, size_t n)
{
    const struct input *other = &inputs[below(n_inputs)];
    size_t at = below(other->n), len = 1 + below(64);

    return insert(p, n, other->p + at, len < other->n - at ? len : other->n - at);
}

static size_t mutate(uint8_t *p, size_t n)
{
    static const uint8_t odd[] = {0,    1,    '\t', '\n', '\r', ' ',  '"',  '%',  '\'', '/',
                                  '0',  '9',  '\\', '{',  '}',  '[',  ']',  ':',  ',',  '-',
                                  0x7f, 0x80, 0xbf, 0xc2, 0xe2, 0xed, 0xf4, 0xfe, 0xff};
    uint8_t byte;

    if (n == 0) {
        return insert_piece(p, n);
    }
    switch (below(7)) {
    case 0:
        p[below(n)] ^= (uint8_t)(1u << below(8));
        return n;
    case 1:
        p[below(n)] = odd[below(sizeof(odd))];
        return n;
    case 2:
        byte = odd[below(sizeof(odd))];
        return insert(p, n, &byte, 1);
    case 3:
        return cut_out(p, n);
    case 4:
        return below(n) + 1;
    case 5:
        p[below(n)] = (uint8_t)below(256);
        return n;
    default:
        return insert_piece(p, n);
    }
}

static void run_mutations(size_t count)
{
    uint8_t *p = allocate(INPUT_MAX);

    for (size_t i = 0; i < count && n_inputs != 0; i++) {
        const struct input *in = &inputs[below(n_inputs)];
        size_t n = in->n;

        memcpy(p, in->p, n);
        for (size_t steps = 1 + below(4); steps != 0; steps--) {
            n = mutate(p, n);
        }
        run(p, n);
    }
    free(p);
}

/* ---- main ---- */

static void map_current(const char *path)
{
    const size_t size = sizeof(uint64_t) + INPUT_MAX;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

    if (fd < 0 || ftruncate(fd, (off_t)size) != 0) {
        die("create", path);
    }
    current = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (current == MAP_FAILED) {
        die("mmap", path);
    }
    close(fd);
}

int main(int argc, char **argv)
{
    size_t mutations = 0;

    random_state = 1;
    if (LLVMFuzzerInitialize != NULL) {
        LLVMFuzzerInitialize(&argc, &argv);
    }
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-mutations=", 11) == 0) {
            mutations = strtoul(argv[i] + 11, NULL, 10);
        } else if (strncmp(argv[i], "-seed=", 6) == 0) {
            random_state = strtoul(argv[i] + 6, NULL, 10) | 1;
        } else if (strncmp(argv[i], "-current=", 9) == 0) {
            map_current(argv[i] + 9);
        } else if (argv[i][0] != '-') {
            load(argv[i]);
        } /* libFuzzer's own options mean nothing here */
    }
    run((const uint8_t *)"", 0);
    for (size_t i = 0; i < n_inputs; i++) {
        run(inputs[i].p, inputs[i].n);
    }
    run_mutations(mutations);
    for (size_t i = 0; i < n_inputs; i++) {
        free(inputs[i].p);
    }
    free(inputs);
    return 0;
}
