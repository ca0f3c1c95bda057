//! The sample story of `cargo run -p local`: a year of a small business, ten customers.
//!
//! The story ends at the start of the anchor's UTC day, and everything in it follows from the
//! anchor. A second start has to find the same events, so whoever starts the bundle keeps the
//! anchor of the first start (in its data directory) and passes it again.

use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

use super::Shape;
use super::account::{Account, NewCoupon, NewPrice, Refusal};
use super::billing::{Buyer, NewSubscription, Proration};
use super::payments::Outcome::{Fails, Succeeds};

const DAY: i64 = 86_400;
/// A renewal is charged an hour after its period began; leave it time to be over.
const RENEWAL_SECONDS: i64 = 2 * 3600;

/// The users of the host application the story is about: id, e-mail address, name.
#[must_use]
pub fn sample_users() -> Vec<(i32, &'static str, &'static str)> {
    vec![
        (101, "avery@example.com", "Avery Stone"),
        (102, "blake@example.com", "Blake Rivers"),
        (103, "casey@example.com", "Casey Field"),
        (104, "devon@example.com", "Devon Marsh"),
        (105, "ellis@example.com", "Ellis Wood"),
        (106, "frankie@example.com", "Frankie Hill"),
        (107, "gray@example.com", "Gray Lake"),
        (108, "harper@example.com", "Harper Klein"),
        (109, "indigo@example.com", "Indigo Tanaka"),
        (110, "jules@example.com", "Jules Moor"),
    ]
}

/// The story's events in `shape`, oldest first, over the year up to the day of `anchor`. The same
/// anchor day gives the same events, byte for byte.
#[must_use]
pub fn sample_story(shape: Shape, anchor: Timestamp) -> Vec<Value> {
    sample_account(anchor).events(shape)
}

/// The account the story leaves behind, for the fake Stripe to serve: what the events announced
/// is what its lists answer. Its clock stands at `anchor`.
///
/// # Panics
/// When the story does what a Stripe account refuses; that is a mistake in this file.
#[must_use]
pub fn sample_account(anchor: Timestamp) -> Account {
    let mut account = Account::new("Sample", anchor);
    tell(&mut account, end_of_story(anchor)).expect("the story only does what Stripe allows");
    account.set_now(anchor);
    account
}

/// The first instant of the anchor's UTC day, in Unix seconds.
fn end_of_story(anchor: Timestamp) -> i64 {
    anchor
        .to_zoned(TimeZone::UTC)
        .start_of_day()
        .map_or(anchor, |day| day.timestamp())
        .as_second()
}

fn buyer(user_id: i32, plan: &'static str) -> Buyer<'static> {
    let (_, email, name) = sample_users()
        .into_iter()
        .find(|(id, _, _)| *id == user_id)
        .expect("the story's buyers are sample users");
    Buyer {
        user_id,
        email,
        name,
        plan,
    }
}

fn one(price: &str) -> NewSubscription<'_> {
    NewSubscription {
        items: vec![(price, 1)],
        ..NewSubscription::default()
    }
}

/// Renews up to `times` times, as long as the renewal is over before `end`.
fn renew(account: &mut Account, subscription: &str, times: u32, end: i64) -> Result<(), Refusal> {
    for _ in 0..times {
        if account.subscriptions.get(subscription)?.current_period_end + RENEWAL_SECONDS > end {
            break;
        }
        account.renew(subscription, Succeeds)?;
    }
    Ok(())
}

