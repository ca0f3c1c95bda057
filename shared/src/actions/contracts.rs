//! Contracts of partners are entered and changed, and changes taken back.

use domain::partner::contract::{Contract, ContractMembers, ContractStatus, Invalid};
use domain::partner::terms::{
    self, Amend, Amendment, Change, History, InvalidFrom, Members, Refused, StoredContract,
};
use jiff::Timestamp;
use jiff::civil::Date;
use runtime::api::Error;
use runtime::api::extract::object_of;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use store::contract_changes::{self, Author, ContractChange};
use store::contracts::{self, ContractRow, Read, Which};
use store::partner_invoices;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::partner_billing::{self, store_amendment};
use crate::write::Write;

/// The members that say which taxes there are: one replaces the others.
const TAXES: [&str; 3] = ["taxes", "tax_percent", "tax_rate_bps"];
const START: &str = "contract_start_date";
const END: &str = "contract_end_date";

/// The members of a contract to change. One that is null gets its default; the prefix stays.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct ContractChanges(Map<String, Value>);

/// The members of a change that say when, whether somebody has looked, and why.
const FROM: &str = "effective_from";
const REVIEWED: &str = "reviewed";
const REASON: &str = "reason";

impl PartialSchema for ContractChanges {
    fn schema() -> RefOr<Schema> {
        let mut members = ContractMembers::schema();
        if let RefOr::T(Schema::Object(object)) = &mut members {
            object.properties.remove("api_key_prefix");
            object.description = Some(
                "The members of a contract to change; one that is null gets its default. What prices, counts, taxes or \
                 times, and the status, holds from a day on; the rest at once"
                    .to_owned(),
            );
            let member = |kind: Type, description: &str| {
                RefOr::T(Schema::Object(
                    ObjectBuilder::new()
                        .schema_type(kind)
                        .description(Some(description))
                        .build(),
                ))
            };
            let more = [
                (
                    FROM,
                    Type::String,
                    "The first day, such as 2026-01-01: of a cycle, or of a return. The running cycle when not given, or \
                     the first that is not invoiced; a status ends with today, and begins today",
                ),
                (
                    REVIEWED,
                    Type::Boolean,
                    "Somebody has looked at what it does to days before the running cycle; needs a reason",
                ),
                (REASON, Type::String, "Why, for people"),
            ];
            for (name, kind, description) in more {
                object
                    .properties
                    .insert(name.to_owned(), member(kind, description));
            }
        }
        members
    }
}

impl ToSchema for ContractChanges {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        ContractMembers::schemas(schemas);
    }
}

/// The members of a new contract, or of one that comes back.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct NewContract(Map<String, Value>);

impl PartialSchema for NewContract {
    fn schema() -> RefOr<Schema> {
        ContractMembers::schema()
    }
}

impl ToSchema for NewContract {
    fn name() -> std::borrow::Cow<'static, str> {
        ContractMembers::name()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        ContractMembers::schemas(schemas);
    }
}

/// A contract as it is today.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ContractToday {
    #[serde(flatten)]
    pub contract: ContractRow,
    /// What changes next; null when nothing does.
    pub next_change: Option<NextChange>,
    /// What somebody should know of it.
    pub warnings: Vec<ContractWarning>,
}

/// The next day on which something changes, and what.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct NextChange {
    pub effective_from: Date,
    /// The members that change; null restores a default.
    pub members: Value,
}

/// What somebody should know of a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContractWarning {
    /// Nobody is mailed its invoices.
    NoBillingEmail,
    /// As it is, it cannot be billed.
    NotValid,
}

impl ContractToday {
    /// The contract as it is at an instant, whatever its columns still say.
    #[must_use]
    pub fn new(read: Read, now: Timestamp) -> ContractToday {
        let mut warnings = Vec::new();
        let mut contract = read.row.clone();
        let mut next_change = None;
        match shown(&read, now) {
            Some((projection, next)) => {
                contract.show(&projection);
                next_change = next.map(|(effective_from, members)| NextChange {
                    effective_from,
                    members: Value::Object(members),
                });
            }
            None => warnings.push(ContractWarning::NotValid),
        }
        if contract.billing_email.is_none() {
            warnings.push(ContractWarning::NoBillingEmail);
        }
        ContractToday {
            contract,
            next_change,
            warnings,
        }
    }
}

fn shown(read: &Read, now: Timestamp) -> Option<(terms::Projection, Option<(Date, Members)>)> {
    let history = read.contract(now).ok()?.history;
    let today = history.day_of(now).ok()?;
    Some((history.project(today).ok()?, history.next_change(today)))
}

runtime::refusals! {
    /// Why a contract is not entered.
    pub enum CreateContractError {
        /// A partner has one contract.
        Exists = 409 "contract_exists" "this prefix has a contract that does not end before the new one begins",
    }
}

