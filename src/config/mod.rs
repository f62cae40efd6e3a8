//! What the user wants: options as written, settings as they are meant.

mod key;
mod settings;

pub use key::{ApiKey, KeyError};
pub use settings::{
    ClaudeSettings, CompletionSettings, LocalSettings, LogSettings, Mode, PrivacySettings, Settings,
};
