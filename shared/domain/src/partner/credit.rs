//! Credits: which of them an invoice takes, and how much.

use jiff::Timestamp;

use crate::words::words;

words!(
    /// Why a credit was granted.
    CreditReason {
        /// A refund that was issued as store credit.
        Refund = "refund",
        /// Part of an offer.
        Promotional = "promotional",
        /// To make something good.
        Goodwill = "goodwill",
        /// A disputed payment that came back.
        Chargeback = "chargeback",
    }
);

/// What remains of a credit, in minor units of the invoice's currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Available {
    /// The id in `credits`.
    pub credit_id: i64,
    pub remaining_cents: i64,
    /// When the credit expires; `None` means never.
    pub expires_at: Option<Timestamp>,
}

/// What an invoice takes of one credit; always more than zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Application {
    /// The id in `credits`.
    pub credit_id: i64,
    pub amount_cents: i64,
}

/// Takes up to `due_cents` from the credits. Credits that expire first come first, those that never expire come last,
/// and among equals the older one (by id) comes first. A credit that has expired by `now` is left alone.
#[must_use]
pub fn apply(credits: &[Available], due_cents: i64, now: Timestamp) -> Vec<Application> {
    let mut usable: Vec<&Available> = credits
        .iter()
        .filter(|credit| credit.remaining_cents > 0)
        .filter(|credit| credit.expires_at.is_none_or(|expiry| expiry > now))
        .collect();
    usable.sort_by_key(|credit| {
        (
            credit.expires_at.unwrap_or(Timestamp::MAX),
            credit.credit_id,
        )
    });
    let mut due_cents = due_cents.max(0);
    let mut applications = Vec::new();
    for credit in usable {
        let amount_cents = credit.remaining_cents.min(due_cents);
        if amount_cents == 0 {
            break;
        }
        due_cents -= amount_cents;
        applications.push(Application {
            credit_id: credit.credit_id,
            amount_cents,
        });
    }
    applications
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn available(credit_id: i64, remaining_cents: i64, expires_at: Option<&str>) -> Available {
        Available {
            credit_id,
            remaining_cents,
            expires_at: expires_at.map(|at| at.parse().unwrap()),
        }
    }

    #[test]
    fn what_expires_first_is_taken_first() {
        let now = "2025-12-01T00:00:00Z".parse().unwrap();
        let credits = [
            available(1, 500, None),
            available(2, 300, Some("2026-06-01T00:00:00Z")),
            available(3, 200, Some("2026-01-01T00:00:00Z")),
            available(4, 900, Some("2025-12-01T00:00:00Z")),
            available(5, 0, Some("2025-12-24T00:00:00Z")),
            available(6, 700, None),
        ];
        let taken = |due_cents| -> Vec<(i64, i64)> {
            let applications = apply(&credits, due_cents, now);
            applications
                .iter()
                .map(|application| (application.credit_id, application.amount_cents))
                .collect()
        };
        assert_eq!(taken(600), [(3, 200), (2, 300), (1, 100)]);
        assert_eq!(taken(200), [(3, 200)]);
        assert_eq!(taken(5_000), [(3, 200), (2, 300), (1, 500), (6, 700)]);
        assert!(taken(0).is_empty());
        assert!(taken(-5).is_empty());
    }

    proptest! {
        #[test]
        fn never_more_than_is_due_or_there(
            remaining in proptest::collection::vec(-5_i64..1_000, 0..10),
            due_cents in -10_i64..5_000,
        ) {
            let credits: Vec<Available> = (1..)
                .zip(&remaining)
                .map(|(credit_id, cents)| available(credit_id, *cents, None))
                .collect();
            let applications = apply(&credits, due_cents, Timestamp::UNIX_EPOCH);
            let sum: i64 = applications.iter().map(|application| application.amount_cents).sum();
            let there: i64 = remaining.iter().map(|cents| (*cents).max(0)).sum();
            prop_assert_eq!(sum, there.min(due_cents.max(0)));
            prop_assert!(applications.iter().all(|application| application.amount_cents > 0));
        }
    }
}
