// VFIO device migration, protocol v2, for hypervisors in C: state machine and QEMU's stream, without allocator and
// without I/O.
//
// A session, a `vfio_source` or a `vfio_destination`, takes an order, then says one effect at a time that it wants
// done, and is told how it went, until it is idle. The caller makes the system calls. There is no callback.
//
// Memory. The caller gives a session its storage and lends it a buffer; both may be static. From `_init` until its last
// call a session owns both: storage must not be copied or moved (a copy is answered with
// `VFIO_STATUS_NOT_INITIALISED`), and of the buffer only what the last `_poll` has handed out may be touched, through
// the pointer that it handed out and no other, up to the next `_poll`, `_complete` or order. There is nothing to free: a
// session that is called no more is over. Its device is not: leave a session in the middle with `_cancel`, and carry
// that out.
//
// Threads. One call at a time for each session, from wherever; sessions know nothing of each other.
//
// Mistakes. Every function returns a `vfio_status`; but for `VFIO_STATUS_OK` nothing has changed, save where it says
// otherwise. NULL, misaligned pointers, storage without a session and numbers that name nothing are answered so. What
// can't be told, and is undefined as elsewhere in C: pointers to memory that is not there, is shorter than was said, or
// that another thread uses; and values that were never set, of which storage that is not static and was not begun is one.
// Numbers that name something are `uint32_t` in all structures; each says of which enumeration it takes one. What is yes
// or no is a `uint32_t` too, 0 for no and anything else for yes.
//
// Linking. `cargo build --release --manifest-path core/capi/Cargo.toml --target-dir target/capi`, for another machine with
// `--target`, makes `libvfio_migration.a`, which needs memcpy and memset and nothing else; for machines without an
// operating system it has them within. A panic of it would call `vfio_migration_panicked`, which nobody defines: a
// program that links can't panic. With `opt-level = "z"` Rust's own printing of numbers keeps checks that the compiler
// does not see through; leave the functions ending in `_show` out then (`--gc-sections`), or define that function so
// that it does not return.
//
// Deliberately absent: I/O, a clock, and policy: when to migrate, when to stop copying, how long to wait.
//
// Example:
//
//     // Carries out the order that a source was given; `phase` is where it then stands. Failures go into complete like all
//     // else: the session then wants what brings the device back. An answer but VFIO_STATUS_OK is a mistake in this program and
//     // leaves the device where it is: give vfio_source_cancel, and carry that out.
//     vfio_status carry_out(vfio_source *source, device *device, link *link, vfio_phase *phase)
//     {
//         for (;;) {
//             vfio_effect effect;
//             vfio_event event;
//             vfio_status status = vfio_source_poll(source, &effect);
//             if (status != VFIO_STATUS_OK)
//                 return status;
//             vfio_done done = { .kind = effect.kind };
//             switch (effect.kind) {
//             case VFIO_EFFECT_SET_STATE:    done.error = device_set_state(device, effect.u.state); break;
//             case VFIO_EFFECT_PRECOPY_INFO: done.error = device_precopy(device, &done.u.precopy_left); break;
//             case VFIO_EFFECT_READ_DATA:    device_read(device, effect.u.room, &done); break;
//             case VFIO_EFFECT_SEND:         done.error = link_send(link, effect.u.bytes, &done.u.count); break;
//             case VFIO_EFFECT_SEND_CONFIG:  done.error = link_send_config(link); break;
//             case VFIO_EFFECT_RESET:        done.error = device_reset(device); break; // and arm the interrupts again
//             default:                       *phase = effect.u.phase; return status;   // VFIO_EFFECT_IDLE
//             }
//             status = vfio_source_complete(source, &done, &event);
//             if (status != VFIO_STATUS_OK)
//                 return status;
//             trace(&event); // one event for each thing done, whether it worked or not; vfio_event_show has it in words
//         }
//     }
//
//     // Sends the state of a stopped machine's device; any buffer from VFIO_BUFFER_MIN bytes up will do. With VFIO_STATUS_OK
//     // the phase is VFIO_PHASE_STOPPED, or VFIO_PHASE_FAILED with the first cause and where the device is now.
//     vfio_status send_state(device *device, link *link, uint8_t *buffer, size_t length, vfio_phase *phase)
//     {
//         static vfio_source source;
//         vfio_status status = vfio_source_init(&source, device->features, VFIO_STATE_RUNNING, 0, buffer, length);
//         if (status == VFIO_STATUS_OK)
//             status = vfio_source_setup(&source, 0); // the payload of a START section
//         while (status == VFIO_STATUS_OK) {
//             status = carry_out(&source, device, link, phase);
//             if (status != VFIO_STATUS_OK)
//                 break;
//             switch (phase->kind) {
//             case VFIO_PHASE_SET_UP:  status = vfio_source_stop(&source); break;
//             case VFIO_PHASE_COPYING: status = vfio_source_copy_rest(&source); break; // the payload of an END section
//             case VFIO_PHASE_COPIED:  status = vfio_source_finish(&source); break;
//             default:                 return status;
//             }
//         }
//         return status;
//     }
//
// Generated by `cargo xtask capi --bless` from core/capi/src: change that.

#ifndef VFIO_MIGRATION_H
#define VFIO_MIGRATION_H

#include <stddef.h>
#include <stdint.h>

// The smallest buffer that a session takes, in bytes.
#define VFIO_BUFFER_MIN 64

// Where in a source's buffer data are read to, in bytes.
#define VFIO_SOURCE_DATA_AT 16

