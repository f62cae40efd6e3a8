//! From a document to a type: errors that name the key, its line and the nearest known key.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::{Deserializer, forward_to_deserialize_any};

use super::ConfigError;
use super::document::{Entry, Node, Step, Value, plain};

/// Less alike than this, a known key is not what was meant (Jaro-Winkler's scale of 0 to 1, chosen
/// by trying misspelt keys).
const ALIKE: f64 = 0.75;

/// How many mistakes are told at once: a screenful. Whoever makes more has the wrong file.
const MOST_MISTAKES: usize = 20;

/// Decodes `node`, all of whose keys may be left out. `place` names its source in errors; `refusal` says
/// what to do about a key that exists but may not come from there.
///
/// # Errors
/// Every mistake, in the order of the source, to at most twenty and a word that there are more.
pub(super) fn decode<T: DeserializeOwned + JsonSchema>(
    mut node: Node,
    place: &str,
    refusal: &Refusal<'_>,
) -> Result<T, Vec<ConfigError>> {
    let mut mistakes = Vec::new();
    let mut known = None;
    // Lists that an item was taken out of: what they say of their length is not the user's.
    let mut shortened: Vec<Vec<Step>> = Vec::new();
    // Serde stops at the first mistake. What is wrong is taken out, and the rest is read again.
    loop {
        let error = match T::deserialize(&node) {
            Ok(options) if mistakes.is_empty() => return Ok(options),
            Ok(_) => return Err(mistakes),
            Err(error) => error,
        };
        let place_in_node = error.place_in_node();
        let removed = node.remove(&place_in_node);
        if !shortened.contains(&place_in_node) {
            if mistakes.len() == MOST_MISTAKES {
                mistakes.push(ConfigError::new(
                    place,
                    "there are more mistakes",
                    "Correct these first.",
                ));
                return Err(mistakes);
            }
            let known = known.get_or_insert_with(keys::<T>);
            mistakes.push(error.describe(place, known, refusal));
        }
        if !removed {
            return Err(mistakes);
        }
        if let Some((Step::Item(_), list)) = place_in_node.split_last() {
            shortened.push(list.to_vec());
        }
    }
}

/// Decodes a YAML document.
///
/// # Errors
/// As [`decode`]; what is no such document is one mistake.
pub(super) fn yaml<T: DeserializeOwned + JsonSchema>(
    text: &str,
    place: &str,
    refusal: &Refusal<'_>,
) -> Result<T, Vec<ConfigError>> {
    let node = Node::from_yaml(text, place).map_err(|mistake| vec![mistake])?;
    decode(node, place, refusal)
}

/// Decodes one key from text without types.
///
/// # Errors
/// What is wrong with it.
pub(super) fn text<T: DeserializeOwned + JsonSchema>(
    key: &str,
    text: &str,
    place: &str,
) -> Result<T, ConfigError> {
    T::deserialize(&Node::raw(key, text))
        .map_err(|error| error.describe(place, &keys::<T>(), &Refusal::NONE))
}

/// Keys that exist elsewhere and are not allowed here.
pub(super) struct Refusal<'a> {
    /// Every key of the user's own file, dotted. Asked for only when there is a mistake.
    pub elsewhere: fn() -> Vec<String>,
    /// Why such a key is refused here, as the end of a sentence that begins with the key.
    pub why: &'a str,
    /// What to do instead.
    pub next_step: &'a str,
}

impl Refusal<'_> {
    /// For a source that may hold every key.
    pub const NONE: Refusal<'static> = Refusal {
        elsewhere: Vec::new,
        why: "",
        next_step: "",
    };
}

/// The dotted keys that `T` knows, groups included, in order.
pub(super) fn keys<T: JsonSchema>() -> Vec<String> {
    fn walk(
        schema: &serde_json::Value,
        root: &serde_json::Value,
        prefix: &str,
        keys: &mut Vec<String>,
    ) {
        let referenced = schema["$ref"]
            .as_str()
            .and_then(|reference| root.pointer(reference.strip_prefix('#')?));
        let Some(properties) = referenced.unwrap_or(schema)["properties"].as_object() else {
            return;
        };
        for (name, schema) in properties {
            let key = format!("{prefix}{name}");
            keys.push(key.clone());
            walk(schema, root, &format!("{key}."), keys);
        }
    }
    let mut schema = schemars::schema_for!(T).to_value();
    schema.sort_all_objects();
    let mut keys = Vec::new();
    walk(&schema, &schema, "", &mut keys);
    keys
}

/// The known key that was most likely meant by `unknown`, both dotted.
pub(super) fn nearest<'a>(unknown: &str, known: &'a [String]) -> Option<&'a str> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let word = last(unknown);
    known
        .iter()
        .map(|key| {
            let whole = strsim::jaro_winkler(unknown, key);
            // The right key in the wrong group counts as a near miss.
            let part = strsim::jaro_winkler(&word, &last(key)) * 0.95;
            (whole.max(part), key.as_str())
        })
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key)
}

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct DecodeError {
    /// The steps that lead there, innermost first.
    path: Vec<Step>,
    line: Option<usize>,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    UnknownKey(String),
    UnknownValue {
        found: String,
        known: &'static [&'static str],
    },
    Wrong {
        found: String,
        expected: String,
    },
    Other(String),
}

