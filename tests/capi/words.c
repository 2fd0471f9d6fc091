// What people read: every event, cause and answer has words, and they end where their room does.

#include <string.h>

#include "migrate.h"
#include "tests.h"

static void says(vfio_status status, const char *got, const char *wanted)
{
    CHECK(status == VFIO_STATUS_OK);
    CHECK(strcmp(got, wanted) == 0);
}

static void event_says(vfio_event event, const char *wanted)
{
    char words[128];
    vfio_status status = vfio_event_show(&event, words, sizeof words, NULL);
    says(status, words, wanted);
}

static void every_event_says_what_was_done_and_how_it_went(void)
{
    vfio_event event;
    event = (vfio_event){ .done.kind = VFIO_EFFECT_SET_STATE, .state = VFIO_STATE_STOP_COPY };
    event_says(event, "set STOP_COPY: ok");
    event = (vfio_event){ .done = { .kind = VFIO_EFFECT_SET_STATE, .error = 22 }, .state = 1, .recovery = 1 };
    event_says(event, "set STOP to recover: error 22");
    event = (vfio_event){ .done = { .kind = VFIO_EFFECT_PRECOPY_INFO, .u.precopy_left = { 24, 4096, 1 } } };
    event_says(event, "precopy info: initial 24, dirty 4096, begun anew");
    event = (vfio_event){ .done = { .kind = VFIO_EFFECT_READ_DATA, .u.count = 7 }, .offered = 40 };
    event_says(event, "read data, room for 40: 7");
    event.done.u.count = 0;
    event_says(event, "read data, room for 40: end");
    event.done.kind = VFIO_EFFECT_DRAINED;
    event_says(event, "read data, room for 40: nothing now");
    event = (vfio_event){ .done = { .kind = VFIO_EFFECT_SEND, .u.count = 4 }, .offered = 9 };
    event_says(event, "send 9: 4");
    event = (vfio_event){ .done = { .kind = VFIO_EFFECT_SEND_CONFIG, .error = 5 } };
    event_says(event, "send configuration: error 5");
    event = (vfio_event){ .done = { .kind = VFIO_EFFECT_RECV, .u.count = 0 }, .offered = 8 };
    event_says(event, "receive 8: 0");
    event = (vfio_event){ .done = { .kind = VFIO_EFFECT_WRITE_DATA, .error = 14 }, .offered = 8 };
    event_says(event, "write data 8: error 14");
    event = (vfio_event){ .done = { .kind = VFIO_EFFECT_RECV_CONFIG, .u.length = 276 } };
    event_says(event, "receive configuration: 276");
    event = (vfio_event){ .done.kind = VFIO_EFFECT_RESET };
    event_says(event, "reset: ok");
}

static void every_cause_says_what_went_wrong(void)
{
    static const char *words[] = {
        "cancelled",
        "the device refused STOP: error 5",
        "the device refused PRECOPY_INFO: error 5",
        "the device's data could not be read: error 5",
        "the device answered ENOMSG in STOP_COPY, wanted data or the end",
        "the link refused bytes: error 5",
        "the link took no byte, its other end is gone",
        "the configuration could not be sent: error 5",
        "the link failed at byte 40 of the payload: error 5",
        "the stream ended at byte 40 of the payload, wanted 3 more bytes of a record",
        "the device refused the data at byte 40 of the payload: error 5",
        "the device took nothing of the data at byte 40 of the payload",
        "the configuration at byte 40 of the payload was refused: error 5",
        "wanted a record's tag at byte 40 of the payload, got 0x0000000000000007",
        "wanted END_OF_STATE behind SETUP at byte 40 of the payload, got 0x0000000000000007",
        "wanted a record that was agreed on at byte 40 of the payload, got SETUP",
    };
    for (uint32_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        vfio_cause cause = { .kind = i + 1, .state = VFIO_STATE_STOP, .tag = VFIO_TAG_SETUP, .code = 5,
                             .offset = 40, .missing = 3, .got = 7 };
        char got[128];
        says(vfio_cause_show(&cause, got, sizeof got, NULL), got, words[i]);
    }
}

static void failure_says_the_cause_and_where_the_device_is(void)
{
    char words[128];
    vfio_failure failure = { .cause.kind = VFIO_CAUSE_CANCELLED, .left = VFIO_LEFT_AT, .state = VFIO_STATE_RUNNING };
    vfio_status status = vfio_failure_show(&failure, words, sizeof words, NULL);
    says(status, words, "cancelled; the device is in RUNNING");
    failure.left = VFIO_LEFT_RESET;
    status = vfio_failure_show(&failure, words, sizeof words, NULL);
    says(status, words, "cancelled; the device was reset to RUNNING, its former content is gone");
    failure.left = VFIO_LEFT_UNKNOWN;
    status = vfio_failure_show(&failure, words, sizeof words, NULL);
    says(status, words, "cancelled; the device refused its reset, its state is unknown");
}

