// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device's content: bytes out of a seed, which the running device may change by itself.
 *
 * All functions are called with the device's lock held.
 *
 * Deliberately absent: who reads it. Regions are in main.c, sessions in saving.c and resuming.c.
 */
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/sched.h>
#include <linux/unaligned.h>
#include <linux/vmalloc.h>
#include <linux/xxhash.h>

#include "migtest.h"

/*
 * Memory of any size, zeroed; a refusal is an answer here and not worth a warning. NULL for 0 bytes
 * too.
 */
void *mt_alloc(u64 bytes)
{
	const gfp_t flags = GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN | __GFP_RETRY_MAYFAIL;

	return bytes ? __vmalloc(bytes, flags) : NULL;
}

u64 mt_pages(const struct migtest *mt)
{
	return DIV_ROUND_UP_ULL(mt->size, MT_PAGE_SIZE);
}

/* Bytes of a page: all pages are whole but the last one. */
u32 mt_page_length(const struct migtest *mt, u64 page)
{
	return min_t(u64, MT_PAGE_SIZE, mt->size - page * MT_PAGE_SIZE);
}

/* Bytes of the serialised state when each page is in it once. */
u64 mt_state_size(const struct migtest *mt)
{
	return sizeof(struct mt_head) + (mt_pages(mt) + 1) * sizeof(struct mt_record) + mt->size;
}

int mt_content_resize(struct migtest *mt, u64 size)
{
	u8 *content = mt_alloc(size);

	if (size && !content)
		return -ENOMEM;
	vfree(mt->content);
	mt->content = content;
	mt->size = size;
	mt->dirty_at = 0;
	mt_content_fill(mt, mt->seed);
	return 0;
}

void mt_content_free(struct migtest *mt)
{
	vfree(mt->content);
	mt->content = NULL;
	mt->size = 0;
}

/* A number that depends on every bit of `value` (the finalizer of splitmix64). */
static u64 mixed(u64 value)
{
	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
	value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
	return value ^ (value >> 31);
}

/* Fills the content: each word comes from the seed and its own number. */
void mt_content_fill(struct migtest *mt, u64 seed)
{
	u64 at, word;

	mt->seed = seed;
	for (at = 0; at < mt->size; at += sizeof(word)) {
		word = mixed(seed + (at / sizeof(word) + 1) * 0x9e3779b97f4a7c15ULL);
		if (mt->size - at >= sizeof(word))
			put_unaligned_le64(word, mt->content + at);
		else
			memcpy(mt->content + at, (__le64[]){ cpu_to_le64(word) }, mt->size - at);
		if (at % (1 << 20) == 0)
			cond_resched();
	}
	mt_content_changed(mt, 0, mt->size);
}

void mt_content_clear(struct migtest *mt)
{
	u64 at, length;

	for (at = 0; at < mt->size; at += length) {
		length = min_t(u64, mt->size - at, 1 << 20);
		memset(mt->content + at, 0, length);
		cond_resched();
	}
	mt_content_changed(mt, 0, mt->size);
}

__le64 mt_page_hash(const struct migtest *mt, u64 page)
{
	return cpu_to_le64(xxh64(mt->content + page * MT_PAGE_SIZE, mt_page_length(mt, page), 0));
}

/* The content's checksum: that of its pages' checksums. */
u64 mt_content_checksum(struct migtest *mt)
{
	struct xxh64_state state;
	__le64 hash;
	u64 page;

	xxh64_reset(&state, 0);
	for (page = 0; page < mt_pages(mt); page++) {
		hash = mt_page_hash(mt, page);
		xxh64_update(&state, &hash, sizeof(hash));
		if (page % 256 == 0)
			cond_resched();
	}
	return xxh64_digest(&state);
}

/* Tells a session that saves which pages it has to give again, and whoever waits for its data. */
void mt_content_changed(struct migtest *mt, u64 at, u64 bytes)
{
	struct mt_session *session = mt->session;
	u64 page;

	if (!bytes || !session || session->ended || session->mode == MT_RESUMING)
		return;
	for (page = at / MT_PAGE_SIZE; page <= (at + bytes - 1) / MT_PAGE_SIZE; page++)
		mt_saving_changed(session, page);
	mt_wake(mt);
}

/* Gives each word and each byte in a place another value: these steps have no fixed point. */
static void change(u8 *bytes, u64 length)
{
	u64 at = 0, word;

	for (; at + 8 <= length; at += 8) {
		word = get_unaligned_le64(bytes + at);
		put_unaligned_le64(word * 5 + 0x9e3779b97f4a7c15ULL, bytes + at);
	}
	for (; at < length; at++)
		bytes[at] = bytes[at] * 5 + 1;
}

/*
 * The device's own work: changes so many bytes behind those that it changed last, from the end on
 * to the start.
 */
void mt_content_change(struct migtest *mt, u64 bytes)
{
	u64 length;

	for (bytes = min(bytes, mt->size); bytes; bytes -= length) {
		length = min3(bytes, mt->size - mt->dirty_at, 1ULL << 20);
		change(mt->content + mt->dirty_at, length);
		mt_content_changed(mt, mt->dirty_at, length);
		mt->dirty_at = (mt->dirty_at + length) % mt->size;
		cond_resched();
	}
}

/* The device's work counts from now on. */
void mt_content_run_from_now(struct migtest *mt)
{
	mt->dirty_since = ktime_get_ns();
	mt->dirty_done = 0;
}

/*
 * Lets the device do what it would have done by now. It works at its rate while it is in PRE_COPY.
 */
void mt_content_run(struct migtest *mt)
{
	u64 due;

	if (mt->state != VFIO_DEVICE_STATE_PRE_COPY || !mt->knobs.dirty_rate)
		return;
	due = mul_u64_u64_div_u64(ktime_get_ns() - mt->dirty_since, mt->knobs.dirty_rate, NSEC_PER_SEC);
	mt_content_change(mt, due - mt->dirty_done);
	mt->dirty_done = due;
}
