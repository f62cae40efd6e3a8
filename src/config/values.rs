//! The checked types of numbers, times and sizes: what is out of range never gets past the reader.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _, Unexpected, Visitor};
use serde::{Serialize, Serializer};

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<const MIN: usize, const MAX: usize>(usize);

/// A time from `MIN` to `MAX` milliseconds. Written with its unit (`75ms`, `1.5s`, `10m`, `1h`); a
/// bare whole number counts milliseconds, as editors write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span<const MIN: u64, const MAX: u64>(Duration);

/// A time as in [`Span`], or `auto`, where it is found out. In milliseconds, between `MIN` and `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutoSpan<const MIN: u64, const MAX: u64>(Option<Duration>);

/// A number of bytes. Written with its unit (`256MiB`, `1GiB`, `512KiB`; powers of 1024, as caches
/// are counted); a bare whole number counts bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(usize);

/// An amount of US dollars, not negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dollars(f64);

/// A switch that can be switched off, and not on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Off;

impl<const MIN: usize, const MAX: usize> Count<MIN, MAX> {
    /// The number, where it is within the range.
    #[must_use]
    pub fn new(number: usize) -> Option<Self> {
        (MIN..=MAX).contains(&number).then_some(Self(number))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> usize {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> Span<MIN, MAX> {
    /// The time.
    #[must_use]
    pub fn get(self) -> Duration {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> From<Duration> for Span<MIN, MAX> {
    fn from(time: Duration) -> Self {
        Self(time)
    }
}

impl<const MIN: u64, const MAX: u64> AutoSpan<MIN, MAX> {
    /// The time; `None` for `auto`.
    #[must_use]
    pub fn get(self) -> Option<Duration> {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> From<Option<Duration>> for AutoSpan<MIN, MAX> {
    fn from(time: Option<Duration>) -> Self {
        Self(time)
    }
}

impl Bytes {
    /// The number.
    #[must_use]
    pub fn get(self) -> usize {
        self.0
    }
}

impl From<usize> for Bytes {
    fn from(bytes: usize) -> Self {
        Self(bytes)
    }
}

impl Dollars {
    /// The amount.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl From<f64> for Dollars {
    fn from(amount: f64) -> Self {
        Self(amount)
    }
}

/// Splits `75ms` into its number and its unit.
fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim()))
}

fn span(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return None,
    };
    // Whole milliseconds, so that what is read is what is written back.
    let milliseconds = (number * seconds * 1000.0).round();
    (milliseconds < 1e15).then(|| Duration::from_millis(milliseconds as u64))
}

fn spelled_span(time: Duration) -> String {
    let milliseconds = time.as_millis();
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if milliseconds > 0 && milliseconds.is_multiple_of(size) {
            return format!("{}{unit}", milliseconds / size);
        }
    }
    format!("{milliseconds}ms")
}

fn bytes(text: &str) -> Option<usize> {
    let (number, unit) = number_and_unit(text)?;
    let size = match unit.to_ascii_lowercase().as_str() {
        "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1024.0 * 1024.0,
        "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bytes = (number * size).round();
    // More than any machine has; exact in a float.
    (bytes < (1_u64 << 48) as f64).then_some(bytes as usize)
}

fn spelled_bytes(bytes: usize) -> String {
    for (unit, size) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    format!("{bytes}B")
}

struct CountVisitor<const MIN: usize, const MAX: usize>;

impl<const MIN: usize, const MAX: usize> Visitor<'_> for CountVisitor<MIN, MAX> {
    type Value = Count<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
        usize::try_from(number)
            .ok()
            .and_then(Count::new)
            .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Self::Value, E> {
        Err(E::invalid_value(Unexpected::Signed(number), &self))
    }

    /// Editors keep settings as JSON numbers, some of which come as `64.0`.
    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Self::Value, E> {
        if number.fract() == 0.0 && (0.0..1e15).contains(&number) {
            return self.visit_u64(number as u64);
        }
        Err(E::invalid_value(Unexpected::Float(number), &self))
    }
}

impl<'de, const MIN: usize, const MAX: usize> Deserialize<'de> for Count<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }
}

impl<const MIN: usize, const MAX: usize> Serialize for Count<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<const MIN: usize, const MAX: usize> JsonSchema for Count<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Count_{MIN}_{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

struct SpanVisitor<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> SpanVisitor<MIN, MAX> {
    fn checked(time: Duration) -> Option<Span<MIN, MAX>> {
        u64::try_from(time.as_millis())
            .is_ok_and(|time| (MIN..=MAX).contains(&time))
            .then_some(Span(time))
    }
}

impl<const MIN: u64, const MAX: u64> Visitor<'_> for SpanVisitor<MIN, MAX> {
    type Value = Span<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a time from {} to {}, such as `75ms`, `2s` or `10m`",
            spelled_span(Duration::from_millis(MIN)),
            spelled_span(Duration::from_millis(MAX))
        )
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        span(text)
            .and_then(Self::checked)
            .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
        Self::checked(Duration::from_millis(number))
            .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Self::Value, E> {
        if number.fract() == 0.0 && (0.0..1e15).contains(&number) {
            return self.visit_u64(number as u64);
        }
        Err(E::invalid_value(Unexpected::Float(number), &self))
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Span<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpanVisitor)
    }
}

