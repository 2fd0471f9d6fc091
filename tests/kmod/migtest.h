/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of this module share: the device, its data sessions and the functions between the
 * files.
 *
 * Deliberately absent: hardware. The device is its content, bytes in the kernel's memory.
 */
#ifndef MIGTEST_H
#define MIGTEST_H

#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "violations.h"

enum mt_violation {
#define MT_ENUM(name) MT_V_##name,
	MT_VIOLATIONS(MT_ENUM)
#undef MT_ENUM
	MT_V_COUNT
};

/* What can be counted and made to fail. */
enum mt_op {
	MT_SET, MT_GET, MT_READ, MT_WRITE, MT_INFO, MT_SIZE, MT_RESET, MT_START, MT_STOP, MT_REPORT,
	MT_OPS
};

/* Where a SET that is made to fail leaves the device. */
enum mt_end { MT_END_OLD, MT_END_MIDWAY, MT_END_ERROR };

struct mt_fault {
	enum mt_op op;
	u64 nth;	/* counted from when it was written; 0: every call */
	int errno_;	/* 0: the call goes on, behind a guest's reset */
	enum mt_end end;
};

/* Numbers that need no work when they change; knobs.c says what each means. */
struct mt_knobs {
	u64 whole;
	u64 initial;
	u64 dirty_rate;
	u64 dirty_per_read;
	u64 reinit_after;
	u64 delay_per_mib;
	u64 ignore_nonblock;
	u64 short_transfers;
	u64 eintr;
	u64 log_page_size;
	u64 reset_on_open;
	bool data_size_is_wrong;
	u64 data_size;
};

#define MT_STATES VFIO_DEVICE_STATE_NR
#define MT_FAULTS 8
#define MT_RANGES 512

struct mt_range {
	u64 iova;
	u64 length;
};

/* The log of the device's writes to memory. */
struct mt_log {
	bool on;
	bool was_on;		/* since the device was opened or reset */
	struct mt_range *logged;
	u32 logged_count;
	struct mt_range script[MT_RANGES];
	u32 script_count;
	struct mt_range pending[MT_RANGES];
	u32 pending_count;
};

#define MT_VECTORS 4

/* What a device has that is a PCI function. */
struct mt_pci {
	u32 config_size;	/* 0: it is none */
	u8 config[PCI_CFG_SPACE_EXP_SIZE];
	struct eventfd_ctx *vectors[MT_VECTORS];
};

struct mt_session;

struct migtest {
	struct vfio_device vdev;
	struct mutex lock;	/* all below, except where it says something else */
	wait_queue_head_t wait;
	u64 turn;		/* goes up with each wake-up of `wait` */
	struct delayed_work tick;
	unsigned int opens;

	u32 state;
	struct vfio_device asked;	/* the kernel's table looks at nothing of it but the flags */
	struct mt_session *session;	/* the current one */
	struct list_head live;		/* all that have not ended */
	atomic_t data_fds;
	bool knows_v2;

	u8 *content;
	u64 size;
	u64 seed;
	u64 flrs;
	u64 dirty_at;		/* where the device changes its content next */
	u64 dirty_since;	/* ns */
	u64 dirty_done;		/* bytes since then */

	struct mt_log log;
	struct mt_pci pci;
	struct mt_knobs knobs;
	u32 arc_delay[MT_STATES][MT_STATES];	/* ms */
	struct mt_fault faults[MT_FAULTS];
	u32 fault_count;
	u64 fault_calls[MT_OPS];
	u64 calls[MT_OPS];
	u64 transfers;
	DECLARE_BITMAP(violations, MT_V_COUNT);

	/* What violations remember. */
	u64 saves;
	bool saved;		/* a session began in STOP, and the device is as it was then */
	bool precopied;
	bool broken;
	bool stuck;		/* the next load is refused */
	bool keeps_replaced;	/* a session that ends goes on */
};

/*
 * The serialised state: a head, a record for each page, again for a page that was changed, and a
 * record for the end. All numbers are little-endian.
 */
struct mt_head {
	u8 magic[8];
	__le32 version;
	__le32 saves;		/* 0, unless counts_saves */
	__le64 size;
	__le64 check;		/* of what stands before it */
};

struct mt_record {
	__le32 kind;
	__le32 length;		/* of the bytes that follow */
	__le64 value;		/* of a page its number, of the end the content's checksum */
};

#define MT_VERSION 1
#define MT_PAGE 0x45474150	/* "PAGE" */
#define MT_END 0x53444e45	/* "ENDS" */
#define MT_PAGE_SIZE 4096UL
#define MT_MAGIC "MIGTEST"

enum mt_mode { MT_PRE_COPY, MT_PRE_COPY_P2P, MT_STOP_COPY, MT_RESUMING };

struct mt_saving {
	u8 *chunk;		/* a head or a record that is being read */
	u32 length;
	u32 at;
	bool is_initial;	/* what the chunk belongs to */
	bool head_done;
	bool end_done;
	unsigned long *todo;	/* pages that the stream does not hold as they are now */
	u64 todo_pages;
	u64 todo_bytes;
	u64 todo_from;
	unsigned long *dirty;	/* those of them that pre-copy gives after the initial data */
	u64 dirty_pages;
	u64 dirty_bytes;
	u64 dirty_from;
	u64 initial_next;
	u64 initial_pages;
	u64 initial_at_first;
	__le64 *hashes;		/* of the pages in the stream */
	u8 *whole;		/* all that is left, serialised at once */
	u64 whole_length;
	u64 whole_at;
	u64 began;		/* ns */
	u64 given;
	u64 end_reads;
	bool began_anew;
	bool tells_anew;
	bool is_bare;		/* gives nothing in pre-copy */
	bool has_lost;
};

