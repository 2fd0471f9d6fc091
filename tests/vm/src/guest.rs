//! The guest of a machine, as far as it drives the test device: what its processor would do to memory and ports, done
//! through QEMU's test socket.
//!
//! Deliberately absent: firmware. A machine that waits for a stream has none but what comes in it, and VFIO's sections
//! bring none, so that nobody else sets the function up.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::qemu::TEST_SOCKET;
use crate::testdev::register;
use crate::tool::wait_until;

/// The hand of a guest.
pub(crate) struct Guest(BufReader<UnixStream>);

impl Guest {
    /// The guest of the machine that runs in a QEMU.
    pub(crate) fn connect() -> Result<Self> {
        let socket = UnixStream::connect(TEST_SOCKET).context("QEMU's test socket")?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self(BufReader::new(socket)))
    }

    /// Gives the function its addresses, lets each vector write a number of its own to a word of memory, and switches
    /// MSI-X on.
    pub(crate) fn set_up(&mut self) -> Result<()> {
        for (at, value) in [(BAR_0, REGISTERS), (BAR_4, TABLE), (COMMAND, MEMORY | MASTER)] {
            self.configure(at, value)?;
        }
        for vector in 0..VECTORS {
            let entry = TABLE + 16 * vector;
            for (at, value) in [(0, word(vector)), (4, 0), (8, number(vector)), (12, 0)] {
                self.tell(&format!("writel {:#x} {value:#x}", entry + at))?;
            }
        }
        self.configure(MSIX, ENABLE)
    }

    /// Raises an interrupt, and waits for what it writes.
    pub(crate) fn interrupt(&mut self, vector: u64) -> Result<()> {
        self.check_silent(vector)?;
        self.raise(vector)?;
        self.wait_for(vector)
    }

    /// Masks an interrupt and raises it, and waits until it is pending.
    pub(crate) fn interrupt_masked(&mut self, vector: u64) -> Result<()> {
        self.tell(&format!("writel {:#x} 1", TABLE + 16 * vector + 12))?;
        self.raise(vector)?;
        wait_until(&format!("vector {vector} is pending"), || Ok(self.memory(PENDING)? == 1 << vector))?;
        self.check_silent(vector)
    }

    /// Unmasks a pending interrupt, and waits for what it writes.
    pub(crate) fn unmask(&mut self, vector: u64) -> Result<()> {
        self.check_silent(vector)?;
        self.tell(&format!("writel {:#x} 0", TABLE + 16 * vector + 12))?;
        self.wait_for(vector)
    }

    /// Raises an interrupt through the function's register.
    fn raise(&mut self, vector: u64) -> Result<()> {
        self.tell(&format!("writeq {:#x} {vector:#x}", REGISTERS + register::RAISE)).map(drop)
    }

    fn check_silent(&mut self, vector: u64) -> Result<()> {
        let got = self.memory(word(vector))?;
        ensure!(got == 0, "vector {vector}: wanted a word that nobody wrote yet, got {got:#x}");
        Ok(())
    }

    fn wait_for(&mut self, vector: u64) -> Result<()> {
        wait_until(&format!("vector {vector} writes its number"), || {
            Ok(self.memory(word(vector))? == number(vector))
        })
    }

    /// Writes 32 bits of the function's configuration space.
    fn configure(&mut self, at: u64, value: u64) -> Result<()> {
        self.tell(&format!("outl {ADDRESS_PORT:#x} {:#x}", SLOT_2 | at))?;
        self.tell(&format!("outl {DATA_PORT:#x} {value:#x}")).map(drop)
    }

    fn memory(&mut self, address: u64) -> Result<u64> {
        self.tell(&format!("readl {address:#x}"))
    }

    /// Has one thing done; 0 where the answer has no number.
    fn tell(&mut self, command: &str) -> Result<u64> {
        writeln!(self.0.get_mut(), "{command}")?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let answer = line.trim().strip_prefix("OK").with_context(|| format!("{command}: got {line:?}"))?;
        match answer.trim().strip_prefix("0x") {
            Some(number) => Ok(u64::from_str_radix(number, 16)?),
            None => Ok(0),
        }
    }
}

/// Where a vector writes to: memory that no other vector uses.
fn word(vector: u64) -> u64 {
    0x0100_0000 + 4 * vector
}

/// What a vector writes.
fn number(vector: u64) -> u64 {
    0x5443_0001 + vector
}

const VECTORS: u64 = 4;
/// Where the function's registers and its table of MSI-X are to be: above the memory.
const REGISTERS: u64 = 0xe000_0000;
const TABLE: u64 = 0xe000_1000;
const PENDING: u64 = TABLE + 0x800;

/// The ports of a machine's configuration spaces.
const ADDRESS_PORT: u64 = 0xcf8;
const DATA_PORT: u64 = 0xcfc;
const SLOT_2: u64 = 1 << 31 | 2 << 11;

const BAR_0: u64 = 0x10;
const BAR_4: u64 = 0x20;
/// The command register, with access to memory by the processor and by the function.
const COMMAND: u64 = 0x04;
const MEMORY: u64 = 1 << 1;
const MASTER: u64 = 1 << 2;
/// The capability MSI-X; what is in front of its message control takes no write.
const MSIX: u64 = 0x40;
const ENABLE: u64 = 1 << 31;
