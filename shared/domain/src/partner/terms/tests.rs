//! The worked examples of dated terms, and random histories against a day-by-day oracle.

use proptest::prelude::*;

use super::*;
use crate::partner::contract::{BillingCycle, PricingModel};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn day(text: &str) -> Date {
    text.parse().unwrap()
}

fn members(value: Value) -> Members {
    value.as_object().unwrap().clone()
}

/// A flat contract of 100.00 from 1 October 2025 on, with these members over it.
fn contract(changes: Value) -> History {
    let mut since_ever = json!({
        "pricing_model": "flat", "monthly_flat_fee_cents": 10_000, "contract_start_date": "2025-10-01"
    });
    for (name, value) in changes.as_object().unwrap() {
        since_ever[name] = value.clone();
    }
    let change = Change {
        id: 1,
        effective_from: None,
        members: members(since_ever),
        created_at: at("2025-09-15T00:00:00Z"),
    };
    History::new(
        members(json!({"api_key_prefix": "dp_pk_alpha"})),
        vec![change],
    )
    .unwrap()
}

/// A history to which people write.
struct Written {
    history: History,
    invoiced: Vec<Period>,
    next_id: i64,
}

impl Written {
    fn new(changes: Value) -> Written {
        Written {
            history: contract(changes),
            invoiced: Vec::new(),
            next_id: 2,
        }
    }

    fn wanted(value: Value) -> Amend {
        let mut members = members(value);
        let from = members.remove("effective_from");
        let reviewed = members.remove("reviewed");
        Amend {
            effective_from: from.map(|from| day(from.as_str().unwrap())),
            reviewed: reviewed == Some(json!(true)),
            members,
        }
    }

    fn write(&mut self, now: &str, value: Value) -> Result<(), Refused> {
        let wanted = Written::wanted(value);
        let mut amendment = self.history.amend(&wanted, &self.invoiced, at(now))?;
        for change in &mut amendment.added {
            change.id = self.next_id;
            self.next_id += 1;
        }
        self.history = self.history.amended(&amendment)?;
        Ok(())
    }

    /// The member at fault, or the other reason.
    fn refusal(&self, now: &str, value: Value) -> String {
        let wanted = Written::wanted(value);
        match self.history.amend(&wanted, &self.invoiced, at(now)) {
            Err(Refused::Invalid(error)) => error.invalid.field,
            Err(other) => other.to_string(),
            Ok(amendment) => format!("{amendment:?}"),
        }
    }

    fn fee(&self, on: &str) -> i64 {
        let terms = self.history.on(day(on));
        terms.monthly_flat_fee_cents.unwrap()
    }

    /// `first..last fee` of each period that has ended by then.
    fn billed(&self, now: &str) -> Vec<String> {
        let calendar = Calendar::new(&self.history, &self.invoiced).unwrap();
        let periods = calendar.unbilled(at(now)).unwrap();
        let told = periods.iter().map(|period| {
            let fee = period.terms.monthly_flat_fee_cents.unwrap();
            format!("{}..{} {fee}", period.first_day, period.last_day)
        });
        told.collect()
    }
}

#[test]
fn a_price_entered_today_is_that_of_the_running_cycle() {
    let mut written = Written::new(json!({}));
    written
        .write(
            "2025-11-30T12:00:00Z",
            json!({"monthly_flat_fee_cents": 20_000}),
        )
        .unwrap();
    assert_eq!(
        written.billed("2025-12-01T00:05:00Z"),
        [
            "2025-10-01..2025-10-31 10000",
            "2025-11-01..2025-11-30 20000"
        ],
        "October, run late, keeps its price"
    );
    let mut written = Written::new(json!({}));
    let january = json!({"monthly_flat_fee_cents": 20_000, "effective_from": "2026-01-01"});
    written.write("2025-11-30T12:00:00Z", january).unwrap();
    assert_eq!(
        written.billed("2026-02-01T00:05:00Z")[1..],
        [
            "2025-11-01..2025-11-30 10000",
            "2025-12-01..2025-12-31 10000",
            "2026-01-01..2026-01-31 20000"
        ]
    );
}

