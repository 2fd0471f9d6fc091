// Bytes that C did not write: a QEMU wrote them, or loads them. What they hold arrives in a device, and what the source
// writes of the same device is the same to the last byte.

#include <string.h>

#include "migrate.h"
#include "tests.h"

// The golden streams hold 60 bytes of an mtty and a configuration of 4116 bytes.
#define CONTENT 60
#define CONFIG 4116

static const plan WHOLE = { .id = 38, .name = "0000:00:02.0/vfio", .config = 1, .buffer = 4096, .whole = 1 };

// The places of the device's content and of the configuration in one-end-section.bin.
#define CONTENT_AT 86
#define CONFIG_AT 198

static size_t append(link *link, const char *name)
{
    size_t length = golden(name, link->bytes + link->sent, sizeof link->bytes - link->sent);
    link->sent += length;
    return length;
}

static void begin_link(link *link)
{
    memset(link, 0, sizeof *link);
    link->config_length = CONFIG;
}

// Loads what the link holds into an mtty that held something else.
static void arrives(link *link, const plan *plan, const uint8_t *content, uint64_t features)
{
    device device;
    device_begin(&device, 77, 99, NULL);
    device.checks = 0;
    device.features = features;
    outcome outcome = load(&device, link, plan);
    CHECK(outcome.ending == ENDED_WELL && device.state == VFIO_STATE_RUNNING && device.resets == 0);
    CHECK(device.size == CONTENT && memcmp(device.content, content, CONTENT) == 0);
    CHECK(link->received == link->sent);
}

// Saves an mtty with this content and configuration and compares with the bytes that are wanted.
static void is_written(plan plan, const uint8_t *content, const uint8_t *config, size_t most, size_t early,
                       const link *wanted)
{
    static link got;
    device device;
    device_hold(&device, content, CONTENT, NULL);
    device.most = most;
    device.early = early;
    begin_link(&got);
    memcpy(got.config, config, CONFIG);
    outcome outcome = save(&device, &got, &plan);
    CHECK(outcome.ending == ENDED_WELL && device.state == VFIO_STATE_STOP);
    CHECK(got.sent == wanted->sent && memcmp(got.bytes, wanted->bytes, got.sent) == 0);
}

static void stream_that_qemu_loads_is_what_the_source_writes(void)
{
    static link file;
    begin_link(&file);
    CHECK(append(&file, "one-end-section.bin") == 4400);
    is_written(WHOLE, file.bytes + CONTENT_AT, file.bytes + CONFIG_AT, 0, 0, &file);
}

// The content of parts-then-empty-end.bin, in three PARTs of 54 bytes.
static void parts_content(const link *link, uint8_t content[CONTENT])
{
    for (size_t part = 0; part < 3; part++)
        memcpy(content + 20 * part, link->bytes + CONTENT_AT + 54 * part, 20);
}

static void stream_in_parts_that_qemu_loads_is_what_the_source_writes(void)
{
    static link file;
    uint8_t content[CONTENT];
    plan plan = WHOLE;
    begin_link(&file);
    CHECK(append(&file, "parts-then-empty-end.bin") == 4486);
    parts_content(&file, content);
    plan.parts = 3;
    is_written(plan, content, file.bytes + CONFIG_AT + 86, 20, 0, &file);
}

// The sections of a QEMU that migrated a running machine, without the memory between them.
static void append_precopy(link *link, const char *part)
{
    begin_link(link);
    append(link, "qemu-10-precopy-start.bin");
    append(link, part);
    append(link, "qemu-10-precopy-part2.bin");
    append(link, "qemu-10-precopy-end.bin");
    append(link, "qemu-10-precopy-full.bin");
}

// The 24 bytes of the PART and the 36 of the END of such sections.
static void precopy_content(const link *link, uint8_t content[CONTENT])
{
    memcpy(content, link->bytes + 52 + 5 + 16, 24);
    memcpy(content + 24, link->bytes + 52 + 58 + 18 + 5 + 16, 36);
}

// The payload of a FULL begins behind a name, and its body behind a tag.
#define PRECOPY_CONFIG_AT (52 + 58 + 18 + 70 + 31 + 8)

