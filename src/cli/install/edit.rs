//! Changes one member of a JSON or JSONC text and leaves every other byte as it was.

use std::ops::Range;

use jsonc_parser::ast::{Object, ObjectProp, Value};
use jsonc_parser::common::Ranged;
use jsonc_parser::tokens::{Token, TokenAndRange};
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, ParseOptions, parse_to_ast};
use thiserror::Error;

/// What is written where the text does not show a step of indentation itself.
const STEP: &str = "  ";

/// What is written to a text, or read from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A string.
    Text(String),
    /// An array of strings.
    List(Vec<String>),
    /// An object; read, it is without its members.
    Members(Vec<(String, Node)>),
    /// Anything else. Never written.
    Other,
}

/// Why a text is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {what}")]
pub struct Broken {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong there.
    pub what: String,
}

impl Broken {
    /// At a byte of `text`.
    pub fn at(text: &str, offset: usize, what: impl Into<String>) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            what: what.into(),
        }
    }
}

/// What is at `path`, if there is anything.
///
/// # Errors
/// The text is no JSON, an object on the way is none, or a name on the way is there twice.
pub fn read(text: &str, path: &[&str]) -> Result<Option<Node>, Broken> {
    let parsed = Parsed::of(text)?;
    let found = parsed.find(path)?;
    Ok(found.map(|(_, member)| node(&member.value)))
}

/// `text` with `node` at `path`, whatever is there now.
///
/// # Errors
/// As [`read`].
pub fn set(text: &str, path: &[&str], node: Node) -> Result<String, Broken> {
    let parsed = Parsed::of(text)?;
    let Some(mut object) = parsed.root()? else {
        return Ok(begun(text, path, node));
    };
    for (depth, name) in path.iter().enumerate() {
        let rest = &path[depth + 1..];
        let Some(member) = parsed.member(object, name)? else {
            let edits = parsed.insertion(object, name, &wrapped(rest, node));
            return applied(text, edits);
        };
        if rest.is_empty() {
            let range = member.value.range();
            let layout = parsed.layout(member);
            let edit = (range.start..range.end, layout.render(&node));
            return applied(text, vec![edit]);
        }
        object = parsed.object(&member.value, name)?;
    }
    Ok(text.to_owned())
}

/// `text` without what is at `path`; `None` where nothing is.
///
/// # Errors
/// As [`read`].
pub fn remove(text: &str, path: &[&str]) -> Result<Option<String>, Broken> {
    let parsed = Parsed::of(text)?;
    match parsed.find(path)? {
        Some((object, member)) => applied(text, parsed.removal(object, member)).map(Some),
        None => Ok(None),
    }
}

/// A range of bytes and what comes in its place.
type Edit = (Range<usize>, String);

/// Edits that do not overlap; of two at one place, the first comes first.
fn applied(text: &str, mut edits: Vec<Edit>) -> Result<String, Broken> {
    edits.sort_by_key(|(range, _)| range.start);
    let mut after = String::with_capacity(text.len() + 256);
    let mut at = 0;
    for (range, inserted) in edits {
        after.push_str(&text[at..range.start]);
        after.push_str(&inserted);
        at = range.end;
    }
    after.push_str(&text[at..]);
    // What we write must be sound, whatever was overlooked.
    match Parsed::of(&after) {
        Ok(_) => Ok(after),
        Err(_) => Err(Broken::at(
            text,
            0,
            "it is laid out in a way we cannot edit",
        )),
    }
}

/// For a text without a value: nothing, or nothing but comments.
fn begun(text: &str, path: &[&str], node: Node) -> String {
    let newline = newline(text);
    let layout = Layout {
        newline,
        indent: Some(String::new()),
        step: STEP,
    };
    let object = layout.render(&wrapped(path, node));
    if text.trim().is_empty() {
        return format!("{object}{newline}");
    }
    let between = if text.ends_with('\n') { "" } else { newline };
    format!("{text}{between}{object}{newline}")
}

