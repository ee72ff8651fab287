//! Events of the applied topic, decoded from a record's value and headers, and encoded for it.
//!
//! The forms and types are described for users in docs/events.md.

use super::{
    Priority, TaskId, UserId,
    field::{self, FieldError, Fields, Problem},
    json,
    transition::Reason,
};
use aws_lc_rs::digest;
use std::borrow::Cow;

/// Longest event id (and CloudEvents source) in bytes.
pub const EVENT_ID_BYTES_MAX: usize = 512;
/// Deepest nesting of JSON that is parsed.
pub const JSON_DEPTH_MAX: usize = 64;
/// Longest value in bytes.
pub const VALUE_BYTES_MAX: usize = 1_048_588;
/// Longest event type in bytes.
pub const EVENT_TYPE_BYTES_MAX: usize = 255;
/// Header of a redriven dead letter: the event's id, or what stands for it.
pub const EVENT_ID_HEADER: &str = "taskwire-event-id";

/// What names an event, wherever it is sent again: (`ce_source`, `ce_id`) joined, or `event_id`.
/// Cheap to clone.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EventId(std::sync::Arc<str>);

impl EventId {
    /// The id: 1 to [`EVENT_ID_BYTES_MAX`] bytes.
    pub fn new(text: &str) -> Option<Self> {
        (1..=EVENT_ID_BYTES_MAX).contains(&text.len()).then(|| Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// 128 bits that tell two events (or creations) of one id apart: SHA-256 of a canonical form, cut.
pub type Digest = [u8; 16];

/// One decoded event.
#[derive(Clone, Debug)]
pub struct TaskEvent {
    /// Its own id; `None` when only the position names it.
    pub event_id: Option<EventId>,
    /// Digest of type and data, for `event_id_reused`. The event id and transport are left out.
    /// All zero where nobody needs it: no creation, and no event id.
    pub digest: Digest,
    /// The `type` as written.
    pub event_type: Cow<'static, str>,
    /// A REST write's `If-Match`: the version the task must have.
    pub expected_version: Option<u64>,
    /// What happened.
    pub body: EventBody,
}

/// A creation's fields.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewTask {
    /// See [`super::Task`].
    pub id: TaskId,
    /// See [`super::Task`].
    pub title: String,
    /// See [`super::Task`].
    pub description: Option<String>,
    /// See [`super::Task`].
    pub user_id: UserId,
    /// See [`super::Task`].
    pub priority: Priority,
    /// See [`super::Task`].
    pub due_date: Option<i64>,
    /// See [`super::Task`].
    pub labels: Vec<String>,
}

/// The fields that an update names; `Some(None)` clears a field.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TaskPatch {
    /// A new title.
    pub title: Option<String>,
    /// A new description.
    pub description: Option<Option<String>>,
    /// A new priority.
    pub priority: Option<Priority>,
    /// A new due date.
    pub due_date: Option<Option<i64>>,
    /// New labels.
    pub labels: Option<Vec<String>>,
    /// Done or not.
    pub completed: Option<bool>,
    /// When it was done, if that is not the record's timestamp; only of a task that is done then.
    pub completed_at: Option<i64>,
}

/// What an event says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EventBody {
    /// `task_created`
    Created(NewTask),
    /// Any event about a task that should be there already.
    Existing {
        /// The task.
        id: TaskId,
        /// The owner, where the event names one; it must be the task's.
        user_id: Option<UserId>,
        /// What to do with it.
        action: Action,
    },
    /// A type that we do not know: passed on to `user_id` as it is, or only counted.
    Unknown {
        /// The user to pass it on to.
        user_id: Option<UserId>,
        /// `data` as written (JSON text).
        data: Vec<u8>,
    },
}

/// A change of an existing task.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// `task_completed`
    Complete {
        /// When, if the event says so; else the record's timestamp.
        completed_at: Option<i64>,
    },
    /// `task_updated`
    Update(TaskPatch),
    /// `task_priority_changed`
    ChangePriority(Priority),
    /// `task_deleted`
    Delete,
    /// `task_due_soon`: pushed, but the task's version stays.
    DueSoon {
        /// The due date that it reminds of, if the event says so; one of another due date than the
        /// task's comes too late.
        due_date: Option<i64>,
    },
}

/// A record that is no event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Undecodable {
    /// The code.
    pub reason: Reason,
    /// One clause that names the field.
    pub detail: String,
    /// Its event id, if that much could be read.
    pub event_id: Option<EventId>,
}

