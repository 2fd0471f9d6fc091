//! The serial line: bytes that interrupts take out of its FIFO and put into that of the other direction.
//!
//! What is to be sent is taken over, and done once the last byte is in the FIFO. What is to be received is asked for, and
//! done once it is all there; while nobody asks, the line's interrupt is off and the bytes wait in its FIFO.
//!
//! Deliberately absent: flow control of our own. A QEMU gives the line only what its FIFO has room for; a line that lost
//! a byte says so.

use core::cell::RefCell;
use core::task::Poll;

use critical_section::Mutex;
use heapless::Vec;
use vfio_migration_core::session::Code;

use super::interrupts;
use super::ports::Register;

/// The machine's only serial line.
pub(crate) struct Serial {
    /// How long the other side may be silent, in milliseconds.
    patience: u32,
}

impl Serial {
    /// The line; it counts as closed when nothing came for `patience` milliseconds.
    pub(crate) const fn new(patience: u32) -> Self {
        Self { patience }
    }

    /// Takes over what it has room for, and is ready with its length once all of it is in the FIFO. Until then the same
    /// bytes must be given.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Poll<Result<usize, Code>> {
        critical_section::with(|section| {
            let line = &mut *LINE.borrow_ref_mut(section);
            if line.sending.is_empty() {
                let room = bytes.len().min(line.sending.capacity());
                line.sending.extend(bytes.iter().take(room).copied());
                line.sent = 0;
                line.choose_interrupts();
                return Poll::Pending;
            }
            if line.sent < line.sending.len() {
                return Poll::Pending;
            }
            let count = line.sending.len();
            line.sending.clear();
            Poll::Ready(Ok(count))
        })
    }

    /// Is ready once every byte has left the FIFO and is on the wire. No interrupt tells of that, the timer's do for it.
    pub(crate) fn drained(&self) -> Poll<()> {
        let is_drained =
            critical_section::with(|section| LINE.borrow_ref_mut(section).status() & DRAINED != 0);
        if is_drained { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Asks for as many bytes as `buffer` has room for, and is ready once they are there; with fewer, and with none,
    /// where nothing came for too long. Until then the same buffer must be given.
    pub(crate) fn recv(&mut self, buffer: &mut [u8]) -> Poll<Result<usize, Code>> {
        critical_section::with(|section| {
            let line = &mut *LINE.borrow_ref_mut(section);
            if line.wanted == 0 {
                line.wanted = buffer.len().min(line.received.capacity());
                line.heard = interrupts::now();
                line.choose_interrupts();
                return Poll::Pending;
            }
            let silent = interrupts::now().wrapping_sub(line.heard);
            if line.received.len() < line.wanted && silent < self.patience && !line.lost {
                return Poll::Pending;
            }
            let count = line.received.len();
            buffer[..count].copy_from_slice(&line.received);
            line.received.clear();
            line.wanted = 0;
            line.choose_interrupts();
            Poll::Ready(if line.lost { Err(LOST) } else { Ok(count) })
        })
    }
}

/// Sets the line to 8 bits and its highest rate, and lets its interrupts out.
pub(crate) fn set_up() {
    for (register, value) in LINE_SETUP {
        register.write(value);
    }
    critical_section::with(|section| LINE.borrow_ref(section).choose_interrupts());
}

/// The line's interrupt: does all that is pending, so that the wire to the controller goes down once more.
pub(crate) fn interrupt() {
    critical_section::with(|section| {
        let line = &mut *LINE.borrow_ref_mut(section);
        while Register::SerialFifo.read() & NOTHING_PENDING == 0 {
            line.receive();
            line.transmit();
            line.choose_interrupts();
        }
    });
}

/// What the interrupt and its clients share.
struct Line {
    received: Vec<u8, 512>,
    /// How many bytes are asked for; none while nobody does.
    wanted: usize,
    /// When the last byte came, or the first one was asked for.
    heard: u32,
    sending: Vec<u8, 512>,
    /// How many bytes of `sending` are, or were, in the FIFO.
    sent: usize,
    /// Whether a byte came for which the line's FIFO had no room.
    lost: bool,
}

impl Line {
    /// Takes what the FIFO holds, as far as it is asked for.
    fn receive(&mut self) {
        while self.received.len() < self.wanted && self.status() & DATA_READY != 0 {
            let _ = self.received.push(Register::SerialData.read());
            self.heard = interrupts::now();
        }
    }

    /// Fills the FIFO, where it is empty.
    fn transmit(&mut self) {
        if self.status() & FIFO_EMPTY == 0 {
            return;
        }
        for byte in self.sending.iter().skip(self.sent).take(FIFO) {
            Register::SerialData.write(*byte);
        }
        self.sent = self.sending.len().min(self.sent + FIFO);
    }

    /// What happened on the line. That a byte was lost is told once.
    fn status(&mut self) -> u8 {
        let status = Register::SerialStatus.read();
        self.lost |= status & OVERRUN != 0;
        status
    }

    /// Lets those interrupts come that something can be done about.
    fn choose_interrupts(&self) {
        let receive = if self.received.len() < self.wanted { RECEIVED } else { 0 };
        let transmit = if self.sent < self.sending.len() { TRANSMITTED } else { 0 };
        Register::SerialInterrupts.write(receive | transmit);
    }
}

static LINE: Mutex<RefCell<Line>> = Mutex::new(RefCell::new(Line {
    received: Vec::new(),
    wanted: 0,
    heard: 0,
    sending: Vec::new(),
    sent: 0,
    lost: false,
}));

/// The line's answer after it lost a byte; EIO.
const LOST: Code = Code(5);

/// The bytes of the transmitter's FIFO.
const FIFO: usize = 16;
const NOTHING_PENDING: u8 = 1;
const DATA_READY: u8 = 1;
const OVERRUN: u8 = 1 << 1;
const FIFO_EMPTY: u8 = 1 << 5;
const DRAINED: u8 = 1 << 6;
const RECEIVED: u8 = 1;
const TRANSMITTED: u8 = 1 << 1;

/// 115200 bits a second, 8 bits and no parity, FIFOs that are cleared and tell of 14 bytes, interrupts to the controller.
const LINE_SETUP: [(Register, u8); 6] = [
    (Register::SerialControl, 0x80),
    (Register::SerialData, 1),
    (Register::SerialInterrupts, 0),
    (Register::SerialControl, 3),
    (Register::SerialFifo, 0xc7),
    (Register::SerialModem, 0xb),
];
