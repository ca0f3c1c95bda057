//! The ledger's two functions in the database: `open` archives events, locks what they touch and reads it; `close` writes
//! what they change. Postgres plans what is in a function once per session, and the text of a statement every time.
//!
//! They read, lock and write; what an event means is decided between them. Their text is made here, of the
//! descriptions of the mirrored tables, and checked in as a repeatable migration (`migrations/functions/ledger.sql`).

mod functions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_postgres::types::{Json, ToSql, Type};
use tokio_postgres::{GenericClient, Row};

use super::Error;
use super::catalog::{self, Plans};
use super::fetched_objects::FetchedObject;
use super::invoices;
use super::migrations::Release;
use super::mirror::{self, Cells, Mirrored};
use super::outbox::{Message, NewMessage};
use super::subscriptions::Computed;
use domain::money::Currency;
use domain::payment::Refund;
use domain::revenue::entries::{Replacement, RevenueEntry};
use domain::revenue::movement::{Movement, SubscriptionVersion};
use domain::stripe_objects::balance::{DailyBalance, DailyKey};
use domain::stripe_objects::invoice::Invoice;
use domain::stripe_objects::objects::{Ids, Kind, Objects};
use domain::stripe_objects::partial::Lookup;
use domain::stripe_objects::snapshot::Snapshot;
use domain::stripe_objects::subscription::Subscription;
use stripe::event::{Digests, Event};

pub use self::functions::{members, sql};
pub use super::mirror::Partial;

/// A row whose parts are looked up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    pub id: String,
    /// Stripe's name of the kind of object.
    pub object_type: &'static str,
    /// The event, or the fetch, whose snapshot the row shows.
    pub event_id: String,
}

/// What is stored about the named ids and what they lead to.
#[derive(Debug, Default)]
pub struct State {
    pub objects: Objects,
    /// What the rows of these objects do not show.
    pub partial: Partial,
    /// The user that each stored customer resolves to at present.
    pub users_of_customers: BTreeMap<String, Option<i32>>,
    /// The history of the named customers and subscriptions, when a subscription is named.
    pub versions: Vec<SubscriptionVersion>,
    pub plans: Plans,
    /// When each invoice was paid with money, by invoice.
    pub invoices_paid_at: BTreeMap<String, Timestamp>,
    pub entries: Vec<RevenueEntry>,
    /// The locked users of the application, each with the customer that its row names.
    pub users: BTreeMap<i32, Option<String>>,
    /// Every subscription of the locked users, and of the named customers when there are any.
    pub entitling: Vec<Entitling>,
}

/// A stored subscription, as far as a user's plan depends on it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Entitling {
    pub stripe_subscription_id: String,
    pub stripe_customer_id: Option<String>,
    pub user_id: Option<i32>,
    pub status: String,
    /// `unknown` when nothing names one.
    pub plan_name: String,
    pub started_at: Option<Timestamp>,
    /// Only a checkout session has named it so far.
    pub is_named_only: bool,
    /// It is, and the session has been paid.
    pub is_bought: bool,
}

/// An event to archive.
#[derive(Debug, Clone, Copy)]
pub struct Archived<'a> {
    pub event: &'a Event,
    /// The body as received.
    pub payload: &'a str,
    pub outcome: &'static str,
    /// The rank of the snapshot of its object within one second, 0 when there is none.
    pub rank: i32,
    /// What the event shows of its object; `None` when that is nothing.
    pub digests: Option<Digests>,
}

/// Another applied event that shows the object of an opened event in the same second.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct OfSecond {
    pub object_id: String,
    pub created_at: Timestamp,
    pub event_id: String,
    /// `None` of one that a former release has archived, until [`digest`] has been called for it.
    pub rank: Option<i32>,
    pub state_digest: Option<i64>,
    pub previous_digest: Option<i64>,
}

/// What `open` archives, locks and reads.
#[derive(Debug, Default)]
pub struct Opening<'a> {
    /// Events to archive; none for fetched objects.
    pub events: &'a [Archived<'a>],
    pub named: Ids,
    /// Keys among the named ids of which it suffices that nobody has them for himself.
    pub shared: BTreeSet<String>,
    /// Balance transactions whose figures are shown: what they belong to is named, too.
    pub shown_transactions: Vec<String>,
    /// Users that the facts name.
    pub users: Vec<i32>,
    /// Whether the plans of the customers' users may change.
    pub decides_plans: bool,
}