#[test]
fn a_cycle_that_is_invoiced_keeps_its_price() {
    let mut written = Written::new(json!({"contract_end_date": null}));
    written.invoiced =
        vec![Period::new(at("2025-11-01T00:00:00Z"), at("2025-11-11T00:00:00Z")).unwrap()];
    written
        .write(
            "2025-11-30T12:00:00Z",
            json!({"monthly_flat_fee_cents": 20_000}),
        )
        .unwrap();
    assert_eq!(
        (written.fee("2025-11-30"), written.fee("2025-12-01")),
        (10_000, 20_000)
    );
}

#[test]
fn a_change_names_only_what_it_changes() {
    let mut written = Written::new(json!({}));
    let now = "2025-11-30T12:00:00Z";
    let january = json!({"monthly_flat_fee_cents": 20_000, "effective_from": "2026-01-01"});
    written.write(now, january).unwrap();
    let vat = json!([{"name": "VAT", "jurisdiction": "DE", "percentage": "19"}]);
    written.write(now, json!({"taxes": vat})).unwrap();
    for on in ["2025-11-01", "2026-01-01", "2030-01-01"] {
        assert_eq!(written.history.on(day(on)).tax_rate_bps(), 1_900, "{on}");
    }
    assert_eq!(written.history.on(day("2025-10-31")).tax_rate_bps(), 0);
    assert_eq!(written.fee("2026-01-01"), 20_000);
    // Null restores the default.
    written
        .write(now, json!({"taxes": null, "effective_from": "2026-02-01"}))
        .unwrap();
    assert_eq!(written.history.on(day("2026-02-01")).tax_rate_bps(), 0);
    let (from, next) = written.history.next_change(day("2025-11-30")).unwrap();
    assert_eq!(
        (from, next["monthly_flat_fee_cents"].as_i64()),
        (day("2026-01-01"), Some(20_000))
    );
}

#[test]
fn what_was_before_the_running_cycle_is_changed_by_somebody_who_has_looked() {
    let mut written = Written::new(json!({"contract_start_date": "2025-10-11"}));
    let now = "2025-12-15T12:00:00Z";
    let price = |from: &str| json!({"monthly_flat_fee_cents": 5, "effective_from": from});
    assert_eq!(written.refusal(now, price("2025-11-01")), "effective_from");
    for from in ["2025-12-02", "2026-01-31"] {
        assert_eq!(
            written.refusal(now, price(from)),
            "effective_from",
            "{from} begins no cycle"
        );
    }
    let mut reviewed = price("2025-11-01");
    reviewed["reviewed"] = json!(true);
    written.write(now, reviewed).unwrap();
    // The first day of the contract is one as well.
    let mut first = price("2025-10-11");
    (first["reviewed"], first["monthly_flat_fee_cents"]) = (json!(true), json!(7));
    written.write(now, first).unwrap();
    assert_eq!(
        (
            written.fee("2025-10-10"),
            written.fee("2025-10-11"),
            written.fee("2025-11-01")
        ),
        (10_000, 7, 5)
    );
}

#[test]
fn what_is_not_valid_from_a_day_on_is_named_with_it() {
    let mut written = Written::new(json!({}));
    let now = "2025-11-30T12:00:00Z";
    let tiered = json!({"pricing_model": "per_deed", "effective_from": "2026-01-01"});
    let wanted = Written::wanted(tiered);
    let error = written.history.amend(&wanted, &[], at(now)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the pricing model per_deed needs it (from 2026-01-01 on)"
    );
    let per_deed = json!({"pricing_model": "per_deed", "per_deed_price_cents": 5, "effective_from": "2026-01-01"});
    written.write(now, per_deed).unwrap();
    // What is valid today has to be valid in January as well.
    let price = json!({"per_deed_price_cents": null, "effective_from": "2026-02-01"});
    assert_eq!(written.refusal(now, price), "per_deed_price_cents");
}