impl TaskEvent {
    /// An event to be published, as REST writes make it.
    pub fn new(event_id: EventId, expected_version: Option<u64>, body: EventBody) -> Self {
        let event_type = Cow::Borrowed(body.event_type());
        let digest = digest_of(&event_type, &body);
        Self { event_id: Some(event_id), digest, event_type, expected_version, body }
    }

    /// The event in the form of [`decode`]: `type`, `event_id`, `expected_version`, `data`.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(JSON_BYTES_USUAL);
        out.extend_from_slice(b"{\"type\":");
        json::write_string(&self.event_type, &mut out);
        if let Some(event_id) = &self.event_id {
            out.extend_from_slice(b",\"event_id\":");
            json::write_string(event_id.as_str(), &mut out);
        }
        if let Some(version) = self.expected_version {
            out.extend_from_slice(format!(",\"expected_version\":{version}").as_bytes());
        }
        out.extend_from_slice(b",\"data\":");
        self.body.write_data(&mut out);
        out.push(b'}');
        out
    }
}

/// A usual event's JSON.
const JSON_BYTES_USUAL: usize = 384;

/// Decodes a record's value and headers.
///
/// # Errors
/// Why it becomes a dead letter. Nothing panics, and nothing is allocated by a number in the input.
pub fn decode<H: AsRef<[u8]>>(
    value: Option<&[u8]>,
    headers: &[(H, Option<H>)],
) -> Result<TaskEvent, Undecodable> {
    let transport = Transport::from_headers(headers);
    let mut envelope = Envelope { event_id: transport.event_id.clone(), ..Envelope::default() };
    envelope.read(value, &transport).and_then(|()| envelope.event()).map_err(|refusal| {
        let Refusal { reason, detail } = refusal;
        Undecodable { reason, detail, event_id: envelope.event_id }
    })
}

/// Why decoding stopped.
struct Refusal {
    reason: Reason,
    detail: String,
}

impl Refusal {
    fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Self::new(Reason::InvalidEvent, error.to_string())
    }
}

/// What the headers say.
#[derive(Default)]
struct Transport<'a> {
    /// From [`EVENT_ID_HEADER`]; it goes before every other id.
    event_id: Option<EventId>,
    is_structured: bool,
    /// `ce_type`: the value is the data alone.
    event_type: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
    source: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
}

impl<'a> Transport<'a> {
    fn from_headers<H: AsRef<[u8]>>(headers: &'a [(H, Option<H>)]) -> Self {
        let mut transport = Self::default();
        for (name, value) in headers {
            let Some(value) = value else { continue };
            let (name, value) = (name.as_ref(), value.as_ref());
            match name {
                b"ce_type" => transport.event_type = Some(value),
                b"ce_id" => transport.id = Some(value),
                b"ce_source" => transport.source = Some(value),
                b"ce_specversion" => transport.version = Some(value),
                _ if name.eq_ignore_ascii_case(b"content-type") => {
                    transport.is_structured = is_structured(value);
                }
                _ if name == EVENT_ID_HEADER.as_bytes() => {
                    transport.event_id = std::str::from_utf8(value).ok().and_then(EventId::new);
                }
                _ => (),
            }
        }
        transport
    }
}

/// Whether a content type is that of a structured CloudEvent in JSON.
fn is_structured(content_type: &[u8]) -> bool {
    let name = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    name.trim_ascii().eq_ignore_ascii_case(b"application/cloudevents+json")
}

/// An event in any of its forms.
#[derive(Default)]
struct Envelope<'a> {
    event_id: Option<EventId>,
    event_type: Option<Cow<'a, str>>,
    expected_version: Option<u64>,
    data: Option<&'a str>,
}

/// The members of the value, as written.
#[derive(Default)]
struct Members<'a> {
    event_type: Option<&'a str>,
    event_type_too: Option<&'a str>,
    event_id: Option<&'a str>,
    expected_version: Option<&'a str>,
    data: Option<&'a str>,
    specversion: Option<&'a str>,
    id: Option<&'a str>,
    source: Option<&'a str>,
}

