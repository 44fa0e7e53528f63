//! The connection to Redis: held, watched, made again. RESP3, so that one connection both publishes
//! and listens.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use redis::{AsyncConnectionConfig, Client, ProtocolVersion, PushInfo, PushKind, Value, aio::MultiplexedConnection};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Inner;
use crate::backoff::Backoff;

const CHANNEL: &str = "wharfage:wake";
const ANSWER_TIME: Duration = Duration::from_secs(2);
const PING_EVERY: Duration = Duration::from_secs(2);
/// Wake-ups sent in one round trip.
const BATCH: usize = 256;

/// Keeps a connection until `cancel`, or until nobody has the bus any more.
pub(super) async fn run(
    client: Client,
    bus: Weak<Inner>,
    mut outbox: mpsc::Receiver<String>,
    cancel: CancellationToken,
) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    let keep = async {
        while bus.strong_count() > 0 {
            match open(&client).await {
                Ok((connection, pushes)) => {
                    backoff.reset();
                    tracing::info!("connected to Redis");
                    let lost = converse(connection, pushes, &bus, &mut outbox).await;
                    set_connected(&bus, false);
                    tracing::warn!(lost, "Redis is away; sweeping instead");
                }
                Err(error) => tracing::debug!(%error, "cannot connect to Redis"),
            }
            backoff.wait().await;
        }
    };
    tokio::select! {
        () = keep => {}
        () = cancel.cancelled() => {}
    }
    set_connected(&bus, false);
}

fn set_connected(bus: &Weak<Inner>, connected: bool) {
    if let Some(bus) = bus.upgrade() {
        bus.connected.send_replace(connected);
    }
}

type Pushes = mpsc::UnboundedReceiver<PushInfo>;

async fn open(client: &Client) -> redis::RedisResult<(MultiplexedConnection, Pushes)> {
    let mut info = client.get_connection_info().clone();
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    info = info.set_redis_settings(settings);
    let (sender, pushes) = mpsc::unbounded_channel();
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER_TIME))
        .set_response_timeout(Some(ANSWER_TIME))
        .set_push_sender(sender);
    let mut connection = Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?;
    connection.subscribe(CHANNEL).await?;
    Ok((connection, pushes))
}

/// Sends and receives until the connection is lost; says why.
async fn converse(
    mut connection: MultiplexedConnection,
    mut pushes: Pushes,
    bus: &Weak<Inner>,
    outbox: &mut mpsc::Receiver<String>,
) -> &'static str {
    match bus.upgrade() {
        Some(bus) => {
            bus.connected.send_replace(true);
            bus.wake_all();
        }
        None => return "closed",
    }
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            push = pushes.recv() => match push {
                Some(push) if push.kind == PushKind::Message => receive(bus, &push),
                Some(push) if push.kind == PushKind::Disconnection => return "disconnected",
                Some(_) => {}
                None => return "disconnected",
            },
            taken = outbox.recv_many(&mut batch, BATCH) => {
                if taken == 0 {
                    return "closed";
                }
                if publish(&mut connection, &mut batch).await.is_err() {
                    return "publish failed";
                }
            }
            () = tokio::time::sleep(PING_EVERY) => {
                if redis::cmd("PING").exec_async(&mut connection).await.is_err() {
                    return "ping failed";
                }
            }
        }
    }
}

async fn publish(connection: &mut MultiplexedConnection, batch: &mut Vec<String>) -> redis::RedisResult<()> {
    let mut pipeline = redis::pipe();
    for message in batch.drain(..) {
        pipeline.cmd("PUBLISH").arg(CHANNEL).arg(message).ignore();
    }
    pipeline.exec_async(connection).await
}

fn receive(bus: &Weak<Inner>, push: &PushInfo) {
    // Channel, then payload.
    let Some(Value::BulkString(payload)) = push.data.get(1) else { return };
    if let (Some(bus), Ok(message)) = (bus.upgrade(), std::str::from_utf8(payload)) {
        Inner::received(&Arc::clone(&bus), message);
    }
}
