//! `/admin/drafts…`: invoices to partners that wait until somebody has looked at them.

use std::sync::Arc;

use axum::extract::State;
use domain::partner::draft::DraftReason;
use runtime::api::Error;
use runtime::api::extract::{Json, Now, Query};
use runtime::api::list::ListOf;
use serde::Deserialize;
use shared::actions::drafts::{
    self as actions, ApproveDrafts, ApproveDraftsError, ApprovedInvoices, WaiveDraft,
    WaiveDraftError, WaivedPeriod,
};
use shared::partner_billing::{self, DraftInvoice};
use shared::write::{Writer, Written};
use store::contracts;
use utoipa::IntoParams;

use crate::Clients;

/// Contracts whose ids are read at once.
const PER_READ: i64 = 500;

/// Which drafts are shown.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct DraftsQuery {
    /// Only those of the contract with this number.
    #[param(minimum = 1)]
    contract_id: Option<i64>,
    /// Only those that wait for this reason.
    #[param(inline)]
    reason: Option<DraftReason>,
}

/// Lists the drafts that wait, computed now, contract by contract and oldest first. A contract that cannot be rated has
/// none: the run says why.
#[utoipa::path(get, path = "/admin/drafts")]
pub(crate) async fn list(
    State(app): State<Arc<Clients>>,
    Query(asked): Query<DraftsQuery>,
    Now(now): Now,
) -> Result<Json<ListOf<DraftInvoice>>, Error> {
    let client = app.database.client().await?;
    let db = &**client;
    let mut rows = Vec::new();
    let mut ids: Vec<i64> = asked.contract_id.into_iter().collect();
    if asked.contract_id.is_none() {
        let mut after = 0;
        loop {
            let page = contracts::ids_after(db, after, PER_READ).await?;
            let Some(last) = page.last() else { break };
            after = *last;
            ids.extend(page);
        }
    }
    for id in ids {
        let Some(read) = contracts::find(db, id).await? else {
            continue;
        };
        let Ok(contract) = read.contract(now) else {
            continue;
        };
        match partner_billing::drafts(db, &contract, &app.draft_rules, now).await {
            Ok(drafts) => {
                let waiting = drafts.drafts.iter();
                let waiting = waiting.filter(|draft| match asked.reason {
                    None => draft.reason.is_some(),
                    reason => draft.reason == reason,
                });
                rows.extend(waiting.map(|draft| DraftInvoice::new(id, draft)));
            }
            Err(partner_billing::Error::Store(error)) => return Err(error.into()),
            Err(_told_by_the_run) => {}
        }
    }
    Ok(Json(ListOf::new::<i64>(rows, None)?))
}

/// Issues drafts of one contract, oldest first: all of them, or none when one has changed since it was listed. PDFs and
/// what Stripe collects follow with the next run.
#[utoipa::path(post, path = "/admin/drafts/approve")]
pub(crate) async fn approve(
    State(app): State<Arc<Clients>>,
    writer: Writer,
    Json(approved): Json<ApproveDrafts>,
) -> Result<Written<ApprovedInvoices>, ApproveDraftsError> {
    let rules = app.draft_rules;
    writer
        .run(|cx| Box::pin(actions::approve(cx, approved, rules)))
        .await
}

/// Ends a draft: its period is never billed, or never corrected.
#[utoipa::path(post, path = "/admin/drafts/waive")]
pub(crate) async fn waive(
    State(app): State<Arc<Clients>>,
    writer: Writer,
    Json(waived): Json<WaiveDraft>,
) -> Result<Written<WaivedPeriod>, WaiveDraftError> {
    let rules = app.draft_rules;
    writer
        .run(|cx| Box::pin(actions::waive(cx, waived, rules)))
        .await
}