runtime::refusals! {
    /// Why a contract is not changed.
    pub enum ChangeContractError {
        /// It is over.
        Canceled = 409 "contract_canceled" "a contract that has ended cannot be suspended",
        /// Its invoices would be of another start.
        Invoiced = 409 "contract_invoiced" "something from the latest start on has been invoiced: void it first",
    }
}

runtime::refusals! {
    /// Why a change is not taken back.
    pub enum RevokeChangeError {
        /// Days are billed by it.
        InForce = 409 "change_in_force" "this change is in force: enter another one",
    }
}

fn invalid(invalid: Invalid) -> Error {
    Error::invalid_member(invalid.field, invalid.expected)
}

fn invalid_from(error: InvalidFrom) -> Error {
    Error::invalid_member(error.invalid.field.clone(), error.to_string())
}

fn refused(refused: Refused) -> ChangeContractError {
    match refused {
        Refused::Invalid(error) => invalid_from(error).into(),
        Refused::Invoiced => ChangeContractError::Invoiced,
        Refused::Ended => ChangeContractError::Canceled,
        Refused::Cycle(error) => Error::invalid_member("timezone", error.to_string()).into(),
    }
}

fn billing(error: partner_billing::Error) -> Error {
    match error {
        partner_billing::Error::Invalid(error) => invalid(error),
        partner_billing::Error::Store(error) => error.into(),
        partner_billing::Error::Draft(error) => Error::Internal(Box::new(error)),
    }
}

/// The members as a contract, with the taxes that a shorthand stands for.
fn checked(members: &Map<String, Value>) -> Result<Contract, Error> {
    let members: ContractMembers = object_of(Value::Object(members.clone()))
        .map_err(|(field, detail)| Error::invalid_member(field, detail))?;
    let contract = Contract::new(members).map_err(invalid)?;
    contract.check_chargeable().map_err(invalid)?;
    if contract.contract_start_date.is_none() {
        return Err(Error::invalid_member(START, "it is missing"));
    }
    if contract.status != ContractStatus::Active {
        return Err(Error::invalid_member("status", "a contract begins active"));
    }
    Ok(contract)
}

/// Enters a contract; one of a partner whose contract ends before is its return, under the same id.
///
/// # Errors
/// Names the member that is not valid; or the partner has a contract.
pub async fn create(
    cx: Write<'_>,
    NewContract(members): NewContract,
) -> Result<ContractToday, CreateContractError> {
    let contract = checked(&members)?;
    let prefix = [contract.api_key_prefix.as_str()];
    let known = contracts::read(cx.db, Which::Prefixes(&prefix)).await?;
    if let Some(known) = known.first() {
        return come_back(cx, known.row.id, &members, &contract).await;
    }
    let inserted = contracts::insert(cx.db, &contract, cx.now).await;
    let id = inserted.map_err(|error| match error.constraint() {
        Some("api_partner_contracts_api_key_prefix_key") => CreateContractError::Exists,
        _ => error.into(),
    })?;
    let mut since_ever = contract.dated();
    since_ever.retain(|_, value| !value.is_null());
    let mut changes = vec![Change {
        id: 0,
        effective_from: None,
        members: since_ever,
        created_at: cx.now,
    }];
    if let Some(end) = contract.contract_end_date {
        let canceled = json!({"status": ContractStatus::Canceled});
        changes.push(Change {
            id: 0,
            effective_from: Some(
                end.tomorrow()
                    .map_err(|_beyond| Error::invalid_member(END, "a day within the calendar"))?,
            ),
            members: canceled.as_object().cloned().unwrap_or_default(),
            created_at: cx.now,
        });
    }
    let author = Author {
        created_by: cx.actor,
        reason: None,
        reviewed: false,
    };
    contract_changes::insert_all(cx.db, id, &changes, &author).await?;
    let after = projected(&cx, id).await?;
    cx.audit(
        "contract.create",
        format!("contract:{id}"),
        (),
        &after.contract,
    )
    .await?;
    Ok(after)
}

