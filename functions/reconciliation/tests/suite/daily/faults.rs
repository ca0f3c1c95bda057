//! Everything that can have gone wrong is found, called by its name, and put right where it can be.

use std::collections::{BTreeMap, BTreeSet};

use fake_stripe::account::Account;
use fake_stripe::objects::Metadata;
use fake_stripe::payments::Outcome;
use fake_stripe::{Shape, scenarios};
use jiff::SignedDuration;
use reconciliation::{Error, handle};
use serde_json::{Value, json};
use shared::ledger;

use super::site::{FEES, Site, assert_counts, at, morning, status, subscribe};
use super::year::{assert_same, ledger as rows_of};

/// What happened to whom.
struct Damage {
    site: Site,
    /// Ids by what was done to them.
    ids: BTreeMap<&'static str, String>,
}

fn pay(account: &mut Account, amount: i64) -> String {
    let customer = account.create_customer(None, None, Metadata::new());
    account
        .pay_once(&customer, amount, "usd", Outcome::Succeeds)
        .unwrap()
}

/// A day of business around a month's end, and everything done to it.
async fn damaged() -> Damage {
    let mut account = Account::new("Faults", at("2026-02-28T23:30:00Z"));
    let mut ids = BTreeMap::new();
    for (name, amount) in [
        ("lost", 1000),
        ("refunded", 2000),
        ("disputed", 3000),
        ("changed", 4000),
        ("deleted", 5000),
        ("fee", 6000),
        ("currency", 7000),
        ("sound", 8000),
    ] {
        let intent = pay(&mut account, amount);
        ids.insert(name, intent);
        account.advance(600);
    }
    let charge_of = |account: &Account, name: &str, ids: &BTreeMap<&str, String>| {
        account.charge_of(&ids[name]).unwrap()
    };
    for (name, of) in [("lost charge", "lost"), ("deleted charge", "deleted")] {
        let charge = charge_of(&account, of, &ids);
        ids.insert(name, charge);
    }
    for (name, of) in [("fee transaction", "fee"), ("lost transaction", "changed")] {
        let transaction = account.balance_transaction_of(&ids[of]).unwrap();
        ids.insert(name, transaction);
    }
    ids.insert(
        "tax rate",
        account.create_tax_rate(2_000, "GB", "United Kingdom"),
    );
    ids.insert("refund", account.refund(&ids["refunded"], 500).unwrap());
    ids.insert("dispute", account.dispute(&ids["disputed"]).unwrap());
    // In the last 24 hours of the window.
    account.set_now(at("2026-03-01T12:00:00Z"));
    let customer = account.create_customer(None, None, Metadata::new());
    let invoice = account
        .create_invoice(&customer, "usd", &[("Setup", 9900)])
        .unwrap();
    account.pay_invoice(&invoice, Outcome::Succeeds).unwrap();
    ids.insert("invoice payment", account.last_intent(&customer).unwrap());
    ids.insert("invoice", invoice);
    ids.insert("subscription", subscribe(&mut account));
    let missing = account.balance_transaction_of(&ids["sound"]).unwrap();
    ids.insert("payout", account.pay_out_balance().unwrap());
    account.lose_from_payout(&missing).unwrap();
    account.set_now(morning());

    let mut site = Site::new(account).await;
    site.add_user().await;
    let lost = [ids["lost"].clone(), ids["lost charge"].clone()];
    let (refund, dispute) = (ids["refund"].clone(), ids["dispute"].clone());
    site.deliver(|event| {
        let kind = event["type"].as_str().unwrap();
        let object = &event["data"]["object"];
        let id = object["id"].as_str().unwrap();
        !(lost.iter().any(|lost| lost == id)
            || id == refund
            || kind == "charge.refunded"
            || id == dispute
            || kind.starts_with("customer.subscription.")
            || kind == "invoice_payment.paid"
            || (kind.starts_with("invoice.") && object["status"] == "paid"))
    })
    .await;
    // What the look-ups of the fees have brought.
    for name in ["fee transaction", "lost transaction"] {
        let transaction = [site.fetched("balance_transactions", &ids[name]).await];
        let mut client = site.client().await;
        let applied = ledger::ingest_fetched(&mut client, &transaction, morning(), FEES);
        applied.await.unwrap();
    }
    Damage { site, ids }
}

