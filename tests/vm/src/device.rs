//! The devices under test: virtual serial cards of the kernel's sample driver `mtty`.
//!
//! What a guest would see of such a card is the text in its receive buffer, which the card's
//! loop-back puts there. Reading the text takes it out.
//!
//! Deliberately absent: the library under test. Cards are opened through `vfio-ioctls`, which knows nothing of it.

use std::fs;
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use iommufd_ioctls::IommuFd;
use vfio_ioctls::{VfioContainer, VfioDevice, VfioIommufd, VfioOps};

use crate::modules::Set;

/// `VFIO_DEVICE_STATE_STOP`.
pub(crate) const STOP: u32 = 1;
/// `VFIO_DEVICE_STATE_RUNNING`.
pub(crate) const RUNNING: u32 = 2;
/// `VFIO_DEVICE_STATE_STOP_COPY`.
pub(crate) const STOP_COPY: u32 = 3;
/// `VFIO_DEVICE_STATE_RESUMING`.
pub(crate) const RESUMING: u32 = 4;
/// `VFIO_DEVICE_STATE_PRE_COPY`.
pub(crate) const PRE_COPY: u32 = 6;

/// A serial card, which exists until it is dropped.
pub(crate) struct Card {
    uuid: String,
    set: Set,
}

impl Card {
    /// Makes a card with one port (`mtty-1`) or two (`mtty-2`).
    pub(crate) fn create(set: Set, kind: &str, uuid: &str) -> Result<Self> {
        Self::create_by(set, "mtty", kind, uuid)
    }

    /// Makes a device of any driver, which has this kind of devices.
    pub(crate) fn create_by(set: Set, driver: &str, kind: &str, uuid: &str) -> Result<Self> {
        let create = format!("/sys/class/mdev_bus/{driver}/mdev_supported_types/{kind}/create");
        fs::write(&create, uuid).with_context(|| format!("cannot write {uuid} to {create}"))?;
        Ok(Self { uuid: uuid.to_string(), set })
    }

    /// The card's name.
    pub(crate) fn uuid(&self) -> &str {
        &self.uuid
    }

    /// What `vfio-migrate` takes for its DEVICE: the device file, or where there is none the UUID.
    pub(crate) fn argument(&self) -> Result<String> {
        match self.set {
            Set::Stock => Ok(self.uuid.clone()),
            Set::Iommufd => {
                let node =
                    fs::read_dir(self.sysfs().join("vfio-dev"))?.next().context("no device file")??;
                Ok(format!("/dev/vfio/devices/{}", node.file_name().to_string_lossy()))
            }
        }
    }

    /// The card's folder in sysfs.
    pub(crate) fn sysfs(&self) -> PathBuf {
        Path::new("/sys/bus/mdev/devices").join(&self.uuid)
    }

    /// The set of modules that drives the card.
    pub(crate) fn set(&self) -> Set {
        self.set
    }

    /// Opens the card; while it is open nobody else can.
    pub(crate) fn open(&self) -> Result<OpenCard> {
        let owner: Arc<dyn VfioOps> = match self.set {
            Set::Stock => Arc::new(VfioContainer::new(None)?),
            Set::Iommufd => Arc::new(VfioIommufd::new(Arc::new(IommuFd::new()?), None, None)?),
        };
        Ok(OpenCard(VfioDevice::new(&self.sysfs(), owner, true)?))
    }

    /// Empties the card's buffer and puts a text into it.
    pub(crate) fn fill(&self, text: &str) -> Result<()> {
        self.open()?.fill(text)
    }

    /// Fails unless the card is in this state and holds this text, which it loses by that.
    pub(crate) fn check(&self, state: u32, text: &str) -> Result<()> {
        self.check_state(state)?;
        let got = self.take_text()?;
        ensure!(got == text, "content: wanted {text:?}, got {got:?}");
        Ok(())
    }

    /// The text that the card holds, which it loses by that.
    pub(crate) fn take_text(&self) -> Result<String> {
        self.open()?.take_text()
    }

    /// Fails unless the kernel says that the card is in this state.
    pub(crate) fn check_state(&self, wanted: u32) -> Result<()> {
        let got = self.state()?;
        ensure!(got == wanted, "state: wanted {}, got {}", state_name(wanted), state_name(got));
        Ok(())
    }

    /// The card's state, as the kernel says it.
    pub(crate) fn state(&self) -> Result<u32> {
        Ok(self.open()?.0.get_migration_state()?)
    }
}

impl Drop for Card {
    /// A card that cannot be removed shows when its modules are unloaded.
    fn drop(&mut self) {
        let _ = fs::write(self.sysfs().join("remove"), "1");
    }
}

/// A card that is held open.
pub(crate) struct OpenCard(VfioDevice);

impl OpenCard {
    /// The number of its file descriptor.
    pub(crate) fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// The card as the other project's code holds it.
    pub(crate) fn vfio(&self) -> &VfioDevice {
        &self.0
    }

    /// Empties the card's buffer and puts a text into it.
    pub(crate) fn fill(&self, text: &str) -> Result<()> {
        ensure!(
            text.len() <= 15,
            "a buffer that is full reads as empty: wanted at most 15 characters, got {text:?}"
        );
        let set_up =
            [(LINE, 0x83), (DATA, 0x0c), (INTERRUPTS, 0), (LINE, 0x03), (BUFFER, 0x07), (BUFFER, 0x01)];
        for (register, value) in set_up.into_iter().chain(text.bytes().map(|byte| (DATA, byte))) {
            self.0.region_write(0, &[value], register);
        }
        Ok(())
    }

    /// Asks the kernel for a state.
    pub(crate) fn set_state(&self, state: u32) -> Result<()> {
        Ok(self.0.set_migration_state(state)?)
    }

    /// Reads a register of 64 bits in region 0.
    pub(crate) fn register(&self, place: u64) -> u64 {
        let mut value = [0xa5; 8];
        self.0.region_read(0, &mut value, place);
        u64::from_le_bytes(value)
    }

    /// Writes a register of 64 bits in region 0.
    pub(crate) fn set_register(&self, place: u64, value: u64) {
        self.0.region_write(0, &value.to_le_bytes(), place);
    }

    fn take_text(&self) -> Result<String> {
        let mut text = Vec::new();
        while self.read(LINE_STATUS) & DATA_READY != 0 {
            ensure!(text.len() < 16, "the buffer does not end: got {text:?}");
            text.push(self.read(DATA));
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn read(&self, register: u64) -> u8 {
        let mut value = [0];
        self.0.region_read(0, &mut value, register);
        value[0]
    }
}

/// A text for a card, another one each time.
pub(crate) fn new_text() -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    let number = std::hash::RandomState::new().build_hasher().finish();
    format!("{number:016x}")[..15].to_string()
}

/// A state's name in the kernel's header, without what all have in common.
pub(crate) fn state_name(state: u32) -> &'static str {
    let names =
        ["ERROR", "STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P"];
    usize::try_from(state).ok().and_then(|state| names.get(state)).unwrap_or(&"no state")
}

// The registers of a 16550 in region 0.
const DATA: u64 = 0;
const INTERRUPTS: u64 = 1;
const BUFFER: u64 = 2;
const LINE: u64 = 3;
const LINE_STATUS: u64 = 5;
const DATA_READY: u8 = 1;