/// The partner comes back, with these terms from its new start on.
async fn come_back(
    cx: Write<'_>,
    id: i64,
    members: &Map<String, Value>,
    contract: &Contract,
) -> Result<ContractToday, CreateContractError> {
    let read = contracts::lock(cx.db, id).await?.ok_or(Error::NotFound)?;
    // One that cannot be read has not ended for all that is known.
    let Ok(_) = read.contract(cx.now) else {
        return Err(CreateContractError::Exists);
    };
    let before = ContractToday::new(read.clone(), cx.now);
    let stored = partner_billing::store_terms(cx.db, &read, cx.now)
        .await
        .map_err(billing)?;
    let mut dated = contract.dated();
    dated.insert(END.to_owned(), json!(contract.contract_end_date));
    dated.retain(|_, value| !value.is_null());
    let amendment = stored.history.returned(dated, cx.now);
    let amendment = amendment.ok_or(CreateContractError::Exists)?;
    let history = stored.history.amended(&amendment).map_err(invalid_from)?;
    // What is not dated keeps what is not named.
    let mut at_once = read.row.members();
    for name in terms::at_once() {
        if let Some(value) = members.get(name).filter(|value| !value.is_null()) {
            at_once.insert(name.to_owned(), value.clone());
        }
    }
    let history = history.with_at_once(at_once).map_err(invalid_from)?;
    let author = Author {
        created_by: cx.actor,
        reason: None,
        reviewed: false,
    };
    store_amendment(cx.db, id, &amendment, &author, cx.now).await?;
    let after = written(&cx, id, history).await?;
    cx.audit(
        "contract.create",
        format!("contract:{id}"),
        &before.contract,
        &after.contract,
    )
    .await?;
    Ok(after)
}

/// What a change says of itself.
#[derive(Debug, Default)]
struct About {
    effective_from: Option<Date>,
    reviewed: bool,
    reason: Option<String>,
}

impl About {
    /// Takes its members out of a change.
    fn take(changes: &mut Map<String, Value>) -> Result<About, Error> {
        let mut member = |name: &str| changes.remove(name).filter(|value| !value.is_null());
        let effective_from = match member(FROM) {
            None => None,
            Some(value) => {
                let day = value.as_str().filter(|text| text.len() == 10);
                let day = day.and_then(|text| text.parse().ok());
                let expected = "a day, written 2026-01-01";
                Some(day.ok_or_else(|| Error::invalid_member(FROM, expected))?)
            }
        };
        let reviewed = match member(REVIEWED) {
            None => false,
            Some(value) => {
                let reviewed = value.as_bool();
                reviewed.ok_or_else(|| Error::invalid_member(REVIEWED, "true or false"))?
            }
        };
        let reason = match member(REASON) {
            None => None,
            Some(value) => {
                let text = value.as_str().map(str::trim).filter(|text| {
                    !text.is_empty() && text.chars().count() <= 1_000 && !text.contains('\0')
                });
                let expected = "a text of 1 to 1000 characters";
                let text = text.ok_or_else(|| Error::invalid_member(REASON, expected))?;
                Some(text.to_owned())
            }
        };
        if reviewed && reason.is_none() {
            return Err(Error::invalid_member(
                REASON,
                "what is reviewed has a reason",
            ));
        }
        Ok(About {
            effective_from,
            reviewed,
            reason,
        })
    }
}

/// Changes the members that are given. What comes out has to be valid as a whole, on every day.
///
/// # Errors
/// When there is no such contract, names the member that is not valid, or says what stands in the way.
pub async fn change(
    cx: Write<'_>,
    id: i64,
    ContractChanges(mut changes): ContractChanges,
) -> Result<ContractToday, ChangeContractError> {
    let read = contracts::lock(cx.db, id).await?.ok_or(Error::NotFound)?;
    if changes.contains_key("api_key_prefix") {
        let refused = Error::invalid_member("api_key_prefix", "no member that can be changed");
        return Err(refused.into());
    }
    let about = About::take(&mut changes)?;
    let named: ContractMembers = object_of(Value::Object(changes.clone()))
        .map_err(|(field, detail)| Error::invalid_member(field, detail))?;
    if TAXES.iter().any(|member| changes.contains_key(*member)) {
        let taxes = named.named_taxes().map_err(invalid)?;
        changes.retain(|name, _| !TAXES.contains(&name.as_str()));
        changes.insert("taxes".to_owned(), json!(taxes));
    }
    let before = ContractToday::new(read.clone(), cx.now);
    let stored = repaired(&cx, read, &changes).await?;
    let mut members = Members::new();
    let mut at_once = before.contract.members();
    for (name, value) in changes {
        if terms::is_dated(&name) {
            members.insert(name, value);
        } else {
            at_once.insert(name, value);
        }
    }
    if about.effective_from.is_some() && members.is_empty() {
        let expected = "only with a member that holds from a day on";
        return Err(Error::invalid_member(FROM, expected).into());
    }
    move_billed_from(&before.contract, &members, &mut at_once);
    let invoiced = partner_invoices::periods(cx.db, &[id]).await?;
    let invoiced: Vec<_> = invoiced.into_iter().map(|(_, period)| period).collect();
    let wanted = Amend {
        members,
        effective_from: about.effective_from,
        reviewed: about.reviewed,
    };
    let history = stored.history.with_at_once(at_once).map_err(invalid_from)?;
    let amendment = history.amend(&wanted, &invoiced, cx.now).map_err(refused)?;
    let history = history.amended(&amendment).map_err(invalid_from)?;
    check_chargeable(&history, cx.now)?;
    let author = Author {
        created_by: cx.actor,
        reason: about.reason.as_deref(),
        reviewed: about.reviewed,
    };
    store_amendment(cx.db, id, &amendment, &author, cx.now).await?;
    let after = written(&cx, id, history).await?;
    cx.audit(
        "contract.update",
        format!("contract:{id}"),
        &before.contract,
        &after.contract,
    )
    .await?;
    Ok(after)
}

