// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a session that saves gives: a head, pages, an end.
 *
 * In pre-copy come the head, the initial pages in their order, and then those that were changed
 * since they were given. In STOP_COPY comes whatever the stream does not hold yet as it is now, in
 * its order, and the end.
 *
 * All functions are called with the device's lock held, and those that give for sessions that have
 * not ended.
 *
 * Deliberately absent: waiting. A session that has nothing yet says EAGAIN.
 */
#include <linux/bitmap.h>
#include <linux/ktime.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/xxhash.h>

#include "migtest.h"

#define MT_CHUNK (sizeof(struct mt_record) + MT_PAGE_SIZE)
#define MT_SMALL_READ 64
/* VFIO_PRECOPY_INFO_REINIT, which the kernel's header has from 7.1 on. */
#define MT_REINIT 1

static bool in_pre_copy(const struct mt_session *session)
{
	return session->mode == MT_PRE_COPY || session->mode == MT_PRE_COPY_P2P;
}

static void mark_all(struct mt_session *session)
{
	struct mt_saving *saving = &session->saving;

	saving->todo_pages = mt_pages(session->mt);
	saving->todo_bytes = session->mt->size;
	saving->todo_from = 0;
	bitmap_fill(saving->todo, saving->todo_pages);
}

static void clear_all(struct mt_session *session)
{
	bitmap_zero(session->saving.todo, mt_pages(session->mt));
	session->saving.todo_pages = 0;
	session->saving.todo_bytes = 0;
}

/* The pages of [from, to) as records: their bytes in the stream. */
static u64 record_bytes(const struct migtest *mt, u64 from, u64 to)
{
	if (from >= to)
		return 0;
	return (to - from) * sizeof(struct mt_record) + min(to * MT_PAGE_SIZE, mt->size) -
	       from * MT_PAGE_SIZE;
}

static u64 chunk_left(const struct mt_saving *saving)
{
	return saving->length - saving->at;
}

/* What is left of the data that pre-copy began with. */
static u64 initial_left(const struct mt_session *session)
{
	const struct mt_saving *saving = &session->saving;
	u64 left = record_bytes(session->mt, saving->initial_next, saving->initial_pages);

	if (!saving->head_done && !saving->is_bare)
		left += sizeof(struct mt_head);
	return left + (saving->is_initial ? chunk_left(saving) : 0);
}

/* What is left of the data that changed in pre-copy. */
static u64 dirty_left(const struct mt_session *session)
{
	const struct mt_saving *saving = &session->saving;

	return saving->dirty_pages * sizeof(struct mt_record) + saving->dirty_bytes +
	       (saving->is_initial ? 0 : chunk_left(saving));
}

/* What the session would give if the device were stopped now. */
u64 mt_saving_left(const struct mt_session *session)
{
	const struct mt_saving *saving = &session->saving;
	u64 left = chunk_left(saving) + saving->whole_length - saving->whole_at;

	left += saving->todo_pages * sizeof(struct mt_record) + saving->todo_bytes;
	left += saving->head_done ? 0 : sizeof(struct mt_head);
	return left + (saving->end_done ? 0 : sizeof(struct mt_record));
}

static int allocate(struct mt_session *session)
{
	struct mt_saving *saving = &session->saving;
	u64 pages = mt_pages(session->mt);

	saving->chunk = mt_alloc(MT_CHUNK);
	/* One bit and one hash more than needed, so that no content is no case of its own. */
	saving->todo = mt_alloc(BITS_TO_LONGS(pages + 1) * sizeof(long));
	saving->dirty = mt_alloc(BITS_TO_LONGS(pages + 1) * sizeof(long));
	saving->hashes = mt_alloc((pages + 1) * sizeof(__le64));
	if (saving->chunk && saving->todo && saving->dirty && saving->hashes)
		return 0;
	mt_saving_close(saving);
	return -ENOMEM;
}

/* Which pages pre-copy begins with. */
static void begin_pre_copy(struct mt_session *session)
{
	struct migtest *mt = session->mt;
	struct mt_saving *saving = &session->saving;

	saving->initial_next = 0;
	saving->initial_pages = DIV_ROUND_UP_ULL(min(mt->knobs.initial, mt->size), MT_PAGE_SIZE);
	saving->initial_at_first = initial_left(session);
	saving->is_bare = mt->precopied && mt_v(mt, second_precopy_is_empty);
	if (saving->is_bare)
		saving->initial_pages = 0;
}

/* A session that says that all was given already. */
static void leave_out_all(struct mt_session *session)
{
	clear_all(session);
	session->saving.initial_pages = 0;
	session->saving.head_done = true;
	session->saving.end_done = true;
}

