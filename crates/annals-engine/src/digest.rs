//! The digest of the log: proof that nothing in it was changed, removed or reordered.
//!
//! ```text
//! event   = SHA-256(body)
//! content = SHA-256(event 1 | event 2 | ...)                                       of one append
//! leaf    = SHA-256(0 | first position 8 | recorded time 8 | count 4 | content)    of one append
//! node    = SHA-256(1 | left | right)
//! tree    = leaves of one segment, in order, as in RFC 6962; an empty one is 32 zeros
//! chain   = SHA-256(2 | chain before | root of the segment's tree)                 after a segment; at first zeros
//! log     = SHA-256(2 | chain before the last segment | root of its tree so far)
//! ```
//!
//! The chain goes from segment to segment and the tree through the appends of one, so the proof that an append is in
//! the log is short wherever it stands. It is over digests of bodies: a body can be removed later, and its digest kept,
//! without breaking it. Nothing that is written waits for it: it follows from the segments, and is computed when a run
//! is sealed. Pure.

use annals_core::{Position, Timestamp};
use sha2::{Digest as _, Sha256};

use crate::encoding::{Malformed, get_u64};

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// The digest of the log up to some append, in the form in which it can be continued.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogDigest {
    /// Of the log before the segment.
    chain: Digest,
    /// Appends of the segment.
    leaves: u64,
    /// Roots of the whole trees in which these are, largest first: one for each bit that is set in `leaves`.
    roots: Vec<Digest>,
}

impl LogDigest {
    /// Goes on with an append: of its events, these are the bodies.
    pub fn append<'a>(
        &mut self,
        first: Position,
        recorded_at: Timestamp,
        bodies: impl IntoIterator<Item = &'a [u8]>,
    ) {
        let mut content = Sha256::new();
        let mut count = 0_u32;
        for body in bodies {
            content.update(Sha256::digest(body));
            count += 1;
        }
        let mut leaf = Sha256::new();
        leaf.update([0]);
        leaf.update(first.get().to_le_bytes());
        leaf.update(recorded_at.as_micros().to_le_bytes());
        leaf.update(count.to_le_bytes());
        leaf.update(content.finalize());
        self.push(leaf.finalize().into());
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

    /// Goes on with the next segment.
    pub fn next_segment(&mut self) {
        *self = Self { chain: self.log(), ..Self::default() };
    }

    /// The digest of the log.
    pub fn log(&self) -> Digest {
        let root = match self.roots.split_last() {
            None => [0; 32],
            Some((last, rest)) => rest.iter().rev().fold(*last, |right, left| parent(left, &right)),
        };
        let mut chain = Sha256::new();
        chain.update([2]);
        chain.update(self.chain);
        chain.update(root);
        chain.finalize().into()
    }

    /// Writes it at the end of the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.chain);
        out.extend_from_slice(&self.leaves.to_le_bytes());
        out.extend(self.roots.iter().flatten());
    }

    /// Reads it from the start of the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let short = || Malformed::Short("digest");
        let chain = bytes.get(..32).ok_or_else(short)?.try_into().expect("32 bytes");
        let leaves = get_u64(bytes.get(32..40).ok_or_else(short)?);
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
            digest.append(Position::new(index as u64 + 1), Timestamp::from_micros(7), [body.as_bytes()]);
        }
        digest
    }

    /// The definition, word for word: a tree splits at the largest power of two below its size.
    fn root(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => [0; 32],
            [leaf] => *leaf,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                parent(&root(&leaves[..split]), &root(&leaves[split..]))
            }
        }
    }

    #[test]
    fn it_is_the_tree_of_the_definition() {
        let mut digest = LogDigest::default();
        let mut leaves = Vec::new();
        for number in 0..70_u8 {
            let expected = {
                let mut chain = Sha256::new();
                chain.update([2]);
                chain.update([0; 32]);
                chain.update(root(&leaves));
                Digest::from(chain.finalize())
            };
            assert_eq!(digest.log(), expected, "{number} leaves");
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
