//! QEMUs inside the guest, with devices assigned to their machines, and their control sockets.
//!
//! Deliberately absent: an operating system in their machines. A device's content is read once its QEMU has ended.

mod stand_in;

pub(crate) use self::stand_in::StandIn;

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::device::Card;
use crate::modules::Set;
use crate::tool::{self, wait_until};

/// The names that QEMU gives to its devices in its streams, in the order of [`Setup::cards`].
pub(crate) const DEVICES: [&str; 2] = ["0000:00:02.0", "0000:00:03.0"];

/// The versions of the guest's QEMUs, the oldest first.
pub(crate) fn versions() -> Result<Vec<String>> {
    let mut versions = Vec::new();
    for folder in fs::read_dir(FOLDER).with_context(|| format!("no QEMU in {FOLDER}"))? {
        versions.push(folder?.file_name().to_string_lossy().into_owned());
    }
    let numbers = |version: &String| version.split('.').flat_map(str::parse::<u32>).collect::<Vec<_>>();
    versions.sort_by_key(numbers);
    ensure!(!versions.is_empty(), "no QEMU in {FOLDER}");
    Ok(versions)
}

/// What a QEMU is started with.
#[derive(Clone, Copy)]
pub(crate) struct Setup<'a> {
    /// One of [`versions`].
    pub(crate) version: &'a str,
    /// The devices of its machine, at most two, all of one set.
    pub(crate) cards: &'a [&'a Card],
    /// Whether the machine waits for a stream, or runs at once.
    pub(crate) incoming: bool,
    /// Whether the devices' states go over channels of their own.
    pub(crate) multifd: bool,
}

