//! Flows over WebSocket.

use super::{
    Outcome,
    bench::{Bench, field, holds, message, messages_to_pong},
};
use http::Method;
use serde_json::{Value, json};

pub(super) async fn push(bench: &Bench) -> Outcome {
    let user = bench.user("push");
    let http = bench.http(&user);
    let mut socket = bench.socket(&user, "").await?;
    // The pong shows that the session is there: changes from now on must come.
    messages_to_pong(&mut socket).await?;

    let id = bench.id();
    bench.send("task_created", json!({"id": id, "title": "live", "user_id": user})).await?;
    let created = message(&mut socket).await?;
    field(&created, "type", "task_created")?;
    field(&created["data"], "id", id.as_str())?;
    field(&created["data"], "title", "live")?;
    holds(created["pos"].is_string(), || format!("no pos in {created}"))?;

    let path = format!("/api/tasks/{id}");
    http.request(Method::POST, &format!("{path}/complete"), None, &[]).await?;
    field(&message(&mut socket).await?, "type", "task_completed")?;
    http.request(Method::DELETE, &path, None, &[]).await?;
    field(&message(&mut socket).await?, "type", "task_deleted")?;
    bench.send("meeting_started", json!({"user_id": user, "room": "12"})).await?;
    let passed_on = message(&mut socket).await?;
    field(&passed_on, "type", "meeting_started")?;
    field(&passed_on["data"], "room", "12")?;
    socket.close().await;
    Ok(())
}

pub(super) async fn resume(bench: &Bench) -> Outcome {
    let user = bench.user("resume");
    let http = bench.http(&user);
    let mut socket = bench.socket(&user, "").await?;
    messages_to_pong(&mut socket).await?;
    bench.created_by_rest(&http, "seen").await?;
    let seen = message(&mut socket).await?;
    let position = seen["pos"].as_str().ok_or_else(|| format!("no pos in {seen}"))?.to_owned();
    socket.close().await;

    for title in ["missed 1", "missed 2", "missed 3"] {
        bench.created_by_rest(&http, title).await?;
    }
    let mut socket = bench.socket(&user, &format!("?from={position}")).await?;
    let mut titles = Vec::new();
    for _ in 0..3 {
        titles.push(message(&mut socket).await?["data"]["title"].clone());
    }
    let expected = json!(["missed 1", "missed 2", "missed 3"]);
    holds(json!(titles) == expected, || format!("resumed with {titles:?}"))?;
    bench.created_by_rest(&http, "live again").await?;
    field(&message(&mut socket).await?["data"], "title", "live again")?;
    socket.close().await;

    let mut socket = bench.socket(&user, "?from=earliest").await?;
    for title in ["seen", "missed 1", "missed 2", "missed 3", "live again"] {
        field(&message(&mut socket).await?["data"], "title", title)?;
    }
    socket.close().await;
    Ok(())
}

pub(super) async fn isolation(bench: &Bench) -> Outcome {
    let (user, other) = (bench.user("listens"), bench.user("works"));
    let mut socket = bench.socket(&user, "").await?;
    messages_to_pong(&mut socket).await?;
    bench.created_by_rest(&bench.http(&other), "not yours").await?;
    bench.created_by_rest(&bench.http(&user), "yours").await?;
    // Changes come in the store's order: what is not before "yours" does not come.
    let first = message(&mut socket).await?;
    field(&first["data"], "title", "yours")?;
    let rest: Vec<Value> = messages_to_pong(&mut socket).await?;
    holds(rest.is_empty(), || format!("heard {rest:?}"))?;
    socket.close().await;
    Ok(())
}
