//! `reconciliation.backfill`: an account's whole history, from Stripe's lists into the ledger.
//!
//! One kind of object after the other, a page at a time; each page is one slice: its objects and
//! the place behind them commit together, so that a run that is killed goes on where it was, and
//! two runs at once do no slice twice. What the ledger needs to compute with comes first (prices,
//! coupons), then who (customers), then what names them.
//!
//! What the objects tell is right as of each past month: payments, fees, refunds and disputes by
//! their own dates; a subscription from its creation or the end of its trial to its end. They do
//! not tell how a subscription changed in between: it is taken to have been as it is now.

use std::collections::BTreeMap;

use jiff::Timestamp;
use runtime::telemetry::{cause_chain, log_failure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shared::ledger;
use store::import_cursors;
use stripe::client::{Error as StripeError, Page};

use crate::{App, Deadline, fetch};

/// One list of Stripe's.
struct Kind {
    /// Its name, as the summary has it.
    name: &'static str,
    path: &'static [&'static str],
    /// What to expand, the newest shape first.
    expansions: &'static [&'static [&'static str]],
    /// Whether `since` applies: what was created before may still be paid for today.
    is_dated: bool,
}

const PLAIN: &[&[&str]] = &[&[]];

const KINDS: [Kind; 14] = [
    Kind {
        name: "prices",
        path: &["prices"],
        expansions: &[&["data.tiers"]],
        is_dated: false,
    },
    Kind {
        name: "coupons",
        path: &["coupons"],
        expansions: &[
            &["data.applies_to", "data.currency_options"],
            &["data.applies_to"],
        ],
        is_dated: false,
    },
    Kind {
        name: "customers",
        path: &["customers"],
        expansions: PLAIN,
        is_dated: false,
    },
    Kind {
        name: "subscriptions",
        path: &["subscriptions"],
        expansions: &[
            &["data.discounts.source.coupon", "data.items.data.discounts"],
            &["data.discounts", "data.items.data.discounts"],
            &[],
        ],
        is_dated: false,
    },
    Kind {
        name: "checkout/sessions",
        path: &["checkout", "sessions"],
        expansions: PLAIN,
        is_dated: false,
    },
    Kind {
        name: "invoices",
        path: &["invoices"],
        expansions: &[&["data.payments"], &[]],
        is_dated: true,
    },
    Kind {
        name: "charges",
        path: &["charges"],
        expansions: &[&["data.balance_transaction", "data.refunds"]],
        is_dated: true,
    },
    Kind {
        name: "payment_intents",
        path: &["payment_intents"],
        expansions: PLAIN,
        is_dated: true,
    },
    Kind {
        name: "refunds",
        path: &["refunds"],
        expansions: PLAIN,
        is_dated: true,
    },
    Kind {
        name: "disputes",
        path: &["disputes"],
        expansions: PLAIN,
        is_dated: true,
    },
    Kind {
        name: "credit_notes",
        path: &["credit_notes"],
        expansions: PLAIN,
        is_dated: true,
    },
    Kind {
        name: "tax_rates",
        path: &["tax_rates"],
        expansions: PLAIN,
        is_dated: false,
    },
    Kind {
        name: "payouts",
        path: &["payouts"],
        expansions: PLAIN,
        is_dated: true,
    },
    Kind {
        name: "balance_transactions",
        path: &["balance_transactions"],
        expansions: PLAIN,
        is_dated: true,
    },
];

/// Where an import is: what `import_cursors.state` holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Place {
    /// How many kinds of objects have been imported to their end.
    kinds_done: usize,
    /// The last object of the kind under way; none at its beginning.
    after: Option<String>,
    /// Number of objects applied to the ledger, by kind.
    imported: BTreeMap<String, u64>,
    /// Number of objects that could not be applied, by kind; the log names them.
    refused: BTreeMap<String, u64>,
}

/// What an invocation answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Whether nothing is left to import.
    pub finished: bool,
    /// The kind whose import was interrupted; absent when finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// The last object of that kind that is in the ledger; absent at the beginning of a kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Number of objects applied so far, by kind, over all invocations of this import.
    pub imported: BTreeMap<String, u64>,
    /// Number of objects that could not be applied, by kind; the log says which and why.
    pub refused: BTreeMap<String, u64>,
    /// Why it is not finished. An invocation with the same detail goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

/// Why an invocation failed. The slices before it are committed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the detail cannot be read: {0}")]
    Detail(&'static str),
    #[error("the database is away")]
    Database(#[from] store::Error),
}

/// `{"since": instant, "restart": true}`, both optional: since when money is imported, and
/// whether to restart an import that is finished.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Detail {
    since: Option<Timestamp>,
    #[serde(default)]
    restart: bool,
}

