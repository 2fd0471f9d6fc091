// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module: for each face of the devices a parent in mdev of any number of them.
 *
 * Deliberately absent: what a device does. It begins with its operations, in main.c.
 */
#include <linux/device.h>
#include <linux/mdev.h>
#include <linux/module.h>

#include "migtest.h"

#define MT_DEVICES 64

/* A kind of devices; `config_size` is that of struct mt_pci. */
struct kind {
	struct mdev_type type;
	u32 config_size;
};

static int parent_probe(struct mdev_device *mdev)
{
	struct kind *kind = container_of(mdev->type, struct kind, type);
	struct migtest *mt = vfio_alloc_device(migtest, vdev, &mdev->dev, &mt_device_ops);
	int result;

	if (IS_ERR(mt))
		return PTR_ERR(mt);
	if (kind->config_size)
		mt_pci_init(mt, kind->config_size);
	dev_set_drvdata(&mdev->dev, mt);
	result = vfio_register_emulated_iommu_dev(&mt->vdev);
	if (result)
		vfio_put_device(&mt->vdev);
	return result;
}

/* A data fd that is still open keeps the device's memory, but not its content. */
static void parent_remove(struct mdev_device *mdev)
{
	struct migtest *mt = dev_get_drvdata(&mdev->dev);

	vfio_unregister_group_dev(&mt->vdev);
	cancel_delayed_work_sync(&mt->tick);
	mutex_lock(&mt->lock);
	mt_content_free(mt);
	mutex_unlock(&mt->lock);
	vfio_put_device(&mt->vdev);
}

/* A driver has one API for all of its devices, so that each face has its own. */
#define DRIVER(of_name, api) { \
		.device_api = api, \
		.max_instances = MT_DEVICES, \
		.probe = parent_probe, \
		.remove = parent_remove, \
		.driver = { \
			.name = of_name, \
			.owner = THIS_MODULE, \
			.mod_name = KBUILD_MODNAME, \
			.dev_groups = mt_groups, \
		}, \
	}

static struct kind device_kind = {
	.type = { .sysfs_name = "device", .pretty_name = "Migration test device" },
};
static struct kind pci_kind = {
	.type = { .sysfs_name = "pci", .pretty_name = "Migration test device as a PCI function" },
	.config_size = PCI_CFG_SPACE_SIZE,
};
static struct kind large_pci_kind = {
	.type = {
		.sysfs_name = "pci-4096",
		.pretty_name = "Migration test device as a PCI function with extended configuration space",
	},
	.config_size = PCI_CFG_SPACE_EXP_SIZE,
};
static struct mdev_type *device_types[] = { &device_kind.type };
static struct mdev_type *pci_types[] = { &pci_kind.type, &large_pci_kind.type };

static struct face {
	struct mdev_driver driver;
	struct mdev_type **types;
	unsigned int type_count;
	struct device *device;
	struct mdev_parent parent;
} faces[] = {
	{
		.driver = DRIVER("migtest", VFIO_DEVICE_API_PLATFORM_STRING),
		.types = device_types,
		.type_count = ARRAY_SIZE(device_types),
	},
	{
		.driver = DRIVER("migtest-pci", VFIO_DEVICE_API_PCI_STRING),
		.types = pci_types,
		.type_count = ARRAY_SIZE(pci_types),
	},
};

/* The parents get the types' folders' names from the class. */
static const struct class parent_class = { .name = "migtest" };

static int face_register(struct face *face)
{
	int result = mdev_register_driver(&face->driver);

	if (result)
		return result;
	face->device = device_create(&parent_class, NULL, MKDEV(0, 0), NULL, "%s",
				     face->driver.driver.name);
	result = PTR_ERR_OR_ZERO(face->device);
	if (result)
		goto no_device;
	result = mdev_register_parent(&face->parent, face->device, &face->driver, face->types,
				      face->type_count);
	if (!result)
		return 0;
	device_unregister(face->device);
no_device:
	mdev_unregister_driver(&face->driver);
	return result;
}

static void face_unregister(struct face *face)
{
	mdev_unregister_parent(&face->parent);
	device_unregister(face->device);
	mdev_unregister_driver(&face->driver);
}

static int __init migtest_init(void)
{
	int result = class_register(&parent_class);
	size_t i;

	if (result)
		return result;
	for (i = 0; i < ARRAY_SIZE(faces); i++) {
		result = face_register(&faces[i]);
		if (result)
			goto no_face;
	}
	return 0;
no_face:
	while (i--)
		face_unregister(&faces[i]);
	class_unregister(&parent_class);
	return result;
}

static void __exit migtest_exit(void)
{
	size_t i = ARRAY_SIZE(faces);

	while (i--)
		face_unregister(&faces[i]);
	class_unregister(&parent_class);
}

module_init(migtest_init);
module_exit(migtest_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A VFIO device that migrates, and misbehaves when it is told to");
