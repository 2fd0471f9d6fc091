//! `stream::pci_config`: what a CONFIG record holds. Each call gets bytes that nobody has checked before, or a finder
//! or a walk that stands anywhere.
//!
//! Deliberately absent: `Display`, which is in `show.rs`.

use vfio_migration_core::stream::pci_config::bar::{Bar, BarKind, Bars};
use vfio_migration_core::stream::pci_config::capability::{Broken, Capabilities, Capability, Id};
use vfio_migration_core::stream::pci_config::find::{self, Finder, Progress};
use vfio_migration_core::stream::pci_config::identity::{self, Difference, Register};
use vfio_migration_core::stream::pci_config::msi::{Msi, Msix, Vector, Vectors};
use vfio_migration_core::stream::pci_config::space::{Class, Command, HeaderType, Space, Status, Subsystem};
use vfio_migration_core::stream::pci_config::{Body, Error, Layout, SpaceLength};

#[unsafe(no_mangle)]
fn proof_pci_config_space_length_of_region(length: &u64) -> SpaceLength {
    SpaceLength::of_region(*length)
}

#[unsafe(no_mangle)]
fn proof_pci_config_space_length_bytes(length: &SpaceLength) -> usize {
    length.bytes()
}

#[unsafe(no_mangle)]
fn proof_pci_config_layout_new(region_length: &u64, vectors: &u16) -> Result<Layout, Error> {
    Layout::new(*region_length, *vectors)
}

#[unsafe(no_mangle)]
fn proof_pci_config_layout_of_device(region: &[u8]) -> Layout {
    Layout::of_device(region)
}

#[unsafe(no_mangle)]
fn proof_pci_config_layout_space(layout: &Layout) -> SpaceLength {
    layout.space()
}

#[unsafe(no_mangle)]
fn proof_pci_config_layout_msix_vectors(layout: &Layout) -> u16 {
    layout.msix_vectors()
}

#[unsafe(no_mangle)]
fn proof_pci_config_layout_length(layout: &Layout) -> usize {
    layout.length()
}

#[unsafe(no_mangle)]
fn proof_pci_config_body_layout(body: &Body<'_>) -> Result<Layout, Error> {
    body.layout()
}

#[unsafe(no_mangle)]
fn proof_pci_config_body_length(body: &Body<'_>) -> Result<usize, Error> {
    body.length()
}

#[unsafe(no_mangle)]
fn proof_pci_config_body_encode(body: &Body<'_>, out: &mut [u8]) -> Result<usize, Error> {
    body.encode(out)
}

#[unsafe(no_mangle)]
fn proof_pci_config_body_decode<'a>(layout: &Layout, bytes: &'a [u8]) -> Result<(Body<'a>, usize), Error> {
    Body::decode(*layout, bytes)
}

#[unsafe(no_mangle)]
fn proof_pci_config_body_vectors<'a>(body: &Body<'a>) -> Vectors<'a> {
    body.vectors()
}

#[unsafe(no_mangle)]
fn proof_pci_config_vectors_new<'a>(table: &'a [u8], pending: &'a [u8]) -> Vectors<'a> {
    Vectors::new(table, pending)
}

#[unsafe(no_mangle)]
fn proof_pci_config_vectors_next(vectors: &mut Vectors<'_>) -> Option<Vector> {
    vectors.next()
}

#[unsafe(no_mangle)]
fn proof_pci_config_finder_new() -> Finder {
    Finder::new()
}

#[unsafe(no_mangle)]
fn proof_pci_config_finder_default() -> Finder {
    Finder::default()
}

#[unsafe(no_mangle)]
fn proof_pci_config_finder_offset(finder: &Finder) -> usize {
    finder.offset()
}

#[unsafe(no_mangle)]
fn proof_pci_config_finder_take(finder: &mut Finder, bytes: &[u8]) {
    finder.take(bytes);
}

#[unsafe(no_mangle)]
fn proof_pci_config_finder_end(finder: &mut Finder) {
    finder.end();
}

#[unsafe(no_mangle)]
fn proof_pci_config_finder_progress(finder: &Finder) -> Result<Progress, find::Error> {
    finder.progress()
}

#[unsafe(no_mangle)]
fn proof_pci_config_space_new<'a>(bytes: &'a [u8]) -> Space<'a> {
    Space::new(bytes)
}

#[unsafe(no_mangle)]
fn proof_pci_config_space_length(space: &Space<'_>) -> usize {
    space.length()
}

