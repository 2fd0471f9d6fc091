// What a caller can do wrong and be told of: a code each time, and nothing has changed.

#include <string.h>

#include "migrate.h"
#include "tests.h"

// Sessions are small on every machine; another size is another interface.
_Static_assert(sizeof(vfio_source) == 128 && sizeof(vfio_destination) == 128, "a session has another size");
_Static_assert(sizeof(vfio_decoder) == 40, "a decoder has another size");

// One buffer for each session.
static uint8_t buffer[128], other[128];
static vfio_source source;
static vfio_destination destination;

static void begin_source(uint64_t features)
{
    CHECK(vfio_source_init(&source, features, VFIO_STATE_RUNNING, 0, buffer, sizeof buffer) == VFIO_STATUS_OK);
}

static void begin_destination(void)
{
    vfio_status status = vfio_destination_init(&destination, 7, VFIO_STATE_RUNNING, 0, other, sizeof other);
    CHECK(status == VFIO_STATUS_OK);
}

static void beginning_with_what_can_not_be_is_refused(void)
{
    vfio_status (*init)(vfio_source *, uint64_t, uint32_t, uint32_t, uint8_t *, size_t) = vfio_source_init;
    size_t all = sizeof buffer;
    CHECK(init(NULL, 7, VFIO_STATE_RUNNING, 0, buffer, all) == VFIO_STATUS_NULL);
    CHECK(init(&source, 7, VFIO_STATE_RUNNING, 0, NULL, all) == VFIO_STATUS_NULL);
    CHECK(init(&source, 7, VFIO_STATE_RUNNING, 0, buffer, 63) == VFIO_STATUS_SMALL_BUFFER);
    CHECK(init(&source, 7, VFIO_STATE_RUNNING, 0, NULL, 0) == VFIO_STATUS_SMALL_BUFFER);
    CHECK(init(&source, 6, VFIO_STATE_RUNNING, 0, buffer, all) == VFIO_STATUS_NOT_MIGRATABLE);
    CHECK(init(&source, 7, VFIO_STATE_RESUMING, 0, buffer, all) == VFIO_STATUS_WRONG_STATE);
    CHECK(init(&source, 7, 8, 0, buffer, all) == VFIO_STATUS_UNKNOWN_VALUE);
    CHECK(init(&source, 7, UINT32_MAX, 0, buffer, all) == VFIO_STATUS_UNKNOWN_VALUE);
    CHECK(init(&source, 7, VFIO_STATE_RUNNING, 0, buffer, SIZE_MAX) == VFIO_STATUS_BAD_MEMORY);
    CHECK(init(&source, 7, VFIO_STATE_RUNNING, 0, buffer, SIZE_MAX / 2 + 1) == VFIO_STATUS_BAD_MEMORY);
    CHECK(init(&source, 7, VFIO_STATE_RUNNING, 0, (uint8_t *)&source, sizeof source) == VFIO_STATUS_BAD_MEMORY);
    CHECK(init(&source, 7, VFIO_STATE_RUNNING, 0, (uint8_t *)&source + 8, 64) == VFIO_STATUS_BAD_MEMORY);
    CHECK(init(&source, 7, VFIO_STATE_RUNNING, 0, buffer, 64) == VFIO_STATUS_OK);

    CHECK(vfio_destination_init(NULL, 7, VFIO_STATE_RUNNING, 0, buffer, all) == VFIO_STATUS_NULL);
    CHECK(vfio_destination_init(&destination, 7, VFIO_STATE_PRE_COPY, 0, buffer, all) == VFIO_STATUS_WRONG_STATE);
    CHECK(vfio_destination_init(&destination, 0, VFIO_STATE_STOP, 0, buffer, all) == VFIO_STATUS_NOT_MIGRATABLE);
    CHECK(vfio_destination_init(&destination, 7, 99, 0, buffer, all) == VFIO_STATUS_UNKNOWN_VALUE);
    CHECK(vfio_destination_init(&destination, 7, VFIO_STATE_STOP, 0, buffer, 63) == VFIO_STATUS_SMALL_BUFFER);
}

