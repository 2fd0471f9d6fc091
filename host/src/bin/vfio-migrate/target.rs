//! The device that a command works on: a kernel's or a simulated one.
//!
//! Deliberately absent: how a device is opened, which is `open`'s, and the order of a migration, which is `transfer`'s.

use std::os::fd::AsFd;

use vfio_migration_core::device::{Features, State, uapi};
use vfio_migration_core::session::drive::Device as Migrates;
use vfio_migration_core::session::{Code, DataRead};
use vfio_migration_host::device::{Device, Unsupported};
use vfio_migration_host::interrupt::Interrupt;
use vfio_migration_host::ioctl;
use vfio_migration_host::open::{Identity, Name, Opened};
use vfio_migration_host::sim::{Assigned, Config, Sim};

use crate::Fail;

/// A device, ready to migrate.
pub(crate) struct Target {
    pub(crate) identity: Identity,
    kind: Kind,
}

enum Kind {
    Kernel(Device<Opened>),
    Simulated(Assigned),
}

/// The simulated device that `text` describes, where it describes one.
pub(crate) fn simulated(text: &str) -> Option<Result<Sim, Fail>> {
    let config = text.strip_prefix("sim:")?;
    Some(config.parse::<Config>().map(Sim::new).map_err(Fail::from))
}

impl Target {
    /// Opens the device that a user calls `text`.
    pub(crate) fn open(text: &str, interrupt: &Interrupt) -> Result<Self, Fail> {
        if let Some(sim) = simulated(text) {
            return Ok(Self::of_sim(sim?));
        }
        let name: Name = text.parse()?;
        let mut target = Self::of_kernel(name.identify()?, name.open()?)?;
        if let Kind::Kernel(device) = &mut target.kind {
            device.interrupted_by(interrupt.clone());
        }
        Ok(target)
    }

    pub(crate) fn of_kernel(identity: Identity, opened: Opened) -> Result<Self, Unsupported> {
        Ok(Self { identity, kind: Kind::Kernel(Device::new(opened)?) })
    }

    pub(crate) fn of_sim(sim: Sim) -> Self {
        let identity = Identity { driver: "sim".into(), address: std::process::id().to_string() };
        Self { identity, kind: Kind::Simulated(Assigned::new(sim)) }
    }

    pub(crate) fn features(&self) -> Features {
        match &self.kind {
            Kind::Kernel(device) => device.features(),
            Kind::Simulated(device) => device.sim.features(),
        }
    }

    pub(crate) fn state(&self) -> State {
        match &self.kind {
            Kind::Kernel(device) => device.state(),
            Kind::Simulated(device) => device.sim.get_state(),
        }
    }

    /// The driver's estimate of the bytes that STOP_COPY gives, where it makes one.
    pub(crate) fn data_size(&self) -> Option<u64> {
        match &self.kind {
            Kind::Kernel(device) => device.data_size().ok(),
            Kind::Simulated(device) => Some(device.sim.data_size()),
        }
    }

    /// Whether the device can log the guest memory that it writes to.
    pub(crate) fn logs_dma(&self) -> bool {
        match &self.kind {
            Kind::Kernel(device) => {
                let fd = device.fd().as_fd();
                ioctl::probe_feature(fd, uapi::FEATURE_DMA_LOGGING_START, uapi::FEATURE_SET).is_ok()
            }
            Kind::Simulated(_) => false,
        }
    }

    /// The simulated device, where it is one.
    pub(crate) fn sim(&self) -> Option<&Sim> {
        match &self.kind {
            Kind::Kernel(_) => None,
            Kind::Simulated(device) => Some(&device.sim),
        }
    }
}

impl Migrates for Target {
    fn set_state(&mut self, state: State) -> Result<(), Code> {
        match &mut self.kind {
            Kind::Kernel(device) => device.set_state(state),
            Kind::Simulated(device) => device.set_state(state),
        }
    }

    fn read_data(&mut self, buffer: &mut [u8]) -> Result<DataRead, Code> {
        match &mut self.kind {
            Kind::Kernel(device) => device.read_data(buffer),
            Kind::Simulated(device) => device.read_data(buffer),
        }
    }

    fn write_data(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        match &mut self.kind {
            Kind::Kernel(device) => device.write_data(bytes),
            Kind::Simulated(device) => device.write_data(bytes),
        }
    }

    fn reset(&mut self) -> Result<(), Code> {
        match &mut self.kind {
            Kind::Kernel(device) => device.reset(),
            Kind::Simulated(device) => device.reset(),
        }
    }
}
