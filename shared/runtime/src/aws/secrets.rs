//! Secrets: from a plain variable locally, from Secrets Manager when deployed. Cached, and rotated without a restart.

use std::fmt;
use std::sync::Arc;

use aws_types::SdkConfig;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use tokio::sync::Mutex;

use crate::config::Environment;

/// How long a fetched secret is used without asking again.
const CACHED_FOR: SignedDuration = SignedDuration::from_mins(5);
/// A flood of bad signatures must not become a flood of calls to Secrets Manager.
const PAUSE_BETWEEN_FETCHES: SignedDuration = SignedDuration::from_secs(5);

/// Why a secret is not available.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither variable is set: a mistake of the deployment, never of the caller.
    #[error("neither {plain} nor {arn} is set")]
    NotConfigured {
        /// The variable that would hold the value.
        plain: &'static str,
        /// The variable that would name the secret.
        arn: &'static str,
    },
    /// The stored secret has no value in it, only separators or no text at all. Counts as unset.
    #[error("the secret that {arn} names holds no value")]
    Empty {
        /// The variable that names the secret.
        arn: &'static str,
    },
    /// Secrets Manager did not answer, and nothing is cached.
    #[error("the secret could not be fetched")]
    Unavailable(#[source] super::Error),
}

/// How the plain text of a secret is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One value, which may contain commas.
    Single,
    /// Values separated by commas: during a rotation the old and the new one.
    List,
}

/// One or several interchangeable values. Clones share the cache; `Debug` shows only where they come from.
///
/// A secret in Secrets Manager is a JSON list of strings, a JSON object (its texts are the values), or plain text in
/// its [`Form`].
#[derive(Clone)]
pub struct Secret {
    source: Arc<Source>,
}

enum Source {
    Unset {
        plain: &'static str,
        arn: &'static str,
    },
    Plain(Arc<[SecretString]>),
    Stored(Stored),
}

struct Stored {
    client: aws_sdk_secretsmanager::Client,
    /// The variable that names the secret, and its value.
    variable: &'static str,
    arn: String,
    form: Form,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    values: Option<Arc<[SecretString]>>,
    fetched_at: Option<Timestamp>,
    asked_at: Option<Timestamp>,
}

impl Secret {
    /// The value of the plain variable, otherwise the secret that the other one names. A variable without a value in
    /// it, such as `,` or `[]`, counts as unset. A missing secret is reported when it is needed: the function's other
    /// routes work without it.
    pub fn from_env(
        environment: &Environment,
        sdk: &SdkConfig,
        plain: &'static str,
        arn: &'static str,
        form: Form,
    ) -> Secret {
        let values = environment.optional(plain).map(|text| split(&text, form));
        let source = if let Some(values) = values.filter(|values| !values.is_empty()) {
            Source::Plain(values)
        } else if let Some(name) = environment.optional(arn) {
            Source::Stored(Stored {
                client: aws_sdk_secretsmanager::Client::new(&super::impatient(sdk)),
                variable: arn,
                arn: name,
                form,
                cache: Mutex::default(),
            })
        } else {
            Source::Unset { plain, arn }
        };
        Secret {
            source: Arc::new(source),
        }
    }

    /// Whether there is a value or a place to fetch it from.
    pub fn is_configured(&self) -> bool {
        !matches!(*self.source, Source::Unset { .. })
    }

    /// The values, fetched at most every five minutes. While Secrets Manager is unavailable, the values fetched before.
    pub async fn values(&self, now: Timestamp) -> Result<Arc<[SecretString]>, Error> {
        match &*self.source {
            Source::Unset { plain, arn } => Err(Error::NotConfigured { plain, arn }),
            Source::Plain(values) => Ok(values.clone()),
            Source::Stored(stored) => {
                let mut cache = stored.cache.lock().await;
                let values = match &cache.values {
                    Some(values) if !is_past(cache.fetched_at, CACHED_FOR, now) => values.clone(),
                    // The last fetch failed a moment ago.
                    Some(values) if !is_past(cache.asked_at, PAUSE_BETWEEN_FETCHES, now) => {
                        values.clone()
                    }
                    Some(values) => {
                        let before = values.clone();
                        match stored.fetch(&mut cache, now).await {
                            Ok(values) => values,
                            Err(error) => {
                                tracing::warn!(
                                    cause = crate::telemetry::cause_chain(&error),
                                    "a cached secret is used beyond its time"
                                );
                                before
                            }
                        }
                    }
                    None => stored.fetch(&mut cache, now).await?,
                };
                Ok(values)
            }
        }
    }

