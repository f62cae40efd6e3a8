//! The documents that every server gets: the same for all, the same in every run.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

/// Lines of each document.
pub const LINES: usize = 2000;

/// What is typed, one character a request. Nothing that a model's answer starts with, so that no
/// server may answer from what it offered before.
const KEYSTROKES: &[u8] = b"qwzxjvkq";

/// The unfinished statement of each function.
const INDENTED: &str = "    let total = ";

/// A folder with the documents, under git as projects are: deciding what may leave the machine is
/// part of what is measured.
pub struct Workspace {
    folder: TempDir,
    /// The folder as a URI, without a closing slash.
    pub root: String,
    count: usize,
}

impl Workspace {
    /// A new folder with `count` documents.
    pub fn new(count: usize) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let root = format!("file://{}", folder.path().display());
        let workspace = Self {
            folder,
            root,
            count,
        };
        let folder = workspace.folder.path();
        fs::create_dir(folder.join(".git"))?;
        fs::write(folder.join(".gitignore"), "/target\n*.log\n.env\n")?;
        for document in workspace.documents() {
            fs::write(folder.join(&document.name), &document.text)?;
        }
        Ok(workspace)
    }

    /// The documents as they are on disk.
    pub fn documents(&self) -> Vec<Document> {
        (0..self.count)
            .map(|number| Document::new(&self.root, number))
            .collect()
    }
}

/// A document as the client sees it.
pub struct Document {
    /// Where it is.
    pub uri: String,
    name: String,
    text: String,
    version: i32,
    line: usize,
    column: usize,
}

/// A keystroke: the change to send, and the cursor after it.
pub struct Keystroke {
    /// Parameters of `textDocument/didChange`.
    pub change: Value,
    /// The cursor's line.
    pub line: usize,
    /// The cursor's column, in UTF-16 units; the text is ASCII.
    pub column: usize,
}

impl Document {
    /// The `number`th document, in the folder `root`.
    fn new(root: &str, number: usize) -> Self {
        let mut text = String::new();
        let mut line = 0;
        while line < LINES {
            let function = line / 8;
            for source in [
                format!("/// Adds what step {function} of part {number} found to the sum.\n"),
                format!("fn step_{number}_{function}(sum: &mut u64, found: &[u64]) -> u64 {{\n"),
                "    for value in found {\n".to_owned(),
                format!(
                    "        *sum = sum.wrapping_add(*value ^ {});\n",
                    number * function
                ),
                "    }\n".to_owned(),
                format!("{INDENTED}\n"),
                "}\n".to_owned(),
                "\n".to_owned(),
            ] {
                text += &source;
                line += 1;
            }
        }
        // The unfinished statement of a function somewhere in the middle.
        let line = (LINES / 3 + number % (LINES / 3)) / 8 * 8 + 5;
        let name = format!("part_{number}.rs");
        Self {
            uri: format!("{root}/{name}"),
            name,
            text,
            version: 1,
            line,
            column: INDENTED.len(),
        }
    }

    /// Parameters of `textDocument/didOpen`.
    pub fn open(&self) -> Value {
        json!({"textDocument": {
            "uri": self.uri, "languageId": "rust", "version": self.version, "text": self.text,
        }})
    }

    /// Moves the cursor to the unfinished statement of another function, as somebody does who has gone
    /// on to another place.
    pub fn move_on(&mut self, run: usize) {
        // Far from where it was, and every function's turn comes.
        let function = (self.line / 8 + 97 + run % 2) % (LINES / 8);
        self.line = function * 8 + 5;
        self.column = INDENTED.len();
    }

    /// Types one character at the cursor.
    pub fn type_one(&mut self) -> Keystroke {
        self.press(char::from(
            KEYSTROKES[self.version as usize % KEYSTROKES.len()],
        ))
    }

    /// Types this character at the cursor. It is ASCII.
    pub fn press(&mut self, key: char) -> Keystroke {
        let at = json!({"line": self.line, "character": self.column});
        self.version += 1;
        self.column += 1;
        Keystroke {
            change: json!({
                "textDocument": {"uri": self.uri, "version": self.version},
                "contentChanges": [{"range": {"start": at, "end": at}, "text": key.to_string()}],
            }),
            line: self.line,
            column: self.column,
        }
    }
}
