//! The member service over HTTP.
//!
//! Registration and login need no session; all other requests about a member need its session.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;

use super::{
    ChangeAddress, ChangeEmail, ChangeName, ChangeProfile, LogOut, Member, MemberRefused, MemberRow,
    MemberService, Password, Register, view,
};
use crate::form::{Form, FromForm};
use crate::http::{AtLeast, Caller, Checked, Done, Page, Problem, Refusals};
use crate::session::{self, SessionDigest};
use crate::values::{Address, Email, MemberId, Name};

pub(super) fn router(service: MemberService) -> Router {
    Router::new()
        .route("/members", post(register).get(list))
        .route("/members/{id}", get(one))
        .route("/members/{id}/name", post(give::<ChangeName>))
        .route("/members/{id}/email", post(change_email))
        .route("/members/{id}/address", post(give::<ChangeAddress>))
        .route("/members/{id}/profile", post(give::<ChangeProfile>))
        .route("/members/{id}/password", post(change_password))
        .route("/members/{id}/login", post(log_in))
        .route("/members/{id}/logout", post(log_out))
        .route("/members/{id}/withdrawal", post(withdraw))
        .with_state(service)
}

impl Refusals for MemberRefused {
    fn status(code: &str) -> StatusCode {
        match code {
            "not-exists-member" => StatusCode::NOT_FOUND,
            "duplicate-member-id" | "duplicate-member-email" => StatusCode::CONFLICT,
            "member-not-signed" => StatusCode::UNAUTHORIZED,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}

/// The form of a registration.
struct RegistrationForm {
    id: MemberId,
    name: Name,
    email: Email,
    address: Option<Address>,
    password: Password,
}

impl FromForm for RegistrationForm {
    fn from_form(form: &mut Form) -> Option<Self> {
        let (id, name, email) = (form.field("id"), form.field("name"), form.field("email"));
        let (address, password) = (form.optional("address"), form.field("password"));
        Some(Self { id: id?, name: name?, email: email?, address: address?, password: password? })
    }
}

/// The form of a login.
struct LoginForm(Password);

impl FromForm for LoginForm {
    fn from_form(form: &mut Form) -> Option<Self> {
        form.field("password").map(Self)
    }
}

/// The form of a change of the password.
struct PasswordForm {
    present: Password,
    new: Password,
}

impl FromForm for PasswordForm {
    fn from_form(form: &mut Form) -> Option<Self> {
        let (present, new) = (form.field("present"), form.field("new"));
        Some(Self { present: present?, new: new? })
    }
}

/// The response to a login.
#[derive(Serialize)]
struct LoggedIn {
    #[serde(flatten)]
    done: Done,
    /// The token to send as `Authorization: Bearer …`.
    session: session::Token,
}

async fn register(
    State(service): State<MemberService>,
    caller: Caller,
    Checked(form): Checked<RegistrationForm>,
) -> Result<Done, Problem> {
    let RegistrationForm { id, name, email, address, password } = form;
    let password = Some(password.hash().await);
    Ok(service.register(&Register { id, name, email, address, password }, &caller).await?)
}

async fn give<C>(
    State(service): State<MemberService>,
    Path(id): Path<String>,
    caller: Caller,
    Checked(command): Checked<C>,
) -> Result<Done, Problem>
where
    Member: annals::Decide<C, Error = MemberRefused>,
    C: FromForm + Send + Sync + 'static,
{
    let (id, _, caller) = service.signed_in(&id, caller).await?;
    Ok(service.give(&id, command, &caller).await?)
}

async fn change_email(
    State(service): State<MemberService>,
    Path(id): Path<String>,
    caller: Caller,
    Checked(command): Checked<ChangeEmail>,
) -> Result<Done, Problem> {
    let (id, _, caller) = service.signed_in(&id, caller).await?;
    Ok(service.change_email(&id, &command, &caller).await?)
}

async fn withdraw(
    State(service): State<MemberService>,
    Path(id): Path<String>,
    caller: Caller,
) -> Result<Done, Problem> {
    let (id, _, caller) = service.signed_in(&id, caller).await?;
    Ok(service.withdraw(&id, &caller).await?)
}

async fn log_out(
    State(service): State<MemberService>,
    Path(id): Path<String>,
    caller: Caller,
) -> Result<Done, Problem> {
    let (id, session, caller) = service.signed_in(&id, caller).await?;
    Ok(service.give(&id, LogOut { session }, &caller).await?)
}

async fn change_password(
    State(service): State<MemberService>,
    Path(id): Path<String>,
    caller: Caller,
    Checked(PasswordForm { present, new }): Checked<PasswordForm>,
) -> Result<Done, Problem> {
    let (id, _, caller) = service.signed_in(&id, caller).await?;
    Ok(service.change_password(&id, present, new, &caller).await?)
}

async fn log_in(
    State(service): State<MemberService>,
    Path(id): Path<String>,
    caller: Caller,
    Checked(LoginForm(password)): Checked<LoginForm>,
) -> Result<impl IntoResponse, Problem> {
    let id = MemberId::new(&id).map_err(|_| MemberRefused::NotExistsMember)?;
    // A token is returned only once, so the idempotency key of a login is ignored.
    let caller = Caller { by: Some(format!("member:{id}")), key: None, ..caller };
    let (done, session) = service.log_in(&id, password, &caller).await?;
    let position = [("position", done.witness.to_string())];
    Ok((position, Json(LoggedIn { done, session })))
}

async fn list(
    State(service): State<MemberService>,
    AtLeast(position): AtLeast,
    page: Page,
) -> Result<Json<Vec<MemberRow>>, Problem> {
    let view = service.annals.view().at_least(position);
    Ok(Json(view::page(&view, page).await?))
}

async fn one(
    State(service): State<MemberService>,
    Path(id): Path<String>,
    AtLeast(position): AtLeast,
) -> Result<Json<MemberRow>, Problem> {
    let row = view::one(&service.annals.view().at_least(position), &id).await?;
    Ok(Json(row.ok_or(MemberRefused::NotExistsMember)?))
}

impl MemberService {
    /// The member in the path, if the request has the session of that member.
    async fn signed_in(
        &self,
        id: &str,
        caller: Caller,
    ) -> Result<(MemberId, SessionDigest, Caller), Problem> {
        let id = MemberId::new(id).map_err(|_| MemberRefused::NotExistsMember)?;
        let member = self.members.load(&id).await?.state;
        let session = caller.session.as_deref().ok_or(MemberRefused::MemberNotSigned)?;
        let session = session::digest(session);
        member.signed_in(&session)?;
        let caller = Caller { by: Some(format!("member:{id}")), ..caller };
        Ok((id, session, caller))
    }
}
