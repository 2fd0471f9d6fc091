// Operations that fail, at every place, and cancels before every effect: where the device is, and what is told.

#include <string.h>

#include "migrate.h"
#include "tests.h"

static plan PLAN = { .id = 38, .name = "0000:00:02.0/vfio", .pre_copy = 2, .parts = 1, .config = 1, .buffer = 128,
                     .whole = 1 };

static void begin_link(link *link, faults *faults)
{
    memset(link, 0, sizeof *link);
    link->config_length = 50;
    link->faults = faults;
}

// That the device is where the failure says.
static void check_left(const device *device, vfio_failure failure)
{
    switch (failure.left) {
    case VFIO_LEFT_AT:
        CHECK(device->state == failure.state && device->resets == 0);
        break;
    case VFIO_LEFT_RESET:
        CHECK(device->state == VFIO_STATE_RUNNING && failure.state == VFIO_STATE_RUNNING && device->resets == 1);
        CHECK(device_is_empty(device));
        break;
    case VFIO_LEFT_UNKNOWN:
        CHECK(device->resets == 0 && failure.state == 0);
        break;
    default:
        CHECK(!"a place that the header has");
    }
}

// Fails the operations with these numbers in a save; whether one of them was met.
static int failing_save(unsigned first, unsigned second, unsigned third)
{
    static link link;
    device device;
    faults faults = { 0, first, second, third };
    device_begin(&device, 100, 1, &faults);
    begin_link(&link, &faults);
    outcome outcome = save(&device, &link, &PLAN);
    if (faults.done < first) {
        CHECK(outcome.ending == ENDED_WELL);
        return 0;
    }
    CHECK(outcome.ending != ENDED_WELL && outcome.phase.kind == VFIO_PHASE_FAILED);
    vfio_failure failure = outcome.phase.u.failure;
    check_left(&device, failure);
    // The source's device has its content unless it had to be reset.
    if (failure.left == VFIO_LEFT_AT)
        CHECK(device.size == 100);
    return 1;
}

static int failing_load(unsigned first, unsigned second, unsigned third, const link *stream)
{
    static link link;
    device device, before;
    faults faults = { 0, first, second, third };
    device_begin(&device, 77, 99, &faults);
    before = device;
    link = *stream;
    link.faults = &faults;
    outcome outcome = load(&device, &link, &PLAN);
    if (faults.done < first) {
        CHECK(outcome.ending == ENDED_WELL);
        return 0;
    }
    CHECK(outcome.ending != ENDED_WELL && outcome.phase.kind == VFIO_PHASE_FAILED);
    vfio_failure failure = outcome.phase.u.failure;
    check_left(&device, failure);
    // Never half a state: a destination is as it was, or reset, or it refused its reset.
    if (failure.left == VFIO_LEFT_AT)
        CHECK(device_has_same(&device, &before) && failure.state == VFIO_STATE_RUNNING);
    return 1;
}

static void save_whose_operation_fails_leaves_the_device_where_it_says(void)
{
    unsigned first = 1;
    while (failing_save(first, 0, 0))
        first++;
    CHECK(first > 30);
}

static void save_two_or_three_of_whose_operations_fail_leaves_the_device_where_it_says(void)
{
    for (unsigned first = 1; failing_save(first, 0, 0); first++) {
        for (unsigned second = first + 1; second < first + 4; second++) {
            failing_save(first, second, 0);
            failing_save(first, second, second + 1);
        }
    }
}

static void whole_stream(link *link)
{
    device from;
    begin_link(link, NULL);
    device_begin(&from, 100, 1, NULL);
    CHECK(save(&from, link, &PLAN).ending == ENDED_WELL);
}

static void load_whose_operation_fails_leaves_the_device_where_it_says(void)
{
    static link stream;
    unsigned first = 1;
    whole_stream(&stream);
    while (failing_load(first, 0, 0, &stream))
        first++;
    CHECK(first > 50);
}