#[test]
fn a_status_changes_at_midnight_and_the_day_itself_is_billed() {
    let mut written = Written::new(json!({}));
    written
        .write("2025-11-10T12:00:00Z", json!({"status": "suspended"}))
        .unwrap();
    let today = day("2025-11-10");
    let projected = written.history.project(today).unwrap();
    assert_eq!(projected.terms.status, ContractStatus::Suspended);
    assert_eq!(projected.suspended_at, Some(at("2025-11-10T12:00:00Z")));
    assert!(written.history.is_billed(today) && !written.history.is_billed(day("2025-11-11")));
    // Resumed on the same day, nothing has happened.
    written
        .write("2025-11-10T18:00:00Z", json!({"status": "active"}))
        .unwrap();
    assert_eq!(written.history.changes().len(), 1);
    written
        .write("2025-11-10T19:00:00Z", json!({"status": "suspended"}))
        .unwrap();
    written
        .write("2025-11-20T08:00:00Z", json!({"status": "active"}))
        .unwrap();
    assert_eq!(
        written
            .history
            .project(day("2025-11-20"))
            .unwrap()
            .suspended_at,
        None
    );
    let calendar = Calendar::new(&written.history, &[]).unwrap();
    let november = calendar
        .unbilled(at("2025-12-01T00:00:00Z"))
        .unwrap()
        .remove(1);
    assert_eq!(november.share.billed_days, 21);
    assert_eq!(november.usage.len(), 2);
    // Canceled and at once active again on a later day: it goes on with its last terms, the days between are a gap.
    written
        .write("2025-12-05T08:00:00Z", json!({"status": "canceled"}))
        .unwrap();
    assert_eq!(
        written.refusal("2025-12-08T00:00:00Z", json!({"status": "suspended"})),
        Refused::Ended.to_string()
    );
    let projected = written.history.project(day("2025-12-05")).unwrap();
    assert_eq!(projected.terms.contract_end_date, Some(day("2025-12-05")));
    assert_eq!(projected.canceled_at, Some(at("2025-12-05T08:00:00Z")));
    written
        .write("2025-12-30T08:00:00Z", json!({"status": "active"}))
        .unwrap();
    let calendar = Calendar::new(&written.history, &[]).unwrap();
    let december = calendar
        .unbilled(at("2026-01-01T00:00:00Z"))
        .unwrap()
        .pop()
        .unwrap();
    assert_eq!(
        (
            december.first_day,
            december.last_day,
            december.share.billed_days
        ),
        (day("2025-12-01"), day("2025-12-31"), 7)
    );
}

#[test]
fn an_end_is_set_moved_and_taken_away() {
    let mut written = Written::new(json!({}));
    let end = |written: &Written, on: &str| {
        written
            .history
            .project(day(on))
            .unwrap()
            .terms
            .contract_end_date
    };
    written
        .write(
            "2025-11-10T12:00:00Z",
            json!({"contract_end_date": "2025-12-15"}),
        )
        .unwrap();
    assert_eq!(end(&written, "2025-11-10"), Some(day("2025-12-15")));
    assert_eq!(
        written.history.on(day("2025-12-16")).status,
        ContractStatus::Canceled
    );
    // Not in force yet: it is moved, or revoked with `active`.
    written
        .write(
            "2025-11-11T12:00:00Z",
            json!({"contract_end_date": "2025-11-20"}),
        )
        .unwrap();
    assert_eq!(written.history.changes().len(), 2);
    assert_eq!(end(&written, "2025-11-11"), Some(day("2025-11-20")));
    assert_eq!(
        written.billed("2025-11-21T00:00:00Z")[1..],
        ["2025-11-01..2025-11-20 10000"],
        "what is over is billed at once"
    );
    written
        .write("2025-11-12T12:00:00Z", json!({"status": "active"}))
        .unwrap();
    assert_eq!(end(&written, "2025-11-12"), None);
    written
        .write(
            "2025-11-12T12:00:00Z",
            json!({"contract_end_date": "2025-11-20"}),
        )
        .unwrap();
    // It has passed: the contract goes on from the day after it.
    written.invoiced =
        vec![Period::new(at("2025-10-01T00:00:00Z"), at("2025-11-21T00:00:00Z")).unwrap()];
    written
        .write(
            "2025-12-10T12:00:00Z",
            json!({"contract_end_date": "2026-01-31"}),
        )
        .unwrap();
    assert_eq!(
        written.billed("2026-03-01T00:00:00Z"),
        [
            "2025-11-21..2025-11-30 10000",
            "2025-12-01..2025-12-31 10000",
            "2026-01-01..2026-01-31 10000"
        ]
    );
    let before_start = json!({"contract_end_date": "2025-09-30"});
    assert_eq!(
        written.refusal("2025-12-10T12:00:00Z", before_start),
        "contract_end_date"
    );
}

