// SPDX-License-Identifier: GPL-2.0-only
/*
 * The log of the device's writes to memory. What it "wrote" stands in a script, so that a report
 * can be compared.
 *
 * A report needs the code of iommufd. A kernel without it never asks the driver for one, so that
 * the device has no log there: it would break its promise.
 *
 * Deliberately absent: DMA. The device never touches memory.
 */
#include <linux/interval_tree.h>
#include <linux/iova_bitmap.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/version.h>

#include "migtest.h"

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
MODULE_IMPORT_NS(IOMMUFD);
#else
MODULE_IMPORT_NS("IOMMUFD");
#endif

/* What the device answers where no knob says so: pages that it tells apart. */
static int start(struct migtest *mt, struct rb_root_cached *ranges, u32 count, u64 *page_size)
{
	struct mt_log *log = &mt->log;
	struct rb_node *node;
	u32 at = 0;

	if (mt_v(mt, start_is_refused))
		return -EIO;
	if (log->on && !mt_v(mt, second_start))
		return -EBUSY;
	if (!log->on && log->was_on && mt_v(mt, start_once))
		return -EBUSY;
	mt_log_end(log);
	log->logged = kmalloc_array(count, sizeof(*log->logged), GFP_KERNEL_ACCOUNT);
	if (!log->logged)
		return -ENOMEM;
	for (node = rb_first_cached(ranges); node && at < count; node = rb_next(node)) {
		struct interval_tree_node *range = rb_entry(node, struct interval_tree_node, rb);

		log->logged[at].iova = range->start;
		log->logged[at++].length = range->last - range->start + 1;
	}
	log->logged_count = at;
	log->on = true;
	log->was_on = true;
	mt_log_write(log);
	if (mt->knobs.log_page_size)
		*page_size = mt->knobs.log_page_size;
	return 0;
}

static int log_start(struct vfio_device *vdev, struct rb_root_cached *ranges, u32 count,
		     u64 *page_size)
{
	struct migtest *mt = container_of(vdev, struct migtest, vdev);
	int result;

	mutex_lock(&mt->lock);
	result = mt_enter(mt, MT_START, NULL);
	if (!result)
		result = start(mt, ranges, count, page_size);
	mutex_unlock(&mt->lock);
	return result;
}

/* Ends the log, if it is on; what was not told is forgotten. */
void mt_log_end(struct mt_log *log)
{
	kfree(log->logged);
	log->logged = NULL;
	log->logged_count = 0;
	log->pending_count = 0;
	log->on = false;
}

static int log_stop(struct vfio_device *vdev)
{
	struct migtest *mt = container_of(vdev, struct migtest, vdev);
	int result;

	mutex_lock(&mt->lock);
	result = mt_enter(mt, MT_STOP, NULL);
	if (!result) {
		result = mt_v(mt, stop_is_refused) ? -EIO : 0;
		mt_log_end(&mt->log);
	}
	mutex_unlock(&mt->lock);
	return result;
}

/* The device writes what is in its script. */
void mt_log_write(struct mt_log *log)
{
	memcpy(log->pending, log->script, sizeof(log->script));
	log->pending_count = log->script_count;
}

/*
 * What two ranges have in common; its length is 0 where that is nothing. Ends of ranges have a
 * number here.
 */
static struct mt_range common(struct mt_range one, struct mt_range other)
{
	u64 from = max(one.iova, other.iova);
	u64 last = min(one.iova + one.length - 1, other.iova + other.length - 1);

	return (struct mt_range){ .iova = from, .length = last >= from ? last - from + 1 : 0 };
}

/*
 * Takes a part of a pending range out. The range becomes what is before the part, a new one what is
 * behind it. Without room for the new one the range stays whole: a page may be told twice, but none
 * never.
 */
static void take_out(struct mt_log *log, u32 at, struct mt_range part)
{
	struct mt_range *range = &log->pending[at];
	struct mt_range behind = { .iova = part.iova + part.length };
	u64 before = part.iova - range->iova;

	behind.length = range->iova + range->length - behind.iova;
	if (!before) {
		*range = behind;
		return;
	}
	if (behind.length && log->pending_count == MT_RANGES)
		return;
	range->length = before;
	if (behind.length)
		log->pending[log->pending_count++] = behind;
}

/* Tells of one pending range what is logged and asked for. */
static void tell(struct migtest *mt, u32 at, struct mt_range asked, struct iova_bitmap *dirty)
{
	struct mt_log *log = &mt->log;
	struct mt_range part;
	u32 i;

	for (i = 0; i < log->logged_count && log->pending[at].length; i++) {
		part = common(asked, log->logged[i]);
		if (!part.length)
			continue;
		part = common(part, log->pending[at]);
		if (!part.length)
			continue;
		iova_bitmap_set(dirty, part.iova, part.length);
		if (!mt_v(mt, report_keeps))
			take_out(log, at, part);
	}
}

static int report(struct migtest *mt, struct mt_range asked, struct iova_bitmap *dirty)
{
	struct mt_log *log = &mt->log;
	u32 at;

	if (mt_v(mt, report_is_refused))
		return -EIO;
	if (!log->on && log->was_on)
		return mt_v(mt, report_after_stop) ? 0 : -EINVAL;
	if (!log->on)
		return mt_v(mt, report_without_start) ? 0 : -EINVAL;
	for (at = 0; at < log->pending_count && asked.length; at++)
		if (log->pending[at].length)
			tell(mt, at, asked, dirty);
	return 0;
}

static int log_read_and_clear(struct vfio_device *vdev, unsigned long iova, unsigned long length,
			      struct iova_bitmap *dirty)
{
	struct migtest *mt = container_of(vdev, struct migtest, vdev);
	struct mt_range asked = { .iova = iova, .length = length };
	int result;

	mutex_lock(&mt->lock);
	result = mt_enter(mt, MT_REPORT, NULL);
	if (!result)
		result = report(mt, asked, dirty);
	mutex_unlock(&mt->lock);
	return result;
}

const struct vfio_log_ops mt_log_ops = {
	.log_start = log_start,
	.log_stop = log_stop,
	.log_read_and_clear = log_read_and_clear,
};
