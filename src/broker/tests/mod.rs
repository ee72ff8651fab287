//! The broker over real sockets, with kafka-protocol as the client.

mod client;
mod damage;
mod excess;
mod fetching;
mod owner;
mod port;
mod restarts;
mod topics;
mod wire_abuse;
mod writing;

use super::{Broker, Durability, Options, limits::PortOptions};
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
        port: PortOptions::default(),
        reserved_topics: vec![TopicName::new("task-events").unwrap()],
        closed_topics: vec![TopicName::new("closed").unwrap()],
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

    /// What a kill at this moment would leave on disk.
    fn crash_image(&self, data_dir: &Path) -> tempfile::TempDir {
        let image = tempfile::tempdir().unwrap();
        copy(data_dir, image.path());
        image
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            match std::fs::copy(entry.path(), target) {
                // A temporary file that got its name meanwhile, as a kill may find it, too.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
                copied => drop(copied.unwrap()),
            }
        }
    }
}
