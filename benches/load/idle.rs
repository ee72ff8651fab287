//! What an idle WebSocket costs.

use super::{client::upgrade, daemon::Daemon};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const USERS: usize = 1_000;

pub(crate) async fn idle(count: usize) -> Value {
    let daemon = Daemon::start().await;
    let mut sockets = vec![open(&daemon, 0).await.expect("a first socket")];
    let before = daemon.usage();
    while sockets.len() < count {
        match open(&daemon, sockets.len()).await {
            Some(socket) => sockets.push(socket),
            None => break, // out of descriptors
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await; // what the handshakes left is freed
    let after = daemon.usage();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let later = daemon.usage();
    json!({
        "sockets": sockets.len(),
        "kb_per_socket": (after.resident_kb - before.resident_kb) as f64 / sockets.len() as f64,
        "handshake_cpu_us": (after.cpu_s - before.cpu_s) * 1e6 / sockets.len() as f64,
        "idle_cpu_share": (later.cpu_s - after.cpu_s) / 10.0,
    })
}

async fn open(daemon: &Daemon, number: usize) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(daemon.http).await.ok()?;
    let token = daemon.token(&format!("user-{}", number % USERS));
    let request = upgrade(daemon.http, &format!("token={token}"));
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.ok()?;
    head.ends_with(b"101").then_some(stream)
}
