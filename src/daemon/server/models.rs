//! The models that are open: each opened once, shared by all who want it, gone when nobody does.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{SetOnce, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::daemon::ModelSpec;
use crate::inference::{Backend, ErrorKind, GenerateError, Health};

/// Makes the backend of a model. Called on a thread that may block; loads nothing yet.
pub type OpenModel = Arc<dyn Fn(&ModelSpec) -> io::Result<Arc<dyn Backend>> + Send + Sync>;

/// A backend, or why there is none.
pub type Opened = Result<Arc<dyn Backend>, GenerateError>;

/// All models.
pub struct Models {
    open: OpenModel,
    limit: usize,
    slots: Mutex<HashMap<ModelSpec, Arc<Slot>>>,
    keepers: Mutex<JoinSet<()>>,
}

/// A model, which may still be on its way.
struct Slot {
    backend: SetOnce<Opened>,
    leases: watch::Sender<usize>,
    /// Another model needs its place.
    dismissed: CancellationToken,
}

/// Somebody has the model open.
pub struct Lease(Arc<Slot>);

impl Models {
    pub fn new(open: OpenModel, limit: usize) -> Arc<Self> {
        Arc::new(Self {
            open,
            limit,
            slots: Mutex::default(),
            keepers: Mutex::default(),
        })
    }

    /// Opens the model, if nobody has done so yet; `None` where too many others are open.
    pub fn lease(self: &Arc<Self>, spec: &ModelSpec) -> Option<Lease> {
        let mut slots = self.slots();
        if let Some(slot) = slots.get(spec) {
            return Some(Lease::of(slot));
        }
        if slots.len() >= self.limit {
            // One that is kept only because it is still loaded makes room.
            let unused = slots
                .iter()
                .find(|(_, slot)| slot.backend.initialized() && *slot.leases.borrow() == 0)
                .map(|(spec, _)| spec.clone())?;
            slots.remove(&unused)?.dismissed.cancel();
        }
        let slot = Arc::new(Slot {
            backend: SetOnce::new(),
            leases: watch::Sender::new(0),
            dismissed: CancellationToken::new(),
        });
        let lease = Lease::of(&slot);
        slots.insert(spec.clone(), Arc::clone(&slot));
        drop(slots);
        let keeper = keep(
            Arc::downgrade(self),
            Arc::clone(&self.open),
            spec.clone(),
            slot,
        );
        let mut keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        while keepers.try_join_next().is_some() {}
        keepers.spawn(keeper);
        Some(lease)
    }

    /// Those that are open, and how many have them open.
    pub fn list(&self) -> Vec<(ModelSpec, Arc<dyn Backend>, usize)> {
        let slots = self.slots();
        let opened = slots.iter().filter_map(|(spec, slot)| {
            let backend = slot.backend.get()?.as_ref().ok()?;
            Some((spec.clone(), Arc::clone(backend), *slot.leases.borrow()))
        });
        opened.collect()
    }

    /// Forgets the model, unless somebody has opened it by now.
    fn forget(&self, spec: &ModelSpec, slot: &Arc<Slot>) -> bool {
        // A lease is only given under this lock.
        let mut slots = self.slots();
        let unused = *slot.leases.borrow() == 0;
        if unused && slots.get(spec).is_some_and(|kept| Arc::ptr_eq(kept, slot)) {
            slots.remove(spec);
        }
        unused
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<ModelSpec, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    fn of(slot: &Arc<Slot>) -> Self {
        slot.leases.send_modify(|leases| *leases += 1);
        Self(Arc::clone(slot))
    }

    /// The backend, once it is there.
    pub async fn backend(&self) -> &Opened {
        self.0.backend.wait().await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.leases.send_modify(|leases| *leases -= 1);
    }
}

/// Opens a model, and lets go of it when nobody has it open and it holds no memory.
async fn keep(models: Weak<Models>, open: OpenModel, spec: ModelSpec, slot: Arc<Slot>) {
    let wanted = spec.clone();
    let opened = match tokio::task::spawn_blocking(move || open(&wanted)).await {
        Ok(opened) => opened.map_err(|error| {
            GenerateError::new(
                ErrorKind::Unavailable,
                format!("the system refuses a thread for the model: {error}"),
                "End other programs and try again.",
            )
        }),
        Err(_) => Err(GenerateError::new(
            ErrorKind::Unavailable,
            "the model was not opened, by a defect in Tandem",
            "Report it with the daemon's log (`tandem daemon logs`).",
        )),
    };
    let backend = opened.as_ref().ok().map(Arc::clone);
    // Nobody else sets it.
    let _ = slot.backend.set(opened);
    let Some(backend) = backend else {
        // Those who have it are told; whoever opens it next tries again.
        if let Some(models) = models.upgrade() {
            models.slots().remove(&spec);
        }
        return;
    };
    let mut leases = slot.leases.subscribe();
    let mut health = backend.health();
    loop {
        // The sender is in the slot, which we hold.
        let _ = leases.wait_for(|leases| *leases == 0).await;
        tokio::select! {
            _ = leases.changed() => continue,
            () = slot.dismissed.cancelled() => break,
            // A backend whose health ended has nothing more to say.
            _ = health.wait_for(holds_nothing) => {}
        }
        let Some(models) = models.upgrade() else {
            return;
        };
        if models.forget(&spec, &slot) {
            break;
        }
    }
    tracing::info!(model = backend.descriptor().model, "closed");
    // The end of a backend may wait for its thread.
    let _ = tokio::task::spawn_blocking(move || drop((backend, slot))).await;
}

fn holds_nothing(health: &Health) -> bool {
    match health {
        Health::Unloaded | Health::Absent { .. } | Health::Failed { .. } => true,
        Health::Downloading { .. }
        | Health::Loading
        | Health::Probing
        | Health::Healthy { .. }
        | Health::Degraded { .. } => false,
    }
}
