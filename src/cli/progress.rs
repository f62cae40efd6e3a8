//! A sign of life on a terminal while a model loads or an answer is awaited. None in a pipe.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::task::AbortOnDropHandle;

use crate::inference::Health;
use crate::router::Router;

/// Answers that come sooner need no sign of life.
const PATIENCE: Duration = Duration::from_millis(150);

/// How often the line is drawn: what looks alive without drawing attention.
const PACE: Duration = Duration::from_millis(100);

/// A line that goes away when it is dropped.
pub struct Progress {
    bar: ProgressBar,
    _drawing: AbortOnDropHandle<()>,
}

impl Progress {
    /// Starts to draw on standard error, if `terminal`. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(router: &Arc<Router>, terminal: bool) -> Option<Self> {
        if !terminal {
            return None;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let router = Arc::clone(router);
        let drawn = bar.clone();
        let drawing = tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            loop {
                draw(&drawn, &router);
                tokio::time::sleep(PACE).await;
            }
        });
        Some(Self {
            bar,
            _drawing: AbortOnDropHandle::new(drawing),
        })
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn draw(bar: &ProgressBar, router: &Router) {
    for backend in router.status() {
        let model = backend.model;
        match backend.health {
            Health::Downloading { bytes, total } => {
                let template = "downloading {msg} {bytes}/{total_bytes} {wide_bar} {eta}";
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style);
                }
                if let Some(total) = total {
                    bar.set_length(total);
                }
                bar.set_position(bytes);
                bar.set_message(model);
                return;
            }
            Health::Loading | Health::Probing => {
                spin(bar, format!("loading {model}"));
                return;
            }
            _ => {}
        }
    }
    spin(bar, "thinking".to_owned());
}

fn spin(bar: &ProgressBar, message: String) {
    bar.set_style(ProgressStyle::default_spinner());
    bar.set_message(message);
    bar.tick();
}
