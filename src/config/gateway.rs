//! `[gateway]`: what the gateway is, whom it talks to, and how many may come.

use std::net::SocketAddr;
use std::path::PathBuf;

use work::payout::Network;

use super::address::{Reach, Url, host_of};
use super::hatch::Hatch;
use super::lacking::Lack;
use super::problem::Problem;
use super::reader::{Found, Reader};
use super::schema::{
    DATA_DIR, HTTP_API_KEY, HTTP_LISTEN_ADDR, LISTEN_ADDR, MAX_CONNECTIONS, MAX_CONNECTIONS_PER_IP,
    MODE, NETWORK, UPSTREAM_AUTH, UPSTREAM_FAILURE_POLICY, UPSTREAM_URL, VERIFIER_ADDR,
};
use super::secret::Secret;
use crate::mode::{FailurePolicy, Mode};

/// Shortest `http_api_key`, bytes.
const API_KEY_BYTES_MIN: usize = 16;

/// The product page's key, which everybody knows.
const API_KEY_SAMPLE: &str = "your-secret-here";

/// Keys or secrets that may stand in a list while one is exchanged.
pub(super) const ROTATION_MAX: usize = 8;

/// Most connections that can be configured.
const CONNECTIONS_MAX: u64 = 1_000_000;

/// Ports of a node's JSON-RPC, chain by chain.
const NODE_RPC_PORTS: [u16; 5] = [8_332, 18_332, 18_443, 38_332, 48_332];

/// The values; `None` where one is wrong or lacking.
pub(super) struct Gateway {
    pub mode: Option<Mode>,
    pub failure_policy: Option<FailurePolicy>,
    pub listen_addr: Option<SocketAddr>,
    pub verifier_addr: Option<String>,
    pub upstream_url: Option<String>,
    pub upstream_auth: Option<Secret>,
    pub http_api_keys: Option<Vec<Secret>>,
    pub http_listen_addr: Option<SocketAddr>,
    pub network: Option<Network>,
    pub data_dir: Option<PathBuf>,
    pub max_connections: Option<usize>,
    pub max_connections_per_ip: Option<usize>,
}

/// Read the section. `connections` is the default of `max_connections`.
pub(super) fn read<'t>(reader: &mut Reader<'t>, connections: &'t str) -> Gateway {
    let modes = [Mode::Shadow, Mode::Observe, Mode::Inline].map(|mode| (mode.name(), mode));
    let mode = reader.choice(MODE, &modes).map(|(mode, _)| mode);
    let networks = [Network::Main, Network::Testnet4, Network::Signet, Network::Regtest];
    let networks = networks.map(|network| (network.node_name(), network));
    Gateway {
        mode,
        failure_policy: failure_policy(reader, mode),
        listen_addr: listen_addr(reader, mode),
        verifier_addr: verifier_addr(reader),
        upstream_url: upstream_url(reader),
        upstream_auth: upstream_auth(reader),
        http_api_keys: http_api_keys(reader),
        http_listen_addr: http_listen_addr(reader),
        network: reader.choice(NETWORK, &networks).map(|(network, _)| network),
        data_dir: data_dir(reader),
        max_connections: max_connections(reader, connections),
        max_connections_per_ip: max_connections_per_ip(reader),
    }
}

fn failure_policy(reader: &mut Reader, mode: Option<Mode>) -> Option<FailurePolicy> {
    let policies =
        [("fail_closed", FailurePolicy::FailClosed), ("permit_all", FailurePolicy::PermitAll)];
    let (policy, found) = reader.choice(UPSTREAM_FAILURE_POLICY, &policies)?;
    let is_open = reader.hatches.is_open(Hatch::PermitAllInline);
    if policy == FailurePolicy::PermitAll && mode == Some(Mode::Inline) && !is_open {
        let mend = format!(
            "{}, or set {}=1 for a trial",
            found.assignment("\"fail_closed\""),
            Hatch::PermitAllInline.name()
        );
        let expected = "fail_closed with mode inline: no job without a verdict reaches a miner";
        reader.refuse(&found, expected, &mend);
    }
    Some(policy)
}

fn listen_addr(reader: &mut Reader, mode: Option<Mode>) -> Option<SocketAddr> {
    if mode == Some(Mode::Shadow) {
        let found = reader.take_or(LISTEN_ADDR, "\"0.0.0.0:3333\"");
        reader.notes.push("gateway.listen_addr: not listened on in shadow mode".into());
        return reader.socket(found).map(|(address, _)| address);
    }
    let found = reader.take(LISTEN_ADDR);
    reader.socket(found).map(|(address, _)| address)
}

