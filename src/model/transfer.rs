//! One file: fetched in as many pieces as it takes, and held to its hash before it gets its name.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode, Url};

use super::digest::Hashed;
use super::error::{ModelError, ModelErrorKind};
use super::hub::{self, Hub, Limits, Wanted};
use super::pull::{Observer, Step};

/// A file to fetch.
pub(super) struct Transfer<'a> {
    pub hub: &'a Hub,
    pub url: Url,
    pub wanted: &'a Wanted,
    /// Where bytes arrive; kept when it is cut off.
    pub part: &'a Path,
    /// Bytes of the model's other files that are there already.
    pub before: u64,
    pub observer: Observer<'a>,
}

impl Transfer<'_> {
    /// Fetches what is missing of the part, and checks it.
    ///
    /// # Errors
    /// [`ModelError`]; the part is kept unless its content was wrong.
    pub async fn run(&self) -> Result<Hashed, ModelError> {
        let mut patience = Patience::new(self.hub.limits);
        let mut again_for_content = true;
        loop {
            match self.complete().await {
                Ok(()) => {}
                Err((progressed, error)) => {
                    if progressed {
                        patience = Patience::new(self.hub.limits);
                    }
                    patience.again(error, self.observer).await?;
                    continue;
                }
            }
            let part = self.part.to_owned();
            let hashed = on_disk(self.part, move || Hashed::of(&part)).await?;
            if hashed.bytes == self.wanted.bytes && hashed.is(&self.wanted.digest) {
                return Ok(hashed);
            }
            fs::remove_file(self.part).map_err(|error| ModelError::disk(self.part, &error))?;
            if !again_for_content {
                return Err(ModelError::new(
                    ModelErrorKind::WrongContent,
                    format!(
                        "`{}`: what came is not what was announced, twice",
                        self.wanted.path
                    ),
                    "Something on the way changes it, or the hub's copy is damaged: try another \
                     network, and do not use the file.",
                ));
            }
            again_for_content = false;
            (self.observer)(Step::Advanced { done: self.before });
        }
    }

    /// One request for what is missing. The error says whether bytes arrived before it.
    async fn complete(&self) -> Result<(), (bool, ModelError)> {
        let nothing = |error: ModelError| (false, error);
        let disk = |error: std::io::Error| ModelError::disk(self.part, &error);
        let mut have = fs::metadata(self.part).map_or(0, |part| part.len());
        if have > self.wanted.bytes {
            fs::remove_file(self.part).map_err(|error| nothing(disk(error)))?;
            have = 0;
        }
        if have == self.wanted.bytes && have > 0 {
            return Ok(());
        }
        let from = (have > 0).then_some(have);
        let mut response = self
            .hub
            .get(self.url.clone(), from)
            .await
            .map_err(nothing)?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // The part is of no use to this server: from the start.
            fs::remove_file(self.part).map_err(|error| nothing(disk(error)))?;
            response = self
                .hub
                .get(self.url.clone(), None)
                .await
                .map_err(nothing)?;
        }
        if !response.status().is_success() {
            return Err(nothing(self.hub.refusal(&response, &self.wanted.path)));
        }
        let mut done = if continues(&response, have) { have } else { 0 };
        let mut part = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(self.part)
            .and_then(|mut part| {
                use std::io::Seek as _;
                part.set_len(done)?;
                part.seek(std::io::SeekFrom::End(0))?;
                Ok(part)
            })
            .map_err(|error| nothing(disk(error)))?;
        let mut arrived = false;
        (self.observer)(Step::Advanced {
            done: self.before + done,
        });
        loop {
            let bytes = match response.chunk().await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break,
                Err(error) => return Err((arrived, hub::broken(&self.wanted.path, &error))),
            };
            done += bytes.len() as u64;
            if done > self.wanted.bytes {
                // Left for the hash to refuse: the whole of it is not what was announced.
                break;
            }
            part.write_all(&bytes)
                .map_err(|error| (arrived, disk(error)))?;
            arrived |= !bytes.is_empty();
            (self.observer)(Step::Advanced {
                done: self.before + done,
            });
        }
        settle(&part).map_err(|error| (arrived, disk(error)))?;
        if done < self.wanted.bytes {
            let error = ModelError::new(
                ModelErrorKind::Unreachable,
                format!("`{}`: the connection was cut", self.wanted.path),
                "Check the network and pull again: what has arrived is kept.",
            );
            return Err((arrived, error));
        }
        Ok(())
    }
}

