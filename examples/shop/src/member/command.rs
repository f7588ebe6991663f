//! The commands of a member.

use super::{Matched, PasswordHash};
use crate::form::{Form, FromForm};
use crate::session::SessionDigest;
use crate::values::{Address, Email, MemberId, Name, Profile};

/// Registers a member.
#[derive(Clone, Debug)]
pub struct Register {
    /// The id.
    pub id: MemberId,
    /// The name.
    pub name: Name,
    /// The e-mail address.
    pub email: Email,
    /// The postal address, if it is given.
    pub address: Option<Address>,
    /// The hash of the password. An imported member may have none, and cannot log in.
    pub password: Option<PasswordHash>,
}

/// Changes the name.
#[derive(Clone, Debug)]
pub struct ChangeName(pub Name);

/// Changes the e-mail address.
#[derive(Clone, Debug)]
pub struct ChangeEmail(pub Email);

/// Changes the postal address.
#[derive(Clone, Debug)]
pub struct ChangeAddress(pub Address);

/// Changes the member's text about itself.
#[derive(Clone, Debug)]
pub struct ChangeProfile(pub Profile);

/// Changes the password.
#[derive(Clone, Debug)]
pub struct ChangePassword {
    /// The proof that the caller knows the current password.
    pub matched: Matched,
    /// The hash of the new password.
    pub new: PasswordHash,
}

/// Ends the membership.
#[derive(Clone, Copy, Debug)]
pub struct Withdraw;

/// Begins a session, and ends an earlier one.
#[derive(Clone, Debug)]
pub struct LogIn {
    /// The proof that the caller knows the password.
    pub matched: Matched,
    /// The digest of the session's token.
    pub session: SessionDigest,
}

/// Ends this session.
#[derive(Clone, Debug)]
pub struct LogOut {
    /// The digest of the session's token.
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