fn verifier_addr(reader: &mut Reader) -> Option<String> {
    let (text, found) = reader.text(VERIFIER_ADDR)?;
    let expected = "host:port of one pool-verifier";
    let mend = found.assignment("\"127.0.0.1:5001\"");
    if text.contains('@') || text.contains(',') {
        let expected = format!("{expected}; rules over several are not in this version yet");
        reader.refuse(&found, &expected, &mend);
        return None;
    }
    if text.contains('?') {
        let expected = format!("{expected}; keys for the link are not in this version yet");
        reader.refuse(&found, &expected, &mend);
        return None;
    }
    let Some(host) = host_of(&text) else {
        reader.refuse(&found, expected, &mend);
        return None;
    };
    if Reach::of(host) != Reach::Loopback {
        reader.warn(
            &found,
            &format!("the verifier on another host, {host}"),
            "loopback, or a network that nobody else is on: the link is not encrypted",
            "keep the verifier beside the gateway, or the link inside a tunnel",
        );
    }
    Some(text)
}

/// The address as a message may show it: without user and password.
pub(super) fn shown_url(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("\"{scheme}://***@{host}\""),
        None => format!("{text:?}"),
    }
}

fn upstream_url(reader: &mut Reader) -> Option<String> {
    let (text, found) = reader.text(UPSTREAM_URL)?;
    let got = shown_url(&text);
    let manager = found.assignment("\"http://127.0.0.1:8082\"");
    let later = match text.split_once("://").map_or("", |(scheme, _)| scheme) {
        "ipc" => Some("a node's mining interface (ipc://)"),
        "sv2+tcp" => Some("an SV2 Template Provider (sv2+tcp://)"),
        "demo" => Some("the simulated chain (demo://)"),
        _ => None,
    };
    if let Some(what) = later {
        let expected = format!("http:// or https://; {what} is no source in this version yet");
        let mend = match text.starts_with("demo:") {
            true => format!("{manager}, and source = \"demo://\" in template-manager.toml"),
            false => format!("{manager}, or http:// and a node's RPC port with upstream_auth"),
        };
        reader.refuse_as(&found, &got, &expected, &mend);
        return None;
    }
    let Some(url) = Url::parse(&text) else {
        let expected =
            "the http:// address of template-manager, or of a node's RPC with upstream_auth";
        reader.refuse_as(&found, &got, expected, &manager);
        return None;
    };
    if url.has_credentials {
        let expected = "an address without user and password";
        reader.refuse_as(&found, &got, expected, "move user:password to upstream_auth");
        return None;
    }
    plain_http(reader, &found, &url);
    let is_node = url.port.is_some_and(|port| NODE_RPC_PORTS.contains(&port));
    if is_node && !reader.is_given(UPSTREAM_AUTH) {
        let why = "upstream_url has the port of a node's RPC".to_owned();
        reader.lacking.push(Lack { key: UPSTREAM_AUTH, place: None, why });
    }
    Some(text.trim_end_matches('/').to_owned())
}

/// Plain http warns inside a private network, and needs the hatch beyond it (D41).
pub(super) fn plain_http(reader: &mut Reader, found: &Found, url: &Url) {
    if url.is_https {
        return;
    }
    let host = &url.host;
    let is_public = Reach::of(host) == Reach::Public;
    if is_public && !reader.hatches.is_open(Hatch::InsecureHttp) {
        let mend =
            format!("write https://{host}, or set {}=1 for a trial", Hatch::InsecureHttp.name());
        let expected = "https://; plain http only to loopback, private addresses and names without \
                        a dot";
        reader.refuse_as(found, &format!("plain http to the public host {host}"), expected, &mend);
        return;
    }
    let (mend, way) = match Reach::of(host) {
        Reach::Loopback => ("nothing, as long as it stays inside this machine", "on this machine"),
        Reach::Private => ("nothing, as long as nobody else is on that network", "on the way"),
        Reach::Public => ("write https://", "on the way"),
    };
    let got = format!("plain http to {host}: anybody {way} can read and change it");
    reader.warn(found, &got, "https://", mend);
}

fn upstream_auth(reader: &mut Reader) -> Option<Secret> {
    if !reader.is_given(UPSTREAM_AUTH) {
        reader.left_out(UPSTREAM_AUTH);
        return None;
    }
    let (text, found) = reader.text(UPSTREAM_AUTH)?;
    let is_right = match text.split_once(':') {
        Some(("cookie", path)) => !path.is_empty(),
        Some((user, _)) => !user.is_empty(),
        None => false,
    };
    if !is_right {
        let mend = found.assignment("\"cookie:/path/to/.cookie\"");
        reader.refuse(&found, "cookie: and the path of the node's cookie, or user:password", &mend);
        return None;
    }
    Some(Secret::new(text))
}

