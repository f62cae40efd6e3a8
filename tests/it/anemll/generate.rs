//! `tandem generate`, by the real program: raw tokens in, Hugging Face's greedy tokens out.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::{fixture, json, tokens};

/// A logit in half precision against float32 transformers, and one in float32.
const HALF: f64 = 0.15;
const SINGLE: f64 = 1e-3;

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn tandem(args: &[&str]) -> Ran {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tandem"))
        .arg("generate")
        .args(args)
        .env_clear()
        // Nothing that outlives the test.
        .env("TANDEM_DAEMON_ENABLED", "false")
        .env("HOME", home.path())
        .envs(std::env::var_os("SystemRoot").map(|root| ("SystemRoot", root)))
        .env("USERPROFILE", home.path())
        .env("APPDATA", home.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn listed(tokens: &[u32]) -> String {
    let ids: Vec<String> = tokens.iter().map(u32::to_string).collect();
    ids.join(",")
}

/// Runs one case of a golden file and holds everything that it says to it.
fn hold(model: &str, runtime: &str, case: &Value, tolerance: f64) {
    let name = &case["name"];
    let path = fixture(model);
    let (prompt, mut expected) = (tokens(&case["input_ids"]), tokens(&case["greedy"]));
    let mut stop = Value::Null;
    if case.get("stop_token").is_some() {
        stop = Value::from(expected.pop());
        assert_eq!(stop, case["stop_token"]);
    }
    let ids = listed(&prompt);
    let model = path.to_str().unwrap();
    let mut args = vec!["--model", model, "--runtime", runtime, "--json"];
    args.extend(["--tokens", &ids, "--max-tokens", "40"]);
    let ran = tandem(&args);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{name}");
    let got: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(tokens(&got["prompt"]), prompt, "{name}");
    assert_eq!(tokens(&got["tokens"]), expected, "{name}");
    assert_eq!(got["stop"], stop, "{name}");
    assert_eq!(
        got.get("stop_text"),
        case.get("stop_text").or(Some(&Value::Null))
    );
    assert_eq!(got["runtime"], runtime);
    assert!(got.get("calls").is_none());
    if let Some(text) = case.get("greedy_text") {
        assert_eq!(&got["text"], text, "{name}");
    }
    let (best, golden) = (&got["first_step_top5"], &case["first_step_top5"]);
    let (best, golden) = (best.as_array().unwrap(), golden.as_array().unwrap());
    assert_eq!(best.len(), 5);
    for (got, expected) in best.iter().zip(golden) {
        let (got, logit) = (
            got["logit"].as_f64().unwrap(),
            expected["logit"].as_f64().unwrap(),
        );
        assert!(
            (got - logit).abs() < tolerance,
            "{name}: {got}, expected {logit}"
        );
    }
    assert_eq!(best[0]["id"], golden[0]["id"], "{name}");

    // The same from the text, which holds special tokens.
    if let Some(text) = case.get("rendered").or(case.get("text")) {
        let at = args.iter().position(|arg| *arg == "--tokens").unwrap();
        args[at] = "--text";
        args[at + 1] = text.as_str().unwrap();
        let ran = tandem(&args);
        let said: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(tokens(&said["prompt"]), prompt, "{name}");
        assert_eq!(said["tokens"], got["tokens"], "{name}");
    }
}

fn cases(golden: &Value, lists: &[&str]) -> Vec<Value> {
    let all = lists
        .iter()
        .flat_map(|list| golden[*list].as_array().unwrap());
    all.cloned().collect()
}

#[test]
fn candle_gives_hugging_faces_tokens() {
    let golden = json("anemll-tiny/golden.json");
    let cases = cases(&golden, &["cases", "eos_cases"]);
    assert_eq!(cases.len(), 12);
    for case in &cases {
        hold("anemll-tiny/hf", "candle", case, SINGLE);
    }
}

/// All of a bundle's goldens, the one that outgrows its window included.
fn hold_bundle(name: &str, count: usize) {
    let golden = json(&format!("{name}/golden.json"));
    let mut cases = cases(&golden, &["cases", "eos_cases"]);
    cases.push(golden["overflow"].clone());
    assert_eq!(cases.len(), count);
    for case in &cases {
        hold(&format!("{name}/anemll"), "reference", case, HALF);
    }
}

#[test]
fn the_reference_runtime_gives_hugging_faces_tokens() {
    hold_bundle("anemll-tiny", 13);
}

#[test]
fn a_bundle_of_other_sizes_gives_its_own() {
    hold_bundle("anemll-odd", 9);
}

#[test]
fn every_component_call_is_shown_on_request() {
    let trace = json("anemll-tiny/trace.json");
    let (prompt, decoded) = (tokens(&trace["input_ids"]), tokens(&trace["decoded"]));
    let model = fixture("anemll-tiny/anemll");
    let ran = tandem(&[
        "--model",
        model.to_str().unwrap(),
        "--runtime",
        "reference",
        "--tokens",
        &listed(&prompt),
        "--max-tokens",
        "5",
        "--json",
        "--trace",
    ]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let got: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(tokens(&got["tokens"]), decoded);
    let (calls, expected) = (&got["calls"], &trace["calls"]);
    let (calls, expected) = (calls.as_array().unwrap(), expected.as_array().unwrap());
    assert_eq!(calls.len(), expected.len());
    for (got, expected) in calls.iter().zip(expected) {
        super::reference::hold_call(got, expected);
    }
}

#[test]
fn without_json_the_answer_stands_alone() {
    let golden = json("anemll-tiny/golden.json");
    let case = &golden["cases"][7];
    let model = fixture("anemll-tiny/hf");
    let model = model.to_str().unwrap();
    let (ids, text) = (
        listed(&tokens(&case["input_ids"])),
        case["text"].as_str().unwrap(),
    );
    let ran = tandem(&["--model", model, "--tokens", &ids]);
    assert_eq!(
        ran.stdout,
        format!("{}\n", listed(&tokens(&case["greedy"])))
    );
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let ran = tandem(&["--model", model, "--text", text]);
    assert_eq!(
        ran.stdout,
        format!("{}\n", case["greedy_text"].as_str().unwrap())
    );
    let ran = tandem(&["--model", model, "--text", text, "--max-tokens", "0"]);
    assert_eq!(ran.stdout, "\n");
}

#[test]
fn a_gguf_file_is_a_model_too() {
    let golden = json("qwen3-tiny.golden.json");
    let case = &golden["cases"][0];
    let ids = listed(&tokens(&case["input_ids"]));
    let model = fixture("qwen3-tiny.gguf");
    let ran = tandem(&[
        "--model",
        model.to_str().unwrap(),
        "--tokens",
        &ids,
        "--max-tokens",
        "24",
    ]);
    assert_eq!(
        ran.stdout,
        format!("{}\n", listed(&tokens(&case["greedy"])))
    );
}

#[test]
fn what_is_wrong_is_said_with_the_next_step() {
    let bundle = fixture("anemll-tiny/anemll");
    let weights = fixture("anemll-tiny/hf");
    let (bundle, weights) = (bundle.to_str().unwrap(), weights.to_str().unwrap());
    let other = fixture("qwen3-tiny");
    let other = other.to_str().unwrap();
    let long = listed(&[1; 600]);
    let check = |args: &[&str], code: i32, expected: &[&str]| {
        let ran = tandem(args);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(code), ""),
            "{args:?}: {}",
            ran.stderr
        );
        for expected in expected {
            assert!(ran.stderr.contains(expected), "{args:?}: {}", ran.stderr);
        }
    };
    check(&["--tokens", "1"], 2, &["no model is named", "--model"]);
    check(&["--model", weights], 2, &["--tokens", "--text"]);
    check(
        &["--model", weights, "--tokens", "1", "--text", "a"],
        2,
        &["cannot be used with"],
    );
    check(&["--model", weights, "--tokens", "1,-2"], 2, &["-2"]);
    check(
        &["--model", weights, "--tokens", "1,528"],
        2,
        &["no token 528", "0 to 527"],
    );
    check(
        &["--model", weights, "--text", ""],
        2,
        &["the prompt is empty"],
    );
    check(
        &["--model", other, "--tokens", &long],
        4,
        &["600 tokens", "512", "shorter"],
    );
    check(&["--model", "/no/such", "--tokens", "1"], 4, &["/no/such"]);
    check(
        &[
            "--model",
            weights,
            "--runtime",
            "reference",
            "--tokens",
            "1",
        ],
        2,
        &["no ANEMLL bundle", "--runtime candle"],
    );
    check(
        &["--model", weights, "--tokens", "1", "--json", "--trace"],
        2,
        &["--trace", "Leave it out"],
    );
    check(
        &["--model", bundle, "--runtime", "candle", "--tokens", "1"],
        2,
        &["is an ANEMLL bundle", "--runtime reference"],
    );
    check(
        &[
            "--model",
            bundle,
            "--runtime",
            "reference",
            "--tokens",
            "1",
            "--weights",
            other,
        ],
        1,
        &[
            "weights are not those of the bundle",
            "vocabulary is 384",
            "--weights",
        ],
    );
    #[cfg(not(target_os = "macos"))]
    for runtime in ["coreml", "candle-coreml"] {
        check(
            &["--model", bundle, "--runtime", runtime, "--tokens", "1"],
            4,
            &["macOS", "--runtime reference"],
        );
    }
}
