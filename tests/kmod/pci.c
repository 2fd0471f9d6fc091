// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device's other face: a PCI function, for VMMs that take nothing else.
 *
 * BAR 0 has the registers, BAR 4 the table of MSI-X and its pending bits. A VMM keeps both of them
 * itself, so that BAR 4 reads as zeros here and takes every write. Configuration space begins anew
 * with a reset; interrupts stay armed, as those of real functions do.
 *
 * All functions are called with the device's lock held, but for those that say something else.
 *
 * Deliberately absent: what the bits in configuration space control. Registers answer whatever the
 * command register says.
 */
#include <linux/eventfd.h>
#include <linux/pci_regs.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "migtest.h"

#define MT_BAR_SIZE 4096
#define MT_MSIX_AT 0x40
#define MT_MSIX_BAR 4

/* No vendor has the ids: "MT" and "PC". 0xff is the class of what fits nowhere. */
static const u8 config_at_first[PCI_CFG_SPACE_SIZE] = {
	[PCI_VENDOR_ID] = 'M', 'T',
	[PCI_DEVICE_ID] = 'P', 'C',
	[PCI_STATUS] = PCI_STATUS_CAP_LIST,
	[PCI_CLASS_DEVICE + 1] = 0xff,
	[PCI_SUBSYSTEM_VENDOR_ID] = 'M', 'T',
	[PCI_SUBSYSTEM_ID] = 'P', 'C',
	[PCI_CAPABILITY_LIST] = MT_MSIX_AT,
	[MT_MSIX_AT] = PCI_CAP_ID_MSIX,
	[MT_MSIX_AT + PCI_MSIX_FLAGS] = MT_VECTORS - 1,
	[MT_MSIX_AT + PCI_MSIX_TABLE] = MT_MSIX_BAR,
	[MT_MSIX_AT + PCI_MSIX_PBA] = MT_MSIX_BAR, MT_BAR_SIZE / 2 >> 8,
};

/* Of a BAR the bits above its size, so that a write of all ones tells it. */
static const u8 config_writable[PCI_CFG_SPACE_SIZE] = {
	[PCI_COMMAND] = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, PCI_COMMAND_INTX_DISABLE >> 8,
	[PCI_BASE_ADDRESS_0 + 1] = 0xf0, 0xff, 0xff,
	[PCI_BASE_ADDRESS_4 + 1] = 0xf0, 0xff, 0xff,
	[PCI_INTERRUPT_LINE] = 0xff,
	[MT_MSIX_AT + PCI_MSIX_FLAGS + 1] = (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL) >> 8,
};

/* Gives a new device this face. Nobody else has the device yet. */
void mt_pci_init(struct migtest *mt, u32 config_size)
{
	mt->pci.config_size = config_size;
	mt_pci_reset(mt);
}

void mt_pci_reset(struct migtest *mt)
{
	memcpy(mt->pci.config, config_at_first, sizeof(config_at_first));
}

/* Needs no lock: a region keeps its size. */
u64 mt_pci_region_size(const struct migtest *mt, u32 index)
{
	switch (index) {
	case VFIO_PCI_BAR0_REGION_INDEX:
	case VFIO_PCI_BAR0_REGION_INDEX + MT_MSIX_BAR:
		return MT_BAR_SIZE;
	case VFIO_PCI_CONFIG_REGION_INDEX:
		return mt->pci.config_size;
	default:
		return 0;
	}
}

static ssize_t config_write(struct mt_pci *pci, const char __user *in, size_t count, u64 at)
{
	size_t done;
	u8 byte, writable;

	for (done = 0; done < count; done++, at++) {
		if (get_user(byte, (const u8 __user *)in + done))
			return done ? done : -EFAULT;
		writable = at < sizeof(config_writable) ? config_writable[at] : 0;
		pci->config[at] = (pci->config[at] & ~writable) | (byte & writable);
	}
	return done;
}

