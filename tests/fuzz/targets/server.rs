//! A daemon in this process, without its Kafka port, that inputs are sent to over loopback.

use std::{
    io::Read,
    net::{SocketAddr, TcpStream},
    sync::{Mutex, MutexGuard, OnceLock},
    time::Duration,
};
use taskwire::{
    auth,
    clock::Clock,
    config::{Config, Flags},
    daemon::Daemon,
    task::UserId,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const SECRET: &str = "fuzz-secret-fuzz-secret-fuzz-secret-fuzz";
/// Inputs until a new one begins with an empty directory, so that hours of fuzzing fill no disk.
const INPUTS_MAX: u32 = 50_000;
/// Time for the daemon to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The daemon, and one connection to it that is used again.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) token: String,
    pub(super) connection: Option<TcpStream>,
    inputs: u32,
    // In the order in which they must end.
    daemon: Option<Daemon>,
    runtime: Runtime,
    _dir: TempDir,
}

/// The one server; begun anew now and then.
pub(super) fn server() -> MutexGuard<'static, Server> {
    static SERVER: OnceLock<Mutex<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(|| Mutex::new(Server::start()));
    let mut server = server.lock().unwrap_or_else(|poisoned| {
        // The last input failed; the next gets a daemon of its own.
        let mut server = poisoned.into_inner();
        server.inputs = INPUTS_MAX;
        server
    });
    server.inputs += 1;
    if server.inputs > INPUTS_MAX {
        *server = Server::start();
    }
    server
}

impl Server {
    fn start() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let environment = [
            ("TASKWIRE_DATA_DIR", dir.path().display().to_string()),
            ("TASKWIRE_HTTP_LISTEN", "127.0.0.1:0".to_owned()),
            ("TASKWIRE_KAFKA_LISTEN", "none".to_owned()),
            ("TASKWIRE_DURABILITY", "os".to_owned()),
            // Nothing is to be refused for being one of many.
            ("TASKWIRE_HTTP_RATE_PER_USER", "off".to_owned()),
            ("TASKWIRE_SOCKET_RATE", "off".to_owned()),
            ("TASKWIRE_JWT_SECRET", SECRET.to_owned()),
        ];
        let environment =
            environment.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let config = Config::resolve(&Flags::default(), environment).expect("a configuration");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let daemon = runtime.block_on(async {
            let mut daemon = Daemon::start(config, Clock::system()).await.expect("it starts");
            daemon.ready().await.expect("it is ready");
            daemon
        });
        let user = UserId::new("ada").expect("a user id");
        let grant = auth::Grant::new(&user, 86_400);
        let token = auth::sign(SECRET.as_bytes(), grant, &Clock::system());
        let address = daemon.endpoints().http[0];
        let daemon = Some(daemon);
        Self { address, token, connection: None, inputs: 0, daemon, runtime, _dir: dir }
    }

    /// A connection of its own, which leaves no port behind when it is dropped.
    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_nodelay(true).expect("an option");
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("an option");
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _runtime = self.runtime.enter();
        drop(self.daemon.take());
    }
}

/// Reads a response's head, up to and with its empty line.
pub(super) fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Ok(_) => break,
            Err(error) => panic!("no answer: {error}"),
        }
    }
    String::from_utf8(head).expect("ASCII")
}
