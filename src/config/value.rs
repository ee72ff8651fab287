//! Text of one setting becomes its typed value. Each function says what is allowed where it
//! refuses.

use crate::{
    auth::{self, JwksSource},
    broker::Durability,
    causes::chain,
    http::Rate,
};
use std::{net::SocketAddr, time::Duration};

/// Why a value is refused, and what is allowed, in one clause.
pub(super) type Refused = String;

/// `25s`, `50ms`, `10m`, `1h`, `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, Refused> {
    let refused = || {
        format!("{text:?} is no duration; allowed is a number and a unit: 50ms, 25s, 10m, 1h, 7d")
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refused())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(refused()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(refused)
}

/// A number from 1 on; `_` may group its digits.
pub(super) fn count(text: &str) -> Result<u64, Refused> {
    text.replace('_', "")
        .parse()
        .ok()
        .filter(|count| *count > 0)
        .ok_or_else(|| format!("{text:?} is no count; allowed is a whole number from 1 on"))
}

/// [`count`] for bounds of things in memory.
pub(super) fn size(text: &str) -> Result<usize, Refused> {
    usize::try_from(count(text)?).map_err(|_| format!("{text} is too large"))
}

/// A value, or `off`.
pub(super) fn or_off<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, Refused>,
) -> Result<Option<T>, Refused> {
    if text == "off" { Ok(None) } else { parse(text).map(Some) }
}

/// A duration; `off` and `0` are none.
pub(super) fn duration_or_off(text: &str) -> Result<Option<Duration>, Refused> {
    if text == "0" { Ok(None) } else { or_off(text, duration) }
}

/// `2000/s,10000`: so many each second (`/m`: minute, `/h`: hour), and so many at once.
pub(super) fn rate(text: &str) -> Result<Rate, Refused> {
    let refused = || {
        format!("{text:?} is no rate; allowed are COUNT/s,BURST (or /m, /h), as 100/s,500, and off")
    };
    let (often, burst) = text.split_once(',').ok_or_else(refused)?;
    let (number, unit) = often.trim().split_once('/').ok_or_else(refused)?;
    let period_s = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(refused()),
    };
    let small = |text: &str| u32::try_from(count(text.trim())?).map_err(|_| refused());
    Rate::new(small(number)?, Duration::from_secs(period_s), small(burst)?).ok_or_else(refused)
}

/// `64MiB`, `1GiB`, `512KiB`, or plain bytes; at least `min`.
pub(super) fn bytes(text: &str, min: usize) -> Result<usize, Refused> {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'_').count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => Some(0),
        "KiB" => Some(10),
        "MiB" => Some(20),
        "GiB" => Some(30),
        _ => None,
    };
    let number: Option<usize> = number.replace('_', "").parse().ok();
    let bytes = number.zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes >= min).ok_or_else(|| {
        format!("{text:?} is no size; allowed is {} MiB or more, as 64MiB or 1GiB", min >> 20)
    })
}

/// `7d,1000000`, `7d` or `1000000`; the part that is left out comes from `default`.
pub(super) fn window(text: &str, default: (Duration, u64)) -> Result<(Duration, u64), Refused> {
    let (mut age, mut rows) = default;
    for part in text.split(',').map(str::trim) {
        if part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_') {
            rows = count(part)?;
        } else {
            age = duration(part)?;
        }
    }
    Ok((age, rows))
}

/// `127.0.0.1:8000`, `[::1]:8000`, or `localhost:8000`, which is both.
pub(super) fn listen(text: &str) -> Result<Vec<SocketAddr>, Refused> {
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse::<u16>().ok()) {
        return Ok(vec![
            SocketAddr::from(([127, 0, 0, 1], port)),
            SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)),
        ]);
    }
    text.parse().map(|address| vec![address]).map_err(|_| {
        format!(
            "{text:?} is no address to listen on; allowed are IP:PORT (127.0.0.1:8000, \
             [::1]:8000, 0.0.0.0:8000 for every interface) and localhost:PORT"
        )
    })
}