// Every function of a session, each with pointers that are good but for the session's.
static void every_order(vfio_source *from, vfio_destination *to, vfio_status wanted)
{
    vfio_effect effect;
    vfio_done done = { .kind = VFIO_EFFECT_RESET };
    vfio_event event;
    uint32_t tag;
    vfio_status (*of_source[])(vfio_source *) = {
        vfio_source_measure, vfio_source_copy_chunk, vfio_source_quiesce, vfio_source_stop, vfio_source_copy_rest,
        vfio_source_config, vfio_source_finish, vfio_source_run_p2p, vfio_source_run, vfio_source_cancel,
        vfio_source_retreat,
    };
    vfio_status (*of_destination[])(vfio_destination *) = {
        vfio_destination_resume, vfio_destination_section, vfio_destination_stop,
        vfio_destination_run_p2p, vfio_destination_run, vfio_destination_cancel,
    };
    for (size_t i = 0; i < sizeof of_source / sizeof of_source[0]; i++)
        CHECK(of_source[i](from) == wanted);
    for (size_t i = 0; i < sizeof of_destination / sizeof of_destination[0]; i++)
        CHECK(of_destination[i](to) == wanted);
    CHECK(vfio_source_setup(from, 0) == wanted);
    CHECK(vfio_source_poll(from, &effect) == wanted);
    CHECK(vfio_source_complete(from, &done, &event) == wanted);
    CHECK(vfio_destination_poll(to, &effect) == wanted);
    CHECK(vfio_destination_complete(to, &done, &event) == wanted);
    CHECK(vfio_destination_record(to, &tag) == wanted);
}

// Whether the source has a record to send, which lies where its buffer begins.
static int has_record(void)
{
    vfio_effect effect;
    return vfio_source_poll(&source, &effect) == VFIO_STATUS_OK && effect.kind == VFIO_EFFECT_SEND &&
           effect.u.bytes.bytes == buffer && effect.u.bytes.bytes[0] == 0xff;
}

// Begins both sessions, and orders the source to write a record.
static void begin_both(void)
{
    begin_destination();
    begin_source(7);
    CHECK(vfio_source_setup(&source, 0) == VFIO_STATUS_OK && has_record());
}

static void refused_beginning_leaves_no_session_behind(void)
{
    const struct {
        uint64_t features;
        uint32_t now;
        uint8_t *buffer;
        size_t length;
        vfio_status status;
        // What then stands where a record began.
        uint8_t first;
    } table[] = {
        { 7, VFIO_STATE_RUNNING, buffer, 63, VFIO_STATUS_SMALL_BUFFER, 0 },
        { 7, VFIO_STATE_RESUMING, buffer, 64, VFIO_STATUS_WRONG_STATE, 0 },
        { 7, VFIO_STATE_RUNNING, buffer, SIZE_MAX, VFIO_STATUS_BAD_MEMORY, 0xff },
        { 7, VFIO_STATE_RUNNING, NULL, 64, VFIO_STATUS_NULL, 0xff },
        { 7, 8, buffer, 64, VFIO_STATUS_UNKNOWN_VALUE, 0xff },
        { 6, VFIO_STATE_RUNNING, buffer, 64, VFIO_STATUS_NOT_MIGRATABLE, 0xff },
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        uint64_t features = table[i].features;
        uint32_t now = table[i].now;
        uint8_t *with = table[i].buffer;
        size_t length = table[i].length;
        begin_both();
        CHECK(vfio_source_init(&source, features, now, 0, with, length) == table[i].status);
        CHECK(buffer[0] == table[i].first);
        CHECK(vfio_destination_init(&destination, features, now, 0, with, length) == table[i].status);
        every_order(&source, &destination, VFIO_STATUS_NOT_INITIALISED);
    }
    begin_both();
    uint8_t *over_source = (uint8_t *)&source, *over_destination = (uint8_t *)&destination;
    CHECK(vfio_source_init(&source, 7, VFIO_STATE_STOP, 0, over_source, 64) == VFIO_STATUS_BAD_MEMORY);
    CHECK(vfio_destination_init(&destination, 7, VFIO_STATE_STOP, 0, over_destination, 64) == VFIO_STATUS_BAD_MEMORY);
    every_order(&source, &destination, VFIO_STATUS_NOT_INITIALISED);
}

