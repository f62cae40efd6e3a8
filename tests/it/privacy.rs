//! What must not leave the machine does not, whatever fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tandem::backend::scripted::{Script, ScriptedBackend};
use tandem::config::{Mode, PrivacySettings, Settings};
use tandem::inference::{
    BackendKind, Effort, EmptyReason, ErrorKind, GenerateRequest, Message, Role, Snippet, Task,
};
use tandem::router::{Answer, NoAnswer, RouteRequest};

use super::router::{
    World, automatic, chat, claude, complete, edit, embedded, failing, started, with_mode,
};

/// Which backend was given which pieces.
type Seen = Mutex<Vec<(BackendKind, Vec<String>)>>;

/// A folder that is a git repository as far as ignore files go.
fn repository() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    fs::create_dir_all(root.join(".git/info")).unwrap();
    (folder, root)
}

fn write(at: &Path, text: &str) {
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    fs::write(at, text).unwrap();
}

/// A world in which only Claude could answer.
fn only_claude(privacy: PrivacySettings) -> World {
    let settings = Settings {
        privacy,
        ..Settings::default()
    };
    let broken = failing(BackendKind::Candle, ErrorKind::Backend);
    World::new(settings, Some(broken), None, Some(claude("leaked")))
}

fn at(mut request: RouteRequest, file: PathBuf, workspace: Option<&Path>) -> RouteRequest {
    request.origin.file = Some(file);
    request.origin.workspace = workspace.map(Path::to_path_buf);
    request
}

async fn asks_claude(world: &World, request: RouteRequest) -> Result<Answer, NoAnswer> {
    let before = started(world.claude.as_ref());
    let answer = world.ask(request).await;
    let asked = started(world.claude.as_ref()) - before;
    assert_eq!(asked, usize::from(answer.is_ok()));
    answer
}

