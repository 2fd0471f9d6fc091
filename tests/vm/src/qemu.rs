//! A QEMU inside the guest, with one of the cards assigned to its machine, and its control socket.
//!
//! Deliberately absent: an operating system in its machine. The card's content is read once QEMU has ended.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::device::Card;
use crate::modules::Set;
use crate::tool::{self, wait_until};

/// The name that QEMU gives to the card in its streams.
pub(crate) const DEVICE: &str = "0000:00:02.0";

/// A QEMU that waits for a stream; it ends with its handle, so that it never keeps the card.
pub(crate) struct Qemu {
    child: Child,
    control: Option<BufReader<UnixStream>>,
}

impl Qemu {
    /// Lets a QEMU with the card load a file, run its machine and end.
    pub(crate) fn load(card: &Card, path: &str) -> Result<()> {
        Self::load_and(card, path, |_| Ok(()))
    }

    /// Lets a QEMU with the card load a file, run its machine, do what `work` wants of it, and end.
    pub(crate) fn load_and(
        card: &Card,
        path: &str,
        work: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let _ = fs::remove_file(SOCKET);
        let mut child = tool::start(command(card).stdin(Stdio::null()).stdout(Stdio::null()))?;
        let mut errors = child.stderr.take().context("it is piped")?;
        let mut qemu = Self { child, control: None };
        let loaded = qemu.connect().and_then(|()| {
            qemu.load_and_run(path)?;
            work(&mut qemu)?;
            qemu.quit()
        });
        drop(qemu);
        let mut said = String::new();
        errors.read_to_string(&mut said)?;
        loaded.with_context(|| format!("QEMU said: {said}"))
    }

    /// Connects to QEMU's control socket as soon as it is there.
    fn connect(&mut self) -> Result<()> {
        wait_until("QEMU opens its control socket", || {
            let ended = self.child.try_wait()?;
            ensure!(ended.is_none(), "QEMU ended at once: {ended:?}");
            self.control = UnixStream::connect(SOCKET).ok().map(BufReader::new);
            Ok(self.control.is_some())
        })?;
        self.control()?.get_ref().set_read_timeout(Some(Duration::from_secs(60)))?;
        self.execute("qmp_capabilities", json!({})).map(drop)
    }

    fn control(&mut self) -> Result<&mut BufReader<UnixStream>> {
        self.control.as_mut().context("not connected")
    }

    fn load_and_run(&mut self, path: &str) -> Result<()> {
        self.execute("migrate-incoming", json!({"uri": format!("file:{path}")}))?;
        self.wait_until_migrated("QEMU has loaded the stream")?;
        wait_until("QEMU's machine runs", || {
            Ok(self.execute("query-status", json!({}))?["status"] == "running")
        })
    }

    /// Waits for the end of a migration into this QEMU or out of it.
    pub(crate) fn wait_until_migrated(&mut self, what: &str) -> Result<()> {
        wait_until(what, || {
            let migration = self.execute("query-migrate", json!({}))?;
            match migration["status"].as_str() {
                Some("failed") => bail!("QEMU refused the stream: {migration}"),
                status => Ok(status == Some("completed")),
            }
        })
    }

    fn quit(&mut self) -> Result<()> {
        self.execute("quit", json!({}))?;
        let status = self.child.wait()?;
        ensure!(status.success(), "QEMU's end: {status}");
        Ok(())
    }

    /// Sends a command and returns its answer; events in between are passed over.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let control = self.control()?;
        writeln!(control.get_mut(), "{}", json!({"execute": command, "arguments": arguments}))?;
        loop {
            let mut line = String::new();
            if control.read_line(&mut line)? == 0 {
                bail!("QEMU closed its control socket after {command}");
            }
            let mut answer: Value = serde_json::from_str(&line)?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU's answer to {command}: {error}");
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
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

/// The command that starts QEMU with the card.
fn command(card: &Card) -> Command {
    let mut command = Command::new("/bin/qemu-system-x86_64");
    command.args(MACHINE).env("LD_LIBRARY_PATH", "/lib");
    command.arg("-qmp").arg(format!("unix:{SOCKET},server=on,wait=off"));
    command.arg("-qtest").arg(format!("unix:{TEST_SOCKET},server=on,wait=off")).args(["-qtest-log", "none"]);
    let path = match card.set() {
        // The stock driver says that it can log DMA and then cannot report it.
        Set::Stock => "x-device-dirty-page-tracking=off",
        Set::Iommufd => {
            command.args(["-object", "iommufd,id=iommufd"]);
            "iommufd=iommufd"
        }
    };
    let sysfs = card.sysfs();
    let device = format!("vfio-pci,addr=02.0,enable-migration=on,sysfsdev={},{path}", sysfs.display());
    command.arg("-device").arg(device);
    command
}

const SOCKET: &str = "/tmp/qmp";

/// Through this one does what a guest does.
pub(crate) const TEST_SOCKET: &str = "/tmp/qtest";

/// A small machine, paused until a stream comes; `pc` puts the card where its name says.
const MACHINE: [&str; 14] = [
    "-M",
    "pc",
    "-accel",
    "tcg",
    "-m",
    "32",
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-incoming",
    "defer",
    "-L",
    "/share/qemu",
];
