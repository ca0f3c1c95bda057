//! Enumerations of words: a column, a member of JSON and a parameter all write a state the same way.

/// Defines an enum whose variants are the words of a column, each written once. JSON and parameters use the same words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$of_variant:meta])* $variant:ident = $word:tt $(| $also:tt)*,)*
    }) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash,
            strum::EnumString, strum::IntoStaticStr, strum::VariantNames,
            serde::Serialize, serde::Deserialize, utoipa::ToSchema,
        )]
        pub enum $name {
            $(
                $(#[$of_variant])*
                #[strum(to_string = $word $(, serialize = $also)*)]
                #[serde(rename = $word)]
                $variant,
            )*
        }

        impl $name {
            /// Every word of the column, in the order of the variants.
            pub const WORDS: &[&str] = <$name as strum::VariantNames>::VARIANTS;

            /// The word as it is stored and answered.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                self.into()
            }

            /// What a word stands for; `None` when it is none of them.
            #[must_use]
            pub fn parse(word: &str) -> Option<$name> {
                word.parse().ok()
            }
        }
    };
}

pub(crate) use words;

#[cfg(test)]
mod tests {
    use serde_json::json;
    use utoipa::PartialSchema;

    use crate::partner::contract::PaymentTerms;
    use crate::stripe_objects::invoice::InvoiceStatus;

    #[test]
    fn a_word_is_the_same_in_the_column_in_json_and_in_the_document() {
        let schema = serde_json::to_value(PaymentTerms::schema()).unwrap();
        assert_eq!(schema["enum"], json!(PaymentTerms::WORDS));
        for word in PaymentTerms::WORDS {
            let terms = PaymentTerms::parse(word).unwrap();
            assert_eq!((terms.as_str(), json!(terms)), (*word, json!(word)));
        }
        assert_eq!(InvoiceStatus::parse("deleted"), Some(InvoiceStatus::Void));
        assert_eq!(InvoiceStatus::Void.as_str(), "void");
        assert_eq!(InvoiceStatus::parse("lost"), None);
    }
}
