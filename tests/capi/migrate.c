// The migrations of migrate.h.

#include "migrate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char DESCRIPTION[] = "{\"page_size\": 4096, \"devices\": [], \"vfio-migration\": {\"format\": 1}}";

#define BUFFER_MAX 4096

static unsigned events;

static void must(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "migrate: %s\n", what);
        abort();
    }
}

void trace(const vfio_event *event)
{
    char words[128];
    size_t length;
    must(vfio_event_show(event, words, sizeof words, &length) == VFIO_STATUS_OK, "an event has no words");
    must(length == strlen(words) && length > 0, "an event's words have another length");
    must((strstr(words, ": error ") != NULL) == (event->done.error != 0), words);
    events++;
}

unsigned traced(void)
{
    return events;
}

vfio_phase carry_out_well(vfio_source *source, device *device, link *link)
{
    vfio_phase phase;
    must(carry_out(source, device, link, &phase) == VFIO_STATUS_OK, "an order was not carried out");
    return phase;
}

// One side at work, of either role.
typedef struct side {
    device *device;
    link *link;
    const plan *plan;
    vfio_source *source;
    vfio_destination *destination;
    outcome outcome;
} side;

static void cancel(side *side)
{
    vfio_status status = side->source ? vfio_source_cancel(side->source) : vfio_destination_cancel(side->destination);
    must(status == VFIO_STATUS_OK, "cancel was not accepted");
}

static void poll(side *side, vfio_effect *effect)
{
    vfio_status status = side->source ? vfio_source_poll(side->source, effect)
                                      : vfio_destination_poll(side->destination, effect);
    must(status == VFIO_STATUS_OK, "poll was not accepted");
}

static void complete(side *side, const vfio_done *done)
{
    vfio_event event;
    vfio_status status = side->source ? vfio_source_complete(side->source, done, &event)
                                      : vfio_destination_complete(side->destination, done, &event);
    must(status == VFIO_STATUS_OK, "an answer to what was asked was not accepted");
    must(event.done.kind == done->kind, "the event is of something else");
    trace(&event);
}

// Carries an order out; whether the phase is then the wanted one.
static int carried_out(side *side, vfio_status order, uint32_t wanted)
{
    must(order == VFIO_STATUS_OK, "an order was not accepted");
    for (;;) {
        vfio_effect effect;
        poll(side, &effect);
        if (side->plan->cancel_at != 0 && side->outcome.effects + 1 == side->plan->cancel_at) {
            cancel(side);
            side->outcome.effects++;
            continue;
        }
        vfio_done done = { .kind = effect.kind };
        switch (effect.kind) {
        case VFIO_EFFECT_SET_STATE:
            done.error = device_set_state(side->device, effect.u.state);
            break;
        case VFIO_EFFECT_PRECOPY_INFO:
            done.error = device_precopy(side->device, &done.u.precopy_left);
            break;
        case VFIO_EFFECT_READ_DATA:
            device_read(side->device, effect.u.room, &done);
            break;
        case VFIO_EFFECT_SEND:
            done.error = link_send(side->link, effect.u.bytes, &done.u.count);
            break;
        case VFIO_EFFECT_SEND_CONFIG:
            done.error = link_send_config(side->link);
            break;
        case VFIO_EFFECT_RECV:
            done.error = link_recv(side->link, effect.u.room, &done.u.count);
            break;
        case VFIO_EFFECT_WRITE_DATA:
            done.error = device_write(side->device, effect.u.bytes, &done.u.count);
            break;
        case VFIO_EFFECT_RECV_CONFIG:
            done.error = link_recv_config(side->link, &done.u.length);
            break;
        case VFIO_EFFECT_RESET:
            done.error = device_reset(side->device);
            break;
        default:
            must(effect.kind == VFIO_EFFECT_IDLE, "an effect is of no known kind");
            side->outcome.phase = effect.u.phase;
            if (effect.u.phase.kind == VFIO_PHASE_FAILED)
                side->outcome.ending = ENDED_FAILED;
            return effect.u.phase.kind == wanted;
        }
        side->outcome.effects++;
        complete(side, &done);
    }
}

// Bytes of the caller's own go around the session; a link that fails there ends the migration by a cancel.
static int put(side *side, const uint8_t *bytes, size_t length)
{
    while (length > 0) {
        vfio_bytes left = { bytes, length };
        size_t count = 0;
        if (link_send(side->link, left, &count) != 0 || count == 0)
            return 0;
        bytes += count;
        length -= count;
    }
    return 1;
}

