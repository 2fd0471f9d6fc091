//! The device that a command works on: a kernel's or a simulated one.
//!
//! Deliberately absent: how a device is opened, which is `open`'s, and the order of a migration, which is `transfer`'s.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::drive::Device as Migrates;
use vfio_migration_core::session::{Code, DataRead, PrecopyInfo};
use vfio_migration_core::stream::pci_config::{Body, Layout};
use vfio_migration_host::buffer::Buffer;
use vfio_migration_host::device::{Device, Unsupported};
use vfio_migration_host::dirty::can_log;
use vfio_migration_host::interrupt::Interrupt;
use vfio_migration_host::open::{Identity, Name, Opened};
use vfio_migration_host::pci::{Applied, Refused};
use vfio_migration_host::sim::{Assigned, Config, Sim};
use vfio_migration_host::transfer::{Member, Migratable};

use crate::Fail;

/// A device, ready to migrate.
pub(crate) struct Target {
    pub(crate) identity: Identity,
    held: Held,
}

/// A device as this process holds it.
pub(crate) enum Held {
    Kernel(Device<Opened>),
    Simulated(Assigned),
}

/// The simulated device that `text` describes, where it describes one.
pub(crate) fn simulated(text: &str) -> Option<Result<Sim, Fail>> {
    let config = text.strip_prefix("sim:")?;
    Some(config.parse::<Config>().map(Sim::new).map_err(Fail::from))
}

impl Target {
    /// Opens the devices that a user calls so.
    pub(crate) fn open_all(names: &[String], interrupt: &Interrupt) -> Result<Vec<Self>, Fail> {
        names.iter().map(|name| Self::open(name, interrupt)).collect()
    }

    /// Opens the device that a user calls `text`.
    pub(crate) fn open(text: &str, interrupt: &Interrupt) -> Result<Self, Fail> {
        if let Some(sim) = simulated(text) {
            return Ok(Self::of_sim(sim?));
        }
        let name: Name = text.parse()?;
        let refused = |reason| Fail::device(anyhow::Error::new(reason).context(text.to_owned()));
        let mut target = Self::of_kernel(name.identify()?, name.open()?).map_err(refused)?;
        if let Held::Kernel(device) = &mut target.held {
            device.interrupted_by(interrupt.clone());
        }
        Ok(target)
    }

    pub(crate) fn of_kernel(identity: Identity, opened: Opened) -> Result<Self, Unsupported> {
        Ok(Self { identity, held: Held::Kernel(Device::new(opened)?) })
    }

    /// A simulated device; its address is this process's id, and a number where there are several.
    pub(crate) fn of_sim(sim: Sim) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let process = std::process::id();
        let address = match COUNT.fetch_add(1, Ordering::Relaxed) {
            0 => process.to_string(),
            number => format!("{process}.{number}"),
        };
        let identity = Identity { driver: "sim".into(), address };
        Self { identity, held: Held::Simulated(Assigned::new(sim)) }
    }

    /// The device with what a transfer has to know of it. `idstr` is the name of its sections, where it has another one
    /// than its own.
    pub(crate) fn member<'a>(
        &'a mut self,
        idstr: Option<String>,
        buffer: &'a mut Buffer,
    ) -> Member<'a, Held> {
        let (features, now) = (self.features(), self.state());
        let idstr = idstr.unwrap_or_else(|| self.identity.idstr());
        let Self { identity, held: device } = self;
        Member { device, features, now, identity, idstr, buffer: buffer.bytes() }
    }

    /// Lets the device begin its initial data anew in pre-copy; kernels and drivers without that go on as they always did.
    pub(crate) fn prepare_pre_copy(&mut self) {
        if let Held::Kernel(device) = &mut self.held {
            let _ = device.opt_in_precopy_info_v2();
        }
    }

    /// The device itself.
    pub(crate) fn held(&mut self) -> &mut Held {
        &mut self.held
    }

    pub(crate) fn features(&self) -> Features {
        match &self.held {
            Held::Kernel(device) => device.features(),
            Held::Simulated(device) => device.sim.features(),
        }
    }

    pub(crate) fn state(&self) -> State {
        match &self.held {
            Held::Kernel(device) => device.state(),
            Held::Simulated(device) => device.sim.get_state(),
        }
    }

    /// The driver's estimate of the bytes that STOP_COPY gives, where it makes one.
    pub(crate) fn data_size(&self) -> Option<u64> {
        self.held.data_size()
    }

    /// Whether the device can log the guest memory that it writes to.
    pub(crate) fn logs_dma(&self) -> bool {
        match &self.held {
            Held::Kernel(device) => can_log(device.fd()),
            Held::Simulated(_) => false,
        }
    }

    /// The simulated device, where it is one.
    pub(crate) fn sim(&self) -> Option<&Sim> {
        match &self.held {
            Held::Kernel(_) => None,
            Held::Simulated(device) => Some(&device.sim),
        }
    }
}

impl Held {
    /// How long the last SET took in the kernel, or in what is simulated.
    pub(crate) fn set_took(&self) -> Duration {
        match self {
            Self::Kernel(device) => device.set_took(),
            Self::Simulated(device) => device.set_took(),
        }
    }
}

impl Migratable for Held {
    fn data_size(&self) -> Option<u64> {
        match self {
            Self::Kernel(device) => Migratable::data_size(device),
            Self::Simulated(device) => Migratable::data_size(device),
        }
    }

    fn config_layout(&self) -> Result<Option<Layout>, Refused> {
        match self {
            Self::Kernel(device) => device.config_layout(),
            Self::Simulated(device) => device.config_layout(),
        }
    }

    fn config(&mut self) -> Result<Vec<u8>, Refused> {
        match self {
            Self::Kernel(device) => device.config(),
            Self::Simulated(device) => device.config(),
        }
    }

    fn apply_config(&mut self, body: &Body<'_>) -> Result<Applied, Refused> {
        match self {
            Self::Kernel(device) => device.apply_config(body),
            Self::Simulated(device) => device.apply_config(body),
        }
    }
}

impl Migrates for Held {
    fn set_state(&mut self, state: State) -> Result<(), Code> {
        match self {
            Self::Kernel(device) => device.set_state(state),
            Self::Simulated(device) => device.set_state(state),
        }
    }

    fn precopy_info(&mut self) -> Result<PrecopyInfo, Code> {
        match self {
            Self::Kernel(device) => device.precopy_info(),
            Self::Simulated(device) => device.precopy_info(),
        }
    }

    fn read_data(&mut self, buffer: &mut [u8]) -> Result<DataRead, Code> {
        match self {
            Self::Kernel(device) => device.read_data(buffer),
            Self::Simulated(device) => device.read_data(buffer),
        }
    }

    fn write_data(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        match self {
            Self::Kernel(device) => device.write_data(bytes),
            Self::Simulated(device) => device.write_data(bytes),
        }
    }

    fn reset(&mut self) -> Result<(), Code> {
        match self {
            Self::Kernel(device) => device.reset(),
            Self::Simulated(device) => device.reset(),
        }
    }
}
