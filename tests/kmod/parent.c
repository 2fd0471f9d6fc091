// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module: a parent in mdev of any number of devices.
 *
 * Deliberately absent: what a device does. It begins with its operations, in main.c.
 */
#include <linux/device.h>
#include <linux/mdev.h>
#include <linux/module.h>

#include "migtest.h"

#define MT_DEVICES 64

static int parent_probe(struct mdev_device *mdev)
{
	struct migtest *mt = vfio_alloc_device(migtest, vdev, &mdev->dev, &mt_device_ops);
	int result;

	if (IS_ERR(mt))
		return PTR_ERR(mt);
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

static struct mdev_driver driver = {
	.device_api = VFIO_DEVICE_API_PLATFORM_STRING,
	.max_instances = MT_DEVICES,
	.probe = parent_probe,
	.remove = parent_remove,
	.driver = {
		.name = "migtest",
		.owner = THIS_MODULE,
		.mod_name = KBUILD_MODNAME,
		.dev_groups = mt_groups,
	},
};

/* The parent gets its name, and the types' folders theirs, from the class. */
static const struct class parent_class = { .name = "migtest" };
static struct device *parent_device;
static struct mdev_parent parent;
static struct mdev_type type = { .sysfs_name = "device", .pretty_name = "Migration test device" };
static struct mdev_type *types[] = { &type };

static int __init migtest_init(void)
{
	int result = class_register(&parent_class);

	if (result)
		return result;
	result = mdev_register_driver(&driver);
	if (result)
		goto no_driver;
	parent_device = device_create(&parent_class, NULL, MKDEV(0, 0), NULL, "migtest");
	result = PTR_ERR_OR_ZERO(parent_device);
	if (result)
		goto no_device;
	result = mdev_register_parent(&parent, parent_device, &driver, types, ARRAY_SIZE(types));
	if (!result)
		return 0;
	device_unregister(parent_device);
no_device:
	mdev_unregister_driver(&driver);
no_driver:
	class_unregister(&parent_class);
	return result;
}

static void __exit migtest_exit(void)
{
	mdev_unregister_parent(&parent);
	device_unregister(parent_device);
	mdev_unregister_driver(&driver);
	class_unregister(&parent_class);
}

module_init(migtest_init);
module_exit(migtest_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A VFIO device that migrates, and misbehaves when it is told to");
