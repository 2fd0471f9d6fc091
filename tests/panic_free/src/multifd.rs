//! `stream::multifd` and `stream::return_path`: what travels beside the stream. A receiver stands in any state that its
//! type can hold, with memory of any size.
//!
//! Deliberately absent: channels. Each call gets bytes and heads that nobody has checked before.

use vfio_migration_core::stream::multifd::{
    self, Channel, INIT, Init, Misuse, Packet, Piece, Ram, Receiver, Refused, Sender, Slot, Wanted,
};
use vfio_migration_core::stream::return_path::{self, Kind, Message};

#[unsafe(no_mangle)]
fn proof_multifd_init_encode(init: &Init) -> [u8; INIT] {
    init.encode()
}

#[unsafe(no_mangle)]
fn proof_multifd_init_decode(bytes: &[u8]) -> Result<(Init, usize), multifd::Error> {
    Init::decode(bytes)
}

#[unsafe(no_mangle)]
fn proof_multifd_packet_encode(packet: &Packet<'_>, out: &mut [u8]) -> Result<usize, multifd::Error> {
    packet.encode(out)
}

#[unsafe(no_mangle)]
fn proof_multifd_packet_decode(bytes: &[u8]) -> Result<(Packet<'_>, usize), multifd::Error> {
    Packet::decode(bytes)
}

#[unsafe(no_mangle)]
fn proof_multifd_ram_rest(ram: &Ram<'_>, pages: &u32) -> Result<u64, multifd::Error> {
    ram.rest(*pages)
}

#[unsafe(no_mangle)]
fn proof_multifd_sender_new<'n>(name: &'n [u8], instance: &u32) -> Result<Sender<'n>, multifd::Error> {
    Sender::new(name, *instance)
}

#[unsafe(no_mangle)]
fn proof_multifd_sender_data(
    sender: &mut Sender<'_>,
    length: &u32,
    out: &mut [u8],
) -> Result<usize, multifd::Error> {
    sender.data(*length, out)
}

#[unsafe(no_mangle)]
fn proof_multifd_sender_config(
    sender: &mut Sender<'_>,
    body: &u32,
    out: &mut [u8],
) -> Result<usize, multifd::Error> {
    sender.config(*body, out)
}

#[unsafe(no_mangle)]
fn proof_multifd_slot_default() -> Slot {
    Slot::default()
}

#[unsafe(no_mangle)]
fn proof_multifd_channel_default() -> Channel {
    Channel::default()
}

#[unsafe(no_mangle)]
fn proof_multifd_receiver_new<'s>(
    storage: &'s mut [u8],
    slots: &'s mut [Slot],
    channels: &'s mut [Channel],
) -> Receiver<'s> {
    Receiver::new(storage, slots, channels)
}

#[unsafe(no_mangle)]
fn proof_multifd_receiver_poll<'r>(receiver: &'r mut Receiver<'_>) -> Result<Wanted<'r>, Refused> {
    receiver.poll()
}

#[unsafe(no_mangle)]
fn proof_multifd_receiver_head(
    receiver: &mut Receiver<'_>,
    channel: &usize,
    piece: &Piece,
) -> Result<(), Misuse> {
    receiver.head(*channel, *piece)
}

#[unsafe(no_mangle)]
fn proof_multifd_receiver_idle(receiver: &mut Receiver<'_>, channel: &usize) -> Result<(), Misuse> {
    receiver.idle(*channel)
}

#[unsafe(no_mangle)]
fn proof_multifd_receiver_ready(receiver: &mut Receiver<'_>, channel: &usize) -> Result<(), Misuse> {
    receiver.ready(*channel)
}

#[unsafe(no_mangle)]
fn proof_multifd_receiver_closed(receiver: &mut Receiver<'_>, channel: &usize) -> Result<(), Misuse> {
    receiver.closed(*channel)
}

#[unsafe(no_mangle)]
fn proof_multifd_receiver_took(receiver: &mut Receiver<'_>, count: &usize) -> Result<(), Misuse> {
    receiver.took(*count)
}

#[unsafe(no_mangle)]
fn proof_return_path_encode(message: &Message, out: &mut [u8]) -> Result<usize, return_path::Error> {
    message.encode(out)
}

#[unsafe(no_mangle)]
fn proof_return_path_decode(bytes: &[u8]) -> Result<(Message, usize), return_path::Error> {
    Message::decode(bytes)
}

#[unsafe(no_mangle)]
fn proof_return_path_kind_from_raw(raw: &u16) -> Option<Kind> {
    Kind::from_raw(*raw)
}

#[unsafe(no_mangle)]
fn proof_return_path_kind_raw(kind: &Kind) -> u16 {
    kind.raw()
}

#[unsafe(no_mangle)]
fn proof_return_path_kind_name(kind: &Kind) -> &'static str {
    kind.name()
}
