//! Drafts that wait are approved, which issues them, or waived, which ends them.

use domain::money::Currency;
use domain::partner::draft::{Draft, Rules};
use domain::partner::terms::StoredContract;
use jiff::Timestamp;
use runtime::api::Error;
use runtime::api::values::PlainText;
use serde::{Deserialize, Serialize};
use store::contracts;
use store::waived_periods;
use utoipa::ToSchema;

use crate::partner_billing::{self, DraftInvoice};
use crate::write::Write;

/// Most drafts of one approval: ten years of months.
const DRAFTS_MAX: usize = 120;

/// The drafts to issue, all of one contract.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveDrafts {
    #[schema(min_items = 1, max_items = 120)]
    drafts: Vec<ApprovedDraft>,
}

/// A draft as somebody has looked at it.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovedDraft {
    draft_id: String,
    /// As the list of drafts has it.
    sha256: String,
}

/// The invoices that an approval issued.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ApprovedInvoices {
    /// Oldest first.
    invoices: Vec<ApprovedInvoice>,
}

/// An invoice that an approval issued.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ApprovedInvoice {
    draft_id: String,
    invoice_id: i64,
    invoice_number: String,
    currency: Currency,
    /// In minor units of `currency`.
    total_cents: i64,
    /// What was taken from credits for it.
    credit_applied_cents: i64,
}

/// The draft that is never billed, and why.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WaiveDraft {
    draft_id: String,
    /// Why, for people.
    #[schema(value_type = String, min_length = 1)]
    reason: PlainText,
}

/// A period that is never billed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct WaivedPeriod {
    draft_id: String,
    contract_id: i64,
    /// First instant of the period.
    period_start: Timestamp,
    /// The instant after its last.
    period_end: Timestamp,
    reason: String,
    waived_at: Timestamp,
}

runtime::refusals! {
    /// Why drafts are not issued.
    pub enum ApproveDraftsError {
        /// One is another than was looked at, or is none any more; none is issued.
        Changed = 409 "draft_changed" "a draft has changed since it was listed: look at it again",
        /// As the predecessor may have left it.
        NotValid = 409 "contract_not_valid" "a member of this contract is not valid: change it first",
    }
}

runtime::refusals! {
    /// Why a draft is not waived.
    pub enum WaiveDraftError {
        /// It was issued, or never was one.
        NotFound = 404 "not_found" "there is no such draft",
        /// As the predecessor may have left it.
        NotValid = 409 "contract_not_valid" "a member of this contract is not valid: change it first",
    }
}

impl ApproveDrafts {
    /// The contract of all of them.
    fn contract_id(&self) -> Result<i64, Error> {
        if self.drafts.is_empty() || self.drafts.len() > DRAFTS_MAX {
            let expected = format!("1 to {DRAFTS_MAX} drafts");
            return Err(Error::invalid_member("drafts", expected));
        }
        let mut contract_id = None;
        for (place, approved) in self.drafts.iter().enumerate() {
            let field = format!("drafts[{place}].draft_id");
            let id = contract_of(&approved.draft_id)
                .ok_or_else(|| Error::invalid_member(field.clone(), "as drafts are listed"))?;
            if *contract_id.get_or_insert(id) != id {
                return Err(Error::invalid_member(field, "of the same contract"));
            }
            let before = &self.drafts[..place];
            if before
                .iter()
                .any(|other| other.draft_id == approved.draft_id)
            {
                return Err(Error::invalid_member(field, "each draft once"));
            }
        }
        contract_id.ok_or(Error::NotFound)
    }
}

/// The contract that a draft's id begins with.
fn contract_of(draft_id: &str) -> Option<i64> {
    let (contract, _) = draft_id.split_once(':')?;
    contract.parse().ok().filter(|id: &i64| *id > 0)
}

