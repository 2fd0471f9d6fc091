//! The receiving side of a session: the bytes of a state, checked as they come.
//!
//! Deliberately absent: the device. What was written becomes its content when RESUMING → STOP succeeds.

use std::ops::Range;

use rustix::io::Errno;

use super::format::{HEADER_LEN, Layout, MAGIC, RECORD_LEN, copy, parse_header, parse_record};
use super::ranges::Ranges;

#[derive(Debug)]
pub(super) struct Resuming {
    size: usize,
    stage: Stage,
    /// What there is of the next header or record head.
    head: Vec<u8>,
    content: Vec<u8>,
    /// Where the next bytes of content belong.
    body: Range<usize>,
    /// What has not come yet.
    missing: Ranges,
    /// The length of all content so far, repeated bytes included.
    carried: u64,
    /// The answer to the first write that was refused.
    refused: Option<Errno>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Header,
    Records,
    /// Nothing follows the current body.
    Last,
}

impl Resuming {
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            stage: Stage::Header,
            head: Vec::new(),
            content: Vec::new(),
            body: 0..0,
            missing: (0..size).into(),
            carried: 0,
            refused: None,
        }
    }

    /// The content, where all of it has come and nothing was refused.
    pub(super) fn content(&mut self) -> Option<Vec<u8>> {
        let whole = self.refused.is_none()
            && self.stage == Stage::Last
            && self.body.is_empty()
            && self.missing.is_empty();
        whole.then(|| std::mem::take(&mut self.content))
    }

    /// Takes all of `bytes`, or refuses them and everything after them.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.refused.is_none() {
            self.refused = self.take(bytes).err();
        }
        self.refused.map_or(Ok(bytes.len()), Err)
    }

    /// A write failed. Where that means no more than "again", nothing is lost.
    pub(super) fn fail(&mut self, errno: Errno) {
        if !matches!(errno, Errno::INTR | Errno::AGAIN) {
            self.refused = self.refused.or(Some(errno));
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if !self.body.is_empty() {
                let len = copy(rest, &mut self.content[self.body.clone()]);
                self.body.start += len;
                rest = &rest[len..];
            } else if self.stage == Stage::Last {
                return Err(Errno::NOMEM);
            } else {
                rest = self.collect(rest)?;
            }
        }
        Ok(())
    }

    /// Takes bytes of a head, and what the head says where it is whole; returns what is behind it.
    fn collect<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Errno> {
        let (part, rest) = bytes.split_at((self.head_len() - self.head.len()).min(bytes.len()));
        self.head.extend_from_slice(part);
        if self.head.len() == self.head_len() {
            let head = std::mem::take(&mut self.head);
            match head.len() {
                HEADER_LEN => self.begin(&head, rest.len())?,
                _ => self.record(&head)?,
            }
        }
        Ok(rest)
    }

    /// How long the head is, by what there is of it.
    fn head_len(&self) -> usize {
        match self.head.first_chunk() {
            _ if self.stage == Stage::Header => HEADER_LEN,
            Some(MAGIC) => HEADER_LEN,
            _ => RECORD_LEN,
        }
    }

    /// A header: the first one, or in the place of a record. As mtty, the length of the write is looked at first.
    fn begin(&mut self, head: &[u8], behind: usize) -> Result<(), Errno> {
        let layout = parse_header(self.size, head);
        match (layout, self.stage) {
            (Some(Layout::Plain), Stage::Header) => {
                self.stage = Stage::Last;
                self.content = vec![0; self.size];
                self.follow(0..self.size);
            }
            (Some(Layout::Records { initial }), _) => {
                self.stage = Stage::Records;
                self.content.resize(self.size, 0);
                self.follow(0..initial);
            }
            (None, Stage::Header) if behind > self.size => return Err(Errno::NOMEM),
            (Some(Layout::Plain) | None, _) => return Err(Errno::FAULT),
        }
        Ok(())
    }

    fn record(&mut self, head: &[u8]) -> Result<(), Errno> {
        let (offset, length) = parse_record(head).ok_or(Errno::FAULT)?;
        if length == 0 {
            self.stage = Stage::Last;
            return if offset == self.carried { Ok(()) } else { Err(Errno::FAULT) };
        }
        let end = offset.checked_add(length).and_then(|end| usize::try_from(end).ok());
        let end = end.filter(|end| *end <= self.size).ok_or(Errno::NOMEM)?;
        let start = usize::try_from(offset).map_err(|_| Errno::NOMEM)?;
        self.follow(start..end);
        Ok(())
    }

    fn follow(&mut self, body: Range<usize>) {
        self.missing.remove(body.clone());
        self.carried = self.carried.saturating_add(body.len() as u64);
        self.body = body;
    }
}

const _: () = assert!(MAGIC.len() < RECORD_LEN && RECORD_LEN < HEADER_LEN, "a head's length says what it is");
