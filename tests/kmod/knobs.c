// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device's folders in sysfs: knobs/ and violations/ to be written, observed/ to be read.
 *
 * Deliberately absent: what a knob does. A number is kept here and looked at elsewhere.
 */
#include <linux/device.h>
#include <linux/kernel.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "migtest.h"

#define MT_MAX_SIZE (1ULL << 30)
/* Of a step: a SET of four keeps others waiting for less than the 120 s of a hung task. */
#define MT_MAX_MS 20000
#define MT_MAX_MS_PER_MIB 600000
/* Bytes per second that do not overflow in months. */
#define MT_MAX_RATE (1ULL << 40)

static struct migtest *to_migtest(struct device *dev)
{
	return dev_get_drvdata(dev);
}

/* A knob that is a number of struct mt_knobs. */
struct number {
	struct device_attribute attribute;
	size_t place;
	u64 max;
};

static u64 *number_of(struct device *dev, struct device_attribute *attribute, u64 *max)
{
	struct number *number = container_of(attribute, struct number, attribute);

	if (max)
		*max = number->max;
	return (void *)&to_migtest(dev)->knobs + number->place;
}

static ssize_t number_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	u64 value = READ_ONCE(*number_of(dev, attribute, NULL));

	return value == U64_MAX ? sysfs_emit(text, "max\n") : sysfs_emit(text, "%llu\n", value);
}

static int number_parse(const char *text, u64 *value)
{
	*value = U64_MAX;
	return sysfs_streq(text, "max") ? 0 : kstrtou64(text, 10, value);
}

/* What depends on numbers gets to know of the new one. */
static ssize_t number_store(struct device *dev, struct device_attribute *attribute,
			    const char *text, size_t count)
{
	struct migtest *mt = to_migtest(dev);
	u64 max, value;
	u64 *number = number_of(dev, attribute, &max);

	if (number_parse(text, &value) || value > max)
		return -EINVAL;
	mutex_lock(&mt->lock);
	mt_content_run(mt);
	*number = value;
	mt_content_run_from_now(mt);
	mt_tick_soon(mt);
	mt_wake(mt);
	mutex_unlock(&mt->lock);
	return count;
}

#define NUMBER(file, field, largest) \
	static struct number knob_##file = { \
		.attribute = __ATTR(file, 0644, number_show, number_store), \
		.place = offsetof(struct mt_knobs, field), \
		.max = largest, \
	}

NUMBER(whole, whole, 1);
NUMBER(initial, initial, U64_MAX);
NUMBER(dirty_rate, dirty_rate, MT_MAX_RATE);
NUMBER(dirty_per_read, dirty_per_read, U64_MAX);
NUMBER(reinit_after, reinit_after, U64_MAX);
NUMBER(delay_per_mib, delay_per_mib, MT_MAX_MS_PER_MIB);
NUMBER(ignore_nonblock, ignore_nonblock, 1);
NUMBER(short, short_transfers, U64_MAX);
NUMBER(eintr, eintr, U64_MAX);
NUMBER(log_page_size, log_page_size, U64_MAX);
NUMBER(reset_on_open, reset_on_open, 1);

static ssize_t flags_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	return sysfs_emit(text, "%u\n", to_migtest(dev)->vdev.migration_flags);
}

static ssize_t flags_store(struct device *dev, struct device_attribute *attribute, const char *text,
			   size_t count)
{
	struct migtest *mt = to_migtest(dev);
	u32 flags;
	int result = kstrtou32(text, 0, &flags);

	if (result)
		return -EINVAL;
	mutex_lock(&mt->lock);
	if (mt->opens)
		result = -EBUSY;
	else
		mt->vdev.migration_flags = flags;
	mutex_unlock(&mt->lock);
	return result ? result : count;
}
static DEVICE_ATTR_RW(flags);

static ssize_t size_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	return sysfs_emit(text, "%llu\n", to_migtest(dev)->size);
}

static ssize_t size_store(struct device *dev, struct device_attribute *attribute, const char *text,
			  size_t count)
{
	struct migtest *mt = to_migtest(dev);
	u64 size;
	int result;

	if (kstrtou64(text, 10, &size) || size > MT_MAX_SIZE)
		return -EINVAL;
	mutex_lock(&mt->lock);
	result = mt->opens ? -EBUSY : mt_content_resize(mt, size);
	mutex_unlock(&mt->lock);
	return result ? result : count;
}
static DEVICE_ATTR_RW(size);

static ssize_t seed_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	return sysfs_emit(text, "%llu\n", to_migtest(dev)->seed);
}

static ssize_t seed_store(struct device *dev, struct device_attribute *attribute, const char *text,
			  size_t count)
{
	struct migtest *mt = to_migtest(dev);
	u64 seed;

	if (kstrtou64(text, 10, &seed))
		return -EINVAL;
	mutex_lock(&mt->lock);
	mt_content_fill(mt, seed);
	mutex_unlock(&mt->lock);
	return count;
}
static DEVICE_ATTR_RW(seed);

