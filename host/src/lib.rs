//! Linux side of VFIO migration.
