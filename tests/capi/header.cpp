// The header as C++ reads it, twice.

#include "vfio_migration.h"
#include "vfio_migration.h"

vfio_status begin(vfio_source *source, uint8_t *buffer)
{
    return vfio_source_init(source, 1, VFIO_STATE_RUNNING, 0, buffer, VFIO_BUFFER_MIN);
}
