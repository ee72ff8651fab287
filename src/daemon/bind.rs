//! Ports are bound before anything else, so that a taken one is told at once.

use super::StartError;
use rustix::net::sockopt::set_ipv6_v6only;
use std::{io, net::SocketAddr};
use tokio::net::{TcpListener, TcpSocket};
use tracing::warn;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 1_024;

/// Binds every address of one part; `flag` is the setting that names them. An IPv6 loopback that
/// this machine does not have is left out with a warning, unless it is the only address.
pub(super) fn bind_all(
    addresses: &[SocketAddr],
    flag: &'static str,
) -> Result<Vec<TcpListener>, StartError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    let mut missing = None;
    for address in addresses {
        match bind(*address, shares_its_port(*address, addresses)) {
            Ok(listener) => listeners.push(listener),
            Err(error) if is_ipv6_missing(*address, &error) => {
                warn!(%address, %error, "IPv6 is missing here, going on without this address");
                missing = Some(StartError::Bind { address: *address, flag, source: error });
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(StartError::AddressTaken { address: *address, flag });
            }
            Err(source) => return Err(StartError::Bind { address: *address, flag, source }),
        }
    }
    match missing {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok(listeners),
    }
}

fn bind(address: SocketAddr, is_v6_only: bool) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    if is_v6_only {
        set_ipv6_v6only(&socket, true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// `[::]:P` beside `0.0.0.0:P`: each takes its own family. Alone, `[::]:P` takes both.
fn shares_its_port(address: SocketAddr, all: &[SocketAddr]) -> bool {
    address.is_ipv6() && all.iter().any(|other| other.is_ipv4() && other.port() == address.port())
}

fn is_ipv6_missing(address: SocketAddr, error: &io::Error) -> bool {
    let is_unsupported =
        error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    address.is_ipv6() && (error.kind() == io::ErrorKind::AddrNotAvailable || is_unsupported)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_address_is_named_with_its_flag() {
        let any = [SocketAddr::from(([127, 0, 0, 1], 0))];
        let held = bind_all(&any, "--kafka-listen").expect("a free port");
        let taken = held[0].local_addr().expect("bound");
        let error = bind_all(&[taken], "--kafka-listen").expect_err("taken").to_string();
        assert!(error.contains(&format!("address {taken} is taken")), "{error}");
        assert!(error.contains("--kafka-listen"), "{error}");
    }

    #[tokio::test]
    async fn both_families_can_share_a_port() {
        let v4 = bind_all(&[SocketAddr::from(([0, 0, 0, 0], 0))], "--http-listen").expect("v4");
        let port = v4[0].local_addr().expect("bound").port();
        drop(v4);
        let both = [
            SocketAddr::from(([0, 0, 0, 0], port)),
            SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 0], port)),
        ];
        assert!(!bind_all(&both, "--http-listen").expect("both").is_empty());
    }
}
