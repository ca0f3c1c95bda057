//! The words that Stripe writes for the states of its objects.
//!
//! A row keeps the word as Stripe wrote it, because Stripe adds words without notice. Code compares these enums and not
//! texts; a word that is new to this code is `Unknown`.

macro_rules! statuses {
    ($(#[$doc:meta])* $name:ident { $($(#[$of_variant:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString)]
        #[strum(serialize_all = "snake_case")]
        pub enum $name {
            $($(#[$of_variant])* $variant,)*
            /// A word that this code does not know.
            #[strum(disabled)]
            Unknown,
        }

        impl $name {
            /// The status that a word of Stripe's stands for.
            #[must_use]
            pub fn of(word: &str) -> $name {
                word.parse().unwrap_or($name::Unknown)
            }
        }
    };
}

statuses!(
    /// The states of a subscription. Source:
    /// <https://docs.stripe.com/api/subscriptions/object#subscription_object-status>.
    SubscriptionStatus {
        Incomplete,
        IncompleteExpired,
        Trialing,
        Active,
        PastDue,
        Canceled,
        Unpaid,
        Paused,
    }
);

statuses!(
    /// The states of a payment intent.
    /// Source: <https://docs.stripe.com/api/payment_intents/object#payment_intent_object-status>.
    IntentStatus {
        RequiresPaymentMethod,
        /// `requires_payment_method` before API version 2019-02-11.
        RequiresSource,
        RequiresConfirmation,
        RequiresAction,
        /// `requires_action` before API version 2019-02-11.
        RequiresSourceAction,
        Processing,
        RequiresCapture,
        Canceled,
        Succeeded,
    }
);

statuses!(
    /// The states of a charge. Source: <https://docs.stripe.com/api/charges/object#charge_object-status>.
    ChargeStatus {
        Pending,
        Failed,
        Succeeded,
    }
);

statuses!(
    /// The states of a refund. Source: <https://docs.stripe.com/api/refunds/object#refund_object-status>.
    RefundStatus {
        Pending,
        RequiresAction,
        Succeeded,
        Failed,
        Canceled,
    }
);

statuses!(
    /// The states of a dispute. Source: <https://docs.stripe.com/api/disputes/object#dispute_object-status>.
    DisputeStatus {
        WarningNeedsResponse,
        WarningUnderReview,
        WarningClosed,
        NeedsResponse,
        UnderReview,
        Won,
        Lost,
        /// Closed by a refund of the charge.
        ChargeRefunded,
        Prevented,
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_stripes() {
        assert_eq!(
            SubscriptionStatus::of("past_due"),
            SubscriptionStatus::PastDue
        );
        assert_eq!(
            SubscriptionStatus::of("incomplete_expired"),
            SubscriptionStatus::IncompleteExpired
        );
        assert_eq!(
            IntentStatus::of("requires_source_action"),
            IntentStatus::RequiresSourceAction
        );
        assert_eq!(ChargeStatus::of("succeeded"), ChargeStatus::Succeeded);
        assert_eq!(
            RefundStatus::of("requires_action"),
            RefundStatus::RequiresAction
        );
        assert_eq!(
            DisputeStatus::of("warning_needs_response"),
            DisputeStatus::WarningNeedsResponse
        );
    }

    #[test]
    fn a_word_that_is_new_is_unknown() {
        for word in ["", "Active", "unknown", "a_word_of_next_year"] {
            assert_eq!(
                SubscriptionStatus::of(word),
                SubscriptionStatus::Unknown,
                "{word}"
            );
        }
    }
}