// Bytes of a source's buffer that are no data. A buffer of whole pages and so many bytes more, in which the data begin
// with a page, lets a driver copy whole pages.
#define VFIO_SOURCE_HEADERS 24

// The bytes of a tag, and of a DATA record's length.
#define VFIO_WORD 8

// What stands before the bytes of a DATA record: tag and length, in bytes.
#define VFIO_DATA_HEAD 16

// Bytes of what a stream begins with: "QEVM" and version 3.
#define VFIO_PREAMBLE 8

// Bytes of what stands behind a section's payload.
#define VFIO_FOOTER 5

// The longest name that a section can have, in bytes.
#define VFIO_NAME_MAX 255

// The longest item, in bytes: the begin of a section with the longest name.
#define VFIO_ITEM_MAX 269

// The command behind which the source has stopped: what is left of each device follows.
#define VFIO_SWITCHOVER_START 11

// The longest message that is encoded, in bytes.
#define VFIO_MESSAGE_MAX 8

// What a function answers. But for VFIO_STATUS_OK it is the caller's mistake, or says of bytes that they are not what
// was wanted.
enum vfio_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // It was done.
    VFIO_STATUS_OK = 0,
    // The order is not possible in the session's phase, or an order is still being carried out.
    VFIO_STATUS_WRONG_ORDER = 1,
    // What was reported is not what was asked for last, or nothing was asked for since the last order.
    VFIO_STATUS_WRONG_DONE = 2,
    // More bytes were reported than were offered.
    VFIO_STATUS_TOO_MANY = 3,
    // The buffer is shorter than VFIO_BUFFER_MIN.
    VFIO_STATUS_SMALL_BUFFER = 4,
    // The device's driver does not have the state that the order leads to.
    VFIO_STATUS_NO_STATE = 5,
    // A migration can't begin in this state: only in RUNNING, or in STOP for the device of a paused machine.
    VFIO_STATUS_WRONG_STATE = 6,
    // A pointer is NULL that must not be.
    VFIO_STATUS_NULL = 7,
    // A pointer is not aligned for its type.
    VFIO_STATUS_MISALIGNED = 8,
    // The storage holds no session of this kind, or one that was copied here from elsewhere.
    VFIO_STATUS_NOT_INITIALISED = 9,
    // A number names nothing: a kind, a state, a tag.
    VFIO_STATUS_UNKNOWN_VALUE = 10,
    // The features lack STOP_COPY: such a device can't be migrated.
    VFIO_STATUS_NOT_MIGRATABLE = 11,
    // The buffer is longer than any memory can be, or overlaps the session's storage.
    VFIO_STATUS_BAD_MEMORY = 12,
    // The bytes are not whole; the length says how many are wanted at least.
    VFIO_STATUS_SHORT = 13,
    // There is too little room; the length says how much is wanted.
    VFIO_STATUS_NO_ROOM = 14,
    // The bytes are not what was wanted.
    VFIO_STATUS_DAMAGED = 15,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vfio_status vfio_status;
#else
typedef uint32_t vfio_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// A device's migration state, by the uapi's numbers (enum vfio_device_mig_state).
enum vfio_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The device has failed. Only a reset leaves this state, and it can't be asked for.
    VFIO_STATE_ERROR = 0,
    // The device does not change its own state and does no DMA.
    VFIO_STATE_STOP = 1,
    // The device works; the state after open and after a reset.
    VFIO_STATE_RUNNING = 2,
    // The device is stopped and its state can be read.
    VFIO_STATE_STOP_COPY = 3,
    // The device is stopped and a state can be written into it.
    VFIO_STATE_RESUMING = 4,
    // The device works, but starts no peer-to-peer DMA of its own.
    VFIO_STATE_RUNNING_P2P = 5,
    // The device works and the part of its state that can be copied early can be read.
    VFIO_STATE_PRE_COPY = 6,
    // As PRE_COPY, without peer-to-peer DMA of its own.
    VFIO_STATE_PRE_COPY_P2P = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vfio_state vfio_state;
#else
typedef uint32_t vfio_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Where an idle session stands.
enum vfio_phase_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Nothing has begun; the device is in `u.state`.
    VFIO_PHASE_READY = 1,
    // Source: the START payload is out; the device is as it was.
    VFIO_PHASE_SET_UP = 2,
    // Source: the device is in PRE_COPY and works; `u.chunk` is how far the copy is.
    VFIO_PHASE_PRE_COPY = 3,
    // Source: the device is in RUNNING_P2P or PRE_COPY_P2P: it starts no DMA to other devices.
    VFIO_PHASE_QUIESCED = 4,
    // Source: the device is in STOP_COPY and its data are still in it.
    VFIO_PHASE_COPYING = 5,
    // Source: the device is in STOP_COPY and all its data are out.
    VFIO_PHASE_COPIED = 6,
    // The device is in STOP. Source: the migration is over for this side. Destination: the new state is in it.
    VFIO_PHASE_STOPPED = 7,
    // Destination: the device is in RESUMING and takes its first section.
    VFIO_PHASE_RESUMING = 8,
    // Destination: the device is in RESUMING; the last section ended with the record `u.tag`.
    VFIO_PHASE_SECTION = 9,
    // Destination: the device is in RUNNING_P2P: it works, and starts no DMA to other devices.
    VFIO_PHASE_RUNNING_P2P = 10,
    // Destination: the device runs.
    VFIO_PHASE_RUNNING = 11,
    // The migration failed: `u.failure`.
    VFIO_PHASE_FAILED = 12,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vfio_phase_kind vfio_phase_kind;
