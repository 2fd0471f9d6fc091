// Migrations that go well: the content arrives, whatever the sizes of buffers and of what device and link take.

#include <string.h>

#include "migrate.h"
#include "tests.h"

static const size_t BUFFERS[] = { 64, 65, 100, 4096 };
static const size_t MOST[] = { 0, 1, 7, 33 };

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

// Saves one device and loads it into another that holds something else, with all sizes.
static void moves(plan plan, size_t size, uint64_t features, int answers_enomsg)
{
    for (size_t i = 0; i < COUNT(BUFFERS) * COUNT(MOST) * COUNT(MOST); i++) {
        static link link;
        device from, to;
        device_begin(&from, size, 1, NULL);
        device_begin(&to, 77, 99, NULL);
        memset(&link, 0, sizeof link);
        memset(link.config, 0x5a, 300);
        link.config_length = 300;
        plan.buffer = BUFFERS[i % COUNT(BUFFERS)];
        link.most = MOST[i / COUNT(BUFFERS) % COUNT(MOST)];
        from.most = to.most = MOST[i / COUNT(BUFFERS) / COUNT(MOST)];
        from.features = to.features = features;
        from.answers_enomsg = answers_enomsg;

        outcome saved = save(&from, &link, &plan);
        CHECK(saved.ending == ENDED_WELL && saved.phase.kind == VFIO_PHASE_STOPPED);
        CHECK(from.state == VFIO_STATE_STOP && from.resets == 0);
        memset(link.config, 0, sizeof link.config);
        outcome loaded = load(&to, &link, &plan);
        CHECK(loaded.ending == ENDED_WELL && loaded.phase.kind == VFIO_PHASE_RUNNING);
        CHECK(to.state == VFIO_STATE_RUNNING && to.resets == 0);
        CHECK(device_has_same(&from, &to));
        CHECK(link.received == link.sent);
        CHECK(!plan.config || (link.config[0] == 0x5a && link.config[299] == 0x5a));
    }
}

static void stopped_device_arrives_whole(void)
{
    plan plan = { .id = 38, .name = "0000:00:02.0/vfio", .whole = 1 };
    moves(plan, 300, 1, 0);
    moves(plan, 4, 1, 0);
    moves(plan, CONTENT_MAX, 7, 0);
}

static void stopped_device_arrives_in_parts(void)
{
    plan plan = { .id = 7, .name = "a/vfio", .parts = 2, .whole = 1 };
    moves(plan, 300, 1, 0);
}

static void configuration_arrives_with_the_device(void)
{
    plan plan = { .id = 38, .name = "0000:00:02.0/vfio", .config = 1, .whole = 1 };
    moves(plan, 300, 3, 0);
}

static void device_in_pre_copy_arrives_whole(void)
{
    plan plan = { .id = 38, .name = "0000:00:02.0/vfio", .pre_copy = 3, .whole = 1 };
    moves(plan, 300, 5, 0);
    moves(plan, 300, 7, 1);
}

static void device_in_pre_copy_arrives_whole_with_switchover_ack(void)
{
    plan plan = { .id = 38, .name = "0000:00:02.0/vfio", .pre_copy = 9, .switchover_ack = 1, .config = 1, .whole = 1 };
    moves(plan, 300, 7, 0);
}

// A buffer too short by a byte: nothing is sent, nothing happens to the device, and no phase is told.
static void is_refused_for_its_buffer(void)
{
    static link link;
    static uint8_t buffer[VFIO_BUFFER_MIN - 1];
    device device;
    vfio_phase phase = { .kind = 77 };
    device_begin(&device, 300, 1, NULL);
    memset(&link, 0, sizeof link);
    CHECK(send_state(&device, &link, buffer, sizeof buffer, &phase) == VFIO_STATUS_SMALL_BUFFER);
    CHECK(link.sent == 0 && phase.kind == 77 && device.state == VFIO_STATE_RUNNING && device.size == 300);
}

// Must be the first that calls send_state.
static void example_of_the_header_refuses_a_short_buffer_first_and_after_a_success(void)
{
    static link link;
    static uint8_t buffer[VFIO_BUFFER_MIN];
    device device;
    vfio_phase phase;
    is_refused_for_its_buffer();
    device_begin(&device, 300, 1, NULL);
    memset(&link, 0, sizeof link);
    CHECK(send_state(&device, &link, buffer, sizeof buffer, &phase) == VFIO_STATUS_OK);
    CHECK(phase.kind == VFIO_PHASE_STOPPED && link.sent > 300);
    is_refused_for_its_buffer();
}

