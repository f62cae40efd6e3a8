//! What is read from the system, once and here: the environment, the folders, the terminals; and the
//! levels of the configuration that come of it.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

use super::args::Globals;
use super::exit::Failure;
use crate::app::Places;
use crate::config::{
    ConfigError, FILE_VARIABLE, Layer, Layers, LocalOptions, LogFilter, LogOptions, Options,
    Settings, from_environment, read, user_file,
};
use crate::daemon::{Place, PlaceError, StartCommand};
use crate::model::HubEnvironment;

/// What the system says about this process.
#[derive(Debug, Clone)]
pub struct Surroundings {
    variables: Vec<(OsString, OsString)>,
    /// The folder that relative paths mean.
    pub folder: PathBuf,
    /// The user's home folder.
    pub home: Option<PathBuf>,
    config_folder: Option<PathBuf>,
    /// Where what is spent is kept.
    pub state_folder: Option<PathBuf>,
    /// Where models are kept.
    pub data_folder: Option<PathBuf>,
    /// Where documents that are shown once are kept.
    pub cache_folder: PathBuf,
    /// Whether a person may type.
    pub stdin_is_terminal: bool,
    /// Whether a person reads what is printed.
    pub stdout_is_terminal: bool,
    /// Whether a person reads what is told.
    pub stderr_is_terminal: bool,
}

impl Surroundings {
    /// Asks the system.
    #[must_use]
    pub fn of_process() -> Self {
        let folders = etcetera::choose_base_strategy().ok();
        let ours = |folder: PathBuf| folder.join("tandem");
        Self {
            variables: std::env::vars_os().collect(),
            folder: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
            home: folders
                .as_ref()
                .map(|folders| folders.home_dir().to_owned()),
            config_folder: folders.as_ref().map(BaseStrategy::config_dir),
            state_folder: folders
                .as_ref()
                // Windows has no folder for state.
                .map(|folders| ours(folders.state_dir().unwrap_or_else(|| folders.data_dir()))),
            data_folder: folders.as_ref().map(|folders| ours(folders.data_dir())),
            cache_folder: folders
                .as_ref()
                .map_or_else(std::env::temp_dir, BaseStrategy::cache_dir)
                .join("tandem"),
            stdin_is_terminal: io::stdin().is_terminal(),
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal: io::stderr().is_terminal(),
        }
    }

    /// The user's own configuration file, and whether it was named and so must be there.
    #[must_use]
    pub fn user_file(&self, globals: &Globals) -> Option<(PathBuf, bool)> {
        if let Some(file) = &globals.config {
            return Some((self.folder.join(file), true));
        }
        let named = self
            .variables
            .iter()
            .find(|(name, value)| name == FILE_VARIABLE && !value.is_empty());
        if let Some((_, file)) = named {
            return Some((self.folder.join(file), true));
        }
        Some((user_file(self.config_folder.as_ref()?), false))
    }

    /// Where programs with windows keep a folder of their own for their configuration.
    #[must_use]
    pub fn application_folder(&self) -> Option<PathBuf> {
        if cfg!(target_os = "macos") {
            let home = self.home.as_ref()?;
            return Some(home.join("Library").join("Application Support"));
        }
        // `%APPDATA%`, or `$XDG_CONFIG_HOME` with `~/.config` in its place.
        self.config_folder.clone()
    }