int mt_saving_open(struct mt_session *session)
{
	struct migtest *mt = session->mt;
	struct mt_saving *saving = &session->saving;
	bool is_second = !in_pre_copy(session) && mt->saved;
	int result = allocate(session);

	if (result)
		return result;
	mark_all(session);
	saving->began = ktime_get_ns();
	saving->is_initial = true;
	mt->saves++;
	if (in_pre_copy(session))
		begin_pre_copy(session);
	if (is_second && mt_v(mt, second_save_is_empty))
		leave_out_all(session);
	if (is_second && mt_v(mt, second_save_is_cut))
		saving->end_done = true;
	if (in_pre_copy(session))
		return 0;
	result = mt_saving_stop_copy(session);
	if (result)
		mt_saving_close(saving);
	return result;
}

void mt_saving_close(struct mt_saving *saving)
{
	vfree(saving->chunk);
	vfree(saving->todo);
	vfree(saving->dirty);
	vfree(saving->hashes);
	vfree(saving->whole);
	memset(saving, 0, sizeof(*saving));
}

/* A page's content is another one than before. */
void mt_saving_changed(struct mt_session *session, u64 page)
{
	struct mt_saving *saving = &session->saving;
	bool comes_anyway = page >= saving->initial_next && page < saving->initial_pages;

	if (saving->end_done)
		return;
	if (!__test_and_set_bit(page, saving->todo)) {
		saving->todo_pages++;
		saving->todo_bytes += mt_page_length(session->mt, page);
		saving->todo_from = min(saving->todo_from, page);
	}
	if (in_pre_copy(session) && !comes_anyway && !__test_and_set_bit(page, saving->dirty)) {
		saving->dirty_pages++;
		saving->dirty_bytes += mt_page_length(session->mt, page);
	}
}

/* Takes a page off what is to be given. */
static void done_with(struct mt_session *session, u64 page)
{
	struct mt_saving *saving = &session->saving;
	u32 length = mt_page_length(session->mt, page);

	saving->hashes[page] = mt_page_hash(session->mt, page);
	if (__test_and_clear_bit(page, saving->todo)) {
		saving->todo_pages--;
		saving->todo_bytes -= length;
	}
	if (__test_and_clear_bit(page, saving->dirty)) {
		saving->dirty_pages--;
		saving->dirty_bytes -= length;
	}
}

/* Puts a head or a record with its bytes where they are read from. */
static void stage(struct mt_saving *saving, const void *front, size_t length, const u8 *bytes,
		  size_t more)
{
	memcpy(saving->chunk, front, length);
	if (more)
		memcpy(saving->chunk + length, bytes, more);
	saving->length = length + more;
	saving->at = 0;
}

static void stage_head(struct mt_session *session)
{
	struct migtest *mt = session->mt;
	struct mt_head head = {
		.magic = MT_MAGIC,
		.version = cpu_to_le32(MT_VERSION),
		.saves = cpu_to_le32(mt_v(mt, counts_saves) ? mt->saves : 0),
		.size = cpu_to_le64(mt->size),
	};

	head.check = cpu_to_le64(xxh64(&head, offsetof(struct mt_head, check), 0));
	stage(&session->saving, &head, sizeof(head), NULL, 0);
	session->saving.head_done = true;
}

static void stage_page(struct mt_session *session, u64 page)
{
	struct migtest *mt = session->mt;
	u32 length = mt_page_length(mt, page);
	struct mt_record record = {
		.kind = cpu_to_le32(MT_PAGE),
		.length = cpu_to_le32(length),
		.value = cpu_to_le64(page),
	};

	done_with(session, page);
	stage(&session->saving, &record, sizeof(record), mt->content + page * MT_PAGE_SIZE, length);
}

static void stage_end(struct mt_session *session)
{
	struct mt_saving *saving = &session->saving;
	u64 check = xxh64(saving->hashes, mt_pages(session->mt) * sizeof(__le64), 0);
	struct mt_record record = { .kind = cpu_to_le32(MT_END), .value = cpu_to_le64(check) };

	stage(saving, &record, sizeof(record), NULL, 0);
	saving->end_done = true;
}

/* The next page that pre-copy gives, or none. */
static bool next_in_pre_copy(struct mt_session *session, u64 *page)
{
	struct mt_saving *saving = &session->saving;
	u64 pages = mt_pages(session->mt);

	saving->is_initial = saving->initial_next < saving->initial_pages;
	if (saving->is_initial) {
		*page = saving->initial_next++;
		return true;
	}
	if (!saving->dirty_pages)
		return false;
	*page = find_next_bit(saving->dirty, pages, saving->dirty_from);
	if (*page >= pages)
		*page = find_first_bit(saving->dirty, pages);
	saving->dirty_from = *page + 1;
	return true;
}