static ssize_t data_size_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	struct migtest *mt = to_migtest(dev);

	return mt->knobs.data_size_is_wrong ? sysfs_emit(text, "%llu\n", mt->knobs.data_size) :
					      sysfs_emit(text, "right\n");
}

static ssize_t data_size_store(struct device *dev, struct device_attribute *attribute,
			       const char *text, size_t count)
{
	struct migtest *mt = to_migtest(dev);
	bool is_wrong = !sysfs_streq(text, "right");
	u64 size = 0;

	if (is_wrong && kstrtou64(text, 10, &size))
		return -EINVAL;
	mutex_lock(&mt->lock);
	mt->knobs.data_size_is_wrong = is_wrong;
	mt->knobs.data_size = size;
	mutex_unlock(&mt->lock);
	return count;
}
static DEVICE_ATTR_RW(data_size);

/* Takes a knob of several lines: nothing changes where one of them is wrong. */
static ssize_t lines_store(struct device *dev, const char *text, size_t count,
			   int (*parse)(struct migtest *mt, char *text))
{
	struct migtest *mt = to_migtest(dev);
	char *copy = kstrndup(text, count, GFP_KERNEL);
	int result;

	if (!copy)
		return -ENOMEM;
	mutex_lock(&mt->lock);
	result = parse(mt, copy);
	mutex_unlock(&mt->lock);
	kfree(copy);
	return result ? result : count;
}

/* The next line that is not empty, or NULL. */
char *mt_next_line(char **text)
{
	char *line;

	while ((line = strsep(text, "\n"))) {
		line = strim(line);
		if (*line)
			return line;
	}
	return NULL;
}

static int arc_delay_parse(struct migtest *mt, char *text)
{
	u32 delays[MT_STATES][MT_STATES] = {};
	u32 from, to, ms;
	char *line;
	char rest;

	while ((line = mt_next_line(&text))) {
		if (sscanf(line, "%u %u %u %c", &from, &to, &ms, &rest) != 3)
			return -EINVAL;
		if (from >= MT_STATES || to >= MT_STATES || ms > MT_MAX_MS)
			return -EINVAL;
		delays[from][to] = ms;
	}
	memcpy(mt->arc_delay, delays, sizeof(delays));
	return 0;
}

static ssize_t arc_delay_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	struct migtest *mt = to_migtest(dev);
	u32 from, to;
	int at = 0;

	for (from = 0; from < MT_STATES; from++)
		for (to = 0; to < MT_STATES; to++)
			if (mt->arc_delay[from][to])
				at += sysfs_emit_at(text, at, "%u %u %u\n", from, to, mt->arc_delay[from][to]);
	return at;
}

static ssize_t arc_delay_store(struct device *dev, struct device_attribute *attribute,
			       const char *text, size_t count)
{
	return lines_store(dev, text, count, arc_delay_parse);
}
static DEVICE_ATTR_RW(arc_delay);

static ssize_t fault_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	return mt_faults_show(to_migtest(dev), text);
}

static ssize_t fault_store(struct device *dev, struct device_attribute *attribute, const char *text,
			   size_t count)
{
	return lines_store(dev, text, count, mt_faults_parse);
}
static DEVICE_ATTR_RW(fault);

/* Reads `IOVA LENGTH`, hexadecimal with 0x or decimal; whole pages become dirty. */
static int range_parse(char *line, struct mt_range *range)
{
	char *iova = strsep(&line, " \t");
	u64 last;

	if (!line || kstrtou64(iova, 0, &range->iova) || kstrtou64(strim(line), 0, &range->length))
		return -EINVAL;
	if (!range->length || check_add_overflow(range->iova, range->length - 1, &last))
		return -EINVAL;
	range->iova = round_down(range->iova, MT_PAGE_SIZE);
	range->length = round_down(last, MT_PAGE_SIZE) - range->iova + MT_PAGE_SIZE;
	return range->length && range->iova + range->length ? 0 : -EINVAL;
}

static int dirty_pages_parse(struct migtest *mt, char *text)
{
	struct mt_log *log = &mt->log;
	struct mt_range *ranges = kcalloc(MT_RANGES, sizeof(*ranges), GFP_KERNEL);
	u32 count = 0;
	int result = ranges ? 0 : -ENOMEM;
	char *line;

	while (!result && (line = mt_next_line(&text)))
		result = count < MT_RANGES ? range_parse(line, &ranges[count++]) : -EINVAL;
	if (!result) {
		memcpy(log->script, ranges, MT_RANGES * sizeof(*ranges));
		log->script_count = count;
		if (log->on)
			mt_log_write(log);
	}
	kfree(ranges);
	return result;
}

static ssize_t dirty_pages_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	struct migtest *mt = to_migtest(dev);
	u32 i;
	int at = 0;

	for (i = 0; i < mt->log.script_count; i++)
		at += sysfs_emit_at(text, at, "%#llx %#llx\n", mt->log.script[i].iova,
				    mt->log.script[i].length);
	return at;
}

