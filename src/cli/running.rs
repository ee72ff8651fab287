//! Finding a running daemon: by the address that was given, else by its data directory.

use super::{
    Failure,
    http_client::{Base, HttpClient},
};
use crate::{
    auth,
    clock::Clock,
    config::{Config, Flags},
    daemon::Endpoints,
    task::UserId,
};
use clap::Args;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Arguments of verbs that ask a running daemon.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct RunningArgs {
    /// Address of the daemon, as http://HOST:PORT; without it, the one that uses our data directory
    #[arg(long, value_name = "URL")]
    pub(super) http: Option<String>,
    #[command(flatten)]
    pub(super) flags: Flags,
}

impl RunningArgs {
    /// The daemon's address and the configuration that found it.
    pub(super) fn find(self, outer: &Flags) -> Result<(Base, Config), Failure> {
        let config = Config::load(&self.flags.or(outer))?;
        let base = match self.http {
            Some(url) => url.parse().map_err(Failure::Usage)?,
            None => Base::of(address(&config)),
        };
        Ok((base, config))
    }
}

/// A client of that daemon without a token.
pub(super) fn client(base: Base) -> HttpClient {
    HttpClient::new(base, None)
}

/// A token for `user_id`, signed with the secret that the daemon of this configuration uses.
pub(super) fn sign(config: &Config, user_id: &UserId, ttl_s: u64) -> Result<String, Failure> {
    let secret = config.existing_secret()?;
    Ok(auth::sign(secret.expose(), config.grant(user_id, ttl_s), &Clock::system()))
}

/// The announced address, else the configured one.
fn address(config: &Config) -> SocketAddr {
    let announced =
        Endpoints::read(&config.data_dir).ok().and_then(|found| found.http.first().copied());
    reachable(announced.unwrap_or(config.http_listen[0]))
}

/// `http://ADDRESS` of a daemon, from this machine.
pub(super) fn base_url(endpoints: &Endpoints) -> String {
    match endpoints.http.first() {
        Some(address) => format!("http://{}", reachable(*address)),
        None => String::new(),
    }
}

/// An address that listens on every interface is reached over loopback.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