static void every_answer_and_state_has_words_of_its_own(void)
{
    char all[16][128], words[128];
    for (uint32_t status = VFIO_STATUS_OK; status <= VFIO_STATUS_DAMAGED; status++) {
        CHECK(vfio_status_show(status, all[status], sizeof all[status], NULL) == VFIO_STATUS_OK);
        CHECK(all[status][0] != '\0');
        for (uint32_t other = 0; other < status; other++)
            CHECK(strcmp(all[status], all[other]) != 0);
    }
    CHECK(vfio_status_show(VFIO_STATUS_DAMAGED + 1, words, sizeof words, NULL) == VFIO_STATUS_UNKNOWN_VALUE);
    says(vfio_state_show(VFIO_STATE_PRE_COPY_P2P, words, sizeof words, NULL), words, "PRE_COPY_P2P");
    CHECK(vfio_state_show(8, words, sizeof words, NULL) == VFIO_STATUS_UNKNOWN_VALUE && words[0] == '\0');
}

static void words_are_cut_where_their_room_ends(void)
{
    static const char whole[] = "set RUNNING_P2P: ok";
    vfio_event event = { .done.kind = VFIO_EFFECT_SET_STATE, .state = VFIO_STATE_RUNNING_P2P };
    for (size_t room = 0; room < sizeof whole + 3; room++) {
        char words[64];
        size_t length = 0;
        memset(words, 'x', sizeof words);
        vfio_status status = vfio_event_show(&event, words, room, &length);
        CHECK(status == (room < sizeof whole ? VFIO_STATUS_NO_ROOM : VFIO_STATUS_OK));
        CHECK(length == sizeof whole - 1 && words[room] == 'x');
        if (room > 0)
            CHECK(strlen(words) == (room < sizeof whole ? room - 1 : sizeof whole - 1));
        if (room > 0)
            CHECK(memcmp(words, whole, strlen(words)) == 0);
    }
    uint64_t numbers[4] = { 0 };
    void *crooked = (uint8_t *)numbers + 1;
    char words[] = "as before";
    CHECK(vfio_event_show(&event, words, sizeof words, crooked) == VFIO_STATUS_MISALIGNED);
    CHECK(strcmp(words, "as before") == 0);
    CHECK(vfio_event_show(crooked, words, sizeof words, NULL) == VFIO_STATUS_MISALIGNED && words[0] == '\0');
    CHECK(vfio_event_show(&event, NULL, 0, NULL) == VFIO_STATUS_NO_ROOM);
    CHECK(vfio_event_show(&event, NULL, 10, NULL) == VFIO_STATUS_NULL);
}

static void numbers_that_name_nothing_have_no_words(void)
{
    char words[64];
    vfio_event event = { .done.kind = 0 };
    vfio_failure failure = { .cause.kind = VFIO_CAUSE_CANCELLED, .left = 0 };
    CHECK(vfio_event_show(NULL, words, sizeof words, NULL) == VFIO_STATUS_NULL);
    for (uint32_t kind = 0; kind < 50; kind++) {
        int is_done = kind >= VFIO_EFFECT_SET_STATE && kind <= VFIO_EFFECT_DRAINED && kind != VFIO_EFFECT_IDLE;
        memset(words, 'x', sizeof words);
        event.done.kind = kind;
        vfio_status status = vfio_event_show(&event, words, sizeof words, NULL);
        CHECK(status == (is_done ? VFIO_STATUS_OK : VFIO_STATUS_UNKNOWN_VALUE));
        CHECK(is_done || words[0] == '\0');
    }
    event = (vfio_event){ .done.kind = VFIO_EFFECT_SET_STATE, .state = 8 };
    CHECK(vfio_event_show(&event, words, sizeof words, NULL) == VFIO_STATUS_UNKNOWN_VALUE);
    CHECK(vfio_failure_show(&failure, words, sizeof words, NULL) == VFIO_STATUS_UNKNOWN_VALUE);
    failure.left = VFIO_LEFT_AT;
    failure.state = 99;
    CHECK(vfio_failure_show(&failure, words, sizeof words, NULL) == VFIO_STATUS_UNKNOWN_VALUE);
    failure.cause.kind = 17;
    CHECK(vfio_cause_show(&failure.cause, words, sizeof words, NULL) == VFIO_STATUS_UNKNOWN_VALUE);
    failure.cause = (vfio_cause){ .kind = VFIO_CAUSE_UNEXPECTED, .tag = 0 };
    CHECK(vfio_cause_show(&failure.cause, words, sizeof words, NULL) == VFIO_STATUS_UNKNOWN_VALUE);
}

void test_words(void)
{
    RUN(every_event_says_what_was_done_and_how_it_went);
    RUN(every_cause_says_what_went_wrong);
    RUN(failure_says_the_cause_and_where_the_device_is);
    RUN(every_answer_and_state_has_words_of_its_own);
    RUN(words_are_cut_where_their_room_ends);
    RUN(numbers_that_name_nothing_have_no_words);
}