    /// To be called when a check against [`Secret::values`] failed: fetches again, unless that was just done. True when
    /// the values differ, so that checking again makes sense.
    pub async fn refresh(&self, now: Timestamp) -> Result<bool, Error> {
        let Source::Stored(stored) = &*self.source else {
            return Ok(false);
        };
        let mut cache = stored.cache.lock().await;
        if !is_past(cache.asked_at, PAUSE_BETWEEN_FETCHES, now) {
            return Ok(false);
        }
        let before = cache.values.clone();
        let after = stored.fetch(&mut cache, now).await?;
        Ok(!before.is_some_and(|before| same(&before, &after)))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.source {
            Source::Unset { .. } => formatter.write_str("Secret(unset)"),
            Source::Plain(_) => formatter.write_str("Secret([redacted])"),
            Source::Stored(stored) => write!(formatter, "Secret({})", stored.arn),
        }
    }
}

impl Stored {
    async fn fetch(&self, cache: &mut Cache, now: Timestamp) -> Result<Arc<[SecretString]>, Error> {
        cache.asked_at = Some(now);
        let answer = self.client.get_secret_value().secret_id(&self.arn).send();
        let answer = answer.await.map_err(|error| {
            Error::Unavailable(super::Error::unavailable("Secrets Manager", error))
        })?;
        let values = split(answer.secret_string().unwrap_or_default(), self.form);
        if values.is_empty() {
            return Err(Error::Empty { arn: self.variable });
        }
        cache.values = Some(values.clone());
        cache.fetched_at = Some(now);
        Ok(values)
    }
}

fn split(text: &str, form: Form) -> Arc<[SecretString]> {
    let text = text.trim();
    let texts: Vec<String> = match serde_json::from_str(text) {
        Ok(serde_json::Value::Array(items)) => texts_of(items),
        Ok(serde_json::Value::Object(fields)) => {
            texts_of(fields.into_iter().map(|(_, value)| value))
        }
        _ if form == Form::List => text.split(',').map(|part| part.trim().to_owned()).collect(),
        _ => vec![text.to_owned()],
    };
    texts
        .into_iter()
        .filter(|text| !text.trim().is_empty())
        .map(SecretString::from)
        .collect()
}

fn texts_of(values: impl IntoIterator<Item = serde_json::Value>) -> Vec<String> {
    values
        .into_iter()
        .filter_map(|value| value.as_str().map(str::to_owned))
        .collect()
}

fn is_past(since: Option<Timestamp>, pause: SignedDuration, now: Timestamp) -> bool {
    since.is_none_or(|since| now.duration_since(since) >= pause)
}

fn same(left: &[SecretString], right: &[SecretString]) -> bool {
    use secrecy::ExposeSecret;
    left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .all(|(left, right)| left.expose_secret() == right.expose_secret())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn texts(values: &[SecretString]) -> Vec<&str> {
        values.iter().map(ExposeSecret::expose_secret).collect()
    }

    fn secret(pairs: &[(&str, &str)], form: Form) -> Secret {
        let environment = Environment::from_pairs(pairs.iter().copied());
        let sdk = crate::aws::sdk_config(&environment);
        Secret::from_env(&environment, &sdk, "TOKENS", "TOKENS_ARN", form)
    }

    #[tokio::test]
    async fn a_plain_list_is_several_values_and_a_single_one_keeps_its_commas() {
        let now = Timestamp::UNIX_EPOCH;
        let list = secret(&[("TOKENS", "old, new,,")], Form::List);
        assert_eq!(texts(&list.values(now).await.unwrap()), ["old", "new"]);
        assert!(!list.refresh(now).await.unwrap());
        let single = secret(&[("TOKENS", "a,b")], Form::Single);
        assert_eq!(texts(&single.values(now).await.unwrap()), ["a,b"]);
        assert!(!format!("{list:?}").contains("old"));
    }

    #[tokio::test]
    async fn an_unset_secret_names_its_variables() {
        for text in [" ", ",", " , ,", "[]", "{}", r#"["", " "]"#] {
            let secret = secret(&[("TOKENS", text)], Form::List);
            assert!(!secret.is_configured(), "{text}");
            let error = secret.values(Timestamp::UNIX_EPOCH).await.unwrap_err();
            assert_eq!(error.to_string(), "neither TOKENS nor TOKENS_ARN is set");
        }
        let stored = secret(&[("TOKENS", ","), ("TOKENS_ARN", "arn:x")], Form::List);
        assert_eq!(format!("{stored:?}"), "Secret(arn:x)");
    }

    #[test]
    fn a_stored_secret_is_a_list_an_object_or_text() {
        assert_eq!(texts(&split(r#"["a,1","b"]"#, Form::List)), ["a,1", "b"]);
        assert_eq!(texts(&split(r#"{"key":"a"}"#, Form::Single)), ["a"]);
        assert_eq!(
            texts(&split("whsec_a,whsec_b\n", Form::List)),
            ["whsec_a", "whsec_b"]
        );
        assert_eq!(texts(&split("12345", Form::Single)), ["12345"]);
    }
}
