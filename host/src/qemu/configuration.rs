//! The CONFIGURATION behind the preamble: the machine's name, and what else the destination has to agree to.
//!
//! Deliberately absent: the checks of a destination. A reader has no machine to compare with.

use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::section::Item;

use super::{Unwalkable, array};
use crate::file::{Error, Reader, show};

/// What a CONFIGURATION says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The machine's name, for instance `pc-q35-10.0`; empty in a stream that holds only VFIO sections.
    pub machine: String,
    /// The logarithm of the target's page size, where it is not the machine's usual one.
    pub target_page_bits: Option<u32>,
    /// The capabilities that both sides must have: of all, QEMU writes `x-ignore-shared` and `mapped-ram` alone.
    pub capabilities: Vec<String>,
    /// The machine's UUID, where the destination is to compare it.
    pub uuid: Option<[u8; 16]>,
}

impl Configuration {
    /// Whether it is that of a stream that holds only VFIO sections.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.machine.is_empty()
    }

    /// Whether the source had `capability`, one of those that are written.
    #[must_use]
    pub fn has(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|had| had == capability)
    }

    /// Reads it, with its subsections, from behind the preamble.
    ///
    /// # Errors
    /// [`Error`].
    pub(super) fn read(reader: &mut Reader<impl Transport>) -> Result<Self, Error> {
        let offset = reader.offset();
        let mut configuration = match reader.item()? {
            Item::Configuration { name_length } if name_length <= NAME_MAX => {
                let mut name = vec![0; name_length as usize];
                reader.exact(&mut name, "the machine's name")?;
                Self { machine: String::from_utf8_lossy(&name).into_owned(), ..Self::default() }
            }
            item => {
                let wanted = "a configuration with a name of at most 255 bytes";
                return Err(Error::Unexpected { offset, wanted, got: show(&item) });
            }
        };
        while configuration.subsection(reader)? {}
        Ok(configuration)
    }

    /// Reads a subsection; false where something else follows.
    fn subsection(&mut self, reader: &mut Reader<impl Transport>) -> Result<bool, Error> {
        let offset = reader.offset();
        let name = match reader.item() {
            Ok(Item::Subsection { name, .. }) => name.to_vec(),
            Ok(_) => {
                reader.unread();
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        match name.as_slice() {
            b"configuration/target-page-bits" => {
                self.target_page_bits = Some(u32::from_be_bytes(array(reader, WHAT)?));
            }
            b"configuration/capabilities" => self.capabilities = capabilities(reader)?,
            b"configuration/uuid" => self.uuid = Some(array(reader, WHAT)?),
            name => {
                let name = String::from_utf8_lossy(name).into_owned();
                return Err(Error::Unwalkable { offset, reason: Unwalkable::Subsection { name } });
            }
        }
        Ok(true)
    }
}

fn capabilities(reader: &mut Reader<impl Transport>) -> Result<Vec<String>, Error> {
    let offset = reader.offset();
    let count = u32::from_be_bytes(array(reader, WHAT)?);
    if count > CAPABILITIES_MAX {
        let (wanted, got) = ("at most 64 capabilities", count.to_string());
        return Err(Error::Unexpected { offset, wanted, got });
    }
    (0..count)
        .map(|_| {
            let [length] = array(reader, WHAT)?;
            let mut name = vec![0; length.into()];
            reader.exact(&mut name, WHAT)?;
            Ok(String::from_utf8_lossy(&name).into_owned())
        })
        .collect()
}

const WHAT: &str = "the configuration";
/// The longest name of a machine that is believed.
const NAME_MAX: u32 = 255;
/// The most capabilities that are believed.
const CAPABILITIES_MAX: u32 = 64;