    /// The environment as other programs may have it: without keys and tokens, and what is ours.
    pub fn without_secrets(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        let is_secret = |name: &OsStr| {
            let name = name.to_string_lossy();
            ["ANTHROPIC_", "HF_TOKEN", "TANDEM_"]
                .iter()
                .any(|begin| name.starts_with(begin))
        };
        self.variables
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()))
            .filter(move |(name, _)| !is_secret(name))
    }

    /// The full path of a program: found on `PATH` by its name, or named by a path.
    #[must_use]
    pub fn program(&self, name: impl AsRef<OsStr>) -> Option<PathBuf> {
        which::which_in(name, self.variable("PATH"), &self.folder).ok()
    }

    /// The levels that are known at the start: flags, environment, the user's own file. A mistake in
    /// the latter two is among the levels' problems.
    ///
    /// # Errors
    /// A mistake in the flags.
    pub fn layers(&self, globals: &Globals) -> Result<Layers, ConfigError> {
        let mut layers = Layers {
            flags: self.flags(globals)?,
            ..Layers::default()
        };
        match self.environment() {
            Ok(environment) => layers.environment = environment,
            Err(mistakes) => layers.problems.extend(ConfigError::all(mistakes)),
        }
        match self.user(globals) {
            Ok(user) => layers.user = user,
            Err(mistakes) => layers.problems.extend(ConfigError::all(mistakes)),
        }
        Ok(layers)
    }

    /// What the composition root needs to know of this.
    #[must_use]
    pub fn places(&self) -> Places {
        Places {
            state_folder: self.state_folder.clone(),
            data_folder: self.data_folder.clone(),
            hub: self.hub(),
        }
    }

    /// Where the daemon and its sessions meet.
    ///
    /// # Errors
    /// Where this system or this user has no place for it.
    pub fn daemon_place(&self) -> Result<Place, PlaceError> {
        let runtime = self
            .variable("XDG_RUNTIME_DIR")
            .map(Path::new)
            // Relative ones are to be passed over, says the XDG specification.
            .filter(|folder| folder.is_absolute());
        Place::choose(runtime, self.state_folder.as_deref())
    }

    /// How a session starts a daemon; what holds for the daemon as a whole, this session's `settings`
    /// say. `None` where the system does not say which file this program is.
    #[must_use]
    pub fn start_daemon(&self, settings: &Settings) -> Option<StartCommand> {
        let idle_exit = settings.daemon.idle_exit.as_millis();
        let mut arguments = vec![
            "daemon".to_owned(),
            "run".to_owned(),
            "--detached".to_owned(),
            "--idle-exit".to_owned(),
            format!("{idle_exit}ms"),
        ];
        if let Some(threads) = settings.local.threads {
            arguments.extend(["--threads".to_owned(), threads.to_string()]);
        }
        StartCommand::of_this_program(arguments, self.variables.iter().cloned())
            .inspect_err(|error| tracing::warn!(%error, "no daemon can be started"))
            .ok()
    }

    /// What the environment says about the hub that models come from.
    #[must_use]
    pub fn hub(&self) -> HubEnvironment {
        let variable = |wanted: &str| self.variable(wanted).map(OsStr::to_owned);
        HubEnvironment::read(variable, self.home.as_deref())
    }

    /// What a variable of the environment holds.
    #[must_use]
    pub fn variable(&self, wanted: &str) -> Option<&OsStr> {
        let mut variables = self.variables.iter();
        let found = variables.find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_os_str())
    }

    fn environment(&self) -> Result<Vec<Layer<Options>>, Vec<ConfigError>> {
        let mut variables = Vec::new();
        for (name, value) in &self.variables {
            let Some(name) = name.to_str() else { continue };
            if !name.starts_with("TANDEM_") && !name.starts_with("ANTHROPIC_") {
                continue;
            }
            let value = value.to_str().ok_or_else(|| {
                vec![ConfigError::new(
                    name,
                    "not UTF-8",
                    "Correct it, or unset it.",
                )]
            })?;
            variables.push((name.to_owned(), value.to_owned()));
        }
        let layers = from_environment(variables)?.into_iter();
        Ok(layers
            .map(|layer| self.anchored(layer, &self.folder))
            .collect())
    }

    fn user(&self, globals: &Globals) -> Result<Option<Layer<Options>>, Vec<ConfigError>> {
        let Some((file, named)) = self.user_file(globals) else {
            return Ok(None);
        };
        let place = file.display().to_string();
        let Some(text) = read(&file).map_err(|mistake| vec![mistake])? else {
            if named {
                return Err(vec![ConfigError::new(
                    place,
                    "there is no such file",
                    "Correct the path; `tandem config init` writes a file to start from.",
                )]);
            }
            return Ok(None);
        };
        let layer = Layer::new(&place, Options::from_yaml(&text, &place)?);
        let folder = file.parent().unwrap_or(&self.folder);
        Ok(Some(self.anchored(layer, folder)))
    }

    fn flags(&self, globals: &Globals) -> Result<Vec<Layer<Options>>, ConfigError> {
        let mut layers = Vec::new();
        let mut say = |place: &str, options: Options| {
            layers.push(self.anchored(Layer::new(place, options), &self.folder));
        };
        for (given, flag, key, value) in [
            (globals.local_only, "--local-only", "mode", "local-only"),
            (globals.no_daemon, "--no-daemon", "daemon.enabled", "false"),
            (
                globals.no_embedded,
                "--no-embedded",
                "local.embedded",
                "false",
            ),
        ] {
            if given {
                say(flag, Options::from_text(key, value, flag)?);
            }
        }
        if let Some(mode) = globals.mode {
            let mode = Some(mode.into());
            say(
                "--mode",
                Options {
                    mode,
                    ..Options::default()
                },
            );
        }
        if let Some(model) = &globals.model {
            let local = LocalOptions {
                model: Some(model.clone()),
                ..LocalOptions::default()
            };
            say(
                "--model",
                Options {
                    local,
                    ..Options::default()
                },
            );
        }
        let log = |log: LogOptions| Options {
            log,
            ..Options::default()
        };
        if let Some(filter) = &globals.log {
            let filter = LogFilter::new(filter).ok_or_else(|| {
                ConfigError::new(
                    "--log",
                    format!("`{filter}` is no filter"),
                    "Write a level such as `info`, or levels for modules such as \
                     `warn,tandem::router=debug`.",
                )
            })?;
            say(
                "--log",
                log(LogOptions {
                    filter: Some(filter),
                    file: None,
                }),
            );
        }
        if let Some(file) = &globals.log_file {
            say(
                "--log-file",
                log(LogOptions {
                    filter: None,
                    file: Some(file.clone()),
                }),
            );
        }
        // The last one wins, as with every flag that may be repeated.
        for set in globals.sets.iter().rev() {
            let (key, value) = set.split_once('=').ok_or_else(|| {
                ConfigError::new(
                    "--set",
                    format!("`{set}` has no `=`"),
                    "Write a key and its value, such as `completion.max_tokens=32`.",
                )
            })?;
            say("--set", Options::from_text(key.trim(), value, "--set")?);
        }
        Ok(layers)
    }

    fn anchored(&self, layer: Layer<Options>, folder: &Path) -> Layer<Options> {
        Layer {
            options: layer.options.anchored(folder, self.home.as_deref()),
            place: layer.place,
        }
    }
}

/// Refuses to go on with a configuration that cannot be read: for commands a person waits for.
pub fn sound(layers: &Layers) -> Result<(), Failure> {
    if layers.problems.is_empty() {
        Ok(())
    } else {
        Err(Failure::configuration(&layers.problems))
    }
}