impl DecodeError {
    fn at(mut self, line: Option<usize>) -> Self {
        self.line = self.line.or(line);
        self
    }

    fn inside(mut self, step: Step, line: Option<usize>) -> Self {
        self.path.push(step);
        self.at(line)
    }

    /// The steps from the root to what is wrong, as small a part as can be taken out.
    fn place_in_node(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = self.path.iter().rev().cloned().collect();
        if let Problem::UnknownKey(key) = &self.problem {
            steps.push(Step::Key(key.clone()));
        }
        steps
    }

    fn describe(self, place: &str, known: &[String], refusal: &Refusal<'_>) -> ConfigError {
        let place = self
            .line
            .map_or_else(|| place.to_owned(), |line| format!("{place}:{line}"));
        let keys = self.path.iter().rev().filter_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Item(_) => None,
        });
        let mut path: Vec<&str> = keys.collect();
        let (message, next_step) = match &self.problem {
            Problem::UnknownKey(key) => {
                path.push(key);
                let key = path.join(".");
                if (refusal.elsewhere)().contains(&key) {
                    (
                        format!("`{key}` {}", refusal.why),
                        refusal.next_step.to_owned(),
                    )
                } else {
                    let next_step = match nearest(&key, known) {
                        Some(meant) => format!("Did you mean `{meant}`?"),
                        None => format!("Known here: {}.", siblings(&path, known)),
                    };
                    (format!("unknown key `{key}`"), next_step)
                }
            }
            Problem::UnknownValue { found, known } => {
                let list = known.map_quoted();
                let next_step = match closest(found, known) {
                    Some(meant) => format!("Did you mean `{meant}`? Known: {list}."),
                    None if known.len() == 1 => format!("Write {list}."),
                    None => format!("Write one of {list}."),
                };
                (
                    format!("`{}` cannot be `{found}`", path.join(".")),
                    next_step,
                )
            }
            Problem::Wrong { found, expected } => (
                if path.is_empty() {
                    format!("found {found}, expected {expected}")
                } else {
                    format!("`{}` is {found}, expected {expected}", path.join("."))
                },
                "Correct the value; `tandem config schema` describes every key.".to_owned(),
            ),
            Problem::Other(text) => (
                format!("`{}`: {text}", path.join(".")),
                "Correct the value; `tandem config schema` describes every key.".to_owned(),
            ),
        };
        ConfigError::new(place, message, next_step)
    }
}

trait Quoted {
    fn map_quoted(&self) -> String;
}

impl Quoted for [&str] {
    fn map_quoted(&self) -> String {
        let quoted: Vec<_> = self.iter().map(|word| format!("`{word}`")).collect();
        quoted.join(", ")
    }
}

fn closest(found: &str, known: &'static [&'static str]) -> Option<&'static str> {
    known
        .iter()
        .map(|word| (strsim::jaro_winkler(found, word), *word))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

fn siblings(path: &[&str], known: &[String]) -> String {
    let prefix = path
        .split_last()
        .filter(|(_, groups)| !groups.is_empty())
        .map_or_else(String::new, |(_, groups)| format!("{}.", groups.join(".")));
    let siblings: Vec<&str> = known
        .iter()
        .filter_map(|key| key.strip_prefix(&prefix))
        .filter(|key| !key.contains('.'))
        .collect();
    siblings.map_quoted()
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.problem)
    }
}

impl std::error::Error for DecodeError {}

impl From<Problem> for DecodeError {
    fn from(problem: Problem) -> Self {
        Self {
            path: Vec::new(),
            line: None,
            problem,
        }
    }
}

impl serde::de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Problem::Other(message.to_string()).into()
    }

    /// The value is not repeated: what stands where no text belongs may be a key.
    fn invalid_type(found: Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "`true` or `false`",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
            Unexpected::Str(_) | Unexpected::Char(_) | Unexpected::Bytes(_) => "text",
            Unexpected::Unit | Unexpected::Option => "nothing",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a group of keys",
            _ => "something else",
        };
        Problem::Wrong {
            found: found.to_owned(),
            expected: spoken(&expected.to_string()),
        }
        .into()
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        let found = match found {
            Unexpected::Bool(value) => format!("`{value}`"),
            Unexpected::Unsigned(value) => format!("`{value}`"),
            Unexpected::Signed(value) => format!("`{value}`"),
            Unexpected::Float(value) => format!("`{value}`"),
            Unexpected::Str(value) => format!("`{value}`"),
            other => other.to_string(),
        };
        Problem::Wrong {
            found,
            expected: spoken(&expected.to_string()),
        }
        .into()
    }

    fn invalid_length(length: usize, expected: &dyn serde::de::Expected) -> Self {
        Problem::Wrong {
            found: match length {
                0 => "empty".to_owned(),
                length => format!("{length} items long"),
            },
            expected: spoken(&expected.to_string()),
        }
        .into()
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        Problem::UnknownValue {
            found: found.to_owned(),
            known,
        }
        .into()
    }

    fn unknown_field(key: &str, _known: &'static [&'static str]) -> Self {
        Problem::UnknownKey(key.to_owned()).into()
    }
}

