//! A member: its decisions and its state.

use annals::{Aggregate, Context, Decide, Decision, emit, no_events, reject};

use super::{
    ChangeAddress, ChangeEmail, ChangeName, ChangePassword, ChangeProfile, LogIn, LogOut, MemberEvent,
    PasswordHash, Register, Withdraw,
};
use crate::session::SessionDigest;
use crate::values::{Address, Email, Name, Profile};

/// A current or former member, or an unused id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Member {
    /// The id is unused.
    #[default]
    Nobody,
    /// A member who can order.
    Active(Box<Account>),
    /// A former member. The id is not reused.
    Withdrawn,
}

/// The data of an active member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The name.
    pub name: Name,
    /// The e-mail address.
    pub email: Email,
    /// The postal address, if it is known.
    pub address: Option<Address>,
    /// The member's text about itself, if any.
    pub profile: Option<Profile>,
    /// The hash of the password, if there is one.
    pub password: Option<PasswordHash>,
    /// The digest of the session's token, if there is a session.
    pub session: Option<SessionDigest>,
}

/// Why a member's command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberRefused {
    /// There is no such member.
    #[error("there is no such member")]
    NotExistsMember,
    /// The id belongs to a current or former member.
    #[error("this id is taken")]
    DuplicateMemberId,
    /// The e-mail address belongs to a member.
    #[error("this e-mail address belongs to another member")]
    DuplicateMemberEmail,
    /// The password does not match.
    #[error("the password is wrong")]
    NotMatchPassword,
    /// The session is not that of the member.
    #[error("the member is not signed in")]
    MemberNotSigned,
}

impl Aggregate for Member {
    const NAME: &'static str = "member";
    type Event = MemberEvent;

    fn initial(_id: &str) -> Self {
        Self::default()
    }

    fn evolve(&mut self, event: &MemberEvent) {
        match (&mut *self, event) {
            (_, MemberEvent::Registered { name, email, address, password }) => {
                *self = Self::Active(Box::new(Account {
                    name: name.clone(),
                    email: email.clone(),
                    address: address.clone(),
                    profile: None,
                    password: password.clone(),
                    session: None,
                }));
            }
            (_, MemberEvent::Withdrawn) => *self = Self::Withdrawn,
            (Self::Active(account), event) => account.evolve(event),
            (Self::Nobody | Self::Withdrawn, _) => {}
        }
    }
}

impl Account {
    fn evolve(&mut self, event: &MemberEvent) {
        match event {
            MemberEvent::Renamed { name } => self.name.clone_from(name),
            MemberEvent::EmailChanged { email } => self.email.clone_from(email),
            MemberEvent::AddressChanged { address } => self.address = Some(address.clone()),
            MemberEvent::ProfileChanged { profile } => self.profile = Some(profile.clone()),
            MemberEvent::PasswordChanged { password } => {
                self.password = Some(password.clone());
                self.session = None;
            }
            MemberEvent::LoggedIn { session } => self.session = Some(session.clone()),
            MemberEvent::LoggedOut => self.session = None,
            MemberEvent::Registered { .. } | MemberEvent::Withdrawn => {}
        }
    }
}

impl Member {
    /// The data of the member.
    ///
    /// # Errors
    /// [`MemberRefused::NotExistsMember`] if there is no member with this id, or no longer.
    pub fn account(&self) -> Result<&Account, MemberRefused> {
        match self {
            Self::Active(account) => Ok(account),
            Self::Nobody | Self::Withdrawn => Err(MemberRefused::NotExistsMember),
        }
    }

    /// The hash of the member's password, if there is one.
    ///
    /// # Errors
    /// As [`account`](Self::account).
    pub fn password(&self) -> Result<Option<&PasswordHash>, MemberRefused> {
        Ok(self.account()?.password.as_ref())
    }

    /// The data of the member, if this is its session.
    ///
    /// # Errors
    /// As [`account`](Self::account), or [`MemberRefused::MemberNotSigned`].
    pub fn signed_in(&self, session: &SessionDigest) -> Result<&Account, MemberRefused> {
        let account = self.account()?;
        let own = account.session.as_ref() == Some(session);
        if own { Ok(account) } else { Err(MemberRefused::MemberNotSigned) }
    }
}

type Decided = Decision<Member, MemberRefused>;

impl Decide<Register> for Member {
    type Error = MemberRefused;
    fn decide(&self, command: &Register, _: &Context) -> Decided {
        if *self != Self::Nobody {
            return reject(MemberRefused::DuplicateMemberId);
        }
        let Register { name, email, address, password, .. } = command.clone();
        emit(MemberEvent::Registered { name, email, address, password })
    }
}

impl Decide<ChangeName> for Member {
    type Error = MemberRefused;
    fn decide(&self, ChangeName(name): &ChangeName, _: &Context) -> Decided {
        if self.account()?.name == *name {
            return no_events();
        }
        emit(MemberEvent::Renamed { name: name.clone() })
    }
}

impl Decide<ChangeEmail> for Member {
    type Error = MemberRefused;
    fn decide(&self, ChangeEmail(email): &ChangeEmail, _: &Context) -> Decided {
        if self.account()?.email == *email {
            return no_events();
        }
        emit(MemberEvent::EmailChanged { email: email.clone() })
    }
}

impl Decide<ChangeAddress> for Member {
    type Error = MemberRefused;
    fn decide(&self, ChangeAddress(address): &ChangeAddress, _: &Context) -> Decided {
        if self.account()?.address.as_ref() == Some(address) {
            return no_events();
        }
        emit(MemberEvent::AddressChanged { address: address.clone() })
    }
}

impl Decide<ChangeProfile> for Member {
    type Error = MemberRefused;
    fn decide(&self, ChangeProfile(profile): &ChangeProfile, _: &Context) -> Decided {
        if self.account()?.profile.as_ref() == Some(profile) {
            return no_events();
        }
        emit(MemberEvent::ProfileChanged { profile: profile.clone() })
    }
}

impl Decide<ChangePassword> for Member {
    type Error = MemberRefused;
    fn decide(&self, ChangePassword { matched, new }: &ChangePassword, _: &Context) -> Decided {
        if !self.password()?.is_some_and(|present| matched.is(present)) {
            return reject(MemberRefused::NotMatchPassword);
        }
        emit(MemberEvent::PasswordChanged { password: new.clone() })
    }
}

impl Decide<Withdraw> for Member {
    type Error = MemberRefused;
    fn decide(&self, _: &Withdraw, _: &Context) -> Decided {
        self.account()?;
        emit(MemberEvent::Withdrawn)
    }
}

impl Decide<LogIn> for Member {
    type Error = MemberRefused;
    fn decide(&self, LogIn { matched, session }: &LogIn, _: &Context) -> Decided {
        if !self.password()?.is_some_and(|present| matched.is(present)) {
            return reject(MemberRefused::NotMatchPassword);
        }
        emit(MemberEvent::LoggedIn { session: session.clone() })
    }
}

impl Decide<LogOut> for Member {
    type Error = MemberRefused;
    fn decide(&self, LogOut { session }: &LogOut, _: &Context) -> Decided {
        self.signed_in(session)?;
        emit(MemberEvent::LoggedOut)
    }
}
