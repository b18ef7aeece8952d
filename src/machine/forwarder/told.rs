//! What the forwarder tells of connections and channels: the fields of their events, behind the
//! envelope that the journal adds.

use journal::Record;
use serde::Serialize;

use crate::machine::output::{ChannelKind, ConnectionId, Device, Report};
use crate::reason::Reason;

/// `channel_opened`.
#[derive(Debug, Serialize)]
pub struct ChannelOpened<'a> {
    /// Connection of this gateway, as text: it has more than 53 bits.
    pub connection_id: String,
    /// Channel of the connection.
    pub channel_id: u32,
    /// Who is credited.
    pub miner_id: &'a str,
    /// `standard` or `extended`.
    pub kind: &'a str,
    /// Where it comes from.
    pub peer: String,
    /// What the miner says of itself, hashes a second.
    pub nominal_hash_rate: f32,
    /// First difficulty.
    pub difficulty: f64,
    /// By SetupConnection.
    pub vendor: &'a str,
    /// By SetupConnection.
    pub hardware_version: &'a str,
    /// By SetupConnection.
    pub firmware: &'a str,
    /// By SetupConnection.
    pub device_id: &'a str,
}

/// `channel_closed`.
#[derive(Debug, Serialize)]
pub struct ChannelClosed<'a> {
    /// Connection of this gateway.
    pub connection_id: String,
    /// Channel of the connection.
    pub channel_id: u32,
    /// Who was credited.
    pub miner_id: &'a str,
    /// Why.
    pub reason_code: &'a str,
    /// Event that says that it was opened.
    pub opened_event: u64,
}

#[derive(Debug, Serialize)]
struct ConnectionOpened<'a> {
    connection_id: String,
    peer: String,
    vendor: &'a str,
    hardware_version: &'a str,
    firmware: &'a str,
    device_id: &'a str,
    flags: u32,
}

#[derive(Debug, Serialize)]
struct ConnectionClosed<'a> {
    connection_id: String,
    peer: String,
    reason_code: &'a str,
}

#[derive(Debug, Serialize)]
struct AuthFailed<'a> {
    connection_id: String,
    peer: String,
    miner_id: Option<&'a str>,
    reason_code: &'a str,
}

/// A connection's number in events.
pub fn connection_id(connection: ConnectionId) -> String {
    connection.0.to_string()
}

impl<'a> ChannelOpened<'a> {
    /// With the device's texts.
    pub fn on(device: &'a Device, kind: ChannelKind) -> ChannelOpened<'a> {
        ChannelOpened {
            connection_id: String::new(),
            channel_id: 0,
            miner_id: "",
            kind: kind.name(),
            peer: String::new(),
            nominal_hash_rate: 0.0,
            difficulty: 0.0,
            vendor: &device.vendor,
            hardware_version: &device.hardware_version,
            firmware: &device.firmware,
            device_id: &device.device_id,
        }
    }
}

/// A record of an event of this kind. Its fields are plain texts and numbers, which always have a
/// JSON form.
pub fn record(kind: &str, body: &impl Serialize) -> Record {
    let body = serde_json::to_string(body).unwrap_or_else(|_| "{}".to_owned());
    Record::Told { kind: kind.into(), body: body.into() }
}

/// A report that is no refused share, as a record.
pub fn of_report(report: &Report) -> Option<(work::UnixTime, Record)> {
    match report {
        Report::Refused(_) => None,
        Report::ConnectionOpened { connection, peer, device, flags, at } => {
            let body = ConnectionOpened {
                connection_id: connection_id(*connection),
                peer: peer.to_string(),
                vendor: &device.vendor,
                hardware_version: &device.hardware_version,
                firmware: &device.firmware,
                device_id: &device.device_id,
                flags: *flags,
            };
            Some((*at, record("connection_opened", &body)))
        }
        Report::ConnectionClosed { connection, peer, reason_code, at } => {
            let (connection_id, peer) = (connection_id(*connection), peer.to_string());
            let body = ConnectionClosed { connection_id, peer, reason_code };
            Some((*at, record("connection_closed", &body)))
        }
        Report::AuthFailed { connection, peer, reason, miner_id, at } => {
            let body = AuthFailed {
                connection_id: connection_id(*connection),
                peer: peer.to_string(),
                miner_id: miner_id.as_deref(),
                reason_code: Reason::code(*reason),
            };
            Some((*at, record("auth_failed", &body)))
        }
    }
}