#else
typedef uint32_t vfio_phase_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What went wrong first, whatever recovery met after it. Offsets count from the first byte of the section's payload.
enum vfio_cause_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The caller cancelled.
    VFIO_CAUSE_CANCELLED = 1,
    // The kernel refused `state` with `code`.
    VFIO_CAUSE_REFUSED = 2,
    // The device could not say how much PRE_COPY has left: `code`.
    VFIO_CAUSE_PRECOPY_INFO = 3,
    // The device's data could not be read: `code`.
    VFIO_CAUSE_READ_DATA = 4,
    // The device said "nothing now" in STOP_COPY, where only the end may follow the data.
    VFIO_CAUSE_DRAINED_IN_STOP_COPY = 5,
    // The link refused bytes: `code`.
    VFIO_CAUSE_SEND = 6,
    // The link took no byte: its other end is gone.
    VFIO_CAUSE_SEND_CLOSED = 7,
    // The link refused the configuration's body: `code`.
    VFIO_CAUSE_SEND_CONFIG = 8,
    // The link gave `code` in the place of the bytes at `offset`.
    VFIO_CAUSE_RECV = 9,
    // The link ended at `offset`, inside a payload; the record wanted `missing` more bytes.
    VFIO_CAUSE_RECV_CLOSED = 10,
    // The device refused the data at `offset`: `code`.
    VFIO_CAUSE_WRITE_DATA = 11,
    // The device took no byte of the data at `offset`.
    VFIO_CAUSE_WRITE_DATA_ZERO = 12,
    // The configuration's body at `offset` could not be read or is not this device's: `code`.
    VFIO_CAUSE_RECV_CONFIG = 13,
    // A record's tag was wanted at `offset`, and no tag has the number `got`.
    VFIO_CAUSE_UNKNOWN_TAG = 14,
    // The record `tag` wants an END_OF_STATE behind it, at `offset`, and there was `got`.
    VFIO_CAUSE_UNTERMINATED = 15,
    // The record `tag` at `offset` is one that this session was not told to expect.
    VFIO_CAUSE_UNEXPECTED = 16,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vfio_cause_kind vfio_cause_kind;
#else
typedef uint32_t vfio_cause_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Where a failed session left its device.
enum vfio_left
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // In a state that is known.
    VFIO_LEFT_AT = 1,
    // Reset: RUNNING, but the guest's state in it is gone and its interrupts must be armed again.
    VFIO_LEFT_RESET = 2,
    // The reset was refused too. Nothing is known of the device.
    VFIO_LEFT_UNKNOWN = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vfio_left vfio_left;
#else
typedef uint32_t vfio_left;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What an arc does to the data session, the data_fd of VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE.
enum vfio_data_session
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The kernel refuses the arc.
    VFIO_DATA_SESSION_REFUSED = 0,
    // Neither end of the arc has a session.
    VFIO_DATA_SESSION_ABSENT = 1,
    // The arc starts a session: the kernel returns a new data_fd.
    VFIO_DATA_SESSION_OPENS = 2,
    // The session goes on with the data_fd that is already there; the kernel returns -1.
    VFIO_DATA_SESSION_KEPT = 3,
    // The session is over: the old data_fd answers ENODEV and must be closed.
    VFIO_DATA_SESSION_ENDS = 4,
    // The old session is over and a new one starts: close the old data_fd, take the new one.
    VFIO_DATA_SESSION_REPLACED = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vfio_data_session vfio_data_session;
#else
typedef uint32_t vfio_data_session;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What a session can want, and what was done.
enum vfio_effect_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // SET the state `u.state`.
    VFIO_EFFECT_SET_STATE = 1,
    // Source: ask the data fd for its PRECOPY_INFO, with a zeroed structure. Answer with `u.precopy_left`.
    VFIO_EFFECT_PRECOPY_INFO = 2,
    // Source: one read of the data fd into `u.room`. Answer with `u.count`; 0 is the end of the data.
    VFIO_EFFECT_READ_DATA = 3,
    // Source: give `u.bytes` to the link; it may take fewer. Answer with `u.count`; 0 where its other end is gone.
    VFIO_EFFECT_SEND = 4,
    // Source: give the whole body of the configuration to the link.
    VFIO_EFFECT_SEND_CONFIG = 5,
    // Destination: take bytes off the link into `u.room`, from the front; fewer will do. Answer with `u.count`; 0
    // where the link has ended.
    VFIO_EFFECT_RECV = 6,
    // Destination: one write of `u.bytes` to the data fd; it may take fewer. Answer with `u.count`.
    VFIO_EFFECT_WRITE_DATA = 7,
    // Destination: take the whole body of the configuration off the link and apply it. Answer with `u.length`.
    VFIO_EFFECT_RECV_CONFIG = 8,
    // Reset the device, then arm its interrupts again.
    VFIO_EFFECT_RESET = 9,
    // Nothing: give the next order. `u.phase` is where the session stands.
    VFIO_EFFECT_IDLE = 10,
    // Never wanted: the answer to VFIO_EFFECT_READ_DATA where the read failed with ENOMSG, "nothing now"; `error` is 0 then.
    VFIO_EFFECT_DRAINED = 11,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vfio_effect_kind vfio_effect_kind;