static int put_item(side *side, uint32_t kind, uint32_t length)
{
    uint8_t bytes[VFIO_ITEM_MAX];
    size_t count;
    vfio_item item = { .kind = kind, .id = side->plan->id, .version = 1, .length = length };
    item.name = (const uint8_t *)side->plan->name;
    item.name_length = strlen(side->plan->name);
    must(vfio_item_encode(&item, bytes, sizeof bytes, &count) == VFIO_STATUS_OK, "an item was not encoded");
    return put(side, bytes, count);
}

static int put_footer(side *side)
{
    uint8_t bytes[VFIO_FOOTER];
    must(vfio_footer_encode(side->plan->id, bytes) == VFIO_STATUS_OK, "a footer was not encoded");
    return put(side, bytes, sizeof bytes);
}

static int put_begin(side *side)
{
    uint8_t bytes[VFIO_PREAMBLE];
    must(vfio_preamble_encode(bytes) == VFIO_STATUS_OK, "a preamble was not encoded");
    return put(side, bytes, sizeof bytes) && put_item(side, VFIO_ITEM_CONFIGURATION, 0);
}

static int put_end(side *side)
{
    uint32_t length = sizeof DESCRIPTION - 1;
    return put_item(side, VFIO_ITEM_END_OF_STREAM, 0) && put_item(side, VFIO_ITEM_DESCRIPTION, length) &&
           put(side, (const uint8_t *)DESCRIPTION, length);
}

// PARTs, at most so many; fewer where the device has no more in STOP_COPY.
static int put_parts(side *side, int parts, uint32_t phase)
{
    for (int i = 0; i < parts && side->outcome.phase.kind == phase; i++) {
        if (!put_item(side, VFIO_ITEM_PART, 0))
            return 0;
        carried_out(side, vfio_source_copy_chunk(side->source), phase);
        if (side->outcome.ending == ENDED_FAILED || !put_footer(side))
            return 0;
    }
    return 1;
}

static int sent(side *side)
{
    const plan *plan = side->plan;
    vfio_source *source = side->source;
    return (!plan->whole || put_begin(side)) && put_item(side, VFIO_ITEM_START, 0) &&
           carried_out(side, vfio_source_setup(source, plan->pre_copy > 0),
                       plan->pre_copy > 0 ? VFIO_PHASE_PRE_COPY : VFIO_PHASE_SET_UP) &&
           put_footer(side) &&
           (plan->pre_copy == 0 || carried_out(side, vfio_source_measure(source), VFIO_PHASE_PRE_COPY)) &&
           put_parts(side, plan->pre_copy, VFIO_PHASE_PRE_COPY) &&
           carried_out(side, vfio_source_stop(source), VFIO_PHASE_COPYING) &&
           put_parts(side, plan->parts, VFIO_PHASE_COPYING) && put_item(side, VFIO_ITEM_END, 0) &&
           carried_out(side, vfio_source_copy_rest(source), VFIO_PHASE_COPIED) && put_footer(side) &&
           (!plan->config || (put_item(side, VFIO_ITEM_FULL, 0) &&
                              carried_out(side, vfio_source_config(source), VFIO_PHASE_COPIED) && put_footer(side))) &&
           (!plan->whole || put_end(side)) && carried_out(side, vfio_source_finish(source), VFIO_PHASE_STOPPED);
}

outcome save(device *device, link *link, const plan *plan)
{
    static uint8_t buffer[BUFFER_MAX];
    static vfio_source source;
    side side = { .device = device, .link = link, .plan = plan, .source = &source };
    vfio_status begun = vfio_source_init(&source, device->features, device->state, plan->switchover_ack, buffer,
                                         plan->buffer);
    must(begun == VFIO_STATUS_OK, "a source was not begun");
    if (!sent(&side) && side.outcome.ending != ENDED_FAILED) {
        side.outcome.ending = ENDED_REFUSED;
        cancel(&side);
        carried_out(&side, VFIO_STATUS_OK, VFIO_PHASE_FAILED);
    }
    return side.outcome;
}

static int take(side *side, uint8_t *bytes, size_t length)
{
    while (length > 0) {
        vfio_room left = { bytes, length };
        size_t count = 0;
        if (link_recv(side->link, left, &count) != 0 || count == 0)
            return 0;
        bytes += count;
        length -= count;
    }
    return 1;
}

