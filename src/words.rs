//! Enums whose values are the words of an option.

use crate::error::{Error, ErrorKind};

/// Gives an enum its words. Errors name the option.
macro_rules! words {
    ($name:ident of $option:literal: $($variant:ident $word:literal),+) => {
        impl $name {
            /// Returns the option's word for it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word),+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::Error;

            /// # Errors
            /// [`ErrorKind::Config`](crate::ErrorKind::Config) for any other word.
            fn from_str(word: &str) -> $crate::Result<$name> {
                match word {
                    $($word => Ok($name::$variant),)+
                    _ => Err($crate::words::unknown($option, word, &[$($word),+])),
                }
            }
        }
    };
}

pub(crate) use words;

/// The error for another word than these.
pub(crate) fn unknown(option: &str, word: &str, known: &[&str]) -> Error {
    let known = match known {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        few => few.concat(),
    };
    Error::new(ErrorKind::Config, format!("{option} {word:?}: expected {known}"))
}
