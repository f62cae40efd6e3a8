//! `tandem model` as people and scripts meet it: the real program, killed halfway, two at once.

use std::process::Stdio;

use serde_json::Value;
use tandem::model::HubEnvironment;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::hub_api::{Fault, What};
use super::{Rig, TOKEN, tiny, weights};

impl Rig {
    pub fn command(&self, args: &[&str]) -> Command {
        let catalogue = self.home.path().join("mine.yaml");
        std::fs::write(&catalogue, &self.catalogue).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
        command
            .args(args)
            .env_clear()
            // Nothing that outlives the test.
            .env("TANDEM_DAEMON_ENABLED", "false")
            .env("HOME", self.home.path())
            .envs(std::env::var_os("SystemRoot").map(|root| ("SystemRoot", root)))
            .env("USERPROFILE", self.home.path())
            .env("APPDATA", self.home.path().join(".config"))
            .env("XDG_DATA_HOME", self.home.path())
            .env("TANDEM_LOCAL_CATALOGUE", catalogue)
            .env("HF_ENDPOINT", self.server.endpoint())
            .env("HF_TOKEN", TOKEN)
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&str]) -> (i32, String, String) {
        ended(self.command(args).spawn().unwrap()).await
    }
}

async fn ended(child: Child) -> (i32, String, String) {
    let output = child.wait_with_output().await.unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[tokio::test]
async fn a_model_is_listed_pulled_verified_and_removed() {
    let rig = Rig::new(|_| None).await;
    let listed = async |id: &str| -> Value {
        let (code, stdout, stderr) = rig.run(&["model", "list", "--json"]).await;
        assert_eq!((code, stderr.as_str()), (0, ""));
        let list: Value = serde_json::from_str(&stdout).unwrap();
        let models = list["models"].as_array().unwrap();
        assert!(models.iter().any(|model| model["id"] == "qwen3-0.6b"));
        models
            .iter()
            .find(|model| model["id"] == id)
            .unwrap()
            .clone()
    };
    assert_eq!(listed("one").await["state"], "absent");
    let (code, stdout, stderr) = rig.run(&["model", "path", "one"]).await;
    assert_eq!((code, stdout.as_str()), (4, ""), "{stderr}");
    assert!(stderr.contains("tandem model pull one"), "{stderr}");

    let (code, path, stderr) = rig.run(&["model", "pull", "one"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("one: 100 % of 200.0 kB"), "{stderr}");
    assert_eq!(std::fs::read(path.trim_end()).unwrap(), weights());
    assert_eq!(
        rig.run(&["model", "path", "one"]).await,
        (0, path.clone(), String::new())
    );
    let row = listed("one").await;
    assert_eq!(
        (&row["state"], &row["bytes"]),
        (&"installed".into(), &200_000.into())
    );
    assert_eq!(row["commit"], tiny().commit.as_str());

    let (code, stdout, _) = rig.run(&["model", "verify"]).await;
    assert_eq!((code, stdout.as_str()), (0, "one: sound, files: 1\n"));
    std::fs::write(path.trim_end(), vec![b'x'; weights().len()]).unwrap();
    let (code, _, stderr) = rig.run(&["model", "verify", "one"]).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("damaged"), "{stderr}");

    let (code, stdout, _) = rig.run(&["model", "remove", "one"]).await;
    assert_eq!(code, 0);
    assert!(stdout.starts_with("removed one"), "{stdout}");
    assert_eq!(listed("one").await["state"], "absent");
    let (code, stdout, _) = rig.run(&["model", "list"]).await;
    assert_eq!(code, 0);
    assert!(
        stdout.contains("pinned") && !stdout.contains('\u{1b}'),
        "{stdout}"
    );

    for (args, expected) in [
        (&["model", "pull", "on"][..], 2),
        (&["model", "pull", "../one"], 2),
        (&["model", "verify", "one"], 4),
        (&["model", "remove", "one"], 4),
    ] {
        let (code, stdout, stderr) = rig.run(args).await;
        assert_eq!(
            (code, stdout.as_str()),
            (expected, ""),
            "{args:?}: {stderr}"
        );
        assert!(stderr.trim_end().ends_with(['.', '?']), "{stderr}");
    }
}

#[tokio::test]
async fn a_download_that_was_killed_goes_on_where_it_was() {
    let rig = Rig::new(|asked| {
        let first = asked.what == What::Content && asked.before == 0;
        first.then(|| Fault::Gate(std::sync::Arc::new(tokio::sync::Semaphore::new(0))))
    })
    .await;
    let mut child = rig.command(&["model", "pull", "one"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains("50 %") {
            break;
        }
    }
    child.kill().await.unwrap();
    let (code, _, stderr) = rig.run(&["model", "path", "one"]).await;
    assert_eq!(code, 4, "half a model is none: {stderr}");
    let (code, path, stderr) = rig.run(&["model", "pull", "one"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(std::fs::read(path.trim_end()).unwrap(), weights());
    let asked = rig.asked(What::Content);
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].request.header("range"), Some("bytes=100000-"));
}

#[tokio::test]
async fn two_processes_download_once() {
    let rig = Rig::new(|_| None).await;
    let first = rig.command(&["model", "pull", "folder"]).spawn().unwrap();
    let second = rig.command(&["model", "pull", "folder"]).spawn().unwrap();
    let (first, second) = tokio::join!(ended(first), ended(second));
    assert_eq!((first.0, second.0), (0, 0), "{first:?} {second:?}");
    assert_eq!(first.1, second.1);
    assert_eq!(rig.asked(What::Content).len(), 1);
}

#[tokio::test]
async fn offline_means_offline() {
    let rig = Rig::new(|_| None).await;
    let mut command = rig.command(&["model", "pull", "one"]);
    let (code, _, stderr) = ended(command.env("HF_HUB_OFFLINE", "1").spawn().unwrap()).await;
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains("HF_HUB_OFFLINE"), "{stderr}");
    assert!(rig.server.seen().is_empty());
}

#[test]
fn the_environment_is_read_as_hugging_face_reads_it() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("hf");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("token"), "hf_from_file\n").unwrap();
    let read = |variables: &[(&str, &str)]| {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.into())
        };
        HubEnvironment::read(variable, Some(home.path()))
    };
    let own = folder.to_str().unwrap();
    assert_eq!(
        read(&[]).cache,
        Some(home.path().join(".cache/huggingface/hub"))
    );
    assert_eq!(read(&[]).token, None);
    assert_eq!(read(&[("HF_HOME", own)]).cache, Some(folder.join("hub")));
    let token = |text| tandem::model::Token::new(text);
    assert_eq!(read(&[("HF_HOME", own)]).token, token("hf_from_file"));
    assert_eq!(
        read(&[("HF_HOME", own), ("HF_TOKEN", "hf_a")]).token,
        token("hf_a")
    );
    assert_eq!(
        read(&[("HF_HOME", own), ("HF_HUB_CACHE", "/cache")]).cache,
        Some("/cache".into())
    );
    for (value, offline) in [
        ("1", true),
        ("TRUE", true),
        ("on", true),
        ("0", false),
        ("", false),
    ] {
        assert_eq!(
            read(&[("HF_HUB_OFFLINE", value)]).offline,
            offline,
            "{value}"
        );
    }
}

#[tokio::test]
async fn a_pulled_model_generates_by_its_name() {
    let rig = super::session::rig(|_| None).await;
    let generate = [
        "generate",
        "--model",
        "one",
        "--tokens",
        "1,2,3",
        "--max-tokens",
        "4",
        "--json",
    ];
    let (code, _, stderr) = rig.run(&generate).await;
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains("tandem model pull one"), "{stderr}");
    let (code, _, stderr) = rig.run(&["model", "pull", "one"]).await;
    assert_eq!(code, 0, "{stderr}");
    let (code, stdout, stderr) = rig.run(&generate).await;
    assert_eq!(code, 0, "{stderr}");
    let said: Value = serde_json::from_str(&stdout).unwrap();
    assert!(!said["tokens"].as_array().unwrap().is_empty(), "{said}");
    let (code, stdout, stderr) = rig.run(&["status", "--model", "one"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.contains("one") && stdout.contains("ready"),
        "{stdout}"
    );
}
