//! Every limit of the door, reached.

use axum::{body::Body, http::Request};
use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn what_is_too_large_is_refused_with_its_own_status() {
    let world = World::new("too_large").await;
    let project = world.project("large").await;
    let long_query = format!("/info?x={}", "a".repeat(33 * 1024));
    assert_eq!(world.get(&long_query, &project.token).await.status, 414);
    assert_eq!(world.get(&format!("/{}", "a".repeat(9 * 1024)), &project.token).await.status, 414);
    let fat = Request::get("/info").header("x-fat", "a".repeat(49 * 1024)).body(Body::empty()).expect("a request");
    assert_eq!(world.send(fat).await.status, 431);
    let body = json!({ "name": "a".repeat(4 * 1024 * 1024) });
    let reply = world.operate("POST", "/api/v1/tenants", body).await;
    assert_eq!(reply.status, 413);
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
}

#[tokio::test]
async fn a_project_that_asks_too_often_is_slowed_down_and_others_are_not() {
    let world = World::with("rates", "http://127.0.0.1:1", "[rate_limit]\nper_second = 1\nburst = 3\n").await;
    let (busy, calm) = (world.project("busy").await, world.project("calm").await);
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(world.get("/version", &busy.token).await.status);
    }
    assert_eq!(statuses[..3], [200, 200, 200]);
    assert!(statuses[3..].contains(&429), "{statuses:?}");
    let refused = world.get("/version", &busy.token).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(world.get("/version", &calm.token).await.status, 200);
}

/// How many requests are let through before one is refused.
async fn given(world: &World, token: &str) -> usize {
    let mut given = 0;
    while world.get("/version", token).await.status == 200 {
        given += 1;
    }
    given
}

/// A second gateway of the same world.
fn another(world: &World, more: &str) -> api_gateway::Gateway {
    let text = format!(
        "listen = \"127.0.0.1:0\"\nscheduler = \"http://127.0.0.1:1\"\nimage = \"http://127.0.0.1:1\"\n[database]\nurl = \"{}\"\n{more}",
        world.database.gateway
    );
    let (config, _) = chassis::config::parse::<api_gateway::Config>(&text, []).expect("a configuration");
    let ctx = chassis::Ctx::new("api-gateway", &chassis::Common::default());
    api_gateway::Gateway::new(&ctx, config).expect("a second gateway")
}

/// How often a bucket was asked for.
async fn questions_to(redis: &testkit::Redis) -> usize {
    let client = redis::Client::open(redis.url()).expect("a url");
    let mut connection = client.get_multiplexed_async_connection().await.expect("connects");
    let told: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.expect("answers");
    let calls = told.lines().find_map(|line| line.strip_prefix("cmdstat_eval:calls=")).expect("was asked");
    calls.split(',').next().and_then(|calls| calls.parse().ok()).expect("a number")
}

#[tokio::test]
async fn tokens_taken_ahead_save_round_trips_and_add_none() {
    let redis = testkit::Redis::start().expect("a Redis");
    let more = format!("[redis]\nurl = \"{}\"\n[rate_limit]\nper_second = 200\nburst = 200\n", redis.url());
    let one = World::with("rates_ahead", "http://127.0.0.1:1", &more).await;
    let project = one.project("ahead").await;
    let second = api_gateway::router(&another(&one, &more));
    let begun = std::time::Instant::now();
    let mut served = given(&one, &project.token).await;
    let two = World { router: second, ..one };
    served += given(&two, &project.token).await;
    let most = 200.0 + begun.elapsed().as_secs_f64() * 200.0 + 1.0;
    assert!((200.0..=most).contains(&(served as f64)), "{served} requests of a bucket that had at most {most}");
    let trips = questions_to(&redis).await;
    assert!(trips * 5 <= served, "{trips} questions to Redis for {served} requests");
}

#[tokio::test]
async fn the_buckets_are_shared_by_gateways_through_redis_and_survive_its_end() {
    let mut redis = testkit::Redis::start().expect("a Redis");
    let more = format!("[redis]\nurl = \"{}\"\n[rate_limit]\nper_second = 1\nburst = 20\n", redis.url());
    let one = World::with("shared_rates", "http://127.0.0.1:1", &more).await;
    let project = one.project("shared").await;
    let second = another(&one, &more);
    assert!(given(&one, &project.token).await >= 20, "the whole burst");
    let two = World { router: api_gateway::router(&second), ..one };
    let more = given(&two, &project.token).await;
    assert!(more < 10, "the second gateway knows what the first gave, and gave {more}");
    redis.stop();
    let begun = std::time::Instant::now();
    assert_eq!(two.get("/version", &project.token).await.status, 200, "its own bucket is full");
    assert!(begun.elapsed() < std::time::Duration::from_secs(1), "a request waited for a dead Redis");
}
