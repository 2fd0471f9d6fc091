//! QEMU out of a folder that holds its packages: it boots the VM, and runs again inside it.
//!
//! Deliberately absent: KVM. Everything runs under TCG, so that the VM behaves alike on every machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command;

/// A QEMU below a root folder, run by that folder's own loader and libraries.
pub(crate) struct Qemu {
    root: PathBuf,
}

impl Qemu {
    /// The QEMU in a folder of unpacked packages; `/` is the machine's own.
    pub(crate) fn new(root: &Path) -> Result<Self> {
        let qemu = Self { root: root.to_path_buf() };
        for file in [qemu.root.join(LOADER), qemu.program()] {
            ensure!(file.is_file(), "no QEMU in {}: wanted {}", root.display(), file.display());
        }
        Ok(qemu)
    }

    /// The command that boots a kernel; its console is our standard output.
    pub(crate) fn boot(&self, kernel: &Path, initramfs: &Path, append: &str) -> Command {
        let mut command = self.with_firmware();
        command.args(MACHINE);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).arg("-append").arg(append);
        command
    }

    /// The command that boots a kernel which is its own operating system. Its serial line is the socket that is our
    /// standard input, its debug console our standard output, and it says with what code it ends.
    pub(crate) fn boot_bare(&self, kernel: &Path, append: &str) -> Command {
        let mut command = self.with_firmware();
        command.args(BARE_MACHINE).arg("-kernel").arg(kernel).arg("-append").arg(append);
        command
    }

    /// What the guest needs to run this QEMU: pairs of a path in the guest and a file of ours. All paths are in a
    /// folder that is named after the version, so that several QEMUs have their own libraries and firmware.
    pub(crate) fn guest_files(&self) -> Result<Vec<(String, PathBuf)>> {
        let mut files = vec![
            ("bin/qemu-system-x86_64".to_string(), self.program()),
            ("lib/ld-linux-x86-64.so.2".to_string(), self.root.join(LOADER)),
        ];
        for name in ["bios-256k.bin", "kvmvapic.bin"] {
            let places = FIRMWARE.map(|folder| self.root.join(folder).join(name));
            let file = places.into_iter().find(|file| file.is_file());
            files.push((format!("share/{name}"), file.with_context(|| format!("no firmware {name}"))?));
        }
        let listed = command::output(self.loader().arg("--list").arg(self.program()))?;
        files.extend(libraries(&listed));
        let folder = format!("qemu/{}", self.version()?);
        Ok(files.into_iter().map(|(name, file)| (format!("{folder}/{name}"), file)).collect())
    }

    /// The version that a stream or a message may depend on, such as `10.0`.
    fn version(&self) -> Result<String> {
        let said = command::output(self.loader().arg(self.program()).arg("--version"))?;
        version(&said).map(str::to_string).with_context(|| format!("no QEMU's version: got {said:?}"))
    }

    fn with_firmware(&self) -> Command {
        let mut command = self.loader();
        command.arg(self.program());
        for folder in FIRMWARE {
            command.arg("-L").arg(self.root.join(folder));
        }
        command
    }

    fn loader(&self) -> Command {
        let mut command = Command::new(self.root.join(LOADER));
        let folders = LIBRARIES.map(|folder| self.root.join(folder).display().to_string());
        command.arg("--library-path").arg(folders.join(":"));
        command
    }

    fn program(&self) -> PathBuf {
        self.root.join("usr/bin/qemu-system-x86_64")
    }
}

/// Reads the first two numbers of `QEMU emulator version X.Y.Z`.
fn version(said: &str) -> Option<&str> {
    let version = said.strip_prefix("QEMU emulator version ")?.split_whitespace().next()?;
    let (end, _) = version.match_indices('.').nth(1)?;
    version.get(..end)
}

/// Reads the loader's lines `NAME => PATH (ADDRESS)`.
fn libraries(listed: &str) -> impl Iterator<Item = (String, PathBuf)> {
    listed.lines().filter_map(|line| {
        let (name, rest) = line.trim().split_once(" => ")?;
        let (path, _) = rest.split_once(" (")?;
        path.starts_with('/')
            .then(|| (format!("lib/{}", name.rsplit('/').next().unwrap_or(name)), PathBuf::from(path)))
    })
}

const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
const LIBRARIES: [&str; 3] = ["usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/pulseaudio", "usr/lib64"];
const FIRMWARE: [&str; 3] = ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"];

/// The machine: under TCG the kernel copies memory faster without the string instructions.
const MACHINE: [&str; 15] = [
    "-accel",
    "tcg,thread=multi",
    "-cpu",
    "max,erms=off,fsrm=off",
    "-m",
    "4096",
    "-smp",
    "2",
    "-nodefaults",
    "-no-user-config",
    "-no-reboot",
    "-serial",
    "stdio",
    "-display",
    "none",
];

/// The machine of a kernel without Linux: one processor, little memory, and devices of the first PCs.
const BARE_MACHINE: [&str; 21] = [
    "-machine",
    "pc",
    "-accel",
    "tcg",
    "-m",
    "16",
    "-nodefaults",
    "-no-user-config",
    "-no-reboot",
    "-display",
    "none",
    "-chardev",
    "socket,id=wire,fd=0",
    "-serial",
    "chardev:wire",
    "-chardev",
    "file,id=console,path=/dev/stdout",
    "-device",
    "isa-debugcon,iobase=0xe9,chardev=console",
    "-device",
    "isa-debug-exit,iobase=0xf4,iosize=4",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_its_first_two_numbers() {
        let said = "QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1)\nCopyright (c) 2003-2026\n";
        assert_eq!(version(said), Some("11.1"));
        assert_eq!(version("another program 11.1.3"), None);
    }

    #[test]
    fn libraries_are_those_that_have_a_file() {
        let listed =
            "\tlinux-vdso.so.1 (0x7ff0)\n\tlibz.so.1 => /p/libz.so.1 (0x7ff1)\n\t/lib64/ld.so => not found\n";
        let files: Vec<_> = libraries(listed).collect();
        assert_eq!(files, [("lib/libz.so.1".to_string(), PathBuf::from("/p/libz.so.1"))]);
    }
}
