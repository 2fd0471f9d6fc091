//! `vfio-migrate probe`.
//!
//! Deliberately absent: a search for devices, and repairs. It asks the one device that it is given and names what
//! stands in the way; binding drivers and giving access is for whoever owns the machine.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;
use vfio_migration_core::device::State;
use vfio_migration_host::device::Unsupported;
use vfio_migration_host::open::{self, Name};
use vfio_migration_host::v1::has_v1_region;

use crate::stdio::json;
use crate::target::{Target, simulated};
use crate::{Fail, Outcome, stdout_failed};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vfio-migrate probe 0000:3b:00.2
  vfio-migrate probe /dev/vfio/devices/vfio0 --json | jq .migratable

Ends with 0 when the device can migrate, else with 3. The device is opened and asked; its state does not change, except
that vfio-pci resets a function when it is opened first.")]
pub(crate) struct Arguments {
    /// The device: a path, an address, a UUID, fd:N or sim:
    device: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What there is to know of a device.
#[derive(Default, Serialize)]
struct Probe {
    device: String,
    migratable: bool,
    driver: Option<String>,
    address: Option<String>,
    /// The file of `/dev` through which the device is opened.
    file: Option<PathBuf>,
    access: Option<&'static str>,
    /// The version of the migration protocol; nothing where there is none.
    migration: Option<&'static str>,
    flags: Option<u64>,
    features: Vec<&'static str>,
    states: Vec<&'static str>,
    state: Option<&'static str>,
    /// The driver's estimate of the bytes that STOP_COPY gives.
    stop_copy_length: Option<u64>,
    dirty_tracking: Option<bool>,
    refusal: Option<Refusal>,
}

/// Why a device can't migrate.
#[derive(Serialize)]
struct Refusal {
    layer: &'static str,
    reason: String,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let probe = probe(&arguments.device)?;
    let mut out = io::stdout().lock();
    let written = if arguments.json { json(&mut out, &probe) } else { show(&mut out, &probe) };
    written.map_err(stdout_failed)?;
    match probe.refusal {
        None => Ok(()),
        Some(Refusal { layer, reason }) => {
            Err(Fail::device(anyhow::anyhow!("can't migrate, says the {layer}: {reason}")))
        }
    }
}

fn probe(device: &str) -> Result<Probe, Fail> {
    let mut probe = Probe { device: device.to_owned(), ..Probe::default() };
    if let Some(sim) = simulated(device) {
        probe.access = Some("simulated");
        probe.describe(&Target::of_sim(sim?));
        return Ok(probe);
    }
    let name: Name = device.parse()?;
    probe.access = Some(match name {
        Name::Cdev(_) => "cdev",
        Name::Sysfs(_) => "group",
        Name::Fd(..) => "fd",
    });
    let identity = match name.identify() {
        Ok(identity) => identity,
        Err(error @ open::Error::Name(_)) => return Err(error.into()),
        Err(error) => return Ok(probe.refused(layer_of(&error), error)),
    };
    (probe.driver, probe.address) = (Some(identity.driver.clone()), Some(identity.address.clone()));
    let opened = match name.open() {
        Ok(opened) => opened,
        Err(error) => return Ok(probe.refused(layer_of(&error), error)),
    };
    probe.file = opened.file().map(PathBuf::from);
    if probe.file.as_ref().is_some_and(|file| file.starts_with("/dev/vfio/devices")) {
        probe.access = Some("cdev");
    }
    let v1 = has_v1_region(&opened);
    match Target::of_kernel(identity, opened) {
        Ok(target) => probe.describe(&target),
        Err(Unsupported::NoMigration | Unsupported::NotAsked(_)) if v1 => {
            probe.migration = Some("v1");
            return Ok(
                probe.refused("driver", anyhow::anyhow!("it speaks only v1, which Linux 5.18 replaced"))
            );
        }
        Err(error) => return Ok(probe.refused("driver", error)),
    }
    Ok(probe)
}

impl Probe {
    fn describe(&mut self, target: &Target) {
        let features = target.features();
        self.migratable = true;
        self.driver = Some(target.identity.driver.clone());
        self.address = Some(target.identity.address.clone());
        self.migration = Some("v2");
        self.flags = Some(features.raw());
        let known = [("STOP_COPY", true), ("P2P", features.p2p), ("PRE_COPY", features.pre_copy)];
        self.features = known.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect();
        let states = State::ALL.into_iter().filter(|&state| features.have(state));
        self.states = states.map(State::name).collect();
        self.state = Some(target.state().name());
        self.stop_copy_length = target.data_size();
        self.dirty_tracking = Some(target.logs_dma());
    }

    fn refused(mut self, layer: &'static str, reason: impl Into<anyhow::Error>) -> Self {
        self.refusal = Some(Refusal { layer, reason: format!("{:#}", reason.into()) });
        self
    }
}

fn layer_of(error: &open::Error) -> &'static str {
    use open::Error::{
        ApiVersion, Fd, InUse, Kernel, Missing, Name, NoGroup, NoVfio, NotDevice, NotVfio, NotViable, Open,
        Permission, Unbound,
    };
    match error {
        Name(_) | Fd { .. } | NotDevice { .. } => "command line",
        Missing { .. } => "system (no such device)",
        Unbound { .. } | NotVfio { .. } => "driver binding",
        NoGroup { .. } | NotViable { .. } => "IOMMU",
        Permission { .. } => "permissions",
        InUse { .. } => "other user",
        Kernel { call: "VFIO_SET_IOMMU" | "VFIO_DEVICE_ATTACH_IOMMUFD_PT", .. } => "IOMMU",
        NoVfio { .. } | ApiVersion { .. } | Open { .. } | Kernel { .. } => "kernel",
    }
}

fn show(out: &mut impl Write, probe: &Probe) -> io::Result<()> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
    let word = |value: Option<&str>| value.unwrap_or("-").to_owned();
    let file = probe.file.as_ref().map(|file| format!(", {}", file.display())).unwrap_or_default();
    let rows = [
        ("device", probe.device.clone()),
        ("driver", text(&probe.driver)),
        ("address", text(&probe.address)),
        ("access", word(probe.access) + &file),
        ("migration", word(probe.migration)),
        (
            "features",
            format!(
                "{} ({})",
                probe.features.join(" "),
                probe.flags.map_or("-".into(), |flags| format!("{flags:#x}"))
            ),
        ),
        ("states", probe.states.join(" ")),
        ("state", word(probe.state)),
        (
            "state's size",
            probe
                .stop_copy_length
                .map_or("-".into(), |bytes| format!("{bytes} bytes (the driver's estimate)")),
        ),
        ("dirty tracking", word(probe.dirty_tracking.map(|yes| if yes { "yes" } else { "no" }))),
    ];
    let rows = rows.into_iter().filter(|(_, value)| !matches!(value.as_str(), "" | "-" | " (-)"));
    rows.into_iter().try_for_each(|(key, value)| writeln!(out, "{key:<15} {value}"))?;
    writeln!(out, "{:<15} {}", "can migrate", if probe.migratable { "yes" } else { "no" })
}
