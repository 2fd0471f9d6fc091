// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device's migration state: which step follows is the kernel's own table, what a step does is
 * here.
 *
 * Deliberately absent: steps by themselves. The state changes by SET and by resets, and by no other
 * thing, unless a violation says so.
 */
#include <linux/delay.h>
#include <linux/file.h>

#include "migtest.h"

/*
 * VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 and the last feature, which the kernel's header has from
 * 7.1 on.
 */
#define MT_FEATURE_V2 12
#define MT_LAST_FEATURE 12

#define FROM_TO(from, to) ((from) * MT_STATES + (to))
#define STEP(from, to) FROM_TO(VFIO_DEVICE_STATE_##from, VFIO_DEVICE_STATE_##to)

/* What the flags have to have for a state. */
static const u32 needed[MT_STATES] = {
	[VFIO_DEVICE_STATE_ERROR] = ~0U,
	[VFIO_DEVICE_STATE_STOP] = VFIO_MIGRATION_STOP_COPY,
	[VFIO_DEVICE_STATE_RUNNING] = VFIO_MIGRATION_STOP_COPY,
	[VFIO_DEVICE_STATE_STOP_COPY] = VFIO_MIGRATION_STOP_COPY,
	[VFIO_DEVICE_STATE_RESUMING] = VFIO_MIGRATION_STOP_COPY,
	[VFIO_DEVICE_STATE_RUNNING_P2P] = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P,
	[VFIO_DEVICE_STATE_PRE_COPY] = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY,
	[VFIO_DEVICE_STATE_PRE_COPY_P2P] =
		VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY,
};

#define ALL_FLAGS (VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY)

static bool is_pre_copy(u32 state)
{
	return state == VFIO_DEVICE_STATE_PRE_COPY || state == VFIO_DEVICE_STATE_PRE_COPY_P2P;
}

/*
 * The step that follows on the way to `to`. The table must not be asked from where the flags do not
 * lead to.
 */
static int next_step(struct migtest *mt, u32 to, u32 *next)
{
	u32 flags = mt_v(mt, ignores_flags) ? ALL_FLAGS : mt->vdev.migration_flags;
	enum vfio_device_mig_state step;
	int result;

	if ((needed[mt->state] & flags) != needed[mt->state])
		return -EINVAL;
	if (mt->state == VFIO_DEVICE_STATE_STOP_COPY && is_pre_copy(to) && mt_v(mt, back_to_precopy) &&
	    (needed[to] & flags) == needed[to]) {
		*next = to;
		return 0;
	}
	mt->asked.migration_flags = flags;
	result = vfio_mig_get_next_state(&mt->asked, mt->state, to, &step);
	if (!result)
		*next = step;
	return result;
}

/* Opens a session and gives its file. */
static struct file *open_session(struct migtest *mt, enum mt_mode mode)
{
	struct mt_session *session = mt_session_open(mt, mode);
	struct file *file;

	if (IS_ERR(session))
		return ERR_CAST(session);
	file = mt_session_file(session);
	if (IS_ERR(file))
		mt_session_end(mt);
	return file;
}

static struct file *open_in_p2p(struct migtest *mt)
{
	struct file *file = open_session(mt, MT_PRE_COPY_P2P);

	if (IS_ERR(file) || !mt_v(mt, no_fd_in_p2p))
		return file;
	fput(file);
	return NULL;
}

static struct file *end_session(struct migtest *mt, u32 to)
{
	bool was_there = mt->session;

	mt_session_end(mt);
	if (was_there && to == VFIO_DEVICE_STATE_STOP && mt_v(mt, fd_on_stop))
		return mt_session_ended_file(mt);
	return NULL;
}

/* A session goes on in another state. A device that was opened anew there has none. */
static struct file *keep_session(struct migtest *mt, enum mt_mode mode)
{
	int result = 0;

