//! The configuration of a running session: levels that change, settings that follow.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use super::layers::{Layer, Layers};
use super::restricted::{EditorOptions, ProjectOptions};
use super::{ConfigError, Settings, paths};

/// The levels in force, and the settings that come of them. Shared behind an [`Arc`].
pub struct Configuration {
    state: Mutex<State>,
    settings: watch::Sender<Arc<Settings>>,
}

struct State {
    /// Without the editor's and the projects' problems.
    layers: Layers,
    editor_problem: Option<ConfigError>,
    project_problems: Vec<ConfigError>,
}

impl State {
    fn layers(&self) -> Layers {
        let mut layers = self.layers.clone();
        layers.problems.extend(self.editor_problem.clone());
        layers
            .problems
            .extend(self.project_problems.iter().cloned());
        layers
    }
}

impl Configuration {
    /// Starts from what was read at the edge.
    #[must_use]
    pub fn new(layers: Layers) -> Self {
        let settings = watch::Sender::new(Arc::new(layers.settings()));
        Self {
            state: Mutex::new(State {
                layers,
                editor_problem: None,
                project_problems: Vec::new(),
            }),
            settings,
        }
    }

    /// The settings, now and as they change.
    #[must_use]
    pub fn settings(&self) -> watch::Receiver<Arc<Settings>> {
        self.settings.subscribe()
    }

    /// The levels in force, problems included.
    #[must_use]
    pub fn layers(&self) -> Layers {
        self.lock().layers()
    }

    /// Takes the editor's settings, all of them: what it said before is forgotten.
    ///
    /// # Errors
    /// When they cannot be read. What was in force then stays, except that nothing leaves the machine
    /// until they can: they may have meant to say so.
    pub fn set_editor(&self, settings: &Value) -> Result<(), ConfigError> {
        let read = EditorOptions::from_json(settings);
        let mut state = self.lock();
        let outcome = match read {
            Ok(options) => {
                state.layers.editor = options;
                state.editor_problem = None;
                Ok(())
            }
            Err(error) => {
                state.editor_problem = Some(error.clone());
                Err(error)
            }
        };
        self.publish(&state);
        outcome
    }

    /// Takes the folders of the open workspaces, all of them, and reads their projects' files. With
    /// several, what any of them keeps is kept for all: text of one goes into prompts for another.
    ///
    /// # Errors
    /// The files that cannot be read. Nothing leaves the machine until they can.
    pub fn set_folders(&self, folders: &[PathBuf]) -> Result<(), Vec<ConfigError>> {
        let (projects, problems) = read_projects(folders);
        let mut state = self.lock();
        state.layers.projects = projects;
        state.project_problems.clone_from(&problems);
        self.publish(&state);
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn publish(&self, state: &State) {
        let mut settings = state.layers().settings();
        self.settings.send_if_modified(|current| {
            if **current == settings {
                return false;
            }
            // Equal keys share what their command said, so that it is not run again.
            if settings.claude.api_key == current.claude.api_key {
                settings.claude.api_key.clone_from(&current.claude.api_key);
            }
            if settings.server.api_key == current.server.api_key {
                settings.server.api_key.clone_from(&current.server.api_key);
            }
            *current = Arc::new(settings);
            true
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The projects' files that govern `folder`, the innermost first.
///
/// # Errors
/// The first that cannot be read.
pub fn governing(folder: &Path) -> Result<Vec<Layer<ProjectOptions>>, ConfigError> {
    let files = paths::project_files(folder)?;
    let layers = files.iter().map(|file| read_project(file));
    layers.filter_map(Result::transpose).collect()
}

fn read_projects(folders: &[PathBuf]) -> (Vec<Layer<ProjectOptions>>, Vec<ConfigError>) {
    let mut layers: Vec<Layer<ProjectOptions>> = Vec::new();
    let mut problems = Vec::new();
    for folder in folders {
        match governing(folder) {
            Ok(found) => {
                for layer in found {
                    if !layers.contains(&layer) {
                        layers.push(layer);
                    }
                }
            }
            Err(error) => problems.push(error),
        }
    }
    (layers, problems)
}

fn read_project(file: &Path) -> Result<Option<Layer<ProjectOptions>>, ConfigError> {
    let place = file.display().to_string();
    let Some(text) = paths::read(file)? else {
        return Ok(None);
    };
    let options = ProjectOptions::from_yaml(&text, &place)?;
    Ok(Some(Layer::new(place, options)))
}
