//! What goes out to one session: a bounded queue, and whoever empties it.

use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::daemon::Frame;
use crate::daemon::wire::FromDaemon;

/// Messages that may wait for a session that is behind. With [`super::answer::LARGEST_DELTA`] this is
/// less than a megabyte.
const QUEUE: usize = 32;

/// Bytes of a buffer that is kept between writes.
const KEPT: usize = 256 << 10;

/// The session is gone, or reads no more.
#[derive(Debug, Clone, Copy)]
pub struct Gone;

/// The end of the queue that messages are put in.
#[derive(Debug, Clone)]
pub struct Outgoing(mpsc::Sender<Frame>);

/// The other end.
pub struct Queue(mpsc::Receiver<Frame>);

/// A queue.
pub fn queue() -> (Outgoing, Queue) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Outgoing(sender), Queue(receiver))
}

impl Outgoing {
    /// Says it, once there is room.
    pub async fn say(&self, message: &FromDaemon) -> Result<(), Gone> {
        let frame = frame(message)?;
        self.0.send(frame).await.map_err(|_| Gone)
    }

    /// Says what `messages` are by the time there is room for so many.
    pub async fn say_late<const N: usize>(
        &self,
        messages: impl FnOnce() -> [Option<FromDaemon>; N],
    ) -> Result<(), Gone> {
        let permits = self.0.reserve_many(N).await.map_err(|_| Gone)?;
        for (message, permit) in messages().into_iter().flatten().zip(permits) {
            permit.send(frame(&message)?);
        }
        Ok(())
    }

    /// Says it if there is room.
    pub fn say_now(&self, message: &FromDaemon) {
        if let Ok(frame) = frame(message) {
            // A queue that is full has enough to say.
            let _ = self.0.try_send(frame);
        }
    }
}

/// A message that is too large to be said ends the connection, since what follows would make no sense.
fn frame(message: &FromDaemon) -> Result<Frame, Gone> {
    Frame::new(message).map_err(|error| {
        tracing::error!(%error, "a session is given up");
        Gone
    })
}

impl Queue {
    /// Writes all that is put in, until nobody is left to put anything in, the connection breaks, or
    /// the other side has taken nothing for as long as `stalled`.
    pub async fn write_to(mut self, mut output: impl AsyncWrite + Unpin, stalled: Duration) {
        let mut frames = Vec::with_capacity(QUEUE);
        let mut bytes = Vec::new();
        while self.0.recv_many(&mut frames, QUEUE).await > 0 {
            for frame in frames.drain(..) {
                bytes.extend_from_slice(frame.bytes());
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                match timeout(stalled, output.write(rest)).await {
                    Ok(Ok(taken)) if taken > 0 => rest = &rest[taken..],
                    Ok(_) => return,
                    Err(_) => {
                        tracing::warn!("a session that does not read is given up");
                        return;
                    }
                }
            }
            bytes.clear();
            bytes.shrink_to(KEPT);
        }
    }
}
