//! Random requests against a map of tasks: codes, versions and bodies are as the map says.

use super::support::{Daemon, Reply, start};
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};

const USERS: [&str; 2] = ["alice", "bob"];

/// A request, about the task that was created as `task`-th (of those that are there).
#[derive(Clone, Debug)]
enum Request {
    Create { user: usize, title: usize, key: Option<usize> },
    Change { user: usize, task: usize, method: Method, if_match: Option<u64> },
    Get { user: usize, task: usize },
    List { user: usize, completed: Option<bool> },
}

#[derive(Clone, Debug)]
enum Method {
    /// A title, perhaps one that is not valid.
    Patch(usize),
    Put(usize, bool),
    Complete,
    Delete,
}

/// The longest titles that are taken, and one that is not.
fn title(number: usize) -> String {
    if number == 3 { String::new() } else { format!("title {number}") }
}

#[derive(Clone, Debug)]
struct Task {
    id: String,
    user: usize,
    title: String,
    completed: bool,
    version: u64,
    is_deleted: bool,
}

#[derive(Default)]
struct Model {
    tasks: Vec<Task>,
    /// (user, key) -> title and task.
    keys: HashMap<(usize, usize), (usize, usize)>,
}

fn request() -> impl Strategy<Value = Request> {
    let user = 0..USERS.len();
    let method = prop_oneof![
        3 => (0..4_usize).prop_map(Method::Patch),
        2 => (0..4_usize, any::<bool>()).prop_map(|(title, done)| Method::Put(title, done)),
        2 => Just(Method::Complete),
        1 => Just(Method::Delete),
    ];
    let if_match = prop::option::weighted(0.4, 0..2_u64);
    prop_oneof![
        4 => (user.clone(), 0..4_usize, prop::option::of(0..3_usize))
            .prop_map(|(user, title, key)| Request::Create { user, title, key }),
        8 => (user.clone(), 0..6_usize, method, if_match)
            .prop_map(|(user, task, method, if_match)| {
                Request::Change { user, task, method, if_match }
            }),
        2 => (user.clone(), 0..6_usize).prop_map(|(user, task)| Request::Get { user, task }),
        1 => (user, any::<Option<bool>>())
            .prop_map(|(user, completed)| Request::List { user, completed }),
    ]
}

impl Model {
    async fn send(&mut self, daemon: &Daemon, request: &Request) {
        match request {
            Request::Create { user, title, key } => self.create(daemon, *user, *title, *key).await,
            Request::Change { user, task, method, if_match } => {
                self.change(daemon, (*user, *task), method, *if_match).await;
            }
            Request::Get { user, task } => self.get(daemon, *user, *task).await,
            Request::List { user, completed } => self.list(daemon, *user, *completed).await,
        }
    }

    async fn create(&mut self, daemon: &Daemon, user: usize, number: usize, key: Option<usize>) {
        let text = key.map(|key| format!("key {key}"));
        let headers: Vec<_> = text.iter().map(|key| ("idempotency-key", key.as_str())).collect();
        let body = json!({ "title": title(number) }).to_string();
        let reply = daemon.call_with(USERS[user], "POST /api/tasks", &headers, &body).await;
        if number == 3 {
            return assert_eq!(reply.outcome(), "422 invalid_field /title");
        }
        let known = key.and_then(|key| self.keys.get(&(user, key)).copied());
        match known {
            Some((said, _)) if said != number => {
                assert_eq!(reply.outcome(), "422 idempotency_key_reused");
            }
            Some((_, task)) if self.tasks[task].is_deleted => {
                assert_eq!(reply.outcome(), "410 task_deleted");
            }
            Some((_, task)) => {
                assert_eq!(reply.status, 201, "{reply:?}");
                assert_eq!(reply.json()["id"], self.tasks[task].id, "the same task");
            }
            None => {
                assert_eq!(reply.status, 201, "{reply:?}");
                let id = reply.json()["id"].as_str().unwrap().to_owned();
                assert!(self.tasks.iter().all(|task| task.id != id), "a new id");
                let (title, completed, version) = (title(number), false, 1);
                let task = Task { id, user, title, completed, version, is_deleted: false };
                task.check(&reply);
                if let Some(key) = key {
                    self.keys.insert((user, key), (number, self.tasks.len()));
                }
                self.tasks.push(task);
            }
        }
    }

    /// The task as the user may see it.
    fn of(&mut self, user: usize, task: usize) -> (String, Option<&mut Task>) {
        match self.tasks.get_mut(task) {
            None => ("/api/tasks/none".to_owned(), None),
            Some(found) => {
                let path = format!("/api/tasks/{}", found.id);
                (path, Some(found).filter(|task| task.user == user && !task.is_deleted))
            }
        }
    }

