//! Who issues the invoices: what is printed on each of them, as the operator configures it.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use domain::partner::contract::PaymentMethod;

/// The issuer, read from one JSON object. Unknown members are refused, so that a typo is found at the start and not on
/// an invoice.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// The issuer's legal name.
    #[serde(deserialize_with = "not_blank")]
    pub name: String,
    /// The lines of the address, without the name.
    #[serde(default)]
    pub address: Vec<String>,
    #[serde(default)]
    pub tax_id: Option<String>,
    #[serde(default)]
    pub email: Option<String>,
    #[serde(default)]
    pub phone: Option<String>,
    #[serde(default)]
    pub website: Option<String>,
    /// The object key of a PNG or JPEG in the document bucket; `None` for no logo.
    #[serde(default)]
    pub logo_key: Option<String>,
    /// The colour of headings, written `#rrggbb`.
    #[serde(default)]
    pub brand_color: Color,
    #[serde(default)]
    pub page_size: PageSize,
    /// How to pay, by payment method of the contract: `stripe`, `wire`, `check`, `ach`.
    #[serde(default)]
    pub payment_instructions: PaymentInstructions,
    /// Notes that are printed at the end of every invoice.
    #[serde(default)]
    pub notes: Option<String>,
}

/// The lines that say how to pay, by payment method.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PaymentInstructions(BTreeMap<&'static str, Vec<String>>);

impl PaymentInstructions {
    /// The lines for one method; empty when none are configured.
    #[must_use]
    pub fn of(&self, method: PaymentMethod) -> &[String] {
        self.0.get(method.as_str()).map_or(&[], Vec::as_slice)
    }
}

/// A colour on screen, 0 to 255 per part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color {
    pub red: u8,
    pub green: u8,
    pub blue: u8,
}

/// The default brand colour: a calm blue.
impl Default for Color {
    fn default() -> Color {
        Color::new(0x1f, 0x4e, 0x8c)
    }
}

impl Color {
    /// A colour from its parts.
    #[must_use]
    pub const fn new(red: u8, green: u8, blue: u8) -> Color {
        Color { red, green, blue }
    }

    /// Reads a colour written `#rrggbb`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Color> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6)?;
        let part = |range| {
            let digits: &str = digits.get(range)?;
            let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)
        };
        Some(Color::new(part(0..2)?, part(2..4)?, part(4..6)?))
    }

    /// Whether text of this colour can be read on white, by its luma.
    pub(super) fn is_dark(self) -> bool {
        let luma =
            299 * u32::from(self.red) + 587 * u32::from(self.green) + 114 * u32::from(self.blue);
        luma < 150_000
    }
}

/// The paper that invoices are set for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageSize {
    /// US letter, 8.5 × 11 inches; the default.
    #[default]
    Letter,
    /// ISO A4, 210 × 297 millimetres.
    A4,
}

/// Why a text does not describe an issuer, and where in the text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(#[from] serde_json::Error);

impl FromStr for Issuer {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Issuer, Invalid> {
        Ok(serde_json::from_str(text)?)
    }
}

fn not_blank<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.trim().is_empty() {
        return Err(serde::de::Error::custom("name is blank"));
    }
    Ok(text)
}

impl<'de> Deserialize<'de> for Color {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Color, D::Error> {
        let text = String::deserialize(deserializer)?;
        Color::parse(&text).ok_or_else(|| serde::de::Error::custom("a colour is #rrggbb"))
    }
}

impl<'de> Deserialize<'de> for PaymentInstructions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PaymentInstructions, D::Error> {
        let lines = BTreeMap::<String, Vec<String>>::deserialize(deserializer)?;
        let by_method = lines.into_iter().map(|(method, lines)| {
            let method = PaymentMethod::parse(&method).ok_or_else(|| {
                serde::de::Error::custom("payment_instructions are by stripe, wire, check and ach")
            })?;
            Ok((method.as_str(), lines))
        });
        Ok(PaymentInstructions(by_method.collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_read_with_its_defaults() {
        let issuer: Issuer =
            r##"{"name": "DeedPro Inc.", "brand_color": "#0A7f00", "page_size": "a4",
            "payment_instructions": {"wire": ["IBAN DE00"]}}"##
                .parse()
                .unwrap();
        assert_eq!(issuer.brand_color, Color::new(10, 127, 0));
        assert_eq!(issuer.page_size, PageSize::A4);
        assert_eq!(
            issuer.payment_instructions.of(PaymentMethod::Wire),
            ["IBAN DE00"]
        );
        assert!(
            issuer
                .payment_instructions
                .of(PaymentMethod::Ach)
                .is_empty()
        );
        let least: Issuer = r#"{"name": "D"}"#.parse().unwrap();
        assert_eq!(
            (least.page_size, least.logo_key, least.address.len()),
            (PageSize::Letter, None, 0)
        );
    }

    #[test]
    fn what_is_no_issuer_is_refused_and_says_why() {
        for (text, why) in [
            ("{}", "name"),
            (r#"{"name": " "}"#, "blank"),
            (r#"{"name": "D", "adress": []}"#, "adress"),
            (r#"{"name": "D", "brand_color": "blue"}"#, "#rrggbb"),
            (r##"{"name": "D", "brand_color": "#+1+1+1"}"##, "#rrggbb"),
            (r#"{"name": "D", "page_size": "a5"}"#, "a5"),
            (
                r#"{"name": "D", "payment_instructions": {"cash": []}}"#,
                "wire",
            ),
            ("[]", "struct"),
        ] {
            let error = text.parse::<Issuer>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_light_colour_is_not_for_text() {
        assert!(Color::default().is_dark());
        assert!(Color::new(0, 0, 0).is_dark());
        assert!(!Color::new(255, 210, 0).is_dark());
        assert!(!Color::new(255, 255, 255).is_dark());
    }
}