/*
 * Begins anew with the initial data, once, when so much was read and the user knows of such a
 * thing.
 */
static void begin_anew(struct mt_session *session)
{
	struct migtest *mt = session->mt;
	struct mt_saving *saving = &session->saving;

	if (!mt->knobs.reinit_after || !mt->knows_v2 || saving->began_anew)
		return;
	if (saving->given < mt->knobs.reinit_after)
		return;
	saving->began_anew = true;
	saving->tells_anew = true;
	mark_all(session);
	bitmap_zero(saving->dirty, mt_pages(mt));
	saving->dirty_pages = 0;
	saving->dirty_bytes = 0;
	begin_pre_copy(session);
}

static bool stage_in_pre_copy(struct mt_session *session)
{
	bool loses = session->mode == MT_PRE_COPY_P2P && mt_v(session->mt, loses_in_p2p);
	u64 page;

	begin_anew(session);
	while (next_in_pre_copy(session, &page)) {
		if (!loses || session->saving.has_lost) {
			stage_page(session, page);
			return true;
		}
		session->saving.has_lost = true;
		done_with(session, page);
	}
	return false;
}

static bool stage_in_stop_copy(struct mt_session *session)
{
	struct mt_saving *saving = &session->saving;
	u64 pages = mt_pages(session->mt);
	u64 page;

	saving->is_initial = false;
	if (saving->todo_pages) {
		page = find_next_bit(saving->todo, pages, saving->todo_from);
		saving->todo_from = page + 1;
		stage_page(session, page);
		return true;
	}
	if (saving->end_done)
		return false;
	stage_end(session);
	return true;
}

/* Whether there is something to be read, which is brought to where it is read from. */
static bool has_data(struct mt_session *session)
{
	struct mt_saving *saving = &session->saving;

	if (chunk_left(saving))
		return true;
	if (saving->is_bare && in_pre_copy(session))
		return false;
	if (!saving->head_done) {
		stage_head(session);
		return true;
	}
	return in_pre_copy(session) ? stage_in_pre_copy(session) : stage_in_stop_copy(session);
}

/* Serialises all that is left at once, for which there is room. */
static void make_whole(struct mt_session *session, u8 *whole)
{
	struct mt_saving *saving = &session->saving;
	u64 at = 0;

	while (has_data(session)) {
		memcpy(whole + at, saving->chunk + saving->at, chunk_left(saving));
		at += chunk_left(saving);
		saving->at = saving->length;
		cond_resched();
	}
	saving->whole = whole;
	saving->whole_length = at;
}

/* Leaves out what pre-copy had for the reader, who did not fetch it. */
static void drop_unread(struct mt_session *session)
{
	struct mt_saving *saving = &session->saving;
	u64 page;

	if (!saving->at)
		saving->length = 0;
	saving->head_done = true;
	while (next_in_pre_copy(session, &page))
		done_with(session, page);
}

/*
 * The device is stopped: from now on the session gives all that is left. Without memory for that
 * at once, the session stays what it was. One that came back to pre-copy has all that already.
 */
int mt_saving_stop_copy(struct mt_session *session)
{
	struct migtest *mt = session->mt;
	u64 left = mt_saving_left(session);
	u8 *whole = NULL;

	if (session->saving.whole) {
		session->mode = MT_STOP_COPY;
		return 0;
	}
	if (mt->knobs.whole)
		whole = mt_alloc(left);
	if (mt->knobs.whole && left && !whole)
		return -ENOMEM;
	if (mt_v(mt, drops_unread) && in_pre_copy(session))
		drop_unread(session);
	session->mode = MT_STOP_COPY;
	session->saving.initial_pages = 0;
	if (whole)
		make_whole(session, whole);
	return 0;
}

/*
 * How many bytes of the chunk, or of all that was serialised, can be read now: all of a chunk or
 * nothing.
 */
static u64 ready(struct mt_session *session)
{
	struct mt_saving *saving = &session->saving;
	u64 left = saving->whole ? saving->whole_length - saving->whole_at : chunk_left(saving);

	left = min_t(u64, left, MT_PAGE_SIZE);
	return saving->given + left <= mt_moved_since(session->mt, saving->began) ? left : 0;
}

