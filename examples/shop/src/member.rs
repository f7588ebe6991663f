//! The member service: registration, contact data and authentication of members.
//!
//! ```text
//! command.rs     the commands of a member
//! ../events/     its events
//! aggregate.rs   its decisions and its state
//! address.rs     an e-mail address, which belongs to one member at a time
//! registry.rs    changes of a member and an address at once: registration, another address, withdrawal
//! view.rs        the list of members
//! rest.rs        the HTTP routes
//! ```
//!
//! - M1  No two members have the same e-mail address at the same time, even with concurrent registrations. An
//!   address has its own stream, changed in the same append as the member; so no search is needed.
//! - M2  No event, log or command contains a password, only its hash (`values/password.rs`).

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

    /// Executes a command that changes only a member.
    ///
    /// # Errors
    /// [`MemberRefused`], or as the framework returns.
    pub async fn give<C>(&self, id: &MemberId, command: C, caller: &Caller) -> Answer
    where
        Member: Decide<C, Error = MemberRefused>,
        C: Send + Sync + 'static,
    {
        let done = caller.says(self.members.execute(id, command)).await?;
        Ok(Done::of(id, &done))
    }

    /// Logs a member in. Requests with the token are those of the member until the next login or logout.
    ///
    /// # Errors
    /// [`MemberRefused::NotMatchPassword`] among others.
    pub async fn log_in(&self, id: &MemberId, password: Password, caller: &Caller) -> Answer<(Done, Token)> {
        let matched = self.matched(id, password).await?;
        let token = Token::generate();
        let command = LogIn { matched, session: token.digest() };
        Ok((self.give(id, command, caller).await?, token))
    }

    /// Changes the password of a member, if the current one is right. It ends the session.
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

    /// The proof that a password matches the hash of the member. The check is slow on purpose, so it is done
    /// outside of the decision; the decision checks that the hash is still that of the member.
    async fn matched(&self, id: &MemberId, password: Password) -> Answer<Matched> {
        let hash = self.members.load(id).await?.state.password().map_err(ExecuteError::Rejected)?.cloned();
        let matched = match hash {
            Some(hash) => password.matches(hash).await,
            None => None,
        };
        matched.ok_or(ExecuteError::Rejected(MemberRefused::NotMatchPassword))
    }

    /// Its HTTP routes.
    pub fn router(&self) -> Router {
        rest::router(self.clone())
    }
}
