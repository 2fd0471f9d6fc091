// What the files of tests share.

#ifndef TESTS_H
#define TESTS_H

#include <stddef.h>
#include <stdint.h>

#define CHECK(condition) check_at((condition), __FILE__, __LINE__, #condition)
#define RUN(test) run_test(#test, test)

// Takes note of a condition that does not hold; the first one of a test is printed.
void check_at(int condition, const char *file, int line, const char *what);
void run_test(const char *name, void (*test)(void));
// Reads a golden file whole and returns its length in bytes.
size_t golden(const char *name, uint8_t *bytes, size_t room);

void test_migrations(void);
void test_golden(void);
void test_damage(void);
void test_failures(void);
void test_misuse(void);
void test_codecs(void);
void test_words(void);
void test_uapi(void);

#endif