/* Gives up to a page to the reader; 0 at the end of data, EAGAIN while they are being made. */
ssize_t mt_saving_give(struct mt_session *session, char __user *buffer, size_t count)
{
	struct mt_saving *saving = &session->saving;
	bool is_small = count < MT_SMALL_READ && mt_v(session->mt, loses_at_small_reads);
	const u8 *from;

	if (in_pre_copy(session) && mt_v(session->mt, precopy_read_fails))
		return -EIO;
	if (saving->whole ? saving->whole_at == saving->whole_length : !has_data(session))
		return 0;
	count = min_t(u64, count, ready(session));
	if (!count)
		return -EAGAIN;
	from = saving->whole ? saving->whole + saving->whole_at : saving->chunk + saving->at;
	if (copy_to_user(buffer, from, count))
		return -EFAULT;
	saving->given += count;
	if (saving->whole)
		saving->whole_at = min(saving->whole_at + count + is_small, saving->whole_length);
	else
		saving->at = min_t(u32, saving->at + count + is_small, saving->length);
	return count;
}

/* What a read answers when nothing is left for it. */
ssize_t mt_saving_at_end(struct mt_session *session)
{
	struct migtest *mt = session->mt;
	struct mt_saving *saving = &session->saving;

	if (session->mode != MT_STOP_COPY)
		return mt_v(mt, zero_in_precopy) ? 0 : -ENOMSG;
	saving->end_reads++;
	if (mt_v(mt, end_stops) && session == mt->session)
		mt->state = VFIO_DEVICE_STATE_STOP;
	if (mt_v(mt, enomsg_in_stop_copy))
		return -ENOMSG;
	return mt_v(mt, end_once) && saving->end_reads > 1 ? -EIO : 0;
}

/* Whether a read would answer at once with data, or in STOP_COPY with their end. */
bool mt_saving_is_readable(struct mt_session *session)
{
	struct migtest *mt = session->mt;
	struct mt_saving *saving = &session->saving;
	bool has = saving->whole ? saving->whole_at < saving->whole_length : has_data(session);

	if (in_pre_copy(session) && (mt_v(mt, always_ready) || mt_v(mt, never_ready)))
		return mt_v(mt, always_ready);
	if (has)
		return ready(session) > 0;
	return session->mode == MT_STOP_COPY && !mt_v(mt, end_not_readable);
}

/* What PRECOPY_INFO answers, out of the caller's own. */
static void describe(struct mt_session *session, struct vfio_precopy_info *info)
{
	struct migtest *mt = session->mt;
	struct mt_saving *saving = &session->saving;
	bool is_there = !session->ended && session->mode != MT_RESUMING;
	u64 initial = is_there ? initial_left(session) : 0;
	u64 dirty = is_there ? dirty_left(session) : 0;

	if (mt_v(mt, initial_stays))
		initial = saving->initial_at_first;
	if (mt_v(mt, initial_is_zero))
		initial = 0;
	if (mt_v(mt, dirty_at_first) && !saving->given)
		dirty += 4096;
	info->flags = saving->tells_anew || mt_v(mt, flags_without_opt_in) ? MT_REINIT : 0;
	saving->tells_anew = false;
	if (initial || !mt_v(mt, stale_info))
		info->initial_bytes = initial;
	if (dirty || !mt_v(mt, stale_info))
		info->dirty_bytes = dirty;
}

/* Whether PRECOPY_INFO may be asked for now. */
static bool may_ask(const struct mt_session *session)
{
	struct migtest *mt = session->mt;

	if (session->mode == MT_RESUMING || mt_v(mt, info_everywhere))
		return true;
	if (session->ended || session->mode == MT_STOP_COPY)
		return false;
	return session->mode == MT_PRE_COPY || !mt_v(mt, no_info_in_p2p);
}

long mt_saving_info(struct mt_session *session, void __user *argument)
{
	struct vfio_precopy_info info = {};
	size_t least = sizeof(info);

	if (!may_ask(session))
		return mt_v(session->mt, info_refused_as_enodev) ? -ENODEV : -EINVAL;
	if (copy_from_user(&info.argsz, argument, sizeof(info.argsz)))
		return -EFAULT;
	if (mt_v(session->mt, short_info_is_taken))
		least = min_t(size_t, info.argsz, least);
	if (info.argsz < least || least < offsetofend(struct vfio_precopy_info, flags))
		return -EINVAL;
	if (info.argsz > least && mt_v(session->mt, refuses_larger_info))
		return -EINVAL;
	if (copy_from_user(&info, argument, least))
		return -EFAULT;
	mt_content_run(session->mt);
	describe(session, &info);
	return copy_to_user(argument, &info, least) ? -EFAULT : 0;
}
