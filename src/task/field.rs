//! The fields of a task as JSON gives them, checked against their limits: one table for REST bodies
//! and for events.

use super::{
    DESCRIPTION_CHARS_MAX, ID_BYTES_MAX, LABEL_CHARS_MAX, LABELS_MAX, Priority, TITLE_CHARS_MAX,
    TaskId, UserId,
    event::{NewTask, TaskPatch},
    json::{self, JsonError},
    time,
};
use std::{borrow::Cow, fmt};

/// A field that is not as it must be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FieldError {
    /// Where: a member's name, for a label followed by its index.
    pub field: Cow<'static, str>,
    /// The index within `field`.
    pub index: Option<usize>,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Problem {
    /// It must be there.
    Missing,
    /// It may not be null.
    Null,
    /// We know no such field.
    Unknown,
    /// Another type or form is needed; this says which.
    Invalid(&'static str),
    /// It may not be empty.
    Empty,
    /// More than so many of these units.
    TooLong(usize, &'static str),
}

impl FieldError {
    /// An error of a whole field.
    pub const fn new(field: &'static str, problem: Problem) -> Self {
        Self { field: Cow::Borrowed(field), index: None, problem }
    }

    /// The field as a JSON pointer (RFC 6901).
    pub fn pointer(&self) -> String {
        let field = self.field.replace('~', "~0").replace('/', "~1");
        self.index.map_or_else(|| format!("/{field}"), |index| format!("/{field}/{index}"))
    }

    /// A stable code of the problem.
    pub const fn code(&self) -> &'static str {
        match self.problem {
            Problem::Missing => "missing",
            Problem::Null => "null",
            Problem::Unknown => "unknown",
            Problem::Invalid(_) => "invalid",
            Problem::Empty => "empty",
            Problem::TooLong(..) => "too_long",
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An unknown member's name is as long as its sender likes.
        f.write_str(self.field.get(..64).unwrap_or(&self.field))?;
        if let Some(index) = self.index {
            write!(f, "[{index}]")?;
        }
        match self.problem {
            Problem::Missing => f.write_str(": missing"),
            Problem::Null => f.write_str(": must not be null"),
            Problem::Unknown => f.write_str(": no such field"),
            Problem::Invalid(expected) => write!(f, ": must be {expected}"),
            Problem::Empty => f.write_str(": must not be empty"),
            Problem::TooLong(max, unit) => write!(f, ": longer than {max} {unit}"),
        }
    }
}

impl std::error::Error for FieldError {}

/// The members of a JSON object that describe a task, as they were written. Of a member that comes
/// twice the last one counts.
#[derive(Clone, Debug, Default)]
pub struct Fields<'a> {
    id: Option<&'a str>,
    title: Option<&'a str>,
    description: Option<&'a str>,
    user_id: Option<&'a str>,
    priority: Option<&'a str>,
    due_date: Option<&'a str>,
    labels: Option<&'a str>,
    completed: Option<&'a str>,
    completed_at: Option<&'a str>,
    /// The first of `created_at`, `updated_at` and `version`, which nobody sets.
    pub read_only: Option<&'static str>,
    /// The name of the first member that a task does not have.
    pub unknown: Option<String>,
}

impl<'a> Fields<'a> {
    /// Takes a JSON object apart; its members are looked at only when they are asked for.
    ///
    /// # Errors
    /// It is not a JSON object.
    pub fn parse(json: &'a [u8]) -> Result<Self, JsonError> {
        let mut fields = Self::default();
        json::walk_object(json, |name, value| fields.put(&name, value))?;
        Ok(fields)
    }

    fn put(&mut self, name: &str, value: &'a str) {
        let member = match name {
            "id" => &mut self.id,
            "title" => &mut self.title,
            "description" => &mut self.description,
            "user_id" => &mut self.user_id,
            "priority" => &mut self.priority,
            "due_date" => &mut self.due_date,
            "labels" => &mut self.labels,
            "completed" => &mut self.completed,
            "completed_at" => &mut self.completed_at,
            "created_at" => return self.note_read_only("created_at"),
            "updated_at" => return self.note_read_only("updated_at"),
            "version" => return self.note_read_only("version"),
            _ => {
                if self.unknown.is_none() {
                    self.unknown = Some(name.to_owned());
                }
                return;
            }
        };
        *member = Some(value);
    }

    fn note_read_only(&mut self, name: &'static str) {
        if self.read_only.is_none() {
            self.read_only = Some(name);
        }
    }

    /// Refuses members that a task does not have.
    ///
    /// # Errors
    /// The first of them.
    pub fn refuse_unknown(&self) -> Result<(), FieldError> {
        self.unknown.as_ref().map_or(Ok(()), |name| {
            Err(FieldError {
                field: Cow::Owned(name.clone()),
                index: None,
                problem: Problem::Unknown,
            })
        })
    }

    /// Whether it names `completed` and of what a task's owner sets nothing else.
    pub fn is_only_completed(&self) -> bool {
        self.completed.is_some() && self.settable_count() == 1
    }

    /// Whether it names `priority` and of what a task's owner sets nothing else.
    pub fn is_only_priority(&self) -> bool {
        self.priority.is_some() && self.settable_count() == 1
    }

    fn settable_count(&self) -> usize {
        let completed_at = present(self.completed_at);
        [self.title, self.description, self.priority, self.due_date, self.labels, self.completed]
            .iter()
            .chain([&completed_at])
            .flatten()
            .count()
    }

    /// The task's id, if it is named; null is as if it were not.
    ///
    /// # Errors
    /// It is no id.
    pub fn id(&self) -> Result<Option<TaskId>, FieldError> {
        let Some(text) = id_text("id", self.id)? else { return Ok(None) };
        TaskId::new(&text).map(Some).ok_or_else(|| bad_id("id", &text))
    }

    /// The owner, if it is named; null is as if it were not.
    ///
    /// # Errors
    /// It is no id.
    pub fn user_id(&self) -> Result<Option<UserId>, FieldError> {
        let Some(text) = id_text("user_id", self.user_id)? else { return Ok(None) };
        UserId::new(&text).map(Some).ok_or_else(|| bad_id("user_id", &text))
    }

    /// A new task. `null` is as if the field were not there.
    ///
    /// # Errors
    /// The first field that is wrong: no title, or outside its limits, or `completed: true`.
    pub fn new_task(&self, id: TaskId, user_id: UserId) -> Result<NewTask, FieldError> {
        if self.completed()? == Some(true) {
            let problem = Problem::Invalid("false in a new task");
            return Err(FieldError::new("completed", problem));
        }
        Ok(NewTask {
            id,
            title: self.title()?.ok_or(FieldError::new("title", Problem::Missing))?,
            description: self.description()?.flatten(),
            user_id,
            priority: self.priority()?.unwrap_or_default(),
            due_date: self.due_date()?.flatten(),
            labels: self.labels()?.unwrap_or_default(),
        })
    }

    /// What the fields change in a task, as RFC 7396 has it: null clears a field (`priority` to
    /// medium, `labels` to none); `title` and `completed` cannot be cleared.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn patch(&self) -> Result<TaskPatch, FieldError> {
        let is_null = |member: Option<&str>| member == Some("null");
        if is_null(self.title) {
            return Err(FieldError::new("title", Problem::Null));
        }
        if is_null(self.completed) {
            return Err(FieldError::new("completed", Problem::Null));
        }
        Ok(TaskPatch {
            title: self.title()?,
            description: self.description()?,
            priority: self.priority()?.or(is_null(self.priority).then(Priority::default)),
            due_date: self.due_date()?,
            labels: self.labels()?.or(is_null(self.labels).then(Vec::new)),
            completed: self.completed()?,
            completed_at: self.completed_at()?,
        })
    }

    /// `title`; `None` if absent or null.
    fn title(&self) -> Result<Option<String>, FieldError> {
        let Some(text) = text("title", self.title)? else { return Ok(None) };
        if text.is_empty() {
            return Err(FieldError::new("title", Problem::Empty));
        }
        limit_chars(&text, TITLE_CHARS_MAX).map_err(|problem| FieldError::new("title", problem))?;
        Ok(Some(text.into_owned()))
    }

    /// `description`; `Some(None)` is null.
    fn description(&self) -> Result<Option<Option<String>>, FieldError> {
        if self.description.is_none() {
            return Ok(None);
        }
        let Some(text) = text("description", self.description)? else { return Ok(Some(None)) };
        limit_chars(&text, DESCRIPTION_CHARS_MAX)
            .map_err(|problem| FieldError::new("description", problem))?;
        Ok(Some(Some(text.into_owned())))
    }

    /// `priority`; `None` if absent or null.
    pub(super) fn priority(&self) -> Result<Option<Priority>, FieldError> {
        let problem = Problem::Invalid("low, medium, high or urgent");
        let Some(raw) = present(self.priority) else { return Ok(None) };
        json::string(raw)
            .and_then(|name| Priority::parse(&name))
            .map(Some)
            .ok_or(FieldError::new("priority", problem))
    }

    /// `due_date`; `Some(None)` is null.
    pub(super) fn due_date(&self) -> Result<Option<Option<i64>>, FieldError> {
        if self.due_date.is_none() {
            return Ok(None);
        }
        instant("due_date", self.due_date).map(Some)
    }

    /// Whether `completed_at` is null, so that a task that is done would have none.
    pub fn clears_completed_at(&self) -> bool {
        self.completed_at == Some("null")
    }

    /// `completed_at`; `None` if absent or null.
    pub(super) fn completed_at(&self) -> Result<Option<i64>, FieldError> {
        instant("completed_at", self.completed_at)
    }

    /// `completed`; `None` if absent or null.
    ///
    /// # Errors
    /// It is neither true nor false.
    pub fn completed(&self) -> Result<Option<bool>, FieldError> {
        match present(self.completed) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(FieldError::new("completed", Problem::Invalid("true or false"))),
        }
    }

    /// `labels`, each once; `None` if absent or null.
    fn labels(&self) -> Result<Option<Vec<String>>, FieldError> {
        let Some(raw) = present(self.labels) else { return Ok(None) };
        let items: Vec<Cow<'_, str>> = serde_json::from_str::<Vec<Label<'_>>>(raw)
            .map_err(|_| FieldError::new("labels", Problem::Invalid("an array of strings")))?
            .into_iter()
            .map(|label| label.0)
            .collect();
        let mut labels: Vec<String> = Vec::with_capacity(items.len().min(LABELS_MAX));
        for (index, label) in items.into_iter().enumerate() {
            let at = |problem| FieldError {
                field: Cow::Borrowed("labels"),
                index: Some(index),
                problem,
            };
            if label.is_empty() {
                return Err(at(Problem::Empty));
            }
            limit_chars(&label, LABEL_CHARS_MAX).map_err(at)?;
            if labels.iter().any(|known| *known == label) {
                continue;
            }
            if labels.len() == LABELS_MAX {
                return Err(FieldError::new("labels", Problem::TooLong(LABELS_MAX, "labels")));
            }
            labels.push(label.into_owned());
        }
        Ok(Some(labels))
    }
}

