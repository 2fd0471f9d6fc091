//! The registers of the machine's own devices, the only place that reads and writes I/O ports.
//!
//! Deliberately absent: memory. Nothing behind these ports reads or writes any, so whatever is written to them is safe.

use x86_64::instructions::port::Port;

/// A register, by its number.
#[derive(Clone, Copy)]
#[repr(u16)]
pub(crate) enum Register {
    /// The first interrupt controller: commands.
    PicCommand = 0x20,
    /// The first interrupt controller: which interrupts are masked.
    PicMask = 0x21,
    /// The second interrupt controller: commands.
    SecondPicCommand = 0xa0,
    /// The second interrupt controller: which interrupts are masked.
    SecondPicMask = 0xa1,
    /// The timer: the count of its first channel.
    TimerCount = 0x40,
    /// The timer: its mode.
    TimerMode = 0x43,
    /// The machine's debug console.
    Console = 0xe9,
    /// The port that ends a QEMU, `-device isa-debug-exit,iobase=0xf4`.
    Exit = 0xf4,
    /// The serial line: the byte that came or goes, and with `LineControl`'s highest bit the rate's low byte.
    SerialData = 0x3f8,
    /// The serial line: which interrupts it makes, and the rate's high byte.
    SerialInterrupts = 0x3f9,
    /// The serial line: read, which interrupt is pending; written, how its FIFOs work.
    SerialFifo = 0x3fa,
    /// The serial line: bits of a character.
    SerialControl = 0x3fb,
    /// The serial line: the modem's lines, and whether interrupts go out.
    SerialModem = 0x3fc,
    /// The serial line: what happened.
    SerialStatus = 0x3fd,
}

impl Register {
    /// Reads the register.
    pub(crate) fn read(self) -> u8 {
        // SAFETY: a read of any of these changes at most the state of its device, and none of them touches memory.
        unsafe { Port::new(self as u16).read() }
    }

    /// Writes the register.
    pub(crate) fn write(self, value: u8) {
        // SAFETY: as for a read. What the controllers and the timer are told is only when interrupts come, and those
        // have their entries before they are let in.
        unsafe { Port::new(self as u16).write(value) }
    }
}
