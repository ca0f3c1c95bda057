//! The `Stripe-Signature` header: checking it on raw bytes, and making it for tests and the fake.
//!
//! <https://docs.stripe.com/webhooks#verify-manually>. Where Stripe's own libraries disagree with
//! one another, the stricter reading is taken: see `docs/adr/0007-signatures-are-read-strictly.md`.

use std::borrow::Cow;

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// The name of the header, in lower case.
pub const HEADER: &str = "stripe-signature";

/// How far the header's `t` may be from our clock, in seconds, in both directions.
pub const TOLERANCE_SECONDS: u64 = 300;

/// Why a delivery is refused. No variant contains any part of the header, the body or a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The header is missing or empty.
    #[error("the Stripe-Signature header is missing")]
    Missing,
    /// The header has no `t`, several, one that is not a plain decimal, or no `v1`.
    #[error("the Stripe-Signature header is malformed")]
    Malformed,
    /// No `v1` is the signature of this body under any configured secret.
    #[error("no signature matches")]
    NoMatch,
    /// Signed with our secret, but too long ago (a replay) or too far in the future.
    #[error("the signature's timestamp is outside the tolerance")]
    OutsideTolerance,
}

/// The header in the form [`verify`] expects. Several header lines are joined with commas (RFC 9110, 5.3), as API
/// Gateway does it, so that a second line cannot hide behind the first one.
pub fn header(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, Error> {
    let mut joined: Option<Cow<'_, str>> = None;
    for line in headers.get_all(HEADER) {
        // The source says only "not visible ASCII", which is what `Malformed` says.
        let line = std::str::from_utf8(line.as_bytes()).map_err(|_not_utf8| Error::Malformed)?;
        joined = Some(match joined {
            None => Cow::Borrowed(line),
            Some(before) => Cow::Owned(format!("{before},{line}")),
        });
    }
    Ok(joined)
}

/// Accepts iff the header has exactly one `t` of ASCII digits, a 64-hex `v1` that is the
/// HMAC-SHA256 of `t` + `.` + `body` under one of the `secrets` (the whole `whsec_…` text is the
/// key), and `t` is within [`TOLERANCE_SECONDS`] of `now`. Other keys, `v0` among them, are
/// ignored. `body` is what came over the wire, base64-decoded first where the gateway encoded it.
///
/// An empty secret matches nothing: anybody could sign with it.
pub fn verify(
    header: Option<&str>,
    body: &[u8],
    secrets: &[SecretString],
    now: Timestamp,
) -> Result<(), Error> {
    let header = header
        .filter(|text| !text.is_empty())
        .ok_or(Error::Missing)?;
    let Parsed { t, at, signatures } = parse(header)?;

    // Every pair is compared, so the time taken does not say which secret or `v1` it was.
    let mut matches = subtle::Choice::from(0);
    for secret in secrets
        .iter()
        .filter(|secret| !secret.expose_secret().is_empty())
    {
        let expected = mac(t, body, secret.expose_secret());
        for signature in &signatures {
            matches |= signature.ct_eq(&expected);
        }
    }
    if !bool::from(matches) {
        return Err(Error::NoMatch);
    }
    if now.as_second().abs_diff(at) > TOLERANCE_SECONDS {
        return Err(Error::OutsideTolerance);
    }
    Ok(())
}

/// The header that Stripe would send with `body` at that instant (the fraction of a second is cut).
pub fn sign(body: &[u8], secret: &SecretString, at: Timestamp) -> String {
    let t = at.as_second().to_string();
    let signature = hex::encode(mac(&t, body, secret.expose_secret()));
    format!("t={t},v1={signature}")
}

struct Parsed<'h> {
    /// The text as written: its characters are part of what is signed.
    t: &'h str,
    at: i64,
    /// The well-formed `v1` signatures; others cannot match and are left out.
    signatures: Vec<[u8; 32]>,
}

fn parse(header: &str) -> Result<Parsed<'_>, Error> {
    let mut t = None;
    let mut named_v1 = false;
    let mut signatures = Vec::new();
    for element in header.split(',') {
        match element.split_once('=') {
            Some(("t", value)) => match t {
                None => t = Some(value),
                Some(_) => return Err(Error::Malformed),
            },
            Some(("v1", value)) => {
                named_v1 = true;
                let mut signature = [0_u8; 32];
                if hex::decode_to_slice(value, &mut signature).is_ok() {
                    signatures.push(signature);
                }
            }
            Some(_unknown_key) => {}
            // A required key without a value: the sender is not Stripe.
            None if element == "t" || element == "v1" => return Err(Error::Malformed),
            None => {}
        }
    }
    let t = t.ok_or(Error::Malformed)?;
    // `i64::from_str` would accept a sign.
    if t.is_empty() || !t.bytes().all(|byte| byte.is_ascii_digit()) || !named_v1 {
        return Err(Error::Malformed);
    }
    // The source says only that there are too many digits.
    let at = t.parse().map_err(|_overflow| Error::Malformed)?;
    Ok(Parsed { t, at, signatures })
}