impl Damage {
    /// What somebody did to the tables.
    async fn by_hand(&self) {
        let ids = &self.ids;
        let site = &self.site;
        for statement in [
            format!(
                "UPDATE payment_history SET amount_cents = 1 WHERE payment_key = '{}'",
                ids["changed"]
            ),
            format!(
                "UPDATE payment_history SET currency = 'EUR' WHERE payment_key = '{}'",
                ids["currency"]
            ),
            format!(
                "UPDATE balance_transactions SET fee_cents = 999, net_cents = 5001 WHERE stripe_balance_transaction_id = '{}'",
                ids["fee transaction"]
            ),
            format!(
                "DELETE FROM balance_transactions WHERE stripe_balance_transaction_id = '{}'",
                ids["lost transaction"]
            ),
            "INSERT INTO balance_transactions (stripe_balance_transaction_id, type, reporting_category, balance_type,
                 currency, amount_cents, fee_cents, net_cents, created_at)
             VALUES ('txn_extra', 'charge', 'charge', 'payments', 'USD', 100, 0, 100, '2026-03-01T12:00:00Z')"
                .to_owned(),
            format!(
                "UPDATE payouts SET status = 'in_transit' WHERE stripe_payout_id = '{}'",
                ids["payout"]
            ),
            "DELETE FROM tax_rates".to_owned(),
            format!(
                "DELETE FROM payment_attempts WHERE stripe_charge_id = '{}'",
                ids["deleted charge"]
            ),
            format!(
                "DELETE FROM payment_history WHERE payment_key = '{}'",
                ids["deleted"]
            ),
            "INSERT INTO payment_history (payment_key, stripe_payment_intent_id, amount_cents,
                 currency, status, created_at)
             VALUES ('pi_extra', 'pi_extra', 100, 'USD', 'succeeded', '2026-03-01T12:00:00Z')"
                .to_owned(),
            "UPDATE revenue_daily SET gross_cents = gross_cents + 1 WHERE day = '2026-03-01'"
                .to_owned(),
        ] {
            assert_eq!(site.execute(&statement).await, 1, "{statement}");
        }
    }

    /// What a run must report; the last word is the resolution.
    fn expected(&self, healed: &str) -> Vec<String> {
        let ids = &self.ids;
        let mut expected = vec![
            format!("missing_in_db charge {} {healed}", ids["lost charge"]),
            format!("missing_in_db payment_intent {} {healed}", ids["lost"]),
            format!("missing_in_db refund {} {healed}", ids["refund"]),
            format!("missing_in_db dispute {} {healed}", ids["dispute"]),
            format!("status_differs invoice {} {healed}", ids["invoice"]),
            format!("amount_differs invoice {} {healed}", ids["invoice"]),
            format!(
                "missing_in_db invoice_payment {}:{} {healed}",
                ids["invoice"], ids["invoice payment"]
            ),
            format!(
                "status_differs subscription {} {healed}",
                ids["subscription"]
            ),
            format!("amount_differs payment {} {healed}", ids["changed"]),
            format!("currency_differs payment {} {healed}", ids["currency"]),
            format!(
                "fee_differs balance_transaction {} {healed}",
                ids["fee transaction"]
            ),
            format!(
                "missing_in_db balance_transaction {} {healed}",
                ids["lost transaction"]
            ),
            format!("missing_in_stripe balance_transaction txn_extra open"),
            format!("status_differs payout {} {healed}", ids["payout"]),
            format!("missing_in_db tax_rate {} {healed}", ids["tax rate"]),
            format!("missing_in_db charge {} {healed}", ids["deleted charge"]),
            format!("missing_in_db payment {} {healed}", ids["deleted"]),
            format!("amount_differs revenue_daily 2026-03-01:USD {healed}"),
            format!("missing_in_stripe payment_intent pi_extra open"),
            format!("amount_differs payout {} open", ids["payout"]),
        ];
        expected.sort();
        expected
    }

    async fn assert_found(&self, healed: &str) {
        let items = self.site.items().await;
        let missing: Vec<String> = self
            .expected(healed)
            .into_iter()
            .filter(|expected| !items.contains(expected))
            .collect();
        assert!(missing.is_empty(), "missing {missing:#?}\nof {items:#?}");
    }

    async fn assert_healed(&self) {
        let ids = &self.ids;
        let site = &self.site;
        for (from, rows) in [
            (
                format!(
                    "payment_history WHERE payment_key = '{}' AND status = 'succeeded'
                     AND amount_cents = 1000 AND fee_source = 'actual'",
                    ids["lost"]
                ),
                1,
            ),
            (
                format!(
                    "payment_history WHERE payment_key = '{}' AND refund_amount_cents = 500
                     AND status = 'partially_refunded'",
                    ids["refunded"]
                ),
                1,
            ),
            (
                format!(
                    "payment_history WHERE payment_key = '{}' AND status = 'disputed'",
                    ids["disputed"]
                ),
                1,
            ),
            (
                format!(
                    "payment_history WHERE payment_key = '{}' AND amount_cents = 4000",
                    ids["changed"]
                ),
                1,
            ),
            (
                format!(
                    "payment_history WHERE payment_key = '{}' AND amount_cents = 5000",
                    ids["deleted"]
                ),
                1,
            ),
            (
                format!(
                    "payment_history WHERE payment_key = '{}' AND stripe_fee_cents = 204",
                    ids["fee"]
                ),
                1,
            ),
            (
                format!(
                    "payment_history WHERE payment_key = '{}' AND currency = 'USD'",
                    ids["currency"]
                ),
                1,
            ),
            (
                format!(
                    "invoices WHERE stripe_invoice_id = '{}' AND status = 'paid'",
                    ids["invoice"]
                ),
                1,
            ),
            (
                format!(
                    "subscriptions WHERE stripe_subscription_id = '{}' AND status = 'active'
                     AND mrr_cents = 2999",
                    ids["subscription"]
                ),
                1,
            ),
            (
                "payment_history WHERE payment_key = 'pi_extra'".to_owned(),
                1,
            ),
            ("users WHERE plan = 'professional'".to_owned(), 1),
        ] {
            assert_eq!(site.count(&from).await, rows, "{from}");
        }
    }
}