impl<'a> Envelope<'a> {
    fn read(&mut self, value: Option<&'a [u8]>, transport: &Transport<'a>) -> Result<(), Refusal> {
        let value = value.ok_or(Refusal::new(Reason::NullValue, "the record has no value"))?;
        if value.len() > VALUE_BYTES_MAX {
            let detail = format!("value: longer than {VALUE_BYTES_MAX} bytes");
            return Err(Refusal { reason: Reason::InvalidEvent, detail });
        }
        if transport.event_type.is_some() {
            return self.read_binary(value, transport);
        }
        let mut members = Members::default();
        json::walk_object(value, |name, raw| members.put(&name, raw))
            .map_err(|error| Refusal::new(Reason::InvalidJson, error.to_string()))?;
        if transport.is_structured || members.specversion.is_some() {
            self.read_structured(&members)
        } else {
            self.read_plain(&members)
        }
    }

    /// CloudEvents in binary mode: attributes in headers, the value is the data.
    fn read_binary(&mut self, value: &'a [u8], transport: &Transport<'a>) -> Result<(), Refusal> {
        let text = |name: &'static str, bytes: Option<&'a [u8]>| {
            let bytes = bytes.ok_or(FieldError::new(name, Problem::Missing))?;
            std::str::from_utf8(bytes).map_err(|_| FieldError::new(name, Problem::Invalid("UTF-8")))
        };
        let version = text("ce_specversion", transport.version)?;
        check_specversion("ce_specversion", version)?;
        let (id, source) = (text("ce_id", transport.id)?, text("ce_source", transport.source)?);
        self.take_id(cloud_event_id(source, id, "ce_source", "ce_id")?);
        self.event_type = Some(Cow::Borrowed(text("ce_type", transport.event_type)?));
        json::walk_object(value, |_, _| ())
            .map_err(|error| Refusal::new(Reason::InvalidJson, error.to_string()))?;
        self.data = std::str::from_utf8(value).ok().map(str::trim_ascii);
        Ok(())
    }

    /// CloudEvents in structured mode: all in the value.
    fn read_structured(&mut self, members: &Members<'a>) -> Result<(), Refusal> {
        let text = |name: &'static str, raw: Option<&'a str>| {
            let raw = raw.ok_or(FieldError::new(name, Problem::Missing))?;
            json::string(raw).ok_or(FieldError::new(name, Problem::Invalid("a string")))
        };
        check_specversion("specversion", &text("specversion", members.specversion)?)?;
        let (id, source) = (text("id", members.id)?, text("source", members.source)?);
        self.take_id(cloud_event_id(&source, &id, "source", "id")?);
        self.event_type = Some(text("type", members.event_type)?);
        self.data = members.data;
        Ok(())
    }

    /// Our own form.
    fn read_plain(&mut self, members: &Members<'a>) -> Result<(), Refusal> {
        if let Some(text) = field::id_text("event_id", members.event_id)? {
            let id = EventId::new(&text).ok_or_else(|| bad_event_id("event_id", &text))?;
            self.take_id(id);
        }
        let (name, raw) = match members.event_type {
            Some(raw) => ("type", raw),
            None => ("event_type", members.event_type_too.unwrap_or("null")),
        };
        if raw == "null" {
            return Err(FieldError::new("type", Problem::Missing).into());
        }
        let text = json::string(raw).ok_or(FieldError::new(name, Problem::Invalid("a string")))?;
        self.event_type = Some(text);
        if let Some(raw) = members.expected_version.filter(|raw| *raw != "null") {
            let problem = Problem::Invalid("a version");
            let version = raw.parse().map_err(|_| FieldError::new("expected_version", problem))?;
            self.expected_version = Some(version);
        }
        self.data = members.data;
        Ok(())
    }

    fn take_id(&mut self, event_id: EventId) {
        // A redriven letter keeps the id in its header.
        self.event_id.get_or_insert(event_id);
    }

    /// The event itself, once the form is read.
    fn event(&self) -> Result<TaskEvent, Refusal> {
        let name = self.event_type.as_deref().unwrap_or_default();
        if !(1..=EVENT_TYPE_BYTES_MAX).contains(&name.len()) {
            let problem = Problem::Invalid("a name of 1 to 255 bytes");
            return Err(FieldError::new("type", problem).into());
        }
        let (event_type, body) = match Known::parse(name) {
            Some(known) => (Cow::Borrowed(known.as_str()), self.known_body(known)?),
            None => (Cow::Owned(name.to_owned()), self.unknown_body()?),
        };
        let is_compared = self.event_id.is_some() || matches!(body, EventBody::Created(_));
        Ok(TaskEvent {
            event_id: self.event_id.clone(),
            digest: if is_compared { digest_of(&event_type, &body) } else { Digest::default() },
            event_type,
            expected_version: self.expected_version,
            body,
        })
    }