/* Reads or writes a region that a function has and no other device. */
ssize_t mt_pci_region(struct migtest *mt, char __user *out, const char __user *in, size_t count,
		      u32 index, u64 at)
{
	u64 size = mt_pci_region_size(mt, index);

	if (!size)
		return -EINVAL;
	if (at >= size)
		return 0;
	count = min_t(u64, count, size - at);
	if (index == VFIO_PCI_CONFIG_REGION_INDEX && in)
		return config_write(&mt->pci, in, count, at);
	if (index == VFIO_PCI_CONFIG_REGION_INDEX)
		return copy_to_user(out, mt->pci.config + at, count) ? -EFAULT : count;
	return out && clear_user(out, count) ? -EFAULT : count;
}

static u32 vectors_of(u32 index)
{
	return index == VFIO_PCI_MSIX_IRQ_INDEX ? MT_VECTORS : 0;
}

/* Needs no lock. */
long mt_pci_irq_info(void __user *argument)
{
	size_t least = offsetofend(struct vfio_irq_info, count);
	struct vfio_irq_info info = {};

	if (copy_from_user(&info, argument, least))
		return -EFAULT;
	if (info.argsz < least || info.index >= VFIO_PCI_NUM_IRQS)
		return -EINVAL;
	info.flags = VFIO_IRQ_INFO_EVENTFD;
	info.count = vectors_of(info.index);
	return copy_to_user(argument, &info, least) ? -EFAULT : 0;
}

/* Arms a row of vectors, all or none of them; without an fd a vector is disarmed. */
static int arm(struct mt_pci *pci, const s32 *fds, u32 start, u32 count)
{
	struct eventfd_ctx *others[MT_VECTORS] = {};
	int result = 0;
	u32 i;

	for (i = 0; i < count && !result; i++) {
		if (fds[i] == -1)
			continue;
		others[i] = eventfd_ctx_fdget(fds[i]);
		result = PTR_ERR_OR_ZERO(others[i]);
	}
	for (i = 0; i < count && !result; i++)
		swap(others[i], pci->vectors[start + i]);
	for (i = 0; i < count; i++)
		if (!IS_ERR_OR_NULL(others[i]))
			eventfd_ctx_put(others[i]);
	return result;
}

/* Disarms all vectors. */
void mt_pci_disarm(struct migtest *mt)
{
	s32 none[MT_VECTORS] = { -1, -1, -1, -1 };

	arm(&mt->pci, none, 0, MT_VECTORS);
}

/* Raises an interrupt, if there is such a vector and it is armed. */
void mt_pci_raise(struct migtest *mt, u64 vector)
{
	if (vector < MT_VECTORS && mt->pci.vectors[vector])
		eventfd_signal(mt->pci.vectors[vector]);
}

/* What the set says, whose data are an fd or a byte for each vector, or nothing. */
static int trigger(struct migtest *mt, const struct vfio_irq_set *set, const void *data)
{
	const u8 *bools = data;
	u32 i;

	if (set->flags & VFIO_IRQ_SET_DATA_EVENTFD)
		return arm(&mt->pci, data, set->start, set->count);
	if (!set->count)
		mt_pci_disarm(mt);
	for (i = 0; i < set->count; i++)
		if (set->flags & VFIO_IRQ_SET_DATA_NONE || bools[i])
			mt_pci_raise(mt, set->start + i);
	return 0;
}

/* Takes the lock. No vector can be masked. */
long mt_pci_set_irqs(struct migtest *mt, void __user *argument)
{
	size_t least = offsetofend(struct vfio_irq_set, count);
	struct vfio_irq_set set;
	s32 data[MT_VECTORS];
	size_t size;
	int result;

	if (copy_from_user(&set, argument, least))
		return -EFAULT;
	result = vfio_set_irqs_validate_and_prepare(&set, vectors_of(set.index), VFIO_PCI_NUM_IRQS, &size);
	if (result)
		return result;
	if ((set.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK) != VFIO_IRQ_SET_ACTION_TRIGGER)
		return -ENOTTY;
	if (size > sizeof(data) || copy_from_user(data, argument + least, size))
		return -EFAULT;
	mutex_lock(&mt->lock);
	result = trigger(mt, &set, data);
	mutex_unlock(&mt->lock);
	return result;
}
