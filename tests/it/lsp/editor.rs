//! An editor whose document is typed in, for tests of what is seen at the cursor.

use std::ops::Range;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tandem::backend::scripted::{Script, ScriptedBackend};
use tandem::inference::BackendKind;

use super::client::{Lsp, Setup};

pub const URI: &str = "file:///project/a.rs";

/// A document in an editor, with its cursor.
pub struct Editor {
    pub lsp: Lsp,
    pub uri: String,
    pub text: String,
    /// In bytes.
    pub cursor: usize,
    version: i32,
}

impl Editor {
    /// Opens a document with its cursor at `|`.
    pub async fn open(setup: Setup, marked: &str) -> Self {
        let lsp = setup.start().await;
        let (before, after) = marked.split_once('|').unwrap();
        let mut editor = Self {
            lsp,
            uri: URI.to_owned(),
            text: [before, after].concat(),
            cursor: before.len(),
            version: 1,
        };
        editor.lsp.open(URI, "rust", &editor.text).await;
        editor
    }

    /// Where a byte is, in UTF-16 units.
    pub fn position(&self, at: usize) -> (u32, u32) {
        let before = &self.text[..at];
        let line = before.matches('\n').count() as u32;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        (line, before[start..].encode_utf16().count() as u32)
    }

    pub async fn edit(&mut self, bytes: Range<usize>, by: &str) {
        let at = |(line, character)| json!({"line": line, "character": character});
        let range = json!({
            "start": at(self.position(bytes.start)),
            "end": at(self.position(bytes.end)),
        });
        self.version += 1;
        let params = json!({
            "textDocument": {"uri": self.uri, "version": self.version},
            "contentChanges": [{"range": range, "text": by}],
        });
        self.lsp.notify("textDocument/didChange", params).await;
        self.text.replace_range(bytes, by);
    }

    pub async fn press(&mut self, keys: &str) {
        self.edit(self.cursor..self.cursor, keys).await;
        self.cursor += keys.len();
    }

    pub async fn backspace(&mut self) {
        let last = self.text[..self.cursor].chars().next_back().unwrap();
        let from = self.cursor - last.len_utf8();
        self.edit(from..self.cursor, "").await;
        self.cursor = from;
    }

    pub async fn items(&mut self, kind: u8) -> Vec<Value> {
        let at = self.position(self.cursor);
        self.lsp.inline(&self.uri.clone(), at, kind).await
    }

    /// What stands at the cursor in grey, by itself.
    pub async fn ghost(&mut self) -> Option<String> {
        let items = self.items(2).await;
        Some(self.behind_cursor(items.first()?))
    }

    /// What an item inserts at the cursor; it must do nothing else.
    pub fn behind_cursor(&self, item: &Value) -> String {
        let start = &item["range"]["start"];
        let number = |value: &Value| value.as_u64().unwrap() as u32;
        let start = (number(&start["line"]), number(&start["character"]));
        let line = self.text[..self.cursor].rfind('\n').map_or(0, |at| at + 1);
        assert_eq!(start, self.position(line));
        let end = &item["range"]["end"];
        let end = (number(&end["line"]), number(&end["character"]));
        assert_eq!(end, self.position(self.cursor));
        let typed = &self.text[line..self.cursor];
        let insert = item["insertText"].as_str().unwrap();
        insert.strip_prefix(typed).unwrap().to_owned()
    }

    /// How often the model was asked.
    pub fn asked(&self) -> usize {
        self.lsp.observed().started.load(Ordering::SeqCst)
    }

    /// Expects this in grey, and that the model was asked so often in all.
    pub async fn check(&mut self, ghost: &str, asked: usize) {
        assert_eq!(self.ghost().await.as_deref(), Some(ghost), "{}", self.text);
        assert_eq!(self.asked(), asked, "{}", self.text);
    }

    pub async fn finish(self) {
        self.lsp.finish().await;
    }
}

/// Says `answers` in turn, then nothing.
pub fn in_turn(answers: &'static [&'static str]) -> Setup {
    let turn = std::sync::atomic::AtomicUsize::new(0);
    Setup::with(ScriptedBackend::new(BackendKind::Candle, move |_| {
        let turn = turn.fetch_add(1, Ordering::SeqCst);
        Script::text(answers.get(turn).copied().unwrap_or_default())
    }))
}