/// What serde calls a type, as a person would.
fn spoken(expected: &str) -> String {
    match expected {
        "a string" | "path string" => "text".to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        "a sequence" => "a list".to_owned(),
        "f64" => "a number".to_owned(),
        "u64" | "u32" | "usize" => "a whole number".to_owned(),
        "any value" | "unit" => "nothing".to_owned(),
        other if other.starts_with("struct ") => "a group of keys".to_owned(),
        other if other.starts_with("enum ") || other == "variant identifier" => {
            "one word".to_owned()
        }
        other => other.to_owned(),
    }
}

/// Lets a raw text be what its key wants.
macro_rules! typed {
    ($($method:ident => $from_raw:ident),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            match &self.value {
                Value::Raw(text) => $from_raw(text, visitor),
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(*value),
            },
            Value::Number(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_str(text),
            Value::Raw(text) => raw_scalar(text, visitor),
            Value::List(items) => visitor.visit_seq(Items(items.iter().enumerate())),
            Value::Map(entries) => visitor.visit_map(Entries {
                entries: entries.iter(),
                value: None,
            }),
        }
        .map_err(|error| error.at(self.line))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    /// A group with nothing under it, as when all its keys are commented out, is an empty group.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_map(Entries {
                entries: [].iter(),
                value: None,
            }),
            // Serde would read a list as the group's values in order.
            Value::List(_) => {
                Err(DecodeError::invalid_type(Unexpected::Seq, &visitor).at(self.line))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.value {
            Value::Null => visitor.visit_seq(Items([].iter().enumerate())),
            Value::Raw(text) => raw_list(text, visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match &self.value {
            Value::Text(text) | Value::Raw(text) => {
                let word: StrDeserializer<'_, DecodeError> = text.as_str().into_deserializer();
                visitor.visit_enum(word)
            }
            Value::Map(_) => Err(DecodeError::invalid_type(Unexpected::Map, &"one word")),
            _ => self.deserialize_any(visitor),
        }
        .map_err(|error| error.at(self.line))
    }

    typed! {
        deserialize_str => raw_text,
        deserialize_string => raw_text,
        deserialize_bool => raw_bool,
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple
        tuple_struct map identifier ignored_any
    }
}

fn raw_scalar<'de, V: Visitor<'de>>(text: &str, visitor: V) -> Result<V::Value, DecodeError> {
    match plain(text.trim()) {
        Value::Bool(value) => visitor.visit_bool(value),
        Value::Integer(value) => match u64::try_from(value) {
            Ok(value) => visitor.visit_u64(value),
            Err(_) => visitor.visit_i64(value),
        },
        Value::Number(value) => visitor.visit_f64(value),
        _ => visitor.visit_str(text),
    }
}

fn raw_text<'de, V: Visitor<'de>>(text: &str, visitor: V) -> Result<V::Value, DecodeError> {
    visitor.visit_str(text)
}

fn raw_bool<'de, V: Visitor<'de>>(text: &str, visitor: V) -> Result<V::Value, DecodeError> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" => visitor.visit_bool(true),
        "0" | "false" => visitor.visit_bool(false),
        _ => Err(DecodeError::invalid_type(Unexpected::Str(text), &visitor)),
    }
}

/// Commas part the items; white space around them is dropped, and so are empty items.
fn raw_list<'de, V: Visitor<'de>>(text: &str, visitor: V) -> Result<V::Value, DecodeError> {
    let items = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(|item| item.to_owned().into_deserializer());
    visitor.visit_seq(serde::de::value::SeqDeserializer::<_, DecodeError>::new(
        items.collect::<Vec<StringDeserializer<_>>>().into_iter(),
    ))
}

struct Items<'de>(std::iter::Enumerate<std::slice::Iter<'de, Node>>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        let item = self.0.next();
        item.map(|(index, node)| {
            seed.deserialize(node)
                .map_err(|error| error.inside(Step::Item(index), node.line))
        })
        .transpose()
    }
}

struct Entries<'de> {
    entries: std::slice::Iter<'de, Entry>,
    value: Option<&'de Entry>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DecodeError> {
        self.value = self.entries.next();
        self.value
            .map(|entry| {
                let key: StrDeserializer<'_, DecodeError> = entry.key.as_str().into_deserializer();
                seed.deserialize(key).map_err(|error| error.at(entry.line))
            })
            .transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, DecodeError> {
        let Some(entry) = self.value else {
            return Err(DecodeError::custom("a value before its key"));
        };
        seed.deserialize(&entry.node)
            .map_err(|error| error.inside(Step::Key(entry.key.clone()), entry.line))
    }
}