/// A name must not survive a power cut that its content does not.
fn settle(file: &File) -> std::io::Result<()> {
    file.sync_all()
}

/// Whether the answer goes on where the part ends. A server may ignore the wish.
fn continues(response: &Response, have: u64) -> bool {
    response.status() == StatusCode::PARTIAL_CONTENT
        && response
            .headers()
            .get(CONTENT_RANGE)
            .and_then(|range| range.to_str().ok())
            .and_then(|range| range.strip_prefix("bytes ")?.split_once('-'))
            .is_some_and(|(start, _)| start.parse() == Ok(have))
}

/// Runs what reads or writes much on a thread that may wait for the disk at `path`.
pub(super) async fn on_disk<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ModelError> {
    let outcome = tokio::task::spawn_blocking(work).await;
    let outcome = outcome.unwrap_or_else(|_| Err(std::io::Error::other("interrupted")));
    outcome.map_err(|error| ModelError::disk(path, &error))
}

/// How often something is tried again.
pub(super) struct Patience {
    limits: Limits,
    tries: u32,
}

impl Patience {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, tries: 0 }
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// The error itself, when it will not pass, or has not after so many tries.
    pub(super) async fn again(
        &mut self,
        error: ModelError,
        observer: Observer<'_>,
    ) -> Result<(), ModelError> {
        let pause = self.pause(&error);
        self.tries += 1;
        let Some(pause) = pause else {
            return Err(error);
        };
        tracing::debug!(%error, ?pause, "the hub is asked again");
        observer(Step::Again {
            why: error.message,
            pause,
        });
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn pause(&self, error: &ModelError) -> Option<Duration> {
        let Limits {
            retries,
            first_pause,
            longest_pause,
            ..
        } = self.limits;
        if !error.may_pass() || self.tries >= retries {
            return None;
        }
        if let Some(asked) = error.retry_after {
            return (asked <= longest_pause).then_some(asked);
        }
        let doubled = first_pause.saturating_mul(1 << self.tries.min(16));
        // Many machines that were cut off at once do not come back at once.
        let spread = 0.75 + rand::random::<f64>() / 2.0;
        Some(doubled.mul_f64(spread).min(longest_pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_the_hub_is_listened_to() {
        let limits = Limits {
            retries: 3,
            ..Limits::default()
        };
        let busy = |retry_after: Option<u64>| ModelError {
            retry_after: retry_after.map(Duration::from_secs),
            ..ModelError::new(ModelErrorKind::Busy, "", "")
        };
        for (tries, error, from_ms, to_ms) in [
            (0, busy(None), 375, 625),
            (2, busy(None), 1500, 2500),
            (0, busy(Some(7)), 7000, 7000),
            (0, busy(Some(0)), 0, 0),
        ] {
            let pause = Patience { limits, tries }.pause(&error).unwrap();
            let expected = Duration::from_millis(from_ms)..=Duration::from_millis(to_ms);
            assert!(expected.contains(&pause), "{pause:?} of {expected:?}");
        }
        for (tries, error) in [
            (3, busy(None)),
            // Longer than anybody waits.
            (0, busy(Some(3600))),
            (0, ModelError::new(ModelErrorKind::Gone, "", "")),
        ] {
            assert_eq!(Patience { limits, tries }.pause(&error), None);
        }
    }
}