impl<'a> Setup<'a> {
    /// A machine that runs at once.
    pub(crate) fn running(version: &'a str, cards: &'a [&'a Card]) -> Self {
        Self { version, cards, incoming: false, multifd: false }
    }

    /// A machine that waits for a stream.
    pub(crate) fn waiting(version: &'a str, cards: &'a [&'a Card]) -> Self {
        Self { incoming: true, ..Self::running(version, cards) }
    }
}

/// How a QEMU ended.
pub(crate) enum End {
    /// When it was asked to, its work done.
    Quit,
    /// By itself, with this exit code and these words.
    Refused(Option<i32>, String),
}

impl End {
    /// Fails unless QEMU's work was done.
    fn expect_quit(self) -> Result<()> {
        match self {
            Self::Quit => Ok(()),
            Self::Refused(exit, said) => bail!("QEMU ended by itself with {exit:?}: {said}"),
        }
    }
}

/// A running QEMU; it ends with its handle, so that it never keeps a device.
pub(crate) struct Qemu {
    child: Child,
    control: BufReader<UnixStream>,
}

impl Qemu {
    /// Lets a QEMU load a stream, run its machine, stop and continue it, and end.
    pub(crate) fn load(setup: &Setup, from: &str) -> Result<()> {
        Self::load_and(setup, from, |_| Ok(()))
    }

    /// Like [`Qemu::load`]; `work` comes when the machine runs.
    pub(crate) fn load_and(
        setup: &Setup,
        from: &str,
        work: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        Self::with(setup, |qemu| Ok(qemu.has_loaded(from)? && work(qemu).map(|()| true)?))?.expect_quit()
    }

    /// Like [`Qemu::load`]; that the stream is refused is an answer.
    pub(crate) fn try_load(setup: &Setup, from: &str) -> Result<End> {
        Self::with(setup, |qemu| qemu.has_loaded(from))
    }

    /// Lets a QEMU run its machine, save it and end; `prepare` comes when the machine runs.
    pub(crate) fn save(setup: &Setup, to: &str, prepare: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let saved = Self::with(setup, |qemu| {
            qemu.wait_until_mapped(setup.cards.len())?;
            prepare(qemu)?;
            qemu.migrate(to).map(|()| true)
        });
        saved?.expect_quit()
    }

    /// Saves the machine, however long that stops it.
    pub(crate) fn migrate(&mut self, to: &str) -> Result<()> {
        self.set(json!({"max-bandwidth": 0, "downtime-limit": 60_000}))?;
        self.execute("migrate", json!({"uri": to}))?;
        wait_until("QEMU has saved its machine", || {
            let migration = self.execute("query-migrate", json!({}))?;
            match migration["status"].as_str() {
                Some("failed" | "cancelled") => bail!("QEMU failed: {migration}"),
                status => Ok(status == Some("completed")),
            }
        })
    }

    /// Switches capabilities of the migration on.
    pub(crate) fn enable(&mut self, names: &[&str]) -> Result<()> {
        let on: Vec<_> = names.iter().map(|name| json!({"capability": name, "state": true})).collect();
        self.execute("migrate-set-capabilities", json!({"capabilities": on})).map(drop)
    }

    /// Sets parameters of the migration.
    pub(crate) fn set(&mut self, parameters: Value) -> Result<()> {
        self.execute("migrate-set-parameters", parameters).map(drop)
    }

    /// Stops the machine.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.execute("stop", json!({}))?;
        self.wait_for_status("paused")
    }

    /// Starts a QEMU, works with it, and ends it. `work` answers false when QEMU has ended by itself.
    fn with(setup: &Setup, work: impl FnOnce(&mut Self) -> Result<bool>) -> Result<End> {
        [SOCKET, TEST_SOCKET].into_iter().try_for_each(tool::remove)?;
        let mut child = tool::start(command(setup).stdin(Stdio::null()).stdout(Stdio::null()))?;
        let mut errors = child.stderr.take().context("it is piped")?;
        let connected = connect(&mut child);
        let worked = connected.and_then(|control| {
            let mut qemu = Self { child, control };
            qemu.execute("qmp_capabilities", json!({}))?;
            match work(&mut qemu)? {
                true => qemu.quit().map(|()| None),
                false => Ok(Some(qemu.child.wait()?.code())),
            }
        });
        let mut said = String::new();
        errors.read_to_string(&mut said)?;
        match worked.with_context(|| format!("QEMU {} said: {said}", setup.version))? {
            None => Ok(End::Quit),
            Some(exit) => Ok(End::Refused(exit, said)),
        }
    }

    /// Loads a stream and lets the machine run, stop and go on; false when QEMU has ended instead.
    fn has_loaded(&mut self, from: &str) -> Result<bool> {
        self.execute("migrate-incoming", json!({"uri": from}))?;
        let mut has_ended = false;
        wait_until("QEMU has loaded the stream", || {
            let migration = self.ask("query-migrate", json!({}))?;
            has_ended = migration.is_none();
            // One that has failed is about to end.
            Ok(migration.is_none_or(|migration| migration["status"] == "completed"))
        })?;
        if !has_ended {
            self.wait_for_status("running")?;
            self.stop()?;
            self.execute("cont", json!({}))?;
            self.wait_for_status("running")?;
        }
        Ok(!has_ended)
    }

    fn wait_for_status(&mut self, wanted: &str) -> Result<()> {
        wait_until(&format!("QEMU's machine is {wanted}"), || {
            Ok(self.execute("query-status", json!({}))?["status"] == wanted)
        })
    }

    /// Waits until the machine's firmware has given the devices their addresses.
    fn wait_until_mapped(&mut self, devices: usize) -> Result<()> {
        wait_until("the firmware maps the devices", || {
            let buses = self.execute("query-pci", json!({}))?;
            let all = buses[0]["devices"].as_array().context("query-pci: no devices")?;
            let ours = all.iter().filter(|device| (2..2 + devices).any(|slot| device["slot"] == slot));
            let regions: Vec<_> = ours.filter_map(|device| device["regions"].as_array()).flatten().collect();
            Ok(regions.len() >= devices && regions.iter().all(|region| region["address"] != -1))
        })
    }

    fn quit(&mut self) -> Result<()> {
        self.execute("quit", json!({}))?;
        let status = self.child.wait()?;
        ensure!(status.success(), "QEMU's end: {status}");
        Ok(())
    }

    /// Sends a command and returns its answer; events in between are passed over.
    fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let answer = self.ask(command, arguments)?;
        answer.with_context(|| format!("QEMU closed its control socket after {command}"))
    }

