// SPDX-License-Identifier: GPL-2.0-only
/*
 * Calls that are counted, and those of them that are made to fail.
 *
 * Deliberately absent: chance. Which call fails is said by its number.
 */
#include <linux/kernel.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "migtest.h"

/* The highest error number that is for users. */
#define MT_MAX_ERRNO 511

static const char *const op_names[MT_OPS] = {
	[MT_SET] = "set", [MT_GET] = "get", [MT_READ] = "read", [MT_WRITE] = "write", [MT_INFO] = "info",
	[MT_SIZE] = "size", [MT_RESET] = "reset", [MT_START] = "start", [MT_STOP] = "stop",
	[MT_REPORT] = "report",
};

static const char *const end_names[] = {
	[MT_END_OLD] = "old", [MT_END_MIDWAY] = "midway", [MT_END_ERROR] = "error",
};

/*
 * Counts a call. Returns the error with which it is to fail, or 0, and where a SET that fails is to
 * end.
 */
int mt_enter(struct migtest *mt, enum mt_op op, enum mt_end *end)
{
	u64 nth = ++mt->fault_calls[op];
	const struct mt_fault *fault;
	int result = 0;

	mt->calls[op]++;
	for (fault = mt->faults; fault < mt->faults + mt->fault_count; fault++) {
		if (fault->op != op || (fault->nth && fault->nth != nth))
			continue;
		if (!fault->errno_) {
			mt_flr(mt);
			continue;
		}
		result = -fault->errno_;
		if (end)
			*end = fault->end;
	}
	return result;
}

/* Reads `OP NTH ERRNO [END]` or `OP NTH flr`. */
static int parse_line(char *line, struct mt_fault *fault)
{
	char *words[4] = {};
	int count = 0;
	int result;
	char *word;

	while ((word = strsep(&line, " \t"))) {
		if (!*word)
			continue;
		if (count == ARRAY_SIZE(words))
			return -EINVAL;
		words[count++] = word;
	}
	if (count < 3)
		return -EINVAL;
	result = match_string(op_names, MT_OPS, words[0]);
	if (result < 0 || kstrtou64(words[1], 10, &fault->nth))
		return -EINVAL;
	fault->op = result;
	fault->errno_ = 0;
	fault->end = MT_END_OLD;
	if (!strcmp(words[2], "flr"))
		return count == 3 ? 0 : -EINVAL;
	if (kstrtoint(words[2], 10, &fault->errno_) || fault->errno_ < 1 || fault->errno_ > MT_MAX_ERRNO)
		return -EINVAL;
	if (count == 3)
		return 0;
	result = match_string(end_names, ARRAY_SIZE(end_names), words[3]);
	if (result < 0 || fault->op != MT_SET)
		return -EINVAL;
	fault->end = result;
	return 0;
}

/*
 * Takes new faults for the old ones; the calls are counted anew. Nothing changes where a line is
 * wrong.
 */
int mt_faults_parse(struct migtest *mt, char *text)
{
	struct mt_fault faults[MT_FAULTS];
	u32 count = 0;
	char *line;

	while ((line = mt_next_line(&text))) {
		if (count == MT_FAULTS || parse_line(line, &faults[count]))
			return -EINVAL;
		count++;
	}
	memcpy(mt->faults, faults, count * sizeof(*faults));
	mt->fault_count = count;
	memset(mt->fault_calls, 0, sizeof(mt->fault_calls));
	return 0;
}

int mt_faults_show(const struct migtest *mt, char *text)
{
	const struct mt_fault *fault;
	int at = 0;

	for (fault = mt->faults; fault < mt->faults + mt->fault_count; fault++) {
		at += sysfs_emit_at(text, at, "%s %llu ", op_names[fault->op], fault->nth);
		if (!fault->errno_)
			at += sysfs_emit_at(text, at, "flr\n");
		else if (fault->op != MT_SET)
			at += sysfs_emit_at(text, at, "%d\n", fault->errno_);
		else
			at += sysfs_emit_at(text, at, "%d %s\n", fault->errno_, end_names[fault->end]);
	}
	return at;
}

int mt_calls_show(const struct migtest *mt, char *text)
{
	int at = 0;
	int op;

	for (op = 0; op < MT_OPS; op++)
		at += sysfs_emit_at(text, at, "%s %llu\n", op_names[op], READ_ONCE(mt->calls[op]));
	return at;
}