    fn known_body(&self, known: Known) -> Result<EventBody, Refusal> {
        let data = self.data.ok_or(FieldError::new("data", Problem::Missing))?;
        let fields = Fields::parse(data.as_bytes())
            .map_err(|_| FieldError::new("data", Problem::Invalid("an object")))?;
        let id = fields.id()?.ok_or(FieldError::new("id", Problem::Missing))?;
        let user_id = fields.user_id()?;
        if known == Known::Created {
            let Some(user_id) = user_id else {
                return Err(Refusal::new(Reason::MissingUser, "user_id: missing"));
            };
            return Ok(EventBody::Created(fields.new_task(id, user_id)?));
        }
        let action = match known {
            // `completed: false` is what it says: the task is open again.
            Known::Completed if fields.completed()? == Some(false) => {
                Action::Update(TaskPatch { completed: Some(false), ..TaskPatch::default() })
            }
            Known::Completed => Action::Complete { completed_at: fields.completed_at()? },
            Known::PriorityChanged => Action::ChangePriority(
                fields.priority()?.ok_or(FieldError::new("priority", Problem::Missing))?,
            ),
            Known::Deleted => Action::Delete,
            Known::DueSoon => Action::DueSoon { due_date: fields.due_date()?.flatten() },
            Known::Created | Known::Updated => Action::Update(fields.patch()?),
        };
        Ok(EventBody::Existing { id, user_id, action })
    }

    fn unknown_body(&self) -> Result<EventBody, Refusal> {
        let data = self.data.unwrap_or("null");
        // Data that is no object names nobody.
        let user_id = match Fields::parse(data.as_bytes()) {
            Ok(fields) => fields.user_id()?,
            Err(_) => None,
        };
        Ok(EventBody::Unknown { user_id, data: data.as_bytes().to_vec() })
    }
}

impl<'a> Members<'a> {
    fn put(&mut self, name: &str, value: &'a str) {
        let member = match name {
            "type" => &mut self.event_type,
            "event_type" => &mut self.event_type_too,
            "event_id" => &mut self.event_id,
            "expected_version" => &mut self.expected_version,
            "data" => &mut self.data,
            "specversion" => &mut self.specversion,
            "id" => &mut self.id,
            "source" => &mut self.source,
            _ => return,
        };
        *member = Some(value);
    }
}

fn check_specversion(field: &'static str, version: &str) -> Result<(), FieldError> {
    let problem = Problem::Invalid("a CloudEvents version 1.x");
    if version.starts_with("1.") { Ok(()) } else { Err(FieldError::new(field, problem)) }
}

/// Source and id joined by a space, which no source (a URI reference) holds.
fn cloud_event_id(
    source: &str,
    id: &str,
    source_name: &'static str,
    id_name: &'static str,
) -> Result<EventId, FieldError> {
    if source.is_empty() || source.contains(' ') {
        return Err(FieldError::new(source_name, Problem::Invalid("a URI reference")));
    }
    if id.is_empty() {
        return Err(FieldError::new(id_name, Problem::Empty));
    }
    let joined = format!("{source} {id}");
    EventId::new(&joined).ok_or_else(|| bad_event_id(id_name, &joined))
}

fn bad_event_id(field: &'static str, text: &str) -> FieldError {
    let problem = match text.len() {
        0 => Problem::Empty,
        _ => Problem::TooLong(EVENT_ID_BYTES_MAX, "bytes"),
    };
    FieldError::new(field, problem)
}

/// The types that change a task.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Known {
    Created,
    Completed,
    Updated,
    Deleted,
    PriorityChanged,
    DueSoon,
}

impl Known {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "task_created" => Some(Self::Created),
            "task_completed" => Some(Self::Completed),
            "task_updated" => Some(Self::Updated),
            "task_deleted" => Some(Self::Deleted),
            "task_priority_changed" => Some(Self::PriorityChanged),
            "task_due_soon" => Some(Self::DueSoon),
            _ => None,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "task_created",
            Self::Completed => "task_completed",
            Self::Updated => "task_updated",
            Self::Deleted => "task_deleted",
            Self::PriorityChanged => "task_priority_changed",
            Self::DueSoon => "task_due_soon",
        }
    }
}

