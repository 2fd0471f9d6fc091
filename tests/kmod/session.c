// SPDX-License-Identifier: GPL-2.0-only
/*
 * Data sessions: their files, how long they live, and who waits for them.
 *
 * A session lives as long as a file of it is open, which may be longer than the device is open or
 * there at all. It keeps the device's memory; what it has of its own goes when it ends.
 *
 * Deliberately absent: what flows. That is in saving.c and resuming.c.
 */
#include <linux/anon_inodes.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "migtest.h"

#define MT_TICK_MS 10

static void session_free(struct kref *ref)
{
	struct mt_session *session = container_of(ref, struct mt_session, ref);
	struct migtest *mt = session->mt;

	kfree(session);
	vfio_put_device(&mt->vdev);
}

/* Not with the lock held where it may be the last one: the device may go with it. */
static void session_put(struct mt_session *session)
{
	kref_put(&session->ref, session_free);
}

/* Makes a session that belongs to nobody yet. */
static struct mt_session *session_new(struct migtest *mt, enum mt_mode mode)
{
	struct mt_session *session = kzalloc(sizeof(*session), GFP_KERNEL_ACCOUNT);

	if (!session)
		return NULL;
	kref_init(&session->ref);
	INIT_LIST_HEAD(&session->link);
	session->mt = mt;
	session->mode = mode;
	get_device(&mt->vdev.device);
	return session;
}

/* Opens a session, which becomes the device's own. */
struct mt_session *mt_session_open(struct migtest *mt, enum mt_mode mode)
{
	struct mt_session *session = session_new(mt, mode);
	int result;

	if (!session)
		return ERR_PTR(-ENOMEM);
	result = mode == MT_RESUMING ? mt_resuming_open(session) : mt_saving_open(session);
	if (result) {
		session_put(session);
		return ERR_PTR(result);
	}
	mt_session_end(mt);
	list_add(&session->link, &mt->live);
	mt->session = session;
	mt_tick_soon(mt);
	return session;
}

static void session_end(struct mt_session *session)
{
	session->ended = true;
	list_del_init(&session->link);
	if (session->mode == MT_RESUMING)
		mt_resuming_close(&session->resuming);
	else
		mt_saving_close(&session->saving);
	mt_wake(session->mt);
	session_put(session);
}

/* Ends the device's session, if there is one. */
void mt_session_end(struct migtest *mt)
{
	struct mt_session *session = mt->session;

	mt->session = NULL;
	if (session && !mt->keeps_replaced)
		session_end(session);
}

/* Ends all sessions, also those that a violation kept. */
void mt_sessions_end(struct migtest *mt)
{
	struct mt_session *session, *next;

	mt->session = NULL;
	list_for_each_entry_safe(session, next, &mt->live, link)
		session_end(session);
}

/* Wakes whoever waits for data or for a session's end. */
void mt_wake(struct migtest *mt)
{
	WRITE_ONCE(mt->turn, mt->turn + 1);
	wake_up_interruptible_all(&mt->wait);
}

/* Keeps the device's clock going while something depends on it. */
void mt_tick_soon(struct migtest *mt)
{
	if (!list_empty(&mt->live) && (mt->knobs.dirty_rate || mt->knobs.delay_per_mib))
		schedule_delayed_work(&mt->tick, msecs_to_jiffies(MT_TICK_MS));
}

void mt_tick(struct work_struct *work)
{
	struct migtest *mt = container_of(to_delayed_work(work), struct migtest, tick);

	mutex_lock(&mt->lock);
	mt_content_run(mt);
	mt_wake(mt);
	mt_tick_soon(mt);
	mutex_unlock(&mt->lock);
}

/* How many bytes the device has moved since then, at its rate. */
u64 mt_moved_since(const struct migtest *mt, u64 began)
{
	u64 delay = mt->knobs.delay_per_mib;

	if (!delay)
		return U64_MAX;
	return mul_u64_u64_div_u64(ktime_get_ns() - began, 1 << 20, delay * NSEC_PER_MSEC);
}

/* A transfer may be shorter than what was asked for. */
static size_t shortened(const struct migtest *mt, size_t count)
{
	return mt->knobs.short_transfers ? min_t(u64, count, mt->knobs.short_transfers) : count;
}

