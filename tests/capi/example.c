// The example that the header shows, as the tests run it.

#include "device.h"
#include "migrate.h"

// In the header from here.
// Carries out the order that a source was given. Failures go into complete like all else: the session then wants what
// brings the device back. Leaving the loop early would leave the device where it is.
vfio_phase carry_out(vfio_source *source, device *device, link *link)
{
    for (;;) {
        vfio_effect effect;
        vfio_event event;
        vfio_source_poll(source, &effect);
        vfio_done done = { .kind = effect.kind };
        switch (effect.kind) {
        case VFIO_EFFECT_SET_STATE:    done.error = device_set_state(device, effect.u.state); break;
        case VFIO_EFFECT_PRECOPY_INFO: done.error = device_precopy(device, &done.u.precopy_left); break;
        case VFIO_EFFECT_READ_DATA:    device_read(device, effect.u.room, &done); break;
        case VFIO_EFFECT_SEND:         done.error = link_send(link, effect.u.bytes, &done.u.count); break;
        case VFIO_EFFECT_SEND_CONFIG:  done.error = link_send_config(link); break;
        case VFIO_EFFECT_RESET:        done.error = device_reset(device); break; // and arm the interrupts again
        default:                       return effect.u.phase;                    // VFIO_EFFECT_IDLE
        }
        vfio_source_complete(source, &done, &event);
        trace(&event); // one event for each thing done, whether it worked or not; vfio_event_show has it in words
    }
}

// Sends the state of a stopped machine's device; any buffer from VFIO_BUFFER_MIN bytes up will do.
vfio_phase send_state(device *device, link *link, uint8_t *buffer, size_t length)
{
    static vfio_source source;
    vfio_source_init(&source, device->features, VFIO_STATE_RUNNING, 0, buffer, length);
    vfio_source_setup(&source, 0); // the payload of a START section
    vfio_phase phase = carry_out(&source, device, link);
    if (phase.kind == VFIO_PHASE_SET_UP && vfio_source_stop(&source) == VFIO_STATUS_OK)
        phase = carry_out(&source, device, link);
    if (phase.kind == VFIO_PHASE_COPYING && vfio_source_copy_rest(&source) == VFIO_STATUS_OK)
        phase = carry_out(&source, device, link); // the payload of an END section
    if (phase.kind == VFIO_PHASE_COPIED && vfio_source_finish(&source) == VFIO_STATUS_OK)
        phase = carry_out(&source, device, link);
    return phase; // VFIO_PHASE_STOPPED, or VFIO_PHASE_FAILED with the first cause and where the device is now
}
// In the header up to here.
