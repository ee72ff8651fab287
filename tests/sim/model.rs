//! What the records of a log come to, by other code than the daemon's: a map, and lists.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A task as far as the workload's events touch it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Task {
    pub(crate) user: String,
    pub(crate) title: String,
    pub(crate) completed: bool,
    pub(crate) version: u64,
}

/// One change as its user is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Change {
    pub(crate) user: String,
    pub(crate) kind: String,
    pub(crate) event: String,
    pub(crate) version: Option<u64>,
}

/// What one record came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// The change of this sequence.
    Change(u64),
    Duplicate,
    Refused,
    Letter(&'static str),
    Waiting,
    /// Of an unknown type, and for nobody.
    Ignored,
}

#[derive(Clone, Debug)]
enum State {
    Present(Task, Value),
    Deleted(Value),
}

#[derive(Clone, Debug)]
struct Event {
    offset: i64,
    id: Option<String>,
    kind: String,
    expected: Option<u64>,
    data: Value,
}

/// Everything after some records.
#[derive(Debug, Default)]
pub(crate) struct Model {
    states: BTreeMap<String, State>,
    pub(crate) changes: Vec<Change>,
    pub(crate) fates: BTreeMap<i64, Fate>,
    waiting: BTreeMap<String, Vec<Event>>,
    /// Of applied and waiting events: what each said.
    known: HashMap<String, (String, Value)>,
}

impl Model {
    pub(crate) fn tasks(&self, user: &str) -> BTreeMap<String, Task> {
        let tasks = self.states.iter().filter_map(|(id, state)| match state {
            State::Present(task, _) if task.user == user => Some((id.clone(), task.clone())),
            _ => None,
        });
        tasks.collect()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.values().map(Vec::len).sum()
    }

    /// Source offsets and reasons.
    pub(crate) fn letters(&self) -> BTreeMap<i64, &'static str> {
        let letters = self.fates.iter().filter_map(|(offset, fate)| match fate {
            Fate::Letter(reason) => Some((*offset, *reason)),
            _ => None,
        });
        letters.collect()
    }

    /// The next record. `expired`: offsets of events whose wait time has ended; nothing in the log
    /// tells.
    pub(crate) fn apply(&mut self, offset: i64, value: Option<&[u8]>, expired: &BTreeSet<i64>) {
        let fate = match parse(offset, value) {
            Err(reason) => Fate::Letter(reason),
            Ok(event) => self.event(event, expired),
        };
        self.fates.insert(offset, fate);
    }

    fn event(&mut self, event: Event, expired: &BTreeSet<i64>) -> Fate {
        if let Some(said) = event.id.as_ref().and_then(|id| self.known.get(id)) {
            let is_same = *said == (event.kind.clone(), event.data.clone());
            return if is_same { Fate::Duplicate } else { Fate::Letter("event_id_reused") };
        }
        self.decide(event, expired)
    }

    fn decide(&mut self, event: Event, expired: &BTreeSet<i64>) -> Fate {
        let task = event.data["id"].as_str().map(str::to_owned);
        let user = event.data["user_id"].as_str().map(str::to_owned);
        let Some(task) = task else {
            return match user {
                Some(user) => self.change(&event, user, None),
                None => Fate::Ignored,
            };
        };
        if event.kind == "task_created" {
            return self.create(&event, task, user.expect("checked before"), expired);
        }
        let (mut now, creation) = match self.states.get(&task) {
            None if expired.contains(&event.offset) => return Fate::Letter("wait_expired"),
            None => {
                self.know(&event);
                self.waiting.entry(task).or_default().push(event);
                return Fate::Waiting;
            }
            Some(State::Deleted(_)) => return Fate::Letter("task_deleted"),
            Some(State::Present(task, creation)) => (task.clone(), creation.clone()),
        };
        if user.is_some_and(|user| user != now.user) {
            return Fate::Letter("wrong_user");
        }
        if event.expected.is_some_and(|version| version != now.version) {
            return Fate::Refused;
        }
        let before = now.clone();
        match event.kind.as_str() {
            "task_completed" => now.completed = true,
            "task_updated" => {
                now.title = event.data["title"]
                    .as_str()
                    .expect("as the daemon and the workload write it")
                    .to_owned()
            }
            "task_deleted" => {
                self.states.insert(task, State::Deleted(creation));
                return self.change(&event, now.user, Some(now.version + 1));
            }
            other => panic!("the workload sends no {other}"),
        }
        if now == before {
            self.know(&event);
            return Fate::Duplicate;
        }
        now.version += 1;
        let (user, version) = (now.user.clone(), now.version);
        self.states.insert(task, State::Present(now, creation));
        self.change(&event, user, Some(version))
    }

    fn create(
        &mut self,
        event: &Event,
        task: String,
        user: String,
        expired: &BTreeSet<i64>,
    ) -> Fate {
        match self.states.get(&task) {
            Some(State::Present(_, creation) | State::Deleted(creation))
                if *creation == event.data =>
            {
                self.know(event);
                return Fate::Duplicate;
            }
            Some(State::Present(..)) => return Fate::Letter("task_conflict"),
            Some(State::Deleted(_)) => return Fate::Letter("task_deleted"),
            None => (),
        }
        let title = event.data["title"]
            .as_str()
            .expect("as the daemon and the workload write it")
            .to_owned();
        let new = Task { user: user.clone(), title, completed: false, version: 1 };
        self.states.insert(task.clone(), State::Present(new, event.data.clone()));
        let fate = self.change(event, user, Some(1));
        for waited in self.waiting.remove(&task).unwrap_or_default() {
            let offset = waited.offset;
            let fate = self.decide(waited, expired);
            self.fates.insert(offset, fate);
        }
        fate
    }

    fn change(&mut self, event: &Event, user: String, version: Option<u64>) -> Fate {
        self.know(event);
        let position = || format!("{}/0/{}", super::daemon::EVENTS, event.offset);
        let name = event.id.clone().unwrap_or_else(position);
        self.changes.push(Change { user, kind: event.kind.clone(), event: name, version });
        Fate::Change(u64::try_from(self.changes.len()).expect("few"))
    }

    fn know(&mut self, event: &Event) {
        if let Some(id) = &event.id {
            self.known.insert(id.clone(), (event.kind.clone(), event.data.clone()));
        }
    }
}

fn parse(offset: i64, value: Option<&[u8]>) -> Result<Event, &'static str> {
    let value = value.ok_or("null_value")?;
    let json: Value = serde_json::from_slice(value).map_err(|_| "invalid_json")?;
    let text = |name: &str| json[name].as_str().map(str::to_owned);
    let kind = text("type").ok_or("invalid_event")?;
    if kind == "task_created" && json["data"]["user_id"].is_null() {
        return Err("missing_user");
    }
    let (id, expected) = (text("event_id"), json["expected_version"].as_u64());
    Ok(Event { offset, id, kind, expected, data: json["data"].clone() })
}