static void sections_that_qemu_wrote_in_pre_copy_are_what_the_source_writes(void)
{
    static link sections;
    uint8_t content[CONTENT];
    plan plan = WHOLE;
    append_precopy(&sections, "qemu-10-precopy-part1.bin");
    CHECK(sections.sent == 52 + 58 + 18 + 70 + 4168);
    precopy_content(&sections, content);
    plan.whole = 0;
    plan.pre_copy = 2;
    is_written(plan, content, sections.bytes + PRECOPY_CONFIG_AT, 0, 24, &sections);
}

static void sections_that_qemu_wrote_with_switchover_ack_are_what_the_source_writes(void)
{
    static link sections;
    uint8_t content[CONTENT];
    plan plan = WHOLE;
    append_precopy(&sections, "qemu-10-switchack-part1.bin");
    precopy_content(&sections, content);
    plan.whole = 0;
    plan.pre_copy = 2;
    plan.switchover_ack = 1;
    is_written(plan, content, sections.bytes + PRECOPY_CONFIG_AT, 0, 24, &sections);
}

static void stream_that_qemu_loads_arrives(void)
{
    static link link;
    for (size_t most = 0; most < 40; most += 13) {
        begin_link(&link);
        append(&link, "one-end-section.bin");
        link.most = most;
        arrives(&link, &WHOLE, link.bytes + CONTENT_AT, 1);
        CHECK(memcmp(link.config, link.bytes + CONFIG_AT, CONFIG) == 0);
    }
}

static void stream_in_parts_that_qemu_loads_arrives(void)
{
    static link link;
    uint8_t content[CONTENT];
    begin_link(&link);
    append(&link, "parts-then-empty-end.bin");
    parts_content(&link, content);
    arrives(&link, &WHOLE, content, 1);
}

static void sections_that_qemu_wrote_arrive(void)
{
    static link link;
    uint8_t content[CONTENT];
    plan plan = WHOLE;
    plan.whole = 0;
    append_precopy(&link, "qemu-10-precopy-part1.bin");
    precopy_content(&link, content);
    arrives(&link, &plan, content, 7);

    plan.switchover_ack = 1;
    append_precopy(&link, "qemu-10-switchack-part1.bin");
    precopy_content(&link, content);
    arrives(&link, &plan, content, 7);
}

static void init_data_sent_that_was_not_agreed_on_is_refused(void)
{
    static link link;
    device device;
    plan plan = WHOLE;
    plan.whole = 0;
    append_precopy(&link, "qemu-10-switchack-part1.bin");
    device_begin(&device, 77, 99, NULL);
    outcome outcome = load(&device, &link, &plan);
    vfio_failure failure = outcome.phase.u.failure;
    CHECK(outcome.ending == ENDED_FAILED && failure.left == VFIO_LEFT_RESET);
    CHECK(failure.cause.kind == VFIO_CAUSE_UNEXPECTED && failure.cause.tag == VFIO_TAG_INIT_DATA_SENT);
    CHECK(failure.cause.offset == 40);
    CHECK(device.state == VFIO_STATE_RUNNING && device_is_empty(&device));
}

static void state_that_the_kernels_driver_gave_arrives(void)
{
    static link link;
    uint8_t content[CONTENT + 1];
    device device;
    plan plan = { .id = 1, .name = "mtty/vfio", .buffer = 64, .whole = 1 };
    CHECK(golden("mtty-state.bin", content, sizeof content) == CONTENT);
    device_hold(&device, content, CONTENT, NULL);
    begin_link(&link);
    CHECK(save(&device, &link, &plan).ending == ENDED_WELL);
    arrives(&link, &plan, content, 1);
}

void test_golden(void)
{
    RUN(stream_that_qemu_loads_is_what_the_source_writes);
    RUN(stream_in_parts_that_qemu_loads_is_what_the_source_writes);
    RUN(sections_that_qemu_wrote_in_pre_copy_are_what_the_source_writes);
    RUN(sections_that_qemu_wrote_with_switchover_ack_are_what_the_source_writes);
    RUN(stream_that_qemu_loads_arrives);
    RUN(stream_in_parts_that_qemu_loads_arrives);
    RUN(sections_that_qemu_wrote_arrive);
    RUN(init_data_sent_that_was_not_agreed_on_is_refused);
    RUN(state_that_the_kernels_driver_gave_arrives);
}