/// `node` in an object for each name of `path`.
fn wrapped(path: &[&str], node: Node) -> Node {
    path.iter().rev().fold(node, |inner, name| {
        Node::Members(vec![((*name).to_owned(), inner)])
    })
}

fn node(value: &Value<'_>) -> Node {
    match value {
        Value::StringLit(text) => Node::Text(text.value.to_string()),
        Value::Object(_) => Node::Members(Vec::new()),
        Value::Array(array) => array
            .elements
            .iter()
            .map(|element| element.as_string_lit().map(|text| text.value.to_string()))
            .collect::<Option<Vec<_>>>()
            .map_or(Node::Other, Node::List),
        _ => Node::Other,
    }
}

fn newline(text: &str) -> &'static str {
    let first = text.find('\n');
    match first {
        Some(at) if text[..at].ends_with('\r') => "\r\n",
        _ => "\n",
    }
}

/// A text and what is where in it.
struct Parsed<'a> {
    text: &'a str,
    value: Option<Value<'a>>,
    /// Comments are among them.
    tokens: Vec<TokenAndRange<'a>>,
}

impl<'a> Parsed<'a> {
    fn of(text: &'a str) -> Result<Self, Broken> {
        let collect = CollectOptions {
            comments: CommentCollectionStrategy::AsTokens,
            tokens: true,
        };
        // JSON, comments and trailing commas: what the programs write that keep these files.
        let parse = ParseOptions {
            allow_comments: true,
            allow_trailing_commas: true,
            allow_loose_object_property_names: false,
            allow_missing_commas: false,
            allow_single_quoted_strings: false,
            allow_hexadecimal_numbers: false,
            allow_unary_plus_numbers: false,
            allow_bare_decimal_point_numbers: false,
            allow_non_finite_numbers: false,
            allow_extended_string_escapes: false,
        };
        match parse_to_ast(text, &collect, &parse) {
            Ok(parsed) => Ok(Self {
                text,
                value: parsed.value,
                tokens: parsed.tokens.unwrap_or_default(),
            }),
            Err(error) => {
                let what = error.kind().to_string();
                Err(Broken::at(text, error.range().start, what))
            }
        }
    }

