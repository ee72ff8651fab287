//! Flows that begin at the Kafka port.

use super::{
    Outcome,
    bench::{Bench, eventually, field, holds},
};
use http::StatusCode;
use serde_json::{Value, json};

pub(super) async fn create(bench: &Bench) -> Outcome {
    let (user, id) = (bench.user("create"), bench.id());
    let data = json!({
        "id": id, "title": "From Kafka", "description": "d", "user_id": user, "priority": "high",
        "due_date": "2030-01-31T12:00:00Z",
    });
    bench.send("task_created", data).await?;
    let http = bench.http(&user);
    let task = bench.task_when(&http, &id, "the task of the event", |_| true).await?;
    field(&task, "title", "From Kafka")?;
    field(&task, "user_id", user.as_str())?;
    field(&task, "priority", "high")?;
    field(&task, "completed", false)?;
    field(&task, "version", 1)?;
    let listed = http.get("/api/tasks").await?.json();
    holds(listed.as_array().is_some_and(|tasks| tasks.len() == 1), || {
        format!("one task was expected in the list, came {listed}")
    })
}

pub(super) async fn lifecycle(bench: &Bench) -> Outcome {
    let (user, id) = (bench.user("events"), bench.id());
    let http = bench.http(&user);
    bench.send("task_created", json!({"id": id, "title": "one", "user_id": user})).await?;
    bench.send("task_updated", json!({"id": id, "title": "two"})).await?;
    bench.send("task_priority_changed", json!({"id": id, "priority": "urgent"})).await?;
    bench.send("task_completed", json!({"id": id, "title": "two", "completed": true})).await?;
    let is_done = |task: &Value| task["completed"] == true;
    let task = bench.task_when(&http, &id, "the completion", is_done).await?;
    field(&task, "title", "two")?;
    field(&task, "priority", "urgent")?;
    field(&task, "version", 4)?;
    holds(task["completed_at"].is_string(), || format!("no completed_at in {task}"))?;
    bench.send("task_deleted", json!({"id": id})).await?;
    let path = format!("/api/tasks/{id}");
    eventually("404 after task_deleted", || async {
        http.get(&path).await.ok().filter(|answer| answer.status == StatusCode::NOT_FOUND)
    })
    .await
    .map(drop)
}

pub(super) async fn cloud_events(bench: &Bench) -> Outcome {
    let (user, structured, binary) = (bench.user("cloud"), bench.id(), bench.id());
    let http = bench.http(&user);
    let document = json!({
        "specversion": "1.0", "id": bench.id(), "source": "/selftest", "type": "task_created",
        "data": {"id": structured, "title": "structured", "user_id": user},
    });
    let media_type = [("content-type", "application/cloudevents+json")];
    bench.produce(&structured, document.to_string().as_bytes(), &media_type).await?;
    let data = json!({"id": binary, "title": "binary", "user_id": user}).to_string();
    let event_id = bench.id();
    let attributes = [
        ("ce_specversion", "1.0"),
        ("ce_id", event_id.as_str()),
        ("ce_source", "/selftest"),
        ("ce_type", "task_created"),
        ("content-type", "application/json"),
    ];
    bench.produce(&binary, data.as_bytes(), &attributes).await?;
    for (id, title) in [(structured, "structured"), (binary, "binary")] {
        let task = bench.task_when(&http, &id, title, |_| true).await?;
        field(&task, "title", title)?;
    }
    Ok(())
}

pub(super) async fn duplicates(bench: &Bench) -> Outcome {
    let (user, id, event_id, last) = (bench.user("twice"), bench.id(), bench.id(), bench.id());
    let http = bench.http(&user);
    bench.send("task_created", json!({"id": id, "title": "once", "user_id": user})).await?;
    bench.send("task_created", json!({"id": id, "title": "once", "user_id": user})).await?;
    let rename = json!({
        "type": "task_updated", "event_id": event_id, "data": {"id": id, "title": "renamed"},
    });
    let back = json!({"type": "task_updated", "data": {"id": id, "title": "once more"}});
    // The second copy comes late, so that applying it again would show.
    for event in [&rename, &back, &rename] {
        bench.produce(&id, event.to_string().as_bytes(), &[]).await?;
    }
    bench.send("task_created", json!({"id": last, "title": "last", "user_id": user})).await?;
    bench.task_when(&http, &last, "the event after the copies", |_| true).await?;
    let task = bench.task(&http, &id).await?;
    field(&task, "title", "once more")?;
    field(&task, "version", 3)
}

pub(super) async fn bad(bench: &Bench) -> Outcome {
    let (user, id) = (bench.user("bad"), bench.id());
    let marker = format!("this is no event {}", bench.id());
    let topic = format!("{}.dlq", bench.topic);
    let end = bench.end(&topic).await?;
    bench.produce(&id, marker.as_bytes(), &[]).await?;
    bench.send("task_created", json!({"id": id, "title": "after", "user_id": user})).await?;
    bench.task_when(&bench.http(&user), &id, "the event after the bad record", |_| true).await?;
    eventually("the bad record in the dead-letter topic", || async {
        let values = bench.values(&topic, end).await.ok()?;
        values.contains(&marker).then_some(())
    })
    .await
}
