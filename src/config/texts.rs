//! The checked types of text: what cannot be used never gets past the reader.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _, Unexpected};
use serde::{Serialize, Serializer};

/// Where an HTTP interface is: `http` or `https`, a host, no name or password, no slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(String);

/// A glob that can be matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathGlob(String);

/// A filter for logs that `tracing-subscriber` understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

/// A model's name: not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName(String);

/// Types that hold checked text.
macro_rules! text {
    ($($name:ident: $check:ident, $expected:literal, $description:literal;)*) => {$(
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text.
            #[must_use]
            pub fn into_string(self) -> String {
                self.0
            }

            /// The text, checked.
            #[must_use]
            pub fn new(text: &str) -> Option<Self> {
                $check(text).map(Self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text)
                    .ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &$expected))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(serializer)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $description })
            }
        }
    )*};
}

text! {
    BaseUrl: checked_url, "an address such as `https://api.anthropic.com`, without a name or password; without TLS only \
         on this machine, since the key would travel in the clear",
        "An address that begins with https://, or with http:// on this machine.";
    PathGlob: checked_glob, "a glob such as `**/*.pem`", "A glob, such as `**/*.pem`.";
    LogFilter: checked_filter, "a filter such as `info` or `tandem=debug`",
        "A level (`error`, `warn`, `info`, `debug`, `trace`), or levels for modules.";
    ModelName: checked_name, "the name of a model", "The name of a model.";
}

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program(Vec<String>);

impl Program {
    /// The program first, then its arguments; `None` without a program.
    #[must_use]
    pub fn new(argv: Vec<String>) -> Option<Self> {
        argv.first()
            .is_some_and(|program| !program.is_empty())
            .then_some(Self(argv))
    }

    /// The program first, then its arguments.
    #[must_use]
    pub fn into_argv(self) -> Vec<String> {
        self.0
    }
}

impl<'de> Deserialize<'de> for Program {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::deserialize(deserializer)?)
            .ok_or_else(|| D::Error::invalid_length(0, &"a program and its arguments, as a list"))
    }
}

impl Serialize for Program {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for Program {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Program".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": { "type": "string" }, "minItems": 1 })
    }
}

fn checked_url(text: &str) -> Option<String> {
    let url = text.trim().trim_end_matches('/');
    let (rest, in_the_clear) = match url.strip_prefix("https://") {
        Some(rest) => (rest, false),
        None => (url.strip_prefix("http://")?, true),
    };
    let host = rest.split(['/', '?', '#']).next()?;
    let sound = !host.is_empty()
        && (!in_the_clear || is_this_machine(host))
        && !host.contains('@')
        && !rest.contains(['?', '#'])
        && !rest.contains(|c: char| c.is_whitespace() || c.is_control());
    sound.then(|| url.to_owned())
}

/// Whether a host, perhaps with a port, is this machine whatever a name server says.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn checked_glob(text: &str) -> Option<String> {
    (!text.is_empty() && globset::Glob::new(text).is_ok()).then(|| text.to_owned())
}

fn checked_filter(text: &str) -> Option<String> {
    tracing_subscriber::EnvFilter::try_new(text)
        .is_ok()
        .then(|| text.to_owned())
}

fn checked_name(text: &str) -> Option<String> {
    let name = text.trim();
    (!name.is_empty() && !name.contains(char::is_control)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_hold_no_secrets() {
        for (text, kept) in [
            (
                "https://api.anthropic.com/",
                Some("https://api.anthropic.com"),
            ),
            ("http://127.0.0.1:8080", Some("http://127.0.0.1:8080")),
            ("http://LOCALHOST/v1", Some("http://LOCALHOST/v1")),
            ("http://[::1]:80", Some("http://[::1]:80")),
            ("http://gateway:8080", None),
            ("http://127.0.0.1.evil.example", None),
            ("http://localhost.evil.example", None),
            ("https://proxy/anthropic", Some("https://proxy/anthropic")),
            ("https://user:word@host", None),
            ("https://host?key=1", None),
            ("ftp://host", None),
            ("https://", None),
            ("https://a b", None),
        ] {
            assert_eq!(checked_url(text).as_deref(), kept, "{text}");
        }
    }
}
