//! Uploads (spec: "Pushing blobs").

use contract::registry::UPLOADS;
use futures::StreamExt as _;
use reqwest::Method;

use super::{Repo, header, refusal};
use crate::{
    image::{bytes, sha256},
    stage::Stage,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_is_pushed_in_one_request_in_two_or_in_pieces() {
    let stage = Stage::set(&[], "").await;
    let mut repo = Repo::fresh(&stage, stage.project("a").await, "team/app");
    // One: POST with the digest.
    let one = bytes("one", 1000);
    let post = repo.call(Method::POST, UPLOADS, |query| query.digest = Some(sha256(&one)));
    let done = post.body(one.clone()).send().await.expect("an answer");
    assert_eq!((done.status().as_u16(), header(&done, "docker-content-digest")), (201, sha256(&one).as_str()));
    assert_eq!(header(&done, "location"), format!("/v2/acme/web/team/app/blobs/{}", sha256(&one)));
    repo.find().await;
    // Two: POST, then PUT with everything.
    let two = bytes("two", 70_000);
    let begun = repo.begin().await;
    assert!(header(&begun, "location").starts_with("/v2/acme/web/team/app/blobs/uploads/"));
    let done = repo.put(&begun, &sha256(&two)).body(two.clone()).send().await.expect("an answer");
    assert_eq!(done.status(), 201);
    // Pieces, each in order, the last with the PUT.
    let pieces = bytes("pieces", 30_000);
    let begun = repo.begin().await;
    let first = repo.upload(Method::PATCH, &begun).header("content-range", "0-9999").body(pieces[..10_000].to_vec());
    let first = first.send().await.expect("an answer");
    assert_eq!((first.status().as_u16(), header(&first, "range")), (202, "0-9999"));
    let second = repo.upload(Method::PATCH, &first).header("content-range", "10000-19999");
    let second = second.body(pieces[10_000..20_000].to_vec()).send().await.expect("an answer");
    assert_eq!((second.status().as_u16(), header(&second, "range")), (202, "0-19999"));
    let last = repo.put(&second, &sha256(&pieces)).header("content-range", "20000-29999");
    assert_eq!(last.body(pieces[20_000..].to_vec()).send().await.expect("an answer").status(), 201);
    for blob in [&one, &two, &pieces] {
        let read = repo.blob(Method::GET, &sha256(blob)).send().await.expect("an answer");
        assert_eq!(read.bytes().await.expect("bytes"), blob.as_slice());
    }
    assert_eq!(stage.files().await.len(), 3);
    let left = std::fs::read_dir(stage.data_dir.join("uploads")).expect("the directory").count();
    assert_eq!(left, 0, "an upload left its file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_may_be_named_by_its_sha512() {
    let stage = Stage::set(&[], "").await;
    let repo = Repo::made(&stage, stage.project("a").await, "app").await;
    let content = bytes("long", 5000);
    let digest = format!("sha512:{}", hex::encode(ring::digest::digest(&ring::digest::SHA512, &content)));
    let begun = repo.begin().await;
    assert_eq!(repo.put(&begun, &digest).body(content.clone()).send().await.expect("an answer").status(), 201);
    let read = repo.blob(Method::GET, &digest).send().await.expect("an answer");
    assert_eq!(header(&read, "docker-content-digest"), digest);
    assert_eq!(read.bytes().await.expect("bytes"), content);
    let by_the_other = repo.blob(Method::GET, &sha256(&content)).send().await.expect("an answer");
    assert_eq!(refusal(by_the_other).await, (404, "BLOB_UNKNOWN".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_piece_out_of_order_is_416_and_the_upload_tells_where_it_goes_on() {
    let stage = Stage::set(&[], "").await;
    let repo = Repo::made(&stage, stage.project("a").await, "app").await;
    let content = bytes("x", 300);
    let begun = repo.begin().await;
    let patch = |range: &str, part: &[u8]| {
        repo.upload(Method::PATCH, &begun).header("content-range", range).body(part.to_vec()).send()
    };
    let early = patch("100-199", &content[100..200]).await.expect("an answer");
    assert_eq!((early.status().as_u16(), header(&early, "range")), (416, "0-0"));
    assert_eq!(refusal(early).await, (416, "RANGE_INVALID".into()));
    assert_eq!(patch("0-99", &content[..100]).await.expect("an answer").status(), 202);
    assert_eq!(patch("0-99", &content[..100]).await.expect("an answer").status(), 416, "the same piece twice");
    let wrong = patch("100-150", &content[100..200]).await.expect("an answer");
    assert_eq!(refusal(wrong).await, (400, "BLOB_UPLOAD_INVALID".into()), "not as long as it says");
    let status = repo.upload(Method::GET, &begun).send().await.expect("an answer");
    assert_eq!((status.status().as_u16(), header(&status, "range")), (204, "0-99"));
    assert_eq!(patch("100-299", &content[100..]).await.expect("an answer").status(), 202);
    assert_eq!(repo.put(&begun, &sha256(&content)).send().await.expect("an answer").status(), 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_breaks_off_goes_on_where_it_is() {
    let stage = Stage::set(&[], "").await;
    let repo = Repo::made(&stage, stage.project("a").await, "app").await;
    let content = bytes("cut", 64 * 1024);
    // Every cut is at another byte; what the client believes is never asked.
    for cut in (2..content.len()).step_by(5_003) {
        let begun = repo.begin().await;
        let part = content[..cut].to_vec();
        // The cable is pulled when the part is under way.
        let cable = async {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            Err(std::io::Error::other("cable"))
        };
        let broken = futures::stream::iter([Ok(bytes::Bytes::from(part))]).chain(futures::stream::once(cable));
        let sent = repo.upload(Method::PATCH, &begun).body(reqwest::Body::wrap_stream(broken)).send().await;
        assert!(sent.is_err(), "the client broke off");
        let mut there = 0;
        for _ in 0..200 {
            let status = repo.upload(Method::GET, &begun).send().await.expect("an answer");
            there = header(&status, "range")[2..].parse::<usize>().expect("a number");
            if there > 0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let from = if there == 0 { 0 } else { there + 1 };
        assert!(from <= cut, "{from} of {cut}");
        let rest = repo.put(&begun, &sha256(&content));
        let rest = rest.header("content-range", format!("{from}-{}", content.len() - 1));
        let done = rest.body(content[from..].to_vec()).send().await.expect("an answer");
        // The old request may have noted more in between; then the client is told to look again.
        if done.status() == 416 {
            let from = header(&done, "range")[2..].parse::<usize>().expect("a number") + 1;
            let rest = repo.put(&begun, &sha256(&content)).body(content[from..].to_vec());
            assert_eq!(rest.send().await.expect("an answer").status(), 201, "cut at {cut}");
        } else {
            assert_eq!(done.status(), 201, "cut at {cut}");
        }
    }
    let read = repo.blob(Method::GET, &sha256(&content)).send().await.expect("an answer");
    assert_eq!(sha256(&read.bytes().await.expect("bytes")), sha256(&content));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_is_not_what_its_digest_says_leaves_nothing() {
    let stage = Stage::set(&[], "").await;
    let repo = Repo::made(&stage, stage.project("a").await, "app").await;
    let begun = repo.begin().await;
    let wrong = repo.put(&begun, &sha256(b"another")).body("this").send().await.expect("an answer");
    assert_eq!(refusal(wrong).await, (400, "DIGEST_INVALID".into()));
    let again = repo.put(&begun, &sha256(b"this")).body("this").send().await.expect("an answer");
    assert_eq!(refusal(again).await, (404, "BLOB_UPLOAD_UNKNOWN".into()));
    for digest in [sha256(b"another"), sha256(b"this")] {
        let head = repo.blob(Method::HEAD, &digest).send().await.expect("an answer");
        assert_eq!(head.status(), 404);
    }
    let begun = repo.begin().await;
    for bad in ["", "sha256:12", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        let answer = repo.put(&begun, bad).body("x").send().await.expect("an answer");
        assert_eq!(refusal(answer).await, (400, "DIGEST_INVALID".into()), "{bad}");
    }
    let without = repo.upload(Method::PUT, &begun).body("x").send().await.expect("an answer");
    assert_eq!(refusal(without).await, (400, "DIGEST_INVALID".into()));
    assert!(stage.files().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_upload_is_unknown_and_so_is_another_repositorys() {
    let stage = Stage::set(&[], "").await;
    let (mine, theirs) = (stage.project("mine").await, stage.project("theirs").await);
    let repo = Repo::made(&stage, mine, "app").await;
    let (other, foreign) = (Repo::made(&stage, mine, "other").await, Repo::made(&stage, theirs, "app").await);
    let begun = repo.begin().await;
    for stranger in [&other, &foreign] {
        for method in [Method::GET, Method::PATCH, Method::DELETE] {
            let answer = stranger.upload(method, &begun).send().await.expect("an answer");
            assert_eq!(refusal(answer).await, (404, "BLOB_UPLOAD_UNKNOWN".into()));
        }
        let put = stranger.put(&begun, &sha256(b"")).send().await.expect("an answer");
        assert_eq!(refusal(put).await, (404, "BLOB_UPLOAD_UNKNOWN".into()));
    }
    assert_eq!(repo.upload(Method::DELETE, &begun).send().await.expect("an answer").status(), 204);
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        let answer = repo.upload(method, &begun).send().await.expect("an answer");
        assert_eq!(refusal(answer).await, (404, "BLOB_UPLOAD_UNKNOWN".into()));
    }
    for id in ["x", "..%2F..%2Flock", "00000000-0000-0000-0000-000000000000"] {
        let answer = repo.call(Method::GET, &format!("{UPLOADS}/{id}"), |_| {}).send().await.expect("an answer");
        assert_eq!(refusal(answer).await, (404, "BLOB_UPLOAD_UNKNOWN".into()), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_survives_a_restart_of_what_holds_it_up_to_what_was_noted() {
    let stage = Stage::set(&[], "").await;
    let repo = Repo::made(&stage, stage.project("a").await, "app").await;
    let content = bytes("restart", 10_000);
    let begun = repo.begin().await;
    let patch = repo.upload(Method::PATCH, &begun).body(content[..6_000].to_vec());
    assert_eq!(patch.send().await.expect("an answer").status(), 202);
    // What a crash leaves: bytes behind the note that nobody vouches for.
    let id = header(&begun, "location").rsplit('/').next().expect("an id").to_owned();
    let file = stage.data_dir.join("uploads").join(&id);
    let mut torn = std::fs::read(&file).expect("the file");
    torn.extend_from_slice(&[0xff; 777]);
    std::fs::write(&file, torn).expect("written");
    let rest = repo.put(&begun, &sha256(&content)).header("content-range", "6000-9999").body(content[6_000..].to_vec());
    assert_eq!(rest.send().await.expect("an answer").status(), 201);
    // A file that is gone, or shorter than the note, ends the upload.
    let begun = repo.begin().await;
    let patch = repo.upload(Method::PATCH, &begun).body(content[..6_000].to_vec());
    assert_eq!(patch.send().await.expect("an answer").status(), 202);
    let id = header(&begun, "location").rsplit('/').next().expect("an id").to_owned();
    std::fs::write(stage.data_dir.join("uploads").join(&id), b"short").expect("written");
    let rest = repo.put(&begun, &sha256(&content)).body(content[6_000..].to_vec()).send().await.expect("an answer");
    assert_eq!(refusal(rest).await, (404, "BLOB_UPLOAD_UNKNOWN".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_has_so_many_uploads_open_and_no_more() {
    let stage = Stage::set(&[], "").await;
    let project = stage.project("a").await;
    let repo = Repo::made(&stage, project, "app").await;
    sqlx::query(
        "INSERT INTO repository_uploads (id, repository_id, project_id)
         SELECT gen_random_uuid(), id, project_id FROM repositories, generate_series(1, $1)",
    )
    .bind(i32::try_from(store::UPLOADS_PER_PROJECT).expect("small") - 1)
    .execute(&stage.owner)
    .await
    .expect("rows");
    let one_more = repo.post().send().await.expect("an answer");
    assert_eq!(refusal(one_more).await, (429, "TOOMANYREQUESTS".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_is_mounted_from_where_the_caller_may_read_it_and_uploaded_otherwise() {
    let stage = Stage::set(&[], "").await;
    let (mine, theirs) = (stage.project("mine").await, stage.project("theirs").await);
    let (source, target) = (Repo::made(&stage, mine, "source").await, Repo::made(&stage, mine, "target").await);
    let foreign = Repo::made(&stage, theirs, "app").await;
    let (shared, secret) = (bytes("shared", 100), bytes("secret", 100));
    source.push_blob(&shared).await;
    foreign.push_blob(&secret).await;
    let mount = |digest: String, from: Option<&Repo<'_>>, anywhere: bool| {
        let from = from.map(|repo| (repo.query.project, repo.query.repository));
        target.call(Method::POST, UPLOADS, |query| {
            query.mount = Some(digest);
            query.from_anywhere = anywhere;
            (query.from_project, query.from_repository) = from.unwrap_or_default();
        })
    };
    for (digest, from, anywhere) in [
        (sha256(&shared), Some(&foreign), false),
        (sha256(&secret), Some(&source), false),
        (sha256(&secret), None, true),
        (sha256(&secret), None, false),
        (sha256(b"nobody has it"), Some(&source), false),
    ] {
        let answer = mount(digest.clone(), from, anywhere).send().await.expect("an answer");
        assert_eq!(answer.status(), 202, "an upload begins");
        assert!(header(&answer, "location").contains("/blobs/uploads/"));
        assert_eq!(target.blob(Method::HEAD, &digest).send().await.expect("an answer").status(), 404);
    }
    let mounted = mount(sha256(&shared), Some(&source), false).send().await.expect("an answer");
    assert_eq!((mounted.status().as_u16(), header(&mounted, "docker-content-digest")), (201, sha256(&shared).as_str()));
    assert_eq!(header(&mounted, "location"), format!("/v2/acme/web/target/blobs/{}", sha256(&shared)));
    assert_eq!(target.blob(Method::HEAD, &sha256(&shared)).send().await.expect("an answer").status(), 200);
    let third = Repo::made(&stage, mine, "third").await;
    let anywhere = third.call(Method::POST, UPLOADS, |query| {
        query.mount = Some(sha256(&shared));
        query.from_anywhere = true;
    });
    assert_eq!(anywhere.send().await.expect("an answer").status(), 201, "no source named: the project's own");
}