/// The whole story. `end` is the instant it has to be over by; each customer's part begins that
/// many days before it, at some minute of a working day.
fn tell(account: &mut Account, end: i64) -> Result<(), Refusal> {
    let on = |account: &mut Account, days: i64, minute: i64| {
        account.now = end - days * DAY + minute * 60;
    };
    const ALWAYS: u32 = 100;

    on(account, 365, 480);
    let monthly = account.create_price(&NewPrice::monthly("usd", 2999, "professional"));
    let team = account.create_price(&NewPrice::monthly("usd", 9999, "enterprise"));
    let yearly = account.create_price(&NewPrice::yearly("usd", 99_990, "enterprise"));
    let euro = account.create_price(&NewPrice::monthly("eur", 2500, "professional"));
    let yen = account.create_price(&NewPrice::monthly("jpy", 2980, "professional"));
    let half = account.create_coupon(&NewCoupon {
        percent_off_bps: Some(5000),
        amount_off: None,
        duration: "forever",
        duration_in_months: None,
        prices: &[],
    });

    // Avery pays every month, without a hitch.
    on(account, 340, 611);
    let (_, subscription) = account.checkout(buyer(101, "professional"), &one(&monthly))?;
    renew(account, &subscription, ALWAYS, end)?;

    // Blake too, and got a third of one month back.
    on(account, 280, 545);
    let (customer, subscription) = account.checkout(buyer(102, "professional"), &one(&monthly))?;
    renew(account, &subscription, 3, end)?;
    account.advance(4 * DAY);
    let paid = account.last_intent(&customer)?;
    account.refund(&paid, 1000)?;
    renew(account, &subscription, ALWAYS, end)?;

    // Casey pays by the year, at half the price for ever.
    on(account, 300, 702);
    let new = NewSubscription {
        coupon: Some(&half),
        ..one(&yearly)
    };
    let (_, subscription) = account.checkout(buyer(103, "enterprise"), &new)?;
    renew(account, &subscription, ALWAYS, end)?;

    // Devon tried it for two weeks and stayed.
    on(account, 120, 833);
    let trial = NewSubscription {
        trial_days: Some(14),
        ..one(&monthly)
    };
    let (_, subscription) = account.checkout(buyer(104, "professional"), &trial)?;
    account.advance(11 * DAY);
    account.announce_trial_end(&subscription)?;
    renew(account, &subscription, ALWAYS, end)?;

    // Ellis's card was declined once; three days later it worked.
    on(account, 200, 590);
    let (_, subscription) = account.checkout(buyer(105, "professional"), &one(&monthly))?;
    renew(account, &subscription, 2, end)?;
    let invoice = account.renew(&subscription, Fails)?;
    account.advance(3 * DAY);
    account.retry(&invoice, Succeeds)?;
    renew(account, &subscription, ALWAYS, end)?;

    // Frankie's bank took a month back, and left.
    on(account, 240, 655);
    let (customer, subscription) = account.checkout(buyer(106, "professional"), &one(&monthly))?;
    renew(account, &subscription, 2, end)?;
    let disputed = account.last_intent(&customer)?;
    account.advance(9 * DAY);
    let dispute = account.dispute(&disputed)?;
    account.advance(DAY);
    account.submit_evidence(&dispute)?;
    account.cancel_now(&subscription)?;
    account.advance(45 * DAY);
    account.close_dispute(&dispute, false)?;

    // Gray canceled at the end of the fourth month.
    on(account, 180, 720);
    let (_, subscription) = account.checkout(buyer(107, "professional"), &one(&monthly))?;
    renew(account, &subscription, 3, end)?;
    account.advance(12 * DAY);
    account.cancel_at_period_end(&subscription, true)?;
    account.end_period(&subscription)?;

    // Harper pays in euros, with tax.
    on(account, 150, 505);
    let new = NewSubscription {
        tax_bps: 2000,
        ..one(&euro)
    };
    let (_, subscription) = account.checkout(buyer(108, "professional"), &new)?;
    renew(account, &subscription, ALWAYS, end)?;

    // Indigo pays in yen.
    on(account, 130, 60);
    let (_, subscription) = account.checkout(buyer(109, "professional"), &one(&yen))?;
    renew(account, &subscription, ALWAYS, end)?;

    // Jules moved up to the larger plan inside a month, and bought an hour of advice.
    on(account, 260, 900);
    let (customer, subscription) = account.checkout(buyer(110, "professional"), &one(&monthly))?;
    renew(account, &subscription, 4, end)?;
    account.advance(10 * DAY);
    account.change(
        &subscription,
        Some(&team),
        None,
        Proration::InvoiceNow(Succeeds),
    )?;
    account.advance(DAY);
    account.pay_once(&customer, 15_000, "usd", Succeeds)?;
    renew(account, &subscription, ALWAYS, end)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn anchor() -> Timestamp {
        "2026-11-22T15:04:05Z".parse().expect("an instant")
    }

    #[test]
    fn the_story_is_the_same_on_every_start_of_a_day_and_over_before_it() {
        for shape in Shape::ALL {
            let events = sample_story(shape, anchor());
            let later = "2026-11-22T23:59:59Z".parse().expect("an instant");
            assert_eq!(events, sample_story(shape, later));
            let ids: BTreeSet<String> =
                events.iter().map(|event| event["id"].to_string()).collect();
            assert_eq!(ids.len(), events.len());
            let times: Vec<i64> = events
                .iter()
                .map(|event| event["created"].as_i64().expect("a time"))
                .collect();
            assert!(times.is_sorted());
            let end = end_of_story(anchor());
            assert!(
                times
                    .iter()
                    .all(|time| (end - 366 * DAY..=end).contains(time))
            );
        }
    }

    #[test]
    fn the_story_has_everything_a_newcomer_should_see() {
        let account = sample_account(anchor());
        let statuses: Vec<&str> = account.subscriptions.iter().map(|one| one.status).collect();
        assert_eq!(statuses.iter().filter(|one| **one == "active").count(), 8);
        assert_eq!(statuses.iter().filter(|one| **one == "canceled").count(), 2);
        let currencies: BTreeSet<&str> = account
            .subscriptions
            .iter()
            .map(|one| one.currency.as_str())
            .collect();
        assert_eq!(currencies, BTreeSet::from(["eur", "jpy", "usd"]));
        assert_eq!(account.refunds.iter().count(), 1);
        assert_eq!(account.disputes.iter().count(), 1);
        let failed = account
            .charges
            .iter()
            .filter(|one| one.status == "failed")
            .count();
        assert_eq!(failed, 1);
        assert!(account.invoices.iter().all(|one| one.status == "paid"));
    }

    #[test]
    fn the_story_can_be_told_on_any_day_of_the_year() {
        let start = anchor();
        for days in 0..366 {
            let day = start + jiff::SignedDuration::from_hours(24 * days);
            let account = sample_account(day);
            assert!(
                account.invoices.iter().all(|one| one.status == "paid"),
                "{day}"
            );
        }
    }
}
