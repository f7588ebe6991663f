//! Rows that are identified by their content: those with an id column (K2), and those of an import that the
//! first version of the program began (K5).
//!
//! In that version the key of every chunk was a digest of its rows, and a file was identified by the last
//! component of its path. Such an import is found by the key of its first chunk, and continued in the same
//! way.

use annals_core::{EventStore, IdempotencyKey, Position};

use super::{CHUNK_BYTES, CHUNK_ROWS, Counts, Known, Reading, read_from};
use crate::import::rows::Row;
use crate::output::{note, thousands};

impl Reading {
    /// Whether the first version of the program began this import. If so, this prepares to continue it in its
    /// way (K5).
    pub(super) async fn continues_first_version(&mut self, store: &dyn EventStore) -> anyhow::Result<bool> {
        let rows = self.take(CHUNK_ROWS, CHUNK_BYTES, Row::content_bytes)?;
        let begun = match store.outcome(&self.recipe.key_of_place(0)).await? {
            Some(there) => {
                let event = &read_from(store, there.first, 1).await?[0];
                rows.first().is_none_or(|row| self.recipe.id(row).is_ok_and(|id| id == event.id()))
            }
            None => store.head().await? == Position::ZERO,
        };
        let written = if begun { 0 } else { self.first_written(store, &rows).await? };
        self.put_back(rows);
        if written == 0 {
            return Ok(false);
        }
        if self.recipe.is_in_a_directory() {
            let name = self.recipe.last_name();
            note(&format!(
                "annals: an earlier version, which knew a file by its last name alone, wrote the first {} rows of `{name}`: they \
                 are taken for rows of this file. Another file of that name needs a name of its own, --source NAME",
                thousands(written as u64)
            ));
        }
        std::sync::Arc::make_mut(&mut self.recipe).by_last_name = true;
        self.known = Known::Content { end_looked_for: false };
        Ok(true)
    }

    /// The number of rows, from the first one on, that are one stored append.
    async fn first_written(&self, store: &dyn EventStore, rows: &[Row]) -> anyhow::Result<usize> {
        let keys = self.recipe.keys_of_content(rows);
        for (before, key) in keys.iter().enumerate().rev() {
            if store.outcome(key).await?.is_some() {
                return Ok(before + 1);
            }
        }
        Ok(0)
    }

    /// Removes the rows that are already stored. Returns the key of the chunk if none were removed.
    pub(super) async fn key_by_content(
        &mut self,
        store: &dyn EventStore,
        rows: &mut Vec<Row>,
        counts: &mut Counts,
    ) -> anyhow::Result<Option<IdempotencyKey>> {
        let key = self.recipe.key_of_content(rows);
        let written = if store.outcome(&key).await?.is_some() {
            rows.len()
        } else if self.known == (Known::Content { end_looked_for: false }) {
            self.known = Known::Content { end_looked_for: true };
            self.first_written(store, rows).await?
        } else {
            0
        };
        counts.add(Counts { there: written as u64, ..Counts::default() });
        rows.drain(..written);
        Ok((written == 0).then_some(key))
    }
}
