//! The explain action: an answer that is shown as a document, or as a message where the client
//! shows none.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tower_lsp::lsp_types::request::ShowDocument;
use tower_lsp::lsp_types::{MessageType, ProgressToken, ShowDocumentParams, Url};

use crate::inference::{ChatTask, Effort, Message, Role, Task};
use crate::router::Answer;

use super::actions::{Kind, Target};
use super::context::{self, PREFIX_BYTES};
use super::documents::Snapshot;
use super::edit::{self, Trouble};
use super::progress::Bar;
use super::server::Server;

/// The longest explanation, in tokens: a page.
const MAX_TOKENS: usize = 1024;

/// Context before the explained code, in bytes: a third of what a completion sees, since the code
/// itself comes on top.
const CONTEXT_BYTES: usize = PREFIX_BYTES / 3;

/// Explanations older than this are deleted when a new one is written.
const KEPT: Duration = Duration::from_hours(24);

const SYSTEM: &str = "You explain code to the programmer who is reading it. Say what it does and \
                      why, what is surprising, and what could go wrong. Be short and concrete, and \
                      answer in Markdown.";

/// Explains what a target is about, and shows it.
///
/// # Errors
/// [`Trouble`], for the user to read.
pub async fn explain(
    server: &Server,
    target: &Target,
    progress: Option<ProgressToken>,
) -> Result<Answer, Trouble> {
    let document = edit::open(server, target)?;
    let task = Task::Chat(ChatTask {
        system: Some(SYSTEM.to_owned()),
        messages: vec![Message {
            role: Role::User,
            text: question(server, &document, target)?,
        }],
        schema: None,
    });
    let bar = Bar::create(server, Kind::Explain.title().to_owned(), progress).await;
    let answer = edit::ask(server, &document, task, Effort::Low, MAX_TOKENS).await;
    if let Some(bar) = bar {
        bar.end(String::new()).await;
    }
    let answer = answer?;
    show(server, &answer).await;
    Ok(answer)
}

fn question(server: &Server, document: &Snapshot, target: &Target) -> Result<String, Trouble> {
    let text = &document.text;
    let range = edit::explained(text, target, server.capabilities().encoding)?;
    let code = context::piece(text, range.clone());
    let before = context::before(text, range.start, CONTEXT_BYTES);
    let path = context::shown_path(server, document).unwrap_or_else(|| "untitled".to_owned());
    let language = &document.language;
    Ok(format!(
        "The file {path} begins, or goes on, like this:\n\n{}\n\nExplain this part of it:\n\n{}",
        fenced(language, &before),
        fenced(language, &code),
    ))
}

/// A code block whose fence is longer than any in the code.
fn fenced(language: &str, code: &str) -> String {
    let mut longest = 0;
    let mut run = 0;
    for character in code.chars() {
        run = if character == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    let fence = "`".repeat((longest + 1).max(3));
    format!("{fence}{language}\n{code}\n{fence}")
}

async fn show(server: &Server, answer: &Answer) {
    let who = format!(
        "{} ({})",
        answer.attribution.model, answer.attribution.backend
    );
    if server.capabilities().show_document {
        let page = format!("{}\n\n---\n{who}\n", answer.text.trim_end());
        match shown_as_document(server, page).await {
            Ok(true) => return,
            Ok(false) => tracing::debug!("the client did not show the explanation"),
            Err(error) => tracing::warn!(%error, "the explanation cannot be shown as a document"),
        }
    }
    let message = format!("{who}: {}", answer.text.trim());
    server.client.show(MessageType::INFO, message).await;
}

async fn shown_as_document(server: &Server, page: String) -> std::io::Result<bool> {
    let folder = server.session.cache.join("explanations");
    let path = tokio::task::spawn_blocking(move || write(&folder, &page))
        .await
        .map_err(std::io::Error::other)??;
    let Ok(uri) = Url::from_file_path(&path) else {
        return Ok(false);
    };
    let params = ShowDocumentParams {
        uri,
        external: Some(false),
        take_focus: Some(true),
        selection: None,
    };
    match server.client.request::<ShowDocument>(params).await {
        Ok(shown) => Ok(shown.success),
        Err(error) => Err(std::io::Error::other(error)),
    }
}

/// Writes a page that only its user can read, under a name of its own.
fn write(folder: &Path, page: &str) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    for old in std::fs::read_dir(folder)?.flatten() {
        let age = old
            .metadata()
            .and_then(|about| about.modified())
            .map(|modified| modified.elapsed().unwrap_or_default());
        if age.is_ok_and(|age| age > KEPT) {
            // Another session may be faster.
            let _ = std::fs::remove_file(old.path());
        }
    }
    let mut file = tempfile::Builder::new()
        .prefix("explanation-")
        .suffix(".md")
        .tempfile_in(folder)?;
    file.write_all(page.as_bytes())?;
    let (_, path) = file.keep()?;
    path.canonicalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_longer_than_any_inside() {
        assert_eq!(fenced("c", "x"), "```c\nx\n```");
        assert_eq!(fenced("", "a ```` b"), "`````\na ```` b\n`````");
    }

    #[test]
    fn each_page_has_its_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("deep");
        let first = write(&folder, "one").unwrap();
        let second = write(&folder, "two").unwrap();
        assert_ne!(first, second);
        assert_eq!(std::fs::read_to_string(first).unwrap(), "one");
    }
}