#else
typedef uint32_t vfio_effect_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What a record is. On the wire the number stands in 0xffffffffef100000, big-endian, in eight bytes.
enum vfio_tag
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Ends a payload (VFIO_MIG_FLAG_END_OF_STATE).
    VFIO_TAG_END_OF_STATE = 1,
    // The device's configuration: a body, then END_OF_STATE (VFIO_MIG_FLAG_DEV_CONFIG_STATE).
    VFIO_TAG_CONFIG = 2,
    // The first record of a migration; END_OF_STATE must follow (VFIO_MIG_FLAG_DEV_SETUP_STATE).
    VFIO_TAG_SETUP = 3,
    // A length and that many bytes of the device's state (VFIO_MIG_FLAG_DEV_DATA_STATE).
    VFIO_TAG_DATA = 4,
    // The source has sent all initial data. Ends a payload (VFIO_MIG_FLAG_DEV_INIT_DATA_SENT).
    VFIO_TAG_INIT_DATA_SENT = 5,
    // The configuration that came by multifd may be loaded. Ends a payload (VFIO_MIG_FLAG_DEV_CONFIG_LOAD_READY).
    VFIO_TAG_CONFIG_LOAD_READY = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vfio_tag vfio_tag;
#else
typedef uint32_t vfio_tag;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What a decoder wants next.
enum vfio_wanted_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The next VFIO_WORD bytes, for vfio_decoder_word.
    VFIO_WANTED_WORD = 1,
    // `length` bytes of the device's state at most, for the device; then their number to vfio_decoder_data.
    VFIO_WANTED_DATA = 2,
    // The body of a CONFIG record; then its length to vfio_decoder_config.
    VFIO_WANTED_CONFIG = 3,
    // Nothing: the payload is whole, and ended with `tag`.
    VFIO_WANTED_NOTHING = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vfio_wanted_kind vfio_wanted_kind;
#else
typedef uint32_t vfio_wanted_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What stands between payloads; all numbers are big-endian on the wire.
enum vfio_item_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The machine's name, `length` bytes, follows; none in a stream that holds only VFIO sections.
    VFIO_ITEM_CONFIGURATION = 1,
    // A part of the configuration that only some machines have: `name`, `version`; its body follows, whose length its
    // name tells.
    VFIO_ITEM_SUBSECTION = 2,
    // The first of a device's sections: `id`, `name`, `instance`, `version`; its payload follows.
    VFIO_ITEM_START = 3,
    // A section between START and END: `id`; its payload follows.
    VFIO_ITEM_PART = 4,
    // The last section of its id but for a FULL: `id`; its payload follows.
    VFIO_ITEM_END = 5,
    // A section that stands alone: `id`, `name`, `instance`, `version`; its payload follows.
    VFIO_ITEM_FULL = 6,
    // What the source tells the destination between two sections: `command`; `length` bytes of data follow.
    VFIO_ITEM_COMMAND = 7,
    // The end byte: no section follows, at most a description.
    VFIO_ITEM_END_OF_STREAM = 8,
    // The description, `length` bytes of JSON, follows.
    VFIO_ITEM_DESCRIPTION = 9,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vfio_item_kind vfio_item_kind;
#else
typedef uint32_t vfio_item_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What kind of message it is, by QEMU's numbers.
enum vfio_message_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The return path ends: `value` is 0 where the destination has loaded all, else it has failed.
    VFIO_MESSAGE_SHUT = 1,
    // Answer to a PING of the stream: its `value`.
    VFIO_MESSAGE_PONG = 2,
    // Postcopy asks for pages of a named block; `length` bytes of data follow.
    VFIO_MESSAGE_REQ_PAGES_ID = 3,
    // Postcopy asks for pages of the same block; `length` bytes of data follow.
    VFIO_MESSAGE_REQ_PAGES = 4,
    // Recovery tells which pages have come; `length` bytes of data follow.
    VFIO_MESSAGE_RECV_BITMAP = 5,
    // Recovery goes on; `length` bytes of data follow.
    VFIO_MESSAGE_RESUME_ACK = 6,
    // The devices have all initial data, of which INIT_DATA_SENT told: the source may stop.
    VFIO_MESSAGE_SWITCHOVER_ACK = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vfio_message_kind vfio_message_kind;
#else
typedef uint32_t vfio_message_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The sending side of one device: storage for the session, begun with vfio_source_init. It may be static. Its content
// is the session's alone.
//
// Orders on the way of a stop-copy migration: setup, stop, copy_rest, for a PCI device config, then finish. With
// pre-copy, measure and copy_chunk come before stop, as often as the caller likes, and where several devices migrate
// together quiesce. setup, copy_chunk, copy_rest and config each write the payload of one section, the other orders
// nothing. Carry an order out with vfio_source_poll and vfio_source_complete until the effect is VFIO_EFFECT_IDLE.
//
// What goes wrong with the data or the link brings the device back to the state it came from, as vfio_source_cancel
// does, or after quiesce as far as RUNNING_P2P, as vfio_source_retreat does.
typedef struct vfio_source {
    // The session's.
    uint64_t words[16];
} vfio_source;

// Room for bytes. It is the session's, and stays there up to its next call.
typedef struct vfio_room {
    // Where the first one goes.
    uint8_t *bytes;
    // How many there may be.
    size_t length;
} vfio_room;

// Bytes to read. They are the session's, and stay there up to its next call.
typedef struct vfio_bytes {
    // The first one.
    const uint8_t *bytes;
    // How many there are.
    size_t length;
} vfio_bytes;

// What a device says of its pre-copy data, VFIO_MIG_GET_PRECOPY_INFO.
typedef struct vfio_precopy_left {
    // Bytes that the destination should have before the switchover for it to be quick.
    uint64_t initial_bytes;
    // Bytes that have changed since they were read.
    uint64_t dirty_bytes;
    // Whether the device has started its initial data anew (VFIO_PRECOPY_INFO_REINIT).
    uint32_t reinit;
} vfio_precopy_left;

