//! The tools as a client sees them: names, descriptions, hints and schemas.

use std::sync::{Arc, LazyLock};

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use super::types;

/// The tools, in the order in which they are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ToolName {
    CompleteCode,
    EditCode,
    ExplainCode,
    Summarize,
    CommitMessage,
    Ask,
    Status,
}

impl ToolName {
    pub(super) const ALL: [Self; 7] = [
        Self::CompleteCode,
        Self::EditCode,
        Self::ExplainCode,
        Self::Summarize,
        Self::CommitMessage,
        Self::Ask,
        Self::Status,
    ];

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.as_str() == name)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::CompleteCode => "complete_code",
            Self::EditCode => "edit_code",
            Self::ExplainCode => "explain_code",
            Self::Summarize => "summarize",
            Self::CommitMessage => "commit_message",
            Self::Ask => "ask",
            Self::Status => "status",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::CompleteCode => "Complete code at a cursor",
            Self::EditCode => "Edit code as instructed",
            Self::ExplainCode => "Explain code",
            Self::Summarize => "Summarize text",
            Self::CommitMessage => "Write a commit message",
            Self::Ask => "Ask a question",
            Self::Status => "Tandem's status",
        }
    }

    /// Written for the model that chooses among tools: what it does, when to use it, what comes
    /// back, what it does not do.
    fn description(self) -> &'static str {
        match self {
            Self::CompleteCode => {
                "Returns the text to insert between `prefix` and `suffix`, as an editor's inline \
                 completion would. Use it to continue code at a cursor or to fill a gap in the \
                 middle. Fast and usually answered on this machine. Returns the inserted text \
                 only, never a copy of the prefix or suffix, and does not touch any file. An \
                 empty `text` with a reason in `empty` means that there was nothing to add."
            }
            Self::EditCode => {
                "Rewrites one piece of code as `instruction` says and returns the new piece alone, \
                 ready to take the old one's place. Use it for a contained change such as renaming, \
                 adding error handling or translating; pass the surrounding code as `before` and \
                 `after` so that the result fits in. Does not touch any file."
            }
            Self::ExplainCode => {
                "Explains a piece of code in plain words, or answers `question` about it. Use it \
                 to understand code that the user is looking at. Returns prose."
            }
            Self::Summarize => {
                "Summarizes a text to a sentence, a paragraph or bullet points. Use it to condense \
                 logs, documents or long code before reading on; set `focus` to what matters. \
                 Returns the summary alone."
            }
            Self::CommitMessage => {
                "Writes a commit message for a diff. Pass the output of `git diff --staged`. \
                 Returns the message, and its `subject` and `body` apart. Does not run git and \
                 does not commit."
            }
            Self::Ask => {
                "Answers a question, resting on `context` where given. Use `effort: low` for a \
                 quick answer from the model on this machine, and `effort: high` for hard or long \
                 questions, which go to Claude where the user allows it. With `schema` the answer is \
                 JSON that is always valid by it, or an error."
            }
            Self::Status => {
                "Says which models Tandem can use now, whether they are healthy and how fast they \
                 are, whether text may leave this machine, and where the last request went and \
                 why. Use it when an answer is missing, slow or from an unexpected model. Loads \
                 nothing and asks no model."
            }
        }
    }

    fn input(self) -> Schema {
        match self {
            Self::CompleteCode => input::<types::CompleteCode>(),
            Self::EditCode => input::<types::EditCode>(),
            Self::ExplainCode => input::<types::ExplainCode>(),
            Self::Summarize => input::<types::Summarize>(),
            Self::CommitMessage => input::<types::CommitMessage>(),
            Self::Ask => input::<types::Ask>(),
            Self::Status => input::<types::Nothing>(),
        }
    }

    fn output(self) -> Schema {
        match self {
            Self::CommitMessage => output::<types::CommitMessageAnswer>(),
            Self::Status => output::<types::Status>(),
            Self::CompleteCode => output::<types::CompletionAnswer>(),
            Self::Ask => output::<types::AskAnswer>(),
            Self::EditCode | Self::ExplainCode | Self::Summarize => output::<types::Answer>(),
        }
    }

    fn schema_names(self) -> [&'static str; 2] {
        match self {
            Self::CompleteCode => ["complete_code.input", "complete_code.output"],
            Self::EditCode => ["edit_code.input", "edit_code.output"],
            Self::ExplainCode => ["explain_code.input", "explain_code.output"],
            Self::Summarize => ["summarize.input", "summarize.output"],
            Self::CommitMessage => ["commit_message.input", "commit_message.output"],
            Self::Ask => ["ask.input", "ask.output"],
            Self::Status => ["status.input", "status.output"],
        }
    }
}

