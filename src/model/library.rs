//! Everything about models that a user has: which there are, where they come from, where they are.

use std::path::Path;
use std::sync::Arc;

use super::catalogue::Catalogue;
use super::error::{ModelError, ModelErrorKind};
use super::hub::{Hub, HubEnvironment, Limits};
use super::store::{Installed, Store, absent};
use crate::config::{self, LocalSettings};

/// See the module.
#[derive(Clone)]
pub struct Models {
    /// The built-in models, and the user's own, which win.
    pub catalogue: Catalogue,
    /// Where they are kept.
    pub store: Store,
    /// Where they come from.
    pub hub: Arc<Hub>,
}

impl Models {
    /// Reads the catalogues; asks nothing of the hub. Models are kept in `folder`/models.
    ///
    /// # Errors
    /// When a catalogue that `local.catalogue` names cannot be read, or the environment makes no
    /// sense.
    pub fn open(
        folder: &Path,
        environment: HubEnvironment,
        settings: &LocalSettings,
        limits: Limits,
    ) -> Result<Self, ModelError> {
        let mut catalogue = Catalogue::built_in()?;
        for file in &settings.catalogue {
            let place = file.display().to_string();
            let text = config::read(file)
                .map_err(|error| ModelError::malformed(&error.place, &error.message))?;
            let text = text.ok_or_else(|| {
                ModelError::new(
                    ModelErrorKind::Malformed,
                    format!("{place}: there is no such file"),
                    "Correct `local.catalogue` in the configuration.",
                )
            })?;
            catalogue = catalogue.with(Catalogue::from_yaml(&text, &place)?);
        }
        Ok(Self {
            catalogue,
            store: Store::new(folder.join("models")),
            hub: Arc::new(Hub::new(environment, limits)?),
        })
    }

    /// A model that is there, at a glance.
    ///
    /// # Errors
    /// [`ModelErrorKind::Unknown`], [`ModelErrorKind::Absent`] or [`ModelErrorKind::Damaged`].
    pub fn installed(&self, id: &str) -> Result<Installed, ModelError> {
        if let Some(installed) = self.store.installed(id)? {
            return Ok(installed);
        }
        self.catalogue.find(id)?;
        Err(absent(id))
    }
}
