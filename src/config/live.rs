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
    project_problem: Option<ConfigError>,
}

impl State {
    fn layers(&self) -> Layers {
        let mut layers = self.layers.clone();
        layers.problems.extend(self.editor_problem.clone());
        layers.problems.extend(self.project_problem.clone());
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
                project_problem: None,
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
    /// All that is wrong with them. What was in force then stays, except that nothing leaves the machine
    /// until they can be read: they may have meant to say so.
    pub fn set_editor(&self, settings: &Value) -> Result<(), ConfigError> {
        let read = EditorOptions::from_json(settings);
        let mut state = self.lock();
        let outcome = match read {
            Ok(options) => {
                state.layers.editor = options;
                state.editor_problem = None;
                Ok(())
            }
            Err(mistakes) => {
                state.editor_problem = ConfigError::all(mistakes);
                state.editor_problem.clone().map_or(Ok(()), Err)
            }
        };
        self.publish(&state);
        outcome
    }

    /// Takes the folders of the open workspaces, all of them, and reads their projects' files. With
    /// several, what any of them keeps is kept for all: text of one goes into prompts for another.
    ///
    /// # Errors
    /// All that is wrong with the files, as one mistake. Nothing leaves the machine until they can be read.
    pub fn set_folders(&self, folders: &[PathBuf]) -> Result<(), Vec<ConfigError>> {
        let (projects, problems) = read_projects(folders);
        let mut state = self.lock();
        state.layers.projects = projects;
        let problem = ConfigError::all(problems);
        state.project_problem.clone_from(&problem);
        self.publish(&state);
        problem.map_or(Ok(()), |problem| Err(vec![problem]))
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
/// All that is wrong with them.
pub fn governing(folder: &Path) -> Result<Vec<Layer<ProjectOptions>>, Vec<ConfigError>> {
    let files = paths::project_files(folder).map_err(|mistake| vec![mistake])?;
    let (mut layers, mut mistakes) = (Vec::new(), Vec::new());
    for file in &files {
        match read_project(file) {
            Ok(layer) => layers.extend(layer),
            Err(wrong) => mistakes.extend(wrong),
        }
    }
    if mistakes.is_empty() {
        Ok(layers)
    } else {
        Err(mistakes)
    }
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
            // Two folders may have a file above them in common.
            Err(mistakes) => {
                for mistake in mistakes {
                    if !problems.contains(&mistake) {
                        problems.push(mistake);
                    }
                }
            }
        }
    }
    (layers, problems)
}

fn read_project(file: &Path) -> Result<Option<Layer<ProjectOptions>>, Vec<ConfigError>> {
    let place = file.display().to_string();
    let Some(text) = paths::read(file).map_err(|mistake| vec![mistake])? else {
        return Ok(None);
    };
    let options = ProjectOptions::from_yaml(&text, &place)?;
    Ok(Some(Layer::new(place, options)))
}