#[tokio::test]
async fn every_fault_is_found_and_healed_and_a_second_run_finds_nothing() {
    let damage = damaged().await;
    damage.by_hand().await;
    let only_told = damage.site.run_with(json!({"heal": false})).await.unwrap();
    assert_eq!(only_told["healed"], 0, "{only_told:#}");
    damage.assert_found("open").await;

    let summary = damage.site.run().await.unwrap();
    damage.assert_found("healed").await;
    damage.assert_healed().await;
    assert_eq!(summary["open"], 3, "{summary:#}");
    assert_eq!(summary["status"], "completed");
    let lines = summary["sums"].as_array().unwrap();
    assert_eq!(lines.len(), 1, "{summary:#}");
    assert_eq!(lines[0]["currency"], "USD");
    // The extra row is in the ledger's sum until somebody takes it out.
    assert_eq!(lines[0]["stripe_cents"], 9_900 + 2_999);
    assert_eq!(
        lines[0]["line"],
        format!(
            "Stripe 24h: {} vs DB 24h: {}",
            9_900 + 2_999,
            9_900 + 2_999 + 100
        )
    );
    let published = damage
        .site
        .count(
            "outbox WHERE detail_type LIKE 'reconciliation.%' AND published_at IS NOT NULL
             AND detail -> 'data' ->> 'open' = '3'",
        )
        .await;
    assert_eq!(published, 2);

    // What no run may put right stays open until somebody accepts it.
    let second = damage.site.run().await.unwrap();
    assert_counts(&second, 0, 3);
    damage.site.accept_open().await;
    let third = damage.site.run().await.unwrap();
    assert_counts(&third, 0, 0);
    assert_eq!(third["accepted"], 3);
    // Another difference of the same object is another matter.
    damage
        .site
        .execute("DELETE FROM payment_history WHERE payment_key = 'pi_extra'")
        .await;
    let lost_more = damage.site.stripe.with_account(|account| {
        let transaction = account.balance_transaction_of(&damage.ids["currency"])?;
        account.lose_from_payout(&transaction)
    });
    lost_more.unwrap();
    let fourth = damage.site.run().await.unwrap();
    assert_counts(&fourth, 0, 1);
    let line = &fourth["sums"][0];
    assert_eq!(line["stripe_cents"], line["ledger_cents"]);
}

