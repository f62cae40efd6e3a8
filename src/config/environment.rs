//! The environment's part of the configuration. The variables themselves are read at the edge.

use super::layers::Layer;
use super::texts::BaseUrl;
use super::{ApiKey, ClaudeOptions, ConfigError, Options, ServerOptions, decode};

/// Names the user's own file; not a key of it.
pub const FILE_VARIABLE: &str = "TANDEM_CONFIG";

/// Holds the key for an inference server; not a key of any file.
pub(super) const SERVER_KEY_VARIABLE: &str = "TANDEM_SERVER_API_KEY";

/// What a variable of ours begins with.
const PREFIX: &str = "TANDEM_";

/// What an MCP bundle's manifest holds for a value that its user did not give; hosts may pass it on as
/// it is.
const PLACEHOLDER: &str = "${user_config.";

/// Reads `ANTHROPIC_API_KEY`, `ANTHROPIC_BASE_URL`, `TANDEM_SERVER_API_KEY` and, for every key of the
/// user's own file, the variable named after it: `completion.max_tokens` is
/// `TANDEM_COMPLETION_MAX_TOKENS`. Variables that hold nothing are as good as unset, and so are those that
/// hold a bundle's placeholder. Highest first.
///
/// # Errors
/// Every unknown variable that begins with `TANDEM_`, and every value that does not fit its key.
pub fn from_environment(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<Layer<Options>>, Vec<ConfigError>> {
    let mut mistakes = Vec::new();
    let mut ours = Vec::new();
    let mut anthropic = Vec::new();
    let mut known: Option<Vec<(String, String)>> = None;
    for (name, value) in variables {
        if value.trim().is_empty() || value.starts_with(PLACEHOLDER) || name == FILE_VARIABLE {
            continue;
        }
        let claude = match name.as_str() {
            "ANTHROPIC_API_KEY" => ClaudeOptions {
                api_key: ApiKey::new(&value),
                ..ClaudeOptions::default()
            },
            "ANTHROPIC_BASE_URL" => {
                let Some(base_url) = BaseUrl::new(&value) else {
                    // The value is not shown: people paste keys into the wrong variable.
                    mistakes.push(ConfigError::new(
                        &name,
                        "not an address such as `https://api.anthropic.com`",
                        "Correct it, or unset it.",
                    ));
                    continue;
                };
                ClaudeOptions {
                    base_url: Some(base_url),
                    ..ClaudeOptions::default()
                }
            }
            SERVER_KEY_VARIABLE => {
                let server = ServerOptions {
                    api_key: ApiKey::new(&value),
                    ..ServerOptions::default()
                };
                let options = Options {
                    server,
                    ..Options::default()
                };
                ours.push(Layer::new(name, options));
                continue;
            }
            _ if name.starts_with(PREFIX) => {
                let known = known.get_or_insert_with(|| {
                    let keys = Options::keys().into_iter();
                    keys.map(|key| (variable(&key), key)).collect()
                });
                let key = known.iter().find(|(variable, _)| *variable == name);
                let options = key
                    .ok_or_else(|| unknown(&name, known))
                    .and_then(|(_, key)| Options::from_text(key, &value, &name));
                match options {
                    Ok(options) => ours.push(Layer::new(name, options)),
                    Err(mistake) => mistakes.push(mistake),
                }
                continue;
            }
            _ => continue,
        };
        let options = Options {
            claude,
            ..Options::default()
        };
        anthropic.push(Layer::new(name, options));
    }
    if !mistakes.is_empty() {
        mistakes.sort_by(|a, b| a.place.cmp(&b.place));
        return Err(mistakes);
    }
    // The order of the environment means nothing; this one does not change from run to run.
    ours.sort_by(|a, b| a.place.cmp(&b.place));
    ours.extend(anthropic);
    Ok(ours)
}

fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

fn unknown(name: &str, known: &[(String, String)]) -> ConfigError {
    let names: Vec<String> = known.iter().map(|(variable, _)| variable.clone()).collect();
    let next_step = match decode::nearest(name, &names) {
        Some(meant) => format!("Did you mean {meant}? Otherwise unset it."),
        None => "Unset it; `tandem config schema` lists every key.".to_owned(),
    };
    ConfigError::new(name, "no key is named so", next_step)
}
