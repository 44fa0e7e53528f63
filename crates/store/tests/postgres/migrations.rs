//! The schema as it is brought up to date: numbers that come late, numbers nobody knows, files that changed.

use std::borrow::Cow;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool, Row as _, migrate::Migrator};
use store::{MIGRATIONS, Store};
use testkit::Postgres;

/// An empty database.
async fn empty(name: &str) -> String {
    let postgres = Postgres::shared();
    // The roles of the services are the cluster's, made by whoever is first.
    postgres.migrated_database(&format!("{name}_whole")).await.expect("a database");
    let mut connection = PgConnection::connect(&postgres.url("postgres", "postgres")).await.expect("connected");
    connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.expect("created");
    postgres.url("postgres", name)
}

/// Applies all but these.
async fn apply_without(url: &str, left_out: &[i64]) {
    let migrations = MIGRATIONS.iter().filter(|m| !left_out.contains(&m.version)).cloned().collect();
    let migrator = Migrator { migrations: Cow::Owned(migrations), ..Migrator::DEFAULT };
    let pool = PgPool::connect(url).await.expect("connected");
    migrator.run(&pool).await.expect("applied");
    pool.close().await;
}

/// What the schema consists of, in a stable order.
async fn schema(url: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.expect("connected");
    let parts = "
        SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable
               || ' ' || coalesce(column_default, '') FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
            FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT 'function ' || proname || ' ' || prosrc || coalesce(array_to_string(proacl, ' '), '')
            FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT 'trigger ' || pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT 'policy ' || tablename || ' ' || policyname || ' ' || coalesce(qual, '') FROM pg_policies
        UNION ALL SELECT 'grant ' || table_name || ' ' || grantee || ' ' || privilege_type
            FROM information_schema.role_table_grants WHERE table_schema = 'public'
        ORDER BY 1";
    connection.fetch_all(parts).await.expect("read").iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_number_that_comes_after_later_ones_is_applied_and_leaves_the_same_schema() {
    let url = empty("late_numbers").await;
    // As of a database that was upgraded from branches which were merged in another order.
    apply_without(&url, &[12, 16]).await;
    let before = schema(&url).await;
    assert!(!before.iter().any(|part| part.starts_with("column endpoints.mac")), "0012 is missing");
    Store::migrate(&url).await.expect("brought up to date");
    let whole = schema(&Postgres::shared().url("postgres", "late_numbers_whole")).await;
    assert_eq!(schema(&url).await, whole);
    Store::migrate(&url).await.expect("and again, for nothing");
    let mut connection = PgConnection::connect(&url).await.expect("connected");
    let applied: Vec<i64> = sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success ORDER BY version")
        .fetch_all(&mut connection)
        .await
        .expect("read");
    assert_eq!(applied, MIGRATIONS.iter().map(|m| m.version).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_schema_of_a_later_program_and_a_file_that_was_changed_are_refused_by_number() {
    let url = empty("other_numbers").await;
    Store::migrate(&url).await.expect("applied");
    let mut connection = PgConnection::connect(&url).await.expect("connected");
    connection
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'of tomorrow', true, '', 0)",
        )
        .await
        .expect("written");
    let later = Store::migrate(&url).await.expect_err("refused");
    assert!(format!("{later:?}").contains("9999"), "{later:?}");
    connection
        .execute("DELETE FROM _sqlx_migrations WHERE version = 9999; UPDATE _sqlx_migrations SET checksum = 'x' WHERE version = 12")
        .await
        .expect("written");
    let changed = Store::migrate(&url).await.expect_err("refused");
    assert!(format!("{changed:?}").contains("12"), "{changed:?}");
    connection.execute("UPDATE _sqlx_migrations SET success = false WHERE version = 16").await.expect("written");
    assert!(Store::migrate(&url).await.is_err(), "one that broke off");
}