static ssize_t dirty_pages_store(struct device *dev, struct device_attribute *attribute,
				 const char *text, size_t count)
{
	return lines_store(dev, text, count, dirty_pages_parse);
}
static DEVICE_ATTR_RW(dirty_pages);

#define FILE_OF(name) (&knob_##name.attribute.attr)

static struct attribute *knob_files[] = {
	&dev_attr_flags.attr,
	&dev_attr_size.attr,
	&dev_attr_seed.attr,
	FILE_OF(whole),
	FILE_OF(initial),
	FILE_OF(dirty_rate),
	FILE_OF(dirty_per_read),
	FILE_OF(reinit_after),
	&dev_attr_arc_delay.attr,
	FILE_OF(delay_per_mib),
	FILE_OF(ignore_nonblock),
	FILE_OF(short),
	FILE_OF(eintr),
	&dev_attr_data_size.attr,
	&dev_attr_fault.attr,
	&dev_attr_dirty_pages.attr,
	FILE_OF(log_page_size),
	FILE_OF(reset_on_open),
	NULL,
};

/* A violation that can be switched on. */
struct violation {
	struct device_attribute attribute;
	enum mt_violation number;
};

static ssize_t violation_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	struct violation *violation = container_of(attribute, struct violation, attribute);

	return sysfs_emit(text, "%d\n", mt_violates(to_migtest(dev), violation->number));
}

static ssize_t violation_store(struct device *dev, struct device_attribute *attribute,
			       const char *text, size_t count)
{
	struct violation *violation = container_of(attribute, struct violation, attribute);
	struct migtest *mt = to_migtest(dev);
	u8 is_on;

	if (kstrtou8(text, 10, &is_on) || is_on > 1)
		return -EINVAL;
	mutex_lock(&mt->lock);
	assign_bit(violation->number, mt->violations, is_on);
	mutex_unlock(&mt->lock);
	return count;
}

#define VIOLATION(name) \
	static struct violation violation_##name = { \
		.attribute = __ATTR(name, 0644, violation_show, violation_store), \
		.number = MT_V_##name, \
	};
MT_VIOLATIONS(VIOLATION)

#define VIOLATION_FILE(name) &violation_##name.attribute.attr,

static struct attribute *violation_files[] = { MT_VIOLATIONS(VIOLATION_FILE) NULL };

static const char *const state_names[MT_STATES] = {
	"ERROR", "STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P",
};

/* What can be seen while a SET is under way does not wait for it. */
static ssize_t state_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	return sysfs_emit(text, "%s\n", state_names[READ_ONCE(to_migtest(dev)->state)]);
}
static DEVICE_ATTR_RO(state);

static ssize_t sessions_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	return sysfs_emit(text, "%d\n", atomic_read(&to_migtest(dev)->data_fds));
}
static DEVICE_ATTR_RO(sessions);

static ssize_t calls_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	return mt_calls_show(to_migtest(dev), text);
}

static ssize_t calls_store(struct device *dev, struct device_attribute *attribute, const char *text,
			   size_t count)
{
	struct migtest *mt = to_migtest(dev);

	mutex_lock(&mt->lock);
	memset(mt->calls, 0, sizeof(mt->calls));
	mutex_unlock(&mt->lock);
	return count;
}
static DEVICE_ATTR_RW(calls);

static ssize_t checksum_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	struct migtest *mt = to_migtest(dev);
	u64 checksum;

	mutex_lock(&mt->lock);
	checksum = mt_content_checksum(mt);
	mutex_unlock(&mt->lock);
	return sysfs_emit(text, "%016llx\n", checksum);
}
static DEVICE_ATTR_RO(checksum);

static ssize_t flr_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	return sysfs_emit(text, "%llu\n", to_migtest(dev)->flrs);
}

/* What a guest does, for those who do not have the device open. */
static ssize_t flr_store(struct device *dev, struct device_attribute *attribute, const char *text,
			 size_t count)
{
	struct migtest *mt = to_migtest(dev);

	mutex_lock(&mt->lock);
	mt_flr(mt);
	mutex_unlock(&mt->lock);
	return count;
}
static DEVICE_ATTR_RW(flr);

static struct attribute *observed_files[] = {
	&dev_attr_flr.attr,
	&dev_attr_state.attr,
	&dev_attr_calls.attr,
	&dev_attr_checksum.attr,
	&dev_attr_sessions.attr,
	NULL,
};

static const struct attribute_group knobs_group = { .name = "knobs", .attrs = knob_files };
static const struct attribute_group violations_group = { .name = "violations", .attrs = violation_files };
static const struct attribute_group observed_group = { .name = "observed", .attrs = observed_files };

const struct attribute_group *mt_groups[] = { &knobs_group, &violations_group, &observed_group, NULL };