struct mt_resuming {
	u8 front[32];		/* a head or a record, as far as it came */
	u32 front_length;
	bool has_head;
	bool in_page;
	bool has_end;
	u64 page;
	u32 page_at;
	unsigned long *missing;
	u64 missing_pages;
	__le64 *hashes;
	u8 *piece;
	u64 began;		/* ns */
	u64 taken;
	int refused;
	bool is_stuck;
};

struct mt_session {
	struct kref ref;
	struct migtest *mt;
	struct list_head link;
	enum mt_mode mode;
	bool ended;
	u32 fds;
	struct mt_saving saving;
	struct mt_resuming resuming;
};

/* main.c */
extern const struct vfio_device_ops mt_device_ops;

/* content.c */
int mt_content_resize(struct migtest *mt, u64 size);
void mt_content_free(struct migtest *mt);
void mt_content_fill(struct migtest *mt, u64 seed);
void mt_content_clear(struct migtest *mt);
void mt_content_change(struct migtest *mt, u64 bytes);
void mt_content_changed(struct migtest *mt, u64 at, u64 bytes);
void mt_content_run(struct migtest *mt);
void mt_content_run_from_now(struct migtest *mt);
u64 mt_content_checksum(struct migtest *mt);
__le64 mt_page_hash(const struct migtest *mt, u64 page);
u32 mt_page_length(const struct migtest *mt, u64 page);
u64 mt_pages(const struct migtest *mt);
u64 mt_state_size(const struct migtest *mt);
void *mt_alloc(u64 bytes);

/* session.c */
struct mt_session *mt_session_open(struct migtest *mt, enum mt_mode mode);
void mt_session_end(struct migtest *mt);
void mt_sessions_end(struct migtest *mt);
struct file *mt_session_file(struct mt_session *session);
struct file *mt_session_ended_file(struct migtest *mt);
struct file *mt_session_reopen(struct migtest *mt);
void mt_wake(struct migtest *mt);
u64 mt_moved_since(const struct migtest *mt, u64 began);
void mt_tick_soon(struct migtest *mt);
void mt_tick(struct work_struct *work);

/* saving.c */
int mt_saving_open(struct mt_session *session);
void mt_saving_close(struct mt_saving *saving);
int mt_saving_stop_copy(struct mt_session *session);
void mt_saving_changed(struct mt_session *session, u64 page);
ssize_t mt_saving_give(struct mt_session *session, char __user *buffer, size_t count);
ssize_t mt_saving_at_end(struct mt_session *session);
bool mt_saving_is_readable(struct mt_session *session);
u64 mt_saving_left(const struct mt_session *session);
long mt_saving_info(struct mt_session *session, void __user *argument);

/* resuming.c */
int mt_resuming_open(struct mt_session *session);
void mt_resuming_close(struct mt_resuming *resuming);
ssize_t mt_resuming_take(struct mt_session *session, const char __user *buffer, size_t count);
bool mt_resuming_is_writable(const struct mt_session *session);
int mt_resuming_finish(struct mt_session *session);

/* state.c */
extern const struct vfio_migration_ops mt_migration_ops;
int mt_feature(struct vfio_device *vdev, u32 flags, void __user *argument, size_t size);
int mt_reset_ioctl(struct migtest *mt);
void mt_reset(struct migtest *mt);
void mt_flr(struct migtest *mt);

/* pci.c */
void mt_pci_init(struct migtest *mt, u32 config_size);
void mt_pci_reset(struct migtest *mt);
u64 mt_pci_region_size(const struct migtest *mt, u32 index);
ssize_t mt_pci_region(struct migtest *mt, char __user *out, const char __user *in, size_t count,
		      u32 index, u64 at);
long mt_pci_irq_info(void __user *argument);
long mt_pci_set_irqs(struct migtest *mt, void __user *argument);
void mt_pci_raise(struct migtest *mt, u64 vector);
void mt_pci_disarm(struct migtest *mt);

/* logging.c */
extern const struct vfio_log_ops mt_log_ops;
void mt_log_end(struct mt_log *log);
void mt_log_write(struct mt_log *log);

/* faults.c */
int mt_enter(struct migtest *mt, enum mt_op op, enum mt_end *end);
int mt_faults_parse(struct migtest *mt, char *text);
int mt_faults_show(const struct migtest *mt, char *text);
int mt_calls_show(const struct migtest *mt, char *text);

static inline bool mt_is_pci(const struct migtest *mt)
{
	return mt->pci.config_size;
}

/* knobs.c */
char *mt_next_line(char **text);
extern const struct attribute_group *mt_groups[];

static inline bool mt_violates(const struct migtest *mt, enum mt_violation violation)
{
	return test_bit(violation, mt->violations);
}

#define mt_v(mt, name) mt_violates(mt, MT_V_##name)

#endif