#[test]
fn a_start_is_moved_until_something_is_invoiced() {
    let mut written = Written::new(json!({}));
    let now = "2025-11-10T12:00:00Z";
    written
        .write(now, json!({"contract_start_date": "2025-10-16"}))
        .unwrap();
    assert_eq!(written.billed(now), ["2025-10-16..2025-10-31 10000"]);
    written
        .write(now, json!({"contract_start_date": "2025-11-05"}))
        .unwrap();
    assert!(written.billed(now).is_empty());
    written.invoiced =
        vec![Period::new(at("2025-11-05T00:00:00Z"), at("2025-12-01T00:00:00Z")).unwrap()];
    let later = json!({"contract_start_date": "2025-12-01"});
    assert_eq!(
        written.refusal("2025-12-10T00:00:00Z", later),
        Refused::Invoiced.to_string()
    );
    assert_eq!(
        written.refusal(now, json!({"contract_start_date": null})),
        "contract_start_date"
    );
    // The same day again changes nothing.
    let same = written.history.changes().len();
    written
        .write(
            "2025-12-10T00:00:00Z",
            json!({"contract_start_date": "2025-11-05"}),
        )
        .unwrap();
    assert_eq!(written.history.changes().len(), same);
}

#[test]
fn a_return_has_its_own_start_terms_and_cycles() {
    let mut written = Written::new(json!({"billing_cycle": "quarterly"}));
    written
        .write("2025-11-10T12:00:00Z", json!({"status": "canceled"}))
        .unwrap();
    let back = json!({"contract_start_date": "2025-11-20", "pricing_model": "flat", "monthly_flat_fee_cents": 30_000});
    written.history = written
        .history
        .amended(
            &written
                .history
                .returned(members(back), at("2025-11-18T00:00:00Z"))
                .unwrap(),
        )
        .unwrap();
    assert_eq!(
        written.billed("2026-01-01T00:00:00Z"),
        [
            "2025-10-01..2025-11-10 10000",
            "2025-11-20..2025-11-30 30000",
            "2025-12-01..2025-12-31 30000"
        ],
        "what is not named has its default: the cycle is a month again"
    );
    // One that has not ended has nothing to come back from.
    let again = json!({"contract_start_date": "2026-03-01", "pricing_model": "flat", "monthly_flat_fee_cents": 1});
    assert!(
        written
            .history
            .returned(members(again), at("2025-11-18T00:00:00Z"))
            .is_none()
    );
}

#[test]
fn a_longer_cycle_is_counted_from_where_it_begins() {
    let mut written = Written::new(json!({}));
    let quarterly = json!({"billing_cycle": "quarterly", "effective_from": "2025-12-01"});
    written.write("2025-11-10T12:00:00Z", quarterly).unwrap();
    assert_eq!(
        written.billed("2026-03-01T00:00:00Z"),
        [
            "2025-10-01..2025-10-31 10000",
            "2025-11-01..2025-11-30 10000",
            "2025-12-01..2026-02-28 10000"
        ]
    );
}

/// A row, as it is read: with these columns over a flat one.
fn row(columns: Value) -> StoredRow {
    let mut all = json!({
        "api_key_prefix": "dp_pk_alpha", "pricing_model": "flat", "monthly_flat_fee_cents": 10_000,
        "contract_start_date": "2025-10-01", "billed_from": "2025-10-01", "status": "active"
    });
    for (name, value) in columns.as_object().unwrap() {
        all[name] = value.clone();
    }
    StoredRow {
        id: 1,
        members: members(all),
        suspended_at: None,
        canceled_at: None,
        suspensions: Vec::new(),
        updated_at: None,
        terms_since: day("2025-11-15"),
        projected_on: None,
        changes: Vec::new(),
    }
}

