//! Links over real file descriptors: what leaves in one piece, what is read ahead, and what ends a wait.
//!
//! Deliberately absent: what travels. Any bytes do here; streams are in `file.rs`.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use vfio_migration_core::session::Code;
use vfio_migration_core::session::drive::Transport;
use vfio_migration_host::interrupt::Interrupt;
use vfio_migration_host::link::Link;

/// Two ends between which each write is a packet of its own.
fn packets() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

fn packet(fd: &OwnedFd) -> Vec<u8> {
    let mut buffer = vec![0; 1 << 16];
    let (length, _) = recv(fd, &mut buffer[..], RecvFlags::empty()).unwrap();
    buffer.truncate(length);
    buffer
}

fn errno(number: i32) -> Code {
    Code(number)
}

#[test]
fn small_sends_leave_in_one_piece_with_the_next_large_one() {
    let (near, far) = packets();
    let mut link = Link::new(near, None);
    assert_eq!(link.send(b"header "), Ok(7));
    assert_eq!(link.send(b"footer "), Ok(7));
    let large = vec![b'x'; 4096];
    assert_eq!(link.send(&large), Ok(4096));
    assert_eq!(packet(&far), [b"header footer ".as_slice(), &large].concat());
}

#[test]
fn what_was_gathered_leaves_with_a_flush_and_an_empty_flush_sends_nothing() {
    let (near, far) = packets();
    let mut link = Link::new(near, None);
    link.flush().unwrap();
    link.send(b"end").unwrap();
    link.flush().unwrap();
    link.flush().unwrap();
    link.send(b"more").unwrap();
    link.flush().unwrap();
    assert_eq!((packet(&far).as_slice(), packet(&far).as_slice()), (b"end".as_slice(), b"more".as_slice()));
}

#[test]
fn a_header_behind_the_data_is_read_with_them() {
    let (near, far) = packets();
    let mut link = Link::new(near, None);
    rustix::io::write(&far, b"datahead1234567").unwrap();
    drop(far);
    let mut data = [0; 4];
    assert_eq!(link.recv(&mut data), Ok(4));
    assert_eq!(&data, b"data");
    // A packet is gone once it was read: what comes now was read ahead.
    let mut head = [0; 7];
    assert_eq!(link.recv(&mut head), Ok(7));
    assert_eq!(&head, b"head123");
    let mut rest = [0; 9];
    assert_eq!(link.recv(&mut rest), Ok(4));
    assert_eq!(&rest[..4], b"4567");
    assert_eq!(link.recv(&mut rest), Ok(0));
}

#[test]
fn a_full_socket_is_waited_for_and_every_byte_arrives_in_order() {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|number| number.to_le_bytes()[0]).collect();
    let got = thread::scope(|scope| {
        scope.spawn(|| {
            let mut link = Link::new(&near, None);
            for piece in bytes.chunks(700_001) {
                let mut sent = 0;
                while sent < piece.len() {
                    sent += link.send(&piece[sent..]).unwrap();
                }
            }
            link.flush().unwrap();
            near.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut link = Link::new(&far, None);
        let mut got: Vec<u8> = Vec::new();
        let mut buffer = vec![0; 70_003];
        loop {
            match link.recv(&mut buffer).unwrap() {
                0 => break got,
                count => got.extend_from_slice(&buffer[..count]),
            }
        }
    });
    assert!(got == bytes);
}

#[test]
fn an_interrupt_ends_a_wait_for_bytes_and_every_call_after_it() {
    let (read, write) = pipe_with(PipeFlags::NONBLOCK).unwrap();
    let interrupt = Interrupt::new().unwrap();
    let mut link = Link::new(read, Some(interrupt.clone()));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| link.recv(&mut [0; 8]));
        interrupt.ask(2);
        assert_eq!(waiting.join().unwrap(), Err(errno(125)));
    });
    assert_eq!(interrupt.asked(), Some(2));
    rustix::io::write(&write, b"bytes").unwrap();
    assert_eq!(link.recv(&mut [0; 8]), Err(errno(125)));
}

#[test]
fn an_interrupt_ends_a_wait_for_room() {
    let (_read, write) = pipe_with(PipeFlags::NONBLOCK).unwrap();
    let interrupt = Interrupt::new().unwrap();
    let mut link = Link::new(write, Some(interrupt.clone()));
    let large = vec![0; 1 << 20];
    let taken = link.send(&large).unwrap();
    assert!(taken < large.len());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| link.send(&large));
        interrupt.ask(15);
        assert_eq!(waiting.join().unwrap(), Err(errno(125)));
    });
}

#[test]
fn a_link_whose_other_end_is_gone_says_so() {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    drop(read);
    let mut link = Link::new(write, None);
    assert_eq!(link.send(&[0; 4096]), Err(errno(32)));
}