static void load_two_or_three_of_whose_operations_fail_leaves_the_device_where_it_says(void)
{
    static link stream;
    whole_stream(&stream);
    for (unsigned first = 1; failing_load(first, 0, 0, &stream); first++) {
        for (unsigned second = first + 1; second < first + 4; second++) {
            failing_load(first, second, 0, &stream);
            failing_load(first, second, second + 1, &stream);
        }
    }
}

static void refused_states_are_told_with_the_kernels_number(void)
{
    static link link;
    static vfio_source source;
    static uint8_t buffer[64];
    device device;
    faults faults = { 0 };
    device_begin(&device, 100, 1, &faults);
    begin_link(&link, NULL);
    CHECK(vfio_source_init(&source, 7, device.state, 0, buffer, sizeof buffer) == VFIO_STATUS_OK);
    CHECK(vfio_source_setup(&source, 0) == VFIO_STATUS_OK);
    carry_out_well(&source, &device, &link);
    faults.first = faults.done + 1;
    CHECK(vfio_source_stop(&source) == VFIO_STATUS_OK);
    vfio_phase phase = carry_out_well(&source, &device, &link);
    vfio_failure failure = phase.u.failure;
    CHECK(phase.kind == VFIO_PHASE_FAILED && failure.cause.kind == VFIO_CAUSE_REFUSED);
    CHECK(failure.cause.state == VFIO_STATE_STOP_COPY && failure.cause.code == 5);
    // A refused STOP_COPY is followed by STOP, from where a cancel takes the device to RUNNING.
    CHECK(failure.left == VFIO_LEFT_AT && failure.state == VFIO_STATE_STOP && device.state == VFIO_STATE_STOP);
    CHECK(vfio_source_cancel(&source) == VFIO_STATUS_OK);
    phase = carry_out_well(&source, &device, &link);
    CHECK(phase.u.failure.cause.kind == VFIO_CAUSE_REFUSED && phase.u.failure.state == VFIO_STATE_RUNNING);
    CHECK(device.state == VFIO_STATE_RUNNING && device.size == 100);
}

static void save_cancelled_before_any_effect_leaves_the_device_as_it_was(void)
{
    static link link;
    plan plan = PLAN;
    for (plan.cancel_at = 1;; plan.cancel_at++) {
        device device;
        device_begin(&device, 100, 1, NULL);
        begin_link(&link, NULL);
        outcome outcome = save(&device, &link, &plan);
        if (outcome.ending == ENDED_WELL)
            break;
        CHECK(outcome.phase.u.failure.cause.kind == VFIO_CAUSE_CANCELLED);
        CHECK(outcome.phase.u.failure.left == VFIO_LEFT_AT && device.state == VFIO_STATE_RUNNING);
        CHECK(device.size == 100 && device.resets == 0);
    }
    CHECK(plan.cancel_at > 15);
}

static void load_cancelled_before_any_effect_resets_the_device(void)
{
    static link stream, link;
    plan plan = PLAN;
    whole_stream(&stream);
    for (plan.cancel_at = 1;; plan.cancel_at++) {
        device device;
        device_begin(&device, 77, 99, NULL);
        link = stream;
        outcome outcome = load(&device, &link, &plan);
        if (outcome.ending == ENDED_WELL)
            break;
        CHECK(outcome.phase.u.failure.cause.kind == VFIO_CAUSE_CANCELLED);
        CHECK(outcome.phase.u.failure.left == VFIO_LEFT_RESET && device.state == VFIO_STATE_RUNNING);
        CHECK(device_is_empty(&device) && device.resets == 1);
    }
    CHECK(plan.cancel_at > 20);
}

void test_failures(void)
{
    RUN(save_whose_operation_fails_leaves_the_device_where_it_says);
    RUN(save_two_or_three_of_whose_operations_fail_leaves_the_device_where_it_says);
    RUN(load_whose_operation_fails_leaves_the_device_where_it_says);
    RUN(load_two_or_three_of_whose_operations_fail_leaves_the_device_where_it_says);
    RUN(refused_states_are_told_with_the_kernels_number);
    RUN(save_cancelled_before_any_effect_leaves_the_device_as_it_was);
    RUN(load_cancelled_before_any_effect_resets_the_device);
}
