//! Real servers for tests: a PostgreSQL cluster and a Redis of one's own, on free ports of loopback,
//! gone with the test process however it ends.

mod daemon;
mod postgres;
mod redis;
mod seed;

pub use postgres::{Database, Postgres};
pub use redis::Redis;
pub use seed::{Seed, SeededProject, room_for};