    /// `None` where the text holds no value.
    fn root(&self) -> Result<Option<&Object<'a>>, Broken> {
        match &self.value {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(other) => Err(self.broken(other.range().start, "this is no object")),
        }
    }

    fn object<'b>(&self, value: &'b Value<'a>, name: &str) -> Result<&'b Object<'a>, Broken> {
        value.as_object().ok_or_else(|| {
            let what = format!("`{name}` is no object");
            self.broken(value.range().start, what)
        })
    }
    /// What `path` leads to, and the object that it stands in.
    fn find(&self, path: &[&str]) -> Result<Option<(&Object<'a>, &ObjectProp<'a>)>, Broken> {
        let (Some(mut object), Some((last, folders))) = (self.root()?, path.split_last()) else {
            return Ok(None);
        };
        for name in folders {
            match self.member(object, name)? {
                Some(member) => object = self.object(&member.value, name)?,
                None => return Ok(None),
            }
        }
        let member = self.member(object, last)?;
        Ok(member.map(|member| (object, member)))
    }

    fn member<'b>(
        &self,
        object: &'b Object<'a>,
        name: &str,
    ) -> Result<Option<&'b ObjectProp<'a>>, Broken> {
        let mut named = object
            .properties
            .iter()
            .filter(|member| member.name.as_str() == name);
        let first = named.next();
        match named.next() {
            None => Ok(first),
            // Programs differ in which of them counts.
            Some(second) => {
                Err(self.broken(second.range.start, format!("a second `{name}` is here")))
            }
        }
    }

    fn broken(&self, offset: usize, what: impl Into<String>) -> Broken {
        Broken::at(self.text, offset, what)
    }

    /// How `name` and `node` come into `object`, as its last member.
    fn insertion(&self, object: &Object<'a>, name: &str, node: &Node) -> Vec<Edit> {
        let (open, close) = (object.range.start + 1, object.range.end - 1);
        let inside = &self.text[open..close];
        // After the last value, its comma and its comments.
        let end = open + inside.trim_end().len();
        let newline = newline(self.text);
        let base = indentation(self.text, object.range.start);
        let below = format!("{base}{}", self.step());
        let Some(last) = object.properties.last() else {
            let is_bare = inside.trim().is_empty();
            if is_bare && self.is_one_line() {
                return vec![(open..close, self.in_line().member(name, node))];
            }
            let member = self.on_line(below.clone()).member(name, node);
            let mut text = format!("{newline}{below}{member}");
            if is_bare {
                // The space between two braces is worth nothing.
                text.push_str(newline);
                text.push_str(base);
                return vec![(open..close, text)];
            }
            if !self.text[end..close].contains('\n') {
                text.push_str(newline);
                text.push_str(base);
            }
            return vec![(end..end, text)];
        };
        let comma_follows = self.comma_after(last.range.end).is_some();
        let mut edits = Vec::new();
        if !comma_follows {
            edits.push((last.range.end..last.range.end, ",".to_owned()));
        }
        let ends_in_line_comment = matches!(
            self.before(close).map(|token| &token.token),
            Some(Token::CommentLine(_))
        );
        let mut text = if begins_line(self.text, last.range.start) {
            let indent = indentation(self.text, last.range.start);
            let member = self.on_line(indent.to_owned()).member(name, node);
            format!("{newline}{indent}{member}")
        } else if ends_in_line_comment {
            let member = self.on_line(below.clone()).member(name, node);
            format!("{newline}{below}{member}")
        } else {
            format!(" {}", self.in_line().member(name, node))
        };
        if comma_follows {
            text.push(',');
        }
        edits.push((end..end, text));
        edits
    }

    /// How `member` leaves `object`, with the comma that belongs to it.
    fn removal(&self, object: &Object<'a>, member: &ObjectProp<'a>) -> Vec<Edit> {
        let (open, close) = (object.range.start + 1, object.range.end - 1);
        let Range { start, end } = member.range.start..member.range.end;
        let comma_after = self.comma_after(end);
        let comment_in = |range: Range<usize>| {
            let mut tokens = self.tokens.iter();
            tokens.any(|token| is_comment(token) && range.contains(&token.range.start))
        };
        let is_alone = object.properties.len() == 1;
        if is_alone && !comment_in(open..start) && !comment_in(end..close) {
            return vec![(open..close, String::new())];
        }
        let mut edits = Vec::new();
        let mut rest = end;
        match &comma_after {
            Some(comma) if !comment_in(end..comma.start) => rest = comma.end,
            Some(comma) => edits.push((comma.clone(), String::new())),
            None if is_alone => {}
            None => edits.extend(self.comma_before(start).map(|comma| (comma, String::new()))),
        }
        let before = self.before(start);
        let gap = before.map_or(open, |token| token.range.end);
        let follows = &self.text[rest..];
        let line_ends = follows
            .trim_start_matches([' ', '\t', '\r'])
            .starts_with('\n');
        // A line comment must not swallow what follows.
        let in_comment =
            before.is_some_and(|token| matches!(token.token, Token::CommentLine(_))) && !line_ends;
        let from = if in_comment { start } else { gap };
        edits.push((from..rest, String::new()));
        edits
    }

    /// The token that ends nearest before `offset`, comments included.
    fn before(&self, offset: usize) -> Option<&TokenAndRange<'a>> {
        let mut tokens = self.tokens.iter().rev();
        tokens.find(|token| token.range.end <= offset)
    }

    fn comma_after(&self, offset: usize) -> Option<Range<usize>> {
        let mut tokens = self.tokens.iter();
        comma(tokens.find(|token| token.range.start >= offset && !is_comment(token)))
    }

    fn comma_before(&self, offset: usize) -> Option<Range<usize>> {
        let mut tokens = self.tokens.iter().rev();
        comma(tokens.find(|token| token.range.end <= offset && !is_comment(token)))
    }

    /// Whether everything stands in one line, as in a file that no person wrote.
    fn is_one_line(&self) -> bool {
        match &self.value {
            Some(Value::Object(root)) => {
                let range = root.range.start..root.range.end;
                !root.properties.is_empty() && !self.text[range].contains('\n')
            }
            _ => false,
        }
    }

    /// One step of indentation: that of the first member.
    fn step(&self) -> &'a str {
        let first = match &self.value {
            Some(Value::Object(root)) => root.properties.first(),
            _ => None,
        };
        let shown = first
            .filter(|first| begins_line(self.text, first.range.start))
            .map(|first| indentation(self.text, first.range.start));
        shown.filter(|step| !step.is_empty()).unwrap_or(STEP)
    }

    fn in_line(&self) -> Layout<'a> {
        Layout {
            newline: newline(self.text),
            indent: None,
            step: self.step(),
        }
    }

    fn on_line(&self, indent: String) -> Layout<'a> {
        Layout {
            indent: Some(indent),
            ..self.in_line()
        }
    }

    /// For another value of `member`.
    fn layout(&self, member: &ObjectProp<'a>) -> Layout<'a> {
        if begins_line(self.text, member.range.start) {
            self.on_line(indentation(self.text, member.range.start).to_owned())
        } else {
            self.in_line()
        }
    }
}

