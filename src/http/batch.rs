//! `POST /api/tasks` of an array: many tasks, all of them valid or none.
//!
//! They are checked as a whole before the first is published, and published in their order. With an
//! `Idempotency-Key` the first task decides alone whether the key is new, and the rest follows it:
//! so two requests with one key never mix, and a repeat completes what a crash cut off.

use super::{
    POSITION_HEADER, State,
    problem::{Code, Problem},
    tasks::{self, Answer, Decision, KEY_SPACE, Settled, event_id, json_response, task_id},
};
use crate::task::{
    TaskId, UserId,
    event::{EventBody, NewTask, TaskEvent},
    json_items, write_json_items,
};
use axum::http::StatusCode;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

/// Most tasks of one request.
pub(super) const TASKS_MAX: usize = 1_000;

/// Whether a body is to be read as an array.
pub(super) fn is_array(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'[')
}

/// Creates the tasks of an array; the answer has them in its order.
pub(super) async fn create(
    state: &State,
    user_id: &UserId,
    key: Option<&[u8]>,
    body: &[u8],
) -> Answer {
    let new_tasks = parse(body, user_id)?;
    for _ in 1..new_tasks.len() {
        state.usage.count_user(user_id).map_err(Problem::rate_limited)?;
    }
    let settled = match key {
        None => {
            let (tasks, events) = events(new_tasks, |_| (Uuid::now_v7(), Uuid::now_v7()));
            (publish(state, &events).await?, tasks)
        }
        Some(key) => create_keyed(state, user_id, key, new_tasks).await?,
    };
    match settled {
        (Settled::Applied, tasks) => read_back(state, user_id, &tasks).await,
        (Settled::Undecided, tasks) => {
            let pending = |id: &TaskId| serde_json::json!({"id": id.as_str(), "status": "pending"});
            let body: serde_json::Value = tasks.iter().map(pending).collect();
            Ok(json_response(StatusCode::ACCEPTED, body.to_string().into()))
        }
    }
}

async fn create_keyed(
    state: &State,
    user_id: &UserId,
    key: &[u8],
    new_tasks: Vec<NewTask>,
) -> Result<(Settled, Vec<TaskId>), Problem> {
    let name = [user_id.as_str().as_bytes(), b"\n", key].concat();
    let derive = |kind: &[u8]| Uuid::new_v5(&KEY_SPACE, &[kind, b"\n", &name].concat());
    // Of all tasks: the same first one in another request is another event with the same id.
    let whole = derive(&digest_of_all(&new_tasks));
    let (tasks, events) = events(new_tasks, |index| {
        // The id that a single task with this key has, too.
        let event = if index == 0 { "event".to_owned() } else { format!("event {index}") };
        let task = Uuid::new_v5(&whole, &index.to_be_bytes());
        (task, derive(event.as_bytes()))
    });
    let (first, rest) = events.split_first().ok_or(Problem::new(Code::Internal))?;
    let settled = match tasks::known_decision(state, first).await? {
        Some(decision) => decision.settle(true)?,
        None => publish(state, std::slice::from_ref(first)).await?,
    };
    if let Settled::Undecided = settled {
        // The rest is not written, so this is no 202.
        return Err(Problem::new(Code::Unavailable));
    }
    Ok((publish(state, rest).await?, tasks))
}

/// The tasks of a body, with ids that are still to be given.
fn parse(body: &[u8], user_id: &UserId) -> Result<Vec<NewTask>, Problem> {
    let items = json_items(body)?;
    if !(1..=TASKS_MAX).contains(&items.len()) {
        let detail = format!("an array has 1 to {TASKS_MAX} tasks");
        return Err(Problem::with_detail(Code::InvalidField, detail).at(""));
    }
    let of_item = |(index, item): (usize, &str)| {
        tasks::new_task(item.as_bytes(), task_id(Uuid::nil()), user_id)
            .map_err(|problem| problem.within(index))
    };
    items.into_iter().enumerate().map(of_item).collect()
}

/// The events, and the ids of their tasks; `ids` gives a task's and an event's by its place.
fn events(
    new_tasks: Vec<NewTask>,
    ids: impl Fn(usize) -> (Uuid, Uuid),
) -> (Vec<TaskId>, Vec<TaskEvent>) {
    let of_task = |(index, new_task): (usize, NewTask)| {
        let (task, event) = ids(index);
        let id = task_id(task);
        let body = EventBody::Created(NewTask { id: id.clone(), ..new_task });
        (id, TaskEvent::new(event_id(event), None, body))
    };
    new_tasks.into_iter().enumerate().map(of_task).unzip()
}

fn digest_of_all(new_tasks: &[NewTask]) -> Vec<u8> {
    let digest = |new_task: &NewTask| {
        let body = EventBody::Created(new_task.clone());
        TaskEvent::new(event_id(Uuid::nil()), None, body).digest
    };
    new_tasks.iter().flat_map(digest).collect()
}

/// Publishes the events and waits for all decisions, at most the write timeout in all.
async fn publish(state: &State, events: &[TaskEvent]) -> Result<Settled, Problem> {
    let deadline = Instant::now() + state.options.write_timeout;
    let expect = |event| state.parts.applied.expect_event(event);
    let mut pending: Vec<_> = events.iter().map(expect).collect();
    let records = events.iter().map(|event| tasks::record(state, event)).collect();
    match timeout_at(deadline, state.parts.feed.publish_all(records)).await {
        Ok(published) => drop(published?),
        // Whether it will be durable is not known, so this is no 202.
        Err(_) => return Err(Problem::new(Code::Unavailable)),
    }
    for outcome in &mut pending {
        match timeout_at(deadline, outcome.outcome()).await {
            Ok(Some(outcome)) => match Decision::Made(outcome).settle(true)? {
                Settled::Applied => (),
                Settled::Undecided => return Ok(Settled::Undecided),
            },
            Ok(None) | Err(_) => return Ok(Settled::Undecided),
        }
    }
    Ok(Settled::Applied)
}

async fn read_back(state: &State, user_id: &UserId, ids: &[TaskId]) -> Answer {
    let position = state.position();
    let mut tasks = Vec::with_capacity(ids.len());
    for id in ids {
        let json = state.parts.store.task(user_id, id).await?;
        tasks.push(json.ok_or(Problem::new(Code::TaskDeleted))?);
    }
    let mut json = Vec::new();
    write_json_items(&tasks, &mut json);
    let mut response = json_response(StatusCode::CREATED, json.into());
    response.headers_mut().insert(POSITION_HEADER, position);
    Ok(response)
}