/// `HOST:PORT` as clients shall connect to it.
pub(super) fn host_port(text: &str) -> Result<(String, u16), Refused> {
    let refused =
        || format!("{text:?} is no address; allowed is HOST:PORT, an IPv6 host in brackets");
    let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(refused)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bare {
        Some(v6) => v6,
        None if host.contains(':') => return Err(refused()),
        None => host,
    };
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '@' | '[' | ']');
    if host.is_empty() || !host.chars().all(is_plain) {
        return Err(refused());
    }
    Ok((host.to_owned(), port))
}

/// `commit`, `os`, `interval:50ms`.
pub(super) fn durability(text: &str) -> Result<Durability, Refused> {
    match text {
        "commit" => Ok(Durability::Commit),
        "os" => Ok(Durability::Os),
        _ => match text.strip_prefix("interval:") {
            Some(interval) => duration(interval).map(Durability::Interval),
            None => Err(format!("{text:?} is not known; allowed are commit, interval:50ms, os")),
        },
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Refused> {
    choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        format!("{text:?} is not known; allowed are {}", names.join(", "))
    })
}

/// A JWKS file, which is read to see that it is good, or a URL.
pub(super) fn jwks(text: &str) -> Result<JwksSource, Refused> {
    let source = JwksSource::parse(text)?;
    if let JwksSource::File(path) = &source {
        auth::check_file(path).map_err(|error| chain(&error))?;
    }
    Ok(source)
}

/// An origin as browsers send it.
pub(super) fn origin(text: &str) -> Result<String, Refused> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_origin = rest.is_some_and(|host| {
        !host.is_empty()
            && host
                .chars()
                .all(|c| c.is_ascii_graphic() && !matches!(c, '/' | '?' | '#' | '@' | '*'))
    });
    is_origin.then(|| text.to_ascii_lowercase()).ok_or_else(|| {
        format!("{text:?} is no origin; allowed is https://HOST[:PORT] without a path")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["", "5", "s", "-5s", "5 s", "5w", "99999999999999999999d", "1.5s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_units_and_a_least() {
        assert_eq!(bytes("64MiB", 1), Ok(64 << 20));
        assert_eq!(bytes("1GiB", 1), Ok(1 << 30));
        assert_eq!(bytes("70_000", 65_536), Ok(70_000));
        for bad in ["", "MiB", "64MB", "64 MiB", "-1", "99999999999GiB", "31MiB"] {
            assert!(bytes(bad, 32 << 20).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_window_keeps_the_default_of_what_it_leaves_out() {
        let default = (Duration::from_secs(1), 10);
        assert_eq!(window("2h", default), Ok((Duration::from_secs(7_200), 10)));
        assert_eq!(window("5_000", default), Ok((Duration::from_secs(1), 5_000)));
        assert_eq!(window("1d,7", default), Ok((Duration::from_secs(86_400), 7)));
        assert!(window("", default).is_err());
        assert!(window("1d,x", default).is_err());
    }

    #[test]
    fn localhost_is_both_families() {
        assert_eq!(listen("localhost:1").expect("good").len(), 2);
        assert_eq!(listen("[::1]:80").expect("good").len(), 1);
        for bad in ["8000", ":8000", "example.org:80", "127.0.0.1", "localhost:99999"] {
            assert!(listen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_advertised_address_needs_host_and_port() {
        assert_eq!(host_port("kafka.example:9092"), Ok(("kafka.example".to_owned(), 9092)));
        assert_eq!(host_port("[::1]:9092"), Ok(("::1".to_owned(), 9092)));
        for bad in ["host", "host:0", ":9092", "::1:9092", "a/b:1", "host:x"] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_origin_has_no_path() {
        assert_eq!(origin("https://App.example"), Ok("https://app.example".to_owned()));
        for bad in ["*", "app.example", "https://", "https://a/b", "https://*.a", "ftp://a"] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }
}