	if (!mt->session)
		return NULL;
	if (mode != MT_STOP_COPY) {
		mt->session->mode = mode;
		return NULL;
	}
	result = mt_saving_stop_copy(mt->session);
	if (result)
		return ERR_PTR(result);
	return mt_v(mt, reopens_for_stop_copy) ? mt_session_reopen(mt) : NULL;
}

/* What came is the device's state now, or it is refused. */
static struct file *finish_load(struct migtest *mt)
{
	int result = mt->session ? mt_resuming_finish(mt->session) : -EINVAL;

	if (result && mt_v(mt, refusal_runs)) {
		mt_session_end(mt);
		mt->state = VFIO_DEVICE_STATE_RUNNING;
	}
	return result ? ERR_PTR(result) : end_session(mt, VFIO_DEVICE_STATE_STOP);
}

/* What the device does on a step. */
static struct file *act(struct migtest *mt, u32 to)
{
	switch (FROM_TO(mt->state, to)) {
	case STEP(STOP, STOP_COPY):
		return open_session(mt, MT_STOP_COPY);
	case STEP(STOP, RESUMING):
		return open_session(mt, MT_RESUMING);
	case STEP(RUNNING, PRE_COPY):
		return open_session(mt, MT_PRE_COPY);
	case STEP(RUNNING_P2P, PRE_COPY_P2P):
		return open_in_p2p(mt);
	case STEP(PRE_COPY_P2P, PRE_COPY):
	case STEP(STOP_COPY, PRE_COPY):
		return keep_session(mt, MT_PRE_COPY);
	case STEP(PRE_COPY, PRE_COPY_P2P):
	case STEP(STOP_COPY, PRE_COPY_P2P):
		return keep_session(mt, MT_PRE_COPY_P2P);
	case STEP(PRE_COPY, STOP_COPY):
	case STEP(PRE_COPY_P2P, STOP_COPY):
		return keep_session(mt, MT_STOP_COPY);
	case STEP(RESUMING, STOP):
		return finish_load(mt);
	case STEP(STOP_COPY, STOP):
	case STEP(PRE_COPY, RUNNING):
	case STEP(PRE_COPY_P2P, RUNNING_P2P):
		return end_session(mt, to);
	default:
		return NULL;
	}
}

/* What violations remember of a step. */
static void remember(struct migtest *mt, u32 from, u32 to)
{
	if (from == VFIO_DEVICE_STATE_STOP)
		mt->saved = to == VFIO_DEVICE_STATE_STOP_COPY;
	if (is_pre_copy(to) && !is_pre_copy(from))
		mt->precopied = true;
}

/* Makes one step; the file is that of a session that it opens. */
static struct file *step(struct migtest *mt, u32 to)
{
	u32 from = mt->state;
	struct file *file;

	if (mt->broken && to == VFIO_DEVICE_STATE_STOP)
		return ERR_PTR(-EIO);
	if (mt->arc_delay[from][to])
		msleep(mt->arc_delay[from][to]);
	mt_content_run(mt);
	file = act(mt, to);
	if (IS_ERR(file))
		return file;
	dev_dbg(mt->vdev.dev, "migtest step: %u -> %u\n", from, to);
	mt->state = to;
	remember(mt, from, to);
	mt_content_run_from_now(mt);
	mt_tick_soon(mt);
	mt_wake(mt);
	return file;
}

/* Goes from step to step. Only the last one opens a session that anybody gets. */
static struct file *walk(struct migtest *mt, u32 to)
{
	struct file *file = NULL;
	u32 next;
	int result;

	while (mt->state != to) {
		if (file)
			fput(file);
		result = next_step(mt, to, &next);
		if (result)
			return ERR_PTR(result);
		file = step(mt, next);
		if (IS_ERR(file))
			break;
	}
	return file;
}

/* The device fails where it is told to. */
static struct file *fail(struct migtest *mt, u32 to, int result, enum mt_end end)
{
	struct file *file;
	u32 next;