static void beginning_at_a_pointer_that_is_none_changes_nothing(void)
{
    begin_both();
    void *crooked_source = (uint8_t *)&source + 1, *crooked_destination = (uint8_t *)&destination + 1;
    CHECK(vfio_source_init(crooked_source, 7, VFIO_STATE_STOP, 0, buffer, 64) == VFIO_STATUS_MISALIGNED);
    CHECK(vfio_destination_init(crooked_destination, 7, VFIO_STATE_STOP, 0, buffer, 64) == VFIO_STATUS_MISALIGNED);
    CHECK(vfio_source_init(NULL, 7, VFIO_STATE_STOP, 0, buffer, 64) == VFIO_STATUS_NULL);
    CHECK(vfio_destination_init(NULL, 7, VFIO_STATE_STOP, 0, buffer, 64) == VFIO_STATUS_NULL);
    CHECK(has_record() && vfio_destination_resume(&destination) == VFIO_STATUS_OK);
}

static void null_misaligned_and_unbegun_storage_is_told(void)
{
    static vfio_source no_source;
    static vfio_destination no_destination;
    every_order(NULL, NULL, VFIO_STATUS_NULL);
    every_order(&no_source, &no_destination, VFIO_STATUS_NOT_INITIALISED);
    // The sanitizer sees pointers of a structure's type; these go by way of void.
    static uint64_t words[sizeof(vfio_source) / 8 + 1];
    void *crooked = (uint8_t *)words + 1;
    every_order(crooked, crooked, VFIO_STATUS_MISALIGNED);
}

static void copied_session_is_told_and_so_is_one_of_another_kind(void)
{
    vfio_source copy_of_source;
    vfio_destination copy_of_destination;
    begin_source(7);
    begin_destination();
    copy_of_source = source;
    copy_of_destination = destination;
    every_order(&copy_of_source, &copy_of_destination, VFIO_STATUS_NOT_INITIALISED);
    every_order((void *)&destination, (void *)&source, VFIO_STATUS_NOT_INITIALISED);
    CHECK(vfio_source_setup(&source, 0) == VFIO_STATUS_OK);
    CHECK(vfio_destination_resume(&destination) == VFIO_STATUS_OK);
}

static void null_for_what_is_read_or_written_is_told(void)
{
    vfio_effect effect;
    vfio_done done = { .kind = VFIO_EFFECT_SEND, .u.count = 16 };
    begin_source(7);
    begin_destination();
    CHECK(vfio_source_setup(&source, 0) == VFIO_STATUS_OK);
    CHECK(vfio_source_poll(&source, NULL) == VFIO_STATUS_NULL);
    CHECK(vfio_source_complete(&source, &done, NULL) == VFIO_STATUS_WRONG_DONE); // nothing was asked for yet
    CHECK(vfio_source_poll(&source, &effect) == VFIO_STATUS_OK);
    CHECK(vfio_source_complete(&source, NULL, NULL) == VFIO_STATUS_NULL);
    void *crooked = (uint8_t *)&effect + 1;
    CHECK(vfio_source_poll(&source, crooked) == VFIO_STATUS_MISALIGNED);
    CHECK(vfio_source_complete(&source, crooked, NULL) == VFIO_STATUS_MISALIGNED);
    CHECK(vfio_source_complete(&source, &done, crooked) == VFIO_STATUS_MISALIGNED);
    CHECK(vfio_source_complete(&source, &done, NULL) == VFIO_STATUS_OK);
    CHECK(vfio_destination_poll(&destination, NULL) == VFIO_STATUS_NULL);
    CHECK(vfio_destination_poll(&destination, crooked) == VFIO_STATUS_MISALIGNED);
    CHECK(vfio_destination_complete(&destination, NULL, NULL) == VFIO_STATUS_NULL);
    CHECK(vfio_destination_record(&destination, NULL) == VFIO_STATUS_NULL);
    CHECK(vfio_destination_record(&destination, crooked) == VFIO_STATUS_MISALIGNED);
    CHECK(vfio_destination_resume(&destination) == VFIO_STATUS_OK);
    CHECK(vfio_destination_poll(&destination, &effect) == VFIO_STATUS_OK && effect.kind == VFIO_EFFECT_SET_STATE);
    done = (vfio_done){ .kind = VFIO_EFFECT_SET_STATE };
    CHECK(vfio_destination_complete(&destination, &done, crooked) == VFIO_STATUS_MISALIGNED);
    CHECK(vfio_destination_complete(&destination, &done, NULL) == VFIO_STATUS_OK);
}