// How far the pre-copy of one device is.
typedef struct vfio_chunk {
    // Bytes of data in the last chunk; 0 where the device had nothing: wait before the next.
    size_t bytes;
    // What the device has left: its last answer less what was read since.
    struct vfio_precopy_left left;
    // Whether `left` is known: not before the first answer.
    uint32_t left_known;
    // Whether INIT_DATA_SENT stands behind all initial data.
    uint32_t init_data_sent;
} vfio_chunk;

// Why a session failed. What its kind does not name is 0.
typedef struct vfio_cause {
    // Of enum vfio_cause_kind.
    uint32_t kind;
    // Of enum vfio_state.
    uint32_t state;
    // Of enum vfio_tag.
    uint32_t tag;
    // The number with which kernel or link refused; an errno on Linux.
    int32_t code;
    // Where in the payload it was, in bytes.
    uint64_t offset;
    // Bytes.
    uint64_t missing;
    // The eight bytes that were there, as a big-endian number.
    uint64_t got;
} vfio_cause;

// How a session failed.
typedef struct vfio_failure {
    // What went wrong first.
    struct vfio_cause cause;
    // Where the device is now, of enum vfio_left.
    uint32_t left;
    // The device's state for VFIO_LEFT_AT, of enum vfio_state; RUNNING for VFIO_LEFT_RESET, otherwise 0.
    uint32_t state;
} vfio_failure;

// What belongs to a phase.
typedef union vfio_phase_of {
    // VFIO_PHASE_READY: of enum vfio_state.
    uint32_t state;
    // VFIO_PHASE_PRE_COPY.
    struct vfio_chunk chunk;
    // VFIO_PHASE_SECTION: of enum vfio_tag, VFIO_TAG_END_OF_STATE or VFIO_TAG_INIT_DATA_SENT.
    uint32_t tag;
    // VFIO_PHASE_FAILED.
    struct vfio_failure failure;
} vfio_phase_of;

// Where a session stands. It borrows nothing.
typedef struct vfio_phase {
    // Of enum vfio_phase_kind; it says which member of `u` has a meaning, if any.
    uint32_t kind;
    // What belongs to the kind.
    union vfio_phase_of u;
} vfio_phase;

// What belongs to an effect.
typedef union vfio_effect_of {
    // VFIO_EFFECT_SET_STATE: of enum vfio_state.
    uint32_t state;
    // VFIO_EFFECT_READ_DATA and VFIO_EFFECT_RECV.
    struct vfio_room room;
    // VFIO_EFFECT_SEND and VFIO_EFFECT_WRITE_DATA.
    struct vfio_bytes bytes;
    // VFIO_EFFECT_IDLE.
    struct vfio_phase phase;
} vfio_effect_of;

// What a session wants done.
typedef struct vfio_effect {
    // Of enum vfio_effect_kind; it says which member of `u` has a meaning, if any.
    uint32_t kind;
    // What belongs to the kind.
    union vfio_effect_of u;
} vfio_effect;

// What belongs to an answer.
typedef union vfio_done_of {
    // VFIO_EFFECT_READ_DATA, VFIO_EFFECT_SEND, VFIO_EFFECT_RECV and VFIO_EFFECT_WRITE_DATA: bytes that came or were
    // taken.
    size_t count;
    // VFIO_EFFECT_RECV_CONFIG: the length of the configuration's body, in bytes.
    uint64_t length;
    // VFIO_EFFECT_PRECOPY_INFO.
    struct vfio_precopy_left precopy_left;
} vfio_done_of;

// How an effect went.
typedef struct vfio_done {
    // The effect's own kind, or VFIO_EFFECT_DRAINED.
    uint32_t kind;
    // 0 where it went well; otherwise the number with which kernel or link refused, an errno on Linux, and `u` is not
    // looked at.
    int32_t error;
    // What belongs to the kind.
    union vfio_done_of u;
} vfio_done;

// What a session asked for, and how it went. vfio_event_show has it in words.
typedef struct vfio_event {
    // What was done and how it went.
    struct vfio_done done;
    // VFIO_EFFECT_SET_STATE: which one, of enum vfio_state; otherwise 0.
    uint32_t state;
    // VFIO_EFFECT_SET_STATE: whether this was recovery from a failure or a cancel; otherwise 0.
    uint32_t recovery;
    // Bytes that were offered, where bytes were; otherwise 0.
    size_t offered;
} vfio_event;

// The receiving side of one device: storage for the session, begun with vfio_destination_init. It may be static. Its
// content is the session's alone.
//
// Orders: resume, one section for each section of the device, then stop and run; where several devices migrate
// together, run_p2p for each of them before run for any. Carry an order out with vfio_destination_poll and
// vfio_destination_complete until the effect is VFIO_EFFECT_IDLE.
//
// Once the device is in RESUMING, whatever goes wrong ends in a reset: nothing else aborts RESUMING, and a driver that
// refused a write may let RESUMING to STOP succeed with half a state.
typedef struct vfio_destination {
    // The session's.
    uint64_t words[16];
} vfio_destination;

// Walks one payload, word by word, without holding any of it; begun with vfio_decoder_init. It may be static.
typedef struct vfio_decoder {
    // The decoder's.
    uint64_t words[5];
} vfio_decoder;

// What a payload goes on with.
typedef struct vfio_wanted {
    // Of enum vfio_wanted_kind.
    uint32_t kind;
    // VFIO_WANTED_NOTHING: of enum vfio_tag; otherwise 0.
    uint32_t tag;
    // VFIO_WANTED_DATA: bytes; otherwise 0.
    uint64_t length;
    // The bytes of the payload that were taken so far.
    uint64_t offset;
} vfio_wanted;

