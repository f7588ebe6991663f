//! The digest of the log: proof that nothing in it was changed, removed or reordered.
//!
//! ```text
//! event   = SHA-256(version 8 | body)
//! content = SHA-256(event 1 | event 2 | ...)                                       of one append
//! leaf    = SHA-256(0 | first position 8 | recorded time 8 | count 4 | content)    of one append
//! node    = SHA-256(1 | left | right)
//! tree    = leaves of one segment, in order, as in RFC 6962; an empty one is 32 zeros
//! chain   = SHA-256(2 | chain before | leaves 8 | root of the segment's tree)      after a segment; initially zeros
//! log     = the same, of the last segment so far
//! ```
//!
//! The chain links the segments, and each tree covers the appends of a segment, so the proof that an append
//! is in the log is short wherever the event is. It uses digests of bodies: a body can be removed later
//! without breaking the chain, if its digest is kept. No append waits for it: it is derived from the
//! segments, and computed when the writer is idle or when a caller requests it. Pure.

use annals_core::{Position, Timestamp, Version};
use sha2::{Digest as _, Sha256};

use crate::log::encoding::{Malformed, get_u64};

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// The digest of the log up to an append, in a form that can be continued.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogDigest {
    /// The digest of the log before the segment.
    chain: Digest,
    /// Number of appends of the segment.
    leaves: u64,
    /// Roots of the perfect subtrees, largest first: one for each bit that is set in `leaves`.
    roots: Vec<Digest>,
}

/// The digest of an event.
pub fn of_event(version: Version, body: &[u8]) -> Digest {
    let mut event = Sha256::new();
    event.update(version.get().to_le_bytes());
    event.update(body);
    event.finalize().into()
}

/// The digest of an append: its leaf in the tree of the segment.
pub fn of_append(first: Position, recorded_at: Timestamp, events: &[Digest]) -> Digest {
    let mut content = Sha256::new();
    for event in events {
        content.update(event);
    }
    let count = u32::try_from(events.len()).expect("limits keep an append at 65,536 events");
    let mut leaf = Sha256::new();
    leaf.update([0]);
    leaf.update(first.get().to_le_bytes());
    leaf.update(recorded_at.as_micros().to_le_bytes());
    leaf.update(count.to_le_bytes());
    leaf.update(content.finalize());
    leaf.finalize().into()
}

/// The digest of a log, from the digest before its last segment and the tree of that segment.
pub fn chained(before: &Digest, (leaves, root): &Tree) -> Digest {
    let mut chain = Sha256::new();
    chain.update([2]);
    chain.update(before);
    chain.update(leaves.to_le_bytes());
    chain.update(root);
    chain.finalize().into()
}

/// A tree: its number of leaves, and its root.
pub type Tree = (u64, Digest);

/// A segment has fewer appends than this.
const LEAVES_MAX: u64 = 1 << 32;

/// The tree of these leaves.
pub fn tree(leaves: &[Digest]) -> Tree {
    let mut log = LogDigest::default();
    leaves.iter().for_each(|leaf| log.push(*leaf));
    (log.leaves, log.root())
}

/// The audit path of a leaf: the digests that are needed to compute the root from it, from the leaf up.
pub fn path(leaves: &[Digest], number: usize) -> Vec<Digest> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut path, other) = match number.checked_sub(left.len()) {
        None => (self::path(left, number), tree(right).1),
        Some(number) => (self::path(right, number), tree(left).1),
    };
    path.push(other);
    path
}

/// The root computed by this path from leaf `number` of `leaves`; `None` if the path has the wrong length.
pub fn root_by(leaf: Digest, number: u64, leaves: u64, path: &[Digest]) -> Option<Digest> {
    if number >= leaves || leaves > LEAVES_MAX {
        return None;
    }
    if leaves == 1 {
        return path.is_empty().then_some(leaf);
    }
    let (other, below) = path.split_last()?;
    let left = split(usize::try_from(leaves).ok()?) as u64;
    Some(match number.checked_sub(left) {
        None => parent(&root_by(leaf, number, left, below)?, other),
        Some(number) => parent(other, &root_by(leaf, number, leaves - left, below)?),
    })
}

