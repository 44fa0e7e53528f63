//! Tenancy as Postgres holds it, whatever the code above does.

use model::ContainerSpec;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use testkit::{SeededProject, room_for};

use crate::fresh;

/// Every table that holds something of a project, from the catalogue rather than from memory.
async fn tenant_tables(owner: &mut PgConnection) -> Vec<(String, bool, i64)> {
    sqlx::query(
        "SELECT c.relname::text, c.relrowsecurity,
                (SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid) AS policies
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND (c.relname = 'projects' OR EXISTS (
             SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'project_id' AND NOT a.attisdropped))
         ORDER BY 1",
    )
    .fetch_all(owner)
    .await
    .expect("the catalogue")
    .iter()
    .map(|row| (row.get(0), row.get(1), row.get(2)))
    .collect()
}

#[tokio::test]
async fn every_table_with_a_project_has_row_level_security() {
    let (database, _seed) = fresh("rls_catalogue").await;
    let mut owner = PgConnection::connect(&database.owner).await.expect("connect");
    let tables = tenant_tables(&mut owner).await;
    assert!(tables.len() >= 10, "{tables:?}");
    for (table, enabled, policies) in tables {
        assert!(enabled && policies > 0, "{table} is open: enabled {enabled}, {policies} policies");
    }
}

#[tokio::test]
async fn no_service_role_is_above_row_level_security() {
    let (database, _seed) = fresh("rls_roles").await;
    let mut owner = PgConnection::connect(&database.owner).await.expect("connect");
    let above: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_roles r WHERE rolname LIKE 'wharfage_%' AND (rolsuper OR rolbypassrls OR EXISTS (
             SELECT FROM pg_class c WHERE c.relowner = r.oid))",
    )
    .fetch_one(&mut owner)
    .await
    .expect("the catalogue");
    assert_eq!(above, 0);
}

/// Rows of each tenant table that a role sees within a scope (a list of settings).
async fn seen(url: &str, scope: &str, tables: &[String]) -> Vec<(String, i64)> {
    let mut connection = PgConnection::connect(url).await.expect("connect");
    connection.execute("BEGIN").await.expect("begin");
    connection.execute(AssertSqlSafe(scope.to_owned())).await.expect("scope");
    let mut seen = Vec::new();
    for table in tables {
        connection.execute("SAVEPOINT one").await.expect("savepoint");
        match sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
            .fetch_one(&mut connection)
            .await
        {
            Ok(count) => seen.push((table.clone(), count)),
            // No grant at all: seen even less.
            Err(_) => {
                connection.execute("ROLLBACK TO one").await.expect("rollback");
            }
        }
    }
    seen
}

async fn fill(seed: &testkit::Seed) -> SeededProject {
    let project = seed.project().await.expect("project");
    let container = seed.container(&project, &ContainerSpec::default()).await.expect("container");
    let host = seed.host(&format!("h-{}", project.id), room_for(10)).await.expect("host");
    let statements = [
        "INSERT INTO tokens (id, project_id, kind, secret_sha256) VALUES (gen_random_uuid(), $1::text::uuid, 'bearer', sha256($2::text::bytea))",
        "INSERT INTO image_tags (project_id, repository, tag, image_id) SELECT $1::text::uuid, $2, 'latest', id FROM images WHERE project_id = $1::text::uuid",
        "INSERT INTO image_digests (project_id, repository, digest, image_id) SELECT $1::text::uuid, $2, id, id FROM images WHERE project_id = $1::text::uuid",
        "WITH b AS (INSERT INTO blobs (digest, size_bytes) VALUES ($2, 1) RETURNING digest) INSERT INTO image_layers SELECT $1::text::uuid, i.id, 0, b.digest FROM images i, b WHERE project_id = $1::text::uuid",
        "INSERT INTO repositories (id, project_id, name) VALUES ($1::text::uuid, $1::text::uuid, $2)",
        "INSERT INTO repository_manifests (repository_id, project_id, digest, media_type, content) VALUES ($1::text::uuid, $1::text::uuid, $2, '', '')",
        "INSERT INTO repository_blobs (repository_id, project_id, digest, size_bytes) VALUES ($1::text::uuid, $1::text::uuid, $2, 1)",
        "INSERT INTO repository_manifest_blobs (repository_id, project_id, manifest, digest) VALUES ($1::text::uuid, $1::text::uuid, $2, $2)",
        "INSERT INTO repository_tags (repository_id, project_id, name, digest) VALUES ($1::text::uuid, $1::text::uuid, 'v1', $2)",
        "INSERT INTO repository_uploads (id, repository_id, project_id) SELECT gen_random_uuid(), id, id FROM repositories WHERE id = $1::text::uuid AND name = $2",
        "INSERT INTO execs (id, project_id, container_id, spec) VALUES ($2, $1::text::uuid, $2, '{}')",
        "INSERT INTO events (project_id, sequence, kind, action, actor_id, attributes, at) VALUES ($1::text::uuid, 1, 'container', 'create', $2, '{}', now())",
        "INSERT INTO volumes (id, project_id, name, backing, anonymous) VALUES ($2, $1::text::uuid, 'same', '{\"kind\":\"directory\"}', false)",
        "INSERT INTO container_volumes (container_id, volume_id, project_id) VALUES ($2, $2, $1::text::uuid)",
    ];
    for statement in statements {
        sqlx::query(statement)
            .bind(project.id.to_string())
            .bind(container.as_str())
            .execute(seed.pool())
            .await
            .expect(statement);
    }
    sqlx::query("INSERT INTO published_ports (host_id, protocol, host_port, container_id, project_id, container_port, run) VALUES ($1::text::uuid, 'tcp', 80, $2, $3::text::uuid, 80, 1)")
        .bind(host.to_string())
        .bind(container.as_str())
        .bind(project.id.to_string())
        .execute(seed.pool())
        .await
        .expect("a port");
    project
}