/// The drafts of a contract, which is locked from here on.
async fn locked(
    cx: &Write<'_>,
    contract_id: i64,
    rules: &Rules,
) -> Result<Option<(StoredContract, Vec<Draft>)>, partner_billing::Error> {
    let Some(read) = contracts::lock(cx.db, contract_id).await? else {
        return Ok(None);
    };
    let stored = partner_billing::store_terms(cx.db, &read, cx.now).await?;
    let drafts = partner_billing::drafts(cx.db, &stored, rules, cx.now).await?;
    Ok(Some((stored, drafts.drafts)))
}

impl From<partner_billing::Error> for ApproveDraftsError {
    fn from(error: partner_billing::Error) -> ApproveDraftsError {
        match error {
            partner_billing::Error::Store(error) => error.into(),
            partner_billing::Error::Invalid(_) | partner_billing::Error::Draft(_) => {
                ApproveDraftsError::NotValid
            }
        }
    }
}

impl From<partner_billing::Error> for WaiveDraftError {
    fn from(error: partner_billing::Error) -> WaiveDraftError {
        match error {
            partner_billing::Error::Store(error) => error.into(),
            partner_billing::Error::Invalid(_) | partner_billing::Error::Draft(_) => {
                WaiveDraftError::NotValid
            }
        }
    }
}

/// Issues drafts, oldest first, all or none.
///
/// # Errors
/// When one is another than was looked at.
pub async fn approve(
    mut cx: Write<'_>,
    approved: ApproveDrafts,
    rules: Rules,
) -> Result<ApprovedInvoices, ApproveDraftsError> {
    let contract_id = approved.contract_id()?;
    let drafts = locked(&cx, contract_id, &rules).await?;
    let (contract, drafts) = drafts.ok_or(ApproveDraftsError::Changed)?;
    let mut issued = Vec::with_capacity(approved.drafts.len());
    for draft in &drafts {
        let shown = DraftInvoice::new(contract.id, draft);
        let is_it = |approved: &&ApprovedDraft| approved.draft_id == shown.draft_id;
        let Some(looked_at) = approved.drafts.iter().find(is_it) else {
            continue;
        };
        if looked_at.sha256 != shown.sha256 {
            return Err(ApproveDraftsError::Changed);
        }
        let invoice = partner_billing::issue(cx.db, contract.id, draft, cx.now).await?;
        cx.publish(invoice.messages);
        issued.push(ApprovedInvoice {
            draft_id: shown.draft_id,
            invoice_id: invoice.id,
            invoice_number: invoice.number,
            currency: draft.bill.currency,
            total_cents: draft.bill.total_cents,
            credit_applied_cents: invoice.credit_applied_cents,
        });
    }
    if issued.len() != approved.drafts.len() {
        return Err(ApproveDraftsError::Changed);
    }
    let target = format!("contract:{}", contract.id);
    let invoices = ApprovedInvoices { invoices: issued };
    cx.audit("draft.approve", target, (), &invoices).await?;
    Ok(invoices)
}

/// Ends a draft: its period is never billed, or never corrected.
///
/// # Errors
/// When there is no such draft.
pub async fn waive(
    cx: Write<'_>,
    waived: WaiveDraft,
    rules: Rules,
) -> Result<WaivedPeriod, WaiveDraftError> {
    let contract_id = contract_of(&waived.draft_id).ok_or(WaiveDraftError::NotFound)?;
    let drafts = locked(&cx, contract_id, &rules).await?;
    let (contract, drafts) = drafts.ok_or(WaiveDraftError::NotFound)?;
    let is_it = |draft: &&Draft| partner_billing::draft_id(contract.id, draft) == waived.draft_id;
    let draft = drafts.iter().find(is_it).ok_or(WaiveDraftError::NotFound)?;
    let (period, reason) = (draft.period, waived.reason.as_str());
    waived_periods::insert(cx.db, contract.id, period, reason, cx.actor, cx.now).await?;
    let done = WaivedPeriod {
        draft_id: waived.draft_id.clone(),
        contract_id: contract.id,
        period_start: period.start,
        period_end: period.end,
        reason: reason.to_owned(),
        waived_at: cx.now,
    };
    let target = format!("contract:{}", contract.id);
    cx.audit("draft.waive", target, (), &done).await?;
    Ok(done)
}
