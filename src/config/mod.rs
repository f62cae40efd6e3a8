//! What the user wants: options as written, settings as they are meant.

mod settings;

pub use settings::{
    ApiKey, ClaudeSettings, CompletionSettings, LocalSettings, LogSettings, Mode, PrivacySettings,
    Settings,
};
