// Records and items without a session: their bytes, and what is refused.

#include <string.h>

#include "tests.h"
#include "vfio_migration.h"

static const uint8_t NAME[] = "0000:00:02.0/vfio";

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static void each_record_is_its_bytes(void)
{
    for (uint32_t tag = 0; tag < 9; tag++) {
        uint8_t bytes[VFIO_WORD] = { 0 };
        uint8_t wanted[VFIO_WORD] = { 0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, (uint8_t)tag };
        vfio_status status = vfio_record_encode(tag, bytes);
        if (tag >= VFIO_TAG_END_OF_STATE && tag <= VFIO_TAG_CONFIG_LOAD_READY)
            CHECK(status == VFIO_STATUS_OK && memcmp(bytes, wanted, sizeof bytes) == 0);
        else
            CHECK(status == VFIO_STATUS_UNKNOWN_VALUE && bytes[0] == 0);
    }
    uint8_t head[VFIO_DATA_HEAD];
    static const uint8_t wanted[] = { 0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 4, 1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef };
    CHECK(vfio_record_encode_data_head(0x0123456789abcdef, head) == VFIO_STATUS_OK);
    CHECK(memcmp(head, wanted, sizeof wanted) == 0);
    CHECK(vfio_record_encode(VFIO_TAG_DATA, NULL) == VFIO_STATUS_NULL);
    CHECK(vfio_record_encode_data_head(1, NULL) == VFIO_STATUS_NULL);
}

// Walks the payload of a golden section, and says how many bytes of data and of a configuration it has.
static void walk(const char *name, size_t head, size_t length, uint64_t data, uint64_t config)
{
    static uint8_t section[5000];
    static vfio_decoder decoder;
    vfio_wanted wanted;
    CHECK(golden(name, section, sizeof section) == length);
    const uint8_t *payload = section + head;
    uint64_t got_data = 0, got_config = 0;
    CHECK(vfio_decoder_init(&decoder) == VFIO_STATUS_OK);
    for (int i = 0; i < 20; i++) {
        CHECK(vfio_decoder_wanted(&decoder, &wanted) == VFIO_STATUS_OK);
        if (wanted.kind == VFIO_WANTED_WORD) {
            vfio_word word;
            CHECK(vfio_decoder_word(&decoder, payload + wanted.offset, &word, NULL) == VFIO_STATUS_OK);
            CHECK((word.tag == 0) == (word.length > 0));
        } else if (wanted.kind == VFIO_WANTED_DATA) {
            got_data += wanted.length;
            CHECK(vfio_decoder_data(&decoder, wanted.length) == VFIO_STATUS_OK);
        } else if (wanted.kind == VFIO_WANTED_CONFIG) {
            got_config = config;
            CHECK(vfio_decoder_config(&decoder, config) == VFIO_STATUS_OK);
        } else {
            break;
        }
    }
    CHECK(wanted.kind == VFIO_WANTED_NOTHING && wanted.tag == VFIO_TAG_END_OF_STATE);
    CHECK(got_data == data && got_config == config && head + wanted.offset + VFIO_FOOTER == length);
    CHECK(vfio_footer_decode(38, payload + wanted.offset) == VFIO_STATUS_OK);
    CHECK(vfio_footer_decode(39, payload + wanted.offset) == VFIO_STATUS_DAMAGED);
}

static void payloads_that_qemu_wrote_are_walked_to_their_end(void)
{
    walk("qemu-10-precopy-start.bin", 31, 52, 0, 0);
    walk("qemu-10-precopy-part1.bin", 5, 58, 24, 0);
    walk("qemu-10-precopy-end.bin", 5, 70, 36, 0);
    walk("qemu-10-precopy-full.bin", 31, 4168, 0, 4116);
}

