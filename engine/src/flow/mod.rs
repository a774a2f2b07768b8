//! From records to exchanges: connections, order, gaps, and which response answers which request.
//!
//! ```text
//! record ─► connection ─► direction: order and gaps ─► wire decoder ─► request ─┐ pending, in order
//!                                                                    response ─┴► exchange
//! ```
//!
//! A connection's records all come from one ring, so whoever owns the ring owns the connection, and
//! nothing here is shared. Exchanges are paired by connection and order alone.

mod body;
mod conn;
mod context;
mod cutter;
#[cfg(any(test, feature = "fuzz"))]
pub mod exercise;
mod ids;
mod ordered;
mod pending;
mod socket;
mod streams;
mod tunnel;

use std::{collections::HashMap, hash::BuildHasherDefault, sync::Arc};

use agentsight_abi::{
    Direction, Kind, OpenInfo, RecordHeader,
    config::unwanted,
    flags, pressure,
    socket::{Endpoints, transport},
};
use bumpalo::Bump;

pub use self::ids::IdSource;
use self::{body::Pools, conn::Conn, ids::ConnIdHasher};
use crate::{
    exchange::{Exchange, Process, Role},
    genai,
    limits::{ARENAS_KEPT_MAX, CONNECTIONS_MAX},
    metrics::{Cause, Metrics, Total},
    network::Network,
    ring::Record,
    sys::clock::UnixOffset,
    wire::http1::Heads,
};

/// Which side's spans are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Roles {
    /// Calls that observed processes make.
    #[default]
    Client,
    /// Calls that observed processes answer.
    Server,
    /// Both.
    Both,
}

impl Roles {
    /// The sides that are not wanted, bits of [`agentsight_abi::config::unwanted`].
    pub fn unwanted(self) -> u32 {
        match self {
            Self::Client => unwanted::SERVERS,
            Self::Server => unwanted::CLIENTS,
            Self::Both => 0,
        }
    }

    fn include(self, role: Role) -> bool {
        match self {
            Self::Client => role == Role::Client,
            Self::Server => role == Role::Server,
            Self::Both => true,
        }
    }
}

/// What one pipeline is told.
pub struct Settings {
    /// Which spans are wanted.
    pub roles: Roles,
    /// What of a call is kept.
    pub call: genai::Options,
    /// An exchange without a byte for so long is given up.
    pub idle_ns: u64,
    /// From record times to the time of day.
    pub clock: UnixOffset,
    /// Where span and trace ids come from.
    pub ids: IdSource,
    /// Tells a process's name and container from its id and what the kernel saw.
    pub describe: fn(u32, &OpenInfo) -> Process,
    /// This worker's index, for the way back of its arenas.
    pub worker: usize,
}

/// A record of user space, kind of [`Kind`]'s values that the kernel doesn't use: what was known of
/// the process of a connection, so that a recording says the same on another machine.
pub const KIND_PROCESS: u8 = 200;

/// Where finished exchanges go, and what becomes of connections that are of no use.
pub trait Outlet {
    /// An exchange is finished.
    fn finished(&mut self, exchange: Exchange);
    /// Nothing more of this connection is wanted.
    fn ignore(&mut self, conn: u64);
    /// An arena that came back from the encoder, if there is one.
    fn arena(&mut self) -> Option<Box<Bump>>;
}

/// What all connections of a worker use in turn.
pub(crate) struct Shared {
    settings: Settings,
    metrics: Arc<Metrics>,
    scratch: genai::Scratch,
    heads: Heads,
    pools: Pools,
    #[expect(clippy::vec_box, reason = "`Travelling` takes and gives boxes")]
    arenas: Vec<Box<Bump>>,
}

impl Shared {
    fn arena(&mut self, outlet: &mut impl Outlet) -> Box<Bump> {
        self.arenas.pop().or_else(|| outlet.arena()).unwrap_or_default()
    }

