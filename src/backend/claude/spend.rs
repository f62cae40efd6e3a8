//! What was spent today, kept in a small file that all of a user's sessions share.
//!
//! A request reserves its highest possible cost before it is sent and is settled at its true cost
//! after, so that sessions that run at once cannot pass the cap together. A reservation whose
//! session died counts as spent once it is old.
//!
//! The file is replaced whole, under a lock on a file beside it. What cannot be read or written is
//! an error: a cap that nobody keeps would be worse than none.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::models::NanoDollars;

const FILE: &str = "claude-spend.json";
const LOCK: &str = "claude-spend.lock";

/// The lock is held for a read and a write of one page; waiting longer means that its holder hangs.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// No request lives longer (see `call::ANSWER_LIMIT`), retries included.
const RESERVATION_LIMIT_SECS: u64 = 30 * 60;

const SECONDS_A_DAY: u64 = 86_400;

/// Why a request may not be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpendFault {
    /// It could pass the cap.
    Cap {
        /// Spent and reserved today.
        spent: NanoDollars,
        /// The most that the request can cost.
        request: NanoDollars,
    },
    /// The file, and what is wrong with it.
    File(PathBuf, String),
}

/// Money set aside for one request.
#[derive(Debug)]
#[must_use = "a reservation that is not settled counts as spent"]
pub struct Reservation(u64);

/// See the module. All of it blocks for as long as the file does.
#[derive(Debug)]
pub struct Ledger {
    folder: Option<PathBuf>,
    /// The day as it is without a folder.
    memory: Mutex<Day>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Day {
    /// Days since 1970-01-01, in UTC.
    date: u64,
    spent_nano_usd: NanoDollars,
    reserved: Vec<Reserved>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reserved {
    id: u64,
    nano_usd: NanoDollars,
    /// Seconds since 1970-01-01, in UTC.
    at: u64,
}

impl Ledger {
    /// The ledger in `folder`, which is made when it is first needed; without one, this process
    /// keeps its own.
    #[must_use]
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self {
            folder,
            memory: Mutex::default(),
        }
    }

    /// Sets `highest` aside.
    ///
    /// # Errors
    /// When today's spending, all reservations and `highest` would pass `cap` together, or the file
    /// cannot be kept.
    pub fn reserve(
        &self,
        highest: NanoDollars,
        cap: NanoDollars,
        now: SystemTime,
    ) -> Result<Reservation, SpendFault> {
        self.update(now, |day, secs| {
            let spent = day.reserved.iter().fold(day.spent_nano_usd, |sum, one| {
                sum.saturating_add(one.nano_usd)
            });
            if spent.saturating_add(highest) > cap {
                return Err(SpendFault::Cap {
                    spent,
                    request: highest,
                });
            }
            let id = rand::random();
            day.reserved.push(Reserved {
                id,
                nano_usd: highest,
                at: secs,
            });
            Ok(Reservation(id))
        })?
    }

    /// Replaces a reservation by what the request did cost.
    ///
    /// # Errors
    /// When the file cannot be kept; the reservation then counts as spent in time.
    pub fn settle(
        &self,
        reservation: &Reservation,
        cost: NanoDollars,
        now: SystemTime,
    ) -> Result<(), SpendFault> {
        let Reservation(id) = *reservation;
        self.update(now, |day, _| {
            // One that is gone was old enough to be counted as spent.
            if let Some(at) = day.reserved.iter().position(|one| one.id == id) {
                day.reserved.swap_remove(at);
                day.spent_nano_usd = day.spent_nano_usd.saturating_add(cost);
            }
        })
    }

    fn update<R>(
        &self,
        now: SystemTime,
        change: impl FnOnce(&mut Day, u64) -> R,
    ) -> Result<R, SpendFault> {
        let secs = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let Some(folder) = &self.folder else {
            let mut day = self
                .memory
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            day.advance(secs);
            return Ok(change(&mut day, secs));
        };
        let file = folder.join(FILE);
        let fault = |path: &Path, what: String| SpendFault::File(path.to_owned(), what);
        std::fs::create_dir_all(folder).map_err(|error| fault(folder, error.to_string()))?;
        let lock = folder.join(LOCK);
        // Held until the end of this function.
        let _locked = locked(&lock).map_err(|what| fault(&lock, what))?;
        let mut day = match std::fs::read(&file) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| fault(&file, error.to_string()))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Day::default(),
            Err(error) => return Err(fault(&file, error.to_string())),
        };
        day.advance(secs);
        let result = change(&mut day, secs);
        replace(folder, &file, &day).map_err(|what| fault(&file, what))?;
        Ok(result)
    }
}