/// What `open` found, all of it locked until the end of the transaction.
#[derive(Debug)]
pub struct Opened {
    /// The events that were not archived before.
    pub new_events: BTreeSet<String>,
    pub locked: BTreeSet<String>,
    pub others_of_second: Vec<OfSecond>,
    /// The payloads of those among them that a former release has archived.
    pub undigested: Vec<Value>,
    pub state: State,
}

static OPEN: LazyLock<String> = LazyLock::new(|| {
    let last = Ids::KINDS.len() + 6;
    call("-- ledger::open", "open", last)
});
static READ: LazyLock<String> =
    LazyLock::new(|| call("-- ledger::read", "read", Ids::KINDS.len() + 1));
static CLOSE: LazyLock<String> = LazyLock::new(|| call("-- ledger::close", "close", 2));

fn call(name: &str, function: &str, parameters: usize) -> String {
    let parameters: Vec<String> = (1..=parameters)
        .map(|number| format!("${number}"))
        .collect();
    let parameters = parameters.join(", ");
    Release::EMBEDDED.with_hash(&format!(
        "{name}\nSELECT billing_{function}_HASH({parameters}) AS answer"
    ))
}

/// The calls of the functions, with the types of their parameters.
#[must_use]
pub fn calls() -> Vec<(&'static str, Vec<Type>)> {
    let kinds = || vec![Type::TEXT_ARRAY; Ids::KINDS.len()];
    let open = [
        vec![Type::JSONB],
        kinds(),
        vec![
            Type::TEXT_ARRAY,
            Type::TEXT_ARRAY,
            Type::INT4_ARRAY,
            Type::BOOL,
            Type::TIMESTAMPTZ,
        ],
    ];
    let read = [kinds(), vec![Type::INT4_ARRAY]];
    vec![
        (OPEN.as_str(), open.concat()),
        (READ.as_str(), read.concat()),
        (CLOSE.as_str(), vec![Type::JSONB, Type::TIMESTAMPTZ]),
    ]
}

#[derive(Debug, Serialize)]
struct EventRow<'a> {
    event_id: &'a str,
    r#type: &'a str,
    api_version: Option<&'a str>,
    livemode: Option<bool>,
    account: Option<&'a str>,
    object_id: Option<&'a str>,
    created_at: Option<Timestamp>,
    payload: &'a RawValue,
    outcome: &'static str,
    rank: i32,
    state_digest: Option<i64>,
    previous_digest: Option<i64>,
}

/// Archives the events, locks what they name and lead to until the end of the transaction, and reads it. `None` when all
/// of the events were archived before; then nothing is locked.
///
/// # Errors
/// [`Error::is_retryable`] when it met another transaction; a payload that Postgres cannot store.
pub async fn open(
    db: &impl GenericClient,
    opening: &Opening<'_>,
    now: Timestamp,
) -> Result<Option<Opened>, Error> {
    let mut events = Vec::new();
    for archived in opening.events {
        let Archived {
            event,
            payload,
            outcome,
            rank,
            digests,
        } = *archived;
        let payload = serde_json::from_str(payload).map_err(|_no_json| Error::Unwritable {
            table: "stripe_events",
            column: "payload",
        })?;
        events.push(EventRow {
            event_id: &event.event_id,
            r#type: &event.event_type,
            api_version: event.api_version.as_deref(),
            livemode: event.livemode,
            account: event.account.as_deref(),
            object_id: event.object_id(),
            created_at: event.created_at,
            payload,
            outcome,
            rank,
            state_digest: digests.map(|digests| digests.state),
            previous_digest: digests.and_then(|digests| digests.previous),
        });
    }
    let events = Some(Json(events)).filter(|events| !events.0.is_empty());
    let shared: Vec<&String> = opening.shared.iter().collect();
    let kinds = opening.named.by_kind();
    let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = vec![(&events, Type::JSONB)];
    for ids in &kinds {
        parameters.push((ids, Type::TEXT_ARRAY));
    }
    parameters.push((&shared, Type::TEXT_ARRAY));
    parameters.push((&opening.shown_transactions, Type::TEXT_ARRAY));
    parameters.push((&opening.users, Type::INT4_ARRAY));
    parameters.push((&opening.decides_plans, Type::BOOL));
    parameters.push((&now, Type::TIMESTAMPTZ));
    let row = db.query_typed_one(&OPEN, &parameters).await?;
    let Some(mut answer) = answer(&row)? else {
        return Ok(None);
    };
    let Some(Value::Object(state)) = answer.remove("state") else {
        return Err(unreadable("state"));
    };
    Ok(Some(Opened {
        new_events: member(&mut answer, "new_events")?,
        locked: member(&mut answer, "locked")?,
        others_of_second: member(&mut answer, "others_of_second")?,
        undigested: member(&mut answer, "undigested")?,
        state: State::read(state)?,
    }))
}

