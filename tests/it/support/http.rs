//! A client of port 8000: one connection a request, nothing shared with the daemon's code.

use super::{TestDaemon, eventually};
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request,
    body::Bytes,
    client::conn::http1,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
    http::request,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("not JSON: {:?}", self.bytes))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

/// One user of the API.
#[derive(Clone)]
pub(crate) struct User {
    address: SocketAddr,
    token: Option<String>,
}

impl TestDaemon {
    pub(crate) fn user(&self, user: &str) -> User {
        User { address: self.http, token: Some(self.token(user)) }
    }

    pub(crate) fn with_token(&self, token: Option<&str>) -> User {
        User { address: self.http, token: token.map(str::to_owned) }
    }
}

impl User {
    pub(crate) async fn send(&self, request: request::Builder, body: Bytes) -> Answer {
        self.try_send(request, body).await.expect("an answer")
    }

    /// The answer; `None` if the connection ends before it.
    pub(crate) async fn try_send(&self, request: request::Builder, body: Bytes) -> Option<Answer> {
        let request = match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        };
        let request = request.header(HOST, self.address.to_string());
        let request = request.body(Full::new(body)).expect("a request");
        exchange(self.address, request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path), Bytes::new()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Request::delete(path), Bytes::new()).await
    }

    pub(crate) async fn write(&self, method: Method, path: &str, body: &Value) -> Answer {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(CONTENT_TYPE, "application/json");
        self.send(request, body.to_string().into()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.write(Method::POST, path, body).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.write(Method::PATCH, path, body).await
    }

    /// The task, once it is there.
    pub(crate) async fn task(&self, id: &str) -> Value {
        let path = format!("/api/tasks/{id}");
        eventually(&format!("task {id}"), async || {
            let answer = self.get(&path).await;
            (answer.status == 200).then(|| answer.json())
        })
        .await
    }

    /// Every task, page by page.
    pub(crate) async fn tasks(&self) -> Vec<Value> {
        let (mut tasks, mut path) = (Vec::new(), "/api/tasks?limit=1000".to_owned());
        loop {
            let answer = self.get(&path).await;
            assert_eq!(answer.status, 200, "{:?}", answer.bytes);
            tasks.extend(answer.json().as_array().expect("an array").iter().cloned());
            match next_page(answer.header("link")) {
                Some(next) => path = next,
                None => return tasks,
            }
        }
    }

    /// Waits until as many tasks are there; fails at once if there are more.
    pub(crate) async fn tasks_when(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} tasks"), async || {
            let tasks = self.tasks().await;
            assert!(tasks.len() <= count, "{} tasks, expected {count}", tasks.len());
            (tasks.len() == count).then_some(tasks)
        })
        .await
    }
}

/// The path of `Link: <...>; rel="next"`.
fn next_page(link: &str) -> Option<String> {
    let target = link.strip_suffix("; rel=\"next\"")?.strip_prefix('<')?.strip_suffix('>')?;
    let path = target.find("/api/").map(|at| &target[at..])?;
    Some(path.to_owned())
}

/// The status of a GET without a token; `None` while nobody listens.
pub(crate) async fn try_get(address: SocketAddr, path: &str) -> Option<u16> {
    let request = Request::get(path).header(HOST, address.to_string());
    let request = request.body(Full::new(Bytes::new())).expect("a request");
    exchange(address, request).await.map(|answer| answer.status)
}

async fn exchange(address: SocketAddr, request: Request<Full<Bytes>>) -> Option<Answer> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.ok()?;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.ok()?.to_bytes();
    driver.abort();
    Some(Answer { status: parts.status.as_u16(), headers: parts.headers, bytes })
}