static void order_at_the_wrong_time_is_refused(void)
{
    begin_source(1);
    begin_destination();
    CHECK(vfio_source_stop(&source) == VFIO_STATUS_WRONG_ORDER);
    CHECK(vfio_source_copy_rest(&source) == VFIO_STATUS_WRONG_ORDER);
    CHECK(vfio_source_measure(&source) == VFIO_STATUS_WRONG_ORDER);
    CHECK(vfio_source_finish(&source) == VFIO_STATUS_WRONG_ORDER);
    CHECK(vfio_source_setup(&source, 1) == VFIO_STATUS_NO_STATE);
    CHECK(vfio_source_setup(&source, 0) == VFIO_STATUS_OK);
    CHECK(vfio_source_setup(&source, 0) == VFIO_STATUS_WRONG_ORDER);
    CHECK(vfio_destination_section(&destination) == VFIO_STATUS_WRONG_ORDER);
    CHECK(vfio_destination_stop(&destination) == VFIO_STATUS_WRONG_ORDER);
    CHECK(vfio_destination_run(&destination) == VFIO_STATUS_WRONG_ORDER);
    CHECK(vfio_destination_resume(&destination) == VFIO_STATUS_OK);
    CHECK(vfio_destination_resume(&destination) == VFIO_STATUS_WRONG_ORDER);
}

// Answers with every kind there is and some that are not, but the right one; the effect stays as it was.
static void wrong_kinds(vfio_status (*complete)(void *, const vfio_done *), void *session, uint32_t right)
{
    for (uint32_t kind = 0; kind < 40; kind++) {
        vfio_done done = { .kind = kind, .u.count = 1 };
        int is_kind = kind >= VFIO_EFFECT_SET_STATE && kind <= VFIO_EFFECT_DRAINED;
        if (kind != right)
            CHECK(complete(session, &done) == (is_kind ? VFIO_STATUS_WRONG_DONE : VFIO_STATUS_UNKNOWN_VALUE));
    }
    for (uint32_t bit = 1u << 31; bit > 32; bit >>= 1) {
        vfio_done done = { .kind = right | bit, .u.count = 1 };
        CHECK(complete(session, &done) == VFIO_STATUS_UNKNOWN_VALUE);
    }
}

static vfio_status complete_source(void *session, const vfio_done *done)
{
    vfio_event event = { .done.kind = 77 };
    vfio_status status = vfio_source_complete(session, done, &event);
    CHECK(status == VFIO_STATUS_OK || event.done.kind == 77);
    return status;
}

static vfio_status complete_destination(void *session, const vfio_done *done)
{
    vfio_event event = { .done.kind = 77 };
    vfio_status status = vfio_destination_complete(session, done, &event);
    CHECK(status == VFIO_STATUS_OK || event.done.kind == 77);
    return status;
}

static void answer_of_a_wrong_kind_is_refused_and_changes_nothing(void)
{
    vfio_effect before, after;
    begin_source(7);
    CHECK(vfio_source_setup(&source, 0) == VFIO_STATUS_OK);
    CHECK(vfio_source_poll(&source, &before) == VFIO_STATUS_OK && before.kind == VFIO_EFFECT_SEND);
    wrong_kinds(complete_source, &source, VFIO_EFFECT_SEND);
    CHECK(vfio_source_poll(&source, &after) == VFIO_STATUS_OK && after.kind == VFIO_EFFECT_SEND);
    CHECK(after.u.bytes.bytes == before.u.bytes.bytes && after.u.bytes.length == before.u.bytes.length);

    begin_destination();
    CHECK(vfio_destination_resume(&destination) == VFIO_STATUS_OK);
    CHECK(vfio_destination_poll(&destination, &before) == VFIO_STATUS_OK);
    wrong_kinds(complete_destination, &destination, VFIO_EFFECT_SET_STATE);
    CHECK(vfio_destination_poll(&destination, &after) == VFIO_STATUS_OK);
    CHECK(after.kind == VFIO_EFFECT_SET_STATE && after.u.state == VFIO_STATE_RESUMING);
}