/// Stores rank and digests of events that a former release has archived.
///
/// # Errors
/// When the statement fails.
pub async fn digest(
    db: &impl GenericClient,
    events: &[(String, i32, Option<Digests>)],
) -> Result<(), Error> {
    let ids: Vec<&String> = events.iter().map(|(id, ..)| id).collect();
    let ranks: Vec<i32> = events.iter().map(|(_, rank, _)| *rank).collect();
    let digests = || events.iter().map(|(.., digests)| digests.as_ref());
    let states: Vec<Option<i64>> = digests().map(|one| Some(one?.state)).collect();
    let previous: Vec<Option<i64>> = digests().map(|one| one?.previous).collect();
    db.execute_typed(
        "-- ledger::digest
         UPDATE stripe_events
         SET rank = digested.rank, state_digest = digested.state_digest, previous_digest = digested.previous_digest
         FROM unnest($1, $2, $3, $4) AS digested (event_id, rank, state_digest, previous_digest)
         WHERE stripe_events.event_id = digested.event_id AND stripe_events.rank IS NULL",
        &[
            (&ids, Type::TEXT_ARRAY),
            (&ranks, Type::INT4_ARRAY),
            (&states, Type::INT8_ARRAY),
            (&previous, Type::INT8_ARRAY),
        ],
    )
    .await?;
    Ok(())
}

/// Reads what is stored about the named ids and what they lead to. Locks nothing, and leaves out users.
///
/// # Errors
/// When the statement fails or a row cannot be read.
pub async fn read(db: &impl GenericClient, named: &Ids) -> Result<State, Error> {
    let kinds = named.by_kind();
    let nobody: [i32; 0] = [];
    let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = Vec::new();
    for ids in &kinds {
        parameters.push((ids, Type::TEXT_ARRAY));
    }
    let nobody = nobody.as_slice();
    parameters.push((&nobody, Type::INT4_ARRAY));
    let row = db.query_typed_one(&READ, &parameters).await?;
    State::read(answer(&row)?.unwrap_or_default())
}

fn answer(row: &Row) -> Result<Option<Cells>, Error> {
    let answer: Option<Json<Cells>> = row.try_get("answer")?;
    Ok(answer.map(|Json(members)| members))
}

fn unreadable(column: &'static str) -> Error {
    Error::Unreadable {
        table: "the ledger's state",
        column,
        row: String::new(),
    }
}

/// A member that is as if it were empty when it is null.
fn member<T: DeserializeOwned + Default>(
    answer: &mut Cells,
    name: &'static str,
) -> Result<T, Error> {
    let value: Option<T> = mirror::take(answer, "the ledger's state", name)?;
    Ok(value.unwrap_or_default())
}

