//! What changes a member and an e-mail address at once: registration, another address, withdrawal.
//!
//! Member and address are two aggregates, written in one append under both their versions. Of two who register with
//! one address at once, one append holds; the other decides again, sees whose the address is, and is refused.

use annals::ExecuteError;

use super::{
    Answer, ChangeEmail, Claim, MailAddress, Member, MemberRefused, MemberService, Register, Release,
    Withdraw,
};
use crate::http::{Caller, Done};
use crate::together::{ATTEMPTS, Outcome, Together};
use crate::values::MemberId;

impl MemberService {
    /// Makes somebody a member.
    ///
    /// # Errors
    /// [`MemberRefused::DuplicateMemberId`] and [`MemberRefused::DuplicateMemberEmail`], or as the framework's.
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

    /// Has a member reached at another address. The old one is free for others then.
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
            // The same address, written otherwise, stays the member's.
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

    /// Ends a membership. The address is free for others then, the id is not.
    ///
    /// # Errors
    /// [`MemberRefused::NotExistsMember`], or as the framework's.
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

    /// `None` if another command was faster.
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
