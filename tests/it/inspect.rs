//! What administrators see of the log, its groups and the open sessions.

use crate::support::{
    SECRET, TestDaemon, created, eventually, forge::Signer, http::User, socket::Socket,
};
use serde_json::{Value, json};

fn admin(daemon: &TestDaemon) -> User {
    let signer = Signer::hmac(SECRET.as_bytes());
    let claims = json!({"sub": "root", "exp": 4_102_444_800_u64, "taskwire_admin": true});
    daemon.with_token(Some(&signer.token(&signer.header(), &claims)))
}

async fn records(admin: &User, query: &str) -> Value {
    admin.get(&format!("/api/admin/topics/task-events/records?{query}")).await.json()
}

fn offsets(page: &Value) -> Vec<i64> {
    let records = page["records"].as_array().expect("records");
    records.iter().map(|record| record["offset"].as_i64().expect("an offset")).collect()
}

#[tokio::test]
async fn records_are_read_from_an_offset_a_time_and_by_their_text() {
    let daemon = TestDaemon::start().await;
    let events: Vec<Value> =
        (0..10).map(|n| created(&format!("t-{n}"), "ada", &format!("title {n}"))).collect();
    daemon.produce(&events).await;
    let admin = admin(&daemon);
    assert_eq!(offsets(&records(&admin, "limit=3").await), [7, 8, 9], "the last ones");
    let page = records(&admin, "from=2&limit=2").await;
    assert_eq!((offsets(&page), &page["next"]), (vec![2, 3], &json!(4)));
    assert_eq!(offsets(&records(&admin, "from=earliest&contains=title%207").await), [7]);
    assert!(offsets(&records(&admin, "from=latest").await).is_empty());
    let third = &records(&admin, "from=3&limit=1").await["records"][0];
    let time = third["timestamp"].as_str().expect("a time");
    let of_time = offsets(&records(&admin, &format!("time={time}&limit=10")).await);
    assert!(of_time.contains(&3), "{of_time:?}");
    assert!(offsets(&records(&admin, "time=2100-01-01T00:00:00Z").await).is_empty());
    let cut = &records(&admin, "from=0&limit=1&bytes=4").await["records"][0];
    assert_eq!(cut["value"].as_str().map(str::len), Some(4));
    let whole = cut["value_bytes"].as_u64().expect("a length");
    assert_eq!(third["value"].as_str().map(str::len), usize::try_from(whole).ok());
    let longest = "x".repeat(512);
    for (query, status) in [
        (&*format!("contains={longest}"), 200),
        (&*format!("contains={longest}x"), 400),
        ("partition=1", 400),
        ("partition=-1", 400),
        ("from=-1", 400),
        ("from=x", 400),
        ("time=x", 400),
        ("limit=1001", 400),
        ("bytes=4194305", 400),
        ("what=x", 400),
        ("from=9223372036854775807", 200),
    ] {
        let path = format!("/api/admin/topics/task-events/records?{query}");
        assert_eq!(admin.get(&path).await.status, status, "{query}");
    }
    assert_eq!(admin.get("/api/admin/topics/none/records").await.status, 404);
    let topics = admin.get("/api/admin/topics").await.json();
    assert_eq!(topics.as_array().map(Vec::len), Some(2), "a look creates no topic");
}

#[tokio::test]
async fn a_record_that_an_administrator_produces_is_one_as_any_other() {
    let daemon = TestDaemon::start().await;
    let admin = admin(&daemon);
    let path = "/api/admin/topics/task-events/records";
    let value = created("made", "ada", "by hand").to_string();
    let record = json!({"key": "made", "value": value, "headers": [["source", "a person"]]});
    let made = admin.post(path, &record).await;
    assert_eq!((made.status, &made.json()["offset"]), (201, &json!(0)));
    assert_eq!(daemon.user("ada").task("made").await["title"], "by hand");
    let shown = &records(&admin, "").await["records"][0];
    assert_eq!(
        (&shown["key"], &shown["headers"][0]["value"]),
        (&json!("made"), &json!("a person"))
    );
    for (record, status) in [
        (json!({"value": "x", "partition": 1}), 422),
        (json!({"value": "x", "partition": -1}), 422),
        (json!({"value": 1}), 422),
        (json!({"what": "x"}), 422),
        (json!([]), 422),
    ] {
        assert_eq!(admin.post(path, &record).await.status, status, "{record}");
    }
    let letters = "/api/admin/topics/task-events.dlq/records";
    assert_eq!(admin.post(letters, &json!({"value": "x"})).await.status, 403);
    assert_eq!(admin.post("/api/admin/topics/none/records", &json!({})).await.status, 404);
    assert_eq!(records(&admin, "").await["log_end"], 1);
}

#[tokio::test]
async fn groups_are_shown_with_their_lag() {
    let daemon = TestDaemon::start().await;
    daemon.produce(&[created("t-1", "ada", "one")]).await;
    daemon.user("ada").task("t-1").await;
    let groups = admin(&daemon).get("/api/admin/groups").await.json();
    let own = &groups["groups"][0];
    assert_eq!((&own["group"], &own["lag"]), (&json!("taskwire"), &json!(0)));
    assert_eq!(own["offsets"][0]["offset"], 1);
    assert_eq!(own["members"][0]["assigned"], json!(["task-events-0"]));
}

#[tokio::test]
async fn open_sessions_are_listed_while_they_live_and_can_be_closed() {
    let daemon = TestDaemon::start().await;
    let admin = admin(&daemon);
    let query = format!("token={}", daemon.token("ada"));
    let mut socket = Socket::open_v1(daemon.http, &query).await.expect("a socket");
    let hello = socket.next().await;
    let list = async || admin.get("/api/admin/connections").await.json();
    let listed = list().await;
    let row = &listed["connections"][0];
    assert_eq!((&listed["total"], &row["user_id"]), (&json!(1), &json!("ada")));
    assert_eq!((&row["id"], &row["transport"]), (&hello["data"]["session"], &json!("websocket")));
    daemon.produce(&[created("t-1", "ada", "one")]).await;
    eventually("the session has come up to the present", async || {
        let listed = list().await;
        let row = &listed["connections"][0];
        (row["lag"] == 0 && row["position"] != hello["pos"]).then_some(())
    })
    .await;
    let overview = admin.get("/api/admin/overview").await.json();
    let buckets = overview["delivery_seconds"]["buckets"].as_array().expect("buckets").clone();
    assert_eq!(buckets.iter().filter_map(|bucket| bucket[1].as_u64()).sum::<u64>(), 1);
    let close = |id: &Value| format!("/api/admin/connections/{}/close", id.as_str().unwrap_or(""));
    assert_eq!(admin.post(&close(&row["id"]), &json!({})).await.status, 200);
    while socket.try_next().await.is_some() {}
    eventually("it is gone", async || (list().await["total"] == 0).then_some(())).await;
    assert_eq!(admin.post(&close(&row["id"]), &json!({})).await.status, 404);
    assert_eq!(admin.post(&close(&json!("x")), &json!({})).await.status, 404);
}