/// Goes on with the import that the detail names, until it is finished, the deadline, or Stripe
/// does not answer.
///
/// # Errors
/// When the detail cannot be read or the database is away.
pub(crate) async fn run(
    app: &App,
    detail: &Value,
    now: Timestamp,
    deadline: Deadline,
) -> Result<Summary, Error> {
    let detail = Option::<Detail>::deserialize(detail)
        .map_err(|_names_values| Error::Detail("{\"since\"?: instant, \"restart\"?: true}"))?
        .unwrap_or_default();
    let name = match detail.since {
        Some(since) => format!("backfill:{since}"),
        None => "backfill".to_owned(),
    };
    let import = Import {
        app,
        name,
        since: detail.since,
        now,
    };
    if detail.restart {
        import.begin_anew().await?;
    }
    let (place, stopped) = import.go_on(deadline).await?;
    let kind = KINDS.get(place.kinds_done).map(|kind| kind.name);
    let summary = Summary {
        finished: kind.is_none(),
        kind,
        after: place.after,
        imported: place.imported,
        refused: place.refused,
        stopped,
    };
    tracing::info!(summary = %json!(summary), "the import came so far");
    Ok(summary)
}

struct Import<'a> {
    app: &'a App,
    name: String,
    since: Option<Timestamp>,
    now: Timestamp,
}