#[derive(serde::Deserialize)]
struct Label<'a>(#[serde(borrow)] Cow<'a, str>);

/// The member, unless it is absent or null.
fn present(member: Option<&str>) -> Option<&str> {
    member.filter(|raw| *raw != "null")
}

fn text<'a>(
    field: &'static str,
    member: Option<&'a str>,
) -> Result<Option<Cow<'a, str>>, FieldError> {
    let Some(raw) = present(member) else { return Ok(None) };
    json::string(raw).map(Some).ok_or(FieldError::new(field, Problem::Invalid("a string")))
}

fn instant(field: &'static str, member: Option<&str>) -> Result<Option<i64>, FieldError> {
    let Some(raw) = present(member) else { return Ok(None) };
    json::string(raw)
        .and_then(|text| time::parse(&text))
        .map(Some)
        .ok_or(FieldError::new(field, Problem::Invalid("a time as in RFC 3339")))
}

/// The text of an id: a string, or the digits of an integer as they were written.
pub(super) fn id_text<'a>(
    field: &'static str,
    member: Option<&'a str>,
) -> Result<Option<Cow<'a, str>>, FieldError> {
    let Some(raw) = present(member) else { return Ok(None) };
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Some(Cow::Borrowed(raw)));
    }
    json::string(raw)
        .map(Some)
        .ok_or(FieldError::new(field, Problem::Invalid("a string or an integer")))
}

