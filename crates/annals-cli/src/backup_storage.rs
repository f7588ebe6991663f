//! Backup storage: a directory, or object storage by its URL. No other file depends on the kinds.

use std::path::Path;
use std::sync::Arc;

use annals_core::redacted;
use annals_engine::{BackupStorage, DiskBackupStorage};
use anyhow::Context as _;
#[cfg(not(feature = "object-storage"))]
use anyhow::bail;

use crate::named::refuse_in_store;

#[cfg(feature = "object-storage")]
mod object;

/// The error of an operation that reads or writes backups. "Unavailable" refers to the backup storage here,
/// not to the store, so only the cause is kept.
pub(crate) fn cause(error: annals_core::Error) -> anyhow::Error {
    match error {
        annals_core::Error::Unavailable(cause) | annals_core::Error::Unusable(cause) => {
            anyhow::Error::from_boxed(cause)
        }
        error => error.into(),
    }
}

/// The URL schemes of object storage.
const SCHEMES: [&str; 3] = ["s3", "gs", "az"];

/// The address of backup storage as it was given. A password in it is not shown.
#[derive(Clone)]
pub(crate) struct Destination(String);

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A directory has neither; a mistyped address may have an `@`.
        let may_have_password = self.is_remote() || self.0.contains('@');
        f.write_str(&if may_have_password { redacted(&self.0) } else { self.0.clone() })
    }
}

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix("file:").unwrap_or(text);
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        match scheme {
            _ if text.is_empty() => Err("is empty; name a directory, or s3://BUCKET/PATH".to_owned()),
            Some(scheme) if !SCHEMES.contains(&scheme) => Err(format!(
                "`{scheme}://` is not a destination for backups; name a directory, or s3://, gs:// or az://"
            )),
            None if SCHEMES.iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| rest.starts_with(':'))) => {
                Err("names object storage without `//`, as in s3://BUCKET/PATH; a directory of that name is ./s3:…".to_owned())
            }
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl Destination {
    /// Opens the storage to write backups.
    pub(crate) fn open(&self) -> anyhow::Result<Arc<dyn BackupStorage>> {
        if self.is_remote() {
            return self.remote();
        }
        refuse_in_store(Path::new(&self.0)).with_context(|| format!("cannot use {self}"))?;
        let storage = DiskBackupStorage::open(Path::new(&self.0)).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => anyhow::anyhow!("another process writes backups there"),
            _ => error.into(),
        });
        Ok(Arc::new(storage.with_context(|| format!("cannot use {self}"))?))
    }

    /// Opens the storage to read backups.
    pub(crate) fn read(&self) -> anyhow::Result<Arc<dyn BackupStorage>> {
        if self.is_remote() {
            return self.remote();
        }
        let storage = DiskBackupStorage::reading(Path::new(&self.0));
        Ok(Arc::new(storage.with_context(|| format!("cannot read {self}"))?))
    }

    /// Whether it is a directory that does not exist yet.
    pub(crate) fn is_to_be_made(&self) -> bool {
        !self.is_remote() && Path::new(&self.0).try_exists().is_ok_and(|exists| !exists)
    }

    fn is_remote(&self) -> bool {
        self.0.contains("://")
    }

    #[cfg(feature = "object-storage")]
    fn remote(&self) -> anyhow::Result<Arc<dyn BackupStorage>> {
        Ok(Arc::new(
            object::ObjectBackupStorage::open(&self.0).with_context(|| format!("cannot use {self}"))?,
        ))
    }

    #[cfg(not(feature = "object-storage"))]
    fn remote(&self) -> anyhow::Result<Arc<dyn BackupStorage>> {
        bail!("cannot use {self}: this program was built without the feature `object-storage`")
    }
}
