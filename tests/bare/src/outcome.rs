//! From the command line to a migration, and from its outcome to the console's last lines and the machine's end.
//!
//! Deliberately absent: a way to ask the machine anything later. What it has to say it says before it ends.

use crate::device::Device;
use crate::machine::boot::{Exit, exit, overflow};
use crate::machine::console::say;
use crate::machine::serial::Serial;
use crate::machine::setup::{Role, Setup};
use crate::machine::trace;
use crate::receive::receive;
use crate::send;
use crate::stream::{Reader, Refusal, Writer};

/// Does what the command line wants and ends the machine.
pub(crate) fn migrate(setup: &Setup) -> ! {
    let mut device = Device::take(setup);
    let line = Serial::new(setup.patience);
    let (outcome, done, bytes) = match setup.role {
        Role::Send => {
            let mut stream = Writer::new(line);
            (send(&mut device, &mut stream), "sent", stream.offset())
        }
        Role::Receive => {
            let mut stream = Reader::new(line);
            say!("listening"); // what came before the line was set up is lost
            (receive(&mut device, &mut stream), "received", stream.offset())
        }
        Role::Overflow => panic!("the stack has room for {} calls", overflow(0)),
    };
    trace::sum_up();
    tell(&outcome, done, bytes, &device);
    exit(if outcome.is_ok() { Exit::Done } else { Exit::Failed })
}

fn tell(outcome: &Result<(), Refusal>, done: &str, bytes: u64, device: &Device) {
    let (state, checksum) = (device.state(), device.checksum());
    match outcome {
        Ok(()) => say!("{done} {bytes} bytes"),
        Err(refusal) => say!("failed: {refusal}"),
    }
    say!("the device is in {state}, its content has crc32c {checksum:08x}");
}
