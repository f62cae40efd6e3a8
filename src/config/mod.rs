//! What the user wants: options as written, settings as they are meant.
//!
//! The levels and their order are in [`Layers`]; the types of what each level may say are
//! [`Options`] (the user's own file, variables, flags), [`EditorOptions`] and [`ProjectOptions`].

mod decode;
mod document;
mod environment;
mod error;
mod key;
mod layers;
mod live;
mod options;
mod paths;
mod resolve;
mod restricted;
mod schema;
mod settings;
mod texts;
mod values;

pub use environment::{FILE_VARIABLE, from_environment};
pub use error::ConfigError;
pub use key::{ApiKey, KeyError};
pub use layers::{Layer, Layers, Origin, Resolved};
pub use live::{Configuration, governing};
pub use options::{
    ClaudeOptions, CompletionOptions, DaemonOptions, LocalOptions, LogOptions, Options,
    PrivacyOptions, ServerOptions, is_model_name,
};
pub use paths::{PROJECT_FILE, read, user_file};
pub use restricted::{
    EditorClaudeOptions, EditorLogOptions, EditorOptions, EditorServerOptions,
    ProjectClaudeOptions, ProjectCompletionOptions, ProjectMode, ProjectOptions,
    ProjectServerOptions, TighterPrivacy,
};
pub use schema::{config_schema, editor_schema, project_schema, starting_file};
pub use settings::{
    BundleRuntime, ClaudeSettings, CompletionSettings, ComputeDevice, ComputeEngine,
    DaemonSettings, LocalSettings, LogSettings, Mode, PrivacySettings, ServerApi, ServerSettings,
    Settings,
};
pub use texts::{BaseUrl, LogFilter, ModelName, PathGlob, Program};
pub use values::{Bytes, Count, Dollars, Off, Span};
