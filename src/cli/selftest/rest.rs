//! Flows over REST.

use super::{
    Outcome,
    bench::{Bench, field, holds, status},
};
use http::{Method, StatusCode};
use serde_json::{Value, json};

pub(super) async fn create(bench: &Bench) -> Outcome {
    let http = bench.http(&bench.user("rest"));
    let body = json!({
        "title": "By REST", "description": "\u{fc}ber", "priority": "urgent", "labels": ["a", "b"],
        "due_date": "2030-06-01T08:00:00Z",
    });
    let answer = http.request(Method::POST, "/api/tasks", Some(&body), &[]).await?;
    status(&answer, StatusCode::CREATED, "POST /api/tasks")?;
    let created = answer.json();
    let location = answer.header("location").unwrap_or_default().to_owned();
    let id = created["id"].as_str().unwrap_or_default();
    holds(location.ends_with(&format!("/api/tasks/{id}")), || format!("Location: {location}"))?;
    for name in ["title", "description", "priority", "labels"] {
        field(&created, name, body[name].clone())?;
    }
    let read = bench.task(&http, id).await?;
    holds(read == created, || format!("created {created}, read {read}"))?;
    let listed = http.get("/api/tasks?priority=urgent&q=by%20rest").await?.json();
    holds(listed == json!([created]), || format!("listed {listed}"))
}

pub(super) async fn lifecycle(bench: &Bench) -> Outcome {
    let http = bench.http(&bench.user("rest-life"));
    let id = bench.created_by_rest(&http, "one").await?;
    let path = format!("/api/tasks/{id}");
    let patch = json!({"title": "two"});
    let answer = http.request(Method::PATCH, &path, Some(&patch), &[]).await?;
    status(&answer, StatusCode::OK, "PATCH")?;
    field(&answer.json(), "title", "two")?;
    field(&answer.json(), "version", 2)?;
    let put = json!({"title": "three", "priority": "low"});
    let answer = http.request(Method::PUT, &path, Some(&put), &[]).await?;
    status(&answer, StatusCode::OK, "PUT")?;
    field(&answer.json(), "title", "three")?;
    let complete = format!("{path}/complete");
    let first = http.request(Method::POST, &complete, None, &[]).await?;
    status(&first, StatusCode::OK, "POST complete")?;
    field(&first.json(), "completed", true)?;
    let again = http.request(Method::PATCH, &complete, None, &[]).await?;
    status(&again, StatusCode::OK, "PATCH complete again")?;
    holds(again.json() == first.json(), || "completing again changed the task".to_owned())?;
    let answer = http.request(Method::DELETE, &path, None, &[]).await?;
    status(&answer, StatusCode::NO_CONTENT, "DELETE")?;
    let answer = http.request(Method::DELETE, &path, None, &[]).await?;
    status(&answer, StatusCode::NOT_FOUND, "DELETE again")?;
    status(&http.get(&path).await?, StatusCode::NOT_FOUND, "GET after DELETE")
}

pub(super) async fn if_match(bench: &Bench) -> Outcome {
    let http = bench.http(&bench.user("if-match"));
    let id = bench.created_by_rest(&http, "one").await?;
    let path = format!("/api/tasks/{id}");
    let etag = http.get(&path).await?.header("etag").unwrap_or_default().to_owned();
    let with = [("if-match", etag.as_str())];
    let (two, three) = (json!({"title": "two"}), json!({"title": "three"}));
    let answer = http.request(Method::PATCH, &path, Some(&two), &with).await?;
    status(&answer, StatusCode::OK, "PATCH with the ETag")?;
    let answer = http.request(Method::PATCH, &path, Some(&three), &with).await?;
    status(&answer, StatusCode::PRECONDITION_FAILED, "PATCH with the old ETag")?;
    field(&bench.task(&http, &id).await?, "title", "two")
}

pub(super) async fn pages(bench: &Bench) -> Outcome {
    let http = bench.http(&bench.user("pages"));
    for title in ["a", "b", "c", "d", "e"] {
        bench.created_by_rest(&http, title).await?;
    }
    let mut next = Some("/api/tasks?limit=2".to_owned());
    let mut titles = Vec::new();
    while let Some(path) = next {
        let answer = http.get(&path).await?;
        status(&answer, StatusCode::OK, &path)?;
        let page = answer.json();
        let tasks = page.as_array().cloned().unwrap_or_default();
        holds(tasks.len() <= 2, || format!("{} tasks in a page of 2", tasks.len()))?;
        titles.extend(tasks.iter().map(|task| task["title"].clone()));
        next = answer.header("link").and_then(next_link);
        holds(titles.len() <= 5, || format!("more than there are: {titles:?}"))?;
    }
    titles.sort_by_key(Value::to_string);
    holds(json!(titles) == json!(["a", "b", "c", "d", "e"]), || format!("listed {titles:?}"))
}

/// The path of `<...>; rel="next"`.
fn next_link(link: &str) -> Option<String> {
    let (target, relation) = link.split_once('>')?;
    let target = target.trim().strip_prefix('<')?;
    let start = target.find("/api/")?;
    relation.contains("next").then(|| target[start..].to_owned())
}

pub(super) async fn isolation(bench: &Bench) -> Outcome {
    let owner = bench.http(&bench.user("owner"));
    let other = bench.http(&bench.user("other"));
    let id = bench.created_by_rest(&owner, "mine").await?;
    let path = format!("/api/tasks/{id}");
    let patch = json!({"title": "taken"});
    for (method, body) in [
        (Method::GET, None),
        (Method::PATCH, Some(&patch)),
        (Method::PUT, Some(&patch)),
        (Method::DELETE, None),
    ] {
        let what = format!("{method} of another user's task");
        let answer = other.request(method, &path, body, &[]).await?;
        status(&answer, StatusCode::NOT_FOUND, &what)?;
    }
    let listed = other.get("/api/tasks").await?.json();
    holds(listed == json!([]), || format!("the other user lists {listed}"))?;
    let body = json!({"title": "x", "user_id": bench.user("owner")});
    let answer = other.request(Method::POST, "/api/tasks", Some(&body), &[]).await?;
    status(&answer, StatusCode::FORBIDDEN, "POST in another user's name")?;
    field(&bench.task(&owner, &id).await?, "title", "mine")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_read_from_the_link() {
        let link = "</api/tasks?limit=2&cursor=x>; rel=\"next\"";
        assert_eq!(next_link(link).as_deref(), Some("/api/tasks?limit=2&cursor=x"));
        assert_eq!(next_link("</api/tasks>; rel=\"prev\""), None);
        assert_eq!(next_link("nonsense"), None);
    }
}