fn http_api_keys(reader: &mut Reader) -> Option<Vec<Secret>> {
    let may_be_left_out = reader.hatches.is_open(Hatch::InsecureHttp);
    if may_be_left_out && !reader.is_given(HTTP_API_KEY) {
        reader.left_out(HTTP_API_KEY);
        reader.notes.push("gateway.http_api_key: left out, so the API asks for none".into());
        return Some(Vec::new());
    }
    let found = reader.take(HTTP_API_KEY)?;
    let texts = reader.texts(&found, ROTATION_MAX)?;
    let mut keys = Vec::new();
    for (text, place) in &texts {
        if text == API_KEY_SAMPLE {
            let why = format!("which is still the sample's \"{API_KEY_SAMPLE}\"");
            reader.lacking.push(Lack { key: HTTP_API_KEY, place: Some(place.clone()), why });
            return None;
        }
        let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if text.len() < API_KEY_BYTES_MIN || !is_visible {
            reader.errors.push(Problem {
                place: place.clone(),
                key: HTTP_API_KEY.path.into(),
                got: format!("a text of {} bytes", text.len()),
                expected: format!(
                    "at least {API_KEY_BYTES_MIN} characters of ASCII, as a header can carry"
                ),
                mend: "put the output of `openssl rand -hex 24` there".into(),
            });
            continue;
        }
        keys.push(Secret::new(text.as_str()));
    }
    if texts.is_empty() {
        reader.refuse(&found, "at least one key", "put the output of `openssl rand -hex 24` there");
    }
    (!keys.is_empty() && keys.len() == texts.len()).then_some(keys)
}

fn http_listen_addr(reader: &mut Reader) -> Option<SocketAddr> {
    let found = reader.take(HTTP_LISTEN_ADDR);
    let (address, found) = reader.socket(found)?;
    if !address.ip().is_loopback() {
        reader.warn(
            &found,
            &format!("{address}, where others than this machine can ask"),
            "loopback: /metrics, /healthz and /readyz ask for no key",
            "listen on 127.0.0.1, or let a firewall admit Prometheus alone",
        );
    }
    Some(address)
}

fn data_dir(reader: &mut Reader) -> Option<PathBuf> {
    let (text, found) = reader.text(DATA_DIR)?;
    if text.is_empty() {
        let mend = found.assignment("\"/var/lib/reservegrid\"");
        reader.refuse(&found, "the path of a folder", &mend);
        return None;
    }
    Some(text.into())
}

fn max_connections<'t>(reader: &mut Reader<'t>, default: &'t str) -> Option<usize> {
    let found = reader.take_or(MAX_CONNECTIONS, default);
    usize::try_from(reader.number_of(found, 1..=CONNECTIONS_MAX)?.0).ok()
}

fn max_connections_per_ip(reader: &mut Reader) -> Option<usize> {
    let found = reader.take(MAX_CONNECTIONS_PER_IP);
    let (number, found) = reader.number_of(found, 0..=CONNECTIONS_MAX)?;
    if number == 0 {
        reader.warn(
            &found,
            "0, any number",
            "a limit: without one a single stranger can take every place",
            "the number of miners behind the address with the most, or 256",
        );
    }
    usize::try_from(number).ok()
}

/// Default of `max_connections`: nine tenths of the descriptors, and never those that are kept for
/// nodes, the verifier and the backend.
pub(super) fn connections_default(descriptors_max: u64, reserved: u64) -> u64 {
    let nine_tenths = descriptors_max / 10 * 9 + descriptors_max % 10 * 9 / 10;
    nine_tenths.min(descriptors_max.saturating_sub(reserved)).clamp(1, CONNECTIONS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_descriptors_are_for_miners_and_some_never() {
        let check = |limit: u64, expected: u64| {
            assert_eq!(connections_default(limit, 256), expected, "{limit}");
        };
        check(20_000, 18_000);
        check(1_024, 768);
        check(256, 1);
        check(u64::MAX, CONNECTIONS_MAX);
        check(18_460, 16_614);
    }

    #[test]
    fn credentials_in_addresses_are_not_shown() {
        assert_eq!(shown_url("http://a:b@c:1/x"), "\"http://***@c:1/x\"");
        assert_eq!(shown_url("http://c:1/x"), "\"http://c:1/x\"");
        assert_eq!(shown_url("a:b@c"), "\"://***@c\"");
    }
}