impl State {
    fn read(mut answer: Cells) -> Result<State, Error> {
        fn kind<T: Mirrored + Snapshot>(
            answer: &mut Cells,
            name: &str,
            partial: &mut Partial,
        ) -> Result<Kind<T>, Error> {
            let rows = answer.remove(name).unwrap_or_default();
            let reasons = mirror::reasons(&rows, T::TABLE)?;
            let rows: Vec<T> = mirror::read(rows)?;
            let known = rows.iter().zip(reasons);
            let known = known.filter(|(_, reasons)| !reasons.is_empty());
            partial.extend(known.map(|(row, reasons)| (row.key(), reasons)));
            Ok(rows.into_iter().map(|row| (row.key(), row)).collect())
        }
        let mut partial = Partial::new();
        let mut objects = Objects {
            customers: kind(&mut answer, "customers", &mut partial)?,
            checkout_sessions: kind(&mut answer, "checkout_sessions", &mut partial)?,
            subscriptions: kind(&mut answer, "subscriptions", &mut partial)?,
            invoices: kind(&mut answer, "invoices", &mut partial)?,
            credit_notes: kind(&mut answer, "credit_notes", &mut partial)?,
            payment_intents: kind(&mut answer, "payment_intents", &mut partial)?,
            charges: kind(&mut answer, "charges", &mut partial)?,
            refunds: kind(&mut answer, "refunds", &mut partial)?,
            disputes: kind(&mut answer, "disputes", &mut partial)?,
            invoice_payments: kind(&mut answer, "invoice_payments", &mut partial)?,
            prices: kind(&mut answer, "prices", &mut partial)?,
            coupons: kind(&mut answer, "coupons", &mut partial)?,
            discounts: kind(&mut answer, "discounts", &mut partial)?,
            balance_transactions: kind(&mut answer, "balance_transactions", &mut partial)?,
            payouts: kind(&mut answer, "payouts", &mut partial)?,
            tax_rates: kind(&mut answer, "tax_rates", &mut partial)?,
        };
        objects
            .invoices
            .values_mut()
            .for_each(invoices::as_announced);
        objects.prices.values_mut().for_each(catalog::name_plan);
        Ok(State {
            objects,
            partial,
            users_of_customers: member(&mut answer, "users_of_customers")?,
            versions: mirror::read(answer.remove("versions").unwrap_or_default())?,
            plans: Plans {
                by_price: member(&mut answer, "plan_prices")?,
                names: member(&mut answer, "plans")?,
            },
            invoices_paid_at: member(&mut answer, "invoices_paid_at")?,
            entries: member(&mut answer, "entries")?,
            users: member::<Vec<(i32, Option<String>)>>(&mut answer, "users")?
                .into_iter()
                .collect(),
            entitling: member(&mut answer, "entitling")?,
        })
    }
}

/// An object that need not be fetched, by kind and id, for any reason or for one.
pub type Answered = (&'static str, String, Option<&'static str>);

/// What `close` writes: the steps' members.
#[derive(Debug, Default)]
pub struct Writes(Cells);

impl Writes {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what one step of `close` writes.
    ///
    /// # Errors
    /// When a value has no JSON.
    pub fn put(&mut self, member: &'static str, written: impl Serialize) -> Result<(), Error> {
        mirror::put(&mut self.0, "the ledger's changes", member, &written)
    }

    /// Adds a list unless it is empty.
    ///
    /// # Errors
    /// When a value has no JSON.
    pub fn list<T: Serialize>(
        &mut self,
        member: &'static str,
        written: impl IntoIterator<Item = T>,
    ) -> Result<(), Error> {
        let written: Vec<T> = written.into_iter().collect();
        match written.is_empty() {
            true => Ok(()),
            false => self.put(member, written),
        }
    }

    /// Replaces the rows of what is derived from objects.
    ///
    /// # Errors
    /// When a value cannot be written.
    pub fn derived<'a, T: Mirrored + 'a>(
        &mut self,
        rows: impl IntoIterator<Item = &'a T>,
    ) -> Result<(), Error> {
        self.list(T::TABLE, mirror::rows(rows)?)
    }

    /// Replaces the rows of mirrored objects, each with what it does not show.
    ///
    /// # Errors
    /// When a value cannot be written.
    pub fn objects<'a, T: Mirrored + Snapshot + 'a>(
        &mut self,
        objects: impl IntoIterator<Item = &'a T>,
        partial: &Partial,
    ) -> Result<(), Error> {
        let objects = objects.into_iter();
        self.objects_with(objects.map(|object| (object, Cells::new())), partial)
    }

    /// As [`Writes::objects`], each with the values of further columns.
    ///
    /// # Errors
    /// When a value cannot be written.
    fn objects_with<'a, T: Mirrored + Snapshot + 'a>(
        &mut self,
        objects: impl Iterator<Item = (&'a T, Cells)>,
        partial: &Partial,
    ) -> Result<(), Error> {
        let rows = objects.map(|(object, mut cells)| {
            let reasons = partial.get(&object.key()).into_iter().flatten();
            let reasons: Vec<&str> = reasons.map(|reason| reason.as_str()).collect();
            cells.insert(mirror::PARTIAL.to_owned(), reasons.into());
            (object, cells)
        });
        self.list(T::TABLE, mirror::rows_with(rows)?)
    }

    /// Replaces the rows of subscriptions, each with what the ledger adds to it.
    ///
    /// # Errors
    /// When a value cannot be written.
    pub fn subscriptions<'a>(
        &mut self,
        subscriptions: impl IntoIterator<Item = (&'a Subscription, &'a Computed)>,
        partial: &Partial,
    ) -> Result<(), Error> {
        let rows = subscriptions.into_iter();
        let rows = rows.map(|(subscription, computed)| (subscription, computed.cells()));
        self.objects_with(rows, partial)
    }

