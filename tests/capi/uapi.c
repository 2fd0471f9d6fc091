// The kernel's side of the numbers: its own header beside ours, and its own answers about states.

#include <stdio.h>
#include <string.h>

#include "tests.h"
#include "vfio_migration.h"

#ifdef __has_include
#if __has_include(<linux/vfio.h>)
#include <linux/vfio.h>
#endif
#endif

// Version 2 of the protocol; PRE_COPY came with a later header.
#ifdef VFIO_DEVICE_FEATURE_MIGRATION
_Static_assert((int)VFIO_STATE_ERROR == (int)VFIO_DEVICE_STATE_ERROR, "a state has another number");
_Static_assert((int)VFIO_STATE_STOP == (int)VFIO_DEVICE_STATE_STOP, "a state has another number");
_Static_assert((int)VFIO_STATE_RUNNING == (int)VFIO_DEVICE_STATE_RUNNING, "a state has another number");
_Static_assert((int)VFIO_STATE_STOP_COPY == (int)VFIO_DEVICE_STATE_STOP_COPY, "a state has another number");
_Static_assert((int)VFIO_STATE_RESUMING == (int)VFIO_DEVICE_STATE_RESUMING, "a state has another number");
_Static_assert((int)VFIO_STATE_RUNNING_P2P == (int)VFIO_DEVICE_STATE_RUNNING_P2P, "a state has another number");
#endif
#ifdef VFIO_MIG_GET_PRECOPY_INFO
_Static_assert((int)VFIO_STATE_PRE_COPY == (int)VFIO_DEVICE_STATE_PRE_COPY, "a state has another number");
_Static_assert((int)VFIO_STATE_PRE_COPY_P2P == (int)VFIO_DEVICE_STATE_PRE_COPY_P2P, "a state has another number");
#endif

// The kernel's answers are lines of flags, current state, wanted state, result and next step.
static void arcs_are_refused_where_the_kernel_refuses_them(void)
{
    static uint8_t text[32768];
    unsigned flags, from, to, arcs = 0, refused = 0;
    int result, next, taken;
    size_t length = golden("fsm-oracle.csv", text, sizeof text - 1);
    text[length] = '\0';
    for (const char *line = strchr((char *)text, '\n'); line != NULL; line = strchr(line, '\n')) {
        uint32_t session = 99;
        line++;
        if (sscanf(line, "%u,%u,%u,%d,%d%n", &flags, &from, &to, &result, &next, &taken) != 5)
            continue;
        vfio_status status = vfio_arc(flags, from, to, &session);
        if ((flags & 1) == 0) {
            CHECK(status == VFIO_STATUS_NOT_MIGRATABLE && session == 99);
        } else if (from > VFIO_STATE_PRE_COPY_P2P || to > VFIO_STATE_PRE_COPY_P2P) {
            CHECK(status == VFIO_STATUS_UNKNOWN_VALUE && session == 99);
        } else {
            CHECK(status == VFIO_STATUS_OK && (session == VFIO_DATA_SESSION_REFUSED) == (result != 0));
            refused += session == VFIO_DATA_SESSION_REFUSED;
        }
        arcs++;
    }
    CHECK(arcs == 800 && refused > 100);
}

static void each_arc_says_what_becomes_of_the_data_fd(void)
{
    static const uint32_t table[][3] = {
        { VFIO_STATE_RUNNING, VFIO_STATE_STOP, VFIO_DATA_SESSION_ABSENT },
        { VFIO_STATE_RUNNING, VFIO_STATE_PRE_COPY, VFIO_DATA_SESSION_OPENS },
        { VFIO_STATE_STOP, VFIO_STATE_RESUMING, VFIO_DATA_SESSION_OPENS },
        { VFIO_STATE_PRE_COPY, VFIO_STATE_STOP_COPY, VFIO_DATA_SESSION_KEPT },
        { VFIO_STATE_STOP_COPY, VFIO_STATE_RUNNING, VFIO_DATA_SESSION_ENDS },
        { VFIO_STATE_RESUMING, VFIO_STATE_STOP_COPY, VFIO_DATA_SESSION_REPLACED },
        { VFIO_STATE_STOP_COPY, VFIO_STATE_PRE_COPY, VFIO_DATA_SESSION_REFUSED },
    };
    uint32_t session;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        CHECK(vfio_arc(7, table[i][0], table[i][1], &session) == VFIO_STATUS_OK);
        CHECK(session == table[i][2]);
    }
    CHECK(vfio_arc(7, VFIO_STATE_STOP, VFIO_STATE_RUNNING, NULL) == VFIO_STATUS_NULL);
}

void test_uapi(void)
{
    RUN(arcs_are_refused_where_the_kernel_refuses_them);
    RUN(each_arc_says_what_becomes_of_the_data_fd);
}
