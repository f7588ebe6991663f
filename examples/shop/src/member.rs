//! The member service: who is a member, how to reach them, and whether they are who they say.
//!
//! ```text
//! command.rs     what can be asked of a member
//! ../events/     what can happen to one
//! aggregate.rs   what a member decides, and what becomes of it
//! address.rs     an e-mail address, which belongs to one member at a time
//! registry.rs    what changes a member and an address at once: registration, another address, withdrawal
//! view.rs        the list of members
//! rest.rs        all of it over HTTP
//! ```
//!
//! - M1  No two members have one e-mail address at the same time, however many register at once. An address is a
//!   stream of its own, changed in the same append as the member; so nothing has to be searched.
//! - M2  A password is in no event, no log and no command; only its hash is (`values/password.rs`).

mod address;
mod aggregate;
mod command;
mod registry;
mod rest;
mod view;

pub use address::{AddressEvent, Claim, MailAddress, Release};
pub use aggregate::{Member, MemberRefused};
pub use command::{
    ChangeAddress, ChangeEmail, ChangeName, ChangePassword, ChangeProfile, LogIn, LogOut, Register, Withdraw,
};
pub use view::{MemberRow, Members};

use annals::{Annals, Decide, ExecuteError, Repository, Result};
use axum::Router;

pub use crate::events::MemberEvent;
use crate::http::{Caller, Done};
use crate::session::Token;
use crate::values::MemberId;
pub use crate::values::{Matched, Password, PasswordHash};

type Answer<T = Done> = Result<T, ExecuteError<MemberRefused>>;

/// The member service.
#[derive(Clone)]
pub struct MemberService {
    annals: Annals,
    members: Repository<Member>,
}

impl MemberService {
    /// Starts it: its read model.
    ///
    /// # Errors
    /// If it is started already, or its read model cannot be used.
    pub async fn start(annals: &Annals) -> Result<Self> {
        annals.project(Members).start().await?;
        Ok(Self { annals: annals.clone(), members: annals.repository() })
    }

    /// Gives a command to a member, one that touches nothing else.
    ///
    /// # Errors
    /// [`MemberRefused`], or as the framework's.
    pub async fn give<C>(&self, id: &MemberId, command: C, caller: &Caller) -> Answer
    where
        Member: Decide<C, Error = MemberRefused>,
        C: Send + Sync + 'static,
    {
        let done = caller.says(self.members.execute(id, command)).await?;
        Ok(Done::of(id, &done))
    }

    /// Logs a member in. The bearer of the token is taken for the member until the next login or logout.
    ///
    /// # Errors
    /// [`MemberRefused::NotMatchPassword`] among others.
    pub async fn log_in(&self, id: &MemberId, password: Password, caller: &Caller) -> Answer<(Done, Token)> {
        let matched = self.matched(id, password).await?;
        let token = Token::generate();
        let command = LogIn { matched, session: token.digest() };
        Ok((self.give(id, command, caller).await?, token))
    }

    /// Gives a member another password, if the present one is right. It ends the session.
    ///
    /// # Errors
    /// [`MemberRefused::NotMatchPassword`] among others.
    pub async fn change_password(
        &self,
        id: &MemberId,
        present: Password,
        new: Password,
        caller: &Caller,
    ) -> Answer {
        let matched = self.matched(id, present).await?;
        self.give(id, ChangePassword { matched, new: new.hash().await }, caller).await
    }

    /// The hash that a member's password is found to match. The work is done outside of the decision, as it takes
    /// long on purpose; the decision looks whether it is still the member's.
    async fn matched(&self, id: &MemberId, password: Password) -> Answer<Matched> {
        let hash = self.members.load(id).await?.state.password().map_err(ExecuteError::Rejected)?.cloned();
        let matched = match hash {
            Some(hash) => password.matches(hash).await,
            None => None,
        };
        matched.ok_or(ExecuteError::Rejected(MemberRefused::NotMatchPassword))
    }

    /// What it serves over HTTP.
    pub fn router(&self) -> Router {
        rest::router(self.clone())
    }
}