/*
 * What every read and write begins with, the lock held. A write that is made to fail for good makes
 * the load a refused one.
 */
static int transfer_begins(struct mt_session *session, enum mt_op op)
{
	struct migtest *mt = session->mt;
	int result = mt_enter(mt, op, NULL);

	if (!result && mt->knobs.eintr && ++mt->transfers % mt->knobs.eintr == 0)
		result = -EINTR;
	if (op == MT_WRITE && result && result != -EINTR && result != -EAGAIN)
		session->resuming.refused = result;
	return result;
}

static int ended_errno(const struct migtest *mt)
{
	return mt_v(mt, ended_is_eio) ? -EIO : -ENODEV;
}

/* Reads up to a page. */
static ssize_t read_piece(struct mt_session *session, char __user *buffer, size_t count,
			  bool is_first)
{
	struct migtest *mt = session->mt;
	ssize_t given;

	if (session->ended)
		return mt_v(mt, ended_read_is_end) ? 0 : ended_errno(mt);
	if (session->mode == MT_RESUMING)
		return 0;
	if (!count)
		return mt_v(mt, empty_read_fails) ? -EINVAL : 0;
	given = mt_saving_give(session, buffer, count);
	return given || !is_first ? given : mt_saving_at_end(session);
}

/* Writes up to a page. */
static ssize_t write_piece(struct mt_session *session, const char __user *buffer, size_t count)
{
	struct migtest *mt = session->mt;

	if (session->ended)
		return mt_v(mt, ended_write_is_taken) ? count : ended_errno(mt);
	if (session->mode != MT_RESUMING || session != mt->session)
		return count;
	if (!count)
		return mt_v(mt, empty_write_fails) ? -EINVAL : 0;
	return mt_resuming_take(session, buffer, count);
}

/* Waits until the device has done something since `turn`. */
static int wait_for_more(struct file *file, struct migtest *mt, u64 turn)
{
	if ((file->f_flags & O_NONBLOCK) && !mt->knobs.ignore_nonblock)
		return -EAGAIN;
	return wait_event_interruptible(mt->wait, READ_ONCE(mt->turn) != turn);
}

/*
 * What a transfer answers. A read that stops behind some data gives these. An error of a write is
 * answered at once, whatever was taken before it: the load is lost then, unless the device is only
 * slow.
 */
static ssize_t transfer_ends(struct mt_session *session, enum mt_op op, size_t done, ssize_t piece)
{
	struct migtest *mt = session->mt;

	if (!done || (op == MT_WRITE && piece < 0 && piece != -EAGAIN))
		return piece;
	if (op == MT_READ && session == mt->session && mt->state == VFIO_DEVICE_STATE_PRE_COPY)
		mt_content_change(mt, mt->knobs.dirty_per_read);
	return done;
}

/*
 * Reads or writes page by page, as the drivers of real devices do: others may have the device in
 * between.
 */
static ssize_t transfer(struct file *file, enum mt_op op, char __user *out, const char __user *in,
			size_t count, loff_t *position)
{
	struct mt_session *session = file->private_data;
	struct migtest *mt = session->mt;
	ssize_t piece;
	size_t done = 0;
	u64 turn;

	if (position && !mt_v(mt, positioned))
		return -ESPIPE;
	if (mutex_lock_interruptible(&mt->lock))
		return -ERESTARTSYS;
	count = shortened(mt, count);
	piece = transfer_begins(session, op);
	while (!piece) {
		piece = op == MT_READ ? read_piece(session, out + done, count - done, !done) :
					write_piece(session, in + done, count - done);
		if (piece == -EAGAIN && !done) {
			turn = mt->turn;
			mutex_unlock(&mt->lock);
			piece = wait_for_more(file, mt, turn);
			mutex_lock(&mt->lock);
			continue;
		}
		if (piece <= 0)
			break;
		done += piece;
		piece = 0;
		if (done == count)
			break;
		mutex_unlock(&mt->lock);
		cond_resched();
		mutex_lock(&mt->lock);
	}
	piece = transfer_ends(session, op, done, piece);
	mutex_unlock(&mt->lock);
	return piece;
}

