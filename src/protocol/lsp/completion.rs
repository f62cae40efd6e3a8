//! `textDocument/completion`, for clients that know no inline completion.

use tower_lsp::lsp_types::{
    CompletionContext, CompletionItem, CompletionItemKind, CompletionList, CompletionParams,
    CompletionResponse, CompletionTextEdit, CompletionTriggerKind, Documentation, InsertTextFormat,
    MarkupContent, MarkupKind, Range, TextEdit,
};

use super::generate::{self, Cursor, Place};
use super::position;
use super::server::Server;
use super::suggestions::Suggestion;

/// Labels longer than this are cut: popups are narrow.
const MAX_LABEL_CHARS: usize = 60;

/// Answers the request. The list is never final: the next character may bring more.
pub async fn completion(server: &Server, params: CompletionParams) -> CompletionResponse {
    let at = params.text_document_position;
    let place = Place {
        uri: at.text_document.uri,
        position: at.position,
        selected: None,
        // Clients send the same kind for a keystroke and for a key that asks, so neither the
        // debounce nor the rule on what may be spent by itself may be skipped.
        automatic: true,
        typing: !invoked(params.context.as_ref()),
        candidates: 1,
    };
    let items = match generate::complete(server, place).await {
        None => Vec::new(),
        Some((cursor, suggestions)) => suggestions
            .into_iter()
            .map(|suggestion| item(server, &cursor, suggestion))
            .collect(),
    };
    CompletionResponse::List(CompletionList {
        is_incomplete: true,
        items,
    })
}

fn invoked(context: Option<&CompletionContext>) -> bool {
    context.is_none_or(|context| context.trigger_kind == CompletionTriggerKind::INVOKED)
}

fn item(server: &Server, cursor: &Cursor, suggestion: Suggestion) -> CompletionItem {
    // Popups compare with the word before the cursor, so the item starts there.
    let text = &cursor.document.text;
    let from = generate::start_of_word(text, cursor.to, cursor.from);
    let position = |index| position::to_position(text, index, cursor.encoding);
    let typed = text.slice(from..cursor.to).to_string();
    let new_text = format!("{typed}{}", suggestion.text);
    let first_line = new_text.lines().find(|line| !line.trim().is_empty());
    let label = label(first_line.unwrap_or_default());
    let documentation = if server.capabilities().markdown_documentation {
        let value = format!("```{}\n{new_text}\n```", cursor.document.language);
        Documentation::MarkupContent(MarkupContent {
            kind: MarkupKind::Markdown,
            value,
        })
    } else {
        Documentation::String(new_text.clone())
    };
    CompletionItem {
        label,
        kind: Some(CompletionItemKind::TEXT),
        detail: Some(format!(
            "{} ({})",
            suggestion.attribution.model, suggestion.attribution.backend
        )),
        documentation: Some(documentation),
        preselect: Some(false),
        // After what the language's own server offers.
        sort_text: Some("\u{10ffff}".to_owned()),
        filter_text: Some(new_text.clone()),
        insert_text_format: Some(InsertTextFormat::PLAIN_TEXT),
        text_edit: Some(CompletionTextEdit::Edit(TextEdit {
            range: Range::new(position(from), position(cursor.to)),
            new_text,
        })),
        command: Some(suggestion.command),
        ..CompletionItem::default()
    }
}

fn label(line: &str) -> String {
    let line = line.trim();
    let mut label: String = line.chars().take(MAX_LABEL_CHARS).collect();
    if label.len() < line.len() {
        label.push('…');
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short_and_say_when_they_are_cut() {
        assert_eq!(label("  a b "), "a b");
        assert_eq!(label(&"é".repeat(61)), format!("{}…", "é".repeat(60)));
        assert_eq!(label(""), "");
    }
}