    fn keep_arena(&mut self, arena: Box<Bump>) {
        if self.arenas.len() < ARENAS_KEPT_MAX {
            self.arenas.push(arena);
        }
    }
}

/// Everything that one worker knows.
pub struct Pipeline {
    conns: HashMap<u64, Box<Conn>, BuildHasherDefault<ConnIdHasher>>,
    shared: Shared,
}

impl Pipeline {
    /// A pipeline that has seen nothing.
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> Self {
        let shared = Shared {
            settings,
            metrics,
            scratch: genai::Scratch::default(),
            heads: Heads::default(),
            pools: Pools::default(),
            arenas: Vec::new(),
        };
        Self { conns: HashMap::default(), shared }
    }

    /// Takes the next record of a ring.
    pub fn record(&mut self, record: &Record<'_>, outlet: &mut impl Outlet) {
        let header = &record.header;
        self.shared.settings.call.withholding = flags::pressure(header.flags) >= pressure::WITHOUT_CONTENT;
        if header.kind == KIND_PROCESS {
            if let Some(conn) = self.conns.get_mut(&header.conn) {
                conn.process = Some(Arc::new(recorded_process(header.tgid, record.payload)));
            }
            return;
        }
        match (Kind::from_u8(header.kind), Direction::from_u8(header.direction)) {
            (Some(Kind::Open), Some(_)) => self.open(header, record.payload, outlet),
            (Some(Kind::Data), Some(direction)) => {
                let Self { conns, shared } = self;
                let Some(conn) = conns.get_mut(&header.conn) else {
                    // Its `Open` was lost; a connection is as good without.
                    self.open(header, &[], outlet);
                    let Self { conns, shared } = self;
                    if let Some(conn) = conns.get_mut(&header.conn) {
                        conn.data(header, direction, record.payload, shared, outlet);
                    }
                    return;
                };
                conn.data(header, direction, record.payload, shared, outlet);
            }
            (Some(Kind::Ends), Some(_)) => {
                // Of a connection whose `Open` was lost they are lost too.
                if let (Some(conn), Some(ends)) = (self.conns.get_mut(&header.conn), endpoints(record.payload)) {
                    conn.network = Arc::new(Network::new(transport::TLS, &ends, &[]));
                }
            }
            (Some(Kind::Close), Some(_)) => {
                if let Some(mut conn) = self.conns.remove(&header.conn) {
                    conn.closed_by_record(header, &mut self.shared, outlet);
                }
            }
            _ => self.shared.metrics.lost(Cause::RecordMalformed, 1),
        }
    }

    fn open(&mut self, header: &RecordHeader, payload: &[u8], outlet: &mut impl Outlet) {
        // Both directions of a connection may have begun at once, on two threads.
        if self.conns.contains_key(&header.conn) {
            return;
        }
        if self.conns.len() >= CONNECTIONS_MAX {
            self.evict(outlet);
        }
        let info = open_info(payload).unwrap_or_default();
        let path = payload.get(size_of::<OpenInfo>()..).unwrap_or_default();
        let mut conn = Box::new(Conn::new(header, header.flags & flags::MIDWAY != 0));
        conn.process = Some(Arc::new((self.shared.settings.describe)(header.tgid, &info)));
        conn.network = Arc::new(Network::new(info.transport, &info.endpoints, path));
        self.shared.metrics.add(Total::Connections, 1);
        self.conns.insert(header.conn, conn);
    }

    fn evict(&mut self, outlet: &mut impl Outlet) {
        let Some(oldest) = self.conns.values().min_by_key(|conn| conn.last_ns).map(|conn| conn.id) else { return };
        if let Some(mut conn) = self.conns.remove(&oldest) {
            self.shared.metrics.lost(Cause::ConnectionEvicted, 1);
            conn.given_up(&mut self.shared, outlet);
        }
    }

