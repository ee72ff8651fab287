//! What is refused, and what is open to all.

use super::{
    Outcome,
    bench::{Bench, holds, status},
};
use crate::cli::{
    http_client::HttpClient,
    ws_client::{ConnectError, WsClient},
};
use http::{Method, StatusCode};
use serde_json::{Value, json};

pub(super) async fn tokens(bench: &Bench) -> Outcome {
    let good = bench.token(&bench.user("token"));
    let (head, signature) = good.rsplit_once('.').ok_or("a token has three parts")?;
    let flipped: String = signature.chars().rev().collect();
    for token in ["nonsense".to_owned(), format!("{head}.{flipped}"), format!("{head}.")] {
        let http = HttpClient::new(bench.base.clone(), Some(token.clone()));
        status(&http.get("/api/tasks").await?, StatusCode::UNAUTHORIZED, "a wrong token")?;
        match WsClient::connect(&bench.base, "/ws/tasks", Some(&token)).await {
            Err(ConnectError::Refused(StatusCode::UNAUTHORIZED)) => (),
            Err(error) => return Err(format!("WebSocket with a wrong token: {error}")),
            Ok(_) => return Err("a WebSocket took a wrong token".to_owned()),
        }
    }
    let none = HttpClient::new(bench.base.clone(), None);
    let expected = if bench.is_development { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
    status(&none.get("/api/tasks").await?, expected, "GET /api/tasks without a token")
}

pub(super) async fn requests(bench: &Bench) -> Outcome {
    let http = bench.http(&bench.user("errors"));
    let unknown = format!("/api/tasks/{}", bench.id());
    let answer = http.get(&unknown).await?;
    status(&answer, StatusCode::NOT_FOUND, "an unknown task")?;
    let media_type = answer.header("content-type").unwrap_or_default();
    holds(media_type.starts_with("application/problem+json"), || media_type.to_owned())?;
    holds(answer.json()["code"].is_string(), || format!("no code in {}", answer.json()))?;
    let put = json!({"title": "x"});
    let answer = http.request(Method::PUT, &unknown, Some(&put), &[]).await?;
    status(&answer, StatusCode::NOT_FOUND, "PUT never creates")?;
    let wrong: [(&str, Value); 5] = [
        ("without a title", json!({})),
        ("with an empty title", json!({"title": ""})),
        ("with an unknown priority", json!({"title": "x", "priority": "huge"})),
        ("with an unknown field", json!({"title": "x", "colour": "red"})),
        ("with a wrong date", json!({"title": "x", "due_date": "tomorrow"})),
    ];
    for (what, body) in wrong {
        let answer = http.request(Method::POST, "/api/tasks", Some(&body), &[]).await?;
        status(&answer, StatusCode::UNPROCESSABLE_ENTITY, what)?;
    }
    let answer = http.get("/api/tasks?limit=1001").await?;
    status(&answer, StatusCode::BAD_REQUEST, "limit=1001")?;
    status(&http.get("/nowhere").await?, StatusCode::NOT_FOUND, "an unknown path")?;
    let listed = http.get("/api/tasks").await?.json();
    holds(listed == json!([]), || format!("refused requests left {listed}"))
}

pub(super) async fn stats(bench: &Bench) -> Outcome {
    let user = bench.user("stats");
    let socket = bench.socket(&user, "").await?;
    let http = bench.http(&user);
    let answer = http.get("/ws/stats").await?;
    status(&answer, StatusCode::OK, "GET /ws/stats")?;
    let stats = answer.json();
    let open = stats["total_connections"].as_u64().unwrap_or_default();
    holds(open >= 1, || format!("an open socket is not counted in {stats}"))?;
    holds(stats["user_connections"].is_u64(), || format!("no user_connections in {stats}"))?;
    let answer = http.get("/metrics").await?;
    status(&answer, StatusCode::OK, "GET /metrics")?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    holds(text.contains("taskwire_apply_records_total"), || "no apply counter".to_owned())?;
    holds(text.ends_with("# EOF\n"), || "the metrics have no end mark".to_owned())?;
    socket.close().await;
    Ok(())
}