static ssize_t data_read(struct file *file, char __user *buffer, size_t count, loff_t *position)
{
	return transfer(file, MT_READ, buffer, NULL, count, position);
}

static ssize_t data_write(struct file *file, const char __user *buffer, size_t count,
			  loff_t *position)
{
	return transfer(file, MT_WRITE, NULL, buffer, count, position);
}

static __poll_t data_poll(struct file *file, poll_table *table)
{
	struct mt_session *session = file->private_data;
	struct migtest *mt = session->mt;
	__poll_t events = 0;

	poll_wait(file, &mt->wait, table);
	mutex_lock(&mt->lock);
	if (session->mode == MT_RESUMING)
		events = session->ended || mt_resuming_is_writable(session) ? EPOLLOUT | EPOLLWRNORM : 0;
	else if (session->ended)
		events = EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;
	else if (mt_saving_is_readable(session))
		events = EPOLLIN | EPOLLRDNORM;
	mutex_unlock(&mt->lock);
	return events;
}

static long data_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct mt_session *session = file->private_data;
	struct migtest *mt = session->mt;
	long result;

	mutex_lock(&mt->lock);
	if (command != VFIO_MIG_GET_PRECOPY_INFO)
		result = mt_v(mt, answers_unknown_ioctl) ? 0 : -ENOTTY;
	else if (session->mode == MT_RESUMING && !mt_v(mt, info_on_resuming))
		result = -ENOTTY;
	else
		result = mt_enter(mt, MT_INFO, NULL);
	if (!result && command == VFIO_MIG_GET_PRECOPY_INFO)
		result = mt_saving_info(session, (void __user *)argument);
	mutex_unlock(&mt->lock);
	return result;
}

static int data_release(struct inode *inode, struct file *file)
{
	struct mt_session *session = file->private_data;
	struct migtest *mt = session->mt;

	mutex_lock(&mt->lock);
	if (!--session->fds && session == mt->session && mt_v(mt, close_stops)) {
		mt_session_end(mt);
		mt->state = VFIO_DEVICE_STATE_STOP;
	}
	mutex_unlock(&mt->lock);
	atomic_dec(&mt->data_fds);
	session_put(session);
	return 0;
}

static const struct file_operations data_operations = {
	.owner = THIS_MODULE,
	.read = data_read,
	.write = data_write,
	.poll = data_poll,
	.unlocked_ioctl = data_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
	.release = data_release,
};

/* In which direction a data fd can be used. */
static int direction(const struct mt_session *session)
{
	if (session->mode == MT_RESUMING)
		return mt_v(session->mt, resuming_readable) ? O_RDWR : O_WRONLY;
	return mt_v(session->mt, saving_writable) ? O_RDWR : O_RDONLY;
}

/* Makes a file of a session: a stream, without a position. */
struct file *mt_session_file(struct mt_session *session)
{
	struct migtest *mt = session->mt;
	struct file *file = anon_inode_getfile("[migtest]", &data_operations, session, direction(session));

	if (IS_ERR(file))
		return file;
	stream_open(file_inode(file), file);
	if (mt_v(mt, seekable))
		file->f_mode |= FMODE_LSEEK;
	if (mt_v(mt, positioned))
		file->f_mode |= FMODE_PREAD | FMODE_PWRITE;
	kref_get(&session->ref);
	session->fds++;
	atomic_inc(&mt->data_fds);
	return file;
}

/* Lets the data of the device's session go on in a new one; the old one ends. */
struct file *mt_session_reopen(struct migtest *mt)
{
	struct mt_session *old = mt->session;
	struct mt_session *session = session_new(mt, old->mode);

	if (!session)
		return ERR_PTR(-ENOMEM);
	session->saving = old->saving;
	memset(&old->saving, 0, sizeof(old->saving));
	session_end(old);
	list_add(&session->link, &mt->live);
	mt->session = session;
	return mt_session_file(session);
}

/* Makes a file of a session that has ended. */
struct file *mt_session_ended_file(struct migtest *mt)
{
	struct mt_session *session = session_new(mt, MT_STOP_COPY);
	struct file *file;

	if (!session)
		return ERR_PTR(-ENOMEM);
	session->ended = true;
	file = mt_session_file(session);
	session_put(session);
	return file;
}