    async fn change(
        &mut self,
        daemon: &Daemon,
        (user, task): (usize, usize),
        method: &Method,
        if_match: Option<u64>,
    ) {
        let (path, found) = self.of(user, task);
        let version = found.as_ref().map_or(1, |task| task.version);
        let tag = if_match.map(|more| format!("\"{}\"", version + more));
        let headers: Vec<_> = tag.iter().map(|tag| ("if-match", tag.as_str())).collect();
        let (line, body) = match method {
            Method::Patch(number) => ("PATCH", json!({ "title": title(*number) }).to_string()),
            Method::Put(number, completed) => {
                ("PUT", json!({ "title": title(*number), "completed": completed }).to_string())
            }
            Method::Complete => ("POST", String::new()),
            Method::Delete => ("DELETE", String::new()),
        };
        let end = if matches!(method, Method::Complete) { "/complete" } else { "" };
        let line = format!("{line} {path}{end}");
        let reply = daemon.call_with(USERS[user], &line, &headers, &body).await;
        let is_valid = !matches!(method, Method::Patch(3) | Method::Put(3, _));
        let Some(task) = found else {
            let is_told = reply.outcome() == "404 task_not_found";
            return assert!(is_told || (!is_valid && reply.status == 422), "{line}: {reply:?}");
        };
        if !is_valid {
            let is_told = reply.outcome() == "422 invalid_field /title";
            let is_old = if_match == Some(1) && reply.status == 412;
            return assert!(is_told || is_old, "{line}: {reply:?}");
        }
        if if_match == Some(1) {
            return assert_eq!(reply.outcome(), "412 version_mismatch", "{line}");
        }
        task.act(method);
        if task.is_deleted {
            return assert_eq!(reply.status, 204, "{line}: {reply:?}");
        }
        assert_eq!(reply.status, 200, "{line}: {reply:?}");
        task.check(&reply);
    }

    async fn get(&mut self, daemon: &Daemon, user: usize, task: usize) {
        let (path, found) = self.of(user, task);
        let reply = daemon.call(USERS[user], &format!("GET {path}"), "").await;
        match found {
            None => assert_eq!(reply.outcome(), "404 task_not_found"),
            Some(task) => {
                assert_eq!(reply.status, 200, "{reply:?}");
                task.check(&reply);
            }
        }
    }

    async fn list(&mut self, daemon: &Daemon, user: usize, completed: Option<bool>) {
        let query = completed.map_or(String::new(), |completed| format!("?completed={completed}"));
        let reply = daemon.call(USERS[user], &format!("GET /api/tasks{query}"), "").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let found: Vec<_> = reply.json().as_array().unwrap().clone();
        let mine = self.tasks.iter().filter(|task| task.user == user && !task.is_deleted);
        let mine = mine.filter(|task| completed.is_none_or(|wanted| wanted == task.completed));
        let expected: Vec<_> = mine.map(|task| (json!(task.id), json!(task.version))).collect();
        let found: Vec<_> =
            found.iter().map(|task| (task["id"].clone(), task["version"].clone())).collect();
        assert_eq!(found, expected, "in the order of creation");
    }
}

impl Task {
    fn act(&mut self, method: &Method) {
        let before = (self.title.clone(), self.completed);
        match method {
            Method::Patch(number) => self.title = title(*number),
            Method::Put(number, completed) => {
                (self.title, self.completed) = (title(*number), *completed);
            }
            Method::Complete => self.completed = true,
            Method::Delete => self.is_deleted = true,
        }
        // What changes nothing makes no version.
        self.version += u64::from(before != (self.title.clone(), self.completed));
    }

    fn check(&self, reply: &Reply) {
        let json = reply.json();
        let found: BTreeMap<&str, _> =
            ["id", "title", "completed", "version", "user_id"].map(|k| (k, json[k].clone())).into();
        let expected = BTreeMap::from([
            ("id", json!(self.id)),
            ("title", json!(self.title)),
            ("completed", json!(self.completed)),
            ("version", json!(self.version)),
            ("user_id", json!(USERS[self.user])),
        ]);
        assert_eq!(found, expected);
        assert_eq!(reply.header("etag"), format!("\"{}\"", self.version));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn any_requests_are_answered_as_the_map_says(
        requests in prop::collection::vec(request(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let daemon = start().await;
            let mut model = Model::default();
            for request in &requests {
                model.send(&daemon, request).await;
            }
        });
    }
}