fn is_comment(token: &TokenAndRange<'_>) -> bool {
    matches!(token.token, Token::CommentLine(_) | Token::CommentBlock(_))
}

fn comma(token: Option<&TokenAndRange<'_>>) -> Option<Range<usize>> {
    let token = token.filter(|token| matches!(token.token, Token::Comma))?;
    Some(token.range.start..token.range.end)
}

/// The line of `offset`, up to it.
fn line_before(text: &str, offset: usize) -> &str {
    let before = &text[..offset];
    before.rsplit('\n').next().unwrap_or(before)
}

fn begins_line(text: &str, offset: usize) -> bool {
    text[..offset].contains('\n') && line_before(text, offset).trim().is_empty()
}

/// The spaces and tabs that the line of `offset` begins with.
fn indentation(text: &str, offset: usize) -> &str {
    let line = line_before(text, offset);
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}

/// How a value is written.
struct Layout<'a> {
    newline: &'a str,
    /// Of the line that the value begins in; `None` keeps it all in one line.
    indent: Option<String>,
    step: &'a str,
}

impl Layout<'_> {
    fn member(&self, name: &str, node: &Node) -> String {
        format!("{}: {}", quoted(name), self.render(node))
    }

    fn render(&self, node: &Node) -> String {
        match node {
            Node::Text(text) => quoted(text),
            Node::List(items) => {
                let items: Vec<_> = items.iter().map(|item| quoted(item)).collect();
                format!("[{}]", items.join(", "))
            }
            Node::Members(members) => self.members(members),
            Node::Other => "null".to_owned(),
        }
    }

    fn members(&self, members: &[(String, Node)]) -> String {
        let Some(indent) = &self.indent else {
            let members: Vec<_> = members
                .iter()
                .map(|(name, node)| self.member(name, node))
                .collect();
            return format!("{{{}}}", members.join(", "));
        };
        let newline = self.newline;
        let inner = Layout {
            newline,
            indent: Some(format!("{indent}{}", self.step)),
            step: self.step,
        };
        let members: Vec<_> = members
            .iter()
            .map(|(name, node)| {
                let member = inner.member(name, node);
                format!("{newline}{indent}{}{member}", self.step)
            })
            .collect();
        format!("{{{}{newline}{indent}}}", members.join(","))
    }
}

/// As JSON writes a string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