// Takes an item off the link, and not a byte more; its name lies in `bytes`.
static int take_item(side *side, uint8_t bytes[VFIO_ITEM_MAX], vfio_item *item)
{
    size_t have = 0, wanted = 0;
    for (;;) {
        vfio_status status = vfio_item_decode(bytes, have, item, &wanted);
        if (status != VFIO_STATUS_SHORT)
            return status == VFIO_STATUS_OK;
        must(wanted > have && wanted <= VFIO_ITEM_MAX, "an item wants more than any has");
        if (!take(side, bytes + have, wanted - have))
            return 0;
        have = wanted;
    }
}

static int take_begin(side *side)
{
    uint8_t bytes[VFIO_ITEM_MAX];
    vfio_item item;
    return take(side, bytes, VFIO_PREAMBLE) && vfio_preamble_decode(bytes) == VFIO_STATUS_OK &&
           take_item(side, bytes, &item) && item.kind == VFIO_ITEM_CONFIGURATION && item.length == 0;
}

static int take_description(side *side)
{
    uint8_t bytes[VFIO_ITEM_MAX];
    vfio_item item;
    return take_item(side, bytes, &item) && item.kind == VFIO_ITEM_DESCRIPTION && item.length <= sizeof bytes &&
           take(side, bytes, item.length) && side->link->received == side->link->sent;
}

static int is_named(const side *side, const vfio_item *item)
{
    size_t length = strlen(side->plan->name);
    return item->id == side->plan->id && item->version == 1 && item->instance == 0 && item->name_length == length &&
           memcmp(item->name, side->plan->name, length) == 0;
}

static int take_section(side *side)
{
    uint8_t bytes[VFIO_FOOTER];
    return carried_out(side, vfio_destination_section(side->destination), VFIO_PHASE_SECTION) &&
           take(side, bytes, sizeof bytes) && vfio_footer_decode(side->plan->id, bytes) == VFIO_STATUS_OK;
}

// Sections in the order that QEMU writes: START, PARTs, END, and a FULL where there is a configuration.
static int take_sections(side *side)
{
    uint8_t bytes[VFIO_ITEM_MAX];
    vfio_item item;
    uint32_t before = 0;
    for (;;) {
        int done = before == (side->plan->config ? VFIO_ITEM_FULL : VFIO_ITEM_END);
        if (done && !side->plan->whole)
            return 1;
        if (!take_item(side, bytes, &item))
            return 0;
        if (done)
            return item.kind == VFIO_ITEM_END_OF_STREAM;
        int follows = (item.kind == VFIO_ITEM_START && before == 0 && is_named(side, &item)) ||
                      ((item.kind == VFIO_ITEM_PART || item.kind == VFIO_ITEM_END) &&
                       (before == VFIO_ITEM_START || before == VFIO_ITEM_PART) && item.id == side->plan->id) ||
                      (item.kind == VFIO_ITEM_FULL && before == VFIO_ITEM_END && is_named(side, &item));
        if (!follows || !take_section(side))
            return 0;
        before = item.kind;
    }
}

static int received(side *side)
{
    vfio_destination *destination = side->destination;
    return (!side->plan->whole || take_begin(side)) &&
           carried_out(side, vfio_destination_resume(destination), VFIO_PHASE_RESUMING) && take_sections(side) &&
           (!side->plan->whole || take_description(side)) &&
           carried_out(side, vfio_destination_stop(destination), VFIO_PHASE_STOPPED) &&
           carried_out(side, vfio_destination_run(destination), VFIO_PHASE_RUNNING);
}

outcome load(device *device, link *link, const plan *plan)
{
    static uint8_t buffer[BUFFER_MAX];
    static vfio_destination destination;
    side side = { .device = device, .link = link, .plan = plan, .destination = &destination };
    vfio_status begun = vfio_destination_init(&destination, device->features, device->state, plan->switchover_ack,
                                              buffer, plan->buffer);
    must(begun == VFIO_STATUS_OK, "a destination was not begun");
    if (!received(&side) && side.outcome.ending != ENDED_FAILED) {
        side.outcome.ending = ENDED_REFUSED;
        cancel(&side);
        carried_out(&side, VFIO_STATUS_OK, VFIO_PHASE_FAILED);
    }
    return side.outcome;
}
