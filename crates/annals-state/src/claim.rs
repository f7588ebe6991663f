//! Whose a place is: the record of the place itself, by which no two tenants get one log.
//!
//! An address does not tell. One place has many: another name of the server, a port that is the default, a
//! parameter more, capitals where the server does not care. So the place says whose it is, in its table
//! `owner`, which is written under the lock of the log.
//!
//! The stores read what is there and write the claim; what is decided is here.

use annals_core::{Invalid, StoreId};

/// The wish of a directory to have a log at a place.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The identity of the directory.
    pub directory: StoreId,
    /// The tenant whose log is to be there; empty if the directory itself is.
    pub tenant: &'a str,
    /// Whether the directory knows already that the log is there: an earlier version wrote no claim.
    pub known: bool,
    /// The log that is to be moved there, which may be there in an older state.
    pub moving: Option<StoreId>,
}

/// What there is at a place.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The identity of the log.
    pub log: StoreId,
    /// Whether it has no events.
    pub is_empty: bool,
    /// The directory and the tenant that have claimed it.
    pub owner: Option<(StoreId, String)>,
}

impl Claim<'_> {
    /// Whether the claim is to be written; `false` if it is there.
    ///
    /// # Errors
    /// `Invalid` if the place is somebody else's.
    pub fn decide(&self, there: &Claimed) -> Result<bool, Invalid> {
        let refused =
            |problem: String| Err(Invalid::new("tenant", format!("cannot be there: that place {problem}")));
        match &there.owner {
            Some((directory, tenant)) if *directory == self.directory && tenant == self.tenant => Ok(false),
            Some((directory, tenant)) => {
                let whose = match &**tenant {
                    "" => "is a directory".to_owned(),
                    tenant => format!("is the tenant `{tenant}`'s"),
                };
                if *directory == self.directory {
                    return refused(whose);
                }
                refused(format!(
                    "{whose}, by the directory {directory}; if that directory is gone, remove the row in the place's table \
                     `owner`"
                ))
            }
            None if there.log == self.directory && !self.tenant.is_empty() => {
                refused("is a directory".to_owned())
            }
            None if there.is_empty || self.known || self.moving == Some(there.log) => Ok(true),
            None => refused(format!("has the log {} already, with events in it", there.log)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: StoreId = StoreId::from_bytes([1; 16]);
    const OTHER: StoreId = StoreId::from_bytes([2; 16]);
    const LOG: StoreId = StoreId::from_bytes([3; 16]);

    fn there(is_empty: bool, owner: Option<(StoreId, &str)>) -> Claimed {
        Claimed { log: LOG, is_empty, owner: owner.map(|(directory, tenant)| (directory, tenant.to_owned())) }
    }

    #[test]
    fn a_place_is_given_away_once() {
        let claim = Claim { directory: DIRECTORY, tenant: "acme", known: false, moving: None };
        let refused = |there: &Claimed| claim.decide(there).unwrap_err().to_string();
        assert_eq!(claim.decide(&there(true, None)), Ok(true));
        assert_eq!(claim.decide(&there(false, Some((DIRECTORY, "acme")))), Ok(false));
        assert!(refused(&there(true, Some((DIRECTORY, "beta")))).ends_with("is the tenant `beta`'s"));
        assert!(
            refused(&there(true, Some((OTHER, "acme")))).contains("the row in the place's table `owner`")
        );
        assert!(refused(&there(true, Some((OTHER, "")))).contains("is a directory"));
        assert!(refused(&there(false, None)).contains("already, with events in it"));
        assert!(refused(&Claimed { log: DIRECTORY, ..there(true, None) }).contains("is a directory"));
        assert_eq!(Claim { known: true, ..claim }.decide(&there(false, None)), Ok(true));
        assert_eq!(Claim { moving: Some(LOG), ..claim }.decide(&there(false, None)), Ok(true));
        assert!(Claim { moving: Some(OTHER), ..claim }.decide(&there(false, None)).is_err());
    }
}