static void decoder_refuses_what_it_did_not_want(void)
{
    static vfio_decoder decoder;
    static const uint8_t data[] = { 0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 4 }, five[8] = { [7] = 5 };
    uint8_t unknown[] = { 0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 7 };
    vfio_decoder copy;
    vfio_wanted wanted;
    vfio_word word;
    vfio_cause cause;
    memset(&cause, 0, sizeof cause);
    CHECK(vfio_decoder_data(&decoder, 1) == VFIO_STATUS_NOT_INITIALISED);
    CHECK(vfio_decoder_init(NULL) == VFIO_STATUS_NULL);
    CHECK(vfio_decoder_init(&decoder) == VFIO_STATUS_OK);
    CHECK(vfio_decoder_word(&decoder, NULL, &word, &cause) == VFIO_STATUS_NULL);
    CHECK(vfio_decoder_word(&decoder, unknown, &word, &cause) == VFIO_STATUS_DAMAGED);
    CHECK(cause.kind == VFIO_CAUSE_UNKNOWN_TAG && cause.got == 0xffffffffef100007u && cause.offset == 0);
    CHECK(vfio_decoder_data(&decoder, 1) == VFIO_STATUS_WRONG_ORDER);
    // An answer that could not be written is not made.
    uint64_t words[16] = { 0 };
    void *crooked = (uint8_t *)words + 1;
    CHECK(vfio_decoder_word(&decoder, data, crooked, &cause) == VFIO_STATUS_MISALIGNED);
    CHECK(vfio_decoder_word(&decoder, data, &word, crooked) == VFIO_STATUS_MISALIGNED);
    CHECK(vfio_decoder_word(&decoder, unknown, NULL, crooked) == VFIO_STATUS_MISALIGNED);
    CHECK(vfio_decoder_wanted(&decoder, crooked) == VFIO_STATUS_MISALIGNED);
    CHECK(vfio_decoder_wanted(&decoder, &wanted) == VFIO_STATUS_OK && wanted.offset == 0);
    CHECK(vfio_decoder_config(&decoder, 1) == VFIO_STATUS_WRONG_ORDER);
    CHECK(vfio_decoder_word(&decoder, data, &word, NULL) == VFIO_STATUS_OK && word.tag == VFIO_TAG_DATA);
    CHECK(vfio_decoder_word(&decoder, five, &word, NULL) == VFIO_STATUS_OK && word.tag == 0 && word.length == 5);
    CHECK(vfio_decoder_word(&decoder, five, &word, NULL) == VFIO_STATUS_WRONG_ORDER);
    CHECK(vfio_decoder_data(&decoder, 6) == VFIO_STATUS_TOO_MANY);
    CHECK(vfio_decoder_data(&decoder, 5) == VFIO_STATUS_OK);
    CHECK(vfio_decoder_wanted(&decoder, NULL) == VFIO_STATUS_NULL);
    copy = decoder;
    CHECK(vfio_decoder_data(&copy, 1) == VFIO_STATUS_NOT_INITIALISED);
}

static vfio_item begin(uint32_t kind)
{
    vfio_item item = { .kind = kind, .id = 38, .name = NAME, .name_length = sizeof NAME - 1, .version = 1 };
    return item;
}

