//! Addresses: what a URL or `host:port` names, and how far away that is.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::Uri;

/// How far a host is away, by its name alone: names are not resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// This machine.
    Loopback,
    /// A private address, or a name without a dot, which only a private network resolves.
    Private,
    /// Anywhere.
    Public,
}

impl Reach {
    /// Of an address or a name.
    pub fn of(host: &str) -> Reach {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(address) => Reach::of_address(address),
            Err(_) if bare == "localhost" || bare.ends_with(".localhost") => Reach::Loopback,
            Err(_) if !bare.contains('.') => Reach::Private,
            Err(_) => Reach::Public,
        }
    }

    fn of_address(address: IpAddr) -> Reach {
        let is_private = |v6: Ipv6Addr| v6.is_unique_local() || v6.is_unicast_link_local();
        match address.to_canonical() {
            address if address.is_loopback() => Reach::Loopback,
            IpAddr::V4(v4) if v4.is_private() || v4.is_link_local() => Reach::Private,
            IpAddr::V6(v6) if is_private(v6) => Reach::Private,
            _ => Reach::Public,
        }
    }
}

/// An http or https address, taken apart as far as it is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub is_https: bool,
    pub host: String,
    pub port: Option<u16>,
    /// Whether `user:password@` stands in it.
    pub has_credentials: bool,
}

impl Url {
    /// `None` if it is not `http://` or `https://` and a host.
    pub fn parse(text: &str) -> Option<Url> {
        let uri: Uri = text.parse().ok()?;
        let is_https = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?.to_owned();
        let authority = uri.authority()?.as_str();
        // A colon with something behind it that is no port is no address.
        let after_host = authority.rsplit_once(&host).map_or("", |(_, rest)| rest);
        if !after_host.is_empty() && uri.port_u16().is_none() {
            return None;
        }
        Some(Url { is_https, host, port: uri.port_u16(), has_credentials: authority.contains('@') })
    }
}

/// `host:port`: the host, if both are there.
pub(super) fn host_of(text: &str) -> Option<&str> {
    let (host, port) = text.rsplit_once(':')?;
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let is_host = match is_bracketed {
        true => host[1..host.len() - 1].parse::<Ipv6Addr>().is_ok(),
        false => !host.is_empty() && host.chars().all(allowed),
    };
    (is_host && port.parse::<u16>().is_ok_and(|port| port > 0)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reach_is_told_from_the_name() {
        let check = |hosts: &[&str], reach: Reach| {
            for host in hosts {
                assert_eq!(Reach::of(host), reach, "{host}");
            }
        };
        check(&["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "a.localhost"], Reach::Loopback);
        check(&["::ffff:127.0.0.1"], Reach::Loopback);
        check(&["10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.1.1"], Reach::Private);
        check(&["[fd00::1]", "fe80::1", "bitcoind", "pool-backend"], Reach::Private);
        check(&["8.8.8.8", "172.32.0.1", "2001:db8::1", "pool.example", "0.0.0.0"], Reach::Public);
    }

    #[test]
    fn urls_are_taken_apart() {
        let url = Url::parse("http://bitcoind:8332").unwrap();
        assert_eq!((url.is_https, url.host.as_str(), url.port), (false, "bitcoind", Some(8332)));
        let url = Url::parse("https://pool.example/shares?x=1").unwrap();
        assert_eq!((url.is_https, url.host.as_str(), url.port), (true, "pool.example", None));
        assert!(Url::parse("http://user:password@node:1").unwrap().has_credentials);
        assert_eq!(Url::parse("http://[::1]:9090/").unwrap().host, "[::1]");
        for wrong in
            ["", "node:8332", "ftp://a", "http://", "http:///x", "http://a:b", "http://a b"]
        {
            assert_eq!(Url::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn hosts_have_ports() {
        assert_eq!(host_of("127.0.0.1:5001"), Some("127.0.0.1"));
        assert_eq!(host_of("[::1]:5001"), Some("[::1]"));
        assert_eq!(host_of("pool-verifier:5001"), Some("pool-verifier"));
        for wrong in ["", "5001", ":5001", "a:", "a:0", "a:70000", "::1:5001", "a b:1", "a:1/x"] {
            assert_eq!(host_of(wrong), None, "{wrong}");
        }
    }
}
