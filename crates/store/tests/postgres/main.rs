//! The store against a real PostgreSQL: what its constraints, policies and guards hold.

mod containers;
mod docker_socket;
mod events;
mod images;
mod lists;
mod migrations;
mod networks;
mod plans;
mod quota;
mod registry;
mod reports;
mod row_level_security;
mod volumes;

use store::Store;
use testkit::{Database, Postgres, Seed};

/// A database of the test's own.
async fn fresh(name: &str) -> (Database, Seed) {
    let database = Postgres::shared().migrated_database(name).await.expect("a database");
    let seed = Seed::connect(&database).await.expect("the owner's connection");
    (database, seed)
}

fn scheduler(database: &Database) -> Store {
    Store::connect_lazy(&database.scheduler, 8).expect("a url")
}
