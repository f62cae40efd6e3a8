//! What the daemon says of itself.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Session, Shared};
use crate::daemon::wire::{DaemonStatus, ModelStatus, SessionStatus};

/// Everything, for the session `asking`.
pub fn of(shared: &Shared, asking: u64) -> DaemonStatus {
    let models = shared.models.list().into_iter();
    let mut models: Vec<_> = models
        .map(|(spec, backend, sessions)| {
            // Cloned, since the backend may publish under a lock that it needs to answer.
            let health = backend.health().borrow().clone();
            let descriptor = backend.descriptor();
            ModelStatus {
                spec,
                kind: descriptor.kind,
                name: descriptor.model.clone(),
                health: health.into(),
                placement: backend.placement().map(Into::into),
                statistics: backend.statistics(),
                sessions,
            }
        })
        .collect();
    models.sort_by(|a, b| a.name.cmp(&b.name));
    let sessions = shared.sessions();
    let mut others: Vec<_> = sessions
        .iter()
        .filter(|(number, _)| **number != asking)
        .collect();
    others.sort_by_key(|(number, _)| **number);
    DaemonStatus {
        build: shared.build.clone(),
        pid: std::process::id(),
        uptime_ms: ms(shared.started.elapsed()),
        resident_bytes: resident_bytes(),
        draining: shared.draining.is_cancelled(),
        models,
        sessions: others
            .into_iter()
            .map(|(_, session)| of_session(session))
            .collect(),
    }
}

fn of_session(session: &Session) -> SessionStatus {
    SessionStatus {
        name: session.hello.name.clone(),
        pid: session.hello.pid,
        build: session.hello.build.clone(),
        connected_ms: ms(session.connected.elapsed()),
        in_flight: *session.in_flight.borrow(),
        requests: session.requests.load(Ordering::Relaxed),
        backends: session.backends().clone(),
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Linux says it in `VmRSS`, in KiB; other systems only tell the most that it ever was.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
