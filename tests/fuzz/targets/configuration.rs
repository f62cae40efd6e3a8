//! A configuration file of any text, the user's or a project's: options, or errors with a next step.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem::config::{ConfigError, Options, ProjectOptions};

fuzz_target!(|text: &str| {
    check(Options::from_yaml(text, "config.yaml").err());
    check(ProjectOptions::from_yaml(text, ".tandem.yaml").err());
});

fn check(errors: Option<Vec<ConfigError>>) {
    for error in errors.into_iter().flatten() {
        let message = error.to_string();
        assert!(message.contains(".yaml"), "{message}");
        assert!(message.ends_with(['.', '?']), "{message}");
    }
}
