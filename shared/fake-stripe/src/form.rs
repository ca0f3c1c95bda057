//! Stripe's form encoding: `metadata[plan]=x`, `created[gte]=1`, `expand[]=a&expand[]=b`.

use super::account::Refusal;
use super::objects::Metadata;

/// The parameters of a request, in the order they came.
#[derive(Debug, Clone, Default)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Parses a query string or a form body.
    pub(super) fn parse(text: &[u8]) -> Form {
        Form(form_urlencoded::parse(text).into_owned().collect())
    }

    /// A parameter's value; the empty text is none, as Stripe has it.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// A parameter's value, or Stripe's answer when it is missing.
    pub(super) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| {
            Refusal::parameter(
                name,
                "parameter_missing",
                format!("Missing required param: {name}."),
            )
        })
    }

    /// An integer, when it is there.
    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let invalid = |text: &str| {
            Refusal::parameter(
                name,
                "parameter_invalid_integer",
                format!("Invalid integer: {text}"),
            )
        };
        self.get(name)
            .map(|text| text.parse().ok().ok_or_else(|| invalid(text)))
            .transpose()
    }

    /// A truth value, `false` when absent.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// All values of a list: `name[]`, `name[0]`, … or a single `name`.
    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        self.0
            .iter()
            .filter(|(key, _)| inner(key, name).is_some() || key == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The pairs of a map: `name[key]=value`.
    pub(super) fn map(&self, name: &str) -> Metadata {
        self.0
            .iter()
            .filter_map(|(key, value)| Some((inner(key, name)?.to_owned(), value.clone())))
            .collect()
    }

    /// The names of all parameters without their brackets.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .map(|(key, _)| key.split('[').next().unwrap_or(key))
    }
}

/// What stands in the brackets of `name[…]`.
fn inner<'a>(key: &'a str, name: &str) -> Option<&'a str> {
    key.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_are_read_as_stripe_writes_them() {
        let form = Form::parse(
            b"expand[]=a.b&expand%5B1%5D=c&created[gte]=5&metadata[plan]=pro+max&limit=&x=%C3%A9",
        );
        assert_eq!(form.list("expand"), ["a.b", "c"]);
        assert_eq!(form.integer("created[gte]"), Ok(Some(5)));
        assert_eq!(
            form.map("metadata").get("plan").map(String::as_str),
            Some("pro max")
        );
        assert_eq!(form.get("limit"), None);
        assert_eq!(form.get("x"), Some("é"));
        assert!(form.integer("metadata[plan]").is_err());
    }
}