// What a word turned out to be.
typedef struct vfio_word {
    // The tag of a record, of enum vfio_tag; 0 for the length of a DATA record.
    uint32_t tag;
    // The length of a DATA record in bytes, where `tag` is 0; otherwise 0.
    uint64_t length;
} vfio_word;

// What stands between payloads. What its kind does not name is 0 when decoded, and not looked at when encoded.
typedef struct vfio_item {
    // Of enum vfio_item_kind.
    uint32_t kind;
    // The number by which later sections and the footer refer to it.
    uint32_t id;
    // The name (idstr), for a VFIO device `<device path>/vfio`; not terminated. Decoded, it lies in the bytes that
    // were decoded.
    const uint8_t *name;
    // Bytes of the name, at most VFIO_NAME_MAX.
    size_t name_length;
    // Tells sections of one name apart; 0 where there is one.
    uint32_t instance;
    // The version of the payload's layout, 1 for VFIO.
    uint32_t version;
    // Which command it is, for instance VFIO_SWITCHOVER_START; at most 65535.
    uint32_t command;
    // Bytes of what follows; for a command at most 65535.
    uint32_t length;
} vfio_item;

// A message of the return path. What its kind does not name is 0 when decoded, and not looked at when encoded.
typedef struct vfio_message {
    // Of enum vfio_message_kind.
    uint32_t kind;
    // The value of a SHUT or PONG.
    uint32_t value;
    // Bytes of data that follow a message that postcopy or recovery has; at most 65535.
    uint32_t length;
} vfio_message;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Writes into `session` what the arc between two states, of enum vfio_state, does to the data session of a device with
// `features`: of enum vfio_data_session. After a refusal by the kernel nothing of it holds.
//
// VFIO_STATUS_UNKNOWN_VALUE for a number that is no state, VFIO_STATUS_NOT_MIGRATABLE for features without STOP_COPY.
vfio_status vfio_arc(uint64_t features,
                     uint32_t from,
                     uint32_t to,
                     uint32_t *session);

// Begins a session for a device with `features` (the flags of VFIO_DEVICE_FEATURE_MIGRATION) that GET says is in state
// `now`: RUNNING, or STOP for a paused machine's device. With `switchover_ack` it sends INIT_DATA_SENT, which the
// destination must have agreed to. Of the `length` bytes of `buffer`, at least VFIO_BUFFER_MIN, all but
// VFIO_SOURCE_HEADERS hold data; the first VFIO_SOURCE_DATA_AT are not read to. The buffer is set to 0, and is the
// session's up to its last call. Storage that held a session may be begun anew.
//
// Where `source` is aligned and not NULL, what lived there before is over whatever the answer: after a refusal there is
// no session, and the buffer was set to 0 or left alone.
// Answers VFIO_STATUS_SMALL_BUFFER, VFIO_STATUS_WRONG_STATE, VFIO_STATUS_NOT_MIGRATABLE,
// VFIO_STATUS_BAD_MEMORY.
vfio_status vfio_source_init(struct vfio_source *source,
                             uint64_t features,
                             uint32_t now,
                             uint32_t switchover_ack,
                             uint8_t *buffer,
                             size_t length);

// Writes a START payload: SETUP, END_OF_STATE. With `pre_copy` the device is brought to PRE_COPY before.
//
// VFIO_STATUS_WRONG_ORDER unless the phase is READY in RUNNING or STOP, and for `pre_copy` in RUNNING: a stopped
// device can't enter PRE_COPY without running. VFIO_STATUS_NO_STATE where it has no PRE_COPY.
vfio_status vfio_source_setup(struct vfio_source *source,
                              uint32_t pre_copy);

// Asks how much PRE_COPY has left; writes nothing. For some drivers the question itself starts the next piece.
//
// VFIO_STATUS_WRONG_ORDER unless the phase is PRE_COPY.
vfio_status vfio_source_measure(struct vfio_source *source);

// Writes a PART payload: one DATA where the device has one, and END_OF_STATE, or in PRE_COPY INIT_DATA_SENT once the
// initial data are through. Where PRE_COPY has nothing now, measure is done as well; where STOP_COPY has no more, the
// phase becomes COPIED.
//
// VFIO_STATUS_WRONG_ORDER unless the phase is PRE_COPY or COPYING.
vfio_status vfio_source_copy_chunk(struct vfio_source *source);

// Keeps the device from starting DMA to others: RUNNING_P2P, or PRE_COPY_P2P in pre-copy. From here on what goes wrong
// leads back to RUNNING_P2P alone, and vfio_source_cancel to RUNNING.
//
// VFIO_STATUS_WRONG_ORDER unless the device runs and the phase is SET_UP or PRE_COPY; VFIO_STATUS_NO_STATE where it
// has no P2P.
vfio_status vfio_source_quiesce(struct vfio_source *source);

// Brings the device to STOP_COPY, from PRE_COPY with the data session that is there. The machine's processors must
// have stopped.
//
// VFIO_STATUS_WRONG_ORDER unless the phase is SET_UP, PRE_COPY or QUIESCED.
vfio_status vfio_source_stop(struct vfio_source *source);

// Writes an END payload: DATA until the device has no more, END_OF_STATE; the latter alone where all is copied.
//
// VFIO_STATUS_WRONG_ORDER unless the phase is COPYING or COPIED.
vfio_status vfio_source_copy_rest(struct vfio_source *source);

// Writes a FULL payload: CONFIG, the body by the caller, END_OF_STATE.
//
// VFIO_STATUS_WRONG_ORDER unless the phase is COPIED.
vfio_status vfio_source_config(struct vfio_source *source);