impl<const MIN: u64, const MAX: u64> Serialize for Span<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        spelled_span(self.0).serialize(serializer)
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Span<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Span_{MIN}_{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "pattern": "^\\s*[0-9.]+\\s*(ms|s|m|min|h|d)\\s*$" },
                { "type": "integer", "minimum": MIN, "maximum": MAX },
            ],
        })
    }
}

/// How a time is written that is to be found out.
const AUTO: &str = "auto";

struct AutoSpanVisitor<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Visitor<'_> for AutoSpanVisitor<MIN, MAX> {
    type Value = AutoSpan<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{AUTO}`, or ")?;
        SpanVisitor::<MIN, MAX>.expecting(f)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        if text.trim() == AUTO {
            return Ok(AutoSpan(None));
        }
        span(text)
            .and_then(SpanVisitor::<MIN, MAX>::checked)
            .map(|span| AutoSpan(Some(span.get())))
            .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
        SpanVisitor::<MIN, MAX>::checked(Duration::from_millis(number))
            .map(|span| AutoSpan(Some(span.get())))
            .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Self::Value, E> {
        if number.fract() == 0.0 && (0.0..1e15).contains(&number) {
            return self.visit_u64(number as u64);
        }
        Err(E::invalid_value(Unexpected::Float(number), &self))
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for AutoSpan<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AutoSpanVisitor)
    }
}

impl<const MIN: u64, const MAX: u64> Serialize for AutoSpan<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            None => AUTO.serialize(serializer),
            Some(time) => spelled_span(time).serialize(serializer),
        }
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for AutoSpan<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("AutoSpan_{MIN}_{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                {
                    "type": "string",
                    "pattern": "^\\s*(auto|[0-9.]+\\s*(ms|s|m|min|h|d))\\s*$",
                },
                { "type": "integer", "minimum": MIN, "maximum": MAX },
            ],
        })
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as `256MiB` or `1GiB`")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Bytes, E> {
        bytes(text)
            .map(Bytes)
            .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Bytes, E> {
        usize::try_from(number)
            .map(Bytes)
            .map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BytesVisitor)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        spelled_bytes(self.0).serialize(serializer)
    }
}

impl JsonSchema for Bytes {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "pattern": "^\\s*[0-9.]+\\s*([bB]|[kKmMgG]([iI]?[bB])?)\\s*$" },
                { "type": "integer", "minimum": 0 },
            ],
        })
    }
}

impl<'de> Deserialize<'de> for Dollars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let amount = f64::deserialize(deserializer)?;
        if amount.is_finite() && amount >= 0.0 {
            Ok(Self(amount))
        } else {
            Err(D::Error::invalid_value(
                Unexpected::Float(amount),
                &"an amount in US dollars, 0 or more",
            ))
        }
    }
}

impl Serialize for Dollars {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for Dollars {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Dollars".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0 })
    }
}

impl<'de> Deserialize<'de> for Off {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if bool::deserialize(deserializer)? {
            Err(D::Error::invalid_value(
                Unexpected::Bool(true),
                &"`false`: it can only be switched off here",
            ))
        } else {
            Ok(Self)
        }
    }
}

impl Serialize for Off {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(false)
    }
}

impl JsonSchema for Off {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Off".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "const": false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_spelled() {
        for (text, spelled) in [
            ("75ms", "75ms"),
            ("1.5s", "1500ms"),
            ("10m", "10m"),
            ("600 s", "10m"),
            ("1h", "1h"),
            ("0ms", "0ms"),
        ] {
            let time = span(text).unwrap();
            assert_eq!(spelled_span(time), spelled);
            assert_eq!(span(spelled), Some(time), "read back");
        }
        for text in [
            "",
            "ms",
            "5",
            "-1s",
            "1.2.3s",
            "1e3s",
            "5 weeks",
            "99999999999999999d",
        ] {
            assert_eq!(span(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_spelled() {
        for (text, size) in [
            ("256MiB", 256 << 20),
            ("1g", 1 << 30),
            ("0.5KiB", 512),
            ("7B", 7),
        ] {
            assert_eq!(bytes(text), Some(size), "{text}");
            assert_eq!(bytes(&spelled_bytes(size)), Some(size), "{text}");
        }
        for text in ["", "256", "MiB", "-1MiB", "1TiB", "9999999GiB"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