static void example_of_the_header_says_what_is_wrong_in_its_program(void)
{
    static link link;
    static vfio_source source;
    static uint8_t buffer[VFIO_BUFFER_MIN];
    device device;
    vfio_phase phase = { .kind = 77 };
    device_begin(&device, 300, 1, NULL);
    memset(&link, 0, sizeof link);
    CHECK(carry_out(&source, &device, &link, &phase) == VFIO_STATUS_NOT_INITIALISED && phase.kind == 77);
    CHECK(vfio_source_init(&source, 7, device.state, 0, buffer, sizeof buffer) == VFIO_STATUS_OK);
    CHECK(vfio_source_setup(&source, 1) == VFIO_STATUS_OK);
    link.boasts = 1;
    CHECK(carry_out(&source, &device, &link, &phase) == VFIO_STATUS_TOO_MANY && phase.kind == 77);
    CHECK(device.state == VFIO_STATE_PRE_COPY);
    // And a cancel brings the device back all the same.
    CHECK(vfio_source_cancel(&source) == VFIO_STATUS_OK);
    CHECK(carry_out(&source, &device, &link, &phase) == VFIO_STATUS_OK && phase.kind == VFIO_PHASE_FAILED);
    CHECK(device.state == VFIO_STATE_RUNNING && device.size == 300 && device.resets == 0);
}

static void example_of_the_header_sends_what_arrives(void)
{
    static link link;
    static uint8_t buffer[VFIO_BUFFER_MIN];
    device from, to;
    device_begin(&from, 300, 1, NULL);
    device_begin(&to, 77, 99, NULL);
    memset(&link, 0, sizeof link);
    vfio_phase phase;
    CHECK(send_state(&from, &link, buffer, sizeof buffer, &phase) == VFIO_STATUS_OK);
    CHECK(phase.kind == VFIO_PHASE_STOPPED);

    static vfio_destination destination;
    static uint8_t other[VFIO_BUFFER_MIN];
    CHECK(vfio_destination_init(&destination, 1, VFIO_STATE_RUNNING, 0, other, sizeof other) == VFIO_STATUS_OK);
    vfio_status (*orders[])(vfio_destination *) = { vfio_destination_resume, vfio_destination_section,
                                                    vfio_destination_section, vfio_destination_stop,
                                                    vfio_destination_run };
    for (size_t i = 0; i < COUNT(orders); i++) {
        vfio_effect effect;
        CHECK(orders[i](&destination) == VFIO_STATUS_OK);
        for (;;) {
            CHECK(vfio_destination_poll(&destination, &effect) == VFIO_STATUS_OK);
            vfio_done done = { .kind = effect.kind };
            if (effect.kind == VFIO_EFFECT_SET_STATE)
                done.error = device_set_state(&to, effect.u.state);
            else if (effect.kind == VFIO_EFFECT_RECV)
                done.error = link_recv(&link, effect.u.room, &done.u.count);
            else if (effect.kind == VFIO_EFFECT_WRITE_DATA)
                done.error = device_write(&to, effect.u.bytes, &done.u.count);
            else
                break;
            CHECK(vfio_destination_complete(&destination, &done, NULL) == VFIO_STATUS_OK);
        }
        CHECK(effect.kind == VFIO_EFFECT_IDLE && effect.u.phase.kind != VFIO_PHASE_FAILED);
    }
    CHECK(device_has_same(&from, &to) && to.state == VFIO_STATE_RUNNING);
}

// Gives one order to a source and carries it out; its phase.
static uint32_t after(vfio_source *source, vfio_status order, device *device, link *link)
{
    CHECK(order == VFIO_STATUS_OK);
    return carry_out_well(source, device, link).kind;
}