static void each_item_is_its_bytes(void)
{
    static const struct {
        vfio_item item;
        const char *bytes;
        size_t length;
    } table[] = {
        { { .kind = VFIO_ITEM_CONFIGURATION }, "\7\0\0\0\0", 5 },
        { { .kind = VFIO_ITEM_SUBSECTION, .name = NAME, .name_length = 4, .version = 1 }, "\5\4" "0000" "\0\0\0\1", 10 },
        { { .kind = VFIO_ITEM_START, .id = 38, .name = NAME, .name_length = 4, .version = 1 },
          "\1\0\0\0\46\4" "0000" "\0\0\0\0\0\0\0\1", 18 },
        { { .kind = VFIO_ITEM_FULL, .id = 38, .name = NAME, .name_length = 4, .instance = 2, .version = 1 },
          "\4\0\0\0\46\4" "0000" "\0\0\0\2\0\0\0\1", 18 },
        { { .kind = VFIO_ITEM_PART, .id = 38 }, "\2\0\0\0\46", 5 },
        { { .kind = VFIO_ITEM_END, .id = 38 }, "\3\0\0\0\46", 5 },
        { { .kind = VFIO_ITEM_COMMAND, .command = VFIO_SWITCHOVER_START }, "\10\0\13\0\0", 5 },
        { { .kind = VFIO_ITEM_END_OF_STREAM }, "\0", 1 },
        { { .kind = VFIO_ITEM_DESCRIPTION, .length = 67 }, "\6\0\0\0\103", 5 },
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        uint8_t bytes[VFIO_ITEM_MAX];
        size_t length = 0;
        vfio_item item;
        CHECK(vfio_item_encode(&table[i].item, bytes, sizeof bytes, &length) == VFIO_STATUS_OK);
        CHECK(length == table[i].length && memcmp(bytes, table[i].bytes, length) == 0);
        CHECK(vfio_item_decode(bytes, length, &item, &length) == VFIO_STATUS_OK && length == table[i].length);
        const vfio_item *wanted = &table[i].item;
        CHECK(item.kind == wanted->kind && item.id == wanted->id && item.instance == wanted->instance);
        CHECK(item.version == wanted->version && item.command == wanted->command && item.length == wanted->length);
        CHECK(item.name_length == wanted->name_length);
        CHECK(item.name_length == 0 || memcmp(item.name, wanted->name, item.name_length) == 0);
    }
}

static void begin_of_a_section_wants_exactly_its_bytes(void)
{
    static const size_t wanted[] = { 1, 5, 6, 23, 27, 31 };
    uint8_t bytes[VFIO_ITEM_MAX];
    vfio_item item = begin(VFIO_ITEM_START);
    size_t length, have = 0;
    CHECK(vfio_item_encode(&item, bytes, sizeof bytes, &length) == VFIO_STATUS_OK && length == 31);
    for (size_t i = 0; i < COUNT(wanted); i++) {
        CHECK(vfio_item_decode(bytes, have, &item, &length) == VFIO_STATUS_SHORT && length == wanted[i]);
        have = length;
    }
    CHECK(vfio_item_decode(bytes, have, &item, &length) == VFIO_STATUS_OK && length == 31);
    CHECK(item.name == bytes + 6 && item.name_length == 17);
}

static void items_that_can_not_be_are_refused(void)
{
    uint8_t bytes[VFIO_ITEM_MAX], long_name[VFIO_NAME_MAX] = { 0 };
    size_t length = 0;
    vfio_item item = begin(VFIO_ITEM_FULL);
    for (size_t room = 0; room < 31; room++) {
        memset(bytes, 0xa5, sizeof bytes);
        CHECK(vfio_item_encode(&item, bytes, room, &length) == VFIO_STATUS_NO_ROOM && length == 31);
        CHECK(bytes[0] == 0xa5);
    }
    CHECK(vfio_item_encode(&item, bytes, 31, NULL) == VFIO_STATUS_OK);
    // No room is enough for a longer name.
    length = 77;
    item.name = long_name;
    item.name_length = VFIO_NAME_MAX + 1;
    CHECK(vfio_item_encode(&item, bytes, sizeof bytes, &length) == VFIO_STATUS_UNKNOWN_VALUE && length == 77);
    item.name_length = SIZE_MAX;
    CHECK(vfio_item_encode(&item, bytes, sizeof bytes, &length) == VFIO_STATUS_UNKNOWN_VALUE && length == 77);
    item.name_length = VFIO_NAME_MAX;
    CHECK(vfio_item_encode(&item, bytes, sizeof bytes, &length) == VFIO_STATUS_OK && length == VFIO_ITEM_MAX);
    item.name = NULL;
    CHECK(vfio_item_encode(&item, bytes, sizeof bytes, &length) == VFIO_STATUS_NULL);
    item.kind = 10;
    CHECK(vfio_item_encode(&item, bytes, sizeof bytes, &length) == VFIO_STATUS_UNKNOWN_VALUE);
    item.kind = VFIO_ITEM_COMMAND;
    item.command = 0x10000;
    CHECK(vfio_item_encode(&item, bytes, sizeof bytes, &length) == VFIO_STATUS_UNKNOWN_VALUE);
    CHECK(vfio_item_encode(NULL, bytes, sizeof bytes, &length) == VFIO_STATUS_NULL);
    CHECK(vfio_item_encode(&item, NULL, 0, &length) == VFIO_STATUS_NULL);
    bytes[0] = 0x42;
    CHECK(vfio_item_decode(bytes, 5, &item, &length) == VFIO_STATUS_DAMAGED);
    CHECK(vfio_item_decode(NULL, 5, &item, &length) == VFIO_STATUS_NULL);
    CHECK(vfio_item_decode(bytes, 5, NULL, &length) == VFIO_STATUS_NULL);
    CHECK(vfio_item_decode(bytes, 5, &item, NULL) == VFIO_STATUS_NULL);
}

