//! What can happen to a member.

use annals::Event;
use serde::{Deserialize, Serialize};

use crate::session::SessionDigest;
use crate::values::{Address, Email, Name, PasswordHash, Profile};

/// What can happen to a member.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[event(prefix = "member")]
pub enum MemberEvent {
    /// Somebody has become one.
    Registered {
        /// What the member is called.
        name: Name,
        /// How to reach the member.
        email: Email,
        /// Where the member lives, if that was said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<Address>,
        /// The hash of the member's password, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<PasswordHash>,
    },
    /// The member is called something else.
    Renamed {
        /// What.
        name: Name,
    },
    /// The member is reached elsewhere.
    EmailChanged {
        /// Where.
        email: Email,
    },
    /// The member lives elsewhere.
    AddressChanged {
        /// Where.
        address: Address,
    },
    /// The member says something else about itself.
    ProfileChanged {
        /// What.
        profile: Profile,
    },
    /// The member uses another password. The session, if there was one, is over.
    PasswordChanged {
        /// Its hash.
        password: PasswordHash,
    },
    /// A session has begun; one that there was is over.
    LoggedIn {
        /// By what it is recognised.
        session: SessionDigest,
    },
    /// The session is over.
    LoggedOut,
    /// The member is not one any more.
    Withdrawn,
}
