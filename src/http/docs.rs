//! `/docs`: a page that shows `/openapi.json`, and loads nothing from outside.

use super::page::{HTML, SCRIPT, STYLE, describe};
use axum::{body::Body, http::Response};

/// What the page may do: its own script and style, and ask us.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /docs`
pub(super) async fn page() -> Response<Body> {
    file(HTML, include_str!("docs/page.html"))
}

/// `GET /docs/script.js`
pub(super) async fn script() -> Response<Body> {
    file(SCRIPT, include_str!("docs/script.js"))
}

/// `GET /docs/style.css`
pub(super) async fn style() -> Response<Body> {
    file(STYLE, include_str!("docs/style.css"))
}

fn file(kind: &'static str, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    describe(response.headers_mut(), kind, POLICY);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::header;

    #[tokio::test]
    async fn the_page_may_run_its_own_files_only_and_names_no_other_origin() {
        for response in [page().await, script().await, style().await] {
            let policy = &response.headers()[header::CONTENT_SECURITY_POLICY];
            assert!(policy.to_str().unwrap().starts_with("default-src 'none'; script-src 'self';"));
            assert!(!policy.to_str().unwrap().contains("unsafe"));
            let text = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
            let text = str::from_utf8(&text).unwrap();
            for bad in ["//", "http:", "https:", "innerHTML", "eval(", " style=", "onclick"] {
                let is_comment = bad == "//" && text.starts_with("// Shows");
                let count = text.matches(bad).count();
                assert_eq!(count, usize::from(is_comment), "{bad}");
            }
            assert_eq!(
                text.matches("<script").count(),
                text.matches("<script type=\"module\" src=\"/docs").count()
            );
        }
    }
}
