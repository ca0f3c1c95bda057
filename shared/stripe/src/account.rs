//! Whose events and objects are ours: one account, in one mode.

use runtime::config::{self, Environment};
use serde_json::Value;

use crate::event::Event;

/// The account and the mode that the ledger is of. The default takes events of our account in either mode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// `None` takes both modes.
    livemode: Option<bool>,
    /// `acct_…`; `None` takes only what names no account.
    id: Option<String>,
}

/// Why an event is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// It is of the other mode.
    Livemode,
    /// It is of another account.
    Account,
}

impl Foreign {
    /// The word in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Foreign::Livemode => "livemode",
            Foreign::Account => "account",
        }
    }
}

impl Account {
    /// Reads `STRIPE_LIVEMODE` (`true`, `false` or `any`; default `true`) and `STRIPE_ACCOUNT` (`acct_…`).
    ///
    /// # Errors
    /// When one of them has another form.
    pub fn from_env(environment: &Environment) -> Result<Account, config::Error> {
        let invalid = |variable, reason: &str| config::Error::Invalid {
            variable,
            reason: reason.to_owned(),
        };
        let livemode = match environment.optional("STRIPE_LIVEMODE").as_deref() {
            None | Some("true") => Some(true),
            Some("false") => Some(false),
            Some("any") => None,
            Some(_) => return Err(invalid("STRIPE_LIVEMODE", "one of true, false, any")),
        };
        let id = environment.optional("STRIPE_ACCOUNT");
        if id.as_ref().is_some_and(|id| !id.starts_with("acct_")) {
            return Err(invalid("STRIPE_ACCOUNT", "an id that begins with acct_"));
        }
        Ok(Account { livemode, id })
    }

    /// Why the event is not ours; `None` when it is. One that says nothing of its mode, or names no account, is ours.
    #[must_use]
    pub fn foreign(&self, event: &Event) -> Option<Foreign> {
        if self.is_other_mode(event.livemode) {
            return Some(Foreign::Livemode);
        }
        let is_other_account = event.account.is_some() && event.account != self.id;
        is_other_account.then_some(Foreign::Account)
    }

    /// Whether an object that was fetched is of the other mode.
    #[must_use]
    pub fn is_foreign_object(&self, object: &Value) -> bool {
        self.is_other_mode(object.get("livemode").and_then(Value::as_bool))
    }

    fn is_other_mode(&self, livemode: Option<bool>) -> bool {
        matches!((self.livemode, livemode), (Some(ours), Some(its)) if ours != its)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn account(pairs: &[(&str, &str)]) -> Result<Account, String> {
        let environment = Environment::from_pairs(pairs.iter().copied());
        Account::from_env(&environment).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_ours_follows_from_mode_and_account() {
        let of = |livemode, id: Option<&str>| {
            let mut pairs = vec![("STRIPE_LIVEMODE", livemode)];
            pairs.extend(id.map(|id| ("STRIPE_ACCOUNT", id)));
            account(&pairs).unwrap()
        };
        let (mode, other) = (Some(Foreign::Livemode), Some(Foreign::Account));
        for (ours, envelope, expected) in [
            (of("true", None), json!({"livemode": true}), None),
            (of("true", None), json!({"livemode": false}), mode),
            (of("false", None), json!({"livemode": true}), mode),
            (of("false", None), json!({"livemode": false}), None),
            (of("any", None), json!({"livemode": false}), None),
            (of("true", None), json!({}), None),
            (of("true", None), json!({"livemode": "false"}), None),
            (of("true", None), json!({"livemode": null}), None),
            (of("any", None), json!({"account": "acct_1"}), other),
            (
                of("any", Some("acct_1")),
                json!({"account": "acct_1"}),
                None,
            ),
            (
                of("any", Some("acct_1")),
                json!({"account": "acct_2"}),
                other,
            ),
            (of("any", Some("acct_1")), json!({}), None),
            (
                of("any", Some("acct_1")),
                json!({"context": "acct_1"}),
                None,
            ),
            (
                of("any", Some("acct_1")),
                json!({"context": "org_9/acct_2/acct_1"}),
                None,
            ),
            (
                of("any", Some("acct_2")),
                json!({"context": "org_9/acct_2/acct_1"}),
                other,
            ),
            (of("any", None), json!({"context": "org_9"}), None),
            (
                of("any", None),
                json!({"context": null, "account": null}),
                None,
            ),
            (
                of("any", Some("acct_1")),
                json!({"account": "acct_1", "context": "acct_2"}),
                None,
            ),
        ] {
            let mut body = envelope.clone();
            body["id"] = "evt_1".into();
            body["type"] = "invoice.paid".into();
            let event = Event::from_value(body).unwrap();
            assert_eq!(ours.foreign(&event), expected, "{ours:?} {envelope}");
        }
    }

    #[test]
    fn only_live_events_are_ours_unless_it_is_said() {
        assert_eq!(account(&[]), account(&[("STRIPE_LIVEMODE", "true")]));
        assert_eq!(
            account(&[("STRIPE_LIVEMODE", "yes")]),
            Err(
                "the environment variable STRIPE_LIVEMODE is not valid: one of true, false, any"
                    .to_owned()
            )
        );
        assert_eq!(
            account(&[("STRIPE_ACCOUNT", "1")]),
            Err(
                "the environment variable STRIPE_ACCOUNT is not valid: an id that begins with acct_"
                    .to_owned()
            )
        );
    }
}