/// The number of leaves in the left subtree of a tree with this many: the largest power of two below it.
fn split(leaves: usize) -> usize {
    leaves.next_power_of_two() / 2
}

impl LogDigest {
    /// Extends the digest with an append of these events.
    pub fn append(&mut self, first: Position, recorded_at: Timestamp, events: &[Digest]) {
        self.push(of_append(first, recorded_at, events));
    }

    fn push(&mut self, leaf: Digest) {
        let mut node = leaf;
        for _ in 0..self.leaves.trailing_ones() {
            let left = self.roots.pop().expect("there is a root for each bit");
            node = parent(&left, &node);
        }
        self.roots.push(node);
        self.leaves += 1;
    }

    /// Starts the next segment.
    pub fn next_segment(&mut self) {
        *self = Self { chain: self.log(), ..Self::default() };
    }

    /// The digest of the log.
    pub fn log(&self) -> Digest {
        chained(&self.chain, &(self.leaves, self.root()))
    }

    fn root(&self) -> Digest {
        match self.roots.split_last() {
            None => [0; 32],
            Some((last, rest)) => rest.iter().rev().fold(*last, |right, left| parent(left, &right)),
        }
    }

    /// Appends its encoding to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.chain);
        out.extend_from_slice(&self.leaves.to_le_bytes());
        out.extend(self.roots.iter().flatten());
    }

    /// Decodes it from the start of the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let short = || Malformed::Short("digest");
        let chain = bytes.get(..32).ok_or_else(short)?.try_into().expect("32 bytes");
        let leaves = get_u64(bytes.get(32..40).ok_or_else(short)?);
        if leaves > LEAVES_MAX {
            return Err(Malformed::Field("leaves"));
        }
        let count = leaves.count_ones() as usize;
        let roots = bytes.get(40..40 + 32 * count).ok_or_else(short)?;
        let roots = roots.chunks_exact(32).map(|root| root.try_into().expect("32 bytes")).collect();
        Ok(Self { chain, leaves, roots })
    }
}

fn parent(left: &Digest, right: &Digest) -> Digest {
    let mut node = Sha256::new();
    node.update([1]);
    node.update(left);
    node.update(right);
    node.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(appends: &[&str]) -> LogDigest {
        let mut digest = LogDigest::default();
        for (index, body) in appends.iter().enumerate() {
            let event = of_event(Version::FIRST, body.as_bytes());
            digest.append(Position::new(index as u64 + 1), Timestamp::from_micros(7), &[event]);
        }
        digest
    }

    /// The root of a tree, literally as RFC 6962 defines it.
    fn defined(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => [0; 32],
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                parent(&defined(left), &defined(right))
            }
        }
    }

    #[test]
    fn it_is_the_tree_of_the_definition() {
        let mut digest = LogDigest::default();
        let mut leaves: Vec<Digest> = Vec::new();
        for number in 0..70_u8 {
            assert_eq!(
                digest.log(),
                chained(&[0; 32], &(u64::from(number), defined(&leaves))),
                "{number} leaves"
            );
            for (number, leaf) in leaves.iter().enumerate() {
                let path = path(&leaves, number);
                let count = leaves.len() as u64;
                assert_eq!(root_by(*leaf, number as u64, count, &path), Some(defined(&leaves)));
                let other = root_by([255; 32], number as u64, count, &path);
                assert_ne!(other, Some(defined(&leaves)), "another leaf leads elsewhere");
                assert_eq!(root_by(*leaf, number as u64, count, &[&path[..], &[[1; 32]]].concat()), None);
            }
            let mut bytes = Vec::new();
            digest.encode(&mut bytes);
            assert_eq!(LogDigest::decode(&bytes), Ok(digest.clone()));
            leaves.push([number; 32]);
            digest.push([number; 32]);
        }
    }

    #[test]
    fn any_change_changes_it() {
        let digest = of(&["a", "b", "c"]).log();
        for other in
            [&["a", "b"][..], &["a", "c", "b"], &["a", "b", "d"], &["a", "b", "c", "c"], &["ab", "c"]]
        {
            assert_ne!(of(other).log(), digest, "{other:?}");
        }
        let mut next = of(&["a", "b", "c"]);
        next.next_segment();
        assert_ne!(next.log(), digest);
    }
}
