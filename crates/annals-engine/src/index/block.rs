//! Blocks of index files. Each has a checksum, which is verified when the block is read. Recently read blocks
//! are kept in one cache for all files, so memory does not grow with the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;

use crate::disk::File;
use crate::error::Fault;
use crate::log::encoding::get_u32;

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 4096;
/// Bytes of a block's payload: all but the checksum.
pub const PAYLOAD_BYTES: usize = BLOCK_BYTES - 4;

/// A block's payload.
pub type Block = Arc<[u8]>;

/// Recently read blocks of index files, by number of the file and of the block.
pub struct BlockCache {
    blocks: Cache<(u64, u32), Block>,
    bytes: usize,
    files: AtomicU64,
}

impl BlockCache {
    /// A cache of about `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        Self { blocks: Cache::new((bytes / BLOCK_BYTES).max(16)), bytes, files: 0.into() }
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A file of blocks.
pub struct BlockFile {
    name: String,
    file: Arc<dyn File>,
    number: u64,
    cache: Arc<BlockCache>,
    /// Number of blocks when it was opened.
    blocks: u64,
}

impl BlockFile {
    /// A file whose blocks are read through this cache.
    pub fn new(name: &str, file: Arc<dyn File>, cache: Arc<BlockCache>) -> Self {
        let number = cache.files.fetch_add(1, Ordering::Relaxed);
        let blocks = file.length().unwrap_or(0).div_ceil(BLOCK_BYTES as u64);
        Self { name: name.to_owned(), file, number, cache, blocks }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of blocks now.
    pub fn blocks(&self) -> Result<u64, Fault> {
        let length = self.file.length().map_err(Fault::io("read the length of", &self.name))?;
        if length % BLOCK_BYTES as u64 != 0 {
            return Err(self.damaged(0, "does not have the length in its header"));
        }
        Ok(length / BLOCK_BYTES as u64)
    }

    /// The payload of a block, from the cache or else from the file.
    pub fn block(&self, number: u32) -> Result<Block, Fault> {
        let key = (self.number, number);
        if let Some(block) = self.cache.blocks.get(&key) {
            return Ok(block);
        }
        let block: Block = self.read(number, 1)?.into();
        self.cache.blocks.insert(key, block.clone());
        Ok(block)
    }

    /// Like [`block`](Self::block), but a block that is read is not kept: for reading a file once.
    pub fn passing_block(&self, number: u32) -> Result<Block, Fault> {
        let kept = self.cache.blocks.peek(&(self.number, number));
        kept.map_or_else(|| Ok(self.read(number, 1)?.into()), Ok)
    }

    /// Fills the buffer with the bytes of a block from `at` on, without the cache and without the block's
    /// checksum: for data with its own checksum, and for offsets of records, which have one.
    pub fn peek(&self, number: u32, at: usize, buffer: &mut [u8]) -> Result<(), Fault> {
        let offset = u64::from(number) * BLOCK_BYTES as u64 + at as u64;
        let read = self.file.read_at(buffer, offset).map_err(Fault::io("read", &self.name))?;
        if read < buffer.len() { Err(self.damaged(number, "ends too early")) } else { Ok(()) }
    }

    /// Prefetches bytes of a block into the processor's cache, for a [`peek`](Self::peek) that follows at
    /// once.
    pub fn bring_near(&self, number: u32, at: usize, length: usize) {
        self.file.bring_near(u64::from(number) * BLOCK_BYTES as u64 + at as u64, length as u64);
    }

    /// Loads `count` blocks from this one on, for [`peek`](Self::peek).
    pub fn load(&self, number: u32, count: u32) {
        self.file.load(u64::from(number) * BLOCK_BYTES as u64, u64::from(count) * BLOCK_BYTES as u64);
    }

    /// Reads `count` blocks from this one on, without the cache; returns their payloads, concatenated.
    pub fn read(&self, number: u32, count: u32) -> Result<Vec<u8>, Fault> {
        // Allocate only for bytes that exist.
        if u64::from(number) + u64::from(count) > self.blocks {
            return Err(self.damaged(number, "ends too early"));
        }
        let mut bytes = vec![0; BLOCK_BYTES * count as usize];
        let offset = u64::from(number) * BLOCK_BYTES as u64;
        let read = self.file.read_at(&mut bytes, offset).map_err(Fault::io("read", &self.name))?;
        if read < bytes.len() {
            return Err(self.damaged(number, "ends too early"));
        }
        for index in 0..count as usize {
            let block = &bytes[index * BLOCK_BYTES..][..BLOCK_BYTES];
            if crc32c::crc32c(&block[..PAYLOAD_BYTES]) != get_u32(&block[PAYLOAD_BYTES..]) {
                return Err(self.damaged(number + index as u32, "a block's checksum does not match"));
            }
            bytes
                .copy_within(index * BLOCK_BYTES..index * BLOCK_BYTES + PAYLOAD_BYTES, index * PAYLOAD_BYTES);
        }
        bytes.truncate(count as usize * PAYLOAD_BYTES);
        Ok(bytes)
    }

    /// Damage in this block.
    pub fn damaged(&self, block: u32, problem: &str) -> Fault {
        Fault::damaged(&self.name, u64::from(block) * BLOCK_BYTES as u64, None, problem)
    }
}
