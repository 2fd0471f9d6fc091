// A device and a link in memory, for the tests of the C interface. Both can fail at any operation.
//
// The device obeys the kernel's rules: its states, when it can be read and written, and that a state is accepted or
// refused as a whole on the way from RESUMING to STOP. Deliberately absent: anything of the library but its structures.

#ifndef DEVICE_H
#define DEVICE_H

#include <stddef.h>
#include <stdint.h>

#include "vfio_migration.h"

#define CONTENT_MAX 512
#define LINK_MAX 16384

// Which operations fail, counted from 1 over device and link together; 0 for none.
typedef struct faults {
    unsigned done;
    unsigned first, second, third;
} faults;

typedef struct device {
    uint32_t state;
    uint64_t features;
    // What it holds, and how much of that.
    uint8_t content[CONTENT_MAX];
    size_t size;
    // Whether the last four bytes of its content are the sum of the others, which it checks.
    int checks;
    // How much can be read in PRE_COPY; the rest comes in STOP_COPY.
    size_t early;
    // Whether it answers ENOMSG in PRE_COPY where it has nothing now, in the place of 0 bytes.
    int answers_enomsg;
    // Bytes that a read or a write takes at most; 0 for no limit.
    size_t most;
    // The data session.
    size_t at;
    uint8_t incoming[CONTENT_MAX];
    size_t incoming_size;
    unsigned resets;
    faults *faults;
} device;

typedef struct link {
    uint8_t bytes[LINK_MAX];
    // Bytes that were sent, or that there are to receive, and how many were received.
    size_t sent, received;
    // Whether it says that it took one byte more than it was offered.
    int boasts;
    // Bytes that a send or a receive takes at most; 0 for no limit.
    size_t most;
    // The configuration's body: what is sent, or where what is received goes; 0 bytes where there is none.
    uint8_t config[LINK_MAX];
    size_t config_length;
    faults *faults;
} link;

// A device in RUNNING that holds `size` bytes which depend on `seed`, the last four of them their sum.
void device_begin(device *device, size_t size, uint8_t seed, faults *faults);
// A device in RUNNING that holds bytes of the caller's and checks none.
void device_hold(device *device, const uint8_t *bytes, size_t size, faults *faults);
int device_has_same(const device *one, const device *other);
// Whether its content is what a reset leaves: none.
int device_is_empty(const device *device);

int32_t device_set_state(device *device, uint32_t state);
int32_t device_precopy(device *device, vfio_precopy_left *left);
void device_read(device *device, vfio_room room, vfio_done *done);
int32_t device_write(device *device, vfio_bytes bytes, size_t *count);
int32_t device_reset(device *device);

int32_t link_send(link *link, vfio_bytes bytes, size_t *count);
int32_t link_send_config(link *link);
int32_t link_recv(link *link, vfio_room room, size_t *count);
int32_t link_recv_config(link *link, uint64_t *length);

#endif
