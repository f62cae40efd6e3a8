//! `tandem doctor`, by the real program: what it says works has been tried.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fixtures.join(name)
}

/// The report on a model, and the exit code.
fn doctor(model: Option<&Path>, args: &[&str]) -> (Value, Option<i32>) {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
    command.args(["doctor", "--json"]).args(args);
    if let Some(model) = model {
        command.arg("--model").arg(model);
    }
    let output = command
        .env_clear()
        // Nothing that outlives the test.
        .env("TANDEM_DAEMON_ENABLED", "false")
        // How fast the machine is just now is not what is tested.
        .env("TANDEM_LOCAL_MAX_FIRST_TOKEN", "10m")
        .env("TANDEM_LOCAL_MIN_TOKENS_PER_SECOND", "0")
        .env("HOME", home.path())
        .envs(std::env::var_os("SystemRoot").map(|root| ("SystemRoot", root)))
        .env("USERPROFILE", home.path())
        .env("APPDATA", home.path())
        .current_dir(home.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (report, output.status.code())
}

/// The row of a backend, by a runtime where there are several.
fn row<'a>(report: &'a Value, backend: &str, runtime: Option<&str>) -> &'a Value {
    let rows = report["rows"].as_array().unwrap();
    let found = rows.iter().find(|row| {
        row["backend"] == backend && runtime.is_none_or(|runtime| row["runtime"] == runtime)
    });
    found.unwrap_or_else(|| panic!("no row for {backend}: {report}"))
}

fn outcomes(row: &Value) -> Vec<(&str, &str)> {
    let checks = row["checks"].as_array().unwrap().iter();
    checks
        .map(|check| {
            let text = |key: &str| check[key].as_str().unwrap();
            (text("step"), text("outcome"))
        })
        .collect()
}

#[test]
fn the_whole_checklist_passes_on_both_bundles() {
    for name in ["anemll-tiny/anemll", "anemll-odd/anemll"] {
        let (report, code) = doctor(Some(&fixture(name)), &["--runtime", "reference"]);
        assert_eq!(
            (code, &report["verdict"]),
            (Some(0), &Value::from("passed"))
        );
        let row = row(&report, "core-ml", Some("reference"));
        let steps = [
            "download",
            "configuration",
            "components",
            "tensor-specs",
            "initialization",
            "generation",
            "runtime-errors",
            "output-quality",
            "speed",
            "output-quality",
        ];
        assert_eq!(outcomes(row), steps.map(|step| (step, "passed")), "{name}");
        assert!(row["measured"]["tokens_per_second"].as_f64().unwrap() > 0.0);
        assert!(row["prompts"].as_str().unwrap().starts_with("qwen3: "));
    }
}

#[test]
fn without_a_model_the_embedded_one_is_what_works_and_every_backend_has_a_row() {
    let (report, code) = doctor(None, &[]);
    assert_eq!(code, Some(0));
    for (backend, profile) in [("embedded", "tandem-mini: "), ("claude", "claude: ")] {
        let prompts = row(&report, backend, None)["prompts"].as_str();
        assert!(prompts.unwrap().starts_with(profile), "{backend}");
    }
    let embedded = outcomes(row(&report, "embedded", None));
    assert!(embedded.contains(&("generation", "passed")), "{embedded:?}");
    for backend in [
        "core-ml", "candle", "metal", "cuda", "claude", "server", "adapters",
    ] {
        let row = row(&report, backend, None);
        assert_eq!(row["matters"], false, "{backend}");
        let checks = row["checks"].as_array().unwrap();
        assert!(!checks.is_empty(), "{backend}");
        for check in checks {
            assert_eq!(check["outcome"], "skipped", "{backend}");
            assert!(
                !check["next_step"].as_str().unwrap().is_empty(),
                "{backend}"
            );
        }
    }
}

#[test]
fn a_whole_model_is_tried_by_the_portable_engine() {
    let (report, code) = doctor(Some(&fixture("qwen3-tiny.gguf")), &["--no-embedded"]);
    let row = row(&report, "candle", None);
    assert!(
        outcomes(row).contains(&("runtime-errors", "passed")),
        "{row}"
    );
    assert_eq!((row["requested"].as_str(), code), (Some("cpu"), Some(0)));
}

#[test]
fn what_does_not_work_fails_and_says_what_to_do() {
    // A bundle that contradicts itself.
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture("anemll-tiny/anemll")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let missing = fixture("nothing.gguf");
    for (model, backend) in [(folder.path(), "core-ml"), (missing.as_path(), "candle")] {
        let (report, code) = doctor(Some(model), &[]);
        assert_eq!(
            (code, &report["verdict"]),
            (Some(1), &Value::from("failed"))
        );
        let failed = row(&report, backend, None)["checks"]
            .as_array()
            .unwrap()
            .clone();
        let failed = failed
            .iter()
            .find(|check| check["outcome"] == "failed")
            .unwrap();
        assert!(!failed["next_step"].as_str().unwrap().is_empty());
    }
}

#[test]
#[cfg(not(target_os = "macos"))]
fn a_runtime_that_is_not_here_is_told_and_counts_only_if_asked_for() {
    let model = fixture("anemll-tiny/anemll");
    let (report, code) = doctor(Some(&model), &["--runtime", "coreml"]);
    let coreml = outcomes(row(&report, "core-ml", Some("coreml")));
    assert_eq!(
        (code, coreml.last()),
        (Some(1), Some(&("initialization", "failed")))
    );
    let (report, code) = doctor(Some(&model), &[]);
    let coreml = outcomes(row(&report, "core-ml", Some("coreml")));
    assert_eq!(
        (code, coreml.last()),
        (Some(0), Some(&("initialization", "skipped")))
    );
    let reference = outcomes(row(&report, "core-ml", Some("reference")));
    assert!(reference.contains(&("generation", "passed")));
}