impl Day {
    /// Begins another day, and gives old reservations up for spent.
    fn advance(&mut self, secs: u64) {
        let today = secs / SECONDS_A_DAY;
        if self.date != today {
            self.date = today;
            self.spent_nano_usd = 0;
        }
        let mut lost: NanoDollars = 0;
        self.reserved.retain(|one| {
            let live = secs < one.at.saturating_add(RESERVATION_LIMIT_SECS);
            if !live && one.at / SECONDS_A_DAY == today {
                lost = lost.saturating_add(one.nano_usd);
            }
            live
        });
        self.spent_nano_usd = self.spent_nano_usd.saturating_add(lost);
    }
}

fn locked(path: &Path) -> Result<File, String> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|error| error.to_string())?;
    let deadline = Instant::now() + LOCK_LIMIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(TryLockError::WouldBlock) => {
                return Err("another process holds it without end".to_owned());
            }
            Err(TryLockError::Error(error)) => return Err(error.to_string()),
        }
    }
}

fn replace(folder: &Path, file: &Path, day: &Day) -> Result<(), String> {
    let bytes = serde_json::to_vec(day).map_err(|error| error.to_string())?;
    let new = folder.join(format!("{FILE}.{}", std::process::id()));
    std::fs::write(&new, bytes)
        .and_then(|()| std::fs::rename(&new, file))
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    const NOON: u64 = 20_000 * SECONDS_A_DAY + SECONDS_A_DAY / 2;

    fn spent(ledger: &Ledger, secs: u64) -> NanoDollars {
        match ledger.reserve(1, 0, at(secs)) {
            Err(SpendFault::Cap { spent, .. }) => spent,
            other => panic!("a cap of nothing lets nothing through: {other:?}"),
        }
    }

    #[test]
    fn ledgers_of_one_folder_share_their_cap() {
        let folder = tempfile::tempdir().unwrap();
        let one = Ledger::new(Some(folder.path().join("state")));
        let two = Ledger::new(Some(folder.path().join("state")));
        let first = one.reserve(60, 100, at(NOON)).unwrap();
        assert_eq!(
            two.reserve(60, 100, at(NOON)).unwrap_err(),
            SpendFault::Cap {
                spent: 60,
                request: 60
            }
        );
        one.settle(&first, 10, at(NOON)).unwrap();
        let second = two.reserve(60, 100, at(NOON)).unwrap();
        two.settle(&second, 20, at(NOON)).unwrap();
        assert_eq!(spent(&one, NOON), 30);
        assert_eq!(spent(&one, NOON + SECONDS_A_DAY), 0);
    }

    #[test]
    fn many_at_once_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let ledger = Ledger::new(Some(folder.path().to_owned()));
                    for _ in 0..10 {
                        let one = ledger.reserve(5, u64::MAX, at(NOON)).unwrap();
                        ledger.settle(&one, 3, at(NOON)).unwrap();
                    }
                });
            }
        });
        let ledger = Ledger::new(Some(folder.path().to_owned()));
        assert_eq!(spent(&ledger, NOON), 120);
    }

    #[test]
    fn a_reservation_of_a_session_that_died_counts_as_spent() {
        let ledger = Ledger::new(None);
        let lost = ledger.reserve(40, 100, at(NOON)).unwrap();
        let later = NOON + RESERVATION_LIMIT_SECS;
        assert_eq!(spent(&ledger, later), 40);
        ledger.settle(&lost, 1, at(later)).unwrap();
        assert_eq!(
            spent(&ledger, later),
            40,
            "settled too late changes nothing"
        );
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_an_error_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        for content in [
            "",
            "{",
            "[]",
            r#"{"date":1,"spent_nano_usd":-1,"reserved":[]}"#,
        ] {
            std::fs::write(&file, content).unwrap();
            let ledger = Ledger::new(Some(folder.path().to_owned()));
            let fault = ledger.reserve(1, 100, at(NOON)).unwrap_err();
            assert!(
                matches!(&fault, SpendFault::File(path, _) if *path == file),
                "{content:?}: {fault:?}"
            );
            assert_eq!(std::fs::read_to_string(&file).unwrap(), content);
        }
    }
}