impl Import<'_> {
    async fn go_on(&self, deadline: Deadline) -> Result<(Place, Option<String>), Error> {
        loop {
            let stored = self.stored().await?;
            let place = Place::deserialize(&stored)
                .map_err(|_unreadable| Error::Detail("the stored place cannot be read"))?;
            let Some(kind) = KINDS.get(place.kinds_done) else {
                return Ok((place, None));
            };
            if deadline.is_reached() {
                return Ok((place, Some("the time was up".to_owned())));
            }
            if !self.app.has_stripe_key() {
                return Ok((place, Some("STRIPE_API_KEY is not configured".to_owned())));
            }
            let page = match self.page(kind, place.after.as_deref()).await {
                Ok(page) => page,
                // What it stands at is gone since: the kind is read again, which changes nothing.
                Err(StripeError::Invalid { param, .. })
                    if param.as_deref() == Some("starting_after") && place.after.is_some() =>
                {
                    let mut again = place.clone();
                    again.after = None;
                    self.advance(&stored, &again, None).await?;
                    continue;
                }
                Err(error) => {
                    metrics::counter!("failures").increment(1);
                    log_failure("Stripe's history could not be read", &error);
                    return Ok((place, Some(cause_chain(&error))));
                }
            };
            self.slice(kind, &stored, &place, page).await?;
        }
    }

    /// Forgets the place of an import that is finished. One that is under way goes on: each invocation after the one
    /// that restarted it has the same detail.
    async fn begin_anew(&self) -> Result<(), store::Error> {
        let client = self.app.database.client().await?;
        let cursor = import_cursors::get(&**client, &self.name).await?;
        let place = cursor.and_then(|cursor| Place::deserialize(&cursor.state).ok());
        if place.is_none_or(|place| place.kinds_done >= KINDS.len()) {
            import_cursors::delete(&**client, &self.name).await?;
        }
        Ok(())
    }

    async fn stored(&self) -> Result<Value, store::Error> {
        let client = self.app.database.client().await?;
        let beginning = json!(Place::default());
        import_cursors::insert(&**client, &self.name, &beginning, self.now).await?;
        let cursor = import_cursors::get(&**client, &self.name).await?;
        Ok(cursor.map_or(beginning, |cursor| cursor.state))
    }

    async fn advance(
        &self,
        stored: &Value,
        to: &Place,
        finished_at: Option<Timestamp>,
    ) -> Result<(), store::Error> {
        let client = self.app.database.client().await?;
        let step = (stored, &json!(to));
        import_cursors::advance(&**client, &self.name, step, finished_at, self.now).await?;
        Ok(())
    }

    /// The next page of a kind, each object with what belongs to it.
    async fn page(&self, kind: &Kind, after: Option<&str>) -> Result<Page, StripeError> {
        let mut params = Map::new();
        if let Some(after) = after {
            params.insert("starting_after".to_owned(), after.into());
        }
        if let Some(since) = self.since.filter(|_| kind.is_dated) {
            params.insert("created".to_owned(), json!({"gte": since.as_second()}));
        }
        match kind.name {
            // Stripe leaves the canceled ones out otherwise.
            "subscriptions" => params.insert("status".to_owned(), "all".into()),
            // One that was never completed bought nothing.
            "checkout/sessions" => params.insert("status".to_owned(), "complete".into()),
            _ => None,
        };
        let mut page = self.expanded(kind, params).await?;
        if kind.name == "coupons" {
            page.data = page.data.into_iter().map(fetch::terms).collect();
        }
        if kind.name == "invoices" {
            for invoice in &mut page.data {
                fetch::complete_invoice(&self.app.stripe, invoice, self.now).await?;
            }
        }
        if page.has_more
            && page
                .data
                .last()
                .and_then(|last| last["id"].as_str())
                .is_none()
        {
            return Err(StripeError::Unreadable("a list goes on from nowhere"));
        }
        Ok(page)
    }

    async fn expanded(
        &self,
        kind: &Kind,
        mut params: Map<String, Value>,
    ) -> Result<Page, StripeError> {
        let mut refused = None;
        for expand in kind.expansions {
            if expand.is_empty() {
                params.remove("expand");
            } else {
                params.insert("expand".to_owned(), json!(expand));
            }
            match self.app.stripe.list(kind.path, &params, self.now).await {
                Err(error) if fetch::is_unknown_expansion(&error) => refused = Some(error),
                answer => return answer,
            }
        }
        Err(refused.unwrap_or(StripeError::Unreadable("nothing was asked")))
    }

    /// One page into the ledger, together with the place behind it.
    async fn slice(
        &self,
        kind: &Kind,
        stored: &Value,
        place: &Place,
        page: Page,
    ) -> Result<(), Error> {
        let mut next = place.clone();
        next.after = page
            .data
            .last()
            .and_then(|last| last["id"].as_str().map(str::to_owned));
        if !page.has_more {
            next.kinds_done += 1;
            next.after = None;
        }
        let finished_at = (next.kinds_done == KINDS.len()).then_some(self.now);
        let count = u64::try_from(page.data.len()).unwrap_or(u64::MAX);
        *next.imported.entry(kind.name.to_owned()).or_default() += count;
        match self.commit(stored, &next, &page.data, finished_at).await {
            Ok(()) => {}
            Err(ledger::Error::Store(error)) if error.is_unavailable() => return Err(error.into()),
            // One object spoils its page: each for itself then, and the page's place without them.
            Err(error) => {
                tracing::warn!(
                    kind = kind.name,
                    cause = cause_chain(&error),
                    "a page is applied object by object"
                );
                let refused = self.one_by_one(kind, &page.data).await?;
                *next.imported.entry(kind.name.to_owned()).or_default() -= refused;
                *next.refused.entry(kind.name.to_owned()).or_default() += refused;
                self.advance(stored, &next, finished_at).await?;
            }
        }
        tracing::info!(
            kind = kind.name,
            objects = count,
            after = next.after,
            "a slice of Stripe's history is in the ledger"
        );
        metrics::counter!("backfilled_objects", "kind" => kind.name).increment(count);
        Ok(())
    }

    /// All objects and the next place, or nothing. When another run has done the slice, nothing.
    async fn commit(
        &self,
        stored: &Value,
        next: &Place,
        objects: &[Value],
        finished_at: Option<Timestamp>,
    ) -> Result<(), ledger::Error> {
        const ATTEMPTS: u32 = 5;
        let mut attempt = 1;
        loop {
            let slice = async {
                let mut client = self.app.database.client().await?;
                let transaction = client.transaction().await.map_err(store::Error::from)?;
                let step = (stored, &json!(next));
                let is_ours =
                    import_cursors::advance(&*transaction, &self.name, step, finished_at, self.now);
                if is_ours.await? {
                    let estimate = self.app.fee_estimate;
                    ledger::apply_fetched(&transaction, objects, self.now, estimate).await?;
                    transaction.commit().await.map_err(store::Error::from)?;
                }
                Ok::<(), ledger::Error>(())
            };
            match slice.await {
                Err(error) if error.is_retryable() && attempt < ATTEMPTS => attempt += 1,
                other => return other,
            }
        }
    }

    /// How many objects could not be applied.
    async fn one_by_one(&self, kind: &Kind, objects: &[Value]) -> Result<u64, Error> {
        let mut refused = 0;
        for object in objects {
            let mut client = self.app.database.client().await?;
            let one = std::slice::from_ref(object);
            let applied =
                ledger::ingest_fetched(&mut client, one, self.now, self.app.fee_estimate).await;
            match applied {
                Ok(()) => {}
                Err(ledger::Error::Store(error)) if error.is_unavailable() => {
                    return Err(error.into());
                }
                Err(error) => {
                    refused += 1;
                    metrics::counter!("failures").increment(1);
                    tracing::error!(
                        kind = kind.name,
                        stripe_id = object["id"].as_str(),
                        cause = cause_chain(&error),
                        "an object of Stripe's history cannot be applied"
                    );
                }
            }
        }
        Ok(refused)
    }
}
