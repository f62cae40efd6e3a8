//! What commands are told by flags, and tell on standard error when something fails: everything, and once.

use super::{Home, Ran};

#[test]
fn what_fails_is_told_once() {
    // Nothing listens there.
    const NOWHERE: &str = "http://127.0.0.1:1";
    let home = Home::new();
    home.write("a.rs", "fn main() {\n    \n}\n");
    home.write("broken.gguf", "GGUF");
    let server = ["--set", "server.base_url=http://127.0.0.1:1"];
    let run = |more: &[&str], command: &[&str]| {
        let mut command = home.command(&[&server, more, command].concat());
        command.env("ANTHROPIC_API_KEY", "sk-ant-nobody");
        command.env("ANTHROPIC_BASE_URL", NOWHERE);
        Ran::from(command.output().unwrap())
    };
    let check = |ran: &Ran, expected: &[&str]| {
        let lines: Vec<&str> = ran.stderr.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{ran:?}");
        for (line, begin) in lines.iter().zip(expected) {
            assert!(line.starts_with(begin), "{line}\n{ran:?}");
        }
    };
    let both = "tandem: server: 127.0.0.1:1 cannot be reached";
    let complete = ["complete", "a.rs:2"];
    let ran = run(&["--no-embedded"], &complete);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    check(&ran, &[both]);
    assert!(ran.stderr.contains("; claude: 127.0.0.1"), "{ran:?}");
    check(&run(&[], &["ask", "hi"]), &[both]);
    check(&run(&[], &["ask", "--json", "hi"]), &[both]);
    // Where another answers, who did not is told.
    let stand_in = "tandem: embedded answers, since ";
    let names = ["the inference server does not: 127", "Claude does not: 127"];
    let names = names.map(|name| format!("{stand_in}{name}"));
    let names = names.each_ref().map(String::as_str);
    check(&run(&[], &complete), &names);
    // A model that is not even asked, since it cannot be loaded, is told beside the error.
    let broken = "tandem: the local model does not answer: ";
    check(
        &run(&["--model", "broken.gguf"], &["ask", "hi"]),
        &[broken, both],
    );
    // A log has it all.
    let ran = run(&["--log-file", "log"], &["ask", "hi"]);
    check(&ran, &[both]);
    let log = std::fs::read_to_string(home.path().join("log")).unwrap();
    assert_eq!(log.matches("an attempt failed").count(), 2, "{log}");
    let ran = run(&["--log", "info"], &["ask", "hi"]);
    assert!(ran.stderr.contains("an attempt failed"), "{ran:?}");
}

#[test]
fn what_is_set_before_a_command_holds_behind_it_too() {
    let home = Home::new();
    let line = "--set mode=local-only config --set=completion.candidates=2 show --set \
                completion.max_tokens=9 --set completion.max_tokens=5";
    let ran = home.run(&line.split_whitespace().collect::<Vec<_>>());
    for said in [
        "mode: local-only",
        "completion.candidates: 2",
        "completion.max_tokens: 5",
    ] {
        assert!(
            ran.stdout.contains(&format!("{said}  # --set")),
            "{said} {ran:?}"
        );
    }
    // Behind `--` nothing is a flag.
    home.write("a.rs", "");
    let ran = home.run(&["complete", "--", "--set"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(!ran.stderr.contains("has no `=`"), "{ran:?}");
}

#[test]
fn a_mistake_in_the_configuration_is_told_with_the_others() {
    let home = Home::new();
    home.write("a.rs", "");
    home.write(".tandem.yaml", "mode: auto\nprivcy: {}\n");
    home.write(".config/tandem/config.yaml", "x: 1\ny: 1\n");
    for args in [
        &["complete", "a.rs:1"][..],
        &["ask", "hi"],
        &["config", "show"],
    ] {
        let ran = home.run(args);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        let told = ran
            .stderr
            .lines()
            .filter(|line| line.starts_with("tandem: "));
        assert_eq!(told.count(), 2, "{ran:?}");
        assert!(
            ran.stderr.contains("config.yaml:2: unknown key `y`"),
            "{ran:?}"
        );
    }
    home.write(".config/tandem/config.yaml", "");
    for args in [
        &["complete", "a.rs:1"][..],
        &["ask", "hi"],
        &["config", "show"],
    ] {
        let ran = home.run(args);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains(".tandem.yaml:1: `mode`"), "{ran:?}");
        assert!(
            ran.stderr.contains(".tandem.yaml:2: unknown key `privcy`"),
            "{ran:?}"
        );
    }
    let ran = home.run(&["status"]);
    assert!(ran.stdout.contains(".tandem.yaml:1: `mode`"), "{ran:?}");
    assert!(
        ran.stdout.contains(".tandem.yaml:2: unknown key"),
        "{ran:?}"
    );
}