static void more_bytes_than_were_offered_are_refused(void)
{
    vfio_effect effect;
    vfio_done done = { .kind = VFIO_EFFECT_SEND };
    begin_source(7);
    CHECK(vfio_source_setup(&source, 0) == VFIO_STATUS_OK);
    CHECK(vfio_source_poll(&source, &effect) == VFIO_STATUS_OK && effect.u.bytes.length == 16);
    done.u.count = 17;
    CHECK(vfio_source_complete(&source, &done, NULL) == VFIO_STATUS_TOO_MANY);
    done.u.count = SIZE_MAX;
    CHECK(vfio_source_complete(&source, &done, NULL) == VFIO_STATUS_TOO_MANY);
    done.u.count = 16;
    CHECK(vfio_source_complete(&source, &done, NULL) == VFIO_STATUS_OK);
}

static void answer_after_a_cancel_is_refused(void)
{
    vfio_effect effect;
    vfio_done done = { .kind = VFIO_EFFECT_SET_STATE };
    begin_destination();
    CHECK(vfio_destination_resume(&destination) == VFIO_STATUS_OK);
    CHECK(vfio_destination_poll(&destination, &effect) == VFIO_STATUS_OK);
    CHECK(vfio_destination_cancel(&destination) == VFIO_STATUS_OK);
    CHECK(vfio_destination_complete(&destination, &done, NULL) == VFIO_STATUS_WRONG_DONE);
    CHECK(vfio_destination_poll(&destination, &effect) == VFIO_STATUS_OK && effect.kind == VFIO_EFFECT_RESET);
}

static void asking_twice_changes_nothing(void)
{
    vfio_effect one, other;
    begin_source(7);
    CHECK(vfio_source_setup(&source, 0) == VFIO_STATUS_OK);
    CHECK(vfio_source_poll(&source, &one) == VFIO_STATUS_OK && vfio_source_poll(&source, &other) == VFIO_STATUS_OK);
    CHECK(one.kind == other.kind && one.u.bytes.bytes == other.u.bytes.bytes);
    CHECK(one.u.bytes.bytes >= buffer && one.u.bytes.bytes + one.u.bytes.length <= buffer + sizeof buffer);
}

static void destination_says_in_which_record_it_is(void)
{
    static const uint8_t head[] = { 0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 4 };
    vfio_effect effect;
    vfio_done done = { .kind = VFIO_EFFECT_SET_STATE };
    uint32_t tag = 99;
    begin_destination();
    CHECK(vfio_destination_resume(&destination) == VFIO_STATUS_OK);
    CHECK(vfio_destination_poll(&destination, &effect) == VFIO_STATUS_OK);
    CHECK(vfio_destination_complete(&destination, &done, NULL) == VFIO_STATUS_OK);
    CHECK(vfio_destination_section(&destination) == VFIO_STATUS_OK);
    CHECK(vfio_destination_record(&destination, &tag) == VFIO_STATUS_OK && tag == 0);
    CHECK(vfio_destination_poll(&destination, &effect) == VFIO_STATUS_OK && effect.u.room.length == sizeof head);
    memcpy(effect.u.room.bytes, head, sizeof head);
    done = (vfio_done){ .kind = VFIO_EFFECT_RECV, .u.count = sizeof head };
    CHECK(vfio_destination_complete(&destination, &done, NULL) == VFIO_STATUS_OK);
    CHECK(vfio_destination_record(&destination, &tag) == VFIO_STATUS_OK && tag == VFIO_TAG_DATA);
}

void test_misuse(void)
{
    RUN(beginning_with_what_can_not_be_is_refused);
    RUN(refused_beginning_leaves_no_session_behind);
    RUN(beginning_at_a_pointer_that_is_none_changes_nothing);
    RUN(null_misaligned_and_unbegun_storage_is_told);
    RUN(copied_session_is_told_and_so_is_one_of_another_kind);
    RUN(null_for_what_is_read_or_written_is_told);
    RUN(order_at_the_wrong_time_is_refused);
    RUN(answer_of_a_wrong_kind_is_refused_and_changes_nothing);
    RUN(more_bytes_than_were_offered_are_refused);
    RUN(answer_after_a_cancel_is_refused);
    RUN(asking_twice_changes_nothing);
    RUN(destination_says_in_which_record_it_is);
}