    /// Like [`Qemu::execute`]; nothing when QEMU has ended.
    fn ask(&mut self, command: &str, arguments: Value) -> Result<Option<Value>> {
        // Where QEMU has ended this fails, and reading says so.
        let _ = writeln!(self.control.get_mut(), "{}", json!({"execute": command, "arguments": arguments}));
        loop {
            let mut line = String::new();
            match self.control.read_line(&mut line) {
                Ok(0) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                read => read.map(drop)?,
            }
            let mut answer: Value = serde_json::from_str(&line)?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU's answer to {command}: {error}");
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(Some(value.take()));
            }
        }
    }
}

impl Drop for Qemu {
    /// Killing fails only for a QEMU that has ended already, which is what is wanted.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects to QEMU's control socket as soon as it is there.
fn connect(child: &mut Child) -> Result<BufReader<UnixStream>> {
    let mut control = None;
    let connected = wait_until("QEMU opens its control socket", || {
        let ended = child.try_wait()?;
        ensure!(ended.is_none(), "QEMU ended at once: {ended:?}");
        control = UnixStream::connect(SOCKET).ok();
        Ok(control.is_some())
    });
    if connected.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    connected?;
    let control = control.context("it is connected")?;
    control.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(BufReader::new(control))
}

/// The command that starts a QEMU, with its own libraries and firmware.
fn command(setup: &Setup) -> Command {
    let folder = format!("{FOLDER}/{}", setup.version);
    let mut command = Command::new(format!("{folder}/lib/ld-linux-x86-64.so.2"));
    command.args(["--library-path", &format!("{folder}/lib"), &format!("{folder}/bin/qemu-system-x86_64")]);
    command.args(MACHINE).args(["-L", &format!("{folder}/share")]);
    command.args(["-qmp", &format!("unix:{SOCKET},server=on,wait=off")]);
    command.args(["-qtest", &format!("unix:{TEST_SOCKET},server=on,wait=off"), "-qtest-log", "none"]);
    if setup.incoming {
        command.args(["-incoming", "defer"]);
    }
    if setup.cards.iter().any(|card| card.set() == Set::Iommufd) {
        command.args(["-object", "iommufd,id=iommufd0"]);
    }
    for (card, address) in setup.cards.iter().zip(DEVICES) {
        let path = match card.set() {
            // The stock driver says that it can log DMA and then cannot report it.
            Set::Stock => "x-device-dirty-page-tracking=off",
            Set::Iommufd => "iommufd=iommufd0",
        };
        let multifd = if setup.multifd { "on" } else { "off" };
        let (sysfs, slot) = (card.sysfs(), address.trim_start_matches("0000:00:"));
        let device = format!(
            "vfio-pci,addr={slot},enable-migration=on,sysfsdev={},{path},x-migration-multifd-transfer={multifd}",
            sysfs.display()
        );
        command.args(["-device", &device]);
    }
    command
}

const SOCKET: &str = "/tmp/qmp";

/// Through this one does what a guest does.
pub(crate) const TEST_SOCKET: &str = "/tmp/qtest";

/// The folder that holds a folder for each QEMU.
const FOLDER: &str = "/qemu";

/// A small machine; `pc` puts the devices where their names say.
const MACHINE: [&str; 10] =
    ["-M", "pc", "-accel", "tcg", "-m", "32", "-nodefaults", "-no-user-config", "-display", "none"];
