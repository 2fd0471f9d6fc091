// Damaged and cut streams. The device has its own check of its content, as a driver should, and so everything is
// refused but what nobody looks at: the text of the description.

#include <string.h>

#include "migrate.h"
#include "tests.h"

static plan PLAN = { .id = 38, .name = "0000:00:02.0/vfio", .pre_copy = 2, .parts = 1, .buffer = 256, .whole = 1 };

static void saved(link *link, device *from)
{
    device_begin(from, 100, 1, NULL);
    memset(link, 0, sizeof *link);
    CHECK(save(from, link, &PLAN).ending == ENDED_WELL);
}

// That a device which refused is as it was or was reset, runs, and has no half of a state.
static void check_refused(const device *device, const struct device *before, outcome outcome)
{
    vfio_failure failure = outcome.phase.u.failure;
    CHECK(outcome.phase.kind == VFIO_PHASE_FAILED);
    CHECK(device->state == VFIO_STATE_RUNNING && failure.state == VFIO_STATE_RUNNING);
    if (failure.left == VFIO_LEFT_RESET)
        CHECK(device_is_empty(device) && device->resets == 1);
    else
        CHECK(failure.left == VFIO_LEFT_AT && device_has_same(device, before) && device->resets == 0);
}

static void every_flipped_bit_is_refused_but_in_the_description(void)
{
    static link whole, damaged;
    device from, before, to;
    saved(&whole, &from);
    device_begin(&before, 77, 99, NULL);
    size_t text_at = whole.sent - strlen(DESCRIPTION);
    for (size_t bit = 0; bit < whole.sent * 8; bit++) {
        damaged = whole;
        damaged.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        to = before;
        outcome outcome = load(&to, &damaged, &PLAN);
        if (bit / 8 >= text_at)
            CHECK(outcome.ending == ENDED_WELL && device_has_same(&to, &from));
        else
            CHECK(outcome.ending != ENDED_WELL);
        if (outcome.ending != ENDED_WELL)
            check_refused(&to, &before, outcome);
    }
}

static void every_cut_is_refused(void)
{
    static link cut;
    device from, before, to;
    saved(&cut, &from);
    device_begin(&before, 77, 99, NULL);
    for (size_t length = cut.sent; length-- > 0;) {
        cut.sent = length;
        cut.received = 0;
        to = before;
        outcome outcome = load(&to, &cut, &PLAN);
        CHECK(outcome.ending != ENDED_WELL);
        check_refused(&to, &before, outcome);
    }
}

// The offset of the first record's word that is wrong, and what stood there, are told.
static void damaged_tag_is_told_with_its_place_and_value(void)
{
    static link link;
    device from, to;
    saved(&link, &from);
    device_begin(&to, 77, 99, NULL);
    // Preamble, configuration, and the begin of a section with a name of 17 bytes: the payload's first tag.
    size_t at = 8 + 5 + 31;
    link.bytes[at + 7] = 9;
    outcome outcome = load(&to, &link, &PLAN);
    vfio_cause cause = outcome.phase.u.failure.cause;
    CHECK(cause.kind == VFIO_CAUSE_UNKNOWN_TAG && cause.offset == 0 && cause.got == 0xffffffffef100009u);

    saved(&link, &from);
    device_begin(&to, 77, 99, NULL);
    link.bytes[at + 15] = 4;
    outcome = load(&to, &link, &PLAN);
    cause = outcome.phase.u.failure.cause;
    CHECK(cause.kind == VFIO_CAUSE_UNTERMINATED && cause.tag == VFIO_TAG_SETUP && cause.offset == 8);
    CHECK(cause.got == 0xffffffffef100004u);
}

static void cut_in_data_tells_what_is_missing(void)
{
    static link link;
    device from, to;
    saved(&link, &from);
    device_begin(&to, 77, 99, NULL);
    // Behind the START and its footer a PART begins, with the head of its DATA; ten of its fifty bytes are there.
    link.sent = 8 + 5 + 31 + 16 + 5 + 5 + 16 + 10;
    outcome outcome = load(&to, &link, &PLAN);
    vfio_cause cause = outcome.phase.u.failure.cause;
    CHECK(cause.kind == VFIO_CAUSE_RECV_CLOSED && cause.offset == 26 && cause.missing == 40);
}

static void damaged_golden_stream_is_never_loaded_by_halves(void)
{
    static link whole, damaged;
    device before, to;
    plan plan = { .id = 38, .name = "0000:00:02.0/vfio", .config = 1, .buffer = 4096, .whole = 1 };
    memset(&whole, 0, sizeof whole);
    whole.config_length = 4116;
    whole.sent = golden("one-end-section.bin", whole.bytes, sizeof whole.bytes);
    // An mtty checks nothing of its content: what is damaged there is loaded as it is, and so is the configuration.
    size_t content = 86, config = 198, text = whole.sent - strlen(DESCRIPTION);
    device_begin(&before, 77, 99, NULL);
    before.checks = 0;
    for (size_t at = 0; at < whole.sent; at++) {
        damaged = whole;
        damaged.bytes[at] ^= 0xff;
        to = before;
        outcome outcome = load(&to, &damaged, &plan);
        int is_loaded = (at >= content && at < content + 60) || (at >= config && at < config + 4116) || at >= text;
        CHECK((outcome.ending == ENDED_WELL) == is_loaded);
        if (outcome.ending == ENDED_WELL)
            CHECK(to.size == 60 && memcmp(to.content, damaged.bytes + content, 60) == 0);
        else
            check_refused(&to, &before, outcome);
    }
    for (size_t length = 0; length < whole.sent; length++) {
        damaged = whole;
        damaged.sent = length;
        to = before;
        outcome outcome = load(&to, &damaged, &plan);
        CHECK(outcome.ending != ENDED_WELL);
        check_refused(&to, &before, outcome);
    }
}

void test_damage(void)
{
    RUN(every_flipped_bit_is_refused_but_in_the_description);
    RUN(every_cut_is_refused);
    RUN(damaged_tag_is_told_with_its_place_and_value);
    RUN(cut_in_data_tells_what_is_missing);
    RUN(damaged_golden_stream_is_never_loaded_by_halves);
}
