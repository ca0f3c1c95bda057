//! Users and partners as paths and parameters name them.

use domain::usage::{Subject, parse_user_id};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use utoipa::{IntoParams, ToSchema};

/// `users.id` of the host application: digits, no sign, no leading zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(value_type = i32, minimum = 1)]
pub(crate) struct UserId(pub(crate) i32);

impl UserId {
    pub(crate) fn parse(text: &str) -> Option<UserId> {
        parse_user_id(text).map(UserId)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UserId, D::Error> {
        let text = String::deserialize(deserializer)?;
        UserId::parse(&text).ok_or_else(|| D::Error::custom("a user's number"))
    }
}

/// The prefix of a partner's API key: 1 to 255 characters, none of them a control character.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, min_length = 1, max_length = 255)]
pub(crate) struct Prefix(String);

impl Prefix {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The partner as the one who used something.
    pub(crate) fn subject(&self) -> Subject {
        Subject::Partner(self.0.clone())
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Prefix, D::Error> {
        let text = String::deserialize(deserializer)?;
        match Subject::parse(&format!("partner:{text}")) {
            Some(_) => Ok(Prefix(text)),
            None => Err(D::Error::custom("the prefix of an API key")),
        }
    }
}

/// The partner of a path.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct PartnerPath {
    /// The prefix of the partner's API key.
    #[param(inline)]
    pub(crate) prefix: Prefix,
}
