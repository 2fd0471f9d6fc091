// Whole migrations over a link in memory: what a VMM does around the sessions.
//
// Deliberately absent: policy. A plan says what is done, in one order.

#ifndef MIGRATE_H
#define MIGRATE_H

#include "device.h"

// What a migration does.
typedef struct plan {
    uint32_t id;
    const char *name;
    // Chunks that are copied in PRE_COPY; 0 for a stop-copy migration.
    int pre_copy;
    // Chunks that are copied in STOP_COPY before the rest.
    int parts;
    // Whether a FULL with the link's configuration follows.
    int config;
    uint32_t switchover_ack;
    // Bytes of a session's buffer.
    size_t buffer;
    // The effect before which it is cancelled, counted from 1; 0 for never.
    unsigned cancel_at;
    // Whether preamble, configuration, end byte and description stand around the sections.
    int whole;
} plan;

// Why a side ended.
typedef enum ending {
    ENDED_WELL,
    // The session failed: the phase says how.
    ENDED_FAILED,
    // What stands between the payloads is not what was wanted.
    ENDED_REFUSED,
} ending;

// What a side came to.
typedef struct outcome {
    ending ending;
    vfio_phase phase;
    // Effects that were carried out, and how many of them were a SET, a reset and a cancel.
    unsigned effects;
} outcome;

outcome save(device *device, link *link, const plan *plan);
outcome load(device *device, link *link, const plan *plan);

// The loop of the example.
vfio_status carry_out(vfio_source *source, device *device, link *link, vfio_phase *phase);
vfio_status send_state(device *device, link *link, uint8_t *buffer, size_t length, vfio_phase *phase);
// The loop of the example, where the program makes no mistake.
vfio_phase carry_out_well(vfio_source *source, device *device, link *link);
// Takes note of an event: its words must be there, and say "error" exactly when it was one.
void trace(const vfio_event *event);
// How many events were traced.
unsigned traced(void);

// The description of the golden files.
extern const char DESCRIPTION[];

#endif