    /// Replaces the rows of invoices, each with what is due of it and what came outside Stripe, in minor units.
    ///
    /// # Errors
    /// When a value cannot be written.
    pub fn invoices<'a>(
        &mut self,
        invoices: impl IntoIterator<Item = (&'a Invoice, i64, i64)>,
        partial: &Partial,
    ) -> Result<(), Error> {
        let rows = invoices.into_iter();
        let rows = rows.map(|(invoice, amount_due_cents, out_of_band_cents)| {
            let added = [
                ("amount_due_cents".to_owned(), amount_due_cents.into()),
                ("out_of_band_cents".to_owned(), out_of_band_cents.into()),
            ];
            (invoice, Cells::from_iter(added))
        });
        self.objects_with(rows, partial)
    }

    /// Inserts or updates the credits of refunds that were issued as credit.
    ///
    /// # Errors
    /// When a value has no JSON.
    pub fn store_credits<'a>(
        &mut self,
        refunds: impl IntoIterator<Item = &'a Refund>,
    ) -> Result<(), Error> {
        let rows = refunds.into_iter().map(|refund| {
            json!({
                "stripe_refund_id": refund.stripe_refund_id,
                "amount_cents": refund.amount_cents,
                "remaining_cents": if refund.counts() { refund.amount_cents } else { 0 },
                "currency": refund.currency,
                "created_at": refund.created_at,
                "stripe_payment_intent_id": refund.stripe_payment_intent_id,
                "stripe_charge_id": refund.stripe_charge_id,
            })
        });
        self.list("store_credits", rows)
    }

    /// Makes the unfinished look-ups of each of these objects exactly those.
    ///
    /// # Errors
    /// When a value has no JSON.
    pub fn lookups<'a>(
        &mut self,
        subjects: impl IntoIterator<Item = (&'a Subject, &'a Vec<Lookup>)>,
    ) -> Result<(), Error> {
        let (mut judged, mut wanted) = (Vec::new(), Vec::new());
        for (subject, lookups) in subjects {
            judged.push(&subject.id);
            wanted.extend(lookups.iter().map(|lookup| {
                let stake = lookup.stake.as_ref();
                json!({
                    "subject": subject.id,
                    "subject_type": subject.object_type,
                    "event_id": subject.event_id,
                    "kind": lookup.kind,
                    "stripe_id": lookup.stripe_id,
                    "reason": lookup.reason,
                    "requested_at": lookup.requested_at,
                    "due_at": lookup.due_at,
                    "currency": stake.map(|stake| stake.currency),
                    "figure_at": stake.map(|stake| stake.at),
                    "amount_cents": stake.map(|stake| stake.amount_cents),
                })
            }));
        }
        if judged.is_empty() {
            return Ok(());
        }
        self.put("lookups", json!({"judged": judged, "wanted": wanted}))
    }

    /// Makes the movements of each customer exactly these.
    ///
    /// # Errors
    /// When a value has no JSON.
    pub fn movements(&mut self, movements: &BTreeMap<String, Vec<Movement>>) -> Result<(), Error> {
        if movements.is_empty() {
            return Ok(());
        }
        let row = |movement: &Movement| {
            json!({
                "occurred_at": movement.occurred_at,
                "stripe_subscription_id": movement.stripe_subscription_id,
                "kind": movement.kind.as_str(),
                "currency": movement.currency,
                "delta_microcents": movement.delta_microcents,
                "before_microcents": movement.before_microcents,
                "after_microcents": movement.after_microcents,
                "cause_event_id": movement.cause_event_id,
            })
        };
        let of_customers: BTreeMap<&String, Vec<Value>> = movements
            .iter()
            .map(|(customer, movements)| (customer, movements.iter().map(row).collect()))
            .collect();
        self.put("mrr_movements", of_customers)
    }

    /// Replaces revenue entries, and adds the difference to `revenue_daily`.
    ///
    /// # Errors
    /// When a value has no JSON.
    pub fn entries(&mut self, replacement: &Replacement) -> Result<(), Error> {
        let line = |entry: &RevenueEntry| {
            (
                entry.payment_key.clone(),
                entry.kind,
                entry.source_id.clone(),
            )
        };
        let added: BTreeSet<_> = replacement.added.iter().map(line).collect();
        // A line whose amount or instant changes is replaced, not removed.
        let gone = replacement.removed.iter().map(line);
        let gone = gone.filter(|line| !added.contains(line)).map(|(key, kind, source)| {
            json!({"payment_key": key, "kind": kind.as_str(), "source_id": source})
        });
        self.list("entries_removed", gone)?;
        let added = replacement.added.iter().map(|entry| {
            json!({
                "payment_key": entry.payment_key,
                "kind": entry.kind.as_str(),
                "source_id": entry.source_id,
                "day": entry.day(),
                "currency": entry.currency,
                "amount_cents": entry.amount_cents,
                "is_estimated": entry.is_estimated,
                "occurred_at": entry.occurred_at,
            })
        });
        self.list("entries", added)?;
        let daily = replacement.daily.iter().map(|((day, currency), delta)| {
            json!({
                "day": day,
                "currency": currency,
                "gross_cents": delta.gross_cents,
                "fees_cents": delta.fees_cents,
                "refunds_cents": delta.refunds_cents,
                "disputes_cents": delta.disputes_cents,
                "payments": delta.payments,
                "failed_payments": delta.failed_payments,
                "estimated_fees": delta.estimated_fees,
            })
        });
        self.list("revenue_daily", daily)?;
        if replacement.removed.is_empty() {
            return Ok(());
        }
        let days = replacement.daily.keys();
        let day = |(day, currency): &(Date, Currency)| json!({"day": day, "currency": currency});
        self.list("emptied_days", days.map(day))
    }

    /// Adds to `balance_daily`.
    ///
    /// # Errors
    /// When a value has no JSON.
    pub fn balance_daily(&mut self, daily: &BTreeMap<DailyKey, DailyBalance>) -> Result<(), Error> {
        let rows = daily.iter().map(|(key, delta)| {
            json!({
                "day": key.day,
                "balance_type": key.balance_type,
                "currency": key.currency,
                "reporting_category": key.reporting_category,
                "amount_cents": delta.amount_cents,
                "fee_cents": delta.fee_cents,
                "net_cents": delta.net_cents,
                "count": delta.count,
            })
        });
        self.list("balance_daily", rows)
    }

    /// Announces what was not announced before, in this order.
    ///
    /// # Errors
    /// When a value has no JSON.
    pub fn messages(&mut self, messages: &[NewMessage]) -> Result<(), Error> {
        let rows = messages.iter().enumerate().map(|(place, message)| {
            json!({
                "place": place,
                "detail_type": message.detail_type,
                "dedupe_key": message.dedupe_key,
                "detail": message.detail,
            })
        });
        self.list("outbox", rows)
    }

    /// Keeps fetched subscriptions as long as the versions they made wait for their terms.
    ///
    /// # Errors
    /// When a value has no JSON.
    pub fn fetched(&mut self, fetched: &[FetchedObject]) -> Result<(), Error> {
        let rows = fetched.iter().map(|object| {
            json!({
                "source_event_id": object.source_event_id,
                "stripe_subscription_id": object.stripe_subscription_id,
                "payload": object.payload,
                "fetched_at": object.fetched_at,
            })
        });
        self.list("fetched_objects", rows)
    }
}

/// Writes all of it, and returns the messages that were new.
///
/// # Errors
/// When a statement fails, or does not write each row: then nothing of the transaction may stay.
pub async fn close(
    db: &impl GenericClient,
    writes: &Writes,
    now: Timestamp,
) -> Result<Vec<Message>, Error> {
    let changes = Json(&writes.0);
    let parameters: [(&(dyn ToSql + Sync), Type); 2] =
        [(&changes, Type::JSONB), (&now, Type::TIMESTAMPTZ)];
    let row = db.query_typed_one(&CLOSE, &parameters).await?;
    let messages: Option<Json<Vec<Message>>> = row.try_get("answer")?;
    Ok(messages.map_or_else(Vec::new, |Json(messages)| messages))
}