#[unsafe(no_mangle)]
fn proof_pci_config_space_vendor(space: &Space<'_>) -> u16 {
    space.vendor()
}

#[unsafe(no_mangle)]
fn proof_pci_config_space_device(space: &Space<'_>) -> u16 {
    space.device()
}

#[unsafe(no_mangle)]
fn proof_pci_config_space_command(space: &Space<'_>) -> Command {
    space.command()
}

#[unsafe(no_mangle)]
fn proof_pci_config_space_status(space: &Space<'_>) -> Status {
    space.status()
}

#[unsafe(no_mangle)]
fn proof_pci_config_space_revision(space: &Space<'_>) -> u8 {
    space.revision()
}

#[unsafe(no_mangle)]
fn proof_pci_config_space_class(space: &Space<'_>) -> Class {
    space.class()
}

#[unsafe(no_mangle)]
fn proof_pci_config_space_header_type(space: &Space<'_>) -> Option<HeaderType> {
    space.header_type()
}

#[unsafe(no_mangle)]
fn proof_pci_config_space_is_multifunction(space: &Space<'_>) -> bool {
    space.is_multifunction()
}

#[unsafe(no_mangle)]
fn proof_pci_config_space_subsystem(space: &Space<'_>) -> Option<Subsystem> {
    space.subsystem()
}

#[unsafe(no_mangle)]
fn proof_pci_config_space_interrupt_pin(space: &Space<'_>) -> u8 {
    space.interrupt_pin()
}

#[unsafe(no_mangle)]
fn proof_pci_config_space_msi(space: &Space<'_>) -> Option<Msi> {
    space.msi()
}

#[unsafe(no_mangle)]
fn proof_pci_config_space_msix(space: &Space<'_>) -> Option<Msix> {
    space.msix()
}

#[unsafe(no_mangle)]
fn proof_pci_config_space_bars<'a>(space: &Space<'a>) -> Bars<'a> {
    space.bars()
}

#[unsafe(no_mangle)]
fn proof_pci_config_space_capabilities<'a>(space: &Space<'a>) -> Capabilities<'a> {
    space.capabilities()
}

#[unsafe(no_mangle)]
fn proof_pci_config_space_extended_capabilities<'a>(space: &Space<'a>) -> Capabilities<'a> {
    space.extended_capabilities()
}

#[unsafe(no_mangle)]
fn proof_pci_config_bars_next(bars: &mut Bars<'_>) -> Option<Bar> {
    bars.next()
}

#[unsafe(no_mangle)]
fn proof_pci_config_capabilities_next(
    capabilities: &mut Capabilities<'_>,
) -> Option<Result<Capability, Broken>> {
    capabilities.next()
}

#[unsafe(no_mangle)]
fn proof_pci_config_bar_kind_name(kind: &BarKind) -> &'static str {
    kind.name()
}

#[unsafe(no_mangle)]
fn proof_pci_config_bar_kind_is_prefetchable(kind: &BarKind) -> bool {
    kind.is_prefetchable()
}

#[unsafe(no_mangle)]
fn proof_pci_config_class_name(class: &Class) -> Option<&'static str> {
    class.name()
}

#[unsafe(no_mangle)]
fn proof_pci_config_header_type_name(header_type: &HeaderType) -> &'static str {
    header_type.name()
}

#[unsafe(no_mangle)]
fn proof_pci_config_command_names(command: &Command, each: &mut dyn FnMut(&'static str)) {
    command.names().for_each(each);
}

#[unsafe(no_mangle)]
fn proof_pci_config_status_names(status: &Status, each: &mut dyn FnMut(&'static str)) {
    status.names().for_each(each);
}

#[unsafe(no_mangle)]
fn proof_pci_config_status_has_capabilities(status: &Status) -> bool {
    status.has_capabilities()
}

#[unsafe(no_mangle)]
fn proof_pci_config_id_name(id: &Id) -> Option<&'static str> {
    id.name()
}

#[unsafe(no_mangle)]
fn proof_pci_config_register_name(register: &Register) -> &'static str {
    register.name()
}

#[unsafe(no_mangle)]
fn proof_pci_config_register_offset(register: &Register) -> u16 {
    register.offset()
}

#[unsafe(no_mangle)]
fn proof_pci_config_difference_offset(difference: &Difference) -> u16 {
    difference.offset()
}

#[unsafe(no_mangle)]
fn proof_pci_config_differs(saved: &Space<'_>, own: &Space<'_>) -> Option<Difference> {
    identity::differs(*saved, *own)
}
