//! The bus over a real Redis that is stopped, killed and started again.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use chassis::{Bus, CancellationToken};
use contract::wake::Topic;

const LONG: Duration = Duration::from_secs(20);

struct Redis {
    port: u16,
    child: Child,
}

impl Redis {
    fn start(port: u16) -> Self {
        let child = Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
                "/tmp",
            ])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        Self { port, child }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("address").port()
}

async fn until(bus: &Bus, connected: bool) {
    let start = Instant::now();
    while bus.connected() != connected {
        assert!(start.elapsed() < Duration::from_secs(10), "still not connected={connected}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How long a wait lasted.
async fn waited(wakeups: &mut chassis::bus::Wakeups) -> Duration {
    let start = Instant::now();
    wakeups.woken(LONG).await;
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wakes_cross_processes_and_survive_the_loss_of_redis() {
    let mut redis = Redis::start(free_port());
    let cancel = CancellationToken::new();
    let bus = |cancel: &CancellationToken| Bus::connect(Some(&redis.url()), cancel.clone());
    let (ours, theirs) = (bus(&cancel), bus(&cancel));
    until(&ours, true).await;
    until(&theirs, true).await;
    let topic = Topic::Host(model::HostId(chassis::ids::uuid_v7()));

    // Across two connections, as between two processes.
    let mut wakeups = theirs.subscribe(&topic);
    ours.publish(&Topic::Unplaced);
    ours.publish(&topic);
    assert!(waited(&mut wakeups).await < Duration::from_secs(2));
    // Only once: our own topic arrived, the other one did not.
    let quiet = tokio::time::timeout(Duration::from_millis(300), wakeups.woken(LONG)).await;
    assert!(quiet.is_err(), "woken without a wake-up");

    // Killed in the middle of a wait: the waiter looks again soon, and goes on looking.
    let waiting = tokio::spawn(async move {
        let first = waited(&mut wakeups).await;
        (first, waited(&mut wakeups).await, wakeups)
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    redis.kill();
    let (first, second, mut wakeups) = waiting.await.expect("join");
    assert!(first < Duration::from_secs(5), "{first:?}");
    assert!(second < Duration::from_secs(1), "sweeps while Redis is away, {second:?}");
    until(&ours, false).await;

    // Published while it is away: delivered here at once, and there when it is back.
    ours.publish(&topic);
    let again = Redis::start(redis.port);
    until(&ours, true).await;
    until(&theirs, true).await;
    // Reconnecting itself wakes everyone, because anything may have been missed.
    assert!(waited(&mut wakeups).await < Duration::from_secs(2));
    while tokio::time::timeout(Duration::from_millis(300), wakeups.woken(LONG)).await.is_ok() {}
    ours.publish(&topic);
    assert!(waited(&mut wakeups).await < Duration::from_secs(2));
    cancel.cancel();
    drop(again);
}

#[tokio::test]
async fn a_wrong_address_only_makes_it_sweep() {
    let bus = Bus::connect(Some("nonsense"), CancellationToken::new());
    let mut wakeups = bus.subscribe(&Topic::Unplaced);
    assert!(waited(&mut wakeups).await < Duration::from_secs(1));
    bus.publish(&Topic::Unplaced);
    assert!(waited(&mut wakeups).await < Duration::from_millis(90), "local wake-ups need no Redis");
}