	if (end == MT_END_ERROR) {
		mt_session_end(mt);
		mt->state = VFIO_DEVICE_STATE_ERROR;
	}
	if (end == MT_END_MIDWAY && mt->state != to && !next_step(mt, to, &next) && next != to) {
		file = step(mt, next);
		if (!IS_ERR_OR_NULL(file))
			fput(file);
	}
	return ERR_PTR(result);
}

/*
 * A refusal that is none, or one where there should be none; `went` says whether this was the
 * answer.
 */
static struct file *misbehave(struct migtest *mt, u32 to, bool *went)
{
	*went = true;
	if (to >= MT_STATES) {
		*went = mt_v(mt, takes_unknown_state);
		return NULL;
	}
	if (to == VFIO_DEVICE_STATE_ERROR && mt_v(mt, takes_error)) {
		mt_session_end(mt);
		mt->state = VFIO_DEVICE_STATE_ERROR;
		return NULL;
	}
	if (to == mt->state && mt_v(mt, refuses_current_state))
		return ERR_PTR(-EINVAL);
	if (FROM_TO(mt->state, to) == STEP(PRE_COPY_P2P, PRE_COPY) && mt_v(mt, refuses_direct_arc))
		return ERR_PTR(-EINVAL);
	if (FROM_TO(mt->state, to) == STEP(STOP, PRE_COPY_P2P) && mt_v(mt, refuses_combined_arc))
		return ERR_PTR(-EINVAL);
	*went = false;
	return NULL;
}

/* What is done where no way leads to `to`. */
static struct file *refuse(struct migtest *mt, int result)
{
	if (mt->state == VFIO_DEVICE_STATE_STOP_COPY && mt_v(mt, illegal_arc_moves)) {
		mt_session_end(mt);
		mt->state = VFIO_DEVICE_STATE_STOP;
	}
	return ERR_PTR(mt_v(mt, illegal_is_eperm) ? -EPERM : result);
}

/* Whether a SET ends a session on its way and opens another one. */
static bool replaces(u32 from, u32 to)
{
	bool was_saving = is_pre_copy(from) || from == VFIO_DEVICE_STATE_STOP_COPY;
	bool will_save = is_pre_copy(to) || to == VFIO_DEVICE_STATE_STOP_COPY;

	if (from == VFIO_DEVICE_STATE_RESUMING)
		return will_save;
	return was_saving && to == VFIO_DEVICE_STATE_RESUMING;
}

static struct file *set_state(struct migtest *mt, u32 to)
{
	enum mt_end end = MT_END_OLD;
	struct file *file;
	bool went;
	u32 next;
	int result = mt_enter(mt, MT_SET, &end);

	if (mt->state == VFIO_DEVICE_STATE_ERROR)
		return ERR_PTR(-EIO);
	if (result)
		return fail(mt, to, result, end);
	file = misbehave(mt, to, &went);
	if (went || to == mt->state)
		return file;
	result = next_step(mt, to, &next);
	if (result)
		return refuse(mt, result);
	mt->keeps_replaced = mt_v(mt, replaced_goes_on) && replaces(mt->state, to);
	file = walk(mt, to);
	mt->keeps_replaced = false;
	return file;
}

static struct file *migration_set_state(struct vfio_device *vdev, enum vfio_device_mig_state to)
{
	struct migtest *mt = container_of(vdev, struct migtest, vdev);
	struct file *file;

	mutex_lock(&mt->lock);
	file = set_state(mt, to);
	mutex_unlock(&mt->lock);
	return file;
}

static u32 told_state(const struct migtest *mt)
{
	if (mt->state == VFIO_DEVICE_STATE_RUNNING_P2P && mt_v(mt, get_lags))
		return VFIO_DEVICE_STATE_RUNNING;
	if (mt->state == VFIO_DEVICE_STATE_STOP && mt_v(mt, get_says_nine))
		return 9;
	return mt->state;
}

