// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a VMM does with a device, but for its migration.
 *
 * Region 0 has registers of 64 bits: 0x00 "MIGTEST", 0x08 the content's size, 0x10 its checksum,
 * 0x18 the seed that fills it when it is written, 0x20 a reset as a guest's FLR when anything is
 * written, 0x28 the number of such resets, 0x30 an interrupt of the vector that is written. Region 1
 * is the content, but of a PCI function: that has its content behind its registers alone. A reset of
 * either kind leaves it all zeros, as real hardware loses what it had.
 *
 * Deliberately absent: memory mapping. Every access comes through here, and can be counted on.
 */
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "migtest.h"

#define MT_SIZE_AT_FIRST 20000
#define MT_SEED_AT_FIRST 1

#define MT_REGIONS 2
#define MT_REGION_SHIFT 40
#define MT_REGION_MASK ((1ULL << MT_REGION_SHIFT) - 1)
#define MT_REGISTERS 4096

enum mt_register {
	MT_REG_MAGIC = 0x00,
	MT_REG_SIZE = 0x08,
	MT_REG_CHECKSUM = 0x10,
	MT_REG_SEED = 0x18,
	MT_REG_FLR = 0x20,
	MT_REG_FLRS = 0x28,
	MT_REG_RAISE = 0x30,
};

static struct migtest *to_migtest(struct vfio_device *vdev)
{
	return container_of(vdev, struct migtest, vdev);
}

static u64 register_read(struct migtest *mt, u64 at)
{
	switch (at) {
	case MT_REG_MAGIC:
		return le64_to_cpu(*(__le64 *)MT_MAGIC);
	case MT_REG_SIZE:
		return mt->size;
	case MT_REG_CHECKSUM:
		return mt_content_checksum(mt);
	case MT_REG_SEED:
		return mt->seed;
	case MT_REG_FLRS:
		return mt->flrs;
	default:
		return 0;
	}
}

static void register_write(struct migtest *mt, u64 at, u64 value)
{
	if (at == MT_REG_SEED)
		mt_content_fill(mt, value);
	if (at == MT_REG_FLR)
		mt_flr(mt);
	if (at == MT_REG_RAISE)
		mt_pci_raise(mt, value);
}

/* Reads or writes the one register that a transfer has to be. */
static ssize_t registers(struct migtest *mt, char __user *out, const char __user *in, size_t count,
			 u64 at)
{
	u64 value;

	if (count != sizeof(value) || at % sizeof(value) || at >= MT_REGISTERS)
		return -EINVAL;
	if (in && copy_from_user(&value, in, sizeof(value)))
		return -EFAULT;
	if (mutex_lock_interruptible(&mt->lock))
		return -ERESTARTSYS;
	if (in)
		register_write(mt, at, value);
	else
		value = register_read(mt, at);
	mutex_unlock(&mt->lock);
	return out && copy_to_user(out, &value, sizeof(value)) ? -EFAULT : sizeof(value);
}

/* Reads or writes a part of the content that lies in one page. */
static ssize_t content_piece(struct migtest *mt, char __user *out, const char __user *in,
			     size_t count, u64 at)
{
	if (at >= mt->size)
		return 0;
	count = min_t(u64, count, mt->size - at);
	count = min_t(u64, count, MT_PAGE_SIZE - at % MT_PAGE_SIZE);
	if (out)
		return copy_to_user(out, mt->content + at, count) ? -EFAULT : count;
	/* A copy that fails may have changed something too. */
	mt_content_changed(mt, at, count);
	return copy_from_user(mt->content + at, in, count) ? -EFAULT : count;
}

static ssize_t content(struct migtest *mt, char __user *out, const char __user *in, size_t count,
		       u64 at)
{
	ssize_t piece = 0;
	size_t done = 0;

	while (done < count) {
		if (mutex_lock_interruptible(&mt->lock))
			return done ? done : -ERESTARTSYS;
		piece = content_piece(mt, out ? out + done : NULL, in ? in + done : NULL,
				      count - done, at + done);
		mutex_unlock(&mt->lock);
		if (piece <= 0)
			break;
		done += piece;
		cond_resched();
	}
	return done ? done : piece;
}

static ssize_t of_function(struct migtest *mt, char __user *out, const char __user *in,
			   size_t count, u32 index, u64 at)
{
	ssize_t done;

	if (mutex_lock_interruptible(&mt->lock))
		return -ERESTARTSYS;
	done = mt_pci_region(mt, out, in, count, index, at);
	mutex_unlock(&mt->lock);
	return done;
}

static ssize_t region(struct migtest *mt, char __user *out, const char __user *in, size_t count,
		      loff_t *position)
{
	u64 at = *position & MT_REGION_MASK;
	u32 index = *position >> MT_REGION_SHIFT;
	ssize_t done = -EINVAL;

	if (!index)
		done = registers(mt, out, in, count, at);
	else if (mt_is_pci(mt))
		done = of_function(mt, out, in, count, index, at);
	else if (index == 1)
		done = content(mt, out, in, count, at);
	if (done > 0)
		*position += done;
	return done;
}

static ssize_t vdev_read(struct vfio_device *vdev, char __user *buffer, size_t count,
			 loff_t *position)
{
	return region(to_migtest(vdev), buffer, NULL, count, position);
}

