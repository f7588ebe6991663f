//! Commands that change a member and an e-mail address at once: registration, another address, withdrawal.
//!
//! Member and address are two aggregates, written in one append that expects both versions. Of two concurrent
//! registrations with one address, one append succeeds; the other decides again on the claimed address, and
//! is refused.

use annals::ExecuteError;

use super::{
    Answer, ChangeEmail, Claim, MailAddress, Member, MemberRefused, MemberService, Register, Release,
    Withdraw,
};
use crate::http::{Caller, Done};
use crate::together::{ATTEMPTS, Outcome, Together};
use crate::values::MemberId;

impl MemberService {
    /// Registers a member.
    ///
    /// # Errors
    /// [`MemberRefused::DuplicateMemberId`] and [`MemberRefused::DuplicateMemberEmail`], or as the framework
    /// returns.
    pub async fn register(&self, command: &Register, caller: &Caller) -> Answer {
        let id = &command.id;
        for _ in 0..ATTEMPTS {
            let mut together = self.together(id, caller)?;
            if let Some(before) = together.before().await? {
                return Ok(Done::appended(id, &before).created());
            }
            together.decide::<Member, _>(id.as_str(), command).await?;
            let claim = Claim(id.clone());
            together.decide::<MailAddress, _>(&command.email.digest(), &claim).await?;
            if let Some(done) = self.commit(id, together).await? {
                return Ok(done.created());
            }
        }
        Err(too_many_at_once(id))
    }

    /// Changes the e-mail address of a member. The old address becomes free for others.
    ///
    /// # Errors
    /// [`MemberRefused::DuplicateMemberEmail`] among others.
    pub async fn change_email(&self, id: &MemberId, command: &ChangeEmail, caller: &Caller) -> Answer {
        for _ in 0..ATTEMPTS {
            let mut together = self.together(id, caller)?;
            if let Some(before) = together.before().await? {
                return Ok(Done::appended(id, &before));
            }
            let member = together.decide::<Member, _>(id.as_str(), command).await?;
            let present = member.account().map_err(ExecuteError::Rejected)?.email.digest();
            // Another spelling of the same address remains claimed by the member.
            if present != command.0.digest() {
                together.decide::<MailAddress, _>(&present, &Release(id.clone())).await?;
                together.decide::<MailAddress, _>(&command.0.digest(), &Claim(id.clone())).await?;
            }
            if let Some(done) = self.commit(id, together).await? {
                return Ok(done);
            }
        }
        Err(too_many_at_once(id))
    }

    /// Ends a membership. The e-mail address becomes free for others, the id does not.
    ///
    /// # Errors
    /// [`MemberRefused::NotExistsMember`], or as the framework returns.
    pub async fn withdraw(&self, id: &MemberId, caller: &Caller) -> Answer {
        for _ in 0..ATTEMPTS {
            let mut together = self.together(id, caller)?;
            if let Some(before) = together.before().await? {
                return Ok(Done::appended(id, &before));
            }
            let member = together.decide::<Member, _>(id.as_str(), &Withdraw).await?;
            let present = member.account().map_err(ExecuteError::Rejected)?.email.digest();
            together.decide::<MailAddress, _>(&present, &Release(id.clone())).await?;
            if let Some(done) = self.commit(id, together).await? {
                return Ok(done);
            }
        }
        Err(too_many_at_once(id))
    }

    fn together<'a>(&'a self, id: &MemberId, caller: &'a Caller) -> Answer<Together<'a>> {
        Ok(Together::new(&self.annals, &format!("member-{id}"), caller)?)
    }

    /// Appends the decisions. `None` if an aggregate has changed meanwhile.
    async fn commit(&self, id: &MemberId, together: Together<'_>) -> Answer<Option<Done>> {
        Ok(match together.commit().await? {
            Outcome::Written(appended) => Some(Done::appended(id, &appended)),
            Outcome::Nothing => Some(Done::already(id, &self.members.load(id).await?)),
            Outcome::Stale => None,
        })
    }
}

fn too_many_at_once(id: &MemberId) -> ExecuteError<MemberRefused> {
    let cause = format!("others were faster {ATTEMPTS} times in a row, for member {id}");
    ExecuteError::Store(annals::Error::Unavailable(cause.into()))
}
