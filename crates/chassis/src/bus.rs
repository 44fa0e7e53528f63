//! Wake-ups over Redis pub/sub. A wake-up says "look again" and nothing else; it may be lost,
//! repeated or late. Redis may be absent, stopped or flushed at any time: waiting is then short
//! instead of long, so that whoever waits re-reads Postgres often enough.
//!
//! One connection per process: a single channel carries the topics' names and they are told apart
//! here. What is published here wakes listeners here at once, without Redis.

mod worker;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contract::wake::Topic;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::ids;

/// How long a wait lasts at most while Redis is not connected.
pub const SWEEP: Duration = Duration::from_millis(100);
/// Wake-ups that wait to be sent while Redis is away; more are dropped.
const OUTBOX: usize = 4096;

/// The process's end of the bus. Cheap to clone.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    /// Tells our own wake-ups apart when Redis echoes them.
    origin: String,
    topics: Mutex<HashMap<String, watch::Sender<()>>>,
    connected: watch::Sender<bool>,
    outbox: Option<mpsc::Sender<String>>,
}

impl Bus {
    /// Connects to Redis in the background, now and after every loss, until `cancel`. Never fails:
    /// without an address, or while there is no Redis, waiting falls back to sweeping. Must be called
    /// within the runtime.
    #[must_use]
    pub fn connect(redis_url: Option<&str>, cancel: CancellationToken) -> Self {
        let Some(url) = redis_url else {
            return Self::with_outbox(None, false);
        };
        let (outbox, queue) = mpsc::channel(OUTBOX);
        let bus = Self::with_outbox(Some(outbox), false);
        match redis::Client::open(url) {
            Ok(client) => {
                tokio::spawn(worker::run(client, Arc::downgrade(&bus.0), queue, cancel));
            }
            // The address may hold a password.
            Err(error) => tracing::error!(%error, "the Redis address is malformed; sweeping instead"),
        }
        bus
    }

    /// A bus within this process only: for tests, and for suites of one process.
    #[must_use]
    pub fn local() -> Self {
        Self::with_outbox(None, true)
    }

    fn with_outbox(outbox: Option<mpsc::Sender<String>>, connected: bool) -> Self {
        Self(Arc::new(Inner {
            origin: hex::encode(ids::random_bytes::<8>()),
            topics: Mutex::default(),
            connected: watch::Sender::new(connected),
            outbox,
        }))
    }

    /// Whether Redis is there now. Worth telling, never a reason to be unready.
    #[must_use]
    pub fn connected(&self) -> bool {
        *self.0.connected.borrow()
    }

    /// Wakes everyone who listens to a topic. Returns at once and never fails.
    pub fn publish(&self, topic: &Topic) {
        let name = topic.to_string();
        self.0.deliver(&name);
        if let Some(outbox) = &self.0.outbox {
            // If it is full, Redis has been away for long and everyone sweeps.
            let _ = outbox.try_send(format!("{} {name}", self.0.origin));
        }
    }

    /// Listens to a topic. Subscribe first, then read: no wake-up after this call is missed.
    #[must_use]
    pub fn subscribe(&self, topic: &Topic) -> Wakeups {
        self.subscribe_any(std::slice::from_ref(topic))
    }

    /// Listens to several topics at once.
    #[must_use]
    pub fn subscribe_any(&self, topics: &[Topic]) -> Wakeups {
        let mut senders = self.0.topics();
        let listening = topics
            .iter()
            .map(|topic| {
                let name = topic.to_string();
                let wakes = senders.entry(name.clone()).or_default().subscribe();
                (name, wakes)
            })
            .collect();
        drop(senders);
        Wakeups { bus: self.0.clone(), listening, connected: self.0.connected.subscribe() }
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("connected", &self.connected()).finish_non_exhaustive()
    }
}

impl Inner {
    fn topics(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<()>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, topic: &str) {
        if let Some(sender) = self.topics().get(topic) {
            sender.send_replace(());
        }
    }

    /// A message from the channel: `<origin> <topic>`.
    fn received(&self, message: &str) {
        if let Some((origin, topic)) = message.split_once(' ')
            && origin != self.origin
        {
            self.deliver(topic);
        }
    }

    /// After a gap in the connection anything may have been missed.
    fn wake_all(&self) {
        for sender in self.topics().values() {
            sender.send_replace(());
        }
    }
}

/// Someone's wake-ups. Dropping it unsubscribes.
pub struct Wakeups {
    bus: Arc<Inner>,
    listening: Vec<(String, watch::Receiver<()>)>,
    connected: watch::Receiver<bool>,
}

impl Wakeups {
    /// Returns on a wake-up since the last call, or after `max_wait` (at most [`SWEEP`] while Redis
    /// is away). Either way: read again.
    pub async fn woken(&mut self, max_wait: Duration) {
        let connected = *self.connected.borrow_and_update();
        let wait = if connected { max_wait } else { max_wait.min(SWEEP) };
        let wakes = self.listening.iter_mut().map(|(_, wakes)| Box::pin(wakes.changed()));
        // An empty list of topics must wait, not panic.
        let woken = async {
            if wakes.len() == 0 {
                std::future::pending::<()>().await;
            } else {
                let _: (Result<(), _>, _, _) = futures::future::select_all(wakes).await;
            }
        };
        tokio::select! {
            () = woken => {}
            // Redis went or came while we waited: what was sent meanwhile may be lost.
            _ = self.connected.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

impl Drop for Wakeups {
    fn drop(&mut self) {
        let mut topics = self.bus.topics();
        for (name, wakes) in self.listening.drain(..) {
            drop(wakes);
            if topics.get(&name).is_some_and(|sender| sender.receiver_count() == 0) {
                topics.remove(&name);
            }
        }
    }
}

impl fmt::Debug for Wakeups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.listening.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_wake_between_subscribe_and_wait_is_not_missed() {
        let bus = Bus::local();
        let mut wakeups = bus.subscribe(&Topic::Unplaced);
        bus.publish(&Topic::Unplaced);
        let start = Instant::now();
        wakeups.woken(LONG).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        wakeups.woken(LONG).await;
        assert_eq!(start.elapsed(), LONG, "one wake-up wakes once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_wakes_its_own_listeners_only() {
        let bus = Bus::local();
        let host = Topic::Host(model::HostId(ids::uuid_v7()));
        let mut wakeups = bus.subscribe(&host);
        bus.publish(&Topic::Unplaced);
        let start = Instant::now();
        wakeups.woken(LONG).await;
        assert_eq!(start.elapsed(), LONG);
    }

    #[tokio::test(start_paused = true)]
    async fn without_redis_a_wait_is_short() {
        let bus = Bus::connect(None, CancellationToken::new());
        let mut wakeups = bus.subscribe(&Topic::Unplaced);
        let start = Instant::now();
        wakeups.woken(LONG).await;
        assert_eq!(start.elapsed(), SWEEP);
    }

    #[tokio::test]
    async fn a_topic_that_nobody_listens_to_is_forgotten() {
        let bus = Bus::local();
        let (a, b) = (bus.subscribe(&Topic::Unplaced), bus.subscribe(&Topic::Unplaced));
        drop(a);
        assert_eq!(bus.0.topics().len(), 1);
        drop(b);
        assert!(bus.0.topics().is_empty());
    }
}
