// The tests of the C interface. The last line says how many passed; a test that fails says where.
//
// Deliberately absent: a framework. Each file has its tests, each a function that returns when all holds.

#include <stdio.h>
#include <string.h>

#include "tests.h"

static unsigned passed, failed;
static int holds;
static const char *golden_folder = "tests/golden";

void check_at(int condition, const char *file, int line, const char *what)
{
    if (!condition && holds)
        printf("%s:%d: wanted %s\n", file, line, what);
    holds &= condition != 0;
}

void run_test(const char *name, void (*test)(void))
{
    holds = 1;
    test();
    printf("%s %s\n", holds ? "ok    " : "FAILED", name);
    passed += holds ? 1 : 0;
    failed += holds ? 0 : 1;
}

size_t golden(const char *name, uint8_t *bytes, size_t room)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", golden_folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        printf("there is no %s; the first argument is the folder of golden files\n", path);
        check_at(0, __FILE__, __LINE__, "a golden file");
        return 0;
    }
    size_t length = fread(bytes, 1, room, file);
    fclose(file);
    CHECK(length > 0 && length < room);
    return length;
}

int main(int count, char **arguments)
{
    if (count > 1)
        golden_folder = arguments[1];
    test_migrations();
    test_golden();
    test_damage();
    test_failures();
    test_misuse();
    test_codecs();
    test_words();
    test_uapi();
    printf("%u passed; %u failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}
