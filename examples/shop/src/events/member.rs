//! The events of a member.

use annals::Event;
use serde::{Deserialize, Serialize};

use crate::session::SessionDigest;
use crate::values::{Address, Email, Name, PasswordHash, Profile};

/// The events of a member.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[event(prefix = "member")]
pub enum MemberEvent {
    /// The member has registered.
    Registered {
        /// The name.
        name: Name,
        /// The e-mail address.
        email: Email,
        /// The postal address, if it was given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<Address>,
        /// The hash of the password, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<PasswordHash>,
    },
    /// The name has changed.
    Renamed {
        /// The new name.
        name: Name,
    },
    /// The e-mail address has changed.
    EmailChanged {
        /// The new address.
        email: Email,
    },
    /// The postal address has changed.
    AddressChanged {
        /// The new address.
        address: Address,
    },
    /// The member's text about itself has changed.
    ProfileChanged {
        /// The new text.
        profile: Profile,
    },
    /// The password has changed, which ends the session, if there was one.
    PasswordChanged {
        /// The hash of the new password.
        password: PasswordHash,
    },
    /// A session has begun, which ends an earlier one.
    LoggedIn {
        /// The digest of the session's token.
        session: SessionDigest,
    },
    /// The session has ended.
    LoggedOut,
    /// The membership has ended.
    Withdrawn,
}