/// The JSON Schemas of what every tool takes and returns, as `complete_code.input` and
/// `complete_code.output`, in the order of the tools.
#[must_use]
pub fn schemas() -> Vec<(&'static str, Schema)> {
    ToolName::ALL
        .into_iter()
        .flat_map(|tool| {
            let [input, output] = tool.schema_names();
            [(input, tool.input()), (output, tool.output())]
        })
        .collect()
}

/// The tools as `tools/list` gives them. `may_leave_machine` says whether Claude may be called.
pub(super) fn tools(may_leave_machine: bool) -> Vec<Tool> {
    /// A tool's input and output schema.
    type Shapes = (Arc<JsonObject>, Arc<JsonObject>);
    // The schemas never change, and hosts list the tools often.
    static SHAPES: LazyLock<[Shapes; 7]> =
        LazyLock::new(|| ToolName::ALL.map(|tool| (listed(tool.input()), listed(tool.output()))));
    ToolName::ALL
        .iter()
        .zip(SHAPES.iter())
        .map(|(tool, (input, output))| {
            // No tool changes anything: they return text.
            let hints = ToolAnnotations::with_title(tool.title())
                .read_only(true)
                .destructive(false)
                .idempotent(true)
                .open_world(may_leave_machine && *tool != ToolName::Status);
            Tool::new(tool.as_str(), tool.description(), Arc::clone(input))
                .with_title(tool.title())
                .with_raw_output_schema(Arc::clone(output))
                .with_annotations(hints)
        })
        .collect()
}

/// Without `$schema`: validators that know an older draft only (Ajv's default, in the TypeScript
/// SDK) refuse a schema that names a newer one, and MCP takes 2020-12 where none is named.
fn listed(mut schema: Schema) -> Arc<JsonObject> {
    RecursiveTransform(compact).transform(&mut schema);
    let mut schema = match schema.to_value() {
        Value::Object(schema) => schema,
        // A schema of `true` or `false`; ours are structures.
        _ => JsonObject::new(),
    };
    schema.remove("$schema");
    schema.remove("title");
    Arc::new(schema)
}

/// Turns a choice among described words into a plain list of them: some hosts show schemas to their
/// model, which pays for each word. The descriptions stand in `schemas/`.
fn compact(schema: &mut Schema) {
    let words = schema
        .get("oneOf")
        .and_then(Value::as_array)
        .and_then(|choices| {
            choices
                .iter()
                .map(|choice| choice.get("const").filter(|word| word.is_string()).cloned())
                .collect::<Option<Vec<_>>>()
        });
    if let (Some(words), Some(object)) = (words, schema.as_object_mut()) {
        object.remove("oneOf");
        object.insert("type".to_owned(), "string".into());
        object.insert("enum".to_owned(), words.into());
    }
}

fn input<T: JsonSchema>() -> Schema {
    schema::<T>(SchemaSettings::draft2020_12().for_deserialize())
}

fn output<T: JsonSchema>() -> Schema {
    schema::<T>(SchemaSettings::draft2020_12().for_serialize())
}

fn schema<T: JsonSchema>(settings: SchemaSettings) -> Schema {
    let mut schema = settings
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<T>();
    RecursiveTransform(simplify).transform(&mut schema);
    schema
}

/// Drops what hosts stumble over and nobody needs: a field that may be left out need not be
/// nullable besides, and `format` names such as `uint32` are no standard ones.
fn simplify(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    object.remove("format");
    if let Some(Value::String(description)) = object.get_mut("description") {
        // Doc comments are broken where their source is.
        *description = description
            .replace("\n\n", "\r")
            .replace('\n', " ")
            .replace('\r', "\n\n");
    }
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if object.get("default").is_some_and(Value::is_null) {
        object.remove("default");
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            for (key, value) in only {
                object.entry(key).or_insert(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_schema_is_nullable_or_refers_elsewhere() {
        for (name, schema) in schemas() {
            let text = schema.as_value().to_string();
            for bad in ["null", "$ref", "\"format\"", "\\n"] {
                assert!(!text.contains(bad), "{name} holds {bad}: {text}");
            }
            assert_eq!(schema.get("type"), Some(&Value::from("object")), "{name}");
        }
    }

    #[test]
    fn every_field_that_a_model_fills_in_is_described() {
        for (name, schema) in schemas() {
            let properties = schema.get("properties").and_then(Value::as_object);
            for (field, schema) in properties.into_iter().flatten() {
                assert!(schema.get("description").is_some(), "{name}: {field}");
            }
        }
    }

    #[test]
    fn what_is_listed_is_small_enough_to_show_to_a_model() {
        let listed = serde_json::to_string(&tools(true)).unwrap();
        assert!(listed.len() < 22_300, "{} bytes", listed.len());
        assert!(!listed.contains("oneOf"), "{listed}");
    }

    #[test]
    fn names_lead_back_to_their_tool() {
        for tool in ToolName::ALL {
            assert_eq!(ToolName::parse(tool.as_str()), Some(tool));
        }
        assert_eq!(ToolName::parse("Ask"), None);
    }
}