// Brings the device from STOP_COPY to STOP, which costs time in firmware and so is an order of its own: give it once
// the last byte is on its way.
//
// VFIO_STATUS_WRONG_ORDER unless the phase is COPIED.
vfio_status vfio_source_finish(struct vfio_source *source);

// Brings a finished device to RUNNING_P2P, where several devices of a machine go on together.
//
// VFIO_STATUS_WRONG_ORDER unless the phase is STOPPED; VFIO_STATUS_NO_STATE where it has no P2P.
vfio_status vfio_source_run_p2p(struct vfio_source *source);

// Brings a finished device back to RUNNING, for a machine that goes on after its state was saved.
//
// VFIO_STATUS_WRONG_ORDER unless the phase is STOPPED, or READY in RUNNING_P2P.
vfio_status vfio_source_run(struct vfio_source *source);

// Gives up: the device goes back to the state it came from. Possible at any time, also after a failure that left the
// device in another state. What was asked for last must not be in progress any more. A payload that was begun stays
// cut: close the link. Carry it out like any order; the phase becomes FAILED.
vfio_status vfio_source_cancel(struct vfio_source *source);

// As vfio_source_cancel, but after quiesce the device goes back to RUNNING_P2P, and stays there until
// vfio_source_cancel takes it on: other devices may still stand.
vfio_status vfio_source_retreat(struct vfio_source *source);

// Writes into `effect` what is wanted now. Asking twice changes nothing; "not yet" is said by not completing.
vfio_status vfio_source_poll(struct vfio_source *source, struct vfio_effect *effect);

// Takes the outcome of what vfio_source_poll asked for; the only way forward. Unless `event` is NULL, what was done is
// written there, for whoever traces.
//
// Answers VFIO_STATUS_WRONG_DONE, VFIO_STATUS_TOO_MANY, VFIO_STATUS_UNKNOWN_VALUE.
vfio_status vfio_source_complete(struct vfio_source *source,
                                 const struct vfio_done *done,
                                 struct vfio_event *event);

// Begins a session for a device with `features` (the flags of VFIO_DEVICE_FEATURE_MIGRATION) that GET says is in state
// `now`: RUNNING or STOP. With `switchover_ack` the source may send INIT_DATA_SENT, provided that the device has
// PRE_COPY. All `length` bytes of `buffer`, at least VFIO_BUFFER_MIN, take data. The buffer is set to 0, and is the
// session's up to its last call. Storage that held a session may be begun anew.
//
// Where `destination` is aligned and not NULL, what lived there before is over whatever the answer: after a refusal
// there is no session, and the buffer was set to 0 or left alone.
// Answers VFIO_STATUS_SMALL_BUFFER, VFIO_STATUS_WRONG_STATE, VFIO_STATUS_NOT_MIGRATABLE,
// VFIO_STATUS_BAD_MEMORY.
vfio_status vfio_destination_init(struct vfio_destination *destination,
                                  uint64_t features,
                                  uint32_t now,
                                  uint32_t switchover_ack,
                                  uint8_t *buffer,
                                  size_t length);

// Brings the device to RESUMING. What it held before is lost from here on.
//
// VFIO_STATUS_WRONG_ORDER unless the phase is READY.
vfio_status vfio_destination_resume(struct vfio_destination *destination);

// Takes one payload, through its terminator and not a byte more.
//
// VFIO_STATUS_WRONG_ORDER unless the phase is RESUMING or SECTION.
vfio_status vfio_destination_section(struct vfio_destination *destination);

// Brings the device from RESUMING to STOP, which makes the driver accept or refuse the state as a whole.
//
// VFIO_STATUS_WRONG_ORDER unless the phase is RESUMING or SECTION.
vfio_status vfio_destination_stop(struct vfio_destination *destination);

// Brings the device from STOP to RUNNING_P2P.
//
// VFIO_STATUS_WRONG_ORDER unless the phase is STOPPED; VFIO_STATUS_NO_STATE where it has no P2P.
vfio_status vfio_destination_run_p2p(struct vfio_destination *destination);

// Brings the device from STOP or RUNNING_P2P to RUNNING.
//
// VFIO_STATUS_WRONG_ORDER unless the phase is STOPPED or RUNNING_P2P.
vfio_status vfio_destination_run(struct vfio_destination *destination);

// Gives up: after resume the device is reset, before it nothing happens to it. Possible at any time. What was asked for
// last must not be in progress any more. Carry it out like any order; the phase becomes FAILED.
vfio_status vfio_destination_cancel(struct vfio_destination *destination);

// Writes into `tag` the record that the last section stands in or failed in, of enum vfio_tag, or 0 between two records.
vfio_status vfio_destination_record(struct vfio_destination *destination,
                                    uint32_t *tag);

// Writes into `effect` what is wanted now. Asking twice changes nothing; "not yet" is said by not completing.
vfio_status vfio_destination_poll(struct vfio_destination *destination, struct vfio_effect *effect);

// Takes the outcome of what vfio_destination_poll asked for; the only way forward. Unless `event` is NULL, what was
// done is written there, for whoever traces.
//
// Answers VFIO_STATUS_WRONG_DONE, VFIO_STATUS_TOO_MANY, VFIO_STATUS_UNKNOWN_VALUE.
vfio_status vfio_destination_complete(struct vfio_destination *destination,
                                      const struct vfio_done *done,
                                      struct vfio_event *event);

// Writes the VFIO_WORD bytes of a record that is a tag alone, every one but DATA, to `out`.
//
// VFIO_STATUS_UNKNOWN_VALUE where `tag` is not of enum vfio_tag.
vfio_status vfio_record_encode(uint32_t tag, uint8_t *out);

