//! A configuration as written, with the line of every node: from YAML, from JSON, or as raw text.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::ConfigError;

/// The largest file that is read. A configuration is a page; this is a thousand of them.
pub(super) const LARGEST_BYTES: usize = 1 << 20;

/// The deepest nesting that is read. The options nest two deep.
const DEEPEST: usize = 16;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// Its line, from 1; `None` outside files.
    pub line: Option<usize>,
    /// The value.
    pub value: Value,
}

/// What a node can be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Nothing, or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Number(f64),
    /// Text.
    Text(String),
    /// Text from a variable or a flag, which has no types of its own: it is read as whatever its
    /// key wants.
    Raw(String),
    /// A list.
    List(Vec<Node>),
    /// A group of keys, in order.
    Map(Vec<Entry>),
}

/// One key of a group.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// The key.
    pub key: String,
    /// Its line.
    pub line: Option<usize>,
    /// Its value.
    pub node: Node,
}

/// A step from a node into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// To the value of a key.
    Key(String),
    /// To an item of a list, from 0.
    Item(usize),
}

impl Node {
    /// Takes out what the steps lead to, its key included. Says whether it was there; the node itself
    /// cannot be taken out.
    pub fn remove(&mut self, steps: &[Step]) -> bool {
        let Some((step, deeper)) = steps.split_first() else {
            return false;
        };
        match (&mut self.value, step) {
            (Value::Map(entries), Step::Key(key)) => {
                let Some(index) = entries.iter().position(|entry| entry.key == *key) else {
                    return false;
                };
                if !deeper.is_empty() {
                    return entries[index].node.remove(deeper);
                }
                entries.remove(index);
                true
            }
            (Value::List(items), Step::Item(index)) if *index < items.len() => {
                if !deeper.is_empty() {
                    return items[*index].remove(deeper);
                }
                items.remove(*index);
                true
            }
            _ => false,
        }
    }

    /// A raw text under a dotted key: `a.b` becomes `{a: {b: text}}`.
    pub fn raw(dotted_key: &str, text: &str) -> Self {
        let leaf = Self {
            line: None,
            value: Value::Raw(text.to_owned()),
        };
        dotted_key.rsplit('.').fold(leaf, |node, key| Self {
            line: None,
            value: Value::Map(vec![Entry {
                key: key.to_owned(),
                line: None,
                node,
            }]),
        })
    }

    /// The same tree, from JSON.
    pub fn from_json(json: &serde_json::Value) -> Self {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => number.as_i64().map_or_else(
                || Value::Number(number.as_f64().unwrap_or(f64::INFINITY)),
                Value::Integer,
            ),
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Array(items) => {
                Value::List(items.iter().map(Self::from_json).collect())
            }
            serde_json::Value::Object(members) => Value::Map(
                members
                    .iter()
                    .map(|(key, value)| Entry {
                        key: key.clone(),
                        line: None,
                        node: Self::from_json(value),
                    })
                    .collect(),
            ),
        };
        Self { line: None, value }
    }

    /// Reads one YAML document (1.2, core schema). `place` names the file in errors.
    ///
    /// Anchors, aliases, tags, further documents and keys given twice are refused: a configuration
    /// needs none of them, and each is a way to say something else than one seems to say.
    ///
    /// # Errors
    /// When the text is no such document.
    pub fn from_yaml(text: &str, place: &str) -> Result<Self, ConfigError> {
        if text.len() > LARGEST_BYTES {
            return Err(ConfigError::new(
                place,
                format!("larger than {} KiB", LARGEST_BYTES >> 10),
                "A configuration is a few lines: check that this is the right file.",
            ));
        }
        Reader {
            parser: Parser::new_from_str(text),
            place,
        }
        .document()
    }
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    place: &'a str,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Node, ConfigError> {
        let mut root = None;
        loop {
            let (event, mark) = self.next()?;
            match event {
                Event::Nothing
                | Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd => {}
                Event::StreamEnd => {
                    return Ok(root.unwrap_or(Node {
                        line: None,
                        value: Value::Null,
                    }));
                }
                _ if root.is_some() => {
                    return Err(self.error(mark, "a second document (`---`)", "Keep one."));
                }
                event => root = Some(self.node(event, mark, 0)?),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Marker), ConfigError> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start)),
            Some(Err(error)) => Err(self.error(
                *error.marker(),
                &format!("not valid YAML: {}", error.info()),
                "Correct it; `tandem config init --stdout` prints a file to start from.",
            )),
            None => Ok((Event::StreamEnd, Marker::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, mark: Marker, depth: usize) -> Result<Node, ConfigError> {
        if depth > DEEPEST {
            return Err(self.error(mark, "nested too deep", "Options nest two deep."));
        }
        let value = match event {
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return Err(self.error(mark, "a tag (`!`)", "Write the value without it."));
            }
            Event::Alias(_) => {
                return Err(self.error(mark, "an alias (`*`)", "Write the value out."));
            }
            Event::Scalar(text, ScalarStyle::Plain, ..) => plain(&text),
            Event::Scalar(text, ..) => Value::Text(text.into_owned()),
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    let (event, mark) = self.next()?;
                    match event {
                        Event::SequenceEnd | Event::StreamEnd => break Value::List(items),
                        event => items.push(self.node(event, mark, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(..) => self.map(depth)?,
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => Value::Null,
        };
        Ok(Node {
            line: Some(mark.line()),
            value,
        })
    }

    fn map(&mut self, depth: usize) -> Result<Value, ConfigError> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, mark) = self.next()?;
            let key = match event {
                Event::MappingEnd | Event::StreamEnd => return Ok(Value::Map(entries)),
                Event::Scalar(text, _, _, None) => text.into_owned(),
                _ => return Err(self.error(mark, "a key that is no word", "Write a word.")),
            };
            if entries.iter().any(|entry| entry.key == key) {
                let message = format!("`{key}` is given twice");
                return Err(self.error(mark, &message, "Keep one of them."));
            }
            let (event, value_mark) = self.next()?;
            let node = self.node(event, value_mark, depth + 1)?;
            entries.push(Entry {
                key,
                line: Some(mark.line()),
                node,
            });
        }
    }

    fn error(&self, mark: Marker, message: &str, next_step: &str) -> ConfigError {
        ConfigError::new(
            format!("{}:{}", self.place, mark.line().max(1)),
            message,
            next_step,
        )
    }
}

