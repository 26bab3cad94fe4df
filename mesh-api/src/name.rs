//! Validated names. Each is parsed once at the edge and trusted afterwards.
//!
//! All of them are cheap to clone (one shared string) and compare as parsed values.

pub mod host;
pub mod kubernetes;
pub mod spiffe_id;

pub use host::Host;
pub use kubernetes::{Labels, Namespace, ObjectName, ServiceAccount};
pub use spiffe_id::{SpiffeId, TrustDomain};

/// Why a name was refused; `Display` is one clause fit for a field error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("{what} must not be empty")]
    Empty {
        /// What was being parsed, for instance `namespace`.
        what: &'static str,
    },
    /// The text is longer than its kind allows.
    #[error("{what} is {length} characters long, at most {max} are allowed")]
    TooLong {
        /// What was being parsed.
        what: &'static str,
        /// Length found, in bytes.
        length: usize,
        /// Longest allowed, in bytes.
        max: usize,
    },
    /// The text holds something its kind does not allow.
    #[error("{what} {text:?} {reason}")]
    Malformed {
        /// What was being parsed.
        what: &'static str,
        /// The offending text.
        text: String,
        /// A clause that completes the sentence.
        reason: &'static str,
    },
}

/// Declares a shared-string newtype whose only constructor is its parser.
macro_rules! shared_name {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Parses and validates `text`.
            ///
            /// # Errors
            /// The rule that `text` breaks.
            pub fn parse(text: &str) -> Result<Self, $crate::name::NameError> {
                $check(text).map(|valid| Self(valid.into()))
            }

            /// The validated text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::name::NameError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::name::NameError;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }
    };
}
pub(crate) use shared_name;