#[tokio::test(start_paused = true)]
async fn files_that_hold_secrets_by_their_name_are_denied() {
    let denied = [
        ".env",
        ".env.local",
        "prod.env",
        ".ENV",
        "deploy/id_rsa",
        "id_ed25519",
        "tls/server.pem",
        "tls/server.key",
        "store.p12",
        "store.jks",
        "app.keystore",
        ".netrc",
        ".npmrc",
        ".pypirc",
        ".pgpass",
        ".git-credentials",
        ".aws/credentials",
        ".aws/config",
        ".ssh/config",
        ".kube/config",
        "infra/prod.tfvars",
        "infra/terraform.tfstate",
        "config/master.key",
        "credentials.json",
        "client_secret_1.json",
        "secrets.yaml",
        "passwords.kdbx",
    ];
    let allowed = [
        "src/main.rs",
        "src/env.rs",
        "environment.ts",
        "docs/credentials.md",
        "src/keyboard.rs",
        "src/secrets.rs",
        "monkey.py",
        "README.md",
    ];
    let (_folder, root) = repository();
    let world = only_claude(PrivacySettings::default());
    for (files, may_leave) in [(&denied[..], false), (&allowed[..], true)] {
        for file in files {
            let request = at(complete("let x = ", ""), root.join(file), Some(&root));
            let answer = asks_claude(&world, request).await;
            assert_eq!(answer.is_ok(), may_leave, "{file}: {answer:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn files_that_git_or_tandem_ignore_are_denied() {
    let (_folder, root) = repository();
    write(
        &root.join(".gitignore"),
        "/build/\n*.log\n!keep.log\nnotes/**\n",
    );
    write(&root.join("src/.gitignore"), "generated.rs\n!special.log\n");
    write(&root.join(".git/info/exclude"), "private.rs\n");
    write(&root.join("docs/.tandemignore"), "draft-*\n");
    write(&root.join("src/linked.rs"), "");
    write(&root.join("build/real.rs"), "");
    let cases = [
        ("src/main.rs", None),
        ("build/out.rs", Some("git")),
        ("build/deep/out.rs", Some("git")),
        ("src/build/out.rs", None),
        ("x.log", Some("git")),
        ("deep/x.log", Some("git")),
        ("keep.log", None),
        ("src/special.log", None),
        ("src/generated.rs", Some("git")),
        ("src/deep/generated.rs", Some("git")),
        ("generated.rs", None),
        ("notes/a.md", Some("git")),
        ("src/private.rs", Some("git")),
        ("docs/draft-1.md", Some(".tandemignore")),
        ("draft-1.md", None),
    ];
    let world = only_claude(PrivacySettings::default());
    for (file, ignored_by) in cases {
        let request = at(complete("let x = ", ""), root.join(file), Some(&root));
        match (asks_claude(&world, request).await, ignored_by) {
            (Ok(_), None) => {}
            (Err(no_answer), Some(who)) => {
                let error = no_answer.error.unwrap();
                assert!(error.message.contains(who), "{file}: {error}");
            }
            (answer, _) => panic!("{file}: {answer:?}"),
        }
    }

    // The user may allow what git ignores, but not what Tandem is told to ignore.
    let world = only_claude(PrivacySettings {
        allow_git_ignored: true,
        ..PrivacySettings::default()
    });
    let request = at(complete("a", ""), root.join("x.log"), Some(&root));
    assert!(asks_claude(&world, request).await.is_ok());
    let request = at(complete("a", ""), root.join("docs/draft-1.md"), Some(&root));
    assert!(asks_claude(&world, request).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_ignore_file_that_changes_is_read_again() {
    let (_folder, root) = repository();
    let world = only_claude(PrivacySettings::default());
    let ask = || at(complete("let x = ", ""), root.join("a.rs"), Some(&root));
    assert!(asks_claude(&world, ask()).await.is_ok());
    write(&root.join(".gitignore"), "*.rs\n");
    assert!(asks_claude(&world, ask()).await.is_err());
    write(&root.join(".gitignore"), "*.txt # not *.rs\n");
    assert!(asks_claude(&world, ask()).await.is_ok());
    fs::remove_file(root.join(".gitignore")).unwrap();
    write(&root.join(".tandemignore"), "a.*\n");
    assert!(asks_claude(&world, ask()).await.is_err());
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_link_is_judged_by_what_it_leads_to_as_well() {
    let (_folder, root) = repository();
    let elsewhere = tempfile::tempdir().unwrap();
    write(&root.join(".env"), "A=1");
    write(&elsewhere.path().join("plain.rs"), "");
    std::os::unix::fs::symlink(root.join(".env"), root.join("settings.txt")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), root.join("vendor")).unwrap();
    let world = only_claude(PrivacySettings::default());
    for file in [
        "settings.txt",
        "vendor/plain.rs",
        "vendor/unsaved.rs",
        "src/../.env",
    ] {
        let request = at(complete("let x = ", ""), root.join(file), Some(&root));
        assert!(asks_claude(&world, request).await.is_err(), "{file}");
    }
}

#[tokio::test(start_paused = true)]
async fn paths_outside_the_workspace_and_the_users_globs_are_denied() {
    let (_folder, root) = repository();
    let world = only_claude(PrivacySettings {
        deny: vec!["*.sql".into(), "legal".into(), "src/billing/**".into()],
        ..PrivacySettings::default()
    });
    let cases = [
        (root.join("src/main.rs"), true),
        (root.join("deep/down/schema.sql"), false),
        (root.join("legal/contract.md"), false),
        (root.join("src/billing/mod.rs"), false),
        (root.join("../elsewhere.rs"), false),
        (PathBuf::from("/etc/hosts"), false),
    ];
    for (file, may_leave) in cases {
        let request = at(complete("let x = ", ""), file.clone(), Some(&root));
        let answer = asks_claude(&world, request).await;
        assert_eq!(answer.is_ok(), may_leave, "{}", file.display());
    }
    // A glob that cannot be read opens nothing.
    let world = only_claude(PrivacySettings {
        deny: vec!["src/[".into()],
        ..PrivacySettings::default()
    });
    let request = at(complete("a", ""), root.join("src/main.rs"), Some(&root));
    assert!(asks_claude(&world, request).await.is_err());
}

/// Made up, and put together here so that no scanner takes this file for a leak.
fn secrets() -> Vec<(&'static str, String)> {
    vec![
        ("aws", format!("key = \"{}{}\"", "AKIA", "Z3MWPQ4KTLE2NB7X")),
        (
            "github",
            format!(
                "token: {}{}",
                "ghp_", "x8Kq2ZrT5vB1nM7cW3yL9pD4sF6hJ0gQaEuR"
            ),
        ),
        (
            "anthropic",
            format!(
                "{}{}AA",
                "sk-ant-api03-",
                "Zk3vQ9wX1bN7mC5rT8yL2pD6sF4hJ0gUaEiOqWzV".repeat(3)[..93].to_owned()
            ),
        ),
        (
            "slack",
            format!(
                "{}-{}",
                "xoxb", "263594206564-2343594206574-FGqddMF8t08v8N7Oq4i57vs1"
            ),
        ),
        (
            "generic",
            format!("api_{}= '{}'", "key", "q8Zt3LmX9vB2nC7rW5yK1pD6"),
        ),
        (
            "private key",
            format!(
                "-----BEGIN RSA {0}-----\n{1}\n-----END RSA {0}-----\n",
                "PRIVATE KEY",
                "MIIEpAIBAAKCAQEA3Tz2mr7SZiAMfQyuvBjM9Oi\nZ1BjP5CE/Wm/Rr500PRK+Lh9x5eJPo5CAZ3\n"
                    .repeat(30)
            ),
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn text_with_a_secret_stays_wherever_it_is_in_the_request() {
    let world = only_claude(PrivacySettings::default());
    let code = "fn main() {\n    println!(\"hello\");\n}\n".repeat(40);
    for (name, secret) in secrets() {
        let middle = secret.len() / 2;
        let requests = [
            complete(&format!("{code}{secret}\n{code}"), ""),
            complete(&code, &format!("\n{secret}\n{code}")),
            complete(
                &format!("{code}{}", &secret[..middle]),
                &format!("{}\n", &secret[middle..]),
            ),
            chat(&format!("What is this?\n{secret}\n")),
            edit(&format!("{secret}\n")),
            {
                let mut request = edit("x");
                if let Task::Edit(task) = &mut request.generate.task {
                    task.before = format!("{secret}\n").into();
                }
                request
            },
            {
                let mut request = edit("x");
                if let Task::Edit(task) = &mut request.generate.task {
                    task.instruction = format!("Put this in: {secret}\n");
                }
                request
            },
            {
                let mut request = chat("hi");
                if let Task::Chat(task) = &mut request.generate.task {
                    task.messages.insert(
                        0,
                        Message {
                            role: Role::Assistant,
                            text: format!("{secret}\n"),
                        },
                    );
                }
                request
            },
            {
                let mut request = chat("hi");
                if let Task::Chat(task) = &mut request.generate.task {
                    task.system = Some(format!("{secret}\n"));
                }
                request
            },
        ];
        for (number, request) in requests.into_iter().enumerate() {
            let no_answer = asks_claude(&world, request).await;
            assert!(no_answer.is_err(), "{name} in request {number}");
            let message = format!("{no_answer:?}");
            assert!(message.contains("secret"), "{name}: {message}");
            assert!(
                !message.contains(&secret[..middle]),
                "the message shows the secret: {message}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ordinary_code_is_not_taken_for_a_secret() {
    let world = only_claude(PrivacySettings::default());
    let code = [
        include_str!("router.rs"),
        include_str!("../../src/router/policy.rs"),
        include_str!("../../src/config/settings.rs"),
        include_str!("../../Cargo.toml"),
        "const token = process.env.API_TOKEN;\nconst key = await getKey(\"user\");\n",
        "password = getpass.getpass()\napi_key = os.environ[\"API_KEY\"]\n",
        "aws_access_key_id = \"AKIAIOSFODNN7EXAMPLE\"\n",
        "let secret = Secret::new(config.secret.clone());\n",
    ];
    for text in code {
        let answer = asks_claude(&world, complete(text, "")).await;
        assert!(
            answer.is_ok(),
            "{answer:?}: {}",
            &text[..text.len().min(80)]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn pieces_of_denied_files_are_dropped_for_claude_and_kept_for_the_device() {
    let (_folder, root) = repository();
    write(&root.join(".gitignore"), "hidden.rs\n");
    let seen: Arc<Seen> = Arc::default();
    let spy = |kind: BackendKind, error: Option<ErrorKind>| {
        let seen = Arc::clone(&seen);
        ScriptedBackend::new(kind, move |request: &GenerateRequest| {
            let Task::Complete(task) = &request.task else {
                panic!("not a completion")
            };
            let pieces = task.snippets.iter().map(|one| one.path.clone()).collect();
            seen.lock().unwrap().push((kind, pieces));
            match error {
                Some(error) => Script::failure(tandem::inference::GenerateError::new(
                    error, "it broke", "Mend it.",
                )),
                None => Script::text("1;"),
            }
        })
    };
    let world = World::new(
        Settings::default(),
        Some(spy(BackendKind::Candle, Some(ErrorKind::Backend))),
        None,
        Some(spy(BackendKind::Claude, None)),
    );
    let mut request = at(complete("let x = ", ""), root.join("a.rs"), Some(&root));
    let snippet = |path: &str, file: Option<PathBuf>, text: &str| Snippet {
        path: path.into(),
        file,
        text: text.into(),
    };
    let secret = secrets().remove(0).1;
    if let Task::Complete(task) = &mut request.generate.task {
        task.snippets = vec![
            snippet("open.rs", Some(root.join("open.rs")), "fn a() {}"),
            snippet("hidden.rs", Some(root.join("hidden.rs")), "fn b() {}"),
            snippet(".env", Some(root.join(".env")), "A=1"),
            snippet("secret.rs", None, &secret),
            snippet("note", None, "fn c() {}"),
        ];
    }
    world.ask(request).await.unwrap();
    let seen = seen.lock().unwrap();
    let all = ["open.rs", "hidden.rs", ".env", "secret.rs", "note"];
    assert_eq!(
        *seen,
        [
            (BackendKind::Candle, all.map(String::from).to_vec()),
            (
                BackendKind::Claude,
                ["open.rs", "note"].map(String::from).to_vec()
            ),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_denied_document_is_still_served_on_the_device() {
    let (_folder, root) = repository();
    let world = World::new(
        with_mode(Mode::Auto),
        Some(failing(BackendKind::Candle, ErrorKind::Backend)),
        Some(embedded("1;")),
        Some(claude("leaked")),
    );
    let request = at(complete("let x = ", ""), root.join(".env"), Some(&root));
    let answer = asks_claude_never(&world, request).await.unwrap();
    assert_eq!(answer.attribution.backend, BackendKind::Embedded);
}

async fn asks_claude_never(world: &World, request: RouteRequest) -> Result<Answer, NoAnswer> {
    let answer = world.ask(request).await;
    assert_eq!(started(world.claude.as_ref()), 0);
    answer
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_to_claude_in_local_only_nor_by_itself_unless_switched_on() {
    let broken = || Some(failing(BackendKind::Candle, ErrorKind::Backend));
    let world = World::new(
        with_mode(Mode::LocalOnly),
        broken(),
        None,
        Some(claude("leaked")),
    );
    for mut request in [complete("a", ""), automatic("a"), chat("a"), edit("a")] {
        for effort in [Effort::Low, Effort::High] {
            request.generate.effort = effort;
            assert!(asks_claude_never(&world, request.clone()).await.is_err());
        }
    }

    let world = World::new(Settings::default(), None, None, Some(claude("1;")));
    let no_answer = asks_claude_never(&world, automatic("let x = ")).await;
    assert_eq!(no_answer.unwrap_err().empty, Some(EmptyReason::NoBackend));
    let mut settings = Settings::default();
    settings.claude.automatic_completions = true;
    let world = World::new(settings, None, None, Some(claude("1;")));
    assert!(world.ask(automatic("let x = ")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_leaves_the_machine_is_not_taken_for_a_local_one() {
    let world = World::new(
        with_mode(Mode::LocalOnly),
        Some(claude("leaked")),
        None,
        None,
    );
    assert!(world.ask(chat("hi")).await.is_err());
    assert_eq!(started(world.local.as_ref()), 0);
}

#[tokio::test(start_paused = true)]
async fn text_without_a_file_is_judged_by_the_name_it_goes_by() {
    let world = only_claude(PrivacySettings::default());
    for (name, may_leave) in [("deploy/.env", false), ("id_rsa", false), ("a.rs", true)] {
        let mut request = complete("let x = ", "");
        request.origin.file = None;
        if let Task::Complete(task) = &mut request.generate.task {
            task.path = Some(name.into());
        }
        let answer = asks_claude(&world, request).await;
        assert_eq!(answer.is_ok(), may_leave, "{name}: {answer:?}");
        // A question about a document that was never saved holds its text, too.
        let mut request = chat("A=1");
        request.origin.name = Some(name.to_owned());
        let answer = asks_claude(&world, request).await;
        assert_eq!(answer.is_ok(), may_leave, "{name}: {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_diff_of_a_denied_file_stays_wherever_it_is_pasted() {
    let (_folder, root) = repository();
    write(&root.join(".gitignore"), "/private/\n");
    let world = only_claude(PrivacySettings::default());
    for (name, may_leave) in [
        ("b/src/a.rs", true),
        ("b/deploy/.env", false),
        ("b/private/a.rs", false),
        ("\"b/s\\303\\244/.env\"", false),
    ] {
        let mut request = chat(&format!(
            "Review this:\n--- /dev/null\n+++ {name}\n@@ -0,0 +1 @@\n+A=1\n"
        ));
        request.origin.file = None;
        request.origin.workspace = Some(root.clone());
        let answer = asks_claude(&world, request).await;
        assert_eq!(answer.is_ok(), may_leave, "{name}: {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_nested_project_keeps_its_own_files() {
    let (_folder, root) = repository();
    let write_project = |name: &str, yaml: &str| {
        write(&root.join(name).join("a.rs"), "fn main() {}");
        write(&root.join(name).join("b.key.rs"), "fn main() {}");
        write(&root.join(name).join(".tandem.yaml"), yaml);
    };
    write_project("open", "completion: {languages_off: [text]}");
    write_project("closed", "mode: local-only");
    write_project("partly", "privacy: {deny: ['*.key.rs']}");
    write_project("broken", "mode: auto");
    let world = only_claude(PrivacySettings::default());
    for (file, leaves) in [
        ("open/a.rs", true),
        ("closed/a.rs", false),
        ("closed/deep/down.rs", false),
        ("partly/a.rs", true),
        ("partly/b.key.rs", false),
        ("broken/a.rs", false),
    ] {
        let request = at(complete("fn a() {", ""), root.join(file), Some(&root));
        let answer = asks_claude(&world, request).await;
        assert_eq!(answer.is_ok(), leaves, "{file}: {answer:?}");
    }
}