/// A plain scalar's value by the core schema (YAML 1.2.2, section 10.3.2), less the numbers in other
/// bases, which no option takes.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => {
            let numeric = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
                && text.contains(|c: char| c.is_ascii_digit());
            if !numeric {
                return Value::Text(text.to_owned());
            }
            if let Ok(integer) = text.parse() {
                return Value::Integer(integer);
            }
            text.parse()
                .map_or_else(|_| Value::Text(text.to_owned()), Value::Number)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str, expected: &str) {
        let error = Node::from_yaml(yaml, "f").unwrap_err();
        assert_eq!(error.to_string(), expected, "{yaml:?}");
    }

    #[test]
    fn what_a_configuration_needs_not_is_refused_with_its_line() {
        check(
            "a: 1\nb: &x 2\nc: *x",
            "f:3: an alias (`*`). Write the value out.",
        );
        check("a: !x 1", "f:1: a tag (`!`). Write the value without it.");
        check(
            "a: 1\nb: 2\na: 3",
            "f:3: `a` is given twice. Keep one of them.",
        );
        check(
            "a: 1\n---\nb: 2",
            "f:3: a second document (`---`). Keep one.",
        );
        check("? [a]\n: 1", "f:1: a key that is no word. Write a word.");
        let deep = "[".repeat(100);
        check(&deep, "f:1: nested too deep. Options nest two deep.");
        let error = Node::from_yaml("a: [1\nb: 2", "f").unwrap_err();
        assert!(error.message.starts_with("not valid YAML"), "{error}");
    }

    #[test]
    fn scalars_have_the_types_of_the_core_schema() {
        for (text, value) in [
            ("12", Value::Integer(12)),
            ("-1", Value::Integer(-1)),
            ("0.5", Value::Number(0.5)),
            ("yes", Value::Text("yes".into())),
            ("75ms", Value::Text("75ms".into())),
            ("inf", Value::Text("inf".into())),
            ("True", Value::Bool(true)),
            ("~", Value::Null),
        ] {
            assert_eq!(plain(text), value, "{text}");
        }
        let node = Node::from_yaml("a:\n  b: '12'\n  c:\n", "f").unwrap();
        let Value::Map(groups) = node.value else {
            panic!("no map")
        };
        let Value::Map(entries) = &groups[0].node.value else {
            panic!("no map")
        };
        assert_eq!(entries[0].node.value, Value::Text("12".into()));
        assert_eq!(
            (entries[1].line, &entries[1].node.value),
            (Some(3), &Value::Null)
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}|[-a-b:,?!&*#|>'\"\\[\\]{}% \\n\\t]{0,60}") {
            let _ = Node::from_yaml(&text, "f");
        }
    }
}