static ssize_t vdev_write(struct vfio_device *vdev, const char __user *buffer, size_t count,
			  loff_t *position)
{
	return region(to_migtest(vdev), NULL, buffer, count, position);
}

static u32 regions_of(const struct migtest *mt)
{
	return mt_is_pci(mt) ? VFIO_PCI_NUM_REGIONS : MT_REGIONS;
}

static u64 region_size(const struct migtest *mt, u32 index)
{
	if (mt_is_pci(mt))
		return mt_pci_region_size(mt, index);
	return index ? READ_ONCE(mt->size) : MT_REGISTERS;
}

static long device_info(struct migtest *mt, void __user *argument)
{
	size_t least = offsetofend(struct vfio_device_info, num_irqs);
	struct vfio_device_info info = {};

	if (copy_from_user(&info, argument, least))
		return -EFAULT;
	if (info.argsz < least)
		return -EINVAL;
	info.flags = mt_is_pci(mt) ? VFIO_DEVICE_FLAGS_PCI : VFIO_DEVICE_FLAGS_PLATFORM;
	info.flags |= mt_v(mt, hides_reset) ? 0 : VFIO_DEVICE_FLAGS_RESET;
	info.num_regions = regions_of(mt);
	info.num_irqs = mt_is_pci(mt) ? VFIO_PCI_NUM_IRQS : 0;
	return copy_to_user(argument, &info, least) ? -EFAULT : 0;
}

static long region_info(struct migtest *mt, void __user *argument)
{
	size_t least = offsetofend(struct vfio_region_info, offset);
	struct vfio_region_info info = {};

	if (copy_from_user(&info, argument, least))
		return -EFAULT;
	if (info.argsz < least || info.index >= regions_of(mt))
		return -EINVAL;
	info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	info.cap_offset = 0;
	info.size = region_size(mt, info.index);
	info.offset = (u64)info.index << MT_REGION_SHIFT;
	return copy_to_user(argument, &info, least) ? -EFAULT : 0;
}

static long vdev_ioctl(struct vfio_device *vdev, unsigned int command, unsigned long argument)
{
	struct migtest *mt = to_migtest(vdev);

	switch (command) {
	case VFIO_DEVICE_GET_INFO:
		return device_info(mt, (void __user *)argument);
	case VFIO_DEVICE_GET_REGION_INFO:
		return region_info(mt, (void __user *)argument);
	case VFIO_DEVICE_GET_IRQ_INFO:
		return mt_is_pci(mt) ? mt_pci_irq_info((void __user *)argument) : -EINVAL;
	case VFIO_DEVICE_SET_IRQS:
		return mt_is_pci(mt) ? mt_pci_set_irqs(mt, (void __user *)argument) : -EINVAL;
	case VFIO_DEVICE_RESET:
		return mt_reset_ioctl(mt);
	default:
		return -ENOTTY;
	}
}

static int vdev_open(struct vfio_device *vdev)
{
	struct migtest *mt = to_migtest(vdev);

	mutex_lock(&mt->lock);
	mt->opens++;
	mt->knows_v2 = false;
	mt->log.was_on = false;
	if (mt->knobs.reset_on_open)
		mt_reset(mt);
	mutex_unlock(&mt->lock);
	return 0;
}

/* The state stays, but no session outlives the device's use. */
static void vdev_close(struct vfio_device *vdev)
{
	struct migtest *mt = to_migtest(vdev);

	mutex_lock(&mt->lock);
	mt->opens--;
	mt_sessions_end(mt);
	mt_log_end(&mt->log);
	mt_pci_disarm(mt);
	if (mt->knobs.reset_on_open)
		mt_reset(mt);
	mutex_unlock(&mt->lock);
	cancel_delayed_work_sync(&mt->tick);
}

static int vdev_init(struct vfio_device *vdev)
{
	struct migtest *mt = to_migtest(vdev);

	mutex_init(&mt->lock);
	init_waitqueue_head(&mt->wait);
	INIT_DELAYED_WORK(&mt->tick, mt_tick);
	INIT_LIST_HEAD(&mt->live);
	mt->state = VFIO_DEVICE_STATE_RUNNING;
	mt->seed = MT_SEED_AT_FIRST;
	mt->knobs.initial = U64_MAX;
	mt->knobs.log_page_size = MT_PAGE_SIZE;
	vdev->migration_flags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY;
	vdev->mig_ops = &mt_migration_ops;
	if (IS_ENABLED(CONFIG_IOMMUFD_DRIVER))
		vdev->log_ops = &mt_log_ops;
	return mt_content_resize(mt, MT_SIZE_AT_FIRST);
}

static void vdev_release(struct vfio_device *vdev)
{
	struct migtest *mt = to_migtest(vdev);

	mt_content_free(mt);
	mutex_destroy(&mt->lock);
}

const struct vfio_device_ops mt_device_ops = {
	.name = "migtest",
	.init = vdev_init,
	.release = vdev_release,
	.open_device = vdev_open,
	.close_device = vdev_close,
	.read = vdev_read,
	.write = vdev_write,
	.ioctl = vdev_ioctl,
	.device_feature = mt_feature,
	.bind_iommufd = vfio_iommufd_emulated_bind,
	.unbind_iommufd = vfio_iommufd_emulated_unbind,
	.attach_ioas = vfio_iommufd_emulated_attach_ioas,
	.detach_ioas = vfio_iommufd_emulated_detach_ioas,
};
