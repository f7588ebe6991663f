//! Backups in object storage: S3 and compatible services, Google Cloud Storage, Azure.
//!
//! Keys, region and endpoint come from the environment, as with the tools of each cloud (`AWS_ACCESS_KEY_ID`,
//! `AWS_REGION`, `AWS_ENDPOINT`, …). A large object is uploaded in parts and exists once the upload is
//! completed; a manifest is created by a conditional put, which the storage refuses if there is an object of
//! that name.

use std::io::{self, Read};
use std::sync::Arc;

use annals_engine::BackupStorage;
use futures::StreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};
use tokio::runtime::Handle;

/// The size of a part in bytes. S3 accepts no parts below 5 MiB.
const PART_BYTES: usize = 8 << 20;

/// Backup storage in an object store.
pub(crate) struct ObjectBackupStorage {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    runtime: Handle,
}

impl ObjectBackupStorage {
    /// The storage with this URL. Its calls block, so call them on threads that may block.
    pub(crate) fn open(url: &str) -> anyhow::Result<Self> {
        let url = url.parse()?;
        let (store, prefix) = object_store::parse_url_opts(&url, std::env::vars())?;
        Ok(Self { store: store.into(), prefix, runtime: Handle::current() })
    }

    fn path(&self, name: &str) -> Path {
        self.prefix.clone().join(name)
    }

    async fn put_parts(&self, path: &Path, reader: &mut dyn Read, bytes: u64) -> io::Result<()> {
        let mut upload = self.store.put_multipart(path).await.map_err(failed)?;
        let mut sent = 0;
        let outcome = loop {
            if sent == bytes {
                break upload.complete().await.map(drop).map_err(failed);
            }
            let part = match part(reader, bytes - sent) {
                Ok(part) => part,
                Err(error) => break Err(error),
            };
            sent += part.len() as u64;
            if let Err(error) = upload.put_part(PutPayload::from(part)).await {
                break Err(failed(error));
            }
        };
        if outcome.is_err() {
            // If the abort fails, the lifecycle rules of the bucket remove the parts.
            let _ = upload.abort().await;
        }
        outcome
    }
}

/// Reads the next part; `left` is the number of bytes that are left.
fn part(reader: &mut dyn Read, left: u64) -> io::Result<Vec<u8>> {
    let mut part = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(PART_BYTES)];
    reader.read_exact(&mut part)?;
    Ok(part)
}

fn failed(error: object_store::Error) -> io::Error {
    let kind = match error {
        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
        object_store::Error::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
        object_store::Error::PermissionDenied { .. } => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

impl BackupStorage for ObjectBackupStorage {
    fn list(&self) -> io::Result<Vec<String>> {
        self.runtime.block_on(async {
            let mut objects = self.store.list(Some(&self.prefix));
            let mut names = Vec::new();
            while let Some(object) = objects.next().await {
                let location = object.map_err(failed)?.location;
                let mut parts = location.prefix_match(&self.prefix).into_iter().flatten();
                if let (Some(name), None) = (parts.next(), parts.next()) {
                    names.push(name.as_ref().to_owned());
                }
            }
            Ok(names)
        })
    }

    fn put(&self, name: &str, reader: &mut dyn Read, bytes: u64) -> io::Result<()> {
        let path = self.path(name);
        if bytes > PART_BYTES as u64 {
            return self.runtime.block_on(self.put_parts(&path, reader, bytes));
        }
        let all = part(reader, bytes)?;
        self.runtime.block_on(self.store.put(&path, all.into())).map(drop).map_err(failed)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(name);
        let put = self.store.put_opts(&path, bytes.to_vec().into(), PutMode::Create.into());
        self.runtime.block_on(put).map(drop).map_err(failed)
    }

    fn get(&self, name: &str, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let path = self.path(name);
        self.runtime.block_on(async {
            let mut parts = self.store.get(&path).await.map_err(failed)?.into_stream();
            while let Some(part) = parts.next().await {
                each(&part.map_err(failed)?)?;
            }
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.runtime.block_on(self.store.delete(&self.path(name))).map_err(failed)
    }
}
