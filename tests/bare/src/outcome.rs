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
use crate::stream::{Reader, Writer};

/// Does what the command line wants and ends the machine.
pub(crate) fn migrate(setup: &Setup) -> ! {
    let mut device = Device::take(setup);
    let line = Serial::new(setup.patience);
    let (outcome, done, bytes, failed) = match setup.role {
        Role::Send => {
            let mut stream = Writer::new(line);
            let sent = send(&mut device, &mut stream);
            let failed = if stream.is_whole() { Exit::Sent } else { Exit::Failed };
            (sent, "sent", stream.offset(), failed)
        }
        Role::Receive => {
            let mut stream = Reader::new(line);
            say!("listening"); // what came before the line was set up is lost
            (receive(&mut device, &mut stream), "received", stream.offset(), Exit::Failed)
        }
        Role::Overflow => panic!("the stack has room for {} calls", overflow(0)),
    };
    trace::sum_up();
    let end = match outcome {
        Ok(()) => {
            say!("{done} {bytes} bytes");
            Exit::Done
        }
        Err(refusal) => {
            say!("failed: {refusal}");
            failed
        }
    };
    if matches!(end, Exit::Sent) {
        say!("the stream is whole and can be loaded; this machine must not run on");
    }
    let (state, checksum) = (device.state(), device.checksum());
    say!("the device is in {state}, its content has crc32c {checksum:08x}");
    exit(end)
}
