//! Postgres' errors as domain errors. A violated constraint is named at the query that can violate it.

use model::Error;

/// The default mapping: connection trouble is `Unavailable` (a retry may help), the rest is ours.
#[must_use]
pub fn store_error(error: sqlx::Error) -> Error {
    if is_connection_trouble(&error) {
        tracing::warn!(error = %error, "postgres does not answer");
        return Error::Unavailable("the database does not answer; try again".into());
    }
    if is_serialization_failure(&error) {
        return Error::Unavailable("the request met another one; try again".into());
    }
    if let sqlx::Error::Database(database) = &error
        && matches!(database.code().as_deref(), Some("22021" | "22P05"))
    {
        // NUL or invalid UTF-8 in text.
        return Error::InvalidArgument("text contains a character that cannot be stored".into());
    }
    Error::internal(error)
}

/// `query.map_err(on_constraint("containers_project_name_key", || Error::Conflict(…)))`
pub fn on_constraint(name: &'static str, then: impl FnOnce() -> Error) -> impl FnOnce(sqlx::Error) -> Error {
    move |error| {
        let violated = error.as_database_error().and_then(|database| database.constraint()) == Some(name);
        if violated { then() } else { store_error(error) }
    }
}

fn is_connection_trouble(error: &sqlx::Error) -> bool {
    use sqlx::Error::{Io, PoolClosed, PoolTimedOut, Tls};
    // 57P01 admin shutdown, 57P02 crash shutdown, 57P03 cannot connect now, 08*: connection, 53*: out of resources.
    let gone =
        |code: &str| matches!(code, "57P01" | "57P02" | "57P03") || code.starts_with("08") || code.starts_with("53");
    matches!(error, Io(_) | PoolTimedOut | PoolClosed | Tls(_))
        || error.as_database_error().and_then(|database| database.code()).is_some_and(|code| gone(&code))
}

fn is_serialization_failure(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(d) if matches!(d.code().as_deref(), Some("40001" | "40P01")))
}
