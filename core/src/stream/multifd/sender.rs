//! The heads of the packets that carry one device's state.
//!
//! Deliberately absent: what stands behind a head, and the choice of a channel. Any packet may go on any channel.

use super::{Content, DeviceState, Error, INVALID, Piece, check_name};

/// Numbers the packets of one device and makes their heads. On which channel a packet goes is the caller's to choose.
#[derive(Clone, Debug)]
pub struct Sender<'n> {
    name: &'n [u8],
    instance: u32,
    /// The next packet's number, or nothing behind the configuration.
    next: Option<u32>,
}

impl<'n> Sender<'n> {
    /// A sender for the device whose section has this name and instance.
    ///
    /// # Errors
    /// [`Error::NoRoom`] for a name longer than [`NAME_MAX`](super::NAME_MAX), [`Error::Nul`] for one with a NUL in it.
    pub fn new(name: &'n [u8], instance: u32) -> Result<Self, Error> {
        check_name(name)?;
        Ok(Self { name, instance, next: Some(0) })
    }

    /// Writes the head of the packet for `length` bytes of data to the front of `out` and returns its length,
    /// [`DATA_HEAD`](super::DATA_HEAD). The data follow; QEMU puts what one `read` gave, at most 1 MiB, into a packet.
    ///
    /// # Errors
    /// [`Error::NoRoom`], [`Error::TooLong`], [`Error::Full`] and [`Error::Ended`]. No number is used up.
    pub fn data(&mut self, length: u32, out: &mut [u8]) -> Result<usize, Error> {
        let index = self.next.ok_or(Error::Ended)?;
        // The last number is left for the configuration.
        let next = index.checked_add(1).filter(|&next| next != INVALID).ok_or(Error::Full)?;
        let head = self.encode(Piece { index, content: Content::Data, length }, out)?;
        self.next = Some(next);
        Ok(head)
    }

    /// Writes the head of the packet for the configuration, whose body has `body` bytes, to the front of `out` and
    /// returns its length, [`CONFIG_HEAD`](super::CONFIG_HEAD). The body follows, then
    /// [`Tag::EndOfState`](crate::stream::record::Tag::EndOfState). It is the device's last packet.
    ///
    /// # Errors
    /// [`Error::NoRoom`], [`Error::TooLong`] and [`Error::Ended`]; then it can be tried again.
    pub fn config(&mut self, body: u32, out: &mut [u8]) -> Result<usize, Error> {
        let index = self.next.ok_or(Error::Ended)?;
        let most = u32::MAX.saturating_sub(Content::Config.least());
        let length = body
            .checked_add(END_OF_STATE)
            .filter(|_| body <= most)
            .ok_or(Error::TooLong { wanted: most, got: body })?;
        let head = self.encode(Piece { index, content: Content::Config, length }, out)?;
        self.next = None;
        Ok(head)
    }

    fn encode(&self, piece: Piece, out: &mut [u8]) -> Result<usize, Error> {
        DeviceState { name: self.name, instance: self.instance, piece }.encode(out)
    }
}

/// The bytes of an END_OF_STATE.
const END_OF_STATE: u32 = 8;

#[cfg(test)]
mod tests {
    use super::super::{CONFIG_HEAD, DATA_HEAD};
    use super::*;

    #[test]
    fn the_last_number_is_the_configurations_and_none_is_past_it() {
        let mut sender = Sender { name: b"vfio", instance: 0, next: Some(u32::MAX - 2) };
        let mut out = [0xa5; CONFIG_HEAD];
        assert_eq!(sender.data(1, &mut out), Ok(DATA_HEAD));
        assert_eq!(out[280..284], [0xff, 0xff, 0xff, 0xfd]);
        assert_eq!(sender.data(1, &mut out), Err(Error::Full));
        assert_eq!(sender.config(1, &mut out), Ok(CONFIG_HEAD));
        assert_eq!(out[280..284], [0xff, 0xff, 0xff, 0xfe]);
        assert_eq!(sender.data(1, &mut out), Err(Error::Ended));
    }
}