#[tokio::test]
async fn a_project_sees_its_own_rows_and_nobody_sees_any_without_one() {
    let (database, seed) = fresh("rls_rows").await;
    let ours = fill(&seed).await;
    let _theirs = fill(&seed).await;
    let mut owner = PgConnection::connect(&database.owner).await.expect("connect");
    let tables: Vec<String> = tenant_tables(&mut owner).await.into_iter().map(|(table, _, _)| table).collect();
    for url in [&database.gateway, &database.image] {
        for (table, rows) in seen(url, "SELECT 1", &tables).await {
            assert_eq!(rows, 0, "{table} without a project by {url}");
        }
        let stranger = "SELECT set_config('wharfage.project', '01900000-0000-7000-8000-ffffffffffff', true)";
        for (table, rows) in seen(url, stranger, &tables).await {
            assert_eq!(rows, 0, "{table} as a stranger by {url}");
        }
        let scope = format!("SELECT set_config('wharfage.project', '{}', true)", ours.id);
        let own = seen(url, &scope, &tables).await;
        assert!(own.len() >= 6, "{own:?}");
        for (table, rows) in own {
            assert!(rows <= 1, "{rows} rows of {table} by {url}: another project's too");
            assert!(rows == 1 || url == &database.image, "{table} hides a project's own row from {url}");
        }
    }
}

#[tokio::test]
async fn nobody_writes_into_another_project() {
    let (database, seed) = fresh("rls_writes").await;
    let (ours, theirs) = (fill(&seed).await, fill(&seed).await);
    let mut gateway = PgConnection::connect(&database.gateway).await.expect("connect");
    let scope = format!("SELECT set_config('wharfage.project', '{}', false)", ours.id);
    gateway.execute(AssertSqlSafe(scope)).await.expect("scope");
    let stolen = sqlx::query("UPDATE containers SET name = 'stolen' WHERE project_id = $1::text::uuid")
        .bind(theirs.id.to_string())
        .execute(&mut gateway)
        .await
        .expect("matches nothing");
    assert_eq!(stolen.rows_affected(), 0);
    let planted = sqlx::query("INSERT INTO events (project_id, sequence, kind, action, actor_id, attributes, at) VALUES ($1::text::uuid, 99, 'container', 'x', 'x', '{}', now())")
        .bind(theirs.id.to_string())
        .execute(&mut gateway)
        .await;
    assert!(planted.is_err(), "an event in another project's history");
}

#[tokio::test]
async fn the_scheduler_cannot_touch_what_tenants_want() {
    let (database, seed) = fresh("rls_scheduler").await;
    let _project = fill(&seed).await;
    let mut scheduler = PgConnection::connect(&database.scheduler).await.expect("connect");
    for statement in
        ["SELECT * FROM tokens", "DELETE FROM images", "UPDATE networks SET name = 'x'", "DELETE FROM projects"]
    {
        assert!(scheduler.execute(statement).await.is_err(), "{statement} was allowed");
    }
}
