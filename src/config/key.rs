//! A key, for Claude or for an inference server: as given, or from a command that is run on first need.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::environment::SERVER_KEY_VARIABLE;

/// How long a key command may take. Password managers ask the user first, so this is a person's
/// time, not a program's.
const COMMAND_LIMIT: Duration = Duration::from_mins(1);

/// After a failure the command is left alone for so long: it may open a dialog, and completions ask
/// for the key several times a second.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_mins(1);

/// The most bytes that are read of a command's output. Keys are about a hundred bytes long.
const OUTPUT_LIMIT: u64 = 64 << 10;

/// A key, or the way to get it. Cannot be printed by accident; clones share what the command said.
#[derive(Clone)]
pub struct ApiKey(Arc<Source>);

enum Source {
    Given(Arc<str>),
    Command {
        argv: Vec<String>,
        outcome: Mutex<Option<Outcome>>,
    },
}

enum Outcome {
    Key(Arc<str>),
    Failed(KeyError, Instant),
}

/// Why a key command gave no key. Holds nothing of what the command printed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the key command `{program}` {what}")]
pub struct KeyError {
    program: String,
    what: String,
}

impl KeyError {
    /// The next step, as a sentence, for a key that `setting` or `variable` gives.
    #[must_use]
    pub fn next_step(&self, setting: &str, variable: &str) -> String {
        format!(
            "Run `{}` in a terminal to see what it says, then correct `{setting}`, or set {variable}.",
            self.program
        )
    }
}

impl ApiKey {
    /// A key as given; white space around it is dropped. `None` if nothing is left.
    #[must_use]
    pub fn new(key: &str) -> Option<Self> {
        let key = key.trim();
        (!key.is_empty()).then(|| Self(Arc::new(Source::Given(key.into()))))
    }

    /// A program and its arguments that print the key. Nothing runs before [`Self::expose`]. `None`
    /// without a program.
    #[must_use]
    pub fn from_command(argv: Vec<String>) -> Option<Self> {
        argv.first()
            .is_some_and(|program| !program.is_empty())
            .then(|| {
                Self(Arc::new(Source::Command {
                    argv,
                    outcome: Mutex::new(None),
                }))
            })
    }

    /// The key itself, for the one header that needs it. A command is run without a shell, on first
    /// need and once; callers that come meanwhile wait for it.
    ///
    /// # Errors
    /// When the command cannot be started, fails, takes longer than a minute or prints nothing; the
    /// same error is then given for a minute without running it again.
    pub async fn expose(&self) -> Result<Arc<str>, KeyError> {
        match &*self.0 {
            Source::Given(key) => Ok(Arc::clone(key)),
            Source::Command { argv, outcome } => {
                let mut outcome = outcome.lock().await;
                match &*outcome {
                    Some(Outcome::Key(key)) => return Ok(Arc::clone(key)),
                    Some(Outcome::Failed(error, at)) if at.elapsed() < PAUSE_AFTER_FAILURE => {
                        return Err(error.clone());
                    }
                    Some(Outcome::Failed(..)) | None => {}
                }
                let result = run(argv).await;
                *outcome = Some(match &result {
                    Ok(key) => Outcome::Key(Arc::clone(key)),
                    Err(error) => Outcome::Failed(error.clone(), Instant::now()),
                });
                result
            }
        }
    }

    /// The program and its arguments, where the key comes from a command.
    #[must_use]
    pub fn command(&self) -> Option<&[String]> {
        match &*self.0 {
            Source::Given(_) => None,
            Source::Command { argv, .. } => Some(argv),
        }
    }
}

