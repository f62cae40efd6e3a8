//! Which of two programs is the newer one.

use std::cmp::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A build of Tandem. Ordered by version and then by the time of the program's file, so that of two
/// builds of one version the later one wins. Only a later build may ask a daemon to leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// The version, such as `0.1.0`.
    pub version: String,
    /// When the program's file was written, in milliseconds since 1970; 0 where that is not known.
    pub built_unix_ms: u64,
}

impl Build {
    /// This program's. To be asked for early: the file may be replaced while the program runs. On Linux
    /// that makes no difference; there a daemon is started from a file that was replaced.
    #[must_use]
    pub fn of_this_program() -> Self {
        let written = std::fs::metadata("/proc/self/exe")
            .or_else(|_| std::env::current_exe()?.metadata())
            .and_then(|metadata| metadata.modified())
            .unwrap_or(UNIX_EPOCH);
        Self::new(env!("CARGO_PKG_VERSION"), written)
    }

    /// The build of `version` whose file was `written` then.
    #[must_use]
    pub fn new(version: &str, written: SystemTime) -> Self {
        let built = written.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            version: version.to_owned(),
            built_unix_ms: u64::try_from(built.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The numbers of the version. What comes after a `-` is a step towards it, so it comes before
    /// it; a part that is no number counts as 0.
    fn rank(&self) -> ([u64; 3], bool, u64) {
        let (numbers, final_version) = match self.version.split_once(['-', '+']) {
            Some((numbers, _)) => (numbers, !self.version.contains('-')),
            None => (self.version.as_str(), true),
        };
        let mut parts = numbers.split('.').map(|part| part.parse().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        ([next(), next(), next()], final_version, self.built_unix_ms)
    }
}

impl PartialOrd for Build {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.rank().cmp(&other.rank()))
    }
}

impl std::fmt::Display for Build {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(version: &str, built_unix_ms: u64) -> Build {
        Build {
            version: version.to_owned(),
            built_unix_ms,
        }
    }

    #[test]
    fn a_version_counts_more_than_a_time() {
        let ordered = [
            build("0.1.0-rc.1", 9),
            build("0.1.0", 1),
            build("0.1.0", 2),
            build("0.2.0", 0),
            build("0.10.0", 0),
            build("1.0.0", 0),
        ];
        for pair in ordered.windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}");
        }
    }

    #[test]
    fn nonsense_is_old() {
        assert!(build("", 0) < build("0.0.1", 0));
        assert!(build("a.b.c.d", 5) < build("0.0.1", 0));
    }
}