static int migration_get_state(struct vfio_device *vdev, enum vfio_device_mig_state *state)
{
	struct migtest *mt = container_of(vdev, struct migtest, vdev);
	int result;

	mutex_lock(&mt->lock);
	result = mt_enter(mt, MT_GET, NULL);
	*state = told_state(mt);
	mutex_unlock(&mt->lock);
	return result;
}

static u64 told_size(const struct migtest *mt)
{
	if (mt->knobs.data_size_is_wrong)
		return mt->knobs.data_size;
	if (mt->session && mt->session->mode != MT_RESUMING)
		return mt_saving_left(mt->session);
	return mt_state_size(mt);
}

static int migration_get_data_size(struct vfio_device *vdev, unsigned long *stop_copy_length)
{
	struct migtest *mt = container_of(vdev, struct migtest, vdev);
	int result;

	mutex_lock(&mt->lock);
	result = mt_enter(mt, MT_SIZE, NULL);
	*stop_copy_length = told_size(mt);
	if (mt_v(mt, size_in_running_alone) && mt->state != VFIO_DEVICE_STATE_RUNNING)
		result = -EINVAL;
	mutex_unlock(&mt->lock);
	return result;
}

const struct vfio_migration_ops mt_migration_ops = {
	.migration_set_state = migration_set_state,
	.migration_get_state = migration_get_state,
	.migration_get_data_size = migration_get_data_size,
};

/* The user says that it knows of initial data that begin anew. */
static int know_v2(struct migtest *mt, u32 flags, size_t size)
{
	bool has_pre_copy = mt->vdev.migration_flags & VFIO_MIGRATION_PRE_COPY;
	int result;

	if (!has_pre_copy && !mt_v(mt, v2_without_precopy))
		return -EINVAL;
	result = vfio_check_feature(flags, size, VFIO_DEVICE_FEATURE_SET, 0);
	if (result != 1)
		return result;
	mt->knows_v2 = true;
	return 0;
}

/* Features that the kernel leaves to the driver. */
int mt_feature(struct vfio_device *vdev, u32 flags, void __user *argument, size_t size)
{
	struct migtest *mt = container_of(vdev, struct migtest, vdev);
	u32 feature = flags & VFIO_DEVICE_FEATURE_MASK;
	int result = -ENOTTY;

	mutex_lock(&mt->lock);
	if (feature == MT_FEATURE_V2)
		result = know_v2(mt, flags, size);
	else if (feature > MT_LAST_FEATURE && mt_v(mt, answers_unknown_feature))
		result = 0;
	mutex_unlock(&mt->lock);
	return result;
}

/* A reset, whoever asks for it: the device runs, its session has ended, and its content is lost. */
void mt_reset(struct migtest *mt)
{
	struct mt_session *session = mt->session;

	mt->stuck = mt_v(mt, refusal_sticks) && session && session->mode == MT_RESUMING &&
		    session->resuming.refused && !session->resuming.is_stuck;
	mt->broken = mt->state == VFIO_DEVICE_STATE_STOP && mt_v(mt, broken_after_reset);
	if (!mt_v(mt, reset_keeps_session))
		mt_sessions_end(mt);
	mt->state = mt_v(mt, reset_stays_stopped) ? VFIO_DEVICE_STATE_STOP : VFIO_DEVICE_STATE_RUNNING;
	mt_content_clear(mt);
	if (mt_is_pci(mt))
		mt_pci_reset(mt);
	mt_content_run_from_now(mt);
	mt->log.was_on = mt->log.on;
	mt->saved = false;
	mt->precopied = false;
	mt_wake(mt);
}

/* A reset that the guest asks for, behind the VMM's back. */
void mt_flr(struct migtest *mt)
{
	mt->flrs++;
	mt_reset(mt);
}

int mt_reset_ioctl(struct migtest *mt)
{
	int result;

	mutex_lock(&mt->lock);
	result = mt_enter(mt, MT_RESET, NULL);
	if (!result)
		mt_reset(mt);
	mutex_unlock(&mt->lock);
	return result;
}
