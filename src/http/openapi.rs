//! `/openapi.json`: the description of every route.
//!
//! The document is kept as it is read. What it says of types is made from them by the tests here,
//! and compared: a limit, a code, an order or a field that changes in the code fails until the
//! document says it too. `tests/it/cross_user.rs` compares its paths with the running router, and
//! schemathesis what it promises with the answers.

use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
};

const DOCUMENT: &str = include_str!("openapi.json");

/// `GET /openapi.json`
pub(super) async fn document() -> Response<Body> {
    let mut response = Response::new(Body::from(DOCUMENT));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        http::{batch, list, problem::Code},
        store::PAGE_ROWS_MAX,
        task::{
            DESCRIPTION_CHARS_MAX, LABEL_CHARS_MAX, LABELS_MAX, Priority, TITLE_CHARS_MAX, Task,
            TaskId, UserId, field::Fields, transition::Reason,
        },
    };
    use serde_json::{Value, json};

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    fn schema(name: &str) -> Value {
        document()["components"]["schemas"][name].clone()
    }

    #[test]
    fn what_the_description_says_of_fields_is_what_the_types_say() {
        let label = json!({"type": "string", "minLength": 1, "maxLength": LABEL_CHARS_MAX});
        let names = [Priority::Low, Priority::Medium, Priority::High, Priority::Urgent];
        let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        for (name, expected) in [
            ("Priority", json!({"type": "string", "enum": names.map(Priority::as_str)})),
            ("Title", json!({"type": "string", "minLength": 1, "maxLength": TITLE_CHARS_MAX})),
            (
                "Description",
                json!({"type": ["string", "null"], "maxLength": DESCRIPTION_CHARS_MAX}),
            ),
            (
                "Labels",
                json!({"type": ["array", "null"], "maxItems": LABELS_MAX,
                    "description": "each once", "items": label}),
            ),
            ("Reason", json!({"type": "string", "enum": reasons})),
        ] {
            assert_eq!(schema(name), expected, "{name} must be {expected}");
        }
        let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(schema("Problem")["properties"]["code"]["enum"], json!(codes), "{codes:?}");
    }

    #[test]
    fn the_described_task_has_the_fields_of_a_task() {
        let task = Task {
            id: TaskId::new("t").unwrap(),
            title: "t".into(),
            description: None,
            user_id: UserId::new("u").unwrap(),
            priority: Priority::Low,
            due_date: None,
            labels: Vec::new(),
            completed: false,
            completed_at: None,
            created_at: 0,
            updated_at: 0,
            version: 1,
        };
        let task: Value = serde_json::from_slice(&task.to_json()).unwrap();
        let mut fields: Vec<_> = task.as_object().unwrap().keys().cloned().collect();
        let described = schema("Task");
        let mut properties: Vec<_> =
            described["properties"].as_object().unwrap().keys().cloned().collect();
        let mut required: Vec<String> =
            serde_json::from_value(described["required"].clone()).unwrap();
        for names in [&mut fields, &mut properties, &mut required] {
            names.sort_unstable();
        }
        assert_eq!((&properties, &required), (&fields, &fields));
        // What a body may set is what is read of it.
        for (name, whole) in [
            ("NewTask", schema("NewTask")),
            ("TaskPatch", schema("TaskPatch")),
            ("TaskReplacement", schema("TaskReplacement")["anyOf"][0].clone()),
        ] {
            let mut settable = fields.clone();
            settable.retain(|field| {
                let body = json!({ field: null }).to_string();
                let fields = Fields::parse(body.as_bytes()).unwrap();
                let is_id = field == "id" || field == "user_id";
                let is_later = name == "NewTask" && field == "completed_at";
                fields.read_only.is_none() && fields.unknown.is_none() && !is_id && !is_later
            });
            let mut described: Vec<_> =
                whole["properties"].as_object().unwrap().keys().cloned().collect();
            described.sort_unstable();
            assert_eq!(described, settable, "{name}");
        }
    }

    #[test]
    fn the_described_list_takes_what_the_list_takes() {
        let document = document();
        let parameters = document["paths"]["/api/tasks"]["get"]["parameters"].clone();
        let parameter = |name: &str| {
            let all = parameters.as_array().unwrap().iter();
            all.clone().find(|one| one["name"] == name).unwrap()["schema"].clone()
        };
        let orders = list::ORDERS.map(|(name, _)| [name.to_owned(), format!("-{name}")]);
        assert_eq!(parameter("sort")["enum"], json!(orders.concat()));
        assert_eq!(parameter("limit")["maximum"], PAGE_ROWS_MAX);
        assert_eq!(parameter("label")["maxLength"], LABEL_CHARS_MAX);
        let body = &document["paths"]["/api/tasks"]["post"]["requestBody"];
        let body = &body["content"]["application/json"]["schema"]["oneOf"][1];
        assert_eq!(body["maxItems"], batch::TASKS_MAX);
    }

    #[test]
    fn the_description_is_of_this_version_and_every_reference_has_an_end() {
        let document = document();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let references: Vec<_> = DOCUMENT.split("\"$ref\": \"#").skip(1).collect();
        assert!(references.len() > 20);
        for rest in references {
            let pointer = rest.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