async fn run(argv: &[String]) -> Result<Arc<str>, KeyError> {
    let (program, arguments) = argv
        .split_first()
        .map_or(("", &[][..]), |(program, rest)| (program.as_str(), rest));
    let error = |what: String| KeyError {
        program: program.to_owned(),
        what,
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env_remove("ANTHROPIC_API_KEY")
        .env_remove(SERVER_KEY_VARIABLE)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // What it complains about may hold secrets, and ours goes into an editor's log.
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|cause| error(format!("cannot be started: {cause}")))?;
    let stdout = child.stdout.take();
    let work = async {
        let mut output = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(OUTPUT_LIMIT).read_to_end(&mut output).await?;
        }
        Ok::<_, std::io::Error>((child.wait().await?, output))
    };
    let (status, output) = tokio::time::timeout(COMMAND_LIMIT, work)
        .await
        .map_err(|_| error(format!("took longer than {} s", COMMAND_LIMIT.as_secs())))?
        .map_err(|cause| error(format!("cannot be read: {cause}")))?;
    if !status.success() {
        return Err(error(format!("failed ({status})")));
    }
    let key = std::str::from_utf8(&output).map_or("", str::trim);
    if key.is_empty() || key.contains(char::is_whitespace) {
        return Err(error("did not print one key and nothing else".to_owned()));
    }
    Ok(key.into())
}

impl PartialEq for ApiKey {
    fn eq(&self, other: &Self) -> bool {
        match (&*self.0, &*other.0) {
            (Source::Given(a), Source::Given(b)) => a == b,
            (Source::Command { argv: a, .. }, Source::Command { argv: b, .. }) => a == b,
            (Source::Given(_), Source::Command { .. })
            | (Source::Command { .. }, Source::Given(_)) => false,
        }
    }
}

impl Eq for ApiKey {}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(hidden)")
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    fn command(argv: &[&str]) -> ApiKey {
        ApiKey::from_command(argv.iter().map(ToString::to_string).collect()).unwrap()
    }

    #[tokio::test]
    async fn a_command_runs_once_and_its_output_is_trimmed() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        let script = format!("echo x >> '{}'; echo ' sk-test '", runs.display());
        let key = command(&["sh", "-c", &script]);
        assert!(!runs.exists(), "nothing runs before the key is needed");
        let (a, b) = tokio::join!(key.expose(), key.expose());
        assert_eq!(&*a.unwrap(), "sk-test");
        assert_eq!(&*b.unwrap(), "sk-test");
        assert_eq!(&*key.clone().expose().await.unwrap(), "sk-test");
        assert_eq!(std::fs::read_to_string(runs).unwrap(), "x\n");
    }

    #[tokio::test]
    async fn failures_say_what_happened_and_leak_nothing() {
        for (argv, expected) in [
            (
                &["sh", "-c", "echo secret >&2; echo secret; exit 3"][..],
                "failed (exit status: 3)",
            ),
            (&["sh", "-c", "true"], "did not print one key"),
            (&["sh", "-c", "echo secret two"], "did not print one key"),
            (
                &["sh", "-c", "printf '\\377\\376'"],
                "did not print one key",
            ),
            (&["/nowhere/secrets"], "cannot be started"),
        ] {
            let error = command(argv).expose().await.unwrap_err();
            let text = format!(
                "{error}. {} {error:?}",
                error.next_step("claude.api_key_command", "X")
            );
            assert!(text.contains(expected), "{text}");
            assert!(
                !text.contains("secret two") && !text.contains("secret;"),
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn a_failed_command_is_left_alone_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        let key = command(&[
            "sh",
            "-c",
            &format!("echo x >> '{}'; exit 1", runs.display()),
        ]);
        let count = || {
            std::fs::read_to_string(&runs)
                .unwrap_or_default()
                .lines()
                .count()
        };
        let first = key.expose().await.unwrap_err();
        assert_eq!(key.expose().await.unwrap_err(), first);
        let before = count();
        // Paused only for this step: a paused clock runs ahead of a child process.
        tokio::time::pause();
        tokio::time::advance(PAUSE_AFTER_FAILURE).await;
        tokio::time::resume();
        key.expose().await.unwrap_err();
        assert_eq!(count(), before + 1);
    }

    #[test]
    fn a_key_cannot_be_printed() {
        let key = ApiKey::new("  sk-ant-x\n").unwrap();
        assert_eq!(format!("{key:?}"), "ApiKey(hidden)");
        assert_eq!(ApiKey::new(" \n"), None);
        assert_eq!(ApiKey::from_command(vec![]), None);
    }
}
