//! The file: contents as they come, and at the end the rest with the superblock.

use std::{
    fs::File,
    io::{self, Read, Write as _},
    os::unix::fs::FileExt as _,
};

use crate::{BLOCK_BYTES, Tree, encode, place::Places};

/// Written at once; large, since one write is one walk through the file system below.
const BUFFER_BYTES: usize = 1 << 20;

/// A content that is in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub(crate) block: u32,
    pub(crate) bytes: u64,
}

/// An image being written.
#[derive(Debug)]
pub struct Image {
    file: File,
    buffer: Box<[u8]>,
    filled: usize,
    written: u64,
}

impl Image {
    /// Begins one in an empty file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn begin(file: File) -> io::Result<Self> {
        let mut image = Self { file, buffer: vec![0; BUFFER_BYTES].into(), filled: 0, written: 0 };
        // Where the superblock will be.
        image.write(&[0; BLOCK_BYTES])?;
        Ok(image)
    }

    /// Takes a content of so many bytes.
    ///
    /// # Errors
    /// It ends early, cannot be read, or does not fit.
    pub fn content(&mut self, from: &mut impl Read, bytes: u64) -> io::Result<Content> {
        let block = self.block()?;
        let mut left = bytes;
        while left > 0 {
            let room = self.room()?;
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(room.len());
            let n = from.read(&mut room[..most])?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.filled += n;
            left -= n as u64;
        }
        self.pad()?;
        Ok(Content { block, bytes })
    }

    /// Writes what is left and makes the file an image. `uuid` tells it from others: overlay needs that.
    ///
    /// # Errors
    /// The file cannot be written, or it is more than the format can tell.
    pub fn finish(mut self, tree: &Tree, uuid: [u8; 16]) -> io::Result<File> {
        let first_block = self.block()?;
        let places = Places::of(tree, first_block)?;
        for id in places.order() {
            self.write(&encode::blocks(tree, *id, &places))?;
            self.pad()?;
        }
        debug_assert_eq!(self.block()?, places.inodes_block);
        for id in places.order() {
            let at = u64::from(places.inodes_block) * BLOCK_BYTES as u64 + places.offset(*id);
            let gap = at - self.at();
            self.write(&[0; BLOCK_BYTES][..usize::try_from(gap).map_err(io::Error::other)?])?;
            self.write(&encode::inode(tree, *id, &places))?;
        }
        self.pad()?;
        let blocks = self.block()?;
        self.flush()?;
        self.file.write_all_at(&encode::superblock(&places, blocks, uuid), encode::SUPERBLOCK_AT)?;
        Ok(self.file)
    }

    fn at(&self) -> u64 {
        self.written + self.filled as u64
    }

    /// The block that is written next, from its start on.
    fn block(&self) -> io::Result<u32> {
        u32::try_from(self.at() / BLOCK_BYTES as u64).map_err(|_| io::ErrorKind::FileTooLarge.into())
    }

    fn pad(&mut self) -> io::Result<()> {
        let over = usize::try_from(self.at() % BLOCK_BYTES as u64).map_err(io::Error::other)?;
        if over == 0 { Ok(()) } else { self.write(&[0; BLOCK_BYTES][over..]) }
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = self.room()?;
            let n = room.len().min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
            self.filled += n;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    fn room(&mut self) -> io::Result<&mut [u8]> {
        if self.filled == self.buffer.len() {
            self.flush()?;
        }
        Ok(&mut self.buffer[self.filled..])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer[..self.filled])?;
        self.written += self.filled as u64;
        self.filled = 0;
        Ok(())
    }
}
