// The device and the link of device.h.

#include "device.h"

#include <errno.h>
#include <string.h>

// ISO C has no such number; any will do that is not 0.
#ifndef EIO
#define EIO 5
#endif

static int fails(faults *faults)
{
    if (faults == NULL)
        return 0;
    faults->done++;
    return faults->done == faults->first || faults->done == faults->second || faults->done == faults->third;
}

static size_t least(size_t one, size_t other)
{
    return one < other ? one : other;
}

static size_t limited(size_t count, size_t most)
{
    return most == 0 ? count : least(count, most);
}

static uint32_t sum(const uint8_t *bytes, size_t count)
{
    uint32_t sum = 2166136261u;
    for (size_t i = 0; i < count; i++)
        sum = (sum ^ bytes[i]) * 16777619u;
    return sum;
}

static void put_sum(uint8_t *content, size_t size)
{
    uint32_t value = sum(content, size - 4);
    memcpy(content + size - 4, &value, 4);
}

void device_begin(device *device, size_t size, uint8_t seed, faults *faults)
{
    uint8_t bytes[CONTENT_MAX];
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(seed + i * 7 + i / 11);
    put_sum(bytes, size);
    device_hold(device, bytes, size, faults);
    device->checks = 1;
}

void device_hold(device *device, const uint8_t *bytes, size_t size, faults *faults)
{
    memset(device, 0, sizeof *device);
    device->state = VFIO_STATE_RUNNING;
    device->features = 7;
    memcpy(device->content, bytes, size);
    device->size = size;
    device->early = size / 2;
    device->faults = faults;
}

int device_has_same(const device *one, const device *other)
{
    return one->size == other->size && memcmp(one->content, other->content, one->size) == 0;
}

int device_is_empty(const device *device)
{
    return device->size == 0;
}

// Whether what came is a state of this kind of device.
static int is_accepted(const device *device)
{
    uint32_t value;
    if (!device->checks)
        return device->incoming_size > 0;
    if (device->incoming_size < 4)
        return 0;
    memcpy(&value, device->incoming + device->incoming_size - 4, 4);
    return value == sum(device->incoming, device->incoming_size - 4);
}

static int is_pre_copy(uint32_t state)
{
    return state == VFIO_STATE_PRE_COPY || state == VFIO_STATE_PRE_COPY_P2P;
}

// Whether the device has a state, and can be brought there from where it is.
static int is_reachable(const device *device, uint32_t state)
{
    int p2p = (device->features & 2) != 0, pre_copy = (device->features & 4) != 0;
    switch (state) {
    case VFIO_STATE_STOP:
    case VFIO_STATE_RUNNING:
    case VFIO_STATE_RESUMING:
    case VFIO_STATE_STOP_COPY:
        return device->state != VFIO_STATE_ERROR;
    case VFIO_STATE_RUNNING_P2P:
        return device->state != VFIO_STATE_ERROR && p2p;
    case VFIO_STATE_PRE_COPY:
        return device->state != VFIO_STATE_ERROR && device->state != VFIO_STATE_STOP_COPY && pre_copy;
    case VFIO_STATE_PRE_COPY_P2P:
        return device->state != VFIO_STATE_ERROR && device->state != VFIO_STATE_STOP_COPY && p2p && pre_copy;
    default:
        return 0;
    }
}

int32_t device_set_state(device *device, uint32_t state)
{
    if (fails(device->faults))
        return EIO;
    if (!is_reachable(device, state))
        return EINVAL;
    if (device->state == state)
        return 0;
    if (device->state == VFIO_STATE_RESUMING) {
        if (!is_accepted(device))
            return EINVAL;
        memcpy(device->content, device->incoming, device->incoming_size);
        device->size = device->incoming_size;
    }
    if (state == VFIO_STATE_RESUMING) {
        device->size = 0;
        device->incoming_size = 0;
    }
    // PRE_COPY to STOP_COPY keeps the data session.
    if (!(is_pre_copy(device->state) && (is_pre_copy(state) || state == VFIO_STATE_STOP_COPY)))
        device->at = 0;
    device->state = state;
    return 0;
}

int32_t device_precopy(device *device, vfio_precopy_left *left)
{
    if (fails(device->faults))
        return EIO;
    if (!is_pre_copy(device->state))
        return EINVAL;
    left->initial_bytes = device->early - device->at;
    left->dirty_bytes = 0;
    left->reinit = 0;
    return 0;
}

void device_read(device *device, vfio_room room, vfio_done *done)
{
    size_t end = is_pre_copy(device->state) ? device->early : device->size;
    size_t count = limited(least(end - device->at, room.length), device->most);
    if (fails(device->faults)) {
        done->error = EIO;
        return;
    }
    if (!is_pre_copy(device->state) && device->state != VFIO_STATE_STOP_COPY) {
        done->error = EINVAL;
        return;
    }
    if (count == 0 && is_pre_copy(device->state) && device->answers_enomsg) {
        done->kind = VFIO_EFFECT_DRAINED;
        return;
    }
    memcpy(room.bytes, device->content + device->at, count);
    device->at += count;
    done->u.count = count;
}

int32_t device_write(device *device, vfio_bytes bytes, size_t *count)
{
    size_t taken = limited(bytes.length, device->most);
    if (fails(device->faults))
        return EIO;
    if (device->state != VFIO_STATE_RESUMING || taken > sizeof device->incoming - device->incoming_size)
        return EINVAL;
    memcpy(device->incoming + device->incoming_size, bytes.bytes, taken);
    device->incoming_size += taken;
    *count = taken;
    return 0;
}

int32_t device_reset(device *device)
{
    if (fails(device->faults))
        return EIO;
    device->state = VFIO_STATE_RUNNING;
    device->size = 0;
    device->incoming_size = 0;
    device->resets++;
    return 0;
}

int32_t link_send(link *link, vfio_bytes bytes, size_t *count)
{
    size_t taken = least(limited(bytes.length, link->most), sizeof link->bytes - link->sent);
    if (fails(link->faults))
        return EIO;
    memcpy(link->bytes + link->sent, bytes.bytes, taken);
    link->sent += taken;
    *count = link->boasts ? bytes.length + 1 : taken;
    return 0;
}

int32_t link_send_config(link *link)
{
    if (fails(link->faults) || link->config_length > sizeof link->bytes - link->sent)
        return EIO;
    memcpy(link->bytes + link->sent, link->config, link->config_length);
    link->sent += link->config_length;
    return 0;
}

int32_t link_recv(link *link, vfio_room room, size_t *count)
{
    size_t taken = limited(least(room.length, link->sent - link->received), link->most);
    if (fails(link->faults))
        return EIO;
    memcpy(room.bytes, link->bytes + link->received, taken);
    link->received += taken;
    *count = taken;
    return 0;
}

int32_t link_recv_config(link *link, uint64_t *length)
{
    // A CONFIG that nobody expects is refused: a tag of one flipped bit looks like it.
    if (fails(link->faults) || link->config_length == 0 || link->config_length > link->sent - link->received)
        return EIO;
    memcpy(link->config, link->bytes + link->received, link->config_length);
    link->received += link->config_length;
    *length = link->config_length;
    return 0;
}
