//! The broker over real sockets, with kafka-protocol as the client.

mod client;
mod writing;

use super::{Broker, Durability, Options};
use crate::{clock::Clock, metrics::Metrics, position::TopicName, shutdown};
use client::Client;
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};
use tokio::{net::TcpListener, task::JoinHandle};

/// A broker that serves a port of its own.
struct Served {
    broker: Broker,
    metrics: Arc<Metrics>,
    address: SocketAddr,
    trigger: shutdown::Trigger,
    serving: JoinHandle<()>,
}

fn options(data_dir: &Path) -> Options {
    Options {
        data_dir: data_dir.to_owned(),
        durability: Durability::Commit,
        advertise: None,
        partitions_default: 1,
        message_bytes_max: 1_048_588,
        connections_max: 100,
        reserved_topics: vec![TopicName::new("task-events").unwrap()],
        reserved_group: "taskwire".to_owned(),
    }
}

async fn serve(data_dir: &Path) -> Served {
    serve_with(options(data_dir)).await
}

async fn serve_with(options: Options) -> Served {
    let metrics = Arc::new(Metrics::new());
    let broker = Broker::start(options, Clock::system(), Arc::clone(&metrics)).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (trigger, shutdown) = shutdown::pair();
    let serving = {
        let broker = broker.clone();
        tokio::spawn(async move { broker.serve(listener, shutdown, Duration::from_secs(5)).await })
    };
    Served { broker, metrics, address, trigger, serving }
}

impl Served {
    async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Stops as the daemon does.
    async fn stop(self) -> Result<(), String> {
        self.trigger.fire();
        self.serving.await.unwrap();
        self.broker.close().await
    }

    /// Ends without any clean mark, as a crash would, but for what the system has written.
    async fn crash(self) {
        self.serving.abort();
        // An aborted worker has an error, which is what is asked for.
        drop(self.serving.await);
        let meta = self.broker.meta().clone();
        drop(self.broker);
        tokio::task::spawn_blocking(move || meta.close()).await.unwrap();
    }
}