fn mac(t: &str, body: &[u8], secret: &str) -> [u8; 32] {
    // Unwrap safety: HMAC takes a key of any length.
    #[expect(clippy::unwrap_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(t.as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const NOW: i64 = 1_700_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn secrets(texts: &[&str]) -> Vec<SecretString> {
        texts.iter().map(|text| SecretString::from(*text)).collect()
    }

    fn check(header: &str, body: &[u8]) -> Result<(), Error> {
        verify(Some(header), body, &secrets(&["whsec_one"]), at(NOW))
    }

    /// Only the `v1` of [`sign`], for `t` = `NOW`.
    fn v1(body: &[u8], secret: &str) -> String {
        let header = sign(body, &SecretString::from(secret), at(NOW));
        header.split_once(",v1=").unwrap().1.to_owned()
    }

    /// Published with several Stripe client libraries (stripe-dotnet, async-stripe).
    #[test]
    fn the_published_vector_is_accepted() {
        let body = concat!(
            "{\n  \"id\": \"evt_123\",\n  \"object\": \"event\",\n  \"account\": \"acct_123\",\n",
            "  \"api_version\": \"2017-05-25\",\n  \"created\": 1533204620,\n  \"data\": {\n",
            "    \"object\": {\n      \"id\": \"ii_123\",\n      \"object\": \"invoiceitem\",\n",
            "      \"amount\": 1000,\n      \"currency\": \"usd\",\n      \"customer\": \"cus_123\",\n",
            "      \"date\": 1533204620,\n      \"description\": \"Test Invoice Item\",\n",
            "      \"discountable\": false,\n      \"invoice\": \"in_123\",\n      \"livemode\": false,\n",
            "      \"metadata\": {},\n      \"period\": {\n        \"start\": 1533204620,\n",
            "        \"end\": 1533204620\n      },\n      \"proration\": false,\n",
            "      \"quantity\": 3\n    }\n  },\n  \"livemode\": false,\n  \"pending_webhooks\": 1,\n",
            "  \"request\": {\n    \"id\": \"req_123\",\n",
            "    \"idempotency_key\": \"idempotency-key-123\"\n  },\n",
            "  \"type\": \"invoiceitem.created\"\n}\n",
        );
        let header = "t=1533204620,\
            v1=82216eca827bcb7b34b8055eb2d2d9e6bc13b9ac39ded14a61e69f70c565f53a,\
            v0=63f3a72374a733066c4be69ed7f8e5ac85c22c9f0a6a612ab9a025a9e4ee7eef";
        let secrets = secrets(&["webhook_secret"]);
        let now = at(1_533_204_620);
        assert_eq!(verify(Some(header), body.as_bytes(), &secrets, now), Ok(()));
        assert_eq!(
            verify(Some(header), body.trim_end().as_bytes(), &secrets, now),
            Err(Error::NoMatch)
        );
    }

    #[test]
    fn the_header_is_refused_for_a_reason() {
        let body = b"{}";
        let good = v1(body, "whsec_one");
        let other = v1(body, "whsec_other");
        let upper = good.to_uppercase();
        for (header, expected) in [
            (format!("t={NOW},v1={good}"), Ok(())),
            (format!("v1={good},t={NOW}"), Ok(())),
            (format!("t={NOW},v1={upper}"), Ok(())),
            (format!("t={NOW},v1={other},v1={good}"), Ok(())),
            (format!("t={NOW},v1=potato,v1={good}"), Ok(())),
            (format!("t={NOW},v1=,v1={good}"), Ok(())),
            (format!("t={NOW},v1={good},v0=00,v2=x=y,foo"), Ok(())),
            (format!("t={NOW},v1={good},"), Ok(())),
            (String::new(), Err(Error::Missing)),
            (" ".to_owned(), Err(Error::Malformed)),
            (format!("t={NOW}"), Err(Error::Malformed)),
            (format!("v1={good}"), Err(Error::Malformed)),
            (format!("t={NOW},v1"), Err(Error::Malformed)),
            (format!("t={NOW},v1,v1={good}"), Err(Error::Malformed)),
            (format!("t={NOW},t={NOW},v1={good}"), Err(Error::Malformed)),
            (format!("t=1,t={NOW},v1={good}"), Err(Error::Malformed)),
            (format!("t=,v1={good}"), Err(Error::Malformed)),
            (format!("t=+{NOW},v1={good}"), Err(Error::Malformed)),
            (format!("t=-{NOW},v1={good}"), Err(Error::Malformed)),
            (format!("t= {NOW},v1={good}"), Err(Error::Malformed)),
            (format!("t=1_700_000_000,v1={good}"), Err(Error::Malformed)),
            (format!("t=١٧٠٠٠٠٠٠٠٠,v1={good}"), Err(Error::Malformed)),
            (
                format!("t=99999999999999999999,v1={good}"),
                Err(Error::Malformed),
            ),
            (format!("t ={NOW},v1={good}"), Err(Error::Malformed)),
            (format!("T={NOW},v1={good}"), Err(Error::Malformed)),
            (format!("t=0{NOW},v1={good}"), Err(Error::NoMatch)),
            (format!("t={NOW},v1={other}"), Err(Error::NoMatch)),
            (format!("t={NOW},v1={good} "), Err(Error::NoMatch)),
            (format!("t={NOW},v1={good}00"), Err(Error::NoMatch)),
            (format!("t={NOW},v1={}", &good[..62]), Err(Error::NoMatch)),
            (format!("t={},v1={good}", NOW + 1), Err(Error::NoMatch)),
        ] {
            assert_eq!(check(&header, body), expected, "{header:?}");
        }
        assert_eq!(
            verify(None, body, &secrets(&["whsec_one"]), at(NOW)),
            Err(Error::Missing)
        );
    }

    #[test]
    fn the_tolerance_is_five_minutes_both_ways() {
        for (age, expected) in [
            (0, Ok(())),
            (300, Ok(())),
            (-300, Ok(())),
            (301, Err(Error::OutsideTolerance)),
            (-301, Err(Error::OutsideTolerance)),
        ] {
            let header = sign(b"x", &SecretString::from("whsec_one"), at(NOW - age));
            assert_eq!(check(&header, b"x"), expected, "age {age}");
        }
    }

    #[test]
    fn a_clock_before_1970_does_not_overflow() {
        let secret = SecretString::from("whsec_one");
        let header = format!(
            "t={},v1={}",
            i64::MAX,
            hex::encode(mac(&i64::MAX.to_string(), b"x", secret.expose_secret()))
        );
        assert_eq!(
            verify(Some(&header), b"x", &[secret], Timestamp::MIN),
            Err(Error::OutsideTolerance)
        );
    }

    #[test]
    fn either_secret_of_a_rotation_is_accepted() {
        let both = secrets(&["whsec_old", "whsec_new"]);
        for secret in &both {
            let header = sign(b"x", secret, at(NOW));
            assert_eq!(verify(Some(&header), b"x", &both, at(NOW)), Ok(()));
        }
        let header = sign(b"x", &both[0], at(NOW));
        assert_eq!(
            verify(Some(&header), b"x", &both[1..], at(NOW)),
            Err(Error::NoMatch)
        );
    }

    #[test]
    fn an_empty_secret_matches_nothing() {
        let header = sign(b"x", &SecretString::from(""), at(NOW));
        assert_eq!(
            verify(Some(&header), b"x", &secrets(&[""]), at(NOW)),
            Err(Error::NoMatch)
        );
        assert_eq!(
            verify(Some(&header), b"x", &[], at(NOW)),
            Err(Error::NoMatch)
        );
    }

    #[test]
    fn several_header_lines_are_one_value() {
        let secret = SecretString::from("whsec_one");
        let signed = sign(b"x", &secret, at(NOW));
        let read = |lines: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("Stripe-Signature", HeaderValue::from_bytes(line).unwrap());
            }
            let header = header(&headers)?;
            verify(
                header.as_deref(),
                b"x",
                std::slice::from_ref(&secret),
                at(NOW),
            )
        };
        let (t, v1) = signed.split_once(',').unwrap();
        assert_eq!(read(&[]), Err(Error::Missing));
        assert_eq!(read(&[signed.as_bytes()]), Ok(()));
        assert_eq!(read(&[t.as_bytes(), v1.as_bytes()]), Ok(()));
        // Two whole signatures have two `t`.
        assert_eq!(
            read(&[signed.as_bytes(), signed.as_bytes()]),
            Err(Error::Malformed)
        );
        assert_eq!(read(&[b"t=1,v1=\xff"]), Err(Error::Malformed));
    }

    proptest! {
        #[test]
        fn what_sign_makes_verify_accepts(
            body in proptest::collection::vec(any::<u8>(), 0..200),
            secret in "whsec_[a-zA-Z0-9]{1,40}",
            second in 0_i64..=253_402_207_200,
        ) {
            let secret = SecretString::from(secret);
            let header = sign(&body, &secret, at(second));
            prop_assert_eq!(verify(Some(&header), &body, &[secret], at(second)), Ok(()));
        }

        #[test]
        fn no_header_panics(header in any::<String>(), body in any::<Vec<u8>>()) {
            prop_assert!(check(&header, &body).is_err());
        }
    }
}
