//! Credits are granted, and voided while nothing of them is used.

use domain::money::Currency;
use domain::partner::credit::CreditReason;
use runtime::api::Error;
use runtime::api::values::{Moment, PlainText};
use serde::Deserialize;
use store::credits::{self, Credit, NewCredit};
use utoipa::ToSchema;

use crate::write::Write;

/// The largest credit, in minor units: sums of many fit.
const LARGEST_CENTS: i64 = 1_000_000_000_000_000;

/// A credit to be granted, to a user or to a partner.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantCredit {
    /// Whose: `users.id` of the host application. Exactly one of this and `api_key_prefix`.
    pub user_id: Option<i32>,
    /// Whose: the prefix of a partner's API key.
    pub api_key_prefix: Option<PlainText>,
    /// What is granted, in minor units of `currency`.
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000_i64)]
    pub amount_cents: i64,
    pub currency: Currency,
    pub reason: CreditReason,
    pub description: Option<PlainText>,
    /// When it expires, a future instant; never when not given.
    pub expires_at: Option<Moment>,
}

impl GrantCredit {
    /// What a type cannot say: exactly one owner, an amount within range.
    ///
    /// # Errors
    /// Names the member at fault.
    pub fn check(&self) -> Result<(), Error> {
        match (self.user_id, &self.api_key_prefix) {
            (Some(_), Some(_)) => {
                let detail = "a credit is a user's or a partner's";
                return Err(Error::invalid_member("api_key_prefix", detail));
            }
            (None, None) => {
                let detail = "it, or api_key_prefix, is missing";
                return Err(Error::invalid_member("user_id", detail));
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        if (1..=LARGEST_CENTS).contains(&self.amount_cents) {
            return Ok(());
        }
        let detail = format!("a whole number from 1 to {LARGEST_CENTS}");
        Err(Error::invalid_member("amount_cents", detail))
    }
}

/// Grants a credit that was checked.
///
/// # Errors
/// Names `expires_at` when that has passed, and the owner when there is no such user or contract.
pub async fn grant(cx: Write<'_>, credit: GrantCredit) -> Result<Credit, Error> {
    let expires_at = credit.expires_at.map(|Moment(at)| at);
    // Not before: the same request gets its first answer also when the credit has expired since.
    if expires_at.is_some_and(|expiry| expiry <= cx.now) {
        return Err(Error::invalid_member("expires_at", "an instant to come"));
    }
    let new = NewCredit {
        user_id: credit.user_id,
        api_key_prefix: credit.api_key_prefix.as_ref().map(PlainText::as_str),
        amount_cents: credit.amount_cents,
        currency: credit.currency,
        reason: credit.reason,
        description: credit.description.as_ref().map(PlainText::as_str),
        expires_at,
        created_by: cx.actor,
    };
    let Some(id) = credits::insert(cx.db, &new, cx.now).await? else {
        return Err(match credit.user_id {
            Some(_) => Error::invalid_member("user_id", "there is no such user"),
            None => Error::invalid_member("api_key_prefix", "no contract has this prefix"),
        });
    };
    let credit = credits::lock(cx.db, id).await?.ok_or(Error::NotFound)?;
    cx.audit("credit.create", format!("credit:{id}"), (), &credit)
        .await?;
    Ok(credit)
}

runtime::refusals! {
    /// Why a credit is not voided.
    pub enum VoidCreditError {
        /// Something of it was taken off an invoice.
        Used = 409 "credit_used" "something of this credit has been used",
        /// The credit was voided earlier; voiding it again changes nothing.
        Voided = 409 "credit_voided" "this credit was voided before",
    }
}

/// Takes a credit back of which nothing has been used.
///
/// # Errors
/// When there is no such credit, or it cannot be taken back any more.
pub async fn void(cx: Write<'_>, id: i64) -> Result<Credit, VoidCreditError> {
    let before = credits::lock(cx.db, id).await?.ok_or(Error::NotFound)?;
    if !credits::void(cx.db, id, cx.now).await? {
        return Err(match before.voided_at {
            None => VoidCreditError::Used,
            Some(_) => VoidCreditError::Voided,
        });
    }
    let after = credits::lock(cx.db, id).await?.ok_or(Error::NotFound)?;
    cx.audit("credit.void", format!("credit:{id}"), &before, &after)
        .await?;
    Ok(after)
}
