//! An e-mail address, which belongs to one member at a time.
//!
//! Its stream is named by the digest of the address: so the name is always short, and the
//! list of streams reveals no address.

use annals::{Aggregate, Context, Decide, Decision, Event, emit, no_events, reject};
use serde::{Deserialize, Serialize};

use super::MemberRefused;
use crate::values::MemberId;

/// An e-mail address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailAddress {
    /// The member to whom it belongs.
    pub owner: Option<MemberId>,
}

/// The events of an e-mail address.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[event(prefix = "email")]
pub enum AddressEvent {
    /// A member has claimed it.
    Claimed {
        /// The member.
        member: MemberId,
    },
    /// The member has released it.
    Released,
}

/// Claims it for a member.
#[derive(Clone, Debug)]
pub struct Claim(pub MemberId);

/// Releases it from a member.
#[derive(Clone, Debug)]
pub struct Release(pub MemberId);

impl Aggregate for MailAddress {
    const NAME: &'static str = "email";
    type Event = AddressEvent;

    fn initial(_digest: &str) -> Self {
        Self::default()
    }

    fn evolve(&mut self, event: &AddressEvent) {
        match event {
            AddressEvent::Claimed { member } => self.owner = Some(member.clone()),
            AddressEvent::Released => self.owner = None,
        }
    }
}

impl Decide<Claim> for MailAddress {
    type Error = MemberRefused;
    fn decide(&self, Claim(member): &Claim, _: &Context) -> Decision<Self, MemberRefused> {
        match &self.owner {
            Some(owner) if owner == member => no_events(),
            Some(_) => reject(MemberRefused::DuplicateMemberEmail),
            None => emit(AddressEvent::Claimed { member: member.clone() }),
        }
    }
}

impl Decide<Release> for MailAddress {
    type Error = MemberRefused;
    fn decide(&self, Release(member): &Release, _: &Context) -> Decision<Self, MemberRefused> {
        if self.owner.as_ref() == Some(member) { emit(AddressEvent::Released) } else { no_events() }
    }
}
