// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a session that loads takes: it is checked as it comes, and as a whole in the end.
 *
 * Pages go into the content at once. What was there before is lost, and after a refusal the content
 * is neither the old one nor the new one: only a reset helps, which clears it.
 *
 * All functions are called with the device's lock held, and those that take for sessions that have
 * not ended.
 *
 * Deliberately absent: a guess of what was meant. Damage is refused, never mended.
 */
#include <linux/bitmap.h>
#include <linux/ktime.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/xxhash.h>

#include "migtest.h"

#define MT_SMALL_WRITE 64

int mt_resuming_open(struct mt_session *session)
{
	struct migtest *mt = session->mt;
	struct mt_resuming *resuming = &session->resuming;
	u64 pages = mt_pages(mt);

	/* One bit and one hash more than needed, so that no content is no case of its own. */
	resuming->missing = mt_alloc(BITS_TO_LONGS(pages + 1) * sizeof(long));
	resuming->hashes = mt_alloc((pages + 1) * sizeof(__le64));
	resuming->piece = mt_alloc(MT_PAGE_SIZE);
	if (!resuming->missing || !resuming->hashes || !resuming->piece) {
		mt_resuming_close(resuming);
		return -ENOMEM;
	}
	bitmap_fill(resuming->missing, pages);
	resuming->missing_pages = pages;
	resuming->began = ktime_get_ns();
	resuming->is_stuck = mt->stuck;
	resuming->refused = mt->stuck ? -EIO : 0;
	mt->stuck = false;
	return 0;
}

void mt_resuming_close(struct mt_resuming *resuming)
{
	vfree(resuming->missing);
	vfree(resuming->hashes);
	vfree(resuming->piece);
	memset(resuming, 0, sizeof(*resuming));
}

static int take_head(struct mt_session *session)
{
	struct migtest *mt = session->mt;
	struct mt_head right = { .magic = MT_MAGIC, .version = cpu_to_le32(MT_VERSION) };
	struct mt_head head;

	memcpy(&head, session->resuming.front, sizeof(head));
	session->resuming.has_head = true;
	if (mt_v(mt, takes_damaged_head))
		memcpy(&head, &right, offsetof(struct mt_head, size));
	if (memcmp(head.magic, right.magic, sizeof(head.magic)))
		return -EINVAL;
	if (le64_to_cpu(head.check) != xxh64(&head, offsetof(struct mt_head, check), 0))
		return -EBADMSG;
	if (head.version != right.version || le64_to_cpu(head.size) != mt->size)
		return -EINVAL;
	return 0;
}

static int take_end(struct mt_session *session, u64 check)
{
	struct migtest *mt = session->mt;
	struct mt_resuming *resuming = &session->resuming;

	if (resuming->missing_pages)
		return -EINVAL;
	resuming->has_end = true;
	if (mt_v(mt, takes_damaged_content))
		return 0;
	return check == xxh64(resuming->hashes, mt_pages(mt) * sizeof(__le64), 0) ? 0 : -EBADMSG;
}

static int take_record(struct mt_session *session)
{
	struct mt_resuming *resuming = &session->resuming;
	struct mt_record record;
	u64 value;
	u32 length;

	memcpy(&record, resuming->front, sizeof(record));
	value = le64_to_cpu(record.value);
	length = le32_to_cpu(record.length);
	if (le32_to_cpu(record.kind) == MT_END)
		return length ? -EINVAL : take_end(session, value);
	if (le32_to_cpu(record.kind) != MT_PAGE || value >= mt_pages(session->mt) ||
	    length != mt_page_length(session->mt, value))
		return -EINVAL;
	resuming->in_page = true;
	resuming->page = value;
	resuming->page_at = 0;
	return 0;
}

/* Takes a part of a head or of a record; returns its length, or why the whole is refused. */
static ssize_t take_front(struct mt_session *session, const u8 *bytes, size_t count)
{
	struct mt_resuming *resuming = &session->resuming;
	u32 wanted = resuming->has_head ? sizeof(struct mt_record) : sizeof(struct mt_head);
	int result;

	count = min_t(size_t, count, wanted - resuming->front_length);
	memcpy(resuming->front + resuming->front_length, bytes, count);
	resuming->front_length += count;
	if (resuming->front_length < wanted)
		return count;
	resuming->front_length = 0;
	result = resuming->has_head ? take_record(session) : take_head(session);
	return result ? result : count;
}

/* Takes a part of a page. */
static ssize_t take_page(struct mt_session *session, const u8 *bytes, size_t count)
{
	struct migtest *mt = session->mt;
	struct mt_resuming *resuming = &session->resuming;
	u32 length = mt_page_length(mt, resuming->page);

	count = min_t(size_t, count, length - resuming->page_at);
	memcpy(mt->content + resuming->page * MT_PAGE_SIZE + resuming->page_at, bytes, count);
	resuming->page_at += count;
	if (resuming->page_at < length)
		return count;
	resuming->in_page = false;
	resuming->hashes[resuming->page] = mt_page_hash(mt, resuming->page);
	if (__test_and_clear_bit(resuming->page, resuming->missing))
		resuming->missing_pages--;
	return count;
}

static ssize_t take(struct mt_session *session, const u8 *bytes, size_t count)
{
	struct mt_resuming *resuming = &session->resuming;

	if (resuming->has_end)
		return mt_v(session->mt, takes_oversized) ? count : -EINVAL;
	return resuming->in_page ? take_page(session, bytes, count) : take_front(session, bytes, count);
}

/* Whether a write would have an answer at once: the device is done with all that it has taken. */
bool mt_resuming_is_writable(const struct mt_session *session)
{
	const struct mt_resuming *resuming = &session->resuming;

	return resuming->refused || resuming->taken <= mt_moved_since(session->mt, resuming->began);
}

/*
 * Takes up to a page; EAGAIN while the device is busy with what it has. After a refusal everything
 * is refused.
 */
ssize_t mt_resuming_take(struct mt_session *session, const char __user *buffer, size_t count)
{
	struct mt_resuming *resuming = &session->resuming;
	ssize_t taken;
	size_t at;

	if (count < MT_SMALL_WRITE && mt_v(session->mt, needs_large_writes))
		resuming->refused = -EINVAL;
	if (resuming->refused)
		return resuming->refused;
	if (!mt_resuming_is_writable(session))
		return -EAGAIN;
	count = min_t(size_t, count, MT_PAGE_SIZE);
	if (copy_from_user(resuming->piece, buffer, count)) {
		resuming->refused = -EFAULT;
		return -EFAULT;
	}
	for (at = 0; at < count; at += taken) {
		taken = take(session, resuming->piece + at, count - at);
		if (taken < 0) {
			resuming->refused = taken;
			return taken;
		}
	}
	resuming->taken += count;
	return count;
}

/* Whether what has come is a state; errors of write() come again. */
static int verdict(struct mt_session *session)
{
	struct migtest *mt = session->mt;
	struct mt_resuming *resuming = &session->resuming;

	if (resuming->refused)
		return mt_v(mt, forgets_refusal) ? 0 : resuming->refused;
	if (resuming->has_end)
		return 0;
	if (resuming->taken)
		return mt_v(mt, takes_cut) ? 0 : -EINVAL;
	return mt_v(mt, takes_empty) ? 0 : -EINVAL;
}

/* The load is over: says whether the device has a new state. What is refused stays refused. */
int mt_resuming_finish(struct mt_session *session)
{
	struct migtest *mt = session->mt;
	int result = verdict(session);

	session->resuming.refused = result;
	if (!result && mt_v(mt, load_changes_a_byte) && mt->size)
		mt->content[0]++;
	return result;
}