fn bad_id(field: &'static str, text: &str) -> FieldError {
    let problem = match text.len() {
        0 => Problem::Empty,
        1..=ID_BYTES_MAX => Problem::Invalid("free of control characters"),
        _ => Problem::TooLong(ID_BYTES_MAX, "bytes"),
    };
    FieldError::new(field, problem)
}

fn limit_chars(text: &str, max: usize) -> Result<(), Problem> {
    // Nearly every text has fewer bytes than it may have characters.
    let fits = text.len() <= max || text.chars().nth(max).is_none();
    fits.then_some(()).ok_or(Problem::TooLong(max, "characters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> (TaskId, UserId) {
        (TaskId::new("t").unwrap(), UserId::new("u").unwrap())
    }

    #[track_caller]
    fn check_new(body: &str, expected: Result<&str, (&str, &str)>) {
        let (id, user_id) = ids();
        let fields = Fields::parse(body.as_bytes()).unwrap();
        let found = fields.new_task(id, user_id);
        let found = found.map(|task| task.title).map_err(|e| (e.pointer(), e.to_string()));
        let expected = expected
            .map(str::to_owned)
            .map_err(|(pointer, text)| (pointer.to_owned(), text.to_owned()));
        assert_eq!(found, expected, "{body}");
    }

    #[test]
    fn a_new_task_is_checked_field_by_field() {
        check_new(r#"{"title":"a\u00e4"}"#, Ok("a\u{e4}"));
        check_new(r#"{"title":"a","description":null,"labels":null,"due_date":null}"#, Ok("a"));
        check_new("{}", Err(("/title", "title: missing")));
        check_new(r#"{"title":null}"#, Err(("/title", "title: missing")));
        check_new(r#"{"title":""}"#, Err(("/title", "title: must not be empty")));
        check_new(r#"{"title":7}"#, Err(("/title", "title: must be a string")));
        let priority = Err(("/priority", "priority: must be low, medium, high or urgent"));
        check_new(r#"{"title":"a","priority":"High"}"#, priority);
        let due = Err(("/due_date", "due_date: must be a time as in RFC 3339"));
        check_new(r#"{"title":"a","due_date":"soon"}"#, due);
        check_new(r#"{"title":"a","due_date":1767261600}"#, due);
        let empty = Err(("/labels/1", "labels[1]: must not be empty"));
        check_new(r#"{"title":"a","labels":["x",""]}"#, empty);
        let strings = Err(("/labels", "labels: must be an array of strings"));
        check_new(r#"{"title":"a","labels":["x",1]}"#, strings);
        let completed = Err(("/completed", "completed: must be false in a new task"));
        check_new(r#"{"title":"a","completed":true}"#, completed);
    }

    #[test]
    fn limits_count_characters() {
        let title = "\u{e4}".repeat(TITLE_CHARS_MAX);
        check_new(&format!("{{\"title\":\"{title}\"}}"), Ok(&title));
        let error = Err(("/title", "title: longer than 500 characters"));
        check_new(&format!("{{\"title\":\"{title}x\"}}"), error);
        let labels: Vec<String> = (0..=LABELS_MAX).map(|n| format!("\"l{n}\"")).collect();
        let fits = labels[..LABELS_MAX].join(",");
        check_new(&format!("{{\"title\":\"a\",\"labels\":[{fits},\"l0\"]}}"), Ok("a"));
        let error = Err(("/labels", "labels: longer than 32 labels"));
        check_new(&format!("{{\"title\":\"a\",\"labels\":[{}]}}", labels.join(",")), error);
    }

    #[test]
    fn null_clears_in_a_patch() {
        let patch = |body: &str| Fields::parse(body.as_bytes()).unwrap().patch();
        let all =
            patch(r#"{"description":null,"priority":null,"due_date":null,"labels":null}"#).unwrap();
        let cleared = TaskPatch {
            description: Some(None),
            priority: Some(Priority::Medium),
            due_date: Some(None),
            labels: Some(Vec::new()),
            ..TaskPatch::default()
        };
        assert_eq!(all, cleared);
        assert_eq!(patch("{}").unwrap(), TaskPatch::default());
        assert_eq!(patch(r#"{"title":null}"#).unwrap_err().code(), "null");
        assert_eq!(patch(r#"{"completed":null}"#).unwrap_err().code(), "null");
        assert_eq!(patch(r#"{"completed":0}"#).unwrap_err().code(), "invalid");
        let labels = patch(r#"{"labels":["b","a","b"]}"#).unwrap().labels.unwrap();
        assert_eq!(labels, ["b", "a"]);
    }

    #[test]
    fn ids_are_strings_or_integers() {
        let id = |body: &str| {
            let found = Fields::parse(body.as_bytes()).unwrap().id();
            found.map(|id| id.map(|id| id.to_string())).map_err(|error| error.code())
        };
        assert_eq!(id(r#"{"id":"a b"}"#), Ok(Some("a b".to_owned())));
        assert_eq!(id(r#"{"id":42}"#), Ok(Some("42".to_owned())));
        let big = format!("1{}", "0".repeat(30));
        assert_eq!(id(&format!("{{\"id\":{big}}}")), Ok(Some(big)));
        assert_eq!(id(r#"{"id":-1}"#), Ok(Some("-1".to_owned())));
        assert_eq!(id(r#"{"id":null}"#), Ok(None));
        assert_eq!(id("{}"), Ok(None));
        for bad in [r#"{"id":1.5}"#, r#"{"id":1e3}"#, r#"{"id":[1]}"#, r#"{"id":"a\n"}"#] {
            assert_eq!(id(bad), Err("invalid"), "{bad}");
        }
        assert_eq!(id(r#"{"id":""}"#), Err("empty"));
        assert_eq!(id(&format!("{{\"id\":\"{}\"}}", "x".repeat(129))), Err("too_long"));
    }

    #[test]
    fn unknown_and_read_only_members_are_told() {
        let fields = Fields::parse(br#"{"a/~b":1,"c":2,"version":3,"title":"x"}"#).unwrap();
        let error = fields.refuse_unknown().unwrap_err();
        assert_eq!((error.pointer().as_str(), error.code()), ("/a~1~0b", "unknown"));
        assert_eq!(fields.read_only, Some("version"));
        assert!(!fields.is_only_completed());
        assert!(Fields::parse(br#"{"completed":true,"id":1}"#).unwrap().is_only_completed());
        assert!(Fields::parse(br#"{"priority":"low"}"#).unwrap().is_only_priority());
    }
}
