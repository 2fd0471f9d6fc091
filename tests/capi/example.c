// The example that the header shows, as the tests run it.

#include "device.h"
#include "migrate.h"

// In the header from here.
// Carries out the order that a source was given; `phase` is where it then stands. Failures go into complete like all
// else: the session then wants what brings the device back. An answer but VFIO_STATUS_OK is a mistake in this program and
// leaves the device where it is: give vfio_source_cancel, and carry that out.
vfio_status carry_out(vfio_source *source, device *device, link *link, vfio_phase *phase)
{
    for (;;) {
        vfio_effect effect;
        vfio_event event;
        vfio_status status = vfio_source_poll(source, &effect);
        if (status != VFIO_STATUS_OK)
            return status;
        vfio_done done = { .kind = effect.kind };
        switch (effect.kind) {
        case VFIO_EFFECT_SET_STATE:    done.error = device_set_state(device, effect.u.state); break;
        case VFIO_EFFECT_PRECOPY_INFO: done.error = device_precopy(device, &done.u.precopy_left); break;
        case VFIO_EFFECT_READ_DATA:    device_read(device, effect.u.room, &done); break;
        case VFIO_EFFECT_SEND:         done.error = link_send(link, effect.u.bytes, &done.u.count); break;
        case VFIO_EFFECT_SEND_CONFIG:  done.error = link_send_config(link); break;
        case VFIO_EFFECT_RESET:        done.error = device_reset(device); break; // and arm the interrupts again
        default:                       *phase = effect.u.phase; return status;   // VFIO_EFFECT_IDLE
        }
        status = vfio_source_complete(source, &done, &event);
        if (status != VFIO_STATUS_OK)
            return status;
        trace(&event); // one event for each thing done, whether it worked or not; vfio_event_show has it in words
    }
}

// Sends the state of a stopped machine's device; any buffer from VFIO_BUFFER_MIN bytes up will do. With VFIO_STATUS_OK
// the phase is VFIO_PHASE_STOPPED, or VFIO_PHASE_FAILED with the first cause and where the device is now.
vfio_status send_state(device *device, link *link, uint8_t *buffer, size_t length, vfio_phase *phase)
{
    static vfio_source source;
    vfio_status status = vfio_source_init(&source, device->features, VFIO_STATE_RUNNING, 0, buffer, length);
    if (status == VFIO_STATUS_OK)
        status = vfio_source_setup(&source, 0); // the payload of a START section
    while (status == VFIO_STATUS_OK) {
        status = carry_out(&source, device, link, phase);
        if (status != VFIO_STATUS_OK)
            break;
        switch (phase->kind) {
        case VFIO_PHASE_SET_UP:  status = vfio_source_stop(&source); break;
        case VFIO_PHASE_COPYING: status = vfio_source_copy_rest(&source); break; // the payload of an END section
        case VFIO_PHASE_COPIED:  status = vfio_source_finish(&source); break;
        default:                 return status;
        }
    }
    return status;
}
// In the header up to here.