/// The contract with its changes stored; where the row is not valid, as the predecessor's may be, what is asked for may
/// make it so.
async fn repaired(
    cx: &Write<'_>,
    mut read: Read,
    changes: &Map<String, Value>,
) -> Result<StoredContract, Error> {
    if read.contract(cx.now).is_err() {
        if !read.stored.changes.is_empty() {
            return read.contract_of_changes().map_err(invalid);
        }
        for (name, value) in changes {
            read.stored.members.insert(name.clone(), value.clone());
        }
    }
    partner_billing::store_terms(cx.db, &read, cx.now)
        .await
        .map_err(billing)
}

/// Nothing is billed before `billed_from`: where that is only the start, it moves with it.
fn move_billed_from(before: &ContractRow, members: &Members, at_once: &mut Members) {
    let was_start = before.contract_start_date == Some(before.billed_from);
    if let Some(start) = members.get(START).filter(|_| was_start) {
        let is_said = at_once.get("billed_from") != Some(&json!(before.billed_from));
        if !is_said {
            at_once.insert("billed_from".to_owned(), start.clone());
        }
    }
}

/// Stripe has to be able to charge every price from today on.
fn check_chargeable(history: &History, now: Timestamp) -> Result<(), Error> {
    let today = history
        .day_of(now)
        .map_err(|error| Error::Internal(Box::new(error)))?;
    let next = history.spans().iter();
    let next = next.filter(|span| span.from.is_some_and(|from| from > today));
    history.on(today).check_chargeable().map_err(invalid)?;
    for span in next {
        let chargeable = span.terms.check_chargeable();
        chargeable.map_err(|invalid| {
            let day = span.from;
            invalid_from(InvalidFrom { invalid, day })
        })?;
    }
    Ok(())
}

/// Writes the columns of a contract whose changes are stored.
async fn written(cx: &Write<'_>, id: i64, history: History) -> Result<ContractToday, Error> {
    let contract = StoredContract {
        id,
        history,
        unstored: Amendment::default(),
    };
    partner_billing::project(cx.db, &contract, None, cx.now)
        .await
        .map_err(billing)?;
    let after = contracts::find(cx.db, id).await?.ok_or(Error::NotFound)?;
    Ok(ContractToday::new(after, cx.now))
}

/// The same for one whose columns say what is not dated.
async fn projected(cx: &Write<'_>, id: i64) -> Result<ContractToday, Error> {
    let read = contracts::find(cx.db, id).await?.ok_or(Error::NotFound)?;
    let contract = read.contract_of_changes().map_err(invalid)?;
    written(cx, id, contract.history).await
}

/// Takes a change back that is not in force yet.
///
/// # Errors
/// When there is no such change, it is in force, or what is left would not be valid.
pub async fn revoke(
    cx: Write<'_>,
    id: i64,
    change_id: i64,
) -> Result<ContractChange, RevokeChangeError> {
    let read = contracts::lock(cx.db, id).await?.ok_or(Error::NotFound)?;
    let stored = partner_billing::store_terms(cx.db, &read, cx.now)
        .await
        .map_err(billing)?;
    let before = contract_changes::find(cx.db, id, change_id).await?;
    let before = before
        .filter(|change| change.revoked_at.is_none())
        .ok_or(Error::NotFound)?;
    let today = stored.history.day_of(cx.now);
    let today = today.map_err(|error| Error::Internal(Box::new(error)))?;
    if before.effective_from.is_none_or(|from| from <= today) {
        return Err(RevokeChangeError::InForce);
    }
    let amendment = Amendment {
        revoked: vec![change_id],
        added: Vec::new(),
    };
    let history = stored.history.amended(&amendment).map_err(invalid_from)?;
    contract_changes::revoke(cx.db, id, &amendment.revoked, cx.now).await?;
    written(&cx, id, history).await?;
    let after = contract_changes::find(cx.db, id, change_id).await?;
    let after = after.ok_or(Error::NotFound)?;
    cx.audit(
        "contract.revoke_change",
        format!("contract:{id}"),
        &before,
        &after,
    )
    .await?;
    Ok(after)
}