static void device_of_several_goes_over_p2p_and_back(void)
{
    static link link;
    static vfio_source source;
    static uint8_t buffer[128];
    device device;
    device_begin(&device, 300, 1, NULL);
    memset(&link, 0, sizeof link);
    CHECK(vfio_source_init(&source, 7, device.state, 0, buffer, sizeof buffer) == VFIO_STATUS_OK);
    CHECK(after(&source, vfio_source_setup(&source, 1), &device, &link) == VFIO_PHASE_PRE_COPY);
    CHECK(after(&source, vfio_source_quiesce(&source), &device, &link) == VFIO_PHASE_QUIESCED);
    CHECK(device.state == VFIO_STATE_PRE_COPY_P2P);
    CHECK(after(&source, vfio_source_stop(&source), &device, &link) == VFIO_PHASE_COPYING);
    CHECK(after(&source, vfio_source_retreat(&source), &device, &link) == VFIO_PHASE_FAILED);
    CHECK(device.state == VFIO_STATE_RUNNING_P2P);
    CHECK(after(&source, vfio_source_cancel(&source), &device, &link) == VFIO_PHASE_FAILED);
    CHECK(device.state == VFIO_STATE_RUNNING && device.resets == 0 && device.size == 300);
}

static void finished_source_runs_on_over_p2p(void)
{
    static link link;
    static vfio_source source;
    static uint8_t buffer[128];
    device device;
    device_begin(&device, 300, 1, NULL);
    memset(&link, 0, sizeof link);
    CHECK(vfio_source_init(&source, 3, device.state, 0, buffer, sizeof buffer) == VFIO_STATUS_OK);
    CHECK(after(&source, vfio_source_setup(&source, 0), &device, &link) == VFIO_PHASE_SET_UP);
    CHECK(after(&source, vfio_source_quiesce(&source), &device, &link) == VFIO_PHASE_QUIESCED);
    CHECK(after(&source, vfio_source_stop(&source), &device, &link) == VFIO_PHASE_COPYING);
    CHECK(after(&source, vfio_source_copy_rest(&source), &device, &link) == VFIO_PHASE_COPIED);
    CHECK(after(&source, vfio_source_finish(&source), &device, &link) == VFIO_PHASE_STOPPED);
    CHECK(after(&source, vfio_source_run_p2p(&source), &device, &link) == VFIO_PHASE_READY);
    CHECK(device.state == VFIO_STATE_RUNNING_P2P);
    CHECK(after(&source, vfio_source_run(&source), &device, &link) == VFIO_PHASE_READY);
    CHECK(device.state == VFIO_STATE_RUNNING && device.size == 300);
}

static void pre_copy_says_how_much_is_left(void)
{
    static link link;
    static vfio_source source;
    static uint8_t buffer[64 + 24];
    device device;
    device_begin(&device, 300, 1, NULL);
    memset(&link, 0, sizeof link);
    CHECK(vfio_source_init(&source, 5, device.state, 0, buffer, sizeof buffer) == VFIO_STATUS_OK);
    CHECK(vfio_source_setup(&source, 1) == VFIO_STATUS_OK);
    vfio_phase phase = carry_out_well(&source, &device, &link);
    CHECK(phase.kind == VFIO_PHASE_PRE_COPY && !phase.u.chunk.left_known);
    CHECK(vfio_source_measure(&source) == VFIO_STATUS_OK);
    phase = carry_out_well(&source, &device, &link);
    CHECK(phase.u.chunk.left_known && phase.u.chunk.left.initial_bytes == 150 && phase.u.chunk.bytes == 0);
    CHECK(vfio_source_copy_chunk(&source) == VFIO_STATUS_OK);
    phase = carry_out_well(&source, &device, &link);
    CHECK(phase.u.chunk.bytes == 64 && phase.u.chunk.left.initial_bytes == 86 && !phase.u.chunk.init_data_sent);
}

void test_migrations(void)
{
    RUN(stopped_device_arrives_whole);
    RUN(stopped_device_arrives_in_parts);
    RUN(configuration_arrives_with_the_device);
    RUN(device_in_pre_copy_arrives_whole);
    RUN(device_in_pre_copy_arrives_whole_with_switchover_ack);
    RUN(example_of_the_header_refuses_a_short_buffer_first_and_after_a_success);
    RUN(example_of_the_header_says_what_is_wrong_in_its_program);
    RUN(example_of_the_header_sends_what_arrives);
    RUN(device_of_several_goes_over_p2p_and_back);
    RUN(finished_source_runs_on_over_p2p);
    RUN(pre_copy_says_how_much_is_left);
}