impl EventBody {
    /// The type that says this; an unknown body has none of ours and gives the empty text.
    pub const fn event_type(&self) -> &'static str {
        match self {
            Self::Created(_) => Known::Created.as_str(),
            Self::Existing { action, .. } => match action {
                Action::Complete { .. } => Known::Completed.as_str(),
                Action::Update(_) => Known::Updated.as_str(),
                Action::ChangePriority(_) => Known::PriorityChanged.as_str(),
                Action::Delete => Known::Deleted.as_str(),
                Action::DueSoon { .. } => Known::DueSoon.as_str(),
            },
            Self::Unknown { .. } => "",
        }
    }

    /// The task it is about.
    pub const fn task_id(&self) -> Option<&TaskId> {
        match self {
            Self::Created(task) => Some(&task.id),
            Self::Existing { id, .. } => Some(id),
            Self::Unknown { .. } => None,
        }
    }

    /// Appends `data`, in the one form that is digested and published.
    fn write_data(&self, out: &mut Vec<u8>) {
        let mut data = Data { out, is_first: true };
        match self {
            Self::Created(task) => data.creation(task),
            Self::Existing { id, user_id, action } => {
                data.text("id", id.as_str());
                if let Some(user_id) = user_id {
                    data.text("user_id", user_id.as_str());
                }
                data.action(action);
            }
            Self::Unknown { data: written, .. } => return out.extend_from_slice(written),
        }
        out.push(b'}');
    }
}

/// Writes the members of `data`.
struct Data<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
}

impl Data<'_> {
    fn name(&mut self, name: &str) {
        self.out.push(if self.is_first { b'{' } else { b',' });
        self.is_first = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        json::write_string(text, self.out);
    }

    fn text_or_null(&mut self, name: &str, text: Option<&str>) {
        self.name(name);
        super::write_or_null(text, self.out, json::write_string);
    }

    fn time_or_null(&mut self, name: &str, ms: Option<i64>) {
        self.name(name);
        super::write_or_null(ms, self.out, super::write_time);
    }

    fn labels(&mut self, labels: &[String]) {
        self.name("labels");
        super::write_labels(labels, self.out);
    }

    fn is_completed(&mut self, is_completed: bool) {
        self.name("completed");
        self.out.extend_from_slice(if is_completed { b"true" } else { b"false" });
    }

    fn creation(&mut self, task: &NewTask) {
        self.text("id", task.id.as_str());
        self.text("title", &task.title);
        self.text_or_null("description", task.description.as_deref());
        self.text("user_id", task.user_id.as_str());
        self.text("priority", task.priority.as_str());
        self.time_or_null("due_date", task.due_date);
        self.labels(&task.labels);
    }

    fn action(&mut self, action: &Action) {
        match action {
            Action::Complete { completed_at } => {
                self.is_completed(true);
                if completed_at.is_some() {
                    self.time_or_null("completed_at", *completed_at);
                }
            }
            Action::Update(patch) => self.patch(patch),
            Action::ChangePriority(priority) => self.text("priority", priority.as_str()),
            Action::Delete => (),
            Action::DueSoon { due_date } => {
                if due_date.is_some() {
                    self.time_or_null("due_date", *due_date);
                }
            }
        }
    }

    fn patch(&mut self, patch: &TaskPatch) {
        if let Some(title) = &patch.title {
            self.text("title", title);
        }
        if let Some(description) = &patch.description {
            self.text_or_null("description", description.as_deref());
        }
        if let Some(priority) = patch.priority {
            self.text("priority", priority.as_str());
        }
        if let Some(due_date) = patch.due_date {
            self.time_or_null("due_date", due_date);
        }
        if let Some(labels) = &patch.labels {
            self.labels(labels);
        }
        if let Some(completed) = patch.completed {
            self.is_completed(completed);
        }
        if patch.completed_at.is_some() {
            self.time_or_null("completed_at", patch.completed_at);
        }
    }
}

/// Type and data in their one form, so that neither white space nor the order of members counts
/// (but for the data of unknown types, which is taken as written).
fn digest_of(event_type: &str, body: &EventBody) -> Digest {
    let mut form = Vec::with_capacity(JSON_BYTES_USUAL);
    form.extend_from_slice(event_type.as_bytes());
    form.push(0);
    body.write_data(&mut form);
    let whole = digest::digest(&digest::SHA256, &form);
    *whole.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