#[test]
fn a_row_from_before_is_read_as_its_terms_its_suspensions_and_its_end() {
    let suspensions = [
        ("2025-10-10T08:00:00Z", "2025-10-20T08:00:00Z"),
        ("2025-10-21T08:00:00Z", "2025-10-22T08:00:00Z"),
    ];
    let suspensions = suspensions.map(|(first, last)| Suspension {
        suspended_at: at(first),
        resumed_at: at(last),
    });
    let row = StoredRow {
        suspensions: suspensions.to_vec(),
        canceled_at: Some(at("2025-12-20T10:00:00Z")),
        ..row(json!({"status": "canceled", "contract_end_date": "2026-01-31"}))
    };
    let contract = row.read(at("2025-12-25T00:00:00Z")).unwrap();
    let changes: Vec<(Option<String>, String)> = contract
        .unstored
        .added
        .iter()
        .skip(1)
        .map(|change| {
            let from = change.effective_from.map(|day| day.to_string());
            (from, Value::Object(change.members.clone()).to_string())
        })
        .collect();
    let change = |from: &str, members: &str| (Some(from.to_owned()), members.to_owned());
    assert_eq!(
        changes,
        [
            change("2025-10-11", r#"{"status":"suspended"}"#),
            change("2025-10-20", r#"{"status":"active"}"#),
            change("2025-12-21", r#"{"status":"canceled"}"#),
            change("2025-11-01", r#"{"billable_status_codes":null}"#),
        ]
    );
    let history = &contract.history;
    assert_eq!(
        history.on(day("2025-10-31")).billable_status_codes,
        StatusCodes::All
    );
    assert_eq!(
        history.on(day("2025-11-01")).billable_status_codes,
        StatusCodes::default()
    );
    assert!(!history.is_billed(day("2025-10-15")) && history.is_billed(day("2025-10-21")));
    assert!(history.is_billed(day("2025-12-20")) && !history.is_billed(day("2025-12-21")));
}

#[test]
fn what_the_host_writes_is_read_as_if_a_person_had_entered_it_then() {
    let stored = row(json!({})).read(at("2025-11-15T00:00:00Z")).unwrap();
    let changes: Vec<Change> = (1..)
        .zip(stored.unstored.added)
        .map(|(id, change)| Change { id, ..change })
        .collect();
    let written = |columns: Value, suspended_at: Option<&str>, updated_at: &str| StoredRow {
        projected_on: Some(day("2025-11-16")),
        changes: changes.clone(),
        updated_at: Some(at(updated_at)),
        suspended_at: suspended_at.map(at),
        ..row(columns)
    };
    let ours = json!({"billable_status_codes": StatusCodes::default().to_string()});
    let with = |more: Value| {
        let mut columns = ours.clone();
        columns
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        columns
    };
    let read = |row: StoredRow| row.read(at("2025-12-01T00:05:00Z")).unwrap();
    let untouched = read(written(ours.clone(), None, "2025-11-15T00:00:00Z"));
    assert!(untouched.unstored.is_empty(), "{:?}", untouched.unstored);
    let price = read(written(
        with(json!({"monthly_flat_fee_cents": 20_000})),
        None,
        "2025-11-30T10:00:00Z",
    ));
    let fee = |on: &str| price.history.on(day(on)).monthly_flat_fee_cents;
    assert_eq!(
        (fee("2025-10-31"), fee("2025-11-01")),
        (Some(10_000), Some(20_000))
    );
    let suspended = read(written(
        with(json!({"status": "suspended"})),
        Some("2025-11-20T10:00:00Z"),
        "2025-11-20T10:00:00Z",
    ));
    assert!(
        suspended.history.is_billed(day("2025-11-20"))
            && !suspended.history.is_billed(day("2025-11-21"))
    );
    let ended = read(written(
        with(json!({"contract_end_date": "2025-11-25"})),
        None,
        "2025-11-20T10:00:00Z",
    ));
    assert_eq!(ended.history.ended_on(), Some(day("2025-11-26")));
    assert_eq!(ended.unstored.added.len(), 1);
}

/// One write: `(days later, what)`.
fn writes() -> impl Strategy<Value = Vec<(i64, u8, i64)>> {
    proptest::collection::vec((0_i64..40, 0_u8..9, 0_i64..400), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Whatever people write: every day that is billed is in one period of one set of terms, and no other day is.
    #[test]
    fn every_billed_day_is_in_one_period_with_its_own_terms(writes in writes(), zone in 0_usize..3) {
        let zone = ["UTC", "America/New_York", "Asia/Kolkata"][zone];
        let mut written = Written::new(json!({"timezone": zone}));
        let mut today = day("2025-09-20");
        for (days, what, number) in writes {
            today = today.saturating_add(days.days());
            let now = cycle::midnight(today, &TimeZone::get(zone).unwrap()).unwrap();
            let now = now.saturating_add(SignedDuration::from_hours(9)).unwrap().to_string();
            let later = today.saturating_add(number.days());
            let value = match what {
                0 => json!({"monthly_flat_fee_cents": number}),
                1 => json!({"monthly_flat_fee_cents": number, "effective_from": later.first_of_month()}),
                2 => json!({"status": "suspended"}),
                3 => json!({"status": "active"}),
                4 => json!({"status": "canceled"}),
                5 => json!({"contract_end_date": later}),
                6 => json!({"contract_end_date": null}),
                7 => json!({"billing_cycle": if number % 2 == 0 { "monthly" } else { "quarterly" }}),
                _ => json!({"contract_start_date": later}),
            };
            // Some are refused, and change nothing.
            let _refused = written.write(&now, value);
            if number % 7 == 0 && let Ok(back) = later.checked_add(1.day()) {
                let members = json!({"contract_start_date": back, "pricing_model": "flat",
                                     "monthly_flat_fee_cents": number});
                if let Some(amendment) = written.history.returned(members.as_object().unwrap().clone(), at(&now)) {
                    written.history = written.history.amended(&amendment).unwrap();
                }
            }
            // What the columns say reads back as nothing new.
            let day_of_write = written.history.day_of(at(&now)).unwrap();
            let projection = written.history.project(day_of_write).unwrap();
            let mut columns = columns(&projection.terms);
            columns.insert("api_key_prefix".to_owned(), json!("dp_pk_alpha"));
            let stored = StoredRow {
                id: 1, members: columns, suspended_at: projection.suspended_at, canceled_at: projection.canceled_at,
                suspensions: Vec::new(), updated_at: None, terms_since: day_of_write,
                projected_on: Some(day_of_write), changes: written.history.changes().to_vec(),
            };
            prop_assert!(stored.read(at(&now)).unwrap().unstored.is_empty());
        }
        let end = day("2029-12-31");
        let now = cycle::midnight(end, &TimeZone::get(zone).unwrap()).unwrap();
        let calendar = Calendar::new(&written.history, &[]).unwrap();
        let periods = calendar.unbilled(now).unwrap();
        for pair in periods.windows(2) {
            prop_assert!(pair[0].last_day < pair[1].first_day);
            prop_assert!(pair[0].period.end <= pair[1].period.start);
        }
        let mut billed = 0;
        let mut on = day("2025-09-01");
        let last = periods.last().map(|period| period.last_day);
        while last.is_some_and(|last| on <= last) {
            let zone = TimeZone::get(zone).unwrap();
            let noon = cycle::midnight(on, &zone).unwrap().saturating_add(SignedDuration::from_hours(12)).unwrap();
            let of_day: Vec<_> = periods.iter()
                .filter(|period| period.usage.iter().any(|stretch| stretch.contains(noon))).collect();
            prop_assert_eq!(of_day.len(), usize::from(written.history.is_billed(on)), "{}", on);
            if let Some(period) = of_day.first() {
                let terms = written.history.on(on);
                prop_assert_eq!(period.terms.monthly_flat_fee_cents, terms.monthly_flat_fee_cents);
                prop_assert_eq!(period.terms.pricing_model, PricingModel::Flat);
                billed += 1;
            }
            on = on.tomorrow().unwrap();
        }
        prop_assert_eq!(billed, periods.iter().map(|period| period.share.billed_days).sum::<i64>());
        for period in &periods {
            prop_assert!(period.share.billed_days <= period.share.cycle_days);
            prop_assert_eq!(period.terms.billing_cycle.months(), period.share.months);
            prop_assert!(matches!(period.terms.billing_cycle, BillingCycle::Monthly | BillingCycle::Quarterly));
        }
    }
}
