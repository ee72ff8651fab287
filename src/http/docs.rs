//! `/docs`: a page that shows `/openapi.json`, and loads nothing from outside.

use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
};

/// What the page may do: its own script and style, and ask us.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /docs`
pub(super) async fn page() -> Response<Body> {
    file("text/html; charset=utf-8", include_str!("docs/page.html"))
}

/// `GET /docs/script.js`
pub(super) async fn script() -> Response<Body> {
    file("text/javascript; charset=utf-8", include_str!("docs/script.js"))
}

/// `GET /docs/style.css`
pub(super) async fn style() -> Response<Body> {
    file("text/css; charset=utf-8", include_str!("docs/style.css"))
}

fn file(content_type: &'static str, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

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
