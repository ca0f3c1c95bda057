//! Enumerations of words: a column, a member of JSON and a parameter all write a state the same way.

/// Defines an enum whose variants are the words of a column, each written once. JSON and parameters use the same words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$of_variant:meta])* $variant:ident = $word:literal $(| $also:literal)*,)*
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
            /// Every word.
            pub const WORDS: &[&str] = <$name as strum::VariantNames>::VARIANTS;

            /// The word.
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
