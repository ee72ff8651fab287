//! How verbs reach the admin routes of a running daemon: by the socket in its data directory, or by
//! address and token.

use super::{
    Failure,
    http_client::{Answer, HttpClient},
};
use crate::{
    config::{Config, Flags},
    daemon,
};
use bytes::Bytes;
use clap::Args;
use http::Method;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// Arguments of verbs that administrate a running daemon.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct AdminArgs {
    /// Address of the daemon, as http://HOST:PORT; without it, the socket in our data directory
    #[arg(long, value_name = "URL")]
    http: Option<String>,
    /// An administrator's token, for --http
    #[arg(long, requires = "http", conflicts_with = "token_file")]
    token: Option<String>,
    /// File with an administrator's token, for --http
    #[arg(long, value_name = "FILE", requires = "http")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

impl AdminArgs {
    /// The client for these arguments; nothing is connected yet.
    pub(super) fn client(self, outer: &Flags) -> Result<AdminClient, Failure> {
        if let Some(url) = &self.http {
            let token = match self.token_file {
                Some(path) => Some(read_token(&path)?),
                None => self.token,
            };
            let http = HttpClient::new(url.parse().map_err(Failure::Usage)?, token);
            return Ok(AdminClient { http });
        }
        let config = Config::load(&self.flags.or(outer))?;
        let socket = daemon::admin_socket(&config.data_dir);
        daemon::check_admin_socket(&socket).map_err(|reason| {
            Failure::Failed(format!("{reason}, or give the daemon's address with --http URL"))
        })?;
        Ok(AdminClient { http: HttpClient::by_socket(socket) })
    }
}

fn read_token(path: &PathBuf) -> Result<String, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::Failed(format!("cannot read {}: {error}", path.display())))?;
    Ok(text.trim().to_owned())
}

/// A client of the admin routes. JSON in, JSON out; a refusal is a [`Failure`] in words.
#[derive(Clone, Debug)]
pub(super) struct AdminClient {
    http: HttpClient,
}

impl AdminClient {
    /// The daemon whose socket is in this data directory.
    pub(super) fn local(data_dir: &Path) -> Self {
        Self { http: HttpClient::by_socket(daemon::admin_socket(data_dir)) }
    }

    /// With so much time for one request, where the daemon has much to do for it.
    #[must_use]
    pub(super) fn with_timeout(mut self, timeout: Duration) -> Self {
        self.http = self.http.with_timeout(timeout);
        self
    }

    /// GET
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.request(Method::GET, path, None).await?.json())
    }

    /// POST
    pub(super) async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let body = body.map(|body| (JSON, Bytes::from(body.to_string())));
        Ok(self.request(Method::POST, path, body).await?.json())
    }

    /// POST of bytes as they are.
    pub(super) async fn post_bytes(&self, path: &str, body: Bytes) -> Result<Value, Failure> {
        Ok(self.request(Method::POST, path, Some((BYTES, body))).await?.json())
    }

    /// Gives every item of a list to `each`, page by page.
    pub(super) async fn list(
        &self,
        path: &str,
        mut each: impl FnMut(&Value) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut path = path.to_owned();
        loop {
            let answer = self.request(Method::GET, &path, None).await?;
            let page = answer.json();
            for item in page.as_array().into_iter().flatten() {
                each(item)?;
            }
            match answer.header("link").and_then(next_page) {
                Some(next) => next.clone_into(&mut path),
                None => return Ok(()),
            }
        }
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
    ) -> Result<Answer, Failure> {
        let answer = self.http.send(method, path, body, &[]).await.map_err(Failure::Failed)?;
        if answer.status.is_success() { Ok(answer) } else { Err(refused(&answer)) }
    }
}

/// The target of `<...>; rel="next"`.
fn next_page(link: &str) -> Option<&str> {
    link.strip_suffix("; rel=\"next\"")?.strip_prefix('<')?.strip_suffix('>')
}

/// A problem document in words.
fn refused(answer: &Answer) -> Failure {
    let problem = answer.json();
    let text = |name: &str| problem[name].as_str().map(str::to_owned);
    let Some(title) = text("title") else {
        return Failure::Failed(format!("the daemon answered {}", answer.status));
    };
    let code = text("code").unwrap_or_default();
    let hint = match code.as_str() {
        "token_missing" | "admin_required" => "; sign one with `taskwire token --admin`",
        _ => "",
    };
    let detail = text("detail").map(|detail| format!(": {detail}")).unwrap_or_default();
    Failure::Failed(format!("{title}{detail} ({code}){hint}"))
}
