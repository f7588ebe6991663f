//! What can be asked of a member.

use super::{Matched, PasswordHash};
use crate::form::{Form, FromForm};
use crate::session::SessionDigest;
use crate::values::{Address, Email, MemberId, Name, Profile};

/// Become a member.
#[derive(Clone, Debug)]
pub struct Register {
    /// Under which id.
    pub id: MemberId,
    /// What the member is called.
    pub name: Name,
    /// How to reach the member.
    pub email: Email,
    /// Where the member lives, if that is said.
    pub address: Option<Address>,
    /// The hash of the member's password. One who comes from elsewhere may have none, and cannot log in.
    pub password: Option<PasswordHash>,
}

/// Be called something else.
#[derive(Clone, Debug)]
pub struct ChangeName(pub Name);

/// Be reached elsewhere.
#[derive(Clone, Debug)]
pub struct ChangeEmail(pub Email);

/// Live elsewhere.
#[derive(Clone, Debug)]
pub struct ChangeAddress(pub Address);

/// Say something else about oneself.
#[derive(Clone, Debug)]
pub struct ChangeProfile(pub Profile);

/// Use another password.
#[derive(Clone, Debug)]
pub struct ChangePassword {
    /// The proof that the present one is known.
    pub matched: Matched,
    /// The hash of the new one.
    pub new: PasswordHash,
}

/// Not be a member any more.
#[derive(Clone, Copy, Debug)]
pub struct Withdraw;

/// Begin a session; one that there was ends.
#[derive(Clone, Debug)]
pub struct LogIn {
    /// The proof that the password is known.
    pub matched: Matched,
    /// By what the session is recognised.
    pub session: SessionDigest,
}

/// End this session.
#[derive(Clone, Debug)]
pub struct LogOut {
    /// By what it is recognised.
    pub session: SessionDigest,
}

/// A form with one field.
macro_rules! one_field {
    ($($command:ident: $field:literal,)*) => {$(
        impl FromForm for $command {
            fn from_form(form: &mut Form) -> Option<Self> {
                form.field($field).map(Self)
            }
        }
    )*};
}
one_field! {
    ChangeName: "name",
    ChangeEmail: "email",
    ChangeAddress: "address",
    ChangeProfile: "profile",
}