// Writes the VFIO_DATA_HEAD bytes that stand before the `length` bytes of a DATA record to `out`.
vfio_status vfio_record_encode_data_head(uint64_t length, uint8_t *out);

// Begins a decoder at a payload's first byte.
vfio_status vfio_decoder_init(struct vfio_decoder *decoder);

// Writes into `wanted` what the payload goes on with.
vfio_status vfio_decoder_wanted(struct vfio_decoder *decoder, struct vfio_wanted *wanted);

// Takes the next VFIO_WORD bytes. Unless they are NULL, `word` says what they are, and `cause` why they can't stand
// here; each is written in its case alone.
//
// VFIO_STATUS_DAMAGED where the word can't stand here; the decoder stays where it was. VFIO_STATUS_WRONG_ORDER where
// no word is wanted.
vfio_status vfio_decoder_word(struct vfio_decoder *decoder,
                              const uint8_t *bytes,
                              struct vfio_word *word,
                              struct vfio_cause *cause);

// Takes note of `count` bytes of a DATA record.
//
// VFIO_STATUS_WRONG_ORDER where no data are wanted, VFIO_STATUS_TOO_MANY where fewer are.
vfio_status vfio_decoder_data(struct vfio_decoder *decoder, uint64_t count);

// Takes note of the body of a CONFIG record, `length` bytes long.
//
// VFIO_STATUS_WRONG_ORDER where none is wanted.
vfio_status vfio_decoder_config(struct vfio_decoder *decoder, uint64_t length);

// Writes the item to the front of the `room` bytes of `out`, and its length in bytes into `length`, which may be NULL.
//
// VFIO_STATUS_NO_ROOM where `out` is too short, VFIO_ITEM_MAX bytes always suffice; then `length` is what was wanted.
// VFIO_STATUS_UNKNOWN_VALUE for a kind that is none, a name longer than VFIO_NAME_MAX, and a number of a command that is
// too large.
vfio_status vfio_item_encode(const struct vfio_item *item,
                             uint8_t *out,
                             size_t room,
                             size_t *length);

// Takes an item off the front of the `count` bytes, into `item`, and its length in bytes into `length`.
//
// VFIO_STATUS_SHORT: come back with `length` bytes; read exactly those, none belongs to the next item.
// VFIO_STATUS_DAMAGED where no known item begins here.
vfio_status vfio_item_decode(const uint8_t *bytes_, size_t count, struct vfio_item *item, size_t *length);

// Writes the VFIO_PREAMBLE bytes that a stream begins with to `out`.
vfio_status vfio_preamble_encode(uint8_t *out);

// Checks the first VFIO_PREAMBLE bytes of a stream: VFIO_STATUS_DAMAGED where it does not begin so.
vfio_status vfio_preamble_decode(const uint8_t *bytes);

// Writes the VFIO_FOOTER bytes behind the payload of section `id` to `out`.
vfio_status vfio_footer_encode(uint32_t id, uint8_t *out);

// Checks the VFIO_FOOTER bytes behind the payload of section `id`: VFIO_STATUS_DAMAGED where they are not its footer.
vfio_status vfio_footer_decode(uint32_t id,
                               const uint8_t *bytes);

// Writes the message, of one with data its head, to the front of the `room` bytes of `out`, and how many bytes that is
// into `length`, which may be NULL.
//
// VFIO_STATUS_NO_ROOM where `out` is too short, VFIO_MESSAGE_MAX bytes always suffice; then `length` is what was wanted.
// VFIO_STATUS_UNKNOWN_VALUE for a kind that is none and a length that no message of its kind has.
vfio_status vfio_message_encode(const struct vfio_message *message,
                                uint8_t *out,
                                size_t room,
                                size_t *length);

// Takes a message, of one with data its head, off the front of the `count` bytes, into `message`, and how many bytes
// that is into `length`.
//
// VFIO_STATUS_SHORT: come back with `length` bytes; read exactly those, none is of the next message.
// VFIO_STATUS_DAMAGED where no known message begins here, or one of a length that its kind does not have.
vfio_status vfio_message_decode(const uint8_t *bytes_,
                                size_t count,
                                struct vfio_message *message,
                                size_t *length);

// Writes an event in words to the `room` bytes of `out`, for instance "set STOP_COPY: ok" or "read data, room for 40:
// error 5", and the length of the whole text without its NUL into `length`, which may be NULL.
//
// VFIO_STATUS_NO_ROOM where it was cut; it ends in NUL all the same unless `room` is 0. The rest of `out` is set to 0.
// Where there is nothing to say, for numbers that name nothing or an `event` that can't be read, the text is empty.
vfio_status vfio_event_show(const struct vfio_event *event,
                            char *out,
                            size_t room,
                            size_t *length);

// Writes in words how a session failed, with the first cause and where its device is, as vfio_event_show does.
vfio_status vfio_failure_show(const struct vfio_failure *failure,
                              char *out,
                              size_t room,
                              size_t *length);

// Writes a cause in words, as vfio_event_show does.
vfio_status vfio_cause_show(const struct vfio_cause *cause, char *out, size_t room, size_t *length);

// Writes a function's answer in words, as vfio_event_show does.
vfio_status vfio_status_show(uint32_t status, char *out, size_t room, size_t *length);

// Writes the name of a state, for instance STOP_COPY, as vfio_event_show does.
vfio_status vfio_state_show(uint32_t state_, char *out, size_t room, size_t *length);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VFIO_MIGRATION_H */