static void nothing_is_written_where_a_length_could_not_be(void)
{
    static const uint8_t end[] = { 3, 0, 0, 0, 38 }, ack[] = { 0, 7, 0, 0 };
    uint64_t words[4] = { 0 };
    void *crooked = (uint8_t *)words + 1;
    uint8_t bytes[VFIO_ITEM_MAX] = { 0xa5 };
    vfio_item item = begin(VFIO_ITEM_START);
    vfio_message message = { .kind = VFIO_MESSAGE_SWITCHOVER_ACK };
    CHECK(vfio_item_encode(&item, bytes, sizeof bytes, crooked) == VFIO_STATUS_MISALIGNED);
    CHECK(vfio_message_encode(&message, bytes, sizeof bytes, crooked) == VFIO_STATUS_MISALIGNED);
    CHECK(bytes[0] == 0xa5);
    message.kind = 77;
    CHECK(vfio_item_decode(end, sizeof end, &item, crooked) == VFIO_STATUS_MISALIGNED);
    CHECK(vfio_message_decode(ack, sizeof ack, &message, crooked) == VFIO_STATUS_MISALIGNED);
    CHECK(item.kind == VFIO_ITEM_START && message.kind == 77);
}

static void preamble_and_footer_are_their_bytes_and_nothing_else(void)
{
    uint8_t preamble[VFIO_PREAMBLE], footer[VFIO_FOOTER];
    CHECK(vfio_preamble_encode(preamble) == VFIO_STATUS_OK && memcmp(preamble, "QEVM\0\0\0\3", 8) == 0);
    CHECK(vfio_preamble_decode(preamble) == VFIO_STATUS_OK);
    preamble[7] = 2;
    CHECK(vfio_preamble_decode(preamble) == VFIO_STATUS_DAMAGED);
    CHECK(vfio_preamble_decode(NULL) == VFIO_STATUS_NULL && vfio_preamble_encode(NULL) == VFIO_STATUS_NULL);
    CHECK(vfio_footer_encode(38, footer) == VFIO_STATUS_OK && memcmp(footer, "\176\0\0\0\46", 5) == 0);
    CHECK(vfio_footer_decode(38, footer) == VFIO_STATUS_OK);
    footer[0] = 0x7d;
    CHECK(vfio_footer_decode(38, footer) == VFIO_STATUS_DAMAGED);
    CHECK(vfio_footer_decode(38, NULL) == VFIO_STATUS_NULL && vfio_footer_encode(38, NULL) == VFIO_STATUS_NULL);
}