#[tokio::test]
async fn objects_heal_what_no_event_is_left_of() {
    let damage = damaged().await;
    damage.by_hand().await;
    // As after thirty days, when Stripe has forgotten its events.
    damage.site.stripe.inject(status(500, "/v1/events", 1_000));
    let summary = match damage.site.run().await {
        Err(Error::Incomplete { summary }) => *summary,
        other => panic!("{other:?}"),
    };
    assert_eq!(summary["events_applied"], 0);
    damage.assert_found("healed").await;
    damage.assert_healed().await;
    assert_eq!(summary["open"], 3, "{summary:#}");
    let checked: Vec<&Value> = summary["not_checked"].as_array().unwrap().iter().collect();
    assert_eq!(checked.len(), 1);
    assert_eq!(checked[0]["what"], "events");

    damage.site.stripe.clear_faults();
    let second = damage.site.run().await.unwrap();
    assert_counts(&second, 0, 3);
    // The events come late, and change nothing any more.
    assert!(second["events_applied"].as_i64().unwrap() > 0);
    damage.assert_healed().await;
    assert_counts(&damage.site.run().await.unwrap(), 0, 3);
}

/// As long as Stripe keeps events.
const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

#[tokio::test]
async fn webhooks_of_every_type_may_be_lost() {
    let mut lost_types = BTreeSet::new();
    let mut all_types = BTreeSet::new();
    let mut equal_ledgers = 0;
    for scenario in scenarios() {
        let account = scenario.account();
        let kind_of = |event: &Value| event["type"].as_str().unwrap().to_owned();
        let types: BTreeSet<String> = account.events(Shape::Endive).iter().map(kind_of).collect();
        all_types.extend(types.clone());
        // All of a type that no scenario before has lost.
        let lost: BTreeSet<String> = types.difference(&lost_types).cloned().collect();
        if lost.is_empty() {
            continue;
        }
        lost_types.extend(lost.clone());
        let name = format!("{} without {lost:?}", scenario.name);
        let begun = at("2026-04-01T00:00:00Z");
        let now = account.now() + SignedDuration::from_hours(1);
        let is_kept = now.duration_since(begun) < KEPT;
        let mut site = Site::new(account).await;
        let mut undisturbed = Site::new(scenario.account()).await;
        for site in [&mut site, &mut undisturbed] {
            site.execute(&format!(
                "INSERT INTO users (id, email, full_name) VALUES ({}, 'buyer@example.com', 'Buyer')",
                scenario.user_id
            ))
            .await;
            site.stripe.with_account(|account| account.set_now(now));
        }
        site.deliver(|event| !lost.contains(&kind_of(event))).await;
        undisturbed.deliver_all().await;
        let event =
            json!({"detail-type": "reconciliation.daily", "time": now, "detail": {"since": begun}});
        let summary = handle(&site.app, event.clone(), now).await.unwrap();
        assert_eq!(summary["open"], 0, "{name}: {summary:#}");
        assert_eq!(summary["status"], "completed", "{name}: {summary:#}");
        let second = handle(&site.app, event.clone(), now).await.unwrap();
        assert_counts(&second, 0, 0);
        let summary = handle(&undisturbed.app, event, now).await.unwrap();
        assert_counts(&summary, 0, 0);
        // What Stripe has forgotten when it happened, the objects do not tell.
        if is_kept {
            let expected = rows_of(&undisturbed.client().await).await;
            let actual = rows_of(&site.client().await).await;
            assert_same(&name, &expected, &actual);
            equal_ledgers += 1;
        }
    }
    assert_eq!(lost_types, all_types);
    assert!(lost_types.len() > 30, "{lost_types:?}");
    assert!(equal_ledgers > 3, "{equal_ledgers}");
}
