//! A user who writes by REST alone, tries again until there is an answer, and so knows every task.

use crate::{
    Shared,
    random::Random,
    support::http::{Answer, User},
};
use bytes::Bytes;
use hyper::{Request, header::CONTENT_TYPE, http::request};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// A task as the last answer told it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Known {
    pub(crate) title: String,
    pub(crate) completed: bool,
    pub(crate) version: u64,
}

/// Every task that this user made; `None` for one that is deleted.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) tasks: BTreeMap<String, Known>,
    /// The last version of each deleted task.
    pub(crate) deleted: BTreeMap<String, u64>,
}

pub(crate) async fn write(user: User, shared: Shared, mut random: Random) -> Model {
    let mut model = Model::default();
    let mut count = 0;
    while !shared.writers.is_cancelled() {
        count += 1;
        let id = pick(&model, &mut random);
        match (id, random.below(10)) {
            (Some(id), 0) => delete(&user, &mut model, &id).await,
            (Some(id), 1 | 2) => patch(&user, &mut model, &id, json!({"completed": true})).await,
            (Some(id), 3..=5) => {
                let title = json!({"title": format!("title {count}")});
                patch(&user, &mut model, &id, title).await;
            }
            _ => post(&user, &mut model, count).await,
        }
    }
    model
}

fn pick(model: &Model, random: &mut Random) -> Option<String> {
    let count = u64::try_from(model.tasks.len()).expect("small");
    let index = (count > 0).then(|| random.below(count))?;
    model.tasks.keys().nth(usize::try_from(index).expect("small")).cloned()
}

async fn post(user: &User, model: &mut Model, count: u64) {
    let title = format!("task {count}");
    let body = json!({"title": title});
    let key = format!("key-{count}");
    let answer =
        answered(user, &body, || Request::post("/api/tasks").header("idempotency-key", &key)).await;
    assert_eq!(answer.status, 201, "{:?}", answer.bytes);
    let made = known(&answer.json());
    assert_eq!(made, Known { title, completed: false, version: 1 });
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    assert!(model.tasks.insert(id, made).is_none(), "one key, one task");
}

/// A change at the known version. A 412 means that an attempt without an answer took effect.
async fn patch(user: &User, model: &mut Model, id: &str, body: Value) {
    let before = &model.tasks[id];
    let mut after = before.clone();
    match body["title"].as_str() {
        Some(title) => after.title = title.to_owned(),
        None => after.completed = true,
    }
    if after != *before {
        after.version += 1;
    }
    let (path, etag) = (format!("/api/tasks/{id}"), format!("\"{}\"", before.version));
    let make = || Request::patch(&path).header("if-match", &etag);
    let answer = answered(user, &body, make).await;
    let found = match answer.status {
        200 => answer,
        412 => answered(user, &Value::Null, || Request::get(&path)).await,
        status => panic!("PATCH answered {status}: {:?}", answer.bytes),
    };
    assert_eq!(known(&found.json()), after, "after {body}");
    model.tasks.insert(id.to_owned(), after);
}

async fn delete(user: &User, model: &mut Model, id: &str) {
    let path = format!("/api/tasks/{id}");
    let answer = answered(user, &Value::Null, || Request::delete(&path)).await;
    // 404: an attempt without an answer took effect.
    assert!([204, 404].contains(&answer.status), "DELETE answered {}", answer.status);
    let gone = model.tasks.remove(id).expect("a known task");
    model.deleted.insert(id.to_owned(), gone.version + 1);
}

/// Tries until the answer decides.
async fn answered(user: &User, body: &Value, make: impl Fn() -> request::Builder) -> Answer {
    loop {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let request = make().header(CONTENT_TYPE, "application/json");
        match user.try_send(request, body).await {
            Some(answer) if ![202, 503].contains(&answer.status) => return answer,
            _ => tokio::time::sleep(Duration::from_millis(3)).await,
        }
    }
}

pub(crate) fn known(task: &Value) -> Known {
    Known {
        title: task["title"].as_str().expect("a title").to_owned(),
        completed: task["completed"].as_bool().expect("completed"),
        version: task["version"].as_u64().expect("a version"),
    }
}