    /// The processes `pids` have ended, and all their records were handed over: what they left open
    /// ends here. The times are those of now and of when records were last lost, or 0.
    pub fn processes_ended(&mut self, pids: &[u32], (now_ns, lost_ns): (u64, u64), outlet: &mut impl Outlet) {
        let Self { conns, shared } = self;
        conns.retain(|_, conn| {
            let ended = !conn.network.end_is_told && pids.contains(&conn.tgid);
            if ended {
                // Its last records, the end among them, may be among those.
                let may_lack_records = lost_ns >= conn.last_ns;
                conn.process_ended(now_ns, may_lack_records, shared, outlet);
            }
            !ended
        });
    }

    /// Gives up what has been idle for too long. To be called about once a second.
    pub fn idle(&mut self, now_ns: u64, outlet: &mut impl Outlet) {
        let Self { conns, shared } = self;
        let limit = shared.settings.idle_ns;
        for conn in conns.values_mut() {
            if now_ns.saturating_sub(conn.last_ns) >= limit && conn.has_pending() {
                conn.given_up_idle(shared, outlet);
            }
        }
    }

    /// Sets the offset to the time of day, which changes when the clock is set.
    pub fn set_clock(&mut self, clock: UnixOffset) {
        self.shared.settings.clock = clock;
    }

    /// The capture ends: what is under way ends as it is.
    pub fn finish(&mut self, outlet: &mut impl Outlet) {
        let Self { conns, shared } = self;
        for (_, mut conn) in conns.drain() {
            conn.given_up(shared, outlet);
        }
    }

    /// Connections followed now.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }
}

/// Reads an `Open` record; the ends are missing in recordings of earlier versions.
fn open_info(payload: &[u8]) -> Option<OpenInfo> {
    let comm = payload.get(..16)?.try_into().ok()?;
    let cgroup = u64::from_ne_bytes(payload.get(16..24)?.try_into().ok()?);
    let uid = u32::from_ne_bytes(payload.get(24..28)?.try_into().ok()?);
    let transport = u32::from_ne_bytes(payload.get(28..32)?.try_into().ok()?);
    let endpoints = payload.get(32..).and_then(endpoints).unwrap_or_default();
    Some(OpenInfo { comm, cgroup, uid, transport, endpoints })
}

fn endpoints(bytes: &[u8]) -> Option<Endpoints> {
    let word = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    Some(Endpoints {
        family: word(0)?,
        local_port: word(2)?,
        peer_port: word(4)?,
        pad: 0,
        local: bytes.get(8..24)?.try_into().ok()?,
        peer: bytes.get(24..40)?.try_into().ok()?,
    })
}

/// What the kernel saw of a process is all that is left of it in a recording.
pub fn describe_by_comm(pid: u32, info: &OpenInfo) -> Process {
    let comm = info.comm.split(|&byte| byte == 0).next().unwrap_or_default();
    let executable = std::str::from_utf8(comm).ok().filter(|comm| !comm.is_empty()).map(str::to_owned);
    Process { pid, executable, ..Process::default() }
}

/// The payload of a [`KIND_PROCESS`] record: executable, container id and the other names in the order of
/// the structure, with a NUL between them.
pub fn process_payload(process: &Process) -> Vec<u8> {
    let Process { pid: _, executable, container_id, container_name, pod_uid, pod_name, pod_namespace } = process;
    let texts = [executable, container_id, container_name, pod_uid, pod_name, pod_namespace];
    texts.map(|text| text.as_deref().unwrap_or_default()).join("\0").into_bytes()
}

/// Reads what [`process_payload`] wrote; earlier versions end after the container's id.
fn recorded_process(pid: u32, payload: &[u8]) -> Process {
    let text = String::from_utf8_lossy(payload);
    let mut texts = text.split('\0').map(|text| (!text.is_empty()).then(|| text.to_owned()));
    let mut next = || texts.next().flatten();
    Process {
        pid,
        executable: next(),
        container_id: next(),
        container_name: next(),
        pod_uid: next(),
        pod_name: next(),
        pod_namespace: next(),
    }
}
