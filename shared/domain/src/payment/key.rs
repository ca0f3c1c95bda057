//! The key of a payment.

/// What a payment is known by. The key's text (`payment_history.payment_key`) begins with the prefix of the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentKey<'a> {
    /// The id of a payment intent at Stripe (`pi_…`).
    Intent(&'a str),
    /// The id of a charge without an intent (`ch_…`, `py_…`).
    Charge(&'a str),
    /// Money outside Stripe: the id of the payment record that stands for it (`pr_…`), or of the invoice (`in_…`).
    OutOfBand(&'a str),
    /// A wire, a check or an ACH transfer for an invoice that Stripe does not know (`manual:…`).
    Manual(&'a str),
}

impl<'a> PaymentKey<'a> {
    /// Reads the text of a key.
    #[must_use]
    pub fn of(text: &'a str) -> PaymentKey<'a> {
        if text.starts_with("pi_") {
            PaymentKey::Intent(text)
        } else if text.starts_with("in_") || text.starts_with("pr_") {
            PaymentKey::OutOfBand(text)
        } else if text.starts_with("manual:") {
            PaymentKey::Manual(text)
        } else {
            PaymentKey::Charge(text)
        }
    }

    /// The id of the intent; `None` for a payment without one.
    #[must_use]
    pub fn intent_id(self) -> Option<&'a str> {
        match self {
            PaymentKey::Intent(id) => Some(id),
            PaymentKey::Charge(_) | PaymentKey::OutOfBand(_) | PaymentKey::Manual(_) => None,
        }
    }

    /// The id of the charge; `None` when the payment is known by something else.
    #[must_use]
    pub fn charge_id(self) -> Option<&'a str> {
        match self {
            PaymentKey::Charge(id) => Some(id),
            PaymentKey::Intent(_) | PaymentKey::OutOfBand(_) | PaymentKey::Manual(_) => None,
        }
    }

    /// Whether Stripe collected the money.
    #[must_use]
    pub fn is_collected_by_stripe(self) -> bool {
        match self {
            PaymentKey::Intent(_) | PaymentKey::Charge(_) => true,
            PaymentKey::OutOfBand(_) | PaymentKey::Manual(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PaymentKey;

    #[test]
    fn the_prefix_says_what_a_payment_is_known_by() {
        for (key, intent_id, charge_id, by_stripe) in [
            ("pi_1", Some("pi_1"), None, true),
            ("ch_1", None, Some("ch_1"), true),
            ("py_1", None, Some("py_1"), true),
            ("in_1", None, None, false),
            ("pr_1", None, None, false),
            ("manual:9:W-1", None, None, false),
        ] {
            let read = PaymentKey::of(key);
            assert_eq!(read.intent_id(), intent_id, "{key}");
            assert_eq!(read.charge_id(), charge_id, "{key}");
            assert_eq!(read.is_collected_by_stripe(), by_stripe, "{key}");
        }
    }
}