static void each_message_is_its_bytes_and_nothing_else(void)
{
    static const struct {
        vfio_message message;
        const char *bytes;
        size_t length;
    } table[] = {
        { { .kind = VFIO_MESSAGE_SHUT, .value = 1 }, "\0\1\0\4\0\0\0\1", 8 },
        { { .kind = VFIO_MESSAGE_PONG, .value = 0x01020304 }, "\0\2\0\4\1\2\3\4", 8 },
        { { .kind = VFIO_MESSAGE_REQ_PAGES_ID, .length = 300 }, "\0\3\1\54", 4 },
        { { .kind = VFIO_MESSAGE_REQ_PAGES, .length = 12 }, "\0\4\0\14", 4 },
        { { .kind = VFIO_MESSAGE_RECV_BITMAP, .length = 5 }, "\0\5\0\5", 4 },
        { { .kind = VFIO_MESSAGE_RESUME_ACK, .length = 4 }, "\0\6\0\4", 4 },
        { { .kind = VFIO_MESSAGE_SWITCHOVER_ACK }, "\0\7\0\0", 4 },
    };
    uint8_t bytes[VFIO_MESSAGE_MAX];
    size_t length;
    vfio_message message;
    for (size_t i = 0; i < COUNT(table); i++) {
        CHECK(vfio_message_encode(&table[i].message, bytes, sizeof bytes, &length) == VFIO_STATUS_OK);
        CHECK(length == table[i].length && memcmp(bytes, table[i].bytes, length) == 0);
        for (size_t have = 0; have < length; have++) {
            size_t wanted = 0;
            CHECK(vfio_message_decode(bytes, have, &message, &wanted) == VFIO_STATUS_SHORT);
            CHECK(wanted == (have < 4 ? 4 : length));
            CHECK(vfio_message_encode(&table[i].message, bytes, have, &wanted) == VFIO_STATUS_NO_ROOM);
            CHECK(wanted == length);
        }
        CHECK(vfio_message_decode(bytes, length, &message, &length) == VFIO_STATUS_OK && length == table[i].length);
        CHECK(message.kind == table[i].message.kind && message.value == table[i].message.value);
        CHECK(message.length == table[i].message.length);
    }
    static const uint8_t no_kind[] = { 0, 8, 0, 0 }, no_length[] = { 0, 7, 0, 1 };
    CHECK(vfio_message_decode(no_kind, sizeof no_kind, &message, &length) == VFIO_STATUS_DAMAGED);
    CHECK(vfio_message_decode(no_length, sizeof no_length, &message, &length) == VFIO_STATUS_DAMAGED);
    CHECK(vfio_message_decode(NULL, 4, &message, &length) == VFIO_STATUS_NULL);
    CHECK(vfio_message_decode(no_kind, 4, NULL, &length) == VFIO_STATUS_NULL);
    CHECK(vfio_message_encode(NULL, bytes, sizeof bytes, &length) == VFIO_STATUS_NULL);
    message = (vfio_message){ .kind = 0x10007 };
    CHECK(vfio_message_encode(&message, bytes, sizeof bytes, &length) == VFIO_STATUS_UNKNOWN_VALUE);
    message = (vfio_message){ .kind = VFIO_MESSAGE_RECV_BITMAP, .length = 0x10000 };
    CHECK(vfio_message_encode(&message, bytes, sizeof bytes, &length) == VFIO_STATUS_UNKNOWN_VALUE);
    message = (vfio_message){ .kind = VFIO_MESSAGE_REQ_PAGES, .length = 11 };
    CHECK(vfio_message_encode(&message, bytes, sizeof bytes, &length) == VFIO_STATUS_UNKNOWN_VALUE);
}

void test_codecs(void)
{
    RUN(each_message_is_its_bytes_and_nothing_else);
    RUN(each_record_is_its_bytes);
    RUN(payloads_that_qemu_wrote_are_walked_to_their_end);
    RUN(decoder_refuses_what_it_did_not_want);
    RUN(each_item_is_its_bytes);
    RUN(begin_of_a_section_wants_exactly_its_bytes);
    RUN(items_that_can_not_be_are_refused);
    RUN(nothing_is_written_where_a_length_could_not_be);
    RUN(preamble_and_footer_are_their_bytes_and_nothing_else);
}