#[test]
#[cfg(not(any(feature = "metal", feature = "cuda")))]
fn a_gpu_that_is_not_built_in_fails_where_it_is_chosen_and_the_embedded_model_works() {
    let model = fixture("qwen3-tiny.gguf");
    for gpu in ["metal", "cuda"] {
        let device = format!("local.device={gpu}");
        let (report, code) = doctor(Some(&model), &["--set", &device]);
        let row = row(&report, "candle", None);
        assert_eq!((row["requested"].as_str(), code), (Some(gpu), Some(1)));
        assert_eq!(outcomes(row), [("initialization", "failed")]);
        let next_step = row["checks"][0]["next_step"].as_str().unwrap();
        assert!(
            next_step.contains(&format!("--features {gpu}")),
            "{next_step}"
        );
        let embedded = outcomes(self::row(&report, "embedded", None));
        assert!(embedded.contains(&("generation", "passed")), "{embedded:?}");
    }
}

#[test]
fn a_bug_report_is_one_file_without_keys() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log.txt");
    fs::write(&log, "WARN something\n").unwrap();
    let place = folder.path().join("report.zip");
    let log_file = log.to_str().unwrap();
    let args = ["--report", place.to_str().unwrap(), "--log-file", log_file];
    let home = folder.path().join("somebody");
    fs::create_dir(&home).unwrap();
    let run = || {
        Command::new(env!("CARGO_BIN_EXE_tandem"))
            .arg("doctor")
            .args(args)
            .env_clear()
            // Nothing that outlives the test.
            .env("TANDEM_DAEMON_ENABLED", "false")
            .env("HOME", &home)
            .envs(std::env::var_os("SystemRoot").map(|root| ("SystemRoot", root)))
            .env("USERPROFILE", &home)
            .env("APPDATA", &home)
            .env("ANTHROPIC_API_KEY", "sk-ant-secret")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    assert_eq!(run().status.code(), Some(0));
    let mut archive = zip::ZipArchive::new(File::open(&place).unwrap()).unwrap();
    let mut names = Vec::new();
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).unwrap();
        let text = std::io::read_to_string(&mut file).unwrap();
        assert!(!text.contains("sk-ant"), "{text}");
        assert!(!text.contains("somebody"), "{text}");
        names.push(file.name().unwrap().into_owned());
    }
    assert_eq!(names, ["doctor.json", "configuration.json", "log.txt"]);
    // What is there already is not written over.
    let again = run();
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("Name another file"));
}

#[test]
#[cfg(not(any(feature = "metal", feature = "cuda")))]
fn a_gpu_that_is_chosen_has_its_row_without_a_model_to_try_on_it() {
    let bundle = fixture("anemll-tiny/anemll");
    for model in [None, Some(bundle.as_path())] {
        for gpu in ["metal", "cuda"] {
            let device = format!("local.device={gpu}");
            let (report, code) = doctor(model, &["--set", &device]);
            let row = row(&report, gpu, None);
            assert_eq!(outcomes(row), [("initialization", "skipped")], "{model:?}");
            assert_eq!((row["matters"].as_bool(), code), (Some(false), Some(0)));
        }
    }
}

#[test]
fn a_model_that_is_too_slow_is_told_with_what_was_measured() {
    let model = fixture("qwen3-tiny.gguf");
    let floor = ["--set", "local.min_tokens_per_second=1000000"];
    let (report, code) = doctor(Some(&model), &floor);
    assert_eq!(
        (code, &report["verdict"]),
        (Some(0), &Value::from("warned"))
    );
    let told = row(&report, "candle", None);
    assert_eq!(told["measured"]["admitted"], false);
    let mut checks = told["checks"].as_array().unwrap().iter();
    let speed = checks.rfind(|check| check["step"] == "speed");
    let speed = speed.unwrap();
    let seen = speed["seen"].as_str().unwrap();
    assert!(
        seen.starts_with("too slow for completions: first token after "),
        "{seen}"
    );
    assert!(seen.contains(" tokens/s (at least 1000000)"), "{seen}");
    let next = speed["next_step"].as_str().unwrap();
    assert!(next.contains("`local.min_tokens_per_second`"), "{next}");

    let (report, _) = doctor(Some(&model), &[]);
    let told = row(&report, "candle", None);
    assert_eq!(told["measured"]["admitted"], true);
    assert!(outcomes(told).contains(&("speed", "passed")), "{told}");
}

#[test]
fn the_engine_that_was_chosen_computes_or_says_why_not() {
    let check = |model: &str, engine: &str| {
        let engine = format!("local.engine={engine}");
        let (report, code) = doctor(Some(&fixture(model)), &["--no-embedded", "--set", &engine]);
        let row = row(&report, "candle", None);
        let observed = row["observed"].as_str().unwrap_or_default().to_owned();
        (observed, row["checks"].clone(), code)
    };
    let (observed, _, code) = check("qwen3-tiny-q8_0.gguf", "kernels");
    assert!(observed.starts_with("cpu: tandem-kernels, "), "{observed}");
    assert_eq!(code, Some(0));
    let (observed, ..) = check("qwen3-tiny-q8_0.gguf", "candle");
    assert!(observed.starts_with("cpu: candle, "), "{observed}");
    let (_, checks, code) = check("qwen3-tiny", "kernels");
    assert_eq!(
        (&checks[0]["outcome"], code),
        (&Value::from("failed"), Some(1))
    );
    let seen = checks[0]["seen"].as_str().unwrap();
    assert!(
        seen.contains("Tandem's kernels cannot compute it"),
        "{seen}"
    );
    let next = checks[0]["next_step"].as_str().unwrap();
    assert!(next.contains("`local.engine` to auto"), "{next}");
}
